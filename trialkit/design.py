"""The declared trial: what each column is, the arms, the outcomes, and every choice of the analysis.

A `TrialDesign` is written once, before the data, as TOML; it is checked when it is made, so that an object
that exists is an object that is right. A key that does not exist is refused with the nearest right one.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trialkit.door import DesignError, InputError, nearest_word, sha256_bytes

Rank = Literal["primary", "secondary", "exploratory"]
OutcomeType = Literal["continuous", "count", "binary", "ordinal", "bounded", "skewed"]
Measure = Literal[
    "standardised-difference",
    "mean-difference",
    "risk-difference",
    "risk-ratio",
    "odds-ratio",
    "rate-ratio",
    "rate-difference",
    "mean-ratio",
    "cumulative-odds-ratio",
]
Model = Literal["linear-mixed", "marginal", "logistic-mixed", "poisson-mixed", "negative-binomial-mixed", "ordinal-mixed"]
Correction = Literal["KC", "MD", "FG", "KC-MD", "LZ"]
CovariateType = Literal["continuous", "binary", "ordinal", "categorical"]
Inference = Literal["kenward-roger", "satterthwaite"]
Multiplicity = Literal["none", "bonferroni", "holm", "hommel", "hochberg", "fdr_bh", "fixed-sequence", "max-t"]

_LINEAR: tuple[Measure, ...] = ("standardised-difference", "mean-difference")
# what may be asked of each type of outcome; the first is what is done when nothing is said
MEASURES: dict[str, tuple[Measure, ...]] = {
    "continuous": _LINEAR,
    "binary": ("risk-difference", "risk-ratio", "odds-ratio", *_LINEAR),
    "count": ("rate-ratio", "rate-difference", *_LINEAR),
    "ordinal": ("cumulative-odds-ratio", *_LINEAR),
    "bounded": ("mean-difference", "standardised-difference"),
    "skewed": ("mean-ratio", "mean-difference", "standardised-difference"),
}
# which models give a measure, type by type; the first is what is done when nothing is said
_MODELS: dict[tuple[str, str], tuple[Model, ...]] = {
    ("continuous", "standardised-difference"): ("linear-mixed", "marginal"),
    ("continuous", "mean-difference"): ("linear-mixed", "marginal"),
    ("binary", "risk-difference"): ("marginal",),
    ("binary", "risk-ratio"): ("marginal",),
    ("binary", "odds-ratio"): ("marginal", "logistic-mixed"),
    ("count", "rate-ratio"): ("marginal", "poisson-mixed", "negative-binomial-mixed"),
    ("count", "rate-difference"): ("marginal",),
    ("ordinal", "cumulative-odds-ratio"): ("marginal", "ordinal-mixed"),
    ("bounded", "mean-difference"): ("marginal", "linear-mixed"),
    ("bounded", "standardised-difference"): ("marginal", "linear-mixed"),
    ("skewed", "mean-ratio"): ("marginal",),
    ("skewed", "mean-difference"): ("marginal", "linear-mixed"),
    ("skewed", "standardised-difference"): ("marginal", "linear-mixed"),
}


def models_of(kind: str, measure: str) -> tuple[Model, ...]:
    """The models that give a measure of an outcome of this type, the usual one first."""
    return _MODELS.get((kind, measure), ("linear-mixed",))


class Block(BaseModel):
    """A part of the design: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, data: Any) -> Any:
        """TOML's true is not 1."""
        for name, value in data.items() if isinstance(data, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields and "bool" not in str(cls.model_fields[name].annotation):
                raise ValueError(f"{name} = {str(value).lower()}: a number or text is needed here, not true or false")
        return data


class Trial(Block):
    """What the trial is called."""

    title: str = "Cluster-randomised trial"
    registration: str = ""


class Columns(Block):
    """Which column of the participants' table is what.

    `rater` names the column that says which kind of person a row is (``role``: peer or supervisor); without
    it everybody answers every outcome. `pair` is needed only when pairs enter the analysis. `subcluster` names a third
    level between person and site (team, ward, class), which gets a random intercept of its own; where the rows are
    repeated measurements it is the person, and `person` the measurement.
    """

    person: str = "person"
    site: str = "site"
    pair: str | None = None
    arm: str = "arm"
    rater: str | None = None
    subcluster: str | None = None


class Arms(Block):
    """The two arms' values in the arm column; effects are `intervention` minus `reference`."""

    reference: str = "control"
    intervention: str = "intervention"

    @model_validator(mode="after")
    def _differ(self) -> Arms:
        if self.reference == self.intervention:
            raise ValueError(f"reference and intervention are both {self.reference!r}; they must differ")
        return self

    @property
    def labels(self) -> tuple[str, str]:
        """(reference, intervention)."""
        return (self.reference, self.intervention)


class Outcome(Block):
    """One outcome: `name` is its follow-up column, `baseline` its baseline column (default ``name_0``).

    `direction` says which way is better; `family` groups outcomes whose p-values are adjusted together
    (default: the rank); `items` lists the columns a scale score is the mean of.

    `type` decides how it is analysed. `measure` is the effect that is reported and `model` what gives it; left out, they follow
    the type: continuous - Cohen's d by the linear mixed model; binary - risk difference (or ``risk-ratio``, ``odds-ratio``),
    count - rate ratio, ordinal - cumulative odds ratio (proportional odds), each by a marginal model (GEE); bounded (with `bounds`) -
    difference in means by a fractional logit; skewed - ratio of means by a log link. ``measure = "standardised-difference"`` analyses
    any of them on its own scale by the linear mixed model. `levels` lists the values of a binary or ordinal outcome from lowest to
    highest, when they are not numbers; `exposure` names the column of a count's time at risk.
    """

    name: Annotated[str, Field(min_length=1)]
    label: str = ""
    level: str = "person"
    rank: Rank = "secondary"
    rater: str | None = None
    direction: Literal["higher", "lower"] = "higher"
    baseline: str | None = None
    has_baseline: bool = True
    type: OutcomeType = "continuous"
    family: str = ""
    items: tuple[str, ...] = ()
    planted: float | None = None
    measure: Measure | None = None
    model: Model | None = None
    levels: tuple[str, ...] | None = None
    exposure: str | None = None
    bounds: tuple[float, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            data = dict(data)
            data["label"] = data.get("label") or data["name"].replace("_", " ")
            if data.get("has_baseline", True):
                data["baseline"] = data.get("baseline") or f"{data['name']}_0"
            elif data.get("baseline"):
                raise ValueError("has_baseline is false, yet a baseline column is named")
            data["family"] = data.get("family") or data.get("rank", "secondary")
        return data

    @model_validator(mode="after")
    def _measure_fits_type(self) -> Outcome:
        asked, kind = self.measure, self.type
        if asked is not None and asked not in MEASURES[kind]:
            raise ValueError(f"measure = {asked!r} does not suit type = {kind!r}; it takes {', '.join(MEASURES[kind])}")
        if self.model is not None and self.model not in models_of(kind, self.chosen_measure):
            fits = ", ".join(models_of(kind, self.chosen_measure))
            raise ValueError(f"model = {self.model!r} does not give measure = {self.chosen_measure!r} of a {kind} outcome; it takes {fits}")
        if self.levels is not None:
            if kind not in ("binary", "ordinal"):
                raise ValueError(f"levels belong to type = 'binary' or 'ordinal', not to {kind!r}")
            if len(set(self.levels)) != len(self.levels) or len(self.levels) < 2 or (kind == "binary" and len(self.levels) != 2):
                raise ValueError(f"levels must be {'two' if kind == 'binary' else 'at least two'} different values, from lowest to highest")
        if self.exposure is not None and kind != "count":
            raise ValueError(f"exposure belongs to type = 'count', not to {kind!r}")
        if self.exposure is not None and self.chosen_model == "linear-mixed":
            raise ValueError("exposure is for rates, and the linear mixed model has none; leave out measure and model, or exposure")
        if self.bounds is not None and (kind != "bounded" or not self.bounds[0] < self.bounds[1]):
            raise ValueError("bounds = [lowest, highest] belong to type = 'bounded', the lowest first")
        if kind == "bounded" and self.bounds is None:
            raise ValueError("type = 'bounded' needs bounds = [lowest, highest]")
        return self

    @property
    def chosen_measure(self) -> Measure:
        """The effect that is reported, as declared or as usual for the type."""
        return self.measure or MEASURES[self.type][0]

    @property
    def chosen_model(self) -> Model:
        """The model that gives it."""
        return self.model or models_of(self.type, self.chosen_measure)[0]

    @property
    def linear(self) -> bool:
        """Whether it is analysed by the linear mixed model."""
        return self.chosen_model == "linear-mixed"


class Covariate(Block):
    """A covariate of every model; `levels` fixes the order, the first being the reference.

    `type` may also be said as ``nominal``, which is read as ``categorical``.
    """

    name: Annotated[str, Field(min_length=1)]
    type: CovariateType = "continuous"
    levels: tuple[str, ...] | None = None

    @field_validator("type", mode="before")
    @classmethod
    def _nominal_is_categorical(cls, value: Any) -> Any:
        return "categorical" if value == "nominal" else value

    @field_validator("levels")
    @classmethod
    def _levels_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = sorted({v for v in value or () if (value or ()).count(v) > 1})
        if twice:
            raise ValueError(f"the level {twice[0]!r} is listed twice")
        return value


class Estimand(Block):
    """What is estimated: ICH E9(R1)'s five attributes and the weighting of people and sites."""

    population: str = "all randomised"
    treatments: str = "intervention against control"
    endpoint: str = "the outcome at follow-up"
    summary: str = "standardised mean difference (Cohen's d)"
    weighting: Literal["participant-average", "cluster-average", "model-based"] = "model-based"
    intercurrent: str = "treatment policy"


class Analysis(Block):
    """How each outcome is analysed.

    `pair_effects`: ``none`` (sites only, as in the supervision trial), ``random`` or ``fixed``.
    `standardise`: the SD that turns the coefficient of arm into d; ``total`` is the SD over both arms.
    `correction`: of the sandwich of marginal models: Mancl-DeRouen (MD), Kauermann-Carroll (KC), the mean of the two standard errors
    (KC-MD), Fay-Graubard (FG), or none (LZ).
    `random_slope`: linear mixed models let the intervention's effect vary between pairs; with one site an arm in each pair this takes the
    place of the site's intercept. It needs ``pair_effects = "random"``.
    `residual_by_arm`: linear mixed models have a residual variance in each arm.
    """

    inference: Inference = "kenward-roger"
    pair_effects: Literal["none", "random", "fixed"] = "none"
    standardise: Literal["total", "pooled", "control", "baseline", "none"] = "total"
    conf_level: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    multiplicity: Multiplicity = "holm"
    baseline: bool = True
    correction: Correction = "MD"
    random_slope: bool = False
    residual_by_arm: bool = False

    @model_validator(mode="after")
    def _slope_has_its_pairs(self) -> Analysis:
        if self.random_slope and self.pair_effects != "random":
            raise ValueError(f"random_slope varies between pairs: it needs pair_effects = 'random', not {self.pair_effects!r}")
        return self

    @property
    def structured(self) -> bool:
        """Whether linear mixed models have more than random intercepts and one residual variance."""
        return self.random_slope or self.residual_by_arm


class Imputation(Block):
    """Whom and how to impute.

    `population` is ``randomised`` (every row) or the name of a 0/1 column: only rows with 1 are imputed and
    analysed. `auxiliary` columns help to predict but are not analysed.
    """

    population: str = "randomised"
    m: Annotated[int, Field(ge=2)] = 50
    iterations: Annotated[int, Field(ge=1)] = 10
    auxiliary: tuple[str, ...] = ()
    by_arm: bool = False


class Criterion(Block):
    """One matching criterion, in rank order: `column` for most kinds, `columns` (and `robust`, `weights`) for ``mahalanobis``."""

    kind: Literal["exact", "exact_if_possible", "nearest", "mahalanobis"]
    column: str = ""
    caliper: float | None = None
    columns: tuple[str, ...] = ()
    robust: bool = False
    weights: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Criterion:
        if self.caliper is not None and self.kind not in ("nearest", "mahalanobis"):
            raise ValueError(f"a caliper belongs to kind = 'nearest' or 'mahalanobis', not to {self.kind!r}")
        if self.kind == "mahalanobis":
            if self.column or len(self.columns) < 2:
                raise ValueError("kind = 'mahalanobis' takes columns = [...], at least two, and no column")
        elif not self.column:
            raise ValueError(f"column is required for kind = {self.kind!r}")
        elif self.columns or self.robust or self.weights is not None:
            raise ValueError(f"columns, robust and weights belong to kind = 'mahalanobis', not to {self.kind!r}")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the sites table it looks at."""
        return self.columns or (self.column,)


class Allocation(Block):
    """How sites are matched before the draw.

    `odd` is ``single``, ``trio``, ``reserve``, or the id (or ids) of the sites to set aside.
    """

    id: str = "site"
    criteria: tuple[Criterion, ...] = ()
    odd: str | tuple[str, ...] | None = None
    missing: Literal["refuse", "own-level", "range-penalty"] = "refuse"
    method: Literal["lexicographic", "sequential-nearest"] = "lexicographic"
    forbidden: tuple[tuple[str, str], ...] = ()
    required: tuple[tuple[str, str], ...] = ()


class Power(Block):
    """The planning assumptions, kept beside the result."""

    clusters: Annotated[int, Field(ge=4)]
    cluster_size: Annotated[float, Field(gt=0)]
    icc: Annotated[float, Field(ge=0, lt=1)]
    effect: float
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    sides: Literal[1, 2] = 2
    icc_source: str = ""


class Flow(Block):
    """The 0/1 columns from which the participant flow is counted."""

    baseline: str | None = None
    left: str | None = None
    follow_up: str | None = None
    sessions: tuple[str, ...] = ()


class Compliance(Block):
    """What people received, and who followed the protocol: columns that enter only the analyses that bear their name.

    `received`: a column of 0/1 (took the intervention or not) or of a dose; several columns, such as one a session, are added up to a dose.
    `unit` says what one more of a dose is ("session"). `per_protocol`: a column of 1 (followed the protocol of the own arm) and 0.
    """

    received: str | tuple[str, ...] | None = None
    unit: str = ""
    per_protocol: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Compliance:
        if not self.received and not self.per_protocol:
            raise ValueError("name the column(s) of what was received, or of who followed the protocol (per_protocol)")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that make the dose."""
        return (self.received,) if isinstance(self.received, str) else (self.received or ())


class TrialDesign(Block):
    """The whole trial as declared.

    Examples
    --------
    >>> design = TrialDesign.from_text('''
    ... [[outcomes]]
    ... name = "recovery"
    ... rank = "primary"
    ... ''')
    >>> design.outcomes[0].baseline
    'recovery_0'
    >>> TrialDesign.from_text('[[outcomes]]\\nname = "y"\\nrnak = "primary"')
    Traceback (most recent call last):
        ...
    trialkit.door.DesignError: the design, outcomes[1].rnak: no such key. Did you mean 'rank'?
    """

    trial: Trial = Trial()
    columns: Columns = Columns()
    arms: Arms = Arms()
    outcomes: Annotated[tuple[Outcome, ...], Field(min_length=1)]
    covariates: tuple[Covariate, ...] = ()
    estimand: Estimand = Estimand()
    analysis: Analysis = Analysis()
    imputation: Imputation = Imputation()
    allocation: Allocation | None = None
    power: Power | None = None
    flow: Flow | None = None
    compliance: Compliance | None = None

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise DesignError(_explain(error, "the design")) from None

    @field_validator("outcomes", "covariates")
    @classmethod
    def _names_once(cls, value: tuple[Outcome, ...] | tuple[Covariate, ...]) -> Any:
        names = [v.name for v in value]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is listed twice")
        return value

    @model_validator(mode="after")
    def _roles_do_not_clash(self) -> TrialDesign:
        roles = {"person": self.columns.person, "site": self.columns.site, "arm": self.columns.arm}
        if self.columns.pair:
            roles["pair"] = self.columns.pair
        if self.columns.rater:
            roles["rater"] = self.columns.rater
        if self.columns.subcluster:
            roles["subcluster"] = self.columns.subcluster
        used: dict[str, str] = {}
        for role, column in roles.items():
            if column in used:
                raise ValueError(f"columns: {column!r} is named both as {used[column]} and as {role}")
            used[column] = role
        for outcome in self.outcomes:
            for column in filter(None, (outcome.name, outcome.baseline, outcome.exposure)):
                if column in used:
                    raise ValueError(f"outcomes: {column!r} is the {used[column]} column, so it cannot be an outcome")
            if outcome.rater is not None and self.columns.rater is None:
                raise ValueError(f"outcomes: {outcome.name!r} has rater = {outcome.rater!r}, but [columns] names no rater column")
            if outcome.baseline == outcome.name:
                raise ValueError(
                    f"outcomes: {outcome.name!r} is named as its own baseline; name another column, or say has_baseline = false"
                )
        answers = {o.baseline: f"the baseline of {o.name!r}" for o in self.outcomes if o.baseline}
        answers |= {o.name: "an outcome" for o in self.outcomes}
        for covariate in self.covariates:
            if covariate.name in answers:
                raise ValueError(
                    f"covariates: {covariate.name!r} is {answers[covariate.name]} as well; a model has its own baseline already"
                )
            if covariate.name in used:
                raise ValueError(f"covariates: {covariate.name!r} is the {used[covariate.name]} column; the model has it already")
        declared = self.compliance
        for column in () if declared is None else (*declared.columns, *filter(None, (declared.per_protocol,))):
            if column in used or column in answers:
                raise ValueError(
                    f"compliance: {column!r} is {answers.get(column) or f'the {used.get(column)} column'}, so it cannot say this"
                )
        if self.analysis.pair_effects != "none" and self.columns.pair is None:
            raise ValueError(f"analysis: pair_effects = {self.analysis.pair_effects!r} needs [columns] pair")
        if self.analysis.pair_effects == "random" and self.columns.subcluster is not None:
            raise ValueError(
                "analysis: random effects of pair, site and subcluster together are not fitted; say pair_effects = 'fixed' or 'none'"
            )
        return self

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> TrialDesign:
        """Read a design from a TOML file.

        Raises
        ------
        DesignError
            The file is not TOML, has a key that does not exist, or contradicts itself; the message names the
            file and the key.
        """
        data = read_toml(path, error=DesignError)
        try:
            return cls(**data)
        except DesignError as error:
            raise DesignError(str(error).replace("the design", str(path), 1)) from None

    @classmethod
    def from_text(cls, text: str) -> TrialDesign:
        """Read a design from TOML text."""
        try:
            return cls(**tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise DesignError(f"the design is not TOML: {error}.") from None

    def to_toml(self) -> str:
        """The design as TOML that reads back to an equal design."""
        return dump_toml(self.model_dump(mode="json", exclude_none=True, exclude_unset=True))

    @property
    def digest(self) -> str:
        """SHA-256 of the design's canonical JSON. A key that came later is left out at its default, and so moves no earlier digest."""
        names = {"measure", "model", "levels", "exposure", "bounds"}
        later: dict[str, Any] = {"outcomes": {k: {n for n in names if getattr(o, n) is None} for k, o in enumerate(self.outcomes)}}
        if self.columns.subcluster is None:
            later["columns"] = {"subcluster"}
        young = ("correction", "random_slope", "residual_by_arm")
        if same := {n for n in young if getattr(self.analysis, n) == Analysis.model_fields[n].default}:
            later["analysis"] = same
        if self.compliance is None:
            later["compliance"] = True
        return sha256_bytes(self.model_dump_json(exclude=later).encode())

    def for_rater(self, rater: str | None) -> tuple[Outcome, ...]:
        """The outcomes asked of one kind of person (those without a rater are asked of everybody)."""
        return tuple(o for o in self.outcomes if o.rater is None or o.rater == rater)

    @property
    def raters(self) -> tuple[str | None, ...]:
        """The kinds of person that answer outcomes, in order of first mention; (None,) when there is one kind."""
        if self.columns.rater is None:
            return (None,)
        return tuple(dict.fromkeys(o.rater for o in self.outcomes))

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that are labels, never numbers: ids, arm, rater, categorical covariates."""
        c = self.columns
        roles = [c.person, c.site, c.arm, *([c.pair] if c.pair else []), *([c.rater] if c.rater else [])]
        roles += [c.subcluster] if c.subcluster else []
        return (*roles, *(v.name for v in self.covariates if v.type == "categorical"))


def read_toml(path: str | os.PathLike[str], *, error: type[InputError] = InputError) -> dict[str, Any]:
    """A TOML file as plain data; every complaint names the file."""
    try:
        return tomllib.loads(Path(path).read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: no such file. Check the path.") from None
    except IsADirectoryError:
        raise error(f"{path} is a folder, not a TOML file.") from None
    except UnicodeDecodeError:
        raise error(f"{path} is not UTF-8 text. Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as problem:
        raise error(f"{path} is not TOML: {problem}.") from None
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}.") from None


def dump_toml(data: dict[str, Any]) -> str:
    """Plain data (tables, lists of tables, scalars, lists of scalars) as TOML."""
    lines: list[str] = []
    _dump_table(data, (), lines)
    return "\n".join(lines).strip() + "\n"


def _dump_table(table: dict[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    nested = {k: v for k, v in table.items() if isinstance(v, dict)}
    arrays = {k: v for k, v in table.items() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v)}
    for key, value in table.items():
        if key not in nested and key not in arrays:
            lines.append(f"{_toml_key(key)} = {_toml_value(value)}")
    for key, value in nested.items():
        lines += ["", f"[{'.'.join(map(_toml_key, (*path, key)))}]"]
        _dump_table(value, (*path, key), lines)
    for key, value in arrays.items():
        for item in value:
            lines += ["", f"[[{'.'.join(map(_toml_key, (*path, key)))}]]"]
            _dump_table(item, (*path, key), lines)


def _toml_key(key: str) -> str:
    """A bare key where TOML allows one; a name with spaces is quoted."""
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'


def explain_validation(error: ValidationError, where: str, root: type[BaseModel]) -> str:
    """A pydantic error as one sentence: the key's path, what was seen, the nearest right key."""
    problems = error.errors(include_url=False)
    # a misspelt key is also a missing one: say the misspelling
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = problem["loc"]
    path = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")
    if problem["type"] == "extra_forbidden":
        known = _keys_at(root, location[:-1])
        near = nearest_word(str(location[-1]), known)
        hint = f"Did you mean {near!r}?" if near else f"Known keys: {', '.join(known)}."
        return f"{where}, {path}: no such key. {hint}"
    if problem["type"] == "missing":
        return f"{where}: {path} is required and was not given."
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] in ("tuple_type", "list_type") and isinstance(problem["input"], dict):
        return f"{where}, {path}: one table stands where a list of tables is needed. Write [[{path}]] above each, in double brackets."
    if problem["type"] == "too_short":
        return f"{where}: {path} is empty. List at least one."
    if problem["type"] == "string_type" and isinstance(problem["input"], int | float):
        return f'{where}, {path} = {problem["input"]!r}: text is needed; put it in quotes: "{problem["input"]}".'
    if problem["type"] == "value_error" or isinstance(problem.get("input"), dict | list | tuple | BaseModel):
        return f"{where}, {path}: {message}." if path else f"{where}, {message}."
    near = nearest_word(str(problem["input"]), _choices(root, location))
    hint = f" Did you mean {near!r}?" if near else ""
    return f"{where}, {path} = {problem['input']!r}: {message[0].lower()}{message[1:]}.{hint}"


def _explain(error: ValidationError, where: str) -> str:
    return explain_validation(error, where, TrialDesign)


def _annotation_at(root: type[BaseModel], location: tuple[int | str, ...]) -> Any:
    annotation: Any = root
    for part in location:
        if isinstance(part, int):
            continue
        model = _model_in(annotation)
        if model is None or part not in model.model_fields:
            return None
        annotation = model.model_fields[part].annotation
    return annotation


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _keys_at(root: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    model = _model_in(_annotation_at(root, location))
    return list(model.model_fields) if model else []


def _choices(root: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The words a key takes, also where it may be left out."""
    # pydantic names the member of a union as one more step, which no model has
    found = _annotation_at(root, location)
    return _words_in(found if found is not None else _annotation_at(root, location[:-1]))


def _words_in(annotation: Any) -> list[str]:
    return [word for a in get_args(annotation) for word in ([a] if isinstance(a, str) else _words_in(a))]
