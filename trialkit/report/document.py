"""The report: one self-contained page that a referee can read from the design to the seeds.

A section appears when its inputs are given; what was not given is said. The page loads nothing: its style and
pictures are inside it, and its own policy forbids everything remote. It holds no clock time, so that the same
inputs give the same bytes.
"""

from __future__ import annotations

import html
import os
import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from trialkit.design import TrialDesign
from trialkit.door import InputError, write_whole
from trialkit.report import sections as of
from trialkit.report import words
from trialkit.report.baseline import baseline_table
from trialkit.report.figures.canvas import Picture
from trialkit.report.sections import NEEDS, Block, Section, markup
from trialkit.report.tables import write_files


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes
    ----------
    path : Path or None
        Where it was written; None when no path was given.
    html : str
        The page.
    sections : tuple of str
        The sections it has, in order.
    not_given : tuple of str
        The sections it could not have, for want of input.
    pictures : tuple of Picture
    """

    path: Path | None
    html: str = field(repr=False)
    sections: tuple[str, ...]
    not_given: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = field(default=(), repr=False)

    def save_figures(self, folder: str | os.PathLike[str], *, force: bool = False) -> list[Path]:
        """Write its pictures as SVG and PNG; all or none, and an existing file only with `force`."""
        files: dict[str, str | bytes] = {}
        for item in self.pictures:
            files |= {f"{item.name}.svg": item.svg(), f"{item.name}.png": item.png()}
        return write_files(folder, files, force=force)

    def _repr_html_(self) -> str:
        page = html.escape(self.html, quote=True)
        return f'<iframe sandbox="" style="width:100%;height:40rem;border:1px solid #ddd" srcdoc="{page}"></iframe>'


def report(
    results: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    design: TrialDesign | None = None,
    sites: pd.DataFrame | None = None,
    people: pd.DataFrame | None = None,
    allocation: Any = None,
    power: Any = None,
    imputations: Any = None,
    checks: Any = None,
    estimands: Any = None,
    title: str | None = None,
    force: bool = False,
) -> Report:
    """Write the report of a trial as one self-contained HTML page.

    Parameters
    ----------
    results : result of ``itt`` or DataFrame
        One row an outcome.
    path : path, optional
        Where to write; without it the page is only returned.
    design : TrialDesign, optional
        Labels, levels, estimand; needed for the flow, the baseline table and the missing data.
    sites, people : DataFrame, optional
        One row a site recruited; one row a person.
    allocation : optional
        The drawn plan.
    power : optional
        The planning result.
    imputations : optional
        What ``impute`` gave: diagnostics and events.
    checks : optional
        What ``check`` gave.
    estimands : optional
        What ``trialkit.itt.estimand_effects`` gave: participant-average and cluster-average effects, and the picture of size (`design`).
    title : str, optional
        By default the design's.
    force : bool
        Overwrite a file that exists.

    Returns
    -------
    Report
        ``path``, ``html``, ``sections``.

    Raises
    ------
    InputError
        `results` is no result; the participants' table contradicts itself (the flow would not add up).
    Refused
        The file exists and `force` is False.
    WriteError
        The file could not be written.

    Examples
    --------
    >>> frame = pd.DataFrame({"outcome": ["climate"], "estimate": [0.351], "conf_low": [0.021], "conf_high": [0.681], "p_value": [0.043]})
    >>> report(frame).sections
    ('results', 'provenance')
    """
    if path is not None and Path(path).is_dir():
        raise InputError(f"{path} is a folder. Name the file to write, for example {Path(path) / 'report.html'}.")
    pictures: list[Picture] = []

    def picture(made: Picture) -> Block:
        pictures.append(made)
        return Block("picture", text=f"{made.title.rstrip('.')}.", html=markup(made.inline_svg()))

    sections: list[Section] = []
    if design is not None:
        sections.append(of.design_section(design))
    baseline = None
    if people is not None and design is not None:
        baseline = baseline_table(people, design, sites=sites, allocation=allocation)
    if allocation is not None:
        sections.append(of.allocation_section(allocation, design, sites, people, baseline, picture))
    if power is not None:
        sections.append(of.power_section(power, picture))
    if people is not None and design is not None and baseline is not None:
        sections.append(of.flow_section(results, people, design, sites, allocation, picture))
        sections.append(of.baseline_section(baseline))
        sections.append(of.missing_section(people, design, picture))
    if imputations is not None:
        sections.append(of.imputation_section(imputations, design, picture))
    sections.append(of.results_section(results, design, people, imputations, picture, estimands=estimands))
    if checks is not None:
        sections.append(of.checks_section(checks, design, picture))
    there = tuple(s.id for s in sections)
    absent = tuple(k for k in NEEDS if k not in there)
    sections.append(of.provenance_section(results, design, sites, people, allocation, imputations, checks, absent))
    heading = title or (design.trial.title if design is not None else "Cluster-randomised trial")
    page = _render(heading, _under(design), words.results_paragraph(results, design), sections)
    if path is not None:
        write_whole(path, page, force=force)
    return Report(Path(path) if path is not None else None, page, (*there, "provenance"), absent, tuple(pictures))


def save_figures(
    results: Any,
    folder: str | os.PathLike[str],
    *,
    design: TrialDesign | None = None,
    people: pd.DataFrame | None = None,
    sites: pd.DataFrame | None = None,
    allocation: Any = None,
    power: Any = None,
    imputations: Any = None,
    checks: Any = None,
    estimands: Any = None,
    force: bool = False,
) -> list[Path]:
    """Write every picture that the inputs allow as SVG and PNG; a `Report` in hand does it by its own ``save_figures``.

    Parameters
    ----------
    results, design, people, sites, allocation, power, imputations, checks, estimands
        As in `report`.
    folder : path
        Made if it does not exist.
    force : bool
        Overwrite files that exist.

    Returns
    -------
    list of Path

    Raises
    ------
    Refused
        One of the files exists and `force` is False; then none is written.
    """
    made = report(
        results,
        design=design,
        people=people,
        sites=sites,
        allocation=allocation,
        power=power,
        imputations=imputations,
        checks=checks,
        estimands=estimands,
    )
    return made.save_figures(folder, force=force)


# --- the page -----------------------------------------------------------------------------------------------


def _under(design: TrialDesign | None) -> str:
    registration = design.trial.registration if design is not None else ""
    return f"Registration: {registration}" if registration else "Registration: not stated"


def _render(title: str, under: str, lead: str, sections: list[Section]) -> str:
    from jinja2 import Environment, StrictUndefined

    from trialkit import __version__

    folder = resources.files("trialkit.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    style = markup((folder / "report.css").read_text(encoding="utf-8"))
    page: str = template.render(
        title=title,
        under=under,
        lead=lead,
        sections=sections,
        style=style,
        foot=f"Made with trialkit {__version__}. This page loads nothing from anywhere.",
    )
    # control characters and lone surrogates in a label would make the page ill-formed, and turned text would mislead
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", "", page)
