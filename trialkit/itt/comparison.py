"""The same effect by several methods, side by side, so that a reader sees when a conclusion hangs on the method.

For every outcome: the design's mixed model; the two-stage analysis of site means, unadjusted and adjusted, sites counting equally
(cluster-average effect) and by their people (participant-average effect); the analysis of pair differences, when the table has pairs; and
the randomisation test, when the plan is given. All are divided by the same SD, and imputed tables are pooled by Rubin's rules; the
randomisation test takes its statistic, which is linear in the outcome, as the mean over the imputed tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit._kernels import pooling
from trialkit.design import TrialDesign
from trialkit.door import InputError, cell_text
from trialkit.itt.analysis import itt, weighting_note
from trialkit.itt.cluster_level import SiteComparison, SiteValues, paired, site_values, two_stage
from trialkit.itt.mixed import two_sided_p
from trialkit.itt.people import People
from trialkit.itt.prepared import Prepared, prepare
from trialkit.itt.randomisation import Scheme, randomisation_test
from trialkit.results import Result

Array = NDArray[np.float64]
MODEL, UNADJUSTED, ADJUSTED, BY_PEOPLE = "mixed model", "site means, unadjusted", "site means, adjusted", "site means, adjusted, by people"
PAIRS, RANDOMISATION = "pair differences, adjusted", "randomisation test, adjusted"


@dataclass(frozen=True)
class MethodComparison(Result):
    """Effects by outcome and method.

    Attributes
    ----------
    frame : DataFrame
        outcome, analysis, estimate, std_error, df, p_value, conf_low, conf_high, clusters; a method that could not be used has missing
        numbers and its reason in `problems`.
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
    >>> design = TrialDesign.from_text('[[outcomes]]\\nname = "y"\\nhas_baseline = false')
    >>> rng = np.random.default_rng(5)
    >>> site = np.repeat(np.arange(12), 5)
    >>> people = pd.DataFrame({
    ...     "person": range(60), "site": site, "arm": np.where(site % 2, "intervention", "control"),
    ...     "y": rng.normal(size=12)[site] / 3 + rng.normal(size=60),
    ... })
    >>> compare_methods(people, design).frame["analysis"].tolist()
    ['mixed model', 'site means, unadjusted', 'site means, adjusted', 'site means, adjusted, by people']
    """
    tables = data if isinstance(data, pd.DataFrame) or hasattr(data, "to_pandas") else list(data)
    model = itt(tables, design)
    # pairs belong to the comparison of arms (stage 2), so fixed pair effects are not covariates of stage 1
    alone = design.model_copy(update={"analysis": design.analysis.model_copy(update={"pair_effects": "none"})})
    read, people, outcomes = prepare(tables, alone, denominator=design.analysis.standardise, scale="each-set")
    pairs = pair_labels(read[0], design, people)
    rows: list[dict[str, Any]] = []
    problems: dict[tuple[str, str], str] = {}
    for one, fitted in zip(outcomes, model.frame.to_dict("records"), strict=True):
        name = one.outcome.name
        keep = ("estimate", "std_error", "df", "p_value", "conf_low", "conf_high", "clusters")
        rows.append({"outcome": name, "analysis": MODEL, **{k: fitted[k] for k in keep}})
        if name in model.problems:
            problems[name, MODEL] = model.problems[name]
        for analysis, compute in _analyses(one, people, pairs, plan, draws, seed, model.conf_level):
            try:
                if one.reason:
                    raise InputError(one.reason)
                rows.append({"outcome": name, "analysis": analysis, **compute()})
            except InputError as error:
                problems[name, analysis] = str(error).rstrip(".")
                empty = dict.fromkeys(keep[:-1], math.nan)
                rows.append({"outcome": name, "analysis": analysis, **empty, "clusters": sum(one.sites)})
    notes = [
        "All estimates are divided by the same SD. Site means weigh sites equally (cluster-average effect) unless 'by people' is said "
        "(participant-average effect); the mixed model weighs in between."
    ]
    notes += weighting_note(design)
    if plan is None:
        notes.append("No plan was given, so there is no randomisation test.")
    notes += [f"{outcome}, {analysis}: {reason}." for (outcome, analysis), reason in problems.items()]
    frame = pd.DataFrame(rows).astype({"outcome": "str", "analysis": "str"})
    return MethodComparison(frame=frame, problems=problems, notes=tuple(notes))


Computation = tuple[str, Callable[[], dict[str, Any]]]


def _analyses(
    one: Prepared, people: People, pairs: list[str] | None, plan: Scheme | None, draws: int, seed: int | None, conf_level: float
) -> list[Computation]:
    def values(k: int, *, adjust: bool) -> SiteValues:
        # columns 0 and 1 are the constant and the arm; stage 1 takes the others out
        x = one.matrices[k][:, 2:] if adjust and one.matrices[k].shape[1] > 2 else None
        labels = np.asarray(people.sites, dtype=object)[one.site]
        return site_values(one.responses[k] / one.sd[k], labels, one.arm, covariates=x)

    def pooled(analyse: Callable[[SiteValues], SiteComparison], *, adjust: bool) -> Callable[[], dict[str, Any]]:
        return lambda: _pool([analyse(values(k, adjust=adjust)) for k in range(len(one.responses))], conf_level)

    out: list[Computation] = [
        (UNADJUSTED, pooled(lambda v: two_stage(v, conf_level=conf_level), adjust=False)),
        (ADJUSTED, pooled(lambda v: two_stage(v, conf_level=conf_level), adjust=True)),
        (BY_PEOPLE, pooled(lambda v: two_stage(v, weights="size", conf_level=conf_level), adjust=True)),
    ]
    if pairs is not None:
        of_site = dict(zip(people.sites, pairs, strict=True))
        out.append((PAIRS, pooled(lambda v: paired(v, [of_site[s] for s in v.sites], exact=False, conf_level=conf_level), adjust=True)))
    if plan is not None:

        def randomised() -> dict[str, Any]:
            each = [values(k, adjust=True) for k in range(len(one.responses))]
            mean = replace(each[0], value=np.mean([v.value for v in each], axis=0), arm_left=np.mean([v.arm_left for v in each], axis=0))
            test = randomisation_test(mean, plan, draws=draws, seed=seed, conf_level=conf_level)
            return {
                "estimate": test.estimate, "std_error": math.nan, "df": math.nan, "p_value": test.p_value,
                "conf_low": test.conf_low, "conf_high": test.conf_high, "clusters": test.clusters,
            }  # fmt: skip

        out.append((RANDOMISATION, randomised))
    return out


def _pool(results: Sequence[SiteComparison], conf_level: float) -> dict[str, Any]:
    names = ("estimate", "std_error", "df", "p_value", "conf_low", "conf_high")
    if len(results) == 1:
        return {**{k: getattr(results[0], k) for k in names}, "clusters": results[0].clusters}
    estimate, std_error, df = (np.array([getattr(r, k) for r in results]) for k in ("estimate", "std_error", "df"))
    pooled = pooling.pool_scalar(estimate, std_error**2, df, conf_level=conf_level)
    found = {k: float(getattr(pooled, k)) for k in names if k != "p_value"}
    return {**found, "p_value": float(two_sided_p(pooled.statistic, pooled.df)), "clusters": results[0].clusters}


def pair_labels(table: pd.DataFrame, design: TrialDesign, people: People) -> list[str] | None:
    """Each site's pair, in the order of ``people.sites``; None when the table has no pair column."""
    column = design.columns.pair
    if column is None or column not in table.columns:
        return None
    labels = [cell_text(v) for v in table[column].iloc[people.rows].tolist()]
    found: dict[int, str] = {}
    for site, label in zip(people.site.tolist(), labels, strict=True):
        if found.setdefault(site, label) != label:
            raise InputError(f"site {people.sites[site]!r} is in two pairs, {found[site]!r} and {label!r}. Correct column {column!r}.")
    # a site without a pair is alone, and so left out of the pairs' analysis
    return [found[s] or f"(alone) {people.sites[s]}" for s in range(len(people.sites))]
