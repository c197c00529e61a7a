"""An allocation as an analysis is given it: a certificate, a locked plan or the allocation's table, held against the data.

The randomisation test needs what could have happened, which a certificate and a plan say, and a table of pairs implies; and the data must
be those of the trial that was drawn: every site in the plan, in the arm that it drew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from trialkit import door
from trialkit.allocation import canonical
from trialkit.allocation.allocated import Allocation, Codes
from trialkit.allocation.certificate import CERTIFICATE_SCHEMA, Certificate, sound
from trialkit.allocation.plans import PLAN_SCHEMA, Plan, WithinPairs, in_order
from trialkit.allocation.sites import SiteRecord
from trialkit.allocation.verification import derived
from trialkit.door import InputError


@dataclass(frozen=True)
class Brought:
    """What was given.

    Attributes
    ----------
    where : str
        The file, for messages.
    plan : Plan
        What could have happened.
    arms : mapping of site to arm, or None
        What did; None of a plan, which does not say.
    allocation : Allocation or None
        The whole draw, when a certificate was given.
    notes : tuple of str
    """

    where: str
    plan: Plan
    arms: Mapping[str, str] | None
    allocation: Allocation | None = None
    notes: tuple[str, ...] = ()


def bring(path: str | os.PathLike[str], *, site: str, arms: Sequence[str]) -> Brought:
    """Read an allocation in whichever form it is kept.

    Parameters
    ----------
    path : path
        The certificate (``allocation.json``), the locked plan (``plan.json``), or the allocation's table (CSV, XLSX, Parquet) with the
        columns site, pair and arm.
    site : str
        Name of the site column of a table.
    arms : sequence of two str
        The arms as the analysis knows them, the reference first.

    Raises
    ------
    InputError
        No such file or none of the three; a table without pairs; arms of other names, or more than two.
    VerificationError
        A certificate or plan that was changed after it was written, or arms that its seed does not give.
    """
    if Path(path).suffix.lower() == ".json":
        found = _from_json(path)
    else:
        found = _from_table(path, site=site, arms=arms)
    if sorted(found.plan.arms) != sorted(arms):
        raise InputError(
            f"{path}: its arms are {door.few(found.plan.arms)}, the design's {door.few(list(arms))}. "
            "A randomisation test compares the design's two arms, under the names of the allocation."
        )
    return found


def _from_json(path: str | os.PathLike[str]) -> Brought:
    record, _ = canonical.read(Path(path))
    kind = record.get("schema")
    if kind == PLAN_SCHEMA:
        note = "The plan alone was given, so the arms in the data could be held against what it can give, and not against what was drawn."
        return Brought(str(path), Plan.load(path), None, notes=(note,))
    if kind != CERTIFICATE_SCHEMA:
        raise InputError(
            f"{path} is neither a plan nor an allocation's certificate (its schema is {door.printable(kind)!r}). Give plan.json, or the "
            "file that `trialkit allocate draw` wrote."
        )
    certificate = sound(Certificate.load(path))
    plan, seed = derived(certificate)
    told = certificate.record
    allocation = replace(plan.drawn(seed), attempts=told.get("attempts"), log_head=told.get("log_head"), drawn_at=str(told.get("drawn_at")))
    return Brought(str(path), plan, allocation.arms, allocation)


def _from_table(path: str | os.PathLike[str], *, site: str, arms: Sequence[str]) -> Brought:
    frame = door.read_table(path, text=[site, "pair", "arm"])
    door.require_columns(frame, [site, "arm"], where=str(path), why="of the allocation's table")
    if "pair" not in frame.columns:
        raise InputError(
            f"{path} says which arm each site drew and not what else it could have drawn, and has no column 'pair' that would imply it. "
            "Give the plan (plan.json) or the certificate (allocation.json)."
        )
    sites = door.site_ids(frame, site, where=str(path))
    drawn: dict[str, str] = {}
    blocks: dict[str, list[str]] = {}
    for name, pair, arm in zip(sites, frame["pair"].tolist(), frame["arm"].tolist(), strict=True):
        label, text = door.cell_text(arm).strip(), door.cell_text(pair).strip()
        if not label:
            continue  # set aside: not randomised
        drawn[name] = label
        blocks.setdefault(text or f"\t{name}", []).append(name)
    large = next((label for label, members in blocks.items() if len(members) > 3), None)
    if large is not None:
        raise InputError(f"{path}: pair {large!r} has {len(blocks[large])} sites. A table of strata needs its plan: give plan.json.")
    together = next((label for label, members in blocks.items() if len(members) > 1 and len({drawn[m] for m in members}) == 1), None)
    if together is not None:
        raise InputError(
            f"{path}: the sites of pair {together!r} ({door.few(blocks[together])}) are all in {drawn[blocks[together][0]]}, which a draw "
            "within pairs cannot give. Correct the table, or give the plan."
        )
    labels = {m: None if label.startswith("\t") else label for label, members in blocks.items() for m in members}
    strange = sorted(set(drawn.values()) - set(arms))
    if strange:
        raise InputError(f"{path}: the arm {strange[0]!r} is not one of the design's ({door.few(list(arms))}).")
    plan = WithinPairs(
        id=site,
        rows=tuple(sites),
        record=SiteRecord.from_frame(pd.DataFrame({site: sites}), id=site),
        arms=(str(arms[0]), str(arms[1])),
        seed_rule=None,
        blocks=in_order(list(blocks.values())),
        labels=labels,
    )
    note = "The scheme is taken from the table's pairs: a fair draw in each, and for a site without a pair by itself."
    return Brought(str(path), plan, drawn, notes=(note,))


def hold_against(found: Brought, arms: Mapping[str, str]) -> None:
    """Check that the sites of the data are those of the allocation, in the arms they drew.

    Raises
    ------
    InputError
        A site is not in it, was set aside, or has another arm; for a plan alone, a pair or stratum is divided as it cannot give.
    """
    known = set(found.plan.sites)
    for site, arm in arms.items():
        if site not in known:
            aside = site in set(found.plan.rows)
            near = None if aside else door.nearest_word(site, found.plan.sites)
            hint = f" Did you mean {near!r}?" if near else ""
            raise InputError(
                f"site {door.printable(site)!r} of the data {'was set aside and not randomised' if aside else 'is not in the allocation'} "
                f"({found.where}).{hint} Give the allocation of this trial, or correct the site."
            )
        drew = None if found.arms is None else found.arms.get(site)
        if found.arms is not None and drew != arm:
            raise InputError(
                f"site {door.printable(site)!r} drew {drew} ({found.where}) and is {arm} in the data. The analysis is by the arm that was "
                "drawn, whatever happened later: correct the data."
            )
    if found.arms is None:
        _could_be(found, arms)


def _could_be(found: Brought, arms: Mapping[str, str]) -> None:
    """Whether each whole group is divided as some draw of the plan divides it."""
    groups = found.plan.groups()
    members: dict[str, list[int]] = {}
    for k, site in enumerate(found.plan.sites):
        members.setdefault(groups.get(site) or f"\t{site}", []).append(k)
    drawn = np.asarray(found.plan.sample(2000, seed=0)) == 1
    for group, places in members.items():
        sites = [found.plan.sites[k] for k in places]
        if any(s not in arms for s in sites):
            continue
        count = sum(arms[s] == found.plan.arms[1] for s in sites)
        possible = set(drawn[:, places].sum(axis=1).tolist())
        if count not in possible:
            raise InputError(
                f"{found.where}: the plan never gives {count} of the {len(sites)} sites {door.few(sites)} "
                f"({door.printable(group)}) to {found.plan.arms[1]}, as the data have it. Correct the arms, or give the plan of this trial."
            )


class Oriented:
    """A plan whose code 1 is the analysis's intervention, whichever arm the plan names first."""

    def __init__(self, plan: Plan, intervention: str) -> None:
        self._plan, self._turned = plan, plan.arms[1] != intervention

    @property
    def sites(self) -> tuple[str, ...]:
        """The randomised sites."""
        return self._plan.sites

    @property
    def n_assignments(self) -> int:
        """How many different allocations there are."""
        return self._plan.n_assignments

    def assignments(self, limit: int = 100_000) -> Codes:
        """Every allocation, 1 = intervention."""
        return self._facing(self._plan.assignments(limit))

    def sample(self, n: int, *, seed: int) -> Codes:
        """`n` draws, 1 = intervention."""
        return self._facing(self._plan.sample(n, seed=seed))

    def _facing(self, codes: Codes) -> Codes:
        return np.where(codes < 0, codes, np.int8(1) - codes) if self._turned else codes
