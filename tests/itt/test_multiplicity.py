"""Adjusted p-values: R's procedures, families apart, and a missing p-value never a number by accident."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from trialkit.door import InputError
from trialkit.itt.multiplicity import METHODS, adjust, adjust_families

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
