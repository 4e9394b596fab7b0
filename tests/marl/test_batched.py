"""Games that restart by themselves: what a step answers with at an end, and when it pays for one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marl import batched
from tests.conformance import assert_equal
from tests.probes import Aim
from tests.toys import LEAVE, TAKE, commons

GAMES, STEPS, HORIZON = 4, 12, 3
KEY = jax.random.key(0)
KINDS = {"fixed horizon": {"horizon": HORIZON}, "by chance": {"horizon": 0, "end_prob": 0.4}}
jit_start = jax.jit(batched.start, static_argnums=2)
jit_step = jax.jit(batched.step)


def play(env):
    """[(state before, ts, final, state after)] of STEPS steps in which seats take whenever they may."""
    games, ts = jit_start(env, KEY, GAMES)
    trace = []
    for _ in range(STEPS):
        action = jnp.where(ts.action_mask[..., TAKE], TAKE, LEAVE)
        before = games
        games, ts, final = jit_step(env, games, action)
        trace.append((before, ts, final, games))
    return trace


@pytest.mark.parametrize("kind", KINDS)
def test_only_games_that_end_restart_and_the_step_keeps_its_own_rewards(kind):
    env = commons(**KINDS[kind])
    seen = set()
    for before, ts, final, after in play(env):
        done = np.asarray(final.done)
        seen |= set(done.tolist())
        for name in ("reward", "terminated", "truncated", "events"):
            assert_equal(getattr(ts, name), getattr(final, name), exact=True)
        time = np.asarray(before.state.time) + 1
        np.testing.assert_array_equal(after.state.time, np.where(done, 0, time))
        # a fresh game allows everything, and shows nobody as having taken
        assert np.asarray(ts.action_mask)[done].all()
        assert (np.asarray(ts.obs["vector"])[done] == 0).all()
        shown, reached = (ts.obs, ts.action_mask), (final.obs, final.action_mask)
        for new, old in zip(jax.tree.leaves(shown), jax.tree.leaves(reached), strict=True):
            np.testing.assert_array_equal(new[~done], old[~done])
    assert seen == {True, False}


def test_what_was_seen_last_in_a_game_is_kept_apart():
    # seats take at the first and third step of each three
    ends = [final for _, _, final, _ in play(commons(horizon=HORIZON))][HORIZON - 1 :: HORIZON]
    assert len(ends) == STEPS // HORIZON
    for final in ends:
        assert final.truncated.all()
        np.testing.assert_array_equal(final.obs["vector"], np.ones((GAMES, 3, 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_the_games_own_step_with_keys_split_from_the_one_that_is_carried(kind):
    env = commons(noise=0.5, **KINDS[kind])
    before, _, final, after = play(env)[0]
    key, step_key, _ = jax.random.split(before.key, 3)
    action = jnp.full((GAMES, 3), TAKE)
    own = jax.jit(jax.vmap(env.step))(jax.random.split(step_key, GAMES), before.state, action)[1]
    assert_equal(final, own, exact=False)
    assert (jax.random.key_data(after.key) == jax.random.key_data(key)).all()
    assert len(np.unique(np.asarray(final.reward))) == final.reward.size


@pytest.mark.parametrize(("kind", "branches"), [("fixed horizon", True), ("by chance", False)])
def test_a_fixed_horizon_pays_for_restarts_only_where_games_end(kind, branches):
    env = commons(**KINDS[kind])
    games, _ = jit_start(env, KEY, GAMES)
    program = str(jax.make_jaxpr(batched.step)(env, games, jnp.zeros((GAMES, 3), jnp.int32)))
    assert ("cond[" in program) == branches


def test_actions_of_a_box_are_moved_inside_its_bounds():
    env = Aim(num_seats=2)
    games, _ = jit_start(env, KEY, 2)
    wild, inside = jnp.full((2, 2, 1), 100.0), jnp.full((2, 2, 1), env.action_space.high[0])
    assert_equal(jit_step(env, games, wild)[1], jit_step(env, games, inside)[1], exact=True)
