"""Chained equations over m chains at once: the engine of the imputation.

All chains lie in one array Z (m, n, P), rows sorted by site, columns standardised or coded; every visit draws the parameters of one
variable's two-level regression and then its missing cells. Parameters persist from visit to visit (no cold inner chains), and the
cross-products Z'Z and site sums are kept up to date by the cells that change, so that a continuous variable costs a pass over its
missing rows only. A visit copies no more than the rows it leaves out, in an order in which their site sums are a few slices; the rows it
uses are multiplied where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels import gibbs_donors, gibbs_latent, gibbs_linear, gibbs_spread, gibbs_substantive, truncated
from trialkit._kernels.gibbs_latent import Predictors, ProbitState, SiteRows
from trialkit._kernels.gibbs_linear import Columns, Layout, Moments, Prior, Workspace, totals
from trialkit._kernels.gibbs_spread import SpreadState
from trialkit._kernels.gibbs_streams import Streams

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

Kind = Literal["normal", "pmm", "binary", "ordinal", "nominal"]
INNER = 1  # latent cycles a visit: the state persists, so the next round goes on where this one stopped
FIRST = 2  # cycles at a variable's first visit, away from the start values; the rounds after it go on from there
# probit coefficients: sd 2.5 on standardised predictors (latent sd 1), which keeps perfect prediction finite; the intercept wider
PROBIT_SD, PROBIT_INTERCEPT_SD = 2.5, 10.0
RECOUNT = 8  # rounds after which sums kept by differences are counted afresh, so that rounding cannot pile up
# a regression takes its columns out of Z where Z is so many times as wide
_NARROW = 1.3
_SLICES = 64  # rows left out of one site from which on their sum is one reduction, not so many slices


@dataclass(frozen=True, slots=True)
class Target:
    """One incomplete variable.

    `units` are rows for a person-level variable and sites for a site-level one; `missing` (q,) and `observed` (r,) are units in
    ascending order. `columns` are adjacent. `values` (r,) holds the observed values: of column `columns[0]` (normal), the raw values (pmm)
    or codes 0..K-1 (categories). `coding` (K, k) or, for pmm, (2, 1) = mean and sd, turns a drawn value into the columns of Z.
    `heteroscedastic` (normal, person-level): sites differ in their residual variance. `given_outcome` (normal, binary or ordinal,
    person-level): its regression is without the outcome of the substantive model, over all rows, and its cells are drawn from that
    regression times the density of the outcome.
    """

    name: str
    kind: Kind
    site_level: bool
    missing: Ints
    observed: Ints
    columns: Ints
    predictors: Ints
    values: Array
    levels: int = 0
    coding: Array | None = None
    low: float = -np.inf
    high: float = np.inf
    site_prior: str | float = "uniform"
    heteroscedastic: bool = False
    given_outcome: bool = False


@dataclass(frozen=True, slots=True)
class SiteMean:
    """Column `column` is the site mean of column `source`, in every row."""

    source: int
    column: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Column `column` is offset + sum of weights times `sources`, in `rows` only."""

    sources: Ints
    weights: Array
    offset: float
    column: int
    rows: Ints


@dataclass(frozen=True, slots=True)
class Product:
    """Column `column` is the product of columns `left` and `right`, in every row."""

    left: int
    right: int
    column: int


Derived = SiteMean | Sum | Product


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be imputed. `z` (n, P) has its first column 1; missing cells hold anything. `site` (n,) is 0..J-1, ascending.

    `pair` (J,) is the pair of each site, 0..Q-1, where pairs have a random intercept of their own. `subcluster` (n,), 0..C-1, ascending,
    each within one site, have one beside that of the site; pairs then have none. With a substantive model `targets[0]` is its outcome,
    which may have no missing cell.
    """

    z: Array
    site: Ints
    targets: tuple[Target, ...]
    derived: tuple[Derived, ...] = ()
    pair: Ints | None = None
    subcluster: Ints | None = None

    def clusters(self) -> tuple[Ints, Ints | None]:
        """The innermost cluster (n,) of every row, and of each of them the larger one it lies in, if that has an intercept too."""
        if self.subcluster is None:
            return self.site, self.pair
        return self.subcluster, self.site[np.unique(self.subcluster, return_index=True)[1]]


@dataclass(frozen=True, slots=True)
class Draws:
    """The last state of every chain and the way there."""

    values: dict[str, Array]  # (m, q) on the scale of the target's `values`
    sums: dict[int, Array]  # (m, rows) of each `Sum`, by column
    mean: Array  # (iterations, targets, m)  mean of the imputed values
    sd: Array  # (iterations, targets, m)
    icc: Array  # (iterations, targets, m)  what people of a site share of the variance; NaN at site level
    repaired: dict[str, int]  # visits in which a chain needed a ridge, by target
    passing: dict[str, Array] = field(default_factory=dict)  # (m, q, K - 1) of binary and ordinal targets: see `gibbs_latent.passing`


def run(problem: Problem, seeds: Sequence[np.random.SeedSequence], iterations: int) -> Draws:
    """Run one chain a seed for `iterations` rounds over all targets.

    Raises
    ------
    ValueError
        A regression with no residual degrees of freedom, or normal equations no ridge repairs.
    """
    return _Engine(problem, Streams(seeds)).run(iterations)


@dataclass(slots=True)
class _Memory:
    """What one target carries between visits."""

    beta: Array | None
    t: Array
    t_pair: Array | None
    probits: list[ProbitState]
    drawn: Array
    spread: SpreadState | None = None
    draw: gibbs_linear.LinearDraw | None = None


class _Engine:
    """One block of chains; mutable, private to `run`.

    Parts of arrays are read by `np.take`, whose result has one memory order whatever m is. That of an index expression depends on m, and
    sums and BLAS then round otherwise: a chain would not be the same in another block.
    """

    def __init__(self, problem: Problem, streams: Streams) -> None:
        self.problem, self.streams = problem, streams
        self.m = len(streams)
        self.n, P = problem.z.shape
        # sums are kept by innermost cluster: the site, or its subclusters
        self.cluster, outer = problem.clusters()
        self.size = np.bincount(self.cluster)
        self.J = len(self.size)
        self.site_of = outer if problem.subcluster is not None else None
        self.site_start = None if self.site_of is None else np.flatnonzero(np.diff(self.site_of, prepend=-1))
        self.site_size = np.bincount(problem.site)
        self.start = np.concatenate([[0], np.cumsum(self.size)[:-1]]).astype(np.intp)
        # one column more, always 0: in copies of the sums the place of an outcome that no column holds
        self.z = np.zeros((self.m, self.n, P + 1))
        self.z[:, :, :P] = problem.z
        self.work = Workspace()
        self.seen: Array | None = None
        self.memory = [self._first_guess(t) for t in problem.targets]
        self.plans = [_Plan.of(t, problem, self.J) for t in problem.targets]
        self._recount()
        for rule in problem.derived:
            self._derive(rule)
        self.repaired = dict.fromkeys((t.name for t in problem.targets), 0)

    # --- the workspace ------------------------------------------------------------------------------------

    def _recount(self) -> None:
        self.gram = self.z.swapaxes(1, 2) @ self.z
        self.site_sum = np.add.reduceat(self.z, self.start, axis=1)

    def _replace(self, columns: Ints, rows: Ints, values: Array, seen: Array | None = None) -> None:
        """Write (m, len(rows), len(columns)) and keep Z'Z and the site sums right.

        `seen`: the rows as they are (m, len(rows), P + 1), where a visit has them at hand; it is overwritten.
        """
        span = slice(int(columns[0]), int(columns[-1]) + 1)
        part = np.take(self.z, rows, axis=1) if seen is None else seen
        own = part[:, :, span]
        change = values - own
        # with the columns half way, the products with the change are the change of the products, also of the columns among themselves
        own += 0.5 * change
        cross = part.swapaxes(1, 2) @ change
        cross[:, span] += cross[:, span].swapaxes(1, 2).copy()
        self.gram[:, :, span] += cross
        self.gram[:, span, :] = self.gram[:, :, span].swapaxes(1, 2)
        self.z[:, rows, span] = values
        cluster = self.cluster[rows]
        for k, c in enumerate(columns):
            self.site_sum[:, :, c] += totals(change[:, :, k], cluster, self.J)

    def _of_sites(self, sums: Array) -> Array:
        """Sums (m, J, ...) over sites from those of innermost clusters."""
        return sums if self.site_start is None else np.asarray(np.add.reduceat(sums, self.site_start, axis=1))

    def _derive(self, rule: Derived) -> None:
        everyone = np.arange(self.n)
        column = np.array([rule.column])
        if isinstance(rule, SiteMean):
            # constant in a site, so that its cross-products follow from the site sums
            mean = self._of_sites(self.site_sum[:, :, rule.source]) / self.site_size
            if self.site_of is not None:
                mean = np.take(mean, self.site_of, axis=1)
            self.z[:, :, rule.column] = np.take(mean, self.cluster, axis=1)
            self.site_sum[:, :, rule.column] = mean * self.size
            cross = (mean[:, None, :] @ self.site_sum)[:, 0]
            self.gram[:, :, rule.column] = cross
            self.gram[:, rule.column, :] = cross
        elif isinstance(rule, Product):
            self._replace(column, everyone, (self.z[:, :, rule.left] * self.z[:, :, rule.right])[:, :, None])
        elif len(rule.rows):
            parts = np.take(np.take(self.z, rule.rows, axis=1), rule.sources, axis=2)
            self._replace(column, rule.rows, ((parts * rule.weights).sum(axis=2) + rule.offset)[:, :, None])

    def _update_derived(self, columns: Ints) -> None:
        touched = set(columns.tolist())
        for rule in self.problem.derived:
            sources = (
                {rule.source}
                if isinstance(rule, SiteMean)
                else ({rule.left, rule.right} if isinstance(rule, Product) else set(rule.sources.tolist()))
            )
            if sources & touched:
                self._derive(rule)
                touched.add(rule.column)

    # --- the chain ----------------------------------------------------------------------------------------

    def run(self, iterations: int) -> Draws:
        targets = self.problem.targets
        trace = np.full((3, iterations, len(targets), self.m), np.nan)
        for i in range(iterations):
            for k, target in enumerate(targets):
                memory, plan = self.memory[k], self.plans[k]
                try:
                    if target.given_outcome:
                        drawn = self._visit_given_outcome(target, plan, memory)
                    else:
                        drawn = self._visit_site(target, plan, memory) if target.site_level else self._visit(target, plan, memory)
                except (ValueError, np.linalg.LinAlgError) as error:
                    raise ValueError(f"{target.name!r}: {error}") from None
                memory.drawn = drawn
                self._write(target, plan, drawn)
                if drawn.shape[1]:
                    trace[0, i, k] = mean = drawn.sum(axis=1) / drawn.shape[1]
                    trace[1, i, k] = np.sqrt(((drawn - mean[:, None]) ** 2).sum(axis=1) / drawn.shape[1])
                if not target.site_level:
                    kept = memory.probits[0] if memory.probits else (memory.spread or memory)
                    phi2 = shared = (kept.t / (1 - kept.t)) ** 2
                    if not isinstance(kept, SpreadState) and kept.t_pair is not None:
                        outer = (kept.t_pair / (1 - kept.t_pair)) ** 2
                        phi2 = phi2 + outer
                        # people of a site share its pair's intercept, not their subclusters'
                        shared = phi2 if self.site_of is None else outer
                    trace[2, i, k] = shared / (1 + phi2)
            if i % RECOUNT == RECOUNT - 1:
                self._recount()
        values = {t.name: memory.drawn for t, memory in zip(targets, self.memory, strict=True)}
        sums = {r.column: self.z[:, r.rows, r.column].copy() for r in self.problem.derived if isinstance(r, Sum)}
        ordered = [(t, memory.probits[0]) for t, memory in zip(targets, self.memory, strict=True) if t.kind in ("binary", "ordinal")]
        passing = {t.name: gibbs_latent.passing(state) for t, state in ordered if state.drawn is not None}
        return Draws(values, sums, trace[0], trace[1], trace[2], self.repaired, passing)

    def _first_guess(self, target: Target) -> _Memory:
        """Start values: observed values of the same variable, drawn at random in each chain."""
        pick = (self.streams.uniform(len(target.missing)) * len(target.values)).astype(np.intp)
        drawn = target.values[np.minimum(pick, len(target.values) - 1)]
        rows, source = target.missing, np.arange(len(target.missing))
        if target.site_level:
            rows, source = _rows_of(target.missing, self.problem.site)
        self.z[:, rows[:, None], target.columns] = _encode(target, drawn[:, source])
        return _Memory(None, np.full(self.m, 0.25), None, [], drawn)

    def _write(self, target: Target, plan: _Plan, drawn: Array) -> None:
        if not len(plan.rows):
            self.seen = None
            return
        self._replace(target.columns, plan.rows, _encode(target, np.take(drawn, plan.source, axis=1)), self.seen)
        self.seen = None
        self._update_derived(target.columns)

    def _reduce(self, fit: _Fit, where: str = "") -> tuple[Array, Predictors]:
        """The rows a regression leaves out, all columns of them (m, e, P + 1), and what it is over; both until `where` is used again.

        What the used rows sum to is what all rows sum to, less the rows left out.
        """

        def taken(name: str, source: Array, axis: int, at: Ints) -> Array:
            shape = list(source.shape)
            shape[axis] = len(at)
            return np.take(source, at, axis=axis, out=self.work.array(f"{name} {where}", *shape), mode="clip")

        out = seen = taken("out", self.z, 1, fit.out)
        whole, site = self.gram, taken("site", self.site_sum, 1, fit.order)
        if fit.narrow is not None:
            seen, site = taken("narrow out", out, 2, fit.narrow), taken("narrow site", site, 2, fit.narrow)
            whole = np.take(whole.reshape(self.m, -1), fit.square, axis=1).reshape(self.m, len(fit.narrow), -1)
        cross = np.matmul(seen.swapaxes(1, 2), seen, out=self.work.array(f"cross {where}", *whole.shape))
        np.subtract(whole, cross, out=cross)
        if fit.starts is not None:
            site[:, : len(fit.starts)] -= np.add.reduceat(seen, fit.starts, axis=1)
        else:
            first = 0
            for many in fit.slices:
                site[:, :many] -= seen[:, first : first + many]
                first += many
        return out, Predictors(self.z, fit.used, fit.places, seen, fit.absent, cross, site, fit.columns, fit.sites, self.work)

    def _visit(self, target: Target, plan: _Plan, memory: _Memory) -> Array:
        fit = plan.fits[0]
        self.seen, p = self._reduce(fit)
        if target.kind == "normal" and not target.heteroscedastic:
            moments = Moments(p.cross, p.site, len(fit.used), fit.columns, self.work)
            draw = self._linear(target, plan, memory, moments, fit.sites.layout)
            return self._noise(target, p.linear_absent(draw.beta, draw.u), draw.sigma2[:, None])
        return self._by_kind(target, plan, memory, p)

    def _visit_given_outcome(self, target: Target, plan: _Plan, memory: _Memory) -> Array:
        """A covariate of the substantive model: its own regression times the density of the outcome (Bartlett et al. 2015).

        The regression leaves the outcome out, so that it is drawn from all rows as they now are: those where the covariate is observed
        are a sample that the outcome may have selected.
        """
        fit = plan.fits[0]
        _, predictors = self._reduce(fit)
        here = np.take(self.z, target.missing, axis=1)
        absent = here if fit.narrow is None else np.take(here, fit.narrow, axis=2)
        predictors = replace(predictors, out=absent, absent=np.arange(len(target.missing)))
        if target.kind == "normal":
            c = int(target.columns[0])
            moments = Moments(predictors.cross, predictors.site, self.n, fit.columns, self.work)
            draw = self._linear(target, plan, memory, moments, fit.sites.layout)
            return gibbs_substantive.draw_numbers(
                here[:, :, c].copy(),
                predictors.linear_absent(draw.beta, draw.u),
                np.sqrt(draw.sigma2)[:, None],
                here[:, :, int(self.problem.targets[0].columns[0])],
                self._outcome_polynomial(target, here.copy()),
                np.sqrt(self._outcome().sigma2)[:, None],
                (target.low, target.high),
                self.streams,
            )
        codes = np.zeros((self.m, self.n), dtype=np.intp)
        codes[:, target.observed] = target.values.astype(np.intp)
        codes[:, target.missing] = memory.drawn.astype(np.intp)
        if not memory.probits:
            memory.probits = [ProbitState.start(self.m, target.values.astype(np.intp), target.levels)]
        state = memory.probits[0]
        self._cycle(target, plan, state, predictors, codes, target.levels, plan.step)
        assert state.beta is not None
        assert target.coding is not None
        eta = predictors.linear_absent(state.beta, state.u)
        here = here.copy()
        log_weight = np.empty((self.m, len(target.missing), target.levels))
        for k in range(target.levels):
            low, high = gibbs_latent.limits(state.cuts, np.full((self.m, eta.shape[1]), k))
            columns = np.broadcast_to(target.coding[k], (*eta.shape, len(target.columns)))
            log_weight[:, :, k] = truncated.log_probability(low - eta, high - eta) + self._log_outcome(target, here, columns)
        share = np.cumsum(np.exp(log_weight - log_weight.max(axis=2, keepdims=True)), axis=2)
        pick = self.streams.uniform(eta.shape[1])[:, :, None] * share[:, :, -1:]
        return np.asarray((share[:, :, :-1] < pick).sum(axis=2), dtype=float)

    def _outcome(self) -> gibbs_linear.LinearDraw:
        """The present parameters of the substantive outcome's model."""
        draw = self.memory[0].draw
        assert draw is not None
        return draw

    def _outcome_mean(self, target: Target, rows: Array, values: Array) -> Array:
        """Mean (m, q) of the substantive outcome in the rows to impute, were the target's columns `values` (m, q, k) there."""
        outcome, draw = self.problem.targets[0], self._outcome()
        assert draw.u is not None
        rows[:, :, target.columns] = values
        for rule in self.problem.derived:
            if isinstance(rule, Product):
                rows[:, :, rule.column] = rows[:, :, rule.left] * rows[:, :, rule.right]
        eta = (np.take(rows, outcome.predictors, axis=2) @ draw.beta[:, :, None])[:, :, 0]
        return np.asarray(eta + np.take(draw.u, self.plans[0].fits[0].code[target.missing], axis=1))

    def _outcome_polynomial(self, target: Target, rows: Array) -> Array:
        """That mean as a polynomial in the target's one column: coefficients (d + 1, m, q), from its values at d + 1 places."""
        degree = dict.fromkeys(range(self.problem.z.shape[1]), 0) | {int(target.columns[0]): 1}
        for rule in self.problem.derived:
            if isinstance(rule, Product):
                degree[rule.column] = degree[rule.left] + degree[rule.right]
        d = max(1, *(degree[int(c)] for c in self.problem.targets[0].predictors))
        places = np.arange(d + 1.0) - d // 2
        shape = (self.m, len(target.missing), 1)
        means = np.stack([self._outcome_mean(target, rows, np.full(shape, x)) for x in places])
        inverse = np.linalg.inv(np.vander(places, increasing=True))
        return np.asarray((inverse @ means.reshape(d + 1, -1)).reshape(means.shape))

    def _log_outcome(self, target: Target, rows: Array, values: Array) -> Array:
        """Log density (m, q) of the substantive outcome there."""
        y = rows[:, :, int(self.problem.targets[0].columns[0])]
        return np.asarray(-0.5 * (y - self._outcome_mean(target, rows, values)) ** 2 / self._outcome().sigma2[:, None])

    def _visit_site(self, target: Target, plan: _Plan, memory: _Memory) -> Array:
        """A site-level variable: one row a site, the predictors' site means, no random intercept."""
        means = self._of_sites(self.site_sum) / self.site_size[:, None]
        used = np.take(means, target.observed, axis=1)
        predictors = Predictors(
            z=means,
            used=target.observed,
            places=target.predictors,
            out=np.take(means, target.missing, axis=1),
            absent=np.arange(len(target.missing)),
            cross=used.swapaxes(1, 2) @ used,
            site=None,
            columns=plan.columns,
            sites=None,
        )
        if target.kind == "normal":
            draw = self._linear(target, plan, memory, predictors.moments(np.repeat(target.values[None], self.m, axis=0)), None)
            return self._noise(target, predictors.linear_absent(draw.beta, None), draw.sigma2[:, None])
        return self._by_kind(target, plan, memory, predictors)

    def _linear(self, target: Target, plan: _Plan, memory: _Memory, moments: Moments, layout: Layout | None) -> gibbs_linear.LinearDraw:
        if memory.beta is None:
            first = gibbs_linear.draw(moments, layout, plan.prior, self.streams, beta=None, t=memory.t)
            memory.beta, memory.t_pair = first.beta, first.t_pair
        draw = gibbs_linear.draw(moments, layout, plan.prior, self.streams, beta=memory.beta, t=memory.t, t_pair=memory.t_pair)
        memory.beta, memory.t, memory.t_pair, memory.draw = draw.beta, draw.t, draw.t_pair, draw
        self.repaired[target.name] += int(draw.repaired.sum())
        return draw

    def _noise(self, target: Target, eta: Array, sigma2: Array) -> Array:
        s = np.sqrt(sigma2)
        if np.isinf(target.low) and np.isinf(target.high):
            return eta + s * self.streams.normal(eta.shape[1])
        shape = eta.shape
        low, high = (np.broadcast_to(limit, shape) / s for limit in (target.low, target.high))
        value = s * truncated.between(eta / s, low, high, self.streams.uniform(shape[1]))
        return np.clip(value, target.low, target.high)

    def _by_kind(self, target: Target, plan: _Plan, memory: _Memory, predictors: Predictors) -> Array:
        if target.kind == "normal":
            y = np.repeat(target.values[None], self.m, axis=0)
            if memory.spread is None:
                memory.spread = SpreadState.start(predictors, y, plan.prior, self.streams)
            state = memory.spread
            self.repaired[target.name] += int(gibbs_spread.cycle(state, predictors, y, plan.prior, self.streams).sum())
            eta = predictors.linear_absent(state.beta, state.u)
            assert predictors.sites is not None
            return self._noise(target, eta, 1 / np.take(state.weight, predictors.sites.absent, axis=1))
        if target.kind == "pmm":
            assert plan.scores is not None
            moments = predictors.moments(np.repeat(plan.scores[None], self.m, axis=0))
            draw = self._linear(target, plan, memory, moments, predictors.layout)
            observed = predictors.linear(draw.beta, draw.u)
            absent = predictors.linear_absent(draw.beta, draw.u)
            return target.values[gibbs_donors.donors(observed, absent, self.streams.uniform(absent.shape[1]))]
        codes = target.values.astype(np.intp)
        if target.kind == "nominal":
            return self._nested(target, plan, memory, predictors)
        if not memory.probits:
            memory.probits = [ProbitState.start(self.m, codes, target.levels)]
        return self._probit(target, plan, memory.probits[0], predictors, codes, target.levels, plan.step).astype(float)

    def _probit(
        self, target: Target, plan: _Plan, state: ProbitState, predictors: Predictors, codes: Ints, levels: int, step: Array | None
    ) -> Ints:
        self._cycle(target, plan, state, predictors, codes, levels, step)
        return gibbs_latent.impute(state, predictors, levels, self.streams)

    def _cycle(
        self, target: Target, plan: _Plan, state: ProbitState, predictors: Predictors, codes: Ints, levels: int, step: Array | None
    ) -> None:
        for _ in range(FIRST if state.beta is None else INNER):
            repaired = gibbs_latent.cycle(state, predictors, codes, levels, plan.prior, self.streams, step=step)
            self.repaired[target.name] += int(repaired.sum())

    def _nested(self, target: Target, plan: _Plan, memory: _Memory, predictors: Predictors) -> Array:
        """Nested binary probits: the rarest category against the rest, then the next among those left, and so on."""
        if not memory.probits:
            memory.probits = [ProbitState.start(self.m, nest.codes, 2) for nest in plan.nests]
        drawn = np.full((self.m, len(target.missing)), float(plan.rest))
        undecided = np.ones(drawn.shape, dtype=bool)
        for k, (nest, state) in enumerate(zip(plan.nests, memory.probits, strict=True)):
            if k:
                predictors = self._reduce(plan.fits[k], "next")[1] if plan.fits else _narrowed(predictors, nest)
            hit = self._probit(target, plan, state, predictors, nest.codes, 2, None).astype(bool) & undecided
            drawn[hit] = nest.category
            undecided &= ~hit
        return drawn


@dataclass(frozen=True, slots=True)
class _Nest:
    """One binary step of a nominal variable: which units take part, and whether each is the category."""

    category: int
    units: Ints  # rows, or sites
    codes: Ints


def _narrowed(p: Predictors, nest: _Nest) -> Predictors:
    """A site-level regression over fewer sites."""
    used = np.take(p.z, nest.units, axis=1)
    return replace(p, used=nest.units, cross=used.swapaxes(1, 2) @ used)


@dataclass(frozen=True, slots=True)
class _Fit:
    """Rows and columns of one person-level regression.

    Sites (innermost clusters) are put in an order of its own, in which `sites` has its codes.
    """

    used: Ints  # (r,) rows
    out: Ints  # (e,) rows left out: the first one of every site that has any, then the second ones, and so on
    slices: tuple[int, ...]  # how many sites have a first one, a second one, ...: always the first sites
    starts: Ints | None  # with many a site instead: `out` lies by site, and starts there
    absent: Ints  # (q,) places of the rows to impute among `out`; none where no row is left out
    order: Ints  # (J,) sites, those with most rows left out first
    code: Ints  # (n,) place of each row's site there
    narrow: Ints | None  # (w,) columns taken out of Z; None: all
    square: Ints  # (w^2,) places of their cross-products in the flat Z'Z
    places: Ints  # (p,) predictors in Z
    columns: Columns  # the same and the outcome among the w
    sites: SiteRows

    @classmethod
    def of(cls, used: Ints, target: Target, problem: Problem, J: int) -> _Fit:
        n, P = problem.z.shape
        site, outer = problem.clusters()
        left = np.ones(n, dtype=bool)
        left[used] = False
        out = np.flatnonzero(left)
        count = np.bincount(site[out], minlength=J)
        order = np.argsort(-count, kind="stable")
        rank = np.empty(J, dtype=np.intp)
        rank[order] = np.arange(J)
        code = rank[site]
        turn = np.arange(len(out)) - np.searchsorted(site[out], site[out])
        deep = count.max() > _SLICES
        out = out[np.lexsort((turn, code[out]) if deep else (code[out], turn))]
        slices = tuple(int((count > k).sum()) for k in range(0 if deep else count.max()))
        starts = (np.cumsum(count[order]) - count[order])[count[order] > 0] if deep else None
        place = np.full(n, -1)
        place[out] = np.arange(len(out))
        own = target.kind == "normal" and not target.heteroscedastic
        outcome = int(target.columns[0]) if own else P
        narrow = np.append(target.predictors, outcome)
        p, width = len(target.predictors), P + 1
        columns = Columns.of(target.predictors, outcome, width)
        wide = width > _NARROW * len(narrow)
        return cls(
            used=used,
            out=out,
            slices=slices,
            starts=starts,
            absent=place[target.missing] if len(out) else np.arange(0),
            order=order,
            code=code,
            narrow=narrow if wide else None,
            square=(narrow[:, None] * width + narrow).ravel(),
            places=target.predictors,
            columns=Columns.of(np.arange(p), p, p + 1) if wide else columns,
            sites=SiteRows.of(code[used], code[target.missing], J, None if outer is None else outer[order]),
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a target's visits need and never changes."""

    rows: Ints  # rows written
    source: Ints  # which of the missing units each belongs to
    fits: tuple[_Fit, ...]  # person level: of the whole, or of every step of a nominal variable
    columns: Columns  # site level
    prior: Prior
    scores: Array | None
    step: Array | None
    nests: tuple[_Nest, ...]
    rest: int

    @classmethod
    def of(cls, target: Target, problem: Problem, J: int) -> _Plan:
        n, P = problem.z.shape
        step = scores = None
        nests: list[_Nest] = []
        rest = 0
        precision = np.zeros(len(target.predictors))
        t_max = gibbs_linear.T_MAX
        if target.kind == "pmm":
            scores = gibbs_donors.normal_scores(target.values)
        if target.levels:
            codes = target.values.astype(np.intp)
            precision[:] = PROBIT_SD**-2
            precision[0] = PROBIT_INTERCEPT_SD**-2
            t_max = gibbs_latent.T_MAX
            if target.kind == "ordinal" and target.levels > 2:
                step = gibbs_latent.cut_proposal(codes, target.levels)
            elif target.kind == "nominal":
                nests, rest = _nests(codes, target.observed, target.levels)
        if target.site_level:
            fits = []
            rows, source = _rows_of(target.missing, problem.site)
        else:
            everyone = np.arange(n) if target.given_outcome else target.observed
            fits = [_Fit.of(units, target, problem, J) for units in ([nest.units for nest in nests] or [everyone])]
            rows, source = target.missing, np.arange(len(target.missing))
            if not target.given_outcome and len(rows):
                rows, source = fits[0].out, np.argsort(fits[0].absent)
        columns = Columns.of(target.predictors, P, P + 1)
        prior = Prior(precision, site=target.site_prior, t_max=t_max)
        return cls(rows, source, tuple(fits), columns, prior, scores, step, tuple(nests), rest)


def _nests(codes: Ints, units: Ints, levels: int) -> tuple[list[_Nest], int]:
    """The steps of a nominal variable, the rarest category first: the later steps keep as many units as they can."""
    order = np.argsort(np.bincount(codes, minlength=levels), kind="stable")
    nests = []
    for category in order[:-1]:
        hit = codes == category
        nests.append(_Nest(int(category), units, hit.astype(np.intp)))
        codes, units = codes[~hit], units[~hit]
    return nests, int(order[-1])


def _rows_of(sites: Ints, site: Ints) -> tuple[Ints, Ints]:
    """The rows of some sites, and for each row the place of its site among them."""
    place = np.full(int(site.max()) + 1, -1)
    place[sites] = np.arange(len(sites))
    rows = np.flatnonzero(place[site] >= 0)
    return rows, place[site[rows]]


def _encode(target: Target, drawn: Array) -> Array:
    """Drawn values (m, q) as columns of Z (m, q, k)."""
    if target.kind == "normal":
        return drawn[:, :, None]
    assert target.coding is not None
    if target.kind == "pmm":
        mean, sd = target.coding[:, 0]
        return np.asarray(((drawn - mean) / sd)[:, :, None])
    return np.asarray(target.coding[drawn.astype(np.intp)])
