"""Generations: who survives, whose copies follow, and societies whose resources are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marl.build import load
from marl.generations import evolve, parents
from marl.validation import ConfigError

SMALL = ("env=donor_game", "env.num_players=4", "env.trace_length=0", "num_seeds=8")
RULES = {"num_generations": 6, "num_survivors": 2, "num_episodes": 1, "selection": "best"}
WATCHED = {"fitness": "final_resources", "outcomes": ["cooperation_rate"]}


@functools.cache
def lives(*overrides, **rules):
    setup = load(*SMALL, "algo=donor_strategy", *overrides)
    summary = evolve(setup=setup, **(RULES | WATCHED | rules))
    assert [point["generation"] for point in summary["sweep"]] == list(
        range(1, len(summary["metrics"]["growth"]["n"]) + 1)
    )
    return {name: np.asarray(found["per_seed"]) for name, found in summary["metrics"].items()}


def test_the_best_survive_and_have_the_newborns():
    score = jnp.array([3.0, 1.0, 2.0, 0.0, -1.0])
    draw = lambda key: parents(key, score, num_survivors=2, selection="best")
    rows = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 400)))
    assert (rows[:, :2] == [0, 2]).all()
    assert set(np.unique(rows[:, 2:])) == {0, 2}
    np.testing.assert_allclose((rows[:, 2:] == 0).mean(), 0.5, atol=0.05)


def test_random_survivors_are_all_alike_whatever_their_score():
    score = jnp.array([3.0, 1.0, 2.0, 0.0])
    draw = lambda key: parents(key, score, num_survivors=2, selection="random")
    rows = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 2000)))
    assert (rows[:, 0] != rows[:, 1]).all()
    assert ((rows[:, 2:, None] == rows[:, None, :2]).any(2)).all(), "newborns are children of survivors"
    np.testing.assert_allclose([(rows == seat).mean() for seat in range(4)], 0.25, atol=0.02)


def test_a_society_that_always_gives_half_keeps_the_resources_of_the_table():
    half = ("algo.first=[0.5,0.5]", "algo.base=[0.5,0.5]", "algo.mutation=0.0")
    found = lives(*half, "env.num_players=12", "env.num_games=2", num_survivors=6, num_generations=3)
    np.testing.assert_allclose(found["log10_fitness"], np.log10(1 + 341), rtol=1e-3)
    np.testing.assert_allclose(found["growth"], 0, atol=1e-5)
    np.testing.assert_allclose(found["cooperation_rate"], 0.5, rtol=1e-5)
    np.testing.assert_allclose(found["equality"], 1, atol=1e-5)
    np.testing.assert_allclose(found["lineages"][:2], [[1.0] * 8, [0.5] * 8])
    assert (np.diff(found["lineages"], axis=0) <= 0).all()


def test_selection_takes_the_givers_whom_nobody_sees_and_chance_leaves_them():
    strangers = ("algo.first=[0.0,1.0]", "algo.mutation=0.0", "num_seeds=100", "env.num_games=2")
    keeps, chance = (lives(*strangers, selection=one)["cooperation_rate"] for one in ("best", "random"))
    np.testing.assert_allclose(keeps[0], chance[0])
    assert keeps[0].mean() == pytest.approx(0.5, abs=0.05)
    assert keeps[-1].mean() == pytest.approx(0.2, abs=0.05), "the least of four uniform shares"
    assert chance[-1].mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"selection": "all"}, "figure.measure.selection=all: must be one of best, random"),
        ({"num_survivors": 4}, "figure.measure.num_survivors=4: must lie in 1 .. 3"),
        ({"num_episodes": 0}, "figure.measure.num_episodes=0: must be at least 1"),
        ({"fitness": "money"}, "figure.measure.fitness=money: must be an event, one of cooperated"),
        ({"outcomes": ["wealth"]}, "figure.measure.outcomes=wealth: must be one of return, reward"),
    ],
)
def test_bad_rules_are_named(rules, message):
    with pytest.raises(ConfigError) as caught:
        evolve(setup=load(*SMALL, "algo=donor_strategy"), **(RULES | WATCHED | rules))
    assert caught.value.errors[0].startswith(message)


def test_an_algorithm_that_cannot_be_varied_is_refused():
    with pytest.raises(ConfigError) as caught:
        evolve(setup=load(*SMALL, "algo=random"), **RULES, **WATCHED)
    assert caught.value.errors == ["algo: RandomPlayer cannot be varied"]
