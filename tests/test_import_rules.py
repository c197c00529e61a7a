"""Imports point down only (docs/architecture.md): a test reads every import statement of the package."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "trialkit"

# each room may import from the rooms named; a room may always import from itself
MAY_IMPORT = {
    "_kernels": set(),
    "door": set(),
    "results": set(),
    "design": {"door"},
    "allocation": {"design", "results", "door", "_kernels"},
    "power": {"design", "results", "door", "_kernels"},
    "imputation": {"design", "results", "door", "_kernels"},
    "itt": {"design", "results", "door", "_kernels"},
    "simulation": {"allocation", "power", "imputation", "itt", "design", "results", "door", "_kernels"},
    "report": {"allocation", "power", "imputation", "itt", "design", "results", "door", "_kernels"},
    "cli": {"simulation", "report", "allocation", "power", "imputation", "itt", "design", "results", "door", "_kernels"},
    "__init__": set(),
    "__main__": {"cli"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[tuple[str, int]]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            names = [node.module or ""]
            if node.module == "trialkit":
                names = [f"trialkit.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "trialkit" and len(parts) > 1 and parts[1] != "__version__":
                found.add((parts[1], node.lineno))
    return found


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    assert here in MAY_IMPORT, f"{here} is a room nobody declared"
    wrong = [f"line {line}: {name}" for name, line in sorted(imported_rooms(path)) if name != here and name not in MAY_IMPORT[here]]
    assert not wrong, f"{here} may not import {wrong}"


def test_the_rule_can_fail(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("from trialkit.itt import itt\nimport trialkit.allocation.plans\nfrom trialkit import report\n")
    assert {name for name, _ in imported_rooms(source)} == {"itt", "allocation", "report"}


def test_no_import_cycles_between_modules() -> None:
    """Modules inside one room do not import each other in a circle at import time."""
    graph: dict[str, set[str]] = {}
    names = {".".join(("trialkit", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__") for p in SOURCES}
    for path in SOURCES:
        me = ".".join(("trialkit", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        edges = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # top level only: late imports are how a cycle is avoided
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("trialkit"):
                for alias in node.names:
                    child = f"{node.module}.{alias.name}"
                    edges.add(child if child in names else node.module)
        graph[me] = edges - {me}
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if state.get(name) == 2:
            return
        assert state.get(name) != 1, f"import cycle: {' -> '.join((*path, name))}"
        state[name] = 1
        for other in sorted(graph.get(name, ())):
            visit(other, (*path, name))
        state[name] = 2

    sys.setrecursionlimit(max(sys.getrecursionlimit(), 5000))
    for name in sorted(graph):
        visit(name, ())
