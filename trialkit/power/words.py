"""The sentences of a power result: title, explanation, protocol paragraph, warnings that teach."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trialkit._kernels import noncentral
from trialkit.door import InputError
from trialkit.power.designs import Precision, precision
from trialkit.power.evaluate import DISTRIBUTION_WORDS, power_at, power_from, versus_level, versus_powers
from trialkit.power.outcomes import control_proportion
from trialkit.power.specification import PowerDesign

if TYPE_CHECKING:
    from trialkit.power.results import PowerResult

FEW_CLUSTERS = 40


def total(clusters: Any) -> float:
    """Clusters in both arms; NaN when the design does not say."""
    if clusters is None:
        return math.nan
    return float(sum(clusters)) if isinstance(clusters, tuple) else float(clusters)


def mean_size(design: PowerDesign) -> float:
    """Mean number of people a cluster (and period) to recruit."""
    size = design.cluster_size if design.cluster_size is not None else design.person_time
    return math.nan if size is None else float(np.nanmean(np.concatenate([np.ravel(s) for s in _parts(size)])))


def mean_of(pair: tuple[float, float]) -> float:
    return (pair[0] + pair[1]) / 2


def _parts(size: Any) -> list[Any]:
    return list(size) if isinstance(size, tuple) and any(isinstance(s, tuple) for s in size) else [size]


def design_effect(found: Precision) -> float:
    """1 + (m - 1) rho, at the analysed mean size and the mean ICC."""
    rho = mean_of(found.scale.icc)
    return 1 + (found.cluster_size - 1) * rho


def title(result: PowerResult) -> str:
    design = result.design
    noun = {
        None: f"Power {result.power:.4f}",
        "clusters": f"{_count(design.clusters)} clusters",
        "pairs": f"{design.pairs} pairs",
        "cluster_size": f"{mean_size(design):g} people a cluster",
        "effect": f"Detectable effect {result.effect:.6g}" if result.effect is not None else "",
    }.get(result.solved_for, f"{result.solved_for} = {result.value:.6g}" if isinstance(result.value, float | int) else "")
    return f"{noun}, {design.design} design, {result.precision.scale.name}"


def explain(result: PowerResult) -> str:
    """Formula, degrees of freedom, sources, and every input."""
    design, found = result.design, result.precision
    lines = [
        title(result),
        f"  formula        {found.formula}",
        f"  variance       {found.variance:.6g} (standard error {math.sqrt(found.variance):.6g})",
        f"  df             {found.df:g} = {found.df_rule}",
        f"  distribution   {_distribution_words(design)}, level {design.alpha / design.comparisons:g}, {_sides(design)}",
    ]
    if found.noncentrality is not None and found.versus is None:
        what = {"superiority": "effect^2 / variance"}.get(design.hypothesis, "(distance from the margin)^2 / variance")
        lines.append(f"  noncentrality  {found.noncentrality:.6g}" + (f" = {what}" if found.numerator_df == 1 else ""))
    lines += _versus_lines(result)
    lines.append(f"  power          {result.power:.7g}")
    if result.solved_for and result.exact is not None:
        lines.append(f"  solved for     {result.solved_for}: {result.exact:.8g} exactly, for a power of {result.target:g}")
    lines.append("  inputs         " + ", ".join(f"{k}={_short(v)}" for k, v in design.given().items()))
    lines += [f"  source         {s}" for s in found.sources]
    lines += [f"  note           {w}" for w in warnings(result)]
    return "\n".join(lines)


def _distribution_words(design: PowerDesign) -> str:
    if design.hypothesis == "superiority" or design.distribution not in ("f", "t-upper"):
        return DISTRIBUTION_WORDS[design.distribution]
    if design.hypothesis == "equivalence":
        return "two one-sided tests with one standard error, exactly (Owen's Q)"
    return "noncentral t distribution"


def _versus_lines(result: PowerResult) -> list[str]:
    """What comparisons with control need besides: critical value, level, and the power in each sense."""
    design, found = result.design, result.precision
    if found.versus is None:
        return []
    crit, level = versus_level(found, design)
    powers = versus_powers(found, design)
    senses = {"each": "each comparison (the least)", "any": "at least one", "all": "all in the same trial"}
    return [
        f"  comparisons    {len(found.versus.effect)} arms against control, {design.versus_control}: critical value {crit:.5g}, "
        f"level {level:.5g} each",
        *(f"  power          {powers[name]:.7g} for {what}" for name, what in senses.items()),
    ]


def versus_table(result: PowerResult) -> pd.DataFrame:
    """One row a comparison with control."""
    versus = result.precision.versus
    if versus is None:
        raise InputError('these are not comparisons with control: several arms with versus_control="dunnett".')
    _, level = versus_level(result.precision, result.design)
    df = result.precision.df if result.design.distribution == "f" else math.inf
    shift = np.array(versus.effect) / np.array(versus.std_error)
    return pd.DataFrame(
        {
            "arm": np.arange(2, len(shift) + 2),
            "effect": versus.effect,
            "std_error": versus.std_error,
            "df": df,
            "level": level,
            "power": noncentral.power_t(np.abs(shift), df, level, result.design.sides),
        }
    )


def protocol(result: PowerResult) -> str:
    """One paragraph: design, effect, ICC and its source, sizes, method and df, attrition."""
    design, found = result.design, result.precision
    clusters = f"{_count(design.clusters)} clusters"
    units = {
        "matched-pairs": f"{design.pairs} matched pairs of clusters ({clusters})",
        "longitudinal": f"{clusters} in {len(design.layout or ())} sequences over {len((design.layout or ((),))[0])} periods",
        "partially-nested": f"{clusters} in the intervention arm and {design.controls or 0:g} people in the control arm",
        "several-arms": f"{clusters} in {design.arms} arms",
        "stratified": f"{clusters} in {design.strata} strata",
    }.get(str(design.design), f"{clusters}{_split(design)}")
    size = mean_size(design)
    unit = "person-time units" if design.person_time is not None else "participants"
    period = " in each period" if design.design == "longitudinal" else ""
    effect = _effect_words(result)
    sentences = [
        f"With {units} of {size:g} {unit} on average{period}, the trial has {100 * result.power:.1f}% power to "
        f"{_aim_words(result, effect)} at the {_sides(design)} {100 * design.alpha:g}% significance level."
    ]
    if found.versus is not None:
        how = {
            "dunnett": "by Dunnett's test, which holds that level over all of them",
            "bonferroni": "at that level over their number (Bonferroni)",
            "unadjusted": "without adjustment for their number",
        }[str(design.versus_control)]
        sense = {"each": "each comparison", "any": "at least one comparison", "all": "all comparisons together"}[design.success]
        sentences.append(f"Every intervention arm is compared with control {how}; the power is that of {sense}.")
    icc = found.scale.icc
    rho = f"{icc[0]:.3g}" if abs(icc[0] - icc[1]) < 1e-12 else f"{icc[0]:.3g} in the control and {icc[1]:.3g} in the intervention arm"
    source = f" ({design.icc_source})" if design.icc_source else " (source to be stated)"
    given = f" (from a coefficient of variation between clusters of {_short(design.k)})" if design.k is not None else source
    sentences.append(f"We assumed an intracluster correlation coefficient of {rho}{given}" + _more_correlations(design) + ".")
    sentences.append(_size_words(design))
    covariates = []
    if design.r2_cluster:
        covariates.append(f"{100 * design.r2_cluster:g}% of the variance between clusters")
    if design.r2_person:
        covariates.append(f"{100 * design.r2_person:g}% of the variance within clusters")
    if covariates:
        sentences.append(f"Covariates are expected to explain {' and '.join(covariates)}.")
    if design.comparisons > 1:
        sentences.append(f"The level is divided by {design.comparisons} comparisons (Bonferroni).")
    first = found.sources[0] if found.sources else ""
    where = f" ({first})" if first else ""
    sentences.append(
        f"The calculation uses the {_distribution_words(design)}"
        + (
            f", with {found.df:.4g} degrees of freedom ({found.df_rule})"
            if math.isfinite(found.df) and design.distribution[0] != "z"
            else ""
        )
        + f", and the variance of a {design.design} design{where}."
    )
    if design.attrition or design.cluster_attrition:
        losses = []
        if design.attrition:
            losses.append(f"{100 * design.attrition:g}% of participants")
        if design.cluster_attrition:
            losses.append(f"{100 * design.cluster_attrition:g}% of clusters")
        sentences.append(
            f"The numbers allow for the loss of {' and '.join(losses)}: {found.clusters:g} clusters of {found.cluster_size:.3g} are "
            "expected to be analysed."
        )
    else:
        sentences.append("No losses to follow-up were allowed for.")
    if result.upper is not None:
        sentences.append(f"At the 80th percentile of the estimated ICC ({result.upper[0]:.3g}) the power is {100 * result.upper[1]:.1f}%.")
    return " ".join(s for s in sentences if s)


def _aim_words(result: PowerResult, effect: str) -> str:
    design = result.design
    if design.hypothesis == "superiority":
        return f"detect {effect}"
    zero = "if the arms do not differ" if result.effect == 0 else f"if the truth is {effect}"
    scale = "" if result.precision.scale.name.startswith("difference") else f" on the scale of the {result.precision.scale.name}"
    what = {"superiority-by-margin": "superiority by more than a margin"}.get(design.hypothesis, f"{design.hypothesis} with a margin")
    tests = ", by two one-sided tests" if design.hypothesis == "equivalence" else ""
    return f"show {what} of {design.margin:g}{scale} {zero}{tests},"


def _effect_words(result: PowerResult) -> str:
    design, e = result.design, result.effect
    if result.precision.versus is not None and design.means is not None:
        return f"the differences from control among the arm means {_short(design.means)}"
    if e is None:
        return f"a difference between the arm means {_short(design.means)}"
    if design.outcome == "binary" and result.p_intervention is not None:
        what = f"a change from {control_proportion(design):g} to {result.p_intervention:.4g}"
        ratio = {"log-odds": f" (odds ratio {math.exp(e):.3g})", "log-ratio": f" (risk ratio {math.exp(e):.3g})"} if abs(e) < 100 else {}
        return what + ratio.get(str(design.scale), "")
    if design.outcome in ("rate", "count"):
        l0 = float(design.rate_control or 0)
        l1 = l0 * math.exp(e) if design.scale == "log-ratio" else l0 + e
        return f"a change in the rate from {l0:g} to {l1:.4g}"
    if design.outcome == "ordinal":
        return f"a common odds ratio of {math.exp(e):.3g}"
    if design.outcome == "survival":
        return f"a hazard ratio of {math.exp(e):.3g}"
    sd = design.sd if not isinstance(design.sd, tuple) else None
    kind = "an interaction" if design.design == "effect-modification" else "a difference"
    if sd == 1:
        return f"{kind} of {e:.4g} standard deviations"
    return f"{kind} of {e:.4g} (standard deviation {_short(design.sd)})"


def _more_correlations(design: PowerDesign) -> str:
    out = []
    if design.design == "matched-pairs":
        of = "cluster means" if design.matching_scale == "means" else "true cluster effects"
        out.append(f"a correlation of {of} within pairs of {design.matching_correlation:g}")
    if design.design in ("baseline", "longitudinal") and design.cac is not None:
        out.append(f"a cluster autocorrelation of {design.cac:g}" + (" per period of distance" if design.correlation == "decay" else ""))
    if design.iac:
        out.append(f"an individual autocorrelation of {design.iac:g}")
    if design.design == "three-level":
        out.append(
            f"{design.subclusters} subclusters a cluster with a further share of variance of {_short(design.icc_subcluster)} between them"
        )
    return ", and " + ", ".join(out) if out else ""


def _size_words(design: PowerDesign) -> str:
    if isinstance(design.cluster_size, tuple) and design.design == "parallel":
        return f"The sizes of the clusters are taken as they are, for a {design.analysis.replace('-', ' ')} analysis."
    if design.cluster_size_cv:
        analysis = {
            "mixed-model": "a mixed model",
            "size-weighted": "an analysis that weights people equally",
            "cluster-means": "unweighted cluster means",
        }
        cv = _short(design.cluster_size_cv)
        return f"Cluster sizes vary with a coefficient of variation of {cv}, analysed by {analysis[design.analysis]}."
    return "Cluster sizes are taken as equal."


def recruitment(result: PowerResult) -> pd.DataFrame:
    """Numbers to recruit and numbers analysed."""
    design, found = result.design, result.precision
    clusters, size = total(design.clusters), mean_size(design)
    people = clusters * size
    analysed = found.clusters * found.cluster_size
    if design.design == "longitudinal" and design.layout is not None:
        seen = float(np.isfinite(np.array(design.layout)).sum() / len(design.layout))
        people, analysed = people * seen, analysed * seen
    return pd.DataFrame(
        {
            "stage": ["recruit", "analyse"],
            "clusters": [clusters, found.clusters],
            "cluster_size": [size, found.cluster_size],
            "people": [people, analysed],
        }
    )


def warnings(result: PowerResult) -> tuple[str, ...]:
    """What a reader of the number should know."""
    design, found = result.design, result.precision
    out: list[str] = []
    exact = None
    if found.noncentrality is not None and design.distribution != "f":
        exact = power_from(found, design.replace(distribution="f"))
        if found.df_rule.startswith("none"):
            out.append(
                f"{found.clusters:g} clusters leave no degrees of freedom: no t test exists, and the normal formula does not notice."
            )
        elif design.distribution != "z-plus-one" and abs(exact - result.power) >= 5e-7:
            out.append(
                f'distribution="{design.distribution}" is an approximation: the exact test has power {exact:.4f}, not {result.power:.4f}.'
            )
    if design.hypothesis != "superiority" and design.alpha > 0.025:
        out.append(
            f"alpha = {design.alpha:g} is the level of {'each' if design.hypothesis == 'equivalence' else 'the'} one-sided test: it goes "
            f"with a {100 - 200 * design.alpha:g}% confidence interval; 0.025 with the 95% one that many guidelines ask for."
        )
    if design.df == "subjects":
        proper = _with(design, df=None)
        if proper is not None:
            out.append(
                f"df counts people, but clusters were randomised: with df for clusters the power is {proper:.4f}, not {result.power:.4f} "
                "(the error of a published table by Killip et al. 2004)."
            )
    if design.design not in ("partially-nested",) and found.clusters < FEW_CLUSTERS:
        out.append(
            f"{found.clusters:g} clusters are few: plan an analysis with a small-sample correction (Kenward-Roger, t on cluster means, "
            "permutation)."
        )
    if math.isnan(found.cluster_size) is False and design.cluster_size is not None and result.power < 0.9999 and found.noncentrality:
        out += _returns(design, result.power)
    if design.attrition and not design.attrition_cv and not isinstance(design.cluster_size, tuple):
        varied = _with(design, attrition_cv=True)
        if varied is not None and abs(varied - result.power) >= 5e-4:
            cv = math.sqrt(design.attrition / found.cluster_size)
            out.append(
                f"losses at random also make sizes vary (coefficient of variation {cv:.2f}): then the power is {varied:.4f}; "
                "attrition_cv=True plans for it."
            )
    if design.outcome == "binary" and math.isfinite(found.cluster_size):
        p = [v for v in (control_proportion(design), result.p_intervention) if v is not None]
        events = min(min(x, 1 - x) for x in p) * found.clusters / 2 * found.cluster_size
        if events < 10:
            out.append(
                f"about {events:.1f} events (or non-events) are expected in an arm: the normal approximation to a proportion is poor there."
            )
    if not isinstance(design.clusters, tuple) and design.clusters is not None and design.design in ("parallel", "baseline", "three-level"):
        share = design.allocation_ratio / (1 + design.allocation_ratio)
        if abs(share * design.clusters - round(share * design.clusters)) > 1e-9:
            out.append(
                f"{design.clusters} clusters do not divide in the ratio {design.allocation_ratio:g}:1; clusters=(control, intervention) "
                "gives the real split."
            )
    return tuple(out)


def _returns(design: PowerDesign, power: float) -> list[str]:
    """Whether larger clusters would still pay."""
    try:
        ceiling = power_at(design, size=math.inf)
        doubled = power_from(precision(design, size=2 * mean_size(design)), design)
    except InputError:
        return []
    if ceiling < 0.995 and doubled - power < 0.02:
        return [
            f"larger clusters hardly help: twice the size gives {doubled:.4f}, and no size more than {ceiling:.4f}. More clusters would."
        ]
    return []


def _with(design: PowerDesign, **changes: Any) -> float | None:
    try:
        return power_at(design.replace(**changes))
    except InputError:
        return None


def _count(clusters: Any) -> str:
    return f"{total(clusters):g}" if clusters is not None else "?"


def _split(design: PowerDesign) -> str:
    c = design.clusters
    if isinstance(c, tuple):
        return f" ({c[0]} control, {c[1]} intervention)"
    if c is None:
        return ""
    if design.allocation_ratio == 1:
        return f" ({c / 2:g} in each arm)"
    share = design.allocation_ratio / (1 + design.allocation_ratio)
    return f" ({(1 - share) * c:g} control, {share * c:g} intervention)"


def _sides(design: PowerDesign) -> str:
    return "two-sided" if design.sides == 2 else "one-sided"


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        text = "(" + ", ".join(_short(v) for v in value) + ")"
        return text if len(text) < 120 else text[:110] + " ...)"
    if isinstance(value, float):
        return "missing" if math.isnan(value) else f"{value:g}"
    return str(value)
