"""Simulation-based calibration (Talts et al. 2018) of every kernel: the rank of the true value among posterior draws is uniform.

All replicates run side by side, one chain each with data of its own. The everyday size finds gross faults (a wrong df, a missing
Jacobian, shrunken site effects); the slow one is 2,000 replicates x 99 draws, and its chi-square p-values are stored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from trialkit._kernels import gibbs_latent, gibbs_linear, gibbs_spread
from trialkit._kernels.gibbs import Target
from trialkit._kernels.gibbs_joint import Covariance, JointEngine, JointPrior, JointProblem
from trialkit._kernels.gibbs_latent import Predictors, ProbitState, SiteRows
from trialkit._kernels.gibbs_linear import Columns, Layout, Moments, Prior
from trialkit._kernels.gibbs_spread import SpreadState
from trialkit._kernels.gibbs_streams import Streams

STORED = Path(__file__).parents[1] / "calibration" / "results" / "imputation_sbc.json"
CUT_SD = 1.0  # a prior narrow enough for a random walk to cross when a category is empty
SCALE = 0.5  # half-Cauchy scale of phi
# 12 sites: empty among the observed rows, singletons and up to six people
SIZES = np.array([0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 6])
SITE = np.repeat(np.arange(len(SIZES)), SIZES)
N, J, P = len(SITE), len(SIZES), 3
PAIR = np.array([0, 1, 0, 2, 1, 3, 2, 3, 4, 4, 5, 5])


def draw_phi(rng: np.random.Generator, m: int, t_max: float) -> np.ndarray:
    """Half-Cauchy cut where the kernel's range ends."""
    top = stats.halfcauchy.cdf(t_max / (1 - t_max) / SCALE)
    return SCALE * stats.halfcauchy.ppf(rng.uniform(size=m) * top)


def design(rng: np.random.Generator, m: int) -> np.ndarray:
    x = rng.normal(size=(m, N, P))
    x[:, :, 0] = 1
    x[:, :, 1] = (np.arange(J) % 2)[SITE]  # an arm: constant in a site
    return x


def site_sums(x: np.ndarray) -> np.ndarray:
    out = np.zeros((len(x), J, *x.shape[2:]))
    np.add.at(out, (slice(None), SITE), x)
    return out


def beside(x: np.ndarray, y: np.ndarray | float) -> np.ndarray:
    """Predictors (m, N, P) and one more column, the outcome's."""
    both = np.zeros((*x.shape[:2], P + 1))
    both[:, :, :P], both[:, :, P] = x, y
    return both


def predictors_of(x: np.ndarray, pair: np.ndarray | None = None) -> Predictors:
    z = beside(x, 0.0)
    return Predictors(
        z=z,
        used=np.arange(N),
        places=np.arange(P),
        out=z[:, :1],
        absent=np.arange(1),
        cross=z.swapaxes(1, 2) @ z,
        site=site_sums(z),
        columns=Columns.of(np.arange(P), P, P + 1),
        sites=SiteRows.of(SITE, SITE[:1], J, pair),
    )


def ranks_linear(m: int, draws: int, seed: int, thin: int = 2, burn: int = 20, *, pairs: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    streams = Streams(np.random.SeedSequence(seed).spawn(m))
    prior = Prior(np.full(P, 0.25), df=8.0, scale=1.0, site=SCALE)
    sigma2 = 8.0 / rng.chisquare(8.0, m)
    phi = draw_phi(rng, m, gibbs_linear.T_MAX)
    beta = rng.normal(size=(m, P)) * 2 * np.sqrt(sigma2)[:, None]
    u = rng.normal(size=(m, J)) * (phi * np.sqrt(sigma2))[:, None]
    if pairs:
        phi_pair = draw_phi(rng, m, gibbs_linear.T_MAX)
        u += (rng.normal(size=(m, 6)) * (phi_pair * np.sqrt(sigma2))[:, None])[:, PAIR]
    x = design(rng, m)
    y = (x @ beta[:, :, None])[:, :, 0] + u[:, SITE] + rng.normal(size=(m, N)) * np.sqrt(sigma2)[:, None]
    data = beside(x, y)
    moments = Moments(data.swapaxes(1, 2) @ data, site_sums(data), N, Columns.of(np.arange(P), P, P + 1))
    layout = Layout.of(SIZES, PAIR if pairs else None)
    last = gibbs_linear.draw(moments, layout, prior, streams, beta=None, t=np.full(m, 0.25))
    names = ("beta0", "beta1", "beta2", "sigma2", "phi", "u_empty", "u_six", *(("phi_pair",) if pairs else ()))
    below = {name: np.zeros(m, dtype=int) for name in names}
    for k in range(burn + draws * thin):
        last = gibbs_linear.draw(moments, layout, prior, streams, beta=last.beta, t=last.t, t_pair=last.t_pair)
        if k >= burn and (k - burn) % thin == 0:
            for i in range(P):
                below[f"beta{i}"] += last.beta[:, i] < beta[:, i]
            below["sigma2"] += last.sigma2 < sigma2
            below["phi"] += last.t / (1 - last.t) < phi
            if last.t_pair is not None:
                below["phi_pair"] += last.t_pair / (1 - last.t_pair) < phi_pair
            below["u_empty"] += last.u[:, 0] < u[:, 0]
            below["u_six"] += last.u[:, -1] < u[:, -1]
    return below


def ranks_probit(levels: int, *, pairs: bool = False) -> Callable[..., dict[str, np.ndarray]]:
    def run(m: int, draws: int, seed: int, thin: int = 12, burn: int = 150) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        streams = Streams(np.random.SeedSequence(seed).spawn(m))
        precision = np.full(P, 1.0)
        prior = Prior(precision, site=SCALE, t_max=gibbs_latent.T_MAX)
        phi = draw_phi(rng, m, gibbs_latent.T_MAX)
        beta = rng.normal(size=(m, P))
        u = rng.normal(size=(m, J)) * phi[:, None]
        if pairs:
            phi_pair = draw_phi(rng, m, gibbs_latent.T_MAX)
            u += (rng.normal(size=(m, 6)) * phi_pair[:, None])[:, PAIR]
        cuts = np.zeros((m, levels - 1))
        for row in cuts[:, 1:]:  # ordered and above 0, by rejection from the kernel's prior
            while True:
                proposal = rng.normal(size=len(row)) * CUT_SD
                if (np.diff(np.r_[0.0, proposal]) > 0).all():
                    row[:] = proposal
                    break
        x = design(rng, m)
        z = (x @ beta[:, :, None])[:, :, 0] + u[:, SITE] + rng.normal(size=(m, N))
        codes = (z[:, :, None] > cuts[:, None, :]).sum(axis=2)
        predictors = predictors_of(x, PAIR if pairs else None)
        state = ProbitState(None, np.full(m, 0.25), None, np.tile(np.arange(levels - 1.0), (m, 1)))
        step = np.eye(levels - 2) * 0.5 if levels > 2 else None
        below = {name: np.zeros(m, dtype=int) for name in ("beta0", "beta1", "beta2", "phi", "u_empty", "u_six")}
        below |= {f"cut{i}": np.zeros(m, dtype=int) for i in range(1, levels - 1)} | ({"phi_pair": np.zeros(m, dtype=int)} if pairs else {})
        for k in range(burn + draws * thin):
            gibbs_latent.cycle(state, predictors, codes, levels, prior, streams, step=step, moves=4, cut_sd=CUT_SD)
            if k >= burn and (k - burn) % thin == 0:
                assert state.beta is not None
                assert state.u is not None
                for i in range(P):
                    below[f"beta{i}"] += state.beta[:, i] < beta[:, i]
                below["phi"] += state.t / (1 - state.t) < phi
                if state.t_pair is not None:
                    below["phi_pair"] += state.t_pair / (1 - state.t_pair) < phi_pair
                below["u_empty"] += state.u[:, 0] < u[:, 0]
                below["u_six"] += state.u[:, -1] < u[:, -1]
                for i in range(1, levels - 1):
                    below[f"cut{i}"] += state.cuts[:, i] < cuts[:, i]
        return below

    return run


def ranks_spread(m: int, draws: int, seed: int, thin: int = 5, burn: int = 50) -> dict[str, np.ndarray]:
    """Sites that differ in their residual variance."""
    rng = np.random.default_rng(seed)
    prior = Prior(np.full(P, 0.25), site=SCALE)
    c, log_s = rng.uniform(0, gibbs_spread.C_MAX, m), rng.uniform(gibbs_spread.LOG_LOW, gibbs_spread.LOG_HIGH, m)
    nu = 2 / c[:, None] ** 2
    weight = rng.gamma(nu / 2, size=(m, J)) * 2 / nu * np.exp(-2 * log_s)[:, None]
    tau = draw_phi(rng, m, gibbs_linear.T_MAX) * np.exp(log_s)
    beta = rng.normal(size=(m, P)) * 2
    u = rng.normal(size=(m, J)) * tau[:, None]
    x = design(rng, m)
    y = (x @ beta[:, :, None])[:, :, 0] + u[:, SITE] + rng.normal(size=(m, N)) / np.sqrt(weight[:, SITE])
    predictors = predictors_of(x)
    streams = Streams(np.random.SeedSequence(seed).spawn(m))
    state = SpreadState.start(predictors, y, prior, streams)
    truth = {"beta0": beta[:, 0], "beta1": beta[:, 1], "beta2": beta[:, 2], "tau": tau, "s": log_s, "c": c}
    truth |= {"u_empty": u[:, 0], "u_six": u[:, -1], "weight_empty": weight[:, 0], "weight_one": weight[:, 1], "weight_six": weight[:, -1]}
    below = {name: np.zeros(m, dtype=int) for name in truth}
    for k in range(burn + draws * thin):
        gibbs_spread.cycle(state, predictors, y, prior, streams)
        if k >= burn and (k - burn) % thin == 0:
            now = [*state.beta.T, state.t / (1 - state.t) * np.exp(state.log_s), state.log_s, state.c]
            now += [state.u[:, 0], state.u[:, -1], state.weight[:, 0], state.weight[:, 1], state.weight[:, -1]]
            for (name, true), value in zip(truth.items(), now, strict=True):
                below[name] += value < true
    return below


JOINT_PRIOR = JointPrior(intercept=1.0, slope=0.7, cut=1.0, scale=0.5)


def huang_wand(rng: np.random.Generator, m: int, d: int, scale: float) -> np.ndarray:
    """Draws of a covariance whose standard deviations are half-t (2 df), from the prior's two stages."""
    out = np.empty((m, d, d))
    for k in range(m):
        rate = rng.gamma(0.5, scale**2, d)  # 1 / a
        out[k] = stats.invwishart(1 + d, 4 * np.diag(rate)).rvs(random_state=rng)
    return out


def ranks_joint(m: int, draws: int, seed: int, thin: int = 15, burn: int = 300, *, stay: int = 0) -> dict[str, np.ndarray]:
    """A number, an ordinal and a nominal variable of people, a number and a binary of sites, with gaps in all of them.

    12 sites say little of the correlation of the nominal variable's two latents, which remembers for some 80 cycles (sum of its
    autocorrelations): hence the thinning.

    With `stay` the chains start at the truth and go so many cycles: what is returned are p-values that they left the joint distribution of
    parameters and data as it was (Geweke 2004), which asks for no convergence.
    """
    rng = np.random.default_rng(seed)
    prior, D = JOINT_PRIOR, 4
    site = np.repeat(np.arange(J), np.maximum(SIZES, 1))
    n = len(site)
    x = np.column_stack([np.ones(n), (np.arange(J) % 2)[site], rng.normal(size=n)])
    w = np.column_stack([np.ones(J), np.arange(J) % 2])
    sizes = np.array([prior.intercept, prior.slope, prior.slope])
    omega, psi = huang_wand(rng, m, D, prior.scale), huang_wand(rng, m, D + 2, prior.scale)
    B = sizes[:, None] * rng.normal(size=(m, P, D)) @ np.linalg.cholesky(omega).swapaxes(1, 2)
    gamma = sizes[:2, None] * rng.normal(size=(m, 2, 2))
    ua = rng.normal(size=(m, J, D + 2)) @ np.linalg.cholesky(psi).swapaxes(1, 2)
    y = x @ B + ua[:, site, :D] + rng.normal(size=(m, n, D)) @ np.linalg.cholesky(omega).swapaxes(1, 2)
    z = w @ gamma + ua[:, :, D:]
    cut = np.abs(rng.normal(size=m)) * prior.cut
    gone = {name: np.flatnonzero(rng.random(n) < 0.25) for name in ("number", "ordinal", "nominal")} | {
        name: np.flatnonzero(rng.random(J) < 0.25) for name in ("site number", "site binary")
    }
    ordinal = (y[:, :, 1] > 0).astype(float) + (y[:, :, 1] > cut[:, None])
    largest = y[:, :, 2:4].max(axis=2)
    whole = {
        "number": y[:, :, 0],
        "ordinal": ordinal,
        "nominal": np.where(largest > 0, y[:, :, 2:4].argmax(axis=2) + 1.0, 0.0),
        "site number": z[:, :, 0],
        "site binary": (z[:, :, 1] > 0).astype(float),
    }

    def target(name: str, kind: Any, columns: list[int], levels: int = 0) -> Target:
        site_level = name.startswith("site")
        kept = np.setdiff1d(np.arange(J if site_level else n), gone[name])
        return Target(name, kind, site_level, gone[name], kept, np.array(columns), np.arange(0), whole[name][:, kept], levels)

    targets = (
        target("number", "normal", [0]),
        target("ordinal", "ordinal", [1], 3),
        target("nominal", "nominal", [2, 3], 3),
        target("site number", "normal", [0]),
        target("site binary", "binary", [1], 2),
    )
    engine = JointEngine(JointProblem(x, w, site, targets), Streams(np.random.SeedSequence(seed).spawn(m)), prior)

    def figures(omega: np.ndarray, psi: np.ndarray, B: np.ndarray, gamma: np.ndarray, cut: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        sd, sd_site = np.sqrt(omega[:, range(D), range(D)]), np.sqrt(psi[:, range(D + 2), range(D + 2)])
        return {
            "sd": sd[:, 0],
            "site sd": sd_site[:, 0],
            "ordinal site ratio": sd_site[:, 1] / sd[:, 1],
            "nominal site ratio": sd_site[:, 2] / sd[:, 2],
            "correlation 01": omega[:, 0, 1] / (sd[:, 0] * sd[:, 1]),
            "correlation 23": omega[:, 2, 3] / (sd[:, 2] * sd[:, 3]),
            "site correlation 01": psi[:, 0, 1] / (sd_site[:, 0] * sd_site[:, 1]),
            "site correlation 04": psi[:, 0, 4] / (sd_site[:, 0] * sd_site[:, 4]),
            "arm of number": B[:, 1, 0],
            "arm of ordinal": B[:, 1, 1] / sd[:, 1],
            "slope of nominal": B[:, 2, 3] / sd[:, 3],
            "arm of site number": gamma[:, 1, 0],
            "arm of site binary": gamma[:, 1, 1] / sd_site[:, 5],
            "cut": cut / sd[:, 1],
            "missing number": y[:, gone["number"][0], 0],
        }

    truth = figures(omega, psi, B, gamma, cut, y)
    if stay:
        inverse = np.linalg.inv
        engine.y[:], engine.z[:], engine.B, engine.gamma, engine.u = y, z, B, gamma, ua[:, :, :D].copy()
        engine.within = Covariance(omega, inverse(omega), np.ones((m, D)))
        engine.between = Covariance(psi, inverse(psi), np.ones((m, D + 2)))
        engine.parts[1].cuts = np.column_stack([np.zeros(m), cut])
        for _ in range(stay):
            engine.cycle()
        now = figures(engine.omega, engine.psi, engine.B, engine.gamma, engine.parts[1].cuts[:, 1], engine.y)
        return {name: np.array(stats.ks_2samp(value, truth[name]).pvalue) for name, value in now.items()}
    below = {name: np.zeros(m, dtype=int) for name in truth}
    for k in range(burn + draws * thin):
        engine.cycle()
        if k >= burn and (k - burn) % thin == 0:
            now = figures(engine.omega, engine.psi, engine.B, engine.gamma, engine.parts[1].cuts[:, 1], engine.y)
            for name, value in now.items():
                below[name] += value < truth[name]
    return below


JOINT_REPLICATES = 2000
KERNELS: dict[str, Callable[..., dict[str, np.ndarray]]] = {"linear": ranks_linear, "probit": ranks_probit(2), "ordinal": ranks_probit(4)}
KERNELS |= {
    "heteroscedastic": partial(ranks_spread, thin=1),
    "linear in pairs": partial(ranks_linear, pairs=True, thin=3),
    "probit in pairs": partial(ranks_probit(2, pairs=True), thin=3),
}


def p_values(ranks: dict[str, np.ndarray], draws: int, bins: int) -> dict[str, float]:
    """Chi-square test that ranks 0..draws are uniform, in equal bins."""
    assert (draws + 1) % bins == 0
    return {name: float(stats.chisquare(np.bincount(r * bins // (draws + 1), minlength=bins)).pvalue) for name, r in ranks.items()}


@pytest.mark.parametrize(
    ("kernel", "m", "options"),
    [("linear", 400, {}), ("probit", 200, {"thin": 8, "burn": 100}), ("linear in pairs", 200, {}), ("heteroscedastic", 100, {})],
)
def test_ranks_are_uniform(kernel: str, m: int, options: dict[str, int]) -> None:
    found = p_values(KERNELS[kernel](m, 19, seed=20, **options), 19, bins=10)
    assert min(found.values()) > 1e-4, found


def test_the_joint_kernel_leaves_parameters_and_data_as_they_are() -> None:
    """Chains started at the truth; two dozen cycles of a kernel with a fault move some figure's distribution."""
    found = ranks_joint(250, 1, seed=6, stay=25)
    assert min(found.values()) > 1e-4, found


@pytest.mark.slow
@pytest.mark.calibration
def test_the_joint_kernel_over_many_cycles() -> None:
    found = ranks_joint(1000, 1, seed=5, stay=120)
    assert min(found.values()) > 1e-3, found


def test_a_fault_in_the_joint_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One degree of freedom too many for every site, say."""
    right = Covariance.draw
    monkeypatch.setattr(Covariance, "draw", lambda self, squares, rows, scale, streams: right(self, squares, 2 * rows, scale, streams))
    assert min(ranks_joint(250, 1, seed=6, stay=25).values()) < 1e-4


def test_a_wrong_prior_is_found() -> None:
    """The check can fail: posterior draws under the wrong residual degrees of freedom are told from right ones."""
    ranks = ranks_linear(400, 19, seed=21)
    shifted = {"sigma2": np.clip(ranks["sigma2"] + 3, 0, 19)}
    assert p_values(shifted, 19, bins=10)["sigma2"] < 1e-4


@pytest.mark.slow
@pytest.mark.calibration
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_two_thousand_replicates(kernel: str) -> None:
    found = p_values(KERNELS[kernel](2000, 99, seed=2024), 99, bins=20)
    assert min(found.values()) > 1e-4, found
    stored = json.loads(STORED.read_text())["p_values"][kernel]
    # the same seed on the same machine gives the same ranks; another libm may move a few of them
    assert found.keys() == stored.keys()


@pytest.mark.slow
@pytest.mark.calibration
def test_ranks_of_the_joint_kernel() -> None:
    found = p_values(ranks_joint(JOINT_REPLICATES, 99, seed=2024), 99, bins=20)
    assert min(found.values()) > 1e-4, found
    assert found.keys() == json.loads(STORED.read_text())["joint"]["p_values"].keys()


def test_stored_results_pass() -> None:
    stored = json.loads(STORED.read_text())
    assert (stored["replicates"], stored["draws"]) == (2000, 99)
    assert sorted(stored["p_values"]) == sorted(KERNELS)
    assert min(p for kernel in stored["p_values"].values() for p in kernel.values()) > 1e-4
    joint = stored["joint"]
    assert (joint["replicates"], joint["draws"], len(joint["p_values"])) == (JOINT_REPLICATES, 99, 15)
    assert min(joint["p_values"].values()) > 1e-4


if __name__ == "__main__":
    # kernels named as arguments are made again, "joint" among them; without any all of them
    out = json.loads(STORED.read_text()) if sys.argv[1:] else {}
    out |= {"replicates": 2000, "draws": 99, "bins": 20, "p_values": out.get("p_values", {})}
    for name in sys.argv[1:] or [*KERNELS, "joint"]:
        if name == "joint":
            ranks = ranks_joint(JOINT_REPLICATES, 99, seed=2024)
            out["joint"] = {"replicates": JOINT_REPLICATES, "draws": 99, "bins": 20, "p_values": p_values(ranks, 99, bins=20)}
        else:
            out["p_values"][name] = p_values(KERNELS[name](2000, 99, seed=2024), 99, bins=20)
        STORED.write_text(json.dumps(out, indent=1) + "\n")
