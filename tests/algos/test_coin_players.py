"""Scripted players of the Coin Game: single decisions, and the published rewards of their pairings."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.coin_players import CoinPlayer
from envs.coin_game import MOVES, State
from marl.build import build, build_env, player
from marl.config import ConfigError, compose
from marl.evaluate import play
from marl.population import Mixture

LEFT, RIGHT, UP, DOWN, STAY = range(5)
NOWHERE = 9
NUM_EPISODES = 8192


@functools.cache
def game(name="coin_game"):
    return build_env(compose([f"env={name}"]))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 6))
def _decide(strategy, seats, num, env, state, key, greedy):
    """Actions [num, A'] of `seats` in `num` copies of one position."""
    ts = env._look(state, *jnp.zeros((2, 2), bool))[1]
    ts = jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), ts).take(seats, axis=1)
    return CoinPlayer(strategy=strategy).act(env, (), (), ts, key, greedy)[0]


def decide(strategy, seats, coins, env=None, num=1000, key=0, who=(0, 1), greedy=False):
    """The set of actions of each seat in a position; `coins` are the cells of the red and the blue coin."""
    state = State(jnp.array(seats, jnp.int32), jnp.array(coins, jnp.int32), jnp.int32(0))
    action = _decide(strategy, who, num, env or game(), state, jax.random.key(key), greedy)
    assert action.dtype == jnp.int32
    return [set(np.asarray(action)[:, i].tolist()) for i in range(len(who))]


# single decisions; cells of a 3 x 3 board are numbered row by row


def test_greedy_takes_a_shortest_way_to_any_coin_around_the_edges():
    for coins in ([2, NOWHERE], [NOWHERE, 2]):
        assert decide("greedy", [0, 7], coins) == [{LEFT}, {RIGHT, DOWN}]


def test_cooperative_goes_to_its_own_coin_and_away_from_the_others():
    assert decide("cooperative", [0, 7], [2, NOWHERE]) == [{LEFT}, {LEFT, UP}]
    assert decide("cooperative", [0, 7], [NOWHERE, 2]) == [{UP, DOWN}, {RIGHT, DOWN}]


def test_equally_good_moves_are_drawn_evenly_and_greedy_play_takes_the_first():
    state = State(jnp.array([0, 0], jnp.int32), jnp.array([8, NOWHERE], jnp.int32), jnp.int32(0))
    action = np.asarray(_decide("greedy", (0, 1), 10_000, game(), state, jax.random.key(0), False))
    assert set(action.ravel().tolist()) == {LEFT, UP}
    assert abs((action == LEFT).mean() - 0.5) < 0.02
    assert abs((action[:, 0] == action[:, 1]).mean() - 0.5) < 0.03, "the seats draw apart"
    assert decide("greedy", [0, 0], [8, NOWHERE], greedy=True) == [{LEFT}, {LEFT}]


def test_walls_are_no_way_and_lead_nowhere():
    walled = game("coin_game_mate")
    assert decide("greedy", [0, 7], [2, NOWHERE], walled) == [{RIGHT}, {RIGHT, UP}]
    # the other's coin is one step right: bumping into either wall keeps the seat one step away
    assert decide("cooperative", [0, 8], [NOWHERE, 1], walled)[0] == {DOWN}
    assert decide("cooperative", [6, 8], [NOWHERE, 2], walled)[0] == {LEFT, DOWN}


@pytest.mark.parametrize("strategy", ["cooperative", "greedy"])
@pytest.mark.parametrize("wrap", [True, False])
def test_egocentric_view_leads_to_the_same_moves(strategy, wrap):
    swapped = game().replace(wrap=wrap, size=5)
    centred = swapped.replace(obs_mode="egocentric")
    for seats, coins in (([12, 6], [8, 25]), ([12, 12], [25, 22]), ([0, 16], [6, 25]), ([1, 23], [25, 11])):
        seen = decide(strategy, seats, coins, swapped)
        assert decide(strategy, seats, coins, centred) == seen


def test_without_a_coin_in_view_moves_are_random():
    assert decide("greedy", [0, 24], [24, 25], game("coin_game_lase"))[0] == {LEFT, RIGHT, UP, DOWN}


def test_two_coins_greedy_takes_the_nearest_and_cooperative_only_its_own():
    pax = game("coin_game_pax")
    assert decide("greedy", [0, 4], [8, 1], pax)[0] == {RIGHT}
    # the way right to the red coin on 4 leads over the blue coin on 1
    assert decide("cooperative", [0, 8], [4, 1], pax)[0] == {DOWN}
    assert decide("cooperative", [0, 8], [1, 1], pax)[0] == {RIGHT}, "both coins on one cell are taken"
    assert decide("cooperative", [0, 8], [0, 8], pax) == [{STAY}, {STAY}]


def test_one_seat_alone_decides_as_in_company():
    assert decide("cooperative", [0, 7], [NOWHERE, 2], who=(1,)) == [{RIGHT, DOWN}]


def test_an_illegal_move_becomes_the_lowest_numbered_legal_action():
    env = game()
    ts = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 50))[1]
    for legal, expected in (([5, 6], {5}), ([0, 1, 2, 3, 6], {0, 1, 2, 3})):
        mask = jnp.zeros((50, 2, 7), bool).at[..., np.array(legal)].set(True)
        narrowed = ts.replace(action_mask=mask)
        action = CoinPlayer(strategy="greedy").act(env, (), (), narrowed, jax.random.key(1))[0]
        assert set(np.asarray(action).ravel().tolist()) == expected


# pairings


def exact_reward(strategies, horizon):
    """[2] mean reward per step under LOQA's rules, from the chain of positions relative to the coin.

    A second implementation of game and players: a state is (red cell - coin, blue cell - coin,
    owner) on the torus, 162 in all.
    """
    cells = list(itertools.product(range(3), repeat=2))
    add = lambda a, b: ((a[0] + b[0]) % 3, (a[1] + b[1]) % 3)
    distance = lambda a: min(a[0], 3 - a[0]) + min(a[1], 3 - a[1])
    states = {s: i for i, s in enumerate(itertools.product(cells, cells, range(2)))}

    def policy(strategy, cell, mine):
        far = [distance(add(cell, move)) for move in MOVES[:4]]
        best = min(far) if strategy == "greedy" or mine else max(far)
        chosen = np.array([d == best for d in far], float)
        return chosen / chosen.sum()

    reward, chain = np.zeros((len(states), 2)), np.zeros((len(states),) * 2)
    start = np.zeros(len(states))
    for (red, blue, owner), i in states.items():
        at = [policy(strategies[k], cell, owner == k) for k, cell in enumerate((red, blue))]
        for (a, down), (b, right) in itertools.product(enumerate(MOVES[:4]), repeat=2):
            p, new = at[0][a] * at[1][b], [add(red, down), add(blue, right)]
            takes = np.array([cell == (0, 0) for cell in new], float)
            reward[i] += p * (takes - 2 * takes[1 - owner] * (np.arange(2) == owner))
            spots = [c for c in cells if c not in new] if takes.any() else [(0, 0)]
            for spot in spots:  # the coin is the origin of the next state
                moved = [add(cell, (-spot[0], -spot[1])) for cell in new]
                chain[i, states[(*moved, (owner + takes.any()) % 2)]] += p / len(spots)
        if (0, 0) not in (red, blue):  # seats on one cell leave 8 cells for the coin, else 7
            start[i] = 1 / (8 if red == blue else 7)
    start *= 9 / 162
    assert abs(start.sum() - 1) < 1e-9
    total = np.zeros(2)
    for _ in range(horizon):
        total, start = total + start @ reward, start @ chain
    return total / horizon


@functools.cache
def mean_reward(env_name, red, blue):
    """([2] mean reward per step, its standard error) over many episodes."""
    env = game(env_name)
    members = (CoinPlayer(strategy=red), CoinPlayer(strategy=blue))
    algo = Mixture(members=members, holder=(0, 1))
    run = jax.jit(
        lambda key: play(
            env, algo, ((), ()), key, num_episodes=NUM_EPISODES, max_steps=env.horizon, greedy=False
        )
    )
    episodes = run(jax.random.key(3))
    reward = np.asarray(episodes.return_) / env.horizon
    return reward.mean(0), reward.std(0) / np.sqrt(NUM_EPISODES)


PUBLISHED = {  # Advantage Alignment league (specification, 4.1), reward per step
    ("cooperative", "cooperative"): (0.347, 0.347),
    ("greedy", "greedy"): (0.0, 0.0),
    ("greedy", "cooperative"): (0.63, -0.27),
}


@pytest.mark.parametrize("pair", PUBLISHED, ids="-".join)
def test_pairings_earn_the_published_rewards(pair):
    found, _ = mean_reward("coin_game", *pair)
    assert np.abs(found - PUBLISHED[pair]).max() < 0.01


@pytest.mark.parametrize("pair", PUBLISHED, ids="-".join)
def test_pairings_earn_what_the_exact_chain_says(pair):
    found, error = mean_reward("coin_game", *pair)
    assert (np.abs(found - exact_reward(pair, 50)) < 4 * error + 1e-6).all()


@pytest.mark.parametrize("name", ["coin_game_lase", "coin_game_mate", "coin_game_pax"])
def test_two_greedy_players_earn_nothing_in_every_version(name):
    found, error = mean_reward(name, "greedy", "greedy")
    assert (np.abs(found) < 4 * error).all()


def test_lases_version_is_a_dilemma_of_greed_and_of_fear():
    both = mean_reward("coin_game_lase", "cooperative", "cooperative")[0][0]
    greedy, cooperative = mean_reward("coin_game_lase", "greedy", "cooperative")[0]
    neither = mean_reward("coin_game_lase", "greedy", "greedy")[0][0]
    assert both > neither + 0.05
    assert greedy > both + 0.05, "greed: it pays to take from a cooperator"
    assert neither > cooperative + 0.05, "fear: a cooperator loses to a taker"


@pytest.mark.parametrize("name", ["coin_game_mate", "coin_game_pax"])
def test_cooperative_players_steal_only_what_lies_on_their_own_coin(name):
    env, algo = game(name), CoinPlayer(strategy="cooperative")

    def step(now, key):
        act_key, step_key = jax.random.split(key)
        state, ts = now
        action = algo.act(env, (), (), ts, act_key)[0]
        state, ts = jax.vmap(env.step)(jax.random.split(step_key, 256), state, action)
        return (state, ts), ts.events

    start = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 256))
    events = jax.lax.scan(step, start, jax.random.split(jax.random.key(1), 100))[1]
    cooperated, defected = (np.asarray(events[name]) for name in ("cooperated", "defected"))
    assert cooperated.mean() > 0.1
    assert not (defected > cooperated).any()
    assert defected.any() == (env.num_coins == 2)


# configs


def test_players_hold_seats_by_name():
    setup = build(compose(["env=coin_game", "algo=coin_greedy", "seats=[coin_greedy,coin_cooperative]"]))
    assert [m.strategy for m in setup.algo.members] == ["greedy", "cooperative"]
    assert player("coin_cooperative", [0]).strategy == "cooperative"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env=coin_game_pola"], r"coin_greedy cannot tell its seat under env\.obs_mode=absolute"),
        (["env=prisoners_dilemma"], "coin_greedy plays only the Coin Game, not MatrixGame"),
        (["env=coin_game", "algo.strategy=kind"], r"algo\.strategy=kind: must be one of cooperative, greedy"),
    ],
)
def test_games_that_it_cannot_read_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        build(compose(["algo=coin_greedy", *overrides]))


def test_it_plays_inside_mechanisms():
    setup = build(compose(["env=coin_game", "algo=coin_greedy", "mechanism=[gifting]"]))
    ts = jax.jit(jax.vmap(setup.env.reset))(jax.random.split(jax.random.key(0), 3))[1]
    action = setup.algo.act(setup.env, (), (), ts, jax.random.key(0))[0]
    assert ((action >= 0) & (action < 4)).all()
