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

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from trialkit._kernels.gibbs_streams import Streams

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

# phi = t / (1 - t); t up to .99 is an ICC up to .9999
T_MAX = 0.99
# cells of the grid on t that proposes a ratio without pairs: a fraction of the density's width, which shrinks with the root of the sites
_GRID, _GRID_LEAST, _GRID_MOST = 10, 96, 2048
_COARSE = np.linspace(0.0, 1.0, 25)
_CELLS = 32
# share of proposals drawn flat over the whole range, which makes the histogram proposal exact in its tails too
_DEFENSIVE = 0.05
_WINDOW = 12.0
# a squared pivot below this is rounding: one row of a 0/1 column leaves far more
_UNSEEN = 1e-8
_SLOPE_SD = 2.5


@dataclass(frozen=True, slots=True)
class Layout:
    """How the used rows lie in sites; sites of one size share one term of the determinant."""

    count: Array  # (J,)  used rows a site, 0 allowed
    size: Array  # (S,)  the distinct sizes, of sites with a used row
    sites_of_size: Array  # (S,)
    size_of_site: Ints  # (J,)  place of each site's size, S where it has no used row
    pairs: Pairs | None = None
    grids: dict[tuple[float, str | float], Grid] = field(default_factory=dict)

    @classmethod
    def of(cls, count: NDArray[np.integer], pair: Ints | None = None) -> Layout:
        """From the number of used rows in each site (J,), and the pair of each site (J,), codes 0..Q-1, if pairs have an intercept."""
        size, many = np.unique(count[count > 0], return_counts=True)
        place = np.where(count > 0, np.searchsorted(size, count), len(size))
        return cls(count.astype(float), size.astype(float), many.astype(float), place, None if pair is None else Pairs.of(pair))

    def by_size(self, of_sites: Array) -> Array:
        """Sums over the sites of each distinct size: (m, J) to (m, S)."""
        return totals(of_sites, self.size_of_site, len(self.size) + 1)[:, :-1]

    def grid(self, prior: Prior) -> Grid:
        """What the density of t on a grid takes, made once."""
        key = (prior.t_max, prior.site)
        if key not in self.grids:
            self.grids[key] = Grid.of(self, prior)
        return self.grids[key]


def totals(values: Array, code: Ints, codes: int) -> Array:
    """Sums (m, codes) of the values (m, r) of one code 0..codes-1."""
    m = len(values)
    place = np.arange(0, m * codes, codes)[:, None] + code
    return np.asarray(np.bincount(place.ravel(), values.ravel(), m * codes).reshape(m, codes), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells of t over its whole range, with the parts of its log density there that no chain changes."""

    width: float
    weight: Array  # (S, G)  phi^2 / (1 + phi^2 size): what a sum of squares between sites of one size takes off
    constant: Array  # (G,)  the determinant's and the prior's part

    @classmethod
    def of(cls, layout: Layout, prior: Prior) -> Grid:
        """For sites without pairs."""
        sites = layout.sites_of_size.sum()
        cells = int(np.clip(_GRID * np.sqrt(sites), _GRID_LEAST, _GRID_MOST))
        t = prior.t_max * (np.arange(cells) + 0.5) / cells
        phi = t / (1 - t)
        inflation = 1 + phi**2 * layout.size[:, None]
        determinant = (np.log(inflation) * layout.sites_of_size[:, None]).sum(axis=0)
        return cls(prior.t_max / cells, phi**2 / inflation, _log_prior(prior, phi) - 0.5 * determinant)


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
class Columns:
    """Which of w columns are the predictors, and which one the outcome."""

    predictors: Ints  # (p,)
    outcome: int
    width: int
    square: Ints  # ((p + 1)^2,)  places of [predictors, outcome]^2 in the flat (w, w)

    @classmethod
    def of(cls, predictors: Ints, outcome: int, width: int) -> Columns:
        """The others of the `width` columns take no part."""
        both = np.append(predictors, outcome)
        return cls(predictors, outcome, width, (both[:, None] * width + both).ravel())

    def spread(self, beta: Array) -> Array:
        """Coefficients (m, p) at their places among all columns (m, w)."""
        full = np.zeros((len(beta), self.width))
        full[:, self.predictors] = beta
        return full

    def residual(self, beta: Array, scale: Array | float = 1.0) -> Array:
        """What the columns are multiplied by to give scale y - x'beta, (m, w)."""
        full = np.zeros((len(beta), self.width))
        full[:, self.predictors] = -beta
        full[:, self.outcome] = scale
        return full


class Workspace:
    """Arrays used again at every visit: to allocate and clear them anew costs as much as what is written there."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[str, Array] = {}

    def array(self, name: str, *shape: int) -> Array:
        """An array of this shape, holding anything; it is overwritten when the name is asked for again."""
        count = math.prod(shape)
        if name not in self._kept or len(self._kept[name]) < count:
            self._kept[name] = np.empty(count)
        return self._kept[name][:count].reshape(shape)


@dataclass(frozen=True, slots=True)
class Moments:
    """Sufficient statistics of r rows of w columns, of which some are the predictors and one is the outcome."""

    cross: Array  # (m, w, w)  cross-products
    site: Array | None  # (m, J, w)  site sums
    rows: int
    columns: Columns
    work: Workspace = field(default_factory=Workspace)

    @property
    def yy(self) -> Array:
        """Sum of squares of the outcome (m,)."""
        return self.cross[:, self.columns.outcome, self.columns.outcome]


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
    m = len(moments.cross)
    if layout is None or moments.site is None:
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
    columns, cross, site = moments.columns, moments.cross, moments.site
    m, p = len(cross), len(columns.predictors)
    sites = outer_kinds = 0
    shrink = shrink_pair = kept = None
    if layout is not None and site is not None:
        sites = len(layout.count)
        theta = _square(t)[:, None]
        inflation = 1 + theta * layout.count
        shrink = theta / inflation
        cross = _less(cross, site, shrink, moments.work)
        if layout.pairs is not None and t_pair is not None:
            outer_kinds = len(layout.pairs.start)
            kept = 1 / inflation
            theta_pair = _square(t_pair)
            shrink_pair = theta_pair[:, None] / (1 + theta_pair[:, None] * layout.pairs.total(kept * layout.count, 1))
            cross = _less(cross, layout.pairs.total(site * kept[:, :, None], 1), shrink_pair, Workspace())
    # the factor of the bordered matrix holds the forward solve and the residual sum of squares in its last row;
    # the corner is doubled so that a perfect fit leaves it positive definite
    bordered = np.take(cross.reshape(m, -1), columns.square, axis=1)
    yy = np.maximum(bordered[:, -1], 1e-14 * moments.yy) + prior.df * prior.scale
    bordered[:, : -1 : p + 2] += prior.precision
    bordered[:, -1] = 2 * yy + 1e-100
    factor, repaired = identified(bordered.reshape(m, p + 1, p + 1), p)
    residual = np.maximum(factor[:, p, p] ** 2 - yy, 1e-14 * yy + 1e-100)
    scale = np.ones(m)
    if latent is None:
        s2 = residual / streams.chi2(residual_df(prior, moments.rows, p, intercepts=(shrink is not None) + (shrink_pair is not None)))
    else:
        s2 = np.ones(m)
        flat = p - int(np.count_nonzero(prior.precision))
        scale = np.sqrt(streams.chi2(moments.rows - flat + latent.cuts) / (residual + latent.penalty))
    noise = np.sqrt(s2)[:, None] * streams.normal(p + sites + outer_kinds)
    # the last row is part of the system, with 0 on its right: what it solves for is 0
    right = np.zeros((m, p + 1))
    right[:, :p] = scale[:, None] * factor[:, p, :p] + noise[:, :p]
    beta = back_substitute(factor, right)[:, :p]
    if shrink is None or site is None:
        return LinearDraw(beta, s2, np.zeros(m), None, None, scale, repaired)
    remainder = (site @ columns.residual(beta, scale)[:, :, None])[:, :, 0]
    outer: Array | float = 0.0
    if shrink_pair is not None and kept is not None and layout is not None and layout.pairs is not None:
        v = shrink_pair * layout.pairs.total(remainder * kept, 1) + np.sqrt(shrink_pair) * noise[:, p + sites :]
        outer = np.take(v, layout.pairs.of_site, axis=1)
        remainder = remainder - layout.count * outer
    u = shrink * remainder + np.sqrt(shrink) * noise[:, p : p + sites]
    return LinearDraw(beta, s2, t, u + outer, t_pair, scale, repaired)


def _less(cross: Array, sums: Array, shrink: Array, work: Workspace) -> Array:
    """Cross-products with the intercepts of clusters whose sums are (m, J, w) integrated out."""
    x = np.multiply(sums, np.sqrt(shrink)[:, :, None], out=work.array("scaled", *sums.shape))
    out = np.matmul(x.swapaxes(1, 2), x, out=work.array("collapsed", *cross.shape))
    return np.subtract(cross, out, out=out)


def _log_prior(prior: Prior, phi: Array) -> Array:
    """Log density of t at phi, up to a constant."""
    out = 2 * np.log1p(phi)  # dphi / dt
    if not isinstance(prior.site, str):
        out -= np.log1p((phi / prior.site) ** 2)
    return np.asarray(out)


def _draw_ratios(
    moments: Moments, layout: Layout, prior: Prior, streams: Streams, beta: Array, t: Array, t_pair: Array | None, sigma2: float | None
) -> tuple[Array, Array | None]:
    """t (and t_pair) given beta, with the intercepts (and sigma^2, unless fixed) integrated out."""
    assert moments.site is not None
    to_residual = moments.columns.residual(beta)
    penalty = (beta**2 * prior.precision).sum(axis=1) + prior.df * prior.scale
    squares = ((to_residual[:, None, :] @ moments.cross)[:, 0] * to_residual).sum(axis=1)
    squares = np.maximum(squares, 1e-14 * moments.yy)
    between = (moments.site @ to_residual[:, :, None])[:, :, 0]
    kinds = 1 + (t_pair is not None)
    exponent = moments.rows + np.count_nonzero(prior.precision) + prior.df - kinds * (prior.site == "uniform")

    def likelihood(form: Array) -> Array:
        """Log likelihood less half the determinant, given the sums of squares that the intercepts take away from `squares`."""
        form = squares[:, None] - form
        if sigma2 is not None:
            return np.asarray(-0.5 / sigma2 * form)
        form = np.maximum(form, 1e-14 * squares[:, None] + 1e-200) + penalty[:, None]
        return np.asarray(-0.5 * exponent * np.log(form))

    if layout.pairs is None or t_pair is None:
        grid = layout.grid(prior)
        by_size = layout.by_size(between**2)[:, None, :]

        def of_sites(at: Array) -> Array:
            phi = at / (1 - at)
            theta = phi**2
            inflation = 1 + theta[:, :, None] * layout.size
            determinant = (np.log(inflation) * layout.sites_of_size).sum(axis=2)
            return np.asarray(_log_prior(prior, phi) - 0.5 * determinant + likelihood(theta * (by_size / inflation).sum(axis=2)))

        heights = likelihood((by_size @ grid.weight)[:, 0]) + grid.constant
        low, width = np.zeros(len(t)), np.full(len(t), grid.width)
        return _metropolis(t, of_sites, heights, low, width, prior.t_max, streams), None
    pairs = layout.pairs
    fine = int(layout.sites_of_size.sum() > 300)
    outer = _square(t_pair)[:, None]

    def of_sites_in_pairs(at: Array) -> Array:
        phi = at / (1 - at)
        theta = phi**2
        kept = 1 / (1 + theta[:, :, None] * layout.count)
        inflation = 1 + outer[:, :, None] * pairs.total(kept * layout.count, 2)
        determinant = np.log(inflation).sum(axis=2) - np.log(kept).sum(axis=2)
        total = pairs.total(kept * between[:, None, :], 2)
        form = theta * (kept * (between**2)[:, None, :]).sum(axis=2) + outer * (total**2 / inflation).sum(axis=2)
        return np.asarray(_log_prior(prior, phi) - 0.5 * determinant + likelihood(form))

    t = independence_step(t, of_sites_in_pairs, prior.t_max, streams, fine)
    theta = _square(t)[:, None]
    kept = 1 / (1 + theta * layout.count)
    weight, total = pairs.total(kept * layout.count, 1), pairs.total(kept * between, 1)
    inner = theta[:, 0] * (kept * between**2).sum(axis=1)

    def of_pairs(at: Array) -> Array:
        phi = at / (1 - at)
        inflation = 1 + (phi**2)[:, :, None] * weight[:, None, :]
        form = inner[:, None] + phi**2 * ((total**2)[:, None, :] / inflation).sum(axis=2)
        return np.asarray(_log_prior(prior, phi) - 0.5 * np.log(inflation).sum(axis=2) + likelihood(form))

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
    heights = log_density(low[:, None] + width[:, None] * (np.arange(_CELLS) + 0.5))
    return _metropolis(t, log_density, heights, low, width, t_max, streams)


def _metropolis(
    t: Array, log_density: Callable[[Array], Array], heights: Array, low: Array, width: Array, t_max: float, streams: Streams
) -> Array:
    """The step itself, with a histogram of log densities (m, G), which is used up, in cells of `width` (m,) from `low` (m,) on."""
    cells = heights.shape[1]
    heights -= heights.max(axis=1, keepdims=True)
    weight = np.exp(heights, out=heights)
    cumulated = np.cumsum(weight, axis=1)
    total = cumulated[:, -1]
    pick, place, accept = streams.uniform(3).T
    flat = pick < _DEFENSIVE
    level = (pick - _DEFENSIVE) / (1 - _DEFENSIVE) * total
    cell = np.minimum((cumulated < level[:, None]).sum(axis=1), cells - 1)
    both = np.empty((len(t), 2))
    both[:, 0] = t
    both[:, 1] = np.where(flat, t_max * place, low + width * (cell + place))
    where = np.floor((both - low[:, None]) / width[:, None])
    inside = (where >= 0) & (where < cells)
    index = np.where(inside, where, 0).astype(np.intp)
    histogram = weight[np.arange(len(t))[:, None], index] * inside / (total * width)[:, None]
    importance = log_density(both) - np.log((1 - _DEFENSIVE) * histogram + _DEFENSIVE / t_max)
    take = np.log(accept) < importance[:, 1] - importance[:, 0]
    return np.where(take, both[:, 1], t)


def _window(edges: Array, log_density: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Where the density is not negligible: the cells within a factor exp(-12) of the highest, and one more each side."""
    heights = log_density((edges[:, 1:] + edges[:, :-1]) / 2)
    high_cells = heights > heights.max(axis=1, keepdims=True) - _WINDOW
    cells = high_cells.shape[1]
    first = np.maximum(high_cells.argmax(axis=1) - 1, 0)
    last = np.minimum(cells - high_cells[:, ::-1].argmax(axis=1) + 1, cells)
    rows = np.arange(len(edges))
    return edges[rows, first], edges[rows, last]


def identified(matrix: Array, p: int) -> tuple[Array, NDArray[np.bool_]]:
    """Lower factors of normal equations (m, p, p), or bordered ones, and which chains' rows leave some coefficient undetermined.

    In one chain, at one visit, nobody used may be of a category, or two columns be one. A flat prior would draw that coefficient from
    anywhere; such a chain takes N(0, (2.5 sigma)^2) for its slopes instead. Columns are standardised or coded 0/1.
    """
    factor, weak = cholesky(matrix)
    weak = weak | (np.diagonal(factor, axis1=1, axis2=2)[:, :p] ** 2 < _UNSEEN).any(axis=1)
    if weak.any():
        again = matrix[weak]
        slopes = np.arange(1, p)
        again[:, slopes, slopes] += _SLOPE_SD**-2
        factor[weak], _ = cholesky(again)
    return factor, weak


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
    """Solve L' x = b for (m, p, p) and (m, p)."""
    # numpy has no triangular solve; a call a chain costs less than a general solve, and each chain's bits are its own
    return np.array([blas.dtrsv(one.T, b) for one, b in zip(lower, right, strict=True)]).reshape(right.shape)
