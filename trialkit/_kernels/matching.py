"""Minimum-weight perfect matching with weights ranked lexicographically, exact, with a dual certificate.

The verb of the room: `perfect_matching` starts from the assignment relaxation (`matching_start`), completes the
matching by blossom search (`blossom`), and has the certificate checked on every edge (`matching_proof`) before
anything is returned. `pack` turns ranked criteria into as few limbs as int64 and float64 can hold exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trialkit._kernels.blossom import EDGELESS, DualsTooLarge, Search, Stuck
from trialkit._kernels.blossom_forest import Forest
from trialkit._kernels.matching_proof import check_certificate
from trialkit._kernels.matching_start import assignment_start

Array = np.ndarray[Any, np.dtype[Any]]

# a packed limb stays exact in float64 with room for path sums (matching_start) and doubled in int64 (blossom)
LIMB_BITS = 50
_PLAIN = np.frompyfunc(int, 1, 1)


@dataclass(frozen=True, slots=True)
class Matching:
    """A perfect matching and the proof that none is cheaper."""

    mate: tuple[int, ...]  # (n,)    partner of each vertex
    y: tuple[tuple[int, ...], ...]  # (L, n)  vertex duals, in half units of weight
    blossoms: tuple[tuple[int, ...], ...]  # (B,)    odd sets of vertices
    z: tuple[tuple[int, ...], ...]  # (B, L)  their duals
    primal: tuple[int, ...]  # (L,)    total weight, equal to the dual bound
    edges: int  # edges on which the certificate was checked


def perfect_matching(limbs: Sequence[Array], edges: Array) -> Matching | Stuck:
    """The perfect matching whose vector of total weights is lexicographically least.

    Parameters
    ----------
    limbs : sequence of (n, n) arrays
        Weights in rank order: symmetric, non-negative; int64 below ``2**50``, or object holding Python integers of any size.
    edges : (n, n) bool
        Which pairs may be formed: symmetric, False on the diagonal.

    Returns
    -------
    Matching or Stuck
        The optimum with its checked certificate, or the sets of vertices that rule out every perfect matching.

    Raises
    ------
    ValueError
        An odd number of vertices, or arrays of the wrong shape, dtype or size.
    RuntimeError
        The certificate did not hold: a fault in this module, never in the data.

    Examples
    --------
    >>> budget = np.array([0, 10, 11, 21])
    >>> result = perfect_matching([abs(budget[:, None] - budget)], ~np.eye(4, dtype=bool))
    >>> result.mate, result.primal
    ((1, 0, 3, 2), (20,))
    """
    n = edges.shape[0]
    if n % 2:
        raise ValueError(f"{n} vertices cannot be matched perfectly: the number is odd")
    if not limbs or any(limb.shape != (n, n) for limb in limbs):
        raise ValueError("every limb must be an (n, n) array, and there must be one")
    for limb in limbs:
        if limb.dtype != object and (limb.dtype != np.int64 or int(np.abs(limb).max(initial=0)) >> LIMB_BITS):
            raise ValueError(f"a limb must be int64 below 2**{LIMB_BITS}, or object")
    # numpy scalars inside an object array would overflow where Python integers do not
    limbs = [np.asarray(_PLAIN(limb)) if limb.dtype == object else limb for limb in limbs]
    y, mate = assignment_start(limbs, edges)
    try:
        search, stuck = _search(limbs, edges, y, mate)
    except DualsTooLarge:
        search, stuck = _search([x.astype(object) for x in limbs], edges, [v.astype(object) for v in y], mate)
    if stuck is not None:
        return stuck
    found = search.blossoms()
    blossoms, z = tuple(b for b, _ in found), tuple(x for _, x in found)
    verdict = check_certificate(limbs, edges, search.mate, search.pot, blossoms, z)
    if not verdict.holds:
        raise RuntimeError(f"the matching kernel failed its own certificate: {verdict.complaint}")
    return Matching(
        mate=tuple(search.mate),
        y=tuple(tuple(int(x) for x in v) for v in search.pot),
        blossoms=blossoms,
        z=z,
        primal=verdict.primal,
        edges=verdict.edges,
    )


def _search(limbs: Sequence[Array], edges: Array, y: Sequence[Array], mate: Sequence[int]) -> tuple[Search, Stuck | None]:
    doubled = [2 * limb for limb in limbs]
    edgeless = EDGELESS
    if doubled[0].dtype == object:
        # beyond any path sum; the number of vertices bounds the length of a path
        edgeless = 1 << (
            max(int(doubled[0].max(initial=0)), int(np.abs(y[0]).max(initial=0)), 1).bit_length() + edges.shape[0].bit_length() + 8
        )
    doubled[0][~edges] = edgeless
    search = Forest(doubled, y, list(mate), edgeless=edgeless)
    return search, search.run()


@dataclass(frozen=True, slots=True)
class Layout:
    """How ranks share limbs: for each limb, its ranks in order and the multiplier of each.

    Inside a limb, the weight is ``sum_r multiplier_r * distance_r``; a multiplier exceeds the largest total that
    all later ranks of its limb can reach, so that one limb orders as its ranks do, one after the other.
    """

    limbs: tuple[tuple[tuple[int, int], ...], ...]


def layout(sizes: Sequence[int], totals: Sequence[int]) -> Layout:
    """Share limbs among ranks: `sizes` are the largest single distances, `totals` upper bounds on the totals (ints, by rank)."""
    limbs: list[tuple[tuple[int, int], ...]] = []
    current: list[int] = []

    def multipliers(ranks: Sequence[int]) -> list[int]:
        out, reach = [], 0
        for r in reversed(ranks):
            out.append(reach + 1)
            reach += (reach + 1) * totals[r]
        return out[::-1]

    def close() -> None:
        if current:
            limbs.append(tuple(zip(current, multipliers(current), strict=True)))
            current.clear()

    for r in range(len(sizes)):
        trial = [*current, r]
        if current and sum(m * sizes[k] for k, m in zip(trial, multipliers(trial), strict=True)) >> LIMB_BITS:
            close()
        current.append(r)
    close()
    return Layout(tuple(limbs))


def pack(distances: Mapping[int, Array], plan: Layout) -> list[Array]:
    """The limbs of a `Layout` from the distance arrays of its ranks; int64 where it is exact, else Python integers."""
    limbs = []
    for ranks in plan.limbs:
        size = sum(m * int(distances[r].max(initial=0)) for r, m in ranks)
        kind: type = object if size >> LIMB_BITS else np.int64
        total: Array = np.zeros_like(distances[ranks[0][0]], dtype=kind)
        for r, m in ranks:
            total = total + distances[r].astype(kind) * m
        limbs.append(total)
    return limbs
