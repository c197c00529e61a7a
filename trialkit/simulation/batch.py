"""Kenward-Roger and Satterthwaite inference for one contrast of each of many mixed models at once.

Every data set brings its own sufficient statistics (`trialkit._kernels.reml_reduction.Reduced`: one random
intercept): its own people, sites and covariates. They are padded to one shape - a missing column gets a one on
its diagonal, a missing size no sites - and Newton's method runs in step over all of them. The formulas are
those of `docs/methods/mixed.md`; the single-fit engine `trialkit._kernels.reml` is the second opinion in the tests.

With H = X'V^-1 X and so on scaled by the residual variance, lambda the variance ratio, e_m = 1/(1 + lambda m),
R_m the cross-products of the rows of the sites of size m and c_m their number:

    H = within + sum e_m R_m      P = sum m e_m^2 R_m      Q = sum m^2 e_m^3 R_m
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels.reml_reduction import Reduced
from trialkit.simulation.streams import Floats

Bools = NDArray[np.bool_]

# lambda times the mean size at which the criterion is scanned before Newton starts in the best interval
_SCAN = np.array([0.0, 0.02, 0.06, 0.2, 0.5, 1.2, 3.0, 10.0, 40.0, 400.0, 1e5])
_STEPS = 60


@dataclass(frozen=True, slots=True)
class Stack:
    """Sufficient statistics of S data sets, padded.

    Attributes
    ----------
    within : (S, q, q); rows : (S, M, q*q); sizes, counts : (S, M); dof : (S,) n - p; n : (S,)
    contrast : (S, q-1) the contrast in the orthonormal basis; offset, scale : (S,)
    """

    within: Floats
    rows: Floats
    sizes: Floats
    counts: Floats
    dof: Floats
    contrast: Floats
    offset: Floats
    scale: Floats

    def take(self, index: NDArray[np.intp]) -> Stack:
        """The data sets at `index`."""
        return Stack(*(getattr(self, name)[index] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Contrasts:
    """One contrast of each of S fits.

    Attributes
    ----------
    estimate, std_error, df : (S,)
        Kenward-Roger.
    plain_error, satterthwaite_df : (S,)
        The unadjusted standard error, and Satterthwaite's degrees of freedom (n - p where the variance is zero).
    ratio : (S,)
        Site variance over residual variance.
    residual : (S,)
        Residual variance.
    singular : (S,) bool
        The site variance is zero.
    converged : (S,) bool
    """

    estimate: Floats
    std_error: Floats
    df: Floats
    plain_error: Floats
    satterthwaite_df: Floats
    ratio: Floats
    residual: Floats
    singular: Bools
    converged: Bools


def pad(sets: Sequence[Reduced], contrasts: Sequence[Floats]) -> Stack:
    """Put data sets of different shapes beside each other.

    Parameters
    ----------
    sets : sequence of Reduced
        One grouping factor, status "ok", no weights.
    contrasts : sequence of (p,) arrays
        The contrast of each, in its own columns.
    """
    S = len(sets)
    q = max(s.p for s in sets) + 1
    M = int(max(s.sizes.max() for s in sets))
    within = np.zeros((S, q, q))
    products = np.zeros((S, M, q, q))
    counts = np.zeros((S, M))
    contrast = np.zeros((S, q - 1))
    offset, scale, dof = np.empty(S), np.empty(S), np.empty(S)
    for i, (s, c) in enumerate(zip(sets, contrasts, strict=True)):
        p = s.p
        # padded columns stand before the outcome and are orthogonal to everything
        here = np.append(np.arange(p), q - 1)
        within[i][np.ix_(here, here)] = s.within
        spare = np.arange(p, q - 1)
        within[i][spare, spare] = 1.0
        size = s.sizes.astype(np.intp) - 1
        order = np.argsort(size, kind="stable")
        wide = np.zeros((len(size), q))
        wide[:, here] = s.rows[order]
        found, first = np.unique(size[order], return_index=True)
        for m, part in zip(found, np.split(wide, first[1:]), strict=True):
            products[i, m] = part.T @ part
            counts[i, m] = len(part)
        contrast[i, :p] = c @ s.basis_inverse
        offset[i], scale[i], dof[i] = float(c @ s.offset), s.scale, s.n - p
    used = counts.any(axis=0)
    sizes = np.broadcast_to(np.arange(1.0, M + 1.0)[used], (S, int(used.sum()))).copy()
    return Stack(within, products[:, used].reshape(S, -1, q * q), sizes, counts[:, used], dof, contrast, offset, scale)


@dataclass(frozen=True, slots=True)
class _State:
    """The model at one variance ratio a data set; the outcome is the last of q columns."""

    phi: Floats  # (S, p, p)
    gamma: Floats  # (S, p)
    ypy: Floats  # (S,)
    log_det: Floats  # (S,) log |V| + log |X'V^-1X|
    P: Floats  # (S, q, q)
    Q: Floats  # (S, q, q)
    tr1: Floats  # (S,)
    tr2: Floats
    u: Floats  # y'P G P y
    u2: Floats  # y'P G P G P y


def _weighted(weights: Floats, rows: Floats, q: int) -> Floats:
    total: Floats = np.matmul(weights[:, None, :], rows)[:, 0].reshape(-1, q, q)
    return total


def _criterion(b: Stack, ratio: Floats) -> Floats:
    """-2 restricted log-likelihood up to a constant, (S,)."""
    q = b.within.shape[1]
    e = 1.0 / (1.0 + ratio[:, None] * b.sizes)
    root = np.linalg.cholesky(b.within + _weighted(e, b.rows, q))
    diagonal = np.diagonal(root, axis1=1, axis2=2)
    # the last pivot squared is y'Py, the others make |X'V^-1X|
    value: Floats = -(b.counts * np.log(e)).sum(axis=1) + 2.0 * np.log(diagonal[:, :-1]).sum(axis=1) + b.dof * 2.0 * np.log(diagonal[:, -1])
    return value


def _state(b: Stack, ratio: Floats) -> _State:
    q = b.within.shape[1]
    p = q - 1
    m, c = b.sizes, b.counts
    e = 1.0 / (1.0 + ratio[:, None] * m)
    H = b.within + _weighted(e, b.rows, q)
    P = _weighted(m * e**2, b.rows, q)
    Q = _weighted(m**2 * e**3, b.rows, q)
    phi = np.linalg.inv(H[:, :p, :p])
    phi = (phi + phi.transpose(0, 2, 1)) / 2.0
    gamma = (phi @ H[:, :p, p:])[:, :, 0]
    ypy = H[:, p, p] - np.einsum("si,si->s", H[:, :p, p], gamma)
    r = np.concatenate([-gamma, np.ones((len(gamma), 1))], axis=1)
    Pr, Qr = (P @ r[:, :, None])[:, :, 0], (Q @ r[:, :, None])[:, :, 0]
    u = np.einsum("si,si->s", r, Pr)
    w = Pr[:, :p]
    u2 = np.einsum("si,si->s", r, Qr) - np.einsum("si,sij,sj->s", w, phi, w)
    phiP = phi @ P[:, :p, :p]
    tr1 = (c * m * e).sum(axis=1) - np.trace(phiP, axis1=1, axis2=2)
    tr2 = (c * m**2 * e**2).sum(axis=1) - 2.0 * np.einsum("sij,sji->s", phi, Q[:, :p, :p]) + np.einsum("sij,sji->s", phiP, phiP)
    log_det = -(c * np.log(e)).sum(axis=1) - np.linalg.slogdet(phi)[1]
    return _State(phi, gamma, ypy, log_det, P, Q, tr1, tr2, u, u2)


def _search(b: Stack) -> tuple[Floats, Bools]:
    """Variance ratios at the highest restricted likelihood, (S,), and whether Newton converged.

    Zero is taken only when the derivative in the ratio itself points outward there.
    """
    S = len(b.dof)
    size = (b.counts * b.sizes).sum(axis=1) / b.counts.sum(axis=1)
    grid = _SCAN / size[:, None]
    value = np.stack([_criterion(b, grid[:, k]) for k in range(len(_SCAN))], axis=1)
    best = value.argmin(axis=1)
    every = np.arange(S)
    low = grid[every, np.maximum(best - 1, 0)]
    high = grid[every, np.minimum(best + 1, len(_SCAN) - 1)]

    def slope(part: Stack, ratio: Floats) -> tuple[Floats, Floats]:
        s = _state(part, ratio)
        sigma2 = s.ypy / part.dof
        first = s.tr1 - s.u / sigma2
        second = -s.tr2 + 2.0 * s.u2 / sigma2 - part.dof * (s.u / s.ypy) ** 2
        return first, second

    at_zero, _ = slope(b, np.zeros(S))
    zero = (best <= 1) & (at_zero >= 0.0) & (value[:, 0] <= value.min(axis=1) + 1e-12 * np.abs(value[:, 0]))
    # between 0 and the first grid point a dip needs a falling start; a rising one beside a lower grid point has its dip further on
    low = np.where((best == 0) & ~zero, 0.0, low)
    ratio = np.where(zero, 0.0, np.where(best == 0, grid[:, 1] / 2.0, grid[every, best]))
    converged = zero.copy()
    open_ = np.flatnonzero(~zero)
    for _ in range(_STEPS):
        if not len(open_):
            break
        part = b.take(open_)
        x = ratio[open_]
        first, second = slope(part, x)
        low[open_] = np.where(first < 0, x, low[open_])
        high[open_] = np.where(first >= 0, x, high[open_])
        # Newton in log lambda: d/dt = x f', d2/dt2 = x^2 f'' + x f'
        curvature = x * x * second + x * first
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            step = np.where(curvature > 0, -x * first / curvature, np.nan)
            new = x * np.exp(np.clip(step, -3.0, 3.0))
        inside = (new > low[open_]) & (new < high[open_])
        new = np.where(inside, new, (low[open_] + high[open_]) / 2.0)
        ratio[open_] = new
        done = np.abs(new - x) <= 1e-12 * np.maximum(new, 1e-3 / size[open_])
        converged[open_[done]] = True
        open_ = open_[~done]
    return ratio, converged


def contrasts(b: Stack) -> Contrasts:
    """REML fit of each data set and small-sample inference for its contrast."""
    ratio, converged = _search(b)
    s = _state(b, ratio)
    p = b.contrast.shape[1]
    N, lam = b.dof, ratio
    sigma2 = b.scale**2 * s.ypy / N
    estimate = b.offset + b.scale * np.einsum("sp,sp->s", b.contrast, s.gamma)

    pc = np.einsum("sij,sj->si", s.phi, b.contrast)
    v = np.einsum("si,si->s", b.contrast, pc)
    P, Q = s.P[:, :p, :p], s.Q[:, :p, :p]
    Ppc = np.einsum("sij,sj->si", P, pc)
    g1 = np.einsum("si,si->s", pc, Ppc)
    g2 = v - lam * g1
    q11 = np.einsum("si,sij,sj->s", pc, Q, pc)
    q12 = g1 - lam * q11
    q22 = g2 - lam * q12
    p11 = np.einsum("si,sij,sj->s", Ppc, s.phi, Ppc)
    p12 = g1 - lam * p11
    p22 = v - 2.0 * lam * g1 + lam**2 * p11

    # expected information of (site, residual variance) times sigma^4, and its inverse W
    i11 = s.tr2 / 2.0
    i12 = (s.tr1 - lam * s.tr2) / 2.0
    i22 = ((N - lam * s.tr1) - lam * (s.tr1 - lam * s.tr2)) / 2.0
    w11, w12, w22 = _inverse(i11, i12, i22)
    adjusted = v + 2.0 * (w11 * (q11 - p11) + 2.0 * w12 * (q12 - p12) + w22 * (q22 - p22))
    df = 2.0 * v**2 / (g1**2 * w11 + 2.0 * g1 * g2 * w12 + g2**2 * w22)

    # observed information, for Satterthwaite
    unit = s.ypy / N
    e11 = s.u2 / unit
    e12 = s.u / unit - lam * e11
    e22 = (N - lam * s.u / unit) - lam * e12
    o11, o12, o22 = _inverse(e11 - i11, e12 - i12, e22 - i22)
    singular = ratio == 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        satterthwaite = np.where(singular, N, 2.0 * v**2 / (g1**2 * o11 + 2.0 * g1 * g2 * o12 + g2**2 * o22))
    return Contrasts(
        estimate=estimate,
        std_error=np.sqrt(sigma2 * adjusted),
        df=df,
        plain_error=np.sqrt(sigma2 * v),
        satterthwaite_df=satterthwaite,
        ratio=ratio,
        residual=sigma2,
        singular=singular,
        converged=converged,
    )


def _inverse(a: Floats, b: Floats, d: Floats) -> tuple[Floats, Floats, Floats]:
    """Inverse of symmetric 2 x 2 matrices [[a, b], [b, d]]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        det = a * d - b * b
        return d / det, -b / det, a / det
