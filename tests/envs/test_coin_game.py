"""The Coin Game: hand-played steps under every rule, and the chances of what is drawn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.coin_game import MAX_SIZE, CoinGame, State, _digit
from marl.build import build, build_env
from marl.config import ConfigError, compose
from tests.probes import jit_reset

LEFT, RIGHT, UP, DOWN, STAY = range(5)
RED, BLUE = 0, 1
NOWHERE = 9  # on a board of 3 x 3
NUM_DRAWS = 20_000
TWO_COINS = {"num_coins": 2, "colour_rule": "fixed"}


@functools.cache
def preset(name="coin_game"):
    return build_env(compose([f"env={name}"]))


def make(**fields):
    return preset().replace(**fields)


def state_of(seats, coins):
    return State(jnp.array(seats, jnp.int32), jnp.array(coins, jnp.int32), jnp.int32(0))


def play(env, seats, coins, action, key=0):
    """One step from a given position; `coins` are the cells of the red and the blue coin."""
    return env.step(jax.random.key(key), state_of(seats, coins), jnp.array(action))


@functools.partial(jax.jit, static_argnums=0)
def _many(fields, key, seats, coins, action):
    env = make(**dict(fields))
    step = lambda key: env.step(key, state_of(seats, coins), action)
    return jax.vmap(step)(jax.random.split(key, NUM_DRAWS))


def play_many(fields, seats, coins, action, key=0):
    """The same step under many keys; leaves [NUM_DRAWS, ...]."""
    arrays = jnp.array(seats), jnp.array(coins), jnp.array(action)
    return _many(tuple(fields.items()), jax.random.key(key), *arrays)


def start_many(**fields):
    env = make(**fields)
    keys = jax.random.split(jax.random.key(1), NUM_DRAWS)
    return jax.jit(jax.vmap(env.reset))(keys)[0]


def assert_uniform(values, allowed):
    """Each of `allowed` occurs equally often, within five standard deviations, and nothing else."""
    values = np.asarray(values)
    counts = np.bincount(values, minlength=max(allowed) + 1)
    assert set(np.flatnonzero(counts)) == set(allowed)
    expected = len(values) / len(allowed)
    assert np.abs(counts[list(allowed)] - expected).max() < 5 * np.sqrt(expected)


# moves


@pytest.mark.parametrize(
    ("wrap", "reached"),
    [(True, {0: [2, 1, 6, 3, 0], 8: [7, 6, 5, 2, 8]}), (False, {0: [0, 1, 0, 3, 0], 8: [7, 8, 5, 8, 8]})],
)
def test_left_right_up_down_stay_lead_around_a_torus_and_stop_at_walls(wrap, reached):
    env = make(wrap=wrap, stay_action=True)
    for cell, expected in reached.items():
        for action, target in enumerate(expected):
            state, _ = play(env, [cell, 4], [NOWHERE, 4], [action, STAY])
            assert state.seat_cell.tolist() == [target, 4]


def test_number_of_actions_follows_stay_action():
    assert make(stay_action=False).action_space.n == 4
    assert make(stay_action=True).action_space.n == 5


# coins


@pytest.mark.parametrize(
    ("coins", "reward", "cooperated", "defected"),
    [
        ([1, NOWHERE], [1, 0], [1, 0], [0, 0]),  # red takes the red coin
        ([NOWHERE, 1], [1, -2], [0, 0], [1, 0]),  # red takes the blue coin
        ([7, NOWHERE], [-2, 1], [0, 0], [0, 1]),  # blue takes the red coin
        ([NOWHERE, 7], [0, 1], [0, 1], [0, 0]),  # blue takes the blue coin
        ([5, NOWHERE], [0, 0], [0, 0], [0, 0]),  # nobody takes the coin
    ],
)
def test_taking_pays_and_theft_costs_the_owner(coins, reward, cooperated, defected):
    _, ts = play(make(), [0, 8], coins, [RIGHT, LEFT])
    assert ts.reward.tolist() == reward
    assert ts.events["cooperated"].tolist() == cooperated
    assert ts.events["defected"].tolist() == defected


def test_rewards_are_the_fields():
    env = make(own_coin_reward=2.0, other_coin_reward=0.5, theft_cost=3.0)
    assert play(env, [0, 8], [1, NOWHERE], [RIGHT, LEFT])[1].reward.tolist() == [2, 0]
    assert play(env, [0, 8], [NOWHERE, 1], [RIGHT, LEFT])[1].reward.tolist() == [0.5, -3]


@pytest.mark.parametrize(
    ("tie_rule", "red_coin", "blue_coin"),
    [("both", [-1, 1], [1, -1]), ("first_seat", [1, 0], [1, -2])],
)
def test_both_reach_the_coin(tie_rule, red_coin, blue_coin):
    env = make(tie_rule=tie_rule)
    for coins, expected in (([1, NOWHERE], red_coin), ([NOWHERE, 1], blue_coin)):
        state, ts = play(env, [0, 2], coins, [RIGHT, LEFT])
        assert ts.reward.tolist() == expected
        assert state.coin_cell.min() != 1


def test_random_tie_rule_draws_one_taker():
    _, ts = play_many({"tie_rule": "random"}, [0, 2], [1, NOWHERE], [RIGHT, LEFT])
    red_wins = np.asarray(ts.reward[:, RED] == 1)
    np.testing.assert_array_equal(ts.reward[red_wins], np.broadcast_to([1, 0], (red_wins.sum(), 2)))
    np.testing.assert_array_equal(ts.reward[~red_wins], np.broadcast_to([-2, 1], ((~red_wins).sum(), 2)))
    assert_uniform(red_wins.astype(int), [0, 1])


def test_one_seat_can_take_two_coins_at_once():
    _, ts = play(make(**TWO_COINS), [0, 8], [1, 1], [RIGHT, LEFT])
    assert ts.reward.tolist() == [2, -2]
    assert ts.events["cooperated"].tolist() == ts.events["defected"].tolist() == [1, 0]


def test_each_seat_can_take_the_coin_of_the_other():
    _, ts = play(make(**TWO_COINS), [0, 8], [7, 1], [RIGHT, LEFT])
    assert ts.reward.tolist() == [-1, -1]


# new coins


def test_a_coin_that_nobody_takes_stays():
    for fields in ({}, {"colour_rule": "random"}):
        state, _ = play_many(fields, [0, 8], [NOWHERE, 4], [RIGHT, LEFT])
        assert (state.coin_cell == jnp.array([NOWHERE, 4])).all()


def test_colour_alternates():
    state, _ = play_many({}, [0, 8], [1, NOWHERE], [RIGHT, LEFT])
    assert (state.coin_cell[:, RED] == NOWHERE).all()
    assert (state.coin_cell[:, BLUE] < NOWHERE).all()
    state, _ = play_many({}, [0, 8], [NOWHERE, 1], [RIGHT, LEFT])
    assert (state.coin_cell[:, BLUE] == NOWHERE).all()


def test_random_colour_is_drawn_with_even_odds_and_apart_from_the_cell():
    state, _ = play_many({"colour_rule": "random"}, [0, 8], [1, NOWHERE], [RIGHT, LEFT])
    colour = np.asarray(state.coin_cell[:, RED] == NOWHERE).astype(int)
    cell = np.asarray(state.coin_cell.min(-1))
    assert_uniform(colour * 9 + cell, [9 * k + c for k in range(2) for c in (0, 2, 3, 4, 5, 6, 8)])


def test_with_two_coins_only_the_taken_one_moves():
    state, _ = play_many(TWO_COINS, [0, 8], [1, 4], [RIGHT, LEFT])
    assert (state.coin_cell[:, BLUE] == 4).all()
    assert_uniform(state.coin_cell[:, RED], [0, 2, 3, 4, 5, 6, 8])


def test_two_coins_taken_together_are_drawn_independently():
    state, _ = play_many(TWO_COINS, [0, 2], [1, 1], [RIGHT, LEFT])
    free = [0, 2, 3, 4, 5, 6, 7, 8]
    both = 9 * state.coin_cell[:, RED] + state.coin_cell[:, BLUE]
    assert_uniform(both, [9 * a + b for a in free for b in free])


@pytest.mark.parametrize(
    ("spawn_rule", "blue_seat", "allowed"),
    [
        ("free", 8, [0, 2, 3, 4, 5, 6, 8]),  # red on 1, blue on 7
        ("free", 2, [0, 2, 3, 4, 5, 6, 7, 8]),  # both on 1
        ("anywhere", 8, range(9)),
        ("elsewhere", 8, [0, 2, 3, 4, 5, 6, 7, 8]),  # the coin was on 1
    ],
)
def test_new_coin_is_uniform_over_the_cells_of_its_rule(spawn_rule, blue_seat, allowed):
    fields = {"spawn_rule": spawn_rule}
    state, _ = play_many(fields, [0, blue_seat], [1, NOWHERE], [RIGHT, LEFT])
    assert_uniform(state.coin_cell[:, BLUE], allowed)


def test_two_coins_elsewhere_leave_their_own_cells():
    fields = TWO_COINS | {"spawn_rule": "elsewhere"}
    state, _ = play_many(fields, [0, 8], [1, 7], [RIGHT, LEFT])
    assert_uniform(state.coin_cell[:, RED], [0, 2, 3, 4, 5, 6, 7, 8])
    assert_uniform(state.coin_cell[:, BLUE], [0, 1, 2, 3, 4, 5, 6, 8])


@pytest.mark.parametrize("base", [1, 2, 7, 9, MAX_SIZE**2, 2**16])
def test_digit_is_the_integer_part_of_the_scaled_fraction(base):
    draws = np.random.default_rng(0).integers(0, 2**32, 1000, dtype=np.uint64)
    draws[:2] = 0, 2**32 - 1
    digit, rest = _digit(jnp.asarray(draws.astype(np.uint32)), base)
    np.testing.assert_array_equal(digit, draws * base >> 32)
    np.testing.assert_array_equal(rest, draws * base % 2**32)


# the start


def test_start_is_uniform_with_the_coin_off_the_seats():
    state = start_many(size=2)
    seats, coin = np.asarray(state.seat_cell), np.asarray(state.coin_cell.min(-1))
    assert_uniform(seats[:, RED] * 4 + seats[:, BLUE], range(16))
    assert not (seats == coin[:, None]).any()
    apart = seats[:, RED] != seats[:, BLUE]
    red_coin = np.asarray(state.coin_cell[:, RED] < 4).astype(int)
    place = (4 * seats[:, RED] + seats[:, BLUE]) * 8 + 2 * coin + red_coin
    triples = [(a, b, c) for a in range(4) for b in range(4) for c in range(4) if a != b and c not in (a, b)]
    assert_uniform(place[apart], [(4 * a + b) * 8 + 2 * c + k for a, b, c in triples for k in range(2)])


def test_apart_at_start_excludes_only_equal_cells():
    seats = start_many(apart_at_start=True).seat_cell
    assert_uniform(
        9 * seats[:, RED] + seats[:, BLUE], [9 * a + b for a in range(9) for b in range(9) if a != b]
    )


def test_first_coins_of_spawn_rule_anywhere_may_lie_under_seats():
    state = start_many(**TWO_COINS, spawn_rule="anywhere")
    assert_uniform(9 * state.coin_cell[:, RED] + state.coin_cell[:, BLUE], range(81))
    assert_uniform(9 * state.coin_cell[:, RED] + state.seat_cell[:, BLUE], range(81))


# what the seats see


def planes(*boards):
    """Planes [3, 3, L] from rows such as "100 000 000"."""
    return np.stack([[[int(x) for x in row] for row in board.split()] for board in boards], axis=-1)


BOARD = {"red": "010 000 000", "blue": "000 000 010", "coin": "000 001 000", "none": "000 000 000"}


def look(seats=(1, 7), coins=(NOWHERE, 5), **fields):
    return np.asarray(make(**fields)._observe(jnp.array(seats), jnp.array(coins)))


def test_absolute_view_is_the_same_for_both():
    seen = planes(BOARD["red"], BOARD["blue"], BOARD["none"], BOARD["coin"])
    np.testing.assert_array_equal(look(obs_mode="absolute"), [seen, seen])


def test_swapped_view_shows_the_own_colour_first():
    red = planes(BOARD["red"], BOARD["blue"], BOARD["none"], BOARD["coin"])
    blue = planes(BOARD["blue"], BOARD["red"], BOARD["coin"], BOARD["none"])
    np.testing.assert_array_equal(look(obs_mode="swapped"), [red, blue])


def test_egocentric_view_of_a_torus_is_centred_and_goes_around():
    red = planes("000 010 000", "010 000 000", "000 000 000", "000 000 001")
    blue = planes("000 010 000", "000 000 010", "001 000 000", "000 000 000")
    np.testing.assert_array_equal(look(obs_mode="egocentric"), [red, blue])


def test_egocentric_view_of_a_board_with_walls_is_a_crop_with_a_plane_for_outside():
    red = planes("000 010 000", "000 000 000", "000 000 000", "000 000 001", "111 000 000")
    blue = planes("000 010 000", "000 000 000", "001 000 000", "000 000 000", "000 000 111")
    np.testing.assert_array_equal(look(obs_mode="egocentric", wrap=False), [red, blue])


def test_observations_after_reset_and_step_show_the_state():
    env = make()
    state, ts = jit_reset(env, jax.random.key(0))
    for key in range(20):
        np.testing.assert_array_equal(ts.obs["grid"], env._observe(state.seat_cell, state.coin_cell))
        assert ts.obs["grid"].sum() == 2 * 3  # two seats and a coin, seen twice
        state, ts = env.step(jax.random.key(key), state, jnp.array([key % 4, key // 4 % 4]))


@pytest.mark.parametrize("fields", [{}, TWO_COINS, {"obs_mode": "egocentric"}, {"wrap": False}])
def test_exchanging_the_seats_exchanges_everything(fields):
    env = make(**fields)
    for key in range(10):
        state, _ = jit_reset(env, jax.random.key(key))
        action = jnp.array([key % 4, (key + 1) % 4])
        turned = State(state.seat_cell[::-1], state.coin_cell[::-1], state.time)
        after, ts = env.step(jax.random.key(key), state, action)
        after_turned, ts_turned = env.step(jax.random.key(key), turned, action[::-1])
        np.testing.assert_array_equal(ts.reward, ts_turned.reward[::-1])
        np.testing.assert_array_equal(after.seat_cell, after_turned.seat_cell[::-1])
        if not fields.get("num_coins"):  # two coins are drawn in the order of their colours
            np.testing.assert_array_equal(ts.obs["grid"], ts_turned.obs["grid"][::-1])


# the end, presets, errors


def test_episode_is_cut_at_the_horizon():
    env = make(horizon=3)
    state, ts = jit_reset(env, jax.random.key(0))
    ends = []
    for key in range(3):
        state, ts = env.step(jax.random.key(key), state, jnp.array([LEFT, LEFT]))
        ends.append((bool(ts.truncated), bool(ts.terminated)))
    assert ends == [(False, False), (False, False), (True, False)]
    assert env.fixed_horizon == 3


# size, wrap, coins, colours, cells, apart, tie, actions, view, horizon (specification, part 3)
PRESETS = {
    "coin_game": (3, True, 1, "alternate", "free", False, "both", 4, "swapped", 50),
    "coin_game_loqa": (3, True, 1, "alternate", "free", False, "both", 4, "swapped", 50),
    "coin_game_pola": (3, True, 1, "alternate", "free", False, "both", 4, "absolute", 50),
    "coin_game_lola": (3, True, 1, "alternate", "free", True, "first_seat", 4, "absolute", 150),
    "coin_game_mfos": (3, True, 2, "fixed", "anywhere", False, "both", 4, "absolute", 16),
    "coin_game_pax": (3, True, 2, "fixed", "anywhere", False, "both", 5, "egocentric", 16),
    "coin_game_lase": (5, False, 1, "random", "anywhere", False, "random", 4, "egocentric", 100),
    "coin_game_mate": (3, False, 1, "random", "elsewhere", True, "both", 4, "swapped", 150),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_published_versions(name):
    e = preset(name)
    found = (e.size, e.wrap, e.num_coins, e.colour_rule, e.spawn_rule, e.apart_at_start, e.tie_rule)
    assert (*found, int(e.action_space.n), e.obs_mode, e.horizon) == PRESETS[name]
    assert (e.own_coin_reward, e.other_coin_reward, e.theft_cost) == (1, 1, 2)
    e.check()
    state, ts = jit_reset(e, jax.random.key(0))
    assert ts.obs["grid"].shape == (2, e.size, e.size, len(e.grid_codes))
    assert (np.asarray(state.coin_cell) < e.size**2).sum() == e.num_coins


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 1}, "env.size=1: must lie in 2"),
        ({"size": MAX_SIZE + 1}, "env.size=15"),
        ({"num_coins": 3}, "env.num_coins=3: must be one of 1, 2"),
        ({"colour_rule": "same"}, "env.colour_rule=same: must be one of alternate, random, fixed"),
        ({"spawn_rule": "here"}, "env.spawn_rule=here: must be one of free, anywhere, elsewhere"),
        ({"tie_rule": "none"}, "env.tie_rule=none: must be one of both, first_seat, random"),
        ({"obs_mode": "rgb"}, "env.obs_mode=rgb: must be one of absolute, swapped, egocentric"),
        ({"horizon": 0}, "env.horizon=0: must be at least 1"),
        ({"num_coins": 2}, "env.colour_rule=alternate does not fit env.num_coins=2"),
        ({"colour_rule": "fixed"}, "env.colour_rule=fixed does not fit env.num_coins=1"),
        ({"obs_mode": "egocentric", "size": 4}, "env.obs_mode=egocentric needs an odd env.size"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        make(**fields).check()


def test_a_bad_rule_on_the_command_line_is_one_clear_line():
    with pytest.raises(ConfigError, match=r"env\.tie_rule=nobody: must be one of both, first_seat, random"):
        build(compose(["env=coin_game", "env.tie_rule=nobody"]))


def test_theft_cost_can_be_swept_by_vmap():
    cost = jnp.array([0.0, 1.0, 2.0])
    env = make().replace(theft_cost=cost)
    axes = jax.tree.map(lambda _: None, env).replace(theft_cost=0)
    step = lambda env: env.step(jax.random.key(0), state_of([0, 8], [NOWHERE, 1]), jnp.array([RIGHT, LEFT]))
    reward = jax.vmap(step, in_axes=(axes,))(env)[1].reward
    np.testing.assert_array_equal(reward, [[1, 0], [1, -1], [1, -2]])


def test_larger_boards_show_every_cell():
    env = make(size=9, obs_mode="swapped")
    cells = jnp.arange(81)
    grids = jax.vmap(lambda c: env._observe(jnp.stack([c, c]), jnp.stack([c, jnp.int32(81)])))(cells)
    np.testing.assert_array_equal(grids[:, 0, :, :, 0].reshape(81, 81), np.eye(81))
    assert isinstance(env, CoinGame)
