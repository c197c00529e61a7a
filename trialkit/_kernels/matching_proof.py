"""The independent check of a matching's dual certificate: a few lines that share nothing with the search.

For any perfect matching M, any y, and any odd sets B with z_B >= 0: if ``y_i + y_j - sum_{B contains i, j} z_B <= 2 w_ij``
on every edge, then ``2 w(M) >= sum_i y_i - sum_B z_B (|B| - 1) / 2``, because M has at most (|B| - 1) / 2 edges inside B
(Edmonds 1965). A matching that meets the bound is optimal. Weights and duals are vectors compared lexicographically.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_PLAIN = np.frompyfunc(int, 1, 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check found: `complaint` is empty when the certificate holds."""

    complaint: str
    at: tuple[int, ...]  # the vertices the complaint is about
    primal: tuple[int, ...]  # total weight of the matching, a limb
    edges: int  # how many edges were looked at

    @property
    def holds(self) -> bool:
        """Whether the matching is proved optimal."""
        return not self.complaint


def check_certificate(
    limbs: Sequence[Array],
    edges: Array,
    mate: Sequence[int],
    y: Sequence[Array],
    blossoms: Sequence[Sequence[int]],
    z: Sequence[Sequence[int]],
) -> Verdict:
    """Prove, or refuse to prove, that a perfect matching has the lexicographically least weight.

    Parameters
    ----------
    limbs : sequence of (n, n) integer arrays
        Weights, not doubled.
    edges : (n, n) bool
        Which edges exist.
    mate : (n,) sequence of int
        The partner of each vertex.
    y : sequence of (n,) integer arrays
        Vertex duals, one array a limb, in units of half a weight.
    blossoms, z : sequences
        Odd sets of vertices and their duals (one integer a limb).
    """
    n = edges.shape[0]
    looked_at = int(np.count_nonzero(edges)) // 2
    partner = np.asarray(mate, dtype=np.int64)
    everyone = np.arange(n)

    def refuse(complaint: str, *at: int) -> Verdict:
        return Verdict(complaint, tuple(int(v) for v in at), (), looked_at)

    if partner.shape != (n,) or ((partner < 0) | (partner >= n) | (partner == everyone)).any() or (partner[partner] != everyone).any():
        return refuse("the pairs are not a perfect matching")
    without = np.flatnonzero(~edges[everyone, partner])
    if without.size:
        return refuse("a pair is not allowed", without[0], partner[without[0]])
    if len(y) != len(limbs) or any(v.shape != (n,) for v in y) or len(z) != len(blossoms) or any(len(x) != len(limbs) for x in z):
        return refuse("the certificate has the wrong shape")
    for b, value in zip(blossoms, z, strict=True):
        if len(set(b)) != len(b) or len(b) % 2 == 0 or min(b) < 0 or max(b) >= n:
            return refuse("a blossom is not an odd set of vertices", *b)
        if tuple(value) < (0,) * len(limbs):
            return refuse("a blossom has a negative dual", *b)
    nest = _nest(blossoms, n)
    if nest is None:
        return refuse("two blossoms overlap without one holding the other")

    open_edges = edges
    primal = []
    for k, (weight, dual) in enumerate(zip(limbs, y, strict=True)):
        weight, dual = _safe(weight, dual, [int(x[k]) for x in z], open_edges)
        slack = 2 * weight - dual[:, None] - dual
        _add_blossoms(slack, nest, [int(x[k]) for x in z])
        broken = (slack < 0) & open_edges
        if broken.any():
            i, j = np.argwhere(broken)[0]
            return refuse("an edge is cheaper than the duals allow", i, j)
        twice = sum(int(x) for x in 2 * weight[everyone, partner]) // 2
        bound = sum(int(v) for v in dual) - sum(int(x[k]) * (len(b) // 2) for b, x in zip(blossoms, z, strict=True))
        if twice != bound:
            return refuse("the total of the pairs differs from the dual bound")
        primal.append(twice // 2)
        # only an edge that is tight so far is judged by the next limb
        open_edges = open_edges & (slack == 0)
    return Verdict("", (), tuple(primal), looked_at)


@dataclass(frozen=True, slots=True)
class _Nested:
    """One blossom in its family: its vertices apart from the largest blossom inside it, and that one."""

    blossom: int
    rest: Array
    heir: int  # the largest blossom directly inside, or -1
    members: Array


def _nest(blossoms: Sequence[Sequence[int]], n: int) -> list[_Nested] | None:
    """The blossoms from the largest down, each with its largest part; None when two cross."""
    owner = np.full(n, -1)
    family = []
    for k in sorted(range(len(blossoms)), key=lambda k: len(blossoms[k])):
        members = np.array(blossoms[k], dtype=np.int64)
        inside, counts = np.unique(owner[members], return_counts=True)
        parts = {int(i): int(c) for i, c in zip(inside, counts, strict=True) if i >= 0}
        if any(count != len(blossoms[i]) for i, count in parts.items()):
            return None
        heir = max(parts, key=parts.__getitem__, default=-1)
        family.append(_Nested(k, members[owner[members] != heir] if heir >= 0 else members, heir, members))
        owner[members] = k
    return family[::-1]


def _add_blossoms(slack: Array, family: Sequence[_Nested], z: Sequence[int]) -> None:
    """Add to each edge the duals of the blossoms that hold both its ends.

    What a blossom adds to the edges inside its largest part is handed down to that part, so that deep nests cost no
    more than the edges there are.
    """
    owed = list(z)
    for b in family:
        value = owed[b.blossom]
        if not value:
            continue
        slack[b.rest[:, None], b.members] += value
        if b.heir >= 0:
            heirs = np.setdiff1d(b.members, b.rest, assume_unique=True)
            slack[heirs[:, None], b.rest] += value
            owed[b.heir] += value


def _safe(weight: Array, dual: Array, z: Sequence[int], edges: Array) -> tuple[Array, Array]:
    """The arrays as int64 when no sum can overflow, else as Python integers."""
    if weight.dtype != object and dual.dtype != object:
        size = 2 * int(np.abs(weight).max(initial=0)) + 2 * int(np.abs(dual).max(initial=0)) + sum(abs(x) for x in z)
        if size < 1 << 62:
            return weight, dual
    return _PLAIN(weight.astype(object)), _PLAIN(dual.astype(object))
