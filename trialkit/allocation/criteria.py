"""What makes two sites alike: the criteria of a pairing, in rank order, and the exact integers they measure.

A criterion is declared (`exact`, `exact_if_possible`, `nearest`, `mahalanobis`) and proved at birth; `measure` then
reads its columns once, through the door, and gives distances as integers in a stated unit, so that 0.3 - 0.2 ties
with 0.2 - 0.1 and 2**53 + 1 differs from 2**53.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import pandas as pd

from trialkit import door

Array = np.ndarray[Any, np.dtype[Any]]

MISSING = ("refuse", "own-level", "range-penalty")
# a cell such as 1e400000 would ask for an integer of that many digits
_MOST_DIGITS = 400
# in a numeric column these cannot be numbers; the `missing` policy then decides, so nothing is passed over in silence
_NOT_OBSERVED = ("NA", "N/A", "NaN", "nan", "NULL", "null", ".")


# --- declared -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exact:
    """Only sites with the same level may be paired."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        return (self.column,)

    @property
    def name(self) -> str:
        """How tables and messages call it."""
        return self.column

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"kind": "exact", "column": self.column}


@dataclass(frozen=True, slots=True)
class ExactIfPossible:
    """Distance 0 when two sites have the same level, else 1; a missing level is a level of its own."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        return (self.column,)

    @property
    def name(self) -> str:
        """How tables and messages call it."""
        return self.column

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"kind": "exact_if_possible", "column": self.column}


@dataclass(frozen=True, slots=True)
class Nearest:
    """Distance ``|a - b|``, in exact decimals; with a caliper, sites further apart may not be paired."""

    column: str
    caliper: Decimal | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        return (self.column,)

    @property
    def name(self) -> str:
        """How tables and messages call it."""
        return self.column

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"kind": "nearest", "column": self.column, "caliper": None if self.caliper is None else str(self.caliper)}


@dataclass(frozen=True, slots=True)
class Mahalanobis:
    """Distance ``sqrt((a - b)' D S^-1 D (a - b))``, rounded to `decimals` places; D holds the weights."""

    columns: tuple[str, ...]
    robust: bool = False
    weights: tuple[Decimal, ...] | None = None
    caliper: Decimal | None = None
    decimals: int = 6

    @property
    def name(self) -> str:
        """How tables and messages call it."""
        return f"mahalanobis({', '.join(self.columns)})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "kind": "mahalanobis",
            "columns": list(self.columns),
            "robust": self.robust,
            "weights": None if self.weights is None else [str(w) for w in self.weights],
            "caliper": None if self.caliper is None else str(self.caliper),
            "decimals": self.decimals,
        }


Criterion = Exact | ExactIfPossible | Nearest | Mahalanobis


def exact(column: str) -> Exact:
    """Pair only within the levels of a column: a hard stratum, whatever its place in the ranking.

    Parameters
    ----------
    column : str
        Any column; levels are compared as text (2 and 2.0 are one level).

    Examples
    --------
    >>> exact("directly_operated")
    Exact(column='directly_operated')
    """
    return Exact(_column(column))


def exact_if_possible(column: str) -> ExactIfPossible:
    """Rank the number of pairs that differ in a column: 0 for the same level, 1 for another.

    Parameters
    ----------
    column : str
        Any column; a missing cell is a level of its own (where the `missing` policy of `match_pairs` lets it in).

    Examples
    --------
    >>> exact_if_possible("youth_family")
    ExactIfPossible(column='youth_family')
    """
    return ExactIfPossible(_column(column))


def nearest(column: str, caliper: int | float | str | Decimal | None = None) -> Nearest:
    """Rank the sum of absolute differences in a numeric column.

    Parameters
    ----------
    column : str
        A column of numbers: integers, floats (read as their shortest decimal form), decimals, or numbers as text.
    caliper : number, optional
        The largest difference two paired sites may have, in the column's unit; equal to it is allowed.

    Raises
    ------
    InputError
        The caliper is not a number of at least 0.

    Examples
    --------
    >>> nearest("n_staff", caliper=10)
    Nearest(column='n_staff', caliper=Decimal('10'))
    """
    return Nearest(_column(column), _limit(caliper))


def mahalanobis(
    columns: Sequence[str],
    robust: bool = False,
    weights: Sequence[int | float | str | Decimal] | Mapping[str, int | float | str | Decimal] | None = None,
    *,
    caliper: int | float | str | Decimal | None = None,
    decimals: int = 6,
) -> Mahalanobis:
    """Rank the sum of Mahalanobis distances over several numeric columns.

    The distance is ``sqrt((a - b)' D S^-1 D (a - b))`` (Mahalanobis 1936; reweighted as in Greevy et al. 2012), S the
    covariance of all sites in the table. Distances are rounded to `decimals` places and are exact integers from there on.

    Parameters
    ----------
    columns : sequence of str
        At least two numeric columns without missing cells.
    robust : bool, default False
        Take S from the minimum covariance determinant (scikit-learn ``MinCovDet``, fixed start), so that a few
        giant sites do not set the scale; otherwise the sample covariance with divisor n - 1.
    weights : sequence or mapping of numbers, optional
        The diagonal of D, one a column: differences in a column count that many times. Default 1.
    caliper : number, optional
        The largest distance two paired sites may have.
    decimals : int, default 6
        Resolution of the distance, 0 to 12.

    Raises
    ------
    InputError
        Fewer than two columns, a column twice, or weights that do not fit.

    Examples
    --------
    >>> mahalanobis(["annual_budget", "n_staff"], robust=True).name
    'mahalanobis(annual_budget, n_staff)'
    """
    if isinstance(columns, str) or len(columns) < 2:
        raise door.InputError("mahalanobis needs at least two columns, because for one it is the absolute difference: use nearest(column).")
    names = tuple(_column(c) for c in columns)
    if len(set(names)) != len(names):
        raise door.InputError("mahalanobis names a column twice, so its covariance has no inverse. Name each column once.")
    given: tuple[Decimal, ...] | None = None
    if weights is not None:
        if isinstance(weights, Mapping):
            for key in weights:
                if key not in names:
                    raise door.InputError(f"mahalanobis weights: {door.unknown_word(str(key), names, what='column')}")
            weights = [weights.get(name, 1) for name in names]
        if len(weights) != len(names):
            raise door.InputError(f"mahalanobis has {len(names)} columns and {len(weights)} weights. Give one weight a column.")
        found = [_number(w) for w in weights]
        if any(w is None or w <= 0 for w in found):
            raise door.InputError("a mahalanobis weight must be a number above 0. To leave a column out, do not name it.")
        given = tuple(w for w in found if w is not None)
    if not 0 <= int(decimals) <= 12:
        raise door.InputError(f"decimals={decimals} is outside 0 to 12: float64 distances carry about 15 digits.")
    return Mahalanobis(names, bool(robust), given, _limit(caliper), int(decimals))


def criterion_from_dict(stored: Mapping[str, Any]) -> Criterion:
    """The criterion that `to_dict` wrote, or a ``[[allocation.criteria]]`` table of a design file."""
    kind = stored.get("kind")
    if kind == "exact":
        return exact(stored["column"])
    if kind == "exact_if_possible":
        return exact_if_possible(stored["column"])
    if kind == "nearest":
        return nearest(stored["column"], stored.get("caliper"))
    if kind == "mahalanobis":
        return mahalanobis(
            stored["columns"],
            stored.get("robust", False),
            stored.get("weights"),
            caliper=stored.get("caliper"),
            decimals=stored.get("decimals", 6),
        )
    kinds = ("exact", "exact_if_possible", "nearest", "mahalanobis")
    raise door.InputError(f"a matching criterion: {door.unknown_word(str(kind), kinds, what='kind')}")


def _column(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise door.InputError(f"a criterion names one column as text, not {name!r}. Write for example nearest('annual_budget').")
    return name


def _number(value: Any) -> Decimal | None:
    found = door.decimals(pd.DataFrame({"number": pd.Series([value], dtype=object)}), "number", where="a criterion")
    return found[0]


def _limit(caliper: Any) -> Decimal | None:
    if caliper is None:
        return None
    try:
        limit = _number(caliper)
    except door.InputError:
        limit = None
    if limit is None or limit < 0 or isinstance(caliper, bool):
        raise door.InputError(f"caliper={caliper!r} is not a number of at least 0. It is the largest difference allowed within a pair.")
    return limit


# --- measured -----------------------------------------------------------------------------------------------


class Measure(Protocol):
    """A criterion with its columns read: integers for any subset of the sites (positions in id order)."""

    @property
    def criterion(self) -> Criterion:
        """What was declared."""

    @property
    def ranks(self) -> int:
        """How many ranks it adds: 0 for hard strata, 2 when missingness is ranked before the distance."""

    def distance(self, rank: int, sites: Array) -> Array:
        """(m, m) integers of one of its ranks; the last one is the criterion's distance."""

    def barred(self, sites: Array) -> Array | None:
        """(m, m) bool: pairs its caliper forbids; None when it forbids nothing."""

    def decimal(self, total: int) -> Decimal:
        """A total of its distance in the column's own unit, exactly."""


@dataclass(frozen=True, slots=True)
class Levels:
    """A column read as levels."""

    criterion: Exact | ExactIfPossible
    codes: Array  # (n,) int64
    labels: tuple[str, ...]  # (n,) the level of each site in words

    @property
    def ranks(self) -> int:
        """None for `exact`: its strata are solved apart."""
        return 0 if isinstance(self.criterion, Exact) else 1

    def distance(self, rank: int, sites: Array) -> Array:
        """1 where the levels differ."""
        codes = self.codes[sites]
        return (codes[:, None] != codes).astype(np.int64)

    def barred(self, sites: Array) -> Array | None:
        """Strata are kept apart by the caller, so nothing is barred inside one."""
        return None

    def decimal(self, total: int) -> Decimal:
        """A count."""
        return Decimal(total)


@dataclass(frozen=True, slots=True)
class Line:
    """A column read as numbers on a line."""

    criterion: Nearest
    values: Array  # (n,) int64 or object, in multiples of `step` * 10**`exponent`; 0 where missing
    missing: Array  # (n,) bool
    penalty: int  # distance between a missing and an observed number
    step: int
    exponent: int
    own_level: bool  # missing or not is ranked before the distance

    @property
    def ranks(self) -> int:
        """Two when pairs of a missing and an observed number are avoided first."""
        return 2 if self.own_level else 1

    def distance(self, rank: int, sites: Array) -> Array:
        """Absolute differences; or, as the first of two ranks, whether exactly one number is missing."""
        missing = self.missing[sites]
        mixed = missing[:, None] != missing
        if self.own_level and rank == 0:
            return mixed.astype(np.int64)
        values = self.values[sites]
        distance = np.abs(values[:, None] - values)
        if missing.any():
            distance[missing[:, None] | missing] = 0
            distance[mixed] = self.penalty
        return distance

    def barred(self, sites: Array) -> Array | None:
        """Differences beyond the caliper; an unknown difference is not known to be within it."""
        if self.criterion.caliper is None:
            return None
        limit = math.floor(Fraction(self.criterion.caliper) / (self.step * Fraction(10) ** self.exponent))
        beyond = (self.distance(self.ranks - 1, sites) > limit).astype(bool)
        if self.own_level:
            missing = self.missing[sites]
            beyond |= missing[:, None] != missing
        return beyond

    def decimal(self, total: int) -> Decimal:
        """In the column's unit."""
        return exact_decimal(total * self.step, self.exponent)


@dataclass(frozen=True, slots=True)
class Cloud:
    """Several columns read as points."""

    criterion: Mahalanobis
    matrix: Array  # (n, n) int64, in units of 10**-decimals

    @property
    def ranks(self) -> int:
        """One."""
        return 1

    def distance(self, rank: int, sites: Array) -> Array:
        """Rounded Mahalanobis distances."""
        return self.matrix[np.ix_(sites, sites)]

    def barred(self, sites: Array) -> Array | None:
        """Distances beyond the caliper."""
        if self.criterion.caliper is None:
            return None
        limit = math.floor(Fraction(self.criterion.caliper) * 10**self.criterion.decimals)
        return self.distance(0, sites) > limit

    def decimal(self, total: int) -> Decimal:
        """In standard deviations."""
        return exact_decimal(total, -self.criterion.decimals)


def exact_decimal(number: int, exponent: int) -> Decimal:
    """``number * 10**exponent`` as a plain decimal without trailing zeros, never rounded."""
    while exponent < 0 and number % 10 == 0:
        number //= 10
        exponent += 1
    return Decimal(number * 10**exponent) if exponent >= 0 else Decimal(f"{number}E{exponent}")


def measure(criterion: Criterion, sites: pd.DataFrame, ids: Sequence[str], order: Sequence[int], *, missing: str, where: str) -> Measure:
    """Read a criterion's columns.

    `ids` are the ids of the rows of `sites` as they stand, which is how complaints name them; `order` lists the row
    positions in id order, which is how the measure holds them, so that nothing after this depends on row order.
    """
    door.require_columns(sites, criterion.columns, where=where, why=f"by the matching criterion {criterion.name}")
    if isinstance(criterion, Mahalanobis):
        return _cloud(criterion, sites, ids, order, where=where)
    cells = observed_cells(criterion, sites, where=where)
    absent = [i for i, cell in zip(ids, cells, strict=True) if cell is None]
    if absent and missing == "refuse":
        raise door.InputError(
            f"{where}, column {criterion.column!r}: missing for {len(absent)} site{'s' if len(absent) > 1 else ''} "
            f"({door.few(absent)}), so how alike they are to others is unknown.\n"
            "  Fill the cells in,\n"
            "  or let a missing cell count as a level of its own:   missing='own-level'\n"
            "  or as far away as the two most distant sites:        missing='range-penalty'"
        )
    cells = [cells[k] for k in order]
    if isinstance(criterion, Nearest):
        return _line(criterion, [c if isinstance(c, Decimal) else None for c in cells], missing=missing, where=where)
    words = ["missing" if c is None else f"'{c}'" for c in cells]
    codes = {word: k for k, word in enumerate(sorted(set(words)))}
    return Levels(criterion, np.array([codes[w] for w in words], dtype=np.int64), tuple("missing" if c is None else str(c) for c in cells))


def observed_cells(criterion: Exact | ExactIfPossible | Nearest, sites: pd.DataFrame, *, where: str) -> list[Decimal | str | None]:
    """One column's cells as exact decimals (`nearest`) or as the text of levels; None where missing."""
    column = sites[criterion.column]
    if isinstance(criterion, Nearest):
        cells = [None if isinstance(c, str) and c.strip() in _NOT_OBSERVED else c for c in column.tolist()]
        return list(door.decimals(pd.DataFrame({criterion.column: pd.Series(cells, dtype=object)}), criterion.column, where=where))
    levels = [door.cell_text(c) or None for c in column.tolist()]
    spelled: dict[str, str] = {}
    for row, level in enumerate(levels, start=2):
        if level is None:
            continue
        if not level.strip():
            raise door.InputError(
                f"{where}, row {row}, column {criterion.column!r}: a cell of blanks only. Leave it empty if it is missing, or write its level."
            )
        other = spelled.setdefault(level.strip(), level)
        if other != level:
            raise door.InputError(
                f"{where}, row {row}, column {criterion.column!r}: the levels {other!r} and {level!r} differ only in spaces around them, "
                "so they would count as different. Make them the same."
            )
    return list(levels)


def exact_text(sites: pd.DataFrame, column: str, *, numeric: bool, where: str) -> list[str]:
    """A column as text from which its exact values can be read again, one cell a row; "" where missing."""
    if not numeric:
        return [door.cell_text(c) for c in sites[column].tolist()]
    cells = observed_cells(Nearest(column), sites, where=where)
    return [str(exact_decimal(*_parts(c))) if isinstance(c, Decimal) else "" for c in cells]


def _line(criterion: Nearest, cells: Sequence[Decimal | None], *, missing: str, where: str) -> Line:
    observed = [c for c in cells if c is not None]
    parts = [_parts(c) for c in observed]
    nonzero = [(n, e) for n, e in parts if n]
    exponent = min((e for _, e in nonzero), default=0)
    if nonzero and max(len(str(abs(n))) + e for n, e in nonzero) - exponent > _MOST_DIGITS:
        raise door.InputError(
            f"{where}, column {criterion.column!r}: its numbers differ in size by more than {_MOST_DIGITS} digits, "
            "which no measurement does. Look for a cell with a wrong exponent."
        )
    whole = [n * 10 ** (e - exponent) if n else 0 for n, e in parts]
    lowest = min(whole, default=0)
    step = math.gcd(*(n - lowest for n in whole)) or 1
    scaled = [(n - lowest) // step for n in whole]
    widest = max(scaled, default=0)
    gaps = np.array([c is None for c in cells], dtype=bool)
    values = np.zeros(len(cells), dtype=np.int64 if widest < 1 << 61 else object)
    values[~gaps] = scaled
    own = missing == "own-level" and bool(gaps.any())
    return Line(criterion, values, gaps, widest if missing == "range-penalty" else 0, step, exponent, own)


def _parts(number: Decimal) -> tuple[int, int]:
    """A decimal as integer and exponent of ten."""
    sign, digits, exponent = number.as_tuple()
    whole = int("".join(map(str, digits)) or "0")
    return (-whole if sign else whole), int(exponent)


def _cloud(criterion: Mahalanobis, sites: pd.DataFrame, ids: Sequence[str], order: Sequence[int], *, where: str) -> Cloud:
    points = np.column_stack([door.numbers(sites, c, where=where) for c in criterion.columns])
    for k, name in enumerate(criterion.columns):
        absent = [i for i, x in zip(ids, points[:, k], strict=True) if np.isnan(x)]
        if absent:
            raise door.InputError(
                f"{where}, column {name!r}: missing for {door.few(absent)}, and a Mahalanobis distance needs every coordinate. "
                f"Fill the cells in, or rank the column by itself: nearest({name!r})."
            )
    points = points[list(order)]
    n, p = points.shape
    if n < 2:
        return Cloud(criterion, np.zeros((n, n), dtype=np.int64))
    centred = points - points.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    for name, s in zip(criterion.columns, spread, strict=True):
        if not s > 0:
            raise door.InputError(f"{where}, column {name!r} is the same for every site, so it cannot tell sites apart. Leave it out.")
    z = centred / spread
    covariance = _covariance(z, robust=criterion.robust)
    if np.linalg.matrix_rank(covariance, hermitian=True, tol=1e-10) < p:
        raise door.InputError(
            f"{where}: the columns {', '.join(criterion.columns)} are collinear over these {n} sites, so their covariance has no inverse. "
            "Leave one out, or rank them one by one with nearest(...)."
        )
    scale = np.ones(p) if criterion.weights is None else np.array([float(w) for w in criterion.weights])
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (z * scale).T).T
    squared = np.zeros((n, n))
    for k in range(p):
        squared += (whitened[:, k][:, None] - whitened[:, k]) ** 2
    return Cloud(criterion, np.rint(np.sqrt(squared) * 10**criterion.decimals).astype(np.int64))


def _covariance(z: Array, *, robust: bool) -> Array:
    if not robust:
        return np.asarray(np.atleast_2d(np.cov(z, rowvar=False)))
    from sklearn.covariance import MinCovDet  # a slow import that only this choice needs

    # the search for the least determinant starts at random; a fixed start makes the distance a function of the data
    return np.asarray(MinCovDet(random_state=0).fit(z).covariance_)
