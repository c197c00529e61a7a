"""Sites of the supervision trial's kind, small enough to go through every byte and every allocation."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from trialkit import door
from trialkit.allocation import Pairing, Plan, WithinPairs, exact, exact_if_possible, match_pairs, nearest, within_pairs

SEED = "a3f1c2d4e5b60718293a4b5c6d7e8f90"
SOURCE = "dice thrown by two people outside the study"

CSV = """site,county,budget,staff,youth,city
S01,yes,410000,9,no,Arcadia
S02,no,125000.50,4,yes,Burbank
S03,no,98000,3,no,Carson
S04,yes,395000,8,no,Downey
S05,no,2210000,31,yes,El Monte
S06,no,131000,5,yes,Fairfax
S07,yes,120000,4,no,Gardena
S08,no,1990000,27,no,Hawthorne
S09,yes,88000,2,yes,Inglewood
S10,no,104000,3,no,La Puente
S11,no,640000,12,no,Malibu
"""


@pytest.fixture
def sites_csv(tmp_path: Path) -> Path:
    path = tmp_path / "sites.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


@pytest.fixture
def sites(sites_csv: Path) -> pd.DataFrame:
    return door.read_table(sites_csv, text=["site"])


def pairing_of(sites: pd.DataFrame, odd: str = "single") -> Pairing:
    """Five pairs and a single: 32 x 2 allocations."""
    criteria = [exact("county"), nearest("budget"), nearest("staff"), exact_if_possible("youth")]
    return match_pairs(sites, id="site", criteria=criteria, odd=odd)


@pytest.fixture
def pairing(sites: pd.DataFrame) -> Pairing:
    return pairing_of(sites)


@pytest.fixture
def plan(pairing: Pairing, sites_csv: Path) -> WithinPairs:
    return within_pairs(pairing, source=sites_csv)


@pytest.fixture
def plan_path(plan: Plan, tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    plan.save(path)
    return path
