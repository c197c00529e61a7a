"""Reference-based sets: who moves, by how much, and that the effect shrinks as the assumption says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.imputation import Imputations, compare_scenarios, impute, reference_based, worst_best
from trialkit.itt import itt

DESIGN = TrialDesign(
    outcomes=[{"name": "y"}, {"name": "sick", "type": "count", "has_baseline": False}],
    covariates=[{"name": "x"}, {"name": "band", "type": "ordinal", "levels": ["low", "high"]}],
    imputation={"auxiliary": ["y_3"], "m": 10, "iterations": 5},
)
VISITS = ["y_0", "y_3", "y"]


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    """Three visits, effects 0, .5 and 1 SD; a third leave after a visit, one in ten skips the middle visit only."""
    rng = np.random.default_rng(4)
    J, n = 120, 960
    site = np.sort(rng.integers(0, J, n))
    arm = (site % 2).astype(float)
    u = 0.4 * rng.normal(size=J)[site]
    person = 0.6 * rng.normal(size=n)
    frame = pd.DataFrame({"person": [f"p{k:04d}" for k in range(n)], "site": site, "arm": np.where(arm == 1, "intervention", "control")})
    frame["x"] = rng.normal(size=n)
    frame["band"] = rng.choice(["low", "high"], n)
    for name, effect in (("y_0", 0.0), ("y_3", 0.5), ("y", 1.0)):
        frame[name] = 50 + 10 * (effect * arm + 0.3 * frame["x"] + u + person + 0.5 * rng.normal(size=n))
    frame["sick"] = rng.poisson(2, n).astype(float)
    leaves = rng.choice([0, 1, 2], n, p=[0.7, 0.15, 0.15])
    frame.loc[leaves >= 1, "y"] = np.nan
    frame.loc[leaves == 2, "y_3"] = np.nan
    frame.loc[(leaves == 0) & (rng.random(n) < 0.1), "y_3"] = np.nan
    frame.loc[rng.random(n) < 0.05, "sick"] = np.nan
    return frame


@pytest.fixture(scope="module")
def sets(people: pd.DataFrame) -> Imputations:
    return impute(people, DESIGN, seed=1)


def moved(sets: Imputations, other: Imputations, name: str) -> np.ndarray:
    return np.any([a[name].to_numpy() != b[name].to_numpy() for a, b in zip(sets, other, strict=True)], axis=0)


@pytest.mark.parametrize("strategy", ["J2R", "CIR", "CR", "LMCF"])
def test_only_those_of_the_intervention_who_left_move(people: pd.DataFrame, sets: Imputations, strategy: str) -> None:
    found = reference_based(sets, DESIGN, "y", strategy=strategy, seed=2, visits=VISITS, iterations=10)
    treated = (people["arm"] == "intervention").to_numpy()
    assert (moved(sets, found, "y") == (treated & people["y"].isna().to_numpy())).all()
    # the middle visit of people who came back later is as missing at random left it
    assert (moved(sets, found, "y_3") == (treated & people["y_3"].isna().to_numpy() & people["y"].isna().to_numpy())).all()
    assert not moved(sets, found, "y_0").any() and not moved(sets, found, "sick").any()
    assert found.provenance.settings["reference_based"]["strategy"] in str(found.provenance.settings)


def test_the_effect_shrinks_as_the_assumption_says(people: pd.DataFrame, sets: Imputations) -> None:
    """30% of the intervention arm leave, half of them after the middle visit.

    Mean effect at the end, in units of 10: at random 1.0; jump to reference .7; copy increments .7 + .15 x .5; copy reference between,
    for those seen in the middle keep part of what they had gained.
    """
    means = {}
    for strategy in ("MAR", "J2R", "CIR", "CR"):
        made = sets if strategy == "MAR" else reference_based(sets, DESIGN, "y", strategy=strategy, seed=2, visits=VISITS, iterations=25)
        fits = []
        for s in made:
            X = np.column_stack([np.ones(len(s)), s["arm"] == "intervention", s["y_0"], s["x"]]).astype(float)
            fits.append(np.linalg.lstsq(X, s["y"].to_numpy(), rcond=None)[0][1] / 10)
        means[strategy] = float(np.mean(fits))
    left = people[people["arm"] == "intervention"]
    gone, after_middle = left["y"].isna().mean(), (left["y"].isna() & left["y_3"].notna()).mean()
    assert means["J2R"] == pytest.approx(means["MAR"] * (1 - gone), abs=0.03)
    assert means["CIR"] == pytest.approx(means["J2R"] + 0.5 * after_middle, abs=0.03)
    assert means["J2R"] < means["CR"] < means["CIR"] < means["MAR"]


def test_with_one_follow_up_three_assumptions_are_one(sets: Imputations) -> None:
    a, b, c = (reference_based(sets, DESIGN, "y", strategy=s, seed=2, iterations=5)[3]["y"] for s in ("J2R", "CIR", "CR"))
    np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_allclose(a, c, rtol=1e-12)


def test_same_bits_for_any_row_order_and_m(people: pd.DataFrame, sets: Imputations) -> None:
    whole = reference_based(sets, DESIGN, "y", strategy="CR", seed=2, visits=VISITS, iterations=5)
    few = impute(people.sample(frac=1, random_state=3), DESIGN, seed=1, m=3)
    again = reference_based(few, DESIGN, "y", strategy="CR", seed=2, visits=VISITS, iterations=5)
    for k in range(3):
        pd.testing.assert_frame_equal(again[k].loc[people.index], whole[k])


def test_extremes_bracket_everything_and_the_table_holds_all(people: pd.DataFrame, sets: Imputations) -> None:
    extremes = worst_best(sets, DESIGN, "y")
    low, high = people["y"].min(), people["y"].max()
    hit = people["y"].isna() & (people["arm"] == "intervention")
    assert (extremes["best case"][0].loc[hit, "y"] == high).all()
    assert (extremes["worst case"][0].loc[hit, "y"] == low).all()
    tenth = worst_best(sets, DESIGN, "y", quantile=0.1)["worst case"][0].loc[hit, "y"]
    assert (tenth == people["y"].quantile(0.1)).all()
    jump = reference_based(sets, DESIGN, "y", strategy="J2R", seed=2, iterations=10)
    table = compare_scenarios(
        {"complete cases": people, "missing at random": sets, "jump to reference": jump, **extremes}, DESIGN, "y", analyse=itt
    )
    effect = table.frame.set_index("scenario")["estimate"]
    assert effect["worst case"] < effect["jump to reference"] < effect["missing at random"] < effect["best case"]
    assert effect["missing at random"] == itt(sets, DESIGN).frame["estimate"].iloc[0]
    assert table.frame["m"].tolist() == [1, 10, 10, 10, 10]
    assert "complete cases" in str(table)
    # where lower is better the good end is the low one
    worse = DESIGN.model_copy(update={"outcomes": tuple(o.model_copy(update={"direction": "lower"}) for o in DESIGN.outcomes)})
    assert (worst_best(sets, worse, "y")["best case"][0].loc[hit, "y"] == low).all()


def test_a_category_has_its_levels_as_extremes(people: pd.DataFrame) -> None:
    binary = people.assign(well=np.where(people["y"].notna(), (people["y"] > 50).astype(float), np.nan))
    design = TrialDesign(outcomes=[{"name": "well", "type": "binary", "has_baseline": False}])
    sets = impute(binary, design, seed=1, m=2, iterations=1)
    extremes = worst_best(sets, design, "well")
    hit = binary["well"].isna()
    assert set(extremes["best case"][0].loc[hit & (binary["arm"] == "intervention"), "well"]) == {1.0}
    assert set(extremes["best case"][0].loc[hit & (binary["arm"] == "control"), "well"]) == {0.0}
    with pytest.raises(InputError, match="only its first and last level"):
        worst_best(sets, design, "well", quantile=0.1)


def test_bad_input_is_named(people: pd.DataFrame, sets: Imputations) -> None:
    def run(**change: object) -> None:
        settings = {"outcome": "y", "strategy": "J2R", "seed": 1, "iterations": 2} | change
        reference_based(sets, DESIGN, settings.pop("outcome"), **settings)  # type: ignore[arg-type]

    for change, words in (
        ({"strategy": "jump"}, "strategy"),
        ({"outcome": "z"}, "outcome"),
        ({"outcome": "sick"}, "is count"),
        ({"seed": -1}, "seed"),
        ({"iterations": 0}, "iterations"),
        ({"visits": ["y", "y_0"]}, "order of time"),
        ({"visits": ["y_0", "y_9", "y"]}, "y_9"),
        ({"visits": ["band", "y"]}, "band"),
    ):
        with pytest.raises(InputError, match=words):
            run(**change)
    full = people.assign(y=people["y"].where((people["arm"] == "control") | people["y"].notna(), 50.0), y_3=people["y_3"].fillna(50.0))
    with pytest.raises(InputError, match="nobody in the arm"):
        reference_based(impute(full, DESIGN, seed=1, m=2, iterations=1), DESIGN, "y", strategy="J2R", seed=1)
    with pytest.raises(InputError, match="quantile"):
        worst_best(sets, DESIGN, "y", quantile=0.5)
    with pytest.raises(InputError, match="no imputed cells"):
        worst_best(impute(full.assign(y=50.0 + full["x"]), DESIGN, seed=1, m=2, iterations=1), DESIGN, "y")
    with pytest.raises(InputError, match="no scenario"):
        compare_scenarios({}, DESIGN, "y", analyse=itt)
