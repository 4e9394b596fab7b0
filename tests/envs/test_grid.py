"""Parts of grid games: order, moves, beams, places to appear, views; by hand and by their chances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.board import EAST, NORTH, SOUTH, WEST, Board
from envs.grid import (
    BACKWARD,
    FORWARD,
    LEFT,
    NOOP,
    RIGHT,
    TURN_LEFT,
    TURN_RIGHT,
    Avatars,
    count_near,
    draw,
    firsts,
    goals,
    happens,
    hits,
    moved,
    placed,
    ranks,
    rays,
    seats_of,
    turned,
    view,
)

FIELD = Board(("." * 9,) * 9, "W", False, "")
N = 20_000


def at(row, column):
    return row * 9 + column


def avatars(*places):
    """Avatars of (row, column, facing), or None for away."""
    cells = [FIELD.nowhere if p is None else at(*p[:2]) for p in places]
    facing = [0 if p is None else p[2] for p in places]
    return Avatars(jnp.array(cells, jnp.int32), jnp.array(facing, jnp.int32))


def many(shape, seed=0):
    return jax.jit(jax.vmap(lambda key: draw(key, shape)[0]))(jax.random.split(jax.random.key(seed), N))


def near(count, expected, deviations=5):
    """Binomial or multinomial counts are within some standard deviations."""
    spread = np.sqrt(np.maximum(np.asarray(expected), 1))
    return (np.abs(np.asarray(count) - expected) < deviations * spread).all()


# draws


def test_words_are_uniform_and_independent_of_each_other_and_of_the_key():
    words = np.asarray(many((8,))).astype(np.uint64)
    counts = np.stack([np.bincount((words >> 28)[:, i].astype(int), minlength=16) for i in range(8)])
    assert near(counts, N / 16)
    bits = ((words[:, :, None] >> np.arange(32, dtype=np.uint64)) & 1).astype(float) - 0.5
    flat = bits.reshape(N, -1) * 2
    correlation = flat.T @ flat / N - np.eye(256)
    assert np.abs(correlation).max() < 6 / np.sqrt(N)
    lag = (flat[1:] * flat[:-1]).mean(0)
    assert np.abs(lag).max() < 5 / np.sqrt(N)


@pytest.mark.parametrize("prob", [0.0, 5.8e-4, 0.05, 0.5, 1.0])
def test_what_happens_with_a_probability(prob):
    count = int(happens(many((50,)), prob).sum())
    assert abs(count - 50 * N * prob) <= 5 * np.sqrt(50 * N * prob * (1 - prob))


def test_orders_are_uniform_permutations():
    order = np.asarray(jax.jit(jax.vmap(ranks))(many((3,))))
    counts = np.bincount(order @ [9, 3, 1], minlength=27)
    assert np.count_nonzero(counts) == 6
    assert near(counts[counts > 0], N / 6)
    assert ranks(jnp.array([7, 7, 3], jnp.uint32)).tolist() == [1, 2, 0]


# moves


@pytest.mark.parametrize(
    ("action", "north", "east"),
    [(FORWARD, (3, 4), (4, 5)), (BACKWARD, (5, 4), (4, 3)), (LEFT, (4, 3), (3, 4)), (RIGHT, (4, 5), (5, 4))],
)
def test_moves_are_relative_to_where_one_looks(action, north, east):
    two = avatars((4, 4, NORTH), (4, 4, EAST))
    assert goals(FIELD, two, jnp.array([action, action])).tolist() == [at(*north), at(*east)]
    assert turned(two, jnp.array([action, action])).facing.tolist() == [NORTH, EAST]


def test_turns_change_the_direction_only():
    two = avatars((4, 4, NORTH), (4, 5, WEST))
    action = jnp.array([TURN_LEFT, TURN_RIGHT])
    assert turned(two, action).facing.tolist() == [WEST, NORTH]
    assert goals(FIELD, two, action).tolist() == two.cell.tolist()
    assert goals(FIELD, two, jnp.array([NOOP, 12])).tolist() == two.cell.tolist()


def test_moves_resolve_one_after_another():
    row = jnp.array([10, 11, 12])  # all step right: only who goes first in line lets the next one follow
    goal = row + 1
    assert moved(row, goal, jnp.array([2, 1, 0])).tolist() == [11, 12, 13]
    assert moved(row, goal, jnp.array([0, 1, 2])).tolist() == [10, 11, 13]
    swap = jnp.array([5, 6])
    assert moved(swap, swap[::-1], jnp.array([0, 1])).tolist() == [5, 6]


def test_each_wins_a_contested_cell_half_the_time():
    order = jax.jit(jax.vmap(ranks))(many((2,)))
    ends = jax.jit(jax.vmap(lambda rank: moved(jnp.array([3, 5]), jnp.array([4, 4]), rank)))(order)
    first = int((ends == jnp.array([4, 5])).all(1).sum())
    second = int((ends == jnp.array([3, 4])).all(1).sum())
    assert first + second == N
    assert abs(first - N / 2) < 5 * np.sqrt(N / 4)


# beams


def struck(avatars, length=3, radius=1, stopped=None):
    cells = rays(FIELD.beam(length, radius), avatars)
    return np.asarray(seats_of(hits(FIELD, cells, avatars, stopped)))


def test_a_beam_hits_ahead_and_beside_but_not_behind_or_far():
    who = avatars((6, 4, NORTH), (3, 4, NORTH), (6, 3, SOUTH), (4, 5, NORTH), (7, 4, NORTH), (2, 4, NORTH))
    assert struck(who)[0].tolist() == [False, True, True, True, False, False]


def test_the_first_avatar_on_a_ray_shields_the_others():
    who = avatars((6, 4, NORTH), (5, 4, NORTH), (4, 4, NORTH), None)
    assert struck(who)[0].tolist() == [False, True, False, False]
    assert struck(who)[1].tolist() == [False, False, True, False]


def test_two_can_hit_each_other_and_who_is_away_takes_no_part():
    who = avatars((6, 4, NORTH), (4, 4, SOUTH), None, None)
    found = struck(who)
    assert found[0].tolist() == [False, True, False, False]
    assert found[1].tolist() == [True, False, False, False]
    assert not found[2:].any()


def test_other_things_can_stop_a_ray():
    who = avatars((6, 4, NORTH), (4, 4, SOUTH))
    stopped = jnp.zeros((2, 1, 3), bool).at[0, 0, 0].set(True)
    assert struck(who, 3, 0).tolist() == [[False, True], [True, False]]
    assert struck(who, 3, 0, stopped).tolist() == [[False, False], [True, False]]


def test_firsts_on_rays():
    marks = jnp.array([[[0, 2, 3], [0, 0, 0], [1, 0, 4]]])
    assert firsts(marks).tolist() == [[2, 0, 1]]


# places


def test_places_are_uniform_free_and_different():
    site, wants = jnp.array([2, 9, 9, 9]), jnp.array([False, True, True, False])
    found = np.asarray(jax.jit(jax.vmap(lambda bits: placed(bits, site, wants, 6)))(many((4,))))
    assert (found[:, [0, 3]] == [2, 9]).all()
    pairs = np.bincount(found[:, 1] * 6 + found[:, 2], minlength=36).reshape(6, 6)
    allowed = ~np.eye(6, dtype=bool)
    allowed[2], allowed[:, 2] = False, False
    assert pairs[~allowed].sum() == 0
    assert near(pairs[allowed], N / 20)


def test_everybody_finds_a_place_where_there_are_just_enough():
    everyone = jnp.ones(5, bool)
    found = np.asarray(jax.jit(jax.vmap(lambda bits: placed(bits, jnp.full(5, 5), everyone, 5)))(many((5,))))
    assert (np.sort(found, axis=1) == np.arange(5)).all()
    assert near(np.bincount(found[:, 0], minlength=5), N / 5)


def test_neighbours_are_counted():
    b = Board(("A" * 7,) * 6, "W", False, "A")
    there = np.random.default_rng(0).random((6, 7)) < 0.5
    found = np.asarray(count_near(b.near_masks("A", 4), jnp.asarray(there.ravel()))).reshape(6, 7)
    for row, column in np.ndindex(6, 7):
        around = [(r, c) for r, c in np.ndindex(6, 7) if 0 < (r - row) ** 2 + (c - column) ** 2 <= 4]
        assert found[row, column] == sum(there[place] for place in around)


# views


def test_a_view_shows_items_seats_from_oneself_and_where_they_look():
    who = avatars((4, 4, EAST), (4, 6, WEST), (3, 4, EAST), None)
    item = jnp.arange(81, dtype=jnp.uint8) % 7
    status = jnp.array([1, 2, 3, 4], jnp.uint8)
    grid = np.asarray(view(FIELD, FIELD.window(2, 1, 1), item, who, status, (2, 1, 1)))
    assert grid.shape == (4, 4, 3, 4)
    assert grid.dtype == np.uint8
    assert grid[0, 2, 1].tolist() == [at(4, 4) % 7, 1, 1, 1]  # oneself, in its place
    assert grid[0, 0, 1].tolist() == [at(4, 6) % 7, 2, 3, 2]  # two ahead, looking back
    assert grid[0, 2, 0].tolist() == [at(3, 4) % 7, 3, 1, 3]  # to the left, looking the same way
    assert grid[1, 0, 1].tolist() == [at(4, 4) % 7, 4, 3, 1]  # the same pair from the other side
    assert (grid[..., 1] > 0).sum((1, 2)).tolist() == [3, 3, 3, 0]
    assert not grid[3].any()


def test_views_permute_with_seats():
    places = [(4, 4, EAST), (4, 6, WEST), (3, 4, SOUTH), (7, 7, NORTH)]
    item, status = jnp.zeros(81, jnp.uint8), jnp.zeros(4, jnp.uint8)
    see = lambda order: np.asarray(
        view(FIELD, FIELD.window(3, 3, 3), item, avatars(*[places[i] for i in order]), status, (3, 3, 3))
    )
    turned_round = see([1, 2, 3, 0])  # a rotation keeps how far the others are from oneself
    np.testing.assert_array_equal(see([0, 1, 2, 3]), turned_round[[3, 0, 1, 2]])
