"""A pairing problem as integers: the sites in id order, their strata, what may be paired, and what each pair weighs.

Both `match_pairs` and the later re-check build it from the sites table by this one path, so that a certificate is
judged against weights derived afresh, never against stored ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trialkit import door
from trialkit._kernels.matching import Layout, layout, pack
from trialkit._kernels.matching_ties import TIE_BITS, tie_weights
from trialkit.allocation.criteria import Criterion, Exact, Mahalanobis, Nearest
from trialkit.allocation.measures import MISSING, Levels, Line, Measure, exact_text, measure

Array = np.ndarray[Any, np.dtype[Any]]

WHOLE = "all"
TIE = "tie"
WHERE = "the sites table"


@dataclass(frozen=True, slots=True)
class Problem:
    """The sites of one table, in order of their ids' UTF-8 bytes."""

    id: str
    ids: tuple[str, ...]  # (n,) sorted
    row: tuple[int, ...]  # (n,) position in the table
    criteria: tuple[Criterion, ...]
    measures: tuple[Measure, ...]
    strata: tuple[str, ...]  # (n,)
    forbidden: tuple[tuple[int, int], ...]
    required: tuple[tuple[int, int], ...]

    @property
    def ranks(self) -> tuple[tuple[int, int], ...]:
        """(criterion, rank inside it) of every ranked quantity, in order; the tie rank comes after them."""
        return tuple((k, r) for k, m in enumerate(self.measures) for r in range(m.ranks))

    @property
    def rank_names(self) -> tuple[str, ...]:
        """Names of the ranks, the tie rank last."""
        names = []
        for k, r in self.ranks:
            name = self.criteria[k].name
            names.append(f"{name} missing" if r < self.measures[k].ranks - 1 else name)
        return (*names, TIE)

    def stratum_words(self, stratum: str) -> str:
        """A stratum as a reader would say it: 'sites with directly_operated = no'."""
        columns = [c.name for c in self.criteria if isinstance(c, Exact)]
        if not columns:
            return "sites"
        return "sites with " + " and ".join(f"{c} = {v}" for c, v in zip(columns, stratum.split(" / "), strict=False))


@dataclass(frozen=True, slots=True)
class Block:
    """The sites of one stratum that are to be paired with each other."""

    stratum: str
    members: Array  # (m,) positions in id order
    vacant: bool  # an odd count: one empty place, at no distance to anybody

    @property
    def size(self) -> int:
        """Vertices, the empty place included."""
        return len(self.members) + self.vacant


def read_problem(
    sites: pd.DataFrame,
    *,
    id: str,
    criteria: Sequence[Criterion],
    missing: str,
    forbidden: Iterable[Sequence[Any]],
    required: Iterable[Sequence[Any]],
) -> Problem:
    """Read a table of sites; every complaint about data or arguments is raised here."""
    if not isinstance(sites, pd.DataFrame):
        raise door.InputError(f"match_pairs takes a DataFrame, one row a site, not {type(sites).__name__}.")
    if not isinstance(id, str):
        raise door.InputError(f"id={id!r}: name the column that holds the sites' ids.")
    if not isinstance(criteria, Sequence):
        raise door.InputError("criteria must be a list in rank order, for example criteria=[tk.exact('county'), tk.nearest('budget')].")
    ids = door.site_ids(sites, id, where=WHERE)
    if not ids:
        raise door.InputError(f"{WHERE} has no rows. It needs one row a site.")
    if missing not in MISSING:
        raise door.InputError(f"missing={missing!r}: {door.unknown_word(str(missing), MISSING, what='policy')}")
    declared = tuple(criteria)
    if not declared:
        raise door.InputError(
            "no matching criterion is given, so any pairs would do. Name at least one: criteria=[nearest('annual_budget')]."
        )
    for criterion in declared:
        if not isinstance(criterion, Criterion):
            raise door.InputError(
                f"{criterion!r} is not a matching criterion. Use exact, exact_if_possible, nearest or mahalanobis with column names."
            )
    order = sorted(range(len(ids)), key=lambda k: ids[k].encode())
    names = tuple(ids[k] for k in order)
    position = {name: k for k, name in enumerate(names)}
    measures = tuple(measure(c, sites, ids, order, missing=missing, where=WHERE) for c in declared)
    hard = [m.labels for m in measures if isinstance(m, Levels) and m.ranks == 0]
    strata = tuple(_joined(levels) for levels in zip(*hard, strict=True)) if hard else (WHOLE,) * len(names)
    barred = _named_pairs(forbidden, position, what="forbidden")
    wanted = _named_pairs(required, position, what="required")
    problem = Problem(id, names, tuple(order), declared, measures, strata, barred, wanted)
    _check_required(problem)
    return problem


def _joined(levels: Sequence[str]) -> str:
    """The levels of several exact criteria as one label; a slash inside a level is doubled, so that no two labels meet."""
    return levels[0] if len(levels) == 1 else " / ".join(level.replace("/", "//") for level in levels)


def _named_pairs(pairs: Iterable[Sequence[Any]], position: dict[str, int], *, what: str) -> tuple[tuple[int, int], ...]:
    found = set()
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise door.PairingError(f"{what}: {pair!r} is not a pair of two site ids. Write for example {what}=[('S01', 'S02')].")
        named = [door.cell_text(x) for x in pair]
        for name in named:
            if name not in position:
                raise door.PairingError(f"{what}: {_unknown_site(name, position)}")
        if named[0] == named[1]:
            raise door.PairingError(f"{what}: the site {named[0]!r} is paired with itself. Name two sites.")
        a, b = sorted(position[name] for name in named)
        found.add((a, b))
    return tuple(sorted(found))


def _unknown_site(name: str, position: dict[str, int]) -> str:
    near = door.nearest_word(name, position)
    return f"no site {name!r} in {WHERE}." + (f" Did you mean {near!r}?" if near else "")


def _check_required(problem: Problem) -> None:
    taken: dict[int, tuple[int, int]] = {}
    for a, b in problem.required:
        pair = f"({problem.ids[a]!r}, {problem.ids[b]!r})"
        for site in (a, b):
            if site in taken:
                raise door.PairingError(f"required: {problem.ids[site]!r} stands in two pairs; a site has one partner. Remove one of them.")
            taken[site] = (a, b)
        if (a, b) in problem.forbidden:
            raise door.PairingError(f"{pair} is both required and forbidden. Remove it from one of the two.")
        for criterion, m in zip(problem.criteria, problem.measures, strict=True):
            two = np.array([a, b])
            if isinstance(m, Levels) and m.ranks == 0 and m.codes[a] != m.codes[b]:
                raise door.PairingError(
                    f"required pair {pair}: {criterion.name} is {m.labels[a]!r} and {m.labels[b]!r}, but it is an exact criterion. "
                    "Drop the pair, or rank the column with exact_if_possible."
                )
            beyond = m.barred(two)
            if beyond is not None and beyond[0, 1]:
                raise door.PairingError(
                    f"required pair {pair} is further apart in {criterion.name} than its caliper. Drop the pair or widen the caliper."
                )


def blocks(problem: Problem, pool: Iterable[int]) -> tuple[Block, ...]:
    """The sites of `pool` by stratum, in order of the strata's names; an odd stratum gets an empty place."""
    by_stratum: dict[str, list[int]] = {}
    for k in sorted(pool):
        by_stratum.setdefault(problem.strata[k], []).append(k)
    return tuple(Block(s, np.array(by_stratum[s]), len(by_stratum[s]) % 2 == 1) for s in sorted(by_stratum, key=str.encode))


def allowed(problem: Problem, block: Block) -> Array:
    """(m, m) bool: which of the block's sites may be paired; everybody may take the empty place."""
    m = block.size
    edges = ~np.eye(m, dtype=bool)
    inner = edges[: len(block.members), : len(block.members)]
    for measured in problem.measures:
        beyond = measured.barred(block.members)
        if beyond is not None:
            inner &= ~beyond
    at = {int(site): k for k, site in enumerate(block.members)}
    for a, b in problem.forbidden:
        if a in at and b in at:
            inner[at[a], at[b]] = inner[at[b], at[a]] = False
    return edges


def weigh(problem: Problem, parts: Sequence[Block], *, groups_of_three: bool = False) -> tuple[Layout, list[list[Array]]]:
    """How ranks share limbs over all blocks, and each block's limbs, the tie rank last."""
    sizes = [0] * len(problem.ranks)
    totals = [0] * len(problem.ranks)
    for block in parts:
        for r, (k, rank) in enumerate(problem.ranks):
            farthest = problem.measures[k].distance(rank, block.members).max(axis=1)
            sizes[r] = max(sizes[r], int(farthest.max()))
            # a pair's distance is at most half the sum of its two sites' farthest; a trio's three are at most their sum
            reach = sum(int(x) for x in farthest)
            totals[r] += reach if groups_of_three else (reach + 1) // 2
    ends = sum(len(block.members) for block in parts)
    plan = layout([*sizes, (1 << TIE_BITS) - 1], [*totals, ends << TIE_BITS])
    return plan, [_limbs(problem, block, plan) for block in parts]


def _limbs(problem: Problem, block: Block, plan: Layout) -> list[Array]:
    def rank(r: int) -> Array:
        if r == len(problem.ranks):
            distance = tie_weights([problem.ids[k] for k in block.members])
        else:
            k, inner = problem.ranks[r]
            distance = problem.measures[k].distance(inner, block.members)
        if not block.vacant:
            return distance
        padded = np.zeros((block.size, block.size), dtype=distance.dtype)
        padded[:-1, :-1] = distance
        return padded

    return [limb for ranks in plan.limbs for limb in pack({r: rank(r) for r, _ in ranks}, Layout((ranks,)))]


def named_limbs(problem: Problem, plan: Layout) -> tuple[tuple[tuple[str, int], ...], ...]:
    """The layout with ranks by name."""
    names = problem.rank_names
    return tuple(tuple((names[r], multiplier) for r, multiplier in limb) for limb in plan.limbs)


def exact_cells(problem: Problem, sites: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    """The criteria's columns as exact text, a row a site in id order, columns in order of first use; "" where missing."""
    numeric = {c for k in problem.criteria if isinstance(k, Nearest | Mahalanobis) for c in k.columns}
    read = [exact_text(sites, c, numeric=c in numeric, where=WHERE) for c in cell_columns(problem.criteria)]
    return tuple(tuple(column[k] for column in read) for k in problem.row)


def gaps(problem: Problem, group: Sequence[int]) -> list[int | None]:
    """Distance of each criterion summed over all twos of a group; None where a missing cell leaves it unknown."""
    sites = np.array(group)
    found: list[int | None] = []
    for m in problem.measures:
        if m.ranks == 0:
            found.append(0)
        elif isinstance(m, Line) and m.own_level and m.missing[sites].any() and not m.missing[sites].all():
            found.append(None)
        else:
            found.append(int(np.triu(m.distance(m.ranks - 1, sites)).sum()))
    return found


def cell_columns(criteria: Iterable[Criterion]) -> tuple[str, ...]:
    """Every column the criteria read, in order of first use."""
    return tuple(dict.fromkeys(c for k in criteria for c in k.columns))
