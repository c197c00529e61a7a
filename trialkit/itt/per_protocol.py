"""Per-protocol: the model of each outcome on those who followed the protocol, never under the name of intention to treat.

Who follows a protocol is not drawn by lot. Where it goes with what would have happened anyway - and it may do so in either arm, and
differently - the arms of those who are left are no longer alike, and no number of people mends that. So the analysis is made only when it
is asked for by name, its row bears that name, and its notes say what it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.design import TrialDesign
from trialkit.door import InputError, cell_text, printable, require_columns
from trialkit.itt.people import WHERE, People


def read_followers(tables: Sequence[pd.DataFrame], people: People, design: TrialDesign) -> NDArray[np.bool_]:
    """Who followed the protocol of the own arm, (people,) in the order of `People.rows`.

    Raises
    ------
    InputError
        The design names no such column; the column is absent, holds anything but 0 and 1, or differs between imputed tables.
    """
    column = None if design.compliance is None else design.compliance.per_protocol
    if column is None:
        raise InputError(
            "a per-protocol analysis needs to know who followed the protocol: name its 0/1 column by per_protocol under [compliance] "
            "in the design."
        )
    require_columns(tables[0], [column], where=WHERE, why="as who followed the protocol ([compliance] per_protocol)")
    first = tables[0][column].iloc[people.rows].tolist()
    out = np.zeros(len(first), dtype=np.bool_)
    for place, value in enumerate(first):
        text = cell_text(value).strip().casefold()
        if text not in ("0", "1", "false", "true"):
            row = int(people.rows[place])
            raise InputError(
                f"{WHERE}, row {row + 2} (person {printable(cell_text(tables[0][design.columns.person].iloc[row]))!r}), column {column!r}: "
                f"{'the cell is blank' if not text else printable(text)}. Whether the protocol of the own arm was followed is 1 or 0, "
                f"in the {design.arms.reference} arm as in the other; write 0 where it is not known."
            )
        out[place] = text in ("1", "true")
    for k, table in enumerate(tables[1:], start=2):
        if table[column].iloc[people.rows].tolist() != first:
            raise InputError(f"imputed table {k} differs from the first in column {column!r}: who followed the protocol is not imputed.")
    return out


def warning(followed: NDArray[np.bool_], people: People, design: TrialDesign) -> str:
    """What a reader must know before the per-protocol rows."""
    shares = [
        f"{int(followed[people.arm == k].sum())} of {int((people.arm == k).sum())} in {label}" for k, label in enumerate(design.arms.labels)
    ]
    return (
        f"per-protocol: only those who followed the protocol ({', '.join(shares)}), the outcome's model and SD unchanged. This is "
        "not intention to treat: who follows was not drawn by lot, so the two groups may have differed from the start, in either direction "
        "and by any amount, and the p-value does not know it. Without that selection the complier-average effect is the one to read "
        "(it needs what was received)."
    )
