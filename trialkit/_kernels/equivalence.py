"""Power of two one-sided tests against a lower and an upper limit, exactly: one standard error serves both."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
_TAIL = 1e-17


@lru_cache(maxsize=1)
def _legendre() -> tuple[Array, Array]:
    x, w = np.polynomial.legendre.leggauss(160)
    return x, w


def power_tost(lower: float, upper: float, df: float, alpha: float) -> float:
    """P{T + lower > t and T - upper < -t}: both one-sided tests at level alpha reject.

    Parameters
    ----------
    lower, upper : float
        Distance of the true effect from the lower and to the upper limit, in standard errors of the estimate; negative outside.
    df : float
        Of the standard error; may be infinite.
    alpha : float
        Level of each test.

    Notes
    -----
    The estimate is normal and its standard error, s times the true one, independent of it:
    E_s[Phi(upper - t s) - Phi(t s - lower)] over the s for which there is room, s < (lower + upper)/(2 t). Owen's Q in another order
    (Owen 1965, Biometrika 52:437; Phillips 1990, J Pharmacokinet Biopharm 18:137).

    Examples
    --------
    >>> round(power_tost(3.0, 3.0, 20.0, 0.05), 6)
    0.789173
    """
    crit = float(special.ndtri(1 - alpha)) if math.isinf(df) else -float(special.stdtrit(df, alpha))
    room = lower + upper
    if crit <= 0 or room <= 0:  # a level of a half and more is no test of equivalence
        return 0.0 if room <= 0 else _both(lower, upper, crit, df)
    return _both(lower, upper, crit, df)


def _both(lower: float, upper: float, crit: float, df: float) -> float:
    if math.isinf(df):
        return max(0.0, float(special.ndtr(upper - crit) - special.ndtr(crit - lower)))
    low = math.sqrt(2 * float(special.gammaincinv(df / 2, _TAIL)) / df)
    high = math.sqrt(2 * float(special.gammainccinv(df / 2, _TAIL)) / df)
    if crit > 0:
        high = min(high, (lower + upper) / (2 * crit))
    if high <= low:
        return 0.0
    # both normal curves move over a width of 1/t: in wide intervals the rule is split
    pieces = max(1, min(64, math.ceil((high - low) * max(abs(crit), 1.0) / 8)))
    x, w = _legendre()
    edges = np.linspace(low, high, pieces + 1)
    s = (edges[:-1, None] + np.diff(edges)[:, None] * (x + 1) / 2).ravel()
    weight = (np.diff(edges)[:, None] * w / 2).ravel()
    log_density = _log_chi(s, df)
    inside = special.ndtr(upper - crit * s) - special.ndtr(crit * s - lower)
    return float(np.clip((weight * np.exp(log_density) * inside).sum(), 0.0, 1.0))


def _log_chi(s: Array, df: float) -> Array:
    """Log density of sqrt(chi2_df / df); Stirling's series about s = 1 where large terms would cancel."""
    half = df / 2
    if df < 200:
        front = math.log(2.0) + half * math.log(half) - float(special.gammaln(half))
        return np.asarray(front + (df - 1) * np.log(s) - half * s * s)
    e = s - 1.0
    front = math.log(2.0) + 0.5 * math.log(half / (2 * math.pi)) - 1 / (12 * half) + 1 / (360 * half**3)
    return np.asarray(front - half * (e * e + 2 * (e - np.log1p(e))) - np.log1p(e))
