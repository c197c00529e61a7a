"""Repeated measures of people in sites: the two-level multivariate normal drawn given complete data, and reference-based means.

    y_i = B'x_i + u_j + e_i,   u_j ~ N(0, Psi),   e_i ~ N(0, Sigma)        y_i: T visits; x_i: p columns

`draw` gives one posterior draw of (B, Sigma, Psi) for each of m completed data sets, by a Gibbs sampler on their sufficient statistics
(no row is touched after the first pass). Priors: B flat; Sigma |Sigma|^-(T+1)/2; Psi of Huang & Wand (2013), half-t(2) standard
deviations, whose scale is set in standard deviations of each visit, so that units do not matter.

`shift` gives what a reference-based assumption adds to a missing visit that was imputed under missing at random. Conditional on B and
Sigma, jump to reference, copy increments and copy reference (Carpenter, Roger & Kenward 2013, J. Biopharm. Stat. 23:1352-1371) with one
covariance for both arms change the mean of the missing visits given the observed ones, never their covariance; the site's effect,
carried as it is, is the same on both sides. So the difference of the conditional means, added to the value drawn at random, is a draw
under the assumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]
Strategy = Literal["jump-to-reference", "copy-increments", "copy-reference", "last-mean-carried-forward"]

_NU = 2.0  # half-t degrees of freedom: marginally uniform correlations
_SCALE = 2.5  # of the half-t, in SDs of a visit


@dataclass(frozen=True, slots=True)
class RepeatedDraws:
    """One draw a completed set, in the outcome's units."""

    coefficients: Array  # (m, p, T)
    within: Array  # (m, T, T)  Sigma
    between: Array  # (m, T, T)  Psi


def draw(Y: Array, X: Array, site: Ints, free: Bools, generators: Sequence[np.random.Generator], *, iterations: int = 200) -> RepeatedDraws:
    """Draw the parameters of m completed data sets.

    Parameters
    ----------
    Y : (m, n, T) completed visits
    X : (m, n, p) columns of the mean, of full rank
    site : (n,) ascending codes 0..J-1
    free : (p, T) which coefficients there are; the others are 0 (an arm has no effect on its baseline)
    generators : m random generators, one a set
    iterations : Gibbs steps from least-squares estimates

    Raises
    ------
    ValueError : a visit does not vary, or X is short of rank
    """
    m, n, T = Y.shape
    p = X.shape[2]
    if n <= p + T:
        raise ValueError(f"{n} rows are too few for {p} columns and {T} visits")
    centre = Y.mean(axis=1, keepdims=True)
    spread = Y.std(axis=1, ddof=1, keepdims=True)
    if not (spread > 0).all():
        raise ValueError("a visit does not vary")
    Z = (Y - centre) / spread
    start = np.flatnonzero(np.diff(site, prepend=-1))
    size = np.diff(np.append(start, n)).astype(np.float64)
    J = len(start)
    sizes, of_size = np.unique(size, return_inverse=True)  # sites of one size share their covariance
    Sx, Sy = np.add.reduceat(X, start, axis=1), np.add.reduceat(Z, start, axis=1)  # (m, J, p), (m, J, T)
    Xt = X.transpose(0, 2, 1)
    XX, XY, YY = Xt @ X, Xt @ Z, Z.transpose(0, 2, 1) @ Z
    keep = np.flatnonzero(free.T.ravel())  # places in vec(B), visit by visit
    try:
        np.linalg.cholesky(XX)
        B = np.linalg.solve(XX, XY) * free
    except np.linalg.LinAlgError:
        raise ValueError("the columns of the mean are linearly dependent") from None
    sigma = (YY - B.transpose(0, 2, 1) @ XY) / n
    sigma = 0.5 * (sigma + sigma.transpose(0, 2, 1))
    psi = 0.1 * np.eye(T) * np.trace(sigma, axis1=1, axis2=2)[:, None, None] / T
    psi = np.broadcast_to(psi, sigma.shape).copy()
    chi_sigma, chi_psi = n - np.arange(T, dtype=float), J + _NU + T - 1 - np.arange(T, dtype=float)
    many = len(keep) + J * T + T * (T - 1)
    for _ in range(iterations):
        normal = np.stack([g.standard_normal(many) for g in generators])
        chis = np.stack([np.concatenate([g.chisquare(chi_sigma), g.chisquare(chi_psi)]) for g in generators])
        gammas = np.stack([g.standard_gamma(np.full(T, (_NU + T) / 2)) for g in generators])
        zb, zu, low = np.split(normal, [len(keep), len(keep) + J * T], axis=1)
        precision = np.linalg.inv(sigma)
        # u | B: each site by its own number of people
        residual = Sy - Sx @ B
        V = np.linalg.inv(np.linalg.inv(psi)[:, None] + sizes[:, None, None] * precision[:, None])
        V = 0.5 * (V + V.transpose(0, 1, 3, 2))
        u = np.einsum("mjst,mjt->mjs", V[:, of_size], residual @ precision)
        u += np.einsum("mjst,mjt->mjs", np.linalg.cholesky(V)[:, of_size], zu.reshape(m, J, T))
        # B | u: generalised least squares over the free coefficients
        XYu = XY - Sx.transpose(0, 2, 1) @ u
        H = np.einsum("mst,mpq->msptq", precision, XX).reshape(m, T * p, T * p)[:, keep[:, None], keep]
        right = (XYu @ precision).transpose(0, 2, 1).reshape(m, T * p)[:, keep]
        factor = np.linalg.cholesky(H)
        half = np.linalg.solve(factor, right[..., None])[..., 0] + zb
        b = np.zeros((m, T * p))
        b[:, keep] = np.linalg.solve(factor.transpose(0, 2, 1), half[..., None])[..., 0]
        B = b.reshape(m, T, p).transpose(0, 2, 1)
        # Psi | u by the two steps of Huang and Wand
        rate = _NU * np.diagonal(np.linalg.inv(psi), axis1=1, axis2=2) + 1 / _SCALE**2
        a = rate / gammas
        lower = np.zeros((m, 2, T, T))
        below = np.tril_indices(T, -1)
        lower[:, :, below[0], below[1]] = low.reshape(m, 2, len(below[0]))
        lower[:, :, np.arange(T), np.arange(T)] = np.sqrt(chis).reshape(m, 2, T)
        psi = _inverse_wishart(u.transpose(0, 2, 1) @ u + 2 * _NU * np.eye(T) / a[:, None, :], lower[:, 1])
        # Sigma | B, u from the residual cross-products
        cross = (Sy - Sx @ B).transpose(0, 2, 1) @ u
        BXY = B.transpose(0, 2, 1) @ XY
        S = YY - BXY - BXY.transpose(0, 2, 1) + B.transpose(0, 2, 1) @ XX @ B - cross - cross.transpose(0, 2, 1)
        S = S + (u * size[:, None]).transpose(0, 2, 1) @ u
        sigma = _inverse_wishart(0.5 * (S + S.transpose(0, 2, 1)), lower[:, 0])
    s = spread[:, 0]
    B = B * s[:, None, :]
    both = s[:, :, None] * s[:, None, :]
    # the first column is the constant
    B[:, 0] += centre[:, 0]
    return RepeatedDraws(B, sigma * both, psi * both)


def _inverse_wishart(scale: Array, lower: Array) -> Array:
    """Inverse-Wishart draws (m, T, T) from Bartlett's lower triangles: Sigma^-1 = C^-T A A' C^-1 with scale = C C'."""
    factor = np.linalg.cholesky(scale)
    root = np.linalg.solve(lower, factor.transpose(0, 2, 1))
    return np.asarray(root.transpose(0, 2, 1) @ root)


def shift(strategy: Strategy, own: Array, reference: Array, within: Array, seen: Bools, *, always: int = 0) -> Array:
    """What an assumption adds to each visit imputed at random, for people with one pattern of visits.

    Parameters
    ----------
    strategy : what happens to the mean after the last visit seen
    own, reference : (m, n, T) means of these people in their own arm and had they been in the reference arm
    within : (m, T, T)
    seen : (T,) which visits were seen, all of them before the first that is to move
    always : visits at the start that the arm cannot have touched (a baseline), counted as seen

    Returns
    -------
    (m, n, T), 0 at visits up to the last seen one
    """
    T = len(seen)
    seen = seen | (np.arange(T) < always)
    last = int(np.flatnonzero(seen)[-1]) if seen.any() else -1
    out = np.zeros(np.broadcast_shapes(own.shape, reference.shape))
    moved = slice(last + 1, T)
    gap = reference - own
    if strategy == "jump-to-reference" or (strategy == "copy-increments" and last < 0):
        out[..., moved] = gap[..., moved]
    elif strategy == "copy-increments":
        out[..., moved] = gap[..., moved] - gap[..., last : last + 1]
    elif strategy == "copy-reference":
        out[..., moved] = gap[..., moved]
        at = np.flatnonzero(seen)
        if len(at):
            slope = np.linalg.solve(within[:, at[:, None], at], within[:, at, moved])  # (m, O, M)
            out[..., moved] -= gap[..., at] @ slope
    elif last >= 0:  # the last mean carried forward; nothing to carry where nothing was seen
        out[..., moved] = own[..., last : last + 1] - own[..., moved]
    return out
