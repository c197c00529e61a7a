"""Marginal models of thousands of simulated trials at once: the estimating equations of `trialkit.itt.gee` for an identity link.

Given the correlation the coefficients are a weighted least-squares fit; the correlation is the moment estimate at those coefficients.
Moments (phi over rows, alpha over pairs of rows of a cluster), what is done with a correlation that no cluster can have, and the
corrections of the sandwich are the same as there, and a test holds the two together trial by trial.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trialkit.door import InputError
from trialkit.simulation.streams import Floats

Moment = Callable[[Floats, NDArray[np.intp]], Floats]
_STEPS = 100
_DECIDED = 1e-9  # a leverage this near to 1 is 1


def correlation(moment: Moment, trials: int, largest: float) -> Floats:
    """The exchangeable correlation of every trial: moment(alpha, rows) = alpha, reached by taking turns, else by a root, else 0.

    Parameters
    ----------
    moment : function of (correlations, trials they belong to) to the moment estimates at the coefficients these correlations give
    trials : int
    largest : float
        Rows of the largest cluster; it bounds the correlation from below at -1/(largest - 1).
    """
    if largest <= 1:
        return np.zeros(trials)
    lowest = -1.0 / (largest - 1.0)
    alpha = np.zeros(trials)
    lost = np.zeros(trials, dtype=bool)
    open_ = np.arange(trials)
    for step in range(_STEPS):
        new = moment(alpha[open_], open_)
        wrong = new <= lowest * (1 - 1e-6)
        if step > 1:
            lost[open_[wrong]] = True
        new = np.where(wrong, 0.0, new)
        still = (np.abs(new - alpha[open_]) > 1e-13) & ~lost[open_]
        alpha[open_] = new
        open_ = open_[still]
        if not open_.size:
            break
    lost[open_] = True
    if lost.any():
        rows = np.flatnonzero(lost)
        alpha[rows] = _roots(moment, rows, lowest)
    return alpha


def _roots(moment: Moment, rows: NDArray[np.intp], lowest: float) -> Floats:
    """Roots of moment(alpha) - alpha, the bracket walked out from independence; 0 where there is none."""
    upward = moment(np.zeros(len(rows)), rows) > 0
    near, far = np.zeros(len(rows)), np.zeros(len(rows))
    found = np.zeros(len(rows), dtype=bool)
    for up, down in zip((0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 0.95), (0.25, 0.5, 0.75, 0.9, 0.99, 0.99, 0.99), strict=True):
        at = np.where(upward, up, lowest * down)
        changed = ~found & (((moment(at, rows) - at) > 0) != upward)
        far = np.where(changed, at, far)
        found |= changed
        near = np.where(found, near, at)
    for _ in range(60):
        middle = (near + far) / 2
        same = ((moment(middle, rows) - middle) > 0) == upward
        near, far = np.where(same, middle, near), np.where(same, far, middle)
    return np.where(found, (near + far) / 2, 0.0)


def gee(means: Floats, ssw: Floats, people: Floats, arm: NDArray[Any]) -> tuple[Floats, dict[str, Floats]]:
    """Parallel arms, from site means and sums of squares within sites.

    The arm is constant within sites, so the estimate is a weighted mean an arm, weights m/{1 + (m-1) alpha}, and the leverage of a site
    its share of them.

    Returns
    -------
    estimate (R,), standard errors by correction: LZ, KC, MD
    """
    arms = [arm == 0, arm == 1]
    N, couples = float(people.sum()), float((people * (people - 1.0) / 2.0).sum())

    def fit(alpha: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """Arm means, shares of the weights, residuals."""
        w = people / (1.0 + (people - 1.0) * alpha[:, None])
        share, centre, residual = np.empty_like(w), np.empty((len(rows), 2)), np.empty_like(w)
        for k, a in enumerate(arms):
            share[:, a] = w[:, a] / w[:, a].sum(axis=1, keepdims=True)
            centre[:, k] = (share[:, a] * means[np.ix_(rows, a)]).sum(axis=1)
            residual[:, a] = means[np.ix_(rows, a)] - centre[:, [k]]
        return centre, share, residual

    def moment(alpha: Floats, rows: NDArray[np.intp]) -> Floats:
        squares = people * fit(alpha, rows)[2] ** 2
        total = ssw[rows] + squares.sum(axis=1)
        # the sum over pairs is half of (square of the sum - sum of squares)
        found: Floats = ((people * squares).sum(axis=1) - total) / 2.0 / (couples * total / N)
        return found

    alpha = correlation(moment, len(means), float(people.max()))
    centre, share, residual = fit(alpha, np.arange(len(means)))
    score, left = (share * residual) ** 2, 1.0 - share
    errors = {"LZ": score, "KC": score / left, "MD": score / left**2}
    return centre[:, 1] - centre[:, 0], {name: np.sqrt(s.sum(axis=1)) for name, s in errors.items()}


def gee_of_cells(X: Floats, cells: NDArray[np.bool_], means: Floats) -> tuple[Floats, dict[str, Floats], float]:
    """Cell means, exchangeable over the periods of a cluster.

    Parameters
    ----------
    X : (J, T, p), the effect last
    cells : (J, T), which are seen
    means : (R, J, T), 0 where unseen

    Returns
    -------
    estimate (R,), standard errors by correction: LZ, KC, MD; df = clusters - coefficients
    """
    J, _, p = X.shape
    if p >= J:
        raise InputError(
            f"{J} clusters and {p} coefficients leave a marginal model no degrees of freedom: use more clusters, or a mixed model."
        )
    mask = cells.astype(np.float64)
    Xm = X * mask[:, :, None]
    size = mask.sum(axis=1)
    N, couples = float(size.sum()), float((size * (size - 1.0) / 2.0).sum())
    sums = Xm.sum(axis=1)
    cross = np.einsum("jtp,jtq->pq", Xm, Xm)
    products = sums[:, :, None] * sums[:, None, :]
    plain = np.einsum("jtp,rjt->rp", Xm, means)
    total = means.sum(axis=2)

    def pull(alpha: Floats) -> Floats:
        """V^-1 is I - c 1 1' up to a factor, c = alpha / {1 + (n - 1) alpha}."""
        found: Floats = alpha[:, None] / (1.0 + (size - 1.0) * alpha[:, None])
        return found

    def fit(alpha: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """Information, coefficients, residuals."""
        c = pull(alpha)
        H = cross - np.tensordot(c, products, axes=1)
        g = plain[rows] - (c * total[rows]) @ sums
        beta = np.linalg.solve(H, g[:, :, None])[:, :, 0]
        residual = (means[rows] - np.tensordot(beta, Xm, axes=([1], [2]))) * mask
        return H, beta, residual

    def moment(alpha: Floats, rows: NDArray[np.intp]) -> Floats:
        residual = fit(alpha, rows)[2]
        squares = (residual**2).sum(axis=(1, 2))
        found: Floats = ((residual.sum(axis=2) ** 2).sum(axis=1) - squares) / 2.0 / (couples * squares / N)
        return found

    alpha = correlation(moment, len(means), float(size.max()))
    H, beta, residual = fit(alpha, np.arange(len(means)))
    M, c = np.linalg.inv(H), pull(alpha)
    errors = {name: np.zeros(len(means)) for name in ("LZ", "KC", "MD")}
    for j in range(J):
        x = X[j][cells[j]]
        n = float(len(x))
        # the root of I - c 1 1' is I - k 1 1'
        k = (1.0 - np.sqrt(1.0 - c[:, j] * n)) / n
        D = x[None] - k[:, None, None] * x.sum(axis=0)
        r = residual[:, j][:, cells[j]]
        r = r - k[:, None] * r.sum(axis=1, keepdims=True)
        values, vectors = np.linalg.eigh(D @ M @ D.transpose(0, 2, 1))
        turned = np.einsum("rij,ri->rj", vectors, r)
        left = np.where(1.0 - values > _DECIDED, 1.0 - values, np.inf)
        part = np.einsum("rp,rip,rij->rj", M[:, -1], D, vectors) * turned
        errors["LZ"] += part.sum(axis=1) ** 2
        errors["KC"] += (part / np.sqrt(left)).sum(axis=1) ** 2
        errors["MD"] += (part / left).sum(axis=1) ** 2
    return beta[:, -1], {name: np.sqrt(s) for name, s in errors.items()}, float(J - p)
