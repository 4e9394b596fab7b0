"""The negotiation game: hand-played rounds, the law of its values, and exact rewards of its scripted players."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.item_division import State, shares
from marl.build import build, build_env
from marl.config import ConfigError, compose
from tests.probes import jit_reset, jit_step

PRESETS = ("negotiation", "negotiation_discrete", "negotiation_proportion")


@functools.cache
def preset(name="negotiation"):
    return build_env(compose([f"env={name}"]))


def make(name="negotiation", **fields):
    return preset(name).replace(**fields)


def state_of(first, second=None):
    """A game in which seat 0 has the values `first` [3]; those of seat 1 are 6 minus these if not given."""
    value = jnp.array([first, second or [6 - v for v in first]], jnp.float32)
    return State(value, jnp.zeros((2, 3)), jnp.zeros((2, 3)), jnp.int32(0))


def play(env, first, proposal, second=None):
    """TimeStep of one round."""
    dtype = jnp.int32 if env.discrete else jnp.float32
    return jit_step(env, jax.random.key(0), state_of(first, second), jnp.array(proposal, dtype))[1]


# the division


def test_under_max_small_requests_are_met_and_large_ones_are_cut_in_proportion():
    found = shares(jnp.array([[5.0, 1.0, 5.0, 4.0, 0.0], [0.0, 1.0, 5.0, 2.0, 0.0]]), 5, "max")
    expected = [[1, 0.2, 0.5, 4 / 6, 0], [0, 0.2, 0.5, 2 / 6, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_under_proportion_all_is_given_away_unless_nobody_asks():
    found = shares(jnp.array([[5.0, 1.0, 4.0, 0.5, 0.0], [0.0, 1.0, 2.0, 0.0, 0.0]]), 5, "proportion")
    expected = [[1, 0.5, 4 / 6, 1, 0], [0, 0.5, 2 / 6, 0, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_reward_is_the_value_of_the_shares_over_fifteen():
    ts = play(make(), [5, 1, 5], [[4, 0.5, 0], [4, 1, 2.5]])
    points = [5 * 0.5 + 1 * 0.1 + 0, 1 * 0.5 + 5 * 0.2 + 1 * 0.5]
    np.testing.assert_allclose(ts.reward, np.array(points) / 15, rtol=1e-6)
    np.testing.assert_allclose(ts.events["points"], points, rtol=1e-6)
    assert ts.events["best_points"].tolist() == [7.5, 7.5]


def test_discrete_and_continuous_proposals_earn_the_same():
    proposal = [[4, 0, 3], [5, 1, 2]]
    found = [play(make(name), [1, 5, 1], proposal).reward for name in PRESETS[:2]]
    np.testing.assert_array_equal(*found)


def test_pool_values_and_scale_are_fields():
    env = make(pool=[2.0, 1.0, 1.0], reward_scale=1.0)
    assert play(env, [5, 1, 1], [[5, 0, 0], [0, 5, 5]]).reward.tolist() == [10, 10]
    state, _ = jit_reset(make(low_value=2.0, high_value=3.0), jax.random.key(0))
    assert set(np.asarray(state.value).ravel().tolist()) == {2, 3}


def test_actions_are_a_box_or_whole_numbers():
    box, discrete = make().action_space, make("negotiation_discrete").action_space
    assert (box.low.tolist(), box.high.tolist()) == ([0, 0, 0], [5, 5, 5])
    assert discrete.nvec.tolist() == [6, 6, 6]


# what the seats did


@pytest.mark.parametrize(
    ("first", "proposal", "cooperated", "defected"),
    [
        ([5, 1, 1], [[5, 0, 0], [0, 5, 5]], [1, 1], [0, 0]),
        ([5, 1, 1], [[5, 5, 5], [5, 5, 5]], [0, 0], [1, 1]),
        ([5, 1, 1], [[0, 5, 0], [1, 0, 0]], [0.5, 0.8], [0.5, 0.2]),
        ([5, 5, 5], [[5, 5, 5], [5, 5, 0]], [0, 1 / 3], [0, 2 / 3]),
    ],
)
def test_to_defect_is_to_ask_for_what_the_other_values_more(first, proposal, cooperated, defected):
    events = play(make(), first, proposal).events
    np.testing.assert_allclose(events["cooperated"], cooperated, atol=1e-6)
    np.testing.assert_allclose(events["defected"], defected, atol=1e-6)


# the values


def test_all_eight_draws_are_equally_likely_at_the_start_and_later():
    env, num = make(), 16_000
    keys = jax.random.split(jax.random.key(1), num)
    first, _ = jax.jit(jax.vmap(env.reset))(keys)
    later = jax.jit(jax.vmap(lambda k, s: env.step(k, s, jnp.zeros((2, 3)))))
    for state in (first, later(jax.random.split(jax.random.key(2), num), first)[0]):
        value = np.asarray(state.value)
        assert (value.sum(1) == 6).all()
        assert set(value.ravel().tolist()) == {1, 5}
        counts = np.bincount((value[:, 0] == 5) @ [4, 2, 1], minlength=8)
        assert np.abs(counts - num / 8).max() < 5 * np.sqrt(num / 8)


def test_values_do_not_depend_on_what_the_seats_do():
    env = make()
    ends = []
    for proposal in (jnp.zeros((2, 3)), jnp.full((2, 3), 5.0)):
        state, _ = jit_reset(env, jax.random.key(3))
        seen = [state.value]
        for key in range(6):
            state, _ = jit_step(env, jax.random.key(key), state, proposal)
            seen.append(state.value)
        ends.append(np.stack(seen))
    np.testing.assert_array_equal(*ends)
    assert (ends[0][1:] != ends[0][:-1]).any()


# what the seats see


def test_observation_is_the_published_one_of_fifteen_numbers():
    env = make()
    state, ts = jit_reset(env, jax.random.key(0))
    own, other = np.asarray(state.value)
    pool, none = np.ones(3), np.zeros(3)
    expected = [[*pool, *own, *none, *other, *none], [*pool, *other, *none, *own, *none]]
    np.testing.assert_allclose(ts.obs["vector"], np.array(expected) / 10, rtol=1e-6)
    proposal = np.array([[1, 2, 3], [4, 5, 0.5]], np.float32)
    state, ts = jit_step(env, jax.random.key(1), state, jnp.asarray(proposal))
    own, other = np.asarray(state.value)
    expected = [
        [*pool, *own, *proposal[0], *other, *proposal[1]],
        [*pool, *other, *proposal[1], *own, *proposal[0]],
    ]
    np.testing.assert_allclose(ts.obs["vector"], np.array(expected) / 10, rtol=1e-6)


def test_episode_is_cut_after_fifty_rounds():
    state, _ = jit_reset(make(), jax.random.key(0))
    for time, end in ((48, False), (49, True)):
        late = state.replace(time=jnp.int32(time))
        ts = make().step(jax.random.key(0), late, jnp.zeros((2, 3)))[1]
        assert (bool(ts.truncated), bool(ts.terminated)) == (end, False)
    assert make().fixed_horizon == 50


# errors


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"division": "half"}, "env.division=half: must be one of max, proportion"),
        ({"pool": [1.0, 1.0]}, "env.pool=.*: must be 3 numbers greater than 0"),
        ({"pool": [1.0, 1.0, 0.0]}, "env.pool=.*: must be 3 numbers greater than 0"),
        ({"max_proposal": 0}, "env.max_proposal=0: must be at least 1"),
        ({"horizon": 0}, "env.horizon=0: must be at least 1"),
        ({"low_value": 5.0}, "env.low_value=5.0: must lie in 0 .. env.high_value=5.0, below it"),
        ({"reward_scale": 0.0}, "env.reward_scale=0.0: must be greater than 0"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields).check()


def test_a_bad_rule_on_the_command_line_is_one_clear_line():
    with pytest.raises(ConfigError, match=r"env\.division=half: must be one of max, proportion"):
        build(compose(["env=negotiation", "env.division=half"]))


@pytest.mark.parametrize("name", PRESETS)
def test_asking_for_all_always_beats_asking_for_what_one_values_more(name):
    """The game is a dilemma: exact means over all values, for each preset."""
    env = make(name)

    def mean_reward(asks):
        total = np.zeros(2)
        for first in itertools.product((1, 5), repeat=3):
            value = np.array([first, [6 - v for v in first]])
            proposal = [
                5 * ((v > w) | (ask == "all")) for v, w, ask in zip(value, value[::-1], asks, strict=True)
            ]
            total += np.asarray(play(env, first, proposal).reward)
        return total / 8

    np.testing.assert_allclose(mean_reward(("own", "own")), [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(mean_reward(("all", "all")), [0.3, 0.3], rtol=1e-6)
    np.testing.assert_allclose(mean_reward(("all", "own")), [0.55, 0.25], rtol=1e-6)
