"""`match_pairs`: the pairs whose vector of total distances, in rank order, is the least there is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from trialkit import door
from trialkit._kernels.blossom import Stuck
from trialkit._kernels.matching import Matching, perfect_matching
from trialkit.allocation.criteria import Criterion, Mahalanobis, Nearest
from trialkit.allocation.pairing import Optimality, Pairing, StratumProof, label
from trialkit.allocation.problem import (
    WHERE,
    Block,
    Problem,
    allowed,
    blocks,
    cell_columns,
    exact_cells,
    gaps,
    named_limbs,
    read_problem,
    weigh,
)
from trialkit.allocation.recheck import check_pairing
from trialkit.allocation.sequential import nearest_first
from trialkit.allocation.sites import held_by_float
from trialkit.allocation.trios import best_trio

Array = np.ndarray[Any, np.dtype[Any]]
Group = tuple[int, ...]

__all__ = ["check_pairing", "match_pairs"]

METHODS = ("lexicographic", "sequential-nearest")
ODD = ("single", "trio", "reserve")


def match_pairs(
    sites: pd.DataFrame,
    *,
    id: str,
    criteria: Sequence[Criterion],
    odd: str | Sequence[str] | None = None,
    missing: str = "refuse",
    forbidden: Iterable[Sequence[str]] = (),
    required: Iterable[Sequence[str]] = (),
    method: str = "lexicographic",
) -> Pairing:
    """Pair sites on rank-ordered criteria, before randomisation.

    Among all allowed ways to pair the sites, take the one with the least total distance on the first criterion; among
    those, the least on the second; and so on. This is exact for any number of criteria and any size of number: a
    minimum-weight perfect matching (Edmonds 1965) over integers, with a dual certificate that is checked on every allowed
    pair before the result is returned. Equal ways are told apart by a hash of the ids, so row order never matters.

    Parameters
    ----------
    sites : DataFrame
        One row a site.
    id : str
        Column of site ids; ids are text (7 and "7" are the same, "007" is another).
    criteria : sequence of criteria
        In rank order: `exact`, `exact_if_possible`, `nearest`, `mahalanobis`.
    odd : {"single", "trio", "reserve"} or id or sequence of ids, optional
        What happens to the site too many in a stratum with an odd count. "single": the one whose absence costs least is
        left out of the pairs and later randomised by itself; "reserve": the same site is set aside; "trio": one group of
        three forms, the best in the sum of its three distances and all pairs; an id: that site is set aside. No default:
        an odd count without a rule is refused.
    missing : {"refuse", "own-level", "range-penalty"}, default "refuse"
        Missing cells of the criteria. "own-level": two missing cells are alike; pairs of a missing and an observed number
        are made as few as possible before the column's distances count (for levels, missing is a level). "range-penalty":
        two missing numbers are at distance 0, a missing and an observed one at the column's range (levels as before).
    forbidden, required : iterable of (id, id)
        Pairs that may not form, and pairs that must.
    method : {"lexicographic", "sequential-nearest"}, default "lexicographic"
        "sequential-nearest" is greedy: of all allowed pairs left, take the one closest on the first criterion (ties: on
        the second, and so on), until none is left. Offered for comparison; it does not minimise any total.

    Returns
    -------
    Pairing

    Raises
    ------
    InputError
        Ids or cells that cannot be read; an unknown column, policy or method.
    PairingError
        No pairing obeys the constraints, or a count is odd and no rule for it is given; the message names the sites.

    Examples
    --------
    >>> from trialkit.allocation.criteria import nearest
    >>> sites = pd.DataFrame({"site": ["a", "b", "c", "d"], "annual_budget": [0, 10, 11, 21]})
    >>> pairing = match_pairs(sites, id="site", criteria=[nearest("annual_budget")])
    >>> pairing.pairs, pairing.costs
    ((('a', 'b'), ('c', 'd')), (Decimal('20'),))
    """
    table = sites if isinstance(sites, pd.DataFrame) else door.normalise(sites)
    if method not in METHODS:
        raise door.InputError(f"method={method!r}: {door.unknown_word(str(method), METHODS, what='method')}")
    problem = read_problem(table, id=id, criteria=criteria, missing=missing, forbidden=forbidden, required=required)
    rule, aside = _odd_rule(problem, odd)
    fixed = [tuple(pair) for pair in problem.required]
    taken = {*aside, *(k for pair in fixed for k in pair)}
    pool = [k for k in range(len(problem.ids)) if k not in taken]
    parts = blocks(problem, pool)
    _refuse_odd(problem, parts, rule, aside)

    trios: list[Group] = []
    if method == "sequential-nearest":
        found, left, trios = nearest_first(problem, parts, trio=rule == "trio")
        proof = Optimality(False, reason="sequential-nearest takes the closest pair left at each step and minimises no total")
    else:
        if rule == "trio":
            trios = [best_trio(problem, block) for block in parts if block.vacant]
            in_trio = {k for trio in trios for k in trio}
            parts = blocks(problem, [k for k in pool if k not in in_trio])
        found, left, proof = _optimal(problem, parts)
        if trios:
            proof = replace(
                proof, reason="the certificate proves the pairs given the trio; the trio itself was found by search over bounds"
            )
    return assemble(
        problem,
        table,
        pairs=[*fixed, *found],
        trios=trios,
        singles=left if rule == "single" else [],
        reserve=[*aside, *(left if rule == "reserve" else [])],
        optimality=proof,
        odd=rule if rule else (tuple(problem.ids[k] for k in aside) or None),
        missing=missing,
        method=method,
    )


# --- odd counts ---------------------------------------------------------------------------------------------


def _odd_rule(problem: Problem, odd: str | Sequence[str] | None) -> tuple[str | None, list[int]]:
    """The rule in words (None for named sites or no rule) and the sites set aside by name."""
    if odd is None or (isinstance(odd, str) and odd in ODD):
        return odd, []
    named = [odd] if isinstance(odd, str) or not isinstance(odd, Sequence) else list(odd)
    position = {name: k for k, name in enumerate(problem.ids)}
    aside = []
    for name in (door.cell_text(x) for x in named):
        if name not in position:
            near = door.nearest_word(name, [*ODD, *problem.ids])
            hint = f" Did you mean {near!r}?" if near else ""
            raise door.PairingError(f"odd={name!r} is neither a rule ({', '.join(ODD)}) nor a site in {WHERE}.{hint}")
        if any(position[name] in pair for pair in problem.required):
            raise door.PairingError(f"odd={name!r} sets a site aside that stands in a required pair. Remove one of the two.")
        if position[name] in aside:
            raise door.PairingError(f"odd names the site {name!r} twice. Name each site once.")
        aside.append(position[name])
    return None, sorted(aside)


def _refuse_odd(problem: Problem, parts: Sequence[Block], rule: str | None, aside: Sequence[int]) -> None:
    """An odd count without a rule that deals with it is an error naming the choices; nothing is left over in silence."""
    if rule in ("single", "reserve"):
        return
    odd = [block for block in parts if block.vacant]
    if not odd:
        return
    if rule == "trio":
        alone = [block for block in odd if len(block.members) < 3]
        if not alone:
            return
        site = problem.ids[int(alone[0].members[0])]
        raise door.PairingError(
            f"{site!r} is the only one of the {problem.stratum_words(alone[0].stratum)} left to pair, so it can form no trio.\n"
            f'  Set it aside by name:          odd="{site}"\n'
            '  or draw it by itself:          odd="single"'
        )
    lines = []
    for block in odd:
        n = len(block.members)
        after = " once the sites named are set aside" if aside else ""
        plural = problem.stratum_words(block.stratum)
        lines.append(f"{n} {plural if n > 1 else plural.replace('sites', 'site', 1)} cannot all be paired, because {n} is odd{after}.")
    example = [problem.ids[k] for k in aside] + [_least_missed(problem, block) for block in odd]
    name = f'"{example[0]}"' if len(example) == 1 else "[" + ", ".join(f'"{e}"' for e in example) + "]"
    group = "one trio" if len(odd) == 1 else "a trio in each"
    alone_word = "the odd one" if len(odd) == 1 else "the odd ones"
    options = [
        ("  Set one aside by name:" if len(odd) == 1 else "  Set one of each aside by name:", f"odd={name}"),
        (f"  or let {group} form:", 'odd="trio"'),
        (f"  or draw {alone_word} by itself:", 'odd="single"'),
        (f"  or hold {alone_word} in reserve:", 'odd="reserve"'),
    ]
    width = max(len(words) for words, _ in options)
    raise door.PairingError("\n".join([*lines, *(f"{words:<{width}}  {code}" for words, code in options)]))


def _least_missed(problem: Problem, block: Block) -> str:
    """The site whose absence costs least, as the example in a message; the first one when constraints forbid any."""
    try:
        _, left, _ = _optimal(problem, [block])
    except door.PairingError:
        return problem.ids[int(block.members[0])]
    return problem.ids[left[0]]


# --- the optimum --------------------------------------------------------------------------------------------


def _optimal(problem: Problem, parts: Sequence[Block]) -> tuple[list[Group], list[int], Optimality]:
    """Pairs, sites left over (one an odd block), and the proof."""
    plan, limbs = weigh(problem, parts)
    pairs: list[Group] = []
    left: list[int] = []
    proofs = []
    for k, block in enumerate(parts):
        edges = allowed(problem, block)
        _refuse_isolated(problem, block, edges)
        result = perfect_matching(limbs[k], edges)
        limbs[k] = []
        if isinstance(result, Stuck):
            raise door.PairingError(_explain(problem, block, result))
        proofs.append(_proof(problem, block, result))
        for a, b in enumerate(result.mate):
            if a < b:
                if b < len(block.members):
                    pairs.append((int(block.members[a]), int(block.members[b])))
                else:
                    left.append(int(block.members[a]))
    return pairs, left, Optimality(True, named_limbs(problem, plan), tuple(proofs))


def _proof(problem: Problem, block: Block, result: Matching) -> StratumProof:
    return StratumProof(
        stratum=block.stratum,
        sites=tuple(problem.ids[k] for k in block.members),
        y=tuple(zip(*result.y, strict=True)),
        blossoms=result.blossoms,
        z=result.z,
        primal=result.primal,
        edges=result.edges,
    )


def _refuse_isolated(problem: Problem, block: Block, edges: Array) -> None:
    """Sites that no other site may be paired with: the commonest way for constraints to fail, so all are named at once."""
    n = len(block.members)
    alone = np.flatnonzero(~edges[:n, :n].any(axis=1))
    if alone.size <= block.vacant:
        return
    names = [problem.ids[int(block.members[k])] for k in alone]
    raise door.PairingError(
        f"no pairing obeys the constraints: {door.few(names, 12)} may be paired with no other of the {n} "
        f"{problem.stratum_words(block.stratum)}{_reasons(problem, block, alone)}.\n" + _ways_out(block, names[0])
    )


def _reasons(problem: Problem, block: Block, alone: Array) -> str:
    causes = []
    sites = {int(block.members[k]) for k in alone}
    if any(a in sites or b in sites for a, b in problem.forbidden):
        causes.append("forbidden pairs")
    for criterion, m in zip(problem.criteria, problem.measures, strict=True):
        beyond = m.barred(block.members)
        if beyond is not None and beyond[alone].sum() > 0:
            causes.append(f"the caliper on {criterion.name}")
    return f" (because of {' and '.join(causes)})" if causes else ""


def _ways_out(block: Block, site: str) -> str:
    ways = "  Widen a caliper or drop a forbidden pair"
    if block.vacant:
        return f'{ways},\n  or set a site aside by name, for example:   odd="{site}"'
    return f'{ways},\n  or set two sites aside by name, for example:   odd=["{site}", ...]'


def _explain(problem: Problem, block: Block, stuck: Stuck) -> str:
    """Tutte's condition in words: k places for more than k groups."""
    n = len(block.members)

    def names(vertices: Iterable[int]) -> list[str]:
        return [problem.ids[int(block.members[v])] for v in vertices if v < n]

    groups = [g for g in (names(group) for group in stuck.outer) if g]
    helpers = names(stuck.inner)
    shown = "; ".join("{" + door.few(g, 8) + "}" for g in groups[:8]) + (f" and {len(groups) - 8} more groups" if len(groups) > 8 else "")
    if not helpers:
        found = f"{shown}: {len(groups[0])} sites, an odd number, may be paired only with each other"
    else:
        found = (
            f"each of the {len(groups)} groups {shown} has an odd number of sites that may be paired only inside the group or with one of "
            f"{door.few(helpers, 8)}, and {len(helpers)} cannot serve {len(groups)}"
        )
    return f"no pairing obeys the constraints: {found}.\n" + _ways_out(block, groups[0][0])


# --- the result ---------------------------------------------------------------------------------------------


def assemble(
    problem: Problem,
    table: pd.DataFrame,
    *,
    pairs: Sequence[Group],
    trios: Sequence[Group],
    singles: Sequence[int],
    reserve: Sequence[int],
    optimality: Optimality,
    odd: str | tuple[str, ...] | None,
    missing: str,
    method: str,
) -> Pairing:
    """A pairing from its groups (positions in id order): labels, totals and the table."""
    ids = problem.ids
    # positions are in id order, so sorting them sorts ids by their UTF-8 bytes
    twos = sorted((min(p), max(p)) for p in pairs)
    threes = sorted((t[0], t[1], t[2]) for t in (sorted(g) for g in trios))
    within = [gaps(problem, g) for g in (*twos, *threes)]
    costs = tuple(m.decimal(sum(g[k] or 0 for g in within)) for k, m in enumerate(problem.measures))
    names: dict[int, str] = {}
    for letter, groups in (("P", twos), ("T", threes)):
        for k, group in enumerate(groups):
            names.update({site: label(letter, k, len(groups)) for site in group})
    at_row = {row: k for k, row in enumerate(problem.row)}
    in_rows = [at_row[row] for row in range(len(ids))]
    frame = pd.DataFrame(
        {
            problem.id: pd.Series([ids[k] for k in in_rows], dtype="str"),
            "pair": pd.Series([names.get(k) for k in in_rows], dtype="str"),
            "stratum": pd.Series([problem.strata[k] for k in in_rows], dtype="str"),
        }
    )
    cells = exact_cells(problem, table)
    return Pairing(
        frame=frame,
        id=problem.id,
        pairs=tuple((ids[a], ids[b]) for a, b in twos),
        singles=tuple(ids[k] for k in sorted(singles)),
        reserve=tuple(ids[k] for k in sorted(reserve)),
        trios=tuple((ids[a], ids[b], ids[c]) for a, b, c in threes),
        costs=costs,
        optimality=optimality,
        criteria=problem.criteria,
        odd=odd,
        missing=missing,
        method=method,
        forbidden=tuple((ids[a], ids[b]) for a, b in problem.forbidden),
        required=tuple((ids[a], ids[b]) for a, b in problem.required),
        sites=_site_columns(problem, table, cells, in_rows),
        cells=cells,
        gap_totals=tuple(tuple(None if x is None else m.decimal(x) for x, m in zip(g, problem.measures, strict=True)) for g in within),
    )


def _site_columns(problem: Problem, table: pd.DataFrame, cells: Sequence[Sequence[str]], in_rows: Sequence[int]) -> pd.DataFrame:
    """The id and criteria columns in the table's row order; numbers as float64 where that changes none of them."""
    numeric = {c for k in problem.criteria if isinstance(k, Nearest | Mahalanobis) for c in k.columns}
    columns: dict[str, Any] = {problem.id: pd.Series([problem.ids[k] for k in in_rows], dtype="str")}
    for j, name in enumerate(cell_columns(problem.criteria)):
        if name == problem.id:
            continue
        text = [cells[k][j] for k in in_rows]
        if name in numeric and all(held_by_float(t) for t in text if t):
            columns[name] = pd.Series([float(t) if t else np.nan for t in text], dtype="float64")
        else:
            columns[name] = pd.Series([door.cell_text(v) or None for v in table[name].tolist()], dtype="str")
    return pd.DataFrame(columns)
