"""Margins (non-inferiority, equivalence, superiority by a margin) and several arms against one control."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from trialkit._kernels import dunnett
from trialkit._kernels.equivalence import power_tost
from trialkit.door import InputError
from trialkit.power import (
    Infeasible,
    PowerDesign,
    attainable_power,
    attained_power,
    detectable_effect,
    power,
    power_grid,
    sample_size,
    solve,
    stepped_wedge,
)

R = json.loads((Path(__file__).parents[1] / "reference" / "power_margins.json").read_text())
BASE = {"clusters": 24, "cluster_size": 15, "icc": 0.05}
N = 20_000


def accept(count, expected):
    low, high = stats.binom.ppf([5e-7, 1 - 5e-7], N, expected)
    assert low <= count <= high, (count / N, expected)


# --- kernels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", R["dunnett"], ids=lambda c: f"{len(c['loading'])} arms, df {c['df']}, {c['sides']} sides")
def test_comparisons_with_control_as_mvtnorm(case):
    """mvtnorm integrates by quasi-Monte Carlo to 2e-5; its critical value, a root of that, is good to 3e-4."""
    loading, shift = tuple(case["loading"]), np.array(case["shift"])
    crit = dunnett.critical_value(loading, float(case["df"]), case["alpha"], case["sides"])
    assert crit == pytest.approx(case["critical"], abs=3e-4)
    assert dunnett.power_any(shift, np.array(loading), case["df"], crit, case["sides"]) == pytest.approx(case["any"], abs=1e-4)
    assert dunnett.power_all(shift, np.array(loading), case["df"], crit, case["sides"]) == pytest.approx(case["all"], abs=1e-4)


def test_critical_values_as_tabled():
    """Dunnett 1955 and 1964, equal groups, 5%: two-sided for 2 and 4 arms, one-sided for 3."""
    half = math.sqrt(0.5)
    for arms, df, sides, table in ((2, 5.0, 2, 3.03), (2, 20.0, 2, 2.38), (4, 30.0, 2, 2.58), (3, 10.0, 1, 2.34), (2, math.inf, 2, 2.21)):
        assert dunnett.critical_value((half,) * arms, df, 0.05, sides) == pytest.approx(table, abs=0.0051)


@pytest.mark.parametrize("case", R["tost"], ids=lambda c: f"df {c['df']}")
def test_two_one_sided_tests_as_integrated_in_r(case):
    found = power_tost(case["lower"], case["upper"], case["df"], case["alpha"])
    assert found == pytest.approx(case["power"], abs=1e-10)


def test_equivalence_tends_to_its_normal_limit_and_is_symmetric():
    assert power_tost(3.0, 2.5, 1e9, 0.05) == pytest.approx(power_tost(3.0, 2.5, math.inf, 0.05), abs=1e-7)
    assert power_tost(3.0, 2.5, 12.0, 0.05) == pytest.approx(power_tost(2.5, 3.0, 12.0, 0.05), abs=1e-14)
    assert power_tost(3.0, -3.5, 12.0, 0.05) == 0.0
    # one limit far away leaves one test
    assert power_tost(2.0, 80.0, 12.0, 0.05) == pytest.approx(stats.nct.sf(stats.t.isf(0.05, 12), 12, 2.0), abs=1e-10)


# --- margins -------------------------------------------------------------------------------------------------------


def test_non_inferiority_is_a_one_sided_test_moved_by_the_margin():
    found = power(**BASE, hypothesis="non-inferiority", margin=0.3, effect=0.1, alpha=0.025)
    assert found.power == pytest.approx(power(**BASE, effect=0.4, sides=1, alpha=0.025).power, abs=1e-12)
    assert found.design.sides == 1
    lower = power(**BASE, hypothesis="non-inferiority", margin=0.3, effect=-0.1, alpha=0.025, better="lower")
    assert lower.power == found.power
    assert power(**BASE, hypothesis="non-inferiority", margin=0.3).effect == 0.0
    more = power(**BASE, hypothesis="superiority-by-margin", margin=0.1, effect=0.5, alpha=0.025)
    assert more.power == pytest.approx(found.power, abs=1e-12)


def test_at_the_margin_the_power_is_alpha():
    for effect, hypothesis in ((-0.3, "non-inferiority"), (0.3, "superiority-by-margin")):
        for kind in ("f", "z", "shifted-t"):
            found = power(**BASE, hypothesis=hypothesis, margin=0.3, effect=effect, alpha=0.025, distribution=kind)
            assert found.power == pytest.approx(0.025, abs=1e-12)
    assert power(**BASE, hypothesis="non-inferiority", margin=0.3, effect=-0.5, alpha=0.025).power < 0.025
    # the size of equivalence at its limit is alpha when the other limit is far, and never more
    assert power(**BASE, hypothesis="equivalence", margin=3.0, effect=3.0).power == pytest.approx(0.05, abs=1e-9)
    assert power(**BASE, hypothesis="equivalence", margin=0.3, effect=0.3).power < 0.05


@pytest.mark.parametrize("effect", [0.0, 0.15, -0.2])
def test_margins_against_simulated_trials(effect):
    rng = np.random.default_rng(1)
    k, sd = 12, math.sqrt(0.05 + 0.95 / 15)
    x, y = rng.normal(size=(N, k)) * sd, effect + rng.normal(size=(N, k)) * sd
    se = np.sqrt((x.var(axis=1, ddof=1) + y.var(axis=1, ddof=1)) / k)
    d = y.mean(axis=1) - x.mean(axis=1)
    t = stats.t.isf(0.05, 2 * k - 2)
    margin = 0.4
    accept(int(((d + margin) / se > t).sum()), power(**BASE, hypothesis="non-inferiority", margin=margin, effect=effect).power)
    both = ((d + margin) / se > t) & ((d - margin) / se < -t)
    accept(int(both.sum()), power(**BASE, hypothesis="equivalence", margin=margin, effect=effect).power)


def test_solving_with_a_margin():
    plan = {"cluster_size": 15, "icc": 0.05, "alpha": 0.025}
    for more in (
        {"hypothesis": "non-inferiority", "margin": 0.3},
        {"hypothesis": "equivalence", "margin": 0.3},
        {"hypothesis": "equivalence", "margin": 0.3, "effect": -0.1},
        {"hypothesis": "superiority-by-margin", "margin": 0.1, "effect": 0.5},
    ):
        found = sample_size(**plan, **more, power=0.9)
        assert found.power >= 0.9 > power(**plan, **more, clusters=found.clusters - 2).power
        assert found.exact == pytest.approx(found.clusters, abs=2)
        kept = {k: v for k, v in more.items() if k != "margin"}
        margin = solve(find="margin", **plan, **kept, clusters=found.clusters, power=0.9).value
        assert power(**plan, **kept, margin=margin, clusters=found.clusters).power == pytest.approx(0.9, abs=1e-9)
        size = sample_size(clusters=found.clusters, icc=0.05, alpha=0.025, **more, power=0.9).cluster_size
        assert size <= 15
    by = detectable_effect(**plan, clusters=30, hypothesis="superiority-by-margin", margin=0.1, power=0.8)
    assert power(**plan, clusters=30, hypothesis="superiority-by-margin", margin=0.1, effect=by.effect).power == pytest.approx(
        0.8, abs=1e-9
    )
    worst = detectable_effect(**plan, clusters=200, hypothesis="non-inferiority", margin=0.3, better="lower", power=0.8)
    assert 0 < worst.effect < 0.3
    risk = detectable_effect(p_control=0.3, clusters=60, cluster_size=40, icc=0.02, hypothesis="non-inferiority", margin=0.1, power=0.8)
    assert power(
        p_control=0.3, clusters=60, cluster_size=40, icc=0.02, hypothesis="non-inferiority", margin=0.1, effect=risk.effect
    ).power == pytest.approx(0.8, abs=1e-9)


def test_a_margin_goes_with_any_design_and_outcome():
    wedge = power(layout=stepped_wedge(4), clusters=12, cluster_size=20, icc=0.05, hypothesis="non-inferiority", margin=0.3, alpha=0.025)
    assert wedge.power == pytest.approx(
        power(layout=stepped_wedge(4), clusters=12, cluster_size=20, icc=0.05, effect=0.3, sides=1, alpha=0.025).power, abs=1e-12
    )
    pairs = power(pairs=20, cluster_size=20, icc=0.05, matching_correlation=0.3, hypothesis="equivalence", margin=0.3)
    assert 0.5 < pairs.power < 1
    hazard = power(event_probability=0.4, clusters=40, cluster_size=30, icc=0.02, hypothesis="non-inferiority", margin=math.log(1.3),
                   better="lower", alpha=0.025)  # fmt: skip
    assert "non-inferiority with a margin of 0.262" in hazard.protocol_text() and "log hazard ratio" in hazard.protocol_text()
    both = power(**BASE, hypothesis="equivalence", margin=0.3)
    assert "two one-sided tests" in both.explain() and any("90% confidence interval" in w for w in both.warnings)
    assert PowerDesign.from_json(both.design.to_json()) == both.design
    assert 0 < attainable_power(clusters=12, icc=0.1, hypothesis="equivalence", margin=0.6) < 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hypothesis": "non-inferiority"}, "needs margin"),
        ({"margin": 0.3}, "hypothesis="),
        ({"hypothesis": "non-inferiority", "margin": -0.3}, "greater than 0"),
        ({"hypothesis": "noninferior", "margin": 0.3}, "non-inferiority"),
        ({"better": "lower", "effect": 0.3}, "margin"),
        ({"hypothesis": "superiority-by-margin", "margin": 0.3}, "effect is missing"),
        ({"hypothesis": "equivalence", "margin": 0.3, "arms": 3}, "contrast"),
        ({"hypothesis": "equivalence", "margin": 0.3, "distribution": "z-plus-one"}, "superiority only"),
    ],
)
def test_bad_margins(change, says):
    with pytest.raises(InputError, match=says):
        power(**BASE, **change)


def test_a_margin_that_cannot_be_shown():
    with pytest.raises(Infeasible, match="good side of the margin"):
        sample_size(cluster_size=15, icc=0.05, hypothesis="equivalence", margin=0.3, effect=0.3)
    with pytest.raises(Infeasible, match="clusters are needed"):
        sample_size(clusters=6, icc=0.2, hypothesis="equivalence", margin=0.3)
    with pytest.raises(InputError, match="margin instead"):
        detectable_effect(**BASE, hypothesis="equivalence", margin=0.3)


# --- several arms against control ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sides", "ratio"), [(2, 1.0), (1, 1.0), (2, 0.75)])
def test_comparisons_with_control_against_simulated_trials(sides, ratio):
    rng = np.random.default_rng(3)
    means, m, rho = (0.0, 0.35, 0.6), 12, 0.05
    counts = (8, round(8 * ratio), round(8 * ratio))
    J = sum(counts)
    sd = math.sqrt(rho + (1 - rho) / m)
    groups = [d + sd * rng.normal(size=(N, n)) for d, n in zip(means, counts, strict=True)]
    pooled = sum(g.var(axis=1, ddof=1) * (n - 1) for g, n in zip(groups, counts, strict=True)) / (J - 3)
    design = {"means": means, "clusters": J, "cluster_size": m, "icc": rho, "sides": sides, "allocation_ratio": ratio}
    t = [
        (g.mean(axis=1) - groups[0].mean(axis=1)) / np.sqrt(pooled * (1 / counts[0] + 1 / n))
        for g, n in zip(groups[1:], counts[1:], strict=True)
    ]
    t = np.abs(t) if sides == 2 else np.array(t)
    crit = dunnett.critical_value(tuple(math.sqrt(n / (counts[0] + n)) for n in counts[1:]), float(J - 3), 0.05, sides)
    accept(int((t[0] > crit).sum()), power(**design, versus_control="dunnett").power)
    accept(int((t > crit).any(axis=0).sum()), power(**design, versus_control="dunnett", success="any").power)
    accept(int((t > crit).all(axis=0).sum()), power(**design, versus_control="dunnett", success="all").power)


def test_without_an_effect_the_family_has_its_level():
    design = {"arms": 4, "effect": 0.0, "clusters": 40, "cluster_size": 10, "icc": 0.05}
    assert power(**design, versus_control="dunnett", success="any").power == 0.05
    assert 0.03 < power(**design, versus_control="bonferroni", success="any").power < 0.05
    assert power(**design, versus_control="unadjusted").power == pytest.approx(0.05, abs=1e-12)


def test_the_three_adjustments_are_in_order_and_two_arms_need_none():
    design = {"means": (0, 0.3, 0.5, 0.4), "clusters": 60, "cluster_size": 10, "icc": 0.05}
    for success in ("each", "any", "all"):
        b, d, u = (power(**design, versus_control=v, success=success).power for v in ("bonferroni", "dunnett", "unadjusted"))
        assert b < d < u
    each, some, every = (power(**design, versus_control="dunnett", success=s).power for s in ("each", "any", "all"))
    assert every < each < some
    two = power(means=(0, 0.5), clusters=30, cluster_size=10, icc=0.05, versus_control="dunnett").power
    assert two == pytest.approx(power(clusters=30, cluster_size=10, icc=0.05, effect=0.5).power, abs=1e-9)


def test_solving_with_several_arms():
    found = sample_size(arms=4, effect=0.4, cluster_size=10, icc=0.05, versus_control="dunnett")
    assert found.clusters % 4 == 0 and found.power >= 0.8
    fewer = power(arms=4, effect=0.4, cluster_size=10, icc=0.05, versus_control="dunnett", clusters=found.clusters - 4)
    assert fewer.power < 0.8
    back = detectable_effect(arms=4, clusters=found.clusters, cluster_size=10, icc=0.05, versus_control="dunnett")
    assert power(arms=4, effect=back.effect, clusters=found.clusters, cluster_size=10, icc=0.05, versus_control="dunnett").power == (
        pytest.approx(0.8, abs=1e-9)
    )
    table = sample_size(means=(0, 0.3, 0.5), cluster_size=10, icc=0.05, versus_control="dunnett", success="all").versus_control
    assert table["arm"].tolist() == [2, 3] and table["power"].is_monotonic_increasing
    uneven = sample_size(arms=3, effect=0.4, cluster_size=10, icc=0.05, versus_control="dunnett", allocation_ratio=0.5)
    assert uneven.clusters % 4 == 0
    text = found.explain() + found.protocol_text()
    assert "Dunnett" in text and "critical value" in text and "at least one" in text
    assert PowerDesign.from_json(found.design.to_json()) == found.design
    for change, says in (({"success": "any"}, "versus_control"), ({"versus_control": "tukey"}, "dunnett"),
                         ({"versus_control": "dunnett", "contrast": (-1, 1, 0)}, "leave contrast")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            power(arms=3, effect=0.4, clusters=30, cluster_size=10, icc=0.05, **change)


def test_margins_reach_attained_power_and_grids():
    sizes = [20.0] * 8
    for more in (
        {"hypothesis": "non-inferiority", "margin": 0.3, "effect": 0.1},
        {"hypothesis": "equivalence", "margin": 0.5, "effect": 0.0},
        {"effect": 0.5, "distribution": "z"},
        {"effect": 0.5, "df": 20},
    ):
        equal = attained_power(cluster_size=sizes, icc=0.05, **more)
        assert equal.lowest == equal.highest == pytest.approx(power(clusters=8, cluster_size=20, icc=0.05, **more).power, abs=1e-12)
    cells = power_grid(margin=[0.3, 0.4], clusters=[40, 60], cluster_size=10, icc=0.05, hypothesis="equivalence").frame
    assert cells["power"].is_monotonic_increasing
    for row in cells.itertuples():
        found = power(margin=row.margin, clusters=int(row.clusters), cluster_size=10, icc=0.05, hypothesis="equivalence")
        assert row.power == found.power
