"""Stratified randomisation with permuted blocks, a declared rule for the sites left over, any arms and ratio; and simple randomisation.

A stratum (or a block of it) is shuffled, its first places filled by the ratio, and what is left over - fewer sites
than the ratio has places - are misfits. What happens to them is the most common practical question, so it is an
argument without a hidden answer, in the vocabulary of Stata's randtreat (Carril 2017).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from trialkit import door
from trialkit._kernels import draws as hashing
from trialkit.allocation import methods
from trialkit.allocation.plans import ARMS, UNASSIGNED, Array, Codes, Plan, check_arms, check_labels, check_n, check_source, refuse_above
from trialkit.allocation.sites import SiteRecord, by_bytes
from trialkit.door import InputError, VerificationError

MISFITS = ("missing", "strata", "global", "wstrata", "wglobal")
_POOL = "misfits"


@dataclass(frozen=True, kw_only=True, eq=False)
class Stratified(Plan):
    """Permuted blocks within strata.

    Attributes
    ----------
    ratio : tuple of int
        Places an arm has in each round of the ratio.
    misfits : str
        ``missing``: left without an arm; ``strata``: spread over the arms evenly within their cell; ``global``: evenly
        over all cells' misfits together; ``wstrata``, ``wglobal``: the same, by the ratio instead of evenly.
    cells : tuple of tuples of str
        The sites shuffled together: a stratum, or a block of one; by UTF-8 bytes.
    stratum_of : mapping of id to str
        In words, for the allocation's table.
    strata_columns, block_size, order
        What the cells were made by; see `stratified`.
    """

    scheme: ClassVar[str] = "stratified"

    ratio: tuple[int, ...]
    misfits: str
    cells: tuple[tuple[str, ...], ...]
    stratum_of: Mapping[str, str]
    strata_columns: tuple[str, ...] = ()
    block_size: int | None = None
    order: str | None = None

    def __post_init__(self) -> None:
        check_ratio(self.ratio, self.arms)
        if self.misfits not in MISFITS:
            raise InputError(door.unknown_word(str(self.misfits), MISFITS, what="rule for misfits"))
        everybody = [s for cell in self.cells for s in cell]
        if len(set(everybody)) < len(everybody) or any(list(c) != by_bytes(c) or not c for c in self.cells):
            raise InputError("the cells of the plan are not in order, or a site stands in two of them.")
        labels = [label for cell in self.cells for label, _ in hashing.shuffle_labels(cell[0], len(cell))]
        if self.misfits in ("strata", "wstrata"):
            labels += [label for cell in self.cells for label in self._last_labels(f"{cell[0]}/{_POOL}", self._left(cell))]
        if self.misfits in ("global", "wglobal"):
            n = sum(self._left(c) for c in self.cells)
            labels += [label for label, _ in hashing.shuffle_labels(_POOL, n)] + self._last_labels(f"{_POOL}/last", n)
        check_labels(labels)

    def _left(self, cell: Sequence[str]) -> int:
        return len(cell) % sum(self.ratio)

    @property
    def _round(self) -> tuple[int, ...]:
        """Arm codes of one round of the ratio."""
        return tuple(code for code, r in enumerate(self.ratio) for _ in range(r))

    @property
    def _unit(self) -> tuple[int, ...]:
        """Arm codes that misfits are spread over: each arm once, or by the ratio."""
        return self._round if self.misfits.startswith("w") else tuple(range(len(self.arms)))

    def _last_labels(self, label: str, n: int) -> list[str]:
        return [sub for sub, _ in hashing.shuffle_labels(label, len(self._unit))] if n % len(self._unit) else []

    @cached_property
    def text(self) -> str:
        """Arms, ratio, rule for misfits, then one line a cell."""
        head = ["trialkit-plan-stratified-1", "\t".join(["arms", *self.arms]), "\t".join(["ratio", *map(str, self.ratio)])]
        return "\n".join([*head, f"misfits\t{self.misfits}", *("\t".join(["cell", *cell]) for cell in self.cells)]) + "\n"

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The randomised sites by their UTF-8 bytes."""
        return tuple(by_bytes([s for cell in self.cells for s in cell]))

    @cached_property
    def _places(self) -> tuple[tuple[int, ...], ...]:
        position = {s: k for k, s in enumerate(self.sites)}
        return tuple(tuple(position[s] for s in cell) for cell in self.cells)

    def probabilities(self) -> Array:
        """Places by the ratio, and the misfits' share; rows sum to less than 1 when misfits stay without an arm."""
        out = np.zeros((len(self.sites), len(self.arms)))
        ratio = np.array(self.ratio, dtype=np.float64)
        unit = np.bincount(np.array(self._unit), minlength=len(self.arms)) / len(self._unit)
        for places in self._places:
            n, left = len(places), len(places) % int(ratio.sum())
            p = (n - left) / n * ratio / ratio.sum()
            if self.misfits != "missing":
                p = p + left / n * unit
            out[list(places)] = p
        return out

    def allocate(self, seed: bytes) -> tuple[Codes, tuple[hashing.Draw, ...]]:
        """Shuffle each cell, fill by the ratio, then place the misfits."""
        arms: dict[str, int] = {}
        drawn: list[hashing.Draw] = []
        pool: list[str] = []
        for cell in self.cells:
            order, made = hashing.shuffle(seed, self.digest, cell[0], cell)
            drawn += made
            full = len(cell) - self._left(cell)
            arms.update({s: self._round[k % len(self._round)] for k, s in enumerate(order[:full])})
            left = order[full:]
            if self.misfits in ("strata", "wstrata"):
                drawn += self._place(seed, f"{cell[0]}/{_POOL}", left, arms)
            elif self.misfits in ("global", "wglobal"):
                pool += left
        if pool:
            order, made = hashing.shuffle(seed, self.digest, _POOL, pool)
            drawn += made
            drawn += self._place(seed, f"{_POOL}/last", order, arms)
        return np.array([arms.get(s, UNASSIGNED) for s in self.sites], dtype=np.int8), tuple(drawn)

    def _place(self, seed: bytes, label: str, shuffled: Sequence[str], arms: dict[str, int]) -> list[hashing.Draw]:
        """Whole rounds of the unit in order, the last, broken one from a shuffled unit."""
        unit = self._unit
        whole = len(shuffled) - len(shuffled) % len(unit)
        arms.update({s: unit[k % len(unit)] for k, s in enumerate(shuffled[:whole])})
        if whole == len(shuffled):
            return []
        order, made = hashing.shuffle(seed, self.digest, label, [str(code) for code in unit])
        arms.update({s: int(code) for s, code in zip(shuffled[whole:], order, strict=False)})
        return made

    def sample(self, n: int, *, seed: int) -> Codes:
        """`n` draws from the randomisation distribution, (n, n_sites) arm codes, -1 without an arm; columns as `sites`."""
        check_n(n, seed)
        return self._sample(n, f"trialkit-sample-1\n{self.digest}\n{int(seed)}")

    def _sample(self, n: int, key: str) -> Codes:
        out = np.full((n, len(self.sites)), UNASSIGNED, dtype=np.int8)
        rows = np.arange(n)[:, None]
        pooled: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        for number, places in enumerate(self._places):
            order = np.array(places)[hashing.permutations(f"{key}\ncell {number}", n, len(places))]
            left = len(places) % len(self._round)
            full = len(places) - left
            out[rows, order[:, :full]] = np.tile(np.array(self._round, dtype=np.int8), full // len(self._round))
            if left and self.misfits in ("strata", "wstrata"):
                out[rows, order[:, full:]] = self._spread(f"{key}\nmisfits {number}", n, left)
            elif left:
                pooled.append(order[:, full:])
        if pooled and self.misfits in ("global", "wglobal"):
            pool = np.concatenate(pooled, axis=1)
            pool = np.take_along_axis(pool, hashing.permutations(f"{key}\npool", n, pool.shape[1]), axis=1)
            out[rows, pool] = self._spread(f"{key}\nlast", n, pool.shape[1])
        return out

    def _spread(self, key: str, n: int, m: int) -> Codes:
        """(n, m) arm codes for m shuffled misfits."""
        unit = np.array(self._unit, dtype=np.int8)
        rounds = np.tile(unit, m // len(unit))
        rest = m % len(unit)
        last = unit[hashing.permutations(key, n, len(unit))][:, :rest]
        return np.concatenate([np.broadcast_to(rounds, (n, len(rounds))), last], axis=1)

    # --- counting and listing ---

    def _misfit_counts(self, m: int) -> list[tuple[int, ...]]:
        """The numbers an arm that m misfits spread over the unit can give, (n_arms,) each."""
        unit = self._unit
        whole, rest = divmod(m, len(unit))
        base = Counter(unit * whole)
        found = {tuple(base[a] + Counter(chosen)[a] for a in range(len(self.arms))) for chosen in combinations(unit, rest)}
        return sorted(found)

    def _cell_counts(self, n: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """For a cell of n sites: the misfits' part and the whole number of sites an arm, every way it can come out."""
        rounds, left = divmod(n, sum(self.ratio))
        base = tuple(r * rounds for r in self.ratio)
        none = (0,) * len(self.arms)
        if left == 0 or self.misfits == "missing":
            return [(none, base)]
        if self.misfits in ("strata", "wstrata"):
            extras = self._misfit_counts(left)
        else:
            extras = [e for e in product(range(left + 1), repeat=len(self.arms)) if sum(e) == left]
        return [(e, tuple(b + x for b, x in zip(base, e, strict=True))) for e in extras]

    def _totals(self) -> set[tuple[int, ...]] | None:
        """What the pooled misfits may add up to; None without a pool."""
        if self.misfits not in ("global", "wglobal"):
            return None
        return set(self._misfit_counts(sum(self._left(c) for c in self.cells)))

    @cached_property
    def n_assignments(self) -> int:
        """Number of different allocations."""
        ways: dict[tuple[int, ...], int] = {(0,) * len(self.arms): 1}
        for cell in self.cells:
            grown: dict[tuple[int, ...], int] = {}
            for so_far, count in ways.items():
                for extra, counts in self._cell_counts(len(cell)):
                    key = tuple(a + b for a, b in zip(so_far, extra, strict=True)) if self._totals() is not None else so_far
                    grown[key] = grown.get(key, 0) + count * _multinomial(len(cell), counts)
            ways = grown
        allowed = self._totals()
        return sum(count for key, count in ways.items() if allowed is None or key in allowed)

    @property
    def equally_likely(self) -> bool:
        """Whether every allocation has the same probability."""
        if self.misfits == "missing" or all(self._left(c) == 0 for c in self.cells):
            return True
        if len(set(self.ratio)) > 1 or self.ratio[0] > 1:
            return False
        return self.misfits in ("strata", "wstrata") or len(self.arms) == 2

    def assignments(self, limit: int = 100_000) -> Codes:
        """Every allocation, (n_assignments, n_sites), when each is equally likely; refused otherwise, and above `limit`."""
        if not self.equally_likely:
            raise InputError(
                f"with ratio {':'.join(map(str, self.ratio))} and misfits={self.misfits!r} the allocations are not equally likely, "
                "so a list would mislead. Use plan.sample(n, seed=...)."
            )
        refuse_above(limit, self.n_assignments)
        allowed = self._totals()
        out = np.empty((self.n_assignments, len(self.sites)), dtype=np.int8)
        k = 0
        for parts in product(*[list(self._cell_lists(len(c))) for c in self.cells]):
            if allowed is not None and tuple(map(sum, zip(*[extra for extra, _ in parts], strict=True))) not in allowed:
                continue
            for codes in product(*[rows for _, rows in parts]):
                for places, code in zip(self._places, codes, strict=True):
                    out[k, list(places)] = code
                k += 1
        return out[:k]

    def _cell_lists(self, n: int) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
        for extra, counts in self._cell_counts(n):
            yield extra, list(_arrangements(n, counts))

    # --- files and words ---

    @property
    def group_name(self) -> str | None:
        """``stratum``."""
        return "stratum"

    def groups(self) -> dict[str, str | None]:
        """Each site's stratum."""
        return {s: self.stratum_of.get(s) for s in self.rows}

    def detail(self) -> dict[str, Any]:
        """Ratio, rule, cells and strata."""
        return {
            "ratio": list(self.ratio),
            "misfits": self.misfits,
            "strata_columns": list(self.strata_columns),
            "block_size": self.block_size,
            "order": self.order,
            "cells": [list(c) for c in self.cells],
            "strata": [[s, self.stratum_of[s]] for s in by_bytes(list(self.stratum_of))],
        }

    @classmethod
    def from_detail(cls, record: Mapping[str, Any], common: Mapping[str, Any]) -> Self:
        """The plan out of its file's entries."""
        return cls(
            ratio=tuple(int(r) for r in record["ratio"]),
            misfits=str(record["misfits"]),
            cells=tuple(tuple(str(s) for s in c) for c in record["cells"]),
            stratum_of={str(s): str(stratum) for s, stratum in record["strata"]},
            strata_columns=tuple(str(c) for c in record["strata_columns"]),
            block_size=record["block_size"],
            order=record["order"],
            **common,
        )

    def recheck(self) -> list[tuple[str, str]]:
        """The cells are those that the recorded columns give."""
        check_rows(self.rows, self.record)
        frame = self.record.frame(self.rows)
        check_strata(self.stratum_of, frame, self.strata_columns, self.rows)
        try:
            made = _cells(frame, self.rows, self.stratum_of, self.block_size, self.order, sum(self.ratio))
        except (InputError, TypeError) as error:
            raise VerificationError(f"the cells of the plan do not come out again: {error}") from None
        for cell in self.cells:
            if cell not in made:
                raise VerificationError(f"site {door.printable(cell[0])}: the recorded columns do not give the cell {', '.join(cell)}.")
        if len(made) != len(self.cells):
            raise VerificationError(f"the plan has {len(self.cells)} cells where the recorded columns give {len(made)}.")
        return [("strata", f"{len(set(self.stratum_of.values()))} strata, {len(self.cells)} cells hold every site once")]

    def methods_text(self) -> str:
        """A paragraph for a protocol or a paper, from the plan itself."""
        strata = len(set(self.stratum_of.values()))
        left = sum(self._left(c) for c in self.cells)
        within = f" within {methods.number(strata, 'stratum', 'strata')}" if strata > 1 else ""
        blocked = f" in {len(self.cells)} permuted blocks" if len(self.cells) > strata else ""
        rules = {
            "missing": "was not allocated",
            "strata": "was spread evenly over the arms within its stratum",
            "global": "was spread evenly over the arms across strata",
            "wstrata": "was spread over the arms by the ratio within its stratum",
            "wglobal": "was spread over the arms by the ratio across strata",
        }
        rest = ""
        if left:
            rest = f" {methods.number(left, 'site')} left over by the ratio: each {rules[self.misfits]}, which sites being random."
        ratio = ":".join(map(str, self.ratio))
        return (
            f"The {methods.number(len(self.sites), 'site')} were randomised{within}{blocked} to "
            f"{methods.listed(list(self.arms))} in the ratio "
            f"{ratio}, by a random order of each {'block' if blocked else 'stratum'}.{rest} {methods.draw_sentences(self)} "
            f"{methods.closing()}"
        )


def check_ratio(ratio: Any, arms: Sequence[str]) -> tuple[int, ...]:
    """One whole number of at least 1 an arm."""
    if (
        isinstance(ratio, str)
        or len(ratio) != len(arms)
        or any(isinstance(r, bool) or not isinstance(r, int | np.integer) or r < 1 for r in ratio)
    ):
        raise InputError(
            f"ratio={ratio!r} does not fit the arms {tuple(arms)}. Give one whole number of at least 1 for each, such as (1, 2)."
        )
    out = tuple(int(r) for r in ratio)
    shared = math.gcd(*out)
    return tuple(r // shared for r in out)


def _multinomial(n: int, counts: Sequence[int]) -> int:
    """Ways to give `counts` of n places to the arms, the rest staying empty."""
    out, rest = 1, n
    for c in counts:
        out *= math.comb(rest, c)
        rest -= c
    return out


def _arrangements(n: int, counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every way to write the arm codes into n places, -1 in what stays empty."""

    def fill(codes: list[int], arm: int, free: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if arm == len(counts):
            yield tuple(codes)
            return
        for chosen in combinations(free, counts[arm]):
            inner = list(codes)
            for place in chosen:
                inner[place] = arm
            taken = set(chosen)
            yield from fill(inner, arm + 1, tuple(p for p in free if p not in taken))

    yield from fill([UNASSIGNED] * n, 0, tuple(range(n)))


def check_rows(rows: Sequence[str], record: SiteRecord) -> None:
    """The plan's rows are the recorded sites, once each."""
    if sorted(rows) != sorted(record.ids):
        raise VerificationError("the plan's list of rows is not the list of its sites.")


def check_strata(stratum_of: Mapping[str, str], frame: pd.DataFrame, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Each site's stratum in words is that of its recorded columns."""
    try:
        made = strata_of(frame, columns, rows, where="the sites' record")
    except InputError as error:
        raise VerificationError(f"the strata do not come out again: {error}") from None
    for s in rows:
        if stratum_of.get(s) != made[s]:
            raise VerificationError(
                f"site {door.printable(s)}: the plan puts it in the stratum {door.printable(stratum_of.get(s))!r}, "
                f"its recorded columns in {made[s]!r}."
            )


def strata_of(frame: pd.DataFrame, columns: Sequence[str], ids: Sequence[str], *, where: str) -> dict[str, str]:
    """Each site's stratum in words (``county, small``); without columns everybody is in ``all``."""
    door.require_columns(frame, columns, where=where, why="as a stratum")
    if not columns:
        return dict.fromkeys(ids, "all")
    texts = [[door.cell_text(v) for v in frame[c].tolist()] for c in columns]
    for k, s in enumerate(ids):
        for c, column in zip(columns, texts, strict=True):
            if not column[k]:
                raise InputError(f"site {s} has no value in {c!r}, so it is in no stratum. Give it a level of its own, such as 'unknown'.")
    return {s: ", ".join(column[k] for column in texts) for k, s in enumerate(ids)}


def stratified(
    sites: pd.DataFrame,
    *,
    id: str,
    strata: Sequence[str] = (),
    misfits: str = "strata",
    block_size: int | None = None,
    order: str | None = None,
    arms: Sequence[str] = ARMS,
    ratio: Sequence[int] | None = None,
    source: str | os.PathLike[str] | None = None,
    seed_rule: Mapping[str, Any] | str | None = None,
) -> Stratified:
    """Stratified randomisation, whole strata or permuted blocks, with a declared rule for what is left over.

    Parameters
    ----------
    sites : DataFrame
        One row a site.
    id : str
        Column of the sites' ids.
    strata : sequence of str
        Columns whose combinations are the strata; none for complete randomisation of all sites together.
    misfits : {"strata", "global", "wstrata", "wglobal", "missing"}
        What happens to a stratum's last sites, fewer than the ratio has places (see `Stratified`).
    block_size : int, optional
        Cut each stratum into blocks of this many sites (a multiple of the ratio's sum), in the order of `order`.
    order : str, optional
        Numeric column that gives the order for blocks (date of entry); by default the ids' order.
    arms : sequence of str
        Labels, the reference first.
    ratio : sequence of int, optional
        Places an arm; equal by default.
    source, seed_rule
        As for `within_pairs`.

    Returns
    -------
    Stratified

    Raises
    ------
    InputError
        A column that is not there, a site without a stratum, a ratio or block size that does not fit.

    Examples
    --------
    >>> frame = pd.DataFrame({"site": ["a", "b", "c", "d", "e"], "county": ["x", "x", "x", "y", "y"]})
    >>> plan = stratified(frame, id="site", strata=["county"], misfits="strata")
    >>> plan.n_assignments  # (3 of 3 places, then 1 or 2) times (1 of 2)
    12
    """
    columns = [strata] if isinstance(strata, str) else list(strata)
    names = check_arms(arms)
    places = check_ratio((1,) * len(names) if ratio is None else ratio, names)
    frame = door.normalise(sites, text=(id,))
    record = SiteRecord.from_frame(frame, id=id, columns=[*columns, *([order] if order else [])], source=source)
    rows = door.site_ids(frame, id, where="the sites table")
    stratum = strata_of(frame, columns, rows, where="the sites table")
    cells = _cells(frame, rows, stratum, block_size, order, sum(places))
    plan = Stratified(
        strata_columns=tuple(columns),
        block_size=block_size,
        order=order,
        id=id,
        rows=tuple(rows),
        record=record,
        arms=names,
        seed_rule=seed_rule,
        ratio=places,
        misfits=misfits,
        cells=cells,
        stratum_of=stratum,
    )
    if source is not None:
        check_source(record, source)
    return plan


def _cells(
    frame: pd.DataFrame, rows: Sequence[str], stratum: Mapping[str, str], block_size: int | None, order: str | None, unit: int
) -> tuple[tuple[str, ...], ...]:
    if block_size is not None and (isinstance(block_size, bool) or block_size < unit or block_size % unit):
        raise InputError(f"block_size={block_size} is not a multiple of the ratio's sum, {unit}, so no block would be balanced.")
    if order is not None and block_size is None:
        raise InputError("order= says how blocks are cut, but block_size= is missing. Give it, or leave order out.")
    rank = dict.fromkeys(rows, 0.0)
    if order is not None:
        values = door.numbers(frame, order, where="the sites table")
        for s, v in zip(rows, values.tolist(), strict=True):
            if math.isnan(v):
                raise InputError(f"site {s} has no value in {order!r}, so its place among the blocks is unknown. Fill it in.")
            rank[s] = v
    cells: list[tuple[str, ...]] = []
    for name in sorted(set(stratum.values())):
        members = sorted((s for s in rows if stratum[s] == name), key=lambda s: (rank[s], s.encode("utf-8")))
        size = block_size or len(members)
        cells += [tuple(by_bytes(members[k : k + size])) for k in range(0, len(members), size)]
    return tuple(sorted(cells, key=lambda c: c[0].encode("utf-8")))


# --- simple ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Simple(Plan):
    """Each site by itself, like a coin: arms of any size can come out, an empty one too.

    Attributes
    ----------
    ratio : tuple of int
        Odds of the arms.
    """

    scheme: ClassVar[str] = "simple"

    ratio: tuple[int, ...]

    def __post_init__(self) -> None:
        check_ratio(self.ratio, self.arms)

    @cached_property
    def text(self) -> str:
        """Arms, ratio and sites."""
        lines = ["trialkit-plan-simple-1", "\t".join(["arms", *self.arms]), "\t".join(["ratio", *map(str, self.ratio)])]
        return "\n".join([*lines, "\t".join(["sites", *self.sites])]) + "\n"

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """All sites by their UTF-8 bytes."""
        return tuple(by_bytes(self.rows))

    @property
    def n_assignments(self) -> int:
        """Arms to the power of sites."""
        return int(len(self.arms) ** len(self.sites))

    @property
    def _round(self) -> Codes:
        return np.repeat(np.arange(len(self.arms), dtype=np.int8), self.ratio)

    def probabilities(self) -> Array:
        """The ratio's shares, the same for every site."""
        return np.tile(np.array(self.ratio) / sum(self.ratio), (len(self.sites), 1))

    def allocate(self, seed: bytes) -> tuple[Codes, tuple[hashing.Draw, ...]]:
        """One draw a site among the ratio's places."""
        drawn = tuple(hashing.draw(seed, self.digest, s, sum(self.ratio)) for s in self.sites)
        return self._round[[d.value for d in drawn]], drawn

    def sample(self, n: int, *, seed: int) -> Codes:
        """`n` draws from the randomisation distribution, (n, n_sites)."""
        check_n(n, seed)
        picks = hashing.integers(f"trialkit-sample-1\n{self.digest}\n{int(seed)}", sum(self.ratio), (n, len(self.sites)))
        return np.asarray(self._round[picks])

    def assignments(self, limit: int = 100_000) -> Codes:
        """Every allocation when the arms are equally likely; refused otherwise, and above `limit`."""
        if len(set(self.ratio)) > 1:
            raise InputError(
                "with an unequal ratio the allocations are not equally likely, so a list would mislead. Use plan.sample(n, seed=...)."
            )
        refuse_above(limit, self.n_assignments)
        return np.array(list(product(range(len(self.arms)), repeat=len(self.sites))), dtype=np.int8).reshape(-1, len(self.sites))

    def covariance(self) -> Array:
        """Independent sites."""
        p = self.probabilities()[:, 1]
        return np.diag(p * (1 - p))

    def groups(self) -> dict[str, str | None]:
        """None."""
        return {}

    def detail(self) -> dict[str, Any]:
        """The ratio."""
        return {"ratio": list(self.ratio)}

    @classmethod
    def from_detail(cls, record: Mapping[str, Any], common: Mapping[str, Any]) -> Self:
        """The plan out of its file's entries."""
        return cls(ratio=tuple(int(r) for r in record["ratio"]), **common)

    def recheck(self) -> list[tuple[str, str]]:
        """The plan holds the recorded sites."""
        check_rows(self.rows, self.record)
        return []

    def methods_text(self) -> str:
        """A paragraph for a protocol or a paper, from the plan itself."""
        return (
            f"Each of {methods.number(len(self.sites), 'site')} was randomised by itself to {methods.listed(list(self.arms))} with odds "
            f"{':'.join(map(str, self.ratio))} (simple randomisation, no restriction). {methods.draw_sentences(self)} {methods.closing()}"
        )


def simple(
    sites: pd.DataFrame,
    *,
    id: str,
    arms: Sequence[str] = ARMS,
    ratio: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    seed_rule: Mapping[str, Any] | str | None = None,
) -> Simple:
    """Simple randomisation: each site by itself.

    Parameters
    ----------
    sites : DataFrame
        One row a site.
    id : str
        Column of the sites' ids.
    arms, ratio
        Labels, the reference first, and their odds; equal by default.
    columns : sequence of str, optional
        Columns recorded for the balance table; all by default.
    source, seed_rule
        As for `within_pairs`.

    Examples
    --------
    >>> plan = simple(pd.DataFrame({"site": ["a", "b"]}), id="site")
    >>> plan.assignments().tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    names = check_arms(arms)
    places = check_ratio((1,) * len(names) if ratio is None else ratio, names)
    frame = door.normalise(sites, text=(id,))
    record = SiteRecord.from_frame(frame, id=id, columns=columns, source=source)
    rows = tuple(door.site_ids(frame, id, where="the sites table"))
    plan = Simple(id=id, rows=rows, record=record, arms=names, seed_rule=seed_rule, ratio=places)
    if source is not None:
        check_source(record, source)
    return plan
