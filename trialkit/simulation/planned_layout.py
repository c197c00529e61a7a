"""Planned analyses of stepped wedges, crossovers and any other layout, from cluster-period means.

Means are drawn with the covariance that the design declares. A random cluster intercept over the means is the right model for every
block-exchangeable structure with cells of one size (cluster and cluster-period effects, cross-sections or cohorts): their covariance is
a constant and a diagonal. Under decay it is the model that is fitted, not the one that is true, and the figures show what that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from trialkit._kernels.reml_many import fit_many
from trialkit.door import InputError
from trialkit.power.designs import layout_cells
from trialkit.power.specification import PowerDesign
from trialkit.simulation.marginal import gee_of_cells
from trialkit.simulation.planned_parallel import MIXED
from trialkit.simulation.rejections import GEE, PERMUTATIONS, Chunk, Counts, Test, both, chi_square, randomised, wanted
from trialkit.simulation.streams import Floats, Stream

ANALYSES = (*MIXED, "permutation", *GEE)
LEVELS = ("cluster-periods", "people")


@dataclass(frozen=True, slots=True)
class Wedge:
    """A layout ready to be simulated.

    Attributes
    ----------
    sequence : (J,) int
    seen : (S, T) bool
    root : (S, T, T)
        Cholesky factors of the covariance of a cluster's means, unseen cells apart.
    X : (S, T, p)
        Fixed effects, the intervention last.
    size : (S, T)
    icc : float
    weights : (S, T)
        Of the generalised-least-squares effect of one cluster of the sequence, with the covariance as planned.
    """

    sequence: NDArray[np.intp]
    seen: NDArray[np.bool_]
    root: Floats
    X: Floats
    size: Floats
    icc: float
    weights: Floats

    @property
    def cells(self) -> NDArray[np.bool_]:
        """(J, T): seen cells cluster by cluster."""
        return self.seen[self.sequence]


def prepare(design: PowerDesign) -> Wedge:
    """The clusters, covariance factors and design matrices of a layout.

    Raises
    ------
    InputError
        Sequences without a whole number of clusters, or an estimand of several coefficients.
    """
    cells = layout_cells(design)
    counts = np.round(cells.count).astype(np.intp)
    if np.any(np.abs(cells.count - counts) > 1e-9):
        raise InputError("every sequence of the layout needs a whole number of clusters: give clusters_per_sequence.")
    if cells.design.shape[2] - cells.n_time != 1:
        raise InputError('planned power of a layout is that of one effect: leave estimand="exposure-average" out.')
    S, T, _ = cells.design.shape
    root = np.zeros((S, T, T))
    inverse = np.zeros((S, T, T))
    for s in range(S):
        at = np.flatnonzero(cells.seen[s])
        V = cells.covariance[s][np.ix_(at, at)]
        root[s][np.ix_(at, at)] = np.linalg.cholesky(V)
        inverse[s][np.ix_(at, at)] = np.linalg.inv(V)
    information = np.einsum("s,stp,stu,suq->pq", counts.astype(float), cells.design, inverse, cells.design)
    effect = np.linalg.pinv(information, hermitian=True)[-1]
    weights = np.einsum("p,stp,stu->su", effect, cells.design, inverse)
    return Wedge(np.repeat(np.arange(S), counts), cells.seen, root, cells.design, cells.size, float(design.icc), weights)


def draw(wedge: Wedge, n: int, seed: int, chunk: int, *, sd: float, people: bool) -> tuple[Floats, Floats]:
    """Cell means (n, J, T) without an effect, 0 where unseen; and sums of squares about them (n,) of people seen once each."""
    J, T = len(wedge.sequence), wedge.seen.shape[1]
    z = Stream(seed, "planned power", "cells", str(chunk)).normal(n, J, T)
    means = np.einsum("jtu,nju->njt", wedge.root[wedge.sequence], z)
    if not people:
        return means, np.zeros(n)
    df = float(((wedge.size[wedge.sequence] - 1.0) * wedge.cells).sum())
    return means, sd**2 * (1.0 - wedge.icc) * chi_square(seed, "within", chunk, n, df) if df > 0 else np.zeros(n)


def analyse(wedge: Wedge, means: Floats, ssw: Floats, test: Test, analyses: Sequence[str], level: str, seed: int, chunk: int) -> Chunk:
    """Rejections by every analysis."""
    out: dict[str, Counts] = {}
    cells, X = wedge.cells, wedge.X[wedge.sequence]
    rows = X[cells]
    y = means[:, cells]
    cluster = np.broadcast_to(np.arange(len(wedge.sequence))[:, None], cells.shape)[cells]
    contrast = np.zeros((1, rows.shape[1]))
    contrast[0, -1] = 1.0
    singular = failed = 0
    mixed = wanted(analyses, MIXED)
    if mixed:
        more = {"weights": wedge.size[wedge.sequence][cells], "beyond": ssw} if level == "people" else {}
        fits = fit_many(rows, np.ascontiguousarray(y.T), [cluster], contrasts=contrast, **more)
        singular, failed = int(fits.boundary[:, 0].sum()), int(np.isnan(fits.kenward_roger.std_error[:, 0]).sum())
        for name in mixed:
            rule = fits.kenward_roger if name == "kenward-roger" else fits.satterthwaite
            df = np.full(len(y), np.inf) if name == "z" else rule.df[:, 0]
            out[name] = both(rule.estimate[:, 0], rule.std_error[:, 0], df, test)
    marginal = wanted(analyses, tuple(GEE))
    if marginal:
        estimate, errors, df_gee = gee_of_cells(X, cells, means)
        for name in marginal:
            out[name] = both(estimate, errors[GEE[name]], np.full(len(y), df_gee), test)
    if "permutation" in analyses:
        out["permutation"] = _permute(wedge, means, test, seed, chunk)
    return Chunk(out, singular, failed)


@lru_cache(maxsize=8)
def _every(sequence: tuple[int, ...]) -> NDArray[np.intp]:
    return np.array(sorted(set(permutations(sequence))), dtype=np.intp)


def _permute(wedge: Wedge, means: Floats, test: Test, seed: int, chunk: int) -> Counts:
    """Randomisation of clusters to sequences, by the generalised-least-squares effect with the covariance as planned."""
    if not wedge.seen.all():
        raise InputError("the randomisation test of a layout with missing cells: clusters cannot change places in it.")
    sequence = wedge.sequence
    counts = np.bincount(sequence)
    ways = factorial(len(sequence))
    for k in counts:
        ways //= factorial(int(k))
    every = ways <= PERMUTATIONS and len(sequence) <= 8
    if every:
        codes = _every(tuple(sequence.tolist()))
    else:
        order = np.argsort(Stream(seed, "planned power", "permutations", str(chunk)).uniform(PERMUTATIONS, len(sequence)), axis=1)
        codes = sequence[order]
    # the effect that cluster j would bring in every sequence
    brought = np.einsum("st,rjt->rjs", wedge.weights, means)
    treated = wedge.X[:, :, -1]
    shift = wedge.weights @ treated.T  # (s, true sequence)
    J = np.arange(len(sequence))
    one_hot = np.zeros((len(codes), len(J), len(counts)))
    one_hot[np.arange(len(codes))[:, None], J[None, :], codes] = 1.0
    flat = one_hot.reshape(len(codes), -1)
    statistics = brought.reshape(len(means), -1) @ flat.T
    moved = flat @ shift[:, sequence].T.ravel() * test.effect
    mine = brought[:, J, sequence].sum(axis=1)
    return randomised(statistics, moved, mine, test, every=every)
