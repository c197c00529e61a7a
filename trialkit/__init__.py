"""trialkit: cluster-randomised trials from site list to published table.

The names below are the whole public surface; each is loaded when it is first used (PEP 562), so that
``import trialkit`` costs next to nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_HOME = {
    # the declared trial
    "TrialDesign": "trialkit.design",
    # allocation
    "exact": "trialkit.allocation",
    "exact_if_possible": "trialkit.allocation",
    "nearest": "trialkit.allocation",
    "match_pairs": "trialkit.allocation",
    "mahalanobis": "trialkit.allocation",
    "within_pairs": "trialkit.allocation",
    "stratified": "trialkit.allocation",
    "constrained": "trialkit.allocation",
    "simple": "trialkit.allocation",
    "Minimisation": "trialkit.allocation",
    "verify": "trialkit.allocation",
    # power
    "power": "trialkit.power",
    "PowerDesign": "trialkit.power",
    "sample_size": "trialkit.power",
    "detectable_effect": "trialkit.power",
    "estimate_icc": "trialkit.power",
    # analysis
    "impute": "trialkit.imputation",
    "pool": "trialkit.imputation",
    "itt": "trialkit.itt",
    "fit_mixed": "trialkit.itt",
    "compare_methods": "trialkit.itt",
    # simulation
    "Scenario": "trialkit.simulation",
    "simulate": "trialkit.simulation",
    "check": "trialkit.simulation",
    "planned_power": "trialkit.simulation",
    "redesign": "trialkit.simulation",
    # report
    "report": "trialkit.report",
}

__all__ = ["__version__", *_HOME]


class _Package(ModuleType):
    """Keeps the verbs that share a room's name: ``tk.power`` is the function, though ``trialkit.power`` is a package too.

    Python binds a submodule to its parent when it is first imported, which would hide the verb; that one
    binding is declined. ``from trialkit.power import ...`` works as ever.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'trialkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
