"""A stored pairing is derived again from the sites without the solver, and nothing that was changed passes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.allocation import exact, exact_if_possible, mahalanobis, match_pairs, nearest
from trialkit.allocation.pairing import certificate_digest
from trialkit.allocation.recheck import check_pairing
from trialkit.door import VerificationError


def table(n: int = 23, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    budget = np.exp(rng.normal(13, 1, n)).astype(int)
    return pd.DataFrame(
        {
            "site": [f"S{k:02d}" for k in range(n)],
            "county": rng.choice(["yes", "no"], n),
            "budget": budget,
            "staff": np.maximum(1, budget // 90_000 + rng.integers(-1, 3, n)),
            "youth": rng.choice(["yes", "no"], n),
        }
    )


CRITERIA = [exact("county"), nearest("budget"), nearest("staff", caliper=40), exact_if_possible("youth")]


def stored(**arguments: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    sites = table()
    record = match_pairs(sites, **{"id": "site", "criteria": CRITERIA, "odd": "single", **arguments}).to_dict()
    return json.loads(json.dumps(record)), sites


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"odd": "reserve"},
        {"odd": "trio"},
        {"odd": "trio", "method": "sequential-nearest"},
        {"method": "sequential-nearest"},
        {"forbidden": [("S01", "S02")], "criteria": [nearest("budget"), exact_if_possible("county")]},
        {"criteria": [exact_if_possible("youth"), nearest("staff")], "odd": "S07"},
        {"criteria": [mahalanobis(["budget", "staff"]), nearest("staff")], "required": [("S00", "S09")]},
    ],
)
def test_an_honest_record_passes_in_any_row_order(arguments: dict[str, Any]) -> None:
    record, sites = stored(**arguments)
    check_pairing(record, sites)
    check_pairing(record, sites.sample(frac=1, random_state=3))


def test_missing_cells_pass_too() -> None:
    sites = table().astype({"budget": object})
    sites.loc[[3, 8], "budget"] = None
    for missing in ("own-level", "range-penalty"):
        record = match_pairs(sites, id="site", criteria=CRITERIA[:2], odd="single", missing=missing).to_dict()
        check_pairing(json.loads(json.dumps(record)), sites)


@pytest.mark.parametrize(("column", "value"), [("budget", 1), ("staff", 1000), ("county", "other"), ("youth", "perhaps")])
def test_a_changed_cell_names_its_site(column: str, value: Any) -> None:
    record, sites = stored()
    sites.loc[5, column] = value
    with pytest.raises(VerificationError, match="site S05"):
        check_pairing(record, sites)


def test_a_lost_or_added_site_is_named() -> None:
    record, sites = stored()
    with pytest.raises(VerificationError, match="site S04 is in the record but not"):
        check_pairing(record, sites.drop(index=4))
    more = pd.concat([sites, sites.iloc[[0]].assign(site="S99")], ignore_index=True)
    with pytest.raises(VerificationError, match="site S99 is in the sites table but not"):
        check_pairing(record, more)


def swap_partners(record: dict[str, Any]) -> None:
    (a, b), (c, d) = record["pairs"][0], record["pairs"][1]
    record["pairs"][:2] = [sorted([a, c]), sorted([b, d])]


def swap_single(record: dict[str, Any]) -> None:
    a = record["pairs"][0][0]
    record["pairs"][0][0], record["singles"][0] = record["singles"][0], a
    record["pairs"][0].sort()


def drop_pair(record: dict[str, Any]) -> None:
    del record["pairs"][0]


def hide_single(record: dict[str, Any]) -> None:
    record["reserve"].append(record["singles"].pop())


def claim_cost(record: dict[str, Any]) -> None:
    record["costs"][1] = str(int(record["costs"][1]) - 1)


def drop_criterion(record: dict[str, Any]) -> None:
    del record["criteria"][2], record["costs"][2]


def loosen_caliper(record: dict[str, Any]) -> None:
    record["criteria"][2]["caliper"] = "1"


def unprove(record: dict[str, Any]) -> None:
    record["optimality"]["checked"] = False


def forget_stratum(record: dict[str, Any]) -> None:
    del record["optimality"]["strata"][0]


def change_multiplier(record: dict[str, Any]) -> None:
    record["optimality"]["limbs"][0][0][1] += 1


def claim_edges(record: dict[str, Any]) -> None:
    record["optimality"]["strata"][0]["edges"] += 1


def change_dual(record: dict[str, Any]) -> None:
    record["optimality"]["strata"][0]["y"][2][0] += 2


def shift_duals_of_a_pair(record: dict[str, Any]) -> None:
    part = record["optimality"]["strata"][0]
    a, b = next(p for p in record["pairs"] if p[0] in part["sites"])
    part["y"][part["sites"].index(a)][1] += 2
    part["y"][part["sites"].index(b)][1] -= 2


def float_dual(record: dict[str, Any]) -> None:
    part = record["optimality"]["strata"][0]
    part["y"][0][0] = float(part["y"][0][0])


def other_method(record: dict[str, Any]) -> None:
    record["method"] = "sequential-nearest"


def unknown_method(record: dict[str, Any]) -> None:
    record["method"] = "by eye"


TAMPERINGS: list[Callable[[dict[str, Any]], None]] = [
    swap_partners, swap_single, drop_pair, hide_single, claim_cost, drop_criterion, loosen_caliper, unprove, forget_stratum,
    change_multiplier, claim_edges, change_dual, shift_duals_of_a_pair, float_dual, other_method, unknown_method,
]  # fmt: skip


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda f: f.__name__)
def test_a_changed_record_is_refused(tamper: Callable[[dict[str, Any]], None]) -> None:
    record, sites = stored()
    assert len(record["singles"]) == 1
    tamper(record)
    with pytest.raises(VerificationError):
        check_pairing(record, sites)


@pytest.mark.parametrize("tamper", [change_dual, change_multiplier, claim_edges, forget_stratum, float_dual], ids=lambda f: f.__name__)
def test_a_digest_made_again_does_not_help(tamper: Callable[[dict[str, Any]], None]) -> None:
    record, sites = stored()
    tamper(record)
    record["optimality"]["digest"] = certificate_digest(record["optimality"])
    with pytest.raises(VerificationError):
        check_pairing(record, sites)


def test_every_number_of_the_certificate_counts() -> None:
    """Each integer changed by two, one at a time: the digest refuses all of them."""
    record, sites = stored()

    def numbers(part: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        if isinstance(part, bool | str):
            return []
        if isinstance(part, int):
            return [path]
        items = part.items() if isinstance(part, dict) else enumerate(part)
        return [p for k, v in items for p in numbers(v, (*path, k))]

    paths = numbers(record["optimality"])
    assert len(paths) > 50
    for path in paths[::3]:
        changed = copy.deepcopy(record)
        at = changed["optimality"]
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] += 2
        with pytest.raises(VerificationError):
            check_pairing(changed, sites)


@pytest.mark.parametrize("key", ["id", "criteria", "pairs", "costs", "sites", "optimality", "missing", "method", "odd"])
def test_a_damaged_record_is_one_clear_error(key: str) -> None:
    record, sites = stored()
    del record[key]
    with pytest.raises(VerificationError):
        check_pairing(record, sites)
    record, _ = stored()
    record[key] = 7
    with pytest.raises(VerificationError):
        check_pairing(record, sites)


def test_a_worse_pairing_with_honest_totals_is_refused() -> None:
    """Greedy pairs passed off as the optimum: totals right, certificate of the optimum attached."""
    sites = pd.DataFrame({"site": list("abcd"), "x": [0, 10, 11, 21]})
    best = match_pairs(sites, id="site", criteria=[nearest("x")]).to_dict()
    greedy = match_pairs(sites, id="site", criteria=[nearest("x")], method="sequential-nearest").to_dict()
    forged = {**greedy, "method": "lexicographic", "optimality": best["optimality"]}
    with pytest.raises(VerificationError, match="not proved optimal"):
        check_pairing(json.loads(json.dumps(forged)), sites)
