"""Several co-primary outcomes measured on the same people: all, any, or one test of them together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from trialkit._kernels import noncentral
from trialkit._kernels.quadrature import chi_scale
from trialkit.door import InputError, unknown_word
from trialkit.results import Result

Array = NDArray[np.float64]
TESTS = ("all", "any", "bonferroni", "sidak", "dap", "weighted", "combined")
_WORDS = {
    "all": "every outcome significant (intersection-union)",
    "any": "joint F test, at least one outcome differs",
    "bonferroni": "the weaker outcome at alpha / Q",
    "sidak": "the weaker outcome at 1 - (1 - alpha)^(1/Q)",
    "dap": "the weaker outcome at the Dubey/Armitage-Parmar level",
    "weighted": "sum of the standardised statistics, 1 df",
    "combined": "sum of the outcomes as one",
}


@dataclass(frozen=True, slots=True)
class CoPrimaryResult(Result):
    """Power of a trial with co-primary outcomes.

    Attributes
    ----------
    power : float
        Of the test asked for.
    test : str
    df : float
    clusters : int
    cluster_size : float
    frame : DataFrame
        Power of every test.
    outcomes : DataFrame
        Each outcome alone at the full level.
    correlation : (Q, Q) array
        Of the effect estimates.
    """

    power: float
    test: str
    df: float
    clusters: int
    cluster_size: float
    frame: pd.DataFrame
    outcomes: pd.DataFrame
    correlation: Array

    @property
    def title(self) -> str:
        return f"Co-primary outcomes: power {self.power:.4f} ({_WORDS[self.test]}), {self.clusters} clusters"

    @property
    def formats(self) -> Mapping[str, str]:
        return {"power": ".4f"}


def co_primary(
    *,
    clusters: int,
    cluster_size: float,
    effects: Sequence[float],
    icc: float | Sequence[float],
    between_person_correlation: float | Sequence[Sequence[float]],
    within_person_correlation: float | Sequence[Sequence[float]],
    sd: float | Sequence[float] = 1.0,
    test: str = "all",
    alpha: float = 0.05,
    sides: int = 2,
    allocation_ratio: float = 1.0,
    cluster_size_cv: float = 0.0,
    distribution: str = "f",
) -> CoPrimaryResult:
    """Power with several co-primary continuous outcomes on the same people in a parallel cluster-randomised trial.

    Parameters
    ----------
    clusters, cluster_size : as for `power`
    effects : sequence of Q numbers
        Differences, in the units of ``sd``.
    icc : number or Q numbers
        Of each outcome.
    between_person_correlation : number or (Q, Q)
        Of two outcomes in two people of one cluster.
    within_person_correlation : number or (Q, Q)
        Of two outcomes in one person.
    sd : number or Q numbers
    test : {"all", "any", "bonferroni", "sidak", "dap", "weighted", "combined"}
        Which of the tests ``.power`` is of; ``.frame`` has them all.
    alpha, sides, allocation_ratio, cluster_size_cv
        As for `power`; ``sides`` matters to "all".
    distribution : {"f", "z"}
        Noncentral F and multivariate t with clusters - 2Q df, or their limits.

    Returns
    -------
    CoPrimaryResult

    Raises
    ------
    InputError
        A value outside its range, or correlations that no data can have.

    Notes
    -----
    Covariance of the estimates (Sigma_e/m + Sigma_b)/{J p(1-p)}, and "all", from Yang, Moerbeek, Taljaard & Li 2023, Biometrics 79:1293.

    Examples
    --------
    >>> found = co_primary(clusters=30, cluster_size=300, effects=(0.1, 0.1), sd=(0.23**0.5, 0.25**0.5), icc=0.025,
    ...                    between_person_correlation=0.01, within_person_correlation=0.05, sides=1)
    >>> round(found.power, 3)
    0.899
    """
    if test not in TESTS:
        raise InputError(unknown_word(str(test), TESTS, what="test"))
    if distribution not in ("f", "z"):
        raise InputError(unknown_word(str(distribution), ("f", "z"), what="distribution"))
    beta = np.array(list(effects), dtype=float)
    Q = len(beta)
    if Q < 2 or not np.isfinite(beta).all():
        raise InputError("effects lists the difference of each outcome, at least two finite numbers.")
    s, rho = _each(sd, Q, "sd"), _each(icc, Q, "icc")
    if np.any(s <= 0) or np.any((rho < 0) | (rho >= 1)):
        raise InputError("sd must be positive and icc in [0, 1), for each outcome.")
    if sides not in (1, 2) or not 0 < alpha < 1 or not allocation_ratio > 0 or not cluster_size > 0 or cluster_size_cv < 0:
        raise InputError(
            "sides is 1 or 2, alpha between 0 and 1, allocation_ratio and cluster_size positive, cluster_size_cv not negative."
        )
    if isinstance(clusters, bool) or clusters != int(clusters) or clusters <= 2 * Q:
        raise InputError(f"clusters = {clusters!r}: {Q} outcomes need a whole number above {2 * Q} (df = clusters - {2 * Q}).")
    between = _matrix(between_person_correlation, Q, rho, "between_person_correlation")
    person = _matrix(within_person_correlation, Q, np.ones(Q), "within_person_correlation")
    V = _covariance(s, between, person, float(cluster_size), cluster_size_cv)
    p = allocation_ratio / (1 + allocation_ratio)
    V = V / (clusters * p * (1 - p))
    df = float(clusters - 2 * Q) if distribution == "f" else math.inf
    se = np.sqrt(np.diag(V))
    R = V / np.outer(se, se)
    shift = beta / se
    powers = {
        "all": _every(np.abs(shift) if sides == 1 else shift, R, df, alpha, sides),
        "any": float(noncentral.power_f(float(beta @ np.linalg.solve(V, beta)), Q, df, alpha)),
    }
    dap = np.array([1 - (1 - alpha) ** (1 / Q ** (1 - (person[q].sum() - 1) / (Q - 1))) for q in range(Q)])
    for name, level in (("bonferroni", np.full(Q, alpha / Q)), ("sidak", np.full(Q, 1 - (1 - alpha) ** (1 / Q))), ("dap", dap)):
        powers[name] = float(np.min(noncentral.power_f(shift**2, 1.0, df, level)))
    powers["weighted"] = float(noncentral.power_f(float(np.abs(shift).sum() ** 2 / R.sum()), 1.0, df, alpha))
    powers["combined"] = float(noncentral.power_f(float(beta.sum() ** 2 / V.sum()), 1.0, df, alpha))
    frame = pd.DataFrame({"test": list(TESTS), "power": [powers[t] for t in TESTS], "meaning": [_WORDS[t] for t in TESTS]})
    alone = pd.DataFrame(
        {"outcome": np.arange(1, Q + 1), "effect": beta, "std_error": se, "power": noncentral.power_f(shift**2, 1.0, df, alpha)}
    )
    return CoPrimaryResult(powers[test], test, df, int(clusters), float(cluster_size), frame, alone, R)


def co_primary_clusters(*, power: float = 0.8, test: str = "all", **arguments: Any) -> CoPrimaryResult:
    """The fewest clusters (even) with which co-primary outcomes have the wanted power.

    Examples
    --------
    >>> co_primary_clusters(power=0.8, cluster_size=300, effects=(0.1, 0.1), sd=(0.23**0.5, 0.25**0.5), icc=0.025,
    ...                     between_person_correlation=0.01, within_person_correlation=0.05, sides=1).clusters
    24
    """
    if not arguments.get("alpha", 0.05) < power < 1:
        raise InputError(f"power = {power!r} must lie between alpha and 1.")
    Q = len(list(arguments.get("effects", ())))
    least = 2 * Q + 2
    high = least
    while co_primary(clusters=high, test=test, **arguments).power < power:
        high *= 2
        if high > 2**20:
            raise InputError("no number of clusters reaches this power: is one of the effects 0?")
    low = max(high // 2, least - 2)
    while high - low > 2:
        middle = (low + high) // 4 * 2
        if middle <= low:
            middle = low + 2
        if co_primary(clusters=middle, test=test, **arguments).power < power:
            low = middle
        else:
            high = middle
    return co_primary(clusters=high, test=test, **arguments)


def _each(value: float | Sequence[float], Q: int, name: str) -> Array:
    out = np.broadcast_to(np.asarray(value, dtype=float), (Q,)) if np.ndim(value) == 0 else np.asarray(value, dtype=float)
    if out.shape != (Q,) or not np.isfinite(out).all():
        raise InputError(f"{name} is one number, or one for each of the {Q} outcomes.")
    return np.array(out)


def _matrix(value: Any, Q: int, diagonal: Array, name: str) -> Array:
    if np.ndim(value) == 0:
        out = np.full((Q, Q), float(value))
    else:
        out = np.array(value, dtype=float)
        if out.shape != (Q, Q) or not np.allclose(out, out.T):
            raise InputError(f"{name} is one number or a symmetric {Q} x {Q} matrix.")
    np.fill_diagonal(out, diagonal)
    return out


def _covariance(s: Array, between: Array, person: Array, m: float, cv: float) -> Array:
    """Covariance of an arm's means times its number of clusters."""
    scale = np.outer(s, s)
    B, E = between * scale, (person - between) * scale
    for matrix, what in ((B, "between clusters"), (E, "between people of a cluster")):
        if np.linalg.eigvalsh(matrix / scale)[0] < -1e-10:
            raise InputError(f"these correlations cannot be: the covariance {what} is not positive semi-definite.")
    V = E / m + B
    if cv:
        W = np.linalg.inv(E + m * B)
        V = V @ np.linalg.inv(np.eye(len(s)) - cv**2 * (m * B @ W @ E @ W))
        V = (V + V.T) / 2
    return np.asarray(V)


def _every(shift: Array, R: Array, df: float, alpha: float, sides: int) -> float:
    """P(all |T_q| > c): the multivariate t with a common denominator, as a mean over it of normal probabilities."""
    crit = float(stats.norm.isf(alpha / sides)) if math.isinf(df) else float(stats.t.isf(alpha / sides, df))
    if math.isinf(df):
        spread, weight = np.array([1.0]), np.array([1.0])
    else:
        # orthant probabilities in three dimensions and more are costly, and good to six digits only
        spread, weight = chi_scale(df, 81 if len(shift) == 2 else 25)
    if len(shift) == 2:
        inner = _bivariate(shift, float(R[0, 1]), crit * spread, sides)
    else:
        inner = np.array([_orthants(shift, R, crit * s, sides) for s in spread])
    return float(np.clip((weight * inner).sum(), 0.0, 1.0))


def _bivariate(shift: Array, r: float, crit: Array, sides: int) -> Array:
    """P(both beyond crit) for two normal statistics, at each critical value: integration over the first."""
    x, w = np.polynomial.legendre.leggauss(96)
    root = math.sqrt(max(1 - r * r, 1e-300))
    out = np.zeros_like(crit)
    for sign in (1.0, -1.0) if sides == 2 else (1.0,):
        # first statistic beyond sign * crit; nine standard deviations hold everything
        low = np.clip(crit - sign * shift[0], -9.0, 9.0)
        z = low[:, None] + (9 - low)[:, None] * (x + 1) / 2
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (9 - low)[:, None] / 2 * w
        centre = shift[1] + r * sign * z
        second = special.ndtr((centre - crit[:, None]) / root)
        if sides == 2:
            second = second + special.ndtr((-crit[:, None] - centre) / root)
        out = out + (density * second).sum(axis=1)
    return np.asarray(out)


def _orthants(shift: Array, R: Array, crit: float, sides: int) -> float:
    total = 0.0
    Q = len(shift)
    patterns = [np.ones(Q)] if sides == 1 else [np.array([1.0 if i >> q & 1 else -1.0 for q in range(Q)]) for i in range(2**Q)]
    for sign in patterns:
        upper = sign * shift - crit
        if np.min(upper) < -9:
            continue
        total += float(
            stats.multivariate_normal.cdf(upper, cov=R * np.outer(sign, sign), abseps=1e-6, releps=1e-6, maxpts=20_000 * Q, rng=1)
        )
    return total
