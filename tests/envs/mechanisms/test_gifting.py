"""Gifts under the three budget rules: hand-played, conserved, never on credit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.mechanisms.gifting import Gifting
from tests.conformance import assert_equal, play
from tests.probes import jit_reset
from tests.toys import COOPERATE, DEFECT, LEAVE, TAKE, WATCH, Commons, commons, dilemma, follow

KEY = jax.random.key(0)
GIFT = 2  # around a game of two actions
BUDGETS = ["fixed_budget", "replenishable_budget"]


def gifting(env, mode="zero_sum", cost=1.0, value=1.0, budget=0.0, idle=DEFECT):
    return Gifting(env=env, cost=cost, value=value, budget=budget, mode=mode, idle=idle)


def test_zero_sum_gift_moves_reward_and_creates_none():
    env = gifting(dilemma())
    assert env.action_space.n == 3
    ts = follow(env, KEY, [[GIFT, DEFECT], [GIFT, GIFT], [GIFT, COOPERATE]])[2]
    assert ts.reward.tolist() == [[1 - 1, 1 + 1], [1, 1], [5 - 1, 0 + 1]]
    assert ts.events["gave"].tolist() == [[1, 0], [1, 1], [1, 0]]
    assert ts.events["received"].tolist() == [[0, 1], [1, 1], [0, 1]]
    assert ts.action_mask.all()
    assert ts.obs["vector"].shape[-1] == 4


def test_a_free_gift_costs_nothing_and_a_gift_is_shared_equally():
    ts = follow(gifting(commons(), cost=0.0, value=3.0, idle=WATCH), KEY, [[3, 3, WATCH]])[2]
    assert ts.reward.tolist() == [[1.5, 1.5, 3.0]]
    assert ts.events["received"].tolist() == [[0.5, 0.5, 1.0]]


def test_zero_sum_gifts_conserve_the_sum_of_rewards():
    _, action, ts = play(gifting(commons(noise=0.5), cost=2.0, value=2.0, idle=LEAVE), KEY, 64)
    free = play(gifting(commons(noise=0.5), cost=0.0, value=0.0, idle=LEAVE), KEY, 64)[2]
    assert (np.asarray(action) == 3).sum() > 20
    assert np.abs(ts.reward - free.reward).max() > 1
    np.testing.assert_allclose(ts.reward.sum(-1), free.reward.sum(-1), atol=1e-5)


def test_a_fixed_budget_pays_for_gifts_until_it_is_spent():
    env = gifting(dilemma(), "fixed_budget", budget=2.5)
    first, state, ts = follow(env, KEY, [[GIFT, COOPERATE]] * 3)
    assert first.obs["vector"][:, -1].tolist() == [2.5, 2.5]
    assert ts.reward.tolist() == [[5, 0 + 1], [5, 0 + 1], [5, 0]]
    assert state.budget.tolist() == [[1.5, 2.5], [0.5, 2.5], [0.5, 2.5]]
    assert ts.obs["vector"][:, :, -1].tolist() == state.budget.tolist()
    assert ts.action_mask[:, 0, GIFT].tolist() == [True, False, False]
    assert ts.events["gave"][:, 0].tolist() == [1, 1, 0]


def test_a_replenishable_budget_grows_by_positive_rewards_before_the_gift_is_paid():
    env = gifting(dilemma(), "replenishable_budget", cost=2.0, value=1.0)
    first, state, ts = follow(env, KEY, [[COOPERATE] * 2, [GIFT, COOPERATE], [DEFECT, GIFT]])
    assert not first.action_mask[:, GIFT].any()
    assert state.budget.tolist() == [[3, 3], [3 + 5 - 2, 3], [6 + 1, 3 + 1 - 2]]
    assert ts.reward.tolist() == [[3, 3], [5, 0 + 1], [1 + 1, 1]]
    assert ts.action_mask[:, :, GIFT].all()


def test_an_illegal_gift_has_no_effect_though_the_step_earns_its_cost():
    env = gifting(dilemma(), "replenishable_budget")
    _, state, ts = follow(env, KEY, [[GIFT, COOPERATE]])
    assert ts.reward.tolist() == [[5, 0]]
    assert state.budget.tolist() == [[5, 0]]
    assert not ts.events["gave"].any()


def test_losses_do_not_reduce_a_budget():
    game = dilemma().replace(payoff=dilemma().payoff - 4)
    _, state, _ = follow(gifting(game, "replenishable_budget", budget=1.0), KEY, [[COOPERATE, DEFECT]])
    assert state.budget.tolist() == [[1, 2]]


@pytest.mark.parametrize("mode", BUDGETS)
def test_budgets_are_never_negative_even_if_masks_are_ignored(mode):
    env = gifting(commons(noise=0.5, horizon=64), mode, cost=0.7, budget=1.0, idle=-1)
    moves = jax.random.randint(KEY, (64, 3), 0, 4)
    _, state, ts = follow(env, KEY, moves)
    assert (state.budget >= 0).all()
    assert ts.events["gave"].sum() > 0
    assert (np.asarray(ts.events["gave"]) <= (np.asarray(moves) == 3)).all()
    assert ts.action_mask[..., 3].tolist() == (state.budget >= jnp.float32(0.7)).tolist()


@pytest.mark.parametrize("mode", BUDGETS)
def test_random_legal_play_keeps_budgets_and_uses_them(mode):
    _, _, ts = play(gifting(commons(), mode, budget=1.0, idle=LEAVE), KEY, 64)
    assert (ts.obs["vector"][..., -1] >= 0).all()
    assert ts.events["gave"].sum() > 5


def test_budgets_start_anew_with_the_episode():
    env = gifting(dilemma(), "fixed_budget", budget=2.0)
    state, _ = jit_reset(env, KEY)
    env.step(KEY, state, np.array([GIFT, GIFT]))
    assert jit_reset(env, KEY)[0].budget.tolist() == [2, 2]


def test_a_random_idle_is_uniform_over_the_legal_actions():
    env = gifting(commons(num_seats=2, horizon=6000), idle=-1)
    ts = follow(env, KEY, np.tile([[3, WATCH]], (6000, 1)))[2]
    took, left = np.asarray(ts.events["took"][:, 0]), np.asarray(ts.events["left"][:, 0])
    rested = took[:-1] == 1
    assert (left[1:][rested] == 1).all()  # after taking, a seat may only leave
    np.testing.assert_allclose(took[1:][~rested].mean(), 1 / 3, atol=0.03)
    np.testing.assert_allclose(left[1:][~rested].mean(), 1 / 3, atol=0.03)


def test_an_illegal_idle_gives_way_to_the_first_legal_action():
    ts = follow(gifting(commons(), idle=TAKE), KEY, [[3, WATCH, WATCH]] * 2)[2]
    assert ts.events["took"][:, 0].tolist() == [1, 0]
    assert ts.events["left"][:, 0].tolist() == [0, 1]


@pytest.mark.parametrize("mode", ["zero_sum", *BUDGETS])
def test_neutral_gifting_equals_the_bare_game_bit_for_bit(mode):
    bare = commons(noise=0.5)
    moves = np.array([[TAKE, LEAVE, 3], [LEAVE, 3, TAKE], [3, 3, 3]])
    _, state, ts = follow(gifting(bare, mode, cost=0.0, value=0.0, idle=LEAVE), KEY, moves)
    _, bare_state, bare_ts = follow(bare, KEY, np.where(moves == 3, LEAVE, moves))
    assert_equal((state.inner, ts.reward), (bare_state, bare_ts.reward), exact=True)
    assert ts.action_mask[..., 3].all()


def test_permuting_seats_permutes_outcomes():
    env, order = gifting(commons(), "replenishable_budget", budget=1.0, idle=LEAVE), np.array([2, 0, 1])
    moves = np.array([[3, TAKE, LEAVE], [LEAVE, LEAVE, 3], [3, 3, TAKE]])
    _, state, ts = follow(env, KEY, moves)
    _, turned_state, turned = follow(env, KEY, moves[:, order])
    np.testing.assert_allclose(turned.reward, ts.reward[:, order], rtol=1e-6)
    np.testing.assert_allclose(turned_state.budget, state.budget[:, order], rtol=1e-6)


def test_one_vmap_sweeps_costs_and_budgets():
    env = gifting(dilemma(), "fixed_budget")

    def sweep(cost, budget):
        return follow(env.replace(cost=cost, budget=budget), KEY, [[GIFT, DEFECT]])[1].budget[0, 0]

    left = jax.vmap(sweep)(np.array([1, 2, 4], np.float32), np.array([3, 2, 1], np.float32))
    assert left.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "loan"}, "mode=loan: must be one of zero_sum, fixed_budget, replenishable_budget"),
        ({"idle": 2}, r"idle=2: must lie in 0 \.\. 1"),
        ({"cost": -1.0}, r"cost=-1\.0: must be at least 0"),
        ({"budget": -1.0}, r"budget=-1\.0: must be at least 0"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=rf"mechanism\.gifting\.{message}"):
        gifting(dilemma(), **change).check()


def test_a_lonely_seat_and_other_spaces_than_discrete_are_refused():
    class Continuous(Commons):
        action_space = spaces.Box(0.0, 1.0, (1,))

    with pytest.raises(ValueError, match="gifting needs 2 seats or more, not 1"):
        gifting(commons(num_seats=1)).check()
    with pytest.raises(ValueError, match="mechanism gifting needs Discrete actions"):
        gifting(Continuous(2.0, 0.0, 0.0, 3, 8, False)).check()
