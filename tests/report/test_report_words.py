"""Sentences say the numbers of the objects they were made from."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.report import analysis_paragraph, flow_paragraph, missing_paragraph, missing_table, participant_flow, results_paragraph
from trialkit.report.words import counted, joined, p_words, plural, spelled


@pytest.mark.parametrize(
    ("n", "word"),
    [(0, "no"), (1, "one"), (12, "twelve"), (20, "twenty"), (35, "thirty-five"), (99, "ninety-nine"), (100, "100"), (1234, "1,234")],
)
def test_spelled(n: int, word: str) -> None:
    assert spelled(n) == word


def test_counted_and_plural() -> None:
    assert counted(1, "person") == "1 person"
    assert counted(2, "person") == "2 people"
    assert counted(85, "site", start=True) == "Eighty-five sites"
    assert counted(348, "peer worker", start=True) == "348 peer workers"
    assert plural("statistical analysis") == "statistical analyses"
    assert joined([]) == ""


def test_p_words_never_say_zero() -> None:
    assert [p_words(p) for p in (0.0, 0.0009999, 0.001, 0.05, 1.0)] == ["p < .001", "p < .001", "p = .001", "p = .050", "p > .999"]


def test_flow_sentence(people: pd.DataFrame, sites: pd.DataFrame, design: TrialDesign) -> None:
    flow = participant_flow(people, design, sites=sites)
    text = flow_paragraph(flow)
    assert text.startswith("Twenty-four sites were recruited, of which 2 were not randomised (1 closed; 1 declined); 22 were randomised.")
    n, base = flow.count("baseline", rater="peer"), flow.count("eligible", rater="peer")
    assert f"{base} people (peer) were eligible: {n} ({100 * n / base:.0f}%) did the baseline survey" in text
    assert f"{flow.count('analysed', rater='supervisor')} were analysed." in text


def test_analysis_sentence_follows_the_design(design: TrialDesign, results: Any) -> None:
    text = analysis_paragraph(design, results)
    assert "adjusted for its own value at baseline, gender and years" in text
    assert "Kenward and Roger" in text
    assert "Missing values of the people followed up were imputed 20 times" in text
    assert "Holm's method, within families of outcomes" in text
    other = TrialDesign.from_text(
        '[analysis]\ninference = "satterthwaite"\npair_effects = "random"\nmultiplicity = "none"\nconf_level = 0.9\nstandardise = "none"\n'
        '[columns]\npair = "pair"\n[[outcomes]]\nname = "y"\nhas_baseline = false\n[[outcomes]]\nname = "z"\nhas_baseline = false'
    )
    text = analysis_paragraph(other, results.frame.assign(m=1))
    assert "Satterthwaite's degrees of freedom" in text
    assert "random intercepts for site and for matched pair" in text
    assert "not adjusted for the number of outcomes" in text
    assert "90% confidence intervals" in text
    assert "adjusted for its own" not in text
    assert "Cohen" not in text
    assert "were left out" in text


def test_results_sentence(design: TrialDesign, results: Any) -> None:
    text = results_paragraph(results, design)
    assert "Organisational climate, d = 0.35, 95% CI 0.02 to 0.68, p = .043, adjusted p = .086 (62 people at 22 sites)" in text
    assert "Stigma, d = −0.04, 95% CI −0.48 to 0.40, p = .840 (25 people at 17 sites)" in text
    assert "The interval of the one other outcome leaves out zero: Burnout" in text


def test_results_sentence_names_what_was_not_estimated(design: TrialDesign, results: Any) -> None:
    frame = results.frame.copy()
    frame.loc[0, ["estimate", "conf_low", "conf_high", "p_value"]] = float("nan")
    assert "Not estimated: Organisational climate." in results_paragraph(frame, design)


def test_missing_sentence(people: pd.DataFrame, design: TrialDesign) -> None:
    table = missing_table(people, design)
    assert missing_paragraph(table).startswith("Among the people analysed, ")
    whole = people.fillna({c: 1.0 for c in people.columns if people[c].dtype.kind == "f"}).fillna({"gender": "woman"})
    assert missing_paragraph(missing_table(whole, design)) == "No value is missing among the people analysed."


def test_only_what_has_a_baseline_is_adjusted_for_it() -> None:
    design = TrialDesign(
        covariates=[{"name": "age"}],
        outcomes=[{"name": "mood"}, {"name": "relapse", "type": "binary", "has_baseline": False}],
    )
    text = analysis_paragraph(design)
    assert "Mood at follow-up was regressed on arm, adjusted for its own value at baseline and age, in" in text.replace("mood", "Mood")
    assert "Relapse (risk difference) was analysed by marginal models on arm, adjusted for age (" in text
    some = design.model_copy(
        update={"outcomes": (design.outcomes[0], design.outcomes[0].model_copy(update={"name": "n", "baseline": None}))}
    )
    assert "adjusted for its own value at baseline where there is one and age" in analysis_paragraph(some)
