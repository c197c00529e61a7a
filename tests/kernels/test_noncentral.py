"""Noncentral F, t and z power: against integration over the denominator's chi-square, against mpmath, and at the edges."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from trialkit._kernels import noncentral as nc


def test_the_published_trial():
    lam = 0.25 * 68 * 0.25 / (0.05 + 0.95 / 2)
    assert nc.power_f(lam, 1, 66, 0.05) == pytest.approx(0.80056079634, abs=1e-10)
    assert nc.power_t(math.sqrt(lam), 66, 0.05, 2) == pytest.approx(0.80056079634, abs=1e-10)
    assert nc.power_t_upper(math.sqrt(lam), 66, 0.05) == pytest.approx(0.8005598506, abs=1e-9)
    assert nc.power_z(math.sqrt(lam), 0.05, upper_only=True) == pytest.approx(0.81198888044, abs=1e-10)
    assert nc.power_shifted_t(math.sqrt(lam), 66, 0.05) == pytest.approx(0.80042784302, abs=1e-10)


@pytest.mark.parametrize(
    ("df1", "df2", "lam", "alpha"), [(1, 2, 5.0, 0.05), (1, 6, 8.8, 0.05), (3, 12.5, 4.0, 0.01), (1, 500, 30, 0.001), (2, 9, 0.3, 0.2)]
)
def test_f_is_the_mean_of_noncentral_chi_square_tails(df1, df2, lam, alpha):
    crit = float(stats.f.isf(alpha, df1, df2))
    assert nc.power_f(lam, df1, df2, alpha) == pytest.approx(nc.f_tail_by_quadrature(crit, df1, df2, lam), abs=1e-9)


@pytest.mark.parametrize(("df", "shift", "alpha"), [(2, 3.0, 0.05), (6, 2.9, 0.025), (40, -1.0, 0.05), (1, 1.0, 0.1)])
def test_one_sided_t_is_the_mean_of_normal_tails(df, shift, alpha):
    crit = float(stats.t.isf(alpha, df))
    assert nc.power_t(shift, df, alpha, sides=1) == pytest.approx(nc.t_tail_by_quadrature(crit, df, shift), abs=1e-9)


def test_f_against_fifty_digits():
    # Poisson mixture of central tails, in arbitrary precision: no scipy in it
    mpmath.mp.dps = 50
    for df2, lam in [(6, 8.816), (66, 8.0952380952), (3, 20.0)]:
        crit = mpmath.mpf(float(stats.f.isf(0.05, 1, df2)))
        x = crit / (crit + df2)
        lam_ = mpmath.mpf(lam)
        tail = mpmath.nsum(
            lambda j, x=x, lam_=lam_, df2=df2: mpmath.exp(-lam_ / 2) * (lam_ / 2) ** j / mpmath.factorial(j)
            * (1 - mpmath.betainc(mpmath.mpf(1) / 2 + j, mpmath.mpf(df2) / 2, 0, x, regularized=True)),
            [0, 150], method="direct",
        )  # fmt: skip
        assert float(nc.power_f(lam, 1, df2, 0.05)) == pytest.approx(float(tail), abs=1e-12)


@pytest.mark.parametrize(("df1", "df2", "alpha"), [(1, 2, 1e-4), (1, 3, 1e-8), (3, 2, 1e-5), (1, 1, 1e-3)])
def test_large_noncentrality_joins_the_series(df1, df2, alpha):
    # on both sides of the switch at 10,000 the two ways give the same, and where both work they agree
    crit = float(stats.f.isf(alpha, df1, df2))
    for lam in (9_000.0, 9_999.0):
        assert nc.f_tail_large(crit, df1, df2, lam) == pytest.approx(float(nc.power_f(lam, df1, df2, alpha)), rel=1e-9, abs=1e-12)
    assert float(nc.power_f(10_001.0, df1, df2, alpha)) == pytest.approx(float(nc.power_f(9_999.0, df1, df2, alpha)), rel=1e-3)
    t = float(stats.t.isf(alpha, df2))
    assert nc.t_tail_large(t, df2, 99.0) == pytest.approx(float(nc.power_t(99.0, df2, alpha, 1)), rel=1e-9)


@pytest.mark.filterwarnings("error")
def test_no_warning_however_large_the_effect():
    rng = np.random.default_rng(3)
    df, lam = np.exp(rng.uniform(0, 12, 3000)), np.exp(rng.uniform(0, 80, 3000))
    alpha = np.exp(rng.uniform(np.log(1e-12), np.log(0.5), 3000))
    for values in (nc.power_f(lam, 1, df, alpha), nc.power_f(lam, 5, df, alpha), nc.power_t(np.sqrt(lam), df, alpha, 1)):
        assert ((values >= alpha) & (values <= 1)).all()
    assert (nc.power_t(-np.sqrt(lam), df, alpha, 1) <= alpha).all()


def test_no_effect_gives_alpha_exactly():
    alpha = np.array([1e-10, 0.001, 0.05, 0.2, 0.9])
    np.testing.assert_array_equal(nc.power_f(0.0, 1, 7, alpha), alpha)
    np.testing.assert_array_equal(nc.power_t(0.0, 7, alpha, 1), alpha)
    assert nc.power_f(1e-14, 1, 7, 0.05) == pytest.approx(0.05, abs=1e-12)


def test_infinite_df_is_the_normal_test():
    assert nc.power_f(8.0, 1, math.inf, 0.05) == pytest.approx(float(nc.power_z(math.sqrt(8.0), 0.05)), abs=1e-14)
    assert nc.power_f(8.0, 3, math.inf, 0.05) == pytest.approx(float(stats.ncx2.sf(stats.chi2.isf(0.05, 3), 3, 8.0)), abs=1e-14)
    assert nc.power_t(2.0, math.inf, 0.05, 1) == pytest.approx(float(nc.power_t(2.0, 1e9, 0.05, 1)), abs=1e-8)


def test_never_nan_over_the_whole_range():
    rng = np.random.default_rng(20240601)
    n = 50_000
    df = np.exp(rng.uniform(np.log(0.3), np.log(1e9), n))
    lam = np.exp(rng.uniform(np.log(1e-12), np.log(1e8), n))
    alpha = np.exp(rng.uniform(np.log(1e-10), np.log(0.9), n))
    for values in (nc.power_f(lam, 1, df, alpha), nc.power_f(lam, 4, df, alpha), nc.power_t(np.sqrt(lam), df, alpha, 1)):
        assert np.isfinite(values).all()
        assert (values >= alpha * (1 - 1e-9) - 1e-13).all() and (values <= 1).all()


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("target", [0.1, 0.5, 0.8, 0.99])
def test_inverse(target, sides):
    s = nc.shift_t(target, 11, 0.05, sides)
    assert nc.power_t(s, 11, 0.05, sides) == pytest.approx(target, abs=1e-11)
    assert nc.power_f(nc.noncentrality_f(target, 3, 11, 0.05), 3, 11, 0.05) == pytest.approx(target, abs=1e-11)


def test_refuses_what_has_no_meaning():
    with pytest.raises(ValueError, match="degrees of freedom"):
        nc.power_f(1.0, 1, 0.0, 0.05)
    with pytest.raises(ValueError, match="alpha"):
        nc.power_f(1.0, 1, 5.0, 1.0)
    with pytest.raises(ValueError, match="noncentrality"):
        nc.power_f(-1.0, 1, 5.0, 0.05)
    with pytest.raises(ValueError, match="sides"):
        nc.power_t(1.0, 5.0, 0.05, 3)
    with pytest.raises(ValueError, match="power"):
        nc.shift_t(0.04, 5.0, 0.05)
