"""Several arms against one control: Dunnett's critical value and the power of the comparisons, by quadrature.

The k comparisons share the control's mean and the standard error. Given both they are independent, so a probability over all of
them is a product of normal probabilities, averaged over a normal and a chi variable (Dunnett 1955, JASA 50:1096): exact to rounding,
where Monte Carlo integration of the multivariate t gives four digits.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from trialkit._kernels.quadrature import chi_scale

Array = NDArray[np.float64]


@lru_cache(maxsize=1)
def _normal() -> tuple[Array, Array]:
    x, w = np.polynomial.legendre.leggauss(120)
    z = 9.0 * x
    weight = 9.0 * w * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return z, weight / weight.sum()


def _none_or_all(shift: Array, loading: Array, df: float, crit: float, sides: int, *, every: bool) -> float:
    """P(no comparison passes crit), or P(every one does)."""
    z, w = _normal()
    spread, v = (np.ones(1), np.ones(1)) if math.isinf(df) else chi_scale(df, 61)
    rest = np.sqrt(1 - loading**2)
    product = np.ones((len(spread), len(z)))
    edge = crit * spread[:, None]
    for d, a, r in zip(shift, loading, rest, strict=True):
        centre = d + a * z[None, :]
        if every:
            factor = special.ndtr((centre - edge) / r)
            if sides == 2:
                factor = factor + special.ndtr((-edge - centre) / r)
        else:
            factor = special.ndtr((edge - centre) / r)
            if sides == 2:
                factor = factor - special.ndtr((-edge - centre) / r)
        product *= factor
    return float(np.clip(v @ product @ w, 0.0, 1.0))


@lru_cache(maxsize=4096)
def critical_value(loading: tuple[float, ...], df: float, alpha: float, sides: int) -> float:
    """The value that the largest of the comparisons passes with probability alpha when no arm differs from control.

    Parameters
    ----------
    loading : tuple of k floats
        sqrt{n_i / (n_0 + n_i)}: the correlation of comparisons i and j is the product of theirs; equal groups: sqrt(1/2).
    df : float
    alpha : float
    sides : {1, 2}

    Examples
    --------
    >>> round(critical_value((0.5**0.5,) * 2, 20.0, 0.05, 2), 2)    # Dunnett's tables: 2.38
    2.38
    """
    k = len(loading)
    a = np.array(loading)
    zero = np.zeros(k)

    def quantile(level: float) -> float:
        return -float(special.ndtri(level)) if math.isinf(df) else -float(special.stdtrit(df, level))

    low, high = quantile(alpha / sides), quantile(alpha / sides / k)  # one comparison alone, and Bonferroni
    if k == 1:
        return low
    return float(optimize.brentq(lambda c: 1 - alpha - _none_or_all(zero, a, df, c, sides, every=False), low, high, xtol=1e-12, rtol=1e-13))


def power_any(shift: Array, loading: Array, df: float, crit: float, sides: int) -> float:
    """P(at least one comparison passes crit); shift (k,) in standard errors of each comparison."""
    return 1.0 - _none_or_all(shift, loading, df, crit, sides, every=False)


def power_all(shift: Array, loading: Array, df: float, crit: float, sides: int) -> float:
    """P(every comparison passes crit)."""
    return _none_or_all(shift, loading, df, crit, sides, every=True)
