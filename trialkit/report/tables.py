"""The tables a paper prints: every outcome in the trial's layout, and the planning and checking tables.

`report_table` gives the trial's Table 2: outcomes by level, then rank, with n per arm, Cohen's d, its interval,
p, p adjusted, the ICC and the fraction of missing information. `write_tables` puts it into a folder as CSV,
HTML, LaTeX and Word.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trialkit.design import TrialDesign
from trialkit.door import InputError, WriteError, normalise, require_columns, write_whole, zero_one
from trialkit.report.layout import Layout, Row, word_file
from trialkit.results import MISSING, Result, Table, format_cell, minus

COHENS_D = "Cohen's d"
_RANKS = ("primary", "secondary", "exploratory")
_NUMBERS = (
    "estimate",
    "std_error",
    "df",
    "statistic",
    "conf_low",
    "conf_high",
    "p_value",
    "p_adjusted",
    "icc",
    "fmi",
    "n",
    "clusters",
    "m",
)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain dictionaries."""
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict(orient="records")]


def results_frame(results: Any) -> pd.DataFrame:
    """The frame of a result, or the frame itself."""
    frame = results if isinstance(results, pd.DataFrame) else getattr(results, "frame", None)
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"results of the analysis were expected, not {type(results).__name__}. Give what tk.itt returned.")
    require_columns(frame, ["outcome", "estimate", "conf_low", "conf_high", "p_value"], where="results", why="in the table of outcomes")
    return frame


def outcome_rows(results: Any, design: TrialDesign | None = None, *, people: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row an outcome, in the order they are printed: by level as declared, then by rank, then as declared.

    Columns: ``outcome, label, level, level_label, rank, direction, measure, n_reference, n_intervention`` and the numbers of
    the results; a number the results do not have is missing.
    """
    frame = results_frame(results)
    if "analysis" in frame.columns:
        # the model's row stands first, the analyses beside it follow
        frame = frame.drop_duplicates("outcome")
    declared = {o.name: o for o in design.outcomes} if design is not None else {}
    rows = pd.DataFrame({"outcome": frame["outcome"].astype(str).tolist()})
    names = rows["outcome"].tolist()
    rows["label"] = [declared[n].label if n in declared else n.replace("_", " ") for n in names]

    def told(column: str, default: str) -> list[str]:
        given = frame[column].astype(str).tolist() if column in frame.columns else [default] * len(frame)
        return [getattr(declared[n], column) if n in declared else g for n, g in zip(names, given, strict=True)]

    rows["level"], rows["rank"] = told("level", "person"), told("rank", "secondary")
    rows["level_label"] = [f"{level[:1].upper()}{level[1:]} level" for level in rows["level"]]
    rows["direction"] = [declared[n].direction if n in declared else "higher" for n in names]
    for column in _NUMBERS:
        rows[column] = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=float) if column in frame.columns else np.nan
    rows["measure"] = _measures(frame, results)
    rows["n_reference"], rows["n_intervention"] = _per_arm(rows, results, design, people)
    levels = list(dict.fromkeys([o.level for o in design.outcomes] if design is not None else []) | dict.fromkeys(rows["level"]))
    order = {n: k for k, n in enumerate(declared)}
    rank = {r: k for k, r in enumerate(_RANKS)}
    keys = [
        (levels.index(r.level), rank.get(str(r.rank), len(rank)), order.get(str(r.outcome), len(order)), k)
        for k, r in enumerate(rows.itertuples())
    ]
    return rows.iloc[sorted(range(len(rows)), key=lambda k: keys[k])].reset_index(drop=True)


def _measures(frame: pd.DataFrame, results: Any) -> list[str]:
    """What each estimate is; Cohen's d where nothing else is said."""
    if "measure" in frame.columns:
        return frame["measure"].astype(str).tolist()
    details = getattr(results, "details", None)
    told = details.set_index("outcome")["measure"].to_dict() if isinstance(details, pd.DataFrame) and "measure" in details.columns else {}
    return [str(told.get(name, COHENS_D)) for name in frame["outcome"].astype(str)]


def is_ratio(measure: str) -> bool:
    """Whether no effect is 1 rather than 0."""
    return "ratio" in measure


def symbol(measure: str) -> str:
    """How a column of such effects is headed."""
    return "d" if measure == COHENS_D else f"{measure[:1].upper()}{measure[1:]}"


def _per_arm(
    rows: pd.DataFrame, results: Any, design: TrialDesign | None, people: pd.DataFrame | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """People analysed in each arm, outcome by outcome; missing when they cannot be told without a doubt."""
    for told in (getattr(results, "details", None), results_frame(results)):
        if isinstance(told, pd.DataFrame) and {"outcome", "n_reference", "n_intervention"} <= set(told.columns):
            by = told.drop_duplicates("outcome").set_index("outcome")
            reference, intervention = (
                pd.to_numeric(by[c].reindex(rows["outcome"].tolist())).to_numpy(dtype=float) for c in ("n_reference", "n_intervention")
            )
            return reference, intervention
    unknown = np.full(len(rows), np.nan)
    if people is None or design is None:
        return unknown, unknown.copy()
    data = normalise(people, text=design.text_columns)
    reference, intervention = unknown, unknown.copy()
    declared = {o.name: o for o in design.outcomes}
    analysed = analysed_rows(data, design)
    arm = data[design.columns.arm].tolist()
    for k, row in enumerate(rows.itertuples()):
        outcome = declared.get(str(row.outcome))
        if outcome is None:
            continue
        here = analysed & asked(data, design, outcome.rater)
        observed = here & data[outcome.name].notna().to_numpy() if outcome.name in data.columns else here
        for mask in (here, observed):
            counts = [int(sum(1 for a, m in zip(arm, mask, strict=True) if m and a == label)) for label in design.arms.labels]
            if np.isnan(row.n) or sum(counts) == row.n:  # type: ignore[arg-type]
                reference[k], intervention[k] = counts
                break
    return reference, intervention


def analysed_rows(data: pd.DataFrame, design: TrialDesign) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows of the (normalised) participants' table belong to the analysed population."""

    inside = data[design.columns.arm].isin(design.arms.labels).to_numpy()
    population = design.imputation.population
    return inside if population == "randomised" else inside & zero_one(data, population, where="people", why="to count the flow")


def asked(data: pd.DataFrame, design: TrialDesign, rater: str | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are of the kind of person that answers: everybody when `rater` is None."""
    if rater is None or design.columns.rater is None:
        return np.ones(len(data), dtype=bool)
    return (data[design.columns.rater] == rater).fillna(False).to_numpy(dtype=bool)


@dataclass(frozen=True)
class ReportTable(Result):
    """The trial's Table 2.

    Attributes
    ----------
    frame : DataFrame
        ``outcome, label, level, level_label, rank, direction, measure, estimate, ..., n_reference, n_intervention``: unrounded.
    title : str
    notes : tuple of str
    arms : (str, str)
        Reference and intervention.
    conf_level : float
    """

    frame: pd.DataFrame
    title: str
    notes: tuple[str, ...]
    arms: tuple[str, str]
    conf_level: float = 0.95

    def layout(self) -> Layout:
        """The table as printed."""
        f = self.frame
        reference, intervention = self.arms
        shown: list[tuple[str, str, str, str]] = []  # header, align, column, format
        if f["n_reference"].notna().any():
            shown += [(f"n {intervention}", "r", "n_intervention", "d"), (f"n {reference}", "r", "n_reference", "d")]
        else:
            shown.append(("n", "r", "n", "d"))
        shown.append(("Sites", "r", "clusters", "d"))
        measures = list(dict.fromkeys(f["measure"]))
        if len(measures) > 1:
            shown.append(("Measure", "l", "measure", ""))
        shown.append((f"{symbol(measures[0]) if len(measures) == 1 else 'Effect'} ({100 * self.conf_level:g}% CI)", "r", "", ""))
        shown += [
            ("p", "r", "p_value", "p"),
            ("p adjusted", "r", "p_adjusted", "p"),
            ("ICC", "r", "icc", ".3f"),
            ("FMI", "r", "fmi", ".2f"),
        ]
        shown = [c for c in shown if not c[2] or f[c[2]].notna().any()]
        rows: list[Row] = []
        for level in dict.fromkeys(f["level_label"]):
            part = f[f["level_label"] == level]
            rows.append(Row((str(level),), group=True))
            for rank in dict.fromkeys(part["rank"]):
                rows.append(
                    Row((f"{str(rank).capitalize()} outcome{'s' if (part['rank'] == rank).sum() > 1 else ''}",), depth=1, group=True)
                )
                for _, r in part[part["rank"] == rank].iterrows():
                    cells = [
                        interval_cell(r) if not column else (minus if spec else str)(format_cell(r[column], spec))
                        for _, _, column, spec in shown
                    ]
                    arrow = "\N{NO-BREAK SPACE}\N{DOWNWARDS ARROW}" if r["direction"] == "lower" else ""
                    rows.append(Row((f"{r['label']}{arrow}", *cells), depth=2))
        return Layout(("Outcome", *(c[0] for c in shown)), tuple(rows), "l" + "".join(c[1] for c in shown), self.title, self.notes)

    def table(self) -> Table:
        """The printed cells as a plain `Table`."""
        layout = self.layout()
        kept = [row.cells for row in layout.rows if not row.group]
        return Table(pd.DataFrame(kept, columns=list(layout.columns)), self.title, self.notes)

    def to_text(self) -> str:
        """Plain text."""
        return self.layout().to_text()

    def to_html(self) -> str:
        """An HTML table."""
        return self.layout().to_html()

    def to_latex(self) -> str:
        """A LaTeX table with booktabs rules."""
        return self.layout().to_latex()

    def to_csv(self) -> str:
        """The unrounded numbers as CSV."""
        # one measure needs no column
        plain = ["measure"] if (self.frame["measure"] == COHENS_D).all() else []
        return Table(self.frame.drop(columns=["level_label", *plain])).to_csv()

    def to_word(self) -> bytes:
        """A Word document; needs the extra ``word``."""
        return word_file((self.layout(),), title=self.title)


def interval_cell(row: Any) -> str:
    """An estimate and its interval as journals print it: 0.35 (0.02 to 0.68), with true minus signs."""
    estimate, low, high = (float(row[c]) for c in ("estimate", "conf_low", "conf_high"))
    if np.isnan(estimate):
        return "not estimated"
    text = format_cell(estimate, ".2f")
    if not (np.isnan(low) or np.isnan(high)):
        text += f" ({format_cell(low, '.2f')} to {format_cell(high, '.2f')})"
    return minus(text)


def report_table(results: Any, design: TrialDesign | None = None, *, people: pd.DataFrame | None = None) -> ReportTable:
    """The table of all outcomes in the trial's layout.

    Parameters
    ----------
    results : result of ``itt`` or DataFrame
        One row an outcome with the columns of ``itt(...).frame``.
    design : TrialDesign, optional
        Labels, levels, ranks and the order.
    people : DataFrame, optional
        The participants' table: gives n per arm.

    Returns
    -------
    ReportTable
        ``frame`` unrounded; ``to_text()``, ``to_html()``, ``to_latex()``, ``to_csv()``, ``to_word()``.

    Raises
    ------
    InputError
        `results` is not a result of the analysis, or lacks a column.

    Examples
    --------
    >>> frame = pd.DataFrame({"outcome": ["climate"], "estimate": [0.351], "conf_low": [0.021], "conf_high": [0.681],
    ...                       "p_value": [0.043], "n": [169], "clusters": [85]})
    >>> print(report_table(frame))
    Effect of the intervention on each outcome
    Outcome        n  Sites           d (95% CI)     p
    -----------  ---  -----  -------------------  ----
    Person level
      Secondary outcome
        climate  169     85  0.35 (0.02 to 0.68)  .043
    <BLANKLINE>
    """
    rows = outcome_rows(results, design, people=people)
    conf = design.analysis.conf_level if design is not None else 0.95
    arms = design.arms.labels if design is not None else ("control", "intervention")
    return ReportTable(
        frame=rows,
        title="Effect of the intervention on each outcome",
        notes=tuple(_notes(rows, results, design)),
        arms=arms,
        conf_level=conf,
    )


_INFERENCE = {"kenward-roger": "Kenward-Roger", "satterthwaite": "Satterthwaite"}
_SD = {
    "total": "the total SD over both arms at follow-up",
    "pooled": "the pooled within-arm SD at follow-up",
    "control": "the reference arm's SD at follow-up",
    "baseline": "the SD at baseline",
}
MULTIPLICITY: Mapping[str, str] = {
    "bonferroni": "Bonferroni's method",
    "holm": "Holm's method",
    "hommel": "Hommel's method",
    "hochberg": "Hochberg's method",
    "fdr_bh": "Benjamini and Hochberg's method (false discovery rate)",
    "fixed-sequence": "a fixed sequence",
    "max-t": "Westfall and Young's max-T by the allocation plan",
}


def _notes(rows: pd.DataFrame, results: Any, design: TrialDesign | None) -> list[str]:
    said = [str(n) for n in getattr(results, "notes", ()) or ()]
    notes = []
    # a result that tells how it was made is believed before the design, which says what was meant to be done
    if design is not None and not hasattr(results, "details"):
        scale = _SD.get(design.analysis.standardise)
        unit = f"d: difference of means divided by {scale}" if scale else "d: difference of means in the outcome's own unit"
        notes.append(
            f"{unit}, {design.arms.intervention} minus {design.arms.reference}; intervals and p from t with "
            f"{_INFERENCE[design.analysis.inference]} degrees of freedom."
        )
        method = MULTIPLICITY.get(design.analysis.multiplicity)
        if method and rows["p_adjusted"].notna().any():
            families = len({o.family for o in design.outcomes})
            within = "within each family of outcomes" if families > 1 else "over all outcomes"
            notes.append(f"p adjusted: {method}, {within}.")
    notes += said
    if any(is_ratio(m) for m in rows["measure"]):
        notes.append("A ratio of 1 is no effect; of the other measures, 0.")
    if (rows["direction"] == "lower").any():
        notes.append("\N{DOWNWARDS ARROW} a lower score is the better one.")
    if rows["icc"].notna().any():
        notes.append("ICC: share of the variance that lies between sites, given the covariates.")
    m = rows["m"].dropna()
    if len(m) and m.max() > 1:
        low, high = int(m.min()), int(m.max())
        sets = f"Pooled over {low if low == high else f'{low} to {high}'} imputed data sets; " if not said else ""
        notes.append(f"{sets}FMI: fraction of missing information.")
    return list(dict.fromkeys(notes))


def in_words(name: str) -> str:
    """A column's name as a label.

    >>> in_words("annual_budget")
    'Annual budget'
    """
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def plain_number(value: Any) -> str:
    """A number as people write it, three figures or so, thousands marked.

    >>> plain_number(3667000.0), plain_number(5.8123), plain_number(-0.00886)
    ('3,667,000', '5.81', '−0.0089')
    """
    if value is None or pd.isna(value):
        return MISSING
    size = abs(float(value))
    digits = 0 if size >= 1000 or size == 0 else 1 if size >= 100 else 2 if size >= 0.1 else 4
    return minus(f"{float(value):,.{digits}f}")


def write_tables(
    results: Any,
    folder: str | os.PathLike[str],
    *,
    design: TrialDesign | None = None,
    people: pd.DataFrame | None = None,
    force: bool = False,
) -> list[Path]:
    """Write the table of outcomes as ``results.csv``, ``table2.html``, ``table2.tex`` and ``table2.docx``.

    Parameters
    ----------
    results : result of ``itt`` or DataFrame
    folder : path
        Made if it does not exist.
    design, people : optional
        As in `report_table`.
    force : bool
        Overwrite files that exist.

    Returns
    -------
    list of Path
        What was written; the Word file is among them only when python-docx (extra ``word``) is installed.

    Raises
    ------
    Refused
        One of the files exists and `force` is False; then none is written.
    WriteError
        The folder cannot be made or written.
    """
    table = report_table(results, design, people=people)
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>'
        + _html(table.title)
        + f"</title></head><body>{table.to_html()}</body></html>\n"
    )
    files: dict[str, str | bytes] = {
        "results.csv": Table(results_frame(results)).to_csv(),
        "table2.csv": table.to_csv(),
        "table2.html": page,
        "table2.tex": table.to_latex(),
    }
    if word_installed():
        files["table2.docx"] = table.to_word()
    return write_files(folder, files, force=force)


def word_installed() -> bool:
    """Whether Word tables can be written here."""
    from importlib.util import find_spec

    return find_spec("docx") is not None


def write_files(folder: str | os.PathLike[str], files: Mapping[str, str | bytes], *, force: bool) -> list[Path]:
    """Write several files, or none when one of them exists and may not be overwritten."""
    from trialkit.door import Refused

    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{place} could not be made: {error.strerror}. Name a folder that can be written.") from None
    if not force:
        there = [name for name in files if (place / name).exists()]
        if there:
            raise Refused(f"{place / there[0]} exists already and is not overwritten. Choose another folder, or say --force (force=True).")
    for name, data in files.items():
        write_whole(place / name, data, force=force)
    return [place / name for name in files]


def _html(text: str) -> str:
    import html

    return html.escape(text)
