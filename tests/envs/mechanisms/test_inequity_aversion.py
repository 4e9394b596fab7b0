"""Inequity aversion: hand-computed and against plain loops, with both signs right."""

import jax
import numpy as np
import pytest

from envs.mechanisms.inequity_aversion import InequityAversion, gaps
from envs.mechanisms.punishment import Punishment
from marl.build import load
from marl.validation import ConfigError
from tests.conformance import assert_equal
from tests.probes import jit_reset
from tests.toys import COOPERATE, DEFECT, LEAVE, TAKE, WATCH, commons, dilemma, follow

KEY = jax.random.key(0)
MOVES = [[TAKE, LEAVE, WATCH], [LEAVE, TAKE, WATCH], [TAKE, LEAVE, LEAVE]]  # 1 2 0, 2 1 0, 1 1 1
HALF = {"gamma": 0.8, "trace_lambda": 0.625}  # half of a trace remains


def averse(env, alpha=2.0, beta=0.5, gamma=0.99, trace_lambda=0.975, observe_traces=False):
    return InequityAversion(
        env=env,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        trace_lambda=trace_lambda,
        observe_traces=observe_traces,
    )


def slow(rewards, alpha, beta, keep):
    """Utilities [T, A] by the formula, seat by seat."""
    num = rewards.shape[1]
    trace, found = np.zeros(num), np.zeros(rewards.shape)
    for t, reward in enumerate(rewards):
        trace = [keep * trace[j] + reward[j] for j in range(num)]
        for i in range(num):
            less = sum(max(trace[j] - trace[i], 0) for j in range(num) if j != i)
            more = sum(max(trace[i] - trace[j], 0) for j in range(num) if j != i)
            found[t, i] = reward[i] - alpha / (num - 1) * less - beta / (num - 1) * more
    return found


def test_who_earns_more_loses_by_beta_and_who_earns_less_by_alpha():
    reward = lambda **weights: follow(averse(dilemma(), **weights), KEY, [[COOPERATE, DEFECT]])[2].reward
    assert reward(alpha=0.0, beta=0.5).tolist() == [[0, 5 - 0.5 * 5]]
    assert reward(alpha=2.0, beta=0.0).tolist() == [[0 - 2 * 5, 5]]


def test_smoothed_rewards_and_utilities_of_three_seats_by_hand():
    _, state, ts = follow(averse(commons(), **HALF), KEY, MOVES)
    np.testing.assert_allclose(state.trace, [[1, 2, 0], [2.5, 2, 0], [2.25, 2, 1]], rtol=1e-6)
    expected = [[-0.25, 1.25, -3], [1.25, 0, -4.5], [0.625, 0.5, -1.25]]
    np.testing.assert_allclose(ts.reward, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ts.events["extrinsic_reward"], [[1, 2, 0], [2, 1, 0], [1, 1, 1]], rtol=1e-6)


def test_utilities_equal_those_of_plain_loops():
    moves = np.array([[TAKE, LEAVE, WATCH, TAKE, LEAVE], [LEAVE, TAKE, TAKE, LEAVE, WATCH]] * 4)
    bare = commons(num_seats=5, noise=2.0)
    rewards = np.asarray(follow(bare, KEY, moves)[2].reward, np.float64)
    found = follow(averse(bare, alpha=5.0, beta=0.05), KEY, moves)[2].reward
    np.testing.assert_allclose(found, slow(rewards, 5.0, 0.05, 0.99 * 0.975), rtol=1e-5, atol=1e-5)


def test_gaps_equal_those_of_sorted_cumulative_sums():
    x = np.random.default_rng(0).normal(size=12).round(1)  # with ties
    order = np.argsort(x)
    below, total, rank = np.cumsum(x[order]) - x[order], x.sum(), np.arange(12)
    more = rank * x[order] - below
    less = total - below - x[order] - (11 - rank) * x[order]
    found = gaps(x.astype(np.float32))
    np.testing.assert_allclose(np.asarray(found)[:, order], np.array([less, more]) / 11, atol=1e-5)


def test_equal_rewards_cost_nothing():
    ts = follow(averse(dilemma()), KEY, [[COOPERATE, COOPERATE], [DEFECT, DEFECT]])[2]
    assert ts.reward.tolist() == [[3, 3], [1, 1]]


def test_inequity_of_the_past_costs_where_nothing_is_earned():
    ts = follow(averse(commons(), **HALF), KEY, [[TAKE, LEAVE, WATCH], [LEAVE, WATCH, WATCH], [WATCH] * 3])[2]
    assert ts.events["extrinsic_reward"][2].tolist() == [0, 0, 0]
    assert (ts.reward[2] < 0).all()


def test_smoothed_rewards_start_anew_with_the_episode():
    env = averse(dilemma())
    state, _ = jit_reset(env, KEY)
    state, _ = env.step(KEY, state, np.array([COOPERATE, DEFECT]))
    assert state.trace.tolist() == [0, 5]
    assert jit_reset(env, KEY)[0].trace.tolist() == [0, 0]


def test_seats_see_smoothed_rewards_own_first_only_if_asked():
    first, _, ts = follow(averse(commons(), observe_traces=True, **HALF), KEY, MOVES)
    assert first.obs["vector"].tolist() == [[0] * 4] * 3
    np.testing.assert_allclose(
        ts.obs["vector"][1], [[0, 2.5, 2, 0], [1, 2, 0, 2.5], [0, 0, 2.5, 2]], rtol=1e-6
    )
    assert follow(averse(commons()), KEY, MOVES)[2].obs["vector"].shape == (3, 3, 1)


def test_neutral_aversion_equals_the_bare_game_bit_for_bit():
    bare = commons(noise=0.5)
    _, state, ts = follow(averse(bare, alpha=0.0, beta=0.0), KEY, MOVES)
    _, bare_state, bare_ts = follow(bare, KEY, MOVES)
    assert_equal(ts.events["extrinsic_reward"], bare_ts.reward, exact=True)
    events = {k: v for k, v in ts.events.items() if k != "extrinsic_reward"}
    assert_equal((state.inner, ts.replace(events=events)), (bare_state, bare_ts), exact=True)


def test_one_seat_alone_can_be_averse():
    env = averse(commons(), alpha=np.array([0.0, 0.0, 2.0]), beta=np.zeros(3), **HALF)
    reward = follow(env, KEY, MOVES)[2].reward
    np.testing.assert_allclose(reward, [[1, 2, -3], [2, 1, -4.5], [1, 1, -1.25]], rtol=1e-6)


def test_permuting_seats_permutes_utilities():
    env, order, moves = averse(commons()), np.array([2, 0, 1]), np.array(MOVES)
    turned = follow(env, KEY, moves[:, order])[2].reward
    np.testing.assert_allclose(turned, follow(env, KEY, moves)[2].reward[:, order], rtol=1e-5, atol=1e-6)


def test_a_stage_of_punishment_inside_counts_as_a_step():
    inner = Punishment(env=dilemma(), cost=0.0, fine=0.0, mode="stage", idle=0)
    _, state, ts = follow(averse(inner, **HALF), KEY, [[COOPERATE, DEFECT], [2, 2]])
    np.testing.assert_allclose(state.trace, [[0, 5], [0, 2.5]], rtol=1e-6)
    np.testing.assert_allclose(ts.reward[1], [-5, -1.25], rtol=1e-6)


def test_one_vmap_sweeps_aversions():
    sweep = lambda a: follow(averse(dilemma()).replace(alpha=a), KEY, [[COOPERATE, DEFECT]])[2].reward[0, 0]
    assert jax.vmap(sweep)(np.array([0, 1, 3], np.float32)).tolist() == [0, -5, -15]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": -1.0}, r"alpha=-1.0: must be at least 0"),
        ({"beta": np.ones(3)}, r"beta=\[1. 1. 1.\]: must be one number or a list of 2"),
        ({"gamma": 1.1}, r"gamma=1.1: must lie in \[0, 1\]"),
        ({"trace_lambda": float("nan")}, r"trace_lambda=nan: must lie in \[0, 1\]"),
    ],
)
def test_bad_numbers_are_refused_with_what_is_allowed(wrong, message):
    with pytest.raises(ValueError, match=rf"mechanism\.inequity_aversion\.{message}"):
        averse(dilemma(), **wrong).check()


def test_configs_take_one_number_for_all_seats_or_a_list():
    numbers = lambda *overrides: load("mechanism=[inequity_aversion]", *overrides).env.alpha.tolist()
    assert numbers() == [5]
    assert numbers("mechanism.inequity_aversion.alpha=2") == [2]
    assert numbers("mechanism.inequity_aversion.alpha=[0,2]") == [0, 2]
    with pytest.raises(ConfigError, match=r"alpha=.*must be one number or a list of 2"):
        numbers("mechanism.inequity_aversion.alpha=[0,2,1]")
