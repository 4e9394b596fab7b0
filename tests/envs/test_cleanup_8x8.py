"""Cleanup of LASE: cleaning and picking by hand, chances of growth, invariants in random play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.cleanup_8x8 import CLEAN, PICK
from tests.envs.grid_tools import KEY, draws, preset, random_play, squares, stand, step
from tests.probes import jit_reset

STAY = 4
NUM = 4000
AWAY = [(0, 3)] * 4  # the middle of the map, on no site


def quiet():
    return preset("cleanup_8x8").replace(apple_prob=0.0, waste_prob=0.0)


def start(env, *places, dirty=24, apples=False):
    state = stand(env, jit_reset(env, KEY)[0], *places)
    return state.replace(waste=jnp.arange(24) < dirty, apples=jnp.full(24, apples))


def site(row, column):
    """Number of the waste site, or of the apple site, at a place."""
    return 3 * row + column % 5


def test_the_map_has_three_columns_of_either_kind():
    env = preset("cleanup_8x8")
    assert {column for _, column in squares(env, range(24))} == {0, 1, 2}
    assert {column for _, column in squares(env, range(24, 48))} == {5, 6, 7}
    assert preset("cleanup_8x8_extended").board.count("D") == 48


def test_all_waste_sites_are_dirty_at_the_start_without_apples():
    env = preset("cleanup_8x8")
    state = jit_reset(env, KEY)[0]
    assert state.waste.all()
    assert not state.apples.any()
    waste = jax.jit(jax.vmap(lambda k: env.replace(initial_waste=0.5).reset(k)[0].waste))(
        jax.random.split(KEY, NUM)
    )
    assert (waste.sum(1) == 12).all()
    assert (abs(waste.sum(0) - NUM / 2) <= 5 * np.sqrt(NUM / 4)).all()


def test_waste_is_cleaned_and_apples_are_picked_only_where_one_stands():
    env = quiet()
    state = start(env, (0, 0), (1, 5), (0, 3), (2, 1), apples=True)
    state, ts = step(env, state, CLEAN, PICK, CLEAN, PICK)
    assert ts.reward.tolist() == ts.events["ate"].tolist() == [0, 1, 0, 0]
    assert ts.events["cleaned"].tolist() == [1, 0, 0, 0]
    assert np.flatnonzero(~state.waste).tolist() == [site(0, 0)]
    assert np.flatnonzero(~state.apples).tolist() == [site(1, 5)]
    state, ts = step(env, state, CLEAN, PICK, PICK, CLEAN)
    assert ts.reward.tolist() == [0, 0, 0, 0], "there is nothing left"
    assert ts.events["cleaned"].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(("place", "action", "event"), [((1, 6), PICK, "ate"), ((1, 1), CLEAN, "cleaned")])
def test_what_several_do_on_a_cell_counts_for_one_at_random(place, action, event):
    env = quiet()
    state = start(env, place, place, place, (0, 3), apples=True)
    after, ts = draws(env, state, jnp.full(4, action), NUM)
    did = np.asarray(ts.events[event])
    assert (did.sum(1) == 1).all()
    assert (abs(did[:, :3].sum(0) - NUM / 3) <= 5 * np.sqrt(NUM * 2 / 9)).all()
    assert (after.waste.sum(1) + after.apples.sum(1) == 47).all()


@pytest.mark.parametrize(
    ("dirty", "prob"), [(0, 0.3), (3, 0.3 * 0.275 / 0.4), (9, 0.3 * 0.025 / 0.4), (10, 0.0), (24, 0.0)]
)
def test_apples_grow_by_the_share_of_waste_and_not_under_seats(dirty, prob):
    env = preset("cleanup_8x8").replace(waste_prob=0.0)
    grown = draws(env, start(env, (2, 5), (2, 5), (7, 7), (0, 3), dirty=dirty), jnp.full(4, STAY), NUM)[
        0
    ].apples
    taken = np.array([site(2, 5), site(7, 7)])
    assert not grown[:, taken].any()
    expected = prob * 22 * NUM
    assert abs(int(grown.sum()) - expected) <= 5 * np.sqrt(expected)


def test_growth_up_to_the_restoration_threshold_is_full():
    env = preset("cleanup_8x8").replace(waste_prob=0.0, restoration=0.2)
    for dirty, prob in ((4, 0.3), (6, 0.3 * (1 - 0.05 / 0.2))):
        grown = draws(env, start(env, *AWAY, dirty=dirty), jnp.full(4, STAY), NUM)[0].apples
        expected = prob * 24 * NUM
        assert abs(int(grown.sum()) - expected) <= 5 * np.sqrt(expected)


def test_growth_reads_the_waste_after_cleaning():
    env = preset("cleanup_8x8").replace(waste_prob=0.0, apple_prob=1.0, depletion=1 / 24)
    state = start(env, (0, 0), *AWAY[:3], dirty=1)
    assert not step(env, state, STAY, STAY, STAY, STAY)[0].apples.any()
    assert step(env, state, CLEAN, STAY, STAY, STAY)[0].apples.all()


@pytest.mark.parametrize(("dirty", "waste_prob"), [(9, 0.5), (9, 0.05), (2, 0.02)])
def test_waste_appears_on_at_most_one_clean_site_at_random(dirty, waste_prob):
    env = preset("cleanup_8x8").replace(waste_prob=waste_prob)
    waste = np.asarray(draws(env, start(env, *AWAY, dirty=dirty), jnp.full(4, STAY), NUM)[0].waste)
    assert waste[:, :dirty].all()
    new = waste[:, dirty:]
    assert new.sum(1).max() == 1
    prob = 1 - (1 - waste_prob) ** (24 - dirty)
    assert abs(new.sum() - NUM * prob) <= 5 * np.sqrt(NUM * prob * (1 - prob)) + 1e-6 + (prob > 0.999)
    each = NUM * prob / (24 - dirty)
    assert (abs(new.sum(0) - each) <= 5 * np.sqrt(each)).all()


def test_at_the_depletion_threshold_no_more_waste_appears():
    env = preset("cleanup_8x8")
    after = draws(env, start(env, *AWAY, dirty=10), jnp.full(4, STAY), NUM)[0]
    assert (after.waste.sum(1) == 10).all()


def facts(env, state, ts):
    return {
        "paid": ts.reward.sum() - ts.events["ate"].sum(),
        "ate": ts.events["ate"].sum(),
        "cleaned": ts.events["cleaned"].sum(),
        "waste": state.waste.sum(),
        "off": (state.cell >= 64).sum(),
    }


def test_random_play_keeps_the_rules():
    env = preset("cleanup_8x8")
    found = random_play(env, KEY, num_games=1024, steps=200, facts=facts)
    assert not found["paid"].any()
    assert not found["off"].any()
    assert found["ate"].sum() > 100
    before = np.append(1024 * 24, found["waste"][:-1])
    spawned = found["waste"] - (before - found["cleaned"])
    assert ((spawned >= 0) & (spawned <= 1024)).all()
    assert found["waste"].min() > 1024 * 5


def test_permuting_seats_permutes_outcomes():
    env, turn = quiet(), np.array([2, 0, 3, 1])
    places, action = [(0, 0), (1, 6), (4, 1), (5, 5)], np.array([CLEAN, PICK, 1, 3])
    first = step(env, start(env, *places, apples=True), *action)
    second = step(env, start(env, *[places[i] for i in turn], apples=True), *action[turn])
    assert first[0].cell[turn].tolist() == second[0].cell.tolist()
    for name, count in first[1].events.items():
        assert count[turn].tolist() == second[1].events[name].tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"restoration": 0.4}, r"env.restoration=0.4: must lie in 0 .. env.depletion=0.4, below it"),
        ({"initial_waste": 1.5}, r"env.initial_waste=1.5: must lie in 0 .. 1"),
        ({"layout": "open_8x8"}, r"env.layout=open_8x8: the map has no cell D"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        preset("cleanup_8x8").replace(**fields).check()
