"""Every analysis by name, each against the truth of its own estimand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trialkit.imputation import impute
from trialkit.itt import complier_effect, fit_mixed, itt
from trialkit.simulation import Scenario, check, simulate
from trialkit.simulation.analyses import FIELDS, KNOWN, named
from trialkit.simulation.sites import Halves
from trialkit.simulation.streams import child_seeds

PLAIN = """
outcome_correlation = 0.3
[sites]
groups = [{name = "clinic", recruited = 24}]
[[people]]
role = "patient"
per_site = 8
cv = 0.8
minimum = 2
[[outcomes]]
name = "mood"
d = 0.3
icc = 0.1
missing = 0.1
size_slope = 0.5
[[outcomes]]
name = "smokes"
type = "binary"
measure = "standardised-difference"
direction = "lower"
has_baseline = false
mean = 0.3
d = -0.2
missing = 0.1
"""
DOSED = (
    PLAIN.replace("size_slope = 0.5", 'effect_of = "compliance"').replace("missing = 0.1\n", "")
    + """
[attendance]
rate = {patient = [0.6, 0.5]}
person_correlation = 0.4
drivers = [{column = "mood_0", slope = 0.5}]
"""
)
WITHOUT_PAIRS = [name for name in KNOWN if "pairs" not in name and name != "complier effect"]


def test_every_analysis_answers_and_is_held_against_its_own_estimand() -> None:
    scenario = Scenario.from_text(PLAIN)
    result = check(scenario, trials=2, seed=3, imputations=3, analyses=WITHOUT_PAIRS)
    assert result.failures == () and not np.isnan(result.values[..., 0]).any()
    # half of the sites at random is a scheme too
    assert not np.isnan(result.values[:, WITHOUT_PAIRS.index("randomisation test"), :, 5]).any()
    truth = simulate(scenario, seed=result.trial_seeds[1]).truth.set_index("outcome")
    for a, name in enumerate(WITHOUT_PAIRS):
        equally = "cluster" if ("site means" in name and "by people" not in name) or "randomisation" in name else "people"
        column = "estimand_cluster" if equally == "cluster" else "estimand"
        np.testing.assert_allclose(result.truth[1, a], truth.loc[["mood", "smokes"], column], atol=1e-9)
    assert truth.loc["mood", "estimand"] > truth.loc["mood", "estimand_cluster"] + 0.1
    # what two analyses differ in is seen in the estimates as well
    by_people, equal = (WITHOUT_PAIRS.index(n) for n in ("site means, by people", "site means"))
    assert (result.values[:, by_people, 0, 0] > result.values[:, equal, 0, 0]).all()


def test_imputed_marginal_models_are_pooled() -> None:
    scenario = Scenario.from_text(PLAIN)
    result = check(scenario, trials=2, seed=3, imputations=3, analyses=["imputed, GEE", "GEE"])
    trial = simulate(scenario, seed=result.trial_seeds[0])
    sets = list(impute(trial.people, scenario.design, m=3, seed=child_seeds(trial.seed, 1, "impute")[0]))
    each = [check_marginal(one) for one in sets]
    assert result.values[0, 0, 0, 0] == pytest.approx(np.mean([e for e, _ in each]), rel=1e-8)
    within, between = np.mean([v for _, v in each]), np.var([e for e, _ in each], ddof=1)
    assert result.values[0, 0, 0, 1] == pytest.approx(math.sqrt(within + (1 + 1 / 3) * between), rel=1e-8)


def check_marginal(people: object) -> tuple[float, float]:
    from trialkit.itt import fit_marginal

    frame = people.assign(z=people["mood"] / people["mood"].std(ddof=1), t=(people["arm"] == "intervention").astype(float))  # type: ignore[attr-defined]
    row = fit_marginal("z ~ t + mood_0", frame, cluster="site", family="gaussian", correction="KC").frame.set_index("term").loc["t"]
    return float(row["estimate"]), float(row["std_error"]) ** 2


def test_the_complier_effect_is_the_public_verb_and_hits_where_as_treated_does_not() -> None:
    scenario = Scenario.from_text(DOSED)
    result = check(scenario, trials=40, seed=7, analyses=["complier effect", "complete cases"])
    assert result.passed, str(result)
    truth = simulate(scenario, seed=1).truth.set_index("outcome")
    np.testing.assert_allclose(result.truth[0], [truth["estimand_complier"], truth["estimand"]], atol=1e-9)
    people = simulate(scenario, seed=result.trial_seeds[2]).people
    fit = complier_effect(people, outcome="mood", received="complied", assigned="arm", cluster="site", covariates=["mood_0"])
    assert result.values[2, 0, 0, 0] == pytest.approx(fit.frame["estimate"].iloc[1] / people["mood"].std(ddof=1), rel=1e-9)
    # those who came were better off before: comparing them with the control arm is not the effect in compliers
    control, came = people.query("arm == 'control'"), people.query("complied == 1")
    assert came["mood_0"].mean() - control["mood_0"].mean() > 0.1


def test_the_third_level_is_fitted() -> None:
    text = PLAIN.replace("[sites]", "subclusters = {size = 3}\n[sites]", 1).replace("icc = 0.1", "icc = 0.05\nicc_subcluster = 0.3", 1)
    scenario = Scenario.from_text(text)
    result = check(scenario, trials=2, seed=3)
    assert result.failures == ()
    people = simulate(scenario, seed=result.trial_seeds[0]).people.dropna(subset=["mood", "mood_0"])
    fit = fit_mixed("mood ~ arm + mood_0", people, groups=["site", "subcluster"]).frame.iloc[1]
    assert result.values[0, 0, 0, 2] == pytest.approx(fit["df"], rel=1e-8)
    expected = itt(simulate(scenario, seed=result.trial_seeds[1]).people, scenario.design).frame
    np.testing.assert_allclose(result.values[1, 0, :, 1], expected["std_error"], rtol=1e-10)


@pytest.mark.parametrize("denominator", ["none", "pooled", "control", "baseline"])
def test_the_truth_has_the_denominator_of_the_design(denominator: str) -> None:
    scenario = Scenario.from_text(PLAIN.replace("size_slope = 0.5", "sd = 10").replace("d = 0.3", "d = 1.2", 1))
    analysis = scenario.design.analysis.model_copy(update={"standardise": denominator})
    outcomes = tuple(o for o in scenario.outcomes if o.name == "mood")
    design = scenario.design.model_copy(update={"analysis": analysis, "outcomes": scenario.design.outcomes[:1]})
    result = check(scenario.but(design=design, outcomes=outcomes), trials=30, seed=5, analyses=["complete cases", "GEE"])
    assert result.passed, str(result)
    truth = simulate(scenario, seed=1).truth.iloc[0]
    sd = {"none": 1.0, "pooled": math.sqrt(truth["sd_total"] ** 2 - truth["difference"] ** 2 / 4)}.get(denominator, truth["sd_control"])
    assert result.truth[0, 0, 0] == pytest.approx(truth["difference"] / sd)


def test_truths_are_on_the_scale_that_the_design_reports() -> None:
    declared = {
        "risk": ("binary", "risk-difference"),
        "ratio": ("binary", "risk-ratio"),
        "odds": ("binary", "odds-ratio"),
        "visits": ("count", "rate-ratio"),
        "pain": ("ordinal", "cumulative-odds-ratio"),
        "calm": ("ordinal", "cumulative-odds-ratio"),
    }
    scale = {"binary": "mean = 0.3", "count": "mean = 3\nsd = 3", "ordinal": "mean = 2\nlow = 0\nhigh = 4"}
    common = "has_baseline = false\nicc = 0.05"
    text = "".join(
        f'[[outcomes]]\nname = "{n}"\ntype = "{kind}"\nmeasure = "{m}"\n{common}\n{scale[kind]}\nd = {0.3 * (n != "calm")}\n'
        for n, (kind, m) in declared.items()
    )
    scenario = Scenario.from_text('sites = {groups = [{name = "c", recruited = 16}]}\npeople = [{role = "p", per_site = 12}]\n' + text)
    result = check(scenario, trials=2, seed=5, analyses=["complete cases", "GEE", "site means, by people"])
    row = simulate(scenario, seed=1).truth.set_index("outcome")
    low, high = row["mean_control"], row["mean_intervention"]
    log_ratio = np.log(high / low)
    expected = [
        high["risk"] - low["risk"],
        log_ratio["ratio"],
        math.log(high["odds"] / (1 - high["odds"])) - math.log(low["odds"] / (1 - low["odds"])),
        log_ratio["visits"],
        np.nan,
        0.0,
    ]
    np.testing.assert_allclose(result.truth[0, 0], expected, atol=1e-9)
    np.testing.assert_allclose(result.truth[0, 1], row["estimand"], atol=1e-9)
    assert not np.isnan(result.values[:, :2, :, 0]).any()
    # a rate ratio's answer is its logarithm
    visits = itt(simulate(scenario, seed=result.trial_seeds[0]).people, scenario.design).frame.set_index("outcome").loc["visits"]
    assert result.values[0, 0, 3, 0] == pytest.approx(math.log(visits["estimate"]))
    # an unknown truth is said and not held, and an analysis that gives another measure is not compared with it
    assert "No one true value" in str(result)
    held = result.limits.query("analysis == 'complete cases' and outcome == 'pain'")["figure"].tolist()
    assert held == ["failed"]
    assert {f["outcome"] for f in result.failures} == {"odds", "pain", "calm"}


def test_half_of_the_sites_is_a_scheme() -> None:
    scheme = Halves(tuple("abcde"))
    listed = scheme.assignments()
    assert len(listed) == scheme.n_assignments == 10 and (listed.sum(axis=1) == 2).all()
    assert len(np.unique(listed, axis=0)) == 10
    drawn = scheme.sample(2000, seed=1)
    assert (drawn.sum(axis=1) == 2).all() and np.abs(drawn.mean(axis=0) - 0.4).max() < 0.06
    with pytest.raises(ValueError, match="limit"):
        scheme.assignments(limit=5)


def test_names() -> None:
    assert all(a.name == name for name, a in KNOWN.items()) and len(FIELDS) == 8
    assert {a.data for a in named(["imputed, GEE", "imputed, fixed pairs", "imputed, randomisation test"])} == {"imputed"}
