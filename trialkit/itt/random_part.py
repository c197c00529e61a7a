"""The random part of a fitted mixed model in the reader's terms: variances, what lies between groups, predictions, marginal covariance.

Two kernels stand behind it: random intercepts on one or two nested factors (`reml`), and everything richer (`structured_fit`): slopes,
three factors, a residual variance that differs between strata of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit._kernels import reml, small_sample
from trialkit._kernels.structured import RandomTerm
from trialkit._kernels.structured_fit import StructuredFit, fit_structured, random_effects_structured
from trialkit._kernels.structured_profile import ProfiledParameter
from trialkit.itt.model_frame import INTERCEPT, ModelFrame

Array = NDArray[np.float64]
RESIDUAL = "Residual"


def fit(model: ModelFrame, method: str) -> Any:
    """The kernel's fit of a model frame."""
    codes = [g.codes for g in model.groups]
    if not model.random:
        return reml.fit(model.x, model.y, codes, method=method, weights=model.weights)  # type: ignore[arg-type]
    terms = [RandomTerm(r.factor, r.design) for r in model.random]
    strata = None if model.strata is None else model.strata.codes
    return fit_structured(model.x, model.y, codes, terms, strata=strata, weights=model.weights, method=method)  # type: ignore[arg-type]


# --- variances ----------------------------------------------------------------------------------------------


def components(model: ModelFrame, fitted: Any) -> pd.DataFrame:
    """One row a variance: group, variance, sd, share of the total, groups, boundary; with slopes or strata also term and correlation."""
    if not isinstance(fitted, StructuredFit):
        variances = np.append(np.where(fitted.identified, fitted.variances, np.nan), fitted.sigma2)
        zero = [*(bool(b and known) for b, known in zip(fitted.boundary, fitted.identified, strict=True)), False]
        names = [g.name for g in model.groups]
        return _table([*names, RESIDUAL], variances, variances.sum(), [*(len(g.labels) for g in model.groups), len(model.y)], zero)
    total = float(averages(model, fitted).sum())
    rows: list[tuple[str, str, float, float, float, int, bool]] = []
    for part, T, lost in zip(model.random, fitted.covariances, fitted.boundary, strict=True):
        grouping = model.groups[part.factor]
        for k, name in enumerate(part.names):
            spread = float(T[k, k] * np.mean(part.design[:, k] ** 2))
            both = T[0, 0] * T[k, k]
            correlation = float(T[0, k] / np.sqrt(both)) if k and both > 0 else np.nan
            rows.append((grouping.name, name, float(T[k, k]), spread, correlation, len(grouping.labels), bool(lost)))
    strata = model.strata
    for k, value in enumerate(fitted.residuals.tolist()):
        here = np.ones(len(model.y), dtype=bool) if strata is None else strata.codes == k
        label = "" if strata is None else f"{strata.name} {strata.labels[k]}"
        rows.append((RESIDUAL, label, value, value * float(here.mean()), np.nan, int(here.sum()), False))
    table = _table(
        [r[0] for r in rows], np.array([r[2] for r in rows]), 1.0, [r[5] for r in rows], [r[6] for r in rows],
    )  # fmt: skip
    table["share"] = np.array([r[3] for r in rows]) / total
    if any(len(part.names) > 1 or part.names != (INTERCEPT,) for part in model.random) or strata is not None:
        table.insert(1, "term", pd.Series([r[1] for r in rows], dtype="str"))
        table["correlation"] = [r[4] for r in rows]
    return table


def _table(group: list[str], variances: Array, total: float, groups: list[int], zero: list[bool]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "group": pd.Series(group, dtype="str"),
            "variance": variances,
            "sd": np.sqrt(variances),
            "share": variances / total,
            "groups": groups,
            "boundary": zero,
        }
    )


def averages(model: ModelFrame, fitted: Any) -> Array:
    """Variance each grouping factor (outermost first) and the residual give the average row, (factors + 1,)."""
    if not isinstance(fitted, StructuredFit):
        return np.append(np.where(fitted.identified, fitted.variances, np.nan), fitted.sigma2)
    return np.asarray(_averaging(model, fitted) @ fitted.v * fitted.unit)


def averages_covariance(model: ModelFrame, fitted: Any) -> Array:
    """Inverse of the expected information about `averages`."""
    W = np.asarray(small_sample.variance_covariance(fitted))
    if not isinstance(fitted, StructuredFit):
        return W
    A = _averaging(model, fitted)
    return np.asarray(A @ W @ A.T)


def _averaging(model: ModelFrame, fitted: StructuredFit) -> Array:
    """(factors + 1, c): from the kernel's variance parameters to averages over the rows."""
    structure = fitted.blocks.structure
    A = np.zeros((len(model.groups) + 1, structure.count))
    for i, (t, a, b) in enumerate(structure.pairs):
        z = model.random[t].design @ fitted.blocks.turns[t]
        A[model.random[t].factor, i] = (1 if a == b else 2) * float(np.mean(z[:, a] * z[:, b]))
    for k in range(structure.strata):
        A[-1, len(structure.pairs) + k] = 1.0 if model.strata is None else float(np.mean(model.strata.codes == k))
    return A


def parameters(model: ModelFrame, fitted: Any) -> int:
    """How many variance parameters were estimated."""
    return fitted.blocks.structure.count if isinstance(fitted, StructuredFit) else len(model.groups) + 1


def parameter_names(model: ModelFrame, parameters: Sequence[ProfiledParameter]) -> list[str]:
    """What the profiled parameters of a structured model are called."""
    out = []
    for p in parameters:
        if p.term is None:
            strata = model.strata
            out.append(f"sd({RESIDUAL})" if strata is None else f"sd({RESIDUAL}, {strata.name} {strata.labels[p.a]})")
            continue
        part = model.random[p.term]
        group = model.groups[part.factor].name
        if p.a != p.b:
            out.append(f"cor({group}, {part.names[p.a]}, {part.names[p.b]})")
        else:
            out.append(f"sd({group})" if part.names[p.a] == INTERCEPT else f"sd({group}, {part.names[p.a]})")
    return out


def at_zero(model: ModelFrame, fitted: Any) -> list[str]:
    """What lies on the boundary, in words."""
    if not isinstance(fitted, StructuredFit):
        return [f"The variance of {g.name} is estimated at zero" for g, zero in zip(model.groups, fitted.boundary, strict=True) if zero]
    out = []
    for part, T, lost in zip(model.random, fitted.covariances, fitted.boundary, strict=True):
        name = model.groups[part.factor].name
        if lost and len(part.names) == 1:
            what = "" if part.names == (INTERCEPT,) else f"{part.names[0]} between "
            out.append(f"The variance of {what}{name} is estimated at zero")
        elif lost:
            flat = bool(np.all(np.diagonal(T) == 0))
            how = "every variance at zero" if flat else "a variance at zero or a correlation of one"
            out.append(f"The covariance of {' and '.join(part.names)} between {name} has {how}")
    return out


# --- predictions --------------------------------------------------------------------------------------------


def effects(model: ModelFrame, fitted: Any, factor: int) -> pd.DataFrame:
    """Predicted effects of the groups of one factor: level, (term,) estimate, std_error, n."""
    grouping = model.groups[factor]
    counts = np.bincount(grouping.codes, minlength=len(grouping.labels))
    if not isinstance(fitted, StructuredFit):
        codes, values, variances = reml.random_effects(fitted)[factor]
        return _effects(grouping.labels, codes, values, variances, counts)
    parts = []
    for part, (value, variance) in zip(model.random, random_effects_structured(fitted), strict=True):
        if part.factor == factor:
            for k, name in enumerate(part.names):
                table = _effects(grouping.labels, np.arange(len(value)), value[:, k], variance[:, k, k], counts)
                table.insert(1, "term", pd.Series([name] * len(table), dtype="str"))
                parts.append(table)
    out = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    return out.drop(columns="term") if out["term"].eq(INTERCEPT).all() else out


def effect_variances(model: ModelFrame, fitted: Any, factor: int) -> Array:
    """Variance of each row of `effects`, before any data."""
    J = len(model.groups[factor].labels)
    if not isinstance(fitted, StructuredFit):
        return np.full(J, float(fitted.variances[factor]))
    kept = [np.diagonal(T) for part, T in zip(model.random, fitted.covariances, strict=True) if part.factor == factor]
    return np.repeat(np.concatenate(kept), J)


def _effects(labels: tuple[str, ...], codes: Any, values: Array, variances: Array, counts: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "level": pd.Series([labels[c] for c in codes], dtype="str"),
            "estimate": values,
            "std_error": np.sqrt(np.maximum(variances, 0.0)),
            "n": counts[codes],
        }
    )


def predicted(model: ModelFrame, fitted: Any) -> Array:
    """The random part's contribution to every row, (n,)."""
    total = np.zeros(len(model.y))
    if not isinstance(fitted, StructuredFit):
        for grouping, (codes, effect, _) in zip(model.groups, reml.random_effects(fitted), strict=True):
            by_code = np.zeros(len(grouping.labels))
            by_code[codes] = effect
            total += by_code[grouping.codes]
        return total
    for part, (value, _) in zip(model.random, random_effects_structured(fitted), strict=True):
        total += (part.design * value[model.groups[part.factor].codes]).sum(axis=1)
    return total


def residual_variances(model: ModelFrame, fitted: Any) -> Array:
    """Residual variance of every row, (n,)."""
    n = len(model.y)
    weights = np.ones(n) if model.weights is None else model.weights
    if not isinstance(fitted, StructuredFit):
        return np.asarray(fitted.sigma2 / weights)
    return np.asarray((fitted.residuals[0] if model.strata is None else fitted.residuals[model.strata.codes]) / weights)


def covariance(model: ModelFrame, fitted: Any, rows: NDArray[np.intp]) -> Array:
    """Marginal covariance matrix of some rows of the outcome."""
    V = np.diag(residual_variances(model, fitted)[rows])
    if not isinstance(fitted, StructuredFit):
        for grouping, variance in zip(model.groups, np.where(fitted.identified, fitted.variances, 0.0), strict=True):
            codes = grouping.codes[rows]
            V = V + variance * (codes[:, None] == codes[None, :])
        return V
    for part, T in zip(model.random, fitted.covariances, strict=True):
        z, codes = part.design[rows], model.groups[part.factor].codes[rows]
        V = V + (z @ T @ z.T) * (codes[:, None] == codes[None, :])
    return V
