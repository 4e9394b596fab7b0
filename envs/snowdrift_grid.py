"""Snowdrift on a map (Sequential Snowdrift Game): who clears a pile pays, and everybody gains the same.

**Source**: LASE (Kong et al. 2024, arXiv 2410.07863), read in the paper: 6 piles that do not come back, a
removal pays 6 to every seat and costs the remover 4, so that clearing all pays 6 * (4 * 6 - 4) = 120.

One step: seats move; then of those who remove on a pile's cell one at random removes it and pays.

Inferred or our own: that piles lie on different random cells at the start, and who pays if several
remove one. Episodes go on to their horizon when no pile is left. Axes: A seats, P piles, C cells.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array

from envs.grid import draw
from envs.walk_game import MOVES, WalkGame, one_a_cell
from marl.environment import TimeStep

PILE = 2  # item code
REMOVE = 5  # action


class State(struct.PyTreeNode):
    """A game under way; the cell of a removed pile is C."""

    cell: Array  # [A] int32
    piles: Array  # [P] int32 cells
    time: Array  # [] int32 steps played


class SnowdriftGrid(WalkGame):
    """Piles of snow to clear for everybody. Event: `removed`, a pile."""

    clear_reward: Any  # [] reward units of every seat for a pile that is removed
    clear_cost: Any  # [] reward units lost by who removes it
    num_piles: int = struct.field(pytree_node=False)  # P at the start

    ACTIONS = (*MOVES, "remove")
    ITEMS = ("outside", "floor", "pile")
    COLOURS = {PILE: ("snow", (150, 185, 215))}

    def check(self) -> None:
        """Raise ValueError for a map or numbers that do not fit."""
        super().check()
        self.check_counts("num_piles")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Seats on random cells, piles on different random cells."""
        places, order = draw(key, (self.num_players,), (self.num_piles,))
        state = State(self.start(places), self.apart(order), jnp.int32(0))
        return state, self._look(state, jnp.zeros(self.num_players, bool))

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Move, remove; `action` is [A] int."""
        (order,) = draw(key, (self.num_players,))
        cell = self.walked(state.cell, action)
        at_pile = cell[:, None] == state.piles  # [A, P]
        removed = one_a_cell(order, cell, at_pile.any(-1) & (action == REMOVE))
        gone = (at_pile & removed[:, None]).any(0)
        state = State(cell, jnp.where(gone, self.board.nowhere, state.piles), state.time + 1)
        return state, self._look(state, removed)

    def items(self, state: State) -> Array:
        """[C] uint8 floor or pile."""
        return self.put_on_floor((state.piles, PILE))

    def _look(self, state: State, removed: Array) -> TimeStep:
        reward = self.clear_reward * removed.sum() - self.clear_cost * removed
        return self.observe(self.items(state), state.cell, state.time, reward, {"removed": removed})
