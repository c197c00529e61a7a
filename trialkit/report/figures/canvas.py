"""What every picture is drawn on: one look, kept to itself, and files whose bytes repeat.

A picture is a `Picture`: the axes, the numbers that were drawn, the words for somebody who cannot see it,
and its SVG or PNG. matplotlib's own settings are changed only while a picture is drawn or written, and
``pyplot`` is not used, so that nothing is left behind in the user's session.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from trialkit.door import InputError, write_whole
from trialkit.results import minus

# Okabe and Ito's colours: told apart by every common kind of colour vision; shape and fill differ too, for print
REFERENCE: Final = "#0072B2"
INTERVENTION: Final = "#D55E00"
INK: Final = "#222222"
SOFT: Final = "#6B6B6B"
RULE: Final = "#C8C8C8"
WASH: Final = "#F3F3F1"
ALARM: Final = "#B3123F"
CYCLE: Final = (REFERENCE, INTERVENTION, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

FONT_SIZE: Final = 9.5
_STYLE: Final[dict[str, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same letters on every machine
    "font.size": FONT_SIZE,
    "text.color": INK,
    "text.parse_math": False,  # a label is a label: a dollar sign starts no formula
    "axes.edgecolor": "#8A8A8A",
    "axes.labelcolor": INK,
    "axes.labelsize": FONT_SIZE,
    "axes.titlesize": FONT_SIZE + 0.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "normal",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.unicode_minus": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": FONT_SIZE - 0.5,
    "ytick.labelsize": FONT_SIZE - 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "lines.linewidth": 1.2,
    "lines.solid_capstyle": "butt",
    "patch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": FONT_SIZE - 0.5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # letters as outlines: the picture does not depend on the reader's fonts
    "svg.image_inline": True,
    "image.interpolation": "none",
}


@contextmanager
def look(name: str = "trialkit") -> Iterator[None]:
    """The house style, for as long as the block lasts; `name` salts the ids in the SVG so that they repeat."""
    import matplotlib

    with matplotlib.rc_context(), matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        yield


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches, bound to no window and to no global list."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def text_width(text: str, size: float = FONT_SIZE, *, bold: bool = False) -> float:
    """How many inches wide a line of text is set in the house face."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    text = clean(text)
    if not text:
        return 0.0
    face = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(text, face, False)
    return float(width) / 72.0


def clean(text: object) -> str:
    """A label as one line: control characters would break the picture's file."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def shorten(text: str, width: float, size: float = FONT_SIZE) -> str:
    """A label cut to so many inches, with an ellipsis where something was cut."""
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle].rstrip() + "…", size) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def wrap(text: str, width: float, size: float = FONT_SIZE) -> list[str]:
    """A text in lines of at most so many inches, broken at spaces."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(joined, size) <= width:
            lines[-1] = joined
        else:
            lines.append(shorten(word, width, size))
    return lines or [""]


def panel_title(text: str, width: float, size: float = FONT_SIZE) -> str:
    """A panel's title in at most two lines; what tells two panels apart, after the last comma, is never cut."""
    lines = wrap(text, width, size)
    if len(lines) <= 2:
        return "\n".join(lines)
    head, comma, tail = text.rpartition(", ")
    end = f", {tail}" if comma and text_width(tail, size) < 0.6 * width else ""
    rest = (head if end else text)[len(lines[0]) :].strip()
    return f"{lines[0]}\n{shorten(rest, width - text_width(end, size), size)}{end}"


def number(value: float, digits: int = 2) -> str:
    """A number for a label: true minus sign, never a negative zero."""
    text = f"{value:.{digits}f}"
    return minus(text[1:] if text.startswith("-") and not text.strip("-0.") else text)


@dataclass(frozen=True)
class Picture:
    """A drawn picture.

    Attributes
    ----------
    name : str
        A short word for the file, such as ``forest``.
    title : str
        The caption, one sentence.
    alt : str
        What the picture shows, with its main numbers, in words.
    data : DataFrame
        The numbers that were drawn.
    axes : tuple of matplotlib Axes
    figure : matplotlib Figure
    """

    name: str
    title: str
    alt: str
    data: pd.DataFrame
    axes: tuple[Any, ...]
    figure: Any

    @property
    def ax(self) -> Any:
        """The first of the axes."""
        return self.axes[0]

    def svg(self) -> str:
        """The picture as a standalone SVG file; the same picture gives the same bytes."""
        return _titled(self._raw_svg(), self.title, self.alt, self.name)

    def inline_svg(self) -> str:
        """The picture as an ``<svg>`` element for a page that holds several: ids are its own, nothing points outside."""
        return _inlined(_titled(self._raw_svg(), self.title, self.alt, self.name), self.name)

    def png(self, *, dpi: int = 200) -> bytes:
        """The picture as PNG bytes."""
        stream = io.BytesIO()
        with look(self.name):
            self.figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
        return stream.getvalue()

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write ``.svg`` or ``.png``, by the ending of `path`; an existing file only with `force`."""
        target = Path(path)
        if target.suffix.lower() == ".svg":
            write_whole(target, self.svg(), force=force)
        elif target.suffix.lower() == ".png":
            write_whole(target, self.png(), force=force)
        else:
            raise InputError(
                f"{target}: pictures are written as .svg or .png, not {target.suffix or 'without an ending'}. Change the ending."
            )
        return target

    def _raw_svg(self) -> str:
        stream = io.StringIO()
        with look(self.name):
            self.figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        return stream.getvalue()

    def _repr_html_(self) -> str:
        return f"<figure>{self.inline_svg()}<figcaption>{_escape(self.title)}</figcaption></figure>"


def _escape(text: str) -> str:
    import html

    return html.escape(clean(text), quote=True)


def _titled(svg: str, title: str, alt: str, name: str) -> str:
    """The SVG with a title and a description, which is what a screen reader says."""
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!DOCTYPE.*?>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"[ \t]+\n", "\n", svg)
    head, body = re.split(r"(?<=>)", svg[svg.index("<svg") :], maxsplit=1)
    head = head.replace("<svg", f'<svg role="img" aria-labelledby="{name}-title {name}-desc"', 1)
    words = f'\n <title id="{name}-title">{_escape(title)}</title>\n <desc id="{name}-desc">{_escape(alt)}</desc>'
    return f'<?xml version="1.0" encoding="utf-8" standalone="no"?>\n{head}{words}{body}'


def _inlined(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]
    # matplotlib's style sheet says one thing about every element; on a page it would reach the other pictures
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, count=1, flags=re.DOTALL)
    head, body = re.split(r"(?<=>)", svg, maxsplit=1)
    head = re.sub(r' xmlns(:\w+)?="[^"]*"', "", head)
    head = re.sub(r' (width|height)="[^"]*pt"', "", head)
    width = float(re.search(r'viewBox="0 0 ([\d.]+) ', head).group(1))  # type: ignore[union-attr]
    # the page's style sheet reads --w; without one (a notebook) the width attribute holds
    style = f"--w:{width / 72:.2f}in;stroke-linejoin:round;stroke-linecap:butt"
    head = head.replace("<svg", f'<svg width="{width / 0.75:.0f}" style="{style}"', 1)
    body = re.sub(r'\bid="(?!' + re.escape(name) + r'-(?:title|desc)")([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    return (head + body.replace("xlink:href=", "href=")).strip()
