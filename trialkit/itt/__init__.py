"""Intention to treat: mixed models with small-sample inference, effect sizes, multiplicity, and one call for all outcomes of a trial."""

from __future__ import annotations

from trialkit.itt.analysis import ITTResults, itt
from trialkit.itt.mixed import MixedModel, fit_mixed

__all__ = ["ITTResults", "MixedModel", "fit_mixed", "itt"]
