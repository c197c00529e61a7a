"""A grid of designs, and work kept on disk."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from trialkit.door import DesignError, InputError
from trialkit.simulation import Scenario, check, redesign, simulate, work
from trialkit.simulation.redesign import turned
from trialkit.simulation.shipped import shipped_scenario

SMALL = Scenario.from_text("""
title = "clinics"
[sites]
groups = [{name = "town", recruited = 14, lost = 2}, {name = "country", recruited = 6}]
[[people]]
role = "patient"
per_site = 6
[[outcomes]]
name = "mood"
d = 0.5
icc = 0.05
""")


def test_every_cell_has_its_figures(tmp_path: Path) -> None:
    found = redesign(SMALL, {"sites": [12, 36], "icc": [0.0, 0.3]}, trials=50, seed=2)
    assert found.frame[["sites", "icc"]].to_numpy().tolist() == [[12, 0.0], [12, 0.3], [36, 0.0], [36, 0.3]]
    power = found.frame["rejection"].tolist()
    # more sites, more power; more alike within sites, less
    assert power[2] > power[0] and power[2] > power[3] and power[3] > power[1]
    assert "2" not in found.knobs and str(found).startswith("4 redesigns of: clinics")
    found.to_parquet(tmp_path / "grid.parquet")
    assert len(pd.read_parquet(tmp_path / "grid.parquet")) == 4
    # each cell is a check of its own
    alone = check(turned(turned(SMALL, "sites", 36), "icc", 0.3), trials=50, seed=2)
    assert alone.values.tobytes() == found.results[3].values.tobytes()


def test_knobs_turn_what_they_say() -> None:
    scenario = shipped_scenario("supervision")
    sites = turned(scenario, "sites", 60)
    assert sites.sites.randomised == 60 and sites.sites.recruited == 64
    assert sum(p.total or 0 for p in sites.people) == pytest.approx(491 * 60 / 85, abs=1)
    assert {o.icc for o in turned(scenario, "icc", 0.2).outcomes} == {0.2}
    assert {o.d for o in turned(scenario, "d", 0.0).outcomes} == {0.0}
    assert [p.total for p in turned(scenario, "people", 2).people] == [696, 286]
    lost = turned(scenario, "follow_up", 0.5)
    assert lost.losses.follow_up is not None and set(lost.losses.follow_up.rate.values()) == {0.5}
    assert lost.losses.follow_up.drivers == scenario.losses.follow_up.drivers  # type: ignore[union-attr]
    assert turned(scenario, "sites_lost", 0.1).losses.sites == 0.1
    fewer = simulate(lost, seed=1).people["follow_up_done"].sum()
    assert fewer < simulate(scenario, seed=1).people["follow_up_done"].sum()


def test_wrong_knobs_are_refused() -> None:
    with pytest.raises(InputError, match="Did you mean 'sites'"):
        redesign(SMALL, {"site": [10]}, seed=1)
    with pytest.raises(InputError, match="names nothing"):
        redesign(SMALL, {}, seed=1)
    with pytest.raises(InputError, match="list of values"):
        redesign(SMALL, {"icc": []}, seed=1)
    with pytest.raises((DesignError, ValueError)):
        redesign(SMALL, {"icc": [1.5]}, seed=1)


def test_finished_chunks_are_kept_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = check(SMALL, trials=60, seed=9)
    made: list[int] = []
    chunk = work._chunk

    def breaking(index: int, *rest: object) -> object:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(index)
        return chunk(index, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "_chunk", breaking)
    with pytest.raises(KeyboardInterrupt):
        check(SMALL, trials=60, seed=9, store=tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == 2
    monkeypatch.setattr(work, "_chunk", chunk)
    again = check(SMALL, trials=60, seed=9, store=tmp_path)
    assert again.values.tobytes() == whole.values.tobytes()
    # nothing is left to do: an engine that cannot work is not asked
    monkeypatch.setattr(work, "_chunk", breaking)
    assert check(SMALL, trials=60, seed=9, store=tmp_path).values.tobytes() == whole.values.tobytes()


def test_a_grid_broken_off_goes_on_and_is_one_parquet_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = {"sites": [12, 20], "icc": [0.0, 0.2]}
    whole = redesign(SMALL, over, trials=30, seed=5)
    chunk, made = work._chunk, [0]

    def breaking(index: int, *rest: object) -> object:
        made[0] += 1
        if made[0] == 6:  # Ctrl-C in the third of four cells, each of two chunks
            raise KeyboardInterrupt
        return chunk(index, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "_chunk", breaking)
    with pytest.raises(KeyboardInterrupt):
        redesign(SMALL, over, trials=30, seed=5, store=tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == 5
    again = redesign(SMALL, over, trials=30, seed=5, store=tmp_path)
    assert made[0] == 6 + 3
    assert [r.values.tobytes() for r in again.results] == [r.values.tobytes() for r in whole.results]
    # the folder is one table, every answer of every cell, to any reader of Parquet
    table = pd.read_parquet(tmp_path)
    assert len(table) == 4 * 30 and table["scenario"].nunique() == 4
    assert sorted(table["estimate"]) == sorted(e for r in whole.results for e in r.estimates["estimate"])


def test_other_work_is_not_taken_for_this(tmp_path: Path) -> None:
    check(SMALL, trials=25, seed=9, store=tmp_path)
    other = turned(SMALL, "d", 0.0)
    assert check(other, trials=25, seed=9, store=tmp_path).values.tobytes() == check(other, trials=25, seed=9).values.tobytes()
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_failures_survive_the_disk(tmp_path: Path) -> None:
    nobody = turned(SMALL, "follow_up", 0.0)
    first = check(nobody, trials=3, seed=1, store=tmp_path)
    again = check(nobody, trials=3, seed=1, store=tmp_path)
    assert first.failures == again.failures and len(again.failures) == 3
