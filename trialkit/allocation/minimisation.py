"""Minimisation for sites that enter one by one (Pocock and Simon, Biometrics 1975), with a biased coin and an append-only log.

Each new site is tried in every arm; the arm that leaves the marginal totals of its factor levels most alike is
preferred and gets it with a stated probability below one. Coins and ties are draws of ``trialkit-draw-1``, labelled by
the site, so each entry can be checked by hand, and the log is written and synced before an arm is told.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trialkit import door
from trialkit._kernels import draws as hashing
from trialkit.allocation import methods, seeds
from trialkit.allocation.log import Log, Session
from trialkit.allocation.plans import ARMS, Codes, check_arms, check_n
from trialkit.allocation.seeds import Seed
from trialkit.allocation.sites import check_id
from trialkit.allocation.stratified import check_ratio
from trialkit.door import InputError, Refused, VerificationError
from trialkit.results import Result

MEASURES = ("range", "sd", "variance")


@dataclass(frozen=True, slots=True)
class Entry:
    """One site's entry.

    Attributes
    ----------
    site : str
    levels : tuple of str
        Of the factors, in their order.
    code : int
        Arm code.
    arm : str
    imbalance : tuple of float
        Weighted imbalance if the site went to each arm.
    preferred : str
        The arm the coin was biased towards.
    probability : float
        With which `arm` was given, ties included.
    draws : tuple of Draw
    """

    site: str
    levels: tuple[str, ...]
    code: int
    arm: str
    imbalance: tuple[float, ...]
    preferred: str
    probability: float
    draws: tuple[hashing.Draw, ...]


class Minimisation(Result):
    """Sequential allocation by minimisation.

    Parameters
    ----------
    factors : sequence of str, or mapping of str to weight
        Prognostic factors, each a category of the site.
    seed, seed_source
        As for `Plan.draw`; the same seed serves the whole trial and must be kept secret until its end.
    arms, ratio
        Labels, the reference first, and places; equal by default.
    measure : {"range", "sd", "variance"}
        How a factor's imbalance over the arms is measured (counts divided by the ratio).
    probability : number
        Of the preferred arm, above its fair share and at most 1; the default 0.8 is exact (4/5). With an unequal ratio it
        belongs to the arm with the fewest places, and the others follow Han, Enas and McEntegart (2009), so that the ratio
        is kept.
    levels : mapping of factor to levels, optional
        The levels a factor may have, so that a slip of the pen is refused.
    log : path, optional
        Append-only log; an existing one of the same plan is taken up, every entry derived again.

    Raises
    ------
    InputError
        Settings that contradict themselves.
    VerificationError
        The log does not follow from its seed and entries; the message names the first site that differs.

    Examples
    --------
    >>> trial = Minimisation(["county", "size"], seed="a3f1c2d4e5b60718293a4b5c6d7e8f90", seed_source="dice, two people")
    >>> first = trial.enter("S01", {"county": "yes", "size": "small"})
    >>> second = trial.enter("S02", {"county": "yes", "size": "small"})
    >>> first.probability, round(second.imbalance[first.code], 3)
    (0.5, 4.0)
    """

    def __init__(
        self,
        factors: Sequence[str] | Mapping[str, int | float | str],
        *,
        seed: str | int | Seed | None = None,
        seed_source: str | None = None,
        arms: Sequence[str] = ARMS,
        ratio: Sequence[int] | None = None,
        measure: str = "range",
        probability: float | str | Fraction = "0.8",
        levels: Mapping[str, Sequence[str]] | None = None,
        log: str | os.PathLike[str] | None = None,
    ) -> None:
        self.arms = check_arms(arms)
        self.ratio = check_ratio((1,) * len(self.arms) if ratio is None else ratio, self.arms)
        if measure not in MEASURES:
            raise InputError(door.unknown_word(str(measure), MEASURES, what="measure of imbalance"))
        self.measure = measure
        self.weights = _factors(factors)
        self.probability = _probability(probability, self.ratio)
        self.levels = _levels(levels, self.weights)
        self.seed = seeds.checked(seed, seed_source)
        self.entries: tuple[Entry, ...] = ()
        self._log = None if log is None else Log(log)
        if self._log is not None and Path(self._log.path).exists():
            with self._log.opened() as held:
                self._take_up(held)

    # --- what was declared ---

    @property
    def text(self) -> str:
        """The canonical plan text: everything that decides the arms but seed and entries."""
        lines = [
            "trialkit-plan-minimisation-1",
            "\t".join(["arms", *self.arms]),
            "\t".join(["ratio", *map(str, self.ratio)]),
            f"measure\t{self.measure}",
            f"probability\t{self.probability}",
            *(f"factor\t{name}\t{weight}" for name, weight in self.weights.items()),
        ]
        return "\n".join(lines) + "\n"

    @property
    def digest(self) -> str:
        """P: SHA-256 of the plan text."""
        return door.sha256_bytes(self.text.encode("utf-8"))

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites in the order of entry: the columns of `sample`."""
        return tuple(e.site for e in self.entries)

    @property
    def codes(self) -> Codes:
        """Arm codes of `sites`."""
        return np.array([e.code for e in self.entries], dtype=np.int8)

    @property
    def frame(self) -> pd.DataFrame:
        """One row a site in the order of entry: ``site``, the factors, ``arm``, ``preferred``, ``probability``."""
        columns: dict[str, Any] = {"site": pd.Series([e.site for e in self.entries], dtype="str")}
        for k, name in enumerate(self.weights):
            columns[name] = pd.Series([e.levels[k] for e in self.entries], dtype="str")
        columns["arm"] = pd.Series([e.arm for e in self.entries], dtype="str")
        columns["preferred"] = pd.Series([e.preferred for e in self.entries], dtype="str")
        columns["probability"] = pd.Series([e.probability for e in self.entries], dtype="float64")
        return pd.DataFrame(columns)

    @property
    def title(self) -> str:
        """A line above the table."""
        return f"Minimisation of {len(self.entries)} sites on {methods.listed(list(self.weights))}"

    def balance(self) -> pd.DataFrame:
        """Sites an arm at each level: ``factor``, ``level``, then one column an arm."""
        frame = self.frame
        rows = []
        for name in self.weights:
            for level in sorted(set(frame[name])):
                inside = frame.loc[frame[name] == level, "arm"]
                rows.append({"factor": name, "level": level, **{arm: int((inside == arm).sum()) for arm in self.arms}})
        return pd.DataFrame(rows, columns=["factor", "level", *self.arms])

    # --- entering ---

    def enter(self, site: str, levels: Mapping[str, Any]) -> Entry:
        """Allocate one site; with a log, the entry is on the disk before this returns.

        Raises
        ------
        InputError
            A blank id, a factor without a level, or one that is not known.
        Refused
            The site has been entered before.
        """
        name, values = self._checked(site, levels)
        if self._log is None:
            self._refuse_twice(name)
            entry = self._decide(name, values)
        else:
            with self._log.opened() as held:
                self._take_up(held)
                self._refuse_twice(name)
                entry = self._decide(name, values)
                held.append("entered", plan=self.digest, **_as_line(entry))
        self.entries = (*self.entries, entry)
        return entry

    def _refuse_twice(self, site: str) -> None:
        if site in self.sites:
            raise Refused(f"site {door.printable(site)} has been entered before and keeps its arm. A site is allocated once.")

    def _checked(self, site: str, levels: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
        name = door.site_ids(pd.DataFrame({"site": pd.Series([site], dtype=object)}), "site", where="the entry")[0]
        check_id(name, where="the entry")
        if name.endswith("/coin"):
            raise InputError(f"the id {name!r} ends in '/coin', the label of another site's coin. Rename it.")
        for key in levels:
            if key not in self.weights:
                raise InputError(door.unknown_word(str(key), list(self.weights), what="factor"))
        values = []
        for factor in self.weights:
            text = door.cell_text(levels.get(factor))
            if not text.strip():
                raise InputError(f"site {name} has no level of {factor!r}, so its balance cannot be weighed. Give every factor a level.")
            known = self.levels.get(factor)
            if known is not None and text not in known:
                raise InputError(f"site {name}: {door.unknown_word(text, known, what=f'level of {factor}')}")
            values.append(text)
        return name, tuple(values)

    def _decide(self, site: str, levels: tuple[str, ...]) -> Entry:
        scores = imbalances(
            [(e.levels, e.code) for e in self.entries], levels, ratio=self.ratio, weights=list(self.weights.values()), measure=self.measure
        )
        best = min(scores)
        tied = [a for a, g in enumerate(scores) if g - best <= 1e-9 * max(1.0, abs(best))]
        places = [a for a in tied for _ in range(self.ratio[a])]
        drawn: list[hashing.Draw] = []
        preferred = tied[0]
        if len(tied) > 1:
            d = hashing.draw(self.seed.key, self.digest, site, len(places))
            drawn.append(d)
            preferred = places[d.value]
        coin = coins(preferred, self.ratio, self.probability)
        m = math.lcm(*(p.denominator for p in coin))
        d = hashing.draw(self.seed.key, self.digest, f"{site}/coin", m)
        drawn.append(d)
        bounds = np.cumsum([int(p * m) for p in coin]).tolist()
        code = next(a for a, bound in enumerate(bounds) if d.value < bound)
        chance = sum((Fraction(places.count(t), len(places)) * coins(t, self.ratio, self.probability)[code] for t in tied), Fraction(0))
        return Entry(
            site, levels, code, self.arms[code], tuple(float(g) for g in scores), self.arms[preferred], float(chance), tuple(drawn)
        )

    # --- the log ---

    def _mark(self) -> str:
        return door.sha256_bytes(f"trialkit-attempt-1\n{self.digest}\n{self.seed.text}".encode())

    def _take_up(self, held: Session) -> None:
        """Derive the log's entries again; what this object already knows must be their beginning."""
        mine = [line for line in held.lines if line["plan"] == self.digest]
        others = [line for line in held.lines if line["plan"] not in (self.digest, None)]
        if others:
            raise InputError(f"{self._path} is the log of another plan. Give each trial its own log.")
        if not mine:
            held.append("opened", plan=self.digest, text=self.text, seed_mark=self._mark())
            return
        if mine[0]["event"] != "opened" or mine[0].get("seed_mark") != self._mark():
            raise InputError(f"{self._path} was begun with another seed. A trial keeps its seed from the first site to the last.")
        entries = [line for line in mine if line["event"] == "entered"]
        known = self.entries
        self.entries = ()
        for k, line in enumerate(entries):
            made = self._decide(str(line["site"]), tuple(str(v) for v in line["levels"]))
            if _as_line(made) != {key: line[key] for key in _as_line(made)}:
                raise VerificationError(
                    f"site {door.printable(line['site'])}: under this seed and the entries before it the arm is {made.arm}, not as logged."
                )
            if k < len(known) and known[k].site != made.site:
                raise VerificationError(f"site {known[k].site} is not in the log where it was entered: the log has been replaced.")
            self.entries = (*self.entries, made)
        if len(known) > len(entries):
            raise VerificationError(f"site {known[len(entries)].site} is no longer in the log: its end was cut off.")

    @property
    def _path(self) -> Path:
        return self._log.path if self._log is not None else Path()

    # --- what could have happened ---

    def sample(self, n: int, *, seed: int) -> Codes:
        """`n` draws from the randomisation distribution given the order and levels of entry, (n, n_sites) arm codes, columns as `sites`.

        The re-randomisation test (Simon 1979) takes these: minimisation has no list of equally likely allocations.
        """
        check_n(n, seed)
        key = f"trialkit-sample-1\n{self.digest}\n{int(seed)}"
        n_arms = len(self.arms)
        out = np.empty((n, len(self.entries)), dtype=np.int8)
        counts: list[dict[str, np.ndarray[Any, np.dtype[np.float64]]]] = [{} for _ in self.weights]
        ratio = np.array(self.ratio, dtype=np.float64)
        coin = np.array([[float(p) for p in coins(a, self.ratio, self.probability)] for a in range(n_arms)])
        weights = [float(w) for w in self.weights.values()]
        for k, entry in enumerate(self.entries):
            scores = np.zeros((n, n_arms))
            here = [counts[f].setdefault(level, np.zeros((n, n_arms))) for f, level in enumerate(entry.levels)]
            for arm in range(n_arms):
                for f, w in enumerate(weights):
                    tried = here[f].copy()
                    tried[:, arm] += 1
                    scores[:, arm] += w * _spread(tried / ratio, self.measure)
            uniform = hashing.words(f"{key}\n{k}", (n, 2)) / 2.0**64
            best = scores.min(axis=1, keepdims=True)
            share = np.where(scores - best <= 1e-9 * np.maximum(1.0, np.abs(best)), ratio, 0.0)
            share /= share.sum(axis=1, keepdims=True)
            preferred = (uniform[:, :1] >= np.cumsum(share, axis=1)[:, :-1]).sum(axis=1)
            code = (uniform[:, 1:] >= np.cumsum(coin[preferred], axis=1)[:, :-1]).sum(axis=1)
            out[:, k] = code
            for f in range(len(weights)):
                here[f][np.arange(n), code] += 1
        return out

    def methods_text(self) -> str:
        """A paragraph for a protocol or a paper."""
        weights = "" if len(set(self.weights.values())) == 1 else f" (weights {', '.join(map(str, self.weights.values()))})"
        return (
            f"Sites were allocated one by one as they entered, by minimisation (Pocock and Simon) on "
            f"{methods.listed(list(self.weights))}{weights}, "
            f"imbalance being the {self.measure} of the arms' marginal totals, to {methods.listed(list(self.arms))} in the ratio "
            f"{':'.join(map(str, self.ratio))}. The preferred arm was given with probability {float(self.probability):g}, "
            f"ties being broken at random. "
            f"Coins were computed as an HMAC-SHA256 of a seed from outside the study, the plan's digest {self.digest} and "
            f"the site's identifier; "
            f"each entry was written to an append-only log before the arm was told. {methods.closing()}"
        )


def _factors(factors: Sequence[str] | Mapping[str, int | float | str]) -> dict[str, Fraction]:
    pairs: Iterable[tuple[str, Any]] = (
        factors.items() if isinstance(factors, Mapping) else [(f, 1) for f in ([factors] if isinstance(factors, str) else factors)]
    )
    out: dict[str, Fraction] = {}
    for name, weight in pairs:
        try:
            value = Fraction(str(weight))
        except (ValueError, ZeroDivisionError):
            value = Fraction(0)
        if value <= 0 or isinstance(weight, bool):
            raise InputError(f"the weight of {name!r} is {weight!r}; give a number above 0.")
        if str(name) in out or not str(name).strip() or any(c in str(name) for c in "\t\n"):
            raise InputError(f"the factor {name!r} stands twice or is no name. Name each factor once.")
        out[str(name)] = value
    if not out:
        raise InputError("minimisation needs at least one factor. Without factors use stratified or simple.")
    return out


def _levels(levels: Mapping[str, Sequence[str]] | None, weights: Mapping[str, Fraction]) -> dict[str, tuple[str, ...]]:
    for name in levels or {}:
        if name not in weights:
            raise InputError(door.unknown_word(str(name), list(weights), what="factor"))
    return {name: tuple(door.cell_text(v) for v in values) for name, values in (levels or {}).items()}


def _probability(value: float | str | Fraction, ratio: Sequence[int]) -> Fraction:
    try:
        p = value if isinstance(value, Fraction) else Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        p = Fraction(0)
    least = Fraction(min(ratio), sum(ratio))
    if isinstance(value, bool) or not least <= p <= 1:
        raise InputError(f"probability={value!r} must be at least the arm's fair share, {float(least):g}, and at most 1.")
    if p.denominator > 10**9:
        raise InputError(f"probability={value!r} has too many digits; write it as a short decimal or a Fraction, such as '0.8'.")
    return p


def coins(preferred: int, ratio: Sequence[int], p: Fraction) -> tuple[Fraction, ...]:
    """Probability of each arm when one is preferred (Han, Enas and McEntegart, Statistics in Medicine 2009).

    `p` is that of the arm with the fewest places when preferred; arm i gets ``1 - (1 - p) sum_{j != i} r_j / sum_{j != least} r_j``,
    and the rest is shared by the ratio. With equal places every preferred arm gets p.
    """
    least, total = min(ratio), sum(ratio)
    high = 1 - (1 - p) * Fraction(total - ratio[preferred], total - least)
    rest = total - ratio[preferred]
    return tuple(high if a == preferred else (1 - high) * Fraction(r, rest) for a, r in enumerate(ratio))


def imbalances(
    entered: Sequence[tuple[tuple[str, ...], int]],
    levels: Sequence[str],
    *,
    ratio: Sequence[int],
    weights: Sequence[Fraction],
    measure: str,
) -> list[float]:
    """Weighted imbalance over the factors if a site with these levels went to each arm (Pocock and Simon 1975)."""
    out = []
    for arm in range(len(ratio)):
        total = 0.0
        for f, w in enumerate(weights):
            counts = np.zeros((1, len(ratio)))
            for seen, code in entered:
                if seen[f] == levels[f]:
                    counts[0, code] += 1
            counts[0, arm] += 1
            total += float(w) * float(_spread(counts / np.array(ratio, dtype=np.float64), measure)[0])
        out.append(total)
    return out


def _spread(counts: np.ndarray[Any, np.dtype[np.float64]], measure: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Range, standard deviation or variance over the arms, a row of counts at a time."""
    if measure == "range":
        return np.asarray(counts.max(axis=1) - counts.min(axis=1))
    variance = np.asarray(counts.var(axis=1, ddof=1))
    return np.sqrt(variance) if measure == "sd" else variance


def _as_line(entry: Entry) -> dict[str, Any]:
    return {
        "site": entry.site,
        "levels": list(entry.levels),
        "arm": entry.arm,
        "preferred": entry.preferred,
        "draws": [[d.label, d.m, d.counter, d.hmac, d.value] for d in entry.draws],
    }
