"""The centipede game: to go on costs a little and gives the other much; who stops ends it.

**Source**: the second game of Dasgupta and Musolesi 2023 (arXiv 2301.08278), numbers as their code has them:
20 moves, the first by seat 0; a game of Rosenthal 1981. The observation is ours. Axes: A = 2 seats.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from marl.environment import Environment, TimeStep

CONTINUE, STOP = 0, 1


class State(struct.PyTreeNode):
    """A game under way."""

    time: Array  # [] int32 moves made
    stopped: Array  # [] bool


class Centipede(Environment):
    """The seats move in turn until one stops or `num_moves` are made.

    obs["vector"]: 1 for who moves, and the share of moves made. Who waits has one legal action, 0.
    Events of the mover: cooperated (went on), defected (stopped).
    """

    cost: Any  # [] reward units that going on costs the mover
    gift: Any  # [] reward units that it gives the other seat
    num_moves: int = struct.field(pytree_node=False)

    num_agents = 2
    action_space = spaces.Discrete(2)
    can_truncate = False

    def check(self) -> None:
        """Raise ValueError for a game without moves."""
        if self.num_moves < 1:
            raise ValueError(f"env.num_moves={self.num_moves}: must be at least 1")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Seat 0 is to move."""
        nothing = jnp.zeros(2)
        return self._look(State(jnp.int32(0), jnp.bool_(False)), nothing, nothing, nothing)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """The mover goes on or stops; `action` is [2] int."""
        moves = self._moves(state)
        goes_on, stops = moves & (action == CONTINUE), moves & (action == STOP)
        reward = self.gift * goes_on[::-1] - self.cost * goes_on
        state = State(state.time + 1, state.stopped | stops.any())
        return self._look(state, reward, goes_on, stops)

    def _moves(self, state: State) -> Array:
        """[2] bool, who moves next."""
        return state.time % 2 == np.arange(2)

    def _look(self, state: State, reward: Array, goes_on: Array, stops: Array) -> tuple[State, TimeStep]:
        moves = self._moves(state)
        share = jnp.full(2, state.time / self.num_moves)
        return state, TimeStep(
            obs={"vector": jnp.stack([moves, share], axis=1).astype(jnp.float32)},
            reward=reward.astype(jnp.float32),
            terminated=state.stopped | (state.time >= self.num_moves),
            truncated=jnp.bool_(False),
            action_mask=jnp.stack([jnp.ones(2, bool), moves], axis=1),
            events={"cooperated": goes_on.astype(jnp.float32), "defected": stops.astype(jnp.float32)},
        )
