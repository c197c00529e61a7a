"""Linear mixed models with nested random intercepts by REML or maximum likelihood: the names of the kernel.

``y = X b + sum_k Z_k u_k + e``, ``u_k ~ N(0, sigma_k^2)``, ``e_i ~ N(0, sigma^2 / w_i)``, grouping factors outermost first: (site),
(pair, site) or (site, person). The way through: :mod:`reml_reduction` (rows to sufficient statistics), :mod:`reml_criterion` (the
likelihood and its derivatives at any variance ratios), :mod:`reml_one` and :mod:`reml_search` (its optimum, with one factor and with two),
:mod:`reml_fit` (records), :mod:`reml_many` (one X, thousands of outcomes), :mod:`reml_profile` (likelihood intervals); inference is
:mod:`small_sample`.
"""

from __future__ import annotations

from trialkit._kernels.reml_fit import MixedFit, Optimum, deviance, fit, fit_reduced, fit_sets, log_likelihood_at, random_effects
from trialkit._kernels.reml_many import ManyFits, ManyInference, fit_cluster_summaries, fit_many
from trialkit._kernels.reml_profile import profile_contrasts, profile_ratio, profile_sd
from trialkit._kernels.reml_reduction import STATUS, Reduced, independent_columns, reduce

__all__ = [
    "STATUS",
    "ManyFits",
    "ManyInference",
    "MixedFit",
    "Optimum",
    "Reduced",
    "deviance",
    "fit",
    "fit_cluster_summaries",
    "fit_many",
    "fit_reduced",
    "fit_sets",
    "independent_columns",
    "log_likelihood_at",
    "profile_contrasts",
    "profile_ratio",
    "profile_sd",
    "random_effects",
    "reduce",
]
