"""`fit_mixed`: a linear mixed model in nested groups, and inference that knows how few the sites are.

``y_ij = x_ij' beta + u_j + e_ij`` (and a pair's intercept around it, a slope, a residual variance by arm), by REML or ML on per-site
sufficient statistics. The numbers come from `trialkit._kernels`; here the formula is read, what cannot be estimated is refused in
words, and the answer becomes tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from trialkit._kernels import reml, small_sample
from trialkit._kernels.reml_profile import profile_contrasts_structured
from trialkit._kernels.structured_fit import StructuredFit
from trialkit._kernels.structured_profile import profile_variances
from trialkit.door import InputError, check_conf_level, few, normalise, printable, unknown_word
from trialkit.itt import model_frame, random_part
from trialkit.itt.by_statsmodels import HandedModel, hand_over
from trialkit.itt.coefficient_table import coefficient_table, covariance_table, t_quantile
from trialkit.itt.denominator_df import counted_df
from trialkit.itt.formula import RandomPart, Variable, parse
from trialkit.itt.model_frame import INTERCEPT, ModelFrame
from trialkit.itt.random_part import RESIDUAL
from trialkit.results import Result, Table

Array = NDArray[np.float64]

INFERENCE = ("kenward-roger", "satterthwaite", "between-within", "containment", "residual", "normal")


@dataclass(frozen=True)
class MixedModel(Result):
    """A fitted linear mixed model.

    Attributes
    ----------
    frame : DataFrame
        One row a fixed effect: term, estimate, std_error, df, statistic, p_value, conf_low, conf_high.
    variance_components : DataFrame
        One row a random intercept (outermost first) and the residual: group, variance, sd, share (of the average row's variance),
        groups, boundary. With slopes or a residual variance by stratum also term, and correlation with the group's first term.
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
        return self._found.table(self.model.names, self.conf_level)

    @cached_property
    def variance_components(self) -> pd.DataFrame:
        """One row a random intercept and the residual."""
        return random_part.components(self.model, self.kernel)

    @cached_property
    def cov(self) -> pd.DataFrame:
        """Covariance of the fixed effects in force."""
        return covariance_table(self.model.names, self._found.cov)

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
        """Variance of each random intercept, outermost first, then the residual variance.

        With slopes or strata: what each grouping factor, and the residual, give the average row.
        """
        return random_part.averages(self.model, self.kernel)

    @property
    def icc(self) -> float:
        """Correlation of two people in the same innermost group: all between-group variance over the total.

        With pairs and sites it is (pair + site) / total; the share of each is in `variance_components`. With slopes or a residual
        variance by stratum it is that of the average row.
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
        return self.deviance + 2 * self._parameters

    @property
    def bic(self) -> float:
        """Schwarz's criterion with the number of rows, as lme4 has it."""
        return self.deviance + math.log(self.n) * self._parameters

    @property
    def _parameters(self) -> int:
        return len(self.model.names) + random_part.parameters(self.model, self.kernel)

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
        return Table(self._infer(L).table(labels, self.conf_level, first="contrast", null=np.broadcast_to(null, len(L))), "Contrasts")

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
        return Table(self._infer(L).table(labels, self.conf_level, first="level"), f"Estimated marginal means of {variable}")

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
            parameter, estimate, conf_low, conf_high; the standard deviations are called ``sd(site)`` and ``sd(Residual)``; with slopes,
            three factors or strata their estimates are those of maximum likelihood, and there are ``sd(pair, arm)``, correlations
            ``cor(pair, (Intercept), arm)`` (a limit of -1 or 1: not rejected up to there) and ``sd(Residual, arm control)``.
        """
        level = self.conf_level if conf_level is None else conf_level
        check_conf_level(level)
        names = list(self.model.names)
        estimate = np.asarray(self.kernel.beta)
        if method == "t":
            half = t_quantile(self._found.df, 0.5 + level / 2) * self._found.std_error
            limits = np.column_stack([estimate - half, estimate + half])
        elif method == "profile":
            self._profiled()
            if isinstance(self.kernel, StructuredFit):
                limits = profile_contrasts_structured(self.kernel.blocks, np.eye(len(names)), level=level)
                more = profile_variances(self.kernel.blocks, level=level)
                names += random_part.parameter_names(self.model, more)
                limits = np.vstack([limits, [[p.low, p.high] for p in more]])
                return _limits(names, np.append(estimate, [p.estimate for p in more]), limits)
            limits = reml.profile_contrasts(self.kernel.reduced, np.eye(len(names)), level=level)
            limits = np.vstack([limits, reml.profile_sd(self.kernel.reduced, level=level)])
            names += [f"sd({g.name})" for g in self.model.groups] + [f"sd({RESIDUAL})"]
            estimate = np.append(estimate, np.sqrt(self.variances))
        else:
            raise InputError(unknown_word(str(method), ("profile", "t"), what="interval"))
        return _limits(names, estimate, limits)

    def icc_interval(self, *, conf_level: float | None = None) -> tuple[float, float]:
        """Profile-likelihood interval of the intraclass correlation `icc`, by the model's own likelihood (REML or ML)."""
        self._profiled()
        if isinstance(self.kernel, StructuredFit):
            raise InputError(
                "the interval of the intraclass correlation is for random intercepts on one or two factors and one residual variance; "
                "fit groups=['site'] or groups=['pair', 'site'] for it."
            )
        level = self.conf_level if conf_level is None else conf_level
        check_conf_level(level)
        low, high = reml.profile_ratio(self.kernel.reduced, level=level, method=self.method)  # type: ignore[arg-type]
        return low / (1 + low), high / (1 + high)

    def compare(self, smaller: MixedModel) -> Table:
        """Likelihood-ratio test of this model against a smaller one that it contains.

        Parameters
        ----------
        smaller : MixedModel
            Fitted by the same method to the same rows. Under REML both must have the same fixed effects; fit both with ``method="ml"`` to
            compare fixed effects.

        Returns
        -------
        Table
            model, parameters, log_likelihood, statistic, df, p_value, p_value_mixture. A variance that is zero under the null hypothesis
            lies on the boundary: `p_value` is chi-square's and too large there, `p_value_mixture` is the even mixture of chi-square with
            df and with df - 1 (Self & Liang 1987, J. Am. Stat. Assoc. 82:605), right for one variance (and its covariances) more.

        Raises
        ------
        InputError
            The models are of other rows, another outcome or another method, or not smaller and larger.
        """
        _comparable(self, smaller)
        df = self._parameters - smaller._parameters
        statistic = max(2.0 * (self.log_likelihood - smaller.log_likelihood), 0.0)
        p = float(special.chdtrc(df, statistic))
        below = (1.0 if statistic == 0 else 0.0) if df == 1 else float(special.chdtrc(df - 1, statistic))
        random_only = self.model.names == smaller.model.names
        rows = [
            {"model": smaller.formula, "parameters": smaller._parameters, "log_likelihood": smaller.log_likelihood},
            {
                "model": self.formula,
                "parameters": self._parameters,
                "log_likelihood": self.log_likelihood,
                "statistic": statistic,
                "df": df,
                "p_value": p,
                "p_value_mixture": (p + below) / 2 if random_only else np.nan,
            },
        ]
        return Table(pd.DataFrame(rows), f"Likelihood ratio ({self.method.upper()})", formats={"parameters": "d", "df": ".0f"})

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
        """Best linear unbiased predictions of the random intercepts (and slopes).

        Parameters
        ----------
        group : str, optional
            A grouping factor; the innermost by default.

        Returns
        -------
        DataFrame
            level, estimate, std_error (of the effect given the data, fixed effects and variances known), n; with slopes also term.
        """
        names = [g.name for g in self.model.groups]
        if group is None:
            group = names[-1]
        if group not in names:
            raise InputError(unknown_word(group, names, what="grouping factor"))
        return random_part.effects(self.model, self.kernel, names.index(group))

    def fitted(self, *, conditional: bool = True) -> Array:
        """Fitted values (n,): with the predicted random intercepts, or without (`conditional=False`)."""
        values = self.model.x @ self.kernel.beta
        return np.asarray(values + random_part.predicted(self.model, self.kernel) if conditional else values)

    def residuals(self, *, conditional: bool = True) -> Array:
        """Outcome minus fitted values, (n,), in the order of the analysed rows."""
        return self.model.y - self.fitted(conditional=conditional)

    def diagnostics(self, of: str = "rows") -> pd.DataFrame:
        """What a reader looks at before believing a model.

        Parameters
        ----------
        of : {"rows"} or a grouping factor

        Returns
        -------
        DataFrame
            For rows: row (position in the table), one column a grouping factor, fitted (with the random part), residual, standardised
            (residual over its row's residual SD), marginal (residual without the random part). For a grouping factor: the columns of
            `random_effects` and standardised, the prediction over the SD predictions have (missing where the variance is zero).
            Standardised values are about standard normal when the model holds. For a picture: ``trialkit.report.plot_residuals``.
        """
        if of == "rows":
            residual = self.residuals()
            named = {g.name: np.asarray(g.labels, dtype=object)[g.codes] for g in self.model.groups}
            return pd.DataFrame(
                {
                    "row": self.model.rows,
                    **{name: pd.array(values, dtype="str") for name, values in named.items()},
                    "fitted": self.fitted(),
                    "residual": residual,
                    "standardised": residual / np.sqrt(random_part.residual_variances(self.model, self.kernel)),
                    "marginal": self.residuals(conditional=False),
                }
            )
        table = self.random_effects(of)
        spread = (
            random_part.effect_variances(self.model, self.kernel, [g.name for g in self.model.groups].index(of)) - table["std_error"] ** 2
        )
        usable = spread > 1e-12 * table["std_error"].max() ** 2
        table["standardised"] = np.where(usable, table["estimate"] / np.sqrt(np.where(usable, spread, 1.0)), np.nan)
        return table

    @property
    def variances_covariance(self) -> Array:
        """Inverse of the expected REML information of `variances` (random intercepts, then residual)."""
        return random_part.averages_covariance(self.model, self.kernel)


# --- fitting ------------------------------------------------------------------------------------------------


@overload
def fit_mixed(
    formula: str,
    frame: Any,
    *,
    groups: Sequence[str] | str | None = None,
    slopes: Mapping[str, str | Sequence[str]] | None = None,
    residual_by: str | None = None,
    inference: str | None = None,
    method: str = "reml",
    weights: str | None = None,
    conf_level: float = 0.95,
    engine: Literal["trialkit"] = "trialkit",
) -> MixedModel: ...


@overload
def fit_mixed(
    formula: str,
    frame: Any,
    *,
    groups: Sequence[str] | str | None = None,
    slopes: Mapping[str, str | Sequence[str]] | None = None,
    residual_by: str | None = None,
    inference: str | None = None,
    method: str = "reml",
    weights: str | None = None,
    conf_level: float = 0.95,
    engine: Literal["statsmodels"],
) -> HandedModel: ...


def fit_mixed(
    formula: str,
    frame: Any,
    *,
    groups: Sequence[str] | str | None = None,
    slopes: Mapping[str, str | Sequence[str]] | None = None,
    residual_by: str | None = None,
    inference: str | None = None,
    method: str = "reml",
    weights: str | None = None,
    conf_level: float = 0.95,
    engine: str = "trialkit",
) -> MixedModel | HandedModel:
    """Fit a linear mixed model with random intercepts, and slopes if asked, in nested groups.

    Parameters
    ----------
    formula : str
        R's notation: ``"y ~ arm + y_0 + age_band"``, interactions ``a:b`` and ``a*b``, ``0 +``, ``factor(x)``, names with spaces between
        backticks. The random part stands in `groups` and `slopes`, or in the formula as ``(1|site)``, ``(1|pair/site)``,
        ``(1 + arm|pair)``.
    frame : DataFrame
        One row a person (or a measurement); pandas, or anything with ``to_pandas()``. Text, category and boolean columns are factors
        (R's treatment contrasts, first level the reference); numbers stay numbers. Rows with a missing value in a column of the model are
        left out and counted in `notes`.
    groups : sequence of str
        Nested grouping columns, outermost first: ``["site"]``, ``["pair", "site"]``, ``["site", "person"]``,
        ``["pair", "site", "person"]``.
    slopes : mapping of grouping column to column or columns, optional
        What varies between the groups beside the intercept, correlated with it: ``slopes={"pair": "arm"}`` is ``(1 + arm|pair)``.
        (``(1 + arm||pair)`` in the formula leaves the correlation out.) With one site an arm in each pair this takes the place of the
        site's intercept; asking for both is refused.
    residual_by : str, optional
        Column whose values each have a residual variance of their own, such as the arm (nlme's ``varIdent``).
    inference : str, optional
        ``"kenward-roger"`` (the default under REML; expected information, a variance at zero kept, as pbkrtest), ``"satterthwaite"`` (the
        default under ML; observed information, a variance at zero dropped, as lmerTest), ``"between-within"`` (as nlme),
        ``"containment"``, ``"residual"`` (n - p) or ``"normal"`` (z: for large numbers of sites only).
    method : {"reml", "ml"}
    weights : str, optional
        Column of positive analysis weights; the residual variance of a row is divided by its weight.
    conf_level : float
    engine : {"trialkit", "statsmodels"}
        ``"statsmodels"`` hands the model to statsmodels' ``MixedLM`` (Powell's search), which also takes crossed factors, such as
        ``(1|site) + (1|rater)``. The result has the same columns and z tests only.

    Returns
    -------
    MixedModel, or HandedModel with ``engine="statsmodels"``

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
    if engine not in ("trialkit", "statsmodels"):
        raise InputError(unknown_word(str(engine), ("trialkit", "statsmodels"), what="engine"))
    for name, value in (("residual_by", residual_by), ("weights", weights)):
        if value is not None and not isinstance(value, str):
            raise InputError(f"{name}={value!r}: give the name of a column.")
    if not isinstance(frame, pd.DataFrame):
        frame = normalise(frame)
    count = len(asked) if asked is not None else len(parsed.groups)
    if not count:
        raise InputError(
            'no grouping factor is named, so there is no random intercept. Give groups=["site"], or write (1|site) in the formula.'
        )
    varying = _slopes(slopes, asked)
    shown = formula if parsed.groups else f"{formula} + {' + '.join(_bars(asked or (), slopes or {}))}"
    if engine == "statsmodels":
        if weights is not None or residual_by is not None or inference not in (None, "normal"):
            raise InputError('engine="statsmodels" gives z tests of unweighted models: leave out weights=, residual_by= and inference=.')
        shown = " ".join(shown.split())
        return hand_over(parsed, frame, groups=asked, slopes=varying, method=how, conf_level=conf_level, shown=shown)
    model = model_frame.build(parsed, frame, groups=asked, slopes=varying, weights=weights, strata=residual_by)
    if len(model.y) <= len(model.names):
        refuse("saturated", model)
    fitted = random_part.fit(model, how)
    refuse(fitted.status, model)
    if residual_by is not None:
        shown += f", residual variance by {residual_by}"
    return _result(model, fitted, formula=" ".join(shown.split()), inference=chosen, method=how, conf_level=conf_level)


def _slopes(slopes: Mapping[str, str | Sequence[str]] | None, groups: Sequence[str] | None) -> tuple[RandomPart, ...]:
    if slopes is None:
        return ()
    if not isinstance(slopes, Mapping):
        raise InputError(f"slopes={slopes!r}: name the grouping column of each slope, for example slopes={{'pair': 'arm'}}.")
    if groups is None:
        raise InputError("slopes= goes with groups=. With the groups in the formula, write the slope there: (1 + arm|pair).")
    out = []
    for group, columns in dict(slopes).items():
        if group not in groups:
            raise InputError(unknown_word(str(group), groups, what="grouping factor in slopes="))
        named = [columns] if isinstance(columns, str) else list(columns)
        out.append(RandomPart((group,), tuple((Variable(c),) for c in named)))
    return tuple(out)


def _bars(groups: Sequence[str], slopes: Mapping[str, str | Sequence[str]]) -> list[str]:
    out = []
    for group in groups:
        more = slopes.get(group, ())
        out.append(f"({' + '.join(['1', *([more] if isinstance(more, str) else more)])}|{group})")
    return out


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
        "out_of_range": f"the numbers of {outcome!r} are so small or so large that their variances leave the range of floating-point "
        "numbers. Change the unit: multiply the column by a constant.",
        "not_identified": _not_identified(model),
        "constant_outcome": f"the outcome {outcome!r} has one value in all {len(model.y)} analysed rows, so there is nothing to compare. "
        "Check the column.",
        "exact_fit": f"the fixed effects reproduce {outcome!r} exactly, so there is no residual to judge them by. "
        "Check for a covariate that is the outcome itself.",
        "zero_residual": f"in some level of {model.strata.name!r}, {outcome!r} does not vary within {inner.name} given the fixed effects, "
        "or has too few rows, so that level's residual variance is zero. Join levels, or leave residual_by= out."
        if model.strata is not None
        else f"{outcome!r} does not vary within {inner.name} once the fixed effects are taken out, so the residual variance is "
        f"zero. Analyse one value a {inner.name} (a cluster-level analysis).",
        "no_between_df": f"the fixed effects use up every difference between the {sites}, so the variance between them, and with it any "
        f"p-value for a {inner.name}-level term such as the arm, cannot be estimated. At least two {inner.name}s an arm are needed.",
        "no_within_df": f"the fixed effects use up every difference within the {sites}, so the residual variance cannot be estimated. "
        "Fit fewer terms.",
        "confounded": f"the grouping factors {few([g.name for g in model.groups])} and the residual divide the rows in the same way, so "
        "their variances cannot be told apart. Name fewer grouping factors.",
    }
    raise InputError(f"the model of {outcome!r} cannot be fitted: {why.get(status, status)}")


def _not_identified(model: ModelFrame) -> str:
    sizes = ", ".join(f"{len(g.labels)} {g.name}" for g in model.groups)
    for part in model.random:
        codes = model.groups[part.factor].codes
        first = np.zeros(int(codes.max()) + 1, dtype=np.intp)
        first[codes] = np.arange(len(codes))
        for k, name in enumerate(part.names):
            if name != INTERCEPT and (part.design[:, k] == part.design[first[codes], k]).all():
                group = model.groups[part.factor].name
                return (
                    f"{name} does not vary within any {group}, so the data cannot say whether its slope varies between {group}s. "
                    "Let the slope vary between larger groups (pairs), or take it out."
                )
    return (
        f"the data ({len(model.y)} rows in {sizes}) do not hold all the variances asked for: some of them change nothing that can be told "
        "apart. Name fewer. (A slope of the arm between pairs with one site an arm stands in the place of the site's intercept.)"
    )


def _limits(names: Sequence[str], estimate: Array, limits: Array) -> pd.DataFrame:
    return pd.DataFrame(
        {"parameter": pd.Series(list(names), dtype="str"), "estimate": estimate, "conf_low": limits[:, 0], "conf_high": limits[:, 1]}
    )


def _comparable(larger: MixedModel, smaller: MixedModel) -> None:
    if not isinstance(smaller, MixedModel):
        raise InputError("compare needs another fit of fit_mixed.")
    if larger.method != smaller.method:
        raise InputError(f"one model is fitted by {larger.method.upper()}, the other by {smaller.method.upper()}. Use one method for both.")
    same_rows = np.array_equal(larger.model.rows, smaller.model.rows) and np.array_equal(larger.model.y, smaller.model.y)
    if not same_rows:
        raise InputError(
            f"the models are of different rows ({larger.n} and {smaller.n}) or outcomes, so their likelihoods do not compare. Leave "
            "out the rows with missing values first."
        )
    if larger._parameters <= smaller._parameters:
        raise InputError("the other model is not smaller: call compare on the larger one.")
    if larger.method == "reml" and larger.model.names != smaller.model.names:
        raise InputError('restricted likelihoods compare only with the same fixed effects. Fit both with method="ml".')
    gone = [name for name in smaller.model.names if name not in larger.model.names]
    if gone:
        raise InputError(f"the larger model does not contain {few(gone)}, so the models are not nested.")


def _result(model: ModelFrame, fitted: Any, *, formula: str, inference: str, method: str, conf_level: float) -> MixedModel:
    found = _infer(fitted, np.eye(len(model.names)), inference, model)
    return MixedModel(formula=formula, inference=inference, method=method, conf_level=conf_level, model=model, kernel=fitted, _found=found)


def _variance_notes(fitted: Any, model: ModelFrame, inference: str) -> list[str]:
    inner = model.groups[-1].name
    if fitted.status == "singletons":
        return [
            f"Every {inner} has one row, so its variance cannot be told from the residual variance: this is least squares, df = n - p "
            "whatever the inference asked for."
        ]
    out = []
    kept = {
        "kenward-roger": "Kenward-Roger still counts it, so the df stay those of the groups.",
        "satterthwaite": "Satterthwaite drops it, so the df can be as large as n - p; compare Kenward-Roger.",
    }.get(inference, "")
    out += [f"{what} (boundary of the parameter space). {kept}".rstrip() for what in random_part.at_zero(model, fitted)]
    if not fitted.optimum.converged:
        out.append("The search for the variances did not settle; see .optimum.")
    if inference == "between-within" and any(part.names != (INTERCEPT,) for part in model.random):
        out.append(
            "Between-within df, as nlme counts them, know nothing of random slopes; see Kenward-Roger or containment for those terms."
        )
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

    def table(self, names: Sequence[str], conf_level: float, *, first: str = "term", null: ArrayLike = 0.0) -> pd.DataFrame:
        """One row a combination."""
        return coefficient_table(names, self.estimate, self.std_error, self.df, conf_level, first=first, null=null)


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
    contained = inference == "containment"
    by_column = counted_df(model.x, [g.codes for g in model.groups], intercept=model.intercept, contain_intercept=contained)
    if contained:
        _contain_slopes(by_column, model)
    # a combination is only as good as its worst part
    return np.array([by_column[np.abs(row) > 0].min() if np.abs(row).any() else math.inf for row in L])


def _contain_slopes(df: Array, model: ModelFrame) -> None:
    """A coefficient that varies between groups has the df of its slopes: the groups in which its column varies, less one."""
    for part in model.random:
        codes = model.groups[part.factor].codes
        for j, name in enumerate(part.names):
            if name in model.names and name != INTERCEPT:
                z = part.design[:, j]
                low, high = (np.full(int(codes.max()) + 1, start) for start in (np.inf, -np.inf))
                np.minimum.at(low, codes, z)
                np.maximum.at(high, codes, z)
                k = model.names.index(name)
                df[k] = min(df[k], float((high > low).sum()) - 1.0)


def _words(weights: Array, names: Sequence[str]) -> str:
    parts: list[str] = []
    for weight, name in zip(weights, names, strict=True):
        if weight:
            size = "" if abs(weight) == 1 else f"{abs(weight):g} "
            sign = "- " if weight < 0 else ("+ " if parts else "")
            parts.append(f"{sign}{size}{name}")
    return " ".join(parts) or "0"
