"""A start for the matching search: the assignment relaxation, solved exactly for integers of any size.

Forget that the graph is not bipartite: choose for every vertex a partner, each chosen once, at least total
weight (scipy's linear assignment). Its integer duals u, v give ``y = u + v``, which is feasible for the doubled
matching problem; its cycles of even length are matched, and each odd cycle leaves one vertex for the search.
Floating point is used only to *guess* the assignment; the duals are recovered, and feasible, in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

Array = np.ndarray[Any, np.dtype[Any]]

# float64 holds every integer up to 2**53; path sums inside the assignment solver need room
_FLOAT_BITS = 50
_SWEEPS = 400
_CHUNK = 128


def assignment_start(limbs: Sequence[Array], edges: Array) -> tuple[list[Array], list[int]]:
    """A feasible dual and a matching on its tight edges.

    Parameters
    ----------
    limbs : sequence of (n, n) integer arrays
        Weights (not doubled), compared lexicographically; any finite value where there is no edge.
    edges : (n, n) bool
        Which edges exist; symmetric, False on the diagonal.

    Returns
    -------
    y : list of (n,) arrays
        One a limb, with ``y_i + y_j <= 2 w_ij`` lexicographically on every edge.
    mate : list of int
        Partner by a tight edge, or -1.
    """
    n = edges.shape[0]
    tight = edges
    duals = []
    sigma: Array | None = np.arange(n)
    for limb in limbs:
        u, v, sigma = _assignment(limb, tight, guess=sigma is not None)
        duals.append(u + v)
        tight = tight & (limb == u[:, None] + v)
        tight &= tight.T
    return duals, _match_cycles(sigma, tight)


def _assignment(weight: Array, edges: Array, *, guess: bool) -> tuple[Array, Array, Array | None]:
    """Duals ``u_i + v_j <= w_ij`` on `edges`, and the assignment they prove optimal (None when there is none)."""
    n = edges.shape[0]
    u = np.zeros(n, dtype=weight.dtype)
    v = np.zeros(n, dtype=weight.dtype)
    observed = weight[edges]
    if not observed.size:
        return u, v, None
    largest = max(int(observed.max()), -int(observed.min()))
    sigma = None
    if guess:
        # bits beyond float64 come in rounds: after each, what is left of every useful weight is smaller
        shift = max(0, largest.bit_length() - _FLOAT_BITS)
        rest = weight
        while True:
            coarse = rest >> shift if shift else rest
            found = _rounded(coarse, edges)
            if found is None:
                sigma = None
                break
            sigma, part = found
            v = v + (part << shift if shift else part)
            u = _row_minima(weight - v, edges)
            if not shift:
                break
            rest = weight - u[:, None] - v
            # an edge dearer than the whole of the assignment found is in no better one
            limit = int(sum(rest[np.arange(n), sigma])) + 1
            rest = np.where(rest > limit, limit, rest)
            finer = max(0, limit.bit_length() - _FLOAT_BITS)
            if finer >= shift:  # rounding inside the assignment solver: what is left did not shrink
                break
            shift = finer
    u = _row_minima(weight - v, edges)
    if sigma is not None and not (weight[np.arange(n), sigma] == u + v[sigma]).all():
        sigma = None
    return u, v, sigma


def _row_minima(weight: Array, edges: Array) -> Array:
    """The least weight of each row over its edges, 0 for a row without one."""
    if weight.dtype == object:
        return np.array([min(row[ok], default=0) for row, ok in zip(weight, edges, strict=True)], dtype=object)
    least = np.where(edges, weight, np.iinfo(np.int64).max).min(axis=1)
    return np.where(edges.any(axis=1), least, 0)


def _rounded(weight: Array, edges: Array) -> tuple[Array, Array] | None:
    """The optimal assignment for weights that float64 holds exactly, and its column duals."""
    cost = np.where(edges, weight, 0).astype(np.float64)
    cost[~edges] = np.inf
    try:
        sigma = linear_sum_assignment(cost)[1]
    except ValueError:  # no assignment on these edges
        return None
    n = len(sigma)
    own = weight[np.arange(n), sigma].astype(np.int64)
    # v_j <= v_sigma(i) + w_ij - w_i,sigma(i): shortest paths, by Bellman and Ford's sweeps over the rows that changed
    far = 1 << 60
    reach = np.where(edges, weight, far).astype(np.int64) - own[:, None]
    v = np.empty(n, dtype=np.int64)
    v[sigma] = own // 2
    rows = np.arange(n)
    for _ in range(_SWEEPS):
        before = v.copy()
        for k in range(0, rows.size, _CHUNK):
            some = rows[k : k + _CHUNK]
            np.minimum(v, (reach[some] + v[sigma[some]][:, None]).min(axis=0), out=v)
        changed = v < before
        if not changed.any():
            break
        rows = np.flatnonzero(changed[sigma])
    return sigma, v.astype(weight.dtype)


def _match_cycles(sigma: Array | None, tight: Array) -> list[int]:
    """Match every other edge of each cycle of the assignment; without one, take tight edges as they come."""
    n = tight.shape[0]
    mate = [-1] * n
    for start in range(n):
        if mate[start] >= 0:
            continue
        if sigma is None:
            open_to = [j for j in np.flatnonzero(tight[start]).tolist() if mate[j] < 0]
            if open_to:
                mate[start], mate[open_to[0]] = open_to[0], start
            continue
        cycle = [start]
        while (step := int(sigma[cycle[-1]])) != start:
            cycle.append(step)
        for k in range(0, len(cycle) - 1, 2):
            i, j = cycle[k], cycle[k + 1]
            if mate[i] < 0 and mate[j] < 0 and tight[i, j]:
                mate[i], mate[j] = j, i
    return mate
