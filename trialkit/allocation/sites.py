"""The sites as the plan knew them: the columns that took part, cell by cell, in an order no file can change."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trialkit import door
from trialkit.allocation.measures import NOT_OBSERVED
from trialkit.door import InputError, VerificationError

Frame = pd.DataFrame


def by_bytes(ids: Sequence[str]) -> list[str]:
    """Ids in the order of their UTF-8 bytes: the one order that no locale changes."""
    return sorted(ids, key=lambda identifier: identifier.encode("utf-8"))


@dataclass(frozen=True)
class SiteRecord:
    """The declared columns of the sites table.

    Attributes
    ----------
    id : str
        Name of the id column.
    columns : tuple of (name, kind)
        ``kind`` is ``number`` or ``text``: how the column is to be read again.
    cells : mapping of id to tuple of str
        Canonical text of each cell, in the order of `columns`; empty when missing; ids by their UTF-8 bytes.
    name : str or None
        Name of the file the sites were read from, without its folders.
    raw_sha256 : str or None
        SHA-256 of that file's bytes.
    """

    id: str
    columns: tuple[tuple[str, str], ...]
    cells: Mapping[str, tuple[str, ...]]
    name: str | None = None
    raw_sha256: str | None = None

    @classmethod
    def from_frame(
        cls,
        frame: Frame,
        *,
        id: str,
        columns: Sequence[str] | None = None,
        numeric: Sequence[str] = (),
        source: str | os.PathLike[str] | None = None,
        where: str = "the sites table",
    ) -> SiteRecord:
        """Take the declared columns (all but the id by default) out of a table; those in `numeric` are numbers even as text."""
        names = [str(c) for c in frame.columns if str(c) != id] if columns is None else list(dict.fromkeys(columns))
        door.require_columns(frame, [id, *names], where=where, why="by the plan")
        plain = door.normalise(frame, text=(id,))
        ids = door.site_ids(plain, id, where=where)
        for identifier in ids:
            check_id(identifier, where=where)
        kinds = tuple((name, "number" if name in numeric or _is_number(plain[name]) else "text") for name in names)
        texts = [
            [_observed(door.cell_text(v)) if kind == "number" else door.cell_text(v) for v in plain[name].tolist()] for name, kind in kinds
        ]
        rows = {identifier: tuple(column[k] for column in texts) for k, identifier in enumerate(ids)}
        return cls(
            id=id,
            columns=kinds,
            cells={identifier: rows[identifier] for identifier in by_bytes(ids)},
            name=None if source is None else Path(source).name,
            raw_sha256=None if source is None else door.sha256_file(source),
        )

    @cached_property
    def canonical_sha256(self) -> str:
        """SHA-256 of what the declared columns say, whatever the order of rows and columns in the file."""
        names = [name for name, _ in self.columns]
        order = sorted(range(len(names)), key=lambda k: names[k].encode("utf-8"))
        lines = ["\x1f".join([self.id, *(names[k] for k in order)])]
        lines += ["\x1f".join([identifier, *(self.cells[identifier][k] for k in order)]) for identifier in by_bytes(list(self.cells))]
        return door.sha256_bytes("\x1e".join(lines).encode("utf-8"))

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids, by their UTF-8 bytes."""
        return tuple(self.cells)

    def frame(self, ids: Sequence[str] | None = None) -> Frame:
        """The record as a table again: numbers as float64, or as text in a column where float64 would change one of them."""
        chosen = self.ids if ids is None else tuple(ids)
        out: dict[str, Any] = {self.id: pd.Series(list(chosen), dtype="str")}
        for k, (name, kind) in enumerate(self.columns):
            texts = [self.cells[identifier][k] for identifier in chosen]
            if kind == "number" and all(held_by_float(t) for t in texts if t):
                out[name] = np.array([float(t) if t else np.nan for t in texts], dtype=np.float64)
            else:
                out[name] = pd.Series([t or None for t in texts], dtype="str")
        return pd.DataFrame(out, index=pd.RangeIndex(len(chosen)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data: file, digests, columns and cells."""
        return {
            "id": self.id,
            "file": self.name,
            "raw_sha256": self.raw_sha256,
            "canonical_sha256": self.canonical_sha256,
            "columns": [[name, kind] for name, kind in self.columns],
            "cells": [[identifier, *cells] for identifier, cells in self.cells.items()],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SiteRecord:
        """The record out of a plan file or a certificate; its canonical digest must be that of its cells."""
        try:
            columns = tuple((str(name), str(kind)) for name, kind in record["columns"])
            cells = {str(row[0]): tuple(str(cell) for cell in row[1:]) for row in record["cells"]}
            out = cls(id=str(record["id"]), columns=columns, cells=cells, name=record["file"], raw_sha256=record["raw_sha256"])
            claimed = record["canonical_sha256"]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise VerificationError(
                f"the record of the sites is damaged ({type(error).__name__}: {error}). Take the original file."
            ) from None
        if any(kind not in ("number", "text") for _, kind in columns) or not all(
            x is None or isinstance(x, str) for x in (out.name, out.raw_sha256)
        ):
            raise VerificationError(
                "the record of the sites names a kind of column, a file or a digest that is none. Take the original file."
            )
        short = [identifier for identifier, row in cells.items() if len(row) != len(columns)]
        if short or len(cells) != len(record["cells"]):
            named = short[0] if short else "a site that stands twice"
            raise VerificationError(f"the record of the sites is damaged at {door.printable(named)}. Take the original file.")
        if claimed != out.canonical_sha256:
            raise VerificationError("the cells of the sites' record do not give its canonical digest: a cell or the digest was changed.")
        return out


def check_id(identifier: str, *, where: str) -> None:
    """Refuse an id that would make two plan texts one, or that cannot be written."""
    if "\t" in identifier or "\n" in identifier or "\r" in identifier:
        raise InputError(
            f"{where}: the site id {door.printable(identifier)!r} holds a tab or a line break, which the plan's text separates sites with."
        )
    try:
        identifier.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{where}: the site id {door.printable(identifier)!r} is not valid Unicode text. Correct it in the file."
        ) from None


def held_by_float(number: str) -> bool:
    """Whether a number as text is the one that its float64 prints as; a text that is no number is not."""
    try:
        return Decimal(repr(float(number))) == Decimal(number)
    except (ValueError, ArithmeticError):
        return False


def _observed(cell: str) -> str:
    """A cell of a column of numbers, empty where the matching reads it as not observed."""
    return "" if cell.strip() in NOT_OBSERVED else cell


def _is_number(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype)


def read_again(sites: Frame | str | os.PathLike[str], record: SiteRecord) -> tuple[SiteRecord, str | None]:
    """The sites a certificate is checked against, read as the plan read them, and the digest of the file's bytes."""
    text = [record.id, *(name for name, kind in record.columns if kind == "text")]
    if isinstance(sites, str | os.PathLike):
        frame, raw, where = door.read_table(sites, text=text), door.sha256_file(sites), str(sites)
    else:
        frame, raw, where = door.normalise(sites, text=text), None, "the sites table"
    numeric = [name for name, kind in record.columns if kind == "number"]
    again = SiteRecord.from_frame(frame, id=record.id, columns=[name for name, _ in record.columns], numeric=numeric, where=where)
    return again, raw
