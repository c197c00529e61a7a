"""A scenario learnt from a pilot: sizes, scales, ICCs, correlations and losses as a table of people shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from trialkit.design import Outcome, TrialDesign
from trialkit.door import InputError, normalise, printable, require_columns, unknown_word
from trialkit.simulation.measurement import Measure

if TYPE_CHECKING:
    from trialkit.simulation.scenario import Scenario

_WHERE = "the pilot table"


def learn(people: pd.DataFrame, design: TrialDesign, *, d: Mapping[str, float] | float, sites: int | None) -> Scenario:
    """See `Scenario.from_pilot`."""
    from trialkit.simulation.scenario import Scenario

    c = design.columns
    labels = [c.site, *(x for x in (c.rater, c.subcluster) if x)]
    needed = [*labels, *(o.name for o in design.outcomes)]
    require_columns(people, needed, where=_WHERE, why="to learn from")
    table = normalise(people, text=labels)
    for column in (x for o in design.outcomes for x in (o.name, o.baseline, *o.items) if x in table):
        if not pd.api.types.is_numeric_dtype(table[column].dtype):
            odd = table[column].dropna().iloc[0]
            raise InputError(
                f"{_WHERE}, column {column!r} holds text ({printable(odd)!r}), and must be numbers. Code it as 0/1 or as scores."
            )
    if isinstance(d, Mapping):
        for name in d:
            if name not in {o.name for o in design.outcomes}:
                raise InputError(unknown_word(str(name), [o.name for o in design.outcomes], what="outcome in d"))
    roles = list(dict.fromkeys(table[c.rater].dropna().tolist())) if c.rater else ["person"]
    rows = {r: table if c.rater is None else table[table[c.rater] == r] for r in roles}
    n_sites = table[c.site].nunique()
    if n_sites < 2:
        raise InputError(f"{_WHERE} has {n_sites} site; between-site variation cannot be learnt from fewer than 2.")
    wanted = n_sites if sites is None else sites
    # matching needs columns of the sites' table, which a table of people does not have
    plain = design.model_copy(update={"allocation": None})
    return Scenario(
        title=f"learnt from a pilot of {n_sites} sites and {len(table)} people",
        design=plain,
        sites={"groups": [{"name": "site", "recruited": wanted}]},
        people=[_size(k, role, rows[role], c.site, n_sites) for k, role in enumerate(roles, start=1)],
        traits=[_trait(table, v.name, v.levels, rows, design) for v in design.covariates],
        **({"subclusters": {"size": len(table) / len(table[[c.site, c.subcluster]].drop_duplicates())}} if c.subcluster else {}),
        outcomes=[_outcome(o, design, rows, c.site, d) for o in design.outcomes],
        losses=_losses(design, rows),
    )


def _size(number: int, role: str, rows: pd.DataFrame, site: str, n_sites: int) -> dict[str, Any]:
    sizes = np.zeros(n_sites)
    found = rows.groupby(site).size().to_numpy()
    sizes[: len(found)] = found
    cv = float(sizes.std(ddof=1) / sizes.mean())
    # people themselves are counts, so a part of the spread of sizes is chance: what is over is the sites'
    true = math.sqrt(max(cv**2 - 1.0 / float(sizes.mean()), 0.0))
    return {
        "role": role,
        "prefix": f"{role[:1].upper()}{role[1:2]}",
        "per_site": float(sizes.mean()),
        "cv": true,
        "minimum": int(sizes.min()),
    }


def _trait(
    table: pd.DataFrame, name: str, levels: tuple[str, ...] | None, rows: Mapping[str, pd.DataFrame], design: TrialDesign
) -> dict[str, Any]:
    require_columns(table, [name], where=_WHERE, why="as a covariate")
    done = design.flow.baseline if design.flow else None
    asked = pd.concat([f for f in rows.values() if f[name].notna().any()] or [table])
    surveyed = asked if done is None or done not in asked else asked[asked[done] == 1]
    missing = {"missing": gap} if (gap := min(float(surveyed[name].isna().mean()), 0.99)) > 0.0 else {}
    if levels is None and pd.api.types.is_numeric_dtype(table[name].dtype):
        known = {r: f[name].dropna() for r, f in rows.items()}
        known = {r: v for r, v in known.items() if len(v) > 1}
        return {
            "name": name,
            "mean": {r: float(v.mean()) for r, v in known.items()},
            "sd": {r: float(v.std()) for r, v in known.items()},
        } | missing
    seen = levels or tuple(sorted(str(v) for v in table[name].dropna().unique()))
    shares = {}
    for role, f in rows.items():
        values = f[name].dropna().astype(str)
        if len(values):
            count = np.array([(values == level).sum() for level in seen], dtype=float)
            shares[role] = (count / count.sum()).tolist()
    return {"name": name, "levels": seen, "shares": shares} | missing


def _outcome(
    o: Outcome, design: TrialDesign, rows: Mapping[str, pd.DataFrame], site: str, d: Mapping[str, float] | float
) -> dict[str, Any]:
    from trialkit.itt import fit_mixed
    from trialkit.power import estimate_icc

    asked = pd.concat([f for r, f in rows.items() if o.rater is None or r == o.rater])
    follow_up = design.flow.follow_up if design.flow else None
    surveyed = asked if follow_up is None or follow_up not in asked else asked[asked[follow_up] == 1]
    arm = design.columns.arm
    if arm in surveyed and (surveyed[arm] == design.arms.reference).any():
        # an earlier trial: its intervention belongs to neither the scale nor the variation between sites
        surveyed = surveyed[surveyed[arm] == design.arms.reference]
    y = surveyed[o.name].dropna()
    if len(y) < 3 or y.nunique() < 2:
        raise InputError(f"{_WHERE} has {len(y)} values of {o.name!r}; too few, or too alike, to learn a scale from.")
    known = surveyed.dropna(subset=[o.name])
    inner = design.columns.subcluster
    if inner is None:
        levels = {"icc": float(estimate_icc(known, outcome=o.name, cluster=site).icc)}
    else:
        fit = fit_mixed(f"`{o.name}` ~ 1 + (1|`{site}`/`{inner}`)", known)
        parts = fit.variance_components["variance"].to_numpy(np.float64)
        levels = dict(zip(("icc", "icc_subcluster"), parts / parts.sum(), strict=False))
    made: dict[str, Any] = {
        "name": o.name,
        "d": float(d.get(o.name, 0.0) if isinstance(d, Mapping) else d),
        # a negative estimate says: nothing seen; 0.99 keeps room for people
        **{name: min(max(float(share), 0.0), 0.99) for name, share in levels.items()},
        "mean": float(y.mean()),
        "sd": float(y.std()),
        "missing": min(float(surveyed[o.name].isna().mean()), 0.99),
    }
    if o.baseline is not None and o.baseline in asked:
        both = surveyed[[o.baseline, o.name]].dropna()
        r = float(np.corrcoef(both.to_numpy().T)[0, 1]) if len(both) > 2 else 0.5
        made["baseline_correlation"] = min(max(r, 0.0), 0.99)
    if o.type == "count":
        made["sd"] = max(made["sd"], math.sqrt(1.01 * made["mean"] + 1e-9))
    if o.type == "ordinal":
        made |= {"low": float(y.min()) + 0.0, "high": float(y.max()) + 0.0}
    if o.type in ("binary", "ordinal"):
        # one answer is nearly a cut of the score itself, so that what was seen can be reached
        made["item_correlation"] = 0.95
    if o.type == "continuous" and (y == y.round()).all():
        made["decimals"] = 0
    if o.items:
        columns = [i for i in o.items if i in asked]
        values = asked[columns]
        made |= {"items": len(o.items), "low": float(values.min().min()), "high": float(values.max().max())}
        correlation = values.corr().to_numpy()[np.triu_indices(len(columns), 1)]
        made["item_correlation"] = min(max(float(np.nanmean(correlation)), 0.05), 0.95)
        answered = values[values.notna().any(axis=1)]
        made["item_missing"] = min(float(answered.isna().mean().mean()), 0.99)
    return _underneath(o, made)


def _underneath(o: Outcome, made: dict[str, Any]) -> dict[str, Any]:
    """Correlations as seen become those of the underlying score that show them (as near as can be)."""
    if o.type == "continuous" and not o.items:
        return made
    measure = Measure(
        kind=o.type if o.type in ("count", "binary", "ordinal") else "continuous",
        mean=made["mean"],
        sd=made["sd"],
        low=made.get("low", -math.inf),
        high=made.get("high", math.inf),
        items=made.get("items", 0),
        item_correlation=made.get("item_correlation", 0.5),
    )
    mean, square = measure.moments(0.0)
    total = float(square - mean**2)
    most = 0.95

    def beneath(seen: float) -> float:
        if seen <= 0.0 or measure.shared_covariance(most) <= seen * total:
            return most if seen > 0.0 else 0.0
        return float(brentq(lambda share: measure.shared_covariance(share) - seen * total, 0.0, most, xtol=1e-6))

    icc = made["icc"]
    out = {**made, "icc": beneath(icc)}
    if "icc_subcluster" in made:
        out["icc_subcluster"] = max(min(beneath(icc + made["icc_subcluster"]), most) - out["icc"], 0.0)
    if "baseline_correlation" in made:
        out["baseline_correlation"] = beneath(made["baseline_correlation"])
    return out


def _losses(design: TrialDesign, rows: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    if design.flow is None:
        return {}
    flow = design.flow
    made: dict[str, Any] = {}
    left = dict(rows)
    for event, column in (("baseline", flow.baseline), ("left", flow.left), ("follow_up", flow.follow_up)):
        if column is None or any(column not in f for f in rows.values()):
            continue
        made[event] = {"rate": {r: float((f[column] == 1).mean()) if len(f) else 1.0 for r, f in left.items()}}
        left = {r: f[(f[column] == 1) != (event == "left")] for r, f in left.items()}
    return made
