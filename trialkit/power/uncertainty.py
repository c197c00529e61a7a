"""An ICC is never known: power over a band of it, and its expectation over a prior (assurance)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, special, stats

from trialkit._kernels.quadrature import unit_interval
from trialkit.door import InputError
from trialkit.power.evaluate import power_at
from trialkit.power.grid import power_curve, power_grid
from trialkit.power.specification import PowerDesign, build
from trialkit.results import Result

Array = NDArray[np.float64]
_TOP = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class IccPrior:
    """What is believed about an ICC, as its quantile function.

    Attributes
    ----------
    name : str
    quantile : callable
        q in (0, 1) -> ICC; values below 0 count as 0.
    """

    name: str
    quantile: Callable[[float], float] = field(compare=False)

    @property
    def mean(self) -> float:
        """Mean of the prior, in [0, 1)."""
        nodes, weights = unit_interval()
        return float(np.sum(weights * np.array([_clip(self.quantile(q)) for q in nodes])))


def beta_prior(a: float | None = None, b: float | None = None, *, mean: float | None = None, sd: float | None = None) -> IccPrior:
    """A beta distribution, by its two parameters or by mean and standard deviation.

    Examples
    --------
    >>> beta_prior(2, 38).name
    'Beta(2, 38)'
    >>> round(beta_prior(mean=0.05, sd=0.034).quantile(0.8), 4)
    0.0748
    """
    if mean is not None and sd is not None and a is None and b is None:
        if not 0 < mean < 1 or not 0 < sd < math.sqrt(mean * (1 - mean)):
            raise InputError(f"mean = {mean} and sd = {sd} fit no beta distribution: 0 < mean < 1 and sd < sqrt(mean (1 - mean)).")
        total = mean * (1 - mean) / sd**2 - 1
        a, b = mean * total, (1 - mean) * total
    if a is None or b is None or not (a > 0 and b > 0):
        raise InputError("a beta prior needs a and b, both positive, or mean and sd.")
    return IccPrior(f"Beta({a:g}, {b:g})", lambda q: float(special.betaincinv(a, b, q)))


def normal_prior(mean: float, sd: float) -> IccPrior:
    """A normal distribution truncated to [0, 1).

    Examples
    --------
    >>> round(normal_prior(0.05, 0.02).quantile(0.5), 4)
    0.0502
    """
    if not sd > 0 or not math.isfinite(mean):
        raise InputError("a normal prior needs a mean and a positive sd.")
    low, high = special.ndtr((0 - mean) / sd), special.ndtr((1 - mean) / sd)
    if not high > low:
        raise InputError(f"a normal prior with mean {mean:g} and sd {sd:g} has nothing between 0 and 1.")
    return IccPrior(f"Normal({mean:g}, {sd:g}) within 0 and 1", lambda q: mean + sd * float(special.ndtri(low + q * (high - low))))


def pilot_prior(
    estimate: Any = None, *, icc: float | None = None, clusters: int | None = None, cluster_size: float | None = None
) -> IccPrior:
    """What a pilot says: the confidence distribution of its ICC by the F ratio, from an `IccEstimate` or from its figures.

    Negative values count as 0.

    Examples
    --------
    >>> prior = pilot_prior(icc=0.05, clusters=20, cluster_size=10)
    >>> round(prior.quantile(0.5), 3), round(prior.quantile(0.8), 3)
    (0.054, 0.102)
    """
    if estimate is not None:
        if not hasattr(estimate, "quantile"):
            raise InputError("pilot_prior takes what estimate_icc returned, or icc=, clusters= and cluster_size=.")
        return IccPrior(f"pilot: {estimate.describe()}", estimate.quantile)
    if icc is None or clusters is None or cluster_size is None:
        raise InputError("pilot_prior needs icc, clusters and cluster_size of the pilot.")
    if not -1 < icc < 1 or clusters < 2 or cluster_size <= 1:
        raise InputError("a pilot has an ICC below 1, at least two clusters, and more than one person a cluster.")
    r, K, m = float(icc), int(clusters), float(cluster_size)
    ratio = (1 + (m - 1) * r) / (1 - r)
    if ratio <= 0:
        raise InputError(f"icc = {icc:g} is below its least possible value -1/(m-1) = {-1 / (m - 1):g}.")

    def quantile(q: float) -> float:
        f = ratio / float(stats.f.isf(q, K - 1, K * (m - 1)))
        return (f - 1) / (f + m - 1)

    return IccPrior(f"pilot of {K} clusters of {m:g}, ICC {r:g}", quantile)


def published_prior(iccs: Sequence[float], *, weights: Sequence[float] | None = None, bandwidth: float | None = None) -> IccPrior:
    """A kernel density of published ICCs, on the logit scale so that it stays between 0 and 1.

    Parameters
    ----------
    iccs : sequence of numbers in (0, 1)
        Zeros and negative ones are set to 0.001.
    weights : sequence, optional
        Trust in each, such as its number of clusters.
    bandwidth : float, optional
        On the logit scale; default Silverman's rule with the effective number of ICCs.

    Examples
    --------
    >>> prior = published_prior([0.01, 0.03, 0.05, 0.08])
    >>> 0.02 < prior.quantile(0.5) < 0.05
    True
    """
    values = np.asarray(iccs, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all() or np.any(values >= 1):
        raise InputError("published_prior needs at least two ICCs, each below 1.")
    w = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    if w.shape != values.shape or np.any(~(w >= 0)) or not w.sum() > 0:
        raise InputError("weights must be as many as the ICCs, none negative.")
    w = w / w.sum()
    x = special.logit(np.maximum(values, 1e-3))
    effective = 1 / float((w**2).sum())
    spread = math.sqrt(float((w * (x - (w * x).sum()) ** 2).sum()) * effective / max(effective - 1, 1e-9))
    h = 1.06 * max(spread, 1e-6) * effective ** (-0.2) if bandwidth is None else bandwidth
    if not h > 0:
        raise InputError("bandwidth must be positive.")

    def quantile(q: float) -> float:
        low, high = float(x.min() - 40 * h), float(x.max() + 40 * h)
        return float(special.expit(optimize.brentq(lambda u: float((w * special.ndtr((u - x) / h)).sum()) - q, low, high, xtol=1e-12)))

    return IccPrior(f"{len(values)} published ICCs, kernel on the logit scale", quantile)


@dataclass(frozen=True, slots=True)
class Assurance(Result):
    """Expected power over a prior of the ICC.

    Attributes
    ----------
    power : float
        The expectation.
    design : PowerDesign
    prior : IccPrior
    target : float
        The power whose probability ``probability`` gives.
    probability : float
        Probability, under the prior, that the power is at least ``target``.
    frame : DataFrame
        Power at percentiles of the prior.
    """

    power: float
    design: PowerDesign
    prior: IccPrior
    target: float
    probability: float
    frame: pd.DataFrame

    @property
    def title(self) -> str:
        return f"Expected power {self.power:.4f} over the ICC, {self.prior.name}"

    @property
    def notes(self) -> tuple[str, ...]:
        return (f"The power is {self.target:g} or more with probability {self.probability:.2f}.",)

    @property
    def formats(self) -> Mapping[str, str]:
        return {"percentile": ".3g", "icc": ".4f", "power": ".4f"}


def assurance(design: PowerDesign | None = None, /, *, icc_prior: Any, target: float = 0.8, **arguments: Any) -> Assurance:
    """Expected power when the ICC is uncertain: the integral of power(rho) over the prior of rho.

    Parameters
    ----------
    design : PowerDesign, optional
        An ICC in it is ignored.
    icc_prior : IccPrior, IccEstimate, or frozen scipy distribution
        See `beta_prior`, `normal_prior`, `pilot_prior`, `published_prior`.
    target : float
        The power whose probability is reported.
    **arguments
        As for `power`, without the ICC.

    Returns
    -------
    Assurance

    Raises
    ------
    InputError

    Notes
    -----
    Spiegelhalter & Freedman 1986 (hybrid of a classical test and a prior), by tanh-sinh quadrature over the prior's quantiles.

    Examples
    --------
    >>> found = assurance(clusters=68, cluster_size=2, effect=0.5, icc_prior=beta_prior(2, 38))
    >>> round(found.power, 6)
    0.800631
    """
    if not 0 < target < 1:
        raise InputError(f"target = {target!r} must lie between 0 and 1.")
    prior = _as_prior(icc_prior)
    spec = build({**arguments, "icc": 0.0}, design)

    def at(icc: float) -> float:
        return power_at(spec.replace(icc=_clip(icc)))

    nodes, weights = unit_interval()
    iccs = np.array([_clip(prior.quantile(q)) for q in nodes])
    powers = np.array([at(r) for r in iccs])
    expected = float((weights * powers).sum())
    percentiles = [0.05, 0.2, 0.5, 0.8, 0.95]
    rows = [{"percentile": 100 * q, "icc": _clip(prior.quantile(q)), "power": at(prior.quantile(q))} for q in percentiles]
    return Assurance(expected, spec, prior, target, _probability(at, prior, target), pd.DataFrame(rows))


def _probability(at: Callable[[float], float], prior: IccPrior, target: float) -> float:
    """P(power >= target), the power falling as the ICC rises."""
    low, high = 1e-9, 1 - 1e-9
    first, last = at(prior.quantile(low)) - target, at(prior.quantile(high)) - target
    if first < 0:
        return 0.0
    if last >= 0:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at(prior.quantile(middle)) >= target else (low, middle)
    return low


def icc_band(design: PowerDesign | None = None, /, *, icc: Any, points: int = 9, conf_level: float = 0.95, **arguments: Any) -> Any:
    """Power over a band of ICCs: (low, high), a sequence, or an estimate (its interval, with the point and the 80th percentile).

    Examples
    --------
    >>> band = icc_band(clusters=68, cluster_size=2, effect=0.5, icc=(0.0, 0.1), points=3)
    >>> band.frame["power"].round(4).tolist()
    [0.8193, 0.8006, 0.7821]
    """
    if hasattr(icc, "quantile"):
        tail = (1 - conf_level) / 2
        extra = [icc.icc, icc.quantile(0.8)] if hasattr(icc, "icc") else [icc.quantile(0.5), icc.quantile(0.8)]
        values = sorted({_clip(v) for v in [*np.linspace(_clip(icc.quantile(tail)), _clip(icc.quantile(1 - tail)), points), *extra]})
    elif isinstance(icc, tuple) and len(icc) == 2:
        values = [float(v) for v in np.linspace(icc[0], icc[1], points)]
    else:
        values = [float(v) for v in icc]
    return power_grid(design, **{**arguments, "icc": values})


def plot_icc_band(
    design: PowerDesign | None = None,
    /,
    *,
    over: str,
    values: Sequence[float],
    icc: tuple[float, float, float],
    ax: Any = None,
    **arguments: Any,
) -> Any:
    """Power against one argument at a planned ICC with the band between a low and a high one, icc = (low, planned, high).

    Gives the axes back.
    """
    from trialkit.power.pictures import band

    low, middle, high = (power_curve(design, over=over, values=values, **{**arguments, "icc": r}) for r in icc)
    return band(low, middle, high, ax, label=f"ICC {icc[0]:g} to {icc[2]:g} (planned {icc[1]:g})")


def _as_prior(prior: Any) -> IccPrior:
    if isinstance(prior, IccPrior):
        return prior
    if hasattr(prior, "icc") and hasattr(prior, "quantile"):
        return pilot_prior(prior)
    if hasattr(prior, "ppf"):
        name = getattr(getattr(prior, "dist", None), "name", "distribution")
        return IccPrior(f"{name}{tuple(getattr(prior, 'args', ()))}", lambda q: float(prior.ppf(q)))
    raise InputError(
        "icc_prior must be a prior (beta_prior, normal_prior, pilot_prior, published_prior), an estimated ICC, or a scipy distribution."
    )


def _clip(icc: float) -> float:
    return min(max(float(icc), 0.0), _TOP)
