"""The seed: where it came from, how much it can reach, and whether it was fixed outside after the plan.

A draw is only as good as its seed. Whoever can try seeds until the allocation pleases has no random
allocation, so there is no default seed, a seed's source is recorded, a seed typed by the user is marked NOT
ANCHORED, and a short one draws a warning. Anchored is a seed that nobody could choose: a pulse of a public
beacon or the two halves of a commit-then-reveal, **named in the plan before they existed**.
"""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

import numpy as np

from trialkit import door
from trialkit.allocation import beacons, drand, nist
from trialkit.door import InputError, VerificationError

NOT_ANCHORED = "NOT ANCHORED"
STRONG_BITS = 128
# below this many spare bits the seeds do not cover the allocations evenly: relative unevenness about 2^-(bits/2)
_SPARE_BITS = 20
_WHERE_FROM = "ask a person outside the study for 32 hexadecimal digits (random.org, dice), or use a beacon's pulse"


class ShortSeedWarning(UserWarning):
    """A seed too short to reach the plan's allocations evenly, or at all."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A seed as published, and what is known of its origin.

    Attributes
    ----------
    text : str
        The seed; its UTF-8 bytes are the key of every draw.
    source : str
        Who or what produced it, in words.
    kind : str
        ``typed``, ``drand``, ``nist`` or ``reveal``.
    evidence : mapping
        What proves the origin: the beacon's pulse, or the revealed halves with their commitments.
    """

    text: str
    source: str
    kind: str = "typed"
    evidence: Mapping[str, Any] | None = None

    @property
    def key(self) -> bytes:
        """The bytes that enter the draw."""
        return self.text.encode("utf-8")

    @property
    def bits(self) -> float:
        """An upper bound on the seed's entropy: log2 of the number of seeds of its length and alphabet."""
        return len(self.text) * math.log2(_alphabet(self.text))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "text": self.text,
            "source": self.source,
            "kind": self.kind,
            "evidence": None if self.evidence is None else dict(self.evidence),
        }


def _alphabet(text: str) -> int:
    if re.fullmatch(r"[0-9]+", text):
        return 10
    if re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", text):
        return 16
    return 64 if text.isascii() else 95


def checked(seed: Any, seed_source: Any) -> Seed:
    """The seed a caller gave, as text, or an InputError that says why it cannot be one.

    Parameters
    ----------
    seed : str, int or Seed
        Text enters as its UTF-8 bytes, exactly as published; an int as its decimal digits.
    seed_source : str
        Where it came from; needed unless `seed` carries its own source.
    """
    if isinstance(seed, Seed):
        return seed
    if seed is None:
        raise InputError(f"no seed was given, and there is no default: two trials that forgot theirs would share one. Now {_WHERE_FROM}.")
    if isinstance(seed, bool | np.bool_):
        raise InputError(f"seed={seed!r} is a truth value, not a seed. Give text or a whole number as published.")
    if isinstance(seed, int | np.integer):
        if seed < 0:
            raise InputError(
                f"seed={seed} is negative; a seed given as a number is its decimal digits. Give it as text if the sign belongs to it."
            )
        text = str(int(seed))
    elif isinstance(seed, str):
        text = seed
    else:
        raise InputError(f"a seed is text or a whole number, not {type(seed).__name__}: its published digits are what enters the draw.")
    if not text.strip():
        raise InputError(f"the seed is empty, and there is no default. Now {_WHERE_FROM}.")
    if text != text.strip() or any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in text):
        raise InputError(
            f"the seed {door.printable(text)!r} has blanks at its ends or characters nobody can see; "
            "the bytes published and the bytes used must be the same. Remove them."
        )
    if seed_source is None or not isinstance(seed_source, str) or not seed_source.strip():
        raise InputError(
            'the seed has no source. Say who or what produced it: seed_source="random.org, by A. Outside, 1 September, by e-mail" '
            "(at the command line --seed-source)."
        )
    if any(unicodedata.category(c) == "Cs" for c in seed_source):
        raise InputError("the seed's source holds characters that are no text. Write it in plain words.")
    return Seed(text=text, source=seed_source.strip())


def shortage(seed: Seed, n_assignments: int) -> str | None:
    """The warning a short seed deserves, or None.

    A seed of b bits is one of 2^b, so it reaches at most 2^b of the plan's allocations. It is called short when
    b is below 128 and below log2(allocations) + 20, where the allocations are no longer reached about equally.
    """
    if seed.bits >= STRONG_BITS or seed.bits >= math.log2(max(n_assignments, 1)) + _SPARE_BITS:
        return None
    reach = _alphabet(seed.text) ** len(seed.text)
    kind = {10: "decimal digits", 16: "hexadecimal digits"}.get(_alphabet(seed.text), "characters")
    what = f"a seed of {len(seed.text)} {kind} is one of {reach:,}"
    if reach < n_assignments:
        share = Fraction(n_assignments, reach)
        tail = f"so it reaches at most {reach:,} of the plan's {n_assignments:,} allocations (about 1 in {round(share):,})"
    else:
        tail = f"too few to reach the plan's {n_assignments:,} allocations evenly, and few enough to try them all"
    return f"{what}, {tail}; next time {_WHERE_FROM}"


def warn(words: str | None) -> None:
    """Warn where the draw was asked for, two calls up."""
    if words is not None:
        warnings.warn(words, ShortSeedWarning, stacklevel=3)


# --- rules: what the plan says, in advance, about its seed -------------------------------------------------------


def drand_rule(*, round: int, chain: str | Mapping[str, Any] = "quicknet") -> dict[str, Any]:
    """The seed will be round `round` of the drand beacon `chain`: name one that lies after the plan's publication.

    Parameters
    ----------
    round : int
        From 1 up.
    chain : {"quicknet", "default"} or mapping
        A round every 3 seconds, or every 30; any other chain by the JSON of its ``/info``, which then stands in the plan
        with its public key.
    """
    of = beacons.chain_named(chain)
    if isinstance(round, bool) or not isinstance(round, int | np.integer) or not 1 <= round <= 10**9:
        raise InputError(f"round={round!r} is no round of the drand beacon; give a whole number from 1 up (to a milliard).")
    of.time(int(round))
    named = next((name for name, c in drand.CHAINS.items() if c == of), None)
    if named is not None:
        return {"beacon": "drand", "chain": named, "round": int(round)}
    return {"beacon": "drand", "chain": of.hash, "round": int(round), "info": of.to_info()}


def _chain_of_rule(rule: Mapping[str, Any]) -> drand.Chain | None:
    """The chain that a drand rule names; None where the rule names none that can be read."""
    try:
        of = drand.chain_of_info(rule["info"]) if isinstance(rule.get("info"), Mapping) else drand.known(str(rule.get("chain")))
    except InputError:
        return None
    return of if of is not None and rule.get("chain") in (of.hash, drand.name_of(of)) else None


def nist_rule(*, time: str, chain: int = 2) -> dict[str, Any]:
    """The seed will be the NIST beacon's pulse of that time, a whole minute in UTC (``2026-09-01T12:00:00.000Z``)."""
    nist.pulse_time(time)
    return {"beacon": "nist", "chain": int(chain), "time": str(time)}


def reveal_rule(commitments: Mapping[str, str]) -> dict[str, Any]:
    """The seed will be made of the secrets behind these commitments (who -> `commit`), from at least two parties."""
    if len(commitments) < 2:
        raise InputError("a commit-then-reveal needs at least two parties; one alone could choose its secret. Add the other's commitment.")
    return {"reveal": {who: commitments[who] for who in sorted(commitments)}}


def published(rule: Mapping[str, Any] | str | None) -> datetime | None:
    """When the pulse that a rule names comes into the world (UTC); None for any other rule."""
    if isinstance(rule, Mapping) and rule.get("beacon") == "drand":
        of = _chain_of_rule(rule)
        return None if of is None else of.time(int(rule["round"]))
    if isinstance(rule, Mapping) and rule.get("beacon") == "nist":
        return nist.pulse_time(str(rule["time"]))
    return None


def keep_rule(seed: Seed, rule: Mapping[str, Any] | str | None) -> None:
    """A plan that named its seed in advance is drawn with that one: a plan is drawn once, and the wrong seed would spend it.

    Raises
    ------
    InputError
        The seed is another than the plan named, or a pulse whose signature was not checked.
    """
    if not isinstance(rule, Mapping):
        return
    if _is_named(seed, rule) and not _signed(seed):
        raise InputError(
            f"the plan says its seed will be {rule_words(rule)}, and this pulse says that it is that one, but its signature was not "
            f"checked: {(seed.evidence or {})['checked']['not_checked']}. Anybody could have made it so far, and a plan is drawn once."
        )
    if not anchored(seed, rule)[0]:
        raise InputError(
            f"the plan says its seed will be {rule_words(rule)}, and this one ({seed.source}) is another. "
            "Draw with the seed that was named; a plan is drawn once."
        )


def rule_words(rule: Mapping[str, Any] | str) -> str:
    """A rule for the seed in words."""
    if isinstance(rule, str):
        return rule.rstrip(".")
    if rule.get("beacon") == "drand":
        chain = str(rule["chain"])
        return f"round {rule['round']} of the drand beacon {chain if chain in drand.CHAINS else f'{chain[:12]}...'}"
    if rule.get("beacon") == "nist":
        return f"the NIST beacon's pulse of {rule['time']}, chain {rule['chain']}"
    return f"what {' and '.join(sorted(map(str, rule.get('reveal', {}))))} reveal"


def anchored(seed: Seed, rule: Mapping[str, Any] | str | None) -> tuple[bool, str]:
    """Whether the seed is the one that the plan's rule fixed in advance, and why (not)."""
    if seed.kind == "typed":
        return False, f"{NOT_ANCHORED}: the seed was typed in; that nobody chose it rests on the word of: {seed.source}"
    if not isinstance(rule, Mapping):
        return False, f"{NOT_ANCHORED}: the plan did not name the {seed.kind} value in advance, so another could have been waited for"
    if not _is_named(seed, rule):
        return False, f"{NOT_ANCHORED}: the seed is not the value that the plan named in advance"
    if seed.kind == "reveal":
        return True, f"revealed by {' and '.join(sorted(rule['reveal']))}, whose commitments are in the plan"
    if seed.kind == "drand":
        chain = str(rule["chain"])
        what = f"drand {chain if chain in drand.CHAINS else f'{chain[:12]}...'} round {rule['round']}, named in the plan"
    else:
        what = f"NIST beacon, chain {rule['chain']}, pulse of {rule['time']}, named in the plan"
    checked = (seed.evidence or {}).get("checked")
    if checked is None:  # written before signatures were checked; `verify` checks them now
        return True, what
    if not _signed(seed):
        return False, f"{NOT_ANCHORED}: {what}, but checked by its hash only ({checked['not_checked']}); anybody could have made it"
    return True, f"{what}; its hash and its signature hold"


def _is_named(seed: Seed, rule: Mapping[str, Any]) -> bool:
    """Whether the seed says of itself that it is the value the rule named."""
    evidence = seed.evidence or {}
    pulse = evidence.get("pulse", {})
    if seed.kind == "drand" and rule.get("beacon") == "drand" and rule.get("round") == pulse.get("round"):
        of, told = _chain_of_rule(rule), evidence.get("chain")
        return of is not None and (drand.could_be_of(pulse, of) if told is None else told["hash"] == of.hash)
    if seed.kind == "nist":
        return bool(
            rule.get("beacon") == "nist" and rule.get("time") == pulse.get("timeStamp") and rule.get("chain") == pulse.get("chainIndex")
        )
    if seed.kind == "reveal" and isinstance(rule.get("reveal"), Mapping):
        return dict(rule["reveal"]) == {part["who"]: part["commitment"] for part in evidence.get("parts", [])}
    return False


def _signed(seed: Seed) -> bool:
    """Whether the evidence, as far as it speaks of signatures, says that the pulse's holds."""
    evidence = seed.evidence or {}
    return "checked" not in evidence or beacons.signature_stored(evidence)


# --- commit, then reveal -----------------------------------------------------------------------------------------

_LEAST_SECRET = 16


def commit(secret: str, *, who: str, digest: str) -> str:
    """The commitment one party publishes before the draw: SHA-256 of its secret, its name and the plan's digest.

    Parameters
    ----------
    secret : str
        At least 16 characters that nobody can guess; kept until the reveal.
    who : str
        The party's name.
    digest : str
        ``plan.digest``.

    Returns
    -------
    str
        64 hexadecimal digits; they say nothing of the secret and bind the party to it.
    """
    if len(secret) < _LEAST_SECRET:
        raise InputError(
            f"the secret of {who} has {len(secret)} characters; whoever can guess it breaks the seal. Take {_LEAST_SECRET} or more."
        )
    if any(c in f"{secret}{who}" for c in "\n\t"):
        raise InputError("a secret and a name stay on one line without tabs. Take letters and digits.")
    return door.sha256_bytes(f"trialkit-commit-1\n{digest}\n{who}\n{secret}".encode())


def reveal(parts: Sequence[tuple[str, str, str]], *, digest: str) -> Seed:
    """The seed made of the parties' secrets, once all commitments were published.

    Parameters
    ----------
    parts : sequence of (who, secret, commitment)
    digest : str
        ``plan.digest``.

    Raises
    ------
    VerificationError
        A secret is not the one its commitment was made of.
    """
    if len(parts) < 2 or len({who for who, _, _ in parts}) < len(parts):
        raise InputError("a reveal needs the secrets of at least two different parties. Give (who, secret, commitment) of each.")
    for who, secret, commitment in parts:
        if commit(secret, who=who, digest=digest) != commitment.strip().lower():
            raise VerificationError(
                f"the secret of {who} does not fit the commitment {commitment[:12]}...: not the secret published for this plan."
            )
    ordered = sorted(parts)
    body = "".join(f"{who}\t{secret}\n" for who, secret, _ in ordered)
    text = door.sha256_bytes(f"trialkit-seed-1\n{digest}\n{body}".encode())
    evidence = {"parts": [{"who": w, "secret": s, "commitment": c.strip().lower()} for w, s, c in ordered], "plan": digest}
    return Seed(text=text, source=f"commit-then-reveal by {' and '.join(w for w, _, _ in ordered)}", kind="reveal", evidence=evidence)


# --- beacons -----------------------------------------------------------------------------------------------------


def beacon(pulse: str | Mapping[str, Any], *, chain: str | Mapping[str, Any] | None = None, certificate: str | None = None) -> Seed:
    """The seed in a public beacon's pulse, checked offline: by its hash, and by its signature.

    Parameters
    ----------
    pulse : str or mapping
        The JSON that drand (``round``, ``signature``, ``previous_signature`` where its chain has one, ``randomness``) or the
        NIST beacon 2.0 (``pulse``) publishes.
    chain : str or mapping, optional
        drand only: ``quicknet``, ``default``, or the JSON of another chain's ``/info``. Left out, the one of the two that has
        signatures of this length.
    certificate : str, optional
        NIST only: the certificate that the pulse names, as PEM text; the authorities that issued it may follow.

    Returns
    -------
    Seed
        drand: its ``randomness``, SHA-256 of the signature. NIST: its ``outputValue``, SHA-512 of the pulse's fields and
        signature. Lower-case hexadecimal. ``evidence["checked"]`` says what was checked: a pulse whose signature was not
        (the certificate or the previous signature is lacking, or a library) is no anchor for the seed.

    Raises
    ------
    VerificationError
        The value does not follow from the pulse's own fields, or the signature does not hold.

    Notes
    -----
    drand: a BLS signature on BLS12-381 under the chain's public key (schemes of `drand.SCHEMES`). NIST: RSA with SHA-512 over
    the pulse's fields (NISTIR 8213), under a certificate of SHA-512 ``certificateId`` that was issued for the beacon's host.

    Examples
    --------
    >>> beacon('{"round": 1, "randomness": "00", "signature": "00"}')
    Traceback (most recent call last):
    ...
    trialkit.door.VerificationError: the drand pulse of round 1 says randomness 00..., ...
    """
    found = beacons.read(pulse, chain=chain, certificate=certificate)
    return Seed(text=found.text, source=found.source, kind=found.kind, evidence=found.evidence)


def rechecked(seed: Seed) -> tuple[bool, str] | None:
    """What a beacon's pulse shows today: whether its signature holds, and how or why that is not known. None for other seeds.

    Raises
    ------
    VerificationError
        The pulse is not true.
    """
    if seed.kind not in beacons.HASHES:
        return None
    found = beacons.again(seed.evidence or {})
    return bool(found.signed), f"{found.source}: {beacons.HASHES[found.kind]}; " + (
        f"signature: {found.how}" if found.signed else found.how
    )


def from_dict(record: Mapping[str, Any]) -> Seed:
    """A seed out of a certificate; a beacon's pulse and revealed secrets are checked again.

    Raises
    ------
    VerificationError
        The evidence does not give this seed.
    """
    kind = record.get("kind")
    text, source, evidence = record.get("text"), record.get("source"), record.get("evidence")
    if not isinstance(text, str) or not isinstance(source, str):
        raise VerificationError("the certificate's seed is not text. The file has been edited.")
    if kind == "typed":
        return Seed(text=text, source=source)
    if not isinstance(evidence, Mapping):
        raise VerificationError(f"the seed is said to come from {door.printable(kind)}, but the certificate holds no evidence of it.")
    if kind not in ("drand", "nist", "reveal"):
        raise VerificationError(f"the certificate's seed is of an unknown kind, {door.printable(kind)!r}. The file has been edited.")
    try:
        if kind == "reveal":
            parts = [(str(p["who"]), str(p["secret"]), str(p["commitment"])) for p in evidence["parts"]]
            seed = reveal(parts, digest=str(evidence["plan"]))
        else:
            found = beacons.again(evidence)
            seed = Seed(text=found.text, source=found.source, kind=found.kind, evidence=found.evidence)
    except VerificationError:
        raise
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"the evidence of the seed is damaged ({error}). Take the original file.") from None
    if seed.text != text or seed.kind != kind:
        raise VerificationError("the seed does not follow from its evidence (the beacon's pulse or the revealed secrets).")
    return Seed(text=text, source=source, kind=str(kind), evidence=dict(evidence))
