"""Social value orientation: angles of given rewards, no penalty without reward, mixed populations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.mechanisms.svo import SVO
from marl.build import load
from marl.validation import ConfigError
from tests.conformance import assert_equal
from tests.toys import COOPERATE, DEFECT, LEAVE, TAKE, WATCH, commons, dilemma, follow

KEY = jax.random.key(0)
PI = np.pi
MOVES = [[TAKE, LEAVE, WATCH], [LEAVE, TAKE, WATCH], [WATCH, LEAVE, LEAVE]]


def svo(env, weight=0.2, angle=PI / 4):
    return SVO(env=env, weight=weight, angle=angle)


def utility(rewards, **fields):
    return svo(commons(len(rewards)), **fields).utility(jnp.asarray(rewards, jnp.float32))


@pytest.mark.parametrize(
    ("angle", "expected"),
    [
        (0.0, [0 - 0.2 * PI / 2, 5 - 0]),  # seat 0 earned nothing: its angle is pi/2; that of seat 1 is 0
        (PI / 4, [0 - 0.2 * PI / 4, 5 - 0.2 * PI / 4]),
        (PI / 2, [0 - 0, 5 - 0.2 * PI / 2]),
    ],
)
def test_selfish_prosocial_and_altruistic_seats_mind_different_rewards(angle, expected):
    ts = follow(svo(dilemma(), angle=angle), KEY, [[COOPERATE, DEFECT]])[2]
    np.testing.assert_allclose(ts.reward[0], expected, rtol=1e-6, atol=1e-6)
    assert ts.events["extrinsic_reward"].tolist() == [[0, 5]]


def test_others_count_by_their_mean():
    angles = [np.arctan2(1.5, 3), np.arctan2(2, 2), np.arctan2(2.5, 1)]
    expected = np.array([3, 2, 1]) - 0.2 * np.abs(PI / 4 - np.array(angles))
    np.testing.assert_allclose(utility([3, 2, 1]), expected, rtol=1e-6)


def test_losses_have_angles_of_their_own_and_differences_are_not_wrapped():
    # seat 0: the others lose, angle atan2(-1, 1) = -pi/4; seat 1: atan2(1, -1) = 3/4 pi
    np.testing.assert_allclose(
        utility([1, -1], weight=1.0, angle=0.0), [1 - PI / 4, -1 - 3 * PI / 4], rtol=1e-6
    )
    both_lose = utility([-1, -1], weight=1.0, angle=PI / 2)  # -3/4 pi, so 5/4 pi away
    np.testing.assert_allclose(both_lose, [-1 - 5 * PI / 4] * 2, rtol=1e-6)


def test_nothing_earned_costs_nothing():
    assert utility([0, 0, 0], angle=PI / 2).tolist() == [0, 0, 0]
    assert utility([0, 1, -1], angle=PI / 2)[0] == 0
    first = follow(svo(commons()), KEY, MOVES)[0]
    assert first.reward.tolist() == [0, 0, 0]


@pytest.mark.parametrize("rewards", [[0.0, 0.0, 0.0], [0.0, 1.0, -1.0], [2.0, 0.0, 1.0]])
def test_gradients_are_finite(rewards):
    game = svo(commons(), angle=0.3)
    slope = jax.jacobian(game.utility)(jnp.array(rewards))
    assert np.isfinite(slope).all()
    slope = jax.grad(lambda angle: game.replace(angle=angle).utility(jnp.array(rewards)).sum())(0.3)
    assert np.isfinite(slope)


def test_a_population_can_be_mixed():
    mixed = np.array([0, PI / 4, PI / 2], np.float32)
    found = follow(svo(commons(), angle=mixed), KEY, MOVES)[2].reward
    alone = [follow(svo(commons(), angle=a), KEY, MOVES)[2].reward[:, i] for i, a in enumerate(mixed)]
    np.testing.assert_allclose(found, np.stack(alone, axis=1), rtol=1e-6)


def test_neutral_svo_equals_the_bare_game_bit_for_bit():
    bare = commons(noise=0.5)
    _, state, ts = follow(svo(bare, weight=0.0), KEY, MOVES)
    _, bare_state, bare_ts = follow(bare, KEY, MOVES)
    assert_equal(ts.events["extrinsic_reward"], bare_ts.reward, exact=True)
    events = {k: v for k, v in ts.events.items() if k != "extrinsic_reward"}
    assert_equal((state, ts.replace(events=events)), (bare_state, bare_ts), exact=True)


def test_permuting_seats_permutes_utilities():
    order = np.array([2, 0, 1])
    turned = utility(np.array([3.0, 2.0, -1.0])[order])
    np.testing.assert_allclose(turned, utility([3, 2, -1])[order], rtol=1e-6)


def test_one_vmap_sweeps_angles():
    sweep = lambda angle: svo(dilemma(), weight=1.0).replace(angle=angle).utility(jnp.array([1.0, 1.0]))[0]
    found = jax.vmap(sweep)(np.array([0, PI / 4], np.float32))
    np.testing.assert_allclose(found, [1 - PI / 4, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": -0.1}, r"weight=-0.1: must be at least 0"),
        ({"angle": 45.0}, r"angle=45.0: must lie in \[-3.14159, 3.14159\]"),
        ({"angle": np.zeros(3)}, r"angle=\[0. 0. 0.\]: must be one number or a list of 2"),
    ],
)
def test_bad_numbers_are_refused_with_what_is_allowed(wrong, message):
    with pytest.raises(ValueError, match=rf"mechanism\.svo\.{message}"):
        svo(dilemma(), **wrong).check()


def test_a_lonely_seat_is_refused():
    with pytest.raises(ValueError, match=r"mechanism\.svo needs 2 seats or more, not 1"):
        svo(commons(num_seats=1)).check()


def test_configs_take_one_angle_for_all_seats_or_a_list():
    angle = lambda *overrides: load("mechanism=[svo]", *overrides).env.angle.tolist()
    np.testing.assert_allclose(angle(), [PI / 4], atol=1e-6)
    assert angle("mechanism.svo.angle=0.5") == [0.5]
    assert angle("mechanism.svo.angle=[0,0.5]") == [0, 0.5]
    with pytest.raises(ConfigError, match=r"mechanism\.svo\.angle=.*must be one number or a list of 2"):
        angle("mechanism.svo.angle=[0,0.5,1]")
