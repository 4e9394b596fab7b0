import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marl.environment import TimeStep
from marl.metrics import (
    Tally,
    efficiency,
    equality,
    peace,
    report,
    shares,
    sustainability,
    welfare,
)


def test_efficiency_is_the_sum_over_seats_of_the_mean_reward():
    reward = jnp.array([[1.0, 0.0], [3.0, -2.0], [2.0, 8.0], [0.0, 0.0]])  # [T, A]
    assert efficiency(reward) == 1.5 + 1.5
    games = jnp.stack([reward, 2 * reward], axis=1)  # [T, E, A]
    assert efficiency(games).tolist() == [3.0, 6.0]


@pytest.mark.parametrize(
    ("return_", "expected"),
    [
        ([5.0, 5.0, 5.0], 1.0),
        ([0.0, 10.0], 0.5),  # 1 - 20 / (2 * 2 * 10)
        ([0.0, 0.0, 0.0, 8.0], 0.25),
        ([1.0, 2.0, 4.0], 1 - 12 / (2 * 3 * 7)),
        ([-1.0, -1.0], 1.0),  # the sum is not positive: equal or not
        ([0.0, 0.0], 1.0),
        ([-1.0, 1.0], 0.0),
        ([-3.0, 1.0], 0.0),
        ([-9.0, 10.0], 0.0),  # 1 - 38 / 4 is cut
        ([7.0], 1.0),
    ],
)
def test_equality_by_hand(return_, expected):
    np.testing.assert_allclose(equality(jnp.array(return_)), expected, rtol=1e-6)


def test_equality_equals_the_sum_over_pairs():
    return_ = np.random.default_rng(0).exponential(size=(6, 4, 7)).astype(np.float32)
    pairs = np.abs(return_[..., :, None] - return_[..., None, :]).sum((-1, -2))
    expected = 1 - pairs / (2 * 7 * return_.sum(-1))
    np.testing.assert_allclose(equality(return_), expected, atol=1e-6)


def test_equality_has_finite_gradients_where_nothing_was_earned():
    assert jnp.isfinite(jax.grad(lambda x: equality(x))(jnp.zeros(3))).all()


def test_sustainability_is_the_mean_time_of_earning():
    reward = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [5.0, 0.0, 2.0], [0.0, 0.0, 1.0]])
    # seat 0 earns at steps 0 and 2, seat 1 never, seat 2 at steps 2 and 3
    np.testing.assert_allclose(sustainability(reward), (1.0 + 0.0 + 2.5) / 3)
    games = jnp.stack([reward, jnp.roll(reward, 1, axis=0)], axis=1)  # the second a step later
    np.testing.assert_allclose(sustainability(games), [3.5 / 3, (2.0 + 0.0 + 1.5) / 3], rtol=1e-6)


def test_peace_counts_the_seats_in_play():
    removed = jnp.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert peace(removed) == (3 + 2 + 1 + 2) / 4
    assert peace(jnp.zeros((5, 2, 3))).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        (-np.inf, 1.0),
        (-10, 1.11601),
        (-1, 1.71429),
        (0, 2.0),
        (0.5, 2.16503),
        (1, 2.33333),
        (2, 2.64575),
        (10, 3.58418),
        (np.inf, 4.0),
    ],
)
def test_welfare_is_the_power_mean(power, expected):
    utility = jnp.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(welfare(utility, power), expected, rtol=1e-5)
    games = jnp.stack([utility, 3 * utility[::-1]])
    np.testing.assert_allclose(welfare(games, power), [expected, 3 * expected], rtol=1e-5)


def test_welfare_is_continuous_at_the_geometric_mean():
    utility = jnp.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(welfare(utility, 1e-3), welfare(utility, 0.0), rtol=1e-3)


@pytest.mark.parametrize("power", [-np.inf, -1, 0])
def test_welfare_is_nothing_if_one_has_nothing(power):
    assert welfare(jnp.array([0.0, 2.0]), power) == 0.0


def test_cooperation_rate_is_a_share_of_moves():
    events = {"cooperated": jnp.array([3.0, 0.0]), "defected": jnp.array([1.0, 4.0])}
    assert shares(events) == {"cooperation_rate": 3 / 8}
    assert shares(jax.tree.map(jnp.zeros_like, events)) == {"cooperation_rate": 0.0}


def test_shares_are_those_of_acts_that_are_told():
    events = {"punished": jnp.array([3.0, 0.0]), "spared": jnp.array([1.0, 4.0]), "chose": jnp.zeros(2)}
    assert shares(events) == {"punishment_rate": 3 / 8}
    assert shares(events | {"chose_cooperator": jnp.zeros(2)})["cooperator_choice_rate"] == 0.0


def step(reward, cooperated, done):
    """One step of two games of two seats, where a seat that does not cooperate defects."""
    cooperated = jnp.array(cooperated, jnp.float32)
    return TimeStep(
        obs={},
        reward=jnp.array(reward, jnp.float32),
        terminated=jnp.array(done),
        truncated=jnp.zeros(2, bool),
        action_mask=jnp.ones((2, 2, 2), bool),
        events={"cooperated": cooperated, "defected": 1 - cooperated},
    )


def add(tally, *steps):
    """Count steps [E, ...] together, as one stretch of a rollout."""
    events = jax.tree.map(lambda *x: sum(x), *(s.events for s in steps))
    return tally.add(len(steps), sum(s.reward for s in steps), events)


@pytest.fixture
def tally():
    """Two steps; the first game ends after the second step, the second game goes on."""
    first = step([[1, 2], [3, 4]], [[1, 1], [0, 1]], [False, False])
    second = step([[0, 1], [5, -4]], [[0, 1], [0, 0]], [True, False])
    sums = add(Tally.zero(first), first, second)
    return sums.finish(second.done, first.reward + second.reward, jnp.array([2, 2]))


def test_tally_sums_by_hand(tally):
    assert tally.steps == 4
    assert tally.reward.tolist() == [9.0, 3.0]
    assert tally.events["cooperated"].tolist() == [1.0, 3.0]
    assert tally.events["defected"].tolist() == [3.0, 1.0]
    assert (tally.episodes, tally.length) == (1, 2)
    assert tally.return_.tolist() == [1.0, 3.0]
    assert tally.equality == 1 - 4 / (2 * 2 * 4)


def test_stretches_add_up(tally):
    one = step([[1, 2], [3, 4]], [[1, 1], [0, 1]], [False, False])
    together, apart = add(tally, one, one), add(add(tally, one), one)
    jax.tree.map(np.testing.assert_array_equal, together, apart)


def test_report_by_hand(tally):
    nothing = Tally.zero(step([[0, 0]] * 2, [[0, 0]] * 2, [False] * 2))
    updates = jax.tree.map(lambda *x: jnp.stack(x), tally, tally, nothing.replace(steps=jnp.float32(2)))
    found = report(updates, {"entropy": jnp.array([0.5, 0.25, 0.0])})
    expected = {
        "reward": 24 / (2 * 10),
        "reward/seat_0": 1.8,
        "reward/seat_1": 0.6,
        "return": 2.0,
        "episode_length": 2.0,
        "equality": 0.75,
        "events/cooperated": 8 / (2 * 10),
        "events/defected": 8 / (2 * 10),
        "cooperation_rate": 0.5,
        "loss/entropy": 0.25,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_report_without_a_finished_episode_has_no_return():
    one = step([[1, 1], [1, 1]], [[1, 1], [1, 1]], [False, False])
    found = report(jax.tree.map(lambda x: x[None], add(Tally.zero(one), one)), {})
    assert np.isnan(found["return"])
    assert np.isnan(found["equality"])
    assert (found["reward"], found["cooperation_rate"]) == (1.0, 1.0)


def test_the_share_of_the_best_is_what_was_earned_of_what_could_be():
    events = {"points": jnp.array([30.0, 10.0]), "best_points": jnp.array([40.0, 40.0])}
    assert shares(events)["share_of_best"] == 0.5
    assert shares({k: jnp.zeros(2) for k in events})["share_of_best"] == 0.0
    updates = jax.tree.map(lambda x: x[None], Tally.zero(step([[1, 1]] * 2, [[0, 0]] * 2, [False] * 2)))
    one = updates.replace(steps=jnp.ones(1), events={k: v[None] for k, v in events.items()})
    assert report(one, {})["share_of_best"] == 0.5
