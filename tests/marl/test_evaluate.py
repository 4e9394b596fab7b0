"""Evaluation and frozen policies: exact outcomes of known players, any seat, any seed."""

import shutil

import jax
import numpy as np
import pytest

from marl.build import frozen_player, load, load_run, player
from marl.config import compose
from marl.evaluate import evaluate_seeds, play
from marl.population import Mixture
from marl.run import run
from marl.validation import ConfigError
from tests.runs import BRIEF

TINY = ["env.horizon=6", *BRIEF]


def outcomes(env, first, second, num_episodes=3):
    players = Mixture(members=(player(first, [0]), player(second, [1])), holder=(0, 1))
    sizes = {"num_episodes": num_episodes, "max_steps": 10, "greedy": False}
    return play(env, players, ((), ()), jax.random.key(0), **sizes)


def test_episodes_of_scripted_players_have_the_outcomes_of_the_payoff_table():
    env = load("env=prisoners_dilemma", "env.horizon=10").env
    found = outcomes(env, "tit_for_tat", "always_defect")
    np.testing.assert_allclose(found.return_, [[-3 - 9 * 2, 0 - 9 * 2]] * 3)
    scalars = found.outcomes()
    assert float(scalars["episode_length"]) == 10
    np.testing.assert_allclose(scalars["cooperation_rate"], 1 / 20)
    np.testing.assert_allclose(scalars["reward/seat_0"], -2.1)
    np.testing.assert_allclose(scalars["efficiency"], -3.9)


def test_an_episode_ends_where_its_game_ends_and_later_steps_do_not_count():
    env = load(
        "env=prisoners_dilemma", "env.ends_by_chance=true", "env.continuation_prob=0.5", "env.horizon=0"
    ).env
    found = outcomes(env, "always_cooperate", "always_cooperate", num_episodes=400)
    np.testing.assert_allclose(found.return_[:, 0], -np.asarray(found.length))
    # mean 2, cut at 10: standard error 0.07
    assert abs(float(found.length.mean()) - 2.0) < 0.28


def test_sustainability_is_the_mean_time_of_earning():
    env = load("env=prisoners_dilemma_axelrod", "env.horizon=10").env
    found = outcomes(env, "always_cooperate", "always_defect").outcomes()
    # the cooperator earns nothing (counts 0), the defector 5 at every step 0..9
    np.testing.assert_allclose(found["sustainability"], (0 + 4.5) / 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(compose(TINY), folder)
    return folder


def test_every_seed_is_evaluated_and_greedy_play_of_a_fixed_policy_repeats(trained):
    setup, learners = load_run(trained)
    sizes = {"seed": 3, "num_episodes": 4, "max_steps": 6}
    found = evaluate_seeds(setup.env, setup.algo, learners, greedy=True, **sizes)
    assert found["return"].shape == (2,)
    again = evaluate_seeds(setup.env, setup.algo, learners, greedy=True, **sizes | {"seed": 4})
    np.testing.assert_array_equal(found["return"], again["return"])


def test_a_frozen_policy_plays_in_its_seat_with_the_parameters_of_its_seed(trained):
    _, learners = load_run(trained)
    frozen = frozen_player(f"{trained}:1", [1])
    assert frozen.algo.seats == (0,)
    assert frozen.learner.opt_state == ()
    trained_params = jax.tree.leaves(learners.params)
    for mine, all_of_them in zip(jax.tree.leaves(frozen.learner.params), trained_params, strict=True):
        np.testing.assert_array_equal(mine[0], all_of_them[1, 1])


def test_a_policy_that_alone_learned_plays_in_its_seat(tmp_path):
    run(compose([*TINY, "seats=[tit_for_tat,0]"]), tmp_path / "run")
    assert frozen_player(str(tmp_path / "run"), [1]).algo.seats == (0,)


def test_a_learner_plays_beside_a_frozen_policy_and_a_scripted_player(trained):
    for other in (str(trained), "tit_for_tat"):
        setup = load(*TINY, f"seats=[0,'{other}']")
        sizes = {"num_episodes": 2, "max_steps": 6, "greedy": False}
        learner = setup.algo.init(
            jax.random.key(0),
            setup.env,
            jax.jit(jax.vmap(setup.env.reset))(jax.random.split(jax.random.key(0), 2))[1],
        )
        found = play(setup.env, setup.algo, learner, jax.random.key(1), **sizes)
        assert found.return_.shape == (2, 2)
        # six rounds: together two players get -2 (both cooperate) to -4 (both defect) a round
        total = np.asarray(found.return_.sum(-1))
        assert ((total >= -24) & (total <= -12)).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [("{run}:7", "the run has seeds 0 to 1"), ("{run}", "cannot play seat 5")],
)
def test_a_policy_that_is_not_there_is_named(trained, name, message):
    with pytest.raises(ValueError, match=message):
        frozen_player(name.format(run=trained), [5] if "seat" in message else [0])


def test_a_run_folder_cannot_name_its_own_plugins(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    text = (folder / "config.yaml").read_text()
    text = text.replace("envs.matrix_game.MatrixGame", "os.system").replace("plugins: []", "plugins: [os]")
    (folder / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"_target_ os.system is outside envs, algos, marl;"):
        load_run(folder)


def test_outcomes_are_those_of_the_reward_before_it_was_shaped():
    env = load("env=prisoners_dilemma", "env.horizon=10", "mechanism=[common_reward]").env
    found = outcomes(env, "always_cooperate", "always_defect")
    np.testing.assert_allclose(found.return_, [[-30, 0]] * 3)
