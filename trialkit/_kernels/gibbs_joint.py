r"""The joint latent-normal model: all incomplete variables at once, with one covariance within sites and one between, for m chains.

.. math:: y_{ij} = B'x_{ij} + u_j + e_{ij},\; e_{ij} \sim N(0, \Omega);\quad z_j = \Gamma'w_j + a_j;\quad (u_j, a_j) \sim N(0, \Psi)

y holds the person-level variables, z the site-level ones. A number is its own latent; a binary or ordinal one is cut from one latent; a
nominal one with K categories has K - 1 and is the largest of them, or the first category where all are negative (Goldstein, Carpenter,
Kenward & Levin 2009).

The scale of a category's latent is not fixed in the sampler: every parameter has a proper prior on the free scale, so that each step is a
plain conjugate draw and the identified ratios are right (McCulloch & Rossi 1994). No Metropolis step for a covariance matrix is needed.
One cycle:

1. :math:`B, u \mid \Omega, \Psi`: with :math:`T\Omega T' = I` and :math:`T\Psi T'` diagonal the dimensions of :math:`Ty` are so many
   separate random-intercept regressions, so that B is drawn with u integrated out at the cost of one regression a dimension;
2. :math:`\Omega`, :math:`\Psi` inverse-Wishart given their auxiliary scales (Huang & Wand 2013, half-t with 2 df on every standard
   deviation, every correlation uniform), :math:`\Gamma` normal;
3. a move of the scale of each dimension's site intercepts and of its site variance together (Liu & Sabatti 2000): Metropolis with the
   likelihood's own normal proposal, so that a small variance does not hold its intercepts, nor they it;
4. cut points with their latent integrated out (Cowles 1996), then latents and missing cells, one dimension given the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from trialkit._kernels import gibbs_donors, gibbs_latent, truncated
from trialkit._kernels.gibbs import Draws, Target
from trialkit._kernels.gibbs_linear import back_substitute
from trialkit._kernels.gibbs_streams import Streams

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

CYCLES = 10  # cycles an iteration: one moves less than a round of the chained equations, and costs less


@dataclass(frozen=True, slots=True)
class JointPrior:
    """Standard deviations of the normal priors, and the scale of the half-t (2 df) prior of every standard deviation.

    Those of B are in units of the residual standard deviation.
    """

    intercept: float = 10.0
    slope: float = 2.5
    cut: float = 5.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class JointProblem:
    """What is to be imputed.

    `x` (n, p) are complete columns of people, `w` (J, q) of sites, 1 first; `site` (n,) is 0..J-1, ascending. A target's `columns` are its
    dimensions among those of its level; its `predictors` are not used; `values` may be (m, r), a row a chain.
    """

    x: Array
    w: Array
    site: Ints
    targets: tuple[Target, ...]


def run(problem: JointProblem, seeds: Sequence[np.random.SeedSequence], iterations: int) -> Draws:
    """One chain a seed, `iterations` times `CYCLES` cycles."""
    engine = JointEngine(problem, Streams(seeds))
    targets = problem.targets
    trace = np.full((3, iterations, len(targets), engine.m), np.nan)
    for i in range(iterations):
        for _ in range(CYCLES):
            engine.cycle()
        for k, part in enumerate(engine.parts):
            drawn = part.values()
            trace[0, i, k], trace[1, i, k] = drawn.mean(axis=1), drawn.std(axis=1)
            if not part.target.site_level:
                own = part.target.columns
                between = engine.psi[:, own, own].mean(axis=1)
                trace[2, i, k] = between / (between + engine.omega[:, own, own].mean(axis=1))
    values = {part.target.name: part.values() for part in engine.parts}
    return Draws(values, {}, trace[0], trace[1], trace[2], {t.name: 0 for t in targets})


def inverse_wishart(df: float, scale: Array, streams: Streams) -> tuple[Array, Array]:
    """Draws of IW(df, scale) for scale (m, D, D), and their inverses."""
    m, d, _ = scale.shape
    root = np.zeros((m, d, d))
    for k in range(d):
        root[:, k, k] = np.sqrt(streams.chi2(df - k))
    lower = np.tril_indices(d, -1)
    if len(lower[0]):
        root[:, lower[0], lower[1]] = streams.normal(len(lower[0]))
    # Bartlett: the inverse is C^-T A A' C^-1 with scale = C C'
    half = np.linalg.inv(np.linalg.cholesky(scale)).swapaxes(1, 2) @ root
    inverse = half @ half.swapaxes(1, 2)
    back = np.linalg.inv(half)
    return back.swapaxes(1, 2) @ back, inverse


@dataclass(slots=True)
class Covariance:
    """A covariance matrix under Huang and Wand's prior, with its inverse and auxiliary scales."""

    value: Array  # (m, D, D)
    inverse: Array
    auxiliary: Array  # (m, D)  1 / a_k

    @classmethod
    def start(cls, m: int, dimensions: int, variance: float) -> Covariance:
        """A multiple of the identity."""
        eye = np.repeat(np.eye(dimensions)[None], m, axis=0)
        return cls(eye * variance, eye / variance, np.ones((m, dimensions)))

    def draw(self, squares: Array, rows: int, scale: float, streams: Streams) -> None:
        """Given the cross-products (m, D, D) of `rows` vectors; the auxiliary scales first, given the last value."""
        d = squares.shape[1]
        diagonal = np.arange(d)
        rate = 2.0 * self.inverse[:, diagonal, diagonal] + scale**-2
        for k in range(d):
            self.auxiliary[:, k] = 0.5 * streams.chi2(2.0 + d) / rate[:, k]
        posterior = squares.copy()
        posterior[:, diagonal, diagonal] += 4.0 * self.auxiliary
        self.value, self.inverse = inverse_wishart(rows + 1.0 + d, posterior, streams)

    def rescale(self, factor: Array) -> None:
        """Multiply every vector's dimensions by `factor` (m, D)."""
        self.value = self.value * factor[:, :, None] * factor[:, None, :]
        self.inverse = self.inverse / factor[:, :, None] / factor[:, None, :]

    def log_change(self, log_factor: Array, scale: float) -> Array:
        """Log ratio (m,) of the prior's density, times the Jacobian, were each dimension multiplied by exp(`log_factor`) (m, D).

        The auxiliary scales are integrated out: the density is |S|^-(1+D) prod_k (2 [S^-1]_kk + scale^-2)^-(1+D/2).
        """
        d = self.value.shape[1]
        diagonal = np.arange(d)
        rate = 2 * self.inverse[:, diagonal, diagonal]
        change = np.log((rate * np.exp(-2 * log_factor) + scale**-2) / (rate + scale**-2))
        return np.asarray((-(d + 1.0) * log_factor - 0.5 * (2 + d) * change).sum(axis=1))


class JointEngine:
    """A block of chains; mutable. Every product is of C-contiguous stacks, so that a chain's bits do not depend on its block."""

    def __init__(self, problem: JointProblem, streams: Streams, prior: JointPrior | None = None) -> None:
        self.problem, self.streams, self.prior = problem, streams, prior or JointPrior()
        self.m = m = len(streams)
        self.size = np.bincount(problem.site).astype(float)
        self.J = len(self.size)
        self.start = np.concatenate([[0], np.cumsum(self.size)[:-1]]).astype(np.intp)
        self.D = sum(len(t.columns) for t in problem.targets if not t.site_level)
        self.D2 = sum(len(t.columns) for t in problem.targets if t.site_level)
        x = problem.x
        self.site_x = np.add.reduceat(x, self.start, axis=0)
        self.gram = x.T @ x
        p = x.shape[1]
        self.products = np.ascontiguousarray((self.site_x[:, :, None] * self.site_x[:, None, :]).reshape(self.J, p * p))
        self.precision = np.full(p, self.prior.slope**-2)
        self.precision[0] = self.prior.intercept**-2
        self.site_precision = np.full(problem.w.shape[1], self.prior.slope**-2)
        self.site_precision[0] = self.prior.intercept**-2
        self.y = np.zeros((m, len(x), self.D))
        self.z = np.zeros((m, self.J, self.D2))
        self.parts = [_Part(t, self.z if t.site_level else self.y, problem.site, streams, self.prior) for t in problem.targets]
        self.B = np.zeros((m, p, self.D))
        self.u = np.zeros((m, self.J, self.D))
        self.gamma = np.zeros((m, problem.w.shape[1], self.D2))
        self.within = Covariance.start(m, self.D, 1.0)
        self.between = Covariance.start(m, self.D + self.D2, 0.3)

    @property
    def omega(self) -> Array:
        """Residual covariance (m, D, D)."""
        return self.within.value

    @property
    def psi(self) -> Array:
        """Covariance of sites (m, D + D2, D + D2), person-level dimensions first."""
        return self.between.value

    def cycle(self) -> None:
        """One Gibbs cycle over everything."""
        rows, residual = len(self.problem.x), self.y
        for part in self.parts:
            if part.target.levels:
                self._scale_latents(part)
                for d in range(len(part.target.columns)):
                    self._scale_residuals(part, d)
            if not part.target.site_level:
                self._shift_sites(part)
        if self.D:
            self._regress()
            self._rescale()
            fitted = self.problem.x @ self.B + np.take(self.u, self.problem.site, axis=1)
            residual = self.y - fitted
            squares = residual.swapaxes(1, 2) @ residual + self.B.swapaxes(1, 2) @ (self.precision[:, None] * self.B)
            self.within.draw(squares, rows + len(self.precision), self.prior.scale, self.streams)
        if self.D2:
            self._regress_sites()
        intercepts = self._intercepts()
        self.between.draw(intercepts.swapaxes(1, 2) @ intercepts, self.J, self.prior.scale, self.streams)
        people = [part for part in self.parts if not part.target.site_level]
        for part in people:
            part.draw(self.y, residual, self.within.inverse, 0, self.streams)
        for part in self.parts:
            if part.target.site_level:
                part.draw(self.z, intercepts, self.between.inverse, self.D, self.streams)

    def _intercepts(self) -> Array:
        return np.concatenate([self.u, self.z - self.problem.w @ self.gamma], axis=2)

    def _regress(self) -> None:
        """B and u given the covariances and the site-level variables, u integrated out of B."""
        D, site, x = self.D, self.problem.site, self.problem.x
        psi = np.ascontiguousarray(self.psi[:, :D, :D])
        y = self.y
        known: Array | float = 0.0
        if self.D2:
            slope = np.linalg.solve(np.ascontiguousarray(self.psi[:, D:, D:]), np.ascontiguousarray(self.psi[:, D:, :D]))
            known = (self.z - self.problem.w @ self.gamma) @ slope
            psi = psi - np.ascontiguousarray(self.psi[:, :D, D:]) @ slope
            y = y - np.take(known, site, axis=1)
        lower = np.linalg.cholesky(self.omega)
        inverse = np.linalg.inv(lower)
        middle = inverse @ psi @ inverse.swapaxes(1, 2)
        ratio, vectors = np.linalg.eigh((middle + middle.swapaxes(1, 2)) / 2)
        ratio = np.maximum(ratio, 1e-12)
        forward = np.ascontiguousarray(inverse.swapaxes(1, 2) @ vectors)  # y @ forward has independent dimensions of variance 1
        back = np.ascontiguousarray((lower @ vectors).swapaxes(1, 2))
        turned = y @ forward
        site_y = np.add.reduceat(turned, self.start, axis=1)  # (m, J, D)
        shrink = ratio[:, :, None] / (1 + ratio[:, :, None] * self.size)  # (m, D, J)
        p = x.shape[1]
        gram = (self.gram.ravel() - shrink @ self.products).reshape(self.m * D, p, p)
        diagonal = np.arange(p)
        gram[:, diagonal, diagonal] += self.precision
        right = (x.T @ turned).swapaxes(1, 2) - (shrink * site_y.swapaxes(1, 2)) @ self.site_x
        factor = np.linalg.cholesky(gram)
        forward_solved = np.linalg.solve(factor, right.reshape(self.m * D, p, 1))[:, :, 0]
        beta = back_substitute(factor, forward_solved + self.streams.normal(D, p).reshape(self.m * D, p)).reshape(self.m, D, p)
        beta = np.ascontiguousarray(beta.swapaxes(1, 2))
        variance = shrink.swapaxes(1, 2)
        u = variance * (site_y - self.site_x @ beta) + np.sqrt(variance) * self.streams.normal(self.J, D)
        self.B = beta @ back
        self.u = np.ascontiguousarray(u) @ back + known

    def _rescale(self) -> None:
        """Move u_k -> s_k u_k and row and column k of Psi with it; the auxiliary scales are integrated out and drawn anew later."""
        D, d = self.D, self.D + self.D2
        fitted = self.problem.x @ self.B
        total = np.add.reduceat(self.y - fitted, self.start, axis=1)
        squares = self.u.swapaxes(1, 2) @ (self.u * self.size[:, None])
        curvature = self.within.inverse * squares
        # sum over sites of u_jk times the residuals' sums, weighted by the residual precision
        right = (self.within.inverse * (self.u.swapaxes(1, 2) @ total)).sum(axis=2)
        diagonal = np.arange(D)
        # a ridge far below any information keeps the factor; the acceptance below knows of it
        ridge = 1e-9 * curvature[:, diagonal, diagonal]
        curvature[:, diagonal, diagonal] += ridge
        factor = np.asarray(np.linalg.cholesky(curvature), dtype=np.float64)
        solved = np.linalg.solve(factor, right[:, :, None])[:, :, 0]
        s = back_substitute(factor, solved + self.streams.normal(D))
        inside = np.asarray((s > 0).all(axis=1))
        s = np.where(inside[:, None], s, 1.0)
        log_s = np.zeros((self.m, d))
        log_s[:, :D] = np.log(s)
        # prior of the moved Psi, Jacobian and ridge, over the proposal: its density in s without the likelihood
        change = self.between.log_change(log_s, self.prior.scale) + (0.5 * ridge * (s**2 - 1) - log_s[:, :D]).sum(axis=1)
        accept = np.log(self.streams.uniform(1))[:, 0] < change
        factor = np.where((accept & inside)[:, None], np.exp(log_s), 1.0)
        self.u = self.u * factor[:, None, :D]
        self.between.rescale(factor)

    def _scale_latents(self, part: _Part) -> None:
        """Multiply a category's latents, their coefficients, intercepts and cut points, and both covariances' rows, by one number.

        No category changes and the densities of latents and intercepts carry over, so that the priors of the covariances and cut points
        alone say how far (Liu & Sabatti 2000); otherwise the free scale would creep, and with it all that hangs on it.
        """
        own, site_level = part.target.columns, part.target.site_level
        jump = np.zeros((self.m, self.D + self.D2))
        jump[:, own + self.D if site_level else own] = by = self.streams.normal(1)
        by = by[:, 0]
        power = float(part.cuts.shape[1] - 1) * (part.target.kind == "ordinal")
        penalty = ((part.cuts / self.prior.cut) ** 2).sum(axis=1)
        change = self.between.log_change(jump, self.prior.scale)
        if site_level:
            gamma = np.take(self.gamma, own, axis=2)
            power += gamma[0].size
            penalty = penalty + (gamma**2 * self.site_precision[:, None]).sum(axis=(1, 2))
        else:
            change += self.within.log_change(jump[:, : self.D], self.prior.scale)
        change += power * by - 0.5 * penalty * np.expm1(2 * by)
        accept = np.log(self.streams.uniform(1))[:, 0] < change
        factor = np.where(accept, np.exp(by), 1.0)
        for array in (self.z, self.gamma) if site_level else (self.y, self.B, self.u):
            array[:, :, own] *= factor[:, None, None]
        part.cuts = part.cuts * factor[:, None]
        factors = np.where(accept[:, None], np.exp(jump), 1.0)
        self.between.rescale(factors)
        if not site_level:
            self.within.rescale(factors[:, : self.D])

    def _scale_residuals(self, part: _Part, d: int) -> None:
        """Multiply the residuals of a category's latent d and their row of the covariance by one number, as far as all categories allow.

        Where sites or arms are nearly of one category the latents otherwise hold their own variance where it is.
        """
        site_level, rows, column = part.target.site_level, part.target.observed, part.target.columns[d]
        y, covariance = (self.z, self.between) if site_level else (self.y, self.within)
        if site_level:
            fitted = (self.problem.w @ np.ascontiguousarray(self.gamma[:, :, column, None]))[:, :, 0]
        else:
            fitted = (self.problem.x @ np.ascontiguousarray(self.B[:, :, column, None]))[:, :, 0]
            fitted += np.take(np.take(self.u, column, axis=2), self.problem.site, axis=1)
        residual = np.take(y, column, axis=2) - fitted
        below, above = part.limits(y, d)
        lowest, highest = _log_factor_limits(np.take(fitted, rows, axis=1), np.take(residual, rows, axis=1), below, above)
        # the range is the same from wherever in it one starts, so that it may set the step
        by = np.minimum(0.5 * (highest - lowest), 1.0) * self.streams.normal(1)[:, 0]
        jump = np.zeros(covariance.value.shape[:2])
        jump[:, column + self.D if site_level else column] = by
        change = covariance.log_change(jump, self.prior.scale)
        if not site_level:
            # coefficients are as large a priori as the residuals, whose covariance changes
            products = self.within.inverse[:, column] * (self.B[:, :, column, None] * self.precision[:, None] * self.B).sum(axis=1)
            square = products[:, column]
            change -= len(self.precision) * by + 0.5 * square * np.expm1(-2 * by) + (products.sum(axis=1) - square) * np.expm1(-by)
        accept = (np.log(self.streams.uniform(1))[:, 0] < change) & (lowest < by) & (by < highest)
        y[:, :, column] = fitted + np.where(accept, np.exp(by), 1.0)[:, None] * residual
        covariance.rescale(np.where(accept[:, None], np.exp(jump), 1.0))

    def _shift_sites(self, part: _Part) -> None:
        """Move a site's intercept and what is not observed of its people together: residuals stay, the intercept's prior says how far.

        The cells of a site without an observed one follow its intercept freely; latents of observed categories as far as these allow.
        """
        sites, rows, start = part.sites, part.target.observed, part.start
        for d, column in enumerate(part.target.columns):
            if part.target.levels:
                low, high = np.full((self.m, self.J), -np.inf), np.full((self.m, self.J), np.inf)
                if len(rows):
                    at = np.take(self.y[:, :, column], rows, axis=1)
                    below, above = part.limits(self.y, d)
                    low[:, part.present] = np.maximum.reduceat(below - at, start, axis=1)
                    high[:, part.present] = np.minimum.reduceat(above - at, start, axis=1)
            elif len(sites):
                low, high = np.full((self.m, len(sites)), -np.inf), np.full((self.m, len(sites)), np.inf)
            else:
                continue
            intercepts = np.take(self._intercepts(), sites, axis=1)
            inverse = self.between.inverse
            sd = 1 / np.sqrt(inverse[:, column, column])[:, None]
            before = intercepts[:, :, column]
            mean = before - (intercepts @ np.ascontiguousarray(inverse[:, :, column : column + 1]))[:, :, 0] * sd**2
            value = sd * truncated.between(mean / sd, (before + low) / sd, (before + high) / sd, self.streams.uniform(len(sites)))
            change = np.zeros((self.m, self.J))
            change[:, sites] = value - before
            self.u[:, :, column] += change
            self.y[:, :, column] += np.take(change, self.problem.site, axis=1)

    def _regress_sites(self) -> None:
        """Gamma given u: a multivariate regression over sites."""
        D, w = self.D, self.problem.w
        z = self.z
        # the conditional precision of a given u is a block of the joint one
        precision = np.ascontiguousarray(self.between.inverse[:, D:, D:])
        if D:
            slope = np.linalg.solve(np.ascontiguousarray(self.psi[:, :D, :D]), np.ascontiguousarray(self.psi[:, :D, D:]))
            z = z - self.u @ slope
        q = w.shape[1]
        gram = w.T @ w
        total = q * self.D2
        big = (precision[:, :, None, :, None] * gram[None, None, :, None, :]).reshape(self.m, total, total)
        diagonal = np.arange(total)
        big[:, diagonal, diagonal] += np.tile(self.site_precision, self.D2)
        right = (precision @ (w.T @ z).swapaxes(1, 2)).reshape(self.m, total)
        factor = np.asarray(np.linalg.cholesky(big), dtype=np.float64)
        solved = np.linalg.solve(factor, right[:, :, None])[:, :, 0]
        gamma = back_substitute(factor, solved + self.streams.normal(total)).reshape(self.m, self.D2, q)
        self.gamma = np.ascontiguousarray(gamma.swapaxes(1, 2))


def _log_factor_limits(fitted: Array, residual: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Between which logarithms of a factor (m,) `fitted` + factor x `residual` (m, r) stays between `low` and `high`, where 1 does."""
    slope, need = np.concatenate([residual, -residual], axis=1), np.concatenate([low - fitted, fitted - high], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = need / slope
    # a limit below 0 holds for every factor; far limits are cut where they are equal for all
    least = np.where((slope > 0) & (need > 0), ratio, 0.0).max(axis=1, initial=0.0)
    most = np.where((slope < 0) & (need < 0), ratio, np.inf).min(axis=1, initial=np.inf)
    return np.log(np.maximum(least, 1e-100)), np.log(np.minimum(most, 1e100))


class _Part:
    """One variable's latents: observed values in place, the others drawn."""

    def __init__(self, target: Target, y: Array, site: Ints, streams: Streams, prior: JointPrior) -> None:
        m = len(streams)
        self.target, self.prior = target, prior
        if not target.site_level:
            self.present, self.start = np.unique(site[target.observed], return_index=True)
            everywhere = np.arange(int(site.max()) + 1)
            # sites whose intercept may be shifted together with the cells of this variable
            bounded = np.isfinite(target.low) or np.isfinite(target.high)
            self.sites = everywhere if target.levels else everywhere[:0] if bounded else np.setdiff1d(everywhere, self.present)
        own, self.cuts, self.step = target.columns, np.zeros((m, 0)), None
        q = len(target.missing)
        if target.levels:
            codes = np.broadcast_to(target.values.astype(np.intp), (m, target.values.shape[-1]))
            self.codes = codes
            size = np.abs(streams.normal(len(own), len(target.observed)))
            y[:, target.missing[:, None], own] = streams.normal(q, len(own))
            if target.kind == "nominal":
                for d, column in enumerate(own):
                    y[:, target.observed, column] = np.where(codes == d + 1, 1 + size[:, d], -size[:, d])
            else:
                margin = codes[0] if target.values.ndim == 1 else codes.ravel()
                self.cuts = np.tile(gibbs_latent.marginal_cuts(margin, target.levels), (m, 1))
                if target.levels > 2:
                    self.step = gibbs_latent.cut_proposal(margin, target.levels) * np.sqrt(len(margin) / codes.shape[1])
                low, high = gibbs_latent.limits(self.cuts, codes)
                zero = np.zeros(codes.shape)
                y[:, target.observed, own[0]] = truncated.between(zero, low, high, streams.uniform(codes.shape[1]))
        else:
            values = target.values
            if target.kind == "pmm":
                self.sorted = np.sort(values)
                values = gibbs_donors.normal_scores(values)
            pick = np.minimum((streams.uniform(q) * len(target.observed)).astype(np.intp), len(target.observed) - 1)
            values = np.broadcast_to(values, (m, len(target.observed)))
            y[:, target.observed, own[0]] = values
            y[:, target.missing, own[0]] = np.take_along_axis(values, pick, axis=1)
        # later reads find them here
        self.latent = y

    def draw(self, y: Array, residual: Array, precision: Array, offset: int, streams: Streams) -> None:
        """Draw this variable's dimensions in place, each given the others.

        `residual` (m, N, all dimensions) follows; `offset` is where this level's dimensions start among those of `precision`.
        """
        target = self.target
        for d, column in enumerate(target.columns):
            k = column + offset
            spread = 1 / np.sqrt(precision[:, k, k])[:, None]
            rows = target.missing if not target.levels else np.arange(y.shape[1])
            if not len(rows):
                continue
            part = residual if len(rows) == y.shape[1] else np.take(residual, rows, axis=1)
            before = y[:, rows, column]
            mean = before - (part @ np.ascontiguousarray(precision[:, :, k : k + 1]))[:, :, 0] * spread**2
            if target.levels:
                value = self._category(y, d, mean / spread, spread, streams) * spread
            elif np.isinf(target.low) and np.isinf(target.high):
                value = mean + spread * streams.normal(len(rows))
            else:
                low, high = (np.broadcast_to(limit, mean.shape) / spread for limit in (target.low, target.high))
                value = spread * truncated.between(mean / spread, low, high, streams.uniform(len(rows)))
                value = np.clip(value, target.low, target.high)
            residual[:, rows, k] += value - before
            y[:, rows, column] = value

    def _category(self, y: Array, d: int, mean: Array, spread: Array, streams: Streams) -> Array:
        """The latent of dimension d in every row, in units of its conditional standard deviation."""
        seen = self.target.observed
        uniform = streams.uniform(mean.shape[1])
        if self.step is not None:
            cuts = gibbs_latent.move_cuts(
                self.cuts / spread, np.take(mean, seen, axis=1), self.codes, self.step, streams, moves=2, cut_sd=self.prior.cut / spread
            )
            self.cuts = cuts * spread
        low, high = np.full(mean.shape, -np.inf), np.full(mean.shape, np.inf)
        below, above = self.limits(y, d)
        low[:, seen], high[:, seen] = below / spread, above / spread
        return truncated.between(mean, low, high, uniform)

    def limits(self, y: Array, d: int) -> tuple[Array, Array]:
        """Between which limits the latent of dimension d lies in the observed rows, the other dimensions as they are: two arrays (m, r)."""
        if self.target.kind != "nominal":
            return gibbs_latent.limits(self.cuts, self.codes)
        latents = np.take(np.take(y, self.target.observed, axis=1), self.target.columns, axis=2)
        own = self.codes == d + 1
        best = np.maximum(np.delete(latents, d, axis=2).max(axis=2, initial=-np.inf), 0.0)
        # of a row in another category, that one's latent is the limit; in the first category, 0
        rival = np.take_along_axis(latents, np.maximum(self.codes - 1, 0)[:, :, None], axis=2)[:, :, 0]
        rival = np.where(self.codes == 0, 0.0, rival)
        return np.where(own, best, -np.inf), np.where(own, np.inf, rival)

    def values(self) -> Array:
        """The missing cells (m, q) on the scale of the target's values."""
        target = self.target
        latent = np.take(np.take(self.latent, target.missing, axis=1), target.columns, axis=2)
        if target.kind == "normal":
            return latent[:, :, 0]
        if target.kind == "pmm":
            # the latent's rank among the observed
            place = (special.ndtr(latent[:, :, 0]) * len(self.sorted)).astype(np.intp)
            return np.asarray(self.sorted[np.minimum(place, len(self.sorted) - 1)])
        if target.kind == "nominal":
            best = latent.argmax(axis=2)
            return np.where(np.take_along_axis(latent, best[:, :, None], axis=2)[:, :, 0] > 0, best + 1.0, 0.0)
        return np.asarray((latent > self.cuts[:, None, :]).sum(axis=2), dtype=float)
