"""Exchanged rewards: by hand, the sum kept, the group's mean at one level, the bare game at another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.mechanisms.reward_exchange import RewardExchange
from tests.conformance import assert_equal
from tests.toys import COOPERATE, DEFECT, LEAVE, TAKE, WATCH, commons, dilemma, follow

KEY = jax.random.key(0)
MOVES = [[TAKE, LEAVE, WATCH], [LEAVE, TAKE, WATCH]]


def exchange(env, self_interest):
    return RewardExchange(env=env, self_interest=self_interest)


def utility(rewards, self_interest):
    return exchange(commons(len(rewards)), self_interest).utility(jnp.asarray(rewards, jnp.float32))


def test_a_seat_passes_what_it_does_not_keep_to_the_others_in_equal_parts():
    ts = follow(exchange(commons(), 0.5), KEY, MOVES)[2]  # of 1 2 0 and 2 1 0
    np.testing.assert_allclose(ts.reward, [[1, 1.25, 0.75], [1.25, 1, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(ts.events["extrinsic_reward"], [[1, 2, 0], [2, 1, 0]], rtol=1e-6)


def test_without_self_interest_two_seats_swap_rewards():
    ts = follow(exchange(dilemma(), 0.0), KEY, [[COOPERATE, DEFECT], [DEFECT, DEFECT]])[2]
    assert ts.reward.tolist() == [[5, 0], [1, 1]]


@pytest.mark.parametrize("num", [2, 3, 7])
@pytest.mark.parametrize("self_interest", [0.0, 0.3333, 0.9])
def test_the_sum_of_rewards_stays_whatever_is_exchanged(num, self_interest):
    rewards = np.random.default_rng(num).normal(scale=3, size=(200, num)).astype(np.float32)
    found = jax.jit(jax.vmap(exchange(commons(num), self_interest).utility))(rewards)
    np.testing.assert_allclose(found.sum(1), rewards.sum(1), atol=1e-4)


@pytest.mark.parametrize("num", [2, 3, 7])
def test_one_share_in_as_many_as_there_are_seats_gives_all_the_group_s_mean(num):
    rewards = np.random.default_rng(num).normal(size=num)
    np.testing.assert_allclose(utility(rewards, 1 / num), np.full(num, rewards.mean()), rtol=1e-5, atol=1e-6)


def test_full_self_interest_equals_the_bare_game_bit_for_bit():
    bare = commons(noise=0.5)
    _, state, ts = follow(exchange(bare, 1.0), KEY, MOVES)
    _, bare_state, bare_ts = follow(bare, KEY, MOVES)
    assert_equal(ts.events["extrinsic_reward"], bare_ts.reward, exact=True)
    events = {k: v for k, v in ts.events.items() if k != "extrinsic_reward"}
    assert_equal((state, ts.replace(events=events)), (bare_state, bare_ts), exact=True)


def test_permuting_seats_permutes_rewards():
    order = np.array([2, 0, 1])
    turned = utility(np.array([3.0, 2.0, -1.0])[order], 0.6)
    np.testing.assert_allclose(turned, utility([3, 2, -1], 0.6)[order], rtol=1e-6)


def test_one_vmap_sweeps_self_interest():
    sweep = lambda s: exchange(dilemma(), 1.0).replace(self_interest=s).utility(jnp.array([4.0, 0.0]))[0]
    assert jax.vmap(sweep)(np.array([0, 0.25, 1], np.float32)).tolist() == [0, 1, 4]


@pytest.mark.parametrize("level", [-0.1, 1.1])
def test_level_outside_the_unit_interval_is_refused(level):
    with pytest.raises(ValueError, match=r"mechanism\.reward_exchange\.self_interest=.*\[0, 1\]"):
        exchange(dilemma(), level).check()


def test_a_lonely_seat_is_refused():
    with pytest.raises(ValueError, match=r"mechanism\.reward_exchange needs 2 seats or more, not 1"):
        exchange(commons(num_seats=1), 0.5).check()
