"""Streams: the same for ever, independent by name, right in distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from trialkit.simulation.streams import Stream, child_seeds, hexadecimal, poisson_quantile, words


def test_a_stream_is_the_same_for_ever() -> None:
    """Stored values: numpy promises PCG64's and SeedSequence's words; nothing else is used."""
    assert words("outcome", "climate") == (1379837477, 3664744361, 2557074192, 3308048402)
    assert Stream(1, "sites").uniform(3).tolist() == [0.3152108131382549, 0.36282459693629515, 0.6925331487565549]
    assert child_seeds(99, 3) == [7589528008861169289, 24691759747426297, 6746497562005496109]
    assert hexadecimal(1, "draw") == "ce11b5a1a90df77e04d5bfc150ca7d2c"


def test_names_and_seeds_part_streams() -> None:
    draws = [Stream(s, *n).uniform(2000) for s, n in [(1, ("a",)), (1, ("b",)), (2, ("a",)), (1, ("a", "b")), (1, ("ab",))]]
    correlations = np.corrcoef(draws)[np.triu_indices(len(draws), 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(2000)


def test_a_longer_draw_begins_as_a_shorter_one() -> None:
    assert child_seeds(5, 200)[:20] == child_seeds(5, 20)
    assert len(set(child_seeds(5, 10_000))) == 10_000


def test_uniforms_never_reach_their_ends() -> None:
    u = Stream(4, "u").uniform(200_000)
    assert u.min() > 0.0
    assert u.max() < 1.0
    assert stats.kstest(u, "uniform").pvalue > 1e-6
    assert stats.kstest(Stream(4, "z").normal(200_000), "norm").pvalue > 1e-6


def test_poisson_by_inversion_is_exact() -> None:
    mean = np.exp(Stream(2, "m").normal(4000) * 1.5 + 1.0)
    u = Stream(2, "u").uniform(4000)
    u[:50] = np.exp(-mean[:50]) * (1 + 1e-9 * np.sign(u[:50] - 0.5))  # either side of the mass at zero
    assert (poisson_quantile(u, mean) == stats.poisson.ppf(u, mean)).all()


@pytest.mark.parametrize("n", [0, 1, 7])
def test_an_order_is_a_permutation(n: int) -> None:
    assert sorted(Stream(3, "o").order(n).tolist()) == list(range(n))
