"""One draw a plan: logged before it is shown, never torn, never twice, whoever asks and whatever is pulled out."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trialkit.allocation import Certificate, Log, ShortSeedWarning, draw_once, log_path, verify
from trialkit.door import InputError, Refused, TrialkitError, VerificationError, WriteError

from .conftest import SEED, SOURCE

OTHER = SEED[::-1]


def in_child(work: Callable[[], int]) -> int:
    """Run in a forked process; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def draw_code(plan_path: Path, out: Path, seed: str = SEED) -> int:
    try:
        draw_once(plan_path, out, seed=seed, seed_source=SOURCE)
    except TrialkitError as error:
        return error.exit_code
    return 0


# --- the ordinary course ---


def test_the_attempt_is_logged_before_the_result(plan_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    save = Certificate.save

    def spy(self: Certificate, path: Any) -> None:
        seen.append(log_path(plan_path).read_text())
        save(self, path)

    monkeypatch.setattr(Certificate, "save", spy)
    allocation = draw_once(plan_path, tmp_path / "a.json", seed=SEED, seed_source=SOURCE, csv_path=tmp_path / "a.csv")
    assert json.loads(seen[0])["event"] == "attempt"
    assert SEED not in log_path(plan_path).read_text()
    lines = Log(log_path(plan_path)).read()
    assert [line["event"] for line in lines] == ["attempt", "drawn"]
    assert lines[1]["certificate"] == Certificate.load(tmp_path / "a.json").digest
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "site,pair,arm"
    for name in ("a.json", "a.csv", "plan.json.log"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert allocation.attempts == 1 and "Attempts at a draw on this plan: 1." in allocation.notes


def test_a_second_draw_is_refused_counted_and_changes_nothing(plan_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    draw_once(plan_path, out, seed=SEED, seed_source=SOURCE)
    before = out.read_bytes()
    for number, (name, seed) in enumerate([("a.json", SEED), ("b.json", SEED), ("c.json", OTHER)], start=2):
        with pytest.raises(Refused, match=rf"drawn once.*attempt {number}"):
            draw_once(plan_path, tmp_path / name, seed=seed, seed_source=SOURCE)
    assert out.read_bytes() == before and not (tmp_path / "b.json").exists()
    assert [line["event"] for line in Log(log_path(plan_path)).read()] == ["attempt", "drawn", "refused", "refused", "refused"]


def test_no_seed_no_log(plan_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no seed"):
        draw_once(plan_path, tmp_path / "a.json", seed=None, seed_source=SOURCE)
    assert not log_path(plan_path).exists()


def test_an_existing_file_is_never_written_over(plan_path: Path, tmp_path: Path) -> None:
    for name, csv in (("a.json", None), ("fresh.json", tmp_path / "a.json")):
        (tmp_path / "a.json").write_text("mine")
        with pytest.raises(Refused, match="never overwritten"):
            draw_once(plan_path, tmp_path / name, seed=SEED, seed_source=SOURCE, csv_path=csv)
        assert (tmp_path / "a.json").read_text() == "mine" and not (tmp_path / "fresh.json").exists()


def test_a_folder_that_is_not_there(plan_path: Path, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="does not exist"):
        draw_once(plan_path, tmp_path / "none" / "a.json", seed=SEED, seed_source=SOURCE)
    assert not log_path(plan_path).exists()


def test_a_short_seed_warns_here_too(plan_path: Path, tmp_path: Path) -> None:
    with pytest.warns(ShortSeedWarning) as caught:
        draw_once(plan_path, tmp_path / "a.json", seed=7, seed_source=SOURCE)
    assert caught[0].filename == __file__


# --- stopped half-way ---


def calls_of_a_draw(plan_path: Path, out: Path) -> int:
    """How many times a draw asks the system to change something."""
    count = 0
    real = {name: getattr(os, name) for name in CHANGES}

    def counting(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            return real[name](*args, **kwargs)

        return call

    for name in CHANGES:
        setattr(os, name, counting(name))
    try:
        draw_once(plan_path, out, seed=SEED, seed_source=SOURCE)
    finally:
        for name, function in real.items():
            setattr(os, name, function)
    return count


CHANGES = ("open", "write", "fsync", "link")


def killed_at(plan_path: Path, out: Path, k: int, *, after: bool) -> int:
    """Draw in a child that kills itself at its k-th change: before it, after it, or half-way through a write."""

    def work() -> int:
        count = 0
        real = {name: getattr(os, name) for name in CHANGES}

        def watched(name: str) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == k:
                    if after:
                        real[name](*args, **kwargs)
                    elif name == "write":
                        real[name](args[0], args[1][: len(args[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                return real[name](*args, **kwargs)

            return call

        for name in CHANGES:
            setattr(os, name, watched(name))
        return draw_code(plan_path, out)

    return in_child(work)


def intact_and_finished(plan_path: Path, out: Path, sites_csv: Path) -> None:
    """What must hold after any stop: nothing torn, another seed refused once begun, the same seed completes it."""
    if out.exists():
        verify(out, sites_csv)
    code = draw_code(plan_path, out)
    assert code in (0, 3) and out.exists()
    found = verify(out, sites_csv, log=log_path(plan_path))
    assert found.sites == 11
    lines = Log(log_path(plan_path)).read()
    assert [line["event"] for line in lines].count("drawn") == 1
    assert list(out.parent.glob(".allocation*")) == []
    assert draw_code(plan_path, out.with_name("second.json"), seed=OTHER) == 3


def test_killed_at_any_change_nothing_is_torn(plan_path: Path, tmp_path: Path, sites_csv: Path) -> None:
    plan_bytes = plan_path.read_bytes()
    n = calls_of_a_draw(plan_path, tmp_path / "count.json")
    assert n >= 8
    for k in range(1, n + 1):
        for after in (False, True):
            folder = tmp_path / f"{k}-{after}"
            folder.mkdir()
            (folder / "plan.json").write_bytes(plan_bytes)
            assert killed_at(folder / "plan.json", folder / "allocation.json", k, after=after) == -signal.SIGKILL
            intact_and_finished(folder / "plan.json", folder / "allocation.json", sites_csv)


@pytest.mark.slow
def test_killed_at_200_moments_nothing_is_torn(plan_path: Path, tmp_path: Path, sites_csv: Path) -> None:
    plan_bytes = plan_path.read_bytes()
    moments = random.Random(20260901)
    hit = 0
    for k in range(200):
        folder = tmp_path / str(k)
        folder.mkdir()
        (folder / "plan.json").write_bytes(plan_bytes)
        child = os.fork()
        if child == 0:
            os._exit(draw_code(folder / "plan.json", folder / "allocation.json"))
        time.sleep(moments.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        hit += os.WIFSIGNALED(status)
        intact_and_finished(folder / "plan.json", folder / "allocation.json", sites_csv)
    assert hit >= 50  # otherwise the moments were badly chosen


def test_a_begun_draw_keeps_its_seed(plan_path: Path, tmp_path: Path) -> None:
    """Stopped after the attempt was logged: another seed is refused, or one could stop until the result pleases."""
    k = 1
    while True:
        assert killed_at(plan_path, tmp_path / "a.json", k, after=True) == -signal.SIGKILL
        if log_path(plan_path).exists() and b'"attempt"' in log_path(plan_path).read_bytes().split(b"\n")[0]:
            break
        k += 1
    assert draw_code(plan_path, tmp_path / "b.json", seed=OTHER) == 3
    assert draw_code(plan_path, tmp_path / "c.json") == 0
    assert Certificate.load(tmp_path / "c.json").record["attempts"] == 3


# --- several at once ---


def round_of_eight(plan_path: Path, folder: Path) -> list[int]:
    ready, go = os.pipe()
    children = []
    for k in range(8):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(ready, 1)  # all start together, when the pipe is closed
            os._exit(draw_code(plan_path, folder / f"{k}.json", seed=f"{k}{SEED}"))
        children.append(child)
    os.close(ready)
    os.close(go)
    return sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


@pytest.mark.parametrize("rounds", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_of_eight_at_once_exactly_one_wins(plan_path: Path, tmp_path: Path, sites_csv: Path, rounds: int) -> None:
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "plan.json").write_bytes(plan_path.read_bytes())
        assert round_of_eight(folder / "plan.json", folder) == [0] + [3] * 7
        (winner,) = list(folder.glob("?.json"))
        assert verify(winner, sites_csv, log=folder / "plan.json.log").sites == 11
        assert [line["event"] for line in Log(folder / "plan.json.log").read()].count("refused") == 7


# --- a full disk ---


@pytest.mark.parametrize("limit", [0, 1, 50, 100, 300, 600, 1000, 2000, 4000, 6000])
def test_no_room_leaves_all_as_it_was(plan_path: Path, tmp_path: Path, limit: int) -> None:
    """Ten limits on the size of a file: the draw ends with code 4, and what was there stays byte for byte."""
    out = tmp_path / "allocation.json"

    def work() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return draw_code(plan_path, out)

    before = plan_path.read_bytes()
    assert in_child(work) == 4
    assert plan_path.read_bytes() == before and not out.exists() and list(tmp_path.glob(".*")) == []
    if log_path(plan_path).exists():
        Log(log_path(plan_path)).read()
    assert draw_code(plan_path, out) == 0


# --- the log ---


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_any_change_of_the_log_is_found(plan_path: Path, tmp_path: Path, step: int) -> None:
    draw_once(plan_path, tmp_path / "a.json", seed=SEED, seed_source=SOURCE)
    with pytest.raises(Refused):
        draw_once(plan_path, tmp_path / "a.json", seed=SEED, seed_source=SOURCE)
    path = log_path(plan_path)
    original = path.read_bytes()
    for k in range(0, len(original), step):
        for flip in (1, 2, 0x20):
            changed = bytearray(original)
            changed[k] ^= flip
            path.write_bytes(bytes(changed))
            with pytest.raises(VerificationError):
                Log(path).read()
    lines = original.splitlines(keepends=True)
    for bad in (lines[1:], [lines[0], lines[2]], [lines[1], lines[0], lines[2]], [lines[0], *lines], [*lines, b"{}\n"], [*lines, b"\n"]):
        path.write_bytes(b"".join(bad))
        with pytest.raises(VerificationError):
            Log(path).read()
        assert draw_code(plan_path, tmp_path / "b.json") == 1
    # the one thing a file alone cannot show: its end cut off. A head kept elsewhere does
    path.write_bytes(b"".join(lines[:2]))
    assert len(Log(path).read()) == 2
    with pytest.raises(InputError, match="no such log"):
        Log(tmp_path / "none.log").read()


def test_a_half_line_is_mended_in_the_open(plan_path: Path, tmp_path: Path) -> None:
    log_path(plan_path).write_bytes(b'{"n":1,"at":"20')
    with pytest.raises(VerificationError, match="middle of a line"):
        Log(log_path(plan_path)).read()
    draw_once(plan_path, tmp_path / "a.json", seed=SEED, seed_source=SOURCE)
    lines = Log(log_path(plan_path)).read()
    assert [line["event"] for line in lines] == ["mended", "attempt", "drawn"] and lines[0]["torn_bytes"] == 15


def test_a_tampered_plan_is_not_drawn(plan_path: Path, tmp_path: Path) -> None:
    plan_path.write_text(plan_path.read_text().replace("410000", "410001"))
    assert draw_code(plan_path, tmp_path / "a.json") == 1
    assert not log_path(plan_path).exists()
