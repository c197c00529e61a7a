"""What the analyses of some trials say: each trial made once, then analysed in every way asked for.

An analysis is held against the truth of its own estimand: people or sites counting equally, or compliers; a difference over
the declared SD, a raw difference, or the logarithm of a ratio. A ratio's estimate and limits are kept as logarithms too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from trialkit.design import TrialDesign
from trialkit.simulation import making
from trialkit.simulation.analyses import FIELDS, Analysis, words
from trialkit.simulation.gathered import Marginal, Mixed, gathers
from trialkit.simulation.making import Blueprint, Drawn
from trialkit.simulation.streams import Floats, child_seeds
from trialkit.simulation.trial import COMPLIED, SESSIONS, received, table
from trialkit.simulation.truth import effects, is_ratio, targets

_DRAWS = 999  # of the randomisation test
Problems = list[tuple[int | None, str, str]]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the analyses of some trials said.

    Attributes
    ----------
    values : (n_trials, n_analyses, n_outcomes, n_fields) float
        `FIELDS`; all missing for an analysis that failed.
    truth : (n_trials, n_analyses, n_outcomes) float
        Of the analysis's own estimand.
    failures : tuple of (trial, analysis, outcome or None, stage, reason)
        Positions; None: every outcome.
    """

    values: Floats
    truth: Floats
    failures: tuple[tuple[int, int, int | None, str, str], ...]


def answer(plan: Blueprint, seeds: Sequence[int], analyses: Sequence[Analysis], *, imputations: int, weighting: str) -> Answers:
    """Simulate the trials of these seeds and analyse each in every way asked for; `weighting` is the design's."""
    scenario = plan.scenario
    values = np.full((len(seeds), len(analyses), len(scenario.outcomes), len(FIELDS)), np.nan)
    truth = np.full(values.shape[:3], np.nan)
    failures: list[tuple[int, int, int | None, str, str]] = []
    designs = [a.design(scenario.design) for a in analyses]
    batches = {a: (Marginal if one.marginal else Mixed)(scenario, designs[a]) for a, one in enumerate(analyses) if gathers(scenario, one)}

    def truths(drawn: Drawn) -> Floats:
        found = effects(plan, drawn.sites)
        each = zip(designs, analyses, strict=True)
        return np.array([targets(plan, drawn.sites, found, d, a.weighting or weighting, own_scale=a.own_scale) for d, a in each])

    fixed: Floats | None = None
    for t, seed in enumerate(seeds):
        try:
            drawn = making.draw(plan, seed)
            if fixed is None or plan.fixed is None:
                fixed = truths(drawn)
            truth[t] = fixed
        except Exception as error:  # a trial that cannot be made is counted, not hidden
            failures += [(t, a, None, "simulate", words(error)) for a in range(len(analyses))]
            continue
        trial = _Trial(plan, drawn, seed, imputations, any(a.comparison == "randomisation test, adjusted" for a in analyses))
        for a, analysis in enumerate(analyses):
            if a in batches:
                batches[a].add(t, trial.whole if analysis.data == "complete data" else drawn)
                continue
            values[t, a], problems = trial.by(analysis, designs[a])
            failures += [(t, a, k, stage, why) for k, stage, why in problems]
    for a, batch in batches.items():
        values[:, a], wrong = batch.solve(len(seeds))
        failures += [(t, a, k, "analyse", why) for t, k, why in wrong]
    return Answers(values, truth, tuple(sorted(failures, key=lambda f: (f[0], f[1], -1 if f[2] is None else f[2]))))


class _Trial:
    """One trial's tables, each made when it is first needed and shared by the analyses."""

    def __init__(self, plan: Blueprint, drawn: Drawn, seed: int, imputations: int, randomised: bool) -> None:
        self.plan, self.drawn, self.seed, self.m, self.randomised = plan, drawn, seed, imputations, randomised
        self.scenario = plan.scenario
        self._imputed: dict[TrialDesign, Any] = {}
        self._compared: dict[Any, Any] = {}

    @cached_property
    def whole(self) -> Drawn:
        """The trial before anything was lost."""
        return making.draw(self.plan, self.seed, complete=True)

    @cached_property
    def frame(self) -> Any:
        """The people's table."""
        return table(self.plan, self.drawn)

    def by(self, analysis: Analysis, design: TrialDesign) -> tuple[Floats, Problems]:
        """The answers of one analysis, (outcomes, fields), and what went wrong."""
        nothing = np.full((len(self.scenario.outcomes), len(FIELDS)), np.nan)
        try:
            data = self._data(analysis, design)
        except Exception as error:
            return nothing, [(None, "impute", words(error))]
        try:
            if analysis.comparison is not None:
                return self._by_comparison(analysis, design, data)
            if analysis.weighting == "complier":
                return self._by_instrument(design, data)
            return self._by_marginal(design, data) if analysis.marginal else self._by_itt(design, data)
        except Exception as error:
            return nothing, [(None, "analyse", words(error))]

    def _data(self, analysis: Analysis, design: TrialDesign) -> Any:
        if analysis.data == "complete data":
            return table(self.plan, self.whole)
        if analysis.data == "complete cases":
            return self.frame
        # how the effect is analysed does not change what is imputed
        plain = design.model_copy(update={"analysis": design.analysis.model_copy(update={"inference": "kenward-roger"})})
        if plain not in self._imputed:
            from trialkit.imputation import impute

            try:
                self._imputed[plain] = impute(self.frame, plain, m=self.m, seed=child_seeds(self.seed, 1, "impute")[0])
            except Exception as error:
                self._imputed[plain] = error
        found = self._imputed[plain]
        if isinstance(found, Exception):
            raise found
        return found

    def _by_itt(self, design: TrialDesign, data: Any) -> tuple[Floats, Problems]:
        """The rows of `itt`, in the scenario's order of outcomes."""
        from trialkit.itt import itt

        scheme = self.drawn.randomisation.scheme if design.analysis.multiplicity == "max-t" else None
        results = itt(data, design, plan=scheme, draws=_DRAWS, seed=child_seeds(self.seed, 1, "randomisation")[0])
        singular = dict(zip(results.details["outcome"].tolist(), results.details["singular"].tolist(), strict=True))
        rows = {r["outcome"]: {**r, "singular": singular[r["outcome"]]} for r in results.frame.to_dict("records")}
        return self._rows(design, rows, dict(results.problems))

    def _by_comparison(self, analysis: Analysis, design: TrialDesign, data: Any) -> tuple[Floats, Problems]:
        """The rows of one analysis out of `compare_methods`, which makes all of them at once."""
        from trialkit.itt.comparison import compare_methods

        key = (analysis.data, design)
        if key not in self._compared:
            plan = self.drawn.randomisation.scheme if self.randomised else None
            seed = child_seeds(self.seed, 1, "randomisation")[0]
            try:
                self._compared[key] = compare_methods(data, design, plan=plan, draws=_DRAWS, seed=seed)
            except Exception as error:
                self._compared[key] = error
        compared = self._compared[key]
        if isinstance(compared, Exception):
            raise compared
        rows = {
            r["outcome"]: {**r, "icc": np.nan, "singular": 0.0}
            for r in compared.frame.to_dict("records")
            if r["analysis"] == analysis.comparison
        }
        absent = "the trial has no pairs"
        problems = {
            o.name: compared.problems.get((o.name, analysis.comparison), absent) for o in self.scenario.outcomes if o.name not in rows
        }
        problems |= {o: why for (o, name), why in compared.problems.items() if name == analysis.comparison}
        return self._rows(design, rows, problems)

    def _rows(self, design: TrialDesign, rows: dict[str, Any], problems: dict[str, str]) -> tuple[Floats, Problems]:
        out = np.full((len(self.scenario.outcomes), len(FIELDS)), np.nan)
        wrong: Problems = []
        declared = {o.name: o for o in design.outcomes}
        for k, o in enumerate(self.scenario.outcomes):
            if o.name in problems:
                wrong.append((k, "analyse", problems[o.name]))
                continue
            row = rows[o.name]
            out[k] = [float(row[f]) for f in FIELDS]
            other = "measure" in row and ("ratio" in str(row["measure"])) != is_ratio(declared[o.name])
            # site means of a binary outcome give a risk ratio where odds were asked for
            odds = getattr(declared[o.name], "chosen_measure", "") == "odds-ratio" and "odds" not in str(row.get("measure", "odds"))
            if other or odds or "ridit" in str(row.get("measure", "")):
                wrong.append((k, "analyse", f"it gives a {row['measure']}, which is not the measure of the design"))
                out[k] = np.nan
                continue
            if is_ratio(declared[o.name]):
                for f in ("estimate", "conf_low", "conf_high"):
                    out[k, FIELDS.index(f)] = np.log(out[k, FIELDS.index(f)])
        return out, wrong

    def _by_marginal(self, design: TrialDesign, data: Any) -> tuple[Floats, Problems]:
        """The marginal model on completed tables, pooled by Rubin's rules."""
        from trialkit._kernels import pooling
        from trialkit.itt.prepared import prepare

        # differences over the declared SD, whatever the outcome's type
        change = {"measure": "standardised-difference", "model": None, "exposure": None}
        own = design.model_copy(update={"outcomes": tuple(o.model_copy(update=change) for o in design.outcomes)})
        prepared = {one.outcome.name: one for one in prepare(data, own, denominator=design.analysis.standardise, scale="each-set")[2]}
        level = design.analysis.conf_level
        out = np.full((len(self.scenario.outcomes), len(FIELDS)), np.nan)
        wrong: Problems = []
        for k, o in enumerate(self.scenario.outcomes):
            one = prepared[o.name]
            try:
                if one.reason:
                    raise ValueError(one.reason)
                sets = zip(one.matrices, one.responses, one.sd, strict=True)
                rows = np.array([Marginal.one(x, y, one.site, sd, level) for x, y, sd in sets])
            except ValueError as error:
                wrong.append((k, "analyse", words(error)))
                continue
            out[k] = rows.mean(axis=0)
            if len(rows) > 1:
                pooled = pooling.pool_scalar(rows[:, 0], rows[:, 1] ** 2, rows[:, 2], conf_level=level)
                out[k, :6] = [float(getattr(pooled, f)) for f in FIELDS[:6]]
        return out, wrong

    def _by_instrument(self, design: TrialDesign, data: Any) -> tuple[Floats, Problems]:
        """Two-stage least squares: the effect in compliers, or of a session, with assignment as instrument."""
        from trialkit.itt import complier_effect
        from trialkit.itt.effect_sizes import standard_deviation

        c, out = design.columns, np.full((len(self.scenario.outcomes), len(FIELDS)), np.nan)
        wrong: Problems = []
        frame = data.assign(**received(self.scenario, self.drawn))
        if design.imputation.population != "randomised":
            frame = frame.loc[frame[design.imputation.population] == 1]
        declared = {o.name: o for o in design.outcomes}
        for k, o in enumerate(self.scenario.outcomes):
            baseline, rater = declared[o.name].baseline if design.analysis.baseline else None, declared[o.name].rater
            rows = frame if rater is None else frame.loc[frame[str(c.rater)] == rater]
            covariates = [*([baseline] if baseline else []), *(v.name for v in design.covariates)]
            rows = rows.dropna(subset=[o.name, *covariates])
            try:
                fit = complier_effect(
                    rows,
                    outcome=o.name,
                    received=SESSIONS if o.effect_of == "session" else COMPLIED,
                    assigned=c.arm,
                    cluster=c.site,
                    covariates=[v for v in covariates if rows[v].nunique() > 1],
                    conf_level=design.analysis.conf_level,
                )
                sd = 1.0
                if design.analysis.standardise != "none":
                    before = None if baseline is None else rows[baseline].to_numpy(np.float64)
                    arm = (rows[c.arm] == design.arms.intervention).to_numpy(np.float64)
                    y = rows[o.name].to_numpy(np.float64)
                    sd = standard_deviation(y, arm, denominator=design.analysis.standardise, baseline=before)
            except ValueError as error:
                wrong.append((k, "analyse", words(error)))
                continue
            e = fit.frame.iloc[1]
            numbers = [e["estimate"] / sd, e["std_error"] / sd, e["df"], e["conf_low"] / sd, e["conf_high"] / sd, e["p_value"]]
            out[k] = [*(float(v) for v in numbers), np.nan, 0.0]
        return out, wrong
