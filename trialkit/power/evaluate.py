"""From a design's precision to its power: the reference distribution, by name."""

from __future__ import annotations

import math
from collections.abc import Callable

from trialkit._kernels import noncentral
from trialkit.door import InputError
from trialkit.power.designs import Precision, precision
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
    return power_of(found.noncentrality, found.df, design, found.numerator_df)


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
