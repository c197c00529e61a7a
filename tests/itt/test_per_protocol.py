"""The per-protocol analysis: the model of those who followed the protocol, under its own name and never another."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import trialkit as tk
from trialkit.door import InputError


@pytest.fixture
def declared(redesign, design):
    return redesign(design, compliance={"per_protocol": "followed"})


@pytest.fixture
def following(people):
    rng = np.random.default_rng(4)
    return people.assign(followed=np.where(people["arm"] == "intervention", (rng.random(len(people)) < 0.7).astype(int), 1))


def test_it_is_the_model_on_the_followers_over_the_sd_of_everybody(following, declared):
    found = tk.itt(following, declared, analyses=["per-protocol"])
    rows = found.frame[found.frame["analysis"] == "per-protocol"].set_index("outcome")
    kept = following[following["followed"] == 1]
    alone = tk.itt(kept, declared)
    details = alone.details.set_index("outcome")
    everybody = tk.itt(following, declared).details.set_index("outcome")["sd"]
    for row in alone.frame.itertuples():
        mine = rows.loc[row.outcome]
        assert mine["estimate"] * everybody[row.outcome] == pytest.approx(details.loc[row.outcome, "raw_estimate"], rel=1e-9)
        assert mine[["df", "p_value", "n", "clusters"]].tolist() == pytest.approx([row.df, row.p_value, row.n, row.clusters], rel=1e-9)


def test_it_is_never_made_unless_it_is_named_and_never_called_itt(following, declared):
    assert "per-protocol" not in set(tk.itt(following, declared, analyses="all").frame["analysis"])
    assert "analysis" not in tk.itt(following, declared).frame.columns
    named = tk.itt(following, declared, analyses=["all", "per-protocol"])
    assert named.title.startswith("Intention to treat, and per-protocol where a row says so:")
    assert tk.itt(following, declared, analyses="all").title.startswith("Intention to treat:")
    note = next(n for n in named.notes if n.startswith("per-protocol: "))
    assert "not intention to treat" in note and "not drawn by lot" in note
    assert (
        f"{int(following['followed'][following['arm'] == 'intervention'].sum())} of {int((following['arm'] == 'intervention').sum())}"
        in note
    )
    # the rows called ITT are what they are without it
    pd.testing.assert_frame_equal(named.model.frame, tk.itt(following, declared).frame)


def test_selection_on_prognosis_is_a_bias_that_size_does_not_mend(design, redesign, people_of):
    """Only the better half of the intervention arm stays on protocol: without any effect the two groups still differ."""
    people = people_of(3, sites=60, peers=20, supervisors=1)
    people["climate"] -= 0.5 * (people["arm"] == "intervention")  # take the fixture's effect away
    treated = people["arm"] == "intervention"
    keep = ~treated | (people["climate"] > people.loc[treated, "climate"].median())
    declared = redesign(design, compliance={"per_protocol": "followed"})
    found = tk.itt(people.assign(followed=keep.astype(int)), declared, analyses=["per-protocol"]).frame
    climate = found[found["outcome"] == "climate"].set_index("analysis")
    assert climate.loc["mixed model", "p_value"] > 0.05
    assert climate.loc["per-protocol", "conf_low"] > 0.3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.drop(columns="followed"), "no column 'followed'"),
        (lambda d: d.assign(followed=d["followed"].where(d.index != 3)), r"row 5 \(person 'P0003'\), column 'followed': the cell is blank"),
        (lambda d: d.assign(followed="maybe"), "maybe"),
    ],
)
def test_followers_must_be_known(following, declared, change, says):
    with pytest.raises(InputError, match=says):
        tk.itt(change(following), declared, analyses=["per-protocol"])


def test_it_needs_a_declaration(people, design):
    with pytest.raises(InputError, match=r"per_protocol under \[compliance\]"):
        tk.itt(people, design, analyses=["per-protocol"])


def test_an_arm_without_followers_keeps_its_row(following, declared):
    nobody = following.assign(followed=(following["arm"] == "control").astype(int))
    found = tk.itt(nobody, declared, analyses=["per-protocol"])
    assert found.frame.loc[found.frame["analysis"] == "per-protocol", "p_value"].isna().all()
    assert found.problems["climate, per-protocol"] == "one arm has no site left"
