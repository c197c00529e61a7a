"""Laws of power, by hypothesis and by a generator of random valid designs of every kind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trialkit.door import InputError
from trialkit.power import (
    Infeasible,
    PowerDesign,
    assurance,
    beta_prior,
    detectable_effect,
    power,
    power_grid,
    sample_size,
    solve,
    stepped_wedge,
)
from trialkit.power.designs import precision
from trialkit.power.evaluate import power_from

FEW = settings(max_examples=60, deadline=None)

parallel = st.fixed_dictionaries(
    {
        "clusters": st.integers(3, 400).map(lambda k: 2 * k),
        "cluster_size": st.floats(1, 2000),
        "icc": st.floats(0, 0.95),
        "effect": st.floats(0.01, 2),
        "alpha": st.floats(1e-4, 0.3),
        "sides": st.sampled_from([1, 2]),
        "cluster_size_cv": st.floats(0, 1.5),
        "analysis": st.sampled_from(["mixed-model", "size-weighted", "cluster-means"]),
    }
)


def maybe(rng, value, default):
    return value if rng.random() < 0.4 else default


def random_design(rng: np.random.Generator) -> dict:
    """Arguments of a valid design of a random kind and outcome."""
    J = int(rng.integers(4, 150)) * 2
    a = {
        "clusters": J,
        "cluster_size": float(np.exp(rng.uniform(0, 7))),
        "icc": float(maybe(rng, rng.uniform(0, 0.98), rng.uniform(0, 0.2))),
        "effect": float(maybe(rng, 0.0, rng.normal())),
        "sd": float(np.exp(rng.normal())),
        "alpha": float(np.exp(rng.uniform(np.log(1e-6), np.log(0.5)))),
        "sides": int(rng.integers(1, 3)),
        "distribution": str(rng.choice(["f", "f", "f", "z", "shifted-t", "z-both-tails", "t-upper"])),
        "r2_person": float(maybe(rng, rng.uniform(0, 0.99), 0.0)),
    }
    a["attrition"] = float(maybe(rng, rng.uniform(0, 0.9), 0.0)) * (1 - 1 / a["cluster_size"])
    kind = int(rng.integers(0, 10))
    if kind == 0:
        a |= {"cluster_size_cv": float(rng.uniform(0, 1.9)), "analysis": str(rng.choice(["mixed-model", "size-weighted", "cluster-means"]))}
    elif kind == 1:
        del a["clusters"]
        a |= {"pairs": int(rng.integers(2, 100)), "matching_correlation": float(rng.uniform(-0.99, 0.99))}
    elif kind == 2:
        strata = int(rng.integers(2, 4))
        a |= {"strata": strata, "strata_effects": str(rng.choice(["fixed", "random"])), "stratum_heterogeneity": float(rng.uniform(0, 2))}
        a["icc_stratum"] = float(rng.uniform(0, 0.99) * (1 - a["icc"]))
    elif kind == 3:
        a |= {
            "cac": float(rng.uniform(0, 1)),
            "iac": float(rng.uniform(0, 0.98)),
            "baseline": str(rng.choice(["ancova", "change", "post"])),
        }
    elif kind == 4:
        a |= {"subclusters": int(rng.integers(1, 20)), "icc_subcluster": float(rng.uniform(0, 0.99) * (1 - a["icc"]))}
    elif kind == 5:
        layout = np.array(stepped_wedge(int(rng.integers(2, 6))))
        a |= {"layout": layout.tolist(), "clusters": len(layout) * int(rng.integers(2, 8)), "cac": float(rng.uniform(0, 1))}
        a |= {
            "correlation": str(rng.choice(["two-period", "decay"])),
            "iac": float(rng.uniform(0, 0.95)),
            "turnover": float(rng.uniform(0, 1)),
        }
    elif kind == 6:
        a |= {"controls": int(rng.integers(25, 500))}
    elif kind == 7:
        a |= {"arms": int(rng.integers(2, 6))}
    elif kind == 8:
        a |= {"modifier_icc": float(rng.uniform(0, 1)), "modifier_sd": float(np.exp(rng.normal()))}
    elif kind == 9:
        del a["sd"]
        p = float(rng.uniform(0.01, 0.99))
        a |= {"p_control": p, "effect": float(rng.uniform(-p, 1 - p)) * 0.99}
    if "iac" in a and a["iac"] > 0 and a.get("cac") == 1.0:
        a["iac"] = 0.5
    return a


def with_margin_or_control(rng, a):
    """A margin on any design that can have one, or comparisons with control in place of several arms."""
    if "arms" in a and a["distribution"] in ("f", "z", "z-both-tails"):
        return a | {"versus_control": str(rng.choice(["dunnett", "bonferroni"])), "success": str(rng.choice(["each", "any", "all"]))}
    if "arms" in a or "means" in a or "contrast" in a:
        return a
    kind = str(rng.choice(["non-inferiority", "equivalence", "superiority-by-margin"]))
    return a | {"hypothesis": kind, "margin": float(np.exp(rng.normal() - 1)), "better": str(rng.choice(["higher", "lower"]))}


def check_finite(rng):
    arguments = random_design(rng)
    moved = rng.random() < 0.2
    if moved:
        arguments = with_margin_or_control(rng, arguments)
    spec = PowerDesign(**arguments)
    found = precision(spec)
    value = power_from(found, spec)
    assert math.isfinite(value) and 0 <= value <= 1, arguments
    assert math.isfinite(found.variance) and found.variance > 0 and found.df > 0, arguments
    level = spec.alpha / spec.comparisons
    if spec.distribution == "f" and not moved:
        assert value >= level * (1 - 1e-9), arguments


def test_valid_input_never_gives_nan():
    rng = np.random.default_rng(4)
    for _ in range(2000):
        check_finite(rng)


@pytest.mark.slow
def test_valid_input_never_gives_nan_a_hundred_thousand_times():
    rng = np.random.default_rng(20240601)
    for _ in range(100_000):
        check_finite(rng)


def test_no_effect_gives_alpha_whatever_the_design():
    rng = np.random.default_rng(8)
    for _ in range(400):
        arguments = random_design(rng) | {"effect": 0.0}
        spec = PowerDesign(**arguments)
        assert abs(power(spec).power - spec.alpha) <= 1e-12, arguments


def test_designs_survive_json():
    rng = np.random.default_rng(15)
    for _ in range(200):
        spec = PowerDesign(**random_design(rng))
        again = PowerDesign.from_json(spec.to_json())
        assert again == spec and power(again).power == power(spec).power


@FEW
@given(parallel)
def test_a_vanishing_effect_tends_to_alpha(a):
    assert power(**{**a, "effect": 1e-9}).power == pytest.approx(a["alpha"], rel=1e-5)


@FEW
@given(parallel, st.integers(1, 50))
def test_more_clusters_never_lose_power(a, more):
    assert power(**{**a, "clusters": a["clusters"] + 2 * more}).power >= power(**a).power - 1e-12


@FEW
@given(parallel, st.floats(1.0, 10))
def test_larger_clusters_never_lose_power(a, factor):
    assert (
        power(**{**a, "cluster_size": a["cluster_size"] * factor, "cluster_size_cv": 0}).power
        >= power(**{**a, "cluster_size_cv": 0}).power - 1e-12
    )


@FEW
@given(parallel, st.floats(0, 1))
def test_a_larger_effect_never_loses_power(a, more):
    assert power(**{**a, "effect": a["effect"] + more}).power >= power(**a).power - 1e-12


@FEW
@given(parallel, st.floats(0, 1))
def test_a_larger_icc_never_gains_power(a, share):
    a = {**a, "cluster_size_cv": 0}
    assert power(**{**a, "icc": a["icc"] + share * (0.99 - a["icc"])}).power <= power(**a).power + 1e-12


@FEW
@given(parallel)
def test_unequal_sizes_never_gain(a):
    assert power(**a).power <= power(**{**a, "cluster_size_cv": 0}).power + 1e-12


@FEW
@given(parallel, st.floats(0, 0.9), st.floats(0, 0.9))
def test_losses_never_gain(a, people, clusters):
    lost = {**a, "attrition": people * (1 - 1 / a["cluster_size"]), "cluster_size_cv": 0}
    assert power(**lost).power <= power(**{**a, "cluster_size_cv": 0}).power + 1e-12
    if a["clusters"] * (1 - clusters) > 2.5:
        assert power(**a, cluster_attrition=clusters).power <= power(**a).power + 1e-12


@FEW
@given(parallel, st.floats(0.01, 100))
def test_units_do_not_matter(a, factor):
    base = power(**a).power
    assert power(**{**a, "effect": a["effect"] * factor}, sd=factor).power == pytest.approx(base, rel=1e-9)
    if a["sides"] == 2:
        assert power(**{**a, "effect": -a["effect"]}).power == base


@FEW
@given(parallel, st.floats(0.2, 0.99))
def test_sample_size_is_the_smallest(a, target):
    if target <= a["alpha"] + 0.01:
        return
    found = sample_size(**{k: v for k, v in a.items() if k != "clusters"}, power=target)
    n = found.clusters
    assert n % 2 == 0 and found.power >= target
    assert power(**{**a, "clusters": n}).power == found.power
    if n > 4:
        assert power(**{**a, "clusters": n - 2}).power < target
    assert found.exact <= n < found.exact + 2 + 1e-6 or n == 4


@FEW
@given(parallel, st.floats(0.35, 0.99))
def test_detectable_effect_inverts_power(a, target):
    found = detectable_effect(**{**a, "effect": None}, power=target)
    assert power(**{**a, "effect": found.effect}).power == pytest.approx(target, abs=1e-9)


@FEW
@given(parallel)
def test_cluster_size_is_the_smallest_or_the_reason_is_given(a):
    a = {k: v for k, v in a.items() if k not in ("cluster_size", "cluster_size_cv")}
    try:
        found = sample_size(**a, power=0.8)
    except Infeasible as error:
        assert error.max_power < 0.8
        assert error.least_clusters > a["clusters"]
    else:
        assert found.power >= 0.8 and (found.cluster_size == 1 or power(**a, cluster_size=found.cluster_size - 1).power < 0.8)


@pytest.mark.parametrize(
    ("find", "start"),
    [
        ("icc", {}), ("cluster_size_cv", {"icc": 0.02}), ("alpha", {}), ("sd", {}), ("attrition", {}), ("cluster_attrition", {}),
        ("r2_cluster", {"icc": 0.3}), ("r2_person", {}), ("allocation_ratio", {"icc": 0.02}), ("cac", {"cac": 0.1, "icc": 0.15}),
        ("iac", {"cac": 0.5, "icc": 0.12}), ("matching_correlation", {"pairs": 10, "clusters": None, "icc": 0.15}),
    ],
)  # fmt: skip
def test_anything_can_be_solved_for(find, start):
    base = {"clusters": 24, "cluster_size": 25, "icc": 0.05, "effect": 0.4, **start}
    now = power(**base).power
    target = now - 0.08 if find in ("cluster_size_cv", "attrition", "cluster_attrition", "allocation_ratio") else min(now + 0.06, 0.95)
    if find == "alpha":
        target = 0.6
    if find == "icc":
        base.pop("icc")
    found = solve(find=find, power=target, **base)
    assert found.power == pytest.approx(target, abs=1e-9)
    assert power(**{**base, find: found.value}).power == pytest.approx(target, abs=1e-9)


def test_a_grid_is_its_cells():
    rng = np.random.default_rng(2)
    clusters, sizes = sorted(rng.integers(4, 100, 4) * 2), rng.uniform(1, 100, 3)
    grid = power_grid(clusters=clusters, cluster_size=list(sizes), icc=[0.0, 0.1], effect=0.4, attrition=0.1, allocation_ratio=2)
    assert len(grid.frame) == 24
    for row in grid.frame.itertuples():
        cell = power(clusters=int(row.clusters), cluster_size=row.cluster_size, icc=row.icc, effect=0.4, attrition=0.1, allocation_ratio=2)
        assert row.power == pytest.approx(cell.power, abs=1e-13) and row.df == cell.df


def test_assurance_lies_between_the_extremes_and_tends_to_the_power():
    base = {"clusters": 30, "cluster_size": 20, "effect": 0.4}
    wide, narrow = (assurance(**base, icc_prior=beta_prior(mean=0.05, sd=s)).power for s in (0.03, 1e-4))
    assert narrow == pytest.approx(power(**base, icc=0.05).power, abs=1e-4)
    assert power(**base, icc=0.5).power < wide < power(**base, icc=0.0).power


def test_one_wrong_argument_is_one_input_error():
    rng = np.random.default_rng(5)
    spoil = {
        "icc": [-0.1, 1.0, math.nan],
        "cluster_size": [0.0, -1.0, math.inf],
        "alpha": [0.0, 1.0],
        "sides": [0, 3],
        "r2_person": [1.0],
        "attrition": [1.0],
    }
    for _ in range(100):
        arguments = random_design(rng)
        name = str(rng.choice(list(spoil)))
        with pytest.raises(InputError, match=name):
            PowerDesign(**{**arguments, name: spoil[name][int(rng.integers(len(spoil[name])))]})
