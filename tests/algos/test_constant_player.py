"""The player of one action."""

import jax
import pytest

from algos.constant_player import ConstantPlayer
from marl.build import load

KEY = jax.random.key(0)


def test_it_always_takes_its_action_or_the_first_legal_one():
    env = load("env=schelling_classic").env
    _, ts = jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, 2))
    player = ConstantPlayer(action=1)
    player.check(env)
    action, _, _ = player.act(env, (), (), ts, KEY)
    assert action.shape == (2, 80)
    assert (action == 1).all()
    ts = ts.replace(action_mask=ts.action_mask.at[0, 0, 1].set(False))
    assert player.act(env, (), (), ts, KEY)[0][0, :2].tolist() == [0, 1]


def test_games_without_the_action_are_refused():
    with pytest.raises(ValueError, match=r"algo.action=2: must lie in 0 .. 1"):
        ConstantPlayer(action=2).check(load("env=schelling_classic").env)
    with pytest.raises(ValueError, match="needs Discrete actions"):
        ConstantPlayer(action=1).check(load("env=negotiation").env)
