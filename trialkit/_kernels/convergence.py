"""Have the chains mixed? Potential scale reduction and effective sample size of a traced quantity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Convergence:
    """Of each traced quantity (...): R-hat and effective sample size over the kept iterations of all chains."""

    r_hat: Array
    ess: Array


def convergence(trace: Array, *, keep: float = 0.5) -> Convergence:
    """R-hat (Gelman & Rubin 1992) and the multi-chain effective sample size (Vehtari et al. 2021, eq. 10-13).

    Parameters
    ----------
    trace : array (iterations, ..., m)
        One value an iteration and chain.
    keep : float
        The last share of the iterations that is judged; at least two are needed.

    Returns
    -------
    Convergence
        NaN where there are fewer than two chains or iterations, or nothing varies (a constant has no mixing to judge).
    """
    first = min(int(np.ceil(len(trace) * (1 - keep))), max(len(trace) - 2, 0))
    x = np.moveaxis(trace[first:], 0, -1)  # (..., m, T)
    shape = x.shape[:-2]
    m, T = x.shape[-2:]
    if m < 2 or T < 2:
        return Convergence(np.full(shape, np.nan), np.full(shape, np.nan))
    centred = x - x.mean(axis=-1, keepdims=True)
    # autocovariance with divisor T, as the variance estimate below needs it at lag 0
    lags = np.stack([(centred[..., : T - k] * centred[..., k:]).sum(axis=-1) / T for k in range(T)], axis=-1)  # (..., m, T)
    within = lags[..., 0].mean(axis=-1) * T / (T - 1)
    between = x.mean(axis=-1).var(axis=-1, ddof=1)
    plus = within * (T - 1) / T + between
    with np.errstate(divide="ignore", invalid="ignore"):
        r_hat = np.sqrt(plus / within)
        rho = 1 - (within[..., None] - lags.mean(axis=-2) * T / (T - 1)) / plus[..., None]
    rho[..., 0] = 1.0
    tau = np.full(shape, -1.0)
    running = np.full(shape, np.inf)
    alive = np.ones(shape, dtype=bool)
    # Geyer's initial monotone sequence: pairs of lags, until a pair's sum is no longer positive
    for k in range(0, T - 1, 2):
        pair = rho[..., k] + rho[..., k + 1]
        alive &= pair > 0
        running = np.minimum(running, pair)
        tau = tau + np.where(alive, 2 * running, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ess = np.minimum(m * T / np.maximum(tau, 1 / np.log10(max(m * T, 10))), m * T * np.log10(m * T))
    nothing = ~(within > 0)
    return Convergence(np.where(nothing, np.nan, r_hat), np.where(nothing | ~np.isfinite(ess), np.nan, ess))
