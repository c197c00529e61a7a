"""An allocation brought to the analysis, in each form it is kept in, and held against the data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trialkit.allocation import Plan, stratified
from trialkit.allocation.brought import Oriented, bring, hold_against
from trialkit.door import InputError, VerificationError, write_whole

ARMS = ("control", "intervention")
SEED = "a3f1c2d4e5b60718293a4b5c6d7e8f90"


@pytest.fixture
def drawn(plan):
    return plan.draw(seed=SEED, seed_source="dice")


@pytest.fixture
def files(drawn, tmp_path: Path):
    """Certificate, plan and table of one draw."""
    drawn.certificate.save(tmp_path / "allocation.json")
    drawn.plan.save(tmp_path / "plan.json")
    write_whole(tmp_path / "allocation.csv", drawn.frame.to_csv(index=False))
    return {name: tmp_path / name for name in ("allocation.json", "plan.json", "allocation.csv")}


@pytest.mark.parametrize("name", ["allocation.json", "plan.json", "allocation.csv"])
def test_every_form_gives_the_same_scheme(files, drawn, name):
    found = bring(files[name], site="site", arms=ARMS)
    assert found.plan.sites == drawn.plan.sites
    assert sorted(map(tuple, found.plan.assignments())) == sorted(map(tuple, drawn.plan.assignments()))
    assert found.arms == (None if name == "plan.json" else drawn.arms)
    assert (found.allocation is not None) == (name == "allocation.json")
    hold_against(found, drawn.arms)
    # a site that was lost altogether is no contradiction
    hold_against(found, dict(list(drawn.arms.items())[2:]))


@pytest.mark.parametrize("name", ["allocation.json", "plan.json", "allocation.csv"])
def test_data_that_disagree_are_refused_by_site(files, drawn, name):
    found = bring(files[name], site="site", arms=ARMS)
    with pytest.raises(InputError, match="site 'S99' of the data is not in the allocation"):
        hold_against(found, {**drawn.arms, "S99": "control"})
    pair = next(b for b in drawn.plan.blocks if len(b) == 2)
    other = {"control": "intervention", "intervention": "control"}
    crossed = {**drawn.arms, pair[0]: other[drawn.arms[pair[0]]]}
    with pytest.raises(InputError, match=rf"site '{pair[0]}' drew|the plan never gives .* of the 2 sites {pair[0]}, {pair[1]}"):
        hold_against(found, crossed)


def test_a_site_set_aside_is_said_to_be_one(tmp_path, drawn, files):
    table = drawn.frame.copy()
    table.loc[table["site"] == "S11", "arm"] = None
    write_whole(tmp_path / "aside.csv", table.to_csv(index=False))
    with pytest.raises(InputError, match="'S11' of the data was set aside"):
        hold_against(bring(tmp_path / "aside.csv", site="site", arms=ARMS), drawn.arms)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop(columns="pair"), "has no column 'pair' that would imply it"),
        (lambda t: t.drop(columns="arm"), "no column 'arm'"),
        (lambda t: t.assign(pair="P01"), r"pair 'P01' has 11 sites.*give plan.json"),
        (lambda t: t.assign(arm="control"), "are all in control"),
        (lambda t: t.assign(arm=t["arm"].replace("control", "usual")), "the arm 'usual' is not one of the design's"),
    ],
)
def test_tables_that_imply_no_scheme(drawn, tmp_path, change, says):
    write_whole(tmp_path / "t.csv", change(drawn.frame).to_csv(index=False))
    with pytest.raises(InputError, match=says):
        bring(tmp_path / "t.csv", site="site", arms=ARMS)


def test_what_was_changed_or_is_something_else(files, tmp_path):
    text = files["allocation.json"].read_text()
    files["allocation.json"].chmod(0o600)
    files["allocation.json"].write_text(text.replace('"attempts":null', '"attempts":1').replace('"attempts": null', '"attempts": 1'))
    with pytest.raises(VerificationError):
        bring(files["allocation.json"], site="site", arms=ARMS)
    write_whole(tmp_path / "other.json", json.dumps({"schema": "x"}))
    with pytest.raises(InputError, match="neither a plan nor an allocation's certificate"):
        bring(tmp_path / "other.json", site="site", arms=ARMS)
    with pytest.raises(InputError, match=r"its arms are control, intervention, the design's A, B"):
        bring(files["plan.json"], site="site", arms=("A", "B"))


def test_code_one_is_the_intervention_whichever_arm_the_plan_names_first(plan: Plan):
    turned = Oriented(replace(plan, arms=("intervention", "control")), "intervention")
    same = Oriented(plan, "intervention")
    np.testing.assert_array_equal(turned.assignments(), 1 - np.asarray(plan.assignments()))
    np.testing.assert_array_equal(same.sample(50, seed=3), plan.sample(50, seed=3))
    assert turned.n_assignments == plan.n_assignments


def test_a_stratified_plan_is_held_stratum_by_stratum(sites, tmp_path):
    plan = stratified(sites, id="site", strata=["county"])
    plan.save(tmp_path / "plan.json")
    found = bring(tmp_path / "plan.json", site="site", arms=ARMS)
    arms = plan.draw(seed=SEED, seed_source="dice").arms
    hold_against(found, arms)
    county = dict(zip(sites["site"], sites["county"], strict=True))
    lopsided = {s: ("intervention" if county[s] == "yes" else arms[s]) for s in arms}
    with pytest.raises(InputError, match="never gives"):
        hold_against(found, lopsided)
