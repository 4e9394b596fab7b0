"""Fines: hand-played, as often as promised, and none in the neutral setting."""

import jax
import numpy as np
import pytest

from envs.mechanisms.punishment import Punishment
from envs.mechanisms.sanction import Sanction
from tests.conformance import assert_equal
from tests.toys import COOPERATE, DEFECT, LEAVE, TAKE, commons, dilemma, follow

KEY = jax.random.key(0)


def sanction(env, fine=2.0, prob=1.0, event="defected"):
    return Sanction(env=env, fine=fine, prob=prob, event=event)


def test_defectors_pay_the_fine():
    moves = [[COOPERATE, DEFECT], [DEFECT, DEFECT], [COOPERATE, COOPERATE]]
    first, _, ts = follow(sanction(dilemma()), KEY, moves)
    assert ts.reward.tolist() == [[0, 5 - 2], [1 - 2, 1 - 2], [3, 3]]
    assert ts.events["sanctioned"].tolist() == [[0, 1], [1, 1], [0, 0]]
    assert first.events["sanctioned"].tolist() == [0, 0]


def test_each_of_several_events_is_fined():
    inner = Punishment(env=commons(), cost=0.0, fine=0.0, mode="action", idle=LEAVE)
    env = sanction(inner, fine=2.0, event="was_punished")
    _, _, ts = follow(env, KEY, [[LEAVE, 4, 3]])  # seats 1 and 2 both punish seat 0
    bare = follow(commons(), KEY, [[LEAVE, LEAVE, LEAVE]])[2]
    assert (ts.reward - bare.reward).tolist() == [[-4, 0, 0]]
    assert ts.events["sanctioned"].tolist() == [[1, 0, 0]]


def test_offences_are_noticed_independently_with_the_given_probability():
    env = sanction(dilemma(0).replace(ends_by_chance=True), prob=0.3)
    _, _, ts = follow(env, KEY, np.full((4000, 2), DEFECT))
    noticed = np.asarray(ts.events["sanctioned"])
    np.testing.assert_allclose(noticed.mean(0), 0.3, atol=0.03)
    np.testing.assert_allclose(noticed.prod(1).mean(), 0.09, atol=0.02)
    np.testing.assert_allclose((noticed[1:] * noticed[:-1]).mean(), 0.09, atol=0.02)


@pytest.mark.parametrize("neutral", [{"fine": 0.0}, {"prob": 0.0}])
def test_neutral_sanction_equals_the_bare_game_bit_for_bit(neutral):
    bare = commons(noise=0.5)
    moves = [[TAKE, LEAVE, LEAVE], [LEAVE, TAKE, TAKE], [LEAVE, LEAVE, LEAVE]]
    _, state, ts = follow(sanction(bare, event="took", **neutral), KEY, moves)
    _, bare_state, bare_ts = follow(bare, KEY, moves)
    events = {k: v for k, v in ts.events.items() if k != "sanctioned"}
    assert_equal((state, ts.replace(events=events)), (bare_state, bare_ts), exact=True)


def test_permuting_seats_permutes_fines():
    env, moves, order = sanction(commons(), event="took"), [[TAKE, LEAVE, TAKE]], np.array([2, 0, 1])
    ts = follow(env, KEY, moves)[2]
    turned = follow(env, KEY, np.asarray(moves)[:, order])[2]
    assert turned.reward.tolist() == ts.reward[:, order].tolist()


def test_one_vmap_sweeps_fines():
    sweep = lambda fine: follow(sanction(dilemma()).replace(fine=fine), KEY, [[DEFECT, COOPERATE]])[2]
    reward = jax.vmap(sweep)(np.array([0.0, 1.0, 7.0], np.float32)).reward
    assert reward[:, 0, 0].tolist() == [5, 4, -2]


def test_unknown_event_is_refused_with_the_list_of_events():
    with pytest.raises(ValueError, match=r"mechanism\.sanction\.event=stole: .* left, took"):
        sanction(commons(), event="stole").check()


@pytest.mark.parametrize("prob", [-0.1, 1.1])
def test_probability_outside_the_unit_interval_is_refused(prob):
    with pytest.raises(ValueError, match=r"mechanism\.sanction\.prob"):
        sanction(dilemma(), prob=prob).check()
