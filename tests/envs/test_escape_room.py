"""Escape Room: every rule by hand, at both published sizes."""

import jax
import jax.numpy as jnp
import pytest

from envs.escape_room import DOOR, LEVER, START, EscapeRoom
from marl.build import load
from marl.config import ConfigError
from tests.envs.grid_tools import KEY, preset
from tests.probes import jit_reset

step = jax.jit(EscapeRoom.step)


def play(env, *actions):
    """Rewards and TimeSteps of joint actions from the start."""
    state, _ = jit_reset(env, KEY)
    found = []
    for action in actions:
        state, ts = step(env, KEY, state, jnp.array(action, jnp.int32))
        found.append(ts)
    return [ts.reward.tolist() for ts in found], found


def test_one_pulls_and_the_other_leaves_at_once_for_nine_in_all():
    rewards, (ts,) = play(preset("escape_room"), [LEVER, DOOR])
    assert rewards == [[-1.0, 10.0]]
    assert bool(ts.terminated)
    assert not ts.truncated
    assert ts.events["cooperated"].tolist() == [1, 0]
    assert ts.events["escaped"].tolist() == [0, 1]


def test_staying_is_free_and_every_other_move_costs():
    moves = [START, DOOR], [LEVER, START], [LEVER, START], [START, START], [DOOR, DOOR]
    rewards, found = play(preset("escape_room"), *moves)
    assert rewards == [[0, -1], [-1, -1], [0, 0], [-1, 0], [-1, -1]]
    assert [bool(ts.truncated) for ts in found] == [False] * 4 + [True]
    assert not any(bool(ts.terminated) for ts in found)


def test_who_waits_at_the_door_is_paid_when_it_opens():
    rewards, found = play(preset("escape_room"), [START, DOOR], [LEVER, DOOR])
    assert rewards == [[0, -1], [-1, 10]]
    assert bool(found[1].terminated)


def test_a_pull_of_the_step_before_opens_nothing():
    rewards, found = play(preset("escape_room"), [LEVER, START], [START, DOOR])
    assert rewards == [[-1, 0], [-1, -1]]
    assert not found[1].terminated


def test_an_end_at_the_horizon_is_a_termination_if_somebody_leaves():
    _, found = play(preset("escape_room"), *[[START, START]] * 4, [LEVER, DOOR])
    assert (bool(found[-1].terminated), bool(found[-1].truncated)) == (True, False)


def test_two_of_three_must_pull():
    rewards, (ts,) = play(preset("escape_room_3"), [LEVER, START, DOOR])
    assert rewards == [[-1, 0, -1]]
    assert not ts.terminated
    rewards, (ts,) = play(preset("escape_room_3"), [LEVER, LEVER, DOOR])
    assert rewards == [[-1, -1, 10]]
    assert bool(ts.terminated)


def test_several_leave_together():
    env = preset("escape_room", "env.num_players=4")
    assert play(env, [DOOR, LEVER, DOOR, DOOR])[0] == [[10, -1, 10, 10]]


def test_places_are_seen_from_oneself():
    env = preset("escape_room_3")
    _, (ts,) = play(env, [LEVER, START, DOOR])
    lever, start, door = [1, 0, 0], [0, 1, 0], [0, 0, 1]
    assert ts.obs["vector"].tolist() == [lever + start + door, start + door + lever, door + lever + start]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env.pullers_needed=2", "env.pullers_needed=2: must be at least 1 and less than env.num_players=2"),
        ("env.num_players=1", "env.num_players=1: must be at least"),
        ("env.horizon=0", "env.horizon=0: must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load("env=escape_room", override)
