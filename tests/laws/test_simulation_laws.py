"""Laws of simulation: what must hold for any scenario and any seed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trialkit.simulation import Scenario, simulate
from trialkit.simulation.measurement import Measure, score

measures = st.one_of(
    st.builds(Measure, kind=st.just("continuous"), mean=st.floats(-5, 5), sd=st.floats(0.5, 3)),
    st.builds(
        Measure,
        kind=st.just("continuous"),
        mean=st.floats(2.5, 3.5),
        sd=st.floats(0.5, 1.0),
        low=st.just(1.0),
        high=st.just(5.0),
        items=st.integers(2, 8),
        item_correlation=st.floats(0.2, 0.8),
    ),
    # a count of CV 1: one much more skewed cannot hold a d of 0.6 at all
    st.builds(lambda mean: Measure(kind="count", mean=mean, sd=mean), mean=st.floats(2, 10)),
    st.builds(Measure, kind=st.just("binary"), mean=st.floats(0.2, 0.8), sd=st.just(1.0), item_correlation=st.floats(0.3, 0.9)),
)


@settings(max_examples=12, deadline=None)
@given(measure=measures, d=st.floats(-0.6, 0.6))
def test_a_planted_effect_is_the_true_effect(measure: Measure, d: float) -> None:
    assert abs(measure.effect(measure.shift_for(d)) - d) < 1e-9
    # more of the treatment never does less
    assert measure.effect(measure.shift_for(d) + 0.05) > d


@settings(max_examples=12, deadline=None)
@given(measure=measures, share=st.floats(0.0, 0.95))
def test_what_is_shared_is_no_more_than_the_whole(measure: Measure, share: float) -> None:
    mean, square = measure.moments(0.0)
    covariance = measure.shared_covariance(share)
    assert -1e-9 <= covariance <= float(square - mean**2)
    assert covariance <= measure.shared_covariance(min(share + 0.04, 1.0)) + 1e-9


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**63),
    sites=st.integers(4, 30),
    extra=st.integers(0, 60),
    minimum=st.integers(0, 2),
    cv=st.floats(0.0, 1.2),
    lost=st.integers(0, 2),
    icc=st.floats(0.0, 0.6),
)
def test_any_trial_holds_together(seed: int, sites: int, extra: int, minimum: int, cv: float, lost: int, icc: float) -> None:
    total = max(minimum * sites + extra, 1)
    scenario = Scenario(
        sites={"groups": [{"name": "clinic", "recruited": sites + lost, "lost": lost}]},
        people=[{"role": "patient", "total": total, "minimum": minimum, "cv": cv}],
        outcomes=[{"name": "mood", "d": 0.2, "icc": icc, "missing": 0.1}],
        losses={"follow_up": {"rate": {"patient": 0.8}, "site_sd": 0.5, "drivers": [{"column": "mood_0", "slope": 0.5}]}},
    )
    trial = simulate(scenario, seed=seed)
    people = trial.people
    assert len(people) == total and people["person"].is_unique
    assert len(trial.sites) == sites + lost and (trial.sites["status"] == "randomised").sum() == sites
    assert people.groupby("site")["arm"].nunique().eq(1).all()
    assert set(people["site"]) <= set(trial.randomised_sites["site"])
    if minimum:
        assert people.groupby("site").size().reindex(trial.randomised_sites["site"]).min() >= minimum
    assert people.loc[people["follow_up_done"] == 0, "mood"].isna().all()
    assert trial.complete[["mood", "mood_0"]].notna().all(axis=None)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), q=st.integers(1, 8), n=st.integers(1, 12), answered=st.floats(0.05, 1.0))
def test_a_score_is_the_mean_of_enough_items(data: st.DataObject, q: int, n: int, answered: float) -> None:
    cells = data.draw(st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=n * q, max_size=n * q))
    items = np.array([np.nan if c is None else float(c) for c in cells]).reshape(n, q)
    found = score(items, answered=answered, decimals=6)
    for row, value in zip(items, found, strict=True):
        seen = row[~np.isnan(row)]
        if len(seen) >= answered * q - 1e-9 and len(seen):
            assert abs(value - seen.mean()) < 1e-6
        else:
            assert np.isnan(value)
