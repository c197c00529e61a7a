"""``trialkit icc``: the intracluster correlation of a column, with an interval."""

from __future__ import annotations

from pathlib import Path

import typer

from trialkit.cli._show import print_json, rows


def icc(
    data: Path = typer.Argument(..., help="CSV, XLSX or Parquet, one row a person."),
    outcome: str = typer.Option(..., help="The outcome column."),
    cluster: str = typer.Option(..., help="The cluster column."),
    method: str = typer.Option("anova", help="anova or reml."),
    interval: str = typer.Option("searle", help="searle, smith, swiger, fisher or profile."),
    conf_level: float = typer.Option(0.95, help="Confidence level of the interval."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Estimate an intracluster correlation."""
    from trialkit.door import read_table
    from trialkit.power import estimate_icc

    frame = read_table(data, text=[cluster])
    result = estimate_icc(frame, outcome=outcome, cluster=cluster, method=method, interval=interval, conf_level=conf_level)
    if as_json:
        print_json(rows(result.frame)[0])
    else:
        typer.echo(result.to_text())
