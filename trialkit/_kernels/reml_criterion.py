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
    if M == J:
        products = (rows[..., :, None] * rows[..., None, :]).reshape(S, M, q * q)
    else:
        products = np.empty((S, M, q * q))
        for k in range(M):
            part = rows[:, first[k] : ends[k]]
            products[:, k] = (part.transpose(0, 2, 1) @ part).reshape(S, q * q)
    return ordered[first], (ends - first).astype(np.float64), products


@dataclass(frozen=True, slots=True)
class State:
    """The model at given variance ratios; leading axes are data sets and ratios. G_k for the k random intercepts only (see
    `with_residual`)."""

    theta: Array  # (..., k)
    log_det_v: Array  # (...)
    log_det_h: Array  # (...)        log |X' M X| in the orthonormal basis
    ypy: Array  # (...)        y'Py, scaled outcome
    root: Array  # (..., q, q)  inverse Cholesky factor of H; its last row is (-gamma, 1) / sqrt(ypy)
    trace: Array  # (..., k)     tr(M G_k)
    P: Array  # (..., k, q, q)   whitened
    trace2: Array  # (..., k, k)      tr(M G_k M G_l)
    Q: Array  # (..., k, k, q, q) whitened


def at(state: State, index: tuple[int, ...]) -> State:
    """One data set and ratio of a full (order 2) state."""
    parts = (getattr(state, name)[index] for name in ("theta", "log_det_v", "log_det_h", "ypy", "root", "trace", "P", "trace2", "Q"))
    return State(*parts)


def evaluate(blocks: Blocks, theta: Array, *, order: int = 2) -> State:
    """State at `theta` (S, G, k); order 0, 1 or 2 says which derivatives will be asked."""
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
    weights = [d] if order == 0 else [d, md * d] if order == 1 else [d, md * d, md * md * d]
    stacked = np.concatenate(weights, axis=1) @ b.products  # (S, (order + 1) G, q * q)
    sums = stacked.reshape(S, order + 1, G, q, q)
    H = sums[:, 0] + b.within[:, None]
    log_det_v = (c * np.log(one_plus)).sum(axis=-1)
    trace = (c * md).sum(axis=-1)[..., None] if order else _NONE
    trace2 = (c * md * md).sum(axis=-1)[..., None, None] if order > 1 else _NONE
    P = sums[:, 1][:, :, None] if order else _NONE
    Q = sums[:, 2][:, :, None, None] if order > 1 else _NONE
    return _whiten(theta, log_det_v, H, trace, P, trace2, Q, order)


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
    H = b.within[:, None] + _t(R) @ dR - _t(tau) @ ctau
    trace = trace2 = P = Q = _NONE
    if order:
        Fp = h[..., None] * tau
        Fs = root_a[..., None] * dR - u[..., None] * np.repeat(ctau, lengths, axis=-2)
        P = np.stack([_t(Fp) @ Fp, _t(Fs) @ Fs], axis=-3)
        u2 = np.add.reduceat(u * u, starts, axis=-1)
        trace = np.stack([(alpha * h).sum(axis=-1), u.sum(axis=-1) - (c * u2).sum(axis=-1)], axis=-1)
    if order > 1:
        uFs = u[..., None] * Fs
        Ts = np.add.reduceat(uFs, starts, axis=-2)
        Qpp = _t(Fp) @ ((alpha * h)[..., None] * Fp)
        Qps = _t(Fp) @ (h[..., None] * Ts)
        Qss = _t(Fs) @ uFs - _t(Ts) @ (c[..., None] * Ts)
        Q = np.stack([np.stack([Qpp, Qps], axis=-3), np.stack([_t(Qps), Qss], axis=-3)], axis=-4)
        u3 = np.add.reduceat(u * u * u, starts, axis=-1)
        tpp = ((alpha * h) ** 2).sum(axis=-1)
        tps = (h * h * u2).sum(axis=-1)
        tss = (u2 - 2.0 * c * u3 + (c * u2) ** 2).sum(axis=-1)
        trace2 = np.stack([np.stack([tpp, tps], axis=-1), np.stack([tps, tss], axis=-1)], axis=-2)
    return _whiten(theta, log_det_v, H, trace, P, trace2, Q, order)


_NONE = np.empty(0)


def _t(a: Array) -> Array:
    return np.swapaxes(a, -1, -2)


def _whiten(theta: Array, log_det_v: Array, H: Array, trace: Array, P: Array, trace2: Array, Q: Array, order: int) -> State:
    L = np.linalg.cholesky(H)
    diagonal = np.diagonal(L, axis1=-2, axis2=-1)
    log_det_h = 2.0 * np.log(diagonal[..., :-1]).sum(axis=-1)
    ypy = diagonal[..., -1] ** 2
    root = np.linalg.inv(L)
    if order:
        wide = root[..., None, :, :]
        P = wide @ P @ _t(wide)
    if order > 1:
        wide = wide[..., None, :, :]
        Q = wide @ Q @ _t(wide)
    return State(theta, log_det_v, log_det_h, ypy, root, trace, P, trace2, Q)


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
    traces = state.trace - np.einsum("...ii->...", state.P[..., :p, :p]) if reml else state.trace
    N = n - p if reml else n
    explained = N * state.P[..., p, p]
    return traces - explained, np.abs(state.trace) + np.abs(explained)


def hessian(state: State, *, n: int, p: int, reml: bool) -> tuple[Array, Array]:
    """Second derivatives of `criterion` in theta (..., k, k): observed, and expected (for steps where the observed are not positive)."""
    Pxx = state.P[..., :p, :p]
    Pxy = state.P[..., :p, p]
    pyy = state.P[..., p, p]
    expected = _projected_trace2(state, p) if reml else state.trace2
    N = n - p if reml else n
    quadratic = state.Q[..., p, p] - np.einsum("...ki,...li->...kl", Pxy, Pxy)
    observed = -expected + 2.0 * N * quadratic - N * pyy[..., :, None] * pyy[..., None, :]
    traces = state.trace - np.einsum("...ii->...", Pxx) if reml else state.trace
    profiled = expected - traces[..., :, None] * traces[..., None, :] / N
    return observed, profiled


def _projected_trace2(state: State, p: int) -> Array:
    """tr(P G_k P G_l) for the projected P = M - M X (X'MX)^-1 X'M."""
    Pxx = state.P[..., :p, :p]
    return np.asarray(state.trace2 - 2.0 * np.einsum("...ii->...", state.Q[..., :p, :p]) + np.einsum("...kij,...lij->...kl", Pxx, Pxx))


@dataclass(frozen=True, slots=True)
class Components:
    """All variance components, the residual last (k + 1), at one theta and with residual variance 1; whitened coordinates."""

    trace: Array  # (k + 1,)
    trace2: Array  # (k + 1, k + 1)
    P: Array  # (k + 1, q, q)
    Q: Array  # (k + 1, k + 1, q, q)


def with_residual(state: State, n: int) -> Components:
    """Add the residual component by the identity sum_k theta_k M G_k + M = identity: no further matrices are needed.

    `state` is that of one data set at one theta (no leading axes).
    """
    theta = state.theta
    k, q = theta.size, state.root.shape[-1]
    trace, trace2 = np.empty(k + 1), np.empty((k + 1, k + 1))
    P, Q = np.empty((k + 1, q, q)), np.empty((k + 1, k + 1, q, q))
    trace[:k], trace2[:k, :k], P[:k], Q[:k, :k] = state.trace, state.trace2, state.P, state.Q
    trace[k] = n - theta @ trace[:k]
    P[k] = np.eye(q) - np.tensordot(theta, P[:k], 1)
    trace2[k, :k] = trace2[:k, k] = trace[:k] - trace2[:k, :k] @ theta
    trace2[k, k] = trace[k] - trace2[k, :k] @ theta
    Q[:k, k] = P[:k] - np.tensordot(theta, Q[:k, :k], (0, 1))
    Q[k, :k] = np.swapaxes(Q[:k, k], -1, -2)
    Q[k, k] = P[k] - np.tensordot(theta, Q[k, :k], 1)
    return Components(trace, trace2, P, Q)
