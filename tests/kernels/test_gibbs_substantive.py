"""Numbers drawn given an outcome's model: their density by quadrature, both modes of a square, limits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import SeedSequence

from trialkit._kernels.gibbs_streams import Streams
from trialkit._kernels.gibbs_substantive import draw_numbers


@pytest.mark.parametrize("limits", [(-np.inf, np.inf), (-1.0, 1.5)])
@pytest.mark.parametrize(("coefficients", "y"), [((0.2, 0.7), 1.5), ((0.0, 0.3, 0.8), 4.0), ((0.0, -0.5, 0.2, 0.4), -2.0)])
def test_draws_have_the_density(coefficients: tuple[float, ...], y: float, limits: tuple[float, float]) -> None:
    (m, q), mean, sd, sigma = (20, 250), 0.3, 1.2, 0.9
    streams = Streams(SeedSequence(1).spawn(m))
    one, own = np.ones((m, q)), np.ones((m, 1))
    x = one * 0.1
    for _ in range(6):
        given = np.array(coefficients)[:, None, None] * one
        x = draw_numbers(x, mean * one, sd * own, y * one, given, sigma * own, limits, streams)
    grid = np.linspace(*np.clip(limits, -9, 9), 40_001)
    density = np.exp(-0.5 * ((grid - mean) / sd) ** 2 - 0.5 * ((y - np.polyval(coefficients[::-1], grid)) / sigma) ** 2)
    cumulated = np.cumsum(density) / density.sum()
    at = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    exact = np.interp(at, cumulated, grid)
    share = (x.ravel() < exact[:, None]).mean(axis=1)
    assert (np.abs(share - at) < 4.5 * np.sqrt(at * (1 - at) / x.size)).all()
    assert x.min() >= limits[0]
    assert x.max() <= limits[1]
    if len(coefficients) == 3 and np.isinf(limits[0]):
        assert min((x < -1).mean(), (x > 1).mean()) > 0.05
