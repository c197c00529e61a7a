"""What a trial costs: the cluster size that buys most precision, and the best trial for a budget; and when matching pays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import optimize

from trialkit.door import InputError
from trialkit.power.evaluate import power_at
from trialkit.power.results import PowerResult
from trialkit.power.specification import PowerDesign, build
from trialkit.power.verbs import power as power_verb
from trialkit.power.verbs import sample_size
from trialkit.results import Result


def optimal_cluster_size(*, icc: float, cluster_cost: float, person_cost: float) -> float:
    """The cluster size that gives the least variance for the money: sqrt{(cluster_cost / person_cost) (1 - icc) / icc} (Raudenbush 1997).

    Examples
    --------
    >>> optimal_cluster_size(icc=0.05, cluster_cost=1000, person_cost=50)
    19.493588689617926
    """
    for name, value in (("cluster_cost", cluster_cost), ("person_cost", person_cost)):
        if not value > 0:
            raise InputError(f"{name} = {value!r} must be positive.")
    if not 0 <= icc < 1:
        raise InputError(f"icc = {icc!r} must be 0 or more and less than 1.")
    if icc == 0:
        raise InputError(
            "with an ICC of 0 people of one cluster are independent: the cheapest trial has as few clusters as its test allows."
        )
    return math.sqrt(cluster_cost / person_cost * (1 - icc) / icc)


@dataclass(frozen=True, slots=True)
class BestTrial(Result):
    """The trial that a budget buys, or the cheapest one with a wanted power.

    Attributes
    ----------
    result : PowerResult
    cost : float
    frame : DataFrame
        The candidates near the best.
    """

    result: PowerResult
    cost: float
    frame: pd.DataFrame

    @property
    def power(self) -> float:
        return self.result.power

    @property
    def clusters(self) -> Any:
        return self.result.clusters

    @property
    def cluster_size(self) -> Any:
        return self.result.cluster_size

    @property
    def title(self) -> str:
        return f"{self.clusters} clusters of {self.cluster_size}: power {self.power:.4f} at a cost of {self.cost:,.0f}"


def best_trial(
    design: PowerDesign | None = None,
    /,
    *,
    cluster_cost: float,
    person_cost: float,
    budget: float | None = None,
    power: float | None = None,
    max_cluster_size: int = 1000,
    **arguments: Any,
) -> BestTrial:
    """The most powerful trial within a budget, or the cheapest one with a wanted power, in whole clusters and people.

    Parameters
    ----------
    design : PowerDesign, optional
    cluster_cost, person_cost : float
        Of one cluster, and of one more person in it.
    budget, power : float
        One of the two.
    max_cluster_size : int
        No cluster is larger.
    **arguments
        As for `power`, without clusters and cluster_size.

    Examples
    --------
    >>> found = best_trial(icc=0.05, effect=0.3, cluster_cost=1000, person_cost=50, budget=60_000)
    >>> found.clusters, found.cluster_size, found.cost
    (30, 20, 60000.0)
    """
    if (budget is None) == (power is None):
        raise InputError("give budget or power: the other is what comes out.")
    for name, value in (("cluster_cost", cluster_cost), ("person_cost", person_cost)):
        if not value > 0:
            raise InputError(f"{name} = {value!r} must be positive.")
    spec = build(arguments, design)
    rows: list[dict[str, float]] = []
    size = 1
    while size <= max_cluster_size:
        try:
            if budget is not None:
                clusters = 2 * int(budget // (2 * (cluster_cost + person_cost * size)))
                attained = power_at(spec.replace(clusters=clusters, cluster_size=size)) if clusters >= 4 else 0.0
            else:
                found = sample_size(spec, cluster_size=size, power=power or 0.8)
                clusters, attained = int(found.clusters or 0), found.power  # type: ignore[arg-type]
        except InputError:
            if size == max_cluster_size:
                raise
            size += max(1, size // 20)
            continue
        cost = clusters * (cluster_cost + person_cost * size)
        rows.append({"clusters": clusters, "cluster_size": size, "power": attained, "cost": cost})
        size += max(1, size // 20)
    table = pd.DataFrame(rows)
    if table.empty or (budget is not None and table["power"].max() <= 0):
        raise InputError(
            "the budget does not buy four clusters with one person each." if budget is not None else "no trial has this power."
        )
    table = table.sort_values(
        ["power", "cost"] if budget is not None else ["cost", "power"], ascending=[budget is None, True], kind="stable"
    )
    best = table.iloc[0]
    result = power_verb(spec, clusters=int(best["clusters"]), cluster_size=int(best["cluster_size"]))
    return BestTrial(result, float(best["cost"]), table.head(10).reset_index(drop=True))


def matching_break_even(design: PowerDesign | None = None, /, **arguments: Any) -> float:
    """The matching correlation at which a matched-pair trial has the power of the same clusters unmatched; above it matching pays.

    Pairs cost half of the degrees of freedom: a few pairs need a good match, many pairs hardly any.

    Examples
    --------
    >>> round(matching_break_even(pairs=5, cluster_size=50, icc=0.05, effect=0.5), 3)
    0.271
    """
    spec = build(arguments, design)
    if spec.clusters is None:
        raise InputError("matching_break_even needs pairs (or clusters).")
    paired = spec if spec.design == "matched-pairs" else spec.replace(design="matched-pairs", clusters=None, pairs=int(spec.clusters) // 2)
    plain = {k: v for k, v in paired.given().items() if k not in ("design", "pairs", "clusters", "matching_correlation", "matching_scale")}
    target = power_at(build({**plain, "clusters": 2 * int(paired.pairs)}))

    def gap(r: float) -> float:
        return power_at(paired.replace(matching_correlation=r, matching_scale="means")) - target

    if gap(0.0) >= 0:
        return 0.0
    return float(optimize.brentq(gap, 0.0, 1 - 1e-9, xtol=1e-12))
