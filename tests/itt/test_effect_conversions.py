"""d in other words and back; exact intervals of g."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trialkit.door import InputError
from trialkit.itt import cohens_d, convert_effect, hedges_g, two_sample_d

D = cohens_d(0.4, std_error=0.2, df=40, sd=1.0)


def test_known_figures():
    # Borenstein et al. (2009), ch. 7: d 0.5 with variance 0.0205 is a log odds ratio of 0.9069 with variance 0.0676
    d = dataclasses.replace(D, estimate=0.5, std_error=math.sqrt(0.0205))
    odds = convert_effect(d, "log-odds-ratio")
    assert odds.estimate == pytest.approx(0.9069, abs=5e-5)
    assert odds.std_error**2 == pytest.approx(0.0676, abs=2e-4)
    # d of point-biserial r in data, computed directly
    rng = np.random.default_rng(3)
    arm, y = np.repeat([0, 1], (30, 50)), rng.normal(size=80)
    y[arm == 1] += 0.6
    whole = two_sample_d(y, arm)
    # r uses n in the SDs where d uses n - 2
    exact = whole.estimate * math.sqrt(80 / 78)
    r = convert_effect(dataclasses.replace(whole, estimate=exact), "r", sizes=(50, 30)).estimate
    assert r == pytest.approx(np.corrcoef(arm, y)[0, 1], rel=1e-12)


@given(
    st.floats(-3, 3), st.floats(0.01, 1), st.sampled_from(["log-odds-ratio", "r", "superiority"]), st.integers(1, 500), st.integers(1, 500)
)
def test_there_and_back(d, se, form, n1, n0):
    effect = dataclasses.replace(D, estimate=d, std_error=se, conf_low=d - 2 * se, conf_high=d + 2 * se)
    there = convert_effect(effect, form, sizes=(n1, n0))
    assert there.conf_low < there.estimate < there.conf_high
    again = convert_effect(there, "d", of=form, sizes=(n1, n0))
    for name in ("estimate", "std_error", "conf_low", "conf_high"):
        assert getattr(again, name) == pytest.approx(getattr(effect, name), rel=1e-7, abs=1e-7)


def test_standard_errors_are_derivatives():
    h = 1e-6
    for form in ("log-odds-ratio", "r", "superiority"):
        up, down = (convert_effect(dataclasses.replace(D, estimate=D.estimate + e), form, sizes=(30, 70)).estimate for e in (h, -h))
        assert convert_effect(D, form, sizes=(30, 70)).std_error == pytest.approx(D.std_error * (up - down) / (2 * h), rel=1e-6)


def test_superiority_by_simulation():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.4, 1, 400_000), rng.normal(0, 1, 400_000)
    assert convert_effect(D, "superiority").estimate == pytest.approx((a > b).mean(), abs=0.003)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"to": "odds"}, "form of an effect"),
        ({"to": "d", "of": "r", "estimate": 1.2}, "correlation"),
        ({"to": "r", "sizes": (0, 3)}, "need people"),
    ],
)
def test_refused(change, says):
    effect = dataclasses.replace(D, estimate=change.pop("estimate", 0.4))
    with pytest.raises(InputError, match=says):
        convert_effect(effect, **change)


def test_noncentral_interval_of_g_is_that_of_two_samples():
    """With one variance, nu its df and kappa the root of 1/n1 + 1/n0, g's model is two independent samples."""
    rng = np.random.default_rng(8)
    arm, y = np.repeat([0, 1], (12, 15)), rng.normal(size=27)
    y[arm == 1] += 0.8
    n1, n0, df = 15, 12, 25
    pooled = (y[arm == 1].var(ddof=1) * 14 + y[arm == 0].var(ddof=1) * 11) / df
    b = y[arm == 1].mean() - y[arm == 0].mean()
    given_ = {
        "std_error": math.sqrt(pooled * (1 / n1 + 1 / n0)),
        "variances": [0.0, pooled],
        "covariance": [[0, 0], [0, 2 * pooled**2 / df]],
    }
    g = hedges_g(b, **given_, denominator="within", interval="noncentral")
    d = two_sample_d(y, arm)
    assert g.df == pytest.approx(df)
    assert (g.conf_low, g.conf_high) == pytest.approx((d.conf_low, d.conf_high), rel=1e-9)
    # the definition: the observed t has 2.5 per cent above it and below it at the limits
    scale = math.sqrt(1 / n1 + 1 / n0)
    t = b / given_["std_error"]
    assert stats.nct.sf(t, df, g.conf_low / scale) == pytest.approx(0.025, abs=1e-8)
    assert stats.nct.cdf(t, df, g.conf_high / scale) == pytest.approx(0.025, abs=1e-8)
    approximate = hedges_g(b, **given_, denominator="within")
    assert approximate.conf_low == pytest.approx(g.conf_low, abs=0.15)
    with pytest.raises(InputError, match="interval"):
        hedges_g(b, **given_, denominator="within", interval="exact")
