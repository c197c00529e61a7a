"""Formulas are read as R reads them, and nothing in them is evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trialkit.door import InputError
from trialkit.itt import model_frame
from trialkit.itt.formula import parse, term_label
from trialkit.itt.model_frame import build, design_matrix, read_column

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "model_matrix.json").read_text())
DATA = pd.DataFrame(REFERENCE["data"])


@pytest.mark.reference
@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda c: c["formula"])
def test_model_matrix_is_rs(case):
    formula = parse(case["formula"])
    columns = {v: read_column(DATA, v.column, as_factor=v.as_factor) for v in formula.variables}
    x, names, assign, _ = design_matrix(formula.terms, formula.intercept, columns, len(DATA))
    expected = [case["columns"]] if isinstance(case["columns"], str) else case["columns"]
    assert list(names) == expected
    assert [a + 1 for a in assign] == np.atleast_1d(case["assign"]).tolist()
    assert [term_label(t) for t in formula.terms] == (np.atleast_1d(case["terms"]).tolist() if case["terms"] else [])
    # exact: indicators and products of doubles R wrote with all their digits
    np.testing.assert_array_equal(x, np.array(case["matrix"], dtype=float).reshape(len(DATA), -1))


@pytest.mark.parametrize(
    ("text", "terms", "intercept", "groups"),
    [
        ("y ~ a + b + a", ["a", "b"], True, ()),
        ("y~a*b-a", ["b", "a:b"], True, ()),
        ("y ~ -1 + a", ["a"], False, ()),
        ("y ~ 0 + a + 1", ["a"], True, ()),
        ("y ~ a - 0", ["a"], True, ()),
        ("`my y` ~ `age (years)` + .x + é", ["age (years)", ".x", "é"], True, ()),
        ("y ~ a + (1|site)", ["a"], True, (("site",),)),
        ("y ~ a + (1 | pair / site)", ["a"], True, (("pair",), ("pair", "site"))),
        ("y ~ (1|pair:site) + a", ["a"], True, (("pair", "site"),)),
        ("y ~ (1|site)", [], True, (("site",),)),
    ],
)
def test_parsed(text, terms, intercept, groups):
    formula = parse(text)
    assert [term_label(t) for t in formula.terms] == terms
    assert formula.intercept is intercept
    assert formula.groups == groups


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("y", "'~'"),
        ("y ~", "too early"),
        ("y ~ a +", "too early"),
        ("y ~ a b", "'b' is not expected at character 7"),
        ("y ~ log(x)", 'frame["log_x"]'),
        ("y ~ __import__(os)", "is not evaluated"),
        ("y ~ a/b", "a + a:b"),
        ("y ~ (0|site)", "something that varies"),
        ("y ~ (1 + y|site)", "both sides"),
        ("y ~ (1 + arm|1)", "'1' is not expected"),
        ("y ~ a:(1|site)", "must be added with '+'"),
        ("y ~ a - (1|site)", "must be added with '+'"),
        ("y ~ y + a", "both sides"),
        ("y ~ 2*a", "the number 2"),
        ("y ~ 1:a", "cannot take part"),
        ("log(y) ~ a", "one column name"),
        ("y ~ a ~ b", "one '~'"),
        ("y ~ `", "'`' is not understood"),
        ("y ~ ``", "empty"),
        ("y ~ (a", "too early"),
        ("y ~ a)", "')' is not expected"),
        ("y ~ a^b", "'b' is not expected"),
        ("y ~ a; b", "';' is not understood"),
    ],
)
def test_refused_with_a_reason(text, says):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "random"),
    [
        ("y ~ a + (1|site)", [(("site",), [], True, True)]),
        ("y ~ (a|pair)", [(("pair",), ["a"], True, True)]),
        ("y ~ a + (0 + a|pair)", [(("pair",), ["a"], False, True)]),
        ("y ~ a + (1 + a||pair) + (1|site)", [(("pair",), ["a"], True, False), (("site",), [], True, True)]),
        ("y ~ (1 + b + a:b|p/s)", [(("p",), ["b", "b:a"], True, True), (("p", "s"), ["b", "b:a"], True, True)]),
    ],
)
def test_random_parts(text, random):
    parsed = parse(text)
    assert [(r.group, [term_label(t) for t in r.terms], r.intercept, r.correlated) for r in parsed.random] == random
    assert parsed.groups == tuple(group for group, *_ in random)


def test_a_formula_must_be_text():
    with pytest.raises(InputError, match="not int"):
        parse(3)


def test_levels_follow_a_declared_order_and_empty_ones_go():
    frame = DATA.assign(age=pd.Categorical(DATA["age"], categories=["60+", "45-59", "18-29", "30-44"]), site=list("ABCDEF") * 2)
    model = build(parse("y ~ age"), frame, groups=["site"])
    assert model.names == ("(Intercept)", "age18-29", "age30-44")


def test_numbers_as_factors_sort_as_numbers():
    column = read_column(DATA, "visit", as_factor=True)
    assert column.levels == ("1", "2", "10")


@pytest.mark.parametrize("kind", ["str", "object", "string", "category", "string[pyarrow]"])
def test_every_kind_of_text_gives_the_same_codes(kind):
    plain = read_column(DATA, "age")
    other = read_column(DATA.assign(age=DATA["age"].astype(kind)), "age")
    assert other.levels == plain.levels
    np.testing.assert_array_equal(other.values, plain.values)


@pytest.mark.parametrize("kind", ["float64", "Float64", "int64", "Int64", "float32", "double[pyarrow]", "object"])
def test_every_kind_of_number_gives_the_same_values(kind):
    other = read_column(DATA.assign(visit=DATA["visit"].astype(kind)), "visit")
    assert other.levels is None
    np.testing.assert_array_equal(other.values, DATA["visit"].to_numpy(dtype=float))


def test_a_missing_value_is_missing_in_every_kind_of_column():
    frame = pd.DataFrame(
        {
            "text": ["a", None, "b"],
            "category": pd.Categorical(["a", None, "b"]),
            "number": [1.0, np.nan, 2.0],
            "nullable": pd.array([1, None, 2], dtype="Int64"),
            "boolean": pd.array([True, None, False], dtype="boolean"),
        }
    )
    for name in frame.columns:
        assert read_column(frame, name).missing.tolist() == [False, True, False], name


def test_unknown_column_names_the_nearest():
    with pytest.raises(InputError, match=r"no column 'agee'.*Did you mean 'age'"):
        build(parse("y ~ agee"), DATA, groups=["arm"])


def test_infinite_number_names_its_row():
    frame = DATA.assign(x=DATA["x"].where(DATA.index != 3, np.inf))
    with pytest.raises(InputError, match="row 5, column 'x'"):
        build(parse("y ~ x"), frame, groups=["arm"])


def test_text_outcome_is_refused():
    with pytest.raises(InputError, match="column 'age': '30-44' is not a number"):
        build(parse("age ~ x"), DATA, groups=["arm"])


def test_missing_rows_are_counted_by_column():
    frame = DATA.assign(x=DATA["x"].where(DATA.index > 1), age=DATA["age"].where(DATA.index != 1), site=list("ABCDEF") * 2)
    model = build(parse("y ~ x + age"), frame, groups=["site"])
    assert len(model.y) == 10
    assert model.rows.tolist() == list(range(2, 12))
    assert model.notes() == ("2 of 12 rows left out because a value is missing (x in 2, age in 1).",)


def test_later_dependent_columns_are_dropped_as_in_r():
    frame = DATA.assign(z=2 * DATA["x"] + 1, one=1.0, alone="only", site=list("ABCDEF") * 2)
    model = build(parse("y ~ x + z + one + alone + arm"), frame, groups=["site"])
    assert model.names == ("(Intercept)", "x", "armintervention")
    assert model.dropped == ("z", "one")
    assert model.constant == ("alone",)
    assert "alone" in model.notes()[0]
    assert "z, one" in model.notes()[1]


def test_groups_are_found_outermost_first():
    frame = DATA.assign(site=list("AABBCCDDEEFF"), pair=list("PPPPQQQQRRRR"))
    model = build(parse("y ~ x + (1|site) + (1|pair)"), frame)
    assert [g.name for g in model.groups] == ["pair", "site"]


def test_labels_used_again_in_another_group():
    frame = DATA.assign(site=["1", "2"] * 6, pair=list("PPPPQQQQRRRR"))
    with pytest.raises(InputError, match=r"site '1' occurs in more than one pair.*\(1\|pair/site\)"):
        build(parse("y ~ x"), frame, groups=["pair", "site"])
    model = build(parse("y ~ x + (1|pair/site)"), frame)
    assert [g.name for g in model.groups] == ["pair", "pair:site"]
    assert model.groups[1].labels == ("P:1", "P:2", "Q:1", "Q:2", "R:1", "R:2")


def test_groups_in_the_wrong_order_and_the_same_grouping_twice():
    frame = DATA.assign(site=list("AABBCCDDEEFF"), pair=list("PPPPQQQQRRRR"), again=list("aabbccddeeff"))
    with pytest.raises(InputError, match=r"groups=\['pair', 'site'\]"):
        build(parse("y ~ x"), frame, groups=["site", "pair"])
    with pytest.raises(InputError, match="same grouping"):
        build(parse("y ~ x"), frame, groups=["site", "again"])


@pytest.mark.parametrize("other", ["A ", "A\u200b", "Ａ"])
def test_a_group_in_two_spellings(other):
    frame = pd.DataFrame({"y": [1.0, 2, 3, 4, 5, 7], "g": ["A", "A", "B", "B", other, other]})
    with pytest.raises(InputError, match=r"column 'g': 'A' \(row 2\) and .* \(row 6\) differ only in spaces or width"):
        build(parse("y ~ 1"), frame, groups=["g"])


def test_groups_named_twice():
    with pytest.raises(InputError, match="in one place"):
        build(parse("y ~ x + (1|arm)"), DATA, groups=["arm"])


@pytest.mark.parametrize(("weight", "says"), [(0.0, "not positive"), (-1.0, "not positive")])
def test_weights_must_be_positive(weight, says):
    frame = DATA.assign(w=[1.0] * 5 + [weight] + [1.0] * 6)
    with pytest.raises(InputError, match=f"row 7.*{says}"):
        build(parse("y ~ x"), frame, groups=["arm"], weights="w")


def test_nothing_complete():
    frame = DATA.assign(x=np.nan)
    with pytest.raises(InputError, match="'x' is missing in 12 of 12"):
        build(parse("y ~ x"), frame, groups=["arm"])


def test_no_fixed_effect():
    with pytest.raises(InputError, match="no fixed effect"):
        build(parse("y ~ 0"), DATA, groups=["arm"])


def test_columns_are_the_same_read_as_arrays_and_as_series(monkeypatch):
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(
        {
            "y": rng.normal(size=60),
            "dose": rng.integers(0, 5, 60),
            "age": pd.Series(["b", "a", "C", " ", None, "b"] * 10, dtype="str"),
            "kind": pd.Series(rng.choice(["x", "y"], 60), dtype=pd.StringDtype("python")),
            "band": pd.Categorical(rng.choice(["u", "v", "w"], 60), categories=["w", "v", "u", "unseen"]),
            "site": [f"S{k // 5}" for k in range(60)],
        }
    )
    formula = parse("y ~ dose + age + kind + band")
    short = model_frame.build(formula, frame, groups=["site"])
    monkeypatch.setattr(model_frame, "_stored", lambda frame, name: None)
    long = model_frame.build(formula, frame, groups=["site"])
    assert short.names == long.names == ("(Intercept)", "dose", "agea", "ageb", "kindy", "bandv", "bandu")
    assert short.missing == long.missing and short.missing["age"] == 20 and len(short.y) == 40
    np.testing.assert_array_equal(short.x, long.x)
    np.testing.assert_array_equal(short.groups[0].codes, long.groups[0].codes)
    assert short.groups[0].labels == long.groups[0].labels
