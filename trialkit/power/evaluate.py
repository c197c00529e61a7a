"""From a design's precision to its power: the reference distribution, by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from trialkit._kernels import dunnett, noncentral
from trialkit._kernels.equivalence import power_tost
from trialkit.door import InputError
from trialkit.power.designs import Precision, distance, precision
from trialkit.power.specification import PowerDesign

DISTRIBUTION_WORDS = {
    "f": "noncentral F distribution, both tails",
    "z": "normal approximation, tail in the right direction",
    "z-both-tails": "normal approximation, both tails",
    "z-plus-one": "normal approximation with one cluster an arm added (Hayes & Bennett)",
    "shifted-t": "central t distribution shifted by the effect, tail in the right direction",
    "shifted-t-both-tails": "central t distribution shifted by the effect, both tails",
    "t-upper": "noncentral t distribution, tail in the right direction only",
}


def power_of(noncentrality: float, df: float, design: PowerDesign, numerator_df: float = 1.0) -> float:
    """Power for a noncentrality; a noncentrality of 0 gives the level of the test under any reference distribution."""
    alpha, sides = design.alpha / design.comparisons, design.sides
    if noncentrality == 0:
        return alpha
    if noncentrality > 1e30:
        return 1.0
    if numerator_df > 1:
        if sides == 1:
            raise InputError("an omnibus F test has no side: sides=2, or name a contrast.")
        if design.distribution not in ("f", "z", "z-both-tails"):
            raise InputError(f'distribution="{design.distribution}" has no counterpart for an omnibus test: "f" or "z".')
        return float(noncentral.power_f(noncentrality, numerator_df, df if design.distribution == "f" else math.inf, alpha))
    shift = math.sqrt(noncentrality)
    kind = design.distribution
    if kind == "f":
        return noncentral.power_t_one(shift, df, alpha, sides)
    if kind in ("z", "z-plus-one"):
        return float(noncentral.power_z(shift, alpha, sides, upper_only=True))
    if kind == "z-both-tails":
        return float(noncentral.power_z(shift, alpha, sides))
    if kind == "t-upper":
        return float(noncentral.power_t_upper(shift, df, alpha, sides))
    return float(noncentral.power_shifted_t(shift, df, alpha, sides, upper_only=kind == "shifted-t"))


def power_from(found: Precision, design: PowerDesign) -> float:
    """Power of an evaluated design."""
    if found.noncentrality is None:
        raise InputError(_effect_missing(design))
    if found.versus is not None:
        return versus_powers(found, design)[design.success]
    if design.hypothesis != "superiority":
        return _margin_power(found, design)
    return power_of(found.noncentrality, found.df, design, found.numerator_df)


def _margin_power(found: Precision, design: PowerDesign) -> float:
    """Power against a margin; the test is one-sided at alpha, equivalence two such tests."""
    effect, alpha = float(found.effect or 0.0), design.alpha / design.comparisons
    if found.variance <= 0:
        return 1.0 if distance(design, effect) > 0 else 0.0
    se = math.sqrt(found.variance)
    kind, df = design.distribution, found.df
    if design.hypothesis == "equivalence":
        lower, upper = (float(design.margin or 0.0) + effect) / se, (float(design.margin or 0.0) - effect) / se
        if kind in ("f", "t-upper"):
            return power_tost(lower, upper, df, alpha)
        if kind[0] == "z":
            return power_tost(lower, upper, math.inf, alpha)
        each = [float(noncentral.power_shifted_t(x, df, alpha, 1)) for x in (lower, upper)]
        return max(0.0, sum(each) - 1.0)
    shift = distance(design, effect) / se
    if kind in ("f", "t-upper"):
        return noncentral.power_t_one(shift, df, alpha, 1)
    if kind[0] == "z":
        return float(noncentral.power_z(shift, alpha, 1))
    return float(noncentral.power_shifted_t(shift, df, alpha, 1))


def versus_level(found: Precision, design: PowerDesign) -> tuple[float, float]:
    """(critical value, level of a single comparison) of several arms against control."""
    versus = found.versus
    if versus is None:
        raise ValueError("not a comparison of several arms with control")
    df = found.df if design.distribution == "f" else math.inf
    tail: Callable[[float], float] = lambda c: float(special.ndtr(-c) if math.isinf(df) else special.stdtr(df, -c))  # noqa: E731
    if design.versus_control == "dunnett":
        crit = dunnett.critical_value(versus.loading, df, design.alpha, design.sides)
        return crit, design.sides * tail(crit)
    level = design.alpha / (len(versus.loading) if design.versus_control == "bonferroni" else 1)
    one = level / design.sides
    return -float(special.ndtri(one) if math.isinf(df) else special.stdtrit(df, one)), level


def versus_powers(found: Precision, design: PowerDesign) -> dict[str, float]:
    """Power of comparisons with control: the least of them one by one, of at least one, and of all in the same trial."""
    if design.distribution not in ("f", "z", "z-both-tails"):
        raise InputError(f'distribution="{design.distribution}" has no counterpart for comparisons with one control: "f" or "z".')
    versus = found.versus
    if versus is None:
        raise ValueError("not a comparison of several arms with control")
    df = found.df if design.distribution == "f" else math.inf
    crit, level = versus_level(found, design)
    # the direction of an effect is the direction of its one-sided test, as with two arms
    sign = -1.0 if design.sides == 1 and sum(versus.effect) < 0 else 1.0
    shift = np.array([sign * e / s if s > 0 else math.copysign(1e6, e) for e, s in zip(versus.effect, versus.std_error, strict=True)])
    shift = np.clip(shift, -1e6, 1e6)
    each = float(np.min(noncentral.power_t(np.clip(shift, -1e4, 1e4), df, level, design.sides)))
    if not shift.any() and design.versus_control == "dunnett":
        some = design.alpha
    else:
        some = dunnett.power_any(shift, np.array(versus.loading), df, crit, design.sides)
    return {"each": each, "any": some, "all": dunnett.power_all(shift, np.array(versus.loading), df, crit, design.sides)}


def power_at(design: PowerDesign, *, clusters: float | None = None, size: float | None = None) -> float:
    """Power of a design, with a real number of clusters or people in place of its own."""
    return power_from(precision(design, clusters=clusters, size=size), design)


def shift_for(target: float, df: float, design: PowerDesign) -> float:
    """The effect in standard errors that has this power: the inverse of `power_of`."""
    alpha = design.alpha / design.comparisons
    if design.distribution == "f":
        return noncentral.shift_t(target, df, alpha, design.sides)
    function: Callable[[float], float] = lambda s: power_of(s * s, df, design)  # noqa: E731
    return noncentral.inverse(function, target)


def _effect_missing(design: PowerDesign) -> str:
    what = {
        "continuous": "effect is missing: the difference to detect, in the units of sd (sd=1: Cohen's d)",
        "binary": "effect is missing: give p_intervention, odds_ratio, or effect",
        "rate": "effect is missing: give rate_intervention or effect",
        "count": "effect is missing: give rate_intervention or effect",
        "ordinal": "effect is missing: give odds_ratio or effect (its logarithm)",
        "survival": "effect is missing: give hazard_ratio or effect (its logarithm)",
    }[str(design.outcome)]
    return f"{what}. Several arms may give means. To solve for it use detectable_effect."
