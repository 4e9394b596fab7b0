"""Clean Up: growth, dirt, cleaning and zapping by hand; chances and invariants in random play."""

import jax.numpy as jnp
import numpy as np
import pytest

from envs.board import EAST, NORTH, SOUTH, WEST, load_board
from envs.clean_up import CLEAN
from envs.grid import FORWARD, NOOP, ZAP
from tests.envs.grid_tools import KEY, broken_rules, idle_steps, on_map, preset, put, random_play, step, where
from tests.probes import jit_reset

ROOM = ["WWWWWWW", "WDdDdDW", "WdDdDdW", "W.....W", "WPPPPPW", "W.AAA.W", "WWWWWWW"]
QUIET = {"dirt_prob": 0.0, "apple_prob": 0.0}


@pytest.fixture
def room():
    return lambda **fields: on_map(ROOM, "clean_up", **{"num_players": 2} | QUIET | fields)


def start(env, *places):
    return put(env, jit_reset(env, KEY)[0], *places)


def dirt(env, state):
    """(row, column) of dirty cells."""
    rows, columns = env.board.row_column
    sites = env.board.sites("Dd")
    return {(int(rows[sites][i]), int(columns[sites][i])) for i in np.flatnonzero(state.dirt)}


@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("clean_up", (21, 30), {"D": 79, "d": 68, "A": 122, "P": 19}),
        ("clean_up_mp1", (21, 30), {"D": 79, "d": 69, "A": 125, "P": 21}),
        ("clean_up_ssd", (25, 18), {"D": 56, "d": 63, "A": 103, "P": 10, "S": 12}),
    ],
)
def test_maps_have_the_counts_of_their_sources(name, shape, counts):
    board = load_board(name, "W", False, "DdAP")
    assert board.shape == shape
    assert {letter: board.count(letter) for letter in counts} == counts


@pytest.mark.parametrize(("share", "prob"), [(0.0, 0.05), (0.2, 0.025), (0.4, 0.0), (0.7, 0.0)])
def test_apples_grow_by_the_share_of_dirt(share, prob):
    env, num = preset("clean_up"), 4000
    num_dirty = round(share * 147)
    state = jit_reset(env, KEY)[0]
    state = state.replace(dirt=jnp.arange(147) < num_dirty)
    exact = 0.05 * min(1, max(0, (0.4 - num_dirty / 147) / 0.4))
    assert abs(exact - prob) <= 0.05 / 0.4 / 147  # one cell more or less
    grown = int(idle_steps(env, state, num).apples.sum())
    assert abs(grown - exact * 122 * num) <= 5 * np.sqrt(exact * 122 * num)


def test_dirt_appears_from_frame_51_on_one_clean_cell_in_half_of_the_steps():
    env, num = preset("clean_up"), 4000
    state = jit_reset(env, KEY)[0]
    assert int(state.dirt.sum()) == 79
    assert (idle_steps(env, state.replace(time=jnp.int32(49)), num).dirt == state.dirt).all()
    after = idle_steps(env, state.replace(time=jnp.int32(50)), num).dirt
    new = np.asarray(after & ~state.dirt)
    assert not np.asarray(state.dirt & ~after).any()
    assert set(new.sum(1)) == {0, 1}
    assert abs(new.sum() - num / 2) < 5 * np.sqrt(num / 4)
    counts = new.sum(0)[~np.asarray(state.dirt)]
    assert np.abs(counts - num / 2 / 68).max() < 5 * np.sqrt(num / 2 / 68)
    full = idle_steps(env, state.replace(time=jnp.int32(50), dirt=jnp.ones(147, bool)), num).dirt
    assert full.all()


def test_ssd_soils_in_every_step_until_the_limit():
    env = preset("clean_up_ssd")
    state = jit_reset(env, KEY)[0]
    below = state.replace(dirt=jnp.arange(119) < 47)  # 0.395
    assert set(idle_steps(env, below, 200).dirt.sum(1).tolist()) == {48}
    above = state.replace(dirt=jnp.arange(119) < 48)  # 0.403
    assert set(idle_steps(env, above, 200).dirt.sum(1).tolist()) == {48}


def test_each_ray_cleans_the_first_dirty_cell(room):
    env = room()
    state = start(env, (3, 3, NORTH), (4, 5, SOUTH))
    assert dirt(env, state) == {(1, 1), (1, 3), (1, 5), (2, 2), (2, 4)}
    state, ts = step(env, state, CLEAN, NOOP)
    assert dirt(env, state) == {(1, 1), (1, 5)}
    assert ts.events["cleaned"].tolist() == [3, 0]
    assert ts.obs["vector"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert ts.reward.tolist() == [0, 0]


def test_a_cleaning_beam_passes_through_avatars_and_ends_at_dirt(room):
    env = room(clean_radius=0)
    state, ts = step(env, start(env, (4, 2, NORTH), (3, 2, NORTH)), CLEAN, NOOP)
    assert ts.events["cleaned"].tolist() == [1, 0]
    assert (2, 2) not in dirt(env, state)
    state = start(env, (4, 1, NORTH), (5, 1, NORTH))
    state, ts = step(env, state, CLEAN, NOOP)
    assert (1, 1) not in dirt(env, state)


def test_two_who_clean_the_same_cell_at_once_both_count(room):
    env = room(clean_radius=0)
    state, ts = step(env, start(env, (4, 2, NORTH), (3, 2, NORTH)), CLEAN, CLEAN)
    assert ts.events["cleaned"].tolist() == [1, 1]
    assert len(dirt(env, state)) == 4


def test_cleaning_and_zapping_have_cooldowns_of_their_own(room):
    env = room(cooldown=10, removal=0)
    state, zaps, cleans = start(env, (3, 1, EAST), (3, 3, NORTH)), [], []
    for time in range(12):
        state = state.replace(dirt=jnp.ones(10, bool))
        state, ts = step(env, state, ZAP if time % 11 == 0 else CLEAN, CLEAN)
        zaps += [time] if ts.events["zapped"][0] else []
        cleans += [time] if ts.events["cleaned"][1] else []
    assert zaps == [0, 11]
    assert cleans == [0, 3, 6, 9]


def test_new_apples_are_eaten_by_who_enters_in_the_same_step(room):
    env = room(apple_prob=1.0)
    state = start(env, (5, 1, EAST), (5, 3, NORTH))
    state = state.replace(dirt=jnp.zeros(10, bool))
    state, ts = step(env, state, FORWARD, NOOP)
    assert ts.reward.tolist() == [1, 0]
    assert state.apples.tolist() == [False, True, True]  # under the second avatar too
    _, ts = step(env, state, NOOP, NOOP)
    assert ts.reward.tolist() == [0, 0]


def test_who_is_zapped_is_away_for_fifty_steps(room):
    env = room(removal=50)
    state, ts = step(env, start(env, (3, 2, EAST), (3, 4, WEST)), ZAP, NOOP)
    seen_away = 1
    while where(env, state)[1] is None:
        state, ts = step(env, state, NOOP, CLEAN)
        seen_away += int(ts.events["away"][1])
        assert ts.events["cleaned"][1] == 0
    assert seen_away == 50
    assert where(env, state)[1][0] == 4


def facts(env, state, ts):
    return broken_rules(env, state, ts) | {"cleaned": ts.events["cleaned"].sum()}


def test_random_steps_keep_the_rules():
    found = random_play(preset("clean_up"), KEY, num_games=200, steps=1000, facts=facts)
    assert found.pop("cleaned").sum() > 1000
    for name, count in found.items():
        assert not count.any(), name


def test_bad_numbers_are_refused():
    env = preset("clean_up")
    with pytest.raises(ValueError, match=r"env\.dirt_rule=all: must be one or until_success"):
        env.replace(dirt_rule="all").check()
    with pytest.raises(
        ValueError, match=r"env\.restoration=0\.5: must lie in 0 \.\. env\.depletion=0\.4, below"
    ):
        env.replace(restoration=0.5).check()
