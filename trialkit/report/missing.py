"""What is missing: variable by variable and arm by arm, and whether a survey or one answer was missed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trialkit.design import TrialDesign
from trialkit.door import normalise, zero_one
from trialkit.report.flow import percent
from trialkit.report.layout import Layout, Row
from trialkit.report.tables import analysed_rows, asked, in_words
from trialkit.results import Result

OBSERVED, ANSWER_MISSING, SURVEY_MISSING = 0, 1, 2


@dataclass(frozen=True)
class Missing(Result):
    """Missing values by variable and arm.

    Attributes
    ----------
    frame : DataFrame
        ``rater, variable, label, subject, when, arm, people, missing, share``: of the people analysed who were asked;
        ``when`` is covariate, baseline or follow-up.
    patterns : mapping of rater to DataFrame
        One row a person of a randomised site, sorted by arm, site and how much is missing: ``arm``, ``site``, and a
        column a variable with 0 observed, 1 answer missing, 2 survey not done.
    arms : (str, str)
    title : str
    notes : tuple of str
    """

    frame: pd.DataFrame
    patterns: dict[str, pd.DataFrame]
    labels: dict[str, str]
    arms: tuple[str, str]
    title: str = "Missing values among the people analysed"
    notes: tuple[str, ...] = ()

    @property
    def largest(self) -> pd.Series[Any]:
        """The row with the largest share missing."""
        return self.frame.iloc[int(np.argmax(self.frame["share"].fillna(-1.0).to_numpy()))]

    def layout(self) -> Layout:
        """The table as printed: a row a variable; at baseline and at follow-up, arm by arm."""
        reference, intervention = self.arms
        f = self.frame
        rows: list[Row] = []
        for rater in dict.fromkeys(f["rater"]):
            part = f[f["rater"] == rater]
            asked_n = [int(part.loc[part["arm"] == a, "people"].max()) for a in (intervention, reference)]
            who = "People" if rater == "people" else f"People: {rater}"
            rows.append(Row((f"{who} ({intervention} {asked_n[0]:,}, {reference} {asked_n[1]:,})",), group=True))
            complete = 0
            for label in dict.fromkeys(part["subject"]):
                block = part[part["subject"] == label]
                if block["missing"].sum() == 0:
                    complete += int(block["variable"].nunique())
                    continue
                cells = []
                for early in (True, False):
                    for arm in (intervention, reference):
                        cell = block[(block["arm"] == arm) & ((block["when"] != "follow-up") == early)]
                        gone, asked_here = int(cell["missing"].sum()), int(cell["people"].sum())
                        cells.append(f"{gone:,} ({percent(gone, asked_here)})" if len(cell) else "")
                rows.append(Row((str(label), *cells), depth=1))
            if complete:
                rows.append(Row((f"and {complete} complete variable{'s' if complete > 1 else ''}", "", "", "", ""), depth=1))
        heads = ("Missing, n (%)", *(f"{when}: {arm}" for when in ("Baseline", "Follow-up") for arm in (intervention, reference)))
        return Layout(heads, tuple(rows), "lrrrr", self.title, self.notes)

    def to_text(self) -> str:
        """Plain text."""
        return self.layout().to_text()

    def to_html(self) -> str:
        """An HTML table."""
        return self.layout().to_html()


def missing_table(people: pd.DataFrame, design: TrialDesign) -> Missing:
    """Count what is missing among those analysed, by variable and arm.

    Parameters
    ----------
    people : DataFrame
        One row a person.
    design : TrialDesign
        Covariates and outcomes; ``design.flow`` tells a survey not done from an answer missing.

    Returns
    -------
    Missing

    Examples
    --------
    >>> design = TrialDesign.from_text('[[outcomes]]\\nname = "y"\\nhas_baseline = false')
    >>> people = pd.DataFrame({"person": ["a", "b"], "site": ["1", "2"], "arm": ["control", "intervention"], "y": [1.0, None]})
    >>> missing_table(people, design).frame.set_index("arm").missing.to_dict()
    {'intervention': 1, 'control': 0}
    """
    data = normalise(people, text=design.text_columns)
    columns, flow = design.columns, design.flow
    inside = data[columns.arm].isin(design.arms.labels).to_numpy()
    analysed = analysed_rows(data, design)
    baseline_done = zero_one(data, flow.baseline, where="people", why="to count the flow") if flow is not None and flow.baseline else inside
    follow_done = zero_one(data, flow.follow_up, where="people", why="to count the flow") if flow is not None and flow.follow_up else inside
    rows: list[tuple[Any, ...]] = []
    patterns: dict[str, pd.DataFrame] = {}
    labels: dict[str, str] = {}
    for rater in design.raters:
        name = rater or "people"
        kind = asked(data, design, rater)
        variables = [(c.name, in_words(c.name), "covariate", baseline_done, in_words(c.name)) for c in design.covariates]
        for o in design.for_rater(rater):
            if o.baseline:
                variables.append((o.baseline, f"{o.label}, baseline", "baseline", baseline_done, o.label))
            variables.append((o.name, f"{o.label}, follow-up", "follow-up", follow_done, o.label))
        variables = [v for v in variables if v[0] in data.columns]
        order = {"covariate": 0, "baseline": 1, "follow-up": 2}
        variables.sort(key=lambda v: order[v[2]])
        here = np.flatnonzero(inside & kind)
        pattern: dict[str, Any] = {
            "arm": data[columns.arm].to_numpy(dtype=object)[here],
            "site": data[columns.site].to_numpy(dtype=object)[here],
        }
        for column, label, when, done, subject in variables:
            labels[column] = label
            gone = data[column].isna().to_numpy()
            for arm in (design.arms.intervention, design.arms.reference):
                chosen = analysed & kind & (data[columns.arm] == arm).fillna(False).to_numpy(dtype=bool)
                people_n, missing_n = int(chosen.sum()), int((chosen & gone).sum())
                rows.append((name, column, label, subject, when, arm, people_n, missing_n, missing_n / people_n if people_n else np.nan))
            pattern[column] = np.where(~gone, OBSERVED, np.where(done, ANSWER_MISSING, SURVEY_MISSING))[here]
        frame = pd.DataFrame(pattern)
        variables_here = [v[0] for v in variables]
        frame["_missing"] = (frame[variables_here] != OBSERVED).sum(axis=1) if variables_here else 0
        arm_rank = {design.arms.intervention: 0, design.arms.reference: 1}
        frame["_arm"] = frame["arm"].map(arm_rank)
        patterns[name] = (
            frame.sort_values(["_arm", "site", "_missing"], kind="stable").drop(columns=["_arm", "_missing"]).reset_index(drop=True)
        )
    frame = pd.DataFrame(rows, columns=["rater", "variable", "label", "subject", "when", "arm", "people", "missing", "share"])
    notes = ("Everybody of the analysed population who was asked is counted.",)
    return Missing(frame=frame, patterns=patterns, labels=labels, arms=design.arms.labels, notes=notes)
