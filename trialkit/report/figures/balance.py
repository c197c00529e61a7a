"""Balance in pictures: standardised differences against the plan's own range, and the two sites of every pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from trialkit.door import InputError, normalise, require_columns
from trialkit.report.figures.canvas import (
    FONT_SIZE,
    INK,
    INTERVENTION,
    REFERENCE,
    SOFT,
    Picture,
    clean,
    look,
    new_figure,
    number,
    shorten,
    text_width,
)
from trialkit.report.printed import balance_frame
from trialkit.report.tables import records
from trialkit.results import minus

_LINE = 0.235
_BAND = "#DADAD6"


def plot_love(allocation: Any = None, *, baseline: Any = None, ax: Any = None) -> Picture:
    """Love plot: the standardised difference of every covariate, sites above and people below.

    Parameters
    ----------
    allocation : optional
        Its ``balance()`` gives the sites' rows: ``covariate, level, std_difference, quantile``; the grey bars are the
        middle 95% of all allocations of its plan, which is what chance alone would do.
    baseline : Baseline, optional
        From `baseline_table`: gives the people's rows.
    ax : matplotlib Axes, optional

    Returns
    -------
    Picture
    """
    rows = _site_rows(allocation) + _people_rows(baseline)
    if not rows:
        raise InputError("there is no balance to draw. Give an allocation, or the baseline table.")
    data = pd.DataFrame(rows, columns=["panel", "label", "smd", "low", "high", "quantile", "signed"])
    shown_rows = records(data)
    arms = (
        getattr(baseline, "arms", None) or tuple(getattr(getattr(allocation, "plan", None), "arms", ()))[:2] or ("control", "intervention")
    )
    lines: list[tuple[str, int]] = []
    for panel in dict.fromkeys(data["panel"]):
        lines.append((panel, -1))
        lines += [(str(data.loc[k, "label"]), int(k)) for k in data.index[data["panel"] == panel]]
    label_width = min(3.4, max(text_width(t, bold=k < 0) for t, k in lines)) + 0.3
    with_quantile = bool(data["quantile"].notna().any())
    right = 0.95 if with_quantile else 0.15
    plot_width, body = 3.6, len(lines) * _LINE
    total, height = label_width + plot_width + right, body + 0.3 + 0.5
    ends = np.abs(data[["smd", "low", "high"]].to_numpy(dtype=float))
    reach = 1.08 * max(0.25, float(np.nanmax(ends)) if np.isfinite(ends).any() else 0.25)
    with look("love"):
        if ax is None:
            figure = new_figure(total, height)
            ax = figure.add_axes((label_width / total, 0.5 / height, plot_width / total, body / height))
        else:
            figure = ax.figure
        ax.set_ylim(len(lines) - 0.5, -0.5)
        ax.set_xlim(-reach, reach)
        for side in ("left", "right", "top"):
            ax.spines[side].set_visible(False)
        ax.set_yticks([])
        ax.axvline(0, color=SOFT, lw=0.8)
        place, inch = ax.get_yaxis_transform(), 1 / plot_width
        if with_quantile:
            ax.text(
                1 + (right - 0.02) * inch,
                -0.95,
                "quantile",
                transform=place,
                ha="right",
                va="center",
                color=SOFT,
                fontsize=FONT_SIZE - 1,
                clip_on=False,
            )
        for y, (text, k) in enumerate(lines):
            shown = shorten(clean(text), 3.4)
            if k < 0:
                ax.text(-label_width * inch, y, shown, transform=place, ha="left", va="center", weight="bold", clip_on=False)
                continue
            row = shown_rows[k]
            ax.text((-label_width + 0.14) * inch, y, shown, transform=place, ha="left", va="center", clip_on=False)
            if np.isfinite(row["low"]):
                ax.barh(y, row["high"] - row["low"], left=row["low"], height=0.62, color=_BAND, lw=0, zorder=1)
            if np.isfinite(row["smd"]):
                ax.plot(
                    [row["smd"]],
                    [y],
                    marker="o" if row["signed"] else "D",
                    ms=5.5 if row["signed"] else 4.8,
                    mfc=INK if row["signed"] else "white",
                    mec=INK,
                    ls="none",
                    zorder=3,
                )
            if np.isfinite(float(row["quantile"])):
                ax.text(
                    1 + (right - 0.02) * inch, y, number(float(row["quantile"])), transform=place, ha="right", va="center", clip_on=False
                )
        ax.xaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
        ax.set_xlabel(
            f"standardised difference, {clean(arms[1])} minus {clean(arms[0])}" if data["signed"].any() else "standardised difference",
            fontsize=FONT_SIZE - 0.5,
        )
    seen = [r for r in shown_rows if np.isfinite(r["smd"])]
    worst = max(seen, key=lambda r: abs(r["smd"])) if seen else None
    words = f"{len(data)} covariates." + (
        f" The largest standardised difference is {number(float(worst['smd']))}, for {worst['label']}." if worst is not None else ""
    )
    caption = "Standardised differences between the arms."
    if data["low"].notna().any():
        caption += " Grey: the middle 95% of what this plan could have drawn."
    if (~data["signed"]).any():
        caption += " Diamonds: variables of several categories, without sign."
    return Picture("love", caption, f"Love plot. {words}", data, (ax,), figure)


def _site_rows(allocation: Any) -> list[tuple[str, str, float, float, float, float, bool]]:
    frame = balance_frame(allocation) if allocation is not None else None
    if frame is None:
        return []
    require_columns(frame, ["covariate", "std_difference"], where="the balance table", why="to draw it")
    ranges = _ranges(allocation, frame)
    rows = []
    for k, r in enumerate(frame.to_dict(orient="records")):
        level = r.get("level")
        name = clean(str(r["covariate"]).replace("_", " "))
        label = name[:1].upper() + name[1:] + (f": {level}" if isinstance(level, str) else "")
        low, high = ranges[k]
        rows.append(("Sites", label, float(r["std_difference"]), low, high, float(r.get("quantile", np.nan)), True))
    return rows


def _ranges(allocation: Any, frame: pd.DataFrame) -> list[tuple[float, float]]:
    """The middle 95% of each standardised difference over the plan's own allocations."""
    if {"range_low", "range_high"} <= set(frame.columns):
        return list(zip(frame["range_low"].astype(float), frame["range_high"].astype(float), strict=True))
    nothing = [(np.nan, np.nan)] * len(frame)
    plan = getattr(allocation, "plan", None)
    if plan is None or not hasattr(plan, "sample") or not hasattr(plan, "record"):
        return nothing
    from trialkit.allocation.balance import covariates_of, reference_set, std_differences

    reference, _ = reference_set(plan)
    table = covariates_of(plan, None)
    out = []
    for r in frame.to_dict(orient="records"):
        level = r["level"] if isinstance(r.get("level"), str) else None
        values = next((v for name, v in table.columns.get(str(r["covariate"]), ()) if name == level), None)
        arm = plan.arms.index(r["arm"]) if "arm" in r else 1
        if values is None:
            out.append((np.nan, np.nan))
            continue
        low, high = np.nanquantile(std_differences(reference, arm, values), [0.025, 0.975])
        out.append((float(low), float(high)))
    return out


def _people_rows(baseline: Any) -> list[tuple[str, str, float, float, float, float, bool]]:
    if baseline is None:
        return []
    rows = []
    f = baseline.frame
    for panel in dict.fromkeys(f["panel"]):
        if panel == "Sites":
            continue
        part = f[f["panel"] == panel]
        for variable in dict.fromkeys(part["variable"]):
            block = part[part["variable"] == variable]
            first = block.iloc[0]
            category = first["category"] if len(block) == 1 and isinstance(first["category"], str) else None
            label = str(first["label"]) + (f": {category}" if category else "")
            rows.append((str(panel), label, float(first["smd"]), np.nan, np.nan, np.nan, len(block) == 1))
    return rows


def plot_pairs(
    allocation: Any,
    sites: pd.DataFrame,
    *,
    columns: tuple[str, ...] | None = None,
    lost: tuple[str, ...] = (),
    arms: tuple[str, str] = ("control", "intervention"),
) -> Picture:
    """Pair dot plot: a row a pair, its two sites as dots, the widest pair of the first panel on top.

    Parameters
    ----------
    allocation : object with ``frame``, or DataFrame
        The id column, ``pair`` and (after the draw) ``arm``; before the draw both dots are grey.
    sites : DataFrame
        One row a site with the columns to draw.
    columns : tuple of str, optional
        Numeric columns, one panel each; by default every numeric column (at most four).
    lost : tuple of str
        Sites with nobody analysed; drawn hollow.
    arms : (str, str)
        Reference and intervention.

    Returns
    -------
    Picture
        ``data``: pair, site, arm, column, value.
    """
    frame = allocation if isinstance(allocation, pd.DataFrame) else allocation.frame
    require_columns(frame, ["pair"], where="the allocation", why="to draw its pairs")
    key = next((str(c) for c in frame.columns if str(c) in sites.columns and str(c) not in ("pair", "arm", "stratum")), None)
    if key is None:
        raise InputError("the allocation and the sites table have no id column in common. Give the sites table that was matched.")
    table = normalise(sites, text=[key]).set_index(key)
    numeric = [
        str(c)
        for c in table.columns
        if pd.api.types.is_numeric_dtype(table[c]) and not pd.api.types.is_bool_dtype(table[c]) and str(c) not in ("arm", "pair")
    ]
    shown = list(columns) if columns is not None else numeric[:4]
    require_columns(table, shown, where="sites", why="to draw the pairs")
    paired = frame[frame["pair"].notna()]
    if paired.empty or not shown:
        raise InputError("there is no pair, or no numeric column, to draw. Name columns=(...) of the sites table.")
    values_of = {c: dict(zip(table.index.tolist(), table[c].tolist(), strict=True)) for c in shown}
    long = pd.DataFrame(
        [
            (str(r["pair"]), str(r[key]), r.get("arm"), c, float(values_of[c][str(r[key])]))
            for r in paired.to_dict(orient="records")
            for c in shown
            if str(r[key]) in table.index
        ],
        columns=["pair", "site", "arm", "column", "value"],
    )
    first = long[long["column"] == shown[0]].groupby("pair")["value"]
    # the widest pair on top; equal gaps by label
    gap = (first.max() - first.min()).fillna(-1.0)
    order = sorted(gap.index, key=lambda p: (-float(gap[p]), str(p)))
    line = 0.165 if len(order) > 20 else 0.22
    labels = len(order) <= 90
    left, between, panel = 0.55, 0.45, 2.35
    total, height = left + len(shown) * panel + (len(shown) - 1) * between + 0.15, len(order) * line + 1.0
    position = {p: k for k, p in enumerate(order)}
    with look("pairs"):
        figure = new_figure(total, height)
        axes = []
        for k, column in enumerate(shown):
            ax = figure.add_axes(((left + k * (panel + between)) / total, 0.6 / height, panel / total, len(order) * line / height))
            part = long[long["column"] == column]
            span = part.groupby("pair")["value"].agg(["min", "max"])
            y = np.array([position[p] for p in span.index])
            ax.hlines(y, span["min"], span["max"], color="#9A9A9A", lw=1.4, zorder=1)
            # the square is the smaller one, so that both show when a pair's sites agree
            for arm, colour, marker, size in ((arms[0], REFERENCE, "o", 5.2), (arms[1], INTERVENTION, "s", 3.2), (None, SOFT, "o", 4.0)):
                dots = part[part["arm"].isna()] if arm is None else part[part["arm"] == arm]
                for hollow in (False, True):
                    some = dots[dots["site"].isin(lost) == hollow]
                    if len(some):
                        ax.plot(
                            some["value"],
                            [position[p] for p in some["pair"]],
                            marker=marker,
                            ls="none",
                            ms=size,
                            mew=0.9,
                            mec=colour,
                            mfc="white" if hollow else colour,
                            zorder=2,
                        )
            ax.set_ylim(len(order) - 0.4, -0.6)
            values = part["value"].dropna()
            if len(values) and values.min() > 0 and values.max() / values.min() > 20:
                _log_axis(ax, float(values.max() / values.min()))
            ax.xaxis.set_major_formatter(lambda v, _: _short(v))
            ax.set_yticks(range(len(order)) if labels and k == 0 else [])
            if labels and k == 0:
                ax.set_yticklabels(order, fontsize=7 if len(order) > 20 else 8)
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
            ax.set_title(shorten(clean(column.replace("_", " ")), panel))
            ax.grid(axis="y", color="#EEEEEC", lw=0.5)
            ax.set_axisbelow(True)
            axes.append(ax)
        _legend(figure, total, height, arms, bool(lost), bool(long["arm"].notna().any()))
    widest = order[0]
    names = ", ".join(clean(c) for c in shown)
    alt = f"{len(order)} pairs on {names}. The widest pair on {clean(shown[0])} is {clean(widest)}."
    return Picture(
        "pairs",
        "The two sites of every pair on the matching criteria, the widest pair of the first panel on top",
        alt,
        long,
        tuple(axes),
        figure,
    )


def _legend(figure: Any, total: float, height: float, arms: tuple[str, str], lost: bool, drawn: bool) -> None:
    if not drawn:
        return
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="s", ls="none", ms=4.5, color=INTERVENTION, label=clean(arms[1])),
        Line2D([], [], marker="o", ls="none", ms=4.5, color=REFERENCE, label=clean(arms[0])),
    ]
    if lost:
        handles.append(Line2D([], [], marker="o", ls="none", ms=4.5, mfc="white", mec=SOFT, label="nobody analysed"))
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), bbox_to_anchor=(0.5, 0.0), handletextpad=0.3, columnspacing=1.6)


def _log_axis(ax: Any, ratio: float) -> None:
    """A logarithmic axis with a handful of round ticks, and no label that is not ours."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xscale("log")
    subs = (1.0, 2.0, 5.0) if ratio < 100 else (1.0, 3.0) if ratio < 3000 else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    """A tick on a wide scale: 1.2M, 350k, 12."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return minus(f"{round(value / size, 6):g}{letter}")
    return minus(f"{round(value, 9):g}")
