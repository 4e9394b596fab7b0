"""Escape Room: some must pull a lever, at a cost, so that others can leave through the door.

**Source**: Yang, Li, Farajtabar, Sunehag, Hughes, Zha 2020, "Learning to incentivize other learning agents"
(LIO, arXiv 2006.06051), and their code. Every seat chooses where to be next: at the lever, the start or the
door. The door is open in a step in which enough seats choose the lever; who chooses it then is paid, and the
episode ends. Any other change of place costs. Deviation: what seats have given each other is not observed,
incentives being the affair of mechanisms and learners. Axes: A seats.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnasium import spaces
from jax import Array

from marl.environment import Environment, TimeStep, own_first

LEVER, START, DOOR = range(3)  # places, and the actions that lead there


class State(struct.PyTreeNode):
    """A game under way."""

    place: Array  # [A] int32
    time: Array  # [] int32 steps played


class EscapeRoom(Environment):
    """Seats that can leave only if others stay at the lever.

    obs["vector"] [A, 3 A]: places of oneself and the others, one-hot, by seat, counted from oneself. Events:
    `cooperated` (chose the lever) and `escaped` (was paid for the door).
    """

    pullers_needed: Any  # [] seats that must choose the lever in the same step
    escape_reward: Any  # [] reward units of who chooses the open door
    move_cost: Any  # [] reward units that any other change of place costs
    num_players: int = struct.field(pytree_node=False)  # A
    horizon: int = struct.field(pytree_node=False)  # steps at most

    action_space = spaces.Discrete(3)
    all_legal = True

    @property
    def num_agents(self) -> int:
        """The players."""
        return self.num_players

    def check(self) -> None:
        """Raise ValueError unless somebody can leave."""
        if self.num_players < 2:
            raise ValueError(f"env.num_players={self.num_players}: must be at least 2")
        if not 1 <= self.pullers_needed < self.num_players:
            wrong = f"env.pullers_needed={self.pullers_needed}: must be at least 1 and less than"
            raise ValueError(f"{wrong} env.num_players={self.num_players}")
        if self.horizon < 1:
            raise ValueError(f"env.horizon={self.horizon}: must be at least 1")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Everybody at the start."""
        state = State(jnp.full(self.num_players, START, jnp.int32), jnp.int32(0))
        none = jnp.zeros(self.num_players, bool)
        return state, self._observe(state, jnp.zeros(self.num_players), none, none)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """All go at once; `action` is [A] int."""
        place = action.astype(jnp.int32)
        pulls = place == LEVER
        escapes = (place == DOOR) & (pulls.sum() >= self.pullers_needed)
        moves = (place != state.place) & ~escapes
        reward = self.escape_reward * escapes - self.move_cost * moves
        state = State(place, state.time + 1)
        return state, self._observe(state, reward, pulls, escapes)

    def _observe(self, state: State, reward: Array, pulls: Array, escapes: Array) -> TimeStep:
        over = escapes.any()
        places = jax.nn.one_hot(own_first(state.place), 3)  # [A, A, 3]
        return TimeStep(
            obs={"vector": places.reshape(self.num_players, -1)},
            reward=jnp.asarray(reward, jnp.float32),
            terminated=over,
            truncated=(state.time >= self.horizon) & ~over,
            action_mask=jnp.ones((self.num_players, 3), bool),
            events={"cooperated": pulls.astype(jnp.float32), "escaped": escapes.astype(jnp.float32)},
        )
