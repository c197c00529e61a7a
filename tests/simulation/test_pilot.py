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
    assert planted["climate"].d == 0.35 and planted["recovery"].d == 0.0
    for name in ("climate", "recovery_orientation", "burnout", "stigma"):
        assert planted[name].mean == pytest.approx(truth.loc[name, "mean_control"], abs=0.25 * truth.loc[name, "sd_total"])
        assert planted[name].sd == pytest.approx(truth.loc[name, "sd_total"], rel=0.12)
        assert planted[name].icc == pytest.approx(truth.loc[name, "icc"], abs=0.11)
        assert planted[name].baseline_correlation == pytest.approx(truth.loc[name, "baseline_correlation"], abs=0.12)
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
