"""The checker of dual certificates: it accepts what is optimal and refuses everything else."""

from __future__ import annotations

import numpy as np
import pytest

from trialkit._kernels.matching import Matching, perfect_matching
from trialkit._kernels.matching_proof import Verdict, check_certificate
from trialkit._kernels.matching_ties import tie_weights

Array = np.ndarray


def problem(seed: int, n: int = 24) -> tuple[list[Array], Array, Matching]:
    """Clusters of odd size and a second limb that breaks ties: a certificate with blossoms."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, n) * 1000 + rng.integers(0, 30, n)
    limbs = [np.abs(x[:, None] - x), tie_weights([f"S{k:02d}" for k in range(n)])]
    edges = ~np.eye(n, dtype=bool)
    found = perfect_matching(limbs, edges)
    assert isinstance(found, Matching)
    assert found.blossoms
    return limbs, edges, found


def judge(limbs: list[Array], edges: Array, found: Matching, **changed: object) -> Verdict:
    parts = {"mate": found.mate, "y": [np.array(v) for v in found.y], "blossoms": found.blossoms, "z": found.z, **changed}
    return check_certificate(limbs, edges, **parts)


@pytest.mark.parametrize("seed", range(5))
def test_what_the_search_returns_holds(seed: int) -> None:
    limbs, edges, found = problem(seed)
    verdict = judge(limbs, edges, found)
    assert verdict.holds
    assert verdict.primal == found.primal
    assert verdict.edges == edges.sum() // 2


@pytest.mark.parametrize("seed", range(3))
def test_any_single_changed_dual_is_refused(seed: int) -> None:
    limbs, edges, found = problem(seed)
    for k in range(len(limbs)):
        for v in range(len(found.mate)):
            for step in (-2, -1, 1, 2, 1 << 70):
                y = [np.array(u, dtype=object) for u in found.y]
                y[k][v] += step
                assert not judge(limbs, edges, found, y=y).holds
        for b in range(len(found.blossoms)):
            for step in (-2, -1, 1, 2):
                z = [list(value) for value in found.z]
                z[b][k] += step
                assert not judge(limbs, edges, found, z=z).holds


def test_any_two_pairs_exchanged_are_refused() -> None:
    limbs, edges, found = problem(1)
    pairs = [(i, j) for i, j in enumerate(found.mate) if i < j]
    for a, b in pairs:
        for c, d in pairs:
            if a < c:
                mate = list(found.mate)
                mate[a], mate[c], mate[b], mate[d] = c, a, d, b
                assert not judge(limbs, edges, found, mate=mate).holds


def test_a_cheaper_edge_than_the_certificate_knew_is_refused() -> None:
    limbs, edges, found = problem(2)
    i, j = next((i, j) for i in range(24) for j in range(i) if found.mate[i] != j and limbs[0][i, j] > 500)
    limbs[0][i, j] = limbs[0][j, i] = 0
    verdict = judge(limbs, edges, found)
    assert verdict.complaint == "an edge is cheaper than the duals allow"
    assert set(verdict.at) == {i, j}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"mate": [1, 0, 3]}, "perfect matching"),
        ({"mate": list(range(24))}, "perfect matching"),
        ({"mate": [-1] * 24}, "perfect matching"),
        ({"y": []}, "wrong shape"),
        ({"z": []}, "wrong shape"),
        ({"blossoms": [(0, 1)], "z": [(2, 0)]}, "odd set"),
        ({"blossoms": [(0, 0, 1)], "z": [(2, 0)]}, "odd set"),
        ({"blossoms": [(0, 1, 24)], "z": [(2, 0)]}, "odd set"),
        ({"blossoms": [()], "z": [(2, 0)]}, "odd set"),
        ({"blossoms": [(0, 1, 2)], "z": [(-2, 0)]}, "negative"),
        ({"blossoms": [(0, 1, 2)], "z": [(0, -2)]}, "negative"),
        ({"blossoms": [(0, 1, 2), (2, 3, 4)], "z": [(2, 0), (2, 0)]}, "overlap"),
    ],
)
def test_malformed_certificates(changed: dict[str, object], words: str) -> None:
    limbs, edges, found = problem(3)
    assert words in judge(limbs, edges, found, **changed).complaint


def test_a_forbidden_pair_is_refused() -> None:
    limbs, edges, found = problem(4)
    edges[0, found.mate[0]] = edges[found.mate[0], 0] = False
    verdict = judge(limbs, edges, found)
    assert verdict.complaint == "a pair is not allowed"
    assert set(verdict.at) == {0, found.mate[0]}


def test_blossom_duals_on_nested_sets_are_summed() -> None:
    """Against the definition: every edge inside a blossom gains its dual, however the family nests."""
    from trialkit._kernels.matching_proof import _add_blossoms, _nest

    family = [(0, 1, 2), (0, 1, 2, 3, 4, 5, 6), (4, 5, 6), (8, 9, 10), tuple(range(11)), (0, 1, 2, 3, 4, 5, 6, 7, 11)]
    assert _nest(family, 12) is None  # the last two cross
    family.pop()
    z = [3, 5, 7, 11, 13]
    expected = np.zeros((12, 12), dtype=np.int64)
    for b, value in zip(family, z, strict=True):
        expected[np.ix_(b, b)] += value
    slack = np.zeros((12, 12), dtype=np.int64)
    nested = _nest(family, 12)
    assert nested is not None
    _add_blossoms(slack, nested, z)
    assert (slack == expected).all()


def test_tie_weights_are_the_published_rule() -> None:
    from hashlib import sha256

    ids = sorted(["S01", "S10", "é", "z", "Z"], key=str.encode)
    weights = tie_weights(ids)
    assert (weights == weights.T).all() and not weights.diagonal().any()
    for i, a in enumerate(ids):
        for j, b in enumerate(ids[i + 1 :], start=i + 1):
            assert weights[i, j] == int(sha256(f"tie-1\n{a}\n{b}".encode()).hexdigest()[:10], 16)
