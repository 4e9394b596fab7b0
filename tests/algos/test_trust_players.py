"""Scripted players of trust and split: single decisions, and the exact rewards of their pairings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.trust_players import TrustPlayer
from envs.trust_and_split import DEALS, PROPOSE
from marl.build import build, build_env, player
from marl.config import ConfigError, compose
from marl.evaluate import play
from marl.population import Mixture

SYMBOLS, WAIT = 3, 14
NUM_EPISODES = 512
PAIRS = [("cooperative", "cooperative"), ("greedy", "greedy"), ("greedy", "cooperative")]


@functools.cache
def game(num_symbols=SYMBOLS):
    return build_env(compose(["env=trust_and_split", f"env.num_symbols={num_symbols}"]))


def players(*strategies):
    return Mixture(members=tuple(TrustPlayer(strategy=s) for s in strategies), holder=(0, 1))


@functools.cache
@functools.partial(jax.jit, static_argnums=(0, 1))
def one_round(pair, num_symbols=SYMBOLS):
    """Actions [3, E, 2] and TimeSteps [3, E] of a round, for every deal and first speaker (E = 12)."""
    env, algo = game(num_symbols), players(*pair)
    state, ts = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 12))
    state = state.replace(hand=jnp.tile(DEALS, (2, 1)), speaker=jnp.repeat(jnp.arange(2), 6))
    ts = jax.jit(jax.vmap(lambda s: env._observe(s, jnp.zeros(2), {})))(state).replace(events=ts.events)
    carry, seen = algo.initial_carry(env, ts), []
    for _ in range(3):
        action, carry, _ = algo.act(env, ((), ()), carry, ts, jax.random.key(0))
        state, ts = jax.jit(jax.vmap(env.step))(jax.random.split(jax.random.key(1), 12), state, action)
        seen.append((action, ts))
    return jax.tree.map(lambda *x: jnp.stack(x), *seen)


@pytest.mark.parametrize("num_symbols", [3, 5])
@pytest.mark.parametrize(
    ("pair", "expected"), list(zip(PAIRS, [(50, 50), (27.5, 27.5), (52.5, 25)], strict=True))
)
def test_mean_over_all_deals_is_the_expected_number_of_points(pair, expected, num_symbols):
    ts = one_round(pair, num_symbols)[1]
    np.testing.assert_allclose(ts.events["points"].sum(0).mean(0), expected, rtol=1e-6)
    np.testing.assert_allclose(ts.reward.sum(0).mean(0), np.array(expected) / 100, rtol=1e-6)


@pytest.mark.parametrize(("pair", "expected"), list(zip(PAIRS, (1.0, 0.55, 0.775), strict=True)))
def test_efficiency_is_the_quotient_of_the_sums_of_points_and_best_points(pair, expected):
    events = one_round(pair)[1].events
    found = events["points"].sum() / events["best_points"].sum()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_keeping_five_blindly_earns_what_greed_earns():
    @jax.jit
    def points(hand):
        state = game().reset(jax.random.key(0))[0].replace(hand=hand, time=jnp.int32(PROPOSE))
        return game().step(jax.random.key(0), state, jnp.full(2, SYMBOLS + 5))[1].events["points"]

    np.testing.assert_allclose(np.mean([points(hand) for hand in DEALS], 0), [27.5, 27.5], rtol=1e-6)


def test_both_announce_their_hand_in_turn_and_wait_otherwise():
    action, ts = one_round(PAIRS[2])
    hand = np.tile(DEALS, (2, 1))
    for deal, speaker in enumerate(np.repeat([0, 1], 6)):
        for phase, who in ((0, speaker), (1, 1 - speaker)):
            assert action[phase, deal, who] == hand[deal, who]
            assert action[phase, deal, 1 - who] == WAIT
    assert (ts.events["announced_hand"].sum(0) == 1).all()


def test_the_cooperative_player_takes_all_if_it_beats_the_announced_hand_else_nothing():
    action, ts = one_round(PAIRS[0])
    wins = (np.tile(DEALS, (2, 1)) - np.tile(DEALS[:, ::-1], (2, 1))) % 3 == 1
    np.testing.assert_array_equal(action[PROPOSE], SYMBOLS + 10 * wins)
    assert ts.events["asked_when_lower"].sum() == 0
    assert (ts.events["asked_when_higher"].sum((0, 2)) == 10).all(), "the mean proposal of a round"


def test_whole_episodes_earn_the_same_within_chance():
    algo = players(*PAIRS[2])
    run = jax.jit(
        lambda key: play(game(), algo, ((), ()), key, num_episodes=NUM_EPISODES, max_steps=30, greedy=False)
    )
    points = 100 * np.asarray(run(jax.random.key(0)).return_) / game().num_rounds
    error = points.std(0) / np.sqrt(NUM_EPISODES)
    assert (np.abs(points.mean(0) - [52.5, 25]) < 4 * error).all()


def test_players_hold_seats_by_name_inside_mechanisms():
    seats = "seats=[trust_greedy,trust_cooperative]"
    setup = build(compose(["env=trust_and_split", "algo=trust_greedy", seats, "mechanism=[punishment]"]))
    assert [m.strategy for m in setup.algo.members] == ["greedy", "cooperative"]
    assert player("trust_cooperative", [0]).strategy == "cooperative"
    ts = jax.jit(jax.vmap(setup.env.reset))(jax.random.split(jax.random.key(0), 4))[1]
    action = setup.algo.act(setup.env, ((), ()), ((), ()), ts, jax.random.key(0))[0]
    assert jnp.take_along_axis(ts.action_mask, action[..., None], axis=-1).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env=split"], "scripted player trust_greedy needs env=trust_and_split, not Split"),
        (["env=trust_and_split", "env.num_symbols=2"], r"needs env\.num_symbols of at least 3, not 2"),
        (["env=trust_and_split", "algo.strategy=kind"], r"algo\.strategy=kind: must be one of cooper"),
    ],
)
def test_games_that_it_cannot_read_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        build(compose(["algo=trust_greedy", *overrides]))
