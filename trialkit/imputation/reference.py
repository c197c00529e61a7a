"""Reference-based imputation: after leaving, people of the intervention arm fare as their counterparts in the reference arm.

Made from sets imputed under missing at random: what an assumption changes is the mean of the missing visits given those seen, and that
difference follows from the parameters of the repeated measures, drawn anew for every completed set (`trialkit._kernels.repeated`). A
site's effect is carried as it is. Nothing is imputed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit._kernels import repeated
from trialkit.design import Outcome, TrialDesign
from trialkit.door import InputError, cell_text, require_columns, unknown_word
from trialkit.imputation import variables as variables_
from trialkit.imputation.imputations import Imputations
from trialkit.imputation.variables import WHERE, Variable
from trialkit.results import Provenance

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

STRATEGIES: dict[str, repeated.Strategy] = {
    "jump-to-reference": "jump-to-reference",
    "copy-increments": "copy-increments",
    "copy-reference": "copy-reference",
    "last-mean-carried-forward": "last-mean-carried-forward",
    "J2R": "jump-to-reference",
    "CIR": "copy-increments",
    "CR": "copy-reference",
    "LMCF": "last-mean-carried-forward",
}


def reference_based(
    imputations: Imputations,
    design: TrialDesign,
    outcome: str,
    *,
    strategy: str,
    seed: int,
    visits: Sequence[str] | None = None,
    iterations: int = 200,
) -> Imputations:
    """Completed sets in which those of the intervention arm who left fare as the reference arm says.

    Parameters
    ----------
    imputations : Imputations
        Made under missing at random, with every visit imputed.
    design : TrialDesign
    outcome : str
        One of its outcomes, continuous.
    strategy : str
        ``"jump-to-reference"`` (``"J2R"``): from the first missed visit the mean is the reference arm's. ``"copy-increments"``
        (``"CIR"``): from the last visit seen the mean moves in parallel to the reference arm's. ``"copy-reference"`` (``"CR"``): the
        mean was the reference arm's all along. ``"last-mean-carried-forward"`` (``"LMCF"``): the mean of the person's own arm at the
        last visit seen, held.
    seed : int
        For the draws of the parameters; set k's depend on it and on k alone.
    visits : sequence of str, optional
        The columns of the repeated measure in the order of time, the last being the outcome. By default baseline (if the outcome has
        one) and outcome. A first visit that is the outcome's baseline has one mean in both arms.
    iterations : int, default 200
        Gibbs steps for the parameters of each completed set.

    Returns
    -------
    Imputations
        Changed are the visits that people of the intervention arm missed after the last they were seen at; visits missed in between and the
        reference arm stay as missing at random left them.

    Raises
    ------
    InputError
        An unknown strategy; the outcome is not continuous; a visit was not imputed or is not numeric; nothing was missed in the
        intervention arm.

    Notes
    -----
    Carpenter, Roger & Kenward (2013). With a baseline and one follow-up, jump to reference, copy increments and copy reference are one:
    they differ from the second follow-up on. Under these assumptions Rubin's variance is about that under missing at random
    ("information-anchored", Cro, Carpenter & Kenward 2019), more than the estimate would vary in repeated trials.

    Examples
    --------
    ``reference_based(sets, design, "mood", strategy="J2R", seed=1, visits=["mood_0", "mood_3", "mood"])``
    """
    if strategy not in STRATEGIES:
        raise InputError(unknown_word(str(strategy), tuple(STRATEGIES), what="strategy"))
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed = {seed!r}: an integer of at least 0 is needed, so that the sets can be made again.")
    if isinstance(iterations, bool) or not isinstance(iterations, int | np.integer) or iterations < 1:
        raise InputError(f"iterations = {iterations!r}: a whole number of at least 1 is needed.")
    found = outcome_of(design, outcome)
    columns = _visits(imputations, found, visits)
    always = 1 if found.has_baseline and columns[0] == found.baseline else 0
    rows, site, treated = _rows(imputations, design, found)
    base = imputations.base.iloc[rows]
    seen = np.column_stack([base[name].notna().to_numpy() for name in columns])
    T = len(columns)
    # a visit counts as left if no later one was seen
    left = ~np.logical_or.accumulate(seen[:, ::-1], axis=1)[:, ::-1] & (np.arange(T) >= always)
    moved = left & treated[:, None]
    if not moved.any():
        raise InputError(
            f"nobody in the arm {design.arms.intervention!r} left before {outcome!r} was measured, so the assumption changes nothing."
        )
    try:
        change = _changes(imputations, design, found, columns, rows, site, treated, seen, moved, strategy, int(seed), iterations, always)
    except ValueError as error:
        raise InputError(f"{outcome!r} has no model of its repeated measures: {error}. Give fewer visits or covariates.") from None
    cells = dict(imputations.cells)
    for t, name in enumerate(columns):
        if not moved[:, t].any():
            continue
        old = cells[name]
        values = old.values.copy()
        values[:, np.searchsorted(old.rows, rows[moved[:, t]])] += change[:, moved[:, t], t]
        cells[name] = replace(old, values=values)
    made = imputations.provenance
    said = {"outcome": outcome, "strategy": STRATEGIES[strategy], "visits": columns, "seed": int(seed), "iterations": int(iterations)}
    settings = {**made.settings, "reference_based": said}
    return replace(imputations, cells=cells, provenance=Provenance(made.seed, made.inputs, settings, made.versions))


def outcome_of(design: TrialDesign, outcome: str) -> Outcome:
    """The design's outcome of that name."""
    found = next((o for o in design.outcomes if o.name == outcome), None)
    if found is None:
        raise InputError(unknown_word(str(outcome), tuple(o.name for o in design.outcomes), what="outcome"))
    return found


def _visits(imputations: Imputations, outcome: Outcome, visits: Sequence[str] | None) -> list[str]:
    if outcome.type != "continuous":
        raise InputError(f"{outcome.name!r} is {outcome.type}: reference-based means are those of a continuous outcome.")
    default = [name for name in (outcome.baseline, outcome.name) if name is not None and (name == outcome.name or outcome.has_baseline)]
    columns = [str(v) for v in visits] if visits is not None else default
    if len(set(columns)) != len(columns) or not columns or columns[-1] != outcome.name:
        raise InputError(f"visits = {columns}: name each visit once, in the order of time, the last being {outcome.name!r}.")
    require_columns(imputations.base, columns, where=WHERE, why="as a visit")
    for name in columns:
        if not pd.api.types.is_numeric_dtype(imputations.base[name].dtype) or (
            name in imputations.cells and imputations.cells[name].labels
        ):
            raise InputError(f"the visit {name!r} is a category: reference-based means are those of numbers.")
    return columns


def _rows(imputations: Imputations, design: TrialDesign, outcome: Outcome) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """The people asked, in the order of their sites: rows of the table, codes of sites, who is in the intervention arm."""
    c, base = design.columns, imputations.base
    require_columns(base, [c.site, c.arm, *([c.rater] if c.rater else [])], where=WHERE, why="by the design")
    site = np.array([cell_text(v) for v in base[c.site].tolist()])
    treated = np.array([cell_text(v) == design.arms.intervention for v in base[c.arm].tolist()])
    asked = np.ones(len(base), dtype=bool)
    if c.rater is not None and outcome.rater is not None:
        asked = np.array([cell_text(v) == outcome.rater for v in base[c.rater].tolist()])
    rows = np.flatnonzero(asked)
    if c.person in base.columns:  # so that the order of the table changes no bit
        person = np.array([cell_text(v) for v in base[c.person].tolist()])
        rows = rows[np.lexsort((person[rows], site[rows]))]
    else:
        rows = rows[np.argsort(site[rows], kind="stable")]
    return rows, np.unique(site[rows], return_inverse=True)[1].astype(np.intp), treated[rows]


def _changes(
    imputations: Imputations,
    design: TrialDesign,
    outcome: Outcome,
    columns: list[str],
    rows: Ints,
    site: Ints,
    treated: NDArray[np.bool_],
    seen: NDArray[np.bool_],
    moved: NDArray[np.bool_],
    strategy: str,
    seed: int,
    iterations: int,
    always: int,
) -> Array:
    """(m, n, T) what is added to each visit."""
    m, n, T = imputations.m, len(rows), len(columns)
    Y, parts = np.empty((m, n, T)), []
    for k in range(m):
        frame = imputations[k].iloc[rows].reset_index(drop=True)
        Y[k] = np.column_stack([frame[name].to_numpy(dtype=float, na_value=np.nan) for name in columns])
        parts.append([variables_.read(frame, v, site, whom="") for v in _covariates(design)])
    if not np.isfinite(Y).all():
        gone = [name for t, name in enumerate(columns) if not np.isfinite(Y[:, :, t]).all()]
        raise InputError(f"the visit {gone[0]!r} still misses values after imputation. Name it in the design, so that it is imputed.")
    # a category nobody has in some set would change the width from set to set
    usable = [j for j in range(len(parts[0])) if len({p[j].width for p in parts}) == 1 and not any(p[j].missing.any() for p in parts)]
    X = np.stack([np.column_stack([np.ones(n), treated, *(p[j].coded() for j in usable)]) for p in parts])
    kept = _independent(X)
    X = X[:, :, kept]
    free = np.ones((X.shape[2], T), dtype=bool)
    free[1, :always] = False
    generators = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(k,))) for k in range(m)]
    drawn = repeated.draw(Y, X, site, free, generators, iterations=iterations)
    reference = X.copy()
    reference[:, :, 1] = 0.0
    out = np.zeros((m, n, T))
    patterns, of = np.unique(seen, axis=0, return_inverse=True)
    for code, pattern in enumerate(patterns):
        at = np.flatnonzero((of.ravel() == code) & moved.any(axis=1))
        if len(at):
            means = (X[:, at] @ drawn.coefficients, reference[:, at] @ drawn.coefficients)
            out[:, at] = repeated.shift(STRATEGIES[strategy], *means, drawn.within, pattern, always=always)
    return np.where(moved, out, 0.0)


def _covariates(design: TrialDesign) -> list[Variable]:
    found = []
    for v in design.covariates:
        kind: variables_.Type = "nominal" if v.type == "categorical" else v.type
        found.append(Variable(v.name, kind, "covariate", levels=v.levels, site_level=False))
    return found


def _independent(X: Array) -> list[int]:
    """Columns that are not combinations of earlier ones, in any set; constant and arm come first."""
    kept: list[int] = []
    for j in range(X.shape[2]):
        trial = X[:, :, [*kept, j]]
        scaled = trial / np.maximum(np.linalg.norm(trial, axis=1, keepdims=True), 1e-300)
        if np.linalg.svd(scaled, compute_uv=False)[:, -1].min() > 1e-7:
            kept.append(j)
    if kept[:2] != [0, 1]:
        raise ValueError("both arms are needed")
    return kept
