"""Unequal sizes after the draw: which power will the trial have, given the arms that chance makes of clusters of known size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit._kernels import noncentral
from trialkit.door import InputError
from trialkit.power.designs import mean_variance, precision
from trialkit.power.evaluate import power_from
from trialkit.power.specification import PowerDesign, build
from trialkit.results import Result

Array = NDArray[np.float64]
_ENUMERATE = 200_000


@dataclass(frozen=True, slots=True)
class AttainedPower(Result):
    """The distribution of power over allocations.

    Attributes
    ----------
    powers : (n,) array
        Power of each allocation, all of them or a sample.
    exact : bool
        Whether every allocation was evaluated.
    mean, lowest, highest : float
    allocations : int
        How many there are.
    """

    powers: Array = field(repr=False)
    exact: bool
    allocations: int
    design: PowerDesign

    @property
    def mean(self) -> float:
        """Mean power: what the draw gives on average."""
        return float(self.powers.mean())

    @property
    def lowest(self) -> float:
        return float(self.powers.min())

    @property
    def highest(self) -> float:
        return float(self.powers.max())

    def quantile(self, q: float) -> float:
        """Power that a share q of allocations stay below."""
        return float(np.quantile(self.powers, q))

    @property
    def frame(self) -> pd.DataFrame:
        """Mean and percentiles."""
        rows: list[dict[str, Any]] = [{"statistic": "mean", "power": self.mean}, {"statistic": "lowest", "power": self.lowest}]
        rows += [{"statistic": f"percentile {100 * q:g}", "power": self.quantile(q)} for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
        rows.append({"statistic": "highest", "power": self.highest})
        return pd.DataFrame(rows)

    @property
    def title(self) -> str:
        how = "all" if self.exact else f"{len(self.powers):,} drawn of"
        return f"Attained power over {how} {self.allocations:,} allocations"

    @property
    def formats(self) -> Mapping[str, str]:
        return {"power": ".4f"}


def attained_power(
    design: PowerDesign | None = None,
    /,
    *,
    cluster_size: Sequence[float],
    strata: Sequence[Any] | None = None,
    draws: int = 20_000,
    seed: int = 0,
    **arguments: Any,
) -> AttainedPower:
    """Distribution of power over the allocations that a trial might draw, when the clusters' sizes are known.

    Parameters
    ----------
    design : PowerDesign, optional
    cluster_size : sequence
        One size a cluster.
    strata : sequence, optional
        One label a cluster; allocation is balanced within each.
    draws : int
        Allocations sampled when there are more than 200,000 of them.
    seed : int
        For that sample.
    **arguments
        As for `power` in a parallel design: ``icc``, ``effect``, ``analysis`` ...

    Returns
    -------
    AttainedPower
        ``.mean``, ``.quantile(q)``, ``.frame``, ``.powers``.

    Raises
    ------
    InputError
        Sizes are not positive numbers, or strata are not one label a cluster.

    Notes
    -----
    Var = v0/J0 + v1/J1 with each arm's own sizes, exact for the analysis named (mixed model: 1/sum 1/(tau^2 + w/m_i) an arm); half of the
    clusters to each arm, and the odd one to either with equal probability. Ouyang et al. 2020, BMC Med Res Methodol 20:166.

    Examples
    --------
    >>> found = attained_power(cluster_size=[100, 50, 25, 100, 100, 60, 40, 90], icc=0.05, effect=0.4)
    >>> found.exact, found.allocations, round(found.mean, 4)
    (True, 70, 0.4564)
    """
    sizes = np.array(list(cluster_size), dtype=float)
    if sizes.ndim != 1 or len(sizes) < 4 or not np.isfinite(sizes).all() or np.any(sizes <= 0):
        raise InputError("cluster_size lists the size of each cluster: at least four positive numbers.")
    base = build({**arguments, "cluster_size": float(sizes.mean()), "clusters": len(sizes)}, design)
    if base.design != "parallel" or base.outcome != "continuous" or isinstance(base.icc, tuple) or isinstance(base.sd, tuple):
        raise InputError("attained_power covers the parallel design of a continuous outcome with one ICC and one sd.")
    if base.icc is None or base.effect is None:
        raise InputError("attained_power needs icc and effect.")
    labels = list(strata) if strata is not None else ["all"] * len(sizes)
    if len(labels) != len(sizes):
        raise InputError(f"strata has {len(labels)} labels for {len(sizes)} clusters.")
    groups = [np.flatnonzero(np.array([x == label for x in labels])) for label in dict.fromkeys(labels)]
    total = math.prod(_ways(len(g)) for g in groups)
    exact = total <= _ENUMERATE
    masks = np.array(list(_all(groups, len(sizes)))) if exact else _drawn(groups, len(sizes), draws, seed)
    between = base.sd**2 * base.icc * (1 - base.r2_cluster)
    within = base.sd**2 * (1 - base.icc) * (1 - base.r2_person)
    m = sizes * (1 - base.attrition)
    variance = _arm(masks, m, between, within, base.analysis) + _arm(~masks, m, between, within, base.analysis)
    df = len(sizes) - 2 - (len(groups) - 1 if strata is not None else 0) - base.n_cluster_covariates
    if df <= 0:
        raise InputError(f"{len(sizes)} clusters in {len(groups)} strata leave no degrees of freedom.")
    return AttainedPower(_powers(base, variance * base.variance_factor, float(df)), exact, total, base)


def _powers(design: PowerDesign, variance: Array, df: float) -> Array:
    """Power at each variance of the effect, under the test that the design names."""
    if design.df is None and design.distribution == "f" and design.hypothesis == "superiority":
        return noncentral.power_t(abs(float(design.effect)) / np.sqrt(variance), df, design.alpha, design.sides)
    found = precision(design)
    df = found.df if design.df is not None else df
    distinct, where = np.unique(variance, return_inverse=True)
    known = float(found.noncentrality or 0.0) * found.variance
    each = [power_from(replace(found, variance=float(v), df=df, noncentrality=known / float(v)), design) for v in distinct]
    return np.array(each)[where]


def _ways(n: int) -> int:
    return math.comb(n, n // 2) * (1 if n % 2 == 0 else 2)


def _halves(group: NDArray[Any]) -> Iterator[tuple[int, ...]]:
    n = len(group)
    for size in {n // 2, n - n // 2}:
        yield from (tuple(int(i) for i in chosen) for chosen in combinations(group, size))


def _all(groups: Sequence[NDArray[Any]], n: int) -> Iterator[NDArray[np.bool_]]:
    for parts in product(*[list(_halves(g)) for g in groups]):
        mask = np.zeros(n, dtype=bool)
        for part in parts:
            mask[list(part)] = True
        yield mask


def _drawn(groups: Sequence[NDArray[Any]], n: int, draws: int, seed: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    masks = np.zeros((draws, n), dtype=bool)
    for g in groups:
        order = np.argsort(rng.random((draws, len(g))), axis=1)
        half = np.full(draws, len(g) // 2) + (rng.integers(0, 2, draws) if len(g) % 2 else 0)
        masks[:, g] = order < half[:, None]
    return masks


def _arm(mask: NDArray[np.bool_], m: Array, between: float, within: float, analysis: str) -> Array:
    """Variance of an arm's mean for each allocation (rows of the mask)."""
    v = between + within / m
    if analysis == "mixed-model":
        return np.asarray(1 / (mask @ (1 / v)))
    if analysis == "size-weighted":
        return np.asarray((mask @ (m**2 * v)) / (mask @ m) ** 2)
    return np.asarray((mask @ v) / mask.sum(axis=1) ** 2)


def relative_efficiency(cluster_size: Sequence[float], *, icc: float, analysis: str = "mixed-model") -> float:
    """Efficiency of the sizes given relative to as many clusters of their mean size, exact.

    Examples
    --------
    >>> round(relative_efficiency([100, 50, 25, 100, 100], icc=0.1), 4)
    0.9711
    """
    sizes = tuple(float(s) for s in cluster_size)
    if not sizes or min(sizes) <= 0 or not 0 <= icc < 1:
        raise InputError("relative_efficiency needs positive sizes and an ICC in [0, 1).")
    equal = icc + (1 - icc) / float(np.mean(sizes))
    return equal / mean_variance(icc, 1 - icc, sizes, 0.0, analysis)
