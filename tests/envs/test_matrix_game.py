"""Payoffs of the presets, what each seat sees, and how a repeated game ends."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.matrix_game import MatrixGame
from envs.symmetric_game import SymmetricGame
from marl.build import build_env
from marl.config import compose
from tests.probes import jit_reset, jit_step

# name: payoffs of CC, CD, DC, DD to (row, column), and the rounds
PRESETS = {
    "matrix_game": ([(-1, -1), (-3, 0), (0, -3), (-2, -2)], 100),
    "prisoners_dilemma": ([(-1, -1), (-3, 0), (0, -3), (-2, -2)], 100),
    "prisoners_dilemma_axelrod": ([(3, 3), (0, 5), (5, 0), (1, 1)], 100),
    "prisoners_dilemma_lase": ([(1, 1), (-0.2, 1.2), (1.2, -0.2), (0, 0)], 100),
    "prisoners_dilemma_akata": ([(8, 8), (0, 10), (10, 0), (5, 5)], 10),
    "symmetric_game": ([(1, 1), (-0.2, 1.2), (1.2, -0.2), (0, 0)], 100),
    "stag_hunt": ([(2, 2), (-6, 1), (1, -6), (1, 1)], 10),
    "stag_hunt_mate": ([(4, 4), (1, 3), (3, 1), (2, 2)], 150),
    "chicken": ([(0, 0), (-1, 1), (1, -1), (-1000, -1000)], 150),
    "chicken_mfos": ([(0, 0), (-1, 1), (1, -1), (-100, -100)], 100),
    "battle_of_the_sexes": ([(10, 7), (0, 0), (0, 0), (7, 10)], 10),
    "matching_pennies": ([(1, -1), (-1, 1), (-1, 1), (1, -1)], 100),
    "coordination": ([(1, 1), (0, 0), (0, 0), (1, 1)], 150),
}
KEY = jax.random.key(0)
JOINT = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]])


def game(**changes):
    fields = {
        "payoff": np.array([[[3, 3], [0, 5]], [[5, 0], [1, 1]]], np.float32),
        "continuation_prob": 1.0,
        "horizon": 4,
        "ends_by_chance": False,
    }
    return MatrixGame(**(fields | changes))


def lengths(env, num_games, num_steps):
    """[num_games] rounds until the first end, and whether it was a termination."""

    def play(key):
        state, _ = jit_reset(env, key)

        def step(state, key):
            state, ts = jit_step(env, key, state, jnp.zeros(2, jnp.int32))
            return state, (ts.terminated, ts.truncated)

        return jax.lax.scan(step, state, jax.random.split(key, num_steps))[1]

    terminated, truncated = jax.jit(jax.vmap(play))(jax.random.split(KEY, num_games))
    assert not (terminated & truncated).any()
    first = np.argmax(terminated | truncated, axis=1)
    return first + 1, np.asarray(terminated)[np.arange(num_games), first]


@pytest.mark.parametrize("name", PRESETS)
def test_preset_pays_what_its_source_says(name):
    env = build_env(compose([f"env={name}"]))
    env.check()
    payoff, horizon = PRESETS[name]
    state, _ = jit_reset(env, KEY)
    _, ts = jax.jit(jax.vmap(env.step, (None, None, 0)))(KEY, state, JOINT)
    np.testing.assert_allclose(ts.reward, np.array(payoff, np.float32))
    assert env.horizon == horizon
    assert env.fixed_horizon == horizon


def test_each_seat_sees_its_own_action_first():
    env = game()
    state, ts = jit_reset(env, KEY)
    assert ts.obs["vector"].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]
    _, ts = jit_step(env, KEY, state, jnp.array([0, 1]))
    assert ts.obs["vector"].tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]
    assert ts.reward.tolist() == [0, 5]
    assert ts.events["cooperated"].tolist() == [1, 0]
    assert ts.events["defected"].tolist() == [0, 1]


def test_fixed_horizon_truncates_every_episode():
    env = game()
    assert env.fixed_horizon == 4
    rounds, terminated = lengths(env, 8, 6)
    assert rounds.tolist() == [4] * 8
    assert not terminated.any()


def test_chance_ends_after_ten_rounds_on_average_as_a_termination():
    env = game(continuation_prob=0.9, horizon=0, ends_by_chance=True)
    assert env.fixed_horizon is None
    assert not env.can_truncate
    rounds, terminated = lengths(env, 4096, 250)
    assert terminated.all()
    assert abs(rounds.mean() - 10.0) < 0.6  # 4 standard errors: 4 * 9.49 / 64
    assert abs((rounds == 1).mean() - 0.1) < 0.02


def test_chance_ends_at_the_latest_at_the_horizon_as_a_truncation():
    env = game(continuation_prob=0.9, horizon=5, ends_by_chance=True)
    assert env.fixed_horizon is None
    assert env.can_truncate
    rounds, terminated = lengths(env, 4096, 8)
    assert rounds.max() == 5
    assert terminated[rounds < 5].all()
    cut = (rounds == 5) & ~terminated
    assert abs(cut.mean() - 0.9**5) < 0.035  # 4 standard errors: 4 * 0.49 / 64


def test_risk_of_the_stag_hunt_is_a_leaf_that_can_be_mapped():
    env = SymmetricGame(
        reward=2.0,
        sucker=-6.0,
        temptation=1.0,
        punishment=1.0,
        continuation_prob=1.0,
        horizon=10,
        ends_by_chance=False,
    )

    def hunts_alone(risk):
        risky = env.replace(sucker=risk)
        return risky.step(KEY, jit_reset(risky, KEY)[0], jnp.array([0, 1]))[1].reward

    risks = jnp.array([-2.0, -6.0, 0.5])
    assert jax.vmap(hunts_alone)(risks).tolist() == [[-2, 1], [-6, 1], [0.5, 1]]
    assert {f.name for f in dataclasses.fields(env) if f.metadata.get("pytree_node", True)} == {
        "reward",
        "sucker",
        "temptation",
        "punishment",
        "continuation_prob",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"payoff": [[1, 2], [3, 4]]}, r"env.payoff must have shape \[2, 2, 2\], not \[2, 2\]"),
        ({"payoff": [[[1, 2], [3]], [[3, 4], [5, 6]]]}, "env.payoff .* rows of different lengths"),
        ({"horizon": 0}, "env.horizon=0"),
        ({"horizon": -1, "ends_by_chance": True}, "env.horizon=-1"),
        ({"continuation_prob": 1.5, "ends_by_chance": True}, "env.continuation_prob=1.5"),
        ({"horizon": 0, "ends_by_chance": True}, "env.continuation_prob=1: must be below 1"),
    ],
)
def test_bad_fields_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        game(**changes).check()
