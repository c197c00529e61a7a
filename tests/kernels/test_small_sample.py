"""Kenward-Roger and Satterthwaite against the papers' matrices written out, and their conventions at a variance of zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from trialkit._kernels import reml, small_sample


def trial(*, nested: bool, weighted: bool, seed: int, between: float = 0.6) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    J = 12
    site = np.repeat(np.arange(J), rng.integers(2, 8, J))
    n = site.size
    X = np.column_stack([np.ones(n), (site % 2).astype(float), rng.normal(size=n), rng.normal(size=J)[site]])
    y = X @ [1.0, 0.4, 0.5, -0.3] + between * rng.normal(size=J)[site] + rng.normal(size=n)
    groups = [site]
    if nested:
        y = y + 0.8 * rng.normal(size=J)[site // 2]
        groups = [site // 2, site]
    return {"X": X, "y": y, "groups": groups, "weights": rng.uniform(0.4, 2.5, n) if weighted else None}


def written_out(t: dict[str, Any], fit: reml.MixedFit, *, observed: bool) -> dict[str, Any]:
    """Kenward and Roger (1997) with V, its derivatives and P as n x n matrices."""
    X, y, n = t["X"], t["y"], t["y"].size
    G = [(g[:, None] == g).astype(float) for g in t["groups"]]
    G.append(np.eye(n) if t["weights"] is None else np.diag(1.0 / t["weights"]))
    components = [*fit.variances, fit.sigma2]
    M = np.linalg.inv(sum(s * g for s, g in zip(components, G, strict=True)))
    Phi = np.linalg.inv(X.T @ M @ X)
    proj = M - M @ X @ Phi @ X.T @ M
    c = len(G)
    twice = np.array([[np.trace(proj @ G[i] @ proj @ G[j]) for j in range(c)] for i in range(c)])
    if observed:
        twice = -twice + 2 * np.array([[y @ proj @ G[i] @ proj @ G[j] @ proj @ y for j in range(c)] for i in range(c)])
    W = 2 * np.linalg.inv(twice)
    P = [-X.T @ M @ G[i] @ M @ X for i in range(c)]
    Q = [[X.T @ M @ G[i] @ M @ G[j] @ M @ X for j in range(c)] for i in range(c)]
    bracket = sum(W[i, j] * (Q[i][j] - P[i] @ Phi @ P[j]) for i in range(c) for j in range(c))
    return {"Phi": Phi, "W": W, "P": P, "adjusted": Phi + 2 * Phi @ bracket @ Phi}


def df_written_out(d: dict[str, Any], contrast: np.ndarray) -> float:
    g = np.array([-contrast @ d["Phi"] @ P @ d["Phi"] @ contrast for P in d["P"]])
    return float(2 * (contrast @ d["Phi"] @ contrast) ** 2 / (g @ d["W"] @ g))


def f_written_out(d: dict[str, Any], beta: np.ndarray, L: np.ndarray) -> tuple[float, float, float]:
    Phi, W, P = d["Phi"], d["W"], d["P"]
    Theta = L.T @ np.linalg.solve(L @ Phi @ L.T, L)
    q, c = L.shape[0], len(P)
    A1 = sum(W[i, j] * np.trace(Theta @ Phi @ P[i] @ Phi) * np.trace(Theta @ Phi @ P[j] @ Phi) for i in range(c) for j in range(c))
    A2 = sum(W[i, j] * np.trace(Theta @ Phi @ P[i] @ Phi @ Theta @ Phi @ P[j] @ Phi) for i in range(c) for j in range(c))
    B = (A1 + 6 * A2) / (2 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    c1, c2, c3 = (v / (3 * q + 2 * (1 - g)) for v in (g, q - g, q + 2 - g))
    mean, variance = 1 / (1 - A2 / q), 2 / q * (1 + c1 * B) / ((1 - c2 * B) ** 2 * (1 - c3 * B))
    rho = variance / (2 * mean**2)
    m = 4 + (q + 2) / (q * rho - 1)
    scale = m / (mean * (m - 2))
    return scale * beta @ L.T @ np.linalg.solve(L @ d["adjusted"] @ L.T, L @ beta) / q, m, scale


def interior(*, nested: bool, weighted: bool) -> tuple[dict[str, Any], reml.MixedFit]:
    """A trial whose variances are all estimated above zero."""
    for seed in range(50):
        t = trial(nested=nested, weighted=weighted, seed=seed)
        fit = reml.fit(t["X"], t["y"], t["groups"], weights=t["weights"])
        if not fit.boundary.any():
            return t, fit
    raise AssertionError("no seed gives variances above zero")


CASES = [(nested, weighted) for nested in (False, True) for weighted in (False, True)]


@pytest.mark.parametrize(("nested", "weighted"), CASES)
@pytest.mark.parametrize("information", ["expected", "observed"])
def test_every_matrix_of_the_paper(nested: bool, weighted: bool, information: Any) -> None:
    t, fit = interior(nested=nested, weighted=weighted)
    d = written_out(t, fit, observed=information == "observed")
    L = np.vstack([np.eye(4), [0.0, 1.0, -1.0, 0.5]])
    kr = small_sample.kenward_roger(fit, L, information=information)
    assert_allclose(kr.cov, L @ d["adjusted"] @ L.T, rtol=1e-8, atol=1e-12)
    assert_allclose(kr.std_error, np.sqrt(np.diag(kr.cov)))
    assert_allclose(kr.df, [df_written_out(d, row) for row in L], rtol=1e-8)
    assert_allclose(kr.estimate, L @ fit.beta)
    assert_allclose(small_sample.variance_covariance(fit, information=information), d["W"], rtol=1e-7)
    satt = small_sample.satterthwaite(fit, L, information=information)
    assert_allclose(satt.df, kr.df, rtol=1e-12)  # one-degree-of-freedom df differ by the information alone
    assert_allclose(satt.cov, L @ d["Phi"] @ L.T, rtol=1e-8, atol=1e-12)
    for rows in ([1, 3], [1, 2, 3], [0, 1, 2, 3]):
        f = small_sample.kenward_roger_f(fit, np.eye(4)[rows], information=information)
        assert_allclose([f.statistic, f.df_den, f.scaling], f_written_out(d, fit.beta, np.eye(4)[rows]), rtol=1e-7)


def test_one_row_f_is_the_square_of_t() -> None:
    t = trial(nested=True, weighted=False, seed=3)
    fit = reml.fit(t["X"], t["y"], t["groups"])
    c = np.array([[0.3, 1.0, -1.0, 0.0]])
    for rule, joint in (
        (small_sample.kenward_roger, small_sample.kenward_roger_f),
        (small_sample.satterthwaite, small_sample.satterthwaite_f),
    ):
        one, f = rule(fit, c), joint(fit, c)
        assert_allclose([f.statistic, f.df_den, f.scaling], [(one.estimate[0] / one.std_error[0]) ** 2, one.df[0], 1.0], rtol=1e-10)


@pytest.mark.parametrize("joint", [small_sample.kenward_roger_f, small_sample.satterthwaite_f])
def test_f_does_not_depend_on_how_the_hypothesis_is_written(joint: Any) -> None:
    t = trial(nested=False, weighted=False, seed=3)
    fit = reml.fit(t["X"], t["y"], t["groups"])
    L = np.eye(4)[1:3]
    plain = joint(fit, L)
    repeated = joint(fit, np.vstack([L, L.sum(axis=0), L[0]]))
    assert repeated.df_num == plain.df_num == 2
    assert_allclose(repeated.statistic, plain.statistic, rtol=1e-10)
    shifted = joint(fit, L, null=L @ fit.beta)
    assert shifted.statistic == pytest.approx(0.0, abs=1e-20)
    if joint is small_sample.kenward_roger_f:  # Fai and Cornelius's df, as lmerTest's, do depend on the basis
        turned = joint(fit, np.array([[2.0, 1.0], [-1e4, 1e-3]]) @ L)
        assert_allclose([turned.statistic, turned.df_den], [plain.statistic, plain.df_den], rtol=1e-9)
    with pytest.raises(ValueError, match="zero"):
        joint(fit, np.zeros((1, 4)))


def test_balanced_trial_has_the_textbook_degrees_of_freedom() -> None:
    rng = np.random.default_rng(9)
    site = np.repeat(np.arange(10), 6)
    X = np.column_stack([np.ones(60), site % 2, rng.normal(size=60)])
    X[:, 2] -= (np.bincount(site, X[:, 2]) / 6)[site]  # a covariate wholly within sites
    y = rng.normal(size=60) + rng.normal(size=10)[site]
    fit = reml.fit(X, y, [site])
    for rule in (small_sample.kenward_roger, small_sample.satterthwaite):
        assert_allclose(rule(fit, np.eye(3)).df, [8.0, 8.0, 49.0], rtol=1e-9)
    assert_allclose(small_sample.kenward_roger(fit, np.eye(3)).std_error, np.sqrt(np.diag(fit.cov_beta)), rtol=1e-10)


def zero_trial() -> tuple[dict[str, Any], reml.MixedFit]:
    for seed in range(100):
        t = trial(nested=False, weighted=False, seed=seed, between=0.0)
        fit = reml.fit(t["X"], t["y"], t["groups"])
        if fit.boundary[0]:
            return t, fit
    raise AssertionError("no seed gives a variance of zero")


def test_conventions_at_a_variance_of_zero() -> None:
    t, fit = zero_trial()
    n, p = t["X"].shape
    each = np.eye(p)
    # lmerTest: as if the component had been dropped; ordinary least squares
    assert_allclose(small_sample.satterthwaite(fit, each).df, n - p, rtol=1e-9)
    # pbkrtest: the component stays, and with it the uncertainty about it
    kept = small_sample.kenward_roger(fit, each)
    d = written_out(t, fit, observed=False)
    assert_allclose(kept.cov, d["adjusted"], rtol=1e-9, atol=1e-13)
    assert_allclose(kept.df, [df_written_out(d, row) for row in each], rtol=1e-9)
    assert kept.df[1] < 12 + 1e-9 < n - p
    # SAS: dropped
    dropped = small_sample.kenward_roger(fit, each, at_zero="drop")
    assert_allclose(dropped.df, n - p, rtol=1e-9)
    assert_allclose(dropped.std_error, np.sqrt(np.diag(fit.cov_beta)), rtol=1e-10)
    assert_allclose(small_sample.kenward_roger(fit, each, information="observed").df, n - p, rtol=1e-9)
    assert_allclose(small_sample.satterthwaite(fit, each, information="expected", at_zero="keep").df, kept.df)
    with pytest.raises(ValueError, match="no meaning"):
        small_sample.satterthwaite(fit, each, at_zero="keep")
    W = small_sample.variance_covariance(fit, at_zero="drop")
    assert W[0].tolist() == [0.0, 0.0] and W[1, 1] == pytest.approx(2 * fit.sigma2**2 / (n - p))


def test_a_pair_variance_of_zero_leaves_satterthwaite_as_without_pairs() -> None:
    for seed in range(100):
        t = trial(nested=False, weighted=False, seed=seed)
        fit = reml.fit(t["X"], t["y"], [t["groups"][0] // 2, t["groups"][0]])
        if fit.boundary.tolist() == [True, False]:
            break
    alone = reml.fit(t["X"], t["y"], t["groups"])
    assert_allclose(fit.theta[1], alone.theta[0], rtol=1e-9)
    assert fit.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-10)
    each = np.eye(4)
    assert_allclose(small_sample.satterthwaite(fit, each).df, small_sample.satterthwaite(alone, each).df, rtol=1e-8)
    pairs, sites = small_sample.kenward_roger(fit, each), small_sample.kenward_roger(alone, each)
    assert pairs.df[3] < sites.df[3]  # a covariate of sites pays for the pair variance that might have been there


def test_misuse_is_refused() -> None:
    t = trial(nested=False, weighted=False, seed=3)
    ml = reml.fit(t["X"], t["y"], t["groups"], method="ml")
    fit = reml.fit(t["X"], t["y"], t["groups"])
    for rule in (small_sample.kenward_roger, small_sample.kenward_roger_f):
        with pytest.raises(ValueError, match="REML"):
            rule(ml, np.eye(4))
    assert np.isfinite(small_sample.satterthwaite(ml, np.eye(4)).df).all()
    with pytest.raises(ValueError, match="contrasts must be"):
        small_sample.kenward_roger(fit, np.eye(3))
    with pytest.raises(ValueError, match="information"):
        small_sample.kenward_roger(fit, np.eye(4), information="fisher")  # type: ignore[arg-type]
