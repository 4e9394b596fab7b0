"""The 144 strict ordinal games of two players and two actions, by number.

**Source**: the games of Akata, Schulz, Coda-Forno, Oh, Bethge, Schulz 2023, "Playing repeated games with
large language models" (arXiv 2305.16867), with their numbers and families. Each player ranks
the four outcomes 1 (worst) to 4 (best) without ties. Game 12 * (i - 1) + j gives the row player
the pattern i of `ROW_PATTERNS` and the column player the pattern j of `COLUMN_PATTERNS`. Deviation:
15 rows of the authors' table have ties (games 17-24, 58-60, 83, 84, 95, 96); here they follow
their row's and column's strict pattern. Action 0 is row 1 or column 1; the events call it
`cooperated` in every game, which fits the prisoner's dilemma (67) and the stag hunt (78) but has
no such meaning in most others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.matrix_game import MatrixGame

# Payoffs of outcomes (row 1, column 1), (row 1, column 2), (row 2, column 1), (row 2, column 2).
ROW_PATTERNS = (
    (3, 2, 4, 1),
    (2, 3, 4, 1),
    (1, 3, 4, 2),
    (1, 2, 4, 3),
    (2, 1, 4, 3),
    (3, 1, 4, 2),
    (4, 1, 3, 2),
    (4, 1, 2, 3),
    (4, 2, 1, 3),
    (4, 3, 1, 2),
    (4, 3, 2, 1),
    (4, 2, 3, 1),
)
COLUMN_PATTERNS = (
    (4, 3, 2, 1),
    (4, 2, 3, 1),
    (4, 1, 3, 2),
    (4, 1, 2, 3),
    (4, 2, 1, 3),
    (4, 3, 1, 2),
    (3, 4, 1, 2),
    (2, 4, 1, 3),
    (1, 4, 2, 3),
    (1, 4, 3, 2),
    (2, 4, 3, 1),
    (3, 4, 2, 1),
)
NUM_GAMES = len(ROW_PATTERNS) * len(COLUMN_PATTERNS)

# [144, 2, 2, 2] payoff[number - 1, row action, column action, player], to map over all games.
PAYOFFS = np.stack(
    [
        np.stack([row, column], axis=-1).reshape(2, 2, 2)
        for row in np.asarray(ROW_PATTERNS, np.float32)
        for column in np.asarray(COLUMN_PATTERNS, np.float32)
    ]
)

# The games in which both players are in the same position.
SYMMETRIC = {
    12: "chicken",
    23: "battle",
    34: "hero",
    45: "pure delight",
    56: "deadlock",
    67: "prisoner's dilemma",
    78: "stag hunt",
    89: "assurance",
    100: "coordination",
    111: "mixed harmony",
    122: "harmony",
    133: "no conflict",
}

FAMILIES = {
    "U": "unfair",
    "B": "biased",
    "C": "cyclic",
    "S": "second best",
    "T": "tragic",
    "P": "prisoner's dilemma family",
    "W": "win-win",
}
FAMILY_MAP = (  # one row a row pattern, one letter a column pattern
    "UBBCCCUUUBBU",
    "UBBCCCBBBBBB",
    "UBBCCCBBBBBB",
    "UBBSSTTSSBBU",
    "UBBSSTTSSBBU",
    "UBBPPPPTTBBU",
    "WWWWWWPTTCCC",
    "WWWWWWPSSCCC",
    "WWWWWWPSSCCC",
    "WWWWWWBBBBBB",
    "WWWWWWBBBBBB",
    "WWWWWWUUUUUU",
)


def ordinal_game(number: int, continuation_prob: Any, horizon: int, ends_by_chance: bool) -> MatrixGame:
    """The ordinal game of a number, repeated.

    Args:
        number: 1 .. 144.
        continuation_prob: [] probability that a round is followed by another.
        horizon: rounds, 0 = no limit.
        ends_by_chance: whether continuation_prob is used.

    Raises:
        ValueError: if there is no game of that number.
    """
    _check_number(number)
    return MatrixGame(
        payoff=PAYOFFS[number - 1],
        continuation_prob=continuation_prob,
        horizon=horizon,
        ends_by_chance=ends_by_chance,
    )


def family(number: int) -> str:
    """The family of game 1 .. 144, one of the values of `FAMILIES`.

    Raises:
        ValueError: if there is no game of that number.
    """
    _check_number(number)
    row, column = divmod(number - 1, len(COLUMN_PATTERNS))
    return FAMILIES[FAMILY_MAP[row][column]]


def _check_number(number: int) -> None:
    if not 1 <= number <= NUM_GAMES:
        raise ValueError(f"env.number={number}: must be a whole number from 1 to {NUM_GAMES}")
