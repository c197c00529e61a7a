"""One fit, or a list of fits on the same groups: from sufficient statistics to a record that inference can use.

``y = X b + sum_k Z_k u_k + e``, ``u_k ~ N(0, sigma_k^2)``, ``e_i ~ N(0, sigma^2 / w_i)``; grouping factors outermost first: (site),
(pair, site) or (site, person). `theta` is the *variance ratio* ``sigma_k^2 / sigma^2`` (lme4's theta is its square root). Log-likelihoods
carry lme4's constants: REML keeps ``(n - p) log 2 pi`` and ``log |X'V^-1X|`` in the scale of the given X.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels import reml_criterion as criterion
from trialkit._kernels import reml_one
from trialkit._kernels.reml_criterion import Components
from trialkit._kernels.reml_reduction import NOTHING, ROUNDING, STATUS, Array, IntArray, Reduced, reduce, reduce_sets
from trialkit._kernels.reml_search import Found, search_two

Method = Literal["reml", "ml"]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Optimum:
    """What the search did."""

    iterations: int  # Newton steps
    evaluations: int  # criterion evaluations, the scan included
    optima: int  # local optima met and compared
    gradient: Array  # (k,)  derivative of -2 log-likelihood in theta at the solution; positive at a variance of zero
    relative_gradient: float  # the same over free ratios, as a fraction of the terms it is the difference of
    converged: bool


@dataclass(frozen=True, slots=True)
class MixedFit:
    """A fitted mixed model; k grouping factors (outermost first), p fixed effects."""

    beta: Array  # (p,)    fixed effects
    half: Array  # (p, p)  half' half is (X'V^-1X)^-1 at residual variance 1
    theta: Array  # (k,)    variance ratios to the residual
    sigma2: float  # residual variance
    variances: Array  # (k,)    theta * sigma2
    log_likelihood: float  # restricted for REML; lme4's constants
    boundary: BoolArray  # (k,)    variance at zero
    identified: BoolArray  # (k,)    False where the data cannot tell the variance (see status)
    status: str  # a key of STATUS; inference is possible for "ok" and "singletons"
    optimum: Optimum
    n: int
    p: int
    n_groups: IntArray  # (k,)
    method: Method
    components: Components | None  # derivatives at the optimum (whitened); None when status forbids inference
    root: Array  # (q, q)  inverse Cholesky factor that whitens
    reduced: Reduced

    @property
    def deviance(self) -> float:
        """-2 log-likelihood (the REML criterion for method "reml")."""
        return -2.0 * self.log_likelihood

    @property
    def unit(self) -> float:
        """The variance in which `components` are written: the residual's."""
        return self.sigma2

    @property
    def cov_beta(self) -> Array:
        """(p, p) (X'V^-1X)^-1, not adjusted for small samples."""
        return np.asarray(self.sigma2 * (self.half.T @ self.half))


def fit(X: Array, y: Array, groups: Sequence[NDArray[Any]], *, method: Method = "reml", weights: Array | None = None) -> MixedFit:
    """Fit ``y ~ X`` with a random intercept for each grouping factor.

    Parameters
    ----------
    X : (n, p) fixed-effects matrix of full column rank; see :func:`independent_columns`
    y : (n,) outcome
    groups : one or two (n,) arrays of non-negative integer codes, outermost first, the inner nested in the outer
    method : "reml" or "ml"
    weights : (n,) positive; the residual variance of row i is sigma^2 / weights[i]

    Returns
    -------
    MixedFit
        `status` says when the data cannot support the model (one group an arm, groups of one, a constant outcome, no residual variance):
        the numbers are then the nearest honest ones (least squares) and inference is refused by `small_sample`.

    Raises
    ------
    ValueError : shapes that do not fit, values that are not finite, linearly dependent columns, factors that are not nested

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([1.0, 2, 2, 3, 5, 6, 1, 2, 4, 4, 7, 8])
    >>> site = np.repeat(np.arange(6), 2)
    >>> arm = (site >= 3).astype(float)
    >>> m = fit(np.column_stack([np.ones(12), arm]), y, [site])
    >>> m.beta.round(4), m.variances.round(4), round(m.sigma2, 4), round(m.log_likelihood, 4)
    (array([3.1667, 1.1667]), array([6.5]), 0.4167, -18.5477)
    """
    return fit_reduced(reduce(X, y, groups, weights=weights), method=method)


def fit_reduced(reduced: Reduced, *, method: Method = "reml") -> MixedFit:
    """Fit from sufficient statistics (see :func:`reduce`)."""
    return _fit_all([reduced], method)[0]


def fit_sets(
    sets: Sequence[tuple[Array, Array]], groups: Sequence[NDArray[Any]], *, method: Method = "reml", weights: Array | None = None
) -> list[MixedFit]:
    """Fit many (X, y) with the same rows and groups, such as multiply imputed data; the searches run in step.

    Parameters
    ----------
    sets : (X (n, p), y (n,)) each; all the same shape
    groups, method, weights : as :func:`fit`
    """
    reduced = reduce_sets(sets, groups, weights=weights)
    if len({r.p for r in reduced}) > 1:
        raise ValueError("data sets fitted together must have the same number of columns")
    return _fit_all(reduced, method)


def deviance(reduced: Reduced, theta: Array | Sequence[float], *, method: Method = "reml") -> float:
    """-2 log-likelihood (REML criterion) at any variance ratios, the residual variance and fixed effects profiled out.

    Parameters
    ----------
    reduced : sufficient statistics
    theta : (k,) variance ratios, at or above zero, outermost factor first
    """
    ratios = np.asarray(theta, dtype=np.float64)
    if ratios.shape != (reduced.n_factors,) or not np.all(ratios >= 0):
        raise ValueError(f"theta must be {reduced.n_factors} variance ratios at or above zero")
    _usable(reduced)
    reml = _is_reml(method)
    state = criterion.evaluate(criterion.stack([reduced], reml=reml), ratios[None, None], order=0)
    return float(criterion.criterion(state, n=reduced.n, p=reduced.p, reml=reml)[0, 0]) + _constant(reduced, reml)


def least_criterion(reduced: Reduced, *, method: Method) -> float:
    """The criterion at its optimum over the variance ratios; up to the constants that :func:`deviance` adds."""
    reml = _is_reml(method)
    if reduced.n_factors == 1:
        one = reml_one.gather(reduced, reml=reml)
        return reml_one.search(one).at.value(one)
    blocks = criterion.stack([reduced], reml=reml)
    state = criterion.evaluate(blocks, search_two(blocks).theta[:, None], order=0)
    return float(criterion.criterion(state, n=reduced.n, p=reduced.p, reml=reml)[0, 0])


def random_effects(fit: MixedFit) -> list[tuple[IntArray, Array, Array]]:
    """Best linear unbiased predictions of the random intercepts.

    Returns
    -------
    One (codes (J,), prediction (J,), variance (J,)) per factor, outermost first; the variance is that of the intercept given the data
    with the fixed effects and variances taken as known (lme4's condVar).
    """
    r, theta = fit.reduced, fit.theta
    residual = r.rows @ (fit.root[-1] / fit.root[-1, -1]) * r.scale  # sums of residuals over the root of the size
    a = r.sizes
    d = 1.0 / (1.0 + theta[-1] * a)
    if r.n_factors == 1:
        effects = [(theta[0] * d * np.sqrt(a) * residual, fit.variances[0] * d)]
    else:
        lengths = np.diff(np.append(r.starts, a.size))
        alpha = np.add.reduceat(a * d, r.starts)
        h = 1.0 / (1.0 + theta[0] * alpha)
        tau = np.add.reduceat(np.sqrt(a) * d * residual, r.starts)
        outer = theta[0] * h * tau
        inner = theta[1] * d * (np.sqrt(a) * residual - a * np.repeat(outer, lengths))
        # Var(u_inner | y) = sigma_s^2 d + (sigma_s^2 a d / sigma^2)^2 Var(u_outer | y) / a^2 ... by the law of total variance
        var_outer = fit.variances[0] * h
        var_inner = fit.variances[1] * d + (theta[1] * a * d) ** 2 * np.repeat(var_outer, lengths)
        effects = [(outer, var_outer), (inner, var_inner)]
    out = []
    for codes, (value, variance) in zip(r.levels, effects, strict=True):
        order = np.argsort(codes, kind="stable")
        out.append((codes[order], value[order], variance[order]))
    return out


def _is_reml(method: str) -> bool:
    if method not in ("reml", "ml"):
        raise ValueError(f'method must be "reml" or "ml", not {method!r}')
    return method == "reml"


def _usable(reduced: Reduced) -> None:
    if reduced.status in NOTHING:
        raise ValueError(STATUS[reduced.status])


def _constant(r: Reduced, reml: bool) -> float:
    return criterion.constant(
        n=r.n, p=r.p, reml=reml, log_scale=float(np.log(r.scale)), log_det_basis=r.log_det_basis, log_weights=r.log_weights
    )


def _fit_all(sets: Sequence[Reduced], method: Method) -> list[MixedFit]:
    reml = _is_reml(method)
    fits: list[MixedFit | None] = [None] * len(sets)
    ready = []
    for i, r in enumerate(sets):
        if r.status != "ok":
            fits[i] = _least_squares(r, r.status, method)
        elif r.n_factors == 1:
            fits[i] = _fit_one(r, method)
        else:
            ready.append(i)
    if ready:
        blocks = criterion.stack([sets[i] for i in ready], reml=reml)
        found = search_two(blocks)
        for row, i in enumerate(ready):
            fits[i] = _assemble(sets[i], blocks.take(np.array([row])), found, row, method)
    return [done for done in fits if done is not None]


def _fit_one(r: Reduced, method: Method) -> MixedFit:
    one = reml_one.gather(r, reml=method == "reml")
    best = reml_one.search(one)
    if best.unbounded:
        return _least_squares(r, "zero_residual", method)
    at = best.at
    zero = at.theta <= 0.0
    relative = 0.0 if zero else abs(at.slope) / at.level
    converged = best.converged and relative < 1e-6
    optimum = Optimum(best.iterations, best.evaluations, best.optima, np.array([at.slope]), relative, converged)
    ypy = float(at.root[-1, -1]) ** -2
    value = at.value(one) + _constant(r, one.reml)
    parts = reml_one.components(at, one)
    return _finish(r, at.root, ypy / one.df, np.array([at.theta]), value, np.array([zero]), optimum, method, parts)


def _told_apart(r: Reduced, here: Components | None = None) -> str:
    """Whether two factors' variances can be told apart: their information has full rank at some, and so at almost every, theta."""
    if here is not None and _rank_of(here.expected) == "ok":
        return "ok"
    blocks = criterion.stack([r], reml=True)
    state = criterion.evaluate(blocks, (1.0 / blocks.typical_size())[:, None])
    return _rank_of(criterion.components(state, r.n, reml=True).expected)


def _rank_of(information: Array) -> str:
    scale = np.sqrt(np.maximum(np.diagonal(information), 0.0))
    if np.any(scale <= 1e-9 * scale.max()):
        return "no_between_df"
    return "ok" if np.linalg.eigvalsh(information / np.outer(scale, scale))[0] > 1e-10 else "confounded"


def _assemble(r: Reduced, blocks: criterion.Blocks, found: Found, row: int, method: Method) -> MixedFit:
    reml = method == "reml"
    if found.unbounded[row]:
        told = _told_apart(r)
        return _least_squares(r, "zero_residual" if told == "ok" else told, method)
    theta = found.theta[row]
    boundary = theta <= 0.0
    state = criterion.evaluate(blocks, theta[None, None])
    slopes, noises = criterion.gradient(state, n=r.n, p=r.p, reml=reml)
    slope, noise = slopes[0, 0], noises[0, 0]
    value = float(criterion.criterion(state, n=r.n, p=r.p, reml=reml)[0, 0]) + _constant(r, reml)
    parts = criterion.components(state, r.n, reml=reml)
    if (told := _told_apart(r, parts)) != "ok":
        return _least_squares(r, told, method)
    relative = float(np.where(boundary, 0.0, np.abs(slope) / noise).max())
    optimum = Optimum(
        iterations=int(found.iterations[row]),
        evaluations=int(found.evaluations[row]) + 1,
        optima=int(found.optima[row]),
        gradient=slope,
        relative_gradient=relative,
        converged=bool(found.converged[row]) and relative < 1e-6,
    )
    return _finish(r, state.root[0, 0], float(state.ypy[0, 0]) / blocks.df, theta, value, boundary, optimum, method, parts)


def _finish(
    r: Reduced,
    root: Array,
    sigma2: float,
    theta: Array,
    value: float,
    boundary: BoolArray,
    optimum: Optimum,
    method: Method,
    parts: Components,
) -> MixedFit:
    """The record of an identified model; `sigma2` in the scale of the reduced outcome, `value` the full -2 log-likelihood."""
    sigma2 *= r.scale**2
    if sigma2 <= (ROUNDING * r.resolution) ** 2 * r.n / float(np.add.reduce(r.sizes)):
        return _least_squares(r, "zero_residual", method)
    return _record(r, root, sigma2, theta, -0.5 * value, boundary, np.ones(theta.size, dtype=np.bool_), "ok", optimum, method, parts)


def _least_squares(r: Reduced, status: str, method: Method) -> MixedFit:
    """The fit with every group variance at zero: the answer for groups of one, a stand-in (without inference) for the rest."""
    reml = method == "reml"
    k, p = r.n_factors, r.p
    theta = np.zeros(k)
    H = r.within + r.rows.T @ r.rows
    usable = status not in NOTHING
    if not usable:
        H[p, p] = 1.0  # the residual is nothing: keep the factor regular
    root = np.linalg.inv(np.linalg.cholesky(H))
    df = max(r.n - p if reml else r.n, 1)
    sigma2 = r.scale**2 / root[p, p] ** 2 / df if usable and status != "zero_residual" else 0.0
    components = None
    log_likelihood = float("-inf") if status == "saturated" else float("inf")
    if usable and status != "zero_residual":
        log_likelihood = -0.5 * deviance(r, theta, method=method)
    if status == "singletons":
        eye, twice = np.eye(p), np.array([[float(df)]])
        components = Components(eye[None], eye[None, None], twice, twice)
    optimum = Optimum(0, 1, 0, np.zeros(k), 0.0, True)
    identified = np.zeros(k, dtype=np.bool_)
    return _record(r, root, sigma2, theta, log_likelihood, np.ones(k, dtype=np.bool_), identified, status, optimum, method, components)


def _record(
    r: Reduced,
    root: Array,
    sigma2: float,
    theta: Array,
    log_likelihood: float,
    boundary: BoolArray,
    identified: BoolArray,
    status: str,
    optimum: Optimum,
    method: Method,
    components: Components | None,
) -> MixedFit:
    p = r.p
    gamma = -root[p, :p] / root[p, p]
    return MixedFit(
        beta=r.offset + r.scale * r.basis_inverse.dot(gamma),
        half=root[:p, :p].dot(r.basis_inverse.T),
        theta=theta,
        sigma2=float(sigma2),
        variances=theta * sigma2,
        log_likelihood=log_likelihood,
        boundary=boundary,
        identified=identified,
        status=status,
        optimum=optimum,
        n=r.n,
        p=p,
        n_groups=r.n_groups,
        method=method,
        components=components,
        root=root,
        reduced=r,
    )


def log_likelihood_at(
    residual: Array, groups: Sequence[NDArray[Any]], variances: Array | Sequence[float], sigma2: float, *, weights: Array | None = None
) -> float:
    """Log-likelihood (maximum likelihood's) at any parameters, for nested random intercepts of any depth.

    Parameters
    ----------
    residual : (n,)
        y - X b at the fixed effects wanted.
    groups : (n,) codes each, outermost first, every factor nested in the one before
    variances : one a factor, at or above zero
    sigma2 : residual variance, positive
    weights : (n,) positive

    Notes
    -----
    From the innermost factor outwards: with a = 1'W1, s = 1'We and q = e'We of a cluster whose inverse covariance is W, an intercept of
    variance v takes a and s to a / (1 + va) and s / (1 + va), q to q - v s^2 / (1 + va) and adds log(1 + va) to the determinant.
    """
    e = np.asarray(residual, dtype=np.float64)
    w = (np.ones(len(e)) if weights is None else np.asarray(weights, dtype=np.float64)) / sigma2
    a, s, q, determinant = w, w * e, w * e**2, -np.log(w)
    codes = [np.asarray(g, dtype=np.intp) for g in groups]
    for k in range(len(codes) - 1, -1, -1):
        _, first, here = np.unique(codes[k], return_index=True, return_inverse=True)
        a, s, q, determinant = (np.asarray(np.bincount(here, value), dtype=np.float64) for value in (a, s, q, determinant))
        inflation = 1 + variances[k] * a
        q, determinant = q - variances[k] * s**2 / inflation, determinant + np.log(inflation)
        a, s = a / inflation, s / inflation
        codes = [c[first] for c in codes[:k]]
    return float(-0.5 * (len(e) * np.log(2 * np.pi) + determinant.sum() + q.sum()))
