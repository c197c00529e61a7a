"""`check`: the planned analysis on many simulated trials, and whether it does what it promises.

Trials are made and analysed in chunks; the seeds of all trials are made before any work is handed out, so that
the figures are the same bits for any number of workers. A trial that fails is counted with the stage it failed in
and stays in the denominator.
"""

from __future__ import annotations

import html
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from trialkit.door import InputError, unknown_word
from trialkit.results import Provenance, Result, Table
from trialkit.simulation import verdict
from trialkit.simulation.analyses import FIELDS, Analysis, named
from trialkit.simulation.answers import Answers
from trialkit.simulation.paired import paired_differences
from trialkit.simulation.scenario import Limits, Scenario
from trialkit.simulation.streams import Floats, child_seeds
from trialkit.simulation.trial import checked_seed
from trialkit.simulation.work import CHUNK, run

# a right Kenward-Roger test may be this much below its nominal size where the site variance is often estimated at zero
CONSERVATIVE = 0.03


@dataclass(frozen=True)
class CheckResult(Result):
    """Operating characteristics, one row an analysis and outcome, and the verdict.

    Attributes
    ----------
    frame : DataFrame
        analysis, outcome, truth, estimate (mean over trials), bias, bias_mcse, empirical_se, empirical_se_mcse, model_se, model_se_mcse,
        coverage, coverage_mcse, rejection (power, or size where the truth is 0), rejection_mcse, singular (share of analyses with a site
        variance at zero), failed (number), trials, inside (whether every figure is inside its limits), outside (which are not).
    limits : DataFrame
        Every limit held: analysis, outcome, figure, value, low, high, inside.
    failures : tuple of dict
        trial, seed, analysis, outcome, stage, reason.
    seed, trials : int
    trial_seeds : tuple of int
        Trial t is ``simulate(scenario, seed=trial_seeds[t])``.
    values : (trials, analyses, outcomes, fields) float
        Every answer; see `estimates` for a table.
    truth : (trials, analyses, outcomes) float
        What each analysis is held against: its own estimand.
    """

    frame: pd.DataFrame
    limits: pd.DataFrame
    failures: tuple[dict[str, Any], ...]
    scenario: Scenario
    analyses: tuple[str, ...]
    seed: int
    trials: int
    trial_seeds: tuple[int, ...]
    values: Floats = field(repr=False)
    truth: Floats = field(repr=False)
    provenance: Provenance = field(repr=False)

    @property
    def passed(self) -> bool:
        """Whether every figure is inside its limits."""
        return bool(self.limits["inside"].all())

    @property
    def verdict(self) -> str:
        """``pass`` or ``fail``."""
        return "pass" if self.passed else "fail"

    @property
    def title(self) -> str:
        """A line above the table."""
        return f"{self.trials:,} simulated trials of: {self.scenario.title} (seed {self.seed})"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was counted, what was held, and the verdict."""
        held, out = len(self.limits), int((~self.limits["inside"]).sum())
        alarm = self.scenario.limits.false_alarm
        lines = [
            *self._counts(),
            "_mcse: Monte Carlo standard error. rejection: power, or size where the truth is 0.",
            "A failed analysis stays in the denominator: it covers and rejects nothing.",
        ]
        without = sorted(set(self.frame.loc[self.frame["truth"].isna() & (self.frame["failed"] < self.trials), "outcome"]))
        if without:
            lines.append(
                f"No one true value (a cumulative, site-specific or cluster-average ratio), so no bias or coverage: {', '.join(without)}."
            )
        for row in self.limits.loc[~self.limits["inside"]].to_dict("records")[:12]:
            accepted = f"accepted {row['low']:.4g} to {row['high']:.4g}"
            lines.append(f"OUTSIDE: {row['analysis']}, {row['outcome']}: {row['figure']} {row['value']:.4g}, {accepted}.")
        chance = f"which a right analysis leaves with probability {alarm:g} each"
        lines.append(f"{self.verdict.upper()}: {held - out} of {held} figures inside their limits, {chance}.")
        return tuple(lines)

    formats: ClassVar[dict[str, str]] = {
        "truth": ".3f", "bias": ".4f", "bias_mcse": ".4f", "empirical_se": ".4f", "empirical_se_mcse": ".4f", "model_se": ".4f",
        "model_se_mcse": ".4f", "coverage": ".3f", "coverage_mcse": ".3f", "rejection": ".3f", "rejection_mcse": ".3f", "singular": ".3f",
    }  # fmt: skip

    def _counts(self) -> list[str]:
        lines = []
        for a, name in enumerate(self.analyses):
            stages = Counter(str(f["stage"]) for f in self.failures if f["analysis"] == name)
            singular = int(np.nansum(self.values[:, a, :, FIELDS.index("singular")] > 0))
            total = self.trials * self.values.shape[2]
            failed = int(np.isnan(self.values[:, a, :, 0]).sum())
            where = "; ".join(f"{n} in '{stage}'" for stage, n in sorted(stages.items()))
            example = next((f for f in self.failures if f["analysis"] == name), None)
            shown = f" (first: trial {example['trial']}, seed {example['seed']}: {example['reason']})" if example else ""
            lines.append(
                f"{name}: {total:,} analyses, {total - failed:,} done ({singular:,} singular fits, kept), {failed} failed"
                + (f" ({where}){shown}." if failed else ".")
            )
        return lines

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """Every answer: trial, seed, analysis, outcome, truth, estimate, std_error, df, conf_low, conf_high, p_value, icc, singular."""
        T, A, K, _ = self.values.shape
        outcomes = [o.name for o in self.scenario.outcomes]
        columns: dict[str, Any] = {
            "trial": np.repeat(np.arange(T), A * K),
            "seed": np.repeat(np.array(self.trial_seeds, dtype=np.int64), A * K),
            "analysis": pd.array(np.tile(np.repeat(np.array(self.analyses, dtype=object), K), T), dtype="str"),
            "outcome": pd.array(np.tile(np.array(outcomes, dtype=object), T * A), dtype="str"),
            "truth": self.truth.ravel(),
        }
        for f, name in enumerate(FIELDS):
            columns[name] = self.values[..., f].ravel()
        return pd.DataFrame(columns)

    def zipper(self, outcome: str, analysis: str | None = None) -> pd.DataFrame:
        """What a zipper plot draws: one row a trial by rank of ``|z|``, with its interval and whether it covers.

        `centile` is the rank as a share; intervals that miss the truth should fill the top ``1 - conf_level``.
        """
        name = self.analyses[0] if analysis is None else analysis
        rows = self.estimates.loc[(self.estimates["outcome"] == outcome) & (self.estimates["analysis"] == name)].dropna(subset=["estimate"])
        if rows.empty:
            raise InputError(f"no answers for outcome {outcome!r} and analysis {name!r}; see result.frame for those there are.")
        z = ((rows["estimate"] - rows["truth"]) / rows["std_error"]).abs()
        out = rows.assign(z=z, covers=(rows["conf_low"] <= rows["truth"]) & (rows["truth"] <= rows["conf_high"])).sort_values("z")
        out["centile"] = (np.arange(len(out)) + 0.5) / len(out)
        return out[["trial", "seed", "centile", "z", "estimate", "conf_low", "conf_high", "truth", "covers"]].reset_index(drop=True)

    def short(self) -> Table:
        """What decides, for a terminal: truth; bias, coverage and rejection with their Monte Carlo errors; what is outside."""
        columns = ["outcome", "truth", "bias", "bias_mcse", "coverage", "coverage_mcse", "rejection", "rejection_mcse", "failed", "outside"]
        shown = [*(["analysis"] if len(self.analyses) > 1 else []), *columns]
        return Table(self.frame[shown], title=self.title, notes=self.notes, formats=self.formats)

    def paired(self, against: str | None = None) -> Table:
        """How the analyses differ on the same trials; see `paired_differences`."""
        first = self.analyses[0] if against is None else against
        if first not in self.analyses:
            raise InputError(unknown_word(first, self.analyses, what="analysis"))
        if len(self.analyses) < 2:
            raise InputError("one analysis has nothing to be compared with; name two or more in analyses=.")
        outcomes = [o.name for o in self.scenario.outcomes]
        level = self.scenario.design.analysis.conf_level
        return paired_differences(self.values, self.truth, self.analyses, outcomes, self.analyses.index(first), conf_level=level)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the verdict, every figure and limit, failures, seeds and versions."""
        return {
            "verdict": self.verdict,
            "scenario": self.scenario.title,
            "seed": self.seed,
            "trials": self.trials,
            "analyses": list(self.analyses),
            "figures": _records(self.frame),
            "limits": _records(self.limits),
            "failures": [dict(f) for f in self.failures],
            "provenance": self.provenance.to_dict(),
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def to_junit(self) -> str:
        """JUnit XML: one test case a limit, for CI servers that show test reports."""
        bad = int((~self.limits["inside"]).sum())
        suite = html.escape(f"trialkit check: {self.scenario.title}")
        lines = [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<testsuite name="{suite}" tests="{len(self.limits)}" failures="{bad}" errors="0">',
        ]
        for row in self.limits.to_dict("records"):
            case = f'<testcase classname="{html.escape(row["analysis"])}" name="{html.escape(row["outcome"])}: {row["figure"]}"'
            if row["inside"]:
                lines.append(f"  {case}/>")
            else:
                accepted = f"{row['low']:.6g} to {row['high']:.6g}"
                said = f"{row['figure']} {row['value']:.6g} is outside {accepted} ({self.trials} trials, seed {self.seed})"
                lines.append(f'  {case}><failure message="{html.escape(said)}"/></testcase>')
        return "\n".join([*lines, "</testsuite>"]) + "\n"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain data, missing as None."""
    return [
        {str(k): (None if isinstance(v, float) and not np.isfinite(v) else v) for k, v in row.items()} for row in frame.to_dict("records")
    ]


def check(
    scenario: Scenario,
    *,
    trials: int = 200,
    seed: int,
    jobs: int | None = 1,
    analyses: Sequence[str | Analysis] | None = None,
    imputations: int | None = None,
    limits: Limits | None = None,
    progress: bool = False,
    store: str | os.PathLike[str] | None = None,
) -> CheckResult:
    """Simulate trials, analyse each as planned, and hold the figures against their limits.

    Parameters
    ----------
    scenario : Scenario
    trials : int
        How many; every Monte Carlo error shrinks with its root.
    seed : int
        All trials' seeds come from it, before any work is handed out.
    jobs : int or None
        Worker processes. None leaves the choice to joblib's current ``parallel_config`` (Dask, Ray, a cluster). The figures do not depend
        on it, to the bit.
    analyses : sequence of str, optional
        Of `trialkit.simulation.analyses.KNOWN`; by default ``complete cases``, and ``imputed`` when `imputations` is given. All
        analyses see the same trials.
    imputations : int, optional
        m of the imputed analyses; by default the design's.
    limits : Limits, optional
        Instead of the scenario's own.
    progress : bool
        Show a progress bar (on standard error).
    store : path, optional
        A folder in which finished chunks are kept: a run that was broken off (Ctrl-C, a lost machine) goes on where it
        stopped, and more trials of the same seed add to those there.

    Returns
    -------
    CheckResult
        ``.frame``, ``.passed``, ``.limits``, ``.estimates``; prints as a table.

    Raises
    ------
    InputError
        Fewer than 2 trials, a seed that is none, an unknown analysis.

    Notes
    -----
    Coverage is accepted between the exact binomial limits of the confidence level and of a share 0.03 above it, the
    size likewise below its nominal value: Kenward-Roger is conservative where a site variance is often estimated
    at zero, by design and not by error. The scenario's ``[limits]`` replace both.

    Examples
    --------
    >>> scenario = Scenario.from_text('''
    ... sites = {groups = [{name = "clinic", recruited = 20}]}
    ... people = [{role = "patient", per_site = 8}]
    ... outcomes = [{name = "mood", d = 0.3, icc = 0.05}]
    ... ''')
    >>> result = check(scenario, trials=20, seed=1)
    >>> result.verdict, result.frame["failed"].sum()
    ('pass', np.int64(0))
    """
    if not isinstance(scenario, Scenario):
        raise InputError(f"check takes a Scenario, not {type(scenario).__name__}. Read one with Scenario.from_toml(path).")
    if isinstance(trials, bool) or not isinstance(trials, int | np.integer) or trials < 2:
        raise InputError(f"trials={trials!r}: give a whole number of at least 2; 200 is a quick look, 2,000 a check.")
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs == 0):
        raise InputError(f"jobs={jobs!r}: give the number of worker processes, -1 for all cores, or None for joblib's current choice.")
    seed = checked_seed(seed)
    chosen = named(analyses if analyses is not None else ["complete cases", *(["imputed"] if imputations is not None else [])])
    m = scenario.design.imputation.m if imputations is None else imputations
    if limits is not None:
        scenario = scenario.but(limits=limits)
    seeds = tuple(child_seeds(seed, int(trials)))
    kept = None if store is None else Path(store)
    answers = run(scenario, seeds, chosen, m, jobs=jobs, progress=progress, store=kept)
    return _result(scenario, seed, seeds, chosen, m, answers)


# --- figures ------------------------------------------------------------------------------------------------


def _result(
    scenario: Scenario, seed: int, seeds: tuple[int, ...], analyses: tuple[Analysis, ...], m: int, parts: list[Answers]
) -> CheckResult:
    values = np.concatenate([p.values for p in parts])
    truth = np.concatenate([p.truth for p in parts])
    names = [o.name for o in scenario.outcomes]
    failures = []
    start = 0
    for part in parts:
        for t, a, k, stage, reason in part.failures:
            failures.append(
                {
                    "trial": start + t,
                    "seed": seeds[start + t],
                    "analysis": analyses[a].name,
                    "outcome": None if k is None else names[k],
                    "stage": stage,
                    "reason": reason,
                }
            )
        start += len(part.truth)
    rows, limits = [], []
    for a, analysis in enumerate(analyses):
        for k, name in enumerate(names):
            row = _figures(values[:, a, k], truth[:, a, k], analysis.design(scenario.design).analysis.conf_level)
            held = _limits(row, scenario.limits, scenario, name, truth[:, a, k])
            limits += [{"analysis": analysis.name, "outcome": name, **h} for h in held]
            outside = [h["figure"] for h in held if not h["inside"]]
            rows.append({"analysis": analysis.name, "outcome": name, **row, "inside": not outside, "outside": ", ".join(outside)})
    frame = pd.DataFrame(rows).astype({"analysis": "str", "outcome": "str", "outside": "str"})
    settings = {"trials": len(seeds), "analyses": [a.name for a in analyses], "chunk": CHUNK}
    if any(a.data == "imputed" for a in analyses):
        settings["imputations"] = m
    return CheckResult(
        frame=frame,
        limits=pd.DataFrame(limits).astype({"analysis": "str", "outcome": "str", "figure": "str"}),
        failures=tuple(failures),
        scenario=scenario,
        analyses=tuple(a.name for a in analyses),
        seed=seed,
        trials=len(seeds),
        trial_seeds=seeds,
        values=values,
        truth=truth,
        provenance=Provenance.now(seed=seed, inputs={"scenario": scenario.digest}, settings=settings),
    )


def _figures(values: Floats, truth: Floats, conf_level: float) -> dict[str, Any]:
    """The figures of one analysis of one outcome; values (T, fields), truth (T,)."""
    T = len(truth)
    at = {name: values[:, f] for f, name in enumerate(FIELDS)}
    done = ~np.isnan(at["estimate"])
    n = int(done.sum())
    known = not np.isnan(truth).all()
    empirical, empirical_mcse = verdict.spread((at["estimate"] - (truth if known else 0.0))[:, None])
    model, model_mcse = verdict.model_error(at["std_error"][:, None])
    covered = int(((at["conf_low"] <= truth) & (truth <= at["conf_high"])).sum())
    rejected = int((at["p_value"] <= 1.0 - conf_level).sum())
    coverage, coverage_mcse = verdict.share(np.array(covered if known or not n else np.nan), T)
    rejection, rejection_mcse = verdict.share(np.array(rejected), T)
    return {
        "truth": float(np.nanmean(truth)) if known else float("nan"),
        "estimate": float(np.nanmean(at["estimate"])) if n else float("nan"),
        "bias": float(np.nanmean(at["estimate"] - truth)) if n and known else float("nan"),
        "bias_mcse": float(empirical[0] / np.sqrt(n)) if n > 1 and known else float("nan"),
        "empirical_se": float(empirical[0]),
        "empirical_se_mcse": float(empirical_mcse[0]),
        "model_se": float(model[0]),
        "model_se_mcse": float(model_mcse[0]),
        "coverage": float(coverage),
        "coverage_mcse": float(coverage_mcse),
        "rejection": float(rejection),
        "rejection_mcse": float(rejection_mcse),
        "singular": float((at["singular"] > 0).sum() / T),
        "failed": T - n,
        "trials": T,
    }


def _limits(row: dict[str, Any], limits: Limits, scenario: Scenario, outcome: str, truth: Floats) -> list[dict[str, Any]]:
    """What the figures of one row are held against."""
    T, alarm = row["trials"], limits.false_alarm
    level = scenario.design.analysis.conf_level
    held = []

    def hold(figure: str, value: float, low: float, high: float) -> None:
        held.append({"figure": figure, "value": value, "low": low, "high": high, "inside": bool(low <= value <= high)})

    # without a true value (see `truth.targets`) power, failures and singular fits remain
    if not np.isnan(row["truth"]) or row["failed"] == T:
        low, high = limits.coverage or (level, min(level + CONSERVATIVE, 1.0))
        least, most = verdict.share_limits(T, low, high, false_alarm=alarm)
        hold("coverage", row["coverage"], least / T, most / T)
        reach = float(verdict.bias_reach(np.array(float(T - row["failed"])), false_alarm=alarm)) * row["bias_mcse"] + limits.bias
        hold("bias", row["bias"], -reach, reach)
    if np.all(truth == 0.0):
        low, high = limits.size or (max(1.0 - level - CONSERVATIVE, 0.0), 1.0 - level)
        least, most = verdict.share_limits(T, low, high, false_alarm=alarm)
        hold("size", row["rejection"], least / T, most / T)
    if outcome in limits.power:
        hold("power", row["rejection"], verdict.binomial_limits(T, limits.power[outcome], false_alarm=alarm)[0] / T, 1.0)
    hold("failed", row["failed"] / T, 0.0, limits.failed)
    if limits.singular < 1.0:
        hold("singular", row["singular"], 0.0, limits.singular)
    return held
