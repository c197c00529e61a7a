"""What is missing together, why, and what can help: patterns, drivers, flux."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.imputation import Imputations, missing_drivers, missing_flux, missing_patterns

REFERENCE = Path(__file__).parents[1] / "reference"
DESIGN = TrialDesign(
    outcomes=[{"name": "y"}], covariates=[{"name": "band", "type": "categorical"}], imputation={"population": "done", "auxiliary": ["x"]}
)


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 400
    site = np.arange(n) // 8
    frame = pd.DataFrame({"person": range(n), "site": site, "arm": np.where(site % 2, "control", "intervention"), "x": rng.normal(size=n)})
    frame["y_0"], frame["y"] = rng.normal(size=n), rng.normal(size=n)
    frame["band"] = rng.choice(["a", "b", "c"], n)
    frame["done"] = 1.0
    frame.loc[rng.random(n) < 1 / (1 + np.exp(1 - 1.5 * frame["x"])), "y"] = np.nan
    frame.loc[:9, "y_0"] = np.nan
    frame.loc[390:, "done"] = 0.0
    return frame


def test_patterns_add_up_to_the_people_imputed(people: pd.DataFrame) -> None:
    found = missing_patterns(people, DESIGN).frame
    part = people.iloc[:390]
    assert found["people"].sum() == 390
    assert found["share"].sum() == pytest.approx(1)
    assert (np.diff(found["people"]) <= 0).all()
    counts = found.set_index("columns")["people"]
    assert counts[""] == part[["y", "y_0", "band", "x"]].notna().all(axis=1).sum()
    assert counts["y, y_0"] == (part["y"].isna() & part["y_0"].isna()).sum()


def test_the_planted_driver_comes_first(people: pd.DataFrame) -> None:
    found = missing_drivers(people, DESIGN)
    top = found.frame[found.frame["variable"] == "y"].iloc[0]
    assert top["driver"] == "x"
    assert top["p_value"] < 1e-6
    part = people.iloc[:390]
    gone = part["y"].isna()
    assert top["difference"] == pytest.approx((part.loc[gone, "x"].mean() - part.loc[~gone, "x"].mean()) / part["x"].std())
    assert top["correlation"] == pytest.approx(np.corrcoef(gone, part["x"])[0, 1])
    # one driver only when asked, the others' p-values are not all small
    assert len(missing_drivers(people, DESIGN, strongest=1).frame) == 2
    rest = found.frame[(found.frame["variable"] == "y") & (found.frame["driver"] != "x")]
    assert rest["p_value"].min() > 0.001
    assert "robust to sites" in str(found)


def test_the_slope_is_tested_with_a_variance_robust_to_sites() -> None:
    """A driver and a gap that are both the site's: counted as sites, not as people."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(40):
        site = np.repeat(np.arange(20), 20)
        x, lost = rng.normal(size=20)[site], (rng.normal(size=20) > 0)[site]
        frame = pd.DataFrame({"person": range(400), "site": site, "arm": np.where(site % 2, "control", "intervention"), "x": x})
        frame["y"] = np.where(lost, np.nan, rng.normal(size=400))
        design = TrialDesign(outcomes=[{"name": "y", "has_baseline": False}], imputation={"auxiliary": ["x"]})
        f = missing_drivers(frame, design).frame
        small += int((f.loc[f["driver"] == "x", "p_value"] < 0.05).sum())
    assert small <= 8  # of 40 under no relation; people counted as independent would give about 30


@pytest.mark.reference
def test_flux_against_mice() -> None:
    """flux() of mice 3.15 on the table before imputation (completed_sets.R)."""
    base = Imputations.load(REFERENCE / "completed_sets.parquet").base
    design = TrialDesign(outcomes=[{"name": "mood"}], covariates=[{"name": "band", "type": "categorical"}])
    found = missing_flux(base, design).frame.set_index("variable")
    for row in json.loads((REFERENCE / "completed_sets.json").read_text())["flux"]:
        got = found.loc[row["_row"], ["observed", "influx", "outflux", "ainb", "aout", "fico"]].to_numpy(float)
        np.testing.assert_allclose(got, [row[c] for c in ("pobs", "influx", "outflux", "ainb", "aout", "fico")], rtol=1e-9)


def test_kinds_of_rater_are_told_apart(people: pd.DataFrame) -> None:
    both = people.assign(role=np.where(people.index % 2, "peer", "supervisor"))
    both.loc[both["role"] == "peer", ["z"]] = np.nan
    both.loc[both["role"] == "supervisor", "z"] = 1.0 + both["x"]
    both.loc[both["role"] == "supervisor", ["y", "y_0"]] = np.nan
    design = TrialDesign(
        columns={"rater": "role"}, outcomes=[{"name": "y", "rater": "peer"}, {"name": "z", "rater": "supervisor", "has_baseline": False}]
    )
    assert set(missing_patterns(both, design).frame["group"]) == {"peer", "supervisor"}
    flux = missing_flux(both, design).frame
    assert set(flux.loc[flux["group"] == "peer", "variable"]) == {"y", "y_0"}


def test_bad_input_is_named(people: pd.DataFrame) -> None:
    for verb in (missing_patterns, missing_drivers, missing_flux):
        with pytest.raises(InputError, match="'band'"):
            verb(people.drop(columns="band"), DESIGN)
        with pytest.raises(InputError, match="DataFrame"):
            verb([1], DESIGN)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="TrialDesign"):
            verb(people, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="strongest"):
        missing_drivers(people, DESIGN, strongest=0)
