"""The door: everything that comes in is read, checked and named here, once; inside, code trusts.

Files are read as bytes and decoded strictly; a cell is text until every observed cell of its column is an
ASCII number; identifiers stay text for ever, so that a site called ``NA`` or ``007`` survives. Every
complaint is one of the errors below: what was seen, why it matters, what to do.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# --- the one family of errors -------------------------------------------------------------------------------


class TrialkitError(Exception):
    """Any error trialkit raises on purpose; ``exit_code`` is what the command line returns for it."""

    exit_code = 2


class InputError(TrialkitError, ValueError):
    """Data or arguments that cannot be used."""


class DesignError(InputError):
    """A trial design that contradicts itself or the data."""


class PairingError(InputError):
    """Sites that cannot be paired as asked."""


class VerificationError(TrialkitError):
    """A certificate that does not follow from its own inputs."""

    exit_code = 1


class CheckFailed(TrialkitError):
    """A scientific check outside its limits."""

    exit_code = 1


class Refused(TrialkitError):
    """Something that must not be done twice: a second draw, an overwritten file."""

    exit_code = 3


class WriteError(TrialkitError, OSError):
    """A file that could not be written."""

    exit_code = 4


# --- words --------------------------------------------------------------------------------------------------


def nearest_word(word: str, options: Iterable[str]) -> str | None:
    """The option closest in spelling to `word`, or None when nothing is near."""
    found = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown_word(word: str, options: Sequence[str], *, what: str) -> str:
    """The sentence for a name that does not exist: what was seen, the nearest right one, all of them."""
    near = nearest_word(word, options)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"unknown {what} {word!r}.{hint} Known: {', '.join(map(str, options)) or 'none'}."


def few(items: Sequence[Any], limit: int = 6) -> str:
    """At most `limit` items in words, with how many more there are."""
    shown = ", ".join(printable(item) for item in items[:limit])
    more = len(items) - limit
    return f"{shown} and {more} more" if more > 0 else shown


def printable(item: Any) -> str:
    """A value for a message: control characters shown as escapes, never sent to the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(item))


# --- digests ------------------------------------------------------------------------------------------------


def sha256_bytes(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes."""
    return sha256_bytes(_read_bytes(Path(path)))


def cell_text(value: Any) -> str:
    """One cell as canonical text: missing is empty, an integral float drops its '.0', text is NFC."""
    if type(value) is str:  # nearly every cell is this or a float, and a digest asks for all of them
        return value if value.isascii() else unicodedata.normalize("NFC", value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if number != number:
            return ""
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, bool | np.bool_):
        return "1" if value else "0"
    return unicodedata.normalize("NFC", str(value))


def frame_digest(frame: pd.DataFrame) -> str:
    """SHA-256 of a frame's content: column names and cells as canonical text, rows and columns in their order."""
    digest = hashlib.sha256()
    for name in frame.columns:
        cells = "\x1f".join(cell_text(v) for v in frame[name].tolist())
        digest.update(f"{name}\x1e{cells}\x1d".encode())
    return digest.hexdigest()


# --- reading files ------------------------------------------------------------------------------------------

# ASCII only: Python's own float() takes other scripts' digits and underscores
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# 007 is a label, not the number seven; 0, 0.5 and -0.5 are numbers
_LABEL_LIKE = re.compile(r"[+-]?0\d", re.ASCII)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Check the name and the folder.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, not a file. Name the CSV, XLSX or Parquet file in it.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from None


def read_table(path: str | os.PathLike[str], *, text: Sequence[str] = (), missing: Sequence[str] = ("",)) -> pd.DataFrame:
    """Read a table from CSV, XLSX or Parquet.

    Parameters
    ----------
    path : str or path
        ``.csv`` (comma) or ``.tsv`` (tab), UTF-8 with or without a byte-order mark; ``.xlsx`` (first sheet); ``.parquet``.
    text : sequence of str
        Columns that stay text whatever they look like: identifiers, arms, categories.
    missing : sequence of str
        Cells of a CSV or XLSX that mean "not observed"; by default only the empty cell. In a column named in
        `text`, only the empty cell is missing, so that a site called ``NA`` survives.

    Returns
    -------
    DataFrame
        Columns whose every observed cell is an ASCII number become float64, all others text.

    Raises
    ------
    InputError
        The file is missing, not UTF-8, ragged, without a header, or has a column twice; the message names
        the line and column.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "sites.csv"
    >>> _ = path.write_text("site,budget\\nNA,10\\n007,12\\n")
    >>> read_table(path, text=["site"])["site"].tolist()
    ['NA', '007']
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        try:
            return normalise(pd.read_parquet(io.BytesIO(_read_bytes(path))), text=text)
        except InputError:
            raise
        except Exception as error:  # pyarrow raises its own classes for a damaged file
            raise InputError(f"{path} is not a readable Parquet file ({type(error).__name__}). Write it again, or give a CSV.") from None
    if suffix in (".sas7bdat", ".xpt", ".sav", ".zsav", ".por", ".dta"):
        return normalise(_read_labelled(path, suffix), text=text)
    rows = _xlsx_rows(path) if suffix in (".xlsx", ".xlsm") else _csv_rows(path, "\t" if suffix == ".tsv" else ",")
    header, body = _header(rows, path)
    for line, row in body:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {line}: {len(row)} cells where the header has {len(header)}. "
                "A comma inside a cell needs quotes around the cell; a missing cell still needs its comma."
            )
    columns = {}
    for k, name in enumerate(header):
        cells = [row[k] for _, row in body]
        columns[name] = _column(cells, keep_text=name in text, missing=missing)
    return pd.DataFrame(columns, columns=pd.Index(header))


def _csv_rows(path: Path, delimiter: str) -> list[tuple[int, list[str]]]:
    data = _read_bytes(path)
    if not data.strip():
        raise InputError(f"{path} is empty. It needs a header line and one line a row.")
    if b"\x00" in data:
        raise InputError(f"{path} holds NUL bytes, so it is not a UTF-8 text file. Save it as CSV (UTF-8).")
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8, so names would be read wrongly. "
            "Save the file as 'CSV UTF-8' and try again."
        ) from None
    try:
        reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise InputError(f"{path}: {error}. Look for a quotation mark that is not closed.") from None


def _xlsx_rows(path: Path) -> list[tuple[int, list[str]]]:
    import openpyxl

    try:
        sheet = openpyxl.load_workbook(io.BytesIO(_read_bytes(path)), read_only=True, data_only=True).worksheets[0]
        rows = [[cell_text(value) for value in row] for row in sheet.iter_rows(values_only=True)]
    except InputError:
        raise
    except Exception as error:  # openpyxl raises many classes for a damaged file
        raise InputError(f"{path} is not a readable XLSX file ({type(error).__name__}). Save it again, or give a CSV.") from None
    if not rows:
        raise InputError(f"{path} is empty. Its first sheet needs a header line and one line a row.")
    return [(k, row) for k, row in enumerate(rows, start=1) if any(row)]


def _read_labelled(path: Path, suffix: str) -> pd.DataFrame:
    try:
        import pyreadstat
    except ImportError:
        raise InputError(f"{path}: SAS, SPSS and Stata files need the reader extra: pip install 'trialkit[readers]'.") from None
    reader = {
        ".sas7bdat": pyreadstat.read_sas7bdat,
        ".xpt": pyreadstat.read_xport,
        ".sav": pyreadstat.read_sav,
        ".zsav": pyreadstat.read_sav,
        ".por": pyreadstat.read_por,
        ".dta": pyreadstat.read_dta,
    }[suffix]
    _read_bytes(path)
    try:
        frame, _ = reader(str(path), apply_value_formats=True)
    except Exception as error:  # pyreadstat raises its own classes for a damaged file
        raise InputError(f"{path} cannot be read as {suffix} ({type(error).__name__}). Export it again, or give a CSV.") from None
    # SPSS has no missing text: an empty string is how it comes out
    return pd.DataFrame(frame).replace("", np.nan)


def _header(rows: list[tuple[int, list[str]]], path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    header = [unicodedata.normalize("NFC", name.strip()) for name in rows[0][1]]
    seen: dict[str, int] = {}
    for k, name in enumerate(header, start=1):
        if not name:
            raise InputError(f"{path}: column {k} has no name. Every column of the header needs one.")
        if name in seen:
            raise InputError(f"{path}: the column {name!r} stands twice (columns {seen[name]} and {k}). Rename or remove one.")
        seen[name] = k
    return header, rows[1:]


def _column(cells: list[str], *, keep_text: bool, missing: Sequence[str]) -> pd.Series[Any]:
    void = {""} if keep_text else {"", *missing}
    observed = [cell.strip() for cell in cells if cell.strip() not in void]
    numeric = bool(observed) and all(_NUMBER.fullmatch(c) and not _LABEL_LIKE.match(c) for c in observed)
    if numeric and not keep_text:
        values = [np.nan if cell.strip() in void else float(cell) for cell in cells]
        # a number float64 cannot hold exactly stays text, so that exact readers (matching criteria) still see it
        if all(np.isfinite(v) or cell.strip() in void for v, cell in zip(values, cells, strict=True)) and all(
            abs(v) < 2**53 for v in values if np.isfinite(v)
        ):
            return pd.Series(values, dtype="float64")
    if not observed:
        return pd.Series([np.nan] * len(cells), dtype="float64") if not keep_text else pd.Series([None] * len(cells), dtype="str")
    return pd.Series([None if c.strip() in void else unicodedata.normalize("NFC", c) for c in cells], dtype="str")


# --- frames -------------------------------------------------------------------------------------------------


def normalise(frame: Any, *, text: Sequence[str] = ()) -> pd.DataFrame:
    """A copy with every column float64, bool, str or category, once.

    Nullable, Arrow and object columns become their plain kind; columns in `text` become str (integral floats
    without their '.0'); categories keep their order. Rows get a fresh 0..n-1 index.
    """
    if not isinstance(frame, pd.DataFrame):
        to_pandas = getattr(frame, "to_pandas", None)
        if to_pandas is None:
            raise InputError(f"a table was expected, not {type(frame).__name__}. Give a pandas DataFrame.")
        frame = to_pandas()  # polars and other frames
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise InputError(f"the column {twice[0]!r} stands twice in the table. Rename or remove one.")
    out = {}
    for position, name in enumerate(names):
        column = frame.iloc[:, position].reset_index(drop=True)
        out[name] = _as_text(column) if name in text else _plain(column)
    return pd.DataFrame(out, index=pd.RangeIndex(len(frame)), columns=pd.Index(names))


def _as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    return pd.Series([cell_text(v) or None for v in column.tolist()], dtype="str")


def _plain(column: pd.Series[Any]) -> pd.Series[Any]:
    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        if pd.api.types.is_numeric_dtype(kind.categories.dtype):
            return column
        return column.cat.rename_categories([str(c) for c in kind.categories])
    if pd.api.types.is_bool_dtype(kind):
        return column.astype(bool) if not column.isna().any() else column.astype("float64")
    if pd.api.types.is_numeric_dtype(kind):
        return pd.Series(column.to_numpy(dtype="float64", na_value=np.nan))
    if pd.api.types.is_datetime64_any_dtype(kind):
        return pd.Series(column.dt.strftime("%Y-%m-%d"), dtype="str")
    cells = column.tolist()
    observed = [v for v in cells if not _is_missing(v)]
    if observed and all(isinstance(v, bool | np.bool_) for v in observed):
        return pd.Series([np.nan if _is_missing(v) else float(v) for v in cells], dtype="float64")
    if observed and all(isinstance(v, int | float | Decimal | np.number) and not isinstance(v, bool) for v in observed):
        return pd.Series([np.nan if _is_missing(v) else float(v) for v in cells], dtype="float64")
    return pd.Series([None if _is_missing(v) else str(v) for v in cells], dtype="str")


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def is_number(text: str) -> bool:
    """Whether a text is an ASCII number: no other script's digits, no underscores, no 'nan'."""
    return _NUMBER.fullmatch(text) is not None


def require_columns(frame: pd.DataFrame, columns: Iterable[str], *, where: str, why: str) -> None:
    """Raise an InputError naming the first column that is not in `frame`, the nearest one, and why it is needed."""
    present = [str(c) for c in frame.columns]
    for name in columns:
        if name not in present:
            near = nearest_word(name, present)
            hint = f" Did you mean {near!r}?" if near else ""
            raise InputError(f"{where} has no column {name!r}, which is needed {why}.{hint} Its columns: {few(present, 12)}.")
        if present.count(name) > 1:
            raise InputError(f"{where} has the column {name!r} more than once, and it is needed {why}. Rename or remove the others.")


# Cyrillic and Greek letters that look like Latin ones
_CONFUSABLE = str.maketrans("асеорхуіјѕԁһкмтвнαβεικνορτυχ", "aceopxyijsdhkmtbhabeiknoptyx")


def _skeleton(identifier: str, *, case: bool = True) -> str:
    """Ids that a person would read as the same: white space, width and (with `case`) case and alphabet folded away."""
    if not case and identifier.isascii() and identifier.isprintable() and " " not in identifier:
        return identifier
    folded = unicodedata.normalize("NFKC", identifier)
    if case:
        folded = folded.casefold().translate(_CONFUSABLE)
    return "".join(c for c in folded if not c.isspace() and unicodedata.category(c) not in ("Cf", "Cc"))


def two_spellings(labels: Iterable[Any], *, case: bool = True) -> tuple[str, str] | None:
    """The first two different labels that a person would read as the same; None when there are none. Only texts are looked at.

    With `case`, case and look-alike letters of other alphabets count as the same; without, only spaces, width and characters
    that do not show.
    """
    texts = [label for label in labels if isinstance(label, str)]
    together = "".join(texts)
    if not case and together.isascii() and together.isprintable() and " " not in together:
        return None  # each is its own skeleton
    looks: dict[str, str] = {}
    for label in texts:
        if label.strip():
            other = looks.setdefault(_skeleton(label, case=case), label)
            if other != label:
                return other, label
    return None


def one_spelling(column: pd.Series[Any], *, where: str, what: str, case: bool = True) -> None:
    """Refuse a column of group labels that holds a group in two spellings; see `two_spellings`.

    Raises
    ------
    InputError
        Names the two spellings and the row in which each is met first.
    """
    found = two_spellings(pd.unique(column), case=case)
    if found is not None:
        cells = column.tolist()
        one, other = (f"{printable(label)!r} (row {cells.index(label) + 2})" for label in found)
        raise InputError(
            f"{where}, column {str(column.name)!r}: {one} and {other} differ only in spaces{', case' if case else ''} or width, so they "
            f"could be the same {what} and would be counted as two. Make them the same or clearly different."
        )


def site_ids(frame: pd.DataFrame, column: str, *, where: str, what: str = "site") -> list[str]:
    """The ids in `column` as text, in row order: none blank, none twice, none that only spaces, case or width tell apart.

    Rows are counted as a spreadsheet counts them: the header is row 1.
    """
    require_columns(frame, [column], where=where, why=f"as the {what} id")
    ids = [cell_text(v) for v in frame[column].tolist()]
    first: dict[str, int] = {}
    looks: dict[str, tuple[str, int]] = {}
    for row, identifier in enumerate(ids, start=2):
        if not identifier.strip():
            raise InputError(f"{where}, row {row}: the {what} id ({column!r}) is blank. Give every {what} an id, or delete the row.")
        if any(unicodedata.category(c) == "Cc" for c in identifier):
            raise InputError(
                f"{where}, row {row}: the {what} id {printable(identifier)!r} holds a control character (a tab or a line break). Remove it."
            )
        if identifier in first:
            raise InputError(
                f"{where}: the {what} id {identifier!r} stands in rows {first[identifier]} and {row}. "
                f"Each {what} must have one row; rename or remove one."
            )
        first[identifier] = row
        skeleton = _skeleton(identifier)
        if skeleton in looks:
            other, other_row = looks[skeleton]
            raise InputError(
                f"{where}: the {what} ids {printable(other)!r} (row {other_row}) and {printable(identifier)!r} (row {row}) differ only in "
                f"spaces, case or width, so they could be the same {what}. Make them the same or clearly different."
            )
        looks[skeleton] = (identifier, row)
    return ids


def check_people(frame: pd.DataFrame, *, person: str | None, site: str, arm: str, arms: Sequence[str], where: str) -> None:
    """What must hold for every row of a participants' table, analysed or not: one row a person, one known arm a site.

    Cells that are missing are passed over here; whether they may be is the business of whoever analyses the row. With
    ``person=None`` the table has no ids, and only sites and arms are looked at.

    Raises
    ------
    InputError
        A person in two sites or listed twice; an arm that is not one of `arms`; a site in two arms.
    """
    for column, role in ((person, "person"), (site, "site"), (arm, "arm")):
        if column is not None:
            require_columns(frame, [column], where=where, why=f"as the {role} ([columns] {role})")
    people = [cell_text(v).strip() for v in frame[person].tolist()] if person is not None else []
    sites = [cell_text(v).strip() for v in frame[site].tolist()]
    allocated = [cell_text(v).strip() for v in frame[arm].tolist()]
    one_spelling(frame[site], where=where, what="site")
    seen: dict[str, int] = {}
    for k, identifier in enumerate(people):
        if not identifier:
            continue
        first = seen.setdefault(identifier, k)
        if first == k:
            continue
        if sites[first] != sites[k]:
            raise InputError(
                f"{where}: person {printable(identifier)!r} is in two sites, {printable(sites[first])!r} (row {first + 2}) and "
                f"{printable(sites[k])!r} (row {k + 2}). Give the two different ids, or remove one row."
            )
        raise InputError(
            f"{where}: person {printable(identifier)!r} stands in rows {first + 2} and {k + 2}. "
            "The table needs one row a person; remove or merge one."
        )
    arm_of: dict[str, tuple[str, int]] = {}
    for k, (place, given) in enumerate(zip(sites, allocated, strict=True)):
        if not given:
            continue
        if given not in arms:
            raise InputError(
                f"{where}, row {k + 2}: the arm {printable(given)!r} is not one of the design's arms ({few(list(map(repr, arms)))}). "
                f"Correct column {arm!r}, or [arms] in the design."
            )
        other, row = arm_of.setdefault(place, (given, k))
        if place and other != given:
            raise InputError(
                f"{where}: site {printable(place)!r} is in more than one arm, {other!r} (row {row + 2}) and {given!r} (row {k + 2}). "
                "A site is randomised whole, so its people share one arm. Correct the rows of that site."
            )


def check_words(**choices: tuple[str, Sequence[str]]) -> None:
    """Each choice, by its name, is one of its options."""
    for what, (word, options) in choices.items():
        if word not in options:
            raise InputError(unknown_word(str(word), options, what=what))


def check_conf_level(level: Any) -> None:
    """A confidence level is a number between 0 and 1."""
    if isinstance(level, bool) or not isinstance(level, int | float | np.number) or not 0 < level < 1:
        raise InputError(f"conf_level = {level!r} is not between 0 and 1, for example 0.95.")


def zero_one(frame: pd.DataFrame, column: str, *, where: str, why: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """A 0/1 column as booleans; a missing cell counts as 0 (not done). Anything else is an error naming row and cell."""
    require_columns(frame, [column], where=where, why=why)
    texts = [cell_text(v).strip() for v in frame[column].tolist()]
    wrong = next((k for k, text in enumerate(texts) if text not in ("0", "1", "")), None)
    if wrong is not None:
        raise InputError(
            f"{where}, row {wrong + 2}, column {column!r}: {printable(texts[wrong])!r} is neither 1 (yes) nor 0 (no), {why}. "
            "Correct the cell or leave it empty."
        )
    return np.array([text == "1" for text in texts], dtype=bool)


def numbers(frame: pd.DataFrame, column: str, *, where: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A column as float64, NaN where missing; text that is not an ASCII number is an error naming row and cell."""
    require_columns(frame, [column], where=where, why="as numbers")
    cells = frame[column]
    kind = "a number"
    if pd.api.types.is_numeric_dtype(cells.dtype):
        kind = "a finite number"
        out = cells.to_numpy(dtype=np.float64, na_value=np.nan)
        bad = np.flatnonzero(np.isinf(out))
    else:
        exact = [_decimal(value) for value in cells.tolist()]
        out = np.array([np.nan if number is None else float(number) for number in exact])
        bad = np.flatnonzero([number is _BAD or np.isinf(x) for number, x in zip(exact, out, strict=True)])
    if len(bad):
        raise InputError(
            f"{where}, row {bad[0] + 2}, column {column!r}: {printable(cells.iloc[bad[0]])!r} is not {kind}. "
            "Correct the cell or leave it empty."
        )
    return out


def decimals(frame: pd.DataFrame, column: str, *, where: str) -> list[Decimal | None]:
    """A column as exact decimals, None where missing: 0.3 - 0.2 ties with 0.2 - 0.1, and 2**53 + 1 stays itself."""
    require_columns(frame, [column], where=where, why="as numbers")
    out: list[Decimal | None] = []
    for k, value in enumerate(cells(frame[column])):
        number = _decimal(value)
        if number is _BAD:
            raise InputError(
                f"{where}, row {k + 2}, column {column!r}: {printable(value)!r} is not a number. Correct the cell or leave it empty."
            )
        out.append(number)
    return out


def cells(column: pd.Series[Any]) -> list[Any]:
    """A column's cells as Python values; short floats as the shortest decimal that reads back as the same short float."""
    if column.dtype in (np.float16, np.float32):
        return [None if np.isnan(x) else str(x) for x in column.to_numpy()]
    return list(column.tolist())


_BAD = Decimal("NaN")


def _decimal(value: Any) -> Decimal | None:
    """An exact decimal, None when missing, the `_BAD` object when it is no finite ASCII number."""
    if _is_missing(value):
        return None
    if isinstance(value, bool | np.bool_):
        return Decimal(int(value))
    if isinstance(value, int | np.integer):
        return Decimal(int(value))
    if isinstance(value, Decimal):
        return value if value.is_finite() else _BAD
    if isinstance(value, float | np.floating):
        # the shortest text that reads back as the same double is what the user typed
        return Decimal(repr(float(value))) if np.isfinite(value) else _BAD
    text = str(value).strip()
    if not text:
        return None
    return Decimal(text) if _NUMBER.fullmatch(text) else _BAD


# --- writing files ------------------------------------------------------------------------------------------


def write_whole(path: str | os.PathLike[str], data: str | bytes, *, force: bool = False, mode: int = 0o644) -> None:
    """Write a file whole or not at all; an existing one only with `force`.

    Raises
    ------
    Refused
        The file exists and `force` is False.
    WriteError
        The disk or the folder does not allow it; what was there before is untouched.
    """
    target = Path(path)
    temporary = _temporary(target, data, mode)
    try:
        if force:
            temporary.replace(target)
        else:
            os.link(temporary, target)  # fails if the name is taken: no window between look and write
    except FileExistsError:
        raise Refused(f"{target} exists already and is not overwritten. Choose another name, or say --force (force=True).") from None
    except OSError as error:
        raise WriteError(f"{target} could not be written: {error.strerror}. Nothing was changed.") from None
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def write_once(path: str | os.PathLike[str], data: str | bytes, *, mode: int = 0o600) -> None:
    """Write a file that must never be overwritten (an allocation): whole, synced, and only if the name is free."""
    try:
        write_whole(path, data, force=False, mode=mode)
    except Refused:
        raise Refused(f"{path} exists already; an allocation is never overwritten. To keep it, choose another name.") from None


def _temporary(target: Path, data: str | bytes, mode: int) -> Path:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    content = data.encode() if isinstance(data, str) else data
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise WriteError(f"{target} could not be written: {error.strerror}. Check that the folder exists and has room.") from None
    return temporary


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # some platforms cannot open a folder; the rename itself is still atomic
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
