"""Grid games of seats that look nowhere, walk by absolute moves and may share cells: what they share.

**Source**: the games of LASE (Kong et al. 2024, arXiv 2410.07863), read in the paper; it tells neither the
size of the view nor where seats start. Here the default view holds the whole map from every cell, and seats
start on independent uniform cells, so that two may start on one. The paper shows a plane for each seat, each
item and the inside of the map; here one layer holds the item codes, 0 being outside. Axes: A seats, C cells
(number C is outside the map), W cells of a view, K things
to place or seats that want the same.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from envs.board import Board, load_board, sprites
from envs.grid import made, placed, uniform
from marl.environment import Environment, TimeStep
from marl.render import PALETTE, Thing, board

MOVES = ("up", "down", "left", "right", "stay")  # the first actions of every game
DIRECTIONS = np.array([0, 2, 3, 1, 4], np.int32)  # row of Board.moves of each of them
STAY = 4
MAX_SEATS = 24  # one bit each beside the 8 of the item
FLOOR = 1  # item code; 0 is outside the map


class WalkGame(Environment):
    """What games of walking seats have in common; subclasses say what lies there and what is done with it.

    obs["grid"] is uint8 [A, 2 * side + 1, 2 * side + 1, 1 + A], the cells around each seat: the item code,
    0 outside the map; then for oneself and the others, by seat, counted from oneself, 1 where they
    stand. Who left the map sees zeros. Actions without effect where a seat stands are legal.
    """

    layout: str = struct.field(pytree_node=False)  # a map of envs/layouts, or the path of a .txt file
    num_players: int = struct.field(pytree_node=False)  # A
    horizon: int = struct.field(pytree_node=False)  # steps of every episode
    side: int = struct.field(pytree_node=False)  # cells seen to each side

    ACTIONS = MOVES  # names
    ITEMS = ("outside", "floor")  # names of the item codes
    ORDER = ""  # letters of the map beside '.', the floor; their cells are numbered first
    COLOURS = {}  # item code: kind of sprite and its colour

    all_legal = True

    @property
    def num_agents(self) -> int:
        """The players."""
        return self.num_players

    @property
    def action_space(self) -> spaces.Space:
        """Four moves, staying, then what a game adds."""
        return spaces.Discrete(len(self.ACTIONS))

    @property
    def grid_codes(self) -> tuple[int, ...]:
        """Codes of the item, then two codes a seat, absent and present."""
        return (len(self.ITEMS), *(2,) * self.num_players)

    @property
    def fixed_horizon(self) -> int:
        """All episodes are cut at the horizon."""
        return self.horizon

    @property
    def board(self) -> Board:
        """The numbered cells."""
        return load_board(self.layout, "", False, self.ORDER)

    def check(self) -> None:
        """Raise ValueError for a map or numbers that do not fit."""
        unknown = set(self.board.letters.tolist()) - {".", *self.ORDER}
        if unknown:
            known = " ".join([".", *self.ORDER])
            raise ValueError(f"env.layout={self.layout}: must have only cells {known}, not {min(unknown)}")
        if not 1 <= self.num_players <= MAX_SEATS:
            raise ValueError(f"env.num_players={self.num_players}: must lie in 1 .. {MAX_SEATS}")
        for name, least in (("horizon", 1), ("side", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least {least}")

    def check_counts(self, *names: str) -> None:
        """Raise ValueError unless the fields called so, numbers of things on cells of their own, fit."""
        for name in names:
            if getattr(self, name) < 0:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least 0")
        if sum(getattr(self, name) for name in names) > self.board.nowhere:
            text = ", ".join(f"env.{name}={getattr(self, name)}" for name in names)
            raise ValueError(f"{text}: must be at most the {self.board.nowhere} cells of the map")

    def start(self, bits: Array) -> Array:
        """[A] int32 uniform cells; bits [A] uint32."""
        return (uniform(bits) * self.board.nowhere).astype(jnp.int32)

    def apart(self, bits: Array) -> Array:
        """[K] int32 uniform cells, all different; bits [K] uint32."""
        num_cells = self.board.nowhere
        nowhere = jnp.full(bits.shape, num_cells, jnp.int32)
        return placed(bits, nowhere, nowhere == nowhere, num_cells)

    def walked(self, cell: Array, action: Array) -> Array:
        """[A] cells after all moved at once; borders hold back, and who is off the map stays off."""
        direction = jnp.asarray(DIRECTIONS)[jnp.minimum(action, STAY)]
        return jnp.asarray(self.board.moves)[direction * (self.board.nowhere + 1) + cell]

    def observe(self, item: Array, cell: Array, time: Array, reward: Array, events: Any) -> TimeStep:
        """The TimeStep of item codes [C] and the seats' cells [A]."""
        return TimeStep(
            obs={"grid": self._view(item, cell)},
            reward=jnp.asarray(reward, jnp.float32),
            terminated=jnp.bool_(False),
            truncated=time >= self.horizon,
            action_mask=jnp.ones((self.num_players, len(self.ACTIONS)), bool),
            events={name: jnp.asarray(count, jnp.float32) for name, count in events.items()},
        )

    def _view(self, item: Array, cell: Array) -> Array:
        """[A, rows, columns, 1 + A] uint8: one gather of words that hold the item and a bit a seat."""
        num, width = self.num_players, 2 * self.side + 1
        seat = np.arange(num, dtype=np.uint32)
        bit = jnp.where(cell < self.board.nowhere, np.uint32(1) << 8 + seat, 0).astype(jnp.uint32)
        plane = jnp.append(item, jnp.uint8(0)).astype(jnp.int32)
        plane = made(plane, plane).astype(jnp.uint32).at[cell].add(bit)
        window = jnp.asarray(_window(self.board, self.side))[made(cell, cell)]  # [A, W]
        seen = made(plane.at[window].get(mode="promise_in_bounds"), cell)
        shift = np.zeros((num, 1, 1 + num), np.uint32)
        shift[:, 0, 1:] = 8 + (seat[:, None] + seat) % num  # oneself first
        mask = np.array([0xFF, *(1,) * num], np.uint32)
        layers = (seen[..., None] >> shift & mask).astype(jnp.uint8)
        return made(layers, cell).reshape(num, width, width, 1 + num)

    def items(self, state: Any) -> Array:
        """[C] uint8 item code of each cell."""
        raise NotImplementedError("a game says what lies where")

    def put_on_floor(self, *things: tuple[Array, int]) -> Array:
        """[C] uint8 item codes of an empty map with pairs of cells [K] and the code of what lies there."""
        item = jnp.full(self.board.nowhere, FLOOR, jnp.uint8)
        for cell, code in things:
            item = item.at[cell].set(code, mode="drop")
        return item

    def picture(self, state: Any) -> np.ndarray:
        """The map with sprites; seats are discs of their colours."""
        rows, columns = self.board.row_column
        things = sprites(self.board, self.items(state), self.COLOURS)
        for seat, cell in enumerate(np.asarray(state.cell)):
            if cell < self.board.nowhere:
                things.append(Thing(rows[cell], columns[cell], PALETTE[seat % len(PALETTE)], "disc"))
        return board(*self.board.shape, things)


def one_a_cell(bits: Array, cell: Array, wants: Array) -> Array:
    """[A] bool, of the seats that want what lies on their cell one a cell, each with probability 1 / K.

    Args:
        bits: [A] uint32; the lowest gets it, of equal ones (p < A^2 / 2^33) all.
        cell: [A] int32 where they stand.
        wants: [A] bool.
    """
    ahead = wants & (cell == cell[:, None]) & (bits < bits[:, None])
    return wants & ~ahead.any(-1)


@functools.lru_cache
def _window(board: Board, side: int) -> np.ndarray:
    """[C + 1, W] uint16 cells seen from each cell, north up."""
    return np.ascontiguousarray(board.window(side, side, side)[::4])
