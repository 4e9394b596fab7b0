"""Helpers of games and mechanisms, and what every Mechanism inherits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from marl.environment import (
    Mechanism,
    clip_to_space,
    event_names,
    extend_vector,
    legal_or_first,
    mask_size,
    num_discrete,
    own_first,
)
from tests.toys import commons, dilemma

KEY = jax.random.key(0)


class Plain(Mechanism):
    """A mechanism that changes nothing."""


class Other(Mechanism):
    """Another one."""


def test_a_mechanism_forwards_what_it_does_not_change():
    game = commons(horizon=5)
    env = Plain(env=game)
    for name in ("num_agents", "action_space", "grid_codes", "fixed_horizon", "can_truncate"):
        assert getattr(env, name) == getattr(game, name), name
    state, ts = env.reset(KEY)
    assert ts.reward.tolist() == [0, 0, 0]
    assert env.step(KEY, state, jnp.array([1, 0, 2]))[1].events["took"].tolist() == [1, 0, 0]


def test_a_mechanism_draws_apart_from_others_and_from_the_game():
    data = lambda key: tuple(np.asarray(jax.random.key_data(key)).tolist())
    own = {data(Plain(env=dilemma()).own_key(KEY)), data(Other(env=dilemma()).own_key(KEY))}
    games = {data(k) for k in jax.random.split(KEY, 100)} | {
        data(jax.random.fold_in(KEY, i)) for i in range(100)
    }
    assert len(own) == 2
    assert not own & (games | {data(KEY)})
    assert data(Plain(env=commons()).own_key(KEY)) in own


def test_legal_or_first_replaces_only_illegal_actions():
    mask = jnp.array([[True, True, False], [False, True, True], [False, False, True]])
    assert legal_or_first(mask, jnp.array([1, 2, 0])).tolist() == [1, 2, 2]
    assert legal_or_first(mask, 0).tolist() == [0, 1, 2]
    assert legal_or_first(mask, 0).dtype == jnp.int32


def test_own_first_rotates_so_that_each_seat_leads_its_row():
    assert own_first(jnp.array([5, 6, 7])).tolist() == [[5, 6, 7], [6, 7, 5], [7, 5, 6]]


def test_extend_vector_appends_or_makes_the_vector():
    features = jnp.array([[1], [2], [3]])
    for blind, expected in ((False, [[0, 1], [0, 2], [0, 3]]), (True, [[1], [2], [3]])):
        ts = extend_vector(commons(blind=blind).reset(KEY)[1], features)
        assert ts.obs["vector"].tolist() == expected
        assert ts.obs["vector"].dtype == jnp.float32
        assert "grid" in ts.obs


def test_event_names_are_sorted():
    assert event_names(commons()) == ["left", "took"]


@pytest.mark.parametrize(
    ("space", "size"),
    [(spaces.Discrete(4), 4), (spaces.MultiDiscrete([3, 2]), 5), (spaces.Box(0.0, 1.0, (2, 3)), 6)],
)
def test_mask_size_counts_actions_or_components(space, size):
    assert mask_size(space) == size


def test_other_spaces_have_no_mask():
    with pytest.raises(ValueError, match="none of Discrete, MultiDiscrete, Box"):
        mask_size(spaces.MultiBinary(3))


def test_num_discrete_names_the_mechanism_that_needs_it():
    assert num_discrete(dilemma(), "gifting") == 2
    continuous = dilemma()
    object.__setattr__(continuous, "action_space", spaces.Box(0.0, 1.0, (1,)))
    with pytest.raises(ValueError, match="mechanism gifting needs Discrete actions, not Box"):
        num_discrete(continuous, "gifting")


def test_actions_are_clipped_only_to_boxes():
    assert clip_to_space(spaces.Box(0.0, 1.0, (1,)), jnp.array([[-1.0], [2.0]])).tolist() == [[0], [1]]
    assert clip_to_space(spaces.Discrete(2), jnp.array([5])).tolist() == [5]


def test_a_view_of_some_seats_keeps_the_end_of_the_episode():
    ts = commons(horizon=1).reset(KEY)[1]
    view = ts.take((2, 0), 0)
    assert view.reward.shape == (2,)
    assert view.obs["grid"].shape == (2, 3, 1, 1)
    assert view.truncated.shape == ()
