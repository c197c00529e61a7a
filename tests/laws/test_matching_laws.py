"""Laws of matching that hold for any sites: row order, names, units, constraints, the greedy bound."""

from __future__ import annotations

from decimal import Decimal

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from trialkit.allocation import exact, exact_if_possible, match_pairs, nearest
from trialkit.allocation.recheck import check_pairing

CRITERIA = [exact_if_possible("g"), nearest("x"), nearest("y")]

numbers = st.integers(-40, 40) | st.integers(-(10**18), 10**18) | st.decimals(-99, 99, places=3)


@st.composite
def tables(draw: st.DrawFn, least: int = 2, even: bool = False) -> pd.DataFrame:
    n = draw(st.integers(least, 12).filter(lambda n: not even or n % 2 == 0))
    columns = {
        "site": [f"S{k:02d}" for k in range(n)],
        "g": draw(st.lists(st.sampled_from("uvw"), min_size=n, max_size=n)),
        "x": pd.Series(draw(st.lists(numbers, min_size=n, max_size=n)), dtype=object),
        "y": draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)),
    }
    return pd.DataFrame(columns)


@settings(max_examples=30, deadline=None)
@given(sites=tables(), order=st.randoms(use_true_random=False))
def test_row_order_never_matters(sites: pd.DataFrame, order: object) -> None:
    rows = list(range(len(sites)))
    order.shuffle(rows)  # type: ignore[attr-defined]
    here = match_pairs(sites, id="site", criteria=CRITERIA, odd="single")
    there = match_pairs(sites.iloc[rows], id="site", criteria=CRITERIA, odd="single")
    assert here.to_dict() == there.to_dict()


@settings(max_examples=30, deadline=None)
@given(sites=tables())
def test_every_site_has_one_place_and_the_record_holds(sites: pd.DataFrame) -> None:
    pairing = match_pairs(sites, id="site", criteria=[exact("g"), *CRITERIA[1:]], odd="single")
    placed = [s for p in pairing.pairs for s in p] + list(pairing.singles)
    assert sorted(placed) == sites["site"].tolist()
    level = dict(zip(sites["site"], sites["g"], strict=True))
    assert all(level[a] == level[b] for a, b in pairing.pairs)
    assert len(pairing.singles) == sum(n % 2 for n in sites["g"].value_counts())
    check_pairing(pairing.to_dict(), sites)


@settings(max_examples=30, deadline=None)
@given(sites=tables(even=True), factor=st.sampled_from(["-1", "1000", "0.001", "3"]), shift=st.integers(-(10**9), 10**9))
def test_units_and_zero_points_scale_the_costs_and_keep_the_pairs(sites: pd.DataFrame, factor: str, shift: int) -> None:
    before = match_pairs(sites, id="site", criteria=CRITERIA)
    moved = sites.assign(x=pd.Series([Decimal(str(v)) * Decimal(factor) + shift for v in sites["x"]], dtype=object))
    after = match_pairs(moved, id="site", criteria=CRITERIA)
    assert after.pairs == before.pairs
    assert after.costs[1] == before.costs[1] * abs(Decimal(factor))
    assert (after.costs[0], after.costs[2]) == (before.costs[0], before.costs[2])


@settings(max_examples=30, deadline=None)
@given(sites=tables(least=4, even=True), data=st.data())
def test_a_constraint_never_lowers_the_cost(sites: pd.DataFrame, data: st.DataObject) -> None:
    free = match_pairs(sites, id="site", criteria=CRITERIA)
    a, b = data.draw(st.sampled_from(free.pairs))
    bound = match_pairs(sites, id="site", criteria=CRITERIA, forbidden=[(a, b)])
    assert (a, b) not in bound.pairs
    assert bound.costs >= free.costs
    forced = match_pairs(sites, id="site", criteria=CRITERIA, required=[(a, b)])
    assert forced.costs == free.costs


@settings(max_examples=30, deadline=None)
@given(sites=tables())
def test_the_optimum_is_no_worse_than_the_nearest_first(sites: pd.DataFrame) -> None:
    best = match_pairs(sites, id="site", criteria=CRITERIA, odd="single")
    greedy = match_pairs(sites, id="site", criteria=CRITERIA, odd="single", method="sequential-nearest")
    assert best.costs <= greedy.costs


@settings(max_examples=30, deadline=None)
@given(sites=tables(even=True))
def test_a_later_rank_never_costs_an_earlier_one(sites: pd.DataFrame) -> None:
    for k in (1, 2, 3):
        assert match_pairs(sites, id="site", criteria=CRITERIA[:k]).costs == match_pairs(sites, id="site", criteria=CRITERIA).costs[:k]
