"""Tables: the same cells in text, HTML, LaTeX and CSV."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from trialkit.results import Provenance, Result, Table, format_cell, format_p

FRAME = pd.DataFrame({"outcome": ["a_b & <c>", "d"], "estimate": [0.35149, -0.00001], "p_value": [0.0004, np.nan], "n": [1169, 3]})


@pytest.mark.parametrize(("p", "shown"), [(0.0449, ".045"), (0.0004, "<.001"), (0.9999, ">.999"), (1.0, ">.999"), (0.5, ".500")])
def test_p_values(p: float, shown: str) -> None:
    assert format_p(p) == shown


def test_text() -> None:
    assert Table(FRAME, title="T", notes=("note",)).to_text().splitlines() == [
        "T",
        "outcome    estimate  p_value      n",
        "a_b & <c>     0.351    <.001  1,169",
        "d             0.000        —      3",
        "  note",
    ]


def test_html_escapes() -> None:
    out = Table(FRAME, title="<b>").to_html()
    assert "a_b &amp; &lt;c&gt;" in out
    assert "<b>" not in out


def test_latex_escapes() -> None:
    out = Table(FRAME).to_latex()
    assert r"a\_b \& \textless{}c\textgreater{} & 0.351" in out
    assert out.count(r"\\") == 3


def test_csv_keeps_digits_and_disarms_formulas() -> None:
    out = Table(pd.DataFrame({"a": ["=1+1", "x"], "b": [-0.35149, 2.0]})).to_csv()
    assert out == "a,b\n'=1+1,-0.35149\nx,2.0\n"


def test_empty_table() -> None:
    assert Table(FRAME.iloc[:0]).to_text() == "outcome  estimate  p_value  n"


def test_result_views() -> None:
    @dataclass(frozen=True)
    class R(Result):
        frame: pd.DataFrame
        title: str = "t"

    result = R(FRAME)
    assert str(result) == result.table().to_text()
    assert result._repr_html_().startswith("<table")


@pytest.mark.parametrize(
    ("value", "spec", "shown"), [(True, "", "yes"), (None, "", "—"), (3, "", "3"), (2.0, "d", "2"), (1e-9, ".3f", "0.000")]
)
def test_cells(value: object, spec: str, shown: str) -> None:
    assert format_cell(value, spec) == shown


def test_provenance_has_versions_and_no_clock() -> None:
    made = Provenance.now(seed=3, inputs={"people": "ab"})
    assert made == Provenance.now(seed=3, inputs={"people": "ab"})
    assert set(made.versions) == {"trialkit", "python", "numpy", "pandas", "scipy"}
