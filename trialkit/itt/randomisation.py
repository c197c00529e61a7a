"""The randomisation test: the observed difference among the differences the allocation could have given.

The plan comes in as any object that can list or sample its assignments; nothing here knows how sites were paired or stratified. Under the
sharp null hypothesis the outcomes stay and only the arms move, so the p-value holds for any outcome and any number of sites, as long as
the plan is the one by which the trial was randomised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit._kernels import signflip
from trialkit.door import InputError, check_conf_level, few, unknown_word
from trialkit.itt.cluster_level import SiteValues
from trialkit.results import Result, Table

Array = NDArray[np.float64]
ABSENT = "Randomised sites without data"


class Scheme(Protocol):
    """What a plan must offer: `trialkit.allocation`'s plans do, and so can a list of one's own (see `AssignmentList`)."""

    @property
    def sites(self) -> tuple[str, ...]:
        """The randomised sites: the columns of what follows."""

    @property
    def n_assignments(self) -> int:
        """How many different allocations there are."""

    def assignments(self, limit: int = ...) -> NDArray[Any]:
        """Every allocation, equally likely: codes (n_assignments, n_sites), 1 = intervention."""

    def sample(self, n: int, *, seed: int) -> NDArray[Any]:
        """`n` draws of the allocation: codes (n, n_sites)."""


@dataclass(frozen=True)
class AssignmentList:
    """A scheme given by the list of its equally likely assignments.

    Attributes
    ----------
    sites : tuple of str
    codes : array (n, n_sites)
        0/1, one row an assignment.
    """

    sites: tuple[str, ...]
    codes: NDArray[Any]

    @property
    def n_assignments(self) -> int:
        """Rows of `codes`."""
        return len(self.codes)

    def assignments(self, limit: int = 100_000) -> NDArray[Any]:
        """All of them."""
        return self.codes

    def sample(self, n: int, *, seed: int) -> NDArray[Any]:
        """Rows drawn with replacement."""
        return self.codes[np.random.default_rng(seed).integers(0, len(self.codes), size=n)]


@dataclass(frozen=True)
class RandomisationTest(Result):
    """A randomisation test of the difference between two arms.

    Attributes
    ----------
    estimate : float
        Difference of the arms' (weighted) mean site values.
    p_value, p_greater, p_less : float
        Two-sided (as far from 0), and one-sided.
    conf_low, conf_high, conf_level : float
        All constant effects the two-sided test keeps; infinite when the plan has too few assignments to reject anything.
    assignments : int
        How many were used; `exact` says whether these were all there are.
    exact : bool
    monte_carlo_error : float
        Standard error of `p_value`; 0 when exact.
    clusters : int
    draws : array
        The statistic under each assignment, for a picture.
    notes : tuple of str
    """

    estimate: float
    p_value: float
    p_greater: float
    p_less: float
    conf_low: float
    conf_high: float
    conf_level: float
    assignments: int
    exact: bool
    monte_carlo_error: float
    clusters: int
    draws: Array
    notes: tuple[str, ...] = ()
    title: str = "Randomisation test"

    @property
    def frame(self) -> pd.DataFrame:
        """One row with every number but the draws."""
        names = (
            "estimate",
            "p_value",
            "p_greater",
            "p_less",
            "conf_low",
            "conf_high",
            "assignments",
            "exact",
            "monte_carlo_error",
            "clusters",
        )
        return pd.DataFrame({name: [getattr(self, name)] for name in names})


def randomisation_test(
    values: SiteValues,
    plan: Scheme,
    *,
    weights: Literal["equal", "size"] = "equal",
    draws: int = 10_000,
    seed: int | None = None,
    limit: int = 100_000,
    conf_level: float = 0.95,
) -> RandomisationTest:
    """Test the difference of arms against the plan's own distribution.

    Parameters
    ----------
    values : SiteValues
        From `site_values`; with covariates taken out there, the test is an adjusted one (Gail et al. 1996, Stat. Med. 15:1069).
    plan : Scheme
        Lists or samples the assignments that could have happened; 1 = intervention.
    weights : {"equal", "size"}
    draws : int
        Sampled assignments, when there are more than `limit`.
    seed : int, optional
        Of the sample; needed only then.
    limit : int
        Up to so many assignments all are used, and the test is exact.
    conf_level : float

    Raises
    ------
    InputError
        A site is not in the plan, an arm is empty, the observed assignment is not one the plan could give, or a sample needs a seed.

    Notes
    -----
    The sampled p-value is (1 + count) / (1 + draws) (Phipson & Smyth 2010), never 0. The interval inverts the test of a constant effect.

    Examples
    --------
    >>> from trialkit.itt.cluster_level import site_values
    >>> s = site_values([1.0, 2, 3, 5, 6, 7], list("abcdef"), [0, 0, 0, 1, 1, 1])
    >>> from itertools import combinations
    >>> codes = np.array([[int(k in chosen) for k in range(6)] for chosen in combinations(range(6), 3)])
    >>> randomisation_test(s, AssignmentList(tuple("abcdef"), codes)).p_value
    0.1
    """
    if weights not in ("equal", "size"):
        raise InputError(unknown_word(str(weights), ("equal", "size"), what="weights"))
    check_conf_level(conf_level)
    columns, notes = _columns(values.sites, plan.sites)
    codes, exact = _codes(plan, draws=draws, seed=seed, limit=limit)
    z = _arms(codes, columns)
    if exact and not (z == values.arm).all(axis=1).any():
        raise InputError("the observed arms are not an assignment the plan could have given. Check the plan, or the arms in the data.")
    w = np.ones(len(values.n)) if weights == "equal" else values.n
    usable = (z.sum(axis=1) > 0) & (z.sum(axis=1) < z.shape[1])
    if not 0 < values.arm.sum() < len(values.arm):
        raise InputError("one arm has no site with data, so there is no difference to test.")
    if not usable.all():
        notes = (
            *notes,
            f"{int((~usable).sum())} of {len(z)} assignments leave an arm without data; the test is conditional on the others.",
        )
        z = z[usable]
    a, b = _difference(z, w, values.value), _difference(z, w, values.arm_left)
    a0, b0 = (float(_difference(values.arm[None], w, v)[0]) for v in (values.value, values.arm_left))
    greater, less, two = signflip.monte_carlo_p(a0, a, exact=exact)
    try:
        interval = signflip.inversion_interval((a0, b0), (a, b), conf_level=conf_level, exact=exact)
        low, high = interval.low, interval.high
    except ValueError as error:
        low, high = -math.inf, math.inf
        notes = (*notes, f"No interval by inversion: {error}.")
    return RandomisationTest(
        estimate=a0,
        p_value=two,
        p_greater=greater,
        p_less=less,
        conf_low=low,
        conf_high=high,
        conf_level=conf_level,
        assignments=len(a),
        exact=exact,
        monte_carlo_error=0.0 if exact else math.sqrt(two * (1 - two) / len(a)),
        clusters=len(values.sites),
        draws=a,
        notes=notes,
    )


def max_t(values: Mapping[str, SiteValues], plan: Scheme, *, draws: int = 10_000, seed: int | None = None, limit: int = 100_000) -> Table:
    """P-values of a family of outcomes, adjusted by the randomisation itself (Westfall & Young's step-down max-T).

    Every outcome is re-analysed under the same assignments, so that how the outcomes go together is kept, and the adjusted p-values
    control the chance of any false finding in the family without Holm's price for correlated outcomes.

    Parameters
    ----------
    values : mapping of outcome to SiteValues
        Sites may differ by outcome (a site without answers to one of them).
    plan, draws, seed, limit
        As for `randomisation_test`.

    Returns
    -------
    Table
        outcome, estimate, statistic (t of site values), p_value (by randomisation, unadjusted), p_adjusted; in the order given.

    Raises
    ------
    InputError
        As `randomisation_test`; or no outcome is given.

    Notes
    -----
    Westfall & Young (1993), Resampling-Based Multiple Testing, algorithm 2.8. Sampled p-values are (1 + count) / (1 + draws).

    Examples
    --------
    >>> from itertools import combinations
    >>> from trialkit.itt.cluster_level import site_values
    >>> codes = np.array([[int(k in chosen) for k in range(6)] for chosen in combinations(range(6), 3)])
    >>> arm = [0, 0, 0, 1, 1, 1]
    >>> family = {"a": site_values([1.0, 2, 3, 5, 6, 7], list("abcdef"), arm), "b": site_values([2.0, 1, 4, 3, 5, 2], list("abcdef"), arm)}
    >>> max_t(family, AssignmentList(tuple("abcdef"), codes)).frame["p_adjusted"].round(2).tolist()
    [0.1, 0.6]
    """
    if not values:
        raise InputError("no outcome was given, so there is no family to adjust.")
    codes, exact = _codes(plan, draws=draws, seed=seed, limit=limit)
    notes: tuple[str, ...] = ()
    observed, drawn, estimates = [], [], []
    for name, one in values.items():
        columns, said = _columns(one.sites, plan.sites)
        notes += tuple(f"{name}: {note}" for note in said)
        z = _arms(codes, columns)
        if exact and not (z == one.arm).all(axis=1).any():
            raise InputError(f"{name}: the observed arms are not an assignment the plan could have given. Check the plan, or the arms.")
        observed.append(abs(float(_t(one.arm[None], one.value)[0])))
        estimates.append(float(_difference(one.arm[None], np.ones(len(one.n)), one.value)[0]))
        drawn.append(np.abs(_t(z, one.value)))
    t0, t = np.array(observed), np.array(drawn)  # (k,), (k, R)
    order = np.argsort(-t0, kind="stable")
    add = 0 if exact else 1
    slack = 1e-10 * np.maximum(t0, 1.0)
    R = t.shape[1] + add
    p = ((t >= (t0 - slack)[:, None]).sum(axis=1) + add) / R
    # the largest over the outcomes not yet decided, from the last one back
    running = np.maximum.accumulate(t[order][::-1], axis=0)[::-1]
    step = ((running >= (t0 - slack)[order][:, None]).sum(axis=1) + add) / R
    adjusted = np.empty(len(t0))
    adjusted[order] = np.maximum.accumulate(step)
    frame = pd.DataFrame(
        {
            "outcome": pd.Series(list(values), dtype="str"),
            "estimate": estimates,
            "statistic": np.sign(estimates) * t0,
            "p_value": p,
            "p_adjusted": adjusted,
        }
    )
    used = f"{t.shape[1]:,} assignments, {'all there are' if exact else 'sampled'}."
    return Table(frame, "Westfall-Young max-T by randomisation", (used, *notes))


def _codes(plan: Scheme, *, draws: int, seed: int | None, limit: int) -> tuple[NDArray[Any], bool]:
    """Every assignment, or a sample of them; and which of the two it is."""
    if plan.n_assignments <= limit:
        return np.asarray(plan.assignments(limit)), True
    if seed is None:
        raise InputError(
            f"the plan has {plan.n_assignments:,} assignments, more than limit = {limit:,}, so they are sampled: give seed= (an integer)."
        )
    if draws < 100:
        raise InputError(f"draws = {draws} is too few for a p-value; 10,000 is usual.")
    return np.asarray(plan.sample(draws, seed=seed)), False


def _arms(codes: NDArray[Any], columns: NDArray[np.intp]) -> Array:
    z = codes[:, columns].astype(np.float64)
    if not np.isin(z, (0.0, 1.0)).all():
        raise InputError("the plan has more than two arms; a randomisation test compares two. Keep the sites of two arms.")
    return np.asarray(z)


def _columns(sites: Sequence[str], planned: Sequence[str]) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    place = {site: k for k, site in enumerate(planned)}
    unknown = [site for site in sites if site not in place]
    if unknown:
        raise InputError(
            f"site {few(unknown)} is not in the plan, so its arm was not randomised by it. "
            "Give the plan of this trial, or leave the site out."
        )
    absent = [site for site in planned if site not in set(sites)]
    notes = (f"{ABSENT}, left out of the statistic: {few(absent)}.",) if absent else ()
    return np.array([place[site] for site in sites], dtype=np.intp), notes


def _difference(z: Array, w: Array, value: Array) -> Array:
    """Weighted mean in arm 1 minus that in arm 0 under each assignment, (R,)."""
    wv = w * value
    treated = z @ w
    sums = z @ wv
    return np.asarray(sums / treated - (wv.sum() - sums) / (w.sum() - treated))


def _t(z: Array, value: Array) -> Array:
    """Two-sample t of the site values under each assignment (R,); 0 where an arm is empty, infinite where an arm does not vary."""
    J = len(value)
    centred = value - value.mean()
    n1 = z.sum(axis=1)
    n0 = J - n1
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = z @ centred * J / (n1 * n0)  # the centred values sum to zero
        within = (centred**2).sum() - difference**2 * n1 * n0 / J
        t = difference / np.sqrt(np.maximum(within, 0.0) / (J - 2) * (1 / n1 + 1 / n0))
    return np.asarray(np.nan_to_num(t, nan=0.0, posinf=np.inf, neginf=-np.inf))
