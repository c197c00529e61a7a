"""Richer models handed to statsmodels: the same columns, lme4's numbers, and what the reader is told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from trialkit.door import InputError
from trialkit.itt import fit_mixed


@pytest.fixture(scope="module")
def rated():
    """People in 12 sites, each seen by one of 6 raters who see people of every site: sites and raters cross."""
    rng = np.random.default_rng(11)
    site, rater = np.repeat(np.arange(12), 10), rng.integers(0, 6, 120)
    y = 2 + 0.3 * (site % 2) + 0.6 * rng.normal(size=12)[site] + 0.8 * rng.normal(size=6)[rater] + rng.normal(size=120)
    return pd.DataFrame(
        {
            "y": y.round(4),
            "arm": np.where(site % 2, "intervention", "control"),
            "site": site,
            "rater": rater,
            "x": rng.normal(size=120).round(4),
        }
    )


def test_crossed_factors_at_the_dense_optimum(rated):
    fit = fit_mixed("y ~ arm + x + (1|site) + (1|rater)", rated, engine="statsmodels")
    X = np.column_stack([np.ones(120), rated["arm"] == "intervention", rated["x"]]).astype(float)
    y = rated["y"].to_numpy()
    same = [(rated[g].to_numpy()[:, None] == rated[g].to_numpy()).astype(float) for g in ("site", "rater")]

    def deviance(v):
        V = v[0] * same[0] + v[1] * same[1] + v[2] * np.eye(120)
        M = np.linalg.inv(V)
        H = X.T @ M @ X
        b = np.linalg.solve(H, X.T @ M @ y)
        return (
            np.linalg.slogdet(V)[1] + np.linalg.slogdet(H)[1] + (y - X @ b) @ M @ (y - X @ b) + 117 * np.log(2 * np.pi),
            b,
            np.linalg.inv(H),
        )

    v = fit.variance_components["variance"].to_numpy()
    at, b, cov = deviance(v)
    assert -2 * fit.log_likelihood == pytest.approx(at, abs=1e-6)
    np.testing.assert_allclose(fit.frame["estimate"], b, rtol=1e-8)
    np.testing.assert_allclose(fit.cov, cov, rtol=1e-8)
    for k in range(3):
        for factor in (0.9, 1.1):
            moved = v.copy()
            moved[k] *= factor
            assert deviance(moved)[0] > at
    assert fit.icc == pytest.approx(v[:2].sum() / v.sum())
    assert fit.n_groups == {"site": 12, "rater": 6}


def test_same_columns_and_honest_words(rated):
    theirs, ours = fit_mixed("y ~ arm + x + (1|site)", rated, engine="statsmodels"), fit_mixed("y ~ arm + x + (1|site)", rated)
    assert list(theirs.frame.columns) == list(ours.frame.columns)
    assert np.isinf(theirs.frame["df"]).all() and theirs.inference == "normal"
    np.testing.assert_allclose(theirs.frame["estimate"], ours.frame["estimate"], rtol=1e-3)
    assert theirs.log_likelihood <= ours.log_likelihood + 1e-9
    assert any("number of groups for infinite" in note for note in theirs.notes)
    assert any("trialkit fits this model itself" in note for note in theirs.notes)
    assert "by statsmodels, z" in str(theirs)


def test_slopes_and_nested_factors(rated):
    d = rated.assign(pair=rated["site"] // 2)
    for formula in ("y ~ arm + x + (1 + x|site)", "y ~ arm + x + (1|pair) + (1|site)", "y ~ arm + x + (1 + arm|pair)"):
        theirs, ours = fit_mixed(formula, d, engine="statsmodels"), fit_mixed(formula, d)
        below = ours.log_likelihood - theirs.log_likelihood  # its search may stop early, and is told on then
        assert any("stopped" in note for note in theirs.notes) == (below > 1e-4)
        assert below < 3
        assert theirs.log_likelihood <= ours.log_likelihood + 1e-9
        assert list(theirs.variance_components["group"]) == list(ours.variance_components["group"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"engine": "stats"}, "Did you mean 'statsmodels'"),
        ({"engine": "statsmodels", "inference": "kenward-roger"}, "z tests of unweighted"),
        ({"engine": "statsmodels", "weights": "x"}, "z tests of unweighted"),
    ],
)
def test_refused(rated, arguments, says):
    with pytest.raises(InputError, match=says):
        fit_mixed("y ~ arm + (1|site)", rated, **arguments)


def test_an_outcome_that_does_not_vary(rated):
    with pytest.raises(InputError, match="nothing varies"):
        fit_mixed("y ~ arm + (1|site)", rated.assign(y=1.0), engine="statsmodels")


def test_crossed_factors_are_named_to_the_other_engine(rated):
    with pytest.raises(InputError, match="engine='statsmodels'"):
        fit_mixed("y ~ arm + (1|site) + (1|rater)", rated)
