"""What tests of grid games share: games on maps of the test's own, seats put by hand, long random play."""

import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from envs.grid import Avatars
from marl.build import build_env
from marl.config import compose

KEY = jax.random.key(0)


@functools.cache
def preset(name, *overrides):
    return build_env(compose([f"env={name}", *overrides]))


@functools.cache
def map_file(rows):
    """A file with the map; the same for the same rows, so that tests share compiled steps."""
    path = Path(tempfile.mkdtemp()) / "map.txt"
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def on_map(rows, name, **fields):
    """The preset `name` on a map of the test's own, given as rows."""
    return preset(name).replace(layout=map_file(tuple(rows)), **fields)


def put(env, state, *places):
    """The state with the seats at (row, column, facing)."""
    cells = [int(env.board.number[row, column]) for row, column, _ in places]
    facing = [look for _, _, look in places]
    return state.replace(avatars=Avatars(jnp.array(cells, jnp.int32), jnp.array(facing, jnp.int32)))


def stand(env, state, *places):
    """The state of a game of walking seats with the seats at (row, column), None for who left."""
    return state.replace(cell=cells(env, *places))


def cells(env, *places):
    """Numbers [K] int32 of the cells at (row, column), C for None."""
    number = [env.board.nowhere if place is None else int(env.board.number[place]) for place in places]
    return jnp.array(number, jnp.int32)


def squares(env, cell):
    """(row, column) of every cell number, None for C."""
    rows, columns = env.board.row_column
    return [(int(rows[c]), int(columns[c])) if c < env.board.nowhere else None for c in np.asarray(cell)]


@jax.jit
def _step(env, key, state, action):
    return env.step(key, state, action)


def step(env, state, *action, key=0):
    """One compiled step; games that differ only in numbers share the program."""
    return _step(env, jax.random.key(key), state, jnp.array(action))


@functools.partial(jax.jit, static_argnames="num")
def draws(env, state, action, num):
    """(states, TimeSteps) after `num` separate draws of one step, leaves [num, ...]; action [A]."""
    keys = jax.random.split(KEY, num)
    return jax.vmap(lambda key: env.step(key, state, action))(keys)


def idle_steps(env, state, num):
    """The states after `num` separate draws of one step in which nobody acts, leaves [num, ...]."""
    return _idle_steps(env, state, jnp.zeros(env.num_agents, jnp.int32), num)


@functools.partial(jax.jit, static_argnames="num")
def _idle_steps(env, state, idle, num):  # a constant `idle` would be folded through for minutes
    return jax.vmap(lambda key: env.step(key, state, idle)[0])(jax.random.split(KEY, num))


def where(env, state):
    """(row, column) of every seat, None for who is away."""
    return squares(env, state.avatars.cell)


@functools.partial(jax.jit, static_argnames=("num_games", "steps", "facts"))
def random_play(env, key, *, num_games, steps, facts):
    """Random actions in parallel games; `facts(env, state, ts)` of every step, summed over games, [steps, ...]."""

    def step(state, key):
        act_key, step_key = jax.random.split(key)
        action = jax.random.randint(act_key, (num_games, env.num_agents), 0, env.action_space.n)
        state, ts = jax.vmap(env.step)(jax.random.split(step_key, num_games), state, action)
        found = jax.vmap(lambda state, ts: facts(env, state, ts))(state, ts)
        return state, jax.tree.map(lambda x: x.sum(0), found)

    state = jax.vmap(env.reset)(jax.random.split(key, num_games))[0]
    return jax.lax.scan(step, state, jax.random.split(key, steps))[1]


def broken_rules(env, state, ts):
    """Counts that must be 0 in every zapping game that pays 1 an apple; for `random_play`."""
    cell = state.avatars.cell
    walls = jnp.append(jnp.asarray(env.board.letters == "W"), False)
    same = (cell[:, None] == cell) & (cell < env.board.nowhere)
    return {
        "crowded": (same.sum() - (cell < env.board.nowhere).sum()) // 2,
        "in_walls": walls[cell].sum(),
        "away": ((cell == env.board.nowhere) != (state.zaps.away > 0)).sum(),
        "ate": ts.events["ate"].sum() - ts.reward.sum(),
        "zaps": ts.events["zapped"].sum() - ts.events["was_zapped"].sum(),
    }
