"""Who meets whom: partners chosen or drawn, among all seats or among neighbours in caves.

**Sources**: Dasgupta and Musolesi 2023 (arXiv 2301.08278): selection on reputations, and the connected
caveman graph of its network experiments; Anastassacos, Hailes and Musolesi 2020 (arXiv 1902.03185):
selection on last moves (one-hot, as in a re-implementation; the paper's coding is not known to us).
Axes: N seats, D most neighbours of a seat.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from envs.grid import draw, nth_true
from marl.validation import require_choices

RULES, SIGHTS = ("chosen", "random"), ("reputations", "moves")
MIN_CAVE = 3  # seats


class Partners(struct.PyTreeNode):
    """How a seat comes to its partner, one of its neighbours."""

    rule: str = struct.field(pytree_node=False)  # one of RULES
    sees: str = struct.field(pytree_node=False)  # what a choosing seat sees of its neighbours, one of SIGHTS
    caves: int = struct.field(pytree_node=False)  # 0: everybody is everybody's neighbour

    def check(self, num_players: int) -> None:
        """Raise ValueError for an unknown rule, or caves that do not fit."""
        require_choices(self, "env.partners", {"rule": RULES, "sees": SIGHTS})
        caves = self.caves
        if caves and (caves < 2 or num_players % caves or num_players // caves < MIN_CAVE):
            wrong = f"env.partners.caves={caves}: must be 0, or at least 2 and divide"
            raise ValueError(f"{wrong} env.num_players={num_players} into caves of {MIN_CAVE} or more")

    def drawn(self, key: Array, num_players: int, action: Array) -> Array:
        """[N] int32 partners, by the number of a neighbour in `action` [N], or at random."""
        table = neighbours(num_players, self.caves)
        if self.rule == "random":
            (bits,) = draw(key, (num_players,))
            action = (bits % (table >= 0).sum(1).astype(np.uint32)).astype(jnp.int32)
        return jnp.take_along_axis(jnp.asarray(table), action[:, None], 1)[:, 0]

    def features(self, last: Array, shown: Array) -> Array:
        """What a choosing seat sees, [N, F]: last moves `last` [N] or scores `shown` [N, N] by who looks.

        Moves are one-hots [cooperated, defected] of each neighbour. Scores are those of all seats, the
        own one included, or on a graph those of the neighbours; 0 where there is no further neighbour.
        """
        num = last.shape[0]
        table = neighbours(num, self.caves)
        known, place = table >= 0, np.maximum(table, 0)
        if self.sees == "moves":
            return (jax.nn.one_hot(last[place], 2) * known[..., None]).reshape(num, -1)
        return shown if not self.caves else jnp.take_along_axis(shown, place, 1) * known

    def legal(self, num_players: int) -> np.ndarray:
        """[N, D] bool, the choices that a seat has when it chooses."""
        return neighbours(num_players, self.caves) >= 0

    def third_parties(self, key: Array, pair: Array, num_players: int) -> Array:
        """[2] int32 seats that are neighbours of one of `pair` [2] and not in it, drawn one by one."""
        near = jnp.asarray(adjacency(num_players, self.caves))[pair].any(0)
        near &= (np.arange(num_players)[:, None] != pair).all(1)
        (bits,) = draw(key, (2,))
        return jnp.stack([nth_true(near, bits[0]), nth_true(near, bits[1])])


@functools.cache
def adjacency(num_players: int, caves: int) -> np.ndarray:
    """[N, N] bool: the complete graph for 0 caves, else the connected caveman graph.

    In each cave, a complete graph, the edge between its first two seats goes from the first to the last
    seat of the cave before (Watts 1999; numbered as in NetworkX).
    """
    if not caves:
        return ~np.eye(num_players, dtype=bool)
    size = num_players // caves
    near = np.kron(np.eye(caves, dtype=bool), ~np.eye(size, dtype=bool))
    for first in range(0, num_players, size):
        near[[first, first + 1], [first + 1, first]] = False
        near[[first, first - 1], [first - 1, first]] = True
    return near


def neighbours(num_players: int, caves: int) -> np.ndarray:
    """[N, D] int32 neighbours of each seat in order, -1 behind the last."""
    near = adjacency(num_players, caves)
    lists = [np.flatnonzero(row) for row in near]
    width = max(map(len, lists))
    return np.stack([np.pad(x, (0, width - len(x)), constant_values=-1) for x in lists]).astype(np.int32)
