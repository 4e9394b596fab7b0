"""Learners that begin from another run's."""

import jax
import numpy as np
import pytest

from marl.build import build, load_run
from marl.config import compose
from marl.program import Program
from marl.run import run
from marl.validation import ConfigError
from marl.warm_start import begin_from
from tests.runs import TINY

GAME = ["env=prisoners_dilemma", "algo=ppo", *TINY, "total_steps=64"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "run"
    assert run(compose(GAME), folder).exit_code == 0
    return folder


def fresh(*more):
    setup = build(compose([*GAME, *more]))
    return setup, Program(setup).start()


def test_parameters_are_taken_over_seed_by_seed_and_optimisers_stay_fresh(source):
    setup, runners = fresh("algo.learning_rate=0.01")
    begun = begin_from(str(source), setup, runners)
    known = load_run(source)[1]
    for old, new in zip(jax.tree.leaves(known.params), jax.tree.leaves(begun.learner.params), strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(
        jax.tree.leaves(runners.learner.opt_state), jax.tree.leaves(begun.learner.opt_state), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    assert begun.ts is runners.ts


def test_swept_values_all_begin_from_the_same_learners(source):
    setup, runners = fresh("+sweep.algo.gamma=[0.5,0.9]")
    begun = begin_from(str(source), setup, runners)
    for old, new in zip(
        jax.tree.leaves(load_run(source)[1].params), jax.tree.leaves(begun.learner.params), strict=True
    ):
        np.testing.assert_array_equal(np.stack([old, old]), new)


def test_a_learner_goes_on_beside_fixed_players(source, tmp_path):
    beside, other = ["seats=[0,tit_for_tat]", "algo.learning_rate=0.01"], tmp_path / "run"
    assert run(compose([*GAME, *beside]), other).exit_code == 0
    setup, runners = fresh("seats=[0,grim]")
    begun = begin_from(str(other), setup, runners).learner
    known = load_run(other)[1][0]
    for old, new in zip(jax.tree.leaves(known.params), jax.tree.leaves(begun[0].params), strict=True):
        np.testing.assert_array_equal(old, new)
    assert begun[1:] == runners.learner[1:]
    with pytest.raises(ConfigError, match=r"has shape \[2, 2, .* there, here \[2, 1, "):
        begin_from(str(source), setup, runners)


def test_a_run_begins_where_the_other_ended(source, tmp_path):
    still = ["algo.learning_rate=1e-30", f"start_from={source}"]
    assert run(compose([*GAME, *still]), tmp_path / "run").exit_code == 0
    for old, new in zip(
        jax.tree.leaves(load_run(source)[1].params),
        jax.tree.leaves(load_run(tmp_path / "run")[1].params),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["network.hidden=[9]"],
            r"start_from=.*kernel.* has shape \[2, 2, 8, 2\] there, here \[2, 2, 9, 2\]",
        ),
        (["network.hidden=[8,8]"], "its network has other parts"),
        (["algo=dqn"], "its learning rule is PPO"),
        (["past=buffer", "seats=shared"], "has no past"),
        (["seats=[tit_for_tat,grim]"], "there must be a learner"),
    ],
)
def test_learners_that_do_not_fit_are_refused(source, more, message):
    setup, runners = fresh(*more)
    with pytest.raises(ConfigError, match=message):
        begin_from(str(source), setup, runners)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"start_from=.*is not a run folder"):
        begin_from(str(tmp_path), *fresh())
