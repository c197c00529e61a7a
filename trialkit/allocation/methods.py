"""The paragraph a protocol or a paper needs, from the plan itself: CONSORT 2010 (cluster extension) items 8a, 8b, 9 and 10.

Nothing is said that the plan does not hold; what only people know (who generated, who enrolled, who was blind) is
left as a gap in square brackets, so that it cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trialkit.allocation.plans import Plan, WithinPairs

_GAPS = (
    "[Who] generated the sequence, [who] enrolled the sites and [who] assigned them; the arms were concealed until [when], "
    "because they were not drawn before all sites had been enrolled and the plan was locked."
)
_GAPS_ONE_BY_ONE = (
    "[Who] generated the sequence, [who] enrolled the sites and [who] assigned them; an arm could not be foreseen, because it was drawn "
    "only after its site had been entered, and the seed was kept from those who enrolled [how]."
)


def number(n: int, one: str, many: str | None = None) -> str:
    """``1 pair``, ``2 pairs``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def _criterion(entry: Mapping[str, Any]) -> str:
    column = entry.get("column") or ", ".join(map(str, entry.get("columns", []) or []))
    kind = str(entry.get("kind", ""))
    words = {
        "exact": f"{column} (the same level required)",
        "exact_if_possible": f"{column} (the same level where possible)",
        "nearest": f"{column} (least absolute difference)",
        "mahalanobis": f"{column} ({'robust ' if entry.get('robust') else ''}Mahalanobis distance)",
    }.get(kind, f"{column} ({kind})")
    caliper = entry.get("caliper")
    return words if caliper is None else f"{words[:-1]}, at most {caliper})"


def draw_sentences(plan: Plan) -> str:
    """How the arms are drawn, what was published, and where the seed comes from."""
    rule = plan.seed_rule
    if isinstance(rule, Mapping) and rule.get("beacon") == "drand":
        seed = f"The seed is the randomness of round {rule['round']} of the public beacon drand ({rule['chain']}), named before it existed."
    elif isinstance(rule, Mapping) and rule.get("beacon") == "nist":
        seed = f"The seed is the NIST randomness beacon's pulse of {rule['time']} (chain {rule['chain']}), named before it existed."
    elif isinstance(rule, Mapping) and "reveal" in rule:
        parties = listed(sorted(map(str, rule["reveal"])))
        seed = f"The seed is made of secrets of {parties}, who published commitments to them before the draw (commit, then reveal)."
    elif isinstance(rule, str):
        seed = f"The seed: {rule.rstrip('.')}."
    else:
        seed = "The seed comes from outside the study [who, how, when]."
    return (
        f"The plan was locked before the draw; its SHA-256 digest, {plan.digest}, was published [where, when]. {seed} Each "
        f"allocation was then "
        "computed as an HMAC-SHA256 of the seed, the plan's digest and the site's identifier (algorithm trialkit-draw-1), "
        "so that it can be "
        "computed again by anybody, depends on no software's random numbers, and cannot be changed by the order of the sites. "
        "A certificate holds everything needed to derive the allocation again; a second draw is refused and recorded."
    )


def within_pairs_text(plan: WithinPairs) -> str:
    """Matched pairs."""
    pairs = sum(len(b) == 2 for b in plan.blocks)
    singles = [b[0] for b in plan.blocks if len(b) == 1]
    trios = sum(len(b) == 3 for b in plan.blocks)
    stored = plan.matching
    criteria = [_criterion(c) for c in stored.get("criteria", [])]
    ranked = (
        f" on {len(criteria)} criteria in rank order: {listed(criteria)}" if len(criteria) > 1 else f" on {criteria[0]}" if criteria else ""
    )
    if stored.get("method") == "sequential-nearest":
        how = "Pairs were formed one after another, each site with its nearest neighbour by the criteria in their order."
    else:
        proved = bool(stored.get("optimality", {}).get("checked")) if isinstance(stored.get("optimality"), Mapping) else False
        how = (
            "Pairs were chosen among all possible pairings so that the vector of total within-pair distances, in rank order, is the "
            "lexicographic minimum"
            + (", which a dual certificate proves" if proved else "")
            + "; ties were broken by a hash of the identifiers."
        )
    parts = [
        f"The {number(len(plan.sites), 'site')} were matched in {number(pairs, 'pair')}{ranked}. {how}",
        f"Within each pair one site, by a fair draw, goes to {plan.arms[1]} and the other to {plan.arms[0]} (1:1).",
    ]
    if singles:
        which = f"Site {singles[0]} was" if len(singles) == 1 else f"The {len(singles)} sites {listed(singles)} were each"
        parts.append(f"{which} without a partner and randomised alone with probability 1/2.")
    if trios:
        parts.append(
            f"{number(trios, 'group')} of three {'goes' if trios == 1 else 'go'} one to two or two to one, each with probability 1/2."
        )
    reserve = [str(s) for s in stored.get("reserve", [])]
    if reserve:
        parts.append(f"{listed(reserve)} {'was' if len(reserve) == 1 else 'were'} set aside before the draw and not randomised.")
    return " ".join([*parts, draw_sentences(plan), _GAPS])


def closing(*, one_by_one: bool = False) -> str:
    """What only people know; `one_by_one` when each arm is drawn as its site enters."""
    return _GAPS_ONE_BY_ONE if one_by_one else _GAPS
