"""The command line as its user meets it: what it prints, its exit codes, and one clear message for each fault."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trialkit.cli import main

ROOT = Path(__file__).parents[2]
DATA = ROOT / "synthetic_data"
DESIGN = DATA / "trial.toml"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """The sites still there at the draw, as a file."""
    lines = (DATA / "sites.csv").read_text().splitlines()
    path = tmp_path / "sites.csv"
    path.write_text("\n".join([lines[0], *(x for x in lines[1:] if ",randomised," in x)]) + "\n")
    return path


# --- power and icc ------------------------------------------------------------------------------------------


def test_power_of_the_published_trial(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "power", "--clusters", 68, "--cluster-size", 2, "--icc", ".05", "--effect", ".5", "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["power"] == pytest.approx(0.8005608, abs=1e-6)
    assert answer["df"] == 66


def test_power_solves_for_clusters_and_effect(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "power", "--cluster-size", 2, "--icc", ".05", "--effect", ".5", "--power", ".8", "--json")
    assert json.loads(out)["clusters"] == 68
    _, out, _ = run(capsys, "power", "--clusters", 68, "--cluster-size", 2, "--icc", ".05", "--power", ".8", "--json")
    assert json.loads(out)["effect"] == pytest.approx(0.499642, abs=1e-6)


def test_power_grid(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "power", "--clusters", "20,40", "--cluster-size", 10, "--icc", ".01,.05,.1", "--effect", ".4", "--json")
    grid = json.loads(out)["grid"]
    assert code == 0
    assert len(grid) == 6
    code, out, _ = run(capsys, "power", "--clusters", "20,40", "--cluster-size", 10, "--icc", ".01", "--effect", ".4")
    assert code == 0
    assert len(out.splitlines()) >= 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--clusters", "68", "--cluster-size", "2", "--icc", "1.5", "--effect", ".5"], "icc"),
        (["--clusters", "68", "--cluster-size", "0", "--icc", ".05", "--effect", ".5"], "cluster_size"),
        (["--clusters", "sixty", "--cluster-size", "2", "--icc", ".05", "--effect", ".5"], "not a number"),
        (["--clusters", "6.5", "--cluster-size", "2", "--icc", ".05", "--effect", ".5"], "whole number"),
        (["--cluster-size", "2", "--icc", ".05"], "give --clusters and --effect"),
        (["--clusters", "4", "--pairs", "2", "--cluster-size", "2", "--icc", ".05", "--effect", ".5"], "--pairs"),
        (["--clusters", "68", "--cluster-size", "2", "--icc", ".05", "--effect", ".5", "--power", ".8"], "leave out either"),
        (["--clusters", "68"], "Missing option"),
        (["--clusterz", "68"], "No such option"),
    ],
)
def test_power_bad_input(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    code, out, err = run(capsys, "power", *arguments)
    assert code == 2
    assert out == ""
    assert says in err


def test_icc(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "icc", DATA / "people.csv", "--outcome", "climate_0", "--cluster", "site", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["conf_low"] < answer["icc"] < answer["conf_high"]
    code, _, err = run(capsys, "icc", DATA / "people.csv", "--outcome", "climat_0", "--cluster", "site")
    assert code == 2
    assert "Did you mean 'climate_0'" in err


# --- allocation ---------------------------------------------------------------------------------------------


def test_plan_draw_verify(capsys: pytest.CaptureFixture[str], tmp_path: Path, sites: Path) -> None:
    plan, allocation, table = tmp_path / "plan.json", tmp_path / "allocation.json", tmp_path / "allocation.csv"
    code, out, _ = run(capsys, "allocate", "plan", sites, "--design", DESIGN, "-o", plan, "--json")
    locked = json.loads(out)
    assert (code, locked["pairs"], len(locked["singles"])) == (0, 42, 1)
    seed = tmp_path / "seed.txt"
    seed.write_text("5a0c1e7f9b3d24866a1f0c2b7d9e4835\n")
    code, out, err = run(
        capsys, "allocate", "draw", plan, "--seed-file", seed, "--seed-source", "two dice", "-o", allocation, "--csv", table
    )
    assert code == 0, err
    assert locked["digest"] in out
    before = allocation.read_bytes()

    code, out, _ = run(capsys, "allocate", "verify", allocation, sites, "--commitment", locked["commitment"], "--json")
    assert code == 0
    assert json.loads(out)["anchored"] is True

    # a second draw, and a draw over a file
    code, _, err = run(capsys, "allocate", "draw", plan, "--seed-file", seed, "--seed-source", "again", "-o", tmp_path / "b.json")
    assert code == 3
    assert "drawn once" in err
    assert not (tmp_path / "b.json").exists()
    code, _, _ = run(capsys, "allocate", "plan", sites, "--design", DESIGN, "-o", plan)
    assert code == 3
    assert allocation.read_bytes() == before

    # one site's budget changed after the fact
    text = sites.read_text()
    first = text.splitlines()[1].split(",")
    sites.write_text(text.replace(first[4], "999", 1))
    code, _, err = run(capsys, "allocate", "verify", allocation, sites)
    assert code == 1
    assert f"site {first[0]}" in err


def test_seed_from_standard_input(capsys: pytest.CaptureFixture[str], tmp_path: Path, sites: Path) -> None:
    plan = tmp_path / "plan.json"
    run(capsys, "allocate", "plan", sites, "--design", DESIGN, "-o", plan)
    done = subprocess.run(
        ["trialkit", "allocate", "draw", plan, "--seed", "-", "--seed-source", "x", "-o", tmp_path / "a.json"],
        executable=Path(sys.executable).with_name("trialkit"),
        input="5a0c1e7f9b3d24866a1f0c2b7d9e4835\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "a.json").read_text())


def test_there_is_no_default_seed(capsys: pytest.CaptureFixture[str], tmp_path: Path, sites: Path) -> None:
    plan = tmp_path / "plan.json"
    run(capsys, "allocate", "plan", sites, "--design", DESIGN, "-o", plan)
    code, _, err = run(capsys, "allocate", "draw", plan, "--seed-source", "x", "-o", tmp_path / "a.json")
    assert code == 2
    assert "no default seed" in err
    code, _, err = run(capsys, "allocate", "draw", plan, "--seed-file", tmp_path / "none", "--seed-source", "x", "-o", tmp_path / "a.json")
    assert code == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.replace("annual_budget", "budget", 1), "annual_budget"),
        (lambda t: t + t.splitlines()[1] + "\n", "rows 2 and"),
        (lambda t: t.replace("S05", "", 1), "blank"),
        (lambda t: t + "one,cell\n", "cells where the header has"),
        (lambda t: "", "empty"),
    ],
)
def test_bad_site_lists(capsys: pytest.CaptureFixture[str], tmp_path: Path, sites: Path, change, says: str) -> None:
    sites.write_text(change(sites.read_text()))
    code, _, err = run(capsys, "allocate", "plan", sites, "--design", DESIGN, "-o", tmp_path / "plan.json")
    assert code == 2
    assert says in err
    assert not (tmp_path / "plan.json").exists()


# --- analyse ------------------------------------------------------------------------------------------------


def test_analyse_writes_tables_pictures_and_the_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "results"
    arguments = ("analyse", DATA / "people.csv", "--design", DESIGN, "-o", folder, "--m", 3, "--seed", 5)
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    assert "climate" in out
    names = {p.name for p in folder.rglob("*") if p.is_file()}
    assert {"report.html", "results.csv", "forest.svg"} <= names
    code, _, err = run(capsys, *arguments)
    assert code == 3
    assert "--force" in err
    code, out, _ = run(capsys, *arguments, "--force", "--json")
    answer = json.loads(out)
    assert code == 0
    assert len(answer["results"]) == 18


@pytest.mark.parametrize(
    ("design", "data", "says"),
    [
        (lambda t: t.replace("[columns]", "[colums]"), lambda t: t, "Did you mean 'columns'"),
        (lambda t: t.replace('name = "climate"', 'name = "climat"'), lambda t: t, "climat"),
        (lambda t: t, lambda t: t.replace("site,", "place,", 1), "'site'"),
        (lambda t: t, lambda t: t.replace(",control,", ",contorl,", 1), "contorl"),
        (lambda t: t, lambda t: t.replace("P002,", "P001,", 1), "P001"),
    ],
)
def test_analyse_bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path, design, data, says: str) -> None:
    toml, table = tmp_path / "trial.toml", tmp_path / "people.csv"
    toml.write_text(design(DESIGN.read_text()))
    table.write_text(data((DATA / "people.csv").read_text()))
    code, out, err = run(capsys, "analyse", table, "--design", toml, "-o", tmp_path / "r", "--complete-cases")
    assert code == 2, err
    assert says in err
    assert toml.name in err or table.name in err  # the file is named
    assert out == ""
    assert not any((tmp_path / "r").glob("*"))


def test_analyse_makes_the_randomisation_test_from_the_allocation(capsys: pytest.CaptureFixture[str], tmp_path: Path, sites: Path) -> None:
    """Plan, draw, data by the draw: the test is made by the certificate; data that disagree with any form of it stop the command."""
    plan, certificate, table = tmp_path / "plan.json", tmp_path / "allocation.json", tmp_path / "allocation.csv"
    assert run(capsys, "allocate", "plan", sites, "--design", DESIGN, "-o", plan)[0] == 0
    drawn = run(capsys, "allocate", "draw", plan, "--seed", "8392017465" * 3, "--seed-source", "dice", "-o", certificate, "--csv", table)
    assert drawn[0] == 0, drawn[2]
    lines = table.read_text().splitlines()[1:]
    arm = {line.split(",")[0]: line.split(",")[-1] for line in lines}
    people = (DATA / "people.csv").read_text().splitlines()
    names = people[0].split(",")
    rows = [line.split(",") for line in people[1:]]
    data, other, alone = tmp_path / "people.csv", tmp_path / "other.csv", tmp_path / "one.toml"
    site, column = names.index("site"), names.index("arm")
    data.write_text("\n".join([people[0], *(",".join([*r[:column], arm[r[site]], *r[column + 1 :]]) for r in rows)]) + "\n")
    first = rows[0][site]
    wrong = {**arm, first: {"control": "intervention", "intervention": "control"}[arm[first]]}
    other.write_text("\n".join([people[0], *(",".join([*r[:column], wrong[r[site]], *r[column + 1 :]]) for r in rows)]) + "\n")
    text = DESIGN.read_text()
    start, end = text.index("[[outcomes]]"), text.index("[[outcomes]]", text.index("[[outcomes]]") + 5)
    rest = text.index("[[covariates]]")
    alone.write_text(text[:end] + text[rest:])
    assert start < end < rest
    options = ("--design", alone, "-o", tmp_path / "r", "--complete-cases")
    for allocation, says in ((certificate, f"site '{first}' drew"), (plan, "the plan never gives"), (table, f"site '{first}' drew")):
        code, out, err = run(capsys, "analyse", other, *options, "--allocation", allocation)
        assert (code, out) == (2, "")
        assert says in err
    code, out, err = run(capsys, "analyse", data, *options, "--allocation", certificate, "--json")
    assert code == 0, err
    answer = json.loads(out)
    row = next(r for r in answer["analyses"] if r["analysis"] == "randomisation test, adjusted")
    assert 0 < row["p_value"] <= 1
    assert row["conf_low"] < row["estimate"] < row["conf_high"]
    assert any("assignments sampled from the plan's" in note for note in answer["notes"])
    assert json.loads(certificate.read_text())["plan"]["digest"] in (tmp_path / "r" / "report.html").read_text()


# --- simulate and check -------------------------------------------------------------------------------------


def test_simulate_writes_the_same_bytes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    scenario = DATA / "scenarios" / "supervision.toml"
    for name in ("a", "b"):
        code, _, _ = run(capsys, "simulate", scenario, "--seed", 3, "-o", tmp_path / name)
        assert code == 0
    for file in ("sites.csv", "people.csv", "truth.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    code, _, _ = run(capsys, "simulate", scenario, "--seed", 3, "-o", tmp_path / "a")
    assert code == 3


def test_check_says_yes_and_no(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "check", DATA / "scenarios" / "null.toml", "--trials", 40, "--seed", 1, "--json")
    assert code == 0, err
    assert json.loads(out)["passed"] is True
    bad = tmp_path / "bad.toml"
    bad.write_text("nonsense = 1\n")
    code, _, err = run(capsys, "check", bad, "--trials", 10, "--seed", 1)
    assert code == 2
    assert "nonsense" in err


# --- the rest -----------------------------------------------------------------------------------------------


def test_version_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[:2] == (0, "trialkit 0.1.0\n")
    code, _, err = run(capsys, "powr")
    assert code == 2
    assert "power" in err


@pytest.mark.parametrize(("command", "word"), [(("allocate", "plan"), "[allocation]"), (("analyse",), "[compliance]")])
def test_brackets_of_the_design_survive_in_the_help(capsys: pytest.CaptureFixture[str], command: tuple[str, ...], word: str) -> None:
    assert word in run(capsys, *command, "--help")[1]


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "trialkit", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "trialkit 0.1.0\n")
    done = subprocess.run([sys.executable, "-m", "trialkit", "powr"], capture_output=True, text=True, check=False)
    assert done.returncode == 2


def test_a_fault_of_our_own_is_one_line_and_70(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:

    def broken(**_: object) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr(sys.modules["trialkit.power"], "power", broken)
    code, _, err = run(capsys, "power", "--clusters", 68, "--cluster-size", 2, "--icc", ".05", "--effect", ".5")
    assert code == 70
    assert "fault of its own" in err
    assert len(err.splitlines()) == 1


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:

    def stopped(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["trialkit.power"], "power", stopped)
    code, _, _ = run(capsys, "power", "--clusters", 68, "--cluster-size", 2, "--icc", ".05", "--effect", ".5")
    assert code == 130


@pytest.mark.parametrize("arguments", [["--help"], ["power", "--clusters", "20", "--cluster-size", "10", "--icc", ".01", "--effect", ".3"]])
def test_a_reader_that_goes_away_is_no_failure(arguments: list[str]) -> None:
    """`trialkit ... | true` is not exit 1, which means that a check did not hold."""
    command = Path(sys.executable).with_name("trialkit")
    piped = subprocess.run(["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "_", command, *arguments], capture_output=True, check=False)
    assert (piped.returncode, piped.stderr) == (0, b"")
    closed = subprocess.run(["bash", "-c", '"$@" >&-', "_", command, *arguments], capture_output=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, b"")


@pytest.mark.parametrize("number", ["1_0", "\u0664\u0660", "0x10", "nan", "1e999"])
def test_numbers_are_ascii(capsys: pytest.CaptureFixture[str], number: str) -> None:
    code, _, err = run(capsys, "power", "--clusters", number, "--cluster-size", 10, "--icc", ".01", "--effect", ".3")
    assert code == 2
    assert "number" in err


def test_analyse_writes_all_or_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A picture or table that is in the way is seen before anything is written."""
    for taken in ("figures/flow.svg", "table2.csv"):
        folder = tmp_path / taken.replace("/", "_")
        (folder / taken).parent.mkdir(parents=True)
        (folder / taken).write_text("mine")
        code, _, err = run(capsys, "analyse", DATA / "people.csv", "--design", DESIGN, "-o", folder, "--complete-cases")
        assert code == 3
        assert taken.split("/")[-1] in err
        assert [p for p in folder.rglob("*") if p.is_file()] == [folder / taken]
