"""Digits: REML in 40-digit arithmetic, hostile units, and a second opinion."""

from __future__ import annotations

import warnings
from typing import Any

import mpmath as mp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from trialkit._kernels import reml, small_sample


def trial(seed: int, J: int = 6, between: float = 0.7, largest: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(J), rng.integers(1, largest + 1, J))
    X = np.column_stack([np.ones(site.size), site % 2, rng.normal(size=site.size)])
    y = X @ [1.0, 0.4, 0.5] + between * rng.normal(size=J)[site] + rng.normal(size=site.size)
    return X, y, site


def exact(X: np.ndarray, y: np.ndarray, site: np.ndarray, start: float) -> dict[str, Any]:
    """REML, Kenward-Roger and Satterthwaite in 40 digits from full matrices, by the secant method on the derivative."""
    with mp.workdps(40):
        n, p = X.shape
        x, outcome = mp.matrix(X.tolist()), mp.matrix(y.tolist())
        G = mp.matrix((site[:, None] == site).astype(float).tolist())
        identity = mp.eye(n)

        def parts(theta: Any) -> tuple[Any, ...]:
            M = mp.inverse(identity + theta * G)
            Phi = mp.inverse(x.T * M * x)
            proj = M - M * x * Phi * (x.T * M)
            return M, Phi, proj

        def trace(a: Any) -> Any:
            return mp.fsum(a[i, i] for i in range(a.rows))

        def slope(theta: Any) -> Any:
            _, _, proj = parts(theta)
            py = proj * outcome
            return trace(proj * G) - (n - p) * (py.T * G * py)[0] / (outcome.T * py)[0]

        theta = mp.findroot(slope, (mp.mpf(start), mp.mpf(start) * mp.mpf("1.0001")), solver="secant", tol=mp.mpf("1e-25"), verify=False)
        M, Phi, proj = parts(theta)
        py = proj * outcome
        sigma2 = (outcome.T * py)[0] / (n - p)
        beta = Phi * (x.T * (M * outcome))
        Gs = [G, identity]
        twice = mp.matrix(2, 2)
        observed = mp.matrix(2, 2)
        for i in range(2):
            for j in range(2):
                twice[i, j] = trace(proj * Gs[i] * proj * Gs[j])
                observed[i, j] = -twice[i, j] + 2 * (py.T * Gs[i] * (proj * (Gs[j] * py)))[0] / sigma2
        W, A = 2 * mp.inverse(twice), 2 * mp.inverse(observed)
        P = [x.T * M * Gs[i] * M * x for i in range(2)]
        bracket = mp.zeros(p, p)
        for i in range(2):
            for j in range(2):
                bracket += W[i, j] * (x.T * M * Gs[i] * M * Gs[j] * M * x - P[i] * Phi * P[j])
        adjusted = sigma2 * (Phi + 2 * Phi * bracket * Phi)
        kr_df, satt_df = [], []
        for c in range(p):
            g = mp.matrix([(Phi * P[i] * Phi)[c, c] for i in range(2)])
            kr_df.append(float(2 * Phi[c, c] ** 2 / (g.T * W * g)[0]))
            satt_df.append(float(2 * Phi[c, c] ** 2 / (g.T * A * g)[0]))
        log_det = -mp.log(mp.det(M)) + mp.log(mp.det(x.T * M * x))
        deviance = log_det + (n - p) * (mp.log(2 * mp.pi * sigma2) + 1)
        return {
            "theta": float(theta),
            "sigma2": float(sigma2),
            "beta": [float(b) for b in beta],
            "se": [float(mp.sqrt(sigma2 * Phi[c, c])) for c in range(p)],
            "kr_se": [float(mp.sqrt(adjusted[c, c])) for c in range(p)],
            "kr_df": kr_df,
            "satt_df": satt_df,
            "log_likelihood": float(-deviance / 2),
        }


@pytest.mark.parametrize(("seed", "between"), [(1, 0.7), (2, 2.0), (4, 0.7), (7, 30.0)])
def test_forty_digits(seed: int, between: float) -> None:
    X, y, site = trial(seed, between=between, largest=3)
    fit = reml.fit(X, y, [site])
    assert not fit.boundary[0]
    truth = exact(X, y, site, float(fit.theta[0]) * 1.001)
    kr, satt = (rule(fit, np.eye(3)) for rule in (small_sample.kenward_roger, small_sample.satterthwaite))
    tolerance = 1e-10
    assert_allclose(fit.theta[0], truth["theta"], rtol=tolerance)
    assert_allclose(fit.sigma2, truth["sigma2"], rtol=tolerance)
    assert_allclose(fit.beta, truth["beta"], rtol=tolerance)
    assert_allclose(np.sqrt(np.diag(fit.cov_beta)), truth["se"], rtol=tolerance)
    assert_allclose(kr.std_error, truth["kr_se"], rtol=tolerance)
    assert_allclose(kr.df, truth["kr_df"], rtol=tolerance)
    assert_allclose(satt.df, truth["satt_df"], rtol=tolerance)
    assert fit.log_likelihood == pytest.approx(truth["log_likelihood"], abs=1e-11)


@pytest.mark.parametrize("between", [0.0, 0.7])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda X, y: (X, 1e6 * y + 1e9),
        lambda X, y: (X, 1e-6 * y),
        lambda X, y: (X, 1e-6 * y + 1e-3),
        lambda X, y: (X, -y),
        lambda X, y: (X + np.array([0.0, 0.0, 1e6]), y),
        lambda X, y: (X * [1.0, 1.0, 1e4], y),
        lambda X, y: (X * [1.0, 1.0, 1e-9], y),
        lambda X, y: (X, y + X @ [3.0, 40.0, -7.0]),
    ],
)
def test_units_and_origins_do_not_reach_the_inference(change: Any, nested: bool, between: float) -> None:
    X, y, site = trial(11, J=14, between=between)
    groups = [site // 2, site] if nested else [site]
    plain, other = reml.fit(X, y, groups), reml.fit(*change(X, y), groups)
    assert other.boundary.tolist() == plain.boundary.tolist()
    assert_allclose(other.theta, plain.theta, rtol=1e-8)
    each = np.eye(3)[1:]
    same_t = change(X, y)[1] is y or abs(np.corrcoef(change(X, y)[1], y)[0, 1]) > 1 - 1e-9
    for rule in (small_sample.kenward_roger, small_sample.satterthwaite):
        a, b = rule(plain, each), rule(other, each)
        assert_allclose(b.df, a.df, rtol=1e-8)
        if same_t:
            assert_allclose(np.abs(b.estimate / b.std_error), np.abs(a.estimate / a.std_error), rtol=1e-8)


def test_large_numbers_with_small_variation() -> None:
    # the shape of NIST's hardest one-way sets: nine treatments, values of 1e12 that differ in the first decimal
    treatment = np.repeat(np.arange(9), 21)
    y = 1e12 + 0.4 + (treatment - 4) * 0.1 + np.where(np.arange(treatment.size) % 2, 0.1, -0.1) * (np.arange(treatment.size) % 21 > 0)
    y = np.round(y, 1)
    fit = reml.fit(np.ones((y.size, 1)), y, [treatment])
    d = y - 1e12  # exact
    means = d.reshape(9, 21).mean(axis=1)
    msw = ((d.reshape(9, 21) - means[:, None]) ** 2).sum() / (9 * 20)
    msb = 21 * ((means - means.mean()) ** 2).sum() / 8
    assert fit.sigma2 == pytest.approx(msw, rel=1e-9)
    assert fit.variances[0] == pytest.approx((msb - msw) / 21, rel=1e-9)


def test_statsmodels_is_of_the_same_opinion() -> None:
    mixedlm = pytest.importorskip("statsmodels.formula.api").mixedlm
    X, y, site = trial(3, J=20)
    table = pd.DataFrame({"y": y, "arm": X[:, 1], "x": X[:, 2], "site": site})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = mixedlm("y ~ arm + x", table, groups=table["site"]).fit(method="powell", reml=True, xtol=1e-10, ftol=1e-12)
    fit = reml.fit(X, y, [site])
    assert_allclose(fit.beta, theirs.fe_params.to_numpy(), rtol=1e-4)
    assert fit.variances[0] == pytest.approx(float(theirs.cov_re.iloc[0, 0]), rel=1e-3)
    assert fit.sigma2 == pytest.approx(float(theirs.scale), rel=1e-4)
    assert fit.log_likelihood >= theirs.llf - 1e-8
    assert fit.log_likelihood == pytest.approx(theirs.llf, abs=1e-4)
