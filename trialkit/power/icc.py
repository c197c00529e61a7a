"""Estimation of the intracluster correlation, with intervals, adjusted if asked, negative estimates kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from trialkit._kernels import icc as kernel
from trialkit._kernels import reml
from trialkit.door import InputError, few, numbers, one_spelling, require_columns, unknown_word
from trialkit.power.outcomes import proportion_icc
from trialkit.results import Result

METHODS = ("anova", "reml", "ml", "fleiss-cuzick")
INTERVALS = ("searle", "smith", "swiger", "fisher", "profile", "jackknife")
_DEFAULT_INTERVAL = {"anova": "searle", "reml": "profile", "ml": "profile", "fleiss-cuzick": "jackknife"}
_FOR = {
    "anova": ("searle", "smith", "swiger", "fisher", "jackknife"),
    "reml": ("profile", "searle", "jackknife"),
    "ml": ("profile", "searle", "jackknife"),
    "fleiss-cuzick": ("jackknife",),
}
_SOURCES = {
    "searle": "Searle 1971, Linear Models; exact when sizes are equal",
    "smith": "Smith 1956, Ann Hum Genet 21:363",
    "swiger": "Swiger, Harvey, Everson & Gregory 1964, Biometrics 20:818",
    "fisher": "Fisher 1925; Donner 1986, Int Stat Rev 54:67",
    "profile": "likelihood ratio",
    "jackknife": "one cluster left out at a time, on Fisher's scale",
}
_WORDS = {"anova": "analysis of variance", "reml": "REML", "ml": "maximum likelihood", "fleiss-cuzick": "Fleiss-Cuzick"}


@dataclass(frozen=True, slots=True)
class _Bound:
    """Upper confidence bounds of one estimate: data only, so that an estimate can be pickled and sent to another process."""

    interval: str
    data: kernel.Clustered
    table: kernel.Anova
    point: float
    std_error: float | None
    reml: bool
    latent_at: float | None = None

    def __call__(self, q: float) -> float:
        bound = self._observed(q)
        return bound if self.latent_at is None else _to_latent(bound, self.latent_at)

    def _observed(self, q: float) -> float:
        clusters = len(self.data.sizes)
        if self.interval == "searle":
            return kernel.searle(self.table, q)
        if self.interval == "fisher":
            return kernel.fisher(self.table, clusters, q)
        if self.interval == "profile" and self.point == 1.0:
            return 1.0
        if self.interval == "profile":
            low, high = kernel.profile_icc(self.data, self.point, abs(2 * q - 1), reml=self.reml)
            return high if q >= 0.5 else low
        se = 0.0 if self.std_error is None else self.std_error
        if self.interval in ("smith", "swiger"):
            return self.point + float(stats.norm.ppf(q)) * se
        step = float(stats.t.ppf(q, clusters - 1)) * se
        if not -1 < self.point < 1:
            return self.point + step
        return math.tanh(math.atanh(self.point) + step / (1 - self.point**2))


@dataclass(frozen=True, slots=True)
class IccEstimate(Result):
    """An estimated intracluster correlation.

    Attributes
    ----------
    icc, conf_low, conf_high : float
        The estimate (negative when clusters differ less than chance would have it) and its interval.
    std_error : float or None
        Where the interval rests on one.
    method, interval, scale : str
    conf_level : float
    outcome, cluster : str
        The columns.
    adjusted_for : tuple of str
    n, clusters, left_out : int
        Rows and clusters used; rows left out because something was missing.
    cluster_size, cluster_size_cv : float
        Mean and coefficient of variation of the sizes.
    k0 : float
        The size that stands for all in the analysis of variance.
    variance_between, variance_within : float
    components : DataFrame
        Standard deviations between and within clusters, with likelihood intervals where ``interval="profile"``.
    cluster_frame : DataFrame
        One row a cluster: its id, n, mean.
    """

    icc: float
    conf_low: float
    conf_high: float
    conf_level: float
    method: str
    interval: str
    scale: str
    outcome: str
    cluster: str
    adjusted_for: tuple[str, ...]
    n: int
    clusters: int
    left_out: int
    cluster_size: float
    cluster_size_cv: float
    k0: float
    variance_between: float
    variance_within: float
    std_error: float | None
    components: pd.DataFrame = field(repr=False)
    cluster_frame: pd.DataFrame = field(repr=False)
    bound: _Bound = field(repr=False, compare=False)

    def quantile(self, q: float) -> float:
        """The one-sided upper confidence bound at confidence ``q``: the ICC's q-th percentile in the sense of a confidence distribution.

        Examples
        --------
        >>> import pandas as pd
        >>> data = pd.DataFrame({"y": [1, 2, 4, 5, 5, 7, 1, 3], "site": list("aabbccdd")})
        >>> found = estimate_icc(data, outcome="y", cluster="site")
        >>> found.quantile(0.975) == found.conf_high
        True
        """
        if not 0 < q < 1:
            raise InputError(f"q = {q!r} must lie between 0 and 1.")
        return self.bound(q)

    @property
    def frame(self) -> pd.DataFrame:
        """One row."""
        return pd.DataFrame(
            [
                {
                    "outcome": self.outcome,
                    "icc": self.icc,
                    "conf_low": self.conf_low,
                    "conf_high": self.conf_high,
                    "percentile_80": self.quantile(0.8),
                    "method": self.method,
                    "interval": self.interval,
                    "n": self.n,
                    "clusters": self.clusters,
                    "cluster_size": self.cluster_size,
                    "cluster_size_cv": self.cluster_size_cv,
                }
            ]
        )

    @property
    def title(self) -> str:
        adjusted = f", adjusted for {', '.join(self.adjusted_for)}" if self.adjusted_for else ""
        scale = ", latent scale" if self.scale == "latent" else ""
        return f"Intracluster correlation of {self.outcome} by {self.cluster}{adjusted}{scale}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about the estimate."""
        out = []
        if self.left_out:
            out.append(f"{self.left_out} rows left out: outcome, cluster or a covariate is missing.")
        if self.icc < 0:
            out.append(
                "The estimate is negative: clusters differ less than chance would have it. It is kept; plan with 0 or with the upper bound."
            )
        elif self.icc == 1:
            out.append("Nobody differs from the others of the cluster: this looks like one value a cluster, not a person's outcome.")
        elif self.method in ("reml", "ml") and self.icc == 0:
            out.append("The variance between clusters is estimated as 0, the edge of its range.")
        if self.clusters < 20:
            out.append(f"{self.clusters} clusters say little about an ICC: mind the interval.")
        return tuple(out)

    @property
    def formats(self) -> Mapping[str, str]:
        return {
            "icc": ".4f",
            "conf_low": ".4f",
            "conf_high": ".4f",
            "percentile_80": ".4f",
            "cluster_size": ".1f",
            "cluster_size_cv": ".2f",
        }

    def describe(self) -> str:
        """One clause for a protocol."""
        return (
            f"{_WORDS[self.method]} from {self.clusters} clusters with {self.n} people, {self.icc:.3g}, "
            f"{100 * self.conf_level:g}% interval {self.conf_low:.3g} to {self.conf_high:.3g} ({self.interval})"
        )

    def to_json(self) -> str:
        """The estimate as one JSON object."""
        names = [
            "outcome",
            "icc",
            "conf_low",
            "conf_high",
            "conf_level",
            "method",
            "interval",
            "scale",
            "cluster",
            "n",
            "clusters",
            "left_out",
        ]
        names += ["cluster_size", "cluster_size_cv", "k0", "variance_between", "variance_within", "std_error"]
        data = {name: getattr(self, name) for name in names}
        data["percentile_80"] = self.quantile(0.8)
        data["adjusted_for"] = list(self.adjusted_for)
        return json.dumps(
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in data.items()}, indent=2, allow_nan=False
        )

    def plot(self, ax: Any = None) -> Any:
        """Cluster means in order with their standard errors, the grand mean, and the ICC in words; gives the axes back."""
        from trialkit.power.pictures import cluster_means

        return cluster_means(self, ax)


def estimate_icc(
    frame: pd.DataFrame,
    *,
    outcome: str,
    cluster: str,
    method: str = "anova",
    interval: str | None = None,
    conf_level: float = 0.95,
    adjust: Sequence[str] | str = (),
    scale: str = "observed",
) -> IccEstimate:
    """Intracluster correlation of an outcome.

    Parameters
    ----------
    frame : DataFrame
        One row a person.
    outcome, cluster : str
        Columns; a binary outcome is coded 0/1 (or False/True).
    method : {"anova", "reml", "ml", "fleiss-cuzick"}
        "fleiss-cuzick" is for binary outcomes.
    interval : {"searle", "smith", "swiger", "fisher", "profile", "jackknife"}, optional
        Default: "searle" for anova, "profile" for reml and ml, "jackknife" for fleiss-cuzick.
    conf_level : float
        0.95.
    adjust : sequence of columns
        Arm, strata or covariates to take out first: the residual ICC is what a trial's analysis meets. Text columns become indicators.
    scale : {"observed", "latent"}
        "latent" carries the ICC of a binary outcome to the logistic scale, sigma_b^2 / (sigma_b^2 + pi^2/3).

    Returns
    -------
    IccEstimate
        ``.icc .conf_low .conf_high .frame .quantile(q)``; can be given to `power` as ``icc=``.

    Raises
    ------
    InputError
        A column is missing or not numeric, fewer than two clusters, nothing varies, no cluster with two people.

    Notes
    -----
    (MSB - MSW) / {MSB + (k0 - 1) MSW}; with covariates by Henderson's method 3, k0 = tr(Z'MZ)/df.

    Examples
    --------
    >>> import pandas as pd
    >>> data = pd.DataFrame({"y": [1, 2, 4, 5, 5, 7, 1, 3], "site": list("aabbccdd")})
    >>> found = estimate_icc(data, outcome="y", cluster="site")
    >>> round(found.icc, 4), round(found.conf_low, 4), round(found.conf_high, 4)
    (0.7561, -0.1618, 0.9818)
    """
    interval = _words(method, interval, scale, conf_level)
    adjust = (adjust,) if isinstance(adjust, str) else tuple(adjust)
    y, X, codes, names, left_out = _read(frame, outcome, cluster, adjust)
    if scale == "latent" or method == "fleiss-cuzick":
        if not np.isin(y, (0.0, 1.0)).all():
            odd = sorted(set(np.unique(y)) - {0.0, 1.0})
            raise InputError(f"column {outcome!r} must be 0 or 1 for a binary ICC; it also holds {few(odd)}.")
        if adjust and method == "fleiss-cuzick":
            raise InputError('the Fleiss-Cuzick estimate takes no covariates: use method="anova" with adjust=.')
    try:
        data = kernel.reduce(X, y, codes)
        table = kernel.anova(data)
        estimate = _estimator(method, X, y, codes)
        point = estimate(np.arange(len(names)))
        bound = _bounds(interval, method, data, table, point, estimate)
    except ValueError as error:
        raise InputError(f"the ICC of {outcome!r} cannot be estimated: {error}.") from None
    if scale == "latent":
        p = float(y.mean())
        point, bound = _to_latent(point, p), replace(bound, latent_at=p)
    tail = (1 - conf_level) / 2
    between, within = _variances(method, table, X, y, codes)
    sizes = data.sizes
    means = data.sums_y / sizes + y.mean()
    return IccEstimate(
        icc=point,
        conf_low=bound(tail),
        conf_high=bound(1 - tail),
        conf_level=conf_level,
        method=method,
        interval=interval,
        scale=scale,
        outcome=outcome,
        cluster=cluster,
        adjusted_for=adjust,
        n=len(y),
        clusters=len(names),
        left_out=left_out,
        cluster_size=float(sizes.mean()),
        cluster_size_cv=float(sizes.std(ddof=1) / sizes.mean()),
        k0=table.k0,
        variance_between=between,
        variance_within=within,
        std_error=None if scale == "latent" else bound.std_error,
        components=_components(data, between, within, conf_level, method, interval),
        cluster_frame=pd.DataFrame({cluster: names, "n": sizes.astype(int), "mean": means}),
        bound=bound,
    )


def _words(method: str, interval: str | None, scale: str, conf_level: float) -> str:
    if method not in METHODS:
        raise InputError(unknown_word(str(method), METHODS, what="method"))
    if scale not in ("observed", "latent"):
        raise InputError(unknown_word(str(scale), ("observed", "latent"), what="scale"))
    if interval is None:
        interval = _DEFAULT_INTERVAL[method]
    if interval not in INTERVALS:
        raise InputError(unknown_word(str(interval), INTERVALS, what="interval"))
    if interval not in _FOR[method]:
        raise InputError(f'interval="{interval}" does not go with method="{method}". It takes: {", ".join(_FOR[method])}.')
    if isinstance(conf_level, bool) or not isinstance(conf_level, int | float) or not 0 < conf_level < 1:
        raise InputError(f"conf_level = {conf_level!r} must lie between 0 and 1, such as 0.95.")
    return interval


def _read(
    frame: pd.DataFrame, outcome: str, cluster: str, adjust: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], list[Any], int]:
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"estimate_icc takes a DataFrame, one row a person, not {type(frame).__name__}.")
    require_columns(frame, [outcome, cluster, *adjust], where="the data", why="to estimate an ICC")
    used = frame[[outcome, cluster, *adjust]]
    blank = used.apply(lambda c: c.map(lambda v: isinstance(v, str) and not v.strip()))
    complete = (used.notna() & ~blank).all(axis=1).to_numpy()
    used = frame.loc[complete]
    left_out = int((~complete).sum())
    if pd.api.types.is_bool_dtype(used[outcome].dtype):
        y = used[outcome].to_numpy(dtype=float)
    else:
        y = numbers(frame, outcome, where="the data")[complete]
    one_spelling(frame[cluster], where="the data", what="cluster", case=False)
    codes, names = pd.factorize(used[cluster], sort=True)
    if len(names) < 2:
        raise InputError(
            f"column {cluster!r} names {len(names)} cluster{'s' if len(names) != 1 else ''} with data: an ICC needs at least two."
        )
    columns = [np.ones(len(used))]
    for name in adjust:
        c = used[name]
        if pd.api.types.is_numeric_dtype(c.dtype) and not pd.api.types.is_bool_dtype(c.dtype):
            columns.append(c.to_numpy(dtype=float))
        else:
            levels, found = pd.factorize(c, sort=True)
            columns += [(levels == k).astype(float) for k in range(1, len(found))]
    X = np.column_stack(columns)
    X = X[:, reml.independent_columns(X)]
    return y, X, np.asarray(codes, dtype=np.int64), list(names), left_out


def _estimator(method: str, X: Any, y: Any, codes: Any) -> Callable[[NDArray[Any]], float]:
    """The point estimate as a function of the clusters kept, for the jackknife."""
    members = [np.flatnonzero(codes == k) for k in range(int(codes.max()) + 1)]

    def estimate(kept: NDArray[Any]) -> float:
        if len(kept) == len(members):
            x, yy, cc = X, y, codes
        else:
            rows = np.concatenate([members[k] for k in kept])
            x, yy = X[rows], y[rows]
            x = x[:, reml.independent_columns(x)]
            cc = np.concatenate([np.full(len(members[k]), i) for i, k in enumerate(kept)])
        if method == "fleiss-cuzick":
            return kernel.fleiss_cuzick(np.bincount(cc).astype(float), np.bincount(cc, weights=yy).astype(float))
        if method == "anova":
            return kernel.anova(kernel.reduce(x, yy, cc)).icc
        fit = reml.fit(x, yy, [cc], method="reml" if method == "reml" else "ml")
        if fit.status == "zero_residual":
            return 1.0  # the limit as the variance within clusters goes to zero
        theta = float(fit.theta[0])
        return theta / (1 + theta)

    return estimate


def _bounds(
    interval: str, method: str, data: kernel.Clustered, table: kernel.Anova, point: float, estimate: Callable[[NDArray[Any]], float]
) -> _Bound:
    """q -> upper confidence bound at confidence q, with the standard error if there is one."""
    clusters, se = len(data.sizes), None
    if interval in ("smith", "swiger"):
        variance = kernel.smith_variance(table, data.sizes) if interval == "smith" else kernel.swiger_variance(table, data.n)
        se = math.sqrt(max(variance, 0.0))
    elif interval == "fisher" and clusters < 3:
        raise ValueError("Fisher's interval needs at least three clusters")
    elif interval == "jackknife":
        se = kernel.jackknife(estimate, clusters)
    return _Bound(interval, data, table, point, se, reml=method == "reml")


def _variances(method: str, table: kernel.Anova, X: Any, y: Any, codes: Any) -> tuple[float, float]:
    if method in ("reml", "ml"):
        fit = reml.fit(X, y, [codes], method="reml" if method == "reml" else "ml")
        if fit.status != "zero_residual":
            return float(fit.variances[0]), float(fit.sigma2)
    return table.variance_between, table.ms_within


def _components(data: kernel.Clustered, between: float, within: float, level: float, method: str, interval: str) -> pd.DataFrame:
    sds = [math.copysign(math.sqrt(abs(between)), between), math.sqrt(within)]
    limits: Sequence[tuple[float, float]] = ((math.nan, math.nan), (math.nan, math.nan))
    if interval == "profile" and within > 0:
        limits = kernel.profile_sds(data, max(sds[0], 0.0), sds[1], level, reml=method == "reml")
    return pd.DataFrame(
        {
            "component": ["between", "within"],
            "variance": [between, within],
            "sd": sds,
            "conf_low": [limits[0][0], limits[1][0]],
            "conf_high": [limits[0][1], limits[1][1]],
        }
    )


def _to_latent(icc: float, p: float) -> float:
    """The latent ICC whose proportion-scale counterpart is ``icc``; a negative one keeps its sign."""
    if icc <= 0:
        return -_to_latent(-icc, p) if icc < 0 else 0.0
    if icc >= 1:
        return 1.0

    def gap(latent: float) -> float:
        return proportion_icc(p, latent / (1 - latent) * math.pi**2 / 3) - icc

    high = 0.5
    while gap(high) < 0 and high < 0.9999:
        high = 1 - (1 - high) / 2
    if gap(high) < 0:
        return 1.0
    return float(optimize.brentq(gap, 0.0, high, xtol=1e-12))
