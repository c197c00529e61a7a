"""Real trials and multilevel data against lme4, lmerTest, pbkrtest, nlme, clubSandwich and emmeans (reference/real_sets.R)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trialkit.itt import fit_mixed, robust

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "real_sets.json").read_text())


def table(name: str) -> pd.DataFrame:
    stored = pd.DataFrame(REFERENCE["data"][name])
    if name != "awards":
        return stored
    # the cohort is stored as counts: pupils by pair, school and sex, and how many of them passed
    rows = stored.loc[stored.index.repeat(stored["n"])].reset_index(drop=True)
    place = rows.groupby(["school_id", "sex"]).cumcount()
    columns = {"treated": rows["treated"], "sex": rows["sex"], "pair": rows["pair"].astype(str), "school": rows["school_id"].astype(str)}
    return pd.DataFrame({"y": (place < rows["passed"]).astype(float), **columns})


@pytest.mark.reference
@pytest.mark.parametrize("case", REFERENCE["lmer"], ids=lambda c: c["id"])
def test_agrees_with_r(case):
    d = table(case["data"])
    formula = case["formula"]
    kr, satt = fit_mixed(formula, d), fit_mixed(formula, d, inference="satterthwaite")
    place = [list(kr.frame["term"]).index(name) for name in case["names"]]

    def mine(column, fit=kr):
        return fit.frame[column].to_numpy()[place]

    # R orders a factor's levels by the locale, ours by code point: names are matched, reference levels agree
    np.testing.assert_allclose(mine("estimate"), case["estimate"], rtol=1e-6)
    np.testing.assert_allclose(mine("std_error"), case["kr_std_error"], rtol=1e-6)
    np.testing.assert_allclose(mine("df"), case["kr_df"], rtol=1e-6)
    np.testing.assert_allclose(mine("std_error", satt), case["std_error"], rtol=1e-6)
    np.testing.assert_allclose(mine("df", satt), case["satt_df"], rtol=1e-5)
    assert kr.log_likelihood == pytest.approx(case["log_likelihood"], abs=1e-8)
    assert fit_mixed(formula, d, method="ml").log_likelihood == pytest.approx(case["ml_log_likelihood"], abs=1e-8)
    variances = [v for v, second in zip(case["vcov"], case["var2"], strict=True) if not second]
    np.testing.assert_allclose(sorted(kr.variance_components["variance"]), sorted(variances), rtol=1e-6, atol=1e-10)
    if "joint" in case:
        names = [name for name in case["names"] if name != "(Intercept)"]
        a, b = (fit.test(names).frame.iloc[0] for fit in (kr, satt))
        np.testing.assert_allclose([a["statistic"], a["df2"]], [case["joint"]["kr_f"], case["joint"]["kr_df"]], rtol=1e-6)
        np.testing.assert_allclose([b["statistic"], b["df2"]], [case["joint"]["satt_f"], case["joint"]["satt_df"]], rtol=1e-5)


@pytest.mark.reference
def test_the_matched_pair_trial_by_the_sandwich():
    case = REFERENCE["robust"]
    found = robust(fit_mixed(case["formula"], table(case["data"]))).frame
    np.testing.assert_allclose(found["std_error"], case["std_error"], rtol=1e-6)
    np.testing.assert_allclose(found["df"], case["df"], rtol=1e-6)


@pytest.mark.reference
def test_marginal_means_of_the_split_plot():
    case = REFERENCE["means"]
    found = fit_mixed(case["formula"], table(case["data"])).means("variety").frame.head(3)
    assert list(found["level"]) == case["level"]
    for column in ("estimate", "std_error", "df"):  # emmeans reads lme4's own optimum, which is not polished
        np.testing.assert_allclose(found[column], case[column], rtol=5e-6)


@pytest.mark.reference
def test_growth_of_boys_and_girls_with_residual_variances_of_their_own():
    case = REFERENCE["orthodont_by_sex"]
    fit = fit_mixed("y ~ sex * age", table("orthodont"), groups=["subject"], residual_by="sex")
    frame = fit.frame.set_index("term")
    # nlme's reference level is Male, ours the first in code-point order; the difference in slopes changes its sign
    assert abs(frame.loc["sexMale:age", "estimate"]) == pytest.approx(abs(case["estimate"][3]), rel=1e-6)
    assert frame.loc["sexMale:age", "estimate"] != 0
    assert fit.log_likelihood == pytest.approx(case["log_likelihood"], abs=1e-8)
    sds = fit.variance_components.set_index("term")["sd"]
    for sex, sd in case["residual_sd"].items():
        assert sds[f"sex {sex}"] == pytest.approx(sd, rel=1e-6)
