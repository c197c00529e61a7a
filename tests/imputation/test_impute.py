"""What `impute` promises about a trial: whom, what, never an observed cell, the sites kept, the same bits again."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from pandas.testing import assert_frame_equal
from scipy import stats

from trialkit._kernels import reml
from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.imputation import impute


def small_trial(seed: int = 1, n: int = 240, sites: int = 60, icc: float = 0.2, missing: float = 0.3) -> pd.DataFrame:
    """Mood and a count at two waves, a binary, an ordered and a plain category, a site's budget; singletons and wholly missing sites."""
    rng = np.random.default_rng(seed)
    site = np.sort(np.r_[np.arange(sites), rng.choice(sites // 2, n - sites)])  # half the sites are singletons
    arm = np.where(rng.permutation(sites) < sites // 2, "intervention", "control")[site]
    u = np.sqrt(icc) * rng.normal(size=sites)[site]
    before = u + np.sqrt(1 - icc) * rng.normal(size=n)
    after = 0.5 * before + 0.4 * (arm == "intervention") + np.sqrt(0.75) * (0.9 * u + np.sqrt(1 - icc) * rng.normal(size=n))
    frame = pd.DataFrame(
        {
            "person": [f"p{k:03d}" for k in range(n)],
            "site": [f"s{k:02d}" for k in site],
            "arm": arm,
            "mood_0": 50 + 10 * before,
            "mood": 50 + 10 * after,
            "sick_0": np.floor(np.exp(0.8 + rng.normal(size=n))),
            "sick": np.floor(np.exp(0.8 - 0.2 * before + rng.normal(size=n))),
            "smoker": np.where(rng.normal(size=n) + before > 0.5, "yes", "no"),
            "age_band": np.array(["young", "middle", "old"])[np.digitize(rng.normal(size=n), [-0.5, 0.6])],
            "colour": np.array(["red", "green", "blue"])[rng.integers(0, 3, n)],
            "budget": np.exp(rng.normal(size=sites))[site],
        }
    )
    for name in ("mood_0", "mood", "sick_0", "sick", "smoker", "age_band", "colour"):
        frame.loc[rng.random(n) < missing, name] = None if isinstance(frame[name].iloc[0], str) else np.nan
    frame.loc[np.isin(site, [1, 2, 40, 45]), "mood"] = np.nan
    frame.loc[np.isin(site, [5, 50]), "budget"] = np.nan
    return frame


DESIGN = TrialDesign(
    outcomes=[{"name": "mood"}, {"name": "sick", "type": "count"}],
    covariates=[
        {"name": "smoker", "type": "binary"},
        {"name": "age_band", "type": "ordinal", "levels": ["young", "middle", "old"]},
        {"name": "colour", "type": "categorical"},
    ],
    imputation={"auxiliary": ["budget"], "m": 4, "iterations": 3},
)
MODELLED = ["mood_0", "mood", "sick_0", "sick", "smoker", "age_band", "colour", "budget"]


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    return small_trial()


def test_observed_cells_stay_and_all_modelled_cells_are_filled(people: pd.DataFrame) -> None:
    sets = impute(people, DESIGN, seed=3)
    assert len(sets) == sets.m == len(list(sets)) == 4
    for completed in sets:
        assert list(completed.columns) == list(people.columns)
        assert completed.index.equals(people.index)
        for name in people.columns:
            seen = people[name].notna()
            assert completed[name].dtype == people[name].dtype
            assert completed.loc[seen, name].tolist() == people.loc[seen, name].tolist()
            if name in MODELLED:
                assert completed[name].notna().all()
    assert not sets[0]["mood"].equals(sets[1]["mood"])
    # categories and counts take observed values only
    assert set(sets[0]["age_band"]) == {"young", "middle", "old"}
    assert set(sets[0]["sick"]) <= set(people["sick"].dropna())
    assert sets[0].groupby("site")["budget"].nunique().eq(1).all()


def test_the_input_is_left_alone(people: pd.DataFrame) -> None:
    before = people.copy(deep=True)
    sets = impute(people, DESIGN, seed=3, m=2, iterations=1)
    first = sets[0]
    first["mood"] = 0.0
    assert_frame_equal(people, before)
    assert (sets[0]["mood"] != 0).any()


def test_complete_data_come_back_unchanged() -> None:
    people = small_trial(missing=0.0).dropna(subset=["mood", "budget"])
    sets = impute(people, DESIGN, seed=1)
    for completed in sets:
        assert_frame_equal(completed, people)
    assert len(sets.frame) == 0


def test_same_bits_for_any_row_order_workers_and_m(people: pd.DataFrame) -> None:
    whole = impute(people, DESIGN, seed=11, m=8)
    shuffled = people.sample(frac=1, random_state=4)
    again = impute(shuffled, DESIGN, seed=11, m=3)
    for k in range(3):
        assert_frame_equal(again[k].loc[people.index], whole[k])
    assert_frame_equal(impute(people, DESIGN, seed=11, m=5, jobs=2)[4], whole[4])
    with parallel_config(backend="threading"):  # a chain a worker; eight processes would take as long as the rest of this file
        eight = impute(people, DESIGN, seed=11, m=8, jobs=8)
    for one, other in zip(whole, eight, strict=True):
        assert_frame_equal(one, other)
    assert not impute(people, DESIGN, seed=12, m=2)[0]["mood"].equals(whole[0]["mood"])


def test_same_bits_in_another_process(people: pd.DataFrame) -> None:
    here = impute(people[["person", "site", "arm", "mood_0", "mood"]], TrialDesign(outcomes=[{"name": "mood"}]), seed=5, m=2, iterations=2)
    code = (
        "import pandas as pd, io, sys\nfrom trialkit.design import TrialDesign\nfrom trialkit.imputation import impute\n"
        "p = pd.read_csv(io.StringIO(sys.stdin.read()), float_precision='round_trip')\n"
        "d = TrialDesign(outcomes=[{'name': 'mood'}])\n"
        "print(impute(p, d, seed=5, m=2, iterations=2)[1]['mood'].tolist())"
    )
    text = people[["person", "site", "arm", "mood_0", "mood"]].to_csv(index=False)
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True, env={"OPENBLAS_NUM_THREADS": "2"}
    )
    assert done.stdout.strip() == str(here[1]["mood"].tolist())


def test_ten_times_the_outcome_gives_ten_times_the_values(people: pd.DataFrame) -> None:
    design = TrialDesign(outcomes=[{"name": "mood"}], imputation={"m": 3})
    big = people.assign(mood=people["mood"] * 1000, mood_0=people["mood_0"] * 1000)
    for a, b in zip(impute(people, design, seed=2), impute(big, design, seed=2), strict=True):
        np.testing.assert_allclose(b["mood"], a["mood"] * 1000, rtol=1e-9)


def icc_of(frames: Any, name: str) -> float:
    out = []
    for f in frames:
        fit = reml.fit(np.ones((len(f), 1)), f[name].to_numpy(dtype=float), [np.unique(f["site"], return_inverse=True)[1]])
        out.append(fit.variances[0] / (fit.variances[0] + fit.sigma2))
    return float(np.mean(out))


def test_the_icc_is_kept() -> None:
    """One large trial, a third missing at random: single-level imputation would leave about half of the ICC."""
    rng = np.random.default_rng(8)
    sites = 400
    site = np.repeat(np.arange(sites), rng.integers(1, 8, sites))
    y = np.sqrt(0.2) * rng.normal(size=sites)[site] + np.sqrt(0.8) * rng.normal(size=len(site))
    full = pd.DataFrame({"person": np.arange(len(site)), "site": site, "arm": np.where(site % 2, "control", "intervention"), "y": y})
    people = full.assign(y=full["y"].where(rng.random(len(site)) > 0.33))
    sets = impute(people, TrialDesign(outcomes=[{"name": "y", "has_baseline": False}]), seed=1, m=10, iterations=3)
    assert icc_of(sets, "y") == pytest.approx(icc_of([full], "y"), abs=0.04)
    alone = impute(
        people.assign(site=people["person"]),
        TrialDesign(outcomes=[{"name": "y", "has_baseline": False}]),
        seed=1,
        m=10,
        iterations=3,
        site_prior=1e-4,
    )
    assert icc_of([s.assign(site=site) for s in alone], "y") < 0.7 * icc_of([full], "y")


def test_kinds_of_rater_are_imputed_apart_and_structural_absence_stays() -> None:
    people = small_trial(n=200)
    people["role"] = np.where(np.arange(len(people)) % 3 == 0, "supervisor", "peer")
    people["stigma"] = np.where(people["role"] == "supervisor", people["mood_0"] / 10, np.nan)
    people.loc[people.index[::9], "stigma"] = np.nan
    people.loc[people["role"] == "supervisor", ["mood", "mood_0", "colour"]] = np.nan
    people["stigma_0"] = np.where(
        people["role"] == "supervisor", people["stigma"].fillna(5) + np.random.default_rng(0).normal(size=len(people)), np.nan
    )
    design = TrialDesign(
        columns={"rater": "role"},
        outcomes=[{"name": "mood", "rater": "peer"}, {"name": "stigma", "rater": "supervisor"}],
        covariates=[{"name": "colour", "type": "categorical"}],
    )
    sets = impute(people, design, seed=1, m=2, iterations=2)
    peer = people["role"] == "peer"
    for completed in sets:
        assert completed.loc[peer, "mood"].notna().all()
        assert completed.loc[~peer, "mood"].isna().all()
        assert completed.loc[~peer, "stigma"].notna().all()
        assert completed.loc[peer, "stigma"].isna().all()
        assert completed.loc[~peer, "colour"].isna().all()  # asked of no supervisor
    assert set(sets.frame["group"]) == {"peer", "supervisor"}
    assert "not asked" in set(sets.events["kind"])


def test_population_column_chooses_the_rows(people: pd.DataFrame) -> None:
    people = people.assign(done=(np.arange(len(people)) % 4 != 0).astype(float))
    design = TrialDesign(outcomes=[{"name": "mood"}], imputation={"population": "done", "m": 2})
    sets = impute(people, design, seed=1, iterations=1)
    assert sets[0].index.tolist() == people.index[people["done"] == 1].tolist()
    assert "done = 1" in sets.population_note
    with pytest.raises(InputError, match="is neither 1"):
        impute(people.assign(done=2), design, seed=1)


def test_by_arm_imputes_each_arm_from_its_own_people(people: pd.DataFrame) -> None:
    """With an interaction of baseline and arm in the data, arms apart keep both slopes."""
    design = TrialDesign(outcomes=[{"name": "mood"}], imputation={"by_arm": True, "m": 3})
    sets = impute(people, design, seed=1, iterations=2)
    assert set(sets.frame["group"]) == {"control", "intervention"}
    # the other arm's data do not reach it
    changed = people.copy()
    changed.loc[changed["arm"] == "control", "mood"] *= 3
    control = people["arm"] == "control"
    again = impute(changed, design, seed=1, iterations=2)
    assert_frame_equal(again[0][~control], sets[0][~control])
    assert not again[0].loc[control, "mood"].equals(sets[0].loc[control, "mood"])


def test_bounds_are_kept_by_drawing_not_by_clipping(people: pd.DataFrame) -> None:
    low = float(people["mood"].min()) - 0.5
    sets = impute(people, DESIGN, seed=1, m=20, bounds={"mood": (low, 200.0)})
    drawn = sets.cells["mood"].values
    assert drawn.min() >= low
    assert (drawn == low).mean() < 0.001
    with pytest.raises(InputError, match="outside its bounds"):
        impute(people, DESIGN, seed=1, bounds={"mood": (45.0, 50.0)})
    with pytest.raises(InputError, match="Did you mean 'mood'"):
        impute(people, DESIGN, seed=1, bounds={"moood": (0, 1)})
    with pytest.raises(InputError, match="only continuous"):
        impute(people, DESIGN, seed=1, bounds={"smoker": (0, 1)})


def test_the_imputed_values_follow_the_model(people: pd.DataFrame) -> None:
    """Missing completely at random: imputed and observed values of every variable have the same distribution."""
    sets = impute(small_trial(seed=5, n=400), DESIGN, seed=1, m=20, iterations=6)
    for name in ("mood", "mood_0", "sick"):
        cells, seen = sets.cells[name], sets.base[name].dropna()
        assert stats.ks_2samp(cells.values[0], seen).pvalue > 1e-3, name
    for name in ("smoker", "age_band", "colour"):
        cells = sets.cells[name]
        share = pd.Series(np.take(np.array(cells.labels), cells.values.astype(int)).ravel()).value_counts(normalize=True)
        observed = sets.base[name].value_counts(normalize=True)
        assert (share - observed).abs().max() < 0.12, name


def test_collinear_and_surplus_predictors_are_named(people: pd.DataFrame) -> None:
    twin = people.assign(twin=people["mood_0"] * 2 + 1, flat=1.0)
    design = TrialDesign(outcomes=[{"name": "mood"}], imputation={"auxiliary": ["twin", "flat", "sick", "sick_0"], "m": 2})
    sets = impute(twin, design, seed=1, iterations=2)
    collinear = sets.events[sets.events["kind"] == "collinear"]
    assert set(collinear["variable"]) >= {"mood", "sick"}
    assert collinear["detail"].str.contains("twin").any()
    assert collinear["detail"].str.contains("flat").all()
    assert np.isfinite(sets.cells["mood"].values).all()
    few = impute(people.iloc[::9], DESIGN, seed=1, iterations=2)
    left = few.events[few.events["kind"] == "predictors left out"]
    assert len(left)
    rows = few.frame.set_index("variable")
    assert (rows["predictors"] <= np.maximum(rows["observed"] // 3, 2)).all()


@pytest.mark.parametrize("options", [{}, {"heteroscedastic": True}])
def test_a_category_seen_only_where_the_outcome_is_missing(options: dict[str, Any]) -> None:
    """Its coefficient is undetermined in the chains that impute it to nobody observed: once drawn from anywhere, up to 1e10 SDs off."""
    rng = np.random.default_rng(2)
    n = 120
    frame = pd.DataFrame(
        {"person": np.arange(n), "site": np.arange(n) // 3, "arm": np.where(np.arange(n) // 3 % 2, "control", "intervention")}
    )
    frame["kind"] = rng.choice(["a", "b", "c"], n)
    frame.loc[:2, "kind"] = "rare"
    frame["y"] = rng.normal(size=n)
    frame.loc[:20, "y"] = np.nan
    frame.loc[rng.permutation(np.arange(3, n))[:25], "kind"] = np.nan
    outcome = {"name": "y", "has_baseline": False}
    sets = impute(frame, TrialDesign(outcomes=[outcome], covariates=[{"name": "kind", "type": "categorical"}]), seed=1, m=20, **options)
    assert np.abs(sets.cells["y"].values).max() < 20
    assert "ridge" in set(sets.events["kind"])


def test_twins_and_dates_are_named(people: pd.DataFrame) -> None:
    twin = people.assign(metres=100 * people["mood_0"], asked=pd.Timestamp("2024-01-01"))
    design = TrialDesign(outcomes=[{"name": "mood"}], imputation={"auxiliary": ["metres"]})
    found = impute(twin, design, seed=1, m=2, iterations=1).events
    assert found.loc[found["kind"] == "twins", "detail"].str.contains("in other units").all() and "twins" in set(found["kind"])
    with pytest.raises(InputError, match="'asked' holds dates"):
        impute(twin, TrialDesign(outcomes=[{"name": "mood"}], imputation={"auxiliary": ["asked"]}), seed=1)


def test_perfect_prediction_stays_finite(people: pd.DataFrame) -> None:
    split = people.assign(flag=np.where(people["mood_0"].fillna(50) > 50, 1.0, 0.0))
    split.loc[split.index[::5], "flag"] = np.nan
    design = TrialDesign(outcomes=[{"name": "mood"}], covariates=[{"name": "flag", "type": "binary"}], imputation={"m": 3})
    sets = impute(split, design, seed=1)
    assert set(sets[0]["flag"]) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.assign(mood=np.nan), "'mood' has no observed value"),
        (lambda f: f.assign(smoker=f["smoker"].where(f["smoker"] == "yes")), "only one observed value"),
        (lambda f: f.assign(arm=f["arm"].where(np.arange(len(f)) != 7)), "arm .* is missing"),
        (lambda f: f.assign(site=f["site"].where(np.arange(len(f)) != 7)), "site .* is missing"),
        (lambda f: f.assign(arm="treated"), "not one of the design's arms"),
        (lambda f: f.drop(columns="mood_0"), "no column 'mood_0'"),
        (lambda f: pd.concat([f, f.iloc[[3]]]), "stands in rows 5 and 242"),
        (lambda f: f.assign(smoker=np.where(np.arange(len(f)) == 3, "perhaps", f["smoker"])), "binary column 'smoker' holds 3 values"),
        (lambda f: f.assign(age_band=f["age_band"].replace("old", "ancient")), "not one of its levels"),
        (lambda f: f.assign(mood=f["mood"].astype(str).where(f["mood"].notna(), "n/a")), "is not a number"),
        (lambda f: f.assign(mood=f["mood"].where(f.groupby("arm").cumcount() < 4)), "too few for a model"),
        (lambda f: f.assign(mood=f["mood"].where(f["arm"] == "control")), "observed in the arm 'control' only: all .* of 'intervention'"),
        (lambda f: f.iloc[:0], "no rows"),
    ],
)
def test_bad_input_is_named(people: pd.DataFrame, change: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        impute(change(people), DESIGN, seed=1, m=2, iterations=1)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_numbers_without_a_variance_in_double_precision_are_refused(people: pd.DataFrame, scale: float) -> None:
    with pytest.raises(InputError, match=r"'mood' runs from .* Use another unit"):
        impute(people.assign(mood=people["mood"] * scale), DESIGN, seed=1, m=2, iterations=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seed": None}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": 1, "m": 1}, "m = 1"),
        ({"seed": 1, "iterations": 0}, "iterations = 0"),
        ({"seed": 1, "site_prior": "flat"}, "site_prior"),
        ({"seed": 1, "site_prior": -2.0}, "site_prior"),
        ({"seed": 1, "site_level": ["mod"]}, "site_level"),
        ({"seed": 1, "site_level": ["mood"]}, "varies within a site"),
    ],
)
def test_bad_settings_are_named(people: pd.DataFrame, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        impute(people, DESIGN, **settings)


def test_every_site_a_singleton_or_one_large_site(people: pd.DataFrame) -> None:
    design = TrialDesign(outcomes=[{"name": "mood"}], imputation={"m": 2})
    assert impute(people.assign(site=people["person"]), design, seed=1)[0]["mood"].notna().all()
    two = people.assign(site=people["arm"])
    assert impute(two, design, seed=1, site_prior=0.5)[0]["mood"].notna().all()


def test_other_dtypes_are_filled_in_kind(people: pd.DataFrame) -> None:
    other = people.assign(
        mood=people["mood"].astype("Float64"),
        sick=people["sick"].astype("Int64"),
        age_band=pd.Categorical(people["age_band"], ["young", "middle", "old"], ordered=True),
        smoker=(people["smoker"] == "yes").astype("boolean").where(people["smoker"].notna()),
    )
    sets = impute(other, DESIGN, seed=3)
    plain = impute(people, DESIGN, seed=3)
    assert sets[0]["age_band"].dtype == other["age_band"].dtype
    assert sets[0]["age_band"].astype("str").tolist() == plain[0]["age_band"].tolist()
    assert sets[0]["mood"].astype(float).tolist() == plain[0]["mood"].tolist()
    assert sets[0]["sick"].astype(float).tolist() == plain[0]["sick"].tolist()


def test_partly_seen_site_values_are_filled_from_the_site(people: pd.DataFrame) -> None:
    known = people.copy()
    first = known.index[known["site"] == "s03"][0]
    value = known.loc[first, "budget"]
    known.loc[first, "budget"] = np.nan
    sets = impute(known, DESIGN, seed=1, m=2, iterations=1)
    assert sets[0].loc[first, "budget"] == value
    assert "filled from the site" in set(sets.events["kind"])


def test_progress_is_told(people: pd.DataFrame) -> None:
    said: list[tuple[int, int]] = []
    impute(people, DESIGN, seed=1, m=3, iterations=1, progress=lambda done, total: said.append((done, total)))
    assert said[-1] == (3, 3)


def scale_trial(seed: int = 1, n: int = 200) -> pd.DataFrame:
    """A scale of four 1-5 items, its score their mean when at least three are answered."""
    rng = np.random.default_rng(seed)
    people = small_trial(seed=seed, n=n, missing=0.0)[["person", "site", "arm", "mood_0", "smoker"]]
    under = (people["mood_0"] - 50) / 14
    for k in range(4):
        people[f"calm_i{k}"] = np.clip(np.round(3 + 0.7 * under + rng.normal(scale=0.8, size=n) + 0.3 * k), 1, 5)
        people.loc[rng.random(n) < 0.15, f"calm_i{k}"] = np.nan
    people.loc[rng.random(n) < 0.15, [f"calm_i{k}" for k in range(4)]] = np.nan
    items = people[[f"calm_i{k}" for k in range(4)]]
    people["calm"] = items.mean(axis=1).where(items.notna().sum(axis=1) >= 3).round(4)
    people["calm_0"] = 3 + 0.5 * under + rng.normal(scale=0.5, size=n)
    people.loc[rng.random(n) < 0.1, "calm_0"] = np.nan
    return people


ITEMS = [f"calm_i{k}" for k in range(4)]
SCALE = TrialDesign(
    outcomes=[{"name": "calm", "items": ITEMS}, {"name": "mood_0", "has_baseline": False}], imputation={"m": 5, "iterations": 4}
)


def test_scores_equal_their_items_in_every_completed_row() -> None:
    people = scale_trial()
    sets = impute(people, SCALE, seed=1, items=True)
    lost = people["calm"].isna()
    assert lost.any()
    for completed in sets:
        assert completed["calm"].notna().all()
        np.testing.assert_allclose(completed.loc[lost, "calm"], completed.loc[lost, ITEMS].mean(axis=1), rtol=1e-12)
        assert set(np.unique(completed.loc[lost, ITEMS])) <= {1.0, 2.0, 3.0, 4.0, 5.0}
        for name in ["calm", *ITEMS]:
            seen = people[name].notna()
            assert completed.loc[seen, name].tolist() == people.loc[seen, name].tolist()
        # a person whose score is observed keeps the gaps of single items: the score is what was declared
        assert completed.loc[~lost, ITEMS].equals(people.loc[~lost, ITEMS])
    assert "mean of its 4 items" in set(sets.frame["method"])
    summed = people.assign(calm=people[ITEMS].sum(axis=1, skipna=False))
    sets = impute(summed, SCALE, seed=1, m=2, items=True)
    assert sets[1]["calm"].equals(sets[1][ITEMS].sum(axis=1))


def test_answered_items_inform_the_score() -> None:
    """People with two of four items answered: the score through the items is nearer the truth than the score by itself."""
    people = scale_trial(seed=3, n=400)
    rng = np.random.default_rng(1)
    whole = people.dropna(subset=[*ITEMS, "calm_0"]).reset_index(drop=True)
    gaps = whole.copy()
    half = rng.random(len(whole)) < 0.4
    gaps.loc[half, ["calm", "calm_i0", "calm_i3"]] = np.nan
    error = {}
    for items in (True, False):
        sets = impute(gaps, SCALE, seed=2, m=20, items=items)
        mean = np.mean([s.loc[half, "calm"] for s in sets], axis=0)
        error[items] = float(np.mean((mean - whole.loc[half, "calm"]) ** 2))
    assert error[True] < 0.7 * error[False]


def test_a_score_that_its_items_do_not_make_is_refused() -> None:
    people = scale_trial()
    with pytest.raises(InputError, match="neither the mean nor the sum"):
        impute(people.assign(calm_i0=6 - people["calm_i0"]), SCALE, seed=1, items=True)


def test_items_of_a_fully_observed_score_are_left_alone() -> None:
    people = scale_trial()
    people["calm"] = people["calm"].fillna(3.0)
    sets = impute(people, SCALE, seed=1, items=True, m=2, iterations=1)
    assert sets[0][ITEMS].equals(people[ITEMS])
    assert not set(ITEMS) & set(sets.frame["variable"])


def test_a_category_nobody_has_is_said(people: pd.DataFrame) -> None:
    design = DESIGN.model_copy(
        update={"covariates": (DESIGN.covariates[1].model_copy(update={"levels": ("young", "middle", "old", "ancient")}),)}
    )
    sets = impute(people, design, seed=1, m=2, iterations=1)
    assert "ancient" in sets.events.loc[sets.events["kind"] == "empty category", "detail"].iloc[0]
    assert "ancient" not in set(sets[0]["age_band"])


def components(frames: Any, fixed: list[str], groups: list[str]) -> np.ndarray:
    """Coefficients after the intercept, then variances (groups, residual), means over frames."""
    out = []
    for f in frames:
        X = np.column_stack([np.ones(len(f)), *(f[name] for name in fixed)])
        fit = reml.fit(X, f["y"].to_numpy(), [np.unique(f[g], return_inverse=True)[1] for g in groups])
        out.append([*fit.beta[1:], *fit.variances, fit.sigma2])
    return np.mean(out, axis=0)


def test_associations_of_sites_are_kept_whichever_wave_is_missing() -> None:
    """A contextual effect (slope .5 within sites, -.4 between), a third of either wave missing: both slopes and both ICCs are kept."""
    rng = np.random.default_rng(12)
    sites, n = 300, 8
    site = np.repeat(np.arange(sites), n)
    v = np.sqrt(0.3) * rng.normal(size=sites)
    x = v[site] + np.sqrt(0.7) * rng.normal(size=sites * n)
    y = 0.5 * x + (-0.9 * v + np.sqrt(0.1) * rng.normal(size=sites))[site] + 0.8 * rng.normal(size=sites * n)
    full = pd.DataFrame({"person": np.arange(len(y)), "site": site, "arm": np.where(site % 2, "control", "intervention"), "y_0": x, "y": y})
    people = full.assign(y_0=full["y_0"].where(rng.random(len(y)) > 0.4), y=full["y"].where(rng.random(len(y)) > 0.25))
    sets = list(impute(people, TrialDesign(outcomes=[{"name": "y"}]), seed=4, m=12, iterations=8))
    meant = [f.assign(mean=f.groupby("site")["y_0"].transform("mean")) for f in (full, *sets)]
    slopes, imputed = components(meant[:1], ["y_0", "mean"], ["site"]), components(meant[1:], ["y_0", "mean"], ["site"])
    # the cells that are gone take .07 off it (over many sets, Monte Carlo error .01 here); without the site mean of the follow-up in the
    # baseline's model the contextual slope came out another .09 too weak
    assert imputed[1] == pytest.approx(slopes[1], abs=0.11)
    assert imputed[0] == pytest.approx(slopes[0], abs=0.03)
    assert icc_of(sets, "y_0") == pytest.approx(icc_of([full], "y_0"), abs=0.03)


def paired_trial(seed: int = 3, pairs: int = 60, n: int = 6) -> tuple[pd.DataFrame, pd.DataFrame, TrialDesign]:
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(2 * pairs), n)
    x = rng.normal(size=len(site))
    y = 0.5 * x + 0.4 * rng.normal(size=pairs)[site // 2] + 0.3 * rng.normal(size=2 * pairs)[site] + 0.85 * rng.normal(size=len(site))
    full = pd.DataFrame({"person": np.arange(len(site)), "site": site, "pair": [f"P{p:02d}" for p in site // 2]})
    full["arm"] = np.where(site % 2, "control", "intervention")
    full = full.assign(x=x, y=y)
    design = TrialDesign(
        columns={"pair": "pair"},
        outcomes=[{"name": "y", "has_baseline": False}],
        covariates=[{"name": "x"}],
        analysis={"multiplicity": "holm"},
    )
    return full, full.assign(y=full["y"].where(rng.random(len(site)) > 0.4)), design


def test_a_pair_intercept_keeps_the_likeness_of_paired_sites() -> None:
    full, people, design = paired_trial(pairs=200)
    truth = components([full], ["x"], ["pair", "site"])
    kept = components(impute(people, design, seed=1, m=5, iterations=4, pair_effects="random"), ["x"], ["pair", "site"])
    lost = components(impute(people, design, seed=1, m=5, iterations=4), ["x"], ["pair", "site"])
    assert kept[1] == pytest.approx(truth[1], abs=0.05)
    assert kept[2] == pytest.approx(truth[2], abs=0.05)
    assert lost[1] < 0.8 * truth[1]


def test_the_pair_intercept_follows_the_analysis_and_says_where_there_is_none() -> None:
    _, people, design = paired_trial(pairs=12)
    assert impute(people, design, seed=1, m=2, iterations=1).provenance.settings["pair_effects"] == "none"
    random = design.model_copy(update={"analysis": design.analysis.model_copy(update={"pair_effects": "random"})})
    people.loc[people["site"] == 3, "pair"] = np.nan  # drawn alone
    sets = impute(people, random, seed=1, m=2, iterations=2)
    assert sets.provenance.settings["pair_effects"] == "random"
    alone = impute(people, random, seed=1, m=2, iterations=1, heteroscedastic=True)
    assert "no pair intercept" in set(alone.events["kind"])
    assert "no pair intercept" not in set(sets.events["kind"])
    shuffled = impute(people.sample(frac=1, random_state=1), random, seed=1, m=2, iterations=2)
    assert_frame_equal(shuffled[0].loc[people.index], sets[0])
    apart = impute(people, random, seed=1, m=2, iterations=1, by_arm=True)
    assert apart.events["kind"].tolist() == ["no pair intercept"] * 2
    assert_frame_equal(apart[1], impute(people, design, seed=1, m=2, iterations=1, by_arm=True)[1])


def test_bad_pairs_are_named() -> None:
    _, people, design = paired_trial(pairs=5)
    with pytest.raises(InputError, match='say "none" or "random"'):
        impute(people, design, seed=1, pair_effects="fixed")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="names no pair column"):
        impute(people, TrialDesign(outcomes=design.outcomes), seed=1, pair_effects="random")
    people.loc[people.index[3], "pair"] = "P04"
    with pytest.raises(InputError, match="site '0' is in two pairs"):
        impute(people, design, seed=1, pair_effects="random")


def test_sites_may_differ_in_their_variance() -> None:
    """Half the sites have three times the residual SD of the others; among 40% imputed, so do the imputed values of most of them."""
    rng = np.random.default_rng(2)
    sites = 60
    site = np.r_[np.repeat(np.arange(sites), 10), sites + np.arange(20)]  # and twenty of one person
    sd = np.where(np.arange(sites + 20) % 2, 0.4, 1.2)
    y = 0.3 * rng.normal(size=sites + 20)[site] + sd[site] * rng.normal(size=len(site))
    people = pd.DataFrame({"person": np.arange(len(site)), "site": site, "arm": np.where(site % 4 < 2, "control", "intervention"), "y": y})
    people["y"] = people["y"].where(rng.random(len(site)) > 0.4)
    people.loc[people["site"] == 7, "y"] = np.nan  # wholly missing
    design = TrialDesign(outcomes=[{"name": "y", "has_baseline": False}])

    def spread(**options: Any) -> tuple[float, float]:
        sets = impute(people, design, seed=1, m=10, iterations=8, **options)
        cells = sets.cells["y"]
        where = people["site"].to_numpy()[cells.rows]
        deviation = cells.values - np.array([people.loc[people["site"] == s, "y"].mean() if s not in (7,) else 0.0 for s in where])
        narrow, wide = (deviation[:, (where < sites) & (where % 2 == odd) & (where != 7)] for odd in (1, 0))
        return float(np.nanstd(narrow)), float(np.nanstd(wide))

    narrow, wide = spread(heteroscedastic=True)
    assert narrow < 0.75
    assert 1.1 < wide < 1.6
    equal = spread()
    assert equal[0] > 0.85
    with pytest.raises(InputError, match="site intercepts only"):
        impute(
            people.assign(pair=people["site"] // 2),
            TrialDesign(columns={"pair": "pair"}, outcomes=design.outcomes),
            seed=1,
            heteroscedastic=True,
            pair_effects="random",
        )


JOINT = TrialDesign(
    outcomes=[{"name": "mood"}],
    covariates=DESIGN.covariates[:2],
    imputation={"auxiliary": ["budget", "colour", "sick"], "m": 3, "iterations": 2},
)


def test_the_joint_engine_fills_every_type_and_repeats_its_bits(people: pd.DataFrame) -> None:
    people = people.assign(sick=people["sick"])
    sets = impute(people, JOINT, seed=5, engine="joint")
    for name in ("mood", "mood_0", "sick", "smoker", "age_band", "colour", "budget"):
        seen = people[name].notna()
        assert sets[0][name].notna().all()
        assert sets[0].loc[seen, name].tolist() == people.loc[seen, name].tolist()
    assert set(sets[0]["age_band"]) == {"young", "middle", "old"}
    assert sets[0].groupby("site")["budget"].nunique().eq(1).all()
    assert sets.frame["method"].str.contains("joint").any()
    again = impute(people.sample(frac=1, random_state=4), JOINT, seed=5, m=4, jobs=2, engine="joint")
    for k in range(3):
        assert_frame_equal(again[k].loc[people.index], sets[k])
    big = people.assign(mood=people["mood"] * 1000)
    for a, b in zip(sets, impute(big, JOINT, seed=5, engine="joint"), strict=True):
        np.testing.assert_allclose(b["mood"], a["mood"] * 1000, rtol=1e-7)


def test_the_joint_engine_keeps_the_icc_of_numbers_and_categories() -> None:
    rng = np.random.default_rng(8)
    sites = 300
    site = np.repeat(np.arange(sites), rng.integers(1, 8, sites))
    both = rng.normal(size=(sites, 2)) @ np.linalg.cholesky([[0.2, 0.1], [0.1, 0.25]]).T
    e = rng.normal(size=(len(site), 2)) @ np.linalg.cholesky([[0.8, 0.3], [0.3, 0.75]]).T
    latent = both[site] + e
    full = pd.DataFrame({"person": np.arange(len(site)), "site": site, "arm": np.where(site % 2, "control", "intervention")})
    full = full.assign(y=latent[:, 0], better=(latent[:, 1] > 0).astype(float))
    people = full.copy()
    for name in ("y", "better"):
        people[name] = full[name].where(rng.random(len(site)) > 0.33)
    design = TrialDesign(outcomes=[{"name": "y", "has_baseline": False}, {"name": "better", "type": "binary", "has_baseline": False}])
    sets = list(impute(people, design, seed=1, m=8, iterations=5, engine="joint"))
    for name in ("y", "better"):
        assert icc_of(sets, name) == pytest.approx(icc_of([full], name), abs=0.04)
    assert np.mean([f["y"].corr(f["better"]) for f in sets]) == pytest.approx(full["y"].corr(full["better"]), abs=0.05)


def test_the_joint_engine_keeps_bounds(people: pd.DataFrame) -> None:
    low = float(people["mood"].min()) - 0.5
    assert impute(people, JOINT, seed=1, engine="joint", bounds={"mood": (low, 200.0)}).cells["mood"].values.min() >= low


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "jomo"}, 'say "chained"'),
        ({"engine": "joint", "items": True}, "has no items"),
        ({"engine": "joint", "site_prior": 0.5}, "half-t prior of its own"),
        ({"engine": "joint", "heteroscedastic": True}, "one residual covariance"),
        ({"engine": "joint", "pair_effects": "random"}, "site intercepts only"),
    ],
)
def test_what_the_joint_engine_has_not_is_said(people: pd.DataFrame, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        impute(people, JOINT, seed=1, **options)


def test_too_many_dimensions_are_refused_by_name(people: pd.DataFrame) -> None:
    many = people.assign(**{f"extra{k}": people["mood"] + k for k in range(6)})
    design = TrialDesign(outcomes=DESIGN.outcomes, covariates=DESIGN.covariates, imputation={"auxiliary": [f"extra{k}" for k in range(6)]})
    with pytest.raises(InputError, match="colour 2, age_band 1"):
        impute(many, design, seed=1, engine="joint")


@pytest.mark.parametrize("engine", ["chained", "joint"])
def test_site_level_columns_of_every_type(engine: Any) -> None:
    """A number, a count, a binary, an ordered and a plain category of sites, with gaps; each is one value a site, from those seen."""
    rng = np.random.default_rng(3)
    people = small_trial(seed=3, missing=0.1)[["person", "site", "arm", "mood_0", "mood"]]
    sites = np.unique(people["site"])
    each = pd.DataFrame({"site": sites, "rate": rng.normal(size=60), "beds": rng.poisson(8, 60).astype(float)})
    each["urban"] = np.where(rng.random(60) < 0.4, "yes", "no")
    each["size"] = pd.Categorical(rng.choice(["small", "middle", "large"], 60), categories=["small", "middle", "large"], ordered=True)
    each["owner"] = rng.choice(["county", "church", "firm"], 60)
    for name in each.columns[1:]:
        each.loc[rng.random(60) < 0.15, name] = None if name in ("urban", "size", "owner") else np.nan
    people = people.merge(each, on="site")
    names = ["rate", "beds", "urban", "size", "owner"]
    design = TrialDesign(
        outcomes=[{"name": "mood"}],
        imputation={"auxiliary": names, "m": 3, "iterations": 3},
    )
    sets = impute(people, design, seed=2, engine=engine, site_level=names)
    for completed in sets:
        for name in names:
            assert completed[name].notna().all()
            assert completed.groupby("site")[name].nunique().eq(1).all()
            if name not in ("rate", "beds"):
                assert set(completed[name]) <= set(people[name].dropna())
