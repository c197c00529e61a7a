"""The same analysis on fewer people: a prepared outcome without some of its rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels import reml
from trialkit.itt.prepared import CONSTANT, SATURATED, Prepared


def subset(one: Prepared, kept: NDArray[np.bool_]) -> Prepared:
    """The prepared outcome of the rows that are kept (n,); what effects are divided by stays as it was, so that they compare.

    A category or pair that only the others had goes with them. `reason` says why nothing is left to analyse.
    """
    arm, site = one.arm[kept], one.site[kept]
    matrices = []
    for x in one.matrices:
        part = x[kept]
        matrices.append(np.ascontiguousarray(part[:, reml.independent_columns(part)]))
    responses = [y[kept] for y in one.responses]
    arms = (int((arm == 0).sum()), int((arm == 1).sum()))
    sites = (len(np.unique(site[arm == 0])), len(np.unique(site[arm == 1])))
    per_site = np.bincount(site, minlength=1)
    present = per_site[per_site > 0]
    reason = one.reason
    if not reason and not min(sites):
        reason = "one arm has no site left"
    elif not reason and any(x.shape[1] >= len(arm) for x in matrices):
        reason = SATURATED
    elif not reason and all(np.ptp(y) == 0 for y in responses):
        reason = CONSTANT
    return replace(
        one,
        rows=one.rows[kept],
        arm=arm,
        site=site,
        pair=None if one.pair is None else one.pair[kept],
        subcluster=None if one.subcluster is None else one.subcluster[kept],
        responses=responses,
        matrices=matrices,
        offsets=None if one.offsets is None else [o[kept] for o in one.offsets],
        arms=arms,
        sites=sites,
        sizes=(int(present.min()), int(present.max())) if len(present) else (0, 0),
        reason=reason,
    )
