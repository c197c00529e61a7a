"""The planned analysis on the shipped scenarios: stored figures, held every day and made again by `make calibration`.

The files in results/ were made by ``python tests/calibration/test_supervision.py``, which writes them anew; a new
file needs a reason in its commit. Every day their figures are held to their limits again, and the first trials are
simulated and analysed again; the slow tier makes all of them again. Seeds are fixed: a failure is a change, never
chance.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trialkit.door import write_whole
from trialkit.simulation import CheckResult, check, shipped_scenario
from trialkit.simulation.analyses import named
from trialkit.simulation.answers import answer
from trialkit.simulation.making import blueprint
from trialkit.simulation.streams import child_seeds
from trialkit.simulation.verdict import bias_reach, share_limits

RESULTS = Path(__file__).parent / "results"
ANALYSES = ["imputed", "complete cases", "complete data"]
FIRST = 3  # trials whose every answer is stored

# name: (scenario, trials, seed, imputations, verdict)
CELLS: dict[str, tuple[str, int, int, int | None, str]] = {
    "planted": ("supervision", 2000, 20261, None, "pass"),
    "null": ("null", 2000, 20262, None, "pass"),
    "mnar": ("mnar", 400, 20263, None, "fail"),
    "imputed": ("supervision", 200, 20264, 20, "pass"),
}


def make(name: str, *, jobs: int = 1) -> CheckResult:
    scenario, trials, seed, m, _ = CELLS[name]
    analyses = ANALYSES[1:2] if m is None else ANALYSES
    return check(shipped_scenario(scenario), trials=trials, seed=seed, jobs=jobs, analyses=analyses, imputations=m)


def stored(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((RESULTS / f"supervision_{name}.json").read_text(encoding="utf-8"))
    return data


def content(result: CheckResult) -> dict[str, Any]:
    """What is stored: the figures and limits, and the first trials' answers."""
    first = [[[[None if np.isnan(v) else v for v in o] for o in a] for a in t] for t in result.values[:FIRST].tolist()]
    return {**result.to_dict(), "first": first}


@pytest.mark.parametrize("name", CELLS)
def test_the_stored_figures_are_of_this_scenario_and_inside_their_limits(name: str) -> None:
    scenario, trials, seed, _, verdict = CELLS[name]
    held = stored(name)
    assert held["provenance"]["inputs"]["scenario"] == shipped_scenario(scenario).digest, "the scenario changed: make the file again"
    assert (held["trials"], held["seed"], held["verdict"]) == (trials, seed, verdict)
    assert held["failures"] == []
    if verdict == "fail":
        return
    low, high = (k / trials for k in share_limits(trials, 0.95, 0.97, false_alarm=1e-6))
    for row in held["figures"]:
        assert low <= row["coverage"] <= high, row
        if row["analysis"] != "complete cases" or name != "imputed":
            assert abs(row["bias"]) <= bias_reach(np.array(trials), false_alarm=1e-6) * row["bias_mcse"], row
        if row["truth"] == 0.0:
            least, most = (k / trials for k in share_limits(trials, 0.03, 0.05, false_alarm=1e-6))
            assert least <= row["rejection"] <= most, row
        # the model's standard error is that of repetition, or a little above: sites were matched and the analysis leaves pairs out
        slack = 5 * np.hypot(row["empirical_se_mcse"], row["model_se_mcse"])
        assert -slack <= row["model_se"] - row["empirical_se"] <= slack + 0.012, row


def test_planted_effects_lie_inside_their_intervals_at_about_the_nominal_rate() -> None:
    """Issue 2's own figure: 200 trials, two-level imputation, all 18 outcomes."""
    rows = [r for r in stored("imputed")["figures"] if r["analysis"] == "imputed"]
    assert len(rows) == 18
    # outcomes of one trial share people, so the 3,600 intervals count as fewer: four errors of the mean over outcomes of one trial's cover
    assert np.mean([r["coverage"] for r in rows]) == pytest.approx(0.955, abs=0.015)


@pytest.mark.parametrize("name", ["planted", "imputed"])
def test_the_standard_error_for_climate_is_near_the_published_one(name: str) -> None:
    rows = [r for r in stored(name)["figures"] if r["outcome"] == "climate" and r["analysis"] != "complete data"]
    for row in rows:
        assert row["model_se"] == pytest.approx(0.168, abs=0.005)
        assert row["empirical_se"] == pytest.approx(0.168, abs=0.02)


def test_losses_not_at_random_are_seen_where_they_were_planted() -> None:
    rows = {r["outcome"]: r for r in stored("mnar")["figures"]}
    assert "bias" in rows["climate"]["outside"] and rows["climate"]["bias"] > 0.2
    # supervisors' outcomes do not depend on what peer workers saw
    assert all(rows[o]["inside"] for o in ("stigma", "utility", "job_satisfaction_supervisor", "relationship_supervisor"))


@pytest.mark.parametrize("name", CELLS)
def test_the_first_trials_come_out_as_stored(name: str) -> None:
    scenario, trials, seed, m, _ = CELLS[name]
    count = 1 if m else FIRST
    analyses = named(ANALYSES if m else ANALYSES[1:2])
    plan = blueprint(shipped_scenario(scenario))
    again = answer(plan, child_seeds(seed, trials)[:count], analyses, imputations=m or 0, weighting="model-based").values
    held = np.array(stored(name)["first"][:count], dtype=np.float64)
    np.testing.assert_allclose(again, held, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.calibration
@pytest.mark.parametrize("name", CELLS)
def test_everything_comes_out_as_stored(name: str) -> None:
    result, held = make(name, jobs=2), stored(name)
    assert result.verdict == held["verdict"]
    for mine, theirs in zip(result.to_dict()["figures"], held["figures"], strict=True):
        for key, value in theirs.items():
            assert mine[key] == (pytest.approx(value, rel=1e-6, abs=1e-8) if isinstance(value, float) else value), (key, theirs)


if __name__ == "__main__":
    for cell in sys.argv[1:] or CELLS:
        made = make(cell, jobs=2)
        write_whole(RESULTS / f"supervision_{cell}.json", json.dumps(content(made), indent=1, allow_nan=False) + "\n", force=True)
        sys.stdout.write(f"{made}\n\n")
