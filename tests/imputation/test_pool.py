"""The public `pool`: one parameter, Rubin's rules, printed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trialkit.door import InputError
from trialkit.imputation import pool


def test_the_result_has_every_figure() -> None:
    p = pool([0.41, 0.52, 0.38, 0.47, 0.44], [0.031, 0.029, 0.034, 0.030, 0.032], math.inf)
    # mice 3.19, stored in tests/reference/pooling_cases.json
    assert p.m == 5
    assert p.estimate == pytest.approx(0.444)
    assert p.std_error == pytest.approx(0.186322301402704, rel=1e-12)
    assert p.df == pytest.approx(389.961397337185, rel=1e-12)
    assert p.fmi == pytest.approx(0.105853042505269, rel=1e-12)
    assert p.riv == pytest.approx(0.112692307692308, rel=1e-12)
    assert p.lambda_ == pytest.approx(0.101278949187694, rel=1e-12)
    assert (p.conf_low, p.conf_high) == pytest.approx((0.077678069885383, 0.810321930114617), rel=1e-10)
    assert p.p_value == pytest.approx(0.0176518892459407, rel=1e-10)
    assert p.mc_error_fmi == pytest.approx(0.0666835631479345, rel=1e-10)
    assert p.frame.loc[0, "estimate"] == p.estimate
    assert "Barnard-Rubin" in str(p)
    assert "von Hippel" in str(p)
    with pytest.raises(AttributeError):
        p.estimate = 1.0  # type: ignore[misc]


def test_an_arm_of_85_sites_never_has_more_than_83_df() -> None:
    rng = np.random.default_rng(0)
    for spread in (0.0, 0.01, 0.3):
        assert pool(rng.normal(0, spread, 20), np.full(20, 0.02), 83).df <= 83


@pytest.mark.parametrize(
    ("q", "u", "df", "words"),
    [
        ([1.0], [1.0], 10, "at least 2"),
        ([1.0, 2.0], [1.0], 10, "one shape"),
        ([[1.0, 2.0]], [[1.0, 1.0]], 10, "one parameter at a time"),
        ([1.0, 2.0], [1.0, math.nan], 10, "finite"),
        ([1.0, 1.0], [0.0, 0.0], 10, "every variance is 0"),
        ([1.0, 2.0], [1.0, 1.0], -3, "positive"),
    ],
)
def test_bad_input_is_named(q: object, u: object, df: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        pool(q, u, df)  # type: ignore[arg-type]
