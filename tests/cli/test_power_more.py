"""``trialkit power`` and ``trialkit icc`` over the designs and corrections of the room: the same numbers, one message for a fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.cli import main
from trialkit.power import (
    PowerDesign,
    co_primary,
    crossover,
    detectable_effect,
    estimate_icc,
    power,
    sample_size,
    solve,
    stepped_wedge,
)
from trialkit.simulation import planned_power

BASE = {"clusters": 40, "cluster_size": 10, "icc": 0.05, "effect": 0.4}


def run(capsys: pytest.CaptureFixture[str], command: str, *flags: str, **options: object) -> tuple[int, str, str]:
    words = [w for name, value in options.items() for w in (f"--{name.replace('_', '-')}", str(value))]
    code = main([command, *flags, *words])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


@pytest.mark.parametrize(
    "more",
    [
        {"cluster_size_cv": 0.6},
        {"cluster_size_cv": 0.6, "analysis": "size-weighted"},
        {"attrition": 0.15, "cluster_attrition": 0.1},
        {"r2_cluster": 0.4, "r2_person": 0.2},
        {"cac": 0.7, "iac": 0.4, "baseline": "change"},
        {"allocation_ratio": 3},
        {"distribution": "z"},
        {"df": "clusters-3"},
        {"df": 30},
        {"sides": 1, "alpha": 0.025},
        {"subclusters": 2, "icc_subcluster": 0.03},
        {"strata": 4},
        {"controls": 300},
        {"sd": 2},
    ],
    ids=str,
)
def test_the_same_number_as_in_python(capsys: pytest.CaptureFixture[str], more: dict[str, Any]) -> None:
    code, out, err = run(capsys, "power", "--json", **{**BASE, **more})
    assert (code, err) == (0, "")
    answer = json.loads(out)
    expected = power(**{**BASE, **more})
    assert answer["power"] == expected.power and answer["df"] == expected.df
    assert answer["warnings"] == list(expected.warnings)


def test_outcomes(capsys: pytest.CaptureFixture[str]) -> None:
    binary = {"clusters": 30, "cluster_size": 20, "icc": 0.02, "p_control": 0.3, "p_intervention": 0.2}
    _, out, _ = run(capsys, "power", "--json", **binary)
    assert json.loads(out)["power"] == power(**binary).power
    rates = {"clusters": 30, "person_time": 500, "k": 0.25, "rate_control": 0.03, "rate_intervention": 0.02}
    _, out, _ = run(capsys, "power", "--json", **rates)
    assert json.loads(out)["power"] == power(**rates).power
    survival = {**binary, "hazard_ratio": 0.7, "event_probability": 0.4}
    del survival["p_control"], survival["p_intervention"]
    _, out, _ = run(capsys, "power", "--json", **survival)
    assert json.loads(out)["power"] == power(**survival).power


def test_layouts(capsys: pytest.CaptureFixture[str]) -> None:
    common = {"clusters": 12, "cluster_size": 10, "icc": 0.05, "cac": 0.8, "effect": 0.4}
    _, out, _ = run(capsys, "power", "--json", **common, stepped_wedge=4, correlation="decay")
    assert json.loads(out)["power"] == power(layout=stepped_wedge(4), correlation="decay", **common).power
    _, out, _ = run(capsys, "power", "--json", "--crossover", **common)
    assert json.loads(out)["power"] == power(layout=crossover(), **common).power


def test_solving(capsys: pytest.CaptureFixture[str]) -> None:
    kept = {"cluster_size": 10, "icc": 0.05}
    _, out, _ = run(capsys, "power", "--json", **kept, effect=0.4, cluster_size_cv=0.5, power=0.9)
    answer, expected = json.loads(out), sample_size(**kept, effect=0.4, cluster_size_cv=0.5, power=0.9)
    assert (answer["clusters"], answer["exact"]) == (expected.clusters, expected.exact)
    _, out, _ = run(capsys, "power", "--json", **kept, pairs=12, matching_correlation=0.3, power=0.8)
    assert json.loads(out)["effect"] == detectable_effect(**kept, pairs=12, matching_correlation=0.3, power=0.8).effect
    _, out, _ = run(capsys, "power", "--json", **kept, effect=0.4, matching_correlation=0.3, power=0.8)
    assert json.loads(out)["pairs"] == sample_size(**kept, effect=0.4, matching_correlation=0.3, power=0.8, find="pairs").pairs
    _, out, _ = run(capsys, "power", "--json", clusters=40, cluster_size=10, effect=0.4, power=0.8, find="icc")
    assert json.loads(out)["icc"] == pytest.approx(solve(find="icc", clusters=40, cluster_size=10, effect=0.4, power=0.8).value)
    _, out, _ = run(capsys, "power", "--json", clusters=40, icc=0.05, effect=0.4, power=0.8, find="cluster-size")
    assert json.loads(out)["cluster_size"] == sample_size(clusters=40, icc=0.05, effect=0.4, power=0.8).cluster_size


def test_a_grid_over_a_correction(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "power", "--json", **{**BASE, "icc": ".01,.05"}, cv="0,.5,1")
    cells = json.loads(out)["grid"]
    expected = [power(**{**BASE, "icc": i}, cluster_size_cv=c).power for i in (0.01, 0.05) for c in (0, 0.5, 1)]
    assert [c["power"] for c in cells] == pytest.approx(expected, rel=1e-14)
    code, out, _ = run(capsys, "power", **{**BASE, "icc": ".01,.05"}, attrition="0,.2")
    assert code == 0 and "attrition" in out and len(out.strip().splitlines()) == 5


def test_explain_and_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    expected = power(**BASE, icc_source="pilot of 2023")
    _, out, _ = run(capsys, "power", "--explain", "--protocol", **BASE, icc_source="pilot of 2023")
    assert expected.explain() in out and expected.protocol_text() in out and "pilot of 2023" in out
    _, out, _ = run(capsys, "power", "--explain", "--protocol", "--json", **BASE, icc_source="pilot of 2023")
    answer = json.loads(out)
    assert answer["explain"] == expected.explain() and answer["protocol"] == expected.protocol_text()


def test_a_design_from_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "design.json"
    spec = PowerDesign(layout=[[0, 1, None], [0, 0, 1]], clusters=10, cluster_size=8, icc=0.05, effect=0.6, alpha=0.01)
    path.write_text(spec.to_json())
    _, out, _ = run(capsys, "power", "--json", design=path)
    assert json.loads(out)["power"] == power(spec).power
    _, out, _ = run(capsys, "power", "--json", design=path, effect=0.9)
    assert json.loads(out)["power"] == power(spec, effect=0.9).power
    paired = PowerDesign(pairs=10, cluster_size=8, icc=0.05, effect=0.6, matching_correlation=0.2)
    path.write_text(paired.to_json())
    _, out, _ = run(capsys, "power", "--json", design=path, pairs=14)
    assert json.loads(out)["power"] == power(paired, pairs=14).power


@pytest.mark.parametrize(
    ("flags", "options", "says"),
    [
        ((), {**BASE, "attrition": 1}, "attrition"),
        ((), {**BASE, "cluster_size_cv": -0.2}, "cluster_size_cv"),
        ((), {**BASE, "distribution": "gauss"}, "distribution"),
        ((), {**BASE, "sides": 3}, "sides"),
        ((), {**BASE, "df": "people"}, "df rule"),
        ((), {**BASE, "iac": 0.2}, "cac"),
        ((), {**BASE, "subclusters": 2.5}, "whole number"),
        ((), {**BASE, "find": "icc"}, "--power"),
        ((), {**BASE, "matching_correlation": 0.2}, "--pairs"),
        (("--crossover",), {**BASE, "stepped_wedge": 4}, "one or the other"),
        ((), {**BASE, "rate_control": 0.1, "sd": 2}, "sd"),
        ((), {"clusters": 12, "icc": 0.1, "effect": 0.5, "power": 0.8, "find": "cluster-size"}, "At least 16 clusters"),
        ((), {"clusters": 40, "cluster_size": 10, "effect": 0.4, "power": 0.8, "find": "icq"}, "icc"),
        ((), {"clusters": 40, "cluster_size": 10, "effect": 0.4}, "--icc"),
        ((), {"design": "no-such-file.json"}, "no-such-file.json"),
        ((), {**BASE, "icc": "nan"}, "--icc"),
    ],
)
def test_one_message_and_exit_two(capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], options: dict[str, Any], says: str) -> None:
    code, out, err = run(capsys, "power", *flags, **options)
    assert (code, out) == (2, "")
    assert says in err and len(err.strip().splitlines()) <= 3


@pytest.mark.parametrize(
    ("words", "python"),
    [
        (["--clusters", "12:8", "--icc", ".02:.1", "--df", "welch"], {"clusters": (12, 8), "icc": (0.02, 0.1), "df": "welch"}),
        (["--clusters", "20", "--strata", "4", "--strata-effects", "random", "--icc-stratum", ".1", "--stratum-heterogeneity", ".4"],
         {"clusters": 20, "strata": 4, "strata_effects": "random", "icc_stratum": 0.1, "stratum_heterogeneity": 0.4}),
        (["--pairs", "12", "--matching-correlation", ".4", "--matching-scale", "effects"],
         {"pairs": 12, "matching_correlation": 0.4, "matching_scale": "effects"}),
        (["--layout", "0,1,1;0,NA,1;0,0,1", "--clusters-per-sequence", "3,4,3", "--cac", ".8", "--iac", ".3", "--turnover", ".2"],
         {"layout": [[0, 1, 1], [0, None, 1], [0, 0, 1]], "clusters_per_sequence": (3, 4, 3), "cac": 0.8, "iac": 0.3, "turnover": 0.2}),
        (["--clusters", "12", "--stepped-wedge", "4", "--intervention-sd", ".1", "--estimand", "exposure-average"],
         {"clusters": 12, "layout": stepped_wedge(4), "intervention_sd": 0.1, "estimand": "exposure-average"}),
        (["--clusters", "30", "--modifier-icc", ".1", "--modifier-sd", "2"], {"clusters": 30, "modifier_icc": 0.1, "modifier_sd": 2}),
        (["--clusters", "30", "--contrast", "-1,.5,.5"], {"clusters": 30, "contrast": (-1, 0.5, 0.5)}),
        (["--clusters", "30", "--arms", "3", "--versus-control", "dunnett", "--success", "any"],
         {"clusters": 30, "arms": 3, "versus_control": "dunnett", "success": "any"}),
        (["--clusters", "30", "--hypothesis", "non-inferiority", "--margin", ".3"],
         {"clusters": 30, "hypothesis": "non-inferiority", "margin": 0.3}),
    ],
    ids=lambda v: v[-1] if isinstance(v, list) else "",
)  # fmt: skip
def test_every_design_is_reached(capsys: pytest.CaptureFixture[str], words: list[str], python: dict[str, Any]) -> None:
    code, out, err = run(capsys, "power", "--json", *words, cluster_size=10, effect=0.4, **({} if "icc" in python else {"icc": 0.05}))
    assert (code, err) == (0, "")
    assert json.loads(out)["power"] == power(**{"cluster_size": 10, "icc": 0.05, "effect": 0.4, **python}).power


def test_more_outcomes(capsys: pytest.CaptureFixture[str]) -> None:
    base = {"clusters": 30, "cluster_size": 20, "icc": 0.05}
    _, out, _ = run(capsys, "power", "--json", **base, proportions=".2,.5,.3", odds_ratio=1.8)
    assert json.loads(out)["power"] == power(**base, proportions=(0.2, 0.5, 0.3), odds_ratio=1.8).power
    _, out, _ = run(capsys, "power", "--json", "--pooled", **base, p_control=0.3, p_intervention=0.2, icc_scale="latent")
    assert json.loads(out)["power"] == power(**base, p_control=0.3, p_intervention=0.2, icc_scale="latent", pooled=True).power
    _, out, _ = run(capsys, "power", "--json", cluster_size="[5,8,12,20,9,14]", icc=0.05, effect=0.9)
    assert json.loads(out)["power"] == power(cluster_size=[5, 8, 12, 20, 9, 14], icc=0.05, effect=0.9).power
    _, out, _ = run(capsys, "power", "--json", clusters=40, cluster_size=10, icc=0.05, hypothesis="equivalence", power=0.8, find="margin")
    found = solve(find="margin", clusters=40, cluster_size=10, icc=0.05, hypothesis="equivalence", power=0.8)
    assert json.loads(out)["inputs"]["margin"] == found.value


def test_a_layout_from_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "layout.csv").write_text("0,1,1\n0,0,1\n")
    _, out, _ = run(capsys, "power", "--json", layout=tmp_path / "layout.csv", clusters=8, cluster_size=10, icc=0.05, effect=0.5)
    assert json.loads(out)["power"] == power(layout=[[0, 1, 1], [0, 0, 1]], clusters=8, cluster_size=10, icc=0.05, effect=0.5).power


def test_co_primary_outcomes(capsys: pytest.CaptureFixture[str]) -> None:
    together = {"between_person_correlation": 0.02, "within_person_correlation": 0.3}
    code, out, _ = run(capsys, "power", "--json", effects=".3,.4", clusters=30, cluster_size=20, icc=".05,.03", **together)
    expected = co_primary(effects=(0.3, 0.4), clusters=30, cluster_size=20, icc=(0.05, 0.03), **together)
    assert code == 0 and json.loads(out)["power"] == expected.power
    _, out, _ = run(capsys, "power", effects=".3,.4", power=0.8, cluster_size=20, icc=0.05, test="any", **together)
    assert "at least one outcome" in out


def test_planned_beside_the_formula(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "power", "--json", pairs=12, cluster_size=10, icc=0.05, effect=0.6, planned=200, seed=1)
    expected = planned_power(pairs=12, cluster_size=10, icc=0.05, effect=0.6, trials=200, seed=1)
    answer = json.loads(out)
    assert code == 0 and answer["formula"] == expected.formula
    assert [r["power"] for r in answer["table"]] == expected.frame["power"].tolist()
    code, out, _ = run(capsys, "power", clusters="12,24", cluster_size=10, icc=0.05, effect=0.6, planned=100, seed=1)
    assert code == 0 and out.count("kenward-roger") == 2 and "24" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--layout", "0,2;0,1"], "layout"),
        (["--layout", "0,x;0,1"], "none of 0, 1 and NA"),
        (["--layout", "no-such-file.csv"], "cannot be read"),
        (["--layout", "0,1;0"], "equally long"),
        (["--layout", "0,1;1,0", "--crossover"], "one or the other"),
        (["--effects", ".3,.4"], "--between-person-correlation"),
        (["--test", "all"], "--effects"),
        (["--effects", ".3,.4", "--between-person-correlation", ".02", "--within-person-correlation", ".3", "--strata", "3"], "no meaning"),
        (["--planned", "100"], "--seed"),
        (["--strata", "4", "--planned", "100", "--seed", "1"], "planned_power simulates"),
        (["--clusters", "12:8:3"], "two numbers"),
        (["--r2-person", ".1:.2"], "differ by arm"),
        (["--margin", ".3"], "hypothesis"),
        (["--means", "0,x"], "--means"),
    ],
)
def test_one_message_for_the_designs(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    code, out, err = run(capsys, "power", *words, **{k: v for k, v in BASE.items() if f"--{k.replace('_', '-')}" not in words})
    assert (code, out) == (2, "")
    assert says in err and len(err.strip().splitlines()) == 1


@pytest.fixture
def people(tmp_path: Path) -> Path:
    rng = np.random.default_rng(8)
    site = np.repeat(np.arange(20), 6)
    arm = np.where(site % 2, "intervention", "control")
    latent = rng.normal(size=20)[site] + (arm == "intervention") + rng.logistic(size=site.size)
    path = tmp_path / "people.csv"
    pd.DataFrame({"site": [f"S{s}" for s in site], "arm": arm, "score": latent, "quit": (latent > 0.5).astype(int)}).to_csv(
        path, index=False
    )
    return path


def test_icc_adjusted_and_on_the_latent_scale(capsys: pytest.CaptureFixture[str], people: Path) -> None:
    frame = pd.read_csv(people)
    code, out, _ = run(capsys, "icc", str(people), "--json", outcome="score", cluster="site", adjust="arm", method="reml")
    answer, expected = json.loads(out), estimate_icc(frame, outcome="score", cluster="site", adjust="arm", method="reml")
    assert code == 0 and answer["interval"] == "profile" and answer["adjusted_for"] == ["arm"]
    assert answer["icc"] == pytest.approx(expected.icc, rel=1e-9)
    _, out, _ = run(capsys, "icc", str(people), "--json", outcome="quit", cluster="site", method="fleiss-cuzick", scale="latent")
    answer = json.loads(out)
    assert answer["icc"] == pytest.approx(estimate_icc(frame, outcome="quit", cluster="site", method="fleiss-cuzick", scale="latent").icc)
    assert answer["scale"] == "latent"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"outcome": "score", "cluster": "site", "adjust": "arms"}, "arms"),
        ({"outcome": "score", "cluster": "site", "scale": "latent"}, "0 or 1"),
        ({"outcome": "score", "cluster": "site", "scale": "logit"}, "scale"),
        ({"outcome": "score", "cluster": "site", "method": "reml", "interval": "smith"}, "does not go with"),
        ({"outcome": "arm", "cluster": "site"}, "number"),
        ({"outcome": "score", "cluster": "site", "conf_level": 95}, "between 0 and 1"),
    ],
)
def test_icc_bad_input(capsys: pytest.CaptureFixture[str], people: Path, options: dict[str, str], says: str) -> None:
    code, out, err = run(capsys, "icc", str(people), **options)
    assert (code, out) == (2, "")
    assert says in err
