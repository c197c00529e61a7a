"""Cluster-robust (sandwich) covariance with small-sample corrections, and Satterthwaite df of its own.

``V = M (sum_j X_j' W_j A_j e_j e_j' A_j' W_j X_j) M`` with working covariance Phi, ``W = Phi^-1``, ``M = (X'WX)^-1`` and A_j by kind:

* CR0: I;  CR1: sqrt(J / (J - 1)) I;  CR1S: sqrt(J (n - 1) / ((J - 1) (n - p))) I;
* CR2: ``D_j' B_j^{-1/2} D_j`` with ``Phi_j = D_j' D_j`` and ``B_j = D_j (Phi_j - X_j M X_j') D_j'``: unbiased when Phi is right;
* CR3: ``(I - X_j M X_j' W_j)^-1``: close to leaving out one cluster at a time.

Sources: Bell & McCaffrey (2002), Survey Methodology 28:169; Pustejovsky & Tipton (2018), J. Bus. Econ. Stat. 36:672.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trialkit.door import InputError, unknown_word
from trialkit.itt import random_part
from trialkit.itt.coefficient_table import coefficient_table
from trialkit.itt.mixed import MixedModel
from trialkit.results import Table

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
KINDS = ("CR0", "CR1", "CR1S", "CR2", "CR3")


@dataclass(frozen=True, slots=True)
class Sandwich:
    """Robust inference for p coefficients."""

    cov: Array  # (p, p)
    df: Array  # (p,)  Satterthwaite, one a coefficient


def sandwich(x: Array, residual: Array, clusters: Sequence[Rows], covariances: Sequence[Array], *, kind: str = "CR2") -> Sandwich:
    """Sandwich covariance of a weighted least-squares fit.

    Parameters
    ----------
    x : array (n, p)
    residual : array (n,)
        Outcome minus fitted mean, on the scale of `x`.
    clusters : sequence of array (n_j,)
        Row numbers of each independent cluster.
    covariances : sequence of array (n_j, n_j)
        Working covariance of each cluster; its scale does not matter.
    kind : {"CR0", "CR1", "CR1S", "CR2", "CR3"}

    Returns
    -------
    Sandwich
        The df are for the working covariance: 2 E^2 / Var of the variance estimator, by its quadratic forms.
    """
    if kind not in KINDS:
        raise InputError(unknown_word(str(kind), KINDS, what="kind of sandwich"))
    n, p = x.shape
    J = len(clusters)
    # clusters of one size stand side by side
    stacks = []
    sizes = np.array([len(rows) for rows in clusters])
    for size in np.unique(sizes):
        where = np.flatnonzero(sizes == size)
        rows = np.stack([clusters[j] for j in where.tolist()])  # (B, s)
        phi = np.stack([covariances[j] for j in where.tolist()])
        stacks.append((where, rows, x[rows], phi, np.asarray(np.linalg.solve(phi, x[rows]), dtype=np.float64)))
    M: Array = _inverse(sum(np.einsum("bsp,bsq->pq", X, w) for _, _, X, _, w in stacks))
    factor = {"CR1": math.sqrt(J / (J - 1)), "CR1S": math.sqrt(J * (n - 1) / ((J - 1) * (n - p)))}.get(kind, 1.0)
    scores = np.empty((J, p))
    own = np.empty((J, p))  # a_j' Phi_j a_j for each coefficient
    leverage = np.empty((J, p, p))  # X_j' a_j for each coefficient
    for where, rows, X, phi, w in stacks:
        a = factor * _adjusted(X, phi, w, M, kind) @ M  # (B, s, p): A_j' W_j X_j M
        scores[where] = np.einsum("bsp,bs->bp", a, residual[rows])
        own[where] = np.einsum("bsp,bsp->bp", a, phi @ a)
        leverage[where] = X.mT @ a
    df = np.empty(p)
    for c in range(p):
        g = leverage[:, :, c]  # (J, p)
        inner = np.einsum("jp,pq,jq->j", g, M, g)
        trace = float((own[:, c] - inner).sum())
        K = M @ (g.T @ g)
        squares = float((own[:, c] ** 2).sum() - 2 * (own[:, c] * inner).sum() + np.einsum("ij,ji->", K, K))
        df[c] = trace**2 / squares
    return Sandwich(cov=scores.T @ scores, df=df)


def _inverse(H: Any) -> Array:
    return np.asarray(np.linalg.inv(H), dtype=np.float64)


def _adjusted(X: Array, phi: Array, wx: Array, M: Array, kind: str) -> Array:
    """A_j' W_j X_j (B, s, p) of clusters of one size."""
    if kind == "CR2":
        D = np.linalg.cholesky(phi).mT
        B = D @ (phi - X @ M @ X.mT) @ D.mT
        values, vectors = np.linalg.eigh(B)
        # a direction that X_j fits exactly carries no residual: the pseudo-inverse leaves it out
        scale = np.where(values > 1e-10 * np.maximum(values[:, -1:], 1e-300), values, np.inf) ** -0.5
        return np.asarray(D.mT @ ((vectors * scale[:, None, :]) @ (vectors.mT @ (D @ wx))))
    if kind == "CR3":
        return np.asarray(np.linalg.solve((np.eye(X.shape[1]) - X @ M @ wx.mT).mT, wx))
    return wx


def robust(fit: MixedModel, *, kind: str = "CR2", conf_level: float | None = None) -> Table:
    """Cluster-robust t tests of a mixed model's fixed effects, which hold when its random part is wrong.

    Parameters
    ----------
    fit : MixedModel
    kind : {"CR2", "CR3", "CR1", "CR1S", "CR0"}
    conf_level : float, optional

    Returns
    -------
    Table
        term, estimate, std_error, df, statistic, p_value, conf_low, conf_high. Clusters are the outermost groups, which are independent.

    Raises
    ------
    InputError
        The kind is unknown, or there are fewer than three clusters.

    Examples
    --------
    >>> import pandas as pd
    >>> from trialkit.itt import fit_mixed
    >>> people = pd.DataFrame({
    ...     "y": [3.1, 2.7, 3.9, 4.2, 2.2, 2.9, 3.0, 3.6, 4.4, 4.1, 2.0, 2.6], "arm": [0] * 6 + [1] * 6, "site": list("AABBCCDDEEFF"),
    ... })
    >>> robust(fit_mixed("y ~ arm", people, groups="site")).frame["df"].round(1).tolist()
    [2.0, 4.0]
    """
    model, kernel = fit.model, fit.kernel
    outer = model.groups[0].codes
    J = len(model.groups[0].labels)
    if J < 3:
        raise InputError(f"{J} clusters are too few for a sandwich covariance.")
    order = np.argsort(outer, kind="stable")
    clusters = np.split(order, np.cumsum(np.bincount(outer, minlength=J))[:-1])
    covariances = [random_part.covariance(model, kernel, rows) for rows in clusters]
    found = sandwich(model.x, fit.residuals(conditional=False), clusters, covariances, kind=kind)
    table = coefficient_table(model.names, kernel.beta, np.sqrt(np.diagonal(found.cov)), found.df, conf_level or fit.conf_level)
    return Table(table, f"{kind} cluster-robust inference")
