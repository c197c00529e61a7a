"""Cohen's d with a named denominator, and what a small number of clusters does to it.

On one data set the choice of the standard deviation moves d by a factor of three, so every result here says which SD it was divided by.

=================  ==========================================================================================================
denominator        the standard deviation
=================  ==========================================================================================================
``total``          SD of the outcome over both arms (divisor n - 1): the trial's standardised dependent variable
``pooled``         SD within arms, pooled (divisor n - 2)
``control``        SD in the reference arm (Glass)
``baseline``       SD of the baseline measure over both arms
``model-total``    sqrt(site variance + residual variance) of a mixed model: delta_T of Hedges (2007)
``within``         sqrt(residual variance): delta_W
``between``        sqrt(site variance): delta_B
=================  ==========================================================================================================

Sources: Hedges (2007), J. Educ. Behav. Stat. 32:341-370; Pustejovsky, Hedges & Shadish (2014), J. Educ. Behav. Stat. 39:368-393.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from trialkit.door import InputError, nearest_word, unknown_word
from trialkit.results import Result

Array = NDArray[np.float64]
Denominator = Literal["total", "pooled", "control", "baseline"]
ModelDenominator = Literal["model-total", "within", "between"]

WORDS = {
    "total": "SD over both arms",
    "pooled": "SD pooled within arms",
    "control": "SD in the reference arm",
    "baseline": "baseline SD over both arms",
    "model-total": "square root of site plus residual variance",
    "within": "square root of the residual variance",
    "between": "square root of the site variance",
    "none": "not standardised",
}


@dataclass(frozen=True)
class EffectSize(Result):
    """A standardised effect.

    Attributes
    ----------
    estimate : float
        The difference divided by `sd` (times the small-sample factor for ``g``).
    std_error : float
    df : float
        Degrees of freedom of the interval; ``inf`` for a normal interval.
    conf_low, conf_high, conf_level : float
    denominator : str
        Name of the standard deviation.
    sd : float
    notes : tuple of str
    """

    estimate: float
    std_error: float
    df: float
    conf_low: float
    conf_high: float
    conf_level: float
    denominator: str
    sd: float
    notes: tuple[str, ...] = ()
    title: str = ""

    @property
    def frame(self) -> pd.DataFrame:
        """One row: estimate, std_error, df, conf_low, conf_high, denominator, sd."""
        return pd.DataFrame(
            {k: [getattr(self, k)] for k in ("estimate", "std_error", "df", "conf_low", "conf_high", "denominator", "sd")},
        )


# --- the standard deviations --------------------------------------------------------------------------------


def standard_deviation(y: ArrayLike, arm: ArrayLike, *, denominator: str = "total", baseline: ArrayLike | None = None) -> float:
    """The SD that turns a difference into Cohen's d.

    Parameters
    ----------
    y : array (n,)
        Outcome, none missing.
    arm : array (n,)
        1 in the intervention arm, 0 in the reference arm.
    denominator : {"total", "pooled", "control", "baseline"}
    baseline : array (n,), optional
        The baseline measure, for ``"baseline"``; missing values are left out.

    Returns
    -------
    float

    Raises
    ------
    InputError
        The SD is not defined (fewer than two values) or is zero.

    Examples
    --------
    >>> round(standard_deviation([1, 2, 3, 6], [0, 0, 1, 1], denominator="pooled"), 4)
    1.5811
    """
    values = np.asarray(y, dtype=np.float64)
    treated = np.asarray(arm, dtype=np.float64) > 0.5
    if denominator == "total":
        sd = _sd(values)
    elif denominator == "pooled":
        parts = [values[treated], values[~treated]]
        spread = sum(float(((part - part.mean()) ** 2).sum()) for part in parts if len(part))
        sd = math.sqrt(spread / (len(values) - 2)) if len(values) > 2 else math.nan
    elif denominator == "control":
        sd = _sd(values[~treated])
    elif denominator == "baseline":
        if baseline is None:
            raise InputError("denominator 'baseline' needs the baseline measure: baseline=...")
        before = np.asarray(baseline, dtype=np.float64)
        sd = _sd(before[~np.isnan(before)])
    else:
        raise InputError(_unknown_denominator(denominator))
    if not sd > 0:
        raise InputError(f"the {WORDS[denominator]} is {'zero' if sd == 0 else 'not defined'}, so no effect can be divided by it.")
    return sd


def _sd(values: Array) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _unknown_denominator(word: str) -> str:
    near = nearest_word(word, list(WORDS))
    hint = f" Did you mean {near!r}?" if near else ""
    return f"unknown denominator {word!r}.{hint} Known: {', '.join(WORDS)}."


# --- d and g ------------------------------------------------------------------------------------------------


def cohens_d(
    difference: float, *, std_error: float, df: float, sd: float, denominator: str = "total", conf_level: float = 0.95
) -> EffectSize:
    """A model's difference divided by a standard deviation that is taken as known.

    The interval is the model's own, divided by the same SD: (b -+ t_df SE) / SD. That is what fitting the standardised outcome gives.

    Parameters
    ----------
    difference, std_error, df : float
        The model's arm coefficient, its standard error and degrees of freedom.
    sd : float
        From `standard_deviation`.
    denominator : str
        Its name, for the output.
    conf_level : float

    Examples
    --------
    >>> d = cohens_d(0.4, std_error=0.1, df=60, sd=2.0)
    >>> d.estimate, round(d.conf_low, 3)
    (0.2, 0.1)
    """
    half = float(special.stdtrit(df, 0.5 + conf_level / 2)) * std_error
    return EffectSize(
        estimate=difference / sd,
        std_error=std_error / sd,
        df=df,
        conf_low=(difference - half) / sd,
        conf_high=(difference + half) / sd,
        conf_level=conf_level,
        denominator=denominator,
        sd=sd,
        notes=(f"Divided by the {WORDS.get(denominator, denominator)}, taken as known.",),
        title="Cohen's d",
    )


def small_sample_factor(df: float, *, exact: bool = False) -> float:
    """Hedges' J, which makes d nearly unbiased: 1 - 3 / (4 df - 1), or exactly by gamma functions.

    Examples
    --------
    >>> round(small_sample_factor(10), 4), round(small_sample_factor(10, exact=True), 4)
    (0.9231, 0.9227)
    """
    if exact:
        return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) * math.sqrt(2 / df)
    return 1 - 3 / (4 * df - 1)


def two_sample_d(y: ArrayLike, arm: ArrayLike, *, correct: bool = False, conf_level: float = 0.95) -> EffectSize:
    """Cohen's d (or Hedges' g) of two independent samples, with the interval from the noncentral t distribution.

    It knows nothing of clusters: for people in sites its interval is too narrow. It is right for summaries of sites.

    Parameters
    ----------
    y, arm : array (n,)
        Values, and 1/0 for intervention/reference.
    correct : bool
        Multiply by the exact J (Hedges' g).
    conf_level : float

    Examples
    --------
    >>> two_sample_d([1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1]).estimate
    3.0
    """
    values = np.asarray(y, dtype=np.float64)
    treated = np.asarray(arm, dtype=np.float64) > 0.5
    n1, n0 = int(treated.sum()), int((~treated).sum())
    if min(n1, n0) < 1 or n1 + n0 < 3:
        raise InputError(f"{n1} and {n0} values in the two arms are too few for a standardised difference.")
    sd = standard_deviation(values, treated, denominator="pooled")
    df = float(n1 + n0 - 2)
    scale = math.sqrt(1 / n1 + 1 / n0)
    d = float(values[treated].mean() - values[~treated].mean()) / sd
    low, high = (scale * limit for limit in _noncentral_t_limits(d / scale, df, conf_level))
    j = small_sample_factor(df, exact=True) if correct else 1.0
    std_error = math.sqrt(scale**2 + d**2 / (2 * df))
    return EffectSize(
        j * d, j * std_error, df, j * low, j * high, conf_level, "pooled", sd,
        ("Independent observations assumed.",), "Hedges' g" if correct else "Cohen's d",
    )  # fmt: skip


def _noncentral_t_limits(t: float, df: float, conf_level: float) -> tuple[float, float]:
    """The noncentralities at which `t` is the upper and the lower tail's limit."""
    tail = (1 - conf_level) / 2

    def solve(probability: float) -> float:
        def gap(nc: float) -> float:
            return float(special.nctdtr(df, nc, t)) - probability

        width = 2.0
        while gap(t - width) < 0 or gap(t + width) > 0:
            width *= 2
        return float(optimize.brentq(gap, t - width, t + width, xtol=1e-12, rtol=1e-14))

    return solve(1 - tail), solve(tail)


# --- Hedges 2007 --------------------------------------------------------------------------------------------


def hedges_2007(
    difference: float,
    *,
    site_variance: float,
    residual_variance: float,
    sizes: tuple[Sequence[int], Sequence[int]],
    denominator: ModelDenominator = "model-total",
    conf_level: float = 0.95,
) -> EffectSize:
    """Standardised effect of a two-arm cluster trial, with sampling variance for unequal cluster sizes (Hedges 2007).

    Parameters
    ----------
    difference : float
        Unadjusted difference between the arms.
    site_variance, residual_variance : float
        Of the unadjusted model.
    sizes : two sequences of int
        Cluster sizes in the reference and in the intervention arm.
    denominator : {"model-total", "within", "between"}
        delta_T, delta_W or delta_B.
    conf_level : float
        The interval is normal, as in the paper.

    Notes
    -----
    delta_W = diff / s_W,                    var = N/(N1 N0) (1 + (n - 1) rho)/(1 - rho) + d^2 / (2 (N - M)).
    delta_T = diff / s_T sqrt(1 - [(N - U1 M1 - U0 M0) + U1 + U0 - 2] rho / (N - 2)),
    var = N/(N1 N0) (1 + (n - 1) rho) + d^2 [(N-2)(1-rho)^2 + A rho^2 + 2 B rho (1-rho)] / {2 (N-2) [(N-2) - rho (N-2-B)]}.
    delta_B = diff / s_B,                    var by the delta method on the two mean squares of the one-way layout.
    n = N0 sum n1^2/(N1 N) + N1 sum n0^2/(N0 N);  U = (N^2 - sum n^2)/(N (M - 1)) an arm;  B = U1 (M1 - 1) + U0 (M0 - 1);
    A = sum over arms of {N^2 sum n^2 + (sum n^2)^2 - 2 N sum n^3} / N^2.

    Examples
    --------
    >>> e = hedges_2007(0.3, site_variance=0.1, residual_variance=0.9, sizes=([10] * 10, [10] * 10))
    >>> round(e.estimate, 4), round(e.std_error, 4)
    (0.2986, 0.1956)
    """
    n0, n1 = (np.asarray(s, dtype=np.float64) for s in sizes)
    if min(len(n0), len(n1)) < 2:
        raise InputError(
            f"{len(n0)} and {len(n1)} clusters in the two arms: at least 2 an arm are needed for the variance between clusters."
        )
    if residual_variance < 0 or site_variance < 0 or site_variance + residual_variance <= 0:
        raise InputError("variances must not be negative, and not both zero.")
    N0, N1 = n0.sum(), n1.sum()
    N, M = N0 + N1, len(n0) + len(n1)
    rho = site_variance / (site_variance + residual_variance)
    size = N0 * (n1**2).sum() / (N1 * N) + N1 * (n0**2).sum() / (N0 * N)
    design = N / (N0 * N1) * (1 + (size - 1) * rho)
    if denominator == "within":
        sd = math.sqrt(residual_variance)
        d = difference / sd
        variance = design / (1 - rho) + d**2 / (2 * (N - M))
    elif denominator == "model-total":
        sd = math.sqrt(site_variance + residual_variance)
        U0, U1 = ((s.sum() ** 2 - (s**2).sum()) / (s.sum() * (len(s) - 1)) for s in (n0, n1))
        A = sum(((s**2).sum() * s.sum() ** 2 + (s**2).sum() ** 2 - 2 * s.sum() * (s**3).sum()) / s.sum() ** 2 for s in (n0, n1))
        B = U0 * (len(n0) - 1) + U1 * (len(n1) - 1)
        d = difference / sd * math.sqrt(1 - ((N - U1 * len(n1) - U0 * len(n0)) + U1 + U0 - 2) * rho / (N - 2))
        spread = (N - 2) * (1 - rho) ** 2 + A * rho**2 + 2 * B * rho * (1 - rho)
        variance = design + d**2 * spread / (2 * (N - 2) * ((N - 2) - rho * (N - 2 - B)))
    elif denominator == "between":
        if site_variance == 0:
            raise InputError("the site variance is zero, so no effect can be divided by its square root. Use 'model-total' or 'within'.")
        sd = math.sqrt(site_variance)
        d = difference / sd
        ratio = (1 + (size - 1) * rho) / (size * rho)
        variance = design / rho + d**2 / 2 * (ratio**2 / (M - 2) + ((1 - rho) / (size * rho)) ** 2 / (N - M))
    else:
        raise InputError(_unknown_denominator(denominator))
    std_error = math.sqrt(variance)
    half = float(special.ndtri(0.5 + conf_level / 2)) * std_error
    return EffectSize(
        float(d), std_error, math.inf, float(d) - half, float(d) + half, conf_level, denominator, sd,
        (f"Hedges (2007), unequal cluster sizes; divided by the {WORDS[denominator]}.",), "Standardised effect",
    )  # fmt: skip


# --- from a fitted model ------------------------------------------------------------------------------------


def hedges_g(
    difference: float,
    *,
    std_error: float,
    variances: ArrayLike,
    covariance: ArrayLike,
    denominator: ModelDenominator = "model-total",
    conf_level: float = 0.95,
    interval: str = "t",
) -> EffectSize:
    """Small-sample g of a mixed model, with the uncertainty of its variances (Pustejovsky, Hedges & Shadish 2014).

    Parameters
    ----------
    difference, std_error : float
        Arm coefficient and its model-based (unadjusted) standard error.
    variances : array (q + 1,)
        Variance of each random intercept, then the residual variance.
    covariance : array (q + 1, q + 1)
        Inverse of their expected REML information.
    denominator : {"model-total", "within", "between"}
    conf_level : float
    interval : {"t", "noncentral"}
        ``"t"``: g -+ t_nu SE. ``"noncentral"``: exact for a normal b over the root of an independent chi-square with nu df, as two
        independent samples have it: kappa times the noncentralities at which b / (kappa sqrt(r'theta)) has its tails. Not shrunk by J.

    Notes
    -----
    With r picking the variances of the denominator: nu = 2 (r'theta)^2 / (r' C r), g = J(nu) b / sqrt(r'theta),
    Var g = J^2 nu / (nu - 2) (kappa^2 + g^2) - g^2, kappa = SE(b) / sqrt(r'theta).

    Examples
    --------
    >>> hedges_g(0.4, std_error=0.1, variances=[0.1, 0.9], covariance=[[0.002, 0], [0, 0.002]]).denominator
    'model-total'
    """
    theta = np.asarray(variances, dtype=np.float64)
    cov = np.asarray(covariance, dtype=np.float64)
    pick: dict[str, Array] = {
        "model-total": np.ones(len(theta)),
        "within": np.append(np.zeros(len(theta) - 1), 1.0),
        "between": np.append(np.ones(len(theta) - 1), 0.0),
    }
    if denominator not in pick:
        raise InputError(_unknown_denominator(denominator))
    r = pick[denominator]
    total = float(r @ theta)
    if total <= 0:
        raise InputError(f"the {WORDS[denominator]} is zero, so no effect can be divided by it. Use 'model-total'.")
    nu = 2 * total**2 / float(r @ cov @ r)
    if nu <= 2:
        raise InputError(
            f"the variance under the {WORDS[denominator]} has only {nu:.2g} degrees of freedom, so the standard error of g is not defined. "
            "Use denominator='model-total' or 'total'."
        )
    sd = math.sqrt(total)
    j = small_sample_factor(nu)
    g = j * difference / sd
    kappa = std_error / sd
    # the variance of J times a noncentral t (nu, delta / kappa), with g in the place of delta
    se = math.sqrt(j**2 * nu / (nu - 2) * (kappa**2 + g**2) - g**2)
    if interval == "t":
        half = float(special.stdtrit(nu, 0.5 + conf_level / 2)) * se
        low, high = g - half, g + half
    elif interval == "noncentral":
        low, high = (kappa * limit for limit in _noncentral_t_limits(difference / std_error, nu, conf_level))
    else:
        raise InputError(unknown_word(str(interval), ("t", "noncentral"), what="interval"))
    return EffectSize(
        g, se, nu, low, high, conf_level, denominator, sd,
        (f"Hedges' g: divided by the {WORDS[denominator]}, whose uncertainty is counted.",), "Hedges' g",
    )  # fmt: skip


def effect_size(
    fit: Any,
    term: str,
    *,
    denominator: str = "total",
    baseline: ArrayLike | None = None,
    variances: Any = None,
    small_sample: bool = False,
    interval: str = "t",
) -> EffectSize:
    """Cohen's d (or g) of one 0/1 coefficient of a fitted mixed model.

    Parameters
    ----------
    fit : MixedModel
        From `fit_mixed`.
    term : str
        Name of the coefficient, for example ``"armintervention"``.
    denominator : str
        One of the table at the head of this module.
    baseline : array (n,), optional
        The baseline measure in the analysed rows, for ``"baseline"``.
    variances : MixedModel, optional
        Another fit whose variances make the denominator: those of an unadjusted model do not shrink with covariates.
    small_sample : bool
        Hedges' g with the variances' uncertainty; only for the model-based denominators.
    interval : {"t", "noncentral"}
        Of g: see `hedges_g`.

    Raises
    ------
    InputError
        The term or the denominator is unknown, or the term is not 0/1 where arms are needed.
    """
    row = fit.row(term)
    if denominator in ("total", "pooled", "control", "baseline"):
        arm = fit.column(term)
        if not np.isin(arm, (0.0, 1.0)).all():
            raise InputError(f"the column {term!r} is not 0/1, so it does not make two arms. Name the arm's coefficient.")
        sd = standard_deviation(fit.response, arm, denominator=denominator, baseline=baseline)
        return cohens_d(
            row["estimate"], std_error=row["std_error"], df=row["df"], sd=sd, denominator=denominator, conf_level=fit.conf_level
        )
    source = fit if variances is None else variances
    if small_sample:
        return hedges_g(
            row["estimate"],
            std_error=fit.model_std_error(term),
            variances=source.variances,
            covariance=source.variances_covariance,
            denominator=denominator,  # type: ignore[arg-type]
            conf_level=fit.conf_level,
            interval=interval,
        )
    site, residual = float(np.sum(source.variances[:-1])), float(source.variances[-1])
    share = {"model-total": site + residual, "within": residual, "between": site}
    if denominator not in share:
        raise InputError(_unknown_denominator(denominator))
    if share[denominator] <= 0:
        raise InputError(f"the {WORDS[denominator]} is zero, so no effect can be divided by it. Use 'model-total'.")
    return cohens_d(
        row["estimate"], std_error=row["std_error"], df=row["df"], sd=math.sqrt(share[denominator]), denominator=denominator,
        conf_level=fit.conf_level,
    )  # fmt: skip
