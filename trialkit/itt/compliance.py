"""Complier-average effect: what the intervention does in those who take it because it was assigned to them.

Two-stage least squares with the assigned arm as instrument for what was received (yes/no, or a dose such as sessions attended); the
sandwich is CR2 over sites with Satterthwaite df, because sites were randomised. It rests on more than the intention-to-treat effect does:
assignment acts only through what is received, and nobody does the opposite of what is assigned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.door import InputError, normalise
from trialkit.itt import model_frame
from trialkit.itt.formula import parse
from trialkit.itt.mixed import t_quantile, two_sided_p
from trialkit.itt.robust import Sandwich, sandwich
from trialkit.results import Result

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ComplierEffect(Result):
    """A two-stage least-squares effect.

    Attributes
    ----------
    frame : DataFrame
        One row a coefficient: term, estimate, std_error, df, statistic, p_value, conf_low, conf_high; the received column comes second.
    first_stage : float
        What assignment adds to what is received (the compliance, for yes/no).
    first_stage_f : float
        Its squared CR2 t statistic; below 10 the instrument is weak and the interval too short.
    n, clusters : int
    notes : tuple of str
    """

    frame: pd.DataFrame
    first_stage: float
    first_stage_f: float
    n: int
    clusters: int
    notes: tuple[str, ...]
    title: str = "Complier-average effect (2SLS, CR2)"


def complier_effect(
    frame: Any,
    *,
    outcome: str,
    received: str,
    assigned: str,
    cluster: str,
    covariates: Sequence[str] = (),
    conf_level: float = 0.95,
) -> ComplierEffect:
    """Effect of receiving the intervention, with assignment as instrument.

    Parameters
    ----------
    frame : DataFrame
        One row a person.
    outcome, received, assigned, cluster : str
        Columns; `received` holds numbers (0/1, or a dose), `assigned` the two arms (text: the first in order is the reference).
    covariates : sequence of str
        Exogenous columns, in both stages.
    conf_level : float

    Raises
    ------
    InputError
        A column is absent or of the wrong kind, assignment does not have two values, or it does not move what is received.

    Examples
    --------
    >>> rng = np.random.default_rng(3)
    >>> site = np.repeat(np.arange(20), 6)
    >>> people = pd.DataFrame({"site": site, "arm": site % 2, "came": (site % 2) * (rng.random(120) < 0.7)})
    >>> people["y"] = 1.0 * people["came"] + rng.normal(size=120)
    >>> effect = complier_effect(people, outcome="y", received="came", assigned="arm", cluster="site")
    >>> effect.frame["term"].tolist(), round(effect.first_stage, 2)
    (['(Intercept)', 'came'], 0.73)
    """
    if not 0 < conf_level < 1:
        raise InputError(f"conf_level = {conf_level} is not between 0 and 1, for example 0.95.")
    table = frame if isinstance(frame, pd.DataFrame) else normalise(frame)
    taken = model_frame.read_column(table, received, why="as what was received")
    if taken.levels is not None and taken.levels != ("FALSE", "TRUE"):
        raise InputError(f"what was received ({received!r}) holds text, and must be numbers: 0/1, or a dose.")
    unknown = taken.missing
    table = table.loc[~unknown]
    terms = " + ".join(f"`{c}`" for c in (assigned, *covariates))
    model = model_frame.build(parse(f"`{outcome}` ~ {terms}"), table, groups=[cluster])
    dose = np.asarray(taken.values, dtype=np.float64)[~unknown][model.rows]
    place = {term: [j for j, a in enumerate(model.assign) if a == k] for k, term in enumerate(model.terms)}
    if len(place[assigned]) != 1 or len(np.unique(model.x[:, place[assigned][0]])) != 2:
        raise InputError(f"the assignment {assigned!r} must have two values among the analysed rows.")
    z = place[assigned][0]
    Z = model.x
    X = Z.copy()
    X[:, z] = dose
    names = list(model.names)
    names[z] = received
    # orthonormal instruments: columns of any size lose no digits
    Q, _ = np.linalg.qr(Z)
    fitted = Q @ (Q.T @ X)
    codes = model.groups[0].codes
    order = np.argsort(codes, kind="stable")
    clusters = [rows for rows in np.split(order, np.cumsum(np.bincount(codes))[:-1]) if len(rows)]
    if len(clusters) <= len(names):
        raise InputError(f"{len(clusters)} clusters and {len(names)} coefficients leave no degrees of freedom. Use fewer covariates.")
    ones = [np.eye(len(rows)) for rows in clusters]
    first = np.linalg.lstsq(Z, dose, rcond=None)[0]
    first_cov = sandwich(Z, dose - Z @ first, clusters, ones)
    if abs(first[z]) <= 1e-10 * max(float(np.abs(dose).max()), 1e-300):
        raise InputError(f"assignment does not move {received!r} at all, so there are no compliers to speak of.")
    beta = np.asarray(np.linalg.solve(fitted.T @ X, fitted.T @ model.y), dtype=np.float64)
    second = sandwich(fitted, model.y - X @ beta, clusters, ones)
    # with perfect compliance the first stage has no residual
    exact = float(np.abs(dose - Z @ first).max()) <= 1e-10 * float(np.abs(dose).max())
    f = math.inf if exact else float(first[z] ** 2 / first_cov.cov[z, z])
    lost = (f"{int(unknown.sum())} rows left out because {received} is missing.",) if unknown.any() else ()
    notes = (*lost, *model.notes(), "Assumes that assignment acts only through what is received, and that nobody defies it.")
    if f < 10:
        notes = (*notes, f"The instrument is weak (first-stage F = {f:.1f}): the estimate is biased and its interval too short.")
    return ComplierEffect(_table(names, beta, second, conf_level), float(first[z]), f, len(model.y), len(clusters), notes)


def _table(names: Sequence[str], beta: Array, found: Sandwich, conf_level: float) -> pd.DataFrame:
    std_error = np.sqrt(np.diagonal(found.cov))
    statistic = beta / std_error
    half = t_quantile(found.df, 0.5 + conf_level / 2) * std_error
    return pd.DataFrame(
        {
            "term": pd.Series(list(names), dtype="str"),
            "estimate": beta,
            "std_error": std_error,
            "df": found.df,
            "statistic": statistic,
            "p_value": two_sided_p(statistic, found.df),
            "conf_low": beta - half,
            "conf_high": beta + half,
        }
    )
