"""A third level between person and site: imputed values of one ward are more alike than those of two."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal

from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.imputation import impute, impute_by
from trialkit.itt import fit_mixed, itt

OUTCOME = {"name": "y", "has_baseline": False}


def trial(seed: int = 3, sites: int = 60, wards: int = 3, n: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """In full, and with two fifths of y missing, whole wards among them."""
    rng = np.random.default_rng(seed)
    ward = np.repeat(np.arange(sites * wards), n)
    site = ward // wards
    x = rng.normal(size=len(ward))
    y = 0.5 * x + 0.3 * rng.normal(size=sites)[site] + 0.5 * rng.normal(size=sites * wards)[ward] + 0.8 * rng.normal(size=len(ward))
    full = pd.DataFrame({"person": np.arange(len(ward)), "site": site, "ward": [f"W{k}" for k in ward % wards]})
    full = full.assign(arm=np.where(site % 2, "intervention", "control"), x=x, y=y)
    gone = (rng.random(len(ward)) < 0.3) | (rng.random(sites * wards) < 0.1)[ward]
    return full, full.assign(y=full["y"].mask(gone))


def design(outcome: dict[str, object] = OUTCOME, **more: object) -> TrialDesign:
    return TrialDesign(columns={"subcluster": "ward", "pair": "pair"}, outcomes=[outcome], covariates=[{"name": "x"}], **more)


def variances(frames: object) -> np.ndarray:
    """Of site, ward within it and person, over the frames."""
    nested = [f.assign(ward=f["site"].astype(str) + f["ward"], y=f["y"].astype(float)) for f in frames]
    return np.mean([fit_mixed("y ~ arm + x", f, groups=["site", "ward"]).variance_components["variance"] for f in nested], axis=0)


def test_the_likeness_of_a_ward_is_kept() -> None:
    full, people = trial(sites=150)
    truth = variances([full])
    kept = variances(impute(people, design(), seed=1, m=5, iterations=4))
    without = TrialDesign(outcomes=[OUTCOME], covariates=[{"name": "x"}])
    lost = variances(impute(people, without, seed=1, m=5, iterations=4))
    assert_allclose(kept, truth, atol=0.05)
    assert lost[1] < 0.6 * truth[1]


@pytest.mark.parametrize("options", [{}, {"by_arm": True}, {"site_prior": 0.5}])
def test_the_unit_of_measurement_does_not_matter(options: dict[str, object]) -> None:
    _, people = trial(sites=20)
    plain = impute(people, design(), seed=1, m=3, iterations=3, **options)  # type: ignore[arg-type]
    scaled = impute(people.assign(y=1000 * people["y"] - 3), design(), seed=1, m=3, iterations=3, **options)  # type: ignore[arg-type]
    assert set(plain.events["kind"]) <= {"not converged"}
    for a, b in zip(plain, scaled, strict=True):
        assert_allclose(b["y"], 1000 * a["y"] - 3, rtol=1e-6, atol=1e-4)


def test_every_type_and_rows_in_any_order() -> None:
    full, _ = trial(sites=20)
    rng = np.random.default_rng(5)
    cut = pd.cut(full["y"], [-9, -0.7, 0.2, 0.9, 9], labels=False).astype(float)
    more = {
        "binary": (full["y"] > 0).astype(float),
        "ordinal": cut,
        "nominal": cut.map({0.0: "a", 1.0: "b", 2.0: "c", 3.0: "b"}),
        "count": np.floor(np.exp(full["y"])),
        "of_site": full["site"].map(dict(enumerate(rng.normal(size=20)))),
    }
    people = full.assign(**{k: v.mask(rng.random(len(v)) < 0.3) for k, v in more.items()}, y=full["y"].mask(rng.random(len(full)) < 0.3))
    people.loc[people["site"].isin([2, 7]), "of_site"] = np.nan
    outcomes = [OUTCOME, *({"name": k, "type": k, "has_baseline": False} for k in ("binary", "ordinal", "count"))]
    covariates = [{"name": "x"}, {"name": "nominal", "type": "categorical"}, {"name": "of_site"}]
    declared = TrialDesign(columns={"subcluster": "ward"}, outcomes=outcomes, covariates=covariates, analysis={"multiplicity": "holm"})
    sets = impute(people, declared, seed=2, m=3, iterations=3)
    for one in sets:
        assert not one[list(more)].isna().any().any()
        assert (one.groupby("site")["of_site"].nunique() == 1).all()
        seen = people["y"].notna()
        assert (one.loc[seen, "y"] == people.loc[seen, "y"]).all()
    shuffled = impute(people.sample(frac=1, random_state=3), declared, seed=2, m=3, iterations=3)
    assert_frame_equal(shuffled[2].loc[people.index], sets[2])


def test_what_is_left_out_is_said() -> None:
    _, people = trial(sites=20)
    own = impute(people.assign(ward=people["person"]), design(), seed=1, m=2, iterations=1)
    assert own.events["kind"].tolist() == ["no subcluster intercept"] and "hold more than one person" in own.events["detail"][0]
    one = impute(people.assign(ward="only"), design(), seed=1, m=2, iterations=1)
    assert "0 sites hold more than one ward" in one.events["detail"][0]
    for options in ({"engine": "joint"}, {"heteroscedastic": True}):
        sets = impute(people, design(), seed=1, m=2, iterations=2, **options)  # type: ignore[arg-type]
        assert "no subcluster intercept" in set(sets.events["kind"]) and sets.provenance.settings["subcluster"] is False
        assert "none for ward" in str(itt(sets, design()))
    sets = impute(people, design(), seed=1, m=2, iterations=2)
    assert sets.provenance.settings["subcluster"] is True and "none for ward" not in str(itt(sets, design()))
    fixed = design(analysis={"pair_effects": "fixed"})
    paired = impute(people.assign(pair=people["site"] // 2), fixed, seed=1, m=2, iterations=1)
    assert paired.events["kind"].tolist() == ["no pair intercept"]
    with pytest.warns(UserWarning, match="single-level imputation"):
        alone = impute_by("single-level", people, design(), seed=1, m=2, iterations=2)
    assert alone[0]["ward"].tolist() == people["ward"].tolist() and "no subcluster intercept" not in set(alone.events["kind"])


def test_bad_wards_are_named() -> None:
    _, people = trial(sites=20)
    with pytest.raises(InputError, match="the subcluster \\('ward'\\) is missing"):
        impute(people.assign(ward=people["ward"].mask(people["person"] == 4)), design(), seed=1)
    with pytest.raises(InputError, match="no column 'ward'"):
        impute(people.drop(columns="ward"), design(), seed=1)
    with pytest.raises(InputError, match="pair, site and subcluster together are not drawn"):
        impute(people, design(), seed=1, pair_effects="random")
