"""LIO: its meta-gradient against finite differences, what is paid to whom, and what payments teach."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax.flatten_util import ravel_pytree

from marl.build import load
from marl.gifts import accounts
from marl.learner import start
from marl.validation import ConfigError
from tests.probes import Lane, jit_rollout, jit_train

KEY = jax.random.key(0)
GAMES = 8


class Helping(Lane):
    """Seat 0 earns 1 whenever seat 1 plays 1; nothing else pays."""

    action_space = spaces.Discrete(2)

    def earn(self, state, action):
        return jnp.array([1, 0, 0]) * (action[1] == 1)


def lio(game, *overrides):
    """LIO with small networks, large steps, and its game."""
    small = ["network.hidden=[8]", "algo.incentive_widths=[8]", "algo.learning_rate=0.1"]
    setup = load(f"env={game}", "algo=lio_escape_room", *small, *overrides)
    return setup.algo, setup.env


@functools.cache
def played(game, *overrides):
    """An algorithm, its game, a fresh learner, and a batch of five steps of games under it."""
    algo, env = lio(game, *overrides)
    runner = start(algo, env, KEY, GAMES)
    return algo, env, runner.learner, jit_rollout(algo, env, runner, KEY, 0, 5)[1]


def returns_of(batch):
    """[T, E, A] discounted returns, and [T, E] whether the episode ends in the batch, step by step."""
    reward, done = np.asarray(batch.reward), np.asarray(batch.done)
    returns, ends = np.zeros(reward.shape), np.zeros(done.shape)
    total, known = np.zeros(reward.shape[1:]), np.zeros(done.shape[1])
    for t in range(len(done) - 1, -1, -1):
        total = reward[t] + 0.99 * total * ~done[t][:, None]
        known = np.maximum(known, done[t])
        returns[t], ends[t] = total, known
    return returns, ends


@pytest.mark.parametrize("game", ["escape_room", "escape_room_3"])
def test_the_meta_gradient_is_that_of_finite_differences(game):
    """In float64: sum_j log pi'_j A_i on fixed games, as the incentives of i move along a random direction."""
    algo, env, learner, batch = played(game)
    double = lambda tree: jax.tree.map(lambda x: x.astype("float64") if x.dtype == "float32" else x, tree)
    with jax.enable_x64(True):
        learner, batch = double((learner, batch))  # the same games after the step: they are fixed
        own, whole = ravel_pytree(learner.incentive)
        returns, ends = returns_of(batch)
        step = lambda own: algo.learned(env, learner, whole(own), batch, None)[0]

        @jax.jit
        def objectives(own):  # [A] of each giver
            pi = algo._policy(env, step(own), learner.updates, batch.obs, None)
            log_prob = pi.log_prob(batch.action) * ends[..., None]
            others = log_prob.sum(-1, keepdims=True) - log_prob
            return (others * returns).sum(0).mean(0)

        @jax.jit
        def slopes(own):  # [A, parameters]
            policy, back = jax.vjp(step, own)
            return jax.vmap(back)(algo.meta_gradients(env, learner, policy, batch))[0]

        found, along = slopes(own), np.random.default_rng(0).normal(size=own.shape)
        for giver in range(env.num_agents):
            mine = jax.tree.map(lambda x, at=giver: np.zeros(x.shape) + _at(at, x), learner.incentive)
            part = along * ravel_pytree(mine)[0]
            expected = (objectives(own + 1e-4 * part) - objectives(own - 1e-4 * part))[giver] / 2e-4
            assert abs(expected) > 1e-6
            np.testing.assert_allclose(found[giver] @ part, expected, rtol=1e-5)


def _at(giver, x):
    """1 for the giver, broadcast against [A, ...]."""
    return (np.arange(len(x)) == giver).reshape(-1, *(1,) * (x.ndim - 1))


def test_payments_are_bounded_none_is_to_oneself_and_all_that_is_given_is_received():
    algo, env, learner, batch = played("escape_room_3")
    wild = jax.tree.map(lambda x: 3 * x + jax.random.normal(KEY, x.shape), learner.incentive)
    paid = np.asarray(jax.jit(algo.learned)(env, learner, wild, batch, None)[1])  # [T, E, A, A]
    others = ~np.eye(3, dtype=bool)
    assert (paid[..., ~others] == 0).all()
    assert paid[..., others].min() >= 0
    assert paid[..., others].max() <= 2
    assert paid[..., others].std() > 0.1
    found = accounts(batch.reward, paid)
    assert found["given"] == pytest.approx(found["received"], rel=1e-5)
    assert found["received/seat_1"] == pytest.approx(paid[..., 1].sum(-1).mean(), rel=1e-5)
    assert found["given/seat_1"] == pytest.approx(paid[..., 1, :].sum(-1).mean(), rel=1e-5)
    assert found["incentive/seat_0_to_2"] == pytest.approx(paid[..., 0, 2].mean(), rel=1e-5)
    assert found["extrinsic/seat_2"] == pytest.approx(float(batch.reward[..., 2].mean()), rel=1e-5)


def test_what_a_payment_costs_by_hand():
    """One game of two steps, then a step of the next one: c (s0 + gamma s1 + s2) with s the sum of shares."""
    algo, env, learner, batch = played("escape_room")
    done = jnp.zeros_like(batch.done).at[1].set(True)
    batch = batch.replace(done=done)
    shares = np.asarray(algo.shares(env, learner.incentive, batch)).sum((2, 3)).mean(1)  # [T]
    expected = shares[0] + 0.99 * shares[1] + shares[2] + 0.99 * shares[3] + 0.99**2 * shares[4]
    assert float(algo.cost(env, learner.incentive, batch)) == pytest.approx(expected, rel=1e-5)


def test_without_payments_a_step_is_that_of_the_policy_gradient():
    """max_incentive 0, no entropy: the policy's last bias moves by the mean over games of the sum of R d log p."""
    algo, env, learner, batch = played("escape_room", "algo.max_incentive=0.0", "algo.ent_coef=0.0")
    wild = jax.tree.map(lambda x: x + 1, learner.incentive)
    learned = jax.jit(algo.learned)
    one, other = (learned(env, learner, x, batch, None)[0] for x in (learner.incentive, wild))
    assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), one, other))
    bias = lambda policy: np.asarray(policy["params"]["actor"]["bias"])  # [A, N]
    mixed = np.exp(algo._policy(env, learner.policy, learner.updates, batch.obs, None).logits)
    plain = (mixed - 0.5 / 3) / 0.5  # half of the actions are drawn from all alike
    done = np.eye(3)[np.asarray(batch.action)]
    share = (0.5 * plain * done).sum(-1, keepdims=True) / (mixed * done).sum(-1, keepdims=True)
    returns, ends = returns_of(batch)
    expected = (share * (done - plain) * (returns * ends[..., None])[..., None]).sum(0).mean(0)
    np.testing.assert_allclose((bias(one) - bias(learner.policy)) / 0.1, expected, atol=1e-4)


def test_who_can_help_is_paid_for_it_and_learns_to():
    algo, _ = lio("escape_room_3", "algo.explore_updates=200", "algo.cost_weight=0.0", "algo.ent_coef=0.0")
    env = Helping(num_seats=3)
    algo = algo.replace(num_steps=4, learning_rate=0.3, incentive_learning_rate=3e-2)
    runner, _ = jit_train(algo, env, start(algo, env, KEY, 16), KEY, jnp.arange(300))
    batch = jit_rollout(algo, env, runner, KEY, 0, 4)[1]
    assert (np.asarray(batch.action[..., 1]) == 1).mean() > 0.8  # chance .5
    paid = jax.jit(algo.learned)(env, runner.learner, runner.learner.incentive, batch, None)[1]
    helped = np.asarray(batch.action[..., 1] == 1)
    by_first = np.asarray(paid[..., 0, 1])
    assert by_first[helped].mean() > by_first[~helped].mean() + 0.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seats=shared"], "algo lio needs two seats or more and seats=independent"),
        (["network=gru"], r"^algo\.network\.core=\d+: must be 0, without memory$"),
        (
            ["algo.reads=[cleaned]"],
            r"^algo\.reads: the game tells no event cleaned; one of cooperated, escaped$",
        ),
    ],
)
def test_what_does_not_fit_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load("algo=lio_escape_room", "env=escape_room", *overrides)
