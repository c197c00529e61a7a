"""The beacon drand: its chains, what a round signs, and whether a pulse is one of theirs.

A round's randomness is SHA-256 of its signature, and the signature is a BLS signature under the chain's public key,
which belongs to no single party: a pulse that passes both was published by the chain.
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
from trialkit.allocation import bls
from trialkit.door import InputError, VerificationError

_G1_TAG = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
_G2_TAG = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_NUL_"


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a chain signs."""

    signature: int  # bytes: a point of G1 (48) or of G2 (96)
    chained: bool  # whether the signature before enters the message
    tag: bytes


# drand, crypto/schemes.go; "on-g1" hashes to G1 under G2's tag, which rfc9380 put right
SCHEMES = {
    "pedersen-bls-chained": Scheme(96, True, _G2_TAG),
    "pedersen-bls-unchained": Scheme(96, False, _G2_TAG),
    "bls-unchained-on-g1": Scheme(48, False, _G2_TAG),
    "bls-unchained-g1-rfc9380": Scheme(48, False, _G1_TAG),
}


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of the drand beacon, as its own ``/info`` says.

    Attributes
    ----------
    public_key, group_hash : str
        Hexadecimal.
    period : int
        Seconds from round to round.
    genesis : int
        Unix time of round 1.
    scheme : str
        A key of `SCHEMES`.
    beacon_id : str
        ``default`` or the network's name.
    """

    public_key: str
    period: int
    genesis: int
    group_hash: str
    scheme: str
    beacon_id: str

    @property
    def hash(self) -> str:
        """The chain's hash, by which the network names it: SHA-256 of period, genesis, public key, group hash and name."""
        parts = struct.pack(">Iq", self.period, self.genesis) + bytes.fromhex(self.public_key) + bytes.fromhex(self.group_hash)
        return hashlib.sha256(parts + (b"" if self.beacon_id == "default" else self.beacon_id.encode())).hexdigest()

    @property
    def rules(self) -> Scheme:
        """How it signs."""
        return SCHEMES[self.scheme]

    def time(self, round: int) -> datetime:
        """When a round is published."""
        try:
            return datetime.fromtimestamp(self.genesis, UTC) + timedelta(seconds=self.period * (round - 1))
        except OverflowError:
            raise InputError(f"round {round} of this drand chain lies beyond the calendar. Name one that comes.") from None

    def to_info(self) -> dict[str, Any]:
        """The fields of ``/info`` that make the chain."""
        return {
            "public_key": self.public_key,
            "period": self.period,
            "genesis_time": self.genesis,
            "groupHash": self.group_hash,
            "schemeID": self.scheme,
            "metadata": {"beaconID": self.beacon_id},
        }


# the League of Entropy's two main chains; their hashes, 52db9ba7... and 8990e7a9..., follow from these fields
CHAINS = {
    "quicknet": Chain(
        public_key="83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
        "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a",
        period=3,
        genesis=1_692_803_367,
        group_hash="f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e",
        scheme="bls-unchained-g1-rfc9380",
        beacon_id="quicknet",
    ),
    "default": Chain(
        public_key="868f005eb8e6e4ca0a47c8a77ceaa5309a47978a7c71bc5cce96366b5d7a569937c529eeda66c7293784a9402801af31",
        period=30,
        genesis=1_595_431_050,
        group_hash="176f93498eac9ca337150b46d21dd58673ea4e3581185f869672e59fa4cb390a",
        scheme="pedersen-bls-chained",
        beacon_id="default",
    ),
}


def known(name_or_hash: str) -> Chain | None:
    """A chain by the name or the hash it is known by."""
    return next((c for name, c in CHAINS.items() if name_or_hash in (name, c.hash)), None)


def name_of(chain: Chain) -> str:
    """The name a chain is known by, else the beginning of its hash."""
    return next((name for name, c in CHAINS.items() if c == chain), f"{chain.hash[:12]}...")


def chain_of_info(info: Mapping[str, Any]) -> Chain:
    """A chain from the JSON of its ``/info``.

    Raises
    ------
    InputError
        A field is missing or of the wrong kind, the scheme is not one that can be checked, or the fields do not give the hash
        that stands beside them.
    """
    metadata = info.get("metadata")
    beacon_id = metadata.get("beaconID", "default") if isinstance(metadata, Mapping) else info.get("beacon_id", "default")
    scheme = info.get("schemeID", info.get("scheme", "pedersen-bls-chained"))
    period: Any = info.get("period")
    genesis: Any = info.get("genesis_time")
    key: Any = info.get("public_key")
    group: Any = info.get("groupHash", info.get("group_hash", info.get("genesis_seed")))
    if scheme not in SCHEMES:
        raise InputError(f"the drand chain signs by {door.printable(scheme)!r}; what can be checked is {', '.join(SCHEMES)}.")
    if not _whole(period, 1, 2**31) or not _whole(genesis, 0, 2**40) or not isinstance(beacon_id, str):
        raise InputError("the drand chain's info lacks its period, genesis_time or beaconID. Paste the whole answer of /info.")
    for name, value, length in (("public_key", key, 144 - SCHEMES[scheme].signature), ("groupHash", group, None)):
        if not isinstance(value, str) or not re.fullmatch(r"([0-9a-fA-F]{2})+", value) or (length and len(value) != 2 * length):
            raise InputError(f"the drand chain's info lacks a {name} as {scheme} has it. Paste the whole answer of /info.")
    chain = Chain(key.lower(), period, genesis, group.lower(), scheme, beacon_id or "default")
    said = info.get("hash", info.get("chain_hash"))
    if said is not None and str(said).lower() != chain.hash:
        raise InputError(
            f"the drand chain's info says hash {door.printable(said)[:12]}..., but its fields give {chain.hash[:12]}...: not a true chain."
        )
    return chain


def pulse_round(pulse: Mapping[str, Any]) -> int:
    """The pulse's round."""
    number = pulse.get("round")
    if not _whole(number, 1, 2**63):
        raise InputError("the drand pulse has no round number. Paste the beacon's whole answer.")
    return int(number)  # type: ignore[arg-type]


def value(pulse: Mapping[str, Any]) -> str:
    """The pulse's randomness, SHA-256 of its signature, in lower-case hexadecimal; a pulse that says another is refused."""
    number = pulse_round(pulse)
    expected = hashlib.sha256(_hex(pulse, "signature")).hexdigest()
    said = str(pulse.get("randomness", expected)).lower()
    if said != expected:
        raise VerificationError(
            f"the drand pulse of round {number} says randomness {door.printable(said[:12])}..., "
            f"but SHA-256 of its signature is {expected[:12]}...: not a true pulse."
        )
    return expected


def could_be_of(pulse: Mapping[str, Any], chain: Chain) -> bool:
    """Whether a pulse has the shape of a chain's; a pulse does not name its chain."""
    signature = pulse.get("signature")
    return isinstance(signature, str) and len(signature) == 2 * chain.rules.signature


def check_signature(pulse: Mapping[str, Any], chain: Chain) -> tuple[bool | None, str]:
    """Whether the signature could be checked (None: a library is missing), and how or why not; one that does not hold is refused.

    Raises
    ------
    VerificationError
        The signature is not the chain's for this round.
    """
    number, signature, rules = pulse_round(pulse), _hex(pulse, "signature"), chain.rules
    before, holds = b"", len(signature) == rules.signature
    if holds and rules.chained:
        if "previous_signature" not in pulse:
            return False, "the pulse lacks its previous_signature, which this chain signs; paste the beacon's whole answer"
        before = _hex(pulse, "previous_signature")
    message = hashlib.sha256(before + struct.pack(">Q", number)).digest()
    try:
        holds = holds and bls.verified(public_key=bytes.fromhex(chain.public_key), signature=signature, message=message, tag=rules.tag)
    except bls.Unavailable as error:
        return None, str(error)
    if not holds:
        raise VerificationError(
            f"the signature of the drand pulse of round {number} does not hold under the public key of the chain {name_of(chain)}: "
            "not a true pulse of that chain."
        )
    return True, f"BLS12-381, {chain.scheme}, public key {chain.public_key}"


def _whole(number: Any, low: int, high: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and low <= number < high


def _hex(record: Mapping[str, Any], field: str) -> bytes:
    text = record[field]
    if not isinstance(text, str) or not re.fullmatch(r"([0-9a-fA-F]{2})*", text):
        raise InputError(f"the pulse's {field} is not hexadecimal. Paste the beacon's whole answer.")
    return bytes.fromhex(text)
