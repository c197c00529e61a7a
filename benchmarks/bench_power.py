"""Exact power: a grid of 100,000 designs, sample sizes, detectable effects and assurance, beside statsmodels in the same run.

statsmodels has no cluster designs; its two-sample t test on cluster means, with the standardised difference of cluster means worked out by
hand, is the same test. Run: ``python benchmarks/bench_power.py``. Times are CPU seconds of this process.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
from statsmodels.stats.power import TTestIndPower

from trialkit.power import assurance, beta_prior, detectable_effect, power, power_grid, sample_size, solve, stepped_wedge

CLUSTERS = np.arange(10, 210, 2)
SIZES = np.array([2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000], dtype=float)
ICCS = np.linspace(0, 0.3, 10)
EFFECTS = np.linspace(0.05, 1, 10)


def cpu(function: Callable[[], object], repeats: int) -> float:
    """CPU seconds of one call, the mean of several after one that warms up."""
    function()
    start = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - start) / repeats


def grid() -> np.ndarray:
    found = power_grid(clusters=CLUSTERS, cluster_size=SIZES, icc=ICCS, effect=EFFECTS)
    return found.frame["power"].to_numpy()


def grid_statsmodels() -> np.ndarray:
    J, m, rho, d = (a.ravel() for a in np.meshgrid(CLUSTERS, SIZES, ICCS, EFFECTS, indexing="ij"))
    standardised = d / np.sqrt(rho + (1 - rho) / m)
    return np.asarray(TTestIndPower().power(standardised, J / 2, 0.05, df=J - 2))


def main() -> None:
    warnings.simplefilter("ignore")
    ours, theirs = grid(), grid_statsmodels()
    both = np.isfinite(theirs)
    a, b = cpu(grid, 5), cpu(grid_statsmodels, 3)
    lost = np.isnan(ours).sum(), np.isnan(theirs).sum()
    print(f"grid of {len(ours):,} cells     trialkit {a:.3f} s ({lost[0]} NaN)   statsmodels {b:.3f} s ({lost[1]} NaN)")
    print(f"  largest difference      {np.abs(ours[both] - theirs[both]).max():.1e} where both give a number")

    v = 0.05 + 0.95 / 2
    a = cpu(lambda: sample_size(effect=0.5, cluster_size=2, icc=0.05, power=0.8), 50)
    b = cpu(lambda: TTestIndPower().solve_power(0.5 / v**0.5, power=0.8, alpha=0.05), 50)
    print(f"clusters for a power      trialkit {1e3 * a:.2f} ms (whole, verified)   statsmodels {1e3 * b:.2f} ms (real number)")
    a = cpu(lambda: detectable_effect(clusters=68, cluster_size=2, icc=0.05), 50)
    b = cpu(lambda: TTestIndPower().solve_power(nobs1=34, power=0.8, alpha=0.05), 50)
    print(f"detectable effect         trialkit {1e3 * a:.2f} ms   statsmodels {1e3 * b:.2f} ms")

    print("without a peer in Python:")
    for name, function, repeats in [
        ("power, one design", lambda: power(clusters=68, cluster_size=2, icc=0.05, effect=0.5), 200),
        ("power, stepped wedge", lambda: power(layout=stepped_wedge(6), clusters=24, cluster_size=20, icc=0.05, cac=0.8, effect=0.3), 100),
        ("clusters, stepped wedge", lambda: sample_size(layout=stepped_wedge(6), cluster_size=20, icc=0.05, cac=0.8, effect=0.3), 20),
        ("largest ICC for a power", lambda: solve(find="icc", clusters=68, cluster_size=2, effect=0.5, power=0.8), 20),
        ("assurance over a beta prior", lambda: assurance(clusters=68, cluster_size=2, effect=0.5, icc_prior=beta_prior(2, 38)), 10),
    ]:
        print(f"  {name:28s} {1e3 * cpu(function, repeats):8.2f} ms")


if __name__ == "__main__":
    main()
