"""The (restricted) likelihood and its derivatives at any variance ratios, for many data sets and many ratios at once.

With ``M = (V / sigma^2)^-1`` and ``A = (X, y)`` everything needed is: ``log|V|``, ``H = A'MA``, ``P_k = A'M G_k M A``, ``Q_kl = A'M G_k M
G_l M A`` and the traces of ``M G_k`` and ``M G_k M G_l``, where ``G_k = Z_k Z_k'``. For one random intercept these are sums over the
distinct group sizes; for two nested ones, sums over the inner groups by the Sherman-Morrison formula in each outer group. No matrix of
the size of the data appears.

The matrices are returned *whitened* by the Cholesky factor of H: in those coordinates the covariance of the fixed effects is the
identity, and every formula of Kenward, Roger and Satterthwaite is a plain product. (Searle, Casella and McCulloch 1992, chapter 6;
Kenward and Roger 1997.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from trialkit._kernels.reml_reduction import Array, IntArray, Reduced


@dataclass(frozen=True, slots=True)
class Blocks:
    """Sufficient statistics of S data sets of one shape; a leading 1 instead of S means shared."""

    within: Array  # (S, q, q)
    sizes: Array  # (S or 1, M)   one factor: distinct group sizes; two factors: size of each inner group
    counts: Array  # (S or 1, M)   groups of that size (ones with two factors)
    products: Array  # (S, M, q * q)   cross-products of the rows of each size (one factor only)
    rows: Array  # (S, M, q)   rows of the inner groups (two factors only)
    starts: IntArray  # (K,)   outer groups (two factors only)
    n: int
    p: int
    reml: bool

    @property
    def n_factors(self) -> int:
        """Number of variance ratios."""
        return 2 if self.starts.size else 1

    @property
    def n_sets(self) -> int:
        """Number of data sets."""
        return int(self.within.shape[0])

    @property
    def df(self) -> int:
        """Divisor of the residual variance: n - p for REML, n for ML."""
        return self.n - self.p if self.reml else self.n

    def take(self, index: IntArray) -> Blocks:
        """The data sets at `index` (repeats allowed)."""
        if self.n_sets == 1:
            return self

        def pick(a: Array) -> Array:
            return a if a.shape[0] == 1 else a[index]

        return Blocks(
            self.within[index],
            pick(self.sizes),
            pick(self.counts),
            pick(self.products),
            pick(self.rows),
            self.starts,
            self.n,
            self.p,
            self.reml,
        )

    def typical_size(self) -> Array:
        """(S or 1, k) size that makes ``theta * size`` a number about 1 where it matters; scales the search."""
        inner = (self.sizes * self.counts).sum(axis=1) / self.counts.sum(axis=1)
        if self.starts.size == 0:
            return np.asarray(inner[:, None])
        outer = self.sizes.sum(axis=1) / self.starts.size
        return np.stack([outer, inner], axis=1)


def stack(sets: Sequence[Reduced], *, reml: bool) -> Blocks:
    """Put data sets with the same groups beside each other."""
    first = sets[0]
    empty = np.empty((1, 0, 0))
    within = np.stack([s.within for s in sets])
    shared = all(np.array_equal(s.sizes, first.sizes) for s in sets[1:])
    if not shared:
        raise ValueError("data sets analysed together must share their groups")
    if first.starts.size:
        rows = np.stack([s.rows for s in sets])
        return Blocks(within, first.sizes[None], np.ones((1, first.sizes.size)), empty, rows, first.starts, first.n, first.p, reml)
    rows = first.rows[None] if len(sets) == 1 else np.stack([s.rows for s in sets])
    sizes, counts, products = size_classes(first.sizes, rows)
    return Blocks(within, sizes[None], counts[None], products, empty, first.starts, first.n, first.p, reml)


def size_classes(sizes: Array, rows: Array) -> tuple[Array, Array, Array]:
    """Distinct sizes (M,), their counts (M,) and the cross-products (S, M, q * q) of the rows (S, J, q) of each size."""
    S, J, q = rows.shape
    order = np.argsort(sizes, kind="stable")
    ordered = sizes[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ends = np.append(first[1:], J)
    M = first.size
    rows = rows[:, order]
    if M == J or J * q * q <= 50_000:
        products = (rows[..., :, None] * rows[..., None, :]).reshape(S, J, q * q)
        if M < J:
            products = np.add.reduceat(products, first, axis=1)
    else:
        products = np.empty((S, M, q * q))
        for k in range(M):
            part = rows[:, first[k] : ends[k]]
            products[:, k] = (part.transpose(0, 2, 1) @ part).reshape(S, q * q)
    return ordered[first], (ends - first).astype(np.float64), products


@dataclass(frozen=True, slots=True)
class State:
    """The model at given variance ratios; leading axes are data sets and ratios, k the random intercepts. Empty where not asked.

    Phi is (X'MX)^-1 and r = (-gamma, 1) / sqrt(y'Py), so that A r is the residual.
    """

    theta: Array  # (..., k)
    log_det_v: Array  # (...)
    log_det_h: Array  # (...)        log |X'MX| in the orthonormal basis
    ypy: Array  # (...)        y'Py, scaled outcome
    root: Array  # (..., q, q)  inverse Cholesky factor of H; its last row is r
    trace: Array  # (..., k)     tr(M G_k)
    P: Array  # (..., k, q, q)
    p_x: Array  # (..., k)     tr(Phi P_k)
    p_y: Array  # (..., k)     r' P_k r
    trace2: Array  # (..., k, k)  tr(M G_k M G_l)
    Q: Array  # (..., k, k, q, q)
    q_x: Array  # (..., k, k)  tr(Phi Q_kl)
    q_y: Array  # (..., k, k)  r' Q_kl r
    pp_x: Array  # (..., k, k)  tr(Phi P_k Phi P_l)
    pp_y: Array  # (..., k, k)  r' P_k Phi P_l r


def evaluate(blocks: Blocks, theta: Array, *, order: int = 2) -> State:
    """State at `theta` (S, G, k); order 0, 1 or 2 says how many derivatives will be asked."""
    if blocks.starts.size:
        return _evaluate_two(blocks, theta, order)
    return _evaluate_one(blocks, theta, order)


def _evaluate_one(b: Blocks, theta: Array, order: int) -> State:
    S, G, _ = theta.shape
    q = b.p + 1
    m = b.sizes[:, None, :]
    c = b.counts[:, None, :]
    one_plus = 1.0 + theta * m  # (S, G, M)
    d = 1.0 / one_plus
    md = m * d
    weights = np.empty((S, order + 1, G, m.shape[-1]))
    weights[:, 0] = d
    if order:
        np.multiply(md, d, out=weights[:, 1])
    if order > 1:
        np.multiply(md, weights[:, 1], out=weights[:, 2])
    sums = (weights.reshape(S, -1, m.shape[-1]) @ b.products).reshape(S, order + 1, G, q, q)
    cmd = c * md
    return _contract(
        theta,
        (c * np.log(one_plus)).sum(axis=-1),
        sums[:, 0] + b.within[:, None],
        cmd.sum(axis=-1)[..., None] if order else _NONE,
        sums[:, 1][:, :, None] if order else _NONE,
        (cmd * md).sum(axis=-1)[..., None, None] if order > 1 else _NONE,
        sums[:, 2][:, :, None, None] if order > 1 else _NONE,
        order,
    )


def _evaluate_two(b: Blocks, theta: Array, order: int) -> State:
    outer, inner = theta[..., 0, None], theta[..., 1, None]  # (S, G, 1)
    a = b.sizes[:, None, :]  # (S, 1, J)
    starts = b.starts
    lengths = np.diff(np.append(starts, a.shape[-1]))
    one_plus = 1.0 + inner * a
    d = 1.0 / one_plus
    u = a * d
    alpha = np.add.reduceat(u, starts, axis=-1)  # (S, G, K)
    h = 1.0 / (1.0 + outer * alpha)
    c = outer * h
    log_det_v = np.log(one_plus).sum(axis=-1) - np.log(h).sum(axis=-1)
    root_a = np.sqrt(a)
    R = b.rows[:, None]  # (S, 1, J, q)
    dR = d[..., None] * R
    tau = np.add.reduceat((root_a * d)[..., None] * R, starts, axis=-2)  # (S, G, K, q)
    ctau = c[..., None] * tau
    H = b.within[:, None] + R.mT @ dR - tau.mT @ ctau
    trace = trace2 = P = Q = _NONE
    lead, q = H.shape[:-2], H.shape[-1]
    if order:
        Fp = h[..., None] * tau
        Fs = root_a[..., None] * dR - u[..., None] * np.repeat(ctau, lengths, axis=-2)
        P = np.empty((*lead, 2, q, q))
        np.matmul(Fp.mT, Fp, out=P[..., 0, :, :])
        np.matmul(Fs.mT, Fs, out=P[..., 1, :, :])
        u2 = np.add.reduceat(u * u, starts, axis=-1)
        ah, cu2 = alpha * h, c * u2
        trace = np.empty((*lead, 2))
        trace[..., 0] = ah.sum(axis=-1)
        trace[..., 1] = u.sum(axis=-1) - cu2.sum(axis=-1)
    if order > 1:
        uFs = u[..., None] * Fs
        Ts = np.add.reduceat(uFs, starts, axis=-2)
        Q, trace2 = np.empty((*lead, 2, 2, q, q)), np.empty((*lead, 2, 2))
        np.matmul(Fp.mT, ah[..., None] * Fp, out=Q[..., 0, 0, :, :])
        np.matmul(Fp.mT, h[..., None] * Ts, out=Q[..., 0, 1, :, :])
        Q[..., 1, 0, :, :] = Q[..., 0, 1, :, :].mT
        np.subtract(Fs.mT @ uFs, Ts.mT @ (c[..., None] * Ts), out=Q[..., 1, 1, :, :])
        u3 = np.add.reduceat(u * u * u, starts, axis=-1)
        trace2[..., 0, 0] = (ah * ah).sum(axis=-1)
        trace2[..., 0, 1] = trace2[..., 1, 0] = (h * h * u2).sum(axis=-1)
        trace2[..., 1, 1] = (u2 - 2.0 * c * u3 + cu2 * cu2).sum(axis=-1)
    return _contract(theta, log_det_v, H, trace, P, trace2, Q, order)


def grid_of_two(b: Blocks, outer: Array, inner: Array) -> Array:
    """Criterion (S, A, B) on the grid of ratios outer (S, A) by inner (S, B); what hangs on the inner ratio alone is done once."""
    a, starts = b.sizes[:, None, :], b.starts
    one_plus = 1.0 + inner[..., None] * a  # (S, B, J)
    d = 1.0 / one_plus
    alpha = np.add.reduceat(a * d, starts, axis=-1)  # (S, B, K)
    R = b.rows[:, None]
    tau = np.add.reduceat((np.sqrt(a) * d)[..., None] * R, starts, axis=-2)  # (S, B, K, q)
    plain = b.within[:, None] + R.mT @ (d[..., None] * R)  # (S, B, q, q)
    h = 1.0 / (1.0 + outer[:, :, None, None] * alpha[:, None])  # (S, A, B, K)
    H = plain[:, None] - (tau.mT[:, None] * (outer[:, :, None, None] * h)[..., None, :]) @ tau[:, None]
    diagonal = np.diagonal(np.linalg.cholesky(H), axis1=-2, axis2=-1)
    log_det = np.log(one_plus).sum(axis=-1)[:, None] - np.log(h).sum(axis=-1)
    N = b.n - b.p if b.reml else b.n
    value = log_det + 2.0 * N * np.log(diagonal[..., -1])
    return np.asarray(value + 2.0 * np.log(diagonal[..., :-1]).sum(axis=-1) if b.reml else value)


_NONE = np.empty(0)


def _inverse_root(H: Array) -> tuple[Array, Array]:
    """Inverse of the lower Cholesky factor of H (..., q, q), and the factor's diagonal (..., q)."""
    q = H.shape[-1]
    if H.size == q * q:  # one matrix: straight to LAPACK, a third of the time
        factor, failed = lapack.dpotrf(H.reshape(q, q), lower=1, clean=1)
        if failed:
            raise np.linalg.LinAlgError("the cross-products are not positive definite")
        inverse, _ = lapack.dtrtri(factor, lower=1)
        return np.ascontiguousarray(inverse).reshape(H.shape), factor.diagonal().reshape(H.shape[:-1])
    L = np.linalg.cholesky(H)
    return np.linalg.inv(L), np.diagonal(L, axis1=-2, axis2=-1)


def _contract(theta: Array, log_det_v: Array, H: Array, trace: Array, P: Array, trace2: Array, Q: Array, order: int) -> State:
    root, diagonal = _inverse_root(H)
    log_det_h = 2.0 * np.log(diagonal[..., :-1]).sum(axis=-1)
    ypy = diagonal[..., -1] ** 2
    p_x = p_y = q_x = q_y = pp_x = pp_y = _NONE
    if order:
        q = H.shape[-1]
        lead = H.shape[:-2]
        x, r = root[..., :-1, :], root[..., -1:, :]
        pair = np.empty((*lead, 2, q, q))  # contraction with Phi and with r r'
        np.matmul(x.mT, x, out=pair[..., 0, :, :])
        np.matmul(r.mT, r, out=pair[..., 1, :, :])
        columns = pair.reshape(*lead, 2, q * q).mT
        k = theta.shape[-1]
        contracted = P.reshape(*lead, k, q * q) @ columns
        p_x, p_y = contracted[..., 0], contracted[..., 1]
        if order > 1:
            contracted = (Q.reshape(*lead, k * k, q * q) @ columns).reshape(*lead, k, k, 2)
            q_x, q_y = contracted[..., 0], contracted[..., 1]
            half = root[..., None, :, :] @ P
            white = half @ root.mT[..., None, :, :]
            last = white[..., -1, :-1]
            flat = white.reshape(*lead, k, q * q)
            pp_y = last @ last.mT
            pp_x = flat @ flat.mT - 2.0 * pp_y - p_y[..., :, None] * p_y[..., None, :]
    return State(theta, log_det_v, log_det_h, ypy, root, trace, P, p_x, p_y, trace2, Q, q_x, q_y, pp_x, pp_y)


def criterion(state: State, *, n: int, p: int, reml: bool) -> Array:
    """-2 log-likelihood with the residual variance profiled out, up to the constants added by `constant`."""
    if reml:
        return np.asarray(state.log_det_v + state.log_det_h + (n - p) * np.log(state.ypy))
    return np.asarray(state.log_det_v + n * np.log(state.ypy))


def constant(*, n: int, p: int, reml: bool, log_scale: float, log_det_basis: float, log_weights: float) -> float:
    """What `criterion` leaves out of lme4's -2 log-likelihood (which keeps N log 2 pi and log |X'V^-1X|)."""
    N = n - p if reml else n
    fixed = N * (1.0 + np.log(2.0 * np.pi / N) + 2.0 * log_scale) - log_weights
    return float(fixed + (2.0 * log_det_basis if reml else 0.0))


def gradient(state: State, *, n: int, p: int, reml: bool) -> tuple[Array, Array]:
    """Derivative of `criterion` in theta (..., k), and the size of the terms it is the difference of (its rounding level)."""
    explained = (n - p if reml else n) * state.p_y
    value = state.trace - explained - state.p_x if reml else state.trace - explained
    return value, state.trace + explained


def hessian(state: State, *, n: int, p: int, reml: bool) -> tuple[Array, Array]:
    """Second derivatives of `criterion` in theta (..., k, k): observed, and expected (for steps where the observed are not positive)."""
    N = n - p if reml else n
    expected = state.trace2 - 2.0 * state.q_x + state.pp_x if reml else state.trace2
    traces = state.trace - state.p_x if reml else state.trace
    observed = N * (2.0 * (state.q_y - state.pp_y) - state.p_y[..., :, None] * state.p_y[..., None, :]) - expected
    return observed, expected - traces[..., :, None] * traces[..., None, :] / N


@dataclass(frozen=True, slots=True)
class Components:
    """All c variance components, the residual last, at one theta and residual variance 1; P and Q of X only, whitened by the root of H."""

    P: Array  # (c, p, p)
    Q: Array  # (c, c, p, p)
    expected: Array  # (c, c)  tr(P G_i P G_j), or tr(M G_i M G_j) for ML: twice the expected information
    observed: Array  # (c, c)  twice the observed information


def components(state: State, n: int, *, reml: bool) -> Components:
    """Components from the state of one data set at one theta, made with order 2.

    The residual's matrices follow from sum_k theta_k M G_k + M = identity; nothing new is computed from data.
    """
    index = (0,) * (state.theta.ndim - 1)
    theta, root = state.theta[index], state.root[index]
    k, q = theta.size, root.shape[-1]
    c, p = k + 1, q - 1
    P, Q, trace2 = np.empty((c, q, q)), np.empty((c, c, q, q)), np.empty((c, c))
    np.matmul(root @ state.P[index], root.T, out=P[:k])
    np.matmul(root @ state.Q[index], root.T, out=Q[:k, :k])
    trace, trace2[:k, :k] = state.trace[index], state.trace2[index]
    P[k] = np.eye(q) - (theta @ P[:k].reshape(k, -1)).reshape(q, q)
    trace2[k, :k] = trace2[:k, k] = trace - trace2[:k, :k] @ theta
    trace2[k, k] = n - theta @ trace - trace2[k, :k] @ theta
    Q[:k, k] = P[:k]
    for j in range(k):
        Q[:k, k] -= theta[j] * Q[:k, j]
    Q[k, :k] = np.swapaxes(Q[:k, k], -1, -2)
    Q[k, k] = P[k]
    for j in range(k):
        Q[k, k] -= theta[j] * Q[k, j]
    Pxx, Pxy = P[:, :p, :p], P[:, :p, p]
    flat = Pxx.reshape(c, p * p)
    expected = trace2 - 2.0 * np.einsum("klii->kl", Q[:, :, :p, :p]) + flat @ flat.T if reml else trace2
    # y'P G_k P G_l P y / sigma^2: in whitened coordinates y'Py is 1 and sigma^2 is 1 / N
    observed = 2.0 * (n - p if reml else n) * (Q[:, :, p, p] - Pxy @ Pxy.T) - expected
    return Components(Pxx, Q[:, :, :p, :p], expected, observed)
