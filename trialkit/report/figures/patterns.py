"""Before imputing, in pictures: which columns are missing together, and which columns can help which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from trialkit.door import InputError
from trialkit.report.figures.canvas import (
    FONT_SIZE,
    INK,
    INTERVENTION,
    REFERENCE,
    RULE,
    SOFT,
    Picture,
    clean,
    look,
    new_figure,
    shorten,
    text_width,
)

_SEEN = "#E9E9E5"
_SMALL = FONT_SIZE - 1.5
_LABEL = 2.4  # inches a name may take


def plot_patterns(found: Any, *, most: int = 12, labels: Mapping[str, str] | None = None) -> Picture:
    """Draw which columns are missing together: a row a pattern, the most frequent first, and the people who have it.

    Parameters
    ----------
    found : result of ``missing_patterns``
        One panel a kind of person. Columns nobody misses are counted, not drawn.
    most : int, default 12
        Patterns a panel; what is left is counted in a line.
    labels : mapping of column to label, optional

    Returns
    -------
    Picture
        ``data``: group, pattern, people, share, variable, missing.

    Raises
    ------
    InputError
        The result is not of ``missing_patterns``, or nothing is missing.
    """
    panels = {k: v.loc[:, v.any()] for k, v in (getattr(found, "patterns", None) or {}).items() if v.to_numpy().any()}
    if not panels:
        raise InputError("there is no pattern to draw: give what missing_patterns returned, of people with something missing.")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InputError(f"most = {most!r}: a whole number of at least 1 is needed.")
    names = {c: shorten(clean((labels or {}).get(c, c)), _LABEL, _SMALL) for v in panels.values() for c in v.columns}
    cell, left, bars, head, foot = 0.2, 0.15, 1.5, max(text_width(n, _SMALL) for n in names.values()) + 0.15, 0.5
    shown = {k: min(most, len(v)) for k, v in panels.items()}
    heights = {k: head + cell * shown[k] + foot for k in panels}
    width = max(max(left + cell * len(v.columns) for v in panels.values()) + 0.15 + bars + 0.95, 4.8)
    height = sum(heights.values())
    parts, axes = [], []
    with look("patterns"):
        from matplotlib.colors import ListedColormap

        figure = new_figure(width, height)
        top = height
        for group, matrix in panels.items():
            counts = found.frame.loc[found.frame["group"] == group, ["people", "share"]].reset_index(drop=True)
            k, n = shown[group], len(matrix.columns)
            order = matrix.T.dot(counts["people"]).sort_values(ascending=False, kind="stable").index
            body = cell * k
            bottom = top - head - body
            place = (left / width, bottom / height, cell * n / width, body / height)
            ax = figure.add_axes(place)
            drawn = matrix[order].iloc[:k]
            ax.imshow(drawn.to_numpy(dtype=int), aspect="auto", cmap=ListedColormap([_SEEN, INTERVENTION]), vmin=0, vmax=1)
            for edge in np.arange(0.5, n - 1):
                ax.axvline(edge, color="white", lw=1.2)
            for edge in np.arange(0.5, k - 1):
                ax.axhline(edge, color="white", lw=1.2)
            ax.set_xticks([])
            ax.set_yticks([])
            for side in ax.spines.values():
                side.set_visible(False)
            for j, name in enumerate(order):
                at = (left + cell * (j + 0.5)) / width
                figure.text(at, (bottom + body + 0.06) / height, names[name], rotation=90, ha="center", va="bottom", fontsize=_SMALL)
            side_by = figure.add_axes(((left + cell * n + 0.15) / width, bottom / height, bars / width, body / height))
            people = counts["people"].iloc[:k]
            side_by.barh(np.arange(k), people, color=[RULE if not row else REFERENCE for row in drawn.any(axis=1)], height=0.62)
            side_by.set_ylim(k - 0.5, -0.5)
            side_by.set_xlim(0, max(people) or 1)
            side_by.axis("off")
            for j, (count, share) in enumerate(zip(people, counts["share"].iloc[:k], strict=True)):
                text = f"{int(count):,} ({f'{100 * share:.0f}' if share >= 0.005 else '<1'}%)"
                side_by.text(count + 0.03 * max(people), j, text, ha="left", va="center", fontsize=_SMALL)
            words = f"{int(counts['people'].sum()):,} people" if not group else f"{clean(group)}: {int(counts['people'].sum()):,} people"
            if len(matrix) > k:
                rest = int(counts["people"].iloc[k:].sum())
                words += f"; {len(matrix) - k} more patterns, {rest:,} people, not drawn"
            complete = len(found.patterns[group].columns) - n
            if complete:
                words += f"; {complete} complete columns not drawn"
            figure.text(left / width, (bottom - 0.16) / height, shorten(words, width - left - 0.05), ha="left", va="center", color=SOFT)
            long = drawn.assign(pattern=np.arange(1, k + 1), people=people, share=counts["share"].iloc[:k], group=group)
            parts.append(long.melt(["group", "pattern", "people", "share"], var_name="variable", value_name="missing"))
            axes += [ax, side_by]
            top -= heights[group]
    first = next(iter(panels))
    whole = found.frame[found.frame["group"] == first].iloc[0]
    alt = f"{sum(len(v) for v in panels.values())} patterns of missing columns. The most frequent, {int(whole['people'])} people, misses "
    alt += f"{int(whole['missing'])} columns."
    data = pd.concat(parts, ignore_index=True)
    return Picture(
        "patterns", "What is missing together: a row a pattern, orange where a column is missing", alt, data, tuple(axes), figure
    )


def plot_flux(found: Any, *, labels: Mapping[str, str] | None = None) -> Picture:
    """Draw each column's influx (what there is to impute it from) and outflux (what it can help to impute).

    Parameters
    ----------
    found : result of ``missing_flux``
        One panel a kind of person, the columns in the order of their outflux: one low down helps little and costs parameters.
    labels : mapping of column to label, optional

    Returns
    -------
    Picture
        ``data``: group, variable, observed, influx, outflux.

    Raises
    ------
    InputError
        The result is not of ``missing_flux``.
    """
    frame = getattr(found, "frame", None)
    columns = ["group", "variable", "observed", "influx", "outflux"]
    if not isinstance(frame, pd.DataFrame) or not set(columns) <= set(frame.columns) or not len(frame):
        raise InputError("this is not a table of flux. Give what missing_flux returned.")
    data = frame[columns].sort_values(["group", "outflux", "influx"], ascending=[True, False, True], kind="stable").reset_index(drop=True)
    names = [shorten(clean((labels or {}).get(v, v)), _LABEL, _SMALL) for v in data["variable"]]
    margin = max(text_width(n, _SMALL) for n in names) + 0.2
    row, head, foot, plot = 0.19, 0.35, 0.75, 3.4
    groups = list(dict.fromkeys(data["group"]))
    many = data["group"].value_counts()
    width, height = margin + plot + 0.2, sum(head + row * many[g] for g in groups) + foot
    axes = []
    with look("flux"):
        figure = new_figure(width, height)
        top = height
        for group in groups:
            part = data[data["group"] == group]
            body = row * len(part)
            bottom = top - head - body
            ax = figure.add_axes((margin / width, bottom / height, plot / width, body / height))
            y = np.arange(len(part))
            ax.hlines(y, part[["influx", "outflux"]].min(axis=1), part[["influx", "outflux"]].max(axis=1), color=RULE, lw=1.0, zorder=1)
            ax.plot(part["influx"], y, "o", ms=4.5, mfc="white", mec=INTERVENTION, mew=1.1, zorder=2)
            ax.plot(part["outflux"], y, "o", ms=4.5, mfc=REFERENCE, mec=REFERENCE, zorder=3)
            ax.set_ylim(len(part) - 0.5, -0.5)
            ax.set_xlim(-0.03, 1.03)
            ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)
            for k, index in enumerate(part.index):
                at = (bottom + body - row * (k + 0.5)) / height
                figure.text((margin - 0.1) / width, at, names[index], ha="right", va="center", fontsize=_SMALL)
            if group:
                figure.text(margin / width, (bottom + body + 0.08) / height, clean(group), ha="left", va="bottom", color=INK)
            if group != groups[-1]:
                ax.set_xticklabels([])
            axes.append(ax)
            top -= head + body
        for x, mark, colour, face, word in (
            (0.1, "o", REFERENCE, REFERENCE, "outflux: helps to impute"),
            (0.55, "o", INTERVENTION, "white", "influx: to be imputed from"),
        ):
            at = (margin + (x - 0.1) * plot / 0.9) / width
            key = figure.add_axes((at, 0.12 / height, 0.12 / width, 0.12 / height))
            key.plot([0], [0], mark, ms=4.5, mfc=face, mec=colour)
            key.axis("off")
            figure.text(at + 0.17 / width, 0.18 / height, word, ha="left", va="center", fontsize=_SMALL, color=SOFT)
    low = data.iloc[int(data["outflux"].argmin())]
    alt = f"Influx and outflux of {len(data)} columns. The least connected is {clean(low['variable'])}, outflux {low['outflux']:.2f}."
    return Picture("flux", "How well each column is connected to what is missing", alt, data, tuple(axes), figure)
