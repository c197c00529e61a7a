"""What a matching returns: the pairs, what they cost, and the proof that no other pairs cost less."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from trialkit import door
from trialkit.allocation.criteria import Criterion
from trialkit.results import Result


@dataclass(frozen=True, slots=True)
class StratumProof:
    """The dual certificate of one stratum: every number is one integer a limb, compared lexicographically."""

    stratum: str
    sites: tuple[str, ...]  # in order of their UTF-8 bytes
    y: tuple[tuple[int, ...], ...]  # (sites [+ 1], limbs) vertex duals in half units; the last is the empty place's when the count is odd
    blossoms: tuple[tuple[int, ...], ...]  # odd sets, as positions in `sites` (len(sites) is the empty place)
    z: tuple[tuple[int, ...], ...]  # (blossoms, limbs) their duals
    primal: tuple[int, ...]  # (limbs) total weight of the chosen pairs, equal to the dual bound
    edges: int  # how many allowed pairs the certificate was checked on

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "stratum": self.stratum,
            "sites": list(self.sites),
            "y": [list(v) for v in self.y],
            "blossoms": [list(b) for b in self.blossoms],
            "z": [list(v) for v in self.z],
            "primal": list(self.primal),
            "edges": self.edges,
        }


@dataclass(frozen=True, slots=True)
class Optimality:
    """Why no other allowed pairs have a lower vector of totals: a linear-programming dual, checked on every allowed pair.

    A limb is a group of ranks that share one integer, ``sum of multiplier * distance``; the last rank is the canonical
    tie rule. Duals are in half units of it, so the bound ``sum(y) - sum(z * (|B| - 1) / 2)`` is twice `primal`.
    `checked` is False, with a `reason`, when nothing was proved.
    """

    checked: bool
    limbs: tuple[tuple[tuple[str, int], ...], ...] = ()  # (rank, multiplier) in order, a limb
    strata: tuple[StratumProof, ...] = ()
    reason: str = ""

    @property
    def primal(self) -> tuple[int, ...]:
        """Total weight of the pairs, a limb."""
        return tuple(sum(s.primal[k] for s in self.strata) for k in range(len(self.limbs)))

    @property
    def dual(self) -> tuple[int, ...]:
        """The lower bound from the duals, a limb; equal to `primal` when the pairs are optimal."""
        bounds = []
        for k in range(len(self.limbs)):
            twice = sum(
                sum(v[k] for v in s.y) - sum(v[k] * (len(b) // 2) for b, v in zip(s.blossoms, s.z, strict=True)) for s in self.strata
            )
            bounds.append(twice // 2)
        return tuple(bounds)

    @property
    def edges(self) -> int:
        """How many allowed pairs the certificate was checked on."""
        return sum(s.edges for s in self.strata)

    def content(self) -> dict[str, Any]:
        """Plain data for JSON, without the digest."""
        return {
            "checked": self.checked,
            "limbs": [[[name, multiplier] for name, multiplier in limb] for limb in self.limbs],
            "strata": [s.to_dict() for s in self.strata],
            "reason": self.reason,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the certificate's canonical JSON."""
        return certificate_digest(self.content())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**self.content(), "digest": self.digest}


def certificate_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a stored `Optimality`, whatever its own digest says."""
    text = json.dumps({k: v for k, v in content.items() if k != "digest"}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return door.sha256_bytes(text.encode())


@dataclass(frozen=True, slots=True, eq=False)
class Pairing(Result):
    """Sites in pairs, before any draw.

    Attributes
    ----------
    frame : DataFrame
        One row a site, in the table's row order: the id under its own name, ``pair`` (P01, P02, ...; T01, ... for a
        trio; missing for a site in no pair), ``stratum`` (level of the `exact` criteria; "all" without one).
    id : str
        Name of the id column.
    pairs : tuple of (str, str)
        Each in order of UTF-8 bytes, pairs by their first site.
    singles, reserve, trios : tuple
        Sites randomised alone; sites left out; groups of three.
    costs : tuple of Decimal
        Total distance a criterion, in rank order, exact; 0 for `exact`.
    optimality : Optimality
        The dual certificate, checked.
    criteria, odd, missing, method, forbidden, required
        What was asked for.
    sites : DataFrame
        The id and criteria columns as read, in the table's row order: numbers as float64, or as text where float64
        would change them.
    cells : tuple of tuple of str
        The criteria columns as exact text, one row a site in id order; "" where missing.
    """

    frame: pd.DataFrame
    id: str
    pairs: tuple[tuple[str, str], ...]
    singles: tuple[str, ...]
    reserve: tuple[str, ...]
    trios: tuple[tuple[str, str, str], ...]
    costs: tuple[Decimal, ...]
    optimality: Optimality
    criteria: tuple[Criterion, ...]
    odd: str | tuple[str, ...] | None
    missing: str
    method: str
    forbidden: tuple[tuple[str, str], ...]
    required: tuple[tuple[str, str], ...]
    sites: pd.DataFrame
    cells: tuple[tuple[str, ...], ...]
    gap_totals: tuple[tuple[Decimal | None, ...], ...] = field(repr=False, default=())

    @property
    def title(self) -> str:
        """A line above the table."""
        return f"{len(self.pairs)} pairs of {len(self.frame)} sites"

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines below the table: the total of each criterion, what was left over, and what was proved."""
        lines = [f"{k}. {c.name} ({c.kind}): total {cost}" for k, (c, cost) in enumerate(zip(self.criteria, self.costs, strict=True), 1)]
        if self.singles:
            lines.append(f"randomised alone: {door.few(self.singles)}")
        if self.reserve:
            lines.append(f"left out: {door.few(self.reserve)}")
        proof = self.optimality
        lines.append(
            f"optimal: dual certificate checked on {proof.edges:,} allowed pairs"
            if proof.checked
            else f"not proved optimal: {proof.reason}"
        )
        return tuple(lines)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Pairs, then trios, in the order of the rows of `gaps`."""
        return (*self.pairs, *self.trios)

    def gaps(self) -> pd.DataFrame:
        """Distance within each pair (summed over the three twos of a trio), one column a criterion, in its own unit.

        Returns
        -------
        DataFrame
            pair, sites (joined by a comma), then one float64 column a criterion, under its name.
        """
        rows = {
            "pair": [group_label(k, self) for k in range(len(self.groups))],
            "sites": [", ".join(g) for g in self.groups],
        }
        frame = pd.DataFrame(rows)
        for k, criterion in enumerate(self.criteria):
            name, n = criterion.name, 2
            while name in frame:
                name, n = f"{criterion.name}_{n}", n + 1
            frame[name] = np.array([np.nan if (x := g[k]) is None else float(x) for g in self.gap_totals], dtype=np.float64)
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: everything `check_pairing` needs beside the sites table."""
        return {
            "id": self.id,
            "criteria": [c.to_dict() for c in self.criteria],
            "odd": list(self.odd) if isinstance(self.odd, tuple) else self.odd,
            "missing": self.missing,
            "method": self.method,
            "forbidden": [list(p) for p in self.forbidden],
            "required": [list(p) for p in self.required],
            "pairs": [list(p) for p in self.pairs],
            "trios": [list(t) for t in self.trios],
            "singles": list(self.singles),
            "reserve": list(self.reserve),
            "costs": [str(c) for c in self.costs],
            "sites": [[name, *row] for name, row in zip(sorted(self.sites[self.id].tolist(), key=str.encode), self.cells, strict=True)],
            "optimality": self.optimality.to_dict(),
        }


def group_label(position: int, pairing: Pairing) -> str:
    """P01, P02, ... for the pairs in order, T01, ... for trios."""
    n = len(pairing.pairs)
    return label("P", position, n) if position < n else label("T", position - n, len(pairing.trios))


def label(letter: str, position: int, count: int) -> str:
    """A letter and a number padded so that labels sort as numbers."""
    return f"{letter}{position + 1:0{max(2, len(str(count)))}d}"
