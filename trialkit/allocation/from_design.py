"""The pairing that a design file declares."""

from __future__ import annotations

import pandas as pd

from trialkit.allocation.criteria import criterion_from_dict
from trialkit.allocation.matching import match_pairs
from trialkit.allocation.pairing import Pairing
from trialkit.design import TrialDesign
from trialkit.door import DesignError


def match_from_design(sites: pd.DataFrame, design: TrialDesign) -> Pairing:
    """Match the sites as the design's ``[allocation]`` block says.

    Parameters
    ----------
    sites : DataFrame
        One row a site.
    design : TrialDesign

    Raises
    ------
    DesignError
        The design has no ``[allocation]`` block.
    PairingError, InputError
        As `match_pairs`.
    """
    block = design.allocation
    if block is None or not block.criteria:
        raise DesignError(
            "the design has no [allocation] block with criteria, so there is nothing to match on. Add [[allocation.criteria]]."
        )
    return match_pairs(
        sites,
        id=block.id,
        criteria=[criterion_from_dict(c.model_dump()) for c in block.criteria],
        odd=block.odd,
        missing=block.missing,
        method=block.method,
        forbidden=block.forbidden,
        required=block.required,
    )
