"""The main job: what it prints, what it leaves, the same bytes again; and the README shows what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trialkit.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the demo ran, and what it printed."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("demo")
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        assert main(["demo", "-o", "demo"]) == 0
    return folder / "demo", out.getvalue()


def test_board(demo: tuple[Path, str]) -> None:
    _, board = demo
    assert "0.8006 at d = 0.5" in board
    assert "89 recruited, 4 left before the draw, 85 randomised" in board
    assert "verified site by site" in board
    found = re.search(r"(\d+) of 18 planted effects lie inside", board)
    # a count below 13 of 18 has a chance of about 1e-4 when each interval covers 95 times in 100
    assert found is not None
    assert int(found[1]) >= 13


def test_files(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"sites.csv", "people.csv", "truth.csv", "trial.toml", "plan.json", "allocation.json", "allocation.csv", "results.csv"} <= names
    assert {"table2.html", "table2.tex", "report.html", "figures/forest.svg", "figures/flow.svg", "figures/love.svg"} <= names
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["']https?://""", page)


def test_readme_shows_what_it_prints(demo: tuple[Path, str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- demo -->\n```text\n(.*?)```\n<!-- /demo -->", readme, flags=re.DOTALL)
    assert shown is not None
    assert shown[1] == demo[1]


def test_again_and_again(demo: tuple[Path, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, board = demo
    monkeypatch.chdir(folder.parent)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert main(["demo", "-o", "demo"]) == 3
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    capsys.readouterr()
    assert main(["demo", "-o", "demo", "--force"]) == 0
    out, err = capsys.readouterr()
    assert "never overwritten" in err
    assert out == board
    for path, content in before.items():
        if path.name != "plan.json.log":
            assert path.read_bytes() == content, path
