"""Rubin's rules for one parameter, as a result that prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from trialkit._kernels import pooling
from trialkit.door import InputError
from trialkit.results import Result


@dataclass(frozen=True, slots=True)
class PooledEstimate(Result):
    """One pooled parameter; every figure is a float but `m` and `m_recommended`."""

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

    @property
    def title(self) -> str:
        """Heading of the printed table."""
        return f"Pooled over {self.m} imputations (Rubin's rules, Barnard-Rubin df)"

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


def pool(
    estimates: Sequence[float] | ArrayLike,
    variances: Sequence[float] | ArrayLike,
    df_complete: float | ArrayLike,
    *,
    conf_level: float = 0.95,
) -> PooledEstimate:
    """Pool m completed-data estimates of one parameter by Rubin's rules.

    Parameters
    ----------
    estimates, variances : m numbers
        Estimates and *squared* standard errors from m >= 2 completed data sets.
    df_complete : float, or m numbers
        Degrees of freedom had nothing been missing: Kenward-Roger's for a mixed model, ``math.inf`` for a large sample. m numbers
        are averaged over the imputations.
    conf_level : float, default 0.95
        Coverage of the interval.

    Returns
    -------
    PooledEstimate
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
    except (TypeError, ValueError):
        raise InputError("these results cannot be pooled: estimates and variances must be numbers, one an imputation.") from None
    if q.ndim != 1:
        raise InputError(f"estimates must be m numbers, not an array of shape {q.shape}. Pool one parameter at a time.")
    try:
        p = pooling.pool_scalar(q, variances, df_complete, conf_level=conf_level)
    except ValueError as error:
        raise InputError(f"these results cannot be pooled: {error}.") from None
    if not u.any():
        raise InputError("these results cannot be pooled: every variance is 0. Give squared standard errors of fitted models.")
    e = p.mc_error
    return PooledEstimate(
        m=p.m,
        estimate=float(p.estimate),
        std_error=float(p.std_error),
        df=float(p.df),
        df_complete=float(p.df_complete),
        statistic=float(p.statistic),
        p_value=float(p.p_value),
        conf_low=float(p.conf_low),
        conf_high=float(p.conf_high),
        conf_level=conf_level,
        fmi=float(p.fmi),
        riv=float(p.riv),
        lambda_=float(p.lambda_),
        relative_efficiency=float(p.relative_efficiency),
        within=float(p.within),
        between=float(p.between),
        total=float(p.total),
        mc_error_estimate=float(e.estimate),
        mc_error_std_error=float(e.std_error),
        mc_error_df=float(e.df),
        mc_error_fmi=float(e.fmi),
        mc_error_statistic=float(e.statistic),
        mc_error_p_value=float(e.p_value),
        m_recommended=int(pooling.imputations_needed(p.fmi, p.m).m_recommended),
    )
