"""Travelling Salesperson: hand-walked trials, the paper's instance, mean scores of known ways to travel."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.travelling_salesperson import DIAGONAL, TravellingSalesperson
from marl.build import build_env
from marl.config import compose
from tests.probes import jit_reset, jit_step

OWN = [(0.609, 0.898), (0.113, 0.742), (0.674, 0.081), (0.553, 0.771), (0.458, 0.839), (0.243, 0.219)]


def game(*overrides, name="travelling_salesperson") -> TravellingSalesperson:
    env = build_env(compose([f"env={name}", *(f"env.{o}" for o in overrides)]))
    env.check()
    return env


def walk(env, orders):
    """[B] scores of one trial each of `orders` [B, n - 1] in the first episodes of `env`, and whether it ended."""
    orders = jnp.asarray(orders, jnp.int32)

    def one(key, order):
        state, _ = jit_reset(env, key)

        def step(state, action):
            state, ts = jit_step(env, key, state, action[None])
            return state, (ts.events["score"][0], ts.events["trials"][0])

        score, ended = jax.lax.scan(step, state, order)[1]
        return score.sum(), ended

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), len(orders)), orders)


def test_trials_walked_by_hand():
    env = game("num_cities=3", "num_trials=2", "demonstrators=0", "instance=[[0,0],[1,0],[1,1]]")
    state, ts = jit_reset(env, jax.random.key(0))
    assert ts.obs["vector"][0].tolist() == [0] * 6
    side = 1 - 1 / DIAGONAL
    script = [  # action -> reward, ended, done
        (1, side, 0, False),
        (1, -1, 1, False),  # a revisit
        (0, -1, 1, True),  # the start is visited
    ]
    for action, reward, ended, done in script:
        state, ts = jit_step(env, jax.random.key(0), state, jnp.array([action]))
        assert float(ts.reward[0]) == pytest.approx(reward, abs=1e-6)
        assert (float(ts.events["trials"][0]), bool(ts.done)) == (ended, done)
        assert ts.obs["vector"][0, :4].tolist() == [*np.eye(3)[action], ended]
    score, ended = walk(env, [[1, 2], [2, 1]])
    np.testing.assert_allclose(score, [2 * side, side], atol=1e-6)  # along the diagonal 0 and a side
    assert ended.tolist() == [[0, 1], [0, 1]]


def test_the_best_paths_of_the_paper_s_instance():
    env = game(f"instance={[list(city) for city in OWN]}", "demonstrators=0")
    orders = list(itertools.permutations(range(1, 6)))
    score = np.sort(np.asarray(walk(env, orders)[0]))
    np.testing.assert_allclose([score[-1], score[-2], score.mean()], [3.865, 3.790, 3.09], atol=0.005)


def nearest_first(cities):
    """The order of who goes to the nearest city not yet visited."""
    at, left, order = 0, set(range(1, len(cities))), []
    while left:
        at = min(left, key=lambda city: np.linalg.norm(cities[city] - cities[at]))
        left.remove(at)
        order.append(at)
    return order


@pytest.mark.parametrize(
    ("name", "games", "expected"),
    [
        ("travelling_salesperson", 4000, (3.74, 3.16)),
        ("travelling_salesperson_in_weights", 1000, (19.95, 14.6)),
    ],
)
def test_scores_of_known_ways_to_travel(name, games, expected):
    env, rng = game("demonstrators=0", name=name), np.random.default_rng(0)
    keys = jax.random.split(jax.random.key(0), games)
    cities = np.asarray(jax.jit(jax.vmap(lambda key: env.reset(key)[0].instance))(keys))
    near = walk(env, [nearest_first(x) for x in cities])[0].mean()
    chance = walk(env, [1 + rng.permutation(env.num_cities - 1) for _ in range(games)])[0].mean()
    np.testing.assert_allclose([near, chance], expected, rtol=0.008)


def test_the_best_path_of_random_cities():
    env = game("demonstrators=0")
    keys = jax.random.split(jax.random.key(1), 1000)
    cities = np.asarray(jax.jit(jax.vmap(env.draw_instance))(keys))
    far = np.linalg.norm(cities[:, :, None] - cities[:, None], axis=-1)  # [games, 6, 6]
    orders = np.array([(0, *order) for order in itertools.permutations(range(1, 6))])
    worth = (1 - far[:, orders[:, :-1], orders[:, 1:]] / DIAGONAL).sum(-1)
    assert worth.max(1).mean() == pytest.approx(3.81, abs=0.02)


def test_cold_oracles_go_to_the_nearest_of_the_first_city_and_the_best_stands_first():
    env = game(f"instance={[list(city) for city in OWN]}", "oracle_temperature_range=0.0")
    state, ts = jit_reset(env, jax.random.key(0))
    shown = ts.obs["vector"][0, 8:26].reshape(3, 6).argmax(-1)
    assert shown.tolist() == [3, 3, 3]  # nearest of city 0, not yet visited
    assert ts.obs["vector"][0, -1] == 1
    state, ts = jit_step(env, jax.random.key(0), state, jnp.array([3]))
    far = np.linalg.norm(np.array(OWN) - OWN[0], axis=-1)
    assert env.oracles(jax.random.key(0), state).tolist() == [np.argsort(far)[2]] * 3
    skill = np.asarray(jax.jit(jax.vmap(game().draw_skill))(jax.random.split(jax.random.key(0), 500)))
    assert (np.diff(skill) >= 0).all()
    assert skill.max() <= 0.5
    assert skill.mean() == pytest.approx(0.25, abs=0.02)


def test_novices_choose_at_random():
    env = game().novices()
    state, _ = jit_reset(env, jax.random.key(0))
    draws = np.asarray(
        jax.jit(jax.vmap(lambda key: env.oracles(key, state)))(jax.random.split(jax.random.key(1), 2000))
    )
    share = np.bincount(draws.ravel(), minlength=6) / draws.size
    np.testing.assert_allclose(share, 1 / 6, atol=0.03)


def test_a_positive_reward_of_revisits_is_refused():
    with pytest.raises(ValueError, match=r"revisit_reward=1\.0: must be at most 0"):
        game("revisit_reward=1.0")
