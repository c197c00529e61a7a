"""One way of writing a record as JSON, and one digest of what it says.

A file of ours holds plain data only. Reading is strict: a key twice, NaN or Infinity are refused, because
Python's reader would take them in silence. The digest is of the content, not of the layout, so a change of
white space can be told from a change of meaning.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trialkit import door
from trialkit.door import InputError

Record = dict[str, Any]
DIGEST_KEY = "sha256"


def content(record: Any) -> bytes:
    """The bytes a digest is taken of: keys sorted, no white space, UTF-8."""
    return json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def digest(record: Any) -> str:
    """SHA-256 of the content."""
    return door.sha256_bytes(content(record))


def sealed(record: Record) -> Record:
    """The record with its own digest as the last entry."""
    body = {key: value for key, value in record.items() if key != DIGEST_KEY}
    return {**body, DIGEST_KEY: digest(body)}


def is_sealed(record: Record) -> bool:
    """Whether the record's own digest is that of its content."""
    return record.get(DIGEST_KEY) == digest({key: value for key, value in record.items() if key != DIGEST_KEY})


def dumps(record: Any) -> str:
    """The record as we lay it out: one entry a line, a list of plain values on one line."""
    return _lay(record, "") + "\n"


def _plain(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _lay(value: Any, pad: str) -> str:
    inner = pad + " "
    if isinstance(value, dict) and value:
        body = ",\n".join(f"{inner}{_one(str(key))}: {_lay(item, inner)}" for key, item in value.items())
        return f"{{\n{body}\n{pad}}}"
    if isinstance(value, list) and value and not all(_plain(item) for item in value):
        body = ",\n".join(f"{inner}{_lay(item, inner)}" for item in value)
        return f"[\n{body}\n{pad}]"
    return _one(value)


def _one(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def loads(text: str, *, where: str) -> Record:
    """A record from JSON text, strictly.

    Raises
    ------
    InputError
        Not JSON, not an object, a key twice, or a number JSON does not know.
    """
    try:
        record = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
        content(record)  # 1e999 and lone surrogates pass the reader and have no content
    except _Twice as error:
        raise InputError(f"{where}: the key {error} stands twice in one object, so it says two things. The file has been edited.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not a JSON file of ours ({error}). It has been cut or edited; take the original.") from None
    if not isinstance(record, dict):
        raise InputError(f"{where} holds {type(record).__name__}, not a JSON object. It is not a file of ours.")
    return record


def read(path: str | Path) -> tuple[Record, bytes]:
    """A record from a file, with the bytes it was read from."""
    data = _bytes(Path(path))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte 0x{data[error.start]:02x} is not UTF-8. The file has been damaged; take the original.") from None
    return loads(text, where=str(path)), data


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Check the path.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, not a file.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from None


class _Twice(ValueError):
    """A key that stands twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> Record:
    record: Record = {}
    for key, value in pairs:
        if key in record:
            raise _Twice(repr(key))
        record[key] = value
    return record


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")
