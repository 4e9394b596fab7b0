"""Censuses: numbers by hand, and a small world that is counted while it plays."""

import numpy as np
import pytest

from marl.build import load
from marl.census import _by_age, _maps, _tables, settle
from marl.validation import ConfigError

WORLD = (
    "env=schelling_small",
    "env.horizon=61",
    "num_envs=1",
    "num_seeds=2",
    "total_steps=60",
    "seats=typed",
)
LEARN = ("algo=dqn", "network=mlp", "network.hidden=[8]", "algo.num_steps=1", "algo.num_updates=1")
RULES = {"every": 5, "per_block": 4, "blocks": [5], "young": 0.2, "old": 0.6, "num_shares": 4}


def facts():
    """One seed, one block of two censuses, three seats on 1 x 3 cells."""
    numbers = {
        "grid": [[1, 0, 2], [1, 2, 0]],
        "ages": [[1, -1, 70], [2, 71, -1]],
        "age": [[1, 70, -1], [2, 71, -1]],
        "action": [[0, 4, 4], [4, 4, 4]],
        "stayed": [[False, True, True], [True, True, True]],
        "same": [[1, 3, 0], [0, 4, 0]],
        "other": [[3, 1, 0], [0, 0, 0]],
    }
    found = {name: np.array(x)[None, None] for name, x in numbers.items()}
    return found | {name: found[name].reshape(1, 1, 2, 1, 3) for name in ("grid", "ages")}


def test_the_old_less_the_young():
    found = _by_age(facts(), young=20, old=60)
    assert found["old_window"].tolist() == [[(0.75 + 1) / 2 - 0.25]]  # who sees nobody does not count
    assert found["old_stays"].tolist() == [[1 - 0.5]]
    assert np.isnan(_by_age(facts(), young=20, old=80)["old_stays"]).all()


def test_maps_are_means_over_a_block():
    found = _maps(facts())
    assert found["kind"][0].tolist() == [[1, -0.5, -0.5]]
    assert found["age"][0].tolist() == [[1.5, 71, 70]]


def test_tables_by_age():
    shown = {name: x[:, -1] for name, x in facts().items()}
    found = _tables(shown, max_age=100.0, num_shares=4, num_actions=5)
    assert found["ages"][:2].tolist() == [5, 15]
    assert found["shares"][0].tolist() == [0, 1, 0, 0]
    assert found["shares"][7].tolist() == [0, 0, 0, 1]  # .75 and 1 are in the last of four bins
    assert found["actions"][0].tolist() == [0.5, 0, 0, 0, 0.5]
    assert (found["actions"].sum(1) == [1, 0, 0, 0, 0, 0, 0, 1, 0, 0]).all()


def test_a_world_is_counted_while_it_learns():
    summary = settle(setup=load(*WORLD, *LEARN), **RULES)
    assert [point["step"] for point in summary["sweep"]] == [20, 40, 60]
    found = {name: np.asarray(x["per_seed"]) for name, x in summary["metrics"].items()}
    assert {x.shape for x in found.values()} == {(3, 2)}
    assert (found["alive"] > 0.7).all()
    assert ((found["same_fraction"] > 0.3) & (found["same_fraction"] < 1)).all()
    assert np.shape(summary["maps"]["kind"]) == (3, 25, 25)
    with pytest.raises(ConfigError, match="every=5: must be a multiple"):
        settle(setup=load(*WORLD, *LEARN, "algo.num_steps=2"), **RULES)
    with pytest.raises(ConfigError, match=r"env\.horizon=60: must exceed"):
        settle(setup=load(*WORLD, *LEARN, "env.horizon=60"), **RULES)


def test_a_game_without_a_census_is_refused():
    with pytest.raises(ConfigError, match="MatrixGame has no census"):
        settle(setup=load("env=prisoners_dilemma", "algo=dqn"), **RULES)
