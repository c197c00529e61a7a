"""The flow of sites and people through the trial, counted from the rows, and checked to add up.

Stages follow the declared 0/1 columns: eligible, baseline done, left before follow-up, followed up, analysed.
At each stage sites and people are counted by arm and by kind of person; a stage is what the one before it was,
less what left it, and a table that contradicts this is refused with the row that does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from trialkit.design import TrialDesign
from trialkit.door import InputError, normalise, printable, require_columns, zero_one
from trialkit.report.layout import Layout, Row
from trialkit.results import Result

ALL = "all"  # the rater or arm of a row that counts everybody


@dataclass(frozen=True)
class Flow(Result):
    """Counts of sites and people by stage, arm and kind of person.

    Attributes
    ----------
    frame : DataFrame
        One row a stage, arm and kind of person: ``stage, label, leaves, arm, rater, people, sites, sites_lost``.
        ``leaves`` is True for those who leave between two stages; ``rater`` or ``arm`` is ``all`` for totals.
        ``sites`` counts sites with at least one such person; ``sites_lost`` the sites with nobody left.
    sizes : DataFrame
        People a site at the first and last stage: ``stage, arm, rater, sites, median, q1, q3, minimum, maximum``.
    attendance : DataFrame
        ``rater, session, attended, of, share``: people of the intervention arm, of those analysed.
    sessions_attended : DataFrame
        ``rater, people, mean, sd``: sessions attended a person.
    recruited, randomised : int or None
        Sites recruited (needs the sites table) and sites randomised.
    not_randomised : DataFrame
        ``reason, sites, people``: sites recruited but not randomised.
    arms, raters : tuple of str
        Labels; ``raters`` is (``people``,) when there is one kind.
    notes : tuple of str
    """

    frame: pd.DataFrame
    sizes: pd.DataFrame
    attendance: pd.DataFrame
    sessions_attended: pd.DataFrame
    recruited: int | None
    randomised: int
    not_randomised: pd.DataFrame
    arms: tuple[str, ...]
    raters: tuple[str, ...]
    title: str = "Participant flow"
    notes: tuple[str, ...] = ()

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages counted, in order, those who leave among them."""
        return tuple(dict.fromkeys(self.frame["stage"].tolist()))

    def count(self, stage: str, *, arm: str = ALL, rater: str = ALL, what: str = "people") -> int:
        """One count: `what` is ``people``, ``sites`` or ``sites_lost``."""
        found = self._counts.get((stage, arm, rater))
        if found is None:
            raise InputError(f"the flow has no count for stage {stage!r}, arm {arm!r}, rater {rater!r}. Stages: {', '.join(self.stages)}.")
        return found[what]

    @cached_property
    def _counts(self) -> dict[tuple[str, str, str], dict[str, int]]:
        rows = self.frame.to_dict(orient="records")
        return {(r["stage"], r["arm"], r["rater"]): {w: int(r[w]) for w in ("people", "sites", "sites_lost")} for r in rows}

    @property
    def reasons(self) -> str:
        """Why recruited sites were not randomised, with counts where there are several reasons."""
        found = [(int(n), str(reason)) for n, reason in zip(self.not_randomised["sites"], self.not_randomised["reason"], strict=True)]
        if len(found) == 1:
            return found[0][1]
        return "; ".join(f"{n:,} {reason}" for n, reason in found) or "reason not given"

    def layout(self) -> Layout:
        """The counts as printed: sites first, then each kind of person; a column an arm and one for both."""
        arms = (*self.arms, ALL)
        names = tuple("Both arms" if a == ALL else str(a).capitalize() for a in arms)
        rows: list[Row] = []

        def block(title: str, rater: str, what: str) -> None:
            rows.append(Row((title,), group=True))
            gone: list[tuple[str, str]] = []
            for stage in self.stages:
                part = self.frame[self.frame["stage"] == stage]
                label = str(part["label"].iloc[0])
                if bool(part["leaves"].iloc[0]):
                    if what == "people":
                        rows.append(Row((label, *(f"{self.count(stage, arm=a, rater=rater):,}" for a in arms)), depth=2))
                    gone.append((stage, label))
                    continue
                if what == "sites" and gone:
                    cells = (f"{self.count(stage, arm=a, rater=rater, what='sites_lost'):,}" for a in arms)
                    rows.append(Row((f"nobody left: {gone[-1][1]}", *cells), depth=2))
                rows.append(Row((label, *(f"{self.count(stage, arm=a, rater=rater, what=what):,}" for a in arms)), depth=1))

        block("Sites with at least one such person", ALL, "sites")
        for rater in self.raters:
            block("People" if len(self.raters) == 1 else f"People: {rater}", rater, "people")
        return Layout(("Stage", *names), tuple(rows), "l" + "r" * len(arms), "Participant flow", self.notes)

    def attendance_layout(self) -> Layout | None:
        """Attendance as printed, or None when the design names no sessions."""
        if self.attendance.empty:
            return None
        sessions = list(dict.fromkeys(self.attendance["session"].tolist()))
        rows = []
        for session in sessions:
            part = self.attendance[self.attendance["session"] == session]
            cells = [f"{int(r.attended):,} of {int(r.of):,} ({percent(r.attended, r.of)})" for r in part.itertuples()]
            rows.append(Row((f"Session {sessions.index(session) + 1}", *cells)))
        means = [f"{r.mean:.1f} ({r.sd:.1f})" if r.people else "\N{EM DASH}" for r in self.sessions_attended.itertuples()]
        rows.append(Row(("Sessions attended a person, mean (SD)", *means)))
        names = tuple(str(r).capitalize() for r in self.sessions_attended["rater"].tolist())
        note = "Intervention arm, people analysed."
        return Layout(("", *names), tuple(rows), "l" + "r" * len(names), "Sessions attended", (note,))


def percent(part: float, whole: float) -> str:
    """A whole-number percentage; a dash when there is nobody to take it of."""
    return f"{100 * part / whole:.0f}%" if whole else "\N{EM DASH}"


def participant_flow(people: pd.DataFrame, design: TrialDesign, *, sites: pd.DataFrame | None = None, allocation: Any = None) -> Flow:
    """Count sites and people at every stage of the trial.

    Parameters
    ----------
    people : DataFrame
        One row a person, with the design's columns; people of sites that were not randomised have no arm.
    design : TrialDesign
        ``design.flow`` names the 0/1 columns; a stage without a column is left out.
    sites : DataFrame, optional
        One row a site: gives the sites recruited; a column ``status`` gives the reason a site was not randomised.
    allocation : optional
        Its ``frame`` (id, arm) says which sites were randomised, also those without people.

    Returns
    -------
    Flow

    Raises
    ------
    InputError
        A column is missing, is not 0/1, an arm is unknown, a site is in two arms, or a person was followed up
        without a baseline or after having left: the boxes would not add up.

    Examples
    --------
    >>> design = TrialDesign.from_text('''
    ... [flow]
    ... baseline = "asked"
    ... [[outcomes]]
    ... name = "y"
    ... ''')
    >>> people = pd.DataFrame({"person": ["a", "b", "c"], "site": ["S1", "S1", "S2"], "arm": ["control", "control", "intervention"],
    ...                        "asked": [1, 0, 1]})
    >>> flow = participant_flow(people, design)
    >>> flow.count("baseline"), flow.count("no_baseline"), flow.count("eligible", arm="intervention")
    (2, 1, 1)
    """
    columns = design.columns
    data = normalise(people, text=design.text_columns)
    needed = [columns.site, columns.arm, *([columns.rater] if columns.rater else [])]
    require_columns(data, needed, where="people", why="to count who was where")
    arm = data[columns.arm].pipe(_plain)
    _known_arms(arm, design)
    site = data[columns.site].pipe(_plain)
    rater = data[columns.rater].pipe(_plain) if columns.rater else np.full(len(data), "people", dtype=object)
    inside = np.array([a is not None for a in arm], dtype=bool)
    site_arm = _site_arms(site[inside], arm[inside], design, allocation)

    stages, notes = _stages(data, design, inside)
    arms = (design.arms.intervention, design.arms.reference)
    declared = tuple(r for r in design.raters if r is not None)
    others = tuple(sorted({str(r) for r in rater[inside] if r is not None} - set(declared)))
    raters = (*declared, *others) if columns.rater else ("people",)

    rows = []
    previous: dict[tuple[str, str], set[Any]] = {}
    for stage, label, leaves, mask in stages:
        for a in (*arms, ALL):
            for r in (*raters, ALL):
                chosen = mask & _where(arm, a) & _where(rater, r)
                here = set(site[chosen])
                lost = len(previous.get((a, r), here) - here) if not leaves else 0
                rows.append((stage, label, leaves, a, r, int(chosen.sum()), len(here), lost))
                if not leaves:
                    previous[a, r] = here
    frame = pd.DataFrame(rows, columns=["stage", "label", "leaves", "arm", "rater", "people", "sites", "sites_lost"])
    if len(raters) == 1:
        frame = frame[(frame["rater"] == ALL) | (frame["rater"] == raters[0])].reset_index(drop=True)
    _adds_up(frame, arms, raters)

    first, last = stages[0], stages[-1]
    sizes = _sizes((first, last), arm, rater, site, arms, raters)
    in_arm = last[3] & _where(arm, design.arms.intervention)
    attendance, attended = _attendance(data, design, in_arm, rater, raters)
    recruited, not_randomised = _not_randomised(sites, design, site_arm, site, inside)
    return Flow(
        frame=frame,
        sizes=sizes,
        attendance=attendance,
        sessions_attended=attended,
        recruited=recruited,
        randomised=len(site_arm),
        not_randomised=not_randomised,
        arms=arms,
        raters=raters,
        notes=(*notes, *_empty_sites(site_arm, site[inside])),
    )


def _plain(column: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """A column of labels with None where missing."""
    out = np.empty(len(column), dtype=object)
    out[:] = [None if pd.isna(v) else v for v in column.tolist()]
    return out


def _known_arms(arm: np.ndarray[Any, Any], design: TrialDesign) -> None:
    for k, value in enumerate(arm):
        if value is not None and value not in design.arms.labels:
            raise InputError(
                f"people, row {k + 2}, column {design.columns.arm!r}: the arm {printable(value)!r} is none of the design's "
                f"({', '.join(design.arms.labels)}). Correct the cell, or [arms] in the design."
            )


def _site_arms(site: np.ndarray[Any, Any], arm: np.ndarray[Any, Any], design: TrialDesign, allocation: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    if allocation is not None:
        frame = allocation.frame
        found = dict(zip(frame[id_column(frame, design)].astype(str).tolist(), frame["arm"].tolist(), strict=True))
        strangers = sorted({s for s in site if s not in found})
        if strangers:
            raise InputError(
                f"people: site {printable(strangers[0])!r} has an arm but is not in the allocation, so it was never randomised. "
                "Correct the site's id, or leave its arm empty."
            )
    for s, a in zip(site, arm, strict=True):
        if found.setdefault(s, a) != a:
            raise InputError(
                f"people: site {printable(s)!r} stands in two arms ({found[s]} and {a}), but sites were randomised whole. "
                "Correct the arm column."
            )
    return found


def id_column(frame: pd.DataFrame, design: TrialDesign) -> str:
    """The column of a sites' table that holds the site's id."""
    named = design.allocation.id if design.allocation is not None else design.columns.site
    for column in (named, design.columns.site):
        if column in frame.columns:
            return column
    require_columns(frame, [named], where="sites", why="to know which site a row is")
    return named


Stage = tuple[str, str, bool, np.ndarray[Any, np.dtype[np.bool_]]]


def _stages(data: pd.DataFrame, design: TrialDesign, inside: np.ndarray[Any, Any]) -> tuple[list[Stage], list[str]]:
    """The stages with the people in each; everybody in a stage was in the one before."""
    flow = design.flow
    notes: list[str] = []
    stages: list[Stage] = [("eligible", "Eligible people at randomised sites", False, inside)]
    here = inside

    def flag(column: str) -> np.ndarray[Any, Any]:
        return zero_one(data, column, where="people", why="to count the flow")

    if flow is not None and flow.baseline:
        done = flag(flow.baseline) & here
        stages += [
            ("no_baseline", "no baseline survey", True, here & ~done),
            ("baseline", "Baseline survey done", False, done),
        ]
        here = done
    followed = flag(flow.follow_up) & inside if flow is not None and flow.follow_up else None
    if flow is not None and flow.left:
        left = flag(flow.left) & here
        if followed is not None:
            _contradiction(
                data, design, followed & left, f"{flow.left} = 1 and {flow.follow_up} = 1: somebody who left cannot have been followed up"
            )
        stages += [
            ("left", "left before follow-up", True, left),
            ("eligible_follow_up", "Eligible for follow-up", False, here & ~left),
        ]
        here = here & ~left
    if followed is not None and flow is not None:
        _contradiction(
            data,
            design,
            followed & ~here,
            f"{flow.follow_up} = 1 without having reached the stage before ({_before(flow)}): the boxes would not add up",
        )
        stages += [
            ("no_follow_up", "no follow-up survey", True, here & ~followed),
            ("follow_up", "Follow-up survey done", False, followed),
        ]
        here = followed
    population = design.imputation.population
    if population == "randomised":
        if here is not inside:
            notes.append("Analysed: everybody randomised, missing values imputed; so the last row is not what the row above leaves.")
        stages.append(("analysed", "Analysed (everybody randomised)", False, inside))
    else:
        chosen = flag(population) & inside
        if (chosen & ~here).any():
            notes.append(f"Analysed: people with {population} = 1, which is not part of the stage above it.")
            stages.append(("analysed", "Analysed", False, chosen))
        else:
            stages += [("not_analysed", "not analysed", True, here & ~chosen), ("analysed", "Analysed", False, chosen)]
    return stages, notes


def _before(flow: Any) -> str:
    return (
        " and ".join(filter(None, (f"{flow.baseline} = 1" if flow.baseline else "", f"{flow.left} = 0" if flow.left else ""))) or "an arm"
    )


def _contradiction(data: pd.DataFrame, design: TrialDesign, wrong: np.ndarray[Any, Any], what: str) -> None:
    if not wrong.any():
        return
    rows = np.flatnonzero(wrong)
    first = int(rows[0])
    person = data[design.columns.person].tolist()[first] if design.columns.person in data.columns else "?"
    more = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
    raise InputError(
        f"people, row {first + 2}, person {printable(person)!r}: {what}{more}. Correct the cells, or the columns named in [flow]."
    )


def _where(values: np.ndarray[Any, Any], wanted: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if wanted == ALL:
        return np.ones(len(values), dtype=bool)
    return np.array([v == wanted for v in values], dtype=bool)


def _adds_up(frame: pd.DataFrame, arms: tuple[str, ...], raters: tuple[str, ...]) -> None:
    """Arms and kinds of person sum to the totals, and each stage is the one before less those who left."""
    keys = zip(frame["stage"].tolist(), frame["arm"].tolist(), frame["rater"].tolist(), strict=True)
    count = {key: int(n) for key, n in zip(keys, frame["people"].tolist(), strict=True)}
    for stage in dict.fromkeys(frame["stage"]):
        for r in (*raters, ALL):
            if count[stage, ALL, r] != sum(count[stage, a, r] for a in arms):
                raise InputError(
                    f"the flow does not add up: stage {stage!r}, {r}: the arms do not sum to the total. "
                    "Every row with an arm needs one of the two."
                )
        for a in (*arms, ALL):
            if count[stage, a, ALL] != sum(count[stage, a, r] for r in raters):
                raise InputError(
                    f"the flow does not add up: stage {stage!r}, arm {a!r}: the kinds of person do not sum to the total. "
                    "Some rows have an empty cell in the rater column; fill it."
                )
    before: str | None = None
    gone: list[str] = []
    for stage in dict.fromkeys(frame["stage"]):
        leaves = bool(frame.loc[frame["stage"] == stage, "leaves"].iloc[0])
        if leaves:
            gone.append(stage)
            continue
        if before is not None and gone:
            for a in (*arms, ALL):
                for r in (*raters, ALL):
                    if count[stage, a, r] != count[before, a, r] - sum(count[g, a, r] for g in gone):
                        raise InputError(
                            f"the flow does not add up between {before!r} and {stage!r} (arm {a!r}, {r}). "
                            "Check the columns named in [flow]."
                        )
        before, gone = stage, []


def _sizes(
    stages: tuple[Stage, Stage],
    arm: np.ndarray[Any, Any],
    rater: np.ndarray[Any, Any],
    site: np.ndarray[Any, Any],
    arms: tuple[str, ...],
    raters: tuple[str, ...],
) -> pd.DataFrame:
    rows = []
    for stage, _, _, mask in stages:
        for a in (*arms, ALL):
            for r in (*raters, ALL):
                chosen = site[mask & _where(arm, a) & _where(rater, r)]
                sizes = list(Counter(chosen.tolist()).values())
                summary = np.quantile(sizes, (0.5, 0.25, 0.75, 0.0, 1.0)).tolist() if sizes else [np.nan] * 5
                rows.append((stage, a, r, len(sizes), *summary))
    return pd.DataFrame(rows, columns=["stage", "arm", "rater", "sites", "median", "q1", "q3", "minimum", "maximum"])


def _attendance(
    data: pd.DataFrame, design: TrialDesign, chosen: np.ndarray[Any, Any], rater: np.ndarray[Any, Any], raters: tuple[str, ...]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    sessions = design.flow.sessions if design.flow is not None else ()
    came = {s: zero_one(data, s, where="people", why="to count the flow") for s in sessions}
    rows, totals = [], []
    for r in raters:
        here = chosen & _where(rater, r)
        for s in sessions:
            attended = int((came[s] & here).sum())
            rows.append((r, s, attended, int(here.sum()), attended / here.sum() if here.any() else np.nan))
        count = sum((came[s][here].astype(int) for s in sessions), start=np.zeros(int(here.sum()), dtype=int))
        spread = float(np.std(count, ddof=1)) if len(count) > 1 else 0.0
        totals.append((r, int(here.sum()), float(count.mean()) if len(count) else np.nan, spread))
    return (
        pd.DataFrame(rows, columns=["rater", "session", "attended", "of", "share"]),
        pd.DataFrame(totals if sessions else [], columns=["rater", "people", "mean", "sd"]),
    )


def _not_randomised(
    sites: pd.DataFrame | None, design: TrialDesign, site_arm: dict[Any, Any], site: np.ndarray[Any, Any], inside: np.ndarray[Any, Any]
) -> tuple[int | None, pd.DataFrame]:
    empty = pd.DataFrame({"reason": pd.Series(dtype="str"), "sites": pd.Series(dtype="int64"), "people": pd.Series(dtype="int64")})
    if sites is None:
        return None, empty
    column = id_column(sites, design)
    table = normalise(sites, text=[column])
    ids = table[column].tolist()
    missing = sorted(set(site_arm) - set(ids))
    if missing:
        raise InputError(
            f"sites: the randomised site {printable(missing[0])!r} is not in the sites table ({len(missing)} such). "
            "Give the table of all sites recruited."
        )
    out = table[[i not in site_arm for i in ids]]
    outside = pd.Series(site[~inside]).value_counts().to_dict()
    reasons = out["status"].fillna("not stated").astype(str).tolist() if "status" in out.columns else ["not randomised"] * len(out)
    rows: dict[str, list[int]] = {}
    for i, reason in zip(out[column].tolist(), reasons, strict=True):
        entry = rows.setdefault(reason, [0, 0])
        entry[0] += 1
        entry[1] += int(outside.get(i, 0))
    if not rows:
        return len(ids), empty
    return len(ids), pd.DataFrame([(k, *v) for k, v in rows.items()], columns=["reason", "sites", "people"])


def _empty_sites(site_arm: dict[Any, Any], site: np.ndarray[Any, Any]) -> list[str]:
    empty = len(set(site_arm) - set(site))
    if not empty:
        return []
    return [f"{empty} randomised {'site has' if empty == 1 else 'sites have'} no eligible person."]
