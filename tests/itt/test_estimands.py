"""Participant-average and cluster-average effects: clubSandwich, dense algebra, laws, and the verb over a trial."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import trialkit as tk
from trialkit.door import InputError
from trialkit.itt.cluster_level import site_values, two_stage
from trialkit.itt.comparison import compare_methods
from trialkit.itt.estimands import estimand_effects, weighted_effects
from trialkit.itt.mixed import fit_mixed

HERE = Path(__file__).parents[1] / "reference"
REFERENCE = json.loads((HERE / "estimands.json").read_text())


def matrix(name: str, kind: str) -> tuple[np.ndarray, pd.DataFrame]:
    d = pd.read_csv(HERE / "models" / "data" / f"{name}.csv")
    columns = [np.ones(len(d)), d["arm"]]
    if kind == "adjusted":
        columns += [d["y0"], *pd.get_dummies(d[["gender", "age"]], drop_first=True).to_numpy(dtype=float).T]
    return np.column_stack(columns).astype(float), d


@pytest.mark.reference
@pytest.mark.parametrize("working", ["independence", "exchangeable"])
@pytest.mark.parametrize("kind", ["plain", "adjusted"])
@pytest.mark.parametrize("name", REFERENCE["cases"])
def test_against_club_sandwich(name, kind, working):
    x, d = matrix(name, kind)
    found, stored = weighted_effects(x, d["y"], d["site"], working=working), REFERENCE["cases"][name][kind][working]
    assert found.correlation == pytest.approx(stored["rho"], rel=1e-10, abs=1e-12)
    # both are closed formulas, so rounding alone separates them
    np.testing.assert_allclose(found.estimate[:2], stored["estimate"], rtol=1e-11)
    np.testing.assert_allclose(found.std_error[:2], stored["se"], rtol=1e-11)
    np.testing.assert_allclose(found.df[:2], stored["df"], rtol=1e-11)


def test_the_difference_by_dense_matrices():
    x, d = matrix("crt_8clusters", "adjusted")
    d = d.sort_values("site", kind="stable")
    x = x[d.index]
    site, y = d["site"].to_numpy(), d["y"].to_numpy()
    found = weighted_effects(x, y, site)
    same = (site[:, None] == site).astype(float)
    phi = (1 - found.correlation) * np.eye(len(y)) + found.correlation * same
    labels = np.unique(site)
    directions, functional = np.zeros((len(labels), len(y))), np.zeros(len(y))
    for weight, sign in ((np.ones(len(y)), 1.0), (1 / same.sum(axis=1), -1.0)):
        M = np.linalg.inv(x.T @ (weight[:, None] * x))
        l = (weight[:, None] * x) @ M[:, 1]
        H = x @ M @ (weight[:, None] * x).T
        spread = (np.eye(len(y)) - H) @ phi @ (np.eye(len(y)) - H).T
        functional += sign * l
        for j, label in enumerate(labels):
            rows = np.flatnonzero(site == label)
            D = np.linalg.cholesky(phi[np.ix_(rows, rows)]).T
            values, vectors = np.linalg.eigh(D @ spread[np.ix_(rows, rows)] @ D.T)
            A = D.T @ (vectors / np.sqrt(values)) @ vectors.T @ D
            directions[j] += sign * ((A @ l[rows]) @ (np.eye(len(y)) - H)[rows])
    G = directions @ phi @ directions.T
    true = functional @ phi @ functional
    assert found.estimate[2] == pytest.approx(functional @ y, rel=1e-9)
    assert found.std_error[2] == pytest.approx(np.sqrt(((directions @ y) ** 2).sum() * true / np.trace(G)), rel=1e-9)
    assert found.df[2] == pytest.approx(np.trace(G) ** 2 / (G**2).sum(), rel=1e-9)


def test_sites_of_one_size_have_one_effect_and_the_t_test_of_their_means():
    rng = np.random.default_rng(2)
    site = np.repeat(np.arange(14), 5)
    arm = (site % 2).astype(float)
    y = rng.normal(size=70) + rng.normal(size=14)[site]
    found = weighted_effects(np.column_stack([np.ones(70), arm]), y, site)
    classic = two_stage(site_values(y, site, arm))
    for k in (0, 1):
        assert (found.estimate[k], found.std_error[k], found.df[k]) == pytest.approx((classic.estimate, classic.std_error, classic.df))
    assert np.isnan(found.std_error[2])


def test_units_order_and_names_of_sites_change_nothing():
    x, d = matrix("crt_unbalanced", "adjusted")
    first = weighted_effects(x, d["y"], d["site"])
    turned = np.random.default_rng(1).permutation(len(d))
    moved = x.copy()
    moved[:, 2] = 1e6 + 1e-3 * moved[:, 2]
    again = weighted_effects(
        moved[turned], 1e6 * d["y"].to_numpy()[turned] + 1e9, d["site"].map(lambda s: "x" + s[::-1]).to_numpy()[turned]
    )
    np.testing.assert_allclose(again.estimate / again.std_error, first.estimate / first.std_error, rtol=1e-6)
    np.testing.assert_allclose(again.df, first.df, rtol=1e-6)


def informative(seed: int = 3, *, slope: float = 0.0) -> pd.DataFrame:
    """Sites of 2 to 20 people; the effect grows by `slope` a person."""
    rng = np.random.default_rng(seed)
    sizes = np.resize([2, 4, 8, 12, 20], 40)
    site = np.repeat(np.arange(40), sizes)
    treated = (np.arange(40) // 5 % 2)[site]
    n = len(site)
    y = slope * treated * sizes[site] + 0.3 * rng.normal(size=40)[site] + rng.normal(size=n)
    arm = np.where(treated == 1, "intervention", "control")
    return pd.DataFrame({"person": np.arange(n), "site": site, "arm": arm, "age": rng.normal(size=n), "y": y})


DESIGN = """
[analysis]
standardise = "none"
[[outcomes]]
name = "y"
has_baseline = false
[[covariates]]
name = "age"
"""


def test_informative_sizes_are_seen_and_each_effect_is_its_own():
    design = tk.TrialDesign.from_text(DESIGN)
    effects = estimand_effects(informative(slope=0.1), design)
    table = effects.frame.set_index(["estimand", "analysis"])["estimate"]
    # planted: 0.1 times the mean size of a person's site (628 / 46), or of a site (46 / 5)
    assert table["participant-average"].to_numpy() == pytest.approx(1.365, abs=0.25)
    assert table["cluster-average"].to_numpy() == pytest.approx(0.92, abs=0.25)
    tests = effects.informative.set_index("test")
    assert (tests["p_value"] < 0.02).all()
    assert tests["estimate"].tolist() == pytest.approx([0.445, 0.1], rel=0.3)
    quiet = estimand_effects(informative(), design).informative
    assert (quiet["p_value"] > 0.05).all()
    assert len(effects.sites) == 40
    assert effects.sites["n"].sum() == 368


def test_rows_are_the_methods_by_themselves():
    people, design = informative(slope=0.1), tk.TrialDesign.from_text(DESIGN)
    effects = estimand_effects(people, design, working="independence")
    arm = (people["arm"] == "intervention").astype(float)
    values = site_values(people["y"], people["site"], arm, covariates=people[["age"]])
    found = effects.frame.set_index(["estimand", "analysis"])
    for estimand, weights in (("participant-average", "size"), ("cluster-average", "equal")):
        alone = two_stage(values, weights=weights)
        row = found.loc[(estimand, "site means, adjusted")]
        assert row[["estimate", "std_error", "df", "p_value", "conf_low"]].tolist() == pytest.approx(
            [alone.estimate, alone.std_error, alone.df, alone.p_value, alone.conf_low]
        )
    people["size"] = people.groupby("site")["y"].transform("size")
    slope = fit_mixed("y ~ arm + age + arm:size + size", people, groups=["site"]).row("armintervention:size")
    mine = effects.informative.iloc[1]
    assert mine[["estimate", "std_error", "df", "p_value"]].tolist() == pytest.approx(
        [slope["estimate"], slope["std_error"], slope["df"], slope["p_value"]], rel=1e-7
    )


def test_imputed_copies_give_the_table_s_estimates(people, design):
    first = estimand_effects(people, design, outcomes=["climate"])
    many = estimand_effects([people, people], design, outcomes=["climate"])
    np.testing.assert_allclose(many.frame["estimate"], first.frame["estimate"], rtol=1e-12)
    np.testing.assert_allclose(many.frame["std_error"], first.frame["std_error"], rtol=1e-12)
    # every site has eight peer workers: one effect, and that is said
    assert first.informative["p_value"].isna().all()
    assert any("same number of people" in note for note in first.notes)


def test_what_cannot_be_estimated_keeps_its_rows(people, design):
    effects = estimand_effects(people.assign(burnout=2.0), design)
    rows = effects.frame[effects.frame["outcome"] == "burnout"]
    assert len(rows) == 4
    assert rows["p_value"].isna().all()
    assert any("burnout" in note and "one value" in note for note in effects.notes)


def test_refusals(people, design):
    with pytest.raises(InputError, match="outcome"):
        estimand_effects(people, design, outcomes=["climat"])
    with pytest.raises(InputError, match="working correlation"):
        estimand_effects(people, design, working="ar1")
    with pytest.raises(InputError, match="at least 2 an arm"):
        weighted_effects(np.column_stack([np.ones(6), [0, 0, 0, 0, 1, 1]]), np.arange(6.0), [0, 0, 1, 1, 2, 2])
    with pytest.raises(InputError, match="exactly"):
        weighted_effects(np.column_stack([np.ones(6), [0, 0, 0, 1, 1, 1]]), [1, 1, 1, 2, 2, 2], [0, 0, 1, 2, 2, 3])


@pytest.mark.parametrize("weighting", ["participant-average", "cluster-average"])
def test_the_mixed_model_is_not_called_by_another_name(people, design, redesign, weighting):
    declared = redesign(design, estimand={"weighting": weighting})
    for notes in (tk.itt(people, declared).notes, compare_methods(people, declared).notes):
        assert any(weighting in note and "estimand_effects" in note for note in notes)
    assert not any("estimand_effects" in note for note in tk.itt(people, design).notes)
