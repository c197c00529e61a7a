"""Assumptions about the missing side by side: the extremes, and one table of an outcome's effect under each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.design import TrialDesign
from trialkit.door import InputError, cell_text
from trialkit.imputation.imputations import Imputations
from trialkit.imputation.reference import outcome_of
from trialkit.results import Provenance, Result

Array = NDArray[np.float64]


def worst_best(imputations: Imputations, design: TrialDesign, outcome: str, *, quantile: float = 0.0) -> dict[str, Imputations]:
    """The two extremes: everybody missing did as well as can be in one arm and as badly as can be in the other.

    Parameters
    ----------
    imputations : Imputations
    design : TrialDesign
        The outcome's `direction` says which end is good.
    outcome : str
    quantile : float, default 0
        0: the smallest and largest value observed (of a category its first and last level). 0.1, say: the tenth and ninetieth
        percentile, for a numeric outcome.

    Returns
    -------
    dict
        ``"best case"`` favours the intervention, ``"worst case"`` the reference arm; each is m completed sets in which the outcome's
        missing cells hold one value an arm.

    Raises
    ------
    InputError
        The outcome is not in the design or was not imputed; `quantile` is not between 0 and 0.5, or is given for a category.
    """
    found = outcome_of(design, outcome)
    if not 0 <= quantile < 0.5:
        raise InputError(f"quantile = {quantile!r}: a number from 0 up to, not including, 0.5 is needed.")
    if outcome not in imputations.cells:
        raise InputError(f"{outcome!r} has no imputed cells, so there is no extreme to look at.")
    cells = imputations.cells[outcome]
    if cells.labels:
        if quantile:
            raise InputError(f"{outcome!r} is a category: only its first and last level are extremes. Leave quantile out.")
        low, high = 0.0, float(len(cells.labels) - 1)
    else:
        seen = imputations.base[outcome].to_numpy(dtype=float, na_value=np.nan)
        low, high = np.nanquantile(seen, [quantile, 1 - quantile]).tolist()
    good, bad = (high, low) if found.direction == "higher" else (low, high)
    arms = np.array([cell_text(v) for v in imputations.base[design.columns.arm].tolist()])[cells.rows]
    treated = arms == design.arms.intervention
    out = {}
    for name, favoured in (("best case", treated), ("worst case", ~treated)):
        values = np.repeat(np.where(favoured, good, bad)[None], imputations.m, axis=0)
        made = imputations.provenance
        settings = {**made.settings, "extreme": {"outcome": outcome, "case": name, "low": low, "high": high}}
        out[name] = replace(
            imputations,
            cells={**imputations.cells, outcome: replace(cells, values=values, passing=None)},
            provenance=Provenance(made.seed, made.inputs, settings, made.versions),
        )
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Scenarios(Result):
    """One outcome's effect under several assumptions.

    Attributes
    ----------
    frame : DataFrame
        One row a scenario: scenario, estimate, std_error, df, p_value, conf_low, conf_high, icc, fmi, n, m.
    outcome : str
    notes : tuple of str
    """

    frame: pd.DataFrame
    outcome: str
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Heading of the printed table."""
        return f"{self.outcome}: under each assumption about the missing"


_FIGURES = ("estimate", "std_error", "df", "p_value", "conf_low", "conf_high", "icc", "fmi", "n", "m")


def compare_scenarios(
    scenarios: Mapping[str, Imputations | pd.DataFrame], design: TrialDesign, outcome: str, *, analyse: Callable[[Any, TrialDesign], Any]
) -> Scenarios:
    """One outcome analysed under each assumption, in one table.

    Parameters
    ----------
    scenarios : mapping of name to Imputations or DataFrame
        A plain table is analysed by complete cases.
    design : TrialDesign
    outcome : str
    analyse : callable
        ``tk.itt``, or anything that takes (data, design) and gives a result whose ``frame`` has the columns of its.

    Returns
    -------
    Scenarios

    Raises
    ------
    InputError
        No scenario, or the outcome is not in the design.

    Examples
    --------
    >>> import trialkit as tk
    >>> rng = np.random.default_rng(3)
    >>> site = np.arange(80) // 4
    >>> people = pd.DataFrame({"person": range(80), "site": site, "arm": np.where(site % 2, "control", "intervention")})
    >>> people["mood"] = rng.normal(size=80)
    >>> people.loc[::4, "mood"] = np.nan
    >>> design = tk.TrialDesign(outcomes=[{"name": "mood", "has_baseline": False}])
    >>> sets = tk.impute(people, design, m=5, seed=7)
    >>> scenarios = {"complete cases": people, "missing at random": sets, **worst_best(sets, design, "mood")}
    >>> compare_scenarios(scenarios, design, "mood", analyse=tk.itt).frame["scenario"].tolist()
    ['complete cases', 'missing at random', 'best case', 'worst case']
    """
    if not scenarios:
        raise InputError("no scenario is given. Give a mapping of names to imputations.")
    alone = design.model_copy(update={"outcomes": (outcome_of(design, outcome),)})
    rows, notes = [], []
    for name, data in scenarios.items():
        result = analyse(data, alone)
        row = result.frame[result.frame["outcome"] == outcome].iloc[0]
        rows.append({"scenario": str(name), **{c: row[c] for c in _FIGURES if c in row.index}})
        if outcome in (problems := getattr(result, "problems", {})):
            notes.append(f"{name}: {problems[outcome]}.")
    return Scenarios(pd.DataFrame(rows), outcome, tuple(notes))
