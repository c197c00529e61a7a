"""Sensitivity to what is missing: the effect along a grid of shifts, and under one assumption after another."""

from __future__ import annotations

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
    WASH,
    Picture,
    clean,
    look,
    new_figure,
    number,
    shorten,
    text_width,
)
from trialkit.results import minus


def plot_tipping(found: Any, *, label: str | None = None) -> Picture:
    """Draw a tipping-point analysis: a band along one shift, or a map of p over two.

    Parameters
    ----------
    found : result of ``tipping_point``
    label : str, optional
        The outcome's label; by default its name.

    Returns
    -------
    Picture
        ``data``: the grid as in ``found.frame``.
    """
    frame = getattr(found, "frame", None)
    if not isinstance(frame, pd.DataFrame) or not {"estimate", "conf_low", "conf_high", "p_value"} <= set(frame.columns):
        raise InputError("this is not a tipping-point analysis. Give what tipping_point returned.")
    name = clean(label or found.outcome)
    return _along(found, frame, name) if "shift" in frame.columns else _map(found, frame, name)


def _is_ratio(found: Any) -> bool:
    """Whether the effect is one whose null is 1."""
    return "ratio" in found.measure


def _along(found: Any, frame: pd.DataFrame, name: str) -> Picture:
    data = frame.sort_values("shift", kind="stable").reset_index(drop=True)
    x = data["shift"].to_numpy(dtype=float)
    sure = data["p_value"].to_numpy() < found.alpha
    odds = found.unit == "log-odds"
    far = "" if found.tips_at is None else number(found.tips_at) + (f" (odds ratio {number(np.exp(found.tips_at))})" if odds else " SD")
    width, height = 5.6, 3.3
    with look("tipping"):
        figure = new_figure(width, height)
        ax = figure.add_axes((0.7 / width, 0.62 / height, (width - 0.85) / width, (height - 1.0) / height))
        ax.axhline(1.0 if _is_ratio(found) else 0.0, color=RULE, lw=0.8, zorder=0)
        ax.fill_between(x, data["conf_low"], data["conf_high"], color=REFERENCE, alpha=0.15, lw=0)
        ax.plot(x, data["estimate"], color=REFERENCE)
        for hit, face in ((sure, REFERENCE), (~sure, "white")):
            ax.plot(x[hit], data["estimate"][hit], "o", ms=4, mfc=face, mec=REFERENCE, mew=0.8, ls="")
        if found.tips_at is not None:
            ax.axvline(found.tips_at, color=ALARM, lw=1.0, ls=(0, (4, 2)))
            figure.text(0.99, 1 - 0.06 / height, f"tips at {far}", color=ALARM, ha="right", va="top")
        ax.set_xlabel("")
        ax.set_ylabel(shorten(clean(found.measure) or "effect and its confidence interval", height - 1.0))
        who = " and ".join(clean(w) for w in found.shifted)
        figure.text(
            0.5,
            0.3 / height,
            shorten(
                f"shift of the missing in {who}, {f'log odds of {clean(found.towards)}' if odds else 'SDs of the observed values'}",
                width - 0.2,
            ),
            ha="center",
            va="center",
        )
        figure.text(
            0.5,
            0.08 / height,
            f"●  p < {found.alpha:g}     ○  p ≥ {found.alpha:g}",
            ha="center",
            va="center",
            color=SOFT,
            fontsize=FONT_SIZE - 1,
        )
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
    said = f"changes at a shift of {far}" if far else "does not change"
    unit = " in log odds" if odds else " SD"
    alt = (
        f"Effect on {name} from {number(float(data['estimate'].iloc[0]))} at a shift of {number(float(x[0]))}{unit} to "
        f"{number(float(data['estimate'].iloc[-1]))} at {number(float(x[-1]))}; the finding at p < {found.alpha:g} {said}."
    )
    return Picture("tipping", f"{name}: the effect when the missing differ from what missing at random says", alt, data, (ax,), figure)


def _map(found: Any, frame: pd.DataFrame, name: str) -> Picture:
    reference, intervention = found.shifted
    columns = (f"shift_{reference}", f"shift_{intervention}")
    p = frame.pivot(index=columns[1], columns=columns[0], values="p_value")
    estimate = frame.pivot(index=columns[1], columns=columns[0], values="estimate")
    if _is_ratio(found):
        estimate = estimate.map(np.log)
    x, y, z = p.columns.to_numpy(dtype=float), p.index.to_numpy(dtype=float), p.to_numpy()
    if min(z.shape) < 2 or np.isnan(z).any():
        raise InputError("a map needs at least two shifts of each arm, every combination once. Give more deltas.")
    width, height = 5.2, 4.4
    with look("tipping"):
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.ticker import MaxNLocator

        figure = new_figure(width, height)
        ax = figure.add_axes((0.75 / width, 0.9 / height, 3.3 / width, 3.3 / height))
        # effect as shade, the border of significance as a line
        shades = LinearSegmentedColormap.from_list("effect", ["#F2B98F", WASH, "#9CC7E0"])
        most = float(np.abs(estimate.to_numpy()).max()) or 1.0
        drawn = ax.contourf(x, y, estimate.to_numpy(), levels=np.linspace(-most, most, 22), cmap=shades)
        border = np.log(np.maximum(z, 1e-300)) - np.log(found.alpha)
        if border.min() < 0 < border.max():
            ax.contour(x, y, border, levels=[0.0], colors=[ALARM], linewidths=1.4)
        ax.plot(0.0, 0.0, "+", color=INK, ms=9, mew=1.4)
        unit = "log odds" if found.unit == "log-odds" else "SD"
        ax.set_xlabel(shorten(f"shift of the missing in {clean(reference)} ({unit})", 3.6))
        ax.set_ylabel(shorten(f"shift in {clean(intervention)} ({unit})", 3.3))
        bar_axes = figure.add_axes((4.25 / width, 0.9 / height, 0.13 / width, 3.3 / height))
        bar = figure.colorbar(drawn, cax=bar_axes)
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(5)
        bar.update_ticks()
        for axis in (ax.xaxis, ax.yaxis, bar_axes.yaxis):
            axis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
        figure.text(
            4.2 / width, 1 - 0.06 / height, f"{'log ' if _is_ratio(found) else ''}effect", ha="left", va="top", fontsize=FONT_SIZE - 0.5
        )
        figure.text(
            0.5, 0.1 / height, f"red line: p = {found.alpha:g}     +: missing at random", ha="center", va="bottom", color=SOFT,
            fontsize=FONT_SIZE - 1,
        )  # fmt: skip
    share = float((z < found.alpha).mean())
    alt = f"Effect on {name} over {z.size} pairs of shifts, from {number(float(estimate.min().min()))} to "
    alt += f"{number(float(estimate.max().max()))}; p < {found.alpha:g} at {100 * share:.0f}% of them."
    title = f"{name}: the effect when the missing of each arm differ from what missing at random says"
    return Picture("tipping", title, alt, frame, (ax, bar_axes), figure)


def plot_scenarios(found: Any) -> Picture:
    """Draw one outcome's effect under each assumption about the missing, one below the other.

    Parameters
    ----------
    found : result of ``compare_scenarios``

    Returns
    -------
    Picture
        ``data``: the rows drawn, as in ``found.frame``.
    """
    frame = getattr(found, "frame", None)
    if not isinstance(frame, pd.DataFrame) or not {"scenario", "estimate", "conf_low", "conf_high"} <= set(frame.columns):
        raise InputError("this is not a comparison of assumptions. Give what compare_scenarios returned.")
    data = frame.reset_index(drop=True)
    names = [clean(s) for s in data["scenario"]]
    left = min(max(text_width(n) for n in names), 3.0) + 0.3
    width, row = left + 4.3, 0.27
    height = 0.75 + row * len(data)
    with look("scenarios"):
        figure = new_figure(width, height)
        ax = figure.add_axes((left / width, 0.55 / height, 2.6 / width, (height - 0.65) / height))
        ax.axvline(0.0, color=RULE, lw=0.8, zorder=0)
        for k, (_, one) in enumerate(data.iterrows()):
            if np.isfinite(one["estimate"]):
                ax.plot([one["conf_low"], one["conf_high"]], [k, k], color=REFERENCE, lw=1.2)
                ax.plot(one["estimate"], k, "s", ms=4.5, color=REFERENCE)
            said = "not analysed"
            if np.isfinite(one["estimate"]):
                said = f"{number(one['estimate'])} ({number(one['conf_low'])} to {number(one['conf_high'])})"
            y = (0.55 + (height - 0.65) * (len(data) - k - 0.5) / len(data)) / height
            figure.text(0.1 / width, y, shorten(names[k], left - 0.2), ha="left", va="center")
            figure.text((left + 2.75) / width, y, said, ha="left", va="center", fontsize=FONT_SIZE - 0.5)
        ax.set_ylim(len(data) - 0.5, -0.5)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
        figure.text((left + 1.3) / width, 0.08 / height, "effect and its confidence interval", ha="center", va="bottom", color=SOFT)
    alt = "; ".join(f"{n}: {number(float(e))}" for n, e in zip(names, data["estimate"], strict=True) if np.isfinite(e)) + "."
    return Picture("scenarios", f"{clean(found.outcome)}: the effect under each assumption about the missing", alt, data, (ax,), figure)
