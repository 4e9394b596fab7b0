"""Scripted players that walk: single decisions on hand-made boards, and what whole games pay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.walk_players import WalkPlayer
from marl.build import build, player
from marl.config import ConfigError, compose
from marl.evaluate import play
from marl.population import Mixture
from tests.envs.grid_tools import cells, preset

UP, DOWN, LEFT, RIGHT, STAY = range(5)
REMOVE, HUNT_HARE, HUNT_STAG, CLEAN, PICK = 5, 5, 6, 5, 6


@functools.partial(jax.jit, static_argnames=("num", "greedy"))
def _decide(algo, env, item, cell, num=500, greedy=False):
    """Actions [num, A] in copies of one position of item codes [C] and cells [A]."""
    ts = env.observe(item, cell, jnp.int32(0), jnp.zeros(env.num_agents), {})
    ts = jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), ts)
    return algo.act(env, (), (), ts, jax.random.key(0), greedy)[0]


def decide(name, env, seats, things, greedy=False):
    """The set of actions of each seat; `things` is {item: places}."""
    item = jnp.ones(env.board.nowhere, jnp.uint8)
    for what, places in things.items():
        item = item.at[cells(env, *places)].set(env.ITEMS.index(what))
    algo = player(name, list(range(env.num_agents)))
    action = _decide(algo, env, item, cells(env, *seats), greedy=greedy)
    assert action.dtype == jnp.int32
    return [set(row) for row in np.asarray(action).T.tolist()]


def test_a_remover_takes_all_shortest_ways_to_the_nearest_pile_and_removes_it():
    env = preset("snowdrift_grid")
    things = {"pile": [(0, 0), (3, 4), (7, 7)]}
    seats = [(2, 3), (3, 4), (0, 6), (3, 7)]
    assert decide("walker_removes", env, seats, things) == [
        {DOWN, RIGHT},
        {REMOVE},
        {LEFT, DOWN},  # five steps from (3, 4), six from (0, 0)
        {LEFT},
    ]
    assert decide("walker_removes", env, [(3, 2), (1, 1), (7, 3), (5, 4)], {"pile": [(3, 0), (3, 4)]})[0] == {
        LEFT,
        RIGHT,
    }


def test_nothing_in_view_or_nothing_wanted_means_random_steps():
    env = preset("snowdrift_grid")
    anywhere = {UP, DOWN, LEFT, RIGHT}
    seats = [(0, 0), (3, 3), (3, 4), None]
    assert decide("walker_removes", env, seats, {}) == [anywhere] * 4
    assert decide("walker_idles", env, seats, {"pile": [(3, 3)]}) == [anywhere] * 4
    assert decide("walker_removes", env, seats, {"pile": [(3, 3)]}, greedy=True) == [
        {DOWN},
        {REMOVE},
        {LEFT},
        {UP},
    ]


def test_hunters_of_stags_meet_at_the_first_in_reading_order_and_wait_there():
    env = preset("stag_hunt_grid")
    things = {"stag": [(6, 1), (2, 5)], "hare": [(0, 0), (7, 1)]}
    seats = [(6, 1), (2, 5), (2, 0), (7, 5)]
    assert decide("walker_hunts_stags", env, seats, things) == [{UP, RIGHT}, {HUNT_STAG}, {RIGHT}, {UP}]
    assert decide("walker_hunts_hares", env, [(7, 1), (0, 3), (6, 1), (7, 7)], things) == [
        {HUNT_HARE},
        {LEFT},
        {DOWN},
        {LEFT},
    ]


def test_cleaners_go_for_the_nearest_of_apples_and_of_waste_that_is_more_than_a_little():
    env = preset("cleanup_8x8")
    leaves = int(player("walker_cleans", [0]).leaves)
    places = [(row, column) for row in range(8) for column in range(3)]
    seats = [(0, 0), (0, 3), (0, 6), (0, 5)]
    much = {"waste": places[: leaves + 1], "apple": [(0, 5)]}
    assert decide("walker_cleans", env, seats, much) == [{CLEAN}, {LEFT}, {LEFT}, {PICK}]
    no_apple = much | {"apple": []}
    assert decide("walker_cleans", env, seats, no_apple) == [{CLEAN}, {LEFT}, {LEFT}, {LEFT}]
    little = much | {"waste": places[:leaves]}
    for name, things in (("walker_cleans", little), ("walker_picks", little), ("walker_picks", much)):
        assert decide(name, env, seats, things) == [{RIGHT}, {RIGHT}, {LEFT}, {PICK}]
    last = {"waste": [(0, 0)], "apple": [(0, 5)]}
    assert decide("walker_always_cleans", env, seats, last) == [{CLEAN}, {LEFT}, {LEFT}, {LEFT}]


def returns(env, *names):
    """Mean return [A] of players by seat."""
    members = tuple(player(name, list(range(env.num_agents))) for name in sorted(set(names)))
    holder = tuple(sorted(set(names)).index(name) for name in names)
    algo, num = Mixture(members=members, holder=holder), 256
    learners = tuple(() for _ in members)
    seen = jax.jit(
        lambda key: (
            play(env, algo, learners, key, num_episodes=num, max_steps=env.horizon, greedy=False).return_
        )
    )(jax.random.key(0))
    return np.asarray(seen).mean(0)


def test_removers_clear_all_and_a_free_rider_gains_most():
    paid = returns(preset("snowdrift_grid"), "walker_idles", *["walker_removes"] * 3)
    np.testing.assert_allclose(paid[0], 36, rtol=1e-5)
    np.testing.assert_allclose(paid.sum(), 120, rtol=1e-5)


def test_a_lone_hunter_of_stags_catches_none_and_the_others_a_hare_each():
    paid = returns(preset("stag_hunt_grid"), "walker_hunts_stags", *["walker_hunts_hares"] * 3)
    np.testing.assert_allclose(paid, [0, 1, 1, 1], atol=0.01)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env=coin_game", "algo=walker_picks"], "plays only games of walking seats, not CoinGame"),
        (["env=snowdrift_grid", "algo=walker_picks"], r"algo.target=apple: SnowdriftGrid has only pile"),
        (
            ["env=cleanup_8x8", "algo=walker_cleans", "algo.other_take=eat"],
            r"algo.other_take=eat: Cleanup has only clean, pick",
        ),
        (["env=cleanup_8x8", "algo=walker_cleans", "algo.order=last"], r"algo.order=last: must be nearest"),
    ],
)
def test_games_and_names_that_it_does_not_know_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        build(compose(overrides))


def test_numbers_of_a_player_are_leaves():
    algo = player("walker_cleans", [0])
    assert isinstance(algo, WalkPlayer)
    assert len(jax.tree.leaves(algo)) == 1
