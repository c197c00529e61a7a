"""The NIST randomness beacon 2.0: a pulse by its hash, its signature, and the certificate the signature is checked under.

``outputValue`` is SHA-512 of the pulse's fields and signature; the signature is RSA (PKCS #1 v1.5) with SHA-512 over the
fields; the pulse names its certificate by the SHA-512 of the certificate's DER bytes (NISTIR 8213, sections 4 and 5; that it
is DER and not PEM is what the beacon does). That certificate is NIST's own only when a public authority issued it for
``engine.beacon.nist.gov``: its chain is followed to DigiCert's root, shipped here, at the pulse's time.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trialkit import door
from trialkit.door import InputError, VerificationError

HOST = "engine.beacon.nist.gov"
# DigiCert Global Root G2 first, then the authorities under it that issued the beacon's certificates
ISSUERS = Path(__file__).with_name("nist_issuers.pem")


def pulse_time(text: str) -> datetime:
    """The time of a pulse as the beacon writes it."""
    if not isinstance(text, str) or not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:00\.000Z", text, re.ASCII):
        raise InputError(f"{door.printable(text)!r} is no time of a NIST pulse; write a whole minute in UTC, as 2026-09-01T12:00:00.000Z.")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{text!r} is no time: {error}. Write a whole minute in UTC, as 2026-09-01T12:00:00.000Z.") from None


def value(pulse: Mapping[str, Any]) -> str:
    """The pulse's outputValue, in lower-case hexadecimal; it must be SHA-512 of the pulse's fields and signature."""
    signed = _signed(pulse)
    output = str(pulse["outputValue"]).lower()
    expected = hashlib.sha512(signed + _hex(pulse, "signatureValue")).hexdigest()
    if output != expected:
        raise VerificationError(
            f"the NIST pulse says outputValue {door.printable(output[:12])}..., but its own fields give {expected[:12]}...: "
            "not a true pulse."
        )
    return output


def check_signature(pulse: Mapping[str, Any], certificate: str | None) -> tuple[bool | None, str]:
    """Whether the signature was checked under NIST's certificate (None: a library is missing), and how or why not.

    Parameters
    ----------
    pulse : mapping
        The beacon's pulse.
    certificate : str or None
        PEM: the certificate the pulse names, first or among others (the authorities that issued it).

    Raises
    ------
    VerificationError
        The certificate is not the one the pulse names, or the signature does not hold under it.
    InputError
        What was given is no certificate.
    """
    if certificate is None:
        return False, f"the certificate that the pulse names was not given; the beacon has it under certificate/{pulse['certificateId']}"
    try:
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.hashes import SHA512
        from cryptography.hazmat.primitives.serialization import Encoding
    except ImportError as error:
        return None, f"the library cryptography cannot be loaded ({error})"
    try:
        given = x509.load_pem_x509_certificates(certificate.encode("ascii"))
    except ValueError:
        raise InputError(
            "the beacon's certificate is not PEM text (-----BEGIN CERTIFICATE-----). Paste the beacon's whole answer."
        ) from None
    named = _hex(pulse, "certificateId")
    leaf = next((c for c in given if hashlib.sha512(c.public_bytes(Encoding.DER)).digest() == named), None)
    if leaf is None:
        digest = hashlib.sha512(given[0].public_bytes(Encoding.DER)).hexdigest()
        raise VerificationError(
            f"the NIST pulse names the certificate {named.hex()[:12]}..., and the one given has SHA-512 {digest[:12]}...: "
            "another certificate."
        )
    key = leaf.public_key()
    if not isinstance(key, RSAPublicKey):
        raise VerificationError("the NIST pulse's certificate holds no RSA key, which its signature needs.")
    try:
        key.verify(_hex(pulse, "signatureValue"), _signed(pulse), PKCS1v15(), SHA512())
    except InvalidSignature:
        raise VerificationError(
            "the signature of the NIST pulse does not hold under the certificate that it names: not a true pulse."
        ) from None
    issuer, why = _issued_for_the_beacon(leaf, [c for c in given if c is not leaf], pulse_time(str(pulse["timeStamp"])))
    how = f"RSA-{key.key_size} with SHA-512 under the certificate {named.hex()}"
    return issuer, f"{how}, {why}" if issuer else f"the signature holds under the certificate that was given, but {why}"


def _issued_for_the_beacon(leaf: Any, others: list[Any], at: datetime) -> tuple[bool, str]:
    """Whether a public authority issued this certificate for the beacon, by the chain to the root shipped here."""
    from cryptography import x509
    from cryptography.x509.verification import PolicyBuilder, Store
    from cryptography.x509.verification import VerificationError as Broken

    root, *between = x509.load_pem_x509_certificates(ISSUERS.read_bytes())
    verifier = PolicyBuilder().store(Store([root])).time(at.astimezone(UTC).replace(tzinfo=None)).build_server_verifier(x509.DNSName(HOST))
    try:
        chain = verifier.verify(leaf, [*between, *others])
    except Broken as error:
        reason = " ".join(str(error).split())
        return False, (
            f"that it is NIST's was not shown: its chain to DigiCert Global Root G2 for {HOST} does not hold at {at:%Y-%m-%d %H:%M} UTC "
            f"({reason}); put the authorities that issued it into the same file"
        )
    issued = " under ".join(c.subject.rfc4514_string().split(",")[0].removeprefix("CN=") for c in chain[1:])
    return True, f"issued for {HOST} by {issued}"


def _signed(pulse: Mapping[str, Any]) -> bytes:
    try:
        return _fields(pulse)
    except (KeyError, TypeError, AttributeError, struct.error) as error:
        raise InputError(f"the NIST pulse lacks a field or has one of the wrong kind ({error}). Paste the beacon's whole answer.") from None


def _fields(record: Mapping[str, Any]) -> bytes:
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
