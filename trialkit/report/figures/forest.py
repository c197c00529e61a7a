"""The forest plot: one row an outcome, families as groups, the numbers beside the intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from trialkit.door import InputError, unknown_word
from trialkit.report.figures.canvas import (
    ALARM,
    FONT_SIZE,
    INK,
    RULE,
    SOFT,
    WASH,
    Picture,
    clean,
    look,
    new_figure,
    number,
    shorten,
    text_width,
)
from trialkit.report.tables import COHENS_D, is_ratio, outcome_rows, records, symbol
from trialkit.results import format_p, minus

_LINE = 0.27  # inches from one row to the next
_LABEL_MOST = 3.4


def plot_forest(
    results: Any,
    design: Any = None,
    *,
    people: pd.DataFrame | None = None,
    relevant: float | None = None,
    limits: tuple[float, float] | None = None,
    scale: str | None = None,
    ax: Any = None,
) -> Picture:
    """Draw the effects of all outcomes with their confidence intervals.

    Parameters
    ----------
    results : result of ``itt`` or DataFrame
        Columns ``outcome, level, rank, estimate, conf_low, conf_high, p_value, n, clusters``.
    design : TrialDesign, optional
        Labels, direction and the intervention's name.
    people : DataFrame, optional
        Not used for the drawing; gives the numbers per arm in ``data``.
    relevant : float, optional
        The smallest difference that matters, in the unit of the estimates; the zone below it is shaded.
    limits : (float, float), optional
        The axis; an interval that runs beyond it ends in an arrow. By default all intervals fit, up to four
        times the middle width.
    scale : str, optional
        Of the names that `forest_scales` gives: only the outcomes of that scale. By default all outcomes stand in it, and those whose
        measure has another scale than the first one's have their numbers but no interval drawn.
    ax : matplotlib Axes, optional
        Draw the intervals here; the text columns stand beside it.

    Returns
    -------
    Picture
    """
    rows = outcome_rows(results, design, people=people)
    scales = [_scale(m) for m in rows["measure"]]
    if scale is not None:
        if scale not in scales:
            raise InputError(unknown_word(scale, tuple(dict.fromkeys(scales)), what="scale"))
        rows = rows[[s == scale for s in scales]].reset_index(drop=True)
        scales = [scale] * len(rows)
    first = scales[0] if scales else COHENS_D
    drawn = np.array([s == first for s in scales])
    ratio = first == RATIOS
    conf = 100 * float(design.analysis.conf_level) if design is not None else 95.0
    low, high = limits or (_ratio_limits(rows[drawn], relevant) if ratio else _limits(rows[drawn], relevant))
    has = {name: name in rows.columns and rows[name].notna().any() for name in ("p_adjusted", "clusters")}
    columns: list[tuple[str, list[str]]] = [("n", [_count(v) for v in rows["n"]])]
    if has["clusters"]:
        columns.append(("sites", [_count(v) for v in rows["clusters"]]))
    after: list[tuple[str, list[str]]] = [
        (f"{_head(rows)} ({conf:g}% CI)", [_interval(r["estimate"], r["conf_low"], r["conf_high"]) for r in records(rows)]),
        ("p", [format_p(float(v)) for v in rows["p_value"]]),
    ]
    if rows["measure"].nunique() > 1:
        after.insert(0, ("measure", rows["measure"].tolist()))
    if has["p_adjusted"]:
        after.append(("p adj.", [format_p(float(v)) for v in rows["p_adjusted"]]))

    lines: list[tuple[str, str, int]] = []  # kind, text, row
    for level in dict.fromkeys(rows["level_label"]):
        lines.append(("group", str(level), -1))
        lines += [("row", _label(r), k) for k, r in enumerate(records(rows)) if r["level_label"] == level]
    label_width = min(_LABEL_MOST, max(text_width(shorten(t, _LABEL_MOST), bold=kind != "row") for kind, t, _ in lines)) + 0.3
    width_of = {name: max(text_width(name, FONT_SIZE - 0.5), *(text_width(c) for c in cells)) + 0.25 for name, cells in (*columns, *after)}
    plot_width = 3.3
    left = label_width + sum(width_of[name] for name, _ in columns) + 0.1
    right = sum(width_of[name] for name, _ in after)
    total, body = left + plot_width + right, len(lines) * _LINE
    height = body + 0.36 + 0.72

    from matplotlib.ticker import FixedLocator, MaxNLocator

    with look("forest"):
        if ax is None:
            figure = new_figure(total, height)
            ax = figure.add_axes((left / total, 0.72 / height, plot_width / total, body / height))
        else:
            figure = ax.figure
        ax.set_ylim(len(lines) - 0.5, -0.5)
        if ratio:
            ax.set_xscale("log")
        ax.set_xlim(low, high)
        for side in ("left", "right", "top"):
            ax.spines[side].set_visible(False)
        ax.set_yticks([])
        if relevant and ratio:
            ax.axvspan(min(relevant, 1 / relevant), max(relevant, 1 / relevant), color=WASH, lw=0, zorder=0)
        elif relevant:
            ax.axvspan(-abs(relevant), abs(relevant), color=WASH, lw=0, zorder=0)
        ax.axvline(1.0 if ratio else 0.0, color=SOFT, lw=0.8, zorder=1)
        inch = 1.0 / plot_width  # one inch, in the unit of the axes' width
        place = ax.get_yaxis_transform()

        def write(x: float, y: float, text: str, align: str, **kw: Any) -> None:
            ax.text(x, y, text, transform=place, ha=align, va="center", clip_on=False, **kw)

        at = -left * inch
        edges_before = np.cumsum([width_of[name] for name, _ in columns])
        edges_after = np.cumsum([width_of[name] for name, _ in after])
        for (name, _), edge in zip(columns, edges_before, strict=True):
            write(at + (label_width + edge - 0.12) * inch, -1.0, name, "right", color=SOFT, fontsize=FONT_SIZE - 0.5)
        for (name, _), edge in zip(after, edges_after, strict=True):
            write(1 + edge * inch, -1.0, name, "right", color=SOFT, fontsize=FONT_SIZE - 0.5)
        for y, (kind, text, k) in enumerate(lines):
            if kind == "group":
                write(at, y, shorten(clean(text), _LABEL_MOST), "left", weight="bold")
                continue
            row = rows.iloc[k]
            primary = row["rank"] == "primary"
            write(at + 0.14 * inch, y, shorten(clean(text), _LABEL_MOST), "left", weight="normal", color=INK)
            for (_, cells), edge in zip(columns, edges_before, strict=True):
                write(at + (label_width + edge - 0.12) * inch, y, cells[k], "right")
            for (_, cells), edge in zip(after, edges_after, strict=True):
                write(1 + edge * inch, y, cells[k], "right")
            if drawn[k]:
                _whisker(ax, y, float(row["estimate"]), float(row["conf_low"]), float(row["conf_high"]), low, high, primary=primary)
        ax.plot([at, 1 + right * inch], [-0.55, -0.55], transform=place, color=RULE, lw=0.8, clip_on=False)
        ax.set_xlabel(_axis_words(design, rows[drawn]), fontsize=FONT_SIZE - 0.5, color=INK)
        ax.xaxis.set_major_locator(FixedLocator(_ratio_ticks(low, high)) if ratio else MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
        if ratio:
            ax.xaxis.set_minor_locator(FixedLocator([]))
        ax.xaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
        if (rows["direction"] == "lower").any():
            write(at, len(lines) - 0.5 + 0.44 / _LINE, "↓ a lower score is the better one", "left", color=SOFT, fontsize=FONT_SIZE - 1)
        write(at, len(lines) - 0.5 + 0.22 / _LINE, "■ primary   □ other outcomes", "left", color=SOFT, fontsize=FONT_SIZE - 1)
    return Picture(
        name="forest" if scale is None or scale == COHENS_D else f"forest-{re.sub('[^a-z]+', '-', scale.lower()).strip('-')}",
        title=f"Effect of the intervention on {'every outcome' if scale is None else 'outcomes'}: {_said(rows)} with its {conf:g}% "
        "confidence interval",
        alt=_alt(rows, conf),
        data=rows,
        axes=(ax,),
        figure=figure,
    )


RATIOS = "ratios"


def forest_scales(results: Any, design: Any = None) -> tuple[str, ...]:
    """The scales of the outcomes' measures, in the order of the table: a forest plot can draw one (all ratios share one)."""
    return tuple(dict.fromkeys(_scale(m) for m in outcome_rows(results, design)["measure"]))


def _scale(measure: str) -> str:
    return RATIOS if is_ratio(measure) else measure


def _head(rows: pd.DataFrame) -> str:
    measures = rows["measure"].unique()
    return symbol(str(measures[0])) if len(measures) == 1 else "effect"


def _said(rows: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(rows["measure"]))


def _ratio_limits(rows: pd.DataFrame, relevant: float | None) -> tuple[float, float]:
    logs = rows.assign(**{c: np.log(rows[c].to_numpy(dtype=float)) for c in ("estimate", "conf_low", "conf_high")})
    low, high = _limits(logs, math.log(relevant) if relevant else None)
    return math.exp(low), math.exp(high)


def _ratio_ticks(low: float, high: float) -> list[float]:
    steps = [m * 10.0**k for k in range(-4, 5) for m in (1, 2, 5)] if high / low > 4 else [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.4, 1.7, 2]
    return [v for v in steps if low <= v <= high]


def _limits(rows: pd.DataFrame, relevant: float | None) -> tuple[float, float]:
    finite = rows[["conf_low", "conf_high", "estimate"]].to_numpy(dtype=float)
    reach = np.nanmax(np.abs(finite)) if np.isfinite(finite).any() else 1.0
    half = np.nanmedian((rows["conf_high"] - rows["conf_low"]).to_numpy(dtype=float)) / 2
    middle = float(np.nanmax(np.abs(finite[:, 2])))
    reach = min(float(reach), middle + 4.0 * float(half)) if np.isfinite(half) and half > 0 else float(reach)
    reach = max(reach, abs(relevant or 0.0), 1e-6) * 1.06
    return -reach, reach


def _whisker(ax: Any, y: float, estimate: float, low: float, high: float, least: float, most: float, *, primary: bool) -> None:
    if not np.isfinite(estimate):
        return
    ink = INK if primary else SOFT
    a, b = (max(low, least), min(high, most)) if np.isfinite(low) and np.isfinite(high) else (estimate, estimate)
    ax.plot([a, b], [y, y], color=ink, lw=1.6 if primary else 1.1, solid_capstyle="butt", zorder=2)
    if np.isfinite(low) and low < least:
        ax.plot([least], [y], marker="<", color=ALARM, ms=5, clip_on=False, zorder=3)
    if np.isfinite(high) and high > most:
        ax.plot([most], [y], marker=">", color=ALARM, ms=5, clip_on=False, zorder=3)
    if least <= estimate <= most:
        ax.plot([estimate], [y], marker="s", ms=6 if primary else 5, mfc=INK if primary else "white", mec=ink, mew=1.1, ls="none", zorder=4)


def _interval(estimate: float, low: float, high: float) -> str:
    if not np.isfinite(estimate):
        return "not estimated"
    if not (np.isfinite(low) and np.isfinite(high)):
        return number(estimate)
    return f"{number(estimate)} ({number(low)} to {number(high)})"


def _count(value: object) -> str:
    return "–" if pd.isna(value) else f"{round(float(value)):,}"  # type: ignore[call-overload,arg-type]


def _label(row: Any) -> str:
    return f"{row['label']} ↓" if row["direction"] == "lower" else str(row["label"])


def _axis_words(design: Any, rows: pd.DataFrame) -> str:
    names: Sequence[str] = design.arms.labels if design is not None else ("control", "intervention")
    measures = rows["measure"].unique()
    middle = "ratio" if len(measures) != 1 else "d" if measures[0] == COHENS_D else str(measures[0])
    return f"← lower in {clean(names[1])}    {middle}    higher in {clean(names[1])} →"


def _alt(rows: pd.DataFrame, conf: float) -> str:
    parts = [
        f"{clean(r['label'])}: {_interval(r['estimate'], r['conf_low'], r['conf_high'])}, p {format_p(float(r['p_value']))}"
        for r in records(rows)
    ]
    return f"Forest plot, {_said(rows)} with {conf:g}% intervals. " + "; ".join(parts) + "."
