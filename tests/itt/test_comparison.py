"""compare_methods puts the same numbers side by side that each method gives by itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import trialkit as tk
from trialkit.itt.cluster_level import paired, site_values, two_stage
from trialkit.itt.comparison import compare_methods
from trialkit.itt.randomisation import AssignmentList


@pytest.fixture(scope="module")
def plan(people):
    """Every site's pair flips by itself: the plan of the fixture's 12 pairs, listed."""
    sites = sorted(people["site"].unique())
    flips = (np.arange(2**12)[:, None] >> np.arange(12)) & 1
    codes = np.empty((2**12, 24), dtype=int)
    codes[:, ::2], codes[:, 1::2] = flips, 1 - flips
    return AssignmentList(tuple(sites), codes)


@pytest.fixture(scope="module")
def compared(people, design, plan):
    return compare_methods(people, design, plan=plan)


def test_one_row_a_method(compared, people, design):
    first = compared.frame[compared.frame["outcome"] == "climate"].set_index("analysis")
    assert list(first.index) == [
        "mixed model", "site means, unadjusted", "site means, unadjusted, by people", "site means, adjusted",
        "site means, adjusted, by people", "pair differences, unadjusted", "pair differences, adjusted", "randomisation test, adjusted",
    ]  # fmt: skip
    model = tk.itt(people, design).frame.iloc[0]
    assert first.loc["mixed model", "p_value"] == model["p_value"]


def test_each_is_the_method_by_itself(compared, people):
    peers = people[people["role"] == "peer"]
    y = peers["climate"] / peers["climate"].std()
    arm = (peers["arm"] == "intervention").astype(float)
    covariates = pd.get_dummies(peers[["climate_0", "gender", "age_band", "consumer"]], drop_first=True).to_numpy(dtype=float)
    table = compared.frame[compared.frame["outcome"] == "climate"].set_index("analysis")
    adjusted = site_values(y, peers["site"], arm, covariates=covariates)
    pair = peers.drop_duplicates("site").set_index("site").loc[list(adjusted.sites), "pair"].tolist()
    for name, alone in {
        "site means, unadjusted": two_stage(site_values(y, peers["site"], arm)),
        "site means, unadjusted, by people": two_stage(site_values(y, peers["site"], arm), weights="size"),
        "pair differences, unadjusted": paired(site_values(y, peers["site"], arm), pair),
        "site means, adjusted": two_stage(adjusted),
        "site means, adjusted, by people": two_stage(adjusted, weights="size"),
        "pair differences, adjusted": paired(adjusted, pair),
    }.items():
        assert table.loc[name, ["estimate", "std_error", "df", "p_value"]].tolist() == pytest.approx(
            [alone.estimate, alone.std_error, alone.df, alone.p_value], rel=1e-9
        )
    # inside pairs with equal weights the randomisation test is the exact sign flip
    assert table.loc["randomisation test, adjusted", "p_value"] == pytest.approx(paired(adjusted, pair).exact_p)


def test_imputed_copies_of_one_table_give_its_estimates(people, design, plan, compared):
    many = compare_methods(iter([people, people, people]), design, plan=plan).frame
    np.testing.assert_allclose(many["estimate"], compared.frame["estimate"], rtol=1e-9)
    np.testing.assert_allclose(many["std_error"], compared.frame["std_error"], rtol=1e-9)


def test_what_fails_keeps_its_rows_and_says_why(people, design):
    result = compare_methods(people.assign(burnout=1.0), design)
    rows = result.frame[result.frame["outcome"] == "burnout"]
    assert len(rows) == 7
    assert rows["p_value"].isna().all()
    assert ("burnout", "mixed model") in result.problems
    assert any("burnout, site means, adjusted: the outcome has one value" in note for note in result.notes)
