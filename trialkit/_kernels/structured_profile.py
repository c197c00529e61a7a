"""Profile-likelihood intervals of standard deviations and correlations of a structured mixed model.

One parameter is held and the likelihood maximised over all others. A term's covariance is written ``S = L L'``, L lower triangular with the
held coordinate first: then its standard deviation is the one entry ``L_00``; with two coordinates first the second row's direction
``(r, sqrt(1 - r^2))`` is their correlation. What is left is searched without constraints, by the exact gradient. lme4's
``confint(method = "profile")`` is this by maximum likelihood, read off interpolating splines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import ndtri

from trialkit._kernels.reml_reduction import STATUS, Array
from trialkit._kernels.structured import Blocks, evaluate
from trialkit._kernels.structured_fit import Method, StructuredFit, fit_blocks, least, slope_matrices


@dataclass(frozen=True, slots=True)
class ProfiledParameter:
    """An interval: of a standard deviation (`a` equals `b`), a correlation, or a stratum's residual standard deviation (`term` None)."""

    term: int | None
    a: int
    b: int
    estimate: float
    low: float
    high: float


def profile_variances(blocks: Blocks, *, level: float = 0.95, method: Method = "ml") -> list[ProfiledParameter]:
    """Intervals of every standard deviation and correlation, term by term, then of the residual standard deviation of each stratum.

    Parameters
    ----------
    blocks : sufficient statistics, from :func:`trialkit._kernels.structured.reduce_structured`
    level : confidence level
    method : "ml" (as lme4) or "reml"

    Returns
    -------
    list of ProfiledParameter
        A lower limit of 0 of a standard deviation means that no variance at all is not rejected; a correlation's limits may be -1 and 1.

    Raises
    ------
    ValueError : the data do not identify the model
    """
    if not 0.0 < level < 1.0:
        raise ValueError("level must lie between 0 and 1")
    fitted = fit_blocks(blocks, method=method)
    if fitted.status != "ok":
        raise ValueError(f"no profile: {STATUS.get(fitted.status, fitted.status)}")
    z = float(ndtri(0.5 + 0.5 * level))
    surface = _Surface(blocks, fitted, method == "reml", least(blocks, method=method))
    out = []
    for t, size in enumerate(blocks.structure.sizes):
        out += [surface.spread(t, a, z) for a in range(size)]
        out += [surface.correlation(t, a, b, z) for a in range(size) for b in range(a + 1, size)]
    return out + [surface.residual(k, z) for k in range(blocks.structure.strata)]


class _Surface:
    """The criterion over (covariances of the reader's coordinates, scaled to numbers about one; log residual variances)."""

    def __init__(self, blocks: Blocks, fitted: StructuredFit, reml: bool, best: float) -> None:
        self.blocks, self.reml, self.best = blocks, reml, best
        self.unit = float(np.sqrt(blocks.scale**2))
        # rows of the turns scaled to unit length: coordinates of different units become alike
        self.lengths = [np.sqrt((B**2).sum(axis=1)) for B in blocks.turns]
        self.back = [np.linalg.inv(B / s[:, None]) for B, s in zip(blocks.turns, self.lengths, strict=True)]
        self.covariances = [S / np.outer(s, s) / self.unit**2 for S, s in zip(fitted.covariances, self.lengths, strict=True)]
        self.logs = np.log(np.maximum(fitted.residuals / self.unit**2, 1e-12))
        self.noise = [float(np.sqrt(np.exp(self.logs).mean() / max(rows, 1.0))) for rows in blocks.typical]

    # --- one parameter each

    def spread(self, t: int, a: int, z: float) -> ProfiledParameter:
        scale = self.unit * self.lengths[t][a]
        sd = float(np.sqrt(max(self.covariances[t][a, a], 0.0)))
        order = [a, *(k for k in range(len(self.back[t])) if k != a)]
        low, high = self._limits(lambda v: _Held(t, order, sd=v), sd, self.noise[t], z)
        return ProfiledParameter(t, a, a, sd * scale, low * scale, high * scale)

    def residual(self, k: int, z: float) -> ProfiledParameter:
        sd = float(np.exp(0.5 * self.logs[k]))
        low, high = self._limits(lambda v: _Held(stratum=k, log=2 * float(np.log(max(v, 1e-150)))), sd, sd, z, floor=1e-6 * sd)
        return ProfiledParameter(None, k, k, sd * self.unit, low * self.unit, high * self.unit)

    def correlation(self, t: int, a: int, b: int, z: float) -> ProfiledParameter:
        S = self.covariances[t]
        both = float(np.sqrt(max(S[a, a] * S[b, b], 0.0)))
        value = float(np.clip(S[a, b] / both, -1.0, 1.0)) if both > 0 else 0.0
        order = [a, b, *(k for k in range(len(S)) if k not in (a, b))]
        root = self._root(lambda v: _Held(t, order, correlation=v))
        ends = []
        for end in (-1.0, 1.0):
            ends.append(end if root(end) <= z or value == end else float(brentq(lambda v: root(v) - z, value, end, xtol=1e-8)))
        return ProfiledParameter(t, a, b, value if both > 0 else float("nan"), ends[0], ends[1])

    # --- the search

    def _limits(self, hold: Callable[[float], _Held], sd: float, size: float, z: float, *, floor: float = 0.0) -> tuple[float, float]:
        root = self._root(hold)
        inside = sd if sd > 0.0 else 0.05 * size
        while sd == 0.0 and root(inside) >= z:
            inside *= 0.5
        top = 1.5 * inside
        while root(top) < z:
            top *= 1.5
        low = floor if root(floor) <= z else float(brentq(lambda v: root(v) - z, floor, inside, xtol=1e-10, rtol=1e-8))
        return low, float(brentq(lambda v: root(v) - z, inside, top, xtol=1e-10, rtol=1e-8))

    def _root(self, hold: Callable[[float], _Held]) -> Callable[[float], float]:
        kept: list[Array] = []

        def root(value: float) -> float:
            held = hold(value)
            found = [self._least(held, x) for x in (*kept[-1:], self._start(held))]
            best = min(found, key=lambda f: f[0])
            kept.append(best[1])
            return float(np.sqrt(max(best[0] - self.best, 0.0)))

        return root

    def _start(self, held: _Held) -> Array:
        """The fitted values of what is free; variances at zero, where the gradient vanishes by itself, are moved off it."""
        out = []
        for t, S in enumerate(self.covariances):
            order = held.order if t == held.term and held.order is not None else list(range(len(S)))
            A = S[np.ix_(order, order)] + self.noise[t] ** 2 * np.eye(len(S))
            out.append(held.free_of(t, np.asarray(np.linalg.cholesky(A), dtype=np.float64)))
        return np.concatenate([*out, np.delete(self.logs, [] if held.stratum is None else [held.stratum])])

    def _least(self, held: _Held, start: Array) -> tuple[float, Array]:
        def value(x: Array) -> tuple[float, Array]:
            factors, parts, at = [], [], 0
            for t, S in enumerate(self.covariances):
                count = held.count(t, len(S))
                parts.append(x[at : at + count])
                factors.append(held.factor(t, len(S), parts[-1]))
                at += count
            logs = x[at:] if held.stratum is None else np.insert(x[at:], held.stratum, held.log)
            logs = np.clip(logs, -60.0, 60.0)
            matrices = []
            for t, L in enumerate(factors):
                order = held.place(t, len(L))
                S = (L @ L.T)[np.ix_(order, order)]
                matrices.append(self.back[t] @ S @ self.back[t].T)
            state = evaluate(self.blocks, self.blocks.structure.parameters(matrices, np.exp(logs)), reml=self.reml)
            if state is None or not np.isfinite(state.value):
                return 1e12, np.zeros(len(x))
            gradient = []
            for t, (D, L) in enumerate(zip(slope_matrices(self.blocks, state.gradient), factors, strict=True)):
                order = held.place(t, len(L))
                inverse = np.argsort(order)
                turned = (self.back[t].T @ D @ self.back[t])[np.ix_(inverse, inverse)]
                gradient.append(held.slope(t, 2.0 * turned @ L, parts[t]))
            own = state.gradient[len(self.blocks.structure.pairs) :] * np.exp(logs)
            gradient.append(np.delete(own, [] if held.stratum is None else [held.stratum]))
            return state.value, np.concatenate(gradient)

        if not len(start):
            return value(start)[0], start
        found = minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-6, "maxiter": 400})
        return float(found.fun), np.asarray(found.x)


class _Held:
    """What is held, and the map between a term's factor and its free numbers."""

    def __init__(
        self,
        term: int | None = None,
        order: list[int] | None = None,
        *,
        sd: float | None = None,
        correlation: float | None = None,
        stratum: int | None = None,
        log: float = 0.0,
    ) -> None:
        self.term, self.order, self.sd, self.stratum, self.log = term, order, sd, stratum, log
        self.direction = None if correlation is None else np.array([correlation, np.sqrt(max(1.0 - correlation**2, 0.0))])

    def place(self, t: int, d: int) -> list[int]:
        """Where the coordinates stand in a factor that has the held ones first."""
        return np.argsort(self.order).tolist() if t == self.term and self.order is not None else list(range(d))

    def count(self, t: int, d: int) -> int:
        """Free numbers of a term."""
        return d * (d + 1) // 2 - (t == self.term)

    def free_of(self, t: int, L: Array) -> Array:
        """The free numbers of a factor."""
        rows, columns = np.tril_indices(len(L))
        x = L[rows, columns]
        if t != self.term:
            return x
        if self.direction is None:
            return x[1:]
        return np.concatenate([x[:1], [np.hypot(x[1], x[2])], x[3:]])

    def factor(self, t: int, d: int, x: Array) -> Array:
        """The factor of free numbers."""
        if t == self.term:
            # the two standard deviations of a held correlation are not negative, or it would change its sign
            x = (
                np.concatenate([[self.sd], x])
                if self.direction is None
                else np.concatenate([np.abs(x[:1]), np.abs(x[1]) * self.direction, x[2:]])
            )
        L = np.zeros((d, d))
        L[np.tril_indices(d)] = x
        return L

    def slope(self, t: int, dL: Array, x: Array) -> Array:
        """The gradient in the free numbers x, from that in the factor."""
        g = dL[np.tril_indices(len(dL))]
        if t != self.term:
            return g
        if self.direction is None:
            return g[1:]
        signs = np.where(x[:2] < 0, -1.0, 1.0)
        return np.concatenate([g[:1] * signs[0], [g[1:3] @ self.direction * signs[1]], g[3:]])
