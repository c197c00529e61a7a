"""Two-level multiple imputation and the pooling of what it gives."""

from __future__ import annotations

from trialkit.imputation.pooling import PooledEstimate, pool

__all__ = ["PooledEstimate", "pool"]
