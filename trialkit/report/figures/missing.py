"""The missingness map: a row a person, sites in order, a column a variable; survey missed or answer missed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

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
    shorten,
    text_width,
)
from trialkit.report.missing import ANSWER_MISSING, SURVEY_MISSING, Missing

_COLOURS = ("#E9E9E5", INTERVENTION, "#8C8C8C")  # observed, answer missing, survey missing


def plot_missing(missing: Missing) -> Picture:
    """Draw where values are missing, everybody randomised.

    Parameters
    ----------
    missing : Missing
        From `missing_table`; one panel a kind of person.

    Returns
    -------
    Picture
        ``data``: rater, variable, label, observed, answer_missing, survey_missing (counts).
    """
    from matplotlib.colors import ListedColormap

    panels = {k: v for k, v in missing.patterns.items() if len(v) and len(v.columns) > 2}
    names = {k: [c for c in v.columns if c not in ("arm", "site")] for k, v in panels.items()}
    many = sum(len(n) for n in names.values())
    column, most = (0.235 if many <= 24 else 0.19), max((len(v) for v in panels.values()), default=1)
    body = min(4.6, max(1.8, most * 0.018))
    label_height = (
        max((text_width(shorten(_short(missing, c), 2.9), FONT_SIZE - 1.5) for n in names.values() for c in n), default=1.0) + 0.2
    )
    strip, gap, left, right = 0.2, 0.5, 0.05, 0.15
    widths = {k: max(len(n) * column, 1.1) for k, n in names.items()}
    words = ("observed", "answer missing", "survey not done", *(f"strip: {clean(a)}" for a in reversed(missing.arms)))
    needed = sum(text_width(w, FONT_SIZE - 1.5) + 0.42 for w in words)
    total = max(left + sum(widths.values()) + len(panels) * (strip + 0.06) + max(len(panels) - 1, 0) * gap + right, needed)
    foot = 0.85
    height = label_height + body + foot
    counts: list[tuple[Any, ...]] = []
    axes: list[Any] = []
    with look("missing"):
        figure = new_figure(total, height)
        x = left
        for rater, pattern in panels.items():
            codes = pattern[names[rater]].to_numpy(dtype=int)
            sites = pattern["site"].astype(str).tolist()
            arms = pattern["arm"].astype(str).tolist()
            ribbon = figure.add_axes((x / total, foot / height, strip / total, body / height))
            # neighbouring sites alternate in shade; the hue is the arm
            turn, shade = 0, []
            for k, s in enumerate(sites):
                turn += int(k > 0 and s != sites[k - 1])
                shade.append(2 * int(arms[k] == missing.arms[1]) + turn % 2)
            ribbon.imshow(
                np.array(shade)[:, None],
                aspect="auto",
                cmap=ListedColormap(["#9CC7E0", REFERENCE, "#F2B98F", INTERVENTION]),
                vmin=0,
                vmax=3,
            )
            ribbon.set_xticks([])
            ribbon.set_yticks([])
            ax = figure.add_axes(((x + strip + 0.06) / total, foot / height, widths[rater] / total, body / height))
            ax.imshow(codes, aspect="auto", cmap=ListedColormap(list(_COLOURS)), vmin=0, vmax=2)
            border = sum(a == missing.arms[1] for a in arms)
            for side in ("left", "right", "top", "bottom"):
                ax.spines[side].set_visible(False)
                ribbon.spines[side].set_visible(False)
            for edge in range(1, codes.shape[1]):
                ax.axvline(edge - 0.5, color="white", lw=1.0)
            if 0 < border < len(arms):
                for which in (ax, ribbon):
                    which.axhline(border - 0.5, color="white", lw=3.0)
            ax.set_yticks([])
            ax.set_xticks([])
            for k, name in enumerate(names[rater]):
                observed, answer, survey = (int((codes[:, k] == c).sum()) for c in (0, ANSWER_MISSING, SURVEY_MISSING))
                counts.append((rater, name, missing.labels[name], observed, answer, survey))
                share = 100 * (answer + survey) / len(codes)
                centre = (x + strip + 0.06 + (k + 0.5) * widths[rater] / codes.shape[1]) / total
                name_top = (foot + body + 0.06) / height
                figure.text(
                    centre, name_top, shorten(_short(missing, name), 2.9), rotation=90, ha="center", va="bottom", fontsize=FONT_SIZE - 1.5
                )
                figure.text(centre, (foot - 0.12) / height, f"{share:.0f}", ha="center", va="center", fontsize=FONT_SIZE - 2, color=SOFT)
            below = foot - 0.12
            figure.text((x + strip / 2) / total, below / height, "%", ha="center", va="center", fontsize=FONT_SIZE - 2, color=SOFT)
            line = f"{len(codes):,} people at {len(set(sites)):,} sites"
            if rater != "people":
                name = clean(rater)
                line = f"{name[:1].upper()}{name[1:]}: {line}"
            room = total - x - 0.05 if len(axes) + 1 == len(panels) else widths[rater] + strip + gap - 0.1
            figure.text(x / total, (foot - 0.34) / height, shorten(line, room), ha="left", va="center", color=INK)
            axes.append(ax)
            x += strip + 0.06 + widths[rater] + gap
        _key(figure, words)
    data = pd.DataFrame(counts, columns=["rater", "variable", "label", "observed", "answer_missing", "survey_missing"])
    worst = data.assign(gone=data["answer_missing"] + data["survey_missing"]).sort_values("gone", ascending=False).iloc[0]
    alt = (
        f"Missingness map of {len(data)} columns. Most often missing: {clean(worst['label'])} ({clean(worst['rater'])}), "
        f"{int(worst['gone'])} of {int(worst['gone'] + worst['observed'])}."
    )
    return Picture(
        "missing",
        "Where values are missing: everybody at the randomised sites, a row a person, sites in order",
        alt,
        data,
        tuple(axes),
        figure,
    )


def _short(missing: Missing, column: str) -> str:
    """A column's label as short as it can be: only a baseline is named, a follow-up is the outcome itself."""
    return clean(missing.labels[column].removesuffix(", follow-up"))


def _key(figure: Any, words: tuple[str, ...]) -> None:
    from matplotlib.patches import Patch

    colours = (*_COLOURS, "#E08A4A", "#4C9BC9")
    handles = [Patch(color=c, label=w) for c, w in zip(colours, words, strict=True)]
    figure.legend(
        handles=handles,
        loc="lower left",
        ncols=5,
        bbox_to_anchor=(0.0, 0.0),
        handlelength=1.0,
        handleheight=0.9,
        handletextpad=0.5,
        columnspacing=1.2,
        borderpad=0.3,
        fontsize=FONT_SIZE - 1.5,
    )
