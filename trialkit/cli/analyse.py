"""``trialkit analyse``: participants' data and a design become tables, figures and a report."""

from __future__ import annotations

from pathlib import Path

import typer

from trialkit.cli._show import check_folder, new_folder, print_json, rows, say, told_of

TABLES = ("results.csv", "analyses.csv", "table2.csv", "table2.html", "table2.tex", "table2.docx")


def analyse(
    data: Path = typer.Argument(..., help="CSV, XLSX or Parquet, one row a person."),
    design: Path = typer.Option(..., help="The trial design (TOML)."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for tables, figures and report.html."),
    seed: int = typer.Option(1, help="Seed of the imputations; recorded in the report."),
    m: int | None = typer.Option(None, help="How many imputations (default: the design's)."),
    complete_cases: bool = typer.Option(False, "--complete-cases", help="Analyse complete cases; impute nothing."),
    force: bool = typer.Option(False, "--force", help="Overwrite files that exist."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Intention-to-treat analysis of every declared outcome, with multiple imputation; site means and pairs beside each model."""
    from trialkit.design import TrialDesign
    from trialkit.door import read_table, write_whole

    declared = TrialDesign.from_toml(design)
    people = read_table(data, text=declared.text_columns)
    check_folder(output, ["report.html", *TABLES], force=force)
    # what the work needs is loaded once the files have been read: a mistyped path is answered at once
    from trialkit.imputation import impute
    from trialkit.itt import itt
    from trialkit.itt.beside import ALL, RANDOMISATION
    from trialkit.itt.people import WHERE
    from trialkit.report import report, write_tables
    from trialkit.results import Table

    with told_of(WHERE, data):
        imputations = None if complete_cases else impute(people, declared, m=m, seed=seed)
        everything = itt(people if imputations is None else imputations, declared, analyses=[a for a in ALL if a != RANDOMISATION])
    results = everything.model
    page = report(everything, design=declared, people=people, imputations=imputations)
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
            {"results": rows(results.frame), "notes": list(results.notes), "files": [*map(str, written), str(folder / "report.html")]}
        )
        return
    typer.echo(results.to_text())
    say(f"Wrote {folder / 'report.html'} and {len(written)} tables and figures in {folder}.")
