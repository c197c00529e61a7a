"""Adaptive quadrature: the gradient is that of the value, many nodes are the integral, and a variance at zero is found as such."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from trialkit._kernels import agq

RNG = np.random.default_rng(7)
CODES = np.sort(np.concatenate([np.arange(9), RNG.integers(0, 9, 60)]))
N = len(CODES)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
DENSITIES = {
    "binomial": (agq.Binomial((RNG.random(N) < 0.4).astype(float)), []),
    "poisson": (agq.Poisson(RNG.poisson(2, N).astype(float)), []),
    "negative binomial": (agq.NegativeBinomial(RNG.poisson(2, N).astype(float)), [0.7]),
    "ordinal": (agq.CumulativeLogit(RNG.integers(0, 4, N), 4), [-1.0, 0.1, -0.2]),
}


def likelihood(name: str, nodes: int) -> tuple[agq.Likelihood, np.ndarray]:
    density, extra = DENSITIES[name]
    x = X[:, 1:] if name == "ordinal" else X
    beta = [-0.3] if name == "ordinal" else [0.2, -0.3]
    return agq.Likelihood(x, np.linspace(-0.1, 0.1, N), CODES, density, nodes), np.array([*beta, 0.8, *extra])


@pytest.mark.parametrize("nodes", [1, 3, 12])
@pytest.mark.parametrize("name", DENSITIES)
def test_gradient_is_that_of_the_approximation(name, nodes):
    f, q = likelihood(name, nodes)
    steps = 1e-5 * np.eye(len(q))
    numerical = np.array([(f(q + e)[0] - f(q - e)[0]) / 2e-5 for e in steps])
    np.testing.assert_allclose(f(q)[1], numerical, atol=2e-7)


@pytest.mark.parametrize("name", DENSITIES)
def test_many_nodes_are_the_integral(name):
    f, q = likelihood(name, 40)
    density = f.density
    p = f.x.shape[1]
    eta, s, extra = f.offset + f.x @ q[:p], q[p], q[p + 1 :]
    total = 0.0
    for j in range(9):
        here = j == CODES

        def integrand(u, here=here):
            return math.exp(density(eta + s * u, extra).value[here].sum() - u * u / 2) / math.sqrt(2 * math.pi)

        total += math.log(integrate.quad(integrand, -9, 9, epsabs=0, epsrel=1e-11, limit=200)[0])
    assert f(q)[0] == pytest.approx(total, abs=1e-8)


def test_sites_that_are_alike_have_no_variance_and_others_have():
    y = np.tile([1.0] * 4 + [0.0] * 6, 12)
    codes = np.repeat(np.arange(12), 10)
    x = np.ones((120, 1))
    flat = agq.maximise(x, codes, agq.Binomial(y), nodes=11, start=np.zeros(1), extra=np.empty(0))
    assert flat.boundary
    assert flat.sd == 0
    assert flat.beta[0] == pytest.approx(math.log(4 / 6), abs=1e-8)
    assert flat.vcov[0, 0] == pytest.approx(1 / (120 * 0.24), rel=1e-6)
    spread = np.concatenate([np.repeat([1.0, 0.0], [k, 10 - k]) for k in (1, 9, 2, 8, 3, 7, 1, 9, 2, 8, 3, 7)])
    found = agq.maximise(x, codes, agq.Binomial(spread), nodes=11, start=np.zeros(1), extra=np.empty(0))
    assert not found.boundary
    assert found.sd > 1


def test_a_size_at_infinity_is_left_there():
    # less variable than Poisson: no size fits better than an infinite one
    y = np.tile([2.0, 2.0, 3.0, 2.0, 3.0], 24)
    found = agq.maximise(
        np.ones((120, 1)), np.repeat(np.arange(24), 5), agq.NegativeBinomial(y), nodes=5, start=np.array([0.9]), extra=np.array([1.0])
    )
    assert found.extra[0] > 5
    assert math.isfinite(found.vcov[0, 0])


def test_separation_is_told():
    with pytest.raises(agq.Separation):
        x = np.column_stack([np.ones(40), np.repeat([0.0, 1.0], 20)])
        y = np.concatenate([np.tile([0.0, 1.0], 10), np.ones(20)])
        agq.maximise(x, np.repeat(np.arange(8), 5), agq.Binomial(y), nodes=9, start=np.zeros(2), extra=np.empty(0))
