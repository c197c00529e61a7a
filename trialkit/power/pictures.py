"""Pictures of power and of ICCs, by matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from trialkit.power.icc import IccEstimate


def axes(ax: Any) -> Any:
    """The given axes, or new ones."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(6.4, 4.0), layout="constrained")[1]


def cluster_means(estimate: IccEstimate, ax: Any = None) -> Any:
    """Cluster means in order, each with the standard error that people within it leave."""
    ax = axes(ax)
    table = estimate.cluster_frame.sort_values("mean", kind="stable")
    place = np.arange(len(table))
    se = np.sqrt(max(estimate.variance_within, 0.0) / table["n"].to_numpy(dtype=float))
    ax.errorbar(place, table["mean"], yerr=se, fmt="o", ms=3.5, lw=1, color="#2b5c8a", ecolor="#9db7cf")
    centre = float(np.average(table["mean"], weights=table["n"]))
    ax.axhline(centre, color="0.3", lw=1)
    if estimate.variance_between > 0:
        spread = math.sqrt(estimate.variance_between)
        ax.axhspan(centre - spread, centre + spread, color="#e8a33d", alpha=0.18, lw=0, label="± SD between clusters")
        ax.legend(frameon=False, loc="upper left")
    ax.set_xlabel(f"{estimate.cluster}, in order of the mean")
    ax.set_ylabel(f"mean {estimate.outcome} ± standard error")
    ax.set_xticks([])
    ax.set_title(
        f"ICC {estimate.icc:.3f} ({100 * estimate.conf_level:g}% interval {estimate.conf_low:.3f} to {estimate.conf_high:.3f})", fontsize=10
    )
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax
