"""Pairs random, fixed, broken, dropped and flipped: each is the method by itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from trialkit.door import InputError
from trialkit.itt.cluster_level import paired, site_values
from trialkit.itt.mixed import fit_mixed
from trialkit.itt.pair_effects import PairFlips, pair_effects
from trialkit.itt.randomisation import randomisation_test

COVARIATES = "climate_0 + gender + age_band + consumer"


@pytest.fixture(scope="module")
def lost(people):
    """Two sites of different pairs are lost, and the budget stands in the table."""
    budget = people["site"].map(lambda s: 100.0 + 7.0 * (int(s[1:]) // 2))
    return people.assign(budget=budget)[~people["site"].isin(["S03", "S10"])]


@pytest.fixture(scope="module")
def table(lost, design):
    return pair_effects(lost, design, matching=["budget"], outcomes=["climate"]).frame.set_index("analysis")


def test_rows_and_counts(table):
    assert len(table) == 6
    assert set(table["whole_pairs"]) == {10}
    assert set(table["broken_pairs"]) == {2}
    assert table["clusters"].tolist() == [22, 22, 22, 22, 20, 22]


def test_models_are_those_of_fit_mixed(table, lost):
    peers = lost[lost["role"] == "peer"]
    sd = peers["climate"].std()
    for analysis, formula, groups in (
        ("mixed model, pairs random", f"climate ~ arm + {COVARIATES}", ["pair", "site"]),
        ("mixed model, pairs fixed", f"climate ~ arm + {COVARIATES} + pair", ["site"]),
        ("mixed model, pairs broken", f"climate ~ arm + {COVARIATES}", ["site"]),
        ("mixed model, pairs broken, matching variables", f"climate ~ arm + {COVARIATES} + budget", ["site"]),
    ):
        row = fit_mixed(formula, peers, groups=groups).row("armintervention")
        assert table.loc[analysis, ["estimate", "std_error", "df", "p_value"]].tolist() == pytest.approx(
            [row["estimate"] / sd, row["std_error"] / sd, row["df"], row["p_value"]], rel=1e-6
        )


def test_dropping_and_flipping_are_the_site_level_methods(table, lost):
    peers = lost[lost["role"] == "peer"]
    x = pd.get_dummies(peers[["climate_0", "gender", "age_band", "consumer"]], drop_first=True).to_numpy(dtype=float)
    values = site_values(peers["climate"] / peers["climate"].std(), peers["site"], (peers["arm"] == "intervention"), covariates=x)
    pair = peers.drop_duplicates("site").set_index("site").loc[list(values.sites), "pair"]
    alone = paired(values, pair.tolist())
    assert table.loc["pair differences, broken pairs dropped", ["estimate", "df", "p_value"]].tolist() == pytest.approx(
        [alone.estimate, alone.df, alone.p_value]
    )
    scheme = PairFlips(values.sites, pair.factorize()[0], values.arm)
    test = randomisation_test(values, scheme)
    assert (test.assignments, test.exact) == (2**12, True)
    row = table.loc["randomisation test, original pairs"]
    assert (row["estimate"], row["p_value"], row["conf_low"]) == pytest.approx((test.estimate, test.p_value, test.conf_low))


def test_flips_split_every_pair_and_are_all_there():
    scheme = PairFlips(tuple("abcde"), np.array([0, 0, 1, 1, 2]), np.array([1, 0, 0, 1, 1]))
    codes = scheme.assignments()
    assert len(codes) == scheme.n_assignments == 8
    assert len(np.unique(codes, axis=0)) == 8
    assert (codes[:, 0] + codes[:, 1] == 1).all()
    assert (codes[:, 2] + codes[:, 3] == 1).all()
    assert codes[:, 4].mean() == 0.5
    drawn = scheme.sample(400, seed=3)
    assert (drawn[:, 0] + drawn[:, 1] == 1).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=0.12)
    with pytest.raises(InputError, match="more than the limit"):
        scheme.assignments(limit=4)


def test_whole_pairs_flip_to_the_exact_test(people, design):
    found = pair_effects(people, design, outcomes=["burnout"])
    assert any("No pair is broken" in note for note in found.notes)
    peers = people[people["role"] == "peer"]
    x = pd.get_dummies(peers[["burnout_0", "gender", "age_band", "consumer"]], drop_first=True).to_numpy(dtype=float)
    values = site_values(peers["burnout"], peers["site"], (peers["arm"] == "intervention"), covariates=x)
    pair = peers.drop_duplicates("site").set_index("site").loc[list(values.sites), "pair"]
    assert found.frame["p_value"].iloc[-1] == pytest.approx(paired(values, pair.tolist()).exact_p)


def test_imputed_copies_give_the_table_s_numbers(lost, design, table):
    many = pair_effects(iter([lost, lost]), design, matching=["budget"], outcomes=["climate"]).frame.set_index("analysis")
    np.testing.assert_allclose(many["estimate"], table["estimate"], rtol=1e-9)


def test_refusals(people, design, redesign):
    with pytest.raises(InputError, match="no pair column"):
        pair_effects(people, redesign(design, columns={"pair": None}))
    with pytest.raises(InputError, match="colour"):
        pair_effects(people, design, matching=["colour"])
    with pytest.raises(InputError, match="outcome"):
        pair_effects(people, design, outcomes=["nothing"])
    constant = pair_effects(people.assign(burnout=1.0), design, outcomes=["burnout"])
    assert constant.frame["p_value"].isna().all()
    assert len(constant.problems) == 5
