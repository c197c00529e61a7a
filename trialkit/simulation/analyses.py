"""The analyses that `check` can hold against the truth, each on the same trials.

``complete cases`` and ``imputed`` are the project's own `itt` as the design declares it. The complete-case mixed
model with site intercepts does not pass through tables: it goes from arrays to sufficient statistics to one batch of fits
(`batch`), with the same numbers as `itt` (a test holds them together) at a hundredth of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from trialkit._kernels import reml, small_sample
from trialkit.design import TrialDesign
from trialkit.door import InputError, unknown_word
from trialkit.simulation import batch, making
from trialkit.simulation.making import Blueprint, Drawn
from trialkit.simulation.scenario import Scenario
from trialkit.simulation.streams import Floats, child_seeds
from trialkit.simulation.trial import flow_names, table

_DRAWS = 999  # of the randomisation test
FIELDS = ("estimate", "std_error", "df", "conf_low", "conf_high", "p_value", "icc", "singular")


@dataclass(frozen=True, slots=True)
class Analysis:
    """One way to analyse a simulated trial.

    Attributes
    ----------
    name : str
        As shown in the table.
    data : {"complete cases", "imputed", "complete data"}
        ``complete data`` is the trial before anything was lost, in the same people: what losing cost.
    inference : {"kenward-roger", "satterthwaite"} or None
        None: as the design says.
    pair_effects : {"none", "random", "fixed"} or None
    comparison : str or None
        One of the analyses `trialkit.itt.compare_methods` sets beside the mixed model, by its name there.
    marginal : bool
        A marginal model instead of the mixed one: GEE with the identity link, exchangeable correlation within sites, the
        Kauermann-Carroll sandwich and t with sites - coefficients df, the numbers of `trialkit.itt.fit_marginal`.
    """

    name: str
    data: Literal["complete cases", "imputed", "complete data"] = "complete cases"
    inference: Literal["kenward-roger", "satterthwaite"] | None = None
    pair_effects: Literal["none", "random", "fixed"] | None = None
    comparison: str | None = None
    marginal: bool = False

    def design(self, design: TrialDesign) -> TrialDesign:
        """The trial's design with this analysis's choices."""
        changes = {k: v for k, v in (("inference", self.inference), ("pair_effects", self.pair_effects)) if v is not None}
        if not changes:
            return design
        return design.model_copy(update={"analysis": design.analysis.model_copy(update=changes)})


KNOWN: Mapping[str, Analysis] = {
    a.name: a
    for a in (
        Analysis("complete cases"),
        Analysis("complete cases, satterthwaite", inference="satterthwaite"),
        Analysis("complete cases, random pairs", pair_effects="random"),
        Analysis("complete cases, fixed pairs", pair_effects="fixed"),
        Analysis("complete data", data="complete data"),
        Analysis("imputed", data="imputed"),
        Analysis("imputed, satterthwaite", data="imputed", inference="satterthwaite"),
        Analysis("imputed, random pairs", data="imputed", pair_effects="random"),
        Analysis("GEE", pair_effects="none", marginal=True),
        Analysis("site means, unadjusted", comparison="site means, unadjusted"),
        Analysis("site means", comparison="site means, adjusted"),
        Analysis("site means, by people", comparison="site means, adjusted, by people"),
        Analysis("pairs", comparison="pair differences, adjusted"),
        Analysis("randomisation test", comparison="randomisation test, adjusted"),
    )
}


def named(analyses: Sequence[str | Analysis]) -> tuple[Analysis, ...]:
    """Analyses by name; an unknown one is refused with the nearest."""
    if isinstance(analyses, str):
        raise InputError(f"analyses={analyses!r} is one word; give a list of names: analyses=[{analyses!r}].")
    out = []
    for a in analyses:
        if isinstance(a, Analysis):
            out.append(a)
        elif a in KNOWN:
            out.append(KNOWN[a])
        else:
            raise InputError(unknown_word(str(a), tuple(KNOWN), what="analysis"))
    names = [a.name for a in out]
    if not out or len(set(names)) != len(names):
        raise InputError("analyses must name at least one analysis, each once.")
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Answers:
    """What the analyses of some trials said.

    Attributes
    ----------
    values : (n_trials, n_analyses, n_outcomes, n_fields) float
        `FIELDS`; all missing for an analysis that failed.
    truth : (n_trials, n_outcomes) float
    failures : tuple of (trial, analysis, outcome or None, stage, reason)
        Positions; None: every outcome.
    """

    values: Floats
    truth: Floats
    failures: tuple[tuple[int, int, int | None, str, str], ...]


def answer(plan: Blueprint, seeds: Sequence[int], analyses: Sequence[Analysis], *, imputations: int, weighting: str) -> Answers:
    """Simulate the trials of these seeds and analyse each in every way asked for."""
    from trialkit.simulation.truth import estimands

    scenario = plan.scenario
    n_outcomes = len(scenario.outcomes)
    values = np.full((len(seeds), len(analyses), n_outcomes, len(FIELDS)), np.nan)
    truth = np.full((len(seeds), n_outcomes), np.nan)
    failures: list[tuple[int, int, int | None, str, str]] = []
    batches = {
        a: (_Marginal if analysis.marginal else _Batch)(scenario, analysis.design(scenario.design))
        for a, analysis in enumerate(analyses)
        if _batched(scenario, analysis)
    }
    fixed = estimands(plan, plan.fixed[0], weighting=weighting) if plan.fixed is not None else None
    for t, seed in enumerate(seeds):
        try:
            drawn = making.draw(plan, seed)
            truth[t] = fixed if fixed is not None else estimands(plan, drawn.sites, weighting=weighting)
        except Exception as error:  # a trial that cannot be made is counted, not hidden
            failures += [(t, a, None, "simulate", _words(error)) for a in range(len(analyses))]
            continue
        frame = None
        compared: Any = None
        for a, analysis in enumerate(analyses):
            if a in batches:
                batches[a].add(t, making.draw(plan, seed, complete=True) if analysis.data == "complete data" else drawn)
                continue
            if analysis.marginal:
                why = "the marginal model needs complete cases, a total SD or none, and a population of this scenario's own columns"
                failures.append((t, a, None, "analyse", why))
                continue
            frame = table(plan, drawn) if frame is None else frame
            if analysis.comparison is not None:
                compared = _compare(scenario, analyses, frame, drawn, seed) if compared is None else compared
                found, problems = _from_comparison(scenario, analysis.comparison, compared)
                values[t, a] = found
                failures += [(t, a, k, stage, why) for k, stage, why in problems]
                continue
            found, problems = _by_itt(scenario, analysis, frame, plan, seed, imputations)
            values[t, a] = found
            failures += [(t, a, k, stage, why) for k, stage, why in problems]
    for a, one in batches.items():
        found, wrong = one.solve(len(seeds))
        values[:, a] = found
        failures += [(t, a, k, "analyse", why) for t, k, why in wrong]
    return Answers(values, truth, tuple(sorted(failures, key=lambda f: (f[0], f[1], -1 if f[2] is None else f[2]))))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


# --- through the project's own verbs ------------------------------------------------------------------------


def _by_itt(
    scenario: Scenario, analysis: Analysis, frame: Any, plan: Blueprint, seed: int, imputations: int
) -> tuple[Floats, list[tuple[int | None, str, str]]]:
    """The rows of `itt`, in the scenario's order of outcomes."""
    from trialkit.itt import itt

    design = analysis.design(scenario.design)
    out = np.full((len(scenario.outcomes), len(FIELDS)), np.nan)
    data = frame
    if analysis.data == "imputed":
        from trialkit.imputation import impute

        try:
            data = impute(frame, design, m=imputations, seed=child_seeds(seed, 1, "impute")[0])
        except Exception as error:
            return out, [(None, "impute", _words(error))]
    elif analysis.data == "complete data":
        data = table(plan, making.draw(plan, seed, complete=True))
    try:
        results = itt(data, design)
    except Exception as error:
        return out, [(None, "analyse", _words(error))]
    rows = {r["outcome"]: r for r in results.frame.to_dict("records")}
    singular = dict(zip(results.details["outcome"].tolist(), results.details["singular"].tolist(), strict=True))
    problems: list[tuple[int | None, str, str]] = []
    for k, o in enumerate(scenario.outcomes):
        row: dict[Any, Any] = rows[o.name]
        if o.name in results.problems:
            problems.append((k, "analyse", results.problems[o.name]))
            continue
        out[k] = [*(float(row[f]) for f in FIELDS[:-1]), float(singular[o.name])]
    return out, problems


def _compare(scenario: Scenario, analyses: Sequence[Analysis], frame: Any, drawn: Drawn, seed: int) -> Any:
    """All comparison analyses of one trial at once, or the error that stopped them."""
    from trialkit.itt.comparison import RANDOMISATION, compare_methods

    plan = drawn.randomisation.plan if any(a.comparison == RANDOMISATION for a in analyses) else None
    try:
        return compare_methods(frame, scenario.design, plan=plan, draws=_DRAWS, seed=child_seeds(seed, 1, "randomisation")[0])
    except Exception as error:
        return error


def _from_comparison(scenario: Scenario, name: str, compared: Any) -> tuple[Floats, list[tuple[int | None, str, str]]]:
    """The rows of one analysis out of `compare_methods`."""
    out = np.full((len(scenario.outcomes), len(FIELDS)), np.nan)
    if isinstance(compared, Exception):
        return out, [(None, "analyse", _words(compared))]
    rows = {r["outcome"]: r for r in compared.frame.to_dict("records") if r["analysis"] == name}
    problems: list[tuple[int | None, str, str]] = []
    for k, o in enumerate(scenario.outcomes):
        if o.name not in rows or (o.name, name) in compared.problems:
            problems.append((k, "analyse", compared.problems.get((o.name, name), "the trial has no pairs or no plan for this analysis")))
            continue
        row: dict[Any, Any] = rows[o.name]
        out[k] = [*(float(row[f]) for f in FIELDS[:6]), np.nan, 0.0]
    return out, problems


# --- in one batch -------------------------------------------------------------------------------------------


def _batched(scenario: Scenario, analysis: Analysis) -> bool:
    """Whether the array path covers the analysis: site intercepts, total SD, a population it knows."""
    design = analysis.design(scenario.design)
    known = {"randomised", *(n for n in flow_names(scenario) if n is not None)}
    return (
        analysis.data != "imputed"
        and analysis.comparison is None
        and design.analysis.pair_effects == "none"
        and design.analysis.standardise in ("total", "none")
        and design.imputation.population in known
    )


class _Batch:
    """Complete-case models of many trials, gathered as sufficient statistics and solved together."""

    def __init__(self, scenario: Scenario, design: TrialDesign) -> None:
        self.scenario, self.design = scenario, design
        self.roles = {p.role: k for k, p in enumerate(scenario.people)}
        self.traits = {t.name: t for t in scenario.traits}
        self.where: list[tuple[int, int]] = []
        self.reduced: list[reml.Reduced] = []
        self.contrasts: list[Floats] = []
        self.sd: list[float] = []
        self.wrong: list[tuple[int, int, str]] = []

    def add(self, trial: int, drawn: Drawn) -> None:
        """Reduce every outcome of one trial."""
        population = self._population(drawn)
        covariates = self._covariates(drawn)
        arm = drawn.arm.astype(np.float64)
        complete = population & ~np.isnan(covariates).any(axis=1)
        declared = {o.name: o for o in self.design.outcomes}
        for k, o in enumerate(self.scenario.outcomes):
            waves, rater = drawn.outcomes[o.name], declared[o.name].rater
            keep = complete & ~np.isnan(waves.after)
            if rater is not None:
                keep = keep & (drawn.role == self.roles[rater])
            before = waves.before if self.design.analysis.baseline else None
            if before is not None:
                keep = keep & ~np.isnan(before)
            rows = np.flatnonzero(keep)
            try:
                self._reduce(trial, k, rows, before, waves.after, arm, drawn.site, covariates)
            except ValueError as error:
                self.wrong.append((trial, k, _words(error)))

    def _reduce(self, trial: int, k: int, rows: Any, before: Any, after: Floats, arm: Floats, site: Any, covariates: Floats) -> None:
        x, y = self._model(rows, before, after, arm, site, covariates)
        try:
            reduced = reml.reduce(x, y, [site[rows]])
        except ValueError:
            x = np.ascontiguousarray(x[:, reml.independent_columns(x)])
            reduced = reml.reduce(x, y, [site[rows]])
        if reduced.status not in ("ok", "singletons"):
            raise ValueError(reml.STATUS[reduced.status])
        contrast = np.zeros(x.shape[1])
        contrast[1] = 1.0
        self.where.append((trial, k))
        self.reduced.append(reduced)
        self.contrasts.append(contrast)
        self.sd.append(float(np.std(y, ddof=1)) if self.design.analysis.standardise == "total" else 1.0)

    @staticmethod
    def _model(rows: Any, before: Any, after: Floats, arm: Floats, site: Any, covariates: Floats) -> tuple[Floats, Floats]:
        """Fixed effects (n, p), the arm second, and the outcome (n,)."""
        sides = [np.unique(site[rows][arm[rows] == a]).size for a in (0.0, 1.0)]
        if min(sides) == 0 or sum(sides) < 3:
            raise ValueError(f"there are {sides[0]} and {sides[1]} sites in the two arms")
        columns = [np.ones(len(rows)), arm[rows], *([] if before is None else [before[rows]]), *covariates[rows].T]
        return np.column_stack([c for j, c in enumerate(columns) if j < 2 or np.ptp(c) > 0.0]), after[rows]

    def _population(self, drawn: Drawn) -> Any:
        name = self.design.imputation.population
        if name == "randomised":
            return np.ones(len(drawn.role), dtype=bool)
        baseline, left, follow_up = flow_names(self.scenario)
        return {baseline: drawn.baseline, left: drawn.left, follow_up: drawn.follow_up}[name]

    def _covariates(self, drawn: Drawn) -> Floats:
        """(n, columns): indicators of all levels but the first, or the numbers; missing where the trait is."""
        columns = []
        for c in self.design.covariates:
            trait, values = self.traits[c.name], drawn.traits[c.name]
            if trait.levels is None:
                columns.append(values)
                continue
            for level in range(1, len(trait.levels)):
                columns.append(np.where(values < 0, np.nan, (values == level).astype(np.float64)))
        return np.column_stack(columns) if columns else np.empty((len(drawn.role), 0))

    def solve(self, n_trials: int) -> tuple[Floats, list[tuple[int, int, str]]]:
        """Fit everything gathered."""
        out = np.full((n_trials, len(self.scenario.outcomes), len(FIELDS)), np.nan)
        usual = [i for i, r in enumerate(self.reduced) if r.status == "ok"]
        exact = self.design.analysis.inference == "kenward-roger"
        level = 0.5 + self.design.analysis.conf_level / 2.0
        wrong = list(self.wrong)
        if usual:
            fits = batch.contrasts(batch.pad([self.reduced[i] for i in usual], [self.contrasts[i] for i in usual]))
            sd = np.array([self.sd[i] for i in usual])
            error = fits.std_error if exact else fits.plain_error
            df = fits.df if exact else fits.satterthwaite_df
            icc = fits.ratio / (1.0 + fits.ratio)
            rows = _row(fits.estimate / sd, error / sd, df, icc, fits.singular, level)
            for j, i in enumerate(usual):
                t, k = self.where[i]
                if fits.converged[j]:
                    out[t, k] = rows[j]
                else:
                    wrong.append((t, k, "the search for the site variance did not converge"))
        rule = small_sample.kenward_roger if exact else small_sample.satterthwaite
        for i, r in enumerate(self.reduced):
            if r.status != "ok":  # sites of one person each: least squares, said so by its own status
                found = rule(reml.fit_reduced(r), self.contrasts[i][None])
                t, k = self.where[i]
                estimate, error = found.estimate / self.sd[i], found.std_error / self.sd[i]
                out[t, k] = _row(estimate, error, found.df, np.full(1, np.nan), np.zeros(1, dtype=bool), level)[0]
        return out, wrong


class _Marginal(_Batch):
    """The same people and fixed effects in a marginal model; each is solved when it is added."""

    def __init__(self, scenario: Scenario, design: TrialDesign) -> None:
        super().__init__(scenario, design)
        self.rows: list[Floats] = []

    def _reduce(self, trial: int, k: int, rows: Any, before: Any, after: Floats, arm: Floats, site: Any, covariates: Floats) -> None:
        from trialkit.itt import gee

        x, y = self._model(rows, before, after, arm, site, covariates)
        x = np.ascontiguousarray(x[:, reml.independent_columns(x)])
        codes = np.unique(site[rows], return_inverse=True)[1]
        df = float(codes.max() + 1 - x.shape[1])
        if df < 1.0:
            raise ValueError(f"{codes.max() + 1} sites and {x.shape[1]} coefficients leave no degrees of freedom")
        family = gee.FAMILIES["gaussian"]
        solved = gee.solve(x, y, codes, family, exchangeable=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = float(gee.corrected(x, y, solved, family)["KC"][1, 1])
        if not variance > 0.0 or not np.isfinite(variance):
            raise ValueError("a site alone decides a coefficient (a category seen in no other): no Kauermann-Carroll factor")
        sd = float(np.std(y, ddof=1)) if self.design.analysis.standardise == "total" else 1.0
        # a correlation that the largest site cannot have was set to zero: the marginal model's singular fit
        one = (solved.beta[1] / sd, np.sqrt(variance) / sd, df, solved.alpha, not np.isnan(solved.impossible))
        estimate, error, df_, icc, singular = (np.array([v]) for v in one)
        self.where.append((trial, k))
        self.rows.append(_row(estimate, error, df_, icc, singular, 0.5 + self.design.analysis.conf_level / 2.0)[0])

    def solve(self, n_trials: int) -> tuple[Floats, list[tuple[int, int, str]]]:
        """Everything gathered, in its place."""
        out = np.full((n_trials, len(self.scenario.outcomes), len(FIELDS)), np.nan)
        for (t, k), row in zip(self.where, self.rows, strict=True):
            out[t, k] = row
        return out, list(self.wrong)


def _row(estimate: Floats, error: Floats, df: Floats, icc: Floats, singular: Any, level: float) -> Floats:
    half = special.stdtrit(df, level) * error
    p = 2.0 * special.stdtr(df, -np.abs(estimate / error))
    return np.column_stack([estimate, error, df, estimate - half, estimate + half, p, icc, singular.astype(np.float64)])
