"""The trial's sentence read literally: take the nearest neighbours first, rank by rank, one pair after the other.

Greedy, hence no minimum of anything; offered by name, to be compared with the optimum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trialkit import door
from trialkit.allocation.problem import Block, Problem, allowed, weigh

Group = tuple[int, ...]


def nearest_first(problem: Problem, parts: Sequence[Block], *, trio: bool) -> tuple[list[Group], list[int], list[Group]]:
    """Pairs taken one by one, the closest first; what is left over; and with `trio`, the leftover's group of three.

    Of all allowed pairs of sites still open, take the one with the smallest vector of distances in rank order (ties by the
    canonical hash of the ids), close its two sites, and go on. The leftover joins the pair to whose two sites its distances
    are smallest in sum.
    """
    _, limbs = weigh(problem, parts, groups_of_three=trio)
    pairs: list[Group] = []
    left: list[int] = []
    trios: list[Group] = []
    for block, weights in zip(parts, limbs, strict=True):
        n = len(block.members)
        edges = allowed(problem, block)[:n, :n]
        first, second = np.nonzero(np.triu(edges))
        order = np.lexsort([w[first, second] for w in reversed(weights)])
        open_sites = np.ones(n, dtype=bool)
        chosen: list[Group] = []
        for k in order.tolist():
            a, b = int(first[k]), int(second[k])
            if open_sites[a] and open_sites[b]:
                open_sites[a] = open_sites[b] = False
                chosen.append((a, b))
        rest = np.flatnonzero(open_sites).tolist()
        if len(rest) > block.vacant:
            names = [problem.ids[int(block.members[k])] for k in rest]
            raise door.PairingError(
                f"taking the nearest pair first leaves {door.few(names, 12)}, which may not be paired with each other.\n"
                "  The optimum may still exist:   method='lexicographic'"
            )
        if rest and trio:
            odd_one = rest.pop()
            able = [(a, b) for a, b in chosen if edges[a, odd_one] and edges[b, odd_one]]
            if not able:
                raise door.PairingError(
                    f"{problem.ids[int(block.members[odd_one])]!r} is left over and may join no pair. Use odd='single'."
                )
            host = min(able, key=lambda p: tuple(int(w[p[0], odd_one] + w[p[1], odd_one]) for w in weights))
            chosen.remove(host)
            a, b, c = sorted([*host, odd_one])
            trios.append((int(block.members[a]), int(block.members[b]), int(block.members[c])))
        pairs += [(int(block.members[a]), int(block.members[b])) for a, b in chosen]
        left += [int(block.members[k]) for k in rest]
    return pairs, left, trios
