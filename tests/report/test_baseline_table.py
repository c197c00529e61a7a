"""The baseline table: counts, means and standardised differences against figures worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.report import baseline_table
from trialkit.report.baseline import smd_of_means, smd_of_shares


def test_smd_of_means_by_hand() -> None:
    # variances 1 and 4: root of their mean is sqrt(2.5)
    assert smd_of_means(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 4.0])) == 0.0
    assert smd_of_means(np.array([2.0, 3.0, 4.0]), np.array([0.0, 2.0, 4.0])) == pytest.approx(1 / np.sqrt(2.5), rel=1e-14)
    assert np.isnan(smd_of_means(np.array([2.0]), np.array([1.0, 2.0])))
    assert smd_of_means(np.ones(3), np.ones(4)) == 0.0


def test_smd_of_shares_is_the_binary_formula_for_two_categories() -> None:
    p, q = 0.7, 0.55
    binary = abs(p - q) / np.sqrt((p * (1 - p) + q * (1 - q)) / 2)
    assert smd_of_shares(np.array([1 - p, p]), np.array([1 - q, q])) == pytest.approx(binary, rel=1e-12)


def test_smd_of_shares_does_not_depend_on_the_category_left_out() -> None:
    a, b = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.25, 0.35])
    turned = smd_of_shares(a[[2, 0, 1]], b[[2, 0, 1]])
    assert smd_of_shares(a, b) == pytest.approx(turned, rel=1e-10)


def test_people_are_described_as_counted_by_hand(people: pd.DataFrame, design: TrialDesign) -> None:
    table = baseline_table(people, design)
    asked = people[(people["baseline_done"] == 1) & (people["role"] == "peer")]
    row = table.frame.query("panel == 'People: peer' and variable == 'recovery_0'").iloc[0]
    here = asked.loc[asked["arm"] == "intervention", "recovery_0"].dropna()
    assert row["n_intervention"] == len(here)
    assert row["centre_intervention"] == pytest.approx(here.mean())
    assert row["spread_intervention"] == pytest.approx(here.std(ddof=1))
    assert row["missing"] == asked["recovery_0"].isna().sum()
    women = table.frame.query("panel == 'People: peer' and variable == 'gender' and category == 'woman'").iloc[0]
    assert women["centre_reference"] == ((asked["arm"] == "control") & (asked["gender"] == "woman")).sum()


def test_sites_are_described_too(people: pd.DataFrame, sites: pd.DataFrame, design: TrialDesign) -> None:
    frame = baseline_table(people, design, sites=sites).frame.query("panel == 'Sites'").set_index("variable")
    arm = people[people["arm"].notna()].drop_duplicates("site").set_index("site")["arm"]
    budget = sites.set_index("site").loc[arm.index[arm == "control"], "annual_budget"]
    assert frame.loc["annual_budget", "centre_reference"] == budget.median()
    assert "status" not in frame.index
    assert frame.loc["directly_operated", "category"] == "yes"
    # the site means of a primary outcome, one number a site
    asked = people[(people["baseline_done"] == 1) & (people["role"] == "peer") & (people["arm"] == "control")]
    assert frame.loc["mean_climate_0", "centre_reference"] == pytest.approx(asked.groupby("site")["climate_0"].mean().mean())


def test_no_p_value_is_printed(people: pd.DataFrame, sites: pd.DataFrame, design: TrialDesign, snapshot: Any) -> None:
    table = baseline_table(people, design, sites=sites)
    assert not any("p_value" in c for c in table.frame.columns)
    snapshot("baseline.txt", table.to_text())


def test_missing_table_counts_the_analysed(people: pd.DataFrame, design: TrialDesign, snapshot: Any) -> None:
    from trialkit.report import missing_table

    table = missing_table(people, design)
    analysed = people[(people["follow_up_done"] == 1) & (people["role"] == "peer") & (people["arm"] == "control")]
    row = table.frame.query("rater == 'peer' and variable == 'burnout' and arm == 'control'").iloc[0]
    assert (row["people"], row["missing"]) == (len(analysed), analysed["burnout"].isna().sum())
    pattern = table.patterns["peer"]
    inside = people[people["arm"].notna() & (people["role"] == "peer")]
    assert (pattern["climate"] == 2).sum() == (inside["climate"].isna() & (inside["follow_up_done"] == 0)).sum()
    assert (pattern["climate"] == 1).sum() == (inside["climate"].isna() & (inside["follow_up_done"] == 1)).sum()
    snapshot("missing.txt", table.to_text())
