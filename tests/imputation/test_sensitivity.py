"""Shifted imputations: only missing cells move, by what was asked, and the grid finds where a finding tips."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.imputation import Imputations, impute, shift_missing, tipping_point, worst_best
from trialkit.itt import itt

DESIGN = TrialDesign(outcomes=[{"name": "y"}, {"name": "z", "has_baseline": False}])


@pytest.fixture(scope="module")
def sets() -> Imputations:
    rng = np.random.default_rng(7)
    n = 240
    site = np.arange(n) // 6
    arm = np.where(site % 2, "control", "intervention")
    people = pd.DataFrame({"person": np.arange(n), "site": site, "arm": arm, "y_0": rng.normal(size=n), "z": rng.normal(size=n)})
    people["y"] = 3 * (0.45 * (arm == "intervention") + 0.5 * people["y_0"] + 0.2 * rng.normal(size=40)[site] + rng.normal(size=n))
    people.loc[rng.random(n) < 0.25, "y"] = np.nan
    people.loc[rng.random(n) < 0.1, "z"] = np.nan
    return impute(people, DESIGN, seed=1, m=10, iterations=4)


def test_only_missing_cells_of_that_outcome_and_arm_move(sets: Imputations) -> None:
    shifted = shift_missing(sets, "y", delta={"intervention": -0.5})
    sd = sets.base["y"].std()
    hit = sets.base["y"].isna() & (sets.base["arm"] == "intervention")
    for before, after in zip(sets, shifted, strict=True):
        np.testing.assert_allclose(after.loc[hit, "y"], before.loc[hit, "y"] - 0.5 * sd)
        pd.testing.assert_frame_equal(after[~hit], before[~hit])
        assert after["z"].equals(before["z"])
    raw = shift_missing(sets, "y", delta=2.0, factor=0.0, unit="raw")
    gone = raw.base["y"].isna()
    centre = sets.base.groupby("arm")["y"].transform("mean")
    np.testing.assert_allclose(raw[0].loc[gone, "y"], centre[gone] + 2)
    assert raw.provenance.settings["shifted"]["unit"] == "raw"
    assert shift_missing(sets, "y")[3].equals(sets[3])


def test_the_effect_moves_with_the_shift_and_tips(sets: Imputations) -> None:
    found = tipping_point(sets, DESIGN, "y", analyse=itt, deltas=np.linspace(-2, 1, 13))
    p = found.frame.set_index("shift")
    assert (np.diff(found.frame["estimate"]) > 0).all()
    untouched = itt(sets, DESIGN).frame.set_index("outcome")
    assert p.loc[0.0, "estimate"] == pytest.approx(untouched.loc["y", "estimate"], rel=1e-9)
    assert p.loc[0.0, "p_value"] < 0.05 < p.loc[-2.0, "p_value"]
    assert found.tips_at is not None
    assert -2 < found.tips_at < 0
    at = tipping_point(sets, DESIGN, "y", analyse=itt, deltas=[found.tips_at]).frame
    assert at.loc[0, "p_value"] == pytest.approx(0.05, abs=0.01)
    assert "changes when" in str(found)
    nowhere = tipping_point(sets, DESIGN, "y", analyse=itt, deltas=[0.0, 0.1])
    assert nowhere.tips_at is None
    assert "does not change" in str(nowhere)


@pytest.mark.parametrize("analysis", [{}, {"standardise": "pooled"}, {"standardise": "none", "inference": "satterthwaite"}])
@pytest.mark.parametrize("arms", ["intervention", "both"])
def test_the_whole_grid_at_once_equals_one_analysis_a_point(sets: Imputations, analysis: dict[str, str], arms: str) -> None:
    design = DESIGN.model_copy(update={"analysis": type(DESIGN.analysis)(**analysis)})
    grid = [-0.8, 0.0, 0.3]
    fast = tipping_point(sets, design, "y", analyse=itt, deltas=grid, arms=arms).frame
    slow = tipping_point(sets, design, "y", analyse=lambda s, d: itt(s, d), deltas=grid, arms=arms).frame
    pd.testing.assert_frame_equal(fast, slow, rtol=1e-7)


def test_random_pairs_go_the_same_way(sets: Imputations) -> None:
    pair = sets.base["site"] // 2
    paired = replace(sets, base=sets.base.assign(pair=pair))
    design = TrialDesign(columns={"pair": "pair"}, outcomes=[{"name": "y"}], analysis={"pair_effects": "random"})
    fast = tipping_point(paired, design, "y", analyse=itt, deltas=[-0.5, 0.5]).frame
    slow = tipping_point(paired, design, "y", analyse=lambda s, d: itt(s, d), deltas=[-0.5, 0.5]).frame
    pd.testing.assert_frame_equal(fast, slow, rtol=1e-6)


@dataclass
class Fake:
    frame: pd.DataFrame


def test_a_grid_shifts_both_arms(sets: Imputations) -> None:
    seen: list[tuple[float, float]] = []

    def analyse(shifted: Imputations, design: TrialDesign) -> Fake:
        mean = shifted[0].groupby("arm")["y"].mean()
        seen.append((mean["control"], mean["intervention"]))
        assert [o.name for o in design.outcomes] == ["y"]
        figures = dict.fromkeys(["estimate", "std_error", "df", "p_value", "conf_low", "conf_high"], 0.5)
        return Fake(pd.DataFrame([{"outcome": "y", **figures}]))

    found = tipping_point(sets, DESIGN, "y", analyse=analyse, deltas=[-1, 1], arms="grid")
    assert found.frame[["shift_control", "shift_intervention"]].to_numpy().tolist() == [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    assert seen[0][0] == seen[1][0] < seen[2][0]
    assert seen[0][1] == seen[2][1] < seen[1][1]
    assert "does not change" in str(found)
    whole = tipping_point(sets, DESIGN, "y", analyse=itt, deltas=np.linspace(-2, 1, 7), arms="grid")
    assert len(whole.frame) == 49
    assert "of 49 points; the nearest is control" in str(whole)
    tipping_point(sets, DESIGN, "y", analyse=analyse, deltas=[2], arms="reference")
    assert seen[-1][0] > seen[2][0]


# --- categories: log odds ---------------------------------------------------------------------------------------

TYPED = TrialDesign(
    outcomes=[
        {"name": "well", "type": "binary", "has_baseline": False, "levels": ["no", "yes"]},
        {"name": "pain", "type": "ordinal", "has_baseline": False, "levels": ["none", "some", "much"]},
    ],
    analysis={"multiplicity": "holm"},
)


@pytest.fixture(scope="module")
def typed() -> Imputations:
    """No association with anything and no site effects, so that a missing cell's chance is the share observed."""
    rng = np.random.default_rng(3)
    n = 3000
    people = pd.DataFrame(
        {"person": np.arange(n), "site": np.arange(n) // 30, "arm": np.where((np.arange(n) // 30) % 2, "control", "intervention")}
    )
    people["well"] = rng.choice(["no", "yes"], n, p=[0.7, 0.3])
    people["pain"] = rng.choice(["none", "some", "much"], n, p=[0.5, 0.3, 0.2])
    for name in ("well", "pain"):
        people[name] = people[name].astype(object).mask(rng.random(n) < 0.4)
    return impute(people, TYPED, seed=1, m=8, iterations=6)


def test_log_odds_are_shifted_by_what_was_asked(typed: Imputations) -> None:
    for delta in (-1.5, 0.7, 2.0):
        moved = shift_missing(typed, "well", delta={"control": delta})
        control = (typed.base["arm"] == "control").to_numpy()[typed.cells["well"].rows]
        seen = (typed.base["well"].dropna() == "yes").mean()
        wanted = expit(logit(seen) + delta)
        assert moved.cells["well"].values[:, control].mean() == pytest.approx(wanted, abs=0.04)
        np.testing.assert_array_equal(moved.cells["well"].values[:, ~control], typed.cells["well"].values[:, ~control])
        ordinal = shift_missing(typed, "pain", delta=delta).cells["pain"].values
        observed = typed.base["pain"].dropna()
        for level, above in ((0, ["some", "much"]), (1, ["much"])):
            assert (ordinal > level).mean() == pytest.approx(expit(logit(observed.isin(above).mean()) + delta), abs=0.04)
    assert moved.provenance.settings["shifted"]["unit"] == "log-odds"


def test_a_larger_shift_lowers_no_category_and_none_changes_nothing(typed: Imputations) -> None:
    last = np.full(typed.cells["pain"].values.shape, -1.0)
    for delta in (-40.0, -1.0, 0.0, 0.5, 40.0):
        values = shift_missing(typed, "pain", delta=delta).cells["pain"].values
        assert (values >= last).all()
        last = values
        if delta == 0:
            np.testing.assert_array_equal(values, typed.cells["pain"].values)
    assert (last == 2).all()
    passing = typed.cells["pain"].passing
    assert passing is not None
    np.testing.assert_array_equal((passing < 0).sum(axis=2), typed.cells["pain"].values)
    twice = shift_missing(shift_missing(typed, "pain", delta=0.4), "pain", delta=-0.4)
    np.testing.assert_array_equal(twice.cells["pain"].values, typed.cells["pain"].values)


def test_categories_tip_too(typed: Imputations, tmp_path: Path) -> None:
    few = replace(typed, m=3, cells={k: replace(c, values=c.values[:3], passing=c.passing[:3]) for k, c in typed.cells.items()})
    found = tipping_point(few, TYPED, "well", analyse=itt, deltas=[-2, 0, 2])
    assert found.unit == "log-odds" and found.measure == "risk difference"
    assert (np.diff(found.frame["estimate"]) > 0).all()
    np.testing.assert_allclose(found.frame["imor"], np.exp([-2, 0, 2]))
    alone = TYPED.model_copy(update={"outcomes": TYPED.outcomes[:1]})
    assert found.frame["estimate"][1] == pytest.approx(itt(few, alone).frame["estimate"][0])
    assert "log odds of yes" in str(found) and "odds ratio" in str(found)
    few.save(tmp_path / "sets.parquet")
    again = Imputations.load(tmp_path / "sets.parquet")
    assert again.cells["pain"].passing is not None
    np.testing.assert_array_equal(again.cells["pain"].passing, few.cells["pain"].passing)
    np.testing.assert_array_equal(
        shift_missing(again, "well", delta=1.0).cells["well"].values, shift_missing(few, "well", delta=1.0).cells["well"].values
    )


def test_what_cannot_be_shifted_is_said(typed: Imputations) -> None:
    with pytest.raises(InputError, match="Leave unit out"):
        shift_missing(typed, "well", delta=1.0, unit="sd")
    with pytest.raises(InputError, match="factor"):
        shift_missing(typed, "well", factor=2.0)
    people = typed.base.drop(columns="pain")
    alone = TrialDesign(outcomes=TYPED.outcomes[:1])
    with pytest.raises(InputError, match="cannot be shifted"):
        shift_missing(impute(people, alone, seed=1, m=2, iterations=1, engine="joint"), "well", delta=1.0)
    with pytest.raises(InputError, match="cannot be shifted"):
        shift_missing(worst_best(typed, TYPED, "well")["best case"], "well", delta=1.0)


def test_bad_input_is_named(sets: Imputations) -> None:
    with pytest.raises(InputError, match="no imputed cells"):
        shift_missing(sets, "y_0")
    with pytest.raises(InputError, match="Did you mean 'control'"):
        shift_missing(sets, "y", delta={"contrl": 1.0})
    with pytest.raises(InputError, match="unit"):
        shift_missing(sets, "y", unit="z")
    with pytest.raises(InputError, match="has no log odds"):
        shift_missing(sets, "y", unit="log-odds")
    with pytest.raises(InputError, match="not an outcome"):
        tipping_point(sets, DESIGN, "x", analyse=itt)
    with pytest.raises(InputError, match="arms = 'all'"):
        tipping_point(sets, DESIGN, "y", analyse=itt, arms="all")
    with pytest.raises(InputError, match="finite"):
        tipping_point(sets, DESIGN, "y", analyse=itt, deltas=[])
