"""The allocation certificate: one JSON from which anybody can derive the arms again, without the solver and without us.

It holds the sites' declared columns with their digests, the criteria, totals and dual certificate of the matching,
the plan text with its digest, the seed with its evidence, every hash that was drawn, the arms, the balance, the
versions and the time; and its own SHA-256, so that a changed byte shows. It is written once, for its owner's eyes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trialkit import door
from trialkit.allocation import canonical, seeds
from trialkit.door import InputError, VerificationError
from trialkit.results import Provenance

if TYPE_CHECKING:
    from trialkit.allocation.allocated import Allocation

CERTIFICATE_SCHEMA = "trialkit-certificate-1"


@dataclass(frozen=True)
class Certificate:
    """A certificate's data.

    Attributes
    ----------
    record : mapping
        What the file says.
    layout_intact : bool
        Whether the file it was read from had our layout byte for byte; a difference there has no meaning.
    """

    record: Mapping[str, Any]
    layout_intact: bool = True

    @classmethod
    def of(cls, allocation: Allocation) -> Certificate:
        """The certificate of an allocation."""
        plan = allocation.plan
        ok, why = seeds.anchored(allocation.seed, plan.seed_rule)
        balance = _balance_rows(allocation)
        record = {
            "schema": CERTIFICATE_SCHEMA,
            "plan": plan.to_dict(),
            "seed": {
                **allocation.seed.to_dict(),
                "bits_at_most": round(allocation.seed.bits, 1),
                "anchored": ok,
                "anchor": why,
                "warning": allocation.warning,
            },
            "draws": [[d.label, d.m, d.counter, d.hmac, d.value] for d in allocation.draws],
            "arms": [[s, allocation.arms.get(s)] for s in plan.sites],
            "balance": balance,
            "attempts": allocation.attempts,
            "log_head": allocation.log_head,
            "drawn_at": allocation.drawn_at,
            "versions": dict(Provenance.now().versions),
            "source_sha256": source_digest(),
        }
        return cls(canonical.sealed(record))

    @property
    def digest(self) -> str:
        """SHA-256 of the certificate's content."""
        return str(self.record[canonical.DIGEST_KEY])

    @property
    def plan_digest(self) -> str:
        """The digest P of the plan that was drawn."""
        return str(self.record["plan"]["digest"])

    @property
    def id_column(self) -> str:
        """Name of the id column."""
        return str(self.record["plan"]["sites"]["id"])

    @property
    def arms(self) -> dict[str, str | None]:
        """Arm of each randomised site."""
        return {str(s): arm for s, arm in self.record["arms"]}

    @property
    def frame(self) -> pd.DataFrame:
        """The allocation's table again: the id column, ``pair`` or ``stratum`` where there is one, ``arm``, in the sites' row order."""
        plan, arms = self.record["plan"], self.arms
        rows = [str(s) for s in plan["rows"]]
        columns: dict[str, Any] = {self.id_column: pd.Series(rows, dtype="str")}
        for entry, name in (("labels", "pair"), ("strata", "stratum")):
            if entry in plan and not (entry == "strata" and plan.get("strata_columns") == []):
                groups = {str(s): group for s, group in plan[entry]}
                columns[name] = pd.Series([groups.get(s) for s in rows], dtype="str")
        columns["arm"] = pd.Series([arms.get(s) for s in rows], dtype="str")
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, a copy."""
        return canonical.loads(canonical.dumps(dict(self.record)), where="the certificate")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the certificate, whole or not at all, readable by its owner only; never over an existing file.

        Raises
        ------
        Refused
            The file exists: an allocation is never overwritten.
        WriteError
            The disk or the folder does not allow it.
        """
        door.write_once(path, canonical.dumps(dict(self.record)), mode=0o600)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Certificate:
        """Read a certificate; it is judged by `verify`, not here.

        Raises
        ------
        InputError
            No such file, or not a certificate.
        """
        record, data = canonical.read(Path(path))
        if record.get("schema") != CERTIFICATE_SCHEMA:
            seen = door.printable(record.get("schema"))
            raise InputError(f"{path} is not an allocation certificate (its schema is {seen!r}). Give the file that the draw wrote.")
        return cls(record, layout_intact=data == canonical.dumps(record).encode("utf-8"))

    def sealed_copy(self) -> dict[str, Any]:
        """The certificate without seed, hashes, arms and balance: it can be shown to the blind, and binds to the full one."""
        hidden = {key: self.record[key] for key in ("schema", "plan", "attempts", "log_head", "drawn_at", "versions", "source_sha256")}
        return canonical.sealed({**hidden, "schema": "trialkit-sealed-1", "certificate_sha256": self.digest})


def as_certificate(given: Certificate | Mapping[str, Any] | str | os.PathLike[str]) -> Certificate:
    """A certificate from itself, its data or its file."""
    if isinstance(given, Certificate):
        return given
    if isinstance(given, Mapping):
        if given.get("schema") != CERTIFICATE_SCHEMA:
            raise VerificationError("the data given are not an allocation certificate. Give a Certificate, its to_dict() or its file.")
        return Certificate(dict(given))
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"a certificate was expected (a Certificate, its to_dict() or its file), not {type(given).__name__}.")
    return Certificate.load(given)


def sound(given: Certificate | Mapping[str, Any] | str | os.PathLike[str]) -> Certificate:
    """A certificate whose own digest holds: enough to act on it, not to believe it (that is `verify`).

    Raises
    ------
    VerificationError
        It was changed after it was written.
    """
    certificate = as_certificate(given)
    if not canonical.is_sealed(dict(certificate.record)):
        raise VerificationError("the certificate's content does not give its own SHA-256: it was changed after it was written.")
    return certificate


def _balance_rows(allocation: Allocation) -> list[dict[str, Any]]:
    try:
        frame = allocation.balance().frame
    except InputError:  # every column is empty: nothing to compare
        return []
    return [{str(k): _cell(v) for k, v in row.items()} for row in frame.to_dict(orient="records")]


def _cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


@cache
def source_digest() -> str | None:
    """SHA-256 over the source files that decide an allocation; None where they cannot be read."""
    here = Path(__file__).parent
    files = sorted([*here.glob("*.py"), *(here.parent / "_kernels").glob("draws.py"), *(here.parent / "_kernels").glob("matching*.py")])
    try:
        parts = [f"{file.name} {door.sha256_bytes(file.read_bytes().replace(bytes([13, 10]), bytes([10])))}" for file in files]
    except OSError:
        return None
    return door.sha256_bytes("\n".join(parts).encode())
