"""Donor Game: its schedules, the table of constant givers, traces, punishment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.donor_game import DonorGame
from marl.build import build_env
from marl.config import compose
from tests.probes import jit_reset, jit_step


def game(*overrides, name="donor_game") -> DonorGame:
    return build_env(compose([f"env={name}", *(f"env.{o}" for o in overrides)]))


def play(env, choose, key=0):
    """All TimeSteps of an episode; `choose` gets the TimeStep and gives the deciding seats' action."""
    step = jax.jit(env.step)
    state, ts = jit_reset(env, jax.random.key(key))
    shown, wait = [ts], env.action_space.n - 1
    for t in range(env.fixed_horizon):
        decides = np.asarray(ts.obs["vector"][:, 3]) == 1
        action = jnp.where(decides, choose(ts), wait)
        state, ts = step(jax.random.key(t), state, action)
        shown.append(ts)
    return shown


# Mean final resources if everybody always gives the share f of its resources.
TABLE = {
    "halves": {0: 10, 0.25: 52.0, 0.5: 341, 0.75: 2415, 1: 15360},
    "alternating": {0: 10, 0.25: 53.5, 0.5: 394, 0.75: 3483, 1: 30720},
}


@pytest.mark.parametrize("schedule", TABLE)
def test_constant_givers_end_with_the_resources_of_the_table(schedule):
    env = game(f"schedule={schedule}", "gift_levels=5")
    for i, (share, expected) in enumerate(TABLE[schedule].items()):
        last = play(env, lambda ts, i=i: i, key=i)[-1]
        final = np.asarray(last.events["final_resources"])
        assert final.mean() == pytest.approx(expected, rel=2e-3), share
        np.testing.assert_allclose(last.reward, np.log((1 + final) / 11), rtol=1e-5)
        assert bool(last.truncated)


def test_a_reward_can_be_the_final_resources():
    last = play(game("reward=final", "schedule=alternating"), lambda ts: 10)[-1]
    assert np.asarray(last.reward).mean() == pytest.approx(1.0)


def test_the_final_resources_of_two_games_add_up_to_their_mean():
    shown = play(game("num_games=2", "schedule=alternating"), lambda ts: 10)
    ends = [np.asarray(ts.events["final_resources"]).mean() for ts in shown]
    assert np.flatnonzero(ends).tolist() == [12, 24]
    assert sum(ends) == pytest.approx(30720)


@pytest.mark.parametrize("num_players", [6, 12])
@pytest.mark.parametrize("schedule", TABLE)
def test_each_pair_of_the_two_sides_meets_once_in_each_role(schedule, num_players):
    env = game(f"schedule={schedule}", f"num_players={num_players}", "num_games=2")
    state, _ = jit_reset(env, jax.random.key(1))
    games = []
    for t in range(2 * num_players):
        met, gives = (np.asarray(x) for x in env._pairs(state.replace(time=jnp.int32(t))))
        assert gives.sum() == num_players // 2
        np.testing.assert_array_equal(met[met], np.arange(num_players))
        games.append([(i, met[i]) for i in range(num_players) if gives[i]])
    first, second = games[:num_players], games[num_players:]
    pairs = [pair for roundly in first for pair in roundly]
    assert len(set(pairs)) == len(pairs) == num_players**2 // 2
    assert set(pairs) == {(b, a) for a, b in pairs}
    assert [{(b, a) for a, b in one} for one in second] == [set(one) for one in first]
    sides = [np.asarray(state.place)[one[0][0]] < num_players // 2 for one in first]
    half = num_players // 2
    turns = [t % 2 == 0 for t in range(num_players)]
    if schedule == "halves":
        turns = [(t % half + t // half) % 2 == 0 for t in range(num_players)]
    assert sides == turns


def test_a_trace_holds_the_receivers_act_and_that_of_its_own_receiver_before():
    env = game("trace_length=2")
    record = {}  # seat: its acts as a donor and what it had seen then
    step, (state, ts) = jax.jit(env.step), jit_reset(env, jax.random.key(2))
    for t in range(12):
        met, gives = (np.asarray(x) for x in env._pairs(state))
        expected = [([1, *record[m][0]] if m in record else [0, 0, 0, 0]) for m in met]
        older = [([1, *record[m][1]] if m in record and record[m][1] else [0, 0, 0, 0]) for m in met]
        seen = np.asarray(ts.obs["vector"][:, 4:]).reshape(12, 2, 4)
        np.testing.assert_allclose(seen[:, 0], expected, rtol=1e-6)
        np.testing.assert_allclose(seen[:, 1], older, rtol=1e-6)
        action = np.where(gives, (np.arange(12) + t) % 11, 11)
        acts = {i: ([action[i] / 10, 0, 0], record.get(met[i], (None,))[0]) for i in np.flatnonzero(gives)}
        state, ts = step(jax.random.key(t), state, jnp.asarray(action))
        record |= acts


def test_punishment_costs_its_giver_and_twice_as_much_its_receiver():
    env = game("num_players=2", "trace_length=1", name="donor_game_punishment")
    assert env.action_space.n == 17
    state, ts = jit_reset(env, jax.random.key(0))
    donor = int(np.argmax(ts.obs["vector"][:, 3]))
    action = jnp.full(2, 16).at[donor].set(11)  # spends a fifth
    state, ts = jit_step(env, jax.random.key(0), state, action)
    found = np.asarray(state.resources)[[donor, 1 - donor]]
    np.testing.assert_allclose(found, [8, 6])
    np.testing.assert_allclose(np.asarray(ts.obs["vector"])[1 - donor, 4:], [1, 0, 0.2, 0], rtol=1e-6)
    assert float(ts.events["punished"][donor]) == pytest.approx(0.2)
    rich = state.replace(resources=jnp.array([10.0, 10.0]).at[donor].set(100.0), time=jnp.int32(0))
    found = jit_step(env, jax.random.key(0), rich, action.at[donor].set(15))[0].resources
    np.testing.assert_allclose(found, 0.0)  # never below nothing


def test_a_refusal_moves_nothing_and_is_seen():
    env = game("num_players=2", "trace_length=1", name="donor_game_refusal")
    state, ts = jit_reset(env, jax.random.key(0))
    donor = int(np.argmax(ts.obs["vector"][:, 3]))
    state, ts = jit_step(env, jax.random.key(0), state, jnp.full(2, 12).at[donor].set(11))
    np.testing.assert_allclose(state.resources, 10.0)
    np.testing.assert_allclose(np.asarray(ts.obs["vector"])[1 - donor, 4:], [1, 0, 0, 1])
    assert float(ts.events["refused"][donor]) == 1.0
    assert float(ts.events["defected"][donor]) == 0.0


def test_only_who_decides_may_do_more_than_wait():
    env = game()
    _, ts = jit_reset(env, jax.random.key(0))
    mask, decides = np.asarray(ts.action_mask), np.asarray(ts.obs["vector"][:, 3]) == 1
    assert decides.sum() == 6
    np.testing.assert_array_equal(mask, decides[:, None] ^ (np.arange(12) == 11))


@pytest.mark.parametrize(
    "override",
    ["schedule=any", "reward=none", "num_players=5", "gift_levels=1", "num_games=3", "endowment=0"],
)
def test_bad_fields_are_named(override):
    with pytest.raises(ValueError, match=f"env.{override.split('=')[0]}"):
        game(override).check()
