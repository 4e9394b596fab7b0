"""Cross-play: every player of a league in seat 0 against every player in all other seats.

A player is a training run, with all its seeds or one of them, or a scripted player. A cell of the
matrix holds every pair of a row seed and a column seed; all its pairs are played by one
vmapped program, and cells of the same kinds of players share that program. Scripted players are
all of one kind: in each of their seats all of them act, and one's action is played.
Axes: E episodes, A seats, R row seeds, C column seeds.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.algorithm import Algorithm
from marl.build import Setup, config_errors, hold, learning_member, load_run, player
from marl.environment import Environment, TimeStep
from marl.evaluate import play
from marl.population import Mixture
from marl.validation import ConfigError

COLUMNS = ("row", "column", "row_seed", "column_seed", "row_reward", "column_reward", "episodes")


class OneOf(Algorithm):
    """One of several players without learners; which, may be traced.

    All of them act, with the same key, and one's action is taken.
    """

    members: tuple[Algorithm, ...]
    index: Any  # [] int32, the place of the player

    def initial_carry(self, env: Environment, ts: TimeStep) -> tuple:
        """One carry a member."""
        return tuple(member.initial_carry(env, ts) for member in self.members)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """The action [E, A, ...] of the chosen one, with the carries of all."""
        parts = zip(self.members, carry, strict=True)
        found = [member.act(env, (), memory, ts, key, greedy) for member, memory in parts]
        action = jnp.stack([action for action, _, _ in found])[self.index]
        return action, tuple(memory for _, memory, _ in found), ()


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A player of a league.

    Fields: name, as it was asked for; seeds, the training seeds that it brings, or (None,) for a
    scripted player; algo, which acts; learners, leaves [S, P, ...], or () for a scripted player;
    setup, the run's own, None for a scripted player.
    """

    name: str
    seeds: tuple[int | None, ...]
    algo: Algorithm
    learners: Any
    setup: Setup | None


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a row player and a column player earned per step, each [R, C]; a column's is that of a seat."""

    row: Entrant
    column: Entrant
    row_reward: np.ndarray
    column_reward: np.ndarray

    @property
    def is_self(self) -> bool:
        """Whether a player meets itself."""
        return self.row is self.column

    def facts(self) -> dict[str, Any]:
        """Mean and standard deviation over the pairs.

        Where a run meets itself these are over pairs of different seeds; "self_play" has the
        pairs of a seed with itself. A player of one seed has only self-play.
        """
        same = np.eye(*self.row_reward.shape, dtype=bool) & self.is_self
        cross = ~same if (~same).any() else same
        facts = {"row": self.row.name, "column": self.column.name, **self._over(cross)}
        return facts | {"self_play": self._over(same)} if self.is_self else facts

    def _over(self, pairs: np.ndarray) -> dict[str, Any]:
        row, column = self.row_reward[pairs], self.column_reward[pairs]
        return {
            "row_reward": float(row.mean()),
            "row_std": float(row.std()),
            "column_reward": float(column.mean()),
            "column_std": float(column.std()),
            "pairs": int(pairs.sum()),
        }


def entrant(name: str, plugins: Iterable[str] = ()) -> Entrant:
    """The player called RUN (a folder: all its seeds), RUN:INDEX (one of them) or a scripted player's name.

    Raises:
        ConfigError: if there is neither, or the run is a sweep or has no such seed.
    """
    folder, _, index = name.partition(":")
    if not Path(folder).is_dir():
        with config_errors():
            return Entrant(name, (None,), player(name, [0], plugins), (), None)
    setup, learners = load_run(folder, plugins)
    num, first = setup.cfg.num_seeds, setup.cfg.seed
    if setup.cfg.sweep:
        raise ConfigError([f"players={name}: a sweep; only a run of one setting can play"])
    if index and not (index.isdigit() and int(index) < num):
        raise ConfigError([f"players={name}: the run has seeds 0 to {num - 1}"])
    chosen = [int(index)] if index else list(range(num))
    algo, learners = learning_member(setup.algo, learners)
    learners = jax.tree.map(lambda x: jnp.asarray(x)[np.array(chosen)], algo.for_acting(learners))
    return Entrant(name, tuple(first + i for i in chosen), algo, learners, setup)


def check_entrants(env: Environment, entrants: Sequence[Entrant]) -> None:
    """Make sure that every player can play `env`.

    Raises:
        ConfigError: with a line for each that cannot.
    """
    errors, game = [], _shown(env)
    for one in entrants:
        if one.setup is None:
            try:
                one.algo.check(env)
            except ValueError as error:
                errors.append(f"players={one.name}: {error}")
        elif _shown(one.setup.env) != game:
            learnt = _shown(one.setup.env)
            errors.append(f"players={one.name}: learnt a game of {learnt}; this game has {game}")
    if errors:
        raise ConfigError(errors)


def seated(one: Entrant, learner: Any, seats: Sequence[int]) -> tuple[Algorithm, Any]:
    """One seed of a player in `seats`: what acts there, and its learner.

    A seat is played by the learner that held it in the run; a run of fewer seats starts over
    with its first.
    """
    if one.setup is None:
        return one.algo, ()
    frozen = hold(one.algo, learner, [seat % len(one.algo.seats) for seat in seats])
    return frozen.algo, frozen.learner


def play_cell(
    env: Environment,
    row: Entrant,
    column: Entrant,
    *,
    seed: int,
    num_episodes: int,
    max_steps: int,
    greedy: bool,
) -> Cell:
    """Play all pairs of seeds, `num_episodes` each; the draws of a pair follow from `seed` and its place."""
    num_rows, num_columns = len(row.seeds), len(column.seeds)
    places = [np.repeat(np.arange(num_rows), num_columns), np.tile(np.arange(num_columns), num_rows)]
    others = range(1, env.num_agents)
    mine = jax.vmap(lambda learner: seated(row, learner, [0])[1])
    theirs = jax.vmap(lambda learner: seated(column, learner, others)[1])
    pick = lambda one, few, place: few(jax.tree.map(lambda x: x[place], one.learners)) if one.setup else ()
    learners = (pick(row, mine, places[0]), pick(column, theirs, places[1]))
    algos = (_algo(row, [0]), _algo(column, others))
    keys = jax.random.split(jax.random.key(seed), num_rows * num_columns)
    sizes = {"num_episodes": num_episodes, "max_steps": max_steps, "greedy": greedy}
    rewards = np.asarray(_play_pairs(env, algos, learners, keys, **sizes), np.float64)
    rewards = rewards.reshape(num_rows, num_columns, -1)
    return Cell(row, column, rewards[..., 0], rewards[..., 1:].mean(-1))


def play_league(
    env: Environment,
    entrants: Sequence[Entrant],
    *,
    on_cell: Callable[[Cell], None],
    wanted: Callable[[Entrant, Entrant], bool] = lambda row, column: True,
    **sizes: Any,
) -> list[Cell]:
    """Every ordered pair of players that is `wanted`, row by row.

    `on_cell` is told of each when it is played; `sizes` are those of `play_cell`.
    """
    cells, entrants = [], _of_one_kind(entrants)
    for row, column in itertools.product(entrants, repeat=2):
        if wanted(row, column):
            cells.append(play_cell(env, row, column, **sizes))
            on_cell(cells[-1])
    return cells


def write_csv(path: Path, cells: Sequence[Cell], num_episodes: int) -> None:
    """One row a pair of seeds: mean reward per step of the row player and of a column seat."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for cell in cells:
            for (i, j), reward in np.ndenumerate(cell.row_reward):
                names = (cell.row.name, cell.column.name, cell.row.seeds[i], cell.column.seeds[j])
                rows.writerow([*names, reward, cell.column_reward[i, j], num_episodes])


@partial(jax.jit, static_argnames=("num_episodes", "max_steps", "greedy"))
def _play_pairs(env: Any, algos: Any, learners: Any, keys: Array, **sizes: Any) -> Array:
    """[n, A] mean reward per step of n pairs; learners' leaves [n, P, ...]."""
    players = Mixture(members=algos, holder=(0,) + (1,) * (env.num_agents - 1))

    def one(learners: Any, key: Array) -> Array:
        seen = play(env, players, learners, key, **sizes)
        return (seen.return_ / seen.length[:, None]).mean(0)

    return jax.vmap(one)(learners, keys)


def _of_one_kind(entrants: Sequence[Entrant]) -> list[Entrant]:
    """The entrants with each scripted player as a choice from all of them, so that they share programs."""
    scripted = [one for one in entrants if one.setup is None]
    chosen = {one.name: OneOf(tuple(s.algo for s in scripted), i) for i, one in enumerate(scripted)}
    return [dataclasses.replace(one, algo=chosen.get(one.name, one.algo)) for one in entrants]


def _algo(one: Entrant, seats: Sequence[int]) -> Algorithm:
    """What acts for a player in `seats`, without its learners."""
    return seated(one, jax.tree.map(lambda x: x[0], one.learners), seats)[0]


def _shown(env: Environment) -> str:
    """What a player must know of a game: the shapes of one seat's observation, and the actions."""
    ts = jax.eval_shape(env.reset, jax.random.key(0))[1]
    shapes = [f"obs {name} {list(x.shape[1:])}" for name, x in sorted(ts.obs.items())]
    codes = [f"grid codes {list(env.grid_codes)}"] if env.grid_codes else []
    return ", ".join([*shapes, *codes, f"actions {env.action_space}"])
