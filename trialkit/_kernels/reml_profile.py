"""Profile-likelihood intervals: the values of one parameter that the likelihood, maximised over all others, does not reject.

A value is inside when ``-2 log-likelihood`` there exceeds its minimum by less than the chi-square(1) quantile. Each point of a profile is a
fit with that parameter held: a fixed effect by taking its direction out of X and its part out of y, a standard deviation by minimising over
the variance ratios. lme4's ``confint(method = "profile")`` is this by maximum likelihood, read off interpolating splines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import ndtri

from trialkit._kernels import reml_criterion as criterion
from trialkit._kernels.reml_fit import Method, MixedFit, fit_reduced, least_criterion
from trialkit._kernels.reml_reduction import STATUS, Array, Reduced
from trialkit._kernels.structured import Blocks, Stack
from trialkit._kernels.structured_fit import fit_blocks, least


def profile_contrasts(reduced: Reduced, L: Array, *, level: float = 0.95) -> Array:
    """Maximum-likelihood profile intervals of contrasts of the fixed effects.

    Parameters
    ----------
    reduced : sufficient statistics, from :func:`trialkit._kernels.reml.reduce`
    L : (r, p) contrasts
    level : confidence level

    Returns
    -------
    (r, 2) array of lower and upper limits

    Raises
    ------
    ValueError : the data do not identify the model
    """
    L = np.asarray(L, dtype=np.float64)
    fitted = _identified(reduced, "ml")
    z = _quantile(level)
    best = _criterion_at(reduced, fitted.theta, reml=False)
    out = np.empty((L.shape[0], 2))
    for row, c in enumerate(L):
        out[row] = _contrast_limits(reduced, c, float(c @ fitted.beta), float(np.sqrt(c @ fitted.cov_beta @ c)), best, z)
    return out


def _contrast_limits(reduced: Reduced, c: Array, estimate: float, se: float, best: float, z: float) -> tuple[float, float]:
    def root_deviance(value: float) -> float:
        held = _hold_contrast(reduced, c, value)
        return float(np.sqrt(max(least_criterion(held, method="ml") - best, 0.0)))

    below = _secant(lambda d: root_deviance(estimate - d), z, z * se)
    above = _secant(lambda d: root_deviance(estimate + d), z, z * se)
    return estimate - below, estimate + above


def profile_contrasts_structured(blocks: Blocks, L: Array, *, level: float = 0.95) -> Array:
    """Maximum-likelihood profile intervals of contrasts (r, p) of a structured model's fixed effects, (r, 2)."""
    L = np.asarray(L, dtype=np.float64)
    fitted = fit_blocks(blocks, method="ml")
    if fitted.status != "ok":
        raise ValueError(f"no profile: {STATUS.get(fitted.status, fitted.status)}")
    z = _quantile(level)
    best = least(blocks, method="ml")
    out = np.empty((L.shape[0], 2))
    for row, c in enumerate(L):
        estimate, se = float(c @ fitted.beta), float(np.sqrt(c @ fitted.cov_beta @ c))

        def root_deviance(value: float, c: Array = c) -> float:
            return float(np.sqrt(max(least(_hold_in_blocks(blocks, c, value), method="ml") - best, 0.0)))

        below = _secant(lambda d, f=root_deviance, e=estimate: f(e - d), z, z * se)  # type: ignore[misc]
        above = _secant(lambda d, f=root_deviance, e=estimate: f(e + d), z, z * se)  # type: ignore[misc]
        out[row] = estimate - below, estimate + above
    return out


def _hold_in_blocks(b: Blocks, c: Array, value: float) -> Blocks:
    T = _holding(b.basis_inverse, b.offset, b.scale, c, value)
    stacks = tuple(Stack(s.rows @ T, s.G) for s in b.stacks)
    return replace(b, stacks=stacks, within=T.T @ b.within @ T, p=b.p - 1)


def profile_sd(reduced: Reduced, *, level: float = 0.95, method: Method = "ml") -> Array:
    """Profile intervals of the standard deviations, outermost factor first and the residual last.

    Parameters
    ----------
    reduced : sufficient statistics
    level : confidence level
    method : "ml" (as lme4) or "reml"

    Returns
    -------
    (k + 1, 2) array; a lower limit of 0 means that no variance at all is not rejected
    """
    fitted = _identified(reduced, method)
    reml = method == "reml"
    k = fitted.theta.size
    z = _quantile(level)
    best = _criterion_at(reduced, fitted.theta, reml=reml)
    blocks = criterion.stack([reduced], reml=reml)
    N = blocks.df
    # the criterion profiles sigma^2 out; held deviances are put on its scale
    level_shift = N - N * np.log(N)
    out = np.empty((k + 1, 2))
    for which in range(k + 1):
        sd = float(np.sqrt(fitted.sigma2 if which == k else fitted.variances[which])) / reduced.scale

        def root_deviance(value: float, which: int = which) -> float:
            return float(np.sqrt(max(_held_sd(blocks, fitted.theta, which, value) - level_shift - best, 0.0)))

        inside = sd if sd > 0.0 else 0.05 * float(np.sqrt(fitted.sigma2)) / reduced.scale
        while root_deviance(inside) >= z:
            inside *= 0.5
        top = 1.5 * inside
        while root_deviance(top) < z:
            top *= 1.5
        lower = 0.0
        if which == k or (sd > 0.0 and _root_zero(reduced, fitted.theta, which, best, reml) > z):
            low = inside
            while root_deviance(low) < z:
                low /= 1.5
            lower = _meet(root_deviance, z, low, inside)
        out[which] = lower, _meet(root_deviance, z, inside, top)
    return out * reduced.scale


def profile_ratio(reduced: Reduced, *, level: float = 0.95, method: Method = "reml") -> tuple[float, float]:
    """Profile interval of the sum of the variance ratios; r / (1 + r) of its ends is one for the intraclass correlation.

    Parameters
    ----------
    reduced : sufficient statistics of a model with one or two grouping factors; with two, the split between them is profiled out
    level : confidence level
    method : "reml" or "ml"
    """
    fitted = _identified(reduced, method)
    reml = method == "reml"
    z = _quantile(level)
    ratio = float(fitted.theta.sum())
    best = _criterion_at(reduced, fitted.theta, reml=reml)

    def root_deviance(value: float) -> float:
        if reduced.n_factors == 1 or value == 0.0:
            held = _criterion_at(reduced, np.full(reduced.n_factors, value), reml=reml)
        else:
            held = _best_split(reduced, value, reml)
        return float(np.sqrt(max(held - best, 0.0)))

    size = float(reduced.sizes.mean())
    high = max(2.0 * ratio, 0.05 / size)
    while root_deviance(high) < z:
        high *= 2.0
        if high * size > 1e12:
            raise ValueError(STATUS["zero_residual"])
    lower = 0.0 if root_deviance(0.0) <= z else _meet(root_deviance, z, 0.0, ratio)
    return lower, _meet(root_deviance, z, ratio, high)


def _best_split(reduced: Reduced, total: float, reml: bool) -> float:
    """Least criterion over the ways to divide a sum of two variance ratios."""

    def at(share: float) -> float:
        return _criterion_at(reduced, np.array([share * total, (1.0 - share) * total]), reml=reml)

    grid = np.linspace(0.0, 1.0, 17)
    values = [at(s) for s in grid]
    k = int(np.argmin(values))
    low, high = grid[max(k - 1, 0)], grid[min(k + 1, 16)]
    found = minimize_scalar(at, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    return min(float(found.fun), values[k])


def _quantile(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError("level must lie between 0 and 1")
    return float(ndtri(0.5 + 0.5 * level))


def _identified(reduced: Reduced, method: Method) -> MixedFit:
    fitted = fit_reduced(reduced, method=method)
    if fitted.status != "ok":
        raise ValueError(f"no profile: {STATUS[fitted.status]}")
    return fitted


def _criterion_at(reduced: Reduced, theta: Array, *, reml: bool) -> float:
    blocks = criterion.stack([reduced], reml=reml)
    state = criterion.evaluate(blocks, theta[None, None], order=0)
    return float(criterion.criterion(state, n=reduced.n, p=reduced.p, reml=reml)[0, 0])


def _root_zero(reduced: Reduced, theta: Array, which: int, best: float, reml: bool) -> float:
    """Signed-root deviance with one group variance at zero and the others free."""
    if theta.size == 1:
        value = _criterion_at(reduced, np.zeros(1), reml=reml)
    else:
        blocks = criterion.stack([reduced], reml=reml)
        other = 1 - which
        size = float(blocks.typical_size()[0, other])

        def along(t: Array) -> tuple[float, Array]:
            at = np.zeros(2)
            at[other] = np.expm1(t[0]) / size
            state = criterion.evaluate(blocks, at[None, None], order=1)
            slope, _ = criterion.gradient(state, n=reduced.n, p=reduced.p, reml=reml)
            value = float(criterion.criterion(state, n=reduced.n, p=reduced.p, reml=reml)[0, 0])
            return value, np.array([slope[0, 0, other] * np.exp(t[0]) / size])

        value = min(_minimum(along, np.log1p(np.array([scale])), [(0.0, 30.0)]) for scale in (0.1, 1.0 + theta.sum() * size))
    return float(np.sqrt(max(value - best, 0.0)))


def _hold_contrast(r: Reduced, c: Array, value: float) -> Reduced:
    """The data with c'beta = value imposed: one column fewer, and an outcome less its part along the contrast."""
    T = _holding(r.basis_inverse, r.offset, r.scale, c, value)
    return replace(r, within=T.T @ r.within @ T, rows=r.rows @ T, p=r.p - 1)


def _holding(basis_inverse: Array, offset: Array, scale: float, c: Array, value: float) -> Array:
    """(p + 1, p) matrix that takes the columns (X, y) to those of the model with c'beta = value."""
    p = offset.size
    direction = basis_inverse.T @ c
    length = float(direction @ direction)
    gamma = direction * ((value - float(c @ offset)) / scale / length)
    _, _, rotation = np.linalg.svd(direction[None])
    T = np.zeros((p + 1, p))
    T[:p, : p - 1] = rotation[1:].T
    T[:p, p - 1] = -gamma
    T[p, p - 1] = 1.0
    return T


def _held_sd(blocks: criterion.Blocks, theta: Array, which: int, sd: float) -> float:
    """-2 log-likelihood (up to the criterion's constants plus N - N log N) with one standard deviation held and the rest free."""
    k, N = theta.size, blocks.df
    sizes = blocks.typical_size()[0]
    variance = sd * sd

    def along(t: Array) -> tuple[float, Array]:
        ratio = np.expm1(t) / sizes
        state = criterion.evaluate(blocks, ratio[None, None], order=1)
        slope, _ = criterion.gradient(state, n=blocks.n, p=blocks.p, reml=blocks.reml)
        ypy, p_y = float(state.ypy[0, 0]), state.p_y[0, 0]
        logs = float(state.log_det_v[0, 0]) + (float(state.log_det_h[0, 0]) if blocks.reml else 0.0)
        logs_slope = slope[0, 0] + N * p_y
        residual = variance if which == k else variance / ratio[which]
        value = logs + N * np.log(residual) + ypy / residual
        gradient = logs_slope - ypy * p_y / residual
        if which < k:
            gradient[which] += (ypy / residual - N) / ratio[which]
        return value, gradient * (np.exp(t) / sizes)

    bounds = [(1e-12 if j == which else 0.0, 30.0) for j in range(k)]
    start = np.log1p(np.maximum(theta, 0.02 / sizes) * sizes)
    return _minimum(along, np.clip(start, 1e-6, 29.0), bounds)


def _minimum(function: Callable[[Array], tuple[float, Array]], start: Array, bounds: list[tuple[float, float]]) -> float:
    found = minimize(function, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 200})
    return float(found.fun)


def _meet(function: Callable[[float], float], target: float, low: float, high: float) -> float:
    return float(brentq(lambda v: function(v) - target, low, high, xtol=1e-14, rtol=1e-12))


def _secant(function: Callable[[float], float], target: float, step: float) -> float:
    """Where a nearly linear increasing function of distance, zero at zero, meets `target`."""
    a, fa = 0.0, 0.0
    b, fb = step, function(step)
    for _ in range(100):
        if abs(fb - target) <= 1e-11 * target:
            return b
        new = b + (target - fb) * (b - a) / (fb - fa) if fb > fa else 2.0 * b
        if new <= 0.0:
            new = 0.5 * min(a, b) if min(a, b) > 0 else 0.5 * b
        new = min(new, 4.0 * max(a, b))
        a, fa = b, fb
        b, fb = new, function(new)
        if abs(b - a) <= 1e-13 * abs(b):
            return b
    raise ArithmeticError("a profile limit was not found; please report the data")
