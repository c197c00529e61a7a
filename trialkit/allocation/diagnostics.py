"""What matching bought and what it costs: gaps, the optimum against greedy and random pairs, degrees of freedom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from trialkit._kernels import draws as hashing
from trialkit.allocation.matching import match_pairs
from trialkit.allocation.pairing import Pairing
from trialkit.allocation.problem import Problem, blocks, read_problem
from trialkit.door import InputError, PairingError
from trialkit.results import Result


@dataclass(frozen=True)
class Comparison(Result):
    """A pairing against other ways to pair the same sites.

    Attributes
    ----------
    frame : DataFrame
        One row a criterion, in rank order: ``criterion``, ``total`` (of the pairing), ``mean_gap``, ``max_gap``,
        ``share_exact`` (pairs with no gap), ``nearest_first`` (total when the nearest pair is taken first; missing when
        that ends in a dead end), ``random_mean`` and ``random_least`` (totals of random pairs within the same strata).
    random : (n, n_criteria) float64
        Totals of each random pairing, for a figure.
    notes : tuple of str
    """

    frame: pd.DataFrame
    random: np.ndarray[Any, np.dtype[np.float64]] = field(repr=False)
    notes: tuple[str, ...] = ()
    title: str = "The pairs against other pairs of the same sites"
    formats: Mapping[str, str] = field(
        default_factory=lambda: {
            **dict.fromkeys(("total", "max_gap", "nearest_first", "random_least"), ",.6g"),
            **dict.fromkeys(("mean_gap", "random_mean"), ",.4g"),
            "share_exact": ".2f",
        }
    )


def compare_pairings(pairing: Pairing, *, n: int = 1000, seed: int = 0) -> Comparison:
    """The pairing's totals beside those of nearest-first and of random pairs.

    Parameters
    ----------
    pairing : Pairing
        Pairs only enter (trios and singles are left out of every total).
    n : int
        Random pairings, within the strata of `exact` criteria; calipers and forbidden pairs are not imposed on them.
    seed : int
        Makes the random pairings repeatable (a hash stream).
    """
    problem = read_problem(
        pairing.sites,
        id=pairing.id,
        criteria=pairing.criteria,
        missing=pairing.missing,
        forbidden=pairing.forbidden,
        required=pairing.required,
    )
    at = {s: k for k, s in enumerate(problem.ids)}
    pairs = np.array([[at[a], at[b]] for a, b in pairing.pairs], dtype=np.int64).reshape(-1, 2)
    scale = [float(m.decimal(1)) for m in problem.measures]
    distances = [_distance(problem, k) * scale[k] for k in range(len(problem.measures))]
    random = _random_totals(problem, pairs, distances, n, seed)
    greedy = _nearest_first(pairing)
    rows = []
    for k, criterion in enumerate(pairing.criteria):
        gap = distances[k][pairs[:, 0], pairs[:, 1]]
        rows.append(
            {
                "criterion": criterion.name,
                "total": float(gap.sum()),
                "mean_gap": float(gap.mean()) if len(gap) else 0.0,
                "max_gap": float(gap.max(initial=0.0)),
                "share_exact": float(np.mean(gap == 0)) if len(gap) else 1.0,
                "nearest_first": np.nan if greedy is None else float(greedy.costs[k]),
                "random_mean": float(random[:, k].mean()),
                "random_least": float(random[:, k].min()),
            }
        )
    notes = [
        f"Random: {n:,} pairings within the same strata. Criteria are in rank order, so a later one may lose to a pairing "
        f"that ignores the earlier."
    ]
    if greedy is None:
        notes.append("Taking the nearest pair first leads into a dead end here: no pairs.")
    return Comparison(frame=pd.DataFrame(rows), random=random, notes=tuple(notes))


def _distance(problem: Problem, k: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    measure = problem.measures[k]
    everybody = np.arange(len(problem.ids))
    if measure.ranks == 0:
        return np.zeros((len(everybody), len(everybody)))
    return np.asarray(measure.distance(measure.ranks - 1, everybody)).astype(np.float64)


def _random_totals(
    problem: Problem, pairs: np.ndarray[Any, Any], distances: Sequence[np.ndarray[Any, Any]], n: int, seed: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    out = np.zeros((n, len(distances)))
    for number, block in enumerate(blocks(problem, sorted(int(k) for k in pairs.ravel()))):
        members = np.asarray(block.members)
        even = len(members) - len(members) % 2
        if even == 0:
            continue
        order = members[hashing.permutations(f"trialkit-random-pairs-1\n{number}\n{int(seed)}", n, len(members))[:, :even]]
        for k, d in enumerate(distances):
            out[:, k] += d[order[:, 0::2], order[:, 1::2]].sum(axis=1)
    return out


def _nearest_first(pairing: Pairing) -> Pairing | None:
    if pairing.method == "sequential-nearest":
        return pairing
    try:
        return match_pairs(
            pairing.sites,
            id=pairing.id,
            criteria=pairing.criteria,
            odd=pairing.odd,
            missing=pairing.missing,
            forbidden=pairing.forbidden,
            required=pairing.required,
            method="sequential-nearest",
        )
    except PairingError:
        return None


@dataclass(frozen=True)
class PairingCost(Result):
    """What pairing costs in degrees of freedom, and how alike pairs must be to pay for it.

    Attributes
    ----------
    frame : DataFrame
        One row a number of pairs: ``pairs``, ``df_paired`` (pairs - 1), ``df_unpaired`` (2 pairs - 2), ``t_paired``,
        ``t_unpaired`` (critical values), ``break_even`` (matching correlation from which the paired test has more power).
    """

    frame: pd.DataFrame
    title: str = "Degrees of freedom and break-even matching correlation"
    notes: tuple[str, ...] = ("Below the break-even correlation of cluster means within pairs, pairing loses power (Martin et al. 1993).",)
    formats: Mapping[str, str] = field(
        default_factory=lambda: {
            "pairs": "d",
            "df_paired": "d",
            "df_unpaired": "d",
            "t_paired": ".3f",
            "t_unpaired": ".3f",
            "break_even": ".3f",
        }
    )


def pairing_cost(pairs: int | Sequence[int], *, alpha: float = 0.05, power: float = 0.8) -> PairingCost:
    """Critical values with and without pairing, and the matching correlation at which the two tests have equal power.

    The paired test needs the shift lambda_p on pairs - 1 df, the unpaired lambda_u on 2 (pairs - 1); a correlation rho
    within pairs divides the paired standard error by the square root of 1 - rho, so they are equal at
    ``rho = 1 - (lambda_u / lambda_p)^2``.

    Parameters
    ----------
    pairs : int or sequence of int
        At least 2.
    alpha : float
        Two-sided level.
    power : float
        At which the tests are compared.

    Examples
    --------
    >>> round(float(pairing_cost(42).frame["break_even"].iloc[0]), 3)
    0.024
    """
    from trialkit._kernels import noncentral  # scipy.stats behind it is a slow import that only this needs

    rows = []
    for k in [pairs] if isinstance(pairs, int | np.integer) else pairs:
        if isinstance(k, bool) or k < 2:
            raise InputError(f"{k} pairs leave no degrees of freedom for a test. Give at least 2.")
        paired, unpaired = float(k - 1), float(2 * k - 2)
        ratio = noncentral.shift_t(power, unpaired, alpha) / noncentral.shift_t(power, paired, alpha)
        rows.append(
            {
                "pairs": int(k),
                "df_paired": paired,
                "df_unpaired": unpaired,
                "t_paired": -float(special.stdtrit(paired, alpha / 2)),
                "t_unpaired": -float(special.stdtrit(unpaired, alpha / 2)),
                "break_even": 1 - ratio**2,
            }
        )
    return PairingCost(pd.DataFrame(rows))
