"""Pictures: they hold the numbers they were given, repeat byte for byte, and leave nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from trialkit.design import TrialDesign
from trialkit.door import InputError, Refused
from trialkit.imputation import Scenarios, TippingPoint, missing_flux, missing_patterns
from trialkit.itt import estimand_effects, fit_mixed
from trialkit.report import (
    Picture,
    baseline_table,
    missing_table,
    participant_flow,
    plot_autocorrelation,
    plot_caterpillar,
    plot_cluster_means,
    plot_cluster_size,
    plot_flow,
    plot_flux,
    plot_forest,
    plot_imputed,
    plot_imputed_sites,
    plot_love,
    plot_missing,
    plot_pairs,
    plot_patterns,
    plot_power,
    plot_residuals,
    plot_scenarios,
    plot_site_map,
    plot_tipping,
    plot_trace,
    plot_zipper,
)

Maker = Callable[[], Picture]


def power_table() -> pd.DataFrame:
    rows = [(k, rho, 1 - np.exp(-k * (0.02 - 0.05 * rho))) for rho in (0.01, 0.05, 0.2) for k in range(10, 101, 10)]
    return pd.DataFrame(rows, columns=["clusters", "icc", "power"])


def site_effects() -> pd.DataFrame:
    k = np.arange(12)
    return pd.DataFrame({"level": [f"S{i:02d}" for i in k], "estimate": np.sin(k) / 5, "std_error": 0.1 + 0.01 * k, "n": 2 + k % 4})


def traces() -> pd.DataFrame:
    rows = [(v, "mean", c, i, np.sin(c + i)) for v in ("y", "z") for c in (1, 2, 3) for i in range(1, 9)]
    return pd.DataFrame(rows, columns=["variable", "statistic", "chain", "iteration", "value"])


def intervals() -> pd.DataFrame:
    z = np.linspace(-3, 3, 200)
    return pd.DataFrame({"estimate": 0.3 + 0.1 * z, "conf_low": 0.3 + 0.1 * z - 0.196, "conf_high": 0.3 + 0.1 * z + 0.196, "truth": 0.3})


def site_model(tau: float = 0.6) -> Any:
    rng = np.random.default_rng(6)
    site = np.repeat(np.arange(20), 8)
    y = tau * rng.normal(size=20)[site] + rng.normal(size=160)
    if tau == 0:
        y -= pd.Series(y).groupby(site).transform("mean").to_numpy()
    return fit_mixed("y ~ arm", pd.DataFrame({"y": y, "arm": site % 2, "site": [f"S{s:02}" for s in site]}), groups="site")


class CompletedSets(list[pd.DataFrame]):
    """Two completed sets of four rows, of which one value of y was missing."""

    def __init__(self) -> None:
        self.base = pd.DataFrame({"y": [1.0, 2.0, 3.0, np.nan], "arm": list("abab")})
        super().__init__([self.base.fillna({"y": v}) for v in (5.0, 7.0)])


def tipping(*, both: bool = False) -> TippingPoint:
    grid = np.linspace(-1, 1, 5)
    pairs = [(r, i) for r in (grid if both else [0.0]) for i in grid]
    frame = pd.DataFrame(pairs, columns=["shift_control", "shift_trained"])
    frame["estimate"] = 0.3 + 0.2 * (frame["shift_trained"] - frame["shift_control"])
    frame = frame.assign(std_error=0.1, df=80.0, conf_low=frame["estimate"] - 0.2, conf_high=frame["estimate"] + 0.2)
    frame["p_value"] = np.exp(-12 * frame["estimate"] ** 2)
    if both:
        return TippingPoint(frame, "y", 0.05, None, ("control", "trained"))
    return TippingPoint(frame.drop(columns="shift_control").rename(columns={"shift_trained": "shift"}), "y", 0.05, 0.25, ("trained",))


def scenarios() -> Scenarios:
    frame = pd.DataFrame({"scenario": ["complete cases", "missing at random", "worst case"], "estimate": [0.3, 0.25, np.nan]})
    return Scenarios(frame.assign(conf_low=frame["estimate"] - 0.2, conf_high=frame["estimate"] + 0.2), "y")


SIZED = TrialDesign.from_text(
    '[[outcomes]]\nname = "y"\nrank = "primary"\nhas_baseline = false\n[[outcomes]]\nname = "z"\nhas_baseline = false'
)


def size_effects() -> Any:
    rng = np.random.default_rng(4)
    sizes = np.resize([3, 5, 8, 13, 21], 20)
    site = np.repeat(np.arange(20), sizes)
    treated = site % 2
    people = pd.DataFrame({"person": range(len(site)), "site": site, "arm": np.where(treated, "intervention", "control")})
    people["y"] = rng.normal(size=len(site)) + treated * 0.05 * sizes[site]
    return estimand_effects(people.assign(z=rng.normal(size=len(site))), SIZED)


def test_cluster_size_draws_every_site_and_says_both_effects():
    effects = size_effects()
    picture = plot_cluster_size(effects, SIZED)
    shown = effects.sites[effects.sites["outcome"] == "y"].reset_index(drop=True)
    pd.testing.assert_frame_equal(picture.data, shown)
    by = effects.frame[(effects.frame["outcome"] == "y") & (effects.frame["analysis"].str.startswith("independence"))]
    for what, value in zip(by["estimand"], by["estimate"], strict=True):
        assert f"{what}: {value:.2f}" in picture.alt
    assert len(plot_cluster_size(effects, SIZED, outcomes=("y", "z")).axes) == 2
    # each arm's line is least squares through its sites
    line = next(one for one in picture.ax.lines if one.get_linestyle() == "-" and len(one.get_xdata()) == 2)
    part = shown[shown["arm"] == 1]
    slope = np.polyfit(part["n"], part["value"], 1)[0]
    x, y = line.get_xdata(), line.get_ydata()
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(slope)
    with pytest.raises(InputError, match="unknown outcome"):
        plot_cluster_size(effects, SIZED, outcomes=("w",))


@pytest.fixture
def makers(results: Any, design: TrialDesign, people: pd.DataFrame, sites: pd.DataFrame, allocation: Any) -> dict[str, Maker]:
    return {
        "forest": lambda: plot_forest(results, design, people=people),
        "flow": lambda: plot_flow(participant_flow(people, design, sites=sites), pairs=11),
        "love": lambda: plot_love(allocation, baseline=baseline_table(people, design)),
        "pairs": lambda: plot_pairs(allocation, sites, lost=("S03",)),
        "site-map": lambda: plot_site_map(allocation, sites, columns=("directly_operated", "annual_budget", "n_staff")),
        "power": lambda: plot_power(power_table(), planned=(60, 0.68)),
        "missing": lambda: plot_missing(missing_table(people, design)),
        "patterns": lambda: plot_patterns(missing_patterns(people, design)),
        "flux": lambda: plot_flux(missing_flux(people, design)),
        "cluster-means": lambda: plot_cluster_means(people, design),
        "cluster-size": lambda: plot_cluster_size(size_effects(), SIZED),
        "caterpillar": lambda: plot_caterpillar(site_effects(), arms={"S01": "control"}),
        "imputed": lambda: plot_imputed(CompletedSets()),
        "imputed-sites": lambda: plot_imputed_sites(CompletedSets(), site="arm"),
        "autocorrelation": lambda: plot_autocorrelation(traces()),
        "trace": lambda: plot_trace(traces()),
        "zipper": lambda: plot_zipper(intervals()),
        "tipping": lambda: plot_tipping(tipping()),
        "scenarios": lambda: plot_scenarios(scenarios()),
        "residuals": lambda: plot_residuals(site_model()),
    }


NAMES = [
    *("forest", "flow", "love", "pairs", "site-map", "power", "missing", "cluster-means", "caterpillar", "imputed", "trace", "zipper"),
    *("tipping", "scenarios", "imputed-sites", "autocorrelation", "residuals", "patterns", "flux", "cluster-size"),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_picture(makers: dict[str, Maker], name: str) -> None:
    first, second = makers[name](), makers[name]()
    assert first.name == name
    assert len(first.data) > 0
    assert first.axes and first.ax is first.axes[0]
    assert len(first.alt) > 20 and len(first.title) > 10
    # the same picture is the same bytes, drawn twice or written twice
    svg = first.svg()
    assert svg == second.svg() == first.svg()
    root = ElementTree.fromstring(svg)
    assert root.find("{http://www.w3.org/2000/svg}title").text == first.title.strip()  # type: ignore[union-attr]
    assert "<date>" not in svg and "<!--" not in svg
    inline = first.inline_svg()
    ElementTree.fromstring(inline)
    assert "http" not in inline
    ids = re.findall(r'\bid="([^"]+)"', inline)
    assert len(ids) == len(set(ids))
    assert all(i.startswith(f"{name}-") for i in ids)
    # every reference meets an id of the same picture
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', inline)) <= set(ids)


def test_png_repeats_too(makers: dict[str, Maker]) -> None:
    png = makers["forest"]().png(dpi=60)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert png == makers["forest"]().png(dpi=60)


def test_nothing_is_left_behind() -> None:
    """A fresh process: no pyplot, no style changed, by drawing and writing."""
    code = (
        "import sys, matplotlib, pandas as pd; before = dict(matplotlib.rcParams.copy())\n"
        "from trialkit.report import plot_power\n"
        "plot_power(pd.DataFrame({'clusters': [10, 20], 'power': [.2, .5]})).svg()\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
        "assert 'statsmodels' not in sys.modules, 'statsmodels'\n"
        "assert dict(matplotlib.rcParams.copy()) == before, 'style'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = "import sys, trialkit.report; print([m for m in ('pandas', 'matplotlib', 'jinja2', 'docx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_forest_holds_the_results(results: Any, design: TrialDesign) -> None:
    picture = plot_forest(results, design)
    assert picture.data["estimate"].tolist() == results.frame["estimate"].tolist()
    assert "Stigma: −0.04 (−0.48 to 0.40), p .840" in picture.alt


def test_forest_marks_intervals_that_run_off(results: Any, design: TrialDesign) -> None:
    picture = plot_forest(results, design, limits=(-0.5, 0.5))
    arrows = [line.get_marker() for line in picture.ax.lines if line.get_marker() in ("<", ">")]
    assert sorted(arrows) == ["<", ">"]  # burnout to the left, climate to the right
    assert picture.ax.get_xlim() == (-0.5, 0.5)


def test_forest_keeps_an_outcome_without_an_estimate(results: Any, design: TrialDesign) -> None:
    frame = results.frame.copy()
    frame.loc[1, ["estimate", "conf_low", "conf_high", "p_value"]] = np.nan
    picture = plot_forest(frame, design)
    assert len(picture.data) == 4
    assert "Stigma: not estimated" in picture.alt


def test_drawing_on_given_axes(results: Any, design: TrialDesign) -> None:
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert plot_forest(results, design, ax=ax).ax is ax
    ax = Figure().add_subplot()
    assert plot_power(power_table(), ax=ax).axes == (ax,)


def test_labels_are_text_not_formulas_nor_markup(results: Any, design: TrialDesign) -> None:
    from matplotlib.text import Text

    nasty = '$\\frac{1}$ <b>&"\x00\n</b>'
    frame = results.frame.assign(outcome=[nasty, "b", "c", "d"])
    picture = plot_forest(frame)
    ElementTree.fromstring(picture.svg())
    assert "<b>" not in picture.inline_svg()
    shown = [t.get_text() for t in picture.figure.findobj(Text)]
    assert '$\\frac{1}$ <b>&" </b>' in shown


def test_flow_diagram_shows_every_number_of_the_flow(people: pd.DataFrame, sites: pd.DataFrame, design: TrialDesign) -> None:
    from matplotlib.text import Text

    flow = participant_flow(people, design, sites=sites)
    picture = plot_flow(flow, pairs=11)
    shown = [t.get_text() for t in picture.figure.findobj(Text)]
    assert "24 sites recruited" in shown
    assert "22 sites randomised: 11 pairs" in shown
    assert "2 not randomised: 1 closed; 1 declined" in shown
    for arm in flow.arms:
        for rater in flow.raters:
            for stage in flow.stages:
                assert f"{flow.count(stage, arm=arm, rater=rater):,}" in shown
    assert shown.count("not analysed") == 2  # a line for nobody, in each arm


def test_missing_map_counts_what_it_draws(people: pd.DataFrame, design: TrialDesign) -> None:
    table = missing_table(people, design)
    data = plot_missing(table).data.set_index(["rater", "variable"])
    for (rater, variable), row in data.iterrows():
        codes = table.patterns[rater][variable]
        assert row["observed"] == (codes == 0).sum()
        assert row["survey_missing"] == (codes == 2).sum()


def test_tipping_is_drawn_along_one_shift_or_over_two() -> None:
    one, two = plot_tipping(tipping()), plot_tipping(tipping(both=True), label="Mood")
    assert "changes at a shift of 0.25 SD" in one.alt
    assert len(one.data) == 5 and len(two.data) == 25
    assert two.title.startswith("Mood:") and "over 25 pairs of shifts" in two.alt
    assert "worst case" not in plot_scenarios(scenarios()).alt  # it has no number to tell
    with pytest.raises(InputError, match="two shifts of each arm"):
        plot_tipping(TippingPoint(tipping(both=True).frame.iloc[:5], "y", 0.05, None, ("control", "trained")))
    for plot in (plot_tipping, plot_scenarios):
        with pytest.raises(InputError, match="Give what"):
            plot(pd.DataFrame())


def test_imputed_values_are_told_from_observed_ones() -> None:
    data = plot_imputed(CompletedSets()).data.set_index("kind")
    assert data.loc["observed", ["n", "mean"]].tolist() == [3, 2.0]
    assert data.loc["imputed", ["n", "mean"]].tolist() == [1, 6.0]


def test_imputed_values_by_arm_and_by_site() -> None:
    by_arm = plot_imputed(CompletedSets(), by="arm").data
    assert by_arm.groupby(["arm", "kind"])["n"].first().to_dict() == {("a", "observed"): 2, ("b", "observed"): 1, ("b", "imputed"): 1}
    assert by_arm.set_index(["arm", "kind"]).loc[("b", "imputed"), "mean"] == 6
    by_site = plot_imputed_sites(CompletedSets(), site="arm")
    assert by_site.data.to_dict("records") == [
        {"variable": "y", "site": "b", "observed": 1, "imputed": 1, "observed_mean": 2.0, "imputed_mean": 6.0}
    ]
    assert "not defined over 1 sites, 0 without any" in by_site.alt
    with pytest.raises(InputError, match="no column 'ward'"):
        plot_imputed(CompletedSets(), by="ward")
    with pytest.raises(InputError, match="no column 'site'"):
        plot_imputed_sites(CompletedSets())


def test_autocorrelation_is_that_of_the_chains() -> None:
    rng = np.random.default_rng(1)
    x = np.zeros((400, 6))
    for k in range(1, 400):
        x[k] = 0.7 * x[k - 1] + rng.normal(size=6)
    rows = [("y", "mean", c, i, x[i, c]) for c in range(6) for i in range(400)]
    drawn = plot_autocorrelation(pd.DataFrame(rows, columns=["variable", "statistic", "chain", "iteration", "value"])).data
    r = drawn.set_index("lag")["autocorrelation"]
    assert r[0] == 1
    assert r[1] == pytest.approx(0.7, abs=0.06)
    assert r[4] == pytest.approx(0.7**4, abs=0.1)
    with pytest.raises(InputError, match="at least 4"):
        plot_autocorrelation(traces().query("iteration < 3"))
    with pytest.raises(InputError, match="no statistic 'icc'"):
        plot_autocorrelation(traces(), statistic="icc")


@pytest.mark.parametrize(("planned", "over"), [({"clusters": 68}, "clusters"), ({"pairs": 34, "matching_correlation": 0.2}, "pairs")])
def test_the_planned_curve_passes_through_the_plan(planned: dict[str, float], over: str) -> None:
    import trialkit as tk
    from trialkit.report.figures.power import planned_curve

    power = tk.power(cluster_size=2, icc=0.05, effect=0.5, **planned)
    curve, point, x = planned_curve(power)
    assert x == over
    assert curve is not None and point is not None
    row = curve[(curve[over] == planned[over]) & (curve["icc"] == 0.05)]
    assert row["power"].tolist() == [pytest.approx(power.power)]
    assert point == (planned[over], power.power)
    assert plot_power(curve, planned=point, x=x).data["power"].between(0, 1).all()


def test_residuals_are_the_models_and_a_variance_of_zero_has_no_panel() -> None:
    fit = site_model()
    picture = plot_residuals(fit)
    assert [len(part) for _, part in picture.data.groupby("panel", sort=False)] == [160, 160, 20]
    first = picture.data[picture.data["panel"] == "residuals"]
    np.testing.assert_allclose(first["y"], fit.residuals() / np.sqrt(fit.variances[-1]))
    for _, part in picture.data[picture.data["panel"] != "residuals"].groupby("panel"):
        assert part["x"].is_monotonic_increasing and part["y"].is_monotonic_increasing
        assert 0.6 < part["y"].std() < 1.4
    assert len(plot_residuals(site_model(0.0)).axes) == 2
    with pytest.raises(InputError, match="fit_mixed"):
        plot_residuals(pd.DataFrame())


def test_zipper_covers_as_counted() -> None:
    picture = plot_zipper(intervals())
    inside = np.abs(np.linspace(-3, 3, 200)) <= 1.96
    assert picture.data["covers"].mean() == pytest.approx(inside.mean())
    assert f"{100 * inside.mean():.1f}% of 200 intervals cover the truth" in picture.alt


def test_pairs_puts_the_widest_on_top(allocation: Any, sites: pd.DataFrame) -> None:
    picture = plot_pairs(allocation, sites, columns=("annual_budget",))
    gap = picture.data.groupby("pair")["value"].agg(lambda v: v.max() - v.min())
    assert picture.ax.get_yticklabels()[0].get_text() == gap.idxmax()


@pytest.mark.parametrize("ratio", [25.0, 200.0, 5e4, 3e8])
def test_a_wide_column_gets_a_logarithmic_axis_with_plain_labels(ratio: float) -> None:
    """Every label on it is a number as we write them, and there are enough to read the axis by."""
    pairs = pd.DataFrame({"site": list("abcdef"), "pair": ["P1", "P1", "P2", "P2", "P3", "P3"]})
    picture = plot_pairs(pairs, pairs[["site"]].assign(budget=30_000.0 * ratio ** (np.arange(6) / 5)))
    picture.png()
    axis = picture.ax.xaxis
    low, high = picture.ax.get_xlim()
    shown = [t.get_text() for which in ("major", "minor") for t in axis.get_ticklabels(which=which) if low <= t.get_position()[0] <= high]
    words = [w for w in shown if w]
    assert 3 <= len(words) <= 10 and all(re.fullmatch(r"[0-9.]+[kMG]?", w) for w in words), words
    assert picture.ax.get_xscale() == "log"


def site_table() -> pd.DataFrame:
    k = np.arange(11)
    columns = {
        "site": [f"S{i:02d}" for i in k],
        "budget": np.exp(k % 7),
        "staff": k * k % 5.0,
        "county": ["yes", "no", "no"] * 3 + ["yes", "no"],
    }
    return pd.DataFrame(columns)


def paired(odd: str) -> Any:
    import trialkit as tk

    return tk.match_pairs(
        site_table(), id="site", criteria=[tk.nearest("budget"), tk.nearest("staff"), tk.exact_if_possible("county")], odd=odd
    )


def test_the_map_is_the_principal_axes_of_the_standardised_covariates() -> None:
    """By the singular value decomposition; a budget that spans a factor of e^6 enters by its logarithm."""
    table = site_table()
    picture = plot_site_map(paired("single"), table)
    x = np.column_stack([np.log(table["budget"]), table["staff"], table["county"] == "yes"]).astype(float)
    u, s, _ = np.linalg.svd((x - x.mean(axis=0)) / x.std(axis=0), full_matrices=False)
    found = picture.data.set_index("site").loc[table["site"], ["axis_1", "axis_2"]].to_numpy()
    np.testing.assert_allclose(np.abs(found), np.abs((u * s)[:, :2]), atol=1e-12)
    assert f"The two axes hold {(s[:2] ** 2).sum() / (s**2).sum():.0%} of the variance" in picture.alt
    # neither the order of the rows nor the unit of a column changes a bit
    turned = table.iloc[::-1].assign(staff=table["staff"].iloc[::-1] * 8)
    assert plot_site_map(paired("single"), turned).svg() == picture.svg()


def colours(picture: Picture) -> set[str]:
    return {str(line.get_markerfacecolor()) for line in picture.ax.lines if line.get_marker() in ("o", "s")}


def test_the_map_shows_arms_only_after_the_reveal() -> None:
    import trialkit as tk
    from trialkit.report.figures.canvas import INTERVENTION, REFERENCE

    before = plot_site_map(paired("single"), site_table())
    assert before.data["arm"].isna().all() and not {REFERENCE, INTERVENTION} & colours(before) and "Arms are not shown" in before.alt
    drawn = tk.within_pairs(paired("single")).draw(seed="8392017465", seed_source="a test")
    after = plot_site_map(drawn, site_table())
    assert {REFERENCE, INTERVENTION} <= colours(after) and "Coloured by arm" in after.alt
    assert dict(zip(after.data["site"], after.data["arm"], strict=True)) == drawn.arms
    np.testing.assert_array_equal(before.data[["axis_1", "axis_2"]], after.data[["axis_1", "axis_2"]])


def test_the_map_joins_pairs_and_marks_who_has_none() -> None:
    import trialkit as tk

    def lines(picture: Picture) -> int:
        return sum(len(line.get_xdata()) == 2 and line.get_marker() == "None" for line in picture.ax.lines) - 2  # the two axes

    for odd, role in (("single", "randomised alone"), ("reserve", "set aside")):
        pairing = paired(odd)
        picture = plot_site_map(pairing, site_table())
        assert lines(picture) == 5
        outside = picture.data[picture.data["role"] == role]
        assert tuple(outside["site"]) == (*pairing.singles, *pairing.reserve) and f"5 pairs, 1 {role}" in picture.alt
        drawn = tk.within_pairs(pairing).draw(seed="8392017465", seed_source="a test")
        assert plot_site_map(drawn, site_table()).data["role"].tolist() == picture.data["role"].tolist()
    assert lines(plot_site_map(paired("trio"), site_table())) == 4 + 3
    # a bare table before the draw does not say which
    assert "1 not paired" in plot_site_map(paired("single").frame, site_table()).alt


def test_love_takes_the_plans_own_range() -> None:
    import trialkit as tk

    table = pd.DataFrame({"site": [f"S{k:02d}" for k in range(12)], "budget": [float(10 * k + k * k % 7) for k in range(12)]})
    pairing = tk.match_pairs(table, id="site", criteria=[tk.nearest("budget")])
    drawn = tk.within_pairs(pairing).draw(seed="8392017465", seed_source="a test")
    picture = plot_love(drawn)
    row = picture.data.iloc[0]
    assert row["smd"] == pytest.approx(drawn.balance().frame["std_difference"].iloc[0])
    assert row["low"] < row["smd"] < row["high"] or row["quantile"] < 0.025 or row["quantile"] > 0.975


def test_what_cannot_be_drawn_is_said(people: pd.DataFrame, design: TrialDesign) -> None:
    with pytest.raises(InputError, match="no balance to draw"):
        plot_love()
    with pytest.raises(InputError, match="no traces were kept"):
        plot_trace(object())
    with pytest.raises(InputError, match="do not tell imputed from observed"):
        plot_imputed([people])
    with pytest.raises(InputError, match="simulated intervals were not kept"):
        plot_zipper(object())
    with pytest.raises(InputError, match="no numeric outcome"):
        plot_cluster_means(people, design, outcomes=("nothing",))
    with pytest.raises(InputError, match="a power curve was expected"):
        plot_power("curve")
    for given, table, columns, says in (
        (paired("single"), site_table(), ["budget"], "at least two columns that vary"),
        (paired("single"), site_table().iloc[1:], None, "no row for S00"),
        (paired("single"), site_table(), ["bugdet"], "Did you mean 'budget'"),
        (paired("single").frame.assign(pair=None), site_table(), None, "no pair to join"),
        (paired("single").frame[["pair"]], site_table(), None, "no id column in common"),
    ):
        with pytest.raises(InputError, match=says):
            plot_site_map(given, table, columns=columns)


def test_saving(makers: dict[str, Maker], tmp_path: Path) -> None:
    picture = makers["power"]()
    assert picture.save(tmp_path / "power.svg").read_text(encoding="utf-8") == picture.svg()
    with pytest.raises(Refused):
        picture.save(tmp_path / "power.svg")
    picture.save(tmp_path / "power.svg", force=True)
    with pytest.raises(InputError, match=r"written as \.svg or \.png"):
        picture.save(tmp_path / "power.pdf")


def test_patterns_and_flux_say_what_is_not_drawn(people: pd.DataFrame, design: TrialDesign) -> None:
    found = missing_patterns(people, design)
    picture = plot_patterns(found, most=2)
    assert picture.data.groupby("group")["pattern"].max().max() == 2
    # a column is drawn where somebody misses it, and the cells are the table's
    group = next(iter(found.patterns))
    matrix = found.patterns[group]
    assert set(picture.data.loc[picture.data["group"] == group, "variable"]) == set(matrix.columns[matrix.any()])
    assert found.frame.loc[found.frame["group"] == group, "missing"].tolist() == matrix.sum(axis=1).tolist()
    flux = plot_flux(missing_flux(people, design))
    assert flux.data.groupby("group")["outflux"].apply(lambda f: f.is_monotonic_decreasing).all()
    with pytest.raises(InputError, match="no pattern to draw"):
        plot_patterns(missing_flux(people, design))
    with pytest.raises(InputError, match="not a table of flux"):
        plot_flux(found)
    with pytest.raises(InputError, match="most"):
        plot_patterns(found, most=0)
