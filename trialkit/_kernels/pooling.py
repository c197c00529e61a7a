"""Rubin's rules: m completed-data results to one, for a scalar and for several parameters together.

Sources: Rubin (1987) ch. 3; Barnard & Rubin (1999) for the degrees of freedom; Li, Raghunathan & Rubin (1991) and
Reiter (2007) for D1; Li, Meng, Raghunathan & Rubin (1991) for D2; Meng & Rubin (1992) for D3; Chan & Meng (2022) for D4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

# Reiter's expansion divides by k (m - 1) - 4
_REITER_MINIMUM = 4.0


@dataclass(frozen=True, slots=True)
class MonteCarloError:
    """Standard error of each pooled figure that comes from m being finite, each of the leading shape (...)."""

    estimate: Array  # sqrt(B / m)
    std_error: Array  # the others by the jackknife over imputations; NaN when m < 3, where it is not defined
    df: Array
    fmi: Array
    statistic: Array
    p_value: Array


@dataclass(frozen=True, slots=True)
class Pooled:
    """Rubin's rules for scalars; every array has the leading shape (...) of the input."""

    m: int
    estimate: Array
    within: Array  # U, mean of the variances
    between: Array  # B, variance of the estimates with divisor m - 1
    total: Array  # T = U + (1 + 1/m) B
    std_error: Array
    df: Array  # Barnard-Rubin
    df_complete: Array  # what the df was built from, after averaging over imputations
    riv: Array  # relative increase in variance
    lambda_: Array  # share of the total variance that is due to missing data
    fmi: Array  # fraction of missing information, with the adjusted df
    relative_efficiency: Array  # against infinitely many imputations
    statistic: Array
    p_value: Array
    conf_low: Array
    conf_high: Array
    mc_error: MonteCarloError


@dataclass(frozen=True, slots=True)
class PooledTest:
    """A pooled test of k parameters: `statistic` is referred to F(df1, df2)."""

    statistic: float
    df1: float
    df2: float
    p_value: float
    riv: float
    df_rule: str  # "reiter", "li" or "chan-meng": which formula gave df2


def pool_scalar(
    estimates: ArrayLike,
    variances: ArrayLike,
    df_complete: ArrayLike = math.inf,
    *,
    conf_level: float = 0.95,
) -> Pooled:
    """Rubin's rules with Barnard-Rubin degrees of freedom, vectorised over leading axes.

    Parameters
    ----------
    estimates, variances : array (..., m)
        Completed-data estimates and squared standard errors, m >= 2.
    df_complete : array broadcastable to (...), or array (..., m)
        Degrees of freedom the complete data would have given. With as many axes as `estimates` it holds one value an
        imputation (Kenward-Roger df differ a little between completed sets) and their mean over imputations is used.
    conf_level : float
        Coverage of the interval.

    Returns
    -------
    Pooled
        With B = 0 the df is the observed-data limit (df_complete + 1) / (df_complete + 3) * df_complete, as in mice 3.19
        (earlier mice floored lambda at 1e-4).

    Raises
    ------
    ValueError
        Fewer than two imputations, shapes that differ, values that are not finite, negative variances, or df <= 0.
    """
    q = np.asarray(estimates, dtype=np.float64)
    u = np.asarray(variances, dtype=np.float64)
    if q.ndim == 0 or q.shape != u.shape:
        raise ValueError(f"estimates {q.shape} and variances {u.shape} must have one shape (..., m)")
    m = q.shape[-1]
    if m < 2:
        raise ValueError(f"{m} imputation: Rubin's rules need at least 2, because B is a variance between imputations")
    if not (np.isfinite(q).all() and np.isfinite(u).all()):
        raise ValueError("estimates and variances must be finite")
    if (u < 0).any():
        raise ValueError("variances must not be negative")
    if not 0 < conf_level < 1:
        raise ValueError(f"conf_level {conf_level} is not between 0 and 1")
    nu = np.asarray(df_complete, dtype=np.float64)
    if np.isnan(nu).any() or (nu <= 0).any():
        raise ValueError("df_complete must be positive (math.inf for a large sample)")
    each = nu if nu.ndim == q.ndim else nu[..., None]
    try:
        each = np.broadcast_to(each, q.shape)
    except ValueError:
        raise ValueError(f"df_complete {nu.shape} does not fit estimates {q.shape}") from None
    nu = each.mean(axis=-1)

    # equal estimates have exactly no variance between them, whatever the rounding of their mean
    same = np.ptp(q, axis=-1) == 0
    qbar = np.where(same, q[..., 0], q.mean(axis=-1))
    ubar = u.mean(axis=-1)
    b = np.where(same, 0.0, _variance(q))
    core = _rubin(qbar, ubar, b, nu, m)
    half = special.stdtrit(core.df, 0.5 + conf_level / 2) * core.std_error
    return Pooled(
        m=m,
        estimate=qbar,
        within=ubar,
        between=b,
        total=core.total,
        std_error=core.std_error,
        df=core.df,
        df_complete=nu,
        riv=core.riv,
        lambda_=core.lambda_,
        fmi=core.fmi,
        relative_efficiency=1 / (1 + core.fmi / m),
        statistic=core.statistic,
        p_value=core.p_value,
        conf_low=qbar - half,
        conf_high=qbar + half,
        mc_error=_monte_carlo_error(q, u, each, b, m),
    )


def barnard_rubin(m: int, lambda_: Array, df_complete: Array) -> Array:
    """Degrees of freedom of Barnard & Rubin (1999), in the form that has its limits at lambda = 0 and df_complete = inf."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rate_old = lambda_**2 / (m - 1)
        shrink = np.where(np.isinf(df_complete), 1.0, (df_complete + 1) / (df_complete + 3))
        observed = shrink * df_complete * (1 - lambda_)
        # inf * 0: all information missing, yet a large sample: Rubin's 1987 df alone
        rate_observed = np.where(np.isinf(df_complete), 0.0, 1 / observed)
        return np.asarray(1 / (rate_old + rate_observed))


@dataclass(frozen=True, slots=True)
class _Core:
    total: Array
    std_error: Array
    df: Array
    riv: Array
    lambda_: Array
    fmi: Array
    statistic: Array
    p_value: Array


def _rubin(qbar: Array, ubar: Array, b: Array, nu: Array, m: int) -> _Core:
    added = (1 + 1 / m) * b
    total = ubar + added
    with np.errstate(divide="ignore", invalid="ignore"):
        lambda_ = np.where(total > 0, added / total, 0.0)
        riv = np.where(added > 0, added / ubar, 0.0)
        df = barnard_rubin(m, lambda_, nu)
        # (r + 2/(df+3)) / (r+1), written with lambda = r/(r+1) so that r = inf has its limit
        fmi = lambda_ + (1 - lambda_) * 2 / (df + 3)
        std_error = np.sqrt(total)
        statistic = np.where((qbar == 0) & (total == 0), 0.0, qbar / std_error)
    p_value = np.where(np.isinf(statistic), 0.0, 2 * special.stdtr(df, -np.abs(statistic)))
    return _Core(total, std_error, df, riv, lambda_, fmi, statistic, p_value)


def _variance(q: Array) -> Array:
    centred = q - q.mean(axis=-1, keepdims=True)
    return np.asarray((centred**2).sum(axis=-1) / (q.shape[-1] - 1))


def _monte_carlo_error(q: Array, u: Array, nu: Array, b: Array, m: int) -> MonteCarloError:
    estimate = np.sqrt(b / m)
    if m < 3:
        none = np.full(estimate.shape, np.nan)
        return MonteCarloError(estimate, none, none, none, none, none)
    # leave-one-out moments in closed form: sums of squares about the mean lose (q_i - qbar)^2 m / (m - 1)
    qbar = q.mean(axis=-1, keepdims=True)
    deviation = q - qbar
    q_out = qbar - deviation / (m - 1)
    u_out = (u.sum(axis=-1, keepdims=True) - u) / (m - 1)
    squares = (deviation**2).sum(axis=-1, keepdims=True)
    b_out = np.maximum(squares - deviation**2 * m / (m - 1), 0.0) / (m - 2)
    large = np.isinf(nu).any(axis=-1, keepdims=True)
    finite = np.where(large, 1.0, nu)
    nu_out = np.where(large, np.inf, (finite.sum(axis=-1, keepdims=True) - finite) / (m - 1))
    out = _rubin(q_out, u_out, b_out, nu_out, m - 1)
    return MonteCarloError(
        estimate,
        _jackknife(out.std_error),
        _jackknife(out.df),
        _jackknife(out.fmi),
        _jackknife(out.statistic),
        _jackknife(out.p_value),
    )


def _jackknife(values: Array) -> Array:
    m = values.shape[-1]
    infinite = np.isinf(values)
    finite = np.where(infinite, 0.0, values)
    centred = finite - finite.mean(axis=-1, keepdims=True)
    error = np.sqrt((m - 1) / m * (centred**2).sum(axis=-1))
    # every replicate at the limit (B = 0, infinite df): no Monte Carlo error; some: no finite one
    return np.asarray(np.where(infinite.all(axis=-1), 0.0, np.where(infinite.any(axis=-1), np.inf, error)))


# --- several parameters ---------------------------------------------------------------------------------------


def d1(estimates: ArrayLike, covariances: ArrayLike, df_complete: float | None = None) -> PooledTest:
    """Wald test that k parameters are zero together, pooled covariance with one common relative increase (D1).

    Parameters
    ----------
    estimates : array (m, k)
    covariances : array (m, k, k)
    df_complete : float or None
        Complete-data denominator df: gives Reiter's (2007) small-sample df. None or infinite: Li, Raghunathan & Rubin (1991).
        Reiter's formula is undefined at k(m - 1) <= 4 and then Li's is used; `df_rule` says so.
    """
    q, u = np.asarray(estimates, dtype=np.float64), np.asarray(covariances, dtype=np.float64)
    if q.ndim != 2 or u.shape != (*q.shape, q.shape[1]):
        raise ValueError(f"estimates {q.shape} must be (m, k) and covariances {u.shape} (m, k, k)")
    m, k = q.shape
    if m < 2:
        raise ValueError(f"{m} imputation: pooling needs at least 2")
    if not (np.isfinite(q).all() and np.isfinite(u).all()):
        raise ValueError("estimates and covariances must be finite")
    qbar, ubar = q.mean(axis=0), u.mean(axis=0)
    try:
        factor = np.linalg.cholesky(ubar)
    except np.linalg.LinAlgError:
        raise ValueError("the mean covariance is not positive definite: test linearly independent parameters") from None
    # whitened by U: trace(B U^-1) and the Wald form are sums of squares
    white = np.linalg.solve(factor, (q - qbar).T)
    r = (1 + 1 / m) * float((white**2).sum()) / (m - 1) / k
    wald = float((np.linalg.solve(factor, qbar) ** 2).sum())
    df2, rule = _df_d1(k, m, r, df_complete)
    return _f_test(wald / (k * (1 + r)), k, df2, r, rule)


def d2(statistics: ArrayLike, k: int, *, positive: bool = False) -> PooledTest:
    """Chi-square statistics with k df from m completed sets (m,), when nothing else is known (D2, Li et al. 1991)."""
    d = np.asarray(statistics, dtype=np.float64)
    m = d.size
    if d.ndim != 1 or m < 2:
        raise ValueError(f"D2 needs m >= 2 statistics in one axis, not shape {d.shape}")
    if not np.isfinite(d).all() or (d < 0).any():
        raise ValueError("chi-square statistics must be finite and not negative")
    r = (1 + 1 / m) * float(_variance(np.sqrt(d)))
    if positive:
        r = max(0.0, r)
    f = (float(d.mean()) / k - (m + 1) / (m - 1) * r) / (1 + r)
    df2 = k ** (-3 / m) * (m - 1) * (1 + 1 / r) ** 2 if r > 0 else math.inf
    return _f_test(f, k, df2, r, "li")


def d3(mean_statistic: float, statistic_at_pooled: float, k: int, m: int, *, positive: bool = False) -> PooledTest:
    """Likelihood-ratio test (D3, Meng & Rubin 1992).

    `mean_statistic` is the mean over m completed sets of the likelihood-ratio statistic at each set's own estimates;
    `statistic_at_pooled` the mean of the statistic with both models' parameters held at their averages over the sets.
    `positive` cuts a negative relative increase at zero.
    """
    _check_pooled_likelihood(mean_statistic, statistic_at_pooled, k, m)
    r = (m + 1) / (k * (m - 1)) * (mean_statistic - statistic_at_pooled)
    if positive:
        r = max(0.0, r)
    df2, rule = _df_d1(k, m, r, None)
    return _f_test(statistic_at_pooled / (k * (1 + r)), k, df2, r, rule)


def d4(mean_statistic: float, stacked_statistic: float, k: int, m: int, *, positive: bool = False) -> PooledTest:
    """Likelihood-ratio test from the stacked data (D4, Chan & Meng 2022).

    `stacked_statistic` is the likelihood-ratio statistic of both models fitted to the m sets stacked, divided by m.
    """
    _check_pooled_likelihood(mean_statistic, stacked_statistic, k, m)
    r = (m + 1) / (k * (m - 1)) * (mean_statistic - stacked_statistic)
    if positive:
        r = max(0.0, r)
    df2 = k * (m - 1) * (1 + 1 / r) ** 2 if r != 0 else math.inf
    return _f_test(stacked_statistic / (k * (1 + r)), k, df2, r, "chan-meng")


def _check_pooled_likelihood(mean_statistic: float, pooled_statistic: float, k: int, m: int) -> None:
    if m < 2 or k < 1:
        raise ValueError(f"k = {k} parameters and m = {m} imputations: k >= 1 and m >= 2 are needed")
    if not (math.isfinite(mean_statistic) and math.isfinite(pooled_statistic)):
        raise ValueError("likelihood-ratio statistics must be finite")


def _df_d1(k: int, m: int, r: float, df_complete: float | None) -> tuple[float, str]:
    t = float(k * (m - 1))
    if df_complete is not None and not math.isinf(df_complete):
        if df_complete <= 0 or math.isnan(df_complete):
            raise ValueError("df_complete must be positive (math.inf for a large sample)")
        if t > _REITER_MINIMUM:
            return _reiter(t, r, df_complete), "reiter"
    if r == 0:
        return math.inf, "li"
    if t > _REITER_MINIMUM:
        return 4 + (t - 4) * (1 + (1 - 2 / t) / r) ** 2, "li"
    return t * (1 + 1 / k) * (1 + 1 / r) ** 2 / 2, "li"


def _reiter(t: float, r: float, df_complete: float) -> float:
    """Reiter (2007), eq. 9: a Taylor expansion in the complete-data df."""
    a = r * t / (t - 2)
    v = (df_complete + 1) / (df_complete + 3) * df_complete
    c0 = 1 / (t - 4)
    c1 = v - 2 * (1 + a)
    c2 = v - 4 * (1 + a)
    if c1 == 0 or c2 == 0:
        return 4.0
    z = 1 / c2 + c0 * (
        a**2 * c1 / ((1 + a) ** 2 * c2)
        + 8 * a**2 * c1 / ((1 + a) * c2**2)
        + 4 * a**2 / ((1 + a) * c2)
        + 4 * a**2 / (c2 * c1)
        + 16 * a**2 * c1 / c2**3
        + 8 * a**2 / c2**2
    )
    return 4 + 1 / z


def _f_test(f: float, k: int, df2: float, r: float, rule: str) -> PooledTest:
    f, df2 = float(f), float(df2)
    if f <= 0:
        p = 1.0
    elif math.isinf(df2):
        p = float(special.chdtrc(k, k * f))
    else:
        p = float(special.fdtrc(k, df2, f))
    return PooledTest(f, float(k), df2, p, r, rule)


# --- how many imputations -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enough:
    """Von Hippel's (2020) two-stage answer to how many imputations are enough."""

    m_recommended: Any  # int, or int array (...)
    fmi_upper: Any  # upper end of the interval for the FMI, of the same shape


def imputations_needed(fmi: ArrayLike, m: int, *, cv: float = 0.05, conf_level: float = 0.95) -> Enough:
    """Imputations at which the standard error would replicate with coefficient of variation `cv`.

    von Hippel (2020), Sociol. Methods Res. 49:699: m = 1 + (1/2) (FMI_upper / cv)^2, where FMI_upper ends the
    interval logit(FMI) +- z sqrt(2/m) from the pilot's m imputations. Never below 2.
    """
    f = np.clip(np.asarray(fmi, dtype=np.float64), 1e-9, 1 - 1e-9)
    z = special.ndtri(0.5 + conf_level / 2)
    upper = special.expit(special.logit(f) + z * math.sqrt(2 / m))
    # a hair below the next integer is that integer: no recommendation hangs on the last bit
    need = np.maximum(2, np.ceil(1 + 0.5 * (upper / cv) ** 2 - 1e-9)).astype(np.int64)
    return Enough(need, upper)
