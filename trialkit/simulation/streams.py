"""Named random streams: every part of a trial draws from its own, so that a change of one part moves no other.

A stream is a PCG64 bit generator seeded by ``SeedSequence(seed, spawn_key=words of the name)``. Only its raw
64-bit words are used, made into uniforms and normals here: numpy promises that a bit generator's words stay the
same for ever, but not what its distributions make of them (NEP 19).
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, pdtr, pdtrik

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@lru_cache(maxsize=4096)
def words(*names: str) -> tuple[int, ...]:
    """The spawn key of a named stream: two 32-bit words of the name's SHA-256 a part."""
    key: list[int] = []
    for name in names:
        digest = hashlib.sha256(name.encode()).digest()
        key += [int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")]
    return tuple(key)


class Stream:
    """Uniform, normal and Poisson numbers from one named stream; it costs nothing until it is used."""

    __slots__ = ("_bits", "_names", "_seed")

    def __init__(self, seed: int, *names: str) -> None:
        self._seed, self._names = seed, names
        self._bits: np.random.PCG64 | None = None

    def uniform(self, *shape: int) -> Floats:
        """Uniform on the open interval (0, 1): 53 bits, centred in their cell so that 0 and 1 cannot come out."""
        if self._bits is None:
            self._bits = np.random.PCG64(np.random.SeedSequence(self._seed, spawn_key=words(*self._names)))
        size = math.prod(shape)
        raw = self._bits.random_raw(size) >> np.uint64(11)
        return ((raw.astype(np.float64) + 0.5) * 2.0**-53).reshape(shape)

    def normal(self, *shape: int) -> Floats:
        """Standard normal, by inversion."""
        values: Floats = ndtri(self.uniform(*shape))
        return values

    def order(self, n: int) -> Ints:
        """A random order of 0..n-1."""
        return np.argsort(self.uniform(n), kind="stable")

    def poisson(self, mean: Floats) -> Floats:
        """Poisson counts with the given means, by inversion."""
        u = self.uniform(*mean.shape)
        return poisson_quantile(u, mean)


def poisson_quantile(u: Floats, mean: Floats) -> Floats:
    """The smallest count whose Poisson distribution function is at least `u`."""
    with np.errstate(invalid="ignore"):
        k = np.ceil(pdtrik(u, mean))
    # below the mass at 0 the continuous inverse does not exist
    k = np.where((u <= np.exp(-mean)) | ~np.isfinite(k), 0.0, np.maximum(k, 0.0))
    # the continuous inverse may end one step off: put the last step right exactly
    k = np.where((k > 0) & (pdtr(np.maximum(k - 1.0, 0.0), mean) >= u), k - 1.0, k)
    counts: Floats = np.where(pdtr(k, mean) < u, k + 1.0, k)
    return counts


def child_seeds(seed: int, n: int, *names: str) -> list[int]:
    """`n` distinct-looking 63-bit seeds, all made before any work is handed out."""
    raw = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=words("child seeds", *names))).random_raw(n)
    return [int(r) for r in (np.asarray(raw) >> np.uint64(1))]


def hexadecimal(seed: int, *names: str) -> str:
    """32 hex digits from a named stream: a draw's seed as a person outside would type it."""
    state: Any = np.random.SeedSequence(seed, spawn_key=words(*names)).generate_state(4, np.uint32)
    return "".join(f"{int(word):08x}" for word in state)
