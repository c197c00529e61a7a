"""Categories as a cut normal latent variable with a random site intercept: binary, ordinal and nested binary probits.

Albert & Chib (1993) for the latent draws, Cowles (1996) for the cut points (moved with the latents integrated out). The site's own
observed categories inform its intercept: imputing from the marginal N(0, psi) would lose half the ICC.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from trialkit._kernels import gibbs_linear, truncated
from trialkit._kernels.gibbs_linear import Columns, LatentScale, Layout, Moments, Prior, Workspace, totals
from trialkit._kernels.gibbs_streams import Streams

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

T_MAX = 0.8  # phi up to 4, a latent ICC up to .94: where every site is of one category, the data set no upper limit
CUT_SD = 5.0  # in units of the latent's residual: no information, but a proper posterior whatever the data


@dataclass(frozen=True, slots=True)
class SiteRows:
    """Where the rows of one regression lie."""

    used: Ints  # (r,) code of the site of each used row
    absent: Ints  # (q,) code of the site of each row to impute
    layout: Layout  # of the sites in the order of their codes

    @classmethod
    def of(cls, used: Ints, absent: Ints, sites: int, pair: Ints | None = None) -> SiteRows:
        """From the site codes 0..sites-1 of the used and the absent rows, and the sites' pairs if these have an intercept."""
        return cls(used, absent, Layout.of(np.bincount(used, minlength=sites), pair))


@dataclass(frozen=True, slots=True)
class Predictors:
    """The regression of one visit, for outcomes that no column of it holds: they are laid in the last column of `cross` and `site`.

    Rows are multiplied where they lie: a copy of the used ones would cost more than the product over all.
    """

    z: Array  # (m, n, P)
    used: Ints  # (r,) rows the regression is over
    places: Ints  # (p,) its predictors among the P columns
    out: Array  # (m, e, w) other rows, those to impute among them
    absent: Ints  # (q,) places of the rows to impute among those
    cross: Array  # (m, w, w) cross-products of the used rows, the last column free
    site: Array | None  # (m, J, w) their site sums likewise, None without a site intercept
    columns: Columns  # the predictors among the w columns of the three
    sites: SiteRows | None
    work: Workspace = field(default_factory=Workspace)

    @property
    def layout(self) -> Layout | None:
        """How the used rows lie in sites."""
        return None if self.sites is None else self.sites.layout

    def linear(self, beta: Array, u: Array | None) -> Array:
        """x'beta + u of the used rows (m, r)."""
        full = np.zeros((len(beta), self.z.shape[2]))
        full[:, self.places] = beta
        eta = np.take((self.z @ full[:, :, None])[:, :, 0], self.used, axis=1)
        return eta if u is None or self.sites is None else np.asarray(eta + np.take(u, self.sites.used, axis=1))

    def linear_absent(self, beta: Array, u: Array | None) -> Array:
        """x'beta + u of the rows to impute (m, q)."""
        eta = np.take((self.out @ self.columns.spread(beta)[:, :, None])[:, :, 0], self.absent, axis=1)
        return eta if u is None or self.sites is None else np.asarray(eta + np.take(u, self.sites.absent, axis=1))

    def moments(self, y: Array) -> Moments:
        """Sufficient statistics with the outcome y (m, r); those of the outcome before are overwritten."""
        everywhere = np.zeros(self.z.shape[:2])
        everywhere[:, self.used] = y
        last = self.columns.outcome
        xy = np.take((everywhere[:, None, :] @ self.z)[:, 0], self.places, axis=1)
        self.cross[:, self.columns.predictors, last] = self.cross[:, last, self.columns.predictors] = xy
        self.cross[:, last, last] = (y**2).sum(axis=1)
        if self.site is not None and self.sites is not None:
            self.site[:, :, last] = totals(y, self.sites.used, self.site.shape[1])
        return Moments(self.cross, self.site, y.shape[1], self.columns, self.work)


@dataclass(slots=True)
class ProbitState:
    """What a chain carries from visit to visit."""

    beta: Array | None  # (m, p)
    t: Array  # (m,)
    u: Array | None  # (m, J)
    cuts: Array  # (m, K - 1), the first is 0
    t_pair: Array | None = None  # (m,)
    drawn: tuple[Array, Array] | None = None  # (m, q) mean and value of the latents last drawn for the rows to impute

    @classmethod
    def start(cls, m: int, codes: Ints, levels: int) -> ProbitState:
        """Cut points at the observed margins, no coefficients yet."""
        cuts = np.tile(marginal_cuts(codes, levels), (m, 1))
        return cls(None, np.full(m, 0.25), None, cuts)


def marginal_cuts(codes: Ints, levels: int) -> Array:
    """Cut points (K - 1,) of an intercept-only model, shifted so that the first is 0."""
    share = (np.bincount(codes, minlength=levels) + 0.5) / (len(codes) + 0.5 * levels)
    cuts = special.ndtri(np.cumsum(share)[:-1])
    return np.asarray(cuts - cuts[0])


def cut_proposal(codes: Ints, levels: int) -> Array:
    """Cholesky factor (K - 2, K - 2) of the random-walk proposal: the cut points' asymptotic covariance given the first."""
    share = (np.bincount(codes, minlength=levels) + 0.5) / (len(codes) + 0.5 * levels)
    cuts = special.ndtri(np.cumsum(share)[:-1])
    height = np.exp(-0.5 * cuts**2) / np.sqrt(2 * np.pi)
    information = np.diag(height**2 * (1 / share[:-1] + 1 / share[1:]))
    off = -height[:-1] * height[1:] / share[1:-1]
    information += np.diag(off, 1) + np.diag(off, -1)
    covariance = np.linalg.inv(information[1:, 1:]) / len(codes)
    return np.asarray(np.linalg.cholesky(covariance) * 2.4 / np.sqrt(levels - 2))


def cycle(
    state: ProbitState,
    predictors: Predictors,
    codes: Ints,
    levels: int,
    prior: Prior,
    streams: Streams,
    *,
    step: Array | None,
    moves: int = 2,
    cut_sd: float = CUT_SD,
) -> NDArray[np.bool_]:
    """One Gibbs cycle over cut points, latents, phi, beta and u, in place; returns which chains needed a ridge (m,).

    `codes` is (r,), or (m, r) when every chain has data of its own.
    """
    m = len(streams)
    if state.beta is None:
        eta = np.zeros((m, codes.shape[-1])) - special.ndtri((np.sum(codes == 0) + 0.5) / (codes.size + 1))
    else:
        eta = predictors.linear(state.beta, state.u)
        if levels > 2 and step is not None:
            state.cuts = move_cuts(state.cuts, eta, codes, step, streams, moves=moves, cut_sd=cut_sd)
    z = _latents(state.cuts, eta, codes, levels, streams)
    latent = LatentScale(levels - 2, ((state.cuts / cut_sd) ** 2).sum(axis=1))
    drawn = gibbs_linear.draw(
        predictors.moments(z), predictors.layout, prior, streams, beta=state.beta, t=state.t, t_pair=state.t_pair, latent=latent
    )
    state.beta, state.t, state.t_pair, state.u = drawn.beta, drawn.t, drawn.t_pair, drawn.u
    state.cuts = state.cuts * drawn.scale[:, None]
    return drawn.repaired


def impute(state: ProbitState, predictors: Predictors, levels: int, streams: Streams) -> Ints:
    """Categories of the absent rows (m, q)."""
    assert state.beta is not None
    eta = predictors.linear_absent(state.beta, state.u)
    z = eta + streams.normal(eta.shape[1])
    state.drawn = (eta, z)
    if levels == 2:
        return np.asarray(z > 0, dtype=np.intp)
    return np.asarray((z[:, :, None] > state.cuts[:, None, :]).sum(axis=2), dtype=np.intp)


def passing(state: ProbitState) -> Array:
    """Log odds ratio (m, q, K - 1), negative where it did so anyhow, at which each drawn cell passes its cut points.

    With P = Phi(eta - c), the chance to lie above c, the cell lies there when its uniform number U = Phi(eta - z) is below P: were the log
    odds of P larger by d, when d > logit U - logit P. One number serves all d, so that a larger d never lowers a category.
    """
    assert state.drawn is not None
    eta, z = state.drawn

    def logit(x: Array) -> Array:
        return np.asarray(special.log_ndtr(x) - special.log_ndtr(-x))

    return logit(eta - z)[:, :, None] - logit(eta[:, :, None] - state.cuts[:, None, :])


def _latents(cuts: Array, eta: Array, codes: Ints, levels: int, streams: Streams) -> Array:
    uniform = streams.uniform(eta.shape[1])
    if levels == 2:
        return truncated.one_side(eta, np.broadcast_to(codes == 1, eta.shape), uniform)
    low, high = limits(cuts, codes)
    return truncated.between(eta, low, high, uniform)


def limits(cuts: Array, codes: Ints) -> tuple[Array, Array]:
    """Between which cut points (m, K - 1) the latent of each code (r,) or (m, r) lies: two arrays (m, r)."""
    m = len(cuts)
    edges = np.concatenate([np.full((m, 1), -np.inf), cuts, np.full((m, 1), np.inf)], axis=1)
    if codes.ndim == 1:
        return np.take(edges, codes, axis=1), np.take(edges, codes + 1, axis=1)
    return np.take_along_axis(edges, codes, axis=1), np.take_along_axis(edges, codes + 1, axis=1)


def move_cuts(cuts: Array, eta: Array, codes: Ints, step: Array, streams: Streams, *, moves: int, cut_sd: float | Array) -> Array:
    """Random-walk Metropolis on the free cut points with the latents integrated out; their prior is N(0, cut_sd^2), ordered.

    `cuts` (m, K - 1), the first being 0; `eta` (m, r) the latents' means, of variance 1; `cut_sd` may be (m, 1).
    """
    current = _log_posterior(cuts, eta, codes, cut_sd)
    jumps = (step @ streams.normal(moves, len(step), 1))[..., 0]
    accept = np.log(streams.uniform(moves))
    for k in range(moves):
        proposal = cuts.copy()
        proposal[:, 1:] += jumps[:, k]
        ordered = np.asarray((np.diff(proposal, axis=1) > 0).all(axis=1))
        proposal = np.where(ordered[:, None], proposal, cuts)
        proposed = _log_posterior(proposal, eta, codes, cut_sd)
        take = ordered & (accept[:, k] < proposed - current)
        cuts = np.where(take[:, None], proposal, cuts)
        current = np.where(take, proposed, current)
    return cuts


def _log_posterior(cuts: Array, eta: Array, codes: Ints, cut_sd: float | Array) -> Array:
    low, high = limits(cuts, codes)
    likelihood = truncated.log_probability(low - eta, high - eta).sum(axis=1)
    return np.asarray(likelihood - 0.5 * ((cuts / cut_sd) ** 2).sum(axis=1))
