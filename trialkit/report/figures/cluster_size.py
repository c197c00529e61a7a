"""Outcome against the size of the site, by arm: whether sites of different sizes have different effects, to be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from trialkit.design import TrialDesign
from trialkit.door import InputError, unknown_word
from trialkit.report.figures.canvas import (
    FONT_SIZE,
    INTERVENTION,
    REFERENCE,
    SOFT,
    Picture,
    clean,
    look,
    new_figure,
    number,
    panel_title,
    shorten,
)
from trialkit.results import minus

_ACROSS = 3


def plot_cluster_size(effects: Any, design: TrialDesign, *, outcomes: tuple[str, ...] | None = None) -> Picture:
    """Site means against site sizes, a panel an outcome, with each arm's line and the two effects that size tells apart.

    Parameters
    ----------
    effects : EstimandEffects
        From `trialkit.itt.estimand_effects`.
    design : TrialDesign
    outcomes : tuple of str, optional
        Which; by default the primary ones (all, when none is primary), at most six.

    Returns
    -------
    Picture
        ``data``: outcome, site, arm, n, value. Lines are least squares through the sites of an arm, every site counting once; where they
        run apart the effect goes with size. Under each panel: the participant-average and the cluster-average effect by estimating
        equations, and their difference with its interval.

    Raises
    ------
    InputError
        An outcome is not among the effects, or none could be drawn.
    """
    points: pd.DataFrame = effects.sites
    names = [o.name for o in design.outcomes if o.name in set(points["outcome"])]
    for name in outcomes or ():
        if name not in names:
            raise InputError(unknown_word(name, names, what="outcome with site means"))
    primary = [o.name for o in design.outcomes if o.rank == "primary" and o.name in names]
    chosen = [n for n in names if n in outcomes] if outcomes else (primary or names)[:6]
    if not chosen:
        raise InputError("no outcome has site means to draw. See the problems of these effects.")
    panel, gap, left, top, foot, height = 2.25, 0.62, 0.68, 0.42, 1.0, 1.85
    across = min(_ACROSS, len(chosen))
    down = -(-len(chosen) // across)
    legend = 0.3
    total = max(left + across * panel + (across - 1) * gap + 0.4, 3.4)
    tall = legend + down * (top + height + foot)
    labels = {o.name: o.label for o in design.outcomes}
    told, axes = [], []
    with look("cluster-size"):
        figure = new_figure(total, tall)
        for k, name in enumerate(chosen):
            x0 = (left + (k % across) * (panel + gap)) / total
            y0 = 1 - (legend + (k // across + 1) * (top + height) + (k // across) * foot) / tall
            ax = figure.add_axes((x0, y0, panel / total, height / tall))
            here = points[points["outcome"] == name]
            spread = float(np.ptp(here["n"].to_numpy()))
            for arm, colour, marker, dash in ((0, REFERENCE, "o", (0, (4, 2))), (1, INTERVENTION, "s", "-")):
                part = here[here["arm"] == arm].sort_values(["n", "site"], kind="stable")
                n, value = part["n"].to_numpy(dtype=float), part["value"].to_numpy(dtype=float)
                # arms stand beside one another where their sites have as many people
                beside = (0.4 * arm - 0.2) * max(min(spread, 30.0), 3.0) / 30
                ax.scatter(
                    n + beside,
                    value,
                    s=14,
                    marker=marker,
                    facecolor="white" if arm == 0 else colour,
                    edgecolor=colour,
                    linewidth=0.9,
                    zorder=2,
                )
                if len(np.unique(n)) > 1:
                    slope, level = np.polyfit(n, value, 1)
                    ends = np.array([n.min(), n.max()])
                    ax.plot(ends, level + slope * ends, color=colour, ls=dash, lw=1.4, zorder=3)
            ax.set_title(panel_title(clean(labels[name]), panel))
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.yaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
            ax.set_xlabel("people analysed in the site")
            if k % across == 0:
                ax.set_ylabel("site mean" if design.analysis.standardise == "none" else "site mean, in SDs")
            lines, sentence = _said(effects, name, design.analysis.conf_level)
            for line, text in enumerate(lines):
                ax.text(
                    0,
                    -(0.49 + 0.15 * line) / height,
                    shorten(text, panel + 0.45, FONT_SIZE - 0.5),
                    transform=ax.transAxes,
                    fontsize=FONT_SIZE - 0.5,
                    va="top",
                    color=SOFT,
                )
            told.append(f"{labels[name]}: {sentence}")
            axes.append(ax)
        reference, intervention = (clean(a) for a in design.arms.labels)
        handles = [
            axes[0].plot([], [], ls=dash, marker=marker, ms=4, color=colour, mfc="white" if k == 0 else colour)[0]
            for k, (colour, marker, dash) in enumerate(((REFERENCE, "o", (0, (4, 2))), (INTERVENTION, "s", "-")))
        ]
        figure.legend(
            handles, [reference, intervention], loc="upper left", bbox_to_anchor=(left / total - 0.01, 1.0), ncols=2, handlelength=2.6
        )
    data = points[points["outcome"].isin(chosen)].reset_index(drop=True)
    caption = (
        "Site means by the number of people analysed in the site; where the two lines run apart, the effect goes with the size of the site"
    )
    return Picture("cluster-size", caption, " ".join(told), data, tuple(axes), figure)


def _said(effects: Any, name: str, level: float) -> tuple[list[str], str]:
    """The lines under a panel, and the same in a sentence."""
    found = effects.frame[(effects.frame["outcome"] == name) & (effects.frame["analysis"] == "independence estimating equations")]
    by = found.set_index("estimand")["estimate"]
    tests = effects.informative[effects.informative["outcome"] == name]
    lines = [
        f"{what}: {number(float(by[what]))}"
        for what in ("participant-average", "cluster-average")
        if what in by.index and by[what] == by[what]
    ]
    difference = tests[tests["test"].str.contains(" minus ")].iloc[0]
    if difference["estimate"] == difference["estimate"]:
        low, high = (number(float(difference[k])) for k in ("conf_low", "conf_high"))
        lines.append(f"difference: {number(float(difference['estimate']))} ({100 * level:g}% CI {low} to {high})")
    return lines, f"{', '.join(lines)}."
