"""The pictures of power and of an ICC: what is drawn is what was computed, the same bytes each time, bad input said."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from trialkit.door import InputError
from trialkit.power import estimate_icc, power, power_grid
from trialkit.report import plot_icc, plot_power, plot_power_contour
from trialkit.simulation import planned_power


def pilot(spread: float = 0.6) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    site = np.repeat(np.arange(9), [4, 7, 3, 8, 5, 6, 4, 9, 2])
    return pd.DataFrame({"score": spread * rng.normal(size=9)[site] + rng.normal(size=site.size), "site": site})


def grid(icc: object = 0.05) -> object:
    return power_grid(clusters=[20, 40, 68, 90], cluster_size=2, icc=icc, effect=0.5)


def test_icc_picture_holds_the_estimate_and_the_means() -> None:
    data = pilot()
    found = estimate_icc(data, outcome="score", cluster="site")
    picture = plot_icc(found)
    means = data.groupby("site")["score"].mean().sort_values()
    assert picture.data["site"].tolist() == means.index.tolist()
    np.testing.assert_allclose(picture.data["mean"], means, rtol=1e-12)
    np.testing.assert_allclose(picture.data["std_error"], np.sqrt(found.variance_within / picture.data["n"]), rtol=1e-12)
    interval = picture.axes[0].lines[0].get_xdata()
    assert [float(v) for v in interval] == [found.conf_low, found.conf_high]
    assert f"{found.icc:.3f}" in picture.alt and f"{found.quantile(0.8):.3f}" in picture.alt
    assert picture.svg() == plot_icc(found).svg()
    ElementTree.fromstring(picture.svg())


def test_icc_picture_of_a_negative_estimate_has_no_band() -> None:
    site = np.repeat(np.arange(4), 3)
    found = estimate_icc(pd.DataFrame({"y": [1.0, 2, 3.1, 1.1, 2, 3, 1, 2.1, 3, 1, 2, 3.2], "site": site}), outcome="y", cluster="site")
    assert found.icc < 0
    picture = plot_icc(found)
    assert not picture.axes[1].patches and "no more than chance" in picture.alt


def test_contour_lines_lie_where_the_power_is() -> None:
    cells = power_grid(clusters=list(range(10, 101, 2)), cluster_size=list(range(2, 31)), icc=0.05, effect=0.5)
    picture = plot_power_contour(cells, levels=(0.8, 0.9), planned=(40, 6))
    (drawn,) = [c for c in picture.ax.collections if hasattr(c, "get_paths") and len(c.get_paths()) == 2]
    for level, path in zip((0.8, 0.9), drawn.get_paths(), strict=True):
        inner = path.vertices[3:-3:5]
        for clusters, size in inner:
            near = [power(clusters=2 * round(clusters / 2), cluster_size=s, icc=0.05, effect=0.5).power for s in (size - 1, size + 1)]
            assert near[0] - 0.05 < level < near[1] + 0.05
    assert picture.svg() == plot_power_contour(cells, levels=(0.8, 0.9), planned=(40, 6)).svg()


def test_curve_with_a_band_and_simulated_points() -> None:
    checks = [planned_power(clusters=j, cluster_size=2, icc=0.05, effect=0.5, trials=400, seed=j) for j in (40, 68)]
    picture = plot_power(grid([0.01, 0.05, 0.1]), band=(0.01, 0.1), simulated=checks)
    points = picture.data[picture.data["simulated"].notna()]
    assert points["clusters"].tolist() == [40, 68] and set(points["icc"]) == {0.05}
    assert points["simulated"].tolist() == [c.frame["power"].iloc[0] for c in checks]
    assert points["power"].isna().all()  # a simulated point is no part of the exact line
    assert picture.data["power"].notna().sum() == 12
    (shade,) = [c for c in picture.ax.collections if type(c).__name__ == "FillBetweenPolyCollection"]
    assert shade.get_paths()
    assert "simulated" in picture.title and "0.05" in picture.alt


def test_simulated_points_as_a_table_on_a_single_line() -> None:
    table = pd.DataFrame({"clusters": [40, 68], "power": [0.56, 0.79], "mc_error": [0.01, 0.01]})
    picture = plot_power(power_grid(clusters=[20, 40, 68], cluster_size=2, icc=0.05, effect=0.5), simulated=table)
    assert picture.data["simulated"].notna().sum() == 2


def test_a_single_result_draws_its_own_curve() -> None:
    planned = power(clusters=68, cluster_size=2, icc=0.05, effect=0.5)
    picture = plot_power(planned)
    assert len(picture.data) > 50 and "planned design: 68" in picture.alt
    pairs = plot_power(power(pairs=34, cluster_size=2, icc=0.05, effect=0.5, matching_correlation=0.2))
    assert "pairs" in pairs.data.columns


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: plot_icc(pd.DataFrame()), "estimate_icc"),
        (lambda: plot_power_contour(grid()), "two varying arguments"),
        (
            lambda: plot_power_contour(power_grid(clusters=[20, 40], cluster_size=[2, 4], icc=0.05, effect=0.5), levels=(1.2,)),
            "between 0 and 1",
        ),
        (lambda: plot_power(grid([0.01, 0.05]), band=(0.01, 0.2)), "values of icc"),
        (lambda: plot_power(power_grid(clusters=[20, 40], cluster_size=[2, 4], icc=[0.1, 0.2], effect=0.5)), "two varying"),
        (lambda: plot_power(grid(), simulated=pd.DataFrame({"clusters": [20], "power": [0.3]})), "mc_error"),
        (
            lambda: plot_power(grid([0.01, 0.05]), simulated=pd.DataFrame({"clusters": [20], "power": [0.3], "mc_error": [0.01]})),
            "need that column",
        ),
        (
            lambda: plot_power(
                grid([0.01, 0.05]), simulated=pd.DataFrame({"clusters": [20], "power": [0.3], "mc_error": [0.01], "icc": [0.3]})
            ),
            "no line",
        ),
    ],
)
def test_bad_input_is_said(make: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()  # type: ignore[operator]
