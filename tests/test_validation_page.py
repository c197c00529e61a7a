"""docs/validation.md says what the stored results say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_page_is_written_from_the_stored_results() -> None:
    spec = importlib.util.spec_from_file_location("validation_page", ROOT / "docs" / "validation.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "validation.md").read_text(encoding="utf-8") == module.page(), "run: python docs/validation.py"


def test_architecture_names_every_module() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [p.relative_to(ROOT / "trialkit").as_posix() for p in (ROOT / "trialkit").rglob("*.py") if p.name != "__init__.py"]
    missing = [m for m in missing if f"`{m.split('/')[-1]}`" not in page]
    assert not missing, f"docs/architecture.md does not place {missing}"
