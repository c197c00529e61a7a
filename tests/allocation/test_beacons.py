"""A public beacon's pulse: published ones hold, made-up ones do not, and what was not checked is said."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trialkit.allocation import WithinPairs, beacon, beacons, bls, drand, drand_rule, draw_once, nist, nist_rule, seeds, verify
from trialkit.door import InputError, VerificationError

STORED = json.loads((Path(__file__).parent.parent / "reference" / "beacon_pulses.json").read_text(encoding="utf-8"))
DEFAULT, NIST, CERTIFICATE = STORED["drand"], STORED["nist"], STORED["nist_certificate"]
QUICKNET = STORED["pulses"][0]["pulse"]
DEFAULT_WITHOUT = {
    "pulse": {k: v for k, v in DEFAULT.items() if k != "previous_signature"},
    "chain": {"name": "default", "hash": drand.CHAINS["default"].hash},
}


def signed_by_another(round: int) -> dict[str, Any]:
    """A pulse as a forger makes it: a true signature under his own key, and the randomness that follows from it."""
    import struct

    from py_ecc.bls.hash_to_curve import hash_to_G1
    from py_ecc.bls.point_compression import compress_G1
    from py_ecc.optimized_bls12_381 import multiply

    message = hashlib.sha256(struct.pack(">Q", round)).digest()
    point = multiply(hash_to_G1(message, b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_", hashlib.sha256), 123_456_789)
    signature = int(compress_G1(point)).to_bytes(48, "big")
    return {"round": round, "signature": signature.hex(), "randomness": hashlib.sha256(signature).hexdigest()}


# --- drand ---


def test_the_two_chains_known_by_name_are_those_their_hashes_name() -> None:
    """The hashes are how the network names its chains; they bind key, period, genesis and group."""
    assert drand.CHAINS["quicknet"].hash == "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
    assert drand.CHAINS["default"].hash == "8990e7a9aaed2ffed73dbd7092123d6f289930540d7651336225dc172e51b2ce"
    assert drand.known("quicknet") is drand.known(drand.CHAINS["quicknet"].hash)
    for chain in drand.CHAINS.values():
        assert drand.chain_of_info({**chain.to_info(), "hash": chain.hash}) == chain


@pytest.mark.parametrize("k", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 7))])
def test_published_pulses_hold_under_their_chains(k: int) -> None:
    """Every scheme drand has on this curve, on pulses of drand's own tests; the round before and after do not."""
    pulse, chain = STORED["pulses"][k]["pulse"], STORED["pulses"][k]["chain"]
    seed = beacon(pulse, chain=json.dumps(chain) if isinstance(chain, dict) else chain)
    assert seed.text == hashlib.sha256(bytes.fromhex(pulse["signature"])).hexdigest()
    assert seed.evidence is not None and seed.evidence["checked"]["signature"].startswith("BLS12-381, ")
    with pytest.raises(VerificationError, match="does not hold under the public key of the chain"):
        beacon({**pulse, "round": pulse["round"] + 1}, chain=chain)


def test_a_chained_pulse_needs_the_signature_before() -> None:
    seed = beacon(DEFAULT)
    assert seed.evidence is not None and seed.evidence["chain"]["name"] == "default"
    assert "pedersen-bls-chained" in seed.evidence["checked"]["signature"]
    other = "6a" + DEFAULT["previous_signature"][2:]
    with pytest.raises(VerificationError, match="does not hold"):
        beacon({**DEFAULT, "previous_signature": other})
    without = {k: v for k, v in DEFAULT.items() if k != "previous_signature"}
    checked = (beacon(without).evidence or {})["checked"]
    assert checked["signature"] is None and "lacks its previous_signature" in checked["not_checked"]


def test_a_made_up_pulse_is_refused_however_well_it_hashes() -> None:
    forged = signed_by_another(QUICKNET["round"])
    with pytest.raises(VerificationError, match="does not hold under the public key of the chain quicknet: not a true pulse"):
        beacon(forged)
    # the forger's own chain is another chain, and the plan's rule would have to name it
    for signature in ("00" * 48, "c0" + "00" * 47, "ff" * 48, "8" + "1" * 95):  # no points, the point at infinity, not on the curve
        made = {"round": 5, "signature": signature, "randomness": hashlib.sha256(bytes.fromhex(signature)).hexdigest()}
        with pytest.raises(VerificationError, match="does not hold"):
            beacon(made)
    with pytest.raises(VerificationError, match="50 bytes, which is none of quicknet"):
        beacon({"round": 5, "signature": "00" * 50})


def test_a_pulse_of_another_chain_is_not_one_of_this() -> None:
    with pytest.raises(VerificationError, match="chain default"):
        beacon(QUICKNET, chain="default")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schemeID": "bls-bn254-unchained-on-g1"}, "what can be checked is"),
        ({"public_key": "00"}, "lacks a public_key"),
        ({"public_key": None}, "lacks a public_key"),
        ({"groupHash": "xyz"}, "lacks a groupHash"),
        ({"period": 0}, "lacks its period"),
        ({"genesis_time": True}, "lacks its period, genesis_time"),
        ({"hash": "0" * 64}, "not a true chain"),
        ({"genesis_time": 5, "hash": drand.CHAINS["quicknet"].hash}, "not a true chain"),
    ],
)
def test_info_that_makes_no_chain(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        drand.chain_of_info({**drand.CHAINS["quicknet"].to_info(), **change})


def test_another_chain_is_named_in_the_plan_by_its_key(plan: WithinPairs, sites_csv: Path) -> None:
    entry = STORED["pulses"][1]
    named = plan.with_seed_rule(drand_rule(round=38, chain=entry["chain"]))
    assert isinstance(named.seed_rule, dict) and named.seed_rule["chain"] == entry["chain"]["hash"]
    assert seeds.published(named.seed_rule) == datetime.fromtimestamp(1687506816 + 3 * 37, UTC)
    drawn = named.draw(seed=beacon(entry["pulse"], chain=entry["chain"]))
    assert (
        drawn.certificate.record["seed"]["anchor"] == "drand af8b6fc95693... round 38, named in the plan; its hash and its signature hold"
    )
    found = verify(drawn.certificate, sites_csv, commitment=named.commitment)
    assert found.seed_anchored and any(name == "pulse" and "walkthrough" not in words for name, words in found.checks)
    # a rule whose key is exchanged names no chain, so nothing is the value it named
    forged = copy.deepcopy(named.seed_rule)
    forged["info"]["public_key"] = drand.CHAINS["quicknet"].public_key
    assert not seeds.anchored(beacon(entry["pulse"], chain=entry["chain"]), forged)[0]
    with pytest.raises(InputError, match="Did you mean 'quicknet'"):
        drand_rule(round=1, chain="quiknet")


# --- NIST ---


def test_a_nist_pulse_holds_under_the_certificate_it_names(plan: WithinPairs, sites_csv: Path) -> None:
    seed = beacon(NIST, certificate=CERTIFICATE)
    how = (seed.evidence or {})["checked"]["signature"]
    assert how.startswith("RSA-4096 with SHA-512 under the certificate 5501e3d7")
    assert how.endswith("issued for engine.beacon.nist.gov by DigiCert Global CA G2 under DigiCert Global Root G2")
    named = plan.with_seed_rule(nist_rule(time=NIST["pulse"]["timeStamp"], chain=1))
    certificate = named.draw(seed=seed).certificate
    assert certificate.record["seed"]["anchored"] is True and certificate.record["seed"]["anchor"].endswith("its signature hold")
    assert verify(certificate, sites_csv, commitment=named.commitment).seed_anchored
    crlf = CERTIFICATE.replace("\n", "\r\n")
    assert (beacon(NIST, certificate=crlf).evidence or {})["checked"] == (seed.evidence or {})["checked"]


def test_the_authorities_shipped_hang_together() -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    root, *between = x509.load_pem_x509_certificates(nist.ISSUERS.read_bytes())
    # DigiCert's own published fingerprint of Global Root G2
    assert root.fingerprint(SHA256()).hex() == "cb3ccbb76031e5e0138f8dd39a23f9de47ffc35e43c1144cea27d46a5ab1cb5f"
    root.verify_directly_issued_by(root)
    for authority in between:
        authority.verify_directly_issued_by(root)


def resigned(host: str = nist.HOST) -> tuple[dict[str, Any], str]:
    """The pulse as a forger makes it: his own values, key and certificate, every hash and signature in order."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256, SHA512
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    start = datetime(2018, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, start, start + timedelta(days=400))
    made = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False).sign(key, SHA256())
    pulse = copy.deepcopy(NIST["pulse"])
    pulse["localRandomValue"] = "AB" * 64
    pulse["certificateId"] = hashlib.sha512(made.public_bytes(Encoding.DER)).hexdigest()
    signed = nist._fields(pulse)
    signature = key.sign(signed, padding.PKCS1v15(), SHA512())
    pulse["signatureValue"] = signature.hex()
    pulse["outputValue"] = hashlib.sha512(signed + signature).hexdigest()
    return pulse, made.public_bytes(Encoding.PEM).decode()


def test_a_made_up_nist_pulse_anchors_nothing(plan: WithinPairs, tmp_path: Path) -> None:
    pulse, pem = resigned()
    seed = beacon(pulse, certificate=pem)
    checked = (seed.evidence or {})["checked"]
    assert checked["signature"] is None and "that it is NIST's was not shown" in checked["not_checked"]
    named = plan.with_seed_rule(nist_rule(time=pulse["timeStamp"], chain=1))
    drawn = named.draw(seed=seed).certificate.record["seed"]
    assert drawn["anchored"] is False and "by its hash only" in drawn["anchor"] and "anybody could have made it" in drawn["anchor"]
    named.save(tmp_path / "plan.json")
    with pytest.raises(InputError, match="its signature was not checked: the signature holds under the certificate that was given, but"):
        draw_once(tmp_path / "plan.json", tmp_path / "a.json", seed=seed)
    assert not (tmp_path / "plan.json.log").exists() and not (tmp_path / "a.json").exists()


def test_a_nist_pulse_with_other_values_does_not_hold() -> None:
    forged = copy.deepcopy(NIST["pulse"])
    forged["localRandomValue"] = "AB" * 64
    forged["outputValue"] = hashlib.sha512(nist._fields(forged) + bytes.fromhex(forged["signatureValue"])).hexdigest()
    assert beacon(forged).text == forged["outputValue"]  # its hash is in order
    with pytest.raises(VerificationError, match="does not hold under the certificate that it names"):
        beacon(forged, certificate=CERTIFICATE)
    _, other = resigned()
    with pytest.raises(VerificationError, match="another certificate"):
        beacon(NIST, certificate=other)
    assert (beacon(NIST, certificate=other + CERTIFICATE).evidence or {})["checked"]["signature"] is not None
    for text in ("no certificate", "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "é"):
        with pytest.raises(InputError, match="not PEM text"):
            beacon(NIST, certificate=text)


def test_without_its_certificate_a_nist_pulse_is_checked_by_its_hash_only() -> None:
    checked = (beacon(NIST).evidence or {})["checked"]
    assert checked["signature"] is None and "certificate/5501e3d7" in checked["not_checked"]


def test_a_chain_or_certificate_for_the_other_beacon_is_refused() -> None:
    with pytest.raises(InputError, match="a chain belongs to a drand pulse"):
        beacon(NIST, chain="quicknet")
    with pytest.raises(InputError, match="a certificate belongs to a NIST pulse"):
        beacon(QUICKNET, certificate=CERTIFICATE)


# --- what was checked, and is checked again ---


@pytest.fixture
def no_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the two libraries."""
    bls.verified.cache_clear()
    for name in [m for m in sys.modules if m.partition(".")[0] in ("py_ecc", "cryptography")] + ["py_ecc", "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)


def test_a_missing_library_is_never_a_silent_pass(plan: WithinPairs, sites_csv: Path, tmp_path: Path, no_libraries: None) -> None:
    rules = (
        (beacon(QUICKNET), "py_ecc cannot be loaded", drand_rule(round=QUICKNET["round"])),
        (beacon(NIST, certificate=CERTIFICATE), "cryptography cannot be loaded", nist_rule(time=NIST["pulse"]["timeStamp"], chain=1)),
    )
    for k, (seed, says, rule) in enumerate(rules):
        assert says in (seed.evidence or {})["checked"]["not_checked"]
        named = plan.with_seed_rule(rule)
        certificate = named.draw(seed=seed).certificate
        assert certificate.record["seed"]["anchored"] is False and "by its hash only" in certificate.record["seed"]["anchor"]
        found = verify(certificate, sites_csv, commitment=named.commitment)
        assert not found.seed_anchored and any("checked by its hash only" in note and says in note for note in found.notes)
        named.save(tmp_path / f"{k}.json")
        with pytest.raises(InputError, match="its signature was not checked"):
            draw_once(tmp_path / f"{k}.json", tmp_path / f"a{k}.json", seed=seed)


def test_a_certificate_says_what_was_checked_and_it_is_checked_again(
    plan: WithinPairs, sites_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = plan.with_seed_rule(drand_rule(round=QUICKNET["round"]))
    certificate = named.draw(seed=beacon(QUICKNET)).certificate
    evidence = certificate.record["seed"]["evidence"]
    assert evidence["chain"] == {"name": "quicknet", "hash": drand.CHAINS["quicknet"].hash}
    assert evidence["checked"] == {
        "hash": "randomness = SHA-256(signature)",
        "signature": f"BLS12-381, bls-unchained-g1-rfc9380, public key {drand.CHAINS['quicknet'].public_key}",
        "not_checked": None,
    }
    assert certificate.record["seed"]["anchor"] == "drand quicknet round 657413, named in the plan; its hash and its signature hold"
    found = verify(certificate, sites_csv, commitment=named.commitment)
    assert found.seed_anchored and dict(found.checks)["pulse"].startswith(
        "drand round 657413: randomness = SHA-256(signature); signature: BLS"
    )
    # years later, without the library: the certificate verifies, and the seed's origin is not vouched for
    bls.verified.cache_clear()
    with monkeypatch.context() as patch:
        for name in [m for m in sys.modules if m.partition(".")[0] == "py_ecc"]:
            patch.setitem(sys.modules, name, None)
        late = verify(certificate, sites_csv, commitment=named.commitment)
    assert late.anchored and not late.seed_anchored and any("py_ecc cannot be loaded" in note for note in late.notes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"checked": None}, "does not say what was checked"),
        ({"checked": {"hash": "x", "signature": None, "not_checked": "y"}}, "does not say what was checked"),
        ({"checked": {**beacons.read(NIST).evidence["checked"], "not_checked": None}}, "does not say what was checked"),
        ({"chain": {"name": "quicknet"}}, "does not name the beacon's chain"),
        ({"chain": {"name": "default", "hash": drand.CHAINS["quicknet"].hash}}, "other things of the pulse"),
        ({"chain": {"name": "default", "hash": drand.CHAINS["default"].hash}}, "does not hold"),
        (DEFAULT_WITHOUT, "other things of the pulse"),
        ({"chain": {"name": "quicknet", "hash": "0" * 64}}, "is damaged"),
        ({"certificate": 5}, "is not text"),
        ({"pulse": signed_by_another(657413)}, "does not hold"),
        ({"more": 1}, "other things of the pulse"),
    ],
)
def test_evidence_that_says_more_than_its_pulse_shows(change: dict[str, Any], says: str) -> None:
    record = beacon(QUICKNET).to_dict()
    record["evidence"].update(change)
    with pytest.raises(VerificationError, match=says):
        seeds.from_dict(record)


def test_evidence_from_before_signatures_were_checked(plan: WithinPairs, sites_csv: Path) -> None:
    """Certificates of then hold the pulse alone. A true one verifies for ever; one that was made up is found today."""

    def of_then(pulse: dict[str, Any]) -> seeds.Seed:
        text = hashlib.sha256(bytes.fromhex(pulse["signature"])).hexdigest()
        return seeds.Seed(text=text, source=f"drand round {pulse['round']}", kind="drand", evidence={"pulse": pulse})

    named = plan.with_seed_rule(drand_rule(round=QUICKNET["round"]))
    certificate = named.draw(seed=of_then(QUICKNET)).certificate
    assert certificate.record["seed"]["anchor"] == "drand quicknet round 657413, named in the plan"
    assert verify(certificate, sites_csv, commitment=named.commitment).seed_anchored
    forged = named.draw(seed=of_then(signed_by_another(QUICKNET["round"]))).certificate
    with pytest.raises(VerificationError, match="not a true pulse of that chain"):
        verify(forged, sites_csv, commitment=named.commitment)
    # the chained pulse of then lacks what its signature needs: consistent, and no anchor
    without = {k: v for k, v in DEFAULT.items() if k != "previous_signature"}
    named = plan.with_seed_rule(drand_rule(round=DEFAULT["round"], chain="default"))
    found = verify(named.draw(seed=of_then(without)).certificate, sites_csv, commitment=named.commitment)
    assert found.anchored and not found.seed_anchored and any("by its hash only" in note for note in found.notes)
