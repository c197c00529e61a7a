"""Power under the planned analysis: simulate the parallel design, fit it as it will be fitted, count.

A balanced trial with random site intercepts is, for every analysis here, J site means and one sum of squares:
drawing those is drawing the trial, at a cost that does not depend on how many people a site has. The intervention shifts its
sites' means along a column of the model, so one fit serves both the power and the type I error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import special

from trialkit._kernels.reml_many import ManyInference, fit_cluster_summaries
from trialkit.door import InputError, few, unknown_word
from trialkit.results import Provenance, Result
from trialkit.simulation.streams import Floats, Stream
from trialkit.simulation.trial import checked_seed

ANALYSES = ("kenward-roger", "satterthwaite", "z", "cluster means", "permutation")
_CHUNK = 2_000
_PERMUTATIONS = 999


@dataclass(frozen=True)
class PlannedPower(Result):
    """Power and type I error of each analysis on the same simulated trials.

    Attributes
    ----------
    frame : DataFrame
        analysis, power, power_mcse, power_low, power_high (exact 95% limits), type_i, type_i_mcse, type_i_low, type_i_high, trials.
    formula : float
        The noncentral-F power of the same design in closed form, where sizes are equal; missing otherwise.
    singular : float
        Share of fits with a site variance of zero, all kept.
    cpu_seconds : float
        For drawing and fitting.
    """

    frame: pd.DataFrame
    formula: float
    singular: float
    settings: dict[str, Any]
    provenance: Provenance = field(repr=False)
    cpu_seconds: float = field(default=float("nan"), compare=False, repr=False)

    formats: ClassVar[dict[str, str]] = dict.fromkeys(
        ("power", "power_mcse", "power_low", "power_high", "type_i", "type_i_mcse", "type_i_low", "type_i_high"), ".4f"
    )

    @property
    def title(self) -> str:
        """A line above the table."""
        s = self.settings
        return f"Power under the planned analysis: {s['clusters']} sites, {s['people']} people, ICC {s['icc']:g}, d = {s['effect']:g}"

    @property
    def notes(self) -> tuple[str, ...]:
        """How it was found."""
        lines = [
            f"{self.settings['trials']:,} trials (seed {self.settings['seed']}); _mcse: Monte Carlo standard error; limits are exact 95%."
        ]
        lines.append(f"{self.singular:.1%} of the mixed models had a site variance of zero; all are kept.")
        if not np.isnan(self.formula):
            lines.append(
                f"The noncentral F formula, which takes the ICC as known in form and the df as sites - 2, gives {self.formula:.4f}."
            )
        return tuple(lines)


def planned_power(
    *,
    clusters: int | None = None,
    cluster_size: int | None = None,
    sizes: Sequence[int] | None = None,
    icc: float,
    effect: float,
    alpha: float = 0.05,
    sides: int = 2,
    analyses: Sequence[str] = ("kenward-roger", "satterthwaite", "cluster means"),
    trials: int = 20_000,
    seed: int,
) -> PlannedPower:
    """Power and type I error of a parallel two-arm trial under the analysis it will get.

    Parameters
    ----------
    clusters, cluster_size : int
        Sites over both arms (even) and people a site; or `sizes`.
    sizes : sequence of int
        People at each site; sorted by size, sites go to the arms in turn.
    icc : float
        0 <= icc < 1.
    effect : float
        Difference in means over the total SD within an arm.
    alpha, sides : float, int
    analyses : sequence of str
        ``kenward-roger``, ``satterthwaite`` and ``z`` (REML with a site intercept), ``cluster means`` (t-test of
        site means, unweighted), ``permutation`` (of site means: every allocation where they are at most 999, else 999
        random ones and the one drawn).
    trials : int
    seed : int

    Returns
    -------
    PlannedPower

    Raises
    ------
    InputError
        An odd number of sites, sizes of zero, an ICC outside [0, 1), an unknown analysis.

    Examples
    --------
    >>> found = planned_power(clusters=68, cluster_size=2, icc=0.05, effect=0.5, trials=500, seed=1)
    >>> bool(abs(found.frame["power"].iloc[0] - 0.794) < 0.1), round(found.formula, 7)
    (True, 0.8005608)
    """
    seed = checked_seed(seed)
    people = _sizes(clusters, cluster_size, sizes)
    _check(icc, alpha, sides, trials)
    for name in analyses:
        if name not in ANALYSES:
            raise InputError(unknown_word(str(name), ANALYSES, what="analysis"))
    J = len(people)
    arm = np.arange(J) % 2
    begun = time.process_time()
    rejections = {name: np.zeros(2, dtype=np.int64) for name in analyses}
    singular = 0
    for start in range(0, trials, _CHUNK):
        n = min(_CHUNK, trials - start)
        means, ssw = _draw(people, icc, n, seed, start // _CHUNK)
        found, zero = _analyse(means, ssw, people, arm, effect, alpha, sides, analyses, seed, start // _CHUNK)
        singular += zero
        for name, counts in found.items():
            rejections[name] += counts
    used = time.process_time() - begun
    rows = []
    for name in analyses:
        row: dict[str, Any] = {"analysis": name}
        for figure, count in zip(("power", "type_i"), rejections[name].tolist(), strict=True):
            share = count / trials
            low, high = _exact_interval(count, trials)
            row |= {
                figure: share,
                f"{figure}_mcse": float(np.sqrt(share * (1 - share) / trials)),
                f"{figure}_low": low,
                f"{figure}_high": high,
            }
        rows.append({**row, "trials": trials})
    settings = {
        "clusters": J,
        "people": int(people.sum()),
        "icc": icc,
        "effect": effect,
        "alpha": alpha,
        "sides": sides,
        "trials": trials,
        "seed": seed,
        "analyses": list(analyses),
    }
    return PlannedPower(
        frame=pd.DataFrame(rows).astype({"analysis": "str"}),
        formula=_formula(people, icc, effect, alpha, sides),
        singular=singular / trials,
        settings=settings,
        provenance=Provenance.now(seed=seed, settings=settings),
        cpu_seconds=used,
    )


def _draw(people: Floats, icc: float, n: int, seed: int, chunk: int) -> tuple[Floats, Floats]:
    """Site means (n, J) without an effect and sums of squares about them (n,), total variance 1."""
    J, N = len(people), float(people.sum())
    means = Stream(seed, "planned power", "means", str(chunk)).normal(n, J) * np.sqrt(icc + (1.0 - icc) / people)
    if N == J:
        return means, np.zeros(n)
    u = Stream(seed, "planned power", "within", str(chunk)).uniform(n)
    # chi-square by inversion
    ssw = (1.0 - icc) * 2.0 * special.gammaincinv((N - J) / 2.0, u)
    return means, ssw


def _analyse(
    means: Floats,
    ssw: Floats,
    people: Floats,
    arm: Any,
    effect: float,
    alpha: float,
    sides: int,
    analyses: Sequence[str],
    seed: int,
    chunk: int,
) -> tuple[dict[str, Any], int]:
    """Rejections with the effect and without, by analysis; and how many fits had no site variance."""
    out: dict[str, Any] = {}
    singular = 0
    contrast = np.array([[0.0, 1.0]])
    design = np.column_stack([np.ones(len(arm)), arm]).astype(np.float64)
    mixed = [a for a in analyses if a in ("kenward-roger", "satterthwaite", "z")]
    if mixed:
        fits = fit_cluster_summaries(means, people, ssw, design, contrasts=contrast)
        singular = int(fits.boundary[:, 0].sum())
        for name in mixed:
            rule: ManyInference = fits.kenward_roger if name == "kenward-roger" else fits.satterthwaite
            df = np.full(len(means), np.inf) if name == "z" else rule.df[:, 0]
            out[name] = _both(rule.estimate[:, 0], rule.std_error[:, 0], df, effect, alpha, sides)
    here, there = means[:, arm == 1], means[:, arm == 0]
    difference = here.mean(axis=1) - there.mean(axis=1)
    if "cluster means" in analyses:
        a, b = here.shape[1], there.shape[1]
        pooled = (here.var(axis=1, ddof=1) * (a - 1) + there.var(axis=1, ddof=1) * (b - 1)) / (a + b - 2)
        error = np.sqrt(pooled * (1.0 / a + 1.0 / b))
        out["cluster means"] = _both(difference, error, np.full(len(means), a + b - 2.0), effect, alpha, sides)
    if "permutation" in analyses:
        out["permutation"] = _permute(means, arm, difference, effect, alpha, sides, seed, chunk)
    return out, singular


def _both(estimate: Floats, error: Floats, df: Floats, effect: float, alpha: float, sides: int) -> Any:
    """Counts of p <= alpha with the effect added and without."""
    limit = special.ndtri(1.0 - alpha / sides) if np.isinf(df).all() else special.stdtrit(df, 1.0 - alpha / sides)
    counts = []
    for shift in (effect, 0.0):
        t = (estimate + shift) / error
        counts.append(int(((np.abs(t) if sides == 2 else t) >= limit).sum()))
    return np.array(counts)


def _permute(means: Floats, arm: Any, difference: Floats, effect: float, alpha: float, sides: int, seed: int, chunk: int) -> Any:
    """Randomisation test of the difference in site means: every allocation where they are few, else 999 and the one drawn."""
    J = len(arm)
    every = comb(J, J // 2) <= _PERMUTATIONS
    if every:
        codes = np.zeros((comb(J, J // 2), J))
        codes[np.arange(len(codes))[:, None], list(combinations(range(J), J // 2))] = 1.0
        weights = (2.0 * codes - 1.0) * 2.0 / J
    else:
        order = np.argsort(Stream(seed, "planned power", "permutations", str(chunk)).uniform(_PERMUTATIONS, J), axis=1)
        weights = np.where(arm == 1, 2.0 / J, -2.0 / J)[order]
    # the list of every allocation holds the one drawn; a sample does not, so it is added
    more = 0.0 if every else 1.0
    # with the effect the means are m + effect * arm
    base, moved = means @ weights.T, (weights @ arm.astype(np.float64)) * effect
    counts = []
    for shift, add in ((effect, moved), (0.0, 0.0)):
        other, mine = base + add, (difference + shift)[:, None]
        # equal up to rounding counts as equal: the test must not reject more than it may
        as_far = (np.abs(other) >= np.abs(mine) - 1e-12) if sides == 2 else (other >= mine - 1e-12)
        counts.append(int(((more + as_far.sum(axis=1)) / (more + len(weights)) <= alpha + 1e-12).sum()))
    return np.array(counts)


def _exact_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's limits of a share."""
    tail = (1.0 - level) / 2.0
    low = 0.0 if count == 0 else float(special.betaincinv(count, n - count + 1.0, tail))
    high = 1.0 if count == n else float(special.betaincinv(count + 1.0, n - count, 1.0 - tail))
    return low, high


def _formula(people: Floats, icc: float, effect: float, alpha: float, sides: int) -> float:
    if np.ptp(people) > 0 or effect == 0.0:
        return float("nan")
    from trialkit.power import power

    return float(power(clusters=len(people), cluster_size=float(people[0]), icc=icc, effect=effect, alpha=alpha, sides=sides).power)


# --- input --------------------------------------------------------------------------------------------------


def _sizes(clusters: int | None, cluster_size: int | None, sizes: Sequence[int] | None) -> Floats:
    if sizes is not None:
        if clusters is not None or cluster_size is not None:
            raise InputError("give clusters and cluster_size, or sizes, not both.")
        people = np.sort(np.asarray(list(sizes), dtype=np.float64))
        bad = people[(people < 1) | (people != np.round(people))]
        if len(bad):
            raise InputError(f"sizes holds {few(bad.tolist())}; every site needs a whole number of people, at least 1.")
    else:
        if clusters is None or cluster_size is None:
            raise InputError("give clusters and cluster_size, or sizes.")
        for name, value in (("clusters", clusters), ("cluster_size", cluster_size)):
            if isinstance(value, bool) or value != int(value) or value < 1:
                raise InputError(f"{name}={value!r} is not a whole number of at least 1.")
        people = np.full(int(clusters), float(cluster_size))
    if len(people) % 2 or len(people) < 4:
        raise InputError(
            f"{len(people)} sites cannot be split evenly over two arms with a site to spare in each. Give an even number from 4."
        )
    return people


def _check(icc: float, alpha: float, sides: int, trials: int) -> None:
    if not 0.0 <= icc < 1.0:
        raise InputError(f"icc={icc!r} is outside [0, 1).")
    if not 0.0 < alpha < 1.0:
        raise InputError(f"alpha={alpha!r} is outside (0, 1).")
    if sides not in (1, 2):
        raise InputError(f"sides={sides!r}: 1 or 2.")
    if isinstance(trials, bool) or not isinstance(trials, int | np.integer) or trials < 2:
        raise InputError(f"trials={trials!r}: give a whole number of at least 2.")
