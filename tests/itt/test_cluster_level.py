"""One number a site: against R's t tests and estimatr, and against exhaustive enumeration."""

from __future__ import annotations

import json
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from trialkit.door import InputError
from trialkit.itt.cluster_level import paired, site_values, two_stage
from trialkit.itt.randomisation import AssignmentList, max_t, randomisation_test

MODELS = Path(__file__).parents[1] / "reference" / "models"
CLOSE = {"rel": 1e-8}


def case(name: str) -> tuple[dict, pd.DataFrame]:
    stored = json.loads((MODELS / f"{name}.json").read_text())
    return stored, pd.read_csv(MODELS / "data" / stored["data"])


def all_balanced(sites) -> AssignmentList:
    n = len(sites)
    return AssignmentList(tuple(sites), np.array([[int(k in chosen) for k in range(n)] for chosen in combinations(range(n), n // 2)]))


@pytest.mark.reference
def test_pairs_against_r():
    stored, frame = case("C02_matched_pair")
    values = site_values(frame["y"], frame["site"], frame["arm"])
    pair = frame.drop_duplicates("site").set_index("site").loc[list(values.sites), "pair"]
    equal = paired(values, pair.tolist())
    assert [equal.estimate, equal.statistic, equal.df, equal.p_value] == pytest.approx(
        [stored["pair_t"][k] for k in ("diff", "t", "df", "p")], **CLOSE
    )
    assert [equal.conf_low, equal.conf_high] == pytest.approx(stored["pair_t"]["ci"], **CLOSE)
    assert equal.exact_p == stored["exact_signflip_p_two_sided"]
    size = paired(values, pair.tolist(), weights="size")
    assert [size.estimate, size.std_error, size.df, size.p_value] == pytest.approx(
        [stored["estimatr"][k] for k in ("estimate", "se", "df", "p")], **CLOSE
    )


@pytest.mark.reference
def test_randomisation_test_against_r():
    stored, frame = case("C03_permutation_8clusters")
    values = site_values(frame["y"], frame["site"], frame["arm"])
    plain = randomisation_test(values, all_balanced(values.sites))
    assert plain.exact
    assert plain.assignments == stored["n_alloc"]
    assert [plain.estimate, plain.p_value, plain.p_greater] == pytest.approx(
        [stored[k] for k in ("diff", "p_two_sided_abs", "p_one_sided_greater")], **CLOSE
    )
    covariates = pd.get_dummies(frame[["y0", "gender", "age", "edu", "consumer"]])
    adjusted = randomisation_test(site_values(frame["y"], frame["site"], frame["arm"], covariates=covariates), all_balanced(values.sites))
    assert [adjusted.estimate, adjusted.p_value] == pytest.approx(
        [stored["adjusted_resid"][k] for k in ("diff", "p_two_sided_abs")], **CLOSE
    )


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(5)
    sizes = rng.integers(3, 12, size=10)
    site = np.repeat(np.arange(10), sizes)
    frame = pd.DataFrame({"site": [f"S{s}" for s in site], "arm": (site % 2).astype(float), "x": rng.normal(size=len(site))})
    frame["y"] = 0.4 * frame["arm"] + frame["x"] + 0.5 * rng.normal(size=10)[site] + rng.normal(size=len(site))
    return frame


def test_unadjusted_is_the_t_test_of_site_means(rows):
    ours = two_stage(site_values(rows["y"], rows["site"], rows["arm"]))
    means = rows.groupby("site").agg(y=("y", "mean"), arm=("arm", "first"))
    theirs = stats.ttest_ind(means.loc[means["arm"] == 1, "y"], means.loc[means["arm"] == 0, "y"])
    assert [ours.statistic, ours.p_value, ours.df] == pytest.approx([theirs.statistic, theirs.pvalue, theirs.df], rel=1e-12)
    interval = theirs.confidence_interval()
    assert [ours.conf_low, ours.conf_high] == pytest.approx([interval.low, interval.high], rel=1e-12)


def test_weighted_by_people_is_weighted_least_squares(rows):
    import statsmodels.api as sm

    values = site_values(rows["y"], rows["site"], rows["arm"])
    ours = two_stage(values, weights="size")
    theirs = sm.WLS(values.value, sm.add_constant(values.arm), weights=values.n).fit()
    assert [ours.estimate, ours.std_error, ours.p_value] == pytest.approx([theirs.params[1], theirs.bse[1], theirs.pvalues[1]], rel=1e-10)
    # the participant-average difference: the plain means of people
    people = rows.groupby("arm")["y"].mean()
    assert ours.estimate == pytest.approx(people[1] - people[0], rel=1e-12)


def test_adjusted_takes_the_covariates_out_first_and_pays_for_site_level_ones(rows):
    z = rows["site"].str[1:].astype(float) ** 2
    covariates = np.column_stack([rows["x"], z])
    values = site_values(rows["y"], rows["site"], rows["arm"], covariates=covariates)
    X = np.column_stack([np.ones(len(rows)), covariates])
    residual = rows["y"] - X @ np.linalg.lstsq(X, rows["y"], rcond=None)[0]
    np.testing.assert_allclose(values.value, residual.groupby(rows["site"]).mean(), atol=1e-12)
    assert values.lost_df == 1
    assert two_stage(values).df == 10 - 2 - 1


def test_exact_pair_test_is_enumeration():
    rng = np.random.default_rng(8)
    y, pair = rng.normal(size=14), [f"P{k}" for k in range(7) for _ in range(2)]
    values = site_values(y, [f"S{k:02}" for k in range(14)], [0, 1] * 7)
    ours = paired(values, pair)
    difference = y[1::2] - y[::2]
    flips = np.array(list(product([-1, 1], repeat=7))) @ difference / 7
    assert ours.exact_p == pytest.approx(np.mean(np.abs(flips) >= abs(ours.estimate) - 1e-12))
    # inside the interval the shift is kept, outside it is not
    for tau, kept in (
        (ours.exact_low + 1e-6, True),
        (ours.exact_low - 1e-6, False),
        (ours.exact_high - 1e-6, True),
        (ours.exact_high + 1e-6, False),
    ):
        shifted = np.array(list(product([-1, 1], repeat=7))) @ (difference - tau) / 7
        observed = np.mean(difference - tau)
        one_sided = min(np.mean(shifted >= observed - 1e-12), np.mean(shifted <= observed + 1e-12))
        assert (one_sided > 0.025) == kept


def test_the_interval_holds_what_the_test_keeps(rows):
    values = site_values(rows["y"], rows["site"], rows["arm"], covariates=rows["x"])
    plan = all_balanced(values.sites)
    result = randomisation_test(values, plan)
    for tau, kept in (
        (result.conf_low + 1e-6, True),
        (result.conf_low - 1e-6, False),
        (result.conf_high - 1e-6, True),
        (result.conf_high + 1e-6, False),
    ):
        shifted = site_values(rows["y"] - tau * rows["arm"], rows["site"], rows["arm"], covariates=rows["x"])
        again = randomisation_test(shifted, plan)
        assert (min(again.p_greater, again.p_less) > 0.025) == kept


def test_sampling_approaches_the_exact_p_and_repeats(rows):
    values = site_values(rows["y"], rows["site"], rows["arm"])
    plan = all_balanced(values.sites)
    exact = randomisation_test(values, plan)
    one, two = (randomisation_test(values, plan, limit=10, draws=4000, seed=3) for _ in range(2))
    assert one.p_value == two.p_value
    assert not one.exact
    assert abs(one.p_value - exact.p_value) < 5 * one.monte_carlo_error + 1 / 4000


def test_a_plan_of_the_allocation_room_serves():
    import trialkit as tk

    sites = pd.DataFrame({"site": [f"S{k:02}" for k in range(12)], "budget": np.arange(12) * 10})
    plan = tk.within_pairs(tk.match_pairs(sites, id="site", criteria=[tk.nearest("budget")]))
    arm = (
        plan.draw(seed="123456789012345678901234567890", seed_source="the test").frame.set_index("site")["arm"] == "intervention"
    ).astype(float)
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"site": np.repeat(arm.index, 5), "arm": np.repeat(arm.to_numpy(), 5), "y": rng.normal(size=60)})
    values = site_values(frame["y"], frame["site"], frame["arm"])
    result = randomisation_test(values, plan)
    assert result.assignments == 2**6
    # inside pairs the same test is the sign flip
    pair = plan.draw(seed="123456789012345678901234567890", seed_source="the test").frame.set_index("site").loc[list(values.sites), "pair"]
    assert result.p_value == pytest.approx(paired(values, pair.tolist()).exact_p)
    lost = frame[frame["site"] != values.sites[0]]
    noted = randomisation_test(site_values(lost["y"], lost["site"], lost["arm"]), plan)
    assert values.sites[0] in noted.notes[0]


@pytest.fixture(scope="module")
def family():
    rng = np.random.default_rng(12)
    common = rng.normal(size=8)
    sites, arm = [f"S{k}" for k in range(8)], np.array([0, 1] * 4)
    make = {name: common + 0.6 * rng.normal(size=8) + shift * arm for name, shift in (("a", 1.5), ("b", 0.3), ("c", 0.0))}
    return {name: site_values(y, sites, arm) for name, y in make.items()}


def test_max_t_by_hand(family):
    plan = all_balanced([f"S{k}" for k in range(8)])
    frame = max_t(family, plan).frame.set_index("outcome")
    stat = {
        name: np.array([abs(stats.ttest_ind(v.value[z == 1], v.value[z == 0]).statistic) for z in plan.codes]) for name, v in family.items()
    }
    seen = {name: abs(stats.ttest_ind(v.value[v.arm == 1], v.value[v.arm == 0]).statistic) for name, v in family.items()}
    order = sorted(seen, key=seen.get, reverse=True)
    last = 0.0
    for k, name in enumerate(order):
        largest = np.max([stat[n] for n in order[k:]], axis=0)
        last = max(last, float(np.mean(largest >= seen[name] - 1e-9)))
        assert frame.loc[name, "p_adjusted"] == pytest.approx(last)
        assert frame.loc[name, "p_value"] == pytest.approx(np.mean(stat[name] >= seen[name] - 1e-9))
        assert abs(frame.loc[name, "statistic"]) == pytest.approx(seen[name])


def test_max_t_never_costs_more_than_holm_of_the_same_p(family):
    from trialkit.itt.multiplicity import adjust

    frame = max_t(family, all_balanced([f"S{k}" for k in range(8)])).frame
    assert (frame["p_adjusted"] <= adjust(frame["p_value"], "holm") + 1e-12).all()
    assert (frame["p_adjusted"] >= frame["p_value"]).all()


def test_max_t_of_one_outcome_is_the_randomisation_test(family):
    plan = all_balanced([f"S{k}" for k in range(8)])
    one = {"a": family["a"]}
    # with equal arms |t| and |difference| order the assignments alike
    assert max_t(one, plan).frame["p_adjusted"][0] == pytest.approx(randomisation_test(family["a"], plan).p_value)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda v: two_stage(site_values([1, 2, 3], ["a", "b", "c"], [0, 1, 1])), "1 and 2 sites"),
        (lambda v: site_values([1, 2], ["a", "a"], [0, 1]), "'a' has people in both arms"),
        (lambda v: site_values([1, np.nan], ["a", "b"], [0, 1]), "every row"),
        (lambda v: two_stage(v, weights="sizes"), "Did you mean 'size'"),
        (lambda v: two_stage(site_values([1, 1, 2, 2], list("abcd"), [0, 0, 1, 1])), "same value"),
        (lambda v: paired(v, ["p"] * 10), "not one site an arm"),
        (lambda v: paired(v, [str(k) for k in range(10)]), "0 whole pairs"),
        (lambda v: randomisation_test(v, all_balanced(list("abcdefghij"))), "not in the plan"),
        (lambda v: randomisation_test(v, AssignmentList(v.sites, all_balanced(v.sites).codes[:5])), "not an assignment the plan could"),
        (lambda v: randomisation_test(v, all_balanced(v.sites), limit=10), "give seed="),
    ],
)
def test_refused(rows, call, says):
    values = site_values(rows["y"], rows["site"], rows["arm"])
    with pytest.raises(InputError, match=says):
        call(values)
