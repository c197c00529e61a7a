"""Plans within pairs: what can happen, with which probability, listed and sampled; the allocation's table and balance."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.allocation import Pairing, Plan, WithinPairs, drand_rule, mahalanobis, match_pairs, nearest, within_pairs
from trialkit.door import InputError

from .conftest import SEED, SOURCE, pairing_of


def test_text_digest_and_frame(plan: WithinPairs, pairing: Pairing, sites: pd.DataFrame) -> None:
    assert plan.text.splitlines()[0] == "trialkit-plan-1"
    assert [tuple(line.split("\t")) for line in plan.text.splitlines()[1:]] == sorted([*pairing.pairs, *[(s,) for s in pairing.singles]])
    allocation = plan.draw(seed=SEED, seed_source=SOURCE)
    frame = allocation.frame
    assert list(frame.columns) == ["site", "pair", "arm"]
    assert frame["site"].tolist() == sites["site"].tolist()
    assert frame["pair"].equals(pairing.frame["pair"])
    for _, arms in frame.dropna(subset="pair").groupby("pair")["arm"]:
        assert sorted(arms) == ["control", "intervention"]
    assert allocation.certificate.frame.equals(frame)
    assert repr(plan).startswith("WithinPairs(") and len(repr(plan)) < 500


def test_probability(plan: WithinPairs, sites: pd.DataFrame) -> None:
    for arm in ("intervention", "control"):
        p = plan.probability(arm)
        assert (p == 0.5).all() and p.index.tolist() == sites["site"].tolist() and p.index.name == "site"
    with pytest.raises(InputError, match=r"unknown arm 'intervension'\. Did you mean 'intervention'"):
        plan.probability("intervension")


@pytest.mark.parametrize("odd", ["single", "trio", "reserve", "S11"])
def test_every_odd_rule(sites: pd.DataFrame, odd: str) -> None:
    plan = within_pairs(pairing_of(sites, odd))
    listed = plan.assignments()
    assert len(listed) == plan.n_assignments == {"single": 64, "trio": 16 * 6, "reserve": 32, "S11": 32}[odd]
    assert len(np.unique(listed, axis=0)) == len(listed)
    np.testing.assert_allclose((listed == 1).mean(axis=0), plan.probabilities()[:, 1], atol=1e-15)
    sampled = plan.sample(4000, seed=5)
    assert {tuple(r) for r in sampled.tolist()} <= {tuple(r) for r in listed.tolist()}
    np.testing.assert_allclose(plan.covariance(), np.cov(listed.T, bias=True), atol=1e-12)
    assert sampled.dtype == listed.dtype == np.int8
    assert (plan.sample(4000, seed=5) == sampled).all() and (plan.sample(4000, seed=6) != sampled).any()
    allocation = plan.drawn(_seed())
    assert {tuple(allocation.codes.tolist())} <= {tuple(r) for r in listed.tolist()}
    left = set(plan.rows) - set(plan.sites)
    frame = allocation.frame.set_index("site")
    assert len(left) == (1 if odd in ("reserve", "S11") else 0) and frame.loc[sorted(left), "arm"].isna().all()
    assert Plan.from_dict(plan.to_dict()).digest == plan.digest


def test_reserve_is_not_in_the_text_but_bound_by_the_commitment(sites: pd.DataFrame) -> None:
    plan = within_pairs(pairing_of(sites, "S11"))
    assert "S11" not in plan.text and "S11" in plan.rows


def test_a_trio_s_six_outcomes_are_equally_likely(sites: pd.DataFrame) -> None:
    plan = within_pairs(pairing_of(sites, "trio"))
    (trio,) = [b for b in plan.blocks if len(b) == 3]
    columns = [plan.sites.index(s) for s in trio]
    counts = np.unique(plan.sample(6000, seed=1)[:, columns], axis=0, return_counts=True)[1]
    assert len(counts) == 6 and counts.min() > 850 and counts.max() < 1150


def test_large_plans_are_sampled_not_listed() -> None:
    sites = pd.DataFrame({"site": [f"S{k:02d}" for k in range(84)], "x": np.arange(84.0)})
    plan = within_pairs(match_pairs(sites, id="site", criteria=[nearest("x")]))
    assert plan.n_assignments == 2**42
    with pytest.raises(InputError, match=r"4,398,046,511,104 allocations, more than limit=100,000.*plan.sample"):
        plan.assignments()
    sampled = plan.sample(2000, seed=0)
    pairs = np.array([[plan.sites.index(a), plan.sites.index(b)] for a, b in plan.blocks])
    assert (sampled[:, pairs[:, 0]] + sampled[:, pairs[:, 1]] == 1).all()


@pytest.mark.parametrize(("n", "seed"), [(0, 1), (1.5, 1), (True, 1), (5, -1), (5, True), (5, "a")])
def test_sampling_takes_whole_numbers(plan: WithinPairs, n: Any, seed: Any) -> None:
    with pytest.raises(InputError):
        plan.sample(n, seed=seed)


def test_arms_are_renamed_and_checked(pairing: Pairing) -> None:
    allocation = within_pairs(pairing, arms=("usual care", "training")).drawn(_seed())
    assert set(allocation.arms.values()) == {"usual care", "training"}
    base = within_pairs(pairing).drawn(_seed())
    assert {s: a == "training" for s, a in allocation.arms.items()} == {s: a == "intervention" for s, a in base.arms.items()}
    for arms in (("a",), ("a", "a"), ("a", "b", "c"), ("a", " "), "ab"):
        with pytest.raises(InputError):
            within_pairs(pairing, arms=arms)


def test_ids_that_would_share_a_label_are_refused() -> None:
    from trialkit.allocation.sites import SiteRecord

    blocks = (("a", "b", "c"), ("a/k", "z"))
    ids = [s for b in blocks for s in b]
    record = SiteRecord(id="site", columns=(), cells=dict.fromkeys(sorted(ids), ()))
    with pytest.raises(InputError, match="share the label 'a/k'"):
        WithinPairs(id="site", rows=tuple(ids), record=record, blocks=blocks, labels=dict.fromkeys(ids))


def test_ids_survive_that_readers_spoil() -> None:
    ids = ["NA", "007", "7e1", "null", "É", "z z"]
    sites = pd.DataFrame({"site": ids, "x": [1.0, 2, 3, 4, 5, 6]})
    plan = within_pairs(match_pairs(sites, id="site", criteria=[nearest("x")]))
    assert set(plan.drawn(_seed()).frame["site"]) == set(ids)
    assert list(plan.sites) == sorted(ids, key=lambda s: s.encode())


def test_within_pair_differences(plan: WithinPairs) -> None:
    values = np.arange(11.0) ** 2
    d = plan.differences(values)
    expected = [values[plan.sites.index(b[0])] - values[plan.sites.index(b[1])] for b in plan.blocks if len(b) == 2]
    assert d.tolist() == expected


# --- balance ---


def by_hand(plan: Plan, codes: np.ndarray[Any, Any], x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.array([(x[c == 1].mean() - x[c == 0].mean()) / x.std(ddof=1) for c in codes])


def test_balance_by_hand(plan: WithinPairs, sites: pd.DataFrame) -> None:
    allocation = plan.drawn(_seed())
    balance = allocation.balance()
    assert balance.frame["covariate"].tolist() == ["county", "budget", "staff", "youth"]
    assert balance.exact and balance.n_assignments == 64 and "p_value" not in balance.frame
    row = balance.frame.set_index("covariate")
    aligned = sites.set_index("site").loc[list(plan.sites)]
    for name, x in (("budget", aligned["budget"].to_numpy()), ("youth", (aligned["youth"] == "yes").to_numpy(dtype=float))):
        here = by_hand(plan, allocation.codes[None, :], x)[0]
        possible = by_hand(plan, plan.assignments(), x)
        assert row.loc[name, "std_difference"] == pytest.approx(here, abs=1e-12)
        assert row.loc[name, "mean"] == pytest.approx(x[allocation.codes == 1].mean())
        quantile = np.mean(possible < here - 1e-9) + 0.5 * np.mean(np.abs(possible - here) <= 1e-9)
        assert row.loc[name, "quantile"] == pytest.approx(quantile)
    assert row.loc["youth", "level"] == "yes" and pd.isna(row.loc["budget", "level"])
    assert "standard deviation" in balance.to_text()


def test_balance_of_other_covariates(plan: WithinPairs, sites: pd.DataFrame) -> None:
    allocation = plan.drawn(_seed())
    extra = sites[["site", "city"]].assign(size=["s", "m", "l"] * 3 + ["s", "m"], gap=[1.0, np.nan] * 5 + [2.0])
    frame = allocation.balance(extra).frame
    assert frame["covariate"].tolist() == ["city", "size", "gap"] and frame["quantile"].between(0, 1).all()
    assert frame.loc[1, "level"] in ("s", "m", "l")
    with pytest.raises(InputError, match="no row for the site"):
        allocation.balance(extra.iloc[1:])
    with pytest.raises(InputError, match="no covariate"):
        allocation.balance(sites[["site"]])


def test_omnibus_by_brute_force(plan: WithinPairs, sites: pd.DataFrame) -> None:
    allocation = plan.drawn(_seed())
    found = allocation.omnibus()
    aligned = sites.set_index("site").loc[list(plan.sites)]
    x = np.column_stack([aligned["county"] == "yes", aligned["budget"], aligned["staff"], aligned["youth"] == "yes"]).astype(float)
    listed = plan.assignments()
    t = (listed - 0.5) @ (x - x.mean(axis=0))
    inverse = np.linalg.pinv(np.cov(t.T, bias=True) / np.outer(x.std(axis=0), x.std(axis=0)), rcond=1e-9)
    d2 = np.einsum("ij,jk,ik->i", t / x.std(axis=0), inverse, t / x.std(axis=0))
    here = d2[(listed == allocation.codes).all(axis=1)][0]
    assert found.statistic == pytest.approx(here, rel=1e-9) and found.rank == 4 and found.exact
    assert found.p_value == pytest.approx(np.mean(d2 >= here * (1 - 1e-9)))
    assert d2.mean() == pytest.approx(4)  # the trace of V^-1 V: the degrees of freedom


def test_omnibus_is_for_two_arms(sites: pd.DataFrame) -> None:
    from trialkit.allocation import simple

    plan = simple(sites, id="site", arms=("a", "b", "c"))
    with pytest.raises(InputError, match="compares two arms"):
        plan.drawn(_seed()).omnibus()
    assert len(plan.drawn(_seed()).balance().frame) == 2 * (len(sites.columns) - 1)


# --- words ---


def test_methods_text_says_what_the_plan_holds(plan: WithinPairs, sites: pd.DataFrame) -> None:
    text = plan.methods_text()
    for part in (
        "11 sites were matched in 5 pairs on 4 criteria in rank order",
        "county (the same level required)",
        "staff (least absolute difference)",
        "which a dual certificate proves",
        plan.digest,
        "Site S11 was without a partner",
        "trialkit-draw-1",
        "[Who] generated the sequence",
    ):
        assert part in text, part
    assert "set aside before the draw" in within_pairs(pairing_of(sites, "reserve")).methods_text()
    assert "1 group of three goes one to two or two to one" in within_pairs(pairing_of(sites, "trio")).methods_text()
    loose = match_pairs(sites, id="site", criteria=[nearest("budget", caliper=10**7)], odd="single", method="sequential-nearest")
    words = within_pairs(loose).methods_text()
    assert "one after another" in words and "at most 10000000)" in words and "dual certificate" not in words
    cloud = match_pairs(sites, id="site", criteria=[mahalanobis(["budget", "staff"])], odd="single")
    assert "budget, staff (Mahalanobis distance)" in within_pairs(cloud).methods_text()


def test_n_assignments_is_the_product_over_blocks(sites: pd.DataFrame) -> None:
    for odd in ("single", "trio", "reserve"):
        plan = within_pairs(pairing_of(sites, odd))
        ways = {1: 2, 2: 2, 3: 6}
        assert plan.n_assignments == math.prod(ways[len(b)] for b in plan.blocks)
        assert {tuple(r) for r in plan.assignments().tolist()} == {
            c for c in itertools.product((0, 1), repeat=len(plan.sites)) if _possible(plan, c)
        }


def _possible(plan: WithinPairs, codes: tuple[int, ...]) -> bool:
    arm = dict(zip(plan.sites, codes, strict=True))
    return all(len(b) == 1 or 0 < sum(arm[s] for s in b) < len(b) for b in plan.blocks)


def _seed() -> Any:
    from trialkit.allocation import Seed

    return Seed(text=SEED, source=SOURCE)


def test_a_plan_in_words(plan: WithinPairs) -> None:
    words = str(plan.with_seed_rule(drand_rule(round=99_000_000)))
    assert words.splitlines()[0] == "A plan for 11 sites (within pairs) to control and intervention"
    assert f"digest P     {plan.digest}" in words and "round 99000000 of the drand beacon quicknet" in words
    assert "record=" not in repr(plan) and "blocks=" in repr(plan)
