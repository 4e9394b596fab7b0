"""The buffer of past agents: what it holds, who plays whom, and who learns from what."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from marl.algorithm import Algorithm
from marl.build import build, load_run
from marl.config import compose
from marl.learner import start
from marl.past_policies import PastPlay, Ring
from marl.run import run
from marl.validation import ConfigError
from tests.probes import jit_rollout, jit_train, ppo
from tests.runs import BRIEF
from tests.toys import commons, dilemma

NUM_ENVS, HORIZON = 8, 4


class Marked(Algorithm):
    """Plays the number that its learner is; a learner counts its updates."""

    seats: tuple[int, ...] = struct.field(pytree_node=False)
    num_steps = 3

    def init(self, key, env, ts):
        return {"number": jnp.zeros(max(self.seats) + 1, jnp.int32), "rest": jnp.zeros(max(self.seats) + 1)}

    def for_acting(self, learner):
        return learner | {"rest": ()}

    def act(self, env, learner, carry, ts, key, greedy=False):
        action = learner["number"][np.array(self.seats)]
        return jnp.broadcast_to(action, ts.reward.shape), carry, ts.reward

    def update(self, env, learner, batch, key):
        return learner | {"number": learner["number"] + 1}, {"seats": jnp.float32(batch.reward.shape[2])}


def past_play(algo, fraction=0.0, size=4, push_every=2, games_per_snapshot=1):
    return PastPlay(
        algo=algo,
        size=size,
        push_every=push_every,
        current_fraction=fraction,
        games_per_snapshot=games_per_snapshot,
    )


def test_a_ring_holds_the_last_pushes_and_draws_only_what_is_filled():
    ring = Ring.of(jnp.int32(0), 3)
    draw = lambda ring: set(np.asarray(ring.take(ring.draw(jax.random.key(0), (100,)))).tolist())
    assert draw(ring) == {0}
    ring = ring.push(jnp.int32(1))
    assert draw(ring) == {0, 1}
    for number in (2, 3, 4):
        ring = ring.push(jnp.int32(number))
    ring = ring.push(jnp.int32(9), when=False)
    assert np.asarray(ring.snapshots).tolist() == [3, 4, 2]
    assert draw(ring) == {2, 3, 4}


def test_draws_are_uniform():
    ring = Ring.of(jnp.int32(0), 4)
    for number in (1, 2, 3):
        ring = ring.push(jnp.int32(number))
    counts = np.bincount(ring.draw(jax.random.key(0), (4000,)), minlength=4)
    # standard deviation 27
    assert (abs(counts - 1000) < 110).all()


@lru_cache
def marked_play(seats=(0, 0)):
    """A rollout after eight updates with snapshots after the second, fourth, sixth and eighth."""
    algo, env = past_play(Marked(seats=seats)), dilemma(HORIZON)
    runner = start(algo, env, jax.random.key(0), 64)
    runner, _ = jit_train(algo, env, runner, jax.random.key(1), jnp.arange(8))
    return algo, runner, jit_rollout(algo, env, runner, jax.random.key(2), 0, 8)[1]


def test_snapshots_are_what_was_learnt_every_push_every_updates():
    _, runner, _ = marked_play()
    # the first snapshot, 0, has been overwritten
    assert np.asarray(runner.learner.past.snapshots["number"])[:, 0].tolist() == [8, 2, 4, 6]
    assert int(runner.learner.num_updates) == 8
    assert runner.learner.past.snapshots["rest"] == ()


def test_the_current_learner_turns_through_the_seats_and_the_rest_are_snapshots():
    _, _, batch = marked_play()
    action = np.asarray(batch.action)  # [T, E, A]
    game = np.arange(64)
    assert (action[:, game, game % 2] == 8).all()
    assert set(np.unique(action[:, game, 1 - game % 2])) == {2, 4, 6, 8}


def test_the_opponent_of_a_game_stays_for_an_episode_and_then_is_drawn_anew():
    _, _, batch = marked_play()
    game = np.arange(64)
    opponent = np.asarray(batch.action)[:, game, 1 - game % 2]  # [8, E]
    first, second = opponent[:HORIZON], opponent[HORIZON:]
    assert (first == first[0]).all()
    assert (second == second[0]).all()
    assert len(set(second[0].tolist())) == 4
    assert 0 < (first[0] != second[0]).mean() < 1


def test_games_that_share_a_snapshot_meet_the_same_one_and_draw_together():
    algo, env = past_play(Marked(seats=(0, 1)), size=8, push_every=1, games_per_snapshot=4), dilemma(HORIZON)
    runner = start(algo, env, jax.random.key(0), 64)
    runner, _ = jit_train(algo, env, runner, jax.random.key(1), jnp.arange(8))
    batch, game = jit_rollout(algo, env, runner, jax.random.key(2), 0, 8)[1], np.arange(64)
    opponent = np.asarray(batch.action)[:, game, 1 - game % 2].reshape(2, HORIZON, 16, 4)
    assert (opponent == opponent[:, :1, :, :1]).all()
    assert len(np.unique(opponent[0])) > 4
    assert (opponent[0] != opponent[1]).any()
    assert (np.asarray(batch.action)[:, game, game % 2] == 8).all()


def test_games_without_a_common_end_cannot_share_a_snapshot():
    with pytest.raises(ValueError, match=r"past.games_per_snapshot=2: must be 1 unless all games end"):
        past_play(Marked(seats=(0, 0)), games_per_snapshot=2).check(commons(num_seats=2, horizon=0))


@pytest.mark.parametrize(
    ("seats", "fraction", "expected"),
    [
        ((0, 0), 0.0, [[(0, 0), (1, 1), (2, 0), (3, 1)]]),
        ((0, 1), 0.0, [[(0, 0), (2, 0)], [(1, 1), (3, 1)]]),
        ((0, 0), 0.5, [[(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 1)]]),
        ((1, 0), 0.5, [[(0, 1), (1, 1), (3, 1)], [(0, 0), (1, 0), (2, 0)]]),
    ],
)
def test_learning_seats_are_all_of_self_play_and_one_of_every_other_game(seats, fraction, expected):
    game, seat = past_play(Marked(seats=seats), fraction).rows(4)
    pairs = [list(zip(g.tolist(), s.tolist(), strict=True)) for g, s in zip(game, seat, strict=True)]
    assert pairs == expected


@lru_cache
def update(seats, fraction, core):
    """An algorithm, a runner, a batch of its play, and its compiled update."""
    algo = past_play(ppo(seats=seats, core=core, num_epochs=1), fraction, push_every=1)
    env = dilemma(HORIZON)
    runner = start(algo, env, jax.random.key(0), NUM_ENVS)
    runner, batch, _ = jit_rollout(algo, env, runner, jax.random.key(1), 0, 8)
    learn = jax.jit(lambda batch: algo.update(env, runner.learner, batch, jax.random.key(2))[0])
    return algo, runner, batch, learn


def same(x, y):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, x, y)))


@pytest.mark.parametrize(
    ("seats", "fraction", "core"),
    [((0, 0), 0.0, 0), ((0, 1), 0.5, 4), pytest.param((0, 1), 0.0, 4, marks=pytest.mark.slow)],
)
def test_an_update_ignores_what_snapshots_earned_and_did(seats, fraction, core):
    algo, _, batch, learn = update(seats, fraction, core)
    learns = np.zeros((NUM_ENVS, 2), bool)
    for game, seat in zip(*algo.rows(NUM_ENVS), strict=True):
        learns[game, seat] = True
    assert learns.sum() == NUM_ENVS * (1 + fraction)
    spoilt = lambda where: batch.replace(
        reward=batch.reward + 7.0 * where,
        action=jnp.where(where, 1 - batch.action, batch.action),
        obs=jax.tree.map(lambda x: x + where[..., None], batch.obs),
        extras=jax.tree.map(lambda x: x - where, batch.extras),
    )
    assert same(learn(batch), learn(spoilt(~learns)))
    one = np.zeros_like(learns)
    one[NUM_ENVS - 1, (NUM_ENVS - 1) % 2] = True
    assert not same(learn(batch).current, learn(spoilt(one)).current)


def test_each_independent_learner_learns_from_its_own_seat():
    _, _, batch, learn = update((0, 1), 0.5, 0)
    first = np.zeros((NUM_ENVS, 2), bool)
    first[:, 0] = True
    spoilt = learn(batch.replace(reward=batch.reward + 7.0 * first)).current
    changed = lambda p: (
        not same(*(jax.tree.map(lambda x: x[p], x.params) for x in (spoilt, learn(batch).current)))
    )
    assert changed(0)
    assert not changed(1)


def test_only_current_games_are_plain_training_bit_for_bit():
    plain, env, key = ppo(seats=(0, 1), num_epochs=1), dilemma(HORIZON), jax.random.key(3)
    found = []
    for algo in (plain, past_play(plain, 1.0)):
        runner = start(algo, env, key, NUM_ENVS)
        found.append(jit_train(algo, env, runner, key, jnp.arange(3)))
    (runner, seen), (past_runner, past_seen) = found
    assert same(runner.learner, past_runner.learner.current)
    assert same(seen, past_seen)


def test_three_seats_with_memory_and_ends_by_chance_keep_shapes_and_learn():
    env = commons(num_seats=3, horizon=0, end_prob=0.2)
    algo = past_play(ppo(seats=(0, 0, 0), core=4, num_minibatches=1, num_epochs=1), 0.5)
    runner = start(algo, env, jax.random.key(0), NUM_ENVS)
    after, (_, metrics) = jit_train(algo, env, runner, jax.random.key(1), jnp.arange(3))
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(after) == shapes(runner)
    assert algo.num_past(NUM_ENVS) == 3
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(metrics))
    assert not same(after.learner.current.params, runner.learner.current.params)


def test_learning_against_the_past_learns_to_defect():
    env, algo = dilemma(HORIZON), past_play(ppo(seats=(0, 0)), 0.25, size=8)
    runner = start(algo, env, jax.random.key(0), 32)
    runner, (tally, _) = jit_train(algo, env, runner, jax.random.key(1), jnp.arange(60))
    defected = np.asarray(tally.events["defected"].sum(-1) / (2 * tally.steps))
    assert defected[:5].mean() < 0.8
    assert defected[-5:].mean() > 0.95


def test_a_run_against_its_past_is_loaded_as_the_policy_that_it_learnt(tmp_path):
    run(compose([*BRIEF, "past=buffer", "past.size=3", "past.push_every=1"]), tmp_path / "run")
    setup, learners = load_run(tmp_path / "run")
    assert not isinstance(setup.algo, PastPlay)
    assert {x.shape[:2] for x in jax.tree.leaves(learners)} == {(2, 2)}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["past.size=0"], "past.size=0: must be at least 1"),
        (["past.push_every=0"], "past.push_every=0: must be at least 1"),
        (["past.current_fraction=1.5"], r"past.current_fraction=1.5: must lie in \[0, 1\]"),
        (
            ["past.current_fraction=0.9"],
            "past.current_fraction=0.9: leaves no game against the past of 4 games",
        ),
        (["algo=tit_for_tat"], "past: Scripted does not learn"),
        (["seats=[0,tit_for_tat]"], "past: needs at least two learning seats"),
        (["algo=lola"], "past: LOLA cannot learn from single seats; set past=null"),
        (["past.games_per_snapshot=0"], "past.games_per_snapshot=0: must be at least 1"),
        (["past.games_per_snapshot=3"], "past.games_per_snapshot=3: must be 1 or a multiple of 2"),
        (["network=gru", "num_envs=4"], "algo.num_minibatches=4: must divide num_envs = 2"),
    ],
)
def test_bad_settings_are_named(overrides, message):
    sizes = [] if overrides == ["algo=tit_for_tat"] else BRIEF
    with pytest.raises(ConfigError, match=message):
        build(compose([*sizes, "past=buffer", *overrides]))


def credited(credit, batch_of):
    """What the update of `batch_of` would be with a credit, and with spoilt rewards of the snapshots."""
    algo, runner, batch, _ = batch_of
    algo = algo.replace(algo=algo.algo.replace(credit=credit))
    learn = jax.jit(
        lambda batch: algo.update(env, runner.learner, batch, jax.random.key(2))[0].current.params
    )
    env, past = dilemma(HORIZON), np.arange(NUM_ENVS)
    spoilt = batch.reward.at[:, past, 1 - past % 2].add(np.arange(8.0)[:, None])
    return learn(batch), learn(batch.replace(reward=spoilt))


def test_a_credit_sees_the_snapshots_seats_and_the_neutral_one_changes_nothing():
    every = update((0, 0), 0.0, 0)
    own, own_spoilt = credited(lambda advantage, done, gamma: advantage, every)
    plain = every[3](every[2]).current.params
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), own, plain)
    assert same(own, own_spoilt)
    assert not same(*credited(lambda advantage, done, gamma: advantage[..., ::-1], every))


def test_a_credit_of_an_algorithm_that_cannot_tell_it_for_all_seats_is_refused():
    class Credited(Marked):
        credit: float = 1.0

    with pytest.raises(ValueError, match="past: Credited cannot tell the credit of seats that do not learn"):
        past_play(Credited(seats=(0, 0))).check(dilemma())


def test_hyper_parameters_can_be_swept_against_the_past():
    from marl.program import Program

    program = Program(build(compose([*BRIEF, "past=buffer", "+sweep.algo.gamma=[0.5,0.9]"])))
    np.testing.assert_allclose(program.algo.algo.gamma, [0.5, 0.9])
