"""Leaving one out is the analysis of the table without it, in the whole table's units."""

from __future__ import annotations

import pytest

import trialkit as tk
from trialkit.door import InputError
from trialkit.itt.influence import leave_one_out


def test_each_row_is_the_analysis_without_that_site(people, design):
    found = leave_one_out(people, design)
    assert found.frame["outcome"].tolist() == ["climate", "stigma"]
    assert len(found.each) == 48
    whole = tk.itt(people, design)
    assert found.frame["estimate"].tolist() == whole.frame["estimate"][[0, 3]].tolist()
    for site in ("S03", "S17"):
        alone = tk.itt(people[people["site"] != site], design)
        row = found.each[(found.each["outcome"] == "climate") & (found.each["left_out"] == site)].iloc[0]
        scale = alone.details["sd"][0] / whole.details["sd"][0]
        assert row["estimate"] == pytest.approx(alone.frame["estimate"][0] * scale, rel=1e-9)
        assert [row["df"], row["p_value"]] == pytest.approx(alone.frame.loc[0, ["df", "p_value"]].tolist(), rel=1e-9)
    climate = found.each[found.each["outcome"] == "climate"]
    assert found.frame["lowest"][0] == climate["estimate"].min()
    assert found.frame["highest_p"][0] == climate["p_value"].max()
    assert climate.set_index("left_out").loc[found.frame["lowest_without"][0], "estimate"] == climate["estimate"].min()


def test_pairs_leave_together_and_imputed_tables_are_pooled(people, design):
    found = leave_one_out([people, people], design, by="pair", outcomes=["recovery"])
    assert len(found.each) == 12
    single = leave_one_out(people, design, by="pair", outcomes=["recovery"])
    assert found.each["estimate"].tolist() == pytest.approx(single.each["estimate"].tolist(), rel=1e-9)
    gone = tk.itt(people[people["pair"] != "P04"], design).frame["p_value"][1]
    assert single.each.set_index("left_out").loc["P04", "p_value"] == pytest.approx(gone, rel=1e-9)


def test_with_fixed_pairs_a_pair_takes_its_column_along(people, design, redesign):
    fixed = redesign(design, analysis={"pair_effects": "fixed"})
    found = leave_one_out(people, fixed, by="pair", outcomes=["climate"])
    gone = tk.itt(people[people["pair"] != "P04"], fixed).frame["p_value"][0]
    assert found.each.set_index("left_out").loc["P04", "p_value"] == pytest.approx(gone, rel=1e-8)


@pytest.mark.parametrize(
    ("arguments", "says"), [({"by": "sites"}, "Did you mean 'site'"), ({"outcomes": ["climte"]}, "Did you mean 'climate'")]
)
def test_refused(people, design, arguments, says):
    with pytest.raises(InputError, match=says):
        leave_one_out(people, design, **arguments)
