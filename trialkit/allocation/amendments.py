"""What happens to sites after the draw: written as new chained entries, never as edits (21 CFR 11.10(e)).

A loss before the draw means a new plan with a new digest; after it, the certificate stands for ever and the log says
what became of a site.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pandas as pd

from trialkit import door
from trialkit.allocation.certificate import Certificate, sound
from trialkit.allocation.log import Line, Log, check_bound, opened_for
from trialkit.allocation.sites import check_id
from trialkit.door import InputError, Refused

KINDS = ("withdrawn", "replaced")
Given = Certificate | Mapping[str, Any] | str | os.PathLike[str]


def amend(
    certificate: Given,
    site: str,
    *,
    kind: str,
    reason: str,
    by: str,
    log: str | os.PathLike[str],
    replacement: str | None = None,
) -> Line:
    """Record that a site was withdrawn, or replaced by another.

    Parameters
    ----------
    certificate : Certificate, mapping or path
        Of the allocation the site belongs to.
    site : str
    kind : {"withdrawn", "replaced"}
    reason, by : str
        Why, and who decided; both are needed.
    log : path
        The plan's log; the entry is chained to it and synced.
    replacement : str, optional
        The site that takes the place (and the arm) of a replaced one. It was not randomised, and the analysis says so.

    Returns
    -------
    mapping
        The line as logged.

    Raises
    ------
    InputError
        An unknown site or kind, no reason, or a replacement that does not fit.
    Refused
        The site has been amended before.
    """
    given = sound(certificate)
    if kind not in KINDS:
        raise InputError(door.unknown_word(str(kind), KINDS, what="kind of amendment"))
    for word, text in (("reason", reason), ("by", by)):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"an amendment needs {word}=: years later it must be clear why it was made, and by whom.")
    if (replacement is not None) != (kind == "replaced"):
        raise InputError("a replaced site needs replacement=, and a withdrawn one has none.")
    with opened_for(given, log) as held:
        current = _state(given, held.lines)
        if site not in current:
            raise InputError(
                f"site {door.printable(site)} is not in this allocation. {door.unknown_word(site, list(current), what='site')}"
            )
        if current[site]["status"] != "allocated" and not current[site]["status"].startswith("replaces"):
            raise Refused(f"site {door.printable(site)} is {current[site]['status']} already; an entry is never changed.")
        if replacement is not None:
            check_id(replacement, where="the amendment")
            if replacement in current or not replacement.strip():
                raise InputError(f"the replacement {door.printable(replacement)!r} is blank or in the allocation already. Name a new site.")
        return held.append(
            "amended",
            plan=given.plan_digest,
            certificate=given.digest,
            site=site,
            kind=kind,
            replacement=replacement,
            reason=reason.strip(),
            by=by.strip(),
        )


def amended(certificate: Given, log: str | os.PathLike[str]) -> pd.DataFrame:
    """The allocation as it stands: the id column, ``arm``, ``status``, ``reason``, one row a site ever in it.

    ``status`` is ``allocated``, ``withdrawn``, ``replaced by S99`` or ``replaces S12``.
    """
    given = sound(certificate)
    lines = Log(log).read()
    check_bound(given, lines, log)
    rows = _state(given, lines)
    return pd.DataFrame(
        {
            given.id_column: pd.Series(list(rows), dtype="str"),
            "arm": pd.Series([r["arm"] for r in rows.values()], dtype="str"),
            "status": pd.Series([r["status"] for r in rows.values()], dtype="str"),
            "reason": pd.Series([r["reason"] for r in rows.values()], dtype="str"),
        }
    )


def _state(given: Certificate, lines: list[Line]) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {s: {"arm": arm, "status": "allocated", "reason": None} for s, arm in given.arms.items()}
    for line in lines:
        if line["event"] != "amended" or line["plan"] != given.plan_digest:
            continue
        site, other = str(line["site"]), line["replacement"]
        if site not in rows:
            continue
        rows[site]["reason"] = line["reason"]
        rows[site]["status"] = amendment_words(line)
        if other is not None:
            rows[str(other)] = {"arm": rows[site]["arm"], "status": f"replaces {site}", "reason": line["reason"]}
    return rows


def amendment_words(line: Line) -> str:
    """What an entry says became of its site."""
    return "withdrawn" if line["kind"] == "withdrawn" else f"replaced by {line['replacement']}"
