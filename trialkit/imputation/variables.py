"""What each column is to the imputation model: its type, its levels, whom it was asked of, and its coded values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit import door
from trialkit.design import Outcome, TrialDesign
from trialkit.door import InputError, cell_text, few, printable

Array = NDArray[np.float64]
Type = Literal["continuous", "count", "binary", "ordinal", "nominal"]
Role = Literal["outcome", "baseline", "covariate", "auxiliary", "item"]
TYPES: tuple[str, ...] = ("continuous", "count", "binary", "ordinal", "nominal")
WHERE = "the participants' table"
# a covariate of more levels than this enters other models as one score, not as dummies
_MOST_DUMMIES = 5
# a number's range beyond this, or below its inverse, has no variance in double precision
_LARGEST = 1e120
# an item of more distinct values than this is imputed as a number
_MOST_RATINGS = 11


@dataclass(frozen=True, slots=True)
class Variable:
    """One column of the imputation model.

    Attributes
    ----------
    name : str
        The column.
    type : {"continuous", "count", "binary", "ordinal", "nominal"} or None
        How it is imputed: two-level normal, predictive mean matching, probit, cumulative probit, nested probits. None: read from the data
        (text or category: nominal, or binary with two values; an ordered category: ordinal; numbers: continuous, or binary with two).
    role : str
        "outcome", "baseline", "covariate" or "auxiliary"; arm, the partner wave and covariates are kept whatever the number of predictors.
    levels : tuple of str or None
        Categories in order, the first being the reference.
    partner : str or None
        The same scale at the other wave. An outcome's model also holds the site mean of its baseline.
    bounds : (low, high)
        Limits for imputed values of a continuous variable, reached by truncated draws.
    site_level : bool or None
        One value a site. None: read from the data.
    items : tuple of str
        The columns this scale score is the mean or sum of, when it is to be imputed through them.
    scale : str or None
        Of an item: the score it belongs to.
    """

    name: str
    type: Type | None = None
    role: Role = "auxiliary"
    levels: tuple[str, ...] | None = None
    partner: str | None = None
    bounds: tuple[float, float] = (-np.inf, np.inf)
    site_level: bool | None = None
    items: tuple[str, ...] = ()
    scale: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A variable with its data, in the canonical row order.

    `values` (n,) are numbers (continuous, count) or codes 0..K-1 (categories), NaN where missing; `labels` are what codes are written
    as; `dummies` says whether it enters other models as K - 1 dummies or as one standardised column.
    """

    variable: Variable
    type: Type
    values: Array
    labels: tuple[Any, ...]
    site_level: bool
    dummies: bool

    @property
    def name(self) -> str:
        """The column's name."""
        return self.variable.name

    @property
    def missing(self) -> NDArray[np.bool_]:
        """(n,)"""
        return np.isnan(self.values)

    @property
    def categorical(self) -> bool:
        """Whether the values are codes."""
        return self.type in ("binary", "ordinal", "nominal")

    @property
    def width(self) -> int:
        """Columns it takes in the design matrix."""
        return len(self.labels) - 1 if self.dummies else 1

    def coding(self) -> Array:
        """(K, k) columns of each category; (2, 1) mean and sd of a number."""
        if self.dummies:
            return np.asarray(np.eye(len(self.labels))[:, 1:])
        if self.categorical:
            # an item's own numbers, so that a score is a sum of columns; ranks of any other category
            worth = np.array(self.labels if self.variable.role == "item" else range(len(self.labels)), dtype=float)
            seen = worth[self.values[~self.missing].astype(np.intp)]
            return np.asarray(((worth - seen.mean()) / seen.std())[:, None])
        seen = self.values[~self.missing]
        return np.array([[seen.mean()], [seen.std(ddof=1)]])

    def location_scale(self) -> tuple[float, float]:
        """Mean and SD by which a number, or an item's ratings, are standardised in the design matrix."""
        seen = self.values[~self.missing]
        if self.categorical:
            worth = np.array(self.labels, dtype=float)[seen.astype(np.intp)]
            return float(worth.mean()), float(worth.std())
        return float(seen.mean()), float(seen.std(ddof=1))

    def coded(self) -> Array:
        """(n, k) columns of the design matrix, NaN where missing."""
        coding = self.coding()
        out = np.full((len(self.values), self.width), np.nan)
        seen = ~self.missing
        if self.categorical:
            out[seen] = coding[self.values[seen].astype(np.intp)]
        else:
            out[seen, 0] = (self.values[seen] - coding[0, 0]) / coding[1, 0]
        return out


def population(people: pd.DataFrame, design: TrialDesign) -> NDArray[np.bool_]:
    """(n,) the rows that ``[imputation] population`` names."""
    column = design.imputation.population
    if column == "randomised":
        return np.ones(len(people), dtype=bool)
    return np.asarray(door.zero_one(people, column, where=WHERE, why="to name the population to impute ([imputation] population)"))


def _of_outcome(outcome: Outcome) -> Type:
    """Bounded and skewed outcomes are drawn from observed values, as counts are: a draw keeps to their bounds and their shape."""
    return "count" if outcome.type == "bounded" or outcome.type == "skewed" else outcome.type


def of_design(
    design: TrialDesign, rater: str | None, *, bounds: Mapping[str, tuple[float, float]], site_level: Sequence[str], items: bool
) -> list[Variable]:
    """The variables asked of one kind of person: both waves of every outcome, with `items` its items, covariates, auxiliaries."""
    out: dict[str, Variable] = {}

    def add(variable: Variable) -> None:
        if variable.name not in out:
            limits = bounds.get(variable.name, variable.bounds)
            out[variable.name] = replace(variable, bounds=limits, site_level=True if variable.name in site_level else None)

    for o in design.outcomes:
        if o.rater is None or o.rater == rater or design.columns.rater is None:
            before = o.baseline if o.has_baseline else None
            kind = _of_outcome(o)
            add(Variable(o.name, kind, "outcome", levels=o.levels, partner=before, items=o.items if items else ()))
            if before is not None:
                add(Variable(before, kind, "baseline", levels=o.levels, partner=o.name))
            for item in o.items if items else ():
                add(Variable(item, None, "item", partner=before, scale=o.name))
    for v in design.covariates:
        add(Variable(v.name, "nominal" if v.type == "categorical" else v.type, "covariate", levels=v.levels))
    for name in design.imputation.auxiliary:
        add(Variable(name, None, "auxiliary"))
    return list(out.values())


def blank(column: pd.Series[Any]) -> NDArray[np.bool_]:
    """(n,) cells that are missing, or text without a letter in it."""
    missing = np.asarray(column.isna().to_numpy(), dtype=bool)
    if column.dtype.kind in "biuf":  # numbers hold no text
        return missing
    return np.asarray(missing | np.array([isinstance(v, str) and not v.strip() for v in column.tolist()], dtype=bool))


def in_both_arms(
    base: pd.DataFrame, variables: Sequence[Variable], rows: NDArray[np.intp], treated: Array, design: TrialDesign, kind: str
) -> bool:
    """Whether one kind of person is in both arms; then every column must have been observed in both, or in neither.

    Raises
    ------
    InputError
        A column was observed in one arm only.
    """
    people = [rows[treated[rows] == a] for a in (0.0, 1.0)]
    if not all(len(p) for p in people):
        return False
    for variable in variables:
        lost = blank(base[variable.name])
        nobody = [bool(lost[p].all()) for p in people]
        if nobody[0] != nobody[1]:
            seen, other = (design.arms.labels[k] for k in (int(nobody[0]), int(nobody[1])))
            whom = f" ({kind})" if kind else ""
            raise InputError(
                f"{WHERE}: {variable.name!r} is observed in the arm {seen!r} only: all {len(people[int(nobody[1])])} people of {other!r}"
                f"{whom} miss it, and nothing says what their values would be, whether arms are imputed together or apart. If it was asked "
                "there, mend the table. If it was not, take it out of the design, or say what it is there (sessions attended: 0)."
            )
    return True


def read(frame: pd.DataFrame, variable: Variable, site: NDArray[np.intp], *, whom: str) -> Column:
    """A variable's data, checked against its type.

    Raises
    ------
    InputError
        No observed value; one observed value only while cells are missing; a range whose square overflows or vanishes; more than two
        values of a binary; text in a number; a category that is not among the declared levels.
    """
    name = variable.name
    raw = frame[name]
    if pd.api.types.is_datetime64_any_dtype(raw.dtype):
        raise InputError(f"{WHERE}: the column {name!r} holds dates, which are not imputed. Give a number in its place: days since a date.")
    lost = blank(raw)
    if lost.all():
        raise InputError(
            f"{WHERE}: the column {name!r} has no observed value{whom}, so nothing can be learned about it. Correct the column, or take it "
            "out of the design."
        )
    kind = variable.type or (_item_kind(frame, variable) if variable.role == "item" else _kind(raw, lost))
    if kind in ("continuous", "count"):
        values = _numbers(frame, name)
        labels: tuple[Any, ...] = ()
    else:
        values, labels = _codes(raw, lost, variable, kind)
        if kind == "binary" and len(labels) > 2:
            raise InputError(
                f"{WHERE}: the binary column {name!r} holds {len(labels)} values ({few(labels)}). Correct it, or declare it ordinal or "
                "categorical."
            )
        if kind != "binary" and len(labels) == 2:
            kind = "ordinal" if variable.role == "item" else "binary"
    seen = values[~np.isnan(values)]
    low, high = float(seen.min()), float(seen.max())
    if high - low > _LARGEST or 0 < high - low < 1 / _LARGEST:
        raise InputError(
            f"{WHERE}: the column {name!r} runs from {low:.3g} to {high:.3g}{whom}: squares of such numbers cannot be held. Use another "
            "unit, or correct the cells."
        )
    if lost.any() and np.ptp(seen) == 0:
        raise InputError(
            f"{WHERE}: the column {name!r} has missing cells and only one observed value{whom} "
            f"({few([labels[0] if labels else seen[0]])}), so no model can be fitted to it. Fill it in, or take it out of the design."
        )
    level = variable.site_level if variable.site_level is not None else _one_value_a_site(values, site)
    dummies = bool(labels) and variable.role != "item" and (kind == "nominal" or len(labels) <= _MOST_DUMMIES)
    return Column(variable, kind, values, labels, level, dummies)


def _kind(raw: pd.Series[Any], lost: NDArray[np.bool_]) -> Type:
    if isinstance(raw.dtype, pd.CategoricalDtype):
        distinct = len(raw[~lost].unique())
        return "binary" if distinct <= 2 else ("ordinal" if raw.dtype.ordered else "nominal")
    cells = [v for v, gone in zip(raw.tolist(), lost, strict=True) if not gone]
    distinct = len(set(cells))
    if any(isinstance(v, str) for v in cells):
        return "binary" if distinct <= 2 else "nominal"
    return "binary" if distinct <= 2 else "continuous"


def _numbers(frame: pd.DataFrame, name: str) -> Array:
    """A column as numbers; cell by cell only where some cell may not be one."""
    raw = frame[name]
    if raw.dtype == np.float64 and not np.isinf(raw.to_numpy()).any():
        return raw.to_numpy().copy()
    try:
        return door.numbers(frame, name, where=WHERE)
    except InputError as error:
        raise InputError(f'{error} If {name!r} holds categories, declare them: type = "binary", "ordinal" or "nominal".') from None


def _item_kind(frame: pd.DataFrame, variable: Variable) -> Type:
    """An item is a rating of few values, or a number."""
    values = _numbers(frame, variable.name)
    return "ordinal" if len(np.unique(values[~np.isnan(values)])) <= _MOST_RATINGS else "continuous"


def _codes(raw: pd.Series[Any], lost: NDArray[np.bool_], variable: Variable, kind: str) -> tuple[Array, tuple[Any, ...]]:
    """Codes of the observed categories; a declared level nobody has is left out."""
    cells = raw.tolist()
    seen = {cell_text(v): v for v, gone in zip(cells, lost, strict=True) if not gone}
    declared = variable.levels
    if declared is None and isinstance(raw.dtype, pd.CategoricalDtype):
        declared = tuple(cell_text(c) for c in raw.dtype.categories)
    if declared is not None:
        unknown = sorted(set(seen) - set(declared))
        if unknown:
            raise InputError(
                f"{WHERE}: the column {variable.name!r} holds {printable(unknown[0])!r}, which is not one of its levels ({few(declared)}). "
                "Correct the cells or the design."
            )
        order = [text for text in declared if text in seen]
    else:
        numeric = all(isinstance(v, int | float | np.number) for v in seen.values())
        order = sorted(seen, key=lambda text: float(seen[text])) if numeric else sorted(seen)
        if kind == "ordinal" and not numeric:
            raise InputError(
                f"{WHERE}: the ordinal column {variable.name!r} holds text ({few(order)}) and no order is declared. Give its levels in the "
                "design, lowest first, or use numbers."
            )
    place = {text: float(k) for k, text in enumerate(order)}
    values = np.array([np.nan if gone else place[cell_text(v)] for v, gone in zip(cells, lost, strict=True)])
    return values, tuple(seen[text] for text in order)


def _one_value_a_site(values: Array, site: NDArray[np.intp]) -> bool:
    """Whether a column is a site's property: constant in every site, over at least five sites with two people, not all the same."""
    seen = ~np.isnan(values)
    if not seen.any():
        return False
    order = np.argsort(site[seen], kind="stable")
    x, start = values[seen][order], np.flatnonzero(np.diff(site[seen][order], prepend=-1))
    low, high = np.minimum.reduceat(x, start), np.maximum.reduceat(x, start)
    several = np.diff(start, append=len(x)) >= 2
    return bool(several.sum() >= 5 and (low == high)[several].all() and np.ptp(low[several]) > 0)
