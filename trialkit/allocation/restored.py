"""A pairing out of its record: what a plan file or a certificate says of the matching, as the object it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from trialkit.allocation.criteria import Mahalanobis, Nearest, criterion_from_dict
from trialkit.allocation.matching import assemble
from trialkit.allocation.pairing import Optimality, Pairing, StratumProof
from trialkit.allocation.problem import cell_columns, read_problem
from trialkit.allocation.sites import held_by_float


def restore_pairing(stored: Mapping[str, Any], *, rows: Sequence[str] | None = None) -> Pairing:
    """The pairing that `Pairing.to_dict` wrote, also after a trip through JSON; nothing is solved or judged (see `check_pairing`).

    Parameters
    ----------
    stored : mapping
        The record.
    rows : sequence of str, optional
        Every site in the row order of the table that was matched; by default the order of the ids.

    Raises
    ------
    KeyError, TypeError, ValueError
        The record is damaged, or says something that no pairing can.
    """
    criteria = [criterion_from_dict(c) for c in stored["criteria"]]
    table = _table(stored, criteria, rows)
    problem = read_problem(
        table, id=stored["id"], criteria=criteria, missing=stored["missing"], forbidden=stored["forbidden"], required=stored["required"]
    )
    at = {name: k for k, name in enumerate(problem.ids)}
    odd = stored["odd"]
    return assemble(
        problem,
        table,
        pairs=[(at[a], at[b]) for a, b in stored["pairs"]],
        trios=[(at[a], at[b], at[c]) for a, b, c in stored["trios"]],
        singles=[at[s] for s in stored["singles"]],
        reserve=[at[s] for s in stored["reserve"]],
        optimality=_optimality(stored["optimality"]),
        odd=tuple(odd) if isinstance(odd, list | tuple) else odd,
        missing=stored["missing"],
        method=stored["method"],
    )


def _table(stored: Mapping[str, Any], criteria: Sequence[Any], rows: Sequence[str] | None) -> pd.DataFrame:
    cells = {str(name): row for name, *row in stored["sites"]}
    order = list(cells) if rows is None else list(rows)
    numeric = {c for k in criteria if isinstance(k, Nearest | Mahalanobis) for c in k.columns}
    columns: dict[str, pd.Series[Any]] = {stored["id"]: pd.Series(order, dtype="str")}
    for j, name in enumerate(cell_columns(criteria)):
        if name == stored["id"]:
            continue
        texts = [cells[s][j] or None for s in order]
        plain = name in numeric and all(held_by_float(t) for t in texts if t)
        columns[name] = (
            pd.Series([None if t is None else float(t) for t in texts], dtype="float64") if plain else pd.Series(texts, dtype="str")
        )
    return pd.DataFrame(columns)


def _optimality(stored: Mapping[str, Any]) -> Optimality:
    return Optimality(
        checked=stored["checked"],
        limbs=tuple(tuple((str(name), int(m)) for name, m in limb) for limb in stored["limbs"]),
        strata=tuple(
            StratumProof(
                stratum=s["stratum"],
                sites=tuple(s["sites"]),
                y=tuple(map(tuple, s["y"])),
                blossoms=tuple(map(tuple, s["blossoms"])),
                z=tuple(map(tuple, s["z"])),
                primal=tuple(s["primal"]),
                edges=s["edges"],
            )
            for s in stored["strata"]
        ),
        reason=stored["reason"],
    )
