"""Commons Harvest: eating, regrowth, beams and removal by hand; chances and invariants in random play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.board import EAST, NORTH, SOUTH, WEST
from envs.grid import FORWARD, NOOP, ZAP
from tests.envs.grid_tools import KEY, broken_rules, idle_steps, on_map, preset, put, random_play, step, where
from tests.probes import jit_reset

ROOM = ["WWWWWWW", "W.AA..W", "W..A..W", "W.....W", "W.....W", "WPPPPPW", "WWWWWWW"]


@pytest.fixture
def room():
    return lambda **fields: on_map(ROOM, "commons_harvest", **{"num_players": 2} | fields)


def start(env, *places):
    return put(env, jit_reset(env, KEY)[0], *places)


def test_all_seats_start_on_different_cells_with_all_apples():
    env = preset("commons_harvest")
    state, ts = jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, 200))
    assert state.apples.all()
    assert state.apples.shape == (200, 64)
    cells = np.asarray(state.avatars.cell)
    assert all(len(set(row)) == 7 for row in cells.tolist())
    inner = env.board.sites("Q")
    assert (cells[:, :2] == [inner.start, inner.start + 1]).all()
    low = env.board.sites("P")
    assert ((cells[:, 2:] >= low.start) & (cells[:, 2:] < low.stop)).all()
    assert ts.obs["grid"].shape == (200, 7, 11, 11, 4)
    assert (ts.obs["vector"] == 1).all()


def test_who_enters_an_apple_eats_it_and_standing_on_one_does_not(room):
    env = room(regrow_prob=np.ones(4))
    state = start(env, (1, 1, EAST), (5, 5, NORTH))
    state, ts = step(env, state, FORWARD, NOOP)
    assert ts.reward.tolist() == [1, 0]
    assert ts.events["ate"].tolist() == [1, 0]
    assert state.apples.tolist() == [False, True, True]
    state, ts = step(env, state, NOOP, NOOP)
    assert state.apples.all()  # it grew back under the avatar
    assert ts.reward.tolist() == [0, 0]
    assert step(env, state, NOOP, NOOP)[1].reward.tolist() == [0, 0]
    bare = room(regrow_prob=np.ones(4), grows_under_avatars=False)
    assert step(bare, state.replace(apples=jnp.zeros(3, bool)), NOOP, NOOP)[0].apples.tolist() == [
        False,
        True,
        True,
    ]


def test_what_is_eaten_does_not_grow_in_the_same_step(room):
    env = room(regrow_prob=np.ones(4))
    state, _ = step(env, start(env, (1, 1, EAST), (5, 5, NORTH)), FORWARD, NOOP)
    assert not state.apples[0]


@pytest.mark.parametrize("name", ["commons_harvest", "commons_harvest_closed"])
def test_apples_grow_by_how_many_are_near(name):
    env, num = preset(name), 4000
    apples = jnp.asarray(np.random.default_rng(0).random(64) < 0.2)
    state = jit_reset(env, KEY)[0].replace(apples=apples)
    grown = idle_steps(env, state, num).apples
    near = np.unpackbits(env.board.near_masks("A", 4).view(np.uint8), axis=1, bitorder="little")[
        :, :64
    ] @ np.asarray(apples)
    prob = np.asarray(env.regrow_prob)[np.minimum(near, 3)]
    for chance in sorted(set(prob.tolist())):
        sites = ~np.asarray(apples) & (prob == chance)
        expected = chance * sites.sum() * num
        assert abs(int(grown[:, sites].sum()) - expected) <= 5 * np.sqrt(expected)
    assert np.unique(near[~np.asarray(apples)]).tolist()[:4] == [0, 1, 2, 3]


def test_a_dead_patch_stays_dead():
    env = preset("commons_harvest")
    state = jit_reset(env, KEY)[0].replace(apples=jnp.zeros(64, bool))
    assert not idle_steps(env, state, 4000).apples.any()


def test_two_can_zap_each_other_and_are_back_after_their_time(room):
    env = room(removal=4)
    state, ts = step(env, start(env, (4, 2, EAST), (4, 4, WEST)), NOOP, NOOP)
    assert ts.events["could_zap"].tolist() == [0, 0]  # nobody was known to be in range before the first step
    state, ts = step(env, state, ZAP, ZAP)
    assert where(env, state) == [None, None]
    for name in ("zapped", "was_zapped", "could_zap", "away"):
        assert ts.events[name].tolist() == [1, 1], name
    assert state.zaps.zapped.tolist() == state.zaps.could_zap.tolist() == [2, 1]
    assert ts.reward.tolist() == [0, 0]
    assert not ts.obs["grid"].any()
    gone = 1
    while where(env, state) == [None, None]:
        state, ts = step(env, state, FORWARD, ZAP)
        assert ts.events["zapped"].tolist() == [0, 0]
        gone += 1
    assert gone == 1 + 4  # it is seen away for 4 steps
    assert all(row == 5 for row, _ in where(env, state))


def test_an_opportunity_is_judged_by_what_was_seen(room):
    env = room(removal=4)
    state, _ = step(env, start(env, (4, 2, EAST), (3, 4, NORTH)), NOOP, NOOP)
    state, ts = step(env, state, ZAP, FORWARD)  # who was in range leaves it
    assert ts.events["could_zap"].tolist() == [1, 0]
    assert ts.events["zapped"].tolist() == [0, 0]
    state, ts = step(env, state, NOOP, NOOP)
    assert ts.events["could_zap"].tolist() == [0, 0]


@pytest.mark.parametrize(("cooldown", "apart"), [(10, 11), (2, 3), (4, 5), (1, 2), (0, 1)])
def test_shots_are_spaced_by_the_cooldown(room, cooldown, apart):
    env = room(removal=0, cooldown=cooldown)
    state, shots, ready = start(env, (4, 2, EAST), (4, 4, NORTH)), [], []
    for time in range(25):
        state, ts = step(env, state, ZAP, NOOP)
        shots += [time] if ts.events["zapped"][0] else []
        ready.append(float(ts.obs["vector"][0, 0]))
    assert set(np.diff(shots)) == {apart}
    assert [time + 1 for time in range(24) if ready[time] == 1.0] == shots[1:]


def test_fines_cost_the_shooter_and_who_is_hit(room):
    env = room(removal=0, zap_cost=1.0, zap_penalty=50.0)
    state, ts = step(env, start(env, (4, 2, EAST), (4, 4, WEST)), ZAP, NOOP)
    assert ts.reward.tolist() == [-1, -50]
    assert where(env, state) == [(4, 2), (4, 4)]


def test_walls_shield():
    rows = ["WWWWW", "W.W.W", "W...W", "WPPPW", "WA..W", "WWWWW"]
    env = on_map(rows, "commons_harvest", num_players=2)
    _, ts = step(env, start(env, (1, 1, EAST), (1, 3, WEST)), ZAP, ZAP)
    assert ts.events["was_zapped"].tolist() == [0, 0]


def facts(env, state, ts):
    return broken_rules(env, state, ts) | {"hits": ts.events["zapped"].sum()}


def test_a_million_random_steps_keep_the_rules():
    env = preset("commons_harvest")
    found = random_play(env, KEY, num_games=1000, steps=1000, facts=facts)
    assert found.pop("hits").sum() > 50_000
    for name, count in found.items():
        assert not count.any(), name


def test_permuting_seats_permutes_outcomes():
    """Seats that see the same order of turns have the same outcomes under other numbers."""
    env = preset("commons_harvest").replace(num_players=3)
    places = [(13, 5, NORTH), (13, 8, WEST), (13, 11, SOUTH)]
    action = [FORWARD, ZAP, FORWARD]
    first = step(env, start(env, *places), *action)
    turn = [2, 0, 1]
    second = step(env, start(env, *[places[i] for i in turn]), *[action[i] for i in turn])
    assert [where(env, first[0])[i] for i in turn] == where(env, second[0])
    for name, count in first[1].events.items():
        assert count[np.array(turn)].tolist() == second[1].events[name].tolist()
    np.testing.assert_array_equal(first[1].obs["grid"][np.array(turn)], second[1].obs["grid"])


def test_episodes_that_end_by_chance_end_every_hundred_steps():
    env = preset("commons_harvest").replace(end_every=100, end_prob=0.15, max_steps=1300)
    assert env.fixed_horizon is None
    assert env.ends_every == 100
    bits = jax.random.bits(KEY, (4000,))
    ends = lambda time: [
        int(x.sum()) for x in jax.jit(jax.vmap(lambda b: env.over(b, jnp.int32(time))))(bits)
    ]
    assert ends(900) == ends(999) == ends(1001) == ends(1050) == [0, 0]
    terminated, truncated = ends(1100)
    assert truncated == 0
    assert abs(terminated - 600) < 5 * np.sqrt(600)
    assert ends(1300) == [0, 4000]


def test_bad_numbers_are_refused():
    env = preset("commons_harvest")
    for fields, message in [
        ({"num_players": 61}, r"env\.num_players=61: must lie in 1 \.\. 31"),
        ({"end_every": 300}, r"env\.end_every=300: .* must be multiples"),
        ({"regrow_prob": [0.1]}, r"env\.regrow_prob=\[0\.1\]: must be 4 numbers"),
        ({"layout": "moon"}, r"env\.layout=moon: no such map"),
        ({"horizon": 0}, r"env\.horizon=0"),
        ({"side": -1}, r"env\.side=-1"),
    ]:
        with pytest.raises(ValueError, match=message):
            env.replace(**fields).check()
