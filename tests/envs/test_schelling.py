import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.schelling import TURNS, Schelling
from envs.schelling_turns import STILL, windows
from marl.build import load
from marl.segregation import morans_i, same_fraction
from tests import conformance
from tests.probes import jit_reset

KEY = jax.random.key(0)
UP, LEFT, DOWN, RIGHT = range(4)
SIZE = 7
NOWHERE = SIZE * SIZE


def world(**changes):
    """7 x 7 cells, two seats of each kind, windows of 3 x 3, nobody dead appears again."""
    numbers = {"intolerance": 0.5, "interdependence": 25.0, "gain": 1.0, "alive_reward": 0.1}
    numbers |= {"still_penalty": 1.0, "occlusion_penalty": 2.0, "death_penalty": 4.0, "entry_prob": 0.0}
    numbers |= {"max_age": 10.0, "seg_reward": "delta_cells", "always_alive": False, "num_per_kind": 2}
    return Schelling(**(numbers | {"height": SIZE, "width": SIZE, "radius": 1, "horizon": 9} | changes))


step = jax.jit(lambda env, key, state, action: env.step(key, state, action))


def placed(env, *cells, life=10.0):
    """A state with the seats on (row, column), None for the dead, who saw their windows there."""
    cell = [NOWHERE if c is None else SIZE * c[0] + c[1] for c in cells]
    state, _ = jit_reset(env, KEY)
    who = np.zeros(NOWHERE + 1, np.int32)
    for seat, c in enumerate(cell):
        who[c] = (seat + 1) * (c < NOWHERE)
    who, cell = jnp.asarray(who), jnp.asarray(cell, jnp.int32)
    window = windows(env, who, cell, jnp.arange(4))
    life = jnp.broadcast_to(jnp.float32(life), 4)
    return state.replace(who=who, cell=cell, window=window, life=life)


def where(state):
    return [None if c == NOWHERE else divmod(int(c), SIZE) for c in state.cell]


def events(ts):
    return {name: np.flatnonzero(x).tolist() for name, x in ts.events.items() if name != "alive"}


def test_moves_wrap_and_pay_what_the_window_gains():
    """Seat 0 goes up and over the edge, seats 1 and 2 bump, seat 3 stays; nobody is near to seat 0 or 3."""
    env = world()
    state = placed(env, (0, 3), (3, 1), (3, 3), (5, 5))
    state, ts = step(env, KEY, state, jnp.array([UP, LEFT, UP, STILL]))
    assert where(state) == [(6, 3), (3, 0), (2, 3), (5, 5)]
    np.testing.assert_allclose(ts.reward, [0.1, 0.1, 0.1, -1.0], rtol=1e-6)
    assert events(ts)["moved"] == [0, 1, 2]
    assert events(ts)["stayed"] == [3]
    np.testing.assert_allclose(ts.obs["vector"][:, 0], 0.9)
    assert not ts.seat_terminated.any()


@pytest.mark.parametrize(("intolerance", "felt"), [(0.0, 0.0), (0.5, -0.5), (1.0, -1.0)])
def test_the_other_kind_in_sight_costs_by_intolerance(intolerance, felt):
    """Seat 0 comes to stand beside seat 2, of the other kind: one cell of its window falls from 0 to -1."""
    env = world(intolerance=intolerance)
    state = placed(env, (1, 1), (5, 1), (1, 3), (5, 5))
    state, ts = step(env, KEY, state, jnp.array([RIGHT, STILL, STILL, STILL]))
    np.testing.assert_allclose(ts.reward[0], 0.1 + felt, rtol=1e-6)
    assert ts.obs["grid"][0, :, :, 0].tolist() == [[0, 0, 0], [0, 1, 2], [0, 0, 0]]


def test_cells_are_compared_one_by_one():
    """The own kind moves one cell along the window: +1 where it is now, -1/2 where it was."""
    env = world()
    state = placed(env, (1, 1), (1, 2), (5, 3), (5, 5))
    state = state.replace(cell=state.cell.at[1].set(16), who=state.who.at[9].set(0).at[16].set(2))
    state, ts = step(env, KEY, state, jnp.array([STILL, STILL, STILL, STILL]))
    assert ts.reward[0] == -1.0  # the window changed, but who stays does not feel it
    state = placed(env, (1, 1), (1, 2), (5, 3), (5, 5))
    _, ts = step(env, KEY, state, jnp.array([DOWN, STILL, STILL, STILL]))
    np.testing.assert_allclose(ts.reward[0], 0.1 + 1 - 0.5, rtol=1e-6)


def test_level_counts_what_is_seen_also_by_who_stays():
    env = world(seg_reward="level", always_alive=True)
    state = placed(env, (1, 1), (1, 2), (2, 2), (5, 5))
    _, ts = step(env, KEY, state, jnp.full(4, STILL))
    np.testing.assert_allclose(ts.reward, [1 - 0.5 + 0.1 - 1, 0.5 - 0.9, -1.0 - 0.9, -0.9], rtol=1e-5)


def test_a_kill_takes_the_cell_and_prolongs_life():
    env = world()
    state = placed(env, (1, 1), (5, 1), (1, 2), (5, 5))
    state, ts = step(env, KEY, state, jnp.array([RIGHT, STILL, STILL, STILL]))
    assert where(state) == [(1, 2), (5, 1), None, (5, 5)]
    assert state.life[0] == 10 - 1 + 2
    assert ts.seat_terminated.tolist() == [False, False, True, False]
    # to the right of oneself there was the victim, -1, and now there is nobody; in the middle is oneself
    np.testing.assert_allclose(ts.reward[0], 0.1 + 25 + 1, rtol=1e-6)
    own_turn = events(ts)["stayed"] == [1, 2, 3]  # the victim's turn came first
    assert ts.reward[2] == -4.0 - own_turn
    assert events(ts)["killed"] == [0]
    assert events(ts)["was_killed"] == [2]
    assert ts.action_mask[2].tolist() == [False, False, False, False, True]
    assert not ts.obs["grid"][2].any()
    assert ts.obs["vector"][2] == 0


def test_the_own_kind_stays_where_it_is():
    state = placed(world(), (1, 1), (1, 2), (4, 4), (5, 6))
    state, ts = step(world(), KEY, state, jnp.array([RIGHT, STILL, STILL, STILL]))
    assert where(state)[:2] == [(1, 1), (1, 2)]
    assert ts.reward[0] == -2.0
    assert events(ts)["occluded"] == [0]


def test_death_of_age_and_entry_on_an_empty_cell():
    env = world()
    state = placed(env, (1, 1), None, (4, 4), (5, 6), life=jnp.array([1.0, 5.0, 0.5, 3.0]))
    state, ts = step(env, KEY, state, jnp.array([RIGHT, STILL, STILL, LEFT]))
    assert where(state) == [None, None, None, (5, 5)]
    assert ts.reward.tolist()[:3] == [-4.0, 0.0, -4.0]
    assert events(ts)["died_of_age"] == [0, 2]
    assert ts.seat_terminated.tolist() == [True, False, True, False]
    sure = world(entry_prob=1.0)
    state, ts = step(sure, KEY, state, jnp.full(4, STILL))
    assert events(ts)["entered"] == [0, 1, 2]
    assert len({c for c in where(state) if c}) == 4
    assert ts.reward.tolist()[:3] == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(ts.obs["vector"][:3], 1.0)
    assert state.age.tolist()[:3] == [0, 0, 0]
    assert ts.action_mask.all()


def test_entries_are_uniform_over_empty_cells():
    env = world(entry_prob=0.2)
    state = placed(env, None, (5, 1), (1, 2), (5, 5))
    go = jax.vmap(lambda key: env.step(key, state, jnp.full(4, STILL))[0].cell[0])
    cell = np.asarray(jax.jit(go)(jax.random.split(KEY, 9200)))
    count = np.bincount(cell, minlength=NOWHERE + 1)
    assert abs(count[:-1].sum() / 9200 - 0.2) < 0.0167  # 4 standard errors
    assert (count[[5 * 7 + 1, 9, 5 * 7 + 5]] == 0).all()
    expected = count[:-1].sum() / 46
    chi = ((np.delete(count[:-1], [36, 9, 40]) - expected) ** 2 / expected).sum()
    assert chi < 45 + 4 * 90**0.5


def test_it_keeps_its_promises():
    conformance.check(world(entry_prob=0.5), KEY, 12)


@pytest.mark.slow
def test_it_plays_alike_without_compilation():
    conformance.check_eager(world(entry_prob=0.5), KEY)


def random_play(env, key, steps):
    """(states after, actions, TimeSteps after), each [steps, ...], of uniform moves."""
    state, ts = jit_reset(env, key)

    def one(now, key):
        state, ts = now
        action = jax.random.randint(key, ts.reward.shape, 0, 5)
        action = jnp.where(ts.action_mask[:, 0], action, STILL)
        now = env.step(jax.random.fold_in(key, 1), state, action)
        return now, (now[0], action, now[1])

    return jax.lax.scan(one, (state, ts), jax.random.split(key, steps))[1]


@pytest.fixture(scope="module")
def crowd():
    """300 steps of 20 seats of each kind on 12 x 12 cells, at intolerance 0, 1/2 and 1."""
    env = world(num_per_kind=20, height=12, width=12, radius=2, entry_prob=0.2, max_age=30.0)
    play = lambda alpha: random_play(env.replace(intolerance=alpha), KEY, 300)
    return env, jax.jit(jax.vmap(play))(jnp.array([0.0, 0.5, 1.0]))


def test_there_is_one_seat_a_cell_and_none_is_lost(crowd):
    env, (state, _, ts) = crowd
    who, cell = np.asarray(state.who), np.asarray(state.cell)
    assert (who[..., -1] == 0).all()
    for own_who, own_cell in zip(who[0], cell[0], strict=True):
        alive = own_cell < env.num_cells
        assert (own_who[own_cell[alive]] == np.flatnonzero(alive) + 1).all()
        assert (own_who > 0).sum() == alive.sum()
    died = np.asarray(ts.seat_terminated)[0]
    now = cell[0] < env.num_cells
    before = np.vstack([np.ones((1, 40), bool), now[:-1]])
    np.testing.assert_array_equal(np.asarray(ts.events["alive"][0]) > 0, before)
    assert (now[1:] <= (before[1:] & ~died[1:]) | (np.asarray(ts.events["entered"][0, 1:]) > 0)).all()


def test_play_is_the_same_at_every_intolerance_and_full_intolerance_pays_differences(crowd):
    """With a swept weight moves are equal; at alpha 1 a move pays the change of own minus other in sight."""
    _, (state, _, ts) = crowd
    assert (state.cell[0] == state.cell[2]).all()
    window = np.asarray(state.window[2]).astype(int)
    worth = (window == 1).sum(-1) - (window == 2).sum(-1)
    went = np.asarray(ts.events["moved"][2]) > 0
    killed = np.asarray(ts.events["killed"][2])
    stable = went & ~np.asarray(ts.seat_terminated[2])
    gain = np.asarray(ts.reward[2]) - 0.1 - 25 * killed
    np.testing.assert_allclose(gain[1:][stable[1:]], np.diff(worth, axis=0)[stable[1:]], atol=1e-4)
    lower = np.asarray(ts.reward[0]) - np.asarray(ts.reward[2])
    np.testing.assert_allclose(np.asarray(ts.reward[1]) - np.asarray(ts.reward[2]), lower / 2, atol=1e-4)
    assert (lower >= -1e-4).all()


def test_turns_at_once_end_as_turns_one_after_another():
    """Without entries, which alone come later at once: 40 seats on 9 x 9 cells, where they kill often."""
    env = world(num_per_kind=20, height=9, width=9, radius=2, max_age=12.0)
    play = lambda env, key: random_play(env, key, 12)
    keys = jax.random.split(KEY, 20)
    first, second = (jax.jit(jax.vmap(play, in_axes=(None, 0)))(env.replace(turns=t), keys) for t in TURNS)
    assert first[2].events["killed"].sum() > 200
    for name in ("who", "cell", "time"):
        np.testing.assert_array_equal(getattr(first[0], name), getattr(second[0], name), err_msg=name)
    for name, happened in first[2].events.items():
        np.testing.assert_array_equal(happened, second[2].events[name], err_msg=name)
    alive = first[0].cell < env.num_cells
    np.testing.assert_array_equal(jnp.where(alive, first[0].life, 0), jnp.where(alive, second[0].life, 0))
    np.testing.assert_array_equal(jnp.where(alive, first[0].age, 0), jnp.where(alive, second[0].age, 0))


def test_entries_at_once_are_on_cells_of_their_own():
    env = world(num_per_kind=20, height=7, width=7, radius=1, max_age=5.0, entry_prob=1.0, turns="at_once")
    state, _, ts = jax.jit(lambda key: random_play(env, key, 60))(KEY)
    assert ts.events["entered"].sum() > 200
    for who, cell in zip(np.asarray(state.who), np.asarray(state.cell), strict=True):
        alive = np.flatnonzero(cell < env.num_cells)
        assert (who[cell[alive]] == alive + 1).all()
        assert (who > 0).sum() == len(alive)


@pytest.mark.parametrize("turns", TURNS)
def test_random_play_has_the_rates_of_the_source(turns):
    """260 seats at random: rates and ages measured once with an independent simulation of the source's rules."""
    env = load("env=schelling", "env.num_per_kind=130", "algo=random", f"env.turns={turns}").env
    keys = {"in_turn": KEY[None], "at_once": jax.random.split(KEY, 6)}[turns]  # one world, or six
    state, _, ts = jax.jit(jax.vmap(lambda key: random_play(env, key, 400)))(keys)
    alive = np.asarray(state.cell)[:, 150:] < env.num_cells
    acting = np.asarray(ts.events["alive"])[:, 150:].sum()
    rate = {name: np.asarray(x)[:, 150:].sum() / acting for name, x in ts.events.items()}
    assert abs(alive.mean() - 0.907) < 0.01
    assert abs(rate["killed"] - 0.0194) < 0.0015
    assert abs(rate["died_of_age"] - 0.0032) < 0.0008
    # at once a little less, for want of entries between turns: .0406 against .0424 in eight worlds each
    assert abs(rate["occluded"] - 0.044) < {"in_turn": 0.003, "at_once": 0.006}[turns]
    assert abs(np.asarray(state.age)[:, 150:][alive].mean() - 37) < 2
    grid = env.kinds(state.who[:, 150::25])
    each = lambda index: np.mean([index(g) for g in grid.reshape(-1, *grid.shape[2:])])
    assert abs(each(lambda g: same_fraction(g, radius=1, torus=True)[0]) - 0.647) < 0.02
    assert abs(each(lambda g: morans_i(g, torus=True)) - 0.30) < 0.03


def test_a_learner_holds_the_seats_of_a_kind():
    setup = load("env=schelling_small", "seats=typed", "algo=dqn")
    assert setup.algo.seats == (0,) * 31 + (1,) * 31
