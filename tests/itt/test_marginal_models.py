"""Sandwich corrections, marginal models and generalised mixed models against clubSandwich, geepack, glmer and glmmTMB."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trialkit.door import InputError
from trialkit.itt import fit_mixed
from trialkit.itt.gee import CORRECTIONS, FAMILIES, fit_marginal, solve
from trialkit.itt.generalised import fit_generalised
from trialkit.itt.robust import robust, sandwich

MODELS = Path(__file__).parents[1] / "reference" / "models"


def cases(prefix: str) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(MODELS.glob(f"{prefix}*.json"))]


def data(case: dict) -> pd.DataFrame:
    return pd.read_csv(MODELS / "data" / case["data"])


@pytest.mark.reference
@pytest.mark.parametrize("case", [c for c in cases("L") if "clubSandwich" in c], ids=lambda c: c["id"])
def test_sandwich_of_a_mixed_model_is_clubsandwichs(case):
    fit = fit_mixed(case["formula"], data(case))
    for kind, stored in case["clubSandwich"].items():
        table = robust(fit, kind=kind).frame.set_index("term")
        names = list(table.index)
        np.testing.assert_allclose(table["std_error"], [stored["SE"][n] for n in names], rtol=1e-6)
        np.testing.assert_allclose(table["df"], [stored["df"][n] for n in names], rtol=1e-6)
        np.testing.assert_allclose(table["p_value"], [stored["p"][n] for n in names], rtol=1e-6)


@pytest.mark.reference
@pytest.mark.parametrize("case", cases("E"), ids=lambda c: c["id"])
def test_gee_against_geepack(case):
    for correlation in ("independence", "exchangeable"):
        stored = case[correlation]
        fit = fit_marginal(case["formula"], data(case), cluster=case["cluster"], family=case["family"], correlation=correlation)
        names = list(fit.model.names)
        np.testing.assert_allclose(fit.beta, [stored["coef"][n] for n in names], rtol=1e-8)
        assert fit.phi == pytest.approx(stored["phi"], rel=1e-8)
        if correlation == "exchangeable":
            assert fit.alpha == pytest.approx(stored["alpha"], rel=1e-8)
        for correction in CORRECTIONS:
            np.testing.assert_allclose(fit.covariances[correction], stored["corrected_vcov"][correction], rtol=1e-7)


@pytest.mark.reference
@pytest.mark.parametrize("case", [c for c in cases("E") if "clubSandwich_glm_independence" in c], ids=lambda c: c["id"])
def test_the_same_sandwich_serves_a_logistic_regression(case):
    frame = data(case)
    fit = fit_marginal(case["formula"], frame, cluster=case["cluster"], correlation="independence")
    mean = 1 / (1 + np.exp(-fit.model.x @ fit.beta))
    weight = mean * (1 - mean)
    codes = fit.model.groups[0].codes
    clusters = [np.flatnonzero(codes == j) for j in range(codes.max() + 1)]
    for kind, stored in case["clubSandwich_glm_independence"].items():
        # clubSandwich works on the scale of the response: derivative of the mean, variance of the outcome
        found = sandwich(
            fit.model.x * weight[:, None], fit.model.y - mean, clusters, [np.diag(weight[rows]) for rows in clusters], kind=kind
        )
        # R's glm stops at a relative change of 1e-8 in the deviance
        np.testing.assert_allclose(np.sqrt(np.diag(found.cov)), [stored["SE"][n] for n in fit.model.names], rtol=2e-6)
        np.testing.assert_allclose(found.df, [stored["df"][n] for n in fit.model.names], rtol=2e-6)


def test_statsmodels_gee_is_the_second_opinion():
    import statsmodels.api as sm

    frame = data(cases("E")[0])
    ours = fit_marginal("ybin ~ arm + y0", frame, cluster="site", correlation="independence")
    theirs = sm.GEE.from_formula("ybin ~ arm + y0", "site", frame, family=sm.families.Binomial(), cov_struct=sm.cov_struct.Independence())
    np.testing.assert_allclose(ours.beta, theirs.fit().params, rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(ours.covariances["LZ"])), theirs.fit(cov_type="robust").bse, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(ours.covariances["MD"])), theirs.fit(cov_type="bias_reduced").bse, rtol=1e-5)


def test_gaussian_independence_is_least_squares():
    frame = pd.read_csv(MODELS / "data" / "crt_main.csv")
    fit = fit_marginal("y ~ arm + y0", frame, cluster="site", family="gaussian", correlation="independence")
    np.testing.assert_allclose(fit.beta, np.linalg.lstsq(fit.model.x, fit.model.y, rcond=None)[0], rtol=1e-10)
    assert fit.frame["df"].tolist() == [82.0] * 3


def test_corrections_only_enlarge():
    frame = data(cases("E")[0])
    fit = fit_marginal("ybin ~ arm + y0", frame, cluster="site")
    se = {name: np.sqrt(np.diag(cov)) for name, cov in fit.covariances.items()}
    assert (se["LZ"] < se["KC"]).all()
    assert (se["KC"] < se["MD"]).all()
    assert (se["LZ"] < se["FG"]).all()


def test_standardised_risks_without_covariates_are_the_arms_own():
    frame = pd.read_csv(MODELS / "data" / "crt_main.csv")
    fit = fit_marginal("ybin ~ arm", frame, cluster="site", correlation="independence", correction="LZ")
    table = fit.standardised("arm").frame.set_index("measure")
    p = frame.groupby("arm")["ybin"].mean()
    assert table["estimate"].tolist() == pytest.approx(
        [p[0], p[1], p[1] - p[0], p[1] / p[0], p[1] / (1 - p[1]) / (p[0] / (1 - p[0]))], rel=1e-10
    )
    # the difference of two means of clusters: the sandwich of least squares
    linear = fit_marginal("ybin ~ arm", frame, cluster="site", family="gaussian", correlation="independence", correction="LZ").frame
    assert table.loc["risk difference", "std_error"] == pytest.approx(linear["std_error"][1], rel=1e-10)
    log_odds = fit.frame.iloc[1]
    assert table.loc["odds ratio (marginal)", ["conf_low", "conf_high", "p_value"]].tolist() == pytest.approx(
        [np.exp(log_odds["conf_low"]), np.exp(log_odds["conf_high"]), log_odds["p_value"]], rel=1e-9
    )


def test_standardised_gradient_by_differences():
    frame = pd.read_csv(MODELS / "data" / "crt_main.csv")
    fit = fit_marginal("ybin ~ arm + y0 + gender", frame, cluster="site")
    x, k = fit.model.x, fit.model.names.index("arm")

    def difference(beta):
        one, zero = x.copy(), x.copy()
        one[:, k], zero[:, k] = 1.0, 0.0
        return np.mean(1 / (1 + np.exp(-one @ beta))) - np.mean(1 / (1 + np.exp(-zero @ beta)))

    gradient = np.array([(difference(fit.beta + h) - difference(fit.beta - h)) / 2e-6 for h in 1e-6 * np.eye(len(fit.beta))])
    row = fit.standardised("arm").frame.set_index("measure").loc["risk difference"]
    assert row["std_error"] == pytest.approx(np.sqrt(gradient @ fit.covariances["MD"] @ gradient), rel=1e-6)
    assert row["df"] == 81.0


def test_standardised_refuses_what_it_cannot_move():
    frame = pd.read_csv(MODELS / "data" / "crt_main.csv")
    with pytest.raises(InputError, match="interaction"):
        fit_marginal("ybin ~ arm * y0", frame, cluster="site").standardised("arm")
    with pytest.raises(InputError, match="not 0/1"):
        fit_marginal("ybin ~ arm + y0", frame, cluster="site").standardised("y0")


@pytest.mark.reference
@pytest.mark.parametrize("nodes", [1, 10, 25])
@pytest.mark.parametrize("case", [c for c in cases("G") if "glmer_nAGQ10" in c], ids=lambda c: c["id"])
def test_quadrature_against_glmer(case, nodes):
    stored = case[f"glmer_nAGQ{nodes}"]
    fit = fit_generalised(case["formula"], data(case), family=case["family"], nodes=nodes, inference="normal")
    names = list(fit.model.names)
    # bobyqa stops within about 1e-6
    np.testing.assert_allclose(fit.beta, [stored["coef"]["Estimate"][n] for n in names], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fit.frame["std_error"], [stored["coef"]["Std. Error"][n] for n in names], rtol=1e-5)
    np.testing.assert_allclose(fit.frame["p_value"], [stored["coef"]["Pr(>|z|)"][n] for n in names], rtol=1e-4)
    assert fit.sd == pytest.approx(stored["theta"], rel=1e-5)
    assert fit.log_likelihood == pytest.approx(stored["logLik"], abs=1e-8)


@pytest.mark.reference
def test_negative_binomial_against_glmmtmb():
    case = next(c for c in cases("G") if c["family"] == "nbinom2")
    fit = fit_generalised(case["formula"], data(case), family="negative-binomial", nodes=1, inference="normal")
    names = list(fit.model.names)
    np.testing.assert_allclose(fit.beta, [case["coef"]["Estimate"][n] for n in names], rtol=1e-5)
    np.testing.assert_allclose(fit.frame["std_error"], [case["coef"]["Std. Error"][n] for n in names], rtol=1e-5)
    assert fit.size == pytest.approx(case["theta_dispersion"], rel=1e-5)
    assert fit.log_likelihood == pytest.approx(case["logLik"], abs=1e-8)


def test_without_site_variation_a_generalised_model_is_the_plain_one():
    rng = np.random.default_rng(3)
    # every site has the same share of ones: no more variation than none
    frame = pd.DataFrame({"site": np.repeat(np.arange(12), 10), "arm": np.repeat(np.arange(12) % 2, 10)})
    frame["y"] = np.tile([1.0] * 4 + [0.0] * 6, 12)
    frame["x"] = rng.normal(size=120)
    fit = fit_generalised("y ~ x", frame, group="site")
    plain = fit_marginal("y ~ x", frame, cluster="site", correlation="independence")
    assert fit.sd == pytest.approx(0, abs=1e-3)
    assert "boundary" in fit.notes[-1]
    np.testing.assert_allclose(fit.beta, plain.beta, atol=1e-5)


@pytest.mark.parametrize("fit", ["marginal", "generalised"])
def test_separation_is_refused(fit):
    frame = pd.DataFrame({"site": np.repeat(np.arange(10), 6), "arm": np.repeat(np.arange(10) % 2, 6)})
    frame["y"] = np.where(frame["arm"] == 1, 1.0, np.tile([0.0, 1.0], 30))
    with pytest.raises(InputError, match="separation"):
        fit_marginal("y ~ arm", frame, cluster="site") if fit == "marginal" else fit_generalised("y ~ arm", frame, group="site")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda d: fit_marginal("y ~ arm", d, cluster="site"), "must be 0 or 1"),
        (lambda d: fit_marginal("y ~ arm", d, cluster="site", family="poisson"), "must be counts"),
        (lambda d: fit_marginal("y ~ arm", d, cluster="site", family="binomal"), "Did you mean 'binomial'"),
        (lambda d: fit_marginal("ybin ~ arm + (1|site)", d, cluster="site"), "no random part"),
        (lambda d: fit_marginal("ybin ~ site", d, cluster="site"), "no degrees of freedom"),
        (lambda d: fit_generalised("ybin ~ arm", d), "one grouping factor"),
        (lambda d: fit_generalised("ybin ~ arm", d, group="site", nodes=0), "between 1"),
        (lambda d: fit_generalised("y ~ arm", d, group="site", family="poisson"), "must be counts"),
        (lambda d: robust(fit_mixed("y ~ arm", d, groups="site"), kind="CR9"), "unknown kind"),
    ],
)
def test_refused(call, says):
    with pytest.raises(InputError, match=says):
        call(pd.read_csv(MODELS / "data" / "crt_8clusters.csv"))


def test_a_correlation_that_large_clusters_cannot_have_gives_way_to_independence():
    # two large clusters each split exactly like the whole, and small ones at odds inside: the moment estimate is below -1 / 29
    site = np.repeat([0, 1, 2, 3, 4, 5], [30, 30, 2, 2, 2, 2])
    y = np.concatenate([np.tile([0.0, 1.0], 15), np.tile([0.0, 1.0], 15), np.tile([0.0, 1.0], 4)])
    people = pd.DataFrame({"site": site, "arm": site % 2, "y": y, "z": np.random.default_rng(1).normal(size=68)})
    fit = fit_marginal("y ~ arm + z", people, cluster="site")
    alone = fit_marginal("y ~ arm + z", people, cluster="site", correlation="independence")
    np.testing.assert_allclose(fit.frame["estimate"], alone.frame["estimate"], rtol=1e-8)
    np.testing.assert_allclose(fit.frame["std_error"], alone.frame["std_error"], rtol=1e-8)
    assert any("independence was used instead" in note for note in fit.notes)
    assert not any("independence" in note for note in alone.notes)


def test_slow_alternation_is_finished_by_a_root_search():
    # taking turns between beta and alpha gains a digit in hundreds of steps here; there is no separation
    sizes, yes = [30, 12, 8, 5, 3, 2], [19, 5, 3, 3, 0, 2]
    site = np.repeat(np.arange(6), sizes)
    y = np.concatenate([np.repeat([1.0, 0.0], [k, n - k]) for n, k in zip(sizes, yes, strict=True)])
    x = np.column_stack([np.ones(60), site % 2])
    found = solve(x, y, site.astype(np.intp), FAMILIES["binomial"], exchangeable=True)
    # at the answer both sets of equations hold
    r = (y - 1 / (1 + np.exp(-x @ found.beta))) / np.sqrt(FAMILIES["binomial"].variance(1 / (1 + np.exp(-x @ found.beta))))
    sums, squares = np.bincount(site, r), np.bincount(site, r * r)
    pairs = sum(n * (n - 1) / 2 for n in sizes)
    assert found.alpha == pytest.approx(((sums**2 - squares).sum() / 2) / ((r @ r / 60) * pairs), rel=1e-8)
    assert found.alpha == pytest.approx(0.03517, abs=1e-5)
    inverse = np.linalg.inv((1 - found.alpha) * np.eye(60) + found.alpha * (site[:, None] == site))
    root = np.sqrt(FAMILIES["binomial"].variance(1 / (1 + np.exp(-x @ found.beta))))
    np.testing.assert_allclose((x * root[:, None]).T @ inverse @ r, 0, atol=1e-9)
