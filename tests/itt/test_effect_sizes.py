"""Standardised effects against R (eefAnalytics, lmeInfo, effectsize) and against their own definitions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from trialkit.door import InputError
from trialkit.itt import fit_mixed
from trialkit.itt.effect_sizes import cohens_d, effect_size, hedges_2007, hedges_g, small_sample_factor, standard_deviation, two_sample_d

MODELS = Path(__file__).parents[1] / "reference" / "models"
CASES = [json.loads(path.read_text()) for path in sorted(MODELS.glob("D*.json"))]
ADJUSTED = {"crt_main.csv": "y ~ arm + y0 + gender + age + edu + consumer", "crt_balanced.csv": "y ~ arm"}
# the stored values rest on R's optimiser, which is good to 1e-9 here
CLOSE = {"rel": 1e-8}


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
class TestAgainstR:
    def fits(self, case):
        frame = pd.read_csv(MODELS / "data" / case["data"])
        adjusted = fit_mixed(ADJUSTED[case["data"]], frame, groups="site")
        unadjusted = fit_mixed("y ~ arm", frame, groups="site")
        return frame, adjusted, unadjusted

    def test_cohens_d_by_each_denominator(self, case):
        frame, fit, unadjusted = self.fits(case)
        assert effect_size(fit, "arm").estimate == pytest.approx(case["d_z_scored_outcome"], **CLOSE)
        assert effect_size(fit, "arm", denominator="pooled").estimate == pytest.approx(case["d_pooled_within_arm"], **CLOSE)
        assert effect_size(fit, "arm", denominator="control").estimate == pytest.approx(case["d_control"], **CLOSE)
        assert effect_size(fit, "arm", denominator="baseline", baseline=frame["y0"]).estimate == pytest.approx(
            case["d_baseline_sd"], **CLOSE
        )
        for denominator, key in (("model-total", "delta_T"), ("within", "delta_W"), ("between", "delta_B")):
            assert effect_size(fit, "arm", denominator=denominator).estimate == pytest.approx(case[f"{key}_model_adjusted"], **CLOSE)
            if key != "delta_B":
                d = effect_size(fit, "arm", denominator=denominator, variances=unadjusted)
                assert d.estimate == pytest.approx(case[f"{key}_unadj_variances"], **CLOSE)

    def test_unconditional_variances(self, case):
        frame, fit, _ = self.fits(case)
        empty = fit_mixed("y ~ 1", frame, groups="site")
        stored = case["unconditional_variances"]
        assert empty.variances.tolist() == pytest.approx([stored["tau2"], stored["s2"]], rel=1e-7)
        assert effect_size(fit, "arm", denominator="model-total", variances=empty).estimate == pytest.approx(stored["delta_T"], **CLOSE)

    def test_hedges_2007(self, case):
        frame, _, fit = self.fits(case)
        sizes = tuple(frame[frame["arm"] == a].groupby("site").size().tolist() for a in (0, 1))
        tau2, sigma2 = fit.variances
        for denominator, key in (("model-total", "total"), ("within", "within")):
            g = hedges_2007(fit.row("arm")["estimate"], site_variance=tau2, residual_variance=sigma2, sizes=sizes, denominator=denominator)
            stored = case[f"hedges2007_{key}_unadjusted"]
            assert g.estimate == pytest.approx(stored["g"], **CLOSE)
            assert g.std_error == pytest.approx((stored["UB"] - stored["LB"]) / 2 / 1.96, **CLOSE)

    def test_small_sample_g(self, case):
        _, fit, _ = self.fits(case)
        stored = case["lmeInfo_g_mlm"]
        g = effect_size(fit, "arm", denominator="model-total", small_sample=True)
        # nlme stops early: its variances, and so its delta, are 6e-7 from the optimum that lme4 and we agree on
        assert g.df == pytest.approx(stored["nu"], rel=1e-5)
        assert g.estimate == pytest.approx(stored["g"], rel=1e-6)
        assert g.std_error == pytest.approx(stored["SE"], rel=1e-5)
        np.testing.assert_allclose(fit.variances_covariance, stored["info_inv"], rtol=5e-5)
        # at nlme's own variances the formulas agree to the last digits
        nu = stored["nu"]
        same = hedges_g(
            stored["delta"], std_error=stored["kappa"], variances=[0.0, 1.0], covariance=[[0.0, 0.0], [0.0, 2 / nu]], denominator="within"
        )
        assert [same.estimate, same.std_error] == pytest.approx([stored["g"], stored["SE"]], rel=1e-12)

    def test_independent_samples(self, case):
        frame, _, _ = self.fits(case)
        d, g = (two_sample_d(frame["y"], frame["arm"], correct=c) for c in (False, True))
        assert d.estimate == pytest.approx(case["naive_cohens_d"]["Cohens_d"], **CLOSE)
        assert g.estimate == pytest.approx(case["naive_hedges_g"]["Hedges_g"], **CLOSE)
        # effectsize searches the noncentrality to about 1e-6
        assert [d.conf_low, d.conf_high] == pytest.approx([case["naive_cohens_d"]["CI_low"], case["naive_cohens_d"]["CI_high"]], rel=1e-4)
        assert [g.conf_low, g.conf_high] == pytest.approx([case["naive_hedges_g"]["CI_low"], case["naive_hedges_g"]["CI_high"]], rel=1e-4)


def test_d_is_what_the_standardised_outcome_gives():
    frame = pd.read_csv(MODELS / "data" / "crt_main.csv")
    z = (frame["y"] - frame["y"].mean()) / frame["y"].std()
    fit = fit_mixed("z ~ arm + y0", frame.assign(z=z), groups="site").row("arm")
    d = effect_size(fit_mixed("y ~ arm + y0", frame, groups="site"), "arm")
    assert [d.estimate, d.std_error, d.df, d.conf_low, d.conf_high] == pytest.approx(
        fit[["estimate", "std_error", "df", "conf_low", "conf_high"]].tolist(), rel=1e-10
    )


def test_standard_deviations_by_definition():
    y, arm = np.array([1.0, 2, 4, 7, 11]), np.array([0, 0, 0, 1, 1])
    assert standard_deviation(y, arm) == pytest.approx(np.std(y, ddof=1))
    assert standard_deviation(y, arm, denominator="control") == pytest.approx(np.std(y[:3], ddof=1))
    pooled = np.sqrt((2 * np.var(y[:3], ddof=1) + np.var(y[3:], ddof=1)) / 3)
    assert standard_deviation(y, arm, denominator="pooled") == pytest.approx(pooled)
    assert standard_deviation(y, arm, denominator="baseline", baseline=[1, np.nan, 3]) == pytest.approx(np.sqrt(2))


def test_small_sample_factor_approaches_one():
    assert small_sample_factor(1e6) == pytest.approx(1, abs=1e-6)
    assert small_sample_factor(20, exact=True) == pytest.approx(special.gamma(10) / (np.sqrt(10) * special.gamma(9.5)))


def test_noncentral_limits_have_their_tails():
    d = two_sample_d([1, 2, 3, 2.5, 3.5, 4, 5], [0, 0, 0, 1, 1, 1, 1])
    scale = np.sqrt(1 / 3 + 1 / 4)
    t = d.estimate / scale
    assert stats.nct.cdf(t, 5, d.conf_high / scale) == pytest.approx(0.025, abs=1e-9)
    assert stats.nct.sf(t, 5, d.conf_low / scale) == pytest.approx(0.025, abs=1e-9)


def test_between_sites_denominator_by_simulation_of_the_mean_squares():
    # the delta-method variance of delta_B against 20,000 draws of the two mean squares of a balanced layout
    rng = np.random.default_rng(11)
    size, sites, tau2, sigma2, diff = 20, 40, 0.3, 0.7, 0.5
    lam = sigma2 + size * tau2
    between = lam * rng.chisquare(sites - 2, 20_000) / (sites - 2)
    within = sigma2 * rng.chisquare(sites * (size - 1), 20_000) / (sites * (size - 1))
    spread = rng.normal(diff, np.sqrt(4 * lam / (sites * size)), 20_000)
    drawn = spread / np.sqrt((between - within) / size)
    e = hedges_2007(diff, site_variance=tau2, residual_variance=sigma2, sizes=([size] * 20, [size] * 20), denominator="between")
    assert e.std_error == pytest.approx(drawn.std(), rel=0.05)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: standard_deviation([2, 2, 2], [0, 1, 1]), "is zero"),
        (lambda: standard_deviation([1], [0]), "not defined"),
        (lambda: standard_deviation([1, 2], [0, 1], denominator="totl"), "Did you mean 'total'"),
        (lambda: standard_deviation([1, 2], [0, 1], denominator="baseline"), "needs the baseline"),
        (
            lambda: hedges_2007(1, site_variance=0, residual_variance=1, sizes=([2, 2], [2, 2]), denominator="between"),
            "site variance is zero",
        ),
        (lambda: hedges_2007(1, site_variance=0.1, residual_variance=1, sizes=([2], [2, 2])), "at least 2 an arm"),
        (lambda: hedges_g(1, std_error=1, variances=[0.1, 1], covariance=np.eye(2), denominator="between"), "degrees of freedom"),
        (lambda: two_sample_d([1, 2], [0, 1]), "too few"),
    ],
)
def test_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_output_names_the_denominator():
    d = cohens_d(0.4, std_error=0.1, df=60, sd=2.0, denominator="control")
    assert d.frame["denominator"][0] == "control"
    assert "reference arm" in str(d)
