"""What a mixed model leaves over: residuals against fitted values, and normal quantiles of the residuals and of the group effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from trialkit.door import InputError
from trialkit.report.figures.canvas import INK, REFERENCE, SOFT, Picture, clean, look, new_figure, number
from trialkit.results import minus


def plot_residuals(fit: Any) -> Picture:
    """Residual diagnostics of a mixed model, a panel each.

    Parameters
    ----------
    fit : MixedModel
        From `fit_mixed`.

    Returns
    -------
    Picture
        Standardised residuals (each over its residual SD) against fitted values, with their running median; their normal quantiles;
        and the normal quantiles of the innermost groups' predicted effects, unless their variance is zero. ``data``: panel, label, x, y.

    Raises
    ------
    InputError
        `fit` is no mixed model.
    """
    if not hasattr(fit, "diagnostics"):
        raise InputError("plot_residuals needs a model from fit_mixed.")
    rows = fit.diagnostics()
    group = list(fit.n_groups)[-1]
    effects = fit.diagnostics(group)
    effects = effects[effects["standardised"].notna()]
    panels = [("residuals", "fitted value", "standardised residual"), ("quantiles", "normal quantile", "standardised residual")]
    if len(effects) > 2:
        panels.append(("effects", "normal quantile", f"standardised effect of {clean(group)}"))
    order = np.argsort(rows["standardised"].to_numpy(), kind="stable")
    parts = [
        _part("residuals", rows["row"].astype(str), rows["fitted"], rows["standardised"]),
        _part("quantiles", rows["row"].astype(str).iloc[order], _normal(len(rows)), rows["standardised"].iloc[order]),
    ]
    if len(effects) > 2:
        ranked = effects.sort_values(["standardised", "level"], kind="stable")
        parts.append(_part("effects", ranked["level"], _normal(len(ranked)), ranked["standardised"]))
    data = pd.concat(parts, ignore_index=True)
    width, height = 2.35 * len(panels) + 0.2, 2.6
    axes = []
    with look("residuals"):
        figure = new_figure(width, height)
        for k, (name, across, up) in enumerate(panels):
            ax = figure.add_axes(((0.55 + 2.35 * k) / width, 0.19, 1.72 / width, 0.74))
            here = data[data["panel"] == name]
            ax.plot(here["x"], here["y"], ls="none", marker="o", ms=2.6, mfc=REFERENCE, mec="none", alpha=0.55)
            if name == "residuals":
                ax.axhline(0, color=SOFT, lw=0.8)
                middle = _running(here["x"].to_numpy(), here["y"].to_numpy())
                ax.plot(*middle, color=INK, lw=1.2)
            else:
                reach = float(max(here["x"].abs().max(), 1.0))
                ax.plot([-reach, reach], [-reach, reach], color=SOFT, lw=0.8, zorder=0)
            ax.set_xlabel(across)
            ax.set_ylabel(up)
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
            axes.append(ax)
    largest = rows.iloc[int(rows["standardised"].abs().to_numpy().argmax())]
    alt = (
        f"{len(rows)} residuals; the largest is {number(float(largest['standardised']))} residual standard deviations "
        f"({clean(group)} {clean(largest[group])}). "
    )
    alt += f"{len(effects)} effects of {clean(group)}." if len(effects) > 2 else f"The variance of {clean(group)} is zero or not known."
    return Picture("residuals", "What the model leaves over, and whether it is normal", alt, data, tuple(axes), figure)


def _part(panel: str, label: Any, x: Any, y: Any) -> pd.DataFrame:
    return pd.DataFrame({"panel": panel, "label": np.asarray(label), "x": np.asarray(x, dtype=float), "y": np.asarray(y, dtype=float)})


def _normal(n: int) -> Any:
    from scipy.special import ndtri

    return ndtri((np.arange(n) + 0.5) / n)


def _running(x: Any, y: Any) -> tuple[Any, Any]:
    """Medians of about twenty neighbouring groups of points."""
    order = np.argsort(x, kind="stable")
    pieces = [p for p in np.array_split(order, max(3, min(20, len(x) // 12))) if len(p)]
    return np.array([np.median(x[p]) for p in pieces]), np.array([np.median(y[p]) for p in pieces])
