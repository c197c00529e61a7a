"""itt by declared type: each row is the model a reader would fit by hand, and what cannot be fitted says why."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

import trialkit as tk
from trialkit._kernels.pooling import pool_scalar
from trialkit.design import TrialDesign
from trialkit.door import DesignError, InputError
from trialkit.itt import fit_generalised, fit_marginal, fit_ordinal, leave_one_out, ordinal
from trialkit.itt.beside import ALL, COMPLIERS, COMPLIERS_BY_SITE
from trialkit.itt.cluster_level import site_values, two_stage
from trialkit.itt.randomisation import AssignmentList, max_t

HEAD = """
[columns]
person = "pid"
site = "clinic"
arm = "grp"
pair = "couple"
[arms]
reference = "usual"
intervention = "new"
[[covariates]]
name = "base"
"""
OUTCOMES: dict[str, str] = {
    "relapse": 'type = "binary"\nlevels = ["no", "yes"]',
    "falls": 'type = "count"\nexposure = "months"',
    "severity": 'type = "ordinal"\nlevels = ["none", "mild", "moderate", "severe"]',
    "vas": 'type = "bounded"\nbounds = [0, 100]',
    "cost": 'type = "skewed"',
}
FORMULA = "{} ~ new + base"


def design_of(name: str, more: str = "", head: str = HEAD) -> TrialDesign:
    return TrialDesign.from_text(f'{head}\n[[outcomes]]\nname = "{name}"\nhas_baseline = false\n{OUTCOMES[name]}\n{more}')


def make(seed: int = 1, sites: int = 16, effect: float = 0.6) -> pd.DataFrame:
    """People under other names than usual, in pairs of sites of 6 to 18."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(sites), rng.integers(6, 19, sites))
    n = len(site)
    coin = rng.integers(0, 2, sites)
    new = (coin[site // 2] + site) % 2
    base = rng.normal(size=n)
    z = effect * new + 0.5 * rng.normal(size=sites)[site] + 0.5 * base
    latent = z + rng.logistic(size=n)
    return pd.DataFrame(
        {
            "pid": np.arange(n), "clinic": [f"c{s:02}" for s in site], "couple": [f"m{s // 2}" for s in site],
            "grp": np.where(new == 1, "new", "usual"), "new": new.astype(float), "base": base,
            "relapse": np.where(latent > 0.3, "yes", "no"), "falls": rng.poisson(np.exp(0.2 + 0.5 * z)),
            "months": rng.integers(3, 13, n).astype(float),
            "severity": np.array(["none", "mild", "moderate", "severe"])[np.digitize(latent, [-1, 0.5, 2])],
            "vas": np.clip(50 + 15 * z + 10 * rng.normal(size=n), 0, 100).round(), "cost": np.exp(6 + 0.4 * z + rng.normal(size=n)),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def trial() -> pd.DataFrame:
    return make()


def marginal(frame: pd.DataFrame, y: Any, family: str, **options: Any) -> pd.DataFrame:
    fit = fit_marginal(FORMULA.format("y"), frame.assign(y=y), cluster="clinic", family=family, df="between-within", **options)
    return fit.standardised("new").frame.set_index("measure")


CASES = [
    ("relapse", "", "risk difference", lambda d: marginal(d, (d["relapse"] == "yes").astype(float), "binomial"), "risk difference"),
    ("relapse", 'measure = "risk-ratio"', "risk ratio", lambda d: marginal(d, (d["relapse"] == "yes") * 1.0, "binomial"), "risk ratio"),
    (
        "relapse", 'measure = "odds-ratio"', "odds ratio (marginal)", lambda d: marginal(d, (d["relapse"] == "yes") * 1.0, "binomial"),
        "odds ratio (marginal)",
    ),
    ("falls", "", "rate ratio", lambda d: marginal(d, d["falls"], "poisson", exposure="months"), "rate ratio"),
    (
        "falls", 'measure = "rate-difference"', "rate difference", lambda d: marginal(d, d["falls"], "poisson", exposure="months"),
        "rate difference",
    ),
    ("cost", "", "ratio of means", lambda d: marginal(d, d["cost"], "gamma"), "ratio of means"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "more", "measure", "by_hand", "row"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_marginal_rows_are_the_fit_by_hand(trial, name, more, measure, by_hand, row):
    found = tk.itt(trial, design_of(name, more)).frame.iloc[0]
    hand = by_hand(trial).loc[row]
    assert (found["measure"], found["analysis"]) == (measure, "marginal model")
    for column in ("estimate", "std_error", "df", "p_value", "conf_low", "conf_high"):
        assert found[column] == pytest.approx(hand[column], rel=1e-9), column
    assert found["df"] == 14
    value = math.log(found["estimate"]) if "ratio" in measure else found["estimate"]
    assert found["statistic"] == pytest.approx(value / found["std_error"], rel=1e-12)


def test_a_bounded_outcome_is_a_fractional_logit_on_its_range(trial):
    found = tk.itt(trial, design_of("vas")).frame.iloc[0]
    hand = marginal(trial, trial["vas"] / 100, "binomial").loc["risk difference"]
    assert [found["estimate"], found["std_error"]] == pytest.approx([100 * hand["estimate"], 100 * hand["std_error"]], rel=1e-9)
    d = tk.itt(trial, design_of("vas", 'measure = "standardised-difference"')).frame.iloc[0]
    assert d["estimate"] == pytest.approx(found["estimate"] / trial["vas"].std(), rel=1e-9)
    assert d["measure"] == "Cohen's d"


@pytest.mark.parametrize("model", ["marginal", "mixed"])
def test_ordinal_rows_are_fit_ordinal(trial, model):
    more = "" if model == "marginal" else 'model = "ordinal-mixed"'
    results = tk.itt(trial, design_of("severity", more))
    levels = ["none", "mild", "moderate", "severe"]
    hand = fit_ordinal("severity ~ new + base", trial, cluster="clinic", model=model, levels=levels)
    row, found = hand.frame.iloc[0], results.frame.iloc[0]
    assert math.log(found["estimate"]) == pytest.approx(row["estimate"], rel=1e-7)
    assert [found["std_error"], found["df"]] == pytest.approx([row["std_error"], row["df"]], rel=1e-6)
    assert found["measure"] == f"cumulative odds ratio ({'marginal' if model == 'marginal' else 'site-specific'})"
    assert any(note.startswith("severity: Test of proportional odds: F(2, ") for note in results.notes)


def test_the_test_of_proportional_odds_is_pooled():
    rng = np.random.default_rng(3)
    site = np.repeat(np.arange(24), 12)
    x = np.column_stack([site % 2, rng.normal(size=len(site))]).astype(float)
    latent = 0.4 * x[:, 0] + 0.3 * rng.normal(size=24)[site] + rng.logistic(size=len(site))
    grades = np.searchsorted([-1, 0, 1.0], latent).astype(np.intp)
    alone = ordinal.brant(x, grades, site, 4, 0)
    # copies of one table give its statistic, on Reiter's df (nu (nu + 1) / (nu + 3) without missing information)
    same = ordinal.pooled_brant([alone] * 4)
    nu = alone.df[1]
    assert (same.statistic, *same.df) == pytest.approx((alone.statistic, 2, nu * (nu + 1) / (nu + 3)), rel=1e-10)
    assert "pooled over 4 imputed tables by D1" in same.words
    each = []
    for _ in range(5):
        again = np.where(rng.random(len(site)) < 0.15, rng.integers(0, 4, size=len(site)), grades)
        each.append(ordinal.brant(x, again, site, 4, 0))
    pooled = ordinal.pooled_brant(each)
    assert pooled.df[1] < alone.df[1]
    np.testing.assert_allclose(pooled.estimate, np.mean([e.estimate for e in each], axis=0), rtol=1e-12)
    between = np.var([e.estimate for e in each], axis=0, ddof=1)
    np.testing.assert_allclose(pooled.std_error**2, np.mean([e.std_error**2 for e in each], axis=0) + 1.2 * between, rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "more", "family"),
    [
        ("relapse", 'measure = "odds-ratio"\nmodel = "logistic-mixed"', "binomial"),
        ("falls", 'model = "poisson-mixed"', "poisson"),
        ("falls", 'model = "negative-binomial-mixed"', "negative-binomial"),
    ],
)
def test_random_intercepts_are_fit_generalised(trial, name, more, family):
    found = tk.itt(trial, design_of(name, more)).frame.iloc[0]
    frame = trial.assign(relapse=(trial["relapse"] == "yes") * 1.0)
    fit = fit_generalised(
        FORMULA.format(name), frame, group="clinic", family=family, exposure="months" if name == "falls" else None
    ).frame.set_index("term")
    assert math.log(found["estimate"]) == pytest.approx(fit.loc["new", "estimate"], rel=1e-6)
    assert [found["std_error"], found["df"]] == pytest.approx([fit.loc["new", "std_error"], 14], rel=1e-5)


def test_ratios_are_pooled_as_logarithms(trial):
    rng = np.random.default_rng(3)
    tables = [trial.assign(falls=np.maximum(trial["falls"] + rng.integers(-1, 2, len(trial)), 0)) for _ in range(4)]
    found = tk.itt(tables, design_of("falls")).frame.iloc[0]
    each = [tk.itt(t, design_of("falls")).frame.iloc[0] for t in tables]
    pooled = pool_scalar(np.log([e["estimate"] for e in each]), np.array([e["std_error"] ** 2 for e in each]), 14.0)
    assert math.log(found["estimate"]) == pytest.approx(float(pooled.estimate), rel=1e-9)
    assert [found["std_error"], found["df"], found["fmi"]] == pytest.approx(
        [float(pooled.std_error), float(pooled.df), float(pooled.fmi)], rel=1e-9
    )


def test_measures_hold_the_absolute_and_the_relative_effects(trial):
    results = tk.itt(trial, design_of("relapse"))
    named = results.measures.set_index("measure")["estimate"]
    assert list(named.index) == ["risk difference", "risk, usual", "risk, new", "risk ratio", "odds ratio (marginal)"]
    assert named["risk difference"] == pytest.approx(named["risk, new"] - named["risk, usual"])
    assert named["risk ratio"] == pytest.approx(named["risk, new"] / named["risk, usual"])


def test_continuous_outcomes_keep_the_plain_table(people, design):
    results = tk.itt(people, design)
    assert list(results.frame.columns)[-1] == "m"
    assert results.measures["measure"].tolist()[:2] == ["Cohen's d", "mean difference"]


def test_a_count_can_be_declared_to_be_analysed_as_d(trial):
    design = TrialDesign.from_text(
        f'{HEAD}\n[[outcomes]]\nname = "falls"\nhas_baseline = false\ntype = "count"\nmeasure = "standardised-difference"'
    )
    plain = TrialDesign.from_text(f'{HEAD}\n[[outcomes]]\nname = "falls"\nhas_baseline = false')
    pd.testing.assert_frame_equal(tk.itt(trial, design).frame, tk.itt(trial, plain).frame)


# --- every analysis in one table ------------------------------------------------------------------------------


def plan_for(frame: pd.DataFrame) -> AssignmentList:
    sites = sorted(frame["clinic"].unique())
    k = len(sites) // 2
    flips = (np.arange(2**k)[:, None] >> np.arange(k)) & 1
    codes = np.empty((2**k, 2 * k), dtype=int)
    codes[:, ::2], codes[:, 1::2] = flips, 1 - flips
    return AssignmentList(tuple(sites), codes)


@pytest.mark.parametrize("name", OUTCOMES)
def test_all_analyses_have_a_row_and_agree_in_sign(name):
    trial = make(effect=1.2)
    results = tk.itt(trial, design_of(name), analyses="all", plan=plan_for(trial))
    assert results.frame["analysis"].tolist()[1:] == [a for a in ALL if a not in (COMPLIERS, COMPLIERS_BY_SITE)]
    assert not results.problems
    none = np.where(["ratio" in m for m in results.frame["measure"]], 1.0, 0.0)
    assert (results.frame["estimate"] > none).all()
    assert results.frame["p_value"].between(0, 0.4).all()


def test_beside_the_model_are_the_site_analyses_by_hand(trial):
    frame = tk.itt(trial, design_of("relapse"), analyses=["site means, unadjusted", "site means, adjusted"]).frame
    y, arm = (trial["relapse"] == "yes").astype(float), trial["new"]
    plain = two_stage(site_values(y, trial["clinic"], arm))
    adjusted = two_stage(site_values(y, trial["clinic"], arm, covariates=trial["base"]))
    assert frame["estimate"].tolist()[1:] == pytest.approx([plain.estimate, adjusted.estimate], rel=1e-12)
    # a ratio of unadjusted site means is the ratio of their means, weighted or not
    ratio = tk.itt(trial, design_of("relapse", 'measure = "risk-ratio"'), analyses=["site means, unadjusted"]).frame["estimate"][1]
    means = y.groupby(trial["clinic"]).mean().groupby(trial.groupby("clinic")["new"].first()).mean()
    assert ratio == pytest.approx(means[1.0] / means[0.0], rel=1e-12)


def test_rates_beside_the_model_count_exposure(trial):
    frame = tk.itt(trial, design_of("falls"), analyses=["site means, unadjusted, by people"]).frame
    total = trial.groupby("new")[["falls", "months"]].sum()
    rates = total["falls"] / total["months"]
    assert frame["estimate"][1] == pytest.approx(rates[1.0] / rates[0.0], rel=1e-12)


def test_a_site_without_events_leaves_pairs_and_randomisation_a_difference(trial):
    quiet = trial.assign(relapse=trial["relapse"].where(trial["clinic"] != "c00", "no"))
    frame = tk.itt(quiet, design_of("relapse", 'measure = "risk-ratio"'), analyses="all", plan=plan_for(quiet)).frame.set_index("analysis")
    assert frame.loc["pair differences, adjusted", "measure"] == "risk difference"
    assert frame.loc["randomisation test, adjusted", "measure"] == "risk difference"
    assert frame.loc["site means, adjusted", "measure"] == "risk ratio"
    assert np.isfinite(frame["p_value"]).all()


def test_max_t_is_driven_by_the_families_of_the_design(people, design, redesign):
    sites = sorted(people["site"].unique())
    plan = AssignmentList(tuple(sites), plan_for(people.rename(columns={"site": "clinic"})).codes)
    declared = redesign(design, analysis={"multiplicity": "max-t"})
    with pytest.raises(InputError, match="plan="):
        tk.itt(people, declared)
    results = tk.itt(people, declared, plan=plan)
    peers = people[people["role"] == "peer"]
    values = {}
    for name in ("recovery", "burnout"):
        x = pd.get_dummies(peers[[f"{name}_0", "gender", "age_band", "consumer"]], drop_first=True).to_numpy(dtype=float)
        values[name] = site_values(peers[name] / peers[name].std(), peers["site"], (peers["arm"] == "intervention") * 1.0, covariates=x)
    hand = max_t(values, plan).frame.set_index("outcome")["p_adjusted"]
    found = results.frame.set_index("outcome")["p_adjusted"]
    assert found[["recovery", "burnout"]].tolist() == pytest.approx(hand.tolist())
    assert any("max-T" in note for note in results.notes)


# --- what cannot be analysed ----------------------------------------------------------------------------------

STRESS: dict[str, tuple[Any, str]] = {
    "one site an arm": (lambda d: d[d["clinic"].isin(["c00", "c01"])], "1 and 1 sites"),
    "one site in one arm": (lambda d: d[(d["grp"] == "new") | (d["clinic"] == first_usual(d))], "1 and 8 sites"),
    "absent in one arm": (lambda d: blank(d, d["grp"] == "new"), "nobody in the 'new' arm"),
    "all missing": (lambda d: blank(d, d["grp"] != ""), "no row is complete"),
    "constant": (lambda d: alike(d, d["grp"] != ""), "one value"),
    "constant in one arm": (lambda d: alike(d, d["grp"] == "new"), "separation"),
}  # fmt: skip


def first_usual(frame: pd.DataFrame) -> str:
    return frame.loc[frame["grp"] == "usual", "clinic"].iloc[0]


def blank(frame: pd.DataFrame, rows: pd.Series) -> pd.DataFrame:
    return frame.assign(**{name: frame[name].where(~rows) for name in OUTCOMES})


def alike(frame: pd.DataFrame, rows: pd.Series) -> pd.DataFrame:
    value = {"relapse": "yes", "falls": 0, "severity": "severe", "vas": 100.0, "cost": 0.0}
    return frame.assign(**{name: frame[name].where(~rows, value[name]) for name in OUTCOMES})


def test_an_arm_at_one_end_of_the_scale_is_named_with_its_number(trial):
    nobody = trial.assign(relapse=trial["relapse"].where(trial["grp"] != "new", "no"))
    found = tk.itt(nobody, design_of("relapse"), analyses="all")
    assert f"all {(trial['grp'] == 'new').sum()} people of the intervention arm have no" in found.model.problems["relapse"]
    assert "Cohen's d" not in " ".join(found.notes)  # nothing here is one
    assert found.frame.set_index("analysis").loc["site means, unadjusted", "p_value"] < 0.05


def test_df_above_those_of_site_means_are_said(trial):
    design = TrialDesign.from_text(f'{HEAD}\n[[outcomes]]\nname = "vas"\nhas_baseline = false\n')
    level = trial["vas"] - trial.groupby("clinic")["vas"].transform("mean")  # sites alike: their variance is zero
    for inference, above in (("satterthwaite", True), ("kenward-roger", False)):
        found = tk.itt(trial.assign(vas=level), design, inference=inference)
        assert (found.frame["df"][0] > found.frame["clusters"][0] - 2) == above
        assert any(n.startswith("df above sites - 2") for n in found.notes) == above


@pytest.mark.parametrize("fault", STRESS)
@pytest.mark.parametrize("name", OUTCOMES)
def test_no_p_value_from_nothing(trial, name, fault):
    change, says = STRESS[fault]
    for more in ("", *({'model = "ordinal-mixed"'} if name == "severity" else {'model = "poisson-mixed"'} if name == "falls" else ())):
        results = tk.itt(change(trial), design_of(name, more))
        assert results.frame["p_value"].isna().all()
        assert len(results.frame) == 1
        assert says in results.problems[name]


@pytest.mark.parametrize("name", OUTCOMES)
def test_singletons_and_collinear_covariates_are_handled(trial, name):
    alone = trial.groupby("clinic").head(1)
    more = make(2, 60).assign(clinic=lambda d: "x" + d["clinic"], pid=lambda d: d["pid"] + 5000).groupby("clinic").head(1)
    found = tk.itt(pd.concat([alone, more]), design_of(name))
    assert np.isfinite(found.frame["p_value"][0])
    twice = TrialDesign.from_text(design_of(name).to_toml() + '\n[[covariates]]\nname = "again"\n[[covariates]]\nname = "one"\n')
    results = tk.itt(trial.assign(again=2 * trial["base"], one=1.0), twice)
    assert results.frame["estimate"][0] == pytest.approx(tk.itt(trial, design_of(name)).frame["estimate"][0], rel=1e-8)
    assert results.details["columns_left_out"][0] == "again, one"


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("relapse", {"relapse": "perhaps"}, "'perhaps' is not one of its levels (no, yes)"),
        ("falls", {"falls": -1}, "-1 does not suit type = 'count'"),
        ("falls", {"months": 0.0}, "the exposure of 'falls' is 0"),
        ("vas", {"vas": 101.0}, "its bounds are 0 to 100"),
        ("cost", {"cost": -5.0}, "not negative"),
    ],
)
def test_values_that_contradict_the_type_are_refused(trial, name, change, says):
    wrong = trial.copy()
    wrong.loc[4, next(iter(change))] = next(iter(change.values()))
    with pytest.raises(InputError) as caught:
        tk.itt(wrong, design_of(name))
    assert "row 6" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("kind", ["binary", "ordinal"])
def test_words_without_declared_levels_say_to_declare_them(trial, kind):
    design = TrialDesign.from_text(f'{HEAD}\n[[outcomes]]\nname = "relapse"\ntype = "{kind}"\nhas_baseline = false\n')
    with pytest.raises(InputError, match=r"If 'relapse' holds words, .* levels = \[\.\.\.\]"):
        tk.itt(trial, design)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('type = "binary"\nmeasure = "rate-ratio"', "it takes risk-difference, risk-ratio, odds-ratio"),
        ('type = "binary"\nmodel = "logistic-mixed"', "does not give measure = 'risk-difference'"),
        ('type = "bounded"', "needs bounds"),
        ('levels = ["a", "b"]', "levels belong to"),
        ('exposure = "days"', "exposure belongs to"),
        ('type = "binary"\nlevels = ["a", "b", "c"]', "two different values"),
    ],
)
def test_designs_that_contradict_themselves(text, says):
    with pytest.raises(DesignError, match=says):
        TrialDesign.from_text(f'[[outcomes]]\nname = "y"\n{text}')


def test_leaving_sites_out_takes_exposures_along(trial):
    assert len(leave_one_out(trial, design_of("falls")).each) == 16


def test_an_analysis_by_a_wrong_name_or_without_its_plan(trial):
    with pytest.raises(InputError, match="Did you mean 'site means, adjusted'"):
        tk.itt(trial, design_of("relapse"), analyses=["site means adjusted"])
    with pytest.raises(InputError, match="plan="):
        tk.itt(trial, design_of("relapse"), analyses=["randomisation test, adjusted"])
    with pytest.raises(InputError, match="Did you mean 'all'"):
        tk.itt(trial, design_of("relapse"), analyses="al")


def test_the_header_counts(people_of, completed, design):
    text = str(tk.itt(completed(people_of(3, missing=0.15), 8), design))
    head = text.split("\n")[:6]
    assert head[0] == "Intention to treat: A small trial"
    assert head[1] == "Imputations =         8    Site size             = 4 to 8, mean 7.0"
    assert any("Largest FMI" in line for line in head)
    assert any("Imputations to aim at" in line and "von Hippel" in line for line in head)
