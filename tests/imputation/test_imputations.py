"""The completed sets as an object: saved and reloaded exactly, printed, exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from trialkit.design import TrialDesign
from trialkit.door import InputError, Refused
from trialkit.imputation import Imputations, impute


@pytest.fixture(scope="module")
def sets() -> Imputations:
    rng = np.random.default_rng(2)
    n = 80
    site = np.arange(n) // 4
    people = pd.DataFrame(
        {
            "person": [f"{k:03d}" for k in range(n)],
            "site": site,
            "arm": np.where(site % 2, "control", "intervention"),
            "y_0": rng.normal(size=n),
            "y": rng.normal(size=n),
            "band": pd.Categorical(rng.choice(["low", "high"], n), ["low", "high"], ordered=True),
            "kind": rng.choice(["a", "b", "c"], n),
            "note": ["é"] * n,
        },
        index=pd.Index(np.arange(n) * 3 + 1, name="row id"),
    )
    people["old"] = people["kind"].astype(object)
    for name in ("y_0", "y", "band", "kind"):
        people.loc[rng.random(n) < 0.2, name] = np.nan if name.startswith("y") else None
    design = TrialDesign(
        outcomes=[{"name": "y"}],
        covariates=[{"name": "band", "type": "ordinal", "levels": ["low", "high"]}, {"name": "kind", "type": "categorical"}],
    )
    return impute(people, design, seed=4, m=6, iterations=4)


def test_a_saved_imputation_reloads_exactly(sets: Imputations, tmp_path: Path) -> None:
    path = tmp_path / "sets.parquet"
    sets.save(path)
    again = Imputations.load(path)
    assert (again.m, again.population_note, again.m_recommended) == (sets.m, sets.population_note, sets.m_recommended)
    for a, b in zip(again, sets, strict=True):
        assert_frame_equal(a, b)
    assert_frame_equal(again.base, sets.base)
    assert_frame_equal(again.frame, sets.frame)
    assert_frame_equal(again.events, sets.events, check_dtype=False)
    assert again.provenance == sets.provenance
    assert again.traces.keys() == sets.traces.keys()
    for key, trace in sets.traces.items():
        np.testing.assert_array_equal(again.traces[key], trace)
    assert again.to_text() == sets.to_text()
    with pytest.raises(Refused):
        sets.save(path)
    sets.save(path, force=True)


def test_any_parquet_reader_sees_the_long_table(sets: Imputations, tmp_path: Path) -> None:
    path = tmp_path / "sets.parquet"
    sets.save(path)
    long = pd.read_parquet(path)
    # text of the object kind is text to any reader
    assert_frame_equal(long, sets.long().astype({"old": "str"}))
    assert long["imputation"].unique().tolist() == list(range(7))
    assert long.loc[long["imputation"] == 0, "y"].isna().sum() == sets.base["y"].isna().sum()
    assert long.loc[long["imputation"] == 3, "y"].tolist() == sets[2]["y"].tolist()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Imputations.load(tmp_path / "none.parquet")
    pd.DataFrame({"x": [1.0]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="not a file that"):
        Imputations.load(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_text("no")
    with pytest.raises(InputError, match="not a file that"):
        Imputations.load(tmp_path / "y.parquet")


def test_indexing(sets: Imputations) -> None:
    assert_frame_equal(sets[-1], sets[5])
    with pytest.raises(IndexError):
        sets[6]


def test_it_prints_what_was_done(sets: Imputations) -> None:
    text = str(sets)
    assert "6 imputations of 80 people" in text
    assert "R-hat" in text
    assert "two-level normal" in text
    assert "two-level nested probits" in text
    assert "recommend" not in text  # the sentence says what the number is for
    assert "repeat within 5%" in text
    rows = sets.frame.set_index("variable")
    assert rows.loc["y", "missing"] == sets.base["y"].isna().sum()
    assert rows.loc["y", "share"] == pytest.approx(sets.base["y"].isna().mean())
    assert sets.provenance.seed == 4
    assert sets.provenance.settings["iterations"] == 4
