"""From an underlying normal score to what a questionnaire shows, and back: the true effect on the observed scale.

An outcome's underlying score in the control arm is standard normal; the intervention adds a shift. What is observed is
a scale value, a mean of rating items, a count, or a 0/1. Each is described by the conditional mean and mean
square given the score, m1(y) = E[X|y] and m2(y) = E[X^2|y], so that every true value is an integral over the normal
distribution: taken by the trapezium rule, whose error for such integrands is below 1e-9 (smooth) or 1e-5
(clipped).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from trialkit.simulation.streams import Floats, Stream

Kind = Literal["continuous", "count", "binary", "ordinal"]

_STEP = 0.01
_GRID = np.arange(-10.0, 10.0 + _STEP / 2, _STEP)  # wide enough for a shift of several SDs


def _density(shift: Floats | float) -> Floats:
    """Trapezium weights of N(shift, 1) on the grid, one row a shift."""
    z = _GRID - np.asarray(shift, dtype=np.float64)[..., None]
    weights: Floats = np.exp(-0.5 * z * z) * (_STEP / np.sqrt(2.0 * np.pi))
    return weights


@dataclass(frozen=True, slots=True)
class Measure:
    """How one outcome is observed.

    Attributes
    ----------
    kind : str
        ``continuous``, ``count``, ``binary`` or ``ordinal``.
    mean, sd : float
        Of the observed values in the control arm, before clipping and rounding (for ``binary`` the share of ones).
    low, high : float
        Bounds; infinite when there are none.
    decimals : int
        Rounding of a continuous value or of a scale score.
    items : int
        Rating items whose mean is the score; 0 for none.
    item_correlation : float
        Between two items' underlying values; for ``binary`` and ``ordinal`` the share of the underlying value's
        variance that the score explains.
    """

    kind: Kind
    mean: float
    sd: float
    low: float = -np.inf
    high: float = np.inf
    decimals: int = 4
    items: int = 0
    item_correlation: float = 0.5
    _m1: Floats = field(init=False, repr=False, compare=False)  # (grid,)
    _m2: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_m1", self.conditional_mean(_GRID))
        object.__setattr__(self, "_m2", self.conditional_square(_GRID))

    # --- the conditional moments --------------------------------------------------------------------------

    @property
    def rated(self) -> bool:
        """Whether values come from rating items (one item for binary and ordinal outcomes)."""
        return self.items > 0 or self.kind in ("binary", "ordinal")

    @property
    def _n_items(self) -> int:
        return max(self.items, 1)

    @property
    def _item_sd(self) -> float:
        """SD of an item's underlying value that gives the mean of the items the SD asked for."""
        rho, q = self.item_correlation, self._n_items
        return self.sd / float(np.sqrt(rho + (1.0 - rho) / q))

    @property
    def _shifts(self) -> Floats:
        """Items are not equally hard: their underlying means spread evenly over half an item SD either side."""
        q = self._n_items
        return np.linspace(-0.5, 0.5, q) * self._item_sd if q > 1 else np.zeros(1)

    def _cuts(self) -> tuple[Floats, Floats]:
        """Category values (c,) and, for each item, the underlying cut points between them (q, c-1)."""
        if self.kind == "binary":
            return np.array([0.0, 1.0]), np.array([[float(ndtri(1.0 - self.mean))]])
        values = np.arange(np.ceil(self.low), np.floor(self.high) + 1.0)
        cuts = (values[:-1] + 0.5 - self.mean - self._shifts[:, None]) / self._item_sd
        return values, cuts

    def _category_moments(self, y: Floats) -> tuple[Floats, Floats]:
        """E[item|y] and Var[item|y], (q, ...) each."""
        values, cuts = self._cuts()
        rho = self.item_correlation
        lead = (slice(None), slice(None)) + (None,) * y.ndim
        above = 1.0 - ndtr((cuts[lead] - np.sqrt(rho) * y) / np.sqrt(1.0 - rho))  # P(item > category c)
        steps = np.diff(values)[(None, slice(None)) + (None,) * y.ndim]
        squares = np.diff(values**2)[(None, slice(None)) + (None,) * y.ndim]
        first = values[0] + (above * steps).sum(axis=1)
        second = values[0] ** 2 + (above * squares).sum(axis=1)
        return first, second - first**2

    def _count_rate(self) -> tuple[float, float]:
        """Log mean and log SD of the Poisson mean: mean = m, variance = m + m^2 (e^{g^2} - 1)."""
        g2 = float(np.log1p((self.sd**2 - self.mean) / self.mean**2))
        return float(np.log(self.mean) - g2 / 2.0), float(np.sqrt(g2))

    def conditional_mean(self, y: Floats) -> Floats:
        """m1(y) = E[X | y], the shape of `y`."""
        if self.rated:
            mean: Floats = self._category_moments(y)[0].mean(axis=0)
            return mean
        if self.kind == "count":
            a, g = self._count_rate()
            return np.clip(np.exp(a + g * y), None, self.high)
        return np.clip(self.mean + self.sd * y, self.low, self.high)

    def conditional_square(self, y: Floats) -> Floats:
        """m2(y) = E[X^2 | y], the shape of `y`."""
        if self.rated:
            first, variance = self._category_moments(y)
            square: Floats = first.mean(axis=0) ** 2 + variance.sum(axis=0) / self._n_items**2
            return square
        m1 = self.conditional_mean(y)
        if self.kind == "count":
            return m1**2 + m1
        # rounding to a step h adds h^2/12
        return m1**2 + (10.0**-self.decimals) ** 2 / 12.0

    # --- what is true on the observed scale ---------------------------------------------------------------

    def moments(self, shift: Floats | float) -> tuple[Floats, Floats]:
        """Mean and mean square of the observed value when the score is N(shift, 1); one a shift."""
        weights = _density(shift)
        return weights @ self._m1, weights @ self._m2

    @property
    def grid(self) -> Floats:
        """The scores at which integrals are taken."""
        return _GRID

    def moments_of(self, mean: float, variance: float, *, shift: float = 0.0, share: Floats | None = None) -> tuple[float, float]:
        """Mean and mean square when the score is N(mean, variance) and `shift` is added.

        With `share`, given on the `grid` of scores before the shift, of that share of people alone: not divided by how many they are.
        """
        sd = float(np.sqrt(variance))
        z = (_GRID - shift - mean) / sd
        weights = np.exp(-0.5 * z * z) * (_STEP / (sd * np.sqrt(2.0 * np.pi)))
        if share is not None:
            weights = weights * (share if shift == 0.0 else CubicSpline(_GRID, share)(np.clip(_GRID - shift, _GRID[0], _GRID[-1])))
        return float(weights @ self._m1), float(weights @ self._m2)

    def effect(self, shift: float) -> float:
        """Difference in means over the total SD of both arms in equal parts, when the intervention adds `shift`."""
        mean, square = self.moments(np.array([0.0, shift]))
        total = float(square.mean() - mean.mean() ** 2)
        return float(mean[1] - mean[0]) / float(np.sqrt(total))

    def shift_for(self, d: float) -> float:
        """The shift of the underlying score that makes `effect` equal `d`."""
        if d == 0.0:
            return 0.0
        start = d / np.sqrt(1.0 - d * d / 4.0)  # exact on an unbounded scale
        reach = 1.01 * start
        while (self.effect(reach) - d) * np.sign(d) < 0:
            reach *= 1.5
            if abs(reach) > 8.0:
                raise ValueError(f"an effect of d = {d:g} cannot be had on this scale: it is too skewed, or its bounds are too near")
        return float(brentq(lambda b: self.effect(b) - d, 0.0, reach, xtol=1e-13))

    def shared_covariance(self, share: float) -> float:
        """Covariance of two observed values in the control arm whose scores have correlation `share` >= 0."""
        if share <= 0.0:
            return 0.0
        nodes, weights = np.polynomial.hermite_e.hermegauss(61)
        weights = weights / weights.sum()
        inner, step = np.linspace(-8.0, 8.0, 641, retstep=True)
        density = np.exp(-0.5 * inner**2) * (step / np.sqrt(2.0 * np.pi))
        given = self.conditional_mean(np.sqrt(share) * nodes[:, None] + np.sqrt(max(1.0 - share, 0.0)) * inner) @ density  # (61,)
        return float(weights @ given**2 - (weights @ given) ** 2)

    # --- observing ----------------------------------------------------------------------------------------

    def observe(self, y: Floats, stream: Stream) -> tuple[Floats, Floats | None]:
        """Observed values (n,) of scores `y` (n,), and the items (n, q) they are the mean of when there are any."""
        if self.rated:
            values, cuts = self._cuts()
            rho = self.item_correlation
            under = np.sqrt(rho) * y[:, None] + np.sqrt(1.0 - rho) * stream.normal(len(y), self._n_items)
            ratings = values[(under[:, :, None] > cuts).sum(axis=2)]
            return (ratings.mean(axis=1), ratings) if self.items else (ratings[:, 0], None)
        if self.kind == "count":
            a, g = self._count_rate()
            counts: Floats = np.minimum(stream.poisson(np.exp(a + g * y)), self.high)
            return counts, None
        plain: Floats = np.clip(self.mean + self.sd * y, self.low, self.high)
        return plain, None


def score(items: Floats, *, answered: float, decimals: int) -> Floats:
    """Mean of the items answered, (n,); missing when fewer than the share `answered` of them are."""
    present = ~np.isnan(items)
    count = present.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(present, items, 0.0).sum(axis=1) / count
    enough = count >= np.ceil(answered * items.shape[1] - 1e-12)
    return np.where(enough, np.round(mean, decimals), np.nan)
