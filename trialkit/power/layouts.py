"""Layouts of longitudinal designs: matrices of 0 and 1, one row a sequence, one column a period."""

from __future__ import annotations

import math

from trialkit.door import InputError

Layout = tuple[tuple[float, ...], ...]


def _whole(value: object, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} = {value!r} must be a whole number, {least} or more.")
    return value


def stepped_wedge(sequences: int, *, before: int = 1, after: int = 0, transition: int = 0) -> Layout:
    """A stepped wedge: one sequence crosses over at each step.

    Parameters
    ----------
    sequences : int
        Number of sequences (steps).
    before : int
        Periods before the first step.
    after : int
        Periods added after the last step.
    transition : int
        Periods after a sequence's step that are not observed (the intervention being brought in).

    Returns
    -------
    tuple of rows
        For ``layout=`` of `trialkit.power`.

    Examples
    --------
    >>> stepped_wedge(3)
    ((0.0, 1.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0))
    """
    _whole(sequences, "sequences", 1)
    _whole(before, "before", 0)
    _whole(after, "after", 0)
    _whole(transition, "transition", 0)
    periods = before + sequences + after
    rows = []
    for s in range(sequences):
        step = before + s
        rows.append(tuple(0.0 if t < step else (math.nan if t < step + transition else 1.0) for t in range(periods)))
    return tuple(rows)


def crossover(periods: int = 2) -> Layout:
    """A cluster crossover with two sequences that change at every period.

    Examples
    --------
    >>> crossover()
    ((0.0, 1.0), (1.0, 0.0))
    """
    _whole(periods, "periods", 2)
    return tuple(tuple(float((t + s) % 2) for t in range(periods)) for s in range(2))


def parallel(periods: int = 1, *, baseline: int = 0) -> Layout:
    """Two parallel arms over some follow-up periods, after some baseline periods.

    Examples
    --------
    >>> parallel(2, baseline=1)
    ((0.0, 0.0, 0.0), (0.0, 1.0, 1.0))
    """
    _whole(periods, "periods", 1)
    _whole(baseline, "baseline", 0)
    return ((0.0,) * (baseline + periods), (0.0,) * baseline + (1.0,) * periods)
