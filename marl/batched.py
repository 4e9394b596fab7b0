"""Parallel games that restart by themselves, for learners outside the training loop.

`start` and `step` are pure and jittable. A game that ends restarts in the same step: the step
answers with its own rewards and ends, and with the observations of the new game; what was seen
last in the old game is given apart. Axes: E parallel games, A seats.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from marl.environment import Environment, TimeStep, clip_to_space


class Games(struct.PyTreeNode):
    """E games under way, and the randomness of their future."""

    state: Any  # of the environment, leaves [E, ...]
    key: Array  # [] typed key; all draws to come follow from it
    time: Array  # [] int32 steps since the games of a fixed horizon last restarted, else 0


def start(env: Environment, key: Array, num_envs: int) -> tuple[Games, TimeStep]:
    """`num_envs` fresh games; TimeStep leaves [E, ...], rewards and events are zero."""
    key, reset_key = jax.random.split(key)
    state, ts = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
    return Games(state, key, jnp.int32(0)), ts


def step(env: Environment, games: Games, action: Array) -> tuple[Games, TimeStep, TimeStep]:
    """One step of all games; those that end restart at once.

    Games of fixed horizon restart together, in a branch that other steps do not pay for. In all
    others a fresh game is made at every step and taken where the old one is done.

    Args:
        env: the game.
        games: as `start` or the last step left them.
        action: [E, A, ...]; moved inside the bounds of a Box.

    Returns:
        the games; what the players answer to next (obs and action_mask after the restart, reward,
        terminated, truncated and events of this step); and the TimeStep before the restart.
    """
    num_envs = action.shape[0]
    key, step_key, reset_key = jax.random.split(games.key, 3)
    action = clip_to_space(env.action_space, action)
    state, final = jax.vmap(env.step)(jax.random.split(step_key, num_envs), games.state, action)

    def restart(state: Any, ts: TimeStep) -> tuple[Any, TimeStep]:
        fresh, new = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
        choose = lambda new, old: jnp.where(final.done.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
        state, obs, mask = jax.tree.map(
            choose, (fresh, new.obs, new.action_mask), (state, ts.obs, ts.action_mask)
        )
        return state, ts.replace(obs=obs, action_mask=mask)

    time = games.time
    if env.ends_every:
        time = (time + 1) % env.ends_every
        state, ts = jax.lax.cond(time == 0, restart, lambda *same: same, state, final)
    else:
        state, ts = restart(state, final)
    return Games(state, key, time), ts, final
