"""Power under the planned analysis: against exact values, the closed form, and the reference of 200,000 trials."""

from __future__ import annotations

import numpy as np
import pytest

from trialkit._kernels import reml, small_sample
from trialkit.door import InputError
from trialkit.power import crossover, power, stepped_wedge
from trialkit.simulation import marginal, planned_layout, planned_pairs, planned_parallel
from trialkit.simulation.planned import planned_power
from trialkit.simulation.planned_parallel import ANALYSES
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
    for name, known in (("kenward-roger", 0.7941), ("satterthwaite", 0.7957), ("z", 0.8045), ("cluster means", 0.8006)):
        assert inside(rows.loc[name, "power"], known), name
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
    means, ssw = planned_parallel.draw(sizes, 0.1, 4, 1, 0)
    arm = np.arange(6) % 2
    design = np.column_stack([np.ones(6), arm]).astype(float)
    fits = planned_parallel.fit_cluster_summaries(means, sizes, ssw, design, contrasts=np.array([[0.0, 1.0]]))
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
        ({"analyses": "z"}, "one word"),
        ({"analyses": []}, "names none"),
        ({"analyses": ["paired t"]}, "no meaning in a parallel design"),
        ({"pair_effects": "fixed"}, "matched pairs"),
        ({"level": "people"}, "layout"),
        ({"cluster_size_cv": 0.4}, "cluster_size_cv: not part"),
        ({"strata": 2}, "stratified design"),
        ({"effect": None}, "effect is missing"),
        ({"pairs": 4, "clusters": None, "pair_effects": "mixed"}, "random"),
        ({"pairs": 2, "clusters": None}, "at least 3"),
        ({"layout": stepped_wedge(4), "level": "people", "iac": 0.3}, "seen again"),
        ({"layout": stepped_wedge(4), "analyses": ["gee"], "clusters": 4}, "degrees of freedom"),
        ({"layout": stepped_wedge(4), "analyses": ["cluster means"]}, "no meaning in a longitudinal design"),
        ({"cluster_sise": 3}, "cluster_size"),
        ({"seed": -3}, "seed"),
    ],
)
def test_wrong_input_is_refused(changes: dict[str, object], said: str) -> None:
    good: dict[str, object] = {"clusters": 8, "cluster_size": 4, "icc": 0.05, "effect": 0.3, "trials": 50, "seed": 1}
    with pytest.raises(InputError, match=said):
        planned_power(**{**good, **changes})  # type: ignore[arg-type]


# --- matched pairs ----------------------------------------------------------------------------------------------


def as_people(means: np.ndarray, ssw: float, m: int, seed: int) -> np.ndarray:
    """People with these site means and this sum of squares about them."""
    spread = np.random.default_rng(seed).normal(size=(len(means), m))
    spread -= spread.mean(axis=1, keepdims=True)
    return (means[:, None] + spread * np.sqrt(ssw / (spread**2).sum())).ravel()


@pytest.mark.parametrize(("m", "icc", "shared"), [(4, 0.15, 0.1), (3, 0.0, 0.0), (3, 0.3, -0.1)])
def test_pairs_in_closed_form_are_the_fitted_mixed_models(m: int, icc: float, shared: float) -> None:
    """Every case of the pooling of mean squares, against the search over people (random pairs) and over sites (fixed pairs)."""
    K = 6
    means, ssw = planned_pairs.draw(K, m, icc, shared, 12, 3, 0)
    site = np.repeat(np.arange(2 * K), m)
    pair, arm = site // 2, (site % 2).astype(float)
    for effects in planned_pairs.PAIR_EFFECTS:
        variance, df, own, zero = planned_pairs.mixed_model(means, ssw, float(m), effects)
        X = np.column_stack([np.ones(len(site)), arm])
        groups = [pair, site] if effects == "random" else [site]
        if effects == "fixed":
            X = np.column_stack([X, (pair[:, None] == np.arange(1, K)).astype(float)])
        L = np.eye(X.shape[1])[[1]]
        for t in range(12):
            fit = reml.fit(X, as_people(means[t].ravel(), float(ssw[t]), m, t), groups)
            kr, satt = small_sample.kenward_roger(fit, L), small_sample.satterthwaite(fit, L)
            assert satt.std_error[0] == pytest.approx(np.sqrt(variance[t]), rel=1e-6)
            assert kr.std_error[0] == pytest.approx(np.sqrt(variance[t]), rel=1e-6)
            assert satt.df[0] == pytest.approx(df[t], rel=1e-4), (effects, t)
            assert kr.df[0] == pytest.approx(own, rel=1e-6)
            assert bool(fit.boundary.any()) == bool(zero[t])


def test_pairs_under_each_analysis() -> None:
    design = {"pairs": 9, "cluster_size": 12, "icc": 0.1, "effect": 0.55, "matching_correlation": 0.5, "matching_scale": "effects"}
    found = planned_power(**design, trials=TRIALS, seed=4, analyses=planned_pairs.ANALYSES)
    rows = found.frame.set_index("analysis")
    assert found.formula == power(**design).power
    assert inside(rows.loc["paired t", "power"], found.formula)
    assert inside(rows.loc["paired t", "type_i"], 0.05)
    # 24 of the 512 swaps are at most 5%
    assert inside(rows.loc["permutation", "type_i"], 24 / 512)
    assert rows.loc["cluster means", "type_i"] < 0.035  # pairs that are alike, ignored
    assert rows.loc["gee, mancl-derouen", "type_i"] < rows.loc["gee", "type_i"] < rows.loc["gee, uncorrected", "type_i"]
    assert (found.settings["pairs"], found.settings["cluster_size"]) == (9, 12.0)  # what a power curve places its check points by
    assert "in 9 pairs" in str(found) and "pairs - 1" in str(found)
    fixed = planned_power(**design, trials=4000, seed=4, pair_effects="fixed").frame.set_index("analysis")
    assert abs(fixed.loc["kenward-roger", "power"] - fixed.loc["paired t", "power"]) < 0.02


def test_a_person_a_site_in_pairs() -> None:
    found = planned_power(pairs=20, cluster_size=1, icc=0.0, effect=0.7, matching_correlation=0.2, trials=2000, seed=1)
    rows = found.frame.set_index("analysis")
    assert abs(rows.loc["paired t", "power"] - found.formula) < 0.05


# --- marginal models ---------------------------------------------------------------------------------------------


def test_marginal_models_are_those_of_the_analysis_room() -> None:
    """Parallel with unequal sites, and cell means of a layout with a missing cell, trial by trial."""
    from trialkit.itt import gee

    sizes = np.array([2.0, 3.0, 3.0, 5.0, 8.0, 12.0, 4.0, 6.0])
    means, ssw = planned_parallel.draw(sizes, 0.2, 6, 1, 0)
    arm = np.arange(8) % 2
    estimate, errors = marginal.gee(means, ssw, sizes, arm)
    site = np.repeat(np.arange(8), sizes.astype(int))
    family = gee.FAMILIES["gaussian"]
    impossible = 0  # a correlation that the largest site cannot have: set to 0 in both
    rng = np.random.default_rng(0)
    for t in range(6):
        spread = rng.normal(size=len(site))
        spread -= (np.bincount(site, spread) / sizes)[site]
        y = means[t][site] + spread * np.sqrt(ssw[t] / (spread**2).sum())
        x = np.column_stack([np.ones(len(site)), arm[site]]).astype(float)
        solved = gee.solve(x, y, site, family, exchangeable=True)
        impossible += int(not np.isnan(solved.impossible))
        assert estimate[t] == pytest.approx(solved.beta[1], abs=1e-6)
        for name, cov in gee.corrected(x, y, solved, family).items():
            if name in errors:
                assert errors[name][t] == pytest.approx(np.sqrt(cov[1, 1]), rel=1e-5)

    assert impossible == 1
    layout = [[0, None, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1]]
    wedge = planned_layout.prepare(power(layout=layout, clusters=9, cluster_size=8, icc=0.1, cac=0.8, effect=0.3).design)
    cells, _ = planned_layout.draw(wedge, 5, 1, 0, sd=1.0, people=False)
    X = wedge.X[wedge.sequence]
    estimate, errors, df = marginal.gee_of_cells(X, wedge.cells, cells)
    cluster = np.broadcast_to(np.arange(9)[:, None], wedge.cells.shape)[wedge.cells]
    assert df == 4
    for t in range(5):
        x, y = X[wedge.cells], cells[t][wedge.cells]
        solved = gee.solve(x, y, cluster, family, exchangeable=True)
        assert estimate[t] == pytest.approx(solved.beta[-1], abs=1e-6)
        for name, cov in gee.corrected(x, y, solved, family).items():
            if name in errors:
                assert errors[name][t] == pytest.approx(np.sqrt(cov[-1, -1]), rel=1e-4)


# --- layouts ------------------------------------------------------------------------------------------------------


def test_people_of_a_layout_are_fitted_from_cells() -> None:
    wedge = planned_layout.prepare(power(layout=stepped_wedge(3), clusters=6, cluster_size=5, icc=0.1, effect=0.3).design)
    means, ssw = planned_layout.draw(wedge, 3, 1, 0, sd=1.0, people=True)
    cells, X = wedge.cells, wedge.X[wedge.sequence]
    rows = X[cells]
    cluster = np.broadcast_to(np.arange(6)[:, None], cells.shape)[cells]
    contrast = np.eye(rows.shape[1])[[-1]]
    many = planned_layout.fit_many(
        rows, means[:, cells].T.copy(), [cluster], contrasts=contrast, weights=np.full(len(rows), 5.0), beyond=ssw
    )
    for t in range(3):
        y = as_people(means[t][cells], float(ssw[t]), 5, t)
        fit = reml.fit(np.repeat(rows, 5, axis=0), y, [np.repeat(cluster, 5)])
        kr = small_sample.kenward_roger(fit, contrast)
        assert many.kenward_roger.estimate[t, 0] == pytest.approx(kr.estimate[0], rel=1e-8)
        assert many.kenward_roger.std_error[t, 0] == pytest.approx(kr.std_error[0], rel=1e-7)
        assert many.kenward_roger.df[t, 0] == pytest.approx(kr.df[0], rel=1e-6)
        assert many.satterthwaite.df[t, 0] == pytest.approx(small_sample.satterthwaite(fit, contrast).df[0], rel=1e-5)


def test_a_wedge_with_cluster_period_effects_and_a_cohort() -> None:
    """The size of every analysis at its level; the power between the formula's with df of clusters and that of a known covariance."""
    design = {"layout": stepped_wedge(4), "clusters": 12, "cluster_size": 10, "icc": 0.05, "cac": 0.8, "iac": 0.4, "effect": 0.35}
    found = planned_power(**design, trials=3000, seed=1, analyses=planned_layout.ANALYSES)
    rows = found.frame.set_index("analysis")
    for name in ("kenward-roger", "permutation"):
        assert rows.loc[name, "type_i_low"] - 0.01 < 0.05 < rows.loc[name, "type_i_high"] + 0.01
    known = power(**design, distribution="z-both-tails").power
    assert found.formula < rows.loc["kenward-roger", "power"] < known + 0.02
    assert rows.loc["gee, mancl-derouen", "type_i"] < rows.loc["gee", "type_i"] < rows.loc["gee, uncorrected", "type_i"]
    assert "cluster-periods" in str(found) and "600 people" in str(found)
    assert (
        planned_power(**design, trials=2500, seed=1).frame["power"].iloc[0]
        == planned_power(**design, trials=2500, seed=1).frame["power"].iloc[0]
    )


def test_a_crossover_with_a_known_answer() -> None:
    """Two periods, cell means: the estimate is the t test of within-cluster differences, df J - 2."""
    design = {"layout": crossover(), "clusters": 10, "cluster_size": 10, "icc": 0.1, "cac": 0.7, "effect": 0.45}
    found = planned_power(**design, trials=TRIALS, seed=2, analyses=["kenward-roger", "permutation"])
    rows = found.frame.set_index("analysis")
    assert inside(rows.loc["permutation", "type_i"], 12 / 252)
    assert abs(rows.loc["kenward-roger", "power"] - found.formula) < 0.03


def test_a_layout_with_missing_cells_and_uneven_sequences() -> None:
    found = planned_power(
        layout=[[0, None, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1]], clusters_per_sequence=(3, 4, 3), cluster_size=20, icc=0.05, cac=0.9,
        effect=0.5, trials=1000, seed=1,
    )  # fmt: skip
    assert found.frame["analysis"].tolist() == ["kenward-roger", "satterthwaite"]
    assert found.settings["clusters"] == 10 and found.settings["people"] == 20 * (9 + 16 + 12)
    with pytest.raises(InputError, match="missing cells"):
        planned_power(
            layout=[[0, None, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1]], clusters=9, cluster_size=20, icc=0.05, cac=0.9, effect=0.5,
            trials=100, seed=1, analyses=["permutation"],
        )  # fmt: skip


def test_units_do_not_reach_the_answer() -> None:
    base = {"layout": stepped_wedge(3), "clusters": 9, "cluster_size": 6, "icc": 0.05, "trials": 500, "seed": 3}
    one = planned_power(**base, effect=0.4).frame
    assert planned_power(**base, effect=4.0, sd=10.0).frame.equals(one)
    again = planned_power(power(**{k: v for k, v in base.items() if k not in ("trials", "seed")}, effect=0.4).design, trials=500, seed=3)
    assert again.frame.equals(one)
