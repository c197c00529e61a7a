"""Derive an allocation again from its certificate and the sites, without the solver, and name the first site that differs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pandas as pd

from trialkit import door
from trialkit.allocation import balance as balancing
from trialkit.allocation import canonical, seeds
from trialkit.allocation.amendments import amendment_words
from trialkit.allocation.certificate import Certificate, as_certificate
from trialkit.allocation.log import Log, check_bound, is_attempt
from trialkit.allocation.minimised import Minimised
from trialkit.allocation.plans import Plan
from trialkit.allocation.sites import SiteRecord, read_again
from trialkit.door import InputError, VerificationError
from trialkit.results import Result


@dataclass(frozen=True)
class Verification(Result):
    """What was derived again, and what it is anchored to.

    Attributes
    ----------
    sites : int
        Sites whose arm came out as certified.
    digest : str
        The plan's digest P.
    anchored : bool
        Whether a commitment published before the draw was given and is that of this plan. Without it the
        certificate is consistent with itself and with the sites, which a forger can arrange.
    seed_anchored : bool
        Whether the seed was fixed outside, after the plan: a beacon's pulse or a reveal that the plan named, and the
        commitment C (which binds that naming, as P does not) was given.
    attempts : int or None
        Draws tried on this plan, as the certificate says.
    checks : tuple of (name, what was found)
        Everything that was gone through.
    notes : tuple of str
        Differences without meaning, and what the certificate cannot show.
    """

    sites: int
    digest: str
    anchored: bool
    seed_anchored: bool
    attempts: int | None
    checks: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    @property
    def frame(self) -> pd.DataFrame:
        """One row a check."""
        return pd.DataFrame({"check": [c for c, _ in self.checks], "found": [f for _, f in self.checks]})

    @property
    def title(self) -> str:
        """A line above the table."""
        state = "anchored" if self.anchored else "self-consistent, not anchored"
        return f"Verified: {self.sites} sites come out as certified ({state})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "sites": self.sites,
            "plan_digest": self.digest,
            "anchored": self.anchored,
            "seed_anchored": self.seed_anchored,
            "attempts": self.attempts,
            "checks": [list(check) for check in self.checks],
            "notes": list(self.notes),
        }


def verify(
    certificate: Certificate | Mapping[str, Any] | str | os.PathLike[str],
    sites: pd.DataFrame | str | os.PathLike[str],
    *,
    commitment: str | None = None,
    head: str | None = None,
    log: str | os.PathLike[str] | None = None,
) -> Verification:
    """Derive an allocation again from its certificate and the sites.

    Parameters
    ----------
    certificate : Certificate, mapping or path
        What the draw wrote.
    sites : DataFrame or path
        The sites table that the plan was made of.
    commitment : str, optional
        What was published before the draw: the plan's digest P, or its commitment C.
    head : str, optional
        The log's head as published or kept elsewhere; needs `log`.
    log : path, optional
        The attempts' log of the plan, whose chain is then checked as well.

    Returns
    -------
    Verification
        ``anchored`` says whether a published commitment was matched.

    Raises
    ------
    VerificationError
        Something does not follow; the message names the first site that differs.
    InputError
        A file cannot be read, or a table lacks a column.

    Examples
    --------
    >>> from trialkit.allocation import simple
    >>> sites = pd.DataFrame({"site": ["S1", "S2"], "staff": [4.0, 9.0]})
    >>> plan = simple(sites, id="site")
    >>> drawn = plan.draw(seed="5f4e3d2c1b0a99887766554433221100", seed_source="dice, two people")
    >>> verify(drawn.certificate, sites, commitment=plan.digest).anchored
    True
    >>> verify(drawn.certificate, sites.assign(staff=[4.0, 8.0]))
    Traceback (most recent call last):
    ...
    trialkit.door.VerificationError: site S2, column 'staff': the certificate says '9', the sites table says '8'. ...
    """
    given = as_certificate(certificate)
    record = given.record
    checks: list[tuple[str, str]] = []
    notes: list[str] = []

    whole = canonical.is_sealed(dict(record))
    plan = _plan(record)
    _check_sites(plan.record, sites, checks, notes)
    checks += plan.recheck()
    checks.append(("plan", f"the plan text has SHA-256 {plan.digest}"))
    codes, seed = _check_draws(plan, record, checks)
    _check_arms(plan, record, codes, checks)
    _check_balance(plan, record, codes, checks)
    if not whole:
        raise VerificationError(
            "the certificate's content does not give its own SHA-256: an entry that decides no arm (a time, a version, a note) was changed "
            "after it was written. Take the original."
        )
    checks.append(("content", f"the certificate has SHA-256 {given.digest}"))
    if not given.layout_intact:
        notes.append("The certificate's layout (white space, order of lines) is not as it was written; its content is. No meaning is lost.")
    anchored = _check_commitment(plan, commitment, checks, notes)
    seed_ok, why = seeds.anchored(seed, plan.seed_rule)
    _check_claims(plan, record, seed, seed_ok, why)
    checks.append(("seed", why))
    pulse = seeds.rechecked(seed)
    if pulse is not None and pulse[0]:
        checks.append(("pulse", pulse[1]))
    elif pulse is not None:
        notes.append(f"The beacon's pulse is checked by its hash only, which anybody can make: {pulse[1]}.")
        seed_ok = False
    if seed_ok and not (commitment is not None and commitment.strip().lower() == plan.commitment):
        notes.append("The seed is the one that the plan names; only the longer commitment can show that it was named before the draw.")
        seed_ok = False
    _check_log(plan, record, log, head, checks, notes)
    return Verification(
        sites=len(plan.sites),
        digest=plan.digest,
        anchored=anchored,
        seed_anchored=seed_ok,
        attempts=record.get("attempts"),
        checks=tuple(checks),
        notes=tuple(notes),
    )


def derived(certificate: Certificate) -> tuple[Plan, seeds.Seed]:
    """The plan and the seed of a certificate, once its arms have been found to follow from them; the sites' cells are left to `verify`.

    Raises
    ------
    VerificationError
        They do not follow, or the certificate is damaged.
    """
    plan = _plan(certificate.record)
    codes, seed = _check_draws(plan, certificate.record, [])
    _check_arms(plan, certificate.record, codes, [])
    return plan, seed


def _plan(record: Mapping[str, Any]) -> Plan:
    entry = record.get("plan")
    if not isinstance(entry, Mapping):
        raise VerificationError("the certificate holds no plan. Take the original file.")
    return Plan.from_dict(entry, where="the certificate's plan")


def _check_sites(record: SiteRecord, sites: pd.DataFrame | str | os.PathLike[str], checks: list[tuple[str, str]], notes: list[str]) -> None:
    again, raw = read_again(sites, record)
    for identifier in record.ids:
        if identifier not in again.cells:
            raise VerificationError(f"site {door.printable(identifier)} is in the certificate and not in the sites table.")
    for identifier in again.ids:
        if identifier not in record.cells:
            raise VerificationError(f"site {door.printable(identifier)} is in the sites table and not in the certificate.")
    for identifier in record.ids:
        for k, (name, _) in enumerate(record.columns):
            then, now = record.cells[identifier][k], again.cells[identifier][k]
            if then != now and not _same_number(then, now):
                raise VerificationError(
                    f"site {door.printable(identifier)}, column {name!r}: the certificate says {door.printable(then)!r}, "
                    f"the sites table says {door.printable(now)!r}. One of them was changed after the plan was locked."
                )
    checks.append(("sites", f"{len(record.ids)} sites, {len(record.columns)} columns: every cell as certified"))
    if raw is None or record.raw_sha256 is None:
        notes.append("The sites were compared cell by cell in the declared columns; no file digest was at hand for the rest.")
    elif raw != record.raw_sha256:
        notes.append(
            f"The sites file is not byte for byte the one certified ({raw[:12]}... against {record.raw_sha256[:12]}...), "
            "but differs only where the allocation does not look: layout, order, or columns it does not use."
        )
    else:
        checks.append(("sites file", f"byte for byte, SHA-256 {raw}"))


def _same_number(a: str, b: str) -> bool:
    try:
        return Decimal(a) == Decimal(b)
    except InvalidOperation:
        return False


def _check_draws(plan: Plan, record: Mapping[str, Any], checks: list[tuple[str, str]]) -> tuple[Any, seeds.Seed]:
    entry = record.get("seed")
    if not isinstance(entry, Mapping):
        raise VerificationError("the certificate holds no seed. Take the original file.")
    seed = seeds.from_dict(entry)
    if seed.kind == "reveal" and (seed.evidence or {}).get("plan") != plan.digest:
        raise VerificationError("the secrets were revealed for another plan than this one.")
    codes, drawn = plan.allocate(seed.key)
    claimed = record.get("draws")
    if not isinstance(claimed, list):
        raise VerificationError("the certificate holds no draws. Take the original file.")
    for d, seen in zip(drawn, claimed, strict=False):
        made = [d.label, d.m, d.counter, d.hmac, d.value]
        if seen != made:
            raise VerificationError(
                f"site {door.printable(d.label)}: under this seed and plan its hash is {d.hmac[:16]}..., value {d.value} of {d.m}; "
                f"the certificate says {door.printable(seen)[:120]}."
            )
    if len(drawn) != len(claimed):
        raise VerificationError(f"the certificate holds {len(claimed)} hashes where the plan draws {len(drawn)}.")
    checks.append(("hashes", f"{len(drawn)} HMAC-SHA256 values as certified"))
    return codes, seed


def _check_arms(plan: Plan, record: Mapping[str, Any], codes: Any, checks: list[tuple[str, str]]) -> None:
    try:
        claimed = {str(s): a for s, a in record["arms"]}
        order = [str(s) for s, _ in record["arms"]]
    except (KeyError, TypeError, ValueError):
        raise VerificationError("the certificate holds no arms. Take the original file.") from None
    for s, code in zip(plan.sites, codes.tolist(), strict=True):
        arm = plan.arms[code] if code >= 0 else None
        if s not in claimed:
            raise VerificationError(f"site {door.printable(s)} was drawn to {arm} and has no arm in the certificate.")
        if claimed[s] != arm:
            raise VerificationError(f"site {door.printable(s)}: the draw gives {arm}, the certificate says {door.printable(claimed[s])}.")
    if order != list(plan.sites):
        extra = [s for s in order if s not in set(plan.sites)]
        named = extra[0] if extra else next((a for a, b in zip(order, plan.sites, strict=False) if a != b), order[-1])
        raise VerificationError(f"site {door.printable(named)} stands in the certificate's arms where the plan has none or another.")
    checks.append(("arms", f"{len(plan.sites)} sites as certified"))


def _check_balance(plan: Plan, record: Mapping[str, Any], codes: Any, checks: list[tuple[str, str]]) -> None:
    claimed = record.get("balance")
    if not isinstance(claimed, list):
        raise VerificationError("the certificate holds no balance table. Take the original file.")
    try:
        made = balancing.balance(plan, codes).frame
    except InputError:  # no covariate on record
        made = pd.DataFrame()
    shown = ("mean", "reference_mean", "difference", "std_difference", "quantile")
    if len(made) != len(claimed):
        raise VerificationError(f"the balance table has {len(claimed)} rows where the sites give {len(made)}.")
    for row, seen in zip(made.to_dict(orient="records"), claimed, strict=True):
        names = [row["covariate"], row["level"] if isinstance(row["level"], str) else None, row["arm"]]
        if not isinstance(seen, Mapping) or [seen.get(k) for k in ("covariate", "level", "arm")] != names:
            raise VerificationError(f"the balance table has another row where the sites give {row['covariate']!r}.")
        for key in shown:
            value, there = float(row[key]), seen.get(key)
            if np.isfinite(value):
                agree = isinstance(there, int | float) and abs(there - value) <= 1e-9 * max(1.0, abs(value))
            else:
                agree = there is None
            if not agree:
                raise VerificationError(
                    f"balance of {row['covariate']!r}: the arms give {key} = {value:.6g}, the certificate says {door.printable(there)}."
                )
    if len(made):
        checks.append(("balance", f"{len(made)} rows as certified"))


def _check_commitment(plan: Plan, commitment: str | None, checks: list[tuple[str, str]], notes: list[str]) -> bool:
    if commitment is None:
        notes.append("Self-consistent, not anchored: give the commitment that was published before the draw (commitment=...).")
        return False
    said = commitment.strip().lower()
    if said == plan.commitment:
        checks.append(("commitment", f"{plan.commits_to} are those published before the draw"))
        return True
    if said == plan.digest:
        checks.append(("commitment", "the plan is the one published before the draw"))
        notes.append(
            "The plan's digest binds the blocks; the arms' names and the rule for the seed are bound by the longer commitment only."
        )
        return True
    raise VerificationError(
        f"the certificate is of another plan than the one published: commitment {door.printable(said)}, "
        f"this plan has digest {plan.digest} and commitment {plan.commitment}."
    )


def _check_claims(plan: Plan, record: Mapping[str, Any], seed: seeds.Seed, seed_ok: bool, why: str) -> None:
    """What the certificate says about its seed and its log beyond what decides the arms."""
    entry = record["seed"]
    if entry.get("anchored") is not seed_ok or entry.get("anchor") != why:
        raise VerificationError(
            f"the certificate says of its seed: {door.printable(entry.get('anchor'))}; what follows from its evidence is: {why}."
        )
    follows = {
        **seed.to_dict(),
        "bits_at_most": round(seed.bits, 1),
        "warning": seeds.shortage(seed, plan.n_assignments),
    }
    for key, value in follows.items():
        if entry.get(key, ...) != value:
            raise VerificationError(
                f"the certificate's seed says {key} = {door.printable(entry.get(key))}; what follows is {door.printable(value)}."
            )
    head, attempts = record.get("log_head"), record.get("attempts")
    counted = isinstance(attempts, int) and not isinstance(attempts, bool) and attempts >= 1
    if not (head is None or isinstance(head, str)) or not (attempts is None or (counted and head is not None)):
        raise VerificationError(
            f"the certificate counts {door.printable(attempts)} attempts under the log head {door.printable(head)}, which cannot be."
        )


def _check_log(
    plan: Plan,
    record: Mapping[str, Any],
    log: str | os.PathLike[str] | None,
    head: str | None,
    checks: list[tuple[str, str]],
    notes: list[str],
) -> None:
    if log is None:
        if head is not None:
            raise InputError("a log head was given without the log. Name its file: log=...")
        if record.get("log_head") is not None:
            notes.append(
                "The certificate names a log of attempts, which was not given; the number of attempts is taken from the certificate."
            )
        return
    lines = Log(log).read()
    check_bound(Certificate(record), lines, log)
    of_plan = [line for line in lines if line["plan"] == plan.digest]
    if record.get("log_head") is not None:
        last = next(line["n"] for line in lines if line["sha256"] == record["log_head"])
        counted = sum(is_attempt(line) for line in of_plan if line["n"] <= last)
        if counted != (record.get("attempts") or 0):
            raise VerificationError(
                f"the certificate says it came of attempt {door.printable(record.get('attempts'))}, the log counts {counted} up to then."
            )
        if isinstance(plan, Minimised) and [x["site"] for x in of_plan if x["event"] == "entered" and x["n"] <= last] != list(plan.rows):
            raise VerificationError("the log enters other sites, or in another order, than the certificate.")
    if head is not None:
        if head.strip().lower() not in [line["sha256"] for line in lines]:
            raise VerificationError(
                f"the log does not hold the head {door.printable(head.strip())[:16]}...: its end was cut off or rewritten."
            )
        checks.append(("head", "the published head stands in the log"))
    else:
        notes.append("The log's chain holds; only a head kept elsewhere (head=...) can show that its last lines were not cut off.")
    attempts = sum(is_attempt(line) for line in of_plan)
    others = sum(is_attempt(line) for line in lines) - attempts
    beside = f", {others} on other plans" if others else ""
    checks.append(("log", f"{len(lines)} lines, unbroken chain; {attempts} attempt(s) at a draw on this plan{beside}"))
    changed = [f"{door.printable(line['site'])} {amendment_words(line)}" for line in of_plan if line["event"] == "amended"]
    if changed:
        checks.append(("amendments", f"{len(changed)} after the draw: {'; '.join(changed)}"))
    told = [line for line in of_plan if line["event"] == "released"]
    if told:
        checks.append(("released", f"{len({line['site'] for line in told})} site(s) told one at a time, {len(told)} time(s) in all"))
