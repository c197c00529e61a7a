"""Writes docs/validation.md from the stored results of the slow tier: `python docs/validation.py`; a test holds the page to it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from trialkit.simulation.verdict import binomial_limits

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "tests" / "calibration" / "results"

HEAD = """\
# What was measured

This page is written by `python docs/validation.py` from the results that the slow tier stores in `tests/calibration/results/`
(`make calibration` makes them again); a test holds the two together. It says what was tested, not that trialkit is "validated".

## Agreement with other programs
These are tolerances that the everyday tests hold, on every stored case; differences seen are smaller.

| what | against | cases | held to |
|---|---|---|---|
| REML and ML estimates, standard errors, variances | lme4 | {sets} simulated sets, {singular} of them singular, and the cases of `tests/reference/models/` | 1e-6 relative |
| Kenward-Roger standard errors, df, F | pbkrtest | the same | 1e-6 relative |
| Satterthwaite df | lmerTest | the same | 1e-5 relative |
| log-likelihood | lme4 | the same | 1e-8 |
| REML, KR, Satterthwaite | our own 40-digit arithmetic | `tests/kernels/test_reml_precision.py` | 1e-10 relative |
| pooled estimate, SE, df, FMI | mice 3.19, mitml 0.4-4 | `tests/reference/pooling_cases.json` | 1e-8 |
| power | closed forms and peers | `tests/reference/power_cases.json` | each case's own |
| matching totals | exhaustive search, rustworkx, networkx | `tests/reference/allocation_cases.json`, 20,000 random problems | exact |
| the draw | a second implementation in JavaScript, openssl | `tests/reference/draw_vectors.json` | exact |
"""


def load(name: str) -> dict[str, Any]:
    """A stored result."""
    return json.loads((STORED / f"{name}.json").read_text(encoding="utf-8"))


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(str(c) for c in cells) + " |"


def supervision() -> list[str]:
    """The planned analysis on the shipped scenarios."""
    out = [
        "",
        "## The planned analysis on the simulated supervision trial",
        "Kenward-Roger mixed models as in the trial; every figure beside its exact binomial limits (false alarm 1e-6 a check).",
        "",
        row("scenario", "trials", "analysis", "mean coverage of 95% intervals", "climate: bias", "climate: model SE", "inside limits"),
        row(*["---"] * 7),
    ]
    for name in ("planted", "imputed", "null", "mnar"):
        stored = load(f"supervision_{name}")
        for analysis in stored["analyses"]:
            figures = [f for f in stored["figures"] if f["analysis"] == analysis]
            climate = next(f for f in figures if f["outcome"] == "climate")
            mean = sum(f["coverage"] for f in figures) / len(figures)
            checks = [c for c in stored["limits"] if c["analysis"] == analysis]
            out.append(
                row(
                    name if name != "imputed" else "planted",
                    stored["trials"],
                    analysis,
                    f"{mean:.3f}",
                    f"{climate['bias']:+.3f} ({climate['bias_mcse']:.3f})",
                    f"{climate['model_se']:.3f}",
                    f"{sum(c['inside'] for c in checks)} of {len(checks)}",
                )
            )
    out += [
        "",
        "The published standard error for climate is 0.168. Coverage lies a little above nominal because the trial's analysis leaves the pairs",
        "out and because Kenward-Roger is conservative where the site variance is estimated at zero. Under `mnar` the losses depend on the",
        "outcome itself: the analysis is biased there, and the check says so. In brackets: Monte Carlo standard errors.",
    ]
    return out


def imputation() -> list[str]:
    """Two-level imputation beside its alternatives."""
    stored = load("imputation")
    out = [
        "",
        "## Multiple imputation",
        f"{stored['replicates']:,} simulated data sets a setting, 85 sites, 350 people, a third of the outcome missing, m = {stored['m']}.",
        "A05, A20: missing given a covariate and arm, ICC .05 and .20; B10: missing given an interim score, opposite in the two arms; C10: a",
        "covariate missing too; D25: a binary outcome.",
        "",
        row("setting", "method", "bias", "coverage", "model SE / empirical SE", "ICC"),
        row(*["---"] * 6),
    ]
    for setting, methods in stored["settings"].items():
        for method, f in methods.items():
            out.append(
                row(
                    setting,
                    method,
                    f"{f['bias']:+.3f} ({f['bias_mcse']:.3f})",
                    f"{f['coverage']:.3f}",
                    f"{f['model_se'] / f['empirical_se']:.2f}",
                    f"{f['icc']:.3f}",
                )
            )
    sbc = load("imputation_sbc")
    least = min(p for kernel in sbc["p_values"].values() for p in kernel.values())
    out += [
        "",
        f"Simulation-based calibration of each Gibbs kernel ({sbc['replicates']:,} data sets, ranks among {sbc['draws']} draws): chi-square",
        f"p-values of {sum(len(k) for k in sbc['p_values'].values())} parameters, the least {least:.3f}; of the",
        f"joint latent-normal kernel ({sbc['joint']['replicates']:,} data sets) {len(sbc['joint']['p_values'])} more, the least "
        f"{min(sbc['joint']['p_values'].values()):.3f}.",
    ]
    return out


def sizes() -> list[str]:
    """Sizes that theory gives exactly."""
    stored = load("exact_sizes")
    trials, seed = stored["cells"][0]["trials"], stored["seed"]
    out = [
        "",
        "## Sizes that are known exactly",
        f"{trials:,} null trials a cell (seed {seed}), nominal 5%. A right engine does not always reject 5%: each count is held to the exact",
        "binomial limits of its own size, false alarm 1e-6. The formulas are in `tests/calibration/test_exact_sizes.py` and, for the second",
        "table, in `test_itt_size.py` beside it; where no exact size is shown, the band is in that file.",
        "",
        row("test", "exact size, %", "rejected, %", "rejected", "limits"),
        row(*["---"] * 5),
    ]
    for c in stored["cells"]:
        low, high = binomial_limits(trials, c["exact"], false_alarm=1e-6) if c["exact"] else (0, 0)
        out.append(row(c["cell"], f"{100 * c['exact']:.2f}", f"{100 * c['rejected'] / trials:.2f}", c["rejected"], f"{low} to {high}"))
    out += ["", row("sites", "test", "data", "trials", "exact size, %", "rejected, %"), row(*["---"] * 6)]
    for c in load("itt_size")["cells"]:
        exact = "" if c["exact"] is None else f"{100 * c['exact']:.2f}"
        name = c["analysis"].replace("_", "-")
        out.append(row(c["sites"], name, c["data"], c["trials"], exact, f"{100 * c['rejected'] / c['trials']:.2f}"))
    digests = [f"`{p.name}` {hashlib.sha256(p.read_bytes()).hexdigest()[:12]}" for p in sorted(STORED.glob("*.json"))]
    return [*out, "", "Stored files, with the first digits of their SHA-256: " + ", ".join(digests) + "."]


def page() -> str:
    """The whole page."""
    models = json.loads((ROOT / "tests" / "reference" / "mixed_models.json").read_text(encoding="utf-8"))
    singular = sum(any(case["reml"]["singular"]) for case in models["cases"])
    head = HEAD.format(sets=len(models["cases"]), singular=singular)
    return "\n".join([head.rstrip("\n"), *supervision(), *imputation(), *sizes()]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "validation.md").write_text(page(), encoding="utf-8")
