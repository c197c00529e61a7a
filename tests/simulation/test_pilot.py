"""A scenario learnt from a trial is like the one that made it."""

from __future__ import annotations

import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.simulation import Scenario, check, shipped_scenario, simulate


@pytest.fixture(scope="module")
def learnt() -> Scenario:
    made = shipped_scenario("supervision")
    people = pd.concat([simulate(made, seed=s).people.assign(site=lambda f, s=s: f["site"] + f"-{s}") for s in range(5)])
    return Scenario.from_pilot(people, made.design, d={"climate": 0.35}, sites=85)


def test_what_made_the_pilot_is_found_again(learnt: Scenario) -> None:
    made = shipped_scenario("supervision")
    assert learnt.sites.randomised == 85
    assert {p.role: p.per_site for p in learnt.people} == {
        "peer": pytest.approx(348 / 85),
        "supervisor": pytest.approx(143 / 85),
    }
    truth = simulate(made, seed=0).truth.set_index("outcome")
    planted = {o.name: o for o in learnt.outcomes}
    shown = simulate(learnt, seed=0).truth.set_index("outcome")
    assert planted["climate"].d == 0.35 and planted["recovery"].d == 0.0
    for name in ("climate", "recovery_orientation", "burnout", "stigma"):
        assert planted[name].mean == pytest.approx(truth.loc[name, "mean_control"], abs=0.25 * truth.loc[name, "sd_total"])
        assert planted[name].sd == pytest.approx(truth.loc[name, "sd_total"], rel=0.12)
        assert shown.loc[name, "icc"] == pytest.approx(truth.loc[name, "icc"], abs=0.11)
        assert shown.loc[name, "baseline_correlation"] == pytest.approx(truth.loc[name, "baseline_correlation"], abs=0.12)
    assert planted["climate"].items == 8 and planted["climate"].low == 1.0 and planted["climate"].high == 5.0
    assert learnt.losses.follow_up is not None
    assert learnt.losses.follow_up.rate["peer"] == pytest.approx(169 / 212, abs=0.04)
    shares = next(t for t in learnt.traits if t.name == "consumer").shares["peer"]
    assert shares[1] == pytest.approx(0.57, abs=0.05)


def test_it_simulates_and_can_be_written_down(learnt: Scenario) -> None:
    assert Scenario.from_text(learnt.to_toml()) == learnt
    trial = simulate(learnt, 3)
    assert set(trial.people["role"]) == {"peer", "supervisor"} and trial.allocation is None
    assert check(learnt, trials=4, seed=1).frame["failed"].sum() == 0


def test_a_plain_pilot() -> None:
    design = TrialDesign.from_text('[[outcomes]]\nname = "days"\ntype = "count"\n[[covariates]]\nname = "age"')
    people = pd.DataFrame(
        {"site": list("AABBCCDD") * 3, "days": [0, 3, 1, 0, 9, 2, 0, 1] * 3, "days_0": [1.0, 2, 0, 0, 4, 1, 1, 2] * 3, "age": range(24)}
    )
    scenario = Scenario.from_pilot(people, design, d=0.2)
    assert scenario.outcomes[0].d == 0.2 and scenario.people[0].per_site == 6.0
    assert scenario.traits[0].mean["person"] == 11.5
    assert len(simulate(scenario, seed=1).people) == 24


def test_a_users_own_columns_types_gaps_and_a_third_level() -> None:
    made = Scenario.from_text("""
subclusters = {size = 6}
[design]
columns = {person = "ID", site = "Clinic", arm = "Group", subcluster = "Ward"}
arms = {reference = "usual", intervention = "new"}
flow = {follow_up = "followed"}
covariates = [{name = "Sex", type = "categorical"}, {name = "Age"}]
[[design.outcomes]]
name = "quit"
type = "binary"
[[design.outcomes]]
name = "visits"
type = "count"
has_baseline = false
[[design.outcomes]]
name = "pain"
type = "ordinal"
baseline = "pain_before"
[sites]
groups = [{name = "clinic", recruited = 150}]
[[people]]
role = "patient"
per_site = 18
[[traits]]
name = "Sex"
levels = ["f", "m"]
shares = {patient = [0.6, 0.4]}
missing = 0.1
[[traits]]
name = "Age"
mean = {patient = 50}
sd = {patient = 9}
[[outcomes]]
name = "quit"
mean = 0.3
icc = 0.2
icc_subcluster = 0.2
item_correlation = 0.9
[[outcomes]]
name = "visits"
mean = 3
sd = 4
icc = 0.1
missing = 0.05
[[outcomes]]
name = "pain"
mean = 2
low = 0
high = 4
icc = 0.2
icc_subcluster = 0.1
item_correlation = 0.9
[losses.follow_up]
rate = {patient = 0.8}
""")
    people = simulate(made, seed=3).people
    learnt = Scenario.from_pilot(people, made.design, d=0.2, sites=40)
    assert learnt.design.columns == made.design.columns and learnt.subclusters is not None
    assert learnt.subclusters.size == pytest.approx(6.0)
    was, found = (simulate(s, seed=1).truth.set_index("outcome") for s in (made, learnt))
    for name in ("quit", "visits", "pain"):
        for column in ("mean_control", "sd_control", "icc", "icc_subcluster"):
            assert found.loc[name, column] == pytest.approx(was.loc[name, column], abs=0.06, rel=0.15), (name, column)
    assert found.loc["pain", "baseline_correlation"] == pytest.approx(was.loc["pain", "baseline_correlation"], abs=0.04)
    assert [t.missing for t in learnt.traits] == [pytest.approx(0.1, abs=0.02), 0.0]
    assert next(o.missing for o in learnt.outcomes if o.name == "visits") == pytest.approx(0.05, abs=0.02)
    trial = simulate(learnt, seed=2)
    assert list(trial.people.columns) == list(people.columns) and set(trial.people["Group"]) == {"usual", "new"}


def test_text_answers_are_refused_by_column() -> None:
    people = pd.DataFrame({"site": list("AABB"), "y": ["yes", "no", None, "yes"]})
    with pytest.raises(InputError, match="column 'y' holds text \\('yes'\\), and must be numbers"):
        Scenario.from_pilot(people, TrialDesign.from_text('[[outcomes]]\nname = "y"\ntype = "binary"'))


def test_too_little_is_refused() -> None:
    design = TrialDesign.from_text('[[outcomes]]\nname = "y"')
    with pytest.raises(InputError, match="1 site"):
        Scenario.from_pilot(pd.DataFrame({"site": ["A", "A"], "y": [1.0, 2.0]}), design)
    with pytest.raises(InputError, match="too few"):
        Scenario.from_pilot(pd.DataFrame({"site": ["A", "B", "B"], "y": [1.0, 1.0, 1.0]}), design)
    with pytest.raises(InputError, match="no column 'y'"):
        Scenario.from_pilot(pd.DataFrame({"site": ["A", "B"]}), design)
    with pytest.raises(InputError, match="outcome in d"):
        Scenario.from_pilot(pd.DataFrame({"site": ["A", "B"], "y": [1.0, 2.0]}), design, d={"x": 1.0})
