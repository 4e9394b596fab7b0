"""Scripted players of negotiation and split: single proposals, and the exact rewards of their pairings."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.item_players import ItemPlayer
from envs.item_division import State
from envs.split import DRAWS
from marl.build import build, build_env, player
from marl.config import ConfigError, compose
from marl.evaluate import play
from marl.population import Mixture

NEGOTIATIONS = ("negotiation", "negotiation_discrete", "negotiation_proportion")
PAIRS = [("cooperative", "cooperative"), ("greedy", "greedy"), ("greedy", "cooperative")]
NUM_EPISODES = 512


@functools.cache
def game(name):
    return build_env(compose([f"env={name}"]))


def players(*strategies):
    return Mixture(members=tuple(ItemPlayer(strategy=s) for s in strategies), holder=(0, 1))


@functools.cache
def all_values(name):
    """[E, 2, 3] values that a round of a game can have, all equally likely."""
    if name == "split":
        return np.where(DRAWS, 10.0, 1.0).astype(np.float32)
    first = np.array(list(itertools.product((1, 5), repeat=3)), np.float32)
    return np.stack([first, 6 - first], axis=1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _one_round(name, strategies, value):
    """Proposals [E, 2, 3] and TimeSteps of a round for each of the values [E, 2, 3]."""
    env, algo = game(name), players(*strategies)
    nothing = jnp.zeros_like(value)
    state = State(value, nothing, nothing, jnp.zeros(len(value), jnp.int32))
    look = lambda s: env._look(s, jnp.zeros(2), env.events(s.value, s.last_proposal, jnp.zeros(2)))[1]
    action = algo.act(
        env,
        ((), ()),
        algo.initial_carry(env, jax.vmap(look)(state)),
        jax.vmap(look)(state),
        jax.random.key(0),
    )[0]
    step = lambda s, a: env.step(jax.random.key(0), s, a)[1]
    return action, jax.vmap(step)(state, action)


def one_round(name, strategies):
    return _one_round(name, strategies, jnp.asarray(all_values(name)))


# rewards per round; 1.275 and 0.825 are 127.5 and 82.5 points
EXACT = {
    "negotiation": [(0.5, 0.5), (0.3, 0.3), (0.55, 0.25)],
    "split": [(1.275, 1.275), (0.825, 0.825)],
}


@pytest.mark.parametrize("name", NEGOTIATIONS)
@pytest.mark.parametrize(("pair", "expected"), list(zip(PAIRS, EXACT["negotiation"], strict=True)))
def test_mean_over_all_values_is_the_expected_reward_of_negotiation(name, pair, expected):
    found = one_round(name, pair)[1].reward.mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("pair", "expected"), list(zip(PAIRS, EXACT["split"], strict=False)))
def test_mean_over_all_values_is_the_expected_reward_of_split(pair, expected):
    ts = one_round("split", pair)[1]
    np.testing.assert_allclose(ts.reward.mean(0), expected, rtol=1e-6)
    np.testing.assert_allclose(ts.events["points"].mean(0), 100 * np.array(expected), rtol=1e-6)


def test_split_pays_who_is_greedy_among_the_cooperative():
    """Greedy takes a half of the other's item, 2 / 3 of ties and all of its own."""
    found = one_round("split", PAIRS[2])[1].events["points"].mean(0)
    ties = (10 + 100) / 2  # the points of a tie of 10 items, averaged
    np.testing.assert_allclose(found, [100 + 5 + ties * 2 / 3, 50 + ties / 3], rtol=1e-6)


@pytest.mark.parametrize(("pair", "expected"), list(zip(PAIRS, (1.0, 165 / 255), strict=False)))
def test_efficiency_is_the_quotient_of_the_sums_of_points_and_best_points(pair, expected):
    events = one_round("split", pair)[1].events
    found = events["points"].sum() / events["best_points"].sum()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_cooperative_proposes_all_nothing_or_a_half():
    for name, most, half, dtype in (
        ("split", 10, 5, jnp.int32),
        ("negotiation_discrete", 5, 3, jnp.int32),
        ("negotiation", 5, 2.5, jnp.float32),
    ):
        ts = game(name).reset(jax.random.key(0))[1]
        vector = ts.obs["vector"].at[:, 3:6].set(jnp.array([[1.0, 0.1, 0.5]] * 2)).at[:, 9:12].set(0.5)
        ts = jax.tree.map(lambda x: x[None], ts.replace(obs={"vector": vector}))
        for strategy, expected in (("cooperative", [most, 0, half]), ("greedy", [most] * 3)):
            action = ItemPlayer(strategy=strategy).act(game(name), (), (), ts, jax.random.key(0))[0]
            assert action.tolist() == [[expected] * 2]
            assert action.dtype == dtype


@pytest.mark.parametrize("name", ["negotiation", "split"])
def test_greedy_defects_and_cooperative_cooperates_wherever_there_is_a_choice(name):
    events = one_round(name, PAIRS[2])[1].events
    value = all_values(name)
    choice = np.any(value < value[:, ::-1], axis=-1).astype(int)  # some item is worth more to the other
    np.testing.assert_array_equal(events["defected"], choice * [1, 0])
    np.testing.assert_array_equal(events["cooperated"], choice * [0, 1])


@pytest.mark.parametrize(
    ("name", "pair", "expected"),
    [("negotiation", PAIRS[2], (0.55, 0.25)), ("split", PAIRS[0], (1.275, 1.275))],
)
def test_whole_episodes_earn_the_same_within_chance(name, pair, expected):
    env, algo = game(name), players(*pair)
    run = jax.jit(
        lambda key: play(
            env, algo, ((), ()), key, num_episodes=NUM_EPISODES, max_steps=env.horizon, greedy=False
        )
    )
    reward = np.asarray(run(jax.random.key(0)).return_) / env.horizon
    error = reward.std(0) / np.sqrt(NUM_EPISODES)
    assert (np.abs(reward.mean(0) - expected) < 4 * error).all()


# configs


def test_players_hold_seats_by_name():
    setup = build(compose(["env=split", "algo=split_greedy", "seats=[split_greedy,split_cooperative]"]))
    assert [m.strategy for m in setup.algo.members] == ["greedy", "cooperative"]
    assert player("negotiation_cooperative", [0]).strategy == "cooperative"
    assert player("negotiation_greedy", [0]).strategy == "greedy"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env=prisoners_dilemma"], "needs env=negotiation or env=split, not MatrixGame"),
        (["env=split", "algo.strategy=kind"], r"algo\.strategy=kind: must be one of cooperative, greedy"),
    ],
)
def test_games_that_it_cannot_read_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        build(compose(["algo=split_greedy", *overrides]))
