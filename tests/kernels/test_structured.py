"""Slopes, three nested factors and residual variances by stratum: the criterion, its optimum and inference against full matrices."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from trialkit._kernels import reml, small_sample
from trialkit._kernels.structured import RandomTerm, evaluate, reduce_structured
from trialkit._kernels.structured_fit import fit_blocks, fit_structured, random_effects_structured, slope_matrices


def trial(seed: int, *, pairs: int = 8, slope: float = 0.7, rise: float = 1.6, largest: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(2 * pairs), rng.integers(2, largest + 1, 2 * pairs))
    pair, arm, n = site // 2, (site % 2).astype(float), site.size
    X = np.column_stack([np.ones(n), arm, rng.normal(size=n)])
    u = rng.normal(size=(pairs, 2)) @ np.array([[0.6, 0.2], [0.0, slope]])
    y = X @ [1.0, 0.4, 0.5] + u[pair, 0] + u[pair, 1] * arm + rng.normal(size=n) * np.where(arm > 0, rise, 1.0)
    return {"X": X, "y": y, "site": site, "pair": pair, "arm": arm, "person": np.arange(n) // 2, "w": rng.uniform(0.5, 2, n), "n": n}


def models(t: dict[str, Any]) -> dict[str, dict[str, Any]]:
    one, n = np.ones((t["n"], 1)), t["n"]
    slope = RandomTerm(0, np.column_stack([np.ones(n), t["arm"]]))
    moving = RandomTerm(1, np.column_stack([np.ones(n), t["X"][:, 2]]))
    return {
        "slope by pair": {"groups": [t["pair"]], "terms": [slope]},
        "slope by pair, residual by arm": {"groups": [t["pair"]], "terms": [slope], "strata": t["arm"].astype(int)},
        "site, residual by arm": {"groups": [t["site"]], "terms": [RandomTerm(0, one)], "strata": t["arm"].astype(int)},
        "pair, site, residual by arm, weights": {
            "groups": [t["pair"], t["site"]],
            "terms": [RandomTerm(0, one), RandomTerm(1, one)],
            "strata": t["arm"].astype(int),
            "weights": t["w"],
        },
        "slope of a covariate by site, pair": {"groups": [t["pair"], t["site"]], "terms": [RandomTerm(0, one), moving]},
    }


NAMES = list(models(trial(1)))


def full(t: dict[str, Any], model: dict[str, Any], parameters: np.ndarray, sizes: tuple[int, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """V and its derivatives in the parameters, rows of people by rows of people, in the design's own units."""
    n = t["n"]
    weights = model.get("weights", np.ones(n))
    G = []
    for term, d in zip(model["terms"], sizes, strict=True):
        codes = model["groups"][term.factor]
        same = (codes[:, None] == codes[None, :]).astype(float)
        for a in range(d):
            for b in range(a, d):
                product = np.outer(term.design[:, a], term.design[:, b])
                G.append(same * (product if a == b else product + product.T))
    strata = model.get("strata", np.zeros(n, dtype=int))
    G += [np.diag((strata == k) / weights) for k in range(int(strata.max()) + 1)]
    return np.tensordot(parameters, np.array(G), axes=1), G


def reported(fit: Any) -> np.ndarray:
    return np.array([*fit.blocks.structure.parameters(list(fit.covariances), fit.residuals)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_fit_is_the_optimum_of_the_full_likelihood(name: str, method: Any) -> None:
    t = trial(3)
    model = models(t)[name]
    fit = fit_structured(t["X"], t["y"], **model, method=method)
    assert fit.status == "ok" and fit.optimum.converged
    V, G = full(t, model, reported(fit), fit.blocks.structure.sizes)
    M = np.linalg.inv(V)
    X, y = t["X"], t["y"]
    Phi = np.linalg.inv(X.T @ M @ X)
    beta = Phi @ X.T @ M @ y
    proj = M - M @ X @ Phi @ X.T @ M
    assert_allclose(fit.beta, beta, rtol=1e-9)
    assert_allclose(fit.cov_beta, Phi, rtol=1e-9)
    deviance = np.linalg.slogdet(V)[1] + y @ proj @ y
    deviance += (t["n"] - 3) * np.log(2 * np.pi) - np.linalg.slogdet(Phi)[1] if method == "reml" else t["n"] * np.log(2 * np.pi)
    assert fit.deviance == pytest.approx(deviance, rel=1e-12)
    middle = proj if method == "reml" else M
    slope = np.array([np.trace(middle @ g) - y @ proj @ g @ proj @ y for g in G])
    level = np.array([np.trace(M @ g) for g in G])
    if not fit.boundary.any():
        assert np.all(np.abs(slope) < 1e-9 * level)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_the_criterion(name: str) -> None:
    t = trial(4)
    blocks = reduce_structured(t["X"], t["y"], **models(t)[name])
    v = blocks.structure.parameters([0.3 * np.eye(d) + 0.1 for d in blocks.structure.sizes], np.linspace(0.7, 1.3, blocks.structure.strata))
    for is_reml in (True, False):
        at = evaluate(blocks, v, reml=is_reml)
        h = 1e-5
        for i in range(v.size):
            e = h * np.eye(v.size)[i]
            up, down = evaluate(blocks, v + e, reml=is_reml), evaluate(blocks, v - e, reml=is_reml)
            assert_allclose((up.value - down.value) / (2 * h), at.gradient[i], rtol=1e-6, atol=1e-6)
            assert_allclose((up.gradient - down.gradient) / (2 * h), at.observed[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["slope by pair, residual by arm", "site, residual by arm"])
def test_kenward_roger_and_satterthwaite_in_forty_digits(name: str) -> None:
    t = trial(1, pairs=5, largest=2)
    model = models(t)[name]
    fit = fit_structured(t["X"], t["y"], **model)
    assert not fit.boundary.any()
    _, Gs = full(t, model, reported(fit), fit.blocks.structure.sizes)
    with mp.workdps(40):
        X, y = mp.matrix(t["X"].tolist()), mp.matrix(t["y"].tolist())
        G = [mp.matrix(g.tolist()) for g in Gs]
        c, p, n = len(G), X.cols, X.rows
        v = mp.matrix(reported(fit).tolist())
        for last in (False, False, True):  # Newton's method from our variances to the optimum of 40 digits
            V = mp.zeros(n, n)
            for i in range(c):
                V += v[i] * G[i]
            M = mp.inverse(V)
            Phi = mp.inverse(X.T * M * X)
            proj = M - M * X * Phi * (X.T * M)
            py = proj * y
            PG = [proj * g for g in G]
            Gpy = [g * py for g in G]
            slope = mp.matrix([mp.fsum(PG[i][k, k] for k in range(n)) - (py.T * Gpy[i])[0] for i in range(c)])
            twice, observed = mp.matrix(c, c), mp.matrix(c, c)
            for i in range(c):
                for j in range(c):
                    twice[i, j] = mp.fsum(PG[i][a, b] * PG[j][b, a] for a in range(n) for b in range(n))
                    observed[i, j] = 2 * (Gpy[i].T * (proj * Gpy[j]))[0] - twice[i, j]
            if not last:
                v = v - mp.inverse(observed) * slope
        W, A = 2 * mp.inverse(twice), 2 * mp.inverse(observed)
        P = [X.T * M * g * M * X for g in G]
        bracket = mp.zeros(p, p)
        for i in range(c):
            for j in range(c):
                bracket += W[i, j] * (X.T * M * G[i] * M * G[j] * M * X - P[i] * Phi * P[j])
        adjusted = Phi + 2 * Phi * bracket * Phi
        beta = Phi * (X.T * (M * y))
        g = [[(Phi * P[i] * Phi)[k, k] for i in range(c)] for k in range(p)]
        df = {
            which: [float(2 * Phi[k, k] ** 2 / (mp.matrix(g[k]).T * S * mp.matrix(g[k]))[0]) for k in range(p)]
            for which, S in (("kr", W), ("satt", A))
        }
        exact = {"v": [float(x) for x in v], "beta": [float(b) for b in beta], "kr_se": [float(mp.sqrt(adjusted[k, k])) for k in range(p)]}
    kr, satt = small_sample.kenward_roger(fit, np.eye(p)), small_sample.satterthwaite(fit, np.eye(p))
    assert_allclose(reported(fit), exact["v"], rtol=1e-10)
    assert_allclose(fit.beta, exact["beta"], rtol=1e-10)
    assert_allclose(kr.std_error, exact["kr_se"], rtol=1e-10)
    assert_allclose(kr.df, df["kr"], rtol=1e-10)
    assert_allclose(satt.df, df["satt"], rtol=1e-10)


@pytest.mark.parametrize("nested", [False, True])
def test_intercepts_alone_are_the_fit_of_the_other_kernel(nested: bool) -> None:
    for seed in range(8):
        t = trial(seed, slope=0.0 if seed % 2 else 0.5, rise=1.0)
        groups = [t["pair"], t["site"]] if nested else [t["site"]]
        plain = reml.fit(t["X"], t["y"], groups, weights=t["w"])
        terms = [RandomTerm(k, np.ones((t["n"], 1))) for k in range(len(groups))]
        rich = fit_structured(t["X"], t["y"], groups, terms, weights=t["w"])
        assert rich.boundary.tolist() == plain.boundary.tolist()
        assert rich.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-12)
        for rule in (small_sample.kenward_roger, small_sample.satterthwaite):
            a, b = rule(plain, np.eye(3)), rule(rich, np.eye(3))
            assert_allclose(a.df, b.df, rtol=1e-9)
            assert_allclose(a.cov, b.cov, rtol=1e-9)
        for (codes, effect, variance), (value, spread) in zip(reml.random_effects(plain), random_effects_structured(rich), strict=True):
            assert_allclose(value[codes, 0], effect, atol=1e-9)
            assert_allclose(spread[codes, 0, 0], variance, atol=1e-9)


def test_no_false_and_no_missed_loss_of_rank() -> None:
    """At the end no positive semidefinite change of a covariance matrix lowers the criterion, and full ranks have a flat gradient."""
    lost = 0
    for seed in range(30):
        t = trial(1000 + seed, pairs=6, slope=(0.0, 0.3, 0.9)[seed % 3], rise=1.0)
        fit = fit_structured(t["X"], t["y"], **models(t)["slope by pair"])
        state = evaluate(fit.blocks, fit.v)
        (D,), (level,) = slope_matrices(fit.blocks, state.gradient), slope_matrices(fit.blocks, state.level)
        size = np.abs(np.diagonal(level)).max()
        lost += bool(fit.boundary[0])
        if fit.boundary[0]:
            assert np.linalg.eigvalsh(D)[0] > -1e-8 * size
        else:
            assert np.abs(D).max() < 1e-9 * size
        # nothing better on a grid of covariance matrices, the residual variance at its own best
        for a, b, r in (
            (0.05, 0.05, 0.0),
            (0.5, 0.02, 0.9),
            (0.02, 0.5, -0.9),
            (0.4, 0.4, 0.5),
            (1.0, 1.0, -0.5),
            (0.3, 0.0, 0.0),
            (0.0, 0.3, 0.0),
        ):
            for scale in (0.6, 0.9, 1.2):
                v = np.array([a, r * np.sqrt(a * b), b, scale])
                assert evaluate(fit.blocks, v, order=0).value >= state.value - 1e-9
    assert 5 < lost < 25


@pytest.mark.parametrize("change", ["y x 1e6 + 1e9", "y x 1e-6", "slope's covariate x 1e3 + 1e5"])
def test_units_do_not_reach_the_inference(change: str) -> None:
    t = trial(7)
    X, y, n = t["X"], t["y"], t["n"]
    z = X[:, 2]
    base = fit_structured(X, y, [t["site"]], [RandomTerm(0, np.column_stack([np.ones(n), z]))], strata=t["arm"].astype(int))
    if change == "y x 1e6 + 1e9":
        y = 1e6 * y + 1e9
    elif change == "y x 1e-6":
        y = 1e-6 * y
    else:
        z = 1e3 * z + 1e5
        X = np.column_stack([X[:, :2], z])
    other = fit_structured(X, y, [t["site"]], [RandomTerm(0, np.column_stack([np.ones(n), z]))], strata=t["arm"].astype(int))
    L = np.eye(3)[1:]
    for rule in (small_sample.kenward_roger, small_sample.satterthwaite):
        a, b = rule(base, L), rule(other, L)
        assert_allclose(a.df, b.df, rtol=1e-8)
        assert_allclose(a.estimate / a.std_error, b.estimate / b.std_error, rtol=1e-8)


def test_predictions_are_the_best_linear_ones() -> None:
    t = trial(5)
    model = models(t)["slope by pair, residual by arm"]
    fit = fit_structured(t["X"], t["y"], **model)
    V, _ = full(t, model, reported(fit), (2,))
    residual = t["y"] - t["X"] @ fit.beta
    value, variance = random_effects_structured(fit)[0]
    for pair in range(8):
        Z = model["terms"][0].design * (t["pair"] == pair)[:, None]
        C = Z @ fit.covariances[0]
        assert_allclose(value[pair], C.T @ np.linalg.solve(V, residual), rtol=1e-8, atol=1e-10)
        assert_allclose(variance[pair], fit.covariances[0] - C.T @ np.linalg.solve(V, C), rtol=1e-8, atol=1e-10)


def test_what_is_not_identified_is_refused() -> None:
    t = trial(2)
    one, n = np.ones((t["n"], 1)), t["n"]
    slope = np.column_stack([np.ones(n), t["arm"]])
    by_site = fit_structured(t["X"], t["y"], [t["site"]], [RandomTerm(0, slope)])
    both = fit_structured(t["X"], t["y"], [t["pair"], t["site"]], [RandomTerm(0, slope), RandomTerm(1, one)])
    alone = fit_structured(t["X"], t["y"], [np.arange(n)], [RandomTerm(0, one)], strata=t["arm"].astype(int))
    for fit in (by_site, both, alone):
        assert fit.status == "not_identified"
        with pytest.raises(ValueError, match="no inference"):
            small_sample.kenward_roger(fit, np.eye(3))
    flat = fit_structured(t["X"], np.full(n, 2.5), [t["pair"]], [RandomTerm(0, slope)])
    assert flat.status == "constant_outcome"
    steady = fit_structured(
        t["X"][:, :2], np.where(t["arm"] > 0, t["pair"] * 1.0, t["y"]), [t["site"]], [RandomTerm(0, one)], strata=t["arm"].astype(int)
    )
    assert steady.status == "zero_residual"


def test_misuse_is_refused() -> None:
    t = trial(2)
    one = np.ones((t["n"], 1))
    with pytest.raises(ValueError, match="nested"):
        reduce_structured(t["X"], t["y"], [t["site"], t["n"] - 1 - np.arange(t["n"]) % 3], [RandomTerm(0, one)])
    with pytest.raises(ValueError, match="random term"):
        reduce_structured(t["X"], t["y"], [t["site"]], [])
    with pytest.raises(ValueError, match="finite"):
        reduce_structured(t["X"], np.where(np.arange(t["n"]) == 3, np.nan, t["y"]), [t["site"]], [RandomTerm(0, one)])
    with pytest.raises(ValueError, match="method"):
        fit_blocks(reduce_structured(t["X"], t["y"], [t["site"]], [RandomTerm(0, one)]), method="rml")  # type: ignore[arg-type]
