"""TrialDesign: proved at birth, unknown keys refused with the nearest right one, TOML there and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from trialkit.design import TrialDesign
from trialkit.door import DesignError

MINIMAL = '[[outcomes]]\nname = "recovery"\nrank = "primary"\n'


def test_defaults_are_the_trials() -> None:
    design = TrialDesign.from_text(MINIMAL)
    outcome = design.outcomes[0]
    assert (outcome.baseline, outcome.family, outcome.label) == ("recovery_0", "primary", "recovery")
    assert design.analysis.inference == "kenward-roger"
    assert design.analysis.standardise == "total"
    assert design.arms.labels == ("control", "intervention")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINIMAL + "rnak = 3", r"outcomes\[1\]\.rnak: no such key. Did you mean 'rank'"),
        (MINIMAL + "\n[analysys]\nx = 1", "analysys: no such key. Did you mean 'analysis'"),
        (MINIMAL + '\n[analysis]\ninference = "kenward-rogers"', "Did you mean 'kenward-roger'"),
        ("[trial]\ntitle = 'x'", "outcomes is required"),
        ('[[outcomes]]\nrank = "primary"', r"outcomes\[1\].name is required"),
        ("outcomes = []", "outcomes"),
        (MINIMAL + MINIMAL, "'recovery' is listed twice"),
        (MINIMAL + 'rater = "peer"', "names no rater column"),
        (MINIMAL + '\n[arms]\nreference = "a"\nintervention = "a"', "must differ"),
        (MINIMAL + '\n[columns]\nsite = "arm"', "named both as site and as arm"),
        ('[[outcomes]]\nname = "site"', "is the site column"),
        (MINIMAL + '\n[[covariates]]\nname = "arm"', "the model has it already"),
        (MINIMAL + '\n[analysis]\npair_effects = "random"', r"needs \[columns\] pair"),
        (MINIMAL + "\n[imputation]\nm = 1", "m = 1"),
        (MINIMAL + 'measure = "risk-diference"', "Did you mean 'risk-difference'"),
        (MINIMAL + 'model = "marginl"', "Did you mean 'marginal'"),
        (MINIMAL + '\n[compliance]\nunit = "session"', "name the column"),
        (MINIMAL + '\n[compliance]\nreceived = "recovery"', "'recovery' is an outcome"),
        (MINIMAL + '\n[compliance]\nper_protocol = "arm"', "'arm' is the arm column"),
        (MINIMAL + "\n[analysis]\nrandom_slope = true", "random_slope varies between pairs"),
        (MINIMAL + "has_baseline = false\nbaseline = 'x'", "yet a baseline column is named"),
        (MINIMAL + "\n[allocation]\ncriteria = [{kind = 'exact', column = 'a', caliper = 2}]", "caliper belongs to"),
        ("x = [", "not TOML"),
    ],
)
def test_a_wrong_design_says_what_and_where(text: str, says: str) -> None:
    with pytest.raises(DesignError, match=says) as caught:
        TrialDesign.from_text(text)
    assert "pydantic" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "trial.toml"
    with pytest.raises(DesignError, match="no such file"):
        TrialDesign.from_toml(path)
    path.write_text(MINIMAL + "rnak = 1")
    with pytest.raises(DesignError, match=r"trial\.toml, outcomes\[1\]\.rnak"):
        TrialDesign.from_toml(path)
    path.write_bytes(b"\xff")
    with pytest.raises(DesignError, match="UTF-8"):
        TrialDesign.from_toml(path)


def test_toml_round_trip() -> None:
    text = (
        MINIMAL
        + """
items = ["r1", "r2"]
[columns]
rater = "role"
pair = "pair"
[[covariates]]
name = "age_band"
type = "categorical"
levels = ["18-35", "36-50", "51+"]
[allocation]
odd = "single"
forbidden = [["S01", "S02"]]
[[allocation.criteria]]
kind = "exact"
column = "directly_operated"
[[allocation.criteria]]
kind = "nearest"
column = "annual_budget"
caliper = 1.5
[power]
clusters = 68
cluster_size = 2
icc = 0.05
effect = 0.5
"""
    )
    design = TrialDesign.from_text(text)
    again = TrialDesign.from_text(design.to_toml())
    assert again == design
    assert again.digest == design.digest


def test_a_nominal_covariate_is_a_categorical_one() -> None:
    design = TrialDesign.from_text(MINIMAL + '[[covariates]]\nname = "region"\ntype = "nominal"\n')
    assert design.covariates[0].type == "categorical"
    assert TrialDesign.from_text(design.to_toml()) == design


def test_it_is_frozen() -> None:
    design = TrialDesign.from_text(MINIMAL)
    with pytest.raises(Exception, match="frozen"):
        design.trial = None  # type: ignore[misc, assignment]


def test_raters() -> None:
    design = TrialDesign.from_text(
        '[columns]\nrater = "role"\n[[outcomes]]\nname = "a"\nrater = "peer"\n[[outcomes]]\nname = "b"\nrater = "supervisor"\n'
    )
    assert design.raters == ("peer", "supervisor")
    assert [o.name for o in design.for_rater("peer")] == ["a"]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"covariates": [{"name": "y"}]}, "'y' is an outcome as well"),
        ({"covariates": [{"name": "y_0"}]}, "'y_0' is the baseline of 'y' as well"),
        ({"covariates": [{"name": "band", "levels": ["a", "a"]}]}, "the level 'a' is listed twice"),
        ({"outcomes": [{"name": "y", "baseline": "y"}]}, "named as its own baseline"),
        ({"outcomes": [{"name": ""}]}, "at least 1 character"),
        ({"outcomes": []}, "outcomes is empty"),
        ({"arms": {"reference": 0, "intervention": "1"}}, 'put it in quotes: "0"'),
    ],
)
def test_designs_that_contradict_themselves(parts: dict[str, object], says: str) -> None:
    with pytest.raises(DesignError, match=says):
        TrialDesign(**{"outcomes": [{"name": "y"}], **parts})


def test_keys_that_came_later_move_no_earlier_digest() -> None:
    plain = TrialDesign.from_text(MINIMAL)
    assert plain.digest.startswith("00291d62")
    assert TrialDesign.from_text(MINIMAL + "\n[analysis]\nresidual_by_arm = true").digest != plain.digest
    declared = TrialDesign.from_text(MINIMAL + '\n[compliance]\nreceived = ["s1", "s2"]\nper_protocol = "stayed"')
    assert declared.digest != plain.digest
    assert declared.compliance is not None
    assert declared.compliance.columns == ("s1", "s2")
    assert TrialDesign.from_text(declared.to_toml()) == declared
