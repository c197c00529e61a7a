"""Observed and imputed values side by side: the cumulative share of each, variable by variable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from trialkit.door import InputError
from trialkit.report.figures.canvas import ALARM, FONT_SIZE, INK, SOFT, Picture, clean, look, minus, new_figure, number, panel_title

_SETS = 20  # more sets than this draw the same line


def can_compare(imputations: Any) -> bool:
    """Whether observed and imputed values can be told apart: the sets, and the rows before imputation (``base``)."""
    return isinstance(getattr(imputations, "base", None), pd.DataFrame) and isinstance(imputations, Iterable)


def plot_imputed(
    imputations: Any, *, variables: tuple[str, ...] | None = None, most: int = 8, labels: Mapping[str, str] | None = None
) -> Picture:
    """Draw the distribution of the imputed values of each variable beside that of the observed ones.

    They need not agree, because values are missing for a reason; a gap asks for one.

    Parameters
    ----------
    imputations : result of ``impute``
        An iterable of completed frames with ``base``, the same rows before imputation.
    variables : tuple of str, optional
        By default the numeric ones with most missing values.
    most : int
        At most so many of them.
    labels : mapping of variable to label, optional

    Returns
    -------
    Picture
        ``data``: variable, kind (observed or imputed), n, mean, sd, and the quartiles.
    """
    if not can_compare(imputations):
        raise InputError("these imputations do not tell imputed from observed values. Give what tk.impute returned.")
    base: pd.DataFrame = imputations.base
    asked = [str(v) for v in base.columns if pd.api.types.is_numeric_dtype(base[v]) and not pd.api.types.is_bool_dtype(base[v])]
    holes = {v: base[v].isna().to_numpy() for v in asked}
    sets = [frame for _, frame in zip(range(_SETS), imputations, strict=False)]
    # a variable that was not asked of somebody is missing and stays so
    filled = {v: np.concatenate([s[v].to_numpy(dtype=float)[holes[v]] for s in sets]) for v in asked if holes[v].any()}
    filled = {v: x[np.isfinite(x)] for v, x in filled.items() if np.isfinite(x).any()}
    if variables is None:
        order = sorted(filled, key=lambda v: (-len(filled[v]), asked.index(v)))[:most]
        shown = [v for v in asked if v in order]
    else:
        shown = [v for v in variables if v in filled]
    if not shown:
        raise InputError("no numeric variable was imputed, so there is nothing to compare.")
    import seaborn

    across = min(4, len(shown))
    down = -(-len(shown) // across)
    width, panel = 7.4, 1.7
    height = down * panel + 0.45
    rows: list[tuple[Any, ...]] = []
    axes = []
    with look("imputed"):
        figure = new_figure(width, height)
        for k, variable in enumerate(shown):
            row, column = divmod(k, across)
            cell = (width - 0.15) / across
            place = (0.5 + column * cell, height - (row + 1) * panel + 0.06, cell - 0.55, panel - 0.53)
            ax = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
            observed = base[variable].dropna().to_numpy(dtype=float)
            for kind, values, colour, dash in (("observed", observed, INK, "-"), ("imputed", filled[variable], ALARM, (0, (4, 1.5)))):
                seaborn.ecdfplot(x=values, ax=ax, color=colour, lw=1.2, ls=dash)
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
                n = len(values) if kind == "observed" else len(values) // len(sets)
                rows.append((variable, kind, n, float(np.mean(values)), spread, *np.quantile(values, (0.25, 0.5, 0.75)).tolist()))
            name = clean((labels or {}).get(variable, variable))
            ax.set_title(panel_title(name, cell - 0.5, FONT_SIZE - 1.5), fontsize=FONT_SIZE - 1.5, pad=3)
            ax.set(xlabel="", ylabel="", ylim=(0, 1))
            ax.tick_params(labelsize=FONT_SIZE - 2.5, pad=1.5, length=2)
            ax.xaxis.get_major_locator().set_params(nbins=4)
            ax.yaxis.set_ticks([0, 0.5, 1])
            ax.xaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
            ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
            axes.append(ax)
        figure.text(0.5, 0.06 / height, "—  observed     - -  imputed", ha="center", va="bottom", color=SOFT, fontsize=FONT_SIZE - 1)
    data = pd.DataFrame(rows, columns=["variable", "kind", "n", "mean", "sd", "q1", "median", "q3"])
    mean = data.set_index(["variable", "kind"])["mean"]
    pairs = [
        f"{clean((labels or {}).get(v, v))}: mean {', '.join(f'{number(float(mean[v, k]))} {k}' for k in ('observed', 'imputed'))}"
        for v in shown
    ]
    caption = "Cumulative share of the observed and of the imputed values of each variable, the variables with most values missing"
    return Picture("imputed", caption, "; ".join(pairs) + ".", data, tuple(axes), figure)
