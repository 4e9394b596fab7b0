"""Boards of grid games, read from text maps, and the index tables that make their steps cheap.

A map is a text file: a line a row, a letter a cell, and what a letter means is the game's affair.
Cells are numbered so that all cells of a kind ("sites": where apples grow, where seats start) follow each
other; a game then keeps one number a site, and everything about space is a lookup in a constant
table. Tables are numpy, made once when a game is compiled. Axes: C cells, W cells of a window,
R rays of a beam, L cells of a ray.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from marl.render import Colour, Thing

FOLDER = Path(__file__).parent / "layouts"
NORTH, EAST, SOUTH, WEST = range(4)
STEPS = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])  # (row, column) step of each direction


def read_map(name: str) -> tuple[str, ...]:
    """The rows of the map called `name` in envs/layouts, or of a text file (a path ending in .txt).

    Raises:
        ValueError: if there is none, or its rows differ in length.
    """
    path = Path(name) if name.endswith(".txt") else FOLDER / f"{name}.txt"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.txt")))
        raise ValueError(f"env.layout={name}: no such map; a .txt file or one of {known}")
    rows = tuple(path.read_text().splitlines())
    if not rows or len({len(row) for row in rows}) > 1 or not rows[0]:
        raise ValueError(f"env.layout={name}: rows must be equally long")
    return rows


@dataclasses.dataclass(frozen=True, eq=False)
class Board:
    """A map with numbered cells; number C, `nowhere`, is outside the map.

    Fields: rows, the map; walls, letters that nobody enters and no beam passes; torus, whether the
    edges meet; order, letters whose cells are numbered first, in this order.
    """

    rows: tuple[str, ...]
    walls: str
    torus: bool
    order: str

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.rows), len(self.rows[0])

    @property
    def nowhere(self) -> int:
        """C, the number of cells and the number of the place outside."""
        return self.shape[0] * self.shape[1]

    @functools.cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Letter [C] of each number, and place [C] in reading order of each number."""
        letters = np.array(list("".join(self.rows)))
        first = np.array([self.order.find(x) if x in self.order else len(self.order) for x in letters])
        place = np.argsort(first, kind="stable")
        return letters[place], place

    @property
    def letters(self) -> np.ndarray:
        """[C] letter of each cell by number."""
        return self._sorted[0]

    @functools.cached_property
    def row_column(self) -> tuple[np.ndarray, np.ndarray]:
        """Row [C] and column [C] of each number."""
        return np.divmod(self._sorted[1], self.shape[1])

    @functools.cached_property
    def number(self) -> np.ndarray:
        """[rows, columns] int32 number of each cell."""
        number = np.empty(self.nowhere, np.int32)
        number[self._sorted[1]] = np.arange(self.nowhere)
        return number.reshape(self.shape)

    def sites(self, letters: str) -> slice:
        """The numbers of the cells with one of `letters`, which stand side by side in `order`."""
        found = np.flatnonzero(np.isin(self.letters, list(letters)))
        if not len(found):
            return slice(0, 0)
        assert len(found) == found[-1] - found[0] + 1, f"cells {letters} are not numbered in turn"
        return slice(int(found[0]), int(found[-1]) + 1)

    def count(self, letters: str) -> int:
        """How many cells have one of `letters`."""
        return int(np.isin(self.letters, list(letters)).sum())

    @functools.cached_property
    def _open(self) -> np.ndarray:
        """[C + 1] bool, cells that can be entered."""
        return np.append(~np.isin(self.letters, list(self.walls)), False)

    def at(self, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """[C + 1, *X] int32 number of the cell so many rows down and columns right [*X] of each cell."""
        row, column = (x.reshape(-1, *(1,) * np.ndim(down)) for x in self.row_column)
        row, column = row + down, column + right
        height, width = self.shape
        if self.torus:
            row, column = row % height, column % width
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        found = np.where(
            inside, self.number[row.clip(0, height - 1), column.clip(0, width - 1)], self.nowhere
        )
        return np.concatenate([found, np.full((1, *np.shape(down)), self.nowhere)]).astype(np.int32)

    @functools.cached_property
    def moves(self) -> np.ndarray:
        """[5 * (C + 1)] int32 cell reached by a step in each direction, then by none; walls hold back."""
        here = np.arange(self.nowhere + 1)
        reached = np.stack([self.at(*step) for step in STEPS])
        return (
            np.concatenate([np.where(self._open[reached], reached, here), here[None]])
            .ravel()
            .astype(np.int32)
        )

    def window(self, ahead: int, behind: int, side: int) -> np.ndarray:
        """[(C + 1) * 4, W] uint16 cells seen from each cell in each orientation, row by row.

        W = (ahead + behind + 1) * (2 * side + 1); the view is turned so that ahead is up.
        """
        up = np.arange(ahead, -behind - 1, -1)
        forward, right = (x.ravel() for x in np.meshgrid(up, np.arange(-side, side + 1), indexing="ij"))
        return self._turned(forward, right).astype(np.uint16).reshape(-1, len(forward))

    def _turned(self, forward: np.ndarray, right: np.ndarray) -> np.ndarray:
        """[C + 1, 4, *X] cells `forward` [*X] and `right` [*X] of each cell in each orientation."""
        found = []
        for (down, over), (right_down, right_over) in zip(STEPS, np.roll(STEPS, -1, 0), strict=True):
            found.append(self.at(down * forward + right_down * right, over * forward + right_over * right))
        return np.stack(found, axis=1)

    def near_masks(self, letters: str, radius_squared: int) -> np.ndarray:
        """[N, M] uint32, for each of N sites the others within a distance, as bits of M words."""
        row, column = (x[self.sites(letters)] for x in self.row_column)
        down, over = (abs(x[:, None] - x) for x in (row, column))
        if self.torus:
            down, over = np.minimum(down, self.shape[0] - down), np.minimum(over, self.shape[1] - over)
        apart = down**2 + over**2
        near = (apart > 0) & (apart <= radius_squared)
        near = np.pad(near, ((0, 0), (0, -len(row) % 32))).reshape(len(row), -1, 32)
        return (near * (1 << np.arange(32, dtype=np.uint64))).sum(-1).astype(np.uint32)

    def beam(self, length: int, radius: int) -> np.ndarray:
        """[(C + 1) * 4, R, L] int32 cells that a beam covers from each cell in each orientation.

        It has R = 2 * radius + 1 rays. The middle one covers 1 .. length ahead; the ray r to a side starts
        beside the shooter and has length - r + 1 cells. Walls end a ray; if the first cell of a ray is
        one, so do the rays beyond. Where a ray does not reach stands C + 1, with length 0 everywhere.
        """
        rays, none = [], self.nowhere + 1
        if not length:
            return np.full((none * 4, 2 * radius + 1, 1), none, np.int32)
        for r in range(-radius, radius + 1):
            steps = np.arange(1, length + 1) if r == 0 else np.arange(0, length - abs(r) + 1)
            cells = self._turned(steps, np.full(len(steps), r))  # [C + 1, 4, L]
            free = np.logical_and.accumulate(self._open[cells], axis=-1)
            for s in range(1, abs(r)):
                free &= self._open[self._turned(np.array(0), np.array(np.sign(r) * s))][..., None]
            pad = ((0, 0), (0, 0), (0, length - len(steps)))
            rays.append(np.pad(np.where(free, cells, none), pad, constant_values=none))
        return np.stack(rays, 2).reshape(-1, 2 * radius + 1, length).astype(np.int32)


@functools.lru_cache
def load_board(name: str, walls: str, torus: bool, order: str) -> Board:
    """The Board of a map; arguments as its fields, `name` as of `read_map`."""
    return Board(read_map(name), walls, torus, order)


def sprites(board: Board, item: np.ndarray, looks: dict[int, tuple[str, Colour]]) -> list[Thing]:
    """What is drawn of a board's item codes [C]; `looks`, kind and colour of the codes that are shown."""
    places = zip(*board.row_column, np.asarray(item).tolist(), strict=True)
    return [Thing(row, column, *looks[code][::-1]) for row, column, code in places if code in looks]
