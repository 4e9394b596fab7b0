"""A player that always takes one action, in any game of Discrete actions; it does not learn.

Where that action is illegal it takes the lowest-numbered legal one. Axes: E games, A seats.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from gymnasium import spaces

from marl.algorithm import Algorithm
from marl.environment import Environment, legal_or_first


class ConstantPlayer(Algorithm):
    """Always the same action."""

    action: Any  # [] number of the action

    def check(self, env: Environment) -> None:
        """Raise ValueError for a game without this action."""
        space = env.action_space
        if not isinstance(space, spaces.Discrete):
            raise ValueError(f"a constant player needs Discrete actions, not {space}")
        if not 0 <= self.action < space.n:
            raise ValueError(f"algo.action={self.action}: must lie in 0 .. {int(space.n) - 1}")

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Actions [E, A] int32."""
        return legal_or_first(ts.action_mask, jnp.asarray(self.action, jnp.int32)), carry, ()
