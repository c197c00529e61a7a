"""The intracluster correlation in a picture: the estimate on its scale, and the cluster means behind it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trialkit.door import InputError
from trialkit.report.figures.canvas import FONT_SIZE, INK, INTERVENTION, REFERENCE, SOFT, Picture, clean, look, new_figure, number
from trialkit.results import minus


def plot_icc(estimate: Any) -> Picture:
    """Draw an estimated ICC: above, the estimate with its interval and its 80th percentile; below, the cluster means in order.

    Parameters
    ----------
    estimate : IccEstimate

    Returns
    -------
    Picture
        ``data``: cluster, n, mean, std_error (what people within a cluster leave), in the order drawn. The band in the lower
        panel is the grand mean and one standard deviation between clusters either way.

    Examples
    --------
    >>> import pandas as pd
    >>> from trialkit.power import estimate_icc
    >>> pilot = pd.DataFrame({"score": [3, 4, 4, 6, 7, 5, 2, 3, 3], "site": list("aaabbbccc")})
    >>> plot_icc(estimate_icc(pilot, outcome="score", cluster="site")).data["site"].tolist()
    ['c', 'a', 'b']
    """
    table = getattr(estimate, "cluster_frame", None)
    if table is None or not hasattr(estimate, "quantile"):
        raise InputError(f"an estimate of an ICC was expected, not {type(estimate).__name__}. Give the result of estimate_icc.")
    within, between = max(estimate.variance_within, 0.0), estimate.variance_between
    data = table.sort_values("mean", kind="stable").reset_index(drop=True)
    data = data.assign(std_error=np.sqrt(within / data["n"].to_numpy(dtype=float)))
    low, point, high, upper = estimate.conf_low, estimate.icc, estimate.conf_high, estimate.quantile(0.8)
    with look("icc"):
        figure = new_figure(6.4, 4.4)
        top = figure.add_axes((0.11, 0.79, 0.86, 0.09))
        top.plot([low, high], [0, 0], color=INK, lw=1.6)
        top.plot([point], [0], marker="o", ms=7, color=REFERENCE, ls="none", zorder=3)
        top.plot([upper], [0], marker="|", ms=13, mew=1.8, color=INTERVENTION, ls="none", zorder=3)
        ends = [v for v in (0.0, low, high, point, upper) if math.isfinite(v)]
        pad = 0.06 * max(max(ends) - min(ends), 0.02)
        top.set_xlim(min(ends) - pad, max(ends) + pad)
        top.set_ylim(-1, 1)
        top.axvline(0, color=SOFT, lw=0.7, ls=(0, (4, 3)), zorder=0)
        top.set_yticks([])
        top.spines["left"].set_visible(False)
        top.xaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
        name = "latent ICC" if estimate.scale == "latent" else "ICC"
        level = f"{100 * estimate.conf_level:g}%"
        said = f"{name} {number(point, 3)} ({level} interval {number(low, 3)} to {number(high, 3)})"
        mark = f"80th percentile {number(upper, 3)}"
        top.text(0, 1.55, said, transform=top.transAxes, ha="left", color=INK)
        top.text(1, 1.55, f"| {mark}", transform=top.transAxes, ha="right", color=INTERVENTION, fontsize=FONT_SIZE - 0.5)
        ax = figure.add_axes((0.11, 0.10, 0.86, 0.55))
        place = np.arange(len(data))
        size = 4.0 if len(data) <= 40 else 2.8
        ax.errorbar(
            place, data["mean"], yerr=data["std_error"], fmt="o", ms=size, color=REFERENCE, ecolor="#9CC7E0", elinewidth=1.0, zorder=3
        )
        centre = float(np.average(data["mean"], weights=data["n"]))
        ax.axhline(centre, color=SOFT, lw=0.8, zorder=1)
        if between > 0:
            spread = math.sqrt(between)
            ax.axhspan(centre - spread, centre + spread, color="#E69F00", alpha=0.16, lw=0, zorder=0)
            note = "band: ± 1 SD between clusters"
        else:
            note = "clusters differ no more than chance would have it"
        ax.text(0.01, 0.97, note, transform=ax.transAxes, ha="left", va="top", color=SOFT, fontsize=FONT_SIZE - 0.5)
        ax.set_xlim(-0.8, len(data) - 0.2)
        ax.set_xticks([])
        ax.set_xlabel(f"{len(data)} clusters ({clean(estimate.cluster)}), in order of the mean")
        ax.set_ylabel(f"mean {clean(estimate.outcome)} ± standard error")
        ax.yaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
    alt = (
        f"{said}; {mark}. {estimate.clusters} clusters with {estimate.n} people; cluster means from {number(float(data['mean'].min()))} "
        f"to {number(float(data['mean'].max()))}, {note}."
    )
    return Picture("icc", estimate.title, alt, data, (top, ax), figure)
