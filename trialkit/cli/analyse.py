"""``trialkit analyse``: participants' data and a design become tables, figures and a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trialkit.cli._show import check_folder, new_folder, print_json, rows, say, told_of

if TYPE_CHECKING:
    import pandas as pd

    from trialkit.allocation.brought import Brought
    from trialkit.design import TrialDesign
    from trialkit.results import Table

TABLES = ("results.csv", "analyses.csv", "table2.csv", "table2.html", "table2.tex", "table2.docx")


def analyse(
    data: Path = typer.Argument(..., help="CSV, XLSX or Parquet, one row a person."),
    design: Path = typer.Option(..., help="The trial design (TOML)."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for tables, figures and report.html."),
    allocation: Path | None = typer.Option(
        None, help="The trial's allocation: certificate or plan (JSON), or its table with site, pair and arm; makes the randomisation test."
    ),
    per_protocol: bool = typer.Option(
        False, "--per-protocol", help="Also analyse those who followed the protocol (\\[compliance] per_protocol), under that name."
    ),
    seed: int = typer.Option(1, help="Seed of the imputations, and of sampled assignments; recorded in the report."),
    m: int | None = typer.Option(None, help="How many imputations (default: the design's)."),
    complete_cases: bool = typer.Option(False, "--complete-cases", help="Analyse complete cases; impute nothing."),
    force: bool = typer.Option(False, "--force", help="Overwrite files that exist."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Intention-to-treat analysis of every declared outcome, with multiple imputation; other analyses stand beside each model.

    They are site means, pairs, and, where the design says what was received, complier-average effects; with the allocation also the
    randomisation test by the very scheme that was drawn from.
    """
    from trialkit.design import TrialDesign
    from trialkit.door import read_table, write_whole

    declared = TrialDesign.from_toml(design)
    people = read_table(data, text=declared.text_columns)
    check_folder(output, ["report.html", *TABLES], force=force)
    # what the work needs is loaded once the files have been read: a mistyped path is answered at once
    from trialkit.allocation.brought import Oriented
    from trialkit.imputation import impute
    from trialkit.itt import estimand_effects, itt
    from trialkit.itt.beside import PER_PROTOCOL
    from trialkit.itt.people import WHERE
    from trialkit.report import report, write_tables
    from trialkit.results import Table

    with told_of(WHERE, data):
        brought = None if allocation is None else _held_against(allocation, people, declared)
        imputations = None if complete_cases else impute(people, declared, m=m, seed=seed)
        everything = itt(
            people if imputations is None else imputations,
            declared,
            analyses=["all", *([PER_PROTOCOL] if per_protocol else [])],
            plan=None if brought is None else Oriented(brought.plan, declared.arms.intervention),
            seed=seed,
        )
        primary = [o.name for o in declared.outcomes if o.rank == "primary"]
        estimands = estimand_effects(people if imputations is None else imputations, declared, outcomes=primary or None)
    if brought is not None:
        everything = replace(everything, notes=(*everything.notes, *brought.notes))
    results = everything.model
    drawn = None if brought is None else brought.allocation
    page = report(everything, design=declared, people=people, imputations=imputations, allocation=drawn, estimands=estimands)
    # everything is computed; only now is anything written
    pictures = [f"figures/{p.name}.{kind}" for p in page.pictures for kind in ("svg", "png")]
    folder = new_folder(output, ["report.html", *TABLES, *pictures], force=force)
    write_whole(folder / "report.html", page.html, force=force)
    written = write_tables(results, folder, design=declared, people=people, force=force)
    write_whole(folder / "analyses.csv", Table(everything.frame).to_csv(), force=force)
    written.append(folder / "analyses.csv")
    written += page.save_figures(folder / "figures", force=force)
    if as_json:
        print_json(
            {
                "results": rows(results.frame),
                "analyses": rows(everything.frame),
                "notes": list(results.notes),
                "files": [*map(str, written), str(folder / "report.html")],
            }
        )
        return
    typer.echo(results.to_text())
    typer.echo("")
    typer.echo(_primary(everything.frame).to_text())
    say(f"Wrote {folder / 'report.html'} and {len(written)} tables and figures in {folder}.")


def _primary(frame: pd.DataFrame) -> Table:
    """The primary outcomes (all, when none is) by every analysis; the others stand in analyses.csv."""
    from trialkit.results import Table

    columns = ["outcome", "analysis", "measure", "estimate", "df", "p_value", "conf_low", "conf_high", "clusters"]
    primary = frame[frame["rank"] == "primary"]
    kept = (primary if len(primary) else frame)[columns].reset_index(drop=True)
    more = f" The other outcomes' are in {TABLES[1]}." if len(kept) < len(frame) else ""
    return Table(kept, "The same effect by several analyses", (f"p_value as it is, not adjusted.{more}",))


def _held_against(allocation: Path, people: pd.DataFrame, design: TrialDesign) -> Brought:
    """The allocation, once every site of the data has been found in it, in the arm that it drew."""
    from trialkit.allocation.brought import bring, hold_against
    from trialkit.itt.people import read_people

    found = bring(allocation, site=design.allocation.id if design.allocation else design.columns.site, arms=design.arms.labels)
    read = read_people(people, design)
    arms = {read.sites[s]: design.arms.labels[int(a)] for s, a in zip(read.site.tolist(), read.arm.tolist(), strict=True)}
    hold_against(found, arms)
    return found
