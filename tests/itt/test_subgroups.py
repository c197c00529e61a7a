"""Effects by subgroup and their interaction test: R, the formula route, laws, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import trialkit as tk
from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.itt import fit_marginal, fit_ordinal
from trialkit.itt.mixed import fit_mixed
from trialkit.itt.subgroups import subgroup_effects

HERE = Path(__file__).parents[1] / "reference"
REFERENCE = json.loads((HERE / "subgroups.json").read_text())
DESIGN = """
[arms]
reference = "0"
intervention = "1"
[analysis]
standardise = "none"
[[outcomes]]
name = "y"
baseline = "y0"
[[covariates]]
name = "gender"
type = "categorical"
[[covariates]]
name = "age"
type = "categorical"
"""


@pytest.mark.reference
@pytest.mark.parametrize("name", REFERENCE["cases"])
def test_against_lme4_pbkrtest_and_emmeans(name):
    stored = REFERENCE["cases"][name]
    d = pd.read_csv(HERE / "models" / "data" / f"{name}.csv")
    people = d.assign(person=np.arange(len(d)), arm=d["arm"].astype(str))
    found = subgroup_effects(people, tk.TrialDesign.from_text(DESIGN), ["age", "y0"])
    assert not found.problems
    age = found.frame[found.frame["moderator"] == "age"]
    assert age["subgroup"].tolist() == stored["levels"]
    # lme4 stops its search a little before the optimum: 3e-8 was seen
    np.testing.assert_allclose(age["estimate"], stored["estimate"], rtol=1e-6)
    np.testing.assert_allclose(age["std_error"], stored["se"], rtol=1e-6)
    np.testing.assert_allclose(age["df"], stored["df"], rtol=1e-6)
    test = found.interactions.set_index("moderator")
    assert test.loc["age", ["statistic", "df_num", "df_den", "p_value"]].tolist() == pytest.approx(
        [stored["F"], stored["ndf"], stored["ddf"], stored["p"]], rel=1e-6
    )
    slope = found.differences.iloc[-1]
    sd = d["y0"].std()
    assert (slope["estimate"] / sd, slope["std_error"] / sd, slope["df"]) == pytest.approx(
        (stored["slope"], stored["slope_se"], stored["slope_df"]), rel=1e-6
    )
    assert test.loc["y0", "statistic"] == pytest.approx((slope["estimate"] / slope["std_error"]) ** 2)


def test_one_category_against_the_formula_route(people, design):
    found = subgroup_effects(people, design, "gender")
    peers = people[people["role"] == "peer"]
    fit = fit_mixed("climate ~ climate_0 + age_band + consumer + arm * gender", peers, groups=["site"])
    row = fit.row("armintervention:gendermale")
    sd = peers["climate"].std()
    mine = found.differences.set_index("outcome").loc["climate"]
    assert mine["contrast"] == "male minus female"
    assert mine[["estimate", "std_error", "df", "p_value"]].tolist() == pytest.approx(
        [row["estimate"] / sd, row["std_error"] / sd, row["df"], row["p_value"]], rel=1e-8
    )
    women = found.frame.iloc[0]
    alone = fit.row("armintervention")
    assert (women["estimate"], women["df"]) == pytest.approx((alone["estimate"] / sd, alone["df"]), rel=1e-8)
    assert women["n_reference"] == ((peers["gender"] == "female") & (peers["arm"] == "control")).sum()
    assert women["clusters_reference"] + women["clusters_intervention"] == peers.loc[peers["gender"] == "female", "site"].nunique()
    # primary outcomes only, unless asked
    assert found.interactions["outcome"].tolist() == ["climate", "stigma"]


def test_site_level_moderators_use_the_sites_degrees_of_freedom(people, design):
    kind = people["site"].map(lambda s: "urban" if int(s[1:]) % 4 < 2 else "rural")
    found = subgroup_effects(people.assign(kind=kind), design, "kind", outcomes=["climate"])
    assert found.interactions["df_den"].iloc[0] < 24
    assert found.frame[["clusters_reference", "clusters_intervention"]].to_numpy().tolist() == [[6, 6], [6, 6]]


def test_units_of_the_moderator_change_nothing(people, design):
    first = subgroup_effects(people, design, "recovery_0")
    again = subgroup_effects(people.assign(moved=1e3 * people["recovery_0"] + 1e6), design, "moved")
    np.testing.assert_allclose(again.frame["estimate"], first.frame["estimate"], rtol=1e-7)
    np.testing.assert_allclose(again.interactions["p_value"], first.interactions["p_value"], rtol=1e-7)


def test_the_subgroups_surround_the_whole(people, design):
    whole = tk.itt(people, design).frame.set_index("outcome").loc["climate", "estimate"]
    parts = subgroup_effects(people, design, "age_band", outcomes=["climate"]).frame["estimate"]
    assert parts.min() < whole < parts.max()


def test_imputed_copies_give_the_table_s_numbers(people, design):
    first = subgroup_effects(people, design, ["gender", "age_band"], outcomes=["climate"])
    many = subgroup_effects([people, people, people], design, ["gender", "age_band"], outcomes=["climate"])
    np.testing.assert_allclose(many.frame["estimate"], first.frame["estimate"], rtol=1e-10)
    np.testing.assert_allclose(many.frame["std_error"], first.frame["std_error"], rtol=1e-10)
    # the joint test of three subgroups: F of Wald's form, equal up to Kenward-Roger's scaling
    np.testing.assert_allclose(many.interactions["p_value"], first.interactions["p_value"], rtol=0.05)


def test_missing_moderators_are_left_out_and_said(people, design):
    holes = people.assign(gender=people["gender"].mask(np.arange(len(people)) % 10 == 0), kind=people["gender"])
    holes = holes.assign(kind=holes["kind"].mask(np.arange(len(people)) % 12 == 1))
    found = subgroup_effects(holes.assign(gender=people["gender"]), design, "kind", outcomes=["climate"])
    assert found.frame["n_reference"].sum() + found.frame["n_intervention"].sum() < 192
    assert any("moderator is missing: climate" in note for note in found.notes)
    many = subgroup_effects([holes.assign(gender=people["gender"])] * 2, design, "kind", outcomes=["climate"])
    assert "after imputation" in many.problems["climate", "kind"]


def test_refusals(people, design):
    with pytest.raises(InputError, match="cannot be a moderator"):
        subgroup_effects(people, design, "arm")
    with pytest.raises(InputError, match="colour"):
        subgroup_effects(people, design, "colour")
    with pytest.raises(InputError, match="outcome"):
        subgroup_effects(people, design, "gender", outcomes=["nothing"])
    odd = people.assign(kind=np.where((people["arm"] == "control") & (people["gender"] == "male"), "x", "y"), same="all")
    found = subgroup_effects(odd, design, ["kind", "same"], outcomes=["climate"])
    assert "nobody in one arm has kind = 'x'" in found.problems["climate", "kind"]
    assert "one value" in found.problems["climate", "same"]
    assert found.frame["p_value"].isna().all()
    assert len(found.interactions) == 2


# --- by declared type -------------------------------------------------------------------------------------------

TYPED = """
[[outcomes]]
name = "well"
type = "binary"
has_baseline = false

[[outcomes]]
name = "falls"
type = "count"
has_baseline = false

[[outcomes]]
name = "grade"
type = "ordinal"
has_baseline = false
"""


def typed_people() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    site = np.repeat(np.arange(30), 14)
    n, arm = len(site), site % 2
    people = pd.DataFrame({"person": range(n), "site": site, "arm": np.where(arm, "intervention", "control")})
    people["role"] = rng.choice(["a", "b", "c"], n)
    latent = 0.4 * arm + 0.5 * arm * (people["role"] == "b") + 0.3 * rng.normal(size=30)[site]
    people["well"] = (rng.random(n) < 1 / (1 + np.exp(-latent))).astype(int)
    people["falls"] = rng.poisson(np.exp(0.3 + 0.3 * latent))
    people["grade"] = np.searchsorted([-1, 0, 1.0], latent + rng.logistic(size=n))
    return people


@pytest.mark.parametrize(
    ("outcome", "family", "measure"), [("well", "binomial", "odds ratio (marginal)"), ("falls", "poisson", "rate ratio")]
)
def test_typed_outcomes_have_the_interaction_of_their_own_model(outcome, family, measure):
    people, design = typed_people(), TrialDesign.from_text(TYPED)
    found = subgroup_effects(people, design, "role", outcomes=[outcome])
    fit = fit_marginal(f"{outcome} ~ arm * role", people, cluster="site", family=family, df="between-within")
    table = fit.frame.set_index("term")
    assert set(found.frame["measure"]) == {measure}
    first, second = found.frame.iloc[0], found.differences.iloc[0]
    arm, product = table.loc["armintervention"], table.loc["armintervention:roleb"]
    assert np.log(first["estimate"]) == pytest.approx(arm["estimate"], rel=1e-9)
    assert first[["std_error", "df", "p_value"]].tolist() == pytest.approx([arm["std_error"], 28, arm["p_value"]], rel=1e-9)
    assert np.log(second["estimate"]) == pytest.approx(product["estimate"], rel=1e-9)
    assert second["std_error"] == pytest.approx(product["std_error"], rel=1e-9)
    # a sandwich of 30 sites has no more df than they allow, whatever varies inside them
    assert (second["df"], second["contrast"]) == (28, "b over a")
    # a subgroup's effect is the arm's and the product's together
    assert np.log(found.frame["estimate"][1]) == pytest.approx(arm["estimate"] + product["estimate"], rel=1e-9)
    # the joint test is Hotelling's on the same sandwich
    names = ["armintervention:roleb", "armintervention:rolec"]
    b, V = table.loc[names, "estimate"].to_numpy(), fit.cov.loc[names, names].to_numpy()
    joint = found.interactions.iloc[0]
    assert joint["statistic"] == pytest.approx(b @ np.linalg.solve(V, b) * 27 / (28 * 2), rel=1e-9)
    assert (joint["df_num"], joint["df_den"]) == (2, 27)
    assert any("risk differences, say" in note for note in found.notes)


def test_an_ordinal_outcomes_interaction_is_of_cumulative_odds():
    people, design = typed_people(), TrialDesign.from_text(TYPED)
    found = subgroup_effects(people, design, "role", outcomes=["grade"])
    table = fit_ordinal("grade ~ arm * role", people, cluster="site").frame.set_index("term")
    assert np.log(found.frame["estimate"][0]) == pytest.approx(table.loc["armintervention", "estimate"], rel=1e-8)
    assert np.log(found.differences["estimate"][1]) == pytest.approx(table.loc["armintervention:rolec", "estimate"], rel=1e-8)
    assert set(found.frame["measure"]) == {"cumulative odds ratio (marginal)"}


def test_typed_interactions_are_pooled():
    people, design = typed_people(), TrialDesign.from_text(TYPED)
    alone = subgroup_effects(people, design, "role", outcomes=["well"])
    copies = subgroup_effects([people] * 4, design, "role", outcomes=["well"])
    np.testing.assert_allclose(copies.frame["estimate"], alone.frame["estimate"], rtol=1e-10)
    np.testing.assert_allclose(copies.interactions["statistic"], alone.interactions["statistic"], rtol=1e-10)
    assert copies.interactions["df_den"][0] < alone.interactions["df_den"][0]


def test_a_subgroup_without_events_in_an_arm_is_separation():
    people, design = typed_people(), TrialDesign.from_text(TYPED)
    people.loc[(people["role"] == "c") & (people["arm"] == "control"), "well"] = 0
    found = subgroup_effects(people, design, "role", outcomes=["well"])
    assert "separation" in found.problems["well", "role"]
    assert found.frame["p_value"].isna().all()
