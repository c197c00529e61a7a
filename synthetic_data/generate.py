"""Make the shipped data again: python synthetic_data/generate.py [--check]

The CSV files beside this script are ``simulate(supervision.toml, seed=1)``. With --check nothing is written; the
exit code is 1 when a file is not what the scenario gives.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trialkit.door import write_whole
from trialkit.simulation import Scenario, simulate

HERE = Path(__file__).parent
SEED = 1


def files() -> dict[str, str]:
    """The shipped files' contents by name."""
    return simulate(Scenario.from_toml(HERE / "scenarios" / "supervision.toml"), seed=SEED).files()


def main() -> int:
    """Write the files, or compare them."""
    made = files()
    if "--check" in sys.argv[1:]:
        stale = [name for name, text in made.items() if not (HERE / name).exists() or (HERE / name).read_bytes() != text.encode()]
        said = "\n".join(f"{name} is not what the scenario gives" for name in stale) or "all files are what the scenario gives"
        sys.stdout.write(f"{said}\n")
        return 1 if stale else 0
    for name, text in made.items():
        write_whole(HERE / name, text, force=True)
        sys.stdout.write(f"{name}: {text.count(chr(10)) - 1:,} rows, {len(text.encode()):,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
