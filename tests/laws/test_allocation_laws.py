"""Laws of allocation: what must hold for any sites, any seed, any order."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from trialkit._kernels.signflip import sign_flip
from trialkit.allocation import Plan, Seed, WithinPairs, simple, stratified, verify
from trialkit.allocation.sites import SiteRecord, by_bytes

# ids as people write them: other scripts, digits, blanks inside, signs; no control characters
ids = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=6).filter(lambda s: s.strip() == s and "/" not in s)
seed_texts = st.text("0123456789abcdef", min_size=32, max_size=40)


@st.composite
def plans(draw: st.DrawFn) -> WithinPairs:
    names = draw(st.lists(ids, min_size=1, max_size=14, unique=True))
    blocks: list[list[str]] = []
    while names:
        size = min(draw(st.sampled_from([1, 2, 2, 2, 3])), len(names))
        blocks.append([names.pop() for _ in range(size)])
    return plan_of(blocks)


def plan_of(blocks: list[list[str]], rows: list[str] | None = None) -> WithinPairs:
    names = [s for b in blocks for s in b]
    record = SiteRecord(id="site", columns=(), cells=dict.fromkeys(by_bytes(names), ()))
    ordered = tuple(sorted((tuple(by_bytes(b)) for b in blocks), key=lambda b: b[0].encode()))
    return WithinPairs(id="site", rows=tuple(rows or names), record=record, blocks=ordered, labels=dict.fromkeys(names))


def seed(text: str) -> Seed:
    return Seed(text=text, source="law")


@given(plans(), seed_texts)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_every_pair_is_split_and_every_site_has_an_arm(plan: WithinPairs, text: str) -> None:
    arms = plan.drawn(seed(text)).arms
    assert set(arms) == set(plan.sites)
    for block in plan.blocks:
        treated = sum(arms[s] == "intervention" for s in block)
        assert treated in {1: (0, 1), 2: (1,), 3: (1, 2)}[len(block)]


@given(plans(), seed_texts, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_order_of_blocks_sites_and_rows_changes_nothing(plan: WithinPairs, text: str, shuffler: object) -> None:
    blocks = [list(b) for b in plan.blocks]
    shuffler.shuffle(blocks)  # type: ignore[attr-defined]
    for b in blocks:
        shuffler.shuffle(b)  # type: ignore[attr-defined]
    rows = list(plan.rows)
    shuffler.shuffle(rows)  # type: ignore[attr-defined]
    other = plan_of(blocks, rows)
    assert (other.digest, other.commitment) == (plan.digest, plan.commitment)
    assert other.drawn(seed(text)).arms == plan.drawn(seed(text)).arms
    assert (other.sample(20, seed=1) == plan.sample(20, seed=1)).all()


@given(plans(), seed_texts)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_file_is_the_plan(plan: WithinPairs, text: str) -> None:
    again = Plan.from_dict(plan.to_dict())
    assert again.digest == plan.digest and again.commitment == plan.commitment
    assert again.drawn(seed(text)).arms == plan.drawn(seed(text)).arms


@given(plans())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_sample_comes_from_the_list(plan: WithinPairs) -> None:
    sampled = plan.sample(30, seed=2)
    if plan.n_assignments <= 5000:
        listed = plan.assignments()
        assert len({tuple(r) for r in listed.tolist()}) == plan.n_assignments
        assert {tuple(r) for r in sampled.tolist()} <= {tuple(r) for r in listed.tolist()}
        np.testing.assert_allclose((listed == 1).mean(axis=0), plan.probability("intervention").loc[list(plan.sites)], atol=1e-12)


@given(plans(), seed_texts, st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_changed_plan_changes_every_draw(plan: WithinPairs, text: str, data: st.DataObject) -> None:
    """No hash of the old plan is one of the new: knowing the seed does not help to steer by re-pairing."""
    extra = data.draw(ids.filter(lambda s: s not in plan.sites))
    other = plan_of([*[list(b) for b in plan.blocks], [extra]])
    before = {d.hmac for d in plan.drawn(seed(text)).draws}
    after = {d.hmac for d in other.drawn(seed(text)).draws}
    assert not before & after


@given(
    st.integers(2, 9),
    st.lists(st.sampled_from("xyz"), min_size=9, max_size=9),
    st.sampled_from(["strata", "global", "missing"]),
    seed_texts,
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_strata_are_balanced_to_one_site(n: int, strata: list[str], misfits: str, text: str) -> None:
    frame = pd.DataFrame({"site": [f"S{k}" for k in range(n)], "stratum": strata[:n]})
    plan = stratified(frame, id="site", strata=["stratum"], misfits=misfits)
    allocation = plan.drawn(seed(text))
    lead = dict.fromkeys(strata[:n], 0)
    for stratum, arm in zip(allocation.frame["stratum"], allocation.frame["arm"], strict=True):
        lead[stratum] += {"intervention": 1, "control": -1}.get(arm, 0)
    assert max(map(abs, lead.values())) <= (0 if misfits == "missing" else 1)
    if misfits == "global":
        assert abs(sum(lead.values())) <= 1
    assert verify(allocation.certificate, frame).sites == n


@given(st.integers(1, 6), st.integers(2, 3), seed_texts)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_simple_gives_one_of_its_list(n: int, k: int, text: str) -> None:
    plan = simple(pd.DataFrame({"site": [f"S{i}" for i in range(n)]}), id="site", arms=tuple("abc"[:k]))
    assert tuple(plan.drawn(seed(text)).codes.tolist()) in {tuple(r) for r in plan.assignments().tolist()}


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_sign_flip_symmetry(d: list[int]) -> None:
    one, two = sign_flip(d), sign_flip([-x for x in d])
    assert one.two_sided == two.two_sided and one.greater == two.less
    assert one.greater + one.less >= 1  # the observed assignment counts on both sides
    assert 0 < one.two_sided <= 1
