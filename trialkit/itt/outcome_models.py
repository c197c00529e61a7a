"""The model of one outcome, as its declared type asks for it, fitted to every completed table.

Continuous outcomes: the linear mixed model by REML. Binary, count, bounded and skewed ones: a marginal model (GEE, exchangeable within
sites, the design's corrected sandwich, t with sites minus site-level coefficients as df), whose fitted means are standardised over the
people analysed to the two arms' risks, rates or means, and these compared. Ordinal outcomes: proportional odds. Or, declared, a random
site intercept by adaptive quadrature. Every fit gives numbers on the scale on which they are pooled: ratios as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from trialkit._kernels import pooling, reml, small_sample
from trialkit._kernels.structured import RandomTerm
from trialkit._kernels.structured_fit import fit_structured
from trialkit.design import Outcome, TrialDesign
from trialkit.door import InputError, check_conf_level, unknown_word
from trialkit.itt import gee, generalised, ordinal
from trialkit.itt.coefficient_table import EFFECT
from trialkit.itt.denominator_df import counted_df
from trialkit.itt.prepared import CONSTANT, SATURATED, Prepared

Array = NDArray[np.float64]

NUMBERS = ("estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "p_adjusted", "icc", "fmi")
WHY = {
    "saturated": SATURATED,
    "constant_outcome": CONSTANT,
    "out_of_range": "the outcome's numbers are too small or too large for their variances to be computed; change its unit",
    "exact_fit": "the arm and the covariates reproduce the outcome exactly",
    "zero_residual": "the outcome does not vary within sites once the covariates are taken out; analyse one value a site",
    "no_between_df": "the arm and the other site-level terms use up every difference between sites; at least two sites an arm are needed",
    "no_within_df": "the covariates use up every difference within sites",
    "not_identified": "the data do not hold all the variances that the design asks for; leave out random_slope or residual_by_arm",
    "confounded": "the variances of pairs, sites, subclusters and people cannot be told apart",
}
NAMES = {
    "linear-mixed": "mixed model",
    "marginal": "marginal model",
    "logistic-mixed": "logistic mixed model",
    "poisson-mixed": "Poisson mixed model",
    "negative-binomial-mixed": "negative binomial mixed model",
    "ordinal-mixed": "cumulative logit mixed model",
}
SITE_SPECIFIC = "site-specific"
FAMILY = {"continuous": "gaussian", "binary": "binomial", "count": "poisson", "bounded": "binomial", "skewed": "gamma"}
_MIXED = {"logistic-mixed": "binomial", "poisson-mixed": "poisson", "negative-binomial-mixed": "negative-binomial"}


@dataclass(frozen=True, slots=True)
class AnalysisPlan:
    """How every outcome is analysed."""

    inference: str
    conf_level: float
    denominator: str
    correction: str = "MD"
    random_slope: bool = False
    residual_by_arm: bool = False


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
    declared = design.analysis
    return AnalysisPlan(chosen, level, declared.standardise, declared.correction, declared.random_slope, declared.residual_by_arm)


def measure_words(outcome: Outcome, denominator: str) -> str:
    """The effect of an outcome in words, as results name it."""
    measure, model = outcome.chosen_measure, outcome.chosen_model
    if measure == "standardised-difference":
        return "mean difference" if denominator == "none" else "Cohen's d"
    words = measure.replace("-", " ")
    if measure in ("odds-ratio", "cumulative-odds-ratio"):
        return f"{words} ({'marginal' if model == 'marginal' else SITE_SPECIFIC})"
    return {"mean-ratio": "ratio of means", "rate-difference": "rate difference"}.get(measure, words)


@dataclass(frozen=True, slots=True)
class Effect:
    """One measure over the tables, on the scale of pooling; arrays (m,)."""

    measure: str
    estimate: Array
    std_error: Array
    ratio: bool = False
    tested: bool = True  # a risk or a mean is not tested against zero


@dataclass(frozen=True, slots=True)
class Fits:
    """The m fits of one outcome; arrays (m,).

    `estimate` and `std_error` are of the arm, on the outcome's own scale before `sd` divides them, or a logarithm when `ratio`.
    """

    measure: str
    estimate: Array
    std_error: Array
    df: Array
    sd: Array
    icc: Array
    site_variance: Array
    pair_variance: Array  # NaN without a random pair
    subcluster_variance: Array  # NaN without a third level
    residual_variance: Array  # of the average row
    singular: NDArray[np.bool_]
    status: str
    ratio: bool = False
    effects: tuple[Effect, ...] = ()  # every other measure of the same fits
    notes: tuple[str, ...] = field(default=())
    slope_variance: Array | None = None  # of the arm between pairs
    residual_by_arm: Array | None = None  # (m, 2), the reference first


@dataclass(frozen=True, slots=True)
class Fitted:
    """An outcome with its fits, or the reason why there are none."""

    prepared: Prepared
    fits: Fits | None
    reason: str


def fit_prepared(one: Prepared, plan: AnalysisPlan) -> Fitted:
    """Fit the model of one outcome to each of its tables."""
    if one.reason:
        return Fitted(one, None, one.reason)
    few = f"there are {one.sites[0]} and {one.sites[1]} sites in the two arms, so nothing tells the arm from the site"
    if sum(one.sites) < 3:
        return Fitted(one, None, few)
    model = one.outcome.chosen_model
    if model == "linear-mixed":
        return _linear(one, plan)
    if min(one.sites) < 2:
        return Fitted(one, None, f"{few}; a {NAMES[model]} needs at least two an arm")
    if alike := _alike(one):
        return Fitted(one, None, alike)
    fit = _marginal if model == "marginal" and one.outcome.type != "ordinal" else _by_likelihood
    try:
        return Fitted(one, fit(one, plan), "")
    except InputError as error:
        return Fitted(one, None, str(error).rstrip("."))
    except np.linalg.LinAlgError:
        return Fitted(one, None, generalised.SEPARATED.rstrip("."))


def _alike(one: Prepared) -> str:
    """Why a log or a logit has no finite value in an arm: everybody there is at one end of the scale. Empty when nobody's arm is so."""
    o = one.outcome
    for table, y in enumerate(one.responses):
        ends = {"count": (0.0,), "skewed": (0.0,), "bounded": o.bounds}.get(o.type) or (y.min(), y.max())
        for arm, name in ((one.arm == 0, "reference"), (one.arm == 1, "intervention")):
            first = y[arm][0]
            if first in ends and (y[arm] == first).all() and y.min() < y.max():
                where = f" (imputed table {table + 1} of {len(one.responses)})" if len(one.responses) > 1 else ""
                value = f"{first:g}" if o.levels is None else o.levels[int(first)]
                return (
                    f"all {arm.sum():,} people of the {name} arm have {value}{where}, so that odds and rates there are at their limit "
                    "(separation) and a model has no finite effect. Site means and the randomisation test need none: analyses = 'all'"
                )
    return ""


# --- linear mixed models --------------------------------------------------------------------------------------


def _linear(one: Prepared, plan: AnalysisPlan) -> Fitted:
    if plan.random_slope or plan.residual_by_arm:
        return _structured(one, plan)
    fitted = _fit_all(one.matrices, one.responses, one.groups)
    bad = next((f.status for f in fitted if f.status not in ("ok", "singletons")), "")
    if bad:
        return Fitted(one, None, WHY.get(bad, bad))
    return Fitted(one, _infer(fitted, one, plan), "")


def _fit_all(matrices: Sequence[Array], responses: Sequence[Array], groups: Sequence[NDArray[np.intp]]) -> list[Any]:
    if len({x.shape[1] for x in matrices}) == 1:
        return reml.fit_sets(list(zip(matrices, responses, strict=True)), groups)
    # a category that is empty in some completed tables leaves their models one column shorter
    return [reml.fit(x, y, groups) for x, y in zip(matrices, responses, strict=True)]


def _infer(fitted: Sequence[Any], one: Prepared, plan: AnalysisPlan) -> Fits:
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
    third = one.subcluster is not None
    between, inner = _between(one, variances)
    measure = measure_words(one.outcome, plan.denominator)
    return Fits(
        measure=measure,
        estimate=estimate,
        std_error=std_error,
        df=df,
        sd=one.sd,
        icc=between / (between + inner + residual),
        site_variance=variances[:, 0] if third else variances[:, -1],
        pair_variance=variances[:, 0] if one.pair is not None else np.full(m, np.nan),
        subcluster_variance=inner if third else np.full(m, np.nan),
        residual_variance=residual,
        singular=np.array([bool((f.boundary & f.identified).any()) for f in fitted]),
        status=fitted[0].status,
        effects=_raw(measure, estimate, std_error),
    )


def _structured(one: Prepared, plan: AnalysisPlan) -> Fitted:
    """The arm's effect varying between pairs, a residual variance in each arm, or both."""
    ones = np.ones((one.n, 1))
    slope = plan.random_slope and one.pair is not None
    terms = [RandomTerm(k, ones) for k in range(len(one.groups))]
    if slope:
        terms[0] = RandomTerm(0, np.column_stack([np.ones(one.n), one.arm]))
        if not _sites_share_an_arm(one):
            # with one site an arm in every pair, the slope is what tells its two sites apart
            terms = terms[:1]
    strata = one.arm.astype(np.intp) if plan.residual_by_arm else None
    fitted = []
    for x, y in zip(one.matrices, one.responses, strict=True):
        fit = fit_structured(x, y, one.groups, terms, strata=strata)
        if fit.status != "ok":
            return Fitted(one, None, WHY.get(fit.status, fit.status))
        fitted.append(fit)
    rule = small_sample.kenward_roger if plan.inference == "kenward-roger" else small_sample.satterthwaite
    found = [rule(f, np.eye(f.p)[1:2]) for f in fitted]
    estimate, std_error, df = (np.array([getattr(r, k)[0] for r in found]) for k in ("estimate", "std_error", "df"))
    nan = np.full(len(fitted), np.nan)
    # what each term and the residual give the average row
    shares = np.array([[_average(t, T) for t, T in zip(terms, f.covariances, strict=True)] for f in fitted])
    weights = np.ones(1) if strata is None else np.bincount(strata) / one.n
    residual = np.array([float(weights @ f.residuals) for f in fitted])
    third = one.subcluster is not None
    between, inner = _between(one, shares)
    measure = measure_words(one.outcome, plan.denominator)
    paired = one.pair is not None
    notes: tuple[str, ...] = ()
    if slope and len(terms) == 1:
        notes = (
            f"{one.outcome.name}: one site an arm in each pair, so the effect's variation between pairs stands in the place of the site's "
            "intercept.",
        )
    return Fitted(
        one,
        Fits(
            measure=measure,
            estimate=estimate,
            std_error=std_error,
            df=df,
            sd=one.sd,
            icc=between / (between + inner + residual),
            site_variance=nan if paired and len(terms) == 1 else shares[:, -2 if third else -1],
            pair_variance=np.array([f.covariances[0][0, 0] for f in fitted]) if paired else nan,
            subcluster_variance=inner if third else nan,
            residual_variance=residual,
            singular=np.array([bool(np.any(f.boundary)) for f in fitted]),
            status="ok",
            effects=_raw(measure, estimate, std_error),
            notes=notes,
            slope_variance=np.array([f.covariances[0][1, 1] for f in fitted]) if slope else None,
            residual_by_arm=np.array([f.residuals for f in fitted]) if strata is not None else None,
        ),
        "",
    )


def _between(one: Prepared, variances: Array) -> tuple[Array, Array]:
    """Of variances (m, terms), outermost first: what two people of a site share (its own and its pair's), and their subclusters'."""
    if one.subcluster is None:
        return np.asarray(variances.sum(axis=1)), np.zeros(len(variances))
    return np.asarray(variances[:, :-1].sum(axis=1)), variances[:, -1]


def _raw(measure: str, estimate: Array, std_error: Array) -> tuple[Effect, ...]:
    """The difference on the outcome's own scale, beside a standardised one."""
    return () if measure == "mean difference" else (Effect("mean difference", estimate, std_error),)


def _average(term: RandomTerm, covariance: Array) -> float:
    """The variance that a random term gives the average row."""
    return float(np.mean(np.einsum("na,ab,nb->n", term.design, covariance, term.design)))


def _sites_share_an_arm(one: Prepared) -> bool:
    """Whether some pair has two sites of one arm."""
    assert one.pair is not None
    first = np.unique(one.site, return_index=True)[1]
    cell = one.pair[first] * 2 + one.arm[first].astype(np.intp)
    return len(np.unique(cell)) < len(cell)


# --- the others -----------------------------------------------------------------------------------------------


def _each(one: Prepared, fit: Callable[[Array, Array, Array | None], Any]) -> list[Any]:
    """`fit` of every table; a failure names how many failed."""
    out, wrong = [], []
    offsets: Sequence[Array | None] = one.offsets or [None] * len(one.responses)
    for x, y, offset in zip(one.matrices, one.responses, offsets, strict=True):
        try:
            out.append(fit(x, y, offset))
        except InputError as error:
            wrong.append(str(error).rstrip("."))
    if wrong:
        where = f" (in {len(wrong)} of {len(one.responses)} imputed tables)" if len(one.responses) > 1 else ""
        raise InputError(f"{wrong[0]}{where}")
    return out


def arm_df(one: Prepared) -> Array:
    """Sites minus site-level coefficients, table by table (m,)."""
    codes = np.unique(one.site, return_inverse=True)[1].astype(np.intp)
    df = np.array([counted_df(x, [codes], intercept=0, contain_intercept=True)[1] for x in one.matrices])
    if df.min() < 1:
        raise InputError("the arm and the other site-level terms use up every difference between sites; use fewer site-level covariates")
    return df


def _marginal(one: Prepared, plan: AnalysisPlan) -> Fits:
    o = one.outcome
    family = gee.FAMILIES[FAMILY[o.type]]
    low, span = (o.bounds[0], o.bounds[1] - o.bounds[0]) if o.bounds is not None else (0.0, 1.0)
    codes = np.unique(one.site, return_inverse=True)[1].astype(np.intp)

    def fit(x: Array, y: Array, offset: Array | None) -> tuple[gee.Solved, list[gee.Standardised], Array]:
        share = (y - low) / span
        solved = gee.solve(x, share, codes, family, exchangeable=True, offset=offset)
        linear = x @ solved.beta
        if family.name == "binomial" and np.abs(linear).max() > 30:
            raise InputError(gee.UNSETTLED.format(100))
        covariances = gee.corrected(x, share, solved, family, offset=offset)
        parts = gee.standardise(x, solved.beta, 1, family, offset)
        std_error = gee.std_errors(np.array([p.gradient for p in parts]), covariances, plan.correction)
        if not np.isfinite(std_error).all() or not (std_error[2:] > 0).all():
            raise InputError(generalised.SEPARATED)
        return solved, parts, std_error

    df = arm_df(one)
    found = _each(one, fit)
    parts = found[0][1]
    effects = []
    for k, part in enumerate(parts):
        scale, shift = (span, low if part.level else 0.0) if not part.ratio else (1.0, 0.0)
        name = f"{part.measure}, {part.level}" if part.level else part.measure
        values = np.array([f[1][k].value for f in found])
        errors = np.array([f[2][k] for f in found])
        effects.append(Effect(_renamed(name, o), values * scale + shift, errors * scale, part.ratio, tested=not part.level))
    place = {"risk-ratio": 3, "rate-ratio": 3, "mean-ratio": 3, "odds-ratio": 4}.get(o.chosen_measure, 2)
    chosen = effects[place]
    if o.type == "bounded":
        effects = [e for e in effects if not e.ratio]
    alpha = np.array([f[0].alpha for f in found])
    impossible = np.array([not math.isnan(f[0].impossible) for f in found])
    notes: tuple[str, ...] = ()
    if impossible.any():
        notes = (
            f"{o.name}: people of one site are less alike than chance allows for the largest site "
            f"({int(impossible.sum())} of {len(found)} fits), so independence was the working correlation; the sandwich does not need it.",
        )
    nan = np.full(len(found), np.nan)
    return Fits(
        measure=measure_words(o, plan.denominator),
        estimate=chosen.estimate,
        std_error=chosen.std_error,
        df=df,
        sd=one.sd,
        icc=np.where(impossible, 0.0, alpha),
        site_variance=nan,
        pair_variance=nan,
        subcluster_variance=nan,
        residual_variance=nan,
        singular=np.zeros(len(found), dtype=np.bool_),
        status="ok",
        ratio=chosen.ratio,
        effects=tuple(e for e in effects if e is not chosen or one.sd.tolist() != [1.0] * len(one.sd)),
        notes=notes,
    )


def _renamed(name: str, outcome: Outcome) -> str:
    if outcome.type == "bounded":
        return name.replace("risk", "mean")
    if outcome.type == "count":
        return name.replace("mean count difference", "rate difference").replace("mean count", "rate")
    return name


Found = Callable[[Array, Array, Array | None], tuple[float, float, float, float]]


def _by_likelihood(one: Prepared, plan: AnalysisPlan) -> Fits:
    """Proportional odds, and random site intercepts by quadrature: estimate, standard error, sd between sites, whether that is at zero."""
    o = one.outcome
    codes = np.unique(one.site, return_inverse=True)[1].astype(np.intp)
    m = len(one.responses)
    nan = np.full(m, np.nan)
    df = arm_df(one)
    notes: tuple[str, ...] = ()
    if o.type == "ordinal":
        ranks, categories = _ranks(one)
        if categories < 2:
            raise InputError(CONSTANT)
        found = np.array(_each(one, _ordinal(codes, plan.correction, marginal=o.chosen_model == "marginal")))
        try:
            cut = [ordinal.brant(x[:, 1:], g, codes, categories, 0) for x, g in zip(one.matrices, ranks, strict=True)]
            check = cut[0] if m == 1 else ordinal.pooled_brant(cut)
            notes = (f"{o.name}: {check.words}",)
        except InputError as error:
            notes = (f"{o.name}: {str(error).rstrip('.')}.",)
    else:
        found = np.array(_each(one, _mixed(codes, _MIXED[o.chosen_model])))
    if not (found[:, 1] > 0).all():
        raise InputError(generalised.SEPARATED)
    variance = found[:, 2] ** 2
    latent = o.type in ("binary", "ordinal")
    return Fits(
        measure=measure_words(o, plan.denominator),
        estimate=found[:, 0],
        std_error=found[:, 1],
        df=df,
        sd=one.sd,
        icc=variance / (variance + math.pi**2 / 3) if latent else nan,
        site_variance=variance,
        pair_variance=nan,
        subcluster_variance=nan,
        residual_variance=nan,
        singular=found[:, 3] > 0,
        status="ok",
        ratio=True,
        notes=notes,
    )


def _mixed(codes: NDArray[np.intp], family: str) -> Found:
    def fit(x: Array, y: Array, offset: Array | None) -> tuple[float, float, float, float]:
        best = generalised.maximise(x, y, codes, family, nodes=15, offset=offset)
        return float(best.beta[1]), math.sqrt(best.vcov[1, 1]), best.sd, float(best.boundary)

    return fit


def _ordinal(codes: NDArray[np.intp], correction: str, *, marginal: bool) -> Found:
    def fit(x: Array, y: Array, _: Array | None) -> tuple[float, float, float, float]:
        grades = np.searchsorted(np.unique(y), y)  # a category may be empty in one completed table
        C = int(grades.max()) + 1
        # the thresholds stand for the constant
        if marginal:
            found = ordinal.marginal(x[:, 1:], grades, codes, C)
            contrast = np.zeros((1, C + x.shape[1] - 2))
            contrast[0, C - 1] = 1.0
            return float(found.beta[0]), float(gee.std_errors(contrast, found.covariances, correction)[0]), math.nan, 0.0
        best = ordinal.mixed(x[:, 1:], grades, codes, C)
        return float(best.beta[0]), math.sqrt(best.vcov[C - 1, C - 1]), best.sd, float(best.boundary)

    return fit


def _ranks(one: Prepared) -> tuple[list[NDArray[np.intp]], int]:
    """Categories of all tables as 0..C-1, table by table."""
    values = np.unique(np.concatenate(one.responses))
    return [np.searchsorted(values, y).astype(np.intp) for y in one.responses], len(values)


# --- pooling --------------------------------------------------------------------------------------------------


def pooled_row(done: Fitted, plan: AnalysisPlan) -> dict[str, Any]:
    """The pooled effect of one outcome; every number missing when it could not be fitted."""
    f = done.fits
    row: dict[str, Any] = dict.fromkeys(NUMBERS, math.nan)
    if f is None:
        return row
    row |= pool(f.estimate / f.sd, f.std_error / f.sd, f.df, plan.conf_level, ratio=f.ratio)
    row["icc"] = float(f.icc.mean())
    return row


def pool(estimate: Array, std_error: Array, df: Array, conf_level: float, *, ratio: bool) -> dict[str, float]:
    """One table's inference, or Rubin's rules with Barnard and Rubin's df; a ratio and its limits come back from the logarithm."""
    if len(estimate) == 1:
        t = estimate[0] / std_error[0]
        half = float(special.stdtrit(df[0], 0.5 + conf_level / 2)) * std_error[0]
        row = {
            "estimate": float(estimate[0]), "std_error": float(std_error[0]), "df": float(df[0]), "statistic": float(t),
            "p_value": float(2 * special.stdtr(df[0], -abs(t))), "conf_low": float(estimate[0] - half),
            "conf_high": float(estimate[0] + half), "fmi": math.nan,
        }  # fmt: skip
    else:
        pooled = pooling.pool_scalar(estimate, std_error**2, df, conf_level=conf_level)
        names = ("estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "fmi")
        row = {name: float(getattr(pooled, name)) for name in names}
    if ratio:
        row |= {k: math.exp(row[k]) for k in ("estimate", "conf_low", "conf_high")}
    return row


def pool_effect(estimate: Array, std_error: Array, df: Array, conf_level: float) -> dict[str, float]:
    """`pool`, only the numbers that every row of an effect has."""
    row = pool(estimate, std_error, df, conf_level, ratio=False)
    return {name: row[name] for name in EFFECT}
