"""``trialkit icc``: the intracluster correlation of a column, with an interval."""

from __future__ import annotations

from pathlib import Path

import typer

from trialkit.cli._show import print_json, rows


def icc(
    data: Path = typer.Argument(..., help="CSV, XLSX or Parquet, one row a person."),
    outcome: str = typer.Option(..., help="The outcome column."),
    cluster: str = typer.Option(..., help="The cluster column."),
    method: str = typer.Option("anova", help="anova, reml, ml, or fleiss-cuzick (a binary outcome)."),
    interval: str | None = typer.Option(None, help="searle, smith, swiger, fisher, profile or jackknife; the method's own by default."),
    adjust: str | None = typer.Option(None, help="Columns to take out first, such as the arm (several: arm,stratum)."),
    scale: str = typer.Option("observed", help="observed, or latent: a binary outcome on the logistic scale."),
    conf_level: float = typer.Option(0.95, help="Confidence level of the interval."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Estimate an intracluster correlation."""
    from trialkit.door import read_table
    from trialkit.power import estimate_icc

    columns = [c.strip() for c in adjust.split(",") if c.strip()] if adjust else []
    frame = read_table(data, text=[cluster])
    result = estimate_icc(
        frame, outcome=outcome, cluster=cluster, method=method, interval=interval, adjust=columns, scale=scale, conf_level=conf_level
    )
    if as_json:
        more = {"adjusted_for": list(result.adjusted_for), "scale": result.scale, "left_out": result.left_out, "notes": list(result.notes)}
        print_json({**rows(result.frame)[0], **more})
    else:
        typer.echo(result.to_text())
