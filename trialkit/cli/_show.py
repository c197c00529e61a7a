"""What the subcommands share: printing JSON, progress on standard error, folders for output."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd


def plain(value: Any) -> Any:
    """A value as JSON can say it: NumPy scalars unwrapped, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, str | bool | int) or value is None:
        return value
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return plain(value.item())
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame as a list of JSON objects, missing cells as null."""
    plain_cells = frame.astype(object).where(frame.notna(), None)
    return [{str(k): plain(v) for k, v in record.items()} for record in plain_cells.to_dict(orient="records")]


def print_json(value: Any) -> None:
    """One JSON object on standard output, and nothing else."""
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def say(message: str, *, quiet: bool = False) -> None:
    """Chatter, on standard error."""
    if not quiet:
        typer.echo(message, err=True)


@contextlib.contextmanager
def told_of(what: str, file: Path) -> Iterator[None]:
    """Errors that speak of a table, as the Python verbs do, name the file it came from."""
    from trialkit.door import InputError

    try:
        yield
    except InputError as error:
        if what in str(error):
            raise type(error)(str(error).replace(what, f"{file}, {what}", 1)) from error
        raise


def check_folder(path: Path, names: list[str], *, force: bool) -> None:
    """Complain, before any work is done, of a folder that cannot take the output."""
    from trialkit.door import InputError, Refused

    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, so results cannot be written into it. Name a folder with -o.")
    taken = [name for name in names if (path / name).exists()]
    if taken and not force:
        raise Refused(f"{path / taken[0]} exists already and is not overwritten. Name another folder with -o, or say --force.")


def new_folder(path: Path, names: list[str], *, force: bool) -> Path:
    """A folder for output: made if it is not there; files it holds are refused without `force`."""
    from trialkit.door import WriteError

    check_folder(path, names, force=force)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"the folder {path} could not be made: {error.strerror}. Name another with -o.") from None
    return path


def numbers_list(text: str, *, option: str) -> list[float]:
    """``.01,.05,.1`` as numbers, ASCII only."""
    from trialkit.door import InputError, is_number

    parts = [part.strip() for part in text.split(",")]
    if not all(is_number(part) for part in parts):
        raise InputError(f"{option} {text!r} is not a number, nor numbers separated by commas.")
    values = [float(part) for part in parts]
    if not all(math.isfinite(v) for v in values):
        raise InputError(f"{option} {text!r}: only finite numbers make sense here.")
    return values
