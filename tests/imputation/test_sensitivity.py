"""Shifted imputations: only missing cells move, by what was asked, and the grid finds where a finding tips."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.imputation import Imputations, impute, shift_missing, tipping_point
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


def test_bad_input_is_named(sets: Imputations) -> None:
    with pytest.raises(InputError, match="no imputed cells"):
        shift_missing(sets, "y_0")
    with pytest.raises(InputError, match="Did you mean 'control'"):
        shift_missing(sets, "y", delta={"contrl": 1.0})
    with pytest.raises(InputError, match="unit"):
        shift_missing(sets, "y", unit="z")
    with pytest.raises(InputError, match="not an outcome"):
        tipping_point(sets, DESIGN, "x", analyse=itt)
    with pytest.raises(InputError, match="arms = 'all'"):
        tipping_point(sets, DESIGN, "y", analyse=itt, arms="all")
    with pytest.raises(InputError, match="finite"):
        tipping_point(sets, DESIGN, "y", analyse=itt, deltas=[])
