"""Rank-ordered optimal matching beside rustworkx, in one process: CPU seconds of one thread, totals compared.

Sites of the supervision trial's kind, four ranks (county level, budget, staff, youth focus): `raw` budgets in dollars, `binned` budgets in
deciles and staff up to 30 (ties everywhere). "without ties" is the kernel on the four ranks, certificate checked; "with ties" adds the
canonical hash rank; "match_pairs" is the public verb from table to result. rustworkx gets the same four ranks as one integer an edge and
returns no certificate. Goals: match_pairs at 85 sites 0.05 s; without ties 0.25 / 0.7 / 3.0 s at 500 / 1,000 / 2,000 sites, with ties
2.5 times that.

    python benchmarks/bench_matching.py [--repeats 3] [--largest-peer 1000] [--json PATH]
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
import rustworkx  # noqa: E402

from trialkit._kernels.matching import Matching, layout, pack, perfect_matching  # noqa: E402
from trialkit._kernels.matching_ties import TIE_BITS, tie_weights  # noqa: E402
from trialkit.allocation import exact_if_possible, match_pairs, nearest  # noqa: E402

GOALS = {85: 0.05, 500: 0.25, 1000: 0.7, 2000: 3.0}


def sites(n: int, shape: str, seed: int) -> pd.DataFrame:
    """Skewed budgets, staff that follow them, two yes/no columns."""
    rng = np.random.default_rng(seed)
    budget = np.exp(rng.normal(13.2, 1.1, n)).astype(np.int64)
    staff = np.maximum(1, budget / 1e5 * np.exp(rng.normal(0, 0.3, n))).astype(np.int64)
    if shape == "binned":
        budget, staff = np.argsort(np.argsort(budget)) * 10 // n, np.minimum(staff, 30)
    return pd.DataFrame(
        {
            "site": [f"S{k:05d}" for k in range(n)],
            "county": rng.choice(["yes", "no"], n, p=[0.38, 0.62]),
            "budget": budget,
            "staff": staff,
            "youth": rng.choice(["yes", "no"], n, p=[0.3, 0.7]),
        }
    )


def ranks(table: pd.DataFrame) -> list[np.ndarray]:
    """The four distance matrices, with one empty place when the count is odd."""
    columns = [(table[c] == "yes").to_numpy(dtype=np.int64) if c in ("county", "youth") else table[c].to_numpy() for c in table.columns[1:]]
    distances = [np.abs(x[:, None] - x) for x in columns]
    return [np.pad(d, (0, 1)) for d in distances] if len(table) % 2 else distances


def solve(distances: list[np.ndarray], ids: list[str] | None) -> Matching:
    """The kernel as `match_pairs` calls it; with `ids`, the tie rank is hashed and appended."""
    sizes = [int(d.max()) for d in distances]
    totals = [int(d.max(axis=1).sum() + 1) // 2 for d in distances]
    if ids is not None:
        ties = tie_weights(ids)
        distances = [*distances, np.pad(ties, (0, 1)) if len(ids) % 2 else ties]
        sizes, totals = [*sizes, (1 << TIE_BITS) - 1], [*totals, len(ids) << TIE_BITS]
    found = perfect_matching(pack(dict(enumerate(distances)), layout(sizes, totals)), ~np.eye(distances[0].shape[0], dtype=bool))
    assert isinstance(found, Matching)
    return found


def peer(distances: list[np.ndarray]) -> list[tuple[int, int]]:
    """rustworkx on the complete graph, the ranks as one integer an edge."""
    n = distances[0].shape[0]
    multipliers = [1]
    for d in reversed(distances[1:]):
        multipliers.append(multipliers[-1] * (int(d.max()) * n // 2 + 1))
    weight = sum(d.astype(object) * m for d, m in zip(distances, reversed(multipliers), strict=True))
    ceiling = int(weight.max()) + 1
    graph = rustworkx.PyGraph(multigraph=False)
    graph.add_nodes_from(range(n))
    graph.add_edges_from([(i, j, ceiling - int(weight[i, j])) for i in range(n) for j in range(i)])
    return list(rustworkx.max_weight_matching(graph, max_cardinality=True, weight_fn=int))


def totals_of(distances: list[np.ndarray], pairs: list[tuple[int, int]]) -> list[int]:
    return [sum(int(d[i, j]) for i, j in pairs) for d in distances]


def cpu(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    seconds, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=[85, 500, 1000, 2000])
    parser.add_argument("--largest-peer", type=int, default=1000, help="rustworkx needs minutes beyond 1,000 sites")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    criteria = [exact_if_possible("county"), nearest("budget"), nearest("staff"), exact_if_possible("youth")]
    match_pairs(sites(10, "raw", 0), id="site", criteria=criteria)  # imports out of the way
    floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = []
    for n in options.sizes:
        for shape in ("raw", "binned"):
            table = sites(n, shape, seed=n)
            verb, pairing = cpu(lambda table=table: match_pairs(table, id="site", criteria=criteria, odd="single"), options.repeats)
            distances = ranks(table)
            plain, found = cpu(lambda d=distances: solve(d, None), options.repeats)
            tied, _ = cpu(lambda d=distances, t=table: solve(d, t["site"].tolist()), options.repeats)
            ours = totals_of(distances, [(i, j) for i, j in enumerate(found.mate) if i < j])
            assert ours == [int(c) for c in pairing.costs]
            row: dict[str, Any] = {"sites": n, "shape": shape, "without_ties": plain, "with_ties": tied, "match_pairs": verb}
            row["goal_without_ties"] = GOALS.get(n)
            if n <= options.largest_peer:
                row["rustworkx"], theirs = cpu(lambda d=distances: peer(d), 1 if n > 500 else options.repeats)
                assert totals_of(distances, theirs) == ours, "rustworkx found another optimum"
                row["rustworkx_ratio"] = row["rustworkx"] / plain
            row["peak_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - floor) / 1024
            rows.append(row)
            print(pd.DataFrame([row]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
