"""``trialkit check``: a planned analysis on simulated trials, for CI."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from trialkit.cli._show import print_json


def check(
    scenario: Path = typer.Argument(..., help="The scenario, a TOML file."),
    trials: int = typer.Option(200, help="How many trials to simulate."),
    seed: int = typer.Option(..., help="A whole number; the same seed gives the same figures."),
    jobs: int = typer.Option(1, help="Worker processes; the figures do not depend on it."),
    imputations: int | None = typer.Option(None, help="Also analyse by two-level imputation, with so many imputations."),
    store: Path | None = typer.Option(None, help="A folder that keeps finished chunks, so that a broken-off run goes on."),
    junit: Path | None = typer.Option(None, help="Also write JUnit XML there, for a CI server."),
    force: bool = typer.Option(False, "--force", help="Overwrite the JUnit file."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Simulate trials, analyse each, and hold the figures against their limits.

    Exit 0 when everything is inside its limits, 1 when something is outside, 2 for bad input.
    """
    from trialkit.door import write_whole
    from trialkit.simulation import Scenario
    from trialkit.simulation import check as run

    result = run(
        Scenario.from_toml(scenario),
        trials=trials,
        seed=seed,
        jobs=jobs,
        imputations=imputations,
        store=store,
        progress=sys.stderr.isatty(),
    )
    if junit is not None:
        write_whole(junit, result.to_junit(), force=force)
    if as_json:
        print_json({"passed": result.passed, **result.to_dict()})
    else:
        typer.echo(result.to_text())
    if not result.passed:
        raise typer.Exit(1)
