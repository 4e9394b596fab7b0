"""Schelling's model with the rules of mesa 3.3.1 in plain Python: slow, to compare the fast one with.

**Source**: `mesa/examples/basic/schelling` of mesa 3.3.1, its rules, without its classes and its data
collection. The board has borders and neighbours are one cell away; without neighbours one is discontent.
Deviation: the numbers of both types are given, as in `envs.schelling_classic`.
"""

from __future__ import annotations

import random

AROUND = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]


class PlainSchelling:
    """A board that is stepped; the types are 1 and 2."""

    def __init__(
        self, seed: int, threshold: float, rows: int, columns: int, num_residents: tuple[int, int]
    ) -> None:
        """Put everybody on a cell of their own at random."""
        self.random = random.Random(seed)
        self.threshold = threshold
        cells = [(row, column) for row in range(rows) for column in range(columns)]
        self.near = {(i, j): [(i + a, j + b) for a, b in AROUND] for i, j in cells}
        self.near = {c: [n for n in near if n in self.near] for c, near in self.near.items()}
        self.random.shuffle(cells)
        kinds = [1] * num_residents[0] + [2] * num_residents[1]
        self.cell = cells[: len(kinds)]
        self.vacant = cells[len(kinds) :]
        self.kinds = kinds
        self.board = dict.fromkeys(cells, 0) | dict(zip(self.cell, kinds, strict=False))
        self.content = [self._satisfied(who) for who in range(len(kinds))]

    def step(self) -> None:
        """Who was discontent moves, in random order, to any vacancy of the moment; then all are judged."""
        order = list(range(len(self.cell)))
        self.random.shuffle(order)
        for who in order:
            if not self.content[who]:
                place = self.random.randrange(len(self.vacant))
                old, new = self.cell[who], self.vacant[place]
                self.board[old], self.board[new] = 0, self.kinds[who]
                self.cell[who], self.vacant[place] = new, old
        self.content = [self._satisfied(who) for who in range(len(order))]

    def same_fraction(self) -> float:
        """Mean share of the own type among neighbours; who has none is left out."""
        shares = []
        for who, kind in enumerate(self.kinds):
            near = self._neighbours(who)
            shares += [near.count(kind) / len(near)] if near else []
        return sum(shares) / len(shares)

    def _neighbours(self, who: int) -> list[int]:
        return [kind for n in self.near[self.cell[who]] if (kind := self.board[n])]

    def _satisfied(self, who: int) -> bool:
        near = self._neighbours(who)
        return (near.count(self.kinds[who]) / len(near) if near else 0.0) >= self.threshold
