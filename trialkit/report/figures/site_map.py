"""The sites on a map: the first two principal axes of the matching covariates, lines between the sites of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from trialkit.door import InputError, few, normalise, numbers, require_columns
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
    wrap,
)
from trialkit.results import minus

Array = np.ndarray[Any, np.dtype[np.float64]]

# positive numbers that span more than this are drawn by their logarithms, here as in the pair dot plot
_WIDE = 20
_PAIRED, _ALONE, _ASIDE = "paired", "randomised alone", "set aside"
_OPEN = "not paired"


def plot_site_map(
    allocation: Any, sites: pd.DataFrame, *, columns: Sequence[str] | None = None, arms: tuple[str, str] | None = None
) -> Picture:
    """Map of the sites: near sites are alike, a line joins the sites of a pair.

    The covariates are standardised over all sites (a positive number that spans more than a factor of 20 by its
    logarithm, a category as one 0/1 column a level but the first, a missing cell at the mean) and projected on
    their first two principal axes (scikit-learn ``PCA``).

    Parameters
    ----------
    allocation : Allocation, Pairing or DataFrame
        The id column, ``pair`` and, once the arms are revealed, ``arm``. Without arms nothing is coloured.
    sites : DataFrame
        One row a site with the covariates; sites that are not in the allocation are not drawn.
    columns : sequence of str, optional
        The covariates; by default those the sites were matched on, else every column but the id.
    arms : (str, str), optional
        Reference and intervention; by default the plan's, else the labels found.

    Returns
    -------
    Picture
        ``data``: one row a site: site, pair, arm, role (``paired``, ``randomised alone``, ``set aside``; ``not paired``
        where it is not known which), axis_1, axis_2.

    Raises
    ------
    InputError
        No pair, no common id column, or fewer than two columns that vary.
    """
    from sklearn.decomposition import PCA  # a slow import that only this picture needs

    rows, names, x = _cloud(allocation, sites, _matched_on(allocation) if columns is None else columns)
    if x.shape[1] < 2:
        raise InputError("a map needs at least two columns that vary between the sites. Name columns=(...), or use plot_pairs.")
    model = PCA(n_components=2, svd_solver="full")
    rows[["axis_1", "axis_2"]] = model.fit_transform(x)
    share = model.explained_variance_ratio_
    labels = [f"axis {k + 1}, {share[k]:.0%} of the variance: {_loadings(names, model.components_[k])}" for k in range(2)]
    return _draw(rows, labels, _arms(allocation, arms), names, float(share.sum()))


def _cloud(allocation: Any, sites: pd.DataFrame, columns: Sequence[str]) -> tuple[pd.DataFrame, list[str], Array]:
    """The sites by their ids, and their standardised covariates by name; without names every column."""
    frame = _frame(allocation)
    require_columns(frame, ["pair"], where="the allocation", why="to join its pairs")
    key = next((str(c) for c in frame.columns if str(c) in sites.columns and str(c) not in ("pair", "arm", "stratum")), None)
    if key is None:
        raise InputError("the allocation and the sites table have no id column in common. Give the sites table that was matched.")
    rows = _rows(allocation, frame, key)
    if not (rows["role"] == _PAIRED).any():
        raise InputError("the allocation has no pair to join. A map of the sites shows pairs; for other designs see plot_love.")
    # the shape of the cloud, and with it every bit of the picture, does not depend on the order of the rows
    table = normalise(sites, text=[key]).set_index(key)
    absent = [s for s in rows["site"] if s not in table.index]
    if absent:
        raise InputError(f"the sites table has no row for {few(absent)}. Give the sites table that was matched.")
    table = table.loc[rows["site"].tolist()].reset_index()
    shown = list(columns) or [str(c) for c in table.columns if c != key]
    require_columns(table, shown, where="sites", why="to draw the map")
    names, x = _standardised(table, shown)
    return rows, names, x


def _frame(allocation: Any) -> pd.DataFrame:
    return allocation if isinstance(allocation, pd.DataFrame) else allocation.frame


def _rows(allocation: Any, frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """Site, pair, arm and role, by the ids' UTF-8 bytes."""
    revealed = "arm" in frame.columns and bool(frame["arm"].notna().any())
    plan = getattr(allocation, "plan", None)
    randomised = set(getattr(plan, "sites", ())) or None
    aside = set(getattr(allocation, "reserve", ()))
    alone = set(getattr(allocation, "singles", ()))
    out: list[tuple[str, str | None, str | None, str]] = []
    for r in frame.to_dict(orient="records"):
        site, pair, arm = str(r[key]), r["pair"], r.get("arm")
        if isinstance(pair, str):
            role = _PAIRED
        elif site in alone or (randomised is not None and site in randomised) or isinstance(arm, str):
            role = _ALONE
        elif site in aside or randomised is not None or revealed:
            role = _ASIDE
        else:
            role = _OPEN
        out.append((site, pair if isinstance(pair, str) else None, arm if isinstance(arm, str) else None, role))
    out.sort(key=lambda row: row[0].encode("utf-8"))
    made = pd.DataFrame(out, columns=["site", "pair", "arm", "role"])
    return made.astype({"site": "str", "pair": "str", "arm": "str", "role": "str"})


def _matched_on(allocation: Any) -> list[str]:
    """The columns of the matching criteria, in rank order."""
    matched = getattr(getattr(allocation, "plan", None), "matched", None)
    pairing = matched() if callable(matched) else allocation
    return list(dict.fromkeys(c for criterion in getattr(pairing, "criteria", ()) for c in criterion.columns))


def _standardised(table: pd.DataFrame, columns: Sequence[str]) -> tuple[list[str], Array]:
    """Names and standardised columns, (n_sites, p); columns that never vary are left out."""
    names: list[str] = []
    kept: list[Array] = []
    for column in columns:
        for name, values in _coded(table, column):
            seen = values[np.isfinite(values)]
            spread = float(seen.std()) if len(seen) else 0.0
            if spread > 0:
                names.append(clean(name.replace("_", " ")))
                kept.append(np.where(np.isfinite(values), (values - seen.mean()) / spread, 0.0))
    return names, np.column_stack(kept) if kept else np.empty((len(table), 0))


def _coded(table: pd.DataFrame, column: str) -> list[tuple[str, Array]]:
    try:
        values = numbers(table, column, where="sites")  # exact decimals come as text
    except InputError:
        texts = [v if isinstance(v, str) else None for v in table[column].astype("str").where(table[column].notna()).tolist()]
        levels = sorted({t for t in texts if t is not None}, key=lambda t: t.encode("utf-8"))
        return [(f"{column} {level}", np.array([np.nan if t is None else float(t == level) for t in texts])) for level in levels[1:]]
    seen = values[np.isfinite(values)]
    if len(seen) and seen.min() > 0 and seen.max() / seen.min() > _WIDE:
        return [(f"log {column}", np.log(values))]
    return [(column, values)]


def _loadings(names: Sequence[str], weights: Array) -> str:
    """The covariates that make most of an axis, with their signs."""
    order = [int(k) for k in np.argsort(-np.abs(weights), kind="stable")[:3] if abs(weights[int(k)]) >= 0.3]
    return ", ".join(f"{'+' if weights[k] > 0 else minus('-')}{names[k]}" for k in order)


def _arms(allocation: Any, given: tuple[str, str] | None) -> tuple[str, ...]:
    """Arm labels, the reference first; none before the reveal."""
    frame = _frame(allocation)
    if "arm" not in frame.columns or not frame["arm"].notna().any():
        return ()
    declared = tuple(getattr(getattr(allocation, "plan", None), "arms", ()))
    return given or declared or tuple(sorted(frame["arm"].dropna().astype(str).unique()))


def _draw(rows: pd.DataFrame, labels: list[str], arms: tuple[str, ...], covariates: list[str], share: float) -> Picture:
    width, body = 6.4, 4.1
    left, right = 0.85, 0.15
    point = {r["site"]: (float(r["axis_1"]), float(r["axis_2"])) for r in rows.to_dict(orient="records")}
    with look("site-map"):
        handles = _handles(rows, arms)
        span = sum(0.62 + text_width(str(h.get_label())) for h in handles)
        columns = -(-len(handles) // max(1, int(np.ceil(span / width))))
        below = 0.6 + 0.22 * -(-len(handles) // columns)
        height = below + body + 0.15
        figure = new_figure(width, height)
        ax = figure.add_axes((left / width, below / height, (width - left - right) / width, body / height))
        for _, group in rows[rows["role"] == _PAIRED].groupby("pair"):
            for a, b in combinations(group["site"].tolist(), 2):
                (x0, y0), (x1, y1) = point[a], point[b]
                ax.plot([x0, x1], [y0, y1], color="#9A9A9A", lw=1.0, zorder=1)
        for look_of, some in _layers(rows, arms):
            ax.plot(some["axis_1"], some["axis_2"], **look_of)
        for site in rows.loc[rows["role"] != _PAIRED, "site"].tolist()[:12]:
            ax.annotate(
                shorten(clean(site), 1.0, FONT_SIZE - 2), point[site], xytext=(7, 6), textcoords="offset points", fontsize=FONT_SIZE - 2
            )
        ax.axhline(0, color=RULE, lw=0.6, zorder=0)
        ax.axvline(0, color=RULE, lw=0.6, zorder=0)
        ax.margins(0.06)
        ax.set_xlabel("\n".join(wrap(labels[0], width - left - right)[:1]))
        ax.set_ylabel("\n".join(wrap(labels[1], body)[:2]), linespacing=1.25)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda v, _: minus(f"{round(v, 9):g}"))
        figure.legend(handles=handles, loc="lower center", ncols=columns, bbox_to_anchor=(0.5, 0.0), handletextpad=0.3, columnspacing=1.4)
    pairs = int(rows["pair"].nunique())
    counts = [f"{pairs} pairs"]
    counts += [f"{n} {role}" for role in (_ALONE, _OPEN, _ASIDE) if (n := int((rows["role"] == role).sum()))]
    alt = (
        f"Map of {len(rows)} sites by {', '.join(covariates)}: {', '.join(counts)}. "
        f"The two axes hold {share:.0%} of the variance. {'Coloured by arm' if arms else 'Arms are not shown'}."
    )
    caption = "The sites on the first two principal axes of their standardised matching covariates; a line joins the sites of a pair"
    spans = rows[rows["role"] == _PAIRED].groupby("pair")[["axis_1", "axis_2"]].agg(np.ptp).max(axis=1)
    if same := int((spans < 1e-9).sum()):
        caption += f". In {same} pair{'s' if same > 1 else ''} both sites lie on one point"
    return Picture("site-map", caption, alt, rows, (ax,), figure)


def _layers(rows: pd.DataFrame, arms: tuple[str, ...]) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """What is drawn over what: (look, sites), each look with its label."""
    out: list[tuple[dict[str, Any], pd.DataFrame]] = []
    dot: dict[str, Any] = {"ls": "none", "mec": "white", "mew": 0.4, "zorder": 3}
    seen = arms if len(arms) == 2 else ()
    # the square is the smaller one, so that both show when a pair's sites lie on one point
    for arm, colour, marker, size in zip(seen, (REFERENCE, INTERVENTION), "os", (7.6, 4.2), strict=False):
        out.append(({**dot, "marker": marker, "ms": size, "mfc": colour, "label": clean(arm)}, rows[rows["arm"] == arm]))
    out.append(({**dot, "marker": "o", "ms": 5.2, "mfc": SOFT, "label": "site"}, rows[~rows["arm"].isin(seen) & (rows["role"] != _ASIDE)]))
    for role in (_ALONE, _OPEN):
        ring = {"ls": "none", "marker": "o", "ms": 12.0, "mfc": "none", "mec": INK, "mew": 1.0, "zorder": 2, "label": role}
        out.append((ring, rows[rows["role"] == role]))
    out.append(
        ({"ls": "none", "marker": "x", "ms": 6.0, "mec": SOFT, "mew": 1.4, "zorder": 3, "label": _ASIDE}, rows[rows["role"] == _ASIDE])
    )
    return [(look_of, some) for look_of, some in out if len(some)]


def _handles(rows: pd.DataFrame, arms: tuple[str, ...]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], **look_of) for look_of, _ in _layers(rows, arms)] + [Line2D([], [], color="#9A9A9A", lw=1.0, label="pair")]
