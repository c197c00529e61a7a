"""One random stream a chain, so that chain k draws the same numbers whatever m, block or worker it runs in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Streams:
    """m independent generators read side by side; every method returns an array whose first axis is the chain."""

    __slots__ = ("_generators",)

    def __init__(self, seeds: Sequence[np.random.SeedSequence]) -> None:
        self._generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]

    def __len__(self) -> int:
        return len(self._generators)

    def normal(self, *shape: int) -> Array:
        """Standard normal numbers (m, *shape)."""
        out = np.empty((len(self), *shape))
        for row, generator in zip(out, self._generators, strict=True):
            generator.standard_normal(out=row)
        return out

    def uniform(self, *shape: int) -> Array:
        """Uniform numbers in (0, 1): never exactly 0, whose normal quantile is infinite."""
        out = np.empty((len(self), *shape))
        for row, generator in zip(out, self._generators, strict=True):
            generator.random(out=row)
        return np.maximum(out, 2.0**-54, out=out)

    def chi2(self, df: float) -> Array:
        """Chi-square numbers (m,)."""
        return np.array([generator.chisquare(df) for generator in self._generators])

    def gamma(self, shape: Array) -> Array:
        """Gamma numbers of scale 1 for shapes (m, k): (m, k)."""
        return np.array([generator.standard_gamma(row) for generator, row in zip(self._generators, shape, strict=True)])
