"""Uncertain ICCs, attained power, co-primary outcomes, costs, grids, pictures, words, solvers: what the reference cases do not cover."""

from __future__ import annotations

import json
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from trialkit.door import InputError
from trialkit.power import (
    Infeasible,
    PowerDesign,
    assurance,
    attained_power,
    best_trial,
    beta_prior,
    co_primary,
    co_primary_clusters,
    crossover,
    detectable_effect,
    estimate_icc,
    icc_band,
    least_clusters,
    matching_break_even,
    normal_prior,
    optimal_cluster_size,
    parallel,
    pilot_prior,
    power,
    power_curve,
    power_grid,
    published_prior,
    relative_efficiency,
    sample_size,
    solve,
    stepped_wedge,
)
from trialkit.power.coprimary import _every
from trialkit.power.uncertainty import plot_icc_band

matplotlib.use("Agg")
SEED = {"clusters": 68, "cluster_size": 2, "icc": 0.05, "effect": 0.5}

# --- uncertain ICCs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "law"),
    [
        (beta_prior(0.5, 10), stats.beta(0.5, 10)),
        (beta_prior(2, 38), stats.beta(2, 38)),
        (normal_prior(0.05, 0.03), stats.truncnorm((0 - 0.05) / 0.03, (1 - 0.05) / 0.03, 0.05, 0.03)),
    ],
)
def test_assurance_is_the_integral(prior, law):
    base = {"clusters": 20, "cluster_size": 50, "effect": 0.5}
    found = assurance(**base, icc_prior=prior)
    want = integrate.quad(lambda u: power(**base, icc=min(float(law.ppf(u)), 1 - 1e-12)).power, 0, 1, limit=60, epsabs=1e-8)[0]
    assert found.power == pytest.approx(want, abs=1e-7)
    assert assurance(**base, icc_prior=law).power == pytest.approx(found.power, abs=1e-9)
    share = law.cdf(solve(find="icc", power=0.8, **base).value)
    assert found.probability == pytest.approx(share, abs=1e-6)


def test_priors():
    assert beta_prior(mean=0.05, sd=0.034).mean == pytest.approx(0.05, abs=1e-6)
    pilot = pilot_prior(icc=0.05, clusters=20, cluster_size=10)
    # the F ratio's confidence distribution by hand
    ratio = (1 + 9 * 0.05) / 0.95 / stats.f.isf(0.8, 19, 180)
    assert pilot.quantile(0.8) == pytest.approx((ratio - 1) / (ratio + 9))
    published = published_prior([0.01, 0.03, 0.05, 0.08], weights=[10, 20, 20, 10])
    assert 0.005 < published.quantile(0.05) < published.quantile(0.5) < published.quantile(0.95) < 0.25
    for bad in (lambda: beta_prior(2), lambda: beta_prior(mean=0.5, sd=0.6), lambda: normal_prior(0.05, 0), lambda: published_prior([0.1])):
        with pytest.raises(InputError):
            bad()
    with pytest.raises(InputError, match="icc_prior"):
        assurance(clusters=20, cluster_size=10, effect=0.5, icc_prior=0.05)


def test_band_of_iccs():
    band = icc_band(clusters=68, cluster_size=2, effect=0.5, icc=(0.0, 0.1), points=5)
    assert band.frame["power"].is_monotonic_decreasing
    rng = np.random.default_rng(0)
    site = np.repeat(np.arange(20), 8)
    data = pd.DataFrame({"y": rng.normal(size=20)[site] * 0.4 + rng.normal(size=160), "site": site})
    estimate = estimate_icc(data, outcome="y", cluster="site")
    wide = icc_band(clusters=40, cluster_size=10, effect=0.5, icc=estimate)
    assert estimate.icc in set(wide.frame["icc"]) and estimate.quantile(0.8) in set(wide.frame["icc"])
    from_pilot = assurance(clusters=40, cluster_size=10, effect=0.5, icc_prior=estimate)
    assert power(clusters=40, cluster_size=10, effect=0.5, icc=estimate.conf_high).power < from_pilot.power < 1


# --- unequal sizes -----------------------------------------------------------------------------------------------


def test_attained_power_enumerates_every_allocation():
    sizes = [100, 50, 25, 100, 100, 60]
    found = attained_power(cluster_size=sizes, icc=0.05, effect=0.8)
    assert found.exact and found.allocations == 20 == len(found.powers)
    one = power(cluster_size=([100, 50, 25], [100, 100, 60]), icc=0.05, effect=0.8).power
    assert np.isclose(found.powers, one, atol=1e-12).sum() >= 2  # this split and its mirror image
    assert found.lowest <= found.quantile(0.5) <= found.highest
    equal = attained_power(cluster_size=[40] * 8, icc=0.05, effect=0.6)
    assert equal.highest - equal.lowest < 1e-12
    assert equal.mean == pytest.approx(power(clusters=8, cluster_size=40, icc=0.05, effect=0.6).power, abs=1e-12)


def test_attained_power_within_strata_and_by_sampling():
    sizes = [200, 190, 20, 22, 210, 205, 18, 25]
    free = attained_power(cluster_size=sizes, icc=0.02, effect=0.4)
    strata = attained_power(cluster_size=sizes, icc=0.02, effect=0.4, strata=["l", "l", "s", "s", "l", "l", "s", "s"])
    assert strata.allocations == 36 and strata.highest - strata.lowest < free.highest - free.lowest
    many = attained_power(cluster_size=list(range(10, 50)), icc=0.05, effect=0.4, draws=3000, seed=5)
    again = attained_power(cluster_size=list(range(10, 50)), icc=0.05, effect=0.4, draws=3000, seed=5)
    assert not many.exact and np.array_equal(many.powers, again.powers)
    exact_mean = power(cluster_size=tuple(float(v) for v in range(10, 50)), icc=0.05, effect=0.4).power
    assert many.mean == pytest.approx(exact_mean, abs=0.002)
    with pytest.raises(InputError, match="labels"):
        attained_power(cluster_size=sizes, icc=0.02, effect=0.4, strata=["a"])
    with pytest.raises(InputError, match="positive"):
        attained_power(cluster_size=[1, 2, 0, 3], icc=0.02, effect=0.4)


def test_relative_efficiency_by_van_breukelen():
    m, rho = np.array([100.0, 50, 25, 100, 100]), 0.1
    a = (1 - rho) / rho
    want = (m.mean() + a) / m.mean() * np.mean(m / (m + a))
    assert relative_efficiency(m, icc=rho) == pytest.approx(want, rel=1e-12)


# --- co-primary outcomes -----------------------------------------------------------------------------------------

TWO = {
    "cluster_size": 300, "effects": (0.1, 0.1), "sd": (0.23**0.5, 0.25**0.5), "icc": 0.025, "between_person_correlation": 0.01,
    "within_person_correlation": 0.05,
}  # fmt: skip


def test_co_primary_as_the_published_package():
    # printed by crt2power's own tests (its "all" is one-sided)
    assert co_primary(clusters=30, sides=1, **TWO).power == pytest.approx(0.899, abs=5e-4)
    assert co_primary(clusters=30, sides=1, distribution="z", **TWO).power == pytest.approx(0.9143, abs=5e-5)
    assert co_primary(clusters=30, test="any", **TWO).power == pytest.approx(0.9363, abs=5e-5)
    assert co_primary(clusters=30, test="any", distribution="z", **TWO).power == pytest.approx(0.9601, abs=5e-5)
    assert co_primary_clusters(sides=1, **TWO).clusters == 24
    assert co_primary_clusters(sides=1, distribution="z", **TWO).clusters == 22
    assert co_primary_clusters(test="any", **TWO).clusters == 22


def test_co_primary_limits():
    alone = co_primary(clusters=30, **TWO).outcomes["power"]
    found = co_primary(clusters=30, **TWO)
    assert found.power <= alone.min() and found.power >= alone.sum() - 1  # Bonferroni's inequality
    # a second outcome that is always significant leaves the first one's test
    sure = co_primary(clusters=30, **{**TWO, "effects": (0.1, 10.0)})
    assert sure.power == pytest.approx(sure.outcomes["power"][0], abs=1e-7)
    # three outcomes of which one is sure are two
    three = co_primary(
        clusters=32, cluster_size=50, effects=(0.3, 0.35, 9.0), icc=0.05, between_person_correlation=0.02, within_person_correlation=0.2
    )
    shift = np.array([0.3, 0.35]) / three.outcomes["std_error"].to_numpy()[:2]
    assert three.power == pytest.approx(_every(shift, three.correlation[:2, :2], three.df, 0.05, 2), abs=2e-5)
    with pytest.raises(InputError, match="positive semi-definite"):
        co_primary(clusters=30, **{**TWO, "between_person_correlation": 0.03})
    with pytest.raises(InputError, match="df"):
        co_primary(clusters=4, **TWO)
    with pytest.raises(InputError, match="test"):
        co_primary(clusters=30, test="both", **TWO)


# --- costs, matching ---------------------------------------------------------------------------------------------


def test_costs():
    assert optimal_cluster_size(icc=0.05, cluster_cost=1000, person_cost=50) == pytest.approx(math.sqrt(20 * 19))
    found = best_trial(icc=0.05, effect=0.3, cluster_cost=1000, person_cost=50, budget=60_000)
    assert found.cost <= 60_000
    for m in (10, 40):
        J = 2 * int(60_000 // (2 * (1000 + 50 * m)))
        assert power(clusters=J, cluster_size=m, icc=0.05, effect=0.3).power <= found.power
    cheapest = best_trial(icc=0.05, effect=0.3, cluster_cost=1000, person_cost=50, power=0.8, max_cluster_size=60)
    assert cheapest.power >= 0.8
    for m in (8, 30):
        assert sample_size(icc=0.05, effect=0.3, cluster_size=m).clusters * (1000 + 50 * m) >= cheapest.cost
    with pytest.raises(InputError, match="budget or power"):
        best_trial(icc=0.05, effect=0.3, cluster_cost=1000, person_cost=50)
    with pytest.raises(InputError, match="four clusters"):
        best_trial(icc=0.05, effect=0.3, cluster_cost=1000, person_cost=50, budget=100)


def test_matching_break_even():
    for K in (4, 10, 40):
        r = matching_break_even(pairs=K, cluster_size=20, icc=0.05, effect=0.5)
        paired = power(pairs=K, cluster_size=20, icc=0.05, effect=0.5, matching_correlation=r).power
        assert paired == pytest.approx(power(clusters=2 * K, cluster_size=20, icc=0.05, effect=0.5).power, abs=1e-9)
    few, many = (matching_break_even(pairs=K, cluster_size=20, icc=0.05, effect=0.5) for K in (4, 40))
    assert few > 0.3 and many < 0.05


# --- figures printed in manuals of other packages ------------------------------------------------------------------


def test_figures_printed_elsewhere():
    # clusterPower's manual: irgtt 77.81084, count CVB 0.107, normal 0.801766, binary more than 37 (z) or 38.27 (t)
    nested = solve(find="controls", clusters=10, cluster_size=10, icc=0.1, effect=0.5, distribution="z")
    assert nested.value == pytest.approx(77.81084, abs=1e-4)
    counts = {"rate_control": 0.1, "rate_intervention": 0.2, "person_time": 10, "distribution": "z-plus-one"}
    assert solve(find="k", clusters=50, **counts).value == pytest.approx(0.107, abs=5e-4)
    assert 24 < sample_size(**counts, k=0.1).exact / 2 < 25
    assert power(clusters=32, cluster_size=10, icc=0.1, effect=1, sd=5**0.5, distribution="t-upper").power == pytest.approx(
        0.801766, abs=5e-7
    )
    binary = {"p_control": 0.1, "p_intervention": 0.2, "cluster_size": 10, "icc": 0.1}
    assert sample_size(**binary).exact / 2 == pytest.approx(38.27, abs=5e-3)
    assert sample_size(**binary, distribution="z").exact / 2 == pytest.approx(37.28, abs=5e-3)
    # its stepped wedge (1.288772; a root found to 1e-4)
    wedge = sample_size(layout=stepped_wedge(5), cluster_size=50, icc=0.2, cac=0.8, effect=1.5, sd=4, distribution="z")
    assert wedge.exact / 5 == pytest.approx(1.288772, abs=1e-4) and wedge.clusters == 10
    # Taylor against size-weighted, 40 clusters of 100, CV 0.5
    cv = {"clusters": 40, "cluster_size": 100, "cluster_size_cv": 0.5, "icc": 0.1, "effect": 0.2}
    assert power(**cv).power == pytest.approx(0.4560, abs=1e-4)
    assert power(**cv, analysis="size-weighted", distribution="t-upper").power == pytest.approx(0.3913, abs=1e-4)


@pytest.mark.parametrize(
    ("J", "figures"), [(6, (0.498, 0.424, 0.730)), (8, (0.698, 0.690, 0.844)), (10, (0.827, 0.830, 0.913)), (20, (0.993, 0.991, 0.997))]
)
def test_exact_against_approximations(J, figures):
    for kind, figure in zip(("f", "shifted-t", "z"), figures, strict=True):
        assert power(clusters=J, cluster_size=30, icc=0.05, effect=0.6, distribution=kind).power == pytest.approx(figure, abs=6e-4)


# --- solvers and layouts -------------------------------------------------------------------------------------------


def test_sizes_come_out_whole_for_every_design():
    for arguments, step in [
        ({"design": "matched-pairs", "cluster_size": 10, "icc": 0.05, "effect": 0.5}, 2),
        ({"layout": stepped_wedge(4), "cluster_size": 10, "icc": 0.05, "effect": 0.3}, 4),
        ({"strata": 3, "cluster_size": 10, "icc": 0.05, "effect": 0.5}, 6),
        ({"arms": 3, "cluster_size": 10, "icc": 0.05, "effect": 0.5}, 3),
        ({"allocation_ratio": 2, "cluster_size": 10, "icc": 0.05, "effect": 0.5}, 3),
        ({"controls": 300, "cluster_size": 10, "icc": 0.05, "effect": 0.4}, 1),
        ({"cac": 0.8, "cluster_size": 10, "icc": 0.05, "effect": 0.4}, 2),
        ({"subclusters": 4, "subcluster_size": 5, "icc": 0.05, "icc_subcluster": 0.1, "effect": 0.4}, 2),
        ({"cluster_size": 10, "icc": 0.05, "effect": 0.5, "cluster_attrition": 0.1, "attrition": 0.2}, 2),
        ({"cluster_size": 10, "icc": (0.02, 0.1), "effect": 0.5, "df": "welch"}, 2),
    ]:  # fmt: skip
        found = sample_size(**arguments)
        assert found.clusters % step == 0 and found.power >= 0.8, arguments
        fewer = PowerDesign(**arguments).replace(clusters=found.clusters - step)
        assert power(fewer).power < 0.8, arguments
    uneven = sample_size(layout=stepped_wedge(3), clusters_per_sequence=(1, 2, 1), cluster_size=10, icc=0.05, effect=0.3)
    assert uneven.power >= 0.8 and uneven.clusters % 4 == 0
    arm = sample_size(subclusters=4, clusters=20, icc=0.05, icc_subcluster=0.1, effect=0.5)
    assert arm.cluster_size % 4 == 0 and arm.power >= 0.8


def test_recruitment_is_inflated_for_losses():
    found = sample_size(cluster_size=10, icc=0.05, effect=0.5, attrition=0.2, cluster_attrition=0.1)
    table = found.recruit.set_index("stage")
    assert table.loc["recruit", "clusters"] == found.clusters and table.loc["recruit", "cluster_size"] == 10
    assert table.loc["analyse", "cluster_size"] == pytest.approx(8) and table.loc["analyse", "clusters"] == pytest.approx(
        0.9 * found.clusters
    )
    assert table.loc["analyse", "people"] == pytest.approx(0.72 * table.loc["recruit", "people"])
    assert "20% of participants and 10% of clusters" in found.protocol_text()


def test_detectable_effects_on_every_scale():
    base = {"clusters": 30, "cluster_size": 40, "icc": 0.03}
    up = detectable_effect(p_control=0.3, **base)
    down = detectable_effect(p_control=0.3, direction="decrease", **base)
    assert up.effect > 0 > down.effect and up.p_intervention == pytest.approx(0.3 + up.effect)
    assert power(p_control=0.3, p_intervention=down.p_intervention, **base).power == pytest.approx(0.8, abs=1e-9)
    odds = detectable_effect(p_control=0.3, scale="log-odds", **base)
    assert power(p_control=0.3, scale="log-odds", odds_ratio=math.exp(odds.effect), **base).power == pytest.approx(0.8, abs=1e-9)
    rate = detectable_effect(rate_control=0.1, person_time=50, k=0.2, clusters=30, direction="decrease")
    assert -0.1 < rate.effect < 0
    assert power(rate_control=0.1, rate_intervention=0.1 + rate.effect, person_time=50, k=0.2, clusters=30).power == pytest.approx(
        0.8, abs=1e-9
    )
    hazard = detectable_effect(event_probability=0.4, direction="decrease", **base)
    assert power(hazard_ratio=math.exp(hazard.effect), event_probability=0.4, **base).power == pytest.approx(0.8, abs=1e-9)
    ordinal = detectable_effect(proportions=(0.2, 0.3, 0.5), **base)
    assert power(proportions=(0.2, 0.3, 0.5), odds_ratio=math.exp(ordinal.effect), **base).power == pytest.approx(0.8, abs=1e-9)
    with pytest.raises(Infeasible, match="range"):
        detectable_effect(p_control=0.99, clusters=6, cluster_size=5, icc=0.1)
    with pytest.raises(InputError, match="direction"):
        detectable_effect(**base, direction="up")


def test_solve_says_when_nothing_is_there():
    with pytest.raises(Infeasible, match="most attainable"):
        solve(find="icc", clusters=10, cluster_size=10, effect=0.1, power=0.8)
    with pytest.raises(InputError, match="nothing to solve for"):
        solve(find="cluster_size_cv", clusters=200, cluster_size=10, icc=0.0, effect=1.0, power=0.1)
    with pytest.raises(InputError, match="argument to solve for"):
        solve(find="colour", clusters=10, cluster_size=10, icc=0.1, effect=0.1)
    assert solve(find="power", **SEED).power == power(**SEED).power
    assert solve(find="clusters", **SEED).clusters == 68
    assert solve(find="effect", clusters=68, cluster_size=2, icc=0.05).effect == pytest.approx(0.499642, abs=1e-6)
    assert solve(find="cluster_size", **SEED).cluster_size == 2
    with pytest.raises(InputError, match="nothing is left"):
        sample_size(**SEED)
    assert least_clusters(effect=0.5, icc=0.1, power=0.8) == 16


def test_layouts():
    assert stepped_wedge(2, before=2, after=1) == ((0, 0, 1, 1, 1), (0, 0, 0, 1, 1))
    transition = np.array(stepped_wedge(3, transition=1))
    assert np.isnan(transition).sum() == 3 and np.isnan(transition[0, 1])
    assert crossover(4) == ((0, 1, 0, 1), (1, 0, 1, 0)) and parallel(1, baseline=1) == ((0, 0), (0, 1))
    for bad in (lambda: stepped_wedge(0), lambda: crossover(1), lambda: stepped_wedge(2.5)):
        with pytest.raises(InputError):
            bad()
    with pytest.raises(InputError, match="does not identify"):
        power(layout=[[0, 1], [0, 1]], clusters=10, cluster_size=5, icc=0.1, effect=0.3)
    with pytest.raises(InputError, match="divide"):
        power(layout=stepped_wedge(4), clusters=10, cluster_size=5, icc=0.1, effect=0.3)
    with pytest.raises(InputError, match="missing in every sequence"):
        power(layout=[[0, None, 1], [0, None, 0]], clusters=10, cluster_size=5, icc=0.1, effect=0.3)


# --- tables, words, pictures ---------------------------------------------------------------------------------------


def test_warnings_teach():
    assert any("few" in w for w in power(clusters=12, cluster_size=10, icc=0.05, effect=0.5).warnings)
    assert any("approximation" in w for w in power(**SEED, distribution="z").warnings)
    assert any("larger clusters hardly help" in w for w in power(clusters=12, cluster_size=200, icc=0.1, effect=0.5).warnings)
    assert any("attrition_cv" in w for w in power(**SEED, attrition=0.3).warnings)
    assert any("do not divide" in w for w in power(clusters=45, cluster_size=10, icc=0.05, effect=0.5).warnings)
    assert any("events" in w for w in power(clusters=10, cluster_size=20, icc=0.01, p_control=0.02, p_intervention=0.06).warnings)
    assert power(**SEED).warnings == ()


def test_protocol_paragraph_has_what_consort_asks_for():
    text = power(**SEED, icc_source="a pilot of 20 sites", r2_person=0.1, n_cluster_covariates=1).protocol_text()
    for part in ("68 clusters (34 in each arm)", "2 participants", "0.5 standard deviations", "two-sided 5%", "0.05 (a pilot of 20 sites)",
                 "65 degrees of freedom", "equal", "No losses", "10% of the variance within"):  # fmt: skip
        assert part in text, part
    for arguments in (
        {"pairs": 20, "cluster_size": 10, "icc": 0.05, "effect": 0.5, "matching_correlation": 0.3},
        {"layout": stepped_wedge(4), "clusters": 12, "cluster_size": 10, "icc": 0.05, "cac": 0.8, "effect": 0.3},
        {"p_control": 0.2, "p_intervention": 0.3, "clusters": 30, "cluster_size": 20, "icc": 0.03},
        {"p_control": 0.2, "odds_ratio": 2, "scale": "log-odds", "clusters": 30, "cluster_size": 20, "icc": 0.03},
        {"rate_control": 0.1, "rate_intervention": 0.08, "person_time": 100, "k": 0.2, "clusters": 30},
        {"hazard_ratio": 0.7, "event_probability": 0.3, "clusters": 30, "cluster_size": 20, "icc": 0.03},
        {"proportions": (0.3, 0.3, 0.4), "odds_ratio": 1.5, "clusters": 30, "cluster_size": 20, "icc": 0.03},
        {"means": (0, 0.2, 0.4), "clusters": 30, "cluster_size": 20, "icc": 0.03},
        {"controls": 100, "clusters": 10, "cluster_size": 8, "icc": 0.05, "effect": 0.4},
        {"modifier_icc": 0.1, "clusters": 30, "cluster_size": 20, "icc": 0.03, "effect": 0.2},
        {"subclusters": 4, "subcluster_size": 5, "clusters": 30, "icc": 0.03, "icc_subcluster": 0.1, "effect": 0.4},
        {"strata": 3, "clusters": 30, "cluster_size": 20, "icc": 0.03, "effect": 0.4, "cluster_size_cv": 0.4},
    ):  # fmt: skip
        found = power(**arguments)
        text = found.protocol_text()
        assert "intracluster correlation" in text and "None" not in text and "nan" not in text, text
        assert found.explain().count("\n") > 6 and "None" not in found.explain()
        assert json.loads(found.to_json())["power"] == found.power
        assert found.frame.shape[0] == 1 and str(found) and "<table" in found.to_html()


def test_design_can_be_changed_by_name():
    base = PowerDesign(p_control=0.2, p_intervention=0.3, clusters=30, cluster_size=20, icc=0.03)
    assert power(base, p_intervention=0.35).effect == pytest.approx(0.15)
    assert power(base, effect=0.15).power == power(base, p_intervention=0.35).power
    pairs = PowerDesign(pairs=20, cluster_size=10, icc=0.05, effect=0.5)
    assert pairs.clusters == 40 and pairs.replace(pairs=25).clusters == 50 and pairs.replace(clusters=30).pairs == 15
    wedge = PowerDesign(layout=stepped_wedge(4), clusters=12, cluster_size=10, icc=0.05, effect=0.3)
    endless = PowerDesign(clusters=20, cluster_size=10, icc=0.05, effect=0.3, df=math.inf)
    assert PowerDesign.from_json(endless.to_json()) == endless
    assert wedge.clusters_per_sequence == 3 and wedge.replace(clusters=20).clusters_per_sequence == 5
    with pytest.raises(InputError, match="by name"):
        power({"clusters": 10})


def test_grids_and_pictures(tmp_path):
    grid = power_grid(clusters=range(20, 101, 20), icc=[0.01, 0.05, 0.1], cluster_size=10, effect=0.4)
    assert len(json.loads(grid.to_json())) == 15
    slow = power_grid(clusters=[12, 24], layout=stepped_wedge(3), cluster_size=10, icc=[0.01, 0.05], effect=0.3)
    assert slow.frame["power"].tolist() == [
        power(layout=stepped_wedge(3), clusters=int(r.clusters), cluster_size=10, icc=r.icc, effect=0.3).power
        for r in slow.frame.itertuples()
    ]
    binary = power_grid(PowerDesign(p_control=0.2, clusters=20, cluster_size=20, icc=0.05), p_intervention=[0.3, 0.4])
    assert binary.frame["power"].is_monotonic_increasing
    estimate = estimate_icc(pd.DataFrame({"y": np.arange(12.0) ** 1.5, "site": list("aaabbbcccddd")}), outcome="y", cluster="site")
    for axes in (
        grid.plot(),
        power_curve(over="clusters", values=range(20, 60, 10), cluster_size=10, icc=0.05, effect=0.4).plot(),
        power_grid(clusters=range(10, 80, 10), cluster_size=range(5, 50, 5), icc=0.05, effect=0.4).contour(),
        plot_icc_band(over="clusters", values=range(10, 80, 10), cluster_size=10, effect=0.4, icc=(0.01, 0.05, 0.1)),
        estimate.plot(),
    ):
        axes.figure.savefig(tmp_path / "x.svg")
        assert (tmp_path / "x.svg").stat().st_size > 2000
        matplotlib.pyplot.close(axes.figure)
    points = pd.DataFrame({"clusters": [20, 40], "power": [0.3, 0.5], "mc_error": [0.01, 0.01]})
    checked = power_curve(over="clusters", values=range(20, 60, 10), cluster_size=10, icc=0.05, effect=0.4)
    assert len(checked.plot(simulated=points).containers) == 1
    with pytest.raises(InputError, match="mc_error"):
        checked.plot(simulated=points[["clusters", "power"]])
    matplotlib.pyplot.close("all")
    with pytest.raises(InputError, match="several values"):
        power_grid(**SEED)
    with pytest.raises(InputError, match="icc"):
        power_grid(clusters=[10, 20], cluster_size=10, icc=[0.0, 1.0], effect=0.3)
    with pytest.raises(InputError, match="degrees of freedom"):
        power_grid(clusters=[2, 20], cluster_size=10, icc=0.05, effect=0.3)
    with pytest.raises(InputError, match="power_grid"):
        power(clusters=20, cluster_size=10, icc=np.array([0.01, 0.05, 0.1]), effect=0.3)


def test_strata_need_a_cluster_in_each_arm():
    for effects in ("fixed", "random"):
        with pytest.raises(InputError, match="every stratum needs"):
            power(strata=6, strata_effects=effects, clusters=11, cluster_size=20, icc=0.05, effect=0.5)
    assert sample_size(strata=6, strata_effects="random", cluster_size=200, icc=0.01, effect=2.0).clusters == 12


def test_the_normal_formula_asks_for_no_degrees_of_freedom():
    few = power(clusters=2, cluster_size=50, icc=0.01, effect=0.8, distribution="z")
    assert few.power == pytest.approx(stats.norm.sf(stats.norm.isf(0.025) - 0.8 / math.sqrt(2 * (0.01 + 0.99 / 50))), abs=1e-12)
    assert any("no t test exists" in w for w in few.warnings)
    assert sample_size(cluster_size=200, icc=0.01, effect=2.0, distribution="z").exact < 2
    with pytest.raises(InputError, match="degrees of freedom"):
        power(clusters=2, cluster_size=50, icc=0.01, effect=0.8)


def test_the_effect_by_another_name():
    base = {"clusters": 30, "cluster_size": 25, "icc": 0.04}
    for name, more in (
        ("p_intervention", {"p_control": 0.3}),
        ("odds_ratio", {"p_control": 0.3, "scale": "log-odds"}),
        ("odds_ratio", {"proportions": (0.2, 0.3, 0.5)}),
        ("hazard_ratio", {"event_probability": 0.4}),
        ("rate_intervention", {"outcome": "count", "rate_control": 2.0}),
    ):
        for direction in ("increase", "decrease"):
            found = solve(find=name, power=0.8, direction=direction, **base, **more)
            assert found.value == getattr(found.design, name) and found.power == pytest.approx(0.8, abs=1e-9)
            assert power(**base, **more, **{name: found.value}).power == pytest.approx(0.8, abs=1e-9)
    with pytest.raises(InputError, match="belongs to"):
        solve(find="hazard_ratio", **base)
    events = solve(find="event_probability", hazard_ratio=0.6, **base)
    assert power(hazard_ratio=0.6, event_probability=events.value, **base).power == pytest.approx(0.8, abs=1e-9)
    kind = solve(find="modifier_icc", effect=0.25, power=0.7, **{**base, "icc": 0.2})
    assert kind.power == pytest.approx(0.7, abs=1e-9)
    inner = solve(find="subcluster_size", clusters=20, subclusters=4, icc=0.05, icc_subcluster=0.05, effect=0.6)
    assert inner.power >= 0.8 and inner.design.subcluster_size * 4 == inner.cluster_size
