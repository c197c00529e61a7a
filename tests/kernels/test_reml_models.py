"""The shared model cases (reference/models: complete lmer, lmerTest, pbkrtest, nlme and confint output) that a kernel can answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from trialkit._kernels import reml, small_sample

FOLDER = Path(__file__).parents[1] / "reference" / "models"
LMER = sorted(path.stem for path in FOLDER.glob("L*.json"))
pytestmark = pytest.mark.reference


def load(name: str) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    table = pd.read_csv(FOLDER / "data" / case["data"])
    right = case.get("formula", "y ~ arm + y0 + gender + age + edu + consumer + (1|site)").split("~")[1].split("+")
    terms = [term.strip() for term in right if "|" not in term]
    # pair holds site: outermost first
    factors = sorted((term.strip(" ()").split("|")[1] for term in right if "|" in term), key=["pair", "site"].index)
    columns, names, of_term = [np.ones(len(table))], ["(Intercept)"], ["(Intercept)"]
    for term in terms:
        values = table[term]
        if pd.api.types.is_numeric_dtype(values):
            columns.append(values.to_numpy(float))
            names.append(term)
            of_term.append(term)
        else:
            for level in sorted(values.unique())[1:]:
                columns.append((values == level).to_numpy(float))
                names.append(f"{term}{level}")
                of_term.append(term)
    groups = [pd.factorize(table[factor], sort=True)[0] for factor in factors]
    return {
        "case": case,
        "X": np.column_stack(columns),
        "y": table["y"].to_numpy(float),
        "groups": groups,
        "factors": factors,
        "names": names,
        "of_term": of_term,
    }


@pytest.mark.parametrize("name", LMER)
def test_fit_and_small_sample_inference(name: str) -> None:
    t = load(name)
    case, names = t["case"], t["names"]
    fit = reml.fit(t["X"], t["y"], t["groups"])
    each = np.eye(fit.p)

    def listed(values: dict[str, float]) -> list[float]:
        return [values[n] for n in names]

    assert bool(fit.boundary.any()) == case["singular"]
    assert_allclose(fit.beta, listed(case["fixef"]), rtol=1e-7, atol=1e-9)
    assert_allclose(np.sqrt(np.diag(fit.cov_beta)), listed(case["se"]), rtol=1e-7)
    assert_allclose(fit.cov_beta, case["vcov"], rtol=1e-6, atol=1e-9)
    assert fit.log_likelihood == pytest.approx(case["logLik_REML"], abs=1e-8)
    assert np.sqrt(fit.sigma2) == pytest.approx(case["sigma"], rel=1e-7)
    for factor, theta in zip(t["factors"], fit.theta, strict=True):
        assert np.sqrt(theta) == pytest.approx(case["theta"][f"{factor}.(Intercept)"], rel=1e-7, abs=1e-9)
    kr, satt = small_sample.kenward_roger(fit, each), small_sample.satterthwaite(fit, each)
    assert_allclose(kr.std_error, listed(case["kenward_roger"]["se"]), rtol=1e-7)
    assert_allclose(kr.df, listed(case["kenward_roger"]["df"]), rtol=1e-6)
    assert_allclose(kr.cov, case["kenward_roger"]["vcov_adj"], rtol=1e-5, atol=1e-10)
    assert_allclose(satt.df, listed(case["satterthwaite"]["df"]), rtol=1e-5)
    order = [*range(len(t["factors"]) - 1, -1, -1), len(t["factors"])]  # lme4 lists site before pair
    W = small_sample.variance_covariance(fit)
    assert_allclose(W[np.ix_(order, order)], case["kenward_roger"]["W"], rtol=1e-6, atol=1e-11)
    for term, tests in case["term_F_tests_typeIII_treatment"].items():
        L = each[[i for i, owner in enumerate(t["of_term"]) if owner == term]]
        f, s = small_sample.kenward_roger_f(fit, L), small_sample.satterthwaite_f(fit, L)
        assert f.df_num == tests["KR"]["ndf"] == s.df_num
        ours = [f.statistic, f.df_den, f.scaling, f.unscaled]
        assert_allclose(ours, [tests["KR"][key] for key in ("F", "ddf", "F_scaling", "F_unscaled")], rtol=1e-6)
        assert_allclose([s.statistic, s.df_den], [tests["Satt"]["F"], tests["Satt"]["ddf"]], rtol=1e-6)
    for factor, (codes, value, _) in zip(t["factors"], reml.random_effects(fit), strict=True):
        assert codes.tolist() == list(range(codes.size))
        assert_allclose(value[:5], np.ravel(case["ranef_first"][factor]["blup"]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", LMER)
def test_maximum_likelihood(name: str) -> None:
    t = load(name)
    theirs = t["case"]["ML"]
    fit = reml.fit(t["X"], t["y"], t["groups"], method="ml")
    assert fit.log_likelihood == pytest.approx(theirs["logLik"], abs=1e-8)
    # lme4's own optimum, not polished
    assert_allclose(fit.beta, [theirs["fixef"][n] for n in t["names"]], rtol=1e-6, atol=1e-7)
    assert_allclose(np.sqrt(np.diag(fit.cov_beta)), [theirs["se"][n] for n in t["names"]], rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in LMER if "profile_ci_ML_lme4" in json.loads((FOLDER / f"{name}.json").read_text())])
def test_profile_intervals(name: str) -> None:
    t = load(name)
    theirs = t["case"]["profile_ci_ML_lme4"]
    reduced = reml.reduce(t["X"], t["y"], t["groups"])
    ours = reml.profile_contrasts(reduced, np.eye(reduced.p))
    assert_allclose(ours, [theirs[n] for n in t["names"]], atol=1e-4)
    sd = reml.profile_sd(reduced)
    labels = [*(f"sd_(Intercept)|{factor}" for factor in t["factors"]), "sigma"]
    # lme4 reads limits off a spline: near zero it is out by up to 0.002 (test_profile_limits_lie_on_the_criterion settles who is right)
    assert_allclose(sd, [theirs[label] for label in labels], atol=2e-3)
    assert np.sort(np.abs(sd - [theirs[label] for label in labels]).ravel())[: sd.size - 2].max() < 1e-4


@pytest.mark.parametrize("name", [name for name in LMER if "icc_profile_ci_REML" in json.loads((FOLDER / f"{name}.json").read_text())])
def test_profile_intervals_of_the_intraclass_correlation(name: str) -> None:
    t = load(name)
    reduced = reml.reduce(t["X"], t["y"], t["groups"])
    for method, key in (("reml", "icc_profile_ci_REML"), ("ml", "icc_profile_ci_ML")):
        ratio = np.array(reml.profile_ratio(reduced, method=method))  # type: ignore[arg-type]
        assert_allclose(ratio / (1 + ratio), t["case"][key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in LMER if "LRT_zero_variance_REML" in json.loads((FOLDER / f"{name}.json").read_text())])
def test_likelihood_ratio_against_no_variance(name: str) -> None:
    t = load(name)
    fit = reml.fit(t["X"], t["y"], t["groups"])
    assert reml.deviance(fit.reduced, [0.0]) - fit.deviance == pytest.approx(t["case"]["LRT_zero_variance_REML"]["stat"], abs=1e-8)


@pytest.mark.parametrize("name", ["N01_nlme_crt_main", "N01_nlme_crt_8clusters"])
def test_nlme(name: str) -> None:
    t = load(name)
    fit = reml.fit(t["X"], t["y"], t["groups"])
    theirs = t["case"]["tTable"]
    # nlme stops at its optimiser's tolerance
    assert_allclose(fit.beta, [theirs["Value"][n] for n in t["names"]], rtol=1e-5, atol=1e-6)
    assert_allclose(np.sqrt(np.diag(fit.cov_beta)), [theirs["Std.Error"][n] for n in t["names"]], rtol=1e-5)
    # its heteroscedastic fit at the ratio nlme found is a fit with weights, on four columns
    other = t["case"]["heteroscedastic"]
    (level, ratio), *_ = other["ratio"].items()
    weights = np.where(t["X"][:, 1] == float(level), ratio**-2, 1.0)
    small = t["X"][:, :4]
    weighted = reml.fit(small, t["y"], t["groups"], weights=weights)
    assert weighted.log_likelihood == pytest.approx(other["logLik"], abs=1e-6)
    assert reml.fit(small, t["y"], t["groups"]).log_likelihood == pytest.approx(other["logLik_homo"], abs=1e-6)
    names = t["names"][:4]
    assert_allclose(weighted.beta, [other["fixef"][n] for n in names], rtol=1e-4)
    assert_allclose(np.sqrt(np.diag(weighted.cov_beta)), [other["se"][n] for n in names], rtol=1e-4)
    assert np.sqrt(weighted.sigma2) == pytest.approx(other["sigma_ref"], rel=1e-4)
    assert np.sqrt(weighted.variances[0]) == pytest.approx(other["tau"], rel=1e-3)
