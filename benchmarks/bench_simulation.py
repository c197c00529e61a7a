"""Simulated trials, and the planned analysis on them, beside statsmodels' MixedLM in the same process.

CPU seconds of one thread. The peer gets what it needs ready-made (arrays of complete cases) and gives z-tests; ours goes
from the seed to Kenward-Roger intervals.

    python benchmarks/bench_simulation.py [--trials 100] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import statsmodels.api as sm  # noqa: E402

from trialkit.simulation import check, planned_power, shipped_scenario, simulate  # noqa: E402
from trialkit.simulation.making import blueprint, draw  # noqa: E402


def climate_arrays(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Complete cases of the climate model: outcome, fixed effects, sites."""
    people = simulate(shipped_scenario("supervision"), seed=seed).people
    rows = people.dropna(subset=["climate", "climate_0", "gender"])
    x = [np.ones(len(rows)), (rows["arm"] == "intervention").to_numpy(float), rows["climate_0"].to_numpy()]
    for column in ("gender", "age_band", "education", "consumer"):
        x += [(rows[column] == level).to_numpy(float) for level in sorted(rows[column].unique())[1:]]
    return rows["climate"].to_numpy(), np.column_stack(x), rows["site"].to_numpy()


def peer(n: int) -> float:
    """Seconds a fit by MixedLM, REML, method powell (its default optimiser is often not at the optimum)."""
    sets = [climate_arrays(s) for s in range(n)]
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for y, x, site in sets:
            sm.MixedLM(y, x, groups=site).fit(reml=True, method="powell")
    return (time.process_time() - start) / n


def peer_planned(n: int) -> float:
    """Seconds a trial of 68 sites of 2, drawn and fitted by MixedLM."""
    rng = np.random.default_rng(1)
    site = np.repeat(np.arange(68), 2)
    x = np.column_stack([np.ones(136), site % 2])
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(n):
            y = 0.5 * x[:, 1] + np.sqrt(0.05) * rng.normal(size=68)[site] + np.sqrt(0.95) * rng.normal(size=136)
            sm.MixedLM(y, x, groups=site).fit(reml=True, method="powell")
    return (time.process_time() - start) / n


def main() -> None:
    """Run and print."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--trials", type=int, default=100)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    scenario = shipped_scenario("supervision")

    start = time.process_time()
    plan = blueprint(scenario)
    first = time.process_time() - start
    draw(plan, 0)
    start = time.process_time()
    for seed in range(given.trials):
        draw(plan, seed)
    drawing = (time.process_time() - start) / given.trials
    start = time.process_time()
    for seed in range(given.trials):
        _ = simulate(scenario, seed=seed).people
    table = (time.process_time() - start) / given.trials

    check(scenario, trials=25, seed=1)
    start = time.process_time()
    done = check(scenario, trials=given.trials, seed=1)
    checking = (time.process_time() - start) / given.trials
    fit = (checking - drawing) / len(done.frame)
    theirs = peer(max(given.trials // 5, 10))

    found = planned_power(clusters=68, cluster_size=2, icc=0.05, effect=0.5, trials=20_000, seed=1, analyses=["kenward-roger"])
    planned = found.cpu_seconds / 20_000
    theirs_planned = peer_planned(max(given.trials // 3, 20))

    figures = {
        "scenario worked out, sites matched (s, once)": first,
        "one trial as arrays (ms)": drawing * 1e3,
        "one trial as a table (ms)": table * 1e3,
        "one trial drawn and 18 outcomes analysed, Kenward-Roger (ms)": checking * 1e3,
        "1,000 trials x 18 outcomes (s)": checking * 1e3,
        "one fit with Kenward-Roger, from arrays (ms)": fit * 1e3,
        "one MixedLM fit, powell, z (ms)": theirs * 1e3,
        "ratio, MixedLM / ours, a fit": theirs / fit,
        "planned power, 1,000 trials of 68 x 2 with Kenward-Roger (s)": planned * 1e3,
        "the same by MixedLM, z (s)": theirs_planned * 1e3,
        "ratio, MixedLM / ours, a planned trial": theirs_planned / planned,
    }
    for label, value in figures.items():
        print(f"{label:64s} {value:12.4g}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
