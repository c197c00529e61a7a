"""``trialkit check`` as a CI server meets it: verdicts by exit code, what it writes, and the examples in docs/ci.md."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]

from trialkit.cli import main
from trialkit.cli.check import check as command
from trialkit.simulation.scenario import Limits

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "synthetic_data" / "scenarios"
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["check", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


@pytest.mark.parametrize(("name", "code", "word"), [("null", 0, "PASS"), ("supervision", 0, "PASS"), ("mnar", 1, "FAIL")])
def test_the_three_scenarios(name: str, code: int, word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    junit = tmp_path / "check.xml"
    found, out, err = run(capsys, SCENARIOS / f"{name}.toml", "--trials", 50, "--seed", 31, "--junit", junit)
    assert (found, err) == (code, "")
    assert f"{word}: " in out
    suite = ET.fromstring(junit.read_bytes())
    cases = suite.findall("testcase")
    assert int(suite.attrib["tests"]) == len(cases) == (72 if name == "null" else 54)
    bad = {c.attrib["name"] for c in cases if c.find("failure") is not None}
    assert int(suite.attrib["failures"]) == len(bad)
    # only what the driver touches is outside
    assert bad == ({"climate: bias", "climate: coverage"} if name == "mnar" else set())


def test_short_and_full_table(capsys: pytest.CaptureFixture[str]) -> None:
    _, short, _ = run(capsys, SCENARIOS / "null.toml", "--trials", 4, "--seed", 1)
    _, full, _ = run(capsys, SCENARIOS / "null.toml", "--trials", 4, "--seed", 1, "--full")
    table = [line for line in short.splitlines() if not line.startswith("  ")]
    assert max(map(len, table)) <= 140 and len(table) == 20
    assert "model_se" in full and "model_se" not in short
    assert short.splitlines()[-1] == full.splitlines()[-1]


def test_zipper_plot_repeats_to_the_byte(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pictures = []
    for name in ("a.svg", "b.svg"):
        code, _, _ = run(capsys, SCENARIOS / "null.toml", "--trials", 8, "--seed", 1, "--zipper", tmp_path / name)
        assert code == 0
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]
    assert ET.fromstring(pictures[0]).tag.endswith("svg")


def test_files_that_exist_and_endings_are_refused_before_the_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kept = tmp_path / "check.xml"
    kept.write_text("mine")
    # ten million trials would be noticed
    code, _, err = run(capsys, SCENARIOS / "null.toml", "--trials", 10_000_000, "--seed", 1, "--junit", kept)
    assert code == 3 and "--force" in err and kept.read_text() == "mine"
    code, _, err = run(capsys, SCENARIOS / "null.toml", "--trials", 10_000_000, "--seed", 1, "--zipper", tmp_path / "check.pdf")
    assert code == 2 and ".svg or .png" in err


def test_analyses_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    base = (SCENARIOS / "null.toml", "--trials", 3, "--seed", 1, "--json")
    code, out, _ = run(capsys, *base, "--analysis", "complete cases", "--analysis", "site means")
    found: dict[str, Any] = json.loads(out)
    assert code == 0 and found["analyses"] == ["complete cases", "site means"]
    code, _, err = run(capsys, *base, "--analysis", "site mean")
    assert code == 2 and "Did you mean 'site means'" in err


# --- docs/ci.md ---------------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_workflow_and_the_hook_are_yaml_with_a_command_that_parses() -> None:
    workflow, hooks = (yaml.safe_load(text) for text in blocks("yaml"))
    # YAML 1.1 reads a bare `on` as true
    assert set(workflow[True]) == {"push", "pull_request"}
    steps = workflow["jobs"]["check"]["steps"]
    runs = [s["run"] for s in steps if "run" in s and s["run"].startswith("trialkit")]
    (hook,) = hooks["repos"][0]["hooks"]
    assert hook["pass_filenames"] is False and hook["language"] == "system"
    app = typer.Typer()
    app.command()(command)
    parser = typer.main.get_command(app)
    for line in [*runs, hook["entry"]]:
        words = shlex.split(line)
        assert words[:2] == ["trialkit", "check"]
        context = parser.make_context("check", words[2:])
        assert context.params["trials"] >= 50 and context.params["scenario"] == Path("trial/scenario.toml")
    # what is uploaded is what is written
    (upload,) = [s for s in steps if s.get("uses", "").startswith("actions/upload-artifact")]
    assert all(name in runs[0] for name in upload["with"]["path"].split())


def test_the_limits_shown_are_limits() -> None:
    (text,) = blocks("toml")
    limits = Limits(**tomllib.loads(text)["limits"])
    assert limits.power == {"climate": 0.8} and limits.coverage == (0.94, 0.97)
    # every key a scenario can take is shown
    assert set(tomllib.loads(text)["limits"]) == set(Limits.model_fields)
