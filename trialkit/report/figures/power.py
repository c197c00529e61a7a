"""The power curve: power against the number of clusters, a line an ICC, the planned point marked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from trialkit.door import InputError, require_columns
from trialkit.report.figures.canvas import ALARM, FONT_SIZE, INK, SOFT, Picture, look, new_figure, number
from trialkit.results import minus

_WORDS = {
    "clusters": "clusters, both arms",
    "cluster_size": "people a cluster",
    "icc": "ICC",
    "pairs": "matched pairs",
    "matching_correlation": "matching",
    "cluster_size_cv": "coefficient of variation of cluster sizes",
}
_SHADES = ("#9CC7E0", "#56A0CC", "#0072B2", "#004B76", "#00263C")


def plot_power(
    curve: Any,
    *,
    planned: tuple[float, float] | None = None,
    target: float | None = 0.8,
    x: str | None = None,
    by: str | None = None,
    band: tuple[float, float] | None = None,
    simulated: Any = None,
    ax: Any = None,
) -> Picture:
    """Draw power curves.

    Parameters
    ----------
    curve : PowerGrid, PowerResult, or DataFrame
        A single `PowerResult` draws the curve around it, its own point marked. Otherwise columns ``power``, `x` and
        (optionally) `by`; optional ``power_low`` and ``power_high`` are drawn as a band, ``simulated`` and ``mc_error`` as points
        with two Monte Carlo errors either way.
    planned : (float, float), optional
        The planned design: its `x` and its power.
    target : float or None
        A thin line, by default at 0.80.
    x, by : str, optional
        Columns for the axis and the lines; by default those that a grid varies, or clusters and icc.
    band : (float, float), optional
        Two of the values of `by`: the area between their lines is shaded, such as the interval of an estimated ICC.
    simulated : DataFrame, or PlannedPower or several of them, optional
        Check points: columns `x`, ``power``, ``mc_error`` (and `by`, where there are several lines), or simulations of the planned
        analysis, of which the first analysis is drawn. Two Monte Carlo errors either way.
    ax : matplotlib Axes, optional

    Returns
    -------
    Picture
    """
    data = curve if isinstance(curve, pd.DataFrame) else getattr(curve, "frame", None)
    if hasattr(curve, "design") and isinstance(getattr(curve, "power", None), float):
        around, point, over = planned_curve(curve)
        if around is not None:
            data, x, by = around, over, "icc"
            planned = point if planned is None else planned
    varying = getattr(curve, "varying", ())
    if len(varying) > 2:
        raise InputError(f"a picture shows two varying arguments, and here are {len(varying)}: {', '.join(varying)}. Fix some of them.")
    x = x or (varying[0] if varying else "clusters")
    by = by or next((v for v in varying if v != x), "icc")
    if not isinstance(data, pd.DataFrame):
        raise InputError(f"a power curve was expected, not {type(curve).__name__}. Give a table with {x} and power.")
    require_columns(data, [x, "power"], where="the power curve", why="to draw it")
    if band is not None and (by not in data.columns or not set(band) <= set(data[by])):
        raise InputError(f"band={band!r} names two lines to shade between: both must be values of {by} in the curve.")
    if simulated is not None:
        data = _with_points(data, simulated, x, by)
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
        if band is not None:
            edges_of = [data[(data[by] == v) & data["power"].notna()] for v in band]
            ax.fill_between(
                edges_of[0][x].to_numpy(float),
                edges_of[0]["power"].to_numpy(float),
                np.interp(edges_of[0][x].to_numpy(float), edges_of[1][x].to_numpy(float), edges_of[1]["power"].to_numpy(float)),
                color=_SHADES[1],
                alpha=0.16,
                lw=0,
                zorder=0,
            )
        ends: list[tuple[float, str, str]] = []
        for value, shade in zip(lines, shades, strict=True):
            part = data if value is None else data[data[by] == value]
            line = part[part["power"].notna()]
            ax.plot(line[x], line["power"], color=shade, lw=1.6, zorder=2)
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
                ends.append((float(line["power"].iloc[-1]), f"{value:g}", shade))
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
            part = data[(data[by] == value) & data["power"].notna()]
            edges = [f"{number(float(part['power'].iloc[k]))} at {part[x].iloc[k]:g}" for k in (0, -1)]
            spans.append(f"{name} {value:g}: power {edges[0]}, {edges[1]}")
    span = "; ".join(spans)
    caption = f"Power against {word}" + (f", a line for each {name}" if len(lines) > 1 else "")
    if "simulated" in data.columns and data["simulated"].notna().any():
        caption += "; points are simulated, with two Monte Carlo errors either way"
        checks = data[data["simulated"].notna()]
        span += "; simulated: " + ", ".join(f"{number(p, 3)} at {at:g}" for at, p in zip(checks[x], checks["simulated"], strict=True))
    return Picture("power", caption, f"Power curve, {said}. {span}".strip(), data, (ax,), figure)


def _with_points(data: pd.DataFrame, simulated: Any, x: str, by: str) -> pd.DataFrame:
    """The curve with its check points: rows of their own, whose ``power`` is missing."""
    if not isinstance(simulated, pd.DataFrame):
        several = [simulated] if hasattr(simulated, "settings") else list(simulated)
        rows = []
        for found in several:
            first, settings = found.frame.iloc[0], found.settings
            if x not in settings:
                raise InputError(f"the simulation does not say its {x}: draw the curve over one of {', '.join(map(str, settings))}.")
            rows.append({x: settings[x], by: settings.get(by), "power": first["power"], "mc_error": first["power_mcse"]})
        simulated = pd.DataFrame(rows)
    require_columns(simulated, [x, "power", "mc_error"], where="the simulated check points", why="to draw them beside the curve")
    points = simulated.rename(columns={"power": "simulated"})
    if by in data.columns:
        lines = data[by].dropna().unique()
        if by not in points.columns or points[by].isna().any():
            if len(lines) > 1:
                raise InputError(f"the curve has {len(lines)} lines, one for each {by}: the simulated check points need that column too.")
            points = points.assign(**{by: lines[0]})
        strange = sorted(set(points[by]) - set(lines))
        if strange:
            raise InputError(f"a check point was simulated at {by} = {strange[0]:g}, for which the curve has no line.")
    else:
        points = points.drop(columns=by, errors="ignore")
    joined: pd.DataFrame = pd.concat([data.assign(simulated=np.nan, mc_error=np.nan), points.assign(power=np.nan)], ignore_index=True)
    return joined


def plot_power_contour(
    grid: Any, *, levels: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9), planned: tuple[float, float] | None = None
) -> Picture:
    """Draw lines of equal power over two arguments, such as clusters and people a cluster.

    Parameters
    ----------
    grid : PowerGrid
        Of exactly two varying arguments: the first across, the second upwards.
    levels : tuple of float
        The powers whose lines are drawn; those of 0.8 and 0.9 are heavier.
    planned : (float, float), optional
        The planned design, marked.

    Returns
    -------
    Picture

    Examples
    --------
    >>> from trialkit.power import power_grid
    >>> grid = power_grid(clusters=[20, 40, 60, 80], cluster_size=[2, 5, 10], icc=0.05, effect=0.4)
    >>> plot_power_contour(grid).name
    'power-contour'
    """
    varying: tuple[str, ...] = getattr(grid, "varying", ())
    data = getattr(grid, "frame", None)
    if data is None or len(varying) != 2:
        raise InputError(f"contours need a grid of two varying arguments, and here are {len(varying)}. Give the result of power_grid.")
    if not levels or not all(0 < v < 1 for v in levels):
        raise InputError(f"levels={levels!r}: powers between 0 and 1 are needed.")
    x, y = varying
    table = data.pivot(index=y, columns=x, values="power")
    if min(table.shape) < 2:
        raise InputError(f"contours need two values or more of both {x} and {y}.")
    levels = tuple(sorted(levels))
    low, high = float(data["power"].min()), float(data["power"].max())
    with look("power-contour"):
        figure = new_figure(6.4, 4.4)
        ax = figure.add_axes((0.1, 0.12, 0.87, 0.85))
        wide = [2.2 if v in (0.8, 0.9) else 1.0 for v in levels]
        shades = [_SHADES[round(k * (len(_SHADES) - 1) / max(len(levels) - 1, 1))] for k in range(len(levels))]
        if any(low < v < high for v in levels):
            drawn = ax.contour(table.columns, table.index, table.to_numpy(), levels=levels, colors=shades, linewidths=wide)
            ax.clabel(drawn, fmt=lambda v: number(v, 2).rstrip("0"), fontsize=FONT_SIZE - 1)
        if planned is not None:
            ax.plot([planned[0]], [planned[1]], marker="o", ms=7, mfc="white", mec=ALARM, mew=1.6, ls="none", zorder=4, clip_on=False)
            ax.annotate(
                "planned",
                planned,
                xytext=(9, 5),
                textcoords="offset points",
                color=ALARM,
                fontsize=FONT_SIZE - 0.5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
            )
        ax.set_xlim(float(table.columns.min()), float(table.columns.max()))
        ax.set_ylim(float(table.index.min()), float(table.index.max()))
        for axis, values in ((ax.xaxis, table.columns), (ax.yaxis, table.index)):
            if all(float(v).is_integer() for v in values):
                axis.get_major_locator().set_params(integer=True)  # half a person is no tick
        ax.set_xlabel(_WORDS.get(x, x.replace("_", " ")))
        ax.set_ylabel(_WORDS.get(y, y.replace("_", " ")))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
    across, up = _WORDS.get(x, x), _WORDS.get(y, y)
    reach = []
    for level in levels:
        met = data[data["power"] >= level]
        if len(met):
            first = met.sort_values([x, y], kind="stable").iloc[0]
            reach.append(f"{number(level)} from {first[x]:g} {across} (at {first[y]:g} {up})")
    alt = f"Power from {number(low)} to {number(high)} over {across} and {up}. Lines of equal power: {'; '.join(reach) or 'none reached'}."
    return Picture("power-contour", f"Lines of equal power over {across} and {up}", alt, data, (ax,), figure)


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
