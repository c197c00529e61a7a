"""Richer mixed models, handed to statsmodels by name: crossed factors and any number of them, in the same columns, honest about z."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.door import InputError, printable
from trialkit.itt import model_frame, random_part
from trialkit.itt.coefficient_table import coefficient_table, covariance_table
from trialkit.itt.formula import Formula, RandomPart
from trialkit.itt.model_frame import INTERCEPT, ModelFrame, RandomColumns, design_matrix
from trialkit.itt.random_part import RESIDUAL
from trialkit.results import Result

Array = NDArray[np.float64]

# beyond this many rows in one block the covariance of the fixed effects is statsmodels' own
_DENSE = 4000
_Z = "Fitted by statsmodels: z tests take the number of groups for infinite, so p-values are too small with few of them."


@dataclass(frozen=True)
class HandedModel(Result):
    """A mixed model fitted by statsmodels' ``MixedLM``.

    Attributes
    ----------
    frame : DataFrame
        The columns of `MixedModel.frame`: term, estimate, std_error, df (infinite), statistic, p_value, conf_low, conf_high.
    variance_components : DataFrame
        group, term, variance, sd, share (of the average row's variance), groups, boundary; the residual last.
    icc, log_likelihood : float
    cov : DataFrame
        Covariance of the fixed effects at the variances found.
    optimum : statsmodels' result
    n, n_groups, dropped, notes, formula, inference, method, conf_level
    """

    frame: pd.DataFrame
    variance_components: pd.DataFrame = field(repr=False)
    icc: float
    log_likelihood: float
    cov: pd.DataFrame = field(repr=False)
    optimum: Any = field(repr=False)
    n: int
    n_groups: dict[str, int]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]
    formula: str
    method: str
    conf_level: float
    inference: str = "normal"

    @property
    def title(self) -> str:
        """One line above the table."""
        return f"{self.formula}: {self.method.upper()} by statsmodels, z"


def hand_over(
    formula: Formula,
    frame: pd.DataFrame,
    *,
    groups: Sequence[str] | None,
    slopes: Sequence[RandomPart],
    method: str,
    conf_level: float,
    shown: str,
) -> HandedModel:
    """Fit by statsmodels' MixedLM with Powell's search.

    Random intercepts on nested or crossed factors. Slopes are correlated with the intercept on the outermost factor of nested ones, and
    have a variance of their own elsewhere.

    Raises
    ------
    InputError
        Nothing to analyse, or statsmodels finds no optimum.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    model = model_frame.build(formula, frame, groups=groups, slopes=slopes, crossed=True)
    if len(model.y) <= len(model.names) or np.ptp(model.y) == 0:
        raise InputError(f"the model of {printable(model.response)!r} cannot be fitted: nothing varies, or nothing is left over.")
    parts = model.random or _intercepts(model)
    order = sorted(range(len(model.groups)), key=lambda k: len(model.groups[k].labels))
    nested = all(_inside(model.groups[b].codes, model.groups[a].codes) for a, b in pairwise(order))
    block = model.groups[order[0]].codes if nested else np.zeros(len(model.y), dtype=np.intp)
    outer = [r for r in parts if nested and r.factor == order[0]]
    joint = outer[0] if (outer and len(outer[0].names) > 1) or (outer and outer[0].names == (INTERCEPT,)) else None
    rest = [(r, k) for r in parts if r is not joint for k in range(len(r.names))]
    n, p = model.x.shape
    sd = float(model.y.std())
    y = (model.y - model.y.mean()) / sd if INTERCEPT in model.names else model.y / sd
    blocks = [np.flatnonzero(block == b) for b in range(int(block.max()) + 1)]
    spec = None
    if rest:
        labels = [f"{model.groups[r.factor].name} {r.names[k]}" for r, k in rest]
        mats = [[_columns(r.design[rows, k], model.groups[r.factor].codes[rows]) for rows in blocks] for r, k in rest]
        spec = VCSpec(labels, [[[str(j) for j in range(m.shape[1])] for m in of] for of in mats], mats)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = np.concatenate(blocks)  # MixedLM orders its groups; the rows are given that way
        engine = MixedLM(
            y[rows], model.x[rows], groups=block[rows], exog_re=None if joint is None else joint.design[rows], exog_vc=spec,
        )  # fmt: skip
        try:
            done = engine.fit(reml=method == "reml", method="powell", do_cg=True)
        except (np.linalg.LinAlgError, ValueError) as error:
            raise InputError(f"statsmodels could not fit {shown!r}: {error}. Name fewer random parts.") from error
    scale = float(done.scale) * sd**2
    T = np.zeros((0, 0)) if joint is None else np.asarray(done.cov_re, dtype=np.float64) * sd**2
    single = np.asarray(done.vcomp, dtype=np.float64)[: len(rest)] * sd**2
    beta, cov = _fixed_effects(model, blocks, scale, joint, T, rest, single, done, sd)
    if not (np.isfinite(beta).all() and np.isfinite(cov).all() and scale > 0):
        raise InputError(f"statsmodels found no usable optimum for {shown!r}. Name fewer random parts.")
    table, icc = _components(model, joint, T, rest, single, scale)
    log_likelihood = float(done.llf) - (n - p if method == "reml" else n) * math.log(sd)
    notes = [*model.notes(), _Z]
    if not done.converged:
        notes.append("statsmodels says that its search did not converge.")
    notes += _second_opinion(model, parts, nested, method, log_likelihood)
    return HandedModel(
        frame=coefficient_table(model.names, beta, np.sqrt(np.diagonal(cov)), np.full(p, np.inf), conf_level),
        variance_components=table,
        icc=icc,
        log_likelihood=log_likelihood,
        cov=covariance_table(model.names, cov),
        optimum=done,
        n=n,
        n_groups={g.name: len(g.labels) for g in model.groups},
        dropped=model.dropped,
        notes=tuple(notes),
        formula=shown,
        method=method,
        conf_level=conf_level,
    )


def _intercepts(model: ModelFrame) -> tuple[RandomColumns, ...]:
    design, names, _, _ = design_matrix((), True, {}, len(model.y))
    return tuple(RandomColumns(k, design, names) for k in range(len(model.groups)))


def _inside(inner: NDArray[np.intp], outer: NDArray[np.intp]) -> bool:
    first = np.empty(int(inner.max()) + 1, dtype=np.intp)
    first[inner] = outer
    return bool((first[inner] == outer).all())


def _columns(z: Array, codes: NDArray[np.intp]) -> Array:
    found, place = np.unique(codes, return_inverse=True)
    out = np.zeros((len(z), len(found)))
    out[np.arange(len(z)), place] = z
    return out


def _fixed_effects(
    model: ModelFrame,
    blocks: Sequence[NDArray[np.intp]],
    scale: float,
    joint: RandomColumns | None,
    T: Array,
    rest: Sequence[tuple[RandomColumns, int]],
    single: Array,
    done: Any,
    sd: float,
) -> tuple[Array, Array]:
    """Generalised least squares at the variances found; statsmodels' own covariance comes from a joint Hessian and may be missing."""
    p = model.x.shape[1]
    if max(len(rows) for rows in blocks) > _DENSE:
        beta = np.asarray(done.fe_params, dtype=np.float64) * sd
        if model.intercept is not None:
            beta[model.intercept] += model.y.mean()
        return beta, np.asarray(done.cov_params(), dtype=np.float64)[:p, :p] * sd**2
    H, h = np.zeros((p, p)), np.zeros(p)
    for rows in blocks:
        V = scale * np.eye(len(rows))
        if joint is not None:
            z, codes = joint.design[rows], model.groups[joint.factor].codes[rows]
            V += (z @ T @ z.T) * (codes[:, None] == codes)
        for (r, k), variance in zip(rest, single, strict=True):
            z, codes = r.design[rows, k], model.groups[r.factor].codes[rows]
            V += variance * np.outer(z, z) * (codes[:, None] == codes)
        solved = np.linalg.solve(V, np.column_stack([model.x[rows], model.y[rows]]))
        H += model.x[rows].T @ solved[:, :p]
        h += model.x[rows].T @ solved[:, p]
    cov = np.asarray(np.linalg.inv(H))
    return np.asarray(cov @ h), cov


def _components(
    model: ModelFrame, joint: RandomColumns | None, T: Array, rest: Sequence[tuple[RandomColumns, int]], single: Array, scale: float
) -> tuple[pd.DataFrame, float]:
    rows = [] if joint is None else [(joint, k, float(T[k, k])) for k in range(len(joint.names))]
    rows += [(r, k, float(v)) for (r, k), v in zip(rest, single, strict=True)]
    between = sum(v * float(np.mean(r.design[:, k] ** 2)) for r, k, v in rows)
    if joint is not None:
        off = [(a, b) for a in range(len(joint.names)) for b in range(a)]
        between += sum(2 * float(T[a, b] * np.mean(joint.design[:, a] * joint.design[:, b])) for a, b in off)
    variance = np.array([*(v for _, _, v in rows), scale])
    spread = np.array([*(v * float(np.mean(r.design[:, k] ** 2)) for r, k, v in rows), scale])
    table = pd.DataFrame(
        {
            "group": pd.Series([*(model.groups[r.factor].name for r, _, _ in rows), RESIDUAL], dtype="str"),
            "term": pd.Series([*(r.names[k] for r, k, _ in rows), ""], dtype="str"),
            "variance": variance,
            "sd": np.sqrt(variance),
            "share": spread / (between + scale),
            "groups": [*(len(model.groups[r.factor].labels) for r, _, _ in rows), len(model.y)],
            "boundary": [*(v <= 1e-6 * scale for _, _, v in rows), False],
        }
    )
    return table, float(between / (between + scale))


def _second_opinion(model: ModelFrame, parts: Sequence[RandomColumns], nested: bool, method: str, theirs: float) -> list[str]:
    """Where trialkit's own kernel fits the model too, how far statsmodels stayed below its likelihood."""
    if (
        not nested
        or not all(_inside(b.codes, a.codes) for a, b in pairwise(model.groups))
        or len({r.factor for r in parts}) < len(model.groups)
    ):
        return []
    own = random_part.fit(model, method)
    if own.status != "ok":
        return []
    below = float(own.log_likelihood) - theirs
    said = f"stopped {below:.2g} below" if below > 1e-4 else "reached"
    return [f"trialkit fits this model itself, with small-sample inference; statsmodels {said} the log-likelihood found there."]
