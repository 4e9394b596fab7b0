"""Gift Refinements: picking up, giving and consuming by hand; chances and invariants in random play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.board import EAST, NORTH, SOUTH, WEST, load_board
from envs.gift_refinements import CONSUME, GIFT
from envs.grid import FORWARD, NOOP, TURN_LEFT
from tests.envs.grid_tools import KEY, idle_steps, on_map, preset, put, random_play, step, where
from tests.probes import jit_reset

ROOM = ["WWWWWWWWW", "WTTTT...W", "W.......W", "W...W...W", "WPPPP...W", "WWWWWWWWW"]
FACING = [(2, 2, EAST), (2, 4, WEST), (4, 6, NORTH), (4, 7, NORTH)]  # seats 0 and 1 look at each other


@pytest.fixture
def room():
    return lambda **fields: on_map(ROOM, "gift_refinements", **{"num_players": 4, "spawn_prob": 0.0} | fields)


def start(env, places=FACING, *, held=None, tokens=None):
    """The state with seats at places, tokens held [A, 3], and sites with a token."""
    state = put(env, jit_reset(env, KEY)[0], *places)
    state = state if held is None else state.replace(held=jnp.array(held, jnp.int32))
    return state if tokens is None else state.replace(tokens=jnp.array(tokens))


def held(first=(0, 0, 0), second=(0, 0, 0)):
    return [list(first), list(second), [0, 0, 0], [0, 0, 0]]


def test_the_map_has_the_counts_of_its_source():
    board = load_board("gift_refinements", "W", False, "TP")
    assert board.shape == (27, 27)
    assert {letter: board.count(letter) for letter in "TP.W"} == {"T": 538, "P": 18, ".": 69, "W": 104}
    edge = [board.number[0], board.number[-1], board.number[:, 0], board.number[:, -1]]
    assert (board.letters[np.concatenate(edge)] == "W").all()


def test_the_presets_differ_as_their_sources_do():
    fields = ("num_players", "multiplier", "gives", "beam_length", "cooldown", "end_every", "max_steps")
    number = lambda name: tuple(getattr(preset(name), field) for field in fields)
    assert number("gift_refinements") == (6, 3, "lowest", 5, 3, 0, 5000)
    assert number("gift_refinements_mp2") == (6, 5, "highest", 5, 3, 100, 5000)
    assert number("gift_refinements_socialjax") == (5, 3, "lowest", 1, 0, 0, 5000)


def test_tokens_appear_by_their_chance_on_bare_sites_where_nobody_stands():
    env, num = preset("gift_refinements"), 20_000
    state, ts = jit_reset(env, KEY)
    assert not state.tokens.any()
    assert not ts.obs["vector"][:, 1:].any()
    grown = np.asarray(idle_steps(env, state, num).tokens)
    expected = 0.0002 * 538 * num
    assert abs(grown.sum() - expected) <= 5 * np.sqrt(expected)
    assert grown.sum(0).max() <= 4 + 5 * 2  # 4 a site
    often = env.replace(spawn_prob=0.25)
    on_sites = state.replace(avatars=state.avatars.replace(cell=jnp.arange(6) * 7))
    grown = np.asarray(idle_steps(often, on_sites.replace(tokens=jnp.arange(538) >= 500), 4000).tokens)
    assert not grown[:, np.arange(6) * 7].any()
    assert grown[:, 500:].all()
    bare = np.setdiff1d(np.arange(500), np.arange(6) * 7)
    assert abs(grown[:, bare].sum() - 0.25 * 494 * 4000) <= 5 * np.sqrt(0.1875 * 494 * 4000)
    assert np.abs(grown[:, bare].mean(0) - 0.25).max() <= 5 * np.sqrt(0.1875 / 4000)


def test_who_enters_a_token_picks_it_up_unless_it_holds_too_many(room):
    env = room()
    places = [(2, 1, NORTH), (2, 2, NORTH), (2, 3, NORTH), (2, 6, NORTH)]
    full = [[14, 15, 15], [15, 0, 0], [0, 0, 0], [0, 0, 0]]
    state, ts = step(env, start(env, places, held=full, tokens=[True, True, True, True]), *[FORWARD] * 4)
    assert state.held.tolist() == [[15, 15, 15], [15, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert state.tokens.tolist() == [False, True, False, True]
    assert ts.events["picked"].tolist() == [1, 0, 1, 0]
    assert ts.reward.tolist() == [0, 0, 0, 0]
    # who stands on a token does not pick it up later, and nothing grows under who stands
    state, ts = step(room(spawn_prob=1.0), state, NOOP, CONSUME, NOOP, NOOP)
    assert ts.events["picked"].tolist() == [0, 0, 0, 0]
    assert state.tokens.tolist() == [False, True, False, True]
    assert state.held[1].tolist() == [0, 0, 0]
    assert np.asarray(ts.obs["grid"][0, :, :, 0] == 2).sum() == 2


@pytest.mark.parametrize("gives", ["lowest", "highest"])
@pytest.mark.parametrize("multiplier", [3, 5])
def test_a_gift_is_refined_and_multiplied(room, gives, multiplier):
    env, m = room(gives=gives, multiplier=multiplier), multiplier
    low = gives == "lowest"
    for before, after, got in [
        ((1, 0, 0), (0, 0, 0), (0, m, 0)),
        ((0, 2, 0), (0, 1, 0), (0, 0, m)),
        ((0, 0, 3), (0, 0, 2), (0, 0, 1)),
        ((4, 3, 0), (3, 3, 0) if low else (4, 2, 0), (0, m, 0) if low else (0, 0, m)),
        ((0, 3, 2), (0, 2, 2) if low else (0, 3, 1), (0, 0, m) if low else (0, 0, 1)),
        ((1, 1, 1), (0, 1, 1) if low else (1, 1, 0), (0, m, 0) if low else (0, 0, 1)),
    ]:
        state, ts = step(env, start(env, held=held(before)), GIFT, NOOP, NOOP, NOOP)
        assert state.held.tolist() == held(after, got)
        assert ts.events["gifted"].tolist() == ts.events["could_gift"].tolist() == [1, 0, 0, 0]
        assert ts.events["was_gifted"].tolist() == [0, 1, 0, 0]
        assert ts.reward.tolist() == [0, 0, 0, 0]


def test_what_is_above_the_capacity_is_lost(room):
    env = room()
    state, _ = step(env, start(env, held=held((1, 0, 0), (0, 13, 0))), GIFT, NOOP, NOOP, NOOP)
    assert state.held.tolist() == held((0, 0, 0), (0, 15, 0))
    state, ts = step(env, start(env, held=held((0, 0, 2), (15, 15, 15))), GIFT, NOOP, NOOP, NOOP)
    assert state.held.tolist() == held((0, 0, 1), (15, 15, 15))
    assert ts.events["gifted"].tolist() == [1, 0, 0, 0]


def test_gifts_of_a_step_are_chosen_before_any_of_them_arrives(room):
    env = room()
    state, ts = step(env, start(env, held=held((1, 0, 0), (1, 0, 0))), GIFT, GIFT, NOOP, NOOP)
    assert state.held.tolist() == held((0, 3, 0), (0, 3, 0))
    assert ts.events["gifted"].tolist() == ts.events["was_gifted"].tolist() == [1, 1, 0, 0]
    env = room(gives="highest")
    state, _ = step(env, start(env, held=held((2, 0, 0), (0, 15, 1))), GIFT, GIFT, NOOP, NOOP)
    assert state.held.tolist() == held((1, 0, 1), (0, 15, 0))
    # who has nothing to give when the step begins gives nothing of what arrives
    state, ts = step(env, start(env, held=held((2, 0, 0))), GIFT, GIFT, NOOP, NOOP)
    assert state.held.tolist() == held((1, 0, 0), (0, 3, 0))
    assert state.cooldown.tolist() == [4, 0, 0, 0]
    # from two sides at once
    places = [(2, 1, EAST), (2, 3, NORTH), (2, 5, WEST), (4, 6, NORTH)]
    state, ts = step(env, start(env, places, held=[[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]]), 7, 0, 7, 0)
    assert state.held.tolist() == held((0, 0, 0), (0, 7, 0))
    assert ts.events["was_gifted"].tolist() == [0, 2, 0, 0]


def test_walls_and_the_first_avatar_end_a_beam(room):
    rich = [[1, 0, 0]] * 4
    env = room()
    for places, gifted, was_gifted in [
        ([(2, 1, EAST), (2, 3, NORTH), (2, 5, NORTH), (4, 6, SOUTH)], [1, 0, 0, 0], [0, 1, 0, 0]),
        ([(2, 1, EAST), (4, 3, NORTH), (2, 6, NORTH), (4, 6, SOUTH)], [1, 0, 0, 0], [0, 0, 1, 0]),
        ([(2, 1, EAST), (4, 3, NORTH), (2, 7, NORTH), (4, 6, SOUTH)], [0, 0, 0, 0], [0, 0, 0, 0]),  # 6 cells
        ([(3, 3, EAST), (3, 5, NORTH), (4, 1, NORTH), (4, 6, SOUTH)], [0, 0, 0, 0], [0, 0, 0, 0]),  # a wall
        ([(2, 1, WEST), (2, 3, NORTH), (2, 5, NORTH), (4, 6, SOUTH)], [0, 0, 0, 0], [0, 0, 0, 0]),
    ]:
        _, ts = step(env, start(env, places, held=rich), GIFT, NOOP, NOOP, NOOP)
        assert ts.events["gifted"].tolist() == gifted
        assert ts.events["was_gifted"].tolist() == was_gifted
        assert ts.events["could_gift"][0] == gifted[0]


@pytest.mark.parametrize(("cooldown", "apart"), [(3, 4), (0, 1)])
def test_beams_are_spaced_by_the_cooldown(room, cooldown, apart):
    env = room(cooldown=cooldown)
    state, gifts, ready = start(env), [], []
    for time in range(13):
        state = state.replace(held=jnp.array(held((5, 0, 0)), jnp.int32))
        state, ts = step(env, state, GIFT, NOOP, NOOP, NOOP)
        gifts += [time] if ts.events["gifted"][0] else []
        ready.append(float(ts.obs["vector"][0, 0]))
    assert gifts == list(range(0, 13, apart))
    assert [time + 1 for time in range(12) if ready[time] == 1.0] == gifts[1:]


def test_a_beam_that_hits_nobody_costs_no_token_but_cools_down(room):
    env = room()
    state = start(env, [(2, 1, WEST), *FACING[1:]], held=held((5, 0, 0)))
    state, ts = step(env, state, GIFT, NOOP, NOOP, NOOP)
    assert state.held.tolist() == held((5, 0, 0))
    assert state.cooldown.tolist() == [4, 0, 0, 0]
    assert not ts.events["gifted"].any()
    state, _ = step(env, start(env), GIFT, NOOP, NOOP, NOOP)  # without a token nothing is fired
    assert state.cooldown.tolist() == [0, 0, 0, 0]


def test_consuming_pays_for_all_tokens_and_keeps_what_arrives(room):
    env = room(token_reward=2.0, gift_reward=10.0)
    state, ts = step(env, start(env, held=held((1, 2, 0), (1, 5, 9))), GIFT, CONSUME, CONSUME, TURN_LEFT)
    assert ts.reward.tolist() == [10, 30, 0, 0]
    assert ts.events["consumed"].tolist() == [0, 15, 0, 0]
    assert state.held.tolist() == held((0, 2, 0), (0, 3, 0))
    np.testing.assert_allclose(ts.obs["vector"][0], [0, 0, 2 / 15, 0], rtol=1e-6)
    np.testing.assert_allclose(ts.obs["vector"][1], [1, 0, 3 / 15, 0], rtol=1e-6)
    own = ts.obs["grid"][:, 9, 5, 3]
    assert own.tolist() == [1, 2, 0, 0]
    assert ts.obs["grid"][0, 9 - 2, 5].tolist() == [0, 2, 3, 2]  # the other, who looks at seat 0


def test_pictures_show_the_beams_of_the_last_step(room):
    env = room()
    state = start(env, [(2, 1, EAST), *FACING[1:]], held=held((5, 0, 0)))
    plain = env.picture(state)
    state, _ = step(env, state, GIFT, NOOP, NOOP, NOOP)
    shown = env.picture(state)
    changed = (shown != plain).any(-1)
    cell = (plain.shape[0] - 1) // 6
    rows, columns = np.nonzero(changed)
    assert set((rows // cell).tolist()) == {2}
    assert set((columns // cell).tolist()) == {2, 3, 4, 5, 6}
    state, _ = step(env, state, GIFT, NOOP, NOOP, NOOP)
    np.testing.assert_array_equal(env.picture(state), plain)


def test_permuting_seats_permutes_outcomes(room):
    env, turn = room(), np.array([2, 0, 3, 1])
    action, rich = (
        np.array([GIFT, CONSUME, FORWARD, GIFT]),
        np.array([[2, 1, 0], [1, 1, 1], [0, 3, 0], [0, 0, 4]]),
    )
    first, ts = step(env, start(env, held=rich), *action)
    places = [FACING[i] for i in turn]
    second, other = step(env, start(env, places, held=rich[turn]), *action[turn])
    assert first.held[turn].tolist() == second.held.tolist()
    assert [where(env, first)[i] for i in turn] == where(env, second)
    assert ts.reward[turn].tolist() == other.reward.tolist()
    np.testing.assert_array_equal(ts.obs["vector"][turn], other.obs["vector"])


def facts(env, state, ts):
    cell, events = state.avatars.cell, ts.events
    return {
        "gifts": events["gifted"].sum(),
        "eaten": events["consumed"].sum(),
        "picks": events["picked"].sum(),
        "crowded": ((cell[:, None] == cell).sum() - len(cell)) // 2,
        "in_walls": jnp.asarray(env.board.letters == "W")[cell].sum(),
        "too_few": (state.held < 0).sum(),
        "too_many": (state.held > 15).sum(),
        "reward": ts.reward.sum() - events["consumed"].sum(),
        "unequal": events["gifted"].sum() - events["was_gifted"].sum(),
        "could_not": (events["gifted"] > events["could_gift"]).sum(),
    }


@pytest.mark.parametrize("name", ["gift_refinements", "gift_refinements_mp2"])
def test_random_steps_keep_the_rules(name):
    env = preset(name).replace(spawn_prob=0.01)
    found = jax.tree.map(np.asarray, random_play(env, KEY, num_games=200, steps=600, facts=facts))
    assert found.pop("gifts").sum() > 500
    assert found.pop("eaten").sum() > found.pop("picks").sum() * 0.9
    for rule, count in found.items():
        assert not count.any(), rule


def test_bad_numbers_are_refused():
    env = preset("gift_refinements")
    for fields, message in [
        ({"gives": "middle"}, r"env\.gives=middle: must be lowest or highest"),
        ({"multiplier": 0}, r"env\.multiplier=0: must be a whole number of at least 1"),
        ({"multiplier": 2.5}, r"env\.multiplier=2\.5: must be a whole number"),
        ({"capacity": 0}, r"env\.capacity=0: must be a whole number of at least 1"),
        ({"beam_length": 0}, r"env\.beam_length=0: must be"),
        ({"cooldown": -1}, r"env\.cooldown=-1: must be a whole number of at least 0"),
        ({"spawn_prob": 1.5}, r"env\.spawn_prob=1\.5: must lie in 0 \.\. 1"),
        ({"num_players": 19}, r"env\.num_players=19: must lie in 1 \.\. 18"),
    ]:
        with pytest.raises(ValueError, match=message):
            env.replace(**fields).check()
