"""The analyses that `check` can hold against the truth, by name.

``complete cases`` and ``imputed`` are the project's own `itt` as the design declares it; the others differ from it in one choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trialkit.design import TrialDesign
from trialkit.door import InputError, unknown_word

FIELDS = ("estimate", "std_error", "df", "conf_low", "conf_high", "p_value", "icc", "singular")


@dataclass(frozen=True, slots=True)
class Analysis:
    """One way to analyse a simulated trial.

    Attributes
    ----------
    name : str
        As shown in the table.
    data : {"complete cases", "imputed", "complete data"}
        ``complete data`` is the trial before anything was lost, in the same people: what losing cost.
    inference : {"kenward-roger", "satterthwaite"} or None
        None: as the design says.
    pair_effects : {"none", "random", "fixed"} or None
    comparison : str or None
        One of the analyses `trialkit.itt.compare_methods` sets beside the mixed model, by its name there.
    marginal : bool
        A marginal model instead of the mixed one: GEE with the identity link, exchangeable correlation within sites, the
        Kauermann-Carroll sandwich and t with sites - coefficients df, the numbers of `trialkit.itt.fit_marginal`.
    """

    name: str
    data: Literal["complete cases", "imputed", "complete data"] = "complete cases"
    inference: Literal["kenward-roger", "satterthwaite"] | None = None
    pair_effects: Literal["none", "random", "fixed"] | None = None
    comparison: str | None = None
    marginal: bool = False
    weighting: Literal["participant-average", "cluster-average", "complier"] | None = None

    @property
    def own_scale(self) -> bool:
        """Whether its effects are differences over the declared SD whatever an outcome's type, and not as `itt` reports them."""
        return self.marginal or self.weighting == "complier"

    def design(self, design: TrialDesign) -> TrialDesign:
        """The trial's design with this analysis's choices."""
        changes = {k: v for k, v in (("inference", self.inference), ("pair_effects", self.pair_effects)) if v is not None}
        if not changes:
            return design
        return design.model_copy(update={"analysis": design.analysis.model_copy(update=changes)})


def _known() -> dict[str, Analysis]:
    """Every analysis that has a name: each on complete cases, and on imputed tables where that makes sense."""
    out = [
        Analysis("complete cases"),
        Analysis("complete cases, satterthwaite", inference="satterthwaite"),
        Analysis("complete cases, kenward-roger", inference="kenward-roger"),
        Analysis("complete cases, random pairs", pair_effects="random"),
        Analysis("complete cases, fixed pairs", pair_effects="fixed"),
        Analysis("complete cases, without pairs", pair_effects="none"),
        Analysis("complete data", data="complete data"),
    ]
    out += [
        Analysis(f"imputed{a.name.removeprefix('complete cases')}", data="imputed", inference=a.inference, pair_effects=a.pair_effects)
        for a in out[:-1]
    ]
    others = [
        Analysis("GEE", pair_effects="none", marginal=True),
        Analysis("site means, unadjusted", comparison="site means, unadjusted", weighting="cluster-average"),
        Analysis("site means", comparison="site means, adjusted", weighting="cluster-average"),
        Analysis("site means, by people", comparison="site means, adjusted, by people", weighting="participant-average"),
        Analysis("pairs", comparison="pair differences, adjusted", weighting="cluster-average"),
        Analysis("randomisation test", comparison="randomisation test, adjusted", weighting="cluster-average"),
        Analysis("complier effect", weighting="complier"),
    ]
    out += others
    # the instrument's second stage is not pooled over imputations
    out += [replace(a, name=f"imputed, {a.name}", data="imputed") for a in others if a.weighting != "complier"]
    return {a.name: a for a in out}


KNOWN: Mapping[str, Analysis] = _known()


def named(analyses: Sequence[str | Analysis]) -> tuple[Analysis, ...]:
    """Analyses by name; an unknown one is refused with the nearest."""
    if isinstance(analyses, str):
        raise InputError(f"analyses={analyses!r} is one word; give a list of names: analyses=[{analyses!r}].")
    out = []
    for a in analyses:
        if isinstance(a, Analysis):
            out.append(a)
        elif a in KNOWN:
            out.append(KNOWN[a])
        else:
            raise InputError(unknown_word(str(a), tuple(KNOWN), what="analysis"))
    names = [a.name for a in out]
    if not out or len(set(names)) != len(names):
        raise InputError("analyses must name at least one analysis, each once.")
    return tuple(out)


def words(error: Exception) -> str:
    """An error in one line, for the list of failures."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
