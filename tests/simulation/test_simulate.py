"""Simulated trials: the published shape, determinism, streams that do not disturb each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trialkit.door import DesignError, InputError, frame_digest
from trialkit.simulation import Scenario, Trial, simulate
from trialkit.simulation.verdict import binomial_limits

SHIPPED = Path(__file__).parents[2] / "synthetic_data"
SEEDS = (1, 2, 3, 4, 5, 6)


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario.from_toml(SHIPPED / "scenarios" / "supervision.toml")


@pytest.fixture(scope="module")
def trials(scenario: Scenario) -> list[Trial]:
    return [simulate(scenario, seed=s) for s in SEEDS]


def within(count: float, n: int, share: float) -> bool:
    """Inside exact binomial limits at one false alarm in a million."""
    low, high = binomial_limits(n, share, false_alarm=1e-6)
    return low <= count <= high


# --- the published shape ------------------------------------------------------------------------------------


def test_sites_are_the_published_numbers(trials: list[Trial]) -> None:
    for trial in trials:
        sites = trial.sites
        assert len(sites) == 89 and sites["site"].is_unique
        left = sites[sites["status"] == "randomised"]
        assert left["type"].value_counts().to_dict() == {"contracted": 51, "directly operated": 32, "unaffiliated": 2}
        assert (left["directly_operated"] == "yes").sum() == 32
        assert len(trial.randomised_sites) == 85
        assert sites["annual_budget"].dtype == np.int64 and (sites["annual_budget"] > 0).all()
        # right-skewed, as budgets and staff counts are
        assert sites["annual_budget"].skew() > 1.0 and sites["n_staff"].skew() > 0.5
        assert set(sites["youth_family"]) == {"yes", "no"}


def test_people_are_the_published_numbers(trials: list[Trial]) -> None:
    for trial in trials:
        people = trial.people
        assert people["role"].value_counts().to_dict() == {"peer": 348, "supervisor": 143}
        assert people["person"].is_unique
        assert set(people["site"]) == set(trial.randomised_sites["site"])
        counted = people.groupby("site").size()
        staff = trial.randomised_sites.set_index("site")["n_staff"]
        assert (counted.reindex(staff.index) == staff).all()
        by_site = people[people["role"] == "peer"].groupby("site").size()
        assert by_site.min() >= 1 and by_site.skew() > 0.5


def test_losses_and_attendance_run_at_the_published_rates(trials: list[Trial]) -> None:
    people = pd.concat([t.people for t in trials])
    published = {
        "peer": ((251, 348), (39, 251), (169, 212), (57, 40, 47, 40), 91),
        "supervisor": ((115, 143), (15, 115), (86, 100), (22, 15, 16, 12), 44),
    }
    for role, (baseline, left, follow_up, sessions, attended_of) in published.items():
        rows = people[people["role"] == role]
        surveyed = rows[rows["baseline_done"] == 1]
        there = surveyed[surveyed["left_job"] == 0]
        assert within(len(surveyed), len(rows), baseline[0] / baseline[1])
        assert within(surveyed["left_job"].sum(), len(surveyed), left[0] / left[1])
        assert within(there["follow_up_done"].sum(), len(there), follow_up[0] / follow_up[1])
        invited = rows[rows["arm"] == "intervention"]
        for k, count in enumerate(sessions, start=1):
            # people of a site and sessions of a person are correlated, so the binomial spread is too narrow: five points either way
            assert abs(invited[f"session_{k}"].mean() - count / attended_of) < 0.05
        assert rows[rows["arm"] == "control"]["session_1"].isna().all()


def test_traits_have_the_published_shares(trials: list[Trial]) -> None:
    people = pd.concat([t.people for t in trials])
    peers, supervisors = (people[(people["role"] == r) & (people["baseline_done"] == 1)] for r in ("peer", "supervisor"))
    for rows, column, level, share in [
        (peers, "gender", "woman", 0.74),
        (peers, "consumer", "yes", 0.57),
        (peers, "ethnicity", "White", 0.29),
        (peers, "ethnicity", "Black", 0.18),
        (peers, "family_member", "yes", 0.33),
        (peers, "parent", "yes", 0.32),
        (peers, "caregiver", "yes", 0.17),
        (supervisors, "education", "graduate degree", 0.74),
        (supervisors, "consumer", "yes", 0.29),
        (supervisors, "discipline", "administrator", 0.54),
        (supervisors, "discipline", "clinician", 0.31),
        (supervisors, "trained_before", "yes", 0.33),
    ]:
        # younger people answer a little less often, so the share among those surveyed is near, not exact
        assert within((rows[column] == level).sum(), len(rows), share), column
    assert supervisors["hours_supervising"].mean() == pytest.approx(3.3, abs=0.6)
    assert (peers["age_band"] == "36-50").mean() > 0.45
    assert peers["discipline"].isna().all()


def test_nothing_is_known_of_a_wave_that_was_not_surveyed(trials: list[Trial], scenario: Scenario) -> None:
    for trial in trials[:2]:
        people = trial.people
        for outcome in scenario.design.outcomes:
            assert people.loc[people["baseline_done"] == 0, outcome.baseline].isna().all()
            assert people.loc[people["follow_up_done"] == 0, outcome.name].isna().all()
            assert people.loc[people["role"] != outcome.rater, [outcome.baseline, outcome.name]].isna().all(axis=None)
        assert people.loc[people["baseline_done"] == 0, ["gender", "education"]].isna().all(axis=None)
        assert (people.loc[people["left_job"] == 1, "follow_up_done"] == 0).all()
        assert (people.loc[people["baseline_done"] == 0, "follow_up_done"] == 0).all()


def test_arms_follow_the_allocation_room(trials: list[Trial]) -> None:
    for trial in trials:
        arms = trial.allocation.frame.set_index("site")["arm"]
        people = trial.people.drop_duplicates("site").set_index("site")
        assert (people["arm"] == arms.reindex(people.index)).all()
        pairs = people.dropna(subset=["pair"]).groupby("pair")["arm"].nunique()
        assert len(pairs) == 42 and (pairs == 2).all()
        assert people["pair"].isna().sum() == 1
        assert trial.allocation.seed.text == trial.draw_seed
        assert len(trial.draw_seed) == 32 and int(trial.draw_seed, 16) >= 0
    assert len({t.draw_seed for t in trials}) == len(trials)


def test_scales_are_the_mean_of_the_items_answered(trials: list[Trial]) -> None:
    people = trials[0].people
    for name, q in (("climate", 8), ("recovery", 6)):
        for stem, score in ((f"{name}_0", f"{name}_0"), (name, name)):
            items = people[[f"{stem}_i{k + 1}" for k in range(q)]]
            answered = items.notna().sum(axis=1)
            expected = items.mean(axis=1).where(answered >= q / 2)
            np.testing.assert_allclose(people[score], expected, atol=5.1e-5)
            assert set(np.unique(items.to_numpy()[items.notna().to_numpy()])) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    # single items are skipped by some who answer the rest
    done = people[people["follow_up_done"] == 1]
    some = done[[f"climate_i{k + 1}" for k in range(8)]].notna().sum(axis=1)
    assert ((some > 0) & (some < 8)).any()


def test_values_stay_on_their_scales(trials: list[Trial], scenario: Scenario) -> None:
    people = pd.concat([t.people for t in trials])
    for o in scenario.outcomes:
        for column in (o.name, f"{o.name}_0"):
            if o.low is not None:
                assert people[column].min() >= o.low and people[column].max() <= o.high
    days = people["sick_leave"].dropna()
    assert (days == days.round()).all() and days.min() == 0 and days.skew() > 2


# --- determinism --------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits(scenario: Scenario, trials: list[Trial]) -> None:
    again = simulate(scenario, seed=1)
    for name in ("sites", "people", "truth"):
        assert frame_digest(getattr(again, name)) == frame_digest(getattr(trials[0], name))
    assert again.allocation.certificate.to_dict() == trials[0].allocation.certificate.to_dict()
    assert frame_digest(trials[0].people) != frame_digest(trials[1].people)


def test_the_bits_are_those_of_the_first_day(scenario: Scenario) -> None:
    """A stored digest: a change of streams, scenario or generator must be meant, and said in the changelog."""
    text = (SHIPPED / "people.csv").read_bytes()
    assert simulate(scenario, seed=1).files()["people.csv"].encode() == text


def test_a_frame_given_out_is_not_the_trials_own(trials: list[Trial]) -> None:
    trial = trials[0]
    people = trial.people
    people["climate"] = 0.0
    assert trial.people["climate"].std() > 0


def test_one_outcome_does_not_move_another(scenario: Scenario, trials: list[Trial]) -> None:
    changed = tuple(o.model_copy(update={"icc": 0.3, "d": 0.8}) if o.name == "recovery_orientation" else o for o in scenario.outcomes)
    other = simulate(scenario.but(outcomes=changed), seed=1).people
    mine = trials[0].people
    same = [c for c in mine.columns if not c.startswith("recovery_orientation")]
    pd.testing.assert_frame_equal(other[same], mine[same])
    assert not other["recovery_orientation"].equals(mine["recovery_orientation"])


def test_what_is_lost_does_not_move_what_was_true(scenario: Scenario, trials: list[Trial]) -> None:
    losses = scenario.losses.model_copy(update={"follow_up": None})
    other = simulate(scenario.but(losses=losses), seed=1)
    mine = trials[0]
    pd.testing.assert_frame_equal(other.complete.drop(columns="follow_up_done"), mine.complete.drop(columns="follow_up_done"))
    assert other.people["follow_up_done"].sum() > mine.people["follow_up_done"].sum()


def test_the_complete_trial_is_the_same_trial(trials: list[Trial], scenario: Scenario) -> None:
    trial = trials[0]
    people, complete = trial.people, trial.complete
    for o in scenario.design.outcomes:
        if o.items:
            continue  # a score of fewer items is another mean
        seen = people[o.name].notna()
        assert (people.loc[seen, o.name] == complete.loc[seen, o.name]).all()
        asked = complete["role"] == o.rater
        assert complete.loc[asked, [o.name, o.baseline]].notna().all(axis=None)


def test_the_order_of_the_file_does_not_matter(scenario: Scenario, trials: list[Trial]) -> None:
    backwards = simulate(scenario.but(outcomes=scenario.outcomes[::-1], traits=scenario.traits[::-1]), seed=1).people
    pd.testing.assert_frame_equal(backwards[trials[0].people.columns], trials[0].people)


def test_sites_are_drawn_anew_without_a_fixed_list(scenario: Scenario) -> None:
    free = scenario.but(sites=scenario.sites.model_copy(update={"fixed": None}))
    one, two = simulate(free, seed=1), simulate(free, seed=2)
    assert frame_digest(one.sites) != frame_digest(two.sites)
    for trial in (one, two):
        assert (trial.sites["status"] == "randomised").sum() == 85
        assert trial.people["role"].value_counts().to_dict() == {"peer": 348, "supervisor": 143}


# --- the missingness is what it says ------------------------------------------------------------------------


def test_losses_at_random_depend_on_what_was_seen_and_not_on_what_was_not(scenario: Scenario) -> None:
    """A strong driver shows, and given it the unseen outcome adds nothing; a driver not at random does add."""
    from trialkit.simulation.scenario import Driver, Loss

    def slopes(driver: Driver) -> tuple[float, float]:
        loss = Loss(rate={"peer": 0.6, "supervisor": 0.6}, drivers=(driver,))
        drawn = scenario.but(losses=scenario.losses.model_copy(update={"baseline": None, "left": None, "follow_up": loss}))
        people = pd.concat([simulate(drawn, seed=s).complete.query("role == 'peer'") for s in range(12)])
        z = (people[["climate_0", "climate"]] - people[["climate_0", "climate"]].mean()) / people[["climate_0", "climate"]].std()
        x = np.column_stack([np.ones(len(z)), z])
        beta = np.zeros(3)
        for _ in range(8):  # logistic regression by Newton's method
            p = 1 / (1 + np.exp(-x @ beta))
            beta += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (people["follow_up_done"].to_numpy() - p))
        return float(beta[1]), float(beta[2])

    seen, unseen = slopes(Driver(column="climate_0", slope=0.8))
    assert seen == pytest.approx(0.8, abs=0.2) and unseen == pytest.approx(0.0, abs=0.2)
    seen, unseen = slopes(Driver(column="climate", slope=0.8))
    assert seen == pytest.approx(0.0, abs=0.2) and unseen == pytest.approx(0.8, abs=0.2)


def test_whole_sites_can_be_lost(scenario: Scenario) -> None:
    trial = simulate(scenario.but(losses=scenario.losses.model_copy(update={"sites": 0.5})), seed=1)
    followed = trial.people.groupby("site")["follow_up_done"].sum()
    assert (followed == 0).mean() > 0.35


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [True, -1, 1.5, "1", None])
def test_a_seed_that_is_none_is_refused(scenario: Scenario, seed: object) -> None:
    with pytest.raises(InputError, match="seed"):
        simulate(scenario, seed=seed)  # type: ignore[arg-type]


def test_an_effect_the_scale_cannot_hold_is_refused() -> None:
    scenario = Scenario.from_text("""
sites = {groups = [{name = "clinic", recruited = 6}]}
people = [{role = "patient", per_site = 4}]
outcomes = [{name = "mood", d = 1.6, mean = 4.9, sd = 0.2, low = 1.0, high = 5.0}]
""")
    with pytest.raises(DesignError, match="cannot be had on this scale"):
        _ = simulate(scenario, seed=1).people


def test_simulate_takes_a_scenario() -> None:
    with pytest.raises(InputError, match="from_toml"):
        simulate("supervision.toml", seed=1)  # type: ignore[arg-type]
