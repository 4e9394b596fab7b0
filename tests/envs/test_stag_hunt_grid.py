"""The stag hunt on a map: hares, stags and leaving by hand, the best total, invariants in random play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.stag_hunt_grid import HUNT_HARE, HUNT_STAG
from tests.envs.grid_tools import KEY, cells, draws, preset, random_play, squares, stand, step
from tests.probes import jit_reset

UP, STAY = 0, 4
HARES, STAGS = [(0, 0), (0, 7), (7, 0), (7, 7)], [(3, 3), (4, 4)]


def start(env, *places):
    state = stand(env, jit_reset(env, KEY)[0], *places)
    return state.replace(hares=cells(env, *HARES), stags=cells(env, *STAGS))


def test_a_hare_is_caught_alone_and_its_hunter_leaves():
    env = preset("stag_hunt_grid")
    state = start(env, (0, 0), (0, 7), (3, 3), (5, 5))
    state, ts = step(env, state, HUNT_HARE, HUNT_STAG, HUNT_HARE, HUNT_HARE)
    assert ts.reward.tolist() == [1, 0, 0, 0]
    assert ts.events["hunted_hare"].tolist() == [1, 0, 0, 0]
    assert squares(env, state.hares) == [None, *HARES[1:]]
    assert squares(env, state.cell) == [None, (0, 7), (3, 3), (5, 5)]
    state, ts = step(env, state, HUNT_HARE, HUNT_HARE, STAY, STAY)
    assert ts.reward.tolist() == [0, 1, 0, 0], "who left hunts no more"


@pytest.mark.parametrize(
    ("actions", "reward"),
    [
        ((HUNT_STAG, STAY, STAY, STAY), (0, 0, 0, 0)),
        ((HUNT_STAG, HUNT_STAG, STAY, STAY), (5, 5, 0, 0)),
        ((HUNT_STAG, HUNT_STAG, HUNT_STAG, HUNT_STAG), (10 / 3, 10 / 3, 10 / 3, 0)),
        ((HUNT_STAG, HUNT_HARE, STAY, HUNT_STAG), (0, 0, 0, 0)),
    ],
)
def test_a_stag_is_caught_by_enough_hunters_on_its_cell_who_share_it(actions, reward):
    env = preset("stag_hunt_grid")
    state, ts = step(env, start(env, (3, 3), (3, 3), (3, 3), (4, 4)), *actions)
    np.testing.assert_allclose(ts.reward, reward, rtol=1e-6)
    hunted = [x > 0 for x in reward]
    assert ts.events["hunted_stag"].tolist() == ts.events["cooperated"].tolist() == hunted
    assert not ts.events["hunted_hare"].any()
    assert [place is None for place in squares(env, state.cell)] == hunted
    assert squares(env, state.stags) == [None if any(hunted) else (3, 3), (4, 4)]


def test_more_hunters_may_be_needed():
    env = preset("stag_hunt_grid").replace(hunters_needed=3)
    state = start(env, (3, 3), (3, 3), (3, 3), (4, 4))
    assert not step(env, state, HUNT_STAG, HUNT_STAG, STAY, STAY)[1].reward.any()
    assert step(env, state, HUNT_STAG, HUNT_STAG, HUNT_STAG, STAY)[1].reward.sum() == 10


def test_of_several_hunters_of_a_hare_one_at_random_gets_it():
    env, num = preset("stag_hunt_grid"), 6000
    state = start(env, (0, 0), (0, 0), (0, 0), (7, 7))
    after, ts = draws(env, state, jnp.full(4, HUNT_HARE), num)
    reward = np.asarray(ts.reward)
    assert (reward[:, :3].sum(1) == 1).all()
    assert (abs(reward[:, :3].sum(0) - num / 3) <= 5 * np.sqrt(num * 2 / 9)).all()
    assert (reward[:, 3] == 1).all()
    assert ((np.asarray(after.cell) == 64).sum(1) == 2).all()


def test_the_best_total_is_20_and_the_game_goes_on_to_its_horizon():
    env, total = preset("stag_hunt_grid"), 0
    state = start(env, (3, 3), (3, 3), (4, 4), (4, 4))
    for time in range(30):
        state, ts = step(env, state, *[HUNT_STAG] * 4)
        total += float(ts.reward.sum())
        assert bool(ts.truncated) == (time == 29)
        assert not ts.terminated
        assert not ts.obs["grid"].any()
    assert total == 20


def test_prey_starts_on_different_uniform_cells():
    env, num = preset("stag_hunt_grid"), 4000
    state = jax.jit(jax.vmap(lambda key: env.reset(key)[0]))(jax.random.split(KEY, num))
    prey = np.concatenate([state.hares, state.stags], axis=1)
    assert all(len(set(row)) == 6 for row in prey.tolist())
    for kind, mean in ((state.hares, num * 4 / 64), (state.stags, num * 2 / 64)):
        assert (abs(np.bincount(np.asarray(kind).ravel(), minlength=64) - mean) <= 5 * np.sqrt(mean)).all()


def facts(env, state, ts):
    gone = lambda cell: (cell == 64).sum()
    hares, stags = ts.events["hunted_hare"].sum(), ts.events["hunted_stag"].sum()
    return {
        "hares": hares,
        "stag_hunters": stags,
        "hares_gone": gone(state.hares),
        "stags_gone": gone(state.stags),
        "left": gone(state.cell),
        "paid": ts.reward.sum(),
    }


def test_random_play_keeps_the_rules():
    found = random_play(preset("stag_hunt_grid"), KEY, num_games=8192, steps=30, facts=facts)
    found = {name: np.asarray(x) for name, x in found.items()}
    assert (np.cumsum(found["hares"]) == found["hares_gone"]).all()
    assert (np.cumsum(found["hares"] + found["stag_hunters"]) == found["left"]).all()
    caught = np.diff(found["stags_gone"], prepend=0)
    np.testing.assert_allclose(found["paid"], found["hares"] + 10 * caught, rtol=1e-5)
    assert found["hares"].sum() > 1000
    assert found["stag_hunters"].sum() >= 2 * caught.sum() > 10


def test_a_stag_needs_a_hunter():
    with pytest.raises(ValueError, match=r"env.hunters_needed=0: must be at least 1"):
        preset("stag_hunt_grid").replace(hunters_needed=0).check()
