"""What if the missing differ from the observed in a way nobody saw: shifted imputations and the shift at which a finding tips.

The shifts are made after imputation, in the missing cells only, so that one run serves every scenario (Carpenter & Kenward 2013, ch. 10;
for a follow-up outcome that predicts nothing else in the analysis this is the pattern-mixture model with that difference in means). A
binary or ordinal outcome is shifted in its log odds, given everything in the imputation model: the exponential of the shift is the
informative missingness odds ratio (White, Higgins & Wood 2008; Leurent et al. 2018; Cro et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.design import TrialDesign
from trialkit.door import InputError, cell_text, nearest_word
from trialkit.imputation.imputations import Cells, Imputations
from trialkit.results import Provenance, Result

Array = NDArray[np.float64]


def shift_missing(
    imputations: Imputations,
    outcome: str,
    *,
    arm: str = "arm",
    delta: float | Mapping[str, float] = 0.0,
    factor: float | Mapping[str, float] = 1.0,
    unit: str | None = None,
) -> Imputations:
    """Completed sets in which the imputed values of one outcome are worse or better than missing at random says.

    Parameters
    ----------
    imputations : Imputations
        Made under missing at random.
    outcome : str
        A numeric column, or a binary or ordinal one.
    arm : str
        The arm column, whose labels `delta` and `factor` may be given by.
    delta : float or mapping of arm to float
        Added to each imputed value; of a binary or ordinal outcome to the log odds of a higher category (a binary one's second), given all
        that the imputation model holds. Each cell keeps the random number it was drawn with, so that a larger delta lowers no cell.
    factor : float or mapping of arm to float
        Multiplies each imputed value's distance to the mean observed in its arm, before `delta` is added; for numbers.
    unit : {"sd", "raw", "log-odds"}, optional
        Whether `delta` counts in standard deviations of the observed values ("sd", for numbers the default) or in the outcome's own
        units. Categories know "log-odds" alone.

    Returns
    -------
    Imputations
        Observed cells as before; the settings are added to the provenance.

    Raises
    ------
    InputError
        The outcome was not imputed, has unordered categories, or was not drawn by a probit (``engine="joint"``, a comparator); an arm is
        unknown; `factor` or `unit` does not suit the outcome.
    """
    if unit not in (None, "sd", "raw", "log-odds"):
        raise InputError(f'unit = {unit!r}: say "sd" or "raw", or "log-odds" of a binary or ordinal outcome.')
    cells, arms = _to_shift(imputations, outcome, arm)
    here = arms[cells.rows]
    shift, stretch = _by_arm(delta, arms, here, "delta", 0.0), _by_arm(factor, arms, here, "factor", 1.0)
    if (unit == "log-odds") != bool(cells.labels) and unit is not None:
        what = "a category: its log odds are shifted" if cells.labels else "a number: it has no log odds"
        raise InputError(f"unit = {unit!r}: {outcome!r} is {what}. Leave unit out.")
    if cells.passing is not None:
        if (stretch != 1).any():
            raise InputError(f"factor: {outcome!r} is a category, and log odds have no mean to be stretched from. Give delta alone.")
        moved = (cells.passing < shift[:, None]).sum(axis=2).astype(float)
        made = replace(cells, values=np.where(shift == 0, cells.values, moved), passing=cells.passing - shift[:, None])
        unit = "log-odds"
    else:
        observed = imputations.base[outcome].to_numpy(dtype=float, na_value=np.nan)
        unit = unit or "sd"
        sd = float(np.nanstd(observed, ddof=1)) if unit == "sd" else 1.0
        centre = np.array(
            [np.nanmean(observed[arms == a]) if np.isfinite(observed[arms == a]).any() else np.nanmean(observed) for a in here]
        )
        # in this form no shift at all changes no bit
        made = replace(cells, values=cells.values + (stretch - 1) * (cells.values - centre) + sd * shift)
    settings = {
        **imputations.provenance.settings,
        "shifted": {"outcome": outcome, "delta": _plain(delta), "factor": _plain(factor), "unit": unit},
    }
    before = imputations.provenance
    return replace(
        imputations,
        cells={**imputations.cells, outcome: made},
        provenance=Provenance(before.seed, before.inputs, settings, before.versions),
    )


def _to_shift(imputations: Imputations, outcome: str, arm: str) -> tuple[Cells, NDArray[Any]]:
    """The imputed cells of an outcome that can be shifted, and everybody's arm."""
    if outcome not in imputations.cells:
        near = nearest_word(outcome, list(imputations.cells))
        hint = f" Did you mean {near!r}?" if near else ""
        raise InputError(f"{outcome!r} has no imputed cells, so there is nothing to shift.{hint}")
    cells = imputations.cells[outcome]
    if cells.labels and cells.passing is None:
        why = (
            "its categories have no order, or were drawn without a probit that says how near each cell is to the next category "
            '(engine="joint", a comparator, kinds of people with other categories)'
        )
        raise InputError(f"{outcome!r} cannot be shifted: {why}. See worst_best for what its missing could do.")
    if arm not in imputations.base.columns:
        raise InputError(f"the sets have no column {arm!r}, which should hold the arms. Name the arm column: arm=...")
    return cells, np.array([cell_text(v) for v in imputations.base[arm].tolist()])


@dataclass(frozen=True, slots=True, eq=False)
class TippingPoint(Result):
    """An effect over a grid of shifts.

    Attributes
    ----------
    frame : DataFrame
        One row a shift: the shift of each arm (in `unit`s), of a category shifted in one way also `imor` = exp(shift), the informative
        missingness odds ratio; estimate, std_error, df, p_value, conf_low, conf_high.
    outcome : str
    alpha : float
    tips_at : float or None
        The shift nearest 0 at which p crosses `alpha`, log p interpolated between grid points; None when it does not cross, or when
        the arms were shifted apart.
    shifted : tuple of str
        The arms whose missing were shifted.
    unit : {"sd", "log-odds"}
        What shifts are counted in: SDs of the observed values, or the log odds of a higher category.
    measure : str
        Of the effect, where the analysis names it, such as "risk difference".
    towards : str
        Of a category: what positive shifts make more likely, the second label of a binary outcome or "a higher category".
    """

    frame: pd.DataFrame
    outcome: str
    alpha: float
    tips_at: float | None
    shifted: tuple[str, ...]
    unit: str = "sd"
    measure: str = ""
    towards: str = ""

    @property
    def title(self) -> str:
        """Heading of the printed table."""
        what = f", {self.measure}" if self.measure else ""
        return f"{self.outcome}{what}: if the missing differ from what missing at random says"

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the finding tips, in words."""
        who = " and ".join(self.shifted)
        odds = self.unit == "log-odds"
        where = f"log odds of {self.towards}" if odds else "imputed values"
        scale = "." if odds else ", in SDs of the observed values."
        if "shift" not in self.frame.columns:
            return (f"Shifts are added to the {where} of each arm ({who}){scale}", self._where())
        if self.tips_at is None:
            said = f"The finding at p < {self.alpha:g} does not change anywhere on the grid."
        else:
            far = f"{self.tips_at:+.2f} in log odds (odds ratio {np.exp(self.tips_at):.2f})" if odds else f"{self.tips_at:+.2f} SD"
            said = f"The finding at p < {self.alpha:g} changes when the missing of {who} differ by {far}."
        missing = " of the missing" if odds else ""
        return (f"The shift is added to the {where}{missing} of {who}{scale}", said)

    @property
    def formats(self) -> dict[str, str]:
        """Number formats of the printed table."""
        return {"imor": ".2f", **{c: ".2f" for c in self.frame.columns if c.startswith("shift")}}

    def _where(self) -> str:
        """Where on a grid of both arms' shifts the finding is another one than at the point nearest to no shift."""
        shifts = self.frame[[f"shift_{name}" for name in self.shifted]].to_numpy()
        found = self.frame["p_value"].to_numpy() < self.alpha
        size = np.hypot(shifts[:, 0], shifts[:, 1])
        other = np.flatnonzero(found != found[np.argmin(size)])
        if not len(other):
            return f"The finding at p < {self.alpha:g} does not change anywhere on the grid."
        near = other[np.argmin(size[other])]
        point = ", ".join(f"{name} {shift:+.2f}" for name, shift in zip(self.shifted, shifts[near], strict=True))
        return f"The finding at p < {self.alpha:g} changes at {len(other)} of {len(found)} points; the nearest is {point}."


def tipping_point(
    imputations: Imputations,
    design: TrialDesign,
    outcome: str,
    *,
    analyse: Callable[[Imputations, TrialDesign], Any],
    deltas: Sequence[float] | None = None,
    arms: str = "intervention",
    alpha: float = 0.05,
) -> TippingPoint:
    """How different the missing would have to be for a finding to change; nothing is imputed again.

    Parameters
    ----------
    imputations : Imputations
        Made under missing at random.
    design : TrialDesign
    outcome : str
        One of the design's outcomes: a number, or a binary or ordinal one, whose log odds of a higher category are shifted.
    analyse : callable
        ``tk.itt``, or anything that takes (imputations, design) and gives a result whose ``frame`` has columns outcome, estimate,
        std_error, df, p_value, conf_low and conf_high. If it has an attribute ``shifts`` (`tk.itt` has: `trialkit.itt.itt_shifts`), that is
        asked for the whole grid at once: the tables are read once, and all shifts of a completed set share one design. A category is
        analysed anew at every point.
    deltas : sequence of float, optional
        Shifts in SDs of the observed values, by default 21 from -1 to 1; of a category in log odds, by default 21 from -2 to 2 (odds ratios
        of .14 to 7.4).
    arms : {"intervention", "reference", "both", "grid"}
        Which arm's missing are shifted: one, both alike, or every combination of the two (len(deltas) squared).
    alpha : float

    Returns
    -------
    TippingPoint

    Raises
    ------
    InputError
        The outcome is not in the design or was not imputed; `arms` or `deltas` cannot be used.

    Examples
    --------
    ``tipping_point(sets, design, "climate", analyse=tk.itt)``
    """
    found = [o for o in design.outcomes if o.name == outcome]
    if not found:
        near = nearest_word(outcome, [o.name for o in design.outcomes])
        raise InputError(f"{outcome!r} is not an outcome of the design.{f' Did you mean {near!r}?' if near else ''}")
    cells, labels = _to_shift(imputations, outcome, design.columns.arm)
    odds = bool(cells.labels)
    grid = np.linspace(-2, 2, 21).tolist() if odds else np.linspace(-1, 1, 21).tolist()
    if deltas is not None:
        grid = [float(d) for d in deltas]
    if not grid or not np.isfinite(grid).all():
        raise InputError("deltas must be one or more finite numbers, in SDs of the observed values or, of a category, in log odds.")
    reference, intervention = design.arms.labels
    pairs: list[tuple[float, float]]
    shifted: tuple[str, ...]
    if arms == "grid":
        pairs, shifted = [(r, i) for r in grid for i in grid], (reference, intervention)
    elif arms in ("intervention", "reference", "both"):
        pairs = [(d if arms != "intervention" else 0.0, d if arms != "reference" else 0.0) for d in grid]
        shifted = {"intervention": (intervention,), "reference": (reference,), "both": (reference, intervention)}[arms]
    else:
        raise InputError(f'arms = {arms!r}: say "intervention", "reference", "both" or "grid".')
    alone = design.model_copy(update={"outcomes": tuple(found)})
    imputations = _columns_of(imputations, alone)
    at_once = None if odds else getattr(analyse, "shifts", None)
    measure = ""
    rows: list[dict[str, float]] = []
    if at_once is not None:
        observed = imputations.base[outcome].to_numpy(dtype=float, na_value=np.nan)
        unit = np.zeros((2, len(labels)))
        for k, label in enumerate((reference, intervention)):
            unit[k, cells.rows] = np.nanstd(observed, ddof=1) * (labels[cells.rows] == label)
        figures = at_once(imputations, alone, outcome, directions=unit, steps=np.array(pairs))
        rows = [
            {f"shift_{reference}": r, f"shift_{intervention}": i, **row}
            for (r, i), row in zip(pairs, figures[_FIGURES].to_dict("records"), strict=True)
        ]
    for r, i in pairs if at_once is None else ():
        sets = shift_missing(imputations, outcome, arm=design.columns.arm, delta={reference: r, intervention: i})
        frame = analyse(sets, alone).frame
        row = frame[frame["outcome"] == outcome].iloc[0]
        measure = str(row["measure"]) if "measure" in frame.columns else ""
        rows.append({f"shift_{reference}": r, f"shift_{intervention}": i, **{c: float(row[c]) for c in _FIGURES}})
    table = pd.DataFrame(rows)
    if arms != "grid":
        table = table.drop(columns=f"shift_{reference}" if arms == "intervention" else f"shift_{intervention}")
        table.columns = pd.Index(["shift", *_FIGURES])
        if odds:
            table.insert(1, "imor", np.exp(table["shift"]))
    tips = None if arms == "grid" else _crossing(np.array(grid), table, alpha)
    towards = "a higher category" if len(cells.labels) > 2 else cell_text(cells.labels[1]) if odds else ""
    return TippingPoint(table, outcome, alpha, tips, shifted, "log-odds" if odds else "sd", measure, towards)


def _columns_of(imputations: Imputations, design: TrialDesign) -> Imputations:
    """The sets with the columns of one outcome's analysis only: they are made anew at every grid point."""
    c = design.columns
    wanted = {c.person, c.site, c.pair, c.arm, c.rater, c.subcluster, design.imputation.population, *(v.name for v in design.covariates)}
    wanted |= {name for o in design.outcomes for name in (o.name, o.baseline, o.exposure)}
    keep = [name for name in imputations.base.columns if name in wanted]
    return replace(imputations, base=imputations.base[keep], cells={k: v for k, v in imputations.cells.items() if k in wanted})


_FIGURES = ["estimate", "std_error", "df", "p_value", "conf_low", "conf_high"]


def _crossing(deltas: Array, table: pd.DataFrame, alpha: float) -> float | None:
    """The shift nearest 0 where significance changes between neighbouring grid points, interpolated on log p."""
    order = np.argsort(deltas, kind="stable")
    x, p = deltas[order], table["p_value"].to_numpy()[order]
    level = np.log(np.maximum(p, 1e-300)) - np.log(alpha)
    out = []
    for k in range(len(x) - 1):
        if (level[k] < 0) != (level[k + 1] < 0):
            out.append(x[k] + (x[k + 1] - x[k]) * level[k] / (level[k] - level[k + 1]))
    return min(out, key=abs) if out else None


def _by_arm(value: float | Mapping[str, float], arms: NDArray[Any], here: NDArray[Any], what: str, otherwise: float) -> Array:
    if not isinstance(value, Mapping):
        return np.full(len(here), float(value))
    known = sorted(set(arms.tolist()))
    for label in value:
        if label not in known:
            near = nearest_word(label, known)
            raise InputError(
                f"{what}: no one is in the arm {label!r}.{f' Did you mean {near!r}?' if near else ''} Arms: {', '.join(known)}."
            )
    return np.array([float(value.get(a, otherwise)) for a in here])


def _plain(value: float | Mapping[str, float]) -> Any:
    return dict(value) if isinstance(value, Mapping) else float(value)
