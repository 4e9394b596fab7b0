"""Produce a figure and check its claims: `python scripts/figure.py PAPER/FIGURE [scale=smoke|paper]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from marl.cli import main, options, whole_number
from marl.device import start_device
from marl.validation import ConfigError

USAGE = """
usage: python scripts/figure.py PAPER/FIGURE [scale=smoke|paper] [out=FOLDER] [jobs=N] [only=RUN]
                                [KEY=VALUE ...] [--dry-run]

  Runs what configs/experiment/PAPER/FIGURE.yaml describes and writes a PNG, a CSV and claims.json
  to out (default figures/PAPER/FIGURE-SCALE). scale=paper is the published setting, scale=smoke
  (the default) a reduced one for a small machine, with claims of its own. Some figures have
  further scales, like scale=cpu: an unknown one is answered with them. A folder that holds
  part of the work is completed. jobs=N does N of its runs at a time, in processes of their own;
  only=RUN does that run alone, as on a cluster (docs/cluster.md), and leaves the rest to a later
  call; --dry-run only checks and lists the runs. Further KEY=VALUE are overrides as for train.py.

Exit codes: 0 all claims met, 1 a claim is not met, 2 bad input, 5 a run diverged, 75 and 130 stopped and
resumable.
"""


def figure(arguments: list[str]) -> int:
    """Make the figure named first; returns the exit code."""
    from marl.config import groups
    from marl.plugins import named_in

    dry = "--dry-run" in arguments
    arguments = [a for a in arguments if a != "--dry-run"]
    own, rest = options(arguments, {"scale": "smoke", "out": "", "jobs": "1", "only": ""})
    known = groups(named_in(rest))["experiment"]
    if not rest or rest[0] not in known:
        name = rest[0] if rest else "(none given)"
        raise ConfigError([f"no figure {name}; choose one of: {', '.join(known)}"])
    name, overrides = rest[0], rest[1:]
    from marl.experiment import plan, run_experiment

    runs, jobs = plan(name, overrides, own["scale"]), whole_number("jobs", own["jobs"])
    if dry:
        return listed(runs)
    folder = Path(own["out"] or f"figures/{name}-{own['scale']}")
    if jobs > 1 and not own["only"]:
        arguments = [name, *overrides, f"scale={own['scale']}", f"out={folder}"]
        if code := side_by_side(arguments, runs, folder, jobs):
            return stopped(code)
    cfg = next(iter(runs.values()))
    start_device(cfg.device, num_cpu_devices=cfg.num_devices)
    outcome = run_experiment(name, overrides, own["scale"], folder, own["only"] or None)
    if outcome.exit_code:
        return stopped(outcome.exit_code)
    if own["only"]:
        print(f"done: {own['only']}, in {folder}")
        return 0
    met = sum(claim.met for claim in outcome.claims)
    print(f"figure: {folder / name.replace('/', '-')}.png")
    lines = "; ".join(claim.line() for claim in outcome.claims)
    print(f"{met} of {len(outcome.claims)} claims met: {lines}")
    return 0 if met == len(outcome.claims) else 1


def stopped(code: int) -> int:
    """Say how it ended; returns the exit code."""
    print("stopped and saved; the same command goes on" if code in (75, 130) else "failed")
    return code


def listed(runs: dict[str, Any]) -> int:
    """Say which runs there are, how long each is and after which others it comes; returns the exit code."""
    for title, cfg in runs.items():
        after = ", ".join(sorted(needs(cfg, runs)))
        steps = f"{cfg.num_seeds} seeds of {cfg.total_steps:,} steps"
        size = "measured" if "measure" in cfg.figure else steps
        print(f"{title}: {size}" + (f", after {after}" if after else ""))
    return 0


def needs(cfg: Any, runs: dict[str, Any]) -> set[str]:
    """The runs of the figure from which a run begins, or that hold its seats."""
    return {cfg.start_from, *([] if isinstance(cfg.seats, str) else cfg.seats)} & runs.keys()


def side_by_side(arguments: list[str], runs: dict[str, Any], folder: Path, jobs: int) -> int:
    """Train the runs, `jobs` at a time, each after those that it needs; returns the exit code."""
    from marl.side_by_side import run_commands

    program = [sys.executable, str(Path(__file__).resolve()), *arguments]
    commands = {title: [*program, f"only={title}"] for title in runs}
    return run_commands(commands, jobs, folder, {title: needs(cfg, runs) for title, cfg in runs.items()})


if __name__ == "__main__":
    sys.exit(main(USAGE, figure))
