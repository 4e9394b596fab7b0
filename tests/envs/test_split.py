"""Split: the law of its values, hand-played rounds and its events."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.item_division import State
from envs.split import DRAWS
from marl.build import build_env
from marl.config import compose
from tests.probes import jit_reset


@functools.cache
def game():
    return build_env(compose(["env=split"]))


def play(value, proposal, env=None):
    """TimeStep of one round with given values [2, 3]."""
    state = State(jnp.array(value, jnp.float32), jnp.zeros((2, 3)), jnp.zeros((2, 3)), jnp.int32(0))
    return (env or game()).step(jax.random.key(0), state, jnp.array(proposal))[1]


def test_the_admissible_draws_are_those_that_rejection_accepts():
    rng = np.random.default_rng(0)
    values = rng.choice([1, 10], size=(20_000, 2, 3))
    accepted = (values.sum(-1)[:, 0] == values.sum(-1)[:, 1]) & (values[:, 0] != values[:, 1]).any(-1)
    found, counts = np.unique(values[accepted].reshape(-1, 6), axis=0, return_counts=True)
    listed = np.unique(np.where(DRAWS, 10, 1).reshape(-1, 6), axis=0)
    np.testing.assert_array_equal(found, listed)
    assert len(listed) == len(DRAWS) == 12
    assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())


def test_every_admissible_draw_is_equally_likely():
    num = 24_000
    state, _ = jax.jit(jax.vmap(game().reset))(jax.random.split(jax.random.key(0), num))
    step = jax.jit(jax.vmap(lambda k, s: game().step(k, s, jnp.zeros((2, 3), jnp.int32))))
    for now in (state, step(jax.random.split(jax.random.key(1), num), state)[0]):
        code = (np.asarray(now.value).reshape(num, 6) == 10) @ (1 << np.arange(6))
        counts = np.bincount(code, minlength=64)
        expected = DRAWS.reshape(12, 6) @ (1 << np.arange(6))
        assert set(np.flatnonzero(counts)) == set(expected.tolist())
        assert np.abs(counts[expected] - num / 12).max() < 5 * np.sqrt(num / 12)


def test_values_do_not_depend_on_what_the_seats_do():
    seen = []
    for proposal in (jnp.zeros((2, 3), jnp.int32), jnp.full((2, 3), 10)):
        state, _ = jit_reset(game(), jax.random.key(3))
        values = [state.value]
        for key in range(6):
            state, _ = game().step(jax.random.key(key), state, proposal)
            values.append(state.value)
        seen.append(np.stack(values))
    np.testing.assert_array_equal(*seen)


def test_points_are_shares_of_ten_times_the_value_and_rewards_hundredths_of_them():
    ts = play([[10, 1, 1], [1, 10, 1]], [[10, 0, 5], [5, 10, 10]])
    points = [10 * 10 * 10 / 15 + 0 + 10 * 5 / 15, 10 * 5 / 15 + 100 + 10 * 10 / 15]
    np.testing.assert_allclose(ts.events["points"], points, rtol=1e-6)
    np.testing.assert_allclose(ts.reward, np.array(points) / 100, rtol=1e-6)
    raw = play([[10, 1, 1], [1, 10, 1]], [[10, 0, 5], [5, 10, 10]], game().replace(reward_scale=1.0))
    np.testing.assert_allclose(raw.reward, points, rtol=1e-6)


@pytest.mark.parametrize(("tie", "best"), [(1, 210), (10, 300)])
def test_best_points_are_a_half_of_the_most_that_both_can_earn(tie, best):
    ts = play([[10, 1, tie], [1, 10, tie]], [[10, 0, 5], [0, 10, 5]])
    assert ts.events["best_points"].tolist() == [best / 2] * 2
    assert ts.events["points"].tolist() == [best / 2] * 2


def test_proposals_are_told_by_whose_value_is_lower():
    events = play([[10, 1, 1], [1, 10, 1]], [[9, 2, 5], [4, 7, 6]]).events
    assert events["asked_when_higher"].tolist() == [9, 7]
    assert events["asked_when_lower"].tolist() == [2, 4]
    np.testing.assert_allclose(events["defected"], [0.2, 0.4], rtol=1e-6)
    np.testing.assert_allclose(events["cooperated"], [0.8, 0.6], rtol=1e-6)


def test_observation_shows_the_last_round_with_its_values():
    state, ts = jit_reset(game(), jax.random.key(0))
    assert ts.obs["vector"].shape == (2, 21)
    assert not ts.obs["vector"][:, np.r_[6:9, 12:21]].any(), "no round has been played"
    old, proposal = np.asarray(state.value), np.array([[1, 2, 3], [4, 5, 6]])
    state, ts = game().step(jax.random.key(1), state, jnp.asarray(proposal))
    new, pool = np.asarray(state.value), np.full(3, 10)
    assert (new != old).any()
    for i, j in ((0, 1), (1, 0)):
        facts = [pool, new[i], proposal[i], new[j], proposal[j], old[i], old[j]]
        np.testing.assert_allclose(ts.obs["vector"][i], np.concatenate(facts) / 10, rtol=1e-6)


def test_it_is_a_game_of_ten_rounds_and_eleven_proposals_a_kind():
    assert game().action_space.nvec.tolist() == [11, 11, 11]
    assert game().fixed_horizon == 10
