import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marl.gifts import given, one_shot_probabilities, shares, td_errors


def test_shares_in_a_dilemma_are_those_of_the_paper():
    """Shares of the first player in [CC, CD, DC, DD]: 1 - P(the other cooperates) where it cooperates."""
    reward, sucker, temptation, theta = 1.0, -0.2, 1.2, 0.7
    value = jnp.array([[[reward, sucker]]] * 2 + [[[temptation, 0.0]]] * 2)  # by the other's action C, D
    action = jnp.array([[0], [1], [0], [1]])
    expected = jnp.broadcast_to(jnp.array([theta, 1 - theta]), value.shape)
    found = shares(value, expected, action)[:, 0]
    np.testing.assert_allclose(found, [1 - theta, 0, 1 - theta, 0], atol=1e-6)


def test_shares_among_three_are_at_most_halves_and_nothing_where_nothing_is_at_stake():
    value = jnp.array([[[0.0, 4.0, 1.0], [2.0, 2.0, 2.0]]])
    worst, alike = jnp.array([1.0, 0.0, 0.0]), jnp.full(3, 1 / 3)
    best = shares(value, jnp.stack([worst, alike])[None], jnp.array([[1, 0]]))
    np.testing.assert_allclose(best, [[1 / 2, 0]])
    other = shares(value, jnp.stack([alike, alike])[None], jnp.array([[1, 0]]))
    np.testing.assert_allclose(other, [[(4 - 5 / 3) / 4 / 2, 0]], rtol=1e-6)


def test_gifts_keep_the_sum_and_losses_may_stay_with_their_owner():
    reward = jnp.array([[[4.0, -2.0, 0.0]]])
    weights = jnp.array([[[[0.5, 0.5, 0.0], [0.0, 0.75, 0.25], [0.0, 0.0, 1.0]]]])
    np.testing.assert_allclose(given(reward, weights, gift_negative=True), [[[2, 0.5, -0.5]]])
    np.testing.assert_allclose(given(reward, weights, gift_negative=False), [[[2, 0, 0]]])
    raw = jax.random.uniform(jax.random.key(0), (5, 7, 4, 4))
    weights, reward = raw / raw.sum(-1, keepdims=True), jax.random.normal(jax.random.key(1), (5, 7, 4))
    for gift_negative in (True, False):
        total = given(reward, weights, gift_negative=gift_negative)
        np.testing.assert_allclose(total.sum(-1), reward.sum(-1), atol=1e-6)


def test_errors_stop_at_ends_and_do_not_count_where_the_next_action_is_unknown():
    value = jnp.array([[1.0], [2.0], [3.0], [4.0]])
    reward = jnp.array([[1.0], [0.0], [0.0], [5.0]])
    over, cut = jnp.array([[False], [True], [False], [False]]), jnp.array([[False], [True], [False], [False]])
    error, counts = td_errors(value, reward, over, cut, gamma=0.5)
    np.testing.assert_allclose(error[:, 0], [1 + 1 - 1, -2, 2 - 3, 0])
    np.testing.assert_array_equal(counts[:, 0], [1, 1, 1, 0])
    truncated = td_errors(value, reward, jnp.zeros_like(over), cut, gamma=0.5)[1]
    np.testing.assert_array_equal(truncated[:, 0], [1, 0, 1, 0])


@pytest.mark.parametrize(
    ("temptation", "sucker", "mean"),
    [
        (1.2, -0.2, 0.8333),  # prisoner's dilemma, the paper's example
        (1.5, -0.5, 0.667),
        (2.0, -1.0, 0.5),
        (0.5, -0.5, 1.0),  # stag hunt
        (0.9, -0.1, 1.0),
        (1.2, 0.2, 0.875),  # snowdrift
        (1.5, 0.5, 0.75),
        (2.0, 1.0, 0.5),
        (0.5, 0.5, 1.0),  # harmony
    ],
)
def test_where_learners_of_a_one_shot_game_end(temptation, sucker, mean):
    """Appendix A as simulated for the specification, from 200 random first probabilities."""
    start = jax.random.uniform(jax.random.key(0), (200, 2))
    sizes = {"num_steps": 4000, "learning_rate": 1e-3, "gamma": 0.99}
    found = one_shot_probabilities(start, temptation, sucker, **sizes)
    assert float(found.mean()) == pytest.approx(mean, abs=0.01)


def test_an_extreme_stag_hunt_has_two_ends():
    start = jax.random.uniform(jax.random.key(0), (1000, 2))
    sizes = {"num_steps": 4000, "learning_rate": 1e-3, "gamma": 0.99}
    found = one_shot_probabilities(start, 0.5, -1.0, **sizes)
    assert ((found < 0.01) | (found > 0.99)).all()
    share = float((found.mean(-1) > 0.5).mean())
    assert share == pytest.approx(0.5, abs=0.08)  # by symmetry, 5 standard deviations
    assert share == pytest.approx(0.44, abs=0.12)  # simulated for the specification: 3 of those of its 200
