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


def gatekeeping(
    p_values: ArrayLike, families: Sequence[str], method: str = "holm", *, on_missing: Literal["error", "as_p1"] = "error"
) -> Array:
    """Serial gatekeeping: families in their declared order, each a gate to the next, which is tested only when all of it was rejected.

    Parameters
    ----------
    p_values : array (k,)
    families : sequence of str, (k,)
        In the order of their first members.
    method : str
        Of `adjust`, inside each family.
    on_missing : {"error", "as_p1"}
        As for `adjust`; a missing p-value closes the gate.

    Returns
    -------
    array (k,)
        The adjusted p inside the family, or the largest of the families before, whichever is larger. With a `method` that controls the
        family-wise error, that of all families together is controlled at the same level (Maurer, Hothorn & Lehmacher 1995).

    Examples
    --------
    >>> gatekeeping([0.01, 0.02, 0.001, 0.04], ["primary", "primary", "secondary", "secondary"]).tolist()
    [0.02, 0.02, 0.02, 0.04]
    """
    if method == "none":
        raise InputError("gatekeeping with method 'none' would not control the error inside a family. Choose holm, hommel or hochberg.")
    p = np.asarray(p_values, dtype=np.float64)
    inside = adjust_families(p, families, method, on_missing=on_missing)
    labels = np.asarray(families, dtype=str)
    out = np.full(p.shape, np.nan)
    gate = 0.0
    for family in dict.fromkeys(labels.tolist()):
        mine = labels == family
        out[mine] = np.maximum(inside[mine], gate)
        gate = max(gate, float(np.where(np.isnan(inside[mine]), 1.0, inside[mine]).max()))
    return out


def graphical(p_values: ArrayLike, weights: ArrayLike, transitions: ArrayLike, *, on_missing: Literal["error", "as_p1"] = "error") -> Array:
    """Sequentially rejective graph of Bretz, Maurer, Brannath & Posch (2009): fixed sequence, fallback, parallel gatekeeping, Holm.

    Parameters
    ----------
    p_values : array (k,)
    weights : array (k,)
        Share of the level that each hypothesis starts with; at least 0, at most 1 together.
    transitions : array (k, k)
        Row i: to whom hypothesis i hands its share when it is rejected; at least 0, diagonal 0, rows at most 1.
    on_missing : {"error", "as_p1"}
        As for `adjust`.

    Returns
    -------
    array (k,)
        Adjusted p-values; rejecting those at or below alpha controls the family-wise error at alpha whatever the dependence.

    Raises
    ------
    InputError
        The graph is not one, or as `adjust`.

    Examples
    --------
    Two primary outcomes share the level; each hands its half to its own secondary outcome, and that to the other primary:

    >>> graph = [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]]
    >>> graphical([0.01, 0.04, 0.02, 0.005], [0.5, 0.5, 0, 0], graph).tolist()
    [0.02, 0.04, 0.04, 0.04]
    """
    counted = adjust(p_values, "none", on_missing=on_missing)
    missing = np.isnan(counted)
    p = np.where(missing, 1.0, counted)
    k = p.size
    w, G = np.array(weights, dtype=np.float64), np.array(transitions, dtype=np.float64)
    if w.shape != (k,) or G.shape != (k, k):
        raise InputError(f"{k} p-values need {k} weights and a {k} x {k} table of transitions, not {w.shape} and {G.shape}.")
    slack = 1 + 1e-9
    if not ((w >= 0).all() and w.sum() <= slack):
        raise InputError("the weights must be at least 0 and sum to at most 1: they are shares of the level.")
    if not ((G >= 0).all() and (G.sum(axis=1) <= slack).all() and (np.diagonal(G) == 0).all()):
        raise InputError("each row of the transitions must be at least 0, sum to at most 1, and give nothing to itself.")
    out = np.ones(k)
    left = np.ones(k, dtype=bool)
    largest = 0.0
    while left.any():
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = np.where(left, np.where(w > 0, p / w, np.inf), np.inf)
        j = int(np.argmin(needed))
        if not np.isfinite(needed[j]):
            break
        largest = max(largest, float(needed[j]))
        out[j] = min(largest, 1.0)
        left[j] = False
        w = np.where(left, w + w[j] * G[j], 0.0)
        through = G[:, [j]] * G[[j], :]
        back = 1 - G[:, j] * G[j]
        with np.errstate(divide="ignore", invalid="ignore"):
            # a pair that hands everything to one another has nobody else to hand it to
            G = np.where((back > 1e-12)[:, None], (G + through) / back[:, None], 0.0)
        np.fill_diagonal(G, 0.0)
        G[~left], G[:, ~left] = 0.0, 0.0
    return np.where(missing, np.nan, out)
