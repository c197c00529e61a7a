"""The public `pool`: one parameter, Rubin's rules, printed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.door import InputError
from trialkit.imputation import pool, pool_chi_square, pool_likelihood_ratio, pool_wald


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
        ([[1.0, 2.0]], [[1.0, 1.0]], 10, "at least 2"),
        ([[1.0, 2.0], [1.0, 3.0]], [1.0, 1.0], 10, "variances must be of shape"),
        ([[1.0, 2.0], [1.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]], [10.0, 20.0], "does not say"),
        ([[[1.0]]], [[[1.0]]], 10, "not an array of shape"),
        (["a", "b"], [1.0, 1.0], 10, "must be numbers"),
        ([1.0, 2.0], [1.0, math.nan], 10, "finite"),
        ([1.0, 1.0], [0.0, 0.0], 10, "every variance is 0"),
        ([1.0, 2.0], [1.0, 1.0], -3, "positive"),
    ],
)
def test_bad_input_is_named(q: object, u: object, df: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        pool(q, u, df)  # type: ignore[arg-type]


CASES = json.loads((Path(__file__).parents[1] / "reference" / "pooling_cases.json").read_text())
LIKELIHOOD = json.loads((Path(__file__).parents[1] / "reference" / "pooling_likelihood.json").read_text())


def number(value: Any) -> float:
    return math.inf if value == "Inf" else float(value)


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES["scalar"], ids=lambda c: c["name"])
@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series])
def test_every_scalar_case_through_the_public_surface(case: dict[str, Any], kind: Any) -> None:
    """mice 3.19 and mitml: whatever holds the numbers."""
    p = pool(kind(case["Q"]), kind(case["U"]), number(case["dfcom"]))
    expected = {"estimate": "qbar", "std_error": "se", "df": "df_mice_3_19", "fmi": "fmi_mice_3_19", "riv": "riv", "lambda_": "lambda"}
    for name, key in expected.items():
        assert getattr(p, name) == pytest.approx(number(case[key]), rel=1e-8, abs=1e-12), name


def test_several_parameters_are_pooled_each_by_itself() -> None:
    rng = np.random.default_rng(4)
    q, root = rng.normal(size=(6, 3)), rng.normal(size=(6, 3, 3))
    covariances = root @ root.transpose(0, 2, 1) + np.eye(3)
    u = np.diagonal(covariances, axis1=1, axis2=2)
    for variances in (u, covariances):
        found = pool(pd.DataFrame(q), variances, [70.0, 80.0, math.inf], names=["a", "b", "c"])
        assert len(found) == 3
        for j, df in enumerate((70.0, 80.0, math.inf)):
            one = pool(q[:, j], u[:, j], df)
            assert found[j] == one and found["abc"[j]] == one
            assert (found.estimate[j], found.std_error[j], found.df[j], found.fmi[j]) == (one.estimate, one.std_error, one.df, one.fmi)
            assert found.frame.loc[j, "p_value"] == one.p_value == found.p_value[j]
    assert found.frame["term"].tolist() == ["a", "b", "c"]
    assert "von Hippel" in str(found)
    by_set = pool(q, u, np.arange(60.0, 66.0))
    assert by_set[1].df_complete == 62.5
    with pytest.raises(InputError, match="names"):
        pool(q, u, 5, names=["a"])
    with pytest.raises(InputError, match="Did you mean"):
        found["aa"]


def test_a_transformed_parameter_is_pooled_where_it_is_nearer_to_normal() -> None:
    """Fisher's z of correlations by hand; an interval that stays inside the range."""
    r, n = np.array([0.91, 0.95, 0.88, 0.93]), 30
    p = pool(r, (1 - r**2) ** 2 / (n - 3), math.inf, transform="fisher-z")
    z = pool(np.arctanh(r), np.full(4, 1 / (n - 3)), math.inf)
    assert p.estimate == pytest.approx(np.tanh(z.estimate), rel=1e-12)
    assert p.conf_high == pytest.approx(np.tanh(z.conf_high), rel=1e-12)
    assert p.std_error == pytest.approx(z.std_error * (1 - p.estimate**2), rel=1e-12)
    assert (p.fmi, p.df) == (pytest.approx(z.fmi), pytest.approx(z.df))
    assert "fisher-z scale" in str(p)
    plain = pool([0.02, 0.05, 0.03], [0.0009] * 3, 83)
    logit = pool([0.02, 0.05, 0.03], [0.0009] * 3, 83, transform="logit")
    assert plain.conf_low < 0 < logit.conf_low
    assert pool([1.2, 1.5], [0.1, 0.1], 20, transform="log").estimate == pytest.approx(math.sqrt(1.2 * 1.5))
    with pytest.raises(InputError, match="between 0 and 1"):
        pool([0.0, 0.5], [0.1, 0.1], 20, transform="logit")
    with pytest.raises(InputError, match="transform"):
        pool([0.1, 0.5], [0.1, 0.1], 20, transform="root")


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES["multi"], ids=lambda c: f"k{c['k']}-m{c['m']}")
def test_d1_and_d2_of_the_reference_file(case: dict[str, Any]) -> None:
    q, u = np.array(case["Q"], dtype=float), np.array(case["U"], dtype=float)
    tests = {
        "D1": pool_wald(q, u, number(case["dfcom"])),
        "D1_no_dfcom": pool_wald(q, u),
        "D2_wald": pool_chi_square(case["wald"], case["k"]),
    }
    for name, t in tests.items():
        got = [t.statistic, t.df1, t.df2, t.p_value, t.riv]
        np.testing.assert_allclose(
            got, [number(case[name][c]) for c in ("F", "df1", "df2", "p", "riv")], rtol=1e-8, atol=1e-12, err_msg=name
        )


@pytest.mark.reference
@pytest.mark.parametrize("case", LIKELIHOOD["cases"], ids=lambda c: c["name"])
def test_d3_and_d4_against_mitml(case: dict[str, Any]) -> None:
    for method, pooled in (("D3", "d3_pooled"), ("D4", "d4_stacked")):
        t = pool_likelihood_ratio(case[f"{method.lower()}_mean"], case[pooled], case["k"], case["m"], method=method)
        np.testing.assert_allclose([t.statistic, t.df2, t.p_value], [case[method][c] for c in ("F", "df2", "p")], rtol=1e-6)
        assert method in str(t)


def test_tests_say_what_is_wrong() -> None:
    for run, words in (
        (lambda: pool_wald([[1.0]], [[[1.0]]]), "at least 2"),
        (lambda: pool_wald([[1.0, 2.0]] * 3, np.zeros((3, 2, 2))), "positive definite"),
        (lambda: pool_chi_square([1.0, -1.0], 1), "not negative"),
        (lambda: pool_likelihood_ratio(1.0, 1.0, 1, 3, method="D5"), "method"),
        (lambda: pool_likelihood_ratio(math.nan, 1.0, 1, 3), "finite"),
    ):
        with pytest.raises(InputError, match=words):
            run()
