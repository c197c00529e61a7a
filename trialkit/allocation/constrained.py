"""Covariate-constrained randomisation: list the schemes, keep the balanced ones, draw one of them.

Raab and Butcher (Statistics in Medicine 2001) and Moulton (Clinical Trials 2004). The candidates are every scheme when
there are few, else distinct ones from a hash stream that the plan's own header fixes, so that nobody chose them. Scores
are computed from exact integer totals in a fixed order of operations, and all ties at the cut-off are kept, so the
accepted set is the same on every machine. The set itself is in the plan, with its digest in the plan text.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import combinations
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from trialkit import door
from trialkit._kernels import draws as hashing
from trialkit.allocation import methods
from trialkit.allocation.plans import ARMS, Array, Codes, Plan, check_arms, check_n, check_source, refuse_above
from trialkit.allocation.sites import SiteRecord, by_bytes
from trialkit.allocation.stratified import Stratified, check_ratio, check_rows, check_strata, strata_of
from trialkit.door import InputError, VerificationError
from trialkit.results import Result

METRICS = ("l2", "l1")
LEAST_SCHEMES = 100
_LABEL = "scheme"


@dataclass(frozen=True)
class Validity(Result):
    """How the constraint ties sites together (Bailey and Rowley 1987; Moulton 2004).

    Attributes
    ----------
    together : (n_sites, n_sites) float64
        Share of the accepted schemes that put two sites in the same arm.
    sites : tuple of str
        Rows and columns of `together`.
    frame : DataFrame
        One row a flagged pair of sites: ``site``, ``other``, ``share``, ``flag`` (``always``, ``never``, ``often`` from
        0.75 up, ``seldom`` to 0.25).
    expected : float
        The share when only the arms' sizes are fixed.
    """

    together: Array
    sites: tuple[str, ...]
    frame: pd.DataFrame
    expected: float

    @property
    def title(self) -> str:
        """A line above the table."""
        return f"Validity: {len(self.frame)} of {len(self.sites) * (len(self.sites) - 1) // 2} pairs of sites flagged"

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read it."""
        return (
            f"Without a constraint two sites share an arm with probability {self.expected:.3f}; far from it, the design is "
            f"over-constrained.",
        )

    @property
    def valid(self) -> bool:
        """Whether no two sites are always, or never, in the same arm."""
        return not self.frame["flag"].isin(["always", "never"]).any()


@dataclass(frozen=True, kw_only=True, eq=False)
class Constrained(Plan):
    """One of the accepted schemes, each equally likely.

    Attributes
    ----------
    ratio : tuple of int
        Places of the arms.
    strata_columns, covariate_columns : tuple of str
        What schemes are stratified by, and balanced on.
    stratum_of : mapping of id to str
    weights : tuple of str
        Decimal weight of each covariate in the score, times 1/variance (l2) or 1/SD (l1).
    metric : str
        ``l2`` or ``l1``.
    cutoff : str
        ``share 0.1`` or ``value 0.05``.
    candidates : int
        Most schemes looked at.
    enumerated : bool
        Whether every scheme was a candidate.
    n_candidates : int
        Distinct schemes looked at.
    accepted : (n_accepted, n_sites) int8
        The schemes kept, in the order of their bytes, columns as `sites`.
    scores : (n_accepted,) float64
        Their imbalance.
    """

    scheme: ClassVar[str] = "constrained"

    ratio: tuple[int, ...]
    strata_columns: tuple[str, ...]
    covariate_columns: tuple[str, ...]
    stratum_of: Mapping[str, str]
    weights: tuple[str, ...]
    metric: str
    cutoff: str
    candidates: int
    enumerated: bool
    n_candidates: int
    accepted: Codes
    scores: Array = field(repr=False)

    @property
    def _header(self) -> str:
        """What decides the candidates and their scores; the accepted set follows from it and the sites' cells."""
        return header(
            self.arms,
            self.ratio,
            self.sites,
            self.stratum_of,
            self.covariate_columns,
            self.weights,
            self.metric,
            self.cutoff,
            self.candidates,
        )

    @cached_property
    def text(self) -> str:
        """The header, then how many schemes were accepted and the digest of their list."""
        return f"{self._header}accepted\t{len(self.accepted)}\t{door.sha256_bytes(packed(self.accepted, len(self.arms)))}\n"

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """All sites by their UTF-8 bytes."""
        return tuple(by_bytes(self.rows))

    @property
    def n_assignments(self) -> int:
        """Accepted schemes."""
        return len(self.accepted)

    def probabilities(self) -> Array:
        """Each site's share of the accepted schemes in each arm."""
        return np.stack([(self.accepted == a).mean(axis=0) for a in range(len(self.arms))], axis=1)

    def allocate(self, seed: bytes) -> tuple[Codes, tuple[hashing.Draw, ...]]:
        """One draw among the accepted schemes."""
        d = hashing.draw(seed, self.digest, _LABEL, len(self.accepted))
        return self.accepted[d.value].copy(), (d,)

    def sample(self, n: int, *, seed: int) -> Codes:
        """`n` draws from the accepted schemes, with replacement, (n, n_sites)."""
        check_n(n, seed)
        return self.accepted[hashing.integers(f"trialkit-sample-1\n{self.digest}\n{int(seed)}", len(self.accepted), (n,))]

    def assignments(self, limit: int = 100_000) -> Codes:
        """Every accepted scheme, each equally likely; refused above `limit`."""
        refuse_above(limit, self.n_assignments)
        return self.accepted.copy()

    def covariance(self) -> Array:
        """Exactly, from the accepted schemes."""
        z = (self.accepted == 1).astype(np.float64)
        z -= z.mean(axis=0)
        return np.asarray(z.T @ z / len(z))

    def validity(self) -> Validity:
        """Shares of the accepted schemes that put two sites in the same arm, and the pairs to look at."""
        return validity(self.accepted, self.sites, len(self.arms))

    # --- files and words ---

    @property
    def group_name(self) -> str | None:
        """``stratum``, when there are strata."""
        return "stratum" if self.strata_columns else None

    def groups(self) -> dict[str, str | None]:
        """Each site's stratum."""
        return {s: self.stratum_of.get(s) for s in self.rows}

    def detail(self) -> dict[str, Any]:
        """Settings, and the accepted schemes as base64 of their packed bits (two arms) or bytes."""
        return {
            "ratio": list(self.ratio),
            "strata_columns": list(self.strata_columns),
            "covariate_columns": list(self.covariate_columns),
            "strata": [[s, self.stratum_of[s]] for s in self.sites],
            "weights": list(self.weights),
            "metric": self.metric,
            "cutoff": self.cutoff,
            "candidates": self.candidates,
            "enumerated": self.enumerated,
            "n_candidates": self.n_candidates,
            "n_accepted": len(self.accepted),
            "accepted": base64.b64encode(packed(self.accepted, len(self.arms))).decode("ascii"),
        }

    @classmethod
    def from_detail(cls, record: Mapping[str, Any], common: Mapping[str, Any]) -> Self:
        """The plan out of its file's entries."""
        sites = tuple(by_bytes(common["rows"]))
        try:
            data = base64.b64decode(record["accepted"], validate=True)
        except binascii.Error:
            raise VerificationError("the list of accepted schemes is damaged. Take the original file.") from None
        accepted = unpacked(data, int(record["n_accepted"]), len(sites), len(common["arms"]))
        settings: dict[str, Any] = {
            "ratio": tuple(int(r) for r in record["ratio"]),
            "strata_columns": tuple(str(c) for c in record["strata_columns"]),
            "covariate_columns": tuple(str(c) for c in record["covariate_columns"]),
            "stratum_of": {str(s): str(v) for s, v in record["strata"]},
            "weights": tuple(str(w) for w in record["weights"]),
            "metric": str(record["metric"]),
            "cutoff": str(record["cutoff"]),
            "candidates": int(record["candidates"]),
            "enumerated": bool(record["enumerated"]),
            "n_candidates": int(record["n_candidates"]),
        }
        coded = Coded.of(common["record"], sites, settings["covariate_columns"], settings["weights"], settings["metric"])
        return cls(**settings, accepted=accepted, scores=coded.scores(accepted, len(common["arms"])), **common)

    def recheck(self) -> list[tuple[str, str]]:
        """List, score and cut again from the recorded cells: the accepted schemes must come out one by one."""
        check_rows(self.rows, self.record)
        check_strata(self.stratum_of, self.record.frame(self.rows), self.strata_columns, self.rows)
        coded = Coded.of(self.record, self.sites, self.covariate_columns, self.weights, self.metric)
        found = choose(self._header, coded, self.arms, self.ratio, self.sites, self.stratum_of, self.cutoff, self.candidates)
        if found.accepted.shape != self.accepted.shape or not np.array_equal(found.accepted, self.accepted):
            raise VerificationError(
                f"the accepted schemes do not come out again: {len(found.accepted):,} schemes pass the cut-off on the certified sites, "
                f"the plan lists {len(self.accepted):,} or others."
            )
        if (found.enumerated, found.looked_at) != (self.enumerated, self.n_candidates):
            raise VerificationError("the plan's count of candidate schemes does not come out again.")
        return [("schemes", f"{found.looked_at:,} candidates scored again, the {len(self.accepted):,} accepted ones come out one by one")]

    def methods_text(self) -> str:
        """A paragraph for a protocol or a paper, from the plan itself."""
        kind, value = self.cutoff.split(" ")
        kept = f"the {float(value):.3g} share with the best balance" if kind == "share" else f"those with an imbalance of at most {value}"
        looked = (
            f"all {self.n_candidates:,} possible schemes"
            if self.enumerated
            else f"{self.n_candidates:,} distinct schemes from a fixed hash stream"
        )
        strata = f", stratified by {methods.listed(list(self.strata_columns))}," if self.strata_columns else ""
        return (
            f"Covariate-constrained randomisation was used: of {looked} for {methods.number(len(self.sites), 'site')}{strata} in the ratio "
            f"{':'.join(map(str, self.ratio))} to {methods.listed(list(self.arms))}, {kept} on "
            f"{methods.listed(list(self.covariate_columns))} "
            f"({self.metric} of Raab and Butcher) were accepted, {len(self.accepted):,} in all, and one of these was drawn, "
            f"each with equal probability. "
            f"{methods.draw_sentences(self)} {methods.closing()}"
        )


# --- candidates, scores, cut-off ---------------------------------------------------------------------------------


def header(
    arms: Sequence[str],
    ratio: Sequence[int],
    sites: Sequence[str],
    stratum_of: Mapping[str, str],
    covariates: Sequence[str],
    weights: Sequence[str],
    metric: str,
    cutoff: str,
    candidates: int,
) -> str:
    """The plan text but for its last line."""
    lines = [
        "trialkit-plan-constrained-1",
        "\t".join(["arms", *arms]),
        "\t".join(["ratio", *map(str, ratio)]),
        f"balance\t{metric}\t{cutoff}\t{candidates}",
        *(f"covariate\t{c}\t{w}" for c, w in zip(covariates, weights, strict=True)),
        *("\t".join(["cell", *cell]) for cell in cells_of(sites, stratum_of)),
    ]
    return "\n".join(lines) + "\n"


def cells_of(sites: Sequence[str], stratum_of: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """The strata's sites by their UTF-8 bytes, strata by their first site."""
    names = sorted({stratum_of[s] for s in sites})
    return tuple(sorted((tuple(by_bytes([s for s in sites if stratum_of[s] == n])) for n in names), key=lambda c: c[0].encode("utf-8")))


@dataclass(frozen=True)
class Coded:
    """Covariates as exact integers, and the weight of each in the score.

    Attributes
    ----------
    values : (n_sites, p) float64
        Whole numbers (decimals scaled up), so that totals are exact.
    factors : tuple of (int, float)
        For each column: which covariate, and weight / variance (l2) or weight / SD (l1), in the scaled unit.
    metric : str
    """

    values: Array
    factors: tuple[tuple[int, float], ...]
    metric: str

    @classmethod
    def of(cls, record: SiteRecord, sites: Sequence[str], covariates: Sequence[str], weights: Sequence[str], metric: str) -> Coded:
        """Read the covariates: a number as it is, a category as one 0/1 column a level but the first."""
        names = [name for name, _ in record.columns]
        columns: list[list[int]] = []
        factors: list[tuple[int, float]] = []
        for k, (name, weight) in enumerate(zip(covariates, weights, strict=True)):
            place = names.index(name)
            cells = [record.cells[s][place] for s in sites]
            for column in _integers(name, cells, sites, numeric=record.columns[place][1] == "number"):
                n = len(column)
                mean = Fraction(sum(column), n)
                variance = sum((Fraction(v) - mean) ** 2 for v in column) / max(n - 1, 1)
                if variance == 0:
                    continue
                scale = 1 / variance
                factors.append(
                    (k, float(Fraction(weight) * scale) if metric == "l2" else float(Fraction(weight)) * math.sqrt(float(scale)))
                )
                columns.append(column)
        if not columns:
            raise InputError(
                "no covariate varies between the sites, so there is nothing to balance. Name one that does, or use stratified."
            )
        if max(sum(abs(v) for v in c) for c in columns) * len(sites) >= 2**53:
            raise InputError("a covariate has too many digits for exact balance scores. Round it (budgets in thousands, say).")
        return cls(np.array(columns, dtype=np.float64).T, tuple(factors), metric)

    def scores(self, codes: Codes, n_arms: int) -> Array:
        """Imbalance of each scheme, (n_schemes,): weighted squared or absolute differences, summed over covariates and pairs of arms."""
        totals, counts = [], []
        for arm in range(n_arms):
            member = (codes == arm).astype(np.float64)
            totals.append(member @ self.values)  # exact: whole numbers below 2^53, in any order of addition
            counts.append(member.sum(axis=1)[:, None])
        out = np.zeros(len(codes))
        for a, b in combinations(range(n_arms), 2):
            difference = (totals[b] * counts[a] - totals[a] * counts[b]) / (counts[a] * counts[b])
            for k, (_, factor) in enumerate(self.factors):
                column = difference[:, k]
                out = out + (column * column * factor if self.metric == "l2" else np.abs(column) * factor)
        return out


def _integers(name: str, cells: Sequence[str], sites: Sequence[str], *, numeric: bool) -> list[list[int]]:
    for s, cell in zip(sites, cells, strict=True):
        if not cell:
            raise InputError(
                f"site {s} has no value in {name!r}, so its balance cannot be scored. Fill it in, or make missing a level of its own."
            )
    if numeric:
        fractions = [Fraction(cell) for cell in cells]
        scale = math.lcm(*(f.denominator for f in fractions))
        whole = [int(f * scale) for f in fractions]
        shift = min(whole)
        shared = math.gcd(*(v - shift for v in whole)) or 1
        return [[(v - shift) // shared for v in whole]]
    levels = sorted(set(cells), key=lambda t: t.encode("utf-8"))
    return [[int(cell == level) for cell in cells] for level in levels[1:]]


@dataclass(frozen=True)
class Chosen:
    """What the cut-off kept."""

    accepted: Codes
    scores: Array
    looked_at: int
    enumerated: bool


def choose(
    head: str,
    coded: Coded,
    arms: Sequence[str],
    ratio: Sequence[int],
    sites: Sequence[str],
    stratum_of: Mapping[str, str],
    cutoff: str,
    candidates: int,
) -> Chosen:
    """List or sample the schemes, score them, keep the balanced ones with all ties at the cut-off."""
    frame = _Schemes(arms, ratio, sites, stratum_of)
    schemes, enumerated = frame.candidates(head, candidates)
    scores = coded.scores(schemes, len(arms))
    kind, value = cutoff.split(" ")
    if kind == "share":
        keep = max(1, math.floor(Fraction(value) * len(scores)))
        limit = np.partition(scores, keep - 1)[keep - 1]
    else:
        limit = float(value)
    inside = scores <= limit
    return Chosen(schemes[inside], scores[inside], len(schemes), enumerated)


class _Schemes:
    """The unconstrained design: sites by the ratio within strata, what is left over spread by the ratio across them."""

    def __init__(self, arms: Sequence[str], ratio: Sequence[int], sites: Sequence[str], stratum_of: Mapping[str, str]) -> None:
        record = SiteRecord(id="site", columns=(), cells=dict.fromkeys(sites, ()))
        self.design = Stratified(
            id="site",
            rows=tuple(sites),
            record=record,
            arms=tuple(arms),
            ratio=tuple(ratio),
            misfits="wglobal",
            cells=cells_of(sites, stratum_of),
            stratum_of=dict(stratum_of),
        )

    def candidates(self, head: str, most: int) -> tuple[Codes, bool]:
        """Distinct schemes in the order of their bytes: all of them when there are at most `most` equally likely ones."""
        if self.design.n_assignments <= most and self.design.equally_likely:
            return _distinct(self.design.assignments(most)), True
        drawn = self.design._sample(most, f"trialkit-schemes-1\n{head}")
        return _distinct(drawn), False


def _distinct(codes: Codes) -> Codes:
    """Rows without repeats, in the order of their bytes."""
    rows = np.ascontiguousarray(codes)
    view = rows.view(np.dtype((np.void, rows.shape[1]))).ravel()
    return np.asarray(rows[np.unique(view, return_index=True)[1]])


def packed(codes: Codes, n_arms: int) -> bytes:
    """Schemes as bytes: a bit a site for two arms (each row padded to whole bytes), else a byte a site."""
    return (np.packbits(codes.astype(np.uint8), axis=1) if n_arms == 2 else codes.astype(np.uint8)).tobytes()


def unpacked(data: bytes, n: int, n_sites: int, n_arms: int) -> Codes:
    """Schemes out of their bytes."""
    width = (n_sites + 7) // 8 if n_arms == 2 else n_sites
    if len(data) != n * width or n < 1:
        raise VerificationError("the list of accepted schemes has not the length it should have. Take the original file.")
    rows = np.frombuffer(data, dtype=np.uint8).reshape(n, width)
    codes = (np.unpackbits(rows, axis=1)[:, :n_sites] if n_arms == 2 else rows).astype(np.int8)
    if codes.size and codes.max() >= n_arms:
        raise VerificationError("the list of accepted schemes names an arm that is not there. Take the original file.")
    return codes


def validity(codes: Codes, sites: Sequence[str], n_arms: int) -> Validity:
    """Same-arm shares of every two sites over a set of schemes, and the flagged ones."""
    n, m = codes.shape[1], len(codes)
    together = np.zeros((n, n))
    for arm in range(n_arms):
        member = (codes == arm).astype(np.float32)  # counts below 2^24 are exact
        together += member.T @ member
    together /= m
    sizes = np.stack([(codes == a).sum(axis=1) for a in range(n_arms)], axis=1)
    expected = float((sizes * (sizes - 1)).sum(axis=1).mean() / max(n * (n - 1), 1))
    i, j = np.triu_indices(n, 1)
    share = together[i, j]
    flags = np.select([share == 1, share == 0, share >= 0.75, share <= 0.25], ["always", "never", "often", "seldom"], default="")
    hit = flags != ""
    frame = pd.DataFrame(
        {
            "site": pd.Series([sites[k] for k in i[hit].tolist()], dtype="str"),
            "other": pd.Series([sites[k] for k in j[hit].tolist()], dtype="str"),
            "share": share[hit],
            "flag": pd.Series(flags[hit].tolist(), dtype="str"),
        }
    )
    return Validity(together=together, sites=tuple(sites), frame=frame, expected=expected)


def constrained(
    sites: pd.DataFrame,
    *,
    id: str,
    covariates: Sequence[str] | Mapping[str, int | float | str],
    strata: Sequence[str] = (),
    metric: str = "l2",
    cutoff: float = 0.1,
    cutoff_value: float | None = None,
    candidates: int = 50_000,
    arms: Sequence[str] = ARMS,
    ratio: Sequence[int] | None = None,
    source: str | os.PathLike[str] | None = None,
    seed_rule: Mapping[str, Any] | str | None = None,
) -> Constrained:
    """Covariate-constrained randomisation: one of the best-balanced schemes, each equally likely.

    Parameters
    ----------
    sites : DataFrame
        One row a site; no covariate missing.
    id : str
        Column of the sites' ids.
    covariates : sequence of str, or mapping of str to weight
        Columns to balance; a category counts as its levels. Weights multiply the score (1 by default).
    strata : sequence of str
        Columns within whose combinations every scheme keeps the ratio (as far as the numbers allow).
    metric : {"l2", "l1"}
        Sum of weight / variance times the squared difference of arm means, or of weight / SD times the absolute one.
    cutoff : float
        Share of the candidates to accept, the best-balanced ones with all ties at the limit; default 0.1.
    cutoff_value : float, optional
        Accept up to this score instead.
    candidates : int
        List every scheme when there are at most so many, else sample so many (repeats are dropped); default 50,000.
    arms, ratio, source, seed_rule
        As for `stratified`.

    Returns
    -------
    Constrained
        ``plan.validity()`` shows which sites the constraint ties together.

    Raises
    ------
    InputError
        Fewer than 100 schemes accepted (too few for a randomisation test, and a cover for choosing), or a covariate
        that is missing, constant or unknown.
    """
    if metric not in METRICS:
        raise InputError(door.unknown_word(str(metric), METRICS, what="metric"))
    names = check_arms(arms)
    places = check_ratio((1,) * len(names) if ratio is None else ratio, names)
    weighted = (
        dict(covariates)
        if isinstance(covariates, Mapping)
        else dict.fromkeys([covariates] if isinstance(covariates, str) else covariates, 1)
    )
    if not weighted:
        raise InputError("no covariates were named, so there is nothing to balance. Use stratified, or name some.")
    weights = tuple(_weight(name, w) for name, w in weighted.items())
    if isinstance(candidates, bool) or candidates < LEAST_SCHEMES:
        raise InputError(f"candidates={candidates}: at least {LEAST_SCHEMES} schemes have to be looked at.")
    columns = [strata] if isinstance(strata, str) else list(strata)
    frame = door.normalise(sites, text=(id,))
    record = SiteRecord.from_frame(frame, id=id, columns=[*columns, *weighted], source=source)
    rows = door.site_ids(frame, id, where="the sites table")
    stratum = strata_of(frame, columns, rows, where="the sites table")
    ids = tuple(by_bytes(rows))
    cut = _cut(cutoff, cutoff_value)
    head = header(names, places, ids, stratum, tuple(weighted), weights, metric, cut, candidates)
    coded = Coded.of(record, ids, tuple(weighted), weights, metric)
    found = choose(head, coded, names, places, ids, stratum, cut, candidates)
    if len(found.accepted) < LEAST_SCHEMES:
        raise InputError(
            f"only {len(found.accepted)} of {found.looked_at:,} schemes pass the cut-off ({cut}), and at least "
            f"{LEAST_SCHEMES} are needed: with fewer, "
            "the test has no power and the choice looks like one. Raise cutoff, or balance on less."
        )
    plan = Constrained(
        id=id,
        rows=tuple(rows),
        record=record,
        arms=names,
        seed_rule=seed_rule,
        ratio=places,
        strata_columns=tuple(columns),
        covariate_columns=tuple(weighted),
        stratum_of=stratum,
        weights=weights,
        metric=metric,
        cutoff=cut,
        candidates=int(candidates),
        enumerated=found.enumerated,
        n_candidates=found.looked_at,
        accepted=found.accepted,
        scores=found.scores,
    )
    if source is not None:
        check_source(record, source)
    return plan


def _weight(name: str, weight: Any) -> str:
    try:
        value = Fraction(str(weight))
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0 or isinstance(weight, bool):
        raise InputError(f"the weight of {name!r} is {weight!r}; give a number above 0.")
    return str(weight)


def _cut(share: float, value: float | None) -> str:
    if value is not None:
        if isinstance(value, bool) or not math.isfinite(value) or value < 0:
            raise InputError(f"cutoff_value={value!r} is not a score; give a number from 0 up.")
        return f"value {float(value)!r}"
    if isinstance(share, bool) or not 0 < share <= 1:
        raise InputError(f"cutoff={share!r} is not a share; give a number above 0 and at most 1, such as 0.1.")
    return f"share {float(share)!r}"
