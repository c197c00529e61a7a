"""From a formula and a table to arrays: complete rows, R's treatment contrasts, R's column names, group codes.

Factors are text, category and boolean columns and ``factor(x)``. Levels stand in code-point order (R in the C locale), in numeric
order for numbers, and in the declared order for a category dtype; levels that no analysed row has are dropped. The first level is
the reference. Which factors are coded by contrasts and which by all their indicators follows R's rule (`terms`, `model.matrix`):
in a term, a factor is coded by contrasts when an earlier term holds the rest of the term, and without an intercept the first factor
of the first term that has one gets all its indicators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.extensions import ExtensionArray

from trialkit._kernels import reml
from trialkit.door import InputError, cell_text, few, nearest_word, normalise, numbers, one_spelling, printable, two_spellings
from trialkit.itt.formula import Formula, RandomPart, Term, Variable, term_label

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

INTERCEPT = "(Intercept)"


@dataclass(frozen=True, slots=True)
class Column:
    """One column as numbers or as a factor.

    `levels` is None for numbers, then `values` is float64 with NaN for missing; for a factor `values` holds codes into `levels`
    and -1 for missing. `complete` is True when it is known that nothing is missing and that every level has a row.
    """

    values: Array | Codes  # (n,)
    levels: tuple[str, ...] | None = None
    complete: bool = False

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Which rows are missing."""
        return np.isnan(self.values) if self.levels is None else self.values < 0

    def take(self, rows: NDArray[np.intp] | None) -> Column:
        """The rows named (all of them when None), with the levels nobody has left out."""
        if rows is None and self.complete:
            return self
        values = self.values if rows is None else self.values[rows]
        if self.levels is None:
            return Column(values)
        present = np.bincount(values[values >= 0], minlength=len(self.levels)) > 0
        if present.all():
            return Column(values, self.levels)
        renumber = np.where(present, np.cumsum(present) - 1, -1)
        kept = tuple(level for level, here in zip(self.levels, present, strict=True) if here)
        return Column(np.where(values >= 0, renumber[values], -1).astype(np.intp), kept)


@dataclass(frozen=True, slots=True)
class Grouping:
    """One grouping factor: `codes` (n,) into `labels` (J,)."""

    name: str
    codes: Codes
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RandomColumns:
    """Columns whose coefficients vary together between the groups of one factor."""

    factor: int  # place in `ModelFrame.groups`
    design: Array  # (n, d)
    names: tuple[str, ...]  # (d,)


@dataclass(frozen=True, slots=True)
class ModelFrame:
    """The arrays of one linear model.

    Attributes
    ----------
    response : str
    y : array (n,)
    x : array (n, p)
        Full column rank.
    names : tuple of str
        R's name of each column of `x`.
    terms : tuple of str
        Fixed-effect terms; the intercept is not among them.
    assign : tuple of int
        For each column its place in `terms`, -1 for the intercept.
    groups : tuple of Grouping
        Outermost first.
    weights : array (n,) or None
    rows : array (n,)
        Which rows of the table are analysed.
    n_table : int
        Rows of the table before any was dropped.
    missing : mapping of column to number of rows
    dropped : tuple of str
        Columns left out because they are combinations of earlier ones (R's rule).
    constant : tuple of str
        Factors with a single level left.
    formula : Formula
    columns : mapping of Variable to Column
        The analysed rows of each variable, before coding.
    random : tuple of RandomColumns
        What varies between groups; empty when it is the intercept of each factor and nothing else.
    strata : Grouping or None
        Rows that share a residual variance, when it differs.
    """

    response: str
    y: Array
    x: Array
    names: tuple[str, ...]
    terms: tuple[str, ...]
    assign: tuple[int, ...]
    groups: tuple[Grouping, ...]
    weights: Array | None
    rows: NDArray[np.intp]
    n_table: int
    missing: dict[str, int]
    dropped: tuple[str, ...]
    constant: tuple[str, ...]
    formula: Formula
    columns: Mapping[Variable, Column]
    random: tuple[RandomColumns, ...] = ()
    strata: Grouping | None = None

    @property
    def intercept(self) -> int | None:
        """Place of the constant among the columns of `x`; None without one."""
        return self.names.index(INTERCEPT) if INTERCEPT in self.names else None

    def refuse_constant(self) -> None:
        """An InputError when the outcome has one value in all analysed rows."""
        if np.ptp(self.y) == 0:
            raise InputError(
                f"the outcome {self.response!r} has one value in all {len(self.y)} analysed rows, so there is nothing to compare."
            )

    def refuse_fractions(self, kind: str) -> None:
        """An InputError when the outcome is no count, as a model of that kind needs."""
        if ((self.y < 0) | (self.y != np.rint(self.y))).any():
            raise InputError(f"the outcome {self.response!r} must be counts (0, 1, 2, ...) for a {kind} model.")

    def notes(self) -> tuple[str, ...]:
        """What was left out, in words."""
        out = []
        if lost := self.n_table - len(self.y):
            by_column = ", ".join(f"{printable(c)} in {k}" for c, k in self.missing.items() if k)
            out.append(f"{lost} of {self.n_table} rows left out because a value is missing ({by_column}).")
        if self.constant:
            out.append(f"Left out because only one level is present: {few(self.constant)}.")
        if self.dropped:
            out.append(f"Left out because they are combinations of earlier columns: {few(self.dropped)}.")
        return tuple(out)


# --- columns ------------------------------------------------------------------------------------------------


def find_column(frame: pd.DataFrame, name: str, *, why: str) -> pd.Series[Any]:
    """A column by name, or an InputError with the nearest name."""
    try:
        column: Any = frame[name]
    except KeyError:
        options = [str(c) for c in frame.columns]
        near = nearest_word(name, options)
        hint = f" Did you mean {near!r}?" if near else f" Its columns: {few(options, 12)}."
        raise InputError(f"the table has no column {name!r}, which is needed {why}.{hint}") from None
    if isinstance(column, pd.DataFrame):
        raise InputError(f"the column {name!r} stands twice in the table. Rename or remove one.")
    return cast("pd.Series[Any]", column)


def read_column(frame: pd.DataFrame, name: str, *, as_factor: bool = False, why: str = "by the formula") -> Column:
    """One column as numbers (numeric dtypes) or as a factor (text, category, boolean, or `as_factor`).

    Raises
    ------
    InputError
        The column is absent, stands twice, or holds an infinite number.
    """
    stored = _stored(frame, name)
    if stored is not None:  # the usual kinds, without pandas' questions about kinds
        if isinstance(stored, np.ndarray):
            return _number(stored.astype(np.float64), name, as_factor=as_factor)
        return _text_factor(stored)
    column = find_column(frame, name, why=why)
    kind = column.dtype
    if pd.api.types.is_complex_dtype(kind):
        raise InputError(f"the column {name!r} holds complex numbers, which cannot be analysed. Name a column of real numbers.")
    if not _is_plain(kind):
        column = normalise(column.to_frame())[name]
        kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        return Column(column.cat.codes.to_numpy().astype(np.intp), tuple(cell_text(c) for c in kind.categories.tolist()))
    if pd.api.types.is_bool_dtype(kind):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return Column(np.where(np.isnan(numbers), -1, np.nan_to_num(numbers)).astype(np.intp), ("FALSE", "TRUE"))
    if pd.api.types.is_numeric_dtype(kind):
        return _number(column.to_numpy(dtype=np.float64, na_value=np.nan), name, as_factor=as_factor)
    return _text_factor(column.array)


def _stored(frame: pd.DataFrame, name: str) -> NDArray[Any] | ExtensionArray | None:
    """The array behind a column of numpy numbers or of pandas' own text; None for every other column, and where there is none.

    Making a Series costs ten times what reading a short column does. The way around it is not public, and not needed: without it, all
    columns are read as Series.
    """
    read = getattr(frame, "_get_column_array", None)
    if read is None:
        return None
    try:
        place = frame.columns.get_loc(name)
    except (KeyError, TypeError):
        return None
    if not isinstance(place, int):
        return None
    stored = read(place)
    usual = stored.dtype.kind in "fiu" if isinstance(stored, np.ndarray) else isinstance(stored.dtype, pd.StringDtype)
    return stored if usual else None


def _number(numbers: Array, name: str, *, as_factor: bool) -> Column:
    finite = bool(np.isfinite(numbers).all())
    if not finite and (infinite := np.isinf(numbers)).any():
        row = int(np.flatnonzero(infinite)[0])
        raise InputError(f"row {row + 2}, column {name!r}: an infinite number cannot be analysed. Correct it or leave it empty.")
    if not as_factor:
        return Column(numbers, complete=finite)
    codes, found = pd.factorize(numbers, sort=True)
    return Column(codes.astype(np.intp, copy=False), tuple(cell_text(float(v)) for v in found), complete=finite)


def _is_plain(kind: Any) -> bool:
    return (
        isinstance(kind, pd.CategoricalDtype | pd.StringDtype)
        or pd.api.types.is_bool_dtype(kind)
        or (pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_complex_dtype(kind))
    )


def _text_factor(array: Any) -> Column:
    codes, levels = _distinct(array)
    complete = not len(codes) or int(codes.min()) >= 0
    # code-point order whatever the storage: R's order in the C locale, the same on every machine; a blank cell is missing
    ordered = sorted(levels)
    if "" in map(str.strip, ordered):
        ordered, complete = [level for level in ordered if level.strip()], False
    if ordered == levels:
        return Column(codes.astype(np.intp), tuple(levels), complete)
    where = dict(zip(ordered, range(len(ordered)), strict=True))
    place = np.array([*(where.get(level, -1) for level in levels), -1], dtype=np.intp)  # the code -1 of a missing cell is the last place
    return Column(place.take(codes), tuple(ordered), complete)


def _distinct(array: Any) -> tuple[NDArray[np.integer[Any]], list[str]]:
    """Codes (n,), -1 where missing, into the different texts in the order they are met."""
    if isinstance(array, pd.arrays.ArrowStringArray):
        # Arrow's own coding: no pandas object is built for a handful of levels
        chunks = array.__arrow_array__()
        coded = (chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()).dictionary_encode()
        indices = coded.indices
        if indices.null_count:
            indices = indices.fill_null(-1)
        return indices.to_numpy(), coded.dictionary.to_pylist()
    codes, found = array.factorize()
    return codes, [str(v) for v in np.asarray(found, dtype=object).tolist()]


def read_response(frame: pd.DataFrame, name: str) -> Array:
    """The outcome as numbers; booleans count 0 and 1."""
    column = read_column(frame, name, why="as the outcome")
    if column.levels == ("FALSE", "TRUE"):
        return np.where(column.values < 0, np.nan, column.values).astype(np.float64)
    if column.levels is not None:
        numbers(frame, name, where="the table")  # names the first cell that is no number
        raise InputError(f"the outcome {name!r} is a factor, and a linear model needs numbers. Recode it, or name another column.")
    return np.asarray(column.values, dtype=np.float64)


# --- groups -------------------------------------------------------------------------------------------------


def read_grouping(frame: pd.DataFrame, columns: Sequence[str]) -> Column:
    """A grouping factor: one column, or the combinations of several."""
    parts = [read_column(frame, c, as_factor=True, why="as a grouping factor") for c in columns]
    for name, part in zip(columns, parts, strict=True):
        if two_spellings(part.levels or (), case=False):
            one_spelling(frame[name], where="the table", what="group", case=False)
    if len(parts) == 1:
        return parts[0]
    assert all(p.levels is not None for p in parts)
    codes = parts[0].values.astype(np.intp)
    labels: tuple[str, ...] = parts[0].levels or ()
    for part in parts[1:]:
        size = len(part.levels or ())
        both = np.where((codes < 0) | (part.values < 0), -1, codes * size + part.values.astype(np.intp))
        found = np.unique(both[both >= 0])
        place = np.searchsorted(found, both)
        labels = tuple(f"{labels[k // size]}:{(part.levels or ())[k % size]}" for k in found.tolist())
        codes = np.where(both < 0, -1, place).astype(np.intp)
    return Column(codes, labels)


def nest(groups: Sequence[Grouping], *, declared: bool) -> tuple[Grouping, ...]:
    """The groupings outermost first, each inside the one before.

    With `declared` the order is the user's and is checked; without, it is found (fewest groups outermost).
    """
    ordered = list(groups) if declared else sorted(groups, key=lambda g: len(g.labels))
    for outer, inner in pairwise(ordered):
        if len(outer.labels) == len(inner.labels) and _nested_in(inner.codes, outer.codes):
            raise InputError(
                f"the grouping factors {outer.name!r} and {inner.name!r} are the same grouping ({len(inner.labels)} groups each), "
                "so their variances cannot be told apart. Name one of them."
            )
        if _nested_in(inner.codes, outer.codes):
            continue
        label = inner.labels[_first_crossing(inner.codes, outer.codes)]
        if declared and _nested_in(outer.codes, inner.codes):
            raise InputError(
                f"groups lists {outer.name!r} before {inner.name!r}, but {outer.name!r} lies inside {inner.name!r}. "
                f"Outermost first: groups=[{inner.name!r}, {outer.name!r}]."
            )
        raise InputError(
            f"{inner.name} {printable(label)!r} occurs in more than one {outer.name}, so {inner.name} is not nested in {outer.name}, and "
            f"crossed groups are not fitted here. If the label is used again for another {inner.name}, write "
            f"(1|{outer.name}/{inner.name}) in the formula; for factors that do cross, engine='statsmodels' fits them (z tests only)."
        )
    return tuple(ordered)


def _nested_in(inner: Codes, outer: Codes) -> bool:
    first = np.empty(int(inner.max(initial=0)) + 1, dtype=np.intp)
    first[inner] = outer
    return bool((first[inner] == outer).all())


def _first_crossing(inner: Codes, outer: Codes) -> int:
    first = np.empty(int(inner.max(initial=0)) + 1, dtype=np.intp)
    first[inner] = outer
    return int(inner[np.flatnonzero(first[inner] != outer)[0]])


# --- the model matrix ---------------------------------------------------------------------------------------


def design_matrix(
    terms: Sequence[Term], intercept: bool, columns: dict[Variable, Column], n: int
) -> tuple[Array, tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """R's `model.matrix` with treatment contrasts.

    Returns
    -------
    x : array (n, p)
    names : tuple of str
    assign : tuple of int
        Place in `terms`, -1 for the intercept.
    constant : tuple of str
        Factors with one level; the terms that hold them get no column by contrasts.
    """
    blocks: list[Array] = [np.ones(n)] if intercept else []
    names = [INTERCEPT] if intercept else []
    assign = [-1] if intercept else []
    constant = tuple(dict.fromkeys(v.label for v, c in columns.items() if c.levels is not None and len(c.levels) < 2))
    full = _fully_coded(terms, intercept, columns)
    for k, term in enumerate(terms):
        parts = [_coded(v, columns[v], full=(k, v) in full) for v in term]
        arrays, labels = parts[0]
        for more, more_labels in parts[1:]:
            # the first variable varies fastest
            arrays, labels = (
                [a * b for b in more for a in arrays],
                [f"{la}:{lb}" for lb in more_labels for la in labels],
            )
        blocks += arrays
        names += labels
        assign += [k] * len(labels)
    x = np.empty((n, len(blocks)), order="F")
    for j, block in enumerate(blocks):
        x[:, j] = block
    return x, tuple(names), tuple(assign), constant


def reference_row(model: ModelFrame, at: Mapping[Variable, int | float]) -> dict[str, float]:
    """Mean design-matrix row over the reference grid, with some variables held: column name to value, dropped columns included.

    On the grid every level of a factor counts equally, a number with two distinct values counts each equally, and any other number stands
    at its mean (emmeans' convention). The grid is a full product, so the mean of a product of variables is the product of their means.
    """
    full = _fully_coded(model.formula.terms, model.formula.intercept, dict(model.columns))
    row = {INTERCEPT: 1.0} if model.formula.intercept else {}
    for k, term in enumerate(model.formula.terms):
        values, labels = _mean_code(term[0], model.columns[term[0]], at, full=(k, term[0]) in full)
        for v in term[1:]:
            more, more_labels = _mean_code(v, model.columns[v], at, full=(k, v) in full)
            values, labels = [a * b for b in more for a in values], [f"{la}:{lb}" for lb in more_labels for la in labels]
        row |= dict(zip(labels, values, strict=True))
    return row


def _mean_code(variable: Variable, column: Column, at: Mapping[Variable, int | float], *, full: bool) -> tuple[list[float], list[str]]:
    if column.levels is None:
        if variable in at:
            return [float(at[variable])], [variable.label]
        distinct = np.unique(column.values)
        return [float(distinct.mean() if len(distinct) <= 2 else column.values.mean())], [variable.label]
    weights = np.full(len(column.levels), 1.0 / len(column.levels))
    if variable in at:
        weights = np.eye(len(column.levels))[int(at[variable])]
    start = 0 if full else 1
    return weights[start:].tolist(), [f"{variable.label}{level}" for level in column.levels[start:]]


def _fully_coded(terms: Sequence[Term], intercept: bool, columns: dict[Variable, Column]) -> set[tuple[int, Variable]]:
    """The (term, factor) couples that get all indicators instead of contrasts (R's TermCode)."""
    out = set()
    for k, term in enumerate(terms):
        for v in term:
            rest = set(term) - {v}
            if rest and not any(rest <= set(earlier) for earlier in terms[:k]):
                out.add((k, v))
    if not intercept:
        first = next(((k, v) for k, term in enumerate(terms) for v in term if columns[v].levels is not None), None)
        if first is not None:
            out.add(first)
    return out


def _coded(variable: Variable, column: Column, *, full: bool) -> tuple[list[Array], list[str]]:
    if column.levels is None:
        return [np.asarray(column.values, dtype=np.float64)], [variable.label]
    start = 0 if full else 1
    shown = range(start, len(column.levels))
    return [(column.values == k).astype(np.float64) for k in shown], [f"{variable.label}{column.levels[k]}" for k in shown]


def build(
    formula: Formula,
    frame: pd.DataFrame,
    *,
    groups: Sequence[str] | None = None,
    slopes: Sequence[RandomPart] = (),
    weights: str | None = None,
    strata: str | None = None,
    crossed: bool = False,
) -> ModelFrame:
    """Arrays of the model `formula` on the rows of `frame` where nothing it needs is missing.

    Parameters
    ----------
    formula : Formula
    frame : DataFrame
    groups : sequence of str, optional
        Nested grouping columns, outermost first, instead of bars in the formula.
    slopes : sequence of RandomPart, optional
        With `groups`: what more varies between groups.
    weights : str, optional
        Column of positive analysis weights.
    strata : str, optional
        Column whose values divide the rows by residual variance.
    crossed : bool
        Grouping factors need not be nested.

    Raises
    ------
    InputError
        A column is absent or of the wrong kind, groups are crossed, no row is complete, or a weight is not positive.
    """
    if groups is not None and formula.groups:
        raise InputError("grouping factors are named both in the formula and by groups=. Name them in one place.")
    specs = formula.groups if groups is None else tuple((g,) for g in groups)
    parts = formula.random if groups is None else (*(RandomPart((g,)) for g in groups), *slopes)
    sloped = any(part.terms or not part.intercept for part in parts)
    outcome = read_response(frame, formula.response)
    variables = dict.fromkeys([*formula.variables, *(v for part in parts for term in part.terms for v in term)])
    columns = {v: read_column(frame, v.column, as_factor=v.as_factor) for v in variables}
    divided = None if strata is None else read_column(frame, strata, as_factor=True, why="to divide the residual variance")
    groupings = [(":".join(spec), read_grouping(frame, spec)) for spec in specs]
    weighting = None if weights is None else _read_weights(frame, weights)

    n_table = len(outcome)
    needed = {formula.response: Column(outcome)} | {v.column: column for v, column in columns.items()} | dict(groupings)
    if divided is not None and strata is not None:
        needed[strata] = divided
    if weighting is not None and weights is not None:
        needed[weights] = Column(weighting)
    blanks = {name: column.missing for name, column in needed.items() if not column.complete}
    blanks = {name: blank for name, blank in blanks.items() if blank.any()}
    missing = dict.fromkeys(needed, 0) | {name: int(blank.sum()) for name, blank in blanks.items()}
    taken = np.flatnonzero(~np.logical_or.reduce(list(blanks.values()))) if blanks else None
    rows = np.arange(n_table) if taken is None else taken
    if not len(rows):
        worst = max(missing, key=missing.__getitem__)
        raise InputError(
            f"no row of the table is complete in every column of the model; {worst!r} is missing in {missing[worst]} of {n_table} rows."
        )
    kept = {v: column.take(taken) for v, column in columns.items()}
    x, names, assign, constant = design_matrix(formula.terms, formula.intercept, kept, len(rows))
    if not x.shape[1]:
        raise InputError(
            f"the formula {printable(formula.text)!r} leaves no fixed effect to estimate. Keep the intercept (1) or add a term."
        )
    independent = reml.independent_columns(x).tolist()
    dropped = tuple(names[j] for j in range(len(names)) if j not in independent)
    if dropped:
        x = np.ascontiguousarray(x[:, independent])
    nested = []
    for name, column in groupings:
        part = column.take(taken)
        nested.append(Grouping(name, part.values.astype(np.intp, copy=False), part.levels or ()))
    ordered = tuple(nested) if crossed else nest(nested, declared=groups is not None)
    random = _random_columns(parts, kept, [g.name for g in ordered], len(rows)) if sloped or len(parts) > 2 or strata is not None else ()
    if divided is not None:
        divided = divided.take(taken)
    return ModelFrame(
        response=formula.response,
        y=outcome if taken is None else outcome[rows],
        x=x,
        names=tuple(names[j] for j in independent),
        terms=tuple(term_label(t) for t in formula.terms),
        assign=tuple(assign[j] for j in independent),
        groups=ordered,
        weights=None if weighting is None else (weighting if taken is None else weighting[rows]),
        rows=rows,
        n_table=n_table,
        missing=missing,
        dropped=dropped,
        constant=constant,
        formula=formula,
        columns=kept,
        random=random,
        strata=None if divided is None or strata is None else Grouping(strata, divided.values.astype(np.intp), divided.levels or ()),
    )


def _random_columns(
    parts: Sequence[RandomPart], columns: dict[Variable, Column], names: Sequence[str], n: int
) -> tuple[RandomColumns, ...]:
    """The design of each random part; one column each where they do not correlate. Terms of outer factors come first."""
    out = []
    sloped = {":".join(part.group) for part in parts if part.terms and part.intercept}
    for part in parts:
        name = ":".join(part.group)
        if not part.terms and name in sloped:  # its intercept comes with the slope
            continue
        z, labels, _, constant = design_matrix(part.terms, part.intercept, columns, n)
        if constant or not z.shape[1]:
            raise InputError(f"{few(constant) or name} has one value in the analysed rows, so nothing of it can vary between {name}s.")
        factor = names.index(name)
        if part.correlated:
            out.append(RandomColumns(factor, z, labels))
        else:
            out += [RandomColumns(factor, z[:, [j]], (labels[j],)) for j in range(len(labels))]
    return tuple(sorted(out, key=lambda r: r.factor))


def _read_weights(frame: pd.DataFrame, name: str) -> Array:
    column = read_column(frame, name, why="as weights")
    if column.levels is not None:
        raise InputError(f"the weights {name!r} hold text. Name a column of positive numbers.")
    numbers = np.asarray(column.values, dtype=np.float64)
    if (numbers <= 0).any():
        row = int(np.flatnonzero(numbers <= 0)[0])
        raise InputError(
            f"row {row + 2}, column {name!r}: the weight {numbers[row]:g} is not positive. Remove the row, or give it a weight above 0."
        )
    return numbers
