"""Scenario files: what is read, what is refused and in which words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from trialkit.door import DesignError
from trialkit.simulation import Scenario

SHIPPED = Path(__file__).parents[2] / "synthetic_data"
TEXT = (SHIPPED / "scenarios" / "supervision.toml").read_text(encoding="utf-8")

SMALL = """
title = "twelve clinics"
[sites]
groups = [{name = "clinic", recruited = 12}]
[[people]]
role = "patient"
per_site = 10
[[outcomes]]
name = "mood"
d = 0.3
icc = 0.1
"""


def changed(tmp_path: Path, old: str, new: str) -> Path:
    """The supervision scenario with one word changed."""
    assert old in TEXT
    (tmp_path / "scenarios").mkdir(exist_ok=True)
    shutil.copy(SHIPPED / "trial.toml", tmp_path)
    path = tmp_path / "scenarios" / "changed.toml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("outcome_correlation", "outcome_corelation", "no such key. Did you mean 'outcome_correlation'?"),
        ("recruited = 33", "recruted = 33", "sites.groups[1].recruted: no such key. Did you mean 'recruited'?"),
        ("lost = 1", "lost = 40", "40 sites of 'directly operated' are lost, but only 33 are recruited"),
        ('"57/91"', '"57/0"', "'57/0' is not a share"),
        ("icc = 0.17", "icc = 1.7", "icc = 1.7"),
        ('name = "climate"\nd', 'name = "climat"\nd', "Did you mean 'climate'?"),
        ('role = "supervisor"', 'role = "superviser"', "nobody has the role 'supervisor'"),
        ('column = "burnout_0", slope = 0.35', 'column = "burnot_0", slope = 0.35', "Did you mean 'burnout_0'?"),
        ('level = "18-35"', 'level = "18-3"', "needs level, one of 36-50"),
        ("total = 348", "total = 48", "48 of role 'peer' cannot give each of 85 sites 1"),
        ('grows_with = "annual_budget"', 'grows_with = "annual_budgt"', "Did you mean 'annual_budget'?"),
        ("items = 8", "items = 7", "has 7 items here and 8 in the design"),
        ('"39/251", supervisor', '"39/251", supervsor', "there is no role 'supervsor'"),
        ("[0.74, 0.24, 0.02]", "[0.74, 0.24, 0.12]", "add up to 1.1, not 1"),
        ('name = "annual_budget"\ndistribution', 'name = "budget"\ndistribution', "'annual_budget'"),
        ("mean = 4.5\nsd = 8", "mean = 4.5\nsd = 1", "more variable than Poisson"),
        ('"../trial.toml"', '"../trail.toml"', "no such file"),
        ("fixed = 2018", "fixed = [", "is not TOML"),
        ('{column = "climate_0"', '{column = "arm2"', "is not a column"),
        ("person_correlation = 0.4", "person_correlation = 0.95", "add up to 1 or more"),
        ("icc = 0.17", "icc = true", "icc = true: a number or text is needed here"),
        ('rate = {peer = "251/348"', "rate = {peer = true", "true is not a share"),
        ("[losses]", "[limits]\npower = {climat = 0.8}\n[losses]", "no outcome 'climat'. Did you mean 'climate'?"),
        ("[losses]", "[limits]\nsize = [0.06, 0.04]\n[losses]", "the lower limit comes first"),
        ("[[sites.columns]]", "[sites.columns]", "changed.toml"),
        ('name = "parent"', 'name = "gender"', "'gender' stands twice"),
        ('name = "parent"', 'name = "climate_i3"', "people's table: the column 'climate_i3' stands twice"),
        ('name = "youth_family"', 'name = "status"', "sites' table: the column 'status' stands twice"),
    ],
)
def test_a_wrong_scenario_is_refused_by_name(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(DesignError) as caught:
        Scenario.from_toml(changed(tmp_path, old, new))
    assert said in str(caught.value)
    assert "trail.toml" in str(caught.value) or "changed.toml" in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_baseline_survey_cannot_be_driven_by_what_comes_later(tmp_path: Path) -> None:
    path = changed(
        tmp_path, 'drivers = [{column = "age_band", level = "18-35", slope = -0.3}]', 'drivers = [{column = "arm", slope = 0.3}]'
    )
    with pytest.raises(DesignError, match="not known when the baseline survey is offered"):
        Scenario.from_toml(path)


def test_one_table_for_a_list_and_no_people_at_all() -> None:
    with pytest.raises(DesignError, match="Write \\[\\[outcomes\\]\\] above each, in double brackets"):
        Scenario.from_text(SMALL.replace("[[outcomes]]", "[outcomes]"))
    with pytest.raises(DesignError, match="makes no people"):
        Scenario.from_text(SMALL.replace("per_site = 10", "per_site = 0.3"))


def test_pairs_need_an_allocation() -> None:
    with pytest.raises(DesignError, match="there are no pairs"):
        Scenario.from_text(SMALL + "pair_share = 0.2\n")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DesignError, match=r"nowhere\.toml"):
        Scenario.from_toml("nowhere.toml")


def test_a_design_is_put_together_when_none_is_given() -> None:
    design = Scenario.from_text(SMALL).design
    assert [o.name for o in design.outcomes] == ["mood"]
    assert design.columns.rater is None


def test_toml_reads_back_to_an_equal_scenario() -> None:
    for scenario in (Scenario.from_text(SMALL), Scenario.from_toml(SHIPPED / "scenarios" / "supervision.toml")):
        again = Scenario.from_text(scenario.to_toml())
        assert again == scenario
        assert hash(again) == hash(scenario)


def test_a_changed_part_is_another_scenario_and_is_proved_again() -> None:
    scenario = Scenario.from_text(SMALL)
    other = scenario.but(outcome_correlation=0.2)
    assert other != scenario
    assert other.outcome_correlation == 0.2
    with pytest.raises(DesignError):
        scenario.but(outcome_correlation=2.0)


def test_the_three_shipped_scenarios_differ_as_they_say() -> None:
    planted, null, mnar = (Scenario.from_toml(SHIPPED / "scenarios" / f"{n}.toml") for n in ("supervision", "null", "mnar"))
    assert {o.name: o.d for o in planted.outcomes} | {"climate": 0.35} == {o.name: o.d for o in mnar.outcomes}
    assert all(o.d == 0.0 for o in null.outcomes)
    assert planted.design == null.design == mnar.design
    assert planted.sites == null.sites == mnar.sites
    assert planted.losses == null.losses
    assert [d.column for d in mnar.losses.follow_up.drivers if d.column == "climate"] == ["climate"]


def test_the_published_effects_and_ranks_are_planted() -> None:
    scenario = Scenario.from_toml(SHIPPED / "scenarios" / "supervision.toml")
    planted = {o.name: o.d for o in scenario.outcomes}
    published = {"climate": 0.35, "recovery_orientation": 0.44, "stigma": 0.04, "recovery": 0.14}
    assert {k: planted[k] for k in published} == published
    assert all(abs(d) <= 0.12 for k, d in planted.items() if k not in published)
    assert [o.name for o in scenario.design.outcomes if o.rank == "primary"] == ["climate", "stigma", "recovery"]
    assert len(scenario.design.outcomes) == 18
