"""Who may see what: arms coded A, B for the analysts, with the key apart; one site at a time for recruiters."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from trialkit import door
from trialkit._kernels import draws as hashing
from trialkit.allocation import canonical
from trialkit.allocation.allocated import Allocation
from trialkit.allocation.certificate import Certificate, sound
from trialkit.allocation.log import opened_for
from trialkit.door import InputError, Refused, VerificationError
from trialkit.results import Table

Drawn = Allocation | Certificate | Mapping[str, Any] | str | os.PathLike[str]
KEY_SCHEMA = "trialkit-blinding-key-1"
_LEAST_SECRET = 16


def blind(allocation: Drawn, *, secret: str | None = None) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """The allocation's table with arms coded A, B, ..., and the key to them.

    Parameters
    ----------
    allocation : Allocation, Certificate, mapping or path
        What was drawn.
    secret : str, optional
        Decides which arm is A, at least 16 characters; by default 128 fresh random bits, kept in the key.

    Returns
    -------
    (DataFrame, mapping)
        The coded table, and the key: ``letters`` (letter -> arm), the secret, and the certificate it belongs to.
    """
    chosen = secrets.token_hex(16) if secret is None else secret
    if len(chosen) < _LEAST_SECRET:
        raise InputError(
            f"the blinding secret has {len(chosen)} characters, so the code could be guessed. Take {_LEAST_SECRET} or more, or none."
        )
    given = allocation.certificate if isinstance(allocation, Allocation) else sound(allocation)
    arms = [str(a) for a in given.record["plan"]["arms"]]
    letters = [chr(ord("A") + k) for k in range(len(arms))]
    order, _ = hashing.shuffle(chosen.encode("utf-8"), given.plan_digest, "blinding", arms)
    letter_of = dict(zip(order, letters, strict=True))
    frame = given.frame
    frame["arm"] = pd.Series([letter_of[a] if isinstance(a, str) else None for a in frame["arm"].tolist()], dtype="str")
    key = canonical.sealed(
        {
            "schema": KEY_SCHEMA,
            "certificate_sha256": given.digest,
            "plan": given.plan_digest,
            "secret": chosen,
            "letters": {letter: arm for arm, letter in sorted(letter_of.items(), key=lambda pair: pair[1])},
        }
    )
    return frame, key


def save_blinded(
    allocation: Drawn, path: str | os.PathLike[str], key_path: str | os.PathLike[str], *, secret: str | None = None
) -> pd.DataFrame:
    """Write the coded table as CSV and its key as JSON, for their owners' eyes only, neither over an existing file.

    The key is written first: a coded table without its key would be lost.
    """
    frame, key = blind(allocation, secret=secret)
    if Path(path).exists():  # before the key: a key without its table would be in the way
        raise Refused(f"{path} exists already and is not overwritten. Choose another name.")
    door.write_once(key_path, canonical.dumps(dict(key)), mode=0o600)
    door.write_once(path, Table(frame).to_csv(), mode=0o600)
    return frame


def unblind(frame: pd.DataFrame, key: Mapping[str, Any] | str | os.PathLike[str]) -> pd.DataFrame:
    """The coded table with its arms' names again.

    Raises
    ------
    VerificationError
        The key was changed, or does not know a letter.
    """
    record: Mapping[str, Any] = key if isinstance(key, Mapping) else canonical.read(str(key))[0]
    if record.get("schema") != KEY_SCHEMA or not canonical.is_sealed(dict(record)):
        raise VerificationError("the blinding key was changed after it was written, or is none. Take the original.")
    letters = record["letters"]
    out = frame.copy()
    coded = out["arm"].tolist()
    unknown = sorted({a for a in coded if isinstance(a, str) and a not in letters})
    if unknown:
        raise VerificationError(f"the key does not know the arm {door.printable(unknown[0])!r}: another table's key.")
    out["arm"] = pd.Series([letters[a] if isinstance(a, str) else None for a in coded], dtype="str", index=out.index)
    return out


def release(
    certificate: Certificate | Mapping[str, Any] | str | os.PathLike[str],
    site: str,
    *,
    to: str,
    log: str | os.PathLike[str],
) -> str:
    """One site's arm for one person, written in the log before it is told.

    Raises
    ------
    InputError
        The site has no arm in the certificate, or nobody is named.
    """
    given = sound(certificate)
    if not to.strip():
        raise InputError("nobody was named to release the arm to. Say who asks: to='A. Recruiter'.")
    arm = given.arms.get(site)
    if arm is None:
        raise InputError(
            f"site {door.printable(site)} has no arm in this certificate. {door.unknown_word(site, list(given.arms), what='site')}"
        )
    with opened_for(given, log) as held:
        held.append("released", plan=given.plan_digest, site=site, to=to.strip(), certificate=given.digest)
    return arm
