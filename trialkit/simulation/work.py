"""Where the work runs: chunks of trials, here or in worker processes, kept on disk as they finish.

Parallelism comes in from outside: a number of jobs, or joblib's ambient ``parallel_config`` (Dask, Ray, a
cluster). Chunks and seeds are fixed before anything is handed out, so neither the backend nor the number of
workers can reach a bit of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from trialkit.door import sha256_bytes, write_whole
from trialkit.simulation.analyses import FIELDS, Analysis
from trialkit.simulation.answers import Answers, answer
from trialkit.simulation.making import blueprint
from trialkit.simulation.scenario import Scenario

# one chunk is one batch of fits: part of the definition of the result, not a tuning knob
CHUNK = 25
_ATTEMPTS = 3


def run(
    scenario: Scenario,
    seeds: Sequence[int],
    analyses: Sequence[Analysis],
    imputations: int,
    *,
    jobs: int | None,
    progress: bool,
    store: Path | None,
) -> list[Answers]:
    """The answers of all trials, chunk by chunk in order.

    With a `store` every finished chunk is a file there, and a run that was broken off goes on where it stopped. A
    chunk whose worker was killed is handed out again, up to three times.
    """
    parts = [tuple(seeds[k : k + CHUNK]) for k in range(0, len(seeds), CHUNK)]
    done: dict[int, Answers] = {}
    names: list[str] = []
    if store is not None:
        names = [_key(scenario, part, analyses, imputations) for part in parts]
        store.mkdir(parents=True, exist_ok=True)
        done = {i: _load(path) for i, name in enumerate(names) if (path := store / f"{name}.parquet").exists()}
    for attempt in range(1, _ATTEMPTS + 1):
        left = [i for i in range(len(parts)) if i not in done]
        work = [(i, scenario, parts[i], tuple(analyses), imputations) for i in left]
        try:
            for i, answers in _shown(_finished(work, jobs), len(left), progress):
                done[i] = answers
                if store is not None:
                    _save(store / f"{names[i]}.parquet", answers, scenario, parts[i], analyses)
            break
        except _worker_lost():
            if attempt == _ATTEMPTS:
                raise
    return [done[i] for i in range(len(parts))]


def _finished(work: list[Any], jobs: int | None) -> Iterable[tuple[int, Answers]]:
    if jobs == 1 or not work:
        return (_chunk(*one) for one in work)
    from joblib import Parallel, delayed

    try:
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
        # how the trials reach the workers is joblib's choice; one chunk a task keeps every worker busy to the end
        found: Iterable[tuple[int, Answers]] = parallel(delayed(_chunk)(*one) for one in work)
    except ValueError:  # a backend that cannot hand results out one by one (Ray)
        found = Parallel(n_jobs=jobs)(delayed(_chunk)(*one) for one in work)
    return found


def _chunk(index: int, scenario: Scenario, seeds: Sequence[int], analyses: Sequence[Analysis], imputations: int) -> tuple[int, Answers]:
    """One piece of work; BLAS is held to one thread, so that bits do not depend on where it runs."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(limits=1):
        found = answer(blueprint(scenario), seeds, analyses, imputations=imputations, weighting=scenario.design.estimand.weighting)
    return index, found


def _worker_lost() -> tuple[type[BaseException], ...]:
    from concurrent.futures.process import BrokenProcessPool

    return (BrokenProcessPool,)


def _shown(parts: Iterable[Any], total: int, progress: bool) -> Iterator[Any]:
    if not progress:
        yield from parts
        return
    from tqdm.auto import tqdm

    with tqdm(total=total * CHUNK, unit="trial") as bar:
        for part in parts:
            yield part
            bar.update(CHUNK)


# --- finished chunks on disk --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _maker() -> str:
    """What makes the answers: the versions of the libraries and every line of this package."""
    from trialkit.results import Provenance

    package = Path(__file__).parents[1]
    source = "".join(
        f"{path.relative_to(package).as_posix()}\n{path.read_text(encoding='utf-8')}" for path in sorted(package.rglob("*.py"))
    )
    return sha256_bytes(f"{sorted(Provenance.now().versions.items())}\n{source}".encode())


def _key(scenario: Scenario, seeds: Sequence[int], analyses: Sequence[Analysis], imputations: int) -> str:
    """A name that only the same work has, done by the same code."""
    # limits decide the verdict, not the answers
    said = (scenario.but(limits=type(scenario.limits)()).digest, tuple(seeds), tuple(analyses), imputations, _maker())
    return sha256_bytes(repr(said).encode())[:32]


def _save(path: Path, answers: Answers, scenario: Scenario, seeds: Sequence[int], analyses: Sequence[Analysis]) -> None:
    """One Parquet file, a row a trial, analysis and outcome, in that order; a folder of them is one table to any reader."""
    import io
    import json

    import pyarrow as pa
    from pyarrow import parquet

    T, A, K, _ = answers.values.shape
    names = [o.name for o in scenario.outcomes]
    columns: dict[str, Any] = {
        "scenario": pa.array([scenario.digest[:12]] * (T * A * K)),
        "seed": np.repeat(np.array(seeds, dtype=np.int64), A * K),
        "analysis": pa.array([a.name for _ in range(T) for a in analyses for _ in range(K)]),
        "outcome": pa.array(names * (T * A)),
        "truth": answers.truth.ravel(),
        # arrays as they are: a missing number stays the NaN it was
        **{field: answers.values[..., f].ravel() for f, field in enumerate(FIELDS)},
    }
    said = {"shape": [T, A, K], "failures": answers.failures}
    data = io.BytesIO()
    parquet.write_table(pa.table(columns).replace_schema_metadata({"trialkit": json.dumps(said)}), data, compression="zstd")
    write_whole(path, data.getvalue(), force=True)


def _load(path: Path) -> Answers:
    import json

    from pyarrow import parquet

    with path.open("rb") as file:
        held = parquet.read_table(file)
    said = json.loads(held.schema.metadata[b"trialkit"])
    shape = tuple(said["shape"])
    columns = [held.column(name).to_numpy().reshape(shape) for name in FIELDS]
    truth = held.column("truth").to_numpy().reshape(shape)
    failures = tuple((t, a, k, stage, why) for t, a, k, stage, why in said["failures"])
    return Answers(np.stack(columns, axis=-1), np.ascontiguousarray(truth), failures)
