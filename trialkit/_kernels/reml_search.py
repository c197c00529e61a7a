"""Where the (restricted) likelihood of two nested random intercepts is largest, for many data sets in step.

Two rules guard against the usual faults. A variance is put at zero only when the derivative *in the ratio itself* points outward there (the
derivative in its square root is zero at zero whatever the data say), and every local optimum met on a scan of the whole range is polished
and compared, because restricted likelihoods of unbalanced data can have two. The search runs in t = log(1 + size * theta): linear near
zero, logarithmic far away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels.reml_criterion import Blocks, State, criterion, evaluate, gradient, grid_of_two, hessian
from trialkit._kernels.reml_reduction import Array, IntArray

BoolArray = NDArray[np.bool_]

# theta * size on which the criterion is scanned, for either factor
_SCAN_TWO = np.array([0.0, 0.04, 0.4, 3.0, 30.0, 1e3, 1e6])
_LIMIT = 1e11  # theta * size beyond which the residual variance is called zero
_MAX_STEPS = 100


@dataclass(frozen=True, slots=True)
class Found:
    """Optimum of S data sets."""

    theta: Array  # (S, k)
    iterations: IntArray  # (S,)    Newton steps
    evaluations: IntArray  # (S,)    of the criterion, the scan included
    optima: IntArray  # (S,)    local optima compared
    converged: BoolArray  # (S,)
    unbounded: BoolArray  # (S,)    the criterion still falls at the upper limit: zero residual variance


def search_two(blocks: Blocks) -> Found:
    """Global optimum of each data set in `blocks`, which have two grouping factors."""
    S = blocks.n_sets
    size = np.broadcast_to(blocks.typical_size(), (S, 2))
    G = _SCAN_TWO.size
    value = grid_of_two(blocks, _SCAN_TWO / size[:, :1], _SCAN_TWO / size[:, 1:])
    padded = np.pad(value, ((0, 0), (1, 1), (1, 1)), constant_values=np.inf)
    lowest = np.ones(value.shape, dtype=np.bool_)
    for i in (0, 1, 2):
        for j in (0, 1, 2):
            if (i, j) != (1, 1):
                lowest &= value <= padded[:, i : i + G, j : j + G]
    sets, rows, columns = np.nonzero(lowest)
    start = np.log1p(np.stack([_SCAN_TWO[rows], _SCAN_TWO[columns]], axis=-1))
    # a start on the edge is moved inside: the edge is reached by a step, never assumed
    start = np.where(start == 0.0, np.log1p(0.5 * _SCAN_TWO[1]), start)
    run = _newton_two(blocks.take(sets), size[sets], start)
    order = np.lexsort((run.value, sets))
    first = order[np.concatenate(([True], sets[order][1:] != sets[order][:-1]))]
    evaluations = np.full(S, G * G, dtype=np.intp)
    iterations = np.zeros(S, dtype=np.intp)
    np.add.at(evaluations, sets, run.evaluations)
    np.add.at(iterations, sets, run.steps)
    theta = run.theta[first]
    unbounded = np.any(theta * size >= _LIMIT * (1.0 - 1e-9), axis=-1)
    return Found(theta, iterations, evaluations, np.bincount(sets, minlength=S), run.converged[first] & ~unbounded, unbounded)


@dataclass(frozen=True, slots=True)
class _InsideTwo:
    theta: Array  # (S, 2)
    value: Array  # (S,)
    steps: IntArray
    evaluations: IntArray
    converged: BoolArray


def _newton_two(blocks: Blocks, size: Array, start: Array) -> _InsideTwo:
    """Projected Newton in t with an active set and step halving; data sets (S,) in step. theta below zero is never tried."""
    n, p, reml = blocks.n, blocks.p, blocks.reml
    S = size.shape[0]
    top = np.log1p(_LIMIT)
    out_theta, out_value = np.empty((S, 2)), np.empty(S)
    steps, evaluations = np.zeros(S, dtype=np.intp), np.zeros(S, dtype=np.intp)
    converged = np.zeros(S, dtype=np.bool_)
    live = np.arange(S)
    part, s, t = blocks, size, start

    def at(part: Blocks, t: Array, s: Array) -> tuple[Array, Array, Array, Array, Array]:
        theta = np.expm1(t) / s
        state: State = evaluate(part, theta[:, None, :], order=2)
        g, level = (a[:, 0] for a in gradient(state, n=n, p=p, reml=reml))
        observed, expected = (a[:, 0] for a in hessian(state, n=n, p=p, reml=reml))
        return criterion(state, n=n, p=p, reml=reml)[:, 0], g, level, observed, expected

    value, g, level, observed, expected = at(part, t, s)
    evaluations += 1
    last = np.full(S, np.inf)
    for _ in range(_MAX_STEPS):
        chain = np.exp(t) / s
        first = g * chain
        at_zero = (t <= 0.0) & (g >= 0.0)
        direction = _direction(first, chain, observed, expected, at_zero)
        # a ratio at zero that wants to grow, but that Newton would push below zero on another's account, waits for the other
        waits = (t <= 0.0) & ~at_zero & (direction < 0.0)
        if waits.any():
            direction = _direction(first, chain, observed, expected, at_zero | waits)
        move = direction * np.minimum(1.0, 3.0 / np.maximum(np.abs(direction).max(axis=-1, keepdims=True), 1e-300))
        target = np.clip(t + move, 0.0, top)
        residue = np.where(at_zero, 0.0, np.abs(g) / level).max(axis=-1)
        done = np.all(at_zero | (np.abs(first) <= 4e-15 * level * chain) | (np.abs(target - t) <= 1e-14 * t), axis=-1)
        done |= (t >= top).any(axis=-1)
        done |= (residue < 1e-10) & (residue > 0.3 * last)  # Newton no longer gains: the slope is down to its rounding
        finished = done.copy()
        new, new_value, new_g, new_level, new_observed, new_expected = t.copy(), value, g, level, observed, expected
        shrink = np.ones(live.size)
        waiting = np.flatnonzero(~done)
        if waiting.size:
            new_value, new_g, new_level = value.copy(), g.copy(), level.copy()
            new_observed, new_expected = observed.copy(), expected.copy()
            steps[live[waiting]] += 1
        while waiting.size:
            trial = np.clip(t[waiting] + shrink[waiting, None] * move[waiting], 0.0, top)
            v, g1, l1, o1, e1 = at(part.take(waiting), trial, s[waiting])
            evaluations[live[waiting]] += 1
            # close to the optimum the criterion only resolves about 1e-12 of itself; there Newton's step is trusted
            accept = v <= value[waiting] + 1e-11 * (1.0 + np.abs(value[waiting]))
            tiny = np.abs(shrink[waiting, None] * move[waiting]).max(axis=-1) < 1e-12
            ok = waiting[accept]
            new[ok], new_value[ok], new_g[ok], new_level[ok] = trial[accept], v[accept], g1[accept], l1[accept]
            new_observed[ok], new_expected[ok] = o1[accept], e1[accept]
            finished[waiting[tiny & ~accept]] = True
            waiting = waiting[~accept & ~tiny]
            shrink[waiting] *= 0.5
        if finished.any():
            i = live[finished]
            out_theta[i], out_value[i] = np.expm1(t[finished]) / s[finished], value[finished]
            converged[i] = True
            keep = ~finished
            if not keep.any():
                return _InsideTwo(out_theta, out_value, steps, evaluations, converged)
            live, s, new = live[keep], s[keep], new[keep]
            part = blocks.take(live)
            new_value, new_g, new_level = new_value[keep], new_g[keep], new_level[keep]
            new_observed, new_expected, residue = new_observed[keep], new_expected[keep], residue[keep]
        last = residue
        t, value, g, level, observed, expected = new, new_value, new_g, new_level, new_observed, new_expected
    out_theta[live], out_value[live] = np.expm1(t) / s, value
    return _InsideTwo(out_theta, out_value, steps, evaluations, converged)


def _direction(first: Array, chain: Array, observed: Array, expected: Array, at_zero: BoolArray) -> Array:
    """Newton direction (S, 2) over the free ratios; where the observed curvature is not positive, that of the expected information."""
    scale = chain[:, :, None] * chain[:, None, :]
    eye = np.eye(2)
    curvature = observed * scale + eye * first[:, None, :]
    fixed = at_zero[:, :, None] | at_zero[:, None, :]
    curvature = np.where(fixed, eye, curvature)
    g = np.where(at_zero, 0.0, first)
    a, b, d = curvature[:, 0, 0], curvature[:, 0, 1], curvature[:, 1, 1]
    determinant = a * d - b * b
    # the smaller eigenvalue is above determinant / trace, and the larger below the trace
    clear = (a + d > 0.0) & (determinant > 1e-9 * (a + d) ** 2)
    step = np.stack([b * g[:, 1] - d * g[:, 0], b * g[:, 0] - a * g[:, 1]], axis=-1) / np.where(clear, determinant, 1.0)[:, None]
    if not clear.all():
        rest = np.flatnonzero(~clear)
        values, vectors = np.linalg.eigh(curvature[rest])
        poor = values[:, 0] <= 1e-10 * np.abs(values[:, -1])
        if poor.any():
            fallback = np.where(fixed, eye, expected * scale)[rest]
            values[poor], vectors[poor] = np.linalg.eigh(fallback[poor])
            values[poor] = np.maximum(np.abs(values[poor]), 1e-12 * np.abs(values[poor]).max(axis=-1, keepdims=True) + 1e-300)
        step[rest] = -np.einsum("sij,sj,skj,sk->si", vectors, 1.0 / values, vectors, g[rest])
    return np.asarray(step)
