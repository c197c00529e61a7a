"""The door: files by bytes, ids as text, one clear message for each fault, files whole or not at all."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trialkit import door


def csv(tmp_path: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_ids_stay_text(tmp_path: Path) -> None:
    path = csv(tmp_path, "site,x\nNA,1\n007,2\nnull,\nNone,4.5\n1e3,-1e-2\n")
    frame = door.read_table(path, text=["site"])
    assert frame["site"].tolist() == ["NA", "007", "null", "None", "1e3"]
    np.testing.assert_array_equal(frame["x"], [1, 2, np.nan, 4.5, -0.01])


def test_leading_zeros_are_labels_even_undeclared(tmp_path: Path) -> None:
    assert door.read_table(csv(tmp_path, "code\n007\n010\n"))["code"].tolist() == ["007", "010"]


@pytest.mark.parametrize("cell", ["٣", "1_000", "１２", "nan", "inf", "0x10", "1,5", "--1"])
def test_only_ascii_numbers_are_numbers(tmp_path: Path, cell: str) -> None:
    frame = door.read_table(csv(tmp_path, f'x\n1\n"{cell}"\n'))
    assert frame["x"].tolist() == ["1", cell]
    with pytest.raises(door.InputError, match=r"row 3, column 'x'.*not a number"):
        door.numbers(frame, "x", where="the table")


def test_numbers_beyond_float64_keep_every_digit(tmp_path: Path) -> None:
    frame = door.read_table(csv(tmp_path, "x\n9007199254740992\n9007199254740993\n"))
    first, second = door.decimals(frame, "x", where="t")
    assert second - first == 1  # type: ignore[operator]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"site,x\nS\xe9,1\n", "line 2.*0xe9.*UTF-8"),
        (b"", "is empty"),
        (b"a,b\n1,2\n1\n", "line 3: 1 cells where the header has 2"),
        (b"a,a\n1,2\n", "'a' stands twice"),
        (b"a,\n1,2\n", "column 2 has no name"),
        (b'a,b\n"1,2\n', "quotation mark"),
        (b"a\x00b\n1\n", "NUL"),
        (b"\xff\xfea\x00", "NUL|UTF-8"),
    ],
)
def test_bad_files_get_one_clear_message(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(door.InputError, match=says):
        door.read_table(csv(tmp_path, content))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(door.InputError, match="no such file"):
        door.read_table(tmp_path / "none.csv")
    with pytest.raises(door.InputError, match="folder"):
        door.read_table(tmp_path)


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet"])
def test_other_formats_agree_with_csv(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"site": ["NA", "007", "c"], "x": [1.5, np.nan, 3.0]})
    path = tmp_path / f"t{suffix}"
    frame.to_excel(path, index=False) if suffix == ".xlsx" else frame.to_parquet(path)
    pd.testing.assert_frame_equal(door.read_table(path, text=["site"]), frame)


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet"])
def test_damaged_binary_files(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(door.InputError, match="not a readable"):
        door.read_table(csv(tmp_path, "nonsense", f"t{suffix}"))


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    frame = door.read_table(csv(tmp_path, "\ufeffsite,x\r\nä,1\r\n"), text=["site"])
    assert list(frame.columns) == ["site", "x"]
    assert frame["site"].tolist() == ["ä"]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, None, 3], dtype="Int64"),
        pd.Series([1.0, None, 3.0], dtype="Float64"),
        pd.Series([1, None, 3], dtype=object),
        pd.Series([1.0, np.nan, 3.0], dtype="float32"),
        pd.Series([True, None, True], dtype="boolean").astype("Int64") * 2 + pd.Series([-1, 0, 1], dtype="Int64"),
        pd.Series([1, None, 3], dtype="double[pyarrow]"),
    ],
)
def test_every_numeric_kind_becomes_float64(column: pd.Series) -> None:
    out = door.normalise(pd.DataFrame({"x": column}))["x"]
    assert out.dtype == np.float64
    np.testing.assert_array_equal(out, [1, np.nan, 3])


@pytest.mark.parametrize("kind", ["str", "string", "object", "category", "string[pyarrow]"])
def test_every_text_kind_keeps_its_words(kind: str) -> None:
    out = door.normalise(pd.DataFrame({"x": pd.Series(["b", None, "a"], dtype=kind)}))["x"]
    assert out.isna().tolist() == [False, True, False]
    assert out.dropna().tolist() == ["b", "a"]


def test_normalise_leaves_the_callers_frame_alone() -> None:
    frame = pd.DataFrame({"site": [1.0, 2.0]}, index=[5, 6])
    before = frame.copy()
    assert door.normalise(frame, text=["site"])["site"].tolist() == ["1", "2"]
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (["a", "b", "a"], "'a' stands in rows 2 and 4"),
        (["a", "", "c"], "row 3: .*blank"),
        (["a", None], "row 3: .*blank"),
        (["a", "a "], "differ only in spaces, case or width"),
        (["ab", "AB"], "differ only"),
        (["S1", "S\u200b1"], "differ only"),
        (["a\tb", "c"], "control character"),
    ],
)
def test_site_ids(ids: list[str], says: str) -> None:
    with pytest.raises(door.InputError, match=says):
        door.site_ids(pd.DataFrame({"site": ids}), "site", where="sites.csv")


@pytest.mark.parametrize(("label", "case_too"), [("S1 ", False), ("Ｓ1", False), ("S\u200b1", False), ("s1", True), ("Ѕ1", True)])
def test_one_spelling_of_a_group(label: str, case_too: bool) -> None:
    sites = pd.Series(["S2", "S1", None, "S1", label, 7], name="site", dtype=object)
    with pytest.raises(door.InputError, match=r"column 'site': 'S1' \(row 3\) and .* \(row 6\) differ only"):
        door.one_spelling(sites, where="the table", what="site")
    if case_too:
        door.one_spelling(sites, where="the table", what="site", case=False)
    else:
        with pytest.raises(door.InputError, match="differ only in spaces or width"):
            door.one_spelling(sites, where="the table", what="site", case=False)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (["1", "abc"], "row 3, column 'x': 'abc' is not a number"),
        (["1", "1e400"], "row 3, column 'x': '1e400' is not a number"),
        ([1.0, np.inf], "row 3, column 'x': .*inf.* is not a finite number"),
    ],
)
def test_numbers_name_the_cell(cells: list[object], says: str) -> None:
    with pytest.raises(door.InputError, match=says):
        door.numbers(pd.DataFrame({"x": cells}), "x", where="the table")


def test_missing_column_names_the_nearest() -> None:
    with pytest.raises(door.InputError, match=r"no column 'buget'.*Did you mean 'budget'"):
        door.require_columns(pd.DataFrame({"budget": [1]}), ["buget"], where="sites.csv", why="to match on")


def test_decimals_are_what_was_typed() -> None:
    frame = pd.DataFrame({"x": [0.1, 0.2, 0.3]})
    a, b, c = door.decimals(frame, "x", where="t")
    assert c - b == b - a == Decimal("0.1")  # type: ignore[operator]


def test_write_whole_refuses_then_forces(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    door.write_whole(path, "one")
    with pytest.raises(door.Refused, match="exists already"):
        door.write_whole(path, "two")
    assert path.read_text() == "one"
    door.write_whole(path, "two", force=True)
    assert path.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_write_once_is_private_and_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "allocation.json"
    door.write_once(path, "arms")
    assert (path.stat().st_mode & 0o777) == 0o600
    with pytest.raises(door.Refused, match="never overwritten"):
        door.write_once(path, "other")


def test_write_into_nowhere(tmp_path: Path) -> None:
    with pytest.raises(door.WriteError, match="could not be written"):
        door.write_whole(tmp_path / "no" / "a.txt", "x")


def test_a_failing_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(door.WriteError, match="No space left"):
        door.write_whole(tmp_path / "a.txt", "x")
    assert list(tmp_path.iterdir()) == []


def test_exit_codes() -> None:
    codes = {
        e.__name__: e.exit_code
        for e in (door.InputError, door.DesignError, door.PairingError, door.VerificationError, door.Refused, door.WriteError)
    }
    assert codes == {"InputError": 2, "DesignError": 2, "PairingError": 2, "VerificationError": 1, "Refused": 3, "WriteError": 4}


def test_frame_digest_sees_every_cell() -> None:
    frame = pd.DataFrame({"a": ["x", "y"], "b": [1.0, np.nan]})
    digest = door.frame_digest(frame)
    assert digest == door.frame_digest(frame.copy())
    assert digest != door.frame_digest(frame.assign(b=[1.0, 2.0]))
    assert digest != door.frame_digest(frame[["b", "a"]])
    assert digest == door.frame_digest(pd.DataFrame({"a": ["x", "y"], "b": ["1", None]}))


def test_messages_show_no_control_characters() -> None:
    assert "\x1b" not in door.printable("a\x1b[31m")


PEOPLE = pd.DataFrame({"id": ["p1", "p2", "p3"], "clinic": ["A", "A", "B"], "arm": ["x", "x", "y"]})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": ["p1", "p2", "p1"]}, r"person 'p1' is in two sites, 'A' \(row 2\) and 'B' \(row 4\)"),
        ({"id": ["p1", "p1", "p3"]}, "person 'p1' stands in rows 2 and 3"),
        ({"arm": ["x", "z", "y"]}, "row 3: the arm 'z' is not one of"),
        ({"clinic": ["A", "a", "B"]}, r"'clinic': 'A' \(row 2\) and 'a' \(row 3\) differ only"),
        ({"clinic": ["A", "A ", "B"]}, "differ only"),
        ({"arm": ["x", "y", "y"]}, r"site 'A' is in more than one arm, 'x' \(row 2\) and 'y' \(row 3\)"),
    ],
)
def test_people(change: dict[str, list[str]], says: str) -> None:
    names = {"person": "id", "site": "clinic", "arm": "arm", "arms": ("x", "y"), "where": "people.csv"}
    door.check_people(PEOPLE, **names)
    with pytest.raises(door.InputError, match=says):
        door.check_people(PEOPLE.assign(**change), **names)


def test_missing_people_cells_are_left_to_the_analysis() -> None:
    frame = pd.DataFrame({"id": [None, None], "clinic": ["A", None], "arm": [None, "x"]})
    door.check_people(frame, person="id", site="clinic", arm="arm", arms=("x", "y"), where="t")


def test_a_word_is_one_of_its_options():
    door.check_words(df=("normal", ("normal", "residual")), method=("ml", ("reml", "ml")))
    with pytest.raises(door.InputError, match=r"unknown method 'rml'. Did you mean 'reml'\? Known: reml, ml\."):
        door.check_words(df=("normal", ("normal", "residual")), method=("rml", ("reml", "ml")))
