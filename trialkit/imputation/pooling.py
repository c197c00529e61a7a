"""Rubin's rules for one parameter or several, on the parameter's own scale or another, as a result that prints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from trialkit._kernels import pooling
from trialkit.door import InputError, unknown_word
from trialkit.results import Result

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PooledEstimate(Result):
    """One pooled parameter; every figure is a float but `m` and `m_recommended`.

    After a transformation `estimate`, `std_error` (delta method), the limits and `mc_error_estimate` are back on the parameter's own
    scale; all else is of the transformed one.
    """

    m: int
    estimate: float
    std_error: float
    df: float
    df_complete: float
    statistic: float
    p_value: float
    conf_low: float
    conf_high: float
    conf_level: float
    fmi: float
    riv: float
    lambda_: float
    relative_efficiency: float
    within: float
    between: float
    total: float
    mc_error_estimate: float
    mc_error_std_error: float
    mc_error_df: float
    mc_error_fmi: float
    mc_error_statistic: float
    mc_error_p_value: float
    m_recommended: int
    transform: str | None = None

    @property
    def title(self) -> str:
        """Heading of the printed table."""
        where = f", on the {self.transform} scale" if self.transform else ""
        return f"Pooled over {self.m} imputations (Rubin's rules, Barnard-Rubin df{where})"

    @property
    def notes(self) -> tuple[str, ...]:
        """How the figures were made."""
        return (
            f"Complete-data df {self.df_complete:.6g}; {100 * self.conf_level:g}% confidence interval.",
            f"Monte Carlo error of the estimate {self.mc_error_estimate:.2g}, of the standard error {self.mc_error_std_error:.2g}, "
            f"of p {self.mc_error_p_value:.2g}.",
            f"Imputations for standard errors that repeat within 5% (von Hippel 2020): {self.m_recommended}.",
        )

    @property
    def frame(self) -> pd.DataFrame:
        """One row: the pooled figures and the Monte Carlo error of the estimate."""
        names = ["m", "estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "fmi", "riv", "lambda_"]
        names += ["relative_efficiency", "mc_error_estimate"]
        return pd.DataFrame({name: [getattr(self, name)] for name in names})


@dataclass(frozen=True, slots=True, eq=False)
class PooledEstimates(Result):
    """Several parameters pooled one by one; arrays (k,) in the order given.

    Attributes
    ----------
    names : tuple of str
    rows : tuple of PooledEstimate
    """

    names: tuple[str, ...]
    rows: tuple[PooledEstimate, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: int | str) -> PooledEstimate:
        """One parameter, by place or by name."""
        if isinstance(which, str):
            if which not in self.names:
                raise InputError(unknown_word(which, self.names, what="parameter"))
            which = self.names.index(which)
        return self.rows[which]

    def _array(self, figure: str) -> Array:
        return np.array([getattr(row, figure) for row in self.rows])

    @property
    def estimate(self) -> Array:
        """(k,)"""
        return self._array("estimate")

    @property
    def std_error(self) -> Array:
        """(k,)"""
        return self._array("std_error")

    @property
    def df(self) -> Array:
        """(k,)"""
        return self._array("df")

    @property
    def p_value(self) -> Array:
        """(k,)"""
        return self._array("p_value")

    @property
    def conf_low(self) -> Array:
        """(k,)"""
        return self._array("conf_low")

    @property
    def conf_high(self) -> Array:
        """(k,)"""
        return self._array("conf_high")

    @property
    def fmi(self) -> Array:
        """(k,)"""
        return self._array("fmi")

    @property
    def riv(self) -> Array:
        """(k,)"""
        return self._array("riv")

    @property
    def lambda_(self) -> Array:
        """(k,)"""
        return self._array("lambda_")

    @property
    def title(self) -> str:
        """Heading of the printed table."""
        return self.rows[0].title

    @property
    def notes(self) -> tuple[str, ...]:
        """The largest number of imputations recommended."""
        return (f"Imputations for standard errors that repeat within 5% (von Hippel 2020): {max(r.m_recommended for r in self.rows)}.",)

    @property
    def frame(self) -> pd.DataFrame:
        """One row a parameter."""
        frame = pd.concat([row.frame for row in self.rows], ignore_index=True)
        frame.insert(0, "term", list(self.names))
        return frame


# function, its derivative, its inverse, and where it is defined
_TRANSFORMS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array], Callable[[Array], Array], tuple[float, float]]] = {
    "log": (np.log, lambda x: 1 / x, np.exp, (0.0, np.inf)),
    "logit": (special.logit, lambda x: 1 / (x * (1 - x)), special.expit, (0.0, 1.0)),
    "fisher-z": (np.arctanh, lambda x: 1 / (1 - x**2), np.tanh, (-1.0, 1.0)),
}


def pool(
    estimates: Sequence[float] | ArrayLike,
    variances: Sequence[float] | ArrayLike,
    df_complete: float | ArrayLike,
    *,
    conf_level: float = 0.95,
    transform: str | None = None,
    names: Sequence[str] | None = None,
) -> PooledEstimate | PooledEstimates:
    """Pool m completed-data estimates of one parameter, or of several, by Rubin's rules.

    Parameters
    ----------
    estimates, variances : m numbers, or (m, k)
        Estimates and *squared* standard errors from m >= 2 completed data sets; of k parameters a row a set. Variances of several may
        also be their covariances (m, k, k), whose diagonals are taken.
    df_complete : float, or m numbers; of several also (k,) or (m, k)
        Degrees of freedom had nothing been missing: Kenward-Roger's for a mixed model, ``math.inf`` for a large sample. m numbers
        are averaged over the imputations.
    conf_level : float, default 0.95
        Coverage of the interval.
    transform : {"log", "logit", "fisher-z"}, optional
        Pool on this scale, where the estimate is nearer to normal, and transform back: variances ("log"), ICCs and R-squared ("logit", or
        "fisher-z" as of a correlation). `variances` stay those of the estimates themselves (delta method). The statistic and p are of the
        transformed parameter's being 0: a variance of 1, an ICC of .5, a correlation of 0.
    names : sequence of str, optional
        Of several parameters.

    Returns
    -------
    PooledEstimate, or PooledEstimates for several
        ``.estimate .std_error .df .statistic .p_value .conf_low .conf_high .fmi .riv .lambda_ .relative_efficiency``, the Monte Carlo
        errors (``.mc_error_estimate`` is sqrt(B/m), the others a jackknife over imputations, NaN when m = 2), and ``.m_recommended``.

    Raises
    ------
    InputError
        Fewer than two imputations, lengths that differ, values that are not finite, negative variances, df that are not positive.

    Notes
    -----
    T = U + (1 + 1/m) B; lambda = (1 + 1/m) B / T; df by Barnard & Rubin (1999); FMI = (r + 2/(df + 3)) / (r + 1) with that df.

    Examples
    --------
    >>> pooled = pool([0.41, 0.52, 0.38, 0.47, 0.44], [0.031, 0.029, 0.034, 0.030, 0.032], 83)
    >>> round(pooled.estimate, 3), round(pooled.std_error, 4), round(pooled.df, 2)
    (0.444, 0.1863, 61.39)
    """
    try:
        q = np.asarray(estimates, dtype=np.float64)
        u = np.asarray(variances, dtype=np.float64)
        nu = np.asarray(df_complete, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("these results cannot be pooled: estimates, variances and df must be numbers, one an imputation.") from None
    if transform is not None and transform not in _TRANSFORMS:
        raise InputError(unknown_word(str(transform), tuple(_TRANSFORMS), what="transform"))
    if q.ndim == 1:
        return _one(q, u, nu, conf_level, transform)
    if q.ndim != 2:
        raise InputError(f"estimates must be m numbers, or (m, k) for k parameters, not an array of shape {q.shape}.")
    m, k = q.shape
    if u.shape == (m, k, k):
        u = np.diagonal(u, axis1=1, axis2=2)
    if u.shape != (m, k):
        raise InputError(f"variances must be of shape {(m, k)} or {(m, k, k)} as the estimates are {(m, k)}, not {u.shape}.")
    if nu.shape not in ((), (m,), (k,), (m, k)) or (nu.shape == (m,) and m == k):
        raise InputError(
            f"df_complete must be one number, {k} (one a parameter), {m} (one a set) or {(m, k)}; its shape {nu.shape} does not say."
        )
    each = np.broadcast_to(nu[:, None] if nu.shape == (m,) else nu, (m, k))
    called = tuple(str(n) for n in names) if names is not None else tuple(f"b{j + 1}" for j in range(k))
    if len(called) != k or not k:
        raise InputError(f"names: {len(called)} names for {k} parameters. Give one each.")
    return PooledEstimates(called, tuple(_one(q[:, j], u[:, j], each[:, j], conf_level, transform) for j in range(k)))


def _one(q: Array, u: Array, nu: Array, conf_level: float, transform: str | None) -> PooledEstimate:
    if transform is not None and q.shape == u.shape:
        forward, slope, back, (low, high) = _TRANSFORMS[transform]
        if not ((q > low) & (q < high)).all():
            raise InputError(
                f"these results cannot be pooled by {transform!r}: estimates must lie between {low:g} and {high:g}, limits "
                f"excluded, and one is {q[~((q > low) & (q < high))][0]:g}. Pool on the parameter's own scale."
            )
        q, u = forward(q), u * slope(q) ** 2
    try:
        p = pooling.pool_scalar(q, u, nu, conf_level=conf_level)
    except ValueError as error:
        raise InputError(f"these results cannot be pooled: {error}.") from None
    if not u.any():
        raise InputError("these results cannot be pooled: every variance is 0. Give squared standard errors of fitted models.")
    e = p.mc_error
    estimate, std_error, limits, mc_error = (
        float(p.estimate),
        float(p.std_error),
        (float(p.conf_low), float(p.conf_high)),
        float(e.estimate),
    )
    if transform is not None:
        estimate = float(back(p.estimate))
        rate = float(slope(np.asarray(estimate)))
        std_error, mc_error = std_error / rate, mc_error / rate
        limits = (float(back(p.conf_low)), float(back(p.conf_high)))
    return PooledEstimate(
        m=p.m,
        estimate=estimate,
        std_error=std_error,
        df=float(p.df),
        df_complete=float(p.df_complete),
        statistic=float(p.statistic),
        p_value=float(p.p_value),
        conf_low=limits[0],
        conf_high=limits[1],
        conf_level=conf_level,
        fmi=float(p.fmi),
        riv=float(p.riv),
        lambda_=float(p.lambda_),
        relative_efficiency=float(p.relative_efficiency),
        within=float(p.within),
        between=float(p.between),
        total=float(p.total),
        mc_error_estimate=mc_error,
        mc_error_std_error=float(e.std_error),
        mc_error_df=float(e.df),
        mc_error_fmi=float(e.fmi),
        mc_error_statistic=float(e.statistic),
        mc_error_p_value=float(e.p_value),
        m_recommended=int(pooling.imputations_needed(p.fmi, p.m).m_recommended),
        transform=transform,
    )


@dataclass(frozen=True, slots=True)
class PooledTest(Result):
    """A pooled test of k parameters together: `statistic` is referred to F(df1, df2); `df_rule` says whose formula gave df2."""

    method: str
    statistic: float
    df1: float
    df2: float
    p_value: float
    riv: float
    df_rule: str

    @property
    def title(self) -> str:
        """Heading of the printed table."""
        return f"Pooled test, {self.method}"

    @property
    def frame(self) -> pd.DataFrame:
        """One row."""
        return pd.DataFrame({name: [getattr(self, name)] for name in ("method", "statistic", "df1", "df2", "p_value", "riv", "df_rule")})


def pool_wald(estimates: ArrayLike, covariances: ArrayLike, df_complete: float = math.inf) -> PooledTest:
    """D1: the Wald test that k parameters are zero together.

    Parameters
    ----------
    estimates : (m, k)
    covariances : (m, k, k)
    df_complete : float, default inf
        Complete-data denominator df: gives Reiter's (2007) small-sample df, unless k(m - 1) <= 4, where that is not defined and Li,
        Raghunathan and Rubin's (1991) is used, as it is with inf; `df_rule` says which.

    Returns
    -------
    PooledTest

    Raises
    ------
    InputError
        Shapes that do not fit, fewer than two sets, values that are not finite, a covariance that is not positive definite.

    Examples
    --------
    >>> test = pool_wald([[0.4, 0.1], [0.5, 0.2], [0.3, 0.1], [0.4, 0.3]], [[[0.03, 0.01], [0.01, 0.04]]] * 4, 80)
    >>> test.df1, test.df_rule, round(test.p_value, 3)
    (2.0, 'reiter', 0.148)
    """
    return _tested("D1", lambda: pooling.d1(estimates, covariances, df_complete))


def pool_chi_square(statistics: ArrayLike, df: int) -> PooledTest:
    """D2: from the chi-square statistics of m completed sets alone (Li, Meng, Raghunathan & Rubin 1991).

    Parameters
    ----------
    statistics : (m,)
    df : int
        Of each statistic.

    Raises
    ------
    InputError
        Fewer than two statistics, or one that is negative or not finite.
    """
    return _tested("D2", lambda: pooling.d2(statistics, df))


def pool_likelihood_ratio(mean_statistic: float, pooled_statistic: float, df: int, m: int, *, method: str = "D3") -> PooledTest:
    """D3 or D4: the likelihood-ratio test over m completed sets.

    Parameters
    ----------
    mean_statistic : float
        Mean over the sets of the likelihood-ratio statistic at each set's own estimates.
    pooled_statistic : float
        D3 (Meng & Rubin 1992): the mean of the statistic with both models' parameters held at their averages over the sets. D4 (Chan & Meng
        2022): the statistic of both models fitted to the m sets stacked, divided by m.
    df : int
        Parameters tested.
    m : int
    method : {"D3", "D4"}

    Raises
    ------
    InputError
        An unknown method, or values that are not finite.
    """
    if method not in ("D3", "D4"):
        raise InputError(unknown_word(str(method), ("D3", "D4"), what="method"))
    test = pooling.d3 if method == "D3" else pooling.d4
    return _tested(method, lambda: test(mean_statistic, pooled_statistic, df, m))


def _tested(method: str, run: Callable[[], pooling.PooledTest]) -> PooledTest:
    try:
        t = run()
    except (TypeError, ValueError) as error:
        raise InputError(f"these results cannot be pooled: {error}.") from None
    return PooledTest(method, t.statistic, t.df1, t.df2, t.p_value, t.riv, t.df_rule)
