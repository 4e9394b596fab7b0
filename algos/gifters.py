"""Scripted players of Gift Refinements: one collects and consumes, the other gives what it finds away first.

The actions and the observation are those of `envs.gift_refinements`: obs["vector"] holds how ready the beam
is, then the share of the capacity that is held of each type. Axes: E games, A seats, H x W cells of a view.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from algos.foragers import Forager, is_one_of, nearest, step_to, steps_blocked, straight_ahead
from marl.environment import Environment, bare_game

GIFT, CONSUME = 7, 8  # actions
READY, RAW, FINE = 0, 1, slice(2, None)  # places in obs["vector"]


class Gifter(Forager):
    """Walks to tokens. If it `gives`, raw tokens go to others, and only finer ones are consumed.

    A giver with `meets_at` raw tokens or more walks to the nearest other in view.
    """

    gives: bool = struct.field(pytree_node=False)
    meets_at: int = struct.field(pytree_node=False)  # raw tokens

    def check(self, env: Environment) -> None:
        """Raise ValueError for bad numbers or another game."""
        game = bare_game(env)
        if not hasattr(game, "multiplier") or not hasattr(game, "capacity"):
            raise ValueError(f"scripted gifter plays only GiftRefinements, not {type(game).__name__}")
        super().check(env)
        if self.meets_at < 1:
            raise ValueError(f"algo.meets_at={self.meets_at}: must be at least 1")

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Actions [E, A] int32; draws also if `greedy`."""
        collect_key, meet_key = jax.random.split(key)
        action, carry, extras = super().act(env, learner, carry, ts, collect_key, greedy)
        vector = ts.obs["vector"]
        raw, fine = vector[..., RAW] > 0, vector[..., FINE].any(-1)
        if not self.gives:
            return jnp.where(raw | fine, CONSUME, action), carry, extras
        game: Any = bare_game(env)
        item, seat = ts.obs["grid"][..., 0], ts.obs["grid"][..., 1]
        walls, others = is_one_of(item, game.BLOCKS), seat > 1
        u = jax.random.uniform(meet_key, (*ts.reward.shape, 5))
        row, column, found = nearest(others, game, u[..., 4])
        meets = found & (jnp.round(vector[..., RAW] * game.capacity) >= self.meets_at)
        blocked = steps_blocked(walls | others, game)
        action = jnp.where(meets, step_to(row, column, blocked, u), action)
        in_reach = straight_ahead(others, walls, game, game.beam_length)
        action = jnp.where(fine & ~raw, CONSUME, action)
        gives = raw & in_reach & (vector[..., READY] >= 1)
        return jnp.where(gives, GIFT, action).astype(jnp.int32), carry, extras
