"""Power, sample size and detectable effect of cluster-randomised trials; estimation of the ICC.

Closed form: power under the planned analysis, by simulation, lives in `trialkit.simulation`.
"""

from __future__ import annotations

from trialkit.power.attained import AttainedPower, attained_power, relative_efficiency
from trialkit.power.coprimary import CoPrimaryResult, co_primary, co_primary_clusters
from trialkit.power.cost import BestTrial, best_trial, matching_break_even, optimal_cluster_size
from trialkit.power.grid import PowerGrid, power_curve, power_grid
from trialkit.power.icc import IccEstimate, estimate_icc
from trialkit.power.layouts import crossover, parallel, stepped_wedge
from trialkit.power.results import PowerResult
from trialkit.power.specification import PowerDesign
from trialkit.power.uncertainty import (
    Assurance,
    IccPrior,
    assurance,
    beta_prior,
    icc_band,
    normal_prior,
    pilot_prior,
    published_prior,
)
from trialkit.power.verbs import Infeasible, attainable_power, detectable_effect, least_clusters, power, sample_size, solve

__all__ = [
    "Assurance",
    "AttainedPower",
    "BestTrial",
    "CoPrimaryResult",
    "IccEstimate",
    "IccPrior",
    "Infeasible",
    "PowerDesign",
    "PowerGrid",
    "PowerResult",
    "assurance",
    "attainable_power",
    "attained_power",
    "best_trial",
    "beta_prior",
    "co_primary",
    "co_primary_clusters",
    "crossover",
    "detectable_effect",
    "estimate_icc",
    "icc_band",
    "least_clusters",
    "matching_break_even",
    "normal_prior",
    "optimal_cluster_size",
    "parallel",
    "pilot_prior",
    "power",
    "power_curve",
    "power_grid",
    "published_prior",
    "relative_efficiency",
    "sample_size",
    "solve",
    "stepped_wedge",
]
