"""Rubin's rules against mice 3.19 and mitml (values stored; made by R, see the file's `source`)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trialkit._kernels import pooling

CASES = json.loads((Path(__file__).parents[1] / "reference" / "pooling_cases.json").read_text())
# both sides compute the same closed forms in doubles; 1e-8 relative leaves room for incomplete-beta routines only
CLOSE = {"rtol": 1e-8, "atol": 1e-10}


def df_of(case: dict[str, Any]) -> float:
    return math.inf if case["dfcom"] in ("Inf", None) else float(case["dfcom"])


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES["scalar"], ids=lambda c: c["name"])
def test_scalar_cases(case: dict[str, Any]) -> None:
    p = pooling.pool_scalar(case["Q"], case["U"], df_of(case))
    got = {
        "qbar": p.estimate,
        "ubar": p.within,
        "b": p.between,
        "t": p.total,
        "se": p.std_error,
        "riv": p.riv,
        "lambda": p.lambda_,
        "df_mice_3_19": p.df,
        "fmi_mice_3_19": p.fmi,
        "relative_efficiency": p.relative_efficiency,
        "t_stat": p.statistic,
        "p_mice_3_19": p.p_value,
        "mce_qbar": p.mc_error.estimate,
    }
    for name, value in got.items():
        # B = 1e-11 is a difference of numbers near .7: its last digits are rounding in either program
        rtol = 1e-8 if name not in ("b", "riv", "lambda", "mce_qbar") or case["name"] != "b_tiny_df50" else 1e-7
        np.testing.assert_allclose(value, case[name], rtol=rtol, err_msg=name)
    np.testing.assert_allclose([p.conf_low, p.conf_high], case["ci95"], rtol=1e-8)
    for name, value in (("se", p.mc_error.std_error), ("df", p.mc_error.df), ("fmi", p.mc_error.fmi)):
        # differences of leave-one-out values: relative error is rounding over the size of the difference
        rtol = 1e-8 if case["name"] != "b_tiny_df50" else 2e-4
        np.testing.assert_allclose(value, case["mce_jackknife"][name], rtol=rtol, err_msg=f"jackknife {name}")


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES["multi"], ids=lambda c: f"k{c['k']}_m{c['m']}")
def test_several_parameters(case: dict[str, Any]) -> None:
    q, u = np.asarray(case["Q"]), np.asarray(case["U"])
    inverse = np.linalg.inv(u)
    wald = np.einsum("mi,mij,mj->m", q, inverse, q)
    np.testing.assert_allclose(wald, case["wald"], rtol=1e-8)
    finite = df_of(case)
    results = {
        "D1": pooling.d1(q, u, finite),
        "D1_no_dfcom": pooling.d1(q, u),
        "D2_wald": pooling.d2(wald, case["k"]),
    }
    for name, test in results.items():
        expected = case[name]
        np.testing.assert_allclose(
            [test.statistic, test.df1, test.df2, test.p_value, test.riv],
            [expected[c] for c in ("F", "df1", "df2", "p", "riv")],
            **CLOSE,
            err_msg=name,
        )


def test_no_variation_between_imputations_gives_the_complete_data_limit() -> None:
    p = pooling.pool_scalar([0.4] * 5, [0.01] * 5, 83)
    assert p.df == pytest.approx(84 / 86 * 83, rel=1e-14)
    assert (p.lambda_, p.riv, p.std_error) == (0, 0, pytest.approx(0.1))
    assert pooling.pool_scalar([0.4] * 5, [0.01] * 5, math.inf).df == math.inf
    # the normal reference distribution, no NaN on the way
    assert pooling.pool_scalar([0.196] * 3, [0.01] * 3, math.inf).p_value == pytest.approx(0.0499957902964409, rel=1e-12)
    assert pooling.pool_scalar([0.4] * 5, [0.01] * 5, math.inf).mc_error.df == 0


def test_two_imputations_have_an_answer_and_say_that_the_jackknife_has_none() -> None:
    p = pooling.pool_scalar([0.1, 0.3], [0.04, 0.05], 20.5)
    b = 0.02
    t = 0.045 + 1.5 * b
    lam = 1.5 * b / t
    observed = 21.5 / 23.5 * 20.5 * (1 - lam)
    assert p.df == pytest.approx(1 / (lam**2 + 1 / observed), rel=1e-12)
    assert p.mc_error.estimate == pytest.approx(math.sqrt(b / 2))
    assert np.isnan(p.mc_error.std_error)


def test_leading_axes_equal_one_at_a_time() -> None:
    rng = np.random.default_rng(3)
    q, u = rng.normal(size=(2, 3, 7)), rng.uniform(0.5, 2, size=(2, 3, 7))
    df = np.array([[5.0, 30.0, np.inf], [1.0, 83.0, 345.0]])
    many = pooling.pool_scalar(q, u, df)
    for i in np.ndindex(2, 3):
        one = pooling.pool_scalar(q[i], u[i], df[i])
        for name in ("estimate", "std_error", "df", "fmi", "p_value", "conf_low"):
            assert getattr(many, name)[i] == pytest.approx(getattr(one, name), rel=1e-13)
        assert many.mc_error.fmi[i] == pytest.approx(one.mc_error.fmi, rel=1e-10)


def test_one_df_an_imputation_is_averaged() -> None:
    q, u = [0.1, 0.4, 0.2], [0.02, 0.03, 0.02]
    each = pooling.pool_scalar(q, u, [70.0, 80.0, 84.0])
    assert each.df_complete == 78
    assert each.df == pooling.pool_scalar(q, u, 78).df


@pytest.mark.parametrize(
    ("q", "u", "df", "words"),
    [
        ([0.1], [0.2], 5, "at least 2"),
        ([0.1, 0.2], [0.2], 5, "one shape"),
        ([0.1, np.nan], [0.2, 0.2], 5, "finite"),
        ([0.1, 0.2], [0.2, -0.2], 5, "negative"),
        ([0.1, 0.2], [0.2, 0.2], 0, "positive"),
        ([0.1, 0.2], [0.2, 0.2], np.nan, "positive"),
        ([0.1, 0.2], [0.2, 0.2], [1, 2, 3], "does not fit"),
    ],
)
def test_bad_input_is_named(q: list[float], u: list[float], df: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pooling.pool_scalar(q, u, df)


def test_reiter_falls_back_where_it_is_undefined() -> None:
    rng = np.random.default_rng(0)
    q, u = rng.normal(size=(3, 2)), np.broadcast_to(np.eye(2), (3, 2, 2))
    assert pooling.d1(q, u, 30).df_rule == "li"  # k (m - 1) = 4
    assert pooling.d1(q, u, 30).df2 == pooling.d1(q, u).df2
    q = rng.normal(size=(4, 2))
    assert pooling.d1(q, np.broadcast_to(np.eye(2), (4, 2, 2)), 30).df_rule == "reiter"


def test_reiter_tends_to_li_as_the_sample_grows() -> None:
    rng = np.random.default_rng(1)
    q = rng.normal(scale=0.3, size=(10, 3))
    u = np.broadcast_to(np.eye(3), (10, 3, 3))
    assert pooling.d1(q, u, 1e9).df2 == pytest.approx(pooling.d1(q, u).df2, rel=0.15)


def test_d3_and_d4_by_hand() -> None:
    # k = 2, m = 5: r = 6 / 8 * (7 - 6) = .75; F = 6 / (2 * 1.75)
    t3 = pooling.d3(7.0, 6.0, k=2, m=5)
    assert t3.riv == pytest.approx(0.75)
    assert t3.statistic == pytest.approx(6 / 3.5)
    assert t3.df2 == pytest.approx(4 + 4 * (1 + (1 - 2 / 8) / 0.75) ** 2)
    t4 = pooling.d4(7.0, 6.0, k=2, m=5)
    assert t4.df2 == pytest.approx(8 * (1 + 1 / 0.75) ** 2)
    assert pooling.d3(5.0, 6.0, k=2, m=5, positive=True).riv == 0


def test_more_imputations_needed_for_more_missing_information() -> None:
    pilot = pooling.imputations_needed([0.1, 0.3, 0.6], 20)
    assert (np.diff(pilot.m_recommended) > 0).all()
    # von Hippel's own arithmetic: logit(.3) + 1.96 sqrt(2/20) -> FMI_upper = .4434; 1 + (.4434/.05)^2 / 2 = 40.3
    assert pilot.m_recommended[1] == 41


LIKELIHOOD = json.loads((Path(__file__).parents[1] / "reference" / "pooling_likelihood.json").read_text())


@pytest.mark.reference
@pytest.mark.parametrize("case", LIKELIHOOD["cases"], ids=lambda c: c["name"])
def test_pooled_likelihood_ratio_tests_against_mitml(case: dict[str, Any]) -> None:
    """D2, D3 and D4 of mitml 0.4-4 from the same completed-data statistics (made by pooling_likelihood.R)."""
    k, m = case["k"], case["m"]
    results = {
        "D2": pooling.d2(np.maximum(case["statistics"], 0.0), k),
        "D3": pooling.d3(case["d3_mean"], case["d3_pooled"], k, m),
        "D4": pooling.d4(case["d4_mean"], case["d4_stacked"], k, m),
    }
    for name, test in results.items():
        expected = [case[name][c] for c in ("F", "df1", "df2", "p", "riv")]
        got = [test.statistic, test.df1, test.df2, test.p_value, test.riv]
        # D3's and D4's relative increase is a difference of likelihoods that R evaluates to about 1e-9
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8, err_msg=name)
