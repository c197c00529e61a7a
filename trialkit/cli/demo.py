"""``trialkit demo``: the main job on a simulated supervision trial, from site list to published table."""

from __future__ import annotations

from pathlib import Path

import typer


def demo(
    output: Path = typer.Option(Path("trialkit-demo"), "-o", "--output", help="Folder for what the demo makes."),
    force: bool = typer.Option(False, "--force", help="Overwrite the files of an earlier demo."),
) -> None:
    """Simulate a trial, allocate, power, impute, analyse, report."""
    raise NotImplementedError
