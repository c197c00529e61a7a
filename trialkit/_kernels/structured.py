"""Mixed models whose random part is richer than intercepts: rows to blocks, and the likelihood at any variances.

``y = X b + sum_t Z_t u_t + e``: every random term t has its own covariance matrix T_t (d x d) for each group of one grouping factor (an
intercept, an intercept and a slope, ...), the factors nested, and the residual variance may differ between strata of rows (by arm, say).
V is linear in its parameters, ``V = sum_i v_i G_i``, so Kenward and Roger's and Satterthwaite's formulas are those of random intercepts.

Rows that share group, stratum and random design are alike: a *cell* is carried by its cross-products about its mean and one row. The
outermost groups are independent, so that every matrix here has the side of the largest number of cells in one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trialkit._kernels.reml_reduction import Array, IntArray, group_sums, nested_codes, project, root_weights


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One random term: its grouping factor (a place in the list of factors) and its design, (n, d)."""

    factor: int
    design: Array


@dataclass(frozen=True, slots=True)
class Stack:
    """Outermost groups with equally many cells r, side by side: B of them."""

    rows: Array  # (B, r, q)
    G: Array  # (c, B, r, r)  derivative of the covariance of `rows` in each variance parameter


@dataclass(frozen=True, slots=True)
class Structure:
    """The c parameters of V: for each term the pairs (a <= b) of its covariance matrix, then the residual variance of each stratum."""

    sizes: tuple[int, ...]  # d of each term
    strata: int

    @property
    def pairs(self) -> tuple[tuple[int, int, int], ...]:
        """(term, a, b) of each covariance parameter."""
        return tuple((t, a, b) for t, d in enumerate(self.sizes) for a in range(d) for b in range(a, d))

    @property
    def count(self) -> int:
        """Number of parameters."""
        return len(self.pairs) + self.strata

    def matrices(self, v: Array) -> list[Array]:
        """The covariance matrix of each term."""
        out = [np.zeros((d, d)) for d in self.sizes]
        for value, (t, a, b) in zip(v, self.pairs, strict=False):
            out[t][a, b] = out[t][b, a] = value
        return out

    def parameters(self, matrices: Sequence[Array], residual: Array) -> Array:
        """The other way round."""
        return np.array([*(matrices[t][a, b] for t, a, b in self.pairs), *residual])


@dataclass(frozen=True, slots=True)
class Blocks:
    """Sufficient statistics; q = p + 1: the orthonormal basis of X, then the residual of y with mean square one."""

    stacks: tuple[Stack, ...]
    within: Array  # (h, q, q)  cross-products about the cells' means, by stratum
    within_df: Array  # (h,)
    structure: Structure
    turns: tuple[Array, ...]  # (d, d) per term: reported covariance = turn @ T @ turn', in units of `scale`^2
    typical: tuple[float, ...]  # per term: mean sum of weights in a group, which makes T * typical comparable to the residual
    n: int
    p: int
    basis_inverse: Array  # (p, p)
    offset: Array  # (p,)
    scale: float
    log_det_basis: float
    log_weights: float
    resolution: float
    status: str
    # to predict the random effects: per stack the outer groups' cells, per cell its groups and its random design
    cells: tuple[IntArray, ...]  # (B, r) per stack: numbers of cells
    cell_groups: IntArray  # (factors, cells)
    cell_design: tuple[Array, ...]  # (cells, d) per term, in the units of the turns, times the root of the cell's size
    factors: tuple[int, ...]  # factor of each term
    n_groups: IntArray  # (factors,)


def reduce_structured(
    X: Array,
    y: Array,
    groups: Sequence[IntArray],
    terms: Sequence[RandomTerm],
    *,
    strata: IntArray | None = None,
    weights: Array | None = None,
) -> Blocks:
    """Reduce the rows.

    Parameters
    ----------
    X : (n, p) of full column rank; y : (n,)
    groups : one or more (n,) arrays of codes, nested, outermost first
    terms : random terms; at least one
    strata : (n,) codes 0..h-1 of the rows' residual variance; one stratum when None
    weights : (n,) positive; the residual variance of row i is that of its stratum divided by its weight

    Raises
    ------
    ValueError : shapes that do not fit, values that are not finite, factors that are not nested, dependent columns of X
    """
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    n, p = X.shape
    if y.shape != (n,) or not (np.isfinite(X).all() and np.isfinite(y).all()):
        raise ValueError("X must be (n, p), y (n,), and both finite")
    if not terms or any(t.design.shape[0] != n or t.design.ndim != 2 for t in terms):
        raise ValueError("every random term needs a design of n rows")
    root, log_weights = root_weights(weights, n)
    codes = [np.unique(g, return_inverse=True)[1].astype(np.intp) for g in groups]
    for outer, inner in pairwise(codes):
        nested_codes([outer, inner])
    row_strata = np.zeros(n, dtype=np.intp) if strata is None else np.unique(strata, return_inverse=True)[1].astype(np.intp)
    h = int(row_strata.max()) + 1
    done = project(X, y, root)
    space = done.basis.space
    designs, turns = zip(*(_standardised(t.design) for t in terms), strict=True)

    cell = codes[-1]
    for column in (row_strata, *(d[:, j] for d in designs for j in range(d.shape[1]))):
        found, place = np.unique(column, return_inverse=True)
        cell = np.unique(cell * found.size + place, return_inverse=True)[1].astype(np.intp)
    n_cells = int(cell.max()) + 1
    first = np.empty(n_cells, dtype=np.intp)
    first[cell] = np.arange(n)
    _, rows, sizes = group_sums(space, cell, n_cells, root)
    within, within_df = np.zeros((h, p + 1, p + 1)), np.zeros(h)
    for k in range(h):
        here = row_strata == k
        held = np.unique(cell[here], return_inverse=True)[1].astype(np.intp)
        within[k] = group_sums(space[here], held, int(held.max()) + 1, None if root is None else root[here])[0]
        within_df[k] = here.sum() - held.max() - 1
    # unit mean square, so that variances are numbers about one
    unit = float(np.sqrt(max(n - p, 1)))
    rows[:, p] *= unit
    within[:, :, p] *= unit
    within[:, p, :] *= unit

    structure = Structure(tuple(d.shape[1] for d in designs), h)
    cell_groups = np.stack([g[first] for g in codes])
    scaled = tuple(d[first] * np.sqrt(sizes)[:, None] for d in designs)
    stacks, cells = _stacked(rows, cell_groups, scaled, row_strata[first], structure, [t.factor for t in terms])
    counts = np.array([int(g.max()) + 1 for g in codes], dtype=np.intp)
    return Blocks(
        stacks=stacks,
        within=within,
        within_df=within_df,
        structure=structure,
        turns=turns,
        typical=tuple(float(sizes.sum() / counts[t.factor]) for t in terms),
        n=n,
        p=p,
        basis_inverse=done.basis.inverse,
        offset=done.offset,
        scale=done.scale / unit,
        log_det_basis=done.basis.log_det,
        log_weights=log_weights,
        resolution=done.resolution,
        status=done.status,
        cells=cells,
        cell_groups=cell_groups,
        cell_design=scaled,
        factors=tuple(t.factor for t in terms),
        n_groups=counts,
    )


def _standardised(Z: Array) -> tuple[Array, Array]:
    """Zs, the columns of Z centred (where Z holds a constant) and scaled, and B with Z B = Zs: effects and covariances turn back by B."""
    Z = np.asarray(Z, dtype=np.float64)
    d = Z.shape[1]
    constant = next((j for j in range(d) if Z[0, j] != 0 and np.all(Z[:, j] == Z[0, j])), None)
    back = np.eye(d)
    out = Z.copy()
    # a column of 0 and 1 is left as it is: nothing is gained, and its cells stay few
    for j in range(d):
        if j == constant or np.isin(out[:, j], (0.0, 1.0)).all():
            continue
        if constant is not None:
            mean = out[:, j].mean()
            out[:, j] -= mean
            # Z u = Zs w with w_j = s u_j, w_0 = u_0 + mean u_j / value
            back[constant, j] = -mean / Z[0, constant]
        size = float(np.sqrt(np.mean(out[:, j] ** 2)))
        if size > 0:
            out[:, j] /= size
            back[:, j] /= size
    return out, back


def _stacked(
    rows: Array, groups: IntArray, designs: Sequence[Array], strata: IntArray, structure: Structure, factors: Sequence[int]
) -> tuple[tuple[Stack, ...], tuple[IntArray, ...]]:
    outer = groups[0]
    order = np.argsort(outer, kind="stable")
    lengths = np.bincount(outer)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    stacks, cells = [], []
    for r in np.unique(lengths[lengths > 0]):
        blocks = np.flatnonzero(lengths == r)
        index = order[starts[blocks][:, None] + np.arange(r)]  # (B, r)
        G = np.zeros((structure.count, blocks.size, r, r))
        for i, (t, a, b) in enumerate(structure.pairs):
            g = groups[factors[t]][index]
            same = g[:, :, None] == g[:, None, :]
            za, zb = designs[t][index, a], designs[t][index, b]
            product = za[:, :, None] * zb[:, None, :]
            G[i] = same * (product if a == b else product + product.transpose(0, 2, 1))
        for k in range(structure.strata):
            diagonal = (strata[index] == k).astype(np.float64)
            G[len(structure.pairs) + k] = diagonal[:, :, None] * np.eye(r)
        stacks.append(Stack(rows[index], G))
        cells.append(index)
    return tuple(stacks), tuple(cells)


@dataclass(frozen=True, slots=True)
class State:
    """The model at given variances; matrices whitened by `root`, the inverse Cholesky factor of A'V^-1A."""

    v: Array  # (c,)
    value: float  # -2 log-likelihood less its constants
    root: Array  # (q, q)
    ypy: float
    gradient: Array  # (c,)
    level: Array  # (c,)  size of the terms the gradient is the difference of
    P: Array  # (c, q, q)
    Q: Array  # (c, c, q, q)
    expected: Array  # (c, c)  twice the expected information
    observed: Array  # (c, c)  twice the observed information


def evaluate(blocks: Blocks, v: Array, *, reml: bool = True, order: int = 2) -> State | None:
    """State at the variances v (c,); None where V is not positive definite. Order 0 gives the value alone."""
    c, q, p = v.size, blocks.p + 1, blocks.p
    residual = v[len(blocks.structure.pairs) :]
    if not np.all(residual > 0) or not np.isfinite(v).all():
        return None
    H = np.tensordot(1.0 / residual, blocks.within, axes=1)
    log_det = float(blocks.within_df @ np.log(residual))
    white = []
    for s in blocks.stacks:
        try:
            L = np.linalg.cholesky(np.tensordot(v, s.G, axes=1))
        except np.linalg.LinAlgError:
            return None
        inverse = np.linalg.inv(L)
        log_det += 2.0 * float(np.log(np.diagonal(L, axis1=-2, axis2=-1)).sum())
        rows = inverse @ s.rows
        flat = rows.reshape(-1, q)
        H = H + flat.T @ flat
        white.append((inverse, rows))
    try:
        factor = np.linalg.cholesky(H)
    except np.linalg.LinAlgError:
        return None
    root = np.linalg.inv(factor)
    ypy = float(factor[p, p] ** 2)
    value = log_det + ypy + (2.0 * float(np.log(np.diagonal(factor)[:p]).sum()) if reml else 0.0)
    none = np.empty(0)
    if order == 0:
        return State(v, value, root, ypy, none, none, none, none, none, none)
    P, Q = np.zeros((c, q, q)), np.zeros((c, c, q, q))
    trace, trace2 = np.zeros(c), np.zeros((c, c))
    for s, (inverse, rows) in zip(blocks.stacks, white, strict=True):
        G = inverse @ s.G @ inverse.mT  # (c, B, r, r)
        Grows = G @ rows  # (c, B, r, q)
        B, r = rows.shape[:2]
        wide = Grows.reshape(c, B * r, q)
        P += rows.reshape(B * r, q).T @ wide
        Q += np.matmul(wide.mT[:, None], wide[None])
        trace += np.einsum("cbii->c", G)
        square = G.reshape(c, -1)
        trace2 += square @ square.T
    k0 = len(blocks.structure.pairs)
    for k, (value_k, W, df) in enumerate(zip(residual, blocks.within, blocks.within_df, strict=True)):
        i = k0 + k
        P[i] += W / value_k**2
        Q[i, i] += W / value_k**3
        trace[i] += df / value_k
        trace2[i, i] += df / value_k**2
    P = root @ P @ root.T
    Q = root @ Q @ root.T
    Pxx, Pxy = P[:, :p, :p], P[:, :p, p]
    explained = ypy * P[:, p, p]
    p_x = np.einsum("kii->k", Pxx)
    flat_p = Pxx.reshape(c, p * p)
    expected = trace2 - 2.0 * np.einsum("klii->kl", Q[:, :, :p, :p]) + flat_p @ flat_p.T if reml else trace2
    squares = Q[:, :, p, p] - Pxy @ Pxy.T
    observed = ypy * (squares + squares.T) - expected
    gradient = trace - explained - (p_x if reml else 0.0)
    return State(v, value, root, ypy, gradient, trace + explained, P, Q, expected, observed)
