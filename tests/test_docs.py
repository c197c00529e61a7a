"""The words outside are run too: every docstring example, and the README's Python."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

from trialkit import design as design_module

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in (ROOT / "trialkit").rglob("*.py")
    if ">>>" in p.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", sorted(p.relative_to(ROOT).as_posix() for p in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]))
def test_python_in_the_docs_runs(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Blocks of one page share a namespace, as a reader's notebook would; files they write go elsewhere."""
    blocks = python_blocks(ROOT / page)
    if not blocks:
        pytest.skip("no Python on this page")
    (tmp_path / "synthetic_data").symlink_to(ROOT / "synthetic_data")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__docs__"}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


DESIGN_PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def keys_on_the_page(heading: str) -> dict[str, str]:
    """Key and printed default of the table under a heading of docs/design.md."""
    part = DESIGN_PAGE.partition(heading + "\n")[2] if heading.startswith("#") else DESIGN_PAGE.partition(heading)[2]
    table = re.search(r"\| key \| default \|.*\n\|---\|---\|---\|\n((?:\|.*\n)+)", part)
    assert table is not None, heading
    cells = [[c.strip() for c in line.strip("|\n ").split("|")] for line in table.group(1).splitlines()]
    return {c[0].strip("`"): c[1] for c in cells}


@pytest.mark.parametrize(
    ("heading", "block"),
    [
        *(
            (f"### `[{name}]`", name)
            for name in ("trial", "columns", "arms", "estimand", "analysis", "imputation", "allocation", "power", "flow", "compliance")
        ),
        ("### `[[outcomes]]`", "outcomes"),
        ("### `[[covariates]]`", "covariates"),
        ("`[[allocation.criteria]]`:", "criteria"),
    ],
)
def test_every_key_of_the_design_is_on_its_page(heading: str, block: str) -> None:
    model = getattr(
        design_module, {"outcomes": "Outcome", "covariates": "Covariate", "criteria": "Criterion"}.get(block, block.capitalize())
    )
    listed = keys_on_the_page(heading)
    assert set(listed) == set(model.model_fields)
    for key, field in model.model_fields.items():
        if field.is_required():
            assert listed[key] == "required", key
        elif isinstance(field.default, bool | int | float) or (
            isinstance(field.default, str) and field.default and listed[key][:3] != "the"
        ):
            said = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
            assert listed[key] in (said, "by outcome"), key


def test_the_designs_blocks_are_all_on_the_page() -> None:
    assert set(re.findall(r"^### `\[+(\w+)\]+`", DESIGN_PAGE, flags=re.MULTILINE)) == set(design_module.TrialDesign.model_fields)


def test_the_design_pages_example_is_a_design() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", DESIGN_PAGE, flags=re.DOTALL)
    design = design_module.TrialDesign.from_text(text)
    assert [o.chosen_measure for o in design.outcomes] == ["standardised-difference", "risk-difference", "rate-ratio"]
