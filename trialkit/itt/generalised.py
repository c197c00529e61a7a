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

from trialkit._kernels import agq
from trialkit.door import InputError, check_conf_level, check_words, normalise
from trialkit.itt import model_frame
from trialkit.itt.coefficient_table import coefficient_table, covariance_table
from trialkit.itt.denominator_df import counted_df
from trialkit.itt.formula import parse
from trialkit.itt.model_frame import ModelFrame
from trialkit.results import Result

Array = NDArray[np.float64]

DENSITIES: dict[str, Callable[[Array], agq.Density]] = {
    "binomial": agq.Binomial, "poisson": agq.Poisson, "negative-binomial": agq.NegativeBinomial,
}  # fmt: skip
SEPARATED = (
    "the likelihood has no maximum: an arm or a category has outcomes that are all alike (separation). Cross-tabulate the outcome "
    "by the model's factors, and leave out or merge the empty ones."
)
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
        return covariance_table(self.model.names, self.vcov)

    @property
    def icc(self) -> float:
        """Intraclass correlation on the latent logistic scale (sd^2 / (sd^2 + pi^2 / 3)); missing for counts."""
        return self.sd**2 / (self.sd**2 + math.pi**2 / 3) if self.family == "binomial" else math.nan

    @cached_property
    def frame(self) -> pd.DataFrame:
        """term, estimate, std_error, df, statistic, p_value, conf_low, conf_high (log odds or log rates)."""
        model = self.model
        if self.inference == "normal":
            df = np.full(len(self.beta), math.inf)
        else:
            df = counted_df(model.x, [model.groups[0].codes], intercept=model.intercept, contain_intercept=True)
        return coefficient_table(model.names, self.beta, np.sqrt(np.diagonal(self.vcov)), df, self.conf_level)


def fit_generalised(
    formula: str,
    frame: Any,
    *,
    group: str | None = None,
    family: str = "binomial",
    nodes: int = 15,
    inference: str = "between-within",
    exposure: str | None = None,
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
    exposure : str, optional
        Column of positive times at risk, for counts: coefficients are then of log rates.
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
    check_words(family=(family, tuple(DENSITIES)), inference=(inference, INFERENCE))
    if not 1 <= nodes <= 100:
        raise InputError(f"nodes = {nodes} is not between 1 (Laplace) and 100.")
    check_conf_level(conf_level)
    parsed = parse(formula)
    if (group is None) == (len(parsed.groups) != 1):
        raise InputError("one grouping factor is fitted: name it by group= or as (1|site) in the formula.")
    if parsed.sloped:
        raise InputError("one random intercept is fitted, and no slope: write (1|site) in the formula.")
    table = frame if isinstance(frame, pd.DataFrame) else normalise(frame)
    model = model_frame.build(parsed, table, groups=None if group is None else [group], weights=exposure)
    _suits(model, family)
    if exposure is not None and family == "binomial":
        raise InputError("exposure is for counts; a binary outcome has none.")
    offset = None if model.weights is None else np.log(model.weights)
    fitted = maximise(model.x, model.y, model.groups[0].codes, family, nodes=nodes, offset=offset)
    notes = list(model.notes())
    if fitted.boundary:
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
    if family != "binomial":
        model.refuse_fractions(family)
    model.refuse_constant()


@dataclass(frozen=True, slots=True)
class Maximum:
    """A maximum of the marginal likelihood."""

    beta: Array  # (p,)
    sd: float
    size: float
    log_likelihood: float
    vcov: Array  # (p, p)
    boundary: bool


def maximise(x: Array, y: Array, codes: NDArray[np.intp], family: str, *, nodes: int, offset: Array | None = None) -> Maximum:
    """Maximum of the marginal likelihood in (beta, sd, log size), found on scaled columns.

    Parameters
    ----------
    x : array (n, p), full column rank
    y : array (n,)
    codes : array (n,)
    family : str
    nodes : int
    offset : array (n,), optional
        Added to the linear predictor: the log of the exposure.

    Raises
    ------
    InputError
        There is no maximum.
    """
    order = np.argsort(codes, kind="stable")
    codes = np.unique(codes[order], return_inverse=True)[1].astype(np.intp)
    # orthonormal columns: all directions of beta have the same curvature to first order
    basis, triangle = np.linalg.qr(x[order])
    basis, triangle = basis * math.sqrt(len(y)), triangle / math.sqrt(len(y))
    shift = np.zeros(len(y)) if offset is None else offset[order]
    density = DENSITIES[family](y[order])
    extra = np.array([1.0] if family == "negative-binomial" else [])
    try:
        start = without_groups(basis, density, shift, extra)
        found = agq.maximise(basis, codes, density, nodes=nodes, start=start, extra=extra, offset=shift)
    except (agq.Separation, np.linalg.LinAlgError):
        raise InputError(SEPARATED) from None
    p, back = x.shape[1], np.linalg.inv(triangle)
    size = math.exp(found.extra[0]) if len(extra) else math.inf
    return Maximum(back @ found.beta, found.sd, size, found.log_likelihood, back @ found.vcov[:p, :p] @ back.T, found.boundary)


def without_groups(x: Array, density: agq.Density, offset: Array, extra: Array) -> Array:
    """Coefficients (p,) of the model without random intercepts, by Newton's method: where the search begins."""
    beta = np.zeros(x.shape[1])
    value = -math.inf
    for _ in range(30):
        at = density(offset + x @ beta, extra)
        step = np.linalg.solve((x * -at.d2[:, None]).T @ x, x.T @ at.d1)
        share = 1.0
        while share > 1e-3 and not float(density(offset + x @ (beta + share * step), extra).value.sum()) >= value:
            share /= 2
        beta = beta + share * step
        reached = float(density(offset + x @ beta, extra).value.sum())
        if abs(reached - value) < 1e-8 * (1 + abs(reached)) or np.abs(x @ beta).max() > 30:
            break
        value = reached
    return np.asarray(beta)
