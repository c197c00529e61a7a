"""Complier-average effects against AER::ivreg with clubSandwich's CR2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trialkit.door import InputError
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
