"""Leagues: exact cells of scripted players, every pair of seeds of runs, players that do not fit."""

import csv

import jax
import numpy as np
import pytest

from marl import league
from marl.build import load, load_run
from marl.config import compose
from marl.evaluate import play
from marl.population import Mixture
from marl.run import run
from marl.validation import ConfigError

HORIZON = 6
TINY = [f"env.horizon={HORIZON}", "num_envs=4", "total_steps=64", "log_every=1", "network.hidden=[8]"]
TINY += ["algo.num_steps=8", "algo.num_epochs=1", "algo.num_minibatches=2"]
SIZES = {"seed": 0, "num_episodes": 8, "max_steps": 10, "greedy": False}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("league")
    run(compose([*TINY, "num_seeds=3", "seed=5"]), folder / "independent")
    run(compose([*TINY, "num_seeds=2", "seats=shared"]), folder / "shared")
    return folder


def cells(env, *names):
    entrants = [league.entrant(name) for name in names]
    league.check_entrants(env, entrants)
    told = []
    found = league.play_league(env, entrants, on_cell=told.append, **SIZES)
    assert told == found
    return {(cell.row.name, cell.column.name): cell for cell in found}


def test_cells_of_scripted_players_are_those_of_the_payoff_table():
    env = load("env=prisoners_dilemma", "env.horizon=10").env
    found = cells(env, "always_cooperate", "always_defect", "tit_for_tat")
    expected = {
        ("always_cooperate", "always_cooperate"): (-1.0, -1.0),
        ("always_cooperate", "always_defect"): (-3.0, 0.0),
        ("always_defect", "always_cooperate"): (0.0, -3.0),
        ("tit_for_tat", "always_defect"): ((-3 - 9 * 2) / 10, -9 * 2 / 10),
        ("always_defect", "tit_for_tat"): (-9 * 2 / 10, (-3 - 9 * 2) / 10),
        ("tit_for_tat", "tit_for_tat"): (-1.0, -1.0),
    }
    for pair, (row, column) in expected.items():
        facts = found[pair].facts()
        np.testing.assert_allclose([facts["row_reward"], facts["column_reward"]], [row, column], rtol=1e-6)
        assert ("self_play" in facts) == (pair[0] == pair[1])
    assert len(found) == 9


def test_the_column_player_holds_all_other_seats():
    env = load("env=public_goods").env
    facts = cells(env, "always_cooperate", "always_defect")[("always_defect", "always_cooperate")].facts()
    # three of four give 20: 0.4 a head and unit, and the defector keeps its own
    np.testing.assert_allclose([facts["row_reward"], facts["column_reward"]], [20 + 24, 24], rtol=1e-6)


def test_a_cell_of_runs_has_every_pair_of_seeds(runs):
    names = [str(runs / "independent"), str(runs / "shared")]
    env = load_run(names[0])[0].env
    found = cells(env, *names)
    assert found[(names[0], names[1])].row_reward.shape == (3, 2)
    assert found[(names[1], names[0])].column_reward.shape == (2, 3)
    own = found[(names[0], names[0])]
    facts = own.facts()
    assert (facts["pairs"], facts["self_play"]["pairs"]) == (6, 3)
    np.testing.assert_allclose(facts["self_play"]["row_reward"], np.diag(own.row_reward).mean())
    off = own.row_reward[~np.eye(3, dtype=bool)]
    np.testing.assert_allclose([facts["row_reward"], facts["row_std"]], [off.mean(), off.std()])


def test_a_pair_is_the_row_seed_in_seat_0_and_the_column_seed_in_seat_1(runs):
    name = str(runs / "independent")
    setup, learners = load_run(name)
    one = league.entrant(name)
    cell = league.play_cell(setup.env, one, one, **SIZES)
    alone = setup.algo.replace(seats=(0,))
    seat = lambda seed, seat: jax.tree.map(lambda x: x[seed, seat : seat + 1], learners)
    players = Mixture(members=(alone, alone), holder=(0, 1))
    key = jax.random.split(jax.random.key(0), 9)[3 * 2 + 1]
    sizes = {k: v for k, v in SIZES.items() if k != "seed"}
    seen = play(setup.env, players, (seat(2, 0), seat(1, 1)), key, **sizes)
    np.testing.assert_allclose(cell.row_reward[2, 1], (seen.return_[:, 0] / HORIZON).mean(), rtol=1e-5)
    np.testing.assert_allclose(cell.column_reward[2, 1], (seen.return_[:, 1] / HORIZON).mean(), rtol=1e-5)


def test_one_seed_of_a_run_is_that_seed(runs):
    every, one = (league.entrant(f"{runs / 'independent'}{index}") for index in ("", ":2"))
    assert (every.seeds, one.seeds) == ((5, 6, 7), (7,))
    leaves = zip(jax.tree.leaves(one.learners), jax.tree.leaves(every.learners), strict=True)
    assert all((mine[0] == all_of_them[2]).all() for mine, all_of_them in leaves)


def test_players_of_the_same_kind_share_a_program(runs):
    env = load_run(runs / "shared")[0].env
    entrants = [league.entrant(f"{runs / 'shared'}:{index}") for index in (0, 1)]
    before = league._play_pairs._cache_size()
    league.play_league(env, entrants, on_cell=lambda cell: None, **SIZES)
    assert league._play_pairs._cache_size() == before + 1


def test_the_table_names_every_pair_of_seeds(runs, tmp_path):
    env = load_run(runs / "shared")[0].env
    found = cells(env, str(runs / "shared"), "tit_for_tat")
    league.write_csv(tmp_path / "league.csv", list(found.values()), 8)
    with (tmp_path / "league.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 + 2 + 2 + 1
    assert [row["row_seed"] for row in rows] == ["0", "0", "1", "1", "0", "1", "", "", ""]
    own = found[(str(runs / "shared"), str(runs / "shared"))]
    np.testing.assert_allclose(float(rows[1]["column_reward"]), own.column_reward[0, 1])


def test_players_that_do_not_fit_the_game_are_named_all_at_once(runs):
    env = load("env=coin_game").env
    names = [str(runs / "shared"), "coin_greedy", "tit_for_tat"]
    with pytest.raises(ConfigError) as caught:
        league.check_entrants(env, [league.entrant(name) for name in names])
    shared, tit_for_tat = caught.value.errors
    assert shared.startswith(f"players={names[0]}: learnt a game of obs vector [4], actions Discrete(2); ")
    assert "obs grid [3, 3, 4]" in shared
    assert tit_for_tat.startswith("players=tit_for_tat: scripted player tit_for_tat needs")


@pytest.mark.parametrize(("index", "message"), [(":9", "the run has seeds 0 to 1"), (":x", "seeds 0 to 1")])
def test_a_seed_that_is_not_there_is_named(runs, index, message):
    with pytest.raises(ConfigError, match=message):
        league.entrant(f"{runs / 'shared'}{index}")
