"""Scores: hand-played, each seat's own first, and nothing but zeros in the neutral setting."""

import jax
import numpy as np
import pytest

from envs.mechanisms.punishment import Punishment
from envs.mechanisms.reputation import Reputation
from tests.conformance import assert_equal
from tests.probes import jit_reset
from tests.toys import COOPERATE, DEFECT, LEAVE, TAKE, WATCH, commons, dilemma, follow

KEY = jax.random.key(0)
WEIGHTS = {"cooperated": 1.0, "defected": -2.0}


def test_scores_add_up_and_stand_after_the_game_s_features():
    moves = [[COOPERATE, DEFECT], [COOPERATE, COOPERATE], [DEFECT, COOPERATE]]
    first, state, ts = follow(Reputation(env=dilemma(), weights=WEIGHTS), KEY, moves)
    assert state.score.tolist() == [[1, -2], [2, -1], [0, 0]]
    assert first.obs["vector"].tolist() == [[0] * 6, [0] * 6]
    assert ts.obs["vector"][1].tolist() == [[1, 0, 1, 0, 2, -1], [1, 0, 1, 0, -1, 2]]


def test_each_seat_sees_all_scores_its_own_first_also_without_other_features():
    env = Reputation(env=commons(blind=True), weights={"took": -1.0, "left": 3.0})
    ts = follow(env, KEY, [[TAKE, WATCH, LEAVE]])[2]
    assert ts.obs["vector"][0].tolist() == [[-1, 0, 3], [0, 3, -1], [3, -1, 0]]


def test_scores_start_anew_with_the_episode():
    env = Reputation(env=dilemma(), weights=WEIGHTS)
    state, _ = jit_reset(env, KEY)
    env.step(KEY, state, np.array([COOPERATE, COOPERATE]))
    assert jit_reset(env, KEY)[0].score.tolist() == [0, 0]


def test_a_stage_of_punishment_changes_no_score_of_the_game_inside():
    env = Punishment(env=Reputation(env=dilemma(), weights=WEIGHTS), cost=1.0, fine=3.0, mode="stage", idle=0)
    _, state, ts = follow(env, KEY, [[COOPERATE, DEFECT], [3, 3]])
    assert state.inner.score.tolist() == [[1, -2], [1, -2]]
    assert ts.obs["vector"][1, 0].tolist() == [1, 0, 0, 1, 1, -2, 0, 1]


def test_punishing_can_cost_reputation():
    inner = Punishment(env=dilemma(), cost=0.0, fine=0.0, mode="stage", idle=0)
    env = Reputation(env=inner, weights={**WEIGHTS, "punished": 5.0})
    _, state, _ = follow(env, KEY, [[COOPERATE, DEFECT], [3, 2]])
    assert state.score.tolist() == [[1, -2], [6, -2]]


def test_neutral_reputation_equals_the_bare_game_bit_for_bit():
    bare = commons(noise=0.5)
    moves = [[TAKE, LEAVE, LEAVE], [LEAVE, TAKE, TAKE]]
    _, state, ts = follow(Reputation(env=bare, weights={"took": 0.0, "left": 0.0}), KEY, moves)
    _, bare_state, bare_ts = follow(bare, KEY, moves)
    assert not ts.obs["vector"][..., 1:].any()
    obs = ts.obs | {"vector": ts.obs["vector"][..., :1]}
    assert_equal((state.inner, ts.replace(obs=obs)), (bare_state, bare_ts), exact=True)


def test_permuting_seats_permutes_scores():
    env, order = Reputation(env=commons(), weights={"took": -1.0, "left": 2.0}), np.array([1, 2, 0])
    moves = np.array([[TAKE, LEAVE, WATCH], [LEAVE, TAKE, LEAVE]])
    score = follow(env, KEY, moves)[1].score
    turned = follow(env, KEY, moves[:, order])[1].score
    assert turned.tolist() == score[:, order].tolist()


def test_one_vmap_sweeps_weights():
    def sweep(weight):
        env = Reputation(env=dilemma(), weights={"cooperated": weight})
        return follow(env, KEY, [[COOPERATE, DEFECT]])[1].score

    assert jax.vmap(sweep)(np.array([0.0, 2.0], np.float32))[:, 0].tolist() == [[0, 0], [2, 0]]


def test_unknown_event_is_refused_with_the_list_of_events():
    with pytest.raises(ValueError, match=r"mechanism\.reputation\.weights\.stole: .* cooperated, defected"):
        Reputation(env=dilemma(), weights={"stole": -1.0}).check()
