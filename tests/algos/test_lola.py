"""LOLA-DiCE against exact derivatives of the repeated prisoner's dilemma; axis R: independent estimates."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from algos.lola import LOLA, Learner, dice_objective, magic_box
from envs.matrix_game import MatrixGame
from marl.learner import start
from marl.networks import MLP, Table
from tests.probes import Probe, learn, probe
from tests.toys import commons

KEY = jax.random.key(0)
GAMMA = 0.8
HORIZON = 48  # 0.8^48 = 2e-5 of the value lies behind it
ROWS = np.array([0, 5, 9, 6, 10])  # of a table: before the first round, then own and other CC, CD, DC, DD
REWARD = np.array([-1.0, -3.0, 0.0, -2.0], np.float32)  # after CC, CD, DC, DD
KEYS = jax.random.split(KEY, 64)  # [R]
TABLE = Table(hidden=(), activation="tanh", core=0)


def dilemma(horizon=HORIZON):
    payoff = np.array([[[-1, -1], [-3, 0]], [[0, -3], [-2, -2]]], np.float32)
    return MatrixGame(payoff=payoff, continuation_prob=1.0, horizon=horizon, ends_by_chance=False)


def lola(**changes):
    fields = {
        "learning_rate": 0.1,
        "critic_learning_rate": 1.0,
        "inner_learning_rate": 0.3,
        "gamma": GAMMA,
        "baseline": "any_order",
        "num_inner_steps": 2,
        "num_games": 256,
        "num_steps": 8,
        "network": TABLE,
        "seats": (0, 1),
    }
    return LOLA(**(fields | changes))


# The oracle: closed-form values of two tables [16, 2] of logits, for the player named first.


def exact_values(own, other):
    """Both players' discounted returns: p0 (I - gamma P)^-1 r over the joint actions CC, CD, DC, DD."""
    joint = lambda x, y: jnp.stack([x * y, x * (1 - y), (1 - x) * y, (1 - x) * (1 - y)], axis=-1)
    own = jax.nn.softmax(own[ROWS])[:, 0]
    other = jax.nn.softmax(other[ROWS])[np.array([0, 1, 3, 2, 4]), 0]
    first, then = joint(own[0], other[0]), joint(own[1:], other[1:])
    visits = jnp.linalg.solve((jnp.eye(4) - GAMMA * then).T, first)
    return visits @ REWARD, visits @ REWARD[np.array([0, 2, 1, 3])]


def exact_lola(own, other, rate, num_steps):
    """Minus the own value after the other's steps."""
    for _ in range(num_steps):
        other = other + rate * jax.grad(lambda other: exact_values(own, other)[1])(other)
    return -exact_values(own, other)[0]


def test_the_oracle_knows_the_values_of_always_and_tit_for_tat():
    always = lambda action: jnp.zeros((16, 2)).at[:, action].set(100.0)
    copy = always(0).at[ROWS[[2, 4]], 1].set(200.0)  # defects after the other's defection
    value = lambda own, other: float(exact_values(own, other)[0])
    assert value(always(1), always(1)) == pytest.approx(-2 / (1 - GAMMA), rel=1e-4)
    assert value(copy, copy) == pytest.approx(-1 / (1 - GAMMA), rel=1e-4)
    assert value(always(1), copy) == pytest.approx(0 - 2 * GAMMA / (1 - GAMMA), rel=1e-4)
    assert value(copy, always(1)) == pytest.approx(-3 - 2 * GAMMA / (1 - GAMMA), rel=1e-4)


# DiCE.


def test_the_magic_box_is_one_and_multiplies_by_the_slope_in_every_derivative():
    f = lambda x: magic_box(3 * x)
    values = []
    for _ in range(4):
        values.append(float(f(0.7)))
        f = jax.grad(f)
    assert values == [1.0, 3.0, 9.0, 27.0]


@pytest.mark.parametrize(
    ("baseline", "first", "mixed"),
    [("none", [4.0, 2.0], 2.0), ("first_order", [-3.0, -3.0], 2.0), ("any_order", [-3.0, -3.0], -3.0)],
)
def test_derivatives_of_the_objective_by_hand(baseline, first, mixed):
    """Rewards 2 and 4, values 7 and 10, gamma 1/2: returns 4 and 2, at time 0 of worth 7 and 5."""
    reward, value = jnp.array([[2.0], [4.0]]), jnp.array([[7.0], [10.0]])
    of = lambda x: dice_objective(x[:, None], reward, value, gamma=0.5, baseline=baseline)
    log_prob = jnp.log(jnp.array([0.3, 0.6]))
    assert float(of(log_prob)) == pytest.approx(4.0)
    np.testing.assert_allclose(jax.grad(of)(log_prob), first, rtol=1e-6)
    np.testing.assert_allclose(jax.hessian(of)(log_prob)[0, 1], mixed, rtol=1e-6)


# Against the oracle.


ACTOR = np.random.default_rng(0).normal(size=(2, 16, 2)).astype(np.float32)
CRITIC = np.full((2, 16, 1), -1.5 / (1 - GAMMA), np.float32)  # about right
PLAYERS = {"params": {"actor": {"kernel": ACTOR}, "critic": {"kernel": CRITIC}}}  # leaves [2, ...]


def tables(params):
    return params["params"]["actor"]["kernel"]


def of_seat(seat):
    """Own and other parameters of the player in `seat`."""
    pick = lambda i: jax.tree.map(lambda x: x[i], PLAYERS)
    return pick(seat), pick(1 - seat)


def together(own, other):
    return jax.tree.map(lambda *x: jnp.stack(x), own, other)


def mixed_derivative(value, own, other):
    """grad_own of the derivative of value(own, other) in `other`, in the direction of `other` itself."""
    weighted = lambda own: jax.jvp(lambda other: value(own, other), (other,), (other,))[1]
    return jax.grad(weighted)(own)


@functools.cache
def derivatives():
    """Estimates from the same games, by name.

    "first" [R, 2, 2, 16, 2] of the return of a seat (axis 1) by the table of a seat (axis 2); for each
    baseline [R, 16, 2] the mixed derivative of the return of seat 1.
    """
    algo, env = lola(), dilemma()

    def estimate(key):
        batch = algo.simulate(env, PLAYERS, key)
        value = lambda both, seat: algo.objective(env, both, batch, seat)[0]
        found = {"first": jax.vmap(lambda seat: tables(jax.grad(value)(PLAYERS, seat)))(jnp.arange(2))}
        for name in ("none", "first_order", "any_order"):
            of = algo.replace(baseline=name).objective
            value = lambda own, other, of=of: of(env, together(own, other), batch, 1)[0]
            found[name] = tables(mixed_derivative(value, *of_seat(0)))
        return found

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(estimate))(KEYS))


def agrees(estimates, exact, *, noise):
    """Every entry [5, 2] of the mean is within 4 standard errors of the exact one, and these below `noise`.

    Returns the standard errors.
    """
    estimates, exact = estimates[:, ROWS], np.asarray(exact)[ROWS]
    error = estimates.std(0, ddof=1) / np.sqrt(len(estimates))
    assert error.max() < noise
    assert np.abs(exact).max() > 4 * error.max()  # so that 0 would not agree
    np.testing.assert_array_less(np.abs(estimates.mean(0) - exact), 4 * error + 1e-4)
    return error


@pytest.mark.parametrize("seat", [0, 1])
def test_first_derivatives_of_a_return_by_both_players_are_exact(seat):
    own, other = map(tables, of_seat(seat))
    exact = jax.grad(lambda own, other: exact_values(own, other)[0], argnums=(0, 1))(own, other)
    found = derivatives()["first"][:, seat]
    agrees(found[:, seat], exact[0], noise=0.02)
    agrees(found[:, 1 - seat], exact[1], noise=0.02)


def test_mixed_second_derivatives_are_exact_and_each_baseline_makes_them_less_noisy():
    own, other = map(tables, of_seat(0))
    exact = mixed_derivative(lambda own, other: exact_values(own, other)[1], own, other)
    limits = {"none": 0.05, "first_order": 0.05, "any_order": 0.02}
    noise = {name: agrees(derivatives()[name], exact, noise=limit).mean() for name, limit in limits.items()}
    assert noise["any_order"] < 0.6 * noise["first_order"]
    assert noise["first_order"] < noise["none"]


@jax.jit
def gradients(algo):
    """[R, 2, 16, 2] of the loss of both seats, by their own tables."""

    def estimate(key):
        loss = lambda own, other, seat: algo.loss(dilemma(), own, other, seat, key)[0]
        others = jax.tree.map(lambda x: x[::-1], PLAYERS)
        return tables(jax.vmap(jax.grad(loss))(PLAYERS, others, jnp.arange(2)))

    return jax.vmap(estimate)(KEYS)


@pytest.mark.parametrize("seat", [0, 1])
def test_the_gradient_through_two_imagined_steps_is_exact(seat):
    exact = functools.partial(jax.grad(exact_lola), *map(tables, of_seat(seat)), num_steps=2)
    found = np.asarray(gradients(lola(inner_learning_rate=0.3)))[:, seat]
    error = agrees(found, exact(rate=0.3), noise=0.02)
    away = np.abs(found.mean(0) - exact(rate=0.0))[ROWS] / error
    assert away.max() > 8  # standard errors from the gradient without the other's steps


@pytest.mark.parametrize("seat", [0, 1])
def test_without_inner_steps_the_gradient_is_the_policy_gradient(seat):
    """Of the same games: the mean over games of sum_t gamma^t (G_t - V_t) grad log pi(own action)."""
    algo = lola(inner_learning_rate=0.0)
    batch = jax.jit(algo.simulate)(dilemma(), PLAYERS, jax.random.split(KEYS[0])[1])
    reward, action = np.asarray(batch.reward[..., seat]), np.asarray(batch.action[..., seat])
    row = np.asarray(batch.obs["vector"][:, :, seat]).astype(int) @ [1, 2, 4, 8]
    return_ = np.zeros_like(reward)
    return_[-1] = reward[-1]
    for t in reversed(range(HORIZON - 1)):
        return_[t] = reward[t] + GAMMA * return_[t + 1]
    weight = GAMMA ** np.arange(HORIZON)[:, None] * (return_ + 1.5 / (1 - GAMMA))
    slope = np.eye(2)[action] - np.asarray(jax.nn.softmax(ACTOR[seat]))[row]  # of log pi, [T, G, 2]
    expected = np.zeros((16, 2))
    np.add.at(expected, row, weight[..., None] * slope)
    np.testing.assert_allclose(gradients(algo)[0, seat], -expected / 256, atol=1e-5)


# Learning.


def test_lola_learns_to_cooperate_where_naive_learners_defect():
    """Mean reward of a step, 100 updates; both cooperating earn -1, both defecting -2."""
    reward = {}
    for rate in (0.0, 1.0):
        algo = lola(inner_learning_rate=rate, num_inner_steps=1, gamma=0.9, num_games=128)
        play = learn(algo, dilemma(horizon=32), seed=0, num_envs=8, num_updates=100, num_steps=32)[2]
        reward[rate] = float(play.reward.mean())
    assert reward[0.0] < -1.9
    assert reward[1.0] > -1.3


class Recall(Probe):
    """The cue of the first of three steps is to be answered in the third, with the second of two choices."""

    fixed_horizon = 3
    action_space = spaces.MultiDiscrete([2, 2])

    def earn(self, state, action):
        return super().earn(state, action[:, 1])


@pytest.mark.slow  # minutes of compilation
def test_players_with_memory_and_two_choices_recall_their_cues():
    env = probe("recall", num_seats=2)
    env = Recall(**{field.name: getattr(env, field.name) for field in dataclasses.fields(env)})
    network = MLP(hidden=(), activation="tanh", core=8)
    algo = lola(network=network, learning_rate=0.03, critic_learning_rate=0.03, num_inner_steps=1)
    play = learn(algo, env, seed=0, num_envs=32, num_updates=60, num_steps=3)[2]
    assert 3 * float(play.reward.mean()) > 0.9


# Fields and seats.


@pytest.mark.parametrize(
    ("algo", "env", "message"),
    [
        (lola(), commons(num_seats=3), "is for games of 2 seats, not 3"),
        (lola(), probe("match", num_seats=2), "needs a game whose episodes have a fixed length"),
        (lola(seats=(0, 0)), dilemma(), r"seats=\[0, 0\]: algo lola needs seats=independent"),
        (lola(seats=(0,)), dilemma(), r"seats=\[0\]: algo lola needs seats=independent"),
        (lola(baseline="second"), dilemma(), "algo.baseline=second: must be one of none, first_order, any_"),
        (lola(), commons(num_seats=2), "a table reads only vectors"),
    ],
)
def test_what_it_cannot_learn_is_refused(algo, env, message):
    with pytest.raises(ValueError, match=message):
        algo.check(env)


def test_frozen_players_act_in_any_seats():
    """Player 0 always cooperates, player 1 always defects; the three games are played greedily."""
    actor = {"kernel": jnp.zeros((2, 16, 2)).at[1, :, 1].set(1.0)}
    learner = Learner({"params": {"actor": actor, "critic": {"kernel": jnp.zeros((2, 16, 1))}}}, ())
    env = dilemma()
    ts = start(lola(), env, KEY, 3).ts
    for seats in ((0, 1), (1, 0), (1, 1)):
        action = lola(seats=seats).act(env, learner, (), ts, KEY, greedy=True)[0]
        assert action.tolist() == [list(seats)] * 3
