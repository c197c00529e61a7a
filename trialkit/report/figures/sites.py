"""Sites in pictures: the raw means of every site by arm, and the predicted site effects by rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from trialkit.design import TrialDesign
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
    wrap,
)
from trialkit.report.tables import analysed_rows, asked
from trialkit.results import minus

_GOLDEN = 0.6180339887498949  # its multiples fill (0, 1) evenly: a spread of dots without a random number


def plot_cluster_means(people: pd.DataFrame, design: TrialDesign, *, outcomes: tuple[str, ...] | None = None) -> Picture:
    """The raw data: one dot a site over its people, by arm, with the mean of the site means and its interval.

    Parameters
    ----------
    people : DataFrame
    design : TrialDesign
    outcomes : tuple of str, optional
        Which outcomes, a panel each; by default the primary ones (at most six).

    Returns
    -------
    Picture
        ``data``: outcome, arm, site, n, mean. The interval is that of the mean of the site means, by t on the arm's
        sites less one.
    """
    from scipy.stats import t as student

    data = normalise(people, text=design.text_columns)
    chosen = [o for o in design.outcomes if o.name in outcomes] if outcomes else [o for o in design.outcomes if o.rank == "primary"][:6]
    chosen = [o for o in chosen if o.name in data.columns and pd.api.types.is_numeric_dtype(data[o.name])]
    if not chosen:
        raise InputError("there is no numeric outcome to draw. Name outcomes=(...) of the participants' table.")
    arms = design.arms.labels
    analysed = analysed_rows(data, design)
    panel, between, left, height = 2.1, 0.62, 0.55, 3.5
    total = left + len(chosen) * panel + (len(chosen) - 1) * between + 0.1
    rows: list[tuple[Any, ...]] = []
    axes = []
    with look("cluster-means"):
        figure = new_figure(total, height)
        for k, outcome in enumerate(chosen):
            ax = figure.add_axes(((left + k * (panel + between)) / total, 0.105, panel / total, 0.76))
            here = data[analysed & asked(data, design, outcome.rater) & data[outcome.name].notna().to_numpy()]
            for a, (arm, colour) in enumerate(zip(arms, (REFERENCE, INTERVENTION), strict=True)):
                part = here[here[design.columns.arm] == arm].sort_values([design.columns.site, outcome.name], kind="stable")
                values = part[outcome.name].to_numpy(dtype=float)
                spread = 0.34 * (((np.arange(len(values)) + 1) * _GOLDEN) % 1.0 - 0.5)
                ax.plot(a - 0.21 + spread, values, ls="none", marker="o", ms=2.2, mfc=colour, mec="none", alpha=0.3, zorder=1)
                means = part.groupby(design.columns.site)[outcome.name].agg(["mean", "size"])
                jitter = 0.2 * (((np.arange(len(means)) + 1) * _GOLDEN) % 1.0 - 0.5)
                ax.scatter(
                    a + 0.17 + jitter,
                    means["mean"],
                    s=9 + 7 * means["size"].to_numpy(float),
                    facecolor="white",
                    edgecolor=colour,
                    linewidth=1.0,
                    zorder=2,
                )
                rows += [(outcome.name, arm, str(s), int(r["size"]), float(r["mean"])) for s, r in means.iterrows()]
                if len(means) > 1:
                    centre, error = float(means["mean"].mean()), float(means["mean"].std(ddof=1) / np.sqrt(len(means)))
                    half = float(student.ppf(0.5 + design.analysis.conf_level / 2, len(means) - 1)) * error
                    ax.plot([a + 0.4, a + 0.4], [centre - half, centre + half], color=INK, lw=1.6, zorder=3)
                    ax.plot([a + 0.4], [centre], marker="s" if a else "o", ms=5, color=INK, ls="none", zorder=4)
            ax.set_xlim(-0.5, 1.6)
            ax.set_xticks([0.03, 1.03], [shorten(clean(x), panel / 2) for x in arms])
            ax.tick_params(axis="x", length=0)
            ax.yaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
            ax.set_title("\n".join(wrap(clean(outcome.label), panel + 0.2)[:2]), linespacing=1.25)
            axes.append(ax)
    frame = pd.DataFrame(rows, columns=["outcome", "arm", "site", "n", "mean"])
    grand = frame.groupby(["outcome", "arm"], sort=False)["mean"].mean()
    words = "; ".join(
        f"{o.label}: {', '.join(f'{a} {number(float(grand[o.name, a]))}' for a in arms if (o.name, a) in grand.index)}" for o in chosen
    )
    conf = f"{100 * design.analysis.conf_level:g}%"
    caption = (
        f"People (points), site means (circles, larger for more people) and the mean of the site means with its {conf} interval, unadjusted"
    )
    return Picture("cluster-means", caption, f"Mean of the site means by arm. {words}.", frame, tuple(axes), figure)


def plot_caterpillar(effects: pd.DataFrame, *, arms: dict[str, str] | None = None, reference: str = "control", ax: Any = None) -> Picture:
    """Predicted site effects by rank, each with its interval.

    Parameters
    ----------
    effects : DataFrame
        One row a site: ``site`` (or ``level``), ``estimate`` (or ``blup``), ``conf_low``, ``conf_high`` or ``std_error``;
        optional ``n`` (size of the dot) and ``raw`` (the raw mean's deviation, a small tick: the shrinkage).
    arms : mapping of site to arm, optional
        Colours the dots.
    reference : str
        The reference arm's label.
    ax : matplotlib Axes, optional

    Returns
    -------
    Picture
    """
    data = effects.rename(columns={"level": "site", "blup": "estimate", "prediction": "estimate", "effect": "estimate"}).copy()
    require_columns(data, ["site", "estimate"], where="the site effects", why="to draw them")
    if "conf_low" not in data.columns:
        require_columns(data, ["std_error"], where="the site effects", why="to draw their intervals")
        data["conf_low"], data["conf_high"] = (
            data["estimate"] - 1.959964 * data["std_error"],
            data["estimate"] + 1.959964 * data["std_error"],
        )
    data["site"] = data["site"].astype(str)
    data = data.sort_values(["estimate", "site"], kind="stable").reset_index(drop=True)
    data["arm"] = [None if arms is None else arms.get(s) for s in data["site"]]
    with look("caterpillar"):
        if ax is None:
            figure = new_figure(6.4, max(2.2, 0.6 + 0.085 * len(data)))
            ax = figure.add_axes((0.1, 0.5 / figure.get_figheight(), 0.87, 1 - 0.6 / figure.get_figheight()))
        else:
            figure = ax.figure
        y = np.arange(len(data))
        colours = [SOFT if a is None else REFERENCE if a == reference else INTERVENTION for a in data["arm"]]
        ax.hlines(y, data["conf_low"], data["conf_high"], color=colours, lw=0.9)
        sizes = 6 + 3 * data["n"].to_numpy(float) if "n" in data.columns else np.full(len(data), 12.0)
        ax.scatter(data["estimate"], y, s=sizes, c=colours, zorder=3)
        if "raw" in data.columns:
            ax.plot(data["raw"], y, ls="none", marker="|", ms=5, color=INK, zorder=2)
        ax.axvline(0, color=SOFT, lw=0.8)
        ax.set_ylim(-0.8, len(data) - 0.2)
        ax.set_yticks(y if len(data) <= 40 else [], data["site"].tolist() if len(data) <= 40 else [], fontsize=FONT_SIZE - 2)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("predicted site effect")
        ax.xaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
    low, high = data.iloc[0], data.iloc[-1]
    ends = [f"{number(float(r['estimate']))} ({clean(r['site'])})" for r in (low, high)]
    alt = f"{len(data)} sites; the lowest predicted effect is {ends[0]}, the highest {ends[1]}."
    return Picture("caterpillar", "Predicted site effects by rank, with their 95% intervals", alt, data, (ax,), figure)
