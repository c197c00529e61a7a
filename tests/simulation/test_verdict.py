"""Limits against the published table, Monte Carlo errors against repetition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trialkit.simulation import verdict


@pytest.mark.parametrize(
    ("n", "alarm", "low", "high"),
    [
        (1_000, 1e-2, 33, 69),
        (1_000, 1e-4, 25, 79),
        (1_000, 1e-6, 20, 87),
        (2_000, 1e-2, 76, 126),
        (2_000, 1e-4, 64, 140),
        (2_000, 1e-6, 56, 151),
        (10_000, 1e-4, 417, 587),
        (20_000, 1e-6, 853, 1154),
        (100_000, 1e-6, 4666, 5341),
    ],
)
def test_exact_limits_for_five_in_a_hundred(n: int, alarm: float, low: int, high: int) -> None:
    assert verdict.binomial_limits(n, 0.05, false_alarm=alarm) == (low, high)


@given(n=st.integers(2, 3000), share=st.floats(0.0, 1.0), alarm=st.sampled_from([1e-2, 1e-4, 1e-6]))
def test_limits_leave_no_more_than_the_false_alarm(n: int, share: float, alarm: float) -> None:
    low, high = verdict.binomial_limits(n, share, false_alarm=alarm)
    assert 0 <= low <= high <= n
    outside = stats.binom.cdf(low - 1, n, share) + stats.binom.sf(high, n, share)
    assert outside <= alarm * (1 + 1e-6)


def test_monte_carlo_errors_are_those_of_repetition() -> None:
    """2,000 repetitions of a simulation of 200 trials: the stated error is the SD of the figure."""
    rng = np.random.default_rng(1)
    estimates = rng.normal(0.3, 0.17, size=(200, 2000))
    errors = 0.17 * np.sqrt(rng.chisquare(50, size=(200, 2000)) / 50)
    spread, spread_mcse = verdict.spread(estimates)
    assert spread_mcse.mean() == pytest.approx(spread.std(ddof=1), rel=0.08)
    model, model_mcse = verdict.model_error(errors)
    assert model_mcse.mean() == pytest.approx(model.std(ddof=1), rel=0.08)
    assert model.mean() == pytest.approx(0.17, rel=0.01)


def test_a_range_of_true_shares_widens_the_limits() -> None:
    assert verdict.share_limits(2000, 0.95, 0.97, false_alarm=1e-6) == (
        verdict.binomial_limits(2000, 0.95, false_alarm=1e-6)[0],
        verdict.binomial_limits(2000, 0.97, false_alarm=1e-6)[1],
    )
