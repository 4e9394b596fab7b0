"""The centipede game, hand-played: -1 for the mover, +5 for the other, until somebody stops."""

import jax
import pytest

from envs.centipede import Centipede
from tests.toys import follow

KEY = jax.random.key(0)
GAME = Centipede(cost=1.0, gift=5.0, num_moves=4)


def test_going_on_pays_the_other_and_stopping_ends_the_game():
    _, _, ts = follow(GAME, KEY, [[0, 0], [0, 0], [1, 0]])
    assert ts.reward.tolist() == [[-1, 5], [5, -1], [0, 0]]
    assert ts.terminated.tolist() == [False, False, True]
    assert ts.events["cooperated"].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert ts.events["defected"].tolist() == [[0, 0], [0, 0], [1, 0]]


def test_seats_move_in_turn_and_the_last_move_ends_it():
    first, _, ts = follow(GAME, KEY, [[0, 1], [1, 0], [0, 0], [0, 0]])
    assert first.action_mask.tolist() == [[True, True], [True, False]]
    assert ts.action_mask[0].tolist() == [[True, False], [True, True]]
    assert ts.terminated.tolist() == [False, False, False, True], "a stop of who waits is none"
    assert ts.reward.sum(0).tolist() == [8, 8]


def test_it_needs_moves():
    with pytest.raises(ValueError, match=r"env\.num_moves=0: must be at least 1"):
        Centipede(cost=1.0, gift=5.0, num_moves=0).check()
