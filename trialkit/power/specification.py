"""One specification for every design: `PowerDesign`, frozen, proved when it is made, and read back from JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from numbers import Real
from typing import Any

import numpy as np

from trialkit.door import InputError, unknown_word

KINDS = (
    "parallel",
    "matched-pairs",
    "stratified",
    "baseline",
    "three-level",
    "longitudinal",
    "partially-nested",
    "several-arms",
    "effect-modification",
)
OUTCOMES = ("continuous", "binary", "rate", "count", "ordinal", "survival")
DISTRIBUTIONS = ("f", "z", "z-both-tails", "z-plus-one", "shifted-t", "shifted-t-both-tails", "t-upper")
_SAME_DISTRIBUTION = {"t": "f", "noncentral-f": "f", "noncentral-t": "f", "normal": "z", "shifted-central-t": "shifted-t"}
ANALYSES = ("mixed-model", "size-weighted", "cluster-means")
CORRELATIONS = ("exchangeable", "two-period", "decay")
_SAME_CORRELATION = {
    "block-exchangeable": "two-period",
    "exponential": "decay",
    "exponential-decay": "decay",
    "hussey-hughes": "exchangeable",
}
DF_RULES = ("clusters-2", "clusters-3", "welch", "residual", "containment", "infinite", "subjects", "within-strata")
ARMS = ("control", "intervention")
HYPOTHESES = ("superiority", "non-inferiority", "equivalence", "superiority-by-margin")
_SAME_HYPOTHESIS = {"noninferiority": "non-inferiority", "substantial-superiority": "superiority-by-margin", "tost": "equivalence"}
VERSUS_CONTROL = ("dunnett", "bonferroni", "unadjusted")

# argument: (least, is it open there, greatest, is it open there, what the number is)
_RANGES: dict[str, tuple[float, bool, float, bool, str]] = {
    "icc": (0, False, 1, True, "the share of the outcome's variance that lies between clusters"),
    "alpha": (0, True, 1, True, "the significance level"),
    "sd": (0, True, math.inf, True, "the outcome's standard deviation within an arm"),
    "cluster_size": (0, True, math.inf, True, "the number of people a cluster"),
    "cluster_size_cv": (0, False, math.inf, True, "the standard deviation of the cluster sizes over their mean"),
    "clusters": (0, True, math.inf, True, "the number of clusters in both arms together"),
    "pairs": (0, True, math.inf, True, "the number of matched pairs"),
    "allocation_ratio": (0, True, math.inf, True, "intervention clusters for each control cluster"),
    "r2_cluster": (0, False, 1, True, "the share of the variance between clusters that covariates explain"),
    "r2_person": (0, False, 1, True, "the share of the variance within clusters that covariates explain"),
    "r2_subcluster": (0, False, 1, True, "the share of the variance between subclusters that covariates explain"),
    "n_cluster_covariates": (0, False, math.inf, True, "the number of covariates measured on clusters"),
    "matching_correlation": (-1, True, 1, True, "the correlation within matched pairs"),
    "icc_stratum": (0, False, 1, True, "the share of variance between strata"),
    "stratum_heterogeneity": (0, False, math.inf, True, "the variance of the effect over strata, relative to the variance between strata"),
    "icc_subcluster": (0, False, 1, True, "the share of variance between subclusters within clusters"),
    "subclusters": (0, True, math.inf, True, "the number of subclusters a cluster"),
    "subcluster_size": (0, True, math.inf, True, "the number of people a subcluster"),
    "cac": (0, False, 1, False, "the cluster autocorrelation"),
    "iac": (0, False, 1, False, "the individual autocorrelation"),
    "turnover": (0, False, 1, False, "the share of people replaced between periods: 0 a closed cohort, 1 new people each period"),
    "baseline_cluster_size": (0, True, math.inf, True, "the number of people a cluster at baseline"),
    "intervention_sd": (0, False, math.inf, True, "the standard deviation of the effect over clusters"),
    "intervention_correlation": (-1, False, 1, False, "the correlation of a cluster's effect with its level"),
    "attrition": (0, False, 1, True, "the share of people lost"),
    "cluster_attrition": (0, False, 1, True, "the share of clusters lost"),
    "p_control": (0, True, 1, True, "the proportion in the control arm"),
    "p_intervention": (0, True, 1, True, "the proportion in the intervention arm"),
    "rate_control": (0, True, math.inf, True, "the rate in the control arm"),
    "rate_intervention": (0, True, math.inf, True, "the rate in the intervention arm"),
    "person_time": (0, True, math.inf, True, "the person-time at risk a cluster"),
    "k": (0, False, math.inf, True, "the coefficient of variation of the true cluster means"),
    "overdispersion": (0, True, math.inf, True, "the variance of a count over its mean"),
    "odds_ratio": (0, True, math.inf, True, "the odds ratio"),
    "hazard_ratio": (0, True, math.inf, True, "the hazard ratio"),
    "event_probability": (0, True, 1, False, "the probability that a person has the event"),
    "controls": (0, True, math.inf, True, "the number of people in the arm without clusters"),
    "modifier_icc": (0, False, 1, False, "the ICC of the effect modifier"),
    "modifier_sd": (0, True, math.inf, True, "the standard deviation of the effect modifier"),
    "margin": (0, True, math.inf, True, "the distance from no effect that matters, on the scale of the effect"),
    "variance_factor": (0, True, math.inf, True, "a further factor on the variance of the effect"),
}
_BY_ARM = ("icc", "icc_subcluster", "sd", "cluster_size", "cluster_size_cv", "clusters", "k")
_WHOLE = ("clusters", "pairs", "n_cluster_covariates", "subclusters", "arms", "strata")

# which arguments belong to which kind only; everything not named here belongs to all
_ONLY: dict[str, tuple[str, ...]] = {
    "pairs": ("matched-pairs",),
    "matching_correlation": ("matched-pairs",),
    "matching_scale": ("matched-pairs",),
    "strata": ("stratified",),
    "strata_effects": ("stratified",),
    "icc_stratum": ("stratified",),
    "stratum_heterogeneity": ("stratified",),
    "baseline": ("baseline",),
    "baseline_cluster_size": ("baseline",),
    "cac": ("baseline", "longitudinal"),
    "iac": ("baseline", "longitudinal"),
    "subclusters": ("three-level",),
    "subcluster_size": ("three-level",),
    "icc_subcluster": ("three-level",),
    "r2_subcluster": ("three-level",),
    "layout": ("longitudinal",),
    "clusters_per_sequence": ("longitudinal",),
    "correlation": ("longitudinal",),
    "person_correlation": ("longitudinal",),
    "turnover": ("longitudinal",),
    "intervention_sd": ("longitudinal",),
    "intervention_correlation": ("longitudinal",),
    "time_effects": ("longitudinal",),
    "estimand": ("longitudinal",),
    "controls": ("partially-nested",),
    "arms": ("several-arms",),
    "means": ("several-arms",),
    "contrast": ("several-arms",),
    "comparisons": ("several-arms",),
    "versus_control": ("several-arms",),
    "success": ("several-arms",),
    "modifier_icc": ("effect-modification",),
    "modifier_sd": ("effect-modification",),
    "allocation_ratio": ("parallel", "stratified", "baseline", "three-level", "effect-modification", "several-arms"),
    "cluster_size_cv": ("parallel", "matched-pairs", "stratified", "baseline", "partially-nested", "several-arms"),
    "analysis": ("parallel", "matched-pairs", "stratified", "baseline", "partially-nested", "several-arms"),
}
_OUTCOME_ONLY: dict[str, tuple[str, ...]] = {
    "p_control": ("binary", "ordinal"),
    "p_intervention": ("binary",),
    "icc_scale": ("binary",),
    "rate_control": ("rate", "count"),
    "rate_intervention": ("rate", "count"),
    "person_time": ("rate",),
    "overdispersion": ("count",),
    "k": ("rate", "binary", "count"),
    "proportions": ("ordinal",),
    "odds_ratio": ("ordinal", "binary"),
    "hazard_ratio": ("survival",),
    "event_probability": ("survival",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerDesign:
    """The assumptions behind a sample size: design, outcome, test. Every argument of `trialkit.power` is one of these.

    Two numbers where one is usual mean (control, intervention); a mapping ``{"control": ..., "intervention": ...}`` says the same.

    Attributes
    ----------
    design : str, optional
        One of ``KINDS``; found from the arguments when not given (``pairs`` means matched pairs, ``layout`` a longitudinal design ...).
    clusters : number or (control, intervention)
        Clusters, both arms together.
    cluster_size : number, sequence, or (control, intervention)
        People a cluster: a number; one number a cluster (or one a cluster of an arm); two sequences, one an arm. In a longitudinal
        design people a cluster *and period*, a number or a matrix shaped as the layout.
    cluster_size_cv : number
        Coefficient of variation of the sizes, when they are not known one by one.
    analysis : {"mixed-model", "size-weighted", "cluster-means"}
        The planned analysis, which decides what unequal sizes cost.
    icc : number
        Intracluster correlation (outcome given arm), 0 <= icc < 1.
    effect : number
        Difference intervention minus control in the outcome's units (with ``sd=1``: Cohen's d).
    sd : number
        Total standard deviation within an arm.
    alpha, sides : level of the test, 1 or 2 sides.
    allocation_ratio : number
        Intervention clusters for each control cluster.
    distribution : {"f", "z", "z-both-tails", "z-plus-one", "shifted-t", "shifted-t-both-tails", "t-upper"}
        "f": the exact noncentral F or t, both tails. The others are approximations, only by name: "z" the textbook normal formula,
        "z-plus-one" with Hayes and Bennett's added cluster an arm.
    df : number or one of ``DF_RULES``
        Degrees of freedom instead of the design's own rule.
    r2_cluster, r2_person, n_cluster_covariates
        Variance explained by covariates at either level, and the df that cluster-level covariates cost.
    pairs, matching_correlation, matching_scale
        Matched pairs; the correlation is that of cluster means, or of true cluster effects with ``matching_scale="effects"``.
    strata, strata_effects, icc_stratum, stratum_heterogeneity
        Strata with fixed or random effects; heterogeneity is the variance of the effect over strata over the variance between strata.
    baseline, cac, iac, baseline_cluster_size
        A baseline wave: "ancova", "change" or "post" analysis; cluster and individual autocorrelation (iac > 0: a cohort).
    subclusters, subcluster_size, icc_subcluster, r2_subcluster
        Three levels.
    layout, clusters_per_sequence, correlation, person_correlation, turnover, intervention_sd, intervention_correlation, time_effects,
    estimand
        Any 0/1/missing matrix, sequences by periods: stepped wedge, crossover ... with the correlation over periods.
    controls : number
        Partially nested: people in the arm without clusters; ``clusters`` are those of the intervention arm.
    arms, means, contrast, comparisons
        Several arms: their means and an omnibus F test; or a contrast; or ``comparisons`` tests with a Bonferroni level.
        ``allocation_ratio`` is then the clusters of each intervention arm for each control cluster.
    versus_control : {"dunnett", "bonferroni", "unadjusted"}
        Several arms: every intervention arm (of ``means``, the control first; or all with the same ``effect``) against control, at
        Dunnett's critical value, or at alpha over their number, or at alpha.
    success : {"each", "any", "all"}
        What the power of ``versus_control`` is of: "each" (default) every single comparison, so the least of them; "any" at least one
        significant; "all" every one significant in the same trial.
    hypothesis : {"superiority", "non-inferiority", "equivalence", "superiority-by-margin"}
        With a ``margin`` (positive, on the scale of the effect; the logarithm for ratios). The test is one-sided at ``alpha``, equivalence
        two such tests (TOST): 0.025 goes with the 95% confidence interval. Non-inferiority and equivalence assume no effect unless one is
        given.
    better : {"higher", "lower"}
        Which way a good effect points.
    modifier_icc, modifier_sd
        Effect modification: ``effect`` is the interaction coefficient.
    outcome : {"continuous", "binary", "rate", "count", "ordinal", "survival"}
        With its own arguments: ``p_control`` (in a longitudinal design also one a period), ``p_intervention``, ``odds_ratio``,
        ``rate_control``, ``rate_intervention``, ``person_time``, ``k``, ``overdispersion``, ``proportions``, ``hazard_ratio``,
        ``event_probability``; ``scale`` ("difference", "log-odds", "log-ratio"), ``pooled`` and ``icc_scale`` ("proportion", "latent").
    attrition, cluster_attrition, attrition_cv
        Share of people and of clusters lost; with ``attrition_cv=True`` losses also make the sizes vary.
    variance_factor : number
        A further factor on the variance of the effect, as some approximations for logistic models ask for.
    icc_source : str
        Where the ICC comes from; printed in the protocol paragraph.
    """

    design: str | None = None
    clusters: Any = None
    cluster_size: Any = None
    cluster_size_cv: Any = 0.0
    analysis: str = "mixed-model"
    icc: Any = None
    effect: Any = None
    sd: Any = 1.0
    alpha: float = 0.05
    sides: int = 2
    allocation_ratio: float = 1.0
    distribution: str = "f"
    df: Any = None
    r2_cluster: float = 0.0
    r2_person: float = 0.0
    n_cluster_covariates: int = 0
    pairs: Any = None
    matching_correlation: float = 0.0
    matching_scale: str = "means"
    strata: Any = None
    strata_effects: str = "fixed"
    icc_stratum: float = 0.0
    stratum_heterogeneity: float = 0.0
    baseline: str | None = None
    cac: float | None = None
    iac: float = 0.0
    baseline_cluster_size: Any = None
    subclusters: Any = None
    subcluster_size: Any = None
    icc_subcluster: Any = 0.0
    r2_subcluster: float = 0.0
    layout: Any = None
    clusters_per_sequence: Any = None
    correlation: str | None = None
    person_correlation: str = "constant"
    turnover: float = 0.0
    intervention_sd: float = 0.0
    intervention_correlation: float = 0.0
    time_effects: str = "categorical"
    estimand: str = "constant"
    controls: Any = None
    arms: Any = None
    means: Any = None
    contrast: Any = None
    comparisons: int = 1
    versus_control: str | None = None
    success: str = "each"
    modifier_icc: float | None = None
    modifier_sd: float = 1.0
    outcome: str | None = None
    scale: str | None = None
    pooled: bool = False
    icc_scale: str = "proportion"
    p_control: Any = None
    p_intervention: float | None = None
    odds_ratio: float | None = None
    rate_control: float | None = None
    rate_intervention: float | None = None
    person_time: float | None = None
    k: Any = None
    overdispersion: float = 1.0
    proportions: Any = None
    hazard_ratio: float | None = None
    event_probability: Any = None
    attrition: float = 0.0
    cluster_attrition: float = 0.0
    attrition_cv: bool = False
    hypothesis: str = "superiority"
    margin: float | None = None
    better: str = "higher"
    variance_factor: float = 1.0
    icc_source: str = ""

    def __post_init__(self) -> None:
        for name in ("cluster_size", "baseline_cluster_size"):
            self._set(name, _sizes(name, getattr(self, name)))
        for v in [*_flat(self.cluster_size), *_flat(self.baseline_cluster_size)]:
            if _is_real(v) and 0 < v < 1:
                raise InputError(f"cluster_size = {v:g} cannot be: a cluster has at least one person. Person-time goes in as person_time.")
        if self.p_control is not None and not isinstance(self.p_control, str) and isinstance(self.p_control, Iterable):
            self._set("p_control", tuple(self.p_control))
        for name, limits in _RANGES.items():
            value = getattr(self, name)
            if value is None or (isinstance(value, tuple) and name in ("cluster_size", "event_probability", "p_control")):
                for v in _flat(value):
                    _number(name, v, limits)
                continue
            self._set(name, _scalar_or_arms(name, value, limits))
        self._set_words()
        self._set_sequences()
        self._whole_numbers()
        if self.effect is not None and not isinstance(self.effect, tuple):
            self._set("effect", _finite("effect", self.effect, "the difference between the arms"))
        if self.sides not in (1, 2) or isinstance(self.sides, bool):
            raise InputError(f"sides = {self.sides!r}: a test has 1 or 2 sides.")
        self._set_outcome()
        self._set_kind()
        self._check_kind()
        self._set_hypothesis()

    # --- normalising ----------------------------------------------------------------------------------------

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _set_words(self) -> None:
        words: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
            "distribution": (DISTRIBUTIONS, _SAME_DISTRIBUTION),
            "analysis": (ANALYSES, {}),
            "matching_scale": (("means", "effects"), {}),
            "strata_effects": (("fixed", "random"), {}),
            "baseline": (("ancova", "change", "post"), {}),
            "correlation": (CORRELATIONS, _SAME_CORRELATION),
            "person_correlation": (("constant", "decay"), {}),
            "time_effects": (("categorical", "linear", "none"), {}),
            "estimand": (("constant", "exposure-average"), {}),
            "outcome": (OUTCOMES, {}),
            "scale": (("difference", "log-odds", "log-ratio"), {"log-odds-ratio": "log-odds"}),
            "icc_scale": (("proportion", "latent"), {}),
            "hypothesis": (HYPOTHESES, _SAME_HYPOTHESIS),
            "better": (("higher", "lower"), {}),
            "versus_control": (VERSUS_CONTROL, {}),
            "success": (("each", "any", "all"), {}),
            "design": (KINDS, {"pairs": "matched-pairs", "stepped-wedge": "longitudinal", "crossover": "longitudinal"}),
        }
        for name, (known, same) in words.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, str):
                raise InputError(f"{name} = {value!r} must be one of: {', '.join(known)}.")
            word = value.strip().lower().replace("_", "-").replace(" ", "-").replace(",", "")
            word = same.get(word, word)
            if word not in known:
                raise InputError(unknown_word(value, known, what=name))
            self._set(name, word)
        if self.df == "inf":  # as JSON holds it
            self._set("df", math.inf)
        if isinstance(self.df, str):
            if self.df not in DF_RULES:
                raise InputError(unknown_word(self.df, DF_RULES, what="df rule"))
        elif self.df is not None:
            value = float("inf") if self.df == math.inf else _finite("df", self.df, "degrees of freedom")
            if value <= 0:
                raise InputError(f"df = {self.df}: degrees of freedom must be positive.")
            self._set("df", value)
        for name in ("pooled", "attrition_cv"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be True or False, not {getattr(self, name)!r}.")
        if not isinstance(self.icc_source, str):
            raise InputError("icc_source is text: where the ICC comes from.")

    def _set_sequences(self) -> None:
        for name in ("means", "contrast", "proportions", "event_probability", "clusters_per_sequence"):
            value = getattr(self, name)
            if value is None:
                continue
            if _is_real(value) and name in ("event_probability", "clusters_per_sequence"):
                continue
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise InputError(f"{name} must be a sequence of numbers, not {value!r}.")
            self._set(name, tuple(_finite(name, v, "a number of the sequence") for v in value))
        if self.layout is not None:
            self._set("layout", _layout(self.layout))
            per = self.clusters_per_sequence
            if isinstance(per, tuple) and len(per) != len(self.layout):
                raise InputError(f"clusters_per_sequence has {len(per)} numbers, the layout {len(self.layout)} sequences (rows).")
        if self.clusters_per_sequence is not None:
            for v in _flat(self.clusters_per_sequence):
                if _is_real(v) and float(v) != round(float(v)):
                    raise InputError(
                        f"clusters_per_sequence = {v:g}: a count must be a whole number; give one a sequence, such as (3, 4, 3, 4)."
                    )
                _number("clusters_per_sequence", v, (0, True, math.inf, True, "the number of clusters in a sequence"))
        if isinstance(self.event_probability, tuple):
            if len(self.event_probability) != 2:
                raise InputError("event_probability is one number, or two: (control, intervention).")
            for v in self.event_probability:
                _number("event_probability", v, _RANGES["event_probability"])

    def _whole_numbers(self) -> None:
        for name in _WHOLE:
            value = getattr(self, name)
            if value is None:
                continue
            for v in _flat(value):
                number = _finite(name, v, "a count")
                if number != round(number):
                    raise InputError(f"{name} = {v}: a count must be a whole number. For a real-valued answer see .exact of a sample size.")
            self._set(name, tuple(round(v) for v in value) if isinstance(value, tuple) else round(value))
        if not _is_real(self.comparisons) or self.comparisons != round(self.comparisons) or self.comparisons < 1:
            raise InputError(f"comparisons = {self.comparisons!r}: the number of tests that share alpha, at least 1.")

    def _set_outcome(self) -> None:
        if self.outcome is None:
            if self.hazard_ratio is not None or self.event_probability is not None:
                found = "survival"
            elif self.rate_control is not None or self.rate_intervention is not None or self.person_time is not None:
                found = "rate"
            elif self.proportions is not None:
                found = "ordinal"
            elif self.p_control is not None or self.p_intervention is not None:
                found = "binary"
            else:
                found = "continuous"
            self._set("outcome", found)
        for name, allowed in _OUTCOME_ONLY.items():
            if self._given(name) and self.outcome not in allowed:
                raise InputError(f"{name} belongs to a {' or '.join(allowed)} outcome, and this one is {self.outcome}.")
        if self.scale == "log-odds" and self.outcome not in ("binary", "ordinal"):
            raise InputError(f'scale="log-odds" belongs to a binary or ordinal outcome, and this one is {self.outcome}.')
        if self.scale == "log-ratio" and self.outcome not in ("binary", "rate", "count", "survival"):
            raise InputError(f'scale="log-ratio" belongs to a binary, rate, count or survival outcome, and this one is {self.outcome}.')
        if self.outcome not in ("continuous",) and self._given("sd"):
            raise InputError(f"sd is given, but the variance of a {self.outcome} outcome follows from its other arguments: leave sd out.")

    def _set_kind(self) -> None:
        if self.design is not None:
            kind = self.design
        elif self.pairs is not None or self._given("matching_correlation"):
            kind = "matched-pairs"
        elif self.layout is not None:
            kind = "longitudinal"
        elif self.strata is not None:
            kind = "stratified"
        elif self.subclusters is not None or self.subcluster_size is not None:
            kind = "three-level"
        elif self.controls is not None:
            kind = "partially-nested"
        elif self.arms is not None or self.means is not None or self.contrast is not None:
            kind = "several-arms"
        elif self.modifier_icc is not None:
            kind = "effect-modification"
        elif self.baseline is not None or self.cac is not None or self.iac:
            kind = "baseline"
        else:
            kind = "parallel"
        self._set("design", kind)
        for name, kinds in _ONLY.items():
            if self._given(name) and kind not in kinds:
                raise InputError(f"{name} belongs to a {' or '.join(kinds)} design, and these arguments describe a {kind} one.")

    def _check_kind(self) -> None:
        kind = self.design
        if kind == "matched-pairs":
            if self.pairs is not None and self.clusters is not None and _total(self.clusters) != 2 * self.pairs:
                raise InputError(f"{self.pairs} pairs are {2 * self.pairs} clusters, not {_total(self.clusters)}: give one of the two.")
            if self.pairs is None and self.clusters is not None:
                total = _total(self.clusters)
                if total % 2:
                    raise InputError(f"{total} clusters cannot all be paired: an odd number.")
                self._set("pairs", total // 2)
            if self.pairs is not None:
                self._set("clusters", 2 * self.pairs)
        if kind == "baseline" and self.baseline is None:
            self._set("baseline", "ancova")
        if kind == "baseline" and self.cac is None:
            raise InputError(
                "a baseline measurement needs cac, the correlation of a cluster's true means at the two times (1: they do not move)."
            )
        if kind == "longitudinal":
            if self.layout is None:
                raise InputError(
                    "a longitudinal design needs layout: a matrix of 0, 1 and missing, one row a sequence, one column a period."
                )
            self._check_longitudinal()
        if kind == "three-level":
            self._check_three_level()
        if kind == "stratified":
            if self.strata is None:
                raise InputError("a stratified design needs strata, their number.")
            if self.strata < 2:
                raise InputError(f"strata = {self.strata}: one stratum is no stratification.")
        if kind == "partially-nested" and self.controls is None:
            raise InputError("a partially nested design needs controls, the number of people in the arm without clusters.")
        if kind == "several-arms":
            self._check_arms()
        if kind == "effect-modification" and self.modifier_icc is None:
            raise InputError("effect modification needs modifier_icc: 0 a purely individual covariate, 1 a cluster-level one.")
        for level in ("icc", "icc_subcluster", "icc_stratum"):
            for v in _flat(getattr(self, level)):
                _number(level, v, _RANGES["icc"])
        pairs = [v if isinstance(v, tuple) else (v or 0.0,) * 2 for v in (self.icc, self.icc_subcluster)]
        if isinstance(self.p_control, tuple) and kind != "longitudinal":
            raise InputError(f"p_control by period belongs to a longitudinal design, and this one is {kind}.")
        shares = max(a + b for a, b in zip(*pairs, strict=True)) + self.icc_stratum
        if shares >= 1:
            raise InputError(f"the shares of variance between clusters, subclusters and strata sum to {shares:g}; nothing is left within.")
        if kind not in ("parallel", "matched-pairs", "partially-nested", "three-level") and isinstance(self.icc, tuple):
            raise InputError(f"one ICC for both arms, please: two are understood in a parallel design, not in a {kind} one.")
        sizes = self.cluster_size
        if isinstance(sizes, tuple) and kind not in ("parallel", "longitudinal"):
            raise InputError(f"cluster_size must be one number in a {kind} design; unequal sizes go in as cluster_size_cv.")
        if isinstance(sizes, tuple) and self._given("cluster_size_cv"):
            raise InputError("cluster_size already lists the sizes: leave cluster_size_cv out.")
        self._check_vector_length()

    def _check_vector_length(self) -> None:
        sizes = self.cluster_size
        if self.design != "parallel" or not isinstance(sizes, tuple):
            return
        if isinstance(sizes[0], tuple) or isinstance(sizes[1], tuple):
            if not (isinstance(sizes[0], tuple) and isinstance(sizes[1], tuple)) or len(sizes) != 2:
                raise InputError("cluster_size by arm is two sequences: (sizes in control, sizes in intervention).")
            counts = (len(sizes[0]), len(sizes[1]))
            if self.clusters is None:
                self._set("clusters", counts)
            elif _total(self.clusters) != sum(counts) or (isinstance(self.clusters, tuple) and self.clusters != counts):
                raise InputError(f"cluster_size lists {counts[0]} and {counts[1]} clusters; clusters says {self.clusters}.")
            else:
                self._set("clusters", counts)
            return
        if len(sizes) == 2:
            return  # (control, intervention): a size an arm
        if self.clusters is None:
            self._set("clusters", len(sizes))
        total = _total(self.clusters)
        if len(sizes) not in (total, total / 2):
            raise InputError(
                f"cluster_size lists {len(sizes)} sizes for {total} clusters: list all {total}, or the {total // 2} of one arm "
                "when both arms have the same."
            )

    def _check_longitudinal(self) -> None:
        rows, columns = len(self.layout), len(self.layout[0])
        if self.clusters is not None and self.clusters_per_sequence is None:
            total = _total(self.clusters)
            if total % rows:
                raise InputError(
                    f"{total} clusters do not divide over {rows} sequences: give clusters_per_sequence, one number a row of the layout."
                )
            self._set("clusters_per_sequence", total // rows)
        elif self.clusters_per_sequence is not None:
            per = self.clusters_per_sequence
            total = sum(per) if isinstance(per, tuple) else per * rows
            if self.clusters is not None and _total(self.clusters) != total:
                raise InputError(f"clusters = {_total(self.clusters)}, but clusters_per_sequence makes {total:g}.")
            if total != round(total):
                raise InputError(f"clusters_per_sequence makes {total:g} clusters: not a whole number.")
            self._set("clusters", round(total))
        if isinstance(self.p_control, tuple) and len(self.p_control) != columns:
            raise InputError(f"p_control lists {len(self.p_control)} proportions for {columns} periods: one a period, or one for all.")
        if isinstance(self.cluster_size, tuple):
            shape = (len(self.cluster_size), len(self.cluster_size[0]) if isinstance(self.cluster_size[0], tuple) else 0)
            if shape != (rows, columns):
                raise InputError(f"cluster_size must be one number or a {rows} x {columns} matrix like the layout.")
        if self.correlation is None:
            self._set("correlation", "exchangeable" if self.cac in (None, 1.0) else "two-period")
        if self.correlation == "exchangeable" and self.cac not in (None, 1.0):
            raise InputError(f'an exchangeable correlation has cac = 1; with cac = {self.cac} say correlation="two-period" or "decay".')
        if self.correlation != "exchangeable" and self.cac is None:
            raise InputError(f'correlation="{self.correlation}" needs cac, the cluster autocorrelation.')

    def _check_three_level(self) -> None:
        if self.subclusters is None:
            raise InputError("three levels need subclusters, their number a cluster.")
        if self.subcluster_size is None and self.cluster_size is not None:
            self._set("subcluster_size", self.cluster_size / self.subclusters)
        elif self.subcluster_size is not None:
            size = self.subcluster_size * self.subclusters
            if self.cluster_size is not None and abs(self.cluster_size - size) > 1e-9 * size:
                raise InputError(
                    f"{self.subclusters} subclusters of {self.subcluster_size:g} are {size:g} people, not {self.cluster_size:g}."
                )
            if self.cluster_size is None:
                self._set("cluster_size", size)

    def _check_arms(self) -> None:
        number = self.arms
        for name in ("means", "contrast"):
            value = getattr(self, name)
            if value is not None:
                if number is not None and len(value) != number:
                    raise InputError(f"{name} has {len(value)} numbers for {number} arms.")
                number = len(value)
        if number is None or number < 2:
            raise InputError("several arms: give arms (their number), means, or a contrast.")
        self._set("arms", number)
        if self.versus_control is not None:
            if self.contrast is not None or self.comparisons != 1:
                raise InputError("versus_control compares each arm with control and sets the level: leave contrast and comparisons out.")
            if self.means is not None and self.effect is not None:
                raise InputError("give means (the control first), or one effect for every arm, not both.")
        elif self._given("success"):
            raise InputError('success goes with versus_control="dunnett", "bonferroni" or "unadjusted".')
        if self.contrast is not None:
            if abs(sum(self.contrast)) > 1e-9 * max(map(abs, self.contrast)) or not any(self.contrast):
                raise InputError("the weights of a contrast must sum to 0 and not all be 0.")
            if self.effect is None and self.means is not None:
                self._set("effect", sum(c * m for c, m in zip(self.contrast, self.means, strict=True)))
        elif self.means is None and self.effect is None:
            pass  # a sample size or a detectable effect may still fill it in
        if self.outcome != "continuous":
            raise InputError("several arms are planned for a continuous outcome here; compare two arms at a time for others.")

    def _set_hypothesis(self) -> None:
        if self.hypothesis == "superiority":
            if self.margin is not None:
                raise InputError('margin is given: say hypothesis="non-inferiority", "equivalence" or "superiority-by-margin".')
            if self._given("better"):
                raise InputError('better goes with a margin: hypothesis="non-inferiority", "equivalence" or "superiority-by-margin".')
            return
        if self.margin is None:
            raise InputError(f"{self.hypothesis} needs margin, {_RANGES['margin'][4]}.")
        if self.design == "several-arms" and self.contrast is None:
            raise InputError(f"{self.hypothesis} with several arms is of one difference: name it as a contrast, such as (-1, 1, 0).")
        if self.distribution == "z-plus-one":
            raise InputError('distribution="z-plus-one" is a formula for superiority only: "f" or "z".')
        self._set("sides", 1)
        said = (self.effect, self.p_intervention, self.odds_ratio, self.rate_intervention, self.hazard_ratio, self.means)
        if self.hypothesis != "superiority-by-margin" and all(v is None for v in said):
            self._set("effect", 0.0)

    def _given(self, name: str) -> bool:
        value = getattr(self, name)
        default = _DEFAULTS[name]
        return bool(value is not default and value != default)

    # --- views ----------------------------------------------------------------------------------------------

    def replace(self, **changes: Any) -> PowerDesign:
        """A new design with some arguments changed; what was derived from a changed argument is derived again."""
        unknown(changes)
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        if "pairs" in changes and "clusters" not in changes:
            data["clusters"] = None
        if "clusters" in changes:
            data["pairs"] = None if "pairs" not in changes else data["pairs"]
            if "clusters_per_sequence" not in changes and self.design == "longitudinal":
                data["clusters_per_sequence"] = None
        if "clusters_per_sequence" in changes and "clusters" not in changes:
            data["clusters"] = None
        if self.design == "three-level" and {"cluster_size", "subclusters", "subcluster_size"} & set(changes):
            keep = "cluster_size" if "cluster_size" in changes else "subcluster_size"
            data["subcluster_size" if keep == "cluster_size" else "cluster_size"] = None
        if ("effect" in changes or "p_intervention" in changes) and self.outcome == "binary":
            data["p_intervention"] = data["effect"] = data["odds_ratio"] = None
        if {"effect", "rate_intervention"} & set(changes) and self.outcome in ("rate", "count"):
            data["rate_intervention"] = data["effect"] = None
        if {"effect", "hazard_ratio"} & set(changes):
            data["hazard_ratio"] = None
        if "hypothesis" in changes and self.hypothesis != "superiority" and "sides" not in changes:
            data["sides"] = 2
        if {"p_intervention", "rate_intervention", "hazard_ratio", "odds_ratio"} & set(changes) and "effect" not in changes:
            data["effect"] = None
        if {"effect", "odds_ratio"} & set(changes) and self.outcome == "ordinal":
            data["odds_ratio"] = data["effect"] = None
        if "means" in changes and self.contrast is not None:
            data["effect"] = None
        if "clusters" in changes and changes["clusters"] is None and self.design == "parallel" and isinstance(self.cluster_size, tuple):
            data["clusters"] = None
        return PowerDesign(**{**data, **changes})

    def given(self) -> dict[str, Any]:
        """The arguments that are not at their defaults, in their order."""
        return {f.name: getattr(self, f.name) for f in fields(self) if self._given(f.name)}

    def to_json(self) -> str:
        """The design as one JSON object (no NaN: a missing cell of a layout is null); `from_json` gives the equal design back."""
        return json.dumps(plain(self.given()), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> PowerDesign:
        """Read what `to_json` wrote.

        Raises
        ------
        InputError
            Not a JSON object, or an argument that does not exist.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"this is not JSON: {error}.") from None
        if not isinstance(data, dict):
            raise InputError("a power design is one JSON object: argument and value.")
        return build(data)


_DEFAULTS: dict[str, Any] = {f.name: (None if f.default is MISSING else f.default) for f in fields(PowerDesign)}
NAMES = tuple(_DEFAULTS)


def unknown(arguments: Iterable[str]) -> None:
    """Raise an InputError naming the first argument that does not exist and the nearest one that does."""
    for name in arguments:
        if name not in _DEFAULTS:
            raise InputError(unknown_word(str(name), NAMES, what="argument"))


def build(arguments: Mapping[str, Any], design: PowerDesign | None = None) -> PowerDesign:
    """A design from arguments, on top of a given one if there is one."""
    unknown(arguments)
    if design is None:
        return PowerDesign(**arguments)
    if not isinstance(design, PowerDesign):
        raise InputError(
            f"the first argument is a PowerDesign, not {type(design).__name__}; everything else goes by name: clusters=68, ..."
        )
    return design.replace(**arguments) if arguments else design


def plain(value: Any) -> Any:
    """Tuples to lists, NaN to null, numpy to Python: what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, np.generic):
        return plain(value.item())
    return value


def _flat(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, tuple):
        return [x for v in value for x in _flat(v)]
    return [value]


def _total(value: Any) -> int:
    return int(sum(value)) if isinstance(value, tuple) else int(value)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))  # a bool is a Real to Python


def _finite(name: str, value: Any, meaning: str) -> float:
    if not _is_real(value):
        raise InputError(f"{name} = {value!r} is not a number; it is {meaning}.")
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"{name} = {value!r} must be a finite number; it is {meaning}.")
    return number


def _number(name: str, value: Any, limits: tuple[float, bool, float, bool, str]) -> float:
    low, open_low, high, open_high, meaning = limits
    number = _finite(name, value, meaning)
    if number < low or (open_low and number == low) or number > high or (open_high and number == high):
        left = f"greater than {low:g}" if open_low else f"{low:g} or more"
        right = "" if math.isinf(high) else f" and {'less than' if open_high else 'at most'} {high:g}"
        raise InputError(f"{name} = {value:g} cannot be: it is {meaning}, so it must be {left}{right}.")
    return number


def _scalar_or_arms(name: str, value: Any, limits: tuple[float, bool, float, bool, str]) -> Any:
    if isinstance(value, Mapping):
        value = _by_arm(name, value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        if name in ("event_probability",):
            return value
        items = list(value)
        if name not in _BY_ARM:
            raise InputError(f"{name} is one number; for several at once use power_grid.")
        if len(items) != 2:
            raise InputError(
                f"{name} is one number, or two: (control, intervention). Here are {len(items)}; for a grid of values use power_grid."
            )
        return tuple(_number(name, v, limits) for v in items)
    return _number(name, value, limits)


def _by_arm(name: str, value: Mapping[Any, Any]) -> tuple[Any, Any]:
    if set(value) != set(ARMS):
        raise InputError(f"{name} by arm needs the keys 'control' and 'intervention', not {', '.join(map(str, value))}.")
    return (value["control"], value["intervention"])


def _sizes(name: str, value: Any) -> Any:
    """A number stays; vectors and matrices become tuples."""
    if isinstance(value, Mapping):
        value = _by_arm(name, value)
    if value is None or isinstance(value, str) or not isinstance(value, Iterable):
        return value
    out = tuple(_sizes(name, v) if isinstance(v, Iterable) and not isinstance(v, str) else v for v in value)
    if not out:
        raise InputError(f"{name} is an empty sequence.")
    if len(out) == 1 and not isinstance(out[0], tuple):
        raise InputError(f"{name} lists one size only; a trial has more clusters than that. For equal sizes give the number itself.")
    return tuple(float(v) if _is_real(v) else v for v in out)


def _layout(value: Any) -> tuple[tuple[float, ...], ...]:
    """Rows of 0, 1 (or a fraction of 1) and missing."""
    what = "layout is a matrix, one row a sequence and one column a period, of 0 (control), 1 (intervention) and missing (not observed)"
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"{what}.")
    rows = []
    for row in value:
        if isinstance(row, str) or not isinstance(row, Iterable):
            raise InputError(f"{what}.")
        cells = []
        for cell in row:
            if cell is None or (isinstance(cell, float | np.floating) and math.isnan(cell)):
                cells.append(math.nan)
            elif _is_real(cell) and 0 <= float(cell) <= 1:
                cells.append(float(cell))
            else:
                raise InputError(f"{what}; {cell!r} is none of these.")
        rows.append(tuple(cells))
    if not rows or len({len(r) for r in rows}) != 1 or not rows[0]:
        raise InputError(f"{what}; its rows must be equally long.")
    return tuple(rows)
