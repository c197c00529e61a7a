"""Coefficients as tables: estimates, their t tests and confidence limits from standard errors and degrees of freedom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

# the numbers that every row of an effect has, in their order
EFFECT = ("estimate", "std_error", "df", "p_value", "conf_low", "conf_high")


def coefficient_table(
    names: Sequence[str], estimate: Array, std_error: Array, df: Array, conf_level: float, *, first: str = "term", null: ArrayLike = 0.0
) -> pd.DataFrame:
    """One row a coefficient: `first`, estimate, std_error, df, statistic, p_value, conf_low, conf_high.

    Parameters
    ----------
    names : sequence of str, (k,)
    estimate, std_error, df : array (k,)
        Infinite df are a z test.
    conf_level : float
    first : str
        The column that `names` stand in.
    null : float or array (k,)
        What the tests hold the estimates against.
    """
    statistic = (estimate - np.asarray(null, dtype=np.float64)) / std_error
    half = t_quantile(df, 0.5 + conf_level / 2) * std_error
    return pd.DataFrame(
        {
            first: pd.array(list(names), dtype="str"),
            "estimate": estimate,
            "std_error": std_error,
            "df": df,
            "statistic": statistic,
            "p_value": two_sided_p(statistic, df),
            "conf_low": estimate - half,
            "conf_high": estimate + half,
        }
    )


def covariance_table(names: Sequence[str], covariance: Array) -> pd.DataFrame:
    """A covariance (k, k), rows and columns labelled by coefficient."""
    return pd.DataFrame(covariance, index=list(names), columns=list(names))


def two_sided_p(statistic: ArrayLike, df: ArrayLike) -> Array:
    """Two-sided p-value of a t statistic; normal when df is infinite, missing when df is not positive."""
    t, nu = np.abs(np.asarray(statistic, dtype=np.float64)), np.asarray(df, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        p = np.where(np.isinf(nu), 2 * special.ndtr(-t), 2 * special.stdtr(np.where(np.isinf(nu), 1.0, nu), -t))
    return np.where(nu > 0, p, np.nan)


def t_quantile(df: ArrayLike, probability: float) -> Array:
    """Quantile of t, normal when df is infinite, missing when df is not positive."""
    nu = np.asarray(df, dtype=np.float64)
    usable = np.isfinite(nu) & (nu > 0)
    t = special.stdtrit(np.where(usable, nu, 1.0), probability)
    return np.where(usable, t, np.where(np.isposinf(nu), special.ndtri(probability), np.nan))
