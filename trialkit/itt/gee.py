"""Marginal models by generalised estimating equations, with the small-sample corrections that few sites need.

``sum_j D_j' V_j^-1 (y_j - mu_j) = 0``, V_j = phi A^{1/2} R(alpha) A^{1/2}; independence or exchangeable R. phi and alpha are moment
estimates with divisors n and the number of pairs, as geepack has them. The sandwich's residuals are corrected by

* LZ: nothing (Liang & Zeger 1986): too small with few clusters;
* KC: (I - H_j)^{-1/2}, the principal root (Kauermann & Carroll 2001);
* MD: (I - H_j)^{-1} (Mancl & DeRouen 2001);
* FG: diagonal in the score, (1 - min(0.75, Q_jj))^{-1/2} (Fay & Graubard 2001);
* KC-MD: the mean of the KC and the MD standard error (Ford & Westgate 2017);

with ``H_j = D_j M D_j' V_j^-1``, and t tests have (clusters - coefficients) df, or (clusters - coefficients of the clusters).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, special

from trialkit.door import InputError, check_conf_level, check_words, normalise, unknown_word
from trialkit.itt import model_frame
from trialkit.itt.coefficient_table import coefficient_table, covariance_table, t_quantile, two_sided_p
from trialkit.itt.denominator_df import counted_df
from trialkit.itt.formula import parse
from trialkit.itt.model_frame import ModelFrame
from trialkit.results import Result, Table

Array = NDArray[np.float64]
CORRECTIONS = ("LZ", "KC", "MD", "FG")
CHOICES = (*CORRECTIONS, "KC-MD")
DF = ("clusters-coefficients", "between-within")
CORRELATIONS = ("independence", "exchangeable")
_FG_BOUND = 0.75
_DECIDED = 1e-9  # a leverage this near to 1 is 1


@dataclass(frozen=True, slots=True)
class Family:
    """A response distribution with its canonical link; each function maps arrays to arrays."""

    name: str
    mean: Callable[[Array], Array]  # linear predictor -> mean
    slope: Callable[[Array], Array]  # mean -> d mean / d linear predictor
    variance: Callable[[Array], Array]  # mean -> variance function
    start: Callable[[Array], Array]  # outcome -> first linear predictor


FAMILIES = {
    "gaussian": Family("gaussian", lambda e: e, np.ones_like, np.ones_like, lambda y: y),
    "binomial": Family(
        "binomial", special.expit, lambda m: m * (1 - m), lambda m: m * (1 - m), lambda y: np.asarray(special.logit((y + 0.5) / 2))
    ),
    "poisson": Family("poisson", np.exp, lambda m: m, lambda m: m, lambda y: np.log(y + 0.1)),
    "gamma": Family("gamma", np.exp, lambda m: m, lambda m: m * m, lambda y: np.log(y + 0.01 * max(float(y.mean()), 1e-300))),
}


@dataclass(frozen=True)
class MarginalModel(Result):
    """A fitted marginal model; its coefficients compare populations, not people of one site.

    Attributes
    ----------
    beta : array (p,)
    alpha : float
        Exchangeable correlation; 0 for independence.
    phi : float
        Dispersion.
    covariances : mapping of correction to array (p, p)
        LZ, KC, MD, FG, all from the one fit; `correction` says which one `frame` uses (KC-MD averages two standard errors).
    df_rule : str
        How the degrees of freedom are counted.
    iterations : int
    """

    beta: Array
    alpha: float
    phi: float
    covariances: dict[str, Array] = field(repr=False)
    model: ModelFrame = field(repr=False)
    formula: str
    family: str
    correlation: str
    correction: str
    conf_level: float
    iterations: int
    df_rule: str = DF[0]
    offset: Array | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """One line above the table."""
        rule = {DF[0]: "clusters - coefficients", DF[1]: "between-within"}[self.df_rule]
        return f"{self.formula}: GEE, {self.family}, {self.correlation}, {self.correction} sandwich, t with {rule} df"

    @property
    def cov(self) -> pd.DataFrame:
        """Covariance in force, labelled; for KC-MD that of Mancl and DeRouen."""
        return covariance_table(self.model.names, self.covariances["MD" if self.correction == "KC-MD" else self.correction])

    @property
    def df(self) -> Array:
        """Degrees of freedom of each coefficient (p,)."""
        if self.df_rule == DF[0]:
            return np.full(len(self.beta), float(self.clusters - len(self.beta)))
        return counted_df(self.model.x, [self.model.groups[0].codes], intercept=self.model.intercept, contain_intercept=True)

    @property
    def clusters(self) -> int:
        """Number of independent clusters."""
        return len(self.model.groups[0].labels)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """term, estimate, std_error, df, statistic, p_value, conf_low, conf_high (log odds, log rates or differences)."""
        std_error = std_errors(np.eye(len(self.beta)), self.covariances, self.correction)
        return coefficient_table(self.model.names, self.beta, std_error, self.df, self.conf_level)

    def standardised(self, term: str) -> Table:
        """Marginal means in the two arms and how they differ, everybody standing once in either arm (g-computation).

        Parameters
        ----------
        term : str
            The arm's 0/1 coefficient, for example ``"armintervention"``; it must not be part of an interaction.

        Returns
        -------
        Table
            measure, estimate, std_error, df, p_value, conf_low, conf_high. For a binary outcome: risks, risk difference, risk ratio and
            odds ratio; for counts: means, difference and rate ratio; else means and difference. Ratios have their standard error and
            interval from the log scale. Delta method with the corrected sandwich, t with clusters - coefficients df.

        Raises
        ------
        InputError
            The term is unknown, not 0/1, or in an interaction.
        """
        names = self.model.names
        if term not in names:
            raise InputError(unknown_word(term, names, what="coefficient"))
        k = names.index(term)
        x = self.model.x
        if not np.isin(x[:, k], (0.0, 1.0)).all():
            raise InputError(f"the column {term!r} is not 0/1, so it does not make two arms.")
        if any(term in name.split(":") for name in names if ":" in name):
            raise InputError(
                f"{term!r} is part of an interaction, so setting it alone would not move the others. Fit without the interaction."
            )
        found = standardise(self.model.x, self.beta, k, FAMILIES[self.family], self.offset)
        df = float(self.df[k])
        quantile = float(t_quantile(df, 0.5 + self.conf_level / 2))
        table = []
        for one in found:
            se = float(std_errors(one.gradient[None], self.covariances, self.correction)[0])
            low, high = one.value - quantile * se, one.value + quantile * se
            # a risk or a mean is not tested against zero
            p = math.nan if one.level else float(two_sided_p(one.value / se, df))
            shown = (math.exp(v) for v in (one.value, low, high)) if one.ratio else (one.value, low, high)
            estimate, conf_low, conf_high = shown
            name = f"{one.measure}, {term} = {one.level[-1]}" if one.level else one.measure
            table.append(
                {
                    "measure": name,
                    "estimate": estimate,
                    "std_error": se,
                    "df": df,
                    "p_value": p,
                    "conf_low": conf_low,
                    "conf_high": conf_high,
                }
            )
        return Table(pd.DataFrame(table), f"Standardised over {len(self.model.x)} people", ("Ratios: std_error is that of the logarithm.",))


def fit_marginal(
    formula: str,
    frame: Any,
    *,
    cluster: str,
    family: str = "binomial",
    correlation: str = "exchangeable",
    correction: str = "MD",
    df: str = "clusters-coefficients",
    exposure: str | None = None,
    conf_level: float = 0.95,
) -> MarginalModel:
    """Fit a marginal model to people in clusters.

    Parameters
    ----------
    formula : str
        As in `fit_mixed`, without random parts.
    frame : DataFrame
    cluster : str
        Column of independent clusters.
    family : {"binomial", "poisson", "gaussian", "gamma"}
        With the logit, log, identity and log link. ``"binomial"`` takes shares between 0 and 1 too (a fractional logit).
    correlation : {"exchangeable", "independence"}
        Independence with equal weights estimates the participant-average effect whatever the cluster sizes mean.
    correction : {"MD", "KC", "KC-MD", "FG", "LZ"}
        Mancl-DeRouen by default: it keeps the level with few sites of any sizes, where Kauermann-Carroll's does not.
    df : {"clusters-coefficients", "between-within"}
        Clusters minus all coefficients, or minus those that do not vary inside clusters: the second does not charge a covariate of people
        to the clusters.
    exposure : str, optional
        Column of positive times at risk, for counts.
    conf_level : float

    Raises
    ------
    InputError
        The outcome does not suit the family, the clusters are no more than the coefficients, or the iteration does not settle
        (separation: an arm or category with all outcomes alike).

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> people = pd.DataFrame({"site": np.repeat(np.arange(10), 8), "arm": np.repeat(np.arange(10) % 2, 8)})
    >>> people["well"] = (rng.random(80) < 0.4 + 0.2 * people["arm"]).astype(int)
    >>> fit = fit_marginal("well ~ arm", people, cluster="site")
    >>> fit.frame["df"].tolist()
    [8.0, 8.0]
    """
    check_words(family=(family, tuple(FAMILIES)), correlation=(correlation, CORRELATIONS), correction=(correction, CHOICES), df=(df, DF))
    check_conf_level(conf_level)
    parsed = parse(formula)
    if parsed.groups:
        raise InputError("a marginal model has no random part; name the clusters by cluster= instead of (1|...).")
    model = model_frame.build(parsed, frame if isinstance(frame, pd.DataFrame) else normalise(frame), groups=[cluster], weights=exposure)
    clusters, p = len(model.groups[0].labels), model.x.shape[1]
    if df == DF[0] and clusters <= p:
        raise InputError(f"{clusters} clusters and {p} coefficients leave no degrees of freedom. Fit fewer terms, or df='between-within'.")
    _suits(model, family)
    if exposure is not None and family != "poisson":
        raise InputError(f"exposure is for counts (family='poisson'), not for {family!r}.")
    offset = None if model.weights is None else np.log(model.weights)
    codes = model.groups[0].codes
    fitted = solve(model.x, model.y, codes, FAMILIES[family], exchangeable=correlation == "exchangeable", offset=offset)
    return MarginalModel(
        beta=fitted.beta,
        alpha=fitted.alpha,
        phi=fitted.phi,
        covariances=corrected(model.x, model.y, fitted, FAMILIES[family], offset=offset),
        model=model,
        formula=" ".join(formula.split()),
        family=family,
        correlation=correlation,
        correction=correction,
        conf_level=conf_level,
        iterations=fitted.iterations,
        df_rule=df,
        offset=offset,
        notes=(*model.notes(), *_correlation_note(fitted)),
    )


def _correlation_note(fitted: Solved) -> tuple[str, ...]:
    if math.isnan(fitted.impossible):
        return ()
    largest = max(len(rows) for rows in fitted.clusters)
    return (
        f"The correlation inside clusters is estimated at {fitted.impossible:.3f}, which does not settle at a value that {largest} people "
        "can have all with one another; independence was used instead, and the sandwich does not need it to hold.",
    )


def _suits(model: ModelFrame, family: str) -> None:
    y = model.y
    if family == "binomial" and ((y < 0) | (y > 1)).any():
        wrong = y[(y < 0) | (y > 1)][0]
        raise InputError(f"the outcome {model.response!r} must be 0 or 1 (or a share between) for a binomial model; it holds {wrong:g}.")
    if family == "gamma" and (y < 0).any():
        raise InputError(f"the outcome {model.response!r} must not be negative for a log link; it holds {y[y < 0][0]:g}.")
    if family == "poisson":
        model.refuse_fractions("Poisson")
    model.refuse_constant()


@dataclass(frozen=True, slots=True)
class Solved:
    """A solution of the estimating equations."""

    beta: Array  # (p,)
    alpha: float
    phi: float
    clusters: list[NDArray[np.intp]]  # row numbers
    iterations: int
    impossible: float = math.nan  # an estimate of alpha that led nowhere (below what the largest cluster can have); 0 stands in its place


def solve(
    x: Array, y: Array, codes: NDArray[np.intp], family: Family, *, exchangeable: bool, steps: int = 100, offset: Array | None = None
) -> Solved:
    """Fisher scoring for beta with phi and alpha updated by moments at every step.

    Parameters
    ----------
    x : array (n, p), full column rank
    y : array (n,)
    codes : array (n,)
        Cluster codes.
    family : Family
    exchangeable : bool
    steps : int
        At most so many.
    offset : array (n,), optional
        Added to the linear predictor.
    """
    data = _Equations.of(x, y, codes, family, np.zeros(len(y)) if offset is None else offset)
    beta = data.start()
    alpha = 0.0
    for step in range(1, steps + 1):
        now = data.at(beta)
        if now is None:
            break
        if exchangeable:
            alpha = now.alpha
            if not data.possible(alpha):
                if step > 2:
                    break
                alpha = 0.0
        move = data.move(now, alpha)
        beta = np.asarray(beta + move)
        if data.small(move, now):
            # alpha and phi stand at the beta before a step too small to matter
            return Solved(beta, alpha, now.phi, data.clusters, step)
    if exchangeable:
        return _by_root(data, steps)
    raise InputError(UNSETTLED.format(steps))


UNSETTLED = (
    "the estimating equations do not settle in {} steps: usually an arm or a category in which all outcomes are alike "
    "(separation). Cross-tabulate the outcome by the model's factors, and leave out or merge the empty ones."
)


def _by_root(data: _Equations, steps: int) -> Solved:
    """Where taking turns does not settle: alpha as the root of (moment at beta(alpha)) - alpha, with beta(alpha) by Newton's method."""
    count = 0
    last = data.start()

    def beta_at(alpha: float) -> tuple[Array, _At]:
        nonlocal count, last
        beta = last
        for _ in range(steps):
            count += 1
            now = data.at(beta)
            if now is None:
                break
            move = data.move(now, alpha)
            beta = np.asarray(beta + move)
            if data.small(move, now):
                last = beta
                return beta, now
        raise InputError(UNSETTLED.format(steps))

    def gap(alpha: float) -> float:
        return beta_at(alpha)[1].alpha - alpha

    independent, at_zero = beta_at(0.0)
    # the bracket is walked out from independence: far out Fisher's steps need not settle, and the answer is seldom there
    upward = at_zero.alpha > 0
    walk = (0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 0.95) if upward else tuple(data.lowest * share for share in (0.25, 0.5, 0.75, 0.9, 0.99))
    inside = 0.0
    for alpha in walk:
        if (gap(alpha) > 0) != upward:
            alpha = float(optimize.brentq(gap, min(inside, alpha), max(inside, alpha), xtol=1e-13, rtol=1e-13))
            beta, now = beta_at(alpha)
            return Solved(beta, alpha, now.phi, data.clusters, count)
        inside = alpha
    return Solved(independent, 0.0, at_zero.phi, data.clusters, count, impossible=at_zero.alpha)


@dataclass(frozen=True, slots=True)
class _At:
    """What the equations are at one beta."""

    largest: float  # linear predictor
    r: Array  # (n,)  residuals over their standard deviation
    xd: Array  # (n, p)  derivatives over the same
    phi: float
    alpha: float  # moment estimate


@dataclass(frozen=True, slots=True)
class _Equations:
    """The data of the estimating equations."""

    x: Array
    y: Array
    codes: NDArray[np.intp]
    family: Family
    offset: Array
    counts: NDArray[np.intp]
    clusters: list[NDArray[np.intp]]
    pairs: float

    @classmethod
    def of(cls, x: Array, y: Array, codes: NDArray[np.intp], family: Family, offset: Array) -> _Equations:
        counts = np.bincount(codes)
        order = np.argsort(codes, kind="stable")
        clusters = [rows for rows in np.split(order, np.cumsum(counts)[:-1]) if len(rows)]
        return cls(x, y, codes, family, offset, counts, clusters, float((counts * (counts - 1) / 2).sum()))

    def start(self) -> Array:
        """Least squares on a rough linear predictor (p,)."""
        return np.asarray(np.linalg.lstsq(self.x, self.family.start(self.y) - self.offset, rcond=None)[0], dtype=np.float64)

    @property
    def lowest(self) -> float:
        """Below this, the people of the largest cluster cannot all be correlated alike."""
        return -1 / max(int(self.counts.max()) - 1, 1)

    def possible(self, alpha: float) -> bool:
        return alpha > self.lowest * (1 - 1e-6)

    def at(self, beta: Array) -> _At | None:
        """None when the means have run to the edge."""
        eta = self.offset + self.x @ beta
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            mean = self.family.mean(eta)
            root = np.sqrt(self.family.variance(mean))
            r = (self.y - mean) / root
            d = self.family.slope(mean) / root
        if not (np.isfinite(r).all() and np.isfinite(d).all()) or np.abs(eta).max() > 1e3:
            return None
        phi = float((r @ r) / len(r))
        alpha = 0.0
        if self.pairs:
            sums = np.bincount(self.codes, weights=r)
            squares = np.bincount(self.codes, weights=r * r)
            alpha = float(((sums**2 - squares) / 2).sum() / (phi * self.pairs))
        return _At(float(np.abs(eta).max()), r, self.x * d[:, None], phi, alpha)

    def move(self, now: _At, alpha: float) -> Array:
        """Fisher's step."""
        # R^-1 = (I - alpha / (1 + (n_j - 1) alpha) 11') / (1 - alpha)
        shrink = alpha / (1 + (self.counts - 1) * alpha)
        length = len(self.counts)
        sx = np.stack([np.bincount(self.codes, weights=now.xd[:, k], minlength=length) for k in range(self.x.shape[1])], axis=1)
        sr = np.bincount(self.codes, weights=now.r, minlength=length)
        H = now.xd.T @ now.xd - sx.T @ (shrink[:, None] * sx)
        return np.asarray(np.linalg.solve(H, now.xd.T @ now.r - sx.T @ (shrink * sr)))

    def small(self, move: Array, now: _At) -> bool:
        return bool(np.abs(self.x @ move).max() <= 1e-12 * max(1.0, now.largest))


def corrected(x: Array, y: Array, fitted: Solved, family: Family, *, offset: Array | None = None) -> dict[str, Array]:
    """Sandwich covariances (p, p) by each correction; cluster matrices are at most the size of the largest cluster."""
    mean = family.mean(x @ fitted.beta + (0.0 if offset is None else offset))
    root = np.sqrt(family.variance(mean))
    D = x * (family.slope(mean) / root)[:, None]  # in units of the standard deviation
    e = (y - mean) / root
    parts = []
    for rows in fitted.clusters:
        R = np.full((len(rows), len(rows)), fitted.alpha)
        np.fill_diagonal(R, 1.0)
        L = np.linalg.cholesky(fitted.phi * R)
        parts.append((np.linalg.solve(L, D[rows]), np.linalg.solve(L, e[rows])))  # whitened: V_j is the identity
    return sandwiches(parts)


def sandwiches(parts: Sequence[tuple[Array, Array]]) -> dict[str, Array]:
    """Sandwich covariances by each correction from the whitened derivatives (n_j, p) and residuals (n_j,) of every cluster."""
    p = parts[0][0].shape[1]
    M = np.linalg.inv(sum(d.T @ d for d, _ in parts))
    meats = {name: np.zeros((p, p)) for name in CORRECTIONS}
    for d, r in parts:
        S = d @ M @ d.T
        values, vectors = np.linalg.eigh(S)
        turned = vectors.T @ r
        # where one cluster alone decides a coefficient its residual is 0 and stays 0: Moore-Penrose inverse (Pustejovsky & Tipton 2018)
        left = np.where(1 - values > _DECIDED, 1 - values, np.inf)
        bounded = 1 / np.sqrt(1 - np.minimum(_FG_BOUND, np.diagonal(d.T @ d @ M)))
        scores = {
            "LZ": d.T @ r,
            "KC": d.T @ (vectors @ (turned / np.sqrt(left))),
            "MD": d.T @ (vectors @ (turned / left)),
            "FG": bounded * (d.T @ r),
        }
        for name, score in scores.items():
            meats[name] += np.outer(score, score)
    return {name: M @ meat @ M for name, meat in meats.items()}


def std_errors(contrasts: Array, covariances: Mapping[str, Array], correction: str) -> Array:
    """Standard errors (k,) of contrasts (k, p) of the coefficients, by a correction."""
    if correction == "KC-MD":
        return np.asarray((std_errors(contrasts, covariances, "KC") + std_errors(contrasts, covariances, "MD")) / 2)
    return np.asarray(np.sqrt(np.maximum(np.einsum("kp,pq,kq->k", contrasts, covariances[correction], contrasts), 0.0)))


@dataclass(frozen=True, slots=True)
class Standardised:
    """One marginal measure: its value and its gradient in the coefficients (p,), on the log scale where it is a ratio."""

    measure: str
    value: float
    gradient: Array
    ratio: bool = False
    level: str = ""  # which arm, for a mean that is not a comparison


def standardise(x: Array, beta: Array, k: int, family: Family, offset: Array | None = None) -> list[Standardised]:
    """Means with everybody in the one arm and in the other (g-computation), and how they differ.

    Parameters
    ----------
    x : array (n, p)
    beta : array (p,)
    k : int
        The arm's 0/1 column.
    family : Family
    offset : array (n,), optional
        Log exposures: then means are rates, for one unit of exposure, people counting by theirs.
    """
    weight = np.ones(len(x)) if offset is None else np.exp(offset)
    weight = weight / weight.sum()
    means, slopes = [], []
    for value in (0.0, 1.0):
        moved = x.copy()
        moved[:, k] = value
        mean = family.mean(moved @ beta)
        means.append(float(weight @ mean))
        slopes.append((weight * family.slope(mean)) @ moved)
    (m0, m1), (g0, g1) = means, slopes
    word = {"binomial": "risk", "poisson": "mean count" if offset is None else "rate"}.get(family.name, "mean")
    out = [
        Standardised(word, m0, g0, level="arm 0"),
        Standardised(word, m1, g1, level="arm 1"),
        Standardised(f"{word} difference", m1 - m0, g1 - g0),
    ]
    if family.name != "gaussian":
        name = {"binomial": "risk ratio", "poisson": "rate ratio"}.get(family.name, "ratio of means")
        out.append(Standardised(name, math.log(m1 / m0), g1 / m1 - g0 / m0, ratio=True))
    if family.name == "binomial":
        odds = float(special.logit(m1) - special.logit(m0))
        out.append(Standardised("odds ratio (marginal)", odds, g1 / (m1 * (1 - m1)) - g0 / (m0 * (1 - m0)), ratio=True))
    return out
