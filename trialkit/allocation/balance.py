"""Balance of a draw against what this very plan could have given.

A standardised difference of 0.1 is small among thousands of people and ordinary among forty clusters an arm, so no
fixed limit is used: each difference stands beside its quantile in the plan's own randomisation distribution.
Baseline p-values are not offered. The omnibus is Hansen and Bowers' (Statistical Science 2008) d-squared, whose
reference distribution is again the plan's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trialkit import door
from trialkit.door import InputError
from trialkit.results import Result

if TYPE_CHECKING:
    from trialkit.allocation.plans import Plan

Array = np.ndarray[Any, np.dtype[np.float64]]
Codes = np.ndarray[Any, np.dtype[np.int8]]

# lists of allocations up to this length are gone through whole, longer ones sampled
LIST_UP_TO = 20_000
SAMPLE = 10_000
# fixed, so that a certificate's quantiles come out again
SAMPLE_SEED = 1


@dataclass(frozen=True)
class Balance(Result):
    """Balance of one allocation.

    Attributes
    ----------
    frame : DataFrame
        One row a covariate (and arm, beyond two): ``covariate``; ``level`` (the category whose share is compared;
        missing for a number); ``arm``; ``mean`` and ``reference_mean`` (of the arm and of the reference arm, means or
        shares); ``difference``; ``std_difference`` (by the standard deviation over all randomised sites);
        ``quantile`` (share of the plan's allocations with a smaller standardised difference, ties counted half).
    exact : bool
        Whether the quantiles come from every allocation or from a sample of them.
    n_assignments : int
        Allocations gone through.
    title, notes, formats
        For the table.
    """

    frame: pd.DataFrame
    exact: bool
    n_assignments: int
    title: str = "Balance of the draw"
    notes: tuple[str, ...] = ()
    formats: Mapping[str, str] = field(
        default_factory=lambda: {
            "mean": ".4g",
            "reference_mean": ".4g",
            "difference": ".3g",
            "std_difference": ".3f",
            "quantile": ".3f",
        }
    )


@dataclass(frozen=True)
class Omnibus(Result):
    """Hansen and Bowers' omnibus measure of balance.

    Attributes
    ----------
    statistic : float
        d-squared: the treated totals' distance from expectation in the metric of their covariance under the plan.
    rank : int
        Dimensions compared.
    p_value : float
        Share of the plan's allocations at least as far out, this one counted.
    exact : bool
        Whether every allocation was gone through.
    n_assignments : int
        Allocations gone through.
    """

    statistic: float
    rank: int
    p_value: float
    exact: bool
    n_assignments: int

    @property
    def frame(self) -> pd.DataFrame:
        """One row."""
        return pd.DataFrame({"statistic": [self.statistic], "df": [float(self.rank)], "p_value": [self.p_value]})

    @property
    def title(self) -> str:
        """A line above the table."""
        return "Omnibus balance (Hansen and Bowers)"

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the p-value comes from."""
        how = "all" if self.exact else "a sample of"
        return (f"Permutation p-value from {how} {self.n_assignments:,} allocations of the plan.",)


@dataclass(frozen=True)
class Covariates:
    """Covariates as columns of numbers: one for a number or a two-level category, one a level beyond."""

    names: tuple[str, ...]
    columns: Mapping[str, tuple[tuple[str | None, Array], ...]]

    @cached_property
    def matrix(self) -> Array:
        """All columns side by side, (n_sites, p), NaN where missing."""
        return np.column_stack([values for name in self.names for _, values in self.columns[name]])


def covariates_of(plan: Plan, covariates: pd.DataFrame | None) -> Covariates:
    """The plan's own columns, or those of a table, in the order of ``plan.sites``."""
    if covariates is None:
        frame = plan.record.frame(plan.sites)
    else:
        plain = door.normalise(covariates, text=(plan.id,))
        ids = door.site_ids(plain, plan.id, where="the covariates")
        position = {s: k for k, s in enumerate(ids)}
        absent = [s for s in plan.sites if s not in position]
        if absent:
            raise InputError(f"the covariates have no row for the site(s) {door.few(absent)}. Give one row for each randomised site.")
        frame = plain.iloc[[position[s] for s in plan.sites]].reset_index(drop=True)
    out: dict[str, tuple[tuple[str | None, Array], ...]] = {}
    for name in frame.columns:
        if str(name) != plan.id:
            coded = _coded(frame, str(name))
            if coded:
                out[str(name)] = coded
    if not out:
        raise InputError(
            "there is no covariate to compare: the sites' record holds the id only. Give covariates=a table with the id column."
        )
    return Covariates(names=tuple(out), columns=out)


def _coded(frame: pd.DataFrame, name: str) -> tuple[tuple[str | None, Array], ...]:
    column = frame[name]
    if not column.notna().any():
        return ()
    if pd.api.types.is_numeric_dtype(column.dtype):
        return ((None, column.to_numpy(dtype=np.float64, na_value=np.nan)),)
    try:  # exact decimals are kept as text
        return ((None, door.numbers(frame, name, where="the sites")),)
    except InputError:
        pass
    texts = [door.cell_text(v) for v in column.tolist()]
    levels = sorted({t for t in texts if t}, key=lambda t: t.encode("utf-8"))
    shown = levels[1:] if len(levels) == 2 else levels
    return tuple((level, np.array([np.nan if not t else float(t == level) for t in texts])) for level in shown)


def reference_set(plan: Plan) -> tuple[Codes, bool]:
    """The plan's allocations: all of them when few and equally likely, else a sample that its digest fixes."""
    if plan.n_assignments <= LIST_UP_TO:
        try:
            return plan.assignments(LIST_UP_TO), True
        except InputError:  # few, but not equally likely
            pass
    return plan.sample(SAMPLE, seed=SAMPLE_SEED), False


def _means(codes: Codes, arm: int, values: Array) -> Array:
    """Mean of `values` over each row's sites of an arm, (n_rows,); missing values are left out."""
    member = (codes == arm).astype(np.float64)
    seen = np.isfinite(values)
    count = member @ seen.astype(np.float64)
    total = member @ np.where(seen, values, 0.0)
    return np.asarray(np.divide(total, count, out=np.full(len(codes), np.nan), where=count > 0))


def std_differences(codes: Codes, arm: int, values: Array) -> Array:
    """(mean in `arm` - mean in arm 0) / SD over all sites, one a row of `codes`; 0 where the covariate never varies."""
    seen = values[np.isfinite(values)]
    spread = float(np.std(seen, ddof=1)) if len(seen) > 1 else 0.0
    difference = _means(codes, arm, values) - _means(codes, 0, values)
    return np.asarray(difference / spread) if spread > 0 else np.zeros(len(codes))


def balance(plan: Plan, codes: Codes, *, covariates: pd.DataFrame | None = None) -> Balance:
    """Balance of one allocation (`codes`, as ``plan.sites``), one row a covariate."""
    table = covariates_of(plan, covariates)
    reference, exact = reference_set(plan)
    rows: list[dict[str, Any]] = []
    lost = 0
    for name in table.names:
        coded = table.columns[name]
        for arm in range(1, len(plan.arms)):
            drawn = np.array([std_differences(codes[None, :], arm, v)[0] for _, v in coded])
            k = 0 if len(coded) == 1 else int(np.nanargmax(np.abs(np.where(np.isfinite(drawn), drawn, 0.0))))
            level, values = coded[k]
            possible = (
                std_differences(reference, arm, values)
                if len(coded) == 1
                # the level shown is the worst one, so it is compared with the worst of every allocation
                else np.fmax.reduce(np.abs([std_differences(reference, arm, v) for _, v in coded]), axis=0)
            )
            here = drawn[k] if len(coded) == 1 else abs(drawn[k])
            mean, base = _means(codes[None, :], arm, values)[0], _means(codes[None, :], 0, values)[0]
            lost += int(np.isnan(values).sum()) if arm == 1 else 0
            rows.append(
                {
                    "covariate": name,
                    "level": level,
                    "arm": plan.arms[arm],
                    "mean": mean,
                    "reference_mean": base,
                    "difference": mean - base,
                    "std_difference": drawn[k],
                    "quantile": mid_quantile(possible, here),
                }
            )
    frame = pd.DataFrame(rows)
    frame["level"] = pd.Series([r["level"] for r in rows], dtype="str")
    how = "all" if exact else "a fixed sample of"
    notes = [
        "std_difference: difference of means (shares) over the standard deviation across all randomised sites.",
        f"quantile: its place among {how} {len(reference):,} allocations of this plan; near 0 or 1 is unusual, 0.5 is the middle.",
    ]
    if any(len(table.columns[n]) > 1 for n in table.names):
        notes.append("A covariate of more than two levels shows its worst level, compared with the worst level of every allocation.")
    if lost:
        notes.append(f"{lost} missing value(s) left out of the means.")
    return Balance(frame=frame, exact=exact, n_assignments=len(reference), notes=tuple(notes))


def mid_quantile(possible: Array, here: float) -> float:
    """Share of `possible` below `here`, ties counted half; a tolerance of 1e-9 makes ties of rounding ties again."""
    seen = possible[np.isfinite(possible)]
    if not np.isfinite(here) or len(seen) == 0:
        return float("nan")
    below = np.count_nonzero(seen < here - 1e-9)
    tied = np.count_nonzero(np.abs(seen - here) <= 1e-9)
    return float((below + 0.5 * tied) / len(seen))


def omnibus(plan: Plan, codes: Codes, *, covariates: pd.DataFrame | None = None) -> Omnibus:
    """d-squared of the treated totals: T'V^-T with T = X'(Z - E Z) and V their covariance under the plan.

    Missing values enter as the covariate's mean. For two arms; beyond, use the table of `balance`.
    """
    if len(plan.arms) != 2:
        raise InputError(f"the omnibus compares two arms, and this plan has {len(plan.arms)}. Use allocation.balance().")
    x = covariates_of(plan, covariates).matrix
    centre = np.nanmean(x, axis=0)
    spread = np.nanstd(x, axis=0)
    x = np.where(np.isfinite(x), x - centre, 0.0) / np.where(spread > 0, spread, 1.0)
    reference, exact = reference_set(plan)
    expected = plan.probabilities()[:, 1]
    v = x.T @ plan.covariance() @ x
    values, vectors = np.linalg.eigh((v + v.T) / 2)
    keep = values > 1e-9 * max(float(values.max(initial=0.0)), 1e-300)
    root = vectors[:, keep] / np.sqrt(values[keep])

    def squared(rows: Codes) -> Array:
        t = ((rows == 1).astype(np.float64) - expected) @ x @ root
        return np.asarray(np.einsum("ij,ij->i", t, t))

    here = float(squared(codes[None, :])[0])
    far = int(np.count_nonzero(squared(reference) >= here * (1 - 1e-9) - 1e-12))
    p = far / len(reference) if exact else (far + 1) / (len(reference) + 1)
    return Omnibus(statistic=here, rank=int(keep.sum()), p_value=p, exact=exact, n_assignments=len(reference))
