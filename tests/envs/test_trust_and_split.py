"""Trust and split: hand-played rounds, what is hidden and what is told, and the law of hands and speakers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.trust_and_split import FIRST_SPEAKS, PROPOSE, SECOND_SPEAKS
from marl.build import build, build_env
from marl.config import ConfigError, compose
from tests.probes import jit_reset

ROCK, PAPER, SCISSORS = range(3)
SYMBOLS, COINS = 3, 10
WAIT = SYMBOLS + COINS + 1
HAND, PHASE, SPEAKS_FIRST = slice(0, 3), slice(3, 6), 6
OWN_MESSAGE, HEARD, LAST = slice(7, 10), slice(10, 13), slice(13, 17)


@functools.cache
def game():
    return build_env(compose(["env=trust_and_split"]))


@functools.cache
def step():
    return jax.jit(lambda key, state, action: game().step(jax.random.key(key), state, action))


def start(hands=(PAPER, ROCK), speaker=0):
    """A fresh game with given hands and first speaker."""
    state, _ = jit_reset(game(), jax.random.key(0))
    return state.replace(hand=jnp.array(hands, jnp.int32), speaker=jnp.int32(speaker))


def keep(*coins):
    return [SYMBOLS + c for c in coins]


def play_round(state, said=(0, 0), kept=(0, 0), key=0):
    """The three TimeSteps of a round in which each seat says a symbol and keeps coins; the state after."""
    speaker, seen = int(state.speaker), []
    for phase in (FIRST_SPEAKS, SECOND_SPEAKS):
        who = (speaker + phase) % 2
        action = [said[i] if i == who else WAIT for i in range(2)]
        state, ts = step()(key + phase, state, jnp.array(action))
        seen.append(ts)
    state, ts = step()(key + PROPOSE, state, jnp.array(keep(*kept)))
    return [*seen, ts], state


@functools.cache
def look():
    """TimeStep of a state."""
    return jax.jit(lambda state: game()._observe(state, jnp.zeros(2), {}))


def legal(state):
    """Actions that each seat may take."""
    ts = look()(state)
    return [np.flatnonzero(row).tolist() for row in np.asarray(ts.action_mask)]


# the phases


@pytest.mark.parametrize("speaker", [0, 1])
def test_one_speaks_then_the_other_then_both_propose(speaker):
    state = start(speaker=speaker)
    messages, proposals = list(range(SYMBOLS)), keep(*range(COINS + 1))
    for phase, expected in ((FIRST_SPEAKS, speaker), (SECOND_SPEAKS, 1 - speaker)):
        now = legal(state.replace(time=jnp.int32(phase)))
        assert now[expected] == messages
        assert now[1 - expected] == [WAIT]
    assert legal(state.replace(time=jnp.int32(PROPOSE))) == [proposals, proposals]
    assert legal(state.replace(time=jnp.int32(3)))[speaker] == messages


def test_rounds_take_three_steps_and_episodes_ten_rounds():
    assert game().fixed_horizon == 30
    late = start().replace(time=jnp.int32(28))
    state, ts = step()(0, late, jnp.array([WAIT, 0]))
    assert not ts.done
    _, ts = step()(1, state, jnp.array(keep(5, 5)))
    assert (bool(ts.truncated), bool(ts.terminated)) == (True, False)


def test_stage_is_the_phase():
    state, ts = jit_reset(game(), jax.random.key(0))
    found = [ts.obs["stage"].tolist()]
    for ts in play_round(state)[0]:
        found.append(ts.obs["stage"].tolist())
    assert found == [[0, 0], [1, 1], [2, 2], [0, 0]]


# coins


@pytest.mark.parametrize(
    ("hands", "winner"),
    [
        ((PAPER, ROCK), 0),
        ((SCISSORS, PAPER), 0),
        ((ROCK, SCISSORS), 0),
        ((ROCK, PAPER), 1),
        ((PAPER, SCISSORS), 1),
        ((SCISSORS, ROCK), 1),
    ],
)
def test_the_hand_that_wins_makes_coins_worth_ten_points(hands, winner):
    seen, _ = play_round(start(hands), kept=(5, 5))
    points = [50, 5] if winner == 0 else [5, 50]
    assert [ts.reward.tolist() for ts in seen[:2]] == [[0, 0], [0, 0]]
    assert seen[2].events["points"].tolist() == points
    np.testing.assert_allclose(seen[2].reward, np.array(points) / 100, rtol=1e-6)


@pytest.mark.parametrize(
    ("kept", "points"),
    [
        ((10, 0), (100, 0)),
        ((10, 10), (50, 5)),
        ((0, 10), (0, 10)),
        ((2, 3), (20, 3)),
        ((10, 5), (200 / 3, 10 / 3)),
    ],
)
def test_coins_are_shared_in_proportion_only_if_too_many_are_kept(kept, points):
    seen, _ = play_round(start(), kept=kept)
    np.testing.assert_allclose(seen[2].events["points"], points, rtol=1e-6)
    assert seen[2].events["best_points"].tolist() == [50, 50]


def test_proposals_are_told_by_the_hand():
    events = play_round(start((ROCK, PAPER)), kept=(4, 9))[0][2].events
    assert events["asked_when_lower"].tolist() == [4, 0]
    assert events["asked_when_higher"].tolist() == [0, 9]
    np.testing.assert_allclose(events["defected"], [0.4, 0], rtol=1e-6)
    np.testing.assert_allclose(events["cooperated"], [0.6, 0], rtol=1e-6)


def test_announcing_the_own_hand_is_told_when_it_is_said():
    seen, _ = play_round(start((SCISSORS, ROCK)), said=(SCISSORS, PAPER))
    assert [ts.events["announced_hand"].tolist() for ts in seen] == [[1, 0], [0, 0], [0, 0]]
    others = seen[0].events.keys() - {"announced_hand"}
    assert not any(seen[i].events[name].any() for i in range(2) for name in others)


# what the seats see


def test_the_hand_of_the_other_is_hidden_until_it_is_told_as_upper_or_lower():
    """The two cards that the other can hold look the same until the proposals are made."""
    seen = []
    for other in (PAPER, SCISSORS):
        state = start((ROCK, other))
        first = look()(state).obs["vector"][0]
        steps, _ = play_round(state, said=(2, 1))
        seen.append(np.stack([first, *(ts.obs["vector"][0] for ts in steps)]))
    np.testing.assert_array_equal(seen[0][:3], seen[1][:3])
    assert seen[0][3, LAST].tolist() == [0, 1, 0, 0]
    assert seen[1][3, LAST].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("speaker", [0, 1])
def test_the_second_speaker_hears_the_first_before_it_speaks(speaker):
    (after_first, after_second, after_round), _ = play_round(start(speaker=speaker), said=(2, 1))
    one_hot, silent = np.eye(3), np.zeros(3)
    said = [2, 1]
    for seat in range(2):
        first, second, third = (ts.obs["vector"][seat] for ts in (after_first, after_second, after_round))
        own, heard = one_hot[said[seat]], one_hot[said[1 - seat]]
        np.testing.assert_array_equal(first[OWN_MESSAGE], own if seat == speaker else silent)
        np.testing.assert_array_equal(first[HEARD], silent if seat == speaker else heard)
        np.testing.assert_array_equal(second[OWN_MESSAGE], own)
        np.testing.assert_array_equal(second[HEARD], heard)
        assert not third[OWN_MESSAGE].any()
        assert not third[HEARD].any()


def test_observation_shows_hand_phase_speaker_and_the_last_round():
    state = start((PAPER, ROCK), speaker=1)
    seen = look()(state).obs["vector"]
    assert seen[:, HAND].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert seen[:, PHASE].tolist() == [[1, 0, 0], [1, 0, 0]]
    assert seen[:, SPEAKS_FIRST].tolist() == [0, 1]
    assert not seen[:, LAST].any()
    steps, state = play_round(state, kept=(7, 2))
    seen = steps[2].obs["vector"]
    np.testing.assert_allclose(seen[:, LAST], [[1, 0, 0.7, 0.2], [0, 1, 0.2, 0.7]], rtol=1e-6)
    assert seen[:, SPEAKS_FIRST].tolist() == [1, 0]
    np.testing.assert_array_equal(seen[:, HAND], np.eye(3)[state.hand])
    later, _ = play_round(state)
    np.testing.assert_array_equal(later[1].obs["vector"][:, LAST], seen[:, LAST])


# what is drawn


def test_pairs_of_different_hands_and_first_speakers_are_equally_likely():
    num = 24_000
    state, _ = jax.jit(jax.vmap(game().reset))(jax.random.split(jax.random.key(0), num))
    code = np.asarray(state.hand) @ [3, 1] + 9 * np.asarray(state.speaker)
    counts = np.bincount(code, minlength=18)
    allowed = [9 * s + 3 * a + b for s in range(2) for a in range(3) for b in range(3) if a != b]
    assert set(np.flatnonzero(counts)) == set(allowed)
    assert np.abs(counts[allowed] - num / 12).max() < 5 * np.sqrt(num / 12)
    state = state.replace(time=jnp.full(num, PROPOSE))
    redeal = jax.jit(jax.vmap(lambda k, s: game().step(k, s, jnp.array(keep(5, 5)))))
    after, _ = redeal(jax.random.split(jax.random.key(1), num), state)
    counts = np.bincount(np.asarray(after.hand) @ [3, 1], minlength=9)
    assert set(np.flatnonzero(counts)) == {1, 2, 3, 5, 6, 7}
    assert np.abs(counts[counts > 0] - num / 6).max() < 5 * np.sqrt(num / 6)


def test_hands_stay_for_a_round_and_the_first_speaker_alternates():
    state = start(speaker=1)
    speakers, hands = [], []
    for number in range(6):
        speakers.append(int(state.speaker))
        hands.append(state.hand.tolist())
        held, _ = step()(0, state, jnp.array([0, 0]))
        assert held.hand.tolist() == hands[-1]
        _, state = play_round(state, key=10 * number)
    assert speakers == [1, 0, 1, 0, 1, 0]
    assert len(set(map(tuple, hands))) > 1


def test_hands_and_speakers_do_not_depend_on_what_the_seats_do():
    seen = []
    for said, kept in (((0, 1), (0, 10)), ((2, 2), (10, 10)), ((1, 0), (3, 4))):
        state, _ = jit_reset(game(), jax.random.key(5))
        facts = []
        for number in range(5):
            facts.append([*state.hand.tolist(), int(state.speaker)])
            _, state = play_round(state, said, kept, key=10 * number)
        seen.append(facts)
    assert seen[0] == seen[1] == seen[2]


# sizes and errors


def test_symbols_and_coins_are_fields():
    env = game().replace(num_symbols=5, num_coins=4)
    assert env.action_space.n == 5 + 5 + 1
    state, ts = jit_reset(env, jax.random.key(0))
    assert ts.obs["vector"].shape == (2, 7 + 2 * 5 + 4)
    ts = env.step(jax.random.key(0), state.replace(time=jnp.int32(PROPOSE)), jnp.array([5 + 4, 5 + 4]))[1]
    assert sorted(ts.events["points"].tolist()) == [2, 20]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_symbols": 0}, "env.num_symbols=0: must be at least 1"),
        ({"num_coins": 0}, "env.num_coins=0: must be at least 1"),
        ({"num_rounds": 0}, "env.num_rounds=0: must be at least 1"),
        ({"high_value": 1.0}, "env.low_value=1.0: must lie in 0 .. env.high_value=1.0, below it"),
        ({"reward_scale": -1.0}, "env.reward_scale=-1.0: must be greater than 0"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        game().replace(**fields).check()


def test_players_of_rounds_of_one_step_are_refused():
    message = "scripted player tit_for_tat needs a game whose rounds are one step each"
    with pytest.raises(ConfigError, match=message):
        build(compose(["env=trust_and_split", "algo=tit_for_tat"]))
