"""A small made-up trial (24 sites, two of them not randomised), stored, and results as the other rooms hand them over."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import read_table
from trialkit.results import Provenance, Result

SNAPSHOTS = Path(__file__).parent.parent / "snapshots"

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
    return read_table(SNAPSHOTS / "small_sites.csv", text=["site"])


@pytest.fixture(scope="session")
def people(design: TrialDesign) -> pd.DataFrame:
    return read_table(SNAPSHOTS / "small_people.csv", text=design.text_columns)


@dataclass(frozen=True)
class StoredResults(Result):
    frame: pd.DataFrame
    provenance: Provenance = field(default_factory=Provenance)
    notes: tuple[str, ...] = ()
    title: str = "Intention to treat"


@pytest.fixture(scope="session")
def results() -> StoredResults:
    made = Provenance(seed=7, inputs={"people": "ab" * 32}, settings={"inference": "kenward-roger"}, versions={"trialkit": "0.1.0"})
    note = "The between-site variance of stigma is estimated as zero."
    return StoredResults(frame=read_table(SNAPSHOTS / "small_results.csv"), provenance=made, notes=(note,))


@dataclass(frozen=True)
class StoredAllocation:
    """What the report reads of a drawn plan."""

    frame: pd.DataFrame
    notes: tuple[str, ...] = ("NOT ANCHORED: the seed was typed in.",)
    attempts: int | None = 2

    def balance(self) -> pd.DataFrame:
        rows = [("annual_budget", None, -0.11, 0.31, -0.3, 0.3), ("directly_operated", "yes", 0.21, 0.77, -0.4, 0.4)]
        table = pd.DataFrame(rows, columns=["covariate", "level", "std_difference", "quantile", "range_low", "range_high"])
        return table.assign(arm="intervention", mean=[512345.6, 0.4], reference_mean=[498765.4, 0.36], difference=[13580.2, 0.04])


@pytest.fixture(scope="session")
def allocation(people: pd.DataFrame) -> StoredAllocation:
    drawn = people[people["arm"].notna()].drop_duplicates("site")[["site", "pair", "arm"]]
    return StoredAllocation(drawn.reset_index(drop=True))


@pytest.fixture
def snapshot() -> Callable[[str, str], None]:
    """Compare a text with the stored one; ``SNAPSHOTS=write`` stores it anew, to be looked at before it is committed."""

    def compare(name: str, text: str) -> None:
        path = SNAPSHOTS / name
        if os.environ.get("SNAPSHOTS") == "write":
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no snapshot {name}: run once with SNAPSHOTS=write and look at it"
        assert text == path.read_text(encoding="utf-8")

    return compare
