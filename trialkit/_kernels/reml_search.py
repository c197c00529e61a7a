"""Where the (restricted) likelihood is largest: variance ratios at or above zero, found for many data sets in step.

Two rules guard against the usual faults. A variance is put at zero only when the derivative *in the ratio itself* points outward there (the
derivative in its square root is zero at zero whatever the data say), and every local optimum met on a scan of the whole range is polished
and compared, because restricted likelihoods of unbalanced data can have two. The search runs in t = log(1 + size * theta): linear near
zero, logarithmic far away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels.reml_criterion import Blocks, State, criterion, evaluate, gradient, grid_of_two, hessian, scan_of_one, slope_of_one
from trialkit._kernels.reml_reduction import Array, IntArray

BoolArray = NDArray[np.bool_]

# theta * size on which the criterion is scanned; the far points are for outcomes that hardly vary within groups
_SCAN = np.array([0.0, 0.01, 0.04, 0.12, 0.35, 1.0, 3.0, 10.0, 40.0, 300.0, 1e4, 1e7, 1e11])
_SCAN_TWO = np.array([0.0, 0.04, 0.4, 3.0, 30.0, 1e3, 1e6])
_AT = np.log1p(_SCAN)
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


def search(blocks: Blocks) -> Found:
    """Global optimum of each data set in `blocks`."""
    if blocks.n_factors == 2:
        return _search_two(blocks)
    return _search_alone(blocks) if blocks.n_sets == 1 else _search_one(blocks)


def _search_alone(blocks: Blocks) -> Found:
    """`_search_one` for one data set, without its bookkeeping."""
    size = float(blocks.typical_size()[0, 0])
    slope, noise = scan_of_one(blocks, _SCAN / size)
    unbounded = bool(slope[-1] < -1e-9 * noise[-1])
    zero = bool(slope[0] >= -4e-15 * noise[0])
    if zero:
        slope[0] = abs(slope[0])
    cells = np.flatnonzero((slope[:-1] < 0.0) & (slope[1:] >= 0.0))
    theta, converged, steps = 0.0, zero, 0
    if cells.size:
        runs = [_newton_single(blocks, size, slope, int(cell)) for cell in cells]
        steps = sum(run[2] for run in runs)
        best = min(runs, key=lambda run: run[1])
        if not zero or best[1] < slope_of_one(blocks, 0.0)[0]:
            theta, _, _, converged = best
    return Found(
        np.array([[theta]]),
        np.array([steps]),
        np.array([_SCAN.size + steps]),
        np.array([cells.size + zero]),
        np.array([converged and not unbounded]),
        np.array([unbounded]),
    )


def _search_one(blocks: Blocks) -> Found:
    S = blocks.n_sets
    size = np.broadcast_to(blocks.typical_size()[:, 0], (S,))
    value, slope, noise = _scan_one(blocks, size)
    unbounded = slope[:, -1] < -1e-9 * noise[:, -1]

    zero = slope[:, 0] >= -4e-15 * noise[:, 0]  # at zero the criterion rises, or is flat to the last digit: an optimum at the boundary
    slope[zero, 0] = np.abs(slope[zero, 0])
    theta = np.zeros(S)
    converged = zero.copy()
    optima = zero.astype(np.intp)
    iterations = np.zeros(S, dtype=np.intp)
    evaluations = np.full(S, _SCAN.size, dtype=np.intp)

    sets, cells = np.nonzero((slope[:, :-1] < 0.0) & (slope[:, 1:] >= 0.0))
    if sets.size:
        run = _newton_one(blocks.take(sets), size[sets], slope[sets], cells)
        np.add.at(optima, sets, 1)
        np.add.at(iterations, sets, run.steps)
        np.add.at(evaluations, sets, run.steps)
        if optima.max() == 1:
            first = np.arange(sets.size)
        else:
            order = np.lexsort((run.value, sets))
            first = order[np.concatenate(([True], sets[order][1:] != sets[order][:-1]))]
            first = first[~zero[sets[first]] | (run.value[first] < value[sets[first], 0])]
        theta[sets[first]] = run.theta[first]
        converged[sets[first]] = run.converged[first]
    return Found(theta[:, None], iterations, evaluations, optima, converged & ~unbounded, unbounded)


def _scan_one(blocks: Blocks, size: Array) -> tuple[Array, Array, Array]:
    """Criterion, its slope in theta and the rounding level of the slope (S, G) on the scan."""
    state = evaluate(blocks, (_SCAN / size[:, None])[..., None], order=1)
    slope, noise = gradient(state, n=blocks.n, p=blocks.p, reml=blocks.reml)
    return criterion(state, n=blocks.n, p=blocks.p, reml=blocks.reml), slope[..., 0], noise[..., 0]


@dataclass(frozen=True, slots=True)
class _Inside:
    theta: Array
    value: Array
    steps: IntArray
    converged: BoolArray


def _newton_one(blocks: Blocks, size: Array, slopes: Array, cells: IntArray) -> _Inside:
    """Newton's method for the zero of the slope in t, kept inside the scan's cell where its sign changes; S data sets in step.

    `slopes` (S, G) are those of the scan. The last step is taken on trust: it is below 1e-7 of t, and the next would be about its square.
    """
    n, p, reml = blocks.n, blocks.p, blocks.reml
    S = size.size
    rows = np.arange(S)
    low, high = _AT[cells], _AT[cells + 1]
    t = _start(slopes * (1.0 + _SCAN), rows, cells)
    theta, value = np.empty(S), np.empty(S)
    steps = np.full(S, _MAX_STEPS, dtype=np.intp)
    converged = np.zeros(S, dtype=np.bool_)
    live = rows
    part = blocks
    for step in range(_MAX_STEPS):
        ratio = np.expm1(t) / size
        state = evaluate(part, ratio[:, None, None], order=2)
        g, level = gradient(state, n=n, p=p, reml=reml)
        g, level = g[:, 0, 0], level[:, 0, 0]
        h = hessian(state, n=n, p=p, reml=reml)[0][:, 0, 0, 0]
        falling = g < 0.0
        low, high = np.where(falling, t, low), np.where(falling, high, t)
        curvature = h * (1.0 / size + ratio) + g  # of the criterion in t, over the derivative of theta in t
        good = curvature > 0.0
        new = t - g / np.where(good, curvature, np.inf)
        good &= (new > low) & (new < high)
        exact = np.abs(g) <= 4e-15 * level
        new = np.where(exact, t, np.where(good, new, 0.5 * (low + high)))
        done = exact | (good & (np.abs(new - t) <= 1e-7 * t)) | (high - low <= 4e-16 * high)
        if done.any():
            i = live[done]
            theta[i] = (np.expm1(new) / size)[done]
            value[i] = criterion(state, n=n, p=p, reml=reml)[done, 0]
            steps[i], converged[i] = step + 1, True
            if done.all():
                break
            keep = ~done
            live, new, low, high, size = live[keep], new[keep], low[keep], high[keep], size[keep]
            part = blocks.take(live)
        t = new
    else:
        theta[live], value[live] = np.expm1(t) / size, np.inf
    return _Inside(theta, value, steps, converged)


def _newton_single(blocks: Blocks, size: float, slopes: Array, cell: int) -> tuple[float, float, int, bool]:
    """`_newton_one` for one data set, in plain numbers: ratio, criterion, steps, whether it converged."""
    low, high = float(_AT[cell]), float(_AT[cell + 1])
    t = _start_of_one(slopes, cell)
    value, converged, step = float("inf"), False, 0
    while step < _MAX_STEPS and not converged:
        step += 1
        ratio = math.expm1(t) / size
        value, g, level, h = slope_of_one(blocks, ratio)
        low, high = (t, high) if g < 0.0 else (low, t)
        if abs(g) <= 4e-15 * level:
            converged = True
            break
        curvature = h * (1.0 / size + ratio) + g
        new = t - g / curvature if curvature > 0.0 else low
        good = low < new < high
        if not good:
            new = 0.5 * (low + high)
        converged = (good and abs(new - t) <= 1e-7 * t) or high - low <= 4e-16 * high
        t = new
    return math.expm1(t) / size, value, step, converged


def _start_of_one(slopes: Array, cell: int) -> float:
    """`_start` in plain numbers."""
    third = cell + 2 if cell + 2 < _AT.size else cell - 1
    at = (cell, cell + 1, third)
    a, b, c = (float(_AT[k]) for k in at)
    fa, fb, fc = (float(slopes[k]) * (1.0 + float(_SCAN[k])) for k in at)
    secant = (a * fb - b * fa) / (fb - fa)
    if fc in (fa, fb):
        return secant
    guess = (secant * fc - (b * fc - c * fb) / (fc - fb) * fa) / (fc - fa)
    return guess if a < guess < b else secant


def _start(slope: Array, rows: IntArray, cells: IntArray) -> Array:
    """Zero of the slope in t by inverse quadratic interpolation through the cell and the next point, or the secant if that leaves it."""
    third = np.where(cells + 2 < _AT.size, cells + 2, cells - 1)
    a, b, c = _AT[cells], _AT[cells + 1], _AT[third]
    fa, fb, fc = slope[rows, cells], slope[rows, cells + 1], slope[rows, third]
    secant = (a * fb - b * fa) / (fb - fa)
    gap = fc - fb
    other = (b * fc - c * fb) / np.where(gap == 0.0, np.inf, gap)
    gap = fc - fa
    guess = (secant * fc - other * fa) / np.where(gap == 0.0, np.inf, gap)
    return np.asarray(np.where((guess > a) & (guess < b), guess, secant))


def _search_two(blocks: Blocks) -> Found:
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
