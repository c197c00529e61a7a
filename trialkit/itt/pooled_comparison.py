"""Two nested mixed models over imputed tables: fitted to each, and their difference tested once (D1 to D4).

A covariate of several categories, an interaction or a random effect is several parameters, or a variance on its boundary, so that Rubin's
rules for one estimate do not test it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit._kernels import pooling, reml
from trialkit.door import InputError, cell_text, few, normalise, unknown_word
from trialkit.itt import model_frame, random_part
from trialkit.itt.formula import parse
from trialkit.itt.mixed import MixedModel, fit_mixed
from trialkit.results import Result

Array = NDArray[np.float64]
METHODS = ("D1", "D2", "D3", "D4")
_WHAT = {
    "D1": "Wald test of the coefficients that the smaller model leaves out, on the pooled estimates",
    "D2": "from the {statistic} statistics of the single sets, which is the least exact: p is good to about a factor of two",
    "D3": "likelihood ratio, with both models' parameters held at their averages over the sets",
    "D4": "likelihood ratio, with both models fitted to the sets stacked",
}
_WHO = {
    "reiter": "Reiter (2007)",
    "li": "Li, Raghunathan and Rubin (1991)",
    "chan-meng": "Chan and Meng (2022)",
}


@dataclass(frozen=True)
class PooledComparison(Result):
    """A larger against a smaller model over m imputed tables.

    Attributes
    ----------
    frame : DataFrame
        One row: method, statistic (referred to F(df1, df2)), df1, df2, p_value, riv (relative increase in variance), df_rule, m.
    larger, smaller : str
        The models.
    tested : tuple of str
        Coefficients that only the larger model has; empty when they differ in random effects alone.
    statistics : array (m,)
        Of the single sets: Wald's (D1, D2 of Wald's) or the likelihood ratio's chi-square.
    notes : tuple of str
    """

    frame: pd.DataFrame
    larger: str
    smaller: str
    tested: tuple[str, ...]
    statistics: Array
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Heading of the printed table."""
        return f"{self.larger}  against  {self.smaller}"

    @property
    def p_value(self) -> float:
        """Of the pooled test."""
        return float(self.frame["p_value"].iloc[0])


def pool_comparison(
    data: Iterable[pd.DataFrame],
    larger: str,
    smaller: str,
    *,
    groups: Sequence[str] | str | None = None,
    slopes: Mapping[str, str | Sequence[str]] | None = None,
    method: Literal["D1", "D2", "D3", "D4"] = "D1",
    inference: str = "kenward-roger",
    df_complete: float | None = None,
    statistic: Literal["likelihood", "wald"] = "likelihood",
    positive: bool = False,
) -> PooledComparison:
    """Fit two nested mixed models to every imputed table and test their difference once.

    Parameters
    ----------
    data : iterable of DataFrames
        Imputed tables, as `trialkit.impute` gives them; at least two.
    larger, smaller : str
        Formulas as for `fit_mixed`; the smaller one leaves out terms of the larger. Random parts stand in `groups` and `slopes` for both,
        or in each formula: ``"y ~ arm + (1|pair) + (1|site)"``.
    groups, slopes : optional
        As for `fit_mixed`, of both models.
    method : {"D1", "D2", "D3", "D4"}
        ``"D1"`` (default): Wald test of the coefficients left out, by REML, with a small-sample df; for fixed effects. ``"D3"`` (Meng and
        Rubin 1992) and ``"D4"`` (Chan and Meng 2022): likelihood ratio, by maximum likelihood, also for random effects; neither knows a
        complete-data df. ``"D2"``: from the sets' chi-squares alone.
    inference : str
        Of D1 and of D2 by Wald: whose covariance and, for D1, denominator df; as for `fit_mixed`. ``"normal"``: neither is corrected.
    df_complete : float, optional
        Of D1: the denominator df had nothing been missing. By default the mean over the sets of the joint test's df under `inference`.
    statistic : {"likelihood", "wald"}
        Of D2: which chi-square.
    positive : bool, default False
        Cut a relative increase in variance below zero (D2, D3, D4) at zero.

    Returns
    -------
    PooledComparison

    Raises
    ------
    InputError
        One table, or none; models that are not nested, or not of the same rows or columns in every set; D1 of models that differ in their
        random part; D3 with random slopes.

    Notes
    -----
    Formulas: `trialkit._kernels.pooling`. D3's averages are of fixed effects and of variances, as in R's mitml; D4's stacked fit keeps the
    groups of each set apart. A variance at zero under the smaller model lies on the boundary, where all four are conservative.

    Examples
    --------
    >>> rng = np.random.default_rng(3)
    >>> site = np.repeat(np.arange(20), 5)
    >>> people = pd.DataFrame({"site": site, "arm": np.where(site % 2, "intervention", "control"), "age": rng.choice(["a", "b", "c"], 100)})
    >>> sets = [people.assign(y=rng.normal(size=20)[site] / 3 + rng.normal(size=100)) for _ in range(4)]
    >>> test = pool_comparison(sets, "y ~ arm + age", "y ~ arm", groups=["site"])
    >>> test.tested, test.frame["df1"].iloc[0]
    (('ageb', 'agec'), np.float64(2.0))
    """
    if method not in METHODS:
        raise InputError(unknown_word(str(method), METHODS, what="method"))
    if statistic not in ("likelihood", "wald"):
        raise InputError(unknown_word(str(statistic), ("likelihood", "wald"), what="statistic"))
    if df_complete is not None and not df_complete > 0:
        raise InputError(f"df_complete = {df_complete!r}: degrees of freedom are a positive number.")
    frames = _frames(data)
    wald = method == "D1" or (method == "D2" and statistic == "wald")
    options: dict[str, Any] = {"groups": groups, "slopes": slopes, "method": "reml" if wald else "ml"}
    fits = [
        (fit_mixed(larger, f, inference=inference if wald else "normal", **options), fit_mixed(smaller, f, inference="normal", **options))
        for f in frames
    ]
    tested = _nested(fits, wald=wald, method=method)
    m = len(frames)
    if wald:
        columns = [fits[0][0].model.names.index(name) for name in tested]
        q = np.array([big.kernel.beta[columns] for big, _ in fits])
        u = np.array([big.cov.to_numpy()[np.ix_(columns, columns)] for big, _ in fits])
        each = np.array([b @ np.linalg.solve(c, b) for b, c in zip(q, u, strict=True)])
        if method == "D1":
            nu = df_complete if df_complete is not None else _df(fits, tested, inference)
            found = pooling.d1(q, u, nu)
        else:
            found = pooling.d2(each, len(tested), positive=positive)
    else:
        k = fits[0][0]._parameters - fits[0][1]._parameters
        each = np.array([max(2 * (big.log_likelihood - small.log_likelihood), 0.0) for big, small in fits])
        if method == "D2":
            found = pooling.d2(each, k, positive=positive)
        elif method == "D3":
            at = 2 * np.mean(_at_averages([big for big, _ in fits]) - _at_averages([small for _, small in fits]))
            found = pooling.d3(float(each.mean()), float(at), k, m, positive=positive)
        else:
            stacked = [_stacked(text, frames, options) for text in (larger, smaller)]
            found = pooling.d4(float(each.mean()), 2 * (stacked[0] - stacked[1]) / m, k, m, positive=positive)
    row = {
        "method": method,
        "statistic": found.statistic,
        "df1": found.df1,
        "df2": found.df2,
        "p_value": found.p_value,
        "riv": found.riv,
        "df_rule": found.df_rule,
        "m": m,
    }
    notes = [f"{method}: {_WHAT[method].format(statistic=statistic)}. df2: {_WHO[found.df_rule]}."]
    if tested:
        notes.append(f"Tested: {few(tested, 8)}.")
    if wald and method == "D1" and found.df_rule == "reiter":
        notes.append(f"Complete-data denominator df {nu:.1f}" + ("." if df_complete is not None else f", {inference}, mean over the sets."))
    if not wald and fits[0][0]._parameters - fits[0][1]._parameters > len(tested):
        notes.append("A variance that is zero in the smaller model lies on the boundary: the p-value is too large there, up to twice.")
    if found.riv < 0:
        notes.append("The relative increase in variance came out below 0, which chance does with few sets; positive=True cuts it there.")
    return PooledComparison(pd.DataFrame([row]), fits[0][0].formula, fits[0][1].formula, tested, each, tuple(notes))


def _frames(data: Iterable[pd.DataFrame]) -> list[pd.DataFrame]:
    if isinstance(data, pd.DataFrame | str | bytes | Mapping) or not isinstance(data, Iterable):
        raise InputError("pool_comparison needs the imputed tables, at least two: give what impute returned, or a list of tables.")
    frames = [normalise(f) for f in data]
    if len(frames) < 2:
        raise InputError(f"{len(frames)} table: pooling needs at least two. For one table: fit_mixed(...).compare(...).")
    return frames


def _nested(fits: Sequence[tuple[MixedModel, MixedModel]], *, wald: bool, method: str) -> tuple[str, ...]:
    """The coefficients that only the larger model has, after checking that the models are nested and alike in all sets."""
    big, small = fits[0]
    for k, (one, other) in enumerate(fits[1:], 2):
        for found, first in ((one, big), (other, small)):
            if found.model.names != first.model.names:
                odd = sorted(set(found.model.names) ^ set(first.model.names))
                raise InputError(
                    f"table {k} gives other coefficients than table 1 ({few(odd)}): a category that some sets do not hold, or a column "
                    "left out as a combination of others. Join rare categories before imputing."
                )
            if len(found.model.rows) != len(first.model.rows):
                raise InputError(
                    f"table {k} has {found.n} rows to analyse and table 1 has {first.n}. Give completed tables of the same people."
                )
    if not np.array_equal(big.model.rows, small.model.rows):
        raise InputError(
            f"the models are of different rows ({big.n} and {small.n}): a column of the larger one has missing values. Impute it, or leave "
            "those rows out first."
        )
    if big.model.response != small.model.response:
        raise InputError(f"the models have other outcomes: {big.model.response!r} and {small.model.response!r}.")
    gone = [name for name in small.model.names if name not in big.model.names]
    if gone:
        raise InputError(f"the larger model does not contain {few(gone)}, so the models are not nested.")
    tested = tuple(name for name in big.model.names if name not in small.model.names)
    random = [(tuple(g.name for g in f.model.groups), tuple((r.factor, r.names) for r in f.model.random)) for f in (big, small)]
    missing = [g for g in random[1][0] if g not in random[0][0]]
    if missing:
        raise InputError(f"the larger model has no random effect for {few(missing)}, so the models are not nested.")
    if wald and (random[0] != random[1] or not tested):
        what = "differ in their random effects" if random[0] != random[1] else "have the same fixed effects"
        raise InputError(f'{method} by Wald tests fixed effects, and the models {what}. Use method="D3" or "D4" (likelihood ratio).')
    if big._parameters <= small._parameters:
        raise InputError("the second model is not smaller than the first: give the larger formula first.")
    return tested


def _df(fits: Sequence[tuple[MixedModel, MixedModel]], tested: Sequence[str], inference: str) -> float:
    """Mean over the sets of the joint test's complete-data denominator df."""
    if inference == "normal":
        return float("inf")
    return float(np.mean([big.test(list(tested)).frame["df2"].iloc[0] for big, _ in fits]))


def _at_averages(fits: Sequence[MixedModel]) -> Array:
    """Log-likelihood (m,) of each set at the averages of fixed effects and variances."""
    first = fits[0]
    if any(set(r.names) != {model_frame.INTERCEPT} for r in first.model.random) or first.model.strata is not None:
        raise InputError('D3 is for random intercepts; with random slopes use method="D4" (or "D1" for fixed effects).')
    beta = np.mean([f.kernel.beta for f in fits], axis=0)
    variances = np.mean([random_part.averages(f.model, f.kernel) for f in fits], axis=0)
    codes = [[g.codes for g in f.model.groups] for f in fits]
    return np.array(
        [
            reml.log_likelihood_at(f.model.y - f.model.x @ beta, c, variances[:-1], float(variances[-1]), weights=f.model.weights)
            for f, c in zip(fits, codes, strict=True)
        ]
    )


def _stacked(text: str, frames: Sequence[pd.DataFrame], options: Mapping[str, Any]) -> float:
    """Log-likelihood of one model fitted to all sets at once, the groups of each set being others'."""
    groups = options["groups"]
    columns = {c for part in parse(text).groups for c in part} | set([groups] if isinstance(groups, str) else groups or ())
    parts = [f.assign(**{c: [f"{k}:{cell_text(v)}" for v in f[c].tolist()] for c in columns}) for k, f in enumerate(frames)]
    fit: MixedModel = fit_mixed(text, pd.concat(parts, ignore_index=True), inference="normal", **options)
    return fit.log_likelihood
