"""One-way variance components with covariates: analysis of variance, intervals of the intracluster correlation, likelihood profiles.

y = X b + u_cluster + e. Everything is reduced to cross-products by cluster once; rows are not touched again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clustered:
    """Sufficient statistics of a clustered outcome.

    Attributes
    ----------
    sizes : (K,)
        People a cluster.
    sums_x : (K, p), sums_y : (K,)
        Cluster totals of the fixed-effect columns (full rank, the intercept among them) and of the outcome, which is centred first.
    xx : (p, p), xy : (p,), yy : float
        Cross-products over all people.
    """

    sizes: Array
    sums_x: Array
    sums_y: Array
    xx: Array
    xy: Array
    yy: float

    @property
    def n(self) -> float:
        return float(self.sizes.sum())

    @property
    def p(self) -> int:
        return int(self.xx.shape[0])


@dataclass(frozen=True, slots=True)
class Anova:
    """Analysis of variance between and within clusters, covariates first (Henderson's method 3).

    Attributes
    ----------
    ms_between, ms_within, df_between, df_within : float
    k0 : float
        Coefficient of the variance between clusters in the expectation of ms_between: (N - sum n^2 / N)/(K - 1) without covariates.
    icc : float
        (MSB - MSW) / (MSB + (k0 - 1) MSW); negative when clusters differ less than chance would have it.
    """

    ms_between: float
    ms_within: float
    df_between: float
    df_within: float
    k0: float
    icc: float

    @property
    def variance_between(self) -> float:
        return (self.ms_between - self.ms_within) / self.k0


def reduce(X: Array, y: Array, cluster: NDArray[Any]) -> Clustered:
    """Cross-products by cluster; X (n, p) of full rank, y (n,), cluster (n,) integer codes 0..K-1."""
    y = y - y.mean()
    K = int(cluster.max()) + 1
    sums_x = np.zeros((K, X.shape[1]))
    np.add.at(sums_x, cluster, X)
    return Clustered(
        np.bincount(cluster, minlength=K).astype(float),
        sums_x,
        np.bincount(cluster, weights=y, minlength=K).astype(float),
        X.T @ X,
        X.T @ y,
        float(y @ y),
    )


def anova(data: Clustered) -> Anova:
    """Analysis-of-variance estimate.

    Raises
    ------
    ValueError
        Nothing is left within clusters, or between them, to estimate a variance from.
    """
    n, sizes = data.n, data.sizes
    # within: both sides centred on their cluster means
    wx = data.xx - (data.sums_x / sizes[:, None]).T @ data.sums_x
    wy = data.xy - (data.sums_x / sizes[:, None]).T @ data.sums_y
    total = data.yy - float(data.xy @ np.linalg.solve(data.xx, data.xy))
    values, vectors = np.linalg.eigh(wx)
    keep = values > 1e-10 * max(float(np.trace(data.xx)), 1e-300)
    part = vectors[:, keep].T @ wy
    within = data.yy - float((data.sums_y**2 / sizes).sum()) - float((part**2 / values[keep]).sum())
    rank = int(keep.sum())
    df_within = n - len(sizes) - rank
    df_between = len(sizes) + rank - data.p
    if df_within < 1:
        raise ValueError("no cluster has more than one person left after covariates: nothing is known about the variance within")
    if df_between < 1:
        raise ValueError("there are no more clusters than cluster-level covariates: nothing is known about the variance between")
    # trace of Z'MZ, M the residual maker of X
    trace = n - float(np.trace(np.linalg.solve(data.xx, data.sums_x.T @ data.sums_x)))
    k0 = trace / df_between
    msw, msb = within / df_within, (total - within) / df_between
    if not msw > 1e-14 * max(data.yy / n, 1e-300):
        msw = 0.0
    denominator = msb + (k0 - 1) * msw
    if denominator <= 1e-14 * max(data.yy / n, 1e-300):
        raise ValueError("the outcome does not vary")
    return Anova(msb, msw, df_between, df_within, k0, (msb - msw) / denominator)


# --- bounds: the value that the ICC exceeds with probability 1 - q ------------------------------------------------


def searle(a: Anova, q: float) -> float:
    """Upper confidence bound at confidence q from the F ratio (Searle 1971; Thomas & Hultquist and Donner for unequal sizes)."""
    if a.ms_within == 0:
        return 1.0
    ratio = a.ms_between / a.ms_within / float(stats.f.ppf(1 - q, a.df_between, a.df_within))
    return (ratio - 1) / (ratio + a.k0 - 1)


def swiger_variance(a: Anova, n: float) -> float:
    """Swiger et al. 1964."""
    r, k = a.icc, a.k0
    return float(2 * (n - 1) * (1 - r) ** 2 * (1 + (k - 1) * r) ** 2 / (k**2 * a.df_within * a.df_between))


def smith_variance(a: Anova, sizes: Array) -> float:
    """Smith 1956, unequal sizes."""
    r, k = a.icc, a.k0
    n = float(sizes.sum())
    squares, cubes = float((sizes**2).sum()), float((sizes**3).sum())
    first = (1 + r * (k - 1)) ** 2 / a.df_within
    second = a.df_between * (1 - r) * (1 + r * (2 * k - 1)) + r**2 * (squares - 2 * cubes / n + squares**2 / n**2)
    return float(2 * (1 - r) ** 2 / k**2 * (first + second / a.df_between**2))


def fisher(a: Anova, clusters: int, q: float) -> float:
    """Upper confidence bound on Fisher's scale z = ln[(1 + (k-1) r)/(1 - r)]/2, variance k/[2(k-1)(K-2)]."""
    k = a.k0
    z = 0.5 * math.log((1 + (k - 1) * a.icc) / (1 - a.icc)) + float(stats.norm.ppf(q)) * math.sqrt(k / (2 * (k - 1) * (clusters - 2)))
    e = math.exp(2 * z)
    return (e - 1) / (e + k - 1)


# --- likelihood ---------------------------------------------------------------------------------------------------


def criterion(data: Clustered, theta: float, *, reml: bool, sigma2: float | None = None) -> float:
    """-2 log-likelihood, constants left out, at theta = sigma_b^2 / sigma^2; profiled over sigma^2 unless it is given."""
    shrink = theta / (1 + theta * data.sizes)
    A = data.xx - (data.sums_x * shrink[:, None]).T @ data.sums_x
    b = data.xy - (data.sums_x * shrink[:, None]).T @ data.sums_y
    rss = data.yy - float((shrink * data.sums_y**2).sum()) - float(b @ np.linalg.solve(A, b))
    dof = data.n - data.p if reml else data.n
    out = float(np.log1p(theta * data.sizes).sum())
    if reml:
        out += float(np.linalg.slogdet(A)[1])
    s2 = rss / dof if sigma2 is None else sigma2
    return out + dof * math.log(s2) + rss / s2


def profile_icc(data: Clustered, icc: float, level: float, *, reml: bool) -> tuple[float, float]:
    """Likelihood interval of the ICC, 0 <= ICC < 1, around its maximum."""
    return _profile(lambda r: criterion(data, r / (1 - r), reml=reml), icc, level, 0.0, 1.0)


def profile_sds(
    data: Clustered, sd_between: float, sd_within: float, level: float, *, reml: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Likelihood intervals of the standard deviations between and within clusters, each profiled over the other."""

    def between(s: float) -> float:
        return _least(lambda w: criterion(data, (s / w) ** 2, reml=reml, sigma2=w * w), sd_within)

    def within(w: float) -> float:
        return _least(lambda t: criterion(data, t * t, reml=reml, sigma2=w * w), max(sd_between / sd_within, 1e-3), zero=True)

    return (
        _profile(between, sd_between, level, 0.0, math.inf),
        _profile(within, sd_within, level, 0.0, math.inf),
    )


def _least(function: Callable[[float], float], start: float, *, zero: bool = False) -> float:
    """Minimum over a positive number, searched on the log scale around a start; with 0 itself if asked for."""
    x = math.log(start)
    found = optimize.minimize_scalar(lambda u: function(math.exp(u)), bracket=(x - 0.3, x + 0.3), tol=1e-12)
    return min(float(found.fun), function(0.0)) if zero else float(found.fun)


def _profile(function: Callable[[float], float], best: float, level: float, low: float, high: float) -> tuple[float, float]:
    floor = function(best)
    limit = floor + float(stats.chi2.ppf(level, 1))

    def over(x: float) -> float:
        return function(x) - limit

    if math.isinf(high):
        top = max(2 * best, 1e-8)
        while over(top) < 0:
            top *= 2
    else:
        gap = (high - best) / 2
        while over(high - gap) < 0 and gap > 1e-13:
            gap /= 2
        top = high - gap
    upper = float(optimize.brentq(over, best, top, xtol=1e-13)) if over(top) > 0 else high
    if best <= low:
        return low, upper
    bottom = best / 2
    while bottom > 1e-10 and over(bottom) < 0:
        bottom /= 2
    # the criterion is finite at 0 for a variance between clusters, infinite for one within
    if over(bottom) < 0:
        return low, upper
    return float(optimize.brentq(over, bottom, best, xtol=1e-13)), upper


# --- binary outcomes ----------------------------------------------------------------------------------------------


def fleiss_cuzick(sizes: Array, events: Array) -> float:
    """1 - sum Y(n-Y)/n / [(N-K) p(1-p)] (Fleiss & Cuzick 1979).

    Raises
    ------
    ValueError
        Everybody has the event, or nobody; or no cluster has two people.
    """
    n, K = float(sizes.sum()), len(sizes)
    p = float(events.sum()) / n
    if not 0 < p < 1:
        raise ValueError("the outcome does not vary")
    if n - K < 1:
        raise ValueError("no cluster has more than one person: nothing is known about the variance within")
    return 1 - float((events * (sizes - events) / sizes).sum()) / ((n - K) * p * (1 - p))


def jackknife(estimate: Callable[[NDArray[Any]], float], clusters: int) -> float:
    """Standard error from leaving out one cluster at a time; ``estimate`` takes the indices of the clusters kept."""
    everyone = np.arange(clusters)
    values = []
    for i in everyone:
        values.append(estimate(np.delete(everyone, i)))
    v = np.array(values)
    return math.sqrt((clusters - 1) / clusters * float(((v - v.mean()) ** 2).sum()))
