"""Power over many values at once: grids, curves, and the two formulas that vectorise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit._kernels import noncentral
from trialkit.door import InputError
from trialkit.power.designs import precision
from trialkit.power.evaluate import power_from
from trialkit.power.specification import PowerDesign, build, unknown
from trialkit.results import Result

Array = NDArray[np.float64]

# the arguments that the array formula knows; anything else is evaluated design by design
_FAST = {
    "clusters", "pairs", "cluster_size", "cluster_size_cv", "icc", "effect", "sd", "alpha", "sides", "allocation_ratio",
    "r2_cluster", "r2_person", "n_cluster_covariates", "matching_correlation", "attrition", "cluster_attrition",
}  # fmt: skip
_LIMIT = 5_000_000


@dataclass(frozen=True, slots=True)
class PowerGrid(Result):
    """Power over the product of the values given.

    Attributes
    ----------
    frame : DataFrame
        One row a cell: the arguments that vary, ``power``, ``df``.
    varying : tuple of str
    fixed : mapping
    """

    frame: pd.DataFrame
    varying: tuple[str, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"Power over {', '.join(self.varying)}" + (
            " for " + ", ".join(f"{k}={v}" for k, v in self.fixed.items()) if self.fixed else ""
        )

    @property
    def formats(self) -> Mapping[str, str]:
        return {"power": ".4f", "df": ".4g", **dict.fromkeys(self.varying, ".4g")}

    def to_json(self) -> str:
        """Rows as a JSON array."""
        return str(self.frame.to_json(orient="records", double_precision=15))

    def plot(self, ax: Any = None, *, target: float | None = 0.8, simulated: pd.DataFrame | None = None) -> Any:
        """Power against the first varying argument, a line for each value of the second; gives the axes back.

        ``simulated``: check points with their Monte Carlo error, columns named as the first argument, ``power`` and ``mc_error``.
        """
        from trialkit.power.pictures import curves

        return curves(self, ax, target=target, simulated=simulated)

    def contour(self, ax: Any = None, *, levels: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)) -> Any:
        """Lines of equal power over the two varying arguments; gives the axes back."""
        from trialkit.power.pictures import contours

        return contours(self, ax, levels=levels)


def power_grid(design: PowerDesign | None = None, /, **arguments: Any) -> PowerGrid:
    """Power for every combination of the values given.

    Parameters
    ----------
    design : PowerDesign, optional
    **arguments
        As for `power`; any number may be a sequence (list, array, range), and every combination is evaluated.

    Returns
    -------
    PowerGrid
        ``.frame`` with one row a combination, in the order of the product, ``.plot()``.

    Raises
    ------
    InputError
        As for `power`, for the first cell that cannot be.

    Notes
    -----
    Parallel and matched-pair designs of continuous outcomes go through one array formula: 100,000 cells take about 0.15 s.

    Examples
    --------
    >>> grid = power_grid(clusters=[34, 68], cluster_size=2, icc=[0.01, 0.05], effect=0.5)
    >>> print(grid)
    Power over clusters, icc for cluster_size=2, effect=0.5
    clusters   icc   power  df
          34  0.01  0.5119  32
          34  0.05  0.4966  32
          68  0.01  0.8156  66
          68  0.05  0.8006  66
    """
    unknown(arguments)
    values = {k: _values(k, v) for k, v in arguments.items()}
    varying = tuple(k for k, v in values.items() if v is not None)
    fixed = {k: arguments[k] for k in arguments if k not in varying}
    if not varying:
        raise InputError("power_grid needs at least one argument with several values; for a single one use power().")
    axes = [values[k] for k in varying]
    cells = math.prod(len(a) for a in axes if a is not None)
    if cells > _LIMIT:
        raise InputError(f"{cells:,} combinations are more than {_LIMIT:,}: thin the values out.")
    mesh = [np.asarray(m).ravel() for m in np.meshgrid(*[np.asarray(a) for a in axes if a is not None], indexing="ij")]
    columns = dict(zip(varying, mesh, strict=True))
    fast = _fast(design, columns, fixed)
    if fast is None:
        # an argument that the rest cannot do without may be among those that vary
        base = build({**fixed, **{k: _python(c[0]) for k, c in columns.items()}}, design)
        power, df = np.empty(cells), np.empty(cells)
        for i in range(cells):
            spec = base.replace(**{k: _python(c[i]) for k, c in columns.items()})
            found = precision(spec)
            power[i], df[i] = power_from(found, spec), found.df
    else:
        power, df = fast
    return PowerGrid(pd.DataFrame({**columns, "power": power, "df": df}), varying, fixed)


def _values(name: str, value: Any) -> list[Any] | None:
    """The values of an argument that varies; None for one that does not."""
    if isinstance(value, list | range | np.ndarray | pd.Series | pd.Index) and name not in ("layout", "means", "contrast", "proportions"):
        out = list(value)
        if not out:
            raise InputError(f"{name} has no values.")
        if name == "cluster_size" and isinstance(out[0], list | tuple | np.ndarray):
            return None
        return out
    return None


def _python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _fast(design: PowerDesign | None, columns: dict[str, Array], fixed: Mapping[str, Any]) -> tuple[Array, Array] | None:
    if design is not None:
        given = {k: v for k, v in design.given().items() if k not in ("design", "outcome", "icc_source")}
        if design.design not in ("parallel", "matched-pairs") or design.outcome != "continuous":
            return None
        if design.design == "matched-pairs":
            given.pop("clusters", None)
        fixed = {**{k: v for k, v in given.items() if k not in columns}, **fixed}
    names = set(columns) | set(fixed)
    if not names <= _FAST or any(isinstance(v, tuple | list | np.ndarray | Mapping) for v in fixed.values()):
        return None
    if any(c.dtype.kind not in "iuf" for c in columns.values()):
        return None
    if "matching_correlation" in names and "pairs" not in names:
        return None
    # each value on its own must be in range; the first cell proves the rest of the specification
    first = {**fixed, **{k: _python(c[0]) for k, c in columns.items()}}
    base = build(first)
    for name, column in columns.items():
        for value in np.unique(column):
            base.replace(**{name: _python(value)})
    full = {k: np.asarray(v, dtype=float) for k, v in {**{n: getattr(base, n) for n in _FAST}, **fixed, **columns}.items() if v is not None}
    if any(k not in full for k in ("cluster_size", "icc", "effect")):
        return None
    return _closed_form(full, base.design == "matched-pairs", int(base.sides) if "sides" not in columns else None, columns)


def _closed_form(v: dict[str, Array], paired: bool, sides: int | None, columns: Mapping[str, Array]) -> tuple[Array, Array] | None:
    """The parallel and the matched-pair variance on arrays; mixed-model analysis of unequal sizes."""
    if sides is None:
        return None
    m = v["cluster_size"] * (1 - v["attrition"])
    between = v["sd"] ** 2 * v["icc"] * (1 - v["r2_cluster"])
    within = v["sd"] ** 2 * (1 - v["icc"]) * (1 - v["r2_person"])
    unit = between + within / m
    share = np.divide(between, unit)
    efficiency = 1 - v["cluster_size_cv"] ** 2 * share * (1 - share)
    if np.any(efficiency <= 0):
        return None  # the slow road says which cell and why
    unit = unit / efficiency
    kept = 1 - v["cluster_attrition"]
    if paired:
        pairs = v["pairs"] * kept
        variance = 2 * unit * (1 - v["matching_correlation"]) / pairs
        df = pairs - 1 - v["n_cluster_covariates"]
    else:
        clusters = v["clusters"] * kept
        p = v["allocation_ratio"] / (1 + v["allocation_ratio"])
        variance = unit / (p * (1 - p) * clusters)
        df = clusters - 2 - v["n_cluster_covariates"]
    if np.any(df <= 0):
        return None
    cells = len(next(iter(columns.values())))
    shift = np.broadcast_to(np.abs(v["effect"]) / np.sqrt(variance), (cells,))
    return noncentral.power_t(shift, df, v["alpha"], sides), np.broadcast_to(df, (cells,)).astype(float)


def power_curve(design: PowerDesign | None = None, /, *, over: str, values: Sequence[float], **arguments: Any) -> PowerGrid:
    """Power against one argument.

    Examples
    --------
    >>> curve = power_curve(over="clusters", values=range(20, 101, 20), cluster_size=2, icc=0.05, effect=0.5)
    >>> curve.frame["power"].round(3).tolist()
    [0.309, 0.566, 0.748, 0.862, 0.927]
    """
    return power_grid(design, **{over: list(values), **arguments})
