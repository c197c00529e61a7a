"""Leave one site (or pair) out: how far any single one carries an effect."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.design import TrialDesign
from trialkit.door import InputError, cell_text, few, require_columns, unknown_word
from trialkit.itt.coefficient_table import EFFECT
from trialkit.itt.outcome_models import fit_prepared, plan_of, pooled_row
from trialkit.itt.people import WHERE, People
from trialkit.itt.prepared import outcomes_asked, prepare
from trialkit.itt.subset import subset
from trialkit.results import Result


@dataclass(frozen=True)
class Influence(Result):
    """Effects without each site or pair.

    Attributes
    ----------
    frame : DataFrame
        One row an outcome: outcome, estimate and p_value with everybody, lowest and highest estimate without one unit and which unit
        that is, highest p_value.
    each : DataFrame
        One row an outcome and unit left out: outcome, left_out, estimate, std_error, df, p_value, conf_low, conf_high, change.
    notes : tuple of str
    """

    frame: pd.DataFrame
    each: pd.DataFrame = field(repr=False)
    notes: tuple[str, ...] = ()
    title: str = "Leaving one out"


def leave_one_out(
    data: pd.DataFrame | Iterable[pd.DataFrame],
    design: TrialDesign,
    *,
    by: Literal["site", "pair"] = "site",
    outcomes: Sequence[str] | None = None,
) -> Influence:
    """Repeat the design's analysis without each site or pair in turn.

    Parameters
    ----------
    data, design
        As for `itt`. Estimates are divided by the whole table's SD, so that they stay comparable.
    by : {"site", "pair"}
        ``"pair"`` needs the design's pair column; a site without a pair counts as its own.
    outcomes : sequence of str, optional
        By default the primary ones (all, when none is primary).

    Raises
    ------
    InputError
        As `itt`; an outcome is not in the design; there is no pair column.

    Examples
    --------
    >>> design = TrialDesign.from_text('[[outcomes]]\\nname = "y"\\nhas_baseline = false')
    >>> rng = np.random.default_rng(5)
    >>> site = np.repeat(np.arange(12), 5)
    >>> people = pd.DataFrame({
    ...     "person": range(60), "site": site, "arm": np.where(site % 2, "intervention", "control"), "y": rng.normal(size=60),
    ... })
    >>> len(leave_one_out(people, design).each)
    12
    """
    if by not in ("site", "pair"):
        raise InputError(unknown_word(str(by), ("site", "pair"), what="unit"))
    plan = plan_of(design, None, None)
    tables, people, prepared = prepare(data, design, denominator=plan.denominator, scale="each-set")
    wanted = outcomes_asked(design, outcomes, primary=True)
    units, labels = _units(tables[0], people, design, by)
    rows, each, notes = [], [], []
    for one in prepared:
        name = one.outcome.name
        if name not in wanted:
            continue
        done = fit_prepared(one, plan)
        whole = pooled_row(done, plan)
        if done.reason:
            notes.append(f"{name} could not be analysed: {done.reason}.")
        mine = []
        for unit in np.unique(units[one.site]) if not done.reason else []:
            part = subset(one, units[one.site] != unit)
            again = fit_prepared(part, plan)
            if again.reason:
                notes.append(f"{name} without {labels[unit]} could not be analysed: {again.reason}.")
            found = pooled_row(again, plan)
            change = found["estimate"] - whole["estimate"]
            mine.append({"outcome": name, "left_out": labels[unit], **{k: found[k] for k in EFFECT}, "change": change})
        each += mine
        rows.append({"outcome": name, "estimate": whole["estimate"], "p_value": whole["p_value"], **_extremes(mine)})
    return Influence(
        frame=pd.DataFrame(rows).astype({"outcome": "str"}),
        each=pd.DataFrame(each),
        notes=tuple(notes),
        title=f"Leaving one {by} out",
    )


def _extremes(rows: Sequence[dict[str, float | str]]) -> dict[str, float | str]:
    usable = [r for r in rows if not math.isnan(float(r["estimate"]))]
    if not usable:
        return {"lowest": math.nan, "lowest_without": "", "highest": math.nan, "highest_without": "", "highest_p": math.nan}
    low, high = min(usable, key=lambda r: float(r["estimate"])), max(usable, key=lambda r: float(r["estimate"]))
    return {
        "lowest": low["estimate"],
        "lowest_without": low["left_out"],
        "highest": high["estimate"],
        "highest_without": high["left_out"],
        "highest_p": max(float(r["p_value"]) for r in usable),
    }


def _units(table: pd.DataFrame, people: People, design: TrialDesign, by: str) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """The unit of each site code, and the units' labels."""
    if by == "site":
        return np.arange(len(people.sites)), people.sites
    column = design.columns.pair
    if column is None:
        raise InputError('the design names no pair column ([columns] pair), so no pair can be left out. Use by="site".')
    require_columns(table, [column], where=WHERE, why="to leave pairs out")
    pair_of: dict[int, str] = {}
    for site, value in zip(people.site.tolist(), table[column].iloc[people.rows].tolist(), strict=True):
        label = cell_text(value) or f"(alone) {people.sites[site]}"
        if pair_of.setdefault(site, label) != label:
            raise InputError(
                f"site {people.sites[site]!r} is in more than one pair ({few([pair_of[site], label])}). Correct column {column!r}."
            )
    labels = tuple(sorted(set(pair_of.values())))
    return np.array([labels.index(pair_of[s]) for s in range(len(people.sites))], dtype=np.intp), labels
