"""A third level between person and site: `itt` is the two-factor mixed model, and says so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import DesignError, InputError
from trialkit.itt import fit_mixed, itt
from trialkit.itt.influence import leave_one_out

DESIGN = """
columns = {subcluster = "team"}
outcomes = [{name = "y", has_baseline = false}]
"""


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    rng = np.random.default_rng(12)
    site = np.repeat(np.arange(14), 12)
    team = np.tile(np.repeat(np.arange(3), 4), 14)
    inside = 3 * site + team
    y = 0.5 * rng.normal(size=14)[site] + 0.8 * rng.normal(size=42)[inside] + rng.normal(size=168)
    arm = np.where(site % 2, "intervention", "control")
    return pd.DataFrame({"person": range(168), "site": site, "team": [f"team {t}" for t in team], "arm": arm, "y": y})


def test_it_is_the_two_factor_model(people: pd.DataFrame) -> None:
    results = itt(people, TrialDesign.from_text(DESIGN))
    row, detail = results.frame.iloc[0], results.details.iloc[0]
    # the same label in two sites is two teams
    nested = people.assign(team=people["site"].astype(str) + people["team"])
    fit = fit_mixed("y ~ arm", nested, groups=["site", "team"])
    effect, sd = fit.frame.iloc[1], people["y"].std()
    np.testing.assert_allclose(
        row[["estimate", "std_error", "df", "p_value"]].to_numpy(float),
        [effect["estimate"] / sd, effect["std_error"] / sd, effect["df"], effect["p_value"]],
        rtol=1e-9,
    )
    site, team, residual = fit.variance_components["variance"]
    np.testing.assert_allclose(
        detail[["site_variance", "subcluster_variance", "residual_variance"]].to_numpy(float), [site, team, residual]
    )
    assert row["icc"] == pytest.approx(site / (site + team + residual))
    assert detail["formula"] == "y ~ arm + (1|site) + (1|site:team)"
    assert "random intercepts for site and team within it" in str(results)


def test_leaving_a_team_level_out_is_another_analysis(people: pd.DataFrame) -> None:
    two = itt(people, TrialDesign.from_text('outcomes = [{name = "y", has_baseline = false}]')).frame.iloc[0]
    three = itt(people, TrialDesign.from_text(DESIGN)).frame.iloc[0]
    assert two["icc"] != pytest.approx(three["icc"], rel=1e-3)
    assert len(leave_one_out(people, TrialDesign.from_text(DESIGN)).each) == 14


def test_imputed_tables_and_what_is_refused(people: pd.DataFrame) -> None:
    design = TrialDesign.from_text(DESIGN)
    assert "none for team" not in str(itt([people, people], design))
    with pytest.raises(InputError, match="the subcluster \\('team'\\) is missing"):
        itt(people.assign(team=people["team"].mask(people["person"] == 5)), design)
    with pytest.raises(InputError, match="no column 'team'"):
        itt(people.drop(columns="team"), design)
    with pytest.raises(InputError, match="differs from the first in column 'team'"):
        itt([people, people.assign(team="a")], design)
    with pytest.raises(DesignError, match="pair, site and subcluster together are not fitted"):
        TrialDesign.from_text(DESIGN.replace("columns = {", 'columns = {pair = "pair", ') + 'analysis = {pair_effects = "random"}')


def test_everybody_a_team_of_their_own_is_refused(people: pd.DataFrame) -> None:
    results = itt(people.assign(team=people["person"]), TrialDesign.from_text(DESIGN))
    assert np.isnan(results.frame["estimate"].iloc[0]) and "cannot be told apart" in results.problems["y"]


def test_no_earlier_design_has_another_digest() -> None:
    # of a design as it was before there was a third level
    assert TrialDesign.from_text('outcomes = [{name = "y"}]').digest == "d298c5c89db21ead5c896faf3abed3dc2fb9b0e18cebaf65c6ba161ef7bab363"
    assert TrialDesign.from_text(DESIGN).digest != TrialDesign.from_text(DESIGN.replace("team", "ward")).digest
