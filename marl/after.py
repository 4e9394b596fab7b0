"""What a figure's trained runs are put through: episodes, leagues with scripted players, exploiters.

Nodes `after` of a figure call these, see `marl.experiment`; a league's and an exploiter's own files are
written beside the run folders. Axes: R seeds of the row player, C seeds of the column player.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from marl.build import load_run
from marl.checkpoint import write_atomically
from marl.config import compose
from marl.evaluate import Episodes, evaluate_seeds
from marl.exploiter import best_response, exploiting
from marl.figures import for_figures
from marl.league import Cell, Entrant, check_entrants, entrant, play_league, write_csv
from marl.league_plots import exploiters, league_matrix
from marl.metrics_log import read_rows
from marl.run import mean_metrics
from marl.secrets import read_run_config
from marl.statistics import summarize
from marl.validation import ConfigError

PAIRS = {
    "all": lambda row, column: True,
    "self_and_scripted": lambda row, column: row.setup and (row is column or not column.setup),
}


@for_figures
def league(
    *,
    folders: dict[str, Path],
    players: list[str],
    pairs: str,
    seed: int,
    num_episodes: int,
    max_steps: int,
    greedy: bool,
) -> dict[str, dict]:
    """Let runs and scripted players meet, as `marl.league`; writes league.csv, league.json, league.png.

    Args:
        folders: {run: its folder}; the game is that of the first.
        players: runs and scripted players.
        pairs: all, or self_and_scripted: each run meets itself and the scripted players.
        seed: of the matches.
        num_episodes: of a pair of seeds.
        max_steps: cut of games that have no end of their own.
        greedy: likeliest actions instead of samples.

    Returns:
        {"league": summary} with the mean rewards per step ROW|COLUMN/row and ROW|COLUMN/column, one
        value a seed of the row player, over all column seeds. Where a player meets itself COLUMN is
        `self` for the same seed and `cross` for the others.

    Raises:
        ConfigError: if a player is unknown or cannot play the game.
    """
    if pairs not in PAIRS:
        raise ConfigError([f"figure.after: pairs={pairs}: must be one of {', '.join(PAIRS)}"])
    began, folder = time.perf_counter(), _beside(folders)
    env, entrants = _met(folders, players)
    sizes = {"num_episodes": num_episodes, "max_steps": env.fixed_horizon or max_steps, "greedy": greedy}
    cells = play_league(env, entrants, on_cell=_tell, wanted=PAIRS[pairs], seed=seed, **sizes)
    facts = {
        "players": [{"name": one.name, "seeds": one.seeds} for one in entrants],
        "episodes": num_episodes,
        "seed": seed,
        "cells": [cell.facts() for cell in cells],
    }
    write_atomically(folder / "league.json", json.dumps(facts, indent=1))
    write_csv(folder / "league.csv", cells, num_episodes)
    league_matrix(facts["cells"], folder / "league.png", f"{num_episodes} episodes a pair of seeds")
    values = {name: x for cell in cells for name, x in _by_seed(cell).items()}
    return {"league": of_seeds(values, began)}


@for_figures
def exploiter(
    *,
    folders: dict[str, Path],
    victims: list[str],
    learner: list[str],
    total_steps: int,
    seed: int,
    num_episodes: int,
    max_steps: int,
    greedy: bool,
) -> dict[str, dict]:
    """Train fresh learners against frozen players, as `marl.exploiter`; writes exploiters.json and .png.

    Args:
        folders: {run: its folder}; the game is that of the first.
        victims: runs and scripted players; each seed gets an exploiter of its own.
        learner: overrides that say who exploits: algo=, network=, num_envs= and their keys.
        total_steps: environment steps of an exploiter.
        seed: of the exploiters.
        num_episodes: of the measurement; max_steps, greedy: likewise, as for `league`.

    Returns:
        {"exploiter": summary} with VICTIM/gain, VICTIM/reward, VICTIM/self_play, VICTIM/victim_reward
        and VICTIM/victim_loss, as `marl.exploiter.best_response` says them.

    Raises:
        ConfigError: if a victim is unknown, or the learner does not fit the game.
    """
    began, folder = time.perf_counter(), _beside(folders)
    env, entrants = _met(folders, victims)
    cfg = compose(learner)
    sizes = {"num_episodes": num_episodes, "max_steps": env.fixed_horizon or max_steps, "greedy": greedy}
    sizes |= {"num_envs": cfg.num_envs, "total_steps": total_steps, "seed": seed}
    algo, found = exploiting(cfg, env), []
    for victim in entrants:
        found.append(best_response(env, algo, victim, **sizes))
        print(f"exploiter of {victim.name}: gain {found[-1]['gain']['mean']:.3f} a step", flush=True)
    write_atomically(folder / "exploiters.json", json.dumps(found, indent=1))
    exploiters(found, folder / "exploiters.png", type(algo).__name__)
    values = {f"{one['victim']}/{k}": v for one in found for k, v in one.items() if isinstance(v, dict)}
    return {"exploiter": _summary(values, began)}


@for_figures
def outcomes(
    *, folders: dict[str, Path], seed: int, num_episodes: int, max_steps: int, greedy: bool
) -> dict[str, dict]:
    """Let every run's seeds play among themselves, each in its own game.

    Args:
        folders: {run: its folder}.
        seed: of the episodes.
        num_episodes: of a seed.
        max_steps: cut of games that have no end of their own.
        greedy: likeliest actions instead of samples.

    Returns:
        {"RUN outcomes": summary} with the outcomes of `marl.evaluate`, one value a seed.
    """
    found = {}
    for run, folder in folders.items():
        began = time.perf_counter()
        sizes = {"num_episodes": num_episodes, "max_steps": max_steps, "greedy": greedy}
        found[f"{run} outcomes"] = of_seeds(among_themselves(folder, seed=seed, **sizes), began)
    return found


def among_themselves(
    folder: Path,
    *,
    seed: int,
    num_episodes: int,
    max_steps: int,
    greedy: bool,
    read: Callable[[Episodes], dict[str, Array]] = Episodes.outcomes,
) -> dict[str, np.ndarray]:
    """What the seeds of the run in `folder` do in their own game, {name: [S, ...]} as `read` makes it."""
    setup, learners = load_run(folder, read_run_config(folder / "config.yaml").plugins)
    sizes = {"num_episodes": num_episodes, "max_steps": setup.env.fixed_horizon or max_steps}
    return evaluate_seeds(setup.env, setup.algo, learners, seed=seed, greedy=greedy, read=read, **sizes)


def of_seeds(values: dict[str, np.ndarray], began: float) -> dict[str, Any]:
    """The summary of {name: [S]}, not swept, that work since `time.perf_counter()` = `began` has found."""
    return _summary({name: _statistics(x) for name, x in values.items()}, began)


@for_figures
def stretch(*, folders: dict[str, Path], name: str, first: float, last: float) -> dict[str, dict]:
    """What the runs' metrics were in a part of training.

    Args:
        folders: {run: its folder}.
        name: of the part.
        first, last: shares of training between which its rows of metrics ended.

    Returns:
        {"RUN NAME": summary}, one value a seed, the mean over the rows.

    Raises:
        ConfigError: if no row ended there.
    """
    found = {}
    for run, folder in folders.items():
        began, rows = time.perf_counter(), read_rows(folder / "metrics.jsonl")
        end = rows[-1]["update"]
        chosen = [row for row in rows if first * end < row["update"] <= last * end]
        if not chosen:
            raise ConfigError(
                [f"figure.after: {name}: no row of metrics between {first} and {last} of {run}"]
            )
        found[f"{run} {name}"] = _summary(mean_metrics(chosen), began)
    return found


def _beside(folders: dict[str, Path]) -> Path:
    if not folders:
        raise ConfigError(["figure.after: there are no runs; a figure with `measure` trains none"])
    return next(iter(folders.values())).parent


def _met(folders: dict[str, Path], names: Iterable[str]) -> tuple[Any, list[Entrant]]:
    """The game of the first run, and the players called `names`."""
    first = next(iter(folders))
    plugins = read_run_config(folders[first] / "config.yaml").plugins  # the user's own: these runs are
    named = lambda name: dataclasses.replace(entrant(str(folders.get(name, name)), plugins), name=name)
    called = {name: named(name) for name in dict.fromkeys((first, *names))}
    env = called[first].setup.env
    entrants = [called[name] for name in names]
    check_entrants(env, entrants)
    return env, entrants


def _tell(cell: Cell) -> None:
    earned = f"{cell.row_reward.mean():.3f} | {cell.column_reward.mean():.3f}"
    print(f"{cell.row.name} against {cell.column.name}: {earned}", flush=True)


def _by_seed(cell: Cell) -> dict[str, np.ndarray]:
    """[R] each: the mean over the opponents of each seed of the row player."""
    found = {}
    for side, reward in (("row", cell.row_reward), ("column", cell.column_reward)):
        if not cell.is_self:
            found[f"{cell.row.name}|{cell.column.name}/{side}"] = reward.mean(1)
            continue
        found[f"{cell.row.name}|self/{side}"] = reward.diagonal()
        if len(reward) > 1:
            others = (reward.sum(1) - reward.diagonal()) / (len(reward) - 1)
            found[f"{cell.row.name}|cross/{side}"] = others
    return found


def _statistics(values: np.ndarray) -> dict[str, Any]:
    return {"per_seed": values.tolist()} | summarize(values)


def _summary(metrics: dict[str, dict], began: float) -> dict[str, Any]:
    return {"metrics": metrics, "sweep": [], "lost": [], "wall_s": time.perf_counter() - began}
