"""One design, thousands of outcomes: REML with Kenward-Roger and Satterthwaite inference for all of them together.

With one grouping factor the restricted likelihood depends on the outcome only through its coordinates on the eigenvectors of
``(I - P_X) Z Z' (I - P_X)``; those are found once (from group sums, never from rows), and every response is then a few sums over the
eigenvalues xi: ``sum log(1 + theta xi) + N log(rest + sum eta^2 / (1 + theta xi))``. Groups of one size share their eigenvalue, so 100,000
sites cost no more than their distinct sizes. The results are those of :func:`trialkit._kernels.reml_fit.fit` to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels import reml_reduction as reduction
from trialkit._kernels.reml_fit import fit_sets
from trialkit._kernels.reml_reduction import STATUS, Array, IntArray
from trialkit._kernels.small_sample import kenward_roger, satterthwaite

BoolArray = NDArray[np.bool_]

_SCAN = np.concatenate(([0.0], np.geomspace(0.01, 300.0, 15), [3e3, 1e5, 1e8, 1e11]))
_MAX_STEPS = 100


@dataclass(frozen=True, slots=True)
class ManyInference:
    """r contrasts of R fits. NaN marks a response whose status forbids inference."""

    estimate: Array  # (R, r)
    std_error: Array  # (R, r)
    df: Array  # (R, r)


@dataclass(frozen=True, slots=True)
class ManyFits:
    """R responses fitted by REML to one design with k grouping factors and p fixed effects."""

    beta: Array  # (R, p)
    theta: Array  # (R, k)  variance ratios, outermost factor first
    sigma2: Array  # (R,)    residual variances
    log_likelihood: Array  # (R,)    restricted, lme4's constants
    boundary: BoolArray  # (R, k)  variance at zero
    status: NDArray[np.str_]  # (R,)    keys of STATUS
    kenward_roger: ManyInference
    satterthwaite: ManyInference


@dataclass(frozen=True, slots=True)
class _Spectrum:
    """What one design leaves of the data: eigenvalues, and how group sums become coordinates."""

    xi: Array  # (E,)     distinct directions; those with xi = 0 left out
    multiplicity: Array  # (E,)
    turn: Array  # (J', E')  coordinates from the (compressed) group rows
    compress: tuple[tuple[IntArray, Array | None], ...]  # per group size: the groups, and an orthonormal set of directions X reaches
    sizes: Array  # (K,)     distinct sizes
    products: Array  # (K, p * p)  cross-products of the rows of X by size
    within: Array  # (p, p)

    def coordinates(self, rows: Array) -> Array:
        """Squared coordinates eta^2 (R, E) of the responses whose group rows (R, J) are given (residuals from X)."""
        parts, left = [], []
        for groups, directions in self.compress:
            y = rows[:, groups]
            if directions is None:
                parts.append(y)
            else:
                inside = y @ directions
                parts.append(inside)
                outside = y - inside @ directions.T
                left.append((outside * outside).sum(axis=1))
        eta = np.concatenate(parts, axis=1) @ self.turn
        squares = eta * eta
        return np.column_stack([squares, *left]) if left else squares


def fit_many(
    X: Array,
    Y: Array,
    groups: Sequence[NDArray[Any]],
    *,
    contrasts: Array | None = None,
    weights: Array | None = None,
    beyond: Array | None = None,
) -> ManyFits:
    """REML fits of many responses to one design, with small-sample inference for the given contrasts.

    Parameters
    ----------
    X : (n, p) fixed-effects matrix of full column rank
    Y : (n, R) responses
    groups : one or two (n,) arrays of integer codes, outermost first. With two factors each response is searched by itself.
    contrasts : (r, p) for which inference is wanted; all p coefficients when None
    weights : (n,) positive weights
    beyond : (R,) where each row is the mean of `weights` people with the same row of X: their sums of squares about these means. The
        fits are then those of the people. One grouping factor.

    Returns
    -------
    ManyFits
        A response that cannot be analysed (constant, reproduced exactly by X, no variation within groups) keeps its row, with its status.

    Raises
    ------
    ValueError : the design, whatever the response, does not identify the variances (other than groups of one, which give least squares)

    Examples
    --------
    >>> import numpy as np
    >>> site = np.repeat(np.arange(6), 2)
    >>> X = np.column_stack([np.ones(12), site >= 3]).astype(float)
    >>> y = np.array([1.0, 2, 2, 3, 5, 6, 1, 2, 4, 4, 7, 8])
    >>> many = fit_many(X, np.column_stack([y, 10 * y]), [site], contrasts=np.array([[0.0, 1.0]]))
    >>> many.theta[:, 0].round(6), many.kenward_roger.df[:, 0].round(6)
    (array([15.6, 15.6]), array([4., 4.]))
    """
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    if Y.ndim != 2:
        raise ValueError(f"Y must be (n, R), one column a response; got {Y.shape}")
    n, p = reduction.check(X, Y, groups)
    L = _contrasts(contrasts, p)
    if beyond is not None and (weights is None or len(groups) != 1):
        raise ValueError("sums of squares about the rows go with weights, the people a row, and one grouping factor")
    if len(groups) == 2:
        return _one_by_one(X, Y, groups, L, weights)
    root, log_weights = reduction.root_weights(weights, n)
    codes, levels, _ = reduction.nested_codes(groups)
    basis = reduction.orthonormal_basis(X, root)
    outcome, shift, flat = basis.centre(Y)
    if root is not None:
        outcome = outcome * root[:, None]
    gamma = basis.Q.T @ outcome
    residual = outcome - basis.Q @ gamma
    gamma += basis.Q.T @ residual
    residual -= basis.Q @ (basis.Q.T @ residual)
    total = np.einsum("ij,ij->j", residual, residual)
    exact = total <= 1e-22 * np.einsum("ij,ij->j", outcome, outcome)

    if beyond is not None and weights is not None:
        total = total + np.asarray(beyond, dtype=np.float64)
        n = int(np.sum(weights))

    J = levels[0].size
    within, rows, sizes = reduction.group_sums(np.asfortranarray(np.column_stack([basis.Q, residual])), codes, J, root, cross=p)
    design = reduction.identification(within[:p, :p], rows[:, :p], sizes, np.empty(0, dtype=np.intp), n, p) if n > p else "saturated"
    if design not in ("ok", "singletons"):
        raise ValueError(STATUS[design])
    status = np.full(Y.shape[1], design, dtype=object)
    status[exact], status[flat] = "exact_fit", "constant_outcome"
    span = np.abs(outcome).max(axis=0)  # squares of anything beyond this are no ordinary doubles
    beyond = ~flat & ((span < reduction.RANGE[0]) | (span > reduction.RANGE[1]))
    status[beyond] = "out_of_range"
    usable = ~(exact | flat | beyond)

    R_y = rows[:, p:].T
    scale = np.where(usable, np.sqrt(total), 1.0)
    beta_offset = (basis.inverse @ gamma).T
    if basis.constant is not None:
        beta_offset[:, basis.constant] += shift / basis.value
    problem = _Problem(
        n=n,
        p=p,
        rows=rows[:, :p],
        sizes=sizes,
        within=within[:p, :p],
        rows_y=R_y / scale[:, None],
        rest=None,
        scale=scale,
        offset=beta_offset,
        inverse=basis.inverse,
        constant=2.0 * basis.log_det - log_weights,
        status=status,
    )
    return _solve(problem, L, singletons=design == "singletons")


def fit_cluster_summaries(means: Array, sizes: Array, ssw: Array, X: Array, *, contrasts: Array | None = None) -> ManyFits:
    """REML fits from group means and within-group sums of squares alone, for covariates that do not vary within groups.

    The route for simulation of power: a trial of any size is J means and one sum of squares.

    Parameters
    ----------
    means : (R, J) group means of the outcome, one row a trial
    sizes : (J,) persons in each group, the same in every trial
    ssw : (R,) sums of squares about the group means
    X : (J, p) fixed-effects matrix by group (a constant, the arm, group-level covariates)
    contrasts : (r, p); all coefficients when None

    Examples
    --------
    >>> import numpy as np
    >>> means = np.array([[1.5, 2.5, 5.5, 1.5, 4.0, 7.5]])
    >>> X = np.column_stack([np.ones(6), np.repeat([0.0, 1.0], 3)])
    >>> many = fit_cluster_summaries(means, np.full(6, 2), np.array([2.5]), X)
    >>> many.theta.round(6), many.sigma2.round(6)
    (array([[15.6]]), array([0.416667]))
    """
    means, X = np.asarray(means, dtype=np.float64), np.asarray(X, dtype=np.float64)
    sizes, ssw = np.asarray(sizes, dtype=np.float64), np.asarray(ssw, dtype=np.float64)
    R, J = means.shape
    if sizes.shape != (J,) or ssw.shape != (R,) or X.ndim != 2 or X.shape[0] != J:
        raise ValueError("means must be (R, J), sizes (J,), ssw (R,) and X (J, p)")
    if not (np.all(sizes >= 1) and np.all(ssw >= 0) and np.isfinite(means).all() and np.isfinite(ssw).all()):
        raise ValueError("sizes must be at least 1, sums of squares at or above 0, and means finite")
    p = X.shape[1]
    n = int(sizes.sum())
    L = _contrasts(contrasts, p)
    root = np.sqrt(sizes)
    basis = reduction.orthonormal_basis(X, root)
    outcome, shift, flat = basis.centre(means.T)
    outcome = outcome * root[:, None]
    gamma = basis.Q.T @ outcome
    residual = outcome - basis.Q @ gamma
    between = np.einsum("ij,ij->j", residual, residual)
    within = np.zeros((p, p))
    design = "saturated" if n <= p else reduction.identification(within, basis.Q, sizes, np.empty(0, dtype=np.intp), n, p)
    if design not in ("ok", "singletons"):
        raise ValueError(STATUS[design])
    status = np.full(R, design, dtype=object)
    nothing = (between + ssw) <= 1e-22 * (np.einsum("ij,ij->j", outcome, outcome) + ssw)
    status[nothing], status[flat & (ssw == 0.0)] = "exact_fit", "constant_outcome"
    usable = ~(nothing | (flat & (ssw == 0.0)))
    scale = np.where(usable, np.sqrt(between + ssw), 1.0)
    offset = (basis.inverse @ gamma).T
    if basis.constant is not None:
        offset[:, basis.constant] += shift / basis.value
    problem = _Problem(
        n=n,
        p=p,
        rows=basis.Q,
        sizes=sizes,
        within=within,
        rows_y=residual.T / scale[:, None],
        rest=ssw / scale**2,
        scale=scale,
        offset=offset,
        inverse=basis.inverse,
        constant=2.0 * basis.log_det,
        status=status,
    )
    return _solve(problem, L, singletons=design == "singletons")


@dataclass(frozen=True, slots=True)
class _Problem:
    n: int
    p: int
    rows: Array  # (J, p)  group rows of the orthonormal X
    sizes: Array  # (J,)
    within: Array  # (p, p)
    rows_y: Array  # (R, J)  group rows of the scaled residuals
    rest: Array | None  # (R,)    sum of squares outside the group space, when known
    scale: Array  # (R,)
    offset: Array  # (R, p)  least-squares coefficients
    inverse: Array  # (p, p)
    constant: float  # of the restricted likelihood
    status: NDArray[Any]  # (R,)


def _contrasts(contrasts: Array | None, p: int) -> Array:
    L = np.eye(p) if contrasts is None else np.asarray(contrasts, dtype=np.float64)
    if L.ndim != 2 or L.shape[1] != p:
        raise ValueError(f"contrasts must be (r, {p}); got {L.shape}")
    return L


def _spectrum(rows: Array, sizes: Array, within: Array) -> _Spectrum:
    p = rows.shape[1]
    order = np.argsort(sizes, kind="stable")
    cuts = np.flatnonzero(np.diff(sizes[order])) + 1
    classes = np.split(order, cuts)
    distinct = np.array([sizes[g[0]] for g in classes])
    compress: list[tuple[IntArray, Array | None]] = []
    kept_rows, kept_sizes, extra, times = [], [], [], []
    for groups, size in zip(classes, distinct, strict=True):
        part = rows[groups]
        if groups.size <= p:
            compress.append((groups, None))
        else:  # X reaches at most p directions among groups of one size; in the others xi is the size itself
            directions, part = np.linalg.qr(part)
            compress.append((groups, directions))
            extra.append(size)
            times.append(groups.size - p)
        kept_rows.append(part)
        kept_sizes.append(np.full(part.shape[0], size))
    R, a = np.concatenate(kept_rows), np.concatenate(kept_sizes)
    scaled = R * np.sqrt(a)[:, None]
    xi, U = np.linalg.eigh(np.diag(a) - scaled @ scaled.T)
    real = xi > 1e-10 * a.max()
    xi, U = xi[real], U[:, real]
    # eta = U' Z'(I - P_X) y / sqrt(xi), with Z'y = sqrt(size) * row
    turn = np.sqrt(a)[:, None] * U / np.sqrt(xi)
    products = np.stack([rows[g].T @ rows[g] for g in classes]).reshape(len(classes), p * p)
    return _Spectrum(
        np.concatenate([xi, extra]), np.concatenate([np.ones(xi.size), times]), turn, tuple(compress), distinct, products, within
    )


def _solve(problem: _Problem, L: Array, *, singletons: bool) -> ManyFits:
    b = problem
    N, count = b.n - b.p, b.rows_y.shape[0]
    status = b.status.copy()
    spectrum = _spectrum(b.rows, b.sizes, b.within)
    eta2 = spectrum.coordinates(b.rows_y)
    rest = np.maximum(1.0 - eta2.sum(axis=1), 0.0) if b.rest is None else b.rest
    live = (status == "ok") | (status == "singletons")
    theta = np.zeros(count)
    if not singletons:
        found, unbounded = _search(spectrum, eta2, rest, N, b.sizes.mean(), live)
        theta, status[unbounded] = found, "zero_residual"
        live = live & ~unbounded
        theta[unbounded] = 0.0
    xi, times = spectrum.xi, spectrum.multiplicity
    z = 1.0 / (1.0 + theta[:, None] * xi)
    ypy = np.where(live, rest + (eta2 * z).sum(axis=1), 1.0)
    sigma2 = np.where(live, ypy / N, 0.0)

    d = 1.0 / (1.0 + theta[:, None] * b.sizes)
    # the residual is orthogonal to X, so X'My is minus what the groups take away
    Hxy = -((1.0 - d) * b.rows_y) @ b.rows
    K = spectrum.sizes
    dk = 1.0 / (1.0 + theta[:, None] * K)
    p = b.p
    H = (dk @ spectrum.products).reshape(count, p, p) + b.within
    C = L @ b.inverse
    solved = np.linalg.solve(H, np.concatenate([Hxy[:, :, None], np.broadcast_to(C.T, (count, p, L.shape[0]))], axis=2))
    beta = b.offset + b.scale[:, None] * (solved[:, :, 0] @ b.inverse.T)
    pc = solved[:, :, 1:]  # (R, p, r)
    kr, satt = _inference(b, spectrum, theta, sigma2, eta2, rest, z, dk, H, C, pc, singletons)
    scaled = b.scale * np.sqrt(sigma2)
    out = [
        ManyInference(
            beta @ L.T, np.where(live[:, None], np.sqrt(variance) * b.scale[:, None], np.nan), np.where(live[:, None], df, np.nan)
        )
        for variance, df in (kr, satt)
    ]
    criterion = (times * np.log1p(theta[:, None] * xi)).sum(axis=1) + N * (1.0 + np.log(2.0 * np.pi * np.where(live, scaled**2, 1.0)))
    likelihood = np.where(live, -0.5 * (criterion + b.constant), np.nan)
    return ManyFits(beta, theta[:, None], scaled**2, likelihood, (theta <= 0.0)[:, None], status.astype(np.str_), out[0], out[1])


def _search(s: _Spectrum, eta2: Array, rest: Array, N: int, size: float, live: BoolArray) -> tuple[Array, BoolArray]:
    """theta (R,) at the global optimum, and whether the residual variance is zero; the rules are those of `reml_search`."""
    xi, times = s.xi, s.multiplicity
    grid = _SCAN / size
    D = 1.0 / (1.0 + grid[:, None] * xi)  # (G, E)
    xiD = xi * D
    trace = (times * xiD).sum(axis=1)
    with np.errstate(divide="ignore"):
        Q = rest[:, None] + eta2 @ D.T
        explained = N * (eta2 @ (xiD * D).T) / np.where(Q > 0, Q, 1.0)
        slope = trace - explained
        value = (times * np.log1p(grid[:, None] * xi)).sum(axis=1) + N * np.log(np.where(Q > 0, Q, 1.0))
    noise = trace + explained
    zero = slope[:, 0] >= -4e-15 * noise[:, 0]
    slope[zero, 0] = np.abs(slope[zero, 0])
    unbounded = live & ((slope[:, -1] < -1e-9 * noise[:, -1]) | (rest <= 1e-24))
    theta = np.zeros(zero.size)
    responses, cells = np.nonzero((slope[:, :-1] < 0.0) & (slope[:, 1:] >= 0.0) & (live & ~unbounded)[:, None])
    if not responses.size:
        return theta, unbounded
    at = np.log1p(_SCAN)
    low, high = at[cells], at[cells + 1]
    f = slope * (1.0 + _SCAN)
    f_low, f_high = f[responses, cells], f[responses, cells + 1]
    t = (low * f_high - high * f_low) / (f_high - f_low)
    found, height = np.empty(t.size), np.empty(t.size)
    rows = np.arange(t.size)
    e2, r = eta2[responses], rest[responses]
    for _ in range(_MAX_STEPS):
        ratio = np.expm1(t) / size
        z = 1.0 / (1.0 + ratio[:, None] * xi)
        e = e2 * z
        q = r + e.sum(axis=1)
        z *= xi
        e *= z
        u = e.sum(axis=1)
        u2 = (e * z).sum(axis=1)
        t1, t2 = z @ times, (z * z) @ times
        g = t1 - N * u / q
        h = -t2 + N * (2.0 * u2 - u * u / q) / q
        falling = g < 0.0
        low, high = np.where(falling, t, low), np.where(falling, high, t)
        curvature = h * (1.0 / size + ratio) + g
        good = curvature > 0.0
        new = t - g / np.where(good, curvature, np.inf)
        good &= (new > low) & (new < high)
        exact = np.abs(g) <= 4e-15 * (t1 + N * u / q)
        new = np.where(exact, t, np.where(good, new, 0.5 * (low + high)))
        done = exact | (good & (np.abs(new - t) <= 1e-8 * t)) | (high - low <= 4e-16 * high)
        if done.any():
            i = rows[done]
            found[i] = (np.expm1(new) / size)[done]
            height[i] = (np.log1p(found[i][:, None] * xi) * times).sum(axis=1) + N * np.log(q[done])
            keep = ~done
            if not keep.any():
                break
            rows, new, low, high, e2, r = rows[keep], new[keep], low[keep], high[keep], e2[keep], r[keep]
        t = new
    else:
        raise ArithmeticError("a variance ratio was not found; please report the data")
    best = np.where(zero, value[:, 0], np.inf)
    for row in np.argsort(-height, kind="stable"):  # the lowest of each response is written last
        i = responses[row]
        if height[row] < best[i]:
            best[i], theta[i] = height[row], found[row]
    return theta, unbounded


def _inference(
    b: _Problem,
    s: _Spectrum,
    theta: Array,
    sigma2: Array,
    eta2: Array,
    rest: Array,
    z: Array,
    dk: Array,
    H: Array,
    C: Array,
    pc: Array,
    singletons: bool,
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(variance, df) of the contrasts by Kenward-Roger and by Satterthwaite, for the scaled responses; (R, r) each."""
    R, p = pc.shape[:2]
    N = b.n - p
    v = np.einsum("rp,npr->nr", C, pc)
    plain = sigma2[:, None] * v
    if singletons:
        least = (plain, np.full(plain.shape, float(N)))
        return least, least
    K, xi, times = s.sizes, s.xi, s.multiplicity
    weight = K * dk * dk
    P = (weight @ s.products).reshape(R, p, p)
    Q = ((weight * K * dk) @ s.products).reshape(R, p, p)
    Ppc = P @ pc
    lam = theta[:, None]
    g1 = np.einsum("npr,npr->nr", pc, Ppc)
    g2 = v - lam * g1
    q11 = np.einsum("npr,npr->nr", pc, Q @ pc)
    q12 = g1 - lam * q11
    q22 = g2 - lam * q12
    p11 = np.einsum("npr,npr->nr", Ppc, np.linalg.solve(H, Ppc))
    p12 = g1 - lam * p11
    p22 = g2 - lam * p12
    # expected information of (group, residual) variance at residual variance 1
    free = N - times.sum()
    z2 = z * z
    I11 = 0.5 * (z2 @ (times * xi * xi))
    I12 = 0.5 * (z2 @ (times * xi))
    I22 = 0.5 * (free + z2 @ times)
    determinant = I11 * I22 - I12 * I12
    W11, W12, W22 = (a / determinant for a in (I22, -I12, I11))
    W11, W12, W22 = W11[:, None], W12[:, None], W22[:, None]
    bracket = W11 * (q11 - p11) + 2.0 * W12 * (q12 - p12) + W22 * (q22 - p22)
    kr = (sigma2[:, None] * (v + 2.0 * bracket), 2.0 * v * v / (W11 * g1 * g1 + 2.0 * W12 * g1 * g2 + W22 * g2 * g2))
    # observed: minus the expected traces, plus twice the quadratic forms
    safe = np.where(sigma2 > 0.0, sigma2, 1.0)
    e3 = 2.0 * eta2 * z2 * z / safe[:, None]
    D11 = -2.0 * I11 + e3 @ (xi * xi)
    D12 = -2.0 * I12 + e3 @ xi
    D22 = -2.0 * I22 + e3.sum(axis=1) + 2.0 * rest / safe
    interior = theta > 0.0
    determinant = np.where(interior, D11 * D22 - D12 * D12, 1.0)[:, None]
    form = (D22[:, None] * g1 * g1 - 2.0 * D12[:, None] * g1 * g2 + D11[:, None] * g2 * g2) / determinant
    df = np.where(interior[:, None], v * v / np.where(form == 0.0, 1.0, form), N * v * v / np.where(g2 == 0.0, 1.0, g2 * g2))
    return kr, (plain, df)


def _one_by_one(X: Array, Y: Array, groups: Sequence[NDArray[Any]], L: Array, weights: Array | None) -> ManyFits:
    fits = fit_sets([(X, y) for y in Y.T], groups, weights=weights)
    blank = np.full(L.shape[0], np.nan)
    t_kr, t_satt = [], []
    for m in fits:
        able = m.components is not None
        kr, satt = (kenward_roger(m, L), satterthwaite(m, L)) if able else (None, None)
        t_kr.append((L @ m.beta, blank, blank) if kr is None else (kr.estimate, kr.std_error, kr.df))
        t_satt.append((L @ m.beta, blank, blank) if satt is None else (satt.estimate, satt.std_error, satt.df))
    inference = [ManyInference(*(np.stack(part) for part in zip(*rows, strict=True))) for rows in (t_kr, t_satt)]
    return ManyFits(
        np.stack([m.beta for m in fits]),
        np.stack([m.theta for m in fits]),
        np.array([m.sigma2 for m in fits]),
        np.array([m.log_likelihood for m in fits]),
        np.stack([m.boundary for m in fits]),
        np.array([m.status for m in fits]),
        inference[0],
        inference[1],
    )
