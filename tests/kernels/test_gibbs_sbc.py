"""Simulation-based calibration (Talts et al. 2018) of every kernel: the rank of the true value among posterior draws is uniform.

All replicates run side by side, one chain each with data of its own. The everyday size finds gross faults (a wrong df, a missing
Jacobian, shrunken site effects); the slow one is 2,000 replicates x 99 draws, and its chi-square p-values are stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from trialkit._kernels import gibbs_latent, gibbs_linear
from trialkit._kernels.gibbs_latent import Predictors, ProbitState, SiteRows
from trialkit._kernels.gibbs_linear import Layout, Moments, Prior
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
    moments = Moments(x.swapaxes(1, 2) @ x, (y[:, None] @ x)[:, 0], (y**2).sum(1), N, site_sums(x), site_sums(y))
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
        predictors = Predictors(
            used=x,
            absent=x[:, :1],
            columns=np.arange(P),
            gram=x.swapaxes(1, 2) @ x,
            site_x=site_sums(x),
            sites=SiteRows.of(SITE, SITE[:1], J, PAIR if pairs else None),
        )
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


KERNELS: dict[str, Callable[..., dict[str, np.ndarray]]] = {
    "linear": ranks_linear,
    "linear in pairs": partial(ranks_linear, pairs=True),
    "probit": ranks_probit(2),
    "probit in pairs": ranks_probit(2, pairs=True),
    "ordinal": ranks_probit(4),
}


def p_values(ranks: dict[str, np.ndarray], draws: int, bins: int) -> dict[str, float]:
    """Chi-square test that ranks 0..draws are uniform, in equal bins."""
    assert (draws + 1) % bins == 0
    return {name: float(stats.chisquare(np.bincount(r * bins // (draws + 1), minlength=bins)).pvalue) for name, r in ranks.items()}


@pytest.mark.parametrize(
    ("kernel", "m", "options"), [("linear", 400, {}), ("linear in pairs", 200, {"thin": 3}), ("probit", 200, {"thin": 8, "burn": 100})]
)
def test_ranks_are_uniform(kernel: str, m: int, options: dict[str, int]) -> None:
    found = p_values(KERNELS[kernel](m, 19, seed=20, **options), 19, bins=10)
    assert min(found.values()) > 1e-4, found


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


def test_stored_results_pass() -> None:
    stored = json.loads(STORED.read_text())
    assert stored["replicates"] == 2000
    assert stored["draws"] == 99
    assert sorted(stored["p_values"]) == sorted(KERNELS)
    assert min(p for kernel in stored["p_values"].values() for p in kernel.values()) > 1e-4


if __name__ == "__main__":
    out = {
        "replicates": 2000,
        "draws": 99,
        "bins": 20,
        "p_values": {k: p_values(f(2000, 99, seed=2024), 99, bins=20) for k, f in KERNELS.items()},
    }
    STORED.parent.mkdir(exist_ok=True)
    STORED.write_text(json.dumps(out, indent=1) + "\n")
