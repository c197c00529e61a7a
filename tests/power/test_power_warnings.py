"""The warnings that teach: each is there when it should be, and silent when not."""

from __future__ import annotations

from typing import Any

import pytest

from trialkit.power import power

PLAIN = {"clusters": 68, "cluster_size": 2, "icc": 0.05, "effect": 0.5}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"clusters": 12}, "12 clusters are few"),
        ({"distribution": "z"}, "is an approximation"),
        ({"clusters": 4, "cluster_size": 20, "df": "subjects"}, "df counts people"),
        ({"clusters": 12, "cluster_size": 200, "icc": 0.1}, "larger clusters hardly help"),
    ],
)
def test_each_warning(more: dict[str, Any], words: str) -> None:
    assert any(words in w for w in power(**{**PLAIN, **more}).warnings)
    assert not any(words in w for w in power(**PLAIN).warnings)
