import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnasium import spaces

from algos.classifier_norms import pseudo_reward, sampled, sanction_loss
from marl.build import load
from marl.environment import Environment, TimeStep
from marl.learner import rollout, start
from marl.validation import ConfigError

IDLE, ZAP = 0, 1


class Square(Environment):
    """Two seats see a random sign each; who zaps hits the other. Seat 1 never has the opportunity."""

    horizon: int = struct.field(pytree_node=False)

    num_agents = 2
    action_space = spaces.Discrete(2)
    all_legal = True

    @property
    def fixed_horizon(self):
        return self.horizon

    def reset(self, key):
        return jnp.int32(0), self._look(key, jnp.int32(0), jnp.zeros(2), jnp.zeros(2))

    def step(self, key, state, action):
        can = jnp.array([1.0, 0.0])
        return state + 1, self._look(key, state + 1, can, can * (action == ZAP))

    def _look(self, key, time, could, did):
        return TimeStep(
            obs={"vector": jax.random.rademacher(key, (2, 1), jnp.float32)},
            reward=jnp.zeros(2),
            terminated=jnp.bool_(False),
            truncated=time >= self.horizon,
            action_mask=jnp.ones((2, 2), bool),
            events={"could_zap": could, "zapped": did},
        )


def norms(**fields):
    """The learner of the configuration, small, in the two seats of Square."""
    own = [
        "network@algo.classifier=mlp",
        "algo.classifier.hidden=[8]",
        "algo.classifier_learning_rate=0.02",
        "network.hidden=[8]",
    ]
    numbers = [f"algo.{name}={value}" for name, value in fields.items()]
    setup = load("algo=classifier_norms", "env=clean_up_small", "num_envs=4", *own, *numbers)
    return setup.algo.replace(seats=(0, 1), num_steps=16, num_minibatches=1)


def played(algo, games=16):
    """(learner, batch) of a rollout in which seat 0 zaps exactly where it sees +1."""
    env, key = Square(horizon=16), jax.random.key(0)
    runner = start(algo, env, key, games)
    runner, batch, _ = jax.jit(lambda runner: rollout(algo, env, runner, key, 0, algo.num_steps))(runner)
    zaps = (batch.obs["vector"][..., 0] > 0) & (batch.events["could_zap"] > 0)
    return runner.learner, batch.replace(events=batch.events | {"zapped": zaps.astype(jnp.float32)})


def after(algo, num_updates):
    """(learner, metrics of the last update) after so many updates from the same play."""
    learner, batch = played(algo)
    env = Square(horizon=16)
    update = jax.jit(lambda learner, key: algo.update(env, learner, batch, key))
    metrics = {}
    for i in range(num_updates):
        learner, metrics = update(learner, jax.random.fold_in(jax.random.key(1), i))
    return learner, metrics


def test_sanctions_in_accord_are_rewarded_and_others_cost():
    did = jnp.array([True, True, True, False, False])
    said = jnp.array([0.9, 0.5, 0.1, 0.9, 0.1])
    np.testing.assert_allclose(pseudo_reward(did, said, 0.2, 0.4), [0.2, -0.4, -0.4, 0, 0])


def test_the_loss_is_the_cross_entropy_of_what_counts():
    logits = jnp.log(jnp.array([3.0, 1 / 3, 1 / 3, 3.0]))  # probabilities 3/4, 1/4, 1/4, 3/4
    did, weight = jnp.array([1.0, 1.0, 0.0, 0.0]), jnp.array([1.0, 1.0, 1.0, 0.0])
    loss, metrics = sanction_loss(logits, did, weight)
    np.testing.assert_allclose(loss, -(2 * np.log(3 / 4) + np.log(1 / 4)) / 3, rtol=1e-6)
    assert metrics["balanced_accuracy"] == pytest.approx((1 / 2 + 1) / 2)
    nothing = sanction_loss(logits, did, jnp.zeros(4))
    assert (nothing[0], nothing[1]["balanced_accuracy"]) == (0, 0.5)


def test_a_sample_has_both_kinds_once_each():
    could = jnp.arange(100) < 50
    did = jnp.arange(100) % 5 == 0  # ten of the fifty
    index, label, weight = sampled(jax.random.key(0), could, did, (8, 64))
    np.testing.assert_array_equal(label, np.arange(72) < 8)
    assert (weight[:8].sum(), weight[8:].sum()) == (8, 40)  # all forty others, and nothing in place of more
    sanctions, others = index[:8], index[8:][weight[8:] > 0]
    assert (len(set(sanctions.tolist())), len(set(others.tolist()))) == (8, 40)
    assert did[sanctions].all()
    assert (could[others] & ~did[others]).all()


def test_everybody_learns_from_public_sanctions():
    metrics = after(norms(), 40)[1]
    assert metrics["balanced_accuracy"] == 1.0  # the mean over both learners
    assert metrics["disapproval_rate"] == pytest.approx(0.5, abs=0.1)


def test_only_who_sanctions_learns_from_private_ones():
    metrics = after(norms(public=False), 40)[1]
    assert metrics["balanced_accuracy"] == pytest.approx((1.0 + 0.5) / 2)  # seat 1 has no opportunity


def test_without_pseudo_reward_and_sight_the_policy_is_that_of_ppo():
    algo = norms(accord_reward=0, discord_cost=0, policy_sees=False)
    plain = load("algo=ppo", "env=clean_up_small", "num_envs=4", "network.hidden=[8]").algo
    plain = plain.replace(seats=(0, 1), num_steps=16, num_minibatches=1)
    env, key = Square(horizon=16), jax.random.key(0)

    def once(algo):
        runner = start(algo, env, key, 4)
        runner, batch, _ = rollout(algo, env, runner, key, 0, 16)
        return algo.update(env, runner.learner, batch, key)[0]

    mine, theirs = jax.jit(lambda: once(algo).policy)(), jax.jit(lambda: once(plain))()
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_frozen_classifier_stays():
    frozen = norms(freeze_steps=2 * 16 * 16)  # two updates of 16 steps in 16 games
    leaves = [jax.tree.leaves(after(frozen, n)[0].classifier) for n in (1, 2, 4)]
    assert any((a != b).any() for a, b in zip(*leaves[:2], strict=True))
    for a, b in zip(*leaves[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_ppo_learns_from_judged_rewards_and_sees_what_the_classifiers_said():
    learner, batch = played(norms())
    assert float(batch.extras["disapproval"].max() - batch.extras["disapproval"].min()) < 0.1
    expected = jnp.where(
        batch.events["zapped"] > 0, jnp.where(batch.extras["disapproval"] > 0.5, 0.2, -0.4), 0
    )
    env, algo = Square(horizon=16), norms()
    judged = algo._judged(env, learner, batch)
    np.testing.assert_allclose(judged.reward, expected, rtol=1e-6)
    said = batch.extras["disapproval"]
    np.testing.assert_allclose(judged.obs["vector"][..., 1:], np.stack([said, 1 - said], -1), rtol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="reads events \\['could_zap', 'zapped'\\] that MatrixGame"):
        load("algo=classifier_norms", "env=prisoners_dilemma")
    with pytest.raises(ConfigError, match=r"algo.classifier\.core=4: must be 0"):
        load("algo=classifier_norms", "env=clean_up_small", "algo.classifier.core=4")
    with pytest.raises(ConfigError, match=r"algo\.num_approvals=0: must be at least 1"):
        load("algo=classifier_norms", "env=clean_up_small", "algo.num_approvals=0")
