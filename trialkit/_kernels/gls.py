"""Variance of a generalised-least-squares effect from design and covariance matrices of independent units.

A unit is whatever is independent of the rest: a cluster, a pair of clusters, a stratum. Units of one shape are stacked; ``count`` says
how many there are of each and may be any positive real number, so that a sample size can be solved for between whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Units:
    """Independent units of one shape.

    Attributes
    ----------
    design : (u, r, p)
        Fixed-effect design matrix of each kind of unit.
    covariance : (u, r, r)
        Covariance of its r observations (or cell means).
    count : (u,)
        How many units of each kind there are; real.
    """

    design: Array
    covariance: Array
    count: Array


@dataclass(frozen=True, slots=True)
class Gls:
    """Attributes: information (p, p); covariance (c, c) of the contrasts; rank of the design; rows, the number of observations."""

    information: Array
    covariance: Array
    rank: int
    rows: float

    @property
    def variance(self) -> float:
        return float(self.covariance[0, 0])


def units(design: ArrayLike, covariance: ArrayLike, count: ArrayLike = 1.0) -> Units:
    """Stack one kind of unit (two dimensions) or many (three)."""
    x, v = np.asarray(design, dtype=float), np.asarray(covariance, dtype=float)
    if x.ndim == 2:
        x, v = x[None], v[None]
    n = np.broadcast_to(np.asarray(count, dtype=float), (x.shape[0],)).astype(float)
    if v.shape != (x.shape[0], x.shape[1], x.shape[1]):
        raise ValueError("covariance and design do not have the same number of rows")
    return Units(x, v, n)


def contrast_covariance(groups: Sequence[Units], contrasts: ArrayLike) -> Gls:
    """Covariance of ``contrasts @ beta`` for the GLS estimate with known covariance.

    Raises
    ------
    ValueError
        A covariance is not positive definite, or a contrast is not estimable from the design.
    """
    L = np.atleast_2d(np.asarray(contrasts, dtype=float))
    p = L.shape[1]
    information = np.zeros((p, p))
    rows = 0.0
    for g in groups:
        try:
            half = np.linalg.solve(np.linalg.cholesky(g.covariance), g.design)
        except np.linalg.LinAlgError as error:
            raise ValueError("the covariance of a unit is not positive definite") from error
        flat = half.reshape(-1, p)
        information += (flat * np.repeat(g.count, half.shape[1])[:, None]).T @ flat
        rows += float(g.count.sum()) * g.design.shape[1]
    # scaled to unit diagonal first, so that what counts as zero does not depend on the outcome's units
    scale = np.sqrt(np.where(np.diag(information) > 0, np.diag(information), 1.0))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    keep = values > 1e-11 * max(float(values[-1]), 1e-300)
    Ls = L / scale
    outside = Ls @ vectors[:, ~keep]
    if not keep.any() or np.any(np.abs(outside) > 1e-7 * np.linalg.norm(Ls, axis=1, keepdims=True)):
        raise ValueError("the effect cannot be estimated from this design")
    inside = Ls @ vectors[:, keep]
    covariance = (inside / values[keep]) @ inside.T
    return Gls(information, covariance, int(keep.sum()), rows)
