"""Frozen predecessors in the slots of a game, and generations of learners beside them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marl.algorithm import Algorithm
from marl.build import load
from marl.learner import start
from marl.lineages import _elders, _kept, in_weights
from marl.predecessors import Predecessors
from marl.stages import prepare
from marl.validation import ConfigError
from tests.probes import jit_rollout

SMALL = ["env=memory_sequence_in_weights", "env.length=4", "env.num_digits=3", "env.demonstrators=2"]
LEARNS = ["network=mlp", "network.hidden=[4]", "seats=[0]", "num_envs=2", "algo.num_steps=8", "num_seeds=2"]
LEARNS += [
    "algo.num_minibatches=1",
    "algo.num_epochs=1",
    "total_steps=32",
]  # of a GRU it compiles for minutes


class Counter(Algorithm):
    """Plays its learner, a digit, plus the steps of the episode so far; learns which obs it was given."""

    num_steps = 6

    def init(self, key, env, ts):
        return jnp.int32(0)

    def initial_carry(self, env, ts):
        return jnp.zeros(ts.reward.shape, jnp.int32)

    def act(self, env, learner, carry, ts, key, greedy=False):
        return (learner + carry) % 3, carry + 1, ts.obs["vector"][..., -1]

    def update(self, env, learner, batch, key):
        return learner + 1, {
            "obs": batch.obs,
            "extras": batch.extras,
            "last": batch.last.obs,
            "start": batch.start,
        }


@pytest.mark.parametrize("visible", [0.0, 1.0])
def test_what_predecessors_would_do_is_seen_and_learned_from(visible):
    env = load(*SMALL, f"env.visible_prob={visible}").env
    algo = Predecessors(algo=Counter(), flag=1.0)
    runner = start(algo, env, jax.random.key(0), 3)
    runner = runner.replace(learner=runner.learner.replace(past=jnp.array([1, 2])))
    runner, batch, _ = jit_rollout(algo, env, runner, jax.random.key(1), 0, 6)
    learner, seen = jax.jit(algo.update)(env, runner.learner, batch, jax.random.key(2))
    # they count from 1 and from 2, and anew where an episode of 4 steps begins
    time = np.array([0, 1, 2, 3, 0, 1])
    expected = np.concatenate([np.eye(3)[(time + 1) % 3], np.eye(3)[(time + 2) % 3], np.ones((6, 1))], -1)
    np.testing.assert_array_equal(seen["obs"]["vector"][:, 0, 0], visible * expected)
    assert (seen["extras"] == visible).all()
    after = np.concatenate([np.eye(3)[(2 + 1) % 3], np.eye(3)[(2 + 2) % 3], [1]])
    np.testing.assert_array_equal(seen["last"]["vector"][0, 0], visible * after)
    assert learner.current == 1
    assert learner.past.tolist() == [1, 2]


def test_only_named_layers_begin_anew():
    old, fresh = ({"torso": {"w": x}, "actor_1": {"w": x}, "actor": {"w": x}} for x in (1, 2))
    kept = _kept(old, fresh, ("actor_1", "actor"))
    assert [kept[name]["w"] for name in old] == [1, 2, 2]


def test_generations_are_told_as_a_swept_run():
    numbers = {"num_generations": 2, "num_members": 2, "num_fresh": 1, "renewed": ["actor"], "flag": 0.0}
    found = in_weights(setup=load(*SMALL, *LEARNS), seen="all", num_points=2, **numbers)
    assert [point["step"] for point in found["sweep"]] == [16, 32, 48, 64]
    values = np.array(found["metrics"]["return"]["per_seed"])
    assert values.shape == (4, 2)
    assert (np.abs(values) <= 4).all()
    score = np.array(found["metrics"]["score"]["per_seed"])
    np.testing.assert_allclose(2 * score - 4, values, atol=1e-5)  # as many right as wrong ones less


def test_generations_go_on_after_the_last_that_was_kept(tmp_path, capsys):
    setup, life = load(*SMALL, *LEARNS), {"num_members": 2, "num_fresh": 1, "renewed": [], "flag": 0.0}
    live = lambda num, folder: in_weights(
        setup=dataclasses.replace(setup, keep=folder), num_generations=num, seen="all", num_points=2, **life
    )
    live(2, folder := prepare(tmp_path / "kept", {"seed": 0}))
    assert "goes on" not in capsys.readouterr().out
    found = live(3, folder)["metrics"]
    assert "goes on after generation 2 of 3" in capsys.readouterr().out
    assert found == live(3, None)["metrics"]
    next((folder / "stages" / "3").rglob("*")).rename(tmp_path / "away")  # damaged: the one before counts
    with pytest.warns(UserWarning, match="passed over checkpoint 3"):
        assert live(3, prepare(folder, {"seed": 0}))["metrics"] == found
    assert not (prepare(folder, {"seed": 1}) / "stages").exists()
    (folder / "stages").touch()  # nothing can be written there
    with pytest.warns(UserWarning, match="stage 1 could not be kept"):
        assert live(1, folder)["metrics"]["return"]["mean"] == found["return"]["mean"][:2]


NUMBERS = {
    "num_generations": 2,
    "num_members": 2,
    "num_fresh": 1,
    "renewed": [],
    "flag": 0.0,
    "num_points": 1,
}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"seen": "some"}, "seen=some: must be one of all, best, founders, none"),
        ({"seen": "founders"}, "nobody else holds one"),
        ({"num_members": 3}, "num_members=3: must be env.demonstrators"),
        ({"num_generations": 0}, "num_generations=0: must be at least 1"),
    ],
)
def test_wrong_numbers_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        in_weights(setup=load(*SMALL, *LEARNS), **{**NUMBERS, "seen": "all", **override})


def test_games_without_slots_are_refused():
    setup = load("env=prisoners_dilemma")
    with pytest.raises(ConfigError, match="MatrixGame has no demonstrators"):
        in_weights(setup=setup, seen="all", **NUMBERS)


DONORS = [
    "env=donor_game",
    "env.num_players=4",
    "seats=[0,0,donor_strategy,donor_strategy]",
    *LEARNS[:2],
    *LEARNS[3:],
]


@pytest.mark.parametrize("seen", ["all", "founders"])
def test_newcomers_live_among_elders_who_hold_seats(seen):
    found = in_weights(setup=load(*DONORS), seen=seen, **NUMBERS)
    assert [point["step"] for point in found["sweep"]] == [32, 64]
    rate = np.array(found["metrics"]["cooperation_rate"]["per_seed"])
    assert rate.shape == (2, 2)
    assert ((rate > 0.1) & (rate < 0.9)).all()  # untrained learners choose any gift
    assert "score" not in found["metrics"]


def test_elders_fill_seats_in_turn():
    learners = jnp.arange(6.0).reshape(1, 3, 2)  # a seed, three members of two learners
    assert _elders(learners, None, 4, "all", True)[0].tolist() == [0, 1, 2, 3]
    assert _elders(learners, jnp.array([[0.0, 2.0, 1.0]]), 3, "best", True)[0].tolist() == [2, 3, 2]
    assert _elders(learners, None, 3, "all", False)[0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert _elders(learners, jnp.array([[0.0, 2.0, 1.0]]), 2, "best", False)[0].tolist() == [[2, 3]] * 2


def test_a_demonstrator_who_holds_a_seat_fades_from_view():
    overrides = [
        "env=goal_sequence_in_weights",
        "env.trial_steps=4",
        "seats=[0,random]",
        *LEARNS[:2],
        *LEARNS[3:],
    ]
    found = in_weights(setup=load(*overrides), seen="best", **NUMBERS)
    score = np.array(found["metrics"]["score"]["per_seed"])
    np.testing.assert_allclose(
        score, found["metrics"]["return"]["per_seed"], atol=1e-6
    )  # one trial an episode
