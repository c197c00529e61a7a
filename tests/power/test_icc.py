"""estimate_icc: published data sets, definitions written out, adjustment, binary outcomes, bad input."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from trialkit._kernels import icc as kernel
from trialkit.door import InputError
from trialkit.power import beta_prior, estimate_icc, power

CASES = {c["id"]: c for c in json.loads((Path(__file__).parents[1] / "reference" / "power_cases.json").read_text())}
SPRAYS = CASES["icc_InsectSprays"]


@pytest.fixture
def sprays():
    return pd.DataFrame({"y": SPRAYS["inputs"]["y"], "site": SPRAYS["inputs"]["g"]})


def ragged(seed=3, sites=12, arm_effect=0.0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 15, sites)
    site = np.repeat(np.arange(sites), sizes)
    arm = site % 2
    y = 5 + arm_effect * arm + rng.normal(size=sites)[site] * 0.7 + rng.normal(size=len(site))
    return pd.DataFrame(
        {"y": y, "site": [f"S{s:02d}" for s in site], "arm": np.where(arm == 1, "intervention", "control"), "x": rng.normal(size=len(site))}
    )


def test_insect_sprays_as_the_icc_package_and_lme4(sprays):
    want = SPRAYS["expected"]
    found = estimate_icc(sprays, outcome="y", cluster="site", method="anova", interval="searle")
    assert found.icc == pytest.approx(want["ICC_anova"], abs=1e-10)
    assert (found.conf_low, found.conf_high) == pytest.approx((want["ci_F_lo"], want["ci_F_hi"]), abs=1e-9)
    assert (found.clusters, found.k0, found.n) == (want["N"], want["k0"], 72)
    assert (found.variance_within, found.variance_between) == pytest.approx((want["varw"], want["vara"]), rel=1e-10)
    smith = estimate_icc(sprays, outcome="y", cluster="site", interval="smith")
    assert (smith.conf_low, smith.conf_high) == pytest.approx((want["ci_smith_lo"], want["ci_smith_hi"]), abs=1e-9)
    assert estimate_icc(sprays, outcome="y", cluster="site", method="reml").icc == pytest.approx(want["ICC_reml"], abs=2e-8)


def test_profile_intervals_of_the_standard_deviations_as_lme4(sprays):
    # lme4 profiles the ML fit and reads the limits off a spline: 1e-4 is its own accuracy, not ours
    want, parts = SPRAYS["expected"], estimate_icc(sprays, outcome="y", cluster="site", method="ml").components
    assert list(parts["conf_low"]) == pytest.approx([want["sd_cluster_profile_lo"], want["sd_resid_profile_lo"]], abs=1e-4)
    assert list(parts["conf_high"]) == pytest.approx([want["sd_cluster_profile_hi"], want["sd_resid_profile_hi"]], abs=1e-4)


def test_unbalanced_anova_is_the_textbook_formula():
    data = ragged()
    found = estimate_icc(data, outcome="y", cluster="site")
    groups = [g["y"].to_numpy() for _, g in data.groupby("site")]
    n = np.array([len(g) for g in groups])
    N, K = n.sum(), len(n)
    msw = sum(((g - g.mean()) ** 2).sum() for g in groups) / (N - K)
    msb = sum(len(g) * (g.mean() - data["y"].mean()) ** 2 for g in groups) / (K - 1)
    k0 = (N - (n**2).sum() / N) / (K - 1)
    assert found.icc == pytest.approx((msb - msw) / (msb + (k0 - 1) * msw), abs=1e-12)
    f_low = msb / msw / stats.f.ppf(0.975, K - 1, N - K)
    assert found.conf_low == pytest.approx((f_low - 1) / (f_low + k0 - 1), abs=1e-12)
    swiger = estimate_icc(data, outcome="y", cluster="site", interval="swiger")
    r = found.icc
    se = np.sqrt(2 * (N - 1) * (1 - r) ** 2 * (1 + (k0 - 1) * r) ** 2 / (k0**2 * (N - K) * (K - 1)))
    assert swiger.std_error == pytest.approx(se, rel=1e-12)
    # Smith and Swiger agree when sizes are equal, and only then
    assert estimate_icc(data, outcome="y", cluster="site", interval="smith").std_error != pytest.approx(se, rel=1e-4)


def test_unbalanced_chick_weights_as_the_icc_package_and_lme4():
    weights = {
        "casein": [368, 390, 379, 260, 404, 318, 352, 359, 216, 222, 283, 332],
        "horsebean": [179, 160, 136, 227, 217, 168, 108, 124, 143, 140],
        "linseed": [309, 229, 181, 141, 260, 203, 148, 169, 213, 257, 244, 271],
        "meatmeal": [325, 257, 303, 315, 380, 153, 263, 242, 206, 344, 258],
        "soybean": [243, 230, 248, 327, 329, 250, 193, 271, 316, 267, 199, 171, 158, 248],
        "sunflower": [423, 340, 392, 339, 341, 226, 320, 295, 334, 322, 297, 318],
    }
    data = pd.DataFrame([(f, w) for f, ws in weights.items() for w in ws], columns=["feed", "weight"])
    low = {i: estimate_icc(data, outcome="weight", cluster="feed", interval=i).conf_low for i in ("smith", "swiger")}
    assert (low["smith"], low["swiger"]) == pytest.approx((0.20698, 0.20813), abs=5e-6)
    assert estimate_icc(data, outcome="weight", cluster="feed", method="reml").icc == pytest.approx(0.5639589, abs=1e-7)


def test_scale_and_place_of_the_outcome_do_not_matter():
    data = ragged()
    for method in ("anova", "reml", "ml"):
        base = estimate_icc(data, outcome="y", cluster="site", method=method)
        moved = estimate_icc(data.assign(y=1e6 + 1e-3 * data["y"]), outcome="y", cluster="site", method=method)
        assert (moved.icc, moved.conf_low, moved.conf_high) == pytest.approx((base.icc, base.conf_low, base.conf_high), abs=1e-6)


def test_adjusting_for_arm_takes_its_effect_out():
    plain, shifted = ragged(arm_effect=0.0), ragged(arm_effect=10.0)
    for method in ("anova", "reml"):
        a = estimate_icc(plain, outcome="y", cluster="site", method=method, adjust="arm")
        b = estimate_icc(shifted, outcome="y", cluster="site", method=method, adjust=["arm"])
        assert a.icc == pytest.approx(b.icc, abs=1e-9)
    assert estimate_icc(shifted, outcome="y", cluster="site").icc > 0.9


def test_adjusted_anova_matches_henderson_by_dense_algebra():
    data = ragged()
    X = np.column_stack([np.ones(len(data)), data["x"], data["arm"] == "intervention"]).astype(float)
    Z = pd.get_dummies(data["site"]).to_numpy(dtype=float)
    y = data["y"].to_numpy()

    def residual(A):
        return float(y @ y - y @ A @ np.linalg.pinv(A) @ y)

    full = np.column_stack([X, Z])
    rank = np.linalg.matrix_rank(full)
    within = residual(full)
    df_b, df_w = rank - 3, len(y) - rank
    M = np.eye(len(y)) - X @ np.linalg.pinv(X)
    k0 = np.trace(Z.T @ M @ Z) / df_b
    msb, msw = (residual(X) - within) / df_b, within / df_w
    found = estimate_icc(data, outcome="y", cluster="site", adjust=["x", "arm"])
    assert found.k0 == pytest.approx(k0, rel=1e-10)
    assert found.icc == pytest.approx((msb - msw) / (msb + (k0 - 1) * msw), abs=1e-10)


def test_profile_interval_drops_the_likelihood_by_the_chi_square():
    data = ragged()
    for method in ("reml", "ml"):
        found = estimate_icc(data, outcome="y", cluster="site", method=method)
        X = np.ones((len(data), 1))
        reduced = kernel.reduce(X, data["y"].to_numpy(), pd.factorize(data["site"])[0])

        def deviance(r, reduced=reduced, reml=method == "reml"):
            return kernel.criterion(reduced, r / (1 - r), reml=reml)

        for limit in (found.conf_low, found.conf_high):
            assert deviance(limit) - deviance(found.icc) == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-6)
        for step in (-1e-3, 1e-3):
            assert deviance(found.icc + step) > deviance(found.icc)


def test_searle_covers_when_simulated():
    # exact for equal sizes: 2,000 trials, 95%; limits at a false alarm of 1e-6
    rng = np.random.default_rng(11)
    K, m, rho = 12, 6, 0.1
    y = np.sqrt(rho) * rng.normal(size=(2000, K, 1)) + np.sqrt(1 - rho) * rng.normal(size=(2000, K, m))
    means = y.mean(axis=2)
    msb = m * means.var(axis=1, ddof=1)
    msw = ((y - means[:, :, None]) ** 2).sum(axis=(1, 2)) / (K * (m - 1))
    inside = 0
    for b, w in zip(msb, msw, strict=True):
        table = kernel.Anova(b, w, K - 1, K * (m - 1), m, (b - w) / (b + (m - 1) * w))
        inside += kernel.searle(table, 0.025) <= rho <= kernel.searle(table, 0.975)
    assert 2000 - 151 <= inside <= 2000 - 56


def test_negative_estimates_are_kept_and_said():
    data = pd.DataFrame({"y": [0, 2, 1, 1, 2, 0, 0, 2], "site": list("aabbccdd")})
    found = estimate_icc(data, outcome="y", cluster="site")
    assert found.icc < 0 and any("negative" in n for n in found.notes)
    assert estimate_icc(data, outcome="y", cluster="site", method="reml").icc == 0


def test_missing_rows_are_left_out_and_said():
    data = ragged()
    holes = data.copy()
    holes.loc[[0, 5, 9], "y"] = np.nan
    found = estimate_icc(holes, outcome="y", cluster="site")
    assert found.left_out == 3 and found.icc == estimate_icc(data.drop(index=[0, 5, 9]), outcome="y", cluster="site").icc


def test_fleiss_cuzick_by_its_formula():
    rng = np.random.default_rng(5)
    site = np.repeat(np.arange(15), rng.integers(3, 12, 15))
    y = rng.random(len(site)) < rng.beta(2, 3, 15)[site]
    data = pd.DataFrame({"y": y, "site": site})
    n, Y = np.bincount(site), np.bincount(site, weights=y)
    p = y.mean()
    want = 1 - (Y * (n - Y) / n).sum() / ((len(y) - 15) * p * (1 - p))
    found = estimate_icc(data, outcome="y", cluster="site", method="fleiss-cuzick")
    assert found.icc == pytest.approx(want, abs=1e-12)
    assert found.conf_low < found.icc < found.conf_high
    latent = estimate_icc(data, outcome="y", cluster="site", method="fleiss-cuzick", scale="latent")
    assert latent.icc > found.icc  # the dichotomy hides part of the correlation


def test_an_estimate_can_be_planned_with(sprays):
    found = estimate_icc(ragged(), outcome="y", cluster="site")
    planned = power(clusters=40, cluster_size=20, effect=0.5, icc=found)
    assert planned.power == power(clusters=40, cluster_size=20, effect=0.5, icc=found.icc).power
    assert planned.upper[0] == found.quantile(0.8)
    assert list(planned.frame["case"]) == ["as planned", "ICC at its 80th percentile"]
    assert planned.frame["power"].iloc[1] < planned.power
    believed = power(clusters=40, cluster_size=20, effect=0.5, icc=beta_prior(2, 38))
    assert believed.icc == pytest.approx(0.05, abs=1e-9) and believed.upper[0] == beta_prior(2, 38).quantile(0.8)
    assert "80th percentile" in planned.protocol_text() and "12 clusters" in planned.protocol_text()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"outcome": "z"}, "z"), ({"cluster": "Site"}, "site"), ({"method": "anov"}, "anova"),
        ({"interval": "profile"}, "does not go with"),
        ({"interval": "serle"}, "searle"), ({"conf_level": 95}, "conf_level"), ({"outcome": "arm"}, "row 2.*is not a number"),
        ({"cluster": "arm", "adjust": "arm"}, "between"),
        ({"method": "fleiss-cuzick"}, "0 or 1"), ({"scale": "latent"}, "0 or 1"), ({"scale": "log"}, "scale"), ({"adjust": "sex"}, "sex"),
    ],
)  # fmt: skip
def test_bad_input_says_so(change, word):
    with pytest.raises(InputError, match=word):
        estimate_icc(ragged(), **{"outcome": "y", "cluster": "site", **change})


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"y": [1.0, 2.0, 3.0], "site": ["a", "a", "a"]}, "at least two"),
        ({"y": [1.0, 2.0, 3.0], "site": ["a", "b", "c"]}, "more than one person"),
        ({"y": [2.0, 2.0, 2.0, 2.0], "site": ["a", "a", "b", "b"]}, "does not vary"),
    ],
)
def test_data_without_an_icc(data, word):
    with pytest.raises(InputError, match=word):
        estimate_icc(pd.DataFrame(data), outcome="y", cluster="site")


def test_json_and_text(sprays):
    found = estimate_icc(sprays, outcome="y", cluster="site")
    assert json.loads(found.to_json())["icc"] == found.icc
    assert "0.7374" in str(found) and "Intracluster correlation of y by site" in str(found)


@pytest.mark.parametrize(
    ("method", "interval"),
    [("anova", "searle"), ("anova", "smith"), ("anova", "fisher"), ("reml", "profile"), ("fleiss-cuzick", "jackknife")],
)
def test_an_estimate_survives_pickling(method: str, interval: str) -> None:
    """It goes to other processes, with its confidence distribution."""
    rng = np.random.default_rng(5)
    site = np.repeat(np.arange(12), 9)
    binary = (rng.normal(size=12)[site] + rng.normal(size=site.size) > 0).astype(float)
    scale = "latent" if method == "fleiss-cuzick" else "observed"
    found = estimate_icc(
        pd.DataFrame({"y": binary, "site": site}), outcome="y", cluster="site", method=method, interval=interval, scale=scale
    )
    again = pickle.loads(pickle.dumps(found))
    assert [again.quantile(q) for q in (0.025, 0.5, 0.8, 0.975)] == [found.quantile(q) for q in (0.025, 0.5, 0.8, 0.975)]
    assert again.quantile(0.025) == pytest.approx(found.conf_low, rel=1e-9) and again.frame.equals(found.frame)


@pytest.mark.parametrize("method", ["anova", "reml", "ml"])
@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-3])
def test_one_value_a_cluster_is_an_icc_of_one(method, noise):
    """The REML limit, with no jump where the variance within clusters is only rounding."""
    wiggle = noise * np.tile([1.0, -1.0, 0.5, -0.5], 6)
    data = pd.DataFrame({"site": np.repeat(list("abcdef"), 4), "y": np.repeat([1.0, 5, 3, 9, 2, 7], 4) + wiggle})
    found = estimate_icc(data, outcome="y", cluster="site", method=method)
    assert found.icc == pytest.approx(1.0, abs=1e-6)
    assert found.conf_low == pytest.approx(1.0, abs=1e-5)
    assert found.conf_high == pytest.approx(1.0, abs=1e-6)


def test_a_blank_cluster_is_missing():
    data = pd.DataFrame({"site": [*list("aabbcc"), " ", ""], "y": [1.0, 2, 3, 5, 4, 4, 100, -100]})
    found = estimate_icc(data, outcome="y", cluster="site")
    assert (found.clusters, found.n, found.left_out) == (3, 6, 2)
