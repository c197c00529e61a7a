"""How the other rooms' results are printed: balance of the draw, imputation, operating characteristics, any tidy frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from trialkit.design import TrialDesign
from trialkit.report.layout import Layout, Row
from trialkit.report.tables import in_words, plain_number, records
from trialkit.results import MISSING, Table, format_cell, minus


def balance_layout(allocation: Any, arms: tuple[str, str] = ("control", "intervention")) -> Layout | None:
    """The balance of the draw as printed, from ``allocation.balance()``; None when there is none."""
    frame = balance_frame(allocation)
    if frame is None:
        return None
    several = "arm" in frame.columns and frame["arm"].nunique() > 1
    rows = []
    for r in frame.to_dict(orient="records"):
        label = in_words(str(r["covariate"]))
        if isinstance(r.get("level"), str):
            label += f": {r['level']}"
        if several:
            label += f" ({r['arm']})"
        numbers = (plain_number(r.get(c)) for c in ("mean", "reference_mean", "difference"))
        fixed = (minus(format_cell(r.get(c), spec)) for c, spec in (("std_difference", ".2f"), ("quantile", ".2f")))
        rows.append(Row((label, *numbers, *fixed)))
    made = allocation.balance() if callable(allocation.balance) else allocation.balance
    notes = tuple(str(n).replace("std_difference", "Standardised").replace("quantile:", "Quantile:") for n in getattr(made, "notes", ()))
    heads = ("", "Mean or share, " + ("arm" if several else arms[1]), arms[0], "Difference", "Standardised", "Quantile")
    return Layout(heads, tuple(rows), "lrrrrr", "Balance of the draw", notes)


def balance_frame(allocation: Any) -> pd.DataFrame | None:
    """The frame of ``allocation.balance()``, whether it is a frame or a result."""
    balance = getattr(allocation, "balance", None)
    made = balance() if callable(balance) else balance
    frame = getattr(made, "frame", made)
    return frame if isinstance(frame, pd.DataFrame) and len(frame) else None


def pairs_layout(comparison: Any) -> Layout:
    """What matching bought, as printed, from ``compare_pairings``: the pairs beside nearest-first and random ones."""
    rows = []
    for r in records(comparison.frame):
        numbers = (_total(r["total"]), plain_number(r["mean_gap"]), _total(r["max_gap"]))
        others = (_total(r["nearest_first"]), plain_number(r["random_mean"]), _total(r["random_least"]))
        rows.append(Row((in_words(str(r["criterion"])), *numbers, f"{100 * r['share_exact']:.0f}%", *others)))
    heads = ("Criterion, in rank order", "Total", "Mean gap", "Largest gap", "No gap", "Nearest first", "Random, mean", "Random, least")
    return Layout(heads, tuple(rows), "lrrrrrrr", "The pairs beside other pairs of the same sites", tuple(map(str, comparison.notes)))


def _total(value: float) -> str:
    """A sum of whole distances is a whole number."""
    return f"{value:,.0f}" if float(value).is_integer() else plain_number(value)


def frame_layout(frame: pd.DataFrame, title: str, notes: tuple[str, ...], formats: Mapping[str, str] | None = None) -> Layout:
    """Any tidy frame as a printed table: headers in words, numbers as `Table` shows them."""
    table = Table(frame, title, notes, formats or {})
    align = "".join("r" if r else "l" for r in table.numeric())
    headers = tuple(str(c).replace("_", " ") for c in frame.columns)
    rows = tuple(Row(tuple(minus(cell) if _negative(cell) else cell for cell in cells)) for cells in table.cells())
    return Layout(headers, rows, align, title, notes)


def column_labels(design: TrialDesign | None) -> dict[str, str]:
    """Column -> label, for the columns a design knows."""
    if design is None:
        return {}
    labels = {c.name: in_words(c.name) for c in design.covariates}
    for o in design.outcomes:
        labels[o.name] = o.label
        if o.baseline:
            labels[o.baseline] = f"{o.label}, baseline"
    return labels


def imputation_layout(imputations: Any, design: TrialDesign | None = None) -> Layout | None:
    """How each variable was imputed and whether its chains mixed, as printed; None when there is no such table."""
    frame = getattr(imputations, "frame", None)
    if not isinstance(frame, pd.DataFrame) or frame.empty:
        return None
    title, notes = "How each variable was imputed", tuple(map(str, getattr(imputations, "notes", ()) or ()))
    needed = {"variable", "method", "missing", "share", "r_hat_mean", "r_hat_sd", "ess_mean", "icc", "observed_mean", "imputed_mean"}
    if not needed <= set(frame.columns):
        return frame_layout(frame, title, notes, dict(getattr(imputations, "formats", {}) or {}))
    groups = frame["group"].astype(str).tolist() if "group" in frame.columns else [""] * len(frame)
    several = len(set(groups)) > 1
    labels = column_labels(design)
    rows: list[Row] = []
    for group in dict.fromkeys(groups):
        if several:
            rows.append(Row((f"People: {group}",), group=True))
        for of, r in zip(groups, records(frame), strict=True):
            if of == group:
                cells = (
                    str(r["method"]),
                    f"{int(r['missing']):,} ({100 * r['share']:.0f}%)",
                    *(
                        format_cell(r[c], spec)
                        for c, spec in (("r_hat_mean", ".2f"), ("r_hat_sd", ".2f"), ("ess_mean", ".0f"), ("icc", ".2f"))
                    ),
                    plain_number(r["observed_mean"]),
                    plain_number(r["imputed_mean"]),
                )
                name = str(r["variable"])
                rows.append(Row((labels.get(name, in_words(name)), *cells), depth=int(several)))
    heads = ("", "Method", "Missing", "R-hat mean", "R-hat SD", "ESS", "ICC", "Mean observed", "Mean imputed")
    legend = "R-hat, ESS (effective sample size): of the imputed values' mean over chains and iterations; R-hat near 1: the chains agree."
    return Layout(heads, tuple(rows), "llrrrrrrr", title, (*notes, legend))


def checks_layout(checks: Any, design: TrialDesign | None = None) -> Layout | None:
    """Operating characteristics as printed, each with its Monte Carlo error; None when there is no such table."""
    frame = getattr(checks, "frame", None)
    if not isinstance(frame, pd.DataFrame) or frame.empty:
        return None
    title = str(getattr(checks, "title", "") or "Operating characteristics")
    notes = tuple(str(n) for n in getattr(checks, "notes", ()) or ())
    needed = {
        "outcome",
        "truth",
        "bias",
        "bias_mcse",
        "empirical_se",
        "model_se",
        "coverage",
        "coverage_mcse",
        "rejection",
        "rejection_mcse",
    }
    if not needed <= set(frame.columns):
        return frame_layout(frame, title, notes, dict(getattr(checks, "formats", {}) or {}))
    analyses = frame["analysis"].astype(str).tolist() if "analysis" in frame.columns else [""] * len(frame)
    labels = column_labels(design)
    rows: list[Row] = []
    for analysis in dict.fromkeys(analyses):
        if analysis:
            rows.append(Row((analysis,), group=True))
        for of, r in zip(analyses, records(frame), strict=True):
            if of != analysis:
                continue

            def cell(name: str, spec: str, row: dict[str, Any] = r) -> str:
                text = format_cell(row[name], spec)
                error = row.get(f"{name}_mcse")
                text += f" ({format_cell(error, spec)})" if error is not None and not pd.isna(error) else ""
                return minus(text)

            cells = [cell("truth", ".2f"), cell("bias", ".3f"), cell("empirical_se", ".3f"), cell("model_se", ".3f")]
            cells += [cell("coverage", ".3f"), cell("rejection", ".3f")]
            cells.append(f"{int(r['failed']):,}" if not pd.isna(r.get("failed", np.nan)) else MISSING)
            cells.append("" if "inside" not in r else "yes" if r["inside"] else f"no: {r.get('outside', '')}".rstrip(": "))
            name = str(r["outcome"])
            rows.append(Row((labels.get(name, in_words(name)), *cells), depth=int(bool(analysis))))
    heads = ("Figure (Monte Carlo error)", "True d", "Bias", "Empirical SE", "Model SE", "Coverage", "Rejected", "Failed", "Inside limits")
    return Layout(heads, tuple(rows), "lrrrrrrrl", title, notes)


def _negative(cell: str) -> bool:
    return (
        len(cell) > 1
        and cell[0] == "-"
        and cell[1:].replace(",", "").replace(".", "").replace("e", "").replace("-", "").replace("+", "").isdigit()
    )
