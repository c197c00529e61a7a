"""What the power verbs give back: a table first, then the formula, the paragraph for the protocol, JSON and warnings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from trialkit.power import words
from trialkit.power.designs import Precision
from trialkit.power.outcomes import intervention_proportion
from trialkit.power.specification import PowerDesign, plain
from trialkit.results import Result


@dataclass(frozen=True, slots=True)
class PowerResult(Result):
    """Power of a design, or the design that has a wanted power.

    Attributes
    ----------
    design : PowerDesign
        Every assumption, with what was solved for filled in.
    power : float
        Of that design; for a sample size, verified after rounding.
    precision : Precision
        Variance of the effect, degrees of freedom, formula, sources.
    solved_for : str or None
        The argument that was solved for.
    exact : float or None
        Its value before rounding to what can be recruited.
    target : float or None
        The power asked for.
    upper : (icc, power) or None
        The 80th percentile of an estimated ICC and the power there.
    """

    design: PowerDesign
    power: float
    precision: Precision
    solved_for: str | None = None
    exact: float | None = None
    target: float | None = None
    upper: tuple[float, float] | None = None

    @property
    def df(self) -> float:
        """Degrees of freedom of the test."""
        return self.precision.df

    @property
    def variance(self) -> float:
        """Variance of the effect estimate."""
        return self.precision.variance

    @property
    def std_error(self) -> float:
        """Standard error of the effect estimate."""
        return math.sqrt(self.precision.variance)

    @property
    def noncentrality(self) -> float | None:
        """Noncentrality of the F test."""
        return self.precision.noncentrality

    @property
    def effect(self) -> float | None:
        """The effect on the analysis scale."""
        return self.precision.effect

    @property
    def clusters(self) -> int | tuple[int, int] | None:
        """Clusters to randomise, both arms together (or by arm when they were given so)."""
        value: int | tuple[int, int] | None = self.design.clusters
        return value

    @property
    def clusters_per_arm(self) -> float | tuple[int, int] | None:
        """Clusters in each arm, when the arms are equal."""
        c: int | tuple[int, int] | None = self.design.clusters
        if c is None or isinstance(c, tuple):
            return c
        return float(c / (self.design.arms or 2))

    @property
    def clusters_exact(self) -> float | None:
        """Clusters, both arms together, before rounding up."""
        if self.solved_for == "pairs":
            return None if self.exact is None else 2 * self.exact
        return self.exact if self.solved_for == "clusters" else None

    @property
    def pairs(self) -> int | None:
        """Matched pairs."""
        value: int | None = self.design.pairs
        return value

    @property
    def cluster_size(self) -> Any:
        """People a cluster to recruit."""
        size = self.design.cluster_size
        return int(size) if isinstance(size, float) and size.is_integer() else size

    @property
    def value(self) -> Any:
        """What was solved for."""
        if self.solved_for is None:
            return self.power
        return self.effect if self.solved_for == "effect" else getattr(self.design, self.solved_for)

    @property
    def icc(self) -> Any:
        """The intracluster correlation."""
        return self.design.icc

    @property
    def p_intervention(self) -> float | None:
        """Proportion in the intervention arm, of a binary outcome."""
        return intervention_proportion(self.design, self.effect) if self.design.outcome == "binary" else None

    @property
    def design_effect(self) -> float:
        """Variance relative to as many independent people of the same kind."""
        return words.design_effect(self.precision)

    @property
    def effective_sample_size(self) -> float:
        """People analysed over the design effect."""
        return self.precision.clusters * self.precision.cluster_size / self.design_effect

    @property
    def versus_control(self) -> pd.DataFrame:
        """Several arms against control, one row a comparison: effect, std_error, power at the level of one comparison."""
        return words.versus_table(self)

    @property
    def frame(self) -> pd.DataFrame:
        """One row (two when the ICC is an estimate: the second at its 80th percentile)."""
        row = {
            "case": "as planned",
            "power": self.power,
            "df": self.df,
            "clusters": int(words.total(self.design.clusters)),
            "cluster_size": words.mean_size(self.design),
            "icc": words.mean_of(self.precision.scale.icc),
            "effect": math.nan if self.effect is None else self.effect,
            "std_error": self.std_error,
            "alpha": self.design.alpha,
            "sides": self.design.sides,
            "design": self.design.design,
            "distribution": self.design.distribution,
        }
        rows = [row]
        if self.upper is not None:
            rows.append({**row, "case": "ICC at its 80th percentile", "icc": self.upper[0], "power": self.upper[1], "std_error": math.nan})
        return pd.DataFrame(rows)

    @property
    def title(self) -> str:
        return words.title(self)

    @property
    def notes(self) -> tuple[str, ...]:
        return self.warnings

    @property
    def formats(self) -> Mapping[str, str]:
        return {"effect": ".4g", "icc": ".3f", "std_error": ".4f", "power": ".4f", "df": ".4g", "cluster_size": ".4g", "clusters": "d"}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of this number should know: few clusters, an approximation, sizes that no longer pay ..."""
        return words.warnings(self)

    @property
    def recruit(self) -> pd.DataFrame:
        """Numbers to recruit and numbers analysed, clusters and people."""
        return words.recruitment(self)

    def explain(self) -> str:
        """Formula, degrees of freedom, sources, and every input."""
        return words.explain(self)

    def protocol_text(self) -> str:
        """The sample-size paragraph for a protocol (CONSORT extension for cluster trials, item 7a)."""
        return words.protocol(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the design can be read back by `PowerDesign.from_json`."""
        return {
            "power": self.power,
            "target": self.target,
            "solved_for": self.solved_for,
            "exact": self.exact,
            "effect": self.effect,
            "clusters": plain(self.clusters),
            "pairs": self.pairs,
            "cluster_size": plain(self.cluster_size),
            "icc": plain(self.icc),
            "df": plain(self.df),
            "variance": self.variance,
            "std_error": self.std_error,
            "noncentrality": self.noncentrality,
            "formula": self.precision.formula,
            "df_rule": self.precision.df_rule,
            "sources": list(self.precision.sources),
            "warnings": list(self.warnings),
            "design": plain(self.design.given()),
        }

    def to_json(self) -> str:
        """`to_dict` as JSON, without NaN."""
        return json.dumps(plain(self.to_dict()), indent=2, allow_nan=False)
