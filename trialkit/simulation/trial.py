"""`simulate`: a scenario and a seed become a trial - sites, people, allocation and the truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trialkit.door import InputError, cell_text
from trialkit.simulation import making
from trialkit.simulation.making import Blueprint, Drawn, blueprint
from trialkit.simulation.scenario import Scenario
from trialkit.simulation.sites import draw_seed
from trialkit.simulation.truth import truth

if TYPE_CHECKING:
    from trialkit.allocation import Allocation
    from trialkit.design import TrialDesign


SESSIONS, COMPLIED = "sessions_attended", "complied"


@dataclass(frozen=True, eq=False)
class Trial:
    """A simulated trial.

    Attributes
    ----------
    scenario : Scenario
        What it was made from.
    seed : int
        The seed it was made with: the same scenario and seed give the same bits.
    """

    scenario: Scenario
    seed: int

    @cached_property
    def _plan(self) -> Blueprint:
        return blueprint(self.scenario)

    @cached_property
    def _drawn(self) -> Drawn:
        return making.draw(self._plan, self.seed)

    @property
    def design(self) -> TrialDesign:
        """The declared trial."""
        return self.scenario.design

    # each frame is made once and given out as a lazy copy: whoever changes theirs does not change the trial's

    @cached_property
    def _people(self) -> pd.DataFrame:
        return table(self._plan, self._drawn)

    @cached_property
    def _complete(self) -> pd.DataFrame:
        return table(self._plan, making.draw(self._plan, self.seed, complete=True))

    @cached_property
    def _truth(self) -> pd.DataFrame:
        return truth(self._plan, self._drawn.sites)

    @property
    def sites(self) -> pd.DataFrame:
        """One row a recruited site: id, status (randomised or dropped out before the draw), kind, matching columns."""
        return self._drawn.sites.frame.copy(deep=False)

    @property
    def randomised_sites(self) -> pd.DataFrame:
        """The sites still there at the draw: what `match_pairs` is given."""
        return self._drawn.sites.randomised.copy(deep=False)

    @property
    def people(self) -> pd.DataFrame:
        """One row an eligible person, with everything that was lost missing."""
        return self._people.copy(deep=False)

    @property
    def complete(self) -> pd.DataFrame:
        """The same people with every answer in place; who was lost is still marked."""
        return self._complete.copy(deep=False)

    @property
    def truth(self) -> pd.DataFrame:
        """One row an outcome: the planted effect and what follows from it on the observed scale (see `truth.truth`)."""
        return self._truth.copy(deep=False)

    @cached_property
    def allocation(self) -> Allocation | None:
        """The draw as the allocation room gives it, from `draw_seed`; None when the design has no [allocation]."""
        return self._drawn.randomisation.allocation(self.seed)

    @property
    def draw_seed(self) -> str:
        """The seed of the allocation's draw, 32 hex digits."""
        return draw_seed(self.seed)

    def files(self) -> dict[str, str]:
        """The trial as CSV texts by file name: sites.csv, people.csv, truth.csv, codebook.csv."""
        from trialkit.simulation.codebook import codebook

        frames = {"sites.csv": self.sites, "people.csv": self.people, "truth.csv": self.truth, "codebook.csv": codebook(self.scenario)}
        return {name: csv_text(frame) for name, frame in frames.items()}

    def __repr__(self) -> str:
        arms = self._drawn.arm_of_site
        return (
            f"Trial(seed={self.seed}: {len(self._drawn.sites.frame)} sites recruited, {len(arms)} randomised "
            f"({int(arms.sum())} to {self.design.arms.intervention}), {len(self._drawn.role)} people, "
            f"{int(self._drawn.follow_up.sum())} followed up, {len(self.scenario.outcomes)} outcomes)"
        )


def simulate(scenario: Scenario, seed: int) -> Trial:
    """Simulate one trial.

    Parameters
    ----------
    scenario : Scenario
        From `Scenario.from_toml`.
    seed : int
        A whole number from 0 up. Every part of the trial (sites, people, each outcome, each loss) draws from a
        stream of its own under this seed, so that changing one part of the scenario leaves the others as they were.

    Returns
    -------
    Trial
        ``.sites``, ``.people``, ``.truth``, ``.allocation``; ``.complete`` are the people before anything was lost.

    Raises
    ------
    InputError
        The seed is not a whole number from 0 up.

    Examples
    --------
    >>> scenario = Scenario.from_text('''
    ... sites = {groups = [{name = "clinic", recruited = 6}]}
    ... people = [{role = "patient", per_site = 4}]
    ... outcomes = [{name = "mood", d = 0.3}]
    ... ''')
    >>> trial = simulate(scenario, seed=1)
    >>> len(trial.people), sorted(trial.people["arm"].unique())
    (24, ['control', 'intervention'])
    """
    if not isinstance(scenario, Scenario):
        raise InputError(f"simulate takes a Scenario, not {type(scenario).__name__}. Read one with Scenario.from_toml(path).")
    return Trial(scenario=scenario, seed=checked_seed(seed))


def checked_seed(seed: Any) -> int:
    """A seed is a whole number from 0 up; True is not 1 here."""
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed={seed!r} is not a whole number from 0 up, so the run could not be repeated. Give one, such as seed=1.")
    return int(seed)


# --- frames -------------------------------------------------------------------------------------------------


def table(plan: Blueprint, drawn: Drawn) -> pd.DataFrame:
    """The people's table of a drawn trial."""
    scenario = plan.scenario
    design = scenario.design
    columns: dict[str, Any] = {}
    columns[design.columns.person] = _text(_ids(scenario, drawn))
    columns[design.columns.site] = _text(np.array(drawn.sites.ids, dtype=object)[drawn.site])
    if design.columns.subcluster is not None:
        columns[design.columns.subcluster] = _text(subcluster_labels(scenario, drawn)[drawn.subcluster])
    if design.columns.pair is not None:
        columns[design.columns.pair] = _text(np.array(drawn.randomisation.labels, dtype=object)[drawn.site])
    columns[design.columns.arm] = _text(np.array(design.arms.labels, dtype=object)[drawn.arm])
    if len(scenario.people) > 1 or design.columns.rater is not None:
        columns[scenario.rater_column] = _text(np.array([p.role for p in scenario.people], dtype=object)[drawn.role])
    for name, values in _flow(scenario, drawn).items():
        columns[name] = values
    for trait in scenario.traits:
        values = drawn.traits[trait.name]
        columns[trait.name] = values if trait.levels is None else _text(np.array([*trait.levels, None], dtype=object)[values])
    for o in plan.outcomes:
        waves = drawn.outcomes[o.name]
        if o.baseline is not None:
            columns[o.baseline] = waves.before
        columns[o.name] = waves.after
    for o in plan.outcomes:
        waves = drawn.outcomes[o.name]
        names = item_names(scenario, o.name)
        for wave, stem in ((waves.items_before, o.baseline), (waves.items_after, o.name)):
            if wave is not None:
                for k, item in enumerate(names):
                    columns[item if stem == o.name else f"{stem}_i{k + 1}"] = wave[:, k]
    return pd.DataFrame(columns)


def item_names(scenario: Scenario, outcome: str) -> tuple[str, ...]:
    """Follow-up item columns of an outcome: the design's, else ``outcome_i1``, ..."""
    declared = next(o for o in scenario.design.outcomes if o.name == outcome)
    planted = next(o for o in scenario.outcomes if o.name == outcome)
    return declared.items or tuple(f"{outcome}_i{k + 1}" for k in range(planted.items))


def flow_names(scenario: Scenario) -> tuple[str | None, str | None, str | None]:
    """Columns for baseline done, left, follow-up done: the design's; a usual name when there is a loss to show; else None."""
    flow, losses = scenario.design.flow, scenario.losses
    named = (flow.baseline, flow.left, flow.follow_up) if flow else (None, None, None)
    usual = ("baseline_done", "left_job", "follow_up_done")
    there = (losses.baseline, losses.left, losses.follow_up or losses.sites or losses.baseline or losses.left)
    return tuple(n or (u if t else None) for n, u, t in zip(named, usual, there, strict=True))  # type: ignore[return-value]


def _flow(scenario: Scenario, drawn: Drawn) -> dict[str, Any]:
    events = (drawn.baseline, drawn.left, drawn.follow_up)
    columns: dict[str, Any] = {n: e.astype(np.int64) for n, e in zip(flow_names(scenario), events, strict=True) if n is not None}
    flow = scenario.design.flow
    for k, name in enumerate(flow.sessions if flow and scenario.attendance else ()):
        columns[name] = drawn.sessions[:, k]
    if any(o.effect_of != "assignment" for o in scenario.outcomes):
        columns |= received(scenario, drawn)
    return columns


def received(scenario: Scenario, drawn: Drawn) -> dict[str, Any]:
    """What everybody received: sessions attended, and whether they are enough to comply; 0 in the control arm."""
    complier = scenario.attendance.complier if scenario.attendance else 1
    return {SESSIONS: drawn.attended.astype(np.int64), COMPLIED: (drawn.attended >= complier).astype(np.int64)}


def subcluster_labels(scenario: Scenario, drawn: Drawn) -> np.ndarray[Any, Any]:
    """A label a subcluster: its site's id, and its number there."""
    assert drawn.subcluster_of_site is not None and scenario.subclusters is not None
    site, number = drawn.subcluster_of_site
    labels = [f"{drawn.sites.ids[s]}-{scenario.subclusters.prefix}{k + 1}" for s, k in zip(site.tolist(), number.tolist(), strict=True)]
    return np.array(labels, dtype=object)


def _ids(scenario: Scenario, drawn: Drawn) -> np.ndarray[Any, Any]:
    ids: list[str] = []
    for p, n in zip(scenario.people, drawn.sites.sizes.sum(axis=0).tolist(), strict=True):
        width = max(3, len(str(n)))
        ids += [f"{p.prefix}{k + 1:0{width}d}" for k in range(n)]
    return np.array(ids, dtype=object)


def _text(values: np.ndarray[Any, Any]) -> Any:
    return pd.array(values, dtype="str")


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV: numbers as short as they read back, missing cells empty, cells quoted where they must be."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows(zip(*([cell_text(v) for v in frame[c].tolist()] for c in frame.columns), strict=True))
    return out.getvalue()
