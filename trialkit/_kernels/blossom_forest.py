"""All trees at once: the part of the matching search in which no vertex without a mate has to wait for its turn.

`Search` grows one tree until it reaches another vertex without a mate. Where many vertices are left over and far from
each other in the first rank (hundreds of small levels with odd counts), each such tree runs over most of the sites. Here
every vertex without a mate is a root, all trees grow by the same step (Edmonds 1965; Gabow 1976), and the first two trees
that meet are matched and released; the others stay as they are. Two additions keep that exact:

- Roots begin at duals of one parity (an odd one is lowered by one, which keeps every edge feasible), so that all outer
  vertices have one parity and the step at which two trees meet is a whole number.
- A vertex that leaves its tree begins a new era. Meetings noted in an older era are void, and every blossom whose
  nearest other outer vertex has left looks for its nearest again.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np

from trialkit._kernels.blossom import _INNER, EDGELESS, Search, Step, Stuck

Array = np.ndarray[Any, np.dtype[Any]]


class Forest(Search):
    """A `Search` that grows trees from all vertices without a mate when they are many; what it cannot match, single trees explain."""

    # measured: with fewer than one vertex in eight left over, one tree at a time is as fast or faster
    few = 8

    def __init__(self, limbs: Sequence[Array], y: Sequence[Array], mate: list[int], *, edgeless: int = EDGELESS) -> None:
        super().__init__(limbs, y, mate, edgeless=edgeless)
        self.tree: dict[int, int] = {}  # top-level blossom -> the root of its tree
        self.era: Array = np.zeros(self.n, dtype=np.int64)
        self.nearest: dict[int, tuple[Step, int]] = {}  # outer blossom -> the least step noted for it, and to which vertex

    def run(self) -> Stuck | None:
        """Augment until the matching is perfect, or say why none is."""
        roots = [v for v in range(self.n) if self.mate[v] < 0]
        if len(roots) * self.few > self.n:
            self._all_trees(roots)
        return super().run()

    def _all_trees(self, roots: list[int]) -> None:
        for limb in self.pot:
            limb[roots] -= limb[roots] % 2
        self._begin()
        for root in roots:
            self.tree[root] = root
            self._make_outer(root, None)
        while self.label:
            at_grow, vertex = self._next_grow()
            at_meet = self._next_meeting()
            at_hollow = self._next_hollow()
            steps = [at for at in (at_grow, at_meet, at_hollow) if at is not None]
            if not steps:
                self._close()
                break
            self.delta = step = min(steps)
            self._guard(step)
            if step == at_grow:
                self._grow(int(self.source[vertex]), vertex)
            elif step == at_meet:
                _, u, v, _ = heapq.heappop(self.meetings)
                if self.tree[int(self.top[u])] == self.tree[int(self.top[v])]:
                    self._shrink(u, v)
                else:
                    self._join(u, v)
            else:
                self._expand_inner(heapq.heappop(self.hollows)[1])

    # --- two trees meet ---------------------------------------------------------------------------------------

    def _join(self, u: int, v: int) -> None:
        """Match the roots of two trees along the tight edge (u, v), and release both trees."""
        ends = self.tree[int(self.top[u])], self.tree[int(self.top[v])]
        self._rematch(u, v)
        self._rematch(v, u)
        labels = [(b, kind) for b, kind in self.label.items() if self.tree[b] in ends]
        left = [x for b, _ in labels for x in self.inside[b]]
        self._release(labels)
        for b, _ in labels:
            del self.tree[b]
            self.nearest.pop(b, None)
            self.frontier.pop(b, None)
        gone = np.zeros(self.n, dtype=bool)
        gone[left] = True
        self.era[left] += 1
        self.free[left] = True
        outer = self.outer[: self.n_outer]
        stay = outer[~gone[outer]]
        self.n_outer = stay.size
        self.outer[: stay.size] = stay
        self._find_again(np.flatnonzero(self.free & (gone | gone[self.source])))
        for b, (_, x) in list(self.nearest.items()):
            if gone[x]:
                del self.nearest[b]
                self._meet_others(self.inside[b], b)

    def _find_again(self, lost: Array) -> None:
        """The best edges to vertices outside the trees whose best one came from a tree that is gone."""
        if self.n_outer:
            self._reach(lost.tolist())
            return
        self.grow[0][lost] = self.edgeless
        for limb in self.grow[1:]:
            limb[lost] = 0

    # --- what a single tree need not know -----------------------------------------------------------------------

    def _grow(self, s: int, v: int) -> bool:
        b = int(self.top[v])
        partner = self.mate[self.base[b]]
        if partner >= 0:
            self.tree[b] = self.tree[int(self.top[partner])] = self.tree.get(int(self.top[s]), -1)
        return super()._grow(s, v)

    def _shrink(self, u: int, v: int) -> None:
        b = self.next_id
        root = self.tree.get(int(self.top[u]), -1)
        super()._shrink(u, v)
        self.tree[b] = root
        for c in self.cycle[b]:
            self.tree.pop(c, None)
            self.nearest.pop(c, None)
            self.frontier.pop(c, None)  # a part that becomes a blossom of its own again has other duals by then

    def _expand_inner(self, b: int) -> None:
        root, children = self.tree.pop(b, -1), self.cycle[b]
        super()._expand_inner(b)
        for c in children:
            if c in self.label:
                self.tree[c] = root

    def _note_meeting(self, u: int, v: int, slack: Sequence[Any]) -> None:
        if slack[0] < self.none:
            step = tuple(int(x) // 2 for x in slack)
            heapq.heappush(self.meetings, (step, u, v, int(self.era[u] + self.era[v])))
            b = int(self.top[u])
            if b not in self.nearest or step < self.nearest[b][0]:
                self.nearest[b] = step, v

    def _next_meeting(self) -> Step | None:
        heap, top, era = self.meetings, self.top, self.era
        while heap:
            step, u, v, then = heap[0]
            if then == era[u] + era[v] and top[u] != top[v]:
                return tuple(step)
            heapq.heappop(heap)
        return None

    def _note_hollow(self, b: int) -> None:
        if b >= self.n:
            heapq.heappush(self.hollows, (tuple(z // 2 for z in self.zpot[b]), b, int(self.era[self.inside[b][0]])))

    def _next_hollow(self) -> Step | None:
        heap = self.hollows
        while heap:
            step, b, then = heap[0]
            if self.label.get(b) == _INNER and then == self.era[self.inside[b][0]]:
                return tuple(step)
            heapq.heappop(heap)
        return None
