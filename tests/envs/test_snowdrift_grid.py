"""The snowdrift game on a map: removals by hand, the totals of the paper, invariants in random play."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.snowdrift_grid import REMOVE
from tests.envs.grid_tools import KEY, cells, draws, preset, random_play, squares, stand, step
from tests.probes import jit_reset

UP, STAY = 0, 4


def start(env, *places, piles):
    state = stand(env, jit_reset(env, KEY)[0], *places)
    return state.replace(piles=cells(env, *piles))


PILES = [(0, 0), (0, 7), (7, 0), (7, 7), (3, 3), (4, 4)]


def test_a_removal_pays_all_and_costs_the_remover():
    env = preset("snowdrift_grid")
    state = start(env, (0, 0), (3, 3), (5, 5), (4, 4), piles=PILES)
    state, ts = step(env, state, REMOVE, STAY, REMOVE, STAY)
    assert ts.reward.tolist() == [2, 6, 6, 6]
    assert ts.events["removed"].tolist() == [1, 0, 0, 0]
    assert squares(env, state.piles) == [None, *PILES[1:]]
    state, ts = step(env, state, REMOVE, REMOVE, UP, REMOVE)
    assert ts.reward.tolist() == [12, 8, 12, 8]
    assert squares(env, state.piles) == [None, *PILES[1:4], None, None]


def test_of_several_removers_of_a_pile_one_at_random_pays():
    env, num = preset("snowdrift_grid"), 6000
    state = start(env, (3, 3), (3, 3), (3, 3), (0, 7), piles=PILES)
    action = jnp.array([REMOVE, REMOVE, REMOVE, STAY])
    removed = np.asarray(draws(env, state, action, num)[1].events["removed"])
    assert (removed.sum(1) == 1).all()
    assert (abs(removed[:, :3].sum(0) - num / 3) <= 5 * np.sqrt(num * 2 / 9)).all()


def test_clearing_all_pays_120_and_the_game_goes_on_to_its_horizon():
    env, total = preset("snowdrift_grid"), 0
    state = start(env, *PILES[:4], piles=PILES)
    for time in range(50):
        if time == 1:
            state = stand(env, state, (3, 3), (4, 4), (4, 4), (4, 4))
        state, ts = step(env, state, *([REMOVE, REMOVE, STAY, STAY] if time else [REMOVE] * 4))
        total += float(ts.reward.sum())
        assert bool(ts.done) == (time == 49)
        assert not ts.terminated
    assert total == 120


def test_piles_start_on_different_uniform_cells():
    env, num = preset("snowdrift_grid"), 4000
    piles = np.asarray(jax.jit(jax.vmap(lambda key: env.reset(key)[0].piles))(jax.random.split(KEY, num)))
    assert all(len(set(row)) == 6 for row in piles.tolist())
    counts = np.bincount(piles.ravel(), minlength=64)
    assert (abs(counts - num * 6 / 64) <= 5 * np.sqrt(num * 6 / 64)).all()


def facts(env, state, ts):
    removed = ts.events["removed"].sum()
    return {
        "paid": ts.reward.sum() - 20 * removed,
        "removed": removed,
        "here": (state.piles < 64).sum(),
        "seats": (state.cell >= 64).sum(),
    }


def test_random_play_keeps_the_rules():
    found = random_play(preset("snowdrift_grid"), KEY, num_games=2048, steps=50, facts=facts)
    assert not found["paid"].any()
    assert not found["seats"].any()
    assert found["removed"].sum() > 2000
    assert (2048 * 6 - np.cumsum(found["removed"]) == found["here"]).all(), "no pile comes back"
