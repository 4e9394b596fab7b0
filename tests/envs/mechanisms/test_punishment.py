"""Punishment in both modes: hand-played rounds and stages, horizons, symmetry, neutral setting."""

import operator

import jax
import numpy as np
import pytest
from gymnasium import spaces

from envs.mechanisms.gifting import Gifting
from envs.mechanisms.punishment import Punishment
from tests.conformance import assert_equal, play
from tests.probes import jit_reset
from tests.toys import COOPERATE, DEFECT, LEAVE, TAKE, WATCH, Commons, commons, dilemma, follow

KEY = jax.random.key(0)
NOBODY, OTHER = 2, 3  # stage actions around a game of two actions


def punishment(env, mode="stage", cost=1.0, fine=3.0, idle=0):
    return Punishment(env=env, cost=cost, fine=fine, mode=mode, idle=idle)


def test_a_round_and_its_stage_by_hand():
    first, _, ts = follow(punishment(dilemma()), KEY, [[COOPERATE, DEFECT], [OTHER, NOBODY]])
    assert first.action_mask.tolist() == [[True, True, False, False]] * 2
    assert ts.action_mask[:, 0].tolist() == [[False, False, True, True], [True, True, False, False]]
    assert ts.reward.tolist() == [[0, 5], [-1, -3]]
    assert ts.events["defected"].tolist() == [[0, 1], [0, 0]]
    assert ts.events["punished"].tolist() == [[0, 0], [1, 0]]
    assert ts.events["was_punished"].tolist() == [[0, 0], [0, 1]]
    assert first.obs["vector"].tolist() == [[0] * 6] * 2
    assert ts.obs["vector"][0].tolist() == [[1, 0, 0, 1, 1, 0], [0, 1, 1, 0, 1, 0]]
    assert ts.obs["vector"][1].tolist() == [[1, 0, 0, 1, 0, 0], [0, 1, 1, 0, 0, 1]]


def test_the_game_stands_still_in_a_stage_and_the_last_count_stays_in_sight():
    moves = [[0, 0], [OTHER, OTHER], [1, 0], [NOBODY, NOBODY]]
    _, state, ts = follow(punishment(dilemma()), KEY, moves)
    assert state.inner.time.tolist() == [1, 1, 2, 2]
    assert ts.obs["vector"][:, 0, 4:].tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]


def test_a_fixed_horizon_doubles_and_ends_after_the_last_stage():
    env = punishment(dilemma(horizon=2))
    assert env.fixed_horizon == 4
    ts = follow(env, KEY, [[0, 0], [NOBODY] * 2] * 2)[2]
    assert ts.truncated.tolist() == [False, False, False, True]
    assert not ts.terminated.any()


def test_a_terminal_state_is_told_after_its_stage():
    env = punishment(commons(horizon=0, end_prob=1.0))
    assert env.fixed_horizon is None
    ts = follow(env, KEY, [[LEAVE] * 3, [3] * 3])[2]
    assert ts.terminated.tolist() == [False, True]


@pytest.mark.parametrize(("mode", "nobody"), [("stage", 3), ("action", 2)])
def test_action_k_punishes_the_seat_k_places_on(mode, nobody):
    env = punishment(commons(), mode)
    assert env.action_space.n == nobody + 3
    rounds = [[LEAVE] * 3] if mode == "stage" else []
    acts = [nobody + 1, nobody + 1, nobody + 2]  # 0 -> 1, 1 -> 2, 2 -> 1
    last = jax.tree.map(lambda x: x[-1], follow(env, KEY, [*rounds, acts])[2])
    assert last.events["was_punished"].tolist() == [0, 2, 1]
    inner = 0 if mode == "stage" else np.float32(2 / 3)  # reward of a seat that leaves with two others
    np.testing.assert_allclose(last.reward, inner - np.array([1, 1 + 6, 1 + 3]), rtol=1e-6)


def test_punishing_as_an_action_replaces_the_move_by_idle():
    env = punishment(dilemma(), "action", idle=DEFECT)
    assert env.action_space.n == 3
    ts = follow(env, KEY, [[2, COOPERATE], [2, 2]])[2]
    assert ts.reward.tolist() == [[5 - 1, 0 - 3], [1 - 4, 1 - 4]]
    assert ts.events["cooperated"].tolist() == [[0, 1], [0, 0]]
    assert ts.obs["vector"][0].tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 1, 1]]
    assert ts.action_mask.all()


def test_an_illegal_idle_gives_way_to_the_first_legal_action():
    env = punishment(commons(), "action", idle=TAKE)
    punish = 3
    ts = follow(env, KEY, [[punish, WATCH, WATCH], [punish, WATCH, WATCH]])[2]
    assert ts.events["took"][:, 0].tolist() == [1, 0]  # after taking, a seat may only leave
    assert ts.events["left"][:, 0].tolist() == [0, 1]


@pytest.mark.parametrize("mode", ["stage", "action"])
def test_each_act_destroys_cost_plus_fine_and_hits_match_acts(mode):
    _, _, ts = play(punishment(commons(), mode), KEY, 64)
    _, _, free = play(punishment(commons(), mode, cost=0.0, fine=0.0), KEY, 64)
    acts = np.asarray(ts.events["punished"]).sum(-1)
    assert acts.sum() > 10
    assert ts.events["was_punished"].sum(-1).tolist() == acts.tolist()
    np.testing.assert_allclose((ts.reward - free.reward).sum(-1), -4 * acts, atol=1e-5)


def test_neutral_stage_gives_the_rounds_of_the_bare_game_bit_for_bit():
    bare = commons(noise=0.5)
    moves = np.array([[TAKE, LEAVE, LEAVE], [3, 4, 5], [LEAVE, TAKE, TAKE], [4, 4, 4]])
    env = punishment(bare, cost=0.0, fine=0.0)
    _, state, ts = follow(env, KEY, moves)
    inner = jit_reset(bare, KEY)[0]
    for time in (0, 2):
        inner, expected = jax.jit(bare.step)(jax.random.fold_in(KEY, time), inner, moves[time])
        assert_equal(jax.tree.map(operator.itemgetter(time), state.inner), inner, exact=True)
        assert ts.reward[time].tolist() == expected.reward.tolist()
        assert not ts.reward[time + 1].any()
        assert ts.obs["vector"][time, :, :1].tolist() == expected.obs["vector"].tolist()


def test_neutral_action_mode_equals_the_bare_game_bit_for_bit():
    bare = commons(noise=0.5)
    moves = [[TAKE, LEAVE, LEAVE], [LEAVE, TAKE, TAKE]]
    _, state, ts = follow(punishment(bare, "action", cost=0.0, fine=0.0), KEY, moves)
    _, bare_state, bare_ts = follow(bare, KEY, moves)
    assert_equal((state.inner, ts.reward), (bare_state, bare_ts.reward), exact=True)


def test_permuting_seats_permutes_outcomes():
    victim = np.array([1, 2, 1])  # of seats 0, 1, 2
    order = np.array([2, 0, 1])  # seat now at each place
    place = np.argsort(order)
    env = punishment(commons(), "action")
    moves = lambda victim: [2 + (victim - np.arange(3)) % 3]
    ts = follow(env, KEY, moves(victim))[2]
    turned = follow(env, KEY, moves(place[victim[order]]))[2]
    assert turned.reward[0].tolist() == ts.reward[0, order].tolist()
    assert turned.events["was_punished"][0].tolist() == ts.events["was_punished"][0, order].tolist()


def test_a_gift_is_possible_in_a_stage_where_the_giver_punishes_nobody():
    env = Gifting(env=punishment(dilemma()), cost=1.0, value=1.0, budget=0.0, mode="zero_sum", idle=DEFECT)
    _, state, ts = follow(env, KEY, [[4, COOPERATE], [4, OTHER]])
    assert ts.reward.tolist() == [[5 - 1, 0 + 1], [-1 - 3, 1 - 1]]
    assert ts.events["punished"].tolist() == [[0, 0], [0, 1]]
    assert state.inner.inner.time.tolist() == [1, 1]


def test_one_vmap_sweeps_costs():
    env = punishment(dilemma(), "action", idle=COOPERATE)
    sweep = lambda cost: follow(env.replace(cost=cost), KEY, [[2, COOPERATE]])[2].reward[0]
    assert jax.vmap(sweep)(np.array([0.0, 2.0], np.float32)).tolist() == [[3, 0], [1, 0]]


def test_bad_settings_are_refused_by_name():
    with pytest.raises(
        ValueError, match=r"mechanism\.punishment\.mode=revenge: must be one of stage, action"
    ):
        punishment(dilemma(), "revenge").check()
    with pytest.raises(ValueError, match=r"mechanism\.punishment\.idle=2: must lie in 0 \.\. 1"):
        punishment(dilemma(), "action", idle=2).check()
    with pytest.raises(ValueError, match="punishment needs 2 seats or more, not 1"):
        punishment(commons(num_seats=1)).check()


def test_other_spaces_than_discrete_are_refused():
    class Continuous(Commons):
        action_space = spaces.Box(0.0, 1.0, (1,))

    env = punishment(Continuous(2.0, 0.0, 0.0, 3, 8, False))
    with pytest.raises(ValueError, match="mechanism punishment needs Discrete actions"):
        env.check()
