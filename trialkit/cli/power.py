"""``trialkit power``: power, sample size or anything else of a design solved for; one number or a grid."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import typer

from trialkit.cli._show import numbers_list, plain, print_json, rows

_COUNTS = ("clusters", "pairs", "strata", "subclusters", "controls", "arms", "comparisons", "n_cluster_covariates", "sides")
_MORE = "(several, with commas: a grid)"
_BY_ARM = ("clusters", "cluster_size", "icc", "icc_subcluster", "sd", "cluster_size_cv", "k", "event_probability")


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
    matching_scale: str | None = typer.Option(None, help="That correlation's scale: means, or effects (true cluster effects)."),
    strata: str | None = typer.Option(None, help="Strata of clusters."),
    strata_effects: str | None = typer.Option(None, help="fixed, or random."),
    icc_stratum: str | None = typer.Option(None, help="Share of the variance between strata."),
    stratum_heterogeneity: str | None = typer.Option(None, help="Variance of the effect over strata, relative to that between strata."),
    baseline: str | None = typer.Option(None, help="A baseline wave, analysed by: ancova, change or post (with --cac)."),
    cac: str | None = typer.Option(None, help="Cluster autocorrelation."),
    baseline_cluster_size: str | None = typer.Option(None, help="People a cluster at baseline, when they are not as many."),
    iac: str | None = typer.Option(None, help="Individual autocorrelation: above 0 the same people are seen again."),
    subclusters: str | None = typer.Option(None, help="Three levels: subclusters a cluster."),
    subcluster_size: str | None = typer.Option(None, help="People a subcluster, instead of --cluster-size."),
    icc_subcluster: str | None = typer.Option(None, help="Share of the variance between subclusters within clusters."),
    r2_subcluster: str | None = typer.Option(None, help="Share of the variance between subclusters that covariates explain."),
    layout: str | None = typer.Option(
        None, help="Any layout, a sequence after another: '0,1,1;0,0,1', NA where not observed; or a CSV file of it without a header."
    ),
    clusters_per_sequence: str | None = typer.Option(None, help="Clusters of each sequence of a layout, such as 3,4,3."),
    stepped_wedge: int | None = typer.Option(None, help="A stepped wedge of so many steps."),
    crossover: bool = typer.Option(False, "--crossover", help="A crossover of two periods."),
    correlation: str | None = typer.Option(None, help="Over periods: exchangeable, two-period or decay."),
    person_correlation: str | None = typer.Option(None, help="Of people seen again, over periods: constant or decay."),
    turnover: str | None = typer.Option(None, help="Share of people replaced between periods: 0 a closed cohort, 1 new people."),
    intervention_sd: str | None = typer.Option(None, help="Standard deviation of the effect over clusters of a layout."),
    intervention_correlation: str | None = typer.Option(None, help="Correlation of a cluster's effect with its level."),
    time_effects: str | None = typer.Option(None, help="Of a layout: categorical, linear or none."),
    estimand: str | None = typer.Option(None, help="Of a layout: constant, or exposure-average."),
    controls: str | None = typer.Option(None, help="Partially nested: people in the arm without clusters."),
    arms: str | None = typer.Option(None, help="Several arms."),
    comparisons: str | None = typer.Option(None, help="Tests that share the level (Bonferroni)."),
    means: str | None = typer.Option(None, help="Means of several arms, the control first: 0,.3,.5."),
    contrast: str | None = typer.Option(None, help="Weights of the arms that sum to 0: '-1,.5,.5'."),
    versus_control: str | None = typer.Option(None, help="Every arm against control: dunnett, bonferroni or unadjusted."),
    success: str | None = typer.Option(None, help="With --versus-control, the power of: each comparison, any, or all."),
    modifier_icc: str | None = typer.Option(None, help="Effect modification: ICC of the modifier; --effect is the interaction."),
    modifier_sd: str | None = typer.Option(None, help="Standard deviation of the modifier."),
    hypothesis: str | None = typer.Option(None, help="superiority, non-inferiority, equivalence or superiority-by-margin."),
    margin: str | None = typer.Option(None, help="Its margin, positive, on the scale of the effect."),
    better: str | None = typer.Option(None, help="Which way a good effect points: higher or lower."),
    effects: str | None = typer.Option(None, help="Co-primary outcomes: the effect of each, .3,.4."),
    between_person_correlation: str | None = typer.Option(None, help="Co-primary: two outcomes in two people of one cluster."),
    within_person_correlation: str | None = typer.Option(None, help="Co-primary: two outcomes in one person."),
    test: str | None = typer.Option(None, help="Co-primary: all, any, bonferroni, sidak, dap, weighted or combined."),
    outcome: str | None = typer.Option(None, help="continuous, binary, rate, count, ordinal or survival; found from the rest."),
    p_control: str | None = typer.Option(None, help="Proportion in the control arm."),
    p_intervention: str | None = typer.Option(None, help="Proportion in the intervention arm."),
    pooled: bool = typer.Option(False, "--pooled", help="Variance of proportions at their mean."),
    icc_scale: str | None = typer.Option(None, help="ICC of a binary outcome: proportion, or latent."),
    proportions: str | None = typer.Option(None, help="Ordinal outcome: shares of its categories in the control arm, .2,.5,.3."),
    odds_ratio: str | None = typer.Option(None, help="Odds ratio, instead of --p-intervention."),
    scale: str | None = typer.Option(None, help="difference, log-odds or log-ratio."),
    rate_control: str | None = typer.Option(None, help="Rate in the control arm."),
    rate_intervention: str | None = typer.Option(None, help="Rate in the intervention arm."),
    person_time: str | None = typer.Option(None, help="Person-time at risk a cluster."),
    k: str | None = typer.Option(None, help="Coefficient of variation of the true cluster means, instead of --icc."),
    overdispersion: str | None = typer.Option(None, help="Variance of a count over its mean."),
    hazard_ratio: str | None = typer.Option(None, help="Hazard ratio."),
    event_probability: str | None = typer.Option(None, help="Probability that a person has the event."),
    variance_factor: str | None = typer.Option(None, help="A further factor on the variance of the effect."),
    icc_source: str | None = typer.Option(None, help="Where the ICC comes from, for the protocol."),
    design: Path | None = typer.Option(
        None, help="A file with a design as JSON (what PowerDesign.to_json writes); options go on top of it."
    ),
    planned: int | None = typer.Option(None, help="Also simulate so many trials and fit them as planned (with --seed)."),
    seed: int | None = typer.Option(None, help="Seed of --planned."),
    explain: bool = typer.Option(False, "--explain", help="Formula, degrees of freedom, sources and every input."),
    protocol: bool = typer.Option(False, "--protocol", help="The paragraph for a protocol."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Power of a cluster trial of any design, by the exact noncentral F.

    Give clusters and effect for power; --power and effect for the clusters; --power and clusters for the effect; --power and --find for
    anything else. Several values with commas make a grid; two with a colon are by arm, 12:8 control and intervention clusters.
    --cluster-size takes a list of sizes as '[5,8,12,20]'.
    """
    from trialkit.door import InputError

    words = {
        "distribution": distribution, "df": df, "analysis": analysis, "baseline": baseline, "correlation": correlation, "scale": scale,
        "outcome": outcome, "icc_source": icc_source, "matching_scale": matching_scale, "strata_effects": strata_effects,
        "person_correlation": person_correlation, "time_effects": time_effects, "estimand": estimand, "versus_control": versus_control,
        "success": success, "hypothesis": hypothesis, "better": better, "icc_scale": icc_scale,
    }  # fmt: skip
    numbers = {
        "clusters": clusters, "pairs": pairs, "cluster_size": cluster_size, "icc": icc, "effect": effect, "sd": sd,
        "allocation_ratio": allocation_ratio, "cluster_size_cv": cluster_size_cv, "attrition": attrition,
        "cluster_attrition": cluster_attrition, "r2_cluster": r2_cluster, "r2_person": r2_person,
        "n_cluster_covariates": cluster_covariates, "matching_correlation": matching_correlation, "strata": strata, "cac": cac, "iac": iac,
        "subclusters": subclusters, "subcluster_size": subcluster_size, "icc_subcluster": icc_subcluster, "controls": controls,
        "arms": arms, "comparisons": comparisons, "p_control": p_control, "p_intervention": p_intervention, "odds_ratio": odds_ratio,
        "rate_control": rate_control, "rate_intervention": rate_intervention, "person_time": person_time, "k": k,
        "icc_stratum": icc_stratum, "stratum_heterogeneity": stratum_heterogeneity, "baseline_cluster_size": baseline_cluster_size,
        "r2_subcluster": r2_subcluster, "turnover": turnover, "intervention_sd": intervention_sd,
        "intervention_correlation": intervention_correlation, "modifier_icc": modifier_icc, "modifier_sd": modifier_sd, "margin": margin,
        "variance_factor": variance_factor,
        "overdispersion": overdispersion, "hazard_ratio": hazard_ratio, "event_probability": event_probability, "alpha": alpha,
    }  # fmt: skip
    if clusters is not None and pairs is not None:
        raise InputError("--clusters and --pairs were both given. A pair is two clusters: give one of them.")
    together = {
        "effects": effects, "between_person_correlation": between_person_correlation,
        "within_person_correlation": within_person_correlation, "test": test,
    }  # fmt: skip
    if effects is not None:
        others = {**words, **numbers, "layout": layout, "means": means, "design": design}
        results = _co_primary(together, {n: v for n, v in others.items() if v is not None}, sides, target, find)
        _print(results, as_json=as_json, explain=explain, protocol=protocol)
        return
    for name, text in together.items():
        if text is not None:
            raise InputError(f"--{name.replace('_', '-')} belongs to co-primary outcomes: give --effects, one for each of them.")
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
    if pooled:
        fixed["pooled"] = True
    lists = {"means": means, "contrast": contrast, "proportions": proportions, "clusters_per_sequence": clusters_per_sequence}
    for name, text in lists.items():
        if text is not None:
            fixed[name] = tuple(_list(name, text))
    fixed |= _layout(stepped_wedge, crossover, layout)
    if cluster_size is not None and cluster_size.strip().startswith("["):
        numbers["cluster_size"] = None
        fixed["cluster_size"] = tuple(_list("cluster_size", cluster_size.strip().strip("[]")))
        has |= {"clusters"}
    axes = {name: _values(name, text) for name, text in numbers.items() if text is not None}
    margins = fixed.get("hypothesis", base.hypothesis if base is not None else None)
    verb = _verb(has | set(fixed), target, find, margins)
    if target is not None:
        fixed["power"] = target
    if find is not None:
        fixed["find"] = find.replace("-", "_")
    start = () if base is None else (base,)
    results = [verb(*start, **dict(zip(axes, cell, strict=True)), **fixed) for cell in product(*axes.values())]
    if planned is not None or seed is not None:
        results = [_planned(r, planned, seed) for r in results]
    _print(results, as_json=as_json, explain=explain, protocol=protocol)


def _print(results: list[Any], *, as_json: bool, explain: bool, protocol: bool) -> None:
    """One result or a grid of them, as JSON or as text."""
    from trialkit.door import InputError

    if (explain or protocol) and not hasattr(results[0], "explain"):
        raise InputError("--explain and --protocol belong to a power by formula of a single outcome.")
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


def _co_primary(together: dict[str, str | None], others: dict[str, Any], sides: int, target: float | None, find: str | None) -> list[Any]:
    """Power, or the fewest clusters, with several outcomes."""
    from trialkit.door import InputError
    from trialkit.power import co_primary, co_primary_clusters

    arguments: dict[str, Any] = {"effects": _list("effects", str(together["effects"])), "sides": sides}
    for name in ("between_person_correlation", "within_person_correlation"):
        text = together[name]
        if text is None:
            raise InputError(f"Missing option '--{name.replace('_', '-')}' of the co-primary outcomes.")
        arguments[name] = _one(name, text)
    if together["test"] is not None:
        arguments["test"] = together["test"]
    per_outcome = {"icc", "sd"}
    single = {"clusters", "cluster_size", "alpha", "allocation_ratio", "cluster_size_cv"}
    for name, text in others.items():
        if name == "distribution":
            arguments[name] = text
        elif name in per_outcome:
            values = _list(name, text)
            arguments[name] = values[0] if len(values) == 1 else values
        elif name in single:
            arguments[name] = (
                int(_one(name, text)) if name == "clusters" and _one(name, text) == int(_one(name, text)) else _one(name, text)
            )
        else:
            raise InputError(f"--{name.replace('_', '-')} has no meaning with co-primary outcomes (--effects).")
    for name in ("cluster_size", "icc"):
        if name not in arguments:
            raise InputError(f"Missing option '--{name.replace('_', '-')}' of the co-primary outcomes.")
    if find is not None:
        raise InputError("--find: with co-primary outcomes --power finds the clusters, and nothing else is solved for.")
    if (target is None) == ("clusters" not in arguments):
        raise InputError("with co-primary outcomes give --clusters for the power, or --power for the clusters.")
    return [co_primary(**arguments) if target is None else co_primary_clusters(power=target, **arguments)]


def _planned(result: Any, trials: int | None, seed: int | None) -> Any:
    from trialkit.door import InputError
    from trialkit.simulation import planned_power

    if trials is None or seed is None:
        raise InputError("--planned (the number of trials) and --seed go together: no seed is chosen for you.")
    return planned_power(result.design, trials=trials, seed=seed)


def _list(name: str, text: str) -> list[float]:
    return numbers_list(text, option=f"--{name.replace('_', '-')}")


def _one(name: str, text: str) -> float:
    from trialkit.door import InputError

    values = _list(name, text)
    if len(values) != 1:
        raise InputError(f"--{name.replace('_', '-')} {text!r}: one number here.")
    return values[0]


def _matrix(text: str) -> list[list[float | None]]:
    """A layout from text or a file: rows by semicolons or lines, cells by commas, NA for a cell that is not observed."""
    from trialkit.door import InputError, is_number

    path = Path(text)
    if not set(text) & set(";,") or path.suffix.lower() in (".csv", ".txt"):
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--layout {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    rows_: list[list[float | None]] = []
    for line in text.replace(";", "\n").split("\n"):
        if not line.strip():
            continue
        cells: list[float | None] = []
        for cell in line.split(","):
            word = cell.strip()
            if word.upper() in ("NA", ""):
                cells.append(None)
            elif is_number(word):
                cells.append(float(word))
            else:
                raise InputError(f"--layout: {word!r} is none of 0, 1 and NA.")
        rows_.append(cells)
    return rows_


def _layout(steps: int | None, crossed: bool, matrix: str | None) -> dict[str, Any]:
    from trialkit.door import InputError
    from trialkit.power import crossover, stepped_wedge

    given = [n for n, v in (("--stepped-wedge", steps), ("--crossover", crossed or None), ("--layout", matrix)) if v is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were both given: a trial is one or the other.")
    if matrix is not None:
        return {"layout": _matrix(matrix)}
    if steps is not None:
        return {"layout": stepped_wedge(steps)}
    return {"layout": crossover()} if crossed else {}


def _verb(has: set[str], target: float | None, find: str | None, margins: str | None) -> Any:
    """Which of the verbs is asked for by what was given and what was left out."""
    from trialkit.door import InputError
    from trialkit.power import detectable_effect, sample_size, solve
    from trialkit.power import power as attained

    sized = bool(has & {"clusters", "pairs", "clusters_per_sequence"})
    aimed = bool(has & {"effect", "p_intervention", "odds_ratio", "rate_intervention", "hazard_ratio", "means"}) or (
        margins in ("non-inferiority", "equivalence") and not (target is not None and sized)
    )
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
    if ":" in text:
        if name not in _BY_ARM:
            raise InputError(f"{option} {text!r}: only {', '.join(_BY_ARM)} differ by arm (control:intervention).")
        pair = [_values(name, part)[0] for part in text.split(":")]
        if len(pair) != 2 or "," in text:
            raise InputError(f"{option} {text!r}: two numbers, control:intervention, and no grid of them.")
        return [tuple(pair)]
    values = numbers_list(text, option=option)
    if name not in _COUNTS:
        return list(values)
    for v in values:
        if v != int(v):
            raise InputError(f"{option} {v}: a whole number is needed.")
    return [int(v) for v in values]


def _object(result: Any, *, explain: bool, protocol: bool) -> dict[str, Any]:
    """The table's first row, and what the table has no room for."""
    if not hasattr(result, "to_dict"):
        alone = {"outcomes": rows(result.outcomes)} if hasattr(result, "outcomes") else {}
        single = {n: plain(getattr(result, n)) for n in ("power", "test", "df", "clusters", "cluster_size") if hasattr(result, n)}
        simulated = {n: plain(getattr(result, n)) for n in ("formula", "singular", "failed", "settings") if hasattr(result, n)}
        return {**single, **simulated, "table": rows(result.frame), **alone}
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
    if not hasattr(results[0], "precision"):
        varied = [n for n in results[0].settings if any(r.settings[n] != results[0].settings[n] for r in results)]
        table = pd.concat([r.frame.assign(**{n: str(r.settings[n]) for n in varied}) for r in results], ignore_index=True)
        return Table(table, formats=results[0].formats).to_text()
    for r in results:
        frame = r.frame
        given = {
            n: v for n, v in r.design.given().items() if n not in frame.columns and isinstance(v, int | float) and not isinstance(v, bool)
        }
        frames.append(frame.assign(**given))
    table = pd.concat(frames, ignore_index=True)
    return Table(table, formats=results[0].formats).to_text()
