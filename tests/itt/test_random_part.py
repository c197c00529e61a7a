"""Slopes, three factors and a residual variance an arm, through `fit_mixed`: lme4, lmerTest, pbkrtest and nlme on stored data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from trialkit._kernels.structured_profile import profile_variances
from trialkit.door import InputError
from trialkit.itt import fit_mixed, robust

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "structured_models.json").read_text())
SETS = {name: pd.DataFrame(columns) for name, columns in REFERENCE["sets"].items()}
LMER, NLME = REFERENCE["lmer"], REFERENCE["nlme"]


def data_of(case):
    return SETS["C1" if case["id"] == "X1" else case["id"][:2]]


@pytest.mark.reference
@pytest.mark.parametrize("case", LMER, ids=lambda c: f"{c['id']}: {c['formula']}")
def test_agrees_with_lme4_pbkrtest_and_lmertest(case):
    d = data_of(case)
    kr, satt = fit_mixed(case["formula"], d), fit_mixed(case["formula"], d, inference="satterthwaite")
    assert list(kr.frame["term"]) == case["names"]
    np.testing.assert_allclose(kr.frame["estimate"], case["estimate"], rtol=1e-6)
    np.testing.assert_allclose([kr.model_std_error(t) for t in case["names"]], case["std_error"], rtol=1e-6)
    np.testing.assert_allclose(kr.frame["std_error"], case["kr_std_error"], rtol=1e-6)
    np.testing.assert_allclose(kr.frame["df"], case["kr_df"], rtol=1e-6)
    np.testing.assert_allclose(satt.frame["df"], case["satt_df"], rtol=1e-5)
    assert kr.log_likelihood == pytest.approx(case["log_likelihood"], abs=1e-8)
    assert fit_mixed(case["formula"], d, method="ml").log_likelihood == pytest.approx(case["ml_log_likelihood"], abs=1e-8)
    # VarCorr: variances and covariances
    ours = kr.variance_components
    theirs = [v for v, second in zip(case["vcov"], case["var2"], strict=True) if not second]
    np.testing.assert_allclose(sorted(ours["variance"]), sorted(theirs), rtol=1e-6, atol=1e-9)
    covariances = [v for v, second in zip(case["vcov"], case["var2"], strict=True) if second]
    if covariances:
        T = kr.kernel.covariances[-1] if case["id"] == "C1p" else kr.kernel.covariances[0]
        np.testing.assert_allclose(T[0, 1], covariances[0], rtol=1e-6)
    if "joint" in case:
        a, b = (f.test(case["names"][1:]).frame.iloc[0] for f in (kr, satt))
        np.testing.assert_allclose([a["statistic"], a["df2"]], [case["joint"]["kr_f"], case["joint"]["kr_df"]], rtol=1e-6)
        np.testing.assert_allclose([b["statistic"], b["df2"]], [case["joint"]["satt_f"], case["joint"]["satt_df"]], rtol=1e-5)


@pytest.mark.reference
@pytest.mark.parametrize("case", [c for c in LMER if "ranef" in c], ids=lambda c: c["id"])
def test_predictions_are_ranef(case):
    fit = fit_mixed(case["formula"], data_of(case))
    for group, theirs in case["ranef"].items():
        ours = fit.random_effects(group)
        assert list(dict.fromkeys(ours["level"])) == theirs["level"]
        # uncorrelated parts come from lme4 in an order of its own
        order = np.sort if "variance" not in theirs else np.asarray
        np.testing.assert_allclose(order(ours["estimate"]), order(theirs["values"]), rtol=1e-5, atol=1e-7)
        if "variance" in theirs:  # R's run over terms within levels
            terms = len(ours) // len(theirs["level"])
            variance = np.asarray(theirs["variance"]).reshape(-1, terms).T.ravel()
            np.testing.assert_allclose(ours["std_error"] ** 2, variance, rtol=1e-5, atol=1e-9)


@pytest.mark.reference
@pytest.mark.parametrize("case", NLME, ids=lambda c: c["id"])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_agrees_with_nlme(case, method):
    groups = [case["groups"]] if isinstance(case["groups"], str) else case["groups"]
    slopes = {"pair": "arm"} if "arm" in case["random"] else None
    d = SETS[case["set"]]
    fit = fit_mixed(f"y ~ {case['fixed']}", d, groups=groups, slopes=slopes, residual_by="arm", method=method)
    theirs = case[method.upper()]
    # nlme searches logarithms numerically and stops where it stops; a likelihood above its own is allowed, one below is not
    assert -1e-9 < fit.log_likelihood - theirs["log_likelihood"] < 1e-6
    np.testing.assert_allclose(fit.frame["estimate"], theirs["estimate"], rtol=1e-4)
    np.testing.assert_allclose([fit.model_std_error(t) for t in theirs["names"]], theirs["std_error"], rtol=2e-5)
    sds = fit.variance_components.set_index("term")["sd"]
    for arm, sd in theirs["residual_sd"].items():
        assert sds[f"arm {arm}"] == pytest.approx(sd, rel=1e-5)


# --- what the user sees -------------------------------------------------------------------------------------


@pytest.fixture
def paired():
    return SETS["V3"]


def test_three_ways_to_ask_for_a_slope(paired):
    in_words = fit_mixed("y ~ arm + (1 + arm|pair)", paired)
    by_argument = fit_mixed("y ~ arm", paired, groups=["pair"], slopes={"pair": "arm"})
    short = fit_mixed("y ~ arm + (arm|pair)", paired, inference="kenward-roger")
    for other in (by_argument, short):
        pd.testing.assert_frame_equal(in_words.frame, other.frame)
    assert by_argument.formula == "y ~ arm + (1 + arm|pair)"
    assert list(in_words.variance_components.columns) == [
        "group", "term", "variance", "sd", "share", "groups", "boundary", "correlation",
    ]  # fmt: skip


def test_uncorrelated_slopes_have_no_covariance(paired):
    fit = fit_mixed("y ~ arm + (1 + arm||pair)", paired)
    assert [T.shape for T in fit.kernel.covariances] == [(1, 1), (1, 1)]
    assert fit.log_likelihood <= fit_mixed("y ~ arm + (1 + arm|pair)", paired).log_likelihood


def test_equal_residual_variances_gain_little_and_unequal_ones_much():
    for name, large in (("A1", False), ("V1", True)):
        d = SETS[name]
        one, two = fit_mixed("y ~ arm", d, groups="site"), fit_mixed("y ~ arm", d, groups="site", residual_by="arm")
        row = two.compare(one).frame.iloc[1]
        assert row["df"] == 1
        assert bool(row["p_value"] < 1e-4) == large


def test_the_average_rows_shares_and_correlation(paired):
    fit = fit_mixed("y ~ arm", paired, groups=["pair"], slopes={"pair": "arm"}, residual_by="arm")
    V = np.vstack([np.diag(fit_covariance(fit))]).ravel()
    assert fit.variances.sum() == pytest.approx(V.mean(), rel=1e-9)
    assert 0 < fit.icc < 1
    assert fit.icc == pytest.approx(1 - fit.variances[-1] / V.mean(), rel=1e-9)
    assert fit.variances_covariance.shape == (2, 2)
    table = fit.variance_components
    assert list(table["group"]) == ["pair", "pair", "Residual", "Residual"]
    assert list(table["term"]) == ["(Intercept)", "armintervention", "arm control", "arm intervention"]
    assert -1 <= table["correlation"][1] <= 1


def fit_covariance(fit):
    from trialkit.itt import random_part

    return random_part.covariance(fit.model, fit.kernel, np.arange(fit.n))


def test_fitted_values_and_residuals_add_up(paired):
    fit = fit_mixed("y ~ arm + x", paired, groups=["pair"], slopes={"pair": "arm"}, residual_by="arm")
    np.testing.assert_allclose(fit.fitted() + fit.residuals(), fit.response)
    beta = fit.frame["estimate"].to_numpy()
    np.testing.assert_allclose(fit.fitted(conditional=False), fit.model.x @ beta)
    # best linear unbiased predictions: Z G Z' V^-1 (y - X b)
    V = fit_covariance(fit)
    R = np.diag(np.diag(V) - random_spread(fit))
    np.testing.assert_allclose(fit.residuals(), R @ np.linalg.solve(V, fit.response - fit.fitted(conditional=False)), rtol=1e-7, atol=1e-9)


def random_spread(fit):
    part, T = fit.model.random[0], fit.kernel.covariances[0]
    return np.einsum("na,ab,nb->n", part.design, T, part.design)


def test_robust_and_intervals_follow(paired):
    fit = fit_mixed("y ~ arm", paired, groups=["pair"], slopes={"pair": "arm"})
    table = robust(fit).frame
    assert (table["std_error"] > 0).all() and (table["df"] < 18).all()
    limits = fit.confint()
    random = ["sd(pair)", "sd(pair, armintervention)", "cor(pair, (Intercept), armintervention)", "sd(Residual)"]
    assert list(limits["parameter"]) == ["(Intercept)", "armintervention", *random]
    assert ((limits["conf_low"] <= limits["estimate"]) & (limits["estimate"] <= limits["conf_high"])).all()
    with pytest.raises(InputError, match="random intercepts on one or two factors"):
        fit.icc_interval()


def test_profile_limits_of_intercepts_are_the_other_kernels():
    d = SETS["D1"]
    two = fit_mixed("y ~ arm + x", d, groups=["pair", "site"]).confint()
    from trialkit._kernels.reml_profile import profile_contrasts_structured
    from trialkit._kernels.structured import RandomTerm, reduce_structured

    model = fit_mixed("y ~ arm + x", d, groups=["pair", "site"]).model
    one = np.ones((len(d), 1))
    blocks = reduce_structured(model.x, model.y, [g.codes for g in model.groups], [RandomTerm(0, one), RandomTerm(1, one)])
    limits = profile_contrasts_structured(blocks, np.eye(3))
    np.testing.assert_allclose(limits, two[["conf_low", "conf_high"]].to_numpy()[:3], rtol=1e-7)
    # and so are those of the standard deviations
    spread = np.array([[p.low, p.high] for p in profile_variances(blocks)])
    np.testing.assert_allclose(spread, two[["conf_low", "conf_high"]].to_numpy()[3:], rtol=1e-6, atol=1e-9)


PROFILES = json.loads((Path(__file__).parents[1] / "reference" / "structured_profiles.json").read_text())["cases"]


@pytest.mark.reference
@pytest.mark.parametrize(
    "case", [c if c["id"] in ("A1", "A3") else pytest.param(c, marks=pytest.mark.slow) for c in PROFILES], ids=lambda c: c["id"]
)
def test_profile_limits_of_spreads_against_lme4s_deviance(case):
    """95% limits of standard deviations and correlations: roots of lme4's own profiled deviance."""
    fit = fit_mixed(f"y ~ {case['fixed']} + {case['random']}", SETS[case["set"]])
    mine = fit.confint().set_index("parameter")
    groups = [g.name for g in fit.model.groups]
    for name, low, high in zip(case["names"], case["low"], case["high"], strict=True):
        what, _, group = name.partition("|")
        kind, _, terms = what.partition("_")
        if name == "sigma":
            row = mine.loc["sd(Residual)"]
        elif kind == "cor":
            row = mine.loc[next(k for k in mine.index if k.startswith(f"cor({group}, "))]
        else:
            row = mine.loc[f"sd({group})" if terms == "(Intercept)" else f"sd({group}, {terms})"]
        assert group in (*groups, "")
        assert [row["conf_low"], row["conf_high"]] == pytest.approx([low, high], abs=1e-4), name


def test_profile_limits_by_stratum_are_roots_of_the_likelihood():
    """At the limits of an arm's residual SD the likelihood, maximised densely over the rest, lies z^2 / 2 below its maximum."""
    d = SETS["V1"]
    fit = fit_mixed("y ~ arm + x", d, groups=["site"], residual_by="arm")
    row = fit.confint().set_index("parameter").loc["sd(Residual, arm intervention)"]
    site = np.unique(d["site"], return_inverse=True)[1]
    same, treated = site[:, None] == site, (d["arm"] == "intervention").to_numpy()
    x, y = fit.model.x, fit.model.y

    def deviance(logs, held):
        own = np.where(treated, np.exp(held), np.exp(logs[0]))
        chol = np.linalg.cholesky(np.exp(logs[1]) * same + np.diag(own))
        wx, wy = np.linalg.solve(chol, x), np.linalg.solve(chol, y)
        left = wy - wx @ np.linalg.lstsq(wx, wy, rcond=None)[0]
        return 2 * np.log(np.diagonal(chol)).sum() + left @ left

    start = [0.2, -3.0]
    best = optimize.minimize(lambda q: deviance(q[:2], q[2]), [*start, 1.7], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
    for limit in (row["conf_low"], row["conf_high"]):
        held = optimize.minimize(deviance, start, args=(2 * np.log(limit),), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
        assert held.fun - best.fun == pytest.approx(1.959964**2, abs=2e-5)


def test_a_lost_rank_is_said():
    fit = fit_mixed("y ~ arm + (1 + arm|pair)", SETS["A1"])
    assert any("a correlation of one" in note and "Kenward-Roger still counts it" in note for note in fit.notes)


def test_slopes_the_data_cannot_tell_are_refused(paired):
    with pytest.raises(InputError, match="does not vary within any site"):
        fit_mixed("y ~ arm + (1 + arm|site)", paired)
    with pytest.raises(InputError, match="place of the site's intercept"):
        fit_mixed("y ~ arm + (1 + arm|pair) + (1|site)", paired)
    with pytest.raises(InputError, match="slopes= goes with groups="):
        fit_mixed("y ~ arm + (1|pair)", paired, slopes={"pair": "arm"})
    with pytest.raises(InputError, match="one value"):
        fit_mixed("y ~ x + (1 + arm|pair)", paired[paired["arm"] == "control"])


def test_likelihood_ratio():
    d = SETS["A3"]
    large, small = fit_mixed("y ~ arm + (1 + arm|pair)", d), fit_mixed("y ~ arm + (1|pair)", d)
    table = large.compare(small).frame
    gain = 2 * (large.log_likelihood - small.log_likelihood)
    from scipy import stats

    assert table["statistic"][1] == pytest.approx(gain)
    assert table["df"][1] == 2
    assert table["p_value"][1] == pytest.approx(stats.chi2.sf(gain, 2))
    assert table["p_value_mixture"][1] == pytest.approx((stats.chi2.sf(gain, 1) + stats.chi2.sf(gain, 2)) / 2)
    ml, without = (fit_mixed(f, d, method="ml", groups=["pair"]) for f in ("y ~ arm + x", "y ~ arm"))
    assert np.isnan(ml.compare(without).frame["p_value_mixture"][1])
    for a, b, says in (
        (small, large, "call compare on the larger one"),
        (large, ml, "one method for both"),
        (large, fit_mixed("y ~ x + (1|pair)", d), "same fixed effects"),
        (large, fit_mixed("y ~ arm + (1|pair)", d[1:]), "different rows"),
    ):
        with pytest.raises(InputError, match=says):
            a.compare(b)


def test_counted_df_of_a_coefficient_that_varies_between_pairs(paired):
    d = paired
    contained = fit_mixed("y ~ arm + x", d, groups=["pair"], slopes={"pair": "arm"}, inference="containment")
    assert contained.row("armintervention")["df"] == d["pair"].nunique() - 1
    assert contained.row("x")["df"] == d.shape[0] - d["pair"].nunique() - 2
    between = fit_mixed("y ~ arm + x", d, groups=["pair"], slopes={"pair": "arm"}, inference="between-within")
    assert any("know nothing of random slopes" in note for note in between.notes)


def test_every_argument_says_what_it_wants(paired):
    for arguments, says in (
        ({"slopes": "arm"}, "name the grouping column of each slope"),
        ({"residual_by": 3}, "name of a column"),
        ({"weights": 2.0}, "name of a column"),
        ({"residual_by": "x"}, "Join levels"),
    ):
        with pytest.raises(InputError, match=says):
            fit_mixed("y ~ arm", paired, groups="pair", **arguments)
