"""Scenarios with a third level, and with effects that hang on attendance: what is made is what the truth says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from trialkit.door import DesignError
from trialkit.itt import fit_mixed
from trialkit.simulation import Scenario, Trial, simulate
from trialkit.simulation.codebook import codebook

TEAMS = """
outcome_correlation = 0.3
subclusters = {size = 5}
[sites]
groups = [{name = "clinic", recruited = 1200}]
[[people]]
role = "patient"
per_site = 20
cv = 0.8
minimum = 2
[[traits]]
name = "sex"
levels = ["a", "b"]
shares = {patient = [0.4, 0.6]}
effects = [0.0, 0.5]
[[outcomes]]
name = "mood"
d = 0.6
icc = 0.1
icc_subcluster = 0.15
effect_of = "compliance"
by = "sex"
effects_by = [0.0, 0.4]
size_slope = 0.2
mean = 3
low = 1
high = 5
[[outcomes]]
name = "sleep"
d = 0.2
icc = 0.05
effect_of = "session"
[[outcomes]]
name = "smokes"
type = "binary"
d = -0.3
direction = "lower"
icc = 0.05
icc_subcluster = 0.05
mean = 0.3
effect_of = "compliance"
[[outcomes]]
name = "pain"
d = 0.3
icc = 0.05
[attendance]
rate = {patient = [0.5, 0.6, 0.3]}
person_correlation = 0.3
site_correlation = 0.1
complier = 2
drivers = [{column = "mood_0", slope = 0.4}, {column = "sleep_0", slope = -0.2}]
"""
SCENARIO = Scenario.from_text(TEAMS)


@pytest.fixture(scope="module")
def trial() -> Trial:
    return simulate(SCENARIO, seed=5)


@pytest.fixture(scope="module")
def untreated() -> pd.DataFrame:
    """The same people had there been no effects: every part draws from its own stream."""
    none = {"d": 0.0, "by": None, "effects_by": None, "size_slope": 0.0}
    return simulate(SCENARIO.but(outcomes=tuple(o.model_copy(update=none) for o in SCENARIO.outcomes)), seed=5).people


# --- the third level ----------------------------------------------------------------------------------------


def test_people_are_dealt_out_to_teams_of_their_site(trial: Trial) -> None:
    people = trial.people
    assert trial.design.columns.subcluster == "subcluster"
    assert (people.groupby("subcluster")["site"].nunique() == 1).all()
    sizes = people.groupby(["site", "subcluster"]).size()
    spread = sizes.groupby("site").agg(["min", "max", "size"])
    assert ((spread["max"] - spread["min"]) <= 1).all()
    assert (spread["size"] == np.maximum(np.rint(people.groupby("site").size() / 5), 1)).all()
    uneven = simulate(SCENARIO.but(subclusters={"per_site": 4, "cv": 1.0}), seed=5).people
    counts = uneven.groupby("subcluster").size()
    assert counts.std() / counts.mean() > 0.9 and uneven.groupby("site")["subcluster"].nunique().max() == 4
    # who they are and what they say does not change with the teams they are dealt to, but for the teams' part
    assert uneven["smokes_0"].mean() == pytest.approx(people["smokes_0"].mean(), abs=0.02)


def test_variances_at_three_levels_are_the_truths(trial: Trial) -> None:
    control = trial.people.query("arm == 'control'")
    truth = trial.truth.set_index("outcome")
    for name in ("mood", "smokes"):
        found = fit_mixed(f"{name} ~ 1", control, groups=["site", "subcluster"]).variance_components["variance"].to_numpy()
        stated = truth.loc[name, ["var_site", "var_subcluster", "var_person"]].to_numpy(float)
        # four standard errors of a variance estimated from 600 sites, 2,400 teams, 12,000 people
        assert np.abs(found - stated).max() < 0.012 * stated.sum() + 0.06 * stated[:2].max()
        assert truth.loc[name, "icc_subcluster"] == pytest.approx(stated[1] / stated.sum())
    assert truth.loc["pain", "var_subcluster"] == 0.0


def test_columns_and_truth_are_in_the_codebook(trial: Trial) -> None:
    rows = codebook(SCENARIO).set_index("column")
    assert list(rows.index[rows["file"] == "people.csv"]) == list(trial.people.columns)
    assert rows.loc["subcluster", "values"] == "S01-T1, ..." and "at least 2 sessions" in rows.loc["complied", "what"]


# --- attendance that has effects ----------------------------------------------------------------------------


def test_who_attends_is_what_was_asked_for(trial: Trial) -> None:
    treated = trial.people.query("arm == 'intervention'")
    sessions = treated[["session_1", "session_2", "session_3"]]
    np.testing.assert_allclose(sessions.mean(), [0.5, 0.6, 0.3], atol=0.02)
    assert (treated["sessions_attended"] == sessions.sum(axis=1)).all()
    assert (treated["complied"] == (sessions.sum(axis=1) >= 2)).all()
    assert (trial.people.query("arm == 'control'")[["sessions_attended", "complied"]] == 0).all(axis=None)
    # those who come were better off to begin with
    assert treated.groupby("complied")["mood_0"].mean().diff().iloc[-1] > 0.2
    truth = trial.truth.set_index("outcome")
    assert truth.loc["mood", "received"] == pytest.approx(treated["complied"].mean(), abs=0.015)
    assert truth.loc["sleep", "received"] == pytest.approx(1.4)


def test_effects_of_assignment_and_in_compliers_are_computed(trial: Trial, untreated: pd.DataFrame) -> None:
    treated = trial.people["arm"] == "intervention"
    truth = trial.truth.set_index("outcome")
    for name in ("mood", "sleep", "smokes", "pain"):
        row = truth.loc[name]
        gain = (trial.people[name] - untreated[name])[treated]
        error = 5 * gain.std() / np.sqrt(len(gain) / 8)  # people of a site are alike
        assert gain.mean() == pytest.approx(row["difference"], abs=max(error, 1e-4)), name
        by_site = gain.groupby(trial.people["site"]).mean().mean()
        assert by_site == pytest.approx(row["estimand_cluster"] * row["sd_total"], abs=max(error, 1e-4)), name
        y = trial.people[name]
        assert y.std() == pytest.approx(row["sd_total"], rel=0.02)
        if row["effect_of"] == "compliance":
            came = trial.people.loc[treated, "complied"] == 1
            assert gain[came].mean() == pytest.approx(row["estimand_complier"] * row["sd_total"], abs=1.5 * error)
            assert (gain[~came] == 0).all()
    assert truth.loc["mood", "estimand"] > truth.loc["mood", "estimand_cluster"] + 0.03
    assert truth.loc["pain", "estimand"] == pytest.approx(0.3) and truth.loc["pain", "effect_of"] == "assignment"
    # an unbounded score gains the same each session
    sleep = (trial.people["sleep"] - untreated["sleep"])[treated]
    np.testing.assert_allclose(sleep, 0.2 / np.sqrt(0.99) * trial.people.loc[treated, "sessions_attended"], atol=2e-4)


def test_subgroup_effects_where_the_trait_moves_the_score_too(trial: Trial, untreated: pd.DataFrame) -> None:
    """On a bounded scale the level's own mean decides how much of a shift is seen."""
    outcomes = tuple(o.model_copy(update={"effect_of": "assignment", "size_slope": 0.0}) for o in SCENARIO.outcomes)
    whole = SCENARIO.but(outcomes=tuple(o.model_copy(update={"mean": 4.0}) if o.name == "mood" else o for o in outcomes))
    flat = whole.but(outcomes=tuple(o.model_copy(update={"d": 0.0, "by": None, "effects_by": None}) for o in whole.outcomes))
    one, other = simulate(whole, seed=6), simulate(flat, seed=6).people
    treated = one.people["arm"] == "intervention"
    gain = (one.people["mood"] - other["mood"])[treated]
    stated = one.truth.set_index("outcome").loc["mood", "difference"]
    assert gain.mean() == pytest.approx(stated, abs=5 * gain.std() / np.sqrt(len(gain) / 8))


def test_a_role_without_the_trait_has_the_plain_effect() -> None:
    scenario = Scenario.from_text("""
sites = {groups = [{name = "c", recruited = 400}]}
people = [{role = "p", prefix = "P", per_site = 10}, {role = "s", prefix = "S", per_site = 5}]
traits = [{name = "sex", levels = ["a", "b"], shares = {p = [0.5, 0.5]}}]
outcomes = [{name = "y", d = 0.3, by = "sex", effects_by = [0.0, 0.6], icc = 0.0}]
design = {columns = {rater = "role"}, outcomes = [{name = "y"}], covariates = [{name = "sex", type = "categorical", levels = ["a", "b"]}]}
""")
    trial = simulate(scenario, seed=1)
    flat = simulate(scenario.but(outcomes=({"name": "y", "icc": 0.0},)), seed=1).people
    gain = (trial.people["y"] - flat["y"])[trial.people["arm"] == "intervention"]
    assert trial.truth["difference"].iloc[0] == pytest.approx(gain.mean(), abs=0.03)


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("subclusters = {size = 5}", "", "has icc_subcluster, but there are no [subclusters]"),
        ("subclusters = {size = 5}", "subclusters = {}", "either size or per_site"),
        ("subclusters = {size = 5}", "subclusters = {sizes = 5}", "Did you mean 'size'"),
        ("icc_subcluster = 0.15", "icc_subcluster = 0.95", "add up to 1 or more"),
        ("complier = 2", "complier = 4", "complier = 4, but the design has 3 sessions"),
        ('"sleep_0", slope = -0.2', '"sleep", slope = -0.2', "Did you mean 'sleep_0'"),
        ("slope = 0.4", "slope = 0.9", "add up to 1 or more"),
        ('effect_of = "session"', 'effect_of = "sessions"', "Did you mean 'session'"),
        ("rate = {patient", "rate = {pateint", "there is no role 'pateint'"),
        ('type = "binary"', 'type = "binry"', "Did you mean 'binary'"),
    ],
)
def test_a_wrong_one_is_refused(old: str, new: str, said: str) -> None:
    assert old in TEAMS
    with pytest.raises(DesignError) as caught:
        Scenario.from_text(TEAMS.replace(old, new, 1))
    assert said in str(caught.value)


def test_effects_of_attendance_need_attendance() -> None:
    with pytest.raises(DesignError, match="but there is no \\[attendance\\]"):
        Scenario.from_text(TEAMS[: TEAMS.index("[attendance]")])
    design = '[design]\ncolumns = {subcluster = "team"}\noutcomes = [{name = "y"}]\n'
    plain = 'sites = {groups = [{name = "c", recruited = 4}]}\npeople = [{role = "p", per_site = 4}]\noutcomes = [{name = "y"}]\n'
    with pytest.raises(DesignError, match="nothing says how they are made"):
        Scenario.from_text(plain + design)
    with pytest.raises(DesignError, match="names no column for them"):
        Scenario.from_text(plain + "subclusters = {size = 2}\n" + design.replace('columns = {subcluster = "team"}\n', ""))


def test_it_reads_back() -> None:
    assert Scenario.from_text(SCENARIO.to_toml()) == SCENARIO
