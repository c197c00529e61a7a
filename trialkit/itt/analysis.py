"""`itt`: one model an outcome, over every imputed table, pooled to one row an outcome.

Each completed table is analysed as if it had been observed - the dependent variable standardised in it included - and the m answers are
pooled by Rubin's rules, with Barnard & Rubin's degrees of freedom built on the mean Kenward-Roger df. Standardising is linear, so the model
is fitted to the raw outcome and its arm coefficient, standard error and interval are divided by that table's SD: the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from trialkit._kernels import pooling, reml, small_sample
from trialkit.design import TrialDesign
from trialkit.door import InputError, check_conf_level, few, frame_digest, unknown_word
from trialkit.itt.effect_sizes import WORDS
from trialkit.itt.multiplicity import adjust_families
from trialkit.itt.prepared import CONSTANT, SATURATED, Prepared, ScaleBy, prepare
from trialkit.results import Provenance, Result

Array = NDArray[np.float64]

COLUMNS = (
    "outcome", "level", "rank", "estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "p_adjusted", "icc", "fmi",
    "n", "clusters", "m",
)  # fmt: skip
_NUMBERS = ("estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "p_adjusted", "icc", "fmi")


@dataclass(frozen=True)
class ITTResults(Result):
    """Intention-to-treat effects, one row an outcome in the design's order; no outcome is ever left out.

    Attributes
    ----------
    frame : DataFrame
        outcome, level, rank, estimate, std_error, df, statistic, p_value, conf_low, conf_high, p_adjusted, icc, fmi, n, clusters, m. An
        outcome that could not be analysed has missing numbers here and its reason in `problems`.
    details : DataFrame
        One row an outcome: label, rater, family, type, formula, denominator, sd, raw_estimate and raw_std_error (unstandardised), people
        and sites by arm, rows left out as missing, the share of fits with a variance at zero, the range of the complete-data df, variances.
    problems : mapping of outcome to reason
    notes : tuple of str
    m : int
        Number of tables; 1 means complete cases.
    provenance : Provenance
    """

    frame: pd.DataFrame
    details: pd.DataFrame
    problems: Mapping[str, str]
    notes: tuple[str, ...]
    m: int
    conf_level: float
    provenance: Provenance = field(repr=False)
    title: str = "Intention to treat"


def itt(
    data: pd.DataFrame | Iterable[pd.DataFrame],
    design: TrialDesign,
    *,
    inference: str | None = None,
    conf_level: float | None = None,
    sd: ScaleBy = "each-set",
) -> ITTResults:
    """Analyse every outcome of a trial as randomised.

    Each outcome is regressed on arm, its own baseline and the design's covariates, with a random intercept for site (and pair effects none,
    random or fixed as declared), by REML with Kenward-Roger inference; the arm's coefficient is divided by the declared SD (by default that
    of the outcome over both arms, so it is Cohen's d), intervention minus reference, whichever direction is better.

    Parameters
    ----------
    data : DataFrame, or iterable of DataFrames
        One row a person. One table is analysed by complete cases, and the notes say so; several are completed (imputed) copies of one
        table, pooled by Rubin's rules. With ``[imputation] population`` naming a 0/1 column only rows with 1 are analysed.
    design : TrialDesign
    inference : {"kenward-roger", "satterthwaite"}, optional
        By default the design's.
    conf_level : float, optional
        By default the design's.
    sd : {"each-set", "all-sets"}
        With imputations: divide by each completed table's own SD before pooling (the analysis of a complete table, repeated), or by one SD,
        the root of the tables' mean variance.

    Returns
    -------
    ITTResults

    Raises
    ------
    InputError
        A column is missing; a person is in two sites or stands twice; a site is in two arms or pairs; a site or arm is blank; an arm is not
        the design's; imputed tables do not hold the same people.

    Notes
    -----
    Rubin (1987); Barnard & Rubin (1999) on the mean Kenward-Roger df. `icc` is the between-site share of the variance left after the
    covariates (pair and site together when pairs are random), averaged over tables. `p_adjusted` is adjusted inside each family of outcomes
    by the design's method; a missing p-value counts as p = 1 there. See docs/methods/itt.md.

    Examples
    --------
    >>> design = TrialDesign.from_text('''
    ... [[outcomes]]
    ... name = "recovery"
    ... rank = "primary"
    ... ''')
    >>> rng = np.random.default_rng(5)
    >>> site = np.repeat(np.arange(12), 5)
    >>> people = pd.DataFrame({
    ...     "person": [f"P{k}" for k in range(60)], "site": [f"S{s:02}" for s in site],
    ...     "arm": np.where(site % 2, "intervention", "control"), "recovery_0": rng.normal(size=60),
    ... })
    >>> people["recovery"] = 0.5 * people["recovery_0"] + rng.normal(size=12)[site] / 3 + rng.normal(size=60)
    >>> results = itt(people, design)
    >>> results.frame[["outcome", "n", "clusters", "m"]].to_dict("records")
    [{'outcome': 'recovery', 'n': 60, 'clusters': 12, 'm': 1}]
    """
    plan = plan_of(design, inference, conf_level)
    tables, _, outcomes = prepare(data, design, denominator=plan.denominator, scale=sd)
    done = [fit_prepared(one, plan) for one in outcomes]
    return _assemble(done, data, tables, design, plan, sd)


# --- what was asked -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnalysisPlan:
    """How every outcome is analysed."""

    inference: str
    conf_level: float
    denominator: str


def plan_of(design: TrialDesign, inference: str | None, conf_level: float | None) -> AnalysisPlan:
    """The design's choices, or the caller's."""
    if not isinstance(design, TrialDesign):
        raise InputError(
            f"itt needs a TrialDesign as its second argument, not {type(design).__name__}. Read one: TrialDesign.from_toml(path)."
        )
    chosen = design.analysis.inference if inference is None else inference
    if chosen not in ("kenward-roger", "satterthwaite"):
        raise InputError(unknown_word(str(chosen), ("kenward-roger", "satterthwaite"), what="inference"))
    level = design.analysis.conf_level if conf_level is None else conf_level
    check_conf_level(level)
    return AnalysisPlan(chosen, level, design.analysis.standardise)


# --- one outcome --------------------------------------------------------------------------------------------


_WHY = {
    "saturated": SATURATED,
    "constant_outcome": CONSTANT,
    "exact_fit": "the arm and the covariates reproduce the outcome exactly",
    "out_of_range": "the outcome's numbers are too small or too large for their variances to be computed; change its unit",
    "zero_residual": "the outcome does not vary within sites once the covariates are taken out; analyse one value a site",
    "no_between_df": "the arm and the other site-level terms use up every difference between sites; at least two sites an arm are needed",
    "no_within_df": "the covariates use up every difference within sites",
    "confounded": "the variances of pairs, sites, subclusters and people cannot be told apart",
}


@dataclass(frozen=True, slots=True)
class _Fits:
    """The m fits of one outcome; arrays (m,)."""

    estimate: Array  # raw arm coefficient
    std_error: Array
    df: Array
    sd: Array
    icc: Array
    site_variance: Array
    pair_variance: Array  # NaN without a random pair
    subcluster_variance: Array  # NaN without a third level
    residual_variance: Array
    singular: NDArray[np.bool_]
    status: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """An outcome with its fits, or the reason why there are none."""

    prepared: Prepared
    fits: _Fits | None
    reason: str


def fit_prepared(one: Prepared, plan: AnalysisPlan) -> Fitted:
    """Fit the model of one outcome to each of its tables."""
    if one.reason:
        return Fitted(one, None, one.reason)
    if sum(one.sites) < 3:
        reason = f"there are {one.sites[0]} and {one.sites[1]} sites in the two arms, so nothing tells the arm from the site"
        return Fitted(one, None, reason)
    fitted = _fit_all(one.matrices, one.responses, one.groups)
    bad = next((f.status for f in fitted if f.status not in ("ok", "singletons")), "")
    if bad:
        return Fitted(one, None, _WHY.get(bad, bad))
    return Fitted(one, _infer(fitted, one.sd, plan, pair=one.pair is not None, third=one.subcluster is not None), "")


def _fit_all(matrices: Sequence[Array], responses: Sequence[Array], groups: Sequence[NDArray[np.intp]]) -> list[Any]:
    if len({x.shape[1] for x in matrices}) == 1:
        return reml.fit_sets(list(zip(matrices, responses, strict=True)), groups)
    # a category that is empty in some completed tables leaves their models one column shorter
    return [reml.fit(x, y, groups) for x, y in zip(matrices, responses, strict=True)]


def _infer(fitted: Sequence[Any], sd: Array, plan: AnalysisPlan, *, pair: bool, third: bool) -> _Fits:
    rule = small_sample.kenward_roger if plan.inference == "kenward-roger" else small_sample.satterthwaite
    m = len(fitted)
    estimate, std_error, df = np.empty(m), np.empty(m), np.empty(m)
    for k, fit in enumerate(fitted):
        contrast = np.zeros((1, fit.p))
        contrast[0, 1] = 1.0
        found = rule(fit, contrast)
        estimate[k], std_error[k], df[k] = found.estimate[0], found.std_error[0], found.df[0]
    variances = np.array([np.where(f.identified, f.variances, np.nan) for f in fitted])
    residual = np.array([f.sigma2 for f in fitted])
    # variances stand outermost first; two people of a site share its variance and its pair's, not their subclusters'
    inner = variances[:, -1] if third else np.zeros(m)
    between = variances[:, :-1].sum(axis=1) if third else variances.sum(axis=1)
    return _Fits(
        estimate=estimate,
        std_error=std_error,
        df=df,
        sd=sd,
        icc=between / (between + inner + residual),
        site_variance=variances[:, 0] if third else variances[:, -1],
        pair_variance=variances[:, 0] if pair else np.full(m, np.nan),
        subcluster_variance=inner if third else np.full(m, np.nan),
        residual_variance=residual,
        singular=np.array([bool((f.boundary & f.identified).any()) for f in fitted]),
        status=fitted[0].status,
    )


# --- one table of results -----------------------------------------------------------------------------------


def pooled_row(done: Fitted, plan: AnalysisPlan) -> dict[str, Any]:
    """The pooled, standardised effect of one outcome; every number missing when it could not be fitted."""
    f = done.fits
    m = 0 if f is None else len(f.estimate)
    row: dict[str, Any] = dict.fromkeys(_NUMBERS, math.nan)
    if f is None:
        return row
    d, se = f.estimate / f.sd, f.std_error / f.sd
    if m == 1:
        t = d[0] / se[0]
        half = float(special.stdtrit(f.df[0], 0.5 + plan.conf_level / 2)) * se[0]
        row |= {
            "estimate": d[0], "std_error": se[0], "df": f.df[0], "statistic": t, "p_value": float(2 * special.stdtr(f.df[0], -abs(t))),
            "conf_low": d[0] - half, "conf_high": d[0] + half,
        }  # fmt: skip
    else:
        pooled = pooling.pool_scalar(d, se**2, f.df, conf_level=plan.conf_level)
        row |= {
            name: float(getattr(pooled, name))
            for name in ("estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "fmi")
        }
    row["icc"] = float(f.icc.mean())
    return row


def _assemble(
    done: Sequence[Fitted], data: Any, tables: Sequence[pd.DataFrame], design: TrialDesign, plan: AnalysisPlan, sd: str
) -> ITTResults:
    m = len(tables)
    rows = [pooled_row(one, plan) for one in done]
    p = np.array([row["p_value"] for row in rows])
    adjusted = adjust_families(p, [one.prepared.outcome.family for one in done], design.analysis.multiplicity, on_missing="as_p1")
    table = []
    for one, row, p_adjusted in zip(done, rows, adjusted, strict=True):
        o = one.prepared.outcome
        table.append(
            {
                "outcome": o.name, "level": o.level, "rank": o.rank, **row, "p_adjusted": float(p_adjusted),
                "n": one.prepared.n, "clusters": sum(one.prepared.sites), "m": m,
            }
        )  # fmt: skip
    frame = pd.DataFrame(table, columns=list(COLUMNS)).astype({"outcome": "str", "level": "str", "rank": "str"})
    problems = {one.prepared.outcome.name: one.reason for one in done if one.reason}
    settings = {"design": design.digest, "inference": plan.inference, "conf_level": plan.conf_level, "sd": sd, "m": m}
    earlier = getattr(data, "provenance", None)
    inputs = dict(earlier.inputs) if isinstance(earlier, Provenance) else ({"people": frame_digest(tables[0])} if m == 1 else {})
    return ITTResults(
        frame=frame,
        details=pd.DataFrame([_detail(one, plan) for one in done]),
        problems=MappingProxyType(problems),
        notes=tuple(_notes(done, data, design, plan, m)),
        m=m,
        conf_level=plan.conf_level,
        provenance=Provenance.now(seed=getattr(earlier, "seed", None), inputs=inputs, settings=settings),
        title=f"Intention to treat: {design.trial.title}",
    )


def _detail(done: Fitted, plan: AnalysisPlan) -> dict[str, Any]:
    one, f = done.prepared, done.fits
    o = one.outcome
    nan = math.nan
    raw = raw_se = nan
    if f is not None:
        raw, raw_se = float(f.estimate[0]), float(f.std_error[0])
        if len(f.estimate) > 1:
            pooled = pooling.pool_scalar(f.estimate, f.std_error**2, f.df)
            raw, raw_se = float(pooled.estimate), float(pooled.std_error)
    return {
        "outcome": o.name,
        "label": o.label,
        "rater": o.rater or "",
        "family": o.family,
        "type": o.type,
        "direction": o.direction,
        "formula": one.formula,
        "inference": plan.inference,
        "denominator": plan.denominator,
        "sd": nan if f is None else float(f.sd.mean()),
        "raw_estimate": raw,
        "raw_std_error": raw_se,
        "n_reference": one.arms[0],
        "n_intervention": one.arms[1],
        "clusters_reference": one.sites[0],
        "clusters_intervention": one.sites[1],
        "smallest_cluster": one.sizes[0],
        "largest_cluster": one.sizes[1],
        "observed": one.observed,
        "left_out": one.lost,
        "singular": nan if f is None else float(f.singular.mean()),
        "df_low": nan if f is None else float(f.df.min()),
        "df_high": nan if f is None else float(f.df.max()),
        "site_variance": nan if f is None else float(f.site_variance.mean()),
        "pair_variance": nan if f is None else float(f.pair_variance.mean()),
        **({} if one.subcluster is None else {"subcluster_variance": nan if f is None else float(f.subcluster_variance.mean())}),
        "residual_variance": nan if f is None else float(f.residual_variance.mean()),
        "columns_left_out": ", ".join(one.left_out),
        "problem": done.reason,
    }


def _notes(done: Sequence[Fitted], data: Any, design: TrialDesign, plan: AnalysisPlan, m: int) -> list[str]:
    fitted = [one for one in done if one.fits is not None]
    notes = []
    if m == 1:
        lost = [f"{one.prepared.outcome.name} {one.prepared.lost}" for one in done if one.prepared.lost]
        notes.append(
            "Complete cases: one table, nothing imputed"
            + (f"; rows left out because a value is missing: {few(lost, 24)}." if lost else "; no value is missing.")
        )
    else:
        notes.append(f"{m} imputed tables, pooled by Rubin's rules; df by Barnard and Rubin on the complete-data df.")
    if said := getattr(data, "population_note", ""):
        notes.append(str(said))
    elif design.imputation.population != "randomised":
        notes.append(f"Population: rows with {design.imputation.population} = 1.")
    what = (
        "the raw difference" if plan.denominator == "none" else f"Cohen's d: the arm coefficient divided by the {WORDS[plan.denominator]}"
    )
    notes.append(f"estimate is {what}, {design.arms.intervention} minus {design.arms.reference}.")
    notes += weighting_note(design)
    if m > 1 and design.columns.subcluster is not None:
        notes.append(
            f"Imputation by `impute` has a random intercept for {design.columns.site} and none for {design.columns.subcluster}: imputed "
            f"values of one {design.columns.subcluster} are as alike as those of two."
        )
    if fitted:
        low, high = min(one.fits.df.min() for one in fitted), max(one.fits.df.max() for one in fitted)  # type: ignore[union-attr]
        notes.append(
            f"Each outcome on arm{', its own baseline' if design.analysis.baseline else ''}"
            f"{' and ' + few([v.name for v in design.covariates], 12) if design.covariates else ''}, with "
            f"{_pair_words(design)}; REML, {plan.inference} df {low:.1f} to {high:.1f}."
        )
    notes += _families_note(done, design)
    singular = [f"{one.prepared.outcome.name} ({_of(one.fits, m)})" for one in fitted if one.fits is not None and one.fits.singular.any()]
    if singular:
        notes.append(f"A between-group variance is estimated at zero: {few(singular, 12)}.")
    alone = [one.prepared.outcome.name for one in fitted if one.fits is not None and one.fits.status == "singletons"]
    if alone:
        notes.append(f"One person in every site, so least squares with df = n - p and no ICC: {few(alone, 12)}.")
    dropped = {one.prepared.left_out: one.prepared.outcome.name for one in done if one.prepared.left_out}
    notes += [
        f"Covariate columns left out as constant or combinations of others ({name}, ...): {few(list(c))}." for c, name in dropped.items()
    ]
    odd = [f"{one.prepared.outcome.name} ({one.prepared.outcome.type})" for one in fitted if one.prepared.outcome.type != "continuous"]
    if odd:
        notes.append(
            f"Analysed on their own scale by the linear model, as in the trial: {few(odd, 12)}. For risks, odds and rate ratios see "
            "trialkit.itt.fit_marginal and fit_generalised."
        )
    notes += [f"{one.prepared.outcome.name} could not be analysed: {one.reason}." for one in done if one.reason]
    return notes


def weighting_note(design: TrialDesign) -> list[str]:
    """What to say when the design declares an effect that the mixed model does not estimate by itself."""
    declared = design.estimand.weighting
    if declared == "model-based":
        return []
    return [
        f"The design declares the {declared} effect. The mixed model weighs sites in between people and sites, so its number has that name "
        "only where effects do not go with the size of the site: see trialkit.itt.estimand_effects."
    ]


def _of(fits: _Fits | None, m: int) -> str:
    count = 0 if fits is None else int(fits.singular.sum())
    return "the fit" if m == 1 else f"{count} of {m} fits"


def _pair_words(design: TrialDesign) -> str:
    site = f"a random intercept for {design.columns.site}"
    if design.columns.subcluster is not None:
        site = f"random intercepts for {design.columns.site} and {design.columns.subcluster} within it"
    return {
        "none": site,
        "random": f"random intercepts for {design.columns.pair} and {design.columns.site}",
        "fixed": f"fixed effects of {design.columns.pair} and {site}",
    }[design.analysis.pair_effects]


def _families_note(done: Sequence[Fitted], design: TrialDesign) -> list[str]:
    method = design.analysis.multiplicity
    if method == "none":
        return ["p_adjusted equals p_value: no adjustment for several outcomes was declared."]
    families: dict[str, int] = {}
    for one in done:
        families[one.prepared.outcome.family] = families.get(one.prepared.outcome.family, 0) + 1
    words = ", ".join(f"{name} ({count})" for name, count in families.items())
    missing = " An outcome that could not be analysed counts as p = 1." if any(one.reason for one in done) else ""
    return [f"p_adjusted: {method} inside each family: {words}.{missing}"]
