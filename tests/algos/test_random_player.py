"""The random player: legal, uniform, in every kind of action space."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from algos.random_player import RandomPlayer
from marl.build import load
from marl.environment import TimeStep
from marl.learner import start, train

KEY = jax.random.key(0)


def draw(space, mask, num_envs, key=KEY):
    """[E, A, ...] actions in a game of that space; `mask` [A, N] is the same in all games."""
    env = SimpleNamespace(action_space=space, all_legal=bool(mask.all()) if hasattr(mask, "all") else False)
    mask = jnp.asarray(mask, bool)
    per_game = jnp.zeros(num_envs, bool)
    ts = TimeStep(
        obs={},
        reward=jnp.zeros((num_envs, mask.shape[0])),
        terminated=per_game,
        truncated=per_game,
        action_mask=jnp.broadcast_to(mask, (num_envs, *mask.shape)),
        events={},
    )
    algo = RandomPlayer()
    algo.check(env)
    action, carry, extras = algo.act(env, (), (), ts, key)
    assert carry == extras == ()
    return np.asarray(action)


def test_discrete_actions_are_legal_and_uniform_and_differ_between_seats():
    mask = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 0, 0, 1]], bool)
    action = draw(spaces.Discrete(5), mask, 20_000)
    assert action.dtype == np.int32
    assert action.shape == (20_000, 3)
    share = np.stack([np.bincount(action[:, seat], minlength=5) for seat in range(3)]) / 20_000
    np.testing.assert_array_equal(share[~mask], 0)
    # 4 standard errors of a share of a third: 4 * 0.471 / 141
    np.testing.assert_allclose(share, mask / mask.sum(1, keepdims=True), atol=0.0134)
    pairs = np.bincount(action[:, 0] * 5 + action[:, 1], minlength=25).reshape(5, 5) / 20_000
    np.testing.assert_allclose(pairs, np.outer(share[0], share[1]), atol=0.008)


def test_multi_discrete_components_are_legal_and_uniform_on_their_own():
    mask = np.array([[1, 1, 1, 0, 1, 1]], bool)  # components of 2 and 4 actions
    action = draw(spaces.MultiDiscrete([2, 4]), mask, 20_000)
    assert action.dtype == np.int32
    assert action.shape == (20_000, 1, 2)
    joint = np.bincount(action[:, 0, 0] * 4 + action[:, 0, 1], minlength=8).reshape(2, 4) / 20_000
    np.testing.assert_allclose(joint, [[1 / 6, 0, 1 / 6, 1 / 6]] * 2, atol=0.0106)  # 4 standard errors


@pytest.mark.parametrize("sizes", [(3, 3), (2, 5)])
def test_multi_discrete_components_are_uniform_without_masks_too(sizes):
    space = spaces.MultiDiscrete(sizes)
    action = draw(space, np.ones((2, sum(sizes)), bool), 20_000)
    assert action.dtype == np.int32
    assert action.shape == (20_000, 2, 2)
    for seat in range(2):
        number = action[:, seat, 0] * sizes[1] + action[:, seat, 1]
        joint = np.bincount(number, minlength=np.prod(sizes)) / 20_000
        assert len(joint) == np.prod(sizes)
        np.testing.assert_allclose(joint, 1 / np.prod(sizes), atol=0.009)  # 4 standard errors
    assert (action[:, 0] != action[:, 1]).any()


def test_box_actions_fill_the_bounds_or_minus_one_to_one_without_bounds():
    space = spaces.Box(np.array([2.0, -np.inf], np.float32), np.array([6.0, np.inf], np.float32))
    action = draw(space, np.ones((3, 2), bool), 10_000)
    assert action.dtype == np.float32
    assert action.shape == (10_000, 3, 2)
    low, high = action.min((0, 1)), action.max((0, 1))
    np.testing.assert_allclose([low, high], [[2, -1], [6, 1]], atol=0.01)
    assert (action >= [2, -1]).all()
    assert (action <= [6, 1]).all()
    np.testing.assert_allclose(action.mean((0, 1)), [4, 0], atol=0.03)  # over 4 standard errors


def test_other_spaces_are_refused():
    with pytest.raises(ValueError, match="none of Discrete, MultiDiscrete, Box"):
        RandomPlayer().check(SimpleNamespace(action_space=spaces.MultiBinary(3)))


def test_it_runs_in_the_training_loop_and_cooperates_half_of_the_time():
    setup = load("env=public_goods", "algo=random")
    runner = start(setup.algo, setup.env, KEY, 100)
    _, (tally, _) = jax.jit(train)(setup.algo, setup.env, runner, KEY, jnp.arange(50))
    rate = tally.events["cooperated"].sum(0) / tally.steps.sum()
    np.testing.assert_allclose(rate, 0.5, atol=0.029)  # 4 standard errors of 5000 draws
