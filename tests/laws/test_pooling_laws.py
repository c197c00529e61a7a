"""Laws of Rubin's rules that hold whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trialkit._kernels import pooling

numbers = st.floats(-50, 50, allow_subnormal=False).map(lambda v: round(v, 4))
positive = st.floats(0.001, 50).map(lambda v: round(v, 4))
sets_ = st.integers(2, 12).flatmap(
    lambda m: st.tuples(st.lists(numbers, min_size=m, max_size=m), st.lists(positive, min_size=m, max_size=m))
)
dfs = st.one_of(st.just(float("inf")), st.floats(1, 500))


@settings(max_examples=150, deadline=None)
@given(sets_, dfs)
def test_limits(qu: tuple[list[float], list[float]], df: float) -> None:
    q, u = qu
    p = pooling.pool_scalar(q, u, df)
    tiny = 1 + 1e-9
    assert min(q) - 1e-9 <= p.estimate <= max(q) + 1e-9
    assert p.total >= p.within / tiny
    assert 0 <= p.lambda_ <= 1
    assert p.lambda_ <= p.fmi * tiny
    assert p.fmi <= 1 * tiny
    assert 0 < p.df <= df * tiny
    # never more df than Rubin's own (1987)
    if p.lambda_ > 0:
        assert p.df <= (p.m - 1) / p.lambda_**2 * tiny
    assert p.conf_low <= p.estimate <= p.conf_high
    assert 0 <= p.p_value <= 1
    assert 0 < p.relative_efficiency <= 1


@settings(max_examples=80, deadline=None)
@given(sets_, dfs, st.floats(0.01, 100), st.floats(-20, 20), st.randoms(use_true_random=False))
def test_scale_shift_and_order(qu: tuple[list[float], list[float]], df: float, scale: float, shift: float, random: object) -> None:
    q, u = (np.array(v) for v in qu)
    # differences that rounding of the shift would swamp say nothing
    assume(np.ptp(q) == 0 or np.ptp(q) > 1e-3)
    p = pooling.pool_scalar(q, u, df)
    order = np.argsort([random.random() for _ in q])  # type: ignore[attr-defined]
    moved = pooling.pool_scalar((scale * q + shift)[order], (scale**2 * u)[order], df)
    assert moved.estimate == pytest.approx(scale * p.estimate + shift, rel=1e-7, abs=1e-7)
    assert moved.std_error == pytest.approx(scale * p.std_error, rel=1e-6)
    assert moved.df == pytest.approx(p.df, rel=1e-4)
    assert moved.fmi == pytest.approx(p.fmi, rel=1e-4)


@settings(max_examples=80, deadline=None)
@given(sets_, st.floats(2, 200), st.floats(1.01, 5))
def test_more_complete_data_df_never_lose_df(qu: tuple[list[float], list[float]], df: float, factor: float) -> None:
    q, u = qu
    assert pooling.pool_scalar(q, u, df * factor).df >= pooling.pool_scalar(q, u, df).df


@settings(max_examples=80, deadline=None)
@given(sets_, st.floats(1, 200))
def test_one_parameter_of_d1_is_the_square_of_t(qu: tuple[list[float], list[float]], df: float) -> None:
    q, u = (np.array(v) for v in qu)
    p, test = pooling.pool_scalar(q, u, df), pooling.d1(q[:, None], u[:, None, None], df)
    assert test.statistic == pytest.approx(p.statistic**2, rel=1e-9)
    assert test.riv == pytest.approx(p.riv, rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 15), st.integers(1, 4), st.integers(0, 10**6))
def test_d1_does_not_depend_on_the_coordinates(m: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(m, k))
    root = rng.normal(size=(m, k, k))
    u = root @ root.swapaxes(1, 2) + np.eye(k)
    a = rng.normal(size=(k, k)) + 2 * np.eye(k)
    assume(np.linalg.cond(a) < 100)
    one, two = pooling.d1(q, u, 40), pooling.d1(q @ a.T, a @ u @ a.T, 40)
    assert two.statistic == pytest.approx(one.statistic, rel=1e-7)
    assert two.df2 == pytest.approx(one.df2, rel=1e-6)
