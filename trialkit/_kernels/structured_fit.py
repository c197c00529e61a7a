"""The (restricted) likelihood's optimum for a structured mixed model, and a record that inference can use.

Covariance matrices are searched as ``T = F F'`` and residual variances by their logarithm, by Newton's method with exact second
derivatives from several starts. In F a variance at zero is always a stationary point, so the end is judged in T itself: the gradient must
have no direction downhill among positive semidefinite matrices, or the search goes on along it. A matrix that has lost rank is then
polished on the matrices of that rank, which is where observed information is taken (as lme4's and lmerTest's theta has it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels.reml_criterion import Components
from trialkit._kernels.reml_fit import Optimum
from trialkit._kernels.reml_reduction import NOTHING, ROUNDING, Array, IntArray
from trialkit._kernels.structured import Blocks, RandomTerm, State, evaluate, reduce_structured

Method = Literal["reml", "ml"]
BoolArray = NDArray[np.bool_]

#: a variance whose part in a group's spread is below this fraction of the residual's is a variance at zero
_ZERO = 1e-9


@dataclass(frozen=True, slots=True)
class StructuredFit:
    """A fitted model; p fixed effects, c variance parameters (see `Structure`)."""

    beta: Array  # (p,)
    cov_beta: Array  # (p, p)  not adjusted for small samples
    covariances: tuple[Array, ...]  # (d, d) per random term
    residuals: Array  # (h,)  residual variance of each stratum
    log_likelihood: float
    ranks: tuple[int, ...]  # rank of each term's covariance; below d the fit lies on the boundary
    status: str  # "ok", or why there is no inference: a key of STATUS, "not_identified"
    optimum: Optimum
    n: int
    p: int
    method: Method
    components: Components | None  # in units of `unit`; None when status forbids inference
    free: Array  # (c, f)  directions in which the variances can move: the tangent of the matrices of these ranks
    bend: Array  # (f, f)  curvature of that surface, to be added to twice the observed information along `free`
    root: Array  # (q, q)
    unit: float  # variance that counts as one inside
    v: Array  # (c,) variances in those units
    blocks: Blocks

    @property
    def deviance(self) -> float:
        """-2 log-likelihood."""
        return -2.0 * self.log_likelihood

    @property
    def half(self) -> Array:
        """(p, p) half' half is (X'V^-1X)^-1 in units of `unit`."""
        return self.root[: self.p, : self.p] @ self.blocks.basis_inverse.T

    @property
    def boundary(self) -> BoolArray:
        """(t,) whether each term's covariance matrix has lost rank."""
        return np.array([rank < d for rank, d in zip(self.ranks, self.blocks.structure.sizes, strict=True)])


def fit_structured(
    X: Array,
    y: Array,
    groups: Sequence[IntArray],
    terms: Sequence[RandomTerm],
    *,
    strata: IntArray | None = None,
    weights: Array | None = None,
    method: Method = "reml",
) -> StructuredFit:
    """Fit a mixed model with random intercepts and slopes in nested groups, and a residual variance a stratum.

    Parameters
    ----------
    X, y, groups, terms, strata, weights : see `reduce_structured`
    method : "reml" or "ml"

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([1.0, 2, 2, 3, 5, 6, 1, 2, 4, 4, 7, 8])
    >>> site = np.repeat(np.arange(6), 2)
    >>> arm = (site >= 3).astype(float)
    >>> m = fit_structured(np.column_stack([np.ones(12), arm]), y, [site], [RandomTerm(0, np.ones((12, 1)))])
    >>> m.beta.round(4), m.covariances[0].round(4), m.residuals.round(4), round(m.log_likelihood, 4)
    (array([3.1667, 1.1667]), array([[6.5]]), array([0.4167]), -18.5477)
    """
    return fit_blocks(reduce_structured(X, y, groups, terms, strata=strata, weights=weights), method=method)


def fit_blocks(blocks: Blocks, *, method: Method = "reml") -> StructuredFit:
    """Fit from sufficient statistics."""
    if method not in ("reml", "ml"):
        raise ValueError(f'method must be "reml" or "ml", not {method!r}')
    reml = method == "reml"
    if blocks.status in NOTHING:
        return _nothing(blocks, blocks.status, method)
    if not _identified(blocks):
        return _nothing(blocks, "not_identified", method)
    best, steps, evaluations, optima = _best(blocks, reml)
    residual = best.state.v[len(blocks.structure.pairs) :]
    unit = blocks.scale**2
    vanishing = residual.min() < (1e-10 if best.converged else 1e-6)  # of the least-squares residual variance
    if vanishing or residual.min() * unit <= (ROUNDING * blocks.resolution) ** 2:
        return _nothing(blocks, "zero_residual", method)
    return _record(blocks, best, method, evaluations, steps, optima)


def least(blocks: Blocks, *, method: Method) -> float:
    """The least of the criterion (`State.value`) over all variances."""
    return _best(blocks, method == "reml")[0].state.value


# --- coordinates --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Point:
    """Factors F (d, rank) of the covariance matrices and the logs of the residual variances."""

    factors: tuple[Array, ...]
    log_residual: Array

    def variances(self, blocks: Blocks) -> Array:
        return blocks.structure.parameters([F @ F.T for F in self.factors], np.exp(self.log_residual))

    def moved(self, step: Array) -> _Point:
        out, at = [], 0
        for F in self.factors:
            out.append(F + step[at : at + F.size].reshape(F.shape))
            at += F.size
        return _Point(tuple(out), self.log_residual + step[at:])

    def tangent(self, blocks: Blocks) -> Array:
        """dv / dx (c, m), x the entries of the factors and the logs."""
        structure = blocks.structure
        m = sum(F.size for F in self.factors) + self.log_residual.size
        J = np.zeros((structure.count, m))
        starts = np.concatenate([[0], np.cumsum([F.size for F in self.factors])]).astype(int)
        for i, (t, a, b) in enumerate(structure.pairs):
            F = self.factors[t]
            rank = F.shape[1]
            for r in range(rank):
                J[i, starts[t] + a * rank + r] += F[b, r]
                J[i, starts[t] + b * rank + r] += F[a, r]
        k0 = len(structure.pairs)
        for k, value in enumerate(np.exp(self.log_residual)):
            J[k0 + k, starts[-1] + k] = value
        return J

    def bend(self, blocks: Blocks, gradient: Array) -> Array:
        """sum_i gradient_i d2v_i / dx dx (m, m)."""
        D = slope_matrices(blocks, gradient)
        parts = [2.0 * np.kron(D[t], np.eye(F.shape[1])) for t, F in enumerate(self.factors)]
        k0 = len(blocks.structure.pairs)
        parts.append(np.diag(gradient[k0:] * np.exp(self.log_residual)))
        m = sum(part.shape[0] for part in parts)
        out, at = np.zeros((m, m)), 0
        for part in parts:
            out[at : at + part.shape[0], at : at + part.shape[0]] = part
            at += part.shape[0]
        return out


def slope_matrices(blocks: Blocks, gradient: Array) -> list[Array]:
    """The gradient in each covariance matrix, as the symmetric D with d(-2 log-likelihood) = tr(D dT)."""
    D = [np.zeros((d, d)) for d in blocks.structure.sizes]
    for value, (t, a, b) in zip(gradient, blocks.structure.pairs, strict=False):
        D[t][a, b] += value / 2
        D[t][b, a] += value / 2
    return D


def _starts(blocks: Blocks) -> list[_Point]:
    out, sizes = [], blocks.structure.sizes
    for share in (0.05, 0.5, 3.0):
        factors = tuple(np.sqrt(share / max(rows, 1.0)) * np.eye(d) for d, rows in zip(sizes, blocks.typical, strict=True))
        out.append(_Point(factors, np.zeros(blocks.structure.strata)))
    out.append(_Point(tuple(np.sqrt(0.5) * np.eye(d) for d in sizes), np.full(blocks.structure.strata, np.log(0.5))))
    return out


def _identified(blocks: Blocks) -> bool:
    state = evaluate(blocks, _starts(blocks)[1].variances(blocks), reml=True)
    if state is None:
        return False
    scale = np.sqrt(np.maximum(np.diagonal(state.expected), 0.0))
    if np.any(scale <= 1e-9 * scale.max()):
        return False
    return bool(np.linalg.eigvalsh(state.expected / np.outer(scale, scale))[0] > 1e-9)


# --- the search ---------------------------------------------------------------------------------------------


def _best(blocks: Blocks, reml: bool) -> tuple[_Search, int, int, int]:
    """The best optimum from all starts, and the steps, evaluations and optima it took."""
    found = [_descend(blocks, start, reml) for start in _starts(blocks)]
    values = np.array([f.state.value for f in found])
    best = _settle(blocks, found[int(np.flatnonzero(values <= values.min() + 1e-9)[0])], reml)
    return best, sum(f.steps for f in found) + best.steps, sum(f.evaluations for f in found) + best.evaluations, len(found)


@dataclass(frozen=True, slots=True)
class _Search:
    point: _Point
    state: State
    steps: int
    evaluations: int
    converged: bool


def _descend(blocks: Blocks, point: _Point, reml: bool, *, limit: int = 200) -> _Search:
    """Newton's method with exact curvature; negative curvature is turned round, steps are halved until the criterion falls."""
    state = evaluate(blocks, point.variances(blocks), reml=reml)
    if state is None:
        raise ArithmeticError("the covariance of the data is not positive definite at the start of the search")
    evaluations, quiet = 1, 0
    for steps in range(limit):
        J = point.tangent(blocks)
        g = J.T @ state.gradient
        H = J.T @ state.observed @ J + point.bend(blocks, state.gradient)
        noise = np.abs(J).T @ state.level
        values, vectors = np.linalg.eigh(H)
        size = max(float(np.abs(values).max()), 1e-300)
        # rotations of a factor change nothing: no curvature and no slope, no step
        free = np.abs(values) > 1e-11 * size
        along = vectors.T @ g
        step = -vectors[:, free] @ (along[free] / np.abs(values[free]))
        decrement = float(-(g @ step))
        if decrement <= 1e-9 or np.all(np.abs(g) <= 1e-13 * noise):
            quiet += 1
            if quiet > 4 or np.all(np.abs(g) <= 1e-14 * noise) or decrement <= 1e-26:
                return _Search(point, state, steps, evaluations, True)
        largest = float(np.abs(step).max())
        if largest > 4.0:
            step *= 4.0 / largest
        fraction, accepted = 1.0, False
        for _ in range(40):
            trial = point.moved(fraction * step)
            value = evaluate(blocks, trial.variances(blocks), reml=reml)
            evaluations += 1
            slack = 1e-12 * (1.0 + abs(state.value))
            if value is not None and value.value <= state.value - 1e-4 * fraction * min(decrement, 1.0) * (decrement > 1e-7) + slack:
                point, state, accepted = trial, value, True
                break
            fraction *= 0.5
        if not accepted or np.exp(point.log_residual).min() < 1e-13:
            return _Search(point, state, steps, evaluations, quiet > 0)
    return _Search(point, state, limit, evaluations, False)


def _settle(blocks: Blocks, best: _Search, reml: bool) -> _Search:
    """Lose the ranks that are lost, and leave no direction downhill among positive semidefinite matrices."""
    for _ in range(6):
        reduced = _descend(blocks, _without_zeros(blocks, best.point), reml)
        if reduced.state.value <= best.state.value + 1e-8:
            best = reduced
        downhill = _downhill(blocks, best)
        if downhill is None:
            return best
        again = _descend(blocks, downhill, reml)
        if again.state.value >= best.state.value - 1e-10:
            return best
        best = again
    return best


def _without_zeros(blocks: Blocks, point: _Point) -> _Point:
    residual = float(np.exp(point.log_residual).min())
    factors: list[Array] = []
    for F, typical in zip(point.factors, blocks.typical, strict=True):
        values, vectors = np.linalg.eigh(F @ F.T)
        keep = values * typical > _ZERO * residual
        if keep.all():
            factors.append(np.asarray(np.linalg.cholesky(F @ F.T)))
        else:
            factors.append(vectors[:, keep] * np.sqrt(values[keep]))
    return _Point(tuple(factors), point.log_residual)


def _downhill(blocks: Blocks, found: _Search) -> _Point | None:
    """A point beyond a lost rank where the criterion falls, if there is one."""
    D, levels = slope_matrices(blocks, found.state.gradient), slope_matrices(blocks, found.state.level)
    residual = float(np.exp(found.point.log_residual).min())
    factors: list[Array] = []
    any_down = False
    for F, slope, level, typical in zip(found.point.factors, D, levels, blocks.typical, strict=True):
        d = F.shape[0]
        if F.shape[1] == d:
            factors.append(F)
            continue
        values, vectors = np.linalg.eigh(slope)
        if values[0] < -1e-9 * float(np.abs(np.diagonal(level)).max()):
            any_down = True
            T = F @ F.T + 0.01 * residual / typical * np.outer(vectors[:, 0], vectors[:, 0]) + 1e-6 * residual / typical * np.eye(d)
            factors.append(np.asarray(np.linalg.cholesky(T)))
        else:
            factors.append(F)
    return _Point(tuple(factors), found.point.log_residual) if any_down else None


# --- records ------------------------------------------------------------------------------------------------


def _record(blocks: Blocks, found: _Search, method: Method, evaluations: int, steps: int, optima: int) -> StructuredFit:
    state, reml, p = found.state, method == "reml", blocks.p
    n, N = blocks.n, blocks.n - blocks.p if method == "reml" else blocks.n
    unit = blocks.scale**2
    fixed = N * np.log(2.0 * np.pi * unit) - blocks.log_weights + (2.0 * blocks.log_det_basis if reml else 0.0)
    J = found.point.tangent(blocks)
    slope = J.T @ state.gradient
    noise = np.abs(J).T @ state.level
    relative = float(np.max(np.abs(slope) / np.where(noise > 0, noise, 1.0), initial=0.0))
    matrices = [F @ F.T for F in found.point.factors]
    gamma = -state.root[p, :p] / state.root[p, p]
    half = state.root[:p, :p] @ blocks.basis_inverse.T
    return StructuredFit(
        beta=blocks.offset + blocks.scale * (blocks.basis_inverse @ gamma),
        cov_beta=unit * (half.T @ half),
        covariances=tuple(unit * (B @ T @ B.T) for B, T in zip(blocks.turns, matrices, strict=True)),
        residuals=unit * np.exp(found.point.log_residual),
        log_likelihood=-0.5 * (state.value + float(fixed)),
        ranks=tuple(F.shape[1] for F in found.point.factors),
        status="ok",
        optimum=Optimum(steps, evaluations, optima, state.gradient, relative, found.converged and relative < 1e-6),
        n=n,
        p=p,
        method=method,
        components=Components(state.P[:, :p, :p], state.Q[:, :, :p, :p], state.expected, state.observed),
        free=J,
        bend=found.point.bend(blocks, state.gradient),
        root=state.root,
        unit=unit,
        v=state.v,
        blocks=blocks,
    )


def _nothing(blocks: Blocks, status: str, method: Method) -> StructuredFit:
    """Least squares in place of estimates, and no inference."""
    p, sizes, strata = blocks.p, blocks.structure.sizes, blocks.structure.strata
    empty = tuple(np.zeros((d, d)) for d in sizes)
    return StructuredFit(
        beta=blocks.offset,
        cov_beta=np.full((p, p), np.nan),
        covariances=empty,
        residuals=np.zeros(strata),
        log_likelihood=float("-inf") if status == "saturated" else float("inf"),
        ranks=tuple(0 for _ in sizes),
        status=status,
        optimum=Optimum(0, 0, 0, np.zeros(blocks.structure.count), 0.0, True),
        n=blocks.n,
        p=p,
        method=method,
        components=None,
        free=np.zeros((blocks.structure.count, 0)),
        bend=np.zeros((0, 0)),
        root=np.zeros((p + 1, p + 1)),
        unit=blocks.scale**2,
        v=np.zeros(blocks.structure.count),
        blocks=blocks,
    )


def random_effects_structured(fit: StructuredFit) -> list[tuple[Array, Array]]:
    """Best linear unbiased predictions of each random term: (groups, d) predictions and (groups, d, d) variances.

    The variances are those of the effects given the data, the fixed effects and variances taken as known.
    """
    b = fit.blocks
    residual = np.empty(b.cell_groups.shape[1])
    r_row = fit.root[-1] / fit.root[-1, -1]
    for s, index in zip(b.stacks, b.cells, strict=True):
        residual[index] = s.rows @ r_row
    matrices = b.structure.matrices(fit.v)
    out = []
    for T, factor, design, turn in zip(matrices, b.factors, b.cell_design, b.turns, strict=True):
        d = T.shape[0]
        J = int(b.n_groups[factor])
        value, variance = np.zeros((J, d)), np.tile(T, (J, 1, 1))
        for s, index in zip(b.stacks, b.cells, strict=True):
            M = np.linalg.inv(np.tensordot(fit.v, s.G, axes=1))  # (B, r, r)
            score = (M @ residual[index][..., None])[..., 0]
            Z, groups = design[index], b.cell_groups[factor][index]  # (B, r, d), (B, r)
            for g_local in range(index.shape[1]):
                # one group of the factor at a time: the cells of this block that belong to the group of cell g_local
                leader = groups[:, g_local]
                first = np.argmax(groups == leader[:, None], axis=1) == g_local
                if not first.any():
                    continue
                Zg = Z[first] * (groups[first] == leader[first, None])[..., None]
                C = np.einsum("brd,de->bre", Zg, T)  # covariance of the cells with the effect
                value[leader[first]] = np.einsum("bre,br->be", C, score[first])
                variance[leader[first]] = T - np.einsum("brd,brs,bse->bde", C, M[first], C)
        out.append((fit.blocks.scale * value @ turn.T, fit.unit * (turn @ variance @ turn.T)))
    return out
