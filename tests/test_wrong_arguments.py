"""What a hurried user gives by mistake gets one clear error, never an AttributeError or a phantom site."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import trialkit as tk
from trialkit.door import InputError
from trialkit.itt import fit_marginal

RNG = np.random.default_rng(1)
N = 120
PEOPLE = pd.DataFrame(
    {
        "person": [f"p{k}" for k in range(N)],
        "site": [f"s{k // 6:02d}" for k in range(N)],
        "arm": ["control" if (k // 6) % 2 else "intervention" for k in range(N)],
        "y": RNG.normal(size=N),
        "y_0": RNG.normal(size=N),
        "band": RNG.choice(["a", "b"], N),
    }
)
SITES = pd.DataFrame({"site": list("abcd"), "x": [1, 2, 3, 4]})
DESIGN = {"outcomes": [{"name": "y"}]}


def with_na() -> pd.DataFrame:
    frame = PEOPLE.assign(y=PEOPLE["y"].astype(str))
    frame.loc[4, "y"] = "NA"
    return frame


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tk.itt(with_na(), tk.TrialDesign(**DESIGN)), "row 6, column 'y': 'NA' is not a number"),
        (lambda: tk.fit_mixed("y ~ arm", PEOPLE.assign(y=PEOPLE["y"] + 1j), groups="site"), "complex"),
        (lambda: tk.fit_mixed("y ~ arm", PEOPLE, groups=3), "name|names of the grouping columns"),
        (lambda: tk.fit_mixed("y ~ arm", PEOPLE, groups="site", conf_level="a"), "conf_level = 'a'"),
        (lambda: tk.fit_mixed("y ~ arm", PEOPLE, groups="site").confint(conf_level="95"), "conf_level = '95'"),
        (lambda: fit_marginal("y ~ arm", PEOPLE, cluster="site", conf_level="95"), "conf_level = '95'"),
        (lambda: tk.impute(PEOPLE, {}, seed=1), "needs a TrialDesign, not dict"),
        (lambda: tk.itt(PEOPLE, None), "needs a TrialDesign"),
        (lambda: tk.check(None, trials=3, seed=1), "takes a Scenario, not NoneType"),
        (lambda: tk.within_pairs(3), "takes the pairing"),
        (lambda: tk.verify(None, SITES), "a certificate was expected"),
        (lambda: tk.pool([1, 2], [0, 0], 10), "every variance is 0"),
        (lambda: tk.pool(["a", "b"], [1, 1], 10), "must be numbers"),
        (lambda: tk.match_pairs(SITES, id="site", criteria=tk.nearest("x")), "must be a list"),
        (lambda: tk.match_pairs(SITES, id=None, criteria=[tk.nearest("x")]), "name the column"),
        (lambda: tk.match_pairs(pd.concat([SITES, SITES[["x"]]], axis=1), id="site", criteria=[tk.nearest("x")]), "more than once"),
        (lambda: tk.itt(pd.concat([PEOPLE, PEOPLE[["site"]]], axis=1), tk.TrialDesign(**DESIGN)), "more than once"),
        (lambda: tk.impute(pd.concat([PEOPLE, PEOPLE[["site"]]], axis=1), tk.TrialDesign(**DESIGN), seed=1), "more than once"),
    ],
)
def test_one_clear_error(call: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()


def test_a_blank_cell_is_missing_not_a_level() -> None:
    """`read_csv(keep_default_na=False)` gives blank text where nothing was observed."""
    blank, none = PEOPLE.copy(), PEOPLE.copy()
    for frame, void in ((blank, " "), (none, None)):
        frame.loc[::5, "site"] = void
        frame.loc[1::7, "band"] = void
    a, b = (tk.fit_mixed("y ~ arm + band", frame, groups="site") for frame in (blank, none))
    assert (a.n, a.n_groups, a.frame["term"].tolist()) == (b.n, b.n_groups, b.frame["term"].tolist())
    pd.testing.assert_frame_equal(a.frame, b.frame)
