"""The canonical last rank: a hash of the two ids, so that equal matchings are told apart without looking at row order.

By the isolation lemma (Mulmuley, Vazirani and Vazirani 1987), weights drawn from 2**40 values leave more than one
optimum with probability at most (number of edges) / 2**40: 2e-6 at 2,000 sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

TIE_BITS = 40


def tie_weights(ids: Sequence[str]) -> Array:
    """The first 40 bits of ``SHA-256("tie-1\\n" + smaller id + "\\n" + larger id)`` for every two ids.

    Parameters
    ----------
    ids : sequence of n str
        Sorted by their UTF-8 bytes.

    Returns
    -------
    (n, n) int64
        Symmetric, 0 on the diagonal.

    Examples
    --------
    >>> tie_weights(["a", "b"])[0, 1] == int(sha256(b"tie-1\\na\\nb").hexdigest()[:10], 16)
    np.True_
    """
    names = [name.encode() for name in ids]
    n = len(names)
    weights = np.zeros((n, n), dtype=np.int64)
    for i, name in enumerate(names[:-1]):
        prefix = b"tie-1\n" + name + b"\n"
        digests = b"".join([b"\0\0\0" + sha256(prefix + other).digest()[:5] for other in names[i + 1 :]])
        row = np.frombuffer(digests, dtype=">i8")
        weights[i, i + 1 :] = row
        weights[i + 1 :, i] = row
    return weights
