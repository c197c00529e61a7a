"""Power of F, t and z tests: the noncentral distributions, taken from the functions that never give NaN, and their inverse.

``scipy.special.nctdtr`` and ``ncfdtr`` return NaN for part of the range that trials use (a fifth of a grid of ordinary designs, in
the first case); ``scipy.stats.ncf.sf`` and ``nct.sf`` do not, up to a noncentrality of 10,000. Beyond it, and should they ever fail, the
value is integrated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import integrate, optimize, special, stats

from trialkit._kernels.quadrature import chi_scale

Array = NDArray[np.float64]


def power_f(noncentrality: ArrayLike, df1: ArrayLike, df2: ArrayLike, alpha: ArrayLike) -> Array:
    """Power of the F test: P{F'(df1, df2; noncentrality) > F_{1-alpha}(df1, df2)}; arguments broadcast. df2 may be infinite (chi-square).

    With df1 = 1 this is the two-sided t test with both its tails. Noncentrality 0 gives alpha itself, not alpha and a rounding error.
    """
    lam, d1, d2, a = _broadcast(noncentrality, df1, df2, alpha)
    _check(d1, d2, a)
    if np.any(~(lam >= 0)):
        raise ValueError("noncentrality must not be negative")
    out = np.empty(lam.shape)
    limit = np.isinf(d2)
    exact = ~limit
    if exact.any():
        L, n1, n2 = lam[exact], d1[exact], d2[exact]
        crit = np.asarray(stats.f.isf(a[exact], n1, n2), dtype=float)
        value = np.ones(L.shape)
        usual = L <= _LARGE
        value[usual] = stats.ncf.sf(crit[usual], n1[usual], n2[usual], L[usual])
        open_ = ~usual & (np.sqrt(L) - 9 < np.sqrt(crit) * np.sqrt(n1 * _scale_bound(n2)))
        for i in np.flatnonzero(open_ | ~np.isfinite(value)):
            value[i] = f_tail_large(float(crit[i]), float(n1[i]), float(n2[i]), float(L[i]))
        # a noncentrality never takes power away; the last digits of a series may
        out[exact] = np.maximum(value, a[exact])
    if limit.any():
        one = limit & (d1 == 1)
        many = limit & (d1 != 1)
        out[one] = power_z(np.sqrt(lam[one]), a[one], 2)
        out[many] = stats.ncx2.sf(stats.chi2.isf(a[many], d1[many]), d1[many], lam[many])
    return np.where(lam == 0, a, np.clip(out, 0.0, 1.0))


def power_t(shift: ArrayLike, df: ArrayLike, alpha: ArrayLike, sides: int = 2) -> Array:
    """Power of the t test when the estimate is ``shift`` standard errors from the null value: noncentral t, exact.

    Two-sided: both tails. One-sided: the test looks in the direction of the positive shift, so a negative one gives less than alpha.
    """
    s, v, a = _broadcast(shift, df, alpha)
    if sides == 2:
        return power_f(s * s, 1.0, v, a)
    if sides != 1:
        raise ValueError("sides must be 1 or 2")
    _check(np.ones_like(v), v, a)
    out = np.empty(s.shape)
    limit = np.isinf(v)
    out[limit] = stats.norm.sf(stats.norm.isf(a[limit]) - s[limit])
    exact = ~limit
    if exact.any():
        n, x = v[exact], s[exact]
        crit = np.asarray(stats.t.isf(a[exact], n), dtype=float)
        value = np.where(x > 0, 1.0, 0.0)
        usual = x * x <= _LARGE
        value[usual] = stats.nct.sf(crit[usual], n[usual], x[usual])
        open_ = ~usual & (x > 0) & (x - 9 < np.abs(crit) * np.sqrt(_scale_bound(n)))
        for i in np.flatnonzero(open_ | ~np.isfinite(value)):
            value[i] = t_tail_large(float(crit[i]), float(n[i]), float(x[i]))
        out[exact] = np.where(x > 0, np.maximum(value, a[exact]), np.minimum(value, a[exact]))
    return np.where(s == 0, a, np.clip(out, 0.0, 1.0))


def power_t_one(shift: float, df: float, alpha: float, sides: int = 2) -> float:
    """`power_t` of three numbers, at a fifth of its time: what a search for a root calls again and again."""
    if shift == 0.0 or not alpha > 1e-6 or not 0.5 <= df <= 1e8 or abs(shift) > 50.0:
        return float(power_t(shift, df, alpha, sides))
    crit = -float(special.stdtrit(df, alpha / sides))
    if sides == 2:
        value = float(stats.ncf.sf(crit * crit, 1.0, df, shift * shift))
        return min(max(value, alpha), 1.0) if math.isfinite(value) else float(power_t(shift, df, alpha, sides))
    value = float(stats.nct.sf(crit, df, shift))
    if not math.isfinite(value):
        return float(power_t(shift, df, alpha, sides))
    return min(max(value, alpha), 1.0) if shift > 0.0 else max(min(value, alpha), 0.0)


def power_z(shift: ArrayLike, alpha: ArrayLike, sides: int = 2, *, upper_only: bool = False) -> Array:
    """Power of the normal test. ``upper_only`` leaves out the tail on the wrong side, as many sample-size formulas do."""
    s, a = _broadcast(shift, alpha)
    crit = stats.norm.isf(a / sides)
    value = stats.norm.sf(crit - s)
    if sides == 2 and not upper_only:
        value = np.where(s == 0, a, value + stats.norm.sf(crit + s))
    return _unit(value)


def power_shifted_t(shift: ArrayLike, df: ArrayLike, alpha: ArrayLike, sides: int = 2, *, upper_only: bool = True) -> Array:
    """The central t distribution moved by ``shift``: an approximation that some calculators print, kept so that they can be reproduced."""
    s, v, a = _broadcast(shift, df, alpha)
    _check(np.ones_like(v), v, a)
    crit = _t_isf(a / sides, v)
    value = _t_sf(crit - s, v)
    if sides == 2 and not upper_only:
        value = value + _t_sf(crit + s, v)
    return _unit(value)


def power_t_upper(shift: ArrayLike, df: ArrayLike, alpha: ArrayLike, sides: int = 2) -> Array:
    """Noncentral t, the tail in the right direction only: what some packages call the power of the two-sided test."""
    (a,) = _broadcast(alpha)
    return power_t(shift, df, a / sides, sides=1)


def noncentrality_f(power: float, df1: float, df2: float, alpha: float) -> float:
    """The noncentrality at which the F test has this power (> alpha): the inverse of :func:`power_f`."""
    return _inverse(lambda s: float(power_f(s * s, df1, df2, alpha)), power, alpha) ** 2


def shift_t(power: float, df: float, alpha: float, sides: int = 2) -> float:
    """The shift in standard errors at which the t test has this power (> alpha): the inverse of :func:`power_t`."""
    return _inverse(lambda s: float(power_t(s, df, alpha, sides)), power, alpha)


def _inverse(function: Callable[[float], float], power: float, alpha: float) -> float:
    if not alpha < power < 1:
        raise ValueError("power must lie between alpha and 1")
    return inverse(function, power)


def inverse(function: Callable[[float], float], power: float) -> float:
    """The shift at which an increasing power function reaches ``power``."""
    high = 4.0
    while function(high) < power:
        high *= 2
    return float(optimize.brentq(lambda s: function(s) - power, 0.0, high, xtol=1e-13, rtol=4 * np.finfo(float).eps))


def f_tail_by_quadrature(crit: float, df1: float, df2: float, noncentrality: float) -> float:
    """P{F' > crit} as the mean, over the chi-square of the denominator, of the noncentral chi-square tail of the numerator."""

    def integrand(u: float) -> float:
        return float(stats.ncx2.sf(crit * df1 * stats.chi2.ppf(u, df2) / df2, df1, noncentrality))

    return float(integrate.quad(integrand, 0.0, 1.0, limit=400, epsabs=1e-13, epsrel=1e-11)[0])


def t_tail_by_quadrature(crit: float, df: float, shift: float) -> float:
    """P{T' > crit} as the mean, over the chi-square of the denominator, of a normal tail."""

    def integrand(u: float) -> float:
        return float(stats.norm.sf(crit * np.sqrt(stats.chi2.ppf(u, df) / df) - shift))

    return float(integrate.quad(integrand, 0.0, 1.0, limit=400, epsabs=1e-13, epsrel=1e-11)[0])


# beyond this noncentrality the series behind the noncentral distributions may give up
_LARGE = 1e4


def _scale_bound(df: Array) -> Array:
    """A bound that chi2_df / df passes with probability below 1e-17 (Laurent & Massart 2000, Ann Stat 28:1302)."""
    return np.asarray(1 + 2 * np.sqrt(40 / df) + 80 / df)


def _normal_nodes() -> tuple[Array, Array]:
    x, w = np.polynomial.legendre.leggauss(96)
    z = 9 * x
    return z, 9 * w * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def t_tail_large(crit: float, df: float, shift: float) -> float:
    """P{T' > crit} for a large shift, as a mean over the numerator's normal of the chi-square below it: smooth where `crit` is large."""
    z, w = _normal_nodes()
    if crit <= 0:
        return 1.0
    return float(w @ special.gammainc(df / 2, df * (np.maximum(z + shift, 0) / crit) ** 2 / 2))


def f_tail_large(crit: float, df1: float, df2: float, noncentrality: float) -> float:
    """P{F' > crit} for a large noncentrality, in the same way; the numerator is a shifted normal's square plus a chi-square."""
    z, w = _normal_nodes()
    square = (z + math.sqrt(noncentrality)) ** 2
    if df1 == 1:
        return float(w @ special.gammainc(df2 / 2, df2 / 2 * square / crit))
    scale, v = chi_scale(df1 - 1, 41)
    numerator = square[:, None] + (df1 - 1) * scale[None, :] ** 2
    return float(w @ special.gammainc(df2 / 2, df2 / 2 * numerator / (crit * df1)) @ v)


def _unit(value: ArrayLike) -> Array:
    out: Array = np.clip(np.asarray(value, dtype=float), 0.0, 1.0)
    return out


def _t_isf(a: Array, df: Array) -> Array:
    return np.asarray(np.where(np.isinf(df), stats.norm.isf(a), stats.t.isf(a, np.where(np.isinf(df), 1.0, df))), dtype=float)


def _t_sf(x: Array, df: Array) -> Array:
    return np.asarray(np.where(np.isinf(df), stats.norm.sf(x), stats.t.sf(x, np.where(np.isinf(df), 1.0, df))), dtype=float)


def _broadcast(*values: ArrayLike) -> tuple[Array, ...]:
    return tuple(np.array(v, dtype=float) for v in np.broadcast_arrays(*[np.asarray(v, dtype=float) for v in values]))


def _check(df1: Array, df2: Array, alpha: Array) -> None:
    if np.any(~(df1 > 0)) or np.any(~(df2 > 0)):
        raise ValueError("degrees of freedom must be positive")
    if np.any(~((alpha > 0) & (alpha < 1))):
        raise ValueError("alpha must lie strictly between 0 and 1")
