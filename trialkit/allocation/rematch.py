"""The matching behind a paired plan, checked again from the sites' own cells, without the solver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trialkit import door
from trialkit.allocation import canonical
from trialkit.allocation.pairing import label
from trialkit.allocation.recheck import check_pairing
from trialkit.door import InputError, VerificationError

if TYPE_CHECKING:
    from trialkit.allocation.plans import WithinPairs


def expected_labels(rows: Sequence[str], pairs: Sequence[Sequence[str]], trios: Sequence[Sequence[str]]) -> dict[str, str | None]:
    """P01, P02, ... for the pairs in their order, T01, ... for trios; None for a site by itself."""
    out: dict[str, str | None] = dict.fromkeys(rows)
    for letter, groups in (("P", pairs), ("T", trios)):
        for k, group in enumerate(groups):
            out.update(dict.fromkeys(map(str, group), label(letter, k, len(groups))))
    return out


def check_matching(plan: WithinPairs) -> list[tuple[str, str]]:
    """The blocks are the matching's groups; its totals and dual certificate hold on the recorded sites.

    Raises
    ------
    VerificationError
        Naming the first site or criterion that differs.
    """
    stored = plan.matching
    try:
        groups = [tuple(map(str, g)) for key in ("pairs", "trios") for g in stored[key]] + [(str(s),) for s in stored["singles"]]
        reserve = {str(s) for s in stored["reserve"]}
    except (KeyError, TypeError) as error:
        raise VerificationError(
            f"the record of the matching is damaged ({type(error).__name__}: {error}). Take the original file."
        ) from None
    blocks = set(plan.blocks)
    for block in plan.blocks:
        if block not in groups:
            raise VerificationError(
                f"site {door.printable(block[0])}: the plan has the block {', '.join(block)}, which the matching has not."
            )
    for group in groups:
        if group not in blocks:
            raise VerificationError(
                f"site {door.printable(group[0])}: the matching has the group {', '.join(group)}, which the plan has not."
            )
    everybody = {s for block in plan.blocks for s in block} | reserve
    for s in plan.record.ids:
        if s not in everybody:
            raise VerificationError(f"site {door.printable(s)} is in the sites' record, but neither in the plan nor in the reserve.")
    if set(plan.rows) != set(plan.record.ids) or len(plan.rows) != len(plan.record.ids):
        raise VerificationError("the plan's list of rows is not the list of its sites.")
    if dict(plan.labels) != expected_labels(plan.rows, stored["pairs"], stored["trios"]):
        raise VerificationError("the pairs' labels are not those that their order gives.")
    try:
        check_pairing(stored, plan.record.frame())
    except InputError as error:
        raise VerificationError(f"the matching does not hold on the certified sites: {error}") from None
    again = plan.matched().to_dict()
    for key in sorted({*again, *stored}):
        if key not in again or key not in stored or canonical.content(stored[key]) != canonical.content(again[key]):
            raise VerificationError(f"the record of the matching says {door.printable(key)!r} otherwise than it was written.")
    proof = stored.get("optimality", {})
    how = (
        f"dual certificate holds on {sum(s['edges'] for s in proof.get('strata', [])):,} allowed pairs"
        if proof.get("checked")
        else "no proof claimed"
    )
    return [("matching", f"{len(stored['pairs'])} pairs, totals {', '.join(map(str, stored['costs'])) or 'none'}; {how}")]
