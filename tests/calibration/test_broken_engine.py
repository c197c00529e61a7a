"""Twenty-four seeded faults, put in one at a time: each must turn a named check red, and none is red without.

Monte Carlo sees coarse faults (z for t at ten sites); most faults below change a rate by less than any affordable
simulation shows (a df of K - 1 for K - 2), and are caught by an independent derivation or a closed form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from trialkit._kernels import draws, noncentral, pooling, reml, signflip, small_sample
from trialkit.allocation import match_pairs, nearest, within_pairs
from trialkit.design import TrialDesign
from trialkit.imputation import impute
from trialkit.itt import fit_mixed, itt, prepared, robust
from trialkit.power import power
from trialkit.simulation import batch, check, operating, planned_parallel, planned_power, shipped_scenario, simulate
from trialkit.simulation.analyses import FIELDS
from trialkit.simulation.scenario import Scenario
from trialkit.simulation.verdict import binomial_limits

Patch = pytest.MonkeyPatch
TRIALS = 6_000

# --- the checks ---------------------------------------------------------------------------------------------


def fits() -> None:
    """Two derivations of REML, Kenward-Roger and Satterthwaite on unbalanced data, a third of it without site variance."""
    rng = np.random.default_rng(6)
    sets = []
    for k in range(12):
        site = np.sort(np.concatenate([np.arange(14), rng.integers(0, 14, 50)]))
        x = np.column_stack([np.ones(64), site % 2, rng.normal(size=64)])
        sets.append((x, x[:, 2] + (0.0, 0.3, 0.8)[k % 3] * rng.normal(size=14)[site] + rng.normal(size=64), site))
    contrast = np.array([[0.0, 1.0, 0.0]])
    other = batch.contrasts(batch.pad([reml.reduce(x, y, [site]) for x, y, site in sets], [contrast[0]] * len(sets)))
    for k, (x, y, site) in enumerate(sets):
        fit = reml.fit(x, y, [site])
        exact, usual = small_sample.kenward_roger(fit, contrast), small_sample.satterthwaite(fit, contrast)
        seen = [exact.estimate[0], exact.std_error[0], exact.df[0], usual.std_error[0], usual.df[0]]
        stated = [getattr(other, n)[k] for n in ("estimate", "std_error", "df", "plain_error", "satterthwaite_df")]
        np.testing.assert_allclose(seen, stated, rtol=1e-6)
        assert fit.theta[0] >= 0


def effects() -> None:
    """`itt` on a simulated trial against the array path: d, its sign and scale, interval, p."""
    scenario = shipped_scenario("supervision")
    seen = itt(simulate(scenario, seed=operating.child_seeds(31, 2)[0]).people, scenario.design).frame.set_index("outcome")
    stated = check(scenario, trials=2, seed=31).values[0, 0, :, :-1]
    np.testing.assert_allclose(seen.loc[[o.name for o in scenario.outcomes], list(FIELDS[:-1])].to_numpy(), stated, rtol=1e-6, atol=1e-9)


def size() -> None:
    """Exact size of Kenward-Roger and exact share of singular fits, by simulation."""
    wide = planned_power(clusters=10, cluster_size=50, icc=0.1, effect=0.0, trials=TRIALS, seed=4, analyses=["kenward-roger"])
    low, high = binomial_limits(TRIALS, 0.0498, false_alarm=1e-6)
    assert low <= round(float(wide.frame["type_i"].iloc[0]) * TRIALS) <= high
    narrow = planned_power(clusters=10, cluster_size=10, icc=0.01, effect=0.0, trials=TRIALS, seed=4, analyses=["kenward-roger"])
    low, high = binomial_limits(TRIALS, 0.0209, false_alarm=1e-6)
    assert low <= round(float(narrow.frame["type_i"].iloc[0]) * TRIALS) <= high
    low, high = binomial_limits(TRIALS, 0.49, false_alarm=1e-6)
    assert low <= round(narrow.singular * TRIALS) <= high


def rubin() -> None:
    """Rubin's rules and Barnard and Rubin's df, written out."""
    q, u, nu, m = np.array([0.2, 0.5, 0.3, 0.6, 0.4]), np.array([0.04, 0.05, 0.03, 0.04, 0.04]), 20.0, 5
    total = u.mean() + (1 + 1 / m) * q.var(ddof=1)
    lam = (1 + 1 / m) * q.var(ddof=1) / total
    old, observed = (m - 1) / lam**2, (nu + 1) / (nu + 3) * nu * (1 - lam)
    pooled = pooling.pool_scalar(q, u, nu)
    np.testing.assert_allclose([pooled.estimate, pooled.std_error, pooled.df], [q.mean(), total**0.5, old * observed / (old + observed)])


def pairs() -> None:
    """With equal sites and whole pairs the random-pair model is the paired t-test."""
    rng = np.random.default_rng(2)
    k, m = 9, 6
    pair = np.repeat(np.arange(k), 2 * m)
    arm = np.tile(np.repeat([0, 1], m), k)
    site = 2 * pair + arm
    y = rng.normal(size=k)[pair] + 0.7 * rng.normal(size=2 * k)[site] + rng.normal(size=len(pair))
    labels = np.where(arm == 1, "intervention", "control")
    people = pd.DataFrame({"person": range(len(pair)), "site": site, "pair": pair, "arm": labels, "y": y})
    design = TrialDesign.from_text("""
columns = {pair = "pair"}
outcomes = [{name = "y", has_baseline = false}]
analysis = {pair_effects = "random", standardise = "none"}
""")
    row = itt(people, design).frame.iloc[0]
    means = np.bincount(site, y) / m
    difference = means[1::2] - means[::2]
    np.testing.assert_allclose(
        [row["estimate"], row["std_error"], row["df"]], [difference.mean(), difference.std(ddof=1) / np.sqrt(k), k - 1], rtol=1e-6
    )


def permutation() -> None:
    """A sampled randomisation p counts the allocation that was drawn; an exact one can be written down."""
    assert signflip.monte_carlo_p(5.0, [1.0, 2.0, -3.0])[2] == 1 / 4
    assert signflip.sign_flip([1.0, 2.0, 3.0, 4.0, 5.0]).two_sided == 2 / 32


def imputed() -> None:
    """Imputed values differ between sites and between sets as much as observed ones do."""
    rng = np.random.default_rng(8)
    site = np.repeat(np.arange(40), 15)
    people = pd.DataFrame({"person": range(600), "site": site, "arm": np.where(site % 2, "intervention", "control")})
    people["y"] = np.sqrt(0.5) * rng.normal(size=40)[site] + np.sqrt(0.5) * rng.normal(size=600)
    lost = rng.random(600) < 0.4
    design = TrialDesign.from_text('[[outcomes]]\nname = "y"\nhas_baseline = false')
    sets = _impute(people.assign(y=people["y"].mask(lost)), design)
    wide = np.array([one["y"].to_numpy(float)[lost] for one in sets])  # (m, lost)
    within = wide.var(axis=0, ddof=1).mean()
    assert 0.35 < within < 0.75  # residual 0.5, and a site mean known from nine people
    site_means = pd.Series(wide.mean(axis=0)).groupby(site[lost]).mean()
    assert 0.25 < site_means.var(ddof=1) < 0.85  # site variance 0.5


def _impute(people: pd.DataFrame, design: TrialDesign) -> list[pd.DataFrame]:
    return list(impute(people, design, m=8, seed=3))


def drawing() -> None:
    """Over 400 seeds: one site of each pair treated, either with the same chance."""
    sites = pd.DataFrame({"site": [f"S{k}" for k in range(8)], "x": np.arange(8) // 2 * 10 + np.arange(8) % 2})
    plan = within_pairs(match_pairs(sites, id="site", criteria=[nearest("x")]))
    codes = np.array([plan.allocate(f"seed {s}".encode())[0] for s in range(400)])
    assert (codes.reshape(400, 4, 2).sum(axis=2) == 1).all()
    low, high = binomial_limits(400, 0.5, false_alarm=1e-6)
    assert all(low <= n <= high for n in codes.sum(axis=0))


def planning() -> None:
    """The published power, and its size without an effect."""
    assert power(clusters=68, cluster_size=2, icc=0.05, effect=0.5).power == pytest.approx(0.8005608, abs=1e-6)


def sandwich() -> None:
    """With two equal arms of equal sites CR2 is the t-test of site means."""
    rng = np.random.default_rng(4)
    site = np.repeat(np.arange(10), 5)
    people = pd.DataFrame({"site": site, "arm": np.where(site % 2, "b", "a"), "y": rng.normal(size=10)[site] + rng.normal(size=50)})
    row = robust(fit_mixed("y ~ arm", people, groups=["site"])).frame.iloc[1]
    means = people.groupby("site")["y"].mean().to_numpy()
    found = stats.ttest_ind(means[1::2], means[::2])
    np.testing.assert_allclose([row["statistic"], row["df"]], [found.statistic, 8.0], rtol=1e-6)


def trials_differ() -> None:
    """No two trials of a check are the same trial."""
    scenario = Scenario.from_text(
        'sites = {groups = [{name = "c", recruited = 12}]}\npeople = [{role = "p", per_site = 5}]\noutcomes = [{name = "y", d = 0.3}]'
    )
    result = check(scenario, trials=30, seed=2)
    assert result.passed and len(np.unique(result.values[:, 0, 0, 0])) == 30


CHECKS = (fits, effects, size, rubin, pairs, permutation, imputed, drawing, planning, sandwich, trials_differ)

# --- the faults ---------------------------------------------------------------------------------------------


def inference(**changed: Callable[[Any, Any], Any]) -> Callable[[Patch], None]:
    """Kenward-Roger with some fields worked out anew from (result, fit)."""

    def put(patch: Patch) -> None:
        right = small_sample.kenward_roger

        def wrong(fit: Any, L: Any, **choices: Any) -> Any:
            found = right(fit, L, **choices)
            return dataclasses.replace(found, **{name: np.asarray(how(found, fit), dtype=float) for name, how in changed.items()})

        patch.setattr(small_sample, "kenward_roger", wrong)

    return put


def many(**changed: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """The same for the fits behind planned power."""

    def put(patch: Patch) -> None:
        right = planned_parallel.fit_cluster_summaries

        def wrong(*given: Any, **choices: Any) -> Any:
            found = right(*given, **choices)
            return dataclasses.replace(found, **{name: how(found) for name, how in changed.items()})

        patch.setattr(planned_parallel, "fit_cluster_summaries", wrong)

    return put


def likelihood(patch: Patch) -> None:
    right = reml.fit
    patch.setattr(reml, "fit", lambda x, y, g, **_: dataclasses.replace(right(x, y, g, method="ml"), method="reml"))


def sites_ignored(patch: Patch) -> None:
    right = reml.fit
    patch.setattr(reml, "fit", lambda x, y, g, **k: right(x, y, [np.arange(len(y))], **k))


def negative_variance(patch: Patch) -> None:
    right = reml.fit

    def wrong(*given: Any, **choices: Any) -> Any:
        found = right(*given, **choices)
        return dataclasses.replace(found, theta=np.where(found.boundary, -0.01, found.theta))

    patch.setattr(reml, "fit", wrong)


def pairs_ignored(patch: Patch) -> None:
    right = reml.fit_sets
    patch.setattr(reml, "fit_sets", lambda sets, groups, **k: right(sets, list(groups)[-1:], **k))
    single = reml.fit
    patch.setattr(reml, "fit", lambda x, y, groups, **k: single(x, y, list(groups)[-1:], **k))


def control_sd(patch: Patch) -> None:
    right = prepared.standard_deviation
    patch.setattr(prepared, "standard_deviation", lambda y, arm, **k: right(y, arm, **{**k, "denominator": "control"}))


def no_extra_between(patch: Patch) -> None:
    right = pooling._rubin
    # (1 + 1/m) B becomes B
    patch.setattr(pooling, "_rubin", lambda qbar, ubar, b, nu, m: right(qbar, ubar, b / (1 + 1 / m), nu, m))


def old_df(patch: Patch) -> None:
    patch.setattr(pooling, "barnard_rubin", lambda m, lambda_, df_complete: (m - 1) / np.maximum(lambda_, 1e-4) ** 2)


def without_the_drawn(patch: Patch) -> None:
    right = signflip.monte_carlo_p
    patch.setattr(signflip, "monte_carlo_p", lambda observed, values, **_: right(observed, values, exact=True))


def imputing(change: Callable[[pd.DataFrame, TrialDesign], list[pd.DataFrame]]) -> Callable[[Patch], None]:
    return lambda patch: patch.setitem(globals(), "_impute", change)


def single_level(people: pd.DataFrame, design: TrialDesign) -> list[pd.DataFrame]:
    arm = people["arm"] == "intervention"
    mixed = np.random.default_rng(1).permutation(len(people))
    # people keep their arm and lose their site
    shuffled = people.assign(site=np.where(arm, 1, 0) + 2 * (mixed % 20))
    return list(impute(shuffled, design, m=8, seed=3))


def best_guess(people: pd.DataFrame, design: TrialDesign) -> list[pd.DataFrame]:
    sets = list(impute(people, design, m=8, seed=3))
    mean = np.mean([s["y"].to_numpy(float) for s in sets], axis=0)
    return [s.assign(y=mean) for s in sets]


def loaded_coin(patch: Patch) -> None:
    right = draws.draw
    patch.setattr(draws, "draw", lambda *given: dataclasses.replace(right(*given), value=0))


def both_treated(patch: Patch) -> None:
    from trialkit.allocation import plans

    patch.setattr(plans, "_draw_block", lambda seed, digest, block: (set(block), []))


def central(patch: Patch) -> None:
    right = noncentral.power_f
    patch.setattr(noncentral, "power_f", lambda nc, df1, df2, alpha: right(nc, df1, np.inf, alpha))
    shifted = noncentral.power_t
    patch.setattr(noncentral, "power_t", lambda shift, df, alpha, sides=2: shifted(shift, np.inf, alpha, sides))
    one = noncentral.power_t_one
    patch.setattr(noncentral, "power_t_one", lambda shift, df, alpha, sides=2: one(shift, 1e9, alpha, sides))


def one_seed(patch: Patch) -> None:
    patch.setattr(operating, "child_seeds", lambda seed, n, *names: [seed] * n)


def plain_sandwich(patch: Patch) -> None:
    right = robust
    patch.setitem(globals(), "robust", lambda fit: right(fit, kind="CR0"))


FAULTS: dict[str, tuple[Callable[[], None], Callable[[Patch], None]]] = {
    "z for t": (fits, inference(df=lambda r, f: np.full_like(r.df, np.inf))),
    "z for t, seen by simulation": (
        size,
        many(kenward_roger=lambda r: dataclasses.replace(r.kenward_roger, df=np.full_like(r.kenward_roger.df, 1e9))),
    ),
    "df n - p": (fits, inference(df=lambda r, f: np.full_like(r.df, f.n - f.p))),
    "df K - 1": (fits, inference(df=lambda r, f: np.full_like(r.df, f.n_groups[0] - 1))),
    "df K - 2 whatever the sizes": (fits, inference(df=lambda r, f: np.full_like(r.df, f.n_groups[0] - 2))),
    "standard error 10% small": (fits, inference(std_error=lambda r, f: 0.9 * r.std_error)),
    "standard error 5% small": (fits, inference(std_error=lambda r, f: 0.95 * r.std_error)),
    "Kenward-Roger without the adjusted standard error": (
        fits,
        inference(std_error=lambda r, f: small_sample.satterthwaite(f, np.array([[0.0, 1.0, 0.0]])).std_error),
    ),
    "maximum likelihood for REML": (fits, likelihood),
    "sites ignored": (fits, sites_ignored),
    "variance allowed below zero": (fits, negative_variance),
    "singular fits not counted": (size, many(boundary=lambda r: np.zeros_like(r.boundary))),
    "sign of d": (effects, inference(estimate=lambda r, f: -r.estimate)),
    "d over the control arm's SD": (effects, control_sd),
    "pairs ignored": (pairs, pairs_ignored),
    "pooling without 1 + 1/m": (rubin, no_extra_between),
    "Rubin's old df, floored": (rubin, old_df),
    "sampled p without the drawn allocation": (permutation, without_the_drawn),
    "single-level imputation": (imputed, imputing(single_level)),
    "imputation of the best guess": (imputed, imputing(best_guess)),
    "a loaded coin": (drawing, loaded_coin),
    "both sites of a pair treated": (drawing, both_treated),
    "normal for noncentral F": (planning, central),
    "one seed for every trial": (trials_differ, one_seed),
    "CR0 for CR2": (sandwich, plain_sandwich),
}


@pytest.mark.calibration
@pytest.mark.parametrize("named", CHECKS, ids=lambda c: c.__name__)
def test_the_engine_as_it_is_passes(named: Callable[[], None]) -> None:
    named()


@pytest.mark.calibration
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_turns_its_check_red(fault: str, monkeypatch: Patch) -> None:
    named, put = FAULTS[fault]
    put(monkeypatch)
    with pytest.raises(AssertionError):
        named()


def test_there_are_more_faults_than_were_asked_for() -> None:
    assert len(FAULTS) >= 18
    assert {named for named, _ in FAULTS.values()} == set(CHECKS)
