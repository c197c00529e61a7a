"""The report: one page that loads nothing, says what it was given and what it was not, and repeats byte for byte."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import trialkit as tk
from trialkit.allocation import Plan
from trialkit.design import TrialDesign
from trialkit.door import InputError, Refused, WriteError, frame_digest
from trialkit.report import Report, report, report_table, save_figures
from trialkit.report.sections import design_section
from trialkit.results import Provenance

NASTY = "</style><script>alert(1)</script><img src=x onerror=alert(1)> \" ' & {{ 7 * 7 }}"


class StoredImputations:
    m = 20
    frame = pd.DataFrame({"variable": ["climate"], "method": ["two-level normal"], "missing": [4], "r_hat": [1.01]})
    events = ("dropped: 'x' is constant",)
    notes = ("People followed up are imputed.",)


class StoredChecks:
    title = "200 simulated trials"
    frame = pd.DataFrame({"outcome": ["climate"], "bias": [0.004], "coverage": [0.952]})


@pytest.fixture(scope="module")
def full(results: Any, design: TrialDesign, people: pd.DataFrame, sites: pd.DataFrame, allocation: Any) -> Report:
    power = tk.power(clusters=22, cluster_size=5, icc=0.05, effect=0.5)
    return report(
        results,
        design=design,
        sites=sites,
        people=people,
        allocation=allocation,
        power=power,
        imputations=StoredImputations(),
        checks=StoredChecks(),
    )


class Links(HTMLParser):
    """Collects everything a browser might fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "formaction", "background", "ping"):
                self.found.append((tag, name, value or ""))
            assert not name.startswith("on"), f"{tag} has {name}"


def test_it_loads_nothing(full: Report) -> None:
    links = Links()
    links.feed(full.html)
    assert all(value.startswith(("#", "data:image/png;base64,")) for _, _, value in links.found)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(links.tags)
    assert not re.search(r"https?:|@import|url\((?!#)", full.html)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', full.html)
    assert policy is not None
    assert policy.group(1) == "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def test_it_is_well_formed(full: Report) -> None:
    page = full.html.replace("<!DOCTYPE html>", "", 1)
    root = ElementTree.fromstring(page)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    anchors = {a.get("href", "")[1:] for a in root.iter("a")}
    assert anchors == set(full.sections) <= set(ids)


def test_every_section_is_there_when_its_input_is(full: Report) -> None:
    every = ("design", "allocation", "power", "flow", "baseline", "missing", "imputation", "results", "checks", "provenance")
    assert full.sections == every
    assert full.not_given == ()
    assert [p.name for p in full.pictures] == [
        "love",
        "pairs",
        "site-map",
        "power",
        "flow",
        "missing",
        "patterns",
        "flux",
        "forest",
        "cluster-means",
    ]
    assert full.html.count("<figure>") == len(full.pictures)
    assert full.path is None


def test_what_was_not_given_is_said(results: Any, design: TrialDesign) -> None:
    page = report(results, design=design)
    assert page.sections == ("design", "results", "provenance")
    assert page.not_given == ("allocation", "power", "flow", "baseline", "missing", "imputation", "checks")
    assert "Not in this report, because its input was not given: Allocation and balance (give allocation=)" in page.html
    alone = report(results.frame)
    assert alone.sections == ("results", "provenance")
    assert "Registration: not stated" in alone.html


def test_it_says_the_numbers(full: Report, people: pd.DataFrame) -> None:
    text = re.sub(r"<[^>]+>", " ", full.html)
    for words in (
        "Registration: NCT00000000",
        "0.35 (0.02 to 0.68)",
        "Twenty-four sites were recruited",
        "NOT ANCHORED: the seed was typed in.",
        "Holm",
        "treatment policy",
        "dropped: &#39;x&#39; is constant",
        "Seed of the analysis",
        "ab" * 32,
        "The people given to this report are not the people that were analysed: their digests differ.",
    ):
        assert words in text, words
    analysed = int(((people["follow_up_done"] == 1) & (people["role"] == "peer")).sum())
    assert f"{analysed} were analysed" in text
    assert re.search(r"Attempts at the draw\s+2\b", text)


def test_what_matching_bought_and_cost_is_said(results: Any, design: TrialDesign, sites: pd.DataFrame, tmp_path: Path) -> None:
    """Also for a plan that was read from a file, which holds the pairing as a record only."""
    drawn = sites[sites["status"] == "randomised"]
    plan = tk.within_pairs(tk.match_pairs(drawn, id="site", criteria=[tk.nearest("annual_budget"), tk.nearest("n_staff")], odd="single"))
    plan.save(tmp_path / "plan.json")
    allocation = Plan.load(tmp_path / "plan.json").draw(seed="5a0c1e7f9b3d24866a1f0c2b7d9e4835", seed_source="a test")
    page = report(results, design=design, sites=sites, allocation=allocation)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.html))
    assert "The pairs beside other pairs of the same sites" in text and "Nearest first" in text
    assert "A paired comparison of 11 pairs has 10 degrees of freedom where an unpaired one has 20" in text
    assert re.search(r"All covariates at once: d-squared = \d+\.\d\d on 2 dimensions .*?, p = \.\d+ among all 2,048 allocations", text)
    assert [p.name for p in page.pictures][:3] == ["love", "pairs", "site-map"]
    lonely = tk.within_pairs(tk.match_pairs(drawn, id="site", criteria=[tk.nearest("annual_budget")], odd="single"))
    page = report(results, sites=sites, allocation=lonely.draw(seed="5a0c1e7f9b3d24866a1f0c2b7d9e4835", seed_source="a test"))
    assert "No map of the sites: a map needs at least two columns that vary" in page.html


def test_the_right_people_are_not_complained_of(results: Any, design: TrialDesign, people: pd.DataFrame) -> None:
    honest = SimpleNamespace(frame=results.frame, provenance=Provenance(inputs={"people": frame_digest(people)}))
    page = report(honest, design=design, people=people).html
    assert "digests differ" not in page
    assert page.count(frame_digest(people)) == 1


def test_a_malicious_label_is_only_a_label(results: Any, people: pd.DataFrame) -> None:
    design = TrialDesign(
        trial={"title": NASTY, "registration": NASTY},
        estimand={"population": NASTY},
        columns={"rater": "role"},
        outcomes=[{"name": "climate", "label": NASTY, "rater": "peer", "level": NASTY}],
        covariates=[{"name": "gender", "type": "categorical", "levels": ["woman", NASTY]}],
    )
    marked = people.assign(gender=[NASTY if k % 3 else "woman" for k in range(len(people))])
    frame = results.frame.iloc[:1]
    page = report(frame, design=design, people=marked, title=NASTY)
    links = Links()
    links.feed(page.html)
    assert "script" not in links.tags and "img" not in links.tags
    assert "7 * 7" in page.html and " 49 " not in page.html
    ElementTree.fromstring(page.html.replace("<!DOCTYPE html>", "", 1))


def test_control_characters_do_not_break_the_page(results: Any, design: TrialDesign) -> None:
    page = report(results, design=design, title="a\x00b\x1b[31m\u202e c")
    ElementTree.fromstring(page.html.replace("<!DOCTYPE html>", "", 1))
    assert not set("\x00\x1b\u202e") & set(page.html)


def test_the_same_inputs_give_the_same_bytes(
    full: Report, results: Any, design: TrialDesign, people: pd.DataFrame, sites: pd.DataFrame
) -> None:
    first = report(results, design=design, people=people, sites=sites)
    second = report(results, design=design, people=people.copy(), sites=sites.copy())
    assert first.html == second.html
    assert not re.search(r"\b20\d\d-\d\d-\d\d[T ]\d\d:", full.html)


def test_writing(results: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    written = report(results.frame, path)
    assert written.path == path
    assert path.read_text(encoding="utf-8") == written.html
    with pytest.raises(Refused, match="exists already"):
        report(results.frame, path)
    report(results.frame, path, title="Another", force=True)
    assert "<title>Another</title>" in path.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="is a folder"):
        report(results.frame, tmp_path)
    with pytest.raises(WriteError):
        report(results.frame, tmp_path / "nowhere" / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_people_that_contradict_themselves_stop_the_report(results: Any, design: TrialDesign, people: pd.DataFrame, tmp_path: Path) -> None:
    wrong = people.copy()
    wrong.loc[wrong["baseline_done"] == 0, "follow_up_done"] = 1.0
    with pytest.raises(InputError, match="the boxes would not add up"):
        report(results, tmp_path / "report.html", design=design, people=wrong)
    assert list(tmp_path.iterdir()) == []


def test_outcomes_that_failed_are_named(results: Any, design: TrialDesign) -> None:
    failed = SimpleNamespace(frame=results.frame, problems={"stigma": "the outcome has one value in all analysed rows"}, notes=())
    assert "stigma: the outcome has one value in all analysed rows" in report(failed, design=design).html


def test_one_kind_of_person_and_complete_cases() -> None:
    design = TrialDesign.from_text('[arms]\nreference = "usual"\nintervention = "new"\n[[outcomes]]\nname = "y"\nrank = "primary"')
    k = range(24)
    people = pd.DataFrame(
        {"person": [f"p{i}" for i in k], "site": [f"s{i // 4}" for i in k], "arm": ["new" if i // 4 % 2 else "usual" for i in k]}
    )
    people["y"], people["y_0"] = [i % 5 + i / 7 for i in k], [i % 4 + 0.5 for i in k]
    people.loc[3, "y"] = None
    results = tk.itt(people, design)
    page = report(results, design=design, people=people)
    assert page.sections == ("design", "flow", "baseline", "missing", "results", "provenance")
    assert "Complete cases were analysed" in page.html
    assert "24 people were eligible" in page.html
    table = report_table(results, design, people=people).frame.iloc[0]
    assert (table["n_intervention"], table["n_reference"]) == (12, 11)
    assert "new against usual" in page.html


def test_the_summary_measure_is_each_outcomes_own() -> None:
    text = '[[outcomes]]\nname = "y"\nlabel = "Mood"\n[[outcomes]]\nname = "z"\nlabel = "Relapse"\ntype = "binary"\nhas_baseline = false\n'
    said = dict(p[:2] for b in design_section(TrialDesign.from_text(text)).blocks for p in b.pairs)["Summary measure"]
    assert said == "standardised mean difference (Cohen's d) (Mood); risk difference (Relapse)"
    declared = TrialDesign.from_text(text + '[estimand]\nsummary = "as in the protocol"\n')
    assert "as in the protocol" in str([b.pairs for b in design_section(declared).blocks])


def test_save_figures(results: Any, design: TrialDesign, tmp_path: Path) -> None:
    written = save_figures(results, tmp_path, design=design)
    assert [p.name for p in written] == ["forest.svg", "forest.png"]
    with pytest.raises(Refused):
        save_figures(results, tmp_path, design=design)


def test_notebook_view_is_a_sandbox(full: Report) -> None:
    view = full._repr_html_()
    assert view.startswith('<iframe sandbox=""')
    assert "<h1" not in view


def test_the_page_is_in_the_wheel() -> None:
    """The template is package data: hatchling takes every file of the package, so it must lie inside it."""
    from importlib import resources

    folder = resources.files("trialkit.report") / "templates"
    assert {p.name for p in folder.iterdir()} >= {"report.html.j2", "report.css"}


def test_estimands_have_their_tables_and_picture() -> None:
    from trialkit.itt import estimand_effects, itt

    rng = np.random.default_rng(2)
    site = np.repeat(np.arange(12), np.resize([3, 6, 9], 12))
    people = pd.DataFrame({"person": range(len(site)), "site": site, "arm": np.where(site % 2, "intervention", "control")})
    people["y"] = rng.normal(size=len(site))
    design = TrialDesign.from_text('[[outcomes]]\nname = "y"\nlabel = "Well-being"\nrank = "primary"\nhas_baseline = false')
    page = report(itt(people, design), design=design, people=people, estimands=estimand_effects(people, design))
    assert "cluster-average" in page.html
    assert "Does the effect go with the size of the site?" in page.html
    assert "cluster-size" in {p.name for p in page.pictures}
    assert "cluster-size" not in {p.name for p in report(itt(people, design), design=design, people=people).pictures}
