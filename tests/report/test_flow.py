"""The flow is counted from the rows, arm by arm, and refuses rows that would not add up."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.report import participant_flow
from trialkit.report.flow import ALL


def by_hand(people: pd.DataFrame, arm: str | None, rater: str | None, **flags: int) -> pd.DataFrame:
    chosen = people[people["arm"].notna()]
    if arm is not None:
        chosen = chosen[chosen["arm"] == arm]
    if rater is not None:
        chosen = chosen[chosen["role"] == rater]
    for column, value in flags.items():
        chosen = chosen[chosen[column] == value]
    return chosen


@pytest.mark.parametrize("arm", ["intervention", "control", None])
@pytest.mark.parametrize("rater", ["peer", "supervisor", None])
def test_counts_are_those_of_the_rows(people: pd.DataFrame, design: TrialDesign, arm: str | None, rater: str | None) -> None:
    flow = participant_flow(people, design)
    stages: dict[str, dict[str, int]] = {
        "eligible": {},
        "no_baseline": {"baseline_done": 0},
        "baseline": {"baseline_done": 1},
        "left": {"baseline_done": 1, "left_job": 1},
        "no_follow_up": {"baseline_done": 1, "left_job": 0, "follow_up_done": 0},
        "follow_up": {"follow_up_done": 1},
        "analysed": {"follow_up_done": 1},
    }
    for stage, flags in stages.items():
        rows = by_hand(people, arm, rater, **flags)
        where = {"arm": arm or ALL, "rater": rater or ALL}
        assert flow.count(stage, **where) == len(rows), stage
        assert flow.count(stage, what="sites", **where) == rows["site"].nunique(), stage


def test_zeros_are_counted_too(people: pd.DataFrame, design: TrialDesign) -> None:
    flow = participant_flow(people, design)
    assert flow.count("not_analysed") == 0
    assert "not_analysed" in flow.stages


def test_sites_lost_bridge_the_stages(people: pd.DataFrame, design: TrialDesign) -> None:
    flow = participant_flow(people, design)
    stayed = [s for s in flow.stages if not flow.frame.loc[flow.frame["stage"] == s, "leaves"].iloc[0]]
    for rater in (*flow.raters, ALL):
        for before, after in pairwise(stayed):
            sites = flow.count(before, rater=rater, what="sites")
            assert flow.count(after, rater=rater, what="sites") == sites - flow.count(after, rater=rater, what="sites_lost")
    # supervisors are few, so somewhere a site did lose its last one
    assert sum(flow.count(s, rater="supervisor", what="sites_lost") for s in stayed) > 0


def test_recruited_sites_and_reasons(people: pd.DataFrame, sites: pd.DataFrame, design: TrialDesign) -> None:
    flow = participant_flow(people, design, sites=sites)
    assert (flow.recruited, flow.randomised) == (24, 22)
    assert flow.not_randomised.set_index("reason")["sites"].to_dict() == {"closed": 1, "declined": 1}
    outside = people[people["arm"].isna()].groupby("site").size()
    assert flow.not_randomised["people"].sum() == outside.sum()


def test_a_site_without_people_is_still_randomised(people: pd.DataFrame, design: TrialDesign, allocation: Any) -> None:
    fewer = people[people["site"] != "S05"]
    flow = participant_flow(fewer, design, allocation=allocation)
    assert flow.randomised == 22
    assert flow.count("eligible", what="sites") == 21
    assert any("1 randomised site has no eligible person" in note for note in flow.notes)


def test_sizes_are_people_a_site(people: pd.DataFrame, design: TrialDesign) -> None:
    flow = participant_flow(people, design)
    rows = by_hand(people, "control", "peer").groupby("site").size()
    found = flow.sizes.query("stage == 'eligible' and arm == 'control' and rater == 'peer'").iloc[0]
    assert found["median"] == np.median(rows)
    assert (found["minimum"], found["maximum"]) == (rows.min(), rows.max())


def test_attendance_is_of_the_intervention_arm_analysed(people: pd.DataFrame, design: TrialDesign) -> None:
    flow = participant_flow(people, design)
    rows = by_hand(people, "intervention", "peer", follow_up_done=1)
    first = flow.attendance.query("session == 'session_1' and rater == 'peer'").iloc[0]
    assert (first["attended"], first["of"]) == (rows["session_1"].sum(), len(rows))
    mean = flow.sessions_attended.set_index("rater").loc["peer", "mean"]
    assert mean == pytest.approx((rows["session_1"] + rows["session_2"]).mean())


def test_one_kind_of_person_and_no_flow_columns() -> None:
    design = TrialDesign.from_text('[[outcomes]]\nname = "y"')
    people = pd.DataFrame(
        {"person": list("abc"), "site": ["1", "1", "2"], "arm": ["control", "control", "intervention"], "y": [1.0, 2.0, None]}
    )
    flow = participant_flow(people, design)
    assert flow.stages == ("eligible", "analysed")
    assert flow.raters == ("people",)
    assert flow.count("analysed", arm="control") == 2
    assert flow.attendance_layout() is None


def change(people: pd.DataFrame, row: int, **cells: object) -> pd.DataFrame:
    changed = people.copy()
    for column, value in cells.items():
        changed[column] = changed[column].astype(object)
        changed.loc[row, column] = value
    return changed


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"follow_up_done": 1, "left_job": 1, "baseline_done": 1}, "somebody who left cannot have been followed up"),
        ({"follow_up_done": 1, "left_job": 0, "baseline_done": 0}, "the boxes would not add up"),
        ({"follow_up_done": 2}, "is neither 1"),
        ({"arm": "placebo"}, "the arm 'placebo' is none of the design's"),
        ({"role": None}, "the kinds of person do not sum to the total"),
    ],
)
def test_rows_that_cannot_be_are_refused(people: pd.DataFrame, design: TrialDesign, cells: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        participant_flow(change(people, 0, **cells), design)


def test_the_refusal_names_row_and_person(people: pd.DataFrame, design: TrialDesign) -> None:
    row = int(np.flatnonzero(people["baseline_done"].to_numpy() == 0)[3])
    with pytest.raises(InputError, match=rf"row {row + 2}, person '{people['person'][row]}'"):
        participant_flow(change(people, row, follow_up_done=1), design)


def test_a_site_in_two_arms_is_refused(people: pd.DataFrame, design: TrialDesign) -> None:
    site = people["site"][0]
    first, *others = people.index[people["site"] == site].tolist()
    other = "control" if people["arm"][first] == "intervention" else "intervention"
    with pytest.raises(InputError, match=f"site '{site}' stands in two arms"):
        participant_flow(change(people, others[0], arm=other), design)


def test_a_site_that_was_never_drawn_is_refused(people: pd.DataFrame, design: TrialDesign, allocation: Any) -> None:
    moved = people.copy()
    moved.loc[moved["site"] == "S01", "site"] = "S99"
    with pytest.raises(InputError, match="site 'S99' has an arm but is not in the allocation"):
        participant_flow(moved, design, allocation=allocation)


def test_printed_counts(people: pd.DataFrame, sites: pd.DataFrame, design: TrialDesign, snapshot: Any) -> None:
    flow = participant_flow(people, design, sites=sites)
    attendance = flow.attendance_layout()
    assert attendance is not None
    snapshot("flow.txt", flow.layout().to_text() + "\n" + attendance.to_text())
