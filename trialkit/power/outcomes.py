"""Outcome types on one footing: each gives the effect on its analysis scale, a person's variance in either arm, and the ICC in either arm.

With those three, every design takes every outcome: a cluster mean has variance sigma2 {rho + (1 - rho) / m}.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize

from trialkit.door import InputError
from trialkit.power.specification import PowerDesign


@dataclass(frozen=True, slots=True)
class Scale:
    """What the design engine needs to know about an outcome.

    Attributes
    ----------
    effect : float or None
        On the analysis scale; None while it is being solved for.
    variance : (control, intervention)
        Variance of one person's outcome on that scale.
    icc : (control, intervention)
        Share of it between clusters.
    size : float or sequence
        People (or person-time) a cluster.
    name, formula : str
    sources : tuple of str
    by_period : (control, intervention) tuples, or None
        Variances in each period of a longitudinal design, where they differ.
    """

    effect: float | None
    variance: tuple[float, float]
    icc: tuple[float, float]
    size: Any
    name: str
    formula: str
    sources: tuple[str, ...] = ()
    by_period: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def arms(value: Any) -> tuple[float, float]:
    """(control, intervention) of a number or a pair."""
    return (float(value[0]), float(value[1])) if isinstance(value, tuple) else (float(value), float(value))


def on_analysis_scale(design: PowerDesign) -> Scale:
    """The outcome of a design as effect, variances and ICCs.

    Raises
    ------
    InputError
        Something the outcome needs is missing, or leads outside its range.
    """
    return _BY_OUTCOME[str(design.outcome)](design)


def _need(design: PowerDesign, name: str, why: str) -> Any:
    value = getattr(design, name)
    if value is None:
        raise InputError(f"{name} is missing: {why}.")
    return value


def _icc(design: PowerDesign) -> tuple[float, float]:
    return arms(
        _need(design, "icc", "without the ICC nothing says how alike people of one cluster are (for independent people give icc=0)")
    )


def _continuous(design: PowerDesign) -> Scale:
    sd = arms(design.sd)
    return Scale(
        design.effect,
        (sd[0] ** 2, sd[1] ** 2),
        _icc(design),
        design.cluster_size,
        "difference of means",
        "sigma2 = sd^2",
    )


# link, its inverse, and the slope of the proportion on the linked scale
_LINKS: dict[str, tuple[Callable[[float], float], Callable[[float], float], Callable[[float], float]]] = {
    "difference": (lambda p: p, lambda x: x, lambda p: 1.0),
    "log-odds": (lambda p: math.log(p / (1 - p)), lambda x: 0.5 * (1 + math.tanh(x / 2)), lambda p: p * (1 - p)),
    "log-ratio": (math.log, math.exp, lambda p: p),
}
_BINARY_NAMES = {"difference": "difference of proportions", "log-odds": "log odds ratio", "log-ratio": "log risk ratio"}


def control_proportion(design: PowerDesign) -> float:
    """The proportion in the control arm; in the last period, where there is one a period."""
    value = _need(design, "p_control", "a binary outcome needs the proportion in the control arm")
    return float(value[-1] if isinstance(value, tuple) else value)


def intervention_proportion(design: PowerDesign, effect: float | None) -> float | None:
    """The proportion that an effect on the analysis scale makes of the control arm's."""
    if design.p_intervention is not None or effect is None:
        return design.p_intervention
    link, inverse, _ = _LINKS[design.scale or "difference"]
    return inverse(link(control_proportion(design)) + effect)


def _binary(design: PowerDesign) -> Scale:
    p0 = control_proportion(design)
    scale = design.scale or "difference"
    link, inverse, slope = _LINKS[scale]
    if sum(v is not None for v in (design.p_intervention, design.effect, design.odds_ratio)) > 1:
        raise InputError("give one of p_intervention, effect and odds_ratio: each follows from the other.")
    p1 = intervention_proportion(design, design.effect)
    if design.odds_ratio is not None:
        to_logit, from_logit, _ = _LINKS["log-odds"]
        p1 = from_logit(to_logit(p0) + math.log(design.odds_ratio))
    if p1 is not None and not 0 < p1 < 1:
        raise InputError(f"effect = {design.effect:g} on a proportion of {p0:g} gives {p1:g}, which is no proportion.")
    effect = None if p1 is None else link(p1) - link(p0)
    proportions = (p0, p0 if p1 is None else p1)
    if design.pooled:
        proportions = (sum(proportions) / 2,) * 2
    unit = tuple(p * (1 - p) / slope(p) ** 2 for p in proportions)
    sources = ["Donner & Klar 2000, Design and Analysis of Cluster Randomization Trials"]
    where = "pbar" if design.pooled else "p"
    formula = {"difference": f"sigma2 = {where}(1-{where})", "log-odds": "sigma2 = 1/{p(1-p)}", "log-ratio": "sigma2 = (1-p)/p"}[scale]
    between: tuple[float, ...]
    within: tuple[float, ...]
    if design.k is not None:
        if design.icc is not None:
            raise InputError("k and icc both say how much clusters differ: give one.")
        if scale == "log-odds":
            raise InputError("k is the coefficient of variation of proportions: it goes with the difference, not with log odds.")
        between = tuple((k * p / slope(p)) ** 2 for k, p in zip(arms(design.k), proportions, strict=True))
        within = unit
        formula = "cluster proportion: p(1-p)/m + k^2 p^2" + (" (over p^2 for the log ratio)" if scale == "log-ratio" else "")
        sources.append("Hayes & Bennett 1999, Int J Epidemiol 28:319")
    elif design.icc_scale == "latent" and scale == "log-odds":
        between, within = tuple(icc / (1 - icc) * math.pi**2 / 3 for icc in _icc(design)), unit
        formula = "log odds given the cluster: sigma2_u + 1/{m p(1-p)}, sigma2_u = rho/(1-rho) pi^2/3"
        sources.append("Moerbeek & Maas 2005, Commun Stat Theory Methods 34:1151")
    else:
        shares: tuple[float, ...] = _icc(design)
        if design.icc_scale == "latent":
            shares = tuple(proportion_icc(p, r / (1 - r) * math.pi**2 / 3) for p, r in zip(proportions, shares, strict=True))
            formula += "; the latent ICC carried to proportions by quadrature over a normal logit"
            sources.append("Eldridge, Ukoumunne & Carlin 2009, Int Stat Rev 77:378")
        between = tuple(r * v for r, v in zip(shares, unit, strict=True))
        within = tuple((1 - r) * v for r, v in zip(shares, unit, strict=True))
    found = _parts(effect, between, within, design.cluster_size, _BINARY_NAMES[scale], formula, sources)
    if not isinstance(design.p_control, tuple):
        return found
    # a control proportion that moves over the periods, the effect constant on the analysis scale: marginal models
    rows = []
    for shift in (0.0, effect or 0.0):
        row = [inverse(link(p) + shift) for p in design.p_control]
        if min(row) <= 0 or max(row) >= 1:
            raise InputError(
                f"the effect makes a proportion of {min(row) if min(row) <= 0 else max(row):g} in some period, which is no proportion."
            )
        rows.append(tuple(p * (1 - p) / slope(p) ** 2 for p in row))
    sources.append("Li, Turner & Preisser 2018, Biometrics 74:1450")
    return replace(found, by_period=(rows[0], rows[1]), sources=tuple(sources))


def _rate(design: PowerDesign) -> Scale:
    l0 = float(_need(design, "rate_control", "a rate or count needs the mean in the control arm"))
    logs = design.scale == "log-ratio"
    if design.rate_intervention is not None and design.effect is not None:
        raise InputError("give rate_intervention or effect, not both: each follows from the other.")
    l1 = design.rate_intervention
    if l1 is None and design.effect is not None:
        l1 = l0 * math.exp(design.effect) if logs else l0 + design.effect
        if l1 <= 0:
            raise InputError(f"effect = {design.effect:g} on a rate of {l0:g} gives {l1:g}; a rate is positive.")
    effect = None if l1 is None else (math.log(l1 / l0) if logs else l1 - l0)
    rates = (l0, l0 if l1 is None else l1)
    size = design.person_time if design.person_time is not None else design.cluster_size
    dispersion = design.overdispersion if design.outcome == "count" else 1.0
    unit = tuple(dispersion * r / (r * r if logs else 1.0) for r in rates)
    sources = ["Hayes & Bennett 1999, Int J Epidemiol 28:319"]
    if design.k is not None:
        if design.icc is not None:
            raise InputError("k and icc both say how much clusters differ: give one.")
        between = tuple(k * k * (1.0 if logs else r * r) for k, r in zip(arms(design.k), rates, strict=True))
        within = unit
        formula = "cluster rate: lambda/y + k^2 lambda^2" + (" (over lambda^2 for the log ratio)" if logs else "")
    else:
        shares = arms(
            _need(
                design, "icc" if design.outcome == "count" else "k", "a rate or count needs k (or an ICC) to say how much clusters differ"
            )
        )
        between = tuple(s * u for s, u in zip(shares, unit, strict=True))
        within = tuple((1 - s) * u for s, u in zip(shares, unit, strict=True))
        formula = "sigma2 = overdispersion x mean" + (", over mean^2 for the log ratio" if logs else "")
    return _parts(effect, between, within, size, "log rate ratio" if logs else "difference of rates", formula, sources)


def _ordinal(design: PowerDesign) -> Scale:
    if design.proportions is None:
        raise InputError("an ordinal outcome needs proportions: the share of each category in the control arm.")
    shares = np.array(design.proportions)
    if np.any(shares < 0) or abs(shares.sum() - 1) > 1e-6 or len(shares) < 2:
        raise InputError(f"proportions must be at least two shares that sum to 1; these sum to {shares.sum():g}.")
    if design.odds_ratio is not None and design.effect is not None:
        raise InputError("give odds_ratio or effect (its logarithm), not both.")
    effect = math.log(design.odds_ratio) if design.odds_ratio is not None else design.effect
    below = np.clip(np.cumsum(shares), 0, 1)[:-1]
    shifted = below if effect is None else _shift_odds(below, effect)
    other = np.diff(np.concatenate([[0.0], shifted, [1.0]]))
    mean = (shares + other) / 2
    variance = 3 / (1 - float((mean**3).sum()))
    icc = _icc(design)
    return Scale(
        effect,
        (variance, variance),
        icc,
        design.cluster_size,
        "common log odds ratio",
        "sigma2 = 3 / (1 - sum of pbar^3)",
        ("Whitehead 1993, Stat Med 12:2257",),
    )


def _survival(design: PowerDesign) -> Scale:
    probability = arms(
        _need(design, "event_probability", "a time to event needs the probability that a person has the event during follow-up")
    )
    if design.hazard_ratio is not None and design.effect is not None:
        raise InputError("give hazard_ratio or effect (its logarithm), not both.")
    effect = math.log(design.hazard_ratio) if design.hazard_ratio is not None else design.effect
    return Scale(
        effect,
        (1 / probability[0], 1 / probability[1]),
        _icc(design),
        design.cluster_size,
        "log hazard ratio",
        "sigma2 = 1 / P(event); the design effect applies to the events",
        ("Schoenfeld 1983, Biometrics 39:499", "Xie & Waksman 2003, Stat Med 22:2835"),
    )


def proportion_icc(p: float, latent_variance: float) -> float:
    """ICC on the scale of proportions for a logit-normal random intercept of this variance and marginal proportion p."""
    if latent_variance == 0:
        return 0.0
    # the trapezoidal rule is exact to rounding for so smooth an integrand, also where a steep logit defeats Gauss-Hermite nodes
    x = np.linspace(-9.0, 9.0, 4001)
    w = np.exp(-x * x / 2)
    w = w / w.sum()
    spread = math.sqrt(latent_variance) * x

    def mean(location: float) -> float:
        return float((w * _expit_array(location + spread)).sum())

    limit = 40 + 10 * math.sqrt(latent_variance)
    location = optimize.brentq(lambda b: mean(b) - p, -limit, limit, xtol=1e-13)
    values = _expit_array(location + spread)
    return float((w * values**2).sum() - (w * values).sum() ** 2) / (p * (1 - p))


def _parts(effect: float | None, between: Any, within: Any, size: Any, name: str, formula: str, sources: list[str]) -> Scale:
    variance = (between[0] + within[0], between[1] + within[1])
    return Scale(effect, variance, (between[0] / variance[0], between[1] / variance[1]), size, name, formula, tuple(sources))


def _expit_array(x: Any) -> Any:
    return 0.5 * (1 + np.tanh(x / 2))


def _shift_odds(below: Any, effect: float) -> Any:
    # the intervention multiplies the odds of a better (lower) category by exp(effect)
    odds = np.where(below < 1, below / np.where(below < 1, 1 - below, 1.0), np.inf) * math.exp(effect)
    return np.where(np.isinf(odds), 1.0, odds / (1 + odds))


_BY_OUTCOME = {
    "continuous": _continuous,
    "binary": _binary,
    "rate": _rate,
    "count": _rate,
    "ordinal": _ordinal,
    "survival": _survival,
}
