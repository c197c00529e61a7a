"""The verbs: power, sample_size, detectable_effect, and solve for any other argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from scipy import optimize, special

from trialkit._kernels import noncentral
from trialkit.door import InputError, unknown_word
from trialkit.power.designs import Precision, distance, precision
from trialkit.power.evaluate import power_at, power_from, power_of, shift_for
from trialkit.power.outcomes import control_proportion
from trialkit.power.results import PowerResult
from trialkit.power.specification import NAMES, PowerDesign, build

# where solve() looks for an argument that is neither a count nor the effect
_SEARCH: dict[str, tuple[float, float]] = {
    "icc": (0.0, 0.9999),
    "cluster_size_cv": (0.0, 10.0),
    "alpha": (1e-9, 0.9999),
    "allocation_ratio": (1.0, 1e3),
    "cac": (0.0, 1.0),
    "iac": (0.0, 0.9999),
    "matching_correlation": (-0.9999, 0.9999),
    "r2_cluster": (0.0, 0.9999),
    "r2_person": (0.0, 0.9999),
    "attrition": (0.0, 0.9999),
    "cluster_attrition": (0.0, 0.9999),
    "k": (0.0, 10.0),
    "sd": (1e-9, 1e9),
    "person_time": (1e-9, 1e12),
    "controls": (2.0, 1e9),
    "icc_subcluster": (0.0, 0.9999),
    "icc_stratum": (0.0, 0.9999),
    "turnover": (0.0, 1.0),
    "intervention_sd": (0.0, 1e3),
    "overdispersion": (1e-6, 1e6),
    "modifier_sd": (1e-9, 1e9),
    "margin": (1e-9, 1e9),
    "event_probability": (1e-6, 1.0),
    "modifier_icc": (0.0, 1.0),
}
# a value to start from, where without one the design could not be told
_STAND_IN = {
    "icc": 0.01,
    "controls": 100.0,
    "cac": 0.5,
    "person_time": 1.0,
    "k": 0.1,
    "margin": 1.0,
    "event_probability": 0.5,
    "modifier_icc": 0.1,
}
# another name for the effect, and what an effect on the analysis scale is under it
_EFFECT_NAMES = ("p_intervention", "odds_ratio", "rate_intervention", "hazard_ratio")
_MOST = 1e9
_LOGARITHMIC = ("alpha", "sd", "person_time", "controls", "overdispersion", "modifier_sd", "allocation_ratio", "intervention_sd", "margin")


class Infeasible(InputError):
    """No value of what is solved for reaches the power asked for.

    Attributes
    ----------
    max_power : float
        The most that can be attained.
    least_clusters : int or None
        The fewest clusters with which it could be, whatever their size.
    """

    def __init__(self, message: str, *, max_power: float, least_clusters: int | None = None) -> None:
        super().__init__(message)
        self.max_power = max_power
        self.least_clusters = least_clusters


def power(design: PowerDesign | None = None, /, **arguments: Any) -> PowerResult:
    """Power of a cluster-randomised trial.

    Parameters
    ----------
    design : PowerDesign, optional
        A specification; the arguments given by name change it.
    **arguments
        Any argument of `PowerDesign`: ``clusters`` (both arms together), ``cluster_size``, ``icc``, ``effect``, ``sd=1``, ``alpha=0.05``,
        ``sides=2``, and those of other designs and outcomes.

    Returns
    -------
    PowerResult
        ``.power``, ``.df``, ``.frame``, ``.explain()``, ``.protocol_text()``, ``.to_json()``, ``.warnings``.

    Raises
    ------
    InputError
        An argument is unknown, missing or outside its range, or the design leaves no degrees of freedom.

    Notes
    -----
    Parallel design, exact: P{F'(1, J-2; lambda) > F_{1-alpha}}, lambda = p(1-p) J effect^2 / [sd^2 {icc + (1-icc)/m}] (Raudenbush 1997,
    Psychol Methods 2:173); ``.explain()`` prints the formula of any other.

    Examples
    --------
    >>> round(power(clusters=68, cluster_size=2, icc=0.05, effect=0.5).power, 7)
    0.8005608
    >>> round(power(pairs=34, cluster_size=2, icc=0.05, effect=0.5, matching_correlation=0.2).power, 4)
    0.8702
    """
    arguments, icc = _estimated_icc(arguments)
    spec = build(arguments, design)
    found = precision(spec)
    return PowerResult(spec, power_from(found, spec), found, upper=_upper(spec, icc))


def sample_size(design: PowerDesign | None = None, /, *, power: float = 0.8, find: str | None = None, **arguments: Any) -> PowerResult:
    """The smallest trial with the wanted power.

    Solves for the number that is missing: ``clusters`` (or ``pairs``, or the clusters of a layout), else ``cluster_size``.

    Parameters
    ----------
    design : PowerDesign, optional
    power : float
        The wanted power, above ``alpha``.
    find : {"clusters", "pairs", "cluster_size"}, optional
        What to solve for, when it does not follow from what is missing.
    **arguments
        As for `power`.

    Returns
    -------
    PowerResult
        ``.clusters`` (both arms together, and so that the arms come out whole), ``.pairs``, ``.cluster_size``; ``.exact`` before rounding;
        ``.power`` after it, never below the target.

    Raises
    ------
    Infeasible
        No number reaches the power; says the most attainable, and the fewest clusters that could do it.
    InputError

    Examples
    --------
    >>> found = sample_size(effect=0.5, cluster_size=2, icc=0.05, power=0.8)
    >>> found.clusters, round(found.exact, 3)
    (68, 67.906)
    >>> sample_size(clusters=40, effect=0.5, icc=0.05, power=0.8).cluster_size
    4
    """
    arguments, icc = _estimated_icc(arguments)
    spec = build(arguments, design)
    target = _target(power, spec)
    if find is None:
        # clusters_per_sequence may give only the proportions between the sequences
        proportions = isinstance(spec.clusters_per_sequence, tuple) and "clusters" not in arguments and spec.cluster_size is not None
        find = "clusters" if spec.clusters is None or proportions else "cluster_size"
        if find == "cluster_size" and spec.clusters is not None and spec.cluster_size is not None:
            raise InputError(
                "clusters and cluster_size are both given, so nothing is left to solve for: leave one out, or name it with find=."
            )
    if find in ("clusters", "pairs"):
        result = _find_clusters(spec, target)
    elif find in ("cluster_size", "person_time", "subcluster_size"):
        result = _find_size(spec, target)
    else:
        raise InputError(f'find="{find}": a sample size is clusters, pairs or cluster_size; everything else goes through solve().')
    return _with_upper(result, icc)


def detectable_effect(
    design: PowerDesign | None = None, /, *, power: float = 0.8, direction: str = "increase", **arguments: Any
) -> PowerResult:
    """The smallest effect that a trial detects with the wanted power.

    Parameters
    ----------
    design : PowerDesign, optional
    power : float
        The wanted power, above ``alpha``.
    direction : {"increase", "decrease"}
        Matters where the variance depends on the effect: proportions, rates.
    **arguments
        As for `power`, without the effect.

    Returns
    -------
    PowerResult
        ``.effect`` on the analysis scale (``.p_intervention`` for proportions).

    Raises
    ------
    Infeasible
        No effect within the outcome's range is large enough.
    InputError

    Examples
    --------
    >>> round(detectable_effect(clusters=68, cluster_size=2, icc=0.05, power=0.8).effect, 6)
    0.499642
    """
    if direction not in ("increase", "decrease"):
        raise InputError(unknown_word(str(direction), ("increase", "decrease"), what="direction"))
    arguments, icc = _estimated_icc(arguments)
    spec = _without_effect(build(arguments, design))
    return _with_upper(_find_effect(spec, _target(power, spec), 1.0 if direction == "increase" else -1.0), icc)


def solve(design: PowerDesign | None = None, /, *, find: str, power: float = 0.8, **arguments: Any) -> PowerResult:
    """Solve for any argument: the value at which the trial has the wanted power.

    Parameters
    ----------
    design : PowerDesign, optional
    find : str
        "power", "clusters", "pairs", "cluster_size", "effect", "icc", "cluster_size_cv", "alpha", "cac", "iac", "matching_correlation",
        "allocation_ratio", "attrition", "r2_cluster", "margin" and others; "p_intervention", "odds_ratio", "rate_intervention" and
        "hazard_ratio" are the effect by another name (with ``direction="decrease"`` below the control arm's).
    power : float
        The wanted power.
    **arguments
        As for `power`.

    Returns
    -------
    PowerResult
        ``.value``; the design with it filled in.

    Raises
    ------
    Infeasible, InputError

    Examples
    --------
    >>> found = solve(find="icc", clusters=68, cluster_size=2, effect=0.5, power=0.8)
    >>> round(found.value, 4)
    0.0515
    """
    if find == "power":
        from trialkit.power import verbs

        return verbs.power(design, **arguments)
    if find in _EFFECT_NAMES:
        return _named_effect(detectable_effect(design, power=power, **arguments), find)
    if find == "subcluster_size":
        return sample_size(design, power=power, find=find, **arguments)
    if find in ("clusters", "pairs", "cluster_size"):
        spec = build(arguments, design)
        cleared = spec.replace(**{find: None}) if find != "pairs" else spec.replace(pairs=None)
        return sample_size(cleared, power=power, find=find)
    if find == "effect":
        return detectable_effect(design, power=power, **arguments)
    if find not in _SEARCH:
        raise InputError(
            unknown_word(
                find,
                ("power", "clusters", "pairs", "cluster_size", "subcluster_size", "effect", *_EFFECT_NAMES, *_SEARCH),
                what="argument to solve for",
            )
        )
    stand_in = _STAND_IN.get(find)
    if stand_in is not None and find not in arguments and (design is None or getattr(design, find) is None):
        arguments = {**arguments, find: stand_in}
    spec = build(arguments, design)
    target = power if find == "alpha" else _target(power, spec)
    low, high = _SEARCH[find]
    log = find in _LOGARITHMIC and low > 0
    grid = np.geomspace(low, high, 61) if log else np.linspace(low, high, 61)

    def at(value: float) -> float:
        try:
            return power_at(spec.replace(**{find: float(value)})) - target
        except InputError:
            return math.nan

    values = np.array([at(v) for v in grid])
    ok = np.isfinite(values)
    if not ok.any():
        power_at(spec.replace(**{find: float(grid[len(grid) // 2])}))  # says what is wrong
        raise InputError(f"{find} cannot be solved for in this design.")
    g, y = grid[ok], values[ok]
    change = np.flatnonzero(np.sign(y[:-1]) * np.sign(y[1:]) <= 0)
    if not len(change):
        best = float(y.max() + target)
        if y.min() > 0:
            raise InputError(
                f"every {find} from {g[0]:g} to {g[-1]:g} gives a power above {target:g} (at least {y.min() + target:.4f}): "
                "there is nothing to solve for."
            )
        raise Infeasible(
            f"no {find} from {g[0]:g} to {g[-1]:g} gives a power of {target:g}; the most attainable is {best:.4f}.", max_power=best
        )
    i = int(change[-1] if find == "matching_correlation" else change[0])
    root = float(g[i]) if y[i] == 0 else float(optimize.brentq(at, g[i], g[i + 1], xtol=1e-12, rtol=1e-13))
    solved = spec.replace(**{find: root})
    found = precision(solved)
    return PowerResult(solved, power_from(found, solved), found, solved_for=find, exact=root, target=target)


# --- the solvers ------------------------------------------------------------------------------------------------


def _target(power: Any, design: PowerDesign) -> float:
    if isinstance(power, bool) or not isinstance(power, int | float) or not 0 < power < 1:
        raise InputError(f"power = {power!r}: the wanted power is a number between 0 and 1, such as 0.8.")
    alpha = design.alpha / design.comparisons
    if power <= alpha:
        raise InputError(f"power = {power:g} is not above alpha = {alpha:g}: a test that ignores the data has that much.")
    return float(power)


def _step(design: PowerDesign) -> int:
    """Clusters come in multiples of this, so that arms, pairs, sequences or strata come out whole."""
    if design.design == "longitudinal":
        per = design.clusters_per_sequence
        return int(sum(per)) if isinstance(per, tuple) else len(design.layout)
    if design.design == "partially-nested":
        return 1
    ratio = Fraction(design.allocation_ratio).limit_denominator(20)
    if design.design == "several-arms":
        whole = abs(float(ratio) - design.allocation_ratio) < 1e-9
        return ratio.denominator + ratio.numerator * (int(design.arms) - 1) if whole else 1
    arms = ratio.numerator + ratio.denominator if abs(float(ratio) - design.allocation_ratio) < 1e-9 else 1
    return arms * int(design.strata) if design.design == "stratified" else arms


def _find_clusters(design: PowerDesign, target: float) -> PowerResult:
    per = design.clusters_per_sequence
    if design.design == "longitudinal" and isinstance(per, tuple):
        free = design  # the sequences keep the proportions they were given
    else:
        free = design.replace(clusters=None, pairs=None) if design.clusters is not None else design

    def exactly(clusters: float) -> float:
        return power_at(free, clusters=clusters)

    reference = precision(free, clusters=1000.0)
    if reference.noncentrality is None:
        power_from(reference, free)
    if reference.effect is not None and distance(design, reference.effect) <= 0 and design.hypothesis != "superiority":
        raise Infeasible(
            f"an effect of {reference.effect:g} does not lie on the good side of the margin of {design.margin:g}: no number of clusters "
            f"shows {design.hypothesis}.",
            max_power=power_from(reference, free),
        )
    if reference.noncentrality == 0:
        raise Infeasible("effect = 0: no number of clusters detects nothing.", max_power=design.alpha)
    if math.isinf(reference.noncentrality or 0.0):
        raise InputError("the effect is estimated without error in this design: check icc, cac and iac.")
    at = cache(_scaled(free, reference) or exactly)
    # the normal formula is a good start, and the answer is never far above it
    step = _step(free)
    shift = float(special.ndtri(1 - free.alpha / free.comparisons / free.sides) + special.ndtri(target))
    start = max(4.0, 1000.0 * max(shift, 0.1) ** 2 / float(reference.noncentrality or 1.0))
    exact = _by_secant(at, target, start)
    if exact is None:
        exact = _by_bisection(at, target, start)
    whole = step * math.ceil(exact / step - 1e-9)
    while at_or_zero(at, float(whole)) < target:
        whole += step
    while whole > step and at_or_zero(at, float(whole - step)) >= target:
        whole -= step
    if design.design == "longitudinal" and isinstance(per, tuple):
        times = whole // step
        solved = design.replace(clusters_per_sequence=tuple(v * times for v in per))
    else:
        solved = free.replace(clusters=int(whole))
    found = precision(solved)
    pairs = design.design == "matched-pairs"
    return PowerResult(
        solved,
        power_from(found, solved),
        found,
        solved_for="pairs" if pairs else "clusters",
        exact=exact / 2 if pairs else exact,
        target=target,
    )


def _by_secant(at: Callable[[float], float], target: float, start: float) -> float | None:
    """Where the power is the target: a normal quantile of power against the root of J is all but a straight line. None: not found so."""
    goal = float(special.ndtri(target))

    def miss(root: float) -> float:
        power = at_or_zero(at, root * root)
        return float(special.ndtri(power)) - goal if 0.0 < power < 1.0 else math.nan

    before = math.sqrt(start)
    off = miss(before)
    here = before * (1.0 - off / (goal + float(special.ndtri(1 - 1e-2)) + 1.0)) if math.isfinite(off) else math.nan
    for _ in range(12):
        if not 1e-3 < here < math.sqrt(_MOST):
            return None
        now = miss(here)
        if not math.isfinite(now):
            return None
        if abs(now) < 1e-13 or abs(here - before) < 1e-11 * here:
            return here * here
        if now == off:
            return None
        here, before, off = here - now * (here - before) / (now - off), here, now
    return None


def _by_bisection(at: Callable[[float], float], target: float, start: float) -> float:
    """The same by brackets, which also find the fewest clusters with which there is a test at all."""
    low, high = start, start + 4
    while high > _MOST or at_or_zero(at, high) < target:
        low, high = high, 1.2 * high + 2
        if high > _MOST:
            best = at(_MOST)
            raise Infeasible(f"a billion clusters do not reach a power of {target:g}; they have {best:.4f}.", max_power=best)
    while low > 1e-6 and at_or_zero(at, low) >= target:
        low, high = low / 2, low
    if at_or_zero(at, low) >= target:
        return low
    return float(optimize.brentq(lambda j: at_or_zero(at, j) - target, low, high, xtol=1e-9, rtol=1e-12))


# degrees of freedom that one more cluster brings, by the first word of the rule
_DF_A_CLUSTER = {"clusters": 1.0, "pairs": 0.5, "strata": 0.0, "infinite": 0.0, "given": 0.0}


def _scaled(design: PowerDesign, reference: Precision) -> Callable[[float], float] | None:
    """Power at any number of clusters from one or two evaluations, where the variance goes as 1/J and df as a straight line; else None."""
    if design.distribution == "z-plus-one" or design.design == "partially-nested" or "Welch" in reference.df_rule:
        return None
    kept = reference.clusters / 1000.0
    slope = _DF_A_CLUSTER.get(reference.df_rule.split(" - ")[0], math.nan) * kept
    if not math.isfinite(slope):
        twice = precision(design, clusters=2000.0)
        slope = (twice.df - reference.df) / 1000.0
        if abs(twice.variance * 2 / reference.variance - 1) > 1e-12:
            return None
    if reference.noncentrality is None:
        return None
    unit = reference.noncentrality / 1000.0
    simple = reference.versus is None and design.hypothesis == "superiority"

    def at(clusters: float) -> float:
        df = reference.df + slope * (clusters - 1000.0) if slope else reference.df
        if df <= 0:
            if design.distribution[0] != "z":
                raise InputError("no degrees of freedom")
            df = math.inf
        if simple:
            return power_of(unit * clusters, df, design, reference.numerator_df)
        return power_from(reference.scaled(clusters / 1000.0, df), design)

    return at


def at_or_zero(function: Callable[[float], float], value: float) -> float:
    """Power, or 0 where there are too few clusters for a test."""
    try:
        return function(value)
    except InputError:
        return 0.0


def _find_size(design: PowerDesign, target: float) -> PowerResult:
    name = "person_time" if design.outcome == "rate" else "cluster_size"
    free = design.replace(cluster_size_cv=design.cluster_size_cv)
    if design.clusters is None and design.design != "partially-nested":
        raise InputError("clusters is missing: to solve for cluster_size their number must be given.")

    def at(size: float) -> float:
        return power_at(free, size=size)

    most = at(math.inf)
    if most < target:
        least, needed = None, ""
        try:
            least = least_clusters(design, target)
            needed = f" At least {least} clusters are needed, whatever their size."
        except InputError:
            pass
        raise Infeasible(
            f"{_total(design):g} clusters cannot reach a power of {target:g} with an ICC of {_icc_words(design)}: even clusters of "
            f"unlimited size give {most:.4f}.{needed}",
            max_power=most,
            least_clusters=least,
        )
    low = 1e-6 if name == "person_time" else 1 / (1 - design.attrition)
    high = max(4.0, 2 * low)
    while at(high) < target:
        low, high = high, high * 2
        if high > _MOST:
            raise Infeasible(f"a power of {target:g} needs clusters of more than a billion people.", max_power=most)
    exact = low if at(low) >= target else float(optimize.brentq(lambda m: at(m) - target, low, high, xtol=1e-9, rtol=1e-12))
    if name == "person_time":
        value: float = exact
        while at(value) < target:
            value = math.nextafter(value, math.inf) * (1 + 1e-12)
    else:
        unit = int(design.subclusters or 1) if design.design == "three-level" else 1
        value = unit * math.ceil(max(exact, low) / unit - 1e-9)
        while at(float(value)) < target:
            value += unit
    solved = design.replace(**{name: value})
    found = precision(solved)
    return PowerResult(solved, power_from(found, solved), found, solved_for=name, exact=exact, target=target)


def _total(design: PowerDesign) -> float:
    c = design.clusters
    return float(sum(c)) if isinstance(c, tuple) else float(c)


def _icc_words(design: PowerDesign) -> str:
    return str(design.icc) if not isinstance(design.icc, tuple) else f"{design.icc[0]:g} and {design.icc[1]:g}"


def least_clusters(design: PowerDesign | None = None, target: float | None = None, /, *, power: float = 0.8, **arguments: Any) -> int:
    """The fewest clusters with which a power can be reached at all, were the clusters of unlimited size.

    Examples
    --------
    >>> least_clusters(effect=0.5, icc=0.1, power=0.8)
    16
    """
    spec = build(arguments, design)
    goal = _target(power if target is None else target, spec)
    if isinstance(spec.clusters, tuple):
        spec = spec.replace(clusters=None, allocation_ratio=spec.clusters[1] / spec.clusters[0], cluster_size=None)
    elif isinstance(spec.cluster_size, tuple):
        spec = spec.replace(clusters=None, cluster_size=None)
    step = _step(spec)

    def at(clusters: int) -> float:
        return at_or_zero(lambda j: power_at(spec, clusters=j, size=math.inf), float(clusters))

    high = step
    while at(high) < goal:
        high *= 2
        if high > 1e9:
            raise InputError("no number of clusters reaches this power.")
    low = high // 2 // step * step
    while high - low > step:
        middle = (low + high) // 2 // step * step
        if middle <= low:
            middle = low + step
        if at(middle) < goal:
            low = middle
        else:
            high = middle
    return int(high)


def attainable_power(design: PowerDesign | None = None, /, **arguments: Any) -> float:
    """The power that clusters of unlimited size would have: what more people a cluster can never pass.

    Examples
    --------
    >>> round(attainable_power(clusters=8, icc=0.1, effect=0.5), 6)
    0.467409
    """
    return power_at(build(arguments, design), size=math.inf)


def _without_effect(design: PowerDesign) -> PowerDesign:
    if design.means is not None and design.contrast is None:
        raise InputError("means fix the effect of an omnibus test; to solve for one, name a contrast instead.")
    return design.replace(effect=None, **({"means": None} if design.means is not None else {}))


def _find_effect(design: PowerDesign, target: float, sign: float) -> PowerResult:
    if design.hypothesis == "equivalence":
        raise InputError('equivalence: the power falls as the effect grows; ask for the margin instead, solve(find="margin").')
    if design.versus_control is not None:
        return _find_common_effect(design, target, sign)
    found = precision(design)
    start = 0.0  # where the power is alpha
    if design.hypothesis != "superiority":
        sign = 1.0 if design.better == "higher" else -1.0
        start = float(design.margin or 0.0) * (-1.0 if design.hypothesis == "non-inferiority" else 1.0)
    constant = design.outcome in ("continuous", "survival")
    far = shift_for(target, found.df, design) * math.sqrt(found.variance)
    effect = sign * (start + far) if constant else sign * _moving_effect(design, target, sign, far, start)
    solved = design.replace(effect=effect)
    found = precision(solved)
    return PowerResult(solved, power_from(found, solved), found, solved_for="effect", exact=effect, target=target)


def _named_effect(found: PowerResult, name: str) -> PowerResult:
    """The effect as a proportion, a rate or a ratio."""
    design, effect = found.design, float(found.effect or 0.0)
    outcome = {"p_intervention": ("binary",), "odds_ratio": ("binary", "ordinal"), "rate_intervention": ("rate", "count")}
    if design.outcome not in outcome.get(name, ("survival",)):
        raise InputError(f"{name} belongs to a {' or '.join(outcome.get(name, ('survival',)))} outcome, and this one is {design.outcome}.")
    if name in ("p_intervention", "odds_ratio") and design.outcome == "binary":
        p0, p1 = control_proportion(design), float(found.p_intervention or 0.0)
        value = p1 if name == "p_intervention" else p1 / (1 - p1) / (p0 / (1 - p0))
    elif name == "rate_intervention":
        l0 = float(design.rate_control or 0.0)
        value = l0 * math.exp(effect) if design.scale == "log-ratio" else l0 + effect
    else:
        value = math.exp(effect)
    solved = design.replace(effect=None).replace(**{name: value})
    again = precision(solved)
    return PowerResult(solved, power_from(again, solved), again, solved_for=name, exact=value, target=found.target)


def _find_common_effect(design: PowerDesign, target: float, sign: float) -> PowerResult:
    """The difference from control, the same in every arm, at which comparisons with control have the power."""
    found = precision(design.replace(effect=0.0))
    unit = math.sqrt(found.variance)

    def at(shift: float) -> float:
        return power_at(design.replace(effect=sign * shift * unit))

    effect = sign * unit * noncentral.inverse(at, target)
    solved = design.replace(effect=effect)
    found = precision(solved)
    return PowerResult(solved, power_from(found, solved), found, solved_for="effect", exact=effect, target=target)


def _range_of_effects(design: PowerDesign, sign: float) -> float:
    """How large an effect in one direction can be."""
    if design.outcome == "binary" and design.scale in (None, "difference"):
        moving = design.p_control if isinstance(design.p_control, tuple) else (control_proportion(design),)
        return float(min(1 - p if sign > 0 else p for p in moving) * (1 - 1e-12))
    if design.outcome == "binary" and design.scale == "log-ratio" and sign > 0:
        moving = design.p_control if isinstance(design.p_control, tuple) else (control_proportion(design),)
        return -math.log(max(moving)) * (1 - 1e-12)
    if design.outcome in ("rate", "count") and design.scale != "log-ratio" and sign < 0:
        return float(design.rate_control or 0) * (1 - 1e-12)
    return math.inf


def _moving_effect(design: PowerDesign, target: float, sign: float, far: float, start: float) -> float:
    """Where the variance moves with the effect: bracket and bisect within the outcome's range, from where the power is alpha."""
    limit = _range_of_effects(design, sign)

    def at(e: float) -> float:
        return power_at(design.replace(effect=sign * e)) - target

    low = max(start, -_range_of_effects(design, -sign))
    if low != 0.0 and low < limit and at(low) >= 0:
        raise InputError(f"every effect from {sign * low:g} on has a power above {target:g}: there is nothing to solve for.")
    high = min(start + far, limit)
    if high <= low:
        raise Infeasible("the margin lies outside the range of the outcome's effects.", max_power=0.0)
    while at(high) < 0:
        if high >= limit or high > 1e6:
            best = at(high) + target
            raise Infeasible(
                f"no effect within the outcome's range has a power of {target:g}; the most attainable is {best:.4f}.", max_power=best
            )
        high = min(high + 0.5 * (high - start), limit)
    return float(optimize.brentq(at, min(1e-12, high / 2) if low == 0.0 else low, high, xtol=1e-15, rtol=1e-13))


# --- an estimated ICC -------------------------------------------------------------------------------------------


def _estimated_icc(arguments: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """An estimate or a prior in place of a number: the point estimate (the prior's mean) is used, and the 80th percentile reported."""
    icc = arguments.get("icc")
    if icc is not None and hasattr(icc, "quantile") and hasattr(icc, "mean") and hasattr(icc, "name") and not hasattr(icc, "icc"):
        return {**arguments, "icc": icc.mean, "icc_source": arguments.get("icc_source") or f"prior: {icc.name}"}, icc
    if icc is not None and hasattr(icc, "icc") and hasattr(icc, "quantile"):
        point = max(0.0, float(icc.icc))
        source = arguments.get("icc_source") or f"estimated: {getattr(icc, 'describe', lambda: 'from data')()}"
        return {**arguments, "icc": point, "icc_source": source}, icc
    return arguments, None


def _upper(design: PowerDesign, icc: Any) -> tuple[float, float] | None:
    if icc is None:
        return None
    high = min(max(0.0, float(icc.quantile(0.8))), 0.9999)
    return high, power_at(design.replace(icc=high))


def _with_upper(result: PowerResult, icc: Any) -> PowerResult:
    if icc is None:
        return result
    from dataclasses import replace

    return replace(result, upper=_upper(result.design, icc))


__all__ = ["NAMES", "Infeasible", "Precision", "attainable_power", "detectable_effect", "least_clusters", "power", "sample_size", "solve"]
