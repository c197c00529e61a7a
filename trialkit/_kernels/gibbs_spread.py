r"""The random-intercept regression whose residual variance differs by site, for m chains at once.

.. math:: y_{ij} = x_{ij}'\beta + u_j + e_{ij},\; u_j \sim N(0, \tau^2),\; e_{ij} \sim N(0, \sigma_j^2),\;
    1/\sigma_j^2 \sim \text{Gamma}(\nu/2, \nu s^2/2)

A hierarchy of variances (Kasim & Raudenbush 1998), with :math:`c = \sqrt{2/\nu}`, the sites' coefficient of variation of the precision,
uniform on (0, 1.5), and s log-uniform over a wide range: a site of one person, or of none, borrows its variance from the others. One cycle:

1. c, then s, given beta and u, each with the sites' variances integrated out (a product of t densities), so that nearly equal variances do
   not trap c at zero; then the variances, gamma;
2. tau given beta and the variances with u integrated out; beta likewise, normal; u.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from trialkit._kernels.gibbs_latent import Predictors
from trialkit._kernels.gibbs_linear import Columns, Moments, Prior, back_substitute, draw, identified, independence_step, totals
from trialkit._kernels.gibbs_streams import Streams

Array = NDArray[np.float64]

C_MAX = 1.5
# ln s, of an outcome of standard deviation 1
LOG_LOW, LOG_HIGH = -7.0, 2.0


@dataclass(slots=True)
class SpreadState:
    """What a chain carries from visit to visit."""

    beta: Array  # (m, p)
    u: Array  # (m, J)
    t: Array  # (m,)  phi / (1 + phi), phi = tau / s
    c: Array  # (m,)
    log_s: Array  # (m,)
    weight: Array  # (m, J)  1 / sigma_j^2

    @classmethod
    def start(cls, predictors: Predictors, y: Array, prior: Prior, streams: Streams) -> SpreadState:
        """From one draw with equal variances."""
        m = len(y)
        moments = predictors.moments(y)
        first = draw(moments, predictors.layout, prior, streams, beta=None, t=np.full(m, 0.25))
        assert first.u is not None
        log_s = np.clip(0.5 * np.log(first.sigma2), LOG_LOW + 0.01, LOG_HIGH - 0.01)
        weight = np.repeat(1 / first.sigma2[:, None], first.u.shape[1], axis=1)
        return cls(first.beta, first.u, np.full(m, 0.25), np.full(m, 0.5), log_s, weight)


def cycle(state: SpreadState, predictors: Predictors, y: Array, prior: Prior, streams: Streams) -> NDArray[np.bool_]:
    """One Gibbs cycle in place, given the observed y (m, r); returns which chains needed a ridge (m,)."""
    assert predictors.sites is not None
    sites, layout = predictors.sites, predictors.sites.layout
    J = len(layout.count)
    squares = totals((y - predictors.linear(state.beta, state.u)) ** 2, sites.used, J)
    _draw_hierarchy(state, squares, layout.count, layout.size, layout.sites_of_size, prior, streams)
    nu, s2 = (2 / state.c**2)[:, None], np.exp(2 * state.log_s)[:, None]
    state.weight = streams.gamma((nu + layout.count) / 2) / ((nu * s2 + squares) / 2)

    # the regression of rows multiplied by the roots of their weights, whose residual variance is 1
    root = np.sqrt(np.take(state.weight, sites.used, axis=1))
    p = len(predictors.places)
    rows = np.empty((*y.shape, p + 1))
    rows[:, :, :p] = np.take(np.take(predictors.z, predictors.used, axis=1), predictors.places, axis=2)
    rows[:, :, p] = y
    rows *= root[:, :, None]
    # sums over a site of weight times row
    assert predictors.site is not None
    site = np.empty((len(y), J, p + 1))
    site[:, :, :p] = np.take(predictors.site, predictors.columns.predictors, axis=2)
    site[:, :, p] = totals(y, sites.used, J)
    site *= state.weight[:, :, None]
    moments = Moments(rows.swapaxes(1, 2) @ rows, site, y.shape[1], Columns.of(np.arange(p), p, p + 1))
    return _regress(state, moments, state.weight * layout.count, prior, streams)


def _draw_hierarchy(
    state: SpreadState, squares: Array, count: Array, size: Array, sites_of_size: Array, prior: Prior, streams: Streams
) -> None:
    """c and s given the sites' sums of squares (m, J), their variances integrated out."""

    def log_t(nu: Array, log_s: Array) -> Array:
        """Log density of the squares, up to a constant, at nu and ln s (m, G)."""
        gammas = ((special.gammaln((nu[:, :, None] + size) / 2) - special.gammaln(nu / 2)[:, :, None]) * sites_of_size).sum(axis=2)
        scale = nu * np.exp(2 * log_s)
        inside = ((nu[:, :, None] + count) / 2 * np.log1p(squares[:, None, :] / scale[:, :, None])).sum(axis=2)
        return np.asarray(gammas - 0.5 * count.sum() * np.log(scale) - inside)

    log_s = state.log_s[:, None]
    state.c = independence_step(state.c, lambda at: log_t(2 / at**2, np.broadcast_to(log_s, at.shape)), C_MAX, streams)
    nu = (2 / state.c**2)[:, None]
    width = LOG_HIGH - LOG_LOW
    log_tau = np.log(state.t / (1 - state.t)) + state.log_s

    def of_scale(at: Array) -> Array:
        log_s = LOG_LOW + width * at
        out = log_t(np.broadcast_to(nu, at.shape), log_s)
        if not isinstance(prior.site, str):  # tau is kept, so that its prior, half-Cauchy in units of s, follows
            out -= log_s + np.log1p((np.exp(log_tau[:, None] - log_s) / prior.site) ** 2)
        return out

    place = independence_step((state.log_s - LOG_LOW) / width, of_scale, 1.0, streams, fine=2)
    state.log_s = LOG_LOW + width * place
    phi = np.exp(log_tau - state.log_s)
    state.t = np.minimum(phi / (1 + phi), prior.t_max * (1 - 1e-9))


def _regress(state: SpreadState, moments: Moments, mass: Array, prior: Prior, streams: Streams) -> NDArray[np.bool_]:
    """tau, beta and u given the weights; `mass` (m, J) is the sum of a site's weights."""
    assert moments.site is not None
    columns, p = moments.columns, moments.columns.outcome
    s = np.exp(state.log_s)
    squares = (moments.site @ columns.residual(state.beta)[:, :, None])[:, :, 0] ** 2

    def of_sites(at: Array) -> Array:
        phi = at / (1 - at)
        tau2 = (phi * s[:, None]) ** 2
        inflation = 1 + tau2[:, :, None] * mass[:, None, :]
        out = 0.5 * (tau2 * (squares[:, None, :] / inflation).sum(axis=2) - np.log(inflation).sum(axis=2)) + 2 * np.log1p(phi)
        if not isinstance(prior.site, str):
            out -= np.log1p((phi / prior.site) ** 2)
        return np.asarray(out)

    state.t = independence_step(state.t, of_sites, prior.t_max, streams, fine=int(mass.shape[1] > 300))
    tau2 = (state.t / (1 - state.t) * s)[:, None] ** 2
    shrink = tau2 / (1 + tau2 * mass)
    root = np.sqrt(shrink)
    scaled = moments.site * root[:, :, None]
    cross = moments.cross - scaled.swapaxes(1, 2) @ scaled
    # the corner is made safe: it is not needed, but with it the factor holds the forward solve in its last row
    cross[:, range(p), range(p)] += prior.precision
    cross[:, p, p] = 2 * np.maximum(cross[:, p, p], 1e-14 * moments.yy) + 1e-100
    factor, repaired = identified(cross, p)
    right = factor[:, p].copy()
    right[:, :p] += streams.normal(p)
    right[:, p] = 0
    state.beta = back_substitute(factor, right)[:, :p]
    remainder = (moments.site @ columns.residual(state.beta)[:, :, None])[:, :, 0]
    state.u = shrink * remainder + root * streams.normal(mass.shape[1])
    return repaired
