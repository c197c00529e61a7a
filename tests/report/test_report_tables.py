"""Table 2 in the trial's layout, in every format; and the neutral layout under it."""

from __future__ import annotations

import io
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import InputError, Refused
from trialkit.report import report_table, write_tables
from trialkit.report.layout import Layout, Row
from trialkit.report.printed import checks_layout, imputation_layout
from trialkit.report.tables import outcome_rows, plain_number

NASTY = '<script>alert("1")</script> & 50% $x_1$ {a}~^\\'


def test_order_is_level_then_rank_then_as_declared(results: Any, design: TrialDesign) -> None:
    shuffled = results.frame.iloc[[3, 1, 0, 2]].reset_index(drop=True)
    assert outcome_rows(shuffled, design)["outcome"].tolist() == ["climate", "stigma", "recovery", "burnout"]


def test_n_by_arm_is_told_only_when_it_is_certain(results: Any, people: pd.DataFrame, design: TrialDesign) -> None:
    # the stored results say 62 peers, the people are fewer: no number is made up
    assert outcome_rows(results, design, people=people)["n_intervention"].isna().all()
    counted = people[(people["follow_up_done"] == 1) & (people["role"] == "peer")]
    told = results.frame.assign(n=[len(counted), 99, len(counted), len(counted)])
    rows = outcome_rows(told, design, people=people).set_index("outcome")
    assert rows.loc["climate", "n_intervention"] == (counted["arm"] == "intervention").sum()
    assert rows.loc["climate", "n_reference"] == (counted["arm"] == "control").sum()
    assert pd.isna(rows.loc["stigma", "n_reference"])


def test_snapshots(results: Any, design: TrialDesign, snapshot: Any) -> None:
    table = report_table(results, design)
    snapshot("table2.txt", table.to_text())
    snapshot("table2.tex", table.to_latex())
    snapshot("table2.html", table.to_html() + "\n")
    snapshot("table2.csv", table.to_csv())


def test_csv_holds_unrounded_numbers(results: Any, design: TrialDesign) -> None:
    back = pd.read_csv(io.StringIO(report_table(results, design).to_csv()))
    assert back.set_index("outcome").loc["climate", "conf_high"] == 0.681


def test_a_label_means_nothing_to_html_or_latex(results: Any) -> None:
    frame = results.frame.assign(outcome=[NASTY, "b", "c", "d"])
    table = report_table(frame)
    page = table.to_html()
    assert "<script" not in page
    ElementTree.fromstring(f"<x>{page}</x>")
    latex = table.to_latex()
    assert r"\textless{}script" in latex
    assert r"50\% \$x\ 1\$" in latex or r"50\% \$x 1\$" in latex
    assert table.to_csv().count("\n") == 5


def test_an_outcome_that_was_not_estimated_keeps_its_row(results: Any, design: TrialDesign) -> None:
    frame = results.frame.copy()
    frame.loc[1, ["estimate", "conf_low", "conf_high", "p_value"]] = float("nan")
    text = report_table(frame, design).to_text()
    assert "Stigma ↓" in text
    assert "not estimated" in text


def test_results_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="results of the analysis were expected, not str"):
        report_table("results.csv")
    with pytest.raises(InputError, match="conf_low"):
        report_table(pd.DataFrame({"outcome": ["y"], "estimate": [0.1], "p_value": [0.5], "conf_high": [1.0]}))


def test_write_tables(results: Any, design: TrialDesign, tmp_path: Path) -> None:
    written = write_tables(results, tmp_path / "out", design=design)
    assert [p.name for p in written] == ["results.csv", "table2.csv", "table2.html", "table2.tex", "table2.docx"]
    before = {p.name: p.read_bytes() for p in written}
    with pytest.raises(Refused, match=r"results\.csv exists already"):
        write_tables(results, tmp_path / "out", design=design)
    again = write_tables(results, tmp_path / "out", design=design, force=True)
    assert {p.name: p.read_bytes() for p in again} == before


def test_word_table_says_what_the_text_says(results: Any, design: TrialDesign) -> None:
    docx = pytest.importorskip("docx")
    table = report_table(results, design)
    document = docx.Document(io.BytesIO(table.to_word()))
    cells = [[c.text for c in row.cells] for row in document.tables[0].rows]
    layout = table.layout()
    assert cells[0] == list(layout.columns)
    body = [row for row in cells[1:] if len(set(row)) > 1]
    assert body == [list(row.cells) for row in layout.rows if not row.group]
    assert [p.text for p in document.paragraphs if p.text in layout.notes] == list(layout.notes)
    with zipfile.ZipFile(io.BytesIO(table.to_word())) as archive:
        assert {m.date_time for m in archive.infolist()} == {(2000, 1, 1, 0, 0, 0)}


def test_without_python_docx_it_is_said(results: Any, design: TrialDesign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "docx", None)
    with pytest.raises(InputError, match=r"pip install 'trialkit\[word\]'"):
        report_table(results, design).to_word()
    monkeypatch.setattr(import_module("trialkit.report.tables"), "word_installed", lambda: False)
    assert [p.suffix for p in write_tables(results, tmp_path, design=design)] == [".csv", ".csv", ".html", ".tex"]


def test_layout_refuses_rows_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="2 cells in a table of 3 columns"):
        Layout(("a", "b", "c"), (Row(("1", "2")),), "lrr")


def test_layout_text_aligns_wide_and_combining_letters() -> None:
    rows = (Row(("名", "1")), Row(("e\u0301", "22")), Row(("ab", "333")))
    lines = Layout(("n", "x"), rows, "lr").to_text().splitlines()
    assert lines[2:] == ["名    1", "e\u0301    22", "ab  333"]


def test_plain_numbers() -> None:
    values = (0.0, 0.05, 12.346, 123.46, 1234567.8, -2.5, float("nan"))
    assert [plain_number(v) for v in values] == ["0", "0.0500", "12.35", "123.5", "1,234,568", "−2.50", "—"]


def test_tables_of_other_shapes_are_printed_as_they_are() -> None:
    class Other:
        frame = pd.DataFrame({"variable": ["y"], "r_hat": [-1.25]})

    layout = imputation_layout(Other())
    assert layout is not None
    assert layout.rows[0].cells == ("y", "−1.25")
    assert checks_layout(object()) is None
