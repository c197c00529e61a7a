"""The scenarios that come with trialkit: inside an installed wheel, or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path

from trialkit.door import InputError, unknown_word
from trialkit.simulation.scenario import Scenario

_PLACES = (Path(__file__).parent / "shipped" / "scenarios", Path(__file__).parents[2] / "synthetic_data" / "scenarios")


def shipped_scenario(name: str = "supervision") -> Scenario:
    """A scenario that comes with trialkit, by name.

    Parameters
    ----------
    name : str
        ``supervision`` (the published trial's shape), ``null`` (the same without effects), ``mnar``.

    Returns
    -------
    Scenario

    Raises
    ------
    InputError
        There is no such scenario.

    Examples
    --------
    >>> len(shipped_scenario("supervision").outcomes)
    18
    """
    folder = next((p for p in _PLACES if p.is_dir()), None)
    if folder is None:
        raise InputError("the scenarios that come with trialkit are not where they should be. Install trialkit again.")
    names = sorted(p.stem for p in folder.glob("*.toml"))
    if name not in names:
        raise InputError(unknown_word(name, names, what="scenario"))
    return Scenario.from_toml(folder / f"{name}.toml")
