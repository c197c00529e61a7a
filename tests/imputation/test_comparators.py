"""Imputation by methods that are wrong about sites: they do what theory says of them, and say so."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.imputation import Imputations, impute, impute_by
from trialkit.power import estimate_icc

DESIGN = TrialDesign(outcomes=[{"name": "y", "has_baseline": False}], covariates=[{"name": "x"}], imputation={"m": 6, "iterations": 5})


def trial(seed: int = 8, sites: int = 160, icc: float = 0.25) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(sites), rng.integers(2, 7, sites))
    n = len(site)
    x = rng.normal(size=n)
    y = 10 + 3 * (0.5 * x + np.sqrt(icc) * rng.normal(size=sites)[site] + np.sqrt(1 - icc) * rng.normal(size=n))
    arm = np.where(site % 2, "control", "intervention")
    full = pd.DataFrame({"person": [f"p{k:04d}" for k in range(n)], "site": [f"s{k:03d}" for k in site], "arm": arm, "x": x, "y": y})
    gaps = full.copy()
    gaps.loc[rng.random(n) < 0.35, "y"] = np.nan
    gaps.loc[gaps["site"].isin(["s003", "s004"]), "y"] = np.nan
    gaps.loc[rng.random(n) < 0.1, "x"] = np.nan
    return full, gaps


GAPS = trial()[1]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def icc(sets: Imputations) -> float:
    return float(np.mean([estimate_icc(s, outcome="y", cluster="site").icc for s in sets]))


@pytest.fixture(scope="module")
def runs() -> dict[str, Imputations]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return {m: impute_by(m, GAPS, DESIGN, seed=3) for m in ("two-level", "single-level", "scikit-learn", "site-fixed-effects")}


def test_single_level_halves_the_icc_and_fixed_effects_inflate_it(runs: dict[str, Imputations]) -> None:
    """Andridge (2011): in the completed sets the ICC is too small without sites, too large with a parameter a site."""
    truth = estimate_icc(GAPS.dropna(subset=["y"]), outcome="y", cluster="site").icc
    found = {m: icc(s) for m, s in runs.items()}
    assert found["two-level"] == pytest.approx(truth, abs=0.04)
    for method in ("single-level", "scikit-learn"):
        assert found[method] == pytest.approx(truth * 0.65**2, abs=0.04)
    assert found["site-fixed-effects"] > truth + 0.08


def test_all_keep_the_observed_and_fill_the_rest(runs: dict[str, Imputations]) -> None:
    for sets in runs.values():
        assert len(sets) == 6
        for s in sets:
            for name in ("x", "y"):
                seen = GAPS[name].notna()
                assert s.loc[seen, name].tolist() == GAPS.loc[seen, name].tolist()
                assert s[name].notna().all()
            assert s["site"].equals(GAPS["site"])
        assert not sets[0]["y"].equals(sets[1]["y"])


def test_it_warns_with_the_icc_that_goes(runs: dict[str, Imputations]) -> None:
    with pytest.warns(UserWarning, match=r"for comparison only. y: ICC 0\.\d+ among the observed, 0\.\d+ in the completed sets"):
        impute_by("single-level", GAPS, DESIGN, seed=3, m=2, iterations=1)
    events = runs["single-level"].events
    assert "strangers" in events.loc[events["kind"] == "ICC", "detail"].iloc[0]
    assert runs["scikit-learn"].provenance.settings["engine"] == "scikit-learn (comparison)"
    assert "ICC" in str(runs["site-fixed-effects"])


@pytest.mark.parametrize("method", ["single-level", "scikit-learn", "site-fixed-effects"])
def test_same_bits_for_any_row_order_and_m(method: str, runs: dict[str, Imputations]) -> None:
    again = impute_by(method, GAPS.sample(frac=1, random_state=1), DESIGN, seed=3, m=3)
    for k in range(3):
        pd.testing.assert_frame_equal(again[k].loc[GAPS.index], runs[method][k])


def test_two_level_is_impute() -> None:
    a, b = impute_by("two-level", GAPS, DESIGN, seed=1, m=2, iterations=1), impute(GAPS, DESIGN, seed=1, m=2, iterations=1)
    pd.testing.assert_frame_equal(a[1], b[1])


def test_fixed_effects_slope_is_the_within_site_one() -> None:
    """x differs between sites for another reason than within: only the within-site slope enters, as of a parameter a site."""
    rng = np.random.default_rng(0)
    site = np.repeat(np.arange(60), 20)
    between = rng.normal(size=60)[site]
    x = between + rng.normal(size=1200)
    y = 2 * (x - between) - 3 * between + 0.1 * rng.normal(size=1200)
    frame = pd.DataFrame({"person": range(1200), "site": site, "arm": np.where(site % 2, "control", "intervention"), "x": x, "y": y})
    gaps = frame.assign(y=frame["y"].where(rng.random(1200) > 0.3))
    sets = impute_by("site-fixed-effects", gaps, DESIGN, seed=1, m=2, iterations=1)
    hit = gaps["y"].isna()
    error = sets[0].loc[hit, "y"] - frame.loc[hit, "y"]
    assert error.std() == pytest.approx(0.1 * np.sqrt(2), rel=0.15)


def test_what_they_cannot_do_is_refused() -> None:
    people = GAPS.assign(colour=np.where(np.arange(len(GAPS)) % 3, "red", "blue"))
    design = TrialDesign(outcomes=[{"name": "y", "has_baseline": False}], covariates=[{"name": "colour", "type": "binary"}])
    assert impute_by("scikit-learn", people, design, seed=1, m=2, iterations=1)[0]["y"].notna().all()
    people.loc[::7, "colour"] = None
    for method in ("scikit-learn", "site-fixed-effects"):
        with pytest.raises(InputError, match=r"knows numbers only.*colour"):
            impute_by(method, people, design, seed=1, m=2, iterations=1)
    assert impute_by("single-level", people, design, seed=1, m=2, iterations=1)[0]["colour"].notna().all()
    with pytest.raises(InputError, match="method"):
        impute_by("two-levl", GAPS, DESIGN, seed=1)
    alone = GAPS.assign(site=GAPS["person"])
    with pytest.raises(InputError, match="no residual"):
        impute_by("site-fixed-effects", alone, DESIGN, seed=1, m=2, iterations=1)
    with pytest.raises(InputError, match="seed"):
        impute_by("scikit-learn", GAPS, DESIGN, seed=-1)


def test_kinds_of_rater_stay_apart() -> None:
    people = GAPS.assign(role=np.where(np.arange(len(GAPS)) % 2, "peer", "supervisor"))
    people["z"] = np.where(people["role"] == "peer", people["x"], np.nan)
    design = TrialDesign(
        columns={"rater": "role"}, outcomes=[{"name": "y", "has_baseline": False}, {"name": "z", "rater": "peer", "has_baseline": False}]
    )
    sets = impute_by("site-fixed-effects", people, design, seed=1, m=2, iterations=2)
    supervisor = people["role"] == "supervisor"
    assert sets[0].loc[supervisor, "z"].isna().all()
    assert sets[0].loc[~supervisor, "z"].notna().all()
    assert sets[0]["y"].notna().all()


def test_impute_does_not_load_what_only_comparators_need() -> None:
    """scipy.stats is 40 MB of memory, scikit-learn as much again."""
    heavy = ("scipy.stats", "sklearn", "statsmodels", "matplotlib")
    code = f"import sys, trialkit.imputation; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
