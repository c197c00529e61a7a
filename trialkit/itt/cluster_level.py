"""Analyses of one number a site: the two-stage t test, weighted or not, adjusted or not, and the analysis of pairs.

Stage 1 turns each site into a mean - of the outcome, or of what is left of it after a regression on the covariates that ignores the arm -
and stage 2 compares the arms' site values (Hayes & Moulton, Cluster Randomised Trials, ch. 10-11). With pairs, the differences inside pairs
are the data. The unit of analysis is the unit of randomisation, so few assumptions are made and the degrees of freedom are those of sites.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from trialkit._kernels import reml, signflip
from trialkit.door import InputError, few, printable, unknown_word
from trialkit.itt.denominator_df import level_of_columns
from trialkit.results import Result

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Weights = Literal["equal", "size"]


@dataclass(frozen=True, slots=True)
class SiteValues:
    """One value a site.

    Attributes
    ----------
    sites : tuple of str
    arm : array (J,)
        1 in the intervention arm, 0 in the reference arm.
    n : array (J,)
        People behind each value.
    value : array (J,)
        Mean outcome, or mean residual when covariates were taken out.
    arm_left : array (J,)
        What stage 1 leaves of the arm itself; equal to `arm` up to a constant without covariates. The randomisation interval needs it.
    lost_df : int
        Site-level covariates taken out in stage 1, each of which costs a degree of freedom.
    """

    sites: tuple[str, ...]
    arm: Array
    n: Array
    value: Array
    arm_left: Array
    lost_df: int


@dataclass(frozen=True)
class SiteComparison(Result):
    """A cluster-level comparison of two arms.

    Attributes
    ----------
    analysis : str
        Which one, in words.
    estimate, std_error, df, statistic, p_value, conf_low, conf_high, conf_level : float
        Intervention minus reference, two-sided t.
    clusters : int
    exact_p, exact_low, exact_high : float
        For pairs: the sign-flip test over all 2^pairs assignments and its interval by inversion (missing otherwise).
    notes : tuple of str
    """

    analysis: str
    estimate: float
    std_error: float
    df: float
    statistic: float
    p_value: float
    conf_low: float
    conf_high: float
    conf_level: float
    clusters: int
    exact_p: float = math.nan
    exact_low: float = math.nan
    exact_high: float = math.nan
    notes: tuple[str, ...] = ()
    title: str = "Cluster-level analysis"

    @property
    def frame(self) -> pd.DataFrame:
        """One row with every number."""
        names = (
            *("analysis", "estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "clusters"),
            *(("exact_p", "exact_low", "exact_high") if not math.isnan(self.exact_p) else ()),
        )
        return pd.DataFrame({name: [getattr(self, name)] for name in names})


def site_values(y: ArrayLike, site: ArrayLike, arm: ArrayLike, *, covariates: ArrayLike | None = None) -> SiteValues:
    """Stage 1: people to sites.

    Parameters
    ----------
    y : array (n,)
        Outcome, none missing.
    site : array (n,)
        Site labels.
    arm : array (n,)
        1/0, constant within sites.
    covariates : array (n, q), optional
        Taken out of the outcome by least squares (without the arm) before the means; no constant column.

    Raises
    ------
    InputError
        A value is missing, or a site is in two arms.

    Examples
    --------
    >>> s = site_values([1, 3, 5, 7], ["a", "a", "b", "b"], [0, 0, 1, 1])
    >>> s.sites, s.value.tolist(), s.n.tolist()
    (('a', 'b'), [2.0, 6.0], [2.0, 2.0])
    """
    values = np.asarray(y, dtype=np.float64)
    treated = np.asarray(arm, dtype=np.float64)
    codes, labels = pd.factorize(np.asarray(site), sort=True)
    if np.isnan(values).any() or np.isnan(treated).any() or (codes < 0).any():
        raise InputError("a site-level analysis needs outcome, site and arm in every row. Drop or impute the rows that miss one.")
    if not np.isin(treated, (0.0, 1.0)).all():
        raise InputError("the arm must be 1 (intervention) or 0 (reference).")
    n = np.bincount(codes).astype(np.float64)
    share = np.bincount(codes, weights=treated) / n
    mixed = np.flatnonzero((share > 0) & (share < 1))
    if len(mixed):
        raise InputError(f"site {printable(labels[mixed[0]])!r} has people in both arms; a site is randomised whole.")
    lost = 0
    left = treated
    if covariates is not None:
        q = np.asarray(covariates, dtype=np.float64).reshape(len(values), -1)
        if np.isnan(q).any():
            raise InputError("a covariate is missing in some rows. Drop or impute them before a site-level analysis.")
        x = np.column_stack([np.ones(len(values)), q])
        x = x[:, reml.independent_columns(x)]
        lost = int((level_of_columns(x, [codes.astype(np.intp)])[1:] == 0).sum())
        # centred first, so that large covariates lose no digits
        x[:, 1:] -= x[:, 1:].mean(axis=0)
        basis, _ = np.linalg.qr(x)
        values = values - basis @ (basis.T @ values)
        left = treated - basis @ (basis.T @ treated)
    return SiteValues(
        sites=tuple(str(label) for label in labels),
        arm=share,
        n=n,
        value=np.bincount(codes, weights=values) / n,
        arm_left=np.bincount(codes, weights=left) / n,
        lost_df=lost,
    )


def two_stage(values: SiteValues, *, weights: Weights = "equal", conf_level: float = 0.95) -> SiteComparison:
    """Stage 2: compare the arms' site values by a t test with pooled variance and (sites - 2 - site-level covariates) df.

    Parameters
    ----------
    values : SiteValues
    weights : {"equal", "size"}
        ``"equal"`` estimates the cluster-average effect, ``"size"`` (people a site) the participant-average effect.
    conf_level : float

    Raises
    ------
    InputError
        Fewer than two sites in an arm, or no variation between sites.

    Examples
    --------
    >>> s = site_values([1.0, 2, 3, 5, 6, 7], list("abcdef"), [0, 0, 0, 1, 1, 1])
    >>> r = two_stage(s)
    >>> round(r.estimate, 3), r.df, round(r.p_value, 4)
    (4.0, 4.0, 0.008)
    """
    w = _weights(values.n, weights)
    treated = values.arm > 0.5
    counts = int((~treated).sum()), int(treated.sum())
    if min(counts) < 2:
        raise InputError(f"{counts[0]} and {counts[1]} sites in the two arms: at least 2 an arm are needed to see how sites vary.")
    df = float(len(values.value) - 2 - values.lost_df)
    if df < 1:
        raise InputError(f"{len(values.value)} sites leave no degrees of freedom after {values.lost_df} site-level covariates.")
    means = [float(np.average(values.value[part], weights=w[part])) for part in (~treated, treated)]
    residual = values.value - np.where(treated, means[1], means[0])
    variance = float((w * residual**2).sum()) / df
    if variance <= 1e-24 * max(1.0, float((values.value**2).max())):
        raise InputError("the sites of an arm all have the same value, so there is no variation to judge a difference by.")
    std_error = math.sqrt(variance * sum(1 / w[part].sum() for part in (~treated, treated)))
    words = {"equal": "sites count equally", "size": "sites count by their people"}[weights]
    return _t_result(f"two-stage, {words}", means[1] - means[0], std_error, df, conf_level, len(values.value))


def paired(
    values: SiteValues, pair: Sequence[str], *, weights: Weights = "equal", exact: bool = True, conf_level: float = 0.95
) -> SiteComparison:
    """Compare the arms inside pairs: t test on the pair differences, and the exact sign-flip test beside it.

    Parameters
    ----------
    values : SiteValues
    pair : sequence of str, (J,)
        Pair of each site, in the order of ``values.sites``; a site whose partner is absent is left out and said.
    weights : {"equal", "size"}
        ``"size"`` weights a pair by its people (Imai, King & Nall 2009, Statist. Sci. 24:29, with their variance).
    exact : bool
        Whether to add the sign-flip test over all assignments and its interval (up to 48 pairs; with 30 it takes about 0.1 s).
    conf_level : float

    Raises
    ------
    InputError
        Fewer than two whole pairs, or a pair that is not one site an arm.

    Examples
    --------
    >>> s = site_values([1.0, 2, 3, 4, 6, 9], list("abcdef"), [0, 1, 0, 1, 0, 1])
    >>> r = paired(s, ["p", "p", "q", "q", "r", "r"])
    >>> round(r.estimate, 3), r.df, r.exact_p
    (1.667, 2.0, 0.25)
    """
    labels = [str(p) for p in pair]
    if len(labels) != len(values.sites):
        raise InputError(f"{len(labels)} pair labels for {len(values.sites)} sites; give one a site.")
    members: dict[str, list[int]] = {}
    for k, label in enumerate(labels):
        members.setdefault(label, []).append(k)
    alone = [values.sites[m[0]] for m in members.values() if len(m) == 1]
    whole = [m for m in members.values() if len(m) > 1]
    for m in whole:
        if len(m) != 2 or values.arm[m[0]] == values.arm[m[1]]:
            raise InputError(f"pair {printable(labels[m[0]])!r} is not one site an arm (sites {few([values.sites[k] for k in m])}).")
    if len(whole) < 2:
        raise InputError(f"{len(whole)} whole pairs: at least 2 are needed to see how pairs vary.")
    first = np.array([m[0] if values.arm[m[0]] == 1 else m[1] for m in whole])
    second = np.array([m[1] if values.arm[m[0]] == 1 else m[0] for m in whole])
    difference = values.value[first] - values.value[second]
    w = _weights(values.n, weights)
    size = w[first] + w[second]
    share = size / size.sum()
    k = len(whole)
    estimate = float(share @ difference)
    if np.ptp(difference) == 0:
        raise InputError("all pair differences are equal, so there is no variation to judge them by.")
    std_error = math.sqrt(k / (k - 1) * float(((share * difference - estimate / k) ** 2).sum()))
    notes = (f"Left out because the partner is absent: {few(alone)}.",) if alone else ()
    exact_p, low, high = math.nan, math.nan, math.nan
    if exact and k <= signflip.MAX_PAIRS:
        exact_p = signflip.sign_flip(share * difference).two_sided
        interval = signflip.sign_flip_interval(share * difference, weights=share, conf_level=conf_level)
        low, high = interval.low, interval.high
    words = {"equal": "pairs count equally", "size": "pairs count by their people"}[weights]
    return _t_result(f"pair differences, {words}", estimate, std_error, float(k - 1), conf_level, 2 * k, (exact_p, low, high), notes)


def _weights(n: Array, weights: str) -> Array:
    if weights == "equal":
        return np.ones(len(n))
    if weights == "size":
        return n
    raise InputError(unknown_word(str(weights), ("equal", "size"), what="weights"))


def _t_result(
    analysis: str,
    estimate: float,
    std_error: float,
    df: float,
    conf_level: float,
    clusters: int,
    exact: tuple[float, float, float] = (math.nan, math.nan, math.nan),
    notes: tuple[str, ...] = (),
) -> SiteComparison:
    t = estimate / std_error
    half = float(special.stdtrit(df, 0.5 + conf_level / 2)) * std_error
    p = float(2 * special.stdtr(df, -abs(t)))
    return SiteComparison(
        analysis, estimate, std_error, df, t, p, estimate - half, estimate + half, conf_level, clusters, *exact, notes=notes
    )
