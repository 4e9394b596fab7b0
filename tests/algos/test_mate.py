"""MATE: handshakes traced by hand, its neutral setting, and what learners make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.mate import Mate, handshake
from marl.build import load
from marl.config import ConfigError
from tests.probes import learn, ppo, probe


@pytest.mark.parametrize(
    ("reward", "gain", "after", "asks", "thanked"),
    [
        # 0 is content and asks; that token makes 1 content (-.5 + 1) but not 2 (-3 + 1): the least answer is -1
        ([1.0, -0.5, -3.0], [0, 0, 0], [0.0, 0.5, -2.0], [1, 0, 0], [0, 0, 0]),
        # both others become content: +1
        ([1.0, -0.5, -1.0], [0, 0, 0], [2.0, 0.5, 0.0], [1, 0, 0], [1, 0, 0]),
        # all ask and all are content: a token for being asked, however often, and one for the answers
        ([1.0, 0.0, 2.0], [0, 0, 0], [3.0, 2.0, 4.0], [1, 1, 1], [1, 1, 1]),
        # nobody is content: nothing happens
        ([-1.0, -2.0, -3.0], [0, 0, 0], [-1.0, -2.0, -3.0], [0, 0, 0], [0, 0, 0]),
        # values count: 1 expected 3 more of the past step (gain -3), 2 sees a better future (gain 4)
        ([1.0, 2.0, -3.0], [0, -3, 4], [3.0, 3.0, -1.0], [1, 0, 1], [1, 0, 1]),
        # 0 and 2 ask; 1 is still not content with its token, so both lose one for it
        ([1.0, 0.0, -3.0], [0, -3, 4], [1.0, 1.0, -3.0], [1, 0, 1], [0, 0, 0]),
    ],
)
def test_a_handshake_by_hand(reward, gain, after, asks, thanked):
    found = handshake(jnp.array(reward), jnp.array(gain, jnp.float32), 1.0)
    assert [x.tolist() for x in found] == [after, asks, thanked]


def test_in_the_prisoners_dilemma_who_exploits_is_not_thanked():
    """Values 0, payoffs -1 -3 0 -2: only who exploits is content and asks."""
    for reward, after in (([-1, -1], [-1, -1]), ([0, -3], [-1, -2]), ([-2, -2], [-2, -2])):
        assert handshake(jnp.array(reward, jnp.float32), jnp.zeros(2), 1.0)[0].tolist() == after


def test_larger_tokens_make_more_content():
    reward = jnp.array([0.0, -3.0])
    assert handshake(reward, jnp.zeros(2), 3.0)[0].tolist() == [3.0, 0.0]


def mate(token):
    plain = ppo(seats=(0, 1))
    fields = {name: getattr(plain, name) for name in plain.__dataclass_fields__}
    return Mate(**fields, token=token)


def test_a_token_of_0_leaves_the_rewards():
    reward, gain = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    assert (handshake(reward, gain, 0.0)[0] == reward).all()


def test_what_it_learns_from_is_the_reward_after_the_handshake():
    """Reward 1 a step for both, always: both ask and thank as soon as the value is below; it rises towards 3."""
    env = probe("constant", num_seats=2).replace(num_actions=2)
    _, (_, metrics), batch = learn(mate(1.0), env, seed=0, num_envs=16, num_updates=20, num_steps=8)
    assert metrics["asked"][0] == 1
    assert metrics["acknowledged"][0] == 1
    assert (np.asarray(batch.reward) == 1).all()  # the game's own
    assert batch.extras["value"].mean() > 1


def test_one_learner_alone_is_refused():
    with pytest.raises(ConfigError, match="Mate needs 2 learning seats or more, not 1"):
        load("env=prisoners_dilemma", "algo=mate", "seats=[0,tit_for_tat]")
