"""Imputation by methods that ignore sites or take them as fixed: for teaching and for checking, by name, never by default.

Single-level imputation draws a person's missing value as if people of one site were strangers, so about (1 - share missing)^2 of the ICC
is left and intervals come out short (Taljaard, Donner & Klar 2008; Andridge 2011). A fixed effect a site adds the noise of every site's
estimate: the ICC and the standard error come out too large, the more so the smaller the sites (Andridge 2011; Drechsler 2015).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.design import TrialDesign
from trialkit.door import InputError, cell_text, check_people, few, frame_digest, require_columns, unknown_word
from trialkit.imputation import variables as variables_
from trialkit.imputation.chained import impute
from trialkit.imputation.imputations import DIAGNOSTICS, Cells, Imputations
from trialkit.imputation.variables import WHERE, Column
from trialkit.results import Provenance

Array = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]

METHODS = ("two-level", "single-level", "scikit-learn", "site-fixed-effects")
# a half-Cauchy of this scale, with everybody a site of their own, leaves no site variance: the engine as a single-level imputer
_NO_SITES = 1e-4


def impute_by(
    method: str, people: pd.DataFrame, design: TrialDesign, *, seed: int, m: int | None = None, iterations: int | None = None
) -> Imputations:
    """Impute by a named method, so that its consequences can be seen beside two-level imputation.

    Parameters
    ----------
    method : {"two-level", "single-level", "scikit-learn", "site-fixed-effects"}
        ``"two-level"`` is `impute`. ``"single-level"``: the same engine, every type, without sites. ``"scikit-learn"``: its
        IterativeImputer with Bayesian ridge and posterior draws, single-level, for numbers only. ``"site-fixed-effects"``: normal
        chained equations with a parameter a site, for numbers only; a site where nobody was seen takes an effect drawn from the sites of
        its arm.
    people : DataFrame
    design : TrialDesign
    seed : int
    m, iterations : int, optional
        By default the design's.

    Returns
    -------
    Imputations
        ``events`` says what the method does to each outcome's ICC.

    Raises
    ------
    InputError
        As `impute`; an unknown method; a category with missing cells where the method knows numbers only.

    Warns
    -----
    UserWarning
        For every method but ``"two-level"``, with the ICC of the outcome that suffers most.

    Examples
    --------
    >>> import warnings
    >>> rng = np.random.default_rng(1)
    >>> site = np.arange(60) // 5
    >>> people = pd.DataFrame({"person": range(60), "site": site, "arm": np.where(site % 2, "control", "intervention")})
    >>> people["mood"] = rng.normal(size=12)[site] + rng.normal(size=60)
    >>> people.loc[::4, "mood"] = np.nan
    >>> design = TrialDesign(outcomes=[{"name": "mood", "has_baseline": False}])
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     sets = impute_by("single-level", people, design, seed=1, m=3)
    >>> "ICC" in str(caught[0].message), len(sets)
    (True, 3)
    """
    if method not in METHODS:
        raise InputError(unknown_word(str(method), METHODS, what="method"))
    if not isinstance(design, TrialDesign):
        raise InputError(f"impute_by needs a TrialDesign, not {type(design).__name__}. Read one: TrialDesign.from_toml(path).")
    if method == "two-level":
        return impute(people, design, seed=seed, m=m, iterations=iterations)
    m = design.imputation.m if m is None else m
    iterations = design.imputation.iterations if iterations is None else iterations
    sets = (
        _without_sites(people, design, seed, m, iterations)
        if method == "single-level"
        else _numbers_only(method, people, design, seed, m, iterations)
    )
    losses = _losses(sets, design, method)
    if losses:
        worst = max(losses, key=lambda event: event[0])[1]
        warnings.warn(f"{method} imputation, for comparison only. {worst['variable']}: {worst['detail']}", UserWarning, stacklevel=2)
    events = pd.DataFrame([*sets.events.to_dict("records"), *(event for _, event in losses)], columns=sets.events.columns, dtype="str")
    made = sets.provenance
    settings = {**made.settings, "engine": f"{method} (comparison)"}
    inputs = {"people": frame_digest(people), "design": design.digest}
    return replace(sets, events=events, provenance=Provenance(made.seed, inputs, settings, made.versions))


def _without_sites(people: pd.DataFrame, design: TrialDesign, seed: int, m: int, iterations: int) -> Imputations:
    """The chained equations with everybody a site of their own."""
    c = design.columns
    if not isinstance(people, pd.DataFrame):
        raise InputError(f"{WHERE} must be a pandas DataFrame, not {type(people).__name__}.")
    require_columns(people, [c.site], where=WHERE, why="by the design")
    own = people[c.person].to_numpy() if c.person in people.columns else np.arange(len(people))
    alone = design.model_copy(update={"columns": c.model_copy(update={"subcluster": None})})
    sets = impute(people.assign(**{c.site: own}), alone, seed=seed, m=m, iterations=iterations, site_prior=_NO_SITES, pair_effects="none")
    base = sets.base.copy()
    base[c.site] = (
        people[c.site].loc[base.index] if people.index.is_unique else people[c.site].to_numpy()[variables_.population(people, design)]
    )
    return replace(sets, base=base)


def _losses(sets: Imputations, design: TrialDesign, method: str) -> list[tuple[float, dict[str, str]]]:
    """For each numeric outcome with missing cells: the observed ICC, what theory leaves of it, and what the completed sets hold."""
    # it brings scipy.stats, which impute does not need: 40 MB
    from trialkit._kernels import icc as icc_

    c, out = design.columns, []
    for outcome in design.outcomes:
        cells = sets.cells.get(outcome.name)
        if cells is None or cells.labels:
            continue
        y = sets.base[outcome.name].to_numpy(dtype=float, na_value=np.nan)
        asked = np.isfinite(y)
        asked[cells.rows] = True
        site = np.array([cell_text(v) for v in sets.base[c.site].tolist()])
        arm = np.array([cell_text(v) == design.arms.intervention for v in sets.base[c.arm].tolist()], dtype=float)
        seen = np.isfinite(y)

        def icc(values: Array, rows: Bools, site: NDArray[Any] = site, arm: Array = arm) -> float:
            X = np.column_stack([np.ones(rows.sum()), arm[rows]]) if np.ptp(arm[rows]) else np.ones((rows.sum(), 1))
            return float(icc_.anova(icc_.reduce(X, values[rows], np.unique(site[rows], return_inverse=True)[1])).icc)

        try:
            before = icc(y, seen)
            after = []
            for k in range(sets.m):
                full = y.copy()
                full[cells.rows] = cells.values[k]
                after.append(icc(full, asked))
        except (ValueError, ZeroDivisionError, np.linalg.LinAlgError):
            continue
        left = float(np.mean(after))
        share = 1 - len(cells.rows) / asked.sum()
        detail = f"ICC {before:.3f} among the observed, {left:.3f} in the completed sets"
        if method != "site-fixed-effects":
            detail += f" (about {max(before, 0.0) * share**2:.3f} is left where people of a site are imputed as strangers)"
        out.append((abs(before - left), {"kind": "ICC", "group": "", "variable": outcome.name, "detail": detail + "."}))
    return out


# --- numbers only ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Numbers:
    """One kind of person's columns as numbers, standardised over the observed."""

    rows: Ints
    site: Ints
    arm: Array
    values: Array  # (n, P) NaN where missing
    columns: tuple[Column | None, ...]  # (P,) whose values can be drawn; None for a dummy of a complete category


def _numbers_only(method: str, people: pd.DataFrame, design: TrialDesign, seed: int, m: int, iterations: int) -> Imputations:
    c = design.columns
    for name, value, least in (("m", m, 2), ("iterations", iterations, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} = {value!r}: a whole number of at least {least} is needed.")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed = {seed!r}: an integer of at least 0 is needed, so that the imputations can be made again.")
    if not isinstance(people, pd.DataFrame):
        raise InputError(f"{WHERE} must be a pandas DataFrame, not {type(people).__name__}.")
    check_people(
        people, person=c.person if c.person in people.columns else None, site=c.site, arm=c.arm, arms=design.arms.labels, where=WHERE
    )
    base = people.loc[variables_.population(people, design)].copy()
    run = _fixed_effects if method == "site-fixed-effects" else _scikit_learn
    parts: dict[str, list[tuple[Ints, Array]]] = {}
    rows_of_frame: list[dict[str, Any]] = []
    for g, (rater, rows) in enumerate(_kinds(base, design)):
        numbers = _numbers(base, rows, design, rater, method)
        generators = [np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=(g, k))) for k in range(m)]
        drawn = np.stack([run(numbers, iterations, generator) for generator in generators])
        for j, column in enumerate(numbers.columns):
            if column is None or not column.missing.any():
                continue
            mean, sd = column.location_scale()
            values = mean + sd * drawn[:, column.missing, j]
            parts.setdefault(column.name, []).append((rows[column.missing], values))
            seen = column.values[~column.missing]
            rows_of_frame.append(
                {
                    "group": rater or "",
                    "variable": column.name,
                    "method": "normal, a fixed effect a site" if method == "site-fixed-effects" else "Bayesian ridge, single-level",
                    "missing": values.shape[1],
                    "observed": len(seen),
                    "share": values.shape[1] / len(rows),
                    "predictors": numbers.values.shape[1],
                    "observed_mean": float(seen.mean()),
                    "imputed_mean": float(values.mean()),
                }
            )
    cells = {}
    for name, found in parts.items():
        at = np.concatenate([r for r, _ in found])
        order = np.argsort(at, kind="stable")
        cells[name] = Cells(at[order], np.ascontiguousarray(np.concatenate([v for _, v in found], axis=1)[:, order]))
    settings = {"m": m, "iterations": iterations, "population": design.imputation.population}
    return Imputations(
        m=m,
        base=base,
        cells=cells,
        frame=pd.DataFrame(rows_of_frame, columns=DIAGNOSTICS),
        events=pd.DataFrame([], columns=["kind", "group", "variable", "detail"], dtype="str"),
        traces={},
        provenance=Provenance.now(seed=int(seed), settings=settings),
        population_note=f"{len(base)} people are imputed.",
        m_recommended=0,
    )


def _kinds(base: pd.DataFrame, design: TrialDesign) -> list[tuple[str | None, Ints]]:
    """Each kind of person with rows in the order of site and person."""
    c = design.columns
    site = [cell_text(v) for v in base[c.site].tolist()]
    person = [cell_text(v) for v in base[c.person].tolist()] if c.person in base.columns else [f"{k:012d}" for k in range(len(base))]
    order = sorted(range(len(base)), key=lambda k: (site[k].encode(), person[k].encode()))
    if c.rater is None:
        return [(None, np.array(order, dtype=np.intp))]
    require_columns(base, [c.rater], where=WHERE, why="to tell the kinds of person apart ([columns] rater)")
    kind = [cell_text(v) for v in base[c.rater].tolist()]
    return [(r, np.array([k for k in order if kind[k] == r], dtype=np.intp)) for r in sorted(set(kind)) if design.for_rater(r)]


def _numbers(base: pd.DataFrame, rows: Ints, design: TrialDesign, rater: str | None, method: str) -> _Numbers:
    c = design.columns
    frame = base.iloc[rows].reset_index(drop=True)
    texts = np.array([cell_text(v) for v in frame[c.site].tolist()], dtype=str)
    site = np.unique(texts, return_inverse=True)[1].astype(np.intp)
    arm = np.array([cell_text(v) == design.arms.intervention for v in frame[c.arm].tolist()], dtype=float)
    wanted = variables_.of_design(design, rater, bounds={}, site_level=(), items=False)
    require_columns(frame, [v.name for v in wanted], where=WHERE, why="by the imputation model")
    variables_.in_both_arms(frame, wanted, np.arange(len(frame)), arm, design, rater or "")
    parts: list[Array] = []
    columns: list[Column | None] = []
    refused: list[str] = []
    for variable in wanted:
        whole = frame[variable.name]
        if whole.isna().all() and rater is not None and not base[variable.name].isna().all():
            continue  # not asked of this kind of person
        column = variables_.read(frame, variable, site, whom=f" among {rater}" if rater else "")
        if column.categorical:
            if column.missing.any():
                refused.append(column.name)
            elif len(column.labels) > 1:
                parts.append(column.coded())
                columns += [None] * column.width
            continue
        if np.ptp(column.values[~column.missing]) == 0:
            continue
        parts.append(column.coded())
        columns.append(column)
    if refused:
        raise InputError(
            f"method = {method!r} knows numbers only, and these categories have missing cells: {few(refused)}. As numbers they would come "
            'back as values no category has. Use "single-level", which knows every type, or leave them out of the design.'
        )
    if not parts:
        raise InputError(f"{WHERE}: no numeric column varies, so there is nothing to impute by {method!r}.")
    return _Numbers(rows, site, arm, np.column_stack(parts), tuple(columns))


def _scikit_learn(numbers: _Numbers, iterations: int, rng: np.random.Generator) -> Array:
    """One completed matrix by IterativeImputer, sampling from the posterior."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    # the arm stands last: its place is known whatever the columns
    X = np.column_stack([numbers.values, numbers.arm])
    imputer = IterativeImputer(sample_posterior=True, max_iter=iterations, tol=0.0, random_state=int(rng.integers(2**31 - 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # tol = 0: so many rounds, as asked
        return np.asarray(imputer.fit_transform(X))[:, :-1]


def _fixed_effects(numbers: _Numbers, iterations: int, rng: np.random.Generator) -> Array:
    """One completed matrix by normal chained equations with a parameter a site."""
    z, missing = numbers.values.copy(), np.isnan(numbers.values)
    order: list[int] = sorted(np.flatnonzero(missing.any(axis=0)).tolist(), key=lambda j: (int(missing[:, j].sum()), j))
    for j in order:
        z[missing[:, j], j] = rng.choice(z[~missing[:, j], j], missing[:, j].sum())
    for _ in range(iterations):
        for j in order:
            z[missing[:, j], j] = _one_column(numbers, np.delete(z, j, axis=1), z[:, j], missing[:, j], rng)
    return z


def _one_column(numbers: _Numbers, X: Array, y: Array, missing: Bools, rng: np.random.Generator) -> Array:
    """Missing values of one column from y = a_site + X b + e, b and s^2 with flat priors, sites swept out."""
    seen, site = ~missing, numbers.site
    J = int(site.max()) + 1
    size = np.bincount(site[seen], minlength=J).astype(float)
    answered = size > 0

    def means(v: Array) -> Array:
        total = np.zeros((J, *v.shape[1:]))
        np.add.at(total, site[seen], v[seen])
        return np.asarray(total / np.maximum(size, 1).reshape(-1, *[1] * (v.ndim - 1)))

    mean_x, mean_y = means(X), means(y)
    inside, response = (X - mean_x[site])[seen], (y - mean_y[site])[seen]
    values, vectors = np.linalg.eigh(inside.T @ inside)
    keep = values > 1e-8 * max(values.max(initial=0.0), 1e-300)  # what does not vary within sites has no slope of its own
    values, vectors = values[keep], vectors[:, keep]
    slope = vectors @ ((vectors.T @ (inside.T @ response)) / values)
    df = seen.sum() - answered.sum() - len(values)
    if df < 1:
        raise InputError(
            f"{WHERE}: {int(seen.sum())} observed values at {int(answered.sum())} sites with {len(values)} predictors leave no residual: "
            "a fixed effect a site needs several people at most sites. Impute two-level."
        )
    s2 = float(((response - inside @ slope) ** 2).sum()) / rng.chisquare(df)
    b = slope + vectors @ (np.sqrt(s2 / values) * rng.standard_normal(len(values)))
    effect = mean_y - mean_x @ b + np.sqrt(s2 / np.maximum(size, 1)) * rng.standard_normal(J)
    arm = np.zeros(J)
    arm[site] = numbers.arm
    for j in np.flatnonzero(~answered).tolist():
        others = effect[answered & (arm == arm[j])]
        others = others if len(others) else effect[answered]
        effect[j] = others.mean() + (others.std(ddof=1) if len(others) > 1 else 0.0) * rng.standard_normal()
    return np.asarray(effect[site[missing]] + X[missing] @ b + np.sqrt(s2) * rng.standard_normal(missing.sum()))
