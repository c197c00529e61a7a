"""The baseline table: sites and people, arm by arm, with standardised differences and no p-values.

Randomisation is known to have happened, so a test of baseline differences answers no question; and one that
ignores the sites would answer it wrongly. The standardised mean difference (SMD) is the difference of means over
the root of the arms' mean variance (Austin 2009); for a variable of several categories it is Yang and Dalton's
(2012) multivariate form, which has no sign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trialkit.design import Covariate, TrialDesign
from trialkit.door import normalise, zero_one
from trialkit.report.flow import id_column, percent
from trialkit.report.layout import Layout, Row
from trialkit.report.tables import asked
from trialkit.results import MISSING, Result, minus

Array = np.ndarray[Any, np.dtype[np.float64]]
# columns of a sites table that say what happened rather than what a site is
_NOT_A_TRAIT = ("arm", "pair", "stratum", "status")


@dataclass(frozen=True)
class Baseline(Result):
    """Baseline characteristics by arm.

    Attributes
    ----------
    frame : DataFrame
        One row a variable (and category): ``panel, variable, label, category, statistic``; for each arm ``n_*``,
        ``centre_*`` and ``spread_*`` with ``reference`` or ``intervention`` (mean and SD, median and IQR as
        ``low_*``/``high_*``, or count and share); ``smd`` (on the first row of a variable); ``missing``.
    arms : (str, str)
        Reference and intervention.
    sizes : mapping
        Panel -> units in (reference, intervention).
    title : str
    notes : tuple of str
    """

    frame: pd.DataFrame
    arms: tuple[str, str]
    sizes: dict[str, tuple[int, int]]
    title: str = "Sites and people at baseline"
    notes: tuple[str, ...] = ()

    def layout(self) -> Layout:
        """The table as printed: intervention first, as in the flow."""
        reference, intervention = self.arms
        rows: list[Row] = []
        for panel in dict.fromkeys(self.frame["panel"]):
            n0, n1 = self.sizes[panel]
            rows.append(Row((f"{panel} ({intervention} {n1:,}, {reference} {n0:,})",), group=True))
            part = self.frame[self.frame["panel"] == panel]
            for variable in dict.fromkeys(part["variable"]):
                block = part[part["variable"] == variable]
                first = block.iloc[0]
                smd, lost = _signed(float(first["smd"])), f"{int(first['missing']):,}"
                if first["category"] is None or pd.isna(first["category"]):
                    rows.append(
                        Row(
                            (f"{first['label']}, {first['statistic']}", _cell(first, "intervention"), _cell(first, "reference"), smd, lost),
                            1,
                        )
                    )
                    continue
                if len(block) == 1:
                    label = f"{first['label']}: {first['category']}, n (%)"
                    rows.append(Row((label, _cell(first, "intervention"), _cell(first, "reference"), smd, lost), 1))
                    continue
                rows.append(Row((f"{first['label']}, n (%)", "", "", smd, lost), 1))
                rows += [Row((str(r["category"]), _cell(r, "intervention"), _cell(r, "reference"), "", ""), 2) for _, r in block.iterrows()]
        heads = ("", intervention.capitalize(), reference.capitalize(), "SMD", "Missing")
        return Layout(heads, tuple(rows), "lrrrr", self.title, self.notes)

    def to_text(self) -> str:
        """Plain text."""
        return self.layout().to_text()

    def to_html(self) -> str:
        """An HTML table."""
        return self.layout().to_html()

    def to_latex(self) -> str:
        """A LaTeX table."""
        return self.layout().to_latex()


def baseline_table(people: pd.DataFrame, design: TrialDesign, *, sites: pd.DataFrame | None = None, allocation: Any = None) -> Baseline:
    """Describe the sites and the people of each arm at baseline.

    Parameters
    ----------
    people : DataFrame
        One row a person. Described are those with a baseline (``design.flow.baseline``), or everybody with an arm.
    design : TrialDesign
        Covariates and outcomes with a baseline column.
    sites : DataFrame, optional
        One row a site; every column but id, arm, pair, stratum and status is described.
    allocation : optional
        Its ``frame`` gives the arm of a site that has no people.

    Returns
    -------
    Baseline

    Examples
    --------
    >>> design = TrialDesign.from_text('[[outcomes]]\\nname = "y"')
    >>> people = pd.DataFrame({"person": ["a", "b", "c", "d"], "site": ["1", "1", "2", "2"],
    ...                        "arm": ["control"] * 2 + ["intervention"] * 2, "y_0": [1.0, 2.0, 2.0, 3.0]})
    >>> float(round(baseline_table(people, design).frame.query("variable == 'y_0'").smd.iloc[0], 4))
    1.4142
    """
    data = normalise(people, text=design.text_columns)
    columns = design.columns
    inside = data[columns.arm].isin(design.arms.labels).to_numpy()
    if design.flow is not None and design.flow.baseline:
        described = inside & zero_one(data, design.flow.baseline, where="people", why="to count the flow")
        who = "People who did the baseline survey"
    else:
        described, who = inside, "Everybody randomised"
    rows: list[dict[str, Any]] = []
    sizes: dict[str, tuple[int, int]] = {}
    labels = design.arms.labels

    def arms_of(frame: pd.DataFrame, column: str) -> tuple[Any, Any]:
        return tuple((frame[column] == label).fillna(False).to_numpy(dtype=bool) for label in labels)  # type: ignore[return-value]

    _site_panel(data[inside], data[described], design, sites, allocation, rows, sizes)
    for rater in design.raters:
        here = data[described & asked(data, design, rater)].reset_index(drop=True)
        panel = "People" if rater is None else f"People: {rater}"
        masks = arms_of(here, columns.arm)
        sizes[panel] = (int(masks[0].sum()), int(masks[1].sum()))
        for covariate in design.covariates:
            if covariate.name in here.columns:
                rows += _covariate(panel, here, covariate, masks)
        for outcome in design.for_rater(rater):
            if outcome.baseline and outcome.baseline in here.columns and pd.api.types.is_numeric_dtype(here[outcome.baseline]):
                values = here[outcome.baseline].to_numpy(dtype=float)
                kind = "median (IQR)" if outcome.type == "count" else "mean (SD)"
                if outcome.type == "binary":
                    rows += _shares(panel, outcome.baseline, outcome.label, here[outcome.baseline], masks, None)
                else:
                    rows.append(_number(panel, outcome.baseline, outcome.label, values, masks, kind))
    notes = (
        f"{who}. SMD: standardised mean difference, {labels[1]} minus {labels[0]}; for several categories without sign. No p-values: that "
        "the arms were drawn at random is known.",
    )
    return Baseline(frame=pd.DataFrame(rows, columns=list(_COLUMNS)), arms=labels, sizes=sizes, notes=notes)


_COLUMNS = (
    *("panel", "variable", "label", "category", "statistic"),
    *(f"{what}_{arm}" for arm in ("reference", "intervention") for what in ("n", "centre", "spread", "low", "high")),
    *("smd", "missing"),
)


def _site_panel(
    randomised: pd.DataFrame,
    people: pd.DataFrame,
    design: TrialDesign,
    sites: pd.DataFrame | None,
    allocation: Any,
    rows: list[dict[str, Any]],
    sizes: dict[str, tuple[int, int]],
) -> None:
    columns = design.columns
    arm_of = dict(zip(randomised[columns.site].tolist(), randomised[columns.arm].tolist(), strict=True))
    if allocation is not None:
        drawn = allocation.frame
        arm_of = {
            s: a
            for s, a in zip(drawn[id_column(drawn, design)].astype(str).tolist(), drawn["arm"].tolist(), strict=True)
            if a in design.arms.labels
        }
    ids = list(arm_of)
    arms = np.array([arm_of[i] for i in ids], dtype=object)
    masks = (arms == design.arms.reference, arms == design.arms.intervention)
    panel = "Sites"
    sizes[panel] = (int(masks[0].sum()), int(masks[1].sum()))
    for rater in design.raters:
        here = people[asked(people, design, rater)]
        count = here[columns.site].value_counts().to_dict()
        size = np.array([float(count.get(i, 0)) for i in ids])
        label = "People at baseline" if rater is None else f"{rater.capitalize()}: people at baseline"
        rows.append(_number(panel, f"size_{rater or 'all'}", f"{label} a site", size, masks, "median (IQR)"))
    if sites is not None:
        key = id_column(sites, design)
        table = normalise(sites, text=[key]).set_index(key)
        for name in table.columns:
            if name in _NOT_A_TRAIT or name in (columns.arm, columns.pair):
                continue
            column = table[name].reindex(ids)
            label = name.replace("_", " ")
            label = label[:1].upper() + label[1:]
            if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column) and not _is_zero_one(column):
                rows.append(_number(panel, name, label, column.to_numpy(dtype=float), masks, "median (IQR)"))
            elif column.nunique() <= 12:
                rows += _shares(panel, name, label, column, masks, None)
    for outcome in design.outcomes:
        if outcome.rank != "primary" or not outcome.baseline or outcome.baseline not in people.columns or outcome.type == "binary":
            continue
        if not pd.api.types.is_numeric_dtype(people[outcome.baseline]):
            continue
        here = people[asked(people, design, outcome.rater)]
        means = here.groupby(columns.site)[outcome.baseline].mean().to_dict()
        values = np.array([float(means.get(i, np.nan)) for i in ids])
        rows.append(_number(panel, f"mean_{outcome.baseline}", f"{outcome.label}, site means", values, masks, "mean (SD)"))


def _is_zero_one(column: pd.Series[Any]) -> bool:
    values = set(column.dropna().tolist())
    return bool(values) and values <= {0, 1}


def _number(panel: str, name: str, label: str, values: Array, masks: tuple[Any, Any], statistic: str) -> dict[str, Any]:
    row: dict[str, Any] = {"panel": panel, "variable": name, "label": label, "category": None, "statistic": statistic}
    seen = [v[np.isfinite(v)] for v in (values[masks[0]], values[masks[1]])]
    for arm, v in zip(("reference", "intervention"), seen, strict=True):
        row[f"n_{arm}"] = len(v)
        middle: Callable[[Array], Any] = np.median if statistic.startswith("median") else np.mean
        row[f"centre_{arm}"] = float(middle(v)) if len(v) else np.nan
        row[f"spread_{arm}"] = float(np.std(v, ddof=1)) if len(v) > 1 else np.nan
        row[f"low_{arm}"], row[f"high_{arm}"] = (float(np.quantile(v, q)) if len(v) else np.nan for q in (0.25, 0.75))
    row["smd"] = smd_of_means(seen[1], seen[0])
    row["missing"] = int((~np.isfinite(values[masks[0] | masks[1]])).sum())
    return row


def _covariate(panel: str, data: pd.DataFrame, covariate: Covariate, masks: tuple[Any, Any]) -> list[dict[str, Any]]:
    label = covariate.name.replace("_", " ")
    label = label[:1].upper() + label[1:]
    column = data[covariate.name]
    if covariate.type == "continuous" and pd.api.types.is_numeric_dtype(column):
        return [_number(panel, covariate.name, label, column.to_numpy(dtype=float), masks, "mean (SD)")]
    return _shares(panel, covariate.name, label, column, masks, covariate.levels)


def _shares(
    panel: str, name: str, label: str, column: pd.Series[Any], masks: tuple[Any, Any], levels: tuple[str, ...] | None
) -> list[dict[str, Any]]:
    values = [_word(v) for v in column.tolist()]
    found = [v for v in dict.fromkeys(values) if v is not None]
    order = [*(levels or ()), *sorted(v for v in found if v not in (levels or ()))]
    known = np.array([v is not None for v in values], dtype=bool)
    counts = np.array(
        [[sum(1 for v, m in zip(values, mask, strict=True) if m and v == level) for level in order] for mask in masks], dtype=float
    )
    totals = [int((mask & known).sum()) for mask in masks]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.array([c / t if t else np.full(len(order), np.nan) for c, t in zip(counts, totals, strict=True)])
    smd = smd_of_shares(shares[1], shares[0])
    missing = int(((masks[0] | masks[1]) & ~known).sum())
    # of two categories one says it all: the second of a declared order (the first is the reference), yes of yes and no
    shown = [1] if len(order) == 2 else range(len(order))
    if len(order) == 2:
        smd = abs(smd) if np.isnan(smd) else float(np.sign(shares[1][1] - shares[0][1]) * abs(smd))
    rows = []
    for k in shown:
        row: dict[str, Any] = {"panel": panel, "variable": name, "label": label, "category": order[k], "statistic": "n (%)"}
        for a, arm in enumerate(("reference", "intervention")):
            row |= {
                f"n_{arm}": totals[a],
                f"centre_{arm}": counts[a][k],
                f"spread_{arm}": shares[a][k],
                f"low_{arm}": np.nan,
                f"high_{arm}": np.nan,
            }
        rows.append(row | {"smd": smd, "missing": missing})
    return rows


def _word(value: Any) -> str | None:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def smd_of_means(intervention: Array, reference: Array) -> float:
    """Difference of means over the root of the mean of the two variances; 0 when neither varies nor differs."""
    if len(intervention) < 2 or len(reference) < 2:
        return float("nan")
    spread = float(np.sqrt((np.var(intervention, ddof=1) + np.var(reference, ddof=1)) / 2))
    gap = float(np.mean(intervention) - np.mean(reference))
    if spread == 0.0:
        return 0.0 if gap == 0.0 else float("nan")
    return gap / spread


def smd_of_shares(intervention: Array, reference: Array) -> float:
    """Yang and Dalton's distance between two sets of shares over all categories but the first."""
    if len(intervention) < 2 or not (np.isfinite(intervention).all() and np.isfinite(reference).all()):
        return 0.0 if len(intervention) == 1 else float("nan")
    gap = (intervention - reference)[1:]

    def covariance(p: Array) -> Array:
        q = p[1:]
        return np.asarray(np.diag(q) - np.outer(q, q))

    middle = (covariance(intervention) + covariance(reference)) / 2
    squared = float(gap @ np.linalg.pinv(middle, rcond=1e-10, hermitian=True) @ gap)
    return float(np.sqrt(max(squared, 0.0)))


def _cell(row: Any, arm: str) -> str:
    n, centre = int(row[f"n_{arm}"]), float(row[f"centre_{arm}"])
    if n == 0 or np.isnan(centre):
        return MISSING
    if row["statistic"] == "n (%)":
        return f"{int(centre):,} ({percent(centre, n)})"
    if row["statistic"].startswith("median"):
        return minus(f"{_plain(centre)} ({_plain(float(row[f'low_{arm}']))} to {_plain(float(row[f'high_{arm}']))})")
    spread = float(row[f"spread_{arm}"])
    return minus(f"{_plain(centre, 2)} ({MISSING if np.isnan(spread) else _plain(spread, 2)})")


def _plain(value: float, digits: int = 1) -> str:
    """A number with its thousands marked; decimals only where they say something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if digits == 1 and float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return MISSING if np.isnan(value) else minus(f"{value:.2f}" if round(value, 2) != 0 else "0.00")
