"""The engine against every closed form, to 1e-10: nothing here calls the engine's own formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trialkit._kernels import gls
from trialkit.power import PowerDesign, crossover, power, stepped_wedge
from trialkit.power.designs import precision
from trialkit.power.outcomes import proportion_icc

CLOSE = {"rel": 1e-10}
rng = np.random.default_rng(7)


def variance(**arguments):
    return precision(PowerDesign(**{"effect": 0.3, **arguments})).variance


@pytest.mark.parametrize(
    ("J", "m", "rho", "ratio", "r2c", "r2p"), [(20, 15, 0.05, 1, 0, 0), (30, 4, 0.3, 2, 0.4, 0.1), (9, 1, 0.0, 0.5, 0, 0.2)]
)
def test_parallel(J, m, rho, ratio, r2c, r2p):
    p = ratio / (1 + ratio)
    want = 4.0 * (rho * (1 - r2c) + (1 - rho) * (1 - r2p) / m) / (p * (1 - p) * J)
    assert variance(clusters=J, cluster_size=m, icc=rho, sd=2.0, allocation_ratio=ratio, r2_cluster=r2c, r2_person=r2p) == pytest.approx(
        want, **CLOSE
    )


def test_parallel_with_different_arms():
    want = 1.0 * (1 + 9 * 0.02) / (10 * 12) + 2.25 * (1 + 19 * 0.1) / (20 * 8)
    found = precision(PowerDesign(clusters=(12, 8), cluster_size=(10, 20), icc=(0.02, 0.1), sd=(1.0, 1.5), effect=0.3, df="welch"))
    assert found.variance == pytest.approx(want, **CLOSE)
    a, b = 1.18 / 120, 2.25 * 2.9 / 160
    assert found.df == pytest.approx((a + b) ** 2 / (a**2 / 11 + b**2 / 7), **CLOSE)


def person_level(arm, sizes, rho, weights=None):
    """GLS (or weighted) variance of the arm's effect from every single person."""
    rows = [(a, i) for i, (a, m) in enumerate(zip(arm, sizes, strict=True)) for _ in range(m)]
    X = np.array([[1.0, a] for a, _ in rows])
    cluster = np.array([i for _, i in rows])
    V = rho * (cluster[:, None] == cluster[None, :]) + (1 - rho) * np.eye(len(rows))
    if weights is None:
        return np.linalg.inv(X.T @ np.linalg.solve(V, X))[1, 1]
    W = np.diag(np.array(weights, dtype=float)[cluster])
    bread = np.linalg.inv(X.T @ W @ X)
    return (bread @ X.T @ W @ V @ W @ X @ bread)[1, 1]


def test_unequal_sizes_from_every_person():
    control, treated, rho = [3, 8, 5, 2], [7, 4, 4, 9, 6], 0.12
    arm, sizes = [0] * 4 + [1] * 5, control + treated
    base = {"cluster_size": (control, treated), "icc": rho}
    assert variance(**base) == pytest.approx(person_level(arm, sizes, rho), **CLOSE)
    # weighting people equally is least squares; weighting clusters equally gives every person 1/m
    assert variance(**base, analysis="size-weighted") == pytest.approx(person_level(arm, sizes, rho, [1] * 9), **CLOSE)
    assert variance(**base, analysis="cluster-means") == pytest.approx(person_level(arm, sizes, rho, [1 / m for m in sizes]), **CLOSE)


def test_unequal_sizes_by_their_coefficient_of_variation():
    J, m, rho, cv = 40, 100, 0.1, 0.5
    L = m * rho / (1 + (m - 1) * rho)
    base = {"clusters": J, "cluster_size": m, "icc": rho, "cluster_size_cv": cv}
    assert variance(**base) == pytest.approx(4 * (1 + (m - 1) * rho) / (m * J) / (1 - cv**2 * L * (1 - L)), **CLOSE)
    assert variance(**base, analysis="size-weighted") == pytest.approx(4 * (1 + ((1 + cv**2) * m - 1) * rho) / (m * J), **CLOSE)


@pytest.mark.parametrize("r", [-0.3, 0.0, 0.4])
def test_matched_pairs(r):
    K, m, rho = 12, 20, 0.08
    v = rho + (1 - rho) / m
    assert variance(pairs=K, cluster_size=m, icc=rho, matching_correlation=r) == pytest.approx(2 * v * (1 - r) / K, **CLOSE)
    effects = variance(pairs=K, cluster_size=m, icc=rho, matching_correlation=r, matching_scale="effects")
    assert effects == pytest.approx(2 * v * (1 - r * rho / v) / K, **CLOSE)
    # a random pair effect fitted by GLS says the same
    unit = gls.units([[1.0, 0.0], [1.0, 1.0]], v * np.array([[1, r], [r, 1]]), K)
    assert gls.contrast_covariance([unit], [0.0, 1.0]).variance == pytest.approx(2 * v * (1 - r) / K, **CLOSE)


def test_strata():
    S, J, m, rho, rho_s, omega = 6, 36, 10, 0.1, 0.13, 0.4
    base = {"strata": S, "clusters": J, "cluster_size": m, "icc": rho, "icc_stratum": rho_s}
    inner = 4 * (rho + (1 - rho - rho_s) / m) / J
    assert variance(**base) == pytest.approx(inner, **CLOSE)
    assert variance(**base, strata_effects="random", stratum_heterogeneity=omega) == pytest.approx(rho_s * omega / S + inner, **CLOSE)
    # from every cluster: random stratum level and random stratum effect, GLS
    v = rho + (1 - rho - rho_s) / m
    x = np.array([0.0] * 3 + [1.0] * 3)
    V = v * np.eye(6) + rho_s * np.ones((6, 6)) + rho_s * omega * np.outer(x - 0.5, x - 0.5)
    dense = gls.contrast_covariance([gls.units(np.column_stack([np.ones(6), x]), V, S)], [0.0, 1.0]).variance
    assert variance(**base, strata_effects="random", stratum_heterogeneity=omega) == pytest.approx(dense, **CLOSE)
    # strata as fixed effects, dummies and all
    blocks = []
    for s in range(S):
        dummies = np.zeros((6, S))
        dummies[:, s] = 1
        blocks.append(gls.units(np.column_stack([dummies, x]), v * np.eye(6)))
    assert variance(**base) == pytest.approx(gls.contrast_covariance(blocks, np.eye(S + 1)[-1]).variance, **CLOSE)
    assert precision(PowerDesign(**base, effect=0.3)).df == J - S - 1
    assert precision(PowerDesign(**base, effect=0.3, df="within-strata")).df == J - 2 * S


@pytest.mark.parametrize(("cac", "iac"), [(0.8, 0.0), (0.5, 0.6), (1.0, 0.3), (0.0, 0.0)])
def test_baseline(cac, iac):
    J, m, rho = 24, 30, 0.05
    unit = 4 * (1 + (m - 1) * rho) / (m * J)
    r = (m * rho * cac + (1 - rho) * iac) / (1 + (m - 1) * rho)
    base = {"clusters": J, "cluster_size": m, "icc": rho, "cac": cac, "iac": iac}
    assert variance(**base) == pytest.approx(unit * (1 - r**2), **CLOSE)
    assert variance(**base, baseline="ancova") == variance(**base)
    assert variance(**base, baseline="change") == pytest.approx(unit * 2 * (1 - r), **CLOSE)
    assert variance(**base, baseline="post") == pytest.approx(unit, **CLOSE)
    # the same trial as a layout of two periods is the constrained baseline analysis without the constraint's help: never better
    layout = variance(layout=[[0, 0], [0, 1]], clusters=J, cluster_size=m, icc=rho, cac=cac, iac=iac, correlation="two-period")
    assert layout == pytest.approx(unit * (1 - r**2), **CLOSE)


def test_three_levels():
    K, J, n, r3, r2 = 16, 5, 8, 0.06, 0.1
    base = {"clusters": K, "subclusters": J, "subcluster_size": n, "icc": r3, "icc_subcluster": r2}
    want = 4 * (r3 * 0.7 + r2 * 0.8 / J + (1 - r2 - r3) * 0.9 / (J * n)) / K
    assert variance(**base, r2_cluster=0.3, r2_subcluster=0.2, r2_person=0.1) == pytest.approx(want, **CLOSE)
    plain = variance(**base)
    assert variance(clusters=K, subclusters=J, cluster_size=J * n, icc=r3, icc_subcluster=r2) == pytest.approx(plain, **CLOSE)
    V = r3 * np.ones((J, J)) + (r2 + (1 - r2 - r3) / n) * np.eye(J)
    blocks = [gls.units(np.column_stack([np.ones(J), np.full(J, a)]), V, K / 2) for a in (0.0, 1.0)]
    assert plain == pytest.approx(gls.contrast_covariance(blocks, [0.0, 1.0]).variance, **CLOSE)


@pytest.mark.parametrize("steps", [2, 4, 7])
def test_stepped_wedge_hussey_hughes(steps):
    X = np.repeat(np.array(stepped_wedge(steps)), 3, axis=0)
    I, T = X.shape
    m, rho = 20, 0.05
    s2, t2 = (1 - rho) / m, rho
    U, W, V = X.sum(), (X.sum(axis=0) ** 2).sum(), (X.sum(axis=1) ** 2).sum()
    want = I * s2 * (s2 + T * t2) / ((I * U - W) * s2 + (U**2 + I * T * U - T * W - I * V) * t2)
    assert variance(layout=stepped_wedge(steps), clusters=I, cluster_size=m, icc=rho) == pytest.approx(want, **CLOSE)


@pytest.mark.parametrize(("steps", "cac", "iac"), [(3, 0.8, 0.0), (5, 0.9, 0.5), (4, 1.0, 0.2)])
def test_stepped_wedge_hooper(steps, cac, iac):
    m, rho, per = 25, 0.06, 2
    r = (m * rho * cac + (1 - rho) * iac) / (1 + (m - 1) * rho)
    repeated = 3 * steps * (1 - r) * (1 + steps * r) / ((steps**2 - 1) * (2 + steps * r))
    want = 4 * (1 + (m - 1) * rho) * repeated / (per * m * steps)
    found = variance(
        layout=stepped_wedge(steps), clusters_per_sequence=per, cluster_size=m, icc=rho, cac=cac, iac=iac, correlation="two-period"
    )
    assert found == pytest.approx(want, **CLOSE)


@pytest.mark.parametrize("chi", [0.0, 0.7, 1.0])
def test_stepped_wedge_open_cohort_kasza(chi):
    X = np.repeat(np.array(stepped_wedge(4)), 6, axis=0)
    I, T = X.shape
    N, tau, gamma, psi, sigma = 100, 0.025, 0.01, 0.1, 0.198
    total = tau**2 + gamma**2 + psi**2 + sigma**2
    a, b, w = (tau**2 + psi**2) / total, tau**2 / total, (tau**2 + gamma**2) / total
    lost = chi * (a - b)
    l1 = 1 + (N - 1) * (w - b) - a + lost
    l2 = 1 + (N - 1) * w + (T - 1) * (N - 1) * b + (T - 1) * a - lost * (T - 1)
    U, W, V = X.sum(), (X.sum(axis=0) ** 2).sum(), (X.sum(axis=1) ** 2).sum()
    want = total / N * I * T * l1 * l2 / ((U**2 + I * T * U - T * W - I * V) * l2 - (U**2 - I * V) * l1)
    found = variance(
        layout=stepped_wedge(4), clusters=I, cluster_size=N, sd=math.sqrt(total), icc=w, cac=b / w,
        iac=psi**2 / (psi**2 + sigma**2), turnover=chi,
    )  # fmt: skip
    assert found == pytest.approx(want, **CLOSE)


def test_stepped_wedge_proportional_decay_li():
    X = np.repeat(np.array(stepped_wedge(4)), 6, axis=0)
    I, N, tau, psi, ar = len(X), 100, 0.25, 1.0, 0.6
    total, rho = tau**2 + psi**2, tau**2 / (tau**2 + psi**2)
    U, W = X.sum(), (X.sum(axis=0) ** 2).sum()
    P = (X[:, :-1] * X[:, 1:]).sum()
    Q = (X[:, :-1].sum(axis=0) * X[:, 1:].sum(axis=0)).sum()
    want = total * I / N * (1 - ar**2) * (1 + (N - 1) * rho) / ((I * U - W) * (1 + ar**2) - 2 * (I * P - Q) * ar)
    found = variance(
        layout=stepped_wedge(4), clusters=I, cluster_size=N, sd=math.sqrt(total), icc=rho, cac=ar, iac=ar,
        correlation="decay", person_correlation="decay",
    )  # fmt: skip
    assert found == pytest.approx(want, **CLOSE)


def test_any_matrix_from_every_cluster():
    """Missing cells, sizes by cell, random intervention effect, decay: against dense algebra over all clusters."""
    layout = [[0, 1, 1, None], [0, 0, 1, 1], [None, 0, 0, 1]]
    size = np.array([[10, 12, 8, 5], [9, 9, 9, 9], [20, 4, 6, 7]])
    rho, cac, eta, corr, counts = 0.08, 0.7, 0.2, 0.3, (2, 3, 2)
    X = np.array(layout, dtype=float)
    rows, designs, cells = [], [], []
    for s, n in enumerate(counts):
        for _ in range(n):
            seen = np.isfinite(X[s])
            lag = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
            V = rho * cac**lag + np.diag((1 - rho) / size[s])
            x = np.nan_to_num(X[s])
            # the time-constant part of a cluster's level is what its effect is correlated with
            V = V + eta**2 * np.outer(x, x) + corr * eta * math.sqrt(rho * cac) * np.add.outer(x, x)
            rows.append(V[np.ix_(seen, seen)])
            designs.append(np.column_stack([np.eye(4), x])[seen])
            cells.append(seen.sum())
    D = np.concatenate(designs)
    big = np.zeros((len(D), len(D)))
    at = 0
    for V, n in zip(rows, cells, strict=True):
        big[at : at + n, at : at + n] = V
        at += n
    want = np.linalg.inv(D.T @ np.linalg.solve(big, D))[-1, -1]
    found = precision(
        PowerDesign(
            layout=layout, clusters_per_sequence=counts, cluster_size=size.tolist(), icc=rho, cac=cac, correlation="decay",
            intervention_sd=eta,
            intervention_correlation=corr, effect=0.3,
        )
    )  # fmt: skip
    assert found.variance == pytest.approx(want, **CLOSE)
    assert found.clusters == 7


def test_linear_time_and_exposure_average():
    layout = stepped_wedge(3)
    base = {"layout": layout, "clusters": 12, "cluster_size": 10, "icc": 0.05}
    fewer, more = variance(**base, time_effects="linear"), variance(**base)
    assert variance(**base, time_effects="none") < fewer
    assert fewer == pytest.approx(more, **CLOSE)  # a balanced wedge: the treated share itself rises in a straight line
    uneven = {**base, "layout": [[0, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]}
    assert variance(**uneven, time_effects="none") < variance(**uneven, time_effects="linear") < variance(**uneven)
    X = np.array(layout)
    exposure = np.cumsum(X, axis=1)
    V = 0.05 + np.eye(4) * 0.095
    groups = [gls.units(np.column_stack([np.eye(4), *[(exposure[s] == k).astype(float) for k in (1, 2, 3)]]), V, 4) for s in range(3)]
    want = gls.contrast_covariance(groups, [0, 0, 0, 0, 1 / 3, 1 / 3, 1 / 3]).variance
    assert variance(**base, estimand="exposure-average") == pytest.approx(want, **CLOSE)
    assert want > more


@pytest.mark.parametrize(("cac", "iac"), [(0.8, 0.0), (0.8, 0.4), (1.0, 0.0)])
def test_crossover(cac, iac):
    J, m, rho = 8, 30, 0.05
    want = 2 * ((1 - rho) * (1 - iac) + m * rho * (1 - cac)) / (m * J)
    base = {"layout": crossover(), "clusters": J, "cluster_size": m, "icc": rho, "cac": cac, "iac": iac, "correlation": "two-period"}
    assert variance(**base) == pytest.approx(want, **CLOSE)
    assert precision(PowerDesign(**base, effect=0.3)).df == J - 2


def test_partially_nested():
    J, m, n, rho, theta = 12, 10, 90, 0.05, 1.3
    want = theta * (1 + (m - 1) * rho) / (m * J) + 1 / n
    found = precision(PowerDesign(clusters=J, cluster_size=m, controls=n, icc=rho, sd=(1.0, math.sqrt(theta)), effect=0.4))
    assert found.variance == pytest.approx(want, **CLOSE)
    ue, uc = theta * (1 + (m - 1) * rho) / (m * J), 1 / n
    # Satterthwaite's df with its cross term; without it, as one package has it, the test would seem to lose up to ten points of power
    assert found.df == pytest.approx((ue + uc) ** 2 / (ue**2 / (J - 1) + uc**2 / (n - 1)), **CLOSE)


def test_several_arms():
    J, g, m, rho = 20, 4, 15, 0.05
    v, k = rho + (1 - rho) / m, 5
    means = np.array([0.0, 0.2, 0.3, 0.5])
    omnibus = precision(PowerDesign(means=means, clusters=J, cluster_size=m, icc=rho))
    assert omnibus.noncentrality == pytest.approx(k * ((means - means.mean()) ** 2).sum() / v, **CLOSE)
    assert (omnibus.numerator_df, omnibus.df) == (3, 16)
    contrast = (-1, 0, 0, 1)
    assert variance(contrast=contrast, clusters=J, cluster_size=m, icc=rho) == pytest.approx(2 * v / k, **CLOSE)
    assert variance(arms=g, clusters=J, cluster_size=m, icc=rho) == pytest.approx(v / k * (1 + 1 / 3), **CLOSE)
    # two arms are the parallel design
    two = power(arms=2, clusters=J, cluster_size=m, icc=rho, effect=0.5)
    assert two.power == pytest.approx(power(clusters=J, cluster_size=m, icc=rho, effect=0.5).power, abs=1e-12)
    shared = power(contrast=contrast, clusters=J, cluster_size=m, icc=rho, effect=0.5, comparisons=3)
    assert shared.power == pytest.approx(
        power(contrast=contrast, clusters=J, cluster_size=m, icc=rho, effect=0.5, alpha=0.05 / 3).power, abs=1e-12
    )


def test_effect_modification_from_every_person():
    """Yang's formula is the inverse of the GLS information averaged over the modifier, from every person's two moments."""
    m, rho, rx, J = 6, 0.2, 0.4, 40
    found = variance(clusters=J, cluster_size=m, icc=rho, modifier_icc=rx, modifier_sd=1.5, sd=2.0, effect=1.0)
    # expected information of (1, arm, x, arm x) per cluster: E[x' V^-1 x] from the two moments of x
    V = 4.0 * (rho * np.ones((m, m)) + (1 - rho) * np.eye(m))
    Vi = np.linalg.inv(V)
    moment = 1.5**2 * (rx * np.ones((m, m)) + (1 - rx) * np.eye(m))
    per_cluster = float(np.trace(Vi @ moment))
    information = J * per_cluster * np.array([[1.0, 0.5], [0.5, 0.5]])
    assert found == pytest.approx(np.linalg.inv(information)[1, 1], **CLOSE)
    assert found == pytest.approx(
        4.0 * (1 - rho) * (1 + (m - 1) * rho) / (J * m * 0.25 * 2.25 * (1 + (m - 2) * rho - (m - 1) * rx * rho)), **CLOSE
    )


def test_binary():
    k, m, rho, p, q = 10, 50, 0.02, 0.1, 0.2
    deff = 1 + (m - 1) * rho
    base = {"p_control": p, "p_intervention": q, "clusters": 2 * k, "cluster_size": m, "icc": rho, "effect": None}
    assert variance(**base) == pytest.approx((p * (1 - p) + q * (1 - q)) * deff / (k * m), **CLOSE)
    assert variance(**base, pooled=True) == pytest.approx(2 * 0.15 * 0.85 * deff / (k * m), **CLOSE)
    logs = variance(**base, scale="log-odds")
    assert logs == pytest.approx((1 / (p * (1 - p)) + 1 / (q * (1 - q))) * deff / (k * m), **CLOSE)
    # conditional on the cluster, with Moerbeek's factor
    su2, s2e = 0.09, 0.5 * (1 / (0.25 * 0.75) + 1 / (0.15 * 0.85))
    conditional = variance(
        p_control=0.25, p_intervention=0.15, clusters=20, cluster_size=60, icc=su2 / (su2 + math.pi**2 / 3), icc_scale="latent",
        scale="log-odds", variance_factor=1.2, effect=None,
    )  # fmt: skip
    assert conditional == pytest.approx(1.2 * 4 * (s2e + 60 * su2) / (60 * 20), **CLOSE)


@pytest.mark.parametrize("scale", ["difference", "log-odds", "log-ratio"])
def test_binary_wedge_as_a_marginal_model_from_every_person(scale):
    """GEE with the right working correlation: (sum D'V^-1D)^-1, D the slope of the mean, V = A^1/2 R A^1/2 over people and periods."""
    layout, m, a0, a1, a2 = np.array([[0, 1, 1], [0, 0, 1]]), 4, 0.05, 0.02, 0.3
    control, end = (0.2, 0.25, 0.3), 0.45
    link = {"difference": lambda p: p, "log-odds": lambda p: np.log(p / (1 - p)), "log-ratio": np.log}[scale]
    back = {"difference": lambda x: x, "log-odds": lambda x: 1 / (1 + np.exp(-x)), "log-ratio": np.exp}[scale]
    slope = {"difference": lambda p: np.ones_like(p), "log-odds": lambda p: p * (1 - p), "log-ratio": lambda p: p}[scale]
    effect = float(link(end) - link(control[-1]))
    information = np.zeros((4, 4))
    same_time, same_person = np.kron(np.eye(3), np.ones((m, m))), np.kron(np.ones((3, 3)), np.eye(m))
    R = a1 + (a0 - a1) * same_time + (a2 - a1) * same_person
    np.fill_diagonal(R, 1.0)
    for row in layout:
        mu = np.repeat(back(link(np.array(control)) + effect * row), m)
        D = slope(mu)[:, None] * np.column_stack([np.kron(np.eye(3), np.ones((m, 1))), np.repeat(row, m)])
        V = np.sqrt(np.outer(mu * (1 - mu), mu * (1 - mu))) * R
        information += 5 * D.T @ np.linalg.solve(V, D)
    want = np.linalg.inv(information)[-1, -1]
    found = precision(
        PowerDesign(
            layout=layout.tolist(), clusters=10, cluster_size=m, p_control=control, p_intervention=end, scale=scale, icc=a0, cac=a1 / a0,
            iac=(a2 - a1) / (1 - a0),
        )
    )  # fmt: skip
    assert found.variance == pytest.approx(want, **CLOSE) and found.effect == pytest.approx(effect)


@pytest.mark.parametrize(("p", "latent"), [(0.2, 0.3), (0.5, 0.05), (0.05, 1.0)])
def test_latent_icc_carried_to_proportions(p, latent):
    """Against Gauss-Hermite quadrature, the intercept solved for by bisection."""
    x, w = np.polynomial.hermite_e.hermegauss(120)
    w = w / w.sum()
    low, high = -20.0, 20.0
    for _ in range(200):
        b = (low + high) / 2
        mean = (w / (1 + np.exp(-(b + math.sqrt(latent) * x)))).sum()
        low, high = (b, high) if mean < p else (low, b)
    values = 1 / (1 + np.exp(-(b + math.sqrt(latent) * x)))
    want = ((w * values**2).sum() - p**2) / (p * (1 - p))
    assert proportion_icc(p, latent) == pytest.approx(want, abs=1e-10)


def test_rates_by_hayes_and_bennett():
    l0, l1, y, k, c = 0.01, 0.006, 500.0, 0.25, 14
    base = {"rate_control": l0, "rate_intervention": l1, "person_time": y, "clusters": 2 * c, "effect": None}
    assert variance(**base, k=k) == pytest.approx(((l0 + l1) / y + k**2 * (l0**2 + l1**2)) / c, **CLOSE)
    # matched: two clusters a pair are taken off again by distribution "z-plus-one"
    z = 1.959963984540054 + 0.8416212335729143
    needed = 2 + z**2 * ((l0 + l1) / y + k**2 * (l0**2 + l1**2)) / (l0 - l1) ** 2
    from trialkit.power import sample_size

    pairs = sample_size(design="matched-pairs", rate_control=l0, rate_intervention=l1, person_time=y, k=k, distribution="z-plus-one")
    assert pairs.exact == pytest.approx(needed, rel=1e-7)
    unmatched = sample_size(rate_control=l0, rate_intervention=l1, person_time=y, k=k, distribution="z-plus-one")
    assert unmatched.exact / 2 == pytest.approx(needed - 1, rel=1e-7)
    count = variance(
        outcome="count", rate_control=2.0, rate_intervention=1.5, cluster_size=20, icc=0.03, overdispersion=1.4, clusters=20, effect=None
    )
    assert count == pytest.approx(1.4 * 3.5 * (1 + 19 * 0.03) / (10 * 20), **CLOSE)


def test_ordinal_and_survival():
    shares, theta, m, rho, J = (0.2, 0.5, 0.2, 0.1), math.log(1.8), 25, 0.03, 30
    odds = np.cumsum(shares)[:-1] / (1 - np.cumsum(shares)[:-1]) * 1.8
    other = np.diff(np.concatenate([[0], odds / (1 + odds), [1]]))
    mean = (np.array(shares) + other) / 2
    # Whitehead: N = 12 z^2 / (theta^2 (1 - sum pbar^3)) for 1:1, so Var(theta) = 12 / {N (1 - sum)}
    want = 12 / (J * m * (1 - (mean**3).sum())) * (1 + (m - 1) * rho)
    assert variance(proportions=shares, odds_ratio=1.8, clusters=J, cluster_size=m, icc=rho, effect=None) == pytest.approx(want, **CLOSE)
    assert power(proportions=shares, odds_ratio=1.8, clusters=J, cluster_size=m, icc=rho).effect == pytest.approx(theta)
    events = variance(hazard_ratio=0.7, event_probability=0.4, clusters=J, cluster_size=m, icc=rho, effect=None)
    assert events == pytest.approx(4 / (0.4 * J * m) * (1 + (m - 1) * rho), **CLOSE)  # Schoenfeld: 4 / events, times the design effect


def test_attrition():
    base = {"clusters": 40, "icc": 0.05}
    assert variance(**base, cluster_size=20, attrition=0.25) == pytest.approx(variance(**base, cluster_size=15), **CLOSE)
    induced = variance(**base, cluster_size=20, attrition=0.25, attrition_cv=True)
    assert induced == pytest.approx(variance(**base, cluster_size=15, cluster_size_cv=math.sqrt(0.25 / 15)), **CLOSE)
    lost = precision(PowerDesign(**base, cluster_size=20, cluster_attrition=0.25, effect=0.3))
    assert lost.variance == pytest.approx(variance(clusters=30, cluster_size=20, icc=0.05), **CLOSE) and lost.df == 28


def test_the_kernel_refuses_what_it_cannot_estimate():
    with pytest.raises(ValueError, match="cannot be estimated"):
        gls.contrast_covariance([gls.units([[1.0, 1.0]], [[1.0]], 5)], [0.0, 1.0])
    with pytest.raises(ValueError, match="positive definite"):
        gls.contrast_covariance([gls.units(np.eye(2), [[1.0, 2.0], [2.0, 1.0]])], [1.0, 0.0])
    with pytest.raises(ValueError, match="number of rows"):
        gls.units(np.eye(2), np.eye(3))
