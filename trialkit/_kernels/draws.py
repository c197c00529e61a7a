"""The draw `trialkit-draw-1`: HMAC-SHA256 of a label under a seed, bound to a plan's digest.

No library generator takes part: NumPy, R and SAS have each changed what a seed gives, a hash has not and can
be computed again by any language (RFC 2104, FIPS 180-4). The message names the plan, so a changed plan
changes every draw; the label names the site, so that the order of rows cannot change any.

    u(c)  = HMAC-SHA256(key = seed, message = "trialkit-draw-1" LF digest LF label LF c), c = 0, 1, ...
    value = u mod m for the first u(c), read as a big-endian integer, below floor(2^256 / m) * m

Everything here takes and returns plain values; it knows neither files nor sites.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ALGORITHM = "trialkit-draw-1"
_SPAN = 1 << 256

Int64 = np.ndarray[Any, np.dtype[np.int64]]
UInt64 = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True)
class Draw:
    """One number drawn.

    Attributes
    ----------
    label : str
        What was drawn for.
    m : int
        The number of equally likely values.
    counter : int
        How many hashes were passed over before one was accepted; 0 but for odd chances below ``m / 2**256``.
    hmac : str
        The accepted hash, lower-case hexadecimal.
    value : int
        0 .. m-1.
    """

    label: str
    m: int
    counter: int
    hmac: str
    value: int


def message(digest: str, label: str, counter: int) -> bytes:
    """The bytes that are hashed for one draw."""
    return f"{ALGORITHM}\n{digest}\n{label}\n{counter}".encode()


def draw(seed: bytes, digest: str, label: str, m: int) -> Draw:
    """One integer from 0 to ``m - 1``, each exactly equally likely (rejection, no modulo bias).

    Raises
    ------
    ValueError
        `m` is below 1, or the label holds a line feed, which would make two messages one.
    """
    if m < 1:
        raise ValueError(f"m must be at least 1, not {m}")
    if "\n" in label:
        raise ValueError("a label cannot hold a line feed")
    limit = _SPAN // m * m
    counter = 0
    while True:
        hashed = hmac.new(seed, message(digest, label, counter), hashlib.sha256)
        u = int.from_bytes(hashed.digest(), "big")
        if u < limit:
            return Draw(label=label, m=m, counter=counter, hmac=hashed.hexdigest(), value=u % m)
        counter += 1


def shuffle_labels(label: str, n: int) -> tuple[tuple[str, int], ...]:
    """The (label, m) of the draws that `shuffle` makes, in its order."""
    return tuple((f"{label}/{i}", i + 1) for i in range(n - 1, 0, -1))


def shuffle(seed: bytes, digest: str, label: str, items: Sequence[str]) -> tuple[list[str], list[Draw]]:
    """Fisher-Yates from the last place down: for i = n-1 .. 1, swap places i and ``draw(label/i, i + 1)``."""
    order = list(items)
    draws = []
    for sub, m in shuffle_labels(label, len(order)):
        d = draw(seed, digest, sub, m)
        i, j = m - 1, d.value
        order[i], order[j] = order[j], order[i]
        draws.append(d)
    return order, draws


# --- streams for listing what could have happened --------------------------------------------------------------


def stream(key: str, n_bytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """`n_bytes` bytes of SHAKE-256(key): the same on every machine and in every version of every library."""
    return np.frombuffer(hashlib.shake_256(key.encode()).digest(n_bytes), dtype=np.uint8)


def words(key: str, shape: tuple[int, ...]) -> UInt64:
    """Uniform 64-bit integers (big-endian words of `stream`), shape `shape`."""
    count = int(np.prod(shape, dtype=np.int64))
    return stream(key, 8 * count).view(">u8").astype(np.uint64).reshape(shape)


def integers(key: str, m: int, shape: tuple[int, ...]) -> Int64:
    """Uniform integers 0 .. m-1, shape `shape`; rejection, so exactly uniform over the stream's words."""
    if m < 1:
        raise ValueError(f"m must be at least 1, not {m}")
    values = words(key, shape)
    limit = (1 << 64) // m * m
    if limit < 1 << 64:
        bad = values >= np.uint64(limit)
        again = 0
        while bad.any():  # at most m / 2**64 of the words: practically never, but then correctly
            again += 1
            values = np.where(bad, words(f"{key}\nagain {again}", shape), values)
            bad = values >= np.uint64(limit)
    return (values % np.uint64(m)).astype(np.int64)


def permutations(key: str, n_draws: int, n: int) -> Int64:
    """`n_draws` uniform permutations of 0 .. n-1, (n_draws, n): the ranks of random 64-bit words.

    Two equal words in a row of 1,000 would happen once in 4e13 rows; the stable sort then keeps the order.
    """
    return np.argsort(words(key, (n_draws, n)), axis=1, kind="stable").astype(np.int64)
