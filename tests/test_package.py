"""What `import trialkit` gives, and what it does not load."""

from __future__ import annotations

import json
import subprocess
import sys

import trialkit as tk

SURFACE = {
    "TrialDesign", "exact", "exact_if_possible", "nearest", "match_pairs", "within_pairs", "verify",
    "power", "sample_size", "detectable_effect", "estimate_icc", "impute", "pool", "itt", "fit_mixed",
    "Scenario", "simulate", "check", "report",
}  # fmt: skip
HEAVY = ("numpy", "pandas", "scipy", "statsmodels", "sklearn", "matplotlib", "pydantic", "pingouin", "seaborn", "typer")


def in_fresh_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_surface_is_there_and_callable() -> None:
    assert set(tk.__all__) >= SURFACE
    for name in tk.__all__:
        assert getattr(tk, name) is not None
    for name in SURFACE:
        assert callable(getattr(tk, name))


def test_import_is_lazy() -> None:
    loaded = json.loads(in_fresh_python(f"import sys, json, trialkit; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"))
    assert loaded == []


def test_help_is_light() -> None:
    code = f"""
import sys, json, io, contextlib
from trialkit.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(['--help'])
print(json.dumps([m for m in {HEAVY!r} if m in sys.modules and m != 'typer']))
"""
    assert json.loads(in_fresh_python(code)) == []


def test_verbs_survive_the_import_of_their_rooms() -> None:
    """`trialkit.power` is a package and tk.power a function: whichever is imported first, the verb wins."""
    code = """
import trialkit.power, trialkit.itt, trialkit.report
from trialkit.power import sample_size
import trialkit as tk
print(callable(tk.power), callable(tk.itt), callable(tk.report), tk.power.__name__)
"""
    assert in_fresh_python(code).split() == ["True", "True", "True", "power"]


def test_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(tk, "no_such_verb")


def test_dir_lists_the_surface() -> None:
    assert set(dir(tk)) >= SURFACE
