"""The published trial's figures, and bad input."""

from __future__ import annotations

import math

import pytest

from trialkit.door import InputError
from trialkit.power import Infeasible, PowerDesign, detectable_effect, least_clusters, power, sample_size


def test_published_power():
    found = power(clusters=68, cluster_size=2, icc=0.05, effect=0.5)
    assert found.power == pytest.approx(0.80056079634, abs=1e-10)
    assert found.df == 66
    assert list(found.frame["power"]) == [found.power]
    assert "noncentral F" in found.explain() and "clusters - 2" in found.explain()


def test_published_sample_size():
    found = sample_size(effect=0.5, cluster_size=2, icc=0.05, power=0.8)
    assert found.clusters == 68
    assert found.exact == pytest.approx(67.906, abs=1e-3)
    assert found.power == pytest.approx(0.80056079634, abs=1e-10)
    assert power(clusters=66, cluster_size=2, icc=0.05, effect=0.5).power < 0.8


def test_published_detectable_effect():
    found = detectable_effect(clusters=68, cluster_size=2, icc=0.05, power=0.8)
    assert found.effect == pytest.approx(0.499642, abs=5e-7)
    assert power(clusters=68, cluster_size=2, icc=0.05, effect=found.effect).power == pytest.approx(0.8, abs=1e-12)


BASE = {"clusters": 20, "cluster_size": 10, "icc": 0.05, "effect": 0.5}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"icc": 1.0}, "icc"), ({"icc": -0.01}, "icc"), ({"icc": math.nan}, "icc"), ({"icc": "0.05"}, "icc"), ({"icc": True}, "icc"),
        ({"cluster_size_cv": -0.1}, "cluster_size_cv"), ({"cluster_size": 0}, "cluster_size"), ({"cluster_size": -3}, "cluster_size"),
        ({"cluster_size": math.inf}, "cluster_size"), ({"cluster_size": [10, 0, 5]}, "cluster_size"), ({"cluster_size": []}, "empty"),
        ({"clusters": 0}, "clusters"), ({"clusters": 2}, "degrees of freedom"), ({"clusters": 7.5}, "whole number"),
        ({"clusters": "many"}, "clusters"),
        ({"alpha": 0}, "alpha"), ({"alpha": 1}, "alpha"), ({"alpha": 5}, "alpha"), ({"sides": 3}, "sides"), ({"sides": True}, "sides"),
        ({"sd": 0}, "sd"), ({"sd": -1}, "sd"), ({"effect": math.nan}, "effect"), ({"effect": None}, "effect"), ({"icc": None}, "icc"),
        ({"cluster_size": None}, "cluster_size"), ({"clusters": None}, "clusters"), ({"distribution": "gamma"}, "distribution"),
        ({"clsters": 5}, "clusters"), ({"attrition": 1.0}, "attrition"), ({"allocation_ratio": 0}, "allocation_ratio"), ({"df": -3}, "df"),
        ({"df": "clusters"}, "df rule"), ({"r2_cluster": 1.0}, "r2_cluster"), ({"n_cluster_covariates": 18}, "degrees of freedom"),
        ({"icc": (0.1, 0.1, 0.1)}, "control, intervention"),
        ({"matching_correlation": 1.0, "pairs": 10, "clusters": None}, "matching_correlation"),
        ({"pairs": 9}, "pairs"), ({"cac": 0.5, "layout": [[0, 2]]}, "layout"), ({"p_control": 0.2, "sd": 2.0, "effect": 0.1}, "sd"),
        ({"cluster_size": [5, 6, 7]}, "lists 3 sizes"), ({"strata": 2, "pairs": 10, "clusters": None}, "belongs to"),
    ],
)  # fmt: skip
def test_bad_input_says_so(change, word):
    with pytest.raises(InputError, match=word):
        power(**{**BASE, **change})


def test_power_not_above_alpha_cannot_be_asked_for():
    for verb in (
        lambda p: sample_size(cluster_size=10, icc=0.05, effect=0.5, power=p),
        lambda p: detectable_effect(power=p, **{**BASE, "effect": None}),
    ):
        for p in (0.05, 0.01, 0.0, 1.0, 80, math.nan, "0.8"):
            with pytest.raises(InputError, match="power"):
                verb(p)


def test_no_effect_needs_infinitely_many():
    with pytest.raises(Infeasible, match="effect = 0"):
        sample_size(cluster_size=10, icc=0.05, effect=0.0)


def test_infeasible_says_why_the_most_and_the_least():
    with pytest.raises(Infeasible, match="unlimited size") as caught:
        sample_size(clusters=8, icc=0.1, effect=0.5, power=0.8)
    assert caught.value.max_power == pytest.approx(0.46740932256, abs=1e-8)
    assert caught.value.least_clusters == 16 == least_clusters(effect=0.5, icc=0.1, power=0.8)


def test_specification_round_trips_and_can_be_changed():
    design = PowerDesign(layout=[[0, 1, 1], [0, 0, None]], clusters=8, cluster_size=24, icc=0.03, cac=0.5, correlation="decay", effect=0.3)
    assert PowerDesign.from_json(design.to_json()) == design
    assert design.replace(effect=0.2).effect == 0.2
    assert power(design).power > power(design, effect=0.2).power
    with pytest.raises(InputError, match="JSON"):
        PowerDesign.from_json("{")


def test_everything_in_json_is_json():
    import json

    for d in (1.0, 0.0):
        data = json.loads(power(**{**BASE, "effect": d}).to_json())
        assert data["design"]["clusters"] == 20 and data["df"] == 18
