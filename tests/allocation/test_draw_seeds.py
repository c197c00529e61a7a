"""Seeds: what is refused, what is warned of, what is anchored."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from trialkit.allocation import ShortSeedWarning, WithinPairs, beacon, commit, drand_rule, nist_rule, reveal, reveal_rule, seeds, verify
from trialkit.door import InputError, VerificationError

from .conftest import SEED, SOURCE

PULSES = json.loads((Path(__file__).parent.parent / "reference" / "beacon_pulses.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        (None, "no default"),
        (True, "truth value"),
        (False, "truth value"),
        ("", "empty"),
        ("   ", "empty"),
        (" 123", "blanks at its ends"),
        ("12\n", "blanks at its ends"),
        ("1\u200b2", "nobody can see"),
        (-1, "negative"),
        (1.5, "float"),
        (b"12", "bytes"),
        ([], "list"),
    ],
)
def test_a_seed_that_cannot_be_one_is_refused(plan: WithinPairs, seed: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan.draw(seed=seed, seed_source=SOURCE)


def test_nothing_is_drawn_without_a_seed_or_a_source(plan: WithinPairs) -> None:
    with pytest.raises(InputError, match="no seed was given"):
        plan.draw()
    for source in (None, "", "  "):
        with pytest.raises(InputError, match="no source"):
            plan.draw(seed=SEED, seed_source=source)


def test_a_short_seed_warns_with_numbers_and_is_recorded(plan: WithinPairs) -> None:
    with pytest.warns(ShortSeedWarning, match=r"2 decimal digits is one of 100, too few to reach the plan's 64 allocations evenly"):
        allocation = plan.draw(seed=42, seed_source=SOURCE)
    assert allocation.certificate.record["seed"]["warning"] == allocation.warning
    with pytest.warns(ShortSeedWarning, match=r"one of 10, so it reaches at most 10 of the plan's 64 allocations \(about 1 in 6\)"):
        plan.draw(seed="7", seed_source=SOURCE)


def test_a_strong_seed_does_not_warn(plan: WithinPairs) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan.draw(seed=SEED, seed_source=SOURCE).warning is None


def test_the_trial_s_own_seed_reaches_a_small_part_of_its_allocations() -> None:
    words = seeds.shortage(seeds.checked("8392017465", SOURCE), 2**43)
    assert words is not None and "at most 10,000,000,000 of the plan's 8,796,093,022,208 allocations (about 1 in 880)" in words


def test_a_typed_seed_is_not_anchored(plan: WithinPairs) -> None:
    allocation = plan.draw(seed=SEED, seed_source=SOURCE)
    assert allocation.certificate.record["seed"]["anchored"] is False
    assert "NOT ANCHORED" in str(allocation)


# --- beacons ---


def test_a_drand_pulse_is_checked_and_its_tampering_found() -> None:
    seed = beacon(json.dumps(PULSES["drand"]))
    assert seed.text == PULSES["drand"]["randomness"] and seed.kind == "drand"
    for field in ("randomness", "signature"):
        bad = copy.deepcopy(PULSES["drand"])
        bad[field] = ("0" if bad[field][0] != "0" else "1") + bad[field][1:]
        with pytest.raises(VerificationError, match="not a true pulse"):
            beacon(bad)


def test_a_nist_pulse_is_checked_and_any_changed_field_found() -> None:
    pulse = PULSES["nist"]["pulse"]
    assert beacon(PULSES["nist"]).text == pulse["outputValue"].lower()
    for field in ("timeStamp", "localRandomValue", "precommitmentValue", "outputValue", "signatureValue", "uri"):
        bad = copy.deepcopy(pulse)
        bad[field] = bad[field][:-1] + ("1" if bad[field][-1] != "1" else "2")
        with pytest.raises(VerificationError, match="not a true pulse"):
            beacon({"pulse": bad})
    bad = copy.deepcopy(pulse)
    bad["pulseIndex"] += 1
    with pytest.raises(VerificationError, match="not a true pulse"):
        beacon(bad)


@pytest.mark.parametrize(
    "pulse",
    ["[]", '{"a": 1}', '{"randomness": "00", "signature": "zz", "round": 1}', "no json", '{"outputValue": "", "signatureValue": ""}'],
)
def test_something_else_than_a_pulse_is_refused(pulse: str) -> None:
    with pytest.raises(InputError):
        beacon(pulse)


def test_a_pulse_named_in_the_plan_anchors_the_seed(plan: WithinPairs, sites_csv: Path) -> None:
    seed = beacon(PULSES["drand"])
    named = plan.with_seed_rule(drand_rule(round=PULSES["drand"]["round"], chain="default"))
    assert named.digest == plan.digest and named.commitment != plan.commitment
    certificate = named.draw(seed=seed).certificate
    assert certificate.record["seed"]["anchored"] is True
    assert verify(certificate, sites_csv, commitment=named.commitment).seed_anchored
    # P does not bind the rule, so it cannot anchor the seed
    assert not verify(certificate, sites_csv, commitment=plan.digest).seed_anchored
    # another round, or no rule: the value could have been waited for
    for other in (plan, plan.with_seed_rule(drand_rule(round=1)), plan.with_seed_rule("a beacon's pulse")):
        assert other.draw(seed=seed).certificate.record["seed"]["anchored"] is False
    nist = plan.with_seed_rule(nist_rule(time=PULSES["nist"]["pulse"]["timeStamp"], chain=1))
    assert nist.draw(seed=beacon(PULSES["nist"], certificate=PULSES["nist_certificate"])).certificate.record["seed"]["anchored"] is True


# --- commit, then reveal ---


def test_commit_then_reveal(plan: WithinPairs, sites_csv: Path) -> None:
    secrets = {"A. Investigator": "correct horse battery", "B. Statistician": "staple 9f8e7d6c5b4a"}
    commitments = {who: commit(secret, who=who, digest=plan.digest) for who, secret in secrets.items()}
    named = plan.with_seed_rule(reveal_rule(commitments))
    parts = [(who, secrets[who], commitments[who]) for who in secrets]
    seed = reveal(parts, digest=plan.digest)
    assert seed == reveal(parts[::-1], digest=plan.digest)
    certificate = named.draw(seed=seed).certificate
    assert verify(certificate, sites_csv, commitment=named.commitment).seed_anchored
    with pytest.raises(VerificationError, match="does not fit the commitment"):
        reveal([(parts[0][0], "another secret altogether", parts[0][2]), parts[1]], digest=plan.digest)
    with pytest.raises(InputError, match="two different parties"):
        reveal(parts[:1], digest=plan.digest)
    with pytest.raises(InputError, match="whoever can guess it"):
        commit("short", who="A", digest=plan.digest)
    with pytest.raises(InputError, match="at least two parties"):
        reveal_rule({"A": "0" * 64})


def test_forged_evidence_is_found(plan: WithinPairs) -> None:
    seed = beacon(PULSES["drand"])
    record = {**seed.to_dict(), "text": "0" * 64}
    with pytest.raises(VerificationError, match="does not follow from its evidence"):
        seeds.from_dict(record)
    with pytest.raises(VerificationError, match="no evidence"):
        seeds.from_dict({**seed.to_dict(), "evidence": None})
    with pytest.raises(VerificationError, match="unknown kind"):
        seeds.from_dict({**seed.to_dict(), "kind": "dream"})
