"""Each analytic design against simulated trials with the analysis it assumes; limits at a false alarm of one in a million.

Data are made from random effects (cluster, cluster and period, person, rest), not from the covariance matrices of the engine.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trialkit.power import co_primary, crossover, power, stepped_wedge

N = 20_000


def accept(rejected, expected):
    """The count lies inside the exact binomial limits for the expected power."""
    low, high = stats.binom.ppf([5e-7, 1 - 5e-7], N, expected)
    assert low <= int(rejected.sum()) <= high, (rejected.mean(), expected)


def t_test(x, y, pooled=True):
    nx, ny = x.shape[1], y.shape[1]
    vx, vy = x.var(axis=1, ddof=1), y.var(axis=1, ddof=1)
    if pooled:
        s2 = ((nx - 1) * vx + (ny - 1) * vy) / (nx + ny - 2)
        se, df = np.sqrt(s2 * (1 / nx + 1 / ny)), nx + ny - 2
    else:
        a, b = vx / nx, vy / ny
        se, df = np.sqrt(a + b), (a + b) ** 2 / (a**2 / (nx - 1) + b**2 / (ny - 1))
    return (y.mean(axis=1) - x.mean(axis=1)) / se, df


def rejects(t, df, alpha=0.05):
    return np.abs(t) > stats.t.isf(alpha / 2, df)


def means(rng, clusters, m, rho, shift=0.0, sd=1.0):
    """Cluster means: a cluster effect and the mean of m people."""
    return shift + sd * (math.sqrt(rho) * rng.normal(size=(N, clusters)) + math.sqrt((1 - rho) / m) * rng.normal(size=(N, clusters)))


@pytest.mark.parametrize(("J", "m", "rho", "d"), [(68, 2, 0.05, 0.5), (8, 30, 0.05, 0.6), (6, 100, 0.2, 1.0)])
def test_parallel(J, m, rho, d):
    rng = np.random.default_rng(1)
    t, df = t_test(means(rng, J // 2, m, rho), means(rng, J // 2, m, rho, d))
    accept(rejects(t, df), power(clusters=J, cluster_size=m, icc=rho, effect=d).power)


def test_parallel_one_sided_and_unequal_allocation():
    rng = np.random.default_rng(2)
    t, df = t_test(means(rng, 8, 20, 0.05), means(rng, 16, 20, 0.05, 0.4))
    accept(t > stats.t.isf(0.025, df), power(clusters=(8, 16), cluster_size=20, icc=0.05, effect=0.4, sides=1, alpha=0.025).power)


def test_heterogeneous_arms_with_welch():
    rng = np.random.default_rng(3)
    t, df = t_test(means(rng, 12, 10, 0.02), means(rng, 12, 10, 0.15, 0.6, sd=1.4), pooled=False)
    found = power(clusters=24, cluster_size=10, icc=(0.02, 0.15), sd=(1.0, 1.4), effect=0.6, df="welch")
    # Welch's df vary from trial to trial and the formula's do not: half a point besides chance
    assert rejects(t, df).mean() == pytest.approx(found.power, abs=0.005 + 5 * math.sqrt(0.25 / N))


def test_unequal_sizes_with_known_weights():
    rng = np.random.default_rng(4)
    sizes, rho, d = np.array([3, 8, 20, 50, 100, 100]), 0.08, 0.5
    v = rho + (1 - rho) / sizes
    x = rng.normal(size=(N, 6)) * np.sqrt(v)
    y = d + rng.normal(size=(N, 6)) * np.sqrt(v)
    w = (1 / v) / (1 / v).sum()
    z = ((y - x) @ w) / math.sqrt(2 / (1 / v).sum())
    found = power(clusters=12, cluster_size=sizes, icc=rho, effect=d, distribution="z-both-tails")
    accept(np.abs(z) > stats.norm.isf(0.025), found.power)


def test_matched_pairs():
    rng = np.random.default_rng(5)
    K, m, rho, d, rb = 9, 20, 0.1, 0.5, 0.6
    pair = math.sqrt(rho * rb) * rng.normal(size=(N, K))
    own = math.sqrt(rho * (1 - rb))
    noise = math.sqrt((1 - rho) / m)
    difference = d + own * (rng.normal(size=(N, K)) - rng.normal(size=(N, K))) + noise * (rng.normal(size=(N, K)) - rng.normal(size=(N, K)))
    t = ((difference + 0 * pair).mean(axis=1)) / (difference.std(axis=1, ddof=1) / math.sqrt(K))
    accept(rejects(t, K - 1), power(pairs=K, cluster_size=m, icc=rho, effect=d, matching_correlation=rb, matching_scale="effects").power)


def test_strata():
    rng = np.random.default_rng(6)
    S, per, m, rho, d = 4, 6, 15, 0.1, 0.5
    arm = np.tile([0.0, 1.0], per // 2)
    y = rng.normal(size=(N, S, 1)) + d * arm + math.sqrt(rho + (1 - rho) / m) * rng.normal(size=(N, S, per))
    effect = y[:, :, arm == 1].mean(axis=2) - y[:, :, arm == 0].mean(axis=2)
    fitted = y.mean(axis=2, keepdims=True) + effect.mean(axis=1)[:, None, None] * (arm - 0.5)
    df = S * per - S - 1
    s2 = ((y - fitted) ** 2).sum(axis=(1, 2)) / df
    t = effect.mean(axis=1) / np.sqrt(s2 * 4 / (S * per))
    accept(rejects(t, df), power(strata=S, clusters=S * per, cluster_size=m, icc=rho, effect=d).power)


def test_random_stratum_effects():
    rng = np.random.default_rng(7)
    S, per, m, rho, rho_s, omega, d = 10, 4, 10, 0.1, 0.15, 0.5, 0.4
    v = rho + (1 - rho - rho_s) / m
    effect = d + math.sqrt(rho_s * omega) * rng.normal(size=(N, S)) + math.sqrt(4 * v / per) * rng.normal(size=(N, S))
    t = effect.mean(axis=1) / (effect.std(axis=1, ddof=1) / math.sqrt(S))
    found = power(
        strata=S,
        strata_effects="random",
        stratum_heterogeneity=omega,
        clusters=S * per,
        cluster_size=m,
        icc=rho,
        icc_stratum=rho_s,
        effect=d,
    )
    accept(rejects(t, S - 1), found.power)


def two_waves(rng, clusters, m, rho, cac, iac, shift):
    """Means at baseline and follow-up: cluster, cluster and wave, person, person and wave."""
    stay = math.sqrt(rho * cac) * rng.normal(size=(N, clusters, 1)) + math.sqrt((1 - rho) * iac / m) * rng.normal(size=(N, clusters, 1))
    move = math.sqrt(rho * (1 - cac)) * rng.normal(size=(N, clusters, 2)) + math.sqrt((1 - rho) * (1 - iac) / m) * rng.normal(
        size=(N, clusters, 2)
    )
    return stay + move + np.array([0.0, shift])


def test_change_scores():
    rng = np.random.default_rng(8)
    a, b = two_waves(rng, 10, 20, 0.08, 0.8, 0.5, 0.0), two_waves(rng, 10, 20, 0.08, 0.8, 0.5, 0.35)
    t, df = t_test(a[:, :, 1] - a[:, :, 0], b[:, :, 1] - b[:, :, 0])
    accept(rejects(t, df), power(clusters=20, cluster_size=20, icc=0.08, cac=0.8, iac=0.5, baseline="change", effect=0.35).power)


def test_ancova():
    rng = np.random.default_rng(9)
    k = 20
    a, b = two_waves(rng, k, 20, 0.08, 0.8, 0.5, 0.0), two_waves(rng, k, 20, 0.08, 0.8, 0.5, 0.25)
    x = np.concatenate([a[:, :, 0], b[:, :, 0]], axis=1)
    y = np.concatenate([a[:, :, 1], b[:, :, 1]], axis=1)
    arm = np.repeat([0.0, 1.0], k)
    xc = x - np.where(arm == 1, x[:, k:].mean(axis=1, keepdims=True), x[:, :k].mean(axis=1, keepdims=True))
    slope = (xc * y).sum(axis=1) / (xc**2).sum(axis=1)
    gap = x[:, k:].mean(axis=1) - x[:, :k].mean(axis=1)
    effect = y[:, k:].mean(axis=1) - y[:, :k].mean(axis=1) - slope * gap
    residual = y - slope[:, None] * xc
    residual = residual - np.where(arm == 1, residual[:, k:].mean(axis=1, keepdims=True), residual[:, :k].mean(axis=1, keepdims=True))
    df = 2 * k - 3
    se = np.sqrt((residual**2).sum(axis=1) / df * (2 / k + gap**2 / (xc**2).sum(axis=1)))
    found = power(clusters=2 * k, cluster_size=20, icc=0.08, cac=0.8, iac=0.5, effect=0.25, df="clusters-3")
    # the formula knows the slope, the analysis learns it: 1/(J-4) of the variance, here a point of power
    observed = rejects(effect / se, df).mean()
    assert found.power - 0.015 < observed < found.power + 5 * math.sqrt(0.25 / N)


def test_three_levels():
    rng = np.random.default_rng(10)
    K, J, n, r3, r2, d = 14, 4, 6, 0.06, 0.12, 0.6

    def draw(shift):
        middle = math.sqrt(r2) * rng.normal(size=(N, K // 2, J)) + math.sqrt((1 - r2 - r3) / n) * rng.normal(size=(N, K // 2, J))
        return shift + math.sqrt(r3) * rng.normal(size=(N, K // 2)) + middle.mean(axis=2)

    t, df = t_test(draw(0.0), draw(d))
    accept(rejects(t, df), power(clusters=K, subclusters=J, subcluster_size=n, icc=r3, icc_subcluster=r2, effect=d).power)


def test_partially_nested():
    rng = np.random.default_rng(11)
    t, df = t_test(rng.normal(size=(N, 80)), means(rng, 10, 8, 0.1, 0.45), pooled=False)
    found = power(clusters=10, cluster_size=8, controls=80, icc=0.1, effect=0.45)
    assert rejects(t, df).mean() == pytest.approx(found.power, abs=0.01 + 5 * math.sqrt(0.25 / N))


def test_several_arms_omnibus():
    rng = np.random.default_rng(12)
    mu, k, m, rho = (0.0, 0.3, 0.6), 6, 20, 0.05
    y = np.stack([means(rng, k, m, rho, d) for d in mu], axis=1)
    between = k * y.mean(axis=2).var(axis=1, ddof=1)
    within = y.var(axis=2, ddof=1).mean(axis=1)
    accept(between / within > stats.f.isf(0.05, 2, 15), power(means=mu, clusters=18, cluster_size=m, icc=rho).power)


def test_crossover_by_differences():
    rng = np.random.default_rng(13)
    J, m, rho, cac, iac, d = 8, 15, 0.08, 0.7, 0.3, 0.35
    first = two_waves(rng, J // 2, m, rho, cac, iac, d)
    second = two_waves(rng, J // 2, m, rho, cac, iac, 0.0)
    second[:, :, 0] += d
    t, df = t_test(second[:, :, 1] - second[:, :, 0], first[:, :, 1] - first[:, :, 0])
    accept(
        rejects(t, df),
        power(layout=crossover(), clusters=J, cluster_size=m, icc=rho, cac=cac, iac=iac, correlation="two-period", effect=d).power,
    )


@pytest.mark.parametrize("correlation", ["two-period", "decay"])
def test_stepped_wedge_with_known_covariance(correlation):
    rng = np.random.default_rng(14)
    X = np.repeat(np.array(stepped_wedge(4)), 2, axis=0)
    I, T = X.shape
    m, rho, cac, iac, d = 12, 0.08, 0.8, 0.4, 0.3
    if correlation == "two-period":
        level = math.sqrt(rho * cac) * rng.normal(size=(N, I, 1)) + math.sqrt(rho * (1 - cac)) * rng.normal(size=(N, I, T))
    else:
        level = np.empty((N, I, T))
        level[:, :, 0] = rng.normal(size=(N, I))
        for t in range(1, T):
            level[:, :, t] = cac * level[:, :, t - 1] + math.sqrt(1 - cac**2) * rng.normal(size=(N, I))
        level *= math.sqrt(rho)
    people = math.sqrt((1 - rho) * iac / m) * rng.normal(size=(N, I, 1)) + math.sqrt((1 - rho) * (1 - iac) / m) * rng.normal(size=(N, I, T))
    y = level + people + d * X + 0.2 * np.arange(T)
    # least squares within clusters, its variance from the simulated spread of a linear estimator: no covariance matrix is used
    design = np.concatenate([np.kron(np.ones((I, 1)), np.eye(T)), X.reshape(-1, 1)], axis=1)
    lag = np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
    R = np.where(lag == 0, 1.0, cac) if correlation == "two-period" else cac**lag
    V = np.kron(np.eye(I), rho * R + (1 - rho) / m * np.where(lag == 0, 1.0, iac))
    Vi = np.linalg.inv(V)
    weights = (np.linalg.inv(design.T @ Vi @ design) @ design.T @ Vi)[-1]
    estimate = y.reshape(N, -1) @ weights
    found = power(
        layout=stepped_wedge(4),
        clusters=I,
        cluster_size=m,
        icc=rho,
        cac=cac,
        iac=iac,
        correlation=correlation,
        effect=d,
        distribution="z-both-tails",
    )
    assert estimate.mean() == pytest.approx(d, abs=5 * found.std_error / math.sqrt(N))
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], N - 1) / (N - 1)
    assert low < estimate.var(ddof=1) / found.variance < high
    accept(np.abs(estimate / found.std_error) > stats.norm.isf(0.025), found.power)


def test_binary_and_rates():
    rng = np.random.default_rng(15)
    k, m, rho = 15, 60, 0.03
    p = [rng.beta(q * (1 - rho) / rho, (1 - q) * (1 - rho) / rho, size=(N, k)) for q in (0.3, 0.42)]
    t, df = t_test(rng.binomial(m, p[0]) / m, rng.binomial(m, p[1]) / m)
    found = power(p_control=0.3, p_intervention=0.42, clusters=2 * k, cluster_size=m, icc=rho)
    assert rejects(t, df).mean() == pytest.approx(found.power, abs=0.01 + 5 * math.sqrt(0.25 / N))
    cv, y = 0.25, 400.0
    rates = [lam * rng.gamma(1 / cv**2, cv**2, size=(N, k)) for lam in (0.10, 0.075)]
    t, df = t_test(rng.poisson(y * rates[0]) / y, rng.poisson(y * rates[1]) / y)
    found = power(rate_control=0.10, rate_intervention=0.075, person_time=y, k=cv, clusters=2 * k)
    assert rejects(t, df).mean() == pytest.approx(found.power, abs=0.01 + 5 * math.sqrt(0.25 / N))


def test_co_primary_outcomes():
    rng = np.random.default_rng(16)
    k, m, rho, r1, r2, d = 8, 20, 0.06, 0.03, 0.4, 0.55
    B = np.array([[rho, r1], [r1, rho]])
    E = np.array([[1 - rho, r2 - r1], [r2 - r1, 1 - rho]])
    half = np.linalg.cholesky(B + E / m)
    x, y = (rng.normal(size=(N, k, 2)) @ half.T for _ in range(2))
    y = y + d
    both = np.ones(N, dtype=bool)
    for q in (0, 1):
        t, _ = t_test(x[:, :, q], y[:, :, q])
        both &= rejects(t, 2 * k - 4)
    found = co_primary(
        clusters=2 * k, cluster_size=m, effects=(d, d), icc=rho, between_person_correlation=r1, within_person_correlation=r2, test="all"
    )
    # the formula gives both statistics one denominator on 2k - 4 df; the analysis has two correlated ones on 2k - 2
    assert both.mean() == pytest.approx(found.power, abs=0.02 + 5 * math.sqrt(0.25 / N))
