"""Two-level imputation of a mixed file beside scikit-learn's IterativeImputer and statsmodels' MICE (single-level, categories as numbers).

350 people in 85 sites of 1 to 15, 28 columns: baseline 7 scales, 3 binary, 3 ordinal, 2 nominal, 1 count; follow-up 3 scales, 1 binary;
2 site-level; the rest complete; 25% of the cells of incomplete columns missing at random. CPU seconds of one thread, median of repeats,
in the same process, each beside the most it may take; peers' figures on record for this job (single thread, another machine): jomo 5,990 s,
statsmodels 839, mice default 267, 2l.pan 158, mice pmm (single-level) 47, scikit-learn 41, panImpute 17, all at m = 20.

    python benchmarks/bench_imputation.py [--repeats 3] [--quick] [--large] [--json PATH]
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
    # a column's type is declared where it is an outcome or a covariate: so the count is matched, not taken for a normal one
    outcomes.append({"name": "sick_0", "type": "count", "has_baseline": False})
    auxiliary = [f"scale{k}_0" for k in range(3, 7)] + ["site_budget", "site_type", "month", "tenure", "night_shift"]
    design = TrialDesign(outcomes=outcomes, covariates=covariates, imputation={"auxiliary": auxiliary})
    return frame, design


def cpu(run: object) -> float:
    assert callable(run)
    start = time.process_time()
    run()
    return time.process_time() - start


def as_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    numbers = frame.drop(columns=["person", "site"]).copy()
    for name in numbers.columns:
        if not pd.api.types.is_numeric_dtype(numbers[name]):
            codes = pd.Categorical(numbers[name]).codes.astype(float)
            numbers[name] = np.where(codes < 0, np.nan, codes)
    return numbers


def sklearn_chains(frame: pd.DataFrame, m: int, iterations: int) -> None:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    numbers = as_numbers(frame).to_numpy()
    for k in range(m):
        IterativeImputer(sample_posterior=True, max_iter=iterations, tol=0.0, random_state=k).fit_transform(numbers)


def statsmodels_chains(frame: pd.DataFrame, m: int, iterations: int) -> None:
    from statsmodels.imputation.mice import MICEData

    for k in range(m):
        np.random.seed(k)  # noqa: NPY002 - statsmodels draws from the global generator
        MICEData(as_numbers(frame)).update_all(iterations)


def large_trial(n: int = 100_000, sites: int = 1000) -> tuple[pd.DataFrame, TrialDesign]:
    """Eleven incomplete columns."""
    rng = np.random.default_rng(3)
    site = np.sort(rng.integers(0, sites, n))
    arm = (rng.permutation(sites) < sites // 2)[site]
    shared, u = rng.normal(size=n), rng.normal(size=(sites, 11))[site]
    data = {f"scale{k}": 0.3 * u[:, k] + 0.5 * shared + rng.normal(size=n) for k in range(11)}
    frame = pd.DataFrame(data).mask(rng.random((n, 11)) < 0.25)
    frame.insert(0, "person", np.arange(n))
    frame.insert(1, "site", site)
    frame.insert(2, "arm", np.where(arm, "intervention", "control"))
    outcomes = [{"name": "scale0", "has_baseline": False}]
    return frame, TrialDesign(outcomes=outcomes, imputation={"auxiliary": [f"scale{k}" for k in range(1, 11)]})


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# the most a job may take (the project's promise), by what is printed
LIMITS = {"m=20 x 20": 1.5, "m=50 x 10": 2.0, "peak resident MB": 200.0}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--quick", action="store_true", help="scikit-learn with 2 chains, statsmodels with 1 of 2 iterations, multiplied up"
    )
    parser.add_argument(
        "--large", action="store_true", help="also 100,000 people in 1,000 sites, and the cost at a half and a tenth of that"
    )
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
        figures[f"m={m} x {iterations}"] = statistics.median(times)
    figures["peak resident MB"] = megabytes()
    print("trialkit, all types two-level")
    for name, value in figures.items():
        limit = LIMITS.get(name)
        said = "" if limit is None else f"   at most {limit:g}: {'kept' if value <= limit else 'NOT KEPT'} ({value / limit:.2f} of it)"
        print(f"{value:10.2f}  {name}{said}")
    print("single-level peers, all columns as numbers, m=20 x 20, same process")
    chains, rounds = (2, 2) if options.quick else (20, 20)
    peers = {"scikit-learn IterativeImputer": cpu(lambda: sklearn_chains(frame, chains, 20)) * 20 / chains}
    # a warm-up of its own, then chains of so many rounds: its cost is in the rounds
    slow = 1 if options.quick else 20
    peers["statsmodels MICEData"] = cpu(lambda: statsmodels_chains(frame, slow, rounds)) * 20 / slow * 20 / rounds
    for name, value in peers.items():
        print(f"{value:10.2f}  {name}: {value / figures['m=20 x 20']:.0f} times as long")
    figures |= peers
    if options.large:
        print("cost by rows, 11 incomplete columns, m=5 x 5")
        for n, sites in ((10_000, 100), (50_000, 500), (100_000, 1000)):
            people, declared = large_trial(n, sites)
            seconds = cpu(lambda people=people, declared=declared: impute(people, declared, m=5, seed=1, iterations=5))
            figures[f"{n} people in {sites} sites"] = seconds
            print(
                f"{seconds:10.2f}  {n:,} people in {sites:,} sites: {1e6 * seconds / n:.0f} us a person, {megabytes():.0f} MB in all so far"
            )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
