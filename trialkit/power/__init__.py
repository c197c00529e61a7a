"""Power, sample size and detectable effect of cluster-randomised trials; estimation of the ICC.

Closed form: power under the planned analysis, by simulation, lives in `trialkit.simulation`.
"""

from __future__ import annotations

from trialkit.power.icc import IccEstimate, estimate_icc
from trialkit.power.specification import PowerDesign
from trialkit.power.verbs import Infeasible, attainable_power, detectable_effect, least_clusters, power, sample_size, solve

__all__ = [
    "IccEstimate",
    "Infeasible",
    "PowerDesign",
    "attainable_power",
    "detectable_effect",
    "estimate_icc",
    "least_clusters",
    "power",
    "sample_size",
    "solve",
]
