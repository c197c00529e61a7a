"""Quadrature on the unit interval that does not mind singular ends, for expectations over quantile functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]


def unit_interval(points: int = 81) -> tuple[Array, Array]:
    """Tanh-sinh nodes and weights on (0, 1), the weights summing to 1 (Takahasi & Mori 1974).

    Examples
    --------
    >>> x, w = unit_interval()
    >>> round(float((w / np.sqrt(x)).sum()), 7)
    2.0
    """
    x, rest, w = _nodes(points)
    keep = (x > 0) & (rest > 0) & (x < 1)
    return x[keep], w[keep] / w[keep].sum()


def _nodes(points: int) -> tuple[Array, Array, Array]:
    """Nodes, what is left of them to 1 (not rounded away), and weights."""
    half = points // 2
    k = np.arange(-half, half + 1) * (3.2 / half)
    u = 0.5 * np.pi * np.sinh(k)
    return special.expit(2 * u), special.expit(-2 * u), np.cosh(k) / np.cosh(u) ** 2


def chi_scale(df: float, points: int = 81) -> tuple[Array, Array]:
    """Nodes and weights for an expectation over sqrt(chi2_df / df), the estimated over the true standard error."""
    x, rest, w = _nodes(points)
    lower, upper = special.gammaincinv(df / 2, np.minimum(x, 0.5)), special.gammainccinv(df / 2, np.minimum(rest, 0.5))
    return np.sqrt(np.where(x <= 0.5, lower, upper) * 2 / df), w / w.sum()
