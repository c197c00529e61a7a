"""The attempts' log: append-only, each line bound to the one before, written and synced before any result is shown.

A draw is made once. Whoever asks again is refused and the asking is written down; the certificate says how many
attempts there were. No local file can prove that nobody worked on a copy: that is what the commitment published
before the seed existed is for.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trialkit import door
from trialkit.allocation import canonical, seeds
from trialkit.allocation.allocated import Allocation
from trialkit.allocation.certificate import Certificate
from trialkit.allocation.plans import Plan
from trialkit.allocation.seeds import Seed
from trialkit.door import InputError, Refused, TrialkitError, VerificationError, WriteError

Line = dict[str, Any]
GENESIS = "0" * 64


class Log:
    """A file of JSON lines, each with its number, the hash of the line before and its own hash.

    Parameters
    ----------
    path : path
        The file; made with the first line, readable by its owner only.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def read(self) -> list[Line]:
        """All lines; the chain is checked.

        Raises
        ------
        InputError
            No such file.
        VerificationError
            A line was changed, cut out, put in or cut off in the middle.
        """
        if not self.path.exists():
            raise InputError(f"{self.path}: no such log. It is written beside the plan by the draw.")
        lines, torn = _parse(self.path.read_bytes(), self.path)
        if torn:
            raise VerificationError(
                f"{self.path} ends in the middle of a line: it was cut, or the writer was stopped. The next draw mends it."
            )
        return lines

    @property
    def head(self) -> str:
        """Hash of the last line: keep a copy elsewhere, and cutting the tail will show."""
        lines = self.read() if self.path.exists() else []
        return str(lines[-1]["sha256"]) if lines else GENESIS

    @contextlib.contextmanager
    def opened(self) -> Iterator[Session]:
        """Hold the log for oneself, look at its lines and add to them; others wait."""
        new = not self.path.exists()
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise WriteError(
                f"the log {self.path} could not be opened: {error.strerror}. A draw that cannot be logged is not made."
            ) from None
        try:
            _lock(handle, self.path)
            if new:
                _sync_folder(self.path.parent)
            yield Session(handle, self.path)
        finally:
            os.close(handle)


class Session:
    """The log while it is held."""

    def __init__(self, handle: int, path: Path) -> None:
        self._handle = handle
        self._path = path
        size = os.fstat(handle).st_size
        data = b""
        os.lseek(handle, 0, os.SEEK_SET)
        while len(data) < size:
            piece = os.read(handle, size - len(data))
            if not piece:
                break
            data += piece
        self.lines, torn = _parse(data, path)
        if torn:
            # a stopped writer's half line was never synced, so no result was shown under it; say so and go on
            self._truncate(len(data) - len(torn))
            self.append("mended", torn_bytes=len(torn), torn_sha256=door.sha256_bytes(torn))

    def append(self, event: str, **entries: Any) -> Line:
        """Add one line and wait until it is on the disk."""
        previous = str(self.lines[-1]["sha256"]) if self.lines else GENESIS
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body: Line = {"n": len(self.lines) + 1, "at": at, "event": event, "plan": None, **entries, "previous": previous}
        line = canonical.sealed(body)
        data = (json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode("utf-8")
        start = os.fstat(self._handle).st_size
        try:
            done = 0
            while done < len(data):
                done += os.write(self._handle, data[done:])
            os.fsync(self._handle)
        except OSError as error:
            self._truncate(start)
            raise WriteError(
                f"the log {self._path} could not be written: {error.strerror}. A draw that cannot be logged is not made."
            ) from None
        self.lines.append(line)
        return line

    def _truncate(self, size: int) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, size)
            os.fsync(self._handle)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some platforms cannot open a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _lock(handle: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError as error:
            raise WriteError(f"the log {path} is held by another draw ({error.strerror}). Try again when it has ended.") from None
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise WriteError(f"the log {path} cannot be locked here ({error.strerror}). Put the plan on a local disk.") from None


def _parse(data: bytes, path: Path) -> tuple[list[Line], bytes]:
    """The lines with their chain checked, and the bytes of a last line without its end."""
    *whole, torn = data.split(b"\n")
    lines: list[Line] = []
    previous = GENESIS
    for number, raw in enumerate(whole, start=1):
        where = f"{path}, line {number}"
        try:
            line = canonical.loads(raw.decode("utf-8"), where=where)
        except (UnicodeDecodeError, InputError):
            raise VerificationError(f"{where} is not a line of ours: it was changed.") from None
        wanted = ("n", "at", "event", "plan", "previous", canonical.DIGEST_KEY)
        if any(key not in line for key in wanted) or not canonical.is_sealed(line):
            raise VerificationError(f"{where}: its content does not give its own SHA-256: it was changed after it was written.")
        if line["previous"] != previous or line["n"] != number:
            raise VerificationError(f"{where} does not follow the line before it: a line was cut out, put in or moved.")
        if raw != json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8"):
            raise VerificationError(f"{where} is not laid out as it was written: it was edited.")
        lines.append(line)
        previous = str(line[canonical.DIGEST_KEY])
    return lines, torn


@contextlib.contextmanager
def opened_for(certificate: Certificate, log: str | os.PathLike[str]) -> Iterator[Session]:
    """The log that a certificate was written under, held.

    Raises
    ------
    InputError
        There is no such log, and the certificate names one.
    VerificationError
        It is another log, or its lines were cut off.
    """
    if certificate.record.get("log_head") is not None:
        Log(log).read()  # a wrong path must not begin a second log
    with Log(log).opened() as held:
        check_bound(certificate, held.lines, log)
        yield held


def check_bound(certificate: Certificate, lines: Sequence[Line], log: str | os.PathLike[str]) -> None:
    """The log holds the line that the certificate was written under."""
    head = certificate.record.get("log_head")
    if head is not None and all(line["sha256"] != head for line in lines):
        raise VerificationError(
            f"the log {log} does not hold the line that the certificate was written under: it is another plan's, "
            "or lines were cut off or replaced."
        )


# --- the one draw ------------------------------------------------------------------------------------------------


def log_path(plan_path: str | os.PathLike[str]) -> Path:
    """Where the attempts at a plan are written: ``plan.json`` -> ``plan.json.log``."""
    path = Path(plan_path)
    return path.with_name(f"{path.name}.log")


def draw_once(
    plan_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    *,
    seed: str | int | Seed | None,
    seed_source: str | None = None,
    log: str | os.PathLike[str] | None = None,
    csv_path: str | os.PathLike[str] | None = None,
) -> Allocation:
    """Draw a locked plan's allocation, once, and write its certificate.

    The attempt is in the log, synced, before anything is shown. Of several draws at the same time one wins. A draw
    that was stopped half-way can be taken up again with the same seed, and with no other.

    Parameters
    ----------
    plan_path : path
        The plan file (`Plan.save`).
    out_path : path
        The certificate to write; never over an existing file.
    seed, seed_source
        As for `Plan.draw`.
    log : path, optional
        The log; by default beside the plan, ``<plan>.log``.
    csv_path : path, optional
        Also write the allocation's table there (id, pair, arm), for its owner's eyes, never over an existing file.

    Returns
    -------
    Allocation
        With the number of attempts and the log's head.

    Raises
    ------
    Refused
        The plan was drawn before, or is being drawn with another seed, or `out_path` exists; the attempt is logged.
    VerificationError
        The plan file or the log was changed.
    InputError
        No seed, no source, another seed than the plan named in advance, or not a plan file.
    WriteError
        The log or the certificate cannot be written.
    """
    plan = Plan.load(plan_path)
    checked = seeds.checked(seed, seed_source)
    seeds.keep_rule(checked, plan.seed_rule)
    out = Path(out_path)
    targets = [out] if csv_path is None else [out, Path(csv_path)]
    for target in targets:
        if not target.parent.is_dir():
            raise WriteError(f"{target} could not be written: the folder {target.parent} does not exist. Make it first; nothing was drawn.")
    # binds the attempt to its seed without showing it
    mark = door.sha256_bytes(f"trialkit-attempt-1\n{plan.digest}\n{checked.text}".encode())
    with Log(log_path(plan_path) if log is None else log).opened() as held:
        _sweep(out)
        _refuse_second(held, plan, mark, targets)
        line = held.append("attempt", plan=plan.digest, commitment=plan.commitment, seed_mark=mark, out=out.name, seed_kind=checked.kind)
        attempts = sum(x["plan"] == plan.digest and is_attempt(x) for x in held.lines)
        allocation = plan.drawn(checked).logged(attempts=attempts, log_head=str(line["sha256"]))
        try:
            allocation.certificate.save(out)
        except TrialkitError as error:
            held.append("failed", plan=plan.digest, seed_mark=mark, why=type(error).__name__)
            raise
        held.append("drawn", plan=plan.digest, seed_mark=mark, out=out.name, certificate=allocation.certificate.digest)
    if csv_path is not None:
        door.write_once(csv_path, allocation.table().to_csv(), mode=0o600)
    seeds.warn(allocation.warning)
    return allocation


def _sweep(out: Path) -> None:
    """Remove what a stopped writer left of this certificate under a temporary name; nobody else writes while the log is held."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):
        left.unlink(missing_ok=True)


def _refuse_second(held: Session, plan: Plan, mark: str, targets: Sequence[Path]) -> None:
    mine = [line for line in held.lines if line["plan"] == plan.digest]
    for line in mine:
        if line["event"] == "drawn":
            _refuse(held, plan, mark, f"this plan was drawn at {line['at']} (certificate {line['out']}); a plan is drawn once")
    started = [line for line in mine if line["event"] == "attempt"]
    for line in started:
        # stopped between certificate and log: the draw is complete, only its last line is missing
        written = targets[0].parent / str(line["out"])
        if line["seed_mark"] == mark and written.exists() and _is_of(written, plan):
            held.append("drawn", plan=plan.digest, seed_mark=mark, out=written.name, certificate=Certificate.load(written).digest)
            _refuse(held, plan, mark, f"this plan was drawn at {line['at']} (certificate {written.name}); a plan is drawn once")
    if any(line["seed_mark"] != mark for line in started):
        _refuse(held, plan, mark, "a draw of this plan was begun with another seed; it can only be completed with that one")
    for target in targets:
        if target.exists():
            _refuse(held, plan, mark, f"{target} exists already; an allocation is never overwritten. Choose another name")


def _refuse(held: Session, plan: Plan, mark: str, why: str) -> None:
    held.append("refused", plan=plan.digest, seed_mark=mark, why=why)
    count = sum(x["plan"] == plan.digest and is_attempt(x) for x in held.lines)
    raise Refused(f"{why}. This was attempt {count}; it is in the log.")


def is_attempt(line: Line) -> bool:
    """Whether a line is somebody's asking for a draw, granted or refused."""
    return line["event"] in ("attempt", "refused")


def _is_of(path: Path, plan: Plan) -> bool:
    try:
        record: Mapping[str, Any] = Certificate.load(path).record
    except TrialkitError:
        return False
    entry = record.get("plan")
    return isinstance(entry, Mapping) and entry.get("digest") == plan.digest
