"""One outcome moved along given directions, many times over: the analysis of `itt` at every step of a grid.

Under a shift of the missing the design matrices stay as they are and the outcome is ``y + sum_k step_k direction_k``: the tables are read
once, and all steps of one table are responses to one design (`trialkit._kernels.reml_many`). Every row is what `itt` gives for the table so
moved, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from trialkit._kernels import pooling
from trialkit._kernels.reml_many import fit_many
from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.itt.coefficient_table import EFFECT
from trialkit.itt.effect_sizes import standard_deviation
from trialkit.itt.outcome_models import AnalysisPlan, fit_prepared, plan_of, pooled_row
from trialkit.itt.prepared import Prepared, prepare

Array = NDArray[np.float64]


def itt_shifts(data: Iterable[pd.DataFrame], design: TrialDesign, outcome: str, *, directions: ArrayLike, steps: ArrayLike) -> pd.DataFrame:
    """The intention-to-treat effect on one outcome at every step of a grid of shifts.

    Parameters
    ----------
    data : iterable of m DataFrames
        Completed tables, as for `itt`.
    design : TrialDesign
    outcome : str
        Its name.
    directions : array (K, n) or (K, m, n)
        What one unit of each of K steps adds to the outcome, row by row of the table (0 where the value was observed); alike in all
        tables, or one a table.
    steps : array (R, K)

    Returns
    -------
    DataFrame
        R rows: estimate, std_error, df, p_value, conf_low, conf_high, pooled and standardised as by ``itt(..., sd="each-set")``.

    Raises
    ------
    InputError
        As `itt`; the outcome is not in the design or cannot be analysed; fewer than two tables; shapes that do not fit.

    Examples
    --------
    >>> design = TrialDesign(outcomes=[{"name": "y", "has_baseline": False}])
    >>> site = np.repeat(np.arange(8), 3)
    >>> arm = np.where(site % 2, "intervention", "control")
    >>> rng = np.random.default_rng(1)
    >>> y = rng.normal(size=24)
    >>> sets = [pd.DataFrame({"person": range(24), "site": site, "arm": arm, "y": y + 0.1 * rng.normal(size=24)}) for _ in range(3)]
    >>> found = itt_shifts(sets, design, "y", directions=[arm == "intervention"], steps=[[0.0], [1.0]])
    >>> bool(found["estimate"][1] > found["estimate"][0])
    True
    """
    plan = plan_of(design, None, None)
    asked = [o for o in design.outcomes if o.name == outcome]
    if not asked:
        raise InputError(f"{outcome!r} is not an outcome of the design.")
    if not asked[0].linear:
        raise InputError(
            f"{outcome!r} ({asked[0].type}) is analysed by the {asked[0].chosen_model} model, and a shifted {asked[0].type} outcome is "
            'none any more. Declare measure = "standardised-difference" for a grid in SDs, or see worst_best.'
        )
    alone = design.model_copy(update={"outcomes": tuple(asked)})
    tables, people, (one,) = prepare(data, alone, denominator=plan.denominator, scale="each-set")
    m = len(tables)
    if m < 2:
        raise InputError("one table: shifts of the missing need imputed tables, at least 2.")
    reason = one.reason or fit_prepared(one, plan).reason
    if reason:
        raise InputError(f"{outcome!r} cannot be analysed: {reason}.")
    d, s = np.asarray(directions, dtype=np.float64), np.asarray(steps, dtype=np.float64)
    if d.ndim == 2:
        d = np.broadcast_to(d[:, None], (d.shape[0], m, d.shape[1]))
    if d.ndim != 3 or d.shape[1:] != (m, len(tables[0])) or s.ndim != 2 or s.shape[1] != d.shape[0]:
        raise InputError(f"directions must be (K, n) or (K, m, n) and steps (R, K), with n = {len(tables[0])} rows and m = {m} tables.")
    d = d[:, :, people.rows[one.rows]]
    if design.analysis.structured:
        return _one_by_one(one, plan, d, s)
    estimate, std_error, df = (np.empty((len(s), m)) for _ in range(3))
    contrast: Array
    for k, (X, y) in enumerate(zip(one.matrices, one.responses, strict=True)):
        Y = np.asarray(y + s @ d[:, k])  # (R, n)
        contrast = np.eye(X.shape[1])[1:2]
        fits = fit_many(X, Y.T, one.groups, contrasts=contrast)
        found = fits.kenward_roger if plan.inference == "kenward-roger" else fits.satterthwaite
        if np.isnan(found.std_error).any():
            status = str(fits.status[np.isnan(found.std_error[:, 0])][0])
            raise InputError(f"{outcome!r} cannot be analysed at every shift: {status.replace('_', ' ')}. Give smaller shifts.")
        sd = _sds(one, Y, k, plan.denominator)
        estimate[:, k], std_error[:, k], df[:, k] = found.estimate[:, 0] / sd, found.std_error[:, 0] / sd, found.df[:, 0]
    pooled = pooling.pool_scalar(estimate, std_error**2, df, conf_level=plan.conf_level)
    return pd.DataFrame({name: getattr(pooled, name) for name in EFFECT})


def _one_by_one(one: Prepared, plan: AnalysisPlan, d: Array, s: Array) -> pd.DataFrame:
    """Models with more than random intercepts have no batch: each step is fitted by itself."""
    rows = []
    for step in s:
        moved = [np.asarray(y + step @ d[:, k]) for k, y in enumerate(one.responses)]
        sd = np.array([_sds(one, y[None], k, plan.denominator)[0] for k, y in enumerate(moved)])
        done = fit_prepared(replace(one, responses=moved, sd=sd), plan)
        if done.reason:
            raise InputError(f"{one.outcome.name!r} cannot be analysed at every shift: {done.reason}. Give smaller shifts.")
        rows.append({name: pooled_row(done, plan)[name] for name in EFFECT})
    return pd.DataFrame(rows)


def _sds(one: Prepared, Y: Array, k: int, denominator: str) -> Array:
    """What each step's effect is divided by; a baseline's SD does not move with the outcome."""
    if denominator in ("none", "baseline"):
        return np.full(len(Y), one.sd[k])
    if denominator == "total":
        return np.asarray(Y.std(axis=1, ddof=1))
    return np.array([standard_deviation(y, one.arm, denominator=denominator) for y in Y])
