"""Stag hunt on a map (Sequential Stag Hunt): a hare is caught alone, a stag only together.

**Source**: LASE (Kong et al. 2024, arXiv 2410.07863), read in the paper: prey does not come back, hunters
stand on its cell, a stag needs several of them, and who hunted with success leaves the map; with 2 stags the
best total is 20.

One step: seats move; then of those who hunt hares on a hare's cell one at random catches it, and those
who hunt stags on a stag's cell, if they are enough, catch it and share its reward equally.

Inferred or our own: the number of hares, with which everybody can have one; that prey stands still, at the
start on different random cells; that hunters of a stag must hunt in the same step. Episodes go on to
their horizon when nobody is left. Axes: A seats, H hares, S stags, C cells.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array

from envs.grid import draw
from envs.walk_game import MOVES, WalkGame, one_a_cell
from marl.environment import TimeStep

HARE, STAG = 2, 3  # item codes
HUNT_HARE, HUNT_STAG = 5, 6  # actions


class State(struct.PyTreeNode):
    """A game under way; the cell of who left, or was caught, is C."""

    cell: Array  # [A] int32
    hares: Array  # [H] int32 cells
    stags: Array  # [S] int32 cells
    time: Array  # [] int32 steps played


class StagHuntGrid(WalkGame):
    """Prey to hunt alone or together.

    Events: `hunted_hare`, `hunted_stag`, and `cooperated`, the same as the latter.
    """

    hare_reward: Any  # [] reward units of a hare
    stag_reward: Any  # [] reward units of a stag, shared by its hunters
    hunters_needed: Any  # [] seats that must hunt a stag in the same step
    num_hares: int = struct.field(pytree_node=False)  # H at the start
    num_stags: int = struct.field(pytree_node=False)  # S at the start

    ACTIONS = (*MOVES, "hunt_hare", "hunt_stag")
    ITEMS = ("outside", "floor", "hare", "stag")
    COLOURS = {HARE: ("hare", (150, 140, 130)), STAG: ("stag", (140, 90, 50))}

    def check(self) -> None:
        """Raise ValueError for a map or numbers that do not fit."""
        super().check()
        self.check_counts("num_hares", "num_stags")
        if self.hunters_needed < 1:
            raise ValueError(f"env.hunters_needed={self.hunters_needed}: must be at least 1")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Seats on random cells, prey on different random cells."""
        places, order = draw(key, (self.num_players,), (self.num_hares + self.num_stags,))
        hares, stags = jnp.split(self.apart(order), [self.num_hares])
        state = State(self.start(places), hares, stags, jnp.int32(0))
        none = jnp.zeros(self.num_players)
        return state, self._look(state, none, none, none)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Move, hunt, leave; `action` is [A] int."""
        (order,) = draw(key, (self.num_players,))
        cell = self.walked(state.cell, action)
        here = cell < self.board.nowhere
        at_hare = (cell[:, None] == state.hares).any(-1)
        hunted_hare = one_a_cell(order, cell, here & at_hare & (action == HUNT_HARE))
        hunts = (here & (action == HUNT_STAG))[:, None] & (cell[:, None] == state.stags)  # [A, S]
        hunters = hunts.sum(0)
        caught = hunters >= self.hunters_needed  # [S]
        share = (hunts & caught) / jnp.maximum(hunters, 1)
        hunted_stag = (hunts & caught).any(-1)
        eaten = (hunted_hare[:, None] & (cell[:, None] == state.hares)).any(0)  # [H]
        state = State(
            cell=jnp.where(hunted_hare | hunted_stag, self.board.nowhere, cell),
            hares=jnp.where(eaten, self.board.nowhere, state.hares),
            stags=jnp.where(caught, self.board.nowhere, state.stags),
            time=state.time + 1,
        )
        reward = self.hare_reward * hunted_hare + self.stag_reward * share.sum(-1)
        return state, self._look(state, hunted_hare, hunted_stag, reward)

    def items(self, state: State) -> Array:
        """[C] uint8 floor, hare or stag."""
        return self.put_on_floor((state.hares, HARE), (state.stags, STAG))

    def _look(self, state: State, hunted_hare: Array, hunted_stag: Array, reward: Array) -> TimeStep:
        events = {"hunted_hare": hunted_hare, "hunted_stag": hunted_stag, "cooperated": hunted_stag}
        return self.observe(self.items(state), state.cell, state.time, reward, events)
