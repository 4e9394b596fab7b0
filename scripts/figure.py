"""Produce a figure and check its claims: `python scripts/figure.py PAPER/FIGURE [scale=smoke|paper]`."""

from __future__ import annotations

import sys
from pathlib import Path

from marl.cli import main, options
from marl.device import start_device
from marl.validation import ConfigError

USAGE = """
usage: python scripts/figure.py PAPER/FIGURE [scale=smoke|paper] [out=FOLDER] [KEY=VALUE ...]

  Runs what configs/experiment/PAPER/FIGURE.yaml describes and writes a PNG, a CSV and claims.json
  to out (default figures/PAPER/FIGURE-SCALE). scale=paper is the published setting, scale=smoke
  (the default) a reduced one for a small machine, with claims of its own. Some figures have
  further scales: duque2025/coin_game scale=cpu. A folder that holds
  part of the work is completed. Further KEY=VALUE are overrides as for train.py.

Exit codes: 0 all claims met, 1 a claim is not met, 2 bad input, 5 a run diverged, 75 and 130 stopped and
resumable.
"""


def figure(arguments: list[str]) -> int:
    """Make the figure named first; returns the exit code."""
    from marl.config import groups
    from marl.plugins import named_in

    own, rest = options(arguments, {"scale": "smoke", "out": ""})
    known = groups(named_in(rest))["experiment"]
    if not rest or rest[0] not in known:
        name = rest[0] if rest else "(none given)"
        raise ConfigError([f"no figure {name}; choose one of: {', '.join(known)}"])
    name, overrides = rest[0], rest[1:]
    from marl.experiment import plan, run_experiment

    start_device(next(iter(plan(name, overrides, own["scale"]).values())).device)
    folder = Path(own["out"] or f"figures/{name}-{own['scale']}")
    outcome = run_experiment(name, overrides, own["scale"], folder)
    if outcome.exit_code:
        print("stopped and saved; the same command goes on" if outcome.exit_code in (75, 130) else "failed")
        return outcome.exit_code
    met = sum(claim.met for claim in outcome.claims)
    print(f"figure: {folder / name.replace('/', '-')}.png")
    lines = "; ".join(claim.line() for claim in outcome.claims)
    print(f"{met} of {len(outcome.claims)} claims met: {lines}")
    return 0 if met == len(outcome.claims) else 1


if __name__ == "__main__":
    sys.exit(main(USAGE, figure))
