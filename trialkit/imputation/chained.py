"""The verb: people and a design in, m completed data sets out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit._kernels import gibbs, gibbs_joint, pooling
from trialkit._kernels.convergence import convergence
from trialkit.design import TrialDesign
from trialkit.door import InputError, cell_text, check_people, few, frame_digest, nearest_word, printable, require_columns, zero_one
from trialkit.imputation import joint
from trialkit.imputation import model as modelling
from trialkit.imputation import substantive as substantive_
from trialkit.imputation import variables as variables_
from trialkit.imputation.imputations import DIAGNOSTICS, Cells, Imputations
from trialkit.imputation.model import Event, Model, Score
from trialkit.imputation.substantive import Substantive
from trialkit.imputation.variables import WHERE, Column, Variable
from trialkit.results import Provenance

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

# bytes of the design matrices of one block of chains: small enough to stay in a processor's cache
_BLOCK_BYTES = 12_000_000
_R_HAT = 1.1
ENGINES = {"chained": "chained equations, two-level, collapsed Gibbs", "joint": "joint latent-normal model, two-level, Gibbs"}


@dataclass(frozen=True, slots=True)
class _Group:
    """People imputed together: one kind of rater, or one arm of it."""

    label: str
    key: tuple[int, ...]  # place among the groups: with the chain's number it makes the chain's seed
    rows: Ints  # positions in the analysed frame, in canonical order
    site: Ints  # (n,) ascending codes
    arm: Array | None
    variables: tuple[Variable, ...]
    treated: Array  # (n,) 0/1, also when arms are imputed apart
    pair: Ints | None = None  # (J,) of each site, where pairs have an intercept
    subcluster: Ints | None = None  # (n,) ascending codes, where subclusters have an intercept


def impute(
    people: pd.DataFrame,
    design: TrialDesign,
    *,
    seed: int,
    m: int | None = None,
    iterations: int | None = None,
    by_arm: bool | None = None,
    engine: Literal["chained", "joint"] = "chained",
    pair_effects: Literal["none", "random"] | None = None,
    heteroscedastic: bool = False,
    substantive: str | None = None,
    items: bool = False,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    site_level: Sequence[str] = (),
    site_prior: str | float = "uniform",
    rows_per_predictor: float = 3.0,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Imputations:
    r"""Two-level multiple imputation of a trial's people, by chained equations or by a joint latent-normal model.

    Every incomplete column of the design (both waves of each outcome, covariates, auxiliaries) is regressed on arm, its own other wave,
    the site mean of its own baseline, the covariates and all other columns, with a random site intercept, and its missing cells are drawn
    from that regression; the round is repeated `iterations` times in each of m independent chains. Continuous columns take a normal
    model, counts predictive mean matching (5 donors), binary, ordinal and categorical ones probits; a column with one value a site is
    imputed once a site. Each kind of rater is imputed by itself: an outcome never asked of supervisors is not missing for them.

    Parameters
    ----------
    people : DataFrame
        One row a person; columns as in `design`.
    design : TrialDesign
        ``design.imputation`` says whom (`population`), how many (`m`), how long (`iterations`), with what (`auxiliary`) and `by_arm`.
    seed : int
        Chain k's numbers depend on it and on k alone: a larger m continues the smaller one's sets, and neither workers nor row order
        change a bit.
    m, iterations, by_arm : optional
        Override the design's.
    engine : {"chained", "joint"}, default "chained"
        "joint": all incomplete variables in one latent-normal model with one covariance within sites and one between (half-t priors,
        Huang and Wand 2013), complete ones its predictors; for few incomplete variables, up to 10 latent dimensions (a categorical one
        counts its categories less one). Use it to check the chained equations, or where site-level variables or associations between
        sites matter most. An iteration is 10 cycles. Counts are imputed through normal scores; `site_prior`, `items` and a pair intercept
        belong to the chained equations.
    pair_effects : {"none", "random"}, optional
        "random": a random intercept for each pair of sites ([columns] pair) beside that of the site, in every two-level model. By default
        as the analysis has it: random where the design says ``pair_effects`` "random" or "fixed". A site without a pair is a pair of its
        own; with arms imputed apart, where a pair is one site, and with fewer than three whole pairs there is none, which is logged. Nor is
        there beside a declared subcluster ([columns] subcluster: wards, classes within sites), which has a random intercept of its own
        within the site's; with ``engine="joint"`` or `heteroscedastic` sites alone have one, which is logged.
    heteroscedastic : bool, default False
        Let the residual variance of each continuous person-level column differ by site, drawn from a hierarchy (Kasim and Raudenbush
        1998), so that a site of one person, or of none observed, borrows it from the others. Chained equations without a pair intercept.
    substantive : str, optional
        The analysis model of one continuous outcome, with its interactions and powers: ``"mood ~ arm * mood_0 + I(age**2)"`` (the site's
        random intercept is understood, main effects are added). A column that enters a product is then drawn from its own model times
        the density of the outcome under this one (substantive-model-compatible, Bartlett and others 2015), and its products follow from
        it. Such columns are continuous, binary or ordinal where they have missing cells. Other columns stay predictors of the outcome.
    items : bool, default False
        Impute a scale score through the items the design declares: in every row whose score is missing its items are imputed and the
        score is their mean (or sum, whichever the observed scores are), in every iteration and completed set. Where the score is observed
        nothing is touched. False imputes the score itself, which is much faster and about as good unless many people skip single items.
    bounds : mapping of column to (low, high), optional
        Limits of a continuous column's imputed values, kept by drawing from the truncated normal, not by clipping.
    site_level : sequence of str
        Columns that are one value a site. Others are found from the data.
    site_prior : "uniform" or float
        Prior of the site standard deviation: uniform, or half-Cauchy with this scale in units of the residual's. Neither has a unit of
        measurement, so y and 10 y are imputed alike; an inverse-Wishart prior with unit scale would not do that.
    rows_per_predictor : float, default 3
        A model with fewer observed rows a predictor leaves out the predictors least correlated with the variable and with its being
        missing (arm, the other wave and the covariates are kept longest); this is logged.
    jobs : int, default 1
        Processes that share the chains.
    progress : callable, optional
        Called with (chains done, chains in all).

    Returns
    -------
    Imputations
        An iterable of m DataFrames with the analysed rows in the input's order, plus diagnostics, events and provenance.

    Raises
    ------
    InputError
        A column is absent; an arm or site is missing; a person is listed twice; a column has no observed value, or one only; text in a
        number; too few rows for a model.

    Notes
    -----
    Kernels: `trialkit._kernels.gibbs_linear` (sources there). Order of the chain: least missing first.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(1)
    >>> site = np.arange(40) // 4
    >>> people = pd.DataFrame({"person": range(40), "site": site, "arm": np.where(site % 2, "control", "intervention")})
    >>> people["mood_0"] = rng.normal(size=40)
    >>> people["mood"] = people["mood_0"] + rng.normal(size=40)
    >>> people.loc[::5, "mood"] = np.nan
    >>> design = TrialDesign(outcomes=[{"name": "mood"}])
    >>> sets = impute(people, design, m=3, seed=7)
    >>> len(sets), sets[0]["mood"].isna().sum(), sets[0]["mood"][1] == people["mood"][1]
    (3, np.int64(0), np.True_)
    """
    if not isinstance(design, TrialDesign):
        raise InputError(f"impute needs a TrialDesign, not {type(design).__name__}. Read one: TrialDesign.from_toml(path).")
    m = design.imputation.m if m is None else m
    iterations = design.imputation.iterations if iterations is None else iterations
    by_arm = design.imputation.by_arm if by_arm is None else by_arm
    bounds = dict(bounds or {})
    _check_settings(m, iterations, seed, site_prior, rows_per_predictor, jobs)
    base, note = _population(people, design)
    _check_engine(engine, site_prior=site_prior, items=items, pair_effects=pair_effects, heteroscedastic=heteroscedastic)
    declared = _declared(substantive, engine=engine, heteroscedastic=heteroscedastic)
    levels, left_out = _levels(base, design, pair_effects, sites_only=engine == "joint" or heteroscedastic)
    groups, events = _groups(
        base, design, by_arm=by_arm, bounds=bounds, site_level=site_level, items=items, levels=levels, substantive=declared
    )
    events += left_out
    options = _Options(engine, site_prior, rows_per_predictor, heteroscedastic, declared, design.columns.arm)
    cells: dict[str, Cells] = {}
    parts: dict[str, list[Cells]] = {}
    rows_of_frame: list[dict[str, Any]] = []
    log: list[tuple[str, Event]] = [("", e) for e in events]
    traces: dict[tuple[str, str], Array] = {}
    recommended = 0
    total, done = m * len(groups), 0
    for group in groups:
        built, skipped = _model(base, group, options, kind_of_rater=design.columns.rater is not None)
        log += [(group.label, e) for e in (*skipped, *built.events)]
        if built.incomplete:

            def report(chains: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + chains, total)

            draws = _run(built.problem, seed, group.key, m, iterations, jobs, report)
            log += [
                (
                    group.label,
                    Event(
                        "ridge", name, f"{count} of {m * iterations} draws left a coefficient undetermined (nobody seen in a category, say)"
                    ),
                )
                for name, count in draws.repaired.items()
                if count
            ]
            found = _collect(built, draws, group)
            log += [(group.label, e) for e in found.events]
            rows_of_frame += found.rows
            traces |= found.traces
            recommended = max(recommended, _recommend(built, found, group, m))
            for name, part in found.cells.items():
                if len(part.rows):
                    parts.setdefault(name, []).append(replace(part, rows=group.rows[part.rows]))
        for name, (at, known) in built.known.items():
            column = next(c for c in built.columns if c.name == name)
            parts.setdefault(name, []).append(Cells(group.rows[at], np.repeat(known[None], m, axis=0), column.labels))
        done += m
    for name in base.columns:
        if name in parts:
            cells[str(name)] = _join(parts[name])

    diagnostics = pd.DataFrame(rows_of_frame, columns=DIAGNOSTICS)
    events_frame = pd.DataFrame(
        [(e.kind, label, e.variable, e.detail) for label, e in log], columns=["kind", "group", "variable", "detail"], dtype="str"
    )
    settings = {
        "m": m,
        "iterations": iterations,
        "by_arm": by_arm,
        "heteroscedastic": heteroscedastic,
        "substantive": substantive,
        "pair_effects": "none" if levels.pair is None else "random",
        **({} if design.columns.subcluster is None else {"subcluster": any(g.subcluster is not None for g in groups)}),
        "items": items,
        "bounds": {k: list(v) for k, v in bounds.items()},
        "site_level": list(site_level),
        "site_prior": site_prior,
        "rows_per_predictor": rows_per_predictor,
        "population": design.imputation.population,
        "engine": ENGINES[engine],
    }
    return Imputations(
        m=m,
        base=base,
        cells=cells,
        frame=diagnostics,
        events=events_frame,
        traces=traces,
        provenance=Provenance.now(seed=seed, inputs={"people": frame_digest(people), "design": design.digest}, settings=settings),
        population_note=note,
        m_recommended=recommended,
    )


def _check_settings(m: int, iterations: int, seed: int, site_prior: str | float, rows_per_predictor: float, jobs: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed = {seed!r}: an integer of at least 0 is needed, so that the imputations can be made again.")
    for name, value, least in (("m", m, 2), ("iterations", iterations, 1), ("jobs", jobs, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} = {value!r}: a whole number of at least {least} is needed.")
    if isinstance(site_prior, str):
        if site_prior != "uniform":
            raise InputError(f'site_prior = {site_prior!r}: say "uniform", or give the scale of a half-Cauchy, such as 0.5.')
    elif not 0 < site_prior < np.inf:
        raise InputError(f"site_prior = {site_prior!r}: the scale of a half-Cauchy is a positive number.")
    if not rows_per_predictor >= 1.5:
        raise InputError(f"rows_per_predictor = {rows_per_predictor!r}: at least 1.5 is needed for a residual variance.")


def _check_engine(engine: str, *, site_prior: str | float, items: bool, pair_effects: str | None, heteroscedastic: bool) -> None:
    if engine not in ENGINES:
        raise InputError(f'engine = {engine!r}: say "chained" (chained equations) or "joint" (joint latent-normal model).')
    if engine == "joint":
        if items:
            raise InputError('engine = "joint" has no items: a score is imputed itself. Leave items=False, or use engine="chained".')
        if pair_effects == "random":
            raise InputError('engine = "joint" has site intercepts only. Use engine="chained" for pair_effects="random".')
        if site_prior != "uniform":
            raise InputError('engine = "joint" has a half-t prior of its own: site_prior belongs to engine="chained".')
        if heteroscedastic:
            raise InputError('engine = "joint" has one residual covariance for all sites. Use engine="chained" for heteroscedastic=True.')
    if heteroscedastic and pair_effects == "random":
        raise InputError('heteroscedastic=True has site intercepts only: leave it out, or say pair_effects="none".')


def _declared(text: str | None, *, engine: str, heteroscedastic: bool) -> Substantive | None:
    if text is None:
        return None
    if engine == "joint" or heteroscedastic:
        other = 'engine="joint"' if engine == "joint" else "heteroscedastic=True"
        raise InputError(f"substantive and {other} do not go together: the outcome's model is linear and mixed with one residual variance.")
    return substantive_.parse(text)


# --- whom -----------------------------------------------------------------------------------------------------


def _population(people: pd.DataFrame, design: TrialDesign) -> tuple[pd.DataFrame, str]:
    """The analysed rows, and in words whom they are."""
    if not isinstance(people, pd.DataFrame):
        raise InputError(f"{WHERE} must be a pandas DataFrame, not {type(people).__name__}.")
    c = design.columns
    check_people(
        people, person=c.person if c.person in people.columns else None, site=c.site, arm=c.arm, arms=design.arms.labels, where=WHERE
    )
    column = design.imputation.population
    if column == "randomised":
        keep = np.ones(len(people), dtype=bool)
        note = f"Everybody in the table ({len(people)} people) is imputed."
    else:
        keep = zero_one(people, column, where=WHERE, why="to name the population to impute ([imputation] population)")
        note = f"People with {column} = 1 are imputed and analysed ({keep.sum()} of {len(people)})."
    if not keep.any():
        raise InputError(f"{WHERE} has no rows to impute (population: {column!r}).")
    return people.loc[keep].copy(), note


def _groups(
    base: pd.DataFrame,
    design: TrialDesign,
    *,
    by_arm: bool,
    bounds: Mapping[str, tuple[float, float]],
    site_level: Sequence[str],
    items: bool,
    levels: _Levels,
    substantive: Substantive | None,
) -> tuple[list[_Group], list[Event]]:
    c = design.columns
    events: list[Event] = []
    site, arm = (_labels(base, column, role) for column, role in ((c.site, "site"), (c.arm, "arm")))
    if c.person in base.columns:
        person = _labels(base, c.person, "person")
    else:
        person = [f"{k:012d}" for k in range(len(base))]
        events.append(Event("no person column", c.person, "rows are taken in the order of the table: another order gives other draws"))
    if c.rater is not None:
        require_columns(base, [c.rater], where=WHERE, why="to tell the kinds of person apart ([columns] rater)")
        kinds = _labels(base, c.rater, "kind of person")
    else:
        kinds = [""] * len(base)
    treated = np.array([a == design.arms.intervention for a in arm], dtype=float)
    inner = levels.subcluster or [""] * len(base)
    order = sorted(range(len(base)), key=lambda k: (site[k].encode(), inner[k].encode(), person[k].encode()))
    groups: list[_Group] = []
    seen: set[str] = set()
    for g, kind in enumerate(sorted(set(kinds))):
        rater = kind if c.rater is not None else None
        if rater is not None and not design.for_rater(rater):
            events.append(Event("not asked", kind, f"no outcome is asked of {c.rater} = {kind}: these rows are left as they are"))
            continue
        variables = tuple(variables_.of_design(design, rater, bounds=bounds, site_level=site_level, items=items))
        seen |= {v.name for v in variables}
        why = "by the imputation model"
        require_columns(base, [v.name for v in variables], where=WHERE, why=why)
        mine = [k for k in order if kinds[k] == kind]
        both = variables_.in_both_arms(base, variables, np.array(mine, dtype=np.intp), treated, design, kind)
        arms = (None,) if not by_arm else (0.0, 1.0)
        for a in arms:
            rows = np.array([k for k in mine if a is None or treated[k] == a], dtype=np.intp)
            if not len(rows):
                continue
            codes = np.unique(np.array([site[k] for k in rows], dtype=str), return_inverse=True)[1]
            # numpy sorts text by code point, as UTF-8 bytes do
            label = " ".join(filter(None, (kind, "" if a is None else design.arms.labels[int(a)])))
            key = (g,) if a is None else (g, int(a))
            given = treated[rows] if a is None and both else None
            pair = None if levels.pair is None else _pair_codes(levels.pair, rows, codes, label, events)
            third = None if levels.subcluster is None else _subcluster_codes(inner, rows, codes, str(c.subcluster), label, events)
            groups.append(_Group(label, key, rows, codes.astype(np.intp), given, variables, treated[rows], pair, third))
    for what, names in (("bounds", bounds), ("site_level", site_level)):
        for name in names:
            if name not in seen:
                near = nearest_word(name, sorted(seen))
                raise InputError(f"{what}: {name!r} is not a column of the imputation model.{f' Did you mean {near!r}?' if near else ''}")
    if substantive is not None and substantive.outcome not in seen:
        near = nearest_word(substantive.outcome, sorted(seen))
        hint = f" Did you mean {near!r}?" if near else ""
        raise InputError(f"substantive: {substantive.outcome!r} is not a column of the imputation model.{hint}")
    if not groups:
        raise InputError(f"{WHERE}: nobody is of a kind that answers an outcome. Column {c.rater!r} holds: {few(sorted(set(kinds)))}.")
    return groups, events


@dataclass(frozen=True, slots=True)
class _Levels:
    """What has an intercept beside the site: the label of each row, None where it has none; never both."""

    pair: list[str] | None
    subcluster: list[str] | None


def _levels(base: pd.DataFrame, design: TrialDesign, pair_effects: str | None, *, sites_only: bool) -> tuple[_Levels, list[Event]]:
    """The intercepts of the imputation: those of the analysis as far as the engine has them; what is left out is said."""
    events: list[Event] = []
    column = design.columns.subcluster
    third = None
    if column is not None:
        require_columns(base, [column], where=WHERE, why="as the level between person and site ([columns] subcluster)")
        third = _labels(base, column, "subcluster")
        if pair_effects == "random":
            raise InputError(
                f'pair_effects = "random" with the subcluster {column!r}: intercepts of pair, site and subcluster together are not drawn. '
                'Say pair_effects="none", or take the subcluster out of the design.'
            )
    if sites_only:
        if third is not None:
            what = f"these sets have site intercepts only, so that people of one {column} are as alike as those of two"
            events.append(Event("no subcluster intercept", "", f"{what}; chained equations with equal variances draw both"))
        asked = design.analysis.pair_effects != "none" and design.columns.pair in base.columns
        if pair_effects is None and asked:
            what = "the analysis has pair effects, and these sets have site intercepts only; chained equations can draw both"
            events.append(Event("no pair intercept", "", what))
        return _Levels(None, None), events
    pair = _pairs(base, design, pair_effects)
    if third is not None and pair is not None:
        what = f"sites and their {column} have one; the pair is left to the analysis"
        events.append(Event("no pair intercept", "", what))
        pair = None
    return _Levels(pair, third), events


def _subcluster_codes(
    labels: list[str], rows: Ints, site: NDArray[np.integer], column: str, group: str, events: list[Event]
) -> Ints | None:
    """The subcluster of each row (n,), ascending; None where they cannot be told from sites or from people."""
    names = np.unique(np.array([labels[k] for k in rows], dtype=str), return_inverse=True)[1]
    first, codes, size = np.unique(site * (names.max() + 1) + names, return_index=True, return_inverse=True, return_counts=True)[1:]
    several = int((np.bincount(site[first]) > 1).sum())
    shared = int((size > 1).sum())
    if several < 3 or shared < 3:
        what = f"{several} sites hold more than one {column}" if several < 3 else f"{shared} {column} labels hold more than one person"
        events.append(Event("no subcluster intercept", group, f"{what}: too few for an intercept of their own, so sites alone have one"))
        return None
    return codes.astype(np.intp)


def _pairs(base: pd.DataFrame, design: TrialDesign, pair_effects: str | None) -> list[str] | None:
    """The pair of each row, "" where it has none; None: pairs have no intercept."""
    if pair_effects not in (None, "none", "random"):
        raise InputError(f'pair_effects = {pair_effects!r}: say "none" or "random"; a model with fixed pairs is imputed with random ones.')
    column = design.columns.pair
    if pair_effects == "random" and column is None:
        raise InputError('pair_effects = "random": the design names no pair column. Name it under [columns], as pair.')
    chosen = pair_effects or ("none" if design.analysis.pair_effects == "none" else "random")
    if column is None or chosen == "none":
        return None
    require_columns(base, [column], where=WHERE, why="as the pair, for its random intercept (pair_effects)")
    pairs = [cell_text(v).strip() for v in base[column].tolist()]
    of_site: dict[str, str] = {}
    for site, pair in zip(_labels(base, design.columns.site, "site"), pairs, strict=True):
        if of_site.setdefault(site, pair) != pair:
            raise InputError(
                f"{WHERE}: site {printable(site)!r} is in two pairs, {printable(of_site[site])!r} and {printable(pair)!r}. "
                f"Correct column {column!r}."
            )
    return pairs


def _pair_codes(pairs: list[str], rows: Ints, site: NDArray[np.integer], label: str, events: list[Event]) -> Ints | None:
    """The pair of each site (J,), 0..Q-1; a site without one is a pair of its own. None where pairs cannot be told from sites."""
    first = np.unique(site, return_index=True)[1]
    names = [pairs[rows[k]] or f"\0{j}" for j, k in enumerate(first)]
    _, codes, size = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True, return_counts=True)
    whole = int((size > 1).sum())
    if whole < 3:
        what = f"{whole} pairs hold more than one site: too few for an intercept of their own, so sites alone have one"
        events.append(Event("no pair intercept", label, what))
        return None
    return codes.astype(np.intp)


def _labels(base: pd.DataFrame, column: str, role: str) -> list[str]:
    texts = [cell_text(v) for v in base[column].tolist()]
    lost = next((k for k, t in enumerate(texts) if not t.strip()), None)
    if lost is not None:
        raise InputError(
            f"{WHERE}, row labelled {base.index[lost]!r}: the {role} ({column!r}) is missing. It is known by design, so it is not imputed; "
            "fill it in or leave the row out."
        )
    return texts


@dataclass(frozen=True, slots=True)
class _Options:
    """What every group's model has in common."""

    engine: str
    site_prior: str | float
    rows_per_predictor: float
    heteroscedastic: bool
    substantive: Substantive | None
    arm: str


def _model(base: pd.DataFrame, group: _Group, options: _Options, *, kind_of_rater: bool) -> tuple[Model, list[Event]]:
    frame = base.iloc[group.rows].reset_index(drop=True)
    whom = f" among {group.label}" if group.label else ""
    columns: list[Column] = []
    skipped: list[Event] = []
    for variable in group.variables:
        nobody = bool(frame[variable.name].isna().all())
        # a covariate or auxiliary nobody of this kind was asked, though others were, is absent by design
        if nobody and kind_of_rater and variable.role in ("covariate", "auxiliary") and not base[variable.name].isna().all():
            skipped.append(Event("not asked", variable.name, f"was asked of nobody{whom}: left as it is"))
            continue
        columns.append(variables_.read(frame, variable, group.site, whom=whom))
    for c in columns:
        absent = [level for level in c.variable.levels or () if level not in {cell_text(label) for label in c.labels}]
        if absent and c.categorical:
            skipped.append(Event("empty category", c.name, f"nobody{whom} is {few(absent)}: not a value to impute"))
    # items are of use only to a score with missing cells
    idle = {c.name for c in columns if c.variable.items and not c.missing.any()}
    columns = [replace(c, variable=replace(c.variable, items=())) if c.name in idle else c for c in columns if c.variable.scale not in idle]
    present = {c.name for c in columns}
    columns = [
        replace(c, variable=replace(c.variable, partner=c.variable.partner if c.variable.partner in present else None)) for c in columns
    ]
    declared = options.substantive
    if declared is not None and declared.outcome not in {c.name for c in columns}:
        declared = None  # another kind of person answers it
    if declared is not None:
        substantive_.check(declared, columns, options.arm, apart=group.arm is None)
    if all(not c.missing.any() for c in columns):
        return Model(tuple(columns), (), gibbs.Problem(np.empty((0, 0)), group.site, ()), {}, (), ()), skipped
    if options.engine == "joint":
        return joint.build(columns, group.site, group.arm, rows_per_predictor=options.rows_per_predictor), skipped
    built = modelling.build(
        columns,
        group.site,
        group.arm,
        site_prior=options.site_prior,
        rows_per_predictor=options.rows_per_predictor,
        pair=group.pair,
        subcluster=group.subcluster,
        heteroscedastic=options.heteroscedastic,
        substantive=declared,
        arm_name=options.arm,
    )
    return built, skipped


# --- the run --------------------------------------------------------------------------------------------------


def _run(
    problem: gibbs.Problem | gibbs_joint.JointProblem,
    seed: int,
    key: tuple[int, ...],
    m: int,
    iterations: int,
    jobs: int,
    report: Callable[[int], None],
) -> gibbs.Draws:
    """All chains, in blocks; a block's results do not depend on the others."""
    size = max(1, int(_BLOCK_BYTES // max((problem.z if isinstance(problem, gibbs.Problem) else problem.x).nbytes, 1)))
    blocks = max(-(-m // size), min(jobs, m))
    seeds = [np.random.SeedSequence(seed, spawn_key=(*key, k)) for k in range(m)]
    pieces = [seeds[i * m // blocks : (i + 1) * m // blocks] for i in range(blocks)]
    if jobs == 1:
        out = []
        chains = 0
        for piece in pieces:
            out.append(_one_thread(problem, piece, iterations))
            chains += len(piece)
            report(chains)
    else:
        from joblib import Parallel, delayed

        out = list(Parallel(n_jobs=jobs)(delayed(_one_thread)(problem, piece, iterations) for piece in pieces))
        report(m)
    first = out[0]
    return gibbs.Draws(
        values={name: np.concatenate([d.values[name] for d in out]) for name in first.values},
        sums={c: np.concatenate([d.sums[c] for d in out]) for c in first.sums},
        mean=np.concatenate([d.mean for d in out], axis=2),
        sd=np.concatenate([d.sd for d in out], axis=2),
        icc=np.concatenate([d.icc for d in out], axis=2),
        repaired={name: sum(d.repaired[name] for d in out) for name in first.repaired},
        passing={name: np.concatenate([d.passing[name] for d in out]) for name in first.passing},
    )


def _one_thread(problem: gibbs.Problem | gibbs_joint.JointProblem, seeds: Sequence[np.random.SeedSequence], iterations: int) -> gibbs.Draws:
    """BLAS is held to one thread: many small matrices gain nothing from more, and the bits stay the same."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

    with threadpool_limits(1):
        run: Callable[..., gibbs.Draws] = gibbs.run if isinstance(problem, gibbs.Problem) else gibbs_joint.run
        try:
            return run(problem, seeds, iterations)
        except ValueError as error:
            raise InputError(
                f"{WHERE}: the imputation broke off at {error}. Its columns say the same thing twice, or are too many for its rows: take "
                "one of them out of the design, or give a larger rows_per_predictor."
            ) from None


@dataclass(frozen=True, slots=True)
class _Found:
    """What one group's run gave, on the scale of the data."""

    cells: dict[str, Cells]  # by column; rows are positions in the group
    rows: list[dict[str, Any]]  # of the diagnostics
    traces: dict[tuple[str, str], Array]
    events: list[Event]


def _collect(built: Model, draws: gibbs.Draws, group: _Group) -> _Found:
    """Cells, diagnostics and complaints of one group."""
    found = _Found({}, [], {}, [])
    mixed = [convergence(trace) for trace in (draws.mean, draws.sd, draws.icc)]
    for k, (column, target) in enumerate(zip(built.incomplete, built.problem.targets, strict=True)):
        values, at, passing = draws.values[column.name], np.flatnonzero(column.missing), draws.passing.get(column.name)
        if not len(at):  # a complete outcome, visited for the covariates of its model
            continue
        if column.site_level:
            units = np.searchsorted(target.missing, group.site[at])
            values, passing = values[:, units], None if passing is None else passing[:, units]
        scale, shift = 1.0, 0.0
        if target.kind == "normal":
            shift, scale = column.location_scale()
            # the limits once more: the last bit of the change of scale, no more
            values = np.clip(shift + scale * values, *column.variable.bounds)
        found.cells[column.name] = Cells(at, values, column.labels, passing)
        trace = np.stack([shift + scale * draws.mean[:, k], scale * draws.sd[:, k], draws.icc[:, k]])
        found.traces[group.label, column.name] = trace
        method = (modelling if isinstance(built.problem, gibbs.Problem) else joint).METHOD[target.kind]
        method += ", a variance a site" if target.heteroscedastic else ", given the outcome" if target.given_outcome else ""
        row = _described(group, column, method.replace("two-level", "site-level") if column.site_level else method, values)
        row["predictors"] = len(target.predictors)
        row["icc"] = np.nan if column.site_level else float(trace[2][len(trace[2]) // 2 :].mean())
        for name, judged in zip(("mean", "sd", "icc"), mixed, strict=True):
            row[f"r_hat_{name}"] = float(judged.r_hat[k])
            row[f"ess_{name}"] = float(judged.ess[k])
        found.rows.append(row)
        worst = np.nanmax([row["r_hat_mean"], row["r_hat_sd"], 0.0])
        if worst > _R_HAT:
            detail = f"R-hat {worst:.2f} after {draws.mean.shape[0]} iterations: give more iterations"
            found.events.append(Event("not converged", column.name, detail))
    for score in built.scores:
        _add_up(score, found, group)
    return found


def _add_up(score: Score, found: _Found, group: _Group) -> None:
    """A score's missing cells from its items; items of people whose score is observed are left as they are."""
    m = len(next(iter(found.cells.values())).values)
    total = np.zeros((m, len(score.rows)))
    for item in score.items:
        ratings = np.repeat(modelling.ratings(item)[None], m, axis=0)
        if item.name in found.cells:
            drawn = found.cells[item.name]
            worth = np.array(drawn.labels, dtype=float)
            ratings[:, drawn.rows] = worth[drawn.values.astype(np.intp)] if drawn.labels else drawn.values
            mine = np.isin(drawn.rows, score.rows)
            found.cells[item.name] = Cells(drawn.rows[mine], drawn.values[:, mine], drawn.labels)
        total += ratings[:, score.rows]
    values = total / len(score.items) if score.factor != 1 else total
    found.cells[score.column.name] = Cells(score.rows, values)
    how = "mean" if score.factor != 1 else "sum"
    found.rows.append(_described(group, score.column, f"{how} of its {len(score.items)} items", values))


def _described(group: _Group, column: Column, method: str, values: Array) -> dict[str, Any]:
    seen = column.values[~column.missing]
    return {
        **dict.fromkeys(DIAGNOSTICS, np.nan),
        "group": group.label,
        "variable": column.name,
        "method": method,
        "missing": values.shape[1],
        "observed": len(seen),
        "share": values.shape[1] / len(column.values),
        "predictors": 0,
        "observed_mean": float(seen.mean()),
        "imputed_mean": float(values.mean()),
    }


def _join(parts: list[Cells]) -> Cells:
    """One column's cells over groups; groups may have seen different categories."""
    labels: list[Any] = []
    for part in parts:
        labels += [label for label in part.labels if label not in labels]
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    values = []
    for part in parts:
        v = part.values
        if part.labels:
            v = np.array([labels.index(label) for label in part.labels], dtype=float)[v.astype(np.intp)]
        values.append(v)
    drawn = np.ascontiguousarray(np.concatenate(values, axis=1)[:, order])
    passing = None
    known = [part.passing for part in parts if part.passing is not None]
    # what a cell passes is counted in its own group's categories
    if len(known) == len(parts) and all(part.labels == parts[0].labels for part in parts):
        passing = np.ascontiguousarray(np.concatenate(known, axis=1)[:, order])
    return Cells(rows[order], drawn, tuple(labels), passing)


def _recommend(built: Model, found: _Found, group: _Group, m: int) -> int:
    """Von Hippel's m for the arm difference in each outcome's mean (site-robust variance): a guide before any model is fitted."""
    most = 0
    if np.ptp(group.treated) == 0:
        return 0
    for column in built.columns:
        if column.variable.role != "outcome" or column.categorical or column.site_level or column.name not in found.cells:
            continue
        cells = found.cells[column.name]
        y = np.repeat(column.values[None], m, axis=0)
        y[:, cells.rows] = cells.values
        estimate, variance = np.zeros(m), np.zeros(m)
        sites = np.zeros(2)
        for a in (0.0, 1.0):
            rows = group.treated == a
            part = y[:, rows]
            centre = part.mean(axis=1)
            start = np.flatnonzero(np.diff(group.site[rows], prepend=-1))
            totals = np.add.reduceat(part - centre[:, None], start, axis=1)
            sites[int(a)] = len(start)
            estimate += (2 * a - 1) * centre
            variance += (totals**2).sum(axis=1) / rows.sum() ** 2
        if sites.min() < 2 or (variance <= 0).any():
            continue
        pooled = pooling.pool_scalar(estimate, variance, sites.sum() - 2)
        most = max(most, int(pooling.imputations_needed(pooled.fmi, m).m_recommended))
    return most
