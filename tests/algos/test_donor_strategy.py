"""Strategies of the Donor Game: single decisions computed by hand, constant givers, the first generation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.donor_strategy import BASE, FIRST, MERIT, SPEND, THRESHOLD, WEIGHTS
from marl.build import load
from marl.evaluate import play
from marl.validation import ConfigError


@functools.cache
def setup(*overrides):
    return load("env=donor_game", "algo=donor_strategy", *overrides)


def strategies(num_seats, **numbers):
    """[A, 8], all seats alike; what is not named is 0."""
    row = np.zeros(8, np.float32)
    for name, value in numbers.items():
        row[{"first": FIRST, "base": BASE, "threshold": THRESHOLD, "spend": SPEND, "merit": MERIT}[name]] = (
            value
        )
    return jnp.tile(row, (num_seats, 1))


def decide(trace, learner, *overrides):
    """What who decides does to a receiver whose trace [[there is one, given, spent, refused], ...] is this."""
    made = setup(*overrides)
    _, ts = jax.jit(jax.vmap(made.env.reset))(jax.random.split(jax.random.key(0), 1))
    vector = ts.obs["vector"].at[..., 4:].set(jnp.asarray(trace, jnp.float32).ravel())
    action = made.algo.act(made.env, learner, (), ts.replace(obs={"vector": vector}), jax.random.key(1))[0]
    decides = np.asarray(ts.obs["vector"])[0, :, 3] == 1
    assert set(np.asarray(action)[0, ~decides]) == {made.env.action_space.n - 1}, "who receives waits"
    found = set(np.asarray(action)[0, decides].tolist())
    assert len(found) == 1
    return found.pop()


NOTHING = [[0, 0, 0, 0]] * 3
GAVE = [[1, 0.5, 0, 0], [1, 0.4, 0, 0], [0, 0, 0, 0]]
PUNISHED = [[1, 0, 0.4, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_gift_is_read_off_the_trace():
    learner = strategies(12, first=0.7, base=0.1, threshold=-9)
    learner = learner.at[:, WEIGHTS].set(jnp.array([1.0, -0.5, 3.0]))
    assert decide(NOTHING, learner) == 7
    assert decide(GAVE, learner) == 4  # .1 + 1 * .5 - .5 * .4
    assert decide([[1, 1, 0, 0]] * 3, learner) == 10  # 3.6, cut
    assert decide([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], learner) == 0  # -.4, cut


def test_who_gave_too_little_is_punished_and_strangers_by_a_threshold_above_0():
    learner = strategies(12, first=0.2, base=0.3, threshold=0.45, spend=0.6)
    punish = "env.punish_levels=5"
    assert decide(GAVE, learner, punish) == 3
    assert decide(PUNISHED, learner, punish) == 10 + 3  # three fifths
    assert decide(NOTHING, learner, punish) == 10 + 3
    assert decide(NOTHING, learner.at[:, THRESHOLD].set(0.0), punish) == 2
    assert decide(PUNISHED, learner) == 3  # in a game without punishment
    assert decide(PUNISHED, learner.at[:, SPEND].set(-1.0), punish) == 10 + 1, "at least one step"


def test_a_punishment_seen_counts_for_its_merit():
    learner = strategies(12, base=0.1, threshold=-9, merit=0.5).at[:, WEIGHTS.start].set(1.0)
    assert decide(PUNISHED, learner, "env.punish_levels=5") == 3  # .1 + .5 * .4
    assert decide(PUNISHED, learner.at[:, MERIT].set(-1.0), "env.punish_levels=5") == 0


def test_constant_givers_end_with_the_resources_of_the_table():
    made = setup("env.num_games=2")
    learner = strategies(12, first=0.5, base=0.5, threshold=-9)
    sizes = {"num_episodes": 2, "max_steps": 24, "greedy": False}
    seen = jax.jit(lambda key: play(made.env, made.algo, learner, key, **sizes))(jax.random.key(0))
    np.testing.assert_allclose(np.asarray(seen.events["final_resources"]).mean(1), 341, rtol=2e-3)


@pytest.mark.parametrize("trace_length", [0, 1, 3])
def test_the_first_generation_lies_between_the_ends_and_newborns_near_their_parents(trace_length):
    made = setup(f"env.trace_length={trace_length}", "algo.mutation=0.05")
    _, ts = jax.jit(jax.vmap(made.env.reset))(jax.random.split(jax.random.key(0), 1))
    keys = jax.random.split(jax.random.key(1), 200)
    first = np.asarray(jax.jit(jax.vmap(lambda key: made.algo.init(key, made.env, ts)))(keys)).reshape(
        2400, -1
    )
    low, high = np.array([[0, 0.6], [0, 0.2], [-0.1, 0.2], [0, 0.2], [0, 1], [0, 2], [-1, 0], [0, 0]]).T
    assert first.shape[1] == 5 + trace_length
    np.testing.assert_allclose(first.min(0), low[: first.shape[1]], atol=0.01)
    np.testing.assert_allclose(first.max(0), high[: first.shape[1]], atol=0.01)
    np.testing.assert_allclose(first.mean(0), ((low + high) / 2)[: first.shape[1]], atol=0.04)
    newborn = np.asarray(made.algo.vary(jax.random.key(2), jnp.asarray(first)))
    np.testing.assert_allclose((newborn - first).std(), 0.05, rtol=0.05)


def test_a_fixed_opponent_plays_the_mean_of_the_first_generation():
    assert decide(NOTHING, ()) == 3
    assert decide(GAVE, ()) == 4  # .1 + 1 * .5 - .5 * .4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env=coin_game", "scripted player donor_strategy needs env=donor_game, not CoinGame"),
        ("algo.base=[0.5,0.25]", "algo.base=[0.5, 0.25]: must be [low, high]"),
        ("algo.weights=[[0.0,1.0]]", "algo.weights: must be [low, high] for each of the 3 acts of a trace"),
    ],
)
def test_bad_fields_are_named(override, message):
    with pytest.raises(ConfigError) as caught:
        load("env=donor_game", "algo=donor_strategy", override)
    assert caught.value.errors == [message]
