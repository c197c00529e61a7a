"""The effect along a grid of shifts: bad input. That it equals `itt` point by point is held in tests/imputation/test_sensitivity.py."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.itt import itt, itt_shifts

DESIGN = TrialDesign(outcomes=[{"name": "y", "has_baseline": False}])


def tables(m: int = 3) -> list[pd.DataFrame]:
    rng = np.random.default_rng(1)
    site = np.repeat(np.arange(10), 4)
    y = rng.normal(size=40)
    arm = np.where(site % 2, "intervention", "control")
    return [pd.DataFrame({"person": range(40), "site": site, "arm": arm, "y": y + 0.2 * rng.normal(size=40)}) for _ in range(m)]


def test_directions_may_differ_from_table_to_table() -> None:
    sets = tables()
    rng = np.random.default_rng(2)
    d = rng.normal(size=(1, 3, 40))
    found = itt_shifts(sets, DESIGN, "y", directions=d, steps=[[0.0], [0.4]])
    moved = itt([s.assign(y=s["y"] + 0.4 * d[0, k]) for k, s in enumerate(sets)], DESIGN).frame
    for name in found.columns:
        assert found[name][1] == pytest.approx(moved[name].iloc[0], rel=1e-8)


def test_bad_input_is_named() -> None:
    sets, d = tables(), np.ones((1, 40))
    with pytest.raises(InputError, match="not an outcome"):
        itt_shifts(sets, DESIGN, "z", directions=d, steps=[[0.0]])
    with pytest.raises(InputError, match="at least 2"):
        itt_shifts(tables(1), DESIGN, "y", directions=d, steps=[[0.0]])
    with pytest.raises(InputError, match=r"steps \(R, K\)"):
        itt_shifts(sets, DESIGN, "y", directions=d[:, :3], steps=[[0.0]])
    flat = [s.assign(y=1.0) for s in sets]
    with pytest.raises(InputError, match="cannot be analysed: the outcome has one value"):
        itt_shifts(flat, DESIGN, "y", directions=d, steps=[[0.0]])
    with pytest.raises(InputError, match="cannot be analysed at every shift"):
        itt_shifts(sets, DESIGN, "y", directions=np.stack([-s["y"] for s in sets])[None], steps=[[1.0]])


def test_a_shifted_count_is_no_count() -> None:
    design = TrialDesign(outcomes=[{"name": "y", "type": "count", "has_baseline": False}])
    with pytest.raises(InputError, match="shifted count outcome is none any more"):
        itt_shifts([], design, "y", directions=[], steps=[])
