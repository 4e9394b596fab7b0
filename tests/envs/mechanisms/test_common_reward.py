"""The group's reward for all: mean, sum and mixtures; the game's own reward stays in the logs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.mechanisms.common_reward import CommonReward
from envs.mechanisms.gifting import Gifting
from envs.mechanisms.reward_exchange import RewardExchange
from envs.mechanisms.svo import SVO
from marl.build import load
from marl.program import Program
from tests.conformance import assert_equal
from tests.toys import COOPERATE, DEFECT, LEAVE, TAKE, WATCH, commons, dilemma, follow

KEY = jax.random.key(0)
MOVES = [[TAKE, LEAVE, WATCH], [LEAVE, TAKE, WATCH]]


def common(env, weight=1.0, share="mean"):
    return CommonReward(env=env, weight=weight, share=share)


@pytest.mark.parametrize(
    ("weight", "share", "expected"),
    [
        (1.0, "mean", [2.5, 2.5]),
        (1.0, "sum", [5, 5]),
        (0.5, "mean", [1.25, 3.75]),
        (0.5, "sum", [2.5, 5]),
        ([0.5, 0.0], "mean", [1.25, 5]),
    ],
)
def test_each_seat_gets_the_group_s_reward_by_weight(weight, share, expected):
    ts = follow(common(dilemma(), weight, share), KEY, [[COOPERATE, DEFECT]])[2]
    assert ts.reward.tolist() == [expected]
    assert ts.events["extrinsic_reward"].tolist() == [[0, 5]]


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_mean_is_an_exchange_of_rewards(weight):
    rewards = jnp.array([3.0, -1.0, 2.0, 0.5])
    exchange = RewardExchange(env=commons(4), self_interest=1 - weight + weight / 4)
    np.testing.assert_allclose(
        common(commons(4), weight).utility(rewards), exchange.utility(rewards), rtol=1e-6
    )


@pytest.mark.parametrize("share", ["mean", "sum"])
def test_neutral_weight_equals_the_bare_game_bit_for_bit(share):
    bare = commons(noise=0.5)
    _, state, ts = follow(common(bare, 0.0, share), KEY, MOVES)
    _, bare_state, bare_ts = follow(bare, KEY, MOVES)
    assert_equal(ts.events["extrinsic_reward"], bare_ts.reward, exact=True)
    events = {k: v for k, v in ts.events.items() if k != "extrinsic_reward"}
    assert_equal((state, ts.replace(events=events)), (bare_state, bare_ts), exact=True)


def test_the_innermost_reward_is_the_extrinsic_one_gifts_included():
    gifts = Gifting(env=dilemma(), cost=1.0, value=1.0, budget=0.0, mode="zero_sum", idle=COOPERATE)
    env = common(SVO(env=gifts, weight=1.0, angle=0.0))
    ts = follow(env, KEY, [[COOPERATE, DEFECT], [2, DEFECT]])[2]
    assert ts.events["extrinsic_reward"].tolist() == [[0, 5], [-1, 6]]
    svo = np.array([-np.pi / 2, 5.0])  # utilities of the first step
    np.testing.assert_allclose(ts.reward[0], [svo.mean()] * 2, rtol=1e-6)


def test_one_vmap_sweeps_weights():
    sweep = lambda weight: common(dilemma()).replace(weight=weight).utility(jnp.array([4.0, 0.0]))[0]
    assert jax.vmap(sweep)(np.array([0, 0.5, 1], np.float32)).tolist() == [4, 3, 2]


def test_training_logs_the_game_s_own_reward():
    small = ["num_envs=4", "num_seeds=1", "total_steps=16", "log_every=1", "algo.num_steps=4"]
    shape = ["env=public_goods", "mechanism=[common_reward]", "mechanism.common_reward.share=sum"]
    setup = load(*shape, *small, "network.hidden=[8]", "seats=shared")
    program = Program(setup)
    runners = program.start()
    program.compile(runners)
    metrics = program.run_chunk(runners, 0)[1]
    extrinsic = metrics["events/extrinsic_reward"]
    assert extrinsic > 0
    np.testing.assert_allclose(metrics["reward"], setup.env.num_agents * extrinsic, rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"weight": 1.5}, r"weight=1.5: must lie in \[0, 1\]"), ({"share": "max"}, "share=max: .* mean, sum")],
)
def test_bad_fields_are_refused_with_what_is_allowed(wrong, message):
    with pytest.raises(ValueError, match=rf"mechanism\.common_reward\.{message}"):
        common(dilemma(), **wrong).check()
