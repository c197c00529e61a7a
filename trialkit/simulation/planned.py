"""Power under the planned analysis: simulate the trial, fit it as it will be fitted, count.

The intervention shifts means along a column of the model, so one fit serves both the power and the type I error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import special

from trialkit.door import InputError, few, unknown_word
from trialkit.power.specification import PowerDesign
from trialkit.results import Provenance, Result
from trialkit.simulation import planned_layout, planned_pairs, planned_parallel
from trialkit.simulation.rejections import Chunk, Counts, Test
from trialkit.simulation.streams import Floats
from trialkit.simulation.trial import checked_seed

ANALYSES = tuple(dict.fromkeys((*planned_parallel.ANALYSES, *planned_pairs.ANALYSES)))
_CHUNK = 2_000


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
        Share of mixed models with a variance of zero, all kept.
    failed : int
        Fits without an answer; they count as not rejecting.
    cpu_seconds : float
        For drawing and fitting.
    """

    frame: pd.DataFrame
    formula: float
    singular: float
    settings: dict[str, Any]
    provenance: Provenance = field(repr=False)
    failed: int = 0
    cpu_seconds: float = field(default=float("nan"), compare=False, repr=False)

    formats: ClassVar[dict[str, str]] = dict.fromkeys(
        ("power", "power_mcse", "power_low", "power_high", "type_i", "type_i_mcse", "type_i_low", "type_i_high"), ".4f"
    )

    @property
    def title(self) -> str:
        """A line above the table."""
        s = self.settings
        how = {"parallel": "", "matched-pairs": f" in {s['clusters'] // 2} pairs"}.get(s["design"], " in a layout of periods")
        return f"Power under the planned analysis: {s['clusters']} sites{how}, {s['people']} people, ICC {s['icc']:g}, d = {s['effect']:g}"

    @property
    def notes(self) -> tuple[str, ...]:
        """How it was found."""
        lines = [
            f"{self.settings['trials']:,} trials (seed {self.settings['seed']}); _mcse: Monte Carlo standard error; limits are exact 95%."
        ]
        if set(self.settings["analyses"]) & set(planned_parallel.MIXED):
            what = "a variance of sites or pairs" if self.settings["design"] == "matched-pairs" else "a site variance"
            lines.append(f"{self.singular:.1%} of the mixed models had {what} of zero; all are kept.")
        if self.settings["design"] == "matched-pairs" and self.settings["pair_effects"] != "random":
            lines.append(f"Pair effects of the mixed model: {self.settings['pair_effects']}.")
        if self.settings["design"] == "longitudinal":
            rows = {"people": "people", "cluster-periods": "the means of cluster-periods"}[self.settings["level"]]
            lines.append(f"The mixed model has a random intercept a cluster and is fitted to {rows}.")
        if self.failed:
            lines.append(f"{self.failed} fits gave no answer and count as not rejecting.")
        if not np.isnan(self.formula):
            lines.append(
                f"The noncentral F formula, which takes the ICC as known in form and the df as {self.settings['df_rule']}, "
                f"gives {self.formula:.4f}."
            )
        return tuple(lines)


def planned_power(
    design: PowerDesign | None = None,
    /,
    *,
    seed: int,
    analyses: Sequence[str] | None = None,
    trials: int = 20_000,
    sizes: Sequence[int] | None = None,
    pair_effects: str = "random",
    level: str | None = None,
    **arguments: Any,
) -> PlannedPower:
    """Power and type I error of a trial under the analysis it will get: parallel arms, matched pairs, or any layout over periods.

    Parameters
    ----------
    design : PowerDesign, optional
        As for `trialkit.power`; the arguments given by name change it.
    seed : int
    analyses : sequence of str
        ``kenward-roger``, ``satterthwaite`` and ``z``: REML with a site intercept (and pairs, below). ``cluster means``: t-test of site
        means, unweighted. ``paired t``: of pair differences. ``gee``, ``gee, mancl-derouen``, ``gee, uncorrected``: a marginal model with
        exchangeable correlation and the sandwich of Kauermann and Carroll, of Mancl and DeRouen, or neither, t with clusters - coefficients
        df; pairs are its clusters where there are any. ``permutation``: of site means; within pairs (sign flips) where there are any; of
        clusters over sequences in a layout; every allocation where they are at most 999, else 999 random ones and the one drawn.
    trials : int
    sizes : sequence of int
        People at each site of a parallel trial, instead of clusters and cluster_size; sorted by size, sites go to the arms in turn.
    pair_effects : {"random", "fixed", "none"}
        Of the mixed model of matched pairs.
    level : {"cluster-periods", "people"}
        What the mixed model of a layout is fitted to. "people" (default where every period has new people and the correlation is
        exchangeable) is Hussey and Hughes' model; "cluster-periods" (default elsewhere), the means, is right for cluster-period effects
        and cohorts too.
    **arguments
        Any of `trialkit.power` that a parallel, matched-pair or longitudinal design of a continuous outcome has: ``clusters`` or ``pairs``,
        ``cluster_size``, ``icc``, ``effect``, ``sd``, ``alpha``, ``sides``, ``matching_correlation``, ``layout``, ``cac``, ``iac`` ...

    Returns
    -------
    PlannedPower

    Raises
    ------
    InputError
        An odd number of sites, sizes of zero, an ICC outside [0, 1), an analysis that the design does not have.

    Notes
    -----
    Losses, covariates and the imputed analysis need a whole simulated trial: `trialkit.check` of a `Scenario`.

    Examples
    --------
    >>> found = planned_power(clusters=68, cluster_size=2, icc=0.05, effect=0.5, trials=500, seed=1)
    >>> bool(abs(found.frame["power"].iloc[0] - 0.794) < 0.1), round(found.formula, 7)
    (True, 0.8005608)
    >>> pairs = planned_power(pairs=12, cluster_size=10, icc=0.1, effect=0.5, matching_correlation=0.3, trials=500, seed=1)
    >>> pairs.frame["analysis"].tolist()
    ['kenward-roger', 'satterthwaite', 'paired t', 'permutation']
    """
    seed = checked_seed(seed)
    if isinstance(trials, bool) or not isinstance(trials, int | np.integer) or trials < 2:
        raise InputError(f"trials={trials!r}: give a whole number of at least 2.")
    plan = _plan(design, arguments, sizes, pair_effects, level)
    chosen = _chosen(analyses, plan)
    begun = time.process_time()
    rejections: dict[str, Counts] = {name: np.zeros(2, dtype=np.int64) for name in chosen}
    singular = failed = 0
    for start in range(0, trials, _CHUNK):
        found = plan.run(min(_CHUNK, trials - start), start // _CHUNK, chosen, seed)
        singular, failed = singular + found.singular, failed + found.failed
        for name, counts in found.rejected.items():
            rejections[name] += counts
    used = time.process_time() - begun
    rows = []
    for name in chosen:
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
    settings = {**plan.settings, "trials": trials, "seed": seed, "analyses": chosen}
    return PlannedPower(
        frame=pd.DataFrame(rows).astype({"analysis": "str"}),
        formula=plan.formula,
        singular=singular / trials,
        settings=settings,
        provenance=Provenance.now(seed=seed, settings=settings),
        failed=failed,
        cpu_seconds=used,
    )


@dataclass(frozen=True)
class _Plan:
    """A design ready to be simulated: (trials, chunk, analyses, seed) -> rejections."""

    run: Callable[[int, int, list[str], int], Chunk]
    known: tuple[str, ...]
    usual: tuple[str, ...]
    settings: dict[str, Any]
    formula: float


def _plan(
    design: PowerDesign | None, arguments: dict[str, Any], sizes: Sequence[int] | None, pair_effects: str, level: str | None
) -> _Plan:
    from trialkit.power.specification import build

    people: Floats | None = None
    if sizes is not None:
        if arguments.get("clusters") is not None or arguments.get("cluster_size") is not None:
            raise InputError("give clusters and cluster_size, or sizes, not both.")
        people = _sizes(sizes)
        arguments = {**arguments, "clusters": len(people), "cluster_size": people.tolist()}
    spec = build(arguments, design)
    _check(spec)
    if pair_effects not in planned_pairs.PAIR_EFFECTS:
        raise InputError(unknown_word(str(pair_effects), planned_pairs.PAIR_EFFECTS, what="pair_effects"))
    if spec.design != "matched-pairs" and pair_effects != "random":
        raise InputError(f"pair_effects belongs to matched pairs, and this design is {spec.design}.")
    if spec.design != "longitudinal" and level is not None:
        raise InputError(f"level belongs to a design with a layout, and this one is {spec.design}.")
    test = Test(float(spec.effect) / float(spec.sd), spec.alpha, spec.sides)
    settings = {
        "design": spec.design,
        "clusters": int(spec.clusters),
        "icc": spec.icc,
        "effect": test.effect,
        "alpha": spec.alpha,
        "sides": spec.sides,
    }
    if spec.design == "matched-pairs":
        return _pairs(spec, test, settings, pair_effects)
    if spec.design == "longitudinal":
        return _layout(spec, test, settings, level)
    return _parallel(spec, test, settings, people)


def _parallel(spec: PowerDesign, test: Test, settings: dict[str, Any], people: Floats | None) -> _Plan:
    if people is None:
        if isinstance(spec.cluster_size, tuple):
            raise InputError("people at each site of a planned trial go in as sizes=.")
        people = _equal(spec)
    sites = people

    def run(n: int, chunk: int, chosen: list[str], seed: int) -> Chunk:
        means, ssw = planned_parallel.draw(sites, float(spec.icc), n, seed, chunk)
        return planned_parallel.analyse(means, ssw, sites, test, chosen, seed, chunk)

    more = {"cluster_size": float(sites.mean()), "people": int(sites.sum()), "df_rule": "sites - 2"}
    formula = _formula(spec) if np.ptp(sites) == 0 else float("nan")
    return _Plan(run, planned_parallel.ANALYSES, ("kenward-roger", "satterthwaite", "cluster means"), settings | more, formula)


def _pairs(spec: PowerDesign, test: Test, settings: dict[str, Any], pair_effects: str) -> _Plan:
    if int(spec.pairs) < 3:
        raise InputError(f"pairs={spec.pairs}: at least 3 are needed.")
    m = float(_equal(spec)[0])
    rho = float(spec.icc)
    r = spec.matching_correlation
    shared = r * (rho if spec.matching_scale == "effects" else rho + (1.0 - rho) / m)

    def run(n: int, chunk: int, chosen: list[str], seed: int) -> Chunk:
        means, ssw = planned_pairs.draw(int(spec.pairs), m, rho, shared, n, seed, chunk)
        return planned_pairs.analyse(means, ssw, m, test, chosen, pair_effects, seed, chunk)

    more = {
        "pairs": int(spec.pairs),
        "cluster_size": m,
        "people": int(m * spec.clusters),
        "matching_correlation": r,
        "matching_scale": spec.matching_scale,
        "pair_effects": pair_effects,
        "df_rule": "pairs - 1",
    }
    usual = ("kenward-roger", "satterthwaite", "paired t", "permutation")
    return _Plan(run, planned_pairs.ANALYSES, usual, settings | more, _formula(spec))


def _layout(spec: PowerDesign, test: Test, settings: dict[str, Any], level: str | None) -> _Plan:
    plain = spec.correlation == "exchangeable" and (not spec.iac or spec.turnover == 1.0)
    if level is None:
        level = "people" if plain and not spec.intervention_sd else "cluster-periods"
    if level not in planned_layout.LEVELS:
        raise InputError(unknown_word(str(level), planned_layout.LEVELS, what="level"))
    if level == "people" and spec.iac and spec.turnover < 1.0:
        raise InputError('level="people" knows nothing of people who are seen again (iac): level="cluster-periods" does.')
    wedge = planned_layout.prepare(spec)
    used = level

    def run(n: int, chunk: int, chosen: list[str], seed: int) -> Chunk:
        means, ssw = planned_layout.draw(wedge, n, seed, chunk, sd=float(spec.sd), people=used == "people")
        found = Test(test.effect * float(spec.sd), test.alpha, test.sides)
        return planned_layout.analyse(wedge, means, ssw, found, chosen, used, seed, chunk)

    more = {
        "cluster_size": float(wedge.size[wedge.sequence][wedge.cells].mean()),
        "people": round(float((wedge.size[wedge.sequence] * wedge.cells).sum())),
        "layout": [[None if np.isnan(v) else v for v in row] for row in spec.layout],
        "correlation": spec.correlation,
        "cac": spec.cac,
        "iac": spec.iac,
        "level": level,
        "df_rule": "sites - 2",
    }
    return _Plan(run, planned_layout.ANALYSES, ("kenward-roger", "satterthwaite", "permutation"), settings | more, _formula(spec))


def _exact_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's limits of a share."""
    tail = (1.0 - level) / 2.0
    low = 0.0 if count == 0 else float(special.betaincinv(count, n - count + 1.0, tail))
    high = 1.0 if count == n else float(special.betaincinv(count + 1.0, n - count, 1.0 - tail))
    return low, high


def _formula(spec: PowerDesign) -> float:
    """The noncentral-F power of the same design."""
    from trialkit.power import power

    return float("nan") if spec.effect == 0.0 else float(power(spec).power)


# --- input --------------------------------------------------------------------------------------------------


def _chosen(analyses: Sequence[str] | None, plan: _Plan) -> list[str]:
    if analyses is None:
        usual = list(plan.usual)
        # a layout with missing cells has no allocations of clusters to compare
        if any(v is None for row in plan.settings.get("layout", ()) for v in row):
            usual.remove("permutation")
        return usual
    if isinstance(analyses, str):
        raise InputError(f"analyses={analyses!r} is one word; give a list of names: analyses=[{analyses!r}].")
    for name in analyses:
        if name in ANALYSES and name not in plan.known:
            design = plan.settings["design"]
            raise InputError(f"analysis '{name}' has no meaning in a {design} design. Here: {', '.join(plan.known)}.")
        if name not in plan.known:
            raise InputError(unknown_word(str(name), plan.known, what="analysis"))
    if not analyses:
        raise InputError("analyses names none: leave it out for the usual ones.")
    return list(dict.fromkeys(analyses))


def _sizes(sizes: Sequence[int]) -> Floats:
    people = np.sort(np.asarray(list(sizes), dtype=np.float64))
    bad = people[(people < 1) | (people != np.round(people))]
    if len(bad):
        raise InputError(f"sizes holds {few(bad.tolist())}; every site needs a whole number of people, at least 1.")
    _even(len(people))
    return people


def _equal(spec: PowerDesign) -> Floats:
    m = float(spec.cluster_size)
    if m != round(m):
        raise InputError(f"cluster_size={m:g} is not a whole number of at least 1.")
    _even(int(spec.clusters))
    return np.full(int(spec.clusters), m)


def _even(sites: int) -> None:
    if sites % 2 or sites < 4:
        raise InputError(f"{sites} sites cannot be split evenly over two arms with a site to spare in each. Give an even number from 4.")


# what the simulation draws and fits; everything else of a design belongs to a scenario
_DRAWN = {
    "design", "outcome", "clusters", "pairs", "cluster_size", "icc", "effect", "sd", "alpha", "sides", "matching_correlation",
    "matching_scale", "layout", "clusters_per_sequence", "correlation", "person_correlation", "turnover", "cac", "iac", "intervention_sd",
    "intervention_correlation", "time_effects", "icc_source", "df", "distribution", "estimand",
}  # fmt: skip


def _check(spec: PowerDesign) -> None:
    """A design that can be simulated here, with nothing left out."""
    if spec.design not in ("parallel", "matched-pairs", "longitudinal") or spec.outcome != "continuous":
        raise InputError(
            "planned_power simulates parallel, matched-pair and longitudinal designs of a continuous outcome, not a "
            f"{spec.design} design of a {spec.outcome} one. A whole simulated trial is trialkit.check of a Scenario."
        )
    extra = [name for name in spec.given() if name not in _DRAWN]
    if extra:
        raise InputError(f"{', '.join(extra)}: not part of what planned_power simulates; trialkit.check of a Scenario can.")
    missing = [n for n in ("clusters", "cluster_size", "icc", "effect") if getattr(spec, n) is None]
    if missing:
        noun = "give clusters and cluster_size, or sizes" if set(missing) & {"clusters", "cluster_size"} else f"{missing[0]} is missing"
        raise InputError(f"{noun}.")
    for name in ("clusters", "icc", "sd"):
        if isinstance(getattr(spec, name), tuple):
            raise InputError(f"{name} by arm is not simulated here: give one number.")
