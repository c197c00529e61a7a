"""The rule of minimisation: how out of balance each arm would leave the margins, and the coin that decides.

Pocock and Simon (Biometrics 1975). The arm that leaves the marginal totals of a site's factor levels most alike is preferred
and gets it with a stated probability below one; ties and coins are draws of ``trialkit-draw-1``, labelled by the site.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from trialkit import door
from trialkit._kernels import draws as hashing
from trialkit.allocation.plans import Codes

MEASURES = ("range", "sd", "variance")


@dataclass(frozen=True, slots=True)
class Entry:
    """One site's entry.

    Attributes
    ----------
    site : str
    levels : tuple of str
        Of the factors, in their order.
    code : int
        Arm code.
    arm : str
    imbalance : tuple of float
        Weighted imbalance if the site went to each arm.
    preferred : str
        The arm the coin was biased towards.
    probability : float
        With which `arm` was given, ties included.
    draws : tuple of Draw
    """

    site: str
    levels: tuple[str, ...]
    code: int
    arm: str
    imbalance: tuple[float, ...]
    preferred: str
    probability: float
    draws: tuple[hashing.Draw, ...]


@dataclass(frozen=True)
class Rule:
    """What is declared before the first site enters.

    Attributes
    ----------
    arms : tuple of str
        Labels, the reference first.
    ratio : tuple of int
        Places of the arms.
    measure : str
        ``range``, ``sd`` or ``variance`` over the arms.
    probability : Fraction
        Of the preferred arm; with an unequal ratio, of the one with the fewest places.
    weights : mapping of factor to Fraction
    """

    arms: tuple[str, ...]
    ratio: tuple[int, ...]
    measure: str
    probability: Fraction
    weights: Mapping[str, Fraction]

    @cached_property
    def text(self) -> str:
        """The canonical plan text: everything that decides the arms but seed and entries."""
        lines = [
            "trialkit-plan-minimisation-1",
            "\t".join(["arms", *self.arms]),
            "\t".join(["ratio", *map(str, self.ratio)]),
            f"measure\t{self.measure}",
            f"probability\t{self.probability}",
            *(f"factor\t{name}\t{weight}" for name, weight in self.weights.items()),
        ]
        return "\n".join(lines) + "\n"

    @cached_property
    def digest(self) -> str:
        """P: SHA-256 of the plan text."""
        return door.sha256_bytes(self.text.encode("utf-8"))

    def decide(self, seed: bytes, entered: Sequence[tuple[tuple[str, ...], int]], site: str, levels: tuple[str, ...]) -> Entry:
        """The entry of one site, given the levels and arm codes of those before it."""
        scores = imbalances(entered, levels, ratio=self.ratio, weights=list(self.weights.values()), measure=self.measure)
        best = min(scores)
        tied = [a for a, g in enumerate(scores) if g - best <= 1e-9 * max(1.0, abs(best))]
        places = [a for a in tied for _ in range(self.ratio[a])]
        drawn: list[hashing.Draw] = []
        preferred = tied[0]
        if len(tied) > 1:
            d = hashing.draw(seed, self.digest, site, len(places))
            drawn.append(d)
            preferred = places[d.value]
        coin = coins(preferred, self.ratio, self.probability)
        m = math.lcm(*(p.denominator for p in coin))
        d = hashing.draw(seed, self.digest, f"{site}/coin", m)
        drawn.append(d)
        bounds = np.cumsum([int(p * m) for p in coin]).tolist()
        code = next(a for a, bound in enumerate(bounds) if d.value < bound)
        chance = sum((Fraction(places.count(t), len(places)) * coins(t, self.ratio, self.probability)[code] for t in tied), Fraction(0))
        return Entry(
            site, levels, code, self.arms[code], tuple(float(g) for g in scores), self.arms[preferred], float(chance), tuple(drawn)
        )

    def sample(self, key: str, levels: Sequence[tuple[str, ...]], n: int) -> Codes:
        """`n` draws from the randomisation distribution of sites that enter with these levels in this order, (n, n_sites)."""
        n_arms = len(self.arms)
        out = np.empty((n, len(levels)), dtype=np.int8)
        counts: list[dict[str, np.ndarray[Any, np.dtype[np.float64]]]] = [{} for _ in self.weights]
        ratio = np.array(self.ratio, dtype=np.float64)
        coin = np.array([[float(p) for p in coins(a, self.ratio, self.probability)] for a in range(n_arms)])
        weights = [float(w) for w in self.weights.values()]
        for k, entered in enumerate(levels):
            scores = np.zeros((n, n_arms))
            here = [counts[f].setdefault(level, np.zeros((n, n_arms))) for f, level in enumerate(entered)]
            for arm in range(n_arms):
                for f, w in enumerate(weights):
                    tried = here[f].copy()
                    tried[:, arm] += 1
                    scores[:, arm] += w * _spread(tried / ratio, self.measure)
            uniform = hashing.words(f"{key}\n{k}", (n, 2)) / 2.0**64
            best = scores.min(axis=1, keepdims=True)
            share = np.where(scores - best <= 1e-9 * np.maximum(1.0, np.abs(best)), ratio, 0.0)
            share /= share.sum(axis=1, keepdims=True)
            preferred = (uniform[:, :1] >= np.cumsum(share, axis=1)[:, :-1]).sum(axis=1)
            code = (uniform[:, 1:] >= np.cumsum(coin[preferred], axis=1)[:, :-1]).sum(axis=1)
            out[:, k] = code
            for f in range(len(weights)):
                here[f][np.arange(n), code] += 1
        return out


def coins(preferred: int, ratio: Sequence[int], p: Fraction) -> tuple[Fraction, ...]:
    """Probability of each arm when one is preferred (Han, Enas and McEntegart, Statistics in Medicine 2009).

    `p` is that of the arm with the fewest places when preferred; arm i gets ``1 - (1 - p) sum_{j != i} r_j / sum_{j != least} r_j``,
    and the rest is shared by the ratio. With equal places every preferred arm gets p.
    """
    least, total = min(ratio), sum(ratio)
    high = 1 - (1 - p) * Fraction(total - ratio[preferred], total - least)
    rest = total - ratio[preferred]
    return tuple(high if a == preferred else (1 - high) * Fraction(r, rest) for a, r in enumerate(ratio))


def imbalances(
    entered: Sequence[tuple[tuple[str, ...], int]],
    levels: Sequence[str],
    *,
    ratio: Sequence[int],
    weights: Sequence[Fraction],
    measure: str,
) -> list[float]:
    """Weighted imbalance over the factors if a site with these levels went to each arm (Pocock and Simon 1975)."""
    out = []
    for arm in range(len(ratio)):
        total = 0.0
        for f, w in enumerate(weights):
            counts = np.zeros((1, len(ratio)))
            for seen, code in entered:
                if seen[f] == levels[f]:
                    counts[0, code] += 1
            counts[0, arm] += 1
            total += float(w) * float(_spread(counts / np.array(ratio, dtype=np.float64), measure)[0])
        out.append(total)
    return out


def _spread(counts: np.ndarray[Any, np.dtype[np.float64]], measure: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Range, standard deviation or variance over the arms, a row of counts at a time."""
    if measure == "range":
        return np.asarray(counts.max(axis=1) - counts.min(axis=1))
    variance = np.asarray(counts.var(axis=1, ddof=1))
    return np.sqrt(variance) if measure == "sd" else variance
