"""A small made-up trial (24 sites, two of them lost before the draw) and results as the other rooms hand them over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.results import Provenance, Result

DESIGN = """
[trial]
title = "A small trial of supervision"
registration = "NCT00000000"

[columns]
pair = "pair"
rater = "role"

[[outcomes]]
name = "climate"
label = "Organisational climate"
level = "site"
rank = "primary"
rater = "peer"

[[outcomes]]
name = "stigma"
label = "Stigma"
level = "supervisor"
rank = "primary"
rater = "supervisor"
direction = "lower"

[[outcomes]]
name = "recovery"
label = "Recovery"
level = "peer worker"
rank = "primary"
rater = "peer"

[[outcomes]]
name = "burnout"
label = "Burnout"
level = "peer worker"
rank = "secondary"
rater = "peer"
direction = "lower"

[[covariates]]
name = "gender"
type = "categorical"
levels = ["woman", "man", "another gender"]

[[covariates]]
name = "years"

[imputation]
population = "follow_up_done"
m = 20

[allocation]
id = "site"

[[allocation.criteria]]
kind = "exact"
column = "directly_operated"

[[allocation.criteria]]
kind = "nearest"
column = "annual_budget"

[power]
clusters = 22
cluster_size = 5
icc = 0.05
effect = 0.5

[flow]
baseline = "baseline_done"
left = "left_job"
follow_up = "follow_up_done"
sessions = ["session_1", "session_2"]
"""


@pytest.fixture(scope="session")
def design() -> TrialDesign:
    return TrialDesign.from_text(DESIGN)


@pytest.fixture(scope="session")
def sites() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    return pd.DataFrame(
        {
            "site": [f"S{k:02d}" for k in range(1, 25)],
            "directly_operated": ["yes"] * 8 + ["no"] * 16,
            "annual_budget": np.round(rng.lognormal(13, 0.8, 24)).astype(int),
            "n_staff": rng.poisson(6, 24) + 2,
            "status": ["randomised"] * 10 + ["closed"] + ["randomised"] * 12 + ["declined"],
        }
    )


@pytest.fixture(scope="session")
def people(sites: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(12)
    rows: list[dict[str, Any]] = []
    inside = [s for s, status in zip(sites["site"], sites["status"], strict=True) if status == "randomised"]
    arm_of = {s: "intervention" if k % 2 else "control" for k, s in enumerate(inside)}
    pair_of = {s: f"P{k // 2 + 1:02d}" for k, s in enumerate(inside)}
    for s in sites["site"]:
        effect = rng.normal(0, 0.2)
        for role, size in (("peer", rng.integers(2, 6)), ("supervisor", rng.integers(1, 3))):
            for _ in range(size):
                arm = arm_of.get(s)
                asked = arm is not None and rng.random() < 0.8
                left = asked and rng.random() < 0.12
                done = asked and not left and rng.random() < 0.85
                row: dict[str, Any] = {
                    "person": f"p{len(rows):03d}",
                    "site": s,
                    "pair": pair_of.get(s),
                    "arm": arm,
                    "role": role,
                    "baseline_done": int(asked),
                    "left_job": int(left),
                    "follow_up_done": int(done),
                    "gender": rng.choice(["woman", "man", "another gender"], p=[0.7, 0.25, 0.05]) if asked else None,
                    "years": float(np.round(rng.gamma(2, 3), 1)) if asked and rng.random() < 0.95 else np.nan,
                }
                for name, rater in (("climate", "peer"), ("stigma", "supervisor"), ("recovery", "peer"), ("burnout", "peer")):
                    before = rng.normal(3, 1) + effect
                    after = 0.6 * before + rng.normal(1.2, 0.7) + 0.3 * (arm == "intervention")
                    row[f"{name}_0"] = np.round(before, 2) if asked and role == rater and rng.random() < 0.96 else np.nan
                    row[name] = np.round(after, 2) if done and role == rater and rng.random() < 0.93 else np.nan
                for k in (1, 2):
                    row[f"session_{k}"] = float(rng.random() < 0.55) if arm == "intervention" else np.nan
                rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class FakeResults(Result):
    frame: pd.DataFrame
    provenance: Provenance = field(default_factory=Provenance)
    notes: tuple[str, ...] = ()
    title: str = "Intention to treat"


@pytest.fixture(scope="session")
def results() -> FakeResults:
    rows = [
        ("climate", "site", "primary", 0.351, 0.168, 40.2, 0.021, 0.681, 0.0431, 0.0862, 0.052, 0.041, 62, 22),
        ("stigma", "supervisor", "primary", -0.043, 0.210, 17.9, -0.484, 0.398, 0.8400, 0.8400, 0.0, 0.12, 25, 17),
        ("recovery", "peer worker", "primary", 0.144, 0.154, 38.8, -0.168, 0.456, 0.3560, 0.7120, 0.011, 0.03, 62, 22),
        ("burnout", "peer worker", "secondary", -0.551, 0.130, 41.0, -0.814, -0.288, 0.0002, 0.0002, 0.083, 0.07, 62, 22),
    ]
    names = "outcome level rank estimate std_error df conf_low conf_high p_value p_adjusted icc fmi n clusters".split()
    frame = pd.DataFrame(rows, columns=names)
    frame.insert(6, "statistic", frame["estimate"] / frame["std_error"])
    frame["m"] = 20
    made = Provenance(seed=7, inputs={"people": "ab" * 32}, settings={"inference": "kenward-roger"}, versions={"trialkit": "0.1.0", "numpy": "2.4.6"})
    return FakeResults(frame=frame, provenance=made, notes=("The between-site variance of stigma is estimated as zero.",))
