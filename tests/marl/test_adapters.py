"""Games as PettingZoo and Gymnasium environments: the libraries' own tests, and the plain game's numbers."""

import contextlib
import functools
import io
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test
from pettingzoo.test.state_test import state_test
from pettingzoo.utils.conversions import parallel_to_aec

from algos.random_player import RandomPlayer
from marl import batched
from marl.adapters import to_gymnasium, to_pettingzoo
from marl.build import load, player
from marl.spaces import observation_space
from tests.files import classes
from tests.probes import Aim, Locks
from tests.toys import COOPERATE, DEFECT, LEAVE, TAKE, commons, dilemma

ROOT = Path(__file__).resolve().parents[2]
STACK = ("mechanism=[punishment,gifting,reputation]",)
CYCLES = 12
TOYS = {
    "masks and an end by chance": functools.partial(commons, horizon=0, end_prob=0.2, noise=0.5),
    "MultiDiscrete": functools.partial(Locks, num_seats=2),
    "Box": functools.partial(Aim, num_seats=2),
    "stack": lambda: load("env=prisoners_dilemma", "env.horizon=5", *STACK).env,
}


def official_tests(env):
    """PettingZoo's own tests, without their prints and their warnings about dict observations."""
    make = lambda: to_pettingzoo(env)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        parallel_api_test(make(), CYCLES)
        parallel_seed_test(make, CYCLES)
        api_test(parallel_to_aec(make()), CYCLES)
        seed_test(lambda: parallel_to_aec(make()), CYCLES)
        state_test(parallel_to_aec(make()), make(), CYCLES)


@pytest.mark.parametrize("game", classes())
def test_games_pass_the_tests_of_pettingzoo(game):
    official_tests(load(f"env={game}").env)


@pytest.mark.parametrize("kind", TOYS)
def test_masks_all_action_spaces_and_mechanisms_pass_the_tests_of_pettingzoo(kind):
    official_tests(TOYS[kind]())


def legal(env, infos):
    """A legal action for every live agent, from its own space and mask."""
    mask = lambda agent: infos[agent].get("action_mask")
    return {agent: env.action_space(agent).sample(mask(agent)) for agent in env.agents}


def episode(env, seed):
    """Rewards of an episode of legal random actions, [steps, A]."""
    for i, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(i)
    _, infos = env.reset(seed=seed)
    rewards = []
    while env.agents:
        _, reward, *_, infos = env.step(legal(env, infos))
        rewards.append([reward[agent] for agent in env.possible_agents])
    return np.array(rewards)


def test_a_seed_repeats_an_episode_and_no_seed_goes_on_with_the_stream():
    make = lambda seed=0: to_pettingzoo(TOYS["masks and an end by chance"](), seed)
    env = make()
    first, again, other, last = (episode(env, seed) for seed in (3, 3, None, 3))
    assert first.tolist() == again.tolist() == last.tolist()
    assert first.tolist() != other.tolist()
    second = make()
    episode(second, 3), episode(second, 3)
    assert episode(second, None).tolist() == other.tolist()
    assert episode(make(5), None).tolist() == episode(make(), 5).tolist()


def test_pettingzoo_steps_are_the_games_own():
    env = dilemma(horizon=2)
    zoo = to_pettingzoo(env)
    obs, infos = zoo.reset()
    assert zoo.agents == ["agent_0", "agent_1"]
    assert infos["agent_1"]["action_mask"].tolist() == [1, 1]
    obs, reward, terminated, truncated, infos = zoo.step({"agent_0": COOPERATE, "agent_1": DEFECT})
    assert reward == {"agent_0": 0.0, "agent_1": 5.0}
    assert type(reward["agent_0"]) is float
    assert infos["agent_0"]["events"] == {"cooperated": 1.0, "defected": 0.0}
    assert obs["agent_1"]["vector"].tolist() == [0, 1, 1, 0]
    assert zoo.state().tolist() == [1, 0, 0, 1, 0, 1, 1, 0]
    _, _, terminated, truncated, _ = zoo.step({"agent_0": DEFECT, "agent_1": DEFECT})
    assert (terminated, truncated) == (dict.fromkeys(reward, False), dict.fromkeys(reward, True))
    assert zoo.agents == []
    assert zoo.step({}) == ({}, {}, {}, {}, {})


def test_max_steps_cuts_an_episode():
    env = to_pettingzoo(dilemma(horizon=8), max_steps=3)
    _, infos = env.reset()
    for time in range(1, 4):
        _, _, terminated, truncated, infos = env.step(legal(env, infos))
        assert set(truncated.values()) == {time == 3}
    assert set(terminated.values()) == {False}
    assert env.agents == []


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ({"agent_0": 0}, "no action of agent_1"),
        ({"agent_0": 0, "agent_1": 2}, r"are not all in Discrete\(2\)"),
        ({"agent_0": 0.5, "agent_1": 1}, r"are not all in Discrete\(2\)"),
        ({"agent_0": "cooperate", "agent_1": 1}, r"are not all in Discrete\(2\)"),
        ({"agent_0": [0, 1], "agent_1": 1}, r"actions have shape \[2\], not \[\]"),
    ],
)
def test_what_is_no_action_is_refused_with_one_line(actions, message):
    env = to_pettingzoo(dilemma())
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.step(actions)


def test_masks_come_in_the_form_that_spaces_sample_with():
    infos = to_pettingzoo(Locks(num_seats=1)).reset()[1]
    assert [part.tolist() for part in infos["agent_0"]["action_mask"]] == [[1, 1, 1], [1, 1]]
    infos = to_pettingzoo(Aim(num_seats=1)).reset()[1]
    assert infos["agent_0"]["component_mask"].tolist() == [1]
    env = to_pettingzoo(commons())
    env.reset()
    infos = env.step({"agent_0": TAKE, "agent_1": LEAVE, "agent_2": LEAVE})[-1]
    assert infos["agent_0"]["action_mask"].tolist() == [1, 0, 0]


def test_spaces_bound_codes_stages_and_nothing_else():
    env = load("env=coin_game", "mechanism=[punishment]").env
    space = observation_space(env)
    assert space["grid"].high.reshape(-1, len(env.grid_codes)).max(0).tolist() == [
        c - 1 for c in env.grid_codes
    ]
    assert space["grid"].dtype == np.uint8
    assert np.isinf(space["vector"].high).all()
    assert (int(space["stage"].low), int(space["stage"].high)) == (0, 1)
    shown = to_pettingzoo(env).reset()[0]["agent_0"]
    assert shown["stage"].shape == ()
    assert space.contains(shown)


def vector_actions(vec, info, rng):
    """[num_envs, ...] random legal actions of Discrete environments."""
    return np.array([rng.choice(np.flatnonzero(row)) for row in info["action_mask"]])


@pytest.mark.parametrize("game", classes())
def test_games_keep_the_promises_of_a_gymnasium_vector(game):
    env = load(f"env={game}").env
    vec = to_gymnasium(env, 2)
    assert vec.num_envs == 2 * env.num_agents
    obs, info = vec.reset(seed=1)
    vec.action_space.seed(0)
    for _ in range(3):
        assert vec.observation_space.contains(obs)
        assert info["_events"].all()
        obs, reward, terminated, truncated, info = vec.step(vec.action_space.sample())
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float64, bool, bool)
        assert reward.shape == terminated.shape == truncated.shape == (vec.num_envs,)
    again, _ = vec.reset(seed=1)
    assert data_equivalence(again, to_gymnasium(env, 2, seed=1).reset()[0], exact=True)


@pytest.mark.parametrize("kind", ["masks and an end by chance", "stack"])
def test_a_vector_environment_is_a_seat_of_a_game_and_restarts_with_it(kind):
    env, games, seats = TOYS[kind](), 3, TOYS[kind]().num_agents
    vec = to_gymnasium(env, games)
    obs, info = vec.reset(seed=7)
    play, ts = batched.start(env, jax.random.split(jax.random.split(jax.random.key(7))[1])[0], games)
    step, rng, ends = jax.jit(batched.step), np.random.default_rng(0), 0
    flat = lambda tree: jax.tree.map(lambda x: np.asarray(x).reshape(games * seats, *x.shape[2:]), tree)
    for _ in range(CYCLES):
        assert data_equivalence(obs, flat(ts.obs), exact=True)
        assert (info["action_mask"] == flat(ts.action_mask)).all()
        action = vector_actions(vec, info, rng)
        obs, reward, terminated, truncated, info = vec.step(action)
        play, ts, final = step(env, play, action.reshape(games, seats).astype(np.int32))
        np.testing.assert_array_equal(reward, flat(ts.reward))
        done = np.repeat(ts.done, seats)
        np.testing.assert_array_equal(terminated | truncated, done)
        assert all((info["events"][k] == v).all() for k, v in flat(ts.events).items())
        assert ("final_obs" in info) == done.any()
        last = flat(final.obs)
        for i in np.flatnonzero(done):
            assert data_equivalence(info["final_obs"][i], {k: x[i] for k, x in last.items()}, exact=True)
            ends += 1
    assert ends >= seats


class Single(gymnasium.Env):
    """A game of one seat without chance as a plain Gymnasium environment."""

    def __init__(self, env):
        self.env, self.observation_space, self.action_space = env, observation_space(env), env.action_space

    def _info(self, ts):
        events = {k: np.float32(v[0]) for k, v in ts.events.items()}
        return {"action_mask": np.asarray(ts.action_mask[0], np.int8), "events": events}

    def reset(self, *, seed=None, options=None):
        self.state, ts = self.env.reset(jax.random.key(0))
        return jax.tree.map(lambda x: np.asarray(x[0]), ts.obs), self._info(ts)

    def step(self, action):
        self.state, ts = self.env.step(jax.random.key(0), self.state, np.array([action]))
        obs = jax.tree.map(lambda x: np.asarray(x[0]), ts.obs)
        return obs, float(ts.reward[0]), bool(ts.terminated), bool(ts.truncated), self._info(ts)


def test_everything_returned_is_as_from_gymnasiums_own_vector():
    env = commons(num_seats=1, horizon=3)
    sync = SyncVectorEnv([lambda: Single(env)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    vec = to_gymnasium(env, 2)
    assert vec.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert vec.observation_space == sync.observation_space
    assert vec.action_space == sync.action_space
    ours, theirs = vec.reset(), sync.reset()
    rng = np.random.default_rng(1)
    for time in range(1, 8):
        # of a step that ends a game the events stand where those of every step stand, and in final_info
        if len(ours) == 5 and ours[2].any() | ours[3].any():
            assert data_equivalence(ours[-1]["events"], theirs[-1]["final_info"]["events"], exact=True)
            theirs[-1]["events"] = ours[-1]["events"]
            assert time == 4 or time == 7
        assert data_equivalence(ours, theirs, exact=True)
        action = vector_actions(vec, ours[-1], rng)
        ours, theirs = vec.step(action), sync.step(action)


def test_episode_statistics_are_the_sums_by_hand():
    env = commons(horizon=0, end_prob=0.3, noise=0.5)
    vec = RecordEpisodeStatistics(to_gymnasium(env, 4))
    _, info = vec.reset(seed=0)
    rng, returns, lengths, ends = np.random.default_rng(0), np.zeros(12), np.zeros(12), 0
    for _ in range(CYCLES):
        _, reward, terminated, truncated, info = vec.step(vector_actions(vec, info, rng))
        done = terminated | truncated
        returns, lengths = returns + reward, lengths + 1
        if done.any():
            np.testing.assert_array_equal(info["_episode"], done)
            np.testing.assert_allclose(info["episode"]["r"], np.where(done, returns, 0))
            np.testing.assert_array_equal(info["episode"]["l"], np.where(done, lengths, 0))
        returns, lengths, ends = returns * ~done, lengths * ~done, ends + done.sum()
    assert ends >= 12


@pytest.mark.parametrize("kind", ["MultiDiscrete", "Box"])
def test_other_action_spaces_are_batched(kind):
    vec = to_gymnasium(TOYS[kind](), 3)
    vec.reset(seed=0)
    vec.action_space.seed(0)
    action = vec.action_space.sample()
    assert action.shape == (6, *vec.single_action_space.shape)
    _, reward, terminated, _, info = vec.step(action)
    if kind == "Box":
        np.testing.assert_allclose(reward, -((action[:, 0] - Aim.target) ** 2), rtol=1e-5)
        assert info["component_mask"].tolist() == [[1]] * 6
    else:
        np.testing.assert_allclose(reward, (action == Locks.target).mean(1))
    assert terminated.all()


def test_players_hold_the_other_seats():
    env = load("env=prisoners_dilemma", "env.horizon=4").env  # R -1, S -3, T 0, P -2
    vec = to_gymnasium(env, 2, players=player("tit_for_tat", [1]))
    assert vec.num_envs == 2
    vec.reset(seed=0)
    moves = [(DEFECT, 0.0), (DEFECT, -2.0), (COOPERATE, -3.0), (DEFECT, 0.0)]
    for move, pay in moves * 2:  # after the fourth, tit-for-tat has forgotten
        assert vec.step(np.array([move, COOPERATE]))[1].tolist() == [pay, -1.0]


def test_players_with_memory_forget_where_a_game_restarts():
    env = load("env=prisoners_dilemma", "env.horizon=3").env
    vec = to_gymnasium(env, 1, players=player("grim", [1]))
    vec.reset()
    pays = [vec.step([move])[1][0] for move in (DEFECT, COOPERATE, COOPERATE, COOPERATE)]
    assert pays == [0.0, -3.0, -3.0, -1.0]
    assert to_gymnasium(TOYS["stack"](), 2, players=RandomPlayer()).reset()[0]["vector"].shape[0] == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: to_gymnasium(dilemma(), 0), "num_envs=0: must be at least 1"),
        (lambda: to_gymnasium(dilemma(), 1).step([0, 1]), "call reset before step"),
        (lambda: to_gymnasium(dilemma(), 1).reset(options={"reset_mask": np.ones(2, bool)}), "restart by"),
        (
            lambda: to_pettingzoo(dilemma(), render_mode="rgb_array"),
            "render_mode=rgb_array: MatrixGame has none",
        ),
        (lambda: to_gymnasium(dilemma(), 1, render_mode="human"), "render_mode=human: MatrixGame has none"),
    ],
)
def test_misuse_is_refused_with_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Drawn(type(commons())):
    """A commons that draws who took."""

    def picture(self, state):
        return np.repeat(np.where(state.took, 255, 0)[None, :, None], 3, 2).astype(np.uint8)


def test_games_that_draw_themselves_are_rendered():
    env = Drawn(growth=2.0, noise=0.0, end_prob=0.0, num_seats=2, horizon=8, blind=False)
    zoo, vec = to_pettingzoo(env, render_mode="rgb_array"), to_gymnasium(env, 2, render_mode="rgb_array")
    zoo.reset(), vec.reset()
    zoo.step({"agent_0": TAKE, "agent_1": LEAVE})
    vec.step([LEAVE, LEAVE, LEAVE, TAKE])
    assert zoo.render()[0].tolist() == [[255] * 3, [0] * 3]
    assert zoo.render().dtype == np.uint8
    assert [frame[0, :, 0].tolist() for frame in vec.render()] == [[0, 0], [0, 0], [0, 255], [0, 255]]
    assert zoo.metadata["render_modes"] == ["rgb_array"]


def test_without_adapters_nobody_pays_for_pettingzoo():
    code = "import sys, marl.build, marl.adapters; print([m for m in ('pettingzoo',) if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == "[]"
