"""A stored pairing judged again from the sites table, without the solver.

The weights are derived afresh; the stored integers (duals, blossoms) must prove the stored pairs on every allowed pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from trialkit import door
from trialkit._kernels.matching_proof import check_certificate
from trialkit.allocation.criteria import criterion_from_dict
from trialkit.allocation.pairing import certificate_digest
from trialkit.allocation.problem import Block, Problem, allowed, blocks, exact_cells, gaps, named_limbs, read_problem, weigh
from trialkit.allocation.sequential import nearest_first


def check_pairing(stored: Mapping[str, Any], sites: pd.DataFrame) -> None:
    """Derive a pairing again from its record and the sites table.

    Parameters
    ----------
    stored : mapping
        What `Pairing.to_dict` gave, also after a trip through JSON.
    sites : DataFrame
        The sites table, rows in any order.

    Raises
    ------
    VerificationError
        Naming the first site, criterion or part of the certificate that does not follow.

    Examples
    --------
    >>> from trialkit.allocation.criteria import nearest
    >>> from trialkit.allocation.matching import match_pairs
    >>> sites = pd.DataFrame({"site": ["a", "b", "c", "d"], "annual_budget": [0, 10, 11, 21]})
    >>> check_pairing(match_pairs(sites, id="site", criteria=[nearest("annual_budget")]).to_dict(), sites)
    """
    try:
        _check(stored, sites)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        if isinstance(error, door.InputError):
            raise door.VerificationError(f"the sites do not fit the record: {error}") from None
        raise door.VerificationError(f"the record of the pairing is damaged ({type(error).__name__}: {error}).") from None


def _check(stored: Mapping[str, Any], sites: pd.DataFrame) -> None:
    criteria = [criterion_from_dict(c) for c in stored["criteria"]]
    _same_sites(stored, sites)
    problem = read_problem(
        sites, id=stored["id"], criteria=criteria, missing=stored["missing"], forbidden=stored["forbidden"], required=stored["required"]
    )
    for name, cells, row in zip(problem.ids, exact_cells(problem, sites), stored["sites"], strict=True):
        if [name, *cells] != list(row):
            raise door.VerificationError(f"site {door.printable(name)}: the sites table says {list(cells)}, the record {list(row)[1:]}.")

    at = {name: k for k, name in enumerate(problem.ids)}
    pairs = [(at[a], at[b]) for a, b in stored["pairs"]]
    trios = [(at[a], at[b], at[c]) for a, b, c in stored["trios"]]
    singles, reserve = [at[s] for s in stored["singles"]], [at[s] for s in stored["reserve"]]
    parts = _places(problem, stored, pairs, trios, singles, reserve)
    for k, criterion in enumerate(problem.criteria):
        total = problem.measures[k].decimal(sum(gaps(problem, g)[k] or 0 for g in (*pairs, *trios)))
        if str(total) != stored["costs"][k]:
            raise door.VerificationError(f"criterion {criterion.name}: the pairs' total is {total}, the record says {stored['costs'][k]}.")
    if len(stored["costs"]) != len(criteria):
        raise door.VerificationError("the record has another number of totals than of criteria.")

    proof = stored["optimality"]
    if proof["digest"] != certificate_digest(proof):
        raise door.VerificationError("the dual certificate does not have the digest it was stored with: a number in it was changed.")
    if stored["method"] == "sequential-nearest":
        _check_sequential(problem, stored, parts, pairs, trios)
    elif stored["method"] == "lexicographic":
        _check_optimal(problem, stored, parts, pairs, [*singles, *reserve])
    else:
        raise door.VerificationError(f"the record names an unknown method {stored['method']!r}.")


def _same_sites(stored: Mapping[str, Any], sites: pd.DataFrame) -> None:
    recorded = [str(row[0]) for row in stored["sites"]]
    present = set(door.site_ids(sites, stored["id"], where="the sites table"))
    for name in recorded:
        if name not in present:
            raise door.VerificationError(f"site {door.printable(name)} is in the record but not in the sites table.")
    for name in sorted(present - set(recorded)):
        raise door.VerificationError(f"site {door.printable(name)} is in the sites table but not in the record.")


def _places(
    problem: Problem,
    stored: Mapping[str, Any],
    pairs: list[tuple[int, int]],
    trios: list[tuple[int, int, int]],
    singles: list[int],
    reserve: list[int],
) -> tuple[Block, ...]:
    """Every site has one place, and the places obey the constraints and the odd rule; the blocks that were matched."""
    seen: set[int] = set()
    for group in (*pairs, *trios, singles, reserve):
        for k in group:
            if k in seen:
                raise door.VerificationError(f"site {door.printable(problem.ids[k])} stands in two places of the record.")
            seen.add(k)
    for k, name in enumerate(problem.ids):
        if k not in seen:
            raise door.VerificationError(f"site {door.printable(name)} has no place in the record.")
    for pair in problem.required:
        if pair not in pairs:
            raise door.VerificationError(f"site {door.printable(problem.ids[pair[0]])}: a required pair is not among the pairs.")
    for group in (*pairs, *trios):
        for i, a in enumerate(group):
            for b in group[i + 1 :]:
                two = Block("", np.array([a, b]), False)
                if a >= b or problem.strata[a] != problem.strata[b] or not allowed(problem, two)[0, 1]:
                    raise door.VerificationError(
                        f"sites {door.printable(problem.ids[a])} and {door.printable(problem.ids[b])} are together, but may not be."
                    )

    odd = stored["odd"]
    aside = set(reserve) if isinstance(odd, list | tuple) else set()
    if isinstance(odd, list | tuple) and sorted(map(str, odd)) != sorted(problem.ids[k] for k in reserve):
        raise door.VerificationError("the sites set aside by name are not those in reserve.")
    fixed = {k for pair in problem.required for k in pair}
    in_trio = {k for trio in trios for k in trio}
    pool = [k for k in range(len(problem.ids)) if k not in aside | fixed]
    whole = blocks(problem, pool)
    parts = blocks(problem, [k for k in pool if k not in in_trio])
    expected = {b.stratum for b in whole if b.vacant}
    left = {"single": singles, "reserve": reserve, "trio": [t[0] for t in trios]}.get(odd if isinstance(odd, str) else "", [])
    if sorted(problem.strata[k] for k in left) != sorted(expected):
        raise door.VerificationError(f"the odd strata and the rule odd={odd!r} do not give the sites left over in the record.")
    idle = {"single": [*reserve, *trios], "reserve": [*singles, *trios], "trio": [*singles, *reserve]}.get(
        odd if isinstance(odd, str) else "", []
    )
    if idle or (not isinstance(odd, str) and (singles or trios)):
        raise door.VerificationError(f"the record leaves sites over that the rule odd={odd!r} does not.")
    return parts


def _check_sequential(
    problem: Problem, stored: Mapping[str, Any], parts: tuple[Block, ...], pairs: list[tuple[int, int]], trios: list[tuple[int, int, int]]
) -> None:
    in_trio = [k for trio in trios for k in trio]
    whole = blocks(problem, [*in_trio, *(int(k) for b in parts for k in b.members)])
    found, _, threes = nearest_first(problem, whole, trio=stored["odd"] == "trio")
    free = {p for p in pairs if p not in problem.required}
    again = {(min(p), max(p)) for p in found}
    for a, _ in sorted(free ^ again):
        raise door.VerificationError(f"site {door.printable(problem.ids[a])}: taking the nearest pair first gives it another partner.")
    if {tuple(sorted(t)) for t in threes} != set(trios):
        raise door.VerificationError("taking the nearest pair first gives another trio.")
    if stored["optimality"]["checked"]:
        raise door.VerificationError("the record claims a proof that taking the nearest pair first cannot have.")


def _check_optimal(
    problem: Problem, stored: Mapping[str, Any], parts: tuple[Block, ...], pairs: list[tuple[int, int]], left: list[int]
) -> None:
    proof = stored["optimality"]
    if proof["checked"] is not True:
        raise door.VerificationError("the record claims the optimum without a proof.")
    plan, limbs = weigh(problem, parts)
    if [[list(r) for r in limb] for limb in named_limbs(problem, plan)] != [[list(r) for r in limb] for limb in proof["limbs"]]:
        raise door.VerificationError("the certificate weighs the criteria with other multipliers than the sites give.")
    if [s["stratum"] for s in proof["strata"]] != [b.stratum for b in parts]:
        raise door.VerificationError("the certificate covers other strata than the sites have.")
    partner = dict(pairs) | {b: a for a, b in pairs}
    for block, weights, part in zip(parts, limbs, proof["strata"], strict=True):
        here = [int(k) for k in block.members]
        if list(part["sites"]) != [problem.ids[k] for k in here]:
            raise door.VerificationError(f"the certificate of stratum {block.stratum} covers other sites than the stratum has.")
        vacancy = len(here)
        place = {k: v for v, k in enumerate(here)}
        mate = [place.get(partner.get(k, -1), vacancy) for k in here]
        if block.vacant:
            mate.append(next((place[k] for k in left if k in place), -1))
        y = [_integers([v[k] for v in part["y"]]) for k in range(len(weights))]
        z = [tuple(_integers(v).tolist()) for v in part["z"]]
        verdict = check_certificate(weights, allowed(problem, block), mate, y, [tuple(b) for b in part["blossoms"]], z)
        if not verdict.holds:
            where = ", ".join(problem.ids[here[v]] for v in verdict.at if v < vacancy)
            raise door.VerificationError(
                f"stratum {block.stratum}: the pairs are not proved optimal: {verdict.complaint} ({where or 'in total'})."
            )
        if list(verdict.primal) != list(part["primal"]) or verdict.edges != part["edges"]:
            raise door.VerificationError(f"stratum {block.stratum}: the certificate states another total or number of allowed pairs.")


def _integers(values: Any) -> np.ndarray[Any, np.dtype[Any]]:
    found = list(values)
    if any(isinstance(v, bool) or not isinstance(v, int) for v in found):
        raise door.VerificationError("a number of the certificate is not an integer.")
    small = all(-(1 << 61) < v < 1 << 61 for v in found)
    return np.array(found, dtype=np.int64 if small else object)
