"""The same effect by several methods, side by side, so that a reader sees when a conclusion hangs on the method.

For every outcome: the design's own model; the two-stage analysis of site means, unadjusted and adjusted, sites counting equally
(cluster-average effect) and by their people (participant-average effect); the analysis of pair differences, when the table has pairs; and
the randomisation test, when the plan is given. All are divided by the same SD, and imputed tables are pooled by Rubin's rules; the
randomisation test takes its statistic, which is linear in the outcome, as the mean over the imputed tables. The rows are those of
``itt(..., analyses="all")``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from trialkit.design import TrialDesign
from trialkit.itt.analysis import itt, weighting_note
from trialkit.itt.randomisation import Scheme
from trialkit.results import Result


@dataclass(frozen=True)
class MethodComparison(Result):
    """Effects by outcome and method.

    Attributes
    ----------
    frame : DataFrame
        outcome, analysis, estimate, std_error, df, p_value, conf_low, conf_high, clusters, measure; a method that could not be used has
        missing numbers and its reason in `problems`.
    problems : mapping of (outcome, analysis) to reason
    notes : tuple of str
    """

    frame: pd.DataFrame
    problems: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    title: str = "The same effect by several methods"


def compare_methods(
    data: pd.DataFrame | Iterable[pd.DataFrame],
    design: TrialDesign,
    *,
    plan: Scheme | None = None,
    draws: int = 10_000,
    seed: int | None = None,
) -> MethodComparison:
    """Every outcome by the mixed model, by site-level analyses, by pairs and by randomisation.

    Parameters
    ----------
    data, design
        As for `itt`.
    plan : Scheme, optional
        The allocation plan; with it the randomisation test is made.
    draws, seed : int
        For the randomisation test, when the plan has too many assignments to go through all.

    Returns
    -------
    MethodComparison

    Raises
    ------
    InputError
        As `itt`, and when a site is not in the plan.

    Examples
    --------
    >>> import numpy as np
    >>> design = TrialDesign.from_text('[[outcomes]]\\nname = "y"\\nhas_baseline = false')
    >>> rng = np.random.default_rng(5)
    >>> site = np.repeat(np.arange(12), 5)
    >>> people = pd.DataFrame({
    ...     "person": range(60), "site": site, "arm": np.where(site % 2, "intervention", "control"),
    ...     "y": rng.normal(size=12)[site] / 3 + rng.normal(size=60),
    ... })
    >>> compare_methods(people, design).frame["analysis"].tolist()[:3]
    ['mixed model', 'site means, unadjusted', 'site means, unadjusted, by people']
    """
    results = itt(data, design, analyses="all", plan=plan, draws=draws, seed=seed)
    keep = ["outcome", "analysis", "estimate", "std_error", "df", "p_value", "conf_low", "conf_high", "clusters", "measure"]
    frame = results.frame[keep]
    names = {o.name: next(a for n, a in zip(frame["outcome"], frame["analysis"], strict=True) if n == o.name) for o in design.outcomes}
    problems = {}
    for o in design.outcomes:
        for analysis in frame["analysis"][frame["outcome"] == o.name]:
            reason = results.problems.get(o.name if analysis == names[o.name] else f"{o.name}, {analysis}")
            if reason is not None:
                problems[o.name, str(analysis)] = reason
    notes = [
        "All estimates of a standardised outcome are divided by the same SD. Site means weigh sites equally (cluster-average effect) "
        "unless 'by people' is said (participant-average effect); the mixed model weighs in between."
    ]
    notes += weighting_note(design)
    if plan is None:
        notes.append("No plan was given, so there is no randomisation test.")
    notes += [f"{outcome}, {analysis}: {reason}." for (outcome, analysis), reason in problems.items()]
    return MethodComparison(frame=frame, problems=problems, notes=tuple(notes))
