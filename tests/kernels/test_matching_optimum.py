"""The matching kernel against rustworkx and networkx on random problems, and on shapes made to be awkward."""

from __future__ import annotations

from collections.abc import Sequence

import networkx
import numpy as np
import pytest
import rustworkx

from trialkit._kernels import matching
from trialkit._kernels.blossom import Search, Stuck
from trialkit._kernels.matching import LIMB_BITS, Matching, layout, pack, perfect_matching

Array = np.ndarray

# rustworkx holds weights as i128 and is exact up to about 120 bits
ORACLE_BITS = 118


def scalar_weights(limbs: Sequence[Array]) -> tuple[Array, list[int]]:
    """One integer an edge, large enough that its order is the lexicographic order of totals; and the multipliers."""
    n = limbs[0].shape[0]
    multipliers = [1]
    for limb in reversed(limbs[1:]):
        multipliers.append(multipliers[-1] * (int(limb.max(initial=0)) * n + 1))
    multipliers.reverse()
    return sum(limb.astype(object) * m for limb, m in zip(limbs, multipliers, strict=True)), multipliers


def oracle_total(weights: Array, edges: Array) -> int | None:
    """The least total by rustworkx, None when no perfect matching exists."""
    n = weights.shape[0]
    graph = rustworkx.PyGraph(multigraph=False)
    graph.add_nodes_from(range(n))
    ceiling = max((int(weights[i, j]) for i in range(n) for j in range(i) if edges[i, j]), default=0) + 1
    graph.add_edges_from([(i, j, ceiling - int(weights[i, j])) for i in range(n) for j in range(i) if edges[i, j]])
    pairs = rustworkx.max_weight_matching(graph, max_cardinality=True, weight_fn=int)
    return sum(int(weights[i, j]) for i, j in pairs) if 2 * len(pairs) == n else None


def symmetric(upper: Array) -> Array:
    upper = np.triu(upper, 1).astype(np.int64)
    return upper + upper.T


def one_limb(rng: np.random.Generator, n: int) -> Array:
    """Integers with ties, zeros, lattices, points on a line or in the plane."""
    kind = rng.integers(6)
    if kind == 0:
        return symmetric(rng.integers(0, rng.choice([1, 2, 3, 6, 100, 2**30]) + 1, (n, n)))
    if kind == 1:
        x = rng.integers(0, 6, (n, 2))
        return np.abs(x[:, None] - x).sum(axis=2)
    if kind == 2:
        x = np.rint(rng.normal(size=n) * 1e6).astype(np.int64)
        return np.abs(x[:, None] - x)
    if kind == 3:
        x = rng.normal(size=(n, 2))
        return np.rint(1000 * np.sqrt(((x[:, None] - x) ** 2).sum(axis=2))).astype(np.int64)
    if kind == 4:  # tight clusters of odd size: blossoms inside blossoms
        x = rng.integers(0, 3, n) * 10_000 + rng.integers(0, 20, n)
        return np.abs(x[:, None] - x)
    return np.zeros((n, n), dtype=np.int64)


def random_problem(rng: np.random.Generator) -> tuple[list[Array], Array]:
    n = 2 * int(rng.integers(1, 16))
    limbs = [one_limb(rng, n) for _ in range(rng.integers(1, 4))]
    edges = np.triu(rng.random((n, n)) < rng.choice([1.0, 1.0, 0.8, 0.5, 0.3]), 1)
    return limbs, edges | edges.T


def disagreements(problems: int, seed: int, *, as_objects: bool = False) -> tuple[int, int, int]:
    """(problems solved, of them impossible, of them not as the oracle says)."""
    rng = np.random.default_rng(seed)
    solved = impossible = wrong = 0
    while solved < problems:
        limbs, edges = random_problem(rng)
        weights, multipliers = scalar_weights(limbs)
        if int(weights.max()).bit_length() > ORACLE_BITS:
            continue
        if as_objects:
            limbs = [limb.astype(object) for limb in limbs]
        expected = oracle_total(weights, edges)
        found = perfect_matching(limbs, edges)
        solved += 1
        if isinstance(found, Stuck):
            impossible += 1
            wrong += expected is not None
        else:
            total = sum(p * m for p, m in zip(found.primal, multipliers, strict=True))
            wrong += total != expected or any(not edges[i, j] for i, j in enumerate(found.mate))
    return solved, impossible, wrong


def test_random_problems_agree_with_rustworkx() -> None:
    solved, impossible, wrong = disagreements(400, seed=20240901)
    assert (solved, wrong) == (400, 0)
    assert impossible > 10  # the generator does make impossible problems


def test_python_integers_take_the_same_way() -> None:
    assert disagreements(100, seed=5, as_objects=True)[2] == 0


def plain_start(limbs: Sequence[Array], edges: Array) -> tuple[list[Array], list[int]]:
    """Row minima and nobody matched: everything is left to the blossom search."""
    n = edges.shape[0]
    rows = [min((tuple(int(limb[i, j]) for limb in limbs) for j in np.flatnonzero(edges[i])), default=(0,) * len(limbs)) for i in range(n)]
    return [np.array([row[k] for row in rows], dtype=limb.dtype) for k, limb in enumerate(limbs)], [-1] * n


def test_the_search_needs_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "assignment_start", plain_start)
    assert disagreements(300, seed=77)[2] == 0


@pytest.mark.parametrize("problems", [150, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("wide", [0, 8])
def test_all_trees_at_once(problems: int, wide: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forest, used for every problem however few are left over; with a frontier for every blossom as well."""
    monkeypatch.setattr(matching.Forest, "few", 10**9)
    monkeypatch.setattr(Search, "wide", wide)
    assert disagreements(problems, seed=31 + wide)[2] == 0
    monkeypatch.setattr(matching, "assignment_start", plain_start)
    assert disagreements(problems // 3, seed=32 + wide)[2] == 0


@pytest.mark.parametrize("size", [3, 5, 7])
def test_many_small_levels_with_odd_counts(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape the forest is for: the same pairs as one tree at a time finds, each with its certificate."""
    rng = np.random.default_rng(size)
    n = 40 * size
    level, x = np.repeat(np.arange(40), size), rng.integers(0, 10**6, n)
    limbs = [np.abs(level[:, None] != level).astype(np.int64), np.abs(x[:, None] - x), symmetric(rng.integers(0, 2**40, (n, n)))]
    edges = ~np.eye(n, dtype=bool)
    grown: list[int] = []
    monkeypatch.setattr(matching.Forest, "_join", lambda self, u, v, join=matching.Forest._join: (grown.append(u), join(self, u, v)))
    together = perfect_matching(limbs, edges)
    assert isinstance(together, Matching) and together.primal[0] == 20 and len(grown) >= 20
    monkeypatch.setattr(matching.Forest, "few", 0)
    alone = perfect_matching(limbs, edges)
    assert isinstance(alone, Matching) and (alone.mate, alone.primal) == (together.mate, together.primal)


@pytest.mark.slow
def test_ten_thousand_random_problems() -> None:
    solved, impossible, wrong = disagreements(10_000, seed=1)
    assert (solved, wrong) == (10_000, 0)
    assert impossible > 200


@pytest.mark.slow
def test_ten_thousand_random_problems_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "assignment_start", plain_start)
    assert disagreements(10_000, seed=2)[2] == 0


def test_weights_of_any_size_agree_with_networkx() -> None:
    rng = np.random.default_rng(8)
    for _ in range(12):
        n = 2 * int(rng.integers(2, 9))
        weights = np.zeros((n, n), dtype=object)
        for i in range(n):
            for j in range(i):
                weights[i, j] = weights[j, i] = int.from_bytes(rng.bytes(37), "big")  # 296 bits
        graph = networkx.Graph()
        graph.add_weighted_edges_from((i, j, int(weights[i, j])) for i in range(n) for j in range(i))
        expected = sum(int(weights[i, j]) for i, j in networkx.min_weight_matching(graph))
        found = perfect_matching([weights], ~np.eye(n, dtype=bool))
        assert isinstance(found, Matching)
        assert found.primal == (expected,)


def test_blossoms_are_in_the_certificate() -> None:
    """Two far triangles: the bound without blossoms would let each be half-matched, and is not met by any pairs."""
    x = np.array([0, 1, 2, 1000, 1001, 1002])
    found = perfect_matching([np.abs(x[:, None] - x)], ~np.eye(6, dtype=bool))
    assert isinstance(found, Matching)
    assert found.primal == (1 + 998 + 1,)
    assert found.blossoms in (((0, 1, 2),), ((3, 4, 5),), ((0, 1, 2), (3, 4, 5)))
    assert all(value[0] > 0 for value in found.z)


def test_impossible_says_why() -> None:
    """Three triangles around one vertex: without it, three odd groups remain."""
    edges = np.zeros((10, 10), dtype=bool)
    for a in (0, 3, 6):
        edges[a : a + 3, a : a + 3] = True
        edges[a, 9] = True
    edges |= edges.T
    np.fill_diagonal(edges, False)
    found = perfect_matching([np.ones((10, 10), dtype=np.int64)], edges)
    assert found == Stuck(outer=((0, 1, 2), (3, 4, 5), (6, 7, 8)), inner=(9,)) or (
        isinstance(found, Stuck) and len(found.outer) == len(found.inner) + 1
    )


def test_every_stuck_answer_is_a_proof() -> None:
    """Tutte: with the inner vertices gone, the outer groups are components of odd size, one more than the inner vertices."""
    rng = np.random.default_rng(3)
    seen = 0
    while seen < 40:
        limbs, edges = random_problem(rng)
        found = perfect_matching(limbs, edges)
        if isinstance(found, Matching):
            continue
        seen += 1
        inner = set(found.inner)
        assert len(found.outer) == len(inner) + 1
        for group in found.outer:
            assert len(group) % 2 == 1
            neighbours = {int(j) for v in group for j in np.flatnonzero(edges[v])}
            assert neighbours <= inner | set(group)


def test_duals_beyond_int64_are_redone_in_python_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.array([0, 5, 6, 7, 20, 21, 23, 40])
    weights = np.abs(x[:, None] - x)
    expected = perfect_matching([weights], ~np.eye(8, dtype=bool))
    monkeypatch.setattr("trialkit._kernels.blossom._HEADROOM", 4)
    monkeypatch.setattr(matching, "assignment_start", plain_start)
    kinds = []
    original = matching.Forest.run
    monkeypatch.setattr(matching.Forest, "run", lambda self: (kinds.append(self.pot[0].dtype), original(self))[1])
    again = perfect_matching([weights], ~np.eye(8, dtype=bool))
    assert isinstance(expected, Matching) and isinstance(again, Matching)
    assert again.primal == expected.primal
    assert kinds == [np.int64, object]


def test_a_broken_search_is_caught_by_its_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Search) -> None:
        self.mate[:] = [2, 3, 0, 1]

    monkeypatch.setattr(Search, "run", wrong)
    x = np.array([0, 10, 11, 21])
    with pytest.raises(RuntimeError, match="failed its own certificate"):
        perfect_matching([np.abs(x[:, None] - x)], ~np.eye(4, dtype=bool))


@pytest.mark.parametrize(
    ("limbs", "n", "words"),
    [
        ([np.zeros((3, 3), dtype=np.int64)], 3, "odd"),
        ([], 4, "there must be one"),
        ([np.zeros((2, 2), dtype=np.int64)], 4, "must be an"),
        ([np.full((4, 4), 1 << LIMB_BITS)], 4, "below"),
        ([np.zeros((4, 4))], 4, "int64"),
    ],
)
def test_bad_arrays(limbs: list[Array], n: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        perfect_matching(limbs, ~np.eye(n, dtype=bool))


def test_nothing_to_match() -> None:
    found = perfect_matching([np.zeros((0, 0), dtype=np.int64)], np.zeros((0, 0), dtype=bool))
    assert isinstance(found, Matching)
    assert (found.mate, found.primal) == ((), (0,))


def test_packed_ranks_order_as_the_ranks_do() -> None:
    """However ranks share limbs, the optimum is the one with a limb for each."""
    rng = np.random.default_rng(4)
    for _ in range(60):
        n = 2 * int(rng.integers(2, 9))
        ranks = [one_limb(rng, n) * int(rng.choice([1, 1, 2**20])) for _ in range(int(rng.integers(2, 6)))]
        plan = layout([int(r.max()) for r in ranks], [int((r.max(axis=1).sum() + 1) // 2) for r in ranks])
        assert [r for limb in plan.limbs for r, _ in limb] == list(range(len(ranks)))
        limbs = pack(dict(enumerate(ranks)), plan)
        assert len(limbs) == len(plan.limbs)
        edges = ~np.eye(n, dtype=bool)
        packed = perfect_matching(limbs, edges)
        apart = perfect_matching([r if not int(r.max()) >> LIMB_BITS else r.astype(object) for r in ranks], edges)
        assert isinstance(packed, Matching) and isinstance(apart, Matching)
        totals = tuple(sum(int(r[i, j]) for i, j in enumerate(packed.mate) if i < j) for r in ranks)
        assert totals == apart.primal
