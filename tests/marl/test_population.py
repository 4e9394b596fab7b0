from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.matrix_game import MatrixGame
from marl.algorithm import Algorithm, Batch
from marl.environment import TimeStep
from marl.learner import start, train
from marl.population import Frozen, Mixture, num_learners, to_learners, to_seats
from tests.probes import ppo

SEATS = [(0, 0, 0, 0), (0, 1, 2, 3), (0, 0, 1, 1), (0, 1, 0, 1), (1, 0, 0, 1), (3, 1, 0, 2)]


class Echo(Algorithm):
    """Plays `offset` plus what it sees, remembers what it saw, learns the sum of its rewards."""

    offset: Any

    num_steps = 4

    def init(self, key, env, ts):
        return ts.obs["vector"].sum()

    def initial_carry(self, env, ts):
        return jnp.zeros_like(ts.reward)

    def act(self, env, learner, carry, ts, key, greedy=False):
        seen = ts.obs["vector"][..., 0]
        return self.offset + seen, carry + seen, {"seen": seen}

    def bootstrap(self, env, learner, carry, ts):
        return ts.obs["vector"][..., 0]

    def update(self, env, learner, batch, key):
        found = {f"{self.num_steps}": batch.reward.sum(), "held": jnp.float32(batch.reward.shape[-1])}
        return learner + batch.reward.sum(), found


class Slow(Echo):
    """An Echo that wants longer rollouts, and events."""

    num_steps = 7
    reads = ("cooperated",)


def seen_by_seats(num_envs=2, num_agents=4):
    """A TimeStep in which seat s of game e sees, and earns, 10 e + s."""
    number = 10.0 * jnp.arange(num_envs)[:, None] + jnp.arange(num_agents)
    return TimeStep(
        obs={"vector": number[..., None]},
        reward=number,
        terminated=jnp.zeros(num_envs, bool),
        truncated=jnp.zeros(num_envs, bool),
        action_mask=jnp.ones((num_envs, num_agents, 3), bool),
        events={"cooperated": number},
    )


@pytest.fixture
def mixture():
    """Seats 0 and 2 play Echo, seats 1 and 3 Slow."""
    return Mixture(members=(Echo(offset=100.0), Slow(offset=200.0)), holder=(0, 1, 0, 1))


@pytest.mark.parametrize("seats", SEATS)
@pytest.mark.parametrize(("shape", "axis"), [((3, 4), 0), ((5, 3, 4, 2), 1), ((2, 5, 3, 4, 2, 2), 2)])
def test_seats_and_learners_are_inverse(seats, shape, axis):
    x = jnp.arange(np.prod(shape)).reshape(shape)
    split = to_learners(x, seats, axis)
    P = max(seats) + 1
    assert split.shape == (P, *shape[:axis], 3 * 4 // P, *shape[axis + 2 :])
    assert (to_seats(split, seats, axis) == x).all()
    for learner in range(P):  # a learner holds the numbers of its seats and no others
        held = np.flatnonzero(np.array(seats) == learner)
        assert set(np.ravel(split[learner])) == set(np.ravel(np.take(np.asarray(x), held, axis + 1)))


def test_to_learners_by_hand():
    x = jnp.array([[0, 1, 2, 3], [10, 11, 12, 13]])  # [E, A]
    assert to_learners(x, (0, 0, 0, 0), 0).tolist() == [[0, 1, 2, 3, 10, 11, 12, 13]]
    assert to_learners(x, (0, 1, 2, 3), 0).tolist() == [[0, 10], [1, 11], [2, 12], [3, 13]]
    assert to_learners(x, (0, 0, 1, 1), 0).tolist() == [[0, 1, 10, 11], [2, 3, 12, 13]]
    assert to_learners(x, (0, 1, 0, 1), 0).tolist() == [[0, 2, 10, 12], [1, 3, 11, 13]]
    assert to_learners(x, (3, 1, 0, 2), 0).tolist() == [[2, 12], [1, 11], [3, 13], [0, 10]]
    time_first = jnp.stack([x, x + 100])  # [T, E, A]
    assert to_learners(time_first, (1, 0, 0, 1), 1).tolist() == [
        [[1, 2, 11, 12], [101, 102, 111, 112]],
        [[0, 3, 10, 13], [100, 103, 110, 113]],
    ]


@pytest.mark.parametrize("seats", [(0, 0, 1), (0, 2), (1, 1), (0, 1, 2, 0)])
def test_uneven_seats_are_refused(seats):
    with pytest.raises(ValueError, match="seats="):
        num_learners(seats)


def test_members_see_only_their_seats_and_their_actions_land_there(mixture):
    ts = seen_by_seats()
    learner = mixture.init(jax.random.key(0), None, ts)
    assert [float(x) for x in learner] == [0 + 2 + 10 + 12, 1 + 3 + 11 + 13]
    carry = mixture.initial_carry(None, ts)
    action, carry, extras = mixture.act(None, learner, carry, ts, jax.random.key(1))
    assert action.tolist() == [[100, 201, 102, 203], [110, 211, 112, 213]]
    assert carry[0].tolist() == extras[0]["seen"].tolist() == [[0, 2], [10, 12]]
    assert carry[1].tolist() == extras[1]["seen"].tolist() == [[1, 3], [11, 13]]
    bootstrap = mixture.bootstrap(None, learner, carry, ts)
    assert [b.tolist() for b in bootstrap] == [[[0, 2], [10, 12]], [[1, 3], [11, 13]]]


def test_members_learn_from_their_seats(mixture):
    ts = seen_by_seats()
    stack = lambda tree: jax.tree.map(lambda x: jnp.stack([x, x]), tree)  # two equal steps
    split = (jnp.zeros((2, 2)), jnp.ones((2, 2)))
    batch = Batch(
        obs=stack(ts.obs),
        action_mask=stack(ts.action_mask),
        action=stack(ts.reward),
        reward=stack(ts.reward),
        terminated=stack(ts.terminated),
        done=stack(ts.done),
        extras=stack(split),
        bootstrap=stack(split),
        carry=split,
        last=ts,
        last_carry=split,
        events=stack(ts.events),
    )
    for member, seats in enumerate([[0, 2], [1, 3]]):
        view = batch.of_member(member, np.array(seats))
        assert view.reward[0].tolist() == view.action[0].tolist() == ts.reward[:, np.array(seats)].tolist()
        assert view.events["cooperated"].tolist() == view.reward.tolist()
        assert view.obs["vector"].shape == (2, 2, 2, 1)
        assert view.action_mask.shape == (2, 2, 2, 3)
        assert view.last.reward.tolist() == view.reward[0].tolist()
        for held in (view.extras, view.bootstrap, view.carry, view.last_carry):
            assert (held == member).all()
    learner, metrics = mixture.update(None, (jnp.float32(0), jnp.float32(1000)), batch, jax.random.key(0))
    assert [float(x) for x in learner] == [2 * 24, 1000 + 2 * 28]
    assert (metrics["4"], metrics["7"], metrics["held"]) == (48, 56, 2)


def test_a_mixture_plays_as_long_as_its_slowest_member(mixture):
    assert mixture.num_steps == 7


def test_a_mixture_reads_what_a_member_reads(mixture):
    assert mixture.reads == ("cooperated",)


def test_a_learning_member_leaves_the_frozen_one_alone():
    env = MatrixGame(
        payoff=np.ones((2, 2, 2), np.float32), continuation_prob=1.0, horizon=4, ends_by_chance=False
    )
    payoff = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]]], np.float32)
    env = env.replace(payoff=payoff)
    member = ppo((0,))
    _, ts = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 8))
    past = member.init(jax.random.key(9), env, ts.take([1], axis=1))
    mixture = Mixture(members=(member, Frozen(algo=member, learner=past)), holder=(1, 0))
    before = start(mixture, env, jax.random.key(1), 8)
    after, _ = jax.jit(train)(mixture, env, before, jax.random.key(2), jnp.arange(3))
    same = lambda x, y: jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), x, y))
    assert all(same(after.learner[1], past))
    assert not any(same(after.learner[0].params, before.learner[0].params))


def test_frozen_acts_like_its_algorithm():
    env = MatrixGame(
        payoff=np.ones((2, 2, 2), np.float32), continuation_prob=1.0, horizon=4, ends_by_chance=False
    )
    _, ts = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 64))
    algo = ppo((0, 1))
    learner = algo.init(jax.random.key(1), env, ts)
    frozen = Frozen(algo=algo, learner=learner)
    assert frozen.init(jax.random.key(2), env, ts) is learner
    assert frozen.num_steps == algo.num_steps
    carry = frozen.initial_carry(env, ts)
    for greedy in (False, True):
        expected = algo.act(env, learner, carry, ts, jax.random.key(3), greedy)
        found = frozen.act(env, learner, carry, ts, jax.random.key(3), greedy)
        assert jax.tree.map(jnp.array_equal, found, expected) == jax.tree.map(lambda _: True, expected)
    assert frozen.update(env, learner, None, jax.random.key(4)) == (learner, {})
