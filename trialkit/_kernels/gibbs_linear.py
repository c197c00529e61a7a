r"""The random-intercept linear regression, drawn from sufficient statistics for m chains at once.

.. math:: y_{ij} = x_{ij}'\beta + u_j + e_{ij}, \quad u_j \sim N(0, \varphi^2 \sigma^2), \quad e_{ij} \sim N(0, \sigma^2)

One cycle, in an order that leaves the posterior invariant (a partially collapsed Gibbs sampler):

1. :math:`\varphi \mid \beta, y` with :math:`u` and :math:`\sigma^2` integrated out: an independence Metropolis step whose proposal is a
   histogram of the exact density, so that nearly every draw is accepted and a small variance never traps the chain at zero;
2. :math:`\sigma^2, \beta \mid \varphi, y` with :math:`u` integrated out: conjugate, one Cholesky factor;
3. :math:`u \mid \beta, \varphi, \sigma^2, y`: closed form; a site without an observed row is drawn from its prior.

With a second, outer intercept (pairs of sites, or sites of subclusters: :math:`v_p \sim N(0, \varphi_P^2 \sigma^2)`) step 1 is made
twice, for either ratio given the other, both with all intercepts integrated out; everything after it likewise.

The prior of the site variance is uniform on the standard deviation of u, or half-Cauchy on its ratio to the residual's; neither
has units, so y and 10 y give the same answer. An inverse-Wishart prior with unit scale does have units and doubles a small ICC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels.gibbs_streams import Streams

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

# phi = t / (1 - t); t up to .99 is an ICC up to .9999
T_MAX = 0.99
_COARSE = np.linspace(0.0, 1.0, 25)
_CELLS = 32
# share of proposals drawn flat over the whole range, which makes the histogram proposal exact in its tails too
_DEFENSIVE = 0.05
_WINDOW = 12.0


@dataclass(frozen=True, slots=True)
class Layout:
    """How the used rows lie in sites; sites of one size share one term of the determinant."""

    count: Array  # (J,)  used rows a site, 0 allowed
    by_size: Ints  # sites with a used row, ordered by size
    size_start: Ints  # where each distinct size starts in `by_size`
    size: Array  # (S,)  the distinct sizes
    sites_of_size: Array  # (S,)
    pairs: Pairs | None = None

    @classmethod
    def of(cls, count: NDArray[np.integer], pair: Ints | None = None) -> Layout:
        """From the number of used rows in each site (J,), and the pair of each site (J,), codes 0..Q-1, if pairs have an intercept."""
        order = np.argsort(count, kind="stable")
        order = order[count[order] > 0]
        size, start, many = np.unique(count[order], return_index=True, return_counts=True)
        pairs = None if pair is None else Pairs.of(pair)
        return cls(count.astype(float), order, start.astype(np.intp), size.astype(float), many.astype(float), pairs)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which sites form a pair (or any larger block)."""

    of_site: Ints  # (J,)  code 0..Q-1
    order: Ints  # (J,)  sites, ordered by pair
    start: Ints  # (Q,)  where each pair starts in `order`

    @classmethod
    def of(cls, pair: Ints) -> Pairs:
        """From the code of each site; every code 0..Q-1 occurs."""
        order = np.argsort(pair, kind="stable")
        return cls(pair, order, np.unique(pair[order], return_index=True)[1].astype(np.intp))

    def total(self, of_sites: Array, axis: int) -> Array:
        """Sums over the sites of each pair."""
        return np.asarray(np.add.reduceat(np.take(of_sites, self.order, axis=axis), self.start, axis=axis))


@dataclass(frozen=True, slots=True)
class Prior:
    """Prior of one regression.

    `precision` (p,) is the prior precision of each coefficient in units of 1/sigma^2 (0 = flat); `df`, `scale` an inverse
    chi-square for sigma^2 (df = 0: 1/sigma^2); `site` is "uniform" (on the sd of u) or the scale of a half-Cauchy on phi, either
    cut at phi = t_max / (1 - t_max).
    """

    precision: Array
    df: float = 0.0
    scale: float = 0.0
    site: str | float = "uniform"
    t_max: float = T_MAX


@dataclass(frozen=True, slots=True)
class Moments:
    """Sufficient statistics of r rows."""

    gram: Array  # (m, p, p)  X'X
    xy: Array  # (m, p)
    yy: Array  # (m,)
    rows: int
    site_x: Array | None  # (m, J, p)  site sums
    site_y: Array | None  # (m, J)


@dataclass(frozen=True, slots=True)
class LatentScale:
    """What bounds the scale of a latent outcome z: z -> g z with its `cuts` free cut points keeps every category.

    Given phi, with beta and u integrated out, g^2 is chi-square over (residual sum of squares + `penalty`) (Liu & Sabatti 2000; with one
    cut point, the parameter expansion of Liu & Wu 1999): one number frees the sampler from the slow creep of Albert & Chib's.
    """

    cuts: int
    penalty: Array  # (m,)  sum of squared cut points over their prior variance


@dataclass(frozen=True, slots=True)
class LinearDraw:
    """One draw a chain."""

    beta: Array  # (m, p)
    sigma2: Array  # (m,)
    t: Array  # (m,)  phi / (1 + phi)
    u: Array | None  # (m, J)  the site's whole intercept, its pair's included
    t_pair: Array | None  # (m,)  as t, of the pairs
    scale: Array  # (m,)  what the latent outcome (and its cut points) were multiplied by; 1 for an observed one
    repaired: NDArray[np.bool_]  # (m,)  chains whose normal equations were singular to working precision


def draw(
    moments: Moments,
    layout: Layout | None,
    prior: Prior,
    streams: Streams,
    *,
    beta: Array | None,
    t: Array,
    t_pair: Array | None = None,
    latent: LatentScale | None = None,
) -> LinearDraw:
    """One cycle; `beta` is the last draw (None at the start, when `t` and `t_pair` are kept).

    With `latent` the outcome is a latent variable of residual variance 1, and its scale is moved too.
    """
    m = len(moments.xy)
    if layout is None or moments.site_x is None or moments.site_y is None:
        return _regress(moments, None, prior, streams, np.zeros(m), None, latent)
    if layout.pairs is None:
        t_pair = None
    elif t_pair is None:
        t_pair = np.full(m, 0.2)
    if beta is not None:
        t, t_pair = _draw_ratios(moments, layout, prior, streams, beta, t, t_pair, None if latent is None else 1.0)
    return _regress(moments, layout, prior, streams, t, t_pair, latent)


def residual_df(prior: Prior, rows: int, p: int, *, intercepts: int) -> float:
    """Degrees of freedom of the draw of sigma^2 with so many kinds of random intercept; below one it cannot be drawn."""
    flat = p - np.count_nonzero(prior.precision)
    # a uniform sd of u is sigma times a uniform phi: one factor sigma
    return float(rows - flat + prior.df - intercepts * (prior.site == "uniform"))


def _square(t: Array) -> Array:
    return np.asarray((t / (1 - t)) ** 2)


def _regress(
    moments: Moments,
    layout: Layout | None,
    prior: Prior,
    streams: Streams,
    t: Array,
    t_pair: Array | None,
    latent: LatentScale | None,
) -> LinearDraw:
    m, p = moments.xy.shape
    gram, xy, yy = moments.gram, moments.xy, moments.yy
    shrink = shrink_pair = kept = None
    if layout is not None and moments.site_x is not None and moments.site_y is not None:
        theta = _square(t)
        shrink = theta[:, None] / (1 + theta[:, None] * layout.count)
        gram, xy, yy = _less((gram, xy, yy), moments.site_x, moments.site_y, shrink)
        if layout.pairs is not None and t_pair is not None:
            kept = 1 / (1 + theta[:, None] * layout.count)
            theta_pair = _square(t_pair)
            shrink_pair = theta_pair[:, None] / (1 + theta_pair[:, None] * layout.pairs.total(kept * layout.count, 1))
            pair_x = layout.pairs.total(moments.site_x * kept[:, :, None], 1)
            pair_y = layout.pairs.total(moments.site_y * kept, 1)
            gram, xy, yy = _less((gram, xy, yy), pair_x, pair_y, shrink_pair)
    # the factor of the bordered matrix holds the forward solve and the residual sum of squares in its last row;
    # the corner is doubled so that a perfect fit leaves it positive definite
    yy = np.maximum(yy, 1e-14 * moments.yy) + prior.df * prior.scale
    bordered = np.empty((m, p + 1, p + 1))
    bordered[:, :p, :p] = gram
    bordered[:, np.arange(p), np.arange(p)] += prior.precision
    bordered[:, p, :p] = xy
    bordered[:, :p, p] = xy
    bordered[:, p, p] = 2 * yy + 1e-100
    factor, repaired = cholesky(bordered)
    residual = np.maximum(factor[:, p, p] ** 2 - yy, 1e-14 * yy + 1e-100)
    scale = np.ones(m)
    if latent is None:
        s2 = residual / streams.chi2(residual_df(prior, moments.rows, p, intercepts=(shrink is not None) + (shrink_pair is not None)))
    else:
        s2 = np.ones(m)
        flat = p - np.count_nonzero(prior.precision)
        scale = np.sqrt(streams.chi2(moments.rows - flat + latent.cuts) / (residual + latent.penalty))
    s = np.sqrt(s2)
    beta = back_substitute(factor[:, :p, :p], scale[:, None] * factor[:, p, :p] + s[:, None] * streams.normal(p))
    if shrink is None or moments.site_x is None or moments.site_y is None:
        return LinearDraw(beta, s2, np.zeros(m), None, None, scale, repaired)
    remainder = scale[:, None] * moments.site_y - (moments.site_x @ beta[:, :, None])[:, :, 0]
    outer: Array | float = 0.0
    if shrink_pair is not None and kept is not None and layout is not None and layout.pairs is not None:
        total = layout.pairs.total(remainder * kept, 1)
        v = shrink_pair * total + s[:, None] * np.sqrt(shrink_pair) * streams.normal(total.shape[1])
        outer = np.take(v, layout.pairs.of_site, axis=1)
        remainder = remainder - layout.count * outer
    u = shrink * remainder + s[:, None] * np.sqrt(shrink) * streams.normal(shrink.shape[1])
    return LinearDraw(beta, s2, t, u + outer, t_pair, scale, repaired)


def _less(moments: tuple[Array, Array, Array], x: Array, y: Array, shrink: Array) -> tuple[Array, Array, Array]:
    """X'X, X'y, y'y with the intercepts of clusters whose sums are x (m, J, p), y (m, J) integrated out."""
    root = np.sqrt(shrink)
    x = x * root[:, :, None]
    y = y * root
    gram, xy, yy = moments
    return gram - x.swapaxes(1, 2) @ x, xy - (y[:, None, :] @ x)[:, 0], yy - (y**2).sum(axis=1)


def _draw_ratios(
    moments: Moments, layout: Layout, prior: Prior, streams: Streams, beta: Array, t: Array, t_pair: Array | None, sigma2: float | None
) -> tuple[Array, Array | None]:
    """t (and t_pair) given beta, with the intercepts (and sigma^2, unless fixed) integrated out."""
    assert moments.site_x is not None
    assert moments.site_y is not None
    fitted = (moments.gram @ beta[:, :, None])[:, :, 0]
    penalty = (beta**2 * prior.precision).sum(axis=1) + prior.df * prior.scale
    squares = np.maximum(moments.yy - 2 * (beta * moments.xy).sum(axis=1) + (beta * fitted).sum(axis=1), 1e-14 * moments.yy)
    remainder = moments.site_y - (moments.site_x @ beta[:, :, None])[:, :, 0]
    kinds = 1 + (t_pair is not None)
    exponent = moments.rows + np.count_nonzero(prior.precision) + prior.df - kinds * (prior.site == "uniform")

    def log_density(phi: Array, determinant: Array, form: Array) -> Array:
        """Of t, at phi (m, G), from the log determinant and the sum of squares that the intercepts take away, less `squares`."""
        form = squares[:, None] - form
        if sigma2 is None:
            form = np.maximum(form, 1e-14 * squares[:, None] + 1e-200) + penalty[:, None]
            out = -0.5 * determinant - 0.5 * exponent * np.log(form)
        else:
            out = -0.5 * determinant - 0.5 * form / sigma2
        out += 2 * np.log1p(phi)  # dphi / dt
        if not isinstance(prior.site, str):
            out -= np.log1p((phi / prior.site) ** 2)
        return np.asarray(out)

    fine = int(layout.sites_of_size.sum() > 300)
    if layout.pairs is None or t_pair is None:
        between = np.add.reduceat(np.take(remainder**2, layout.by_size, axis=1), layout.size_start, axis=1)

        def of_sites(at: Array) -> Array:
            phi = at / (1 - at)
            theta = phi**2
            inflation = 1 + theta[:, :, None] * layout.size
            determinant = (np.log(inflation) * layout.sites_of_size).sum(axis=2)
            return log_density(phi, determinant, theta * (between[:, None, :] / inflation).sum(axis=2))

        return independence_step(t, of_sites, prior.t_max, streams, fine), None
    pairs = layout.pairs
    outer = _square(t_pair)[:, None]

    def of_sites_in_pairs(at: Array) -> Array:
        phi = at / (1 - at)
        theta = phi**2
        kept = 1 / (1 + theta[:, :, None] * layout.count)
        inflation = 1 + outer[:, :, None] * pairs.total(kept * layout.count, 2)
        determinant = np.log(inflation).sum(axis=2) - np.log(kept).sum(axis=2)
        total = pairs.total(kept * remainder[:, None, :], 2)
        form = theta * (kept * (remainder**2)[:, None, :]).sum(axis=2) + outer * (total**2 / inflation).sum(axis=2)
        return log_density(phi, determinant, form)

    t = independence_step(t, of_sites_in_pairs, prior.t_max, streams, fine)
    theta = _square(t)[:, None]
    kept = 1 / (1 + theta * layout.count)
    weight, total = pairs.total(kept * layout.count, 1), pairs.total(kept * remainder, 1)
    inner = theta[:, 0] * (kept * remainder**2).sum(axis=1)

    def of_pairs(at: Array) -> Array:
        phi = at / (1 - at)
        inflation = 1 + (phi**2)[:, :, None] * weight[:, None, :]
        form = inner[:, None] + phi**2 * ((total**2)[:, None, :] / inflation).sum(axis=2)
        return log_density(phi, np.log(inflation).sum(axis=2), form)

    return t, independence_step(t_pair, of_pairs, prior.t_max, streams, fine)


def independence_step(t: Array, log_density: Callable[[Array], Array], t_max: float, streams: Streams, fine: int = 0) -> Array:
    """One Metropolis step for t in (0, t_max), a number a chain, whose proposal is a histogram of its density.

    `log_density` takes (m, G) places. 5% of the proposals are flat over the whole range; about 19 in 20 are accepted.
    """
    m = len(t)
    low, high = _window(np.broadcast_to(t_max * _COARSE, (m, len(_COARSE))), log_density)
    # with many sites the density is narrower than a coarse cell: look once more inside the window
    for _ in range(fine):
        low, high = _window(low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 25), log_density)
    width = (high - low) / _CELLS
    cells = low[:, None] + width[:, None] * (np.arange(_CELLS) + 0.5)
    heights = log_density(cells)
    weight = np.exp(heights - heights.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    cumulated = np.cumsum(weight, axis=1)

    pick, place, accept = streams.uniform(3).T
    flat = pick < _DEFENSIVE
    level = (pick - _DEFENSIVE) / (1 - _DEFENSIVE)
    cell = np.minimum((cumulated < level[:, None]).sum(axis=1), _CELLS - 1)
    proposal = np.where(flat, t_max * place, low + width * (cell + place))
    both = np.stack([t, proposal], axis=1)
    where = np.floor((both - low[:, None]) / width[:, None])
    inside = (where >= 0) & (where < _CELLS)
    index = np.clip(where, 0, _CELLS - 1).astype(np.intp)
    histogram = np.where(inside, np.take_along_axis(weight, index, axis=1) / width[:, None], 0.0)
    importance = log_density(both) - np.log((1 - _DEFENSIVE) * histogram + _DEFENSIVE / t_max)
    take = np.log(accept) < importance[:, 1] - importance[:, 0]
    return np.where(take, proposal, t)


def _window(edges: Array, log_density: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Where the density is not negligible: the cells within a factor exp(-12) of the highest, and one more each side."""
    heights = log_density((edges[:, 1:] + edges[:, :-1]) / 2)
    high_cells = heights > heights.max(axis=1, keepdims=True) - _WINDOW
    cells = high_cells.shape[1]
    first = np.maximum(high_cells.argmax(axis=1) - 1, 0)
    last = np.minimum(cells - high_cells[:, ::-1].argmax(axis=1) + 1, cells)
    rows = np.arange(len(edges))
    return edges[rows, first], edges[rows, last]


def cholesky(matrix: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Lower factors of (m, p, p); a matrix singular to working precision gets the smallest ridge that factors, and a flag.

    Each matrix is treated by itself, so that one bad chain changes no other.
    """
    repaired = np.zeros(len(matrix), dtype=bool)
    try:
        return np.asarray(np.linalg.cholesky(matrix), dtype=np.float64), repaired
    except np.linalg.LinAlgError:
        pass
    out = np.empty_like(matrix)
    for k, one in enumerate(matrix):
        ridge = 0.0
        diagonal = np.diagonal(one)
        for _ in range(12):
            try:
                out[k] = np.linalg.cholesky(one + ridge * np.diag(np.maximum(diagonal, 1e-12 * diagonal.max())))
                break
            except np.linalg.LinAlgError:
                ridge = max(1e-12, ridge * 10)
                repaired[k] = True
        else:
            raise ValueError("the normal equations are singular and no small ridge repairs them")
    return out, repaired


def back_substitute(lower: Array, right: Array) -> Array:
    """Solve L' x = b for (m, p, p) and (m, p): a loop over p with the chains innermost, each chain's bits its own."""
    # numpy has no batched triangular solve; with the chains innermost the loop beats a general solve of each
    factor = np.ascontiguousarray(lower.transpose(1, 2, 0))
    x = right.T.copy()
    for i in range(len(x) - 1, -1, -1):
        x[i] /= factor[i, i]
        x[:i] -= factor[i, :i] * x[i]
    return np.ascontiguousarray(x.T)
