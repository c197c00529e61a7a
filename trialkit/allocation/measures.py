"""Criteria with their columns read: exact integers for any subset of the sites.

`measure` reads a criterion's columns once, through the door, and gives distances as integers in a stated unit, so that
0.3 - 0.2 ties with 0.2 - 0.1 and 2**53 + 1 differs from 2**53.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import pandas as pd

from trialkit import door
from trialkit.allocation.criteria import Criterion, Exact, ExactIfPossible, Mahalanobis, Nearest

Array = np.ndarray[Any, np.dtype[Any]]

MISSING = ("refuse", "own-level", "range-penalty")
# a cell such as 1e400000 would ask for an integer of that many digits
_MOST_DIGITS = 400
# in a numeric column these cannot be numbers; the `missing` policy then decides, so nothing is passed over in silence
NOT_OBSERVED = ("NA", "N/A", "NaN", "nan", "NULL", "null", ".")


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
        return np.asarray(codes[:, None] != codes, dtype=np.int64)

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
            return np.asarray(mixed, dtype=np.int64)
        values = self.values[sites]
        distance: Array = np.abs(values[:, None] - values)
        if missing.any():
            distance[missing[:, None] | missing] = 0
            distance[mixed] = self.penalty
        return distance

    def barred(self, sites: Array) -> Array | None:
        """Differences beyond the caliper; an unknown difference is not known to be within it."""
        if self.criterion.caliper is None:
            return None
        limit = math.floor(Fraction(self.criterion.caliper) / (self.step * Fraction(10) ** self.exponent))
        beyond = np.asarray(self.distance(self.ranks - 1, sites) > limit, dtype=bool)
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
        return np.asarray(self.matrix[np.ix_(sites, sites)])

    def barred(self, sites: Array) -> Array | None:
        """Distances beyond the caliper."""
        if self.criterion.caliper is None:
            return None
        limit = math.floor(Fraction(self.criterion.caliper) * 10**self.criterion.decimals)
        return np.asarray(self.distance(0, sites) > limit)

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
    # a level spelled "missing" is not a missing cell
    absence = "missing"
    while absence in cells:
        absence = f"({absence})"
    labels = tuple(absence if c is None else str(c) for c in cells)
    codes = {word: k for k, word in enumerate(sorted(set(labels)))}
    return Levels(criterion, np.array([codes[w] for w in labels], dtype=np.int64), labels)


def observed_cells(criterion: Exact | ExactIfPossible | Nearest, sites: pd.DataFrame, *, where: str) -> list[Decimal | str | None]:
    """One column's cells as exact decimals (`nearest`) or as the text of levels; None where missing."""
    column = sites[criterion.column]
    if isinstance(criterion, Nearest):
        cells = [None if isinstance(c, str) and c.strip() in NOT_OBSERVED else c for c in door.cells(column)]
        return list(door.decimals(pd.DataFrame({criterion.column: pd.Series(cells, dtype=object)}), criterion.column, where=where))
    levels = [door.cell_text(c) or None for c in column.tolist()]
    spelled: dict[str, str] = {}
    for row, level in enumerate(levels, start=2):
        if level is None:
            continue
        if not level.strip():
            raise door.InputError(
                f"{where}, row {row}, column {criterion.column!r}: a cell of blanks only. Leave it empty if it is missing."
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
