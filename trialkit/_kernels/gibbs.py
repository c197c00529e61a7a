"""Chained equations over m chains at once: the engine of the imputation.

All chains lie in one array Z (m, n, P), rows sorted by site, columns standardised or coded; every visit draws the parameters of one
variable's two-level regression and then its missing cells. Parameters persist from visit to visit (no cold inner chains), and the
cross-products Z'Z and site sums are kept up to date by the cells that change, so that a continuous variable costs a pass over its
missing rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels import gibbs_donors, gibbs_latent, gibbs_linear, gibbs_spread, gibbs_substantive, truncated
from trialkit._kernels.gibbs_latent import Predictors, ProbitState, SiteRows
from trialkit._kernels.gibbs_linear import Layout, Prior
from trialkit._kernels.gibbs_spread import SpreadState
from trialkit._kernels.gibbs_streams import Streams

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

Kind = Literal["normal", "pmm", "binary", "ordinal", "nominal"]
INNER = 1  # latent cycles a visit: the state persists, so the next round goes on where this one stopped
FIRST = 5  # cycles at a variable's first visit, away from the start values
# probit coefficients: sd 2.5 on standardised predictors (latent sd 1), which keeps perfect prediction finite; the intercept wider
PROBIT_SD, PROBIT_INTERCEPT_SD = 2.5, 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """One incomplete variable.

    `units` are rows for a person-level variable and sites for a site-level one; `missing` (q,) and `observed` (r,) are units in
    ascending order. `values` (r,) holds the observed values: of column `columns[0]` (normal), the raw values (pmm) or codes
    0..K-1 (categories). `coding` (K, k) or, for pmm, (2, 1) = mean and sd, turns a drawn value into the columns of Z.
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
        self.n, self.P = problem.z.shape
        # sums are kept by innermost cluster: the site, or its subclusters
        self.cluster, outer = problem.clusters()
        self.size = np.bincount(self.cluster)
        self.J = len(self.size)
        self.site_of = outer if problem.subcluster is not None else None
        self.site_start = None if self.site_of is None else np.flatnonzero(np.diff(self.site_of, prepend=-1))
        self.site_size = np.bincount(problem.site)
        self.start = np.concatenate([[0], np.cumsum(self.size)[:-1]]).astype(np.intp)
        self.z = np.repeat(problem.z[None], self.m, axis=0)
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

        `seen`: the rows as they are (m, len(rows), P), where a visit has them at hand; it is overwritten.
        """
        if seen is None and 2 * len(rows) > self.n:
            self.z[:, rows[:, None], columns] = values
            cross = self.z.swapaxes(1, 2) @ np.take(self.z, columns, axis=2)
            self.gram[:, :, columns] = cross
        else:
            part = np.take(self.z, rows, axis=1) if seen is None else seen
            before = part.swapaxes(1, 2) @ np.take(part, columns, axis=2)
            part[:, :, columns] = values
            self.z[:, rows[:, None], columns] = values
            after = part.swapaxes(1, 2) @ np.take(part, columns, axis=2)
            # entries among the columns themselves change on both sides, and this difference holds both
            self.gram[:, :, columns] += after - before
        self.gram[:, columns, :] = self.gram[:, :, columns].swapaxes(1, 2)
        for c in columns:
            self.site_sum[:, :, c] = np.add.reduceat(self.z[:, :, c], self.start, axis=1)

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
                if target.given_outcome:
                    drawn = self._visit_given_outcome(target, plan, memory)
                else:
                    drawn = self._visit_site(target, plan, memory) if target.site_level else self._visit(target, plan, memory)
                memory.drawn = drawn
                self._write(target, plan, drawn)
                if drawn.shape[1]:
                    trace[0, i, k] = drawn.mean(axis=1)
                    trace[1, i, k] = drawn.std(axis=1)
                if not target.site_level:
                    kept = memory.probits[0] if memory.probits else (memory.spread or memory)
                    phi2 = shared = (kept.t / (1 - kept.t)) ** 2
                    if not isinstance(kept, SpreadState) and kept.t_pair is not None:
                        outer = (kept.t_pair / (1 - kept.t_pair)) ** 2
                        phi2 = phi2 + outer
                        # people of a site share its pair's intercept, not their subclusters'
                        shared = phi2 if self.site_of is None else outer
                    trace[2, i, k] = shared / (1 + phi2)
            # sums kept by differences: start each round from a fresh count so that rounding cannot pile up
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
        values = drawn[:, plan.source] if target.site_level else drawn
        self._replace(target.columns, plan.rows, _encode(target, values), self.seen)
        self.seen = None
        self._update_derived(target.columns)

    def _visit(self, target: Target, plan: _Plan, memory: _Memory) -> Array:
        sites = plan.sites
        assert sites is not None
        self.seen = absent = np.take(self.z, target.missing, axis=1)
        take = target.predictors
        x = np.take(absent, take, axis=2)
        # what the used rows sum to is what all rows sum to, less the rows to impute
        gram = np.take(self.gram.reshape(self.m, -1), plan.gram_at, axis=1).reshape(self.m, len(take), len(take))
        gram -= x.swapaxes(1, 2) @ x
        site_x = np.take(self.site_sum, take, axis=2)
        for there, rows in plan.absent_passes:
            site_x[:, there] -= x[:, rows]
        if target.kind == "normal" and not target.heteroscedastic:
            c = int(target.columns[0])
            y = absent[:, :, c].copy()
            site_y = self.site_sum[:, :, c].copy()
            for there, rows in plan.absent_passes:
                site_y[:, there] -= y[:, rows]
            xy = np.take(self.gram[:, :, c], take, axis=1) - (y[:, None, :] @ x)[:, 0]
            yy = self.gram[:, c, c] - (y**2).sum(axis=1)
            draw = self._linear(target, memory, gibbs_linear.Moments(gram, xy, yy, len(target.observed), site_x, site_y), sites.layout)
            assert draw.u is not None
            eta = (x @ draw.beta[:, :, None])[:, :, 0] + np.take(draw.u, sites.absent, axis=1)
            return self._noise(target, eta, draw.sigma2[:, None])
        predictors = Predictors(np.take(self.z, target.observed, axis=1), x, take, gram, site_x, sites)
        return self._by_kind(target, plan, memory, predictors)

    def _visit_given_outcome(self, target: Target, plan: _Plan, memory: _Memory) -> Array:
        """A covariate of the substantive model: its own regression times the density of the outcome (Bartlett et al. 2015).

        The regression leaves the outcome out, so that it is drawn from all rows as they now are: those where the covariate is observed
        are a sample that the outcome may have selected.
        """
        sites = plan.sites
        assert sites is not None
        take = target.predictors
        here = np.take(self.z, target.missing, axis=1)
        x = np.take(here, take, axis=2)
        gram = np.take(self.gram.reshape(self.m, -1), plan.gram_at, axis=1).reshape(self.m, len(take), len(take))
        site_x = np.take(self.site_sum, take, axis=2)
        if target.kind == "normal":
            c = int(target.columns[0])
            xy, yy = np.take(self.gram[:, :, c], take, axis=1), self.gram[:, c, c].copy()
            moments = gibbs_linear.Moments(gram, xy, yy, self.n, site_x, self.site_sum[:, :, c].copy())
            draw = self._linear(target, memory, moments, sites.layout)
            assert draw.u is not None
            eta = (x @ draw.beta[:, :, None])[:, :, 0] + np.take(draw.u, sites.absent, axis=1)
            return gibbs_substantive.draw_numbers(
                here[:, :, c].copy(),
                eta,
                np.sqrt(draw.sigma2)[:, None],
                here[:, :, int(self.problem.targets[0].columns[0])],
                self._outcome_polynomial(target, here),
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
        predictors = Predictors(self.z, x, take, gram, site_x, sites)
        self._cycle(target, state, predictors, codes, target.levels, plan.step)
        assert state.beta is not None
        assert target.coding is not None
        eta = predictors.linear_absent(state.beta, state.u)
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
        return np.asarray(eta + np.take(draw.u, np.take(self.cluster, target.missing), axis=1))

    def _outcome_polynomial(self, target: Target, rows: Array) -> Array:
        """That mean as a polynomial in the target's one column: coefficients (d + 1, m, q), from its values at d + 1 places."""
        degree = dict.fromkeys(range(self.P), 0) | {int(target.columns[0]): 1}
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
        means = self._of_sites(np.take(self.site_sum, target.predictors, axis=2)) / self.site_size[:, None]
        used, absent = np.take(means, target.observed, axis=1), np.take(means, target.missing, axis=1)
        predictors = Predictors(
            used=used,
            absent=absent,
            columns=np.arange(len(target.predictors)),
            gram=used.swapaxes(1, 2) @ used,
            site_x=None,
            sites=None,
        )
        if target.kind == "normal":
            draw = self._linear(target, memory, predictors.moments(np.repeat(target.values[None], self.m, axis=0)), None)
            return self._noise(target, predictors.linear_absent(draw.beta, None), draw.sigma2[:, None])
        return self._by_kind(target, plan, memory, predictors)

    def _linear(self, target: Target, memory: _Memory, moments: gibbs_linear.Moments, layout: Layout | None) -> gibbs_linear.LinearDraw:
        prior = Prior(np.zeros(len(target.predictors)), site=target.site_prior)
        if memory.beta is None:
            first = gibbs_linear.draw(moments, layout, prior, self.streams, beta=None, t=memory.t)
            memory.beta, memory.t_pair = first.beta, first.t_pair
        draw = gibbs_linear.draw(moments, layout, prior, self.streams, beta=memory.beta, t=memory.t, t_pair=memory.t_pair)
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
            prior = Prior(np.zeros(len(target.predictors)), site=target.site_prior)
            if memory.spread is None:
                memory.spread = SpreadState.start(predictors, y, prior, self.streams)
            state = memory.spread
            self.repaired[target.name] += int(gibbs_spread.cycle(state, predictors, y, prior, self.streams).sum())
            eta = predictors.linear_absent(state.beta, state.u)
            assert predictors.sites is not None
            return self._noise(target, eta, 1 / np.take(state.weight, predictors.sites.absent, axis=1))
        if target.kind == "pmm":
            assert plan.scores is not None
            moments = predictors.moments(np.repeat(plan.scores[None], self.m, axis=0))
            draw = self._linear(target, memory, moments, predictors.layout)
            observed = predictors.linear(draw.beta, draw.u)
            absent = predictors.linear_absent(draw.beta, draw.u)
            return target.values[gibbs_donors.donors(observed, absent, self.streams.uniform(absent.shape[1]))]
        codes = target.values.astype(np.intp)
        if target.kind == "nominal":
            return self._nested(target, plan, memory, predictors)
        if not memory.probits:
            memory.probits = [ProbitState.start(self.m, codes, target.levels)]
        return self._probit(target, memory.probits[0], predictors, codes, target.levels, plan.step).astype(float)

    def _probit(self, target: Target, state: ProbitState, predictors: Predictors, codes: Ints, levels: int, step: Array | None) -> Ints:
        self._cycle(target, state, predictors, codes, levels, step)
        return gibbs_latent.impute(state, predictors, levels, self.streams)

    def _cycle(self, target: Target, state: ProbitState, predictors: Predictors, codes: Ints, levels: int, step: Array | None) -> None:
        precision = np.full(len(predictors.columns), PROBIT_SD**-2)
        precision[0] = PROBIT_INTERCEPT_SD**-2
        prior = Prior(precision, site=target.site_prior, t_max=gibbs_latent.T_MAX)
        for _ in range(FIRST if state.beta is None else INNER):
            repaired = gibbs_latent.cycle(state, predictors, codes, levels, prior, self.streams, step=step)
            self.repaired[target.name] += int(repaired.sum())

    def _nested(self, target: Target, plan: _Plan, memory: _Memory, predictors: Predictors) -> Array:
        """Nested binary probits: the rarest category against the rest, then the next among those left, and so on."""
        if not memory.probits:
            memory.probits = [ProbitState.start(self.m, nest.codes, 2) for nest in plan.nests]
        drawn = np.full((self.m, len(target.missing)), float(plan.rest))
        undecided = np.ones(drawn.shape, dtype=bool)
        for nest, state in zip(plan.nests, memory.probits, strict=True):
            predictors = nest.narrow(predictors)
            hit = self._probit(target, state, predictors, nest.codes, 2, None).astype(bool) & undecided
            drawn[hit] = nest.category
            undecided &= ~hit
        return drawn


@dataclass(frozen=True, slots=True)
class _Nest:
    """One binary step of a nominal variable: which rows of the step before take part, and whether each is the category."""

    category: int
    keep: Ints  # positions among the rows of the step before
    drop: Ints  # those decided there
    drop_passes: tuple[tuple[Ints, Ints], ...]
    codes: Ints
    sites: SiteRows | None

    def narrow(self, p: Predictors) -> Predictors:
        """The regression without the rows decided before: few, because the rarest category goes first."""
        if not len(self.drop):
            return p
        gone = np.take(np.take(p.used, self.drop, axis=1), p.columns, axis=2)
        site_x = p.site_x
        if site_x is not None:
            site_x = site_x.copy()
            for there, rows in self.drop_passes:
                site_x[:, there] -= gone[:, rows]
        return Predictors(np.take(p.used, self.keep, axis=1), p.absent, p.columns, p.gram - gone.swapaxes(1, 2) @ gone, site_x, self.sites)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a target's visits need and never changes."""

    rows: Ints  # rows written
    source: Ints  # for a site-level target, which missing site each row belongs to
    sites: SiteRows | None
    absent_passes: tuple[tuple[Ints, Ints], ...]
    gram_at: Ints  # (p * p,) places of the predictors' cross-products in the flat (P, P)
    scores: Array | None
    step: Array | None
    nests: tuple[_Nest, ...]
    rest: int

    @classmethod
    def of(cls, target: Target, problem: Problem, J: int) -> _Plan:
        site, P = problem.site, problem.z.shape[1]
        cluster, outer = problem.clusters()
        sites: SiteRows | None = None
        passes: tuple[tuple[Ints, Ints], ...] = ()
        if target.site_level:
            rows, source = _rows_of(target.missing, site)
        else:
            rows, source = target.missing, np.arange(len(target.missing))
            used = cluster if target.given_outcome else cluster[target.observed]
            sites = SiteRows.of(used, cluster[target.missing], J, outer)
            passes = _passes(sites.absent)
        step = scores = None
        nests: list[_Nest] = []
        rest = 0
        if target.kind == "pmm":
            scores = gibbs_donors.normal_scores(target.values)
        if target.levels:
            codes = target.values.astype(np.intp)
            if target.kind == "ordinal" and target.levels > 2:
                step = gibbs_latent.cut_proposal(codes, target.levels)
            elif target.kind == "nominal":
                nests, rest = _nests(codes, target.levels, sites, J, outer)
        gram_at = (target.predictors[:, None] * P + target.predictors).ravel()
        return cls(rows, source, sites, passes, gram_at, scores, step, tuple(nests), rest)


def _nests(codes: Ints, levels: int, sites: SiteRows | None, J: int, pair: Ints | None) -> tuple[list[_Nest], int]:
    """The steps of a nominal variable, the rarest category first: the later steps keep as many rows as they can."""
    order = np.argsort(np.bincount(codes, minlength=levels), kind="stable")
    left, hit = np.arange(len(codes)), np.zeros(len(codes), dtype=np.intp)
    nests = []
    for category in order[:-1]:
        keep, drop = np.flatnonzero(hit == 0), np.flatnonzero(hit)
        decided = left[drop]
        left = left[keep]
        hit = (codes[left] == category).astype(np.intp)
        rows = None if sites is None else SiteRows.of(sites.used[left], sites.absent, J, pair)
        nests.append(_Nest(int(category), keep, drop, () if sites is None else _passes(sites.used[decided]), hit, rows))
    return nests, int(order[-1])


def _passes(site: Ints) -> tuple[tuple[Ints, Ints], ...]:
    """Rows of an ascending site array as the first of each site, the second, ...: sums over small sites in few array operations."""
    if not len(site):
        return ()
    _, start, many = np.unique(site, return_index=True, return_counts=True)
    place = np.arange(len(site)) - np.repeat(start, many)
    return tuple((site[place == k], np.flatnonzero(place == k)) for k in range(int(many.max())))


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
