"""Pictures of power and of ICCs, by matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from trialkit.door import InputError

if TYPE_CHECKING:
    from trialkit.power.grid import PowerGrid
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


def curves(grid: PowerGrid, ax: Any = None, *, target: float | None = 0.8, simulated: Any = None) -> Any:
    """Power against the first varying argument; a line for each value of the second.

    ``simulated`` is a frame of check points: the first argument, ``power``, and ``mc_error`` (one standard error, drawn twice either way).
    """
    import matplotlib

    first, *rest = grid.varying
    if len(rest) > 1:
        raise InputError(
            f"a picture shows two varying arguments, and here are {len(rest) + 1}: {', '.join(grid.varying)}. Fix some of them."
        )
    ax = axes(ax)
    frame = grid.frame
    if not rest:
        ax.plot(frame[first], frame["power"], color="#2b5c8a", lw=1.8)
    else:
        values = list(dict.fromkeys(frame[rest[0]].tolist()))
        shades = matplotlib.colormaps["viridis"](np.linspace(0.08, 0.85, len(values)))
        for value, shade in zip(values, shades, strict=True):
            part = frame[frame[rest[0]] == value]
            ax.plot(part[first], part["power"], color=shade, lw=1.6, label=f"{value:g}" if isinstance(value, int | float) else str(value))
        ax.legend(title=_WORDS.get(rest[0], rest[0]), frameon=False, fontsize=8, title_fontsize=8)
    if simulated is not None:
        for name in (first, "power", "mc_error"):
            if name not in simulated.columns:
                raise InputError(f"simulated check points need the columns {first}, power and mc_error; {name} is missing.")
        ax.errorbar(
            simulated[first], simulated["power"], yerr=2 * simulated["mc_error"], fmt="o", ms=4, lw=1, color="#b5482a", label="simulated"
        )
        ax.legend(frameon=False, fontsize=8, title_fontsize=8)
    if target is not None:
        ax.axhline(target, color="0.55", lw=0.8, ls=(0, (4, 3)))
    ax.set_xlabel(_WORDS.get(first, first))
    ax.set_ylabel("power")
    ax.set_ylim(0, 1.01)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def band(low: PowerGrid, middle: PowerGrid, high: PowerGrid, ax: Any = None, *, target: float | None = 0.8, label: str = "ICC") -> Any:
    """Power against one argument at a planned ICC, with the band that a low and a high ICC make."""
    ax = curves(middle, ax, target=target)
    first = middle.varying[0]
    ax.fill_between(low.frame[first], high.frame["power"], low.frame["power"], color="#2b5c8a", alpha=0.15, lw=0, label=label)
    ax.legend(frameon=False, loc="lower right", fontsize=8)
    return ax


def contours(grid: PowerGrid, ax: Any = None, *, levels: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)) -> Any:
    """Lines of equal power over two varying arguments."""
    import matplotlib

    if len(grid.varying) != 2:
        raise InputError(f"contours need two varying arguments, and here are {len(grid.varying)}.")
    ax = axes(ax)
    x, y = grid.varying
    table = grid.frame.pivot(index=y, columns=x, values="power")
    shades = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.82, len(levels)))
    drawn = ax.contour(table.columns, table.index, table.to_numpy(), levels=levels, colors=shades, linewidths=1.4)
    ax.clabel(drawn, fmt="%.2f", fontsize=8)
    ax.set_xlabel(_WORDS.get(x, x))
    ax.set_ylabel(_WORDS.get(y, y))
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


_WORDS = {
    "clusters": "clusters, both arms",
    "cluster_size": "people a cluster",
    "icc": "ICC",
    "effect": "effect",
    "pairs": "matched pairs",
    "matching_correlation": "matching correlation",
    "cluster_size_cv": "CV of cluster sizes",
}
