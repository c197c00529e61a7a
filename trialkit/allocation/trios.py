"""The one group of three in a stratum with an odd count: the best of all trios, by bounds instead of by trying each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trialkit import door
from trialkit._kernels.matching import Matching, perfect_matching
from trialkit.allocation.problem import Block, Problem, allowed, weigh

Array = np.ndarray[Any, np.dtype[Any]]
Total = tuple[int, ...]
Trio = tuple[int, int, int]


def best_trio(problem: Problem, block: Block) -> Trio:
    """The trio that, with the best pairs of everybody else, has the least vector of totals.

    A trio counts its three distances. The dual of the problem with one empty place bounds the total of every trio from
    below (the rest of the matching costs at least the rest of the dual), so trios are tried in order of that bound and
    the search stops when the next bound is no better than the best total found.
    """
    _, (limbs,) = weigh(problem, [block], groups_of_three=True)
    edges = allowed(problem, block)
    n = len(block.members)
    best: tuple[Total, Trio] | None = None
    for bound, trio in _by_bound(limbs, edges, n):
        if best is not None and bound >= tuple(2 * x for x in best[0]):
            break
        rest = np.array([k for k in range(n) if k not in trio], dtype=np.int64)
        total = _within(limbs, trio)
        if rest.size:
            result = perfect_matching([w[np.ix_(rest, rest)] for w in limbs], edges[np.ix_(rest, rest)])
            if not isinstance(result, Matching):
                continue
            total = tuple(a + b for a, b in zip(total, result.primal, strict=True))
        if best is None or total < best[0]:
            best = (total, trio)
    if best is None:
        raise door.PairingError(
            f"no trio among the {n} {problem.stratum_words(block.stratum)} leaves the others to be paired within the constraints.\n"
            '  Draw the odd one by itself:   odd="single"'
        )
    a, b, c = best[1]
    return int(block.members[a]), int(block.members[b]), int(block.members[c])


def _within(limbs: Sequence[Array], trio: Trio) -> Total:
    a, b, c = trio
    return tuple(int(w[a, b]) + int(w[a, c]) + int(w[b, c]) for w in limbs)


def _by_bound(limbs: Sequence[Array], edges: Array, n: int) -> Iterator[tuple[Total, Trio]]:
    """Trios with a lower bound on twice their total, lowest first; those that cannot be best are left out."""
    base = perfect_matching(limbs, edges)
    if isinstance(base, Matching):
        y = [np.array(v[:n], dtype=w.dtype) for v, w in zip(base.y, limbs, strict=True)]
        held = [sum(x[k] * (len(b) // 2) for b, x in zip(base.blossoms, base.z, strict=True)) for k in range(len(limbs))]
        constant = [int(v.sum()) - h for v, h in zip(y, held, strict=True)]
        ceiling = _joined(limbs, edges, base, n)
    else:
        y, constant, ceiling = [np.zeros(n, dtype=w.dtype) for w in limbs], [0] * len(limbs), None
    parts: list[list[Array]] = [[] for _ in limbs]
    found: list[Array] = []
    first = limbs[0][:n, :n]
    inner = edges[:n, :n]
    for a in range(n - 2):
        near = np.flatnonzero(inner[a, a + 1 :]) + a + 1
        b, c = (near[k] for k in np.nonzero(np.triu(inner[np.ix_(near, near)], 1)))
        lead = 2 * (first[a, b] + first[a, c] + first[b, c]) - y[0][a] - y[0][b] - y[0][c] + constant[0]
        if ceiling is not None:
            keep = np.flatnonzero(lead <= 2 * ceiling[0])
            b, c, lead = b[keep], c[keep], lead[keep]
        found.append(np.column_stack([np.full(b.size, a), b, c]))
        parts[0].append(lead)
        for k, w in enumerate(limbs[1:], start=1):
            parts[k].append(2 * (w[a, b] + w[a, c] + w[b, c]) - y[k][a] - y[k][b] - y[k][c] + constant[k])
    if not found:
        return
    trios = np.concatenate(found)
    bounds = [np.concatenate(p) for p in parts]
    for k in np.lexsort(bounds[::-1]).tolist():
        yield tuple(int(x[k]) for x in bounds), (int(trios[k, 0]), int(trios[k, 1]), int(trios[k, 2]))


def _joined(limbs: Sequence[Array], edges: Array, base: Matching, n: int) -> Total | None:
    """A total that some trio reaches: the site left over by the best pairs joins the pair it is closest to."""
    spare = base.mate[n]
    pairs = [(a, b) for a, b in enumerate(base.mate[:n]) if a < b < n and edges[a, spare] and edges[b, spare]]
    if not pairs:
        return None
    added = min(tuple(int(w[a, spare]) + int(w[b, spare]) for w in limbs) for a, b in pairs)
    return tuple(p + x for p, x in zip(base.primal, added, strict=True))
