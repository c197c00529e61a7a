"""A result is a table first: rows -> DataFrame, text, HTML, LaTeX, with the same column names everywhere.

`Table` is a frame with a title, notes and number formats. `Result` gives any frozen dataclass that has a
``frame`` those views. `Provenance` says how a result was made; it holds no clock time, so that the same input
gives the same bytes.
"""

from __future__ import annotations

import html
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

# one look for each kind of number, wherever it is shown
FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "estimate": ".3f",
        "std_error": ".3f",
        "conf_low": ".3f",
        "conf_high": ".3f",
        "statistic": ".2f",
        "df": ".1f",
        "p_value": "p",
        "p_adjusted": "p",
        "icc": ".3f",
        "fmi": ".2f",
        "power": ".3f",
        "n": "d",
        "m": "d",
        "clusters": "d",
    }
)
MISSING = "\N{EM DASH}"


def format_p(value: float) -> str:
    """A p-value as journals print it: three decimals, never 0.000 nor 1.000."""
    if np.isnan(value):
        return MISSING
    if value < 0.001:
        return "<.001"
    if value > 0.999:
        return ">.999"
    return f"{value:.3f}".lstrip("0")


def format_cell(value: Any, spec: str = "") -> str:
    """One cell as text; missing is a dash, numbers by `spec` (a format spec, or ``p`` for p-values)."""
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | float | np.integer | np.floating):
        if spec == "p":
            return format_p(float(value))
        if spec == "d":
            return f"{round(float(value)):,}"
        text = format(float(value), spec) if spec else (f"{value:,}" if isinstance(value, int | np.integer) else f"{float(value):.4g}")
        # -0.000 says nothing that 0.000 does not
        return text[1:] if text.startswith("-") and not text.strip("-0.,") else text
    return str(value)


def minus(text: str) -> str:
    """A formatted number with a true minus sign.

    >>> minus("-0.25")
    '−0.25'
    """
    return text.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Table:
    """Rows and columns with a title, notes and one format a column.

    Attributes
    ----------
    frame : DataFrame
        The numbers, unrounded.
    title : str
        A line above the table.
    notes : tuple of str
        Lines below the table.
    formats : mapping of column to format spec
        How each number is shown; columns not named take `FORMATS`.

    Examples
    --------
    >>> table = Table(pd.DataFrame({"outcome": ["climate"], "estimate": [0.351], "p_value": [0.0004]}))
    >>> print(table)
    outcome  estimate  p_value
    climate     0.351    <.001
    """

    frame: pd.DataFrame
    title: str = ""
    notes: tuple[str, ...] = ()
    formats: Mapping[str, str] = field(default_factory=dict)

    def cells(self) -> list[list[str]]:
        """Every cell as shown, row by row."""
        specs = [self.formats.get(str(c), FORMATS.get(str(c), "")) for c in self.frame.columns]
        columns = [[format_cell(v, s) for v in self.frame.iloc[:, k].tolist()] for k, s in enumerate(specs)]
        return [list(row) for row in zip(*columns, strict=True)] if columns else []

    def numeric(self) -> list[bool]:
        """For each column, whether it is set flush right."""
        return [pd.api.types.is_numeric_dtype(t) and not pd.api.types.is_bool_dtype(t) for t in self.frame.dtypes]

    def to_text(self) -> str:
        """Plain text, columns aligned."""
        header = [str(c) for c in self.frame.columns]
        rows = self.cells()
        widths = [max(len(h), *(len(r[k]) for r in rows)) if rows else len(h) for k, h in enumerate(header)]
        right = self.numeric()

        def line(cells: list[str]) -> str:
            return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)).rstrip()

        lines = [self.title] if self.title else []
        lines += [line(header), *(line(r) for r in rows)]
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)

    def to_html(self) -> str:
        """An HTML ``<table>``, everything escaped, no style of its own."""
        right = self.numeric()

        def cells(tag: str, values: list[str]) -> str:
            return "".join(f"<{tag}{' class=num' if r else ''}>{html.escape(v)}</{tag}>" for v, r in zip(values, right, strict=True))

        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        head = f"<thead><tr>{cells('th', [str(c) for c in self.frame.columns])}</tr></thead>"
        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in self.cells())
        notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in self.notes)
        return f'<table class="trialkit">{caption}{head}<tbody>{body}</tbody></table>{notes}'

    def to_latex(self) -> str:
        """A LaTeX ``tabular`` with booktabs rules; notes as a paragraph below."""
        right = self.numeric()
        lines = [r"\begin{tabular}{" + "".join("r" if r else "l" for r in right) + "}", r"\toprule"]
        lines.append(" & ".join(tex(str(c)) for c in self.frame.columns) + r" \\")
        lines.append(r"\midrule")
        lines += [" & ".join(tex(c) for c in row) + r" \\" for row in self.cells()]
        lines += [r"\bottomrule", r"\end{tabular}"]
        if self.title:
            lines.insert(0, f"% {self.title}")
        lines += [rf"\par\footnotesize {tex(note)}" for note in self.notes]
        return "\n".join(lines) + "\n"

    def to_csv(self) -> str:
        """The unrounded numbers as CSV; text cells that a spreadsheet would run as a formula are neutralised."""
        safe = self.frame.copy()
        for name in safe.columns:
            if not pd.api.types.is_numeric_dtype(safe[name].dtype):
                safe[name] = [
                    f"'{v}" if isinstance(v, str) and v[:1] in ("=", "+", "-", "@", "\t", "\r") else v for v in safe[name].tolist()
                ]
        return str(safe.to_csv(index=False, lineterminator="\n"))

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return self.to_html()


_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "\N{EM DASH}": "---",
        "\N{EN DASH}": "--",
        "\N{MINUS SIGN}": "$-$",
        "\N{DOWNWARDS ARROW}": r"$\downarrow$",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "…": r"\ldots{}",
        "\N{NO-BREAK SPACE}": "~",
        "\n": " ",
        "\r": " ",
    }
)


def tex(text: str) -> str:
    """A text in which no character means anything to LaTeX."""
    return text.translate(_TEX)


class Result:
    """Views of a result that has a ``frame``: text, HTML and LaTeX.

    A subclass is a frozen dataclass; it may also define ``title``, ``notes`` and ``formats``.
    """

    __slots__ = ()

    def table(self) -> Table:
        """The result as a `Table`."""
        return Table(
            frame=self.frame,  # type: ignore[attr-defined]
            title=getattr(self, "title", ""),
            notes=tuple(getattr(self, "notes", ())),
            formats=getattr(self, "formats", {}),
        )

    def to_text(self) -> str:
        """Plain text."""
        return self.table().to_text()

    def to_html(self) -> str:
        """An HTML table."""
        return self.table().to_html()

    def to_latex(self) -> str:
        """A LaTeX table."""
        return self.table().to_latex()

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return self.to_html()


_PACKAGES = ("numpy", "pandas", "scipy")


@cache
def _package_versions() -> dict[str, str]:
    """Read from the packages' metadata, once a process: that is slow, and a simulation asks thousands of times."""
    return {name: metadata.version(name) for name in _PACKAGES}


@dataclass(frozen=True)
class Provenance:
    """How a result was made.

    Attributes
    ----------
    seed : int or None
        The seed given by the caller.
    inputs : mapping of name to SHA-256
        Digests of the data that went in.
    settings : mapping
        The choices that were in force.
    versions : mapping of package to version
    """

    seed: int | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def now(
        cls, *, seed: int | None = None, inputs: Mapping[str, str] | None = None, settings: Mapping[str, Any] | None = None
    ) -> Provenance:
        """A record with the versions of this process filled in."""
        from trialkit import __version__

        versions = {"trialkit": __version__, "python": platform.python_version(), **_package_versions()}
        return cls(seed=seed, inputs=dict(inputs or {}), settings=dict(settings or {}), versions=versions)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"seed": self.seed, "inputs": dict(self.inputs), "settings": dict(self.settings), "versions": dict(self.versions)}
