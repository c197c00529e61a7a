"""Every case of tests/reference/power_cases.json that the package can express, within the case's own tolerance.

Where a peer's number is not the right one, the test says why and holds the right one.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from trialkit.power import (
    assurance,
    attainable_power,
    beta_prior,
    detectable_effect,
    least_clusters,
    power,
    sample_size,
    stepped_wedge,
)

CASES = {c["id"]: c for c in json.loads((Path(__file__).parents[1] / "reference" / "power_cases.json").read_text())}
SEED = {"clusters": 68, "cluster_size": 2, "icc": 0.05, "effect": 0.5}
used: set[str] = set()


def want(case, name="power"):
    used.add(case)
    return pytest.approx(CASES[case]["expected"][name], abs=max(CASES[case]["tolerance"], 1e-12))


def total(tau, sigma):
    """ICC and total standard deviation from those between and within."""
    return {"icc": tau**2 / (tau**2 + sigma**2), "sd": math.hypot(tau, sigma)}


def test_the_published_trial():
    found = power(**SEED)
    assert found.power == want("seed_power_F") and found.power == want("seed_power_F", "power_powerupr")
    assert found.power == want("seed_power_F", "power_powertools") and found.power == want("seed_published", "power_2dp")
    assert found.df == CASES["seed_power_F"]["expected"]["df"]
    assert power(**{**SEED, "icc": 0}).power == want("seed_sens_icc0")
    assert power(**{**SEED, "icc": 0.1}).power == want("seed_sens_icc0.1")
    assert power(**SEED, distribution="shifted-t").power == want("seed_power_shinycrt_t")


def test_the_multiplier_is_the_shifted_t_solved_for_the_effect():
    bloom = detectable_effect(clusters=68, cluster_size=2, icc=0.05, distribution="shifted-t")
    assert bloom.effect == want("seed_mdes_bloom", "mdes")
    # the exact answer is smaller, and has the power it was solved for under the exact test
    exact = detectable_effect(clusters=68, cluster_size=2, icc=0.05)
    assert exact.effect == pytest.approx(0.499642, abs=5e-7) and exact.power == pytest.approx(0.8, abs=1e-12)


def test_parallel_designs():
    assert power(clusters=10, cluster_size=20, icc=0.1, effect=0.6).power == want("wp_doc1")
    assert sample_size(clusters=10, effect=0.4804988, icc=0.05).cluster_size == want("pass11_m", "m_ceiling")
    base = {"clusters": 20, "cluster_size": 15, "icc": 0.17}
    assert power(**base, effect=0.629).power == want("pu_cra2_doc", "power_at_.629")
    assert detectable_effect(**base, distribution="shifted-t").effect == want("pu_cra2_doc", "mdes")
    for kind, name in (("f", "noncentral_F"), ("shifted-t", "shifted_central_t"), ("z", "z")):
        assert power(clusters=8, cluster_size=30, icc=0.05, effect=0.6, distribution=kind).power == want("smallJ_8", name)


def test_a_loop_that_stops_early_is_not_a_solution():
    # the peer's loop ends when it moves by less than one cluster; the converged exact value needs a little more
    used.update({"crtsize_1", "crtsize_inc"})
    found = sample_size(cluster_size=25, icc=0.05, effect=0.4)
    assert found.exact / 2 == pytest.approx(9.6949530565, abs=1e-8) and found.clusters == 20
    assert (
        power(clusters=20, cluster_size=25, icc=0.05, effect=0.4).power
        > 0.8
        > power(clusters=18, cluster_size=25, icc=0.05, effect=0.4).power
    )
    rates = sample_size(rate_control=0.005, rate_intervention=0.01, person_time=2000, k=0.25)
    assert rates.exact / 2 == pytest.approx(5.9402737493, abs=1e-8)


def test_unequal_sizes():
    # the peer leaves the tail on the wrong side out; the exact two-sided power is larger
    base = {"clusters": 40, "cluster_size": 100, "cluster_size_cv": 0.5, "icc": 0.1, "effect": 0.2}
    assert power(**base, distribution="t-upper").power == want("cp_doc_cv")
    assert power(**base).power == pytest.approx(0.45605729006, abs=1e-9)
    assert sample_size(cluster_size=25, cluster_size_cv=15 / 25, icc=0.05, effect=0.3).exact / 2 == want("pt_parallel_cv", "J1")
    # sizes given one by one: the mean of 1/v, not the design effect times the efficiency
    sizes = [100, 50, 25, 100, 100]
    assert power(clusters=10, cluster_size=sizes, icc=0.1, effect=0.2, distribution="t-upper").power == pytest.approx(0.12796, abs=5e-6)


def test_baseline():
    assert power(**SEED, cac=0.8, iac=0.5).power == want("seed_baseline")
    change = sample_size(effect=0.1, sd=0.5, cluster_size=50, icc=0.05, cac=0.3, iac=0.7, baseline="change", distribution="t-upper")
    assert change.exact / 2 == want("cp_did_bin", "clusters_per_arm_real")


def test_blocks_and_pairs():
    blocks = {"strata": 24, "strata_effects": "random", "cluster_size": 10, "icc": 0.1, "icc_stratum": 0.13, "stratum_heterogeneity": 0.4}
    found = detectable_effect(clusters=144, **blocks, distribution="shifted-t")
    assert found.effect == want("pu_bcra3r2", "mdes") and found.df == CASES["pu_bcra3r2"]["expected"]["df"]
    pairs = power(pairs=10, cluster_size=50, icc=0.05, effect=0.3, matching_correlation=0.3)
    assert pairs.power == want("mp_r0.3") and pairs.df == CASES["mp_r0.3"]["expected"]["df"]


def test_three_arms():
    assert power(arms=3, clusters=10, cluster_size=20, icc=0.1, effect=0.5).power == want("wp_3arm")
    # a peer's omnibus test asks for 21 people a cluster; 4 are enough
    five = {"means": (74, 80, 86), "clusters": 15, "icc": 9 / 73, "sd": math.sqrt(73)}
    assert sample_size(**five).cluster_size == 4
    assert power(**five, cluster_size=4).power == pytest.approx(0.8551, abs=5e-5)
    assert power(**five, cluster_size=21).power == pytest.approx(0.993, abs=5e-4)


def test_binary():
    base = {"p_control": 0.1, "p_intervention": 0.2}
    nih = sample_size(**base, cluster_size=150, icc=0.05)
    assert round(nih.exact / 2) == want("nih_bin", "clusters_per_arm_rounded")
    assert nih.clusters == 26  # 12.09 an arm: 12 would fall short
    cv = power(**base, cluster_size=50, cluster_size_cv=0.6, icc=0.02, clusters=20, analysis="size-weighted", distribution="t-upper")
    assert cv.power == want("cp_bin2")
    hayes = sample_size(p_control=0.3, p_intervention=0.2, cluster_size=50, k=0.2, distribution="z-plus-one")
    assert hayes.exact / 2 == want("hb_prop", "clusters_per_arm_real")


def test_partial_nesting_within_one_arm():
    # clusters of 40 in both arms; in the intervention arm groups of 10 besides. The effect is in units of the control arm's sd.
    rest = 1 - 0.10
    found = power(
        clusters=70, cluster_size=40, subclusters=4, sd=(1.0, 1 / math.sqrt(rest)), icc=(0.15 / rest, 0.15), icc_subcluster=(0.0, 0.10),
        effect=0.305, df="welch",
    )  # fmt: skip
    assert found.power == want("pu_pn")


def test_crossover():
    base = {"layout": [[0, 1], [1, 0]], "clusters": 8, "cluster_size": 30, "icc": 0.05, "cac": 0.8, "effect": 0.3}
    cohort = power(**base, iac=0.4, df="residual")
    assert cohort.power == want("pt_xo2") and cohort.df == 13
    shiny = power(**base, correlation="decay", distribution="z")
    assert shiny.power == want("shiny_xo") and shiny.variance == want("shiny_xo", "var_theta")


WEDGE = stepped_wedge(4)


def test_shiny_crt():
    parallel = power(**SEED, distribution="z")
    assert parallel.power == want("shiny_par") and parallel.variance == want("shiny_par", "var_theta")
    base = {"layout": WEDGE, "clusters": 12, "cluster_size": 20, "icc": 0.05, "effect": 0.3, "distribution": "z"}
    cohort = power(**base, cac=0.9, iac=0.4, correlation="decay")
    assert cohort.power == want("shiny_sw_coh") and cohort.variance == want("shiny_sw_coh", "var_theta")
    uploaded = power(**base, cac=0.8, correlation="two-period")
    assert uploaded.power == want("shiny_sw_upl_type0") and uploaded.variance == want("shiny_sw_upl_type0", "var_theta")


def test_stepped_wedges():
    base = {"layout": WEDGE, "clusters": 24, "distribution": "z-both-tails"}
    mean = (0.05 + 0.035) / 2
    assert power(**base, cluster_size=120, effect=0.015, **total(0.01, math.sqrt(mean * (1 - mean)))).power == want("swcrt_ex1")
    assert power(**base, cluster_size=120, effect=0.015, icc=0.02, cac=0.125, sd=0.1 / math.sqrt(0.98)).power == want("swcrt_ex8")
    hussey = power(**base, cluster_size=100, effect=0.018, **total(0.025, 0.19829019139))
    assert hussey.power == want("steppedpower_hh") and hussey.variance == want("steppedpower_hh", "var_theta")
    tau, gamma, psi, sigma = 0.025, 0.01, 0.1, 0.19829019139
    everything = tau**2 + gamma**2 + psi**2 + sigma**2
    open_cohort = {
        "icc": (tau**2 + gamma**2) / everything, "cac": tau**2 / (tau**2 + gamma**2), "iac": psi**2 / (psi**2 + sigma**2),
        "sd": math.sqrt(everything), "turnover": 1.0,
    }  # fmt: skip
    found = power(**base, cluster_size=100, effect=0.018, **open_cohort)
    assert found.power == want("steppedpower_open_chi1") and found.variance == want("steppedpower_open_chi1", "var_theta")


def test_stepped_wedge_counts_over_uneven_sequences():
    spread = (math.sqrt(1.75) + math.sqrt(1.575)) / 2
    found = power(
        layout=stepped_wedge(6), clusters_per_sequence=(3, 4, 3, 4, 3, 4), cluster_size=30, icc=0.01, sd=spread / math.sqrt(0.99),
        effect=1.575 - 1.75, distribution="z",
    )  # fmt: skip
    assert found.power == want("cp_sw_count") and found.clusters == 21


def test_stepped_wedge_without_time_effects():
    a0, a1, a2 = 0.03, 0.015, 0.2
    found = power(
        layout=[[0, 1, 1], [0, 0, 1]], clusters=8, cluster_size=24, icc=a0, cac=a1 / a0, iac=(a2 - a1) / (1 - a0), sd=math.sqrt(0.095),
        effect=0.3, time_effects="none", distribution="z",
    )  # fmt: skip
    assert found.power == want("swdpwr3")


def test_stepped_wedge_degrees_of_freedom():
    base = {"layout": WEDGE, "clusters": 8, "cluster_size": 20, "effect": 0.4, **total(0.22360679775, 0.97467943448)}
    found = power(**base, df="containment", distribution="shifted-t-both-tails")
    assert found.power == want("steppedpower_df_containment") and found.df == 32
    assert power(**base, df="residual").df == 34 and power(**base).df == 6


def test_subject_level_df_is_named_for_what_it_is():
    case = CASES["killip_40"]
    used.add("killip_40")
    base = {"clusters": 4, "cluster_size": 40, "icc": 0.017, "effect": 0.5}
    right, wrong = power(**base), power(**base, df="subjects")
    assert right.power == pytest.approx(0.2914, abs=5e-5)
    assert right.design_effect == pytest.approx(case["expected"]["DE"], abs=1e-9)
    assert math.floor(right.effective_sample_size) == case["expected"]["ESS_floor"]
    # the published table: the effective sample size as if it were independent people
    as_published = power(clusters=96, cluster_size=1, icc=0, effect=0.5).power
    assert 100 * as_published == pytest.approx(case["expected"]["power_pct_subject_df"], abs=1.0)
    assert wrong.power > 2 * right.power and any("clusters were randomised" in w for w in wrong.warnings)


def test_feasibility():
    assert attainable_power(clusters=8, icc=0.1, effect=0.5) == want("feas_J8", "max_power")
    assert least_clusters(effect=0.5, icc=0.1, power=0.8) == want("feas_min_d0.5_icc0.1", "J_min_F")
    # the z rule: ICC times the people an individually randomised trial needs in each arm
    alone = sample_size(effect=0.5, cluster_size=1, icc=0, power=0.8, distribution="z").exact / 2
    assert 0.1 * alone == want("feas_min_d0.5_icc0.1", "k_per_arm_z")


def test_assurance_and_attrition():
    found = assurance(clusters=68, cluster_size=2, effect=0.5, icc_prior=beta_prior(2, 38))
    assert found.power == want("assurance_seed", "expected_power")
    assert power(**SEED, cluster_attrition=8 / 68).power == want("attrition_cluster")
    assert power(**SEED, attrition=0.15).power == pytest.approx(0.7401, abs=5e-5)


def test_no_case_is_forgotten():
    elsewhere = {
        "icc_InsectSprays",  # tests/power/test_icc.py
        "seed_lmer_1000",  # power under the planned analysis: the simulation room's tests
    }
    assert set(CASES) - used - elsewhere == set()
