"""The pictures: each a function of a result that gives a `Picture` - axes, the numbers drawn, words, SVG and PNG."""

from __future__ import annotations

from trialkit.report.figures.balance import plot_love, plot_pairs
from trialkit.report.figures.canvas import Picture
from trialkit.report.figures.cluster_size import plot_cluster_size
from trialkit.report.figures.flow import plot_flow
from trialkit.report.figures.forest import plot_forest
from trialkit.report.figures.icc import plot_icc
from trialkit.report.figures.imputed import plot_imputed, plot_imputed_sites
from trialkit.report.figures.missing import plot_missing
from trialkit.report.figures.patterns import plot_flux, plot_patterns
from trialkit.report.figures.power import plot_power, plot_power_contour
from trialkit.report.figures.residuals import plot_residuals
from trialkit.report.figures.sensitivity import plot_scenarios, plot_tipping
from trialkit.report.figures.site_map import plot_site_map
from trialkit.report.figures.sites import plot_caterpillar, plot_cluster_means
from trialkit.report.figures.trace import plot_autocorrelation, plot_trace
from trialkit.report.figures.zipper import plot_zipper

__all__ = [
    "Picture",
    "plot_autocorrelation",
    "plot_caterpillar",
    "plot_cluster_means",
    "plot_cluster_size",
    "plot_flow",
    "plot_flux",
    "plot_forest",
    "plot_icc",
    "plot_imputed",
    "plot_imputed_sites",
    "plot_love",
    "plot_missing",
    "plot_pairs",
    "plot_patterns",
    "plot_power",
    "plot_power_contour",
    "plot_residuals",
    "plot_scenarios",
    "plot_site_map",
    "plot_tipping",
    "plot_trace",
    "plot_zipper",
]
