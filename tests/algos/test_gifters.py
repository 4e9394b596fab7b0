"""Scripted players of Gift Refinements: single decisions on a small map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.foragers import FORWARD, LEFT
from algos.gifters import CONSUME, GIFT
from envs.board import EAST, NORTH, WEST
from marl.build import build, player
from marl.config import ConfigError, compose
from tests.envs.grid_tools import KEY, on_map, put

ROOM = ["WWWWWWWWW", "W.T.....W", "W.......W", "W.......W", "WP.....PW", "WWWWWWWWW"]
NUM = 200


def decide(name, held, *places, ready=1.0, token=True):
    """What seat 0 does in many draws, holding tokens `held` of each type: a set of actions."""
    env = on_map(ROOM, "gift_refinements", num_players=2)
    state = put(env, env.reset(KEY)[0], *places)
    state = state.replace(tokens=jnp.array([token]))
    vector = jnp.array([[ready, *(x / 15 for x in held)], [1, 0, 0, 0]], jnp.float32)
    nothing, over = jnp.zeros(2, jnp.int32), (jnp.bool_(False), jnp.bool_(False))
    ts = env.observe(env.items(state), state.avatars, nothing, vector, nothing, over, {})
    ts = jax.tree.map(lambda x: jnp.broadcast_to(x, (NUM, *x.shape)), ts)
    algo = player(name, [0])
    return set(np.asarray(algo.act(env, (), jnp.zeros((NUM, 2), jnp.int32), ts, KEY)[0])[:, 0].tolist())


FAR = (4, 7, NORTH)


def test_both_walk_to_tokens():
    for name in ("gifter", "keeper"):
        assert decide(name, (0, 0, 0), (3, 2, NORTH), FAR) == {FORWARD}
        assert decide(name, (0, 0, 0), (1, 6, NORTH), FAR) == {LEFT}


def test_a_keeper_consumes_whatever_it_holds():
    assert decide("keeper", (1, 0, 0), (3, 2, NORTH), FAR) == {CONSUME}
    assert decide("keeper", (0, 0, 2), (4, 2, EAST), (4, 5, WEST)) == {CONSUME}


def test_a_gifter_gives_raw_tokens_to_whom_it_faces_and_consumes_finer_ones():
    assert decide("gifter", (1, 3, 0), (4, 2, EAST), (4, 5, WEST)) == {GIFT}
    assert decide("gifter", (1, 0, 0), (4, 2, EAST), (4, 5, WEST), ready=0.3) == {FORWARD}
    assert decide("gifter", (0, 3, 0), (4, 2, EAST), (4, 5, WEST)) == {CONSUME}
    assert decide("gifter", (1, 0, 0), (4, 1, EAST), (4, 7, WEST)) == {FORWARD}  # out of the beam's reach
    assert decide("gifter", (1, 0, 0), (4, 2, NORTH), (2, 2, WEST), token=False) == {GIFT}


def test_other_games_and_bad_numbers_are_refused():
    with pytest.raises(ConfigError, match="plays only GiftRefinements, not CleanUp"):
        build(compose(["algo=gifter", "env=clean_up"]))
    with pytest.raises(ConfigError, match=r"algo\.meets_at=0: must be at least 1"):
        build(compose(["algo=gifter", "env=gift_refinements", "algo.meets_at=0"]))
