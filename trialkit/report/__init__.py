"""The report room: tables, pictures, participant flow and the page. It reads results and fits nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trialkit.report.baseline import Baseline, baseline_table
    from trialkit.report.document import Report, report, save_figures
    from trialkit.report.figures import (
        Picture,
        plot_autocorrelation,
        plot_caterpillar,
        plot_cluster_means,
        plot_cluster_size,
        plot_flow,
        plot_flux,
        plot_forest,
        plot_icc,
        plot_imputed,
        plot_imputed_sites,
        plot_love,
        plot_missing,
        plot_pairs,
        plot_patterns,
        plot_power,
        plot_power_contour,
        plot_residuals,
        plot_scenarios,
        plot_site_map,
        plot_tipping,
        plot_trace,
        plot_zipper,
    )
    from trialkit.report.flow import Flow, participant_flow
    from trialkit.report.missing import Missing, missing_table
    from trialkit.report.tables import ReportTable, report_table, write_tables
    from trialkit.report.words import analysis_paragraph, flow_paragraph, missing_paragraph, results_paragraph

# loaded when first used: a table need not wait for matplotlib, nor a command line for jinja2
_HOME = {
    "Baseline": "baseline",
    "baseline_table": "baseline",
    "Report": "document",
    "report": "document",
    "save_figures": "document",
    "Picture": "figures",
    "plot_autocorrelation": "figures",
    "plot_caterpillar": "figures",
    "plot_cluster_means": "figures",
    "plot_cluster_size": "figures",
    "plot_flow": "figures",
    "plot_flux": "figures",
    "plot_forest": "figures",
    "plot_icc": "figures",
    "plot_imputed": "figures",
    "plot_imputed_sites": "figures",
    "plot_love": "figures",
    "plot_missing": "figures",
    "plot_pairs": "figures",
    "plot_patterns": "figures",
    "plot_power": "figures",
    "plot_power_contour": "figures",
    "plot_residuals": "figures",
    "plot_scenarios": "figures",
    "plot_site_map": "figures",
    "plot_tipping": "figures",
    "plot_trace": "figures",
    "plot_zipper": "figures",
    "Flow": "flow",
    "participant_flow": "flow",
    "Missing": "missing",
    "missing_table": "missing",
    "ReportTable": "tables",
    "report_table": "tables",
    "write_tables": "tables",
    "analysis_paragraph": "words",
    "flow_paragraph": "words",
    "missing_paragraph": "words",
    "results_paragraph": "words",
}

__all__ = [
    "Baseline",
    "Flow",
    "Missing",
    "Picture",
    "Report",
    "ReportTable",
    "analysis_paragraph",
    "baseline_table",
    "flow_paragraph",
    "missing_paragraph",
    "missing_table",
    "participant_flow",
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
    "report",
    "report_table",
    "results_paragraph",
    "save_figures",
    "write_tables",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
