"""Counting rejections of simulated trials, with the effect and without, and the parts of the planned analyses that designs share.

The effect moves the outcome along a column of the model: an estimate moves by it and a residual not at all, so one analysis of a
trial serves the power and the type I error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from trialkit.simulation.streams import Floats, Stream

Counts = np.ndarray[Any, np.dtype[np.int64]]
PERMUTATIONS = 999
GEE = {"gee": "KC", "gee, mancl-derouen": "MD", "gee, uncorrected": "LZ"}


@dataclass(frozen=True, slots=True)
class Test:
    """What is tested: the true effect, the level and the sides."""

    effect: float
    alpha: float
    sides: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rejections in one chunk of trials.

    Attributes
    ----------
    rejected : mapping of analysis to (with the effect, without)
    singular, failed : int
        Fits with a variance (or correlation) at its bound, all kept; fits without an answer, counted as not rejecting.
    """

    rejected: dict[str, Counts]
    singular: int
    failed: int = 0


def both(estimate: Floats, error: Floats, df: Floats, test: Test) -> Counts:
    """Counts of p <= alpha with the effect added and without; a trial without an answer rejects nothing."""
    tail = 1.0 - test.alpha / test.sides
    limit = special.ndtri(tail) if np.isinf(df).all() else special.stdtrit(df, tail)
    counts = []
    with np.errstate(invalid="ignore", divide="ignore"):
        for shift in (test.effect, 0.0):
            t = (estimate + shift) / error
            counts.append(int(((np.abs(t) if test.sides == 2 else t) >= limit).sum()))
    return np.array(counts, dtype=np.int64)


def randomised(statistics: Floats, moved: Floats, mine: Floats, test: Test, *, every: bool) -> Counts:
    """Counts of a randomisation test.

    Parameters
    ----------
    statistics : (R, P)
        Of every trial under other allocations, without the effect.
    moved : (P,)
        What the effect adds to each of them; it adds itself to the allocation drawn.
    mine : (R,)
        Under the allocation drawn, without the effect.
    every : bool
        The list holds the allocation drawn; a sample does not, so it is added.
    """
    more = 0.0 if every else 1.0
    counts = []
    for shift, add in ((test.effect, moved), (0.0, np.zeros_like(moved))):
        other, own = statistics + add, (mine + shift)[:, None]
        # equal up to rounding counts as equal: the test must not reject more than it may
        as_far = (np.abs(other) >= np.abs(own) - 1e-12) if test.sides == 2 else (other >= own - 1e-12)
        share = (more + as_far.sum(axis=1)) / (more + statistics.shape[1])
        counts.append(int((share <= test.alpha + 1e-12).sum()))
    return np.array(counts, dtype=np.int64)


def chi_square(seed: int, name: str, chunk: int, n: int, df: float) -> Floats:
    """Chi-square numbers by inversion."""
    u = Stream(seed, "planned power", name, str(chunk)).uniform(n)
    values: Floats = 2.0 * special.gammaincinv(df / 2.0, u)
    return values


def wanted(analyses: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of the analyses that are among the names, in order."""
    return [a for a in analyses if a in names]
