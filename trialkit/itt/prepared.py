"""What every analysis of a trial's outcomes starts from: the tables read once, and each outcome's rows, design matrices and SDs.

Here the data meet the design: columns are found and typed, imputed tables are checked to be copies of one, rows that cannot be analysed are
counted, and the design matrix is built from arrays - constant, arm, own baseline, covariates by treatment contrasts, fixed pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit._kernels import reml
from trialkit.design import Covariate, Outcome, TrialDesign
from trialkit.door import InputError, cell_text, few, normalise, printable, require_columns, unknown_word
from trialkit.itt.effect_sizes import standard_deviation
from trialkit.itt.model_frame import Column, read_column, read_response
from trialkit.itt.people import WHERE, People, read_people

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
ScaleBy = Literal["each-set", "all-sets"]

CONSTANT = "the outcome has one value in all analysed rows"
SATURATED = "there are too few rows for the terms of the model"


@dataclass(frozen=True, slots=True)
class Prepared:
    """One outcome, ready to be analysed; lists have one entry a table.

    Attributes
    ----------
    outcome : Outcome
    rows : array (n,)
        Places of the analysed people in `People.rows`.
    arm : array (n,)
        1 in the intervention arm.
    site : array (n,)
        Codes.
    pair : array (n,) or None
        Codes, when pairs are random.
    responses : list of array (n,)
        The outcome on its own scale; a binary one as 0/1, the levels of an ordinal one as numbers.
    matrices : list of array (n, p)
        Full column rank; column 0 is the constant and column 1 the arm.
    sd : array (m,)
        What the effect is divided by.
    observed : int
        People with the outcome observed before imputation; -1 when that is not known.
    lost : int
        Rows left out because a value is missing.
    arms, sites : two int
        People and sites in the reference and in the intervention arm.
    sizes : two int
        Smallest and largest site.
    formula : str
    left_out : tuple of str
        Columns that are constant or combinations of others.
    reason : str
        Why it cannot be analysed; empty when it can.
    subcluster : array (n,) or None
        Codes of the third level, when the design names one.
    offsets : list of array (n,) or None
        Logs of the exposures of a count.
    """

    outcome: Outcome
    rows: Rows
    arm: Array
    site: Rows
    pair: Rows | None
    responses: list[Array]
    matrices: list[Array]
    sd: Array
    observed: int
    lost: int
    arms: tuple[int, int]
    sites: tuple[int, int]
    sizes: tuple[int, int]
    formula: str
    left_out: tuple[str, ...] = ()
    reason: str = ""
    subcluster: Rows | None = None
    offsets: list[Array] | None = None

    @property
    def n(self) -> int:
        """People analysed."""
        return len(self.arm)

    @property
    def groups(self) -> list[Rows]:
        """Grouping codes of the random part, outermost first."""
        inner = [] if self.subcluster is None else [self.subcluster]
        return [self.site, *inner] if self.pair is None else [self.pair, self.site]


def prepare(data: Any, design: TrialDesign, *, denominator: str, scale: str) -> tuple[list[pd.DataFrame], People, list[Prepared]]:
    """Read the tables and prepare every outcome, in the design's order.

    Parameters
    ----------
    data : DataFrame or iterable of DataFrames
    design : TrialDesign
    denominator : str
        The SD, as ``[analysis] standardise`` names it.
    scale : {"each-set", "all-sets"}
        Whether each table's own SD or one SD divides.

    Raises
    ------
    InputError
        What the data say contradicts the design or itself.
    """
    if not isinstance(design, TrialDesign):
        raise InputError(f"a TrialDesign is needed as second argument, not {type(design).__name__}. Read one: TrialDesign.from_toml(path).")
    if scale not in ("each-set", "all-sets"):
        raise InputError(unknown_word(str(scale), ("each-set", "all-sets"), what="sd"))
    tables = _tables(data)
    people = read_people(tables[0], design)
    for k, table in enumerate(tables[1:], start=2):
        _same_people(tables[0], table, design, k)
    _need_columns(tables[0], design)
    sets = [_read(table, design, people) for table in tables]
    before = _observed(data, tables, design, people)
    return tables, people, [_prepare(o, sets, people, design, denominator, scale, before.get(o.name, -1)) for o in design.outcomes]


# --- the tables ---------------------------------------------------------------------------------------------


def outcomes_asked(design: TrialDesign, outcomes: Sequence[str] | None, *, primary: bool = False) -> list[str]:
    """Names of the outcomes to analyse; by default all, or with `primary` the primary ones where there are any.

    Raises
    ------
    InputError
        An outcome is not in the design.
    """
    names = [o.name for o in design.outcomes]
    if outcomes is None:
        return [o.name for o in design.outcomes if primary and o.rank == "primary"] or names
    for name in outcomes:
        if name not in names:
            raise InputError(unknown_word(name, names, what="outcome"))
    return list(outcomes)


def _tables(data: Any) -> list[pd.DataFrame]:
    if isinstance(data, pd.DataFrame):
        return [data]
    if hasattr(data, "to_pandas"):
        return [normalise(data)]
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise InputError(f"itt needs a table or an iterable of imputed tables, not {type(data).__name__}. Read a file by read_table(path).")
    tables = [table if isinstance(table, pd.DataFrame) else normalise(table) for table in data]
    if not tables:
        raise InputError("the iterable of tables is empty; a generator can be read only once. Give a list, or one table.")
    return tables


def _same_people(first: pd.DataFrame, table: pd.DataFrame, design: TrialDesign, k: int) -> None:
    c = design.columns
    roles = [
        c.person,
        c.site,
        c.arm,
        *([c.rater] if c.rater else []),
        *([c.pair] if c.pair and design.analysis.pair_effects != "none" else []),
        *([c.subcluster] if c.subcluster else []),
    ]
    population = design.imputation.population
    require_columns(table, roles, where=f"imputed table {k}", why="as in the first")
    if len(table) != len(first):
        raise InputError(
            f"imputed table {k} has {len(table)} rows and the first has {len(first)}. They must be completed copies of one table."
        )
    for column in [*roles, *([population] if population in first.columns else [])]:
        if not table[column].reset_index(drop=True).equals(first[column].reset_index(drop=True)):
            raise InputError(
                f"imputed table {k} differs from the first in column {column!r}. Imputed tables must hold the same people in the same "
                "order; sites and arms are never imputed."
            )


def _need_columns(table: pd.DataFrame, design: TrialDesign) -> None:
    for outcome in design.outcomes:
        require_columns(table, [outcome.name], where=WHERE, why=f"as the outcome {outcome.name!r}")
        if _baseline(outcome, design) is not None:
            require_columns(
                table, [str(outcome.baseline)], where=WHERE, why=f"as the baseline of {outcome.name!r} (none? say has_baseline = false)"
            )
        if outcome.exposure is not None:
            require_columns(table, [outcome.exposure], where=WHERE, why=f"as the exposure of {outcome.name!r}")
    for covariate in design.covariates:
        require_columns(table, [covariate.name], where=WHERE, why="as a covariate")


def _baseline(outcome: Outcome, design: TrialDesign) -> str | None:
    return outcome.baseline if design.analysis.baseline and outcome.has_baseline else None


# --- one table ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Set:
    """The columns of one completed table, in the analysed population."""

    numbers: dict[str, Array]  # outcomes and baselines, (n,) each, NaN = missing
    covariates: tuple[tuple[str, Column], ...]


def _read(table: pd.DataFrame, design: TrialDesign, people: People) -> _Set:
    rows = people.rows
    everybody = len(rows) == len(table)
    numbers: dict[str, Array] = {}
    for outcome in design.outcomes:
        for name in (outcome.name, _baseline(outcome, design)):
            if name is not None and name not in numbers:
                values = read_outcome(table, outcome, name)
                numbers[name] = values if everybody else values[rows]
        if outcome.exposure is not None and outcome.exposure not in numbers:
            values = _exposure(table, outcome.exposure, outcome.name)
            numbers[outcome.exposure] = values if everybody else values[rows]
    covariates = []
    for covariate in design.covariates:
        column = read_covariate(table, covariate)
        covariates.append((covariate.name, column if everybody else Column(column.values[rows], column.levels)))
    return _Set(numbers, tuple(covariates))


def read_outcome(table: pd.DataFrame, outcome: Outcome, name: str) -> Array:
    """An outcome's column (or its baseline's) as numbers, checked against the declared type where that decides the model.

    Raises
    ------
    InputError
        A value that the type does not allow; the message names the first such cell.
    """
    values = _by_levels(table, outcome, name) if outcome.levels is not None else _numbers(table, outcome, name)
    if outcome.linear or name != outcome.name:
        return values
    seen = ~np.isnan(values)
    wrong, rule = np.zeros(len(values), dtype=bool), ""
    if outcome.type == "binary":
        wrong, rule = ~np.isin(values, (0.0, 1.0)), "a binary outcome holds 0 and 1 (or name its two values by levels = [no, yes])"
    elif outcome.type == "count":
        wrong, rule = (values < 0) | (values != np.rint(values)), "a count holds 0, 1, 2, ..."
    elif outcome.type == "skewed":
        wrong, rule = values < 0, "a skewed outcome, which is compared as a ratio, is not negative"
    elif outcome.bounds is not None:
        low, high = outcome.bounds
        wrong, rule = (values < low) | (values > high), f"its bounds are {low:g} to {high:g}"
    if (wrong & seen).any():
        row = int(np.flatnonzero(wrong & seen)[0])
        raise InputError(
            f"{WHERE}, row {row + 2}, column {name!r}: {values[row]:g} does not suit type = {outcome.type!r}: {rule}. "
            "Correct the cell, or the design."
        )
    return values


def _numbers(table: pd.DataFrame, outcome: Outcome, name: str) -> Array:
    try:
        return read_response(table, name)
    except InputError as error:
        if outcome.type not in ("binary", "ordinal"):
            raise
        raise InputError(
            f"{error} If {name!r} holds words, list them from lowest to highest in its [[outcomes]]: levels = [...]."
        ) from None


def _by_levels(table: pd.DataFrame, outcome: Outcome, name: str) -> Array:
    levels = outcome.levels or ()
    place = {level: float(k) for k, level in enumerate(levels)}
    out = np.full(len(table), np.nan)
    for row, value in enumerate(table[name].tolist()):
        text = cell_text(value)
        if not text.strip():
            continue
        if text not in place:
            raise InputError(
                f"{WHERE}, row {row + 2}, column {name!r}: {printable(text)!r} is not one of its levels ({few(list(levels))}). "
                "Correct the cell, or the design's levels."
            )
        out[row] = place[text]
    return out


def _exposure(table: pd.DataFrame, name: str, outcome: str) -> Array:
    values = read_response(table, name)
    if (values <= 0).any():
        row = int(np.flatnonzero(values <= 0)[0])
        raise InputError(
            f"{WHERE}, row {row + 2}, column {name!r}: the exposure of {outcome!r} is {values[row]:g}, and must be above 0. "
            "Correct it, or leave the cell blank when nobody was at risk."
        )
    return values


def read_covariate(table: pd.DataFrame, covariate: Covariate) -> Column:
    """A covariate's column as the design declares it."""
    name = covariate.name
    factor = covariate.type in ("categorical", "ordinal") or covariate.levels is not None
    column = read_column(table, name, as_factor=factor, why="as a covariate")
    if covariate.type == "continuous" and column.levels is not None and not factor:
        if column.levels == ("FALSE", "TRUE"):
            return Column(np.where(column.values < 0, np.nan, column.values).astype(np.float64))
        raise InputError(
            f"the covariate {name!r} is declared continuous but holds text ({few(column.levels, 4)}). "
            "Say type = 'categorical', or correct the column."
        )
    if covariate.levels is not None and column.levels is not None:
        unknown = [level for level in column.levels if level not in covariate.levels]
        if unknown:
            raise InputError(
                f"the covariate {name!r} holds {printable(unknown[0])!r}, which is not one of its declared levels "
                f"({few(covariate.levels)}). Correct the cell, or the design's levels."
            )
        place = np.array([*(covariate.levels.index(level) for level in column.levels), -1], dtype=np.intp)
        return Column(place[column.values], tuple(covariate.levels))
    if covariate.type == "binary":
        if column.levels is not None and len(column.levels) > 2:
            raise InputError(f"the covariate {name!r} is declared binary but has {len(column.levels)} values ({few(column.levels, 4)}).")
        if column.levels is None and len(np.unique(column.values[~np.isnan(column.values)])) > 2:
            raise InputError(
                f"the covariate {name!r} is declared binary but has more than two values. Say type = 'continuous', or correct it."
            )
    return column


def _observed(data: Any, tables: Sequence[pd.DataFrame], design: TrialDesign, people: People) -> dict[str, int]:
    """How many people had each outcome observed: in the one table, or in the imputations' table before imputation."""
    base = tables[0] if len(tables) == 1 else getattr(data, "base", None)
    if not isinstance(base, pd.DataFrame) or len(base) != len(tables[0]):
        return {}
    found = {}
    for outcome in design.outcomes:
        if outcome.name in base.columns:
            rows = people.rows[people.asked(outcome.rater)]
            found[outcome.name] = int(base[outcome.name].iloc[rows].notna().sum())
    return found


# --- one outcome --------------------------------------------------------------------------------------------


def _prepare(
    outcome: Outcome, sets: Sequence[_Set], people: People, design: TrialDesign, denominator: str, scale: str, observed: int
) -> Prepared:
    asked = people.asked(outcome.rater)
    baseline = _baseline(outcome, design)
    lost = np.zeros(len(asked), dtype=bool)
    for one in sets:
        lost |= _incomplete(one, outcome, baseline, asked)
    rows = asked[~lost]
    arm, site = people.arm[rows], people.site[rows]
    arms = (int((arm == 0).sum()), int((arm == 1).sum()))
    sites = (len(np.unique(site[arm == 0])), len(np.unique(site[arm == 1])))
    per_site = np.bincount(site, minlength=1)
    present = per_site[per_site > 0]
    random_pair = design.analysis.pair_effects == "random" and people.pair is not None
    base = Prepared(
        outcome=outcome,
        rows=rows,
        arm=arm,
        site=site,
        pair=people.pair[rows] if random_pair and people.pair is not None else None,
        responses=[one.numbers[outcome.name][rows] for one in sets],
        offsets=None if outcome.exposure is None else [np.log(one.numbers[outcome.exposure][rows]) for one in sets],
        matrices=[],
        sd=np.ones(len(sets)),
        observed=observed,
        lost=int(lost.sum()),
        arms=arms,
        sites=sites,
        sizes=(int(present.min()), int(present.max())) if len(present) else (0, 0),
        formula=_formula(design, baseline, outcome),
        subcluster=None if people.subcluster is None else people.subcluster[rows],
    )
    if len(sets) > 1 and lost.any():
        columns = _worst_columns(sets, [c for c in (outcome.name, baseline, outcome.exposure) if c], asked)
        reason = f"{int(lost.sum())} of {len(asked)} rows still miss a value after imputation ({columns}); impute those columns too"
        return replace(base, reason=reason)
    if not len(rows):
        return replace(base, reason="no row is complete in the outcome, its baseline and the covariates")
    empty = [label for label, count in zip(design.arms.labels, arms, strict=True) if count == 0]
    if empty:
        return replace(base, reason=f"nobody in the {empty[0]!r} arm has complete values")
    matrices, left_out = [], []
    for one in sets:
        x, names = _matrix(one, rows, arm, baseline, people, design)
        kept = reml.independent_columns(x)
        left_out += [names[j] for j in range(len(names)) if j not in set(kept.tolist())]
        matrices.append(x if len(kept) == x.shape[1] else np.ascontiguousarray(x[:, kept]))
    base = replace(base, matrices=matrices, left_out=tuple(dict.fromkeys(left_out)))
    if any(x.shape[1] >= len(rows) for x in matrices):
        return replace(base, reason=SATURATED)
    if all(np.ptp(y) == 0 for y in base.responses):
        return replace(base, reason=CONSTANT)
    if outcome.chosen_measure != "standardised-difference":
        return base
    try:
        return replace(base, sd=_sds(base.responses, sets, rows, arm, baseline, denominator, scale))
    except InputError as error:
        return replace(base, reason=str(error).rstrip("."))


def _incomplete(one: _Set, outcome: Outcome, baseline: str | None, asked: Rows) -> NDArray[np.bool_]:
    lost = np.isnan(one.numbers[outcome.name][asked])
    for name in (baseline, outcome.exposure):
        if name is not None:
            lost |= np.isnan(one.numbers[name][asked])
    for _, column in one.covariates:
        lost |= column.missing[asked]
    return np.asarray(lost)


def _worst_columns(sets: Sequence[_Set], names: Sequence[str], asked: Rows) -> str:
    found: dict[str, int] = {}
    for one in sets:
        for name in names:
            found[name] = max(found.get(name, 0), int(np.isnan(one.numbers[name][asked]).sum()))
        for name, column in one.covariates:
            found[name] = max(found.get(name, 0), int(column.missing[asked].sum()))
    return few([f"{name} in {count}" for name, count in found.items() if count])


def _formula(design: TrialDesign, baseline: str | None, outcome: Outcome) -> str:
    c, pairs = design.columns, design.analysis.pair_effects
    inner = f" + (1|{c.site}:{c.subcluster})" if c.subcluster else ""
    terms = [c.arm, *([baseline] if baseline else []), *(v.name for v in design.covariates), *([str(c.pair)] if pairs == "fixed" else [])]
    random = f" + ({f'1 + {c.arm}' if design.analysis.random_slope else '1'}|{c.pair})" if pairs == "random" and outcome.linear else ""
    offset = f" + offset(log({outcome.exposure}))" if outcome.exposure else ""
    fixed = f"{outcome.name} ~ {' + '.join(terms)}{offset}"
    if outcome.chosen_model == "marginal":
        return f"{fixed}; clusters: {c.site}"
    return f"{fixed}{random} + (1|{c.site}){inner if outcome.linear else ''}"


def _matrix(one: _Set, rows: Rows, arm: Array, baseline: str | None, people: People, design: TrialDesign) -> tuple[Array, list[str]]:
    """Constant, arm, baseline, covariates by treatment contrasts, fixed pairs; the arm stands second, so it is never the column dropped."""
    columns = [np.ones(len(rows)), arm]
    names = ["(Intercept)", design.columns.arm]
    if baseline is not None:
        columns.append(one.numbers[baseline][rows])
        names.append(baseline)
    for name, column in one.covariates:
        part = column.take(rows)
        if part.levels is None:
            columns.append(np.asarray(part.values, dtype=np.float64))
            names.append(name)
            continue
        if len(part.levels) < 2:
            # one level left: the term has no column, and that is said
            columns.append(np.zeros(len(rows)))
            names.append(name)
        for k in range(1, len(part.levels)):
            columns.append((part.values == k).astype(np.float64))
            names.append(f"{name}{part.levels[k]}")
    if design.analysis.pair_effects == "fixed" and people.pair is not None:
        pair = people.pair[rows]
        for k in np.unique(pair)[1:]:
            columns.append((pair == k).astype(np.float64))
            names.append(f"{design.columns.pair}{people.pairs[k]}")
    return np.column_stack(columns), names


def _sds(
    responses: Sequence[Array], sets: Sequence[_Set], rows: Rows, arm: Array, baseline: str | None, denominator: str, scale: str
) -> Array:
    if denominator == "none":
        return np.ones(len(sets))
    if denominator == "baseline" and baseline is None:
        raise InputError("the outcome has no baseline, so it cannot be divided by the baseline SD")
    sd = np.array(
        [
            standard_deviation(y, arm, denominator=denominator, baseline=None if baseline is None else one.numbers[baseline][rows])
            for y, one in zip(responses, sets, strict=True)
        ]
    )
    return np.full(len(sd), math.sqrt(float((sd**2).mean()))) if scale == "all-sets" else sd
