"""Schelling diagrams: exact payoffs of matrix games, and who takes which part."""

import jax
import numpy as np
import pytest

from marl.build import load, player
from marl.evaluate import play
from marl.schelling import Split, diagram
from marl.validation import ConfigError


def found(env, *more, cooperator="always_cooperate", defector="always_defect", num_episodes=4):
    setup = load(f"env={env}", *more)
    return diagram(
        setup=setup, cooperator=cooperator, defector=defector, num_episodes=num_episodes, max_steps=50
    )


@pytest.mark.parametrize(
    ("env", "cooperator", "defector"),
    [
        ("prisoners_dilemma", [-3, -1], [-2, 0]),
        ("stag_hunt", [-6, 2], [1, 1]),
        ("chicken_mfos", [-1, 0], [-100, 1]),
        ("public_goods", [8, 16, 24, 32], [20, 28, 36, 44]),
    ],
)
def test_a_diagram_of_constant_players_is_the_payoff_table(env, cooperator, defector):
    summary = found(env, "num_seeds=2", "env.horizon=4")
    metrics = {name: np.asarray(x["per_seed"]) for name, x in summary["metrics"].items()}
    both = np.ones((1, 2))  # seeds
    np.testing.assert_allclose(metrics["cooperator"], np.array(cooperator)[:, None] * both, rtol=1e-6)
    np.testing.assert_allclose(metrics["defector"], np.array(defector)[:, None] * both, rtol=1e-6)
    expected = {
        "fear": defector[0] - cooperator[0],
        "greed": defector[-1] - cooperator[-1],
        "over_defection": cooperator[-1] - defector[0],
        "over_exploitation": cooperator[-1] - cooperator[0],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-6)
        np.testing.assert_allclose(summary["metrics"][name]["low"], value, rtol=1e-6)
    assert [point["others"] for point in summary["sweep"]] == list(range(len(cooperator)))


def test_players_with_a_memory_keep_their_own():
    # against itself tit-for-tat cooperates; a defector takes 0 once and -2 ever after
    summary = found("prisoners_dilemma", "num_seeds=1", "env.horizon=10", cooperator="tit_for_tat")
    np.testing.assert_allclose(summary["metrics"]["cooperator"]["mean"], [-2.1, -1.0], rtol=1e-6)
    np.testing.assert_allclose(summary["metrics"]["defector"]["mean"], [-2.0, -1.8], rtol=1e-6)


def test_the_parts_turn_through_the_seats():
    env = load("env=public_goods", "env.num_players=3").env
    players = [player(name, [0, 1, 2]) for name in ("always_cooperate", "always_defect")]
    algo = Split(*players, num_first=np.int32(1))
    seen = play(env, algo, ((), ()), jax.random.key(0), num_episodes=3, max_steps=10, greedy=False)
    np.testing.assert_array_equal(seen.events["cooperated"], 10 * np.eye(3))
    np.testing.assert_array_equal(algo.follows_first(3, 3), np.eye(3, dtype=bool))


def test_seeds_draw_apart_and_repeat():
    more = ["num_seeds=3", "env.horizon=4"]
    first = found("prisoners_dilemma", *more, cooperator="random", num_episodes=64)
    again = found("prisoners_dilemma", *more, cooperator="random", num_episodes=64)
    rewards = first["metrics"]["cooperator"]["per_seed"]
    assert rewards == again["metrics"]["cooperator"]["per_seed"]
    assert len(set(rewards[1])) == 3


def test_a_player_of_another_game_is_named():
    with pytest.raises(ConfigError, match="scripted player coin_greedy plays only the Coin Game"):
        found("prisoners_dilemma", defector="coin_greedy")
