"""Two-level multiple imputation and the pooling of what it gives."""

from __future__ import annotations

from trialkit.imputation.chained import impute
from trialkit.imputation.comparators import impute_by
from trialkit.imputation.export import write_stata
from trialkit.imputation.imputations import Cells, Imputations
from trialkit.imputation.missingness import Missingness, missing_drivers, missing_flux, missing_patterns
from trialkit.imputation.pooling import (
    PooledEstimate,
    PooledEstimates,
    PooledTest,
    pool,
    pool_chi_square,
    pool_likelihood_ratio,
    pool_wald,
)
from trialkit.imputation.reference import reference_based
from trialkit.imputation.scenarios import Scenarios, compare_scenarios, worst_best
from trialkit.imputation.sensitivity import TippingPoint, shift_missing, tipping_point
from trialkit.imputation.variables import Variable

__all__ = [
    "Cells",
    "Imputations",
    "Missingness",
    "PooledEstimate",
    "PooledEstimates",
    "PooledTest",
    "Scenarios",
    "TippingPoint",
    "Variable",
    "compare_scenarios",
    "impute",
    "impute_by",
    "missing_drivers",
    "missing_flux",
    "missing_patterns",
    "pool",
    "pool_chi_square",
    "pool_likelihood_ratio",
    "pool_wald",
    "reference_based",
    "shift_missing",
    "tipping_point",
    "worst_best",
    "write_stata",
]
