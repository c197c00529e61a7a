"""Coefficients as tables: t tests and limits against SciPy's distributions, and what infinite or no degrees of freedom mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trialkit.itt.coefficient_table import EFFECT, coefficient_table, covariance_table, t_quantile, two_sided_p

ESTIMATE, STD_ERROR, DF = np.array([0.8, -1.2, 0.1]), np.array([0.4, 0.5, 0.2]), np.array([4.0, 11.5, math.inf])


def test_every_number_of_a_row_follows_from_its_t_distribution():
    table = coefficient_table(("a", "b", "c"), ESTIMATE, STD_ERROR, DF, 0.9)
    assert list(table) == ["term", "estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high"]
    assert table["term"].tolist() == ["a", "b", "c"]
    assert str(table["term"].dtype) == "str"
    np.testing.assert_allclose(table["statistic"], [2.0, -2.4, 0.5], rtol=1e-14)
    p = [*(2 * stats.t.sf([2.0, 2.4], DF[:2])), 2 * stats.norm.sf(0.5)]
    np.testing.assert_allclose(table["p_value"], p, rtol=1e-12)
    half = np.array([*stats.t.ppf(0.95, DF[:2]), stats.norm.ppf(0.95)]) * STD_ERROR
    np.testing.assert_allclose(table[["conf_low", "conf_high"]], np.column_stack([ESTIMATE - half, ESTIMATE + half]), rtol=1e-12)
    assert set(EFFECT) < set(table)


def test_the_null_moves_the_test_and_not_the_limits():
    at_zero = coefficient_table(("a", "b", "c"), ESTIMATE, STD_ERROR, DF, 0.95, first="contrast")
    at_itself = coefficient_table(("a", "b", "c"), ESTIMATE, STD_ERROR, DF, 0.95, first="contrast", null=ESTIMATE)
    assert at_itself["statistic"].tolist() == [0.0, 0.0, 0.0]
    assert at_itself["p_value"].tolist() == [1.0, 1.0, 1.0]
    same = ["contrast", "estimate", "std_error", "df", "conf_low", "conf_high"]
    assert at_zero[same].equals(at_itself[same])


@pytest.mark.parametrize("df", [0.0, -1.0, math.nan])
def test_without_degrees_of_freedom_there_is_no_inference(df):
    assert math.isnan(two_sided_p(2.0, df))
    assert math.isnan(t_quantile(df, 0.975))


def test_a_covariance_is_labelled_on_both_sides():
    table = covariance_table(("a", "b"), np.array([[4.0, 1.0], [1.0, 9.0]]))
    assert table.loc["b", "b"] == 9.0
    assert table.loc["a", "b"] == table.loc["b", "a"] == 1.0
