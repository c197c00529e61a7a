"""What is true of a scenario on the scale that is observed: effects, variances and correlations, by integration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from trialkit.design import Outcome, TrialDesign
from trialkit.simulation import dosing
from trialkit.simulation.making import Blueprint, OutcomePlan, size_score
from trialkit.simulation.scenario import Trait, trait_variance
from trialkit.simulation.sites import SiteList
from trialkit.simulation.streams import Floats


def truth(plan: Blueprint, sites: SiteList) -> pd.DataFrame:
    """One row an outcome.

    Columns: ``outcome, label, level, rank, rater``; ``planted``, the d asked for; ``estimand``, the true
    participant-average effect over the total SD of both arms' follow-up values, and ``estimand_cluster``, the
    average over sites over the same SD; ``difference``, the first in the outcome's units; ``mean_control,
    mean_intervention, sd_control, sd_total``; ``icc`` and ``pair_share`` (of the site variance) in the control
    arm; ``var_pair, var_site, var_person``; ``baseline_correlation``.

    With a third level also ``icc_subcluster`` and ``var_subcluster``. With attendance that has effects also ``effect_of``;
    ``received``, the mean dose in the intervention arm (sessions where each session has its effect, else the share who comply); and
    ``estimand_complier``, the effect of assignment over it: the effect in compliers, or of a session.
    """
    declared = {o.name: o for o in plan.scenario.design.outcomes}
    order = {name: k for k, name in enumerate(declared)}
    rows = []
    for o in sorted(plan.outcomes, key=lambda o: order[o.name]):
        d = declared[o.name]
        rows.append(
            {
                "outcome": o.name,
                "label": d.label,
                "level": d.level,
                "rank": d.rank,
                "rater": d.rater,
                "planted": o.planted.d,
                **_effects(plan, o, sites),
                **_variances(o, third=plan.scenario.subclusters is not None),
                **(
                    _complier(plan, o, sites, _effects(plan, o, sites)["estimand"])
                    if any(p.planted.effect_of != "assignment" for p in plan.outcomes)
                    else {}
                ),
            }
        )
    frame = pd.DataFrame(rows).round(10)  # as far as the integrals are good
    frame["rater"] = frame["rater"].astype("str")
    return frame


# measures whose estimates are compared as logarithms
_RATIOS = ("risk-ratio", "odds-ratio", "rate-ratio", "mean-ratio", "cumulative-odds-ratio")


def is_ratio(outcome: Outcome) -> bool:
    """Whether the design reports an outcome's effect as a ratio."""
    return getattr(outcome, "chosen_measure", "") in _RATIOS


def effects(plan: Blueprint, sites: SiteList) -> list[dict[str, float]]:
    """What `truth` says of effects, means and SDs, outcome by outcome in the scenario's order."""
    return [_effects(plan, o, sites) for o in plan.outcomes]


def targets(
    plan: Blueprint, sites: SiteList, found: Sequence[dict[str, float]], design: TrialDesign, weighting: str, *, own_scale: bool
) -> Floats:
    """What each outcome's estimate is held against, (outcomes,), in the scenario's order.

    Parameters
    ----------
    found : list
        From `effects`.
    weighting : str
        ``participant-average`` (or ``model-based``), ``cluster-average`` or ``complier``.
    own_scale : bool
        Differences over the design's SD, whatever measure it declares; else that measure, a ratio as its logarithm.

    Returns
    -------
    array
        Missing where no one number is true of the measure: a cluster-average ratio, a cumulative or a site-specific odds ratio.
    """
    declared = {o.name: o for o in design.outcomes}
    out = np.zeros(len(plan.outcomes))
    for k, (o, stated) in enumerate(zip(plan.outcomes, found, strict=True)):
        if stated["difference"] == 0.0 and stated["estimand_cluster"] == 0.0:
            continue
        measure = "standardised-difference" if own_scale else getattr(declared[o.name], "chosen_measure", "standardised-difference")
        if measure in _RATIOS:
            marginal = weighting != "cluster-average" and getattr(declared[o.name], "chosen_model", "marginal") == "marginal"
            out[k] = _log_ratio(measure, stated["mean_control"], stated["mean_intervention"]) if marginal else np.nan
            continue
        out[k] = stated["estimand_cluster" if weighting == "cluster-average" else "estimand"]
        if weighting == "complier":
            out[k] = _complier(plan, o, sites, stated["estimand"])["estimand_complier"]
        denominator = design.analysis.standardise if measure == "standardised-difference" else "none"
        if denominator != "total":
            out[k] *= stated["sd_total"] / _denominator(denominator, stated)
    return out


def _log_ratio(measure: str, control: float, under: float) -> float:
    if measure == "cumulative-odds-ratio":
        return float("nan")
    odds = np.log((1.0 - control) / (1.0 - under)) if measure == "odds-ratio" else 0.0
    return float(np.log(under / control) + odds)


def _denominator(name: str, stated: dict[str, float]) -> float:
    """The SD that the design divides by, as the population has it; the baseline has the control arm's."""
    if name == "none":
        return 1.0
    if name in ("control", "baseline"):
        return stated["sd_control"]
    # within arms: the total variance without that of the two means
    return float(np.sqrt(stated["sd_total"] ** 2 - stated["difference"] ** 2 / 4.0))


def _complier(plan: Blueprint, o: OutcomePlan, sites: SiteList, effect: float) -> dict[str, Any]:
    """What was received, and the effect of assignment over it (Angrist, Imbens & Rubin 1996)."""
    people = sites.sizes[:, list(o.roles)].sum(axis=0).astype(np.float64)
    mean = float(people @ [dosing.mean_dose(plan, o, k) for k in o.roles] / people.sum())
    return {
        "effect_of": o.planted.effect_of,
        "received": mean,
        "estimand_complier": 0.0 if effect == 0.0 else effect / mean if mean > 0 else float("nan"),
    }


def _cells(plan: Blueprint, o: OutcomePlan, sites: SiteList) -> tuple[Floats, Floats, Floats]:
    """Shifts of the underlying score, (sites, roles, levels), with their shares of people and of the average site."""
    planted = o.planted
    by_site = np.zeros(len(sites.ids))
    if planted.size_slope:
        by_site = planted.size_slope * size_score(o, sites)
    sizes = sites.sizes[:, list(o.roles)].astype(np.float64)
    levels = np.zeros((len(o.roles), 1))
    shares = np.ones((len(o.roles), 1))
    if planted.by is not None and planted.effects_by is not None:
        trait = _by(plan, o)
        roles = [plan.scenario.people[k].role for k in o.roles]
        # a role that does not have the trait has the plain effect
        without = [0.0] * any(r not in trait.shares for r in roles)
        levels = np.tile([*planted.effects_by, *without], (len(o.roles), 1))
        alone = np.append(np.zeros(len(planted.effects_by)), 1.0)
        shares = np.array([[*trait.shares[r], *without] if r in trait.shares else alone for r in roles])
    shift = o.shift + by_site[:, None, None] + levels[None]
    people = sizes[:, :, None] * shares[None]
    total = sizes.sum(axis=1)
    held = total > 0
    site = np.where(held, 1.0 / np.maximum(total, 1.0), 0.0) / held.sum()
    return shift, people / people.sum(), people * site[:, None, None]


def _by(plan: Blueprint, o: OutcomePlan) -> Trait:
    """The trait whose levels have effects of their own."""
    return next(t for t in plan.scenario.traits if t.name == o.planted.by)


def _shifts(plan: Blueprint, o: OutcomePlan, sites: SiteList) -> tuple[Floats, Floats, Floats]:
    """Distinct shifts of the underlying score (k,), with their shares of people and of the average site."""
    shift, people, site = _cells(plan, o, sites)
    distinct, where = np.unique(shift.ravel(), return_inverse=True)
    of_people: Floats = np.bincount(where, people.ravel()).astype(np.float64)
    of_sites: Floats = np.bincount(where, site.ravel()).astype(np.float64)
    return distinct, of_people, of_sites


def _effects(plan: Blueprint, o: OutcomePlan, sites: SiteList) -> dict[str, float]:
    if o.planted.effect_of != "assignment" or (o.planted.by is not None and _by(plan, o).effects is not None):
        return _mixed_effects(plan, o, sites)
    if o.planted.by is None and not o.planted.size_slope:
        shift, people, site = np.array([o.shift]), np.ones(1), np.ones(1)
    else:
        shift, people, site = _shifts(plan, o, sites)
    mean, square = o.measure.moments(np.array([0.0, *shift]))
    under, square_under = float(people @ mean[1:]), float(people @ square[1:])
    # no effect is exactly none, whatever the order in which a library adds
    none = not np.any(shift)
    control = (float(mean[0]), float(square[0]))
    return _stated(control, (under, square_under), 0.0 if none else float(site @ mean[1:]) - control[0], none=none)


def _mixed_effects(plan: Blueprint, o: OutcomePlan, sites: SiteList) -> dict[str, float]:
    """Where the effect goes with the score itself: through attendance, or through a trait that has effects on the score too."""
    shift, of_people, of_sites = _cells(plan, o, sites)
    control, under, cluster = np.zeros(2), np.zeros(2), 0.0
    for r, role in enumerate(o.roles):
        for level in range(shift.shape[2]):
            who, people, site = _kind(plan, o, role, level), of_people[:, r, level], of_sites[:, r, level]
            distinct, where = np.unique(shift[:, r, level], return_inverse=True)
            before = np.array(o.measure.moments_of(who.mean, who.variance))
            control += people.sum() * before
            doses, shares = dosing.shares(plan, o, role, who, o.measure.grid)
            for k, b in enumerate(distinct):
                by_dose = [o.measure.moments_of(who.mean, who.variance, shift=d * b, share=w) for d, w in zip(doses, shares, strict=True)]
                after = np.sum(by_dose, axis=0)
                under += people[where == k].sum() * after
                cluster += float(site[where == k].sum() * (after[0] - before[0]))
    none = not np.any(shift)
    return _stated((control[0], control[1]), (control[0], control[1]) if none else (under[0], under[1]), cluster, none=none)


def _kind(plan: Blueprint, o: OutcomePlan, role: int, level: int) -> dosing.Kind:
    """People of one level of the trait that effects go by, or all of a role."""
    if o.planted.by is None:
        return dosing.kind(plan, o, role)
    trait, name = _by(plan, o), plan.scenario.people[role].role
    if trait.effects is None or name not in trait.shares:
        return dosing.kind(plan, o, role)
    better = trait.effects[level] - float(np.dot(trait.shares[name], trait.effects))
    return dosing.kind(plan, o, role, wellbeing=better, spread=trait_variance(trait, name))


def _stated(control: tuple[float, float], under: tuple[float, float], cluster: float, *, none: bool) -> dict[str, float]:
    """The effects of a mean and mean square in each arm, and of the average site's difference."""
    sd = float(np.sqrt((control[1] + under[1]) / 2.0 - ((control[0] + under[0]) / 2.0) ** 2))
    difference = 0.0 if none else under[0] - control[0]
    return {
        "estimand": difference / sd,
        "estimand_cluster": 0.0 if none else cluster / sd,
        "difference": difference,
        "mean_control": control[0],
        "mean_intervention": under[0],
        "sd_control": float(np.sqrt(control[1] - control[0] ** 2)),
        "sd_total": sd,
    }


def _variances(o: OutcomePlan, *, third: bool) -> dict[str, Any]:
    """Variance components and correlations of the observed values in the control arm."""
    mean, square = o.measure.moments(0.0)
    total = float(square - mean**2)
    pair = o.measure.shared_covariance(o.variance["pair"])
    cluster = o.measure.shared_covariance(o.planted.icc)
    inner = o.measure.shared_covariance(o.planted.icc + o.planted.icc_subcluster) if third else cluster
    steady = max(o.planted.baseline_correlation, *(o.trait_variance[k] for k in o.roles)) if o.baseline else float("nan")
    return {
        "icc": cluster / total,
        **({"icc_subcluster": (inner - cluster) / total} if third else {}),
        "pair_share": pair / cluster if cluster > 0 else 0.0,
        "var_pair": pair,
        "var_site": cluster - pair,
        **({"var_subcluster": inner - cluster} if third else {}),
        "var_person": total - inner,
        "baseline_correlation": o.measure.shared_covariance(steady) / total if o.baseline else float("nan"),
    }
