"""fit_mixed beside statsmodels and the mixed-model packages of PyPI: time and answers, in one run.

The trial of `tests/reference/models/L01_crt_main.json` (350 people, 85 sites, 11 fixed columns) and one of 10,000 people in 1,000 sites;
each program from a table of text columns to inference for the arm. Programs take turns, round after round, each in a process of its own
with a limit of time and of memory; of every round the median CPU time of a few calls after one to warm up, of the rounds the least (the
quietest). Answers stand beside R's (lme4, lmerTest, pbkrtest; stored).

    make bench-peers        # its own virtual environment, from benchmarks/peers.txt
    python benchmarks/bench_mixed_peers.py --python PEERS_PYTHON [--rounds 5] [--limit 60] [--quick] [--markdown PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

THREADS = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
os.environ.update(THREADS)

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

REFERENCE = Path(__file__).parent.parent / "tests" / "reference" / "models"
FIXED = "y ~ arm + y0 + gender + age + edu + consumer"
FORMULA = f"{FIXED} + (1|site)"
COLUMNS = ["y", "arm", "y0", "gender", "age", "edu", "consumer", "site"]
MEMORY = 6 * 2**30  # bytes
CALLS = 5
BUDGET = 2.0  # seconds of calls a round

Answer = tuple[float, float, float | None]  # estimate, standard error, df of the arm
ARM = [0.0, 1.0, *([0.0] * 9)]


def small() -> pd.DataFrame:
    """350 people in 85 sites."""
    return pd.read_csv(REFERENCE / "data" / "crt_main.csv")[COLUMNS]


def middle(n: int = 10_000) -> pd.DataFrame:
    """10,000 people in 1,000 sites."""
    rng = np.random.default_rng(5)
    site = np.sort(np.concatenate([np.arange(n // 10), rng.integers(0, n // 10, n - n // 10)]))
    frame = pd.DataFrame({"arm": site % 2, "y0": rng.normal(size=n)})
    for name, levels in (("gender", "FM"), ("age", "abcd"), ("edu", "abcd")):
        frame[name] = rng.choice(list(levels), n)
    frame["consumer"] = rng.integers(0, 2, n)
    frame["site"] = [f"s{s:04d}" for s in site]
    frame["y"] = 0.3 * frame["arm"] + 0.5 * frame["y0"] + 0.35 * rng.normal(size=n // 10)[site] + 0.8 * rng.normal(size=n)
    return frame[COLUMNS]


# --- programs: from a table to (estimate, standard error, df) of the arm; imports are not timed -----------------


def trialkit(frame: pd.DataFrame, inference: str) -> Callable[[], Answer]:
    from trialkit.itt import fit_mixed

    def run() -> Answer:
        fit = fit_mixed(FIXED, frame, groups=["site"], inference=inference)
        return float(fit.kernel.beta[1]), float(fit._found.std_error[1]), float(fit._found.df[1])

    return run


def by_statsmodels(frame: pd.DataFrame, inference: str) -> Callable[[], Answer]:
    import statsmodels.formula.api as smf

    def run() -> Answer:
        m = smf.mixedlm(FIXED, frame, groups="site").fit(reml=True)
        return m.fe_params["arm"], m.bse_fe["arm"], None

    return run


def glmm(frame: pd.DataFrame, inference: str) -> Callable[[], Answer]:
    import glmm as package

    def run() -> Answer:
        m = package.fit(frame, FORMULA)
        return m.beta[1], m.se[1], m.coef_df[1]

    return run


def lme_python(frame: pd.DataFrame, inference: str) -> Callable[[], Answer]:
    import lme_python as package
    import polars

    table = polars.DataFrame(frame.to_dict("list"))

    def run() -> Answer:
        m = package.lmer(FORMULA, table)
        if inference == "kenward-roger":
            m.with_kenward_roger(table)
            return m.coefficients[1], m.beta_se[1], m.kenward_roger_dfs[1]
        m.with_satterthwaite(table)
        return m.coefficients[1], m.beta_se[1], m.satterthwaite_dfs[1]

    return run


def mixedlm(frame: pd.DataFrame, inference: str) -> Callable[[], Answer]:
    import mixedlm as package

    method = {"kenward-roger": "Kenward-Roger", "satterthwaite": "Satterthwaite"}[inference]

    def run() -> Answer:
        row = package.lmer(FORMULA, frame).tidy(ddf_method=method).set_index("term").loc["arm"]
        return row["estimate"], row["std.error"], row["df"]

    return run


def mixedlm_rs(frame: pd.DataFrame, inference: str) -> Callable[[], Answer]:
    import mixedlm_rs as package

    def run() -> Answer:
        m = package.mixedlm(FIXED, frame, groups="site").fit()
        at = m.model.exog_names.index("arm")
        return np.asarray(m.params)[at], np.asarray(m.bse)[at], None

    return run


def kamino(frame: pd.DataFrame, inference: str) -> Callable[[], Answer]:
    import kamino as package

    def run() -> Answer:
        m = package.lmer(FORMULA, frame)
        analysis = package.kenward_roger(m) if inference == "kenward-roger" else package.satterthwaite(m)
        found = analysis.test(ARM)
        covariance = analysis.adjusted_covariance if inference == "kenward-roger" else m.beta_covariance
        return m.beta[1], float(np.sqrt(covariance[1, 1])), _df(found)

    return run


def _df(found: Any) -> float:
    return next(float(getattr(found, name)) for name in ("denominator_df", "degrees_of_freedom", "df") if hasattr(found, name))


def interlace(frame: pd.DataFrame, inference: str) -> Callable[[], Answer]:
    import interlace as package

    def run() -> Answer:
        m = package.fit(FIXED, frame, groups="site", df_method=inference)
        return m.fe_params["arm"], m.fe_bse["arm"], m.fe_df["arm"]

    return run


def statspai(frame: pd.DataFrame, inference: str) -> Callable[[], Answer]:
    import statspai as package

    wide = pd.get_dummies(frame, columns=["gender", "age", "edu"], drop_first=True, dtype=float)
    terms = [name for name in wide if name not in ("y", "site")]

    def run() -> Answer:
        m = package.mixed(wide, "y", terms, "site")
        return m.fixed_effects["arm"], m.std_errors["arm"], None

    return run


# label, distribution, function, inference; the first two stand in the project's own environment
PROGRAMS = [
    ("trialkit", "trialkit", trialkit, "kenward-roger"),
    ("trialkit", "trialkit", trialkit, "satterthwaite"),
    ("statsmodels MixedLM", "statsmodels", by_statsmodels, "z"),
    ("glmm", "glmm", glmm, "satterthwaite"),
    ("lme-python", "lme-python", lme_python, "satterthwaite"),
    ("lme-python", "lme-python", lme_python, "kenward-roger"),
    ("mixedlm", "mixedlm", mixedlm, "satterthwaite"),
    ("mixedlm", "mixedlm", mixedlm, "kenward-roger"),
    ("mixedlm-rs", "mixedlm-rs", mixedlm_rs, "z"),
    ("kamino-lme", "kamino-lme", kamino, "satterthwaite"),
    ("kamino-lme", "kamino-lme", kamino, "kenward-roger"),
    ("interlace-lme", "interlace-lme", interlace, "satterthwaite"),
    ("interlace-lme", "interlace-lme", interlace, "kenward-roger"),
    ("StatsPAI", "StatsPAI", statspai, "z"),
]
TABLES = {"small": small, "middle": middle}


def one(number: int, table: str) -> None:
    """In a process of its own: a warm call, then a few timed ones; one line of JSON."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    _, distribution, program, inference = PROGRAMS[number]
    run = program(TABLES[table](), inference)
    start = time.process_time()
    estimate, se, df = run()
    times = [time.process_time() - start]
    if times[0] < BUDGET:
        times = []
        while len(times) < CALLS or (sum(times) < BUDGET and len(times) < 100):
            start = time.process_time()
            run()
            times.append(time.process_time() - start)
            if sum(times) > BUDGET:
                break
    answer = [float(estimate), float(se), None if df is None else float(df)]
    print(json.dumps({"ms": 1e3 * statistics.median(times), "answer": answer, "version": metadata.version(distribution)}))


def ask(number: int, table: str, peers: str, limit: float) -> dict[str, Any]:
    """The line of `one`, or what went wrong."""
    python = sys.executable if number < 2 else peers
    command = [python, __file__, "--one", str(number), "--table", table]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=os.environ | THREADS, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {limit:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed: out of memory"])[-1]
        return {"failed": last[:60]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def verdict(answer: list[Any], inference: str, truth: dict[str, Answer]) -> str:
    """What the answer is, beside R's (or, on the other trial, ours, which agrees with R to 1e-6 wherever both are)."""
    estimate, se, df = answer
    b, plain, satterthwaite = truth["satterthwaite"]
    _, adjusted, kenward_roger = truth["kenward-roger"]
    assert satterthwaite is not None and kenward_roger is not None
    if not _near(estimate, b, 1e-4):
        return f"**wrong optimum** (right: {b:.4f})"
    if inference == "z":
        return "right, but z only" if _near(se, plain, 1e-3) else f"**SE wrong** (right: {plain:.4f}), z only"
    if inference == "satterthwaite":
        return "right" if _near(df, satterthwaite, 1e-3) and _near(se, plain, 1e-3) else f"**df wrong** (right: {satterthwaite:.2f})"
    words = []
    if not _near(df, kenward_roger, 1e-3):
        words.append(f"**df {'is Satterthwaite' if _near(df, satterthwaite, 1e-3) else 'wrong'}** (right: {kenward_roger:.2f})")
    if not _near(se, adjusted, 5e-4):
        words.append(f"**SE {'not adjusted' if _near(se, plain, 5e-4) else 'wrong'}** (right: {adjusted:.4f})")
    return "; ".join(words) or "right"


def _near(value: float | None, truth: float, tolerance: float) -> bool:
    return value is not None and bool(abs(value - truth) <= tolerance * abs(truth))


def stored() -> dict[str, Answer]:
    """R's answer for the arm."""
    case = json.loads((REFERENCE / "L01_crt_main.json").read_text())
    b, se, adjusted = case["fixef"]["arm"], case["se"]["arm"], case["kenward_roger"]
    return {
        "satterthwaite": (b, se, case["satterthwaite"]["df"]["arm"]),
        "kenward-roger": (b, adjusted["se"]["arm"], adjusted["df"]["arm"]),
    }


def main() -> None:
    """Take turns, and print one table a trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the environment that holds the peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a process may take")
    parser.add_argument("--quick", action="store_true", help="leave out the 10,000 people")
    parser.add_argument("--markdown", type=Path, help="write the tables here too")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--table", choices=sorted(TABLES), default="small", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        one(given.one, given.table)
        return
    lines: list[str] = []
    trials = [("small", given.rounds, "350 people in 85 sites, 11 columns"), ("middle", 1, "10,000 people in 1,000 sites, 11 columns")]
    for table, rounds, title in trials[: 1 if given.quick else 2]:
        found: list[dict[str, Any]] = [{} for _ in PROGRAMS]
        for _ in range(rounds):
            for number in range(len(PROGRAMS)):
                if "failed" in found[number]:
                    continue
                new = ask(number, table, given.python, given.limit)
                found[number] = new if "failed" in new or not found[number] or new["ms"] < found[number]["ms"] else found[number]
        truth = stored() if table == "small" else {PROGRAMS[k][3]: tuple(found[k]["answer"]) for k in (0, 1)}
        lines += [
            "",
            f"**{title}**",
            "",
            "| program | inference | x ours | CPU ms | estimate | SE | df | answer |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for (label, _, _, inference), answer in zip(PROGRAMS, found, strict=True):
            if "failed" in answer:
                lines.append(f"| {label} | {inference} | - | - | - | - | - | **{answer['failed']}** |")
                continue
            b, se, df = answer["answer"]
            ours = found[1 if inference == "satterthwaite" else 0]["ms"]
            cells = [
                f"{label} {answer['version']}",
                inference,
                f"{answer['ms'] / ours:,.1f}",
                f"{answer['ms']:.2f}",
                f"{b:.4f}",
                f"{se:.4f}",
            ]
            cells += ["-" if df is None else f"{df:.2f}", verdict(answer["answer"], inference, truth)]
            lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(lines).strip() + "\n"
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
