"""Evaluate, export or film a run's final policies: `python scripts/evaluate.py run=FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from marl.cli import main, options, whole_number
from marl.plugins import listed
from marl.validation import ConfigError

USAGE = """
usage: python scripts/evaluate.py run=FOLDER [opponent=NAME,NAME,...] [episodes=100] [max_steps=1000]
                                  [seed=0] [plugins=PACKAGE,...]
       python scripts/evaluate.py run=FOLDER[:SEED_INDEX] export=FILE.safetensors
       python scripts/evaluate.py run=FOLDER[:SEED_INDEX] render=gif [opponent=NAME] [out=FOLDER]

  Plays full episodes with the newest checkpoint of a run and prints JSON: for sampled and for
  greedy actions, the outcomes of every seed with mean, IQM and 95 % interval, in self-play or,
  with opponent=, with the learner of seat 0 in seat 0 and the opponent in all other seats. An
  opponent is a scripted player or a run folder. max_steps cuts games that have no end. plugins
  are packages of your own that the run's configuration may use.

  export= writes the policies of one seed (the first) into a file that holds no code; in Python
  marl.policy.load_policy takes it, or the run folder. render=gif films one episode of that seed
  with sampled actions, into out= (the run folder). For both, FOLDER may be an exported file.

Exit codes: 0 done, 2 bad input or damaged run.
"""
OPTIONS = {"run": "", "opponent": "", "episodes": "100", "max_steps": "1000", "seed": "0", "plugins": ""}
OPTIONS |= {"export": "", "render": "", "out": ""}


def evaluate(arguments: list[str]) -> int:
    """Do what the arguments ask and print what came of it as JSON; returns the exit code."""
    own, rest = options(arguments, OPTIONS)
    errors = [f"{a}: no such option; there are {', '.join(OPTIONS)}" for a in rest]
    errors += [] if own["run"] else ["run=: name a run folder"]
    errors += [] if own["seed"].isdigit() else [f"seed={own['seed']}: must be a whole number"]
    errors += [] if own["render"] in ("", "gif") else [f"render={own['render']}: must be gif"]
    if own["render"] and "," in own["opponent"]:
        errors.append("opponent=: render=gif films a game against one opponent")
    if own["out"] and not own["render"]:
        errors.append("out=: only render=gif writes there")
    if errors:
        raise ConfigError(errors)
    plugins = listed(own["plugins"])
    sizes = {key: whole_number(key, own[key]) for key in ("episodes", "max_steps")}
    if own["export"] or own["render"]:
        print(json.dumps(write(own, plugins, sizes["max_steps"])))
    else:
        print(json.dumps(outcomes(own, plugins, **sizes)))
    return 0


def outcomes(own: dict[str, str], plugins: list[str], episodes: int, max_steps: int) -> dict[str, Any]:
    """What came of full episodes of every seed's policies, by opponent."""
    from marl.build import config_errors, load_run, player
    from marl.evaluate import evaluate_seeds
    from marl.statistics import summarize

    setup, learners = load_run(own["run"], plugins)
    cfg, env = setup.cfg, setup.env
    if cfg.sweep:
        raise ConfigError([f"run={own['run']}: a sweep; evaluate a run of one setting"])
    with config_errors():
        names = [name for name in own["opponent"].split(",") if name]
        opponents = {name: player(name, list(range(1, env.num_agents)), plugins) for name in names}
    seed, seeds = int(own["seed"]), list(range(cfg.seed, cfg.seed + cfg.num_seeds))
    result: dict[str, Any] = {"run": own["run"], "episodes": episodes, "seed": seed, "seeds": seeds}
    sizes = {"num_episodes": episodes, "max_steps": env.fixed_horizon or max_steps, "seed": seed}
    for name, opponent in (opponents or {"self_play": None}).items():
        result[name] = {}
        for kind, greedy in (("sampled", False), ("greedy", True)):
            found = evaluate_seeds(env, setup.algo, learners, opponent=opponent, greedy=greedy, **sizes)
            result[name][kind] = {k: {"per_seed": v.tolist()} | summarize(v) for k, v in found.items()}
    return result


def write(own: dict[str, str], plugins: list[str], max_steps: int) -> dict[str, Any]:
    """Export and film one seed's policies; says what was written."""
    from marl.policy import load_trained
    from marl.policy_file import export

    trained = load_trained(own["run"], plugins)
    result: dict[str, Any] = {"run": own["run"]}
    if own["export"]:
        export(trained, Path(own["export"]))
        result["export"] = own["export"]
    if own["render"]:
        from marl.film import film_episode

        run = Path(own["run"].partition(":")[0])
        folder = Path(own["out"]) if own["out"] else run if run.is_dir() else run.parent
        about = {"opponent": own["opponent"], "plugins": plugins, "seed": int(own["seed"])}
        result |= film_episode(trained, folder, max_steps=max_steps, **about)
    return result


if __name__ == "__main__":
    sys.exit(main(USAGE, evaluate))
