"""Adjusted p-values: R's procedures, families apart, and a missing p-value never a number by accident."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from trialkit.door import InputError
from trialkit.itt.multiplicity import METHODS, adjust, adjust_families, gatekeeping, graphical

THEIRS = {"bonferroni": "bonferroni", "holm": "holm", "hommel": "hommel", "hochberg": "simes-hochberg", "fdr_bh": "fdr_bh"}


@pytest.mark.parametrize("method", THEIRS)
def test_as_statsmodels(method):
    rng = np.random.default_rng(3)
    for k in (1, 2, 3, 7, 17):
        p = rng.uniform(size=k) ** 3
        p[: k // 3] = p[0]  # ties
        np.testing.assert_allclose(adjust(p, method), multipletests(p, method=THEIRS[method])[1], rtol=1e-13)


def test_r_p_adjust_hommel():
    # p.adjust(c(.01, .02, .03, .04, .05), "hommel") in R 4.2
    np.testing.assert_allclose(adjust([0.01, 0.02, 0.03, 0.04, 0.05], "hommel"), [0.05] * 5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from(METHODS))
def test_adjusting_never_lowers_and_holm_lies_between_hommel_and_bonferroni(p, method):
    assert (adjust(p, method) >= np.asarray(p) - 1e-15).all()
    assert (adjust(p, "hommel") <= adjust(p, "hochberg") + 1e-12).all()
    assert (adjust(p, "hochberg") <= adjust(p, "holm") + 1e-12).all()
    assert (adjust(p, "holm") <= adjust(p, "bonferroni") + 1e-12).all()


def test_a_missing_p_is_an_error_or_counts_as_one():
    with pytest.raises(InputError, match="1 of 4 p-values"):
        adjust([0.001, 0.02, np.nan, 0.3])
    # the family keeps its size: as Holm of (.001, .02, 1, .3)
    np.testing.assert_allclose(adjust([0.001, 0.02, np.nan, 0.3], on_missing="as_p1"), [0.004, 0.06, np.nan, 0.6])


def test_fixed_sequence_stops_at_the_first_failure():
    np.testing.assert_array_equal(adjust([0.01, 0.2, 0.001], "fixed-sequence"), [0.01, 0.2, 0.2])
    np.testing.assert_array_equal(adjust([0.01, np.nan, 0.001], "fixed-sequence", on_missing="as_p1"), [0.01, np.nan, 1.0])


def test_families_do_not_touch_each_other():
    alone = adjust([0.02, 0.03], "holm")
    together = adjust_families([0.02, 0.9, 0.03, 0.8], ["a", "b", "a", "b"], "holm")
    np.testing.assert_array_equal(together[[0, 2]], alone)


@pytest.mark.parametrize(("p", "method", "says"), [([0.1], "holmm", "Did you mean 'holm'"), ([1.2], "holm", "outside 0 to 1")])
def test_refused(p, method, says):
    with pytest.raises(InputError, match=says):
        adjust(p, method)


def test_each_p_needs_a_family():
    with pytest.raises(InputError, match="2 p-values but 1 family"):
        adjust_families([0.1, 0.2], ["a"])


def test_a_closed_gate_lets_nothing_through():
    families = ["primary", "secondary", "primary", "exploratory"]
    out = gatekeeping([0.01, 1e-6, 0.04, 1e-6], families)
    np.testing.assert_allclose(out, [0.02, 0.04, 0.04, 0.04])
    assert gatekeeping([0.01, 1e-6, 0.2, 1e-6], families)[1] == 0.2
    closed = gatekeeping([0.01, 1e-6, np.nan, 1e-6], families, on_missing="as_p1")
    assert closed[1] == closed[3] == 1.0
    assert np.isnan(closed[2])
    with pytest.raises(InputError, match="missing"):
        gatekeeping([0.01, np.nan], ["a", "b"])
    with pytest.raises(InputError, match="would not control"):
        gatekeeping([0.01, 0.02], ["a", "b"], "none")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_families_of_one_are_a_fixed_sequence(p):
    names = [f"f{k}" for k in range(len(p))]
    np.testing.assert_allclose(gatekeeping(p, names), adjust(p, "fixed-sequence"))


def share_in(subset, w, G):
    """Weights of the intersection hypothesis `subset`: the others handed theirs on, in any order (Bretz et al., algorithm 1)."""
    w, G = np.array(w, dtype=float), np.array(G, dtype=float)
    gone: list[int] = []
    for j in [j for j in range(len(w)) if j not in subset]:
        new_w, new_G = w.copy(), np.zeros_like(G)
        gone.append(j)
        for i in range(len(w)):
            if i in gone:
                continue
            new_w[i] = w[i] + w[j] * G[j, i]
            for h in range(len(w)):
                if h != i and h not in gone and G[i, j] * G[j, i] < 1:
                    new_G[i, h] = (G[i, h] + G[i, j] * G[j, h]) / (1 - G[i, j] * G[j, i])
        new_w[j] = 0
        w, G = new_w, new_G
    return w


def closed_test(p, w, G):
    """Every intersection tested by weighted Bonferroni; a hypothesis' adjusted p is the largest over the intersections it is in."""
    out = np.zeros(len(p))
    for size in range(1, len(p) + 1):
        for subset in combinations(range(len(p)), size):
            share = share_in(subset, w, G)
            least = min([p[i] / share[i] for i in subset if share[i] > 0] or [1.0])
            for i in subset:
                out[i] = max(out[i], min(least, 1.0))
    return out


@given(st.integers(0, 10_000))
def test_the_graph_is_its_closed_test(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 5))
    G = rng.random((k, k)) * (rng.random((k, k)) < 0.7)
    np.fill_diagonal(G, 0)
    G /= np.maximum(G.sum(axis=1, keepdims=True), 1e-9) * rng.choice([1.0, 1.3])
    w = rng.random(k) * (rng.random(k) < 0.7)
    w /= max(w.sum(), 1e-9)
    p = rng.random(k) ** 3
    np.testing.assert_allclose(graphical(p, w, G), closed_test(p, w, G), rtol=1e-9)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_known_graphs(p):
    k = len(p)
    everybody = (np.ones((k, k)) - np.eye(k)) / (k - 1)
    np.testing.assert_allclose(graphical(p, np.full(k, 1 / k), everybody), adjust(p, "holm"), rtol=1e-9)
    np.testing.assert_allclose(graphical(p, [1, *[0] * (k - 1)], np.eye(k, k, 1)), adjust(p, "fixed-sequence"), rtol=1e-9)


def test_what_is_no_graph_is_refused():
    with pytest.raises(InputError, match="2 weights"):
        graphical([0.1, 0.2], [1.0], [[0, 1], [1, 0]])
    with pytest.raises(InputError, match="sum to at most 1"):
        graphical([0.1, 0.2], [0.7, 0.7], [[0, 1], [1, 0]])
    with pytest.raises(InputError, match="nothing to itself"):
        graphical([0.1, 0.2], [0.5, 0.5], [[0.5, 0.5], [1, 0]])
    assert np.isnan(graphical([0.1, np.nan], [0.5, 0.5], [[0, 1], [1, 0]], on_missing="as_p1")[1])
