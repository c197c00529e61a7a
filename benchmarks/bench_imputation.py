"""Two-level imputation of a mixed file beside scikit-learn's IterativeImputer (single-level, categories as numbers).

350 people in 85 sites of 1 to 15, 28 columns: baseline 7 scales, 3 binary, 3 ordinal, 2 nominal, 1 count; follow-up 3 scales, 1 binary;
2 site-level; the rest complete; 25% of the cells of incomplete columns missing at random. CPU seconds of one thread, median of repeats,
in the same process; peers' figures on record for this job (single thread, another machine): jomo 5,990 s, statsmodels 839, mice default
267, 2l.pan 158, mice pmm (single-level) 47, scikit-learn 41, panImpute 17, all at m = 20.

    python benchmarks/bench_imputation.py [--repeats 3] [--quick] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from trialkit.design import TrialDesign  # noqa: E402
from trialkit.imputation import impute  # noqa: E402


def mixed_trial(seed: int = 1, n: int = 350, sites: int = 85, missing: float = 0.25) -> tuple[pd.DataFrame, TrialDesign]:
    """A trial with every type of variable, incomplete at random given arm and the complete columns."""
    rng = np.random.default_rng(seed)
    share = rng.gamma(1.2, 1.0, sites) + 0.1
    site = np.sort(np.r_[np.arange(sites), rng.choice(sites, n - sites, p=share / share.sum())])
    arm = (rng.permutation(sites) < sites // 2).astype(float)[site]
    common = rng.normal(size=(n, 3))

    def latent(icc: float, pull: float = 0.5) -> np.ndarray:
        within = pull * common @ rng.normal(size=3) / np.sqrt(3) + np.sqrt(1 - pull**2) * rng.normal(size=n)
        return np.sqrt(icc) * rng.normal(size=sites)[site] + np.sqrt(1 - icc) * within

    def cut(x: np.ndarray, k: int) -> np.ndarray:
        return np.digitize(x, np.quantile(x, np.arange(1, k) / k)).astype(float)

    data: dict[str, np.ndarray] = {}
    for k in range(7):
        data[f"scale{k}_0"] = 50 + 10 * latent(0.1)
    for k in range(3):
        data[f"binary{k}"] = (latent(0.15) > 0.3 * k).astype(float)
    for k, levels in enumerate((6, 5, 4)):
        data[f"ordinal{k}"] = cut(latent(0.1), levels)
    for k, levels in enumerate((3, 4)):
        data[f"nominal{k}"] = np.array(["red", "green", "blue", "grey"])[cut(latent(0.1), levels).astype(int)]
    data["sick_0"] = np.floor(np.exp(0.5 + latent(0.1)))
    for k in range(3):
        data[f"scale{k}"] = data[f"scale{k}_0"] * 0.5 + 25 + 3 * arm + 7 * latent(0.1)
    data["improved"] = (latent(0.15) + 0.3 * arm > 0).astype(float)
    data["site_budget"] = np.exp(rng.normal(size=sites))[site]
    data["site_type"] = np.array(["county", "contracted"])[(rng.random(sites) < 0.6).astype(int)][site]
    frame = pd.DataFrame(data)
    month = rng.integers(1, 13, n).astype(float)
    leave = 1 / (1 + np.exp(-(np.log(missing / (1 - missing)) + 0.2 * arm + 0.08 * (month - 6))))
    for name in frame.columns:
        if name.startswith("site_"):
            lost = (rng.random(sites) < 0.1)[site]
        else:
            lost = rng.random(n) < leave
        frame.loc[lost, name] = None if isinstance(frame[name].iloc[0], str) else np.nan
    frame["month"] = month
    frame["tenure"] = rng.normal(size=n)
    frame["night_shift"] = (rng.random(n) < 0.3).astype(float)
    frame.insert(0, "person", [f"P{k:04d}" for k in range(n)])
    frame.insert(1, "site", [f"S{k:03d}" for k in site])
    frame.insert(2, "arm", np.where(arm == 1, "intervention", "control"))
    outcomes = [{"name": f"scale{k}"} for k in range(3)] + [{"name": "improved", "type": "binary", "has_baseline": False}]
    covariates = [{"name": f"binary{k}", "type": "binary"} for k in range(3)]
    covariates += [{"name": f"ordinal{k}", "type": "ordinal"} for k in range(3)]
    covariates += [{"name": f"nominal{k}", "type": "categorical"} for k in range(2)]
    auxiliary = [f"scale{k}_0" for k in range(3, 7)] + ["sick_0", "site_budget", "site_type", "month", "tenure", "night_shift"]
    design = TrialDesign(outcomes=outcomes, covariates=covariates, imputation={"auxiliary": auxiliary})
    return frame, design


def cpu(run: object) -> float:
    assert callable(run)
    start = time.process_time()
    run()
    return time.process_time() - start


def sklearn_chains(frame: pd.DataFrame, design: TrialDesign, m: int, iterations: int) -> None:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    numbers = frame.drop(columns=["person", "site"]).copy()
    for name in numbers.columns:
        if not pd.api.types.is_numeric_dtype(numbers[name]):
            codes = pd.Categorical(numbers[name]).codes.astype(float)
            numbers[name] = np.where(codes < 0, np.nan, codes)
    for k in range(m):
        IterativeImputer(sample_posterior=True, max_iter=iterations, tol=0.0, random_state=k).fit_transform(numbers.to_numpy())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="scikit-learn with 2 chains, multiplied by 10")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    frame, design = mixed_trial()
    impute(frame, design, m=2, seed=0, iterations=1)  # imports and first calls are not timed
    figures: dict[str, float] = {}
    for m, iterations in ((20, 20), (50, 10), (50, 20)):
        times = [
            cpu(lambda m=m, iterations=iterations: impute(frame, design, m=m, seed=1, iterations=iterations))
            for _ in range(options.repeats)
        ]
        figures[f"trialkit m={m} x {iterations}"] = statistics.median(times)
    figures["peak resident MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    chains = 2 if options.quick else 20
    figures["scikit-learn IterativeImputer m=20 x 20 (single-level, all as numbers)"] = (
        cpu(lambda: sklearn_chains(frame, design, chains, 20)) * 20 / chains
    )
    for name, value in figures.items():
        print(f"{value:10.2f}  {name}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
