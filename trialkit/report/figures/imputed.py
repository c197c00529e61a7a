"""Observed and imputed values side by side: the cumulative share of each, variable by variable, by arm too; and site by site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from trialkit.door import InputError
from trialkit.report.figures.canvas import (
    ALARM,
    CYCLE,
    FONT_SIZE,
    INK,
    REFERENCE,
    RULE,
    SOFT,
    Picture,
    clean,
    look,
    new_figure,
    number,
    panel_title,
    text_width,
)
from trialkit.results import minus

_SETS = 20  # more sets than this draw the same line


def can_compare(imputations: Any) -> bool:
    """Whether observed and imputed values can be told apart: the sets, the rows before imputation (``base``), and numbers with holes."""
    base = getattr(imputations, "base", None)
    if not isinstance(base, pd.DataFrame) or not isinstance(imputations, Iterable):
        return False
    # a trial without missing values, or with missing words alone, has no numbers to compare
    numbers = [base[v] for v in base.columns if pd.api.types.is_numeric_dtype(base[v]) and not pd.api.types.is_bool_dtype(base[v])]
    return any(values.isna().any() for values in numbers)


def plot_imputed(
    imputations: Any,
    *,
    variables: tuple[str, ...] | None = None,
    by: str | None = None,
    most: int = 8,
    labels: Mapping[str, str] | None = None,
) -> Picture:
    """Draw the distribution of the imputed values of each variable beside that of the observed ones.

    They need not agree, because values are missing for a reason; a gap asks for one.

    Parameters
    ----------
    imputations : result of ``impute``
        An iterable of completed frames with ``base``, the same rows before imputation.
    variables : tuple of str, optional
        By default the numeric ones with most missing values.
    by : str, optional
        A column of few values, the arm say: one pair of lines for each.
    most : int
        At most so many of them.
    labels : mapping of variable to label, optional

    Returns
    -------
    Picture
        ``data``: variable, (the column `by`,) kind (observed or imputed), n, mean, sd, and the quartiles.
    """
    base, drawn, count = _drawn(imputations)
    shown = _shown(drawn, variables, most)
    groups: list[tuple[Any, np.ndarray[Any, np.dtype[np.bool_]], str]] = [("", np.ones(len(base), dtype=bool), INK)]
    if by is not None:
        if by not in base.columns:
            raise InputError(f"the sets have no column {by!r}. Name the column of the arms: by=...")
        values = base[by].to_numpy(dtype=object)
        kinds = sorted({str(v) for v in values})
        if len(kinds) > len(CYCLE):
            raise InputError(f"{by!r} has {len(kinds)} values: too many lines to tell apart. For sites use plot_imputed_sites.")
        groups = [(kind, np.array([str(v) == kind for v in values]), CYCLE[k]) for k, kind in enumerate(kinds)]
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
            whole = base[variable].to_numpy(dtype=float, na_value=np.nan)
            for group, inside, colour in groups:
                observed = whole[inside & np.isfinite(whole)]
                imputed = drawn[variable][:, inside[np.isnan(whole)]]
                imputed = imputed[np.isfinite(imputed)]
                for kind, values_, dash in (("observed", observed, "-"), ("imputed", imputed, (0, (4, 1.5)))):
                    if not len(values_):
                        continue
                    hue = colour if by is not None else (INK if kind == "observed" else ALARM)
                    seaborn.ecdfplot(x=values_, ax=ax, color=hue, lw=1.2, ls=dash)
                    spread = float(np.std(values_, ddof=1)) if len(values_) > 1 else np.nan
                    n = len(values_) if kind == "observed" else len(values_) // count
                    quartiles = np.quantile(values_, (0.25, 0.5, 0.75)).tolist()
                    rows.append((variable, *([group] if by is not None else []), kind, n, float(np.mean(values_)), spread, *quartiles))
            name = clean((labels or {}).get(variable, variable))
            ax.set_title(panel_title(name, cell - 0.5, FONT_SIZE - 1.5), fontsize=FONT_SIZE - 1.5, pad=3)
            ax.set(xlabel="", ylabel="", ylim=(0, 1))
            ax.tick_params(labelsize=FONT_SIZE - 2.5, pad=1.5, length=2)
            ax.xaxis.get_major_locator().set_params(nbins=4)
            ax.yaxis.set_ticks([0, 0.5, 1])
            ax.xaxis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
            ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
            axes.append(ax)
        key = "—  observed     - -  imputed"
        figure.text(0.5, 0.06 / height, key, ha="center", va="bottom", color=SOFT, fontsize=FONT_SIZE - 1)
        at = 0.1
        for group, _, colour in groups if by is not None else ():
            figure.text(at / width, 0.06 / height, clean(group), ha="left", va="bottom", color=colour, fontsize=FONT_SIZE - 1)
            at += text_width(clean(group), FONT_SIZE - 1) + 0.25
    keys = ["variable", *([by] if by is not None else []), "kind"]
    data = pd.DataFrame(rows, columns=[*keys, "n", "mean", "sd", "q1", "median", "q3"])
    pairs = []
    for of, part in data.groupby(keys[:-1], sort=False):
        said = ", ".join(f"{number(float(mean))} {kind}" for kind, mean in zip(part["kind"], part["mean"], strict=True))
        which = [str(word) for word in of]
        group = f" ({clean(which[1])})" if by is not None else ""
        pairs.append(f"{clean((labels or {}).get(which[0], which[0]))}{group}: mean {said}")
    caption = "Cumulative share of the observed and of the imputed values of each variable, the variables with most values missing"
    return Picture("imputed", caption + (f", by {clean(by)}" if by else ""), "; ".join(pairs) + ".", data, tuple(axes), figure)


def plot_imputed_sites(
    imputations: Any,
    *,
    site: str = "site",
    variables: tuple[str, ...] | None = None,
    most: int = 8,
    labels: Mapping[str, str] | None = None,
) -> Picture:
    """Draw each site's mean of the imputed values against its mean of the observed ones.

    Where sites differ, imputed means lean towards the observed ones of their site (less than all the way: they are shrunken and hold
    noise); a cloud without a slope says that the sites were lost. Sites where nobody was observed stand as ticks at the right.

    Parameters
    ----------
    imputations : result of ``impute``
    site : str
        The column of the sites.
    variables : tuple of str, optional
        By default the numeric ones with most missing values.
    most : int
        At most so many of them.
    labels : mapping of variable to label, optional

    Returns
    -------
    Picture
        ``data``: variable, site, observed and imputed (people), observed_mean, imputed_mean.
    """
    base, drawn, _ = _drawn(imputations)
    if site not in base.columns:
        raise InputError(f"the sets have no column {site!r}. Name the column of the sites: site=...")
    shown = _shown(drawn, variables, most)
    place = np.array([str(v) for v in base[site].tolist()])
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    width, panel = 7.4, 1.8
    height = down * panel + 0.45
    rows: list[tuple[Any, ...]] = []
    axes = []
    with look("imputed-sites"):
        figure = new_figure(width, height)
        cell = (width - 0.15) / across
        for k, variable in enumerate(shown):
            row, column = divmod(k, across)
            box = (0.5 + column * cell, height - (row + 1) * panel + 0.06, cell - 0.55, panel - 0.53)
            ax = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
            values = base[variable].to_numpy(dtype=float, na_value=np.nan)
            hole = np.isnan(values)
            first = len(rows)
            for name in sorted(set(place)):
                inside = place == name
                imputed = drawn[variable][:, inside[hole]]
                imputed = imputed[:, np.isfinite(imputed).all(axis=0)]
                if not imputed.size:
                    continue
                seen = values[inside & ~hole]
                mean = float(seen.mean()) if len(seen) else np.nan
                rows.append((variable, name, len(seen), imputed.shape[1], mean, float(imputed.mean())))
            part = pd.DataFrame(rows[first:], columns=_SITE_COLUMNS)
            both = part[part["observed"] > 0]
            ax.scatter(both["observed_mean"], both["imputed_mean"], s=6 + 3 * both["imputed"], color=REFERENCE, alpha=0.45, lw=0)
            ends = np.array(ax.get_xlim())
            ax.plot(ends, ends, color=RULE, lw=0.8, zorder=0, scalex=False, scaley=False)
            for mean in part.loc[part["observed"] == 0, "imputed_mean"]:
                ax.plot([0.96, 1.0], [mean, mean], color=ALARM, lw=1.0, transform=ax.get_yaxis_transform(), scaley=True)
            name = clean((labels or {}).get(variable, variable))
            ax.set_title(panel_title(name, cell - 0.5, FONT_SIZE - 1.5), fontsize=FONT_SIZE - 1.5, pad=3)
            ax.tick_params(labelsize=FONT_SIZE - 2.5, pad=1.5, length=2)
            for axis in (ax.xaxis, ax.yaxis):
                axis.get_major_locator().set_params(nbins=4)
                axis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
            axes.append(ax)
        key = "across: mean observed at the site; up: mean imputed; red ticks: sites where nobody was observed"
        figure.text(0.5, 0.06 / height, key, ha="center", va="bottom", color=SOFT, fontsize=FONT_SIZE - 1)
    data = pd.DataFrame(rows, columns=_SITE_COLUMNS)
    said = []
    for variable in shown:
        part = data[data["variable"] == variable]
        both = part[part["observed"] > 0]
        alike = np.ptp(both["observed_mean"]) > 0 and np.ptp(both["imputed_mean"]) > 0 if len(both) > 2 else False
        r = number(float(np.corrcoef(both["observed_mean"], both["imputed_mean"])[0, 1])) if alike else "not defined"
        empty = int((part["observed"] == 0).sum())
        label = clean((labels or {}).get(variable, variable))
        said.append(f"{label}: correlation {r} over {len(both)} sites, {empty} without any")
    title = "Site by site: the mean of the imputed values against the mean of the observed ones"
    return Picture("imputed-sites", title, "; ".join(said) + ".", data, tuple(axes), figure)


_SITE_COLUMNS = ["variable", "site", "observed", "imputed", "observed_mean", "imputed_mean"]


def _drawn(imputations: Any) -> tuple[pd.DataFrame, dict[str, np.ndarray[Any, np.dtype[np.float64]]], int]:
    """The table before imputation, each numeric variable's imputed cells (sets, holes), and how many sets were read."""
    if not can_compare(imputations):
        raise InputError("these imputations do not tell imputed from observed values. Give what tk.impute returned.")
    base: pd.DataFrame = imputations.base
    asked = [str(v) for v in base.columns if pd.api.types.is_numeric_dtype(base[v]) and not pd.api.types.is_bool_dtype(base[v])]
    holes = {v: base[v].isna().to_numpy() for v in asked}
    sets = [frame for _, frame in zip(range(_SETS), imputations, strict=False)]
    # a variable that was not asked of somebody is missing and stays so
    filled = {v: np.stack([s[v].to_numpy(dtype=float, na_value=np.nan)[holes[v]] for s in sets]) for v in asked if holes[v].any()}
    return base, {v: x for v, x in filled.items() if np.isfinite(x).any()}, len(sets)


def _shown(drawn: Mapping[str, Any], variables: tuple[str, ...] | None, most: int) -> list[str]:
    asked = list(drawn)
    if variables is None:
        order = sorted(asked, key=lambda v: (-int(np.isfinite(drawn[v]).sum()), asked.index(v)))[:most]
        shown = [v for v in asked if v in order]
    else:
        shown = [v for v in variables if v in drawn]
    if not shown:
        raise InputError("no numeric variable was imputed, so there is nothing to compare.")
    return shown
