"""A small trial to analyse: 24 sites in 12 pairs, two kinds of people, four outcomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign

DESIGN = """
[trial]
title = "A small trial"

[columns]
pair = "pair"
rater = "role"

[[outcomes]]
name = "climate"
rank = "primary"
rater = "peer"
level = "site"

[[outcomes]]
name = "recovery"
rank = "secondary"
rater = "peer"

[[outcomes]]
name = "burnout"
rank = "secondary"
rater = "peer"
direction = "lower"

[[outcomes]]
name = "stigma"
rank = "primary"
rater = "supervisor"
level = "supervisor"

[[covariates]]
name = "gender"
type = "categorical"

[[covariates]]
name = "age_band"
type = "categorical"
levels = ["18-35", "36-50", "51+"]

[[covariates]]
name = "consumer"
type = "binary"
"""


def make_people(seed: int = 1, *, sites: int = 24, peers: int = 8, supervisors: int = 4, missing: float = 0.0) -> pd.DataFrame:
    """People of a trial with pairs of sites; `missing` is the share of each outcome's cells that are blank."""
    rng = np.random.default_rng(seed)
    per_site = peers + supervisors
    site = np.repeat(np.arange(sites), per_site)
    n = len(site)
    # the first of a pair is treated when a coin says so
    coin = rng.integers(0, 2, size=(sites + 1) // 2)
    treated = (coin[site // 2] + site) % 2
    frame = pd.DataFrame(
        {
            "person": [f"P{k:04}" for k in range(n)],
            "site": [f"S{s:02}" for s in site],
            "pair": [f"P{s // 2 + 1:02}" for s in site],
            "arm": np.where(treated == 1, "intervention", "control"),
            "role": np.where(np.arange(n) % per_site < peers, "peer", "supervisor"),
            "gender": rng.choice(["female", "male"], size=n, p=[0.7, 0.3]),
            "age_band": rng.choice(["18-35", "36-50", "51+"], size=n),
            "consumer": rng.integers(0, 2, size=n).astype(float),
        }
    )
    for k, name in enumerate(("climate", "recovery", "burnout", "stigma")):
        baseline = rng.normal(size=n) + 0.4 * rng.normal(size=sites)[site]
        noise = rng.normal(size=n) + 0.4 * rng.normal(size=sites)[site] + 0.3 * rng.normal(size=(sites + 1) // 2)[site // 2]
        frame[f"{name}_0"] = 3 + baseline
        frame[name] = 3 + 0.5 * baseline + (0.5 if k == 0 else 0.1) * treated + noise
        if missing:
            for column in (f"{name}_0", name):
                frame.loc[rng.random(n) < missing, column] = np.nan
    return frame


def imputed(frame: pd.DataFrame, m: int, seed: int = 2) -> list[pd.DataFrame]:
    """`m` completed copies: blanks filled with the column's mean plus noise (enough to test pooling, no model for real use)."""
    out = []
    for child in np.random.SeedSequence(seed).spawn(m):
        rng = np.random.default_rng(child)
        copy = frame.copy()
        for name in copy.columns[copy.isna().any()]:
            blank = copy[name].isna()
            copy.loc[blank, name] = copy[name].mean() + rng.normal(size=int(blank.sum())) * copy[name].std()
        out.append(copy)
    return out


@pytest.fixture(scope="session")
def design() -> TrialDesign:
    return TrialDesign.from_text(DESIGN)


@pytest.fixture(scope="session")
def people() -> pd.DataFrame:
    return make_people()


def changed(design: TrialDesign, **blocks: Any) -> TrialDesign:
    """The design with parts of its blocks changed."""
    data = design.model_dump(exclude_unset=True)
    for block, changes in blocks.items():
        data[block] = {**data.get(block, {}), **changes} if isinstance(changes, dict) else changes
    return TrialDesign(**data)


# test files import nothing from each other; what they share comes as fixtures that hand over the function


@pytest.fixture(scope="session")
def people_of():
    return make_people


@pytest.fixture(scope="session")
def completed():
    return imputed


@pytest.fixture(scope="session")
def redesign():
    return changed
