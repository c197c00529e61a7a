"""`redesign`: the same check over a grid of designs, to see what the planned analysis would do in each."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from trialkit.door import InputError, unknown_word
from trialkit.results import Provenance, Result
from trialkit.simulation.analyses import Analysis
from trialkit.simulation.operating import CheckResult, check
from trialkit.simulation.scenario import Loss, Scenario

KNOBS: Mapping[str, str] = {
    "sites": "sites randomised, kinds in their present proportions",
    "people": "people at each site, as a multiple of now",
    "icc": "ICC of every outcome",
    "d": "planted effect of every outcome",
    "pair_share": "share of the site variance that a pair's sites have in common",
    "baseline_correlation": "correlation of every outcome with its baseline",
    "follow_up": "share of those still there who are followed up",
    "sites_lost": "share of randomised sites nobody of which is followed up",
}


@dataclass(frozen=True)
class RedesignResult(Result):
    """One row a cell of the grid, analysis and outcome: the knobs, then the figures of `check`.

    Attributes
    ----------
    frame : DataFrame
    results : tuple of CheckResult
        In the order of the grid.
    """

    frame: pd.DataFrame
    results: tuple[CheckResult, ...] = field(repr=False)
    knobs: tuple[str, ...]
    provenance: Provenance = field(repr=False)
    title: str = "Redesign"

    formats: ClassVar[dict[str, str]] = CheckResult.formats

    @property
    def notes(self) -> tuple[str, ...]:
        """What the knobs mean."""
        return tuple(f"{name}: {KNOBS[name]}." for name in self.knobs)

    def to_parquet(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the frame as Parquet, whole or not at all."""
        import io

        from trialkit.door import write_whole

        data = io.BytesIO()
        self.frame.to_parquet(data, index=False)
        write_whole(path, data.getvalue(), force=force)


def redesign(
    scenario: Scenario,
    over: Mapping[str, Sequence[float]],
    *,
    trials: int = 200,
    seed: int,
    jobs: int | None = 1,
    analyses: Sequence[str | Analysis] | None = None,
    imputations: int | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> RedesignResult:
    """Check every combination of some changes to a scenario.

    Parameters
    ----------
    scenario : Scenario
    over : mapping of knob to values
        ``sites``, ``people``, ``icc``, ``d``, ``pair_share``, ``baseline_correlation``, ``follow_up``, ``sites_lost``.
    trials, seed, jobs, analyses, imputations, progress
        As for `check`; every cell has the same seed, so that cells differ by their design and less by chance.
    store : path, optional
        A folder in which finished work is kept, so that a grid that was broken off goes on where it stopped.

    Returns
    -------
    RedesignResult

    Raises
    ------
    InputError
        An unknown knob, no values.
    DesignError
        A value the scenario cannot take.

    Examples
    --------
    >>> scenario = Scenario.from_text('''
    ... sites = {groups = [{name = "clinic", recruited = 20}]}
    ... people = [{role = "patient", per_site = 6}]
    ... outcomes = [{name = "mood", d = 0.4}]
    ... ''')
    >>> found = redesign(scenario, {"sites": [20, 40]}, trials=20, seed=1)
    >>> found.frame[["sites", "outcome", "trials"]].to_dict("records")
    [{'sites': 20, 'outcome': 'mood', 'trials': 20}, {'sites': 40, 'outcome': 'mood', 'trials': 20}]
    """
    if not over:
        raise InputError(f"over names nothing to change. Known: {', '.join(KNOBS)}.")
    for name, values in over.items():
        if name not in KNOBS:
            raise InputError(unknown_word(str(name), tuple(KNOBS), what="knob"))
        if not len(list(values)):
            raise InputError(f"over[{name!r}] needs a list of values.")
    names = tuple(over)
    cells = [dict(zip(names, values, strict=True)) for values in itertools.product(*over.values())]
    results, frames = [], []
    for cell in cells:
        changed = scenario
        for name, value in cell.items():
            changed = turned(changed, name, value)
        found = check(
            changed,
            trials=trials,
            seed=seed,
            jobs=jobs,
            analyses=analyses,
            imputations=imputations,
            progress=progress,
            store=None if store is None else Path(store),
        )
        results.append(found)
        frame = found.frame.copy()
        for position, (name, value) in enumerate(cell.items()):
            frame.insert(position, name, value)
        frames.append(frame)
    settings = {"trials": trials, "over": {k: list(v) for k, v in over.items()}}
    return RedesignResult(
        frame=pd.concat(frames, ignore_index=True),
        results=tuple(results),
        knobs=names,
        provenance=Provenance.now(seed=seed, inputs={"scenario": scenario.digest}, settings=settings),
        title=f"{len(cells)} redesigns of: {scenario.title} ({trials:,} trials each, seed {seed})",
    )


def turned(scenario: Scenario, knob: str, value: float) -> Scenario:
    """The scenario with one knob at a value."""
    if knob == "sites":
        return _with_sites(scenario, int(value))
    if knob == "people":
        people = []
        for p in scenario.people:
            changes: dict[str, Any] = {"minimum": min(p.minimum, max(1, round(p.minimum * value)))}
            if p.total is not None:
                changes["total"] = max(round(p.total * value), changes["minimum"] * scenario.sites.randomised)
            if p.per_site is not None:
                changes["per_site"] = p.per_site * value
            people.append(p.model_copy(update=changes))
        return scenario.but(people=tuple(people))
    if knob in ("icc", "d", "pair_share", "baseline_correlation"):
        # proved again: a copy alone would take any value
        outcomes = tuple(type(o)(**{**o.model_dump(), knob: value}) for o in scenario.outcomes)
        return scenario.but(outcomes=outcomes)
    losses = scenario.losses
    if knob == "sites_lost":
        return scenario.but(losses=type(losses)(**{**_parts(losses), "sites": value}))
    rate = {p.role: value for p in scenario.people}
    follow_up = losses.follow_up.model_copy(update={"rate": rate}) if losses.follow_up else Loss(rate=rate)
    return scenario.but(losses=type(losses)(**{**_parts(losses), "follow_up": Loss(**{**_parts(follow_up), "rate": rate})}))


def _parts(block: Any) -> dict[str, Any]:
    return {name: getattr(block, name) for name in type(block).model_fields}


def _with_sites(scenario: Scenario, wanted: int) -> Scenario:
    """Another number of randomised sites: kinds by largest remainder, losses before the draw kept, people in proportion."""
    sites = scenario.sites
    now = [g.recruited - g.lost for g in sites.groups]
    if wanted < 2:
        raise InputError(f"sites={wanted}: at least 2 are needed.")
    shares = [n * wanted / sum(now) for n in now]
    left = [int(s) for s in shares]
    for k in sorted(range(len(now)), key=lambda k: (int(shares[k]) - shares[k], k))[: wanted - sum(left)]:
        left[k] += 1
    groups = tuple(g.model_copy(update={"recruited": n + g.lost}) for g, n in zip(sites.groups, left, strict=True) if n + g.lost > 0)
    people = tuple(
        p if p.total is None else p.model_copy(update={"total": max(round(p.total * wanted / sum(now)), p.minimum * wanted)})
        for p in scenario.people
    )
    return scenario.but(sites=sites.model_copy(update={"groups": groups}), people=people)
