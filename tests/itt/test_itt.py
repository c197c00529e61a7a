"""itt: each row of its table is the fit a reader would make by hand, and nothing is dropped in silence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import trialkit as tk
from trialkit._kernels.pooling import pool_scalar
from trialkit.door import InputError
from trialkit.itt import fit_mixed
from trialkit.results import Provenance

COLUMNS = [
    *("outcome", "level", "rank", "estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high"),
    *("p_adjusted", "icc", "fmi", "n", "clusters", "m"),
]
FORMULA = "{y} ~ arm + {y}_0 + gender + age_band + consumer"


def z(values: pd.Series) -> pd.Series:
    return (values - values.mean()) / values.std(ddof=1)


def by_hand(frame: pd.DataFrame, outcome: str, rater: str, **options) -> pd.Series:
    """The trial's analysis of one completed table, through the public function: standardise, fit, read off the arm."""
    rows = frame[frame["role"] == rater].dropna(subset=[outcome, f"{outcome}_0"])
    rows = rows.assign(**{outcome: z(rows[outcome])})
    fit = fit_mixed(FORMULA.format(y=outcome), rows, groups=options.pop("groups", ["site"]), **options)
    return pd.concat([fit.row("armintervention"), pd.Series({"icc": fit.icc, "n": fit.n})])


RATERS = {"climate": "peer", "recovery": "peer", "burnout": "peer", "stigma": "supervisor"}


def test_columns_are_exactly_the_surface(people, design):
    results = tk.itt(people, design)
    assert list(results.frame.columns) == COLUMNS
    assert results.frame["outcome"].tolist() == list(RATERS)
    assert results.frame["rank"].tolist() == ["primary", "secondary", "secondary", "primary"]
    assert results.frame["level"].tolist() == ["site", "person", "person", "supervisor"]
    assert results.frame[["n", "clusters", "m"]].dtypes.astype(str).tolist() == ["int64"] * 3


@pytest.mark.parametrize("inference", ["kenward-roger", "satterthwaite"])
@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_one_table_is_the_fit_by_hand(people_of, design, inference, missing):
    people = people_of(3, missing=missing)
    results = tk.itt(people, design, inference=inference)
    assert results.m == 1
    for row in results.frame.itertuples():
        hand = by_hand(people, row.outcome, RATERS[row.outcome], inference=inference)
        for name in ("estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "icc"):
            assert getattr(row, name) == pytest.approx(hand[name], rel=1e-9), (row.outcome, name)
        assert row.n == hand["n"]
        assert np.isnan(row.fmi)
        assert row.m == 1
    assert results.notes[0].startswith("Complete cases")
    if missing:
        lost = len(people[people["role"] == "supervisor"]) - results.frame["n"].iloc[3]
        assert f"stigma {lost}" in results.notes[0]


def test_imputed_tables_are_pooled_by_rubin_and_barnard_rubin(people_of, completed, design):
    tables = completed(people_of(3, missing=0.15), 8)
    results = tk.itt(iter(tables), design)
    for row in results.frame.itertuples():
        hand = pd.DataFrame([by_hand(table, row.outcome, RATERS[row.outcome]) for table in tables])
        q, u = hand["estimate"], hand["std_error"] ** 2
        pooled = pool_scalar(q.to_numpy(), u.to_numpy(), hand["df"].mean())
        assert row.estimate == pytest.approx(q.mean(), rel=1e-9)
        assert row.std_error == pytest.approx(np.sqrt(u.mean() + (1 + 1 / 8) * q.var(ddof=1)), rel=1e-9)
        assert [row.df, row.fmi] == pytest.approx([pooled.df.item(), pooled.fmi.item()], rel=1e-9)
        assert row.p_value == pytest.approx(2 * stats.t.sf(abs(row.estimate / row.std_error), row.df), rel=1e-9)
        assert row.icc == pytest.approx(hand["icc"].mean(), rel=1e-9)
        assert row.m == 8
    assert "8 imputed tables" in results.notes[0]


def test_complete_copies_pool_to_the_single_answer(people, design):
    one = tk.itt(people, design).frame
    many = tk.itt([people] * 3, design).frame
    np.testing.assert_allclose(many["estimate"], one["estimate"], rtol=1e-12)
    np.testing.assert_allclose(many["std_error"], one["std_error"], rtol=1e-12)
    # Barnard and Rubin's df with no missing information: (df + 1) / (df + 3) df
    np.testing.assert_allclose(many["df"], one["df"] * (one["df"] + 1) / (one["df"] + 3), rtol=1e-12)


def test_standardising_each_table_or_all(people_of, completed, design):
    tables = completed(people_of(3, missing=0.3), 5)
    each, all_ = (tk.itt(tables, design, sd=s) for s in ("each-set", "all-sets"))
    peers = [t[t["role"] == "peer"]["climate"] for t in tables]
    common = np.sqrt(np.mean([y.var(ddof=1) for y in peers]))
    # one SD: the pooled raw coefficient over that SD
    assert all_.frame["estimate"][0] == pytest.approx(all_.details["raw_estimate"][0] / common, rel=1e-12)
    raw = [fit_mixed(FORMULA.format(y="climate"), t[t["role"] == "peer"], groups="site").row("armintervention")["estimate"] for t in tables]
    expected = np.mean([b / y.std(ddof=1) for b, y in zip(raw, peers, strict=True)])
    assert each.frame["estimate"][0] == pytest.approx(expected, rel=1e-9)
    assert each.frame["estimate"][0] != all_.frame["estimate"][0]


@pytest.mark.parametrize("denominator", ["total", "pooled", "control", "baseline", "none"])
def test_denominators(people, design, redesign, denominator):
    results = tk.itt(people, redesign(design, analysis={"standardise": denominator}))
    rows = people[people["role"] == "peer"]
    y, control = rows["climate"], rows["arm"] == "control"
    sd = {
        "total": y.std(),
        "pooled": np.sqrt((y[control].var() * (control.sum() - 1) + y[~control].var() * ((~control).sum() - 1)) / (len(y) - 2)),
        "control": y[control].std(),
        "baseline": rows["climate_0"].std(),
        "none": 1.0,
    }[denominator]
    raw = fit_mixed(FORMULA.format(y="climate"), rows, groups="site").row("armintervention")
    assert results.frame["estimate"][0] == pytest.approx(raw["estimate"] / sd, rel=1e-9)
    assert results.frame["std_error"][0] == pytest.approx(raw["std_error"] / sd, rel=1e-9)
    assert results.details["raw_estimate"][0] == pytest.approx(raw["estimate"], rel=1e-9)
    assert results.details["sd"][0] == pytest.approx(sd, rel=1e-12)
    assert results.details["denominator"][0] == denominator


@pytest.mark.parametrize("effects", ["random", "fixed"])
def test_pairs_as_declared(people, design, redesign, effects):
    results = tk.itt(people, redesign(design, analysis={"pair_effects": effects}))
    formula = FORMULA.format(y="climate") + (" + pair" if effects == "fixed" else "")
    rows = people[people["role"] == "peer"]
    groups = ["pair", "site"] if effects == "random" else ["site"]
    fit = fit_mixed(formula, rows.assign(climate=z(rows["climate"])), groups=groups)
    row = results.frame.iloc[0]
    assert row["estimate"] == pytest.approx(fit.row("armintervention")["estimate"], rel=1e-8)
    assert row["df"] == pytest.approx(fit.row("armintervention")["df"], rel=1e-7)
    assert row["icc"] == pytest.approx(fit.icc, rel=1e-7)


def test_a_site_without_pair_is_a_pair_of_its_own(people, design, redesign):
    alone = people.assign(pair=people["pair"].where(people["site"] != "S05"))
    random = redesign(design, analysis={"pair_effects": "random"})
    named = alone.assign(pair=alone["pair"].fillna("lonely"))
    pd.testing.assert_frame_equal(tk.itt(alone, random).frame, tk.itt(named, random).frame)


def test_p_adjusted_inside_each_family(people, design, redesign):
    frame = tk.itt(people, design).frame
    p = dict(zip(frame["outcome"], frame["p_value"], strict=True))
    adjusted = dict(zip(frame["outcome"], frame["p_adjusted"], strict=True))
    low, high = sorted((p["climate"], p["stigma"]))
    assert min(adjusted["climate"], adjusted["stigma"]) == pytest.approx(min(2 * low, 1))
    assert max(adjusted["climate"], adjusted["stigma"]) == pytest.approx(max(min(2 * low, 1), high))
    none = tk.itt(people, redesign(design, analysis={"multiplicity": "none"})).frame
    pd.testing.assert_series_equal(none["p_adjusted"], none["p_value"], check_names=False)


def test_an_outcome_that_cannot_be_analysed_keeps_its_row(people, design):
    broken = people.assign(recovery=np.where(people["role"] == "peer", 3.0, np.nan), burnout=np.nan)
    results = tk.itt(broken, design)
    assert results.frame["outcome"].tolist() == list(RATERS)
    numbers = ["estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "p_adjusted", "icc"]
    assert results.frame.loc[[1, 2], numbers].isna().all(axis=None)
    assert not results.frame.loc[[0, 3], numbers].isna().any(axis=None)
    assert set(results.problems) == {"recovery", "burnout"}
    assert "one value" in results.problems["recovery"]
    assert results.frame["n"].tolist()[2] == 0
    assert any("recovery could not be analysed" in note for note in results.notes)
    # the family keeps its size: both primaries are there, and the note says how the missing count
    assert any("counts as p = 1" in note for note in results.notes)


def test_values_still_missing_after_imputation_are_a_problem_with_a_name(people_of, completed, design):
    tables = completed(people_of(3), 3)
    tables[1] = tables[1].assign(climate=tables[1]["climate"].where(tables[1].index > 4))
    results = tk.itt(tables, design)
    assert results.problems["climate"] == "5 of 192 rows still miss a value after imputation (climate in 5); impute those columns too"
    assert np.isnan(results.frame["p_value"][0])


def test_sites_too_few_for_a_p_value(people_of, design):
    people = people_of(3, sites=2)
    results = tk.itt(people, design)
    assert results.frame["p_value"].isna().all()
    assert len(results.problems) == 4


def test_covariates_that_are_constant_are_left_out_and_said(people, design):
    results = tk.itt(people.assign(gender="female"), design)
    assert not results.problems
    assert results.details["columns_left_out"].tolist() == ["gender"] * 4
    assert any("gender" in note and "left out" in note for note in results.notes)


def test_declared_population_only(people, design, redesign):
    people = people.assign(done=(people.index % 4 != 0).astype(float))
    restricted = redesign(design, imputation={"population": "done"})
    inside = tk.itt(people, restricted)
    alone = tk.itt(people[people["done"] == 1], design)
    pd.testing.assert_frame_equal(inside.frame, alone.frame)
    assert any("done = 1" in note for note in inside.notes)


def test_boundary_fits_are_counted(people, design):
    flat = people.assign(climate=people["climate"] - 0.98 * people.groupby(["site", "role"])["climate"].transform("mean"))
    results = tk.itt([flat, people], design)
    assert results.details["singular"][0] == 0.5
    assert any("climate (1 of 2 fits)" in note for note in results.notes)


def test_sign_is_intervention_minus_reference_whatever_the_direction(people, design, redesign):
    before = tk.itt(people, design).frame["estimate"]
    swapped = redesign(design, arms={"reference": "intervention", "intervention": "control"})
    np.testing.assert_allclose(tk.itt(people, swapped).frame["estimate"], -before, rtol=1e-9)


def test_a_rater_only_counts_its_own(people, design):
    frame = tk.itt(people, design).frame
    assert frame["n"].tolist() == [192, 192, 192, 96]
    assert frame["clusters"].tolist() == [24] * 4


def test_levels_order_does_not_move_the_arm(people, design, redesign):
    other = [c | {"levels": ["51+", "36-50", "18-35"]} if c["name"] == "age_band" else c for c in design.model_dump()["covariates"]]
    np.testing.assert_allclose(
        tk.itt(people, redesign(design, covariates=other)).frame["estimate"], tk.itt(people, design).frame["estimate"], rtol=1e-9
    )


def test_provenance_and_reading(people, design):
    results = tk.itt(people, design)
    assert isinstance(results.provenance, Provenance)
    assert results.provenance.settings["design"] == design.digest
    assert str(results).startswith("Intention to treat: A small trial\nImputations =      none    Site size        = 4 to 8, mean 7.0\n")
    assert "climate" in results.to_html()


def test_arms_written_as_numbers(people, design, redesign):
    numbers = people.assign(arm=(people["arm"] == "intervention").astype(int))
    coded = redesign(design, arms={"reference": "0", "intervention": "1"})
    pd.testing.assert_frame_equal(tk.itt(numbers, coded).frame, tk.itt(people, design).frame)


# --- tables that say something impossible -------------------------------------------------------------------


def moved(people: pd.DataFrame, row: int, **values) -> pd.DataFrame:
    people = people.copy()
    for name, value in values.items():
        people.loc[row, name] = value
    return people


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: moved(d, 30, person=d["person"][0]), "person 'P0000' is in two sites, 'S00' (row 2) and 'S02' (row 32)"),
        (lambda d: moved(d, 1, person=d["person"][0]), "person 'P0000' stands in rows 2 and 3"),
        (
            lambda d: moved(d, 0, arm={"control": "intervention", "intervention": "control"}[d["arm"][0]]),
            "site 'S00' is in more than one arm",
        ),
        (lambda d: moved(d, 5, arm=None), "row 7 (person 'P0005'): the arm ('arm') is missing"),
        (lambda d: moved(d, 5, site=None), "row 7 (person 'P0005'): the site ('site') is missing"),
        (lambda d: moved(d, 5, person=None), "row 7: the id ('person') is missing"),
        (lambda d: d.assign(arm=d["arm"].replace("control", "usual")), "the arm 'usual' is not one of the design's arms"),
        (lambda d: d.drop(columns="climate"), "no column 'climate'"),
        (lambda d: d.drop(columns="climate_0"), "no column 'climate_0'"),
        (lambda d: d.drop(columns="gender"), "no column 'gender'"),
        (lambda d: d.drop(columns="site"), "no column 'site'"),
        (lambda d: d.assign(role="peer"), "nobody has role = 'supervisor'"),
        (lambda d: d.assign(climate=d["gender"]), "row 2, column 'climate': 'male' is not a number"),
        (lambda d: moved(d, 3, age_band="36-51"), "'36-51', which is not one of its declared levels"),
        (lambda d: moved(d, 3, consumer=2.0), "more than two values"),
        (lambda d: d.iloc[:0], "no rows to analyse"),
        (lambda d: [], "is empty"),
        (lambda d: "people.csv", "not str"),
        (lambda d: [d, d.iloc[1:]], "has 287 rows and the first has 288"),
        (lambda d: [d, d.sort_values("age_band")], "differs from the first in column 'person'"),
    ],
)
def test_refused_by_name(people, design, change, says):
    with pytest.raises(InputError) as caught:
        tk.itt(change(people), design)
    assert says in str(caught.value)


def test_faults_outside_the_analysed_population_are_faults(people, design, redesign):
    """A person listed twice is an error of the table, whether or not the second row was followed up."""
    narrow = redesign(design, imputation={"population": "done"})
    done = people.assign(done=1)
    done.loc[[1, 40], "done"] = 0
    assert len(tk.itt(done, narrow).frame) == len(design.outcomes)
    with pytest.raises(InputError, match="person 'P0000' stands in rows 2 and 3"):
        tk.itt(moved(done, 1, person=people["person"][0]), narrow)
    with pytest.raises(InputError, match="row 42: the arm 'contorl'"):
        tk.itt(moved(done, 40, arm="contorl"), narrow)


def test_a_site_in_two_pairs(people, design, redesign):
    with pytest.raises(InputError, match="site 'S00' is in more than one pair"):
        tk.itt(moved(people, 0, pair="P99"), redesign(design, analysis={"pair_effects": "random"}))


def test_population_must_be_zero_or_one(people, design, redesign):
    with pytest.raises(InputError, match="row 2, column 'done': 'yes' is neither 1"):
        tk.itt(people.assign(done="yes"), redesign(design, imputation={"population": "done"}))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"inference": "kr"}, "unknown inference"), ({"conf_level": 1.2}, "between 0 and 1"), ({"sd": "each"}, "Did you mean 'each-set'")],
)
def test_arguments_are_checked(people, design, arguments, says):
    with pytest.raises(InputError, match=says):
        tk.itt(people, design, **arguments)


def test_the_design_must_be_one(people):
    with pytest.raises(InputError, match="not dict"):
        tk.itt(people, {})


# --- more than random intercepts and one residual variance -----------------------------------------------------

STRUCTURES = [
    ({"pair_effects": "random", "random_slope": True}, {"groups": ["pair"], "slopes": {"pair": "arm"}}),
    ({"residual_by_arm": True}, {"groups": ["site"], "residual_by": "arm"}),
    (
        {"pair_effects": "random", "random_slope": True, "residual_by_arm": True, "inference": "satterthwaite"},
        {"groups": ["pair"], "slopes": {"pair": "arm"}, "residual_by": "arm", "inference": "satterthwaite"},
    ),
]


@pytest.mark.parametrize(("block", "options"), STRUCTURES)
def test_declared_structures_are_the_fit_by_hand(people, design, redesign, block, options):
    results = tk.itt(people, redesign(design, analysis=block))
    row, detail = results.frame.iloc[0], results.details.iloc[0]
    peers = people[people["role"] == "peer"]
    fit = tk.fit_mixed("climate ~ arm + climate_0 + gender + age_band + consumer", peers, **options)
    mine, sd = fit.row("armintervention"), peers["climate"].std()
    assert row[["estimate", "std_error", "conf_low"]].tolist() == pytest.approx(
        [mine["estimate"] / sd, mine["std_error"] / sd, mine["conf_low"] / sd], rel=1e-9
    )
    assert row[["df", "p_value", "icc"]].tolist() == pytest.approx([mine["df"], mine["p_value"], fit.icc], rel=1e-9)
    parts = fit.variance_components
    if "slopes" in options:
        assert detail["slope_variance"] == pytest.approx(parts.loc[parts["term"] == "armintervention", "variance"].item())
        assert any("varies between pairs" in note for note in results.notes)
    if "residual_by" in options:
        assert detail[["residual_variance_reference", "residual_variance_intervention"]].tolist() == pytest.approx(
            parts.loc[parts["group"] == "Residual", "variance"].tolist()
        )
        assert any("a residual variance in each arm" in note for note in results.notes)


def test_declared_structures_are_pooled_over_imputed_tables(people_of, completed, design, redesign):
    sets = completed(people_of(2, missing=0.1), 3)
    declared = redesign(design, analysis={"residual_by_arm": True})
    pooled = tk.itt(sets, declared).frame.iloc[0]
    each = [tk.itt(s, declared).frame.iloc[0] for s in sets]
    by_hand = tk.pool(
        [e["estimate"] for e in each], [e["std_error"] ** 2 for e in each], df_complete=float(np.mean([e["df"] for e in each]))
    )
    assert pooled[["estimate", "std_error", "df", "fmi"]].tolist() == pytest.approx(
        [by_hand.estimate, by_hand.std_error, by_hand.df, by_hand.fmi], rel=1e-9
    )


def test_pairs_of_several_sites_keep_the_sites_intercept(people, design, redesign):
    quads = people.assign(pair=people["pair"].str[1:].astype(int).floordiv(2).map("Q{:02}".format))
    results = tk.itt(quads, redesign(design, analysis={"pair_effects": "random", "random_slope": True}))
    peers = quads[quads["role"] == "peer"]
    formula = "climate ~ arm + climate_0 + gender + age_band + consumer"
    fit = tk.fit_mixed(formula, peers, groups=["pair", "site"], slopes={"pair": "arm"})
    assert results.frame["p_value"][0] == pytest.approx(fit.row("armintervention")["p_value"], rel=1e-8)
    assert not any("in the place of the site's intercept" in note for note in results.notes)


def test_shifts_of_a_declared_structure_are_its_fits(people_of, completed, design, redesign):
    sets = completed(people_of(2, missing=0.1), 2)
    declared = redesign(design, analysis={"residual_by_arm": True})
    up = (sets[0]["arm"] == "intervention").to_numpy(dtype=float)
    found = tk.itt.shifts(sets, declared, "climate", directions=[up], steps=[[0.0], [0.4]])
    moved = tk.itt([s.assign(climate=s["climate"] + 0.4 * up) for s in sets], declared).frame.iloc[0]
    assert found.loc[1, ["estimate", "df", "p_value"]].tolist() == pytest.approx(moved[["estimate", "df", "p_value"]].tolist(), rel=1e-9)
