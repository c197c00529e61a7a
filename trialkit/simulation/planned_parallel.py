"""Planned analyses of a parallel trial, from site means and one sum of squares a trial.

A trial with random site intercepts is, for every analysis here, J site means and one sum of squares: drawing those is drawing the
trial, at a cost that does not depend on how many people a site has.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels.reml_many import ManyInference, fit_cluster_summaries
from trialkit.simulation.marginal import gee
from trialkit.simulation.rejections import GEE, PERMUTATIONS, Chunk, Counts, Test, both, chi_square, randomised, wanted
from trialkit.simulation.streams import Floats, Stream

MIXED = ("kenward-roger", "satterthwaite", "z")
ANALYSES = (*MIXED, "cluster means", "permutation", *GEE)


def draw(people: Floats, icc: float, n: int, seed: int, chunk: int) -> tuple[Floats, Floats]:
    """Site means (n, J) without an effect and sums of squares about them (n,), total variance 1."""
    J, N = len(people), float(people.sum())
    means = Stream(seed, "planned power", "means", str(chunk)).normal(n, J) * np.sqrt(icc + (1.0 - icc) / people)
    if N == J:
        return means, np.zeros(n)
    return means, (1.0 - icc) * chi_square(seed, "within", chunk, n, N - J)


def analyse(means: Floats, ssw: Floats, people: Floats, test: Test, analyses: Sequence[str], seed: int, chunk: int) -> Chunk:
    """Rejections by every analysis; sites go to the arms in turn."""
    arm = np.arange(len(people)) % 2
    out: dict[str, Counts] = {}
    singular = failed = 0
    mixed = wanted(analyses, MIXED)
    if mixed:
        design = np.column_stack([np.ones(len(arm)), arm]).astype(np.float64)
        fits = fit_cluster_summaries(means, people, ssw, design, contrasts=np.array([[0.0, 1.0]]))
        singular = int(fits.boundary[:, 0].sum())
        failed = int(np.isnan(fits.kenward_roger.std_error[:, 0]).sum())
        for name in mixed:
            rule: ManyInference = fits.kenward_roger if name == "kenward-roger" else fits.satterthwaite
            df = np.full(len(means), np.inf) if name == "z" else rule.df[:, 0]
            out[name] = both(rule.estimate[:, 0], rule.std_error[:, 0], df, test)
    here, there = means[:, arm == 1], means[:, arm == 0]
    difference = here.mean(axis=1) - there.mean(axis=1)
    if "cluster means" in analyses:
        out["cluster means"] = two_samples(here, there, test)
    if "permutation" in analyses:
        out["permutation"] = _permute(means, arm, difference, test, seed, chunk)
    marginal = wanted(analyses, tuple(GEE))
    if marginal:
        estimate, errors = gee(means, ssw, people, arm)
        for name in marginal:
            out[name] = both(estimate, errors[GEE[name]], np.full(len(means), len(people) - 2.0), test)
    return Chunk(out, singular, failed)


def two_samples(here: Floats, there: Floats, test: Test) -> Counts:
    """The t test of site means, unweighted."""
    a, b = here.shape[1], there.shape[1]
    pooled = (here.var(axis=1, ddof=1) * (a - 1) + there.var(axis=1, ddof=1) * (b - 1)) / (a + b - 2)
    error = np.sqrt(pooled * (1.0 / a + 1.0 / b))
    return both(here.mean(axis=1) - there.mean(axis=1), error, np.full(len(here), a + b - 2.0), test)


def _permute(means: Floats, arm: NDArray[Any], difference: Floats, test: Test, seed: int, chunk: int) -> Counts:
    """Randomisation test of the difference in site means: every allocation where they are few, else 999 and the one drawn."""
    J = len(arm)
    every = comb(J, J // 2) <= PERMUTATIONS
    if every:
        codes = np.zeros((comb(J, J // 2), J))
        codes[np.arange(len(codes))[:, None], list(combinations(range(J), J // 2))] = 1.0
        weights = (2.0 * codes - 1.0) * 2.0 / J
    else:
        order = np.argsort(Stream(seed, "planned power", "permutations", str(chunk)).uniform(PERMUTATIONS, J), axis=1)
        weights = np.where(arm == 1, 2.0 / J, -2.0 / J)[order]
    return randomised(means @ weights.T, (weights @ arm.astype(np.float64)) * test.effect, difference, test, every=every)
