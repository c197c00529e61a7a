"""match_pairs: what the result holds, criteria of every kind, constraints, odd counts, missing cells."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.allocation import Pairing, exact, exact_if_possible, mahalanobis, match_pairs, nearest
from trialkit.allocation.criteria import criterion_from_dict
from trialkit.door import InputError, PairingError

B = pd.DataFrame(
    {
        "site": ["S07", "S01", "S03", "S05", "S02", "S06", "S04"],
        "county": ["yes", "yes", "no", "no", "yes", "no", "no"],
        "budget": [120, 100, 300, 310, 105, 900, 880],
        "staff": [4, 3, 9, 8, 3, 30, 29],
    }
)


def every_pairing(sites: Sequence[int]) -> list[list[tuple[int, int]]]:
    if not sites:
        return [[]]
    first, rest = sites[0], sites[1:]
    return [[(first, other), *more] for k, other in enumerate(rest) for more in every_pairing([*rest[:k], *rest[k + 1 :]])]


def least(vectors: np.ndarray, sites: Sequence[int]) -> tuple[int, ...]:
    """The lexicographic least of the totals over all pairings, by enumeration."""
    return min(tuple(int(sum(vectors[i, j, k] for i, j in p)) for k in range(vectors.shape[2])) for p in every_pairing(list(sites)))


# --- the result ---------------------------------------------------------------------------------------------


def test_the_frame_keeps_the_rows_and_the_id_column() -> None:
    pairing = match_pairs(B, id="site", criteria=[exact("county"), nearest("budget")], odd="single")
    assert list(pairing.frame.columns) == ["site", "pair", "stratum"]
    assert pairing.frame["site"].tolist() == B["site"].tolist()
    assert pairing.frame["stratum"].tolist() == B["county"].tolist()
    assert pairing.pairs == (("S01", "S02"), ("S03", "S05"), ("S04", "S06"))
    assert pairing.frame["pair"].fillna("").tolist() == ["", "P01", "P02", "P02", "P01", "P03", "P03"]
    assert pairing.singles == ("S07",)
    assert pairing.costs == (Decimal(0), Decimal(35))
    assert str(pairing.costs[1]) == "35"
    assert pairing.title == "3 pairs of 7 sites"
    assert "randomised alone: S07" in pairing.to_text()
    assert "certificate checked on" in pairing.to_text()


def test_gaps_add_up_to_the_costs() -> None:
    pairing = match_pairs(B, id="site", criteria=[exact("county"), nearest("budget"), nearest("staff")], odd="trio")
    gaps = pairing.gaps()
    assert gaps["pair"].tolist() == ["P01", "P02", "T01"]
    assert gaps["sites"].tolist() == ["S03, S05", "S04, S06", "S01, S02, S07"]
    assert gaps["budget"].tolist() == [10.0, 20.0, 5.0 + 20.0 + 15.0]
    assert [gaps[c].sum() for c in ("county", "budget", "staff")] == [float(c) for c in pairing.costs]


def test_no_exact_criterion_is_one_stratum() -> None:
    assert match_pairs(B, id="site", criteria=[nearest("budget")], odd="single").frame["stratum"].unique().tolist() == ["all"]


def test_two_exact_criteria_never_share_a_label() -> None:
    sites = pd.DataFrame({"site": list("abcd"), "x": ["1 / 2", "1 / 2", "1", "1"], "y": ["3", "3", "2 / 3", "2 / 3"], "z": [1, 9, 2, 8]})
    pairing = match_pairs(sites, id="site", criteria=[exact("x"), exact("y"), nearest("z")])
    assert pairing.pairs == (("a", "b"), ("c", "d"))
    assert pairing.frame["stratum"].nunique() == 2


def test_ids_are_text_and_the_table_is_left_alone() -> None:
    sites = pd.DataFrame({"n": [10, 9, 2, 1], "x": [1, 2, 8, 9]}, index=[5, 6, 7, 8])
    before = sites.copy()
    pairing = match_pairs(sites, id="n", criteria=[nearest("x")])
    assert pairing.pairs == (("1", "2"), ("10", "9"))
    pd.testing.assert_frame_equal(sites, before)


def test_labels_are_padded_to_sort() -> None:
    n = 240
    sites = pd.DataFrame({"site": [f"S{k:03d}" for k in range(n)], "x": range(n)})
    labels = sorted(match_pairs(sites, id="site", criteria=[nearest("x")]).frame["pair"].unique())
    assert labels[0] == "P001" and labels[-1] == "P120"


# --- criteria -----------------------------------------------------------------------------------------------


def test_short_floats_are_the_decimals_that_were_typed() -> None:
    """A float32 column says 0.1 and 0.2 as a float64 one does, not the binary neighbours that widening shows."""
    sites = pd.DataFrame({"site": list("abcd"), "x": np.array([0.1, 0.2, 0.3, 1e10], dtype=np.float32)})
    assert str(match_pairs(sites, id="site", criteria=[nearest("x")]).costs[0]) == "9999999999.8"
    with pytest.raises(InputError, match="row 5, column 'x': 'inf' is not a number"):
        match_pairs(sites.assign(x=np.array([1, 2, 3, np.inf], dtype=np.float32)), id="site", criteria=[nearest("x")])
    gap = sites.assign(x=np.array([1, 2, 3, np.nan], dtype=np.float32))
    with pytest.raises(InputError, match=r"missing for 1 site \(d\)"):
        match_pairs(gap, id="site", criteria=[nearest("x")])


def test_decimals_tie_as_on_paper() -> None:
    """0.3 - 0.2 equals 0.2 - 0.1, so the second criterion decides; in float64 it does not."""
    sites = pd.DataFrame({"site": list("abc"), "x": [0.1, 0.2, 0.3], "y": [0, 5, 5]})
    pairing = match_pairs(sites, id="site", criteria=[nearest("x"), nearest("y")], odd="single")
    assert pairing.singles == ("a",)
    assert [str(c) for c in pairing.costs] == ["0.1", "0"]


@pytest.mark.parametrize(
    ("values", "cost"),
    [
        (["1e-30", "0"], "1E-30"),
        (["123456789012345678901234567890.5", "0.25"], "123456789012345678901234567890.25"),
        ([-5, 7], "12"),
        ([Decimal("1.10"), Decimal("2.30")], "1.2"),
        ([True, False], "1"),
        ([10**40, 1], str(10**40 - 1)),
        ([100, 300], "200"),
        ([0.1, 0.30000000000000004], "0.20000000000000004"),
    ],
)
def test_numbers_are_exact(values: list[Any], cost: str) -> None:
    sites = pd.DataFrame({"site": ["a", "b"], "x": pd.Series(values, dtype=object)})
    assert str(match_pairs(sites, id="site", criteria=[nearest("x")]).costs[0]) == cost


def test_six_criteria_of_real_numbers_need_289_bits() -> None:
    rng = np.random.default_rng(11)
    values = rng.normal(size=(85, 6)).round(6)
    sites = pd.DataFrame(values, columns=list("abcdef")).assign(site=[f"S{k:02d}" for k in range(85)])
    pairing = match_pairs(sites, id="site", criteria=[nearest(c) for c in "abcdef"], odd="single")
    assert pairing.optimality.checked
    assert pairing.optimality.primal == pairing.optimality.dual
    # the first rank alone: neighbours on the line, the odd place left free
    x = sorted(values[:, 0])
    first = min(sum(b - a for a, b in zip(y[::2], y[1::2], strict=True)) for k in range(0, 85, 2) for y in [x[:k] + x[k + 1 :]])
    assert float(pairing.costs[0]) == pytest.approx(first, abs=1e-9)


def test_every_digit_of_a_float_counts() -> None:
    """Seventeen digits a column: Python integers in every limb; against enumeration in exact decimals."""
    rng = np.random.default_rng(2)
    for _ in range(10):
        values = rng.normal(size=(8, 3))
        sites = pd.DataFrame(values, columns=list("abc")).assign(site=[f"S{k}" for k in range(8)])
        pairing = match_pairs(sites, id="site", criteria=[nearest(c) for c in "abc"])
        exact_values = np.array([[int(Decimal(repr(float(v))) * 10**20) for v in row] for row in values], dtype=object)
        expected = least(np.abs(exact_values[:, None] - exact_values), range(8))
        assert tuple(int(c * 10**20) for c in pairing.costs) == expected


def test_mahalanobis_is_the_textbook_distance() -> None:
    rng = np.random.default_rng(5)
    points = rng.multivariate_normal([0, 0, 0], [[4, 1, 0], [1, 2, 0.5], [0, 0.5, 1]], 8)
    sites = pd.DataFrame(points, columns=list("xyz")).assign(site=[f"S{k}" for k in range(8)])
    inverse = np.linalg.inv(np.cov(points, rowvar=False))
    for weights in (None, [1, 2, 3], {"z": 3, "y": 2}):
        d = np.diag([1, 1, 1] if weights is None else [1, 2, 3])
        expected = np.array([[np.sqrt((a - b) @ d @ inverse @ d @ (a - b)) for a in points] for b in points])
        pairing = match_pairs(sites, id="site", criteria=[mahalanobis(["x", "y", "z"], weights=weights)])
        assert int(pairing.costs[0] * 10**6) == least(np.rint(expected * 1e6).astype(np.int64)[..., None], range(8))[0]


def test_robust_mahalanobis_is_not_ruled_by_a_giant() -> None:
    from sklearn.covariance import MinCovDet

    rng = np.random.default_rng(6)
    points = rng.normal(size=(40, 2))
    points[0] = 60, -60
    sites = pd.DataFrame(points, columns=["x", "y"]).assign(site=[f"S{k:02d}" for k in range(40)])
    robust = match_pairs(sites, id="site", criteria=[mahalanobis(["x", "y"], robust=True)])
    spread = points.std(axis=0)
    inverse = np.linalg.inv(MinCovDet(random_state=0).fit((points - points.mean(axis=0)) / spread).covariance_)
    z = points / spread
    total = sum(
        round(float(np.sqrt((z[int(a[1:])] - z[int(b[1:])]) @ inverse @ (z[int(a[1:])] - z[int(b[1:])]))) * 1e6) for a, b in robust.pairs
    )
    assert abs(int(robust.costs[0] * 10**6) - total) <= 20
    shuffled = match_pairs(sites.sample(frac=1, random_state=1), id="site", criteria=[mahalanobis(["x", "y"], robust=True)])
    assert shuffled.pairs == robust.pairs and shuffled.costs == robust.costs


@pytest.mark.parametrize(
    "criterion",
    [
        exact("a"),
        exact_if_possible("a"),
        nearest("a"),
        nearest("a", caliper=0.1),
        mahalanobis(["a", "b"], robust=True, weights=[1, 2.5], caliper=3, decimals=4),
    ],
)
def test_criteria_survive_json(criterion: Any) -> None:
    assert criterion_from_dict(criterion.to_dict()) == criterion


# --- constraints --------------------------------------------------------------------------------------------


def test_calipers_include_their_limit() -> None:
    sites = pd.DataFrame({"site": list("abcd"), "x": [0, 1.5, 3, 4.5]})
    pairing = match_pairs(sites, id="site", criteria=[nearest("x", caliper=1.5)])
    assert pairing.pairs == (("a", "b"), ("c", "d"))
    with pytest.raises(PairingError, match=r"a, b, c, d may be paired with no other.*caliper on x"):
        match_pairs(sites, id="site", criteria=[nearest("x", caliper="1.4999")])


def test_a_caliper_on_a_lower_rank_binds() -> None:
    sites = pd.DataFrame({"site": list("abcd"), "x": [0, 0, 9, 9], "y": [0, 9, 0, 9]})
    assert match_pairs(sites, id="site", criteria=[nearest("x"), nearest("y", caliper=5)]).pairs == (("a", "c"), ("b", "d"))


def test_caliper_on_mahalanobis() -> None:
    sites = pd.DataFrame({"site": list("abcd"), "x": [0, 0.1, 5, 5.1], "y": [0, 1, 0, 1]})
    with pytest.raises(PairingError, match="caliper on mahalanobis"):
        match_pairs(sites, id="site", criteria=[mahalanobis(["x", "y"], caliper=0.01)])


def test_forbidden_and_required_pairs() -> None:
    sites = pd.DataFrame({"site": list("abcdef"), "x": [0, 1, 2, 3, 4, 5]})
    pairing = match_pairs(sites, id="site", criteria=[nearest("x")], forbidden=[("b", "a")], required=[("f", "a")])
    assert ("a", "f") in pairing.pairs
    assert pairing.pairs == (("a", "f"), ("b", "c"), ("d", "e"))
    assert str(pairing.costs[0]) == "7"
    assert pairing.forbidden == (("a", "b"),) and pairing.required == (("a", "f"),)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"forbidden": [("a", "q")]}, "no site 'q'"),
        ({"forbidden": ["ab"]}, "not a pair of two site ids"),
        ({"required": [("a", "a")]}, "paired with itself"),
        ({"required": [("a", "b"), ("b", "c")]}, "'b' stands in two pairs"),
        ({"required": [("a", "b")], "forbidden": [("b", "a")]}, "both required and forbidden"),
        ({"required": [("a", "d")], "criteria": [exact("g"), nearest("x")]}, "exact criterion"),
        ({"required": [("a", "d")], "criteria": [nearest("x", caliper=2)]}, "caliper"),
        ({"required": [("a", "b")], "odd": "a"}, "stands in a required pair"),
    ],
)
def test_contradictory_constraints(arguments: dict[str, Any], words: str) -> None:
    sites = pd.DataFrame({"site": list("abcd"), "x": [0, 1, 2, 3], "g": [1, 1, 2, 2]})
    with pytest.raises(PairingError, match=words):
        match_pairs(sites, **{"id": "site", "criteria": [nearest("x")], **arguments})


def test_an_impossible_structure_is_explained() -> None:
    """Two triangles by caliper: everybody has partners, yet each three leaves one over."""
    sites = pd.DataFrame({"site": list("abcdef"), "x": [0, 1, 2, 100, 101, 102]})
    with pytest.raises(PairingError, match=r"\{a, b, c\}: 3 sites, an odd number, may be paired only with each other"):
        match_pairs(sites, id="site", criteria=[nearest("x", caliper=5)])
    star = [(a, b) for a, b in itertools.combinations("abcd", 2) if "a" not in (a, b)]
    with pytest.raises(PairingError, match=r"each of the \d groups .* one of a, and 1 cannot serve"):
        match_pairs(sites.head(4), id="site", criteria=[nearest("x")], forbidden=star)


# --- odd counts ---------------------------------------------------------------------------------------------


def test_an_odd_count_without_a_rule_is_refused_with_the_choices() -> None:
    with pytest.raises(PairingError) as caught:
        match_pairs(B, id="site", criteria=[exact("county"), nearest("budget")])
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 sites with county = yes cannot all be paired, because 3 is odd."
    assert [line.partition("odd=")[2] for line in lines[1:]] == ['"S07"', '"trio"', '"single"', '"reserve"']
    assert len({line.index("odd=") for line in lines[1:]}) == 1


def test_two_odd_strata_are_both_named() -> None:
    with pytest.raises(PairingError) as caught:
        match_pairs(B.head(6), id="site", criteria=[exact("county"), nearest("budget")])
    assert "3 sites with county = no" in str(caught.value) and "3 sites with county = yes" in str(caught.value)
    assert 'odd=["S06", "S07"]' in str(caught.value)


def test_single_reserve_and_named() -> None:
    criteria = [exact("county"), nearest("budget")]
    single = match_pairs(B, id="site", criteria=criteria, odd="single")
    reserve = match_pairs(B, id="site", criteria=criteria, odd="reserve")
    named = match_pairs(B, id="site", criteria=criteria, odd="S01")
    assert (single.singles, single.reserve) == (("S07",), ())
    assert (reserve.singles, reserve.reserve, reserve.pairs) == ((), ("S07",), single.pairs)
    assert (named.singles, named.reserve, named.odd) == ((), ("S01",), ("S01",))
    assert named.pairs[0] == ("S02", "S07")
    both = match_pairs(B.head(6), id="site", criteria=criteria, odd=["S06", "S07"])
    assert both.reserve == ("S06", "S07") and len(both.pairs) == 2


def test_an_even_count_needs_no_rule_and_ignores_one() -> None:
    plain = match_pairs(B.head(6), id="site", criteria=[nearest("budget")])
    for odd in ("single", "trio", "reserve"):
        pairing = match_pairs(B.head(6), id="site", criteria=[nearest("budget")], odd=odd)
        assert (pairing.pairs, pairing.singles, pairing.reserve, pairing.trios) == (plain.pairs, (), (), ())


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ("singel", "Did you mean 'single'"),
        ("S99", "nor a site"),
        (["S07", "S07"], "twice"),
        (["S07", "S05"], "3 sites with county = no.*once the sites named are set aside"),
    ],
)
def test_bad_odd_rules(odd: Any, words: str) -> None:
    with pytest.raises(PairingError, match=words):
        match_pairs(B, id="site", criteria=[exact("county"), nearest("budget")], odd=odd)


def test_a_trio_of_one_is_refused() -> None:
    with pytest.raises(PairingError, match="can form no trio"):
        match_pairs(B[~B["site"].isin(["S01", "S02"])], id="site", criteria=[exact("county"), nearest("budget")], odd="trio")


def test_the_trio_is_the_best_of_all() -> None:
    rng = np.random.default_rng(9)
    for _ in range(25):
        n = int(rng.choice([3, 5, 7, 9]))
        values = rng.integers(0, rng.choice([3, 10, 1000]), (n, 2))
        sites = pd.DataFrame(values, columns=["x", "y"]).assign(site=[f"S{k}" for k in range(n)])
        d = np.abs(values[:, None] - values)
        best = min(
            tuple(int(v) for v in d[a, b] + d[a, c] + d[b, c] + np.array(least(d, [k for k in range(n) if k not in (a, b, c)])))
            for a, b, c in itertools.combinations(range(n), 3)
        )
        pairing = match_pairs(sites, id="site", criteria=[nearest("x"), nearest("y")], odd="trio")
        assert tuple(int(c) for c in pairing.costs) == best
        assert len(pairing.trios) == 1 and len(pairing.pairs) == (n - 3) // 2
        assert (pairing.frame["pair"] == "T01").sum() == 3


def test_a_trio_obeys_the_constraints() -> None:
    sites = pd.DataFrame({"site": list("abcde"), "x": [0, 1, 2, 50, 51]})
    free = match_pairs(sites, id="site", criteria=[nearest("x")], odd="trio")
    assert (free.trios, free.pairs, str(free.costs[0])) == ((("a", "b", "c"),), (("d", "e"),), "5")
    bound = match_pairs(sites, id="site", criteria=[nearest("x", caliper=50)], odd="trio", forbidden=[("a", "b")])
    # a may meet only c and d, b anybody but a
    assert (bound.trios, bound.pairs, str(bound.costs[0])) == ((("b", "d", "e"),), (("a", "c"),), "102")
    with pytest.raises(PairingError, match=r"no trio among the 5 sites \("):
        match_pairs(sites, id="site", criteria=[nearest("x", caliper=49)], odd="trio", forbidden=[("a", "b")])
    with pytest.raises(PairingError, match="no trio among the 3"):
        match_pairs(sites.head(3), id="site", criteria=[nearest("x")], odd="trio", forbidden=[("a", "b")])


# --- missing cells ------------------------------------------------------------------------------------------

M = pd.DataFrame({"site": list("abcd"), "g": ["u", None, "u", None], "x": [1.0, np.nan, 50.0, 52.0]})


def test_missing_cells_are_refused_by_default() -> None:
    with pytest.raises(InputError, match=r"column 'x': missing for 1 site \(b\)"):
        match_pairs(M, id="site", criteria=[nearest("x")])
    with pytest.raises(InputError, match=r"column 'g': missing for 2 sites \(b, d\)"):
        match_pairs(M, id="site", criteria=[exact_if_possible("g")])


def test_range_penalty() -> None:
    pairing = match_pairs(M, id="site", criteria=[nearest("x")], missing="range-penalty")
    assert pairing.pairs == (("a", "b"), ("c", "d"))
    assert str(pairing.costs[0]) == "53"


def test_own_level() -> None:
    x = M.assign(x=[1.0, np.nan, np.nan, 90.0])
    pairing = match_pairs(x, id="site", criteria=[nearest("x")], missing="own-level")
    assert pairing.pairs == (("a", "d"), ("b", "c"))
    assert str(pairing.costs[0]) == "89"
    levels = match_pairs(M, id="site", criteria=[exact("g"), nearest("x")], missing="own-level")
    assert levels.pairs == (("a", "c"), ("b", "d"))
    assert levels.frame["stratum"].tolist() == ["u", "missing"] * 2
    assert levels.gaps()["x"].isna().tolist() == [False, True]  # b's x is unknown, so the gap is, too


def test_a_level_called_missing_is_not_a_missing_cell() -> None:
    sites = pd.DataFrame({"site": list("abcd"), "g": ["missing", "missing", None, None], "x": [1, 9, 2, 8]})
    assert match_pairs(sites, id="site", criteria=[exact("g"), nearest("x")], missing="own-level").pairs == (("a", "b"), ("c", "d"))


def test_text_for_not_available_in_numbers_is_missing_not_read_past() -> None:
    sites = pd.DataFrame({"site": list("ab"), "x": ["1", "NA"]})
    with pytest.raises(InputError, match="missing for 1 site"):
        match_pairs(sites, id="site", criteria=[nearest("x")])


def test_mahalanobis_refuses_missing_cells() -> None:
    with pytest.raises(InputError, match="needs every coordinate"):
        match_pairs(M.assign(y=[1, 2, 4, 3]), id="site", criteria=[mahalanobis(["x", "y"])], missing="range-penalty")


# --- sequential-nearest ---------------------------------------------------------------------------------------


def sequential(sites: pd.DataFrame, **arguments: Any) -> Pairing:
    return match_pairs(sites, id="site", criteria=[nearest("x")], method="sequential-nearest", **arguments)


def test_sequential_takes_the_closest_first() -> None:
    sites = pd.DataFrame({"site": list("abcd"), "x": [0, 10, 11, 21]})
    pairing = sequential(sites)
    assert pairing.pairs == (("a", "d"), ("b", "c"))
    assert str(pairing.costs[0]) == "22"
    assert not pairing.optimality.checked
    assert "minimises no total" in pairing.to_text()
    assert sequential(sites.iloc[::-1]).to_dict() == pairing.to_dict()


def test_sequential_odd_and_dead_ends() -> None:
    sites = pd.DataFrame({"site": list("abcde"), "x": [0, 10, 11, 21, 40]})
    assert sequential(sites, odd="single").singles == ("a",)
    assert sequential(sites, odd="trio").trios == (("a", "b", "c"),)
    with pytest.raises(PairingError, match=r"leaves a, d, which may not be paired with each other"):
        sequential(sites.head(4), forbidden=[("a", "d")])


# --- words for bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"criteria": []}, "no matching criterion"),
        ({"criteria": ["budget"]}, "not a matching criterion"),
        ({"criteria": [nearest("bugdet")]}, "Did you mean 'budget'"),
        ({"criteria": [nearest("county")]}, "row 2, column 'county': 'yes' is not a number"),
        ({"id": "sites"}, "Did you mean 'site'"),
        ({"missing": "ignore"}, "unknown policy 'ignore'"),
        ({"method": "greedy"}, "unknown method 'greedy'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        match_pairs(B, **{"id": "site", "criteria": [nearest("budget")], "odd": "single", **arguments})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nearest(3), "names one column"),
        (lambda: nearest("x", caliper=-1), "at least 0"),
        (lambda: nearest("x", caliper="wide"), "at least 0"),
        (lambda: nearest("x", caliper=float("nan")), "at least 0"),
        (lambda: mahalanobis(["x"]), "at least two columns"),
        (lambda: mahalanobis("xy"), "at least two columns"),
        (lambda: mahalanobis(["x", "x"]), "twice"),
        (lambda: mahalanobis(["x", "y"], weights=[1]), "one weight a column"),
        (lambda: mahalanobis(["x", "y"], weights=[1, 0]), "above 0"),
        (lambda: mahalanobis(["x", "y"], weights={"w": 1}), "unknown column"),
        (lambda: mahalanobis(["x", "y"], decimals=20), "outside 0 to 12"),
        (lambda: criterion_from_dict({"kind": "closest", "column": "x"}), "unknown kind"),
    ],
)
def test_bad_criteria(make: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_columns_a_mahalanobis_distance_cannot_use() -> None:
    sites = pd.DataFrame({"site": list("abcd"), "x": [1, 2, 3, 4], "y": [2, 4, 6, 8], "c": [1, 1, 1, 1]})
    with pytest.raises(InputError, match="collinear"):
        match_pairs(sites, id="site", criteria=[mahalanobis(["x", "y"])])
    with pytest.raises(InputError, match="'c' is the same for every site"):
        match_pairs(sites, id="site", criteria=[mahalanobis(["x", "c"])])


def test_cells_nobody_could_have_meant() -> None:
    with pytest.raises(InputError, match="differ in size"):
        match_pairs(pd.DataFrame({"site": ["a", "b"], "x": ["1e999999", "1"]}), id="site", criteria=[nearest("x")])
    with pytest.raises(InputError, match="differ only in spaces"):
        match_pairs(pd.DataFrame({"site": ["a", "b"], "g": ["yes", "yes "]}), id="site", criteria=[exact("g")])
    with pytest.raises(InputError, match="blanks only"):
        match_pairs(pd.DataFrame({"site": ["a", "b"], "g": ["yes", "  "]}), id="site", criteria=[exact("g")])
    with pytest.raises(InputError, match="no rows"):
        match_pairs(B.head(0), id="site", criteria=[nearest("budget")])
