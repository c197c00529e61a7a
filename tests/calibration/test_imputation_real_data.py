"""Real data sets with missing values: pooled results beside those of R's pan, 2l.pan and jomo.

The peers' results are made by tests/reference/imputation_real.R, which also writes the prepared data to a folder; jomo's data sets come
with a licence that does not go with ours, so data are not kept here, but for mitml's `leadership` (GPL 2 or later), which every run
imputes anew.

    python tests/calibration/test_imputation_real_data.py FOLDER      imputes m = 200 times and writes results/imputation_real.json
    TRIALKIT_REAL_DATA=FOLDER pytest -m slow ...                      does it again and holds it against what is stored
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.imputation import impute, pool
from trialkit.itt import fit_mixed

STORED = Path(__file__).parent / "results" / "imputation_real.json"
REFERENCE = Path(__file__).parents[1] / "reference"
PEERS: dict[str, Any] = json.loads((REFERENCE / "imputation_real.json").read_text())["data"]
M = 200


def design(baseline: str | None, numbers: tuple[str, ...] = (), **types: str) -> TrialDesign:
    """`baseline` is the number whose site mean enters y's model, as a joint model has it; None where the peer's model has no site means."""
    outcome = {"name": "y", "has_baseline": False} if baseline is None else {"name": "y", "baseline": baseline}
    covariates = [{"name": n} for n in numbers] + [{"name": n, "type": t} for n, t in types.items()]
    return TrialDesign(outcomes=[outcome], covariates=covariates)


DESIGNS = {
    "popmis": design(None, ("texp",), sex="binary"),
    "brandsma": design("y_0", ("iqv", "ses")),
    "studentratings": design(None, ("read", "cogn", "climate"), girl="binary"),
    "leadership": design("neglead", ("cohes",), wload="binary"),
    "JSPmiss": design("ravens", (), sex="binary", fluent="categorical", behaviour="binary"),
    "JSPmiss_numbers": design("ravens", (), sex="binary", behaviour="binary"),
    "cldata": design(None, ("age",), sex="binary", social="categorical"),
}


def ours(name: str, data: pd.DataFrame, m: int = M, seed: int = 1) -> dict[str, Any]:
    """Impute, fit the peers' model to each set, pool."""
    arm = data["arm"].to_numpy()
    people = data.assign(person=range(len(data)), arm=np.where(arm == 1, "intervention", "control"))
    sets = impute(people, DESIGNS[name], seed=seed, m=m, iterations=8 if name == "brandsma" else 20)
    formula = PEERS[name]["formula"].split(" + (1")[0]
    fits = [fit_mixed(formula, s.assign(arm=arm), groups=["site"], inference="satterthwaite") for s in sets]
    q = np.array([f.frame["estimate"] for f in fits])
    u = np.array([f.frame["std_error"] for f in fits]) ** 2
    icc = np.array([f.icc for f in fits])
    p = pool(q, u, np.inf)
    return {
        "estimate": p.estimate.tolist(),
        "std_error": p.std_error.tolist(),
        "mc_error": [r.mc_error_estimate for r in p.rows],
        "mc_error_std_error": [r.mc_error_std_error for r in p.rows],
        "icc": float(icc.mean()),
        "icc_mc_error": float(icc.std(ddof=1) / np.sqrt(m)),
        "m": m,
    }


CASES = [(name, peer) for name, entry in PEERS.items() for peer in entry["peers"]]


@pytest.mark.calibration
@pytest.mark.reference
@pytest.mark.parametrize(("name", "peer"), CASES, ids=[f"{n}-{p}" for n, p in CASES])
def test_stored_results_agree_with_the_peers(name: str, peer: str) -> None:
    """Estimates within 3 combined Monte Carlo errors of pan and 2l.pan; SEs within 3% and 2.5 Monte Carlo errors of a standard error.

    jomo's own Monte Carlo error is larger than its m imputations say, for their chain remembers: on `JSPmiss_numbers` it differs from
    pan by more than 3 such errors (the slope of ravens 1.688 and 1.722), where ours (1.719) is pan's. From jomo estimates may be half a
    standard error away. ICCs lie within .005 of the peers' on popmis, leadership and brandsma, and up to .009 above elsewhere: an
    inverse-Wishart prior made weak pulls a small ICC down (.083 where the full data have .10, in setting C10 of the calibration, where
    ours has .097).
    """
    mine, theirs = json.loads(STORED.read_text())[name], PEERS[name]["peers"][peer]
    gap = np.subtract(mine["estimate"], theirs["estimate"])
    if peer == "jomo":
        assert (np.abs(gap) < 0.5 * np.array(theirs["std_error"])).all()
    else:
        assert (np.abs(gap) < 3 * np.hypot(mine["mc_error"], theirs["mc_error"])).all()
    ratio = np.divide(mine["std_error"], theirs["std_error"])
    # the relative Monte Carlo error of a pooled standard error is lambda / sqrt(2 (m - 1)) to first order
    noise = np.hypot(np.divide(mine["mc_error_std_error"], mine["std_error"]), np.array(theirs["lambda"]) / np.sqrt(2 * (theirs["m"] - 1)))
    assert (np.abs(ratio - 1) < 0.03 + 2.5 * noise).all()
    assert abs(mine["icc"] - theirs["icc"]) < (0.005 if name in ("popmis", "leadership", "brandsma") else 0.009)


@pytest.mark.calibration
def test_leadership_imputed_anew_gives_the_stored_figures() -> None:
    """A seventh of the imputations, another seed: within 4 combined Monte Carlo errors."""
    again = ours("leadership", pd.read_parquet(REFERENCE / "leadership.parquet"), m=30, seed=5)
    stored = json.loads(STORED.read_text())["leadership"]
    z = np.subtract(again["estimate"], stored["estimate"]) / np.hypot(again["mc_error"], stored["mc_error"])
    assert (np.abs(z) < 4).all()
    assert again["icc"] == pytest.approx(stored["icc"], abs=4 * np.hypot(again["icc_mc_error"], stored["icc_mc_error"]))
    np.testing.assert_allclose(again["std_error"], stored["std_error"], rtol=0.15)


@pytest.mark.slow
@pytest.mark.calibration
@pytest.mark.parametrize("name", list(DESIGNS))
def test_a_rerun_gives_the_stored_figures(name: str) -> None:
    folder = os.environ.get("TRIALKIT_REAL_DATA")
    if not folder:
        pytest.skip("TRIALKIT_REAL_DATA names no folder with the data that imputation_real.R writes")
    again, stored = ours(name, pd.read_csv(Path(folder) / f"{name}.csv")), json.loads(STORED.read_text())[name]
    z = np.subtract(again["estimate"], stored["estimate"]) / np.hypot(again["mc_error"], stored["mc_error"])
    assert (np.abs(z) < 4).all()
    assert again["icc"] == pytest.approx(stored["icc"], abs=0.003)


def main() -> None:
    folder = Path(sys.argv[1])
    out = {}
    for name in DESIGNS:
        out[name] = ours(name, pd.read_csv(folder / f"{name}.csv"))
        for peer, theirs in PEERS[name]["peers"].items():
            z = np.subtract(out[name]["estimate"], theirs["estimate"]) / np.hypot(out[name]["mc_error"], theirs["mc_error"])
            se = np.divide(out[name]["std_error"], theirs["std_error"])
            sys.stdout.write(f"{name} {peer}: z {z.round(2)}, SE ratio {se.round(3)}, ICC {out[name]['icc']:.4f} / {theirs['icc']:.4f}\n")
    STORED.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
