"""The exact sign-flip test: against all 2^P assignments written out, ties, the least p, and intervals by inversion."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from trialkit._kernels.signflip import MAX_PAIRS, inversion_interval, monte_carlo_p, sign_flip, sign_flip_interval


def brute(d: np.ndarray, tolerance: float = 1e-10) -> tuple[float, float, float]:
    every = np.array(list(itertools.product((1, -1), repeat=len(d)))) @ d
    t = d.sum()
    return (
        float(np.mean(every >= t - tolerance)),
        float(np.mean(every <= t + tolerance)),
        float(np.mean(np.abs(every) >= abs(t) - tolerance)),
    )


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 13])
@pytest.mark.parametrize("kind", ["normal", "integers", "tenths", "zeros", "one"])
def test_against_all_assignments(n: int, kind: str) -> None:
    r = np.random.default_rng(n)
    d = {
        "normal": r.normal(0.4, 1, n),
        "integers": r.integers(-3, 4, n).astype(float),
        "tenths": r.integers(-4, 6, n) / 10,  # ties that rounding breaks
        "zeros": np.zeros(n),
        "one": np.r_[1.0, np.zeros(n - 1)],
    }[kind]
    found = sign_flip(d)
    assert (found.greater, found.less, found.two_sided) == pytest.approx(brute(d), abs=1e-14)
    assert found.n_assignments == 2**n and found.n_pairs == n
    assert (found.tolerance == 0) == (kind in ("integers", "zeros", "one"))


def test_the_least_p() -> None:
    for n, least in ((5, 0.0625), (6, 0.03125), (8, 2 / 256), (10, 2 / 1024)):
        assert sign_flip(np.arange(1.0, n + 1)).two_sided == least


def test_ties_that_floats_break_are_ties() -> None:
    """0.1 + 0.2 - 0.3 is 0 for a reader and 5.6e-17 for a double."""
    assert sign_flip([0.1, 0.2, -0.3]).two_sided == 1.0
    assert sign_flip(np.array([1, 2, -3]) * (1 / 3)).two_sided == 1.0


def test_scale_and_order_do_not_matter() -> None:
    d = np.random.default_rng(3).normal(0.3, 1, 20)
    assert sign_flip(d).two_sided == sign_flip(d[::-1] * 1e6).two_sided == sign_flip(d * 1e-9).two_sided


def test_42_pairs_are_counted_exactly() -> None:
    """Differences 1, ..., 1: the number of flips is binomial, so the count of 2^42 assignments is known."""
    d = np.ones(42)
    d[:14] = -1  # the sum is 14: as far out as 28 or more of 42 heads, or 14 or fewer
    tail = sum(math.comb(42, k) for k in range(28, 43)) / 2**42
    assert sign_flip(d).two_sided == 2 * tail
    assert sign_flip(d).greater == tail


def test_input_that_is_no_difference() -> None:
    for bad in ([], [np.nan], [np.inf, 1], [[1, 2]]):
        with pytest.raises(ValueError):
            sign_flip(bad)
    with pytest.raises(ValueError, match="too many"):
        sign_flip(np.ones(MAX_PAIRS + 1))


@pytest.mark.parametrize("n", [6, 7, 9, 12, 16])
def test_interval_holds_what_the_test_keeps(n: int) -> None:
    d = np.random.default_rng(n).normal(0.5, 1, n)
    found = sign_flip_interval(d, conf_level=0.9)
    scale = d.std() / math.sqrt(n)
    inside, outside = 1e-6 * scale, -1e-6 * scale
    for limit, sign in ((found.low, 1), (found.high, -1)):
        assert sign_flip(d - (limit + sign * inside)).two_sided > 0.1
        assert sign_flip(d - (limit + sign * outside)).two_sided <= 0.1
    # the limits are means of subsets of differences (Hartigan's typical values)
    if n <= 12:
        means = sorted(np.mean(s) for k in range(1, n + 1) for s in itertools.combinations(d, k))
        k = math.floor(0.05 * 2**n)
        assert found.low == pytest.approx(means[k - 1], abs=1e-7) and found.high == pytest.approx(means[-k], abs=1e-7)


def test_weighted_interval_and_too_few_pairs() -> None:
    d, w = np.array([1.0, 4, 2, 6, 3, 5, 8]), np.array([1.0, 2, 1, 2, 1, 2, 2])
    found = sign_flip_interval(d, weights=w)
    assert sign_flip(d - (found.low + 1e-6) * w).two_sided > 0.05 >= sign_flip(d - (found.low - 1e-6) * w).two_sided
    assert sign_flip_interval(d[:5]).low == -math.inf and sign_flip_interval(d[:5]).high == math.inf
    for bad in ({"weights": [1.0]}, {"weights": -w}, {"conf_level": 1.0}):
        with pytest.raises(ValueError):
            sign_flip_interval(d, **bad)


def test_interval_equivariance() -> None:
    d = np.random.default_rng(8).normal(0.3, 1, 14)
    a, b = sign_flip_interval(d), sign_flip_interval(3 * d + 10)
    assert (b.low, b.high) == pytest.approx((3 * a.low + 10, 3 * a.high + 10), abs=1e-7)
    c = sign_flip_interval(-d)
    assert (c.low, c.high) == pytest.approx((-a.high, -a.low), abs=1e-7)


def test_monte_carlo_counts_the_observed_one() -> None:
    assert monte_carlo_p(5.0, np.zeros(999)) == (1 / 1000, 1.0, 1 / 1000)
    assert monte_carlo_p(1.0, [1.0, -1.0, 0.0], exact=True) == (1 / 3, 1.0, 2 / 3)
    with pytest.raises(ValueError):
        monte_carlo_p(np.nan, [1.0])


def test_linear_inversion_agrees_with_the_sign_flip_interval() -> None:
    d = np.random.default_rng(4).normal(0.6, 1, 10)
    signs = np.array(list(itertools.product((1, -1), repeat=10)))
    a, b = signs @ d / 10, signs.sum(axis=1) / 10
    found = inversion_interval((d.mean(), 1.0), (a, b), exact=True)
    expected = sign_flip_interval(d)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_sampled_inversion_agrees_with_the_p_value() -> None:
    r = np.random.default_rng(6)
    d = r.normal(0.6, 1, 12)
    signs = r.choice([1, -1], (999, 12))
    found = inversion_interval((d.mean(), 1.0), (signs @ d / 12, signs.mean(axis=1)), conf_level=0.9)
    for limit, side in ((found.low, 0), (found.high, 1)):
        for step, kept in ((1e-6, True), (-1e-6, False)):
            shifted = d - (limit + (step if side == 0 else -step))
            p = monte_carlo_p(shifted.mean(), signs @ shifted / 12)[side]
            assert (p > 0.05) == kept
    assert inversion_interval((1.0, 1.0), (np.zeros(9), np.zeros(9))).low == -math.inf
    with pytest.raises(ValueError, match="respond most"):
        inversion_interval((1.0, 0.0), (np.zeros(9), np.ones(9)))
