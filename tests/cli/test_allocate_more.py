"""`trialkit allocate` beyond the plain course: where seeds come from, who may see what, what becomes of sites."""

from __future__ import annotations

import json
import os
import pty
import select
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from trialkit.allocation import Certificate, Log, amended, unblind
from trialkit.cli import main

SEED = "5a0c1e7f9b3d24866a1f0c2b7d9e4835"
# drand, quicknet, as published by the League of Entropy
PULSE = {
    "round": 1000,
    "randomness": "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd",
    "signature": "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39",
}
STORED = json.loads((Path(__file__).parent.parent / "reference" / "beacon_pulses.json").read_text(encoding="utf-8"))
SITES = """site,county,budget,staff
S01,yes,410000,9
S02,no,125000,4
S03,no,98000,3
S04,yes,395000,8
S05,no,2210000,31
S06,no,131000,5
S07,no,1990000,27
"""
DESIGN = """[[outcomes]]
name = "recovery"
[allocation]
odd = "single"
criteria = [{kind = "exact", column = "county"}, {kind = "nearest", column = "budget"}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sites.csv").write_text(SITES)
    (tmp_path / "trial.toml").write_text(DESIGN)
    (tmp_path / "pulse.json").write_text(json.dumps(PULSE))
    (tmp_path / "seed.txt").write_text(f"{SEED}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Runner:
    """Runs `trialkit allocate`; no run may end in a traceback."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, words: str, *more: str, code: int = 0) -> tuple[str, str]:
        found = main(["allocate", *words.split(), *more])
        out, err = self.capsys.readouterr()
        assert found == code, (out, err)
        assert "Traceback" not in out + err and "fault of its own" not in err
        return out, err

    def json(self, words: str, *more: str) -> dict[str, Any]:
        return json.loads(self(words, *more, "--json")[0])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], folder: Path) -> Runner:
    return Runner(capsys)


def plan(run: Runner, *more: str, name: str = "plan.json") -> dict[str, Any]:
    return run.json(f"plan sites.csv --design trial.toml -o {name}", *more)


@pytest.fixture
def drawn(run: Runner) -> Runner:
    plan(run)
    run("draw plan.json --seed-file seed.txt --seed-source dice -o a.json")
    return run


def mode(path: str) -> int:
    return Path(path).stat().st_mode & 0o777


# --- where the seed comes from ---


def test_a_draw_says_what_it_rests_on(run: Runner) -> None:
    locked = plan(run)
    found = run.json("draw plan.json --seed-file seed.txt --seed-source dice -o a.json --csv a.csv")
    assert found["arms"] == {"control": 4, "intervention": 3} or found["arms"] == {"control": 3, "intervention": 4}
    assert (found["plan_digest"], found["commitment"]) == (locked["digest"], locked["commitment"])
    assert found["anchored"] is False and "NOT ANCHORED" in found["anchor"] and found["attempts"] == 1
    assert found["log_head"] == Log("plan.json.log").read()[0]["sha256"]
    assert [mode(f) for f in ("a.json", "a.csv", "plan.json.log")] == [0o600] * 3


def test_a_short_seed_is_warned_of(run: Runner) -> None:
    plan(run)
    _, err = run("draw plan.json --seed 7 --seed-source dice -o a.json")
    assert err.count("\n") == 2 and "warning: a seed of 1 decimal digits is one of 10" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--seed-source dice", "There is no default seed"),
        ("--seed 1 --seed-file seed.txt --seed-source dice", "takes one seed, and 2 were given"),
        ("--seed-file none.txt --seed-source dice", "none.txt cannot be read"),
        ("--seed-file empty.txt --seed-source dice", "the seed is empty"),
        ("--seed-file binary.txt --seed-source dice", "not UTF-8"),
        ("--seed 12345", "the seed has no source"),
        ("--beacon none.json", "none.json cannot be read"),
        ("--beacon sites.csv", "not a JSON file of ours"),
        ("--beacon pulse.json --seed-source me", "belongs to a typed seed"),
        ("--reveal secrets.json", "the plan names no commitments"),
    ],
)
def test_seeds_that_cannot_be_one(run: Runner, folder: Path, words: str, says: str) -> None:
    (folder / "empty.txt").write_text("\n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe")
    (folder / "secrets.json").write_text('{"A": "x", "B": "y"}')
    plan(run)
    _, err = run(f"draw plan.json {words} -o a.json", code=2)
    assert says in err
    assert not (folder / "a.json").exists() and not (folder / "plan.json.log").exists()


def piece(terminal: int) -> bytes:
    """What the other side of a terminal says next; a minute of silence is a failure."""
    assert select.select([terminal], [], [], 60)[0], "nothing more was said"
    return os.read(terminal, 4096)


def test_a_seed_is_asked_for_at_a_terminal_and_not_shown(run: Runner, folder: Path) -> None:
    """A real terminal: the seed is typed twice, unseen; the source is asked for as well."""
    plan(run)
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - in the child
        os.execv(
            sys.executable, [sys.executable, "-c", "from trialkit.cli import main; main()", "allocate", "draw", "plan.json", "-o", "a.json"]
        )
    shown = b""
    try:
        for prompt, answer in ((b"Seed as published", SEED), (b"Once more", SEED), (b"Where it comes from", "two dice")):
            while prompt not in shown:
                shown += piece(terminal)
            # what is typed before the echo is off is thrown away
            while answer == SEED and termios.tcgetattr(terminal)[3] & termios.ECHO:
                time.sleep(0.01)
            os.write(terminal, f"{answer}\n".encode())
        while more := piece(terminal):
            shown += more
    except OSError:  # the terminal closes with the child
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    seed = Certificate.load("a.json").record["seed"]
    assert (seed["text"], seed["source"]) == (SEED, "two dice")
    assert SEED.encode() not in shown and b"two dice" in shown


def test_a_beacon_s_pulse_named_in_the_plan(run: Runner) -> None:
    (plain, err) = run("plan sites.csv --design trial.toml -o plan.json --seed-rule drand:1000")
    assert "published at 2023-08-23 15:59:24 UTC" in err and "Name one that lies ahead" in err
    commitment = plain.split("commitment")[1].split()[0]
    found = run.json("draw plan.json --beacon pulse.json -o a.json")
    assert found["anchored"] is True and found["anchor"].startswith(
        "drand quicknet round 1000, named in the plan; its hash and its signature hold"
    )
    assert run.json(f"verify a.json sites.csv --commitment {commitment}")["seed_anchored"] is True
    assert run.json("verify a.json sites.csv")["seed_anchored"] is False


def test_a_pulse_of_another_chain_and_a_nist_pulse_with_its_certificate(run: Runner, folder: Path) -> None:
    other = STORED["pulses"][1]
    (folder / "info.json").write_text(json.dumps(other["chain"]))
    (folder / "pulse.json").write_text(json.dumps(other["pulse"]))
    assert plan(run, "--seed-rule", "drand:38", "--chain", "info.json")["seed_rule"]["chain"] == other["chain"]["hash"]
    assert run.json("draw plan.json --beacon pulse.json -o a.json")["anchored"] is True  # the plan holds the chain's key
    (folder / "nist.json").write_text(json.dumps(STORED["nist"]))
    (folder / "nist.pem").write_text(STORED["nist_certificate"])
    run(f"plan sites.csv --design trial.toml -o b.json --seed-rule nist:1:{STORED['nist']['pulse']['timeStamp']}")
    _, err = run("draw b.json --beacon nist.json -o b-allocation.json", code=2)
    assert "its signature was not checked: the certificate that the pulse names was not given" in err
    assert run.json("draw b.json --beacon nist.json --beacon-certificate nist.pem -o b-allocation.json")["anchored"] is True
    for words, says in (
        (
            "plan sites.csv --design trial.toml -o c.json --seed-rule nist:2099-01-01T00:00:00.000Z --chain info.json",
            "names no round of one",
        ),
        ("plan sites.csv --design trial.toml -o c.json --chain info.json", "no rule for the seed was given"),
        ("plan sites.csv --design trial.toml -o c.json --seed-rule drand:quicknet:5 --chain info.json", "names a chain"),
        ("plan sites.csv --design trial.toml -o c.json --seed-rule drand:5 --chain pulse.json", "lacks its period"),
        ("draw plan.json --seed 5 --chain info.json -o c.json", "belong to a beacon's pulse"),
    ):
        assert says in run(words, code=2)[1]


def test_a_plan_that_named_its_seed_is_drawn_with_no_other(run: Runner, folder: Path) -> None:
    plan(run, "--seed-rule", "drand:quicknet:99000000")
    for words in ("--beacon pulse.json", "--seed-file seed.txt --seed-source dice"):
        _, err = run(f"draw plan.json {words} -o a.json", code=2)
        assert "the plan says its seed will be round 99000000 of the drand beacon quicknet" in err
    assert not (folder / "plan.json.log").exists()


def test_a_forged_pulse_is_found(run: Runner, folder: Path) -> None:
    plan(run, "--seed-rule", "drand:1000")
    (folder / "pulse.json").write_text(json.dumps({**PULSE, "randomness": "0" * 64}))
    _, err = run("draw plan.json --beacon pulse.json -o a.json", code=1)
    assert "not a true pulse" in err


def test_commit_then_reveal(run: Runner, folder: Path) -> None:
    digest = plan(run)["digest"]
    secrets = {"A. Investigator": "correct horse battery", "B. Statistician": "staple 9f8e7d6c5b4a"}
    commitments = {}
    for k, (who, secret) in enumerate(secrets.items()):
        (folder / f"{k}.txt").write_text(f"{secret}\n")
        commitments[who] = run(f"commit plan.json --secret-file {k}.txt --who", who)[0].strip()
    assert run.json("commit plan.json --secret-file 0.txt --who", "A. Investigator")["commitment"] == commitments["A. Investigator"]
    (folder / "commitments.json").write_text(json.dumps(commitments))
    assert plan(run, "--seed-rule", "reveal:commitments.json", "--force")["digest"] == digest
    (folder / "secrets.json").write_text(json.dumps({**secrets, "B. Statistician": "another secret altogether"}))
    _, err = run("draw plan.json --reveal secrets.json -o a.json", code=1)
    assert "the secret of B. Statistician does not fit the commitment" in err
    (folder / "secrets.json").write_text(json.dumps({"A. Investigator": secrets["A. Investigator"]}))
    assert (
        "the plan holds commitments of A. Investigator, B. Statistician" in run("draw plan.json --reveal secrets.json -o a.json", code=2)[1]
    )
    (folder / "secrets.json").write_text(json.dumps(secrets))
    found = run.json("draw plan.json --reveal secrets.json -o a.json")
    assert found["anchored"] is True and "A. Investigator and B. Statistician" in found["anchor"]
    _, err = run("commit plan.json --who A", code=2)
    assert "--secret-file" in err


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("drand:soon", "write drand:ROUND"),
        ("drand:0", "no round of the drand beacon"),
        ("drand:quiknet:5", "Did you mean 'quicknet'"),
        ("nist:yesterday", "write nist:TIME"),
        ("nist:2026-09-01T12:00:30.000Z", "a whole minute in UTC"),
        ("nist:2026-13-01T12:00:00.000Z", "is no time"),
        ("drnd:1000", "Did you mean 'drand'"),
        ("reveal:none.json", "none.json cannot be read"),
        ("reveal:trial.toml", "not a JSON file"),
        ("reveal:pulse.json", "each party and its commitment"),
        (" ", "is empty"),
    ],
)
def test_rules_that_name_nothing(run: Runner, folder: Path, rule: str, says: str) -> None:
    _, err = run("plan sites.csv --design trial.toml -o plan.json --seed-rule", rule, code=2)
    assert says in err and not (folder / "plan.json").exists()


def test_rules_in_words_and_of_the_future(run: Runner) -> None:
    assert (
        plan(run, "--seed-rule", "dice thrown by two people outside: 50 rolls")["seed_rule"]
        == "dice thrown by two people outside: 50 rolls"
    )
    _, err = run("plan sites.csv --design trial.toml -o b.json --seed-rule nist:2099-01-01T00:00:00.000Z")
    assert "The seed: the NIST beacon's pulse of 2099-01-01T00:00:00.000Z, chain 2, published at 2099-01-01 00:00:00 UTC." in err


def test_a_drawn_plan_is_kept_whatever_is_forced(drawn: Runner, folder: Path) -> None:
    before = (folder / "plan.json").read_bytes()
    (folder / "trial.toml").write_text(DESIGN.replace('kind = "nearest", column = "budget"', 'kind = "nearest", column = "staff"'))
    _, err = drawn("plan sites.csv --design trial.toml -o plan.json --force", code=3)
    assert "has been drawn" in err and (folder / "plan.json").read_bytes() == before


# --- who may see what ---


def test_export_codes_the_arms_and_keeps_the_key_apart(drawn: Runner, folder: Path) -> None:
    import pandas as pd

    found = drawn.json("export a.json -o blinded.csv --key key.json")
    assert found == {"table": "blinded.csv", "key": "key.json", "sites": 7}
    assert [mode(f) for f in ("blinded.csv", "key.json")] == [0o600] * 2
    assert "control" not in (folder / "blinded.csv").read_text()
    frame = pd.read_csv("blinded.csv", dtype="str")
    named = unblind(frame, "key.json")
    assert dict(zip(named["site"], named["arm"], strict=True)) == Certificate.load("a.json").arms
    for words in ("-o blinded.csv --key other.json", "-o other.csv --key key.json"):
        _, err = drawn(f"export a.json {words}", code=3)
        assert "exists already" in err
    assert not (folder / "other.json").exists() and not (folder / "other.csv").exists()


def test_release_tells_one_site_and_logs_it_first(drawn: Runner, folder: Path) -> None:
    out, err = drawn("release a.json S05 --log plan.json.log --to", "A. Recruiter")
    assert (out.strip(), err) == (Certificate.load("a.json").arms["S05"], "")
    line = Log("plan.json.log").read()[-1]
    assert (line["event"], line["site"], line["to"]) == ("released", "S05", "A. Recruiter")
    assert "Did you mean" in drawn("release a.json S5 --to x --log plan.json.log", code=2)[1]
    assert "no such log" in drawn("release a.json S05 --to x --log plan.log", code=2)[1]
    assert not (folder / "plan.log").exists()
    # another plan's log
    plan(drawn, name="other.json")
    (folder / "x.json.log").write_text("")
    assert "does not hold the line" in drawn("release a.json S05 --to x --log x.json.log", code=1)[1]


def test_a_changed_certificate_is_not_acted_on(drawn: Runner, folder: Path) -> None:
    text = (folder / "a.json").read_text()
    arm = Certificate.load("a.json").arms["S05"]
    other = "control" if arm == "intervention" else "intervention"
    (folder / "a.json").write_text(text.replace(f'"S05", "{arm}"', f'"S05", "{other}"'))
    for words in (
        "release a.json S05 --to x --log plan.json.log",
        "export a.json -o b.csv --key k.json",
        "amend a.json S05 --kind withdrawn --reason r --by b --log plan.json.log",
        "status a.json --log plan.json.log",
    ):
        assert "changed after it was written" in drawn(words, code=1)[1]
    assert [line["event"] for line in Log("plan.json.log").read()] == ["attempt", "drawn"]


# --- what becomes of sites ---


def test_amendments_are_chained_and_shown(drawn: Runner, folder: Path) -> None:
    before = (folder / "a.json").read_bytes()
    out, _ = drawn("amend a.json S03 --kind withdrawn --by committee --log plan.json.log --reason", "closed in March")
    assert out.split()[-1] == Log("plan.json.log").head
    found = drawn.json("amend a.json S04 --kind replaced --replacement S99 --reason merged --by committee --log plan.json.log")
    assert found["entry"]["previous"] == out.split()[-1] and found["log_head"] == Log("plan.json.log").head
    sites = {row["site"]: row for row in drawn.json("status a.json --log plan.json.log")["sites"]}
    assert (sites["S03"]["status"], sites["S03"]["reason"]) == ("withdrawn", "closed in March")
    assert sites["S04"]["status"] == "replaced by S99" and sites["S99"]["arm"] == sites["S04"]["arm"]
    out, _ = drawn("status a.json --log plan.json.log")
    assert out.startswith("8 sites: 5 allocated") and (folder / "a.json").read_bytes() == before
    head = found["log_head"]
    found = drawn.json("verify a.json sites.csv --log plan.json.log --head", head)
    assert ["amendments", "2 after the draw: S03 withdrawn; S04 replaced by S99"] in found["checks"]
    assert len(amended("a.json", "plan.json.log")) == 8
    for words, code, says in (
        ("S03 --kind withdrawn --reason r --by b", 3, "withdrawn already"),
        ("S02 --kind moved --reason r --by b", 2, "unknown kind of amendment"),
        ("S02 --kind replaced --reason r --by b", 2, "needs replacement="),
        ("S2 --kind withdrawn --reason r --by b", 2, "not in this allocation"),
    ):
        assert says in drawn(f"amend a.json {words} --log plan.json.log", code=code)[1]
    # a tail cut off behind everybody's back shows beside a head kept elsewhere
    lines = (folder / "plan.json.log").read_bytes().splitlines(keepends=True)
    (folder / "plan.json.log").write_bytes(b"".join(lines[:-1]))
    assert "its end was cut off" in drawn("verify a.json sites.csv --log plan.json.log --head", head, code=1)[1]


def test_attempts_stand_in_certificate_and_log(drawn: Runner, folder: Path) -> None:
    drawn("draw plan.json --seed-file seed.txt --seed-source dice -o b.json", code=3)
    found = drawn.json("verify a.json sites.csv --log plan.json.log")
    assert found["attempts"] == 1 and ["log", "3 lines, unbroken chain; 2 attempt(s) at a draw on this plan"] in found["checks"]
    # a forger who seals the certificate anew with another number of attempts is met by the log
    from trialkit.allocation import canonical

    record = json.loads((folder / "a.json").read_text())
    (folder / "a.json").write_text(canonical.dumps(canonical.sealed({**record, "attempts": 2})))
    assert "says it came of attempt 2, the log counts 1" in drawn("verify a.json sites.csv --log plan.json.log", code=1)[1]


# --- the design's rules ---


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ('"single"', ("singles", 1)),
        ('"reserve"', ("reserve", 1)),
        ('"trio"', ("trios", 1)),
        ('"S05"', ("reserve", ["S05"])),
        ('["S05"]', ("reserve", ["S05"])),
    ],
)
def test_odd_rules_of_the_design(run: Runner, folder: Path, odd: str, expected: tuple[str, Any]) -> None:
    (folder / "trial.toml").write_text(DESIGN.replace('"single"', odd))
    found = plan(run)
    what, wanted = expected
    assert (found[what] == wanted) if isinstance(wanted, list) else len(found[what]) == wanted
    run("draw plan.json --seed-file seed.txt --seed-source dice -o a.json")
    run("verify a.json sites.csv")


def test_an_odd_count_without_a_rule_names_the_choices(run: Runner, folder: Path) -> None:
    (folder / "trial.toml").write_text(DESIGN.replace('odd = "single"\n', ""))
    _, err = run("plan sites.csv --design trial.toml -o plan.json", code=2)
    assert "5 sites with county = no cannot all be paired" in err and 'odd="trio"' in err


def test_the_second_reading_of_the_trial_s_sentence(run: Runner, folder: Path) -> None:
    (folder / "trial.toml").write_text(DESIGN.replace('odd = "single"', 'odd = "single"\nmethod = "sequential-nearest"'))
    out, _ = run("plan sites.csv --design trial.toml -o plan.json")
    assert "not proved least: sequential-nearest takes the closest pair" in out
    run("draw plan.json --seed-file seed.txt --seed-source dice -o a.json")
    assert any("no proof claimed" in found for _, found in run.json("verify a.json sites.csv")["checks"])


def test_a_mahalanobis_distance_of_the_design(run: Runner, folder: Path) -> None:
    (folder / "trial.toml").write_text(
        DESIGN.replace('{kind = "nearest", column = "budget"}', '{kind = "mahalanobis", columns = ["budget", "staff"], weights = [2, 1]}')
    )
    out, _ = run("plan sites.csv --design trial.toml -o plan.json")
    assert "mahalanobis mahalanobis(budget, staff): total distance" in out and "proved least" in out
    run("draw plan.json --seed-file seed.txt --seed-source dice -o a.json")
    run("verify a.json sites.csv")
