"""Twelve sets that break mixed-model programs, each with its outcome: an answer by full matrices, or a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from trialkit.door import InputError
from trialkit.itt import fit_mixed

TERMS = "arm + y0 + gender + age + edu + consumer"


def main() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parents[1] / "reference" / "models" / "data" / "crt_main.csv")


def recentred(tau: float) -> pd.DataFrame:
    """The main data with sites' means replaced: no variation between them beyond chance (tau 0), or much."""
    d = main()
    rng = np.random.default_rng(90)
    within = d["y"] - d.groupby("site")["y"].transform("mean")
    u = pd.Series(tau * rng.normal(size=d["site"].nunique()), index=sorted(d["site"].unique()))
    return d.assign(y=within + d["site"].map(u) + 0.5 * d["arm"])


def dense(d: pd.DataFrame, terms: str = TERMS) -> dict[str, np.ndarray]:
    """REML by a scalar search over full matrices, with Kenward-Roger's df and standard errors from the paper's formulas."""
    model = fit_mixed(f"y ~ {terms}", d, groups="site").model
    X, y, codes = model.x, model.y, model.groups[0].codes
    n, p = X.shape
    G = (codes[:, None] == codes).astype(float)

    def parts(theta):
        M = np.linalg.inv(np.eye(n) + theta * G)
        Phi = np.linalg.inv(X.T @ M @ X)
        return M, Phi, M - M @ X @ Phi @ X.T @ M

    def deviance(t):
        M, Phi, P = parts(np.expm1(t))
        return -np.linalg.slogdet(M)[1] - np.linalg.slogdet(Phi)[1] + (n - p) * np.log(y @ P @ y)

    found = min(
        (optimize.minimize_scalar(deviance, bounds=b, method="bounded", options={"xatol": 1e-10}) for b in ((0, 1), (0.5, 8))),
        key=lambda r: r.fun,
    )
    theta = 0.0 if deviance(0.0) <= found.fun else float(np.expm1(found.x))
    M, Phi, P = parts(theta)
    sigma2 = y @ P @ y / (n - p)
    Gs = [G, np.eye(n)]
    W = 2 * np.linalg.inv([[np.trace(P @ a @ P @ b) for b in Gs] for a in Gs])
    Ps, g = [X.T @ M @ a @ M @ X for a in Gs], []
    bracket = sum(W[i, j] * (X.T @ M @ Gs[i] @ M @ Gs[j] @ M @ X - Ps[i] @ Phi @ Ps[j]) for i in range(2) for j in range(2))
    adjusted = Phi + 2 * Phi @ bracket @ Phi
    k = model.names.index("arm")
    g = np.array([(Phi @ Pi @ Phi)[k, k] for Pi in Ps])
    beta = Phi @ X.T @ M @ y
    return {"theta": theta, "estimate": beta[k], "std_error": np.sqrt(sigma2 * adjusted[k, k]), "df": 2 * Phi[k, k] ** 2 / (g @ W @ g)}


def answered(d: pd.DataFrame, terms: str = TERMS, rtol: float = 1e-6):
    fit, truth = fit_mixed(f"y ~ {terms}", d, groups="site"), dense(d, terms)
    assert float(fit.kernel.theta[0]) == pytest.approx(truth["theta"], rel=1e-4, abs=1e-12)
    for column in ("estimate", "std_error", "df"):
        assert fit.row("arm")[column] == pytest.approx(truth[column], rel=rtol if column == "estimate" else 1e-5)
    return fit


def test_1_no_variance_between_sites():
    fit = answered(recentred(0.0))
    assert fit.kernel.boundary[0] and fit.icc == 0
    assert any("estimated at zero" in note for note in fit.notes)
    satterthwaite = fit_mixed(f"y ~ {TERMS}", recentred(0.0), groups="site", inference="satterthwaite")
    assert satterthwaite.row("arm")["df"] == pytest.approx(fit.n - len(fit.frame))
    assert fit.row("arm")["df"] < 85


def test_2_nearly_all_variance_between_sites():
    fit = answered(recentred(3.0))
    assert fit.icc > 0.85
    assert 70 < fit.row("arm")["df"] < 85


def test_3_every_site_has_one_person():
    d = main().groupby("site").head(1)
    fit = fit_mixed("y ~ arm + y0", d, groups="site")
    assert np.isnan(fit.icc) and fit.frame["df"].tolist() == pytest.approx([len(d) - 3.0] * 3)
    assert any("least squares" in note for note in fit.notes)


def test_4_one_site_an_arm():
    d = main()
    largest = d.groupby("arm")["site"].agg(lambda s: s.value_counts().index[0])
    with pytest.raises(InputError, match="At least two sites an arm"):
        fit_mixed("y ~ arm", d[d["site"].isin(largest)], groups="site")


def test_5_collinear_columns():
    d = main().assign(again=lambda t: 3 - 2 * t["y0"])
    fit = fit_mixed(f"y ~ {TERMS} + again", d, groups="site")
    assert fit.dropped == ("again",) and any("again" in note for note in fit.notes)
    pd.testing.assert_frame_equal(fit.frame, fit_mixed(f"y ~ {TERMS}", d, groups="site").frame)


def test_6_an_outcome_that_does_not_vary():
    with pytest.raises(InputError, match="one value in all"):
        fit_mixed(f"y ~ {TERMS}", main().assign(y=2.5), groups="site")


def test_7_missing_rows():
    d = main()
    d.loc[d.index[::9], "y0"] = np.nan
    d.loc[d.index[::14], "y"] = np.nan
    fit = fit_mixed(f"y ~ {TERMS}", d, groups="site")
    kept = d.dropna(subset=["y", "y0"])
    assert fit.n == len(kept) and f"{len(d) - len(kept)} of {len(d)} rows left out" in fit.notes[0]
    pd.testing.assert_frame_equal(fit.frame, fit_mixed(f"y ~ {TERMS}", kept, groups="site").frame)


@pytest.mark.parametrize(
    ("times", "plus", "shift"),
    [(1e6, 1e9, 0.0), (1e-6, 0.0, 0.0), (1e-6, 1e3, 0.0), (1.0, 0.0, 1e6), (1e60, 0.0, 0.0), (1e-60, 0.0, 0.0)],
    ids=["8: y x 1e6 + 1e9", "9: y x 1e-6", "y x 1e-6 + 1e3", "10: covariate + 1e6", "y x 1e60", "y x 1e-60"],
)
@pytest.mark.parametrize("groups", [["site"], ["pair", "site"]])
def test_8_to_10_units(times, plus, shift, groups):
    d = main()
    moved = d.assign(y=d["y"] * times + plus, y0=d["y0"] + shift)
    # a number near 1e3 with variation of 1e-6 has lost seven digits before anybody reads it
    tolerance = 1e-5 if plus == 1e3 else 1e-8
    for inference in ("kenward-roger", "satterthwaite"):
        a, b = (fit_mixed(f"y ~ {TERMS}", t, groups=groups, inference=inference).frame for t in (d, moved))
        np.testing.assert_allclose(b["df"][1:], a["df"][1:], rtol=tolerance)
        np.testing.assert_allclose(b["statistic"][1:], a["statistic"][1:], rtol=tolerance)
    if groups == ["site"]:  # lmerTest's and pbkrtest's df of the arm
        for inference, df in (("kenward-roger", 72.535), ("satterthwaite", 69.927)):
            assert fit_mixed(f"y ~ {TERMS}", moved, groups="site", inference=inference).row("arm")["df"] == pytest.approx(df, abs=1e-3)


def test_11_no_residual_variance():
    d = main().assign(y=lambda t: t.groupby("site")["y"].transform("mean"))
    with pytest.raises(InputError, match="does not vary within site"):
        fit_mixed("y ~ arm", d, groups="site")


@pytest.mark.parametrize("times", [1e-200, 1e200])
def test_12_numbers_whose_variances_are_no_doubles(times):
    d = main()
    with pytest.raises(InputError, match="Change the unit"):
        fit_mixed(f"y ~ {TERMS}", d.assign(y=d["y"] * times), groups="site")
