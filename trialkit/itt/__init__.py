"""Intention to treat: mixed models with small-sample inference, effect sizes, multiplicity, and one call for all outcomes of a trial."""

from __future__ import annotations

from trialkit.itt.mixed import MixedModel, fit_mixed

__all__ = ["MixedModel", "fit_mixed"]
