"""One random stream a chain, so that chain k draws the same numbers whatever m, block or worker it runs in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_RESERVE = 2048  # numbers a chain that are drawn at a time: a call for each few of them costs more than the numbers


class Streams:
    """m independent generators read side by side; every method returns an array whose first axis is the chain."""

    __slots__ = ("_generators", "_normal", "_uniform")

    def __init__(self, seeds: Sequence[np.random.SeedSequence]) -> None:
        self._generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self._normal = _Reserve(self._normals)
        self._uniform = _Reserve(self._uniforms)

    def __len__(self) -> int:
        return len(self._generators)

    def normal(self, *shape: int) -> Array:
        """Standard normal numbers (m, *shape)."""
        return self._normal.take(shape)

    def uniform(self, *shape: int) -> Array:
        """Uniform numbers in (0, 1): never exactly 0, whose normal quantile is infinite."""
        return self._uniform.take(shape)

    def chi2(self, df: float) -> Array:
        """Chi-square numbers (m,)."""
        return np.array([generator.chisquare(df) for generator in self._generators])

    def gamma(self, shape: Array) -> Array:
        """Gamma numbers of scale 1 for shapes (m, k): (m, k)."""
        return np.array([generator.standard_gamma(row) for generator, row in zip(self._generators, shape, strict=True)])

    def _normals(self, count: int) -> Array:
        out = np.empty((len(self), count))
        for row, generator in zip(out, self._generators, strict=True):
            generator.standard_normal(out=row)
        return out

    def _uniforms(self, count: int) -> Array:
        out = np.empty((len(self), count))
        for row, generator in zip(out, self._generators, strict=True):
            generator.random(out=row)
        return np.maximum(out, 2.0**-54, out=out)


class _Reserve:
    """Numbers drawn ahead. What a request gets depends on the requests before it and on nothing else."""

    __slots__ = ("_draw", "_next", "_numbers")

    def __init__(self, draw: Callable[[int], Array]) -> None:
        self._draw = draw
        self._numbers: Array | None = None
        self._next = _RESERVE

    def take(self, shape: tuple[int, ...]) -> Array:
        """The next numbers (m, *shape); large requests are drawn by themselves."""
        count = math.prod(shape)
        if 4 * count > _RESERVE:
            out = self._draw(count)
        else:
            if self._numbers is None or self._next + count > _RESERVE:
                self._numbers, self._next = self._draw(_RESERVE), 0
            out = self._numbers[:, self._next : self._next + count]
            self._next += count
        return out.reshape(len(out), *shape)
