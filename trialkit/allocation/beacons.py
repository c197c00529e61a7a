"""A public beacon's pulse as evidence of a seed: read, checked offline, and what was checked put beside it.

Two checks with two strengths. The **hash** (the value follows from the pulse's own fields) finds a slip; anybody can make a
pulse that passes it. The **signature**, under a key that no party to the trial holds, is what a made-up pulse cannot have.
Evidence says which of the two was made; without the signature no seed counts as anchored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trialkit import door
from trialkit.allocation import canonical, drand, nist
from trialkit.door import InputError, VerificationError

HASHES = {"drand": "randomness = SHA-256(signature)", "nist": "outputValue = SHA-512(fields, signature)"}


@dataclass(frozen=True, slots=True)
class Reading:
    """A pulse that passed its hash, and its signature where that could be checked.

    Attributes
    ----------
    kind : str
        ``drand`` or ``nist``.
    text : str
        The beacon's value, lower-case hexadecimal: the seed.
    source : str
        Which pulse, in words.
    signed : bool or None
        Whether the signature was checked, and holds; None where a library is missing.
    how : str
        By which key; or why it was not checked.
    evidence : mapping
        The pulse, the chain or certificate, and ``checked``.
    """

    kind: str
    text: str
    source: str
    signed: bool | None
    how: str
    evidence: Mapping[str, Any]


def read(pulse: str | Mapping[str, Any], *, chain: str | Mapping[str, Any] | None = None, certificate: str | None = None) -> Reading:
    """A beacon's answer, checked as far as it can be; see `seeds.beacon`."""
    record = canonical.loads(pulse, where="the beacon's pulse") if isinstance(pulse, str) else dict(pulse)
    record = record.get("pulse", record)
    if not isinstance(record, Mapping):
        raise InputError("the beacon's pulse is not a JSON object. Paste the whole answer of the beacon.")
    if "outputValue" in record and "signatureValue" in record:
        if chain is not None:
            raise InputError("a chain belongs to a drand pulse, and this one is NIST's. Leave it out.")
        return _nist(record, certificate)
    if "signature" in record and ("round" in record or "randomness" in record):
        if certificate is not None:
            raise InputError("a certificate belongs to a NIST pulse, and this one is drand's. Leave it out.")
        return _drand(record, chain)
    raise InputError(
        "the pulse is neither drand's (round, randomness, signature) nor NIST's (outputValue, signatureValue). Paste the "
        "beacon's whole answer."
    )


def chain_named(chain: str | Mapping[str, Any]) -> drand.Chain:
    """A drand chain by name, by hash, or by its info (a mapping or the JSON of ``/info``)."""
    if isinstance(chain, Mapping):
        return drand.chain_of_info(chain)
    found = drand.known(chain)
    if found is not None:
        return found
    if chain.lstrip().startswith("{"):
        return drand.chain_of_info(canonical.loads(chain, where="the drand chain's info"))
    raise InputError(door.unknown_word(chain, list(drand.CHAINS), what="chain of the drand beacon"))


def _drand(pulse: Mapping[str, Any], named: str | Mapping[str, Any] | None) -> Reading:
    text = drand.value(pulse)
    of = chain_named(named) if named is not None else next((c for c in drand.CHAINS.values() if drand.could_be_of(pulse, c)), None)
    if of is None:
        known = " and ".join(f"{name} ({c.rules.signature} bytes)" for name, c in drand.CHAINS.items())
        raise VerificationError(
            f"the drand pulse's signature has {len(str(pulse['signature'])) // 2} bytes, which is none of {known}: not a true pulse, or "
            "one of another chain, whose info must be given."
        )
    signed, how = drand.check_signature(pulse, of)
    record: dict[str, Any] = {"pulse": dict(pulse), "chain": {"name": drand.name_of(of), "hash": of.hash}}
    if of not in drand.CHAINS.values():
        record["chain"]["info"] = of.to_info()
    return _reading("drand", text, f"drand round {pulse['round']}", signed, how, record)


def _nist(pulse: Mapping[str, Any], certificate: str | None) -> Reading:
    text = nist.value(pulse)
    signed, how = nist.check_signature(pulse, certificate)
    record: dict[str, Any] = {"pulse": dict(pulse)}
    if certificate is not None:
        record["certificate"] = certificate
    return _reading("nist", text, f"NIST beacon, pulse of {pulse['timeStamp']}", signed, how, record)


def _reading(kind: str, text: str, source: str, signed: bool | None, how: str, record: dict[str, Any]) -> Reading:
    record["checked"] = {"hash": HASHES[kind], "signature": how if signed else None, "not_checked": None if signed else how}
    return Reading(kind=kind, text=text, source=source, signed=signed, how=how, evidence=record)


def again(evidence: Mapping[str, Any]) -> Reading:
    """The pulse of stored evidence, read and checked again.

    Evidence written before signatures were checked holds the pulse alone; it is checked as a new pulse would be.

    Raises
    ------
    VerificationError
        The pulse is not true, or the evidence says more than its pulse shows.
    """
    chain, certificate = evidence.get("chain"), evidence.get("certificate")
    named: Any = None
    if isinstance(chain, Mapping):
        named = chain.get("info", chain.get("hash"))
        if named is None:
            raise VerificationError("the evidence of the seed does not name the beacon's chain. The file has been edited.")
    if certificate is not None and not isinstance(certificate, str):
        raise VerificationError("the certificate in the seed's evidence is not text. The file has been edited.")
    reading = read({"pulse": evidence["pulse"]}, chain=named, certificate=certificate)
    stored = evidence.get("checked", ...)
    if signature_stored(evidence) and reading.signed is not None and dict(evidence) != dict(reading.evidence):
        raise VerificationError("the evidence of the seed says other things of the pulse than follow from it. The file has been edited.")
    if stored is not ... and not _well_formed(stored, reading.kind):
        raise VerificationError("the evidence of the seed does not say what was checked of the pulse. The file has been edited.")
    return reading


def signature_stored(evidence: Mapping[str, Any]) -> bool:
    """Whether stored evidence says that the signature was checked."""
    checked = evidence.get("checked")
    return isinstance(checked, Mapping) and isinstance(checked.get("signature"), str)


def _well_formed(checked: Any, kind: str) -> bool:
    if not isinstance(checked, Mapping) or set(checked) != {"hash", "signature", "not_checked"} or checked["hash"] != HASHES[kind]:
        return False
    return [isinstance(checked[key], str) for key in ("signature", "not_checked")].count(True) == 1
