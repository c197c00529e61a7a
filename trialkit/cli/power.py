"""``trialkit power``: power, sample size or detectable effect, one number or a grid."""

from __future__ import annotations

from itertools import product
from typing import Any

import typer

from trialkit.cli._show import numbers_list, print_json


def power(
    clusters: str | None = typer.Option(None, help="Clusters, both arms together (several: 20,40,60). Left out with --power: solved for."),
    pairs: str | None = typer.Option(None, help="Matched pairs of clusters, instead of --clusters."),
    cluster_size: str = typer.Option(..., help="People a cluster (several: 10,20)."),
    icc: str = typer.Option(..., help="Intracluster correlation (several: .01,.05,.1)."),
    effect: str | None = typer.Option(None, help="Standardised effect (Cohen's d). Left out with --power and --clusters: solved for."),
    target: float | None = typer.Option(None, "--power", help="Power wanted: solves for the clusters, or for the effect."),
    alpha: float = typer.Option(0.05, help="Significance level."),
    sides: int = typer.Option(2, help="1 or 2."),
    matching_correlation: float = typer.Option(0.0, help="Correlation of cluster means within a pair (with --pairs)."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Power of a parallel or matched-pair cluster trial, by the exact noncentral F.

    Give clusters and effect for power; --power and effect for the clusters; --power and clusters for the effect.
    """
    from trialkit.door import InputError
    from trialkit.power import detectable_effect, sample_size
    from trialkit.power import power as attained

    if clusters is not None and pairs is not None:
        raise InputError("--clusters and --pairs were both given. A pair is two clusters: give one of them.")
    many_clusters = clusters if clusters is not None else pairs
    fixed: dict[str, Any] = {"alpha": alpha, "sides": sides}
    if pairs is not None:
        fixed["matching_correlation"] = matching_correlation
    elif matching_correlation:
        raise InputError("--matching-correlation belongs to matched pairs: give --pairs instead of --clusters.")
    axes: dict[str, list[float]] = {
        "cluster_size": numbers_list(cluster_size, option="--cluster-size"),
        "icc": numbers_list(icc, option="--icc"),
    }
    if many_clusters is not None:
        name = "clusters" if clusters is not None else "pairs"
        axes[name] = [_whole(v, f"--{name}") for v in numbers_list(many_clusters, option=f"--{name}")]
    if effect is not None:
        axes["effect"] = numbers_list(effect, option="--effect")
    if target is None:
        if many_clusters is None or effect is None:
            raise InputError("give --clusters and --effect for power, or --power with one of them left out to solve for it.")
        verb = attained
    else:
        if (many_clusters is None) == (effect is None):
            raise InputError(
                "with --power, leave out either --clusters (to solve for it) or --effect (to solve for it), not both or neither."
            )
        if many_clusters is None and pairs is None:
            verb = sample_size
        else:
            verb = detectable_effect
        fixed["power"] = target
    cells = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    results = [verb(**cell, **fixed) for cell in cells]
    if as_json:
        objects = [_object(r) for r in results]
        print_json(objects[0] if len(objects) == 1 else {"grid": objects})
        return
    if len(results) == 1:
        typer.echo(results[0].to_text())
        return
    import pandas as pd

    from trialkit.results import Table

    typer.echo(Table(pd.concat([r.frame for r in results], ignore_index=True)).to_text())


def _whole(value: float, option: str) -> int:
    from trialkit.door import InputError

    if value != int(value):
        raise InputError(f"{option} {value}: a whole number is needed.")
    return int(value)


def _object(result: Any) -> dict[str, Any]:
    from trialkit.cli._show import rows

    return rows(result.frame)[0]
