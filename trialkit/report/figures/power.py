"""The power curve: power against the number of clusters, a line an ICC, the planned point marked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from trialkit.door import InputError, require_columns
from trialkit.report.figures.canvas import ALARM, FONT_SIZE, INK, SOFT, Picture, look, minus, new_figure, number

_SHADES = ("#9CC7E0", "#56A0CC", "#0072B2", "#004B76", "#00263C")


def plot_power(
    curve: Any,
    *,
    planned: tuple[float, float] | None = None,
    target: float | None = 0.8,
    x: str = "clusters",
    by: str = "icc",
    ax: Any = None,
) -> Picture:
    """Draw power curves.

    Parameters
    ----------
    curve : result with ``frame``, or DataFrame
        Columns ``power``, `x` and (optionally) `by`; optional ``power_low`` and ``power_high`` are drawn as a band,
        ``simulated`` and ``mc_error`` as points with two Monte Carlo errors either way.
    planned : (float, float), optional
        The planned design: its `x` and its power.
    target : float or None
        A thin line, by default at 0.80.
    x, by : str
        Columns for the axis and the lines.
    ax : matplotlib Axes, optional

    Returns
    -------
    Picture
    """
    data = curve if isinstance(curve, pd.DataFrame) else getattr(curve, "frame", None)
    if not isinstance(data, pd.DataFrame):
        raise InputError(f"a power curve was expected, not {type(curve).__name__}. Give a table with {x} and power.")
    require_columns(data, [x, "power"], where="the power curve", why="to draw it")
    keep = [c for c in (x, by, "power", "power_low", "power_high", "simulated", "mc_error") if c in data.columns]
    data = data[keep].sort_values([c for c in (by, x) if c in keep], kind="stable").reset_index(drop=True)
    lines = sorted(data[by].dropna().unique().tolist()) if by in data.columns else [None]
    name = {"icc": "ICC", "cluster_size": "people a cluster", "effect": "effect"}.get(by, by.replace("_", " "))
    word = {"clusters": "clusters (both arms)", "pairs": "pairs", "cluster_size": "people a cluster"}.get(x, x.replace("_", " "))
    with look("power"):
        if ax is None:
            figure = new_figure(6.4, 3.8)
            ax = figure.add_axes((0.085, 0.14, 0.77, 0.79))
        else:
            figure = ax.figure
        shades = (
            [_SHADES[round(k * (len(_SHADES) - 1) / max(len(lines) - 1, 1))] for k in range(len(lines))] if len(lines) > 1 else [_SHADES[2]]
        )
        ends: list[tuple[float, str, str]] = []
        for value, shade in zip(lines, shades, strict=True):
            part = data if value is None else data[data[by] == value]
            ax.plot(part[x], part["power"], color=shade, lw=1.6, zorder=2)
            if {"power_low", "power_high"} <= set(part.columns):
                ax.fill_between(
                    part[x].to_numpy(float),
                    part["power_low"].to_numpy(float),
                    part["power_high"].to_numpy(float),
                    color=shade,
                    alpha=0.12,
                    lw=0,
                )
            if "simulated" in part.columns and part["simulated"].notna().any():
                some = part[part["simulated"].notna()]
                error = 2 * some["mc_error"] if "mc_error" in some.columns else None
                ax.errorbar(
                    some[x], some["simulated"], yerr=error, fmt="o", ms=3.5, mfc="white", mec=shade, ecolor=shade, elinewidth=0.9, zorder=3
                )
            if value is not None:
                ends.append((float(part["power"].iloc[-1]), f"{value:g}", shade))
        ax.set_ylim(0, 1.005)
        ax.set_xlim(float(data[x].min()), float(data[x].max()))
        for level in (target,) if target is not None else ():
            ax.axhline(level, color=SOFT, lw=0.7, ls=(0, (4, 3)), zorder=1)
        if planned is not None and np.isfinite(planned[1]):
            ax.plot([planned[0]], [planned[1]], marker="o", ms=7, mfc="white", mec=ALARM, mew=1.6, ls="none", zorder=4, clip_on=False)
            ax.annotate(
                f"planned: {planned[0]:g}, power {number(planned[1])}",
                planned,
                xytext=(10, -16),
                textcoords="offset points",
                color=ALARM,
                ha="left",
                va="top",
                fontsize=FONT_SIZE - 0.5,
            )
        ax.set_xlabel(word)
        ax.set_ylabel("power")
        ax.yaxis.set_major_formatter(lambda v, _: number(v, 1))
        ax.xaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
        _end_labels(ax, ends, name)
    said = f"planned design: {planned[0]:g} {word}, power {planned[1]:.3f}" if planned is not None else "no planned point"
    spans = []
    for value in lines:
        if value is not None:
            part = data[data[by] == value]
            edges = [f"{number(float(part['power'].iloc[k]))} at {part[x].iloc[k]:g}" for k in (0, -1)]
            spans.append(f"{name} {value:g}: power {edges[0]}, {edges[1]}")
    span = "; ".join(spans)
    caption = f"Power against {word}" + (f", a line for each {name}" if len(lines) > 1 else "")
    return Picture("power", caption, f"Power curve, {said}. {span}".strip(), data, (ax,), figure)


def _end_labels(ax: Any, ends: list[tuple[float, str, str]], name: str) -> None:
    """The lines' names at their right ends, moved apart where they would touch."""
    if not ends:
        return
    step, floor = 0.058, 0.0
    heights: list[float] = []
    for y, _, _ in sorted(ends):
        floor = max(y, floor)
        heights.append(floor)
        floor += step
    over = heights[-1] - 0.985
    if over > 0:
        for k in range(len(heights) - 1, -1, -1):
            heights[k] = min(heights[k], 0.985 - step * (len(heights) - 1 - k))
    for height, (_, text, _) in zip(heights, sorted(ends), strict=True):
        ax.text(
            1.02,
            height,
            text,
            transform=ax.get_yaxis_transform(),
            ha="left",
            va="center",
            color=INK,
            fontsize=FONT_SIZE - 0.5,
            clip_on=False,
        )
    ax.text(
        1.02,
        heights[-1] + step * 1.05,
        name,
        transform=ax.get_yaxis_transform(),
        ha="left",
        va="center",
        color=INK,
        fontsize=FONT_SIZE - 0.5,
        clip_on=False,
    )


def planned_curve(power: Any) -> tuple[pd.DataFrame | None, tuple[float, float] | None, str]:
    """The curve around a planned design: a quarter to twice its clusters (or pairs), for its ICC and ICCs beside it.

    Returns the curve, the planned point and what is on the axis; the curve is None for a design whose clusters cannot
    simply be varied.
    """
    value, design = getattr(power, "power", None), getattr(power, "design", None)
    scheme = getattr(design, "design", None)
    over = "pairs" if scheme == "matched-pairs" else "clusters"
    count = getattr(power, over, None)
    if not isinstance(count, int | float) or not isinstance(value, float):
        return None, None, over
    point = (float(count), value)
    icc = getattr(design, "icc", None)
    if scheme not in ("parallel", "matched-pairs") or not isinstance(icc, int | float) or getattr(design, "effect", None) is None:
        return None, point, over
    from trialkit.power import power_grid

    step = 1 if over == "pairs" else 2
    beside = sorted({round(x, 4) for x in (0.0, icc / 2, float(icc), 2 * icc, 4 * icc) if x < 0.6})
    low = max(2 * step, step * round(count / (4 * step)))
    steps = sorted({*(step * round(c / step) for c in np.linspace(low, 2 * count, 30)), int(count)})
    return power_grid(design, **{over: steps}, icc=beside).frame, point, over
