"""Let runs and scripted players meet: `python scripts/league.py players=RUN,RUN:3,tit_for_tat out=FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from marl.cli import main, options, whole_number
from marl.device import start_device
from marl.plugins import listed
from marl.validation import ConfigError

USAGE = """
usage: python scripts/league.py players=PLAYER,PLAYER,... [env=NAME] [mechanism=[NAME,...]] [out=FOLDER]
                                [episodes=64] [max_steps=1000] [greedy=false] [seed=0] [exploit=STEPS]
                                [plugins=PACKAGE,...] [KEY=VALUE ...]

  Every player meets every player: the row in seat 0, the column in all other seats. A player is a
  run folder (all its seeds), FOLDER:INDEX (one of them) or a scripted player. Every pair of seeds
  plays `episodes` episodes, with sampled actions unless greedy=true. Where a run meets itself,
  different seeds play each other; the same seed with itself is reported beside it as self_play.
  The game is that of the first run unless env= names one. Prints JSON, and writes it with
  league.csv (a row a pair of seeds) and league.png to out (default league).

  exploit=STEPS trains, for that many environment steps, a fresh learner in seat 0 against each
  frozen player in the other seats, one for each of its seeds: algo=, network=, num_envs= and
  algo.KEY= say which learner (default: algo=ppo network=gru). exploiters.png shows what they gain.

Exit codes: 0 done, 2 bad input or damaged run, 3 no such device.
"""
OPTIONS = {
    "players": "",
    "out": "league",
    "episodes": "64",
    "max_steps": "1000",
    "greedy": "false",
    "seed": "0",
    "exploit": "0",
    "plugins": "",
    "device": "auto",
}
GAME = ("env", "mechanism")
LEARNER = ("algo", "network", "num_envs")


def league(arguments: list[str]) -> int:
    """Play the league; returns the exit code."""
    own, rest = options(arguments, OPTIONS)
    sizes, steps = _check(own, rest)
    start_device(own["device"])
    from marl import league as matches
    from marl.device import use_compile_cache

    use_compile_cache()
    plugins = listed(own["plugins"])
    entrants = [matches.entrant(name, plugins) for name in _names(own["players"])]
    env, about = _game(rest, entrants, plugins)
    matches.check_entrants(env, entrants)
    if env.fixed_horizon:
        sizes["max_steps"] = env.fixed_horizon
    folder, total, done = Path(own["out"]), len(entrants) ** 2, []

    def tell(cell: Any) -> None:
        done.append(cell.facts())
        earned = f"{done[-1]['row_reward']:.3f} | {done[-1]['column_reward']:.3f}"
        names = f"{cell.row.name} against {cell.column.name}"
        print(f"cell {len(done)} of {total}: {names}: {earned}", file=sys.stderr, flush=True)

    cells = matches.play_league(env, entrants, seed=int(own["seed"]), on_cell=tell, **sizes)
    result = {"game": about, "episodes": sizes["num_episodes"], "seed": int(own["seed"])}
    result["players"] = [{"name": one.name, "seeds": one.seeds} for one in entrants]
    result["cells"] = done
    folder.mkdir(parents=True, exist_ok=True)
    from marl.league_plots import exploiters, league_matrix

    matches.write_csv(folder / "league.csv", cells, sizes["num_episodes"])
    league_matrix(result["cells"], folder / "league.png", about)
    written = ["league.json", "league.csv", "league.png"]
    if steps:
        result["exploiters"] = _exploit(env, entrants, rest, steps, int(own["seed"]), sizes)
        exploiters(result["exploiters"], folder / "exploiters.png", about)
        written.append("exploiters.png")
    text = json.dumps(result)
    (folder / "league.json").write_text(text)
    print(text)
    print("wrote " + ", ".join(str(folder / name) for name in written), file=sys.stderr)
    return 0


def _check(own: dict[str, str], rest: list[str]) -> tuple[dict[str, Any], int]:
    """Sizes of the matches, and the exploiters' steps.

    Raises:
        ConfigError: naming every option that is wrong.
    """
    known = ", ".join((*OPTIONS, *GAME, *LEARNER))
    named = _about(rest, (*GAME, *LEARNER))
    errors = [f"{a}: no such option; there are {known}" for a in rest if a not in named]
    names = _names(own["players"])
    errors += [] if names else ["players=: name run folders and scripted players, with commas between"]
    errors += [f"players={n}: named twice" for n in dict.fromkeys(names) if names.count(n) > 1]
    errors += [] if own["seed"].isdigit() else [f"seed={own['seed']}: must be a whole number"]
    errors += [] if own["greedy"] in ("true", "false") else [f"greedy={own['greedy']}: must be true or false"]
    if _about(rest, GAME) and not any(a.startswith("env=") for a in rest):
        errors.append("env=: name the game whose mechanism or keys are to change")
    if _about(rest, LEARNER) and own["exploit"] == "0":
        errors.append("exploit=0: algo, network and num_envs describe exploiters; say exploit=STEPS")
    if errors:
        raise ConfigError(errors)
    sizes: dict[str, Any] = {"num_episodes": whole_number("episodes", own["episodes"])}
    sizes |= {"max_steps": whole_number("max_steps", own["max_steps"]), "greedy": own["greedy"] == "true"}
    return sizes, whole_number("exploit", own["exploit"]) if own["exploit"] != "0" else 0


def _names(players: str) -> list[str]:
    return [name for name in players.split(",") if name]


def _about(overrides: list[str], roots: tuple[str, ...]) -> list[str]:
    """The overrides of some groups and root keys."""
    return [o for o in overrides if o.split("=")[0].lstrip("+").split(".")[0] in roots]


def _game(rest: list[str], entrants: list[Any], plugins: list[str]) -> tuple[Any, str]:
    """The game that is asked for, or the first run's, and in a word which."""
    from marl.build import load

    given = _about(rest, GAME)
    if given:
        return load(*given, f"plugins=[{','.join(plugins)}]").env, " ".join(given)
    first = next((one for one in entrants if one.setup), None)
    if first is None:
        raise ConfigError(["env=: name the game; only scripted players are given"])
    return first.setup.env, f"the game of {first.name}"


def _exploit(
    env: Any, entrants: list[Any], rest: list[str], steps: int, seed: int, sizes: dict[str, Any]
) -> list[dict[str, Any]]:
    """Train and report an exploiter of every player."""
    from marl.config import compose
    from marl.exploiter import best_response, exploiting

    cfg = compose(["network=gru", *_about(rest, LEARNER)])
    algo = exploiting(cfg, env)
    found = []
    for one in entrants:
        found.append(
            best_response(env, algo, one, seed=seed, num_envs=cfg.num_envs, total_steps=steps, **sizes)
        )
        line = f"exploiter of {one.name}: {found[-1]['reward']['mean']:.3f} a step"
        print(f"{line}, gain {found[-1]['gain']['mean']:.3f}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main(USAGE, league))
