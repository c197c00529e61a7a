"""The primal-dual search behind the matching kernel: one tree at a time, blossoms, vectorised row scans.

Minimise the total weight of a perfect matching in a general graph (Edmonds 1965; the dual is kept feasible
throughout, as in Galil 1986, and the tree is grown like Dijkstra's). With ``c = 2 w`` (doubled, so that every
quantity stays an integer) the dual is

    max  sum_i y_i - sum_B z_B (|B| - 1) / 2      s.t.  y_i + y_j - sum_{B contains i, j} z_B <= c_ij,  z_B >= 0,

B running over odd sets of vertices. Weights are *vectors* of integers compared lexicographically, one numpy
array a component ("limb"): the algorithm only adds, subtracts, halves and compares, so it holds in any ordered
abelian group, and no rank needs a multiplier large enough to dominate the next.

While a tree grows, duals are kept relative to the running step ``delta`` so that nothing is touched twice:
the true ``y`` of an outer vertex is ``pot + delta``, of an inner vertex ``pot - delta``, of any other ``pot``;
of a blossom ``z = zpot + 2 delta`` when outer and ``zpot - 2 delta`` when inner.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Step = tuple[int, ...]

# int64 limbs: a missing edge weighs 2**61; duals stay below 2**57, so that no sum of three can reach 2**60 by mistake
EDGELESS = 1 << 61
_HEADROOM = 1 << 57
_OUTER, _INNER = 1, 2


class DualsTooLarge(ArithmeticError):
    """A dual left the range in which int64 sums are safe; the caller repeats the search in Python integers."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Why no perfect matching exists: without the `inner` vertices, each `outer` group is an odd component of its own.

    There is one group more than there are inner vertices to meet them (Tutte 1947).
    """

    outer: tuple[tuple[int, ...], ...]
    inner: tuple[int, ...]


def _least(limbs: Sequence[Array], candidates: Array) -> int:
    """Of the positions `candidates`, the one whose vector across `limbs` is lexicographically smallest."""
    values = limbs[0][candidates]
    if len(limbs) == 1:
        return int(candidates[values.argmin()])
    for limb in limbs[1:]:
        candidates = candidates[values == values.min()]
        if candidates.size == 1:
            break
        values = limb[candidates]
    else:
        candidates = candidates[values == values.min()]
    return int(candidates[0])


def _settle_ties(better: Array, tied: Array, row: Sequence[Array], best: Sequence[Array]) -> None:
    """Set `better` at those positions `tied` in the first limb where a later limb of `row` is smaller than `best`."""
    for r, g in zip(row[1:], best[1:], strict=True):
        if not tied.size:
            return
        mine, theirs = r[tied], g[tied]
        better[tied[mine < theirs]] = True
        tied = tied[mine == theirs]


class Search:
    """The state of one matching problem; `run` completes the matching.

    Parameters
    ----------
    limbs : sequence of (n, n) arrays
        Doubled weights, symmetric, int64 or object (Python integers). A missing edge holds `edgeless` in limb 0.
    y : sequence of (n,) arrays
        A feasible start: ``y_i + y_j <= c_ij`` on every edge, lexicographically.
    mate : list of int
        A matching on tight edges; -1 for a vertex without a mate.
    edgeless : int
        The weight in limb 0 that marks a missing edge.
    """

    # a blossom with more edges to others than this many rows keeps a frontier
    wide = 8

    def __init__(self, limbs: Sequence[Array], y: Sequence[Array], mate: list[int], *, edgeless: int = EDGELESS) -> None:
        n = len(mate)
        self.n = n
        self.limbs = limbs
        self.count = len(limbs)
        self.edgeless = edgeless
        self.none = edgeless >> 1
        self.mate = mate
        self.pot = [np.array(v) for v in y]
        # blossoms, by id; a vertex is its own blossom, ids from n on are odd cycles and are never used twice
        self.next_id = n
        self.top: Array = np.arange(n)
        self.cycle: dict[int, list[int]] = {}
        self.joints: dict[int, list[tuple[int, int]]] = {}
        self.inside: dict[int, list[int]] = {v: [v] for v in range(n)}
        self.base: dict[int, int] = {v: v for v in range(n)}
        self.zpot: dict[int, list[int]] = {}
        # the tree
        self.label: dict[int, int] = {}
        self.entry: dict[int, tuple[int, int] | None] = {}
        self.delta: Step = (0,) * self.count
        self.free: Array = np.ones(n, dtype=bool)
        self.grow = [np.empty_like(v) for v in self.pot]
        self.source: Array = np.zeros(n, dtype=np.int64)
        self.outer: Array = np.zeros(n, dtype=np.int64)
        self.n_outer = 0
        self.meetings: list[tuple[Any, ...]] = []  # (step, outer vertex, outer vertex, ...)
        self.hollows: list[tuple[Any, ...]] = []  # (step, inner blossom, ...)
        self.frontier: dict[int, tuple[list[Array], Array]] = {}
        self.row = [np.empty_like(v) for v in self.pot]

    # --- the whole run --------------------------------------------------------------------------------------

    def run(self) -> Stuck | None:
        """Augment from every vertex without a mate; None when the matching is perfect."""
        for root in range(self.n):
            if self.mate[root] < 0:
                stuck = self._phase(root)
                if stuck is not None:
                    return stuck
        return None

    def blossoms(self) -> list[tuple[tuple[int, ...], Step]]:
        """Every blossom with a positive dual: its vertices and z, between phases."""
        found = []
        stack = [b for b in set(self.top.tolist()) if b >= self.n]
        while stack:
            b = stack.pop()
            if any(self.zpot[b]):
                found.append((tuple(sorted(self.inside[b])), tuple(self.zpot[b])))
            stack.extend(c for c in self.cycle[b] if c >= self.n)
        return sorted(found)

    # --- one phase: a tree from one root until it meets another vertex without a mate ---------------------------

    def _begin(self) -> None:
        """No tree, no step taken, nothing noted."""
        self.delta = (0,) * self.count
        self.free[:] = True
        self.grow[0].fill(self.edgeless)
        for limb in self.grow[1:]:
            limb.fill(0)
        self.n_outer = 0
        self.meetings.clear()
        self.hollows.clear()
        self.frontier.clear()

    def _phase(self, root: int) -> Stuck | None:
        self._begin()
        self._make_outer(int(self.top[root]), None)
        while True:
            at_grow, vertex = self._next_grow()
            at_meet = self._next_meeting()
            at_hollow = self._next_hollow()
            steps = [at for at in (at_grow, at_meet, at_hollow) if at is not None]
            if not steps:
                return self._give_up()
            self.delta = step = min(steps)
            self._guard(step)
            if step == at_grow:
                s = int(self.source[vertex])
                if self._grow(s, vertex):
                    return None
            elif step == at_meet:
                meeting = heapq.heappop(self.meetings)
                self._shrink(meeting[1], meeting[2])
            else:
                self._expand_inner(heapq.heappop(self.hollows)[1])

    def _guard(self, step: Step) -> None:
        for value, limb in zip(step, self.pot, strict=True):
            if limb.dtype != object and not -_HEADROOM < value < _HEADROOM:
                raise DualsTooLarge

    def _next_grow(self) -> tuple[Step | None, int]:
        first = self.grow[0]
        v = int(first.argmin())
        if first[v] >= self.none:
            return None, -1
        if self.count > 1:
            v = _least(self.grow, np.flatnonzero(first == first[v]))
        return tuple(int(limb[v]) for limb in self.grow), v

    def _next_meeting(self) -> Step | None:
        heap, top = self.meetings, self.top
        while heap and top[heap[0][1]] == top[heap[0][2]]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def _next_hollow(self) -> Step | None:
        heap, label = self.hollows, self.label
        while heap and label.get(heap[0][1]) != _INNER:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    # --- labels -----------------------------------------------------------------------------------------------

    def _make_outer(self, b: int, entry: tuple[int, int] | None) -> None:
        """Label a blossom that was outside the tree as outer, and scan its rows."""
        self.label[b] = _OUTER
        self.entry[b] = entry
        members = self.inside[b]
        self._shift(members, -1)
        self._leave_free(members)
        if b >= self.n:
            self.zpot[b] = [z - 2 * d for z, d in zip(self.zpot[b], self.delta, strict=True)]
        for s in members:
            self._scan(s, meet=True)
        self._enlist(members)

    def _shift(self, members: list[int], sign: int) -> None:
        for pot, d in zip(self.pot, self.delta, strict=True):
            if d:
                pot[members] += sign * d

    def _leave_free(self, members: list[int]) -> None:
        self.free[members] = False
        self.grow[0][members] = self.edgeless

    def _enlist(self, members: list[int]) -> None:
        k = self.n_outer
        self.outer[k : k + len(members)] = members
        self.n_outer = k + len(members)

    def _scan(self, s: int, *, meet: bool) -> None:
        """Offer the edges of the outer vertex `s`: to vertices outside the tree, and (`meet`) to other outer vertices."""
        row, grow = self.row, self.grow
        for limb, pot, out in zip(self.limbs, self.pot, row, strict=True):
            np.subtract(limb[s], pot, out=out)
            out -= pot[s]
        better = row[0] < grow[0]
        if self.count > 1:
            _settle_ties(better, np.flatnonzero((row[0] == grow[0]) & self.free), row, grow)
        better &= self.free
        if better.any():
            for r, g in zip(row, grow, strict=True):
                np.copyto(g, r, where=better)
            self.source[better] = s
        if meet and self.n_outer:
            v = _least(row, self.outer[: self.n_outer])
            self._note_meeting(s, v, [r[v] for r in row])

    def _note_meeting(self, u: int, v: int, slack: Sequence[Any]) -> None:
        if slack[0] < self.none:
            # all vertices of one tree have duals of one parity, so the slack halves exactly
            heapq.heappush(self.meetings, (tuple(int(x) // 2 for x in slack), u, v))

    def _note_hollow(self, b: int) -> None:
        if b >= self.n:
            heapq.heappush(self.hollows, (tuple(z // 2 for z in self.zpot[b]), b))

    # --- growing, and the end of a phase ------------------------------------------------------------------------

    def _grow(self, s: int, v: int) -> bool:
        """Take the blossom of `v` into the tree by the tight edge (s, v); True when that completes the phase."""
        b = int(self.top[v])
        exit_vertex = self.base[b]
        partner = self.mate[exit_vertex]
        if partner < 0:
            self._augment(s, v)
            return True
        self.label[b] = _INNER
        self.entry[b] = (s, v)
        members = self.inside[b]
        self._shift(members, 1)
        self._leave_free(members)
        if b >= self.n:
            self.zpot[b] = [z + 2 * d for z, d in zip(self.zpot[b], self.delta, strict=True)]
            self._note_hollow(b)
        self._make_outer(int(self.top[partner]), (exit_vertex, partner))
        return False

    def _augment(self, s: int, v: int) -> None:
        self._turn(int(self.top[v]), v)
        self.mate[v] = s
        self._rematch(s, v)
        self._close()

    def _rematch(self, s: int, inward: int) -> None:
        """Give the outer vertex `s` the mate `inward`, and rematch the path from `s` to its root."""
        top, mate, entry = self.top, self.mate, self.entry
        while True:
            b = int(top[s])
            self._turn(b, s)
            mate[s] = inward
            up = entry[b]
            if up is None:
                return
            link = entry[int(top[up[0]])]
            assert link is not None
            s, w = link
            self._turn(int(top[w]), w)
            mate[w] = s
            inward = w

    def _close(self) -> None:
        """End the phase: no vertex is in a tree any more."""
        self._release(list(self.label.items()))
        for limb in self.pot:
            if limb.dtype != object and (int(limb.max()) >= _HEADROOM or int(limb.min()) <= -_HEADROOM):
                raise DualsTooLarge

    def _release(self, labels: Sequence[tuple[int, int]]) -> None:
        """Make the duals of these blossoms absolute again, drop their labels, and dissolve outer ones whose dual is zero."""
        for sign, kind in ((1, _OUTER), (-1, _INNER)):
            members = [v for b, lab in labels if lab == kind for v in self.inside[b]]
            if members:
                self._shift(members, sign)
        for b, lab in labels:
            if b >= self.n:
                sign = 2 if lab == _OUTER else -2
                self.zpot[b] = [z + sign * d for z, d in zip(self.zpot[b], self.delta, strict=True)]
        for b, _ in labels:
            del self.label[b], self.entry[b]
        stack = [b for b, lab in labels if lab == _OUTER and b >= self.n]
        while stack:
            b = stack.pop()
            if not any(self.zpot[b]):
                for child in self.cycle[b]:
                    self.top[self.inside[child]] = child
                    if child >= self.n:
                        stack.append(child)
                self._forget(b)

    def _give_up(self) -> Stuck:
        outer = tuple(sorted(tuple(sorted(self.inside[b])) for b, lab in self.label.items() if lab == _OUTER))
        inner = tuple(sorted(v for b, lab in self.label.items() if lab == _INNER for v in self.inside[b]))
        return Stuck(outer=outer, inner=inner)

    def _forget(self, b: int) -> None:
        del self.cycle[b], self.joints[b], self.inside[b], self.base[b], self.zpot[b]

    # --- blossoms -----------------------------------------------------------------------------------------------

    def _path(self, v: int) -> list[int]:
        """Top-level blossoms from `v` to the root, alternately outer and inner."""
        path = [int(self.top[v])]
        while True:
            up = self.entry[path[-1]]
            if up is None:
                return path
            path.append(int(self.top[up[0]]))

    def _shrink(self, u: int, v: int) -> None:
        """Two outer vertices meet on a tight edge: their tree paths close an odd cycle, which becomes one blossom."""
        left, right = self._path(u), self._path(v)
        seen = set(left)
        meet = next(b for b in right if b in seen)
        left, right = left[: left.index(meet)], right[: right.index(meet)]
        down = left[::-1]
        cycle = [meet, *down, *right]
        entries = [self.entry[c] for c in down]
        joints = [(p, q) for p, q in (e for e in entries if e is not None)]
        joints.append((u, v))
        for c in right:
            up = self.entry[c]
            assert up is not None
            joints.append((up[1], up[0]))
        b = self.next_id
        self.next_id += 1
        self.cycle[b], self.joints[b] = cycle, joints
        self.base[b] = self.base[meet]
        members: list[int] = []
        turned: list[int] = []
        for c in cycle:
            members += self.inside[c]
            kind = self.label.pop(c)
            if kind == _INNER:
                turned += self.inside[c]
            if c >= self.n:
                sign = 2 if kind == _OUTER else -2
                self.zpot[c] = [z + sign * d for z, d in zip(self.zpot[c], self.delta, strict=True)]
        self.inside[b] = members
        self.zpot[b] = [-2 * d for d in self.delta]
        self.label[b] = _OUTER
        self.entry[b] = self.entry[meet]
        for c in cycle:
            del self.entry[c]
        self.top[members] = b
        # inner vertices have become outer: y = pot - delta must read y = pot + delta
        self._shift(turned, -2)
        for s in turned:
            self._scan(s, meet=False)
        self._enlist(turned)
        self._meet_others(members, b)

    def _meet_others(self, members: list[int], b: int) -> None:
        """The best edge from a new outer blossom to any other outer vertex."""
        others = self.outer[: self.n_outer]
        others = others[self.top[others] != b]
        if not others.size:
            return
        if len(members) == 1 or len(members) * others.size <= self.wide * self.n:
            rows = np.array(members)
            first = self.limbs[0][rows[:, None], others] - self.pot[0][rows][:, None] - self.pot[0][others]
            at, to = np.nonzero(first == first.min())
            u, v = self._nearest(rows[at], others[to])
            self._note_meeting(u, v, [limb[u, v] - pot[u] - pot[v] for limb, pot in zip(self.limbs, self.pot, strict=True)])
            return
        nearest, via = self._frontier(b)
        slack = [x[others] - pot[others] for x, pot in zip(nearest, self.pot, strict=True)]
        k = _least(slack, np.arange(others.size))
        self._note_meeting(int(via[others[k]]), int(others[k]), [x[k] for x in slack])

    def _frontier(self, b: int) -> tuple[list[Array], Array]:
        """For every vertex, the least of weight minus `pot` over the members of a large outer blossom, and which member.

        A blossom that grows by a few vertices at a time takes over the frontier of its largest part.
        """
        if b in self.frontier:
            return self.frontier[b]
        parts = sorted(self.cycle[b], key=lambda c: len(self.inside[c]))
        heir = parts.pop()
        found = self.frontier.pop(heir, None)
        fresh = [v for c in parts for v in self.inside[c]]
        if found is None:
            fresh += self.inside[heir]
            first = fresh.pop()
            found = [limb[first] - pot[first] for limb, pot in zip(self.limbs, self.pot, strict=True)], np.full(self.n, first)
        nearest, via = found
        for m in fresh:
            row = [limb[m] - pot[m] for limb, pot in zip(self.limbs, self.pot, strict=True)]
            better = row[0] < nearest[0]
            if self.count > 1:
                _settle_ties(better, np.flatnonzero(row[0] == nearest[0]), row, nearest)
            for x, r in zip(nearest, row, strict=True):
                np.copyto(x, r, where=better)
            via[better] = m
        self.frontier[b] = found
        return found

    def _expand_inner(self, b: int) -> None:
        """The dual of an inner blossom has reached zero: put its children back into the tree, or outside it."""
        cycle, joints = self.cycle[b], self.joints[b]
        link = self.entry[b]
        assert link is not None
        for c in cycle:
            self.top[self.inside[c]] = c
        m = len(cycle)
        at = cycle.index(int(self.top[link[1]]))
        # the even way round from the child that is entered to the base: its first step is a matched edge
        if at % 2 == 0:
            order = list(range(at, -1, -1))
            steps = [joints[k - 1][::-1] for k in order[:-1]]
        else:
            order = [*range(at, m), 0]
            steps = [joints[k] for k in order[:-1]]
        del self.label[b], self.entry[b]
        on_path = [cycle[k] for k in order]
        outside = set(cycle) - set(on_path)
        for c in outside:
            members = self.inside[c]
            self._shift(members, -1)
            self.free[members] = True
        freed = [v for c in outside for v in self.inside[c]]
        if freed:
            self._reach(freed)
        for position, c in enumerate(on_path):
            self.entry[c] = link if position == 0 else steps[position - 1]
            if position % 2 == 0:
                self.label[c] = _INNER
                if c >= self.n:
                    self.zpot[c] = [z + 2 * d for z, d in zip(self.zpot[c], self.delta, strict=True)]
                    self._note_hollow(c)
        for c in on_path[1::2]:
            # inner vertices become outer, as in _shrink
            members = self.inside[c]
            self.label[c] = _OUTER
            if c >= self.n:
                self.zpot[c] = [z - 2 * d for z, d in zip(self.zpot[c], self.delta, strict=True)]
            self._shift(members, -2)
            for s in members:
                self._scan(s, meet=True)
            self._enlist(members)
        self._forget(b)

    def _reach(self, freed: list[int]) -> None:
        """The best edge from the tree to vertices that have just left it."""
        outer = self.outer[: self.n_outer]
        base = self.pot[0][outer]
        for v in freed:
            first = self.limbs[0][v].take(outer) - base
            near = outer[first == first.min()]
            s, _ = self._nearest(near, np.full(near.size, v))
            for g, limb, pot in zip(self.grow, self.limbs, self.pot, strict=True):
                g[v] = limb[s, v] - pot[s] - pot[v]
            self.source[v] = s

    def _nearest(self, us: Array, vs: Array) -> tuple[int, int]:
        """Of edges (us[k], vs[k]) that tie in the first limb, the one with the least slack in the others."""
        for limb, pot in zip(self.limbs[1:], self.pot[1:], strict=True):
            if us.size == 1:
                break
            slack = limb[us, vs] - pot[us] - pot[vs]
            tied = slack == slack.min()
            us, vs = us[tied], vs[tied]
        return int(us[0]), int(vs[0])

    def _turn(self, b: int, v: int) -> None:
        """Make `v` the base of blossom `b`: rematch along the even path from its child to the old base, at every depth."""
        stack = [(b, v)]
        while stack:
            b, v = stack.pop()
            if b < self.n or self.base[b] == v:
                continue
            cycle, joints = self.cycle[b], self.joints[b]
            m = len(cycle)
            at = next(k for k, c in enumerate(cycle) if v in self.inside[c])
            stack.append((cycle[at], v))
            ks = range(0, at, 2) if at % 2 == 0 else range(at + 1, m, 2)
            for k in ks:
                p, q = joints[k]
                stack.append((cycle[k], p))
                stack.append((cycle[(k + 1) % m], q))
                self.mate[p], self.mate[q] = q, p
            self.cycle[b] = cycle[at:] + cycle[:at]
            self.joints[b] = joints[at:] + joints[:at]
            self.base[b] = v
