"""Schelling's model: hand-made moves, what is conserved, and the numbers of Mesa's rules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import relocation
from envs.schelling_classic import SEEK, STAY
from envs.schelling_plain import PlainSchelling
from marl import segregation
from marl.build import load
from tests.probes import jit_reset

GAME = load("env=schelling_classic").env
MESA = load("env=schelling_classic_mesa").env
KEY = jax.random.key(0)
# threshold: content at first, same-type fraction at the end and its standard deviation; 12 seeds of mesa 3.3.1
TABLE = {
    0.25: (0.900, 0.644, 0.014),
    0.30: (0.818, 0.772, 0.030),
    0.375: (0.746, 0.816, 0.017),
    0.40: (0.723, 0.838, 0.023),
    0.50: (0.604, 0.890, 0.014),
    0.60: (0.370, 0.965, 0.008),
    0.75: (0.173, 0.978, 0.045),
}


def site_of(rows):
    """A game without borders to speak of and its board: 1 and 2 are residents, 0 is vacant."""
    cells = np.array(rows).ravel()
    order = np.argsort(np.where(cells == 0, 3, cells), kind="stable").astype(np.int32)
    counts = int((cells == 1).sum()), int((cells == 2).sum())
    game = GAME.replace(rows=len(rows), columns=len(rows[0]), num_residents=counts)
    return game, jnp.asarray(order)


def boards(site, game):
    return np.asarray(game.grid(site))


@functools.partial(jax.jit, static_argnames="steps")
def final(game, key, steps=200):
    """Share content at first, then the same-type fraction, share content and steps at the end."""
    start_key, key = jax.random.split(key)
    state, _ = jit_reset(game, start_key)
    first = state.content.mean()
    seek = jnp.full(game.num_agents, SEEK, jnp.int32)

    def step(state):
        return game.step(jax.random.fold_in(key, state.time), state, seek)[0]

    going = lambda state: ~state.content.all() & (state.time < steps)
    state = jax.lax.while_loop(going, step, state)
    same = segregation.same_fraction(game.grid(state.site), 1, game.torus)[0]
    return first, same, state.content.mean(), state.time


over_seeds = jax.vmap(final, in_axes=(None, 0))
over_thresholds = jax.jit(
    jax.vmap(over_seeds, in_axes=(jax.tree.map(lambda _: None, MESA).replace(threshold=0), None))
)


def test_mesas_table_is_met_within_two_standard_deviations():
    swept = MESA.replace(threshold=jnp.array(list(TABLE), jnp.float32))
    first, same, content, _ = (np.asarray(x) for x in over_thresholds(swept, jax.random.split(KEY, 12)))
    for i, (threshold, (content_first, fraction, spread)) in enumerate(TABLE.items()):
        assert abs(same[i].mean() - fraction) <= 2 * spread, threshold
        assert abs(first[i].mean() - content_first) <= 2 * first[i].std(), threshold
    assert (content[:-1] == 1).all()  # all are content at the end but with a threshold of .75
    assert content[-1].mean() > 0.9


def test_plain_python_agrees():
    seeds = 24
    plain = []
    for seed in range(seeds):
        model = PlainSchelling(seed, 0.4, 10, 10, (40, 40))
        for _ in range(200):
            if all(model.content):
                break
            model.step()
        plain.append(model.same_fraction())
    ours = np.asarray(over_seeds(GAME, jax.random.split(KEY, 96))[1])
    error = np.hypot(np.std(plain) / np.sqrt(seeds), ours.std() / np.sqrt(96))
    assert abs(np.mean(plain) - ours.mean()) < 2.5 * error


@pytest.mark.parametrize(
    ("move", "updates"),
    [
        ("random_empty", ("sequential", "simultaneous", "parallel")),
        ("random_satisfying", ("sequential", "parallel")),
    ],
)
def test_updates_agree_in_statistics(move, updates):
    means = {}
    for update in updates:
        game = GAME.replace(move=move, update=update)
        same = np.asarray(over_seeds(game, jax.random.split(jax.random.key(1), 96))[1])
        means[update] = same.mean(), 2 * same.std(ddof=1) / np.sqrt(96)
    for one, spread in means.values():
        for other, other_spread in means.values():
            assert abs(one - other) <= spread + other_spread, means


@pytest.mark.parametrize(
    ("move", "update"),
    [
        ("random_empty", "sequential"),
        ("random_empty", "simultaneous"),
        ("random_empty", "parallel"),
        ("random_satisfying", "parallel"),
        ("nearest_satisfying", "simultaneous"),
    ],
)
def test_nobody_is_lost_and_only_the_discontent_who_seek_move(move, update):
    game = GAME.replace(
        move=move, update=update, threshold=0.5, rows=7, columns=9, num_residents=(25, 20), torus=True
    )
    step = jax.jit(game.step)
    state, _ = jit_reset(game, KEY)
    for i in range(6):
        seeks = jax.random.bernoulli(jax.random.key(i), 0.7, (45,))
        new, ts = step(jax.random.key(i), state, seeks.astype(jnp.int32))
        assert np.sort(new.site).tolist() == list(range(63))
        moved = np.asarray(new.site[:45] != state.site[:45])
        assert (moved <= np.asarray(seeks)).all()
        if update != "sequential":
            assert (moved <= ~np.asarray(state.content)).all()
            assert moved.sum() > 0 or move != "random_empty"
        assert ts.events["moved"].tolist() == moved.astype(float).tolist()
        assert ((boards(new.site, game) == 1).sum(), (boards(new.site, game) == 2).sum()) == (25, 20)
        state = new
    still, _ = step(KEY, state, jnp.full(45, STAY))
    assert (still.site == state.site).all()


def test_contentment_of_a_hand_made_board():
    game, site = site_of([[1, 1, 0], [0, 2, 0], [2, 0, 1]])
    # seats: 1 at (0,0) and (0,1) with like shares 1/2, 1 at (2,2) 0/1; 2 at (1,1) 1/4, 2 at (2,0) 1/1
    same, both, content = game.replace(threshold=0.5).judged(site)
    assert (same.tolist(), both.tolist()) == ([1, 1, 0, 1, 1], [2, 2, 1, 4, 1])
    assert content.tolist() == [True, True, False, False, True]
    assert game.replace(threshold=0.25).judged(site)[2].tolist() == [True, True, False, True, True]
    counted = game.replace(criterion="count", threshold=1).judged(site)[2]
    assert counted.tolist() == [True, True, False, True, True]
    alone, site = site_of([[1, 0, 2]])
    for isolated in (True, False):
        assert alone.replace(isolated_content=isolated).judged(site)[2].tolist() == [isolated] * 2
    assert alone.replace(threshold=0.0).judged(site)[2].tolist() == [True, True]


def test_all_shares_that_equal_the_threshold_are_enough():
    for both in range(1, 9):
        for same in range(both + 1):
            rule = GAME.replace(threshold=jnp.float32(same / both))
            assert bool(relocation.satisfied(jnp.int32(same), jnp.int32(both), rule))
            assert same == 0 or not relocation.satisfied(jnp.int32(same - 1), jnp.int32(both), rule)


def test_reward_is_content_less_the_cost_of_moving():
    game, site = site_of([[1, 1, 0], [0, 2, 0], [2, 0, 1]])
    game = game.replace(threshold=0.5, move_cost=0.25)
    state = jit_reset(game, KEY)[0].replace(site=site, content=game.judged(site)[2])
    _, ts = game.step(KEY, state, jnp.full(5, SEEK))
    np.testing.assert_allclose(ts.reward, ts.events["content"] - 0.25 * ts.events["moved"])
    assert ts.events["moved"].tolist() == [0, 0, 1, 1, 0]


def test_the_nearest_satisfying_vacancy_is_taken():
    game, site = site_of([[1, 1, 0, 0, 0, 0], [0, 0, 0, 2, 1, 2]])
    game = game.replace(threshold=0.6, move="nearest_satisfying")
    # the 1 among the 2s: of the cells with like neighbours alone, (0,2) is the nearest (3 steps), as (1,2) has a 2
    site_after = game.moved(KEY, site, game.judged(site)[2], jnp.array([False, False, True, False, False]))
    assert boards(site_after, game).tolist() == [[1, 1, 0, 0, 0, 0], [0, 1, 0, 2, 0, 2]]


def test_who_finds_no_satisfying_vacancy_stays():
    game, site = site_of([[1, 2, 0, 0, 0, 0]])
    for update in ("simultaneous", "parallel"):
        changed = game.replace(threshold=0.6, move="random_satisfying", update=update)
        assert (changed.moved(KEY, site, changed.judged(site)[2], jnp.ones(2, bool)) == site).all()


def test_movers_one_after_another_reach_every_vacancy_alike():
    """Two movers, one vacancy: the first takes it and the second the cell that it left, in either order."""
    site, moves = jnp.arange(4, dtype=jnp.int32), jnp.array([True, True, False])
    keys = jax.random.split(KEY, 400)
    found = np.asarray(
        jax.jit(jax.vmap(relocation.one_after_another, in_axes=(0, None, None)))(keys, site, moves)
    )
    ways = {(3, 0, 2, 1), (1, 3, 2, 0)}
    assert {tuple(x) for x in found.tolist()} == ways
    assert 160 < (found[:, 0] == 3).sum() < 240
    # and as in the slow loop: where three movers end, with two vacancies
    moves, site = jnp.ones(3, bool), jnp.arange(5, dtype=jnp.int32)
    fast = np.asarray(
        jax.jit(jax.vmap(relocation.one_after_another, in_axes=(0, None, None)))(keys, site, moves)
    )
    game = GAME.replace(rows=1, columns=5, num_residents=(2, 1))
    slow = jax.jit(jax.vmap(lambda k: relocation.in_turn(k, site, moves, game, anew=False)))(keys)
    for seat in range(3):
        shares = [np.bincount(np.asarray(x)[:, seat], minlength=5) / 400 for x in (fast, slow)]
        np.testing.assert_allclose(*shares, atol=0.11)


def test_at_once_all_vacancies_fill_up_and_movers_have_equal_chances():
    site, moves = jnp.arange(8, dtype=jnp.int32), jnp.array([True, True, False, True, True, False])
    keys = jax.random.split(KEY, 400)
    found = np.asarray(jax.jit(jax.vmap(relocation.all_at_once, in_axes=(0, None, None)))(keys, site, moves))
    gone = found[:, :6] != np.arange(6)
    assert (gone.sum(1) == 2).all()
    assert (np.sort(found, axis=1) == np.arange(8)).all()
    assert abs(gone.mean(0) - np.array([0.5, 0.5, 0, 0.5, 0.5, 0])).max() < 0.1
    assert abs((found[:, 0] == 6).mean() - 0.25) < 0.08
    for num in (1, 2, 7, 300):
        assert sorted(np.asarray(relocation.permutation(KEY, num)).tolist()) == list(range(num))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"move": "far"}, r"env.move=far: must be one of random_empty"),
        ({"num_residents": (50, 50)}, r"must leave one of 100 cells vacant"),
        ({"torus": True, "radius": 5}, r"env.radius=5: must leave the window smaller"),
        ({"update": "parallel", "move": "nearest_satisfying"}, r"must not be with env.update=parallel"),
        ({"threshold": 2.0}, r"env.threshold=2.0: must lie in 0 .. 1"),
    ],
)
def test_rules_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GAME.replace(**changes).check()


def test_picture_shows_the_types():
    game, site = site_of([[1, 0], [2, 2]])
    picture = game.picture(jit_reset(game, KEY)[0].replace(site=site))
    assert picture.shape == (240, 240, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 3
