"""The batch of contrasts against the single-fit engine: an independent derivation of the same formulas."""

from __future__ import annotations

import numpy as np
import pytest

from trialkit._kernels import reml, small_sample
from trialkit.simulation import batch


def data_sets(n_sets: int, seed: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Unbalanced data sets of different shapes, a third of them without site variance."""
    rng = np.random.default_rng(seed)
    sets = []
    for k in range(n_sets):
        sites = int(rng.integers(8, 60))
        n = int(rng.integers(3 * sites, 6 * sites))
        p = int(rng.integers(2, 10))
        site = np.sort(np.concatenate([np.arange(sites), rng.integers(0, sites, n - sites)]))
        x = np.column_stack([np.ones(n), site % 2, rng.normal(size=(n, p - 2))])
        tau = (0.0, 0.2, 0.8)[k % 3]
        y = 10.0 ** rng.integers(-3, 4) * (x[:, -1] + tau * rng.normal(size=sites)[site] + rng.normal(size=n)) + rng.normal() * 100
        sets.append((x, y, site))
    return sets


@pytest.fixture(scope="module")
def solved() -> tuple[batch.Contrasts, list[reml.MixedFit], list[np.ndarray]]:
    sets = data_sets(120, 5)
    reduced = [reml.reduce(x, y, [site]) for x, y, site in sets]
    contrasts = [np.eye(x.shape[1])[1] for x, _, _ in sets]
    return batch.contrasts(batch.pad(reduced, contrasts)), [reml.fit_reduced(r) for r in reduced], contrasts


def test_kenward_roger_agrees(solved: tuple[batch.Contrasts, list[reml.MixedFit], list[np.ndarray]]) -> None:
    found, fits, contrasts = solved
    expected = [small_sample.kenward_roger(f, c[None]) for f, c in zip(fits, contrasts, strict=True)]
    for name in ("estimate", "std_error", "df"):
        np.testing.assert_allclose(getattr(found, name), [float(getattr(e, name)[0]) for e in expected], rtol=1e-9)
    assert found.converged.all()


def test_satterthwaite_agrees(solved: tuple[batch.Contrasts, list[reml.MixedFit], list[np.ndarray]]) -> None:
    found, fits, contrasts = solved
    expected = [small_sample.satterthwaite(f, c[None]) for f, c in zip(fits, contrasts, strict=True)]
    np.testing.assert_allclose(found.plain_error, [float(e.std_error[0]) for e in expected], rtol=1e-9)
    np.testing.assert_allclose(found.satterthwaite_df, [float(e.df[0]) for e in expected], rtol=1e-8)


def test_variances_and_boundaries_agree(solved: tuple[batch.Contrasts, list[reml.MixedFit], list[np.ndarray]]) -> None:
    found, fits, _ = solved
    assert 20 < found.singular.sum() < 80
    assert (found.singular == [bool(f.boundary[0]) for f in fits]).all()
    np.testing.assert_allclose(found.ratio, [float(f.theta[0]) for f in fits], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.residual, [f.sigma2 for f in fits], rtol=1e-9)


def test_company_does_not_matter() -> None:
    """Padding to a wider or longer neighbour changes nothing but the last bits."""
    sets = data_sets(9, 8)
    reduced = [reml.reduce(x, y, [site]) for x, y, site in sets]
    contrasts = [np.eye(x.shape[1])[1] for x, _, _ in sets]
    together = batch.contrasts(batch.pad(reduced, contrasts))
    for k in range(len(sets)):
        alone = batch.contrasts(batch.pad([reduced[k]], [contrasts[k]]))
        assert alone.estimate[0] == pytest.approx(together.estimate[k], rel=1e-11)
        assert alone.std_error[0] == pytest.approx(together.std_error[k], rel=1e-11)
        assert alone.df[0] == pytest.approx(together.df[k], rel=1e-10)
