"""Binary outcomes and counts with a random site intercept, by adaptive Gauss-Hermite quadrature.

``g(E[y_ij | u_j]) = x_ij' beta + theta u_j``, u_j ~ N(0, 1), with the logit link for 0/1 outcomes and the log link for counts
(Poisson, or negative binomial with variance mu + mu^2 / size). The integral over u_j is taken on `nodes` points placed around its mode and
scaled by its curvature; one node is Laplace's approximation. The coefficients are *site-specific*: they compare people of one site, and for
a binary outcome they lie further from zero than the marginal ones of `fit_marginal`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, special

from trialkit.door import InputError, normalise, unknown_word
from trialkit.itt import model_frame
from trialkit.itt.denominator_df import counted_df
from trialkit.itt.formula import parse
from trialkit.itt.mixed import t_quantile, two_sided_p
from trialkit.itt.model_frame import INTERCEPT, ModelFrame
from trialkit.results import Result

Array = NDArray[np.float64]

# outcome, linear predictor, log size -> log density, its first and its second derivative in the linear predictor
Density = Callable[[Array, Array, float], tuple[Array, Array, Array]]


def _binomial(y: Array, eta: Array, _: float) -> tuple[Array, Array, Array]:
    p = special.expit(eta)
    return y * eta - np.logaddexp(0.0, eta), y - p, -p * (1 - p)


def _poisson(y: Array, eta: Array, _: float) -> tuple[Array, Array, Array]:
    mean = np.exp(np.minimum(eta, 700.0))
    return y * eta - mean - special.gammaln(y + 1), y - mean, -mean


def _negative_binomial(y: Array, eta: Array, log_size: float) -> tuple[Array, Array, Array]:
    size = math.exp(log_size)
    mean = np.exp(np.minimum(eta, 700.0))
    share = mean / (mean + size)
    value = special.gammaln(y + size) - special.gammaln(size) - special.gammaln(y + 1)
    value = value + size * np.log1p(-share) + y * np.log(share)
    return value, y - (y + size) * share, -(y + size) * share * (1 - share)


DENSITIES: dict[str, Density] = {"binomial": _binomial, "poisson": _poisson, "negative-binomial": _negative_binomial}
INFERENCE = ("between-within", "normal")


@dataclass(frozen=True)
class GeneralisedMixedModel(Result):
    """A fitted generalised linear mixed model.

    Attributes
    ----------
    beta : array (p,)
    sd : float
        Standard deviation of the site intercepts, on the link's scale.
    size : float
        Negative binomial size; infinite otherwise.
    log_likelihood : float
    vcov : array (p, p)
        From the observed information of all parameters.
    nodes : int
    notes : tuple of str
    """

    beta: Array
    sd: float
    size: float
    log_likelihood: float
    vcov: Array = field(repr=False)
    nodes: int
    model: ModelFrame = field(repr=False)
    formula: str
    family: str
    inference: str
    conf_level: float
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """One line above the table."""
        return f"{self.formula}: {self.family}, {self.nodes}-node adaptive quadrature, {self.inference}"

    @property
    def cov(self) -> pd.DataFrame:
        """Covariance of the fixed effects, labelled."""
        names = list(self.model.names)
        return pd.DataFrame(self.vcov, index=names, columns=names)

    @property
    def icc(self) -> float:
        """Intraclass correlation on the latent logistic scale (sd^2 / (sd^2 + pi^2 / 3)); missing for counts."""
        return self.sd**2 / (self.sd**2 + math.pi**2 / 3) if self.family == "binomial" else math.nan

    @cached_property
    def frame(self) -> pd.DataFrame:
        """term, estimate, std_error, df, statistic, p_value, conf_low, conf_high (log odds or log rates)."""
        model = self.model
        std_error = np.sqrt(np.diagonal(self.vcov))
        if self.inference == "normal":
            df = np.full(len(self.beta), math.inf)
        else:
            intercept = model.names.index(INTERCEPT) if INTERCEPT in model.names else None
            df = counted_df(model.x, [model.groups[0].codes], intercept=intercept, contain_intercept=True)
        statistic = self.beta / std_error
        half = t_quantile(df, 0.5 + self.conf_level / 2) * std_error
        return pd.DataFrame(
            {
                "term": pd.Series(list(model.names), dtype="str"),
                "estimate": self.beta,
                "std_error": std_error,
                "df": df,
                "statistic": statistic,
                "p_value": two_sided_p(statistic, df),
                "conf_low": self.beta - half,
                "conf_high": self.beta + half,
            }
        )


def fit_generalised(
    formula: str,
    frame: Any,
    *,
    group: str | None = None,
    family: str = "binomial",
    nodes: int = 15,
    inference: str = "between-within",
    conf_level: float = 0.95,
) -> GeneralisedMixedModel:
    """Fit a generalised linear mixed model with one random intercept by maximum likelihood.

    Parameters
    ----------
    formula : str
        As in `fit_mixed`; the grouping factor stands in it as ``(1|site)`` or in `group`.
    frame : DataFrame
    group : str, optional
    family : {"binomial", "poisson", "negative-binomial"}
    nodes : int
        Quadrature nodes, 1 (Laplace) to 100.
    inference : {"between-within", "normal"}
        Degrees of freedom of the t tests: by counting (the arm gets sites minus site-level coefficients), or infinite.
    conf_level : float

    Raises
    ------
    InputError
        The outcome does not suit the family, an option is wrong, or there is no maximum (separation).

    Examples
    --------
    >>> rng = np.random.default_rng(2)
    >>> people = pd.DataFrame({"site": np.repeat(np.arange(12), 10), "arm": np.repeat(np.arange(12) % 2, 10)})
    >>> people["well"] = (rng.random(120) < 0.3 + 0.3 * people["arm"]).astype(int)
    >>> fit_generalised("well ~ arm", people, group="site").frame["df"].tolist()
    [10.0, 10.0]
    """
    for word, options, what in ((family, tuple(DENSITIES), "family"), (inference, INFERENCE, "inference")):
        if word not in options:
            raise InputError(unknown_word(str(word), options, what=what))
    if not 1 <= nodes <= 100:
        raise InputError(f"nodes = {nodes} is not between 1 (Laplace) and 100.")
    if not 0 < conf_level < 1:
        raise InputError(f"conf_level = {conf_level} is not between 0 and 1, for example 0.95.")
    parsed = parse(formula)
    if (group is None) == (len(parsed.groups) != 1):
        raise InputError("one grouping factor is fitted: name it by group= or as (1|site) in the formula.")
    if parsed.sloped:
        raise InputError("one random intercept is fitted, and no slope: write (1|site) in the formula.")
    table = frame if isinstance(frame, pd.DataFrame) else normalise(frame)
    model = model_frame.build(parsed, table, groups=None if group is None else [group])
    _suits(model, family)
    fitted = maximise(model.x, model.y, model.groups[0].codes, family, nodes=nodes)
    notes = list(model.notes())
    if fitted.sd < 1e-4:
        notes.append(f"The standard deviation of {model.groups[0].name} is estimated at zero (boundary).")
    return GeneralisedMixedModel(
        beta=fitted.beta,
        sd=fitted.sd,
        size=fitted.size,
        log_likelihood=fitted.log_likelihood,
        vcov=fitted.vcov,
        nodes=nodes,
        model=model,
        formula=" ".join(formula.split()) if parsed.groups else f"{' '.join(formula.split())} + (1|{group})",
        family=family,
        inference=inference,
        conf_level=conf_level,
        notes=tuple(notes),
    )


def _suits(model: ModelFrame, family: str) -> None:
    y = model.y
    if family == "binomial" and not np.isin(y, (0.0, 1.0)).all():
        raise InputError(f"the outcome {model.response!r} must be 0 or 1 for a binomial model; it holds {y[~np.isin(y, (0.0, 1.0))][0]:g}.")
    if family != "binomial" and ((y < 0) | (y != np.rint(y))).any():
        raise InputError(f"the outcome {model.response!r} must be counts (0, 1, 2, ...) for a {family} model.")
    if np.ptp(y) == 0:
        raise InputError(f"the outcome {model.response!r} has one value in all {len(y)} analysed rows, so there is nothing to compare.")


@dataclass(frozen=True, slots=True)
class Maximum:
    """A maximum of the marginal likelihood."""

    beta: Array  # (p,)
    sd: float
    size: float
    log_likelihood: float
    vcov: Array  # (p, p)


def maximise(x: Array, y: Array, codes: NDArray[np.intp], family: str, *, nodes: int) -> Maximum:
    """Maximum of the marginal likelihood in (beta, sd, log size), found on scaled columns.

    Parameters
    ----------
    x : array (n, p), full column rank
    y : array (n,)
    codes : array (n,)
    family : str
    nodes : int
    """
    p = x.shape[1]
    # orthonormal columns: all directions of beta have the same curvature to first order
    basis, triangle = np.linalg.qr(x)
    basis, triangle = basis * math.sqrt(len(y)), triangle / math.sqrt(len(y))
    likelihood = _Likelihood(basis, y, codes, DENSITIES[family], nodes)
    extra = 1 if family == "negative-binomial" else 0
    start = np.concatenate([_start(basis, y, family), [0.5], [1.0] * extra])

    def objective(parameters: Array) -> float:
        value = -likelihood(parameters)
        return value if math.isfinite(value) else 1e10

    found = optimize.minimize(
        objective, start, jac=lambda q: _gradient(objective, q), method="BFGS", options={"gtol": 1e-6, "maxiter": 500}
    )
    parameters = found.x
    # the average weight mean (1 - mean) along the flattest direction: nothing but separation makes it vanish
    flattest = float(np.linalg.eigvalsh(_hessian(objective, parameters)[:p, :p])[0]) / len(y)
    if flattest < 1e-4 or np.abs(basis @ parameters[:p]).max() > 30:
        raise InputError(
            "the likelihood has no maximum: an arm or a category has outcomes that are all alike (separation). Cross-tabulate the outcome "
            "by the model's factors, and leave out or merge the empty ones."
        )
    # Newton steps on the numerical derivatives take the last digits; a zero sd is left where symmetry puts it
    for _ in range(3):
        hessian = _hessian(objective, parameters)
        if abs(parameters[p]) < 1e-3 or np.linalg.eigvalsh(hessian)[0] <= 0:
            break
        step = np.linalg.solve(hessian, _gradient(objective, parameters, 1e-5))
        if objective(parameters - step) > objective(parameters) + 1e-9:
            break
        parameters = parameters - step
    hessian = _hessian(objective, parameters)
    if abs(parameters[p]) < 1e-3:  # at the boundary the sd carries no first-order information
        keep = [k for k in range(len(parameters)) if k != p]
        covariance = np.linalg.inv(hessian[np.ix_(keep, keep)])[:p, :p]
    else:
        covariance = np.linalg.inv(hessian)[:p, :p]
    back = np.linalg.inv(triangle)
    return Maximum(
        beta=back @ parameters[:p],
        sd=abs(float(parameters[p])),
        size=math.exp(parameters[p + 1]) if extra else math.inf,
        log_likelihood=-objective(parameters),
        vcov=back @ covariance @ back.T,
    )


class _Likelihood:
    """Marginal log-likelihood of (beta, sd, log size)."""

    def __init__(self, x: Array, y: Array, codes: NDArray[np.intp], density: Density, nodes: int) -> None:
        self.x, self.y, self.density = x, y, density
        self.codes = codes
        self.J = int(codes.max()) + 1
        self.points, weights = special.roots_hermite(nodes)
        self.log_weights = np.log(weights) + self.points**2
        self.mode = np.zeros(self.J)

    def _sum(self, values: Array) -> Array:
        return np.asarray(np.bincount(self.codes, weights=values, minlength=self.J), dtype=np.float64)

    def __call__(self, parameters: Array) -> float:
        p = self.x.shape[1]
        eta = self.x @ parameters[:p]
        sd = float(parameters[p])
        log_size = float(parameters[p + 1]) if len(parameters) > p + 1 else 0.0
        u = np.zeros(self.J)
        curvature = np.ones(self.J)
        for _ in range(100):
            _, first, second = self.density(self.y, eta + sd * u[self.codes], log_size)
            curvature = 1 - sd**2 * self._sum(second)
            move = (sd * self._sum(first) - u) / curvature
            u = u + np.clip(move, -3, 3)
            if np.abs(move).max() < 1e-12:
                break
        _, _, second = self.density(self.y, eta + sd * u[self.codes], log_size)
        curvature = 1 - sd**2 * self._sum(second)
        width = math.sqrt(2) / np.sqrt(curvature)
        logs = np.empty((len(self.points), self.J))
        for k, point in enumerate(self.points):
            at = u + width * point
            value, _, _ = self.density(self.y, eta + sd * at[self.codes], log_size)
            logs[k] = self._sum(value) - at**2 / 2 + self.log_weights[k]
        return float((special.logsumexp(logs, axis=0) + np.log(width) - 0.5 * math.log(2 * math.pi)).sum())


def _start(x: Array, y: Array, family: str) -> Array:
    """Least squares on a rough linear predictor."""
    rough = special.logit((y + 0.5) / 2) if family == "binomial" else np.log(y + 0.5)
    return np.asarray(np.linalg.lstsq(x, rough, rcond=None)[0])


def _gradient(function: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """Central differences of fourth order."""
    out = np.empty(len(at))
    for k in range(len(at)):
        e = np.zeros(len(at))
        e[k] = step * max(1.0, abs(at[k]))
        near = function(at + e) - function(at - e)
        far = function(at + 2 * e) - function(at - 2 * e)
        out[k] = (8 * near - far) / (12 * e[k])
    return out


def _hessian(function: Callable[[Array], float], at: Array, step: float = 2e-3) -> Array:
    """Second derivatives by differences, extrapolated from two steps (error of fourth order)."""

    def plain(h: float) -> Array:
        q = len(at)
        out = np.empty((q, q))
        centre = function(at)
        single = [(function(at + h * e), function(at - h * e)) for e in np.eye(q)]
        for j in range(q):
            out[j, j] = (single[j][0] - 2 * centre + single[j][1]) / h**2
            for k in range(j):
                both = np.eye(q)[j] + np.eye(q)[k]
                pair = function(at + h * both) + function(at - h * both)
                out[j, k] = out[k, j] = (pair - sum(single[j]) - sum(single[k]) + 2 * centre) / (2 * h**2)
        return out

    return np.asarray((4 * plain(step / 2) - plain(step)) / 3)
