"""Scripted players of the negotiation game and of split: one maximises welfare, the other takes all.

**Sources**: "always cooperate" and "always defect" of Duque et al. 2025 (arXiv 2406.14662) in the negotiation
game, "welfare maximising" and "greedy" of Piche et al. 2025 (arXiv 2511.19405) in split. The
cooperative player asks for all of what it values more than the other, for nothing of what it
values less, and for a half, rounded up, where both value it equally (so two of them share it
equally). The greedy player asks for all of everything. Axes: E games, A seats, I kinds of items.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from gymnasium import spaces

from marl.algorithm import Algorithm
from marl.environment import Environment, bare_game

STRATEGIES = ("cooperative", "greedy")
OWN_VALUE, OTHER_VALUE = slice(3, 6), slice(9, 12)  # of obs["vector"]


class ItemPlayer(Algorithm):
    """Proposes by a fixed rule; reads the values of both seats in obs["vector"]."""

    strategy: str = struct.field(pytree_node=False)  # one of STRATEGIES

    def check(self, env: Environment) -> None:
        """Raise ValueError for an unknown strategy or a game of another kind."""
        if self.strategy not in STRATEGIES:
            raise ValueError(f"algo.strategy={self.strategy}: must be one of {', '.join(STRATEGIES)}")
        game = bare_game(env)
        if not all(hasattr(game, name) for name in ("pool", "max_proposal")):
            raise ValueError(
                f"algo.strategy={self.strategy} of this player needs env=negotiation or env=split, "
                f"not {type(game).__name__}"
            )

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Proposals [E, A, 3], int32 or float32 as the game takes; `greedy` changes nothing."""
        most, vector = bare_game(env).max_proposal, ts.obs["vector"]
        is_discrete = isinstance(env.action_space, spaces.MultiDiscrete)
        own, other = vector[..., OWN_VALUE], vector[..., OTHER_VALUE]
        if self.strategy == "greedy":
            proposal = jnp.full(own.shape, most)
        else:
            half = (most + 1) // 2 if is_discrete else most / 2
            proposal = jnp.where(own > other, most, jnp.where(own < other, 0, half))
        return proposal.astype(jnp.int32 if is_discrete else jnp.float32), carry, ()
