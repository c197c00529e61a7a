"""Complier-average effects against AER::ivreg with clubSandwich's CR2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trialkit._kernels import pooling
from trialkit.design import TrialDesign
from trialkit.door import InputError
from trialkit.itt import itt
from trialkit.itt.compliance import complier_effect

HERE = Path(__file__).parents[1] / "reference"
REFERENCE = json.loads((HERE / "complier.json").read_text())
COVARIATES = {"plain": (), "adjusted": ("y0", "gender", "age"), "dose": ("y0",)}


def people(name: str) -> pd.DataFrame:
    d = pd.read_csv(HERE / "models" / "data" / f"{name}.csv")
    received = ((d["arm"] == 1) & (d["y0"] + 0.5 * d["consumer"] > -0.6)).astype(float)
    # R rounds halves to even, as numpy does
    dose = np.where(d["arm"] == 1, np.clip(np.round(2 + d["y0"]), 0, 4), 0)
    return d.assign(received=received, dose=dose)


@pytest.mark.reference
@pytest.mark.parametrize("kind", COVARIATES)
@pytest.mark.parametrize("name", REFERENCE["cases"])
def test_against_r(name, kind):
    stored = REFERENCE["cases"][name][kind]
    received = "dose" if kind == "dose" else "received"
    fit = complier_effect(people(name), outcome="y", received=received, assigned="arm", cluster="site", covariates=COVARIATES[kind])
    table = fit.frame.set_index("term")
    for name_, *expected in zip(stored["names"], stored["beta"], stored["se"], stored["df"], stored["p"], strict=True):
        np.testing.assert_allclose(table.loc[name_, ["estimate", "std_error", "df", "p_value"]].to_numpy(dtype=float), expected, rtol=1e-7)


def test_without_covariates_it_is_walds_ratio():
    d = people("crt_main")
    fit = complier_effect(d, outcome="y", received="received", assigned="arm", cluster="site")
    means = d.groupby("arm")[["y", "received"]].mean()
    assert fit.frame["estimate"][1] == pytest.approx(
        (means["y"][1] - means["y"][0]) / (means["received"][1] - means["received"][0]), rel=1e-10
    )
    assert fit.first_stage == pytest.approx(means["received"][1] - means["received"][0], rel=1e-10)


def test_with_perfect_compliance_it_is_the_effect_of_assignment():
    d = people("crt_main")
    fit = complier_effect(d.assign(received=d["arm"]), outcome="y", received="received", assigned="arm", cluster="site")
    means = d.groupby("arm")["y"].mean()
    assert fit.frame["estimate"][1] == pytest.approx(means[1] - means[0], rel=1e-10)
    assert np.isinf(fit.first_stage_f)


def test_missing_doses_are_counted():
    d = people("crt_main")
    holes = d.assign(received=d["received"].where(d.index > 4))
    fit = complier_effect(holes, outcome="y", received="received", assigned="arm", cluster="site")
    assert fit.notes[0] == "5 rows left out because received is missing."
    assert fit.n == len(d) - 5


def test_text_arms_serve():
    d = people("crt_main")
    named = d.assign(arm=np.where(d["arm"] == 1, "treated", "control"))
    a, b = (complier_effect(x, outcome="y", received="received", assigned="arm", cluster="site") for x in (d, named))
    np.testing.assert_allclose(a.frame.iloc[:, 1:], b.frame.iloc[:, 1:], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.assign(received=1.0), "does not move"),
        (lambda d: d.assign(received="yes"), "must be numbers"),
        (lambda d: d.assign(arm=1), "two values"),
        (lambda d: d.drop(columns="received"), "no column 'received'"),
        (lambda d: d.assign(received=d.groupby("arm").cumcount() % 2).iloc[: 2 * (len(d) // 4)], "leave no degrees"),
    ],
)
def test_refused(change, says):
    d = change(people("crt_8clusters"))
    covariates = ("age", "edu", "gender") if says.startswith("leave") else ()
    with pytest.raises(InputError, match=says):
        complier_effect(d, outcome="y", received="received", assigned="arm", cluster="site", covariates=covariates)


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["equal", "size", "adjusted"])
@pytest.mark.parametrize("name", REFERENCE["site_means"])
def test_two_stage_least_squares_of_site_means_against_r(name, kind):
    stored = REFERENCE["site_means"][name][kind]
    covariates = ("y0",) if kind == "adjusted" else ()
    weights = "size" if kind == "size" else "equal"
    columns = {"outcome": "y", "received": "received", "assigned": "arm", "cluster": "site"}
    fit = complier_effect(people(name), **columns, covariates=covariates, level="cluster", weights=weights)
    row = fit.frame.iloc[0]
    assert [row["estimate"], row["std_error"], row["df"], row["p_value"]] == pytest.approx(
        [stored["estimate"], stored["se"], stored["df"], stored["p"]], rel=1e-9
    )


def test_site_means_refuse_what_cannot_be_judged():
    d = people("crt_8clusters")
    few = d[d["site"].isin([*d.loc[d["arm"] == 1, "site"].unique()[:1], *d.loc[d["arm"] == 0, "site"].unique()])]
    with pytest.raises(InputError, match="At least two an arm"):
        complier_effect(few, outcome="y", received="received", assigned="arm", cluster="site", level="cluster")
    with pytest.raises(InputError, match="Did you mean 'cluster'"):
        complier_effect(d, outcome="y", received="received", assigned="arm", cluster="site", level="clusters")


# --- driven by the design, beside the model ---------------------------------------------------------------------

DESIGN = """
[[outcomes]]
name = "y"
has_baseline = false

[arms]
reference = "0"
intervention = "1"

[[covariates]]
name = "y0"
"""
ROWS = ["complier average, 2SLS", "complier average, 2SLS of site means"]


def declared(block: str) -> TrialDesign:
    return TrialDesign.from_text(f"{DESIGN}\n[compliance]\n{block}\n")


def trial(name: str = "crt_main") -> pd.DataFrame:
    d = people(name)
    return d.assign(person=np.arange(len(d)))


def test_the_table_has_what_the_verb_gives_over_the_outcomes_sd():
    d, design = trial(), declared('received = "received"')
    found = itt(d, design, analyses="all").frame.set_index("analysis")
    assert found.loc[ROWS, "measure"].tolist() == ["Cohen's d in compliers"] * 2
    sd = d["y"].std()
    for name, level in zip(ROWS, ("person", "cluster"), strict=True):
        alone = complier_effect(d, outcome="y", received="received", assigned="arm", cluster="site", covariates=["y0"], level=level)
        row = alone.frame.set_index("term").loc["received"]
        assert found.loc[name, ["estimate", "std_error", "conf_low"]].tolist() == pytest.approx(
            [row["estimate"] / sd, row["std_error"] / sd, row["conf_low"] / sd], rel=1e-10
        )
        assert found.loc[name, ["df", "p_value"]].tolist() == pytest.approx([row["df"], row["p_value"]], rel=1e-10)


def test_imputed_tables_are_pooled_on_the_small_sample_df():
    d, design = trial(), declared('received = "dose"\nunit = "session"')
    rng = np.random.default_rng(8)
    sets = [d.assign(y=d["y"] + 0.3 * rng.normal(size=len(d))) for _ in range(4)]
    found = itt(sets, design, analyses=ROWS).frame.set_index("analysis").loc[ROWS[0]]
    each = [complier_effect(s, outcome="y", received="dose", assigned="arm", cluster="site", covariates=["y0"]).frame.iloc[1] for s in sets]
    sd = np.array([s["y"].std() for s in sets])
    estimate, std_error, df = (np.array([e[k] for e in each]) for k in ("estimate", "std_error", "df"))
    pooled = pooling.pool_scalar(estimate / sd, (std_error / sd) ** 2, df)
    for key in ("estimate", "std_error", "df", "p_value", "conf_high", "fmi"):
        assert found[key] == pytest.approx(float(getattr(pooled, key)), rel=1e-9)
    assert found["df"] < df.mean()
    assert found["measure"] == "Cohen's d for each session"


def test_several_columns_are_a_dose_and_a_reference_arm_without_records_had_none():
    d = trial()
    for k in range(4):
        d[f"s{k}"] = np.where(d["arm"] == 1, (d["dose"] > k).astype(float), np.nan)
    columns = ", ".join(f'"s{k}"' for k in range(4))
    by_columns = itt(d, declared(f"received = [{columns}]"), analyses=ROWS)
    at_once = itt(d, declared('received = "dose"'), analyses=ROWS)
    np.testing.assert_allclose(by_columns.frame["estimate"], at_once.frame["estimate"], rtol=1e-12)
    assert any("Nothing is recorded in the 0 arm" in note for note in by_columns.notes)
    assert not any("Nothing is recorded" in note for note in at_once.notes)


def test_a_binary_outcome_gives_the_risk_difference_in_compliers():
    d = trial().assign(well=lambda x: (x["y"] > 0).astype(int))
    text = DESIGN.replace('name = "y"', 'name = "well"\ntype = "binary"\nmeasure = "odds-ratio"')
    found = itt(d, TrialDesign.from_text(f'{text}\n[compliance]\nreceived = "received"'), analyses="all").frame.set_index("analysis")
    alone = complier_effect(d, outcome="well", received="received", assigned="arm", cluster="site", covariates=["y0"]).frame.iloc[1]
    assert found.loc[ROWS[0], "measure"] == "risk difference in compliers"
    assert found.loc[ROWS[0], "estimate"] == pytest.approx(alone["estimate"], rel=1e-10)


def test_what_stands_in_the_way_is_said():
    d = trial()
    with pytest.raises(InputError, match="name the column"):
        itt(d, TrialDesign.from_text(DESIGN), analyses=ROWS)
    assert not set(ROWS) & set(itt(d, TrialDesign.from_text(DESIGN), analyses="all").frame["analysis"])
    holes = itt(d.assign(received=d["received"].where(d.index > 4)), declared('received = "received"'), analyses=ROWS)
    assert holes.frame["estimate"].isna().tolist() == [False, True, True]
    assert "5 of the" in holes.problems[f"y, {ROWS[0]}"]
    weak = itt(d.assign(received=np.resize([0.0, 1.0, 1.0], len(d))), declared('received = "received"'), analyses=ROWS)
    assert any("Below 10 the instrument is weak" in note for note in weak.notes)
