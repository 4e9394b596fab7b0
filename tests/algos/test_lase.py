import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from marl.build import load
from marl.learner import rollout, start, train
from marl.validation import ConfigError
from tests.probes import Lane


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
    runner, (_, metrics) = jax.jit(train)(algo, env, runner, key, jnp.arange(80))
    _, batch, _ = rollout(algo, env, runner, key, 0, 16)
    weights = np.asarray(algo.weights(env, runner.learner, batch))  # [T, E, A, A]
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
    _, batch, _ = rollout(algo, env, runner, key, 0, 4)
    weights = np.asarray(algo.weights(env, runner.learner, batch))
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
    assert weights.min() >= 0
    assert weights[..., ~np.eye(3, dtype=bool)].max() <= 1 / 2 + 1e-6


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
        ("algo.relation.core=4", r"^algo\.relation\.core=4: must be 0, without memory$"),
    ],
)
def test_what_does_not_fit_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load("algo=lase", "env=prisoners_dilemma_lase", override)
