"""Clean Up with a start-up problem: kinds of dirt, growth and sanctions by hand; invariants in random play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.board import EAST, NORTH, WEST
from envs.clean_up import DIRT
from envs.clean_up_startup import CLEANS
from envs.grid import FORWARD, NOOP, TURN_LEFT, ZAP
from tests.envs.grid_tools import KEY, broken_rules, idle_steps, on_map, preset, put, random_play, step, where
from tests.probes import jit_reset

ROOM = ["WWWWWWW", "WdddddW", "WdddddW", "W.....W", "WPPPPPW", "W.AAA.W", "WWWWWWW"]
ONE, TWO = CLEANS
MARKED, DID = 3, 6  # what a mark and an act add to the status


@pytest.fixture
def room():
    quiet = {"num_players": 3, "dirt_prob": 0.0, "apple_prob": 0.0, "clean_radius": 0}
    return lambda **fields: on_map(ROOM, "clean_up_startup", **quiet | fields)


def start(env, *places, dirt=()):
    """The river is clean but for `dirt`, entries of ((row, column), kind); seats not given wait below."""
    rest = [(5, 1 + 2 * i, NORTH) for i in range(env.num_agents)][len(places) :]
    state = put(env, jit_reset(env, KEY)[0], *places, *rest)
    rows, columns = env.board.row_column
    kinds = dict(dirt)
    river = [kinds.get((int(rows[i]), int(columns[i])), 0) for i in range(state.dirt.shape[0])]
    return state.replace(dirt=jnp.array(river, jnp.uint8))


def dirt(env, state):
    """{(row, column): kind} of dirty cells."""
    rows, columns = env.board.row_column
    return {(int(rows[i]), int(columns[i])): int(state.dirt[i]) for i in np.flatnonzero(state.dirt)}


def river_of(first, second, num=147):
    """[num] uint8 with so many cells of kind 1, then of kind 2."""
    cell = jnp.arange(num)
    return jnp.where(cell < first, 1, jnp.where(cell < first + second, 2, 0)).astype(jnp.uint8)


def seen(ts, seat=0):
    """What a seat sees of itself: the code of the status layer."""
    return int(ts.obs["grid"][seat, 9, 5, 3])


# 100 cells, f_1 and f_2 in hundredths; 0.05 * clip(1 - min(f_1, f_2) / 0.2, 0, 1)
@pytest.mark.parametrize(
    ("first", "second", "prob"),
    [
        (0, 0, 0.05),
        (0, 50, 0.05),
        (50, 0, 0.05),
        (5, 60, 0.0375),
        (10, 30, 0.025),
        (30, 10, 0.025),
        (20, 20, 0.0),
        (50, 50, 0.0),
    ],
)
def test_apples_grow_by_the_rarer_kind_of_dirt(first, second, prob):
    rows = ["W" * 22, *["W" + "d" * 20 + "W"] * 5, "W" + "A" * 20 + "W", "W" + "P" * 20 + "W", "W" * 22]
    env, num = on_map(rows, "clean_up_startup"), 4000
    state = jit_reset(env, KEY)[0].replace(dirt=river_of(first, second, 100))
    grown = int(idle_steps(env, state, num).apples.sum())
    assert abs(grown - prob * 20 * num) <= 5 * np.sqrt(prob * 20 * num)


def test_the_small_preset_grows_from_three_tenths_down():
    env, num = preset("clean_up_startup_small"), 4000
    for first, prob in [(6, 0.0), (3, 0.05 * (1 - 3 / 18 / 0.3))]:
        state = jit_reset(env, KEY)[0].replace(dirt=river_of(first, 9, 18))
        grown = int(idle_steps(env, state, num).apples.sum())
        assert abs(grown - prob * 18 * num) <= 5 * np.sqrt(prob * 18 * num)


def test_the_first_dirt_and_new_dirt_are_of_either_kind_half_the_time():
    env, num = preset("clean_up_startup"), 4000
    first = np.asarray(jax.jit(jax.vmap(lambda key: env.reset(key)[0].dirt))(jax.random.split(KEY, 400)))
    assert ((first > 0).sum(1) == 79).all()
    assert abs((first == 1).sum() - 79 * 200) < 5 * np.sqrt(79 * 400 / 4)
    assert np.ptp((first == 1).mean(0)[first[0] > 0]) < 0.25  # each cell by itself
    state = jit_reset(env, KEY)[0].replace(time=jnp.int32(50), dirt=river_of(30, 30))
    after = np.asarray(idle_steps(env, state, num).dirt)
    new = np.where(np.asarray(state.dirt) == 0, after, 0)
    assert (np.where(np.asarray(state.dirt) > 0, after, 0) == np.asarray(state.dirt)).all()
    assert set((new > 0).sum(1)) == {0, 1}
    for kind in (1, 2):
        assert abs((new == kind).sum() - num / 4) < 5 * np.sqrt(num * 3 / 16)


def test_a_kind_that_covers_half_of_the_river_leaves_the_rest_to_the_other():
    env, num = preset("clean_up_startup"), 1000
    state = jit_reset(env, KEY)[0].replace(time=jnp.int32(50), dirt=river_of(0, 74))  # 0.503
    new = np.asarray(idle_steps(env, state, num).dirt)[:, 74:]
    assert set(np.unique(new)) == {0, 1}
    assert abs((new == 1).sum() - num / 4) < 5 * np.sqrt(num * 3 / 16)
    below = state.replace(dirt=river_of(0, 73))  # 0.497
    assert set(np.unique(np.asarray(idle_steps(env, below, num).dirt)[:, 73:])) == {0, 1, 2}


def test_a_beam_cleans_the_first_dirt_of_its_own_kind_through_the_other(room):
    env, column = room(), (((1, 2), 1), ((2, 2), 2))
    state, ts = step(env, start(env, (4, 2, NORTH), dirt=column), ONE, NOOP, NOOP)
    assert dirt(env, state) == {(2, 2): 2}
    assert ts.events["cleaned"].tolist() == ts.events["cleaned_1"].tolist() == [1, 0, 0]
    assert not ts.events["cleaned_2"].any()
    state, ts = step(env, start(env, (4, 2, NORTH), dirt=column), TWO, NOOP, NOOP)
    assert dirt(env, state) == {(1, 2): 1}
    assert ts.events["cleaned_2"].tolist() == [1, 0, 0]
    assert ts.obs["vector"][:, 2].tolist() == [0, 1, 1]
    both = (((1, 2), 1), ((2, 2), 1))
    state, _ = step(env, start(env, (4, 2, NORTH), dirt=both), ONE, NOOP, NOOP)
    assert dirt(env, state) == {(1, 2): 1}
    state, ts = step(env, start(env, (4, 2, NORTH), dirt=both), TWO, NOOP, NOOP)
    assert dirt(env, state) == dict(both)
    assert not ts.events["cleaned"].any()


def test_three_rays_and_two_kinds_at_once(room):
    env = room(clean_radius=1)
    mixed = (((2, 1), 1), ((2, 2), 2), ((2, 3), 1), ((1, 2), 1))
    state, ts = step(env, start(env, (3, 2, NORTH), (4, 2, NORTH), dirt=mixed), ONE, TWO, NOOP)
    assert dirt(env, state) == {}
    assert ts.events["cleaned_1"].tolist() == [3, 0, 0]
    assert ts.events["cleaned_2"].tolist() == [0, 1, 0]


def test_both_cleaning_actions_have_one_cooldown(room):
    env, cleaned = room(), []
    state = start(env, (3, 2, NORTH))
    for time in range(7):
        state = state.replace(dirt=start(env, dirt=(((1, 2), 1), ((2, 2), 2))).dirt)
        state, ts = step(env, state, CLEANS[time % 2], NOOP, NOOP)
        cleaned += [time] if ts.events["cleaned"][0] else []
    assert cleaned == [0, 3, 6]


def test_the_status_shows_acts_and_the_kind_cleaned_last(room):
    env = room(clean_cooldown=0)
    state, ts = step(env, start(env, (3, 2, NORTH), dirt=(((1, 2), 1), ((2, 2), 2))), TWO, NOOP, NOOP)
    assert seen(ts) == 2 + DID * 3
    state, ts = step(env, state, TWO, NOOP, ZAP)
    assert (seen(ts), seen(ts, 2)) == (2 + DID * 3, DID)  # nothing was there to clean
    state, ts = step(env, state, ONE, NOOP, NOOP)
    assert seen(ts) == 1 + DID * 2
    state, ts = step(env, state, NOOP, NOOP, NOOP)
    assert seen(ts) == 1


def test_codes_of_dirt(room):
    env = room()
    item = env.items(start(env, dirt=(((1, 1), 1), ((1, 2), 2))))
    assert item[:3].tolist() == [DIRT, DIRT + 1, DIRT - 1]


@pytest.mark.parametrize(("first", "second", "share"), [(0, 0, 0.5), (3, 1, 0.75), (2, 2, 0.5), (0, 5, 1.0)])
def test_monoculture_is_the_commoner_kinds_share_of_the_dirt(room, first, second, share):
    env = room()
    state = start(env).replace(dirt=river_of(first, second, 10))
    events = step(env, state, NOOP, NOOP, NOOP)[1].events
    np.testing.assert_allclose(events["monoculture"], [share] * 3, rtol=1e-6)


def test_a_hit_freezes_and_marks_but_lets_clean_and_a_second_removes(room):
    env = room(cooldown=0)
    state, ts = step(
        env, start(env, (3, 1, EAST), (3, 3, WEST), dirt=(((3, 2), 0), ((2, 1), 1))), ZAP, NOOP, NOOP
    )
    assert ts.events["was_zapped"].tolist() == [0, 1, 0]
    assert seen(ts, 1) == MARKED
    assert not ts.reward.any()
    held = 0
    while where(env, state)[1] == (3, 3):
        state, ts = step(env, state, NOOP, (ZAP, TURN_LEFT, FORWARD)[min(held // 12, 2)], NOOP)
        assert not ts.events["zapped"].any()
        assert not ts.events["could_zap"][1] or held >= 25
        held += 1
    assert held == 26
    assert where(env, state)[1] == (3, 2)  # it still looks west
    state, ts = step(env, state, ZAP, NOOP, NOOP)
    assert ts.reward.tolist() == [0, -10, 0]
    assert ts.events["condemned"].tolist() == [0, 1, 0]
    assert where(env, state)[1] == (3, 2)
    away = 0
    state, ts = step(env, state.replace(body=jnp.array([1, 2, 0])), NOOP, NOOP, NOOP)
    while where(env, state)[1] is None:
        assert ts.events["away"].tolist() == [0, 1, 0]
        away += 1
        state, ts = step(env, state, NOOP, TWO, NOOP)
    assert away == 25
    assert (seen(ts), seen(ts, 1)) == (1, 0)


def test_the_frozen_can_clean(room):
    env = room()
    state = start(env, (3, 2, NORTH), dirt=(((2, 2), 2),)).replace(frozen=jnp.array([9, 0, 0]))
    _, ts = step(env, state, TWO, NOOP, NOOP)
    assert ts.events["cleaned_2"].tolist() == ts.events["frozen"].tolist() == [1, 0, 0]


def facts(env, state, ts):
    broken = broken_rules(env, state, ts)
    broken["ate"] = broken["ate"] - 10 * ts.events["condemned"].sum()
    broken["kinds"] = jnp.abs(ts.events["cleaned_1"] + ts.events["cleaned_2"] - ts.events["cleaned"]).sum()
    return broken | {name: ts.events[name].sum() for name in ("cleaned_1", "cleaned_2", "condemned")}


def test_random_steps_keep_the_rules():
    found = random_play(preset("clean_up_startup"), KEY, num_games=100, steps=1000, facts=facts)
    for name in ("cleaned_1", "cleaned_2", "condemned"):
        assert found.pop(name).sum() > 100
    for name, count in found.items():
        assert not count.any(), name


def test_bad_numbers_are_refused():
    env = preset("clean_up_startup")
    with pytest.raises(ValueError, match=r"env\.mark_steps=256: must lie in 0 \.\. 255"):
        env.replace(mark_steps=256).check()
    with pytest.raises(ValueError, match=r"env\.removal=0: must be at least 1"):
        env.replace(removal=0).check()
    with pytest.raises(ValueError, match=r"env\.restoration=0\.5: must lie in 0"):
        env.replace(restoration=0.5).check()
