"""Pairs of sites, handled each way that can be defended, side by side.

Matching belongs to the design, but a lost site breaks its pair, and dropping what is left of it does not in general estimate the effect in
everybody (Bai, Hsieh, Liu & Tabord-Meehan 2024, J. Appl. Econometrics). So the effect is given with pairs random, fixed and broken (all
sites kept, the matching variables as covariates), with broken pairs dropped, and by the randomisation test that flips the original pairs
with the losses as they are, which is valid under the null hypothesis that neither outcome nor loss depends on the arm. Pairs are never made
anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.design import Covariate, TrialDesign
from trialkit.door import InputError, few, require_columns
from trialkit.itt.analysis import itt
from trialkit.itt.beside import PAIRS, RANDOMISATION, pair_labels
from trialkit.itt.coefficient_table import EFFECT
from trialkit.itt.comparison import compare_methods
from trialkit.itt.model_frame import read_column
from trialkit.itt.people import WHERE, read_people
from trialkit.itt.prepared import outcomes_asked
from trialkit.results import Result

RANDOM, FIXED, BROKEN = "mixed model, pairs random", "mixed model, pairs fixed", "mixed model, pairs broken"
MATCHED, DROPPED, FLIPPED = f"{BROKEN}, matching variables", "pair differences, broken pairs dropped", "randomisation test, original pairs"


@dataclass(frozen=True)
class PairFlips:
    """The scheme in which each pair's arms are decided by its own coin, and a site alone by a coin too.

    Attributes
    ----------
    sites : tuple of str
    pair : array (n_sites,)
        Codes.
    arm : array (n_sites,)
        The arms that were drawn, 1 = intervention; of a pair, one each.
    """

    sites: tuple[str, ...]
    pair: NDArray[np.intp]
    arm: NDArray[Any]

    @property
    def n_assignments(self) -> int:
        """Two to the number of pairs."""
        return int(2 ** len(np.unique(self.pair)))

    def assignments(self, limit: int = 100_000) -> NDArray[Any]:
        """All of them, (n_assignments, n_sites)."""
        if self.n_assignments > limit:
            raise InputError(f"{self.n_assignments} assignments are more than the limit of {limit}. Sample them.")
        pairs = len(np.unique(self.pair))
        return self._flipped((np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1)

    def sample(self, n: int, *, seed: int) -> NDArray[Any]:
        """`n` draws."""
        return self._flipped(np.random.default_rng(seed).integers(0, 2, size=(n, len(np.unique(self.pair)))))

    def _flipped(self, coins: NDArray[Any]) -> NDArray[Any]:
        place = np.unique(self.pair, return_inverse=True)[1]
        return np.asarray(np.abs(self.arm.astype(np.int8) - coins.astype(np.int8)[:, place]))


@dataclass(frozen=True)
class PairEffects(Result):
    """Effects by how pairs are handled.

    Attributes
    ----------
    frame : DataFrame
        outcome, analysis, estimate, std_error, df, p_value, conf_low, conf_high, clusters, whole_pairs, broken_pairs (of the sites with
        people asked for the outcome); over the SD the design names. What could not be used has missing numbers and a reason in `problems`.
    problems : mapping of (outcome, analysis) to reason
    notes : tuple of str
    """

    frame: pd.DataFrame
    problems: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    title: str = "The effect by how pairs are handled"


def pair_effects(
    data: pd.DataFrame | Iterable[pd.DataFrame],
    design: TrialDesign,
    *,
    matching: Sequence[str] = (),
    outcomes: Sequence[str] | None = None,
    draws: int = 10_000,
    seed: int | None = None,
) -> PairEffects:
    """Every outcome with pairs random, fixed, broken, with broken pairs dropped, and by flipping the original pairs.

    Parameters
    ----------
    data, design
        As for `itt`; the design names the pair column. A site whose partner was lost keeps its pair's label.
    matching : sequence of str
        Columns by which sites were matched; with them, one more row: all sites, pairs broken, these as covariates.
    outcomes : sequence of str, optional
        By default all.
    draws, seed : int
        For the randomisation test when there are more than 100,000 assignments (17 pairs or more).

    Returns
    -------
    PairEffects

    Raises
    ------
    InputError
        As `itt`; there is no pair column; a matching column is absent; a sampled test has no seed.

    Examples
    --------
    >>> design = TrialDesign.from_text('[columns]\\npair = "pair"\\n[[outcomes]]\\nname = "y"\\nhas_baseline = false')
    >>> rng = np.random.default_rng(5)
    >>> site = np.repeat(np.arange(12), 5)
    >>> people = pd.DataFrame({
    ...     "person": range(60), "site": site, "pair": site // 2, "arm": np.where(site % 2, "intervention", "control"),
    ...     "y": rng.normal(size=12)[site] / 3 + rng.normal(size=60),
    ... })
    >>> table = pair_effects(people[people["site"] != 3], design).frame
    >>> table[["analysis", "clusters", "whole_pairs", "broken_pairs"]].to_dict("records")[3]
    {'analysis': 'pair differences, broken pairs dropped', 'clusters': 10, 'whole_pairs': 5, 'broken_pairs': 1}
    """
    if design.columns.pair is None:
        raise InputError('the design names no pair column ([columns] pair = "pair"), so there are no pairs to handle.')
    tables = data if isinstance(data, pd.DataFrame) or hasattr(data, "to_pandas") else list(data)
    first = tables if isinstance(tables, pd.DataFrame) else (tables[0] if isinstance(tables, list) and tables else None)
    if not isinstance(first, pd.DataFrame):
        raise InputError("pair_effects needs a table, or an iterable of imputed tables that is not empty.")
    require_columns(first, [design.columns.pair], where=WHERE, why="as the pair ([columns] pair)")
    wanted = outcomes_asked(design, outcomes)
    design = design.model_copy(update={"outcomes": tuple(o for o in design.outcomes if o.name in wanted)})

    broken = _handled(design, "none")
    people = read_people(first, broken)
    labels = pair_labels(first, design, people) or []
    arm_of = np.zeros(len(people.sites))
    arm_of[people.site] = people.arm
    scheme = PairFlips(people.sites, np.unique(labels, return_inverse=True)[1].astype(np.intp), arm_of)

    models = {RANDOM: _handled(design, "random"), FIXED: _handled(design, "fixed"), BROKEN: broken}
    if matching:
        require_columns(first, list(matching), where=WHERE, why="as a matching variable")
        known = {v.name for v in design.covariates}
        more = tuple(_covariate(first, name) for name in matching if name not in known)
        models[MATCHED] = broken.model_copy(update={"covariates": (*broken.covariates, *more)})
    done = {analysis: itt(tables, declared) for analysis, declared in models.items()}
    beside = compare_methods(tables, broken, plan=scheme, draws=draws, seed=seed)
    found = {(analysis, r["outcome"]): r for analysis, result in done.items() for r in result.frame.to_dict("records")}
    why = {(analysis, name): reason for analysis, result in done.items() for name, reason in result.problems.items()}
    for r in beside.frame.to_dict("records"):
        analysis = {PAIRS: DROPPED, RANDOMISATION: FLIPPED}.get(r["analysis"])
        if analysis is not None:
            found[analysis, r["outcome"]] = r
            if (r["outcome"], r["analysis"]) in beside.problems:
                why[analysis, r["outcome"]] = beside.problems[r["outcome"], r["analysis"]]
    rows: list[dict[str, Any]] = []
    problems: dict[tuple[str, str], str] = {}
    for outcome in design.outcomes:
        name = outcome.name
        sizes = np.bincount(scheme.pair[np.unique(people.site[people.asked(outcome.rater)])])
        counts = {"whole_pairs": int((sizes == 2).sum()), "broken_pairs": int((sizes == 1).sum())}
        for analysis in (*done, DROPPED, FLIPPED):
            r = found[analysis, name]
            rows.append({"outcome": name, "analysis": analysis, **{k: r[k] for k in EFFECT}, "clusters": int(r["clusters"]), **counts})
            if (analysis, name) in why:
                problems[name, analysis] = why[analysis, name]
    alone = sorted({labels[k] for k in range(len(labels)) if labels.count(labels[k]) == 1})
    notes = [
        "Dropping broken pairs need not estimate the effect in everybody; flipping the original pairs tests the null hypothesis that "
        "neither the outcome nor the losses depend on the arm.",
        f"Pairs of which one site is left: {few(alone)}." if alone else "No pair is broken.",
    ]
    notes += [f"{outcome}, {analysis}: {reason}." for (outcome, analysis), reason in problems.items()]
    return PairEffects(frame=pd.DataFrame(rows).astype({"outcome": "str", "analysis": "str"}), problems=problems, notes=tuple(notes))


def _handled(design: TrialDesign, how: str) -> TrialDesign:
    return design.model_copy(update={"analysis": design.analysis.model_copy(update={"pair_effects": how})})


def _covariate(table: pd.DataFrame, name: str) -> Covariate:
    return Covariate(name=name, type="continuous" if read_column(table, name).levels is None else "categorical")
