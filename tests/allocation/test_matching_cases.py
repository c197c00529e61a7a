"""The stored cases: totals and pairs exactly, in every row order, and certificates that hold on the sites again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from trialkit import door
from trialkit.allocation import Pairing, Plan, exact, exact_if_possible, match_pairs, nearest, verify, within_pairs
from trialkit.allocation.recheck import check_pairing
from trialkit.door import InputError, PairingError

CASES = json.loads((Path(__file__).parents[1] / "reference" / "allocation_cases.json").read_text(encoding="utf-8"))
KINDS = {"absdiff": nearest, "mismatch": exact_if_possible, "exact": exact}
SOLVABLE = [c for c in CASES["cases"] if not c["expected"].get("infeasible")]


def read(csv: str, *, as_text: bool) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(csv), dtype=str, keep_default_na=False) if as_text else pd.read_csv(io.StringIO(csv))


def solve(case: dict[str, Any], sites: pd.DataFrame) -> Pairing:
    return match_pairs(
        sites,
        id="id",
        criteria=[KINDS[c["kind"]](c["column"]) for c in case["criteria"]],
        odd="single",
        missing=case.get("missing", "refuse"),
        forbidden=case.get("forbid", ()),
    )


@pytest.mark.parametrize("as_text", [True, False], ids=["text", "numbers"])
@pytest.mark.parametrize("case", SOLVABLE, ids=lambda c: c["id"])
def test_totals_and_pairs(case: dict[str, Any], as_text: bool) -> None:
    pairing = solve(case, read(case["csv"], as_text=as_text))
    expected = case["expected"]
    assert [str(c) for c in pairing.costs] == expected["totals"]
    assert len(pairing.pairs) == expected["pairs"]
    assert len(pairing.singles) == case["leave_out"]
    assert pairing.optimality.checked
    assert pairing.optimality.primal == pairing.optimality.dual
    if "unique_pairs" in expected:
        assert {frozenset(p) for p in pairing.pairs} == {frozenset(p) for p in expected["unique_pairs"]}


@pytest.mark.parametrize("case", SOLVABLE, ids=lambda c: c["id"])
def test_row_order_changes_nothing(case: dict[str, Any]) -> None:
    sites = read(case["csv"], as_text=False)
    record = solve(case, sites).to_dict()
    for seed in range(20):
        shuffled = sites.sample(frac=1, random_state=seed)
        again = solve(case, shuffled)
        assert again.to_dict() == record
        assert again.frame["id"].tolist() == [str(x) for x in shuffled["id"].tolist()]
    check_pairing(json.loads(json.dumps(record)), shuffled)


@pytest.mark.parametrize("case", SOLVABLE, ids=lambda c: c["id"])
def test_each_goes_all_the_way(case: dict[str, Any], tmp_path: Path) -> None:
    """From the file through plan, draw and certificate to `verify`, which reads the numbers as the matching did."""
    (tmp_path / "sites.csv").write_text(case["csv"], encoding="utf-8")
    sites = door.read_table(tmp_path / "sites.csv", text=["id"])
    plan = within_pairs(solve(case, sites), source=tmp_path / "sites.csv")
    drawn = plan.draw(seed="a3f1c2d4e5b60718293a4b5c6d7e8f90", seed_source="a test")
    found = verify(drawn.certificate, tmp_path / "sites.csv", commitment=plan.commitment)
    assert found.anchored and found.sites == len(sites)
    assert Plan.from_dict(plan.to_dict()).matched().to_dict() == plan.matched().to_dict()


@pytest.mark.parametrize("case", [c for c in CASES["cases"] if c["expected"].get("infeasible")], ids=lambda c: c["id"])
def test_infeasible_constraints_are_an_error_naming_the_sites(case: dict[str, Any]) -> None:
    with pytest.raises(PairingError, match=r"\ba may be paired with no other of the 4 sites \(because of forbidden pairs\)"):
        solve(case, read(case["csv"], as_text=False))


@pytest.mark.parametrize(
    ("case", "words"),
    [("err-duplicate-id", "'a' stands in rows 2 and 4"), ("err-blank-id", "row 3"), ("err-id-whitespace-collision", r"'a'.*'a '")],
)
def test_bad_ids(case: str, words: str) -> None:
    stored = {c["id"]: c for c in CASES["error_cases"]}[case]
    with pytest.raises(InputError, match=words):
        match_pairs(read(stored["csv"], as_text=True), id="id", criteria=[nearest("budget")])
