"""The analysis model as declared to `impute`: one outcome, main effects, products; read from a formula and laid out as columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from trialkit.door import InputError, few, nearest_word, printable
from trialkit.imputation.variables import WHERE, Column

_NAME = re.compile(r"\s*(?:`([^`]+)`|([^\W\d][\w.]*))\s*$")
_POWER = re.compile(r"\s*I\((.+?)(?:\*\*|\^)\s*(\d+)\s*\)\s*$")
_MOST = 3


@dataclass(frozen=True, slots=True)
class Substantive:
    """`outcome ~ main + ... + products`; a product is a tuple of names, a name twice for its square."""

    outcome: str
    main: tuple[str, ...]
    products: tuple[tuple[str, ...], ...]

    @property
    def curved(self) -> frozenset[str]:
        """The variables that enter a product: their conditional distribution is not a linear regression."""
        return frozenset(name for product in self.products for name in product)


def parse(text: str) -> Substantive:
    """Read `outcome ~ a * b + a:c + I(a**2)`; whatever enters a product gets its main effect and the products below it.

    Raises
    ------
    InputError
        The text is not such a formula.
    """
    if not isinstance(text, str):
        raise InputError(f"substantive must be a formula such as 'mood ~ arm * mood_0', not {type(text).__name__}.")
    left, tilde, right = text.partition("~")
    if not tilde:
        raise _unreadable(text, "there is no ~")
    outcome = _name(left, text)
    if "|" in right:
        raise _unreadable(text, "the site's random intercept is in the model already; leave (1|...) out")
    main: dict[str, None] = {}
    products: dict[tuple[str, ...], None] = {}
    for term in right.split("+"):
        power = _POWER.match(term)
        factors = [_name(power[1], text)] * int(power[2]) if power else [_name(part, text) for part in re.split(r"[*:]", term)]
        if len(factors) > _MOST:
            raise _unreadable(text, f"{term.strip()!r} has {len(factors)} factors; {_MOST} are the most")
        for name in factors:
            main.setdefault(name)
        for size in range(2, len(factors) + 1):
            for chosen in combinations(sorted(factors), size):
                products.setdefault(chosen)
    if outcome in main:
        raise _unreadable(text, f"{outcome!r} stands on both sides")
    return Substantive(outcome, tuple(main), tuple(products))


def check(model: Substantive, columns: Sequence[Column], arm: str, *, apart: bool) -> None:
    """The declared model against the columns of the imputation model; arm is known by its own name.

    Raises
    ------
    InputError
        A name is not in the imputation model; the outcome is not continuous, or follows from its items; an incomplete factor of a product
        is nominal, a count or a site's property; arm while arms are imputed apart.
    """
    known = {c.name: c for c in columns}
    for name in (model.outcome, *model.main):
        if name not in known and name != arm:
            near = nearest_word(name, [*known, arm])
            raise InputError(
                f"substantive: {name!r} is not a column of the imputation model.{f' Did you mean {near!r}?' if near else ''} It needs the "
                "outcomes, covariates or auxiliary columns of the design."
            )
    if apart and arm in model.main:
        raise InputError(
            f"substantive: with by_arm every association differs by arm already. Leave {arm!r} out of the formula, or by_arm out of the "
            "call."
        )
    outcome = known.get(model.outcome)
    if outcome is None or outcome.type != "continuous" or outcome.site_level:
        raise InputError(
            f"substantive: the outcome {model.outcome!r} must be a continuous column of people: a linear mixed model is meant."
        )
    if outcome.variable.items:
        raise InputError(f"substantive: {model.outcome!r} follows from its items. Say items=False.")
    for name in sorted(model.curved - {arm}):
        column = known[name]
        if column.missing.any() and (column.site_level or column.type in ("nominal", "count")):
            what = "one value a site" if column.site_level else column.type
            raise InputError(
                f"{WHERE}: {name!r} has missing cells, enters a product of the substantive model and is {what}; only continuous, binary "
                f"and ordinal columns of people are drawn given such a model ({few([':'.join(p) for p in model.products if name in p])})."
            )


def _name(text: str, formula: str) -> str:
    found = _NAME.match(text)
    if found is None:
        raise _unreadable(formula, f"{text.strip()!r} is not a name")
    return found[1] or found[2]


def _unreadable(text: str, what: str) -> InputError:
    return InputError(
        f"the substantive model {printable(text)!r}: {printable(what)}. Write it as outcome ~ a * b + a:c + I(a**2), names with signs in "
        "`backticks`."
    )
