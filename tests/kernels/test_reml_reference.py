"""REML, ML, Kenward-Roger and Satterthwaite against lme4, pbkrtest and lmerTest on stored data sets (reference/mixed_models.R)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trialkit._kernels import reml, small_sample

REFERENCE = Path(__file__).parents[1] / "reference" / "mixed_models.json"
CASES: list[dict[str, Any]] = json.loads(REFERENCE.read_text())["cases"]

# R's optimum is polished to about 1e-9 in theta by numerical derivatives; lmerTest differentiates numerically twice
ESTIMATE, SATTERTHWAITE, LIKELIHOOD = 1e-6, 1e-5, 1e-8


def arrays(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], np.ndarray | None]:
    data = case["data"]
    site = np.repeat(np.arange(len(data["site_sizes"])), data["site_sizes"])
    n = site.size
    columns = [np.ones(n)]
    for term in case["terms"]:
        if term == "arm":
            columns.append(np.array(data["arm"], dtype=float)[site])
        elif term == "z":
            columns.append(np.array(data["z"])[site])
        elif term == "f":
            columns += [np.array([letter == level for letter in data["f"]], dtype=float) for level in "bc"]
        else:
            columns.append(np.array(data[term], dtype=float))
    codes = {"site": site, "pair": site // 2, "person": np.arange(n) // 3}
    weights = np.array(data["w"]) if "w" in data else None
    return np.column_stack(columns), np.array(data["y"]), [codes[g] for g in case["groups"]], weights


def close(ours: Any, theirs: Any, tolerance: float) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * 1e-3)


def test_the_stored_sets_are_enough() -> None:
    singular = [case for case in CASES if any(case["reml"]["singular"])]
    assert len(CASES) >= 60
    assert len(singular) >= 15
    assert {tuple(case["groups"]) for case in CASES} == {("site",), ("pair", "site"), ("site", "person")}


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_agrees_with_r(case: dict[str, Any]) -> None:
    X, y, groups, weights = arrays(case)
    fit = reml.fit(X, y, groups, weights=weights)
    theirs = case["reml"]
    assert fit.status == "ok"
    assert fit.optimum.converged and fit.optimum.relative_gradient < 1e-12
    assert fit.boundary.tolist() == theirs["singular"]
    close(fit.beta, theirs["beta"], ESTIMATE)
    close(np.sqrt(np.diag(fit.cov_beta)), theirs["se"], ESTIMATE)
    close(fit.variances, theirs["variances"], ESTIMATE)
    close(fit.sigma2, theirs["sigma2"], ESTIMATE)
    assert fit.log_likelihood == pytest.approx(theirs["log_likelihood"], abs=LIKELIHOOD)

    ml = reml.fit(X, y, groups, weights=weights, method="ml")
    close(ml.beta, case["ml"]["beta"], ESTIMATE)
    close(np.sqrt(np.diag(ml.cov_beta)), case["ml"]["se"], ESTIMATE)
    close(ml.variances, case["ml"]["variances"], ESTIMATE)
    assert ml.log_likelihood == pytest.approx(case["ml"]["log_likelihood"], abs=LIKELIHOOD)

    if weights is None:  # pbkrtest leaves the weights out of its residual matrix
        each = np.eye(X.shape[1])
        kr = small_sample.kenward_roger(fit, each)
        close(kr.std_error, case["kenward_roger"]["se"], ESTIMATE)
        close(kr.df, case["kenward_roger"]["df"], ESTIMATE)
        close(small_sample.satterthwaite(fit, each).df, case["satterthwaite"]["df"], SATTERTHWAITE)
        if "joint" in case:
            joint, L = case["joint"], each[case["joint"]["columns"]]
            f = small_sample.kenward_roger_f(fit, L)
            close([f.statistic, f.df_den, f.scaling], [joint["kr_f"], joint["kr_df"], joint["kr_scaling"]], ESTIMATE)
            s = small_sample.satterthwaite_f(fit, L)
            close([s.statistic, s.df_den], [joint["satt_f"], joint["satt_df"]], SATTERTHWAITE)


@pytest.mark.reference
@pytest.mark.parametrize("case", [c for c in CASES if "w" not in c["data"]], ids=lambda case: case["id"])
def test_batches_give_the_single_fits(case: dict[str, Any]) -> None:
    X, y, groups, _ = arrays(case)
    responses = np.column_stack([y, y[::-1], 1e3 * y + 1e6])
    many = reml.fit_many(X, responses, groups)
    sets = reml.fit_sets([(X, responses[:, i]) for i in range(3)], groups)
    for i in range(3):
        one = reml.fit(X, responses[:, i], groups)
        kr, satt = (rule(one, np.eye(X.shape[1])) for rule in (small_sample.kenward_roger, small_sample.satterthwaite))
        for theta in (many.theta[i], sets[i].theta):
            np.testing.assert_allclose(theta, one.theta, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(many.log_likelihood[i], one.log_likelihood, rtol=1e-12)
        np.testing.assert_allclose(many.kenward_roger.std_error[i], kr.std_error, rtol=1e-9)
        np.testing.assert_allclose(many.kenward_roger.df[i], kr.df, rtol=1e-8)
        np.testing.assert_allclose(many.satterthwaite.df[i], satt.df, rtol=1e-8)
        assert many.boundary[i].tolist() == one.boundary.tolist()
