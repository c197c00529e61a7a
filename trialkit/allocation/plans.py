"""Declare, then draw: one object says what could happen, draws what does, and gives the randomisation test its distribution.

A plan is frozen and has a digest, P, that binds every draw made from it; publish P before the seed exists.
`within_pairs` makes the plan of a matched-pair trial; the other schemes are in `stratified` and `constrained`.
"""

from __future__ import annotations

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd

from trialkit import door
from trialkit._kernels import draws as hashing
from trialkit.allocation import canonical, seeds
from trialkit.allocation.allocated import Allocation
from trialkit.allocation.criteria import Mahalanobis, Nearest
from trialkit.allocation.seeds import Seed
from trialkit.allocation.sites import SiteRecord, by_bytes, check_id
from trialkit.door import InputError, VerificationError

if TYPE_CHECKING:
    from trialkit.allocation.pairing import Pairing

Codes = np.ndarray[Any, np.dtype[np.int8]]
Array = np.ndarray[Any, np.dtype[np.float64]]

PLAN_SCHEMA = "trialkit-plan-file-1"
ARMS = ("control", "intervention")
UNASSIGNED = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan(ABC):
    """What could have happened: the sites, the arms and the rule between them.

    Attributes
    ----------
    id : str
        Name of the id column.
    rows : tuple of str
        Every site of the table in its row order, also those not randomised.
    arms : tuple of str
        Labels of the arm codes 0, 1, ...; code 0 is the reference.
    record : SiteRecord
        The declared columns of the sites.
    seed_rule : mapping, str or None
        What was said in advance about the seed (see `seeds.drand_rule`, `nist_rule`, `reveal_rule`).
    """

    scheme: ClassVar[str]
    schemes: ClassVar[dict[str, type[Plan]]] = {}
    # what the commitment binds, in words
    commits_to: ClassVar[str] = "the plan, its arms, its sites and its rule for the seed"

    id: str
    rows: tuple[str, ...]
    record: SiteRecord = field(repr=False)
    arms: tuple[str, ...] = ARMS
    seed_rule: Mapping[str, Any] | str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Plan.schemes[cls.scheme] = cls

    # --- what a scheme must say ---

    @property
    @abstractmethod
    def text(self) -> str:
        """The canonical plan text: everything that decides the arms but the seed."""

    @property
    @abstractmethod
    def sites(self) -> tuple[str, ...]:
        """The randomised sites by their UTF-8 bytes: the columns of `assignments` and `sample`."""

    @property
    @abstractmethod
    def n_assignments(self) -> int:
        """How many different allocations the plan can give."""

    @abstractmethod
    def probabilities(self) -> Array:
        """Each site's probability of each arm, (n_sites, n_arms), rows as `sites`."""

    @abstractmethod
    def allocate(self, seed: bytes) -> tuple[Codes, tuple[hashing.Draw, ...]]:
        """The arm codes of `sites` under a seed, with every hash that was drawn."""

    @abstractmethod
    def sample(self, n: int, *, seed: int) -> Codes:
        """`n` draws from the randomisation distribution, (n, n_sites) arm codes, columns as `sites`."""

    @abstractmethod
    def assignments(self, limit: int = 100_000) -> Codes:
        """Every allocation, each equally likely, (n_assignments, n_sites); refused above `limit`."""

    @abstractmethod
    def groups(self) -> dict[str, str | None]:
        """What each randomised site belongs to (pair, stratum), for the allocation's table."""

    @abstractmethod
    def detail(self) -> dict[str, Any]:
        """The scheme's own entries of the plan file."""

    @classmethod
    @abstractmethod
    def from_detail(cls, record: Mapping[str, Any], common: Mapping[str, Any]) -> Self:
        """The plan out of its file's entries."""

    @abstractmethod
    def methods_text(self) -> str:
        """A paragraph for a protocol or a paper (CONSORT cluster items 8 to 10), from the plan itself."""

    def recheck(self) -> list[tuple[str, str]]:
        """What can be derived again about how the plan was made: (name, what was found), or a VerificationError."""
        return []

    @property
    def group_name(self) -> str | None:
        """Name of the grouping column of the allocation's table; None when there is none."""
        return None

    # --- what all share ---

    def __str__(self) -> str:
        arms = " and ".join(self.arms) if len(self.arms) == 2 else ", ".join(self.arms)
        left_out = len(set(self.rows) - set(self.sites))
        lines = [
            f"A plan for {len(self.sites)} sites ({self.scheme.replace('_', ' ')}) to {arms}"
            + (f"; {left_out} set aside" if left_out else ""),
            f"  allocations  {self.n_assignments:,}",
            f"  digest P     {self.digest}",
            f"  commitment C {self.commitment}",
        ]
        if self.seed_rule is not None:
            lines.append(f"  seed         {seeds.rule_words(self.seed_rule)}")
        return "\n".join(lines)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))  # a notebook's cell; `repr` keeps every field

    @cached_property
    def digest(self) -> str:
        """P: SHA-256 of the plan text, lower-case hexadecimal. Publish it before the seed exists."""
        return door.sha256_bytes(self.text.encode("utf-8"))

    @cached_property
    def commitment(self) -> str:
        """C: SHA-256 that binds, besides P, the arms' names, the sites' data, the sites left out and the rule for the seed."""
        left_out = by_bytes([s for s in self.rows if s not in set(self.sites)])
        body = {
            "scheme": self.scheme,
            "plan": self.digest,
            "arms": list(self.arms),
            "left_out": left_out,
            "sites": self.record.canonical_sha256,
            "seed_rule": self.seed_rule if self.seed_rule is None or isinstance(self.seed_rule, str) else dict(self.seed_rule),
        }
        return door.sha256_bytes(b"trialkit-commitment-1\n" + canonical.content(body))

    def with_seed_rule(self, rule: Mapping[str, Any] | str) -> Self:
        """The same plan, saying in advance what its seed will be; P stays, the commitment changes."""
        return replace(self, seed_rule=rule)

    def probability(self, arm: str) -> pd.Series[float]:
        """Each randomised site's probability of `arm`, indexed by site in the table's row order.

        Raises
        ------
        InputError
            There is no such arm.
        """
        if arm not in self.arms:
            raise InputError(door.unknown_word(str(arm), self.arms, what="arm"))
        column = self.probabilities()[:, self.arms.index(arm)]
        values = dict(zip(self.sites, column.tolist(), strict=True))
        ids = [s for s in self.rows if s in values]
        return pd.Series([values[s] for s in ids], index=pd.Index(ids, name=self.id), name=arm, dtype="float64")

    def draw(self, *, seed: str | int | Seed | None = None, seed_source: str | None = None) -> Allocation:
        """Draw the allocation.

        Parameters
        ----------
        seed : str, int or Seed
            As published; text enters as its UTF-8 bytes, an int as its decimal digits. There is no default.
        seed_source : str
            Who or what produced the seed; recorded. Not needed when `seed` is a `Seed` with its own evidence.

        Returns
        -------
        Allocation

        Raises
        ------
        InputError
            No seed, an empty one, a truth value, or no source.

        Warns
        -----
        ShortSeedWarning
            The seed cannot reach all allocations about equally; the words are kept in the certificate.
        """
        allocation = self.drawn(seeds.checked(seed, seed_source))
        seeds.warn(allocation.warning)
        return allocation

    def drawn(self, seed: Seed) -> Allocation:
        """The allocation under a checked seed; what there is to say of a short one is kept, not said."""
        codes, drawn = self.allocate(seed.key)
        return Allocation(plan=self, seed=seed, codes=codes, draws=drawn, warning=seeds.shortage(seed, self.n_assignments))

    def covariance(self) -> Array:
        """Covariance of the indicators of arm 1, (n_sites, n_sites), from 20,000 draws where no formula is at hand."""
        indicator = (self.sample(20_000, seed=0) == 1).astype(np.float64)
        centred = indicator - self.probabilities()[:, 1]
        return np.asarray(centred.T @ centred / len(indicator))

    # --- files ---

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what the plan file and the certificate hold."""
        rule = self.seed_rule if self.seed_rule is None or isinstance(self.seed_rule, str) else dict(self.seed_rule)
        return {
            "scheme": self.scheme,
            "algorithm": hashing.ALGORITHM,
            "text": self.text,
            "digest": self.digest,
            "commitment": self.commitment,
            "arms": list(self.arms),
            "seed_rule": rule,
            "rows": list(self.rows),
            "sites": self.record.to_dict(),
            **self.detail(),
        }

    @staticmethod
    def from_dict(record: Mapping[str, Any], *, where: str = "the plan") -> Plan:
        """A plan out of its data; P and the commitment are computed again.

        Raises
        ------
        VerificationError
            The plan disagrees with its own digests, or an entry is missing.
        """
        scheme = record.get("scheme")
        if not isinstance(scheme, str) or scheme not in Plan.schemes:
            raise VerificationError(
                f"{where} is of an unknown scheme, {door.printable(scheme)!r}. Known: {', '.join(sorted(Plan.schemes))}."
            )
        try:
            rule = record["seed_rule"]
            common = {
                "id": str(record["sites"]["id"]),
                "rows": tuple(str(s) for s in record["rows"]),
                "arms": tuple(str(a) for a in record["arms"]),
                "record": SiteRecord.from_dict(record["sites"]),
                "seed_rule": rule if rule is None or isinstance(rule, str) else dict(rule),
            }
            plan = Plan.schemes[scheme].from_detail(record, common)
            text, digest, commitment = record["text"], record["digest"], record["commitment"]
            made = plan.to_dict()  # here, where an entry that is missing is damage
        except VerificationError:
            raise
        except InputError as error:
            raise VerificationError(f"{where} contradicts itself: {error}") from None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise VerificationError(f"{where} is damaged ({type(error).__name__}: {error}). Take the original file.") from None
        if plan.text != text:
            raise VerificationError(f"the plan text of {where} is not what its own entries give{_first_difference(text, plan.text)}.")
        if plan.digest != digest:
            raise VerificationError(
                f"{where} does not agree with its digest: the plan text has SHA-256 {plan.digest}, the file says {door.printable(digest)}. "
                "The text or the digest was changed after the plan was locked; take the original."
            )
        if plan.commitment != commitment:
            raise VerificationError(
                f"{where} does not agree with its commitment: the arms' names, the sites' data or the rule for the seed were changed "
                "after the plan was locked; take the original."
            )
        for key, value in made.items():
            if key not in record or canonical.content(record[key]) != canonical.content(value):
                raise VerificationError(
                    f"{where}: its entry {key!r} is not what the rest of it gives: it was changed after the plan was locked."
                )
        return plan

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the plan as JSON, whole or not at all; an existing file only with `force`.

        Raises
        ------
        Refused
            The file exists.
        WriteError
            The disk or the folder does not allow it.
        """
        door.write_whole(path, canonical.dumps(canonical.sealed({"schema": PLAN_SCHEMA, **self.to_dict()})), force=force)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Plan:
        """Read a locked plan; one that disagrees with its digests is refused.

        Raises
        ------
        InputError
            Not a plan file.
        VerificationError
            The file was changed after it was written.
        """
        record, _ = canonical.read(Path(path))
        if record.get("schema") != PLAN_SCHEMA:
            raise InputError(
                f"{path} is not a plan file (its schema is {door.printable(record.get('schema'))!r}). Make one with plan.save."
            )
        plan = Plan.from_dict(record, where=str(path))
        if not canonical.is_sealed(record):
            raise VerificationError(
                f"{path} was changed after it was written: its content does not give its own SHA-256. Take the original."
            )
        return plan


def _first_difference(seen: Any, made: str) -> str:
    if not isinstance(seen, str):
        return ""
    for k, (a, b) in enumerate(zip(seen.splitlines(), made.splitlines(), strict=False), start=1):
        if a != b:
            return f"; they part at line {k}: {door.printable(a)!r} against {door.printable(b)!r}"
    return ""


def check_arms(arms: Sequence[str], *, least: int = 2, most: int | None = None) -> tuple[str, ...]:
    """Arm labels: at least two, all different, none blank."""
    if isinstance(arms, str):
        raise InputError(f'arms={arms!r} is one word; give the labels as a tuple, the reference first: arms=("control", "intervention").')
    out = tuple(str(a).strip() for a in arms)
    if len(out) < least or (most is not None and len(out) > most):
        wanted = f"{least}" if least == most else f"at least {least}"
        raise InputError(f"{len(out)} arms were given where this scheme takes {wanted}. The reference comes first.")
    if len(set(out)) < len(out) or not all(out) or any("\t" in a or "\n" in a for a in out):
        raise InputError(f"the arms {out} must be different words, none blank, without tabs. Rename one.")
    return out


def check_labels(labels: Sequence[str]) -> None:
    """Two draws with one label would be one draw; only ids such as ``S1/2`` beside ``S1`` can come to that."""
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise InputError(
                f"two draws would share the label {label!r}, so one would copy the other. Rename the site whose id ends like it."
            )
        seen.add(label)


def check_n(n: int, seed: int) -> None:
    """`sample` takes a count and a whole-number seed."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"n={n!r} draws were asked for; give a whole number of at least 1.")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed={seed!r}: sampling the distribution takes a whole number from 0 up as its seed.")


def refuse_above(limit: int, n_assignments: int) -> None:
    """Listing is for small plans."""
    if n_assignments > limit:
        raise InputError(
            f"the plan can give {n_assignments:,} allocations, more than limit={limit:,}. "
            "Use plan.sample(n, seed=...) for a random part of them, or raise the limit."
        )


# --- pairs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class WithinPairs(Plan):
    """One site of each pair to each arm; a single site by itself, a trio split one to two.

    Attributes
    ----------
    blocks : tuple of tuples of str
        Ids of each block by their UTF-8 bytes, blocks by their first id; one, two or three sites each.
    labels : mapping of id to str or None
        The pair's label; None for a single.
    matching : mapping
        How the pairs were found: criteria, odd rule, totals and dual certificate (`Pairing.to_dict`).
    pairing : Pairing or None
        The pairing itself; None in a plan read from a file (`matched` restores it).
    """

    scheme: ClassVar[str] = "within_pairs"

    blocks: tuple[tuple[str, ...], ...]
    labels: Mapping[str, str | None] = field(repr=False)
    matching: Mapping[str, Any] = field(default_factory=dict, repr=False)
    pairing: Pairing | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        seen = [s for block in self.blocks for s in block]
        if len(set(seen)) < len(seen):
            twice = next(s for s in seen if seen.count(s) > 1)
            raise InputError(f"the site {twice!r} stands in two blocks of the plan. Each site is randomised once.")
        if any(not 1 <= len(block) <= 3 for block in self.blocks):
            raise InputError("a block of a paired plan holds one, two or three sites. Match the sites again.")
        if self.blocks != in_order(self.blocks):
            raise InputError("the blocks of the plan are not in the order of their UTF-8 bytes.")
        for s in seen:
            check_id(s, where="the plan")
        check_labels([label for block in self.blocks for label, _ in _block_labels(block)])

    @cached_property
    def text(self) -> str:
        """``trialkit-plan-1``, then one line a block: its ids joined by tabs."""
        return "trialkit-plan-1\n" + "".join("\t".join(block) + "\n" for block in self.blocks)

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The randomised sites by their UTF-8 bytes."""
        return tuple(by_bytes([s for block in self.blocks for s in block]))

    @cached_property
    def _places(self) -> tuple[tuple[int, ...], ...]:
        position = {s: k for k, s in enumerate(self.sites)}
        return tuple(tuple(position[s] for s in block) for block in self.blocks)

    @property
    def n_assignments(self) -> int:
        """2 for each pair and single, 6 for each trio, multiplied."""
        return math.prod(len(_OUTCOMES[len(block)]) for block in self.blocks)

    def probabilities(self) -> Array:
        """One half for every site and arm."""
        return np.full((len(self.sites), 2), 0.5)

    def allocate(self, seed: bytes) -> tuple[Codes, tuple[hashing.Draw, ...]]:
        """The draw of each block, as the algorithm ``trialkit-draw-1`` says (docs/methods/allocation.md)."""
        codes = np.full(len(self.sites), UNASSIGNED, dtype=np.int8)
        position = {s: k for k, s in enumerate(self.sites)}
        drawn: list[hashing.Draw] = []
        for block in self.blocks:
            treated, made = _draw_block(seed, self.digest, block)
            drawn += made
            for s in block:
                codes[position[s]] = 1 if s in treated else 0
        return codes, tuple(drawn)

    def sample(self, n: int, *, seed: int) -> Codes:
        """`n` draws from the randomisation distribution, (n, n_sites) arm codes (0, 1), columns as `sites`.

        Parameters
        ----------
        n : int
            Number of draws.
        seed : int
            Not the seed of the trial: this one only makes the sample repeatable (SHAKE-256 under P and `seed`).
        """
        check_n(n, seed)
        out = np.empty((n, len(self.sites)), dtype=np.int8)
        key = f"trialkit-sample-1\n{self.digest}\n{int(seed)}"
        coins = [k for k, block in enumerate(self.blocks) if len(block) < 3]
        if coins:
            bits = np.unpackbits(hashing.stream(key, (n * len(coins) + 7) // 8))[: n * len(coins)].reshape(n, len(coins)).astype(np.int8)
            for column, k in enumerate(coins):
                places = self._places[k]
                out[:, places[0]] = bits[:, column]
                if len(places) == 2:
                    out[:, places[1]] = 1 - bits[:, column]
        trios = [k for k, block in enumerate(self.blocks) if len(block) == 3]
        if trios:
            outcome = np.array(_OUTCOMES[3], dtype=np.int8)
            picks = hashing.integers(f"{key}\ntrios", len(outcome), (n, len(trios)))
            for column, k in enumerate(trios):
                out[:, list(self._places[k])] = outcome[picks[:, column]]
        return out

    def assignments(self, limit: int = 100_000) -> Codes:
        """Every allocation, each equally likely, (n_assignments, n_sites); refused above `limit`."""
        refuse_above(limit, self.n_assignments)
        out = np.empty((self.n_assignments, len(self.sites)), dtype=np.int8)
        repeat = self.n_assignments
        for places in self._places:
            outcome = np.array(_OUTCOMES[len(places)], dtype=np.int8)
            repeat //= len(outcome)
            which = (np.arange(self.n_assignments) // repeat) % len(outcome)
            out[:, list(places)] = outcome[which]
        return out

    def covariance(self) -> Array:
        """Covariance of the indicators of arm 1, exactly: sites of different blocks are independent."""
        out = np.zeros((len(self.sites), len(self.sites)))
        for places in self._places:
            outcome = np.array(_OUTCOMES[len(places)], dtype=np.float64)
            centred = outcome - outcome.mean(axis=0)
            out[np.ix_(places, places)] = centred.T @ centred / len(outcome)
        return out

    def differences(self, values: Sequence[float] | Array, *, columns: Sequence[str] | None = None) -> Array:
        """Within-pair differences, first minus second id, of one value a site (columns as `sites`); pairs only."""
        order = self.sites if columns is None else tuple(columns)
        by_site = dict(zip(order, np.asarray(values, dtype=np.float64).tolist(), strict=True))
        return np.array([by_site[b[0]] - by_site[b[1]] for b in self.blocks if len(b) == 2])

    def matched(self) -> Pairing:
        """The pairing behind the plan; out of the plan's own record when it was read from a file.

        Raises
        ------
        VerificationError
            The record of the matching is damaged.
        """
        if self.pairing is not None:
            return self.pairing
        from trialkit.allocation.restored import restore_pairing

        try:
            return restore_pairing(self.matching, rows=self.rows)
        except (KeyError, TypeError, ValueError) as error:
            raise VerificationError(
                f"the record of the matching is damaged ({type(error).__name__}: {error}). Take the original file."
            ) from None

    def recheck(self) -> list[tuple[str, str]]:
        """The matching again: the blocks are its pairs, its totals and its dual certificate hold on the sites' own cells."""
        from trialkit.allocation.rematch import check_matching

        return check_matching(self)

    @property
    def group_name(self) -> str | None:
        """``pair``."""
        return "pair"

    def groups(self) -> dict[str, str | None]:
        """Each site's pair label; None for a single."""
        return {s: self.labels.get(s) for s in self.rows}

    def detail(self) -> dict[str, Any]:
        """Pair labels and how the pairs were found."""
        return {
            "labels": [[s, self.labels[s]] for s in by_bytes(list(self.labels))],
            "matching": json.loads(canonical.content(_jsonable(self.matching))),
        }

    @classmethod
    def from_detail(cls, record: Mapping[str, Any], common: Mapping[str, Any]) -> Self:
        """The plan out of its file's entries: the blocks are the plan text's lines."""
        lines = str(record["text"]).split("\n")
        if lines[0] != "trialkit-plan-1" or lines[-1] != "":
            raise VerificationError("the plan text does not begin with 'trialkit-plan-1' or is cut off. Take the original file.")
        blocks = tuple(tuple(line.split("\t")) for line in lines[1:-1])
        labels = {str(s): None if label is None else str(label) for s, label in record["labels"]}
        return cls(blocks=blocks, labels=labels, matching=dict(record["matching"]), **common)

    def methods_text(self) -> str:
        """A paragraph for a protocol or a paper, from the plan itself."""
        from trialkit.allocation.methods import within_pairs_text

        return within_pairs_text(self)


# arm codes a block can get, each equally likely: for a trio one or two treated, then which
_OUTCOMES: dict[int, list[tuple[int, ...]]] = {
    1: [(0,), (1,)],
    2: [(0, 1), (1, 0)],
    3: [tuple(1 if i in chosen else 0 for i in range(3)) for k in (1, 2) for chosen in combinations(range(3), k)],
}


def _block_labels(block: Sequence[str]) -> list[tuple[str, int]]:
    first = block[0]
    if len(block) < 3:
        return [(first, 2)]
    return [(f"{first}/k", 2), *hashing.shuffle_labels(first, len(block))]


def _draw_block(seed: bytes, digest: str, block: Sequence[str]) -> tuple[set[str], list[hashing.Draw]]:
    """The treated sites of one block: pair, 0 treats the first; single, 0 treats it; trio, k of a shuffle."""
    first = block[0]
    if len(block) == 3:
        k = hashing.draw(seed, digest, f"{first}/k", 2)
        order, made = hashing.shuffle(seed, digest, first, block)
        return set(order[: k.value + 1]), [k, *made]
    d = hashing.draw(seed, digest, first, 2)
    if len(block) == 2:
        return {block[d.value]}, [d]
    return ({first} if d.value == 0 else set()), [d]


def in_order(blocks: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Blocks as a plan has them: ids by their UTF-8 bytes, blocks by their first id."""
    inside = [tuple(by_bytes(block)) for block in blocks]
    return tuple(sorted(inside, key=lambda block: block[0].encode("utf-8")))


def _jsonable(value: Any) -> Any:
    """Plain data for JSON: exact decimals as text, mappings and sequences through."""
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(v) for v in value]
    if isinstance(value, np.ndarray):
        return _jsonable(value.tolist())
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    return value if value is None else str(value)


def within_pairs(
    pairing: Pairing,
    *,
    arms: Sequence[str] = ARMS,
    source: str | os.PathLike[str] | None = None,
    seed_rule: Mapping[str, Any] | str | None = None,
) -> WithinPairs:
    """The plan of a matched-pair trial: one site of each pair to each arm, by a fair draw a pair.

    Parameters
    ----------
    pairing : Pairing
        From `match_pairs`. Singles are randomised by themselves, a trio goes one to two, the reserve is not randomised.
    arms : sequence of two str
        Labels, the reference first.
    source : path, optional
        The file the sites were read from; its digest enters plan and certificate.
    seed_rule : mapping or str, optional
        What is said in advance about the seed, as made by `drand_rule`, `nist_rule` or `reveal_rule`, or in words.

    Returns
    -------
    WithinPairs

    Raises
    ------
    InputError
        Arms that are not two different words; a file that does not hold the sites.
    """
    if not hasattr(pairing, "pairs"):
        raise InputError(f"within_pairs takes the pairing that match_pairs gives, not {type(pairing).__name__}.")
    labels_of_arms = check_arms(arms, least=2, most=2)
    frame = pairing.frame
    rows = tuple(str(s) for s in frame[pairing.id].tolist())
    sites = pairing.sites if pairing.id in pairing.sites.columns else pairing.sites.assign(**{pairing.id: list(rows)})
    numeric = [name for c in pairing.criteria if isinstance(c, Nearest | Mahalanobis) for name in c.columns]
    record = SiteRecord.from_frame(sites, id=pairing.id, numeric=numeric, source=source)
    labels = {s: (str(p) if isinstance(p, str) else None) for s, p in zip(rows, frame["pair"].tolist(), strict=True)}
    blocks = in_order([*pairing.pairs, *pairing.trios, *[(s,) for s in pairing.singles]])
    plan = WithinPairs(
        id=pairing.id,
        rows=rows,
        record=record,
        arms=labels_of_arms,
        seed_rule=seed_rule,
        blocks=blocks,
        labels=labels,
        matching=_jsonable(pairing.to_dict()),
        pairing=pairing,
    )
    if source is not None:
        check_source(record, source)
    return plan


def check_source(record: SiteRecord, source: str | os.PathLike[str]) -> None:
    """The file named as the source must say what the plan was made of."""
    from trialkit.allocation.sites import read_again

    again, _ = read_again(source, record)
    if again.canonical_sha256 != record.canonical_sha256:
        raise InputError(
            f"{source} does not hold the sites that were matched: another file, or changed since. Match the sites of this file."
        )
