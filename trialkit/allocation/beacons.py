"""What public beacons publish: pulses checked by their own hashes, and the times they come at.

A drand round's randomness is SHA-256 of its signature; a NIST pulse's outputValue is SHA-512 of its fields and
signature. The signatures themselves need the beacons' public keys and are not checked: anybody can look a pulse up.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from trialkit import door
from trialkit.door import InputError, VerificationError


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of the drand beacon."""

    genesis: int  # Unix time of round 1
    period: int  # seconds
    signature: int  # bytes: a point of G1 (48) or of G2 (96)


# the League of Entropy's two main chains, as their own /info says
CHAINS = {
    "quicknet": Chain(genesis=1_692_803_367, period=3, signature=48),
    "default": Chain(genesis=1_595_431_050, period=30, signature=96),
}


def drand_time(chain: str, round: int) -> datetime:
    """When a round is published."""
    known = CHAINS[chain]
    return datetime.fromtimestamp(known.genesis, UTC) + timedelta(seconds=known.period * (round - 1))


def could_be_of(pulse: Mapping[str, Any], chain: str) -> bool:
    """Whether a drand pulse has the shape of a chain's; a pulse does not name its chain."""
    known, signature = CHAINS.get(chain), pulse.get("signature")
    return known is not None and isinstance(signature, str) and len(signature) == 2 * known.signature


def nist_time(text: str) -> datetime:
    """The time of a NIST pulse as the beacon writes it."""
    if not isinstance(text, str) or not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:00\.000Z", text, re.ASCII):
        raise InputError(f"{door.printable(text)!r} is no time of a NIST pulse; write a whole minute in UTC, as 2026-09-01T12:00:00.000Z.")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{text!r} is no time: {error}. Write a whole minute in UTC, as 2026-09-01T12:00:00.000Z.") from None


def drand_value(record: Mapping[str, Any]) -> str:
    """The randomness of a drand pulse, in lower-case hexadecimal; it must be SHA-256 of the signature."""
    number = record.get("round")
    if isinstance(number, bool) or not isinstance(number, int):
        raise InputError("the drand pulse has no round number. Paste the beacon's whole answer.")
    randomness = str(record["randomness"]).lower()
    expected = hashlib.sha256(_hex(record, "signature")).hexdigest()
    if randomness != expected:
        raise VerificationError(
            f"the drand pulse of round {number} says randomness {door.printable(randomness[:12])}..., "
            f"but SHA-256 of its signature is {expected[:12]}...: not a true pulse."
        )
    return randomness


def nist_value(record: Mapping[str, Any]) -> str:
    """The outputValue of a NIST pulse, in lower-case hexadecimal; it must be SHA-512 of the pulse's fields and signature."""
    try:
        signed = _nist_fields(record)
    except (KeyError, TypeError, AttributeError, struct.error) as error:
        raise InputError(f"the NIST pulse lacks a field or has one of the wrong kind ({error}). Paste the beacon's whole answer.") from None
    output = str(record["outputValue"]).lower()
    expected = hashlib.sha512(signed + _hex(record, "signatureValue")).hexdigest()
    if output != expected:
        raise VerificationError(
            f"the NIST pulse says outputValue {door.printable(output[:12])}..., but its own fields give {expected[:12]}...: "
            f"not a true pulse."
        )
    return output


def _nist_fields(record: Mapping[str, Any]) -> bytes:
    """The signed fields of a version 2.0 pulse in their order, texts and hashes preceded by their length."""

    def text(value: str) -> bytes:
        return _sized(value.encode("utf-8"))

    external = record["external"]
    parts = [
        text(record["uri"]),
        text(record["version"]),
        struct.pack(">II", record["cipherSuite"], record["period"]),
        _sized(_hex(record, "certificateId")),
        struct.pack(">QQ", record["chainIndex"], record["pulseIndex"]),
        text(record["timeStamp"]),
        _sized(_hex(record, "localRandomValue")),
        _sized(_hex(external, "sourceId")),
        struct.pack(">I", external["statusCode"]),
        _sized(_hex(external, "value")),
        *(_sized(_hex(entry, "value")) for entry in record["listValues"]),
        _sized(_hex(record, "precommitmentValue")),
        struct.pack(">I", record["statusCode"]),
    ]
    return b"".join(parts)


def _sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _hex(record: Mapping[str, Any], field: str) -> bytes:
    value = record[field]
    if not isinstance(value, str) or not re.fullmatch(r"([0-9a-fA-F]{2})*", value):
        raise InputError(f"the pulse's {field} is not hexadecimal. Paste the beacon's whole answer.")
    return bytes.fromhex(value)
