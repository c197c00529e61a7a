"""Simulation: a scenario becomes trials, and trials say whether the planned analysis does what it promises."""

from __future__ import annotations

from trialkit.simulation.operating import CheckResult, check
from trialkit.simulation.planned import PlannedPower, planned_power
from trialkit.simulation.redesign import RedesignResult, redesign
from trialkit.simulation.scenario import Scenario
from trialkit.simulation.shipped import shipped_scenario
from trialkit.simulation.trial import Trial, simulate

__all__ = [
    "CheckResult",
    "PlannedPower",
    "RedesignResult",
    "Scenario",
    "Trial",
    "check",
    "planned_power",
    "redesign",
    "shipped_scenario",
    "simulate",
]
