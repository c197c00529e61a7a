"""Sites that entered one by one, as a plan like any other: re-randomised in the order and with the levels they came with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from trialkit import door
from trialkit._kernels import draws as hashing
from trialkit.allocation import canonical, methods
from trialkit.allocation.biased_coin import MEASURES, Rule
from trialkit.allocation.plans import Array, Codes, Plan, check_arms, check_n
from trialkit.allocation.sites import by_bytes
from trialkit.allocation.stratified import check_ratio, check_rows
from trialkit.door import InputError, VerificationError


@dataclass(frozen=True, kw_only=True, eq=False)
class Minimised(Plan):
    """Minimisation given who entered, when and with which levels (`rows` are in the order of entry).

    Attributes
    ----------
    rule : Rule
        What was declared before the first site entered; its text is the plan's, so entries do not change P.
    """

    scheme: ClassVar[str] = "minimisation"
    commits_to: ClassVar[str] = "the plan, its arms and its rule for the seed"

    rule: Rule

    @cached_property
    def text(self) -> str:
        """The rule's text."""
        return self.rule.text

    @cached_property
    def commitment(self) -> str:
        """C: binds, besides P, the arms' names and the rule for the seed; sites enter after it is published."""
        rule = self.seed_rule if self.seed_rule is None or isinstance(self.seed_rule, str) else dict(self.seed_rule)
        body = {"scheme": self.scheme, "plan": self.digest, "arms": list(self.arms), "seed_rule": rule}
        return door.sha256_bytes(b"trialkit-commitment-1\n" + canonical.content(body))

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites by their UTF-8 bytes."""
        return tuple(by_bytes(self.rows))

    @cached_property
    def _levels(self) -> list[tuple[str, ...]]:
        """Levels in the order of entry."""
        return [self.record.cells[s] for s in self.rows]

    @cached_property
    def _order(self) -> list[int]:
        """Place in the order of entry of each of `sites`."""
        entered = {s: k for k, s in enumerate(self.rows)}
        return [entered[s] for s in self.sites]

    @property
    def n_assignments(self) -> int:
        """Arms to the power of sites; with a coin below 1 each can happen."""
        return int(len(self.arms) ** len(self.rows))

    def probabilities(self) -> Array:
        """Equal by symmetry when the arms have equal places; else shares of 20,000 re-randomisations, (n_sites, n_arms)."""
        n_arms = len(self.arms)
        if len(set(self.rule.ratio)) == 1:
            return np.full((len(self.sites), n_arms), 1 / n_arms)
        drawn = self.sample(20_000, seed=0)
        return np.stack([(drawn == a).mean(axis=0) for a in range(n_arms)], axis=1)

    def allocate(self, seed: bytes) -> tuple[Codes, tuple[hashing.Draw, ...]]:
        """The sites one after the other, in their order of entry."""
        entered: list[tuple[tuple[str, ...], int]] = []
        drawn: list[hashing.Draw] = []
        for site, levels in zip(self.rows, self._levels, strict=True):
            entry = self.rule.decide(seed, entered, site, levels)
            entered.append((levels, entry.code))
            drawn += entry.draws
        codes = np.array([code for _, code in entered], dtype=np.int8)
        return codes[self._order], tuple(drawn)

    def sample(self, n: int, *, seed: int) -> Codes:
        """`n` re-randomisations (Simon 1979), (n, n_sites), columns as `sites`."""
        check_n(n, seed)
        return self.rule.sample(f"trialkit-sample-1\n{self.digest}\n{int(seed)}", self._levels, n)[:, self._order]

    def assignments(self, limit: int = 100_000) -> Codes:
        """Refused: the allocations of a minimisation are not equally likely."""
        raise InputError("the allocations of a minimisation are not equally likely, so a list would mislead. Use plan.sample(n, seed=...).")

    # --- files and words ---

    def groups(self) -> dict[str, str | None]:
        """None."""
        return {}

    def detail(self) -> dict[str, Any]:
        """The rule; fractions as text."""
        return {
            "ratio": list(self.rule.ratio),
            "measure": self.rule.measure,
            "probability": str(self.rule.probability),
            "factors": [[name, str(weight)] for name, weight in self.rule.weights.items()],
        }

    @classmethod
    def from_detail(cls, record: Mapping[str, Any], common: Mapping[str, Any]) -> Self:
        """The plan out of its file's entries."""
        arms = check_arms(common["arms"])
        if record["measure"] not in MEASURES:
            raise VerificationError(f"the plan names an unknown measure of imbalance, {door.printable(record['measure'])!r}.")
        rule = Rule(
            arms=arms,
            ratio=check_ratio([int(r) for r in record["ratio"]], arms),
            measure=str(record["measure"]),
            probability=Fraction(str(record["probability"])),
            weights={str(name): Fraction(str(weight)) for name, weight in record["factors"]},
        )
        return cls(rule=rule, **common)

    def recheck(self) -> list[tuple[str, str]]:
        """The order of entry names every recorded site once, with a level of every factor."""
        check_rows(self.rows, self.record)
        if [name for name, _ in self.record.columns] != list(self.rule.weights):
            raise VerificationError("the factors are not the columns of the sites' record.")
        return [("entries", f"{len(self.rows)} sites in their order of entry")]

    def methods_text(self) -> str:
        """A paragraph for a protocol or a paper."""
        rule = self.rule
        weights = "" if len(set(rule.weights.values())) == 1 else f" (weights {', '.join(map(str, rule.weights.values()))})"
        return (
            f"Sites were allocated one by one as they entered, by minimisation (Pocock and Simon) on "
            f"{methods.listed(list(rule.weights))}{weights}, "
            f"imbalance being the {rule.measure} of the arms' marginal totals, to {methods.listed(list(rule.arms))} in the ratio "
            f"{':'.join(map(str, rule.ratio))}. The preferred arm was given with probability {float(rule.probability):g}, "
            f"ties being broken at random. "
            f"Coins were computed as an HMAC-SHA256 of a seed from outside the study, the plan's digest {self.digest} and "
            f"the site's identifier; "
            f"each entry was written to an append-only log before the arm was told. {methods.closing(one_by_one=True)}"
        )
