"""fit_mixed and itt beside statsmodels MixedLM, in one process.

CPU seconds of one thread, median of repeats. 350 people in 85 sites, 11 fixed columns; 10,000 and 1,000,000 rows in a tenth as many
sites; 18 outcomes by 50 completed tables; the supervision trial's whole analysis (imputation, every outcome by Kenward-Roger, site means,
pairs and the randomisation test beside it, a tipping grid). Peers' figures on record for the first job (single thread, another machine):
lme4 + Kenward-Roger 81 ms, lmerTest 76 ms, statsmodels 160 ms without small-sample inference.

    python benchmarks/bench_itt.py [--repeats 5] [--quick] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from trialkit._kernels import reml, small_sample  # noqa: E402
from trialkit.design import TrialDesign  # noqa: E402
from trialkit.itt import fit_mixed, itt  # noqa: E402

FORMULA = "y ~ arm + y0 + gender + age + edu + consumer"


def people_of(n: int, sites: int, seed: int = 1) -> pd.DataFrame:
    """People of a trial with the trial's covariates."""
    rng = np.random.default_rng(seed)
    site = np.sort(np.concatenate([np.arange(sites), rng.integers(0, sites, n - sites)]))
    frame = pd.DataFrame(
        {
            "site": pd.Series(site).map("S{:06d}".format).astype("str"),
            "pair": pd.Series(site // 2).map("P{:06d}".format).astype("str"),
            "arm": (site % 2).astype(float),
            "y0": rng.normal(size=n),
            "gender": rng.choice(["F", "M"], n),
            "age": rng.choice(["18-29", "30-44", "45-59", "60+"], n),
            "edu": rng.choice(["a", "b", "c", "d"], n),
            "consumer": rng.integers(0, 2, n).astype(float),
        }
    )
    frame["y"] = 0.3 * frame["arm"] + 0.5 * frame["y0"] + 0.35 * rng.normal(size=sites)[site] + 0.8 * rng.normal(size=n)
    return frame


def cpu(work: Callable[[], Any], repeats: int) -> float:
    """Median CPU seconds, after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def statsmodels_fit(frame: pd.DataFrame) -> Any:
    """The peer, by the optimiser that finds the optimum."""
    import statsmodels.formula.api as smf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return smf.mixedlm(FORMULA, frame, groups="site").fit(method="powell")


def whole_trial(outcomes: int = 18, tables: int = 50) -> tuple[list[pd.DataFrame], TrialDesign]:
    """Completed tables of 250 people in 71 sites, and their design."""
    rng = np.random.default_rng(3)
    base = people_of(250, 71).drop(columns=["y", "y0"]).assign(person=[f"P{k}" for k in range(250)])
    base["arm"] = np.where(base["arm"] == 1, "intervention", "control")
    text = "".join(f'[[outcomes]]\nname = "y{k}"\n' for k in range(outcomes))
    text += "".join(f'[[covariates]]\nname = "{c}"\ntype = "categorical"\n' for c in ("gender", "age", "edu"))
    out = []
    for _ in range(tables):
        extra = {f"y{k}{end}": rng.normal(size=250) for k in range(outcomes) for end in ("", "_0")}
        out.append(pd.concat([base, pd.DataFrame(extra)], axis=1))
    return out, TrialDesign.from_text(text)


def supervision() -> Callable[[], Any]:
    """The supervision trial's whole analysis: 50 imputations, every outcome by every method, a tipping point of each primary outcome."""
    import trialkit as tk
    from trialkit.imputation import tipping_point
    from trialkit.simulation import shipped_scenario

    scenario = shipped_scenario("supervision")
    trial = tk.simulate(scenario, seed=1)
    design, plan = scenario.design, trial.allocation.plan

    def whole() -> None:
        imputations = tk.impute(trial.people, design, m=50, seed=7)
        itt(imputations, design, analyses="all", plan=plan, draws=10_000, seed=11)
        for outcome in design.outcomes:
            if outcome.rank == "primary":
                tipping_point(imputations, design, outcome.name, analyse=itt)

    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="leave out the million rows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    r = options.repeats
    small = people_of(350, 85)
    model = fit_mixed(FORMULA, small, groups=["site"]).model
    arm = np.eye(model.x.shape[1])[1:2]

    def arrays() -> None:
        fit = reml.fit(model.x, model.y, [model.groups[0].codes])
        small_sample.kenward_roger(fit, arm)
        small_sample.satterthwaite(fit, arm)

    figures: dict[str, float] = {
        "arrays, n=350, KR + Satterthwaite": cpu(arrays, 10 * r),
        "fit_mixed, n=350, text columns, KR for all": cpu(lambda: fit_mixed(FORMULA, small, groups=["site"]), 5 * r),
        "fit_mixed, n=350, pair and site": cpu(lambda: fit_mixed(FORMULA, small, groups=["pair", "site"]), 5 * r),
        "statsmodels MixedLM (powell), n=350": cpu(lambda: statsmodels_fit(small), r),
    }
    middle = people_of(10_000, 1_000)
    figures["fit_mixed, n=10,000"] = cpu(lambda: fit_mixed(FORMULA, middle, groups=["site"]), r)
    tables, design = whole_trial()
    figures["itt, 18 outcomes x 50 tables"] = cpu(lambda: itt(tables, design), max(r // 2, 1))
    analysis = supervision()
    start, begun = time.process_time(), time.perf_counter()
    analysis()
    figures["the supervision trial's whole analysis, m = 50 (CPU)"] = time.process_time() - start
    figures["the supervision trial's whole analysis, m = 50 (wall)"] = time.perf_counter() - begun
    if not options.quick:
        large = people_of(1_000_000, 100_000)
        figures["fit_mixed, n=1,000,000 in 100,000 sites"] = cpu(lambda: fit_mixed(FORMULA, large, groups=["site"]), max(r // 2, 1))
    width = max(map(len, figures))
    for label, seconds in figures.items():
        print(f"{label:<{width}}  {seconds * 1e3:10.2f} ms")
    ratio = figures["statsmodels MixedLM (powell), n=350"] / figures["fit_mixed, n=350, text columns, KR for all"]
    print(f"{'statsmodels / fit_mixed':<{width}}  {ratio:10.0f} x")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
