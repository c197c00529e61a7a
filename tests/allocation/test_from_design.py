"""What a design file can say of the matching, and that it is what `match_pairs` was told."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from trialkit.allocation import exact, exact_if_possible, mahalanobis, match_from_design, match_pairs, nearest
from trialkit.design import TrialDesign
from trialkit.door import DesignError, InputError

HEAD = '[[outcomes]]\nname = "y"\n[allocation]\n'


def design(text: str) -> TrialDesign:
    return TrialDesign.from_text(HEAD + text)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (
            'odd = "single"\ncriteria = [{kind = "exact", column = "county"}, {kind = "nearest", column = "budget", caliper = 2e6}]',
            {"criteria": [exact("county"), nearest("budget", caliper=2_000_000)], "odd": "single"},
        ),
        (
            'odd = "trio"\nforbidden = [["S02", "S06"]]\nrequired = [["S01", "S04"]]\ncriteria = [{kind = "nearest", column = "staff"}]',
            {"criteria": [nearest("staff")], "odd": "trio", "forbidden": [("S02", "S06")], "required": [("S01", "S04")]},
        ),
        (
            'odd = "S05"\nmethod = "sequential-nearest"\ncriteria = [{kind = "exact_if_possible", column = "youth"}, '
            '{kind = "nearest", column = "budget"}]',
            {"criteria": [exact_if_possible("youth"), nearest("budget")], "odd": "S05", "method": "sequential-nearest"},
        ),
        (
            'odd = ["S05", "S07", "S08"]\ncriteria = [{kind = "mahalanobis", columns = ["budget", "staff"], '
            "weights = [2, 1], caliper = 9.5}]",
            {"criteria": [mahalanobis(["budget", "staff"], weights=[2, 1], caliper="9.5")], "odd": ["S05", "S07", "S08"]},
        ),
        (
            'odd = "reserve"\ncriteria = [{kind = "mahalanobis", columns = ["budget", "staff"], robust = true}]',
            {"criteria": [mahalanobis(["budget", "staff"], robust=True)], "odd": "reserve"},
        ),
    ],
    ids=["single", "trio", "sequential", "named", "robust"],
)
def test_the_design_says_what_the_verb_does(sites: pd.DataFrame, text: str, asked: dict[str, Any]) -> None:
    declared = design(text)
    found, wanted = match_from_design(sites, declared), match_pairs(sites, id="site", **asked)
    assert found.to_dict() == wanted.to_dict()
    again = TrialDesign.from_text(declared.to_toml())
    assert again == declared and match_from_design(sites, again).pairs == found.pairs


@pytest.mark.parametrize(
    ("criterion", "says"),
    [
        ('{kind = "nearest"}', r"criteria\[1\]: column is required for kind = 'nearest'"),
        ('{kind = "mahalanobis", column = "budget"}', r"takes columns = \[\.\.\.\], at least two"),
        ('{kind = "mahalanobis", columns = ["budget"]}', "at least two"),
        ('{kind = "exact", column = "a", columns = ["b", "c"]}', "belong to kind = 'mahalanobis', not to 'exact'"),
        ('{kind = "nearest", column = "a", robust = true}', "belong to kind = 'mahalanobis', not to 'nearest'"),
        ('{kind = "mahalanobiss", columns = ["b", "c"]}', "Did you mean 'mahalanobis'"),
    ],
)
def test_criteria_that_do_not_fit_their_kind(criterion: str, says: str) -> None:
    with pytest.raises(DesignError, match=says):
        design(f"criteria = [{criterion}]")


def test_what_a_design_leaves_open_is_refused(sites: pd.DataFrame) -> None:
    with pytest.raises(DesignError, match=r"no \[allocation\] block with criteria"):
        match_from_design(sites, TrialDesign.from_text('[[outcomes]]\nname = "y"'))
    with pytest.raises(InputError, match=r"has no column 'bugdet'.*Did you mean 'budget'"):
        match_from_design(sites, design('odd = "single"\ncriteria = [{kind = "nearest", column = "bugdet"}]'))
    with pytest.raises(InputError, match="2 weights"):
        match_from_design(sites, design('criteria = [{kind = "mahalanobis", columns = ["budget", "staff", "x"], weights = [1, 2]}]'))
