"""What every test shares: one BLAS thread, the slow tier kept apart, the folders' places."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# the same examples each time: a failure is a change, never chance. `--hypothesis-profile=search` looks for new ones
settings.register_profile("everyday", derandomize=True, deadline=None, database=None)
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile("everyday")

# before the first test imports NumPy
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slow tier runs only when asked for by its name (`make calibration`, or -m slow)."""
    if "slow" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="the slow tier: make calibration")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)
