"""Randomisation inference: the exact sign-flip test over all 2^P assignments of P pairs, and Monte Carlo elsewhere.

Under the sharp null, flipping a pair's arms flips the sign of its difference. With U the sum of the flipped pairs'
differences, the statistic is T = t - 2U, so T >= t is U <= 0. The 2^P subset sums U are never listed: the pairs are
split into two halves, each half's subset sums are sorted, and the pairs of sums below zero are counted by binary
search ("meeting in the middle", Horowitz and Sahni 1974; for this test Pagano and Tritchler 1983 give the same counts).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

Array = np.ndarray[Any, np.dtype[Any]]

# two halves of 2^24 sums and their sorts are about 0.5 GB; beyond, sample
MAX_PAIRS = 48
# sums closer to zero than this share of the total of absolute differences count as ties, which can only raise p
TIE = 1e-12


@dataclass(frozen=True, slots=True)
class SignFlip:
    """The exact test of a sum of signed differences.

    Attributes
    ----------
    statistic : float
        The observed sum.
    greater, less, two_sided : float
        Share of all assignments with a statistic at least as large, at least as small, at least as far from 0.
    n_pairs : int
        Pairs whose difference entered, those with difference 0 included.
    n_assignments : int
        2 to the power `n_pairs`.
    tolerance : float
        Sums this close counted as ties; 0 when all differences are whole numbers.
    """

    statistic: float
    greater: float
    less: float
    two_sided: float
    n_pairs: int
    n_assignments: int
    tolerance: float


@dataclass(frozen=True, slots=True)
class Interval:
    """Limits of an interval made by inverting a test; infinite where the test can never reject.

    Attributes
    ----------
    low, high : float
        Shifts that the two-sided test at ``1 - conf_level`` just does not reject.
    conf_level : float
        As asked for; the least attainable coverage is at least this.
    evaluations : int
        How often the test was computed.
    """

    low: float
    high: float
    conf_level: float
    evaluations: int


def sign_flip(differences: Sequence[float] | Array) -> SignFlip:
    """Exact p-values of the sign-flip test over all 2^P assignments.

    Parameters
    ----------
    differences : (P,) array
        Within-pair differences, intervention minus control, finite; integers (by value) are counted exactly.

    Raises
    ------
    ValueError
        No pairs, a value that is not finite, or more than 48 pairs with a difference.

    Examples
    --------
    >>> sign_flip([1, 2, 3, 4, 5, 6]).two_sided  # 2 of 64: the least there is with six pairs
    0.03125
    """
    d = _finite(differences)
    moving, zeros = d[d != 0], int(np.count_nonzero(d == 0))
    d, tolerance = _exact(moving)
    below, at = _count_below(d, tolerance)
    every = 1 << len(d)
    greater, less = below + at, every - below
    statistic = float(np.sum(d))
    near = greater if statistic >= 0 else less
    two = every if abs(statistic) <= tolerance else min(2 * near, every)
    return SignFlip(
        statistic=statistic,
        greater=_ratio(greater, every),
        less=_ratio(less, every),
        two_sided=_ratio(two, every),
        n_pairs=len(d) + zeros,
        n_assignments=1 << (len(d) + zeros),
        tolerance=tolerance,
    )


def sign_flip_interval(
    differences: Sequence[float] | Array, *, weights: Sequence[float] | Array | None = None, conf_level: float = 0.95
) -> Interval:
    """Interval for a constant shift: all tau that the two-sided sign-flip test of ``differences - tau * weights`` keeps.

    Parameters
    ----------
    differences : (P,) array
        Within-pair differences (times their weight, when weights are given).
    weights : (P,) array, optional
        What one unit of the shift adds to each difference; 1 by default; positive.
    conf_level : float
        Two-sided.

    Notes
    -----
    The lower limit is where p(greater) first exceeds alpha / 2. That p rises with tau through 2^P steps; the step is
    found by secants on its normal quantile, then halving, to 1e-9 of the differences' standard error (up to 30 pairs;
    1e-6 beyond, where steps are many billions and closer still).
    """
    d = _finite(differences)
    w = np.ones(len(d)) if weights is None else _finite(weights)
    if len(w) != len(d) or (w <= 0).any():
        raise ValueError("weights must be positive, one for each difference")
    alpha = _alpha(conf_level)
    if 2 / 2 ** len(d) > alpha:
        return Interval(-math.inf, math.inf, conf_level, 0)
    calls = 0

    def lower(values: Array) -> float:
        def p_greater(tau: float) -> float:
            nonlocal calls
            calls += 1
            shifted = values - tau * w
            below, at = _count_below(shifted, TIE * float(np.sum(np.abs(values)) + abs(tau) * np.sum(w)))
            return float(_ratio(below + at, 1 << len(values)))

        return _step(p_greater, values / w, w, alpha / 2)

    low = lower(d)
    high = -lower(-d)
    return Interval(low, high, conf_level, calls)


def _step(p_of: Callable[[float], float], ratios: Array, w: Array, level: float) -> float:
    """The least tau with p(tau) > level, p rising from at most `level` at the least ratio to 1 at the largest."""
    lo, hi = float(ratios.min()), float(ratios.max())
    # at tau just below every ratio only the empty set counts: p = 2^-P <= level there
    lo -= max(1e-9, 1e-9 * abs(lo))
    scale = float(np.sqrt(np.sum((w * (ratios - np.average(ratios, weights=w))) ** 2)) / np.sum(w))
    precise = max(scale, 1e-300) * (1e-9 if len(ratios) <= 30 else 1e-6)
    target = float(special.ndtri(level))
    p_lo, p_hi = p_of(lo), p_of(hi)
    if p_lo > level:
        return lo
    z_lo, z_hi = _normal(p_lo), _normal(p_hi)
    guess = float(np.average(ratios, weights=w)) + target * max(scale, 1e-300)
    side = 0
    while hi - lo > precise:
        if not lo < guess < hi:
            guess = (lo + hi) / 2
        p = p_of(guess)
        z = _normal(p)
        if p > level:
            hi, z_hi = guess, z
            side = side + 1 if side > 0 else 1
        else:
            lo, z_lo = guess, z
            side = side - 1 if side < 0 else -1
        if abs(side) >= 3 or z_hi <= z_lo:
            guess, side = (lo + hi) / 2, 0
            continue
        guess = lo + (target - z_lo) / (z_hi - z_lo) * (hi - lo)
        # step over the root by a hair, so that the bracket closes from both sides
        slack = max(0.25 * precise, 1e-3 * min(hi - guess, guess - lo))
        guess = guess + slack if side < 0 else guess - slack
    return hi


def _normal(p: float) -> float:
    return float(special.ndtri(min(max(p, 1e-300), 1 - 1e-16)))


def _finite(values: Sequence[float] | Array) -> Array:
    out = np.asarray(values, dtype=np.float64)
    if out.ndim != 1 or len(out) == 0:
        raise ValueError("at least one pair is needed")
    if not np.isfinite(out).all():
        raise ValueError("a difference is missing or infinite; leave the pair out in the open, or impute it")
    return out


def _alpha(conf_level: float) -> float:
    if not 0 < conf_level < 1:
        raise ValueError(f"conf_level must lie between 0 and 1, not {conf_level}")
    return 1 - conf_level


def _exact(d: Array) -> tuple[Array, float]:
    """Whole numbers as int64, counted without tolerance; anything else as float64 with one."""
    if np.all(d == np.rint(d)) and float(np.sum(np.abs(d))) < 2**52:
        return d.astype(np.int64), 0.0
    return d, TIE * float(np.sum(np.abs(d)))


def subset_sums(d: Array) -> Array:
    """Sums of all subsets, sorted, (2^len(d),)."""
    sums = np.zeros(1, dtype=d.dtype)
    for value in d.tolist():
        sums = np.concatenate([sums, sums + value])
    sums.sort()
    return sums


def _count_below(d: Array, tolerance: float) -> tuple[int, int]:
    """How many subset sums lie below zero, and how many at zero (within the tolerance)."""
    if len(d) > MAX_PAIRS:
        raise ValueError(f"{len(d)} pairs are too many to go through all assignments; at most {MAX_PAIRS}. Sample them instead")
    # spread large and small differences over both halves: ties inside a half cost nothing, balance of range helps the search
    order = np.argsort(-np.abs(d), kind="stable")
    left, right = subset_sums(d[order[0::2]]), subset_sums(d[order[1::2]])
    wanted = -left[::-1]
    upto = _ranks(right, wanted + tolerance, "right")
    below = upto if len(d) == 0 else _ranks(right, wanted - tolerance, "left")
    if len(d) == 0:
        return 0, 1
    return below, upto - below


def _ranks(sorted_values: Array, queries: Array, side: Any) -> int:
    """Sum over the queries of how many values lie below them; in pieces, to bound memory."""
    total = 0
    for start in range(0, len(queries), 1 << 18):
        total += int(np.searchsorted(sorted_values, queries[start : start + (1 << 18)], side=side).sum(dtype=np.int64))
    return total


def _ratio(count: int, every: int) -> float:
    return count / every


# --- Monte Carlo, and any list of assignments --------------------------------------------------------------------


def monte_carlo_p(observed: float, draws: Sequence[float] | Array, *, exact: bool = False) -> tuple[float, float, float]:
    """(greater, less, two-sided) p-values of a statistic against its randomisation distribution.

    With `exact` the draws are every assignment, the observed one among them, and shares are taken; otherwise they
    are a sample, and the observed one is added to it: ``(1 + count) / (1 + n)``, which never says 0 (Phipson and Smyth 2010).
    """
    values = np.asarray(draws, dtype=np.float64)
    if len(values) == 0 or not np.isfinite(values).all() or not math.isfinite(observed):
        raise ValueError("the statistic and its draws must be finite, and there must be at least one")
    tolerance = TIE * max(1.0, float(np.abs(values).max()), abs(observed))
    add = 0 if exact else 1
    n = len(values) + add
    greater = (int(np.count_nonzero(values >= observed - tolerance)) + add) / n
    less = (int(np.count_nonzero(values <= observed + tolerance)) + add) / n
    two = (int(np.count_nonzero(np.abs(values) >= abs(observed) - tolerance)) + add) / n
    return greater, less, two


def inversion_interval(
    observed: tuple[float, float], draws: tuple[Array, Array], *, conf_level: float = 0.95, exact: bool = False
) -> Interval:
    """Interval for a constant effect by inverting the test of a statistic that is linear in the outcome.

    Parameters
    ----------
    observed : (a, b)
        The statistic of the outcome, and of the observed assignment itself (the change of the statistic when the
        effect grows by one): for a difference of means b is 1.
    draws : (a (R,), b (R,))
        The same under each other assignment.
    exact : bool
        Whether the draws are every assignment (the observed one among them) or a sample.

    Notes
    -----
    Taking tau out of the outcome makes the statistic ``a - tau b``; assignment z overtakes the observed one at
    ``c = (a_obs - a_z) / (b_obs - b_z)``, so the limits are order statistics of c: no search, no step size.
    """
    a0, b0 = observed
    a, b = (np.asarray(x, dtype=np.float64) for x in draws)
    alpha = _alpha(conf_level)
    gain = b0 - b
    if (gain < -1e-9 * max(1.0, abs(b0))).any():
        raise ValueError("the observed assignment must respond most to the effect")
    moving = gain > 1e-9 * max(1.0, abs(b0))
    c = np.sort((a0 - a[moving]) / gain[moving])
    same = int(np.count_nonzero(~moving))
    x = alpha / 2 * (len(a) if exact else len(a) + 1) * (1 + 1e-12)
    k = math.floor(x) - same + (1 if exact else 0)
    if k > len(c):
        raise ValueError("too few assignments differ from the observed one for an interval of this level")
    low = -math.inf if k < 1 else float(c[k - 1])
    high = math.inf if k < 1 else float(c[len(c) - k])
    return Interval(low, high, conf_level, 1)
