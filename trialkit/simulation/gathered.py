"""Linear models of many trials gathered from arrays: mixed models solved in one batch, marginal ones as they come.

The complete-case analysis with site intercepts does not pass through tables: it goes from arrays to sufficient statistics to one batch of
fits (`batch`), with the same numbers as `itt` (a test holds them together) at a hundredth of the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from trialkit._kernels import reml, small_sample
from trialkit.design import Outcome, TrialDesign
from trialkit.simulation import batch
from trialkit.simulation.analyses import FIELDS, Analysis, words
from trialkit.simulation.making import Drawn
from trialkit.simulation.scenario import Scenario
from trialkit.simulation.streams import Floats
from trialkit.simulation.trial import flow_names


def gathers(scenario: Scenario, analysis: Analysis) -> bool:
    """Whether the array path covers the analysis: one linear model with site intercepts, total SD or none, a population it knows."""
    design = analysis.design(scenario.design)
    known = {"randomised", *(n for n in flow_names(scenario) if n is not None)}
    return (
        analysis.data != "imputed"
        and analysis.comparison is None
        and analysis.weighting != "complier"
        and design.columns.subcluster is None
        and (analysis.marginal or all(is_linear(o) for o in design.outcomes))
        and design.analysis.pair_effects == "none"
        and not design.analysis.structured
        and design.analysis.standardise in ("total", "none")
        and design.imputation.population in known
    )


class Mixed:
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
                self.wrong.append((trial, k, words(error)))

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
            rows = inference(fits.estimate / sd, error / sd, df, icc, fits.singular, level)
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
                out[t, k] = inference(estimate, error, found.df, np.full(1, np.nan), np.zeros(1, dtype=bool), level)[0]
        return out, wrong


class Marginal(Mixed):
    """The same people and fixed effects in a marginal model; each is solved when it is added."""

    def __init__(self, scenario: Scenario, design: TrialDesign) -> None:
        super().__init__(scenario, design)
        self.rows: list[Floats] = []

    def _reduce(self, trial: int, k: int, rows: Any, before: Any, after: Floats, arm: Floats, site: Any, covariates: Floats) -> None:
        x, y = self._model(rows, before, after, arm, site, covariates)
        sd = float(np.std(y, ddof=1)) if self.design.analysis.standardise == "total" else 1.0
        self.rows.append(self.one(x, y, site[rows], sd, self.design.analysis.conf_level))
        self.where.append((trial, k))

    @staticmethod
    def one(x: Floats, y: Floats, site: Any, sd: float, conf_level: float) -> Floats:
        """The effect of the second column in one data set, (fields,)."""
        from trialkit.itt import gee

        x = np.ascontiguousarray(x[:, reml.independent_columns(x)])
        codes = np.unique(site, return_inverse=True)[1]
        df = float(codes.max() + 1 - x.shape[1])
        if df < 1.0:
            raise ValueError(f"{codes.max() + 1} sites and {x.shape[1]} coefficients leave no degrees of freedom")
        family = gee.FAMILIES["gaussian"]
        solved = gee.solve(x, y, codes, family, exchangeable=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = float(gee.corrected(x, y, solved, family)["KC"][1, 1])
        if not variance > 0.0 or not np.isfinite(variance):
            raise ValueError("a site alone decides a coefficient (a category seen in no other): no Kauermann-Carroll factor")
        # a correlation that the largest site cannot have was set to zero: the marginal model's singular fit
        one = (solved.beta[1] / sd, np.sqrt(variance) / sd, df, solved.alpha, not np.isnan(solved.impossible))
        estimate, error, df_, icc, singular = (np.array([v]) for v in one)
        row: Floats = inference(estimate, error, df_, icc, singular, 0.5 + conf_level / 2.0)[0]
        return row

    def solve(self, n_trials: int) -> tuple[Floats, list[tuple[int, int, str]]]:
        """Everything gathered, in its place."""
        out = np.full((n_trials, len(self.scenario.outcomes), len(FIELDS)), np.nan)
        for (t, k), row in zip(self.where, self.rows, strict=True):
            out[t, k] = row
        return out, list(self.wrong)


def is_linear(outcome: Outcome) -> bool:
    """Whether the design analyses an outcome by the linear mixed model."""
    return bool(getattr(outcome, "linear", True))


def inference(estimate: Floats, error: Floats, df: Floats, icc: Floats, singular: Any, level: float) -> Floats:
    half = special.stdtrit(df, level) * error
    p = 2.0 * special.stdtr(df, -np.abs(estimate / error))
    return np.column_stack([estimate, error, df, estimate - half, estimate + half, p, icc, singular.astype(np.float64)])
