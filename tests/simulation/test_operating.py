"""`check`: figures by hand, the same bits wherever the work runs, failures counted, verdicts that can fail."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from trialkit.door import InputError
from trialkit.itt import itt
from trialkit.simulation import CheckResult, Scenario, check, simulate
from trialkit.simulation import answers as answers_module
from trialkit.simulation.analyses import FIELDS, named
from trialkit.simulation.scenario import Limits, Losses

SCENARIOS = Path(__file__).parents[2] / "synthetic_data" / "scenarios"

SMALL = Scenario.from_text("""
title = "twenty clinics"
[sites]
groups = [{name = "clinic", recruited = 20}]
[[people]]
role = "patient"
per_site = 8
cv = 0.3
minimum = 2
[[traits]]
name = "age"
levels = ["young", "old"]
shares = {patient = [0.4, 0.6]}
[[outcomes]]
name = "mood"
d = 0.4
icc = 0.08
[[outcomes]]
name = "sleep"
icc = 0.05
""")


@pytest.fixture(scope="module")
def supervision() -> Scenario:
    return Scenario.from_toml(SCENARIOS / "supervision.toml")


@pytest.fixture(scope="module")
def small() -> CheckResult:
    return check(SMALL, trials=60, seed=4, analyses=["complete cases", "complete cases, satterthwaite"])


# --- what is analysed ---------------------------------------------------------------------------------------


def test_the_array_path_gives_the_numbers_of_itt(supervision: Scenario) -> None:
    """The batch of sufficient statistics against the tables and the public verb, every outcome of three trials."""
    names = ["complete cases", "complete cases, satterthwaite", "complete data"]
    result = check(supervision, trials=3, seed=7, analyses=names)
    for t, seed in enumerate(result.trial_seeds):
        trial = simulate(supervision, seed=seed)
        for a, analysis in enumerate(named(names)):
            people = trial.complete if analysis.data == "complete data" else trial.people
            expected = itt(people, analysis.design(supervision.design)).frame.set_index("outcome")
            expected = expected.loc[[o.name for o in supervision.outcomes], list(FIELDS[:-1])].to_numpy()
            np.testing.assert_allclose(result.values[t, a, :, :-1], expected, rtol=1e-8, atol=1e-10)


def test_the_table_path_is_taken_where_the_arrays_cannot_go(supervision: Scenario) -> None:
    result = check(supervision, trials=2, seed=7, analyses=["complete cases, random pairs"])
    design = named(["complete cases, random pairs"])[0].design(supervision.design)
    assert design.analysis.pair_effects == "random"
    expected = itt(simulate(supervision, seed=result.trial_seeds[1]).people, design).frame
    assert result.values[1, 0, 0, 0] == pytest.approx(expected["estimate"].iloc[0], rel=1e-12)


# --- figures ------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_answers(small: CheckResult) -> None:
    for row in small.frame.to_dict("records"):
        answers = small.estimates.query("analysis == @row['analysis'] and outcome == @row['outcome']")
        truth = 0.4 if row["outcome"] == "mood" else 0.0
        e = answers["estimate"].to_numpy()
        assert row["truth"] == pytest.approx(truth, abs=1e-12)
        assert row["bias"] == pytest.approx(e.mean() - truth)
        assert row["bias_mcse"] == pytest.approx(e.std(ddof=1) / np.sqrt(60))
        assert row["empirical_se"] == pytest.approx(e.std(ddof=1))
        assert row["model_se"] == pytest.approx(np.sqrt((answers["std_error"] ** 2).mean()))
        covers = ((answers["conf_low"] <= truth) & (truth <= answers["conf_high"])).mean()
        assert row["coverage"] == pytest.approx(covers)
        assert row["coverage_mcse"] == pytest.approx(np.sqrt(covers * (1 - covers) / 60))
        assert row["rejection"] == pytest.approx((answers["p_value"] <= 0.05).mean())
        assert row["failed"] == 0 and row["trials"] == 60
    held = small.limits.groupby("outcome")["figure"].unique()
    assert "size" in held["sleep"] and "size" not in held["mood"]


def test_the_table_comes_first_and_says_what_happened(small: CheckResult) -> None:
    text = str(small)
    assert text.startswith("60 simulated trials of: twenty clinics (seed 4)")
    assert "singular fits, kept" in text and "PASS" in text
    assert small._repr_html_().startswith("<table")


def test_json_and_junit_say_the_same(small: CheckResult) -> None:
    said = json.loads(small.to_json())
    assert said["verdict"] == "pass" and said["trials"] == 60 and said["seed"] == 4
    assert len(said["figures"]) == len(small.frame)
    assert said["provenance"]["inputs"]["scenario"] == SMALL.digest
    suite = ET.fromstring(small.to_junit())
    assert int(suite.attrib["tests"]) == len(small.limits) == len(suite)
    assert suite.attrib["failures"] == "0"


def test_a_zipper_ranks_the_intervals(small: CheckResult) -> None:
    rows = small.zipper("mood", "complete cases")
    assert len(rows) == 60 and rows["z"].is_monotonic_increasing
    # an interval misses when its |z| is large for its own df, so misses gather at the top
    assert not rows["covers"].iloc[-1] or rows["covers"].all()
    assert rows["covers"].mean() == pytest.approx(small.frame.query("outcome == 'mood'")["coverage"].iloc[0])
    with pytest.raises(InputError, match="no answers"):
        small.zipper("mode")


# --- where the work runs ------------------------------------------------------------------------------------


def test_the_same_bits_for_any_number_of_workers(small: CheckResult) -> None:
    again = check(SMALL, trials=60, seed=4, jobs=2, analyses=list(small.analyses))
    assert again.values.tobytes() == small.values.tobytes()
    assert again.trial_seeds == small.trial_seeds


def test_threads_and_the_ambient_choice_give_the_same_bits(small: CheckResult) -> None:
    from joblib import parallel_config

    with parallel_config(backend="threading", n_jobs=3):
        again = check(SMALL, trials=60, seed=4, jobs=None, analyses=list(small.analyses))
    assert again.values.tobytes() == small.values.tobytes()


def test_more_trials_begin_with_the_same_ones(small: CheckResult) -> None:
    fewer = check(SMALL, trials=25, seed=4, analyses=list(small.analyses))
    np.testing.assert_array_equal(fewer.values, small.values[:25])


# --- verdicts -----------------------------------------------------------------------------------------------


def test_a_planted_and_a_null_scenario_pass_and_losses_not_at_random_fail(supervision: Scenario) -> None:
    mnar = check(Scenario.from_toml(SCENARIOS / "mnar.toml"), trials=50, seed=3)
    assert mnar.verdict == "fail" and not mnar.passed
    row = mnar.frame.query("outcome == 'climate'").iloc[0]
    assert not row["inside"] and "bias" in row["outside"] and row["bias"] > 0.15
    assert "OUTSIDE: complete cases, climate: bias" in str(mnar)
    assert int(ET.fromstring(mnar.to_junit()).attrib["failures"]) > 0
    assert check(Scenario.from_toml(SCENARIOS / "null.toml"), trials=10, seed=3).passed
    assert check(supervision, trials=10, seed=3).passed


def test_limits_in_the_scenario_are_held() -> None:
    assert not check(SMALL, trials=30, seed=4, limits=Limits(power={"mood": 0.999})).passed
    assert check(SMALL, trials=30, seed=4, limits=Limits(power={"mood": 0.3})).passed
    assert not check(SMALL, trials=30, seed=4, limits=Limits(coverage=(0.2, 0.3))).passed
    assert not check(SMALL, trials=30, seed=4, limits=Limits(singular=0.0)).passed


def test_failures_are_counted_by_stage_and_stay_in_the_denominator(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = answers_module.making.draw

    def sometimes(plan: object, seed: int, **choices: bool) -> object:
        if seed % 3 == 0:
            raise RuntimeError("the dice rolled off the table")
        return draw(plan, seed, **choices)

    monkeypatch.setattr(answers_module.making, "draw", sometimes)
    result = check(SMALL, trials=40, seed=4)
    failed = sum(s % 3 == 0 for s in result.trial_seeds)
    assert 5 < failed < 25
    row = result.frame.query("outcome == 'mood'").iloc[0]
    assert row["failed"] == failed and row["trials"] == 40
    done = result.estimates.query("outcome == 'mood'").dropna(subset=["estimate"])
    covered = ((done["conf_low"] <= 0.4) & (done["conf_high"] >= 0.4)).sum()
    assert row["coverage"] == covered / 40
    assert not result.passed and {f["stage"] for f in result.failures} == {"simulate"}
    assert f"{2 * failed} failed" in str(result) and "the dice rolled off the table" in str(result)


def test_an_outcome_nobody_answers_fails_with_its_reason() -> None:
    gone = Losses.model_validate({"follow_up": {"rate": {"patient": 0.0}}})
    result = check(SMALL.but(losses=gone), trials=3, seed=1)
    assert (result.frame["failed"] == 3).all() and not result.passed
    assert all(f["stage"] == "analyse" for f in result.failures)
    assert np.isnan(result.frame["bias"]).all()
    json.loads(result.to_json())


# --- input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"trials": 1}, "at least 2"),
        ({"trials": True}, "at least 2"),
        ({"seed": -1}, "seed"),
        ({"jobs": 0}, "jobs"),
        ({"analyses": ["complete case"]}, "Did you mean 'complete cases'"),
        ({"analyses": "complete cases"}, "a list of names"),
        ({"analyses": []}, "at least one"),
    ],
)
def test_wrong_input_is_refused(choices: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check(SMALL, **{"trials": 5, "seed": 1, **choices})  # type: ignore[arg-type]


def test_other_analyses_are_set_beside_the_model(supervision: Scenario) -> None:
    from trialkit.itt import compare_methods

    names = ["complete cases", "site means", "site means, by people", "pairs", "randomisation test"]
    result = check(supervision, trials=2, seed=7, analyses=names)
    assert not result.failures and list(result.frame["analysis"].unique()) == names
    expected = compare_methods(simulate(supervision, seed=result.trial_seeds[1]).people, supervision.design).frame
    row = expected.query("outcome == 'climate' and analysis == 'site means, adjusted'").iloc[0]
    assert result.values[1, 1, 0, 0] == pytest.approx(row["estimate"], rel=1e-10)
    assert result.values[1, 1, 0, 5] == pytest.approx(row["p_value"], rel=1e-10)
    # the randomisation test has no standard error, and is judged by its interval and p-value all the same
    assert np.isnan(result.values[:, 4, :, 1]).all() and not np.isnan(result.values[:, 4, :, 3:6]).any()
