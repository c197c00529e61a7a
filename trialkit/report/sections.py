"""The sections of the report: each reads what one room made, and says it in words, tables and pictures."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from trialkit.design import Estimand, TrialDesign
from trialkit.door import InputError, cell_text, frame_digest
from trialkit.report import words
from trialkit.report.baseline import Baseline
from trialkit.report.figures.canvas import Picture
from trialkit.report.flow import participant_flow
from trialkit.report.layout import Layout, Row
from trialkit.report.missing import missing_table
from trialkit.report.printed import balance_layout, checks_layout, column_labels, frame_layout, imputation_layout, pairs_layout
from trialkit.report.tables import report_table, results_frame
from trialkit.results import Provenance

# what is asked for when a section cannot be written
NEEDS: Mapping[str, tuple[str, str]] = {
    "design": ("Design and estimand", "design="),
    "allocation": ("Allocation and balance", "allocation="),
    "power": ("Power", "power="),
    "flow": ("Participant flow", "people= and design="),
    "baseline": ("Baseline", "people= and design="),
    "missing": ("Missing data", "people= and design="),
    "imputation": ("Imputation", "imputations="),
    "checks": ("Operating characteristics", "checks="),
}


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, table or picture of a section."""

    kind: str
    text: str = ""
    html: Any = ""
    pairs: tuple[tuple[str, str, bool], ...] = ()
    items: tuple[str, ...] = ()
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    blocks: tuple[Block, ...]


# how a section hands over a picture: it is kept for the report and comes back as a block
Place = Callable[[Picture], Block]


def _text(text: str, mark: str = "") -> Block:
    return Block("text", text=text, mark=mark)


def _table(layout: Layout | None) -> list[Block]:
    return [] if layout is None or not layout.rows else [Block("table", html=markup(layout.to_html()))]


def _pairs(*pairs: tuple[str, Any] | tuple[str, Any, bool]) -> Block:
    kept = tuple((str(p[0]), str(p[1]), bool(p[2]) if len(p) > 2 else False) for p in pairs if p[1] not in (None, ""))
    return Block("pairs", pairs=kept)


def markup(text: str) -> Any:
    """Markup that was escaped where it was made."""
    from markupsafe import Markup

    return Markup(text)


def design_section(design: TrialDesign) -> Section:
    """The estimand, and what was declared."""
    e = design.estimand
    ranks = [
        f"{sum(o.rank == rank for o in design.outcomes)} {rank}"
        for rank in ("primary", "secondary", "exploratory")
        if any(o.rank == rank for o in design.outcomes)
    ]
    levels = list(dict.fromkeys(o.level for o in design.outcomes))
    blocks = (
        _pairs(
            ("Registration", design.trial.registration or "not stated"),
            ("Arms", f"{design.arms.intervention} against {design.arms.reference}"),
            ("Outcomes", f"{words.joined(ranks)}, at the level of {words.joined(levels)}"),
            ("Covariates", words.joined([c.name.replace("_", " ") for c in design.covariates]) or "none"),
        ),
        Block("head", text="Estimand"),
        _pairs(
            ("Population", e.population),
            ("Treatments", _treatments(design)),
            ("Endpoint", e.endpoint),
            ("Summary measure", _summary_measure(design)),
            ("Weighting", e.weighting),
            ("Intercurrent events", e.intercurrent),
        ),
        Block("head", text="Analysis as declared"),
        _text(words.analysis_paragraph(design)),
        *(
            [
                _text(
                    "A mixed model weights sites by their information; it assumes that a site's size does not change the effect.",
                    "note",
                )
            ]
            if e.weighting == "model-based"
            else []
        ),
        Block("folded", text="Outcomes as declared", html=markup(_outcomes(design).to_html())),
    )
    return Section("design", "Design and estimand", blocks)


def _treatments(design: TrialDesign) -> str:
    """The treatments as declared; where nothing was declared, the arms by name."""
    said = design.estimand.treatments
    return f"{design.arms.intervention} against {design.arms.reference}" if said == Estimand().treatments else said


def _summary_measure(design: TrialDesign) -> str:
    """The summary measure as declared; where nothing was declared, each outcome's own, by its type and choices."""
    said = design.estimand.summary
    measures = {o.label: o.chosen_measure for o in design.outcomes}
    if said != Estimand().summary or set(measures.values()) == {"standardised-difference"}:
        return said
    names = {m: Estimand().summary if m == "standardised-difference" else m.replace("-", " ") for m in dict.fromkeys(measures.values())}
    listed = [f"{name} ({words.joined([o for o, of in measures.items() if of == m])})" for m, name in names.items()]
    return listed[0].rpartition(" (")[0] if len(listed) == 1 else "; ".join(listed)


def _outcomes(design: TrialDesign) -> Layout:
    rows = []
    for level in dict.fromkeys(o.level for o in design.outcomes):
        rows.append(Row((f"{level[:1].upper()}{level[1:]} level",), group=True))
        for o in design.outcomes:
            if o.level == level:
                rows.append(Row((o.label, o.rank, o.family, o.rater or "everybody", o.direction, o.type, o.name), depth=1))
    heads = ("Outcome", "Rank", "Family", "Answered by", "Better", "Type", "Column")
    return Layout(heads, tuple(rows), "lllllll")


def allocation_section(
    allocation: Any, design: TrialDesign | None, sites: Any, people: Any, baseline: Baseline | None, picture: Place
) -> Section:
    """How sites were matched and drawn, what the draw rests on, and its balance."""
    plan, seed = getattr(allocation, "plan", None), getattr(allocation, "seed", None)
    frame = allocation.frame
    arms = words.joined(
        [f"{words.counted(int((frame['arm'] == a).sum()), 'site')} {a}" for a in sorted(frame["arm"].dropna().unique(), reverse=True)]
    )
    attempts, log_head = getattr(allocation, "attempts", None), getattr(allocation, "log_head", None)
    notes = [str(n) for n in getattr(allocation, "notes", ())]
    anchor = next((n for n in notes if "anchored" in n.lower()), "")
    blocks = [
        _text(words.allocation_paragraph(allocation)),
        _pairs(
            ("Allocated", arms),
            ("Plan digest", getattr(plan, "digest", None), True),
            ("Commitment", getattr(plan, "commitment", None), True),
            ("Seed", getattr(seed, "text", None), True),
            ("Seed source", getattr(seed, "source", None)),
            ("Anchored", anchor or "not known"),
            ("Attempts at the draw", _attempts(attempts, log_head)),
            ("Log head", log_head, True),
        ),
    ]
    warning = getattr(allocation, "warning", None)
    if warning:
        blocks.append(_text(f"Short seed: {warning}", "mark"))
    pairing = _pairing(plan)
    if pairing is not None and pairing.pairs:
        from trialkit.allocation import compare_pairings

        blocks += [*_table(pairs_layout(compare_pairings(pairing))), _text(words.matching_paragraph(len(pairing.pairs)))]
    labels = design.arms.labels if design is not None else ("control", "intervention")
    balance = balance_layout(allocation, labels)
    if balance is not None:
        from trialkit.report.figures.balance import plot_love

        blocks += _table(balance)
        if len(getattr(plan, "arms", ())) == 2 and callable(getattr(allocation, "omnibus", None)):
            blocks.append(_text(words.omnibus_sentence(allocation.omnibus())))
        blocks.append(picture(plot_love(allocation, baseline=baseline)))
    if sites is not None and "pair" in frame.columns and frame["pair"].notna().any():
        from trialkit.report.figures.balance import plot_pairs
        from trialkit.report.figures.site_map import plot_site_map

        asked = _matched_on(pairing, design)
        names = tuple(c for c in asked if c in sites.columns and pd.api.types.is_numeric_dtype(sites[c]))[:4]
        if names:
            blocks.append(picture(plot_pairs(allocation, sites, columns=names, lost=_lost(frame, design, people), arms=labels)))
        try:
            blocks.append(picture(plot_site_map(allocation, sites, columns=asked or None, arms=labels)))
        except InputError as reason:  # one covariate makes no map
            blocks.append(_text(f"No map of the sites: {reason}", "note"))
    return Section("allocation", "Allocation and balance", tuple(blocks))


def _attempts(attempts: int | None, log_head: str | None) -> str:
    if attempts is not None:
        return f"{attempts:,}"
    return "no log was kept" if log_head is None else "one by one, each entry in the log"


def _pairing(plan: Any) -> Any:
    """The pairing behind a plan; None when sites were not paired."""
    matched = getattr(plan, "matched", None)
    return matched() if callable(matched) else None


def _matched_on(pairing: Any, design: TrialDesign | None) -> list[str]:
    """The columns that sites were matched on, in rank order."""
    if pairing is not None:
        return list(dict.fromkeys(c for criterion in pairing.criteria for c in criterion.columns))
    declared = design.allocation.criteria if design is not None and design.allocation is not None else ()
    return list(dict.fromkeys(c for criterion in declared for c in criterion.reads))


def _lost(frame: pd.DataFrame, design: TrialDesign | None, people: pd.DataFrame | None) -> tuple[str, ...]:
    """Randomised sites with nobody analysed."""
    if design is None or people is None:
        return ()
    from trialkit.door import normalise
    from trialkit.report.tables import analysed_rows

    data = normalise(people, text=design.text_columns)
    there = set(data.loc[analysed_rows(data, design), design.columns.site].tolist())
    key = next((c for c in frame.columns if c in (design.columns.site, design.allocation.id if design.allocation else None)), None)
    return tuple(s for s in frame[key].astype(str).tolist() if s not in there) if key is not None else ()


def power_section(power: Any, picture: Place) -> Section:
    """What was planned."""
    blocks = [_text(words.power_paragraph(power))]
    frame = getattr(power, "frame", None)
    if isinstance(frame, pd.DataFrame):
        plain = frame.dropna(axis=1, how="all")
        blocks += _table(frame_layout(plain, str(getattr(power, "title", "") or "Planned power"), (), dict(getattr(power, "formats", {}))))
    warnings = tuple(map(str, getattr(power, "warnings", ()) or ()))
    if warnings:
        blocks.append(Block("list", items=warnings))
    from trialkit.report.figures.power import planned_curve, plot_power

    curve, point, over = planned_curve(power)
    if curve is not None:
        blocks.append(picture(plot_power(curve, planned=point, x=over)))
    explain = getattr(power, "explain", None)
    if callable(explain):
        blocks.append(
            Block(
                "folded",
                text="Formula, degrees of freedom, sources and every input",
                html=markup(f"<pre>{html.escape(str(explain()))}</pre>"),
            )
        )
    return Section("power", "Power", tuple(blocks))


def _left_out(results: Any) -> tuple[str, ...]:
    """What the flow cannot show: a complete-case analysis leaves out other people for each outcome."""
    frame = results_frame(results)
    if "m" in frame.columns and frame["m"].max() == 1:
        return ("Complete cases were analysed: somebody with a missing value is left out of that outcome's model; the results say n.",)
    return ()


def flow_section(results: Any, people: pd.DataFrame, design: TrialDesign, sites: Any, allocation: Any, picture: Place) -> Section:
    """Sites and people through the trial."""
    from trialkit.report.figures.flow import plot_flow

    flow = participant_flow(people, design, sites=sites, allocation=allocation)
    frame = getattr(allocation, "frame", None)
    pairs = int(frame["pair"].nunique()) if isinstance(frame, pd.DataFrame) and "pair" in frame.columns else None
    blocks = [_text(words.flow_paragraph(flow)), picture(plot_flow(flow, pairs=pairs))]
    blocks += [_text(n, "note") for n in (*flow.notes, *_left_out(results))]
    attendance = flow.attendance_layout()
    if attendance is not None:
        blocks += _table(attendance)
    blocks.append(Block("folded", text="Every count of the flow, both arms together", html=markup(flow.layout().to_html())))
    return Section("flow", "Participant flow", tuple(blocks))


def baseline_section(baseline: Baseline) -> Section:
    """Sites and people by arm."""
    return Section("baseline", "Baseline", tuple(_table(baseline.layout())))


def missing_section(people: pd.DataFrame, design: TrialDesign, picture: Place) -> Section:
    """What is missing, and where."""
    from trialkit.report.figures.missing import plot_missing

    missing = missing_table(people, design)
    blocks = [_text(words.missing_paragraph(missing)), *_table(missing.layout()), picture(plot_missing(missing))]
    from trialkit.imputation import missing_flux, missing_patterns
    from trialkit.report.figures.patterns import plot_flux, plot_patterns

    # a site that was not randomised has no arm
    rows = people.loc[[bool(cell_text(v).strip()) for v in people[design.columns.arm].tolist()]]
    patterns, labels = missing_patterns(rows, design), column_labels(design)
    if any(matrix.to_numpy().any() for matrix in patterns.patterns.values()):
        blocks += [picture(plot_patterns(patterns, labels=labels)), picture(plot_flux(missing_flux(rows, design), labels=labels))]
    return Section("missing", "Missing data", tuple(blocks))


def imputation_section(imputations: Any, design: TrialDesign | None, picture: Place) -> Section:
    """How it was filled in, and what the imputation decided by itself."""
    blocks = []
    m = getattr(imputations, "m", None)
    if m:
        blocks.append(_text(f"{m:,} imputed data sets."))
    table = imputation_layout(imputations, design)
    if table is not None:
        blocks += _table(table)
    events = getattr(imputations, "events", None)
    if isinstance(events, pd.DataFrame):
        blocks += _table(frame_layout(events, "Events", ())) if len(events) else [_text(_NO_EVENT, "note")]
    elif events is not None:
        listed = tuple(str(e) for e in events)
        blocks += [Block("head", text="Events"), Block("list", items=listed)] if listed else [_text(_NO_EVENT, "note")]
    from trialkit.report.figures.trace import plot_trace, traces_of

    if traces_of(imputations) is not None:
        blocks.append(picture(plot_trace(imputations, labels=column_labels(design))))
    from trialkit.report.figures.imputed import can_compare, plot_imputed

    if can_compare(imputations):
        blocks.append(picture(plot_imputed(imputations, labels=column_labels(design))))
    return Section("imputation", "Imputation", tuple(blocks))


_NO_EVENT = "No event: nothing was dropped or altered."


def results_section(
    results: Any, design: TrialDesign | None, people: Any, imputations: Any, picture: Place, *, estimands: Any = None
) -> Section:
    """Table 2, the forest plot, the raw site means, and how it was done."""
    from trialkit.report.figures.forest import forest_scales, plot_forest

    table = report_table(results, design, people=people)
    blocks = []
    problems = dict(getattr(results, "problems", {}) or {})
    if problems:
        blocks.append(Block("list", items=tuple(f"{name}: {reason}" for name, reason in problems.items())))
    blocks += _table(table.layout())
    scales = forest_scales(results, design)
    # effects of different scales have no axis in common: a picture each
    for scale in scales if len(scales) > 1 else (None,):
        blocks.append(picture(plot_forest(results, design, people=people, scale=scale)))
    blocks += _measures(results, design)
    blocks += _beside(results, design)
    if estimands is not None:
        blocks += _estimands(estimands, design, picture)
    if people is not None and design is not None and any(o.rank == "primary" for o in design.outcomes):
        from trialkit.report.figures.sites import plot_cluster_means

        blocks.append(picture(plot_cluster_means(people, design)))
    if design is not None:
        blocks += [Block("head", text="How it was done"), _text(words.analysis_paragraph(design, results, imputations))]
    return Section("results", "Results", tuple(blocks))


def _measures(results: Any, design: TrialDesign | None) -> list[Block]:
    """Absolute and relative effects of the outcomes that have both."""
    frame = getattr(results, "measures", None)
    if not isinstance(frame, pd.DataFrame) or not len(frame):
        return []
    several = frame[frame["outcome"].map(frame["outcome"].value_counts()) > 2]
    if not len(several):
        return []
    title = "Absolute and relative effects of the same models"
    notes = ("Risks, rates and means are standardised over the people analysed. Of a ratio std_error is that of its logarithm.",)
    return _table(frame_layout(_labelled(several.reset_index(drop=True), design), title, notes))


def _estimands(estimands: Any, design: TrialDesign | None, picture: Place) -> list[Block]:
    """Participant-average and cluster-average effects, whether they differ, and the sites behind that."""
    from trialkit.report.figures.cluster_size import plot_cluster_size

    columns = ["outcome", "estimand", "analysis", "estimate", "std_error", "df", "p_value", "conf_low", "conf_high", "n", "clusters"]
    blocks = _table(frame_layout(_labelled(estimands.frame[columns], design), str(estimands.title), tuple(estimands.notes)))
    blocks += _table(frame_layout(_labelled(estimands.informative, design), "Does the effect go with the size of the site?", ()))
    if design is not None and len(estimands.sites):
        blocks.append(picture(plot_cluster_size(estimands, design)))
    return blocks


def _beside(results: Any, design: TrialDesign | None) -> list[Block]:
    """The same effects by the other analyses, when they were asked for."""
    frame = results_frame(results)
    if "analysis" not in frame.columns or not frame["outcome"].duplicated().any():
        return []
    columns = ["outcome", "analysis", "measure", "estimate", "std_error", "df", "p_value", "conf_low", "conf_high", "clusters"]
    return _table(frame_layout(_labelled(frame[columns], design), "The same effect by several analyses", ()))


def _labelled(frame: pd.DataFrame, design: TrialDesign | None) -> pd.DataFrame:
    """Outcomes by their labels, as in the table of results; by their columns' names where there is no design."""
    labels = {} if design is None else {o.name: o.label for o in design.outcomes}
    return frame.assign(outcome=[labels.get(o, o) for o in frame["outcome"]])


def checks_section(checks: Any, design: TrialDesign | None, picture: Place) -> Section:
    """What the planned analysis does on simulated trials."""
    blocks = []
    table = checks_layout(checks, design)
    if table is not None:
        blocks += _table(table)
    from trialkit.report.figures.zipper import intervals_of, plot_zipper

    if intervals_of(checks) is not None:
        blocks.append(picture(plot_zipper(checks, labels=column_labels(design))))
    return Section("checks", "Operating characteristics", tuple(blocks))


def provenance_section(
    results: Any,
    design: TrialDesign | None,
    sites: Any,
    people: Any,
    allocation: Any,
    imputations: Any,
    checks: Any,
    absent: tuple[str, ...],
) -> Section:
    """Seeds, versions and digests; and what the report was not given."""
    versions = dict(Provenance.now().versions)
    seeds: list[tuple[str, Any, bool]] = []
    inputs: dict[str, str] = {}
    settings: list[tuple[str, str, bool]] = []
    for name, item in (("imputation", imputations), ("analysis", results), ("check", checks)):
        made = getattr(item, "provenance", None)
        if made is None:
            continue
        versions |= {str(k): str(v) for k, v in dict(made.versions).items()}
        if made.seed is not None and str(made.seed) not in {str(s[1]) for s in seeds}:
            seeds.append((f"Seed of the {name}", made.seed, True))
        inputs |= {str(k): str(v) for k, v in dict(made.inputs).items()}
        for key, value in dict(made.settings).items():
            if value is None or value in ("", [], {}, ()) or (key == "design" and design is not None):
                continue
            shown = ("yes" if value else "no") if isinstance(value, bool) else str(value)
            settings.append((f"{name}: {str(key).replace('_', ' ')}", shown, False))
    seed = getattr(getattr(allocation, "seed", None), "text", None)
    if seed is not None:
        seeds.insert(0, ("Seed of the allocation", seed, True))
    if design is not None:
        inputs["design"] = design.digest
    strange: list[str] = []
    for name, frame in (("sites", sites), ("people", people)):
        if isinstance(frame, pd.DataFrame):
            here = frame_digest(frame)
            if inputs.get(name, here) != here:
                inputs[f"{name} analysed"] = inputs[name]
                strange.append(f"The {name} given to this report are not the {name} that were analysed: their digests differ.")
            inputs[name] = here
    blocks = [
        *(_text(line, "mark") for line in strange),
        _pairs(
            *seeds,
            *((f"SHA-256 of {k}", v, True) for k, v in inputs.items()),
            ("Versions", ", ".join(f"{k} {v}" for k, v in sorted(versions.items()))),
        ),
    ]
    if settings:
        blocks.append(_pairs(*settings))
    if absent:
        missing = "; ".join(f"{NEEDS[k][0]} (give {NEEDS[k][1]})" for k in absent)
        blocks.append(_text(f"Not in this report, because its input was not given: {missing}.", "absent"))
    return Section("provenance", "Provenance", tuple(blocks))
