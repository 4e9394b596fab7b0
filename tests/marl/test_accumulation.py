"""In-context accumulation with a player whose memory is perfect, so that what is passed on is exact."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.goal_sequence import GoalSequence
from marl.accumulation import _check, generations, in_context
from marl.algorithm import Algorithm
from marl.ancestors import Life, Replay
from marl.build import build_env
from marl.config import compose
from marl.generation_plots import generation_curves
from marl.statistics import of_points
from marl.validation import ConfigError

LENGTH, DIGITS = 6, 3


class Copier(Algorithm):
    """Plays what the last demonstrator shows, else what it knows, else a digit not tried; remembers its hits."""

    def initial_carry(self, env, ts):
        zeros = lambda *shape: jnp.zeros((*ts.reward.shape, *shape), jnp.int32)
        return {"place": zeros(), "known": zeros(LENGTH), "wrong": zeros(LENGTH)}

    def act(self, env, learner, carry, ts, key, greedy=False):
        vector = ts.obs["vector"]
        last, ended, reward = vector[..., :DIGITS].argmax(-1), vector[..., DIGITS], vector[..., DIGITS + 1]
        at = jax.nn.one_hot(carry["place"], LENGTH, dtype=jnp.int32)
        right, missed = (reward > 0)[..., None] * at, (reward < 0)[..., None] * at
        known = jnp.where(right > 0, last[..., None] + 1, carry["known"])
        wrong = carry["wrong"] + missed
        place = jnp.where(ended > 0, 0, carry["place"] + (reward > 0))
        pick = lambda x: jnp.take_along_axis(x, place[..., None], -1)[..., 0]
        own = jnp.where(pick(known) > 0, pick(known) - 1, pick(wrong) % DIGITS)
        shown = vector[..., -DIGITS - 1 : -1].argmax(-1)
        action = jnp.where(vector[..., -1] > 0, shown, own).astype(jnp.int32)
        return action, {"place": place, "known": known, "wrong": wrong}, ()


def lives(demonstrators, trials, num_generations, num_members):
    overrides = [f"length={LENGTH}", "instance=[2,2,1,2,2,1]", f"num_trials={trials}"]
    overrides += [f"demonstrators={demonstrators}"]
    env = build_env(compose(["env=memory_sequence", *(f"env.{o}" for o in overrides)]))
    sizes = {"num_generations": num_generations, "num_members": num_members, "greedy": False}
    run = jax.jit(lambda key: generations(env, Copier(), (), key, **sizes))
    return np.asarray(jax.vmap(run)(jax.random.split(jax.random.key(0), 40)))  # [C, G, K, N]


def test_a_single_lifetime_by_hand():
    # each wrong digit costs a trial: 2 has two before it, 1 has one
    score = lives(0, 12, 1, 1)[0, 0, :, 0]
    assert score.tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6, 6]


@pytest.fixture(scope="module")
def score():
    return lives(2, 4, 5, 3)


def test_the_first_trial_of_a_generation_is_the_last_of_the_best_predecessor(score):
    best = score[:, :-1, -1].max(-1)  # [C, G - 1]
    np.testing.assert_array_equal(score[:, 1:, 0], np.broadcast_to(best[..., None], score[:, 1:, 0].shape))


def test_knowledge_grows_over_generations_up_to_all_of_it(score):
    mean = score.mean((0, 3))  # [G, K]
    assert (np.diff(mean[:, -1]) >= 0).all()
    assert mean[-1, -1] > mean[0, -1] + 2


def test_the_first_generation_sees_who_acts_at_random(score):
    assert score[:, 0, 0].mean() == pytest.approx(sum(3.0**-i for i in range(1, 7)), abs=0.25)


def test_unknown_runs_are_refused():
    lives = {"absent": {"generations": 2, "trials": 4, "members": 3}}
    numbers = {"num_instances": 1, "instance": None, "seed": 0, "greedy": False}
    with pytest.raises(ConfigError, match="no run absent; there are known"):
        in_context(
            folders={"known": Path("runs")}, name="trials", lives=lives, predecessors="state_reset", **numbers
        )


def test_curves_of_generations_are_drawn(tmp_path):
    sweep = [{"trial": float(i)} for i in range(8)]
    found = {"metrics": {"score": of_points(np.arange(16.0).reshape(8, 2))}, "sweep": sweep}
    numbers = {"per_generation": 4.0, "limits": None, "lines": {"best": 9.0}}
    words = {"title": "title", "metric": "score", "x_label": "trial", "y_label": "score"}
    published = {"known": {"x": [0, 7], "y": [1.0, 12.0]}}
    path = tmp_path / "curves.png"
    shown = {"labels": {"known": "ours", "absent": None}, "published": published, "show_published": True}
    shown["levels"] = {"an oracle": {"run": "flat", "metric": "reward/seat_1", "times": 30}}
    flat = {"metrics": {"reward/seat_1": {"mean": 0.2}}}
    summaries = {"known": found, "other": found, "flat": flat}
    generation_curves(summaries=summaries, path=path, **words, **numbers, **shown)
    assert path.stat().st_size > 10_000


class Ahead(Algorithm):
    """Always walks ahead."""

    def act(self, env, learner, carry, ts, key, greedy=False):
        return jnp.full(ts.reward.shape, 2, jnp.int32), carry, ()


def test_predecessors_that_hold_a_seat_walk_in_the_learner_s_world():
    # the middle row from its second cell on: goal 0 is in the learner's way, goals 1 and 2 are not
    goals, order = [3 * 7 + 4, 0, 48], [1, 0, 0, 2]
    fields = ["num_targets=4", "trial_steps=8", "noise_prob=0", f"instance={goals + order}"]
    env = build_env(compose(["env=goal_sequence", *(f"env.{field}" for field in fields)])).lasting(3)
    assert env.num_told == 4
    run = jax.jit(
        lambda key: generations(env, Ahead(), (), key, num_generations=2, num_members=2, greedy=False)
    )
    assert run(jax.random.key(0)).tolist() == np.ones((2, 3, 2)).tolist()  # one hit in each trial


class Watched(GoalSequence):
    """Counts what the demonstrator hits as the learner's score."""

    def step(self, key, state, action):
        state, ts = super().step(key, state, action)
        return state, ts.replace(events=ts.events | {"score": ts.events["score"][::-1]})


def test_actions_of_the_best_trial_are_repeated_in_the_demonstrator_s_seat():
    goals, order = [3 * 7 + 4, 0, 48], [1, 0, 0, 2]
    fields = ["num_targets=4", "trial_steps=8", "noise_prob=0", f"instance={goals + order}"]
    plain = build_env(compose(["env=goal_sequence", *(f"env.{field}" for field in fields)])).lasting(3)
    env = Watched(**{field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)})
    sizes = {"num_generations": 2, "num_members": 2, "greedy": False, "predecessors": "replay_ratchet"}
    found = jax.jit(lambda key: generations(env, Ahead(), (), key, **sizes))(jax.random.key(0))
    assert found[0].mean() < 0.5  # at random
    assert found[1].tolist() == np.ones((3, 2)).tolist()


def test_a_replay_is_replaced_by_what_is_no_worse():
    score = jnp.array([[0.0, 1.0], [2.0, 1.0]])  # [K, N]
    actions = jnp.arange(12).reshape(2, 3, 2)  # [K, T, N]
    first = Replay.nobody(Game(3), None).succeeded(None, Life((), score, actions))
    assert (first.actions.tolist(), float(first.score)) == ([6, 8, 10], 2.0)
    worse = first.succeeded(None, Life((), score - 1, -actions))
    assert worse.actions.tolist() == [6, 8, 10]
    equal = first.succeeded(None, Life((), score, -actions))
    assert equal.actions.tolist() == [-6, -8, -10]
    now, began = jnp.array([0, 2]), jnp.array([False, True])
    shown, time = first.act(None, None, None, now, began, None)
    assert (shown.tolist(), time.tolist()) == ([[6], [6]], [1, 1])


class Game(NamedTuple):
    """What a replay asks of one."""

    max_trial_steps: int


@pytest.mark.parametrize(
    ("predecessors", "message"),
    [("best", "must be one of state_reset, replay_ratchet"), ("replay_ratchet", "must be state_reset")],
)
def test_predecessors_that_cannot_be_are_refused(predecessors, message):
    env = build_env(compose(["env=memory_sequence"]))
    with pytest.raises(ConfigError, match=message):
        _check(env, "trials", "known", {"members": 3}, predecessors)
