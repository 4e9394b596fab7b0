"""The repeated linear public goods game, for any number of players.

**Source**: the linear voluntary contribution game as in Ledyard 1995, "Public goods: a survey of
experimental research" (Handbook of Experimental Economics). The default sizes are those recalled of
Fehr and Gaechter 2000, "Cooperation and punishment in public goods experiments" (American
Economic Review 90). Deviation from both: a seat gives all of its endowment or nothing, not any
part. Action 0 contributes ("cooperated"), action 1 keeps ("defected"). The observation is
[own last action was to contribute, was to keep, share of the other seats that contributed, share that
kept], zeros before the first round: for two seats that of `envs.matrix_game`, and of the same
length for any number of seats. Axes: A seats.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnasium import spaces
from jax import Array

from marl.environment import Environment, TimeStep

CONTRIBUTE, KEEP = 0, 1


class State(struct.PyTreeNode):
    """A public goods game under way."""

    last_action: Array  # [A] int32, -1 before the first round
    time: Array  # [] int32 rounds played


class PublicGoods(Environment):
    """Seats put their endowment into a common pot, which is multiplied and shared equally.

    Reward of seat i: endowment * (1 - c_i) + multiplier * endowment * sum(c) / A, with c = 1 for
    who contributes and 0 for who keeps.
    """

    endowment: Any  # [] reward units that each seat has anew in every round
    multiplier: Any  # [] factor of the pot; multiplier / A is the marginal per-capita return
    num_players: int = struct.field(pytree_node=False)  # A
    horizon: int = struct.field(pytree_node=False)  # rounds

    action_space = spaces.Discrete(2)
    all_legal = True

    @property
    def num_agents(self) -> int:
        """The players."""
        return self.num_players

    @property
    def fixed_horizon(self) -> int:
        """The horizon."""
        return self.horizon

    def check(self) -> None:
        """Raise ValueError unless the game is a social dilemma of at least one round."""
        if self.num_players < 2:
            raise ValueError(f"env.num_players={self.num_players}: must be at least 2")
        if self.horizon < 1:
            raise ValueError(f"env.horizon={self.horizon}: must be at least 1")
        if not self.endowment > 0:
            raise ValueError(f"env.endowment={self.endowment}: must be greater than 0")
        if not 1 < self.multiplier < self.num_players:
            raise ValueError(
                f"env.multiplier={self.multiplier}: must lie between 1 and env.num_players="
                f"{self.num_players}, else the game is no dilemma"
            )

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Before the first round; observations are zeros."""
        state = State(jnp.full(self.num_players, -1, jnp.int32), jnp.int32(0))
        return state, self._observe(state, jnp.zeros(self.num_players))

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """All decide at once; `action` is [A] int."""
        given = (action == CONTRIBUTE).astype(jnp.float32)
        share = self.multiplier * given.sum() / self.num_players
        reward = (self.endowment * (1 - given + share)).astype(jnp.float32)
        state = State(action.astype(jnp.int32), state.time + 1)
        return state, self._observe(state, reward)

    def _observe(self, state: State, reward: Array) -> TimeStep:
        own = jax.nn.one_hot(state.last_action, 2)  # [A, 2], zeros for -1
        others = (own.sum(0) - own) / (self.num_players - 1)
        return TimeStep(
            obs={"vector": jnp.concatenate([own, others], axis=1)},
            reward=reward,
            terminated=jnp.bool_(False),
            truncated=state.time >= self.horizon,
            action_mask=jnp.ones((self.num_players, 2), bool),
            events={"cooperated": own[:, CONTRIBUTE], "defected": own[:, KEEP]},
        )
