"""Complier-average effect: what the intervention does in those who take it because it was assigned to them.

Two-stage least squares with the assigned arm as instrument for what was received (yes/no, or a dose such as sessions attended); the
sandwich is CR2 over sites with Satterthwaite df, because sites were randomised. It rests on more than the intention-to-treat effect does:
assignment acts only through what is received, and nobody does the opposite of what is assigned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.design import TrialDesign
from trialkit.door import InputError, check_conf_level, check_words, normalise
from trialkit.itt import model_frame
from trialkit.itt.cluster_level import SiteValues, Weights, site_values
from trialkit.itt.coefficient_table import coefficient_table
from trialkit.itt.formula import parse
from trialkit.itt.model_frame import INTERCEPT, Column, ModelFrame
from trialkit.itt.people import People
from trialkit.itt.robust import Sandwich, sandwich
from trialkit.results import Result

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ComplierEffect(Result):
    """A two-stage least-squares effect.

    Attributes
    ----------
    frame : DataFrame
        One row a coefficient: term, estimate, std_error, df, statistic, p_value, conf_low, conf_high; the received column comes second (at
        the cluster level it is the only one).
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
    level: Literal["person", "cluster"] = "person",
    weights: Weights = "equal",
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
    level : {"person", "cluster"}
        People, with a sandwich over clusters; or one value a cluster: the means of outcome and of what was received, what the covariates
        explain (by least squares without the arm) taken out of both, and t with clusters - 2 - cluster-level covariates df.
    weights : {"equal", "size"}
        How clusters count at the cluster level.
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
    check_conf_level(conf_level)
    check_words(level=(level, ("person", "cluster")), weights=(weights, ("equal", "size")))
    table = frame if isinstance(frame, pd.DataFrame) else normalise(frame)
    taken = _read_dose(table, received, why="as what was received")
    unknown = taken.missing
    table = table.loc[~unknown]
    terms = " + ".join(f"`{c}`" for c in (assigned, *covariates))
    model = model_frame.build(parse(f"`{outcome}` ~ {terms}"), table, groups=[cluster])
    dose = np.asarray(taken.values, dtype=np.float64)[~unknown][model.rows]
    place = {term: [j for j, a in enumerate(model.assign) if a == k] for k, term in enumerate(model.terms)}
    if len(place[assigned]) != 1 or len(np.unique(model.x[:, place[assigned][0]])) != 2:
        raise InputError(f"the assignment {assigned!r} must have two values among the analysed rows.")
    z = place[assigned][0]
    lost = (f"{int(unknown.sum())} rows left out because {received} is missing.",) if unknown.any() else ()
    assumed = "Assumes that assignment acts only through what is received, and that nobody defies it."
    if level == "cluster":
        return _by_cluster(model, z, dose, received, weights, conf_level, (*lost, *model.notes(), assumed))
    names = list(model.names)
    names[z] = received
    found = by_people(model.x, z, model.y, dose, model.groups[0].codes, received)
    notes = (*lost, *model.notes(), assumed, *weak(found.first_stage_f))
    std_error = np.sqrt(np.diagonal(found.sandwich.cov))
    effects = coefficient_table(names, found.beta, std_error, found.sandwich.df, conf_level)
    return ComplierEffect(effects, found.first_stage, found.first_stage_f, len(model.y), found.clusters, notes)


def _read_dose(table: pd.DataFrame, name: str, *, why: str) -> Column:
    column = model_frame.read_column(table, name, why=why)
    if column.levels is not None and column.levels != ("FALSE", "TRUE"):
        raise InputError(f"what was received ({name!r}) holds text, and must be numbers: 0/1, or a dose.")
    return column


def weak(f: float) -> tuple[str, ...]:
    """What a small first-stage F means."""
    return () if f >= 10 else (f"The instrument is weak (first-stage F = {f:.1f}): the estimate is biased and its interval too short.",)


@dataclass(frozen=True, slots=True)
class ByPeople:
    """Two-stage least squares of people; coefficient z is of what was received."""

    beta: Array  # (p,)
    sandwich: Sandwich
    first_stage: float
    first_stage_f: float
    clusters: int


def by_people(Z: Array, z: int, y: Array, dose: Array, codes: NDArray[np.intp], received: str) -> ByPeople:
    """Two-stage least squares with column z of Z (the assignment) as instrument for the dose, CR2 over sites.

    Parameters
    ----------
    Z : array (n, p)
        Full column rank.
    z : int
    y, dose : array (n,)
    codes : array (n,)
        Sites.
    received : str
        What the dose is called, for errors.

    Raises
    ------
    InputError
        The sites are no more than the coefficients, or assignment does not move the dose.
    """
    X = Z.copy()
    X[:, z] = dose
    # orthonormal instruments: columns of any size lose no digits
    Q, _ = np.linalg.qr(Z)
    fitted = Q @ (Q.T @ X)
    order = np.argsort(codes, kind="stable")
    clusters = [rows for rows in np.split(order, np.cumsum(np.bincount(codes))[:-1]) if len(rows)]
    if len(clusters) <= Z.shape[1]:
        raise InputError(f"{len(clusters)} clusters and {Z.shape[1]} coefficients leave no degrees of freedom. Use fewer covariates.")
    ones = [np.eye(len(rows)) for rows in clusters]
    first = np.linalg.lstsq(Z, dose, rcond=None)[0]
    first_cov = sandwich(Z, dose - Z @ first, clusters, ones)
    if abs(first[z]) <= 1e-10 * max(float(np.abs(dose).max()), 1e-300):
        raise InputError(f"assignment does not move {received!r} at all, so there are no compliers to speak of.")
    beta = np.asarray(np.linalg.solve(fitted.T @ X, fitted.T @ y), dtype=np.float64)
    second = sandwich(fitted, y - X @ beta, clusters, ones)
    # with perfect compliance the first stage has no residual
    exact = float(np.abs(dose - Z @ first).max()) <= 1e-10 * float(np.abs(dose).max())
    f = math.inf if exact else float(first[z] ** 2 / first_cov.cov[z, z])
    return ByPeople(beta, second, float(first[z]), f, len(clusters))


def _by_cluster(
    model: ModelFrame, z: int, dose: Array, received: str, weights: Weights, conf_level: float, notes: tuple[str, ...]
) -> ComplierEffect:
    arm = model.x[:, z]
    treated = (arm > arm.min()).astype(np.float64)
    site = np.asarray(model.groups[0].labels, dtype=object)[model.groups[0].codes]
    others = [k for k, name in enumerate(model.names) if k != z and name != INTERCEPT]
    x = model.x[:, others] if others else None
    outcome, taken = (site_values(v, site, treated, covariates=x) for v in (model.y, dose))
    found = by_sites(outcome, taken, received, weights=weights)
    how = {"equal": "clusters count equally", "size": "clusters count by their people"}[weights]
    return ComplierEffect(
        coefficient_table([received], np.array([found.estimate]), np.array([found.std_error]), np.array([found.df]), conf_level),
        found.first_stage,
        found.first_stage_f,
        len(model.y),
        len(outcome.sites),
        (*notes, *weak(found.first_stage_f)),
        f"Complier-average effect (2SLS of cluster means, {how})",
    )


@dataclass(frozen=True, slots=True)
class BySites:
    """Two-stage least squares of site means."""

    estimate: float
    std_error: float
    df: float
    first_stage: float
    first_stage_f: float


def by_sites(outcome: SiteValues, taken: SiteValues, received: str, *, weights: Weights = "equal") -> BySites:
    """Two-stage least squares of cluster means: with one instrument the ratio of the two differences between arms.

    ``b = (Y1 - Y0) / (D1 - D0)``, residuals ``e = Y - a - b D``, ``V(b) = s^2 (1/W0 + 1/W1) / (D1 - D0)^2`` with ``s^2 = sum w e^2 / df``.

    Raises
    ------
    InputError
        Too few sites, no variation, or assignment does not move what is received.
    """
    J = len(outcome.sites)
    df = float(J - 2 - outcome.lost_df)
    on = outcome.arm > 0.5
    if min(int(on.sum()), int((~on).sum())) < 2 or df < 1:
        raise InputError(
            f"{J} clusters leave nothing to judge the effect by. At least two an arm are needed, and more than the covariates."
        )
    w = np.ones(J) if weights == "equal" else outcome.n
    means = {
        key: [float(np.average(v[part], weights=w[part])) for part in (~on, on)] for key, v in (("y", outcome.value), ("d", taken.value))
    }
    gap = means["d"][1] - means["d"][0]
    if abs(gap) <= 1e-10 * max(float(np.abs(taken.value).max()), 1e-300):
        raise InputError(f"assignment does not move {received!r} at all, so there are no compliers to speak of.")
    b = (means["y"][1] - means["y"][0]) / gap
    a = means["y"][0] - b * means["d"][0]
    share = sum(1 / w[part].sum() for part in (~on, on))

    def error(residual: Array) -> float:
        return math.sqrt(float((w * residual**2).sum()) / df * share)

    se = error(outcome.value - a - b * taken.value) / abs(gap)
    if not se > 0:
        raise InputError("the clusters of an arm all have the same value, so there is no variation to judge an effect by.")
    first = error(taken.value - np.where(on, means["d"][1], means["d"][0]))
    return BySites(b, se, df, gap, math.inf if first <= 1e-10 * abs(gap) else (gap / first) ** 2)


# --- as the design declares it --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """What everybody received, as the design declares it.

    Attributes
    ----------
    values : list of array (people,)
        One a table, in the order of `People.rows`; NaN where it is not known.
    name : str
    effect_of : str
        What the effect is of, to stand behind a measure: "in compliers", or "for each session".
    note : str
    """

    values: list[Array]
    name: str
    effect_of: str
    note: str


def read_received(tables: Sequence[pd.DataFrame], people: People, design: TrialDesign) -> Received | None:
    """The declared columns, added up; None when none is declared.

    Where nothing at all is recorded in the reference arm its people count as having received nothing, and `note` says so.

    Raises
    ------
    InputError
        A column is absent or holds text.
    """
    declared = design.compliance
    if declared is None or not declared.columns:
        return None
    name = " + ".join(declared.columns)
    out, blank = [], False
    for table in tables:
        total = np.zeros(len(people.rows))
        for column in declared.columns:
            read = _read_dose(table, column, why="as what was received ([compliance] received)")
            values = np.where(read.missing, np.nan, read.values.astype(np.float64))[people.rows]
            reference = people.arm == 0
            if np.isnan(values[reference]).all():
                values, blank = np.where(reference, 0.0, values), True
            total = total + values
        out.append(total)
    taken = len(declared.columns) == 1 and all(np.isin(v[~np.isnan(v)], (0.0, 1.0)).all() for v in out)
    unit = declared.unit or (name if len(declared.columns) == 1 else f"one of {name}")
    nothing = f" Nothing is recorded in the {design.arms.reference} arm, whose people count as having received none." if blank else ""
    return Received(
        out,
        name,
        "in compliers" if taken else f"for each {unit}",
        f"Complier-average effects ({name}): assumed are that assignment acts only through what is received, and that nobody defies it."
        f"{nothing}",
    )
