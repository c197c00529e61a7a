"""The imputation chains: their trace, a line a chain, and their autocorrelation, a panel a variable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from trialkit.door import InputError
from trialkit.report.figures.canvas import FONT_SIZE, INK, REFERENCE, SOFT, Picture, clean, look, new_figure, number, panel_title
from trialkit.results import minus

_COLUMNS = ("variable", "statistic", "chain", "iteration", "value")


def traces_of(imputations: Any) -> pd.DataFrame | None:
    """The chains' traces as ``variable, statistic, chain, iteration, value``; None when they were not kept.

    ``traces`` may be that table, or a mapping of (group, variable) to an array (mean, SD and ICC; iterations; chains).
    """
    found = imputations if isinstance(imputations, pd.DataFrame) else getattr(imputations, "traces", None)
    if isinstance(found, Mapping):
        last = [key[-1] if isinstance(key, tuple) else key for key in found]
        parts = [_tidy(k, last.count(n) == 1, np.asarray(a, dtype=float)) for n, (k, a) in zip(last, found.items(), strict=True)]
        found = pd.concat(parts, ignore_index=True) if parts else None
    if not isinstance(found, pd.DataFrame) or found.empty:
        return None
    return found if set(_COLUMNS) <= set(found.columns) else None


def _tidy(key: Any, alone: bool, array: np.ndarray[Any, np.dtype[np.float64]]) -> pd.DataFrame:
    parts = [str(k) for k in (key if isinstance(key, tuple) else (key,))]
    statistic, iteration, chain = (axis.ravel() for axis in np.indices(array.shape))
    table = pd.DataFrame(
        {
            # the same question asked of two kinds of person is two variables
            "variable": parts[-1] if alone else f"{parts[-1]} ({parts[0]})",
            "statistic": np.array(["mean", "sd", "icc"])[statistic],
            "chain": chain + 1,
            "iteration": iteration + 1,
            "value": array.ravel(),
        }
    )
    return table[table["value"].notna()]


def plot_trace(
    imputations: Any,
    *,
    variables: tuple[str, ...] | None = None,
    statistic: str = "mean",
    chains: int = 30,
    labels: Mapping[str, str] | None = None,
) -> Picture:
    """Draw the chains, a panel a variable; mixed chains look like one band without a trend.

    Parameters
    ----------
    imputations : result of ``impute``, or DataFrame
        With ``traces``: variable, statistic, chain, iteration, value.
    variables : tuple of str, optional
        By default the twelve with the largest R-hat (or, without one, whose chains drift most): the ones to look at.
    statistic : str
        ``mean`` or ``sd``.
    chains : int
        At most so many chains are drawn, the first ones.
    labels : mapping of variable to label, optional

    Returns
    -------
    Picture
    """
    traces = traces_of(imputations)
    if traces is None:
        raise InputError(
            "no traces were kept with these imputations. Give what tk.impute returned, or a table of " + ", ".join(_COLUMNS) + "."
        )
    data = traces[traces["statistic"] == statistic]
    if data.empty:
        known = ", ".join(sorted(set(traces["statistic"])))
        raise InputError(f"the traces hold no statistic {statistic!r}. Known: {known}.")
    shown = list(variables) if variables else _to_look_at(imputations, data, 12)
    keep = sorted(set(data["chain"]))[:chains]
    data = data[data["variable"].isin(shown) & data["chain"].isin(keep)].reset_index(drop=True)
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    width, panel = 7.4, 1.4
    height = down * panel + 0.45
    with look("trace"):
        figure = new_figure(width, height)
        axes = []
        for k, variable in enumerate(shown):
            row, column = divmod(k, across)
            cell = (width - 0.15) / across
            ax = figure.add_axes(
                (
                    (0.45 + column * cell) / width,
                    (height - (row + 1) * panel + 0.02) / height,
                    (cell - 0.55) / width,
                    (panel - 0.49) / height,
                )
            )
            part = data[data["variable"] == variable]
            wide = part.pivot(index="iteration", columns="chain", values="value")
            ax.plot(wide.index.to_numpy(), wide.to_numpy(), color=REFERENCE, lw=0.7, alpha=0.4)
            name = clean((labels or {}).get(variable, variable))
            ax.set_title(panel_title(name, cell - 0.48, FONT_SIZE - 1.5), fontsize=FONT_SIZE - 1.5, color=INK, pad=3)
            ax.tick_params(labelsize=FONT_SIZE - 2.5, pad=1.5, length=2)
            ax.xaxis.get_major_locator().set_params(integer=True, nbins=4)
            ax.yaxis.get_major_locator().set_params(nbins=3)
            ax.yaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
            if row < down - 1 and k + across < len(shown):
                ax.set_xticklabels([])
            axes.append(ax)
        figure.text(0.5, 0.06 / height, "iteration", ha="center", va="bottom", color=SOFT, fontsize=FONT_SIZE - 1)
    alt = f"{len(shown)} panels of {len(keep)} chains over {int(data['iteration'].max())} iterations. " + "; ".join(
        f"{clean(v)} ends between {number(float(e.min()))} and {number(float(e.max()))}" for v, e in _ends(data)
    )
    name = {"mean": "mean", "sd": "standard deviation"}.get(statistic, clean(statistic))
    return Picture(
        "trace",
        f"The {name} of the imputed values of each variable, iteration by iteration, a line a chain",
        alt,
        data,
        tuple(axes),
        figure,
    )


def plot_autocorrelation(
    imputations: Any,
    *,
    variables: tuple[str, ...] | None = None,
    statistic: str = "mean",
    most: int = 12,
    labels: Mapping[str, str] | None = None,
) -> Picture:
    """Draw how long the chains remember: the autocorrelation of each variable's statistic by lag, averaged over chains.

    Bars within the grey band are what independent draws would show (two standard errors). Chains are independent of one another, so a
    memory costs only iterations at the start, not the imputations' independence.

    Parameters
    ----------
    imputations : result of ``impute``, or DataFrame
        As for `plot_trace`.
    variables : tuple of str, optional
        By default those to look at, as in `plot_trace`.
    statistic : str
        ``mean``, ``sd`` or ``icc``.
    most : int
        At most so many variables, when none are named.
    labels : mapping of variable to label, optional

    Returns
    -------
    Picture
        ``data``: variable, lag, autocorrelation, chains, iterations.
    """
    traces = traces_of(imputations)
    if traces is None:
        raise InputError(
            "no traces were kept with these imputations. Give what tk.impute returned, or a table of " + ", ".join(_COLUMNS) + "."
        )
    kept = traces[traces["statistic"] == statistic]
    if kept.empty:
        known = ", ".join(sorted(set(traces["statistic"])))
        raise InputError(f"the traces hold no statistic {statistic!r}. Known: {known}.")
    shown = list(variables) if variables else _to_look_at(imputations, kept, most)
    rows: list[tuple[str, int, float, int, int]] = []
    for variable in shown:
        wide = kept[kept["variable"] == variable].pivot(index="iteration", columns="chain", values="value").to_numpy()
        if len(wide) < 4:
            raise InputError(f"{len(wide)} iterations show no autocorrelation: at least 4 are needed. Give more iterations.")
        rows += [(variable, lag, r, wide.shape[1], len(wide)) for lag, r in enumerate(_autocorrelation(wide))]
    data = pd.DataFrame(rows, columns=["variable", "lag", "autocorrelation", "chains", "iterations"])
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    width, panel = 7.4, 1.3
    height = down * panel + 0.45
    with look("autocorrelation"):
        figure = new_figure(width, height)
        axes = []
        cell = (width - 0.15) / across
        for k, variable in enumerate(shown):
            row, column = divmod(k, across)
            ax = figure.add_axes(
                (
                    (0.45 + column * cell) / width,
                    (height - (row + 1) * panel + 0.02) / height,
                    (cell - 0.55) / width,
                    (panel - 0.46) / height,
                )
            )
            part = data[data["variable"] == variable]
            band = 2 / np.sqrt(part["chains"].iloc[0] * part["iterations"].iloc[0])
            ax.axhspan(-band, band, color=SOFT, alpha=0.18, lw=0)
            ax.axhline(0.0, color=SOFT, lw=0.6)
            ax.vlines(part["lag"], 0.0, part["autocorrelation"], color=REFERENCE, lw=1.6)
            ax.set_ylim(-0.5, 1.05)
            ax.set_yticks([0, 0.5, 1])
            name = clean((labels or {}).get(variable, variable))
            ax.set_title(panel_title(name, cell - 0.48, FONT_SIZE - 1.5), fontsize=FONT_SIZE - 1.5, color=INK, pad=3)
            ax.tick_params(labelsize=FONT_SIZE - 2.5, pad=1.5, length=2)
            ax.xaxis.get_major_locator().set_params(integer=True, nbins=4)
            ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
            if row < down - 1 and k + across < len(shown):
                ax.set_xticklabels([])
            axes.append(ax)
        figure.text(0.5, 0.06 / height, "lag, iterations", ha="center", va="bottom", color=SOFT, fontsize=FONT_SIZE - 1)
    first = data[data["lag"] == 1].sort_values("autocorrelation", ascending=False)
    alt = f"{len(shown)} panels. At lag 1: " + "; ".join(
        f"{clean(v)} {number(float(r))}" for v, r in zip(first["variable"], first["autocorrelation"], strict=True)
    )
    name = {"mean": "mean", "sd": "standard deviation", "icc": "intracluster correlation"}.get(statistic, clean(statistic))
    title = f"Autocorrelation of the {name} of the imputed values over iterations"
    return Picture("autocorrelation", title, f"{alt}.", data, tuple(axes), figure)


def _autocorrelation(wide: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """Mean over chains (columns) about the mean of all; the first quarter left out; lags up to a third of what is left, at most 20."""
    wide = wide[len(wide) // 4 :]
    wide = wide[:, np.isfinite(wide).all(axis=0)]
    n = len(wide)
    centred = wide - wide.mean() if wide.size else wide
    square = float((centred**2).mean()) if wide.size else 0.0
    lags = range(min(20, max(n // 3, 1)) + 1)
    return [1.0 if lag == 0 else (float((centred[lag:] * centred[: n - lag]).mean()) / square if square > 0 else 0.0) for lag in lags]


def _ends(data: pd.DataFrame) -> list[tuple[str, pd.Series[Any]]]:
    last = data[data["iteration"] == data["iteration"].max()]
    return [(str(v), part["value"]) for v, part in last.groupby("variable", sort=False)]


def _to_look_at(imputations: Any, data: pd.DataFrame, most: int) -> list[str]:
    """The variables with the largest R-hat, in the order of the traces; without R-hat those that drift most."""
    frame = getattr(imputations, "frame", None)
    names = list(dict.fromkeys(data["variable"].tolist()))
    if not isinstance(frame, pd.DataFrame) or not {"variable", "r_hat_mean", "r_hat_sd"} <= set(frame.columns):
        return _drifting(data, most)
    worst = frame.assign(worst=frame[["r_hat_mean", "r_hat_sd"]].max(axis=1)).groupby("variable")["worst"].max().to_dict()
    chosen = sorted(names, key=lambda n: (-np.nan_to_num(float(worst.get(n, np.nan))), names.index(n)))[:most]
    return [n for n in names if n in chosen]


def _drifting(data: pd.DataFrame, most: int) -> list[str]:
    """The variables whose chains moved most from the first to the second half, measured by their spread."""
    names = list(dict.fromkeys(data["variable"].tolist()))
    half = data["iteration"].max() / 2
    score = {}
    for name in names:
        part = data[data["variable"] == name]
        early, late = part[part["iteration"] <= half]["value"], part[part["iteration"] > half]["value"]
        spread = float(part["value"].std()) if len(part) > 1 else 0.0
        score[name] = abs(float(early.mean()) - float(late.mean())) / spread if spread > 0 and len(early) and len(late) else 0.0
    worst = sorted(names, key=lambda n: (-np.nan_to_num(score[n]), names.index(n)))[:most]
    return [n for n in names if n in worst]
