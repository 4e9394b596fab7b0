"""Commons Harvest: apples grow back only beside other apples, so that a patch picked bare stays bare.

**Sources**: Perolat et al. 2017 (arXiv 1707.06600); Leibo et al. 2021 (arXiv 2107.06857, "mp1") and
Agapiou et al. 2022 (arXiv 2211.13746, "mp2"), Melting Pot's substrates commons_harvest__open, __closed
and __partnership; Hughes et al. 2018 (arXiv 1803.08884, "ssd") in the open-source code of its games. Rules
and numbers were read in their code, maps are our own with the described regions and counts.

One step: avatars move and turn, who enters the cell of an apple eats it; beams are fired; who was away
long enough appears; bare sites grow an apple with a probability by the number of apples within
radius 2 before the step. An apple may grow under an avatar (not in ssd), which does not eat it.

Deviations: the regrowth radius of ssd is the one its code computes (the 8 cells around), see
`radius_squared`; the hidden role of the partnership variant, which fines only a role that nobody has, is left
out. Axes: A seats, N apple sites.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from envs.board import Board
from envs.grid import Avatars, at_site, count_near, draw, goals, happens, moved, occupied, ranks, turned
from envs.zap_game import ZapGame, Zaps
from marl.environment import TimeStep

FLOOR, WALL, APPLE = range(3)  # item codes


class State(struct.PyTreeNode):
    """A game under way."""

    avatars: Avatars
    zaps: Zaps
    apples: Array  # [N] bool
    time: Array  # [] int32 steps played


class CommonsHarvest(ZapGame):
    """Apples in patches, seats that eat them, and a beam that sends others away for a while.

    obs["vector"]: how ready the beam is, 0 to 1. Events: `ate`, and those of `envs.zap_game`.
    """

    apple_reward: Any  # [] reward units of an apple
    regrow_prob: Any  # [4] a step with 0, 1, 2, and 3 or more apples near
    radius_squared: int = struct.field(pytree_node=False)  # cells up to this squared distance are near
    grows_under_avatars: bool = struct.field(pytree_node=False)

    ORDER = "APQ"
    ITEMS = 3
    FOOD = (APPLE,)
    BLOCKS = (WALL,)
    STATUS = 2  # 1: fired in the last step
    COLOURS = {WALL: ("wall", (96, 92, 88)), APPLE: ("apple", (46, 139, 87))}

    def check(self) -> None:
        """Raise ValueError for a map or numbers that do not fit."""
        super().check()
        if np.shape(self.regrow_prob) != (4,):
            raise ValueError(f"env.regrow_prob={self.regrow_prob}: must be 4 numbers, for 0, 1, 2, 3 apples")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """All apples are there; seats 0 and 1 start at the inner points of the map, if it has any."""
        num = self.num_players
        avatars, inner = self.start(*draw(key, (2, num))), self.board.sites("Q")
        first = np.arange(inner.start, inner.stop, dtype=np.int32)[:num]
        avatars = avatars.replace(cell=avatars.cell.at[: len(first)].set(first))
        state = State(avatars, Zaps.none(num), jnp.ones(self.board.count("A"), bool), jnp.int32(0))
        nothing, over = jnp.zeros(num, bool), (jnp.bool_(False), jnp.bool_(False))
        return state, self._look(state, nothing, nothing, jnp.zeros(num), over)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Move, eat, fire, appear, grow; `action` is [A] int."""
        board, num, sites = self.board, self.num_players, self.board.sites("A")
        order, places, growth, end = draw(key, (num,), (2, num), state.apples.shape, ())
        cell = moved(state.avatars.cell, goals(board, state.avatars, action), ranks(order))
        ate = (cell != state.avatars.cell) & at_site(state.apples, sites, cell)
        eaten = occupied(jnp.where(ate, cell, board.nowhere), sites)
        avatars = turned(state.avatars, action).replace(cell=cell)
        fires, zaps = self.zap(avatars, state.zaps, action)
        state, fine = self.punish(places, state.replace(avatars=avatars, zaps=zaps))
        apples = (state.apples & ~eaten) | self._grown(growth, state.apples, state.avatars.cell)
        state = state.replace(apples=apples, time=state.time + 1)
        reward = self.apple_reward * ate - self.zap_cost * fires - fine
        return state, self._look(state, ate, fires, reward, self.over(end, state.time))

    def _grown(self, bits: Array, apples: Array, cell: Array) -> Array:
        """[N] bool, bare sites that grow an apple; `apples` [N] before the step, `cell` [A]."""
        near = count_near(_near(self.board, self.radius_squared), apples)
        prob = jnp.asarray(self.regrow_prob, jnp.float32)
        chance = jnp.select([near == k for k in range(3)], [prob[k] for k in range(3)], prob[3])
        grows = ~apples & happens(bits, chance)
        return grows if self.grows_under_avatars else grows & ~occupied(cell, self.board.sites("A"))

    def items(self, state: State) -> Array:
        """[C] uint8 floor, wall or apple."""
        still = (self.board.letters == "W").astype(np.uint8) * WALL
        return jnp.concatenate([state.apples.astype(jnp.uint8) * APPLE, still[self.board.sites("A").stop :]])

    def _look(self, state: State, ate: Array, fired: Array, reward: Array, over: tuple) -> TimeStep:
        ready = self.readiness(state.avatars, state.zaps.cooldown, self.cooldown)
        events = {"ate": ate} | self.zap_events(state)
        return self.observe(self.items(state), state.avatars, fired, ready, reward, over, events)


@functools.lru_cache
def _near(board: Board, radius_squared: int) -> np.ndarray:
    return board.near_masks("A", radius_squared)
