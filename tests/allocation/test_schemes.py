"""Stratified, simple and constrained plans: every allocation listed by brute force, probabilities, misfits, validity."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.allocation import Plan, ShortSeedWarning, constrained, draw_once, simple, stratified, verify
from trialkit.door import InputError, VerificationError

from .conftest import SEED, SOURCE

SITES = pd.DataFrame({"site": list("gfedcba"), "county": list("zzyyxxx"), "day": [7.0, 6, 5, 4, 3, 2, 1], "staff": [3.0, 9, 4, 8, 2, 2, 5]})
POLICIES = ("strata", "global", "wstrata", "wglobal", "missing")


def rows(codes: np.ndarray[Any, Any]) -> set[tuple[int, ...]]:
    return {tuple(r) for r in codes.tolist()}


# --- stratified ---


@pytest.mark.parametrize("misfits", POLICIES)
@pytest.mark.parametrize("ratio", [(1, 1), (1, 2), (2, 1), (1, 1, 1)])
def test_probabilities_counts_and_hash_draws_agree(misfits: str, ratio: tuple[int, ...]) -> None:
    arms = ("control", "a", "b")[: len(ratio)]
    plan = stratified(SITES, id="site", strata=["county"], misfits=misfits, ratio=ratio, arms=arms)
    sampled = plan.sample(6000, seed=1)
    share = np.stack([(sampled == a).mean(axis=0) for a in range(len(arms))], axis=1)
    np.testing.assert_allclose(share, plan.probabilities(), atol=0.035)  # 5 standard errors
    assert len(rows(sampled)) == plan.n_assignments
    drawn = np.array([plan.allocate(str(k).encode())[0] for k in range(600)])
    assert rows(drawn) <= rows(sampled)
    share = np.stack([(drawn == a).mean(axis=0) for a in range(len(arms))], axis=1)
    np.testing.assert_allclose(share, plan.probabilities(), atol=0.11)
    if plan.equally_likely:
        listed = plan.assignments()
        assert len(listed) == plan.n_assignments and rows(listed) == rows(sampled)
        np.testing.assert_allclose((listed == 1).mean(axis=0), plan.probabilities()[:, 1], atol=1e-12)
    else:
        with pytest.raises(InputError, match="not equally likely"):
            plan.assignments()


def test_misfits_mean_what_randtreat_s_words_mean() -> None:
    """Three strata of 3, 2 and 2 sites, ratio 1:2 over three places: 0, 2 and 2 misfits."""
    sizes = {p: set() for p in POLICIES}  # type: dict[str, set[tuple[int, int]]]
    for policy in POLICIES:
        plan = stratified(SITES, id="site", strata=["county"], misfits=policy, ratio=(1, 2))
        for codes in plan.sample(500, seed=2):
            left = codes[3:]  # the seven sites by id: a b c | d e | f g
            sizes[policy].add((int((left == 0).sum()), int((left == 1).sum())))
            assert (codes[:3] == 1).sum() == 2
            if policy == "strata":  # one of each arm in each stratum
                assert sorted(left[:2]) == sorted(left[2:]) == [0, 1]
    assert sizes == {
        "missing": {(0, 0)},
        "strata": {(2, 2)},
        "global": {(2, 2)},
        "wstrata": {(0, 4), (1, 3), (2, 2)},
        "wglobal": {(1, 3), (2, 2)},
    }


def test_missing_misfits_stay_without_an_arm() -> None:
    plan = stratified(SITES, id="site", strata=["county"], misfits="missing")
    allocation = plan.draw(seed=SEED, seed_source=SOURCE)
    assert allocation.frame["arm"].isna().sum() == 1
    assert plan.probability("control").loc["d"] == 0.5 and plan.probability("control").loc["a"] == pytest.approx(1 / 3)
    assert verify(allocation.certificate, SITES).sites == 7


def test_blocks_follow_the_order_of_entry() -> None:
    plan = stratified(SITES, id="site", block_size=2, order="day", misfits="strata")
    assert plan.cells == (("a", "b"), ("c", "d"), ("e", "f"), ("g",))
    assert plan.n_assignments == 2**4
    assert "4 permuted blocks" in plan.methods_text()
    # without order, by id; a whole stratum when no size is given
    assert stratified(SITES, id="site", block_size=4).cells == (("a", "b", "c", "d"), ("e", "f", "g"))
    assert stratified(SITES, id="site").cells == (tuple("abcdefg"),)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"misfits": "globl"}, "unknown rule for misfits 'globl'. Did you mean 'global'"),
        ({"block_size": 3}, "multiple of the ratio's sum"),
        ({"order": "day"}, "block_size= is missing"),
        ({"ratio": (1, 0)}, "does not fit the arms"),
        ({"ratio": (1, 2, 3)}, "does not fit the arms"),
        ({"ratio": (1.5, 1)}, "does not fit the arms"),
        ({"strata": ["cunty"]}, "no column 'cunty'"),
        ({"arms": ("a", "a")}, "different words"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        stratified(SITES, id="site", **settings)


def test_a_site_without_a_stratum_or_a_day_is_named() -> None:
    gap = SITES.assign(county=[None, *SITES["county"][1:]], day=[np.nan, *SITES["day"][1:]])
    with pytest.raises(InputError, match="site g has no value in 'county'"):
        stratified(gap, id="site", strata=["county"])
    with pytest.raises(InputError, match="site g has no value in 'day'"):
        stratified(gap, id="site", block_size=2, order="day")


def test_row_order_does_not_matter() -> None:
    for make in (
        lambda f: stratified(f, id="site", strata=["county"]),
        lambda f: simple(f, id="site"),
        lambda f: constrained(f, id="site", covariates=["staff", "budget"], strata=["county"], cutoff=0.5),
    ):
        one, two = make(twelve()), make(twelve().iloc[::-1])
        assert (one.digest, one.commitment) == (two.digest, two.commitment)
        assert one.draw(seed=SEED, seed_source="x").arms == two.draw(seed=SEED, seed_source="x").arms


# --- simple ---


def test_simple() -> None:
    plan = simple(SITES, id="site", arms=("a", "b", "c"), ratio=(2, 1, 1))
    assert plan.n_assignments == 3**7
    np.testing.assert_allclose(plan.probabilities()[0], [0.5, 0.25, 0.25])
    sampled = plan.sample(4000, seed=3)
    np.testing.assert_allclose([(sampled == k).mean() for k in range(3)], [0.5, 0.25, 0.25], atol=0.02)
    with pytest.raises(InputError, match="not equally likely"):
        plan.assignments()
    assert rows(simple(SITES.head(3), id="site").assignments()) == set(itertools.product((0, 1), repeat=3))
    assert "odds 2:1:1" in plan.methods_text()


# --- constrained ---


def twelve() -> pd.DataFrame:
    r = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "site": [f"S{k:02d}" for k in range(12)],
            "budget": np.round(np.exp(r.normal(12, 1, 12)), 2),
            "staff": r.poisson(8, 12).astype(float),
            "county": ["yes", "no", "no"] * 4,
        }
    )


@pytest.mark.parametrize("metric", ["l1", "l2"])
def test_constrained_by_brute_force(metric: str) -> None:
    """All 924 schemes of 12 sites; the score of Raab and Butcher by hand; all ties at the cut-off kept."""
    frame = twelve()
    plan = constrained(frame, id="site", covariates={"budget": 1, "staff": 2, "county": "0.5"}, metric=metric, cutoff=0.25)
    x = np.column_stack([frame["budget"], frame["staff"], (frame["county"] == "yes")]).astype(float)
    x /= x.std(axis=0, ddof=1)
    w = np.array([1, 2, 0.5])
    every = np.array([[1 if k in chosen else 0 for k in range(12)] for chosen in itertools.combinations(range(12), 6)])
    d = np.array([x[z == 1].mean(axis=0) - x[z == 0].mean(axis=0) for z in every])
    score = (np.abs(d) * w).sum(axis=1) if metric == "l1" else (d**2 * w).sum(axis=1)
    limit = np.sort(score)[924 // 4 - 1]
    assert plan.enumerated and plan.n_candidates == 924
    assert rows(plan.accepted) == rows(every[score <= limit + 1e-9])
    lookup = {tuple(z): s for z, s in zip(every.tolist(), score, strict=True)}
    np.testing.assert_allclose(plan.scores, [lookup[tuple(z)] for z in plan.accepted.tolist()], rtol=1e-12)
    np.testing.assert_allclose(plan.covariance(), np.cov(plan.accepted.T, bias=True), atol=1e-12)
    np.testing.assert_allclose(plan.probabilities(), 0.5)  # the mirror of each accepted scheme is accepted


def test_validity_by_brute_force() -> None:
    plan = constrained(twelve(), id="site", covariates=["budget"], cutoff=0.2)
    found = plan.validity()
    expected = np.array([[np.mean(plan.accepted[:, i] == plan.accepted[:, j]) for j in range(12)] for i in range(12)])
    np.testing.assert_allclose(found.together, expected, atol=1e-7)
    assert found.expected == pytest.approx(5 / 11)
    flagged = {(r.site, r.other): r.flag for r in found.frame.itertuples()}
    for i, j in itertools.combinations(range(12), 2):
        share = expected[i, j]
        flag = "always" if share == 1 else "never" if share == 0 else "often" if share >= 0.75 else "seldom" if share <= 0.25 else None
        assert flagged.get((f"S{i:02d}", f"S{j:02d}")) == flag
    assert found.valid == (not set(flagged.values()) & {"always", "never"})


def test_an_over_constrained_design_is_flagged() -> None:
    """One giant site and one half its size: balance forces the small ones against the giant."""
    frame = twelve().assign(budget=[100.0, 99.0, *[1.0] * 10])
    found = constrained(frame, id="site", covariates=["budget"], cutoff=0.2).validity()
    assert not found.valid and found.frame.iloc[0].tolist() == ["S00", "S01", 0.0, "never"]


def test_strata_and_ratio_are_kept_by_every_scheme() -> None:
    frame = twelve()
    plan = constrained(frame, id="site", covariates=["budget"], strata=["county"], cutoff=0.5)
    for level in ("yes", "no"):
        places = [plan.sites.index(s) for s in frame.loc[frame["county"] == level, "site"]]
        assert (plan.accepted[:, places].sum(axis=1) == len(places) // 2).all()
    three = constrained(frame, id="site", covariates=["staff"], arms=("a", "b", "c"), ratio=(2, 1, 1), cutoff=0.1, candidates=3000)
    assert not three.enumerated
    assert all(np.bincount(z, minlength=3).tolist() == [6, 3, 3] for z in three.accepted)
    assert verify(three.draw(seed=SEED, seed_source="x").certificate, frame).sites == 12


def test_too_small_a_set_is_refused() -> None:
    with pytest.raises(InputError, match="only 92 of 924 schemes pass the cut-off"):
        constrained(twelve(), id="site", covariates=["budget"], cutoff=0.1)
    assert len(constrained(twelve(), id="site", covariates=["budget"], cutoff_value=10.0).accepted) == 924


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"covariates": []}, "nothing to balance"),
        ({"covariates": {"staff": 0}}, "above 0"),
        ({"covariates": ["staff"], "metric": "l3"}, "unknown metric 'l3'"),
        ({"covariates": ["staff"], "cutoff": 0}, "not a share"),
        ({"covariates": ["staff"], "cutoff_value": -1.0}, "not a score"),
        ({"covariates": ["staff"], "candidates": 10}, "at least 100 schemes"),
        ({"covariates": ["stuff"]}, "no column 'stuff'.*Did you mean 'staff'"),
        ({"covariates": ["flat"]}, "no covariate varies"),
        ({"covariates": ["gap"]}, "site S00 has no value in 'gap'"),
    ],
)
def test_constrained_settings(settings: dict[str, Any], says: str) -> None:
    frame = twelve().assign(flat=1.0, gap=[np.nan, *[1.0] * 11])
    with pytest.raises(InputError, match=says):
        constrained(frame, id="site", **settings)


def test_a_changed_list_of_schemes_is_found(tmp_path: Path) -> None:
    """The digest of the list is in the plan text; a forger who rebuilds that too is met by listing and scoring again."""
    from dataclasses import replace

    frame = twelve()
    plan = constrained(frame, id="site", covariates=["budget"], cutoff=0.25)
    steered = replace(plan, accepted=plan.accepted[plan.accepted[:, 0] == 1], scores=plan.scores[plan.accepted[:, 0] == 1])
    forged = steered.draw(seed=SEED, seed_source="x").certificate
    with pytest.raises(VerificationError, match="accepted schemes do not come out again"):
        verify(forged, frame)
    record = plan.to_dict()
    record["accepted"] = record["accepted"][4:] + record["accepted"][:4]
    with pytest.raises(VerificationError):
        Plan.from_dict(record)


def test_cells_that_the_columns_do_not_give_are_found() -> None:
    """A forger who writes another stratification and makes every digest anew."""
    from dataclasses import replace

    frame = twelve()
    plan = stratified(frame, id="site", strata=["county"], block_size=2, order="staff")
    first, second, *rest = plan.cells
    mixed = tuple(sorted([tuple(sorted((first[0], second[0]))), tuple(sorted((first[1], second[1]))), *rest]))
    forged = [
        (replace(plan, cells=mixed), "do not give the cell"),
        (replace(plan, stratum_of={**plan.stratum_of, "S03": "elsewhere"}), "site S03: the plan puts it in the stratum 'elsewhere'"),
        (replace(plan, order=None), "do not give the cell"),
        (replace(plan, rows=(*plan.rows[1:], plan.rows[1])), "list of rows"),
    ]
    moved = constrained(frame, id="site", covariates=["budget"], strata=["county"], cutoff=0.5)
    forged.append((replace(moved, stratum_of={**moved.stratum_of, "S00": "no"}), "site S00: the plan puts it in the stratum 'no'"))
    for steered, says in forged:
        with pytest.raises(VerificationError, match=says):
            steered.recheck()
    assert plan.recheck() and moved.recheck()


# --- all ---


@pytest.mark.parametrize("kind", ["stratified", "simple", "constrained"])
def test_files_certificates_and_one_draw(kind: str, tmp_path: Path) -> None:
    frame = twelve()
    path = tmp_path / "sites.csv"
    frame.to_csv(path, index=False)
    plan: Plan = {
        "stratified": lambda: stratified(frame, id="site", strata=["county"], source=path),
        "simple": lambda: simple(frame, id="site", source=path),
        "constrained": lambda: constrained(frame, id="site", covariates=["budget", "staff"], cutoff=0.2, source=path),
    }[kind]()
    plan.save(tmp_path / "plan.json")
    again = Plan.load(tmp_path / "plan.json")
    assert type(again) is type(plan) and again.digest == plan.digest and (again.sample(50, seed=1) == plan.sample(50, seed=1)).all()
    allocation = draw_once(tmp_path / "plan.json", tmp_path / "a.json", seed=SEED, seed_source=SOURCE)
    assert verify(tmp_path / "a.json", path, commitment=plan.commitment, log=tmp_path / "plan.json.log").anchored
    assert allocation.certificate.frame.equals(allocation.frame)
    record = allocation.certificate.to_dict()
    swapped = dict(record["arms"])
    swapped["S03"] = "intervention" if swapped["S03"] == "control" else "control"
    record["arms"] = [[s, swapped[s]] for s, _ in record["arms"]]
    with pytest.raises(VerificationError, match="site S03: the draw gives"):
        verify({**record}, path)
    with pytest.warns(ShortSeedWarning):
        plan.draw(seed=3, seed_source="x")
    assert plan.digest in plan.methods_text()
