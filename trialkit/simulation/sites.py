"""The recruited sites: their kinds, sizes and columns, who drops out before the draw, and how the rest are randomised."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trialkit.door import InputError
from trialkit.simulation.scenario import People, Scenario, SiteColumn
from trialkit.simulation.streams import Floats, Ints, Stream, hexadecimal

if TYPE_CHECKING:
    from trialkit.allocation import Allocation
    from trialkit.allocation.plans import Plan

DROPPED = "dropped out before the draw"
RANDOMISED = "randomised"


@dataclass(frozen=True)
class SiteList:
    """Sites before the draw.

    Attributes
    ----------
    frame : DataFrame
        One row a recruited site: site, status, the group column, and the scenario's columns.
    sizes : (n_randomised, n_roles) int
        Eligible people, rows as the randomised sites of `frame`, columns as the scenario's people.
    """

    frame: pd.DataFrame
    sizes: Ints

    @cached_property
    def randomised(self) -> pd.DataFrame:
        """The sites still there at the draw."""
        return self.frame.loc[self.frame["status"] == RANDOMISED].reset_index(drop=True)

    @cached_property
    def ids(self) -> list[str]:
        """Their ids."""
        return [str(s) for s in self.randomised[self.frame.columns[0]].tolist()]


@dataclass(frozen=True)
class Halves:
    """Half of the sites at random (the odd one to the reference arm), as a scheme that the randomisation test takes."""

    sites: tuple[str, ...]

    @property
    def n_assignments(self) -> int:
        """Ways to choose half of the sites."""
        return math.comb(len(self.sites), len(self.sites) // 2)

    def assignments(self, limit: int = 100_000) -> Ints:
        """All of them, (n_assignments, n_sites), 1 = intervention."""
        if self.n_assignments > limit:
            raise InputError(f"{self.n_assignments:,} allocations are more than limit={limit:,}. Draw some by sample().")
        chosen = np.array(list(itertools.combinations(range(len(self.sites)), len(self.sites) // 2)))
        codes = np.zeros((len(chosen), len(self.sites)), dtype=np.int64)
        np.put_along_axis(codes, chosen, 1, axis=1)
        return codes

    def sample(self, n: int, *, seed: int) -> Ints:
        """`n` draws, (n, n_sites)."""
        u = Stream(seed, "halves").uniform(n, len(self.sites))
        return (u.argsort(axis=1).argsort(axis=1) < len(self.sites) // 2).astype(np.int64)


@dataclass(frozen=True)
class Randomisation:
    """How the sites of a list are randomised: the plan where the design says how, else half of the sites at random.

    Attributes
    ----------
    pair : (n_randomised,) int
        The pair of each site, 0..n_pairs-1; singles follow with a number of their own. Without pairs, all its own.
    labels : (n_randomised,) array of str or None
        Pair labels as in the allocation's table.
    """

    plan: Plan | None
    ids: tuple[str, ...]
    pair: Ints
    labels: tuple[str | None, ...]

    @property
    def scheme(self) -> Plan | Halves:
        """What could have been drawn, for a randomisation test."""
        return Halves(self.ids) if self.plan is None else self.plan

    @cached_property
    def _position(self) -> Ints:
        """Where each site of `ids` stands among the plan's sites."""
        assert self.plan is not None
        where = {s: k for k, s in enumerate(self.plan.sites)}
        return np.array([where[s] for s in self.ids])

    def arms(self, seed: int) -> Ints:
        """0/1 arm codes of `ids` under a trial's seed, (n_randomised,)."""
        if self.plan is None:
            codes = np.zeros(len(self.ids), dtype=np.int64)
            codes[Stream(seed, "allocation").order(len(self.ids))[: len(self.ids) // 2]] = 1
            return codes
        drawn, _ = self.plan.allocate(draw_seed(seed).encode())
        return drawn[self._position].astype(np.int64)

    def allocation(self, seed: int) -> Allocation | None:
        """The allocation as the allocation room gives it, with every hash; None without a plan."""
        if self.plan is None:
            return None
        drawn = self.plan.draw(seed=draw_seed(seed), seed_source=f"simulated: derived from the trial's seed {seed}")
        # a simulated draw has no time of day: the same seed must give the same bytes
        return replace(drawn, drawn_at="1970-01-01T00:00:00Z")


def draw_seed(seed: int) -> str:
    """The seed of the draw, 32 hex digits, that a trial's seed stands for."""
    return hexadecimal(seed, "draw")


def recruit(scenario: Scenario, seed: int) -> SiteList:
    """The site list under a seed."""
    sites = scenario.sites
    n = sites.recruited
    group = np.repeat(np.arange(len(sites.groups)), [g.recruited for g in sites.groups])
    lost = np.zeros(n, dtype=bool)
    start = 0
    for g in sites.groups:
        lost[start + Stream(seed, "sites", "lost", g.name).order(g.recruited)[: g.lost]] = True
        start += g.recruited
    mixed = Stream(seed, "sites", "order").order(n)  # ids must not tell the kind of site
    group, lost = group[mixed], lost[mixed]

    values: dict[str, Any] = {}
    logs: dict[str, Floats] = {}
    for column in sites.columns:
        if column.distribution != "people":
            values[column.name], logs[column.name] = _column(column, group, [g.name for g in sites.groups], seed)

    stay = np.flatnonzero(~lost)
    weights = {p.role: _weights(p, n, logs, seed) for p in scenario.people}
    sizes = np.column_stack([_sizes(p, weights[p.role][stay], seed) for p in scenario.people])

    staff = np.zeros(n, dtype=np.int64)
    staff[stay] = sizes.sum(axis=1)
    gone = np.flatnonzero(lost)
    for k, p in enumerate(scenario.people):
        # a lost site has no people in the trial, but it had a number when it was recruited
        expected = weights[p.role][gone] / weights[p.role][stay].mean() * sizes[:, k].mean()
        staff[gone] += np.maximum(np.rint(expected), p.minimum).astype(np.int64)

    width = max(2, len(str(n)))
    frame: dict[str, Any] = {
        scenario.design.columns.site: pd.array([f"{sites.prefix}{k + 1:0{width}d}" for k in range(n)], dtype="str"),
        "status": pd.array([DROPPED if x else RANDOMISED for x in lost], dtype="str"),
        sites.group_column: pd.array([sites.groups[g].name for g in group], dtype="str"),
    }
    for name in sites.groups[0].values:
        frame[name] = pd.array([sites.groups[g].values[name] for g in group], dtype="str")
    for column in sites.columns:
        frame[column.name] = staff if column.distribution == "people" else values[column.name]
    return SiteList(frame=pd.DataFrame(frame), sizes=sizes)


def _column(column: SiteColumn, group: Ints, groups: list[str], seed: int) -> tuple[Any, Floats]:
    """Values of one site column, and their standard-normal scores (before rounding)."""
    stream = Stream(seed, "sites", "column", column.name)
    if column.distribution == "yes/no":
        assert column.share is not None
        u = stream.uniform(len(group))
        return pd.array(np.where(u < column.share, "yes", "no"), dtype="str"), u
    z = stream.normal(len(group))
    if column.distribution == "lognormal":
        assert column.median is not None and column.sigma is not None
        medians = np.array([column.medians.get(g, column.median) for g in groups])[group]
        raw = medians * np.exp(column.sigma * z)
        stepped = np.maximum(np.rint(raw / column.step), 1.0) * column.step
    else:
        assert column.mean is not None and column.sd is not None
        stepped = np.rint((column.mean + column.sd * z) / column.step) * column.step
    whole = float(column.step).is_integer()
    return (stepped.astype(np.int64) if whole else stepped), z


def _weights(people: People, n: int, logs: dict[str, Floats], seed: int) -> Floats:
    """Relative expected sizes of all recruited sites, log-normal with the asked coefficient of variation."""
    sigma = np.sqrt(np.log1p(people.cv**2))
    z = Stream(seed, "sites", "size", people.role).normal(n)
    if people.grows_with is not None:
        z = people.growth * logs[people.grows_with] + np.sqrt(1.0 - people.growth**2) * z
    weights: Floats = np.exp(sigma * z)
    return weights


def _sizes(people: People, weights: Floats, seed: int) -> Ints:
    """Eligible people at each randomised site."""
    n = len(weights)
    if people.per_site is not None:
        sizes: Ints = np.maximum(np.rint(people.per_site * weights / np.exp(np.log1p(people.cv**2) / 2.0)), people.minimum).astype(np.int64)
        return sizes
    assert people.total is not None
    rest = people.total - people.minimum * n
    if people.cv == 0.0:
        # as equal as can be: the remainder goes to sites drawn at random
        extra = np.full(n, rest // n)
        extra[Stream(seed, "sites", "places", people.role).order(n)[: rest % n]] += 1
    else:
        ladder = np.cumsum(weights) / weights.sum()
        places = np.searchsorted(ladder, Stream(seed, "sites", "places", people.role).uniform(rest), side="right")
        extra = np.bincount(np.minimum(places, n - 1), minlength=n)
    return (extra + people.minimum).astype(np.int64)


def plan_for(scenario: Scenario, sites: SiteList) -> Randomisation:
    """How the design randomises these sites."""
    ids = tuple(sites.ids)
    rule = scenario.design.allocation
    if rule is None:
        return Randomisation(plan=None, ids=ids, pair=np.arange(len(ids)), labels=(None,) * len(ids))
    from trialkit.allocation.criteria import exact, exact_if_possible, nearest
    from trialkit.allocation.matching import match_pairs
    from trialkit.allocation.plans import within_pairs

    made: dict[str, Any] = {"exact": exact, "exact_if_possible": exact_if_possible}
    criteria = [nearest(c.column, caliper=c.caliper) if c.kind == "nearest" else made[c.kind](c.column) for c in rule.criteria]
    table = sites.randomised.rename(columns={scenario.design.columns.site: rule.id})
    pairing = match_pairs(
        table[[rule.id, *dict.fromkeys(c.column for c in rule.criteria)]],
        id=rule.id,
        criteria=criteria,
        odd=rule.odd,
        missing=rule.missing,
        forbidden=list(rule.forbidden),
        required=list(rule.required),
        method=rule.method,
    )
    plan = within_pairs(pairing, arms=scenario.design.arms.labels)
    labels = dict(zip(pairing.frame[rule.id].tolist(), pairing.frame["pair"].tolist(), strict=True))
    named = [labels[s] if isinstance(labels[s], str) else None for s in ids]
    numbers = {label: k for k, label in enumerate(sorted({x for x in named if x is not None}))}
    singles = iter(range(len(numbers), len(ids)))
    pair = np.array([numbers[x] if x is not None else next(singles) for x in named])
    return Randomisation(plan=plan, ids=ids, pair=pair, labels=tuple(named))
