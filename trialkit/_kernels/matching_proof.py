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
    sets = [np.unique(np.asarray(b, dtype=np.int64)) for b in blossoms]
    for b, members, value in zip(blossoms, sets, z, strict=True):
        if members.size != len(b) or members.size % 2 == 0 or members.min() < 0 or members.max() >= n:
            return refuse("a blossom is not an odd set of vertices", *b)
        if tuple(value) < (0,) * len(limbs):
            return refuse("a blossom has a negative dual", *b)

    open_edges = edges
    primal = []
    for k, (weight, dual) in enumerate(zip(limbs, y, strict=True)):
        weight, dual = _safe(weight, dual, [int(x[k]) for x in z], open_edges)
        slack = 2 * weight - dual[:, None] - dual
        for members, value in zip(sets, z, strict=True):
            if value[k]:
                slack[np.ix_(members, members)] += value[k]
        broken = (slack < 0) & open_edges
        if broken.any():
            i, j = np.argwhere(broken)[0]
            return refuse("an edge is cheaper than the duals allow", i, j)
        twice = sum(int(x) for x in 2 * weight[everyone, partner]) // 2
        bound = sum(int(v) for v in dual) - sum(int(x[k]) * (members.size // 2) for members, x in zip(sets, z, strict=True))
        if twice != bound:
            return refuse("the total of the pairs differs from the dual bound")
        primal.append(twice // 2)
        # only an edge that is tight so far is judged by the next limb
        open_edges = open_edges & (slack == 0)
    return Verdict("", (), tuple(primal), looked_at)


def _safe(weight: Array, dual: Array, z: Sequence[int], edges: Array) -> tuple[Array, Array]:
    """The arrays as int64 when no sum can overflow, else as Python integers."""
    if weight.dtype != object and dual.dtype != object:
        size = 2 * int(np.abs(weight).max(initial=0)) + 2 * int(np.abs(dual).max(initial=0)) + sum(abs(x) for x in z)
        if size < 1 << 62:
            return weight, dual
    return weight.astype(object), dual.astype(object)
