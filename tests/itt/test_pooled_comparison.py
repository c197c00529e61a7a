"""Nested models over imputed tables: as mitml has them, in their limits, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from trialkit._kernels import reml
from trialkit.door import InputError
from trialkit.itt import fit_mixed, pool_comparison

STORED = json.loads((Path(__file__).parents[1] / "reference" / "pooled_comparison.json").read_text())
CASES = {c["id"]: c for c in STORED["cases"]}
FIGURES = ["statistic", "df1", "df2", "p_value", "riv"]


def sets(name: str) -> list[pd.DataFrame]:
    data = STORED["data"][name]
    return [pd.DataFrame(data["fixed"]).assign(y=y, x=x) for y, x in zip(data["y"], data["x"], strict=True)]


@pytest.mark.reference
@pytest.mark.parametrize("case", sorted(CASES))
def test_as_mitml(case: str) -> None:
    c = CASES[case]
    frames = sets(c["sets"])
    larger, smaller = (f"{c[k]} + {c['random']}" for k in ("larger", "smaller"))
    asked = {
        "D1": {"method": "D1", "inference": "normal"},
        "D1_df": {"method": "D1", "inference": "normal", "df_complete": 20},
        "D2_wald": {"method": "D2", "statistic": "wald", "inference": "normal"},
        "D2": {"method": "D2"},
        "D3": {"method": "D3"},
        "D4": {"method": "D4"},
    }
    assert (c["D3"], c["D4"]) == (c["anova_D3"], c["anova_D4"])
    for key, options in asked.items():
        if key == "D1_df" and c["D1"]["df1"] * (len(frames) - 1) <= 4:
            continue  # k (m - 1) <= 4: mitml's df2 is 4.000 there, ours Li, Raghunathan and Rubin's, and says so
        found = pool_comparison(frames, larger, smaller, **options).frame.iloc[0]
        assert_allclose(found[FIGURES].to_numpy(float), [c[key][f] for f in FIGURES], rtol=1e-4, atol=1e-7, err_msg=key)


def test_identical_sets_are_one_table() -> None:
    frame = sets("B")[0]
    larger, smaller = "y ~ arm + x + z + f", "y ~ arm + x"
    plain = fit_mixed(larger, frame, groups=["site"])
    one = plain.test(["z", "f"]).frame.iloc[0]
    d1 = pool_comparison([frame] * 4, larger, smaller, groups=["site"])
    wald = plain.kernel.beta[[3, 4, 5]] @ np.linalg.solve(plain.cov.iloc[3:, 3:], plain.kernel.beta[[3, 4, 5]]) / 3
    assert d1.tested == ("z", "fb", "fc") and d1.frame["statistic"].iloc[0] == pytest.approx(wald)
    # without variation between the sets Reiter's df is the complete-data df, as far as his expansion goes
    assert d1.frame["df2"].iloc[0] == pytest.approx(one["df2"], rel=0.03)
    assert d1.p_value == pytest.approx(one["p_value"], abs=0.01)
    lr = fit_mixed(larger, frame, groups=["site"], method="ml").compare(fit_mixed(smaller, frame, groups=["site"], method="ml")).frame
    for method in ("D2", "D3", "D4"):
        found = pool_comparison([frame] * 4, larger, smaller, groups=["site"], method=method, positive=True)
        assert found.frame["riv"].iloc[0] == pytest.approx(0, abs=1e-8)
        assert found.p_value == pytest.approx(lr["p_value"].iloc[1], rel=1e-5)


def test_a_random_effect_is_tested_by_likelihood() -> None:
    frames = sets("B")[:3]
    small, large = "y ~ arm + x + (1|site)", "y ~ arm + x + (1|pair) + (1|site)"
    for method in ("D2", "D3", "D4"):
        found = pool_comparison(frames, large, small, method=method)
        assert found.tested == () and found.frame["df1"].iloc[0] == 1 and "boundary" in str(found)
    assert found.title == "y ~ arm + x + (1|pair) + (1|site)  against  y ~ arm + x + (1|site)"
    with pytest.raises(InputError, match="differ in their random effects"):
        pool_comparison(frames, large, small)
    with pytest.raises(InputError, match="D3 is for random intercepts"):
        pool_comparison(frames, "y ~ arm + x + (1 + x|site)", small, method="D3")
    assert pool_comparison(frames, "y ~ arm + x + (1 + x|site)", small, method="D4").frame["df1"].iloc[0] == 2


def test_likelihood_at_any_parameters_against_dense_algebra() -> None:
    rng = np.random.default_rng(4)
    inner = np.sort(rng.integers(0, 9, 30))
    outer, top = inner // 2, inner // 4
    v, s2, w, e = [0.7, 0.3, 1.1], 0.6, rng.uniform(0.5, 2, 30), rng.normal(size=30)
    V = np.diag(s2 / w) + sum(a * (g[:, None] == g) for a, g in zip(v, (top, outer, inner), strict=True))
    dense = stats.multivariate_normal(np.zeros(30), V).logpdf(e)
    shuffle = rng.permutation(30)
    found = reml.log_likelihood_at(e[shuffle], [g[shuffle] for g in (top, outer, inner)], v, s2, weights=w[shuffle])
    assert found == pytest.approx(dense, rel=1e-10)
    # at a model's own optimum it is that model's likelihood
    fit = fit_mixed("y ~ x", sets("A")[0], groups=["pair", "site"], method="ml")
    codes = [g.codes for g in fit.model.groups]
    at = reml.log_likelihood_at(fit.residuals(conditional=False), codes, fit.variances[:-1], fit.variances[-1])
    assert at == pytest.approx(fit.log_likelihood, rel=1e-9)


def test_what_is_refused() -> None:
    frames = sets("C")
    ask = {"groups": ["site"]}
    with pytest.raises(InputError, match="at least two"):
        pool_comparison(frames[0], "y ~ arm + f", "y ~ arm", **ask)
    with pytest.raises(InputError, match="at least two"):
        pool_comparison(frames[:1], "y ~ arm + f", "y ~ arm", **ask)
    with pytest.raises(InputError, match="does not contain z"):
        pool_comparison(frames, "y ~ arm + f", "y ~ arm + z", **ask)
    with pytest.raises(InputError, match="same fixed effects"):
        pool_comparison(frames, "y ~ arm", "y ~ arm", **ask)
    with pytest.raises(InputError, match="not smaller"):
        pool_comparison(frames, "y ~ arm", "y ~ arm", method="D3", **ask)
    with pytest.raises(InputError, match="method"):
        pool_comparison(frames, "y ~ arm + f", "y ~ arm", method="D5", **ask)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Join rare categories"):
        pool_comparison([*frames[:2], frames[2].assign(f=frames[2]["f"].replace("b", "a"))], "y ~ arm + f", "y ~ arm", **ask)
    with pytest.raises(InputError, match="missing values"):
        pool_comparison([f.assign(z=f["z"].mask(f.index == 3)) for f in frames], "y ~ arm + z", "y ~ arm", **ask)
    with pytest.raises(InputError, match="other outcomes"):
        pool_comparison(frames, "y ~ arm + f", "x ~ arm", **ask)
