"""Completed sets as R and Stata read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import InputError, Refused
from trialkit.imputation import Imputations, impute, pool, write_stata

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="module")
def sets() -> Imputations:
    """Sets saved long ago: the file format is kept."""
    return Imputations.load(REFERENCE / "completed_sets.parquet")


@pytest.mark.reference
@pytest.mark.parametrize("way", ["parquet", "stata"])
def test_mice_pools_the_exported_sets_to_the_same_numbers(sets: Imputations, way: str) -> None:
    """as.mids of the Parquet file, and of the Stata file read by haven, then lm and pool in mice (completed_sets.R)."""
    expected = json.loads((REFERENCE / "completed_sets.json").read_text())[way]
    assert expected["m"] == sets.m
    assert expected["missing"] == {name: int(sets.base[name].isna().sum()) for name in ("mood", "mood_0", "band")}
    q, u = [], []
    for s in sets:
        X = np.column_stack([np.ones(len(s)), s["arm"] == "intervention", s["mood_0"], s["band"] == "middle", s["band"] == "high"]).astype(
            float
        )
        b, rss = np.linalg.lstsq(X, s["mood"].to_numpy(), rcond=None)[:2]
        q.append(b)
        u.append(np.diag(np.linalg.inv(X.T @ X)) * rss[0] / (len(s) - 5))
    for k in range(5):
        p = pool(np.array(q)[:, k], np.array(u)[:, k], len(s) - 5)
        got = [p.estimate, p.std_error, p.df, p.p_value]
        np.testing.assert_allclose(got, [expected[c][k] for c in ("estimate", "std_error", "df", "p_value")], rtol=1e-9)


def test_a_stata_file_has_the_flong_columns(sets: Imputations, tmp_path: Path) -> None:
    path = tmp_path / "sets.dta"
    write_stata(sets, path)
    data = pd.read_stata(path)
    n = len(sets.base)
    assert list(data.columns) == ["_mi_m", "_mi_id", "_mi_miss", *sets.base.columns]
    assert data["_mi_m"].tolist() == np.repeat(np.arange(6), n).tolist()
    assert data["_mi_id"].tolist() == np.tile(np.arange(1, n + 1), 6).tolist()
    incomplete = sets.base[["mood", "mood_0", "band"]].isna().any(axis=1)
    assert data.loc[data["_mi_m"] == 0, "_mi_miss"].tolist() == incomplete.astype(int).tolist()
    assert data.loc[data["_mi_m"] > 0, "_mi_miss"].isna().all()
    for k in (0, 4):
        part = data[data["_mi_m"] == k + 1]
        assert part["mood"].tolist() == sets[k]["mood"].tolist()
        assert part["band"].astype(str).tolist() == sets[k]["band"].tolist()
    # Stata imputes numbers: a category is its place among its levels, with labels
    assert pd.read_stata(path, convert_categoricals=False)["band"].dropna().isin([0, 1, 2]).all()
    assert data["band"].cat.categories.tolist() == ["low", "middle", "high"]
    with pytest.raises(Refused):
        write_stata(sets, path)
    write_stata(sets, path, force=True)


def test_names_and_types_that_stata_does_not_take(tmp_path: Path) -> None:
    n = 40
    rng = np.random.default_rng(1)
    people = pd.DataFrame(
        {"person": range(n), "site": np.arange(n) // 4, "arm": np.where(np.arange(n) // 4 % 2, "control", "intervention")}
    )
    long_name = "how often in the last four weeks, on average"
    people[long_name] = rng.normal(size=n)
    people["2nd"] = rng.random(n) < 0.5
    people["odd"] = pd.Series([1, None, *range(n - 2)], dtype=object)
    people.loc[:5, long_name] = np.nan
    design = TrialDesign(outcomes=[{"name": long_name, "has_baseline": False}])
    sets = impute(people, design, seed=1, m=2, iterations=1)
    write_stata(sets, tmp_path / "a.dta")
    data: Any = pd.read_stata(tmp_path / "a.dta")
    assert list(data.columns)[6:] == ["how_often_in_the_last_four_weeks", "_2nd", "odd"]
    with pd.io.stata.StataReader(tmp_path / "a.dta") as reader:
        assert reader.variable_labels()["how_often_in_the_last_four_weeks"] == long_name
    assert data["odd"].isna().sum() == 3
    with pytest.raises(InputError, match=r"ends in \.dta"):
        write_stata(sets, tmp_path / "a.csv")
    clash = people.assign(**{long_name + " then": 1})
    with pytest.raises(InputError, match="would both be called"):
        write_stata(impute(clash, design, seed=1, m=2, iterations=1), tmp_path / "b.dta")
