"""Adjusting the p-values of a family of outcomes, behind a guard: a missing p-value is never counted as a number by accident.

Libraries differ in what a missing p-value does to the others (one counts it as a hypothesis, another drops it), so that a trial with
one failed model gets different adjusted p-values by library. Here a missing p-value is an error unless the caller says how to count it.

The procedures are those of R's `p.adjust` (Holm 1979; Hommel 1988; Hochberg 1988; Benjamini & Hochberg 1995), tested against statsmodels;
they are written out because statsmodels' call runs the garbage collector each time, which thousands of simulated trials would wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trialkit.door import InputError, unknown_word

Array = NDArray[np.float64]

METHODS = ("none", "bonferroni", "holm", "hommel", "hochberg", "fdr_bh", "fixed-sequence")


def adjust(p_values: ArrayLike, method: str = "holm", *, on_missing: Literal["error", "as_p1"] = "error") -> Array:
    """Adjusted p-values of one family.

    Parameters
    ----------
    p_values : array (k,)
        In the family's declared order (which matters for ``fixed-sequence`` only).
    method : {"none", "bonferroni", "holm", "hommel", "hochberg", "fdr_bh", "fixed-sequence"}
        ``fixed-sequence`` tests in order at the full level and stops at the first failure: the adjusted p is the largest so far.
    on_missing : {"error", "as_p1"}
        ``as_p1`` counts a missing p-value as p = 1, so that it still belongs to the family; its own adjusted p stays missing.

    Returns
    -------
    array (k,)

    Raises
    ------
    InputError
        The method is unknown, a p-value is outside 0..1, or one is missing and `on_missing` is "error".

    Examples
    --------
    >>> adjust([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    >>> adjust([0.01, 0.2, 0.03], "fixed-sequence").tolist()
    [0.01, 0.2, 0.2]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if method not in METHODS:
        raise InputError(unknown_word(method, METHODS, what="multiplicity method"))
    missing = np.isnan(p)
    if ((p < 0) | (p > 1)).any():
        raise InputError(f"a p-value of {p[(p < 0) | (p > 1)][0]:g} is outside 0 to 1.")
    if missing.any() and on_missing == "error":
        raise InputError(
            f"{int(missing.sum())} of {p.size} p-values of the family are missing, so the others cannot be adjusted. "
            "Mend the models behind them, or count them as p = 1 with on_missing='as_p1'."
        )
    counted = np.where(missing, 1.0, p)
    if method == "none" or p.size == 0:
        adjusted = counted
    elif method == "fixed-sequence":
        adjusted = np.maximum.accumulate(counted)
    else:
        order = np.argsort(counted, kind="stable")
        adjusted = np.empty(p.size)
        adjusted[order] = _sorted(counted[order], method)
    return np.where(missing, np.nan, np.minimum(adjusted, 1.0))


def _sorted(p: Array, method: str) -> Array:
    """Adjusted p-values (not yet cut at 1) of ascending p (k,)."""
    k = p.size
    rank = np.arange(1, k + 1)
    if method == "bonferroni":
        return np.asarray(k * p)
    if method == "holm":
        return np.asarray(np.maximum.accumulate((k - rank + 1) * p))
    if method == "hochberg":
        return np.minimum.accumulate(((k - rank + 1) * p)[::-1])[::-1]
    if method == "fdr_bh":
        return np.minimum.accumulate((k / rank * p)[::-1])[::-1]
    # Hommel: the closed test with Simes' local tests, in Wright's (1992) form
    adjusted = np.full(k, (k * p / rank).min())
    for j in range(k - 1, 1, -1):
        low, high = p[: k - j + 1], p[k - j + 1 :]
        q = np.minimum(j * low, (j * high / np.arange(2, j + 1)).min())
        adjusted = np.maximum(adjusted, np.concatenate([q, np.full(j - 1, q[-1])]))
    return np.asarray(np.maximum(adjusted, p))


def adjust_families(
    p_values: ArrayLike, families: Sequence[str], method: str = "holm", *, on_missing: Literal["error", "as_p1"] = "error"
) -> Array:
    """`adjust` inside each family; the families are adjusted apart from one another.

    Examples
    --------
    >>> adjust_families([0.01, 0.02, 0.03], ["primary", "secondary", "secondary"]).tolist()
    [0.01, 0.04, 0.04]
    """
    p = np.asarray(p_values, dtype=np.float64)
    labels = np.asarray(families, dtype=str)
    if labels.shape != p.shape:
        raise InputError(f"{p.size} p-values but {labels.size} family names. Give each p-value its family.")
    out = np.full(p.shape, np.nan)
    for family in dict.fromkeys(labels.tolist()):
        inside = labels == family
        out[inside] = adjust(p[inside], method, on_missing=on_missing)
    return out
