"""Marginal models among the analyses, and analyses compared on the same trials."""

from __future__ import annotations

import numpy as np
import pytest

from trialkit.door import InputError
from trialkit.itt import fit_marginal
from trialkit.simulation import Scenario, check, shipped_scenario, simulate
from trialkit.simulation.analyses import FIELDS
from trialkit.simulation.paired import paired_differences

SMALL = Scenario.from_text("""
[sites]
groups = [{name = "clinic", recruited = 20}]
[[people]]
role = "patient"
per_site = 8
cv = 0.4
minimum = 2
[[outcomes]]
name = "mood"
d = 0.4
icc = 0.1
missing = 0.1
""")


def test_gee_has_the_numbers_of_fit_marginal() -> None:
    checked = check(SMALL, trials=3, seed=8, analyses=["GEE", "complete cases"])
    for t, seed in enumerate(checked.trial_seeds):
        people = simulate(SMALL, seed=seed).people.dropna(subset=["mood", "mood_0"])
        people = people.assign(z=people["mood"] / people["mood"].std(ddof=1), treated=(people["arm"] == "intervention").astype(float))
        row = (
            fit_marginal("z ~ treated + mood_0", people, cluster="site", family="gaussian", correction="KC")
            .frame.set_index("term")
            .loc["treated"]
        )
        expected = row[["estimate", "std_error", "df", "conf_low", "conf_high", "p_value"]].to_numpy(float)
        np.testing.assert_allclose(checked.values[t, 0, 0, :6], expected, rtol=1e-8)


def test_gee_stands_a_category_seen_in_one_site_only() -> None:
    """One site then decides a coefficient: its leverage is 1, and its residual must not become 0 / 0."""
    scenario = shipped_scenario("null")
    checked = check(scenario, trials=4, seed=3, analyses=["complete cases", "GEE"])
    alone = [
        people.loc[people["gender"] == "another gender", "site"].nunique() == 1
        for people in (simulate(scenario, seed=s).people.query("role == 'supervisor'").dropna(subset="stigma") for s in checked.trial_seeds)
    ]
    assert any(alone)
    assert np.isfinite(checked.values[:, 1]).all() and checked.failures == ()
    # the mixed model beside it is untouched
    assert check(scenario, trials=4, seed=3).values[:, 0].tobytes() == checked.values[:, 0].tobytes()


def test_paired_differences_by_hand() -> None:
    rng = np.random.default_rng(4)
    T = 50
    values = np.full((T, 2, 1, len(FIELDS)), np.nan)
    estimate = rng.normal(size=T)
    for a, e in enumerate((estimate, 0.5 * estimate + 0.1)):
        values[:, a, 0, 0] = e
        values[:, a, 0, FIELDS.index("conf_low")], values[:, a, 0, FIELDS.index("conf_high")] = e - 1.0, e + 1.0
        values[:, a, 0, FIELDS.index("p_value")] = rng.random(T) * 0.1
    values[7, 1] = np.nan  # the second analysis failed once: it covers and rejects nothing
    table = paired_differences(values, np.zeros((T, 2, 1)), ["a", "b"], ["y"], 0)
    (row,) = table.frame.to_dict("records")
    keep = np.arange(T) != 7
    d = (0.1 - 0.5 * estimate)[keep]
    assert row["trials"] == T - 1
    assert row["difference"] == pytest.approx(d.mean()) and row["difference_mcse"] == pytest.approx(d.std(ddof=1) / np.sqrt(T - 1))
    covers = np.abs(values[:, :, 0, 0]) <= 1.0
    c = covers[:, 1].astype(float) - covers[:, 0]
    assert c[7] <= 0 and row["coverage"] == pytest.approx(c.mean()) and row["coverage_mcse"] == pytest.approx(c.std(ddof=1) / np.sqrt(T))
    # half the spread is four times the precision, and perfectly correlated: known without error
    assert row["precision"] == pytest.approx(300.0) and row["precision_mcse"] == pytest.approx(0.0, abs=1e-4)


def test_pairing_sharpens_a_comparison() -> None:
    checked = check(SMALL, trials=60, seed=2, analyses=["complete cases", "site means", "GEE"])
    table = checked.paired().frame
    assert table[["analysis", "against"]].to_numpy().tolist() == [["site means", "complete cases"], ["GEE", "complete cases"]]
    alone = checked.frame["bias_mcse"].to_numpy()
    assert (table["difference_mcse"].to_numpy() < 0.5 * np.hypot(alone[0], alone[1:])).all()
    swapped = checked.paired(against="GEE").frame.set_index("analysis")
    assert swapped.loc["complete cases", "difference"] == pytest.approx(-table["difference"].iloc[1])
    with pytest.raises(InputError, match="Did you mean 'GEE'"):
        checked.paired(against="GE")
    with pytest.raises(InputError, match="two or more"):
        check(SMALL, trials=2, seed=2).paired()
