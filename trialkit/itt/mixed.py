"""`fit_mixed`: a linear mixed model with nested random intercepts, and inference that knows how few the sites are.

``y_ij = x_ij' beta + u_j + e_ij`` (and a pair's intercept around it), by REML or ML on per-site sufficient statistics. The numbers
come from `trialkit._kernels`; here the formula is read, what cannot be estimated is refused in words, and the answer becomes tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from trialkit._kernels import reml, small_sample
from trialkit.door import InputError, check_conf_level, few, normalise, printable, unknown_word
from trialkit.itt import model_frame
from trialkit.itt.denominator_df import counted_df
from trialkit.itt.formula import parse
from trialkit.itt.model_frame import INTERCEPT, ModelFrame
from trialkit.results import Result, Table

Array = NDArray[np.float64]
Method = Literal["reml", "ml"]

INFERENCE = ("kenward-roger", "satterthwaite", "between-within", "containment", "residual", "normal")
RESIDUAL = "Residual"


@dataclass(frozen=True)
class MixedModel(Result):
    """A fitted linear mixed model.

    Attributes
    ----------
    frame : DataFrame
        One row a fixed effect: term, estimate, std_error, df, statistic, p_value, conf_low, conf_high.
    variance_components : DataFrame
        One row a random intercept (outermost first) and the residual: group, variance, sd, share (of the total), groups, boundary.
    log_likelihood : float
        Restricted for REML, with lme4's constants.
    cov : DataFrame
        Covariance of the fixed effects in force (Kenward-Roger adjusted under ``inference="kenward-roger"``), labelled by term.
    optimum : object
        Record of the optimiser: iterations, evaluations, gradient, converged.
    n : int
        Rows analysed.
    n_groups : mapping of grouping factor to number of groups
    dropped : tuple of str
        Columns left out as combinations of earlier ones.
    notes : tuple of str
        Rows left out, variances at zero, and other things a reader must know.
    formula, inference, method, conf_level
        As asked.
    """

    formula: str
    inference: str
    method: str
    conf_level: float
    model: ModelFrame = field(repr=False)
    kernel: Any = field(repr=False)
    _found: _Inference = field(repr=False)

    # --- tables: made when first asked for, so that thousands of fits need not wait for them

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a fixed effect."""
        names = self.model.names
        return _t_table("term", list(names), self._found, np.zeros(len(names)), self.conf_level)

    @cached_property
    def variance_components(self) -> pd.DataFrame:
        """One row a random intercept and the residual."""
        return _components(self.model, self.kernel)

    @cached_property
    def cov(self) -> pd.DataFrame:
        """Covariance of the fixed effects in force."""
        names = list(self.model.names)
        return pd.DataFrame(self._found.cov, index=names, columns=names)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        return (*self.model.notes(), *_variance_notes(self.kernel, self.model, self.inference))

    # --- figures

    @property
    def log_likelihood(self) -> float:
        """Restricted for REML, with lme4's constants."""
        return float(self.kernel.log_likelihood)

    @property
    def optimum(self) -> Any:
        """What the search did."""
        return self.kernel.optimum

    @property
    def n(self) -> int:
        """Rows analysed."""
        return len(self.model.y)

    @property
    def n_groups(self) -> dict[str, int]:
        """Groups in each grouping factor, outermost first."""
        return {g.name: len(g.labels) for g in self.model.groups}

    @property
    def dropped(self) -> tuple[str, ...]:
        """Columns left out as combinations of earlier ones."""
        return self.model.dropped

    @property
    def title(self) -> str:
        """One line above the table."""
        return f"{self.formula}: {self.method.upper()}, {self.inference}"

    @property
    def variances(self) -> Array:
        """Variance of each random intercept, outermost first, then the residual variance."""
        return np.append(np.where(self.kernel.identified, self.kernel.variances, np.nan), self.kernel.sigma2)

    @property
    def icc(self) -> float:
        """Correlation of two people in the same innermost group: all between-group variance over the total.

        With pairs and sites it is (pair + site) / total; the share of each is in `variance_components`.
        """
        v = self.variances
        return float(v[:-1].sum() / v.sum())

    @property
    def response(self) -> Array:
        """The analysed outcome, (n,)."""
        return self.model.y

    @property
    def deviance(self) -> float:
        """-2 log likelihood."""
        return -2 * self.log_likelihood

    @property
    def aic(self) -> float:
        """Akaike's criterion: deviance + 2 (fixed effects + variances)."""
        return self.deviance + 2 * (len(self.model.names) + len(self.variances))

    @property
    def bic(self) -> float:
        """Schwarz's criterion with the number of rows, as lme4 has it."""
        return self.deviance + math.log(self.n) * (len(self.model.names) + len(self.variances))

    def row(self, term: str) -> pd.Series[Any]:
        """The row of `frame` for one coefficient."""
        names = self.model.names
        if term not in names:
            raise InputError(unknown_word(term, names, what="coefficient"))
        return self.frame.iloc[names.index(term)]

    def column(self, term: str) -> Array:
        """The design-matrix column of one coefficient, (n,)."""
        self.row(term)
        return self.model.x[:, self.model.names.index(term)]

    def model_std_error(self, term: str) -> float:
        """The coefficient's standard error without the Kenward-Roger adjustment."""
        k = self.model.names.index(str(self.row(term)["term"]))
        return float(math.sqrt(self.kernel.cov_beta[k, k]))

    # --- hypotheses

    def contrast(self, weights: ArrayLike | Mapping[str, float] | str, *, null: ArrayLike = 0.0) -> Table:
        """Linear combinations of the fixed effects, each with its own t test.

        Parameters
        ----------
        weights : mapping of coefficient to weight, name of a coefficient, or array (r, p) or (p,)
            For example ``{"age45-59": 1, "age30-44": -1}``.
        null : float or array (r,)
            Value under the null hypothesis.

        Returns
        -------
        Table
            contrast, estimate, std_error, df, statistic, p_value, conf_low, conf_high.
        """
        L, labels = self._contrast_matrix(weights)
        return Table(_t_table("contrast", labels, self._infer(L), np.broadcast_to(null, len(L)), self.conf_level), "Contrasts")

    def test(self, terms: str | Sequence[str] | None = None) -> Table:
        """Joint F tests.

        Parameters
        ----------
        terms : str or sequence of str, optional
            A term of the formula (``"age"`` tests all its columns together) or a coefficient; a sequence is tested as one hypothesis.
            By default each term of the formula in turn (marginal, "type III with treatment contrasts").

        Returns
        -------
        Table
            term, df1, df2, statistic, p_value, scale: `statistic` is the scaled F under Kenward-Roger and `scale` its factor.
        """
        m = self.model
        if terms is None:
            wanted = [(t, [t]) for k, t in enumerate(m.terms) if k in m.assign]
        else:
            asked = [terms] if isinstance(terms, str) else list(terms)
            wanted = [(" + ".join(asked), asked)]
        rows = []
        for label, parts in wanted:
            columns = sorted({j for part in parts for j in self._columns_of(part)})
            L = np.eye(len(m.names))[columns]
            rows.append({"term": label, **self._f_test(L)})
        return Table(pd.DataFrame(rows), "Joint tests", formats={"df1": "d", "df2": ".1f", "scale": ".4f"})

    def means(self, variable: str) -> Table:
        """Estimated marginal means of a variable's levels, and their differences from the first.

        Parameters
        ----------
        variable : str
            A factor, or a number with two distinct values (such as a 0/1 arm).

        Returns
        -------
        Table
            level, estimate, std_error, df, statistic, p_value, conf_low, conf_high; then one row a difference, ``"b - a"``. Other factors
            count every level equally, two-valued numbers each value equally, and other numbers stand at their mean (as R's emmeans).

        Raises
        ------
        InputError
            The variable is not in the model, has more than two distinct numbers, or its means rest on a column that was left out.
        """
        m = self.model
        found = next((v for v in m.formula.variables if variable in (v.column, v.label)), None)
        if found is None:
            raise InputError(unknown_word(variable, [v.label for v in m.formula.variables], what="variable of the model"))
        column = m.columns[found]
        if column.levels is None:
            distinct = np.unique(column.values)
            if len(distinct) > 2:
                raise InputError(
                    f"{variable!r} has {len(distinct)} distinct numbers, so it has no levels. Write factor({variable}) for means."
                )
            labels, places = [f"{v:g}" for v in distinct], list(distinct)
        else:
            labels, places = list(column.levels), list(range(len(column.levels)))
        rows = [model_frame.reference_row(m, {found: place}) for place in places]
        lost = next((name for row in rows for name, value in row.items() if value and name not in m.names), None)
        if lost is not None:
            raise InputError(f"the means of {variable!r} rest on the column {lost!r}, which was left out as a combination of others.")
        L = np.array([[row.get(name, 0.0) for name in m.names] for row in rows])
        L = np.vstack([L, L[1:] - L[0]])
        labels += [f"{label} - {labels[0]}" for label in labels[1:]]
        table = _t_table("level", labels, self._infer(L), np.zeros(len(L)), self.conf_level)
        return Table(table, f"Estimated marginal means of {variable}")

    # --- intervals

    def confint(self, method: str = "profile", *, conf_level: float | None = None) -> pd.DataFrame:
        """Confidence intervals of the fixed effects and the standard deviations.

        Parameters
        ----------
        method : {"profile", "t"}
            ``"profile"``: profile likelihood by maximum likelihood, as lme4's ``confint`` (a lower limit of 0 for a standard deviation
            means that zero is not rejected). ``"t"``: the intervals of `frame`; standard deviations have none then.
        conf_level : float, optional

        Returns
        -------
        DataFrame
            parameter, estimate, conf_low, conf_high; the standard deviations are called ``sd(site)`` and ``sd(Residual)``.
        """
        level = self.conf_level if conf_level is None else conf_level
        if not 0 < level < 1:
            raise InputError(f"conf_level = {level} is not between 0 and 1, for example 0.95.")
        names = list(self.model.names)
        estimate = np.asarray(self.kernel.beta)
        if method == "t":
            half = t_quantile(self._found.df, 0.5 + level / 2) * self._found.std_error
            limits = np.column_stack([estimate - half, estimate + half])
        elif method == "profile":
            self._profiled()
            limits = reml.profile_contrasts(self.kernel.reduced, np.eye(len(names)), level=level)
            limits = np.vstack([limits, reml.profile_sd(self.kernel.reduced, level=level)])
            names += [f"sd({g.name})" for g in self.model.groups] + [f"sd({RESIDUAL})"]
            estimate = np.append(estimate, np.sqrt(self.variances))
        else:
            raise InputError(unknown_word(str(method), ("profile", "t"), what="interval"))
        return pd.DataFrame(
            {"parameter": pd.Series(names, dtype="str"), "estimate": estimate, "conf_low": limits[:, 0], "conf_high": limits[:, 1]}
        )

    def icc_interval(self, *, conf_level: float | None = None) -> tuple[float, float]:
        """Profile-likelihood interval of the intraclass correlation, by the model's own likelihood (REML or ML)."""
        self._profiled()
        if len(self.model.groups) > 1:
            raise InputError("the interval of the intraclass correlation is for one grouping factor; fit groups=['site'] for it.")
        level = self.conf_level if conf_level is None else conf_level
        low, high = reml.profile_ratio(self.kernel.reduced, level=level, method=self.method)  # type: ignore[arg-type]
        return low / (1 + low), high / (1 + high)

    def _profiled(self) -> None:
        if self.kernel.status != "ok":
            raise InputError(
                "every group has one row, so the likelihood says nothing about the variance between groups: no profile interval."
            )

    def _columns_of(self, part: str) -> list[int]:
        m = self.model
        if part in m.terms:
            found = [j for j, a in enumerate(m.assign) if a == m.terms.index(part)]
            if not found:
                raise InputError(
                    f"the term {part!r} has no column left in the model ({few(self.dropped) or 'one level'}), so it cannot be tested."
                )
            return found
        if part in m.names:
            return [m.names.index(part)]
        raise InputError(unknown_word(part, [*m.terms, *m.names], what="term"))

    def _contrast_matrix(self, weights: ArrayLike | Mapping[str, float] | str) -> tuple[Array, list[str]]:
        names = self.model.names
        if isinstance(weights, str):
            weights = {weights: 1.0}
        if isinstance(weights, Mapping):
            L = np.zeros((1, len(names)))
            for name, value in weights.items():
                self.row(name)
                L[0, names.index(name)] = value
        else:
            L = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        if L.shape[1] != len(names):
            raise InputError(f"a contrast needs {len(names)} weights, one a coefficient ({few(names, 4)}), not {L.shape[1]}.")
        return L, [_words(row, names) for row in L]

    def _infer(self, L: Array) -> _Inference:
        return _infer(self.kernel, L, self.inference, self.model)

    def _f_test(self, L: Array) -> dict[str, float]:
        if self.inference in ("kenward-roger", "satterthwaite"):
            joint = small_sample.kenward_roger_f if self.inference == "kenward-roger" else small_sample.satterthwaite_f
            f = joint(self.kernel, L)
            df1, df2, value, scale = float(f.df_num), float(f.df_den), float(f.statistic), float(f.scaling)
        else:
            found = self._infer(L)
            df1, df2, scale = float(len(L)), float(found.df.min()), 1.0
            value = float(found.estimate @ np.linalg.solve(found.cov, found.estimate)) / df1
        p = float(special.chdtrc(df1, value * df1)) if math.isinf(df2) else float(special.fdtrc(df1, df2, value))
        return {"df1": df1, "df2": df2, "statistic": value, "p_value": p, "scale": scale}

    # --- groups and people

    def random_effects(self, group: str | None = None) -> pd.DataFrame:
        """Best linear unbiased predictions of the random intercepts.

        Parameters
        ----------
        group : str, optional
            A grouping factor; the innermost by default.

        Returns
        -------
        DataFrame
            level, estimate, std_error (variance of the intercept given the data, fixed effects and variances known), n.
        """
        names = [g.name for g in self.model.groups]
        if group is None:
            group = names[-1]
        if group not in names:
            raise InputError(unknown_word(group, names, what="grouping factor"))
        k = names.index(group)
        codes, values, variances = reml.random_effects(self.kernel)[k]
        grouping = self.model.groups[k]
        rows = np.bincount(grouping.codes, minlength=len(grouping.labels))
        return pd.DataFrame(
            {
                "level": pd.Series([grouping.labels[c] for c in codes], dtype="str"),
                "estimate": values,
                "std_error": np.sqrt(np.maximum(variances, 0.0)),
                "n": rows[codes],
            }
        )

    def fitted(self, *, conditional: bool = True) -> Array:
        """Fitted values (n,): with the predicted random intercepts, or without (`conditional=False`)."""
        values = self.model.x @ self.kernel.beta
        if conditional:
            for grouping, (codes, effect, _) in zip(self.model.groups, reml.random_effects(self.kernel), strict=True):
                by_code = np.zeros(len(grouping.labels))
                by_code[codes] = effect
                values = values + by_code[grouping.codes]
        return np.asarray(values)

    def residuals(self, *, conditional: bool = True) -> Array:
        """Outcome minus fitted values, (n,), in the order of the analysed rows."""
        return self.model.y - self.fitted(conditional=conditional)

    @property
    def variances_covariance(self) -> Array:
        """Inverse of the expected REML information of the variances (random intercepts, then residual)."""
        return np.asarray(small_sample.variance_covariance(self.kernel))


# --- fitting ------------------------------------------------------------------------------------------------


def fit_mixed(
    formula: str,
    frame: Any,
    *,
    groups: Sequence[str] | str | None = None,
    inference: str | None = None,
    method: str = "reml",
    weights: str | None = None,
    conf_level: float = 0.95,
) -> MixedModel:
    """Fit a linear mixed model with nested random intercepts.

    Parameters
    ----------
    formula : str
        R's notation: ``"y ~ arm + y_0 + age_band"``, interactions ``a:b`` and ``a*b``, ``0 +``, ``factor(x)``, names with spaces between
        backticks. Random intercepts stand in `groups`, or in the formula as ``(1|site)``, ``(1|pair/site)``.
    frame : DataFrame
        One row a person (or a measurement); pandas, or anything with ``to_pandas()``. Text, category and boolean columns are factors
        (R's treatment contrasts, first level the reference); numbers stay numbers. Rows with a missing value in a column of the model are
        left out and counted in `notes`.
    groups : sequence of str
        One or two nested grouping columns, outermost first: ``["site"]``, ``["pair", "site"]``, ``["site", "person"]``.
    inference : str, optional
        ``"kenward-roger"`` (the default under REML; expected information, a variance at zero kept, as pbkrtest), ``"satterthwaite"`` (the
        default under ML; observed information, a variance at zero dropped, as lmerTest), ``"between-within"`` (as nlme),
        ``"containment"``, ``"residual"`` (n - p) or ``"normal"`` (z: for large numbers of sites only).
    method : {"reml", "ml"}
    weights : str, optional
        Column of positive analysis weights; the residual variance of a row is divided by its weight.
    conf_level : float

    Returns
    -------
    MixedModel

    Raises
    ------
    InputError
        The formula, a column, a group or an option cannot be used, or the data cannot support the model: an outcome that does not vary or
        is fitted exactly, one site an arm, no variation within sites, crossed groups. With one person in every site the model is least
        squares, and `notes` say so.

    Notes
    -----
    REML on per-group sufficient statistics, columns centred and made orthonormal first; see docs/methods/itt.md for formulas and sources
    (Kenward & Roger 1997, Biometrics 53:983; Satterthwaite 1946; Fai & Cornelius 1996).

    Examples
    --------
    >>> people = pd.DataFrame({
    ...     "recovery": [3.1, 2.7, 3.9, 4.2, 2.2, 2.9, 3.0, 3.6, 4.4, 4.1, 2.0, 2.6],
    ...     "arm": ["control"] * 6 + ["intervention"] * 6,
    ...     "site": ["A", "A", "B", "B", "C", "C", "D", "D", "E", "E", "F", "F"],
    ... })
    >>> fit = fit_mixed("recovery ~ arm", people, groups=["site"])
    >>> print(fit)
    recovery ~ arm + (1|site): REML, kenward-roger
    term             estimate  std_error   df  statistic  p_value  conf_low  conf_high
    (Intercept)         3.167      0.511  4.0       6.20     .003     1.748      4.585
    armintervention     0.117      0.723  4.0       0.16     .880    -1.890      2.123
    >>> round(fit.icc, 2)
    0.85
    """
    parsed = parse(formula)
    asked = [groups] if isinstance(groups, str) else groups
    if asked is not None and (not isinstance(asked, Sequence) or not all(isinstance(g, str) for g in asked)):
        raise InputError(
            f"groups={groups!r}: give the names of the grouping columns, outermost first, for example groups=['pair', 'site']."
        )
    how = str(method).lower()
    if how not in ("reml", "ml"):
        raise InputError(unknown_word(str(method), ("reml", "ml"), what="method"))
    chosen = _inference(inference, how)
    check_conf_level(conf_level)
    if not isinstance(frame, pd.DataFrame):
        frame = normalise(frame)
    count = len(asked) if asked is not None else len(parsed.groups)
    if not count:
        raise InputError(
            'no grouping factor is named, so there is no random intercept. Give groups=["site"], or write (1|site) in the formula.'
        )
    if count > 2:
        raise InputError(f"{count} grouping factors are named; one or two nested ones are fitted, for example groups=['pair', 'site'].")
    model = model_frame.build(parsed, frame, groups=asked, weights=weights)
    if len(model.y) <= len(model.names):
        refuse("saturated", model)
    fitted = reml.fit(model.x, model.y, [g.codes for g in model.groups], method=how, weights=model.weights)  # type: ignore[arg-type]
    refuse(fitted.status, model)
    shown = formula if parsed.groups else f"{formula} + {' + '.join(f'(1|{g.name})' for g in model.groups)}"
    return _result(model, fitted, formula=" ".join(shown.split()), inference=chosen, method=how, conf_level=conf_level)


def _inference(asked: str | None, method: str) -> str:
    if asked is None:
        return "kenward-roger" if method == "reml" else "satterthwaite"
    word = str(asked).lower()
    if word not in INFERENCE:
        raise InputError(unknown_word(str(asked), INFERENCE, what="inference"))
    if word == "kenward-roger" and method == "ml":
        raise InputError('Kenward-Roger is defined for REML. Use method="reml", or inference="satterthwaite" with method="ml".')
    return word


def refuse(status: str, model: ModelFrame) -> None:
    """Raise an InputError when the data cannot support the model; "ok" and "singletons" pass."""
    if status in ("ok", "singletons"):
        return
    inner = model.groups[-1]
    sites = f"{len(inner.labels)} groups of {inner.name}"
    outcome = printable(model.response)
    why = {
        "saturated": f"there are {len(model.y)} rows and {len(model.names)} fixed effects, so nothing is left to estimate a variance from. "
        "Fit fewer terms.",
        "constant_outcome": f"the outcome {outcome!r} has one value in all {len(model.y)} analysed rows, so there is nothing to compare. "
        "Check the column.",
        "exact_fit": f"the fixed effects reproduce {outcome!r} exactly, so there is no residual to judge them by. "
        "Check for a covariate that is the outcome itself.",
        "zero_residual": f"{outcome!r} does not vary within {inner.name} once the fixed effects are taken out, so the residual variance is "
        f"zero. Analyse one value a {inner.name} (a cluster-level analysis).",
        "no_between_df": f"the fixed effects use up every difference between the {sites}, so the variance between them, and with it any "
        f"p-value for a {inner.name}-level term such as the arm, cannot be estimated. At least two {inner.name}s an arm are needed.",
        "no_within_df": f"the fixed effects use up every difference within the {sites}, so the residual variance cannot be estimated. "
        "Fit fewer terms.",
        "confounded": f"the grouping factors {few([g.name for g in model.groups])} and the residual divide the rows in the same way, so "
        "their variances cannot be told apart. Name fewer grouping factors.",
    }
    raise InputError(f"the model of {outcome!r} cannot be fitted: {why.get(status, status)}")


def _result(model: ModelFrame, fitted: Any, *, formula: str, inference: str, method: str, conf_level: float) -> MixedModel:
    found = _infer(fitted, np.eye(len(model.names)), inference, model)
    return MixedModel(formula=formula, inference=inference, method=method, conf_level=conf_level, model=model, kernel=fitted, _found=found)


def _components(model: ModelFrame, fitted: Any) -> pd.DataFrame:
    variances = np.append(np.where(fitted.identified, fitted.variances, np.nan), fitted.sigma2)
    return pd.DataFrame(
        {
            "group": pd.Series([*(g.name for g in model.groups), RESIDUAL], dtype="str"),
            "variance": variances,
            "sd": np.sqrt(variances),
            "share": variances / variances.sum(),
            "groups": [*(len(g.labels) for g in model.groups), len(model.y)],
            "boundary": [*(bool(b and known) for b, known in zip(fitted.boundary, fitted.identified, strict=True)), False],
        }
    )


def _variance_notes(fitted: Any, model: ModelFrame, inference: str) -> list[str]:
    inner = model.groups[-1].name
    if fitted.status == "singletons":
        return [
            f"Every {inner} has one row, so its variance cannot be told from the residual variance: this is least squares, df = n - p "
            "whatever the inference asked for."
        ]
    out = []
    for grouping, zero in zip(model.groups, fitted.boundary, strict=True):
        if zero:
            kept = (
                "Kenward-Roger still counts it, so the df stay those of the groups."
                if inference == "kenward-roger"
                else "Satterthwaite drops it, so the df can be as large as n - p; compare Kenward-Roger."
                if inference == "satterthwaite"
                else ""
            )
            out.append(f"The variance of {grouping.name} is estimated at zero (boundary of the parameter space). {kept}".rstrip())
    if not fitted.optimum.converged:
        out.append("The search for the variances did not settle; see .optimum.")
    if inference == "normal":
        out.append("Normal (z) inference ignores that the number of groups is finite; p-values are too small with few of them.")
    return out


# --- inference ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Inference:
    estimate: Array  # (r,)
    std_error: Array  # (r,)
    df: Array  # (r,)
    cov: Array  # (r, r)


def _infer(fitted: Any, L: Array, inference: str, model: ModelFrame) -> _Inference:
    if inference == "kenward-roger":
        found = small_sample.kenward_roger(fitted, L)
        return _Inference(found.estimate, found.std_error, found.df, found.cov)
    if inference == "satterthwaite":
        found = small_sample.satterthwaite(fitted, L)
        return _Inference(found.estimate, found.std_error, found.df, found.cov)
    cov = L @ fitted.cov_beta @ L.T
    return _Inference(L @ fitted.beta, np.sqrt(np.diagonal(cov)), _counted(L, inference, model, fitted), cov)


def _counted(L: Array, inference: str, model: ModelFrame, fitted: Any) -> Array:
    n, p = model.x.shape
    if inference == "normal":
        return np.full(len(L), math.inf)
    if inference == "residual" or fitted.status == "singletons":
        return np.full(len(L), float(n - p))
    intercept = model.names.index(INTERCEPT) if INTERCEPT in model.names else None
    by_column = counted_df(model.x, [g.codes for g in model.groups], intercept=intercept, contain_intercept=inference == "containment")
    # a combination is only as good as its worst part
    return np.array([by_column[np.abs(row) > 0].min() if np.abs(row).any() else math.inf for row in L])


def _t_table(first: str, labels: Sequence[str], found: _Inference, null: Array, conf_level: float) -> pd.DataFrame:
    statistic = (found.estimate - null) / found.std_error
    half = t_quantile(found.df, 0.5 + conf_level / 2) * found.std_error
    return pd.DataFrame(
        {
            first: pd.Series(list(labels), dtype="str"),
            "estimate": found.estimate,
            "std_error": found.std_error,
            "df": found.df,
            "statistic": statistic,
            "p_value": two_sided_p(statistic, found.df),
            "conf_low": found.estimate - half,
            "conf_high": found.estimate + half,
        }
    )


def two_sided_p(statistic: ArrayLike, df: ArrayLike) -> Array:
    """Two-sided p-value of a t statistic; normal when df is infinite, missing when df is not positive."""
    t, nu = np.abs(np.asarray(statistic, dtype=np.float64)), np.asarray(df, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        p = np.where(np.isinf(nu), 2 * special.ndtr(-t), 2 * special.stdtr(np.where(np.isinf(nu), 1.0, nu), -t))
    return np.where(nu > 0, p, np.nan)


def t_quantile(df: ArrayLike, probability: float) -> Array:
    """Quantile of t, normal when df is infinite, missing when df is not positive."""
    nu = np.asarray(df, dtype=np.float64)
    usable = np.isfinite(nu) & (nu > 0)
    t = special.stdtrit(np.where(usable, nu, 1.0), probability)
    return np.where(usable, t, np.where(np.isposinf(nu), special.ndtri(probability), np.nan))


def _words(weights: Array, names: Sequence[str]) -> str:
    parts: list[str] = []
    for weight, name in zip(weights, names, strict=True):
        if weight:
            size = "" if abs(weight) == 1 else f"{abs(weight):g} "
            sign = "- " if weight < 0 else ("+ " if parts else "")
            parts.append(f"{sign}{size}{name}")
    return " ".join(parts) or "0"
