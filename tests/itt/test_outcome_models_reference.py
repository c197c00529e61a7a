"""Ordinal, binary and count models in clusters against R on data sets that R packages ship (tests/reference/outcome_models.R)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from trialkit.itt import fit_generalised, fit_marginal, fit_ordinal

STORED = json.loads((Path(__file__).parents[1] / "reference" / "outcome_models.json").read_text())
pytestmark = pytest.mark.reference


def data(name: str) -> pd.DataFrame:
    return pd.DataFrame(STORED[name]["data"])


@pytest.mark.parametrize(("nodes", "stored"), [(15, "agq15"), (1, "laplace")])
def test_clmm_on_wine(nodes, stored):
    r = STORED["wine"][stored]
    fit = fit_ordinal("rating ~ warm + yes", data("wine"), cluster="judge", model="mixed", nodes=nodes, df="normal")
    # clmm's own search and numerical Hessian stop about here
    np.testing.assert_allclose(np.concatenate([fit.thresholds, fit.beta]), list(r["coef"].values()), rtol=1e-5)
    if nodes > 1:
        np.testing.assert_allclose(np.sqrt(np.diagonal(fit.covariances["information"])), list(r["se"].values()), rtol=1e-5)
    assert fit.sd == pytest.approx(r["sd"], rel=1e-5)
    # a likelihood below clmm's would be a worse fit
    assert fit.log_likelihood >= r["logLik"] - 1e-10
    assert fit.log_likelihood == pytest.approx(r["logLik"], abs=1e-7)


def test_standard_errors_at_one_node_are_those_of_laplaces_likelihood():
    """clmm prints standard errors up to 0.6% larger at nAGQ = 1; a 30-digit Hessian and the package's own clmm2 say what is right."""
    exact = json.loads((Path(__file__).parents[1] / "reference" / "laplace_wine.json").read_text())
    fit = fit_ordinal("rating ~ warm + yes", data("wine"), cluster="judge", model="mixed", nodes=1, df="normal")
    mine = np.sqrt(np.diagonal(fit.covariances["information"]))
    assert fit.log_likelihood == pytest.approx(exact["log_likelihood"], abs=1e-12)
    np.testing.assert_allclose(mine, exact["std_error"][:6], rtol=1e-7)
    np.testing.assert_allclose(exact["ordinal"]["clmm2"], mine, rtol=6e-5)
    assert np.abs(np.array(exact["ordinal"]["clmm"]) / mine - 1).max() > 5e-3
    # and clmm's own maximum lies below ours
    assert fit.log_likelihood > STORED["wine"]["laplace"]["logLik"]


def test_marginal_proportional_odds_on_wine():
    r = STORED["wine"]["marginal"]
    fit = fit_ordinal("rating ~ warm + yes", data("wine"), cluster="judge", df="normal")
    np.testing.assert_allclose(np.concatenate([fit.thresholds, fit.beta]), r["theta"], rtol=1e-9)
    for name, stored in r["vcov"].items():
        np.testing.assert_allclose(fit.covariances[name], stored, rtol=1e-7, atol=1e-10)


def test_glmer_and_geepack_on_cbpp():
    frame = data("cbpp")
    r = STORED["cbpp"]["agq15"]
    fit = fit_generalised("sick ~ period", frame, group="herd", nodes=15, inference="normal")
    np.testing.assert_allclose(fit.beta, list(r["coef"].values()), rtol=1e-5)
    np.testing.assert_allclose(fit.frame["std_error"], list(r["se"].values()), rtol=1e-5)
    assert fit.sd == pytest.approx(r["sd"], rel=1e-5)
    assert fit.log_likelihood == pytest.approx(r["logLik"], abs=1e-7)
    r = STORED["cbpp"]["gee"]
    gee = fit_marginal("sick ~ period", frame, cluster="herd")
    np.testing.assert_allclose(gee.beta, list(r["coef"].values()), rtol=1e-8)
    assert [gee.alpha, gee.phi] == pytest.approx([r["alpha"], r["phi"]], rel=1e-8)
    np.testing.assert_allclose(gee.covariances["LZ"], r["naive"], rtol=1e-7)
    for name, stored in r["vcov"].items():
        np.testing.assert_allclose(gee.covariances[name], stored, rtol=1e-6)


def test_glmer_on_grouseticks():
    frame = data("grouseticks")
    r = STORED["grouseticks"]["agq15"]
    fit = fit_generalised("ticks ~ year96 + year97 + height", frame, group="brood", family="poisson", nodes=15, inference="normal")
    np.testing.assert_allclose(fit.beta, list(r["coef"].values()), rtol=1e-5)
    np.testing.assert_allclose(fit.frame["std_error"], list(r["se"].values()), rtol=1e-5)
    assert fit.sd == pytest.approx(r["sd"], rel=1e-5)
    # with several nodes glmer leaves the likelihood of the saturated model out
    saturated = stats.poisson.logpmf(frame["ticks"], frame["ticks"]).sum()
    assert fit.log_likelihood == pytest.approx(r["logLik"] + saturated, abs=1e-6)
