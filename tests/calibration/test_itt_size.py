"""Size (and so coverage: all is equivariant) of the tests at 6, 10, 20 and 40 sites, against the exact sizes of balanced trials.

The exact size of a right Kenward-Roger or Satterthwaite test is not 5% when the ICC is small: a variance estimated at zero makes it
conservative, by an amount that the balanced design lets us integrate. Results are stored in results/itt_size.json, made by
``python tests/calibration/test_itt_size.py``; every day their counts are held to exact binomial limits, and the fast cells
and the first replicates of the slow ones are made again. Seeds are fixed: a failure is a change, never chance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from trialkit._kernels import reml, small_sample
from trialkit.door import InputError, write_whole
from trialkit.itt import gee, ordinal
from trialkit.itt.cluster_level import site_values
from trialkit.itt.randomisation import AssignmentList, randomisation_test
from trialkit.simulation.verdict import binomial_limits

RESULTS = Path(__file__).parent / "results" / "itt_size.json"
SITES = (6, 10, 20, 40)
DESIGNS = ((10, 0.01), (10, 0.05), (50, 0.1))  # people a site, ICC
TRIALS, SLOW_TRIALS, FIRST = 20_000, 4_000, 5
ALPHA, FALSE_ALARM = 0.05, 1e-6
UNEQUAL = (2, 3, 5, 8, 12, 30)
SCHEMES = {6: math.comb(6, 3), 10: math.comb(10, 5)}  # few enough to list; beyond, 199 are sampled


# true sizes allowed where none can be computed: Kenward-Roger is conservative, Satterthwaite a little liberal with six sites, and
# Kauermann-Carroll's correction does not hold its level when sites differ fifteenfold, Mancl-DeRouen's does, as the methods page says
BANDS = {"kenward_roger": (0.0, 0.05), "satterthwaite": (0.035, 0.06), "GEE, yes/no": (0.05, 0.1), "GEE, MD, yes/no": (0.02, 0.06)}
BANDS |= {"ordinal, MD": (0.03, 0.05)}


def arms(sites: int) -> np.ndarray:
    return (np.arange(sites) % 2).astype(float)


def design(sites: int) -> np.ndarray:
    return np.column_stack([np.ones(sites), arms(sites)])


# --- exact sizes of balanced designs ----------------------------------------------------------------------------


@cache
def at_zero(sites: int, size: int, rule: str) -> tuple[float, float]:
    """Standard error over that of least squares, and df, where the variance between sites is zero (they depend on the design alone)."""
    y = np.tile(np.linspace(-1, 1, size), sites)  # all sites alike: no variance between
    x = np.repeat(design(sites), size, axis=0)
    fit = reml.fit(x, y + 1e-9 * np.arange(len(y)), [np.repeat(np.arange(sites), size)])
    assert fit.boundary.all()
    contrast = np.array([[0.0, 1.0]])
    found = getattr(small_sample, rule)(fit, contrast)
    return float(found.std_error[0] / math.sqrt(fit.sigma2 * 4 / len(y))), float(found.df[0])


@cache
def exact_size(sites: int, size: int, icc: float, rule: str) -> float:
    """P(reject) of a right engine: t(sites - 2) on the site means where they vary more than people, the pooled variance elsewhere."""
    between, within = sites - 2, sites * (size - 1)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    u, w = (nodes + 1) / 2, weights / 2
    # in units of the residual variance; the expected mean square between sites is ratio
    ratio = 1 + size * icc / (1 - icc)
    msa = ratio * special.chdtri(between, 1 - u) / between
    beyond = special.stdtrit(between, 1 - ALPHA / 2)
    interior = float((w * special.chdtr(within, within * msa) * 2 * special.ndtr(-beyond * np.sqrt(msa / ratio))).sum())
    inflation, df = at_zero(sites, size, rule)
    limit = special.stdtrit(df, 1 - ALPHA / 2) * inflation
    # mean square within above that between: its upper tail, given each msa
    tail = special.chdtrc(within, within * msa)
    mse = special.chdtri(within, tail[:, None] * (1 - u)) / within
    pooled = (between * msa[:, None] + within * mse) / (between + within)
    boundary = float((w[:, None] * w * tail[:, None] * 2 * special.ndtr(-limit * np.sqrt(pooled / ratio))).sum())
    return interior + boundary


def exact_singular(sites: int, size: int, icc: float) -> float:
    return float(stats.f.cdf(1 / (1 + size * icc / (1 - icc)), sites - 2, sites * (size - 1)))


def test_the_exact_sizes_are_the_known_ones():
    assert exact_size(10, 10, 0.01, "kenward_roger") == pytest.approx(0.0209, abs=5e-5)
    assert exact_size(10, 10, 0.01, "satterthwaite") == pytest.approx(0.0359, abs=5e-5)
    assert exact_size(10, 50, 0.1, "kenward_roger") == pytest.approx(0.0498, abs=5e-5)
    assert exact_size(10, 50, 0.1, "satterthwaite") == pytest.approx(0.0500, abs=5e-5)
    assert exact_singular(10, 10, 0.01) == pytest.approx(0.49, abs=5e-3)


# --- simulated sizes --------------------------------------------------------------------------------------------


def mixed(sites: int, size: int, icc: float, trials: int) -> dict[str, int]:
    """Rejections and singular fits of `trials` balanced null trials, from site means and one sum of squares each."""
    rng = np.random.default_rng(np.random.SeedSequence([61, sites, size, round(1000 * icc)]))
    means = rng.normal(size=(trials, sites)) * math.sqrt(icc + (1 - icc) / size)
    ssw = (1 - icc) * rng.chisquare(sites * (size - 1), size=trials)
    many = reml.fit_cluster_summaries(means, np.full(sites, size), ssw, design(sites), contrasts=np.array([[0.0, 1.0]]))
    out = {"singular": int(many.boundary.sum())}
    for rule in ("kenward_roger", "satterthwaite"):
        found = getattr(many, rule)
        p = 2 * special.stdtr(found.df[:, 0], -np.abs(found.estimate[:, 0] / found.std_error[:, 0]))
        assert not np.isnan(p).any()
        out[rule] = int((p <= ALPHA).sum())
    return out


def unequal(sites: int, trials: int) -> dict[str, int]:
    """As `mixed`, with sites of 2 to 30 people and an ICC of .05, arms alternating."""
    sizes = np.resize(UNEQUAL, sites)
    rng = np.random.default_rng(np.random.SeedSequence([62, sites]))
    # sizes stand in another order in each trial, which is another allocation
    out = {"kenward_roger": 0, "satterthwaite": 0}
    per = trials // 20
    for _ in range(20):
        here = rng.permutation(sizes)
        means = rng.normal(size=(per, sites)) * np.sqrt(0.05 + 0.95 / here)
        ssw = 0.95 * rng.chisquare(here.sum() - sites, size=per)
        many = reml.fit_cluster_summaries(means, here, ssw, design(sites), contrasts=np.array([[0.0, 1.0]]))
        for rule in out:
            found = getattr(many, rule)
            p = 2 * special.stdtr(found.df[:, 0], -np.abs(found.estimate[:, 0] / found.std_error[:, 0]))
            out[rule] += int((p <= ALPHA).sum())
    return out


class Coins:
    """Half of the sites by lot."""

    def __init__(self, sites: int) -> None:
        self.sites = tuple(f"{k:02}" for k in range(sites))
        self.n_assignments = math.comb(sites, sites // 2)

    def assignments(self, limit: int = 0) -> np.ndarray:
        raise AssertionError("too many to list")

    def sample(self, n: int, *, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).permuted(np.tile(arms(len(self.sites)), (n, 1)), axis=1)


@cache
def scheme(sites: int) -> Any:
    if sites not in SCHEMES:
        return Coins(sites)
    every = (np.arange(2**sites)[:, None] >> np.arange(sites)) & 1
    return AssignmentList(tuple(f"{k:02}" for k in range(sites)), every[every.sum(axis=1) == sites // 2])


def permutation(sites: int, trials: int) -> list[float]:
    """P-values of the randomisation test on sites of 2 to 30 people."""
    rng = np.random.default_rng(np.random.SeedSequence([63, sites]))
    labels, arm = [f"{k:02}" for k in range(sites)], arms(sites)
    sizes = np.resize(UNEQUAL, sites)
    out = []
    for trial in range(trials):
        means = rng.normal(size=sites) * np.sqrt(0.05 + 0.95 / sizes)
        test = randomisation_test(site_values(means, labels, arm), scheme(sites), draws=199, seed=trial, limit=1000)
        out.append(test.p_value)
    return out


def marginal(sites: int, trials: int, *, binary: bool, correction: str = "KC") -> list[float]:
    """P-values of GEE with a corrected sandwich and t(sites - 2): ten people a site, ICC .05, or a yes/no outcome on sites of 2 to 30."""
    rng = np.random.default_rng(np.random.SeedSequence([64 + binary, sites]))
    sizes = np.resize(UNEQUAL, sites) if binary else np.full(sites, 10)
    family = gee.FAMILIES["binomial" if binary else "gaussian"]
    out = []
    for _ in range(trials):
        here = rng.permutation(sizes)
        site = np.repeat(np.arange(sites), here)
        x = design(sites)[site]
        if binary:
            share = rng.beta(0.4 * 19, 0.6 * 19, size=sites)  # ICC 1 / (1 + 19) = .05
            y = (rng.random(len(site)) < share[site]).astype(float)
        else:
            y = math.sqrt(0.05) * rng.normal(size=sites)[site] + math.sqrt(0.95) * rng.normal(size=len(site))
        if binary and min(np.ptp(y[x[:, 1] == arm]) for arm in (0.0, 1.0)) == 0:
            out.append(1.0)  # an arm of six small sites may be all alike: no test, and it stays among the trials
            continue
        fitted = gee.solve(x, y, site, family, exchangeable=True)
        se = math.sqrt(gee.corrected(x, y, fitted, family)[correction][1, 1])
        out.append(float(2 * special.stdtr(sites - 2, -abs(fitted.beta[1] / se))))
    return out


def graded(sites: int, trials: int) -> list[float]:
    """P-values of marginal proportional odds (MD, t(sites - 2)): four grades of equal shares on sites of 2 to 30, ICC of the logits .05."""
    rng = np.random.default_rng(np.random.SeedSequence([66, sites]))
    sizes, sd = np.resize(UNEQUAL, sites), math.sqrt(0.05 / 0.95 * math.pi**2 / 3)
    out = []
    for _ in range(trials):
        site = np.repeat(np.arange(sites), rng.permutation(sizes))
        x, raised = design(sites)[site], sd * rng.normal(size=sites)[site]
        y = np.searchsorted([-math.log(3), 0.0, math.log(3)], raised + rng.logistic(size=len(site))).astype(float)
        grades = np.searchsorted(np.unique(y), y)
        q = int(grades.max())
        try:
            if min(np.ptp(y[x[:, 1] == arm]) for arm in (0.0, 1.0)) == 0:
                raise InputError("an arm all alike")
            fit = ordinal.marginal(x[:, 1:], grades, site, q + 1)
        except (InputError, np.linalg.LinAlgError):
            out.append(1.0)  # no test, and it stays among the trials
            continue
        out.append(float(2 * special.stdtr(sites - 2, -abs(fit.beta[0] / math.sqrt(fit.covariances["MD"][q, q])))))
    return out


def permutation_exact(sites: int) -> float:
    """The largest attainable level at or below 5%: whole pairs of mirrored assignments, or ten of 200."""
    count = SCHEMES.get(sites, 200 * 2)
    return math.floor(ALPHA * count / 2 + 1e-9) / (count / 2)


ONE_BY_ONE: dict[tuple[str, str], Callable[[int, int], list[float]]] = {
    ("permutation", "2 to 30 people a site, ICC 0.05"): permutation,
    ("GEE", "10 people a site, ICC 0.05"): partial(marginal, binary=False),
    ("GEE, yes/no", "2 to 30 people a site, ICC 0.05"): partial(marginal, binary=True),
    ("GEE, MD, yes/no", "2 to 30 people a site, ICC 0.05"): partial(marginal, binary=True, correction="MD"),
    ("ordinal, MD", "2 to 30 people a site, ICC 0.05"): graded,
}


def make() -> dict[str, Any]:
    cells: list[dict[str, Any]] = []
    first: dict[str, list[float]] = {}

    def cell(sites: int, analysis: str, data: str, trials: int, rejected: int, exact: float | None) -> None:
        cells.append({"sites": sites, "analysis": analysis, "data": data, "trials": trials, "rejected": rejected, "exact": exact})

    for sites in SITES:
        for size, icc in DESIGNS:
            found, data = mixed(sites, size, icc, TRIALS), f"{size} people a site, ICC {icc}"
            for rule in ("kenward_roger", "satterthwaite"):
                cell(sites, rule, data, TRIALS, found[rule], exact_size(sites, size, icc, rule))
            cell(sites, "singular fits", data, TRIALS, found["singular"], exact_singular(sites, size, icc))
        for rule, rejected in unequal(sites, TRIALS).items():
            cell(sites, rule, "2 to 30 people a site, ICC 0.05", TRIALS, rejected, None)
        for name, one_by_one in ONE_BY_ONE.items():
            p = one_by_one(sites, TRIALS if name[0] == "permutation" else SLOW_TRIALS)
            exact = {"permutation": permutation_exact(sites), "GEE": ALPHA}.get(name[0])
            cell(sites, *name, len(p), sum(v <= ALPHA for v in p), exact)
            first[f"{sites}: {name[0]}"] = p[:FIRST]
    return {"alpha": ALPHA, "cells": cells, "first": first}


def stored() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return data


def test_stored_counts_are_inside_their_exact_limits():
    cells = stored()["cells"]
    assert len(cells) == len(SITES) * (3 * len(DESIGNS) + 2 + len(ONE_BY_ONE))
    for cell in cells:
        n, exact = cell["trials"], cell["exact"]
        # unequal sizes have no exact size; the bands say what these tests are known for
        least, most = (exact, exact) if exact is not None else BANDS[cell["analysis"]]
        low = 0 if least == 0 else binomial_limits(n, least, false_alarm=FALSE_ALARM)[0]
        high = 0 if most == 0 else binomial_limits(n, most, false_alarm=FALSE_ALARM)[1]
        assert low <= cell["rejected"] <= high, cell


@pytest.mark.parametrize("sites", SITES)
def test_fast_cells_come_out_as_stored_and_as_the_integral(sites):
    held = {(c["analysis"], c["data"]): c for c in stored()["cells"] if c["sites"] == sites}
    for size, icc in DESIGNS:
        found, data = mixed(sites, size, icc, TRIALS), f"{size} people a site, ICC {icc}"
        for rule in ("kenward_roger", "satterthwaite"):
            assert held[rule, data]["exact"] == pytest.approx(exact_size(sites, size, icc, rule), abs=1e-6)
            # another machine's rounding may move a p-value over the line
            assert abs(found[rule] - held[rule, data]["rejected"]) <= 2
        assert abs(found["singular"] - held["singular fits", data]["rejected"]) <= 2


@pytest.mark.parametrize("sites", SITES)
def test_the_first_replicates_of_the_others_come_out_as_stored(sites):
    first = stored()["first"]
    for name, one_by_one in ONE_BY_ONE.items():
        assert one_by_one(sites, FIRST) == pytest.approx(first[f"{sites}: {name[0]}"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.calibration
def test_everything_comes_out_as_stored():
    again, held = make(), stored()
    for mine, theirs in zip(again["cells"], held["cells"], strict=True):
        assert {k: v for k, v in mine.items() if k not in ("rejected", "exact")} == {
            k: v for k, v in theirs.items() if k not in ("rejected", "exact")
        }
        assert abs(mine["rejected"] - theirs["rejected"]) <= 2


if __name__ == "__main__":
    write_whole(RESULTS, json.dumps(make(), indent=1, allow_nan=False) + "\n", force=True)
