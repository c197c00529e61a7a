"""``trialkit power``: power, sample size or anything else of a design solved for; one number or a grid."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import typer

from trialkit.cli._show import numbers_list, plain, print_json, rows

_COUNTS = ("clusters", "pairs", "strata", "subclusters", "controls", "arms", "comparisons", "n_cluster_covariates", "sides")
_MORE = "(several, with commas: a grid)"


def power(
    clusters: str | None = typer.Option(None, help=f"Clusters, both arms together {_MORE}. Left out with --power: solved for."),
    pairs: str | None = typer.Option(None, help="Matched pairs of clusters, instead of --clusters."),
    cluster_size: str | None = typer.Option(None, help=f"People a cluster (and period) {_MORE}."),
    icc: str | None = typer.Option(None, help=f"Intracluster correlation {_MORE}."),
    effect: str | None = typer.Option(
        None, help="Difference in SDs (Cohen's d), or in the units of --sd. Left out with --power: solved for."
    ),
    target: float | None = typer.Option(None, "--power", help="Power wanted: solves for the clusters, the effect, or what --find names."),
    find: str | None = typer.Option(None, help="With --power: the argument to solve for, such as cluster_size, icc or alpha."),
    alpha: str = typer.Option("0.05", help=f"Significance level {_MORE}."),
    sides: int = typer.Option(2, help="1 or 2."),
    sd: str | None = typer.Option(None, help="Standard deviation within an arm; 1 by default."),
    distribution: str | None = typer.Option(None, help="f (exact, the default), or by name z, z-plus-one, shifted-t, t-upper."),
    df: str | None = typer.Option(None, help="Degrees of freedom: a number or a rule, such as clusters-3 or welch."),
    allocation_ratio: str | None = typer.Option(None, help="Intervention clusters for each control cluster."),
    cluster_size_cv: str | None = typer.Option(None, "--cluster-size-cv", "--cv", help="Coefficient of variation of the cluster sizes."),
    analysis: str | None = typer.Option(None, help="What unequal sizes cost: mixed-model, size-weighted or cluster-means."),
    attrition: str | None = typer.Option(None, help="Share of people lost."),
    cluster_attrition: str | None = typer.Option(None, help="Share of clusters lost."),
    attrition_cv: bool = typer.Option(False, "--attrition-cv", help="Losses also make the sizes vary."),
    r2_cluster: str | None = typer.Option(None, help="Share of the variance between clusters that covariates explain."),
    r2_person: str | None = typer.Option(None, help="Share of the variance within clusters that covariates explain."),
    cluster_covariates: str | None = typer.Option(None, help="Covariates measured on clusters: each costs a degree of freedom."),
    matching_correlation: str | None = typer.Option(None, help="Correlation of cluster means within a pair (with --pairs)."),
    strata: str | None = typer.Option(None, help="Strata of clusters, fixed."),
    baseline: str | None = typer.Option(None, help="A baseline wave, analysed by: ancova, change or post (with --cac)."),
    cac: str | None = typer.Option(None, help="Cluster autocorrelation."),
    iac: str | None = typer.Option(None, help="Individual autocorrelation: above 0 the same people are seen again."),
    subclusters: str | None = typer.Option(None, help="Three levels: subclusters a cluster."),
    subcluster_size: str | None = typer.Option(None, help="People a subcluster, instead of --cluster-size."),
    icc_subcluster: str | None = typer.Option(None, help="Share of the variance between subclusters within clusters."),
    stepped_wedge: int | None = typer.Option(None, help="A stepped wedge of so many steps."),
    crossover: bool = typer.Option(False, "--crossover", help="A crossover of two periods."),
    correlation: str | None = typer.Option(None, help="Over periods: exchangeable, two-period or decay."),
    controls: str | None = typer.Option(None, help="Partially nested: people in the arm without clusters."),
    arms: str | None = typer.Option(None, help="Several arms."),
    comparisons: str | None = typer.Option(None, help="Tests that share the level (Bonferroni)."),
    outcome: str | None = typer.Option(None, help="continuous, binary, rate, count, ordinal or survival; found from the rest."),
    p_control: str | None = typer.Option(None, help="Proportion in the control arm."),
    p_intervention: str | None = typer.Option(None, help="Proportion in the intervention arm."),
    odds_ratio: str | None = typer.Option(None, help="Odds ratio, instead of --p-intervention."),
    scale: str | None = typer.Option(None, help="difference, log-odds or log-ratio."),
    rate_control: str | None = typer.Option(None, help="Rate in the control arm."),
    rate_intervention: str | None = typer.Option(None, help="Rate in the intervention arm."),
    person_time: str | None = typer.Option(None, help="Person-time at risk a cluster."),
    k: str | None = typer.Option(None, help="Coefficient of variation of the true cluster means, instead of --icc."),
    overdispersion: str | None = typer.Option(None, help="Variance of a count over its mean."),
    hazard_ratio: str | None = typer.Option(None, help="Hazard ratio."),
    event_probability: str | None = typer.Option(None, help="Probability that a person has the event."),
    icc_source: str | None = typer.Option(None, help="Where the ICC comes from, for the protocol."),
    design: Path | None = typer.Option(
        None, help="A file with a design as JSON (what PowerDesign.to_json writes); options go on top of it."
    ),
    explain: bool = typer.Option(False, "--explain", help="Formula, degrees of freedom, sources and every input."),
    protocol: bool = typer.Option(False, "--protocol", help="The paragraph for a protocol."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Power of a cluster trial of any design, by the exact noncentral F.

    Give clusters and effect for power; --power and effect for the clusters; --power and clusters for the effect; --power and --find for
    anything else. Several values with commas make a grid.
    """
    from trialkit.door import InputError

    words = {
        "distribution": distribution, "df": df, "analysis": analysis, "baseline": baseline, "correlation": correlation, "scale": scale,
        "outcome": outcome, "icc_source": icc_source,
    }  # fmt: skip
    numbers = {
        "clusters": clusters, "pairs": pairs, "cluster_size": cluster_size, "icc": icc, "effect": effect, "sd": sd,
        "allocation_ratio": allocation_ratio, "cluster_size_cv": cluster_size_cv, "attrition": attrition,
        "cluster_attrition": cluster_attrition, "r2_cluster": r2_cluster, "r2_person": r2_person,
        "n_cluster_covariates": cluster_covariates, "matching_correlation": matching_correlation, "strata": strata, "cac": cac, "iac": iac,
        "subclusters": subclusters, "subcluster_size": subcluster_size, "icc_subcluster": icc_subcluster, "controls": controls,
        "arms": arms, "comparisons": comparisons, "p_control": p_control, "p_intervention": p_intervention, "odds_ratio": odds_ratio,
        "rate_control": rate_control, "rate_intervention": rate_intervention, "person_time": person_time, "k": k,
        "overdispersion": overdispersion, "hazard_ratio": hazard_ratio, "event_probability": event_probability, "alpha": alpha,
    }  # fmt: skip
    if clusters is not None and pairs is not None:
        raise InputError("--clusters and --pairs were both given. A pair is two clusters: give one of them.")
    base = _design(design)
    has = set(base.given() if base is not None else ()) | {name for name, text in numbers.items() if text is not None}
    if matching_correlation is not None and "pairs" not in has and clusters is not None:
        raise InputError("--matching-correlation belongs to matched pairs: give --pairs instead of --clusters.")
    fixed: dict[str, Any] = {name: word for name, word in words.items() if word is not None}
    if base is not None and alpha == "0.05":
        numbers["alpha"] = None
    if base is None or sides != 2:
        fixed["sides"] = sides
    if df is not None and df.replace(".", "", 1).isdigit():
        fixed["df"] = float(df)
    if attrition_cv:
        fixed["attrition_cv"] = True
    fixed |= _layout(stepped_wedge, crossover)
    axes = {name: _values(name, text) for name, text in numbers.items() if text is not None}
    verb = _verb(has | set(fixed), target, find)
    if target is not None:
        fixed["power"] = target
    if find is not None:
        fixed["find"] = find.replace("-", "_")
    start = () if base is None else (base,)
    results = [verb(*start, **dict(zip(axes, cell, strict=True)), **fixed) for cell in product(*axes.values())]
    if as_json:
        objects = [_object(r, explain=explain, protocol=protocol) for r in results]
        print_json(objects[0] if len(objects) == 1 else {"grid": objects})
    elif explain or protocol:
        texts = [t for r in results for t in ((r.explain(),) if explain else ()) + ((r.protocol_text(),) if protocol else ())]
        typer.echo("\n\n".join(texts))
    elif len(results) == 1:
        typer.echo(results[0].to_text())
    else:
        typer.echo(_grid(results))


def _design(path: Path | None) -> Any:
    """The design in a file."""
    if path is None:
        return None
    from trialkit.door import InputError
    from trialkit.power import PowerDesign

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a design: {getattr(error, 'strerror', None) or error}.") from None
    return PowerDesign.from_json(text)


def _layout(steps: int | None, crossed: bool) -> dict[str, Any]:
    from trialkit.door import InputError
    from trialkit.power import crossover, stepped_wedge

    if steps is not None and crossed:
        raise InputError("--stepped-wedge and --crossover were both given: a trial is one or the other.")
    if steps is not None:
        return {"layout": stepped_wedge(steps)}
    return {"layout": crossover()} if crossed else {}


def _verb(has: set[str], target: float | None, find: str | None) -> Any:
    """Which of the verbs is asked for by what was given and what was left out."""
    from trialkit.door import InputError
    from trialkit.power import detectable_effect, sample_size, solve
    from trialkit.power import power as attained

    sized = bool(has & {"clusters", "pairs"})
    aimed = bool(has & {"effect", "p_intervention", "odds_ratio", "rate_intervention", "hazard_ratio", "means"})
    people = bool(has & {"cluster_size", "subcluster_size", "person_time"})
    if find is not None:
        if target is None:
            raise InputError("--find names what to solve for, and --power the power wanted: give both.")
        return solve
    if target is None and not (sized and aimed) and (people or not sized):
        raise InputError("give --clusters and --effect for power, or --power with one of them left out to solve for it.")
    if not people:
        raise InputError("Missing option '--cluster-size' (people a cluster), or --subcluster-size, or --person-time of a rate.")
    if not has & {"icc", "k"}:
        raise InputError("Missing option '--icc' (the intracluster correlation), or --k of a rate or proportion.")
    if target is None:
        return attained
    if sized == aimed:
        raise InputError(
            "with --power, leave out either --clusters (to solve for it) or --effect (to solve for it), not both or neither; "
            "--find names anything else."
        )
    return detectable_effect if sized else sample_size


def _values(name: str, text: str) -> list[Any]:
    """One or several numbers; counts must be whole."""
    from trialkit.door import InputError

    option = "--cluster-covariates" if name == "n_cluster_covariates" else f"--{name.replace('_', '-')}"
    values = numbers_list(text, option=option)
    if name not in _COUNTS:
        return list(values)
    for v in values:
        if v != int(v):
            raise InputError(f"{option} {v}: a whole number is needed.")
    return [int(v) for v in values]


def _object(result: Any, *, explain: bool, protocol: bool) -> dict[str, Any]:
    """The table's first row, and what the table has no room for."""
    said = result.to_dict()
    out = rows(result.frame)[0]
    for name in ("pairs", "solved_for", "exact", "target", "variance", "noncentrality", "warnings"):
        out[name] = plain(said[name])
    out["inputs"] = said["design"]
    out["recruit"] = rows(result.recruit)
    if explain:
        out["explain"] = result.explain()
    if protocol:
        out["protocol"] = result.protocol_text()
    return out


def _grid(results: list[Any]) -> str:
    """One row a cell: what was varied or solved for, and the power."""
    import pandas as pd

    from trialkit.results import Table

    frames = []
    for r in results:
        frame = r.frame
        given = {
            n: v for n, v in r.design.given().items() if n not in frame.columns and isinstance(v, int | float) and not isinstance(v, bool)
        }
        frames.append(frame.assign(**given))
    table = pd.concat(frames, ignore_index=True)
    return Table(table, formats=results[0].formats).to_text()
