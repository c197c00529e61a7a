"""Random-intercept likelihoods by adaptive Gauss-Hermite quadrature, with exact first derivatives.

For cluster j, ``L_j = log integral exp(g_j(u)) du / sqrt(2 pi)``, ``g_j(u) = sum_i l(y_i; eta_i + s u) - u^2 / 2``. The nodes stand
around the mode u^ of g_j and are scaled by its curvature ``c = -g''(u^)``: ``u_k = u^ + t_k sqrt(2 / c)`` (Liu & Pierce 1994; one node is
Laplace's approximation). The derivative of the *approximation*, nodes moving with the parameters, is taken in closed form: with ``du^ =
g_uT / c`` and ``dc = -g_uuT - g_uuu du^`` (T a parameter) everything follows from three derivatives of l in eta, so that the maximum is
the one lme4, glmmTMB and ordinal find by derivative-free search.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

BOUNDARY = 1e-3  # a standard deviation below this is at zero
_IDLE = 1e-4
_FLAT = 1e-4  # average information along the flattest direction: nothing but separation makes it vanish
_FAR = 30.0  # so large a linear predictor is none


class Separation(ValueError):
    """The likelihood has no maximum."""


@dataclass(frozen=True, slots=True)
class Derivatives:
    """Of log densities l(y; eta, extra), elementwise.

    Attributes
    ----------
    value, d1, d2, d3 : array (..., n)
        l and its derivatives in eta.
    e0, e1, e2 : array (E, ..., n)
        The derivative in each extra parameter of l, of d1 and of d2.
    """

    value: Array
    d1: Array
    d2: Array
    d3: Array
    e0: Array
    e1: Array
    e2: Array


class Density(Protocol):
    """A response distribution."""

    def __call__(self, eta: Array, extra: Array) -> Derivatives:
        """Derivatives at linear predictors (..., n)."""


@dataclass(frozen=True, slots=True)
class Binomial:
    """0/1, logit link."""

    y: Array

    def __call__(self, eta: Array, extra: Array) -> Derivatives:
        p = special.expit(eta)
        v = p * (1 - p)
        none = np.empty((0, *eta.shape))
        return Derivatives(self.y * eta - np.logaddexp(0.0, eta), self.y - p, -v, -v * (1 - 2 * p), none, none, none)


@dataclass(frozen=True, slots=True)
class Poisson:
    """Counts, log link."""

    y: Array

    def __call__(self, eta: Array, extra: Array) -> Derivatives:
        mean = np.exp(np.minimum(eta, 700.0))
        none = np.empty((0, *eta.shape))
        return Derivatives(self.y * eta - mean - special.gammaln(self.y + 1), self.y - mean, -mean, -mean, none, none, none)


@dataclass(frozen=True, slots=True)
class NegativeBinomial:
    """Counts with variance mu + mu^2 / size, log link; the extra parameter is log size."""

    y: Array

    def __call__(self, eta: Array, extra: Array) -> Derivatives:
        y, r = self.y, math.exp(min(max(float(extra[0]), -30.0), 30.0))
        mean = np.exp(np.minimum(eta, 700.0))
        s = mean / (mean + r)
        v = s * (1 - s)
        log_rest = np.log(r) - np.log(mean + r)
        value = special.gammaln(y + r) - special.gammaln(r) - special.gammaln(y + 1) + r * log_rest + y * (np.log(mean) - np.log(mean + r))
        e0 = r * (special.digamma(y + r) - special.digamma(r) + log_rest + s - y * (1 - s) / r)
        e1 = (y + r) * v - r * s
        e2 = (y + r) * (1 - 2 * s) * v - r * v
        return Derivatives(value, y - (y + r) * s, -(y + r) * v, -(y + r) * (1 - 2 * s) * v, e0[None], e1[None], e2[None])


@dataclass(frozen=True, slots=True)
class CumulativeLogit:
    """Ordered categories 0..C-1, ``logit P(Y <= k) = threshold_k - eta``; the extras are the first threshold and the logs of the gaps.

    The likelihood of a category, F(a) - F(b), is F(a) (1 - F(b)) (1 - exp(b - a)): a sum on the log scale, in which no digit is lost.
    """

    y: Codes
    categories: int

    def __call__(self, eta: Array, extra: Array) -> Derivatives:
        thresholds = cumulated(extra)
        edges = np.concatenate([[-math.inf], thresholds, [math.inf]])
        a, b = edges[self.y + 1] - eta, edges[self.y] - eta
        Fa, Fb = special.expit(a), special.expit(b)
        sa, sb = Fa * (1 - Fa), Fb * (1 - Fb)
        ta, tb = sa * (1 - 2 * Fa), sb * (1 - 2 * Fb)  # derivatives of sa and sb
        inner = (self.y > 0) & (self.y < self.categories - 1)
        gap = np.where(inner, (edges[self.y + 1] - edges[self.y]), math.inf)
        with np.errstate(divide="ignore"):
            value = -np.logaddexp(0.0, -a) - np.logaddexp(0.0, b) + np.log(-np.expm1(-gap))
            h = 1 / np.expm1(gap)
        top, bottom = self.y == self.categories - 1, self.y == 0
        by_a = np.where(top, 0.0, 1 - Fa + h)
        by_b = np.where(bottom, 0.0, -Fb - h)
        e0, e1, e2 = (np.empty((len(extra), *eta.shape)) for _ in range(3))
        for l in range(len(extra)):
            # threshold k stands above category y when y = k, below it when y = k + 1; the first extra moves all, extra l those from l on
            scale = 1.0 if l == 0 else math.exp(extra[l])
            of_a, of_b = scale * ((self.y >= l) & ~top), scale * (self.y - 1 >= l)
            e0[l] = of_a * by_a + of_b * by_b
            e1[l] = of_a * sa + of_b * sb
            e2[l] = -(of_a * ta + of_b * tb)
        return Derivatives(value, Fa - 1 + Fb, -sa - sb, ta + tb, e0, e1, e2)


def cumulated(extra: Array) -> Array:
    """Thresholds from the first and the logs of the gaps."""
    return np.asarray(extra[0] + np.concatenate([[0.0], np.cumsum(np.exp(np.minimum(extra[1:], 50.0)))]))


@dataclass(frozen=True, slots=True)
class Maximum:
    """A maximum of the marginal likelihood.

    Attributes
    ----------
    beta : array (p,)
    sd : float
        Of the cluster intercepts; 0 at the boundary.
    extra : array (E,)
    log_likelihood : float
    vcov : array (p + E, p + E)
        Of (beta, extra), from the observed information of all parameters; NaN for an extra that ran to infinity.
    boundary : bool
    """

    beta: Array
    sd: float
    extra: Array
    log_likelihood: float
    vcov: Array
    boundary: bool


class Likelihood:
    """Marginal log-likelihood of (beta, sd, extra) with its gradient; rows sorted by cluster."""

    def __init__(self, x: Array, offset: Array, codes: Codes, density: Density, nodes: int) -> None:
        self.x, self.offset, self.density = x, offset, density
        counts = np.bincount(codes)
        self.codes = codes
        self.starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp)
        self.t, weights = special.roots_hermite(nodes)
        self.log_weights = np.log(weights) + self.t**2
        self.u = np.zeros(len(counts))

    def _sum(self, values: Array) -> Array:
        return np.asarray(np.add.reduceat(values, self.starts, axis=-1))

    def __call__(self, parameters: Array) -> tuple[float, Array]:
        p = self.x.shape[1]
        beta, s, extra = parameters[:p], float(parameters[p]), parameters[p + 1 :]
        eta = self.offset + self.x @ beta
        u = self.u
        for _ in range(100):
            at = self.density(eta + s * u[self.codes], extra)
            c = 1 - s**2 * self._sum(at.d2)
            move = (s * self._sum(at.d1) - u) / c
            u = u + np.clip(move, -3, 3)
            if not np.isfinite(u).all():
                self.u = np.zeros(len(u))
                return -math.inf, np.zeros(len(parameters))
            if np.abs(move).max() < 1e-11:
                break
        self.u = u
        at = self.density(eta + s * u[self.codes], extra)
        S1, S2, S3 = (self._sum(d) for d in (at.d1, at.d2, at.d3))
        c = 1 - s**2 * S2
        width = math.sqrt(2) / np.sqrt(c)
        nodes = u + width * self.t[:, None]  # (K, J)
        there = self.density(eta + s * nodes[:, self.codes], extra)
        logs = self._sum(there.value) - nodes**2 / 2 + self.log_weights[:, None]
        highest = logs.max(axis=0)
        each = highest + np.log(np.exp(logs - highest).sum(axis=0))
        value = float((each + np.log(width)).sum() - 0.5 * math.log(2 * math.pi) * len(u))
        share = np.exp(logs - each)  # (K, J)
        slope = s * self._sum(there.d1) - nodes
        a = (share * slope).sum(axis=0)
        B = -0.5 * ((share * slope * self.t[:, None]).sum(axis=0) * width + 1) / c
        A = (a - B * s**3 * S3) / c
        person = share[:, self.codes]
        Ai, Bi = A[self.codes], B[self.codes]
        by_beta = self.x.T @ ((person * there.d1).sum(axis=0) + s * Ai * at.d2 - s**2 * Bi * at.d3)
        by_s = ((share * nodes) * self._sum(there.d1)).sum(axis=0) + A * (S1 + s * u * S2) - B * (2 * s * S2 + s**2 * u * S3)
        by_extra = (person * there.e0).sum(axis=(-2, -1)) + (s * Ai * at.e1 - s**2 * Bi * at.e2).sum(axis=-1)
        return value, np.concatenate([by_beta, [by_s.sum()], by_extra])


def maximise(
    x: Array, codes: Codes, density: Density, *, nodes: int, start: Array, extra: Array, offset: Array | None = None, at: float = 0.5
) -> Maximum:
    """Maximum of the marginal likelihood.

    Parameters
    ----------
    x : array (n, p)
        Full column rank, of about unit scale (the caller makes it so).
    codes : array (n,)
        Clusters 0..J-1, ascending (rows sorted).
    density : Density
        Of the n outcomes, in the same order.
    nodes : int
    start : array (p,)
        Coefficients to begin with, best those of the model without clusters.
    extra : array (E,)
        Extra parameters to begin with.
    offset : array (n,), optional
    at : float
        Standard deviation to begin with.

    Raises
    ------
    Separation
        The likelihood rises for ever.
    """
    likelihood = Likelihood(x, np.zeros(len(x)) if offset is None else offset, codes, density, nodes)
    p = x.shape[1]

    def objective(q: Array) -> tuple[float, Array]:
        value, gradient = likelihood(q)
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            return 1e10, np.zeros(len(q))
        return -value, -gradient

    def search(sd: float) -> Array:
        begin = np.concatenate([start, [sd], extra])
        found = optimize.minimize(objective, begin, jac=True, method="BFGS", options={"gtol": 1e-6, "maxiter": 500})
        return np.asarray(found.x, dtype=np.float64)

    q = search(at)
    if abs(q[p]) < BOUNDARY and _rises_at_zero(likelihood, q):
        q = min((search(sd) for sd in (0.1, 0.02, 1.5)), key=lambda one: objective(one)[0])
    if np.abs(x @ q[:p]).max(initial=0.0) > _FAR:
        raise Separation
    boundary = abs(q[p]) < BOUNDARY
    if boundary:
        q[p] = 0.0
    free = np.array([k for k in range(len(q)) if not (boundary and k == p)])
    H = _hessian(objective, q, free)
    # an extra parameter that has run to where it no longer matters (a negative binomial size at infinity) stays there
    matters = np.array([k <= p or c > _IDLE for k, c in zip(free, np.diagonal(H), strict=True)])
    free, H = free[matters], H[np.ix_(matters, matters)]
    moved = 0.0
    for _ in range(6):
        values = np.linalg.eigvalsh(H)
        if not np.isfinite(values).all() or values[0] <= 0:
            break
        step = np.linalg.solve(H, objective(q)[1][free])
        nearer = q.copy()
        nearer[free] -= step
        if objective(nearer)[0] > objective(q)[0] + 1e-9:
            break
        q, size = nearer, float(np.abs(step).max())
        moved += size
        if size < 1e-9:
            break
        if size > 1e-3:
            H = _hessian(objective, q, free)
    if moved > 1e-7:
        H = _hessian(objective, q, free)
    if p and not float(np.linalg.eigvalsh(H[:p, :p])[0]) / len(x) > _FLAT:
        raise Separation
    vcov = np.full((len(q), len(q)), np.nan)
    vcov[np.ix_(free, free)] = np.linalg.inv(H)
    others = np.delete(np.arange(len(q)), p)
    return Maximum(q[:p], abs(float(q[p])), q[p + 1 :], -objective(q)[0], vcov[np.ix_(others, others)], bool(boundary))


def _rises_at_zero(likelihood: Likelihood, q: Array) -> bool:
    """Whether the likelihood rises when the clusters begin to vary: the sign of its second derivative in sd at zero."""
    p = likelihood.x.shape[1]
    d = likelihood.density(likelihood.offset + likelihood.x @ q[:p], q[p + 1 :])
    return float((likelihood._sum(d.d1) ** 2 + likelihood._sum(d.d2)).sum()) > 1e-6 * len(likelihood.x)


def _hessian(objective: Callable[[Array], tuple[float, Array]], q: Array, free: NDArray[np.intp], step: float = 1e-4) -> Array:
    """Central differences of the exact gradient."""
    out = np.empty((len(free), len(free)))
    for j, k in enumerate(free):
        e = np.zeros(len(q))
        e[k] = step * max(1.0, abs(float(q[k])))
        out[j] = ((objective(q + e)[1] - objective(q - e)[1]) / (2 * e[k]))[free]
    return np.asarray((out + out.T) / 2)
