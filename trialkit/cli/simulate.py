"""``trialkit simulate``: a scenario becomes CSV files."""

from __future__ import annotations

from pathlib import Path

import typer

from trialkit.cli._show import new_folder, say


def simulate(
    scenario: Path = typer.Argument(..., help="The scenario, a TOML file."),
    seed: int = typer.Option(..., help="A whole number; the same seed gives the same trial."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for sites.csv, people.csv and truth.csv."),
    force: bool = typer.Option(False, "--force", help="Overwrite files that exist."),
) -> None:
    """Simulate one trial."""
    from trialkit.door import write_whole
    from trialkit.simulation import Scenario
    from trialkit.simulation import simulate as run

    trial = run(Scenario.from_toml(scenario), seed=seed)
    tables = {"sites.csv": trial.sites, "people.csv": trial.people, "truth.csv": trial.truth}
    folder = new_folder(output, list(tables), force=force)
    for name, frame in tables.items():
        write_whole(folder / name, frame.to_csv(index=False, lineterminator="\n"), force=force)
        say(f"{folder / name}: {len(frame):,} rows")
