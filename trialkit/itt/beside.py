"""The analyses beside the model: site means, pairs, randomisation and compliers, for one outcome over all its tables.

Differences (Cohen's d, means, risks, rates) are compared on site means, covariates taken out by least squares; ratios on each site's
observed over expected, the expectation from the outcome's own regression on the covariates without the arm (Hayes & Moulton, Cluster
Randomised Trials, ch. 10-11): the logarithm of the ratio of the arms' mean ratio residuals, with the spread of the residuals about the
arms' means. Pairs and the randomisation test need logarithms site by site; where a site has none they compare differences, and their row
says so. Each row says what it measures. Imputed tables are pooled by Rubin's rules; the randomisation test takes its statistic as the
mean over the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.design import TrialDesign
from trialkit.door import InputError, cell_text
from trialkit.itt import gee
from trialkit.itt.cluster_level import SiteComparison, SiteValues, Weights, paired, site_values, two_stage
from trialkit.itt.compliance import Received, by_people, by_sites
from trialkit.itt.outcome_models import NUMBERS, measure_words, pool
from trialkit.itt.people import People
from trialkit.itt.prepared import Prepared
from trialkit.itt.randomisation import Scheme, max_t, randomisation_test

Array = NDArray[np.float64]

UNADJUSTED, ADJUSTED = "site means, unadjusted", "site means, adjusted"
UNADJUSTED_BY_PEOPLE, BY_PEOPLE = "site means, unadjusted, by people", "site means, adjusted, by people"
PAIRS_UNADJUSTED, PAIRS = "pair differences, unadjusted", "pair differences, adjusted"
RANDOMISATION = "randomisation test, adjusted"
COMPLIERS, COMPLIERS_BY_SITE = "complier average, 2SLS", "complier average, 2SLS of site means"
PER_PROTOCOL = "per-protocol"
# what "all" means; the analysis of those who followed the protocol is made only when it is named
ALL = (UNADJUSTED, UNADJUSTED_BY_PEOPLE, ADJUSTED, BY_PEOPLE, PAIRS_UNADJUSTED, PAIRS, RANDOMISATION, COMPLIERS, COMPLIERS_BY_SITE)
NAMED = (*ALL, PER_PROTOCOL)
_RATIOS = ("risk-ratio", "rate-ratio", "mean-ratio", "odds-ratio")
_FAMILY = {"binary": "binomial", "count": "poisson", "skewed": "gamma"}


@dataclass(frozen=True, slots=True)
class Beside:
    """One outcome by the other analyses: `rows` as dicts, why a row has no numbers, a complier effect's first-stage F, and what to say."""

    rows: tuple[dict[str, Any], ...]
    problems: Mapping[str, str] = field(default_factory=dict)
    first_stage_f: float = math.nan
    said: tuple[str, ...] = ()


def beside(
    one: Prepared,
    people: People,
    pairs: Sequence[str] | None,
    plan: Scheme | None,
    received: Received | None,
    which: Sequence[str],
    *,
    denominator: str,
    draws: int,
    seed: int | None,
    conf_level: float,
) -> Beside:
    """The rows of one outcome, in the order of `ALL`; what the trial has no pairs, plan or receipt for is skipped."""
    view = _View(one, people, denominator)
    rows, problems, strength = [], {}, math.nan
    said: tuple[str, ...] = ()
    without = {*((PAIRS, PAIRS_UNADJUSTED) if pairs is None else ()), *((RANDOMISATION,) if plan is None else ())}
    without |= {COMPLIERS, COMPLIERS_BY_SITE} if received is None else set()
    for name in ALL:
        if name not in which or name in without:
            continue
        empty: dict[str, Any] = dict.fromkeys(NUMBERS, math.nan)
        row = {**empty, "measure": view.measure, "analysis": name, "n": one.n, "clusters": sum(one.sites)}
        try:
            if one.reason:
                raise InputError(one.reason)
            if name == RANDOMISATION:
                assert plan is not None
                found, said = _randomised(view, plan, draws, seed, conf_level)
            elif name in (PAIRS, PAIRS_UNADJUSTED):
                assert pairs is not None
                found = _pairs(view, pairs, adjust=name == PAIRS, conf_level=conf_level)
            elif name in (COMPLIERS, COMPLIERS_BY_SITE):
                assert received is not None
                row["measure"] = f"{view.difference_words} {received.effect_of}"
                found, strength = _compliers(view, received, by_site=name == COMPLIERS_BY_SITE, conf_level=conf_level)
            else:
                weights: Weights = "size" if name in (BY_PEOPLE, UNADJUSTED_BY_PEOPLE) else "equal"
                found = _two_stage(view, weights, adjust=name in (ADJUSTED, BY_PEOPLE), conf_level=conf_level)
            row |= found
        except InputError as error:
            problems[name] = str(error).rstrip(".")
        rows.append(row)
    return Beside(tuple(rows), problems, strength, said)


class _View:
    """Site values of one outcome, each computed once: of differences, and of ratios."""

    def __init__(self, one: Prepared, people: People, denominator: str) -> None:
        self.one, self.sites = one, people.sites
        self.labels = np.asarray(people.sites, dtype=object)[one.site]
        self.measure = measure_words(one.outcome, denominator)
        self.ratio = one.outcome.chosen_measure in _RATIOS and not one.outcome.linear
        self.difference_words = _difference_words(one, denominator)
        self._kept: dict[tuple[str, bool], list[SiteValues]] = {}

    def differences(self, *, adjust: bool) -> list[SiteValues]:
        return self._of("difference", adjust, self._difference)

    def ratios(self, *, adjust: bool) -> list[SiteValues]:
        return self._of("ratio", adjust, self._ratio)

    def logs(self, *, adjust: bool) -> list[SiteValues] | None:
        """Logarithms of the ratio residuals; None where a site has no event."""
        if not self.ratio or any((v.value <= 0).any() for v in self.ratios(adjust=adjust)):
            return None
        return [replace(v, value=np.log(v.value)) for v in self.ratios(adjust=adjust)]

    def _of(self, kind: str, adjust: bool, make: Callable[[int, bool], SiteValues]) -> list[SiteValues]:
        if (kind, adjust) not in self._kept:
            self._kept[kind, adjust] = [make(k, adjust) for k in range(len(self.one.responses))]
        return self._kept[kind, adjust]

    def covariates(self, k: int, adjust: bool) -> Array | None:
        """What stage 1 takes out of both sides (n, c)."""
        # columns 0 and 1 are the constant and the arm; stage 1 takes the others out
        x = self.one.matrices[k]
        return x[:, 2:] if adjust and x.shape[1] > 2 else None

    def person_values(self, k: int) -> Array:
        """What is compared, person by person (n,), of an outcome without exposure."""
        if self.one.outcome.type == "ordinal" and not self.one.outcome.linear:
            return _ridits(self.one.responses[k])
        return np.asarray(self.one.responses[k] / self.one.sd[k])

    def _difference(self, k: int, adjust: bool) -> SiteValues:
        one = self.one
        if one.offsets is None:
            return site_values(self.person_values(k), self.labels, one.arm, covariates=self.covariates(k, adjust))
        y = one.responses[k]
        # a rate: each person's events over the mean exposure, sites by their exposure
        time = np.exp(one.offsets[k])
        left = y - time * float(y.sum() / time.sum()) if not adjust else y - self._expected(k, adjust)
        base = site_values(left, self.labels, one.arm)
        mean_time = site_values(time, self.labels, one.arm).value
        return replace(base, value=base.value / mean_time, n=base.n * mean_time)

    def _expected(self, k: int, adjust: bool) -> Array:
        one = self.one
        columns = self.covariates(k, adjust)
        x = np.ones((one.n, 1)) if columns is None else np.column_stack([np.ones(one.n), columns])
        family = gee.FAMILIES[_FAMILY[one.outcome.type]]
        offset = None if one.offsets is None else one.offsets[k]
        codes = np.unique(one.site, return_inverse=True)[1].astype(np.intp)
        solved = gee.solve(x, one.responses[k], codes, family, exchangeable=False, offset=offset)
        return np.asarray(family.mean(x @ solved.beta + (0.0 if offset is None else offset)))

    def _ratio(self, k: int, adjust: bool) -> SiteValues:
        expected = site_values(self._expected(k, adjust), self.labels, self.one.arm)
        raw = site_values(self.one.responses[k], self.labels, self.one.arm, covariates=self.covariates(k, adjust))
        observed = site_values(self.one.responses[k], self.labels, self.one.arm)
        return replace(observed, value=observed.value / expected.value, n=observed.n * expected.value, lost_df=raw.lost_df)


def _difference_words(one: Prepared, denominator: str) -> str:
    o = one.outcome
    if o.chosen_measure == "standardised-difference" or o.linear:
        return measure_words(o, denominator)
    return {"binary": "risk difference", "count": "rate difference", "ordinal": "difference in mean ridit"}.get(o.type, "mean difference")


def _ridits(y: Array) -> Array:
    """Each category's share below it plus half its own share."""
    _, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    return np.asarray(((np.cumsum(counts) - counts / 2) / len(y))[place])


def _row(results: Sequence[SiteComparison], conf_level: float, measure: str, *, ratio: bool) -> dict[str, Any]:
    estimate, std_error, df = (np.array([getattr(r, k) for r in results]) for k in ("estimate", "std_error", "df"))
    return {**pool(estimate, std_error, df, conf_level, ratio=ratio), "measure": measure, "clusters": results[0].clusters}


def _two_stage(view: _View, weights: Weights, *, adjust: bool, conf_level: float) -> dict[str, Any]:
    if not view.ratio:
        each = [two_stage(v, weights=weights, conf_level=conf_level) for v in view.differences(adjust=adjust)]
        return _row(each, conf_level, view.difference_words, ratio=False)
    odds = view.one.outcome.chosen_measure == "odds-ratio"
    each = [ratio_of_means(v, weights=weights, conf_level=conf_level) for v in view.ratios(adjust=adjust)]
    # an odds ratio is not a ratio of site means; the row says what it is
    return _row(each, conf_level, "risk ratio" if odds else view.measure, ratio=True)


def ratio_of_means(values: SiteValues, *, weights: Weights = "equal", conf_level: float = 0.95) -> SiteComparison:
    """Log ratio of the arms' mean site values, each relative to its arm's mean judging the spread.

    Parameters
    ----------
    values : SiteValues
        Rates, risks or ratio residuals, not negative; ``n`` is what a site weighs with ``weights="size"`` (its expected events).
    weights : {"equal", "size"}
    conf_level : float

    Returns
    -------
    SiteComparison
        On the log scale: t with (sites - 2 - site-level covariates) df and a pooled relative variance.

    Raises
    ------
    InputError
        An arm has no event, or as `two_stage`.

    Notes
    -----
    ``log(r1 / r0)``, ``V = s^2 (1 / W0 + 1 / W1)``, ``s^2 = sum w (v / r_arm - 1)^2 / df`` (Hayes & Moulton 10.3, pooled over arms).

    Examples
    --------
    >>> s = site_values([1.0, 2, 3, 4, 6, 8], list("abcdef"), [0, 0, 0, 1, 1, 1])
    >>> round(math.exp(ratio_of_means(s).estimate), 6)
    3.0
    """
    w = np.ones(len(values.n)) if weights == "equal" else values.n
    treated = values.arm > 0.5
    if not (0 < treated.sum() < len(treated)):
        raise InputError("one arm has no site with data, so there is no ratio to take")
    means = [float(np.average(values.value[part], weights=w[part])) for part in (~treated, treated)]
    if min(means) <= 0:
        raise InputError("an arm has no event in any site, so there is no ratio to take")
    # relative to its own arm, plus a logarithm apart: the two-sample comparison does the rest
    relative = values.value / np.where(treated, means[1], means[0]) + np.where(treated, math.log(means[1] / means[0]), 0.0)
    return two_stage(replace(values, value=relative), weights=weights, conf_level=conf_level)


def _pairs(view: _View, pairs: Sequence[str], *, adjust: bool, conf_level: float) -> dict[str, Any]:
    logs = view.logs(adjust=adjust) if view.ratio else None
    values = view.differences(adjust=adjust) if logs is None else logs
    of_site = dict(zip(view.sites, pairs, strict=True))
    each = [paired(v, [of_site[s] for s in v.sites], exact=False, conf_level=conf_level) for v in values]
    return _row(each, conf_level, _log_words(view) if logs is not None else view.difference_words, ratio=logs is not None)


def _log_words(view: _View) -> str:
    odds = view.one.outcome.chosen_measure == "odds-ratio"
    return f"{'risk ratio' if odds else view.measure} (geometric mean of sites)"


def _randomised(view: _View, plan: Scheme, draws: int, seed: int | None, conf_level: float) -> tuple[dict[str, Any], tuple[str, ...]]:
    logs = view.logs(adjust=True) if view.ratio else None
    values = _mean(view.differences(adjust=True) if logs is None else logs)
    test = randomisation_test(values, plan, draws=draws, seed=seed, conf_level=conf_level)
    shown = [math.exp(v) if logs is not None else v for v in (test.estimate, test.conf_low, test.conf_high)]
    row = {
        "estimate": shown[0],
        "p_value": test.p_value,
        "conf_low": shown[1],
        "conf_high": shown[2],
        "clusters": test.clusters,
        "measure": _log_words(view) if logs is not None else view.difference_words,
    }
    used = (
        f"all {test.assignments:,} assignments of the plan (exact)"
        if test.exact
        else f"{test.assignments:,} assignments sampled from the plan's {plan.n_assignments:,}"
        if plan.n_assignments < 10**9
        else f"{test.assignments:,} assignments sampled from the plan's {plan.n_assignments:.2g}"
    )
    return row, (f"{used}; interval by inversion.", *test.notes)


def _compliers(view: _View, received: Received, *, by_site: bool, conf_level: float) -> tuple[dict[str, Any], float]:
    """The row, and the least first-stage F over the tables."""
    one = view.one
    if one.offsets is not None:
        raise InputError("two-stage least squares compares means, and this outcome is a rate over an exposure")
    doses = [v[one.rows] for v in received.values]
    unknown = max(int(np.isnan(d).sum()) for d in doses)
    if unknown:
        raise InputError(f"{unknown} of the {one.n} people analysed have no value of {received.name!r}; write 0 for nothing received")
    found = []
    for k, dose in enumerate(doses):
        if by_site:
            taken = site_values(dose, view.labels, one.arm, covariates=view.covariates(k, True))
            at_sites = by_sites(view.differences(adjust=True)[k], taken, received.name)
            found.append((at_sites.estimate, at_sites.std_error, at_sites.df, at_sites.first_stage_f))
        else:
            if min(one.sites) < 2:
                raise InputError("at least two sites an arm are needed")
            fit = by_people(one.matrices[k], 1, view.person_values(k), dose, one.site, received.name)
            found.append((fit.beta[1], math.sqrt(fit.sandwich.cov[1, 1]), fit.sandwich.df[1], fit.first_stage_f))
    estimate, std_error, df, f = np.array(found).T
    if not (std_error > 0).all():
        raise InputError("the sites do not vary, so there is nothing to judge an effect by")
    return pool(estimate, std_error, df, conf_level, ratio=False), float(f.min())


def _mean(each: Sequence[SiteValues]) -> SiteValues:
    return replace(each[0], value=np.mean([v.value for v in each], axis=0), arm_left=np.mean([v.arm_left for v in each], axis=0))


def randomised_family(
    prepared: Sequence[Prepared], families: Sequence[str], people: People, plan: Scheme, *, denominator: str, draws: int, seed: int | None
) -> Array:
    """Westfall-Young p-values (k,) inside each family, by the plan; an outcome without site values counts as never rejected."""
    out = np.full(len(prepared), np.nan)
    for family in dict.fromkeys(families):
        values = {}
        for k, one in enumerate(prepared):
            if families[k] != family or one.reason or min(one.sites) < 2:
                continue
            values[str(k)] = _mean(_View(one, people, denominator).differences(adjust=True))
        if values:
            found = max_t(values, plan, draws=draws, seed=seed).frame
            for name, p in zip(found["outcome"].tolist(), found["p_adjusted"].tolist(), strict=True):
                out[int(name)] = p
    return out


def pair_labels(table: pd.DataFrame, design: TrialDesign, people: People) -> list[str] | None:
    """Each site's pair, in the order of ``people.sites``; None when the table has no pair column."""
    column = design.columns.pair
    if column is None or column not in table.columns:
        return None
    labels = [cell_text(v) for v in table[column].iloc[people.rows].tolist()]
    found: dict[int, str] = {}
    for site, label in zip(people.site.tolist(), labels, strict=True):
        if found.setdefault(site, label) != label:
            raise InputError(f"site {people.sites[site]!r} is in two pairs, {found[site]!r} and {label!r}. Correct column {column!r}.")
    # a site without a pair is alone, and so left out of the pairs' analysis
    return [found[s] or f"(alone) {people.sites[s]}" for s in range(len(people.sites))]
