"""The certificate: whole, complete, derived again without the solver; every changed byte shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from trialkit import door
from trialkit.allocation import (
    Allocation,
    Certificate,
    Log,
    Pairing,
    Plan,
    WithinPairs,
    canonical,
    draw_once,
    match_pairs,
    nearest,
    verify,
    within_pairs,
)
from trialkit.allocation import recheck as rechecking
from trialkit.door import InputError, Refused, TrialkitError, VerificationError

from .conftest import SEED, SOURCE, pairing_of


@pytest.fixture
def drawn(plan: WithinPairs) -> Allocation:
    return plan.draw(seed=SEED, seed_source=SOURCE)


@pytest.fixture
def certificate_path(drawn: Allocation, tmp_path: Path) -> Path:
    path = tmp_path / "allocation.json"
    drawn.certificate.save(path)
    return path


def reseal(record: dict[str, Any]) -> dict[str, Any]:
    """What a forger does: change, then rebuild the outer digest."""
    return canonical.sealed(record)


# --- what it is ---


def test_it_is_whole_private_and_never_overwritten(certificate_path: Path, drawn: Allocation) -> None:
    before = certificate_path.read_bytes()
    assert certificate_path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refused):
        drawn.certificate.save(certificate_path)
    assert certificate_path.read_bytes() == before
    assert [p.name for p in certificate_path.parent.glob("*.tmp")] == []
    loaded = Certificate.load(certificate_path)
    assert loaded.to_dict() == drawn.certificate.to_dict() and loaded.layout_intact
    assert loaded.plan_digest == drawn.plan.digest and loaded.id_column == "site"


def test_it_holds_all_that_is_needed(drawn: Allocation, plan: WithinPairs, sites_csv: Path) -> None:
    record = drawn.certificate.to_dict()
    assert record["plan"]["text"] == plan.text and record["plan"]["digest"] == plan.digest
    assert record["plan"]["sites"]["raw_sha256"] == door.sha256_file(sites_csv)
    assert record["plan"]["sites"]["file"] == "sites.csv"
    assert record["plan"]["matching"]["optimality"]["checked"] is True
    assert record["plan"]["matching"]["odd"] == "single"
    assert record["seed"]["text"] == SEED and record["seed"]["source"] == SOURCE
    assert len(record["draws"]) == 6 and all(len(d[3]) == 64 for d in record["draws"])
    assert dict(record["arms"]) == drawn.arms
    assert [row["covariate"] for row in record["balance"]] == ["county", "budget", "staff", "youth"]
    assert record["versions"]["trialkit"] and record["drawn_at"].endswith("Z") and len(record["source_sha256"]) == 64


def test_verify_derives_it_again_without_the_solver(
    certificate_path: Path, sites_csv: Path, plan: WithinPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_solver(*_: Any, **__: Any) -> None:
        raise AssertionError("verify called the solver")

    monkeypatch.setattr("trialkit.allocation.matching.perfect_matching", no_solver)
    monkeypatch.setattr("trialkit._kernels.matching.perfect_matching", no_solver)
    found = verify(certificate_path, sites_csv)
    assert not found.anchored and "self-consistent, not anchored" in found.title
    assert any("Self-consistent" in note for note in found.notes)
    for commitment in (plan.digest, plan.commitment, f"  {plan.digest.upper()}\n"):
        assert verify(certificate_path, sites_csv, commitment=commitment).anchored
    with pytest.raises(VerificationError, match="another plan than the one published"):
        verify(certificate_path, sites_csv, commitment="0" * 64)
    assert "dual certificate holds" in str(found)
    json.dumps(found.to_dict())


def test_row_and_column_order_do_not_matter(drawn: Allocation, sites: pd.DataFrame) -> None:
    for state in range(3):
        shuffled = sites.sample(frac=1, random_state=state)[list(reversed(sites.columns))]
        again = within_pairs(pairing_of(shuffled))
        assert again.digest == drawn.plan.digest and again.commitment == drawn.plan.commitment
        assert again.drawn(drawn.seed).arms == drawn.arms
        assert verify(drawn.certificate, shuffled).sites == 11
        assert again.drawn(drawn.seed).frame["site"].tolist() == shuffled["site"].tolist()


def test_certificate_given_as_object_mapping_or_path(drawn: Allocation, certificate_path: Path, sites: pd.DataFrame) -> None:
    for given in (drawn.certificate, drawn.certificate.to_dict(), certificate_path, str(certificate_path)):
        assert verify(given, sites).sites == 11
    with pytest.raises(VerificationError, match="not an allocation certificate"):
        verify({"schema": "x"}, sites)


# --- the sites ---


def test_the_first_site_that_differs_is_named(drawn: Allocation, sites: pd.DataFrame) -> None:
    changed = sites.copy()
    changed.loc[changed["site"] == "S05", "budget"] += 0.01
    changed.loc[changed["site"] == "S09", "staff"] += 1
    with pytest.raises(
        VerificationError, match=r"site S05, column 'budget': the certificate says '2210000', the sites table says '2210000.01'"
    ):
        verify(drawn.certificate, changed)
    with pytest.raises(VerificationError, match="site S04 is in the certificate and not in the sites table"):
        verify(drawn.certificate, sites[sites["site"] != "S04"])
    more = pd.concat([sites, sites.iloc[[0]].assign(site="S99")])
    with pytest.raises(VerificationError, match="site S99 is in the sites table and not in the certificate"):
        verify(drawn.certificate, more)
    with pytest.raises(InputError, match="no column 'budget'"):
        verify(drawn.certificate, sites.drop(columns="budget"))


def test_a_change_where_the_allocation_does_not_look_is_reported_as_void(certificate_path: Path, sites_csv: Path) -> None:
    sites_csv.write_text(sites_csv.read_text().replace("Arcadia", "Azusa"))
    found = verify(certificate_path, sites_csv)
    assert any("differs only where the allocation does not look" in note for note in found.notes)


def every_byte_of_the_sites(certificate_path: Path, sites_csv: Path, step: int, offset: int = 0) -> None:
    original = sites_csv.read_bytes()
    for k in range(offset, len(original), step):
        for flip in (1, 2, 0x20):
            changed = bytearray(original)
            changed[k] ^= flip
            sites_csv.write_bytes(bytes(changed))
            try:
                found = verify(certificate_path, sites_csv)
            except TrialkitError:
                continue
            assert any("not byte for byte" in note for note in found.notes), (k, flip)
    sites_csv.write_bytes(original)


def test_single_bytes_of_the_sites(certificate_path: Path, sites_csv: Path) -> None:
    every_byte_of_the_sites(certificate_path, sites_csv, step=9)


# --- the certificate's bytes ---


def tampered_bytes(certificate_path: Path, sites: pd.DataFrame, step: int, flips: tuple[int, ...]) -> None:
    original = certificate_path.read_bytes()
    for k in range(0, len(original), step):
        for flip in flips:
            changed = bytearray(original)
            changed[k] ^= flip
            certificate_path.write_bytes(bytes(changed))
            try:
                found = verify(certificate_path, sites)
            except TrialkitError:
                continue
            assert any("No meaning is lost" in note for note in found.notes), (k, flip, original[max(0, k - 40) : k + 40])
    certificate_path.write_bytes(original)


def test_single_bytes_of_the_certificate(certificate_path: Path, sites: pd.DataFrame) -> None:
    tampered_bytes(certificate_path, sites, step=53, flips=(1,))


@pytest.mark.slow
def test_every_single_byte_of_certificate_and_sites(certificate_path: Path, sites: pd.DataFrame, sites_csv: Path) -> None:
    tampered_bytes(certificate_path, sites, step=1, flips=(1, 2, 0x20))
    every_byte_of_the_sites(certificate_path, sites_csv, step=1)


def test_white_space_has_no_meaning_and_is_reported(certificate_path: Path, sites: pd.DataFrame) -> None:
    certificate_path.write_text(json.dumps(json.loads(certificate_path.read_text()), indent=8), encoding="utf-8")
    found = verify(certificate_path, sites)
    assert any("layout" in note for note in found.notes)


def test_json_traps_are_refused(certificate_path: Path, sites: pd.DataFrame) -> None:
    text = certificate_path.read_text()
    for bad in (
        text.replace('"schema"', '"drawn_at": "2001-01-01T00:00:00Z",\n "schema"', 1),  # a key twice: readers keep the last
        text.replace('"attempts": null', '"attempts": NaN'),
        text.replace('"attempts": null', '"attempts": 1e999'),
        text[: len(text) // 2],
        "[]",
        "",
    ):
        certificate_path.write_text(bad)
        with pytest.raises(InputError):
            verify(certificate_path, sites)
    certificate_path.write_bytes(b"\xff" + text.encode())
    with pytest.raises(InputError, match="UTF-8"):
        verify(certificate_path, sites)
    with pytest.raises(InputError, match="no such file"):
        Certificate.load(certificate_path.with_name("none.json"))


# --- forgers who rebuild the outer digest ---


def test_a_swapped_pair_with_a_rebuilt_digest_names_the_site(drawn: Allocation, sites: pd.DataFrame) -> None:
    record = drawn.certificate.to_dict()
    arms = dict(record["arms"])
    a, b = drawn.plan.blocks[1]
    arms[a], arms[b] = arms[b], arms[a]
    record["arms"] = [[s, arms[s]] for s, _ in record["arms"]]
    with pytest.raises(VerificationError, match=f"site {min(a, b)}: the draw gives"):
        verify(reseal(record), sites)


def test_another_seed_with_a_rebuilt_digest_is_found(drawn: Allocation, sites: pd.DataFrame) -> None:
    record = drawn.certificate.to_dict()
    record["seed"]["text"] = SEED[::-1]
    with pytest.raises(VerificationError, match=r"site S\d+: under this seed and plan its hash is"):
        verify(reseal(record), sites)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("draws", 0, 3), "0" * 64),
        (("draws", 0, 4), 5),
        (("plan", "digest"), "0" * 64),
        (("plan", "commitment"), "0" * 64),
        (("plan", "text"), "trialkit-plan-1\nS01\tS02\n"),
        (("plan", "arms"), ["intervention", "control"]),
        (("plan", "scheme"), "simple"),
        (("plan", "scheme"), "none"),
        (("plan", "labels"), []),
        (("plan", "sites", "cells", 0, 2), "1"),
        (("plan", "sites", "canonical_sha256"), "0" * 64),
        (("plan", "matching", "costs"), ["0", "1", "2", "3"]),
        (("plan", "matching", "pairs"), []),
        (("plan", "matching", "optimality", "strata", 0, "y", 0, 0), 10**9),
        (("plan", "matching", "criteria", 1, "column"), "staff"),
        (("plan", "rows", 0), "S99"),
        (("plan", "seed_rule"), "another"),
        (("seed", "source"), ""),
        (("seed", "kind"), "drand"),
        (("seed", "anchored"), True),
        (("seed", "anchor"), "signed by the King"),
        (("balance", 0, "std_difference"), 0.0),
        (("balance", 1, "quantile"), 0.5),
        (("balance",), []),
        (("arms",), []),
        (("draws",), []),
        (("seed",), None),
        (("plan",), None),
    ],
    ids=str,
)
def test_any_entry_that_matters_is_derived_again(drawn: Allocation, sites: pd.DataFrame, path: tuple[Any, ...], value: Any) -> None:
    """Rebuilding the outer digest does not help: the entry itself does not follow."""
    record = drawn.certificate.to_dict()
    place: Any = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(TrialkitError):
        verify(reseal(record), sites)


def test_a_forged_whole_is_caught_by_the_commitment(plan: WithinPairs, sites: pd.DataFrame) -> None:
    """Everything rebuilt for edited sites is consistent with itself; only what was published before can tell."""
    edited = sites.copy()
    edited.loc[edited["site"] == "S08", "budget"] = 100_000.0
    forged = within_pairs(pairing_of(edited)).draw(seed=SEED, seed_source=SOURCE)
    assert verify(forged.certificate, edited).anchored is False
    with pytest.raises(VerificationError, match="another plan"):
        verify(forged.certificate, edited, commitment=plan.digest)


def test_renamed_arms_are_bound_by_the_longer_commitment(pairing: Any, sites: pd.DataFrame) -> None:
    right = within_pairs(pairing, arms=("usual", "training"))
    swapped = within_pairs(pairing, arms=("training", "usual"))
    assert right.digest == swapped.digest and right.commitment != swapped.commitment
    certificate = swapped.draw(seed=SEED, seed_source=SOURCE).certificate
    with pytest.raises(VerificationError):
        verify(certificate, sites, commitment=right.commitment)
    assert any("longer commitment" in note for note in verify(certificate, sites, commitment=right.digest).notes)


def test_the_matching_is_checked_through_its_dual(drawn: Allocation, sites: pd.DataFrame) -> None:
    """Two pairs crossed in plan and matching alike: consistent, but not optimal, and the certificate says so."""
    record = drawn.certificate.to_dict()
    (a, b), (c, d) = [p for p in record["plan"]["matching"]["pairs"] if sites.set_index("site").loc[p[0], "county"] == "no"][:2]
    with pytest.raises(VerificationError):
        stored = json.loads(json.dumps(record["plan"]["matching"]))
        stored["pairs"] = sorted([p for p in stored["pairs"] if p not in ([a, b], [c, d])] + [sorted([a, c]), sorted([b, d])])
        rechecking.check_pairing(stored, sites)


# --- plan files ---


def test_plan_files_are_locked(plan: WithinPairs, plan_path: Path) -> None:
    again = Plan.load(plan_path)
    assert isinstance(again, WithinPairs)
    assert (again.digest, again.commitment, again.text, again.labels, again.rows) == (
        plan.digest,
        plan.commitment,
        plan.text,
        plan.labels,
        plan.rows,
    )
    with pytest.raises(Refused):
        plan.save(plan_path)
    plan.save(plan_path, force=True)
    text = plan_path.read_text(encoding="utf-8")
    crossed = text.replace(r"S03\tS10", r"S03\tS06")
    assert crossed != text
    for bad in (
        crossed,
        text.replace(plan.digest, "0" * 64),
        text.replace('["control", "intervention"]', '["intervention", "control"]'),
        text.replace("410000", "410001"),
        text.replace('"missing": "refuse"', '"missing": "own-level"'),
    ):
        assert bad != text
        plan_path.write_text(bad, encoding="utf-8")
        with pytest.raises(VerificationError):
            Plan.load(plan_path)
    plan_path.write_text('{"schema": "x"}')
    with pytest.raises(InputError, match="not a plan file"):
        Plan.load(plan_path)


def test_single_bytes_of_the_plan(plan_path: Path, plan: WithinPairs) -> None:
    original = plan_path.read_bytes()
    for k in range(0, len(original), 41):
        changed = bytearray(original)
        changed[k] ^= 1
        plan_path.write_bytes(bytes(changed))
        try:
            again = Plan.load(plan_path)
        except TrialkitError:
            continue
        assert again.to_dict() == plan.to_dict(), (k, original[max(0, k - 30) : k + 30])


def test_a_source_that_is_another_file_is_refused(pairing: Any, tmp_path: Path, sites: pd.DataFrame) -> None:
    other = tmp_path / "other.csv"
    sites.assign(budget=sites["budget"] + 1).to_csv(other, index=False)
    with pytest.raises(InputError, match="does not hold the sites that were matched"):
        within_pairs(pairing, source=other)


# --- the same everywhere ---

SCRIPT = """
import sys
import pandas as pd
from trialkit import door
from trialkit.allocation import Plan
plan = Plan.load(sys.argv[1])
a = plan.draw(seed=sys.argv[2], seed_source="x")
print(plan.digest, plan.commitment, door.sha256_bytes(repr(sorted(a.arms.items())).encode()), plan.sample(100, seed=3).tobytes().hex()[:64])
"""


def run_elsewhere(plan_path: Path, **environment: str) -> str:
    command = [sys.executable, "-c", SCRIPT, str(plan_path), SEED]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=120).stdout


def test_another_process_with_other_hashes_and_locale_gives_the_same(plan: WithinPairs, plan_path: Path) -> None:
    arms = plan.draw(seed=SEED, seed_source="x").arms
    digest = door.sha256_bytes(repr(sorted(arms.items())).encode())
    here = f"{plan.digest} {plan.commitment} {digest} {plan.sample(100, seed=3).tobytes().hex()[:64]}\n"
    assert run_elsewhere(plan_path, PYTHONHASHSEED="17", LC_ALL="C", OPENBLAS_NUM_THREADS="2") == here


@pytest.mark.slow
def test_one_result_over_hash_seeds_threads_kernels_and_locales(plan_path: Path) -> None:
    results = {
        run_elsewhere(plan_path, PYTHONHASHSEED=h, OPENBLAS_NUM_THREADS=t, OPENBLAS_CORETYPE=c, LC_ALL=loc)
        for h in ("0", "1", "2", "99")
        for t in ("1", "4")
        for c in ("Haswell", "Sandybridge", "Nehalem")
        for loc in ("C", "C.UTF-8")
    }
    assert len(results) == 1


def test_the_log_s_state_is_in_the_certificate(plan_path: Path, tmp_path: Path, sites_csv: Path) -> None:
    out = tmp_path / "allocation.json"
    drawn = draw_once(plan_path, out, seed=SEED, seed_source=SOURCE)
    log = Log(tmp_path / "plan.json.log")
    lines = log.read()
    assert drawn.attempts == 1 and drawn.log_head == lines[0]["sha256"]
    assert Certificate.load(out).record["log_head"] == lines[0]["sha256"]
    found = verify(out, sites_csv, log=log.path, head=log.head)
    assert found.attempts == 1 and ("head", "the published head stands in the log") in found.checks
    with pytest.raises(VerificationError, match="head"):
        verify(out, sites_csv, log=log.path, head="f" * 64)
    with pytest.raises(InputError, match="without the log"):
        verify(out, sites_csv, head="f" * 64)
    # the whole log replaced by a fresh, valid one
    log.path.unlink()
    with log.opened() as held:
        held.append("attempt", plan=drawn.plan.digest)
    with pytest.raises(VerificationError, match="does not hold the line that the certificate was written under"):
        verify(out, sites_csv, log=log.path)


def test_numbers_written_as_text_verify_as_numbers(tmp_path: Path) -> None:
    """A table of text cells, as a careful reader gives it: 0.50 is 0.5, and NA in a numeric criterion is not observed."""
    sites = pd.DataFrame({"site": list("abcdef"), "x": ["0.50", "1", "2.0", "2", "3.10", "NA"]})
    pairing = match_pairs(sites, id="site", criteria=[nearest("x")], missing="range-penalty")
    certificate = within_pairs(pairing).draw(seed="5f4e3d2c1b0a99887766554433221100", seed_source="two dice").certificate
    path = tmp_path / "sites.csv"
    path.write_text(sites.to_csv(index=False))
    for same in (sites, path, sites.assign(x=[0.5, 1, 2, 2, 3.1, None]), sites.iloc[::-1]):
        assert verify(certificate, same).digest == certificate.plan_digest
    for other in ("0", "abc"):
        with pytest.raises(VerificationError, match="site f, column 'x'"):
            verify(certificate, sites.assign(x=[*sites["x"][:5], other]))


def test_numbers_that_float64_cannot_hold_verify(tmp_path: Path) -> None:
    """2**53 + 1 and thirty digits: the recorded cells are read again as they were matched, not as doubles."""
    frame = pd.DataFrame({"site": list("abcde"), "x": ["9007199254740993", "9007199254740992", "9007199254740995", "0.1", "1e3"]})
    frame["y"] = ["1.50", "2", "3.0", "-4", "123456789012345678901234567890"]
    drawn = within_pairs(match_pairs(frame, id="site", criteria=[nearest("x"), nearest("y")], odd="single")).draw(
        seed=SEED, seed_source="x"
    )
    frame.to_csv(tmp_path / "sites.csv", index=False)
    assert verify(drawn.certificate, frame).sites == verify(drawn.certificate, tmp_path / "sites.csv").sites == 5
    moved = frame.assign(x=["9007199254740992", *frame["x"][1:]])
    with pytest.raises(VerificationError, match="site a, column 'x': the certificate says '9007199254740993'"):
        verify(drawn.certificate, moved)


def test_the_pairing_comes_back_out_of_a_plan_file(pairing: Pairing, plan: WithinPairs, plan_path: Path) -> None:
    again = Plan.load(plan_path)
    assert isinstance(again, WithinPairs) and again.pairing is None
    matched = again.matched()
    assert matched.frame.equals(pairing.frame) and matched.sites.equals(pairing.sites) and matched.gaps().equals(pairing.gaps())
    assert matched.to_dict() == pairing.to_dict() and matched.optimality == pairing.optimality and str(matched) == str(pairing)
    assert plan.matched() is pairing
    with pytest.raises(VerificationError, match="record of the matching is damaged"):
        replace(again, matching={**again.matching, "costs": None, "pairs": [["S01"]]}).matched()
