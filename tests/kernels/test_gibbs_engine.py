"""The engine's bookkeeping and small parts: sums kept up to date, streams, donors, truncated draws, R-hat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import SeedSequence
from scipy import stats

from trialkit._kernels import gibbs, gibbs_donors, gibbs_linear, truncated
from trialkit._kernels.convergence import convergence
from trialkit._kernels.gibbs_linear import Columns, Layout, Moments, Prior
from trialkit._kernels.gibbs_streams import Streams


def mixed_problem(seed: int = 3, n: int = 80, sites: int = 14) -> gibbs.Problem:
    """Every kind of target, a site-level one, and every kind of derived column."""
    rng = np.random.default_rng(seed)
    site = np.sort(np.r_[np.arange(sites), rng.integers(0, sites, n - sites)])
    z = np.column_stack([np.ones(n), (site % 2).astype(float), rng.normal(size=(n, 7)), np.zeros((n, 4))])
    z[:, 4] = (rng.random(n) < 0.5).astype(float)  # binary
    codes = rng.integers(0, 3, n)  # nominal, columns 5 and 6
    z[:, 5:7] = np.eye(3)[codes][:, 1:]
    z[:, 8] = rng.normal(size=sites)[site]  # site level
    ordinal = rng.integers(0, 4, n)
    z[:, 9] = ordinal - 1.5
    gone = {k: np.flatnonzero(rng.random(n) < 0.3) for k in (2, 3, 4, 5, 7, 9)}
    everyone = np.arange(n)

    def seen(k: int) -> np.ndarray:
        return np.setdiff1d(everyone, gone[k])

    def others(*own: int) -> np.ndarray:
        return np.array([c for c in range(11) if c not in own and c != 10])

    count = np.floor(np.exp(rng.normal(size=n)))
    z[:, 7] = (count - 1.5) / 2
    lost = np.array([1, 4, 9])
    kept = np.setdiff1d(np.arange(sites), lost)
    targets = (
        gibbs.Target("normal", "normal", False, gone[2], seen(2), np.array([2]), others(2), z[seen(2), 2]),
        gibbs.Target("bounded", "normal", False, gone[3], seen(3), np.array([3]), others(3), z[seen(3), 3], low=-0.5, high=np.inf),
        gibbs.Target("binary", "binary", False, gone[4], seen(4), np.array([4]), others(4), z[seen(4), 4], 2, np.array([[0.0], [1.0]])),
        gibbs.Target(
            "nominal", "nominal", False, gone[5], seen(5), np.array([5, 6]), others(5, 6), codes[seen(5)] * 1.0, 3, np.eye(3)[:, 1:]
        ),
        gibbs.Target("count", "pmm", False, gone[7], seen(7), np.array([7]), others(7), count[seen(7)], coding=np.array([[1.5], [2.0]])),
        gibbs.Target(
            "ordinal",
            "ordinal",
            False,
            gone[9],
            seen(9),
            np.array([9]),
            others(9),
            ordinal[seen(9)] * 1.0,
            4,
            np.arange(4.0)[:, None] - 1.5,
        ),
        gibbs.Target("site", "normal", True, lost, kept, np.array([8]), np.array([0, 1, 2]), z[np.searchsorted(site, kept), 8]),
    )
    derived = (
        gibbs.SiteMean(2, 10),
        gibbs.Product(1, 3, 11),
        gibbs.Sum(np.array([2, 3]), np.array([0.5, -2.0]), 1.0, 12, np.array([0, 3, 7])),
    )
    return gibbs.Problem(z, site.astype(np.intp), targets, derived)


@pytest.mark.parametrize("wards", [False, True])
def test_sums_and_derived_columns_follow_every_change(wards: bool) -> None:
    problem = mixed_problem()
    if wards:  # the first three people of a site, and the others
        place = np.arange(80) - np.searchsorted(problem.site, problem.site)
        problem = replace(problem, subcluster=np.unique(2 * problem.site + (place >= 3), return_inverse=True)[1])
    cluster, _ = problem.clusters()
    engine = gibbs._Engine(problem, Streams(SeedSequence(1).spawn(3)))
    for target, plan, memory in zip(problem.targets, engine.plans, engine.memory, strict=True):
        drawn = engine._visit_site(target, plan, memory) if target.site_level else engine._visit(target, plan, memory)
        engine._write(target, plan, drawn)
        np.testing.assert_allclose(engine.gram, engine.z.swapaxes(1, 2) @ engine.z, atol=1e-10, err_msg=target.name)
        for j in range(engine.J):
            np.testing.assert_allclose(engine.site_sum[:, j], engine.z[:, cluster == j].sum(axis=1), atol=1e-12)
        mean = np.stack([engine.z[:, problem.site == j, 2].mean(axis=1) for j in range(14)], axis=1)
        np.testing.assert_allclose(engine.z[:, :, 10], mean[:, problem.site])
        np.testing.assert_allclose(engine.z[:, :, 11], engine.z[:, :, 1] * engine.z[:, :, 3])
        np.testing.assert_allclose(engine.z[:, [0, 3, 7], 12], 1 + 0.5 * engine.z[:, [0, 3, 7], 2] - 2 * engine.z[:, [0, 3, 7], 3])
        # observed cells are never written
        rows = np.setdiff1d(np.arange(len(problem.z)), plan.rows)
        np.testing.assert_array_equal(
            engine.z[:, rows[:, None], target.columns],
            np.broadcast_to(problem.z[rows[:, None], target.columns], (3, len(rows), len(target.columns))),
        )


def test_a_chain_is_the_same_alone_and_in_company() -> None:
    problem = mixed_problem()
    seeds = [SeedSequence(9, spawn_key=(k,)) for k in range(5)]
    together = gibbs.run(problem, seeds, 4)
    for k in (0, 3):
        alone = gibbs.run(problem, [seeds[k]], 4)
        for name, values in together.values.items():
            np.testing.assert_array_equal(alone.values[name][0], values[k], err_msg=name)


def test_bounded_draws_stay_inside_and_do_not_pile_up() -> None:
    problem = mixed_problem()
    drawn = gibbs.run(problem, SeedSequence(2).spawn(40), 3).values["bounded"]
    assert drawn.min() >= -0.5
    assert (drawn == -0.5).mean() < 0.001


def test_site_level_values_are_one_a_site() -> None:
    assert gibbs.run(mixed_problem(), SeedSequence(2).spawn(4), 2).values["site"].shape == (4, 3)


def test_a_singular_chain_is_repaired_alone_and_counted() -> None:
    good = np.eye(3)
    factor, repaired = gibbs_linear.cholesky(np.stack([good, np.ones((3, 3)), good]))
    np.testing.assert_array_equal(repaired, [False, True, False])
    np.testing.assert_array_equal(factor[0], np.eye(3))
    np.testing.assert_allclose(factor[1] @ factor[1].T, np.ones((3, 3)), atol=1e-6)


def test_back_substitution() -> None:
    rng = np.random.default_rng(0)
    lower = np.tril(rng.normal(size=(4, 6, 6))) + 3 * np.eye(6)
    x = rng.normal(size=(4, 6))
    np.testing.assert_allclose(gibbs_linear.back_substitute(lower, (lower.swapaxes(1, 2) @ x[:, :, None])[:, :, 0]), x, rtol=1e-10)


def test_linear_posterior_against_dense_algebra() -> None:
    """Given phi, beta's posterior mean is generalised least squares, and u's its best linear prediction."""
    rng = np.random.default_rng(5)
    site = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 0])
    n, m, t = len(site), 20_000, 0.4
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    y = x @ [1.0, -0.5] + rng.normal(size=6)[site] + rng.normal(size=n)
    phi2 = (t / (1 - t)) ** 2
    Z = np.eye(6)[site]
    V = np.eye(n) + phi2 * Z @ Z.T
    Vi = np.linalg.inv(V)
    beta = np.linalg.solve(x.T @ Vi @ x, x.T @ Vi @ y)
    u = phi2 * Z.T @ Vi @ (y - x @ beta)
    rss = (y - x @ beta) @ Vi @ (y - x @ beta)

    def tile(a: np.ndarray) -> np.ndarray:
        return np.broadcast_to(a, (m, *a.shape))

    data = np.column_stack([x, y])
    moments = Moments(tile(data.T @ data), tile(Z.T @ data), n, Columns.of(np.arange(2), 2, 3))
    draw = gibbs_linear.draw(
        moments,
        Layout.of(np.bincount(site, minlength=6)),
        Prior(np.zeros(2), site=0.5),
        Streams(SeedSequence(4).spawn(m)),
        beta=None,
        t=np.full(m, t),
    )
    error = draw.beta.std(axis=0) / np.sqrt(m)
    assert (np.abs(draw.beta.mean(axis=0) - beta) < 5 * error).all()
    assert draw.u is not None
    assert (np.abs(draw.u.mean(axis=0) - u) < 5 * draw.u.std(axis=0) / np.sqrt(m)).all()
    # sigma^2: rss / chi2 with n - p df
    assert stats.kstest(rss / draw.sigma2, stats.chi2(n - 2).cdf).pvalue > 1e-4
    assert draw.u[:, 5].std() == pytest.approx(np.sqrt(phi2 * rss / (n - 4)), rel=0.1)  # the empty site: its prior


@settings(max_examples=60, deadline=None)
@given(st.floats(-40, 40), st.floats(-30, 30), st.floats(0.01, 20), st.floats(1e-9, 1 - 1e-9))
def test_truncated_draws_lie_inside(mean: float, low: float, width: float, uniform: float) -> None:
    high = low + width
    one = np.array([mean])
    x = truncated.between(one, np.array([low]), np.array([high]), np.array([uniform]))[0]
    assert low - 1e-9 <= x <= high + 1e-9
    above = truncated.above_zero(one, np.array([uniform]))[0]
    assert np.isfinite(above)
    assert above >= 0


@pytest.mark.parametrize(
    ("mean", "low", "high"), [(0.3, -1, 2), (-12.0, 0, np.inf), (9.0, -np.inf, 0), (0.0, 8.5, 9.0), (30.0, -np.inf, -10)]
)
def test_truncated_draws_have_their_distribution(mean: float, low: float, high: float) -> None:
    u = (np.arange(4000) + 0.5) / 4000
    one = np.full(u.shape, mean)
    x = truncated.between(one, np.full(u.shape, float(low)), np.full(u.shape, float(high)), u)
    exact = stats.truncnorm(low - mean, high - mean, loc=mean)
    np.testing.assert_allclose(np.sort(x)[[100, 2000, 3900]], exact.ppf(u[[100, 2000, 3900]]), rtol=1e-6, atol=1e-9)
    if low == 0:
        np.testing.assert_allclose(np.sort(truncated.above_zero(one, u)), np.sort(x), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 10**6))
def test_donors_are_among_the_nearest(r: int, q: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    observed, absent, u = rng.normal(size=(3, r)), rng.normal(size=(3, q)), rng.random((3, q))
    chosen = gibbs_donors.donors(observed, absent, u)
    for k in range(3):
        for i in range(q):
            distance = np.abs(observed[k] - absent[k, i])
            assert (distance < distance[chosen[k, i]]).sum() < min(5, r)


def test_every_near_donor_is_used() -> None:
    observed = np.arange(30.0)[None]
    absent = np.full((1, 5000), 10.2)
    chosen = gibbs_donors.donors(observed, absent, np.random.default_rng(1).random((1, 5000)))
    values, counts = np.unique(chosen, return_counts=True)
    np.testing.assert_array_equal(values, [8, 9, 10, 11, 12])
    assert stats.chisquare(counts).pvalue > 1e-4


def test_normal_scores_average_ties() -> None:
    scores = gibbs_donors.normal_scores(np.array([3.0, 1.0, 1.0, 9.0]))
    assert scores[1] == scores[2] < scores[0] < scores[3]
    assert scores.mean() == pytest.approx(0)


def test_r_hat_tells_mixed_from_stuck_chains() -> None:
    rng = np.random.default_rng(2)
    mixed = convergence(rng.normal(size=(40, 50)))
    assert mixed.r_hat == pytest.approx(1, abs=0.03)
    assert mixed.ess == pytest.approx(20 * 50, rel=0.25)
    stuck = convergence(rng.normal(size=(40, 50)) * 0.1 + rng.normal(size=50))
    assert stuck.r_hat > 3
    assert stuck.ess < 200
    assert np.isnan(convergence(np.ones((10, 5))).r_hat)
    assert np.isnan(convergence(rng.normal(size=(10, 1))).r_hat)
    # an AR(1) of coefficient .8 has (1 - .8) / (1 + .8) of the draws' worth
    x = np.zeros((400, 30))
    for i in range(1, 400):
        x[i] = 0.8 * x[i - 1] + 0.6 * rng.normal(size=30)
    assert convergence(x).ess == pytest.approx(200 * 30 / 9, rel=0.3)
