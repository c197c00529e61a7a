"""One data set with one grouping factor: its optimum, and what inference needs there, in as few array operations as will do.

The same quantities as :mod:`reml_criterion` gives for many data sets and many ratios at once, and the same rules as :mod:`reml_search`: a
variance is put at zero only when the derivative in the ratio itself points outward there, and every optimum met on a scan of the whole
range is polished and compared. A model of some hundred people is a dozen group sizes and a matrix of a dozen columns, so what counts is
the number of calls, not of multiplications.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import blas, lapack

from trialkit._kernels.reml_criterion import Components
from trialkit._kernels.reml_reduction import Array, Reduced

# theta * size on which the criterion is scanned; the far points are for outcomes that hardly vary within groups
SCAN = np.array([0.0, 0.01, 0.04, 0.12, 0.35, 1.0, 3.0, 10.0, 40.0, 300.0, 1e4, 1e7, 1e11])
_AT: list[float] = np.log1p(SCAN).tolist()
_STRETCH: list[float] = (1.0 + SCAN).tolist()
_MAX_STEPS = 100
_TRUSTED = 3e-7  # of t; a Newton step this short is followed by one of about its square


@dataclass(frozen=True, slots=True)
class One:
    """Sufficient statistics of a data set with one grouping factor, gathered by group size."""

    within: Array  # (q, q)
    sizes: Array  # (M,)    distinct sizes
    counts: Array  # (M,)    groups of that size
    products: Array  # (M, q * q)   cross-products of the rows of each size
    typical: float  # mean size: theta * typical is a number about 1 where it matters
    n: int
    p: int
    reml: bool

    @property
    def df(self) -> int:
        """Divisor of the residual variance: n - p for REML, n for ML."""
        return self.n - self.p if self.reml else self.n


class At(NamedTuple):
    """The model at one variance ratio; `white` holds P and Q, whitened by the root of H."""

    theta: float
    slope: float  # derivative of the criterion in theta
    level: float  # size of the terms the slope is the difference of: its rounding level
    curvature: float  # second derivative
    root: Array  # (q, q)  inverse Cholesky factor of H
    white: Array  # (2, q, q)
    shrink: Array  # (M,)  1 / (1 + theta * size)
    traces: tuple[float, float]  # tr(PG) and tr(PGPG), or those of M for ML
    forms: tuple[float, float]  # y'PGPy and y'PGPGPy over y'Py

    def value(self, one: One) -> float:
        """The criterion: -2 log-likelihood with the residual variance profiled out, up to `reml_criterion.constant`."""
        *roots, last = np.log(self.root.diagonal()).tolist()
        value = -float(one.counts.dot(np.log(self.shrink))) - 2.0 * one.df * last
        return float(value - 2.0 * sum(roots) if one.reml else value)


@dataclass(frozen=True, slots=True)
class Best:
    """Where the search ended."""

    at: At
    iterations: int  # Newton steps
    evaluations: int  # of the criterion, the scan included
    optima: int  # local optima compared
    converged: bool
    unbounded: bool  # the criterion still falls at the upper limit: zero residual variance


def gather(r: Reduced, *, reml: bool) -> One:
    """Put the groups of one size together."""
    J, q = r.rows.shape
    order = r.sizes.argsort(kind="stable")
    ordered = r.sizes.take(order)
    rows = r.rows.take(order, axis=0)
    first = [0, *((ordered[1:] != ordered[:-1]).nonzero()[0] + 1).tolist()]
    ends = [*first[1:], J]
    M = len(first)
    if 3 * M <= J:
        products = np.empty((M, q * q))
        for k in range(M):
            part = rows[first[k] : ends[k]].T
            products[k] = blas.dgemm(1.0, part, part, trans_b=1).T.ravel()
    else:
        products = (rows[:, :, None] * rows[:, None, :]).reshape(J, q * q)
        if M < J:
            products = np.add.reduceat(products, first, axis=0)
    counts = np.array([high - low for low, high in zip(first, ends, strict=True)], dtype=np.float64)
    sizes = ordered.take(first)
    return One(r.within, sizes, counts, products, float(sizes.dot(counts)) / J, r.n, r.p, reml)


def evaluate(one: One, theta: float) -> At:
    """The criterion's derivatives at one variance ratio."""
    q = one.p + 1
    m, c = one.sizes, one.counts
    weights = np.empty((3, m.size))
    d = weights[0]
    np.divide(1.0, theta * m + 1.0, out=d)
    md = m * d
    np.multiply(md, d, out=weights[1])
    np.multiply(md, weights[1], out=weights[2])
    sums = weights.dot(one.products).reshape(3, q, q)
    factor, failed = lapack.dpotrf((sums[0] + one.within).T, 1, 1)
    if failed:
        raise np.linalg.LinAlgError("the cross-products are not positive definite")
    root = lapack.dtrtri(factor, 1)[0]
    white = root @ sums[1:] @ root.T
    flat = white.reshape(2, q * q)
    (*p_x, p_y), (*q_x, q_y) = flat[:, :: q + 1].tolist()
    P = flat[0]
    last = P[-q:-1]
    pp_y = float(last.dot(last))
    cmd = c * md
    t1, t2 = float(c.dot(md)), float(cmd.dot(md))
    if one.reml:
        t1 -= sum(p_x)
        t2 += float(P.dot(P)) - 2.0 * pp_y - p_y * p_y - 2.0 * sum(q_x)
    N, u2 = one.df, q_y - pp_y
    explained = N * p_y
    return At(theta, t1 - explained, t1 + explained, N * (2.0 * u2 - p_y * p_y) - t2, root, white, d, (t1, t2), (p_y, u2))


def scan(one: One, theta: Array) -> tuple[Array, Array]:
    """Slope in theta and its rounding level (G,) at the ratios theta (G,).

    With the full (X, y) cross-products H, ``tr(H^-1 P)`` is p_x + p_y, and the last row of H^-1 gives r; no factor is needed.
    """
    q, G = one.p + 1, theta.size
    d = 1.0 / (theta[:, None] * one.sizes + 1.0)
    md = one.sizes * d
    both = np.empty((2, G, q, q))
    both[0] = inverse = np.linalg.inv(d.dot(one.products).reshape(G, q, q) + one.within)
    last = inverse[:, -1]
    np.multiply(last[:, :, None], last[:, None, :], out=both[1])
    both = both.reshape(2 * G, q * q).dot(one.products.T).reshape(2, G, -1)
    p_xy, p_y = np.einsum("agm,gm->ag", both, md * d)
    p_y = p_y / last[:, -1]
    explained = one.df * p_y
    trace = md.dot(one.counts)
    slope = trace - explained
    if one.reml:
        slope -= p_xy - p_y
    return slope, trace + explained


def search(one: One) -> Best:
    """Global optimum of the criterion over variance ratios at or above zero."""
    slopes, noises = scan(one, SCAN / one.typical)
    slope, noise = slopes.tolist(), noises.tolist()
    unbounded = slope[-1] < -1e-9 * noise[-1]
    # at zero the criterion rises, or is flat to the last digit: an optimum at the boundary
    zero = slope[0] >= -4e-15 * noise[0]
    if zero:
        slope[0] = abs(slope[0])
    cells = [k for k in range(len(slope) - 1) if slope[k] < 0.0 <= slope[k + 1]]
    runs = [_newton(one, slope, k) for k in cells]
    steps = sum(run[1] for run in runs)
    at, converged = evaluate(one, 0.0) if zero or not runs else None, zero
    if runs:
        least = min(runs, key=lambda run: run[0].value(one)) if len(runs) > 1 else runs[0]
        if at is None or least[0].value(one) < at.value(one):
            at, converged = least[0], least[2]
    assert at is not None
    return Best(at, steps, SCAN.size + steps, len(cells) + zero, converged and not unbounded, unbounded)


def _newton(one: One, slopes: list[float], cell: int) -> tuple[At, int, bool]:
    """Newton's method for the zero of the slope in t = log(1 + size * theta), kept inside the scan's cell where its sign changes.

    Returns the model at the zero, the number of evaluations, and whether it converged.
    """
    size = one.typical
    low, high = _AT[cell], _AT[cell + 1]
    t = _start(slopes, cell)
    steps, trusted = 0, False
    while True:
        steps += 1
        ratio = math.expm1(t) / size
        at = evaluate(one, ratio)
        if trusted or abs(at.slope) <= 4e-15 * at.level or high - low <= 4e-16 * high:
            return at, steps, True
        if steps == _MAX_STEPS:
            return at, steps, False
        low, high = (t, high) if at.slope < 0.0 else (low, t)
        curvature = at.curvature * (1.0 / size + ratio) + at.slope  # of the criterion in t, over the derivative of theta in t
        new = t - at.slope / curvature if curvature > 0.0 else low
        good = low < new < high
        if not good:
            new = 0.5 * (low + high)
        trusted = good and abs(new - t) <= _TRUSTED * t
        t = new


def _start(slopes: list[float], cell: int) -> float:
    """Zero of the slope in t by inverse interpolation through the cell and its neighbours, or by fewer points if that leaves the cell."""
    f = [slope * stretch for slope, stretch in zip(slopes, _STRETCH, strict=True)]
    above, below = min(cell + 2, len(f) - 1), max(cell - 1, 0)
    guess = 0.0
    for points in ((cell, cell + 1), (cell, cell + 1, above), (below, cell, cell + 1, above)):
        values = [f[k] for k in points]
        if len(set(values)) < len(values):
            continue
        t = [_AT[k] for k in points]
        for width in range(1, len(t)):  # Neville, for t as a function of the slope
            t = [(values[i + width] * t[i] - values[i] * t[i + 1]) / (values[i + width] - values[i]) for i in range(len(t) - 1)]
        if _AT[cell] < t[0] < _AT[cell + 1]:
            guess = t[0]
    return guess or 0.5 * (_AT[cell] + _AT[cell + 1])


def components(at: At, one: One) -> Components:
    """The components of variance at `at`, the residual last: theta M G + M is the identity, so nothing new is computed from data."""
    p, q, theta = one.p, one.p + 1, at.theta
    P, Q = np.empty((2, q, q)), np.empty((2, 2, q, q))
    P[0], Q[0, 0] = at.white
    np.multiply(P[0], -theta, out=P[1])
    P[1].reshape(-1)[:: q + 1] += 1.0
    np.subtract(P[0], theta * Q[0, 0], out=Q[0, 1])
    Q[1, 0] = Q[0, 1].T
    np.subtract(P[1], theta * Q[0, 1], out=Q[1, 1])
    N, (t1, t2), (u, u2) = one.df, at.traces, at.forms
    t12, u12 = t1 - theta * t2, u - theta * u2
    t22, u22 = N - theta * (t1 + t12), 1.0 - theta * (u + u12)
    expected = np.array([[t2, t12], [t12, t22]])
    return Components(P[:, :p, :p], Q[:, :, :p, :p], expected, 2.0 * N * np.array([[u2, u12], [u12, u22]]) - expected)
