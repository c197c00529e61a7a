"""One trial from one seed, as arrays: people, traits, outcomes at two waves, losses, attendance.

Everything that does not depend on the seed is worked out once (`blueprint`); `draw` then takes a few
milliseconds a trial. Nothing here loops over people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from trialkit.door import DesignError
from trialkit.simulation.measurement import Measure, score
from trialkit.simulation.scenario import Loss, PlantedOutcome, Scenario, Trait, trait_variance
from trialkit.simulation.sites import Randomisation, SiteList, plan_for, recruit
from trialkit.simulation.streams import Floats, Ints, Stream

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OutcomePlan:
    """One outcome, ready to be drawn.

    Attributes
    ----------
    roles : tuple of int
        Which of the scenario's roles answer it.
    shift : float
        What the intervention adds to the underlying score.
    sign : float
        +1 when higher is better, -1 when lower is.
    variance : mapping
        Of the underlying score: ``pair``, ``site``, ``subcluster``; ``person`` is by role, what the traits leave.
    """

    name: str
    baseline: str | None
    planted: PlantedOutcome
    measure: Measure
    roles: tuple[int, ...]
    shift: float
    sign: float
    variance: Mapping[str, float]
    person_variance: tuple[float, ...]
    trait_variance: tuple[float, ...]
    complier: int = 1

    def dose(self, attended: Floats) -> Floats:
        """How many times the shift somebody in the intervention arm gets who attends so many sessions."""
        if self.planted.effect_of == "assignment":
            return np.ones_like(attended)
        return attended if self.planted.effect_of == "session" else (attended >= self.complier).astype(np.float64)


@dataclass(frozen=True)
class Blueprint:
    """A scenario worked out as far as it goes without a seed."""

    scenario: Scenario
    outcomes: tuple[OutcomePlan, ...]
    fixed: tuple[SiteList, Randomisation] | None

    def sites(self, seed: int) -> tuple[SiteList, Randomisation]:
        """The site list and its randomisation plan under a seed."""
        if self.fixed is not None:
            return self.fixed
        sites = recruit(self.scenario, seed)
        return sites, plan_for(self.scenario, sites)


@dataclass(frozen=True, slots=True)
class Waves:
    """One outcome as observed, for everybody; missing where not answered or not asked.

    Attributes
    ----------
    before, after : (n,) float
        Baseline (None without one) and follow-up.
    items_before, items_after : (n, q) float or None
    """

    before: Floats | None
    after: Floats
    items_before: Floats | None = None
    items_after: Floats | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """A trial as arrays; people stand by role, then by site.

    Attributes
    ----------
    role, site : (n,) int
        Indices into the scenario's people and the randomised sites.
    arm_of_site : (n_sites,) int
        1 is the intervention.
    traits : mapping of name to (n,) array
        Level codes (-1: the role has no such trait) or numbers.
    baseline, left, follow_up : (n,) bool
    sessions : (n, n_sessions) float
        1/0, missing in the control arm.
    outcomes : mapping of name to Waves
    subcluster : (n,) int or None
        The third level; codes over all sites.
    subcluster_of_site : tuple of two (n_subclusters,) int arrays or None
        The site of each subcluster, and its number there.
    """

    sites: SiteList
    randomisation: Randomisation
    role: Ints
    site: Ints
    arm_of_site: Ints
    traits: Mapping[str, Any]
    baseline: Bools
    left: Bools
    follow_up: Bools
    sessions: Floats
    outcomes: Mapping[str, Waves] = field(default_factory=dict)
    subcluster: Ints | None = None
    subcluster_of_site: tuple[Ints, Ints] | None = None

    @property
    def arm(self) -> Ints:
        """(n,) 0/1."""
        codes: Ints = self.arm_of_site[self.site]
        return codes

    @property
    def attended(self) -> Floats:
        """(n,) sessions attended; 0 in the control arm and for roles that are not invited."""
        count: Floats = np.nansum(self.sessions, axis=1)
        return count


@lru_cache(maxsize=32)
def blueprint(scenario: Scenario) -> Blueprint:
    """Work a scenario out as far as it goes without a seed; remembered for the scenarios used last."""
    fixed = None
    if scenario.sites.fixed is not None:
        sites = recruit(scenario, scenario.sites.fixed)
        fixed = (sites, plan_for(scenario, sites))
    return Blueprint(scenario=scenario, outcomes=tuple(_outcome_plan(scenario, o) for o in scenario.outcomes), fixed=fixed)


def _outcome_plan(scenario: Scenario, planted: PlantedOutcome) -> OutcomePlan:
    declared = next(o for o in scenario.design.outcomes if o.name == planted.name)
    measure = Measure(
        kind="continuous" if declared.type in ("bounded", "skewed") else declared.type,  # type: ignore[arg-type]
        mean=planted.mean,
        sd=planted.sd,
        low=-np.inf if planted.low is None else planted.low,
        high=np.inf if planted.high is None else planted.high,
        decimals=planted.decimals,
        items=planted.items,
        item_correlation=planted.item_correlation,
    )
    try:
        shift = measure.shift_for(planted.d)
    except ValueError as error:
        raise DesignError(f"outcomes: {planted.name!r}: {error}. Widen low and high, take a smaller sd, or plant less.") from None
    asked = scenario.roles_of(planted.name)
    by_role = tuple(sum(trait_variance(t, p.role) for t in scenario.traits) for p in scenario.people)
    return OutcomePlan(
        name=planted.name,
        baseline=declared.baseline,
        planted=planted,
        measure=measure,
        roles=tuple(k for k, p in enumerate(scenario.people) if p.role in asked),
        shift=shift,
        sign=1.0 if declared.direction == "higher" else -1.0,
        variance={
            "pair": planted.icc * planted.pair_share,
            "site": planted.icc * (1.0 - planted.pair_share),
            "subcluster": planted.icc_subcluster,
        },
        person_variance=tuple(1.0 - planted.icc - planted.icc_subcluster - v for v in by_role),
        trait_variance=by_role,
        complier=scenario.attendance.complier if scenario.attendance else 1,
    )


def draw(plan: Blueprint, seed: int, *, complete: bool = False) -> Drawn:
    """Draw one trial; `complete` leaves every answer in place, whoever was lost."""
    scenario = plan.scenario
    sites, randomisation = plan.sites(seed)
    n_roles, n_sites = len(scenario.people), len(sites.ids)
    role = np.repeat(np.arange(n_roles), sites.sizes.sum(axis=0))
    site = np.concatenate([np.repeat(np.arange(n_sites), sites.sizes[:, k]) for k in range(n_roles)])
    arm_of_site = randomisation.arms(seed)
    third = subclusters(scenario, seed, site, n_sites)
    people = _People(scenario, seed, role, site, arm_of_site[site], randomisation.pair, sites, *(third[:2] if third else (None, 0)))

    traits = {t.name: _trait(t, people) for t in scenario.traits}
    wellbeing = sum((_trait_effect(t, traits[t.name], people) for t in scenario.traits if t.effects is not None), np.zeros(len(role)))
    factors = _factors(people)
    scores = {o.name: _scores(o, people, wellbeing, factors) for o in plan.outcomes}
    sessions = _sessions(plan, people, scores)
    attended = np.nansum(sessions, axis=1)
    full = {o.name: _outcome(o, people, traits, scores[o.name], attended) for o in plan.outcomes}

    lost = _lost(plan, people, traits, full)
    outcomes = full if complete else {o.name: _with_gaps(o, full[o.name], lost, people) for o in plan.outcomes}
    if not complete:
        traits = {t.name: _trait_gaps(t, traits[t.name], lost.baseline, people) for t in scenario.traits}
    return Drawn(
        sites=sites,
        randomisation=randomisation,
        role=role,
        site=site,
        arm_of_site=arm_of_site,
        traits=traits,
        baseline=lost.baseline,
        left=lost.left,
        follow_up=lost.follow_up,
        sessions=sessions,
        outcomes=outcomes,
        subcluster=None if third is None else third[0],
        subcluster_of_site=None if third is None else (third[2], third[3]),
    )


def subclusters(scenario: Scenario, seed: int, site: Ints, n_sites: int) -> tuple[Ints, int, Ints, Ints] | None:
    """The subcluster of everybody, how many there are, and the site and number of each; None without a third level."""
    third = scenario.subclusters
    if third is None:
        return None
    held = np.bincount(site, minlength=n_sites)
    count = np.maximum(np.rint(held / third.size), 1).astype(np.int64) if third.size is not None else np.full(n_sites, third.per_site)
    first = np.cumsum(count) - count
    where, number = np.repeat(np.arange(n_sites), count), np.arange(count.sum()) - np.repeat(first, count)
    if third.cv == 0.0:
        # dealt out in turn over all roles of the site
        order = np.argsort(site, kind="stable")
        turn = np.empty(len(site), dtype=np.int64)
        turn[order] = np.arange(len(site)) - np.repeat(np.cumsum(held) - held, held)
        return first[site] + turn % count[site], len(where), where, number
    weight = np.exp(np.sqrt(np.log1p(third.cv**2)) * Stream(seed, "subclusters", "size").normal(len(where)))
    upper = np.cumsum(weight)
    start, total = np.append(0.0, upper)[first], np.bincount(where, weight, minlength=n_sites)
    u = start[site] + Stream(seed, "subclusters", "places").uniform(len(site)) * total[site]
    place = np.searchsorted(upper, u, side="right")
    return np.clip(place, first[site], first[site] + count[site] - 1), len(where), where, number


# --- people and what they are -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _People:
    """Who is where, and a way to draw for them that one role's number does not disturb another's."""

    scenario: Scenario
    seed: int
    role: Ints
    site: Ints
    arm: Ints
    pair_of_site: Ints
    sites: SiteList
    subcluster: Ints | None = None
    subclusters: int = 0

    def normal(self, *names: str) -> Floats:
        """(n,) standard normals, a stream of its own for each role."""
        return np.concatenate([Stream(self.seed, *names, p.role).normal(n) for p, n in self._counts()])

    def uniform(self, columns: int, *names: str) -> Floats:
        """(n, columns) uniforms."""
        return np.concatenate([Stream(self.seed, *names, p.role).uniform(n, columns) for p, n in self._counts()])

    def site_normal(self, *names: str) -> Floats:
        """(n_sites,) standard normals."""
        return Stream(self.seed, *names).normal(len(self.pair_of_site))

    def rows(self, roles: tuple[int, ...]) -> Ints:
        """Where the people of these roles stand."""
        return np.flatnonzero(np.isin(self.role, roles))

    def _counts(self) -> Any:
        return zip(self.scenario.people, self.sites.sizes.sum(axis=0).tolist(), strict=True)


def _trait(trait: Trait, people: _People) -> Any:
    if trait.levels is None:
        z = people.normal("trait", trait.name)
        values = np.full(len(z), np.nan)
        for k, p in enumerate(people.scenario.people):
            if p.role in trait.mean:
                rows = people.role == k
                m, s = trait.mean[p.role], trait.sd[p.role]
                if trait.skewed:
                    g = np.sqrt(np.log1p((s / m) ** 2))
                    values[rows] = m * np.exp(g * z[rows] - g * g / 2.0)
                else:
                    values[rows] = m + s * z[rows]
        return np.round(values, 2)
    u = people.uniform(1, "trait", trait.name)[:, 0]
    codes = np.full(len(u), -1)
    for k, p in enumerate(people.scenario.people):
        if p.role in trait.shares:
            rows = people.role == k
            ladder = np.cumsum(trait.shares[p.role])[:-1]
            codes[rows] = np.searchsorted(ladder, u[rows], side="right")
    return codes


def _trait_effect(trait: Trait, codes: Ints, people: _People) -> Floats:
    """How much better a person does for the trait, centred within each role so that nobody's mean moves."""
    assert trait.effects is not None
    effect = np.array([*trait.effects, 0.0])[codes]
    for k, p in enumerate(people.scenario.people):
        if p.role in trait.shares:
            effect[people.role == k] -= float(np.dot(trait.shares[p.role], trait.effects))
    return effect


# --- outcomes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Factors:
    """What all outcomes of a pair, a site, a subcluster or a person have in common: baseline and new at follow-up, (2, units)."""

    pair: Floats
    site: Floats
    person: Floats
    subcluster: Floats


def _factors(people: _People) -> _Factors:
    units = len(people.pair_of_site)
    inner = (
        [Stream(people.seed, "factor", "subcluster", w).normal(people.subclusters) for w in ("before", "new")] if people.subclusters else []
    )
    return _Factors(
        pair=np.stack([Stream(people.seed, "factor", "pair", w).normal(units) for w in ("before", "new")]),
        site=np.stack([Stream(people.seed, "factor", "site", w).normal(units) for w in ("before", "new")]),
        person=np.stack([people.normal("factor", "person", w) for w in ("before", "new")]),
        subcluster=np.stack(inner) if inner else np.zeros((2, 0)),
    )


@dataclass(frozen=True, slots=True)
class _Scores:
    """Underlying scores at both waves without any intervention, of the people at `rows`."""

    rows: Ints
    before: Floats
    after: Floats


def _scores(plan: OutcomePlan, people: _People, wellbeing: Floats, factors: _Factors) -> _Scores:
    """Both waves of one outcome's underlying score."""
    scenario, planted = people.scenario, plan.planted
    common = plan.sign * np.sqrt(scenario.outcome_correlation)
    own = np.sqrt(1.0 - scenario.outcome_correlation)
    rows = people.rows(plan.roles)
    role, site = people.role[rows], people.site[rows]
    units = len(people.pair_of_site)
    z = Stream(people.seed, "outcome", plan.name).normal(2 * (2 * units + len(rows))).reshape(2, -1)  # before, new
    pair = common * factors.pair + own * z[:, :units]
    at_site = common * factors.site + own * z[:, units : 2 * units]
    person = common * factors.person[:, rows] + own * z[:, 2 * units :]
    cluster = np.sqrt(plan.variance["pair"]) * pair[:, people.pair_of_site] + np.sqrt(plan.variance["site"]) * at_site
    spread = np.sqrt(np.array(plan.person_variance))[role]
    inner = cluster[:, site]
    if people.subcluster is not None:
        z = Stream(people.seed, "outcome", plan.name, "subcluster").normal(2, people.subclusters)
        of_subcluster = np.sqrt(plan.variance["subcluster"]) * (common * factors.subcluster + own * z)
        inner = inner + of_subcluster[:, people.subcluster[rows]]
    before, new = inner + spread * person

    v = np.array(plan.trait_variance)[role]
    # traits stay, so they make up a part of the correlation between the waves
    r = np.clip((planted.baseline_correlation - v) / (1.0 - v), 0.0, None) if plan.baseline else np.zeros(len(v))
    steady = plan.sign * wellbeing[rows]
    return _Scores(rows, before + steady, r * before + np.sqrt(1.0 - r * r) * new + steady)


def _outcome(plan: OutcomePlan, people: _People, traits: Mapping[str, Any], scores: _Scores, attended: Floats) -> Waves:
    """Both waves of one outcome, complete."""
    rows = scores.rows
    dose = people.arm * plan.dose(attended)
    after = scores.after + dose[rows] * _shift(plan, people, traits)[rows]

    items_before = values_before = None
    if plan.baseline:
        values_before, items_before = _observe(plan, scores.before, rows, people, "before")
    values_after, items_after = _observe(plan, after, rows, people, "after")
    return Waves(before=values_before, after=values_after, items_before=items_before, items_after=items_after)


def _shift(plan: OutcomePlan, people: _People, traits: Mapping[str, Any]) -> Floats:
    """The intervention's effect on each person's underlying score, (n,)."""
    planted = plan.planted
    shift = np.full(len(people.role), plan.shift)
    if planted.by is not None and planted.effects_by is not None:
        shift += np.array([*planted.effects_by, 0.0])[traits[planted.by]]
    if planted.size_slope:
        shift += planted.size_slope * size_score(plan, people.sites)[people.site]
    return shift


def size_score(plan: OutcomePlan, sites: SiteList) -> Floats:
    """Log size of each site among those who answer, with mean 0 and SD 1 over people, (n_sites,)."""
    sizes = sites.sizes[:, list(plan.roles)].sum(axis=1).astype(np.float64)
    logs = np.log(np.maximum(sizes, 1.0))
    mean = np.average(logs, weights=sizes)
    sd = np.sqrt(np.average((logs - mean) ** 2, weights=sizes))
    return (logs - mean) / sd if sd > 0 else np.zeros(len(sizes))


def _observe(plan: OutcomePlan, y: Floats, rows: Ints, people: _People, wave: str) -> tuple[Floats, Floats | None]:
    """Observed values of the people at `rows`, (n,), missing for all others; their items, (n, q)."""
    values, items = plan.measure.observe(y, Stream(people.seed, "outcome", plan.name, "measure", wave))
    out = np.full(len(people.role), np.nan)
    out[rows] = np.round(values, plan.measure.decimals)
    if items is None:
        return out, None
    wide = np.full((len(out), items.shape[1]), np.nan)
    wide[rows] = items
    return out, wide


# --- losses -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Lost:
    baseline: Bools
    left: Bools
    follow_up: Bools


def _lost(plan: Blueprint, people: _People, traits: Mapping[str, Any], full: Mapping[str, Waves]) -> _Lost:
    losses = plan.scenario.losses
    n = len(people.role)
    everybody = np.ones(n, dtype=bool)
    baseline = _event(losses.baseline, "baseline", everybody, people, traits, {}) if losses.baseline else everybody
    # what is known of a person by then: the baseline scores with their own gaps
    known: dict[str, Floats] = {}
    drivers = {d.column for loss in (losses.left, losses.follow_up) if loss for d in loss.drivers}
    for o in plan.outcomes:
        if o.name in drivers:
            known[o.name] = full[o.name].after
        if o.baseline in drivers:
            known[str(o.baseline)] = _gaps(o, full[o.name].before, full[o.name].items_before, baseline, people, "before")[0]
    left = _event(losses.left, "left", baseline, people, traits, known) if losses.left else np.zeros(n, dtype=bool)
    there = baseline & ~left
    follow_up = _event(losses.follow_up, "follow_up", there, people, traits, known) if losses.follow_up else there
    if losses.sites:
        gone = Stream(people.seed, "losses", "sites").uniform(len(people.pair_of_site)) < losses.sites
        follow_up = follow_up & ~gone[people.site]
    return _Lost(baseline=baseline, left=left, follow_up=follow_up)


def _event(loss: Loss, name: str, at_risk: Bools, people: _People, traits: Mapping[str, Any], known: Mapping[str, Floats]) -> Bools:
    """Who meets the event: a logistic model whose intercept gives each role its share among those at risk."""
    u = people.uniform(1, "losses", name)[:, 0]
    at_site = loss.site_sd * people.site_normal("losses", name, "site")[people.site]
    out = np.zeros(len(u), dtype=bool)
    for k, p in enumerate(people.scenario.people):
        rows = np.flatnonzero(at_risk & (people.role == k))
        if not len(rows):
            continue
        linear = at_site[rows].copy()
        for driver in loss.drivers:
            linear += driver.slope * _driver(driver.column, driver.level, driver.within, rows, people, traits, known)
        out[rows] = u[rows] < expit(linear + _intercept(linear, loss.rate[p.role]))
    return out


def _driver(
    column: str, level: str | None, within: str, rows: Ints, people: _People, traits: Mapping[str, Any], known: Mapping[str, Floats]
) -> Floats:
    arm = people.arm[rows]
    if column == "arm":
        values = arm.astype(np.float64)
    elif column in traits:
        levels = next(t.levels for t in people.scenario.traits if t.name == column)
        assert levels is not None and level is not None
        values = (traits[column][rows] == levels.index(level)).astype(np.float64)
    else:
        x = known[column][rows]
        present = ~np.isnan(x)
        if present.sum() < 2 or np.ptp(x[present]) == 0.0:
            return np.zeros(len(rows))
        # a value nobody saw cannot drive a loss that is missing at random: it counts as the mean
        values = np.where(present, (x - x[present].mean()) / x[present].std(), 0.0)
    if within != "both":
        values = values * (arm == (1 if within == "intervention" else 0))
    return values


def _intercept(linear: Floats, rate: float) -> float:
    """The intercept at which the mean probability is `rate` (Newton within a bracket; the mean rises with it)."""
    if rate <= 0.0 or rate >= 1.0:
        return -np.inf if rate <= 0.0 else np.inf
    low, high = float(-linear.max() - 40.0), float(-linear.min() + 40.0)
    a = float(np.log(rate / (1.0 - rate)) - linear.mean())
    for _ in range(60):
        p = expit(linear + a)
        gap = float(p.mean()) - rate
        if abs(gap) < 1e-12:
            break
        low, high = (a, high) if gap < 0 else (low, a)
        slope = float((p * (1.0 - p)).mean())
        step = a - gap / slope if slope > 0 else low
        a = step if low < step < high else (low + high) / 2.0
    return a


def _with_gaps(plan: OutcomePlan, full: Waves, lost: _Lost, people: _People) -> Waves:
    before, items_before = (
        _gaps(plan, full.before, full.items_before, lost.baseline, people, "before") if full.before is not None else (None, None)
    )
    after, items_after = _gaps(plan, full.after, full.items_after, lost.follow_up, people, "after")
    return Waves(before=before, after=after, items_before=items_before, items_after=items_after)


def _gaps(
    plan: OutcomePlan, values: Floats | None, items: Floats | None, surveyed: Bools, people: _People, wave: str
) -> tuple[Floats, Floats | None]:
    """One wave with what was not answered taken out: the whole survey, the whole scale, single items."""
    assert values is not None
    planted = plan.planted
    n = len(surveyed)
    q = items.shape[1] if items is not None and planted.item_missing else 0
    skipped = ~surveyed
    if planted.missing or q:
        u = Stream(people.seed, "outcome", plan.name, "skipped", wave).uniform(n, 1 + q)
        skipped = skipped | (u[:, 0] < planted.missing)
    if items is None:
        return np.where(skipped, np.nan, values), None
    blank = (u[:, 1:] < planted.item_missing) if q else np.zeros(items.shape, dtype=bool)
    answered = np.where(skipped[:, None] | blank, np.nan, items)
    return score(answered, answered=people.scenario.losses.answered, decimals=plan.measure.decimals), answered


def _trait_gaps(trait: Trait, values: Any, surveyed: Bools, people: _People) -> Any:
    gone = ~surveyed
    if trait.missing:
        gone = gone | (people.uniform(1, "trait", trait.name, "missing")[:, 0] < trait.missing)
    return np.where(gone, np.nan if trait.levels is None else -1, values)


# --- attendance ---------------------------------------------------------------------------------------------


def _sessions(plan: Blueprint, people: _People, scores: Mapping[str, _Scores]) -> Floats:
    """(n, n_sessions) attendance; missing in the control arm and for roles that are not invited."""
    attendance = people.scenario.attendance
    flow = people.scenario.design.flow
    names = flow.sessions if attendance is not None and flow is not None else ()
    out = np.full((len(people.role), len(names)), np.nan)
    if attendance is None:
        return out
    a, b = attendance.site_correlation, attendance.person_correlation
    propensity = np.sqrt(a) * people.site_normal("attendance", "site")[people.site] + np.sqrt(b) * people.normal("attendance", "person")
    pulled = np.zeros(len(people.role))
    for outcome, slope in drivers(plan):
        pulled[scores[outcome.name].rows] += slope * scores[outcome.name].before
    spare = np.sqrt([1.0 - pull_variance(plan, k) for k in range(len(people.scenario.people))])[people.role]
    for s, name in enumerate(names):
        latent = propensity + np.sqrt(1.0 - a - b) * people.normal("attendance", name)
        if attendance.drivers:
            latent = spare * latent - pulled
        for k, p in enumerate(people.scenario.people):
            if p.role in attendance.rate:
                rows = (people.role == k) & (people.arm == 1)
                out[rows, s] = latent[rows] < ndtri(attendance.rate[p.role][s])
    return out


def drivers(plan: Blueprint) -> list[tuple[OutcomePlan, float]]:
    """The outcomes whose baseline scores make people come, with their slopes."""
    attendance = plan.scenario.attendance
    by_baseline = {o.baseline: o for o in plan.outcomes if o.baseline is not None}
    return [(by_baseline[d.column], d.slope) for d in attendance.drivers] if attendance is not None else []


def score_covariance(plan: Blueprint, k: OutcomePlan, j: OutcomePlan, role: int) -> float:
    """Covariance of the baseline scores of two outcomes in one person, both being answered by the role."""
    if k.name == j.name:
        return 1.0
    shared = sum(np.sqrt(k.variance[level] * j.variance[level]) for level in k.variance)
    shared += np.sqrt(k.person_variance[role] * j.person_variance[role])
    common = plan.scenario.outcome_correlation
    return float(k.sign * j.sign * (common * shared + np.sqrt(k.trait_variance[role] * j.trait_variance[role])))


def pull_variance(plan: Blueprint, role: int) -> float:
    """Variance that the drivers give the propensity of one role."""
    mine = [(o, b) for o, b in drivers(plan) if role in o.roles]
    return sum(b * c * score_covariance(plan, k, j, role) for k, b in mine for j, c in mine)


def pull_covariance(plan: Blueprint, outcome: OutcomePlan, role: int) -> float:
    """Covariance of the drivers' pull with the outcome's follow-up score in the absence of the intervention."""
    v = outcome.trait_variance[role]
    # traits stay; the rest of the score keeps the share that baseline_correlation says
    r = max((outcome.planted.baseline_correlation - v) / (1.0 - v), 0.0) if outcome.baseline else 0.0
    total = 0.0
    for k, slope in drivers(plan):
        if role in k.roles:
            steady = k.sign * outcome.sign * v
            total += slope * (r * (score_covariance(plan, k, outcome, role) - steady) + steady)
    return total
