"""docs/methods/allocation.md: its shell lines and its table of bad input are run (its Python is, with every page's, in test_docs)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from trialkit import door

PAGE = (Path(__file__).parent.parent.parent / "docs" / "methods" / "allocation.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(.+?)` \| (\w+) \| (.+?) \|$", PAGE, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("page")
        patch.chdir(folder)
        names: dict[str, Any] = {"folder": folder}
        for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
            exec(compile(block, "allocation.md", "exec"), names)
    return names


@pytest.mark.parametrize(("code", "error", "says"), ROWS, ids=[r[0] for r in ROWS])
def test_bad_input(code: str, error: str, says: str, namespace: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(namespace["folder"])
    with pytest.raises(getattr(door, error)) as caught:
        eval(code, namespace)
    assert says in str(caught.value)
    lines = str(caught.value).split("\n")  # the ways out stand below the complaint
    assert len(str(caught.value)) < 600 and len(lines) <= 5 and all(line.isprintable() for line in lines)


def test_the_table_is_there() -> None:
    assert len(ROWS) >= 45


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed, so the shell lines of the page were not run")
def test_the_shell_lines_print_what_the_page_says() -> None:
    (script, printed) = re.findall(r"```sh\n(.*?)```\n```text\n(.*?)```", PAGE, flags=re.DOTALL)[0]
    answer = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == printed
