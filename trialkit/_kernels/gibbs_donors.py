"""Predictive mean matching: an absent value is taken from an observed row whose prediction is near."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Ints = NDArray[np.intp]


def normal_scores(values: Array) -> Array:
    """Rank-based normal scores (r,), ties averaged: the regression behind the matching is not led by a long tail."""
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values))
    _, group = np.unique(values, return_inverse=True)
    mean_rank = np.bincount(group, weights=ranks) / np.bincount(group)
    scores = special.ndtri((mean_rank[group] + 0.5) / len(values))
    spread = scores.std()
    return np.asarray((scores - scores.mean()) / (spread if spread > 0 else 1.0))


def donors(observed: Array, absent: Array, uniform: Array, *, pool: int = 5) -> Ints:
    """For each absent row the index of a donor, drawn from the `pool` observed rows with the nearest prediction.

    Parameters
    ----------
    observed, absent : array (m, r), (m, q)
        Predicted values, intercept of the site included.
    uniform : array (m, q)
        One number a draw.

    Returns
    -------
    int array (m, q)
    """
    m, r = observed.shape
    q = absent.shape[1]
    pool = min(pool, r)
    order = np.argsort(observed, axis=1, kind="stable")
    ordered = np.take_along_axis(observed, order, axis=1)
    # one search for all chains: each chain's values are moved to an interval of their own (the search needs no exact gap)
    low = np.minimum(ordered[:, 0], absent.min(axis=1, initial=np.inf))
    high = np.maximum(ordered[:, -1], absent.max(axis=1, initial=-np.inf))
    span = np.maximum(high - low, 1e-300)
    chain = np.arange(m)[:, None]
    scaled = np.clip((ordered - low[:, None]) / span[:, None], 0, 1) * 0.5 + chain
    wanted = np.clip((absent - low[:, None]) / span[:, None], 0, 1) * 0.5 + chain
    position = np.searchsorted(scaled.ravel(), wanted.ravel()).reshape(m, q) - chain * r
    # the pool nearest in value lie within `pool` places either side; one more, because moving a chain's values rounds them
    wide = 2 * (pool + 1)
    first = np.clip(position - pool - 1, 0, max(r - wide, 0))
    window = np.minimum(first[:, :, None] + np.arange(wide), r - 1)
    flat = window.reshape(m, -1)
    distance = np.abs(np.take_along_axis(ordered, flat, axis=1).reshape(window.shape) - absent[:, :, None])
    if wide > r:
        distance[:, :, r:] = np.inf
    nearest = np.argsort(distance, axis=2, kind="stable")[:, :, :pool]
    choice = np.minimum((uniform * pool).astype(np.intp), pool - 1)
    place = np.take_along_axis(window, np.take_along_axis(nearest, choice[:, :, None], axis=2), axis=2)[:, :, 0]
    return np.take_along_axis(order, place, axis=1)
