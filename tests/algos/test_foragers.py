"""Scripted players of avatar games: single decisions on small maps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.foragers import BACKWARD, FORWARD, LEFT, NOOP, RIGHT, TURN_LEFT, TURN_RIGHT
from envs.allelopathic_harvest import PLANT
from envs.board import EAST, NORTH, SOUTH
from envs.clean_up import CLEAN
from marl.build import build, player
from marl.config import ConfigError, compose
from tests.envs.grid_tools import KEY, on_map, preset, put
from tests.probes import jit_reset

ORCHARD = ["WWWWWWWWW", "WA......W", "W.......W", "W....AA.W", "W....AAAW", "W.P....PW", "WWWWWWWWW"]
RIVER = ["WWWWWWWWW", "W...D...W", "W.......W", "W.......W", "W.......W", "WAP....PW", "WWWWWWWWW"]
FIELD = ["..........", "..rgb.....", "..........", "..........", "..........", ".........."]
NUM = 400


@jax.jit
def _decide(algo, env, state, time, ready):
    num = env.num_agents
    vector, nothing = jnp.full((num, 5), ready), jnp.zeros(num, jnp.int32)
    over = jnp.bool_(False), jnp.bool_(False)
    ts = env.observe(env.items(state), state.avatars, nothing, vector, nothing, over, {})
    ts = jax.tree.map(lambda x: jnp.broadcast_to(x, (NUM, *x.shape)), ts)
    return algo.act(env, (), jnp.broadcast_to(time, ts.reward.shape), ts, KEY)[0]


def decide(name, env, *places, time=0, ready=1.0, change=lambda state: state):
    """What seat 0 does in many draws: a set of actions."""
    algo = player(name, [0]) if isinstance(name, str) else name
    state = change(put(env, jit_reset(env, KEY)[0], *places))
    return set(np.asarray(_decide(algo, env, state, jnp.int32(time), ready))[:, 0].tolist())


@functools.cache
def orchard():
    return on_map(ORCHARD, "commons_harvest", num_players=2)


@functools.cache
def river():
    return on_map(RIVER, "clean_up", num_players=2)


AWAY = (5, 7, SOUTH)


def test_a_harvester_takes_a_shortest_way_to_the_nearest_food():
    assert decide("harvester", orchard(), (1, 3, NORTH), AWAY) == {LEFT}
    assert decide("harvester", orchard(), (4, 4, NORTH), AWAY) == {RIGHT}
    assert decide("harvester", orchard(), (5, 5, NORTH), AWAY) == {FORWARD}
    assert decide("harvester", orchard(), (2, 5, NORTH), AWAY) == {BACKWARD}
    assert decide("harvester", orchard(), (3, 3, EAST), AWAY) == {FORWARD}
    assert decide("harvester", orchard(), (5, 4, NORTH), AWAY) == {FORWARD, RIGHT}


def test_it_does_not_run_into_others():
    assert decide("harvester", orchard(), (5, 4, NORTH), (5, 5, NORTH)) == {FORWARD}
    assert decide("harvester", orchard(), (5, 4, NORTH), (4, 4, NORTH)) == {RIGHT}


def test_who_sees_no_food_walks_on_and_turns_at_walls():
    none = lambda state: state.replace(apples=jnp.zeros(6, bool))
    algo = player("harvester", [0])
    straight = algo.replace(turn_prob=0.0)
    assert decide(straight, orchard(), (3, 3, NORTH), AWAY, change=none) == {FORWARD}
    assert decide(algo, orchard(), (3, 3, NORTH), AWAY, change=none) == {FORWARD, TURN_LEFT, TURN_RIGHT}
    assert decide(straight, orchard(), (1, 3, NORTH), AWAY, change=none) == {TURN_LEFT, TURN_RIGHT}


def test_a_restrained_harvester_spares_food_that_stands_alone():
    four = player("harvester_restrained", [0])
    assert four.restraint == 4
    # apples: (1, 1); (3, 5), (3, 6); (4, 5), (4, 6), (4, 7) have 0; 3, 4; 4, 4, 3 others near
    assert decide(four, orchard(), (1, 3, NORTH), AWAY) == {TURN_LEFT, TURN_RIGHT}
    assert decide(four, orchard(), (2, 5, SOUTH), AWAY) == {FORWARD, LEFT}
    assert decide(four.replace(restraint=5, turn_prob=0.0), orchard(), (2, 5, EAST), AWAY) == {FORWARD}


def test_a_cleaner_cleans_what_is_in_reach_and_walks_to_what_is_not():
    env = river()
    assert decide("cleaner", env, (4, 4, NORTH), AWAY) == {CLEAN}
    assert decide("cleaner", env, (4, 4, NORTH), AWAY, ready=0.5) == {NOOP}
    assert decide("cleaner", env, (5, 4, NORTH), AWAY) == {FORWARD}
    assert decide("cleaner", env, (4, 3, NORTH), AWAY) == {FORWARD, RIGHT}
    assert decide("cleaner", env, (1, 3, NORTH), AWAY) == {TURN_RIGHT}
    assert decide("cleaner", env, (1, 5, NORTH), AWAY) == {TURN_LEFT}


def test_of_two_kinds_of_dirt_a_cleaner_cleans_the_first():
    env = on_map(RIVER, "clean_up_startup", num_players=2)
    for kind, found in [(1, {CLEAN}), (2, {FORWARD, TURN_LEFT, TURN_RIGHT})]:
        of_kind = lambda state, kind=kind: state.replace(dirt=jnp.full(1, kind, jnp.uint8))
        assert decide("cleaner", env, (4, 4, NORTH), AWAY, change=of_kind) == found


def test_work_fills_its_share_of_the_period():
    env, eats = river(), lambda state: state.replace(apples=jnp.ones(1, bool))
    algo = player("cleaner", [0])
    assert (algo.chore_share, algo.period) == (0.5, 200)
    found = [decide(algo, env, (4, 4, NORTH), AWAY, time=t, change=eats) for t in (0, 99, 100, 199, 200)]
    assert [action == {CLEAN} for action in found] == [True, True, False, False, True]
    ts = jax.tree.map(lambda x: x[None], preset("clean_up").reset(KEY)[1])
    assert algo.initial_carry(preset("clean_up"), ts).tolist() == [[0, 28, 57, 85, 114, 142, 171]]


def test_a_planter_plants_red_unless_something_is_in_the_way():
    env = on_map(FIELD, "allelopathic_harvest", num_players=2)
    away = (4, 8, SOUTH)
    assert decide("planter", env, (3, 3, NORTH), away) == {PLANT}
    red_before = lambda state: state.replace(berries=state.berries.replace(colour=jnp.array([0, 1, 2])))
    assert decide("planter", env, (1, 1, EAST), away, change=red_before) == {FORWARD}
    ripe = lambda state: state.replace(berries=state.berries.replace(ripe=jnp.ones(3, bool)))
    assert decide("harvester", env, (2, 3, NORTH), away, change=ripe) == {FORWARD}


def test_bad_numbers_and_games_without_food_or_chore_are_refused():
    refused = {
        ("harvester", "coin_game"): "needs a grid game with food, not CoinGame",
        ("cleaner", "commons_harvest"): r"algo\.chore_share=0\.5: .*CommonsHarvest",
    }
    for (name, game), message in refused.items():
        with pytest.raises(ConfigError, match=message):
            build(compose([f"algo={name}", f"env={game}"]))
    with pytest.raises(ConfigError, match=r"algo\.turn_prob=2\.0: must lie in \[0, 1\]"):
        build(compose(["algo=harvester", "env=clean_up", "algo.turn_prob=2.0"]))
