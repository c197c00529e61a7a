"""Bits do not depend on where the work runs; a killed worker costs its chunk and no more."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from trialkit.simulation import Scenario, check, work

SMALL = Scenario.from_text("""
[sites]
groups = [{name = "clinic", recruited = 16}]
[[people]]
role = "patient"
per_site = 6
cv = 0.3
minimum = 1
[[outcomes]]
name = "mood"
d = 0.4
icc = 0.08
""")


@pytest.mark.slow
def test_one_two_and_four_workers() -> None:
    serial = check(SMALL, trials=100, seed=4)
    for jobs in (2, 4):
        assert check(SMALL, trials=100, seed=4, jobs=jobs).values.tobytes() == serial.values.tobytes()


@pytest.mark.slow
def test_a_dask_cluster_of_two() -> None:
    distributed = pytest.importorskip("distributed")
    from joblib import parallel_config

    serial = check(SMALL, trials=100, seed=4)
    local = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True)
    with local as cluster, distributed.Client(cluster), parallel_config(backend="dask"):
        there = check(SMALL, trials=100, seed=4, jobs=None)
    assert there.values.tobytes() == serial.values.tobytes()


@pytest.mark.slow
def test_a_killed_worker_is_worked_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serial = check(SMALL, trials=100, seed=4)
    died = tmp_path / "died"
    chunk = work._chunk

    def dying(index: int, *rest: Any) -> Any:
        if index == 2 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return chunk(index, *rest)

    monkeypatch.setattr(work, "_chunk", dying)
    found = check(SMALL, trials=100, seed=4, jobs=2)
    assert died.exists()
    assert found.values.tobytes() == serial.values.tobytes()


@pytest.mark.slow
def test_workers_that_always_die_are_given_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(index: int, *rest: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(work, "_chunk", dying)
    with pytest.raises(Exception, match="terminated"):
        check(SMALL, trials=50, seed=4, jobs=2)
