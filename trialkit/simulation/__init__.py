"""Simulation: a scenario becomes trials, and trials say whether the planned analysis does what it promises."""

from __future__ import annotations

from trialkit.simulation.operating import CheckResult, check
from trialkit.simulation.scenario import Scenario
from trialkit.simulation.trial import Trial, simulate

__all__ = ["CheckResult", "Scenario", "Trial", "check", "simulate"]
