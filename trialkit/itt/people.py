"""Who is in which site and arm: the structure every analysis shares, checked once.

A person belongs to one site, a site to one arm and to at most one pair; a subcluster lies within its site. A table that says otherwise is
refused by name, because every number that follows would rest on the wrong unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.design import TrialDesign
from trialkit.door import InputError, cell_text, check_people, few, printable, require_columns, zero_one

Codes = NDArray[np.intp]
WHERE = "the participants' table"


@dataclass(frozen=True, slots=True)
class People:
    """The analysed people.

    Attributes
    ----------
    rows : array (n,)
        Their rows in the table (all rows, or those of the declared population).
    site : array (n,)
        Codes into `sites`.
    sites : tuple of str
        Site labels, sorted.
    arm : array (n,)
        1 in the intervention arm, 0 in the reference arm.
    pair : array (n,) or None
        Codes into `pairs`; a site without a pair is a pair of its own.
    pairs : tuple of str
    rater : array (n,) or None
        The kind of person, as text.
    population : str
        What was declared, for the notes.
    subcluster : array (n,) or None
        Codes of the third level, when the design names one; the same label in two sites is two subclusters.
    """

    rows: NDArray[np.intp]
    site: Codes
    sites: tuple[str, ...]
    arm: NDArray[np.float64]
    pair: Codes | None
    pairs: tuple[str, ...]
    rater: NDArray[Any] | None
    population: str
    subcluster: Codes | None = None

    def asked(self, rater: str | None) -> NDArray[np.intp]:
        """Places (into `rows`) of the people an outcome is asked of."""
        if rater is None or self.rater is None:
            return np.arange(len(self.rows))
        return np.flatnonzero(self.rater == rater)


def read_people(frame: pd.DataFrame, design: TrialDesign) -> People:
    """Read and check the structure of a participants' table.

    Raises
    ------
    InputError
        A column is absent; a site, arm or subcluster is missing; a person is in two sites or listed twice; a site is in two arms or two
        pairs; an arm is not one of the design's; an outcome's rater is nobody in the table.
    """
    c = design.columns
    require_columns(frame, [c.person], where=WHERE, why="as the person ([columns] person)")
    require_columns(frame, [c.site], where=WHERE, why="as the site ([columns] site)")
    require_columns(frame, [c.arm], where=WHERE, why="as the arm ([columns] arm)")
    if c.rater is not None:
        require_columns(frame, [c.rater], where=WHERE, why="to tell the kinds of person apart ([columns] rater)")
    check_people(frame, person=c.person, site=c.site, arm=c.arm, arms=design.arms.labels, where=WHERE)
    rows = _population(frame, design)
    person, _ = _labels(frame, c.person, rows)
    site, sites = _labels(frame, c.site, rows)
    arm, arms = _labels(frame, c.arm, rows)
    for codes, column, what in ((person, c.person, "id"), (site, c.site, "site"), (arm, c.arm, "arm")):
        _none_missing(codes, column, what, rows, frame, c.person)
    treated = np.array([a == design.arms.intervention for a in arms], dtype=np.float64)[arm]
    pair: Codes | None = None
    pairs: tuple[str, ...] = ()
    if design.analysis.pair_effects != "none" and c.pair is not None:
        require_columns(frame, [c.pair], where=WHERE, why=f"because pair_effects = {design.analysis.pair_effects!r}")
        pair, pairs = _labels(frame, c.pair, rows)
        _one_each(site, sites, pair, (*pairs, "(none)"), what="site", of="pair", mend="A site belongs to one pair, or to none.")
        alone = np.unique(site[pair < 0])
        own = np.full(len(sites), -1, dtype=np.intp)
        own[alone] = len(pairs) + np.arange(len(alone))
        pair = np.where(pair < 0, own[site], pair).astype(np.intp)
        pairs = (*pairs, *(f"(alone) {sites[s]}" for s in alone))
    subcluster: Codes | None = None
    if c.subcluster is not None:
        require_columns(frame, [c.subcluster], where=WHERE, why="as the level between person and site ([columns] subcluster)")
        inner, labels = _labels(frame, c.subcluster, rows)
        _none_missing(inner, c.subcluster, "subcluster", rows, frame, c.person)
        subcluster = np.unique(site * len(labels) + inner, return_inverse=True)[1].astype(np.intp)
    rater = None
    if c.rater is not None:
        codes, kinds = _labels(frame, c.rater, rows)
        rater = np.array([*kinds, ""], dtype=str)[codes]
        for outcome in design.outcomes:
            if outcome.rater is not None and outcome.rater not in kinds:
                raise InputError(
                    f"{WHERE}: nobody has {c.rater} = {outcome.rater!r}, who should answer {outcome.name!r}. "
                    f"The column holds: {few(kinds)}. Correct the column or the outcome's rater."
                )
    return People(rows, site, sites, treated, pair, pairs, rater, design.imputation.population, subcluster)


def _population(frame: pd.DataFrame, design: TrialDesign) -> NDArray[np.intp]:
    column = design.imputation.population
    if column == "randomised":
        rows = np.arange(len(frame))
    else:
        rows = np.flatnonzero(zero_one(frame, column, where=WHERE, why="to name the analysed population ([imputation] population)"))
    if not len(rows):
        raise InputError(f"{WHERE} has no rows to analyse (population: {column!r}).")
    return rows


def _labels(frame: pd.DataFrame, column: str, rows: NDArray[np.intp]) -> tuple[Codes, tuple[str, ...]]:
    """Codes into sorted text labels; blank cells are missing (-1)."""
    codes, found = pd.factorize(frame[column].iloc[rows])
    texts = [cell_text(v) for v in found.tolist()]
    labels = sorted({t for t in texts if t.strip()})
    place = {t: k for k, t in enumerate(labels)}
    renumber = np.array([*(place.get(t, -1) for t in texts), -1], dtype=np.intp)
    return renumber[codes], tuple(labels)


def _none_missing(codes: Codes, column: str, what: str, rows: NDArray[np.intp], frame: pd.DataFrame, person: str) -> None:
    lost = np.flatnonzero(codes < 0)
    if len(lost):
        row = int(rows[lost[0]])
        who = "" if what == "id" else f" (person {printable(cell_text(frame[person].iloc[row]))!r})"
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise InputError(
            f"{WHERE}, row {row + 2}{who}{more}: the {what} ({column!r}) is missing. Everybody analysed needs one; "
            "fill it in, or leave the row out of the population."
        )


def _one_each(
    inner: Codes, inner_labels: tuple[str, ...], outer: Codes, outer_labels: tuple[str, ...], *, what: str, of: str, mend: str
) -> None:
    first = np.full(len(inner_labels), -2, dtype=np.intp)
    first[inner] = outer
    wrong = np.flatnonzero(first[inner] != outer)
    if len(wrong):
        k = inner[wrong[0]]
        both = sorted({outer_labels[o] for o in np.unique(outer[inner == k])})
        raise InputError(
            f"{WHERE}: {what} {printable(inner_labels[k])!r} is in more than one {of} ({few(both)}). {mend} "
            f"Correct the rows of that {what}."
        )
