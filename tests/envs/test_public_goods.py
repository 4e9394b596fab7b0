"""Payoffs, dilemma and observation of the linear public goods game."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.matrix_game import MatrixGame
from envs.public_goods import PublicGoods
from marl.build import build_env
from marl.config import compose
from tests.probes import jit_reset, jit_step

KEY = jax.random.key(0)


def game(**changes):
    fields = {"endowment": 20.0, "multiplier": 1.6, "num_players": 4, "horizon": 10}
    return PublicGoods(**(fields | changes))


def play(env, action):
    return jit_step(env, KEY, jit_reset(env, KEY)[0], jnp.array(action))[1]


def test_three_contributors_of_four_get_24_and_the_free_rider_44():
    ts = play(game(), [0, 0, 1, 0])  # the pot: 1.6 * 60 = 96, 24 each
    np.testing.assert_allclose(ts.reward, [24, 24, 44, 24], rtol=1e-6)
    assert ts.events["cooperated"].tolist() == [1, 1, 0, 1]
    assert ts.events["defected"].tolist() == [0, 0, 1, 0]


def test_free_riding_pays_twelve_more_whatever_the_others_do():
    env = game()
    for others in np.ndindex(2, 2, 2):
        gives, keeps = play(env, [0, *others]).reward[0], play(env, [1, *others]).reward[0]
        assert keeps - gives == pytest.approx(20 * (1 - 0.4), abs=1e-4)


def test_the_group_earns_most_if_all_contribute_and_least_if_none_does():
    env = game()
    total = {action: float(play(env, action).reward.sum()) for action in np.ndindex(2, 2, 2, 2)}
    assert max(total, key=total.get) == (0, 0, 0, 0)
    assert min(total, key=total.get) == (1, 1, 1, 1)
    assert total[0, 0, 0, 0] == pytest.approx(128)
    assert total[1, 1, 1, 1] == pytest.approx(80)


def test_a_seat_sees_its_action_and_the_shares_of_the_others():
    env = game()
    assert jit_reset(env, KEY)[1].obs["vector"].tolist() == [[0, 0, 0, 0]] * 4
    seen = play(env, [0, 0, 1, 0]).obs["vector"]
    third = 1 / 3
    expected = [[1, 0, 2 * third, third]] * 2 + [[0, 1, 1, 0]] + [[1, 0, 2 * third, third]]
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    assert jit_reset(game(num_players=50), KEY)[1].obs["vector"].shape == (50, 4)


def test_two_players_are_a_prisoners_dilemma_with_the_observation_of_matrix_games():
    pair = game(endowment=1.0, multiplier=1.5, num_players=2)
    payoff = [[[1.5, 1.5], [0.75, 1.75]], [[1.75, 0.75], [1.0, 1.0]]]
    matrix = MatrixGame(payoff=payoff, continuation_prob=1.0, horizon=10, ends_by_chance=False)
    for action in np.ndindex(2, 2):
        goods, reference = play(pair, action), play(matrix, action)
        np.testing.assert_allclose(goods.reward, reference.reward)
        assert (goods.obs["vector"] == reference.obs["vector"]).all()


def test_every_episode_is_cut_at_the_horizon():
    env = game(horizon=3)
    assert env.fixed_horizon == 3
    state, ts = jit_reset(env, KEY)
    kinds = jax.tree.map(jax.typeof, (state, ts))
    cut = []
    for _ in range(3):
        state, ts = jit_step(env, KEY, state, jnp.zeros(4, jnp.int32))
        assert jax.tree.map(jax.typeof, (state, ts)) == kinds
        cut.append((bool(ts.truncated), bool(ts.terminated)))
    assert cut == [(False, False), (False, False), (True, False)]


def test_multiplier_can_be_mapped():
    env = game()
    total = jax.vmap(lambda m: play(env.replace(multiplier=m), [0, 0, 0, 0]).reward.sum())
    np.testing.assert_allclose(total(jnp.array([1.2, 2.0, 3.5])), [96, 160, 280], rtol=1e-6)


def test_the_config_has_the_sizes_of_fehr_and_gaechter():
    env = build_env(compose(["env=public_goods"]))
    env.check()
    assert (env.num_agents, env.endowment, env.multiplier, env.horizon) == (4, 20.0, 1.6, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multiplier": 1.0}, "env.multiplier=1.0: must lie between 1 and env.num_players=4"),
        ({"multiplier": 4.0}, "env.multiplier=4.0"),
        ({"num_players": 1}, "env.num_players=1: must be at least 2"),
        ({"endowment": 0.0}, "env.endowment=0.0: must be greater than 0"),
        ({"horizon": 0}, "env.horizon=0: must be at least 1"),
    ],
)
def test_bad_fields_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        game(**changes).check()
