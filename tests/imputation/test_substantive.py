"""Interactions and squares of the analysis model are kept where plain chained equations lose them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.imputation import impute
from trialkit.imputation.substantive import parse


def curved_trial(kind: str, seed: int = 1, sites: int = 400) -> tuple[pd.DataFrame, pd.DataFrame, TrialDesign]:
    """y with an interaction of arm with x, or a square of x; x a third missing, the more so where y is large."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(sites), 5)
    arm = (site % 2).astype(float)
    x = np.sqrt(0.1) * rng.normal(size=sites)[site] + np.sqrt(0.9) * rng.normal(size=len(site))
    if kind == "binary":
        x = (x > 0.2).astype(float)
    curve = 0.4 * x * x if kind == "square" else 0.5 * arm * x
    y = 0.3 * arm + 0.4 * x + curve + np.sqrt(0.1) * rng.normal(size=sites)[site] + 0.9 * rng.normal(size=len(site))
    full = pd.DataFrame({"person": np.arange(len(y)), "site": site, "arm": np.where(arm == 1, "intervention", "control"), "x": x, "y": y})
    people = full.assign(x=full["x"].where(rng.random(len(y)) > 1 / (1 + np.exp(0.8 - 0.7 * (y - y.mean())))))
    covariate = {"name": "x"} | ({"type": "binary"} if kind == "binary" else {})
    return full, people, TrialDesign(outcomes=[{"name": "y", "has_baseline": False}], covariates=[covariate])


def slope(frames: Any, kind: str) -> float:
    """Least squares: coefficient of the product."""
    out = []
    for f in frames:
        arm, x = (f["arm"] == "intervention").to_numpy(dtype=float), f["x"].to_numpy()
        X = np.column_stack([np.ones(len(f)), arm, x, x * x if kind == "square" else arm * x])
        out.append(np.linalg.lstsq(X, f["y"].to_numpy(), rcond=None)[0][3])
    return float(np.mean(out))


@pytest.mark.parametrize("kind", ["interaction", "square", "binary"])
def test_products_are_kept(kind: str) -> None:
    full, people, design = curved_trial(kind)
    formula = "y ~ arm + x + I(x**2)" if kind == "square" else "y ~ arm * x"
    truth = slope([full], kind)
    kept = slope(impute(people, design, seed=1, m=5, iterations=10, substantive=formula), kind)
    lost = slope(impute(people, design, seed=1, m=5, iterations=5), kind)
    assert kept == pytest.approx(truth, abs=0.13 if kind == "binary" else 0.06)
    assert lost < (0.8 if kind == "square" else 0.92) * truth


def test_same_bits_and_observed_cells() -> None:
    _, people, design = curved_trial("interaction", sites=30)
    people.loc[people.index[::7], "y"] = np.nan
    options: dict[str, Any] = {"seed": 3, "iterations": 3, "substantive": "y ~ arm * x + I(x^2)"}
    sets = impute(people, design, m=4, **options)
    again = impute(people.sample(frac=1, random_state=1), design, m=3, jobs=2, **options)
    for k in range(3):
        assert_frame_equal(again[k].loc[people.index], sets[k])
        for name in ("x", "y"):
            seen = people[name].notna()
            assert sets[k].loc[seen, name].tolist() == people.loc[seen, name].tolist()
            assert sets[k][name].notna().all()
    assert sets.frame.set_index("variable").loc["x", "method"] == "two-level normal, given the outcome"
    assert sets.provenance.settings["substantive"] == "y ~ arm * x + I(x^2)"


def test_other_columns_and_baselines_go_along() -> None:
    """A baseline in the interaction (its site mean leaves the outcome's model), an ordinal factor, an auxiliary beside."""
    rng = np.random.default_rng(2)
    _, people, _ = curved_trial("interaction", sites=60)
    people = people.rename(columns={"x": "y_0"}).assign(mood=rng.normal(size=300), age=rng.integers(0, 3, 300).astype(float))
    for name in ("mood", "age", "y"):
        people.loc[rng.random(300) < 0.2, name] = np.nan
    design = TrialDesign(outcomes=[{"name": "y"}], covariates=[{"name": "age", "type": "ordinal"}], imputation={"auxiliary": ["mood"]})
    sets = impute(people, design, seed=1, m=3, iterations=3, substantive="y ~ arm * y_0 * age", bounds={"y_0": (-8.0, 8.0)})
    assert sets[0][["y_0", "y", "mood", "age"]].notna().all(axis=None)
    assert set(sets[0]["age"]) == {0.0, 1.0, 2.0}


def test_the_formula() -> None:
    model = parse("mood ~ arm * mood_0 + `age band`:arm + I(mood_0**2)")
    assert model.outcome == "mood"
    assert model.main == ("arm", "mood_0", "age band")
    assert model.products == (("arm", "mood_0"), ("age band", "arm"), ("mood_0", "mood_0"))
    assert parse("y ~ a * b * c").products == (("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("change", "formula", "options", "words"),
    [
        (None, "y + x", {}, "there is no ~"),
        (None, "y ~ log(x)", {}, "is not a name"),
        (None, "y ~ x + (1|site)", {}, "in the model already"),
        (None, "y ~ y * x", {}, "both sides"),
        (None, "y ~ a:b:c:d", {}, "4 factors"),
        (None, "y ~ arm * xx", {}, "Did you mean 'x'"),
        (None, "z ~ arm * x", {}, "'z' is not a column"),
        (None, "x ~ arm * y", {"by_arm": True}, "by_arm"),
        (None, "y ~ arm * x", {"engine": "joint"}, "do not go together"),
        (None, "y ~ arm * x", {"heteroscedastic": True}, "do not go together"),
        ("categorical", "y ~ arm * x", {}, "is nominal"),
    ],
)
def test_bad_models_are_named(change: str | None, formula: str, options: dict[str, Any], words: str) -> None:
    _, people, design = curved_trial("interaction", sites=20)
    if change is not None:
        people["x"] = pd.Series(
            np.where(people["x"].isna(), None, np.where(people["x"] > 0.5, "a", np.where(people["x"] > -0.5, "b", "c")))
        )
        design = TrialDesign(outcomes=design.outcomes, covariates=[{"name": "x", "type": "categorical"}])
    with pytest.raises(InputError, match=words):
        impute(people, design, seed=1, m=2, iterations=1, substantive=formula, **options)
