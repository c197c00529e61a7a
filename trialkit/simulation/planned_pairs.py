"""Planned analyses of matched pairs, from site means and one sum of squares a trial.

With sites of one size the mixed model with random pair and site intercepts has three strata - pairs, sites within pairs once the arm is
taken out, people - and REML is their mean squares, those out of order pooled (Thompson 1962, Ann Math Stat 33:273): no search is
needed. The effect is judged in the middle stratum.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from trialkit.simulation.planned_parallel import MIXED, two_samples
from trialkit.simulation.rejections import GEE, PERMUTATIONS, Chunk, Counts, Test, both, chi_square, randomised, wanted
from trialkit.simulation.streams import Floats, Stream

ANALYSES = (*MIXED, "paired t", "permutation", "cluster means", *GEE)
PAIR_EFFECTS = ("random", "fixed", "none")


def draw(pairs: int, m: float, icc: float, shared: float, n: int, seed: int, chunk: int) -> tuple[Floats, Floats]:
    """Site means (n, pairs, 2), control first, without an effect; and sums of squares within sites (n,).

    `shared` is the covariance of the two true means of a pair; it may be negative.
    """
    z = Stream(seed, "planned power", "pairs", str(chunk)).normal(n, pairs, 2)
    v = icc + (1.0 - icc) / m
    total, half = np.sqrt((v + shared) / 2.0) * z[:, :, 0], np.sqrt((v - shared) / 2.0) * z[:, :, 1]
    means = np.stack([total - half, total + half], axis=2)
    if m == 1:
        return means, np.zeros(n)
    return means, (1.0 - icc) * chi_square(seed, "within", chunk, n, 2.0 * pairs * (m - 1.0))


def analyse(means: Floats, ssw: Floats, m: float, test: Test, analyses: Sequence[str], pair_effects: str, seed: int, chunk: int) -> Chunk:
    """Rejections by every analysis."""
    out: dict[str, Counts] = {}
    K = means.shape[1]
    d = means[:, :, 1] - means[:, :, 0]
    difference, spread = d.mean(axis=1), d.var(axis=1, ddof=1)
    singular = 0
    mixed = wanted(analyses, MIXED)
    if mixed:
        variance, df, own, zero = mixed_model(means, ssw, m, pair_effects)
        singular = int(zero.sum())
        for name in mixed:
            use = {"kenward-roger": np.full(len(d), own), "satterthwaite": df, "z": np.full(len(d), np.inf)}[name]
            out[name] = both(difference, np.sqrt(variance), use, test)
    if "paired t" in analyses:
        out["paired t"] = both(difference, np.sqrt(spread / K), np.full(len(d), K - 1.0), test)
    if "cluster means" in analyses:
        out["cluster means"] = two_samples(means[:, :, 1], means[:, :, 0], test)
    if "permutation" in analyses:
        out["permutation"] = _flip(d, test, seed, chunk)
    for name in wanted(analyses, tuple(GEE)):
        # pairs are the independent clusters; each has the same design, so its leverage is 1/K on either mean
        inflate = {"LZ": 1.0, "KC": 1.0 / (1.0 - 1.0 / K), "MD": 1.0 / (1.0 - 1.0 / K) ** 2}[GEE[name]]
        out[name] = both(difference, np.sqrt(spread * (K - 1.0) / K**2 * inflate), np.full(len(d), K - 2.0), test)
    return Chunk(out, singular)


def mixed_model(means: Floats, ssw: Floats, m: float, pair_effects: str) -> tuple[Floats, Floats, float, Floats]:
    """REML of the balanced model.

    Returns
    -------
    variance (R,) of the effect; Satterthwaite's df (R,); Kenward-Roger's df; whether a variance is zero (R,)
    """
    K = means.shape[1]
    d = means[:, :, 1] - means[:, :, 0]
    pair = 2.0 * m * means.mean(axis=2).var(axis=1, ddof=1)  # mean squares
    site = m / 2.0 * d.var(axis=1, ddof=1)
    person_df = 2.0 * K * (m - 1.0)
    person = ssw / person_df if person_df > 0 else np.zeros(len(d))
    a, b = float(K - 1), float(K - 1)
    if pair_effects == "none":
        site, b = (pair * a + site * b) / (a + b), a + b
    if person_df == 0:  # one person a site: the residual is the site's
        level, df, zero = site, np.full(len(d), b), np.zeros(len(d), dtype=bool)
    else:
        low = site < person
        level = np.where(low, (site * b + person * person_df) / (b + person_df), site)
        df = np.where(low, b + person_df, b)
        zero = low
    if pair_effects == "random":
        under = pair < level
        if person_df > 0:
            # pairs and sites pooled, and with people too where that is still out of order
            two = (pair * a + site * b) / (a + b)
            three = (pair * a + site * b + person * person_df) / (a + b + person_df)
            pooled = np.where(two < person, three, two)
            level = np.where(under, pooled, level)
            df = np.where(under, np.where(two < person, a + b + person_df, a + b), df)
        else:
            level, df = np.where(under, (pair * a + site * b) / (a + b), level), np.where(under, a + b, df)
        zero = zero | under
    return 2.0 * level / (m * K), df, b, zero


def _flip(d: Floats, test: Test, seed: int, chunk: int) -> Counts:
    """The sign-flip test: every swap of arms within pairs where they are few, else 999 random ones and the one drawn."""
    K = d.shape[1]
    every = 2**K <= PERMUTATIONS + 1
    if every:
        signs = np.array(list(product((1.0, -1.0), repeat=K)))
    else:
        signs = np.where(Stream(seed, "planned power", "permutations", str(chunk)).uniform(PERMUTATIONS, K) < 0.5, 1.0, -1.0)
    return randomised(d @ signs.T / K, signs.mean(axis=1) * test.effect, d.mean(axis=1), test, every=every)
