"""Ordered outcomes: proportional odds for people in clusters, and whether the odds are proportional.

``logit P(Y <= k) = threshold_k - x'beta``: a positive coefficient is a shift towards the higher categories, and exp(beta) the odds ratio
of lying above any cut. Two models: *marginal* - the estimating equations of independence (McCullagh 1980), whose sandwich over clusters
is corrected as that of `fit_marginal`, the category indicators of a person being several correlated responses; *mixed* - a random cluster
intercept, by adaptive quadrature (R: ordinal::clmm), whose coefficients compare people of one cluster and lie further from zero.

The assumption is looked at by the binary logits at every cut, fitted apart but with one joint sandwich (Brant 1990, for clusters): the
arm's coefficients should be one, which an F test of their differences judges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from trialkit._kernels import agq, pooling
from trialkit.door import InputError, cell_text, check_conf_level, check_words, few, normalise, printable, unknown_word
from trialkit.itt import gee, model_frame
from trialkit.itt.coefficient_table import coefficient_table
from trialkit.itt.denominator_df import counted_df
from trialkit.itt.formula import parse
from trialkit.itt.generalised import SEPARATED
from trialkit.itt.model_frame import INTERCEPT, ModelFrame
from trialkit.results import Result, Table

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
MODELS = ("marginal", "mixed")
DF = ("between-within", "clusters-coefficients", "normal")


@dataclass(frozen=True)
class OrdinalModel(Result):
    """A fitted proportional-odds model.

    Attributes
    ----------
    beta : array (p,)
        Log cumulative odds ratios, positive towards higher categories; no intercept.
    thresholds : array (C - 1,)
    levels : tuple of str
        The categories, from lowest to highest.
    sd : float
        Of the cluster intercepts (mixed model; 0 at the boundary); missing for the marginal one.
    log_likelihood : float
        Of the mixed model, or of independent people.
    covariances : mapping of correction to array (C - 1 + p, C - 1 + p)
        Thresholds first. Marginal: LZ, KC, MD, FG; mixed: ``"information"``.
    notes : tuple of str
    """

    beta: Array
    thresholds: Array
    levels: tuple[str, ...]
    sd: float
    log_likelihood: float
    covariances: dict[str, Array] = field(repr=False)
    model: ModelFrame = field(repr=False)
    names: tuple[str, ...]
    formula: str
    kind: str
    correction: str
    df_rule: str
    conf_level: float
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """One line above the table."""
        how = "marginal, sandwich " + self.correction if self.kind == "marginal" else "random intercept, adaptive quadrature"
        return f"{self.formula}: proportional odds, {how}, {self.df_rule} df"

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return len(self.model.groups[0].labels)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """term, estimate, std_error, df, statistic, p_value, conf_low, conf_high: log cumulative odds ratios."""
        q = len(self.thresholds)
        if self.kind == "marginal":
            std_error = gee.std_errors(np.eye(q + len(self.beta))[q:], self.covariances, self.correction)
        else:
            std_error = np.sqrt(np.diagonal(self.covariances["information"])[q:])
        x = _without_constant(self.model)[0]
        df = degrees(x, self.model.groups[0].codes, q, self.df_rule)
        return coefficient_table(self.names, self.beta, std_error, df, self.conf_level)

    def proportional_odds(self, term: str | None = None) -> Table:
        """The log odds ratio at every cut, and the test that they are one.

        Parameters
        ----------
        term : str, optional
            A coefficient; by default the first.

        Returns
        -------
        Table
            cut, estimate, std_error, n_above; the note has the F test. Cuts that an arm or category does not straddle are left out and
            said.

        Raises
        ------
        InputError
            The term is unknown, or fewer than two cuts can be fitted.

        Notes
        -----
        Brant (1990) with the Mancl-DeRouen sandwich over clusters for all cuts together; Hotelling's T squared as F.
        """
        wanted = self.names[0] if term is None else term
        if wanted not in self.names:
            raise InputError(unknown_word(wanted, self.names, what="coefficient"))
        x, names = _without_constant(self.model)
        found = brant(x, self.model.y.astype(np.intp), self.model.groups[0].codes, len(self.levels), names.index(wanted))
        frame = pd.DataFrame(
            {
                "cut": [f"above {self.levels[k]}" for k in found.cuts],
                "estimate": found.estimate,
                "std_error": found.std_error,
                "n_above": [int((self.model.y > k).sum()) for k in found.cuts],
            }
        ).astype({"cut": "str"})
        return Table(frame, f"Proportional odds: {wanted} at every cut", (found.words,))


def fit_ordinal(
    formula: str,
    frame: Any,
    *,
    cluster: str,
    model: str = "marginal",
    levels: Sequence[str] | None = None,
    correction: str = "MD",
    nodes: int = 15,
    df: str = "between-within",
    conf_level: float = 0.95,
) -> OrdinalModel:
    """Fit a proportional-odds model to people in clusters.

    Parameters
    ----------
    formula : str
        As in `fit_mixed`, without random parts; the outcome holds numbers, an ordered category, or text with `levels`.
    frame : DataFrame
    cluster : str
        Column of independent clusters.
    model : {"marginal", "mixed"}
        Independence estimating equations with a corrected sandwich, or a random cluster intercept by adaptive quadrature.
    levels : sequence of str, optional
        The categories from lowest to highest; needed for text.
    correction : {"MD", "KC", "KC-MD", "FG", "LZ"}
        Of the marginal model's sandwich.
    nodes : int
        Quadrature nodes of the mixed model, 1 (Laplace) to 100.
    df : {"between-within", "clusters-coefficients", "normal"}
        Of the t tests: clusters minus coefficients of the clusters, minus all coefficients, or infinite.
    conf_level : float

    Returns
    -------
    OrdinalModel

    Raises
    ------
    InputError
        The outcome has fewer than two categories or one that is not among `levels`; an option is wrong; there is no maximum (separation).

    Examples
    --------
    >>> rng = np.random.default_rng(2)
    >>> people = pd.DataFrame({"site": np.repeat(np.arange(12), 10), "arm": np.repeat(np.arange(12) % 2, 10)})
    >>> people["grade"] = np.clip(np.rint(1.5 + people["arm"] * 0.5 + rng.normal(size=120)), 0, 3)
    >>> fit = fit_ordinal("grade ~ arm", people, cluster="site")
    >>> fit.levels, fit.frame["df"].tolist()
    (('0', '1', '2', '3'), [10.0])
    """
    check_words(model=(model, MODELS), correction=(correction, gee.CHOICES), df=(df, DF))
    if not 1 <= nodes <= 100:
        raise InputError(f"nodes = {nodes} is not between 1 (Laplace) and 100.")
    check_conf_level(conf_level)
    parsed = parse(formula)
    if parsed.groups:
        raise InputError("name the clusters by cluster= instead of (1|...).")
    table = frame if isinstance(frame, pd.DataFrame) else normalise(frame)
    codes, labels = categories(model_frame.find_column(table, parsed.response, why="as the outcome"), levels)
    built = model_frame.build(parsed, table.assign(**{parsed.response: codes}), groups=[cluster])
    built.refuse_constant()
    present = np.unique(built.y).astype(np.intp)
    empty = [labels[k] for k in range(len(labels)) if k not in set(present.tolist())]
    labels = tuple(labels[k] for k in present)
    built.y[:] = np.searchsorted(present, built.y)
    x, names = _without_constant(built)
    if not names:
        raise InputError("the formula has no term but the thresholds. Add the arm.")
    y, groups = built.y.astype(np.intp), built.groups[0].codes
    notes = list(built.notes())
    if empty:
        notes.append(f"Categories nobody has, left out: {few(empty)}.")
    if model == "marginal":
        fit = marginal(x, y, groups, len(labels))
        beta, thresholds, sd, loglik, covariances = fit.beta, fit.thresholds, math.nan, fit.log_likelihood, fit.covariances
    else:
        found = mixed(x, y, groups, len(labels), nodes=nodes)
        beta, thresholds, sd, loglik = found.beta, found.thresholds, found.sd, found.log_likelihood
        covariances = {"information": found.vcov}
        if found.boundary:
            notes.append(f"The standard deviation of {cluster} is estimated at zero (boundary).")
    return OrdinalModel(
        beta=beta,
        thresholds=thresholds,
        levels=labels,
        sd=sd,
        log_likelihood=loglik,
        covariances=covariances,
        model=built,
        names=names,
        formula=" ".join(formula.split()),
        kind=model,
        correction=correction,
        df_rule=df,
        conf_level=conf_level,
        notes=tuple(notes),
    )


def categories(column: pd.Series[Any], levels: Sequence[str] | None) -> tuple[Array, tuple[str, ...]]:
    """Codes (n,) from 0, NaN where missing, and the labels from lowest to highest.

    Raises
    ------
    InputError
        Text without `levels`, or a value that is not among them.
    """
    missing = column.isna().to_numpy() | np.array([isinstance(v, str) and not v.strip() for v in column.tolist()])
    out = np.full(len(column), np.nan)
    seen = np.flatnonzero(~missing)
    values = column.iloc[seen]
    if levels is None and isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.ordered:
        levels = [cell_text(v) for v in column.dtype.categories]
    if levels is not None:
        place = {str(level): k for k, level in enumerate(levels)}
        texts = [cell_text(v) for v in values.tolist()]
        wrong = next((t for t in texts if t not in place), None)
        if wrong is not None:
            raise InputError(
                f"the outcome {column.name!r} holds {printable(wrong)!r}, which is not one of its levels ({few(list(place))}). "
                "Correct the cell, or the levels."
            )
        out[seen] = [place[t] for t in texts]
        return out, tuple(place)
    if pd.api.types.is_bool_dtype(values.dtype):
        out[seen] = values.astype(float)
        return out, ("no", "yes")
    try:
        numeric = values.astype(float).to_numpy()
    except (TypeError, ValueError):
        raise InputError(
            f"the outcome {column.name!r} holds text, and the order of its categories is not known. "
            "Name them from lowest to highest (levels)."
        ) from None
    found = np.unique(numeric)
    out[seen] = np.searchsorted(found, numeric)
    return out, tuple(cell_text(v) for v in found.tolist())


def _without_constant(model: ModelFrame) -> tuple[Array, tuple[str, ...]]:
    keep = [k for k, name in enumerate(model.names) if name != INTERCEPT]
    return model.x[:, keep], tuple(model.names[k] for k in keep)


def degrees(x: Array, codes: Codes, thresholds: int, rule: str) -> Array:
    """Degrees of freedom (p,) of coefficients of x (n, p), the thresholds being the model's constant."""
    p = x.shape[1]
    if rule == "normal":
        return np.full(p, math.inf)
    if rule == "clusters-coefficients":
        return np.full(p, float(len(np.unique(codes)) - p - thresholds))
    whole = np.column_stack([np.ones(len(x)), x])
    return counted_df(whole, [np.unique(codes, return_inverse=True)[1]], intercept=0, contain_intercept=True)[1:]


# --- the marginal model -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Marginal:
    """Independence estimating equations of cumulative logits."""

    beta: Array  # (p,)
    thresholds: Array  # (C - 1,)
    log_likelihood: float
    covariances: dict[str, Array]  # (C - 1 + p, C - 1 + p), thresholds first


def marginal(x: Array, y: Codes, codes: Codes, categories: int) -> Marginal:
    """Fit by Fisher's scoring, with the sandwich over clusters by every correction.

    Parameters
    ----------
    x : array (n, p)
        Full column rank beside a constant; no constant.
    y : array (n,)
        0..C-1, each present.
    codes : array (n,)
    categories : int
        C.

    Raises
    ------
    InputError
        There is no maximum.
    """
    basis, back, mean = _scaled(x)
    q = categories - 1
    theta = np.concatenate([_empirical(y, categories), np.zeros(x.shape[1])])
    value = _log_likelihood(basis, y, theta, q)
    for _ in range(60):
        d, r = _whitened(basis, y, theta, q)
        step = np.linalg.solve(np.einsum("nkp,nkr->pr", d, d), np.einsum("nkp,nk->p", d, r))
        share = 1.0
        while True:
            moved = theta + share * step
            reached = _log_likelihood(basis, y, moved, q)
            if reached >= value - 1e-12 * (1 + abs(value)) or share < 1e-4:
                break
            share /= 2
        theta, value = moved, reached
        if np.abs(basis @ theta[q:]).max(initial=0.0) > 30 or not np.isfinite(theta).all():
            raise InputError(SEPARATED)
        if np.abs(step).max() <= 1e-11 * max(1.0, float(np.abs(theta).max())):
            break
    else:
        raise InputError(SEPARATED)
    d, r = _whitened(basis, y, theta, q)
    information = np.einsum("nkp,nkr->pr", d, d)
    if x.shape[1] and float(np.linalg.eigvalsh(information)[0]) / len(y) < 1e-5:
        raise InputError(SEPARATED)
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    parts = [(d[rows].reshape(-1, d.shape[2]), r[rows].ravel()) for rows in np.split(order, np.cumsum(counts)[:-1]) if len(rows)]
    # back to the columns as they came: thresholds move with the means
    T = _back(back, mean, q)
    theta = T @ theta
    return Marginal(theta[q:], theta[:q], value, {name: T @ v @ T.T for name, v in gee.sandwiches(parts).items()})


def _scaled(x: Array) -> tuple[Array, Array, Array]:
    """Centred orthonormal columns of unit scale, the matrix back to x's coefficients, and the means."""
    mean = x.mean(axis=0)
    basis, triangle = np.linalg.qr(x - mean)
    return basis * math.sqrt(len(x)), np.asarray(np.linalg.inv(triangle / math.sqrt(len(x)))), np.asarray(mean)


def _back(back: Array, mean: Array, q: int) -> Array:
    p = len(mean)
    T = np.eye(q + p)
    T[q:, q:] = back
    T[:q, q:] = mean @ back
    return T


def _empirical(y: Codes, categories: int) -> Array:
    share = np.cumsum(np.bincount(y, minlength=categories))[:-1] / len(y)
    return np.asarray(special.logit(share))


def _log_likelihood(x: Array, y: Codes, theta: Array, q: int) -> float:
    if (np.diff(theta[:q]) <= 0).any():
        return -math.inf
    extra = np.concatenate([theta[:1], np.log(np.diff(theta[:q]))])
    return float(agq.CumulativeLogit(y, q + 1)(x @ theta[q:], extra).value.sum())


def _whitened(x: Array, y: Codes, theta: Array, q: int) -> tuple[Array, Array]:
    """Derivatives (n, q, q + p) and residuals (n, q) of the indicators [y <= k], whitened by their covariance F_min (1 - F_max)."""
    n, p = x.shape
    F = special.expit(theta[:q] - (x @ theta[q:])[:, None])
    s = F * (1 - F)
    D = np.zeros((n, q, q + p))
    D[:, np.arange(q), np.arange(q)] = s
    D[:, :, q:] = -s[:, :, None] * x[:, None, :]
    low = np.minimum.outer(np.arange(q), np.arange(q))
    V = F[:, low] * (1 - F[:, np.maximum.outer(np.arange(q), np.arange(q))])
    L = np.linalg.cholesky(V)
    Z = (y[:, None] <= np.arange(q)).astype(np.float64)
    both = np.linalg.solve(L, np.concatenate([D, (Z - F)[:, :, None]], axis=2))
    return both[:, :, :-1], both[:, :, -1]


# --- the mixed model ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mixed:
    """Cumulative logits with a random cluster intercept."""

    beta: Array  # (p,)
    thresholds: Array  # (C - 1,)
    sd: float
    log_likelihood: float
    vcov: Array  # (C - 1 + p, C - 1 + p), thresholds first
    boundary: bool


def mixed(x: Array, y: Codes, codes: Codes, categories: int, *, nodes: int = 15) -> Mixed:
    """Maximum likelihood by adaptive quadrature; arguments as `marginal`.

    Raises
    ------
    InputError
        There is no maximum.
    """
    order = np.argsort(codes, kind="stable")
    basis, back, mean = _scaled(x[order])
    sorted_codes = np.unique(codes[order], return_inverse=True)[1].astype(np.intp)
    q, p = categories - 1, x.shape[1]
    plain = marginal(x, y, codes, categories)
    start = np.asarray(np.linalg.solve(back, plain.beta), dtype=np.float64)
    thresholds = plain.thresholds - mean @ plain.beta
    extra = np.concatenate([thresholds[:1], np.log(np.diff(thresholds))])
    try:
        found = agq.maximise(basis, sorted_codes, agq.CumulativeLogit(y[order], categories), nodes=nodes, start=start, extra=extra)
    except (agq.Separation, np.linalg.LinAlgError):
        raise InputError(SEPARATED) from None
    # (beta, first threshold, log gaps) -> (thresholds, beta), columns as they came
    J = np.zeros((q + p, p + q))
    J[:q, p] = 1.0
    for l in range(1, q):
        J[l:q, p + l] = math.exp(found.extra[l])
    J[q:, :p] = np.eye(p)
    T = _back(back, mean, q) @ J
    thresholds = agq.cumulated(found.extra) + mean @ (back @ found.beta)
    return Mixed(back @ found.beta, thresholds, found.sd, found.log_likelihood, T @ found.vcov @ T.T, found.boundary)


# --- are the odds proportional? -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Brant:
    """The coefficient of one column at every cut, and the test that they are one."""

    cuts: tuple[int, ...]
    estimate: Array
    std_error: Array
    statistic: float
    df: tuple[float, float]
    p_value: float
    left_out: int
    covariance: Array  # (cuts, cuts)
    counted: int  # df of one coefficient
    tables: int = 1

    @property
    def words(self) -> str:
        """The test in a sentence."""
        lost = f" {self.left_out} cut(s) left out: an arm or a category lies on one side." if self.left_out else ""
        if math.isnan(self.p_value):
            return f"Too few clusters or cuts for a test of proportional odds.{lost}"
        pooled = f", pooled over {self.tables} imputed tables by D1" if self.tables > 1 else ""
        df2 = f"{self.df[1]:.1f}".removesuffix(".0")
        return f"Test of proportional odds: F({self.df[0]:.0f}, {df2}) = {self.statistic:.2f}, p = {self.p_value:.3f}{pooled}.{lost}"


def brant(x: Array, y: Codes, codes: Codes, categories: int, k: int) -> Brant:
    """Binary logits at every cut, their coefficients of column `k`, one Mancl-DeRouen sandwich for all, and the F test of equality.

    Raises
    ------
    InputError
        Fewer than two cuts can be fitted.
    """
    whole = np.column_stack([np.ones(len(x)), x])
    order = np.argsort(codes, kind="stable")
    clusters = [rows for rows in np.split(order, np.cumsum(np.bincount(codes))[:-1]) if len(rows)]
    family = gee.FAMILIES["binomial"]
    cuts, estimates, influences = [], [], []
    for cut in range(categories - 1):
        above = (y > cut).astype(np.float64)
        try:
            fit = gee.solve(whole, above, codes, family, exchangeable=False)
        except (InputError, np.linalg.LinAlgError):
            continue
        mean = family.mean(whole @ fit.beta)
        root = np.sqrt(family.variance(mean))
        d, r = whole * root[:, None], (above - mean) / root
        M = np.linalg.inv(d.T @ d)
        if np.abs(whole @ fit.beta).max() > 15 or float(np.linalg.eigvalsh(d.T @ d)[0]) <= 0:
            continue
        each = []
        for rows in clusters:
            values, vectors = np.linalg.eigh(d[rows] @ M @ d[rows].T)
            left = np.where(1 - values > 1e-9, 1 - values, np.inf)
            each.append(M[k + 1] @ (d[rows].T @ (vectors @ ((vectors.T @ r[rows]) / left))))
        cuts.append(cut)
        estimates.append(float(fit.beta[k + 1]))
        influences.append(each)
    if len(cuts) < 2:
        raise InputError("the odds cannot be compared between cuts: fewer than two have outcomes on both sides in every arm and category.")
    b, U = np.array(estimates), np.array(influences)  # (K,), (K, J)
    V = U @ U.T
    nu = int(degrees(x, codes, 1, "between-within")[k])
    statistic, df, p = _equal_odds([(b, V)], nu)
    return Brant(tuple(cuts), b, np.sqrt(np.diagonal(V)), statistic, df, p, categories - 1 - len(cuts), V, nu)


def hotelling(estimates: Array, covariances: Array, nu: float) -> tuple[float, float]:
    """Joint F of q coefficients with nu df each, and its denominator df; both missing when those are fewer than one.

    Parameters
    ----------
    estimates : array (m, q)
        One table: Hotelling's T squared; several: D1 of the same.
    covariances : array (m, q, q)
    nu : float
    """
    q = estimates.shape[1]
    df = nu - q + 1.0
    if df < 1:
        return math.nan, math.nan
    # c'V^-1c (nu - q + 1) / (nu q) is F, so V nu / (nu - q + 1) is what a Wald F of these df has
    spread = covariances * nu / df
    if len(estimates) == 1:
        return float(estimates[0] @ np.linalg.solve(spread[0], estimates[0])) / q, df
    pooled = pooling.d1(estimates, spread, df)
    return float(pooled.statistic), min(float(pooled.df2), df)


def _equal_odds(each: Sequence[tuple[Array, Array]], nu: float) -> tuple[float, tuple[float, float], float]:
    """F test that the coefficients of all cuts are one, from one table (Hotelling's T squared) or several (D1 of the same F)."""
    C = np.diff(np.eye(len(each[0][0])), axis=0)
    q = len(C)
    df2 = nu - q + 1.0
    if df2 < 1 or any(np.linalg.matrix_rank(C @ V @ C.T) < q for _, V in each):
        return math.nan, (float(q), df2), math.nan
    statistic, df2 = hotelling(np.array([C @ b for b, _ in each]), np.array([C @ V @ C.T for _, V in each]), nu)
    return statistic, (float(q), df2), float(stats.f.sf(statistic, q, df2))


def pooled_brant(found: Sequence[Brant]) -> Brant:
    """The test of equal odds over imputed tables, on the cuts that every table could be fitted at.

    Parameters
    ----------
    found : sequence of Brant
        One a table, of the same column and categories.

    Raises
    ------
    InputError
        Fewer than two cuts are common to all tables.

    Notes
    -----
    Coefficients and their joint sandwich are pooled by D1 (Li, Raghunathan & Rubin 1991; Reiter 2007 for few df), its denominator df never
    above those of one table.
    """
    cuts = [cut for cut in found[0].cuts if all(cut in one.cuts for one in found)]
    if len(cuts) < 2:
        raise InputError("the odds cannot be compared between cuts: fewer than two could be fitted in every imputed table.")
    each = []
    for one in found:
        at = [one.cuts.index(cut) for cut in cuts]
        each.append((one.estimate[at], one.covariance[np.ix_(at, at)]))
    nu = min(one.counted for one in found)
    statistic, df, p = _equal_odds(each, nu)
    estimates = np.array([b for b, _ in each])
    total = np.mean([V for _, V in each], axis=0)
    if len(each) > 1:
        total = total + (1 + 1 / len(each)) * np.atleast_2d(np.cov(estimates.T))
    lost = found[0].left_out + len(found[0].cuts) - len(cuts)
    return Brant(tuple(cuts), estimates.mean(axis=0), np.sqrt(np.diagonal(total)), statistic, df, p, lost, total, nu, tables=len(found))
