"""Two-level multiple imputation and the pooling of what it gives."""

from __future__ import annotations

from trialkit.imputation.chained import impute
from trialkit.imputation.imputations import Cells, Imputations
from trialkit.imputation.pooling import PooledEstimate, pool
from trialkit.imputation.sensitivity import TippingPoint, shift_missing, tipping_point
from trialkit.imputation.variables import Variable

__all__ = [
    "Cells",
    "Imputations",
    "PooledEstimate",
    "TippingPoint",
    "Variable",
    "impute",
    "pool",
    "shift_missing",
    "tipping_point",
]
