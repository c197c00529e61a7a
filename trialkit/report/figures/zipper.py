"""Zipper plot of simulated trials: their intervals ranked by how far the estimate lies from the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from trialkit.door import InputError
from trialkit.report.figures.canvas import (
    ALARM,
    FONT_SIZE,
    INK,
    REFERENCE,
    RULE,
    SOFT,
    Picture,
    clean,
    look,
    new_figure,
    shorten,
    text_width,
)
from trialkit.results import minus

_COLUMNS = ("estimate", "conf_low", "conf_high", "truth")


def intervals_of(checks: Any) -> pd.DataFrame | None:
    """Every trial's interval as ``estimate, conf_low, conf_high, truth`` (and ``outcome, analysis``); None when not kept."""
    candidates = (
        [checks] if isinstance(checks, pd.DataFrame) else [getattr(checks, n, None) for n in ("estimates", "replicates", "intervals")]
    )
    for found in candidates:
        if isinstance(found, pd.DataFrame) and len(found) and set(_COLUMNS) <= set(found.columns):
            return found
    return None


def plot_zipper(
    checks: Any, *, panels: int = 6, top: float = 0.25, conf_level: float = 0.95, labels: Mapping[str, str] | None = None
) -> Picture:
    """Draw the simulated intervals, the worst on top; those that miss the truth are red.

    Parameters
    ----------
    checks : result of ``check``, or DataFrame
        One row a trial (and outcome): estimate, conf_low, conf_high, truth.
    panels : int
        At most so many outcomes or analyses, one panel each.
    top : float
        Share of the trials to draw, the worst.
    conf_level : float
        The nominal coverage, marked by a line with its Monte Carlo band.
    labels : mapping of outcome to label, optional

    Returns
    -------
    Picture
        ``data``: panel, rank (0 to 1), estimate, conf_low, conf_high, truth, covers.
    """
    frame = intervals_of(checks)
    if frame is None:
        raise InputError(
            "the simulated intervals were not kept with this check. Give a table of " + ", ".join(_COLUMNS) + ", one row a trial."
        )
    by = [c for c in ("outcome", "analysis") if c in frame.columns and frame[c].nunique() > 1]
    columns = [frame[c].astype(str).map(lambda v: (labels or {}).get(v, v)) for c in by]
    names = pd.concat(columns, axis=1).agg(", ".join, axis=1) if by else pd.Series("all trials", index=frame.index)
    parts = []
    for name in list(dict.fromkeys(names.tolist()))[:panels]:
        part = frame.loc[names == name, list(_COLUMNS)].dropna().copy()
        spread = (part["conf_high"] - part["conf_low"]).replace(0.0, np.nan)
        part["panel"], part["covers"] = name, (part["conf_low"] <= part["truth"]) & (part["truth"] <= part["conf_high"])
        distance = ((part["estimate"] - part["truth"]) / spread).abs()
        part["rank"] = distance.rank(method="first") / len(part)
        parts.append(part)
    data = pd.concat(parts, ignore_index=True).sort_values(["panel", "rank"], kind="stable").reset_index(drop=True)
    shown = list(dict.fromkeys(p["panel"].iloc[0] for p in parts if len(p)))
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    width, panel = 7.4, 2.3
    height = down * panel + 0.4
    coverage = {}
    with look("zipper"):
        figure = new_figure(width, height)
        axes = []
        for k, name in enumerate(shown):
            row, column = divmod(k, across)
            cell = (width - 0.1) / across
            ax = figure.add_axes(
                (
                    (0.5 + column * cell) / width,
                    (height - (row + 1) * panel + 0.16) / height,
                    (cell - 0.62) / width,
                    (panel - 0.55) / height,
                )
            )
            part = data[data["panel"] == name]
            coverage[name] = (float(part["covers"].mean()), len(part))
            worst = part[part["rank"] > 1 - top]
            for covers, colour in ((True, RULE), (False, ALARM)):
                some = worst[worst["covers"] == covers]
                ax.hlines(100 * some["rank"], some["conf_low"] - some["truth"], some["conf_high"] - some["truth"], color=colour, lw=0.8)
            ax.axvline(0, color=INK, lw=0.8)
            error = 1.96 * np.sqrt(conf_level * (1 - conf_level) / max(len(part), 1))
            ax.axhspan(100 * (conf_level - error), 100 * min(conf_level + error, 1.0), color=REFERENCE, alpha=0.14, lw=0)
            ax.axhline(100 * conf_level, color=REFERENCE, lw=0.8, ls=(0, (4, 3)))
            ax.set_ylim(100 * (1 - top), 100.4)
            share, small = f" {100 * coverage[name][0]:.1f}%", FONT_SIZE - 0.5
            room = cell - 0.52 - text_width(share, small)
            ax.set_title(shorten(clean(name), room, small) + share, fontsize=small)
            ax.tick_params(labelsize=FONT_SIZE - 2)
            ax.xaxis.get_major_locator().set_params(nbins=4)
            ax.xaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
            axes.append(ax)
        figure.text(0.5, 0.05 / height, "interval minus the truth", ha="center", va="bottom", color=SOFT, fontsize=FONT_SIZE - 1)
        figure.text(
            0.0, 0.5, "rank of the distance from the truth, %", rotation=90, ha="left", va="center", color=SOFT, fontsize=FONT_SIZE - 1
        )
    alt = "; ".join(f"{clean(n)}: {100 * c:.1f}% of {t:,} intervals cover the truth" for n, (c, t) in coverage.items()) + "."
    caption = (
        f"Intervals of the simulated trials, the {100 * top:g}% furthest from the truth; red: the truth is missed; above: the share that "
        f"cover it. Blue: {100 * conf_level:g}% with its Monte Carlo error"
    )
    return Picture("zipper", caption, alt, data, tuple(axes), figure)
