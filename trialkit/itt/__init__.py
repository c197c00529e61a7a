"""Intention to treat: mixed models with small-sample inference, effect sizes, multiplicity, and one call for all outcomes of a trial.

Beside the model: cluster-level and paired analyses, the randomisation test, marginal models, robust covariances.
"""

from __future__ import annotations

from trialkit.itt.analysis import ITTResults, itt
from trialkit.itt.by_statsmodels import HandedModel
from trialkit.itt.cluster_level import SiteComparison, SiteValues, paired, site_values, two_stage
from trialkit.itt.comparison import MethodComparison, compare_methods
from trialkit.itt.compliance import ComplierEffect, complier_effect
from trialkit.itt.effect_conversions import convert_effect
from trialkit.itt.effect_sizes import EffectSize, cohens_d, effect_size, hedges_2007, hedges_g, standard_deviation, two_sample_d
from trialkit.itt.estimands import EstimandEffects, WeightedEffects, estimand_effects, weighted_effects
from trialkit.itt.gee import MarginalModel, fit_marginal
from trialkit.itt.generalised import GeneralisedMixedModel, fit_generalised
from trialkit.itt.influence import Influence, leave_one_out
from trialkit.itt.mixed import MixedModel, fit_mixed
from trialkit.itt.multiplicity import adjust, adjust_families, gatekeeping, graphical
from trialkit.itt.ordinal import OrdinalModel, fit_ordinal
from trialkit.itt.pair_effects import PairEffects, PairFlips, pair_effects
from trialkit.itt.pooled_comparison import PooledComparison, pool_comparison
from trialkit.itt.randomisation import AssignmentList, RandomisationTest, Scheme, max_t, randomisation_test
from trialkit.itt.robust import robust
from trialkit.itt.shifts import itt_shifts
from trialkit.itt.subgroups import SubgroupEffects, subgroup_effects

__all__ = [
    "AssignmentList",
    "ComplierEffect",
    "EffectSize",
    "EstimandEffects",
    "GeneralisedMixedModel",
    "HandedModel",
    "ITTResults",
    "Influence",
    "MarginalModel",
    "MethodComparison",
    "MixedModel",
    "OrdinalModel",
    "PairEffects",
    "PairFlips",
    "PooledComparison",
    "RandomisationTest",
    "Scheme",
    "SiteComparison",
    "SiteValues",
    "SubgroupEffects",
    "WeightedEffects",
    "adjust",
    "adjust_families",
    "cohens_d",
    "compare_methods",
    "complier_effect",
    "convert_effect",
    "effect_size",
    "estimand_effects",
    "fit_generalised",
    "fit_marginal",
    "fit_mixed",
    "fit_ordinal",
    "gatekeeping",
    "graphical",
    "hedges_2007",
    "hedges_g",
    "itt",
    "itt_shifts",
    "leave_one_out",
    "max_t",
    "pair_effects",
    "paired",
    "pool_comparison",
    "randomisation_test",
    "robust",
    "site_values",
    "standard_deviation",
    "subgroup_effects",
    "two_sample_d",
    "two_stage",
    "weighted_effects",
]

# a grid of shifts asks the analysis it is given whether it can do them all at once
itt.shifts = itt_shifts  # type: ignore[attr-defined]
