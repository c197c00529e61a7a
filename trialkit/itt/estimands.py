"""Participant-average and cluster-average effects, and whether the size of a site tells anything about its effect.

The participant-average effect counts every person once, the cluster-average effect every site once. They differ when effects go with the
size of the site (informative cluster size), and then a mixed model's coefficient is neither: it weighs sites somewhere in between, by their
sizes and the ICC (Kahan, Li, Copas & Harhay 2023, Int. J. Epidemiol. 52:107; Wang, Park, Small & Li 2024, JASA). Both are estimated here by
least squares with independence between people (weights 1, or 1 over the size of the site), which is consistent for its estimand whatever
the correlation, with the CR2 sandwich over sites and Satterthwaite df (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from trialkit._kernels import reml, small_sample
from trialkit.design import TrialDesign
from trialkit.door import InputError, unknown_word
from trialkit.itt.cluster_level import Weights, site_values, two_stage
from trialkit.itt.coefficient_table import EFFECT
from trialkit.itt.outcome_models import pool_effect
from trialkit.itt.people import People
from trialkit.itt.prepared import Prepared, outcomes_asked, prepare
from trialkit.results import Result

Array = NDArray[np.float64]
Working = Literal["exchangeable", "independence"]
PARTICIPANT, CLUSTER = "participant-average", "cluster-average"
EQUATIONS, SUMMARIES = "independence estimating equations", "site means, adjusted"
DIFFERENCE, SLOPE = f"{PARTICIPANT} minus {CLUSTER}", "effect for each person more in the site"
_ESTIMANDS: tuple[tuple[str, int, Weights], ...] = ((PARTICIPANT, 0, "size"), (CLUSTER, 1, "equal"))


@dataclass(frozen=True)
class EstimandEffects(Result):
    """Effects by estimand, outcome by outcome.

    Attributes
    ----------
    frame : DataFrame
        outcome, estimand, analysis, estimate, std_error, df, p_value, conf_low, conf_high, n, clusters; divided by the SD that the design
        names. What could not be estimated has missing numbers and its reason in `problems`.
    informative : DataFrame
        outcome, test, estimate, std_error, df, p_value, conf_low, conf_high, clusters: the difference of the two effects, and the slope of
        the effect over the size of the site.
    sites : DataFrame
        outcome, site, arm (1/0), n, value: the site means of the first table, over the SD, for a picture of outcome against size.
    problems : mapping of (outcome, row) to reason
    notes : tuple of str
    """

    frame: pd.DataFrame
    informative: pd.DataFrame = field(repr=False)
    sites: pd.DataFrame = field(repr=False)
    problems: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    title: str = "Effects by estimand"


def estimand_effects(
    data: pd.DataFrame | Iterable[pd.DataFrame],
    design: TrialDesign,
    *,
    working: Working = "exchangeable",
    outcomes: Sequence[str] | None = None,
) -> EstimandEffects:
    """Participant-average and cluster-average effects of every outcome, each by two methods, and two tests of informative cluster size.

    Parameters
    ----------
    data, design
        As for `itt`. The size of a site is the number of its people analysed for the outcome. Pair effects are left out (pairs make the
        standard errors here a little too large, never too small on average).
    working : {"exchangeable", "independence"}
        Correlation inside sites that the bias correction and the df of the sandwich suppose; the estimates do not depend on it.
    outcomes : sequence of str, optional
        By default all.

    Returns
    -------
    EstimandEffects

    Raises
    ------
    InputError
        As `itt`; an outcome is not in the design.

    Notes
    -----
    Estimating equations: see `weighted_effects`. Site means: `two_stage`, sites counting by their people or equally. The slope comes from
    the mixed model with the size of the site and its product with the arm added, by Kenward-Roger. Imputed tables are pooled by Rubin's
    rules.

    Examples
    --------
    >>> design = TrialDesign.from_text('[[outcomes]]\\nname = "y"\\nhas_baseline = false')
    >>> rng = np.random.default_rng(5)
    >>> site = np.repeat(np.arange(12), [3, 4, 5, 6, 7, 8] * 2)
    >>> people = pd.DataFrame({
    ...     "person": range(66), "site": site, "arm": np.where(site % 2, "intervention", "control"),
    ...     "y": rng.normal(size=12)[site] / 3 + rng.normal(size=66),
    ... })
    >>> effects = estimand_effects(people, design)
    >>> effects.frame["estimand"].tolist()
    ['participant-average', 'participant-average', 'cluster-average', 'cluster-average']
    >>> effects.informative["test"].tolist()
    ['participant-average minus cluster-average', 'effect for each person more in the site']
    """
    if working not in ("exchangeable", "independence"):
        raise InputError(unknown_word(str(working), ("exchangeable", "independence"), what="working correlation"))
    wanted = outcomes_asked(design, outcomes)
    # pairs neither move these estimates' meaning nor belong in a sandwich over sites
    alone = design.model_copy(update={"analysis": design.analysis.model_copy(update={"pair_effects": "none"})})
    _, people, prepared = prepare(data, alone, denominator=design.analysis.standardise, scale="each-set")
    level = design.analysis.conf_level
    effects, tests, sites = [], [], []
    problems: dict[tuple[str, str], str] = {}
    for one in prepared:
        name = one.outcome.name
        if name not in wanted:
            continue
        equations = _once(partial(_equations, one, working))
        for estimand, k, weights in _ESTIMANDS:
            for analysis, compute in ((EQUATIONS, partial(_part, equations, k)), (SUMMARIES, partial(_summaries, one, people, weights))):
                row = _row(one, compute, problems, (name, f"{estimand}, {analysis}"), level)
                effects.append({"outcome": name, "estimand": estimand, "analysis": analysis, **row, "n": one.n, "clusters": sum(one.sites)})
        for test, compute in ((DIFFERENCE, partial(_difference, one, equations)), (SLOPE, partial(_slopes, one))):
            row = _row(one, compute, problems, (name, test), level)
            tests.append({"outcome": name, "test": test, **row, "clusters": sum(one.sites)})
        if not one.reason:
            means = site_values(one.responses[0] / one.sd[0], np.asarray(people.sites, dtype=object)[one.site], one.arm)
            sites += [
                {"outcome": name, "site": s, "arm": int(a), "n": int(n), "value": float(v)}
                for s, a, n, v in zip(means.sites, means.arm, means.n, means.value, strict=True)
            ]
    notes = [
        "Participant-average: every person counts once; cluster-average: every site once. A mixed model's coefficient is neither when "
        "effects go with the size of the site.",
        f"Estimating equations: CR2 over sites, Satterthwaite df, {working} working correlation. Size: the site's people analysed.",
    ]
    if design.analysis.pair_effects != "none":
        notes.append("Pair effects are left out here.")
    notes += [f"{outcome}, {what}: {reason}." for (outcome, what), reason in problems.items()]
    return EstimandEffects(
        frame=pd.DataFrame(effects).astype({"outcome": "str", "estimand": "str", "analysis": "str"}),
        informative=pd.DataFrame(tests).astype({"outcome": "str", "test": "str"}),
        sites=pd.DataFrame(sites, columns=["outcome", "site", "arm", "n", "value"]),
        problems=problems,
        notes=tuple(notes),
    )


# --- rows of the tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Estimate:
    estimate: float
    std_error: float
    df: float


def _sets(one: Prepared) -> Iterable[tuple[Array, Array, float]]:
    return zip(one.matrices, one.responses, one.sd.tolist(), strict=True)


Found = Callable[[], list["WeightedEffects"]]


def _equations(one: Prepared, working: Working) -> list[WeightedEffects]:
    return [weighted_effects(x, y / s, one.site, working=working) for x, y, s in _sets(one)]


def _once(compute: Found) -> Found:
    """The same computation for three rows, made when first asked for; its error is raised to each."""
    kept: list[WeightedEffects] = []

    def found() -> list[WeightedEffects]:
        if not kept:
            kept.extend(compute())
        return kept

    return found


def _part(found: Found, k: int) -> list[_Estimate]:
    return [e.part(k) for e in found()]


def _row(
    one: Prepared, compute: Callable[[], Sequence[_Estimate]], problems: dict[tuple[str, str], str], key: tuple[str, str], level: float
) -> dict[str, float]:
    try:
        if one.reason:
            raise InputError(one.reason)
        return _pool(compute(), level)
    except InputError as error:
        problems[key] = str(error).rstrip(".")
        return dict.fromkeys(EFFECT, math.nan)


def _pool(found: Sequence[_Estimate], level: float) -> dict[str, float]:
    estimate, std_error, df = (np.array([getattr(e, k) for e in found]) for k in ("estimate", "std_error", "df"))
    return pool_effect(estimate, std_error, df, level)


def _summaries(one: Prepared, people: People, weights: Weights) -> list[_Estimate]:
    labels = np.asarray(people.sites, dtype=object)[one.site]
    out = []
    for x, y, s in _sets(one):
        values = site_values(y / s, labels, one.arm, covariates=x[:, 2:] if x.shape[1] > 2 else None)
        found = two_stage(values, weights=weights)
        out.append(_Estimate(found.estimate, found.std_error, found.df))
    return out


def _sizes(one: Prepared) -> Array:
    """The size of each person's site (n,)."""
    return np.bincount(one.site).astype(np.float64)[one.site]


def _difference(one: Prepared, found: Found) -> list[_Estimate]:
    if one.sizes[0] == one.sizes[1]:
        raise InputError("all sites have the same number of people, so the two effects are one")
    return _part(found, 2)


def _slopes(one: Prepared) -> list[_Estimate]:
    if one.sizes[0] == one.sizes[1]:
        raise InputError("all sites have the same number of people, so the effect has no slope over size")
    size = _sizes(one)
    size = size - size[np.unique(one.site, return_index=True)[1]].mean()
    matrices = []
    for x, _, _ in _sets(one):
        wider = np.column_stack([x, size, size * one.arm])
        if len(reml.independent_columns(wider)) < wider.shape[1]:
            raise InputError("the size of the site is a combination of the covariates, or does not vary within an arm")
        matrices.append(wider)
    out = []
    for x, (_, y, s) in zip(matrices, _sets(one), strict=True):
        fit = reml.fit(x, y, [one.site])
        if fit.components is None:
            raise InputError(reml.STATUS[fit.status])
        contrast = np.zeros((1, fit.p))
        contrast[0, -1] = 1.0
        found = small_sample.kenward_roger(fit, contrast)
        out.append(_Estimate(float(found.estimate[0]) / s, float(found.std_error[0]) / s, float(found.df[0])))
    return out


# --- arrays ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WeightedEffects:
    """The arm's coefficient in two weightings, and their difference.

    Attributes
    ----------
    estimate, std_error, df : array (3,)
        Participant-average, cluster-average, the first minus the second (NaN when all sites are of one size).
    correlation : float
        Of two people of one site, as the working covariance has it.
    """

    estimate: Array
    std_error: Array
    df: Array
    correlation: float

    def part(self, k: int) -> _Estimate:
        """One of the three."""
        return _Estimate(float(self.estimate[k]), float(self.std_error[k]), float(self.df[k]))


def weighted_effects(x: ArrayLike, y: ArrayLike, site: ArrayLike, *, working: Working = "exchangeable") -> WeightedEffects:
    """Least squares with people counting once and with sites counting once, CR2 sandwich over sites and Satterthwaite df.

    Parameters
    ----------
    x : array (n, p)
        Full column rank; column 0 the constant, column 1 the arm.
    y : array (n,)
    site : array (n,)
        Site codes or labels.
    working : {"exchangeable", "independence"}
        Phi_j, for which CR2 is unbiased and from which the df come; the exchangeable correlation is geepack's moment estimate, at least 0.

    Returns
    -------
    WeightedEffects

    Raises
    ------
    InputError
        Fewer than two sites an arm, the sites are no more than the coefficients between sites, or a fit is exact.

    Notes
    -----
    ``b_k = M_k X'W_k y`` with W = I, or one over the site's size; ``A_j = D_j' B_j^{-1/2} D_j``, ``Phi_j = D_j'D_j``,
    ``B_j = D_j [(I - H) Phi (I - H)']_jj D_j'``; variance ``sum_j (a_j'e_j)^2``, ``a_j = A_j W_j X_j M c``. The difference's variance is
    the sum of ``(a_Pj'e_Pj - a_Cj'e_Cj)^2``, multiplied by what makes it unbiased when Phi is right.

    Examples
    --------
    >>> x = np.column_stack([np.ones(10), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]])
    >>> y = [1.0, 2, 3, 6, 2, 4, 7, 5, 9, 4]
    >>> found = weighted_effects(x, y, list("aaabbcccdd"))
    >>> found.estimate.round(3).tolist()
    [3.0, 2.917, 0.083]
    """
    z = np.array(x, dtype=np.float64)
    values = np.asarray(y, dtype=np.float64)
    codes = np.unique(np.asarray(site), return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    z, values, codes = z[order], values[order], codes[order]
    counts = np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    arm_of = z[starts, 1]
    treated = arm_of > arm_of.min()
    if min(treated.sum(), (~treated).sum()) < 2:
        raise InputError(f"{int((~treated).sum())} and {int(treated.sum())} sites in the two arms: at least 2 an arm are needed")
    # units reach no digit of the answer; the arm's coefficient does not know that the columns were centred
    z[:, 1:] -= z[:, 1:].mean(axis=0)
    z[:, 2:] /= np.sqrt((z[:, 2:] ** 2).mean(axis=0))
    values = values - values.mean()
    sizes = counts[codes].astype(np.float64)
    fits = [_Weighted.of(z, values, w) for w in (np.ones(len(values)), sizes.mean() / sizes)]
    if any(f.residual @ f.residual <= 1e-22 * max(values @ values, 1e-300) for f in fits):
        raise InputError("the arm and the covariates reproduce the outcome exactly")
    alpha = _correlation(fits[0].residual, codes, counts) if working == "exchangeable" else 0.0
    working_model = _Exchangeable(alpha, starts, codes, counts)
    adjusted = [f.adjusted(z, working_model) for f in fits]
    parts = [([f.functional(z)], [a], [f.spread(z)], [1.0], [f.residual]) for f, a in zip(fits, adjusted, strict=True)]
    parts.append(([f.functional(z) for f in fits], adjusted, [f.spread(z) for f in fits], [1.0, -1.0], [f.residual for f in fits]))
    estimate = np.array([*(f.beta[1] for f in fits), fits[0].beta[1] - fits[1].beta[1]])
    std_error, df = np.full(3, np.nan), np.full(3, np.nan)
    for k, (functional, a, spread, signs, residual) in enumerate(parts):
        if k == 2 and np.ptp(counts) == 0:
            continue
        squares = np.asarray(sum(s * np.add.reduceat(v * e, starts) for s, v, e in zip(signs, a, residual, strict=True))) ** 2
        d = np.asarray(sum(s * v for s, v in zip(signs, a, strict=True)))
        B = np.column_stack([s * b for s, b in zip(signs, spread, strict=True)])
        u = np.column_stack([np.add.reduceat(v[:, None] * z, starts, axis=0) for v in a])
        trace, frobenius = _moments(d, B, u, working_model)
        l = np.asarray(sum(s * f for s, f in zip(signs, functional, strict=True)))
        scale = float(l @ working_model.times(l)) / trace if k == 2 else 1.0
        std_error[k], df[k] = math.sqrt(scale * float(squares.sum())), trace**2 / frobenius
    if not (std_error[:2] > 0).all() or not (df[:2] > 0).all():
        raise InputError(f"{len(counts)} sites leave nothing to judge the effect by after the site-level covariates")
    return WeightedEffects(estimate, std_error, df, alpha)


@dataclass(frozen=True, slots=True)
class _Exchangeable:
    """Phi = (1 - alpha) I + alpha 11' within sites, rows sorted by site."""

    alpha: float
    starts: NDArray[np.intp]  # (J,)
    codes: NDArray[np.intp]  # (n,)
    counts: NDArray[np.intp]  # (J,)

    def times(self, v: Array) -> Array:
        """Phi v for v (n,) or (n, q)."""
        return np.asarray((1 - self.alpha) * v + self.alpha * np.add.reduceat(v, self.starts, axis=0)[self.codes])


@dataclass(frozen=True, slots=True)
class _Weighted:
    """One weighted fit."""

    weight: Array  # (n,)  the same for all people of a site
    beta: Array  # (p,)
    residual: Array  # (n,)
    inverse: Array  # (p, p)  M

    @classmethod
    def of(cls, z: Array, y: Array, weight: Array) -> _Weighted:
        root = np.sqrt(weight)[:, None]
        q, r = np.linalg.qr(root * z)
        back = np.linalg.inv(r)
        beta = back @ (q.T @ (root[:, 0] * y))
        return cls(weight, beta, y - z @ beta, back @ back.T)

    @property
    def rows(self) -> Array:
        """A column, to scale rows by."""
        return self.weight[:, None]

    def spread(self, z: Array) -> Array:
        """W X M (n, p)."""
        return np.asarray(self.rows * (z @ self.inverse))

    def functional(self, z: Array) -> Array:
        """The vector l (n,) with l'y the arm's coefficient."""
        return np.asarray(self.weight * (z @ self.inverse[:, 1]))

    def adjusted(self, z: Array, phi: _Exchangeable) -> Array:
        """a_j = A_j W_j X_j M c of all sites, row by row (n,); sites of one size are taken together."""
        weighted = self.rows * z
        twice = self.inverse @ (weighted.T @ phi.times(weighted)) @ self.inverse
        functional = self.functional(z)
        out = np.empty(len(z))
        for size in np.unique(phi.counts):
            rows = phi.starts[phi.counts == size][:, None] + np.arange(size)
            part, weight = z[rows], self.weight[rows[:, :1, None]]
            own = np.full((size, size), phi.alpha) + (1 - phi.alpha) * np.eye(size)
            D = np.linalg.cholesky(own).T
            hat = (weight * (part @ self.inverse @ part.transpose(0, 2, 1))) @ own
            middle = own - hat - hat.transpose(0, 2, 1) + part @ twice @ part.transpose(0, 2, 1)
            values, vectors = np.linalg.eigh(D @ middle @ D.T)
            # a direction that a site's rows fit exactly carries no residual: the pseudo-inverse leaves it out
            scale = np.where(values > 1e-10 * np.maximum(values[:, -1:], 1e-300), values, np.inf) ** -0.5
            turned = (vectors.transpose(0, 2, 1) @ (D @ functional[rows][:, :, None]))[:, :, 0] * scale
            out[rows] = (vectors @ turned[:, :, None])[:, :, 0] @ D
        return out


def _correlation(residual: Array, codes: NDArray[np.intp], counts: NDArray[np.intp]) -> float:
    pairs = float((counts * (counts - 1) / 2).sum())
    if pairs == 0:
        return 0.0
    squares = np.bincount(codes, weights=residual**2)
    products = float((np.bincount(codes, weights=residual) ** 2 - squares).sum()) / 2
    return min(max(products / pairs / float(squares.sum() / len(residual)), 0.0), 0.999)


def _moments(d: Array, B: Array, u: Array, phi: _Exchangeable) -> tuple[float, float]:
    """Trace and squared Frobenius norm of G (J, J), G_ij = q_i'Phi q_j with q_j = (d of site j, else 0) - B u_j; never formed."""
    own = np.add.reduceat(d * phi.times(d), phi.starts)
    T = B.T @ phi.times(B)
    h = np.add.reduceat(d[:, None] * phi.times(B), phi.starts, axis=0)  # Phi keeps to sites, so this is B_j'Phi_j d_j
    # G = diag(own) + U K U'
    U = np.column_stack([h, u])
    q = B.shape[1]
    K = np.block([[np.zeros((q, q)), -np.eye(q)], [-np.eye(q), T]])
    low = np.einsum("ji,ik,jk->j", U, K, U)
    N = K @ (U.T @ U)
    return float((own + low).sum()), float((own**2).sum() + 2 * (own * low).sum() + np.einsum("ij,ji->", N, N))
