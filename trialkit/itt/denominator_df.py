"""Denominator degrees of freedom by counting: between-within and containment.

Each fixed-effect column is placed at the outermost level at which it is constant within groups. A level with J groups, nested in a level
with J' groups (J' = 1 for the whole table), has J - J' - (columns placed there) degrees of freedom, J' counting the constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


def level_of_columns(x: Array, groups: Sequence[Codes]) -> NDArray[np.intp]:
    """For each column of `x` (n, p) the outermost grouping within which it is constant; `len(groups)` when it varies within all."""
    level = np.full(x.shape[1], len(groups), dtype=np.intp)
    for k in range(len(groups) - 1, -1, -1):
        first = np.zeros(int(groups[k].max(initial=0)) + 1, dtype=np.intp)
        first[groups[k]] = np.arange(len(groups[k]))
        constant = (x == x[first[groups[k]]]).all(axis=0)
        level[constant] = k
    return level


def counted_df(x: Array, groups: Sequence[Codes], *, intercept: int | None, contain_intercept: bool) -> Array:
    """Degrees of freedom of each column.

    Parameters
    ----------
    x : array (n, p)
    groups : sequence of array (n,)
        Outermost first.
    intercept : int or None
        Which column is the constant.
    contain_intercept : bool
        True (containment): the constant lies in the outermost grouping. False (between-within, as nlme): it takes the innermost df.

    Returns
    -------
    array (p,)
        May be zero or negative, when a level's groups are used up.
    """
    n = len(x)
    level = level_of_columns(x, groups)
    counts = [1 if intercept is not None else 0, *(int(g.max(initial=0)) + 1 for g in groups), n]
    place = level.copy()
    if intercept is not None:
        place[intercept] = -1
    df = np.array([counts[k + 1] - counts[k] - int((place == k).sum()) for k in range(len(groups) + 1)], dtype=np.float64)
    out = df[level]
    if intercept is not None:
        out[intercept] = df[0] if contain_intercept else df[-1]
    return np.asarray(out)
