"""Model formulas in R's notation, read by a small parser of our own: nothing in a formula is ever evaluated.

Read are ``y ~ a + b``, ``a:b``, ``a*b``, parentheses, ``^2``, ``0`` / ``-1`` / ``1``, removal by ``-``, ``factor(x)``, names with any
characters between backticks, and random parts as lme4 writes them: ``(1|site)``, ``(1|pair/site)``, ``(1|pair:site)``, ``(1 + arm|pair)``,
``(0 + arm|pair)``, ``(1 + arm||pair)``.
Terms come out in R's order (`terms.formula`): main effects, two-way, three-way ..., each as first written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from trialkit.door import InputError, printable

_GRAMMAR = (
    "A formula may hold column names (with backticks when a name has spaces or signs), + - : * ^ ( ), 0 or 1, factor(x) "
    "and random parts such as (1|site) or (1 + arm|pair)."
)
_TOKEN = re.compile(r"\s*(?:(?P<quoted>`[^`]*`)|(?P<number>\d+(?:\.\d+)?)|(?P<name>[^\W\d][\w.]*|\.[^\W\d][\w.]*)|(?P<sign>[~+\-:*^/()|]))")


@dataclass(frozen=True, slots=True, order=True)
class Variable:
    """A column of the data, taken as it is or, by ``factor(x)``, as a factor whatever its type."""

    column: str
    as_factor: bool = False

    @property
    def label(self) -> str:
        """The name R gives it in front of its levels."""
        return f"factor({self.column})" if self.as_factor else self.column


Term = tuple[Variable, ...]


@dataclass(frozen=True, slots=True)
class RandomPart:
    """What varies between the groups of one factor: ``(1 + arm|pair)``."""

    group: tuple[str, ...]  # the columns whose combination makes the groups
    terms: tuple[Term, ...] = ()  # what has a slope
    intercept: bool = True
    correlated: bool = True  # False for ``||``: every column has a variance of its own


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula.

    Attributes
    ----------
    text : str
    response : str
        Column on the left of ``~``.
    terms : tuple of tuple of Variable
        Fixed-effect terms in R's order, the intercept apart; inside a term variables stand in the order of `variables`.
    intercept : bool
    groups : tuple of tuple of str
        Grouping factors of the random intercepts, in the order written, each the columns whose combination makes it:
        ``(1|pair/site)`` gives ``(("pair",), ("pair", "site"))``.
    random : tuple of RandomPart
        The same with what varies between the groups.
    """

    text: str
    response: str
    terms: tuple[Term, ...]
    intercept: bool
    groups: tuple[tuple[str, ...], ...]
    random: tuple[RandomPart, ...] = ()

    @property
    def sloped(self) -> bool:
        """Whether anything but intercepts varies between groups."""
        return any(part.terms or not part.intercept for part in self.random)

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Variables of the fixed part in the order of first mention."""
        return tuple(dict.fromkeys(v for term in self.terms for v in term))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column needed, the response first."""
        fixed = [v.column for v in self.variables]
        return tuple(dict.fromkeys([self.response, *fixed, *(c for group in self.groups for c in group)]))


def term_label(term: Term) -> str:
    """A term as R prints it: ``a:b``."""
    return ":".join(v.label for v in term)


def parse(text: str) -> Formula:
    """Read a model formula.

    Parameters
    ----------
    text : str
        For example ``"y ~ arm + y_0 + age_band + (1|site)"``.

    Returns
    -------
    Formula

    Raises
    ------
    InputError
        The text is not a formula; the message shows where reading stopped.

    Examples
    --------
    >>> f = parse("y ~ a*b + (1|pair/site)")
    >>> [term_label(t) for t in f.terms], f.intercept, f.groups
    (['a', 'b', 'a:b'], True, (('pair',), ('pair', 'site')))
    >>> parse("y ~ log(x)")
    Traceback (most recent call last):
        ...
    trialkit.door.InputError: the formula 'y ~ log(x)': log(...) is not evaluated. Make the column first, e.g. frame["log_x"], and name it.
    """
    if not isinstance(text, str):
        raise InputError(f"a formula is text such as 'y ~ arm + (1|site)', not {type(text).__name__}.")
    return _parsed(text)


@lru_cache(maxsize=512)
def _parsed(text: str) -> Formula:
    return _Parser(text).formula()


@dataclass(slots=True)
class _Sum:
    """Terms of a sum while it is read: `intercept` is None until a 0, 1 or -1 speaks of it."""

    terms: list[frozenset[Variable]]
    intercept: bool | None = None


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.order: dict[Variable, int] = {}
        self.random: list[RandomPart] = []
        self.tokens = self._tokens()
        self.at = 0

    # --- words

    def _tokens(self) -> list[tuple[str, str, int]]:
        out = []
        position = 0
        stripped = self.text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None:
                start = position + len(stripped[position:]) - len(stripped[position:].lstrip())
                raise self._error(f"{stripped[start]!r} is not understood", start)
            kind = str(match.lastgroup)
            word = match.group(kind)
            if kind == "quoted":
                kind, word = "name", word[1:-1]
                if not word:
                    raise self._error("the name between the backticks is empty", match.start(str(match.lastgroup)))
            out.append((kind, word, match.start(str(match.lastgroup))))
            position = match.end()
        return out

    def _error(self, what: str, position: int | None = None) -> InputError:
        place = f" at character {position + 1}" if position is not None else ""
        return InputError(f"the formula {printable(self.text)!r}: {printable(what)}{place}. {_GRAMMAR}")

    def _peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) and self.tokens[self.at][0] == "sign" else ""

    def _take(self, sign: str) -> bool:
        if self._peek() == sign:
            self.at += 1
            return True
        return False

    def _unexpected(self) -> InputError:
        if self.at >= len(self.tokens):
            return self._error("it ends too early")
        kind, word, position = self.tokens[self.at]
        if word == "/" and kind == "sign":
            return self._error("'/' is read only in a random part, (1|pair/site); write a + a:b for a/b", position)
        return self._error(f"{word!r} is not expected", position)

    def _name(self) -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at][0] != "name":
            raise self._unexpected()
        self.at += 1
        return self.tokens[self.at - 1][1]

    # --- sentences

    def formula(self) -> Formula:
        if sum(word == "~" and kind == "sign" for kind, word, _ in self.tokens) != 1:
            raise self._error("it needs one '~' with the outcome on its left")
        response = self._name()
        if not self._take("~"):
            raise self._error("the outcome on the left of '~' must be one column name; transform the column first")
        total = self._sum(top=True)
        if self.at != len(self.tokens):
            raise self._unexpected()
        terms = self._in_order(total)
        for term in (*terms, *(t for part in self.random for t in part.terms)):
            columns = [v.column for v in term]
            if response in columns:
                raise self._error(f"the outcome {response!r} stands on both sides of '~'")
        return Formula(
            text=self.text,
            response=response,
            terms=terms,
            intercept=total.intercept is not False,
            groups=tuple(dict.fromkeys(part.group for part in self.random)),
            random=tuple(dict.fromkeys(self.random)),
        )

    def _in_order(self, total: _Sum) -> tuple[Term, ...]:
        # R: main effects first, then two-way ...; stable within an order
        ordered = sorted(dict.fromkeys(total.terms), key=len)
        return tuple(tuple(sorted(term, key=self.order.__getitem__)) for term in ordered)

    def _sum(self, *, top: bool) -> _Sum:
        total = _Sum([])
        sign = "+"
        if self._peek() in ("+", "-"):
            sign = self._peek()
            self.at += 1
        while True:
            part = self._product(top=top, removing=sign == "-")
            if sign == "+":
                total.terms += part.terms
                if part.intercept is not None:
                    total.intercept = part.intercept
            else:
                total.terms = [t for t in total.terms if t not in part.terms]
                if part.intercept is not None:
                    total.intercept = not part.intercept
            if self._peek() not in ("+", "-"):
                return total
            sign = self._peek()
            self.at += 1

    def _product(self, *, top: bool, removing: bool) -> _Sum:
        left = self._interaction(top=top, removing=removing)
        while self._take("*"):
            right = self._interaction(top=False, removing=False)
            self._no_constant(left, right)
            left = _Sum(left.terms + right.terms + [a | b for a in left.terms for b in right.terms])
        return left

    def _interaction(self, *, top: bool, removing: bool) -> _Sum:
        left = self._power(top=top, removing=removing)
        while self._take(":"):
            right = self._power(top=False, removing=False)
            self._no_constant(left, right)
            left = _Sum([a | b for a in left.terms for b in right.terms])
        return left

    def _no_constant(self, *parts: _Sum) -> None:
        if any(part.intercept is not None or not part.terms for part in parts):
            raise self._error("0 and 1 cannot take part in an interaction")

    def _power(self, *, top: bool, removing: bool) -> _Sum:
        base = self._atom(top=top, removing=removing)
        if not self._take("^"):
            return base
        self._no_constant(base)
        if self.at >= len(self.tokens) or not self.tokens[self.at][1].isdecimal():
            raise self._unexpected()
        power = int(self.tokens[self.at][1])
        self.at += 1
        if not 1 <= power <= 9:
            raise self._error(f"^{power} is not a power between 1 and 9")
        crossed = [
            frozenset[Variable]().union(*chosen)
            for k in range(1, min(power, len(base.terms)) + 1)
            for chosen in combinations(base.terms, k)
        ]
        return _Sum(crossed)

    def _atom(self, *, top: bool, removing: bool) -> _Sum:
        if self.at >= len(self.tokens):
            raise self._unexpected()
        kind, word, position = self.tokens[self.at]
        if kind == "number":
            self.at += 1
            if word not in ("0", "1"):
                raise self._error(f"the number {word} has no meaning here; only 0 (no intercept) and 1 have", position)
            return _Sum([], intercept=word == "1")
        if kind == "name":
            self.at += 1
            if self._peek() == "(":
                return self._factor(word)
            return _Sum([self._variable(Variable(word))])
        if not self._take("("):
            raise self._unexpected()
        inner = self._sum(top=False)
        if self._take("|"):
            return self._bar(inner, position, top=top, removing=removing)
        if not self._take(")"):
            raise self._unexpected()
        return inner

    def _factor(self, word: str) -> _Sum:
        inside = self.tokens[self.at + 1][1] if self.at + 1 < len(self.tokens) else "x"
        if word != "factor":
            raise InputError(
                f"the formula {printable(self.text)!r}: {printable(word)}(...) is not evaluated. "
                f'Make the column first, e.g. frame["{printable(word)}_{printable(inside)}"], and name it.'
            )
        self.at += 1
        column = self._name()
        if not self._take(")"):
            raise self._unexpected()
        return _Sum([self._variable(Variable(column, as_factor=True))])

    def _variable(self, variable: Variable) -> frozenset[Variable]:
        self.order.setdefault(variable, len(self.order))
        return frozenset([variable])

    def _bar(self, left: _Sum, position: int, *, top: bool, removing: bool) -> _Sum:
        if not top or removing:
            raise self._error("a random part such as (1|site) must be added with '+'", position)
        correlated = not self._take("|")
        terms, intercept = self._in_order(left), left.intercept is not False
        if not terms and left.intercept is not True:
            raise self._error("a random part needs something that varies: (1|site), (1 + arm|pair)", position)
        columns = [self._name()]
        if self._peek() == ":":
            while self._take(":"):
                columns.append(self._name())
            groups = [tuple(columns)]
        else:
            while self._take("/"):
                columns.append(self._name())
            groups = [tuple(columns[: k + 1]) for k in range(len(columns))]
        if not self._take(")"):
            raise self._unexpected()
        self.random += [RandomPart(group, terms, intercept, correlated) for group in groups]
        return _Sum([])
