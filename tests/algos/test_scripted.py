"""Scripted players: hand-played traces, totals, foreign stages, restarts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnasium import spaces

from algos.scripted import STRATEGIES, Scripted
from envs.matrix_game import MatrixGame
from envs.public_goods import PublicGoods
from marl.build import build_env, load, player
from marl.config import compose, groups
from marl.environment import Mechanism
from marl.learner import start, train
from marl.population import Mixture
from tests.probes import jit_reset, jit_step

KEY = jax.random.key(0)
OTHER = "CCDCDDCCCC"
TRACES = {  # what each plays against OTHER; generous and naive prober at probability 0
    "always_cooperate": "CCCCCCCCCC",
    "always_defect": "DDDDDDDDDD",
    "tit_for_tat": "CCCDCDDCCC",
    "suspicious_tit_for_tat": "DCCDCDDCCC",
    "reverse_tit_for_tat": "DDDCDCCDDD",
    "tit_for_two_tats": "CCCCCCDCCC",
    "hard_tit_for_tat": "CCCDDDDDDC",
    "generous_tit_for_tat": "CCCDCDDCCC",
    "naive_prober": "CCCDCDDCCC",
    "grim": "CCCDDDDDDD",
    "win_stay_lose_shift": "CCCDDCDDDD",
    "defect_once": "DCCCCCCCCC",
    "alternate": "CDCDCDCDCD",
    "alternate_defect_first": "DCDCDCDCDC",
}
GAME = MatrixGame(
    payoff=np.array([[[3, 3], [0, 5]], [[5, 0], [1, 1]]], np.float32),
    continuation_prob=1.0,
    horizon=1000,
    ends_by_chance=False,
)


class StagedState(struct.PyTreeNode):
    inner: object
    foreign: jax.Array  # [] bool


class Staged(Mechanism):
    """After every round a stage follows in which only the actions 3 and 4 are legal; 2 never is."""

    action_space = spaces.Discrete(5)
    fixed_horizon = None

    def reset(self, key):
        state, ts = jit_reset(self.env, key)
        foreign = jnp.bool_(False)
        return StagedState(state, foreign), self._mask(ts, foreign)

    def step(self, key, state, action):
        inner, ts = jit_step(self.env, key, state.inner, action)
        keep = lambda old, new: jnp.where(state.foreign, old, new)
        inner = jax.tree.map(keep, state.inner, inner)
        seen = self.env._observe(inner, ts.reward, ts.terminated, ts.truncated)
        return StagedState(inner, ~state.foreign), self._mask(seen, ~state.foreign)

    def _mask(self, ts, foreign):
        stage = jnp.where(foreign, jnp.array([0, 0, 0, 1, 1], bool), jnp.array([1, 1, 0, 0, 0], bool))
        return ts.replace(action_mask=jnp.broadcast_to(stage, (2, 5)))


class Continuous(Mechanism):
    action_space = spaces.Box(0.0, 1.0, (1,))


class Silent(Mechanism):
    """Does not tell who cooperated."""

    def reset(self, key):
        state, ts = jit_reset(self.env, key)
        return state, ts.replace(events={})


class Narrow(Mechanism):
    """Hides the other's action."""

    def reset(self, key):
        state, ts = jit_reset(self.env, key)
        return state, ts.replace(obs={"vector": ts.obs["vector"][:, :2]})


def scripted(strategy, forgive_prob=0.0, probe_prob=0.0):
    return Scripted(strategy=strategy, forgive_prob=forgive_prob, probe_prob=probe_prob)


@functools.partial(jax.jit, static_argnames=("seat", "greedy"))
def respond(algo, env, other, key, seat=0, greedy=False):
    """[T] actions of one seat against the fixed actions `other` [T] of the other seat."""
    state, ts = jit_reset(env, key)
    view = lambda ts: jax.tree.map(lambda x: x[None], ts).take([seat], axis=1)  # E = 1, A = 1

    def step(carry, now):
        (state, ts, memory), (other, key) = carry, now
        action, memory, _ = algo.act(env, (), memory, view(ts), key, greedy)
        own = action[0, 0]
        joint = jnp.stack([own, other] if seat == 0 else [other, own])
        state, ts = jit_step(env, key, state, joint)
        return (state, ts, memory), own

    carry = state, ts, algo.initial_carry(env, view(ts))
    return jax.lax.scan(step, carry, (other, jax.random.split(key, other.shape[0])))[1]


def numbers(text):
    return jnp.array(["CD".index(c) for c in text], jnp.int32)


def text(actions):
    return "".join("CD"[a] for a in actions)


def match(env, first, second, num_episodes=1, **probs):
    """Events and episode returns of two scripted players in one game, through the training loop."""
    algo = Mixture(members=(scripted(first, **probs), scripted(second, **probs)), holder=(0, 1))
    algo.check(env)
    runner = start(algo, env, KEY, 2)
    updates = jnp.arange(num_episodes * env.fixed_horizon)
    _, (tally, _) = jax.jit(train)(algo, env, runner, KEY, updates)
    return jax.tree.map(lambda x: np.asarray(x.sum(0)) / 2, tally)


@pytest.fixture(scope="module")
def played():
    """Actions of every strategy against OTHER, alone and with foreign stages; one compilation."""
    staged_other = jnp.stack([numbers(OTHER), jnp.full(len(OTHER), 3)], axis=1).ravel()

    def everyone(key):
        plain = {s: respond(scripted(s), GAME, numbers(OTHER), key) for s in STRATEGIES}
        staged = {s: respond(scripted(s), Staged(env=GAME), staged_other, key, seat=1) for s in STRATEGIES}
        return plain, staged

    return jax.tree.map(np.asarray, jax.jit(everyone)(KEY))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_plays_its_hand_played_trace(strategy, played):
    scripted(strategy).check(GAME)
    assert text(played[0][strategy]) == TRACES[strategy]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_inserted_stage_takes_the_lowest_legal_action_and_leaves_the_memory_alone(strategy, played):
    scripted(strategy).check(Staged(env=GAME))
    actions = played[1][strategy]
    assert text(actions[::2]) == TRACES[strategy]
    assert set(actions[1::2].tolist()) == {3}


def test_an_illegal_choice_gives_way_to_the_lowest_legal_action():
    _, ts = jax.jit(jax.vmap(GAME.reset))(jax.random.split(KEY, 1))
    for mask, expected in (([0, 1, 1], 1), ([0, 0, 1], 2), ([1, 1, 1], 0)):
        masked = ts.replace(action_mask=jnp.broadcast_to(jnp.array(mask, bool), (1, 2, 3)))
        action, _, _ = scripted("always_cooperate").act(GAME, (), (), masked, KEY)
        assert action.tolist() == [[expected, expected]]
        assert action.dtype == jnp.int32


@pytest.mark.parametrize(
    ("first", "second", "totals"),
    [
        ("always_defect", "always_cooperate", (100, 0)),
        ("defect_once", "always_cooperate", (82, 72)),
        ("tit_for_tat", "always_defect", (45, 55)),
        ("grim", "defect_once", (90, 10)),
    ],
)
def test_totals_over_ten_rounds_of_the_prisoners_dilemma_of_akata(first, second, totals):
    env = build_env(compose(["env=prisoners_dilemma_akata"]))
    tally = match(env, first, second)
    assert tally.episodes == 1
    assert tally.return_.tolist() == list(totals)


def test_tit_for_two_tats_forgives_a_single_defection_for_ever():
    env = build_env(compose(["env=prisoners_dilemma_akata"]))
    assert match(env, "tit_for_two_tats", "alternate").events["cooperated"].tolist() == [10, 5]


def test_memory_starts_anew_with_every_episode():
    env = GAME.replace(horizon=3)  # grim against D C C: first C, then two defections
    tally = match(env, "grim", "defect_once", num_episodes=4)
    assert tally.events["cooperated"].tolist() == [4, 8]


def test_alternators_always_miss_each_other_in_the_battle_of_the_sexes():
    env = build_env(compose(["env=battle_of_the_sexes"]))
    assert match(env, "alternate", "alternate").return_.tolist() == [85, 85]
    assert match(env, "alternate", "alternate_defect_first").return_.tolist() == [0, 0]


def test_generous_tit_for_tat_forgives_as_often_as_it_says():
    other = jnp.ones(20_001, jnp.int32)
    algo = scripted("generous_tit_for_tat", forgive_prob=0.3)
    played = respond(algo, GAME, other, KEY)
    assert played[0] == 0
    assert abs((played[1:] == 0).mean() - 0.3) < 0.013  # 4 standard errors: 4 * 0.458 / 141
    assert text(respond(algo, GAME, numbers(OTHER), KEY, greedy=True)) == TRACES["tit_for_tat"]


def test_naive_prober_defects_unprovoked_as_often_as_it_says_but_never_first():
    algo = scripted("naive_prober", probe_prob=0.1)
    played = respond(algo, GAME, jnp.zeros(20_001, jnp.int32), KEY)
    assert abs((played[1:] == 1).mean() - 0.1) < 0.0085  # 4 standard errors: 4 * 0.3 / 141
    always = scripted("naive_prober", probe_prob=1.0)
    assert text(respond(always, GAME, numbers("CCC"), KEY)) == "CDD"


def test_probabilities_can_be_mapped():
    other = jnp.ones(4001, jnp.int32)
    algo = scripted("generous_tit_for_tat")
    rate = lambda p: (respond(algo.replace(forgive_prob=p), GAME, other, KEY) == 0)[1:].mean()
    np.testing.assert_allclose(jax.vmap(rate)(jnp.array([0.0, 0.5, 1.0])), [0, 0.5, 1], atol=0.032)


def test_in_public_goods_tit_for_tat_follows_the_majority_of_the_others():
    env = PublicGoods(endowment=20.0, multiplier=1.6, num_players=4, horizon=10)
    algo = scripted("tit_for_tat")
    algo.check(env)
    state, _ = jit_reset(env, KEY)
    for joint, expected in (
        ([0, 0, 0, 1], [0, 0, 0, 0]),
        ([0, 0, 1, 1], [1, 1, 0, 0]),
        ([0, 1, 1, 1], [1] * 4),
    ):
        _, ts = jit_step(env, KEY, state, jnp.array(joint))
        action, _, _ = algo.act(env, (), (), jax.tree.map(lambda x: x[None], ts), KEY)
        assert action.tolist() == [expected]


def test_every_strategy_has_a_config_of_its_name():
    names = [n for n in groups()["algo"] if n in STRATEGIES]
    assert sorted(names) == sorted(STRATEGIES)
    for name in names:
        algo = player(name, GAME)
        algo.check(GAME)
        assert (algo.strategy, algo.probe_prob, algo.forgive_prob) == (name, 0.1, 0.333)


def test_a_scripted_player_runs_alone_through_the_commands_objects():
    setup = load("env=public_goods", "algo=always_cooperate")
    runner = start(setup.algo, setup.env, KEY, 3)
    _, (tally, _) = jax.jit(train)(setup.algo, setup.env, runner, KEY, jnp.arange(10))
    assert tally.return_.sum(0).tolist() == pytest.approx([3 * 320] * 4)


def test_bad_fields_and_unsuited_games_are_named():
    cases = [
        (scripted("tit_for_tit"), GAME, "algo.strategy=tit_for_tit: must be one of always_cooperate"),
        (scripted("grim", forgive_prob=1.5), GAME, r"algo.forgive_prob=1.5: must lie in \[0, 1\]"),
        (scripted("grim", probe_prob=-0.1), GAME, r"algo.probe_prob=-0.1"),
        (scripted("always_defect"), Continuous(env=GAME), "always_defect needs Discrete actions 0 and 1"),
        (scripted("always_defect"), Silent(env=GAME), "needs a game with the events cooperated and defected"),
        (scripted("grim"), Narrow(env=GAME), r"grim needs a game .* own C, own D, .* vector \[2, 2\]"),
    ]
    for algo, env, message in cases:
        with pytest.raises(ValueError, match=message):
            algo.check(env)
    scripted("always_cooperate").check(Narrow(env=GAME))
