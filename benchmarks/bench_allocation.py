"""The draw, verification, the exact sign-flip test and constrained randomisation, beside what a peer would do, in one process.

CPU seconds of one thread, median of repeats. Peers: going through every assignment by brute force (at 18 pairs, where that still can be
waited for), and a loop that scores schemes one by one, as R's cvcrand does. The matching's own benchmark is bench_matching.py.

    python benchmarks/bench_allocation.py [--repeats 3] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from trialkit._kernels.signflip import sign_flip, sign_flip_interval  # noqa: E402
from trialkit.allocation import Seed, constrained, exact, exact_if_possible, match_pairs, nearest, verify, within_pairs  # noqa: E402

SEED = Seed(text="a3f1c2d4e5b60718293a4b5c6d7e8f90", source="benchmark")


def sites_of(n: int, seed: int = 1) -> pd.DataFrame:
    """Sites of the supervision trial's kind."""
    r = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "site": [f"S{k:04d}" for k in range(n)],
            "directly_operated": np.where(r.random(n) < 0.38, "yes", "no"),
            "annual_budget": np.round(np.exp(r.normal(13, 1, n))),
            "n_staff": r.poisson(6, n).astype(float),
            "youth_family": np.where(r.random(n) < 0.4, "yes", "no"),
        }
    )


def cpu(work: Callable[[], Any], repeats: int) -> float:
    """Median CPU seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def brute_force(d: np.ndarray) -> float:
    """Two-sided sign-flip p by going through every assignment, in blocks of rows."""
    n, far, t = len(d), 0, abs(d.sum())
    low = ((np.arange(1 << (n // 2))[:, None] >> np.arange(n // 2)) & 1) * -2.0 + 1
    left = low @ d[: n // 2]
    for code in range(1 << (n - n // 2)):
        signs = ((code >> np.arange(n - n // 2)) & 1) * -2.0 + 1
        far += int(np.count_nonzero(np.abs(left + signs @ d[n // 2 :]) >= t - 1e-12))
    return far / 2**n


def one_by_one(x: np.ndarray, schemes: np.ndarray) -> np.ndarray:
    """l2 scores and same-arm counts, a scheme at a time."""
    weight = 1 / x.var(axis=0, ddof=1)
    together = np.zeros((schemes.shape[1], schemes.shape[1]))
    scores = np.empty(len(schemes))
    for k, z in enumerate(schemes):
        difference = x[z == 1].mean(axis=0) - x[z == 0].mean(axis=0)
        scores[k] = (weight * difference**2).sum()
        together += z[:, None] == z
    return scores


def main() -> None:
    """Time all and print one line each."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    found: dict[str, float] = {}

    frame = sites_of(85)
    criteria = [exact("directly_operated"), nearest("annual_budget"), nearest("n_staff"), exact_if_possible("youth_family")]
    plan = within_pairs(match_pairs(frame, id="site", criteria=criteria, odd="single"))
    found["85 sites: match, certified"] = cpu(lambda: match_pairs(frame, id="site", criteria=criteria, odd="single"), given.repeats)
    found["85 sites: draw with certificate"] = cpu(lambda: plan.drawn(SEED).certificate, given.repeats)
    certificate = plan.drawn(SEED).certificate
    found["85 sites: verify"] = cpu(lambda: verify(certificate, frame), given.repeats)

    r = np.random.default_rng(2)
    d = r.normal(0.3, 1, 42)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["42 pairs: exact sign-flip p over 2^42"] = cpu(lambda: sign_flip(d), given.repeats)
    found["42 pairs: sign-flip, MB more"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    found["42 pairs: 95% interval by inversion"] = cpu(lambda: sign_flip_interval(d), 1)
    small = r.normal(0.3, 1, 18)
    assert abs(brute_force(small) - sign_flip(small).two_sided) < 1e-15
    found["18 pairs: exact sign-flip"] = cpu(lambda: sign_flip(small), given.repeats)
    found["18 pairs: brute force"] = cpu(lambda: brute_force(small), given.repeats)

    balance = ["annual_budget", "n_staff", "directly_operated", "youth_family"]

    def whole() -> Any:
        made = constrained(frame, id="site", covariates=balance, cutoff=1.0)
        made.validity()
        return made

    found["50,000 schemes of 85 sites with validity matrix"] = cpu(whole, given.repeats)
    schemes = whole().accepted
    x = np.column_stack([frame[c] if c in balance[:2] else frame[c] == "yes" for c in balance]).astype(float)
    tenth = schemes[::10]
    found["the same scored one by one"] = 10 * cpu(lambda: one_by_one(x, tenth), 1)

    width = max(map(len, found))
    for label, value in found.items():
        print(f"{label:<{width}}  {value:10.4f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
