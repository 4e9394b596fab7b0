"""Games of walking seats: moves, shared cells, views and pictures by hand, shown with the snowdrift game."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.snowdrift_grid import PILE, REMOVE
from envs.walk_game import one_a_cell
from marl.render import PALETTE
from tests.envs.grid_tools import KEY, cells, on_map, preset, squares, stand, step
from tests.probes import jit_reset

UP, DOWN, LEFT, RIGHT, STAY = range(5)
ROOM = ["....", "....", "...."]
GAMES = ["cleanup_8x8", "cleanup_8x8_extended", "stag_hunt_grid", "snowdrift_grid", "snowdrift_grid_extended"]


def room(**fields):
    return on_map(ROOM, "snowdrift_grid", **{"num_players": 3, "num_piles": 2, "side": 1} | fields)


def start(env, *places, piles=((0, 0), (2, 3))):
    state = stand(env, jit_reset(env, KEY)[0], *places)
    return state.replace(piles=cells(env, *piles))


def test_moves_are_absolute_at_once_and_borders_hold_back():
    env = room()
    state = start(env, (1, 1), (1, 2), (0, 3))
    ways = [
        ((UP, DOWN, LEFT), [(0, 1), (2, 2), (0, 2)]),
        ((RIGHT, LEFT, UP), [(1, 2), (1, 1), (0, 3)]),  # two change places, the border holds one back
        ((STAY, REMOVE, RIGHT), [(1, 1), (1, 2), (0, 3)]),
        ((RIGHT, STAY, LEFT), [(1, 2), (1, 2), (0, 2)]),  # two on a cell
    ]
    for action, expected in ways:
        assert squares(env, step(env, state, *action)[0].cell) == expected


def test_a_view_is_centred_on_its_seat_and_overruns_the_border():
    env = room()
    _, ts = step(env, start(env, (0, 1), (0, 1), (1, 2)), STAY, STAY, STAY)
    grid = np.asarray(ts.obs["grid"])
    assert grid.shape == (3, 3, 3, 4)
    assert grid.dtype == np.uint8
    assert grid[0, ..., 0].tolist() == [[0, 0, 0], [PILE, 1, 1], [1, 1, 1]]
    assert grid[2, ..., 0].tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, PILE]]
    own, second, third = (grid[0, ..., layer] for layer in (1, 2, 3))
    assert own.tolist() == second.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]  # they share the cell
    assert third.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    # seats are counted from oneself: seat 1 sees itself, 2, 0, and seat 2 itself, 0, 1
    np.testing.assert_array_equal(grid[1], grid[0][..., [0, 1, 3, 2]])
    assert [np.argwhere(grid[2, ..., layer]).tolist() for layer in (1, 2, 3)] == [
        [[1, 1]],
        [[0, 0]],
        [[0, 0]],
    ]


def test_who_left_sees_zeros_stands_nowhere_and_cannot_come_back():
    env = room(side=3)
    state = start(env, (1, 1), None, (1, 2))
    for action in (UP, DOWN, LEFT, RIGHT, STAY, REMOVE):
        state, ts = step(env, state, STAY, action, STAY)
        assert state.cell[1] == env.board.nowhere
        grid = np.asarray(ts.obs["grid"])
        assert not grid[1].any()
        assert not grid[0, ..., 2].any()
        assert not grid[2, ..., 3].any()
        assert grid[0, ..., 1].sum() == grid[0, ..., 3].sum() == 1


@pytest.mark.parametrize("name", GAMES)
def test_the_default_view_holds_the_whole_map_and_seats_with_their_items(name):
    env = preset(name)
    state, ts = jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, 500))
    height, width = env.board.shape
    num, side = env.num_agents, env.side
    grid = np.asarray(ts.obs["grid"])
    assert ((grid[..., 0] > 0).sum((-2, -1)) == height * width).all()
    assert (grid[..., 1:].sum((-3, -2)) == 1).all()
    assert (grid[..., side, side, 1] == 1).all(), "oneself is at the centre"
    assert grid.max((0, 1, 2, 3)).tolist() <= [codes - 1 for codes in env.grid_codes]
    assert len(env.grid_codes) == 1 + num
    counts = np.bincount(np.asarray(state.cell).ravel(), minlength=height * width)
    mean = 500 * num / (height * width)
    assert (abs(counts - mean) <= 5 * np.sqrt(mean)).all(), "seats start anywhere"
    assert not ts.reward.any()


@pytest.mark.parametrize("name", GAMES)
def test_permuting_seats_permutes_views(name):
    env, turn = preset(name), np.roll(np.arange(preset(name).num_agents), 1)
    look = jax.jit(env._view)
    state = jit_reset(env, KEY)[0]
    item = env.items(state)
    first, second = (np.asarray(look(item, cell)) for cell in (state.cell, state.cell[turn]))
    np.testing.assert_array_equal(first[turn], second)


def test_one_of_those_who_want_the_same_gets_it_at_random():
    cell = jnp.array([3, 3, 3, 5, 5, 7])
    wants = jnp.array([True, True, True, True, False, False])
    bits = jax.random.bits(KEY, (10_000, 6))
    got = np.asarray(jax.jit(jax.vmap(lambda b: one_a_cell(b, cell, wants)))(bits))
    assert (got[:, :3].sum(1) == 1).all()
    assert (abs(got[:, :3].sum(0) - 10_000 / 3) <= 5 * np.sqrt(10_000 * 2 / 9)).all()
    assert got[:, 3].all()
    assert not got[:, 4:].any()


def test_a_picture_shows_items_and_seats_that_share_a_cell():
    env = room()
    picture = env.picture(start(env, (1, 1), (1, 1), None))
    shown = [(picture == np.array(colour)).all(-1).sum() for colour in PALETTE[:3]]
    assert shown[0] == shown[1] > 20
    assert shown[2] == 0
    cell = (picture.shape[0] - 1) // 3
    snow = (picture == np.array(env.COLOURS[PILE][1])).all(-1)
    assert snow[:cell, :cell].sum() == snow[2 * cell :, 3 * cell :].sum() == snow.sum() / 2 > 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_players": 25}, r"env.num_players=25: must lie in 1 .. 24"),
        ({"side": -1}, r"env.side=-1: must be at least 0"),
        ({"horizon": 0}, r"env.horizon=0: must be at least 1"),
        ({"num_piles": 13}, r"env.num_piles=13: must be at most the 12 cells"),
        ({"num_piles": -1}, r"env.num_piles=-1: must be at least 0"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        room(**fields).check()


def test_unknown_letters_of_a_map_are_named():
    with pytest.raises(ValueError, match=r"must have only cells \., not W"):
        on_map(["W.", ".."], "snowdrift_grid").check()
    with pytest.raises(ValueError, match=r"env.layout=nowhere: no such map"):
        preset("snowdrift_grid").replace(layout="nowhere").check()
