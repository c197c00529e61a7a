"""Reference-based means against dense conditional normals, and the drawn parameters against their posterior."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trialkit._kernels import repeated

RNG = np.random.default_rng(11)


def covariance(size: int) -> np.ndarray[Any, Any]:
    a = RNG.normal(size=(size, size))
    return a @ a.T + size * np.eye(size)


def carpenter(strategy: str, own: Any, reference: Any, sigma: Any, seen: Any, y: Any, u: Any) -> tuple[Any, Any]:
    """Mean and covariance of the missing visits by the joint normal each assumption sets up for all visits (Carpenter et al. 2013,
    section 3).

    The joint distribution is written out and conditioned on by the textbook formula; the site's effect u is part of every mean.
    """
    last = int(np.flatnonzero(seen)[-1]) if seen.any() else -1
    after = np.arange(len(seen)) > last
    if strategy == "jump-to-reference":
        mean = np.where(after, reference, own)
    elif strategy == "copy-reference":
        mean = reference
    elif strategy == "copy-increments":
        mean = np.where(after, own[last] + reference - reference[last], own) if last >= 0 else reference
    elif strategy == "last-mean-carried-forward":
        mean = np.where(after, own[last], own) if last >= 0 else own
    else:
        mean = own
    o, m = np.flatnonzero(seen), np.flatnonzero(after)
    joint = mean + u
    if not len(o):
        return joint[m], sigma[np.ix_(m, m)]
    slope = sigma[np.ix_(m, o)] @ np.linalg.inv(sigma[np.ix_(o, o)])
    return joint[m] + slope @ (y[o] - joint[o]), sigma[np.ix_(m, m)] - slope @ sigma[np.ix_(o, m)]


@pytest.mark.parametrize("strategy", ["jump-to-reference", "copy-increments", "copy-reference", "last-mean-carried-forward"])
@pytest.mark.parametrize("seen", [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0]])
def test_the_shift_is_the_difference_of_conditional_means(strategy: Any, seen: list[int]) -> None:
    pattern = np.array(seen, dtype=bool)
    own, reference, sigma = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 3, 4)), np.stack([covariance(4), covariance(4)])
    found = repeated.shift(strategy, own, reference, sigma, pattern)
    for k in range(2):
        for i in range(3):
            y, u = RNG.normal(size=4), RNG.normal(size=4)
            at_random, spread = carpenter("missing at random", own[k, i], reference[k, i], sigma[k], pattern, y, u)
            assumed, same = carpenter(strategy, own[k, i], reference[k, i], sigma[k], pattern, y, u)
            after = np.arange(4) > (np.flatnonzero(pattern)[-1] if pattern.any() else -1)
            np.testing.assert_allclose(found[k, i, after], assumed - at_random, atol=1e-12)
            assert not found[k, i, ~after].any()
            np.testing.assert_array_equal(spread, same)


def test_with_one_follow_up_after_a_common_baseline_three_assumptions_are_one() -> None:
    own = RNG.normal(size=(1, 5, 2))
    reference = own.copy()
    reference[..., 1] -= 0.7
    sigma = covariance(2)[None]
    seen = np.array([True, False])
    jump = repeated.shift("jump-to-reference", own, reference, sigma, seen, always=1)
    np.testing.assert_allclose(jump[..., 1], -0.7)
    for other in ("copy-increments", "copy-reference"):
        np.testing.assert_allclose(repeated.shift(other, own, reference, sigma, seen, always=1), jump, atol=1e-14)  # type: ignore[arg-type]
    # a baseline that was missed is counted as seen: the arm cannot have touched it
    np.testing.assert_allclose(repeated.shift("copy-increments", own, reference, sigma, np.zeros(2, bool), always=1), jump, atol=1e-14)


def data(J: int = 40, size: int = 6, T: int = 2) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(2)
    site = np.repeat(np.arange(J), size)
    arm, x = (site % 2).astype(float), rng.normal(size=J * size)
    psi, sigma = 0.3 * np.eye(T) + 0.1, np.eye(T) + 0.5
    Y = np.outer(arm, [0.0, 0.8]) + np.outer(x, [0.5, 0.3]) + 20
    Y += rng.multivariate_normal(np.zeros(T), psi, J)[site] + rng.multivariate_normal(np.zeros(T), sigma, J * size)
    return Y, np.column_stack([np.ones(J * size), arm, x]), site


def test_drawn_parameters_agree_with_the_balanced_design() -> None:
    """Equal sites: between and within mean squares have exact distributions, so the posterior is known to be near them."""
    Y, X, site = data()
    m = 150
    generators = [np.random.default_rng(k) for k in range(m)]
    free = np.ones((3, 2), dtype=bool)
    found = repeated.draw(np.repeat(Y[None], m, 0), np.repeat(X[None], m, 0), site, free, generators, iterations=50)
    # the arm: difference of the means of site means, adjusted for x; its SD from site means' residual variance
    inside = Y - np.repeat(Y.reshape(40, 6, 2).mean(1), 6, axis=0)
    x_in = X[:, 2] - np.repeat(X[:, 2].reshape(40, 6).mean(1), 6)
    slope = x_in @ inside / (x_in @ x_in)
    np.testing.assert_allclose(found.coefficients[:, 2].mean(0), slope, atol=0.06)
    within = (inside - np.outer(x_in, slope)).T @ (inside - np.outer(x_in, slope)) / (240 - 40 - 1)
    np.testing.assert_allclose(found.within.mean(0), within, rtol=0.06, atol=0.03)
    means = (Y - np.outer(X[:, 2], slope)).reshape(40, 6, 2).mean(1)
    effect = means[1::2].mean(0) - means[::2].mean(0)
    residual = means - np.where(np.arange(40) % 2, 1, 0)[:, None] * effect - means[::2].mean(0)
    error = np.sqrt((residual**2).sum(0) / 38 * (2 / 20))
    np.testing.assert_allclose(found.coefficients[:, 1].mean(0), effect, atol=0.06)
    np.testing.assert_allclose(found.coefficients[:, 1].std(0), error, rtol=0.2)


def test_units_do_not_matter_and_what_is_not_free_is_zero() -> None:
    Y, X, site = data()
    free = np.ones((3, 2), dtype=bool)
    free[1, 0] = False
    one = repeated.draw(Y[None], X[None], site, free, [np.random.default_rng(1)], iterations=20)
    big = repeated.draw(Y[None] * 1000 + 7, X[None], site, free, [np.random.default_rng(1)], iterations=20)
    assert one.coefficients[0, 1, 0] == 0
    np.testing.assert_allclose(big.coefficients[0, 1:], 1000 * one.coefficients[0, 1:], rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(big.between, 1e6 * one.between, rtol=1e-7)
    with pytest.raises(ValueError, match="does not vary"):
        repeated.draw(np.zeros_like(Y)[None], X[None], site, free, [np.random.default_rng(1)])
    with pytest.raises(ValueError, match="dependent"):
        repeated.draw(Y[None], np.concatenate([X, X[:, :1]], 1)[None], site, np.ones((4, 2), bool), [np.random.default_rng(1)])
