"""What every column of a simulated trial holds, written from the scenario itself."""

from __future__ import annotations

from typing import Any

import pandas as pd

from trialkit.simulation.scenario import PlantedOutcome, Scenario
from trialkit.simulation.trial import COMPLIED, SESSIONS, flow_names, item_names


def codebook(scenario: Scenario) -> pd.DataFrame:
    """One row a column of sites.csv and people.csv: file, column, what, values, missing."""
    rows = [*_sites(scenario), *_people(scenario)]
    return pd.DataFrame(rows, columns=["file", "column", "what", "values", "missing"]).astype("str")


def _row(file: str, column: str, what: str, values: str, missing: str = "never") -> dict[str, str]:
    return {"file": file, "column": column, "what": what, "values": values, "missing": missing}


def _sites(scenario: Scenario) -> list[dict[str, str]]:
    f = "sites.csv"
    sites = scenario.sites
    rows = [
        _row(f, scenario.design.columns.site, "site", f"{sites.prefix}01, ..."),
        _row(f, "status", "whether the site was still there at the draw", "randomised | dropped out before the draw"),
        _row(f, sites.group_column, "kind of site", " | ".join(g.name for g in sites.groups)),
    ]
    for name in sites.groups[0].values:
        rows.append(_row(f, name, name.replace("_", " "), " | ".join(dict.fromkeys(g.values[name] for g in sites.groups))))
    for c in sites.columns:
        values = {"yes/no": "yes | no", "people": "people, a whole number"}.get(c.distribution, f"number, in steps of {c.step:g}")
        what = "eligible people of all roles" if c.distribution == "people" else c.name.replace("_", " ")
        rows.append(_row(f, c.name, what, values))
    return rows


def _people(scenario: Scenario) -> list[dict[str, str]]:
    f = "people.csv"
    design = scenario.design
    c = design.columns
    prefixes = ", ".join(f"{p.prefix}001 ... ({p.label or p.role})" for p in scenario.people)
    rows = [_row(f, c.person, "person", prefixes), _row(f, c.site, "the person's site", "as in sites.csv")]
    if c.subcluster is not None and scenario.subclusters is not None:
        mark = f"{scenario.sites.prefix}01-{scenario.subclusters.prefix}1, ..."
        rows.append(_row(f, c.subcluster, f"{c.subcluster.replace('_', ' ')}, within the site", mark))
    if c.pair is not None:
        rows.append(_row(f, c.pair, "matched pair of the site", "P01, ...", "the site was randomised by itself"))
    rows.append(_row(f, c.arm, "arm of the site", f"{design.arms.reference} (reference) | {design.arms.intervention}"))
    if len(scenario.people) > 1 or c.rater is not None:
        rows.append(_row(f, scenario.rater_column, "kind of person", " | ".join(p.role for p in scenario.people)))
    words = (
        "baseline survey done",
        "did the baseline survey and left before follow-up",
        "follow-up survey done (of those who did the baseline survey and had not left)",
    )
    for name, what in zip(flow_names(scenario), words, strict=True):
        if name is not None:
            rows.append(_row(f, name, what, "1 yes | 0 no"))
    if design.flow is not None and scenario.attendance is not None:
        rows += [_row(f, s, "attended the session", "1 yes | 0 no", "control arm") for s in design.flow.sessions]
    if scenario.attendance is not None and any(o.effect_of != "assignment" for o in scenario.outcomes):
        enough = scenario.attendance.complier
        rows.append(_row(f, SESSIONS, "sessions attended, 0 in the control arm", "count, 0 and up"))
        rows.append(_row(f, COMPLIED, f"attended at least {enough} session{'s' * (enough > 1)}, 0 in the control arm", "1 yes | 0 no"))
    everybody = {p.role for p in scenario.people}
    for t in scenario.traits:
        values = " | ".join(t.levels) if t.levels else "number"
        others = "" if set(t.roles) == everybody else f"; not asked of {', '.join(sorted(everybody - set(t.roles)))}"
        rows.append(_row(f, t.name, f"{t.name.replace('_', ' ')}, from the baseline survey", values, f"baseline survey not done{others}"))
    planted = {o.name: o for o in scenario.outcomes}
    for o in design.outcomes:
        asked = scenario.roles_of(o.name)
        others = "" if set(asked) == everybody else f"; not asked of {', '.join(sorted(everybody - set(asked)))}"
        unit = _values(o.type, planted[o.name])
        what = f"{o.label}, {o.direction} is better ({o.level} level, {o.rank})"
        if o.baseline is not None:
            rows.append(_row(f, o.baseline, f"{what}, at baseline", unit, f"survey not done or scale skipped{others}"))
        rows.append(_row(f, o.name, f"{what}, at follow-up", unit, f"survey not done or scale skipped{others}"))
    for o in design.outcomes:
        for name, k, at in _items(scenario, o.name, o.baseline):
            scale = planted[o.name]
            span = f"{scale.low:g} to {scale.high:g}"
            rows.append(_row(f, name, f"{o.label}, item {k}, at {at}", span, "survey, scale or item not answered"))
    return rows


def _items(scenario: Scenario, outcome: str, baseline: str | None) -> list[tuple[str, int, str]]:
    names = item_names(scenario, outcome)
    before = [(f"{baseline}_i{k + 1}", k + 1, "baseline") for k in range(len(names))] if baseline else []
    return before + [(n, k + 1, "follow-up") for k, n in enumerate(names)]


def _values(kind: str, planted: PlantedOutcome) -> str:
    if kind == "count":
        return "count, 0 and up"
    if kind == "binary":
        return "1 yes | 0 no"
    low: Any = "" if planted.low is None else f"{planted.low:g}"
    high: Any = "" if planted.high is None else f"{planted.high:g}"
    span = f"{low} to {high}" if low or high else "number"
    return f"{span}, mean of {planted.items} items" if planted.items else span
