"""Laws of the participant flow: whatever the rows, the boxes add up, and the order of rows means nothing."""

from __future__ import annotations

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from trialkit.design import TrialDesign
from trialkit.report.flow import ALL, participant_flow

DESIGN = TrialDesign.from_text(
    '[columns]\nrater = "role"\n[flow]\nbaseline = "asked"\nleft = "left"\nfollow_up = "done"\n[imputation]\npopulation = "done"\n'
    '[[outcomes]]\nname = "y"\nrater = "peer"\n[[outcomes]]\nname = "z"\nrater = "supervisor"'
)


@st.composite
def people(draw: st.DrawFn) -> pd.DataFrame:
    rows = []
    arms = draw(st.lists(st.sampled_from(["control", "intervention", None]), min_size=1, max_size=6))
    for k, arm in enumerate(arms):
        for _ in range(draw(st.integers(0, 4))):
            asked = draw(st.booleans())
            left = asked and draw(st.booleans())
            done = arm is not None and asked and not left and draw(st.booleans())
            role = draw(st.sampled_from(["peer", "supervisor"]))
            rows.append((f"p{len(rows)}", f"S{k}", arm, role, int(asked), int(left), int(done)))
    return pd.DataFrame(rows, columns=["person", "site", "arm", "role", "asked", "left", "done"])


@settings(max_examples=20, deadline=None)
@given(people(), st.randoms(use_true_random=False))
def test_boxes_add_up(frame: pd.DataFrame, random: object) -> None:
    flow = participant_flow(frame, DESIGN)
    count = flow.count
    for arm in (*flow.arms, ALL):
        for rater in (*flow.raters, ALL):
            where = {"arm": arm, "rater": rater}
            assert count("baseline", **where) == count("eligible", **where) - count("no_baseline", **where)
            assert count("eligible_follow_up", **where) == count("baseline", **where) - count("left", **where)
            assert count("follow_up", **where) == count("eligible_follow_up", **where) - count("no_follow_up", **where)
            assert count("analysed", **where) == count("follow_up", **where) - count("not_analysed", **where)
    for stage in flow.stages:
        assert count(stage) == sum(count(stage, arm=a) for a in flow.arms)
        assert count(stage) == sum(count(stage, rater=r) for r in flow.raters)
    assert count("eligible") == int(frame["arm"].notna().sum())
    order = list(range(len(frame)))
    random.shuffle(order)  # type: ignore[attr-defined]
    pd.testing.assert_frame_equal(participant_flow(frame.iloc[order], DESIGN).frame, flow.frame)
