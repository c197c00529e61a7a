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
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from trialkit._kernels import pooling, reml, small_sample
from trialkit.design import Covariate, Outcome, TrialDesign
from trialkit.door import InputError, few, frame_digest, normalise, printable, require_columns, unknown_word
from trialkit.itt.effect_sizes import WORDS, standard_deviation
from trialkit.itt.model_frame import Column, read_column, read_response
from trialkit.itt.multiplicity import adjust_families
from trialkit.itt.people import WHERE, People, read_people
from trialkit.results import Provenance, Result

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
ScaleBy = Literal["each-set", "all-sets"]

COLUMNS = (
    "outcome", "level", "rank", "estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "p_adjusted", "icc", "fmi",
    "n", "clusters", "m",
)  # fmt: skip
_NUMBERS = ("estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "p_adjusted", "icc", "fmi")

_WHY = {
    "saturated": "there are too few rows for the terms of the model",
    "constant_outcome": "the outcome has one value in all analysed rows",
    "exact_fit": "the covariates reproduce the outcome exactly",
    "zero_residual": "the outcome does not vary within sites once the covariates are taken out; analyse one value a site",
    "no_between_df": "the arm and the other site-level terms use up every difference between sites; at least two sites an arm are needed",
    "no_within_df": "the covariates use up every difference within sites",
    "confounded": "pair, site and residual variance cannot be told apart",
}


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
    if not isinstance(design, TrialDesign):
        raise InputError(
            f"itt needs a TrialDesign as its second argument, not {type(design).__name__}. Read one: TrialDesign.from_toml(path)."
        )
    plan = _plan(design, inference, conf_level, sd)
    tables = _tables(data)
    people = read_people(tables[0], design)
    for k, table in enumerate(tables[1:], start=2):
        _same_people(tables[0], table, design, k)
    _need_columns(tables[0], design)
    sets = [_read(table, design, people, k) for k, table in enumerate(tables, start=1)]
    before = _observed(data, tables, design, people)
    done = [_outcome(outcome, sets, people, design, plan, before.get(outcome.name, -1)) for outcome in design.outcomes]
    return _assemble(done, data, tables, design, plan)


# --- what was asked -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    inference: str
    conf_level: float
    scale: str
    denominator: str


def _plan(design: TrialDesign, inference: str | None, conf_level: float | None, sd: str) -> _Plan:
    chosen = design.analysis.inference if inference is None else inference
    if chosen not in ("kenward-roger", "satterthwaite"):
        raise InputError(unknown_word(str(chosen), ("kenward-roger", "satterthwaite"), what="inference"))
    level = design.analysis.conf_level if conf_level is None else conf_level
    if not 0 < level < 1:
        raise InputError(f"conf_level = {level} is not between 0 and 1, for example 0.95.")
    if sd not in ("each-set", "all-sets"):
        raise InputError(unknown_word(str(sd), ("each-set", "all-sets"), what="sd"))
    return _Plan(chosen, level, sd, design.analysis.standardise)


def _tables(data: Any) -> list[pd.DataFrame]:
    if isinstance(data, pd.DataFrame):
        return [data]
    if hasattr(data, "to_pandas"):
        return [normalise(data)]
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise InputError(f"itt needs a table or an iterable of imputed tables, not {type(data).__name__}. Read a file by read_table(path).")
    tables = [table if isinstance(table, pd.DataFrame) else normalise(table) for table in data]
    if not tables:
        raise InputError("the iterable of tables is empty; a generator can be read only once. Give a list, or one table.")
    return tables


def _same_people(first: pd.DataFrame, table: pd.DataFrame, design: TrialDesign, k: int) -> None:
    c = design.columns
    roles = [
        c.person,
        c.site,
        c.arm,
        *([c.rater] if c.rater else []),
        *([c.pair] if c.pair and design.analysis.pair_effects != "none" else []),
    ]
    population = design.imputation.population
    require_columns(table, roles, where=f"imputed table {k}", why="as in the first")
    if len(table) != len(first):
        raise InputError(
            f"imputed table {k} has {len(table)} rows and the first has {len(first)}. They must be completed copies of one table."
        )
    for column in [*roles, *([population] if population in first.columns else [])]:
        if not table[column].reset_index(drop=True).equals(first[column].reset_index(drop=True)):
            raise InputError(
                f"imputed table {k} differs from the first in column {column!r}. Imputed tables must hold the same people in the same "
                "order; sites and arms are never imputed."
            )


def _need_columns(table: pd.DataFrame, design: TrialDesign) -> None:
    for outcome in design.outcomes:
        require_columns(table, [outcome.name], where=WHERE, why=f"as the outcome {outcome.name!r}")
        if _baseline(outcome, design) is not None:
            require_columns(
                table, [str(outcome.baseline)], where=WHERE, why=f"as the baseline of {outcome.name!r} (none? say has_baseline = false)"
            )
    for covariate in design.covariates:
        require_columns(table, [covariate.name], where=WHERE, why="as a covariate")


def _baseline(outcome: Outcome, design: TrialDesign) -> str | None:
    return outcome.baseline if design.analysis.baseline and outcome.has_baseline else None


# --- one table ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Set:
    """The columns of one completed table, in the analysed population."""

    numbers: dict[str, Array]  # outcomes and baselines, (n,) each, NaN = missing
    covariates: tuple[tuple[str, Column], ...]


def _read(table: pd.DataFrame, design: TrialDesign, people: People, k: int) -> _Set:
    rows = people.rows
    everybody = len(rows) == len(table)
    numbers: dict[str, Array] = {}
    for outcome in design.outcomes:
        for name in (outcome.name, _baseline(outcome, design)):
            if name is not None and name not in numbers:
                values = read_response(table, name)
                numbers[name] = values if everybody else values[rows]
    covariates = []
    for covariate in design.covariates:
        column = _covariate(table, covariate, k)
        covariates.append((covariate.name, column if everybody else Column(column.values[rows], column.levels)))
    return _Set(numbers, tuple(covariates))


def _covariate(table: pd.DataFrame, covariate: Covariate, k: int) -> Column:
    name = covariate.name
    factor = covariate.type in ("categorical", "ordinal") or covariate.levels is not None
    column = read_column(table, name, as_factor=factor, why="as a covariate")
    if covariate.type == "continuous" and column.levels is not None and not factor:
        if column.levels == ("FALSE", "TRUE"):
            return Column(np.where(column.values < 0, np.nan, column.values).astype(np.float64))
        raise InputError(
            f"the covariate {name!r} is declared continuous but holds text ({few(column.levels, 4)}). "
            "Say type = 'categorical', or correct the column."
        )
    if covariate.levels is not None and column.levels is not None:
        unknown = [level for level in column.levels if level not in covariate.levels]
        if unknown:
            raise InputError(
                f"the covariate {name!r} holds {printable(unknown[0])!r}, which is not one of its declared levels "
                f"({few(covariate.levels)}). Correct the cell, or the design's levels."
            )
        place = np.array([*(covariate.levels.index(level) for level in column.levels), -1], dtype=np.intp)
        return Column(place[column.values], tuple(covariate.levels))
    if covariate.type == "binary":
        if column.levels is not None and len(column.levels) > 2:
            raise InputError(f"the covariate {name!r} is declared binary but has {len(column.levels)} values ({few(column.levels, 4)}).")
        if column.levels is None and len(np.unique(column.values[~np.isnan(column.values)])) > 2:
            raise InputError(
                f"the covariate {name!r} is declared binary but has more than two values. Say type = 'continuous', or correct it."
            )
    return column


# --- one outcome --------------------------------------------------------------------------------------------


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
    residual_variance: Array
    singular: NDArray[np.bool_]
    status: str


@dataclass(frozen=True, slots=True)
class _Done:
    outcome: Outcome
    n: int
    missing: int
    observed: int  # people with the outcome observed before any imputation, -1 when that is not known
    arms: tuple[int, int]  # people in the reference and in the intervention arm
    sites: tuple[int, int]
    sizes: tuple[int, int]  # smallest and largest site
    formula: str
    left_out: tuple[str, ...]
    fits: _Fits | None
    reason: str = ""


def _observed(data: Any, tables: Sequence[pd.DataFrame], design: TrialDesign, people: People) -> dict[str, int]:
    """How many people had each outcome observed: in the one table, or in the imputations' table before imputation."""
    base = tables[0] if len(tables) == 1 else getattr(data, "base", None)
    if not isinstance(base, pd.DataFrame) or len(base) != len(tables[0]):
        return {}
    found = {}
    for outcome in design.outcomes:
        if outcome.name in base.columns:
            rows = people.rows[people.asked(outcome.rater)]
            found[outcome.name] = int(base[outcome.name].iloc[rows].notna().sum())
    return found


def _outcome(outcome: Outcome, sets: Sequence[_Set], people: People, design: TrialDesign, plan: _Plan, observed: int) -> _Done:
    asked = people.asked(outcome.rater)
    baseline = _baseline(outcome, design)
    lost = np.zeros(len(asked), dtype=bool)
    for one in sets:
        lost |= _incomplete(one, outcome.name, baseline, asked)
    rows = asked[~lost]
    arm = people.arm[rows]
    site = people.site[rows]
    arms = (int((arm == 0).sum()), int((arm == 1).sum()))
    per_site = np.bincount(site, minlength=1)
    sites = (len(np.unique(site[arm == 0])), len(np.unique(site[arm == 1])))
    present = per_site[per_site > 0]
    sizes = (int(present.min()), int(present.max())) if len(present) else (0, 0)
    groups, formula = _groups(people, rows, design, baseline, outcome)
    base = _Done(outcome, len(rows), int(lost.sum()), observed, arms, sites, sizes, formula, (), None)

    def failed(reason: str, left_out: tuple[str, ...] = ()) -> _Done:
        return _replace(base, reason=reason, left_out=left_out)

    if len(sets) > 1 and lost.any():
        columns = _worst_columns(sets, outcome.name, baseline, asked)
        return failed(f"{int(lost.sum())} of {len(asked)} rows still miss a value after imputation ({columns}); impute those columns too")
    if not len(rows):
        return failed("no row is complete in the outcome, its baseline and the covariates")
    empty = [label for label, count in zip(design.arms.labels, arms, strict=True) if count == 0]
    if empty:
        return failed(f"nobody in the {empty[0]!r} arm has complete values")
    if min(sites) < 2 and sum(sites) < 3:
        return failed(f"there are {sites[0]} and {sites[1]} sites in the two arms, so nothing tells the arm from the site")
    matrices, left_out = [], []
    for one in sets:
        x, names = _matrix(one, rows, arm, baseline, people, design)
        kept = reml.independent_columns(x)
        left_out += [names[j] for j in range(len(names)) if j not in set(kept.tolist())]
        matrices.append(x if len(kept) == x.shape[1] else np.ascontiguousarray(x[:, kept]))
    gone = tuple(dict.fromkeys(left_out))
    if any(x.shape[1] >= len(rows) for x in matrices):
        return failed(_WHY["saturated"], gone)
    responses = [one.numbers[outcome.name][rows] for one in sets]
    try:
        sd = _sds(responses, sets, rows, arm, baseline, plan)
    except InputError as error:
        return failed(_WHY["constant_outcome"] if all(np.ptp(y) == 0 for y in responses) else str(error).rstrip("."), gone)
    fitted = _fit_all(matrices, responses, groups)
    bad = next((f.status for f in fitted if f.status not in ("ok", "singletons")), "")
    if bad:
        return failed(_WHY.get(bad, bad), gone)
    fits = _infer(fitted, sd, plan, pair=design.analysis.pair_effects == "random")
    return _replace(base, fits=fits, left_out=gone)


def _replace(done: _Done, **changes: Any) -> _Done:
    import dataclasses

    return dataclasses.replace(done, **changes)


def _incomplete(one: _Set, outcome: str, baseline: str | None, asked: Rows) -> NDArray[np.bool_]:
    lost = np.isnan(one.numbers[outcome][asked])
    if baseline is not None:
        lost |= np.isnan(one.numbers[baseline][asked])
    for _, column in one.covariates:
        lost |= column.missing[asked]
    return np.asarray(lost)


def _worst_columns(sets: Sequence[_Set], outcome: str, baseline: str | None, asked: Rows) -> str:
    found: dict[str, int] = {}
    for one in sets:
        for name in [outcome, *([baseline] if baseline else [])]:
            found[name] = max(found.get(name, 0), int(np.isnan(one.numbers[name][asked]).sum()))
        for name, column in one.covariates:
            found[name] = max(found.get(name, 0), int(column.missing[asked].sum()))
    return few([f"{name} in {count}" for name, count in found.items() if count])


def _groups(people: People, rows: Rows, design: TrialDesign, baseline: str | None, outcome: Outcome) -> tuple[list[Rows], str]:
    c = design.columns
    terms = [c.arm, *([baseline] if baseline else []), *(v.name for v in design.covariates)]
    groups = [people.site[rows]]
    random = f"(1|{c.site})"
    if design.analysis.pair_effects == "random" and people.pair is not None:
        groups = [people.pair[rows], people.site[rows]]
        random = f"(1|{c.pair}) + (1|{c.site})"
    elif design.analysis.pair_effects == "fixed":
        terms.append(str(c.pair))
    return groups, f"{outcome.name} ~ {' + '.join(terms)} + {random}"


def _matrix(one: _Set, rows: Rows, arm: Array, baseline: str | None, people: People, design: TrialDesign) -> tuple[Array, list[str]]:
    """Constant, arm, baseline, covariates by treatment contrasts, fixed pairs; the arm stands second, so it is never the column dropped."""
    columns = [np.ones(len(rows)), arm]
    names = ["(Intercept)", design.columns.arm]
    if baseline is not None:
        columns.append(one.numbers[baseline][rows])
        names.append(baseline)
    for name, column in one.covariates:
        part = column.take(rows)
        if part.levels is None:
            columns.append(np.asarray(part.values, dtype=np.float64))
            names.append(name)
            continue
        if len(part.levels) < 2:
            # one level left: the term has no column, and that is said
            columns.append(np.zeros(len(rows)))
            names.append(name)
        for k in range(1, len(part.levels)):
            columns.append((part.values == k).astype(np.float64))
            names.append(f"{name}{part.levels[k]}")
    if design.analysis.pair_effects == "fixed" and people.pair is not None:
        pair = people.pair[rows]
        for k in np.unique(pair)[1:]:
            columns.append((pair == k).astype(np.float64))
            names.append(f"{design.columns.pair}{people.pairs[k]}")
    return np.column_stack(columns), names


def _sds(responses: Sequence[Array], sets: Sequence[_Set], rows: Rows, arm: Array, baseline: str | None, plan: _Plan) -> Array:
    if plan.denominator == "none":
        return np.ones(len(sets))
    if plan.denominator == "baseline" and baseline is None:
        raise InputError("the outcome has no baseline, so it cannot be divided by the baseline SD")
    sd = np.array(
        [
            standard_deviation(y, arm, denominator=plan.denominator, baseline=None if baseline is None else one.numbers[baseline][rows])
            for y, one in zip(responses, sets, strict=True)
        ]
    )
    return np.full(len(sd), math.sqrt(float((sd**2).mean()))) if plan.scale == "all-sets" else sd


def _fit_all(matrices: Sequence[Array], responses: Sequence[Array], groups: Sequence[Rows]) -> list[Any]:
    if len({x.shape[1] for x in matrices}) == 1:
        return reml.fit_sets(list(zip(matrices, responses, strict=True)), groups)
    # a category that is empty in some completed tables leaves their models one column shorter
    return [reml.fit(x, y, groups) for x, y in zip(matrices, responses, strict=True)]


def _infer(fitted: Sequence[Any], sd: Array, plan: _Plan, *, pair: bool) -> _Fits:
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
    between = variances.sum(axis=1)
    return _Fits(
        estimate=estimate,
        std_error=std_error,
        df=df,
        sd=sd,
        icc=between / (between + residual),
        site_variance=variances[:, -1],
        pair_variance=variances[:, 0] if pair else np.full(m, np.nan),
        residual_variance=residual,
        singular=np.array([bool((f.boundary & f.identified).any()) for f in fitted]),
        status=fitted[0].status,
    )


# --- one table of results -----------------------------------------------------------------------------------


def _row(done: _Done, plan: _Plan) -> dict[str, Any]:
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


def _assemble(done: Sequence[_Done], data: Any, tables: Sequence[pd.DataFrame], design: TrialDesign, plan: _Plan) -> ITTResults:
    m = len(tables)
    rows = [_row(one, plan) for one in done]
    p = np.array([row["p_value"] for row in rows])
    adjusted = adjust_families(p, [one.outcome.family for one in done], design.analysis.multiplicity, on_missing="as_p1")
    table = []
    for one, row, p_adjusted in zip(done, rows, adjusted, strict=True):
        o = one.outcome
        table.append(
            {
                "outcome": o.name, "level": o.level, "rank": o.rank, **row, "p_adjusted": float(p_adjusted),
                "n": one.n, "clusters": sum(one.sites), "m": m,
            }
        )  # fmt: skip
    frame = pd.DataFrame(table, columns=list(COLUMNS)).astype({"outcome": "str", "level": "str", "rank": "str"})
    problems = {one.outcome.name: one.reason for one in done if one.reason}
    settings = {"design": design.digest, "inference": plan.inference, "conf_level": plan.conf_level, "sd": plan.scale, "m": m}
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


def _detail(done: _Done, plan: _Plan) -> dict[str, Any]:
    o, f = done.outcome, done.fits
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
        "formula": done.formula,
        "inference": plan.inference,
        "denominator": plan.denominator,
        "sd": nan if f is None else float(f.sd.mean()),
        "raw_estimate": raw,
        "raw_std_error": raw_se,
        "n_reference": done.arms[0],
        "n_intervention": done.arms[1],
        "clusters_reference": done.sites[0],
        "clusters_intervention": done.sites[1],
        "smallest_cluster": done.sizes[0],
        "largest_cluster": done.sizes[1],
        "observed": done.observed,
        "left_out": done.missing,
        "singular": nan if f is None else float(f.singular.mean()),
        "df_low": nan if f is None else float(f.df.min()),
        "df_high": nan if f is None else float(f.df.max()),
        "site_variance": nan if f is None else float(f.site_variance.mean()),
        "pair_variance": nan if f is None else float(f.pair_variance.mean()),
        "residual_variance": nan if f is None else float(f.residual_variance.mean()),
        "columns_left_out": ", ".join(done.left_out),
        "problem": done.reason,
    }


def _notes(done: Sequence[_Done], data: Any, design: TrialDesign, plan: _Plan, m: int) -> list[str]:
    fitted = [one for one in done if one.fits is not None]
    notes = []
    if m == 1:
        lost = [f"{one.outcome.name} {one.missing}" for one in done if one.missing]
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
    if fitted:
        low, high = min(one.fits.df.min() for one in fitted), max(one.fits.df.max() for one in fitted)  # type: ignore[union-attr]
        notes.append(
            f"Each outcome on arm{', its own baseline' if design.analysis.baseline else ''}"
            f"{' and ' + few([v.name for v in design.covariates], 12) if design.covariates else ''}, with "
            f"{_pair_words(design)}; REML, {plan.inference} df {low:.1f} to {high:.1f}."
        )
    notes += _families_note(done, design)
    singular = [f"{one.outcome.name} ({_of(one.fits, m)})" for one in fitted if one.fits is not None and one.fits.singular.any()]
    if singular:
        notes.append(f"A between-group variance is estimated at zero: {few(singular, 12)}.")
    alone = [one.outcome.name for one in fitted if one.fits is not None and one.fits.status == "singletons"]
    if alone:
        notes.append(f"One person in every site, so least squares with df = n - p and no ICC: {few(alone, 12)}.")
    dropped = {one.left_out: one.outcome.name for one in done if one.left_out}
    notes += [
        f"Covariate columns left out as constant or combinations of others ({name}, ...): {few(list(c))}." for c, name in dropped.items()
    ]
    odd = [f"{one.outcome.name} ({one.outcome.type})" for one in fitted if one.outcome.type != "continuous"]
    if odd:
        notes.append(f"Analysed on their own scale by the linear model, as in the trial: {few(odd, 12)}.")
    notes += [f"{one.outcome.name} could not be analysed: {one.reason}." for one in done if one.reason]
    return notes


def _of(fits: _Fits | None, m: int) -> str:
    count = 0 if fits is None else int(fits.singular.sum())
    return "the fit" if m == 1 else f"{count} of {m} fits"


def _pair_words(design: TrialDesign) -> str:
    site = f"a random intercept for {design.columns.site}"
    return {
        "none": site,
        "random": f"random intercepts for {design.columns.pair} and {design.columns.site}",
        "fixed": f"fixed effects of {design.columns.pair} and {site}",
    }[design.analysis.pair_effects]


def _families_note(done: Sequence[_Done], design: TrialDesign) -> list[str]:
    method = design.analysis.multiplicity
    if method == "none":
        return ["p_adjusted equals p_value: no adjustment for several outcomes was declared."]
    families: dict[str, int] = {}
    for one in done:
        families[one.outcome.family] = families.get(one.outcome.family, 0) + 1
    words = ", ".join(f"{name} ({count})" for name, count in families.items())
    missing = " An outcome that could not be analysed counts as p = 1." if any(one.reason for one in done) else ""
    return [f"p_adjusted: {method} inside each family: {words}.{missing}"]
