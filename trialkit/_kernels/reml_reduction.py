"""From rows to sufficient statistics: after this, a mixed model never sees a person again.

The model is ``y = X b + sum_k Z_k u_k + e`` with nested random intercepts (outermost first) and
``V / sigma^2 = D_w^-1 + sum_k theta_k Z_k Z_k'``, where ``theta_k`` is a *variance ratio* to the residual variance and ``D_w`` holds the
weights. With a spherical within-group part, REML needs only two things: the cross-products of ``(X, y)`` about their group means, and one
row a group (its sums over the root of its size). Before they are taken, the columns are centred (when the model has a constant), scaled
and made orthonormal, and the outcome is replaced by its least-squares residual, so that a shift or a change of units in the data cannot
reach a digit of the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

Array = NDArray[np.float64]
IntArray = NDArray[np.intp]

# R's qr(): a column whose part outside the columns before it is below this fraction of its own length is dropped.
RANK_TOLERANCE = 1e-7

# A standard deviation below this many spacings of the outcome's numbers is rounding, not variation.
ROUNDING = 4.0

# Lengths of residuals between which variances, and products of two of them, are ordinary doubles.
RANGE = (1e-75, 1e75)

#: Statuses in which nothing can be estimated, not even by least squares.
NOTHING = ("saturated", "constant_outcome", "exact_fit", "out_of_range")

_CHUNK = 16_384  # rows

#: What each ``status`` of a reduction or a fit means. Only "ok" and "singletons" can carry inference.
STATUS = {
    "ok": "the model is identified",
    "singletons": "every group has one row: its variance cannot be told from the residual; least squares is reported",
    "no_between_df": "the fixed effects use up every difference between groups: the group variance cannot be estimated",
    "no_within_df": "the fixed effects use up every difference within groups: the residual variance cannot be estimated",
    "confounded": "two of the variances (outer group, inner group, residual) divide the rows in the same way: they cannot be told apart",
    "saturated": "there are as many fixed effects as rows: nothing is left to estimate a variance from",
    "constant_outcome": "the outcome does not vary",
    "exact_fit": "the fixed effects reproduce the outcome exactly: there is no residual",
    "out_of_range": "the outcome's numbers are so small or so large that their variances leave the range of floating-point numbers",
    "zero_residual": "the outcome does not vary within groups once the fixed effects are taken out: the residual variance is zero",
}


@dataclass(frozen=True, slots=True)
class Reduced:
    """Sufficient statistics of one data set; q = p + 1 columns: the orthonormal basis of X, then the scaled residual of y."""

    within: Array  # (q, q)  cross-products about the means of the innermost groups
    rows: Array  # (J, q)  sums over each innermost group, divided by the root of its size; sorted by outer group
    sizes: Array  # (J,)    rows (or sum of weights) in each innermost group
    starts: IntArray  # (K,)    where each outer group begins in `rows`; empty with one grouping factor
    levels: tuple[IntArray, ...]  # per factor, outermost first: the codes in the order of the groups here
    n: int  # rows of data
    p: int  # fixed effects
    basis_inverse: Array  # (p, p)  beta = offset + basis_inverse @ (scale * gamma)
    offset: Array  # (p,)    the least-squares estimate
    scale: float  # length of the least-squares residual of y
    log_det_basis: float  # log |det T| for X = Q T
    log_weights: float  # sum of the log weights
    resolution: float  # spacing of the floating-point numbers the outcome is made of
    status: str  # a key of STATUS

    @property
    def n_factors(self) -> int:
        """Number of grouping factors (1 or 2)."""
        return len(self.levels)

    @property
    def n_groups(self) -> IntArray:
        """Groups in each factor, outermost first."""
        return np.array([level.size for level in self.levels], dtype=np.intp)


def independent_columns(X: Array, *, tolerance: float = RANK_TOLERANCE) -> IntArray:
    """Columns of X that R would keep: each adds something to the columns kept before it.

    Parameters
    ----------
    X : (n, p) array
    tolerance : a column is dropped when its part outside the span of those kept is shorter than this fraction of its own length
        (LINPACK ``dqrdc2`` as used by R's ``lm`` and ``lmer``). With a constant column the other columns are measured after centring, so
        that adding a large number to a covariate does not drop it.

    Returns
    -------
    (r,) int array of kept column numbers, ascending

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([0.0, 1, 2, 3])
    >>> independent_columns(np.column_stack([np.ones(4), x, 2 * x + 1, x**2]))
    array([0, 1, 3])
    """
    X = np.asarray(X, dtype=np.float64)
    n, p = X.shape
    constant = _constant_column(X)
    means = np.zeros(p)
    if constant is not None:
        means = X[:, constant].dot(X) / (n * X[0, constant])
        means[constant] = 0.0
    products = np.zeros((p, p))
    for low in range(0, n, _CHUNK):
        part = X[low : low + _CHUNK].T - means[:, None]
        products += part.dot(part.T)
    norms = np.sqrt(products.diagonal())
    if n >= p and norms.all():
        # a Cholesky pivot is a column's length outside those before it; where all are far from the tolerance, rounding decides nothing
        factor, failed = lapack.dpotrf(products.T, 1, 1)
        if not failed and (factor.diagonal() > max(1e-3, 10.0 * tolerance) * norms).all():
            return np.arange(p, dtype=np.intp)
    X = X - means
    kept: list[int] = []
    basis = np.empty((X.shape[0], min(X.shape)), order="F")
    start = [] if constant is None else [constant]
    for j in [*start, *(j for j in range(X.shape[1]) if j != constant)]:
        if norms[j] == 0.0 or len(kept) == basis.shape[1]:
            continue
        column = X[:, j] / norms[j]
        Q = basis[:, : len(kept)]
        for _ in range(2):  # twice is enough for full orthogonality (Kahan)
            column = column - Q @ (Q.T @ column)
        length = float(np.sqrt(column @ column))
        if length >= tolerance:
            basis[:, len(kept)] = column / length
            kept.append(j)
    return np.array(sorted(kept), dtype=np.intp)


def reduce(X: Array, y: Array, groups: Sequence[NDArray[Any]], *, weights: Array | None = None) -> Reduced:
    """Reduce (X, y, groups) to sufficient statistics.

    Parameters
    ----------
    X : (n, p) fixed-effects matrix of full column rank (see :func:`independent_columns`)
    y : (n,) outcome, no missing values
    groups : one or two (n,) arrays of non-negative integer codes, outermost factor first; the inner factor must be nested in the outer
    weights : (n,) positive weights; the residual variance of row i is ``sigma^2 / weights[i]`` (as in ``lmer``)

    Raises
    ------
    ValueError : shapes that do not fit, values that are not finite, linearly dependent columns, factors that are not nested
    """
    return reduce_sets([(X, y)], groups, weights=weights)[0]


def reduce_sets(sets: Sequence[tuple[Array, Array]], groups: Sequence[NDArray[Any]], *, weights: Array | None = None) -> list[Reduced]:
    """:func:`reduce` of many (X, y) with the same rows and groups, which are looked at once."""
    found: tuple[IntArray, tuple[IntArray, ...], IntArray] | None = None
    out = []
    for X, y in sets:
        X, y = np.asarray(X, dtype=np.float64), np.ascontiguousarray(y, dtype=np.float64)
        n, _ = check(X, y, groups)
        if found is None:
            root, log_weights = root_weights(weights, n)
            found = nested_codes(groups)
        out.append(_reduced(X, y, found, root, log_weights))
    return out


def _reduced(
    X: Array, y: Array, nested: tuple[IntArray, tuple[IntArray, ...], IntArray], root: Array | None, log_weights: float
) -> Reduced:
    n, p = X.shape
    codes, levels, starts = nested
    done = project(X, y, root)
    basis, status = done.basis, done.status
    within, rows, sizes = group_sums(basis.space, codes, levels[-1].size, root)
    if status == "ok":
        status = identification(within[:p, :p], rows[:, :p], sizes, starts, n, p)
    return Reduced(
        within,
        rows,
        sizes,
        starts,
        levels,
        n,
        p,
        basis.inverse,
        done.offset,
        done.scale,
        basis.log_det,
        log_weights,
        done.resolution,
        status,
    )


@dataclass(frozen=True, slots=True)
class Projected:
    """X and y in the coordinates in which units cannot reach a digit."""

    basis: Basis  # its `space` holds the residual of y, of length one, in the last column (zeros unless the status is ok)
    offset: Array  # (p,)  the least-squares estimate
    scale: float  # length of the least-squares residual
    resolution: float  # spacing of the floating-point numbers the outcome is made of
    status: str  # "ok" or one of NOTHING


def project(X: Array, y: Array, root: Array | None) -> Projected:
    """An orthonormal basis of X (n, p), and beside it the least-squares residual of y (n,); `root` holds the roots of the weights."""
    n, p = X.shape
    if n < p:
        raise ValueError("X has more columns than rows; see independent_columns")
    constant = _constant_column(X)
    space = np.empty((n, p + 1), order="F")
    outcome, shift, low, high = _centred_outcome(y, constant)
    furthest, flat = max(-low, high), constant is not None and max(-low, high) <= 4e-16 * max(abs(shift), 1e-300)
    if root is not None:
        outcome *= root
        furthest = float(np.abs(outcome).max())
    # sums of squares of very small or very large numbers leave the range of doubles; a power of two costs no digit
    unit = 2.0 ** min(max(math.frexp(furthest)[1], -1000), 1000)
    residual, columns = space[:, p], space.T[:p]
    np.multiply(outcome, 1.0 / unit, out=residual)
    basis, gamma, length, total = _with_outcome(space, *_centred_columns(X, constant, root, space), constant)
    again = columns.dot(residual)  # a second sweep: the residual is orthogonal to X to the last digit
    residual -= again.dot(columns)
    gamma += length * again
    final = math.sqrt(float(residual.dot(residual)))
    length *= final
    offset = unit * basis.inverse.dot(gamma)
    if constant is not None:
        offset[constant] += shift / basis.value
    resolution = math.ulp(max(abs(shift + low), abs(shift + high)))
    status = "ok"
    if n <= p:
        status = "saturated"
    elif flat:
        status = "constant_outcome"
    elif length <= max(1e-11 * total, ROUNDING * resolution / unit * math.sqrt(n)):
        status = "exact_fit"
    elif not RANGE[0] < unit * length < RANGE[1]:
        status = "out_of_range"
    if status == "ok":
        residual *= 1.0 / final
    else:
        residual[:] = 0.0
    return Projected(basis, offset, unit * length, resolution, status)


def _centred_outcome(y: Array, constant: int | None) -> tuple[Array, float, float, float]:
    """A copy of y less a constant when X has one; the constant; the least and largest of what is left."""
    shift = 0.0
    if constant is None:
        centred = y.copy()
    else:
        centred = y - np.add.reduce(y) / y.size
        centred -= np.add.reduce(centred) / y.size  # the first mean of large numbers is itself rounded
        shift = float(y[0]) - float(centred[0])
    return centred, shift, float(centred.min()), float(centred.max())


def check(X: Array, y: Array, groups: Sequence[NDArray[Any]]) -> tuple[int, int]:
    if X.ndim != 2 or X.shape[0] != y.shape[0]:
        raise ValueError(f"X must be (n, p) and y have n rows; got {X.shape} and {y.shape}")
    if X.shape[1] == 0 or X.shape[0] == 0:
        raise ValueError("X needs at least one row and one column")
    if len(groups) not in (1, 2):
        raise ValueError(f"one or two nested grouping factors, outermost first; got {len(groups)}")
    if any(np.shape(g) != (X.shape[0],) for g in groups):
        raise ValueError(f"groups must have one code a row ({X.shape[0]} rows)")
    if not (np.isfinite(X).all() and np.isfinite(y).all()):
        raise ValueError("X and y must be finite: drop or impute missing rows first")
    return X.shape


def _constant_column(X: Array) -> int | None:
    # rows are compared to the first; looking at the first column alone settles the usual case without a pass over X
    for j in range(X.shape[1]):
        if X[0, j] != 0.0 and X[-1, j] == X[0, j] and np.all(X[:, j] == X[0, j]):
            return j
    return None


def root_weights(weights: Array | None, n: int) -> tuple[Array | None, float]:
    """Roots of the weights (None when there are none) and the sum of their logs."""
    if weights is None:
        return None, 0.0
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n,) or not np.all(w > 0) or not np.all(np.isfinite(w)):
        raise ValueError("weights must be one positive finite number a row")
    return np.sqrt(w), float(np.log(w).sum())


@dataclass(frozen=True, slots=True)
class Basis:
    """Orthonormal columns spanning those of X, after centring (when X has a constant) and weighting: root * (X - means) = Q T U."""

    space: Array  # (n, p + 1)  Q, and room for an outcome beside it
    inverse: Array  # (p, p)  coefficients of the columns of X from those of Q
    log_det: float  # log |det T|; centring does not change it
    constant: int | None  # the constant column
    value: float  # its value

    @property
    def Q(self) -> Array:
        """(n, p) orthonormal columns."""
        return self.space[:, :-1]

    def centre(self, y: Array) -> tuple[Array, Any, Any]:
        """y (n, ...) less a constant when X has one; the constant; whether nothing was left (both per response)."""
        if self.constant is None:
            return y, 0.0, np.zeros(y.shape[1:], dtype=np.bool_)
        centred = y - y.mean(axis=0)
        centred -= centred.mean(axis=0)  # the first mean of large numbers is itself rounded
        shift = y[0] - centred[0]
        return centred, shift, np.abs(centred).max(axis=0) <= 4e-16 * np.maximum(np.abs(shift), 1e-300)


def orthonormal_basis(X: Array, root: Array | None) -> Basis:
    """Centre, weight, scale and orthonormalise the columns of X (n, p)."""
    n, p = X.shape
    if n < p:
        raise ValueError("X has more columns than rows; see independent_columns")
    constant = _constant_column(X)
    space = np.zeros((n, p + 1), order="F")
    return _with_outcome(space, *_centred_columns(X, constant, root, space), constant)[0]


def _centred_columns(X: Array, constant: int | None, root: Array | None, space: Array) -> tuple[Array, float]:
    """The columns of X into the first of `space`, weighted, less their means (p,) when there is a constant; the means, and its value."""
    n, p = X.shape
    work = space.T[:p]  # a row a column of X: each a run of memory
    work[:] = X.T
    means, value = np.zeros(p), 1.0
    if constant is not None:
        value = float(X[0, constant])
        means = work.dot(work[constant]) / (n * value) if root is None else (root * root).dot(X) / root.dot(root)
        means[constant] = 0.0
        work -= means[:, None]
    if root is not None:
        work *= root
    return means, value


def _with_outcome(space: Array, means: Array, value: float, constant: int | None) -> tuple[Basis, Array, float, float]:
    """Orthonormalise `space` (n, p + 1) in place: centred columns of X, then an outcome, of which its residual over its length is left.

    Returns the basis, the outcome's coordinates (p,) on it, the length of its residual and its own length. One Cholesky factor of the
    cross-products does all of it, unless columns are nearly collinear or the residual is next to nothing.
    """
    p = space.shape[1] - 1
    products = space.T.dot(space)
    *norms, total = np.sqrt(products.diagonal()).tolist()
    if not min(norms) > 0.0:
        raise ValueError("X has a column of zeros, or a second constant; see independent_columns")
    if total == 0.0:
        products[p, p] = 1.0
    factor, failed = lapack.dpotrf(products.T, 1, 1)
    *pivots, last = factor.diagonal().tolist()
    if not failed and last > 1e-3 * (total or 1.0) and all(pivot > 1e-3 * norm for pivot, norm in zip(pivots, norms, strict=True)):
        turn = lapack.dtrtri(factor, 1)[0]
        gamma, length = factor[p, :p].copy(), last if total else 0.0
        blas.dtrmm(1.0, turn, space, side=1, lower=1, trans_a=1, overwrite_b=1)
        inverse = turn[:p, :p].T
    else:
        pivots, inverse, gamma = _householder(space, np.array(norms))
        length = 1.0
    if constant is not None:
        inverse = inverse.copy()
        inverse[constant] -= (means / value).dot(inverse)
    return Basis(space, inverse, sum(map(math.log, pivots)), constant, value), gamma, length, total


def _householder(space: Array, norms: Array) -> tuple[list[float], Array, Array]:
    """The slow way: Householder keeps the basis orthonormal where cross-products would not. The residual keeps its length."""
    p = space.shape[1] - 1
    Q, R = np.linalg.qr(space[:, :p] / norms)
    pivots = np.abs(np.diagonal(R))
    if pivots.min() < RANK_TOLERANCE:
        raise ValueError("the columns of X are linearly dependent; see independent_columns")
    space[:, :p] = Q
    gamma = space[:, p] @ Q
    space[:, p] -= Q @ gamma
    return (pivots * norms).tolist(), np.linalg.inv(R) / norms[:, None], gamma


def nested_codes(groups: Sequence[NDArray[Any]]) -> tuple[IntArray, tuple[IntArray, ...], IntArray]:
    """Row -> innermost group (0..J-1, groups of one outer group side by side), the codes met, and where each outer group starts."""
    inner, inner_levels = _consecutive(groups[-1])
    if len(groups) == 1:
        return inner, (inner_levels,), np.empty(0, dtype=np.intp)
    outer, outer_levels = _consecutive(groups[0])
    outer_of = np.empty(inner_levels.size, dtype=np.intp)
    outer_of[inner] = outer
    if not np.array_equal(outer_of[inner], outer):
        raise ValueError("grouping factors must be nested: an inner group lies in two outer groups")
    order = np.argsort(outer_of, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    starts = np.searchsorted(outer_of[order], np.arange(outer_levels.size)).astype(np.intp)
    return place[inner], (outer_levels, inner_levels[order]), starts


def _consecutive(codes: NDArray[Any]) -> tuple[IntArray, IntArray]:
    codes = np.asarray(codes)
    if codes.ndim != 1 or codes.dtype.kind not in "iu":
        raise ValueError("groups must be one-dimensional arrays of integer codes")
    codes = codes.astype(np.intp, copy=False)
    if codes.min() < 0:
        raise ValueError("group codes must not be negative (a missing group is not a group)")
    if codes.max() >= 4 * codes.size + 64:
        levels, index = np.unique(codes, return_inverse=True)
        return index.astype(np.intp), np.asarray(levels, dtype=np.intp)
    present = np.bincount(codes).astype(np.bool_)
    levels = present.nonzero()[0]
    if levels.size == present.size:
        return codes, levels
    return (np.cumsum(present) - 1)[codes], levels


def group_sums(A: Array, codes: IntArray, J: int, root: Array | None, *, cross: int | None = None) -> tuple[Array, Array, Array]:
    """Cross-products within groups, group rows (sums over root sizes) and sizes; `cross` limits the cross-products to the first columns."""
    n, q = A.shape
    At = A.T  # a row a column of A, which is kept by columns
    if root is None:
        sizes = np.bincount(codes, minlength=J).astype(np.float64)
        weighted = At
    else:
        sizes = np.asarray(np.bincount(codes, root * root, J), dtype=np.float64)
        weighted = At * root
    if n * q <= 100_000:
        cells = (codes + (J * np.arange(q))[:, None]).ravel()
        sums = np.asarray(np.bincount(cells, weighted.ravel(), J * q), dtype=np.float64).reshape(q, J)
    else:
        sums = np.empty((q, J))
        for j in range(q):
            sums[j] = np.bincount(codes, weighted[j], J)
    means = sums[:cross] / sizes
    within = np.zeros((means.shape[0], means.shape[0]))
    columns = At[:cross]
    for low in range(0, n, _CHUNK):  # about the means, not by subtraction of squares; in pieces that stay in the processor's cache
        part = slice(low, low + _CHUNK)
        deviations = means.take(codes[part], axis=1)
        if root is not None:
            deviations *= root[part]
        np.subtract(columns[:, part], deviations, out=deviations)
        within += deviations.dot(deviations.T)
    sums /= np.sqrt(sizes)
    return within, np.ascontiguousarray(sums.T), sizes


def identification(within: Array, rows: Array, sizes: Array, starts: IntArray, n: int, p: int) -> str:
    """Which variances the data can tell apart, from ranks only (no outcome is looked at)."""
    J = sizes.size
    if n == J:
        return "singletons" if starts.size == 0 else "confounded"
    if n - J <= p and n - J - _rank(within) == 0:
        return "no_within_df"
    if J - p <= 0 and _rank(np.eye(J) - rows @ rows.T) == 0:
        return "no_between_df"
    K = starts.size
    if K == J:
        return "confounded"
    if 0 < K <= p:
        pair = np.add.reduceat(rows * np.sqrt(sizes)[:, None], starts) / np.sqrt(np.add.reduceat(sizes, starts))[:, None]
        if _rank(np.eye(K) - pair @ pair.T) == 0:
            return "no_between_df"
    return "ok"


def _rank(S: Array) -> int:
    # S is built from orthonormal columns, so its eigenvalues lie in [0, 1] and an absolute limit is meaningful
    return int(np.count_nonzero(np.linalg.eigvalsh(S) > 1e-9))
