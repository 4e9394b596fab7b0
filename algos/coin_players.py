"""Scripted players of the Coin Game: one cooperates always, the other takes every coin it can.

**Sources**: "Always cooperate" and "always defect" of POLA (Zhao et al. 2022, arXiv 2210.10125) and LOQA
(Aghajohari et al. 2024, arXiv 2405.01035), read in LOQA's code: the cooperative player takes a
shortest way to its own coin and moves as far as it can from the other's; the greedy one takes a
shortest way to any coin. Distances are Manhattan distances, around the edges on a torus. Equally
good moves are drawn from uniformly.

Extensions: on boards with two coins the cooperative player goes for its own and never steps on a cell
where only the other's lies (both coins on one cell it takes, or none could); the greedy player
goes for the nearest. Where no coin is in view, both move at random. Axes: E games,
A seats, N actions, M moves of the game.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from marl.algorithm import Algorithm
from marl.environment import Environment, bare_game

STRATEGIES = ("cooperative", "greedy")
OBS_MODES = ("swapped", "egocentric")
OWN_SEAT, OWN_COIN, OTHER_COIN, OUTSIDE = 0, 2, 3, 4  # planes of obs["grid"]
FAR = 1000  # steps, more than any distance


class Cell(NamedTuple):
    """A cell for each seat."""

    row: Array  # [E, A] int32
    column: Array  # [E, A] int32
    exists: Array  # [E, A] bool, whether there is such a cell in view


class CoinPlayer(Algorithm):
    """Walks to coins by a fixed rule; reads obs["grid"], where the own planes must come first.

    Where its move is not legal it takes the lowest-numbered legal action.
    """

    strategy: str = struct.field(pytree_node=False)  # one of STRATEGIES

    def check(self, env: Environment) -> None:
        """Raise ValueError for an unknown strategy, or a game without the planes of a Coin Game."""
        if self.strategy not in STRATEGIES:
            raise ValueError(f"algo.strategy={self.strategy}: must be one of {', '.join(STRATEGIES)}")
        game: Any = bare_game(env)
        who = f"scripted player coin_{self.strategy}"
        if not all(hasattr(game, name) for name in ("moves", "wrap", "obs_mode")):
            raise ValueError(f"{who} plays only the Coin Game, not {type(game).__name__}")
        if game.obs_mode not in OBS_MODES:
            raise ValueError(
                f"{who} cannot tell its seat under env.obs_mode={game.obs_mode}; "
                f"it needs {' or '.join(OBS_MODES)}"
            )

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Moves [E, A] int32; `greedy` takes the first of equally good ones."""
        game: Any = bare_game(env)
        grid = ts.obs["grid"].astype(jnp.int32)
        coins = _find(grid[..., OWN_COIN]), _find(grid[..., OTHER_COIN])
        reached = [_reached(grid, move, game.wrap) for move in game.moves]
        board = grid.shape[-2] if game.wrap else None
        cost = jnp.stack([self._cost(cell, *coins, board) for cell in reached], axis=-1)  # [E, A, M]
        if not greedy:  # costs are whole numbers: this orders only equal ones
            cost = cost + jax.random.uniform(key, cost.shape)
        move = cost.argmin(-1)
        legal = jnp.take_along_axis(ts.action_mask, move[..., None], axis=-1)[..., 0]
        return jnp.where(legal, move, ts.action_mask.argmax(-1)).astype(jnp.int32), carry, ()

    def _cost(self, cell: Cell, own: Cell, other: Cell, torus: int | None) -> Array:
        """[E, A] int32, least for the best `cell` to be at, given where the coins are."""
        to_own, to_other = _distance(cell, own, torus), _distance(cell, other, torus)
        if self.strategy == "greedy":
            return jnp.minimum(jnp.where(own.exists, to_own, FAR), jnp.where(other.exists, to_other, FAR))
        steals = other.exists & (to_other == 0) & ~(own.exists & (to_own == 0))
        flees = jnp.where(other.exists, -to_other, 0)
        return jnp.where(own.exists, to_own, flees) + FAR * steals


def _find(plane: Array) -> Cell:
    """Where a plane [E, A, S, S] is 1."""
    index = np.arange(plane.shape[-1])
    row, column = (plane * index[:, None]).sum((-2, -1)), (plane * index).sum((-2, -1))
    return Cell(row, column, plane.any((-2, -1)))


def _reached(grid: Array, move: tuple[int, int], wrap: bool) -> Cell:
    """Where a (row, column) step leads from the own cell; grid [E, A, S, S, L] int32."""
    size, own = grid.shape[-2], _find(grid[..., OWN_SEAT])
    row, column = own.row + move[0], own.column + move[1]
    if wrap:
        return Cell(row % size, column % size, own.exists)
    if grid.shape[-1] <= OUTSIDE:  # the whole board is seen, its edges are walls
        return Cell(jnp.clip(row, 0, size - 1), jnp.clip(column, 0, size - 1), own.exists)
    centre = size // 2
    is_wall = grid[..., centre + move[0], centre + move[1], OUTSIDE] > 0
    return Cell(jnp.where(is_wall, own.row, row), jnp.where(is_wall, own.column, column), own.exists)


def _distance(a: Cell, b: Cell, torus: int | None) -> Array:
    """[E, A] steps from one cell to another; `torus` is the size of a board without edges."""
    apart = [jnp.abs(a.row - b.row), jnp.abs(a.column - b.column)]
    if torus:
        apart = [jnp.minimum(x, torus - x) for x in apart]
    return apart[0] + apart[1]
