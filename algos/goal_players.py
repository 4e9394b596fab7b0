"""A scripted demonstrator of the goal sequence: it walks to the target that it is shown.

**Source**: our own, in place of the trained oracle of Cook et al. 2024 (arXiv 2406.00392). It goes ahead
until its target is level, then turns to it, and walks around wrong goals; on a target that comes twice it
turns, where that counts (`repo_exact`), else it steps away and back. Axes: E games, A seats.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from marl.algorithm import Algorithm
from marl.environment import Environment, bare_game, legal_or_first

LEFT, RIGHT, FORWARD = range(3)  # actions of the game
WALL, OTHER_GOAL = 1, 2  # codes of what its oracle sees


class GoalWalker(Algorithm):
    """Reads the compass and the cell ahead; its memory [E, A] is 1 after a turn to walk around something."""

    def check(self, env: Environment) -> None:
        """Raise ValueError for a game without a compass."""
        game: Any = bare_game(env)
        if not (hasattr(game, "compass") and game.compass and game.demonstrator == "oracle"):
            raise ValueError(
                "goal_walker needs the goal sequence with env.compass=true, env.demonstrator=oracle"
            )

    def initial_carry(self, env, ts):
        """[E, A] zeros."""
        return jnp.zeros_like(ts.reward)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Actions [E, A] int32; `greedy` turns left where both sides are as good."""
        game: Any = bare_game(env)
        ahead, right = ts.obs["vector"][..., -2], ts.obs["vector"][..., -1]
        front = ts.obs["grid"][..., -2, ts.obs["grid"].shape[-2] // 2, 0]
        free = (front != WALL) & (front != OTHER_GOAL)
        leaves = (ahead == 0) & (right == 0) & (not game.repo_exact)
        wants = (ahead > 0) | leaves | (carry > 0)
        any_side = LEFT if greedy else jax.random.randint(key, ahead.shape, LEFT, RIGHT + 1)
        side = jnp.where(right > 0, RIGHT, jnp.where(right < 0, LEFT, any_side))
        action = jnp.where(wants & free, FORWARD, side).astype(jnp.int32)
        return legal_or_first(ts.action_mask, action), (wants & ~free).astype(jnp.float32), ()
