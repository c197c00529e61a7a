"""What is missing together, what drives it, and which columns can help which: to be read before imputing.

Sources: patterns and flux as in van Buuren (2018), Flexible Imputation of Missing Data, 2nd ed., section 4.1; a driver's test is that of
the slope of the missing indicator on it, with a variance robust to sites (Liang & Zeger 1986, times J/(J - 1)) and J - 2 degrees of
freedom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from trialkit.design import TrialDesign
from trialkit.door import InputError, cell_text, check_people, few, require_columns
from trialkit.imputation import variables as variables_
from trialkit.imputation.variables import WHERE
from trialkit.results import Result, Table

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Missingness(Result):
    """A table about what is missing.

    Attributes
    ----------
    frame : DataFrame
    title : str
    notes : tuple of str
    patterns : mapping of group to DataFrame
        Of `missing_patterns`: one row a pattern in the order of `frame`, one column a variable, True where it is missing.
    """

    frame: pd.DataFrame
    title: str
    notes: tuple[str, ...] = ()
    patterns: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def table(self) -> Table:
        """The rows as printed: of many columns missing together the first are named."""
        frame = self.frame
        if "columns" in frame.columns:
            frame = frame.assign(columns=[few(text.split(", "), 4) if text else "" for text in frame["columns"]])
        return Table(frame, self.title, self.notes, self.formats)

    @property
    def formats(self) -> dict[str, str]:
        """Number formats of the printed table."""
        return {
            **dict.fromkeys(("people", "missing"), "d"),
            **dict.fromkeys(("share", "observed", "influx", "outflux", "ainb", "aout", "fico"), ".3f"),
            **dict.fromkeys(("difference", "correlation"), ".2f"),
        }


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of person: what was asked of them and what is missing."""

    label: str
    frame: pd.DataFrame
    names: list[str]
    missing: Bools  # (n, P)


def _kinds(people: pd.DataFrame, design: TrialDesign) -> Iterator[_Kind]:
    if not isinstance(people, pd.DataFrame):
        raise InputError(f"{WHERE} must be a pandas DataFrame, not {type(people).__name__}.")
    if not isinstance(design, TrialDesign):
        raise InputError(f"a TrialDesign is needed as second argument, not {type(design).__name__}. Read one: TrialDesign.from_toml(path).")
    c = design.columns
    check_people(
        people, person=c.person if c.person in people.columns else None, site=c.site, arm=c.arm, arms=design.arms.labels, where=WHERE
    )
    people = people.loc[variables_.population(people, design)]
    if c.rater is not None:
        require_columns(people, [c.rater], where=WHERE, why="to tell the kinds of person apart ([columns] rater)")
    for rater in design.raters:
        frame = people if c.rater is None else people[[cell_text(v) == rater for v in people[c.rater].tolist()]]
        wanted = [v.name for v in variables_.of_design(design, rater, bounds={}, site_level=(), items=False)]
        require_columns(frame, wanted, where=WHERE, why="by the design")
        # a column nobody of this kind has was not asked of them
        names = [name for name in wanted if len(frame) and not frame[name].isna().all()]
        yield _Kind(rater or "", frame, names, frame[names].isna().to_numpy())


def missing_patterns(people: pd.DataFrame, design: TrialDesign) -> Missingness:
    """The patterns in which columns are missing together, most frequent first.

    Parameters
    ----------
    people : DataFrame
    design : TrialDesign
        Its outcomes (both waves), covariates and auxiliaries are looked at, in the people its ``[imputation] population`` names, each kind
        of rater by itself.

    Returns
    -------
    Missingness
        One row a pattern: group, people, share, missing (how many columns), columns (their names; empty for complete rows).

    Raises
    ------
    InputError
        As `impute`.
    """
    rows = []
    matrices = {}
    for kind in _kinds(people, design):
        if not kind.names:
            continue
        found = np.unique(kind.missing, axis=0, return_counts=True)
        patterns, counts = found[0], found[1]
        order = sorted(range(len(counts)), key=lambda k: (-int(counts[k]), patterns[k].tolist()))
        matrices[kind.label] = pd.DataFrame(patterns[order].astype(bool), columns=pd.Index(kind.names))
        for k in order:
            gone = [name for name, lost in zip(kind.names, patterns[k], strict=True) if lost]
            rows.append((kind.label, int(counts[k]), counts[k] / len(kind.frame), len(gone), ", ".join(gone)))
    frame = pd.DataFrame(rows, columns=["group", "people", "share", "missing", "columns"])
    return Missingness(frame, f"Missing together: {len(frame)} patterns", patterns=matrices)


def missing_drivers(people: pd.DataFrame, design: TrialDesign, *, strongest: int = 5) -> Missingness:
    """What goes with each column's being missing: arm and every other column, the strongest first.

    Parameters
    ----------
    people : DataFrame
    design : TrialDesign
    strongest : int, default 5
        So many drivers of each column, by absolute correlation.

    Returns
    -------
    Missingness
        One row a column and a possible driver: group, variable, driver, observed (rows with the driver seen), difference (mean of the
        driver where the variable is missing minus where it is seen, in SDs of the driver), correlation, p_value. A category's driver is
        one of its levels.

    Raises
    ------
    InputError
        As `impute`.

    Notes
    -----
    A driver that is not in the analysis model is the reason to impute; one that is the variable itself cannot be seen (missing not at
    random).
    """
    if isinstance(strongest, bool) or not isinstance(strongest, int | np.integer) or strongest < 1:
        raise InputError(f"strongest = {strongest!r}: a whole number of at least 1 is needed.")
    rows = []
    for kind in _kinds(people, design):
        c = design.columns
        site = np.unique(np.array([cell_text(v) for v in kind.frame[c.site].tolist()], dtype=str), return_inverse=True)[1]
        drivers: list[tuple[str, str, Array]] = []  # column, name, values
        arm = np.array([cell_text(v) == design.arms.intervention for v in kind.frame[c.arm].tolist()], dtype=float)
        drivers.append((c.arm, f"{c.arm} = {design.arms.intervention}", arm))
        frame = kind.frame.reset_index(drop=True)
        for variable in variables_.of_design(design, kind.label or None, bounds={}, site_level=(), items=False):
            if variable.name not in kind.names:
                continue
            column = variables_.read(frame, variable, site.astype(np.intp), whom="")
            if column.type in ("nominal", "binary"):
                first = 1 if len(column.labels) == 2 else 0
                for k in range(first, len(column.labels)):
                    values = np.where(column.missing, np.nan, column.values == k)
                    drivers.append((column.name, f"{column.name} = {cell_text(column.labels[k])}", values))
            else:
                drivers.append((column.name, column.name, column.values))
        for j, name in enumerate(kind.names):
            lost = kind.missing[:, j].astype(float)
            if not 0 < lost.sum() < len(lost):
                continue
            found = [(label, *_association(lost, x, site)) for column, label, x in drivers if column != name]
            found.sort(key=lambda row: -abs(row[3]) if np.isfinite(row[3]) else 0.0)
            rows += [(kind.label, name, *row) for row in found[:strongest]]
    columns = ["group", "variable", "driver", "observed", "difference", "correlation", "p_value"]
    note = "Differences are of the driver's mean where the variable is missing, minus where it is seen, in SDs; p is robust to sites."
    return Missingness(pd.DataFrame(rows, columns=columns), "Drivers of missingness", (note,))


def _association(lost: Array, x: Array, site: NDArray[np.intp]) -> tuple[int, float, float, float]:
    """Rows, standardised difference, correlation and the slope's site-robust p of a missing indicator with one driver."""
    seen = np.isfinite(x)
    r, v, s = lost[seen], x[seen], site[seen]
    n = int(seen.sum())
    if n < 5 or np.ptp(r) == 0 or np.ptp(v) == 0:
        return n, np.nan, np.nan, np.nan
    centred, gap = v - v.mean(), r - r.mean()
    square = float(centred @ centred)
    difference = float(v[r == 1].mean() - v[r == 0].mean()) / float(v.std(ddof=1))
    slope = float(centred @ gap) / square
    correlation = float(centred @ gap) / np.sqrt(square * float(gap @ gap))
    score = np.bincount(s, weights=centred * (gap - slope * centred))
    J = len(np.unique(s))
    if J < 4:
        return n, difference, correlation, np.nan
    error = np.sqrt(J / (J - 1) * float(score @ score)) / square
    p = float(2 * special.stdtr(J - 2, -abs(slope) / error)) if error > 0 else 0.0
    return n, difference, correlation, p


def missing_flux(people: pd.DataFrame, design: TrialDesign) -> Missingness:
    """How well each column is connected: influx, outflux and their kin.

    Parameters
    ----------
    people : DataFrame
    design : TrialDesign

    Returns
    -------
    Missingness
        One row a column: group, variable, observed (share seen), influx (share of all seen cells that stand in rows where the column is
        missing: what there is to impute it from), outflux (share of all missing cells that stand in rows where it is seen: what it can
        help to impute), ainb (average share of the other columns seen where it is missing), aout (average share of them missing where it
        is seen), fico (share of its seen rows that are incomplete).

    Raises
    ------
    InputError
        As `impute`.
    """
    rows = []
    for kind in _kinds(people, design):
        r = (~kind.missing).astype(float)
        n, P = r.shape
        if P < 2:
            continue
        only = r.T @ (1 - r)  # rows where one column is seen and another missing
        seen, gone = r.sum(), (1 - r).sum()
        incomplete = np.asarray(kind.missing.any(axis=1), dtype=float)
        for j, name in enumerate(kind.names):
            here, absent = r[:, j].sum(), n - r[:, j].sum()
            others_in = only[:, j].sum() - only[j, j]  # other columns' cells seen where this one is missing
            others_out = only[j].sum() - only[j, j]  # other columns' cells missing where this one is seen
            rows.append(
                {
                    "group": kind.label,
                    "variable": name,
                    "observed": here / n,
                    "influx": others_in / seen if seen else 0.0,
                    "outflux": others_out / gone if gone else 0.0,
                    "ainb": others_in / absent / (P - 1) if absent else 0.0,
                    "aout": others_out / here / (P - 1) if here else 0.0,
                    "fico": float(incomplete[~kind.missing[:, j]].mean()) if here else np.nan,
                }
            )
    return Missingness(pd.DataFrame(rows), "Flux of missing data")
