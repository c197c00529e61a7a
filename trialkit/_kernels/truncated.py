"""Truncated normal draws by inversion, exact in the tails.

One uniform a draw, so that a chain's stream does not depend on what it meets: rejection would.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]

# below this, ndtr leaves the range in which its inverse is accurate to full precision, and logarithms take over
_FAR = -8.0


def above_zero(mean: Array, uniform: Array) -> Array:
    """Draws from N(mean, 1) given that they are positive; any shape."""
    # -e < mean, where e is the standard normal error: P(-e < x | -e < mean) = Phi(x) / Phi(mean)
    with np.errstate(divide="ignore"):
        error = -special.ndtri(uniform * special.ndtr(mean))
    far = mean < _FAR
    if far.any():
        error[far] = -special.ndtri_exp(np.log(uniform[far]) + special.log_ndtr(mean[far]))
    return np.asarray(np.maximum(mean + error, 0.0))


def one_side(mean: Array, positive: NDArray[np.bool_], uniform: Array) -> Array:
    """Draws from N(mean, 1) above zero where `positive`, below zero elsewhere."""
    sign = np.where(positive, 1.0, -1.0)
    return np.asarray(sign * above_zero(sign * mean, uniform))


def between(mean: Array, low: Array, high: Array, uniform: Array) -> Array:
    """Draws from N(mean, 1) given low < x < high; limits may be infinite; arrays of one shape."""
    a, b = low - mean, high - mean
    # work in the lower tail, where Phi keeps its relative precision
    with np.errstate(invalid="ignore"):  # both limits infinite: either way round
        flip = a + b > 0
    a, b = np.where(flip, -b, a), np.where(flip, -a, b)
    pa, pb = special.ndtr(a), special.ndtr(b)
    with np.errstate(divide="ignore"):
        x = special.ndtri(pa + uniform * (pb - pa))
    far = b < _FAR
    if far.any():
        la, lb = special.log_ndtr(a[far]), special.log_ndtr(b[far])
        ratio = np.exp(la - lb)
        x[far] = special.ndtri_exp(lb + np.log(ratio + uniform[far] * (1 - ratio)))
    x = np.clip(x, a, b)
    return np.asarray(mean + np.where(flip, -x, x))


def log_probability(low: Array, high: Array) -> Array:
    """log P(low < e < high) for a standard normal e, floored at the smallest double instead of minus infinity."""
    flip = low + high > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    return np.asarray(np.log(np.maximum(special.ndtr(b) - special.ndtr(a), 1e-300)))
