"""The stated truth against a trial so large that chance is out of it, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from trialkit.simulation import Scenario, simulate
from trialkit.simulation.making import blueprint, draw
from trialkit.simulation.measurement import Measure
from trialkit.simulation.streams import Stream
from trialkit.simulation.truth import truth

LARGE = """
outcome_correlation = 0.3
[sites]
groups = [{name = "a", recruited = 6000}]
[[people]]
role = "p"
per_site = 5
cv = 0.6
minimum = 1
[[traits]]
name = "g"
levels = ["x", "y"]
shares = {p = [0.7, 0.3]}
effects = [0.0, 0.3]
[design]
outcomes = [{name = "items"}, {name = "days", type = "count", direction = "lower"}, {name = "yes", type = "binary"},
            {name = "grade", type = "ordinal"}, {name = "plain"}, {name = "clipped"}, {name = "subgroup"}, {name = "size"}]
[[outcomes]]
name = "items"
d = 0.35
icc = 0.17
mean = 3.6
sd = 0.8
low = 1
high = 5
items = 6
[[outcomes]]
name = "days"
d = -0.3
icc = 0.1
mean = 4.5
sd = 6.0
[[outcomes]]
name = "yes"
d = 0.3
icc = 0.2
mean = 0.3
[[outcomes]]
name = "grade"
d = 0.3
icc = 0.2
mean = 2.0
low = 0
high = 3
[[outcomes]]
name = "plain"
d = 0.5
icc = 0.2
[[outcomes]]
name = "clipped"
d = 0.5
icc = 0.2
mean = 30.0
sd = 20.0
low = 0
high = 100
decimals = 0
[[outcomes]]
name = "subgroup"
d = 0.3
by = "g"
effects_by = [0.0, 0.5]
[[outcomes]]
name = "size"
d = 0.3
size_slope = 0.2
"""


def test_a_very_large_trial_shows_the_stated_truth() -> None:
    plan = blueprint(Scenario.from_text(LARGE))
    drawn = draw(plan, 11)
    stated = truth(plan, drawn.sites).set_index("outcome")
    arm, site = drawn.arm, drawn.site
    sizes = np.bincount(site)
    for outcome in plan.outcomes:
        row, waves = stated.loc[outcome.name], drawn.outcomes[outcome.name]
        y, y0 = waves.after, waves.before
        control = arm == 0
        # site-level noise sets the error of a difference: two SDs of site means over 3,000 sites an arm, and 4.5 of them
        sums = np.bincount(site, y)
        means = sums / sizes
        tolerance = 4.5 * np.sqrt(2 / 3000) * means.std() / y.std() + 1e-3
        assert (y[~control].mean() - y[control].mean()) / y.std() == pytest.approx(row["estimand"], abs=tolerance), outcome.name
        by_site = means[drawn.arm_of_site == 1].mean() - means[drawn.arm_of_site == 0].mean()
        assert by_site / y.std() == pytest.approx(row["estimand_cluster"], abs=tolerance), outcome.name
        assert y[control].mean() == pytest.approx(row["mean_control"], abs=tolerance * y.std())
        assert y.std() == pytest.approx(row["sd_total"], rel=0.05)
        assert _icc(y[control], site[control]) == pytest.approx(row["icc"], abs=0.03)
        assert np.corrcoef(y0[control], y[control])[0, 1] == pytest.approx(row["baseline_correlation"], abs=0.03)
    # the planted d is what comes out where the effect is the same for everybody
    assert stated.loc["items":"clipped", "estimand"].to_numpy() == pytest.approx(
        stated.loc["items":"clipped", "planted"].to_numpy(), abs=1e-9
    )
    assert stated.loc["size", "estimand_cluster"] < stated.loc["size", "estimand"] - 0.05
    # 0.3 more in d than planted times the share 0.3 of the level, on a score whose SD grew a little
    assert stated.loc["subgroup", "estimand"] == pytest.approx(0.3 + 0.3 * 0.5, abs=0.03)


def _icc(y: np.ndarray, site: np.ndarray) -> float:
    """Analysis-of-variance estimate."""
    _, code = np.unique(site, return_inverse=True)
    n = np.bincount(code)
    mean = np.bincount(code, y) / n
    within = ((y - mean[code]) ** 2).sum() / (n.sum() - len(n))
    between = (n * (mean - y.mean()) ** 2).sum() / (len(n) - 1)
    size = (n.sum() - (n**2).sum() / n.sum()) / (len(n) - 1)
    return float((between - within) / (between + (size - 1) * within))


def test_an_unbounded_scale_has_closed_forms() -> None:
    plain = Measure(kind="continuous", mean=10.0, sd=2.0)
    for d in (-0.8, -0.1, 0.35, 1.2):
        shift = plain.shift_for(d)
        assert shift == pytest.approx(d / np.sqrt(1 - d * d / 4), abs=1e-8)  # but for rounding to four decimals
        assert plain.effect(shift) == pytest.approx(d, abs=1e-9)
    mean, square = plain.moments(0.0)
    assert float(mean) == pytest.approx(10.0, abs=1e-12)
    assert float(square) == pytest.approx(104.0, abs=1e-8)
    assert plain.shared_covariance(0.17) == pytest.approx(0.17 * 4.0, abs=1e-10)


def test_a_count_has_the_mean_and_sd_asked_for() -> None:
    days = Measure(kind="count", mean=4.5, sd=8.0)
    mean, square = days.moments(0.0)
    assert float(mean) == pytest.approx(4.5, rel=1e-9)
    assert float(np.sqrt(square - mean**2)) == pytest.approx(8.0, rel=1e-6)


def test_a_binary_item_has_the_share_asked_for() -> None:
    yes = Measure(kind="binary", mean=0.3, sd=1.0)
    mean, square = yes.moments(0.0)
    assert float(mean) == pytest.approx(0.3, abs=1e-10)
    assert float(square) == pytest.approx(0.3, abs=1e-10)


def test_rating_items_have_the_moments_their_categories_give() -> None:
    """The integral against a million ratings."""
    scale = Measure(kind="continuous", mean=3.4, sd=0.9, low=1, high=5, items=4, item_correlation=0.5)
    y = Stream(3, "y").normal(200_000)
    values, ratings = scale.observe(y, Stream(3, "items"))
    mean, square = scale.moments(0.0)
    assert ratings is not None and set(np.unique(ratings)) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert values.mean() == pytest.approx(float(mean), abs=0.01)
    assert values.std() == pytest.approx(float(np.sqrt(square - mean**2)), abs=0.01)


def test_no_effect_is_exactly_none() -> None:
    scenario = Scenario.from_text(LARGE.replace("recruited = 6000", "recruited = 10"))
    flat = scenario.but(
        outcomes=tuple(o.model_copy(update={"d": 0.0, "by": None, "effects_by": None, "size_slope": 0.0}) for o in scenario.outcomes)
    )
    stated = simulate(flat, seed=1).truth
    assert (stated[["planted", "estimand", "estimand_cluster", "difference"]] == 0.0).all(axis=None)
