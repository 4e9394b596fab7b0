import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.matrix_game import MatrixGame
from marl.algorithm import Algorithm
from marl.build import load
from marl.guard import SkipNonFinite
from marl.learner import start, train
from marl.past_policies import PastPlay
from marl.population import Frozen, Mixture
from tests.probes import ppo

STEPS, GAMES, UPDATES = 4, 3, 5
GAME_KINDS = {
    "longer than a rollout": (6, False),
    "no common divisor": (3, False),
    "one rollout": (4, False),
    "several a rollout": (2, False),
    "by chance": (6, True),
}
PRISONERS_DILEMMA = np.array([[[-1, -1], [-3, 0]], [[0, -3], [-2, -2]]], np.float32)


class Recorder(Algorithm):
    """Plays by chance, counts the steps of the episode in its carry, and reports all that it is given."""

    num_steps = STEPS
    reads = ("cooperated",)

    def init(self, key, env, ts):
        return jnp.float32(0)

    def initial_carry(self, env, ts):
        return jnp.zeros_like(ts.reward)

    def act(self, env, learner, carry, ts, key, greedy=False):
        action = jax.random.randint(key, ts.reward.shape, 0, 2)
        return action, carry + 1, carry

    def bootstrap(self, env, learner, carry, ts):
        return {"obs": ts.obs["vector"], "carry": carry, "learner": learner}

    def update(self, env, learner, batch, key):
        return learner + 1, {"batch": batch, "key": jax.random.key_data(key)}


def game(horizon, by_chance=False):
    """A number of rounds, or chance and at most so many."""
    return MatrixGame(
        payoff=PRISONERS_DILEMMA, continuation_prob=0.8, horizon=horizon, ends_by_chance=by_chance
    )


def learner_of(core):
    return ppo((0, 1), core, width=4, num_steps=STEPS, num_epochs=2, num_minibatches=3)


def first_runner(env):
    return start(Recorder(), env, jax.random.key(0), GAMES)


jit_train = jax.jit(train)


def over_time(x):
    """[U, T, ...] -> [U * T, ...]."""
    return np.asarray(x).reshape(-1, *x.shape[2:])


@pytest.fixture(scope="module", params=GAME_KINDS.values(), ids=GAME_KINDS.keys())
def played(request):
    """The game, the runner after, the Tally of each update, and each Batch field over all time."""
    env = game(*request.param)
    runner, (tally, metrics) = jit_train(
        Recorder(), env, first_runner(env), jax.random.key(1), jnp.arange(UPDATES)
    )
    batch = metrics["batch"]
    fields = ("obs", "action", "reward", "terminated", "done", "extras", "bootstrap", "events")
    trace = {name: jax.tree.map(over_time, getattr(batch, name)) for name in fields}
    return env, runner, tally, trace


def test_games_restart_where_they_are_done_and_only_there(played):
    env, runner, _, trace = played
    done, obs = trace["done"], trace["obs"]["vector"]
    steps = 1 + np.arange(UPDATES * STEPS)
    if not env.ends_by_chance:
        assert (done == (steps % env.horizon == 0)[:, None]).all()
        assert not trace["terminated"].any()
    else:
        assert done.any(0).all()
        assert trace["terminated"].any()
        assert (done & ~trace["terminated"]).any()  # some are cut, too
    fresh = (obs == 0).all((-1, -2))  # [time, E]; only the first round is seen as zeros
    assert fresh[0].all()
    assert (fresh[1:] == done[:-1]).all()
    assert ((np.asarray(runner.ts.obs["vector"]) == 0).all((-1, -2)) == done[-1]).all()


def test_events_that_an_algorithm_reads_are_those_of_each_step(played):
    _, _, tally, trace = played
    assert set(trace["events"]) == {"cooperated"}
    assert (trace["events"]["cooperated"] == (trace["action"] == 0)).all()  # also at the last step of a game
    assert set(tally.events) > {"cooperated"}


def test_the_carry_is_zero_after_a_restart_and_kept_otherwise(played):
    _, runner, _, trace = played
    count = np.zeros((GAMES, 2))
    for done, carry in zip(trace["done"], trace["extras"], strict=True):
        assert (carry == count).all()
        count = np.where(done[:, None], 0, count + 1)
    assert (runner.carry == count).all()


def test_what_is_remembered_at_an_end_is_the_state_reached(played):
    """There one sees the last actions; the restarted game would show zeros, and a carry of zero."""
    env, _, _, trace = played
    action, done, kept = trace["action"], trace["done"], trace["bootstrap"]
    own = np.eye(2)[action]  # [time, E, A, 2]
    reached = np.concatenate([own, own[:, :, ::-1]], axis=-1)
    assert (kept["obs"][done] == reached[done]).all()
    assert (kept["carry"][done] == trace["extras"][done] + 1).all()
    if not env.ends_by_chance:  # nothing is computed in between
        assert (kept["obs"][~done] == 0).all()


def test_the_bootstrap_sees_the_learner_of_its_update(played):
    env, _, _, trace = played
    update = np.repeat(np.arange(UPDATES), STEPS)
    expected = update if env.ends_by_chance else np.where(trace["done"][:, 0], update, 0)
    assert (trace["bootstrap"]["learner"] == expected).all()


def test_returns_and_lengths_of_episodes_equal_a_slow_loop(played):
    _, runner, tally, trace = played
    return_, length = np.zeros((GAMES, 2)), np.zeros(GAMES)
    sums = {"episodes": np.zeros(UPDATES), "length": np.zeros(UPDATES), "return_": np.zeros((UPDATES, 2))}
    for time, (reward, done) in enumerate(zip(trace["reward"], trace["done"], strict=True)):
        return_, length = return_ + reward, length + 1
        for e in np.flatnonzero(done):
            sums["episodes"][time // STEPS] += 1
            sums["length"][time // STEPS] += length[e]
            sums["return_"][time // STEPS] += return_[e]
            return_[e], length[e] = 0, 0
    for name, expected in sums.items():
        np.testing.assert_array_equal(getattr(tally, name), expected, err_msg=name)
    np.testing.assert_array_equal(runner.episode_return, return_)
    np.testing.assert_array_equal(runner.episode_length, length)


def test_the_tally_counts_every_step(played):
    _, _, tally, trace = played
    assert tally.steps.tolist() == [STEPS * GAMES] * UPDATES
    by_update = lambda x: x.reshape(UPDATES, STEPS * GAMES, 2).sum(1)
    np.testing.assert_array_equal(tally.reward, by_update(trace["reward"]))
    np.testing.assert_array_equal(tally.events["cooperated"], by_update(1 - trace["action"]))
    np.testing.assert_array_equal(tally.events["defected"], by_update(trace["action"]))


def test_rewards_are_those_of_the_actions(played):
    _, _, _, trace = played
    row, column = np.moveaxis(trace["action"], -1, 0)
    np.testing.assert_array_equal(trace["reward"], PRISONERS_DILEMMA[row, column])


def test_each_update_draws_its_own_number():
    env, key = game(6, by_chance=True), jax.random.key(1)
    runner = first_runner(env)
    of_updates = lambda *numbers: jit_train(Recorder(), env, runner, key, jnp.array(numbers))[1][1]
    many = of_updates(3, 8)
    for place, number in enumerate((3, 8)):
        expected = jax.random.split(jax.random.fold_in(key, number))[1]
        assert (many["key"][place] == jax.random.key_data(expected)).all()
    again, other = of_updates(3, 9), of_updates(8, 3)
    actions = lambda metrics: metrics["batch"].action
    assert (actions(many)[0] == actions(again)[0]).all()
    assert (actions(many)[1] != actions(again)[1]).any()
    assert (actions(many)[1] == actions(other)[0]).all()  # update 8, whenever it comes


def test_games_and_seats_draw_apart():
    """64 games of two seats and four steps: all 512 actions come from different draws."""
    env = game(6)
    runner = start(Recorder(), env, jax.random.key(0), 64)
    _, (_, metrics) = jit_train(Recorder(), env, runner, jax.random.key(1), jnp.arange(2))
    action = np.asarray(metrics["batch"].action, float).reshape(2 * STEPS, -1)
    correlation = np.corrcoef(action)[~np.eye(2 * STEPS, dtype=bool)]
    assert np.abs(correlation).max() < 5 / np.sqrt(128)
    between_seats = np.corrcoef(action.reshape(-1, 2).T)[0, 1]
    assert abs(between_seats) < 5 / np.sqrt(512)


@pytest.mark.parametrize("by_chance", [False, True])
def test_vmapped_seeds_equal_single_runs(by_chance):
    env = game(6, by_chance)
    runners, keys, updates = first_runner(env), jax.random.split(jax.random.key(1), 3), jnp.arange(UPDATES)
    one = lambda key: jit_train(Recorder(), env, runners, key, updates)
    together = jax.vmap(one)(keys)
    for seed, key in enumerate(keys):
        alone = one(key)
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[seed], y), together, alone)  # noqa: B023


@pytest.mark.parametrize("core", [pytest.param(0, marks=pytest.mark.slow), 4], ids=["feed-forward", "gru"])
def test_training_in_chunks_equals_training_at_once(core):
    """Bit for bit, with a horizon (6) that does not divide the steps of an update (4)."""
    algo, env, key = learner_of(core), game(6), jax.random.key(1)
    runner = start(algo, env, jax.random.key(0), GAMES)
    whole, what = jit_train(algo, env, runner, key, jnp.arange(4))
    middle, first = jit_train(algo, env, runner, key, jnp.arange(2))
    end, second = jit_train(algo, env, middle, key, jnp.arange(2, 4))
    jax.tree.map(np.testing.assert_array_equal, whole, end)
    both = jax.tree.map(lambda *x: jnp.concatenate(x), first, second)
    jax.tree.map(np.testing.assert_array_equal, what, both)
    changed = jax.tree.map(lambda x, y: bool((x != y).any()), middle.learner.params, end.learner.params)
    assert all(jax.tree.leaves(changed))


# Groups of games.


class Asking(Recorder):
    """Asks for a random number of each kind of item."""

    group_size = 3

    def act(self, env, learner, carry, ts, key, greedy=False):
        return jax.random.randint(key, (*ts.reward.shape, 3), 0, 11), carry + 1, carry


def test_games_of_a_group_meet_the_same_draws_while_actions_differ():
    """Split shows the values of a round: equal within a group, also after restarts."""
    env, algo = load("env=split", "env.horizon=6").env, Asking()
    runner = start(algo, env, jax.random.key(0), 6)
    _, (_, metrics) = jit_train(algo, env, runner, jax.random.key(1), jnp.arange(UPDATES))
    vector, action = (over_time(x) for x in (metrics["batch"].obs["vector"], metrics["batch"].action))
    value = vector[..., 3:6]  # [time, E, A, I]
    groups = value.reshape(-1, 2, 3, 2, 3)
    assert (groups == groups[:, :, :1]).all()
    assert (groups[:, 0] != groups[:, 1]).any((1, 2, 3)).mean() > 0.7  # 1 of 12 draws is equal by chance
    assert len(np.unique(action.reshape(-1, 6, 6), axis=1)[0]) == 6
    assert metrics["batch"].done.any()


def test_a_group_size_reaches_the_loop_through_what_is_around_the_learner():
    inside = Asking()
    past = PastPlay(
        algo=ppo((0, 1), group_size=4), size=2, push_every=1, current_fraction=0.0, games_per_snapshot=1
    )
    around = [Mixture((inside, Recorder()), (0, 1)), SkipNonFinite(inside), past]
    assert [algo.group_size for algo in around] == [3, 3, 4]
    assert Frozen(inside, ()).group_size == 1


def test_in_groups_the_seat_that_learns_beside_the_past_turns_from_group_to_group():
    algo = ppo((0, 0), group_size=2)
    rows = lambda fraction: PastPlay(
        algo, size=2, push_every=1, current_fraction=fraction, games_per_snapshot=1
    ).rows(8)
    pairs = [list(zip(*(x[0].tolist() for x in rows(fraction)), strict=True)) for fraction in (0.0, 0.5)]
    assert pairs[0] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 0), (5, 0), (6, 1), (7, 1)]
    assert pairs[1] == [(g, s) for g in range(4) for s in (0, 1)] + pairs[0][4:]
