import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from algos.ppo import PPO
from marl.build import load
from marl.learner import start
from marl.validation import ConfigError
from tests.probes import Lane, jit_rollout, jit_train


class Helping(Lane):
    """Seat 0 earns 1 whenever seat 1 plays 1; nothing else pays."""

    action_space = spaces.Discrete(2)

    def earn(self, state, action):
        return jnp.array([1, 0, 0]) * (action[1] == 1)


def lase(**fields):
    own = ["algo.relation.hidden=[]", "algo.relation_width=16"]
    own += ["algo.perspective_widths=[16]", "network.hidden=[16]", "env=prisoners_dilemma_lase"]
    setup = load("algo=lase", *own, *(f"algo.{name}={value}" for name, value in fields.items()))
    return setup.algo.replace(seats=(0, 1, 2), num_steps=16, num_minibatches=1)


def test_who_helps_is_given_a_share_and_learns_to_help():
    env, key = Helping(num_seats=3), jax.random.key(0)
    algo = lase(learning_rate=3e-3, relation_value_learning_rate=3e-3, flat=0.1)
    runner = start(algo, env, key, 16)
    runner, (_, metrics) = jit_train(algo, env, runner, key, jnp.arange(80))
    _, batch, _ = jit_rollout(algo, env, runner, key, 0, 16)
    weights = np.asarray(jax.jit(algo.weights)(env, runner.learner, batch))  # [T, E, A, A]
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
    assert weights.min() >= 0
    assert weights[..., ~np.eye(3, dtype=bool)].max() <= 1 / 2 + 1e-6
    helps = np.asarray(batch.action[..., 1] == 1)
    assert helps.mean() > 0.6  # without gifts 1/2
    assert (weights[..., 0, 1][~helps] == 0).all()
    assert metrics["weight/seat_0_to_1"][:10].mean() > 0.1
    assert weights[..., 0, 2].mean() < 0.05  # the third does nothing


@pytest.mark.parametrize("perspective", ["guessed", "uniform", "actual"])
def test_shares_are_bounded_whatever_others_are_taken_to_see(perspective):
    env, key = Helping(num_seats=3), jax.random.key(0)
    algo = lase(perspective=perspective, num_steps=4)
    runner = start(algo, env, key, 2)
    _, batch, _ = jit_rollout(algo, env, runner, key, 0, 4)
    weights = np.asarray(jax.jit(algo.weights)(env, runner.learner, batch))
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
    assert weights.min() >= 0
    assert weights[..., ~np.eye(3, dtype=bool)].max() <= 1 / 2 + 1e-6


def test_who_gives_nothing_keeps_all_and_without_givers_it_is_ppo():
    env, key = Helping(num_seats=3), jax.random.key(0)
    algo = lase(givers="[1]", num_steps=4)
    runner = start(algo, env, key, 2)
    assert {len(x) for x in jax.tree.leaves(runner.learner.relation)} == {1}
    _, batch, _ = jit_rollout(algo, env, runner, key, 0, 4)
    weights = np.asarray(jax.jit(algo.weights)(env, runner.learner, batch))
    np.testing.assert_array_equal(weights[:, :, [0, 2]], np.broadcast_to(np.eye(3)[[0, 2]], (4, 2, 2, 3)))
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
    assert weights[..., 1, [0, 2]].max() > 0
    alone = algo.replace(givers=(), explore_start=0.0, explore_end=0.0)
    plain = PPO(**{f.name: getattr(alone, f.name) for f in dataclasses.fields(PPO)})
    new, _ = jax.jit(alone.update)(env, start(alone, env, key, 2).learner, batch, key)
    same, _ = jax.jit(plain.update)(env, start(plain, env, key, 2).learner, batch, key)
    for one, other in zip(jax.tree.leaves(new.policy), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_one_seat_gives_to_other_players_what_is_gone():
    fixed = ["env=prisoners_dilemma_lase", "algo=lase", "algo.num_steps=8", "algo.num_minibatches=1"]
    small = ["algo.relation.hidden=[]", "algo.relation_batch_size=4", "network.hidden=[4]"]
    setup = load(*fixed, *small, "seats=[always_cooperate,0]", "num_envs=2")
    runner = start(setup.algo, setup.env, jax.random.key(0), 2)
    _, (_, metrics) = jit_train(setup.algo, setup.env, runner, jax.random.key(0), jnp.arange(1))
    assert [name for name in metrics if name.startswith("weight")] == ["weight/seat_1_to_0"]
    _, batch, _ = jit_rollout(setup.algo, setup.env, runner, jax.random.key(0), 0, 8)
    view = batch.of_member(0, np.array([1]))
    giver = setup.algo.members[0]
    weights = jax.jit(giver.weights)(setup.env, runner.learner[0], view)  # [8, 2, 1, 2]
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
    total = view.reward[..., 0] * weights[..., 0, 1]
    _, metrics = jax.jit(giver.update)(setup.env, runner.learner[0], view, jax.random.key(1))
    np.testing.assert_allclose(metrics["total_reward/seat_1"], total.mean(), atol=1e-6)


def test_alternatives_are_values_of_the_joint_action_with_one_action_replaced():
    env = Helping(num_seats=3)
    net = lase()._relation(env)
    planes, joint = {"vector": jax.random.normal(jax.random.key(0), (5, 1))}, jnp.array([[0, 1, 1]] * 5)
    params = net.init(jax.random.key(1), planes, joint)
    found = net.apply(params, planes, joint, method="alternatives")
    for other in (1, 2):
        for action in (0, 1):
            value = net.apply(params, planes, joint.at[:, other].set(action), method="value")
            np.testing.assert_allclose(found[:, other - 1, action], value, atol=1e-5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algo.perspective=blind", r"^algo\.perspective=blind: must be one of guessed, uniform, actual$"),
        ("algo.givers=[2]", r"^algo\.givers=\[2\]: must be below 2$"),
        ("algo.perspective_widths=[]", r"^algo\.perspective_widths=\[\]: must have at least one layer$"),
        ("algo.relation.core=4", r"^algo\.relation\.core=4: must be 0, without memory$"),
    ],
)
def test_what_does_not_fit_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load("algo=lase", "env=prisoners_dilemma_lase", override)
