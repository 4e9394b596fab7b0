"""Check the checkpoints of runs: `python scripts/verify.py run=FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from marl.cli import main, options
from marl.validation import ConfigError

USAGE = """
usage: python scripts/verify.py run=FOLDER[,FOLDER,...]

  Prints one JSON object for each checkpoint of each run: its number, whether its files are what
  was written, and if not, what is wrong. Nothing is changed.

Exit codes: 0 every run has a checkpoint that can be used, 2 one has none.
"""


def verify(arguments: list[str]) -> int:
    """Print the state of every checkpoint; returns the exit code."""
    own, rest = options(arguments, {"run": ""})
    if rest or not own["run"]:
        raise ConfigError([f"{rest[0]}: no such option; there is run" if rest else "run=: name a run folder"])
    from marl import checkpoint

    usable = True
    for run in own["run"].split(","):
        folder = Path(run) / "checkpoints"
        if not (Path(run) / "config.yaml").is_file():
            raise ConfigError([f"{run} is not a run folder: it has no config.yaml"])
        found = {number: checkpoint.verify(folder, number) for number in checkpoint.numbers(folder)}
        for number, problem in found.items():
            print(json.dumps({"run": run, "checkpoint": number, "valid": not problem, "problem": problem}))
        usable &= None in found.values()
        if not found:
            print(json.dumps({"run": run, "checkpoint": None, "valid": False, "problem": "no checkpoint"}))
    return 0 if usable else 2


if __name__ == "__main__":
    sys.exit(main(USAGE, verify))
