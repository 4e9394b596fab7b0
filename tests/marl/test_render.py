"""Films: every game shows something, what is shown is what happened, and the file can be read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from marl.algorithm import Algorithm
from marl.build import load, player
from marl.evaluate import play, record
from marl.film import film_frames, history
from marl.population import Mixture
from marl.render import BLUE, GREEN, PALETTE, PAPER, RED, Thing, board, grid_view, write_gif
from tests.toys import commons


def count(picture, colour):
    return int((picture == np.array(colour)).all(-1).sum())


class Cycle(Algorithm):
    """Takes the actions 0, 1, 0, 1 ... in turn."""

    def initial_carry(self, env, ts):
        return jnp.zeros(ts.reward.shape, jnp.int32)

    def act(self, env, learner, carry, ts, key, greedy=False):
        return carry % 2, carry + 1, ()


def test_a_board_has_its_things_where_they_are():
    picture = board(2, 3, [Thing(1, 2, RED, "disc")])
    cell = (picture.shape[0] - 1) // 2
    assert picture.shape == (2 * cell + 1, 3 * cell + 1, 3)
    assert cell >= 24
    assert picture.dtype == np.uint8
    assert tuple(picture[cell + cell // 2, 2 * cell + cell // 2]) == RED
    assert tuple(picture[cell // 2, cell // 2]) == PAPER
    assert count(picture[: cell + 1], RED) == count(picture[:, : 2 * cell + 1], RED) == 0
    assert board(40, 40, []).shape[0] == 40 * 24 + 1


@pytest.mark.parametrize("num", [2, 3, 4, 7])
def test_things_that_share_a_cell_are_all_seen(num):
    picture = board(3, 3, [Thing(1, 1, colour, "disc") for colour in PALETTE[:num]])
    seen = [count(picture, colour) for colour in PALETTE[:num]]
    assert min(seen) == max(seen) > 20


def test_ground_lies_under_what_stands_on_it_and_tints_under_both():
    alone = board(1, 1, [Thing(0, 0, RED, "disc")])
    picture = board(1, 1, [Thing(0, 0, RED, "disc"), Thing(0, 0, BLUE, "water")])
    assert count(picture, RED) == count(alone, RED)
    assert count(picture, BLUE) > 0
    tinted = board(1, 2, [Thing(0, 0, RED, "disc")], [(0, 0, GREEN), (0, 0, BLUE)])
    shade = tuple(int(0.65 * ground + 0.35 * c) for ground, c in zip(PAPER, BLUE, strict=True))
    half = tinted.shape[1] // 2
    assert count(tinted, RED) > 0
    assert count(tinted[:, :half], PAPER) == 0 < count(tinted[:, :half], shade)
    assert count(tinted[:, half:], shade) == 0


def test_a_view_gives_each_code_of_each_layer_a_colour_of_its_own():
    grid = np.zeros((2, 3, 2), np.uint8)
    grid[0, 0, 0], grid[0, 1, 0], grid[1, 2, 1] = 1, 2, 1
    picture = grid_view(grid)
    assert [count(picture, colour) > 0 for colour in PALETTE[:4]] == [True, True, True, False]


def test_the_coin_game_draws_seats_and_coins_also_inside_mechanisms():
    setup = load("env=coin_game", "mechanism=[reputation,gifting_fixed_budget]", "num_envs=4")
    state, _ = setup.env.reset(jax.random.key(0))
    game = state.inner.inner
    # red seat on cell 4, blue seat and red coin on cell 8, no blue coin
    game = game.replace(seat_cell=jnp.array([4, 8]), coin_cell=jnp.array([8, 9]))
    state = state.replace(inner=state.inner.replace(inner=game))
    picture = setup.env.picture(state)
    cell = (picture.shape[0] - 1) // 3
    middle, last = picture[cell : 2 * cell, cell : 2 * cell], picture[2 * cell :, 2 * cell :]
    assert count(middle, RED) > count(last, RED) > 0
    assert count(picture, BLUE) == count(last, BLUE) > 0


def test_a_game_without_a_picture_says_so():
    with pytest.raises(ValueError, match="Commons draws no picture"):
        commons().picture(None)


def test_a_chart_has_a_row_a_seat_and_the_last_steps():
    env = load("env=prisoners_dilemma").env
    first, second = PALETTE[2], PALETTE[3]
    few = history(np.array([[0, 1], [0, 0]]), env.action_space, 2)
    assert count(few, first) == 3 * count(few, second) > 0
    many = history(np.array([[1, 1]] * 50 + [[0, 0]] * 30), env.action_space, 2)
    assert count(many, second) == 0


@pytest.mark.parametrize("name", ["matrix", "grid", "coins"])
def test_a_film_has_a_picture_of_every_moment(name, tmp_path):
    games = {"matrix": "prisoners_dilemma", "coins": "coin_game"}
    env = commons(12, horizon=5) if name == "grid" else load(f"env={games[name]}", "env.horizon=5").env
    film = record(env, Cycle(), (), jax.random.key(0), max_steps=5, greedy=False)
    frames = film_frames(env, film)
    assert len(frames) == 6
    assert len({frame.shape for frame in frames}) == 1
    assert len({frame.tobytes() for frame in frames}) == 6
    write_gif(frames, tmp_path / "film.gif", 4)
    with Image.open(tmp_path / "film.gif") as image:
        assert (image.n_frames, image.info["duration"], image.info["loop"]) == (6, 250, 0)
        assert image.size == frames[0].shape[1::-1]


def test_a_recorded_episode_is_the_one_that_play_counts():
    env = load(
        "env=prisoners_dilemma", "env.horizon=0", "env.ends_by_chance=true", "env.continuation_prob=0.8"
    ).env
    both = Mixture(members=(player("tit_for_tat", [0]), player("random", [1])), holder=(0, 1))
    for seed in range(2):
        key = jax.random.key(seed)
        film = record(env, both, ((), ()), key, max_steps=12, greedy=False)
        found = play(env, both, ((), ()), key, num_episodes=1, max_steps=12, greedy=False)
        assert len(film.action) == int(found.length[0])
        np.testing.assert_allclose(film.ts.reward.sum(0), found.return_[0], rtol=1e-6)
        np.testing.assert_array_equal(film.action[1:, 0], film.action[:-1, 1])  # tit-for-tat
        assert not film.ts.done[:-1].any()
        np.testing.assert_array_equal(film.state.last_action[1:], film.action)
