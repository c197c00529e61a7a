"""``trialkit power`` and ``trialkit icc`` over the designs and corrections of the room: the same numbers, one message for a fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.cli import main
from trialkit.power import PowerDesign, crossover, detectable_effect, estimate_icc, power, sample_size, solve, stepped_wedge

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
        ({"outcome": "arm", "cluster": "site"}, "numeric"),
        ({"outcome": "score", "cluster": "site", "conf_level": 95}, "between 0 and 1"),
    ],
)
def test_icc_bad_input(capsys: pytest.CaptureFixture[str], people: Path, options: dict[str, str], says: str) -> None:
    code, out, err = run(capsys, "icc", str(people), **options)
    assert (code, out) == (2, "")
    assert says in err
