"""Calibration of imputation with a third level: persons in wards in sites; rerunnable, results stored.

60 sites of 4 wards of 1 to 6 people, y = .3 arm + .5 x + u + w + e with variances .05 (site), .15 (ward) and .80; y missing given x and
arm for about a third, and one ward in ten wholly; m = 10. Setting F: continuous; setting G: binary, y > 0, its variances on the observed
scale. Beside it imputation that leaves wards out, which must lose about half of their variance.

    python tests/calibration/test_imputation_third_level.py [REPLICATES]      writes results/imputation_third_level.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from trialkit._kernels import reml
from trialkit._kernels.pooling import pool_scalar
from trialkit.design import TrialDesign
from trialkit.imputation import impute

STORED = Path(__file__).parent / "results" / "imputation_third_level.json"
SETTINGS = ("F", "G")
SITES, WARDS, EFFECT, M = 60, 4, 0.3, 10


def trial(setting: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One trial in full and with its gaps."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SETTINGS.index(setting),)))
    ward = np.repeat(np.arange(SITES * WARDS), rng.integers(1, 7, SITES * WARDS))
    site, n = ward // WARDS, len(ward)
    arm = (rng.permutation(SITES) < SITES // 2).astype(float)[site]
    x = rng.normal(size=n)
    between = np.sqrt(0.05) * rng.normal(size=SITES)[site] + np.sqrt(0.15) * rng.normal(size=SITES * WARDS)[ward]
    y = EFFECT * arm + 0.5 * x + between + np.sqrt(0.8) * rng.normal(size=n)
    if setting == "G":
        y = (y > 0).astype(float)
    full = pd.DataFrame({"person": np.arange(n), "site": site, "ward": ward, "arm": np.where(arm == 1, "intervention", "control")})
    full = full.assign(x=x, y=y)
    gone = (rng.random(n) < expit(-1 + 0.6 * x + 0.4 * arm)) | (rng.random(SITES * WARDS) < 0.1)[ward]
    return full, full.assign(y=full["y"].mask(gone))


def design(setting: str, *, wards: bool) -> TrialDesign:
    """The trial as declared to `impute`."""
    y = {"name": "y", "type": "binary" if setting == "G" else "continuous", "has_baseline": False}
    return TrialDesign(columns={"subcluster": "ward"} if wards else {}, outcomes=[y], covariates=[{"name": "x"}])


def analyse(frames: list[pd.DataFrame]) -> list[float]:
    """Arm's coefficient by REML, pooled: estimate, standard error, interval; mean share of variance of sites and of wards."""
    q, v, shares = [], [], []
    for f in frames:
        x = np.column_stack([np.ones(len(f)), f["arm"] == "intervention", f["x"]]).astype(float)
        groups = [np.unique(f[c], return_inverse=True)[1] for c in ("site", "ward")]
        fit = reml.fit(x, f["y"].to_numpy(float), groups)
        q.append(fit.beta[1])
        v.append(fit.cov_beta[1, 1])
        shares.append(fit.variances / (fit.variances.sum() + fit.sigma2))
    pooled = pool_scalar(np.resize(q, max(len(q), 2)), np.resize(v, max(len(q), 2)), SITES - 2)
    return [float(a) for a in (pooled.estimate, pooled.std_error, pooled.conf_low, pooled.conf_high, *np.mean(shares, axis=0))]


def study(setting: str, replicates: int) -> dict[str, dict[str, float]]:
    """Operating characteristics of each method over many trials."""
    runs = []
    for seed in range(1, replicates + 1):
        full, gaps = trial(setting, seed)
        sets = {
            name: list(impute(gaps, design(setting, wards=wards), seed=seed, m=M, iterations=5))
            for name, wards in (("three-level", True), ("two-level", False))
        }
        runs.append({name: analyse(frames) for name, frames in {"full data": [full], "complete cases": [gaps.dropna()], **sets}.items()})
    full_data = np.array([r["full data"] for r in runs])
    truth = EFFECT if setting == "F" else full_data[:, 0].mean()
    out = {}
    for method in runs[0]:
        a = np.array([r[method] for r in runs])
        error = a[:, 0] if setting == "F" else a[:, 0] - full_data[:, 0]
        figures = {
            "bias": a[:, 0].mean() - truth,
            "bias_mcse": error.std(ddof=1) / np.sqrt(replicates),
            "empirical_se": a[:, 0].std(ddof=1),
            "model_se": a[:, 1].mean(),
            "coverage": ((a[:, 2] <= truth) & (truth <= a[:, 3])).mean(),
            "icc_site": a[:, 4].mean(),
            "icc_ward": a[:, 5].mean(),
        }
        out[method] = {name: round(float(v), 5) for name, v in figures.items()}
    return out


@pytest.mark.calibration
@pytest.mark.parametrize("setting", SETTINGS)
def test_stored_results_keep_the_limits(setting: str) -> None:
    stored = json.loads(STORED.read_text())
    n, results = stored["replicates"], stored["settings"][setting]
    three, full = results["three-level"], results["full data"]
    assert n >= 200
    assert abs(three["bias"]) < 2.5 * three["bias_mcse"]
    assert abs(three["coverage"] - 0.95) < 0.02 + 2.5 * np.sqrt(0.95 * 0.05 / n)
    assert abs(three["model_se"] / three["empirical_se"] - 1.005) < 0.055 + 2.5 * np.sqrt(0.5 / n)
    assert abs(three["icc_site"] - full["icc_site"]) < 0.015
    assert abs(three["icc_ward"] - full["icc_ward"]) < 0.015
    # the limit can be broken: without their intercept wards lose a good part of their variance
    assert results["two-level"]["icc_ward"] < 0.7 * full["icc_ward"]


@pytest.mark.slow
@pytest.mark.calibration
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_rerun_gives_the_stored_figures(setting: str) -> None:
    stored = json.loads(STORED.read_text())["first"][setting]
    again = study(setting, 20)
    for method, row in stored.items():
        for name, value in row.items():
            assert again[method][name] == pytest.approx(value, abs=5e-3), (method, name)


if __name__ == "__main__":
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    made = {s: study(s, many) for s in SETTINGS}
    stored = {"replicates": many, "m": M, "settings": made, "first": {s: study(s, 20) for s in SETTINGS}}
    STORED.write_text(json.dumps(stored, indent=1) + "\n")
