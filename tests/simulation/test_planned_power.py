"""Power under the planned analysis: against exact values, the closed form, and the reference of 200,000 trials."""

from __future__ import annotations

import numpy as np
import pytest

from trialkit._kernels import reml, small_sample
from trialkit.door import InputError
from trialkit.simulation import planned
from trialkit.simulation.planned import ANALYSES, planned_power
from trialkit.simulation.verdict import binomial_limits

TRIALS = 20_000


def inside(share: float, true: float) -> bool:
    """Within the exact limits at one false alarm in a million."""
    low, high = binomial_limits(TRIALS, true, false_alarm=1e-6)
    return low <= round(share * TRIALS) <= high


def figures(**design: float) -> dict[str, dict[str, float]]:
    frame = planned_power(trials=TRIALS, seed=2, analyses=ANALYSES, **design).frame  # type: ignore[arg-type]
    return {str(row["analysis"]): row for row in frame.to_dict("records")}


def test_the_published_design_under_the_planned_analysis() -> None:
    """Reference: 200,000 trials of 68 x 2 fitted by an engine of its own (research of 2026-11)."""
    found = planned_power(clusters=68, cluster_size=2, icc=0.05, effect=0.5, trials=TRIALS, seed=1, analyses=ANALYSES[:4])
    rows = found.frame.set_index("analysis")
    for name, power in (("kenward-roger", 0.7941), ("satterthwaite", 0.7957), ("z", 0.8045), ("cluster means", 0.8006)):
        assert inside(rows.loc[name, "power"], power), name
    assert inside(rows.loc["kenward-roger", "type_i"], 0.0452)
    assert inside(rows.loc["cluster means", "type_i"], 0.05)
    assert inside(found.singular, 0.341)
    assert found.formula == pytest.approx(0.8005608, abs=1e-6)


def test_exact_size_where_the_site_variance_is_often_zero() -> None:
    """Ten sites of ten, ICC 0.01: sizes by exact integration, far from 5%, and right."""
    rows = figures(clusters=10, cluster_size=10, icc=0.01, effect=0.0)
    assert inside(rows["kenward-roger"]["type_i"], 0.0209)
    assert inside(rows["satterthwaite"]["type_i"], 0.0359)
    assert inside(rows["z"]["type_i"], 0.0471)
    assert inside(rows["cluster means"]["type_i"], 0.05)
    assert inside(rows["permutation"]["type_i"], 0.0476)  # 12 of the 252 allocations


def test_exact_size_where_it_is_not() -> None:
    """Ten sites of fifty, ICC 0.1."""
    rows = figures(clusters=10, cluster_size=50, icc=0.1, effect=0.0)
    assert inside(rows["kenward-roger"]["type_i"], 0.0498)
    assert inside(rows["satterthwaite"]["type_i"], 0.0500)
    assert inside(rows["z"]["type_i"], 0.0855)


def test_without_an_effect_power_is_the_type_i_error() -> None:
    found = planned_power(clusters=12, cluster_size=5, icc=0.1, effect=0.0, trials=2000, seed=3, analyses=ANALYSES)
    assert (found.frame["power"] == found.frame["type_i"]).all()
    assert np.isnan(found.formula)


def test_unequal_sizes_are_fitted_as_people_would_be() -> None:
    """The drawn means and sum of squares, spread out over people, give the single-fit engine's numbers."""
    sizes = np.array([2.0, 3.0, 3.0, 5.0, 8.0, 12.0])
    means, ssw = planned._draw(sizes, 0.1, 4, 1, 0)
    arm = np.arange(6) % 2
    design = np.column_stack([np.ones(6), arm]).astype(float)
    fits = planned.fit_cluster_summaries(means, sizes, ssw, design, contrasts=np.array([[0.0, 1.0]]))
    site = np.repeat(np.arange(6), sizes.astype(int))
    rng = np.random.default_rng(0)
    for t in range(4):
        spread = rng.normal(size=len(site))
        spread -= (np.bincount(site, spread) / sizes)[site]
        y = means[t][site] + spread * np.sqrt(ssw[t] / (spread**2).sum())
        one = small_sample.kenward_roger(reml.fit(design[site], y, [site]), np.array([[0.0, 1.0]]))
        assert fits.kenward_roger.estimate[t, 0] == pytest.approx(one.estimate[0], rel=1e-8)
        assert fits.kenward_roger.std_error[t, 0] == pytest.approx(one.std_error[0], rel=1e-8)
        assert fits.kenward_roger.df[t, 0] == pytest.approx(one.df[0], rel=1e-8)


def test_one_side_and_more_trials() -> None:
    design = {"clusters": 40, "cluster_size": 4, "icc": 0.05, "effect": 0.4, "seed": 5}
    two = planned_power(trials=3000, **design).frame["power"].iloc[0]
    one = planned_power(trials=3000, sides=1, **design).frame["power"].iloc[0]
    assert one > two
    again = planned_power(trials=3000, **design)
    assert again.frame["power"].iloc[0] == two
    low, high = again.frame[["power_low", "power_high"]].iloc[0]
    assert low < two < high
    assert "Power under the planned analysis: 40 sites, 160 people" in str(again)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clusters": 7}, "even number"),
        ({"clusters": 2}, "even number"),
        ({"cluster_size": 0}, "cluster_size"),
        ({"sizes": [1, 2, 3, 4]}, "not both"),
        ({"clusters": None, "cluster_size": None, "sizes": [3, 0, 3, 3]}, "whole number"),
        ({"clusters": None}, "give clusters"),
        ({"icc": 1.0}, "icc"),
        ({"alpha": 0.0}, "alpha"),
        ({"sides": 3}, "sides"),
        ({"trials": 1}, "trials"),
        ({"analyses": ["kenward-rogers"]}, "Did you mean 'kenward-roger'"),
        ({"seed": -3}, "seed"),
    ],
)
def test_wrong_input_is_refused(changes: dict[str, object], said: str) -> None:
    good: dict[str, object] = {"clusters": 8, "cluster_size": 4, "icc": 0.05, "effect": 0.3, "trials": 50, "seed": 1}
    with pytest.raises(InputError, match=said):
        planned_power(**{**good, **changes})  # type: ignore[arg-type]
