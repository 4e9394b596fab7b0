"""Evaluate a run's final policies: `python scripts/evaluate.py run=FOLDER [opponent=NAME]`."""

from __future__ import annotations

import json
import sys

from marl.cli import main, options, whole_number
from marl.validation import ConfigError

USAGE = """
usage: python scripts/evaluate.py run=FOLDER [opponent=NAME,NAME,...] [episodes=100] [max_steps=1000]
                                  [seed=0] [plugins=PACKAGE,...]

  Plays full episodes with the newest checkpoint of a run and prints JSON: for sampled and for
  greedy actions, the outcomes of every seed with mean, IQM and 95 % interval, in self-play or,
  with opponent=, with the learner of seat 0 in seat 0 and the opponent in all other seats. An
  opponent is a scripted player or a run folder. max_steps cuts games that have no end. plugins
  are packages of your own that the run's configuration may use.

Exit codes: 0 done, 2 bad input or damaged run.
"""
OPTIONS = {"run": "", "opponent": "", "episodes": "100", "max_steps": "1000", "seed": "0", "plugins": ""}


def evaluate(arguments: list[str]) -> int:
    """Print the outcomes of a run's policies as JSON; returns the exit code."""
    own, rest = options(arguments, OPTIONS)
    errors = [f"{a}: no such option; there are {', '.join(OPTIONS)}" for a in rest]
    errors += [] if own["run"] else ["run=: name a run folder"]
    errors += [] if own["seed"].isdigit() else [f"seed={own['seed']}: must be a whole number"]
    if errors:
        raise ConfigError(errors)
    sizes = {"num_episodes": whole_number("episodes", own["episodes"])}
    sizes["max_steps"] = whole_number("max_steps", own["max_steps"])
    from marl.build import load_run, player
    from marl.evaluate import evaluate_seeds
    from marl.statistics import summarize

    plugins = [name for name in own["plugins"].split(",") if name]
    setup, learners = load_run(own["run"], plugins)
    if setup.cfg.sweep:
        raise ConfigError([f"run={own['run']}: a sweep; evaluate a run of one setting"])
    if setup.env.fixed_horizon:
        sizes["max_steps"] = setup.env.fixed_horizon
    others = list(range(1, setup.env.num_agents))
    opponents = {name: player(name, others, plugins) for name in own["opponent"].split(",") if name}
    result = {"run": own["run"], "episodes": sizes["num_episodes"], "seed": int(own["seed"])}
    for name, opponent in (opponents or {"self_play": None}).items():
        result[name] = {}
        for kind, greedy in (("sampled", False), ("greedy", True)):
            found = evaluate_seeds(
                setup.env,
                setup.algo,
                learners,
                opponent=opponent,
                seed=int(own["seed"]),
                greedy=greedy,
                **sizes,
            )
            outcome = {k: {"per_seed": v.tolist()} | summarize(v) for k, v in found.items()}
            result[name][kind] = outcome
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(USAGE, evaluate))
