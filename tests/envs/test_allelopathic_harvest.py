"""Allelopathic Harvest: ripening, eating, planting and sanctions by hand; chances and invariants in random play."""

import jax.numpy as jnp
import numpy as np
import pytest

from envs.allelopathic_harvest import PLANT
from envs.board import EAST, NORTH, WEST, load_board
from envs.grid import FORWARD, NOOP, TURN_LEFT, ZAP
from tests.envs.grid_tools import KEY, broken_rules, idle_steps, on_map, preset, put, random_play, step, where
from tests.probes import jit_reset

FIELD = ["..........", "..rgb.....", "..........", "..........", "..........", ".........."]
RED, GREEN, BLUE = range(3)


@pytest.fixture
def field():
    fields = {"num_players": 4, "ripen_linear": 0.0}
    return lambda **more: on_map(FIELD, "allelopathic_harvest", **fields | more)


def start(env, *places, ripe=False, colour=(RED, GREEN, BLUE)):
    """Berries stand at (1, 2), (1, 3), (1, 4); seats not given wait at the bottom, looking north."""
    rest = [(5, 2 * i, NORTH) for i in range(env.num_agents)][len(places) :]
    state = put(env, jit_reset(env, KEY)[0], *places, *rest)
    berries = state.berries.replace(
        ripe=jnp.full(3, ripe), colour=jnp.array(colour, jnp.uint8), rest=jnp.zeros(3, jnp.uint8)
    )
    return state.replace(berries=berries)


def act(**actions):
    """Actions of the four seats; a=..., b=... for seats 0, 1."""
    return [actions.get(seat, NOOP) for seat in "abcd"]


def test_the_map_has_the_counts_of_its_source():
    board = load_board("allelopathic_harvest", "", True, "rgb.")
    assert board.shape == (30, 29)
    assert [board.count(letter) for letter in "rgb."] == [116, 116, 116, 522]


def test_all_start_grey_on_different_cells_among_unripe_berries():
    env = preset("allelopathic_harvest")
    state, ts = jit_reset(env, KEY)
    assert np.bincount(state.berries.colour).tolist() == [116, 116, 116]
    assert not state.berries.ripe.any()
    assert len(set(state.avatars.cell.tolist())) == 16
    assert ts.obs["grid"].shape == (16, 11, 11, 4)
    assert ts.obs["vector"].tolist() == [[1, 1, 1, 0, 0]] * 8 + [[1, 1, 0, 1, 0]] * 8
    for name in ("monoculture", "red_share", "green_share", "blue_share"):
        assert (ts.events[name] == np.float32(1 / 3)).all()


def test_preferences():
    env = preset("allelopathic_harvest")
    assert env.replace(preference="alternating", num_players=5).preferred.tolist() == [0, 1, 0, 1, 0]
    assert preset("allelopathic_harvest_mp1").preferred.tolist() == [RED] * 16


@pytest.mark.parametrize(("num", "prob"), [(116, 5.8e-4), (348, 1.74e-3)])
def test_berries_ripen_by_how_many_there_are_of_their_colour(num, prob):
    env, games = preset("allelopathic_harvest"), 2000
    state = jit_reset(env, KEY)[0]
    colour = (jnp.arange(348) >= num).astype(jnp.uint8)  # red ones, then green ones
    state = state.replace(berries=state.berries.replace(colour=colour, rest=jnp.zeros(348, jnp.uint8)))
    ripe = np.asarray(idle_steps(env, state, games).berries.ripe[:, :num]).sum()
    assert abs(ripe - prob * num * games) < 5 * np.sqrt(prob * num * games)


def test_a_berry_rests_for_ten_steps_after_a_change(field):
    env = field(ripen_linear=1.0)
    state = start(env)
    state = state.replace(berries=state.berries.replace(rest=jnp.array([10, 1, 0], jnp.uint8)))
    seen = []
    for _ in range(10):
        state, _ = step(env, state, *act())
        seen.append(state.berries.ripe.tolist())
    assert [r[0] for r in seen] == [False] * 9 + [True]
    assert all(r[1] and r[2] for r in seen)


def test_who_enters_a_ripe_berry_eats_it(field):
    env = field()
    state, ts = step(env, start(env, (2, 2, NORTH), (2, 3, NORTH), ripe=True), *act(a=FORWARD, b=FORWARD))
    assert ts.reward.tolist() == [2, 1, 0, 0]  # seats 0 and 1 prefer red
    assert ts.events["ate"].tolist() == [1, 1, 0, 0]
    assert ts.events["ate_preferred"].tolist() == [1, 0, 0, 0]
    assert state.berries.ripe.tolist() == [False, False, True]
    assert state.berries.colour.tolist() == [RED, GREEN, BLUE]
    assert state.berries.rest.tolist() == [10, 10, 0]
    _, ts = step(env, state, *act())
    assert not ts.reward.any()


def test_eating_turns_grey_more_often_where_colours_are_mixed(field):
    env, grey = field(), []
    for colour in [(RED, GREEN, BLUE), (RED, RED, RED)]:
        state = start(env, (2, 2, NORTH), ripe=True, colour=colour).replace(body=jnp.full(4, 3))
        ends = [step(env, state, *act(a=FORWARD), key=k)[0].body.tolist() for k in range(60)]
        assert all(body[1:] == [3, 3, 3] for body in ends)
        grey.append(sum(body[0] == 0 for body in ends))
    assert abs(grey[0] - 40) < 5 * np.sqrt(60 * 2 / 9)
    assert grey[1] == 0


def test_planting_recolours_the_first_berry_if_it_is_unripe_and_different(field):
    env = field()
    state = start(env, (1, 1, EAST), (4, 3, NORTH), (1, 6, WEST), (4, 4, NORTH))
    state, ts = step(env, state, PLANT + BLUE, PLANT + GREEN, PLANT + RED, PLANT + BLUE)
    assert state.berries.colour.tolist() == [BLUE, GREEN, RED]
    assert ts.events["planted"].tolist() == [1, 0, 1, 0]
    assert state.body.tolist() == [BLUE + 1, 0, RED + 1, 0]
    assert state.berries.rest.tolist() == [10, 0, 10]
    assert ts.obs["grid"][0, 9, 5].tolist() == [0, 1, 1, BLUE + 1 + 8 * 2]


def test_ripe_berries_and_avatars_stop_a_planting_beam(field):
    env = field()
    state, ts = step(env, start(env, (1, 1, EAST), ripe=True), *act(a=PLANT + BLUE))
    assert state.berries.colour.tolist() == [RED, GREEN, BLUE]
    state, ts = step(env, start(env, (3, 3, NORTH), (2, 3, NORTH)), *act(a=PLANT + BLUE))
    assert not ts.events["planted"].any()
    state, ts = step(env, start(env, (2, 3, NORTH), (1, 3, NORTH)), *act(a=PLANT + BLUE))
    assert ts.events["planted"].tolist() == [1, 0, 0, 0]  # under an avatar
    state, ts = step(env, start(env, (4, 3, NORTH), colour=(0, 1, 2)), *act(a=PLANT + BLUE))
    assert ts.events["planted"].tolist() == [1, 0, 0, 0]  # three cells away


def test_several_who_plant_one_berry_are_painted_and_each_is_last_half_the_time(field):
    env = field()
    state, first, num = start(env, (1, 1, EAST), (2, 2, NORTH)), 0, 60
    for k in range(num):
        after, ts = step(env, state, *act(a=PLANT + GREEN, b=PLANT + BLUE), key=k)
        assert ts.events["planted"].tolist() == [1, 1, 0, 0]
        assert after.body.tolist() == [GREEN + 1, BLUE + 1, 0, 0]
        first += int(after.berries.colour[0]) == GREEN
    assert abs(first - num / 2) < 5 * np.sqrt(num / 4)


def test_planting_can_be_repeated_every_third_step_and_zapping_every_fifth(field):
    env = field(freeze=0, mark_steps=0)
    state, planted, zapped = start(env, (3, 3, NORTH), (3, 7, EAST), (3, 8, WEST)), [], []
    for time in range(11):
        colour = PLANT + (BLUE if time % 2 else RED)
        state, ts = step(env, state, *act(a=colour, b=ZAP))
        planted += [time] if ts.events["planted"][0] else []
        zapped += [time] if ts.events["zapped"][1] else []
    assert planted == [0, 3, 6, 9]
    assert zapped == [0, 5, 10]


def test_a_first_hit_freezes_and_marks(field):
    env = field(mark_steps=50)
    state, ts = step(env, start(env, (3, 7, EAST), (3, 8, WEST)), *act(a=ZAP))
    assert ts.events["was_zapped"].tolist() == [0, 1, 0, 0]
    assert not ts.reward.any()
    grid = ts.obs["grid"]
    assert grid[1, 9, 5].tolist() == [0, 1, 1, 4]  # marked
    held = 0
    while where(env, state)[1] == (3, 8) and held < 60:
        state, ts = step(env, state, *act(b=(FORWARD, TURN_LEFT, ZAP)[held % 3] if held < 25 else FORWARD))
        assert ts.events["zapped"][1] == 0
        held += 1
        if held == 1:  # out of the way; the marked one may be entered by nobody
            state = put(env, state, (5, 0, EAST), (3, 8, WEST), (5, 4, NORTH), (5, 6, NORTH))
    assert held == 26  # 25 steps frozen, the 26th moves
    while ts.obs["grid"][1, 9, 5, 3] == 4:
        state, ts = step(env, state, *act())
        held += 1
    assert held == 50


def test_the_frozen_can_plant(field):
    env = field()
    state = start(env, (2, 3, NORTH)).replace(frozen=jnp.array([9, 0, 0, 0]))
    state, ts = step(env, state, *act(a=PLANT + RED))
    assert ts.events["planted"].tolist() == [1, 0, 0, 0]
    assert ts.events["frozen"].tolist() == [1, 0, 0, 0]


def test_a_second_hit_costs_ten_and_removes_one_frame_later_for_twenty_five(field):
    env = field(cooldown=0)
    state = start(env, (3, 7, EAST), (3, 8, WEST)).replace(body=jnp.array([1, 2, 0, 0]))
    state, _ = step(env, state, *act(a=ZAP))
    state, ts = step(env, state, *act(a=ZAP))
    assert ts.reward.tolist() == [0, -10, 0, 0]
    assert ts.events["condemned"].tolist() == [0, 1, 0, 0]
    assert ts.events["hit_green"].tolist() == [0, 1, 0, 0]
    assert not any(ts.events[f"hit_{name}"].any() for name in ("grey", "red", "blue"))
    assert where(env, state)[1] == (3, 8)
    away = 0
    state, ts = step(env, state, *act(b=FORWARD))
    while where(env, state)[1] is None:
        away += 1
        assert not ts.obs["grid"][1].any()
        assert not ts.obs["vector"][1].any()
        state, ts = step(env, state, *act(b=FORWARD))
    assert away == 25
    assert int(state.body[1]) == 0
    assert int(state.mark[1]) == int(state.frozen[1]) == 0
    assert int(state.body[0]) == 1


def test_two_can_zap_each_other_and_hits_of_a_step_count_as_one(field):
    env = field()
    state = start(env, (3, 7, EAST), (3, 9, WEST))
    state, ts = step(env, state, ZAP, ZAP, NOOP, NOOP)
    assert ts.events["was_zapped"].tolist() == [1, 1, 0, 0]
    assert state.frozen.tolist() == [25, 25, 0, 0]
    state = start(env, (3, 7, EAST), (3, 8, NORTH), (3, 9, WEST))
    state, ts = step(env, state, ZAP, NOOP, ZAP, NOOP)
    assert ts.events["was_zapped"].tolist() == [0, 2, 0, 0]
    assert ts.events["condemned"].tolist() == [0, 0, 0, 0]
    assert state.frozen.tolist() == [0, 25, 0, 0]


def test_moves_beams_and_views_go_around_the_edges(field):
    env = field()
    state, ts = step(env, start(env, (0, 7, NORTH), (3, 9, EAST), (3, 0, WEST)), FORWARD, ZAP, NOOP, NOOP)
    assert where(env, state)[0] == (5, 7)
    assert ts.events["was_zapped"].tolist() == [0, 0, 1, 0]
    assert ts.obs["grid"][1, 8, 5, 1] == 2  # the one on the other side of the edge is just ahead


def facts(env, state, ts):
    broken = broken_rules(env, state, ts)
    broken.pop("ate")
    paid = ts.events["ate"] + ts.events["ate_preferred"] - 10 * ts.events["condemned"]
    broken["paid"] = jnp.abs(paid - ts.reward).sum()
    broken["ripe_too_early"] = (state.berries.ripe & (state.berries.rest > 0)).sum()
    return broken | {name: ts.events[name].sum() for name in ("planted", "condemned", "ate")}


def test_random_steps_keep_the_rules():
    found = random_play(preset("allelopathic_harvest"), KEY, num_games=100, steps=1000, facts=facts)
    for name in ("planted", "condemned", "ate"):
        assert found.pop(name).sum() > 100
    for name, count in found.items():
        assert not count.any(), name


def test_bad_numbers_are_refused():
    env = preset("allelopathic_harvest")
    with pytest.raises(ValueError, match=r"env\.preference=pink: must be one of halves, alternating, red"):
        env.replace(preference="pink").check()
    with pytest.raises(ValueError, match=r"env\.freeze=300: must lie in 0 \.\. 255"):
        env.replace(freeze=300).check()
    with pytest.raises(ValueError, match=r"env\.removal=0: must be at least 1"):
        env.replace(removal=0).check()
