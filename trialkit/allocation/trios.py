"""The one group of three in a stratum with an odd count: the best of all trios, by bounds instead of by trying each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trialkit import door
from trialkit._kernels.blossom import Stuck
from trialkit._kernels.matching import Matching, perfect_matching
from trialkit.allocation.problem import Block, Problem, allowed, weigh

Array = np.ndarray[Any, np.dtype[Any]]
Total = tuple[int, ...]
Trio = tuple[int, int, int]


def best_trio(problem: Problem, block: Block) -> Trio:
    """The trio that, with the best pairs of everybody else, has the least vector of totals.

    A trio counts its three distances. Any feasible dual bounds the pairs of a part of the sites from below by its value on
    that part, hence the total of every trio. The dual of the problem with one empty place gives a first bound; the dual of
    the pairs without site a sharpens it for the trios of a, and is exact when the other two are a pair there. Trios are
    taken by their bound, sharpened, and only then solved, until no bound is below the best total found.
    """
    _, (limbs,) = weigh(problem, [block], groups_of_three=True)
    search = _TrioSearch(limbs, allowed(problem, block), len(block.members))
    best = search.run()
    if best is None:
        raise door.PairingError(
            f"no trio among the {len(block.members)} {problem.stratum_words(block.stratum)} "
            f"({door.few([problem.ids[int(k)] for k in block.members], 12)}) leaves the others to be paired within the constraints.\n"
            '  Draw the odd one by itself:   odd="single"'
        )
    a, b, c = best
    return int(block.members[a]), int(block.members[b]), int(block.members[c])


class _TrioSearch:
    """All trios that can still be best, each with a lower bound on twice its total."""

    def __init__(self, limbs: Sequence[Array], edges: Array, n: int) -> None:
        self.edges = edges[:n, :n]
        self.n = n
        self.weights = [w[:n, :n] for w in limbs]
        self.best: tuple[Total, Trio] | None = None
        self.sharp: set[int] = set()
        base = perfect_matching(limbs, edges)
        constant, y = self._dual(base, range(n + 1)) if isinstance(base, Matching) else ([0] * len(limbs), [w[0] * 0 for w in self.weights])
        if isinstance(base, Matching):
            self._join(base.mate[n], base.primal, [(a, b) for a, b in enumerate(base.mate[:n]) if a < b < n])
        self.trios = np.empty((0, 3), dtype=np.int64)
        self.bounds = [w[0, :0] for w in self.weights]
        for a in range(n - 2):
            near = np.flatnonzero(self.edges[a, a + 1 :]) + a + 1
            b, c = (near[k] for k in np.nonzero(np.triu(self.edges[np.ix_(near, near)], 1)))
            found = np.column_stack([np.full(b.size, a), b, c])
            bounds = [2 * (w[a, b] + w[a, c] + w[b, c]) - v[a] - v[b] - v[c] + k for w, v, k in zip(self.weights, y, constant, strict=True)]
            keep = self._open(bounds)
            self.trios = np.concatenate([self.trios, found[keep]])
            self.bounds = [np.concatenate([x, z[keep]]) for x, z in zip(self.bounds, bounds, strict=True)]

    def run(self) -> Trio | None:
        while True:
            keep = self._open(self.bounds)
            if not keep.any():
                return self.best[1] if self.best else None
            self.trios, self.bounds = self.trios[keep], [x[keep] for x in self.bounds]
            k = int(np.lexsort(self.bounds[::-1])[0]) if len(self.bounds) > 1 else int(self.bounds[0].argmin())
            a, b, c = (int(v) for v in self.trios[k])
            dull = [v for v in (a, b, c) if v not in self.sharp]
            if dull:
                self._sharpen(dull[0])
            else:
                self._solve((a, b, c))
                self._drop(np.arange(len(self.trios)) == k)

    def _open(self, bounds: Sequence[Array]) -> Array:
        """Which bounds are below twice the best total."""
        if self.best is None:
            return np.ones(bounds[0].shape, dtype=bool)
        below = np.zeros(bounds[0].shape, dtype=bool)
        for x, total in zip(reversed(bounds), reversed(self.best[0]), strict=True):
            below = (x < 2 * total) | ((x == 2 * total) & below)
        return below

    def _drop(self, gone: Array) -> None:
        self.trios, self.bounds = self.trios[~gone], [x[~gone] for x in self.bounds]

    def _sharpen(self, v: int) -> None:
        """Bound the trios of `v` by the best pairs of everybody else."""
        self.sharp.add(v)
        others = [k for k in range(self.n) if k != v]
        here = (self.trios == v).any(axis=1)
        result = self._pairs(others)
        if not isinstance(result, Matching):
            # a trio's rest, and its other two as a pair, would be pairs of everybody else
            self._drop(here)
            return
        self._join(v, result.primal, [(others[i], others[j]) for i, j in enumerate(result.mate) if i < j])
        constant, y = self._dual(result, others)
        a, b, c = self.trios[here].T
        fresh = [2 * (w[a, b] + w[a, c] + w[b, c]) - x[a] - x[b] - x[c] + k for w, x, k in zip(self.weights, y, constant, strict=True)]
        old = [x[here] for x in self.bounds]
        higher = np.zeros(a.shape, dtype=bool)
        for new, known in zip(reversed(fresh), reversed(old), strict=True):
            higher = (new > known) | ((new == known) & higher)
        for x, new, known in zip(self.bounds, fresh, old, strict=True):
            x[here] = np.where(higher, new, known)

    def _pairs(self, members: Sequence[int]) -> Matching | Stuck:
        some = np.ix_(members, members)
        return perfect_matching([w[some] for w in self.weights], self.edges[some])

    def _dual(self, result: Matching, members: Sequence[int]) -> tuple[list[int], list[Array]]:
        """The value of a dual without any of its sites, and its y by site; 0 for a site that is not in it."""
        constant, duals = [], []
        for k, w in enumerate(self.weights):
            y = np.zeros(self.n, dtype=w.dtype)
            real = [v for v in members if v < self.n]
            y[real] = result.y[k][: len(real)]
            duals.append(y)
            constant.append(int(y.sum()) - sum(x[k] * (len(b) // 2) for b, x in zip(result.blossoms, result.z, strict=True)))
        return constant, duals

    def _join(self, v: int, total: Total, pairs: Sequence[tuple[int, int]]) -> None:
        """A total that some trio reaches: `v` joins one of the pairs of everybody else."""
        for a, b in pairs:
            if self.edges[a, v] and self.edges[b, v]:
                self._offer(tuple(t + int(w[a, v]) + int(w[b, v]) for t, w in zip(total, self.weights, strict=True)), (a, b, v))

    def _solve(self, trio: Trio) -> None:
        a, b, c = trio
        rest = [k for k in range(self.n) if k not in trio]
        result = self._pairs(rest) if rest else None
        if isinstance(result, Stuck):
            return
        total = result.primal if result else (0,) * len(self.weights)
        self._offer(tuple(t + int(w[a, b]) + int(w[a, c]) + int(w[b, c]) for t, w in zip(total, self.weights, strict=True)), trio)

    def _offer(self, total: Total, trio: Trio) -> None:
        if self.best is None or total < self.best[0]:
            a, b, c = sorted(trio)
            self.best = (total, (a, b, c))
