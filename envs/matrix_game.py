"""Repeated games of two players and two actions, for any payoffs.

**Sources** of the payoffs: each preset in configs/env names its own. The observation is a one-hot
of the last joint action seen from one's own side: [own C, own D, other C, other D], zeros before
the first move (as in LOQA and pax; LOLA's second player sees the unswapped state). Action 0 is
"cooperate" (row 1, column 1), action 1 "defect". Axes: A = 2 seats.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from marl.environment import Environment, TimeStep

COOPERATE, DEFECT = 0, 1


class State(struct.PyTreeNode):
    """A repeated game under way."""

    last_action: Array  # [2] int32, -1 before the first move
    time: Array  # [] int32 rounds played


class RepeatedGame(Environment):
    """Two seats choose a row and a column of a payoff table, again and again.

    The horizon is fixed (a truncation), or with `ends_by_chance` the game ends after each round
    with probability 1 - continuation_prob (a termination), at the latest at `horizon`; horizon 0
    means no limit. A one-shot game is one that ends by chance with probability 1: behind a
    horizon learners still expect the value of what would follow. Subclasses give the `table`.
    """

    continuation_prob: Any  # [] probability that a round is followed by another
    horizon: int = struct.field(pytree_node=False)  # rounds, 0 = no limit
    ends_by_chance: bool = struct.field(pytree_node=False)  # whether continuation_prob is used

    num_agents = 2
    action_space = spaces.Discrete(2)
    all_legal = True

    @property
    def table(self) -> Array:
        """[2, 2, 2] float32 reward units: table[row action, column action, player]."""
        raise NotImplementedError("a repeated game states its payoffs")

    @property
    def fixed_horizon(self) -> int | None:
        """The horizon, unless chance ends the game."""
        return None if self.ends_by_chance else self.horizon

    @property
    def can_truncate(self) -> bool:
        """Only a horizon truncates; chance terminates."""
        return self.horizon > 0

    def check(self) -> None:
        """Raise ValueError for a game that never ends."""
        if self.horizon < 0:
            raise ValueError(f"env.horizon={self.horizon}: must be at least 0 (0 = no limit)")
        if self.horizon == 0 and not self.ends_by_chance:
            raise ValueError("env.horizon=0: must be at least 1 unless env.ends_by_chance is true")
        if not 0 <= self.continuation_prob <= 1:
            raise ValueError(f"env.continuation_prob={self.continuation_prob}: must lie in [0, 1]")
        if self.horizon == 0 and self.continuation_prob == 1:
            raise ValueError("env.continuation_prob=1: must be below 1 if env.horizon is 0 (no limit)")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Before the first round; observations are zeros."""
        state = State(jnp.full(2, -1, jnp.int32), jnp.int32(0))
        return state, self._observe(state, jnp.zeros(2), jnp.bool_(False), jnp.bool_(False))

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Both move at once; `action` is [2] int."""
        reward = self.table[action[0], action[1]]
        state = State(action.astype(jnp.int32), state.time + 1)
        terminated, truncated = jnp.bool_(False), jnp.bool_(False)
        if self.ends_by_chance:
            terminated = jax.random.uniform(key) >= self.continuation_prob
        if self.horizon:
            truncated = (state.time >= self.horizon) & ~terminated
        return state, self._observe(state, reward, terminated, truncated)

    def _observe(self, state: State, reward: Array, terminated: Array, truncated: Array) -> TimeStep:
        row, column = state.last_action[0] + 1, state.last_action[1] + 1
        return TimeStep(
            obs={"vector": jnp.asarray(OBSERVATIONS)[row, column]},
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            action_mask=jnp.ones((2, 2), bool),
            events={
                "cooperated": (state.last_action == COOPERATE).astype(jnp.float32),
                "defected": (state.last_action == DEFECT).astype(jnp.float32),
            },
        )


def _observations() -> np.ndarray:
    """[3, 3, 2, 4] what both seats see after the joint action (row - 1, column - 1); -1 is "none yet".

    A table and one lookup a game: on a CPU five times faster than building one-hots.
    """
    one_hot = np.concatenate([np.zeros((1, 2)), np.eye(2)]).astype(np.float32)
    row, column = np.broadcast_arrays(one_hot[:, None], one_hot[None])
    first, second = np.concatenate([row, column], -1), np.concatenate([column, row], -1)
    return np.stack([first, second], axis=2)


OBSERVATIONS = _observations()


class MatrixGame(RepeatedGame):
    """A repeated game whose payoffs are written out."""

    payoff: Any  # [2, 2, 2] reward units: payoff[row action, column action, player]

    @property
    def table(self) -> Array:
        """[2, 2, 2] float32, the payoff."""
        return jnp.asarray(self.payoff, jnp.float32)

    def check(self) -> None:
        """Raise ValueError for a malformed payoff or a game that never ends."""
        super().check()
        try:
            shape = np.shape(self.payoff)
        except ValueError:  # rows of different lengths
            shape = None
        if shape != (2, 2, 2):
            found = "rows of different lengths" if shape is None else list(shape)
            raise ValueError(f"env.payoff must have shape [2, 2, 2], not {found}")
