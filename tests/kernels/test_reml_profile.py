"""Profile limits against brute force: at a limit the likelihood, maximised over everything else, has fallen by the chi-square quantile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.stats import chi2

from trialkit._kernels import reml


def trial(seed: int, *, nested: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    J = 16
    site = np.repeat(np.arange(J), rng.integers(1, 7, J))
    X = np.column_stack([np.ones(site.size), site % 2, rng.normal(size=site.size)])
    y = X @ [0.5, 0.3, 0.4] + rng.normal(size=J)[site] + 0.8 * rng.normal(size=site.size)
    groups = [site]
    if nested:
        y = y + 0.9 * rng.normal(size=J)[site // 2]
        groups = [site // 2, site]
    return {"X": X, "y": y, "groups": groups}


def deviance(t: dict[str, Any], variances: np.ndarray, method: str) -> float:
    """-2 log-likelihood at variances (outer ..., residual) with the fixed effects profiled out, from explicit matrices."""
    X, y = t["X"], t["y"]
    V = variances[-1] * np.eye(y.size) + sum(v * (g[:, None] == g) for v, g in zip(variances, t["groups"], strict=False))
    M = np.linalg.inv(V)
    H = X.T @ M @ X
    r = y - X @ np.linalg.solve(H, X.T @ M @ y)
    value = np.linalg.slogdet(V)[1] + r @ M @ r + y.size * np.log(2 * np.pi)
    if method == "reml":
        value += np.linalg.slogdet(H)[1] - X.shape[1] * np.log(2 * np.pi)
    return float(value)


def least(t: dict[str, Any], method: str, held: int | None = None, sd: float = 0.0) -> float:
    """The least deviance over standard deviations (and fixed effects), one of them held."""
    k = len(t["groups"]) + 1
    free = [i for i in range(k) if i != held]

    def value(logs: np.ndarray) -> float:
        sds = np.full(k, sd)
        sds[free] = np.exp(logs)
        return deviance(t, sds**2, method)

    starts = ([0.0] * len(free), [-1.5] * len(free))
    return min(minimize(value, s, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000}).fun for s in starts)


@pytest.mark.parametrize(("nested", "method"), [(False, "ml"), (False, "reml"), (True, "ml")])
def test_profile_limits_lie_on_the_criterion(nested: bool, method: Any) -> None:
    t = trial(2, nested=nested)
    reduced = reml.reduce(t["X"], t["y"], t["groups"])
    best = reml.fit_reduced(reduced, method=method).deviance
    quantile = chi2.ppf(0.9, 1)
    for which, limits in enumerate(reml.profile_sd(reduced, level=0.9, method=method)):
        for limit in limits[limits > 0]:
            assert least(t, method, which, limit) - best == pytest.approx(quantile, abs=1e-6)
        if limits[0] == 0:
            assert least(t, method, which, 0.0) - best <= quantile + 1e-8


@pytest.mark.parametrize("nested", [False, True])
def test_fixed_effect_limits_lie_on_the_criterion(nested: bool) -> None:
    t = trial(2, nested=nested)
    reduced = reml.reduce(t["X"], t["y"], t["groups"])
    best = reml.fit_reduced(reduced, method="ml").deviance
    (lower, upper), _ = reml.profile_contrasts(reduced, np.array([[0.0, 1.0, 0.0], [1.0, 0.5, 0.0]]))
    for limit in (lower, upper):
        held = {**t, "X": t["X"][:, [0, 2]], "y": t["y"] - limit * t["X"][:, 1]}
        assert least(held, "ml") - best == pytest.approx(chi2.ppf(0.95, 1), abs=1e-6)


def test_limits_of_contrasts_follow_the_units() -> None:
    t = trial(2, nested=False)
    L = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    plain = reml.profile_contrasts(reml.reduce(t["X"], t["y"], t["groups"]), L)
    scaled = reml.profile_contrasts(reml.reduce(t["X"] * [1.0, 1.0, 1e-3], 1e4 * t["y"] + 1e7, t["groups"]), L)
    assert_allclose(scaled, plain * [[1e4], [1e7]], rtol=1e-8)
    sd = reml.profile_sd(reml.reduce(t["X"], t["y"], t["groups"]))
    assert_allclose(reml.profile_sd(reml.reduce(t["X"], 1e4 * t["y"] + 1e7, t["groups"])), 1e4 * sd, rtol=1e-8)


def test_ratio_of_one_factor() -> None:
    t = trial(2, nested=False)
    reduced = reml.reduce(t["X"], t["y"], t["groups"])
    for method in ("reml", "ml"):
        fit = reml.fit_reduced(reduced, method=method)  # type: ignore[arg-type]
        for limit in reml.profile_ratio(reduced, method=method):  # type: ignore[arg-type]
            assert reml.deviance(reduced, [limit], method=method) - fit.deviance == pytest.approx(chi2.ppf(0.95, 1), abs=1e-8)  # type: ignore[arg-type]


def test_a_variance_of_zero_has_an_interval_from_zero() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        site = np.repeat(np.arange(10), 4)
        y = rng.normal(size=40)
        fit = reml.fit(np.ones((40, 1)), y, [site])
        if fit.boundary[0]:
            break
    assert reml.profile_ratio(fit.reduced)[0] == 0.0
    limits = reml.profile_sd(fit.reduced)
    assert limits[0, 0] == 0.0 and 0.1 < limits[0, 1] < 1.0


def test_ratio_of_two_factors_is_profiled_over_their_split() -> None:
    t = trial(4, nested=True)
    fit = reml.fit(t["X"], t["y"], t["groups"])
    low, high = reml.profile_ratio(fit.reduced)
    assert 0 <= low < fit.theta.sum() < high
    quantile = 1.959963984540054**2
    for limit in (low, high):
        if limit == 0:
            continue
        shares = np.linspace(0, 1, 2001)
        best = min(reml.deviance(fit.reduced, [s * limit, (1 - s) * limit]) for s in shares)
        assert best - fit.deviance == pytest.approx(quantile, abs=1e-4)


def test_what_cannot_be_profiled_is_refused() -> None:
    t = trial(2, nested=True)
    reduced = reml.reduce(t["X"], t["y"], t["groups"])
    with pytest.raises(ValueError, match="level"):
        reml.profile_sd(reduced, level=95)
    alone = reml.reduce(t["X"], t["y"], [np.arange(t["y"].size)])
    with pytest.raises(ValueError, match="no profile"):
        reml.profile_contrasts(alone, np.eye(3))
