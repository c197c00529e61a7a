"""`itt`: one model an outcome, as its type asks for it, over every imputed table, pooled to one row an outcome.

Each completed table is analysed as if it had been observed - the dependent variable standardised in it included - and the m answers are
pooled by Rubin's rules, with Barnard & Rubin's degrees of freedom built on the mean Kenward-Roger df. Standardising is linear, so the
model is fitted to the raw outcome and its arm coefficient, standard error and interval are divided by that table's SD: the same numbers.
Ratios are pooled as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit._kernels import pooling
from trialkit.design import TrialDesign
from trialkit.door import InputError, few, frame_digest, unknown_word
from trialkit.itt.beside import (
    ALL,
    COMPLIERS,
    COMPLIERS_BY_SITE,
    NAMED,
    PER_PROTOCOL,
    RANDOMISATION,
    Beside,
    beside,
    pair_labels,
    randomised_family,
)
from trialkit.itt.coefficient_table import EFFECT
from trialkit.itt.compliance import Received, read_received
from trialkit.itt.effect_sizes import WORDS
from trialkit.itt.multiplicity import adjust_families
from trialkit.itt.outcome_models import NAMES, AnalysisPlan, Fits, Fitted, fit_prepared, measure_words, plan_of, pool, pooled_row
from trialkit.itt.per_protocol import read_followers, warning
from trialkit.itt.prepared import Prepared, ScaleBy, prepare
from trialkit.itt.randomisation import ABSENT, Scheme
from trialkit.itt.subset import subset
from trialkit.results import Provenance, Result

COLUMNS = (
    "outcome", "level", "rank", "estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "p_adjusted", "icc", "fmi",
    "n", "clusters", "m",
)  # fmt: skip
MORE = ("measure", "analysis")


@dataclass(frozen=True)
class ITTResults(Result):
    """Intention-to-treat effects, one row an outcome in the design's order; no outcome is ever left out.

    Attributes
    ----------
    frame : DataFrame
        outcome, level, rank, estimate, std_error, df, statistic, p_value, conf_low, conf_high, p_adjusted, icc, fmi, n, clusters, m. An
        outcome that could not be analysed has missing numbers here and its reason in `problems`. Where an outcome is not analysed by the
        linear mixed model, or other analyses were asked for, two columns follow: measure (what `estimate` is) and analysis (what gave
        it). A ratio stands as a ratio; its `std_error` is that of its logarithm, and `statistic` the logarithm over it.
    measures : DataFrame
        outcome, measure, estimate, std_error, df, p_value, conf_low, conf_high: every measure that the outcome's model gives, absolute and
        relative: risks or rates by arm, their difference and ratios.
    details : DataFrame
        One row an outcome: label, rater, family, type, measure, model, formula, denominator, sd, raw_estimate and raw_std_error
        (unstandardised; of a ratio its logarithm), people and sites by arm, rows left out as missing, the share of fits with a variance at
        zero, the range of the complete-data df, variances.
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
    measures: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)

    @property
    def model(self) -> ITTResults:
        """The same results with the models' rows alone, without the analyses beside them."""
        kept = self.frame
        if "analysis" in kept.columns and kept["outcome"].duplicated().any():
            kept = kept.drop_duplicates("outcome").reset_index(drop=True)
            if set(kept["analysis"]) == {NAMES["linear-mixed"]}:
                kept = kept.drop(columns=list(MORE))
        names = set(kept["outcome"])
        return replace(self, frame=kept, problems=MappingProxyType({k: v for k, v in self.problems.items() if k in names}))

    @property
    def header(self) -> tuple[str, ...]:
        """What stands above the table: imputations, people, sites and their sizes, missing information, df, the m to aim at."""
        return header(self.frame, self.details, self.m)

    def to_text(self) -> str:
        """Plain text: the header, then the table."""
        title, _, rest = self.table().to_text().partition("\n")
        return "\n".join([title, *self.header, "", rest])


def itt(
    data: pd.DataFrame | Iterable[pd.DataFrame],
    design: TrialDesign,
    *,
    inference: str | None = None,
    conf_level: float | None = None,
    sd: ScaleBy = "each-set",
    analyses: str | Sequence[str] = "model",
    plan: Scheme | None = None,
    draws: int = 10_000,
    seed: int | None = None,
) -> ITTResults:
    """Analyse every outcome of a trial as randomised, as its declared type asks for.

    A continuous outcome is regressed on arm, its own baseline and the design's covariates, with a random intercept for site (and pair
    effects none, random or fixed as declared), by REML with Kenward-Roger inference; the arm's coefficient is divided by the declared SD
    (by default that of the outcome over both arms, so it is Cohen's d), intervention minus reference, whichever direction is better.
    Binary, count, bounded and skewed outcomes have a marginal model (GEE, the design's corrected sandwich), ordinal ones proportional
    odds; ``measure`` and ``model`` in the design choose among risk difference, risk ratio, odds ratio, rate ratio and so on, and
    random-intercept models by adaptive quadrature. Any outcome with ``measure = "standardised-difference"`` is analysed by the linear
    mixed model.

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
    analyses : "model", "all", or list of str
        The other analyses to set beside the model, a row each below it: see `trialkit.itt.beside.NAMED`. ``"all"`` is every one that the
        data and the plan allow: two-stage analyses of site means, unadjusted and adjusted, weighted and not; pairs, when the table has
        them; the randomisation test, when the plan is given; the complier-average effect by two-stage least squares of people and of site
        means, when the design declares what was received (``[compliance]``). ``"per-protocol"``, the model on those who followed the
        protocol, is made only when it is named: ``["all", "per-protocol"]``.
    plan : Scheme, optional
        The allocation plan: for the randomisation test, and needed when the design's multiplicity is ``"max-t"``.
    draws, seed : int
        For randomisation, when the plan has too many assignments to go through all.

    Returns
    -------
    ITTResults

    Raises
    ------
    InputError
        A column is missing; a person is in two sites or stands twice; a site is in two arms or pairs; a site or arm is blank; an arm is not
        the design's; imputed tables do not hold the same people; a value does not suit the declared type; an analysis is unknown or needs a
        plan that was not given.

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
    chosen = plan_of(design, inference, conf_level)
    which = _which(analyses, plan)
    if design.analysis.multiplicity == "max-t" and plan is None:
        raise InputError(
            'the design declares multiplicity = "max-t", which adjusts by the randomisation itself: give the allocation plan, plan= '
            "(at the command line: --allocation)."
        )
    if which or design.analysis.multiplicity == "max-t":
        data = data if isinstance(data, pd.DataFrame) or hasattr(data, "to_pandas") or hasattr(data, "base") else list(data)
    tables, people, outcomes = prepare(data, design, denominator=chosen.denominator, scale=sd)
    done = [fit_prepared(one, chosen) for one in outcomes]
    sites = outcomes
    if (which or design.analysis.multiplicity == "max-t") and design.analysis.pair_effects != "none":
        # pairs belong to the comparison of arms (stage 2), so fixed pair effects are not covariates of stage 1
        alone = design.model_copy(update={"analysis": design.analysis.model_copy(update={"pair_effects": "none"})})
        _, people, sites = prepare(data, alone, denominator=chosen.denominator, scale=sd)
    families = [o.family for o in design.outcomes]
    by_plan = None
    if design.analysis.multiplicity == "max-t" and plan is not None:
        by_plan = randomised_family(sites, families, people, plan, denominator=chosen.denominator, draws=draws, seed=seed)
    others: list[Beside] = []
    said: list[str] = []
    if which:
        pairs = pair_labels(tables[0], design, people)
        received = read_received(tables, people, design)
        if received is None and not isinstance(analyses, str) and {COMPLIERS, COMPLIERS_BY_SITE} & set(analyses):
            raise InputError(
                "a complier-average effect needs what was received: name the column(s) by received under [compliance] in the design."
            )
        options: dict[str, Any] = {"denominator": chosen.denominator, "draws": draws, "seed": seed, "conf_level": chosen.conf_level}
        others = [beside(one, people, pairs, plan, received, which, **options) for one in sites]
        said += _randomisation_notes(others)
        said += _compliance_notes(others, received, which)
    if PER_PROTOCOL in which:
        followed = read_followers(tables, people, design)
        others = [_with_per_protocol(one, found, followed, chosen) for one, found in zip(outcomes, others, strict=True)]
        said.append(warning(followed, people, design))
    return _assemble(done, others, by_plan, data, tables, design, chosen, sd, said)


def _which(analyses: str | Sequence[str], plan: Scheme | None) -> tuple[str, ...]:
    """The analyses beside the model, "all" spelt out."""
    if analyses == "model":
        return ()
    if analyses == "all":
        return ALL
    if isinstance(analyses, str):
        raise InputError(unknown_word(analyses, ("model", "all"), what="analyses") + f" Or give a list of names: {few(NAMED, 12)}.")
    for name in analyses:
        if name not in (*NAMED, "model", "all"):
            raise InputError(unknown_word(str(name), (*NAMED, "model", "all"), what="analysis"))
    if RANDOMISATION in analyses and plan is None:
        raise InputError("the randomisation test permutes the arms as they were allocated: give the allocation plan, plan=.")
    asked = {*analyses, *(ALL if "all" in analyses else ())}
    return tuple(name for name in NAMED if name in asked)


def _randomisation_notes(others: Sequence[Beside]) -> list[str]:
    """How the tests were made, each thing said once; sites without data are counted."""
    notes = list(dict.fromkeys(note for one in others for note in one.said if not note.startswith(ABSENT)))
    absent = [note for one in others for note in one.said if note.startswith(ABSENT)]
    if len(set(absent)) == 1:
        notes.append(absent[0])
    elif absent:
        notes.append(f"{ABSENT}, which differ between outcomes, are left out of the statistic; the column clusters counts the others.")
    return [f"Randomisation test: {note}" for note in notes]


def _compliance_notes(others: Sequence[Beside], received: Received | None, which: Sequence[str]) -> list[str]:
    strengths = [one.first_stage_f for one in others if not math.isnan(one.first_stage_f)]
    if received is None or not strengths or not set(which) & {COMPLIERS, COMPLIERS_BY_SITE}:
        return []
    least = min(strengths)
    strong = "assignment decides alone what is received" if math.isinf(least) else f"first-stage F at least {least:.1f}"
    weak = " Below 10 the instrument is weak: estimates are biased and intervals too short." if least < 10 else ""
    return [f"{received.note} CR2 over sites with Satterthwaite df, or t on site means; {strong}.{weak}"]


def _with_per_protocol(one: Prepared, found: Beside, followed: NDArray[np.bool_], plan: AnalysisPlan) -> Beside:
    """The other analyses of an outcome, and its model on those who followed the protocol."""
    done = fit_prepared(subset(one, followed[one.rows]), plan)
    row = {
        **pooled_row(done, plan), "measure": measure_words(one.outcome, plan.denominator), "analysis": PER_PROTOCOL,
        "n": done.prepared.n, "clusters": sum(done.prepared.sites),
    }  # fmt: skip
    problems = {**found.problems, **({PER_PROTOCOL: done.reason} if done.reason else {})}
    return replace(found, rows=(*found.rows, row), problems=problems)


# --- one table of results -------------------------------------------------------------------------------------


def _assemble(
    done: Sequence[Fitted],
    others: Sequence[Beside],
    by_plan: Any,
    data: Any,
    tables: Sequence[pd.DataFrame],
    design: TrialDesign,
    plan: AnalysisPlan,
    sd: str,
    said: Sequence[str],
) -> ITTResults:
    m = len(tables)
    families = [one.prepared.outcome.family for one in done]
    stacks: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for k, one in enumerate(done):
        o = one.prepared.outcome
        model: dict[str, Any] = {
            **pooled_row(one, plan), "measure": measure_words(o, plan.denominator), "analysis": NAMES[o.chosen_model],
            "n": one.prepared.n, "clusters": sum(one.prepared.sites),
        }  # fmt: skip
        stacks.setdefault("", []).append((k, model))
        for row in others[k].rows if others else ():
            stacks.setdefault(str(row["analysis"]), []).append((k, row))
    # each analysis is adjusted by itself, so that the columns of the table stay comparable
    method = design.analysis.multiplicity
    for name, rows in stacks.items():
        if method == "max-t":
            adjusted = by_plan if not name else np.full(len(rows), np.nan)
        else:
            p = np.array([row["p_value"] for _, row in rows])
            adjusted = adjust_families(p, [families[k] for k, _ in rows], method, on_missing="as_p1")
        for (_, row), value in zip(rows, adjusted, strict=True):
            row["p_adjusted"] = float(value)
    everything = [(k, place, row) for place, rows in enumerate(stacks.values()) for k, row in rows]
    table = []
    for k, _, row in sorted(everything, key=lambda e: e[:2]):
        o = done[k].prepared.outcome
        table.append({"outcome": o.name, "level": o.level, "rank": o.rank, **row, "m": m})
    plain = not others and all(one.prepared.outcome.linear for one in done)
    columns = [*COLUMNS, *(() if plain else MORE)]
    frame = pd.DataFrame(table, columns=columns).astype(
        dict.fromkeys([c for c in ("outcome", "level", "rank", *MORE) if c in columns], "str")
    )
    problems = {one.prepared.outcome.name: one.reason for one in done if one.reason}
    aside = {
        f"{one.prepared.outcome.name}, {name}": reason
        for one, found in zip(done, others or [Beside(())] * len(done), strict=True)
        for name, reason in found.problems.items()
    }
    settings = {"design": design.digest, "inference": plan.inference, "conf_level": plan.conf_level, "sd": sd, "m": m}
    earlier = getattr(data, "provenance", None)
    inputs = dict(earlier.inputs) if isinstance(earlier, Provenance) else ({"people": frame_digest(tables[0])} if m == 1 else {})
    notes = _notes(done, data, design, plan, m)
    per_protocol = any(row["analysis"] == PER_PROTOCOL for one in others for row in one.rows)
    if others:
        notes.append(
            "Beside each model: site means weigh sites equally (cluster-average effect) unless 'by people' is said (participant-average "
            "effect). p_adjusted is adjusted for each analysis by itself."
        )
        notes += [*said, *(f"{what}: {reason}." for what, reason in aside.items())]
    return ITTResults(
        frame=frame,
        details=pd.DataFrame([_detail(one, plan) for one in done]),
        problems=MappingProxyType({**problems, **aside}),
        notes=tuple(notes),
        m=m,
        conf_level=plan.conf_level,
        provenance=Provenance.now(seed=getattr(earlier, "seed", None), inputs=inputs, settings=settings),
        title=f"Intention to treat{', and per-protocol where a row says so' if per_protocol else ''}: {design.trial.title}",
        measures=_measures(done, design, plan),
    )


def _measures(done: Sequence[Fitted], design: TrialDesign, plan: AnalysisPlan) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    arms = {"arm 0": design.arms.reference, "arm 1": design.arms.intervention}
    for one in done:
        f, name = one.fits, one.prepared.outcome.name
        if f is None:
            continue
        first = pool(f.estimate / f.sd, f.std_error / f.sd, f.df, plan.conf_level, ratio=f.ratio)
        rows.append({"outcome": name, "measure": f.measure, **{k: first[k] for k in EFFECT}})
        for e in f.effects:
            found = pool(e.estimate, e.std_error, f.df, plan.conf_level, ratio=e.ratio)
            words = e.measure
            for key, arm in arms.items():
                words = words.replace(key, arm)
            row = {k: found[k] for k in EFFECT}
            rows.append({"outcome": name, "measure": words, **row, **({} if e.tested else {"p_value": math.nan})})
    frame = pd.DataFrame(rows, columns=["outcome", "measure", *EFFECT])
    return frame.astype({"outcome": "str", "measure": "str"})


def header(frame: pd.DataFrame, details: pd.DataFrame, m: int) -> tuple[str, ...]:
    """Lines above the table, as Stata heads its own."""
    ready = details[details["problem"] == ""]
    left: list[tuple[str, str]] = [("Imputations", f"{m:,}" if m > 1 else "none"), ("Outcomes", f"{len(details):,}")]
    if len(ready) < len(details):
        left[-1] = ("Outcomes analysed", f"{len(ready):,} of {len(details):,}")
    right: list[tuple[str, str]] = []
    if len(ready):
        people = ready["n_reference"] + ready["n_intervention"]
        sites = ready["clusters_reference"] + ready["clusters_intervention"]
        left += [("People", _span(people)), ("Sites", _span(sites))]
        right += [
            ("Site size", f"{ready['smallest_cluster'].min():,} to {ready['largest_cluster'].max():,}, mean {(people / sites).mean():.1f}"),
            ("Complete-data df", _span_of(ready["df_low"].min(), ready["df_high"].max())),
        ]
        fmi = frame["fmi"].max()
        if m > 1 and np.isfinite(fmi):
            right += [
                ("Largest FMI", f"{fmi:.3f}"),
                ("Imputations to aim at", f"{int(pooling.imputations_needed(fmi, m).m_recommended):,} (von Hippel 2020)"),
            ]
    wide, tall = max((len(k) for k, _ in left), default=0), max((len(v) for _, v in left), default=0)
    narrow = max((len(k) for k, _ in right), default=0)
    lines = []
    for k in range(max(len(left), len(right))):
        text = f"{left[k][0]:<{wide}} = {left[k][1]:>{tall}}" if k < len(left) else " " * (wide + 3 + tall)
        lines.append(f"{text}    {right[k][0]:<{narrow}} = {right[k][1]}" if k < len(right) else text)
    return tuple(line.rstrip() for line in lines)


def _span(values: Any) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _span_of(low: float, high: float) -> str:
    return f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"


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
        "measure": measure_words(o, plan.denominator),
        "model": NAMES[o.chosen_model],
        "direction": o.direction,
        "formula": one.formula,
        "inference": plan.inference if o.linear else f"t, {plan.correction}" if o.chosen_model == "marginal" else "t",
        "denominator": plan.denominator if o.chosen_measure == "standardised-difference" else "none",
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
        **_structured_variances(f, plan),
        "columns_left_out": ", ".join(one.left_out),
        "problem": done.reason,
    }


def _structured_variances(f: Fits | None, plan: AnalysisPlan) -> dict[str, float]:
    """Columns of `details` that only declared structures have."""
    out = {}
    if plan.random_slope:
        out["slope_variance"] = math.nan if f is None or f.slope_variance is None else float(f.slope_variance.mean())
    if plan.residual_by_arm:
        for k, arm in enumerate(("reference", "intervention")):
            known = f is not None and f.residual_by_arm is not None
            out[f"residual_variance_{arm}"] = float(f.residual_by_arm[:, k].mean()) if known else math.nan  # type: ignore[union-attr, index]
    return out


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
    settings = getattr(getattr(data, "provenance", None), "settings", {})
    if design.columns.subcluster is not None and settings.get("subcluster") is False:
        notes.append(
            f"The imputation has a random intercept for {design.columns.site} and none for {design.columns.subcluster}: imputed values of "
            f"one {design.columns.subcluster} are as alike as those of two."
        )
    linear = [one for one in fitted if one.prepared.outcome.linear]
    others = [one for one in fitted if not one.prepared.outcome.linear]
    sign = f"{design.arms.intervention} minus {design.arms.reference}"
    if linear or (not others and any(o.linear for o in design.outcomes)):
        what = (
            "the raw difference"
            if plan.denominator == "none"
            else f"Cohen's d: the arm coefficient divided by the {WORDS[plan.denominator]}"
        )
        notes.append(f"estimate is {what}, {sign}.")
    if others:
        listed = [f"{one.prepared.outcome.name} ({measure_words(one.prepared.outcome, plan.denominator)})" for one in others]
        notes.append(
            f"{'By their type' if linear else 'estimate is'}: {few(listed, 24)}; differences are {sign}, ratios "
            f"{design.arms.intervention} over {design.arms.reference}, with std_error on the log scale. "
            "results.measures has every absolute and relative measure."
        )
    notes += weighting_note(design)
    having = [o.has_baseline and design.analysis.baseline for o in design.outcomes]
    terms = (
        f"arm{', its own baseline' if any(having) else ''}{' where it has one' if any(having) and not all(having) else ''}"
        f"{' and ' + few([v.name for v in design.covariates], 12) if design.covariates else ''}"
    )
    if linear:
        low, high = _df_range(linear)
        who = "Each outcome" if not others else "Outcomes analysed by the linear mixed model"
        notes.append(f"{who} on {terms}, with {_pair_words(design)}; REML, {plan.inference} df {low:.1f} to {high:.1f}.")
        notes += _high_df_note(linear, plan)
    notes += _marginal_notes(others, design, plan, terms)
    notes += _families_note(done, design)
    singular = [f"{one.prepared.outcome.name} ({_of(one.fits, m)})" for one in fitted if one.fits is not None and one.fits.singular.any()]
    if singular:
        where = "at zero, or a correlation at one" if design.analysis.random_slope else "at zero"
        notes.append(f"A between-group variance is estimated {where}: {few(singular, 12)}.")
    alone = [one.prepared.outcome.name for one in fitted if one.fits is not None and one.fits.status == "singletons"]
    if alone:
        notes.append(f"One person in every site, so least squares with df = n - p and no ICC: {few(alone, 12)}.")
    dropped = {one.prepared.left_out: one.prepared.outcome.name for one in done if one.prepared.left_out}
    notes += [
        f"Covariate columns left out as constant or combinations of others ({name}, ...): {few(list(c))}." for c, name in dropped.items()
    ]
    odd = [f"{one.prepared.outcome.name} ({one.prepared.outcome.type})" for one in linear if one.prepared.outcome.type != "continuous"]
    if odd:
        notes.append(
            f"Declared to be analysed on their own scale by the linear mixed model: {few(odd, 12)}. Leave measure out of the design for "
            "risks, odds or rates."
        )
    notes += _fit_notes(fitted)
    notes += [f"{one.prepared.outcome.name} could not be analysed: {one.reason}." for one in done if one.reason]
    return notes


def _high_df_note(linear: Sequence[Fitted], plan: AnalysisPlan) -> list[str]:
    """Degrees of freedom above those of a comparison of site means: right by their method, and a reader asks."""
    high = [
        f"{one.prepared.outcome.name} ({one.fits.df.max():.1f} of {sum(one.prepared.sites)} sites)"
        for one in linear
        if one.fits is not None and one.fits.status != "singletons" and one.fits.df.max() > sum(one.prepared.sites) - 2
    ]
    if not high:
        return []
    why = (
        "people tell of the variances too"
        if plan.inference == "kenward-roger"
        else "a site variance at or near zero leaves people to count"
    )
    return [f"df above sites - 2, because {why}: {few(high, 12)}. The site means beside it do not rest on that: analyses = 'all'."]


def _fit_notes(fitted: Sequence[Fitted]) -> list[str]:
    """What the fits have to say; the same of several outcomes is said once."""
    told: dict[str, list[str]] = {}
    for one in fitted:
        for note in one.fits.notes if one.fits is not None else ():
            name, _, rest = note.partition(": ")
            told.setdefault(rest, []).append(name)
    return [f"{few(names, 12)}: {rest}" for rest, names in told.items()]


def _df_range(done: Sequence[Fitted]) -> tuple[float, float]:
    fits = [one.fits for one in done if one.fits is not None]
    return min(f.df.min() for f in fits), max(f.df.max() for f in fits)


def _marginal_notes(others: Sequence[Fitted], design: TrialDesign, plan: AnalysisPlan, terms: str) -> list[str]:
    """What the models that are not linear are, and whom their numbers compare."""
    notes = []
    marginal = [one for one in others if one.prepared.outcome.chosen_model == "marginal"]
    if marginal:
        low, high = _df_range(marginal)
        notes.append(
            f"Marginal models on {terms}: estimating equations with people of one {design.columns.site} correlated (ordinal outcomes: "
            f"independent), {plan.correction} sandwich, t with sites minus site-level coefficients df ({low:.0f} to {high:.0f}); risks, "
            "rates and means are standardised over the people analysed. They compare populations."
        )
    specific = [one.prepared.outcome.name for one in others if one.prepared.outcome.chosen_model != "marginal"]
    if specific:
        notes.append(
            f"Random {design.columns.site} intercept by 15-node adaptive quadrature, t with sites minus site-level coefficients df: "
            f"{few(specific, 12)}. They compare people of one site: an odds ratio then lies further from 1 than in the population."
        )
    if others and design.analysis.pair_effects == "random":
        notes.append("Models that are not linear have no random pair effect; their standard errors are, if anything, too large.")
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


def _of(fits: Fits | None, m: int) -> str:
    count = 0 if fits is None else int(fits.singular.sum())
    return "the fit" if m == 1 else f"{count} of {m} fits"


def _pair_words(design: TrialDesign) -> str:
    site = f"a random intercept for {design.columns.site}"
    if design.columns.subcluster is not None:
        site = f"random intercepts for {design.columns.site} and {design.columns.subcluster} within it"
    words = {
        "none": site,
        "random": f"random intercepts for {design.columns.pair} and {design.columns.site}",
        "fixed": f"fixed effects of {design.columns.pair} and {site}",
    }[design.analysis.pair_effects]
    if design.analysis.random_slope:
        words += f", an effect of {design.columns.arm} that varies between {design.columns.pair}s"
    return words + (", a residual variance in each arm" if design.analysis.residual_by_arm else "")


def _families_note(done: Sequence[Fitted], design: TrialDesign) -> list[str]:
    method = design.analysis.multiplicity
    if method == "none":
        return ["p_adjusted equals p_value: no adjustment for several outcomes was declared."]
    how = "Westfall and Young's max-T, by the allocation plan on adjusted site means," if method == "max-t" else method
    families: dict[str, int] = {}
    for one in done:
        families[one.prepared.outcome.family] = families.get(one.prepared.outcome.family, 0) + 1
    words = ", ".join(f"{name} ({count})" for name, count in families.items())
    missing = " An outcome that could not be analysed counts as p = 1." if any(one.reason for one in done) else ""
    return [f"p_adjusted: {how} inside each family: {words}.{missing}"]
