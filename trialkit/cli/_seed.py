"""How a seed comes in at the command line: never from a default, and by ways that leave no trace in a shell history."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from trialkit.allocation import Plan, Seed

WAYS = "--seed N, --seed - (standard input), --seed-file FILE, --beacon PULSE.json or --reveal SECRETS.json"


def seed_of(
    plan: Plan,
    *,
    seed: str | None,
    seed_file: Path | None,
    beacon: Path | None,
    reveal: Path | None,
    source: str | None,
    chain: Path | None = None,
    certificate: Path | None = None,
) -> tuple[str | Seed, str | None]:
    """The one seed that was given and its source; asked for at a terminal when none was."""
    from trialkit.door import InputError

    given = [x for x in (seed, seed_file, beacon, reveal) if x is not None]
    if len(given) > 1:
        raise InputError(f"the draw takes one seed, and {len(given)} were given. Keep one of {WAYS}.")
    if not given and not sys.stdin.isatty():
        raise InputError(f"the draw needs one seed: {WAYS}. There is no default seed.")
    if source is not None and (beacon is not None or reveal is not None):
        raise InputError(
            "--seed-source belongs to a typed seed; a beacon's pulse and revealed secrets say themselves where they come from."
        )
    if beacon is None and (chain is not None or certificate is not None):
        raise InputError("--chain and --beacon-certificate belong to a beacon's pulse. Give it: --beacon PULSE.json.")
    if beacon is not None:
        return _pulse(beacon, plan, chain, certificate), None
    if reveal is not None:
        return _revealed(reveal, plan), None
    if not given:
        # twice, because nobody sees a slip of the finger and a plan is drawn once
        text = typer.prompt("Seed as published (it is not shown)", hide_input=True, confirmation_prompt="Once more", err=True)
    elif seed_file is not None:
        text = read_text(seed_file)
    else:
        text = sys.stdin.readline() if seed == "-" else str(seed)
    text = text.strip()
    if not text:
        raise InputError("the seed is empty. Give the value that was drawn, as it was published.")
    if source is None and not given:
        source = typer.prompt("Where it comes from", err=True)
    return text, source


def _pulse(path: Path, plan: Plan, chain: Path | None, certificate: Path | None) -> Seed:
    """A pulse, checked under the chain that was given, else the one the plan names."""
    from trialkit.allocation import beacon

    rule = plan.seed_rule
    named = rule.get("info", rule.get("chain")) if isinstance(rule, Mapping) and rule.get("beacon") == "drand" else None
    pem = None if certificate is None else read_text(certificate)
    return beacon(read_text(path), chain=named if chain is None else read_text(chain), certificate=pem)


def _revealed(path: Path, plan: Plan) -> Seed:
    """The parties' secrets against the commitments that the plan holds."""
    from trialkit.allocation import reveal
    from trialkit.door import InputError

    secrets = words_by_name(path, "secret")
    rule = plan.seed_rule
    named = rule.get("reveal") if isinstance(rule, Mapping) else None
    if named is None:
        raise InputError("the plan names no commitments, so there is nothing to reveal. Lock it with --seed-rule reveal:COMMITMENTS.json.")
    if sorted(secrets) != sorted(named):
        raise InputError(
            f"the plan holds commitments of {', '.join(sorted(named))}; {path} has the secrets of {', '.join(sorted(secrets))}."
        )
    return reveal([(who, secret, named[who]) for who, secret in secrets.items()], digest=plan.digest)


def seed_rule(text: str, chain: Path | None = None) -> Mapping[str, Any] | str:
    """``drand:ROUND``, ``drand:CHAIN:ROUND``, ``nist:TIME``, ``nist:CHAIN:TIME``, ``reveal:FILE``; anything else is a rule in words.

    `chain` is the file of a drand chain's ``/info``.
    """
    from trialkit.allocation import drand_rule, nist_rule, reveal_rule
    from trialkit.door import InputError, unknown_word

    kind, colon, rest = text.strip().partition(":")
    if chain is not None and kind != "drand":
        raise InputError(
            "--chain is the info of a drand chain, and the rule for the seed names no round of one. Write --seed-rule drand:ROUND."
        )
    if not colon or " " in kind:
        if not text.strip():
            raise InputError("the rule for the seed is empty. Say in advance where the seed will come from, or leave --seed-rule out.")
        return text.strip()
    if kind == "drand":
        found = re.fullmatch(r"(?:([a-z]+):)?([0-9]{1,12})", rest, re.ASCII)
        if found is None:
            raise InputError(f"--seed-rule {text!r}: write drand:ROUND or drand:CHAIN:ROUND, as drand:quicknet:21000000.")
        if chain is not None and found[1] is not None:
            raise InputError(f"--seed-rule {text!r} names a chain, and --chain gives another way of naming one. Keep one of the two.")
        return drand_rule(round=int(found[2]), chain=read_text(chain) if chain is not None else found[1] or "quicknet")
    if kind == "nist":
        found = re.fullmatch(r"(?:([0-9]{1,4}):)?([0-9]{4}-.*)", rest, re.ASCII)
        if found is None:
            raise InputError(f"--seed-rule {text!r}: write nist:TIME or nist:CHAIN:TIME, as nist:2026-09-01T12:00:00.000Z.")
        return nist_rule(time=found[2], chain=int(found[1] or 2))
    if kind == "reveal":
        return reveal_rule(words_by_name(Path(rest), "commitment"))
    raise InputError(f"--seed-rule {text!r}: {unknown_word(kind, ('drand', 'nist', 'reveal'), what='kind of rule')}")


def words_by_name(path: Path, what: str) -> dict[str, str]:
    """A JSON object of names and texts."""
    from trialkit.allocation import canonical
    from trialkit.door import InputError

    record = canonical.loads(read_text(path), where=str(path))
    if not record or not all(isinstance(v, str) and k.strip() for k, v in record.items()):
        raise InputError(
            f'{path} must be one JSON object of each party and its {what}: {{"A. Investigator": "...", "B. Statistician": "..."}}.'
        )
    return record


def read_text(path: Path) -> str:
    """A small file as text; every complaint names it."""
    from trialkit.door import InputError

    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text.") from None
