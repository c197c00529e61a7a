"""NIST's reference data for the analysis of variance (StRD), as mixed models: in a balanced layout REML is the analysis of variance.

``sigma^2`` is the mean square within, and ``1 + m theta`` the F statistic, for groups of m. The files come with scipy's tests.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from trialkit._kernels import reml

FOLDER = Path(scipy.stats.__file__).parent / "tests" / "data" / "nist_anova"
# correct digits asked for; the three last have 13 leading digits in common and keep about four in doubles however they are analysed
DIGITS = {
    **dict.fromkeys(("SiRstv", "SmLs01", "SmLs02", "SmLs03", "AtmWtAg", "SmLs04", "SmLs05", "SmLs06"), 9),
    **dict.fromkeys(("SmLs07", "SmLs08", "SmLs09"), 3.9),
}

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="this scipy came without its tests")


def certified(name: str) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Groups, values, certified F and certified mean square within."""
    text = (FOLDER / f"{name}.dat").read_text()
    between = re.search(r"^Between .*$", text, re.M).group().split()
    within = re.search(r"^Within .*$", text, re.M).group().split()
    rows = [line.split() for line in text.splitlines()[60:] if re.fullmatch(r"\s*\d+\s+[-\d.Ee+]+\s*", line)]
    return np.array([int(r[0]) for r in rows]), np.array([float(r[1]) for r in rows]), float(between[-1]), float(within[-1])


def digits(found: float, truth: float) -> float:
    return 15.0 if found == truth else -np.log10(abs(found - truth) / abs(truth))


@pytest.mark.reference
@pytest.mark.parametrize("name", DIGITS)
def test_certified_digits(name: str) -> None:
    group, y, F, msw = certified(name)
    fit = reml.fit(np.ones((y.size, 1)), y, [group])
    size = y.size / np.unique(group).size
    assert not fit.boundary[0] and fit.status == "ok"
    reached = min(digits(fit.sigma2, msw), digits(1.0 + size * float(fit.theta[0]), F))
    assert reached >= DIGITS[name]
