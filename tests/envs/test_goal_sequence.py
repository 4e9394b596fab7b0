"""Goal Sequence: hits, penalties and the pointer by hand, what is seen, trials and episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.goal_sequence import FORWARD, LEFT, RIGHT, GoalSequence
from marl.build import load
from marl.config import ConfigError
from tests.envs.grid_tools import KEY, cells, preset, put, squares
from tests.probes import jit_reset, jit_step

NORTH, EAST, SOUTH, WEST = range(4)
LEARNER, ORACLE = 0, 1
step = jax.jit(GoalSequence.step)
reset = jax.jit(GoalSequence.reset)


def game(**fields):
    """Free first steps, no noise, the demonstrator always seen; other fields as given."""
    plain = {"forced_start": False, "noise_prob": 0.0, "last_visible_prob": 1.0}
    return preset("goal_sequence").replace(**plain | fields)


def begin(env, goals, order, *places):
    """A state with goals at (row, column), the order from its number 1 on, seats at (row, column, facing)."""
    state = reset(env, KEY)[0]
    whole = np.resize(np.array(order), env.num_targets)
    whole = jnp.asarray(np.roll(whole, 1), jnp.int32)  # number 0 comes before the first target
    return put(env, state.replace(goals=cells(env, *goals), order=whole, time=jnp.int32(1)), *places)


def walk(env, state, *actions):
    """Rewards of the learner for its actions, while the demonstrator turns; then state and TimeStep."""
    rewards = []
    for action in actions:
        state, ts = step(env, KEY, state, jnp.array([action, LEFT], jnp.int32))
        rewards.append(float(ts.reward[LEARNER]))
    return rewards, state, ts


def rows(ts):
    """What the learner sees, a text a row."""
    return ["".join(map(str, row)) for row in ts.obs["grid"][LEARNER, ..., 0].tolist()]


GOALS = [(3, 3), (3, 5), (0, 0)]
AWAY = (6, 6, NORTH)


def test_hits_and_penalties_move_the_target_by_hand():
    """Order 0 1 1 2: hit, a wrong goal on the way back, hit again ..."""
    env = game()
    state = begin(env, GOALS, [0, 1, 1, 2], (3, 2, EAST), AWAY)
    assert env.target(state)[LEARNER] == 0
    rewards, state, ts = walk(env, state, FORWARD)
    assert rewards == [1.0]
    assert ts.events["hit"].tolist() == [1.0, 0.0]
    assert (int(state.pointer[LEARNER]), int(env.target(state)[LEARNER])) == (1, 1)
    rewards, state, _ = walk(env, state, FORWARD, FORWARD)  # (3, 4), then goal 1
    assert rewards == [0.0, 1.0]
    assert env.target(state)[LEARNER] == 1  # the third target, the same goal again
    rewards, state, _ = walk(env, state, LEFT, LEFT, FORWARD, FORWARD)  # back, over goal 0
    assert rewards == [0.0, 0.0, 0.0, -1.0]
    assert (int(state.pointer[LEARNER]), int(env.target(state)[LEARNER])) == (1, 1)  # a place back
    assert state.pointer[ORACLE] == 0


def test_wrong_goals_from_the_start_read_the_order_backwards_as_a_circle():
    env = game(num_targets=4)
    state = begin(env, GOALS, [1, 1, 2, 1], (3, 2, EAST), AWAY)  # order from number 0: 1 1 1 2
    assert state.order.tolist() == [1, 1, 1, 2]
    rewards, state, _ = walk(env, state, FORWARD, LEFT, LEFT, FORWARD, LEFT, LEFT, FORWARD)
    assert rewards == [-1.0, 0, 0, 0, 0, 0, -1.0]
    assert state.pointer[LEARNER] == -2
    assert env.target(state)[LEARNER] == 2  # number -1, the last


def test_with_hits_only_a_penalty_leaves_the_target():
    env = game(progress="hits_only", penalty=0.25)
    state = begin(env, GOALS, [1, 0], (3, 2, EAST), AWAY)
    rewards, state, _ = walk(env, state, FORWARD, FORWARD, FORWARD)
    assert rewards == [-0.25, 0.0, 1.0]
    assert state.pointer[LEARNER] == 1


def test_turning_on_a_target_and_pushing_against_the_border_count_only_as_in_the_repository():
    """On goal 2 in the corner, which is the target, then is not."""
    for exact, expected in ((False, [0.0, 0.0, 0.0]), (True, [1.0, 0.0, -1.0])):
        env = game(repo_exact=exact)
        state = begin(env, GOALS, [2, 1, 1], (0, 0, WEST), AWAY)
        rewards, state, _ = walk(env, state, LEFT, RIGHT, FORWARD)  # pays; a wrong goal, turned; pushed
        assert rewards == expected
        assert squares(env, state.avatars.cell)[LEARNER] == (0, 0)


@pytest.mark.parametrize(
    ("place", "after"),
    [
        ((0, 3, NORTH), (0, 3)),
        ((3, 6, EAST), (3, 6)),
        ((6, 2, SOUTH), (6, 2)),
        ((2, 0, WEST), (2, 0)),
        ((2, 2, NORTH), (1, 2)),
        ((2, 2, EAST), (2, 3)),
        ((2, 2, SOUTH), (3, 2)),
        ((2, 2, WEST), (2, 1)),
    ],
)
def test_steps_and_borders(place, after):
    env = game()
    state = begin(env, [(5, 5), (5, 4), (5, 3)], [0], place, AWAY)
    _, state, _ = walk(env, state, FORWARD)
    assert squares(env, state.avatars.cell)[LEARNER] == after
    assert state.avatars.facing.tolist() == [place[2], WEST]


@pytest.mark.parametrize(
    ("facing", "expected"),
    [
        (NORTH, ["000", "002", "d50"]),
        (EAST, ["030", "200", "054"]),
        (SOUTH, ["000", "040", "05d"]),
        (WEST, ["000", "0d0", "450"]),
    ],
)
def test_windows_by_hand_in_all_directions(facing, expected):
    """Oneself (5) at (3, 3); goals 2 at (2, 4), 3 at (3, 5), 4 at (4, 3); the demonstrator (d) at (3, 2)."""
    env = game()
    state = begin(env, [(2, 4), (3, 5), (4, 3)], [0], (3, 3, (facing + 1) % 4), (3, 2, NORTH))
    _, _, ts = walk(env, state, LEFT)
    assert rows(ts) == [row.replace("d", "5") for row in expected]
    looks = [float(facing == direction) for direction in range(4)]
    assert ts.obs["vector"][LEARNER].tolist() == [1, 0, 0, 0, 0, 1, 0, *looks]  # first trial, no reward
    assert ts.events["saw"].tolist() == [1.0, 0.0]
    _, _, ts = walk(env.replace(first_visible_prob=0.0, last_visible_prob=0.0), state, LEFT)
    assert rows(ts) == [row.replace("d", "0") for row in expected]
    assert not ts.events["saw"].any()


def test_beyond_the_border_is_wall_and_a_goal_hides_the_demonstrator():
    env = game()
    state = begin(env, [(0, 1), (6, 0), (6, 1)], [0], (0, 0, WEST), (1, 0, NORTH))
    _, state, ts = walk(env, state, RIGHT)  # looks north from the corner
    assert ts.obs["grid"][LEARNER, ..., 0].tolist() == [[1, 1, 1], [1, 1, 1], [1, 5, 2]]
    _, _, ts = walk(
        env, put(env, state, (0, 0, NORTH), (0, 1, NORTH)), RIGHT
    )  # east: the goal, and on it the other
    assert ts.obs["grid"][LEARNER, ..., 0].tolist() == [[1, 0, 0], [1, 2, 0], [1, 5, 0]]


def test_an_oracle_sees_its_target_and_never_the_learner_a_peer_sees_goals():
    goals, places = [(2, 3), (1, 2), (2, 2)], ((2, 4, NORTH), (3, 3, WEST))
    for who, expected in (
        ("oracle", [[2, 0, 0], [2, 3, 0], [0, 5, 0]]),
        ("peer", [[3, 0, 0], [4, 2, 0], [0, 5, 0]]),
    ):
        env = game(demonstrator=who)
        state = begin(env, goals, [0], *places)
        state, ts = step(env, KEY, state, jnp.array([LEFT, RIGHT], jnp.int32))
        assert ts.obs["grid"][ORACLE, ..., 0].tolist() == expected
        trial = ts.obs["vector"][ORACLE, :4].tolist()
        assert trial == ([1, 0, 0, 0] if who == "oracle" else [0, 0, 0, 1])  # a peer is in its last


def test_the_compass_tells_the_oracle_the_way():
    env = game(compass=True)
    for facing, way in ((NORTH, [2, -1]), (EAST, [-1, -2]), (SOUTH, [-2, 1]), (WEST, [1, 2])):
        state = begin(env, [(1, 2), (6, 0), (6, 1)], [0], (0, 0, NORTH), (3, 3, (facing + 1) % 4))
        _, _, ts = walk(env, state, LEFT)
        assert ts.obs["vector"][:, -2:].tolist() == [[0, 0], way]


def test_noise_shows_the_oracle_a_later_target_until_its_next_hit():
    """Of the order 0 1 2 0 1 2 ...: after the hit of 0 it must go to 1 and is shown the target 10 places on, 2."""
    goals = [(3, 3), (3, 4), (0, 0)]
    for prob, shown in ((1.0, 2), (0.0, 1)):
        env = game(noise_prob=prob)
        state = begin(env, goals, [0, 1, 2], (6, 0, WEST), (3, 2, EAST))
        assert env._shown(state) == 0
        state, ts = step(env, KEY, state, jnp.array([LEFT, FORWARD], jnp.int32))
        assert ts.reward.tolist() == [0.0, 1.0]
        assert env._shown(state) == shown
        assert env.target(state).tolist() == [0, 1]
        assert ts.obs["grid"][ORACLE, 1, 1, 0] == (2 if prob else 3)  # goal 1 just ahead
    still = step(game(noise_prob=0.0), KEY, state.replace(misled=jnp.bool_(True)), jnp.array([LEFT, LEFT]))[0]
    assert still.misled
    hit = step(game(noise_prob=0.0), KEY, still, jnp.array([LEFT, RIGHT]))[0]
    hit = step(game(noise_prob=0.0), KEY, hit, jnp.array([LEFT, FORWARD]))[0]
    assert not hit.misled


def play(env, key, steps, turns=False):
    """States and TimeSteps [steps] of random actions, its start not included; `turns` on each goal entered."""

    def one(now, key):
        state, ts = now
        act, go = jax.random.split(key)
        action = jax.random.randint(act, (2,), 0, 3)
        entered = (ts.reward != 0) & (action == FORWARD)
        state, ts = jit_step(env, go, state, jnp.where(entered & turns, LEFT, action))
        return (state, ts), (state, ts)

    first, ts = jit_reset(env, key)
    return first, ts, jax.lax.scan(one, (first, ts), jax.random.split(key, steps))[1]


played = jax.jit(jax.vmap(play, in_axes=(None, 0, None)), static_argnums=2)


@pytest.fixture(scope="module")
def episodes():
    """64 episodes of random play in the default game."""
    env = preset("goal_sequence")
    return env, *played(env, jax.random.split(KEY, 64), env.fixed_horizon)


def test_trials_begin_alike_and_episodes_differ(episodes):
    env, first, _, (states, ts) = episodes
    for k in (29, 59, 89):
        for name in ("cell", "facing"):
            found, start = (getattr(s, name) for s in (states.avatars, first.start))
            assert (np.asarray(found)[:, k] == np.asarray(start)).all()
        assert (np.asarray(states.pointer)[:, k] == 0).all()
        assert (np.asarray(states.goals)[:, k] == np.asarray(first.goals)).all()
    assert (np.asarray(states.order) == np.asarray(first.order)[:, None]).all()
    assert len({tuple(row) for row in np.asarray(first.goals).tolist()}) > 50
    assert len({tuple(row) for row in np.asarray(first.order).tolist()}) == 64
    assert np.asarray(ts.terminated).nonzero()[1].tolist() == [119] * 64
    starts = set(np.asarray(first.start.cell).ravel().tolist())
    assert [squares(env, [s])[0] for s in sorted(starts)] == [(3, 0), (3, 1)]
    assert not np.isin(np.asarray(first.goals), list(starts)).any()
    assert (
        np.sort(np.asarray(first.goals), axis=1)[:, 1:] > np.sort(np.asarray(first.goals), axis=1)[:, :-1]
    ).all()


def test_the_first_step_of_a_trial_is_forced(episodes):
    env, _, ts, (states, later) = episodes
    assert ts.action_mask.tolist()[0] == [[False, False, True]] * 2
    forced = ~np.asarray(later.action_mask).all((-1, -2))
    assert forced[0].nonzero()[0].tolist() == [29, 59, 89, 119]
    for k in (0, 30, 60, 90):
        assert (np.asarray(states.avatars.cell)[:, k] == np.asarray(env.board.number[3, 1])).all()
        assert (np.asarray(states.avatars.facing)[:, k] == EAST).all()


def test_the_demonstrator_fades_out_from_trial_to_trial(episodes):
    """Seen with probability 1, 2/3, 1/3, 0; 64 x 30 steps: within .05 (four standard deviations)."""
    _, _, _, (_, ts) = episodes
    saw = np.asarray(ts.events["saw"])
    assert not saw[..., ORACLE].any()
    share = [saw[:, max(30 * k - 1, 0) : 30 * k + 29, LEARNER].mean() for k in range(4)]
    np.testing.assert_allclose(share, [1, 2 / 3, 1 / 3, 0], atol=0.05)


def test_rewards_are_told_by_trial(episodes):
    _, _, _, (_, ts) = episodes
    reward = np.asarray(ts.reward)
    for k in range(4):
        np.testing.assert_allclose(
            np.asarray(ts.events[f"trial_{k + 1}"]).sum(1), reward[:, 30 * k : 30 * k + 30].sum(1)
        )
    np.testing.assert_allclose(reward, np.asarray(ts.events["hit"]) - np.asarray(ts.events["missed"]))


def test_in_weights_starts_differ_and_the_order_stays():
    env = preset("goal_sequence_in_weights")
    first = jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, 64))[0]
    assert len({tuple(row) for row in np.asarray(first.order).tolist()}) == 1
    everything = np.concatenate([first.goals, first.start.cell], axis=1)
    assert all(len(set(row)) == 5 for row in everything.tolist())
    assert set(np.unique(everything)) == set(range(49))
    assert set(np.asarray(first.start.facing).ravel().tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env.view=4", "env.view=4: must be odd and at least 3"),
        ("env.progress=score", "env.progress=score: must be one of net_score, hits_only"),
        ("env.layout=clean_up", "env.layout=clean_up: must have 3 rows"),
        ("env.trial_steps=0", "env.trial_steps=0: must be at least 1"),
        ("env.random_starts=true", "env.forced_start=true: must be false with env.random_starts=true"),
    ],
)
def test_fields_that_do_not_fit_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load("env=goal_sequence", override)


def test_a_picture_shows_goals_and_seats():
    env = game()
    image = env.picture(begin(env, GOALS, [0], (3, 2, EAST), AWAY))
    assert image.shape == (7 * 34 + 1, 7 * 34 + 1, 3)


def test_an_instance_fixes_the_order_and_goals_unless_they_are_minus_one():
    env, draw = game(num_targets=4), jax.jit(GoalSequence.draw_instance)
    drawn = draw(env, KEY)
    assert drawn.shape == (7,)
    state = reset(env.replace(instance=drawn), jax.random.key(5))[0]
    assert jnp.concatenate([state.goals, state.order]).tolist() == drawn.tolist()
    scattered = game(num_targets=4, random_starts=True)
    drawn = draw(scattered, KEY)
    assert drawn[:3].tolist() == [-1, -1, -1]
    states = [reset(scattered.replace(instance=drawn), key)[0] for key in jax.random.split(KEY, 4)]
    assert all((state.order == drawn[3:]).all() for state in states)
    assert len({tuple(state.goals.tolist()) for state in states}) > 1


def test_a_longer_episode_is_observed_in_the_same_size():
    env = game(trial_steps=1).lasting(6)
    state, ts = reset(env, KEY)
    shown = []
    for _ in range(6):
        shown.append(int(ts.obs["vector"][LEARNER, :4].argmax()))
        state, ts = step(env, KEY, state, jnp.array([LEFT, LEFT], jnp.int32))
    assert shown == [0, 1, 2, 3, 3, 3]
    assert bool(ts.done)


def test_entering_goals_blindly_costs_unless_turns_on_them_count():
    """Which is why learners keep off all goals by our rule, and not by the repository's (s.e. .004 and .006)."""

    @jax.jit
    def score(env):
        episode = lambda key: play(env, key, env.fixed_horizon, turns=True)[2][1].reward[:, LEARNER].sum()
        return jax.vmap(episode)(jax.random.split(KEY, 8192)).mean() / env.num_trials

    env = preset("goal_sequence")
    assert score(env) < -0.13
    assert abs(score(env.replace(repo_exact=True))) < 0.03
