"""Analyses beside one another on the same trials.

What two analyses say of one trial is strongly correlated, so their difference is known far better than either: its
Monte Carlo error is that of a paired comparison (Morris, White & Crowther 2019, section 5.4 and table 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from trialkit.results import Table
from trialkit.simulation.analyses import FIELDS
from trialkit.simulation.streams import Floats


def paired_differences(
    values: Floats, truth: Floats, analyses: Sequence[str], outcomes: Sequence[str], first: int, *, conf_level: float = 0.95
) -> Table:
    """Every analysis against the one at position `first`, outcome by outcome.

    Parameters
    ----------
    values : array (trials, analyses, outcomes, fields)
        As `CheckResult.values`.
    truth : array (trials, analyses, outcomes)
        Each analysis's own.
    analyses, outcomes : sequence of str
    first : int
    conf_level : float

    Returns
    -------
    Table
        analysis, against, outcome, trials (in which both gave an answer); then, each with its ``_mcse``: difference (mean of
        estimate minus the other's estimate), coverage and rejection (differences of shares of all trials; a failed analysis covers and
        rejects nothing), precision (gain in precision in per cent, ``100 (S_other^2 / S^2 - 1)`` of the empirical standard errors S).
    """
    at = {name: values[..., f] for f, name in enumerate(FIELDS)}
    covers = ((at["conf_low"] <= truth) & (truth <= at["conf_high"])).astype(np.float64)
    covers = np.where(np.isnan(truth), np.nan, covers)
    rejects = (at["p_value"] <= 1.0 - conf_level).astype(np.float64)
    rows = []
    for a, name in enumerate(analyses):
        if a == first:
            continue
        for k, outcome in enumerate(outcomes):
            mine, other = at["estimate"][:, a, k], at["estimate"][:, first, k]
            both = ~(np.isnan(mine) | np.isnan(other))
            row: dict[str, Any] = {"analysis": name, "against": analyses[first], "outcome": outcome, "trials": int(both.sum())}
            row["difference"], row["difference_mcse"] = _mean(mine[both] - other[both])
            row["coverage"], row["coverage_mcse"] = _mean(covers[:, a, k] - covers[:, first, k])
            row["rejection"], row["rejection_mcse"] = _mean(rejects[:, a, k] - rejects[:, first, k])
            row["precision"], row["precision_mcse"] = _precision(mine[both] - truth[both, a, k], other[both] - truth[both, first, k])
            rows.append(row)
    frame = pd.DataFrame(rows).astype({"analysis": "str", "against": "str", "outcome": "str"})
    notes = (
        "Differences on the same trials, this analysis minus the other; _mcse: Monte Carlo standard error. precision: gain in per cent.",
    )
    shown = dict.fromkeys(("difference", "difference_mcse", "coverage", "coverage_mcse", "rejection", "rejection_mcse"), ".4f")
    return Table(
        frame, title="Analyses compared on the same trials", notes=notes, formats={**shown, "precision": ".1f", "precision_mcse": ".1f"}
    )


def _mean(differences: Floats) -> tuple[float, float]:
    n = len(differences)
    if n < 2:
        return float("nan"), float("nan")
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(n))


def _precision(mine: Floats, other: Floats) -> tuple[float, float]:
    """Relative gain in precision in per cent and its Monte Carlo error, from errors about the truth."""
    n = len(mine)
    if n < 3 or np.ptp(mine) == 0.0 or np.ptp(other) == 0.0:
        return float("nan"), float("nan")
    ratio = float(other.var(ddof=1) / mine.var(ddof=1))
    r = float(np.corrcoef(mine, other)[0, 1])
    return 100.0 * (ratio - 1.0), 200.0 * ratio * float(np.sqrt(max(1.0 - r * r, 0.0) / (n - 1)))
