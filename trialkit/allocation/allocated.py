"""What did happen: the arms, their balance, and the certificate from which anybody can derive them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trialkit._kernels.draws import Draw
from trialkit.allocation import balance as balancing
from trialkit.allocation import seeds
from trialkit.allocation.certificate import Certificate
from trialkit.allocation.seeds import Seed
from trialkit.results import Result

if TYPE_CHECKING:
    from trialkit.allocation.plans import Plan

Codes = np.ndarray[Any, np.dtype[np.int8]]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, kw_only=True, eq=False)
class Allocation(Result):
    """A drawn plan.

    Attributes
    ----------
    plan : Plan
        What could have happened.
    seed : Seed
        The seed and its source.
    codes : (n_sites,) int8
        Arm codes of ``plan.sites``; -1 for a site left without an arm.
    draws : tuple of Draw
        Every hash that was drawn.
    warning : str or None
        What was said of a short seed.
    attempts : int or None
        Draws tried on this plan so far, from the log; None when no log was kept.
    log_head : str or None
        The log's last hash when the draw was made.
    drawn_at : str
        UTC.
    """

    plan: Plan
    seed: Seed
    codes: Codes
    draws: tuple[Draw, ...]
    warning: str | None = None
    attempts: int | None = None
    log_head: str | None = None
    drawn_at: str = field(default_factory=_now)

    @cached_property
    def arms(self) -> dict[str, str]:
        """Arm of each randomised site that has one."""
        return {s: self.plan.arms[c] for s, c in zip(self.plan.sites, self.codes.tolist(), strict=True) if c >= 0}

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a site in the table's row order: the id column, its pair (or stratum), its arm; missing for a site left out."""
        groups = self.plan.groups()
        rows = self.plan.rows
        columns: dict[str, Any] = {self.plan.id: pd.Series(list(rows), dtype="str")}
        if self.plan.group_name is not None:
            columns[self.plan.group_name] = pd.Series([groups.get(s) for s in rows], dtype="str")
        columns["arm"] = pd.Series([self.arms.get(s) for s in rows], dtype="str")
        return pd.DataFrame(columns)

    @property
    def title(self) -> str:
        """A line above the table."""
        counts = ", ".join(f"{sum(a == arm for a in self.arms.values())} {arm}" for arm in self.plan.arms)
        return f"Allocation of {len(self.arms)} sites: {counts}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines below the table: plan, seed and whether it is anchored."""
        lines = [f"Plan {self.plan.digest}.", f"Seed {self.seed.text} ({self.seed.source})."]
        ok, why = seeds.anchored(self.seed, self.plan.seed_rule)
        lines.append(f"Seed anchored: {why}." if ok else f"{why}.")
        if self.attempts is not None:
            lines.append(f"Attempts at a draw on this plan: {self.attempts}.")
        if self.warning:
            lines.append(f"Short seed: {self.warning}.")
        return tuple(lines)

    def balance(self, covariates: pd.DataFrame | None = None) -> balancing.Balance:
        """Balance between the arms, one row a covariate.

        Parameters
        ----------
        covariates : DataFrame, optional
            The id column and any columns to compare; by default the columns the plan was made of.

        Returns
        -------
        Balance
            Standardised differences, each with its quantile in this plan's own randomisation distribution. No
            p-values: randomisation is known, so a test of it can only be right by being silent.
        """
        return balancing.balance(self.plan, self.codes, covariates=covariates)

    def omnibus(self, covariates: pd.DataFrame | None = None) -> balancing.Omnibus:
        """Hansen and Bowers' d-squared over all covariates at once, against the plan's own distribution."""
        return balancing.omnibus(self.plan, self.codes, covariates=covariates)

    @cached_property
    def certificate(self) -> Certificate:
        """Everything needed to derive this allocation again without the solver."""
        return Certificate.of(self)

    def logged(self, *, attempts: int, log_head: str) -> Allocation:
        """The same allocation, with the state of the log it was written down in."""
        return replace(self, attempts=attempts, log_head=log_head)

    def blinded(self, *, secret: str | None = None) -> tuple[pd.DataFrame, Mapping[str, Any]]:
        """The allocation with arms coded A, B, ... and the key to them, to be kept apart (see `blinding.blind`)."""
        from trialkit.allocation.blinding import blind

        return blind(self, secret=secret)
