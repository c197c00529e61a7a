"""From columns to the joint latent-normal model: which are responses, which predictors, and how many dimensions that makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels.gibbs_joint import JointProblem
from trialkit.door import InputError, few
from trialkit.imputation.model import Event, Model, Span, settle_site_level, site_means, target
from trialkit.imputation.variables import WHERE, Column

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

# 85 sites say little about the 55 entries of a 10 x 10 covariance, and less about more
MOST_DIMENSIONS = 10
METHOD = {
    "normal": "joint normal",
    "pmm": "joint normal scores",
    "binary": "joint latent normal",
    "ordinal": "joint latent normal",
    "nominal": "joint latent normals",
}


def build(columns: Sequence[Column], site: Ints, arm: Array | None, *, rows_per_predictor: float) -> Model:
    """The joint model of one group of people: every incomplete variable a response, every complete one a predictor of them.

    Parameters
    ----------
    columns : sequence of Column
        Data (n,) in canonical order: sorted by site, then person.
    site : int array (n,)
        0..J-1, ascending.
    arm : array (n,) or None
        0/1; None when arms are imputed apart.
    rows_per_predictor : float
        People (for a site-level response, sites) a predictor must have behind it.

    Raises
    ------
    InputError
        More than `MOST_DIMENSIONS` latent dimensions; too few observed values.
    """
    events: list[Event] = []
    known: dict[str, tuple[Ints, Array]] = {}
    ready = [settle_site_level(c, site, known, events) for c in columns]
    incomplete = [c for c in sorted(ready, key=lambda c: c.name) if c.missing.any()]
    width = {c.name: _dimensions(c) for c in incomplete}
    total = sum(width.values())
    if total > MOST_DIMENSIONS:
        listed = few([f"{name} {k}" for name, k in sorted(width.items(), key=lambda item: -item[1])], 8)
        raise InputError(
            f"{WHERE}: the joint model of the {len(width)} incomplete variables has {total} latent dimensions ({listed}), more than "
            f'{MOST_DIMENSIONS}: their covariance between sites would be the prior\'s. Use engine="chained", or impute fewer variables.'
        )
    sites = int(site.max()) + 1
    if 3 * total > sites:
        events.append(
            Event("few sites", "", f"the covariance of {total} dimensions between sites rests on {sites} sites: the prior weighs")
        )
    complete = [c for c in ready if not c.missing.any()]
    rows = min((int((~c.missing).sum()) for c in incomplete if not c.site_level), default=len(site))
    x = _chosen(_parts(complete, incomplete, site, arm), len(site), int(rows // rows_per_predictor), "people", events)
    seen = [len(np.unique(site[~c.missing])) for c in incomplete if c.site_level]
    w = np.ones((sites, 1))
    if seen:
        # what sites are known by comes before the means of their people
        parts = sorted(_parts(complete, (), site, arm), key=lambda part: part[0] in {c.name for c in complete if not c.site_level})
        w = _chosen([(name, site_means(z, site)) for name, z in parts], sites, int(min(seen) // rows_per_predictor), "sites", events)
    targets = []
    place = {False: 0, True: 0}
    for column in incomplete:
        level = column.site_level
        own = np.arange(place[level], place[level] + width[column.name])
        place[level] += width[column.name]
        behind = np.arange((w if level else x).shape[1])
        targets.append(replace(target(column, own, behind, site, "uniform"), site_prior="half-t"))
    problem = JointProblem(x, w, site, tuple(targets))
    return Model(tuple(ready), tuple(incomplete), problem, known, (), tuple(events))


def _dimensions(column: Column) -> int:
    return len(column.labels) - 1 if column.type == "nominal" else 1


def _parts(complete: Sequence[Column], incomplete: Sequence[Column], site: Ints, arm: Array | None) -> list[tuple[str, Array]]:
    """Name and columns of each predictor; beside a complete wave of an incomplete scale its site mean."""
    parts = [] if arm is None else [("(arm)", np.asarray(arm, dtype=float)[:, None])]
    partners = {c.variable.partner for c in incomplete if not c.site_level}
    # covariates of the analysis, then the other wave, then the rest: a column beyond the limit is left out
    rank = {"covariate": 0, "baseline": 1, "outcome": 1}
    for column in sorted(complete, key=lambda c: (rank.get(c.variable.role, 2), c.name)):
        z = np.zeros((len(site), 1)) if np.ptp(column.values) == 0 else column.coded()
        parts.append((column.name, z))
        if column.name in partners and z.shape[1] == 1 and not column.site_level:
            parts.append((f"(site mean of {column.name})", site_means(z, site)[site]))
    return parts


def _chosen(parts: Sequence[tuple[str, Array]], rows: int, limit: int, what: str, events: list[Event]) -> Array:
    """An intercept and the predictors, without combinations of earlier ones and within the limit; what is left out is said."""
    chosen, over, dependent = [np.ones((rows, 1))], [], []
    span = Span(np.concatenate([chosen[0], *(z for _, z in parts)], axis=1))
    span.add(0)
    at = 1
    for name, z in parts:
        places = range(at, at + z.shape[1])
        at += z.shape[1]
        if len(chosen) + z.shape[1] > max(limit, 2):
            over.append(name)
            continue
        for k, place in enumerate(places):
            if span.add(place):
                chosen.append(z[:, k : k + 1])
            elif not name.startswith("(site mean"):
                dependent.append(name)
    if over:
        events.append(Event("predictors left out", "", f"{what} carry {limit} predictors; left out: {few(over, 8)}"))
    if dependent:
        detail = f"constant or a combination of other predictors, so left out: {few(sorted(set(dependent)), 8)}"
        events.append(Event("collinear", "", detail))
    return np.ascontiguousarray(np.concatenate(chosen, axis=1))
