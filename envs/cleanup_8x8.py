"""Cleanup of LASE: apples grow only while somebody cleans the waste, standing on it, which pays nothing.

**Source**: LASE (Kong et al. 2024, arXiv 2410.07863), read in the paper, with the growth rule of the
open-source code of the sequential social dilemmas (Hughes et al. 2018, arXiv 1803.08884) and the numbers of
LIO's map of 10 x 10 (Yang et al. 2020, arXiv 2006.06051), since those of the paper are not known.
`envs.clean_up` is the game with beams.

One step: seats move; who stands on waste and cleans removes it, who stands on an apple and picks eats
it; if several do on one cell, it counts for one of them at random. Then, at a share d of dirty
waste sites, t the `depletion` and r the `restoration` threshold, each bare apple site without a seat
grows an apple with probability apple_prob * min(1, (t - d) / (t - r)), and clean waste sites are tried in
random order, each with probability waste_prob, until one gets dirty, which is one event with probability
1 - (1 - p)^n here. Nothing grows nor gets dirty at d >= t.

Inferred or our own: the map, a third of it waste sites and a third apple sites; that all waste sites
are dirty at the start; the order within a step; who gets what several want. Axes: A seats, D waste sites, N
apple sites.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from envs.grid import at_site, draw, happens, nth_true, occupied, ranks
from envs.walk_game import FLOOR, MOVES, WalkGame, one_a_cell
from marl.environment import TimeStep

WASTE, APPLE = 2, 3  # item codes
CLEAN, PICK = 5, 6  # actions


class State(struct.PyTreeNode):
    """A game under way."""

    cell: Array  # [A] int32
    waste: Array  # [D] bool, dirty
    apples: Array  # [N] bool
    time: Array  # [] int32 steps played


class Cleanup(WalkGame):
    """Waste that somebody must clean for apples to grow. Events: `ate` and `cleaned`."""

    apple_reward: Any  # [] reward units of an apple
    apple_prob: Any  # [] of a bare apple site to grow one, a step, without waste
    waste_prob: Any  # [] of each clean waste site that is tried
    depletion: Any  # [] share of dirty waste sites from which on nothing grows nor gets dirty
    restoration: Any  # [] share of dirty waste sites up to which apples grow at the full rate
    initial_waste: Any  # [] share of waste sites, drawn at random, that are dirty at the start

    ACTIONS = (*MOVES, "clean", "pick")
    ITEMS = ("outside", "floor", "waste", "apple")
    ORDER = "DA"
    COLOURS = {WASTE: ("dirt", (140, 105, 60)), APPLE: ("apple", (46, 139, 87))}

    def check(self) -> None:
        """Raise ValueError for a map or numbers that do not fit."""
        super().check()
        for letter in self.ORDER:
            if not self.board.count(letter):
                raise ValueError(f"env.layout={self.layout}: the map has no cell {letter}")
        if not 0 <= self.restoration < self.depletion:
            wrong = f"env.restoration={self.restoration}: must lie in 0 .."
            raise ValueError(f"{wrong} env.depletion={self.depletion}, below it")
        if not 0 <= self.initial_waste <= 1:
            raise ValueError(f"env.initial_waste={self.initial_waste}: must lie in 0 .. 1")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Seats and waste at random, no apples."""
        num_waste, num_apples = self.board.count("D"), self.board.count("A")
        places, order = draw(key, (self.num_players,), (num_waste,))
        waste = ranks(order) < jnp.round(jnp.float32(self.initial_waste) * num_waste)
        state = State(self.start(places), waste, jnp.zeros(num_apples, bool), jnp.int32(0))
        none = jnp.zeros(self.num_players, bool)
        return state, self._look(state, none, none)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Move, clean and pick, grow and get dirty; `action` is [A] int."""
        dump, orchard = self.board.sites("D"), self.board.sites("A")
        order, growth, soiling = draw(key, (self.num_players,), state.apples.shape, (2,))
        cell = self.walked(state.cell, action)
        cleans = (action == CLEAN) & at_site(state.waste, dump, cell)
        picks = (action == PICK) & at_site(state.apples, orchard, cell)
        did = one_a_cell(order, cell, cleans | picks)
        done = jnp.where(did, cell, self.board.nowhere)
        waste = state.waste & ~occupied(done, dump)
        apples = state.apples & ~occupied(done, orchard)
        share = waste.mean()
        free = jnp.clip((self.depletion - share) / (self.depletion - self.restoration), 0, 1)
        grows = happens(growth, self.apple_prob * free) & ~occupied(cell, orchard)
        waste |= self._soiled(soiling, waste) & (share < self.depletion)
        state = State(cell, waste, apples | grows, state.time + 1)
        return state, self._look(state, did & picks, did & cleans)

    def _soiled(self, bits: Array, waste: Array) -> Array:
        """[D] bool, the clean waste site that gets dirty, if any; bits [2] uint32."""
        prob = 1 - (1 - self.waste_prob) ** (~waste).sum()
        place = nth_true(~waste, bits[0])
        return (np.arange(waste.shape[0]) == place) & happens(bits[1], prob)

    def items(self, state: State) -> Array:
        """[C] uint8 floor, waste or apple."""
        rest = np.full(self.board.nowhere - self.board.sites("A").stop, FLOOR, np.uint8)
        there = [jnp.where(state.waste, WASTE, FLOOR), jnp.where(state.apples, APPLE, FLOOR)]
        return jnp.concatenate([*(x.astype(jnp.uint8) for x in there), rest])

    def _look(self, state: State, ate: Array, cleaned: Array) -> TimeStep:
        events = {"ate": ate, "cleaned": cleaned}
        return self.observe(self.items(state), state.cell, state.time, self.apple_reward * ate, events)
