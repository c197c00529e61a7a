"""Random-intercept fits with Kenward-Roger and Satterthwaite inference, beside statsmodels MixedLM, on the same data in one process.

CPU milliseconds of one thread, median of repeats. The peer gives z tests only; ours carry both small-sample methods. `glmm` (Rust,
Satterthwaite only) is timed as well when it is installed; it is no dependency.

    python benchmarks/bench_mixed.py [--repeats 5] [--rows 1000000] [--json PATH]
"""

from __future__ import annotations

import argparse
import importlib.util
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
from statsmodels.regression.mixed_linear_model import MixedLM  # noqa: E402

import trialkit as tk  # noqa: E402
from trialkit._kernels import reml, small_sample  # noqa: E402

# what the project promises, in CPU milliseconds
LIMITS = {
    "one fit, KR and Satterthwaite": 1.0,
    "one fit from a DataFrame": 2.0,
    "pair and site, KR and Satterthwaite": 5.0,
    "1,000 responses, one design": 60.0,
    "50 imputed sets": 60.0,
    "rows in sites of ten": 1000.0,
    "rows in sites of ten, from a DataFrame": 1000.0,
}


def cpu(work: Callable[[], Any], repeats: int, loops: int = 1) -> float:
    """Median CPU milliseconds of one call."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(loops):
            work()
        times.append((time.process_time() - start) / loops)
    return 1e3 * statistics.median(times)


def trial(n_sites: int = 85, persons: int = 350, columns: int = 11, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (persons, columns), y and site: two columns by site, the rest by person."""
    rng = np.random.default_rng(seed)
    site = np.sort(np.concatenate([np.arange(n_sites), rng.integers(0, n_sites, persons - n_sites)]))
    X = np.column_stack([np.ones(persons), site % 2, rng.normal(size=(persons, columns - 2))])
    y = X @ rng.normal(size=columns) + 0.4 * rng.normal(size=n_sites)[site] + rng.normal(size=persons)
    return X, y, site


def frame_of(X: np.ndarray, y: np.ndarray, site: np.ndarray) -> tuple[pd.DataFrame, str]:
    """The same data as a user has them: text for site and arm, a column a covariate, and the formula."""
    table = {"y": y, "site": np.char.add("s", site.astype(str)).astype(object), "arm": np.where(X[:, 1] > 0, "intervention", "control")}
    covariates = {f"x{j}": X[:, j] for j in range(2, X.shape[1])}
    return pd.DataFrame(table | covariates), "y ~ arm + " + " + ".join(covariates)


def main() -> None:
    """Time all, print one line each and the ratio to the peer."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, float] = {}

    X, y, site = trial()
    contrast = np.eye(X.shape[1])[[1]]

    def infer(fit: reml.MixedFit) -> None:
        small_sample.kenward_roger(fit, contrast)
        small_sample.satterthwaite(fit, contrast)

    found["one fit, KR and Satterthwaite"] = cpu(lambda: infer(reml.fit(X, y, [site])), given.repeats, 200)
    people, formula = frame_of(X, y, site)
    found["one fit from a DataFrame"] = cpu(lambda: tk.fit_mixed(formula, people, groups=["site"]), given.repeats, 100)
    found["  statsmodels MixedLM, z"] = cpu(lambda: MixedLM(y, X, groups=site).fit(reml=True), given.repeats)
    found["  statsmodels MixedLM, z, powell"] = cpu(lambda: MixedLM(y, X, groups=site).fit(reml=True, method="powell"), given.repeats)
    if importlib.util.find_spec("glmm"):
        import glmm

        table = {"y": y, "site": [f"s{s}" for s in site], **{f"x{j}": X[:, j] for j in range(1, X.shape[1])}}
        formula = "y ~ " + " + ".join(f"x{j}" for j in range(1, X.shape[1])) + " + (1 | site)"
        found["  glmm, Satterthwaite"] = cpu(lambda: glmm.fit(table, formula), given.repeats, 20)
    ours = reml.fit(X, y, [site])
    theirs = MixedLM(y, X, groups=site).fit(reml=True, method="powell")
    assert ours.log_likelihood >= theirs.llf - 1e-6

    pair = site // 2
    found["pair and site, KR and Satterthwaite"] = cpu(lambda: infer(reml.fit(X, y, [pair, site])), given.repeats, 50)
    table = pd.DataFrame({"y": y, "site": site})

    def nested() -> Any:
        return MixedLM(y, X, groups=pair, exog_vc=_components(pair, site)).fit(reml=True)

    found["  statsmodels MixedLM, variance components, z"] = cpu(nested, 1)

    rng = np.random.default_rng(2)
    Y = y[:, None] + rng.normal(size=(y.size, 1000))
    found["1,000 responses, one design"] = cpu(lambda: reml.fit_many(X, Y, [site], contrasts=contrast), given.repeats)
    found["  statsmodels MixedLM, 1,000 times"] = 100 * cpu(lambda: [MixedLM(Y[:, i], X, groups=site).fit() for i in range(10)], 1)

    sets = [(np.column_stack([X[:, :2], X[:, 2:] + 0.1 * rng.normal(size=X[:, 2:].shape)]), Y[:, i]) for i in range(50)]

    def imputed() -> None:
        for fit in reml.fit_sets(sets, [site]):
            infer(fit)

    found["50 imputed sets"] = cpu(imputed, given.repeats, 5)

    means, sizes = rng.normal(size=(20_000, 20)), rng.integers(5, 15, 20)
    by_site = np.column_stack([np.ones(20), np.arange(20) % 2])
    within = rng.chisquare(sizes.sum() - 20, 20_000)
    found["20,000 trials of 20 sites from summaries"] = cpu(
        lambda: reml.fit_cluster_summaries(means, sizes, within, by_site, contrasts=np.array([[0.0, 1.0]])), given.repeats
    )

    wide, outcome, many = trial(given.rows // 10, given.rows)
    found["rows in sites of ten"] = cpu(lambda: infer(reml.fit(wide, outcome, [many])), min(given.repeats, 3))

    people, formula = frame_of(wide, outcome, many)
    found["rows in sites of ten, from a DataFrame"] = cpu(lambda: tk.fit_mixed(formula, people, groups=["site"]), min(given.repeats, 3))

    width = max(map(len, found))
    for label, value in found.items():
        limit = LIMITS.get(label)
        print(f"{label:<{width}}  {value:10.3f} ms" + (f"   (promised {limit:g})" if limit else ""))
    for ours_label, theirs_label in (
        ("one fit, KR and Satterthwaite", "  statsmodels MixedLM, z"),
        ("pair and site, KR and Satterthwaite", "  statsmodels MixedLM, variance components, z"),
        ("1,000 responses, one design", "  statsmodels MixedLM, 1,000 times"),
    ):
        print(f"{ours_label}: {found[theirs_label] / found[ours_label]:,.0f} times faster than {theirs_label.split(',')[0].strip()}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _components(pair: np.ndarray, site: np.ndarray) -> dict[str, dict[int, np.ndarray]]:
    return {"site": {g: pd.get_dummies(site[pair == g]).to_numpy(float) for g in np.unique(pair)}}


if __name__ == "__main__":
    main()
