"""Minimisation for sites that enter one by one (Pocock and Simon, Biometrics 1975), with a biased coin and an append-only log.

Each new site is tried in every arm; the arm that leaves the marginal totals of its factor levels most alike is
preferred and gets it with a stated probability below one. Coins and ties are draws of ``trialkit-draw-1``, labelled by
the site, so each entry can be checked by hand, and the log is written and synced before an arm is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trialkit import door
from trialkit.allocation import methods, seeds
from trialkit.allocation.allocated import Allocation
from trialkit.allocation.biased_coin import MEASURES, Entry, Rule
from trialkit.allocation.certificate import Certificate
from trialkit.allocation.log import Log, Session
from trialkit.allocation.minimised import Minimised
from trialkit.allocation.plans import ARMS, Codes, check_arms, check_n
from trialkit.allocation.seeds import Seed
from trialkit.allocation.sites import SiteRecord, check_id
from trialkit.allocation.stratified import check_ratio
from trialkit.door import InputError, Refused, VerificationError
from trialkit.results import Result


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
    id : str
        Name of the id column in tables and in the certificate.
    seed_rule : mapping or str, optional
        What was said in advance about the seed, as for `within_pairs`.

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
        id: str = "site",
        seed_rule: Mapping[str, Any] | str | None = None,
    ) -> None:
        names = check_arms(arms)
        places = check_ratio((1,) * len(names) if ratio is None else ratio, names)
        if measure not in MEASURES:
            raise InputError(door.unknown_word(str(measure), MEASURES, what="measure of imbalance"))
        weights = _factors(factors)
        if id in weights:
            raise InputError(f"{id!r} is named both as the id and as a factor. Rename one.")
        self.id = id
        self.rule = Rule(arms=names, ratio=places, measure=measure, probability=_probability(probability, places), weights=weights)
        self.levels = _levels(levels, weights)
        self.seed = seeds.checked(seed, seed_source)
        seeds.keep_rule(self.seed, seed_rule)
        self.seed_rule = seed_rule
        self.entries: tuple[Entry, ...] = ()
        self._log = None if log is None else Log(log)
        if self._log is not None and Path(self._log.path).exists():
            with self._log.opened() as held:
                self._take_up(held)

    # --- what was declared ---

    @property
    def text(self) -> str:
        """The canonical plan text: everything that decides the arms but seed and entries."""
        return self.rule.text

    @property
    def digest(self) -> str:
        """P: SHA-256 of the plan text; publish it before the first site enters."""
        return self.rule.digest

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
        """One row a site in the order of entry: the id column, the factors, ``arm``, ``preferred``, ``probability``."""
        columns: dict[str, Any] = {self.id: pd.Series([e.site for e in self.entries], dtype="str")}
        for k, name in enumerate(self.rule.weights):
            columns[name] = pd.Series([e.levels[k] for e in self.entries], dtype="str")
        columns["arm"] = pd.Series([e.arm for e in self.entries], dtype="str")
        columns["preferred"] = pd.Series([e.preferred for e in self.entries], dtype="str")
        columns["probability"] = pd.Series([e.probability for e in self.entries], dtype="float64")
        return pd.DataFrame(columns)

    @property
    def title(self) -> str:
        """A line above the table."""
        return f"Minimisation of {len(self.entries)} sites on {methods.listed(list(self.rule.weights))}"

    def balance(self) -> pd.DataFrame:
        """Sites an arm at each level: ``factor``, ``level``, then one column an arm."""
        frame = self.frame
        rows = []
        for name in self.rule.weights:
            for level in sorted(set(frame[name])):
                inside = frame.loc[frame[name] == level, "arm"]
                rows.append({"factor": name, "level": level, **{arm: int((inside == arm).sum()) for arm in self.rule.arms}})
        return pd.DataFrame(rows, columns=["factor", "level", *self.rule.arms])

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
            if key not in self.rule.weights:
                raise InputError(door.unknown_word(str(key), list(self.rule.weights), what="factor"))
        values = []
        for factor in self.rule.weights:
            text = door.cell_text(levels.get(factor))
            if not text.strip():
                raise InputError(f"site {name} has no level of {factor!r}, so its balance cannot be weighed. Give every factor a level.")
            known = self.levels.get(factor)
            if known is not None and text not in known:
                raise InputError(f"site {name}: {door.unknown_word(text, known, what=f'level of {factor}')}")
            values.append(text)
        return name, tuple(values)

    def _decide(self, site: str, levels: tuple[str, ...]) -> Entry:
        return self.rule.decide(self.seed.key, [(e.levels, e.code) for e in self.entries], site, levels)

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
        return self.rule.sample(f"trialkit-sample-1\n{self.digest}\n{int(seed)}", [e.levels for e in self.entries], n)

    # --- as any other scheme ---

    @property
    def plan(self) -> Minimised:
        """What could have happened to the sites that have entered, in their order, as a plan like any other."""
        record = SiteRecord(
            id=self.id,
            columns=tuple((name, "text") for name in self.rule.weights),
            cells={e.site: e.levels for e in sorted(self.entries, key=lambda e: e.site.encode("utf-8"))},
        )
        return Minimised(id=self.id, rows=self.sites, record=record, arms=self.rule.arms, seed_rule=self.seed_rule, rule=self.rule)

    @property
    def commitment(self) -> str:
        """C: binds, besides P, the arms' names and the rule for the seed; the sites are not known yet."""
        return self.plan.commitment

    @property
    def allocation(self) -> Allocation:
        """The entries so far as an allocation, with its balance.

        Raises
        ------
        InputError
            No site has entered yet.
        """
        if not self.entries:
            raise InputError("no site has entered yet, so there is nothing allocated. Enter one first.")
        plan, entries = self.plan, {e.site: e for e in self.entries}
        return Allocation(
            plan=plan,
            seed=self.seed,
            codes=np.array([entries[s].code for s in plan.sites], dtype=np.int8),
            draws=tuple(d for e in self.entries for d in e.draws),
            warning=seeds.shortage(self.seed, plan.n_assignments),
            log_head=None if self._log is None else self._log.head,
        )

    @property
    def certificate(self) -> Certificate:
        """Everything needed to derive the entries again (`verify`). It holds the seed: save it when the last site has entered."""
        return self.allocation.certificate

    def methods_text(self) -> str:
        """A paragraph for a protocol or a paper."""
        return self.plan.methods_text()


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


def _as_line(entry: Entry) -> dict[str, Any]:
    return {
        "site": entry.site,
        "levels": list(entry.levels),
        "arm": entry.arm,
        "preferred": entry.preferred,
        "draws": [[d.label, d.m, d.counter, d.hmac, d.value] for d in entry.draws],
    }
