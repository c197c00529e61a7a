"""What makes two sites alike: the criteria of a pairing, declared in rank order and proved at birth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

import pandas as pd

from trialkit import door


@dataclass(frozen=True, slots=True)
class Exact:
    """Only sites with the same level may be paired."""

    kind: ClassVar[str] = "exact"
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
        return {"kind": self.kind, "column": self.column}


@dataclass(frozen=True, slots=True)
class ExactIfPossible:
    """Distance 0 when two sites have the same level, else 1; a missing level is a level of its own."""

    kind: ClassVar[str] = "exact_if_possible"
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
        return {"kind": self.kind, "column": self.column}


@dataclass(frozen=True, slots=True)
class Nearest:
    """Distance ``|a - b|``, in exact decimals; with a caliper, sites further apart may not be paired."""

    kind: ClassVar[str] = "nearest"
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
        return {"kind": self.kind, "column": self.column, "caliper": None if self.caliper is None else str(self.caliper)}


@dataclass(frozen=True, slots=True)
class Mahalanobis:
    """Distance ``sqrt((a - b)' D S^-1 D (a - b))``, rounded to `decimals` places; D holds the weights."""

    kind: ClassVar[str] = "mahalanobis"
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
            "kind": self.kind,
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
    kinds = (Exact.kind, ExactIfPossible.kind, Nearest.kind, Mahalanobis.kind)
    raise door.InputError(f"a matching criterion: {door.unknown_word(str(kind), kinds, what='kind')}")


def _column(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise door.InputError(f"a criterion names one column as text, not {name!r}. Write for example nearest('annual_budget').")
    return name


def _number(value: Any) -> Decimal | None:
    found = door.decimals(pd.DataFrame({"number": pd.Series([value], dtype=object)}), "number", where="a criterion")
    return None if found[0] is None else _short(found[0])


def _short(number: Decimal) -> Decimal:
    """The same number without zeros at the end of its fraction: a design file's 2.0 is 2."""
    sign, digits, exponent = number.as_tuple()
    places = int(exponent)
    while places < 0 and digits[-1] == 0:
        digits, places = digits[:-1] or (0,), places + 1
    return Decimal((sign, digits, places))


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
