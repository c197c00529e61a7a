"""``trialkit analyse``: participants' data and a design become tables, figures and a report."""

from __future__ import annotations

from pathlib import Path

import typer

from trialkit.cli._show import new_folder, print_json, rows, say


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
    """Intention-to-treat analysis of every declared outcome, with multiple imputation."""
    from trialkit.design import TrialDesign
    from trialkit.door import read_table
    from trialkit.imputation import impute
    from trialkit.itt import itt
    from trialkit.report import report, save_figures, write_tables

    declared = TrialDesign.from_toml(design)
    people = read_table(data, text=declared.text_columns)
    folder = new_folder(output, ["report.html", "results.csv"], force=force)
    imputations = None if complete_cases else impute(people, declared, m=m, seed=seed)
    results = itt(people if imputations is None else imputations, declared)
    written = write_tables(results, folder, design=declared, force=force)
    written += save_figures(results, folder, design=declared, force=force)
    page = report(results, folder / "report.html", design=declared, people=people, imputations=imputations, force=force)
    if as_json:
        print_json({"results": rows(results.frame), "notes": list(results.notes), "files": [*map(str, written), str(page.path)]})
        return
    typer.echo(results.to_text())
    say(f"Wrote {page.path} and {len(written)} tables and figures in {folder}.")
