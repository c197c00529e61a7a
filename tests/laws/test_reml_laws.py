"""Laws of the mixed-model kernel, on data nobody chose."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from trialkit._kernels import reml, small_sample

LAW = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def trials(draw: st.DrawFn) -> dict[str, Any]:
    J = draw(st.integers(5, 16))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = rng.integers(1, draw(st.integers(3, 9)), J)
    sizes[:2] += 2
    site = np.repeat(np.arange(J), sizes)
    X = np.column_stack([np.ones(site.size), site % 2, rng.normal(size=(site.size, draw(st.integers(0, 2))))])
    nested = draw(st.booleans()) and J >= 8
    y = rng.normal(size=site.size) + draw(st.sampled_from([0.0, 0.3, 1.0, 4.0])) * rng.normal(size=J)[site]
    if nested:
        y = y + draw(st.sampled_from([0.0, 0.7, 2.0])) * rng.normal(size=J)[site // 2]
    return {"X": X, "y": y, "groups": [site // 2, site] if nested else [site], "rng": rng}


def same(a: reml.MixedFit, b: reml.MixedFit, *, scale: float = 1.0) -> None:
    assert a.status == b.status
    assert a.boundary.tolist() == b.boundary.tolist()
    assert_allclose(a.theta, b.theta, rtol=1e-7, atol=1e-12)
    assert_allclose(a.sigma2 * scale**2, b.sigma2, rtol=1e-9)


@LAW
@given(trials())
def test_the_order_of_rows_and_the_names_of_groups_do_not_matter(t: dict[str, Any]) -> None:
    plain = reml.fit(t["X"], t["y"], t["groups"])
    order = t["rng"].permutation(t["y"].size)
    labels = [t["rng"].permutation(10 * int(g.max()) + 50) for g in t["groups"]]
    other = reml.fit(t["X"][order], t["y"][order], [label[g[order]] for g, label in zip(t["groups"], labels, strict=True)])
    same(plain, other)
    assert_allclose(other.beta, plain.beta, rtol=1e-9, atol=1e-11)
    assert_allclose(other.log_likelihood, plain.log_likelihood, atol=1e-9)


@LAW
@given(trials(), st.sampled_from([1e-3, 0.5, 7.0, 1e5]), st.sampled_from([-1e3, 0.0, 12.0]))
def test_a_change_of_units_changes_only_the_units(t: dict[str, Any], scale: float, shift: float) -> None:
    plain, other = reml.fit(t["X"], t["y"], t["groups"]), reml.fit(t["X"], scale * t["y"] + shift, t["groups"])
    same(plain, other, scale=scale)
    N = plain.n - plain.p
    assert_allclose(other.log_likelihood, plain.log_likelihood - N * np.log(scale), atol=1e-7)
    if plain.status == "ok":
        a, b = (small_sample.kenward_roger(m, np.eye(m.p)[1:]) for m in (plain, other))
        assert_allclose(b.df, a.df, rtol=1e-7)
        assert_allclose(b.estimate, scale * a.estimate, rtol=1e-7, atol=1e-9 * scale)
        assert_allclose(b.std_error, scale * a.std_error, rtol=1e-7)


@LAW
@given(trials(), st.sampled_from(["reml", "ml"]))
def test_no_other_ratio_is_more_likely(t: dict[str, Any], method: Any) -> None:
    fit = reml.fit(t["X"], t["y"], t["groups"], method=method)
    if fit.status != "ok":
        return
    assert fit.optimum.converged
    k = fit.theta.size
    tried = [
        np.zeros(k),
        *t["rng"].exponential(1.0, (20, k)),
        *10.0 ** t["rng"].uniform(-4, 3, (20, k)),
        fit.theta * 1.01,
        fit.theta * 0.99,
    ]
    assert fit.deviance <= min(reml.deviance(fit.reduced, ratio, method=method) for ratio in tried) + 1e-9
    for j in range(k):  # a zero is a zero because the likelihood falls from there
        if fit.boundary[j]:
            assert fit.optimum.gradient[j] >= -1e-9
            assert reml.deviance(fit.reduced, fit.theta + 1e-4 * np.eye(k)[j], method=method) >= fit.deviance - 1e-10


@LAW
@given(trials())
def test_a_basis_of_the_columns_is_only_a_basis(t: dict[str, Any]) -> None:
    p = t["X"].shape[1]
    T = np.eye(p) + np.triu(t["rng"].normal(size=(p, p)), 1)
    plain, other = reml.fit(t["X"], t["y"], t["groups"]), reml.fit(t["X"] @ T, t["y"], t["groups"])
    same(plain, other)
    if plain.status == "ok":
        L = np.eye(p)[1:]
        a, b = small_sample.kenward_roger(plain, L), small_sample.kenward_roger(other, L @ T)
        assert_allclose(b.estimate, a.estimate, rtol=1e-6, atol=1e-9)
        assert_allclose(b.cov, a.cov, rtol=1e-6, atol=1e-10)
        assert_allclose(b.df, a.df, rtol=1e-6)


@LAW
@given(trials())
def test_kenward_roger_never_makes_a_standard_error_smaller_than_the_model(t: dict[str, Any]) -> None:
    fit = reml.fit(t["X"], t["y"], t["groups"])
    if fit.status != "ok":
        return
    kr = small_sample.kenward_roger(fit, np.eye(fit.p))
    assert np.all(kr.std_error >= np.sqrt(np.diag(fit.cov_beta)) * (1 - 1e-9))
    assert np.all(kr.df > 0) and np.all(np.isfinite(kr.df))


@LAW
@given(trials())
def test_pairs_of_no_variance_leave_the_likelihood_of_sites(t: dict[str, Any]) -> None:
    site = t["groups"][-1]
    reduced = reml.reduce(t["X"], t["y"], [site // 2, site])
    alone = reml.reduce(t["X"], t["y"], [site])
    for ratio in (0.0, 0.3, 5.0):
        assert_allclose(reml.deviance(reduced, [0.0, ratio]), reml.deviance(alone, [ratio]), rtol=1e-12)
        only_pairs = reml.reduce(t["X"], t["y"], [site // 2])
        assert_allclose(reml.deviance(reduced, [ratio, 0.0]), reml.deviance(only_pairs, [ratio]), rtol=1e-12)


@LAW
@given(trials())
def test_equal_weights_are_no_weights(t: dict[str, Any]) -> None:
    plain = reml.fit(t["X"], t["y"], t["groups"])
    other = reml.fit(t["X"], t["y"], t["groups"], weights=np.full(t["y"].size, 4.0))
    assert_allclose(other.theta * 4.0, plain.theta, rtol=1e-7, atol=1e-12)
    assert_allclose(other.variances, plain.variances, rtol=1e-7, atol=1e-12)
    assert_allclose(other.log_likelihood, plain.log_likelihood, atol=1e-8)
