"""Who attends how many sessions, given how they would do without any: shares of doses as functions of the underlying score.

Attendance and outcomes hang together through the attendance's drivers, which are underlying baseline scores; with normal scores and a
normal propensity the number of sessions of a person whose follow-up score is y has a distribution that quadrature gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from trialkit.simulation.making import Blueprint, OutcomePlan, drivers, pull_covariance, pull_variance
from trialkit.simulation.streams import Floats

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of person: the normal distribution of the follow-up score without intervention, and what pulls them to sessions.

    Attributes
    ----------
    mean, variance : float
        Of the follow-up score.
    pull, pull_variance, covariance : float
        Mean and variance of what the drivers add to the propensity, and its covariance with the score.
    """

    mean: float = 0.0
    variance: float = 1.0
    pull: float = 0.0
    pull_variance: float = 0.0
    covariance: float = 0.0


def kind(plan: Blueprint, outcome: OutcomePlan, role: int, *, wellbeing: float = 0.0, spread: float = 0.0) -> Kind:
    """People of a role; those of one level of a trait have `wellbeing` in the better direction, and the trait's variance is `spread`."""
    toward = sum(slope * k.sign for k, slope in drivers(plan) if role in k.roles)
    return Kind(
        mean=outcome.sign * wellbeing,
        variance=1.0 - spread,
        pull=toward * wellbeing,
        pull_variance=pull_variance(plan, role) - toward**2 * spread,
        covariance=pull_covariance(plan, outcome, role) - toward * outcome.sign * spread,
    )


def shares(plan: Blueprint, outcome: OutcomePlan, role: int, who: Kind, score: Floats) -> tuple[Floats, Floats]:
    """Doses (k,), and the share of people with each at every follow-up score, (k, n)."""
    if outcome.planted.effect_of == "assignment":
        return np.ones(1), np.ones((1, len(score)))
    rates, propensity = _propensity(plan, role)
    if not len(rates):
        return np.zeros(1), np.ones((1, len(score)))
    slope = who.covariance / who.variance
    mean = who.pull + slope * (score - who.mean)
    left = max(who.pull_variance - slope * who.covariance, 0.0)
    return _doses(outcome, _counts(plan, role, rates, mean, left + propensity))


def mean_dose(plan: Blueprint, outcome: OutcomePlan, role: int) -> float:
    """Mean dose of a role in the intervention arm; for an effect of assignment, the share who comply."""
    rates, propensity = _propensity(plan, role)
    if not len(rates):
        return 0.0
    if outcome.planted.effect_of == "session":
        return float(np.sum(rates))
    counts = _counts(plan, role, rates, np.zeros(1), pull_variance(plan, role) + propensity)
    return float(counts[outcome.complier :].sum())


def _propensity(plan: Blueprint, role: int) -> tuple[Floats, float]:
    """Shares who attend each session, and the variance of the propensity beside the drivers'."""
    attendance = plan.scenario.attendance
    if attendance is None:
        return np.zeros(0), 0.0
    spare = 1.0 - pull_variance(plan, role)
    rates = np.array(attendance.rate.get(plan.scenario.people[role].role, ()))
    return rates, spare * (attendance.site_correlation + attendance.person_correlation)


def _counts(plan: Blueprint, role: int, rates: Floats, mean: Floats, variance: float) -> Floats:
    """Shares attending 0, 1, ... sessions, (S + 1, n), where the propensity is normal with the given means and variance."""
    attendance = plan.scenario.attendance
    assert attendance is not None
    noise = (1.0 - pull_variance(plan, role)) * (1.0 - attendance.site_correlation - attendance.person_correlation)
    toward = mean[:, None] + np.sqrt(variance) * _NODES  # (n, nodes)
    out = np.zeros((len(rates) + 1, len(mean)))
    number = np.zeros((len(rates) + 1, *toward.shape))
    number[0] = 1.0
    for s, z in enumerate(ndtri(rates)):
        comes = ndtr((z + toward) / np.sqrt(noise))
        number[1 : s + 2] = number[1 : s + 2] * (1.0 - comes) + number[: s + 1] * comes
        number[0] = number[0] * (1.0 - comes)
    out[:] = number @ _WEIGHTS
    return out


def _doses(outcome: OutcomePlan, counts: Floats) -> tuple[Floats, Floats]:
    """Doses and their shares, from the shares of session counts."""
    each = outcome.dose(np.arange(len(counts), dtype=np.float64))
    found = np.unique(each)
    return found, np.stack([counts[each == d].sum(axis=0) for d in found])
