"""Who sees what, what becomes of sites after the draw, and what pairing costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trialkit.allocation import Allocation, Log, Pairing, WithinPairs, match_pairs, nearest
from trialkit.allocation.amendments import amend, amended
from trialkit.allocation.blinding import release, save_blinded, unblind
from trialkit.allocation.diagnostics import compare_pairings, pairing_cost
from trialkit.door import InputError, Refused, VerificationError

from .conftest import SEED, SOURCE

SECRET = "5f4e3d2c1b0a99887766554433221100"


@pytest.fixture
def drawn(plan: WithinPairs) -> Allocation:
    return plan.draw(seed=SEED, seed_source=SOURCE)


# --- blinding ---


def test_blinded_table_and_key(drawn: Allocation, tmp_path: Path) -> None:
    frame = save_blinded(drawn, tmp_path / "blinded.csv", tmp_path / "key.json", secret=SECRET)
    assert set(frame["arm"]) == {"A", "B"} and frame.drop(columns="arm").equals(drawn.frame.drop(columns="arm"))
    assert unblind(frame, tmp_path / "key.json").equals(drawn.frame)
    for name in ("blinded.csv", "key.json"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    text = (tmp_path / "blinded.csv").read_text()
    assert "control" not in text and "intervention" not in text and SEED not in text
    with pytest.raises(Refused):
        save_blinded(drawn, tmp_path / "other.csv", tmp_path / "key.json")
    assert not (tmp_path / "other.csv").exists()
    key = (tmp_path / "key.json").read_text()
    (tmp_path / "key.json").write_text(key.replace('"A"', '"X"').replace('"B"', '"A"').replace('"X"', '"B"'))
    with pytest.raises(VerificationError):
        unblind(frame, tmp_path / "key.json")


def test_letters_are_fair_and_secret(drawn: Allocation) -> None:
    first = [drawn.blinded(secret=f"{k}{SECRET}")[1]["letters"]["A"] for k in range(400)]
    assert 140 < first.count("control") < 260
    assert drawn.blinded()[1]["secret"] != drawn.blinded()[1]["secret"]
    with pytest.raises(InputError, match="could be guessed"):
        drawn.blinded(secret="short")


def test_a_sealed_copy_shows_no_arm(drawn: Allocation) -> None:
    sealed = drawn.certificate.sealed_copy()
    assert SEED not in str(sealed) and sealed["certificate_sha256"] == drawn.certificate.digest
    assert not {"arms", "draws", "seed", "balance"} & set(sealed)


def test_one_site_at_a_time_and_logged(drawn: Allocation, tmp_path: Path) -> None:
    log = tmp_path / "plan.json.log"
    assert release(drawn.certificate, "S05", to="A. Recruiter", log=log) == drawn.arms["S05"]
    line = Log(log).read()[0]
    assert (line["event"], line["site"], line["to"]) == ("released", "S05", "A. Recruiter") and drawn.arms["S05"] not in str(line)
    for site, to in (("S50", "A"), ("S05", " ")):
        with pytest.raises(InputError):
            release(drawn.certificate, site, to=to, log=log)
    assert len(Log(log).read()) == 1


# --- amendments ---


def test_amendments_are_new_entries(drawn: Allocation, tmp_path: Path) -> None:
    log = tmp_path / "plan.json.log"
    before = drawn.certificate.digest
    amend(drawn.certificate, "S02", kind="withdrawn", reason="closed in March", by="steering committee", log=log)
    amend(drawn.certificate, "S07", kind="replaced", replacement="S99", reason="merged", by="steering committee", log=log)
    amend(drawn.certificate, "S99", kind="withdrawn", reason="burnt down", by="steering committee", log=log)
    table = amended(drawn.certificate, log).set_index("site")
    assert table["status"].value_counts().to_dict() == {"allocated": 9, "withdrawn": 2, "replaced by S99": 1}
    assert table.loc["S99", "arm"] == drawn.arms["S07"] and table.loc["S02", "reason"] == "closed in March"
    assert drawn.certificate.digest == before and [line["event"] for line in Log(log).read()] == ["amended"] * 3
    with pytest.raises(Refused, match="withdrawn already"):
        amend(drawn.certificate, "S02", kind="withdrawn", reason="again", by="x", log=log)


@pytest.mark.parametrize(
    ("site", "settings", "says"),
    [
        ("S77", {}, "not in this allocation"),
        ("S02", {"kind": "moved"}, "unknown kind of amendment"),
        ("S02", {"reason": " "}, "needs reason="),
        ("S02", {"by": ""}, "needs by="),
        ("S02", {"replacement": "S99"}, "a withdrawn one has none"),
        ("S02", {"kind": "replaced"}, "needs replacement="),
        ("S02", {"kind": "replaced", "replacement": "S03"}, "in the allocation already"),
    ],
)
def test_amendments_that_say_too_little(drawn: Allocation, tmp_path: Path, site: str, settings: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        amend(drawn.certificate, site, **{"kind": "withdrawn", "reason": "r", "by": "b", "log": tmp_path / "l", **settings})


# --- diagnostics ---


def test_pairing_cost_against_the_published_table() -> None:
    """Martin and others 1993: t(k-1) against t(2k-2), break-even at 80 per cent power."""
    frame = pairing_cost([3, 5, 6, 10, 20, 42]).frame
    assert frame["t_paired"].round(3).tolist() == [4.303, 2.776, 2.571, 2.262, 2.093, 2.020]
    assert frame["t_unpaired"].round(3).tolist() == [2.776, 2.306, 2.228, 2.101, 2.024, 1.989]
    np.testing.assert_allclose(frame["break_even"], [0.56, 0.28, 0.22, 0.115, 0.053, 0.024], atol=0.005)
    with pytest.raises(InputError):
        pairing_cost(1)


def test_the_optimum_beside_greedy_and_random() -> None:
    """0, 10, 11, 21: taking the closest first costs 22, the optimum 20, the three pairings 20, 22 and 32... on average."""
    sites = pd.DataFrame({"site": list("abcd"), "budget": [0.0, 10, 11, 21]})
    found = compare_pairings(match_pairs(sites, id="site", criteria=[nearest("budget")]), n=600)
    row = found.frame.iloc[0]
    assert (row["total"], row["nearest_first"], row["random_least"], row["max_gap"]) == (20, 22, 20, 10)
    assert set(np.unique(found.random)) == {20.0, 22.0} and row["random_mean"] == pytest.approx((20 + 22 + 22) / 3, abs=0.2)


def test_comparison_keeps_strata(pairing: Pairing) -> None:
    found = compare_pairings(pairing, n=200, seed=3)
    assert found.frame["criterion"].tolist() == ["county", "budget", "staff", "youth"]
    assert found.frame["total"].tolist() == pytest.approx([float(c) for c in pairing.costs])
    assert (found.random[:, 0] == 0).all() and (found.random[:, 1] >= float(pairing.costs[1]) - 1e-9).all()
    assert (compare_pairings(pairing, n=200, seed=3).random == found.random).all()
    assert "Random: 200 pairings" in str(found)
