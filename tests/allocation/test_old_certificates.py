"""Certificates that were written once must verify for ever (tests/reference/certificates.py made them)."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from trialkit.allocation import Certificate, Plan, canonical, verify
from trialkit.door import TrialkitError

STORED = json.loads((Path(__file__).parent.parent / "reference" / "certificates.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", STORED["certificates"])
def test_an_old_certificate_verifies(name: str, tmp_path: Path) -> None:
    record = STORED["certificates"][name]
    sites = pd.read_csv(io.StringIO(STORED["sites"]), dtype=str)
    if name == "minimisation":
        sites["staff"] = ["many" if int(n) > 5 else "few" for n in sites["staff"]]
    sites.to_csv(tmp_path / "sites.csv", index=False)
    for given in (sites, sites.iloc[::-1], tmp_path / "sites.csv"):
        found = verify(record, given, commitment=record["plan"]["commitment"])
        assert found.anchored and found.seed_anchored == name.endswith(("reveal", "beacon"))
    plan = Plan.from_dict(record["plan"])
    assert plan.probabilities().shape == (found.sites, len(plan.arms)) and Certificate(record).plan_digest == plan.digest
    assert plan.digest in plan.methods_text()


@pytest.mark.parametrize("changes", [12, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STORED["certificates"])
def test_no_damage_passes_in_silence(name: str, changes: int, tmp_path: Path) -> None:
    """A byte put in, taken out or changed: refused, or said to be void; never a fault of our own."""
    sites = pd.read_csv(io.StringIO(STORED["sites"]), dtype=str)
    if name == "minimisation":
        sites["staff"] = ["many" if int(n) > 5 else "few" for n in sites["staff"]]
    data = canonical.dumps(STORED["certificates"][name]).encode()
    chance = random.Random(f"{name} {changes}")
    path = tmp_path / "damaged.json"
    for _ in range(changes):
        at, new = chance.randrange(len(data)), bytes([chance.choice(b'019 ,"[\nAz\xff')])
        path.write_bytes(chance.choice((data[:at] + new + data[at:], data[:at] + data[at + 1 :], data[:at] + new + data[at + 1 :])))
        try:
            found = verify(path, sites)
        except TrialkitError:
            continue
        assert json.loads(path.read_bytes()) == STORED["certificates"][name]
        assert path.read_bytes() == data or any("No meaning is lost" in note for note in found.notes)


@pytest.mark.parametrize("changes", [12, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STORED["certificates"])
def test_a_forger_who_seals_it_again_is_met_by_the_sites(name: str, changes: int) -> None:
    """An entry deleted or replaced, the certificate's own digest made anew: what passes is only what nothing else can tell."""
    sites = pd.read_csv(io.StringIO(STORED["sites"]), dtype=str)
    if name == "minimisation":
        sites["staff"] = ["many" if int(n) > 5 else "few" for n in sites["staff"]]
    record = STORED["certificates"][name]
    places = [p for p in _places(record) if p and p[0] not in ("versions", "source_sha256", "drawn_at", "sha256")]
    chance = random.Random(f"{name} {changes}")
    for place in chance.sample(places, min(changes, len(places))):
        forged = copy.deepcopy(record)
        inside = forged
        for step in place[:-1]:
            inside = inside[step]
        inside[place[-1]] = chance.choice([7, -1, "zz", [], {}, True, None])
        if forged == record or place in UNTELLABLE:
            continue
        with pytest.raises(TrialkitError):
            verify(canonical.sealed(forged), sites)


# what the sites and the rest of the certificate cannot tell: only the log, or nothing, can
UNTELLABLE = (("attempts",), ("log_head",), ("plan", "sites", "file"), ("plan", "sites", "raw_sha256"))


def _places(entry: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(entry, dict | list):
        for key, inner in entry.items() if isinstance(entry, dict) else enumerate(entry):
            yield from _places(inner, (*place, key))
    yield place
