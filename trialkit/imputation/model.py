"""From columns to the kernel's problem: the design matrix, the predictors of every variable, and what was left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels import gibbs, gibbs_joint
from trialkit.door import InputError, few
from trialkit.imputation.substantive import Substantive
from trialkit.imputation.variables import WHERE, Column

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

# two columns this alike (over the rows where both are observed) cannot both be predictors
_TWINS = 0.9999
# a column whose part outside the span of the earlier ones is smaller than this is a combination of them
_RANK = 1e-7
_KIND: dict[str, gibbs.Kind] = {
    "continuous": "normal",
    "count": "pmm",
    "binary": "binary",
    "ordinal": "ordinal",
    "nominal": "nominal",
}
METHOD = {
    "normal": "two-level normal",
    "pmm": "two-level predictive mean matching",
    "binary": "two-level probit",
    "ordinal": "two-level cumulative probit",
    "nominal": "two-level nested probits",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something the imputation decided by itself; printed, never silent."""

    kind: str
    variable: str
    detail: str


@dataclass(frozen=True, slots=True)
class Model:
    """One group's imputation model.

    `columns` holds every variable; `incomplete` those with a target in `problem.targets`, in that order; `known` the cells of
    site-level variables that follow from another person of the site: name -> (rows, values).
    """

    columns: tuple[Column, ...]
    incomplete: tuple[Column, ...]
    problem: gibbs.Problem | gibbs_joint.JointProblem
    known: dict[str, tuple[Ints, Array]]
    scores: tuple[Score, ...]
    events: tuple[Event, ...]


@dataclass(slots=True)
class _Matrix:
    """The design matrix as it is laid out: first the intercept, then arm, then every variable, then derived columns."""

    z: Array  # (n, P) NaN where missing
    place: dict[str, Ints]
    names: list[str]  # (P,) the variable each column belongs to
    derived: list[gibbs.Derived] = field(default_factory=list)


def build(
    columns: Sequence[Column],
    site: Ints,
    arm: Array | None,
    *,
    site_prior: str | float,
    rows_per_predictor: float,
    pair: Ints | None = None,
    subcluster: Ints | None = None,
    heteroscedastic: bool = False,
    substantive: Substantive | None = None,
    arm_name: str = "",
) -> Model:
    """The model of one group of people.

    Parameters
    ----------
    columns : sequence of Column
        Data (n,) in canonical order: sorted by site, subcluster if there are any, person.
    site : int array (n,)
        0..J-1, ascending.
    arm : array (n,) or None
        0/1; None when arms are imputed apart.
    site_prior : "uniform" or float
        See `gibbs_linear.Prior`.
    rows_per_predictor : float
        Observed rows a predictor must have behind it.
    pair : int array (J,) or None
        0..Q-1, the pair of each site; None: no intercept for pairs.
    subcluster : int array (n,) or None
        0..C-1, ascending, the subcluster of each row; None: no intercept for them.
    heteroscedastic : bool
        Whether sites differ in the residual variance of continuous variables.
    substantive : Substantive or None
        The analysis model, checked, whose products the imputation keeps; `arm_name` is what it calls the arm.

    Raises
    ------
    InputError
        Too few observed values for even the smallest model; observed values outside their bounds; a site-level variable that varies
        within a site.
    """
    events: list[Event] = []
    known: dict[str, tuple[Ints, Array]] = {}
    ready = [settle_site_level(c, site, known, events) for c in columns]
    matrix = _matrix(ready, site, arm)
    products = _Products("", frozenset(), {}) if substantive is None else _lay_products(substantive, matrix, ready, arm_name)
    correlation = _Correlations.of(matrix.z)
    incomplete = sorted((c for c in ready if c.missing.any()), key=lambda c: (int(c.missing.sum()), c.name))
    if substantive is not None:
        # the outcome first, complete or not: covariates are drawn given its parameters
        outcome = next(c for c in ready if c.name == substantive.outcome)
        incomplete = [outcome, *(c for c in incomplete if c is not outcome)]
    events += _twins(ready, matrix, correlation)
    targets = []
    for column in incomplete:
        if column.variable.items:
            continue  # follows from its items
        predictors = _predictors(column, ready, matrix, correlation, products, site, arm is not None, rows_per_predictor, events)
        one = target(column, matrix.place[column.name], predictors, site, site_prior)
        own = heteroscedastic and one.kind == "normal" and not one.site_level
        targets.append(replace(one, heteroscedastic=own, given_outcome=column.name in products.curved))
    z = np.where(np.isnan(matrix.z), 0.0, matrix.z)
    scores = tuple(_score(c, ready, matrix) for c in incomplete if c.variable.items)
    matrix.derived += [s.rule for s in scores]
    problem = gibbs.Problem(z, site, tuple(targets), tuple(matrix.derived), pair, subcluster)
    drawn = tuple(c for c in incomplete if not c.variable.items)
    return Model(tuple(ready), drawn, problem, known, scores, tuple(events))


def _twins(columns: Sequence[Column], matrix: _Matrix, correlation: _Correlations) -> list[Event]:
    """Incomplete columns that are another in other units: where both are missing each holds the other where it is, and no chain moves."""
    single = [c for c in columns if c.missing.any() and len(matrix.place[c.name]) == 1]
    at = np.array([int(matrix.place[c.name][0]) for c in single], dtype=np.intp)
    pairs = np.argwhere(np.triu(np.abs(correlation.between[np.ix_(at, at)]) > _TWINS, 1))
    return [
        Event("twins", single[b].name, f"is {single[a].name} in other units: its chains cannot move. Take one of the two out of the design")
        for a, b in pairs.tolist()
    ]


@dataclass(frozen=True, slots=True)
class Score:
    """A scale score that follows from its items: in `rows`, `factor` times the sum of the items."""

    column: Column
    items: tuple[Column, ...]
    rows: Ints
    factor: float
    rule: gibbs.Sum


def _score(column: Column, columns: Sequence[Column], matrix: _Matrix) -> Score:
    """The rule by which a score's missing cells follow from its items."""
    items = tuple(next(c for c in columns if c.name == name) for name in column.variable.items)
    answers = np.stack([ratings(c) for c in items])
    whole = ~np.isnan(answers).any(axis=0) & ~column.missing
    if not whole.any():
        raise InputError(f"{WHERE}: nobody has {column.name!r} and all its items, so its scoring cannot be read from the data.")
    seen, total = column.values[whole], answers[:, whole].sum(axis=0)
    # published scores are rounded, so a hundredth of an SD is no contradiction
    near = 0.01 * max(float(np.std(column.values[~column.missing])), 1e-12) + 1e-9
    factor = next((f for f in (1 / len(items), 1.0) if np.abs(seen - f * total).max() <= near), None)
    if factor is None:
        raise InputError(
            f"{WHERE}: {column.name!r} is neither the mean nor the sum of its items ({few([c.name for c in items])}). Correct the items in "
            "the design (reverse-scored ones need their reversed column), or impute with items=False."
        )
    mean, sd = column.location_scale()
    place = [c.location_scale() for c in items]
    rule = gibbs.Sum(
        sources=np.concatenate([matrix.place[c.name] for c in items]),
        weights=np.array([factor * s / sd for _, s in place]),
        offset=(factor * sum(centre for centre, _ in place) - mean) / sd,
        column=int(matrix.place[column.name][0]),
        rows=np.flatnonzero(column.missing),
    )
    return Score(column, items, rule.rows, factor, rule)


def ratings(column: Column) -> Array:
    """An item's numbers (n,), NaN where missing."""
    if not column.categorical:
        return column.values
    out = np.full(len(column.values), np.nan)
    seen = ~column.missing
    out[seen] = np.array(column.labels, dtype=float)[column.values[seen].astype(np.intp)]
    return out


def settle_site_level(column: Column, site: Ints, known: dict[str, tuple[Ints, Array]], events: list[Event]) -> Column:
    """A site-level variable observed for anybody of a site is known for all of it."""
    if not column.site_level:
        return column
    seen = ~column.missing
    low = np.full(int(site.max()) + 1, np.inf)
    high = np.full(len(low), -np.inf)
    np.minimum.at(low, site[seen], column.values[seen])
    np.maximum.at(high, site[seen], column.values[seen])
    if (low[np.isfinite(low)] != high[np.isfinite(low)]).any():
        raise InputError(
            f"{WHERE}: {column.name!r} is declared to be one value a site, yet it varies within a site. Correct the cells, or the "
            "declaration."
        )
    rows = np.flatnonzero(column.missing & np.isfinite(low[site]))
    if not column.variable.site_level:
        events.append(Event("site-level", column.name, "has one value in every site: imputed once a site, not once a person"))
    if not len(rows):
        return column
    values = column.values.copy()
    values[rows] = low[site[rows]]
    known[column.name] = (rows, values[rows])
    events.append(Event("filled from the site", column.name, f"{len(rows)} missing cells take the value seen in the same site"))
    return Column(column.variable, column.type, values, column.labels, column.site_level, column.dummies)


def _matrix(columns: Sequence[Column], site: Ints, arm: Array | None) -> _Matrix:
    n = len(site)
    parts: list[Array] = [np.ones((n, 1))]
    names = ["(intercept)"]
    if arm is not None:
        parts.append(np.asarray(arm, dtype=float)[:, None])
        names.append("(arm)")
    place: dict[str, Ints] = {}
    for column in columns:
        constant = np.ptp(column.values[~column.missing]) == 0
        coded = np.zeros((n, 1)) if constant else column.coded()
        place[column.name] = np.arange(len(names), len(names) + coded.shape[1])
        parts.append(coded)
        names += [column.name] * coded.shape[1]
    derived: list[gibbs.Derived] = []
    for column in columns:
        # either wave's model holds the site mean of the other: within- and between-site associations may differ
        partner = column.variable.partner
        if column.variable.role in ("outcome", "baseline") and partner in place and len(place[partner]) == 1 and not column.site_level:
            source = int(place[partner][0])
            key = f"(site mean of {partner})"
            derived.append(gibbs.SiteMean(source, len(names)))
            place[key] = np.array([len(names)])
            names.append(key)
            value = _filled(np.concatenate(parts, axis=1)[:, source : source + 1])
            size = np.bincount(site)
            parts.append((np.bincount(site, weights=value[:, 0]) / size)[site][:, None])
    return _Matrix(np.concatenate(parts, axis=1), place, names, derived)


@dataclass(frozen=True, slots=True)
class _Products:
    """The substantive model as laid out: its outcome, the variables that enter a product, and the products' columns."""

    outcome: str
    curved: frozenset[str]
    place: dict[tuple[str, ...], Ints]


def _lay_products(model: Substantive, matrix: _Matrix, columns: Sequence[Column], arm_name: str) -> _Products:
    """Add a column for every product of the model's factors (of their dummies, each with each)."""
    own = {c.name: matrix.place[c.name] for c in columns} | {arm_name: np.array([1])}
    at: dict[tuple[str, ...], list[tuple[int, ...]]] = {(name,): [(int(k),) for k in own[name]] for name in model.main}
    column_of: dict[tuple[int, ...], int] = {(int(k),): int(k) for name in model.main for k in own[name]}
    place = {}
    for product in sorted(model.products, key=len):
        made = []
        for left in at.get(product[:-1], []):
            for (right,) in at[product[-1:]]:
                key = tuple(sorted((*left, right)))
                if key not in column_of:
                    column_of[key] = len(matrix.names)
                    matrix.derived.append(gibbs.Product(column_of[left], right, len(matrix.names)))
                    matrix.names.append(f"({':'.join(product)})")
                    matrix.z = np.column_stack([matrix.z, matrix.z[:, column_of[left]] * matrix.z[:, right]])
                made.append(key)
        at[product] = made
        place[product] = np.array([column_of[key] for key in made], dtype=np.intp)
        matrix.place[f"({':'.join(product)})"] = place[product]
    return _Products(model.outcome, model.curved - {arm_name}, place)


def _filled(z: Array) -> Array:
    """Missing cells at their column's mean, for choosing predictors only."""
    seen = ~np.isnan(z)
    mean = np.where(seen, z, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return np.where(seen, z, mean)


@dataclass(frozen=True, slots=True)
class _Correlations:
    """Correlations over the rows where both columns are observed, and of each column with each one's missingness."""

    between: Array  # (P, P)
    with_missing: Array  # (P, P)  [a, b]: column a observed values with the missing indicator of b

    @classmethod
    def of(cls, z: Array) -> _Correlations:
        seen = ~np.isnan(z)
        # centred before the moments are taken, so that little is lost where a mean is far from 0
        filled = _filled(z)
        x = np.where(seen, filled - filled.mean(axis=0), 0.0)
        s = seen.astype(float)
        n = np.maximum(s.T @ s, 1.0)
        sum_x = x.T @ s  # [a, b]: sum of a over rows where both are seen
        square = (x**2).T @ s
        cross = x.T @ x
        covariance = cross / n - (sum_x / n) * (sum_x.T / n)
        variance = np.maximum(square / n - (sum_x / n) ** 2, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            between = covariance / np.sqrt(variance * variance.T)
        gone = 1 - s
        n_a = np.maximum(s.sum(axis=0), 1.0)[:, None]
        mean_gone = (s.T @ gone) / n_a
        spread_gone = np.sqrt(np.maximum(mean_gone * (1 - mean_gone), 0.0))
        mean_x = x.sum(axis=0)[:, None] / n_a
        spread_x = np.sqrt(np.maximum((x**2).sum(axis=0)[:, None] / n_a - mean_x**2, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            with_missing = ((x.T @ gone) / n_a - mean_x * mean_gone) / (spread_x * spread_gone)
        # fewer than five shared rows say nothing
        between[n < 5] = 0.0
        return cls(np.nan_to_num(np.clip(between, -1, 1)), np.nan_to_num(np.clip(with_missing, -1, 1)))


def _predictors(
    column: Column,
    columns: Sequence[Column],
    matrix: _Matrix,
    correlation: _Correlations,
    products: _Products,
    site: Ints,
    has_arm: bool,
    rows_per_predictor: float,
    events: list[Event],
) -> Ints:
    """Columns of the design matrix that predict one variable, in the order in which they hold their place."""
    own = matrix.place[column.name]
    given_outcome = column.name in products.curved
    observed = ~column.missing | given_outcome
    if column.site_level:
        observed_sites = np.unique(site[observed])
        X = site_means(_filled(matrix.z), site)[observed_sites]
    else:
        X = _filled(matrix.z)[observed]
    rows = len(X)
    limit = _limit(column, rows, site, rows_per_predictor)
    base = [0, *([1] if has_arm else [])]
    if limit < len(base):
        what = "sites" if column.site_level else "observed values"
        raise InputError(
            f"{WHERE}: {column.name!r} has {rows} {what}, too few for a model even with "
            f"{'the arm' if has_arm else 'an intercept'} alone ({rows_per_predictor:g} rows a predictor). Take it out of the design."
        )
    variable = column.variable
    ordered: list[tuple[str, Ints, bool]] = []  # name, columns, whether kept whatever the limit
    if variable.partner in matrix.place and not (given_outcome and variable.partner == products.outcome):
        ordered.append((variable.partner, matrix.place[variable.partner], True))
        mean = f"(site mean of {variable.partner})"
        # the substantive model is the outcome's: a site mean would tie the draw of one baseline to all of its site
        moving = column.name == products.outcome and variable.partner in products.curved
        if variable.role in ("outcome", "baseline", "item") and mean in matrix.place and not moving:
            ordered.append((mean, matrix.place[mean], True))
    if not given_outcome:
        # what is related to the outcome is so through the model's products too
        ordered += [(f"({':'.join(key)})", at, True) for key, at in products.place.items() if column.name not in key]
    # an item predicts its sister items only, and never meets its own score; all others see scores
    sisters = [c for c in columns if variable.scale is not None and c.variable.scale == variable.scale and c.name != column.name]
    ordered += [(c.name, matrix.place[c.name], True) for c in sisters]
    out_of_reach = {column.name, variable.partner, variable.scale, *(c.name for c in columns if c.variable.role == "item")}
    if given_outcome:
        out_of_reach.add(products.outcome)
    others = [c for c in columns if c.name not in out_of_reach]
    covariates = [c for c in others if c.variable.role == "covariate"]
    rest = [c for c in others if c.variable.role != "covariate"]

    reach = np.maximum(np.abs(correlation.between[:, own]), np.abs(correlation.with_missing[:, own])).max(axis=1)

    def strength(c: Column) -> float:
        return float(reach[matrix.place[c.name]].max())

    ranked = sorted(rest, key=lambda c: (-strength(c), c.name))
    ordered += [(c.name, matrix.place[c.name], True) for c in covariates]
    ordered += [(c.name, matrix.place[c.name], False) for c in ranked]
    forced = len(base) + sum(len(at) for _, at, keep in ordered if keep)
    if forced > limit:
        # even the covariates of the analysis model are too many: they compete by correlation too
        near = {variable.partner, f"(site mean of {variable.partner})", *(c.name for c in sisters)}
        head = [entry for entry in ordered if entry[0] in near]
        ranked = sorted(covariates + rest, key=lambda c: (-strength(c), c.name))
        ordered = head + [(c.name, matrix.place[c.name], False) for c in ranked]
    chosen: list[int] = list(base)
    over, dependent = [], []
    span = Span(X)
    for position in base:
        if not span.add(position):
            raise InputError(
                f"{WHERE}: {column.name!r} is observed in one arm only, so the other arm's missing cells have nothing to learn from. Take "
                "it out of the design."
            )
    for name, at, keep in ordered:
        if len(chosen) + len(at) > limit and not (keep and forced <= limit):
            over.append(name)
            continue
        for position in at:
            twin = bool((np.abs(correlation.between[position, chosen[1:]]) > _TWINS).any())
            if twin or not span.add(int(position)):
                dependent.append(name)
            else:
                chosen.append(int(position))
    if over:
        events.append(
            Event(
                "predictors left out",
                column.name,
                f"{rows} {'sites' if column.site_level else 'rows'} carry {limit} predictors; the "
                f"least correlated were left out: {few(over, 8)}",
            )
        )
    real = sorted({name for name in dependent if not name.startswith("(")})
    if real:
        events.append(Event("collinear", column.name, f"constant or a combination of other predictors, so left out: {few(real, 8)}"))
    return np.array(chosen, dtype=np.intp)


def _limit(column: Column, rows: int, site: Ints, rows_per_predictor: float) -> int:
    """How many predictors the rows support; for categories, the people outside the commonest one count, three times."""
    if column.categorical:
        codes = column.values[~column.missing]
        if column.site_level:
            codes = codes[np.unique(site[~column.missing], return_index=True)[1]]
        commonest = int(np.bincount(codes.astype(np.intp)).max())
        # the probit's prior carries intercept and arm however rare a category is
        return max(int(min(rows, 3 * (rows - commonest)) // rows_per_predictor), 2 if rows >= 2 * rows_per_predictor else 0)
    return int(rows // rows_per_predictor)


class Span:
    """Columns taken one by one, as R does: a later column that is a combination of the earlier is refused."""

    def __init__(self, X: Array) -> None:
        self._X = X
        self._basis = np.empty((min(X.shape), len(X)))
        self._size = 0

    def add(self, position: int) -> bool:
        """Take the column at `position`, if it adds to those taken."""
        x = self._X[:, position]
        size = np.sqrt(x @ x)
        if size == 0 or self._size == len(self._basis):
            return False
        rest = x / size
        basis = self._basis[: self._size]
        for _ in range(2):  # twice is enough (Kahan and Parlett)
            rest = rest - (basis @ rest) @ basis
        left = np.sqrt(rest @ rest)
        if left < _RANK:
            return False
        self._basis[self._size] = rest / left
        self._size += 1
        return True


def site_means(z: Array, site: Ints) -> Array:
    """Means (J, P) of columns (n, P) over the rows of each site."""
    start = np.concatenate([[0], np.flatnonzero(np.diff(site)) + 1])
    return np.asarray(np.add.reduceat(z, start, axis=0) / np.bincount(site)[:, None])


def target(column: Column, at: Ints, predictors: Ints, site: Ints, site_prior: str | float) -> gibbs.Target:
    """A variable as the kernels take it: where it is missing, what was observed, how a value becomes columns."""
    kind = _KIND[column.type]
    low, high = column.variable.bounds
    missing, observed = np.flatnonzero(column.missing), np.flatnonzero(~column.missing)
    values = column.values[observed]
    coding = column.coding()
    if np.isfinite([low, high]).any():
        if kind != "normal":
            raise InputError(f"bounds are given for {column.name!r}, which is {column.type}: only continuous variables take bounds.")
        if low >= high or values.min() < low or values.max() > high:
            raise InputError(
                f"{WHERE}: {column.name!r} is observed from {values.min():g} to {values.max():g}, outside its bounds {low:g} to {high:g}. "
                "Correct the cells or the bounds."
            )
    if kind == "normal":
        mean, sd = coding[:, 0]
        values, low, high = (values - mean) / sd, (low - mean) / sd, (high - mean) / sd
    if column.site_level:
        sites, first = np.unique(site[observed], return_index=True)
        values, observed = values[first], sites
        missing = np.unique(site[missing])
    return gibbs.Target(
        name=column.name,
        kind=kind,
        site_level=column.site_level,
        missing=missing.astype(np.intp),
        observed=observed.astype(np.intp),
        columns=at,
        predictors=predictors,
        values=values,
        levels=len(column.labels),
        coding=coding,
        low=float(low),
        high=float(high),
        site_prior=site_prior,
    )
