"""A covariate's missing numbers given its own regression and the outcome of the substantive model (Bartlett et al. 2015).

The outcome's mean is a polynomial in the covariate (its powers and interactions), so that the density of a cell is known up to a constant
anywhere: N(x; mean, sd^2) N(y; c0 + c1 x + c2 x^2 + ..., sigma^2). Linear: normal, drawn exactly. Otherwise one independence Metropolis
step with a histogram of that density, which sees both modes of a square.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels import truncated
from trialkit._kernels.gibbs_streams import Streams

Array = NDArray[np.float64]

_CELLS = 64
_REACH = 8.0  # standard deviations of the covariate's own regression that the histogram covers
_DEFENSIVE = 0.05  # share of proposals from that regression itself, which reaches everywhere


def draw_numbers(
    current: Array,
    mean: Array,
    sd: Array,
    y: Array,
    coefficients: Array,
    sigma: Array,
    limits: tuple[float, float],
    streams: Streams,
) -> Array:
    """One draw (m, q) that leaves the density of every cell as it is.

    Parameters
    ----------
    current, mean, y : array (m, q)
    sd, sigma : array (m, 1)
    coefficients : array (d + 1, m, q)
        Of the outcome's mean, the constant first.
    limits : (low, high)
    """
    shape = current.shape
    low, high = limits
    if len(coefficients) == 2:
        precision = sd**-2 + (coefficients[1] / sigma) ** 2
        centre = (mean / sd**2 + coefficients[1] * (y - coefficients[0]) / sigma**2) / precision
        spread = precision**-0.5
        if np.isinf(low) and np.isinf(high):
            return np.asarray(centre + spread * streams.normal(shape[1]))
        z = truncated.between(centre / spread, low / spread, high / spread, streams.uniform(shape[1]))
        return np.asarray(np.clip(spread * z, low, high))

    def log_density(x: Array, mean: Array, y: Array, coefficients: Array, sd: Array, sigma: Array) -> Array:
        fitted = coefficients[-1]
        for c in coefficients[-2::-1]:
            fitted = fitted * x + c
        out = -0.5 * ((x - mean) / sd) ** 2 - 0.5 * ((y - fitted) / sigma) ** 2
        return np.where((x < low) | (x > high), -np.inf, out)

    width = 2 * _REACH * sd / _CELLS
    first = mean - _REACH * sd
    cells = first[:, :, None] + width[:, :, None] * (np.arange(_CELLS) + 0.5)
    wide = (mean[:, :, None], y[:, :, None], coefficients[:, :, :, None], sd[:, :, None], sigma[:, :, None])
    heights = log_density(np.clip(cells, low, high), *wide)
    # a cell that a limit cuts keeps its weight; what falls outside is refused
    heights = np.where(np.abs(cells - np.clip(cells, low, high)) <= width[:, :, None] / 2, heights, -np.inf)
    top = heights.max(axis=2, keepdims=True)
    weight = np.exp(heights - np.where(np.isfinite(top), top, 0.0))
    total = weight.sum(axis=2, keepdims=True)
    weight = np.where(total > 0, weight / np.where(total > 0, total, 1.0), 1 / _CELLS)
    pick, place, accept = np.moveaxis(streams.uniform(3, shape[1]), 1, 0)
    level = np.clip((pick - _DEFENSIVE) / (1 - _DEFENSIVE), 0, 1)
    cell = np.minimum((np.cumsum(weight, axis=2) < level[:, :, None]).sum(axis=2), _CELLS - 1)
    normal = mean + sd * streams.normal(shape[1])
    proposal = np.where(pick < _DEFENSIVE, normal, first + width * (cell + place))

    def importance(x: Array) -> Array:
        where = np.floor((x - first) / width)
        inside = (where >= 0) & (where < _CELLS)
        index = np.clip(where, 0, _CELLS - 1).astype(np.intp)
        histogram = np.where(inside, np.take_along_axis(weight, index[:, :, None], axis=2)[:, :, 0] / width, 0.0)
        own = np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
        proposed = np.maximum((1 - _DEFENSIVE) * histogram + _DEFENSIVE * own, 1e-300)
        return np.asarray(log_density(x, mean, y, coefficients, sd, sigma) - np.log(proposed))

    return np.where(np.log(accept) < importance(proposal) - importance(current), proposal, current)
