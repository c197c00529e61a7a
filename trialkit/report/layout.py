"""A table as it is printed: text cells, group rows and notes, written as text, HTML, LaTeX and Word.

The numbers live in a DataFrame beside it; a `Layout` is only how they look.
"""

from __future__ import annotations

import html
import io
import unicodedata
from dataclasses import dataclass
from typing import Any

from trialkit.door import InputError
from trialkit.results import tex


@dataclass(frozen=True, slots=True)
class Row:
    """One printed row: `cells` (one a column), `depth` 0 to 2 (indent); a group row has one cell, over all columns."""

    cells: tuple[str, ...]
    depth: int = 0
    group: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A printed table.

    Attributes
    ----------
    columns : tuple of str
        Headers.
    rows : tuple of Row
    align : str
        One letter a column: ``l`` or ``r``.
    title : str
    notes : tuple of str
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    align: str
    title: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.align) != len(self.columns):
            raise ValueError(f"align has {len(self.align)} letters for {len(self.columns)} columns")
        for row in self.rows:
            if len(row.cells) != (1 if row.group else len(self.columns)):
                raise ValueError(f"a row of {len(row.cells)} cells in a table of {len(self.columns)} columns: {row.cells!r}")

    def to_text(self) -> str:
        """Plain text, columns aligned, no trailing blanks."""
        indent = 2
        plain = [row for row in self.rows if not row.group]
        cells = [(" " * (indent * row.depth) + row.cells[0], *row.cells[1:]) for row in plain]
        widths = [max([_width(name), *(_width(c[k]) for c in cells)]) for k, name in enumerate(self.columns)]

        def line(values: tuple[str, ...]) -> str:
            return "  ".join(_pad(v, w, a) for v, w, a in zip(values, widths, self.align, strict=True)).rstrip()

        lines = [self.title] if self.title else []
        # a no-break space looks like a space here and does no good
        cells = [tuple(c.replace("\N{NO-BREAK SPACE}", " ") for c in row) for row in cells]
        lines += [line(self.columns), line(tuple("-" * w for w in widths))]
        body = iter(cells)
        for row in self.rows:
            lines.append(" " * (indent * row.depth) + row.cells[0] if row.group else line(next(body)))
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """A ``<table>`` with its caption and notes; everything escaped."""

        def cell(tag: str, value: str, column: int, extra: str = "") -> str:
            kind = ' class="num"' if self.align[column] == "r" else ""
            return f"<{tag}{kind}{extra}>{html.escape(value)}</{tag}>"

        parts = ['<div class="scroll"><table>']
        if self.title:
            parts.append(f"<caption>{html.escape(self.title)}</caption>")
        heads = "".join(cell("th", name, k, ' scope="col"') for k, name in enumerate(self.columns))
        parts.append(f"<thead><tr>{heads}</tr></thead><tbody>")
        for row in self.rows:
            if row.group:
                head = f'<th colspan="{len(self.columns)}" scope="rowgroup">{html.escape(row.cells[0])}</th>'
                parts.append(f'<tr class="group depth{row.depth}">{head}</tr>')
            else:
                first = f'<th scope="row" class="row depth{row.depth}">{html.escape(row.cells[0])}</th>'
                parts.append(f"<tr>{first}{''.join(cell('td', v, k) for k, v in enumerate(row.cells) if k)}</tr>")
        parts.append("</tbody></table></div>")
        parts += [f'<p class="note">{html.escape(note)}</p>' for note in self.notes]
        return "".join(parts)

    def to_latex(self) -> str:
        """A ``table`` environment with booktabs rules; notes stand below as a small paragraph."""
        width = len(self.columns)
        lines = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering"]
        if self.title:
            lines.append(rf"\caption{{{tex(self.title)}}}")
        lines += [rf"\begin{{tabular}}{{{self.align}}}", r"\toprule", " & ".join(map(tex, self.columns)) + r" \\", r"\midrule"]
        for k, row in enumerate(self.rows):
            space = r"\hspace{1em}" * row.depth
            if row.group:
                if k and row.depth == 0:
                    lines.append(r"\addlinespace")
                style = r"\textbf" if row.depth == 0 else r"\textit"
                lines.append(rf"\multicolumn{{{width}}}{{l}}{{{space}{style}{{{tex(row.cells[0])}}}}} \\")
            else:
                lines.append(space + " & ".join(map(tex, row.cells)) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
        if self.notes:
            lines.append(r"\par\medskip\begin{minipage}{\linewidth}\footnotesize")
            lines += [rf"{tex(note)}\par" for note in self.notes]
            lines.append(r"\end{minipage}")
        lines.append(r"\end{table}")
        return "\n".join(lines) + "\n"


def word_file(layouts: tuple[Layout, ...], *, title: str) -> bytes:
    """The tables as one Word document.

    Raises
    ------
    InputError
        python-docx, which is an extra, is not installed.
    """
    try:
        import docx
    except ImportError:
        raise InputError(
            "Word files need the extra 'word': pip install 'trialkit[word]'. The CSV, HTML and LaTeX tables need nothing."
        ) from None
    from datetime import UTC, datetime

    document = docx.Document()
    section = document.sections[0]
    section.page_width, section.page_height = section.page_height, section.page_width  # landscape: ten columns do not fit upright
    section.orientation = 1
    # a file's own clock would make its bytes differ from run to run
    core = document.core_properties
    core.title, core.author, core.comments = _xml_safe(title), "", ""
    core.created = core.modified = datetime(2000, 1, 1, tzinfo=UTC)
    document.add_heading(_xml_safe(title), level=1)
    for layout in layouts:
        _word_table(document, layout)
    stream = io.BytesIO()
    document.save(stream)
    return _same_clock(stream.getvalue())


def _word_table(document: Any, layout: Layout) -> None:
    from docx.enum.text import WD_ALIGN_PARAGRAPH
    from docx.shared import Pt

    if layout.title:
        document.add_heading(_xml_safe(layout.title), level=2)
    table = document.add_table(rows=1, cols=len(layout.columns))
    table.style = "Light List"

    def put(cell: Any, value: str, *, right: bool = False, bold: bool = False, italic: bool = False, depth: int = 0) -> None:
        paragraph = cell.paragraphs[0]
        run = paragraph.add_run(_xml_safe(value))
        run.font.size, run.bold, run.italic = Pt(9), bold, italic
        paragraph.paragraph_format.space_after = Pt(1)
        paragraph.paragraph_format.left_indent = Pt(9 * depth)
        if right:
            paragraph.alignment = WD_ALIGN_PARAGRAPH.RIGHT

    for k, name in enumerate(layout.columns):
        put(table.rows[0].cells[k], name, right=layout.align[k] == "r", bold=True)
    for row in layout.rows:
        cells = table.add_row().cells
        if row.group:
            put(cells[0].merge(cells[-1]), row.cells[0], bold=row.depth == 0, italic=row.depth > 0, depth=row.depth)
        else:
            for k, value in enumerate(row.cells):
                put(cells[k], value, right=layout.align[k] == "r", depth=row.depth if k == 0 else 0)
    for note in layout.notes:
        paragraph = document.add_paragraph()
        paragraph.add_run(_xml_safe(note)).font.size = Pt(8)
        paragraph.paragraph_format.space_after = Pt(2)


def _same_clock(data: bytes) -> bytes:
    """The zip with every member dated alike, so that the same tables give the same bytes."""
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(zipfile.ZipInfo(member.filename, (2000, 1, 1, 0, 0, 0)), old.read(member), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _xml_safe(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\N{NO-BREAK SPACE}" else " " for c in text)


def _width(text: str) -> int:
    """Columns a text takes in a terminal: marks none, wide letters two."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int, align: str) -> str:
    space = " " * (width - _width(text))
    return space + text if align == "r" else text + space
