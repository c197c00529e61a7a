"""``trialkit check``: a planned analysis on simulated trials, for CI."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from trialkit.cli._show import check_folder, print_json


def check(
    scenario: Path = typer.Argument(..., help="The scenario, a TOML file."),
    trials: int = typer.Option(200, help="How many trials to simulate."),
    seed: int = typer.Option(..., help="A whole number; the same seed gives the same figures."),
    jobs: int = typer.Option(1, help="Worker processes; the figures do not depend on it."),
    imputations: int | None = typer.Option(None, help="Also analyse by two-level imputation, with so many imputations."),
    analysis: list[str] | None = typer.Option(None, help="An analysis to hold, by its name; once for each. By default the planned one."),
    store: Path | None = typer.Option(None, help="A folder that keeps finished chunks, so that a broken-off run goes on."),
    junit: Path | None = typer.Option(None, help="Also write JUnit XML there, for a CI server."),
    zipper: Path | None = typer.Option(None, help="Also draw every interval there, a zipper plot (.svg or .png)."),
    full: bool = typer.Option(False, "--full", help="Print every figure instead of the short table."),
    force: bool = typer.Option(False, "--force", help="Overwrite files that exist."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Simulate trials, analyse each, and hold the figures against their limits.

    Exit 0 when everything is inside its limits, 1 when something is outside, 2 for bad input.
    """
    from trialkit.door import InputError, write_whole
    from trialkit.simulation import Scenario
    from trialkit.simulation import check as run

    # said before the work, not after it
    for path in (junit, zipper):
        if path is not None:
            check_folder(path.parent, [path.name], force=force)
    if zipper is not None and zipper.suffix.lower() not in (".svg", ".png"):
        raise InputError(f"{zipper}: the zipper plot is written as .svg or .png. Change the ending.")
    result = run(
        Scenario.from_toml(scenario),
        trials=trials,
        seed=seed,
        jobs=jobs,
        analyses=analysis or None,
        imputations=imputations,
        store=store,
        progress=sys.stderr.isatty(),
    )
    if junit is not None:
        write_whole(junit, result.to_junit(), force=force)
    if zipper is not None:
        from trialkit.report import plot_zipper

        plot_zipper(result, panels=len(result.frame), conf_level=result.scenario.design.analysis.conf_level).save(zipper, force=force)
    if as_json:
        print_json({"passed": result.passed, **result.to_dict()})
    else:
        typer.echo(result.to_text() if full else result.short().to_text())
    if not result.passed:
        raise typer.Exit(1)
