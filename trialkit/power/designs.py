"""Every design as independent units with a design matrix and a covariance: the one engine behind `trialkit.power`.

Each function turns a specification into units for `trialkit._kernels.gls`, says which degrees of freedom go with them, and in which formula
the result can be looked up. The closed forms themselves stand in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels import gls
from trialkit.door import InputError
from trialkit.power.outcomes import Scale, arms, on_analysis_scale
from trialkit.power.specification import PowerDesign

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VersusControl:
    """Every intervention arm against the control.

    Attributes
    ----------
    effect : (k,)
        Differences from control.
    std_error : (k,)
    loading : (k,)
        sqrt{n_i / (n_0 + n_i)}; two comparisons have the product of theirs as correlation.
    """

    effect: tuple[float, ...]
    std_error: tuple[float, ...]
    loading: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Precision:
    """How well a design estimates its effect.

    Attributes
    ----------
    variance : float
        Of the effect estimate, on the analysis scale.
    df, numerator_df : float
        Of the test; ``df`` may be infinite.
    effect : float or None
        On the analysis scale.
    noncentrality : float or None
        effect^2 / variance, or its several-arm counterpart; with a margin (distance from it)^2 / variance.
    clusters, cluster_size : float
        What is analysed, after attrition.
    formula, df_rule : str
    sources : tuple of str
    scale : Scale
    """

    variance: float
    df: float
    effect: float | None
    noncentrality: float | None
    clusters: float
    cluster_size: float
    formula: str
    df_rule: str
    sources: tuple[str, ...]
    scale: Scale
    numerator_df: float = 1.0
    versus: VersusControl | None = None

    def scaled(self, times: float, df: float) -> Precision:
        """The same with so many times the clusters, where every variance goes as one over their number."""
        versus = self.versus
        if versus is not None:
            versus = replace(versus, std_error=tuple(e / math.sqrt(times) for e in versus.std_error))
        lam = self.noncentrality if self.noncentrality is None else self.noncentrality * times
        return replace(self, variance=self.variance / times, df=df, noncentrality=lam, clusters=self.clusters * times, versus=versus)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A design that is about to be evaluated: the outcome's scale, and counts and sizes as analysed."""

    design: PowerDesign
    scale: Scale
    counts: tuple[float, float]  # clusters analysed: control, intervention
    size: Any  # people a cluster analysed
    cv2: tuple[float, float]  # squared coefficient of variation of the sizes

    @property
    def clusters(self) -> float:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class _Fit:
    variance: float
    df: dict[str, float]
    rule: str
    formula: str
    sources: tuple[str, ...] = ()
    noncentrality: float | None = None
    numerator_df: float = 1.0
    versus: VersusControl | None = None


def distance(design: PowerDesign, effect: float) -> float:
    """How far an effect lies on the good side of the value that is tested: of 0, or of the margin."""
    if design.hypothesis == "superiority":
        return abs(effect)
    margin = float(design.margin or 0.0)
    if design.hypothesis == "equivalence":
        return margin - abs(effect)
    good = effect if design.better == "higher" else -effect
    return good + margin if design.hypothesis == "non-inferiority" else good - margin


def precision(design: PowerDesign, *, clusters: float | None = None, size: float | None = None) -> Precision:
    """Variance, df and noncentrality of a design.

    ``clusters`` and ``size`` may take the place of the design's own; they are real (``size`` may be infinite), as a solver needs.

    Raises
    ------
    InputError
        Something is missing, or the design leaves no degrees of freedom, or does not identify the effect.
    """
    plan = _plan(design, clusters, size)
    try:
        fit = _BY_KIND[str(design.design)](plan)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{error}: a {design.design} design with these arguments does not identify the effect.") from None
    rule = design.df if isinstance(design.df, str) else fit.rule
    if isinstance(design.df, float):
        df, rule = design.df, "given"
    else:
        if rule not in fit.df:
            raise InputError(f'df="{rule}" has no meaning in a {design.design} design. Here: {", ".join(fit.df)}.')
        df = fit.df[rule]
        if rule not in ("infinite", "subjects"):
            df -= design.n_cluster_covariates
    if df <= 0 and design.distribution in ("z", "z-both-tails", "z-plus-one"):
        df, rule = math.inf, "none"  # the normal formula asks for none
    if df <= 0:
        raise InputError(
            f"{plan.clusters:g} clusters{_covariates(design)} leave no degrees of freedom for the test (df = {_words(rule)} = {df:g}): "
            "the variance between clusters cannot be estimated. Use more clusters."
        )
    variance = fit.variance * design.variance_factor
    effect = plan.scale.effect
    lam = fit.noncentrality
    if lam is not None:
        lam /= design.variance_factor
    elif effect is not None:
        lam = distance(design, effect) ** 2 / variance if variance > 0 else math.inf
    versus = fit.versus
    if versus is not None:
        versus = replace(versus, std_error=tuple(e * math.sqrt(design.variance_factor) for e in versus.std_error))
    mean_size = (
        np.nanmean(np.concatenate([np.ravel(np.asarray(s, dtype=float)) for s in _as_list(plan.size)]))
        if plan.size is not None
        else math.nan
    )
    return Precision(
        variance=variance,
        df=df,
        effect=effect,
        noncentrality=lam,
        clusters=plan.clusters,
        cluster_size=float(mean_size),
        formula=f"{fit.formula}; {plan.scale.formula}",
        df_rule=_words(rule) + _covariates(design) if rule != "given" else "given",
        sources=(*fit.sources, *plan.scale.sources),
        scale=plan.scale,
        numerator_df=fit.numerator_df,
        versus=versus,
    )


def _covariates(design: PowerDesign) -> str:
    return f" - {design.n_cluster_covariates} cluster-level covariates" if design.n_cluster_covariates else ""


_RULES = {
    "clusters-2": "clusters - 2",
    "clusters-3": "clusters - 3",
    "clusters-4": "clusters - 4",
    "clusters-arms": "clusters - arms",
    "pairs-1": "pairs - 1",
    "clusters-strata-1": "clusters - strata - 1",
    "within-strata": "clusters - 2 x strata",
    "strata-1": "strata - 1",
    "welch": "Welch-Satterthwaite",
    "residual": "cluster-periods - fixed effects",
    "containment": "cluster-periods - clusters",
    "infinite": "infinite",
    "none": "none are left for a t test",
    "subjects": "people - 2",
}


def _words(rule: str) -> str:
    return _RULES.get(rule, rule)


def _as_list(size: Any) -> list[Any]:
    return list(size) if isinstance(size, tuple) and any(isinstance(s, tuple) for s in size) else [size]


# --- counts and sizes -----------------------------------------------------------------------------------------


def _plan(design: PowerDesign, clusters: float | None, size: float | None) -> _Plan:
    scale = on_analysis_scale(design)
    counts = _counts(design, clusters)
    kept = 1 - design.cluster_attrition
    counts = (counts[0] * kept, counts[1] * kept)
    if design.distribution == "z-plus-one":
        spare = 1.0
        counts = (counts[0] - spare, counts[1] - spare)
        if design.design == "matched-pairs":
            counts = (counts[0] - spare, counts[1] - spare)
        if min(counts) <= 0:
            raise InputError("Hayes and Bennett's formula takes one cluster an arm (two when paired) off: too few are left.")
    m = scale.size if size is None else size
    if size is not None and math.isinf(size):
        # near enough to the limit for the last digit, and for matrices not so near that rounding makes them singular
        m = 1e10 if design.design in ("longitudinal", "baseline") else 1e40
    if m is None and design.design != "three-level":
        raise InputError("cluster_size is missing: the number of people a cluster (a rate needs person_time).")
    cv2 = tuple(c * c for c in arms(design.cluster_size_cv))
    if design.attrition:
        m = _times(m, 1 - design.attrition)
        if design.person_time is None and _least(m) < 1 - 1e-12:
            raise InputError(
                f"attrition = {design.attrition:g} leaves {_least(m):.2g} people a cluster: whole clusters would be lost. "
                "Say so with cluster_attrition, or plan larger clusters."
            )
        if design.attrition_cv and not isinstance(m, tuple):
            cv2 = tuple(c + design.attrition / m for c in cv2)
    return _Plan(design, scale, counts, m, (cv2[0], cv2[1]))


def _least(value: Any) -> float:
    return min(_least(v) for v in value) if isinstance(value, tuple) else float(value)


def _times(value: Any, factor: float) -> Any:
    return tuple(_times(v, factor) for v in value) if isinstance(value, tuple) else value * factor


def _counts(design: PowerDesign, clusters: float | None) -> tuple[float, float]:
    if design.design == "longitudinal" and clusters is None:
        clusters = design.clusters
    if clusters is None:
        if isinstance(design.clusters, tuple):
            return (float(design.clusters[0]), float(design.clusters[1]))
        if design.clusters is None:
            noun = "pairs" if design.design == "matched-pairs" else "clusters"
            raise InputError(f"{noun} is missing: their number" + ("" if noun == "pairs" else ", both arms together") + ".")
        clusters = float(design.clusters)
    if design.design == "partially-nested":
        return (0.0, float(clusters))
    if isinstance(design.clusters, tuple):
        share = design.clusters[1] / sum(design.clusters)
    else:
        share = design.allocation_ratio / (1 + design.allocation_ratio)
    return ((1 - share) * clusters, share * clusters)


def mean_variance(between: float, within: float, size: Any, cv2: float, analysis: str) -> float:
    """Variance of an arm's mean times its number of clusters: tau^2 + w/m, and what unequal sizes make of it under the planned analysis.

    With the sizes given: exact. With their coefficient of variation: van Breukelen, Candel & Berger 2007 (mixed model), Eldridge, Ashby &
    Kerry 2006 (people weighted equally), and the expectation of 1/m to second order (cluster means).
    """
    if isinstance(size, tuple):
        m = np.array(size, dtype=float)
        v = between + within / m
        if analysis == "mixed-model":
            return float(1 / np.mean(1 / v))
        if analysis == "size-weighted":
            return float(len(m) * (m**2 * v).sum() / m.sum() ** 2)
        return float(v.mean())
    v = between + within / size
    if cv2 == 0:
        return float(v)
    if analysis == "size-weighted":
        return float(v + between * cv2)
    if analysis == "cluster-means":
        return float(v + within * cv2 / size)
    share = between / v if v > 0 else 0.0
    efficiency = 1 - cv2 * share * (1 - share)
    if efficiency <= 0:
        raise InputError(
            f"a coefficient of variation of {math.sqrt(cv2):g} is outside the range of the mixed-model approximation (relative efficiency "
            f'{efficiency:.2f}). Give the sizes themselves, or say analysis="size-weighted".'
        )
    return float(v / efficiency)


def _components(plan: _Plan, arm: int) -> tuple[float, float]:
    """Variance between clusters and within, after covariates."""
    s2, rho = plan.scale.variance[arm], plan.scale.icc[arm]
    return rho * s2 * (1 - plan.design.r2_cluster), (1 - rho) * s2 * (1 - plan.design.r2_person)


def _by_arm(size: Any) -> tuple[Any, Any]:
    """Sizes of (control, intervention)."""
    if isinstance(size, tuple) and len(size) == 2:
        return size[0], size[1]
    return size, size


def _cluster_variances(plan: _Plan) -> tuple[float, float]:
    sizes = _by_arm(plan.size)
    out = [mean_variance(*_components(plan, a), sizes[a], plan.cv2[a], plan.design.analysis) for a in (0, 1)]
    return out[0], out[1]


def _people(plan: _Plan) -> float:
    sizes = _by_arm(plan.size)
    return sum(n * float(np.mean(s)) for n, s in zip(plan.counts, sizes, strict=True))


# --- the designs ----------------------------------------------------------------------------------------------


def _parallel(plan: _Plan) -> _Fit:
    v = _cluster_variances(plan)
    n = plan.counts
    # a column an arm: arms of very different precision do no harm to each other
    groups = [gls.units([np.eye(2)[a]], [[v[a]]], n[a]) for a in (0, 1)]
    variance = gls.contrast_covariance(groups, [-1.0, 1.0]).variance
    unequal = isinstance(plan.size, tuple) or any(plan.cv2)
    formula = "Var = v0/J0 + v1/J1, v = sigma2 {rho (1-R2_cluster) + (1-rho)(1-R2_person)/m}"
    sources = ["Raudenbush 1997, Psychol Methods 2:173"]
    if unequal:
        how = {
            "mixed-model": (
                "v divided by the relative efficiency 1 - CV^2 L(1-L)",
                "van Breukelen, Candel & Berger 2007, Stat Med 26:2589",
            ),
            "size-weighted": ("v with rho (1+CV^2)", "Eldridge, Ashby & Kerry 2006, Int J Epidemiol 35:1292"),
            "cluster-means": ("v with (1+CV^2)/m", "Kerry & Bland 2001, Stat Med 20:377"),
        }[plan.design.analysis]
        if isinstance(plan.size, tuple):
            formula += f"; exact over the sizes given, {plan.design.analysis} analysis"
        else:
            formula += f"; {how[0]}"
            sources.append(how[1])
    parts = [v[a] / n[a] for a in (0, 1)]
    return _Fit(
        variance,
        {
            "clusters-2": plan.clusters - 2,
            "clusters-3": plan.clusters - 3,
            "welch": _welch(parts, [n[0] - 1, n[1] - 1]),
            "subjects": _people(plan) - 2,
            "infinite": math.inf,
        },
        "clusters-2",
        formula,
        tuple(sources),
    )


def _welch(parts: Sequence[float], dfs: Sequence[float]) -> float:
    if min(dfs) <= 0:
        return 0.0
    return sum(parts) ** 2 / sum(p * p / d for p, d in zip(parts, dfs, strict=True))


def _matched_pairs(plan: _Plan) -> _Fit:
    design = plan.design
    v = _cluster_variances(plan)
    pairs = plan.clusters / 2
    r = design.matching_correlation
    if design.matching_scale == "effects":
        between = [_components(plan, a)[0] for a in (0, 1)]
        covariance = r * math.sqrt(between[0] * between[1])
    else:
        covariance = r * math.sqrt(v[0] * v[1])
    difference = v[0] + v[1] - 2 * covariance
    variance = gls.contrast_covariance([gls.units([[1.0]], [[difference]], pairs)], [1.0]).variance
    return _Fit(
        variance,
        {"pairs-1": pairs - 1, "clusters-2": plan.clusters - 2, "infinite": math.inf, "subjects": _people(plan) - 2},
        "pairs-1",
        "Var = (v0 + v1 - 2 c)/K, c = r sqrt(v0 v1)"
        + (" with r of the true cluster effects" if design.matching_scale == "effects" else ""),
        ("Donner & Klar 2000, Design and Analysis of Cluster Randomization Trials",),
    )


def _stratified(plan: _Plan) -> _Fit:
    design = plan.design
    s2, rho = plan.scale.variance, plan.scale.icc
    strata = float(design.strata)
    drawn = plan.clusters / (1 - design.cluster_attrition)
    if drawn < 2 * strata - 1e-9:
        raise InputError(
            f"{drawn:g} clusters in {strata:g} strata: every stratum needs a cluster in each arm, {2 * strata:g} at the least."
        )
    sizes = _by_arm(plan.size)
    v = []
    for a in (0, 1):
        between = rho[a] * s2[a] * (1 - design.r2_cluster)
        within = (1 - rho[a] - design.icc_stratum) * s2[a] * (1 - design.r2_person)
        v.append(mean_variance(between, within, sizes[a], plan.cv2[a], design.analysis))
    heterogeneity = design.icc_stratum * design.stratum_heterogeneity * sum(s2) / 2 if design.strata_effects == "random" else 0.0
    # a stratum's own difference is what it contributes; its level tells nothing about the effect
    difference = strata * (v[0] / plan.counts[0] + v[1] / plan.counts[1]) + heterogeneity
    variance = gls.contrast_covariance([gls.units([[1.0]], [[difference]], strata)], [1.0]).variance
    rules = {
        "clusters-strata-1": plan.clusters - strata - 1,
        "within-strata": plan.clusters - 2 * strata,
        "strata-1": strata - 1,
        "clusters-2": plan.clusters - 2,
        "infinite": math.inf,
    }
    return _Fit(
        variance,
        rules,
        "strata-1" if design.strata_effects == "random" else "clusters-strata-1",
        "Var = rho_S omega sigma2/S + sigma2 {rho (1-R2_cluster) + (1-rho-rho_S)(1-R2_person)/m} / {p(1-p)J}"
        if design.strata_effects == "random"
        else "Var = sigma2 {rho (1-R2_cluster) + (1-rho-rho_S)(1-R2_person)/m} / {p(1-p)J}, strata as fixed effects",
        ("Dong & Maynard 2013, J Res Educ Eff 6:24",),
    )


def _baseline(plan: _Plan) -> _Fit:
    design = plan.design
    R = period_correlation(2, "two-period", design.cac or 0.0)
    m1 = plan.size
    m0 = m1 if design.baseline_cluster_size is None else design.baseline_cluster_size * (1 - design.attrition)
    if design.iac and m0 != m1:
        raise InputError("iac describes a cohort, measured twice: it has the same size at baseline. Leave baseline_cluster_size out.")
    groups = []
    for a in (0, 1):
        between, within = _components(plan, a)
        persons = np.array([[1 / m0, design.iac / m1], [design.iac / m1, 1 / m1]])
        V = between * R + within * persons
        if plan.cv2[a]:
            V = V * mean_variance(between, within, m1, plan.cv2[a], design.analysis) / (between + within / m1)
        if design.baseline == "ancova":  # baseline means equal in both arms by randomisation
            groups.append(gls.units([[1.0, 0.0, 0.0], [1.0, 1.0, float(a)]], V, plan.counts[a]))
        elif design.baseline == "change":
            change = np.array([[-1.0, 1.0]])
            groups.append(gls.units(change @ np.array([[1.0, 0.0, 0.0], [1.0, 1.0, float(a)]]), change @ V @ change.T, plan.counts[a]))
        else:
            groups.append(gls.units([[0.0, 1.0, float(a)]], V[1:, 1:], plan.counts[a]))
    variance = gls.contrast_covariance(groups, [0.0, 0.0, 1.0]).variance
    factor = {"ancova": "(1 - r^2)", "change": "2(1 - r)", "post": "1"}[str(design.baseline)]
    return _Fit(
        variance,
        {
            "clusters-2": plan.clusters - 2,
            "clusters-3": plan.clusters - 3,
            "residual": 2 * plan.clusters - 3,
            "infinite": math.inf,
            "subjects": _people(plan) - 2,
        },
        "clusters-2",
        f"Var = {factor} x (v0/J0 + v1/J1), r = {{m rho CAC + (1-rho) IAC}} / {{1 + (m-1) rho}}",
        ("Teerenstra et al. 2012, Stat Med 31:2169", "Hooper et al. 2016, Stat Med 35:4718"),
    )


def _three_level(plan: _Plan) -> _Fit:
    design = plan.design
    if design.subcluster_size is None and plan.size is None:
        raise InputError("three levels need subcluster_size, the number of people a subcluster (or cluster_size, the number a cluster).")
    J = float(design.subclusters)
    n = plan.size / J if plan.size is not None else design.subcluster_size * (1 - design.attrition)
    groups, parts = [], []
    rho2 = arms(design.icc_subcluster)
    for a in (0, 1):
        s2, rho3 = plan.scale.variance[a], plan.scale.icc[a]
        top = rho3 * s2 * (1 - design.r2_cluster)
        middle = rho2[a] * s2 * (1 - design.r2_subcluster)
        person = (1 - rho3 - rho2[a]) * s2 * (1 - design.r2_person)
        v = top + (middle + person / n) / J
        parts.append(v / plan.counts[a])
        groups.append(gls.units([np.eye(2)[a]], [[v]], plan.counts[a]))
    variance = gls.contrast_covariance(groups, [-1.0, 1.0]).variance
    return _Fit(
        variance,
        {"clusters-2": plan.clusters - 2, "welch": _welch(parts, [n - 1 for n in plan.counts]), "infinite": math.inf},
        "clusters-2",
        "Var = sigma2 {rho3 (1-R2_3) + rho2 (1-R2_2)/J + (1-rho3-rho2)(1-R2_1)/(J n)} / {p(1-p)K}",
        ("Konstantopoulos 2008, J Res Educ Eff 1:66", "Dong & Maynard 2013, J Res Educ Eff 6:24"),
    )


def period_correlation(periods: int, structure: str, decay: float) -> Array:
    """Correlation over periods of a cluster's (or a person's) deviation: constant 1, one value off the diagonal, or decay^|s-t|."""
    lag = np.abs(np.subtract.outer(np.arange(periods), np.arange(periods)))
    if structure == "exchangeable":
        return np.ones((periods, periods))
    if structure == "decay":
        return np.asarray(np.where(lag == 0, 1.0, float(decay) ** lag))
    return np.asarray(np.where(lag == 0, 1.0, float(decay)))


@dataclass(frozen=True, slots=True)
class Cells:
    """The cluster-period means of a longitudinal design, sequence by sequence.

    Attributes
    ----------
    count : (S,)
        Clusters of each sequence.
    seen : (S, T) bool
    size : (S, T)
        People a cell.
    treated : (S, T)
        The layout, 0 where a cell is not observed.
    design : (S, T, p)
        Period columns first, then those of the effect.
    covariance : (S, T, T)
        Of a cluster's cell means.
    n_time : int
    """

    count: Array
    seen: NDArray[np.bool_]
    size: Array
    treated: Array
    design: Array
    covariance: Array
    n_time: int


def layout_cells(design: PowerDesign) -> Cells:
    """Design matrix and covariance of the cluster-period means, for the clusters the design has.

    Raises
    ------
    InputError
        Not a longitudinal design, or something is missing.
    """
    if design.design != "longitudinal":
        raise InputError(f"cluster-period means belong to a design with a layout, and this one is {design.design}.")
    return _cells(_plan(design, None, None))


def _cells(plan: _Plan) -> Cells:
    design = plan.design
    X = np.array(design.layout, dtype=float)
    S, T = X.shape
    per = design.clusters_per_sequence
    per = np.array(per, dtype=float) if isinstance(per, tuple) else np.full(S, 1.0 if per is None else float(per))
    per = per * plan.clusters / per.sum()
    size = np.broadcast_to(np.array(plan.size, dtype=float), (S, T)) if isinstance(plan.size, tuple) else np.full((S, T), float(plan.size))
    if np.any(~np.isfinite(X).any(axis=0)):
        raise InputError("a period of the layout is missing in every sequence: leave its column out.")
    structure = str(design.correlation)
    R = period_correlation(T, structure, 1.0 if design.cac is None else design.cac)
    P = period_correlation(T, "decay" if design.person_correlation == "decay" else "two-period", design.iac)
    if design.person_correlation == "decay" and design.iac == 0:
        P = np.eye(T)
    P = np.where(np.eye(T, dtype=bool), 1.0, P * (1 - design.turnover))
    time, n_time = _time_columns(T, design.time_effects)
    exposure = _exposure_columns(X, design)
    seen = np.isfinite(X)
    mix = np.where(seen, X, 0.0)
    spread = plan.scale.by_period if plan.scale.by_period is not None else plan.scale.variance
    sd = np.sqrt((1 - mix) * np.array(spread[0]) + mix * np.array(spread[1]))
    icc = plan.scale.icc
    rho = (1 - mix) * icc[0] + mix * icc[1]
    between = np.sqrt(rho) * sd * math.sqrt(1 - design.r2_cluster)
    within = np.sqrt(1 - rho) * sd * math.sqrt(1 - design.r2_person) / np.sqrt(size)
    V = R * (between[:, :, None] * between[:, None, :]) + P * (within[:, :, None] * within[:, None, :])
    if design.intervention_sd:
        V = V + design.intervention_sd**2 * (mix[:, :, None] * mix[:, None, :])
        stay = math.sqrt(design.cac if design.cac is not None else 1.0)
        cross = design.intervention_correlation * design.intervention_sd * stay * between * mix
        V = V + cross[:, :, None] + cross[:, None, :]
    D = np.concatenate([np.broadcast_to(time, (S, T, n_time)), exposure], axis=2)
    return Cells(per, seen, size, mix, D, V, n_time)


def _longitudinal(plan: _Plan) -> _Fit:
    design = plan.design
    structure = str(design.correlation)
    cells = _cells(plan)
    per, seen, D, V, n_time = cells.count, cells.seen, cells.design, cells.covariance, cells.n_time
    n_effects = D.shape[2] - n_time
    # sequences seen in the same periods are units of one shape
    groups = []
    used = (per > 0) & seen.any(axis=1)
    for pattern in np.unique(seen[used], axis=0) if not seen[used].all() else seen[:1]:
        here = used & (seen == pattern).all(axis=1)
        at = np.flatnonzero(pattern)
        groups.append(gls.units(D[here][:, at], V[here][:, at[:, None], at], per[here]))
    contrast = np.concatenate([np.zeros(n_time), np.full(n_effects, 1 / n_effects)])
    fit = gls.contrast_covariance(groups, contrast)
    what = {
        "exchangeable": "one correlation over all periods (Hussey & Hughes)",
        "two-period": "CAC between any two periods",
        "decay": "CAC^|s-t| between periods",
    }[structure]
    sources = ["Hussey & Hughes 2007, Contemp Clin Trials 28:182", "Hooper et al. 2016, Stat Med 35:4718"]
    if structure == "decay":
        sources.append("Kasza et al. 2019, Stat Methods Med Res 28:703")
    if 0 < design.turnover < 1:
        sources.append("Kasza, Hooper, Copas & Forbes 2020, Stat Med 39:1871")
    if design.person_correlation == "decay":
        sources.append("Li 2020, Stat Med 39:438")
    if design.estimand == "exposure-average":
        sources.append("Kenny et al. 2022, Stat Med 41:4311")
    return _Fit(
        fit.variance,
        {
            "clusters-2": plan.clusters - 2,
            "clusters-3": plan.clusters - 3,
            "residual": fit.rows - fit.rank,
            "containment": fit.rows - plan.clusters,
            "infinite": math.inf,
        },
        "clusters-2",
        f"Var = the effect's element of (sum_i D_i' V_i^-1 D_i)^-1, cluster-period means, {what}",
        tuple(sources),
    )


def _time_columns(periods: int, kind: str) -> tuple[Array, int]:
    if kind == "categorical":
        return np.eye(periods), periods
    if kind == "linear":
        return np.column_stack([np.ones(periods), np.arange(periods, dtype=float)]), 2
    return np.ones((periods, 1)), 1


def _exposure_columns(X: Array, design: PowerDesign) -> Array:
    """(sequences, periods, effects): one treatment column, or one for each length of exposure."""
    filled = np.nan_to_num(X)
    if design.estimand == "constant":
        return filled[:, :, None]
    exposure = np.cumsum(filled > 0, axis=1) * (filled > 0)
    longest = int(exposure.max())
    if longest == 0:
        raise InputError("the layout has no intervention period.")
    return np.stack([(exposure == k) * filled for k in range(1, longest + 1)], axis=2)


def _partially_nested(plan: _Plan) -> _Fit:
    design = plan.design
    J, n = plan.counts[1], float(design.controls) * (1 - design.attrition)
    m = plan.size[1] if isinstance(plan.size, tuple) else plan.size
    v = mean_variance(*_components(plan, 1), m, plan.cv2[1], design.analysis)
    v0 = plan.scale.variance[0] * (1 - design.r2_person)
    groups = [gls.units([[0.0, 1.0]], [[v]], J), gls.units([[1.0, 0.0]], [[v0]], n)]
    variance = gls.contrast_covariance(groups, [-1.0, 1.0]).variance
    if J <= 1 or n <= 1:
        raise InputError("a partially nested design needs more than one cluster and more than one person without a cluster.")
    return _Fit(
        variance,
        {"welch": _welch([v / J, v0 / n], [J - 1, n - 1]), "infinite": math.inf, "subjects": J * m + n - 2},
        "welch",
        "Var = sigma2_1 {1 + (m-1) rho}/(m J) + sigma2_0/n",
        ("Moerbeek & Wong 2008, Stat Med 27:2850",),
    )


def _several_arms(plan: _Plan) -> _Fit:
    design = plan.design
    g = int(design.arms)
    v = _cluster_variances(plan)[0]
    weights = np.concatenate([[1.0], np.full(g - 1, design.allocation_ratio)])
    n = plan.clusters * weights / weights.sum()
    groups = [gls.units([np.eye(g)[a]], [[v]], n[a]) for a in range(g)]
    df = {"clusters-arms": plan.clusters - g, "infinite": math.inf}
    sources = ("Raudenbush 1997, Psychol Methods 2:173", "Zhang & Yuan 2018, Practical Statistical Power Analysis")
    if design.versus_control is not None:
        return _versus_control(design, v, n, df)
    if design.means is not None and design.contrast is None:
        C = np.eye(g)[1:] - np.eye(g)[0]
        middle = gls.contrast_covariance(groups, C).covariance
        difference = C @ np.array(design.means)
        lam = float(difference @ np.linalg.solve(middle, difference))
        return _Fit(
            v / n[0],
            df,
            "clusters-arms",
            "F(g-1, J-g), noncentrality sum k_j (mu_j - mubar)^2 / v, v = sigma2 {rho + (1-rho)/m}",
            sources,
            noncentrality=lam,
            numerator_df=g - 1.0,
        )
    contrast = np.array(design.contrast) if design.contrast is not None else np.concatenate([[-1.0], np.full(g - 1, 1 / (g - 1))])
    variance = gls.contrast_covariance(groups, contrast).variance
    words = "given contrast" if design.contrast is not None else "mean of the interventions against control"
    return _Fit(variance, df, "clusters-arms", f"Var = sum c_j^2 v/k_j, {words}", sources)


def _versus_control(design: PowerDesign, v: float, n: Array, df: dict[str, float]) -> _Fit:
    """Each intervention arm against control; the smallest difference stands for them where one number is asked for."""
    variances = v / n[0] + v / n[1:]
    if design.means is not None:
        effects = tuple(m - design.means[0] for m in design.means[1:])
    else:
        effects = (0.0 if design.effect is None else float(design.effect),) * len(variances)
    least = min(effects, key=abs)
    loading = tuple(np.sqrt(n[1:] / (n[0] + n[1:])).tolist())
    known = design.means is not None or design.effect is not None
    source = {"dunnett": ("Dunnett 1955, J Am Stat Assoc 50:1096",), "bonferroni": (), "unadjusted": ()}[str(design.versus_control)]
    return _Fit(
        float(variances[0]),
        df,
        "clusters-arms",
        "Var = v/k_0 + v/k_j for arm j against control, one error variance for all",
        (*source, "Raudenbush 1997, Psychol Methods 2:173"),
        noncentrality=least**2 / float(variances[0]) if known else None,
        versus=VersusControl(effects, tuple(np.sqrt(variances).tolist()), loading) if known else None,
    )


def _effect_modification(plan: _Plan) -> _Fit:
    design = plan.design
    m = float(plan.size)
    s2, rho = plan.scale.variance[0], plan.scale.icc[0]
    rx, sx = float(design.modifier_icc or 0.0), design.modifier_sd
    share = plan.counts[1] / plan.clusters
    top = s2 * (1 - rho) * (1 + (m - 1) * rho)
    bottom = plan.clusters * m * share * (1 - share) * sx**2 * (1 + (m - 2) * rho - (m - 1) * rx * rho)
    return _Fit(
        top / bottom,
        {"clusters-2": plan.clusters - 2, "clusters-4": plan.clusters - 4, "infinite": math.inf, "subjects": _people(plan) - 4},
        "clusters-4" if rx == 1 else "clusters-2",
        "Var = sigma2 (1-rho){1+(m-1)rho} / [J m p(1-p) sd_x^2 {1+(m-2)rho-(m-1) rho_x rho}]",
        ("Yang, Li, Starks et al. 2020, Stat Med 39:4218",),
    )


_BY_KIND: dict[str, Callable[[_Plan], _Fit]] = {
    "parallel": _parallel,
    "matched-pairs": _matched_pairs,
    "stratified": _stratified,
    "baseline": _baseline,
    "three-level": _three_level,
    "longitudinal": _longitudinal,
    "partially-nested": _partially_nested,
    "several-arms": _several_arms,
    "effect-modification": _effect_modification,
}
