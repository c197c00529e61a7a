"""What is true of a scenario on the scale that is observed: effects, variances and correlations, by integration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from trialkit.simulation.making import Blueprint, OutcomePlan, size_score
from trialkit.simulation.sites import SiteList
from trialkit.simulation.streams import Floats


def truth(plan: Blueprint, sites: SiteList) -> pd.DataFrame:
    """One row an outcome.

    Columns: ``outcome, label, level, rank, rater``; ``planted``, the d asked for; ``estimand``, the true
    participant-average effect over the total SD of both arms' follow-up values, and ``estimand_cluster``, the
    average over sites over the same SD; ``difference``, the first in the outcome's units; ``mean_control,
    mean_intervention, sd_control, sd_total``; ``icc`` and ``pair_share`` (of the site variance) in the control
    arm; ``var_pair, var_site, var_person``; ``baseline_correlation``.
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
                **_variances(o),
            }
        )
    frame = pd.DataFrame(rows).round(10)  # as far as the integrals are good
    frame["rater"] = frame["rater"].astype("str")
    return frame


def estimands(plan: Blueprint, sites: SiteList, *, weighting: str) -> Floats:
    """True d by outcome in the scenario's order, under the design's weighting of people and sites."""
    column = "estimand_cluster" if weighting == "cluster-average" else "estimand"
    return np.array([_effects(plan, o, sites)[column] for o in plan.outcomes])


def _shifts(plan: Blueprint, o: OutcomePlan, sites: SiteList) -> tuple[Floats, Floats, Floats]:
    """Distinct shifts of the underlying score (k,), with their shares of people and of the average site."""
    planted = o.planted
    by_site = np.zeros(len(sites.ids))
    if planted.size_slope:
        by_site = planted.size_slope * size_score(o, sites)
    sizes = sites.sizes[:, list(o.roles)].astype(np.float64)
    levels = np.zeros((len(o.roles), 1))
    shares = np.ones((len(o.roles), 1))
    if planted.by is not None and planted.effects_by is not None:
        trait = next(t for t in plan.scenario.traits if t.name == planted.by)
        levels = np.tile(planted.effects_by, (len(o.roles), 1))
        roles = [plan.scenario.people[k].role for k in o.roles]
        shares = np.array([trait.shares.get(r, np.zeros(levels.shape[1])) for r in roles])
    # (site, role, level)
    shift = o.shift + by_site[:, None, None] + levels[None]
    people = sizes[:, :, None] * shares[None]
    total = sizes.sum(axis=1)
    held = total > 0
    site = np.where(held, 1.0 / np.maximum(total, 1.0), 0.0) / held.sum()
    distinct, where = np.unique(shift.ravel(), return_inverse=True)
    of_people: Floats = np.bincount(where, (people / people.sum()).ravel()).astype(np.float64)
    of_sites: Floats = np.bincount(where, (people * site[:, None, None]).ravel()).astype(np.float64)
    return distinct, of_people, of_sites


def _effects(plan: Blueprint, o: OutcomePlan, sites: SiteList) -> dict[str, float]:
    if o.planted.by is None and not o.planted.size_slope:
        shift, people, site = np.array([o.shift]), np.ones(1), np.ones(1)
    else:
        shift, people, site = _shifts(plan, o, sites)
    mean, square = o.measure.moments(np.array([0.0, *shift]))
    under, square_under = float(people @ mean[1:]), float(people @ square[1:])
    total = (square[0] + square_under) / 2.0 - ((mean[0] + under) / 2.0) ** 2
    sd = float(np.sqrt(total))
    # no effect is exactly none, whatever the order in which a library adds
    difference = under - float(mean[0]) if np.any(shift) else 0.0
    return {
        "estimand": difference / sd,
        "estimand_cluster": (float(site @ mean[1:]) - float(mean[0])) / sd if np.any(shift) else 0.0,
        "difference": difference,
        "mean_control": float(mean[0]),
        "mean_intervention": under,
        "sd_control": float(np.sqrt(square[0] - mean[0] ** 2)),
        "sd_total": sd,
    }


def _variances(o: OutcomePlan) -> dict[str, Any]:
    """Variance components and correlations of the observed values in the control arm."""
    mean, square = o.measure.moments(0.0)
    total = float(square - mean**2)
    pair = o.measure.shared_covariance(o.variance["pair"])
    cluster = o.measure.shared_covariance(o.planted.icc)
    steady = max(o.planted.baseline_correlation, *(o.trait_variance[k] for k in o.roles)) if o.baseline else float("nan")
    return {
        "icc": cluster / total,
        "pair_share": pair / cluster if cluster > 0 else 0.0,
        "var_pair": pair,
        "var_site": cluster - pair,
        "var_person": total - cluster,
        "baseline_correlation": o.measure.shared_covariance(steady) / total if o.baseline else float("nan"),
    }
