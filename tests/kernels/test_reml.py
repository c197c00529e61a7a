"""The REML kernel against explicit matrices: likelihood, derivatives, predictions; and its answer to data that cannot carry the model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from trialkit._kernels import reml, reml_criterion, reml_one, small_sample

RNG = np.random.default_rng(20240611)


def trial(J: int = 9, *, nested: bool = False, weighted: bool = False, seed: int = 1) -> dict[str, Any]:
    """A small unbalanced trial with a cluster-level and two person-level columns."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 8, J)
    sizes[:2] = [4, 5]
    site = np.repeat(np.arange(J), sizes)
    n = site.size
    X = np.column_stack([np.ones(n), (site % 2).astype(float), rng.normal(size=n), rng.normal(size=n) + 0.5 * rng.normal(size=J)[site]])
    y = X @ [1.0, 0.4, 0.5, -0.3] + 0.6 * rng.normal(size=J)[site] + rng.normal(size=n)
    groups = [site]
    if nested:
        pair = site // 3
        y = y + 0.7 * rng.normal(size=J)[pair]
        groups = [pair, site]
    shuffle = rng.permutation(n)
    weights = rng.uniform(0.3, 3.0, n) if weighted else None
    return {"X": X[shuffle], "y": y[shuffle], "groups": [g[shuffle] for g in groups], "weights": weights}


def dense_v(groups: list[np.ndarray], theta: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, list[np.ndarray]]:
    n = groups[0].size
    G = [(g[:, None] == g).astype(float) for g in groups]
    G.append(np.eye(n) if weights is None else np.diag(1.0 / weights))
    return sum(t * g for t, g in zip([*theta, 1.0], G, strict=True)), G  # type: ignore[return-value]


def dense_deviance(t: dict[str, Any], theta: np.ndarray, method: str) -> float:
    X, y = t["X"], t["y"]
    n, p = X.shape
    V, _ = dense_v(t["groups"], theta, t["weights"])
    M = np.linalg.inv(V)
    H = X.T @ M @ X
    r = y - X @ np.linalg.solve(H, X.T @ M @ y)
    N = n - p if method == "reml" else n
    sigma2 = r @ M @ r / N
    value = np.linalg.slogdet(V)[1] + N * np.log(2 * np.pi * sigma2) + N
    return float(value + (np.linalg.slogdet(H)[1] if method == "reml" else 0.0))


SHAPES = [(nested, weighted) for nested in (False, True) for weighted in (False, True)]


@pytest.mark.parametrize(("nested", "weighted"), SHAPES)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_deviance_at_any_ratio_is_that_of_the_full_covariance_matrix(nested: bool, weighted: bool, method: Any) -> None:
    t = trial(nested=nested, weighted=weighted)
    reduced = reml.reduce(t["X"], t["y"], t["groups"], weights=t["weights"])
    for theta in RNG.exponential(1.0, (6, len(t["groups"]))) * RNG.integers(0, 2, (6, len(t["groups"]))):
        assert reml.deviance(reduced, theta, method=method) == pytest.approx(dense_deviance(t, theta, method), abs=1e-10)


@pytest.mark.parametrize(("nested", "weighted"), SHAPES)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_fit_is_the_optimum_and_its_parts_are_those_of_generalised_least_squares(nested: bool, weighted: bool, method: Any) -> None:
    t = trial(nested=nested, weighted=weighted, seed=4)
    fit = reml.fit(t["X"], t["y"], t["groups"], weights=t["weights"], method=method)
    assert fit.deviance == pytest.approx(dense_deviance(t, fit.theta, method), abs=1e-10)
    for step in np.vstack([np.eye(fit.theta.size), -np.eye(fit.theta.size)]) * 1e-3:
        assert dense_deviance(t, np.maximum(fit.theta + step, 0.0), method) >= fit.deviance - 1e-11
    V, _ = dense_v(t["groups"], fit.theta, t["weights"])
    M = np.linalg.inv(V)
    Phi = np.linalg.inv(t["X"].T @ M @ t["X"])
    beta = Phi @ t["X"].T @ M @ t["y"]
    r = t["y"] - t["X"] @ beta
    assert_allclose(fit.beta, beta, rtol=1e-11)
    assert_allclose(fit.sigma2, r @ M @ r / (fit.n - fit.p if method == "reml" else fit.n), rtol=1e-12)
    assert_allclose(fit.cov_beta, fit.sigma2 * Phi, rtol=1e-10, atol=1e-14)
    assert_allclose(fit.variances, fit.theta * fit.sigma2)


@pytest.mark.parametrize(("nested", "weighted"), SHAPES)
def test_random_effects_are_the_best_predictions(nested: bool, weighted: bool) -> None:
    t = trial(nested=nested, weighted=weighted, seed=4)
    fit = reml.fit(t["X"], t["y"], t["groups"], weights=t["weights"])
    theta = np.array([0.8, 0.3])[: fit.theta.size]  # any ratios will do: the formulas are not about the optimum
    state = reml_criterion.evaluate(reml_criterion.stack([fit.reduced], reml=True), theta[None, None])
    fit = dataclasses.replace(fit, theta=theta, variances=theta * fit.sigma2, root=state.root[0, 0])
    V, _ = dense_v(t["groups"], theta, t["weights"])
    M = np.linalg.inv(V)
    beta = np.linalg.solve(t["X"].T @ M @ t["X"], t["X"].T @ M @ t["y"])
    residual = t["y"] - t["X"] @ beta
    for k, (codes, value, variance) in enumerate(reml.random_effects(fit)):
        Z = (t["groups"][k][:, None] == codes).astype(float)
        assert_allclose(value, theta[k] * Z.T @ M @ residual, rtol=1e-9, atol=1e-12)
        given = fit.variances[k] * (np.eye(codes.size) - theta[k] * Z.T @ M @ Z)
        assert_allclose(variance, np.diag(given), rtol=1e-9)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_derivatives_of_the_criterion(nested: bool, method: str) -> None:
    t = trial(nested=nested)
    b = reml_criterion.stack([reml.reduce(t["X"], t["y"], t["groups"])], reml=method == "reml")
    how = {"n": b.n, "p": b.p, "reml": b.reml}
    theta = np.array([0.7, 0.4])[: len(t["groups"])]

    def value(x: np.ndarray) -> float:
        return float(reml_criterion.criterion(reml_criterion.evaluate(b, x[None, None], order=0), **how)[0, 0])

    state = reml_criterion.evaluate(b, theta[None, None])
    slope, _ = reml_criterion.gradient(state, **how)
    observed, _ = reml_criterion.hessian(state, **how)
    h = 1e-4
    steps = np.eye(theta.size) * h
    assert_allclose(slope[0, 0], [(value(theta + s) - value(theta - s)) / (2 * h) for s in steps], rtol=1e-6)
    numeric = [
        [(value(theta + s + q) - value(theta + s - q) - value(theta - s + q) + value(theta - s - q)) / (4 * h * h) for q in steps]
        for s in steps
    ]
    assert_allclose(observed[0, 0], numeric, rtol=1e-5)
    if not nested:
        one = reml_one.gather(reml.reduce(t["X"], t["y"], t["groups"]), reml=method == "reml")
        at = reml_one.evaluate(one, 0.7)
        assert_allclose([at.value(one), at.slope, at.curvature], [value(theta), slope[0, 0, 0], observed[0, 0, 0, 0]], rtol=1e-12)
        assert_allclose(reml_one.scan(one, np.array([0.7]))[0], at.slope, rtol=1e-11)
        alone, general = reml_one.components(at, one), reml_criterion.components(state, b.n, reml=b.reml)
        for part in ("P", "Q", "expected", "observed"):
            assert_allclose(getattr(alone, part), getattr(general, part), rtol=1e-11, atol=1e-13)


def test_many_data_sets_and_many_ratios_in_one_call() -> None:
    sets = [trial(seed=4), {**trial(seed=4), "y": RNG.normal(size=trial(seed=4)["y"].size)}]
    reduced = [reml.reduce(t["X"], t["y"], t["groups"]) for t in sets]
    b = reml_criterion.stack(reduced, reml=True)
    theta = RNG.exponential(1.0, (2, 3, 1))
    together = reml_criterion.criterion(reml_criterion.evaluate(b, theta, order=1), n=b.n, p=b.p, reml=True)
    for i in range(2):
        one = reml_criterion.stack([reduced[i]], reml=True)
        for g in range(3):
            alone = reml_criterion.criterion(reml_criterion.evaluate(one, theta[i : i + 1, g : g + 1], order=0), n=b.n, p=b.p, reml=True)
            assert_allclose(together[i, g], alone[0, 0], rtol=1e-13)


@pytest.mark.parametrize(("seed", "boundary"), [(2, False), (4, False), (14, False), (1134, False), (40, True), (88, True), (198, True)])
def test_two_local_optima_are_both_seen_and_the_better_one_is_kept(seed: int, boundary: bool) -> None:
    # two large groups agree with each other while six singles scatter widely: no variance between groups, or a large one
    rng = np.random.default_rng(seed)
    sizes = np.array([24, 12, 1, 1, 1, 1, 1, 1])
    site = np.repeat(np.arange(8), sizes)
    y = rng.normal(size=site.size) * np.where(sizes[site] == 1, 2.5, 1.0)
    X = np.ones((site.size, 1))
    fit = reml.fit(X, y, [site])
    assert fit.optimum.optima == 2 and fit.boundary[0] == boundary
    grid = np.concatenate([[0.0], np.geomspace(1e-4, 1e3, 200)])
    assert fit.deviance <= min(reml.deviance(fit.reduced, [g]) for g in grid) + 1e-10
    assert_allclose(reml.fit_many(X, y[:, None], [site]).theta[0], fit.theta, rtol=1e-9)
    assert_allclose(reml.fit_sets([(X, y), (X, -y)], [site])[1].theta, fit.theta, rtol=1e-9)


def test_no_false_and_no_missed_zero_variance_in_ten_thousand_balanced_trials() -> None:
    # balanced and unadjusted, REML is zero exactly when the mean square between groups within arms is not above that within groups
    rng = np.random.default_rng(3)
    J, m, R = 8, 5, 10_000
    X = np.column_stack([np.ones(J), np.arange(J) % 2])
    means = rng.normal(size=(R, J)) * np.sqrt(1 / m) * rng.choice([1.0, 1.2, 2.0], (R, 1))
    ssw = rng.chisquare(J * (m - 1), R)
    many = reml.fit_cluster_summaries(means, np.full(J, m), ssw, X)
    residual = means - np.where(np.arange(J) % 2, means[:, 1::2].mean(axis=1)[:, None], means[:, ::2].mean(axis=1)[:, None])
    msb, msw = m * (residual**2).sum(axis=1) / (J - 2), ssw / (J * (m - 1))
    assert np.array_equal(many.boundary[:, 0], msb <= msw)
    assert 0.2 < many.boundary.mean() < 0.8
    free = ~many.boundary[:, 0]
    assert_allclose(many.theta[free, 0] * many.sigma2[free], ((msb - msw) / m)[free], rtol=1e-9, atol=1e-12)
    assert_allclose(many.sigma2[free], msw[free], rtol=1e-12)
    assert_allclose(many.kenward_roger.df[free], J - 2, rtol=1e-9)


def test_no_false_and_no_missed_zero_variance_in_ten_thousand_unbalanced_adjusted_trials() -> None:
    # the restricted likelihood in the n - p dimensions orthogonal to X, from the full matrix, on a fine grid of ratios
    rng = np.random.default_rng(4)
    sizes = np.array([1, 2, 3, 3, 4, 6, 7, 9, 12, 15])
    site = np.repeat(np.arange(10), sizes)
    n, R = site.size, 10_000
    X = np.column_stack([np.ones(n), site % 2, rng.normal(size=n)])
    Y = rng.normal(size=(n, R)) + rng.normal(size=(10, R))[site] * rng.choice([0.0, 0.2, 0.5], R)
    boundary = reml.fit_many(X, Y, [site], contrasts=np.array([[0.0, 1.0, 0.0]])).boundary[:, 0]

    rest = np.linalg.svd(X)[0][:, 3:]
    xi, turn = np.linalg.eigh(rest.T @ (site[:, None] == site) @ rest)
    squares = (turn.T @ (rest.T @ Y)) ** 2
    grid = np.concatenate([[0.0], np.geomspace(1e-5, 1e3, 250)])[:, None] * np.maximum(xi, 0.0)
    deviance = np.log1p(grid).sum(axis=1)[:, None] + (n - 3) * np.log((1.0 / (1.0 + grid)) @ squares)
    better = deviance[0] - deviance[1:].min(axis=0)  # how much a variance improves on none; the grid resolves about 1e-7
    assert not np.any(boundary & (better > 0.0))
    assert not np.any(~boundary & (better < -1e-5))
    assert 0.2 < boundary.mean() < 0.8


def test_group_summaries_give_the_fit_of_the_rows() -> None:
    t = trial(12, seed=4)
    site, y = t["groups"][0], t["y"]
    X = t["X"][:, :2]
    codes, first = np.unique(site, return_index=True)
    sizes = np.bincount(site)
    means = np.bincount(site, y) / sizes
    ssw = np.sum((y - means[site]) ** 2)
    many = reml.fit_cluster_summaries(means[None], sizes, np.array([ssw]), X[first])
    fit = reml.fit(X, y, [site])
    kr, satt = (rule(fit, np.eye(2)) for rule in (small_sample.kenward_roger, small_sample.satterthwaite))
    assert codes.size == 12 and not fit.boundary[0]
    assert_allclose(many.beta[0], fit.beta, rtol=1e-12)
    assert_allclose(many.theta[0], fit.theta, rtol=1e-10)
    assert_allclose(many.log_likelihood[0], fit.log_likelihood, rtol=1e-12)
    assert_allclose(many.kenward_roger.std_error[0], kr.std_error, rtol=1e-10)
    assert_allclose(many.kenward_roger.df[0], kr.df, rtol=1e-9)
    assert_allclose(many.satterthwaite.df[0], satt.df, rtol=1e-9)


def test_a_thousand_groups_of_few_sizes_cost_their_sizes_and_change_nothing() -> None:
    # more groups of a size than columns of X: the spectrum is compressed
    rng = np.random.default_rng(2)
    J = 200
    site = np.repeat(np.arange(J), rng.integers(1, 4, J))
    X = np.column_stack([np.ones(site.size), site % 2, rng.normal(size=site.size)])
    Y = rng.normal(size=(site.size, 3)) + rng.normal(size=(J, 3))[site] * [0.0, 0.5, 2.0]
    many = reml.fit_many(X, Y, [site])
    for i in range(3):
        fit = reml.fit(X, Y[:, i], [site])
        assert_allclose(many.theta[i], fit.theta, rtol=1e-9, atol=1e-13)
        assert_allclose(many.log_likelihood[i], fit.log_likelihood, rtol=1e-12)
        assert_allclose(many.satterthwaite.df[i], small_sample.satterthwaite(fit, np.eye(3)).df, rtol=1e-9)


# ---- data that cannot carry the model: each has a documented outcome ----


def nothing_from_nothing(fit: reml.MixedFit, status: str) -> None:
    assert fit.status == status
    assert status in reml.STATUS
    for rule in (small_sample.kenward_roger, small_sample.satterthwaite, small_sample.kenward_roger_f, small_sample.satterthwaite_f):
        with pytest.raises(ValueError, match="no inference"):
            rule(fit, np.eye(fit.p))


SITE = np.repeat(np.arange(8), 5)
ARM = np.column_stack([np.ones(40), (SITE >= 4).astype(float)])
Y = RNG.normal(size=40) + RNG.normal(size=8)[SITE]


def test_groups_of_one_give_least_squares_and_say_so() -> None:
    fit = reml.fit(ARM, Y, [np.arange(40)])
    assert fit.status == "singletons" and not fit.identified.any()
    residual = Y - ARM @ fit.beta
    assert fit.sigma2 == pytest.approx(residual @ residual / 38)
    for rule in (small_sample.kenward_roger, small_sample.satterthwaite):
        assert_allclose(rule(fit, np.eye(2)).df, 38.0)
        assert_allclose(rule(fit, np.eye(2)).std_error, np.sqrt(np.diag(fit.sigma2 * np.linalg.inv(ARM.T @ ARM))))
    f = small_sample.kenward_roger_f(fit, np.eye(2))
    assert_allclose([f.df_den, f.scaling], [38.0, 1.0], rtol=1e-9)
    many = reml.fit_many(ARM, Y[:, None], [np.arange(40)])
    assert many.status[0] == "singletons"
    assert_allclose(many.kenward_roger.df, 38.0)


def test_one_group_an_arm_is_refused() -> None:
    nothing_from_nothing(reml.fit(ARM, Y, [SITE // 4]), "no_between_df")
    with pytest.raises(ValueError, match="between groups"):
        reml.fit_many(ARM, Y[:, None], [SITE // 4])


def test_columns_that_use_up_every_difference_within_groups() -> None:
    site = np.repeat(np.arange(8), [2, 2, 1, 1, 1, 1, 1, 1])
    X = np.column_stack([np.ones(10), [1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0.0, 0, 1, 0, 0, 0, 0, 0, 0, 0]])
    nothing_from_nothing(reml.fit(X, RNG.normal(size=10), [site]), "no_within_df")


def test_constant_outcome() -> None:
    nothing_from_nothing(reml.fit(ARM, np.full(40, 0.1), [SITE]), "constant_outcome")
    assert reml.fit_many(ARM, np.column_stack([np.full(40, 0.1), Y]), [SITE]).status.tolist() == ["constant_outcome", "ok"]


def test_outcome_reproduced_by_the_columns() -> None:
    nothing_from_nothing(reml.fit(ARM, ARM @ [1.0, 2.0], [SITE]), "exact_fit")
    nothing_from_nothing(reml.fit(ARM[:, 1:], np.full(40, 7.0) * ARM[:, 1], [SITE]), "exact_fit")


def test_no_variation_within_groups() -> None:
    y = RNG.normal(size=8)[SITE]
    for outcome in (y, 1e6 + y, y * 1e-6):
        nothing_from_nothing(reml.fit(ARM, outcome, [SITE]), "zero_residual")
        nothing_from_nothing(reml.fit(ARM, outcome, [SITE // 2, SITE]), "zero_residual")
    many = reml.fit_many(ARM, np.column_stack([y, Y]), [SITE])
    assert many.status.tolist() == ["zero_residual", "ok"]
    assert np.isnan(many.kenward_roger.df[0]).all() and np.isfinite(many.kenward_roger.df[1]).all()


def test_as_many_columns_as_rows() -> None:
    X = np.eye(6)
    nothing_from_nothing(reml.fit(X, RNG.normal(size=6), [np.repeat([0, 1, 2], 2)]), "saturated")


def test_factors_that_divide_the_rows_alike() -> None:
    nothing_from_nothing(reml.fit(ARM, Y, [SITE, SITE]), "confounded")
    nothing_from_nothing(reml.fit(ARM, Y, [SITE, np.arange(40)]), "confounded")


def test_pairs_used_up_by_fixed_effects() -> None:
    pair = SITE // 2
    X = np.column_stack([np.ones(40), SITE % 2, pair == 1, pair == 2, pair == 3]).astype(float)
    nothing_from_nothing(reml.fit(X, Y, [pair, SITE]), "no_between_df")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.where(np.arange(40) == 3, np.nan, Y)}, "finite"),
        ({"y": Y[:-1]}, "n rows"),
        ({"X": np.column_stack([ARM, ARM[:, 1] * 2 + 1])}, "linearly dependent|independent_columns"),
        ({"X": np.column_stack([ARM, np.full(40, 2.0)])}, "second constant"),
        ({"groups": [SITE.astype(float)]}, "integer codes"),
        ({"groups": [SITE - 1]}, "negative"),
        ({"groups": [SITE[:-1]]}, "one code a row"),
        ({"groups": [SITE, SITE // 2]}, "nested"),
        ({"groups": [SITE, SITE, SITE]}, "one or two"),
        ({"weights": np.zeros(40)}, "positive"),
        ({"method": "bayes"}, "method"),
    ],
)
def test_wrong_input_is_refused_with_its_reason(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"X": ARM, "y": Y, "groups": [SITE], **change}
    with pytest.raises(ValueError, match=message):
        reml.fit(arguments.pop("X"), arguments.pop("y"), arguments.pop("groups"), **arguments)


def test_independent_columns_are_those_r_keeps() -> None:
    x = RNG.normal(size=(30, 3))
    one = np.ones(30)
    X = np.column_stack([one, x[:, 0], x[:, 1], x[:, 0] + x[:, 1], x[:, 2], 3 * one, np.zeros(30)])
    assert reml.independent_columns(X).tolist() == [0, 1, 2, 4]
    # R drops the later of two equal columns, whatever their units; a large mean is not collinearity
    assert reml.independent_columns(np.column_stack([one, x[:, 0], 1e8 * x[:, 0]])).tolist() == [0, 1]
    assert reml.independent_columns(np.column_stack([x[:, 0] + 1e9, one, x[:, 1]])).tolist() == [0, 1, 2]
    assert reml.independent_columns(np.column_stack([one, x[:, 0], x[:, 0] + 1e-6 * x[:, 1]])).tolist() == [0, 1, 2]
    assert reml.independent_columns(np.column_stack([one, x[:, 0], x[:, 0] + 1e-8 * x[:, 1]])).tolist() == [0, 1]


def test_near_collinear_columns_keep_their_digits() -> None:
    t = trial(12, seed=8)
    X = np.column_stack([t["X"], t["X"][:, 2] + 1e-5 * t["X"][:, 3] ** 2])
    fit = reml.fit(X, t["y"], t["groups"])
    assert fit.deviance == pytest.approx(dense_deviance({**t, "X": X}, fit.theta, "reml"), abs=1e-5)
    easier = np.column_stack([t["X"], t["X"][:, 3] ** 2])
    assert fit.theta == pytest.approx(reml.fit(easier, t["y"], t["groups"]).theta, rel=1e-8)


def test_codes_need_not_be_consecutive_or_sorted() -> None:
    t = trial(9, seed=4)
    plain = reml.fit(t["X"], t["y"], t["groups"])
    names = np.array([900, 3, 70, 12, 5, 44, 1_000_000_007, 8, 21])
    other = reml.fit(t["X"], t["y"], [names[t["groups"][0]]])
    assert_allclose(other.theta, plain.theta, rtol=1e-11)
    codes, value, _ = reml.random_effects(other)[0]
    assert codes.tolist() == sorted(names)
    assert_allclose(value[np.searchsorted(codes, names)], reml.random_effects(plain)[0][1], rtol=1e-9)


def test_a_hundred_thousand_rows() -> None:
    rng = np.random.default_rng(5)
    site = np.repeat(np.arange(10_000), 10)
    X = np.column_stack([np.ones(site.size), site % 2, rng.normal(size=site.size)])
    y = X @ [0.0, 0.3, 0.5] + 0.5 * rng.normal(size=10_000)[site] + rng.normal(size=site.size)
    fit = reml.fit(X, y, [site])
    assert fit.optimum.converged
    assert fit.variances[0] == pytest.approx(0.25, rel=0.1)
    assert fit.beta == pytest.approx([0.0, 0.3, 0.5], abs=0.05)
