"""The scenario: a declared trial together with how its sites, people, outcomes and losses come about.

A `Scenario` is read from TOML and proved when it is made: every name it mentions exists, every share adds up,
and a key that does not exist is refused with the nearest right one. `simulate` turns it into trials.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from trialkit.design import Block, Outcome, TrialDesign, dump_toml, explain_validation, read_toml
from trialkit.door import DesignError, nearest_word, sha256_bytes

if TYPE_CHECKING:
    import pandas as pd


def _rate(value: Any) -> Any:
    """A share may be written as the counts it was published as: "57/91"."""
    if isinstance(value, bool):
        raise ValueError(f'{str(value).lower()} is not a share; write 0.63 or "57/91"')
    if isinstance(value, str):
        try:
            return float(Fraction(value))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f'{value!r} is not a share; write 0.63 or "57/91"') from None
    return value


Rate = Annotated[float, BeforeValidator(_rate), Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


# --- sites --------------------------------------------------------------------------------------------------


class SiteGroup(Block):
    """A kind of site: how many are recruited, how many of them drop out before the draw, and what they share."""

    name: str
    recruited: Annotated[int, Field(ge=1)]
    lost: Annotated[int, Field(ge=0)] = 0
    values: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _some_remain(self) -> SiteGroup:
        if self.lost > self.recruited:
            raise ValueError(f"{self.lost} sites of {self.name!r} are lost, but only {self.recruited} are recruited")
        return self


class SiteColumn(Block):
    """A column of the sites' table and its distribution.

    ``lognormal`` (median, sigma; `medians` by group), ``normal`` (mean, sd), ``yes/no`` (share), or ``people``:
    the number of eligible people of all roles at the site. Numbers are rounded to multiples of `step`.
    """

    name: str
    distribution: Literal["lognormal", "normal", "yes/no", "people"]
    median: Positive | None = None
    medians: dict[str, Positive] = Field(default_factory=dict)
    sigma: Annotated[float, Field(ge=0.0)] | None = None
    mean: float | None = None
    sd: Annotated[float, Field(ge=0.0)] | None = None
    share: Rate | None = None
    step: Positive = 1.0

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> SiteColumn:
        needed = {"lognormal": ("median", "sigma"), "normal": ("mean", "sd"), "yes/no": ("share",), "people": ()}[self.distribution]
        for key in needed:
            if getattr(self, key) is None:
                raise ValueError(f"the distribution {self.distribution!r} of {self.name!r} needs {key}")
        return self


class Sites(Block):
    """The recruited sites.

    `fixed` is the seed of one site list that every trial shares (the matching is then found once); without it
    each trial recruits its own sites. `group_column` holds each site's group.
    """

    prefix: str = "S"
    fixed: Annotated[int, Field(ge=0)] | None = None
    group_column: str = "type"
    groups: Annotated[tuple[SiteGroup, ...], Field(min_length=1)]
    columns: tuple[SiteColumn, ...] = ()

    @property
    def recruited(self) -> int:
        """Sites recruited."""
        return sum(g.recruited for g in self.groups)

    @property
    def randomised(self) -> int:
        """Sites still there at the draw."""
        return sum(g.recruited - g.lost for g in self.groups)


# --- people -------------------------------------------------------------------------------------------------


class People(Block):
    """One kind of person: how many, and how unevenly they are spread over the sites.

    Give `total` (exact, over all randomised sites) or `per_site` (the mean). `cv` is the coefficient of variation
    of the sites' expected sizes, `minimum` the fewest at any site. `grows_with` names a log-normal site column
    whose logarithm has correlation `growth` with the logarithm of the expected size.
    """

    role: str
    label: str = ""
    prefix: str = "P"
    total: Annotated[int, Field(ge=1)] | None = None
    per_site: Positive | None = None
    cv: Annotated[float, Field(ge=0.0, le=5.0)] = 0.0
    minimum: Annotated[int, Field(ge=0)] = 0
    grows_with: str | None = None
    growth: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.0

    @model_validator(mode="after")
    def _one_size(self) -> People:
        if (self.total is None) == (self.per_site is None):
            raise ValueError(f"role {self.role!r} needs either total or per_site, not both nor neither")
        if self.per_site is not None and self.cv == 0.0 and max(round(self.per_site), self.minimum) == 0:
            raise ValueError(f"role {self.role!r}: per_site = {self.per_site:g} makes no people, because every site has that many, rounded")
        return self


class Subclusters(Block):
    """The third level: subclusters (teams, wards, classes) within sites, and people within them.

    Give `size` (the mean number of people in one) or `per_site` (how many a site has). People of all roles are dealt out evenly;
    with `cv` unevenly, by expected sizes of that coefficient of variation, and some may then stay empty. The column is the
    design's ``[columns] subcluster``. For repeated measurements the rows are occasions and the subcluster is the person.
    """

    size: Positive | None = None
    per_site: Annotated[int, Field(ge=1)] | None = None
    cv: Annotated[float, Field(ge=0.0, le=5.0)] = 0.0
    prefix: str = "T"

    @model_validator(mode="after")
    def _one_number(self) -> Subclusters:
        if (self.size is None) == (self.per_site is None):
            raise ValueError("subclusters need either size or per_site, not both nor neither")
        return self


class Trait(Block):
    """Something about a person known from the baseline survey.

    Categorical: `levels` with `shares` by role, and `effects`, one a level: how much better (in SDs of the
    outcome, in each outcome's better direction) such a person does. Numeric: `mean` and `sd` by role, ``skewed``
    for a log-normal shape. A role that is not listed does not have the trait.
    """

    name: str
    levels: tuple[str, ...] | None = None
    shares: dict[str, tuple[Rate, ...]] = Field(default_factory=dict)
    effects: tuple[float, ...] | None = None
    mean: dict[str, float] = Field(default_factory=dict)
    sd: dict[str, float] = Field(default_factory=dict)
    skewed: bool = False
    missing: Share = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Trait:
        if self.levels is None:
            if not self.mean or set(self.mean) != set(self.sd):
                raise ValueError(f"{self.name!r} needs levels with shares, or mean and sd for the same roles")
            if self.effects is not None:
                raise ValueError(f"{self.name!r} has effects but no levels")
            if self.skewed and any(m <= 0 for m in self.mean.values()):
                raise ValueError(f"{self.name!r} is skewed (log-normal), so its means must be above 0")
            return self
        if not self.shares:
            raise ValueError(f"{self.name!r} has levels but no shares")
        for role, shares in self.shares.items():
            if len(shares) != len(self.levels):
                raise ValueError(f"{self.name!r} has {len(self.levels)} levels but {len(shares)} shares for role {role!r}")
            if abs(sum(shares) - 1.0) > 1e-6:
                raise ValueError(f"the shares of {self.name!r} for role {role!r} add up to {sum(shares):.6g}, not 1")
        if self.effects is not None and len(self.effects) != len(self.levels):
            raise ValueError(f"{self.name!r} has {len(self.levels)} levels but {len(self.effects)} effects")
        return self

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that have the trait."""
        return tuple(self.shares if self.levels is not None else self.mean)


# --- outcomes -----------------------------------------------------------------------------------------------


class PlantedOutcome(Block):
    """How one declared outcome is made.

    `d` is the planted effect: the difference in means between the arms over the total SD of the follow-up values
    of both arms together, on the scale that is observed. `icc`, `pair_share` (of the site variance), `icc_subcluster` (the share of
    the variance between subclusters of a site) and `baseline_correlation` belong to the underlying normal score; the trial's truth
    states what they are on the observed scale.

    The observed scale: ``continuous`` (mean, sd; `low`/`high` clip, `decimals` round), with `items` the mean of
    that many rating items from `low` to `high` correlated `item_correlation`; ``count`` (Poisson with a
    log-normal mean, so skewed); ``binary`` (`mean` is the share of ones) and ``ordinal`` (`low` to `high`).
    The kind is the declared outcome's ``type``.

    Effects may vary: `by` names a categorical trait, `effects_by` the extra effect of each level (SDs of the
    underlying score); `size_slope` is the extra effect a SD of log site size.

    `effect_of` says what has the effect: the ``assignment`` (whoever attends), each ``session`` attended (`d` is what one adds to the
    underlying score of everybody who attends it, as a d), or ``compliance`` (`d` is the effect in those who attend at least the
    attendance's `complier` sessions, and others have none). The effect of assignment then follows, and the truth states both.
    """

    name: str
    d: Annotated[float, Field(gt=-1.9, lt=1.9)] = 0.0
    icc: Share = 0.05
    pair_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    baseline_correlation: Share = 0.5
    mean: float = 0.0
    sd: Positive = 1.0
    low: float | None = None
    high: float | None = None
    decimals: Annotated[int, Field(ge=0, le=10)] = 4
    items: Annotated[int, Field(ge=0, le=60)] = 0
    item_correlation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    item_missing: Share = 0.0
    missing: Share = 0.0
    by: str | None = None
    effects_by: tuple[float, ...] | None = None
    size_slope: float = 0.0
    icc_subcluster: Share = 0.0
    effect_of: Literal["assignment", "session", "compliance"] = "assignment"

    @model_validator(mode="after")
    def _consistent(self) -> PlantedOutcome:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"{self.name!r}: low = {self.low:g} is not below high = {self.high:g}")
        if self.items and (self.low is None or self.high is None):
            raise ValueError(f"{self.name!r} has rating items, which need low and high")
        if self.item_missing and not self.items:
            raise ValueError(f"{self.name!r} has item_missing but no items")
        if (self.by is None) != (self.effects_by is None):
            raise ValueError(f"{self.name!r}: by and effects_by belong together")
        if self.icc + self.icc_subcluster >= 1.0:
            raise ValueError(f"{self.name!r}: icc and icc_subcluster add up to 1 or more, which leaves nothing for people")
        return self


# --- losses, attendance, limits -----------------------------------------------------------------------------


class Driver(Block):
    """What makes a loss more or less likely: `slope` is the change in log odds of the event a SD of `column`.

    `column` is a baseline outcome as observed (a missing value counts as the mean: missing at random), a
    categorical trait with `level`, ``arm`` (intervention against control), or an outcome at follow-up, which makes the
    loss *not* at random. `within` limits the driver to one arm.
    """

    column: str
    slope: float
    level: str | None = None
    within: Literal["both", "intervention", "control"] = "both"


class Loss(Block):
    """One event: its share by role among those still in, what drives it, and how sites differ (SD of log odds)."""

    rate: dict[str, Rate]
    drivers: tuple[Driver, ...] = ()
    site_sd: Annotated[float, Field(ge=0.0)] = 0.0


class Losses(Block):
    """Who is lost: `baseline` (survey done), `left` (left before follow-up), `follow_up` (survey done by those still there).

    `sites` is the share of randomised sites in which nobody is followed up. A scale of rating items is scored when
    at least `answered` of its items are.
    """

    baseline: Loss | None = None
    left: Loss | None = None
    follow_up: Loss | None = None
    sites: Share = 0.0
    answered: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5


class AttendanceDriver(Block):
    """What makes people come: `slope` SDs of the propensity a SD of the underlying score of the baseline outcome `column`."""

    column: str
    slope: Annotated[float, Field(gt=-1.0, lt=1.0)]


class Attendance(Block):
    """Sessions attended in the intervention arm: shares by role, one a session of the design's flow.

    A person's sessions are correlated through a normal propensity (`person_correlation`), part of which the
    site's people share (`site_correlation`). Who comes may depend on how people were at baseline (`drivers`), so that those who
    come differ from those who do not, whatever the intervention does. Who attends at least `complier` sessions complies. Nobody in
    the control arm attends.
    """

    rate: dict[str, tuple[Rate, ...]]
    person_correlation: Share = 0.0
    site_correlation: Share = 0.0
    complier: Annotated[int, Field(ge=1)] = 1
    drivers: tuple[AttendanceDriver, ...] = ()

    @model_validator(mode="after")
    def _adds_up(self) -> Attendance:
        if sum(abs(d.slope) for d in self.drivers) >= 1.0:
            raise ValueError("the slopes of drivers add up to 1 or more, which leaves nothing to chance")
        if self.person_correlation + self.site_correlation >= 1.0:
            raise ValueError("person_correlation and site_correlation add up to 1 or more")
        return self


class Limits(Block):
    """What `check` accepts.

    Without figures the limits are exact: for a share (coverage, size) the two-sided binomial limits at
    `false_alarm` a figure, for a bias the matching normal limits of its Monte Carlo error. `coverage` and `size` replace
    the nominal true share; `bias` adds a tolerance (in d) within which a bias is of no interest; `power` is
    the least power accepted, by outcome; `failed` and `singular` are the largest shares of analyses.
    """

    false_alarm: Annotated[float, Field(gt=0.0, lt=0.5)] = 1e-6
    coverage: tuple[Rate, Rate] | None = None
    size: tuple[Rate, Rate] | None = None
    bias: Annotated[float, Field(ge=0.0)] = 0.0
    power: dict[str, Rate] = Field(default_factory=dict)
    failed: Rate = 0.0
    singular: Rate = 1.0

    @model_validator(mode="after")
    def _in_order(self) -> Limits:
        for name in ("coverage", "size"):
            pair = getattr(self, name)
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name} = [{pair[0]:g}, {pair[1]:g}]: the lower limit comes first")
        return self


# --- the whole ----------------------------------------------------------------------------------------------


class Scenario(Block):
    """A trial to be simulated, frozen; written as TOML.

    Attributes
    ----------
    title : str
        What it is.
    design : TrialDesign
        The declared trial. In TOML, the path of a design file relative to the scenario's, or a table; left out,
        it is put together from the scenario's outcomes and traits, whose entries may then say what a design's would (``type``,
        ``direction``, ``rank``, ``has_baseline``, ...).
    sites, people, subclusters, traits, outcomes, losses, attendance, limits
        See `Sites`, `People`, `Subclusters`, `Trait`, `PlantedOutcome`, `Losses`, `Attendance`, `Limits`.
    outcome_correlation : float
        Correlation of two outcomes of the same person, at every level, in the better direction of each.

    Examples
    --------
    >>> scenario = Scenario.from_text('''
    ... title = "two arms, 12 clinics of 10"
    ... [sites]
    ... groups = [{name = "clinic", recruited = 12}]
    ... [[people]]
    ... role = "patient"
    ... per_site = 10
    ... [[outcomes]]
    ... name = "mood"
    ... d = 0.3
    ... icc = 0.1
    ... ''')
    >>> scenario.design.outcomes[0].baseline
    'mood_0'
    >>> Scenario.from_text('[sitse]')
    Traceback (most recent call last):
        ...
    trialkit.door.DesignError: the scenario, sitse: no such key. Did you mean 'sites'?
    """

    title: str = "a simulated trial"
    design: TrialDesign
    sites: Sites
    people: Annotated[tuple[People, ...], Field(min_length=1)]
    subclusters: Subclusters | None = None
    traits: tuple[Trait, ...] = ()
    outcomes: Annotated[tuple[PlantedOutcome, ...], Field(min_length=1)]
    outcome_correlation: Share = 0.0
    losses: Losses = Losses()
    attendance: Attendance | None = None
    limits: Limits = Limits()

    def __init__(self, **data: Any) -> None:
        if "design" not in data:
            data["design"], outcomes = _design_from(data)
            if "outcomes" in data:
                data["outcomes"] = outcomes
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise DesignError(_explain(error)) from None

    @model_validator(mode="after")
    def _names_exist(self) -> Scenario:
        roles = [p.role for p in self.people]
        _once(roles, "people: the role")
        _once([g.name for g in self.sites.groups], "sites.groups: the name")
        _once([o.name for o in self.outcomes], "outcomes: the name")
        _once([t.name for t in self.traits], "traits: the name")
        _once([p.prefix for p in self.people], "people: the prefix")

        declared = {o.name: o for o in self.design.outcomes}
        planted = {o.name: o for o in self.outcomes}
        for name in planted:
            if name not in declared:
                raise ValueError(f"outcomes: {name!r} is not an outcome of the design.{_near(name, declared)}")
        for name, outcome in declared.items():
            if name not in planted:
                raise ValueError(f"outcomes: the design's outcome {name!r} has no entry, so it cannot be made.{_near(name, planted)}")
            if outcome.rater is not None and outcome.rater not in roles:
                raise ValueError(f"people: nobody has the role {outcome.rater!r}, who rates {name!r}.{_near(outcome.rater, roles)}")
            if outcome.items and len(outcome.items) != planted[name].items:
                raise ValueError(f"outcomes: {name!r} has {planted[name].items} items here and {len(outcome.items)} in the design")
            self._kind_fits(outcome.type, planted[name])
        if len(roles) > 1 and self.design.columns.rater is None:
            raise ValueError("people: there is more than one role, but the design's [columns] names no rater column")

        traits = {t.name: t for t in self.traits}
        for covariate in self.design.covariates:
            if covariate.name not in traits:
                raise ValueError(f"traits: the design's covariate {covariate.name!r} has no entry.{_near(covariate.name, traits)}")
        for trait in self.traits:
            _roles_known(trait.roles, roles, f"traits: {trait.name!r}")
        for group in self.sites.groups[1:]:
            if set(group.values) != set(self.sites.groups[0].values):
                raise ValueError(f"sites.groups: {group.name!r} and {self.sites.groups[0].name!r} set different columns")
        self._losses_fit(roles, traits)
        self._attendance_fits(roles)
        self._effects_fit(traits)
        self._subclusters_fit()
        for name in self.limits.power:
            if name not in planted:
                raise ValueError(f"limits.power: there is no outcome {name!r}.{_near(name, planted)}")
        _once(self._people_columns(), "people's table: the column")
        groups = [self.design.columns.site, "status", self.sites.group_column, *self.sites.groups[0].values]
        _once([*groups, *(c.name for c in self.sites.columns)], "sites' table: the column")
        self._sizes_fit()
        return self

    def _people_columns(self) -> list[str]:
        """Every column of the people's table."""
        c, flow = self.design.columns, self.design.flow
        out = [c.person, c.site, c.arm, *(x for x in (c.pair, c.subcluster) if x)]
        out += [self.rater_column] if len(self.people) > 1 or c.rater else []
        if flow is not None:
            out += [x for x in (flow.baseline, flow.left, flow.follow_up) if x] + list(flow.sessions)
        if any(o.effect_of != "assignment" for o in self.outcomes):
            out += ["sessions_attended", "complied"]
        out += [t.name for t in self.traits]
        for o in self.design.outcomes:
            out += [o.name, *([o.baseline] if o.baseline else []), *o.items]
        return out

    @staticmethod
    def _kind_fits(kind: str, planted: PlantedOutcome) -> None:
        name = planted.name
        if kind != "continuous" and planted.items:
            raise ValueError(f"outcomes: {name!r} is {kind}, so it has no items")
        if kind == "count" and not (planted.mean > 0 and planted.sd**2 > planted.mean):
            raise ValueError(f"outcomes: the count {name!r} needs mean > 0 and sd\N{SUPERSCRIPT TWO} > mean (more variable than Poisson)")
        if kind == "binary" and not 0 < planted.mean < 1:
            raise ValueError(f"outcomes: mean is the share of ones of the binary {name!r}, so it lies between 0 and 1")
        if kind == "ordinal" and (planted.low is None or planted.high is None):
            raise ValueError(f"outcomes: the ordinal {name!r} needs low and high")

    def _losses_fit(self, roles: list[str], traits: dict[str, Trait]) -> None:
        before = {o.baseline for o in self.design.outcomes if o.baseline}
        after = {o.name for o in self.design.outcomes}
        for event in ("baseline", "left", "follow_up"):
            loss: Loss | None = getattr(self.losses, event)
            if loss is None:
                continue
            where = f"losses.{event}"
            if set(loss.rate) != set(roles):
                _roles_known(loss.rate, roles, where)
                raise ValueError(f"{where}: rate must name every role ({', '.join(roles)})")
            for driver in loss.drivers:
                if driver.column in traits:
                    levels = traits[driver.column].levels
                    if levels is None or driver.level not in levels:
                        raise ValueError(f"{where}: the driver {driver.column!r} needs level, one of {', '.join(levels or ('none',))}")
                elif driver.column not in before | after | {"arm"}:
                    known = sorted(before | after | {"arm"} | set(traits))
                    raise ValueError(f"{where}: the driver {driver.column!r} is not a column.{_near(driver.column, known)}")
                if event == "baseline" and driver.column not in traits:
                    raise ValueError(f"{where}: {driver.column!r} is not known when the baseline survey is offered; use a trait")

    def _attendance_fits(self, roles: list[str]) -> None:
        if self.attendance is None:
            for o in self.outcomes:
                if o.effect_of != "assignment":
                    raise ValueError(f"outcomes: {o.name!r} has effect_of = {o.effect_of!r}, but there is no [attendance]")
            return
        sessions = self.design.flow.sessions if self.design.flow else ()
        if not sessions:
            raise ValueError("attendance: the design's [flow] names no sessions")
        _roles_known(self.attendance.rate, roles, "attendance")
        for role, rates in self.attendance.rate.items():
            if len(rates) != len(sessions):
                raise ValueError(f"attendance: {len(rates)} shares for role {role!r}, but the design has {len(sessions)} sessions")
        if self.attendance.complier > len(sessions):
            raise ValueError(f"attendance: complier = {self.attendance.complier}, but the design has {len(sessions)} sessions")
        before = [o.baseline for o in self.design.outcomes if o.baseline]
        for driver in self.attendance.drivers:
            if driver.column not in before:
                near = _near(driver.column, before)
                raise ValueError(f"attendance: the driver {driver.column!r} is not the baseline of an outcome.{near}")
        _once([d.column for d in self.attendance.drivers], "attendance: the driver")
        for o in self.outcomes:
            asked = self.roles_of(o.name)
            if o.effect_of != "assignment" and not set(asked) & set(self.attendance.rate):
                raise ValueError(f"outcomes: {o.name!r} has effect_of = {o.effect_of!r}, but nobody who answers it attends")

    def _subclusters_fit(self) -> None:
        column = self.design.columns.subcluster
        if self.subclusters is not None and column is None:
            raise ValueError('subclusters: the design\'s [columns] names no column for them; say subcluster = "team", or the like')
        if self.subclusters is None:
            if column is not None:
                raise ValueError(f"subclusters: the design's [columns] has subcluster = {column!r}, but nothing says how they are made")
            for o in self.outcomes:
                if o.icc_subcluster:
                    raise ValueError(f"outcomes: {o.name!r} has icc_subcluster, but there are no [subclusters]")

    def _effects_fit(self, traits: dict[str, Trait]) -> None:
        for outcome in self.outcomes:
            if outcome.by is None:
                continue
            levels = traits[outcome.by].levels if outcome.by in traits else None
            if levels is None or outcome.effects_by is None or len(levels) != len(outcome.effects_by):
                raise ValueError(f"outcomes: {outcome.name!r} has effects_by, which needs one figure a level of a categorical trait")
        spread = sum(trait_variance(t, role) for t in self.traits for role in t.roles[:1])
        most = max((o.icc + o.icc_subcluster for o in self.outcomes), default=0.0)
        if spread >= 1.0 - most:
            raise ValueError(
                f"traits: their effects have variance {spread:.3g}, which leaves nothing for people beside the ICC of {most:g}"
            )

    def _sizes_fit(self) -> None:
        lognormal = {c.name for c in self.sites.columns if c.distribution == "lognormal"}
        for people in self.people:
            if people.grows_with is not None and people.grows_with not in lognormal:
                raise ValueError(f"people: {people.grows_with!r} is not a log-normal site column.{_near(people.grows_with, lognormal)}")
            if people.total is not None and people.total < people.minimum * self.sites.randomised:
                raise ValueError(
                    f"people: {people.total} of role {people.role!r} cannot give each of {self.sites.randomised} sites {people.minimum}"
                )
        if self.sites.randomised < 2:
            raise ValueError("sites: fewer than two are left at the draw")
        if self.design.allocation is not None:
            made = {self.sites.group_column, *(c.name for c in self.sites.columns), *self.sites.groups[0].values}
            for criterion in self.design.allocation.criteria:
                if criterion.column not in made:
                    raise ValueError(
                        f"sites: the design matches on {criterion.column!r}, which no site column makes.{_near(criterion.column, made)}"
                    )
        elif any(o.pair_share for o in self.outcomes):
            raise ValueError("outcomes: pair_share is given, but the design has no [allocation], so there are no pairs")

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Scenario:
        """Read a scenario from a TOML file; a `design` that is a path is read from there.

        Raises
        ------
        DesignError
            The file is not TOML, has a key that does not exist, or contradicts itself or its design.
        """
        data = read_toml(path, error=DesignError)
        if isinstance(data.get("design"), str):
            data["design"] = TrialDesign.from_toml(Path(path).parent / data["design"])
        try:
            return cls(**data)
        except DesignError as error:
            said = str(error).replace("the scenario", str(path), 1)
            raise DesignError(said if str(path) in said else f"{path}, {said}") from None

    @classmethod
    def from_text(cls, text: str) -> Scenario:
        """Read a scenario from TOML text; a `design` must then be a table."""
        try:
            return cls(**tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise DesignError(f"the scenario is not TOML: {error}.") from None

    @classmethod
    def from_pilot(
        cls, people: pd.DataFrame, design: TrialDesign, *, d: Mapping[str, float] | float = 0.0, sites: int | None = None
    ) -> Scenario:
        """Learn a scenario from a table of people: a pilot, or an earlier trial.

        Parameters
        ----------
        people : DataFrame
            One row a person, with the columns the design names.
        design : TrialDesign
            The trial to be planned. Its [allocation] is left out: a table of people has no site columns to match on.
        d : mapping of outcome to float, or float
            Effects to plant; 0 where nothing is said.
        sites : int, optional
            Sites of the trial to be simulated; by default as many as the pilot had.

        Returns
        -------
        Scenario
            Sizes and their spread, shares of covariates and their gaps, means, SDs, ICCs (analysis of variance, or REML where there is a
            third level; none below 0), correlations with the baseline, losses by role; scales from the reference arm where there are
            arms. ICCs and correlations of ratings, counts and categories are turned into those of the underlying score that show them.
            Drivers of losses are not learnt. Write it with ``to_toml`` and correct it by hand.

        Raises
        ------
        InputError
            A column is missing, there is one site, or an outcome has too few values or text.
        """
        from trialkit.simulation.pilot import learn

        return learn(people, design, d=d, sites=sites)

    def to_toml(self) -> str:
        """The scenario with its design as one TOML text that reads back to an equal scenario."""
        return dump_toml(self.model_dump(mode="json", exclude_none=True, exclude_unset=True))

    def but(self, **changes: Any) -> Scenario:
        """A copy with other top-level parts, proved again.

        Examples
        --------
        >>> # scenario.but(outcome_correlation=0.2)
        """
        parts = {name: getattr(self, name) for name in self.model_fields_set | {"design"}}
        return type(self)(**{**parts, **changes})

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the scenario's canonical JSON, its design included; what is left at its default is left out.

        A key added to scenarios or designs later, at its default, therefore moves no digest.
        """
        return sha256_bytes(self.model_dump_json(exclude_defaults=True).encode())

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scenario) and self.digest == other.digest

    @property
    def rater_column(self) -> str:
        """The column that holds each person's role."""
        return self.design.columns.rater or "role"

    def roles_of(self, outcome: str) -> tuple[str, ...]:
        """The roles that answer an outcome."""
        rater = next(o.rater for o in self.design.outcomes if o.name == outcome)
        return tuple(p.role for p in self.people) if rater is None else (rater,)


def _design_from(data: dict[str, Any]) -> tuple[TrialDesign, Any]:
    """The plainest design a scenario implies - its outcomes, its traits as covariates - and the outcomes without what belongs to it."""
    outcomes, left = [], data.get("outcomes", ())
    if isinstance(left, list | tuple):
        mine = set(Outcome.model_fields) - set(PlantedOutcome.model_fields) - {"items", "planted"}
        outcomes = [{k: v for k, v in o.items() if k == "name" or k in mine} for o in left if isinstance(o, dict) and "name" in o]
        left = [{k: v for k, v in o.items() if k not in mine} if isinstance(o, dict) and "name" in o else o for o in left]
    traits = [t for t in data.get("traits", ()) if isinstance(t, dict) and "name" in t]
    covariates = [
        {"name": t["name"], "type": "categorical", "levels": t["levels"]} if t.get("levels") else {"name": t["name"]} for t in traits
    ]
    several = isinstance(data.get("people"), list | tuple) and len(data["people"]) > 1
    columns = {"rater": "role"} if several else {}
    if data.get("subclusters"):
        columns["subcluster"] = "subcluster"
    flow = _flow_from(data.get("attendance"))
    # without outcomes the scenario's own message is the one to show
    return TrialDesign(outcomes=outcomes or [{"name": "outcome"}], covariates=covariates, columns=columns, **flow), left


def _flow_from(attendance: Any) -> dict[str, Any]:
    """Session columns session_1, session_2, ... for as many shares as the first role has."""
    rate = attendance.get("rate") if isinstance(attendance, dict) else None
    first = next(iter(rate.values()), ()) if isinstance(rate, dict) else ()
    return {"flow": {"sessions": [f"session_{k + 1}" for k in range(len(first))]}} if isinstance(first, list | tuple) and first else {}


def _explain(error: ValidationError) -> str:
    return explain_validation(error, "the scenario", Scenario).replace("?.", "?")


def trait_variance(trait: Trait, role: str) -> float:
    """Variance that a trait's effects give the outcomes of one role."""
    if trait.effects is None or role not in trait.shares:
        return 0.0
    shares = trait.shares[role]
    mean = math.fsum(s * e for s, e in zip(shares, trait.effects, strict=True))
    return math.fsum(s * (e - mean) ** 2 for s, e in zip(shares, trait.effects, strict=True))


def _near(name: str, known: Any) -> str:
    near = nearest_word(name, known)
    return f" Did you mean {near!r}?" if near else ""


def _once(names: list[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} {name!r} stands twice")


def _roles_known(named: Any, roles: list[str], where: str) -> None:
    for role in named:
        if role not in roles:
            raise ValueError(f"{where}: there is no role {role!r}.{_near(role, roles)}")
