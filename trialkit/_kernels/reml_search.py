"""Where the (restricted) likelihood is largest: variance ratios at or above zero, found for many data sets in step.

Two rules guard against the usual faults. A variance is put at zero only when the derivative *in the ratio itself* points outward there (the
derivative in its square root is zero at zero whatever the data say), and every local optimum met on a scan of the whole range is polished
and compared, because restricted likelihoods of unbalanced data can have two. The search runs in t = log(1 + size * theta): linear near
zero, logarithmic far away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels.reml_criterion import Blocks, State, criterion, evaluate, gradient, hessian
from trialkit._kernels.reml_reduction import Array, IntArray

BoolArray = NDArray[np.bool_]

# theta * size on which the criterion is scanned; the last ones only serve outcomes that hardly vary within groups
_SCAN = np.array([0.0, 0.01, 0.03, 0.1, 0.25, 0.6, 1.5, 4.0, 10.0, 30.0, 100.0, 1e3, 1e5, 1e8, 1e11])
_SCAN_TWO = np.array([0.0, 0.03, 0.2, 1.0, 5.0, 30.0, 300.0])
_LIMIT = 1e11  # theta * size beyond which the residual variance is called zero
_MAX_STEPS = 100


@dataclass(frozen=True, slots=True)
class Found:
    """Optimum of S data sets."""

    theta: Array  # (S, k)
    gradient: Array  # (S, k)  derivative of the criterion in theta
    noise: Array  # (S, k)  size of the terms that derivative is the difference of
    iterations: IntArray  # (S,)
    evaluations: IntArray  # (S,)    including the scan
    optima: IntArray  # (S,)    local optima compared
    converged: BoolArray  # (S,)
    unbounded: BoolArray  # (S,)    the criterion still falls at the upper limit: zero residual variance


def search(blocks: Blocks) -> Found:
    """Global optimum of each data set in `blocks`."""
    return _search_two(blocks) if blocks.n_factors == 2 else _search_one(blocks)


def _search_one(blocks: Blocks) -> Found:
    n, p, reml = blocks.n, blocks.p, blocks.reml
    S = blocks.n_sets
    size = np.broadcast_to(blocks.typical_size()[:, 0], (S,))
    grid = _SCAN / size[:, None]  # (S, G)
    state = evaluate(blocks, grid[..., None], order=1)
    value = criterion(state, n=n, p=p, reml=reml)
    slope, noise = (a[..., 0] for a in gradient(state, n=n, p=p, reml=reml))

    best_theta = np.zeros(S)
    best_value = np.where(slope[:, 0] >= 0.0, value[:, 0], np.inf)
    best_slope, best_noise = slope[:, 0].copy(), noise[:, 0].copy()
    iterations = np.zeros(S, dtype=np.intp)
    evaluations = np.full(S, _SCAN.size, dtype=np.intp)
    converged = np.isfinite(best_value)
    optima = converged.astype(np.intp)
    unbounded = slope[:, -1] < -1e-9 * noise[:, -1]

    sets, cells = np.nonzero((slope[:, :-1] < 0.0) & (slope[:, 1:] >= 0.0))
    if sets.size:
        s = size[sets]
        inside = _newton_one(
            blocks.take(sets), s, np.log1p(_SCAN[cells]), np.log1p(_SCAN[cells + 1]), slope[sets, cells], slope[sets, cells + 1]
        )
        for row, i in enumerate(sets):  # a loop over optima, of which there is nearly always one a set
            iterations[i] += inside.steps[row]
            evaluations[i] += inside.steps[row] + 1
            optima[i] += 1
        order = np.lexsort((inside.value, sets))
        first = order[np.concatenate(([True], sets[order][1:] != sets[order][:-1]))]
        i = sets[first]
        better = inside.value[first] < best_value[i]
        i, row = i[better], first[better]
        best_theta[i], best_value[i] = inside.theta[row], inside.value[row]
        best_slope[i], best_noise[i], converged[i] = inside.slope[row], inside.noise[row], inside.converged[row]
    return Found(
        best_theta[:, None], best_slope[:, None], best_noise[:, None], iterations, evaluations, optima, converged & ~unbounded, unbounded
    )


@dataclass(frozen=True, slots=True)
class _Inside:
    theta: Array
    value: Array
    slope: Array
    noise: Array
    steps: IntArray
    converged: BoolArray


def _newton_one(blocks: Blocks, size: Array, low: Array, high: Array, slope_low: Array, slope_high: Array) -> _Inside:
    """Newton's method for the derivative in t, kept inside a bracket of its sign change; all arrays (S,)."""
    n, p, reml = blocks.n, blocks.p, blocks.reml
    S = size.size
    g_low, g_high = slope_low * np.exp(low), slope_high * np.exp(high)
    t = low + (high - low) * g_low / (g_low - g_high)
    theta, value, slope, noise = np.empty(S), np.empty(S), np.empty(S), np.empty(S)
    steps = np.zeros(S, dtype=np.intp)
    converged = np.zeros(S, dtype=np.bool_)
    live = np.arange(S)
    part = blocks
    for step in range(_MAX_STEPS):
        ratio = np.expm1(t) / size[live]
        state = evaluate(part, ratio[:, None, None], order=2)
        g, level = (a[:, 0, 0] for a in gradient(state, n=n, p=p, reml=reml))
        h = hessian(state, n=n, p=p, reml=reml)[0][:, 0, 0, 0]
        theta[live], value[live] = ratio, criterion(state, n=n, p=p, reml=reml)[:, 0]
        slope[live], noise[live], steps[live] = g, level, step + 1
        falling = g < 0.0
        low, high = np.where(falling, t, low), np.where(falling, high, t)
        # derivatives in t: theta = (e^t - 1) / size
        chain = np.exp(t) / size[live]
        first, second = g * chain, h * chain * chain + g * chain
        newton = t - first / np.where(second > 0.0, second, np.inf)
        inside = (second > 0.0) & (newton > low) & (newton < high)
        new = np.where(inside, newton, 0.5 * (low + high))
        move = np.abs(new - t)
        done = (np.abs(first) <= 2e-15 * level * chain) | (inside & (move <= 1e-14 * t)) | (high - low <= 2e-16 * high)
        if done.any():
            converged[live[done]] = True
            keep = ~done
            if not keep.any():
                break
            live, new, low, high = live[keep], new[keep], low[keep], high[keep]
            part = blocks.take(live)
        t = new
    return _Inside(theta, value, slope, noise, steps, converged)


def _search_two(blocks: Blocks) -> Found:
    n, p, reml = blocks.n, blocks.p, blocks.reml
    S = blocks.n_sets
    size = np.broadcast_to(blocks.typical_size(), (S, 2))
    G = _SCAN_TWO.size
    points = np.stack(np.meshgrid(_SCAN_TWO, _SCAN_TWO, indexing="ij"), axis=-1).reshape(-1, 2)
    value = criterion(evaluate(blocks, points / size[:, None, :], order=0), n=n, p=p, reml=reml).reshape(S, G, G)
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
    return Found(
        theta,
        run.slope[first],
        run.noise[first],
        iterations,
        evaluations,
        np.bincount(sets, minlength=S),
        run.converged[first],
        np.asarray((theta * size >= _LIMIT).any(axis=-1)),
    )


@dataclass(frozen=True, slots=True)
class _InsideTwo:
    theta: Array  # (S, 2)
    value: Array  # (S,)
    slope: Array  # (S, 2)
    noise: Array  # (S, 2)
    steps: IntArray
    evaluations: IntArray
    converged: BoolArray


def _newton_two(blocks: Blocks, size: Array, start: Array) -> _InsideTwo:
    """Projected Newton in t with an active set and step halving; data sets (S,) in step. theta below zero is never tried."""
    n, p, reml = blocks.n, blocks.p, blocks.reml
    S = size.shape[0]
    top = np.log1p(_LIMIT)
    out_theta, out_value, out_slope, out_noise = np.empty((S, 2)), np.empty(S), np.empty((S, 2)), np.empty((S, 2))
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
    for _ in range(_MAX_STEPS):
        chain = np.exp(t) / s
        first = g * chain
        at_zero = (t <= 0.0) & (g >= 0.0)
        direction = _direction(first, chain, observed, expected, at_zero)
        move = np.clip(direction, -3.0, 3.0)
        target = np.clip(t + move, 0.0, top)
        done = np.all(at_zero | (np.abs(first) <= 4e-15 * level * chain) | (np.abs(target - t) <= 1e-14 * t), axis=-1)
        done |= (t >= top).any(axis=-1)
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
            out_slope[i], out_noise[i], converged[i] = g[finished], level[finished], True
            keep = ~finished
            if not keep.any():
                return _InsideTwo(out_theta, out_value, out_slope, out_noise, steps, evaluations, converged)
            live, s, new = live[keep], s[keep], new[keep]
            part = blocks.take(live)
            new_value, new_g, new_level = new_value[keep], new_g[keep], new_level[keep]
            new_observed, new_expected = new_observed[keep], new_expected[keep]
        t, value, g, level, observed, expected = new, new_value, new_g, new_level, new_observed, new_expected
    out_theta[live], out_value[live] = np.expm1(t) / s, value
    out_slope[live], out_noise[live] = g, level
    return _InsideTwo(out_theta, out_value, out_slope, out_noise, steps, evaluations, converged)


def _direction(first: Array, chain: Array, observed: Array, expected: Array, at_zero: BoolArray) -> Array:
    """Newton direction (S, 2) over the free ratios; where the observed curvature is not positive, that of the expected information."""
    scale = chain[:, :, None] * chain[:, None, :]
    eye = np.eye(first.shape[-1])
    curvature = observed * scale + eye * first[:, None, :]
    fixed = at_zero[:, :, None] | at_zero[:, None, :]
    curvature = np.where(fixed, eye, curvature)
    fallback = np.where(fixed, eye, expected * scale)
    values, vectors = np.linalg.eigh(curvature)
    poor = values[:, 0] <= 1e-10 * np.abs(values[:, -1])
    if poor.any():
        values[poor], vectors[poor] = np.linalg.eigh(fallback[poor])
        values = np.maximum(np.abs(values), 1e-12 * np.abs(values).max(axis=-1, keepdims=True) + 1e-300)
    g = np.where(at_zero, 0.0, first)
    return np.asarray(-np.einsum("sij,sj,skj,sk->si", vectors, 1.0 / values, vectors, g))
