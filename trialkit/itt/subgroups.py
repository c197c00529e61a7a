"""Whether the effect differs between kinds of people or sites: effects by subgroup, and the test of their difference.

The design's model gains the moderator and its product with the arm; the joint Kenward-Roger F of the products is the test, and each
subgroup's effect is a contrast of the same model, so that all share its variances. A subgroup's own p-value is no evidence that effects
differ; the interaction is (Kent et al. 2020, Ann. Intern. Med. 172:35).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from trialkit._kernels import pooling, reml, small_sample
from trialkit.design import Outcome, TrialDesign
from trialkit.door import InputError, few, printable, require_columns
from trialkit.itt import gee, ordinal
from trialkit.itt.coefficient_table import EFFECT
from trialkit.itt.denominator_df import counted_df
from trialkit.itt.generalised import SEPARATED
from trialkit.itt.model_frame import Column, read_column
from trialkit.itt.outcome_models import FAMILY, AnalysisPlan, measure_words, plan_of, pool_effect
from trialkit.itt.people import WHERE, People
from trialkit.itt.prepared import Prepared, outcomes_asked, prepare, read_covariate
from trialkit.results import Result

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SubgroupEffects(Result):
    """Effects by subgroup.

    Attributes
    ----------
    frame : DataFrame
        outcome, moderator, subgroup, estimate, std_error, df, p_value, conf_low, conf_high, n_reference, n_intervention,
        clusters_reference, clusters_intervention, measure: what `estimate` is. Differences are over the SD of the whole outcome; a ratio
        stands as a ratio, with the standard error of its logarithm. A moderator of many numbers has three rows: at its mean, and one SD
        below and above (counts are then of everybody).
    differences : DataFrame
        outcome, moderator, contrast, estimate, std_error, df, p_value, conf_low, conf_high, measure: each subgroup's effect minus that of
        the first, or the change of the effect for one SD of the moderator; of ratios the ratio of the two.
    interactions : DataFrame
        outcome, moderator, statistic, df_num, df_den, p_value: the joint F test that the effect is the same in all subgroups.
    problems : mapping of (outcome, moderator) to reason
    notes : tuple of str
    """

    frame: pd.DataFrame
    differences: pd.DataFrame = field(repr=False)
    interactions: pd.DataFrame = field(repr=False)
    problems: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    title: str = "Effects by subgroup"


def subgroup_effects(
    data: pd.DataFrame | Iterable[pd.DataFrame],
    design: TrialDesign,
    by: str | Sequence[str],
    *,
    outcomes: Sequence[str] | None = None,
) -> SubgroupEffects:
    """Effects by subgroup of one or more moderators, each in a model of its own.

    Parameters
    ----------
    data, design
        As for `itt`.
    by : str or sequence of str
        Columns of people or of sites, measured before randomisation. Text, categories, booleans and numbers of two values make subgroups;
        other numbers are taken as linear.
    outcomes : sequence of str, optional
        By default the primary ones (all, when none is primary).

    Returns
    -------
    SubgroupEffects

    Raises
    ------
    InputError
        As `itt`; a column is absent or has a role of its own (arm, site, person, outcome); an outcome is not in the design.

    Notes
    -----
    Outcomes that the design analyses by the linear mixed model: its inference (Kenward-Roger or Satterthwaite). The others: a marginal
    model on the link's scale (GEE, exchangeable, the design's corrected sandwich, t with sites minus site-level coefficients df), so that
    the interaction is one of odds ratios (binary), rate ratios (counts), ratios of means (skewed), odds ratios of the share of the range
    (bounded) or cumulative odds ratios (ordinal, independence equations), whichever of its measures the design reports. With imputed
    tables, effects are pooled by Rubin's rules and the joint test by D1 (Li, Raghunathan & Rubin 1991; Reiter 2007 for few complete-data
    df). In one table, people who miss the moderator are left out.

    Examples
    --------
    >>> design = TrialDesign.from_text('[[outcomes]]\\nname = "y"\\nhas_baseline = false')
    >>> rng = np.random.default_rng(5)
    >>> site = np.repeat(np.arange(12), 6)
    >>> people = pd.DataFrame({
    ...     "person": range(72), "site": site, "arm": np.where(site % 2, "intervention", "control"),
    ...     "role": np.resize(["peer", "peer", "lead"], 72), "y": rng.normal(size=12)[site] / 3 + rng.normal(size=72),
    ... })
    >>> effects = subgroup_effects(people, design, "role")
    >>> effects.frame[["subgroup", "n_reference"]].to_dict("records")
    [{'subgroup': 'lead', 'n_reference': 12}, {'subgroup': 'peer', 'n_reference': 24}]
    >>> effects.interactions["df_num"].tolist()
    [1]
    """
    moderators = [by] if isinstance(by, str) else list(by)
    plan = plan_of(design, None, None)
    wanted = outcomes_asked(design, outcomes, primary=True)
    c = design.columns
    for moderator in moderators:
        if moderator in (c.arm, c.site, c.person, *(o.name for o in design.outcomes)):
            raise InputError(f"{moderator!r} is the trial's arm, site, person or outcome, so it cannot be a moderator of the effect.")
    tables, people, prepared = prepare(data, design, denominator=plan.denominator, scale="each-set")
    columns = {m: [_read(table, m, people, design) for table in tables] for m in moderators}
    effects, differences, interactions = [], [], []
    problems: dict[tuple[str, str], str] = {}
    lost: list[str] = []
    for one in prepared:
        if one.outcome.name not in wanted:
            continue
        for moderator in moderators:
            key = {"outcome": one.outcome.name, "moderator": moderator}
            try:
                part = _ready(one, moderator, columns[moderator])
                if len(part.kept) < one.n:
                    lost.append(f"{one.outcome.name} {one.n - len(part.kept)} ({moderator})")
                found = _fit(part, plan) if one.outcome.linear else _fit_marginal(part, plan)
            except InputError as error:
                problems[one.outcome.name, moderator] = str(error).rstrip(".")
                blank = dict.fromkeys(EFFECT, math.nan)
                effects.append({**key, "subgroup": "", **blank, **dict.fromkeys(_COUNTS, 0), "measure": ""})
                interactions.append({**key, "statistic": math.nan, "df_num": 0, "df_den": math.nan, "p_value": math.nan})
                continue
            effects += [{**key, **row} for row in found.effects]
            differences += [{**key, **row} for row in found.differences]
            interactions.append({**key, **found.interaction})
    notes = [
        f"Each moderator in a model of its own; {len(interactions)} tests of interaction, not adjusted for their number.",
        "The interaction says whether effects differ; a subgroup's own p-value does not.",
    ]
    other = [f"{o.name} ({_RATIOS[o.type]})" for o in design.outcomes if o.name in wanted and not o.linear]
    if other:
        notes.append(
            f"On the scale of a marginal model's link, where one interaction is one number: {few(other, 12)}. On another scale (risk "
            "differences, say) effects may differ between subgroups when these do not, and the other way round."
        )
    if design.analysis.structured:
        notes.append("Random intercepts and one residual variance here, whatever the design's analysis has beyond them.")
    if lost:
        notes.append(f"Left out because the moderator is missing: {few(lost, 12)}.")
    notes += [f"{outcome} by {moderator}: {reason}." for (outcome, moderator), reason in problems.items()]
    text = {"outcome": "str", "moderator": "str"}
    return SubgroupEffects(
        frame=pd.DataFrame(effects).astype({**text, "subgroup": "str", "measure": "str"}),
        differences=pd.DataFrame(differences, columns=["outcome", "moderator", "contrast", *EFFECT, "measure"]),
        interactions=pd.DataFrame(interactions).astype(text),
        problems=problems,
        notes=tuple(notes),
    )


# --- the moderator --------------------------------------------------------------------------------------------

_COUNTS = ("n_reference", "n_intervention", "clusters_reference", "clusters_intervention")


def _read(table: pd.DataFrame, name: str, people: People, design: TrialDesign) -> Column:
    """The moderator of the analysed people, numbers of two values as a factor."""
    require_columns(table, [name], where=WHERE, why="as a moderator")
    declared = next((v for v in design.covariates if v.name == name), None)
    column = read_column(table, name, why="as a moderator") if declared is None else read_covariate(table, declared)
    if column.levels is None and len(np.unique(column.values[~np.isnan(column.values)])) <= 2:
        column = read_column(table, name, as_factor=True)
    return Column(column.values[people.rows], column.levels)


@dataclass(frozen=True, slots=True)
class _Moderated:
    """One outcome with one moderator; lists have one entry a table."""

    one: Prepared
    kept: NDArray[np.intp]  # rows of the prepared outcome
    labels: tuple[str, ...]  # of the effects
    matrices: list[Array]  # (n, p), the products last
    contrasts: Array  # (labels, 1 + products): of the arm and the products
    counts: list[tuple[int, int, int, int]]
    words: tuple[str, ...]  # of the products
    members: list[Array] | None = None  # each person's subgroup (n,); None for a moderator of many numbers


def _ready(one: Prepared, moderator: str, columns: Sequence[Column]) -> _Moderated:
    if one.reason:
        raise InputError(one.reason)
    parts = [Column(column.values[one.rows], column.levels) for column in columns]
    missing = np.any([part.missing for part in parts], axis=0)
    if missing.any() and len(parts) > 1:
        raise InputError(f"{int(missing.sum())} rows miss {moderator!r} after imputation; impute it too")
    kept = np.flatnonzero(~missing)
    arm, site = one.arm[kept], one.site[kept]
    if parts[0].levels is None:
        values = [part.values[kept].astype(np.float64) for part in parts]
        centre = float(np.mean([v.mean() for v in values]))
        spread = math.sqrt(float(np.mean([v.var(ddof=1) for v in values]))) if len(kept) > 1 else 0.0
        if spread == 0:
            raise InputError(f"{moderator!r} has one value among the people analysed")
        products = [((v - centre) / spread)[:, None] for v in values]
        labels = tuple(f"{word} ({centre + k * spread:.4g})" for k, word in ((-1, "mean - SD"), (0, "mean"), (1, "mean + SD")))
        contrasts = np.array([[1.0, -1.0], [1.0, 0.0], [1.0, 1.0]])
        counts = [_count(arm, site)] * 3
        words: tuple[str, ...] = (f"for one SD ({spread:.4g}) more",)
        members: list[Array] | None = None
    else:
        held = [part.take(kept) for part in parts]
        members = [np.asarray(h.values, dtype=np.float64) for h in held]
        labels = held[0].levels or ()
        if any(h.levels != labels for h in held):
            raise InputError(f"some imputed tables have nobody in a subgroup of {moderator!r}")
        if len(labels) < 2:
            raise InputError(f"{moderator!r} has one value among the people analysed")
        counts = [_count(arm[held[0].values == k], site[held[0].values == k]) for k in range(len(labels))]
        for k, label in enumerate(labels):
            if any(not 0 < arm[h.values == k].sum() < (h.values == k).sum() for h in held):
                raise InputError(f"nobody in one arm has {moderator} = {printable(label)!r}, so that subgroup has no effect")
        products = [(h.values[:, None] == np.arange(1, len(labels))).astype(np.float64) for h in held]
        contrasts = np.column_stack([np.ones(len(labels)), np.eye(len(labels))[:, 1:]])
        words = tuple(f"{label} minus {labels[0]}" for label in labels[1:])
    matrices = []
    for x, product in zip(one.matrices, products, strict=True):
        base = np.column_stack([x[kept], product])
        base = base[:, reml.independent_columns(base)]
        full = np.column_stack([base, arm[:, None] * product])
        if len(reml.independent_columns(full)) < full.shape[1]:
            raise InputError(f"{moderator!r} and the arm cannot be told apart from the covariates")
        if full.shape[1] >= len(kept):
            raise InputError("there are too few rows for the terms of the model")
        matrices.append(full)
    return _Moderated(one, kept, labels, matrices, contrasts, counts, words, members)


def _count(arm: Array, site: NDArray[np.intp]) -> tuple[int, int, int, int]:
    people = int((arm == 0).sum()), int((arm == 1).sum())
    return (*people, len(np.unique(site[arm == 0])), len(np.unique(site[arm == 1])))


# --- the fits -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    effects: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    interaction: dict[str, Any]


def _fit(part: _Moderated, plan: AnalysisPlan) -> _Found:
    kr = plan.inference == "kenward-roger"
    rule, joint = (
        (small_sample.kenward_roger, small_sample.kenward_roger_f) if kr else (small_sample.satterthwaite, small_sample.satterthwaite_f)
    )
    q = part.contrasts.shape[1] - 1
    rows = np.vstack([part.contrasts, np.column_stack([np.zeros(q), np.eye(q)])])
    estimates, errors, dfs, covariances, tests = [], [], [], [], []
    groups = [g[part.kept] for g in part.one.groups]
    for x, y, s in zip(part.matrices, part.one.responses, part.one.sd.tolist(), strict=True):
        fit = reml.fit(x, y[part.kept], groups)
        if fit.components is None:
            raise InputError(reml.STATUS[fit.status])
        L = np.zeros((len(rows), fit.p))
        L[:, 1], L[:, fit.p - q :] = rows[:, 0], rows[:, 1:]
        found = rule(fit, L)
        estimates.append(found.estimate / s)
        errors.append(found.std_error / s)
        dfs.append(found.df)
        covariances.append(found.cov[-q:, -q:] / s**2)
        tests.append(joint(fit, L[-q:]))
    measure = measure_words(part.one.outcome, plan.denominator)
    table = [pool_effect(b, se, df, plan.conf_level) for b, se, df in zip(*(np.array(v).T for v in (estimates, errors, dfs)), strict=True)]
    effects, differences = _rows(part, table, measure)
    k = len(part.labels)
    if len(tests) == 1:
        F, df_num, df_den = tests[0].statistic, tests[0].df_num, tests[0].df_den
    elif q == 1:
        # the t test of the one product, so that the two tables agree
        F, df_num, df_den = (table[k]["estimate"] / table[k]["std_error"]) ** 2, 1, table[k]["df"]
    else:
        complete = float(np.mean([t.df_den for t in tests]))
        pooled = pooling.d1(np.array(estimates)[:, -q:], np.array(covariances), complete)
        # with few tables D1's df do not know the complete data's, which are never exceeded
        F, df_num, df_den = pooled.statistic, q, min(pooled.df2, complete)
    p = float(special.fdtrc(df_num, df_den, F) if math.isfinite(df_den) else special.chdtrc(df_num, df_num * F))
    return _Found(effects, differences, {"statistic": F, "df_num": df_num, "df_den": df_den, "p_value": p})


def _rows(part: _Moderated, table: Sequence[dict[str, float]], measure: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The effects and what separates them, as rows."""
    k = len(part.labels)
    effects = [
        {"subgroup": label, **row, **dict(zip(_COUNTS, counts, strict=True)), "measure": measure}
        for label, row, counts in zip(part.labels, table[:k], part.counts, strict=True)
    ]
    return effects, [{"contrast": word, **row, "measure": measure} for word, row in zip(part.words, table[k:], strict=True)]


_RATIOS = {
    "binary": "odds ratio (marginal)", "count": "rate ratio", "skewed": "ratio of means", "bounded": "odds ratio of the share (marginal)",
    "ordinal": "cumulative odds ratio (marginal)", "continuous": "mean difference",
}  # fmt: skip


def _fit_marginal(part: _Moderated, plan: AnalysisPlan) -> _Found:
    """The interaction on the link's scale of the marginal model of the outcome's type."""
    one, kept = part.one, part.kept
    o, q = one.outcome, part.contrasts.shape[1] - 1
    if min(one.sites) < 2:
        raise InputError("a marginal model needs at least two sites an arm")
    codes = np.unique(one.site[kept], return_inverse=True)[1].astype(np.intp)
    rows = np.vstack([part.contrasts, np.column_stack([np.zeros(q), np.eye(q)])])
    _all_alike(part)
    estimates, errors, dfs, joint, nus = [], [], [], [], []
    offsets: Sequence[Array | None] = one.offsets or [None] * len(one.responses)
    for x, y, offset in zip(part.matrices, one.responses, offsets, strict=True):
        beta, covariances, first = _marginal_fit(x, y[kept], None if offset is None else offset[kept], codes, o)
        L = np.zeros((len(rows), len(beta)))
        L[:, first], L[:, len(beta) - q :] = rows[:, 0], rows[:, 1:]
        counted = counted_df(x, [codes], intercept=0, contain_intercept=True)
        # a sandwich over sites knows nothing better than their number allows, also of what varies inside them
        df = np.full(len(rows), float(counted[1]))
        if df[0] < 1:
            raise InputError("the arm and the other site-level terms use up every difference between sites")
        se = gee.std_errors(L, covariances, plan.correction)
        if not (np.isfinite(se).all() and (se > 0).all()):
            raise InputError(SEPARATED)
        estimates.append(L @ beta)
        errors.append(se)
        dfs.append(df)
        middle = L[-q:] @ covariances["MD" if plan.correction == "KC-MD" else plan.correction] @ L[-q:].T
        joint.append(middle)
        nus.append(float(counted[1]))
    table = [pool_effect(b, se, df, plan.conf_level) for b, se, df in zip(*(np.array(v).T for v in (estimates, errors, dfs)), strict=True)]
    if q == 1:
        F, df_num, df_den = (table[-1]["estimate"] / table[-1]["std_error"]) ** 2, 1, table[-1]["df"]
    else:
        df_num = q
        F, df_den = ordinal.hotelling(np.array(estimates)[:, -q:], np.array(joint), min(nus))
    if o.type != "continuous":
        table = [{**row, **{k: math.exp(row[k]) for k in ("estimate", "conf_low", "conf_high")}} for row in table]
    else:
        s = float(np.mean(one.sd))
        table = [{**row, **{k: row[k] / s for k in ("estimate", "std_error", "conf_low", "conf_high")}} for row in table]
    measure = measure_words(o, plan.denominator) if o.type == "continuous" else _RATIOS[o.type]
    effects, differences = _rows(part, table, measure)
    if o.type != "continuous":
        differences = [{**row, "contrast": row["contrast"].replace(" minus ", " over ")} for row in differences]
    p = float(special.fdtrc(df_num, df_den, F)) if df_den > 0 else math.nan
    return _Found(effects, differences, {"statistic": F, "df_num": df_num, "df_den": df_den, "p_value": p})


def _all_alike(part: _Moderated) -> None:
    """A subgroup with one outcome in an arm has no ratio there: estimates run off, and what they stop at means nothing."""
    arm = part.one.arm[part.kept]
    for y, members in zip(part.one.responses, part.members or (), strict=False):
        for k, label in enumerate(part.labels):
            for a, words in ((0.0, "reference"), (1.0, "intervention")):
                cell = y[part.kept][(members == k) & (arm == a)]
                bounded = part.one.outcome.type in ("binary", "ordinal", "bounded")
                if (bounded and np.ptp(cell) == 0 and cell[0] in (y.min(), y.max())) or (not bounded and not cell.any()):
                    raise InputError(f"everybody of {printable(label)!r} in the {words} arm has the outcome {cell[0]:g} (separation)")


def _marginal_fit(
    x: Array, y: Array, offset: Array | None, codes: NDArray[np.intp], outcome: Outcome
) -> tuple[Array, Mapping[str, Array], int]:
    """Coefficients, their sandwiches, and where the arm's stands."""
    try:
        if outcome.type == "ordinal":
            grades = np.searchsorted(np.unique(y), y).astype(np.intp)
            C = int(grades.max()) + 1
            fit = ordinal.marginal(x[:, 1:], grades, codes, C)
            return np.concatenate([fit.thresholds, fit.beta]), fit.covariances, C - 1
        low, span = (outcome.bounds[0], outcome.bounds[1] - outcome.bounds[0]) if outcome.bounds is not None else (0.0, 1.0)
        family = gee.FAMILIES[FAMILY[outcome.type]]
        share = (y - low) / span
        solved = gee.solve(x, share, codes, family, exchangeable=True, offset=offset)
        if family.name == "binomial" and np.abs(x @ solved.beta).max() > 15:
            raise InputError(SEPARATED)
        return solved.beta, gee.corrected(x, share, solved, family, offset=offset), 1
    except np.linalg.LinAlgError:
        raise InputError(SEPARATED) from None
