"""Figures of repeated simulation, each with its Monte Carlo error, and exact limits to hold them against.

Formulas of Morris, White & Crowther (2019), Statistics in Medicine 38:2074, table 6. Limits for shares are
exact binomial; a check with a right engine then fails with the stated probability and no other.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from trialkit.simulation.streams import Floats


def binomial_limits(n: int, share: float, *, false_alarm: float) -> tuple[int, int]:
    """Least and largest count accepted of `n` when the true share is `share`.

    Each tail outside has probability at most half the `false_alarm`.

    Examples
    --------
    >>> binomial_limits(2000, 0.05, false_alarm=1e-6)
    (56, 151)
    """
    k = np.arange(n + 1)
    below = special.bdtr(k, n, share)  # P(X <= k)
    above = special.bdtrc(k, n, share)  # P(X > k)
    low = int(np.argmax(below > false_alarm / 2.0))
    high = int(np.argmax(above <= false_alarm / 2.0))
    return low, high


def share_limits(n: int, low: float, high: float, *, false_alarm: float) -> tuple[int, int]:
    """Counts accepted when the true share may lie anywhere from `low` to `high`."""
    return binomial_limits(n, low, false_alarm=false_alarm)[0], binomial_limits(n, high, false_alarm=false_alarm)[1]


def share(count: Floats, n: int) -> tuple[Floats, Floats]:
    """A share and its Monte Carlo error."""
    p = count / n
    return p, np.sqrt(p * (1.0 - p) / n)


def bias_reach(n: Floats, *, false_alarm: float) -> Floats:
    """How many Monte Carlo errors a bias may be off by chance (Student's t)."""
    reach: Floats = special.stdtrit(np.maximum(n - 1.0, 1.0), 1.0 - false_alarm / 2.0)
    return reach


def spread(estimates: Floats) -> tuple[Floats, Floats]:
    """Empirical standard error over the first axis, missing ignored, and its Monte Carlo error."""
    n = (~np.isnan(estimates)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(estimates, axis=0) / n
        sd = np.sqrt(np.nansum((estimates - mean) ** 2, axis=0) / (n - 1.0))
        return sd, sd / np.sqrt(2.0 * (n - 1.0))


def model_error(errors: Floats) -> tuple[Floats, Floats]:
    """Root mean square of the model's standard errors over the first axis, and its Monte Carlo error."""
    squares = errors**2
    n = (~np.isnan(squares)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(squares, axis=0) / n
        variance = np.nansum((squares - mean) ** 2, axis=0) / (n - 1.0)
        return np.sqrt(mean), np.sqrt(variance / (4.0 * n * mean))
