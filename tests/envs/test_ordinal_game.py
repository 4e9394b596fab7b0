"""The 144 strict ordinal games: numbers, symmetries and families."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.ordinal_game import (
    COLUMN_PATTERNS,
    FAMILIES,
    NUM_GAMES,
    PAYOFFS,
    ROW_PATTERNS,
    SYMMETRIC,
    family,
    ordinal_game,
)
from marl.build import build, build_env
from marl.config import ConfigError, compose
from tests.probes import jit_reset

NUMBERS = range(1, NUM_GAMES + 1)


def swap_players(payoff):
    """The same game [row action, column action, player] with the players exchanged."""
    return payoff.transpose(1, 0, 2)[..., ::-1]


def as_tuple(payoff):
    return tuple(payoff.ravel().tolist())


def make(number):
    return ordinal_game(number, continuation_prob=1.0, horizon=10, ends_by_chance=False)


def test_there_are_144_distinct_games_and_78_up_to_swapping_players():
    games = {as_tuple(p) for p in PAYOFFS}
    assert len(games) == 144
    assert len({min(as_tuple(p), as_tuple(swap_players(p))) for p in PAYOFFS}) == 78
    assert {as_tuple(swap_players(p)) for p in PAYOFFS} == games


def test_every_player_ranks_the_four_outcomes_without_ties():
    ranks = np.sort(PAYOFFS.reshape(NUM_GAMES, 4, 2), axis=1)
    assert (ranks == np.array([1, 2, 3, 4])[:, None]).all()


def test_column_pattern_13_minus_i_is_the_transpose_of_row_pattern_i():
    for i in range(12):
        a, b, c, d = ROW_PATTERNS[i]
        assert COLUMN_PATTERNS[11 - i] == (a, c, b, d)


def test_the_number_is_12_times_row_pattern_plus_column_pattern():
    for number in (1, 13, 67, 144):
        row, column = divmod(number - 1, 12)
        payoff = PAYOFFS[number - 1]
        assert tuple(payoff[..., 0].ravel()) == ROW_PATTERNS[row]
        assert tuple(payoff[..., 1].ravel()) == COLUMN_PATTERNS[column]


def test_exactly_the_twelve_named_games_are_symmetric():
    found = [n for n in NUMBERS if (PAYOFFS[n - 1] == swap_players(PAYOFFS[n - 1])).all()]
    assert found == list(SYMMETRIC)
    assert found == [12, 23, 34, 45, 56, 67, 78, 89, 100, 111, 122, 133]


@pytest.mark.parametrize(
    ("number", "name", "payoff"),
    [
        (67, "prisoner's dilemma", [[[3, 3], [1, 4]], [[4, 1], [2, 2]]]),
        (78, "stag hunt", [[[4, 4], [1, 3]], [[3, 1], [2, 2]]]),
        (12, "chicken", [[[3, 3], [2, 4]], [[4, 2], [1, 1]]]),
    ],
)
def test_known_games_have_their_number_name_and_payoffs(number, name, payoff):
    assert SYMMETRIC[number] == name
    np.testing.assert_array_equal(make(number).payoff, payoff)


def test_families_have_their_sizes_and_the_scored_games_are_136():
    sizes = Counter(family(n) for n in NUMBERS)
    expected = {"U": 19, "B": 44, "C": 18, "S": 12, "T": 8, "P": 7, "W": 36}
    assert sizes == {FAMILIES[letter]: count for letter, count in expected.items()}
    scored = {name: count for name, count in sizes.items() if name != "tragic"}
    assert sum(scored.values()) == 136
    # nine pairings of players each, as in Akata et al.
    assert {n: 9 * c for n, c in scored.items()} == {
        "win-win": 324,
        "prisoner's dilemma family": 63,
        "unfair": 171,
        "cyclic": 162,
        "biased": 396,
        "second best": 108,
    }


def test_prisoners_dilemma_family_has_seven_numbers_closed_under_swapping_players():
    members = [n for n in NUMBERS if family(n) == FAMILIES["P"]]
    assert members == [64, 65, 66, 67, 79, 91, 103]
    games = {as_tuple(PAYOFFS[n - 1]) for n in members}
    assert {as_tuple(swap_players(PAYOFFS[n - 1])) for n in members} == games


def test_win_win_games_and_only_they_give_both_their_best_outcome():
    both_best = [n for n in NUMBERS if (PAYOFFS[n - 1] == 4).all(-1).any()]
    assert both_best == [n for n in NUMBERS if family(n) == "win-win"]


def test_cyclic_games_and_only_they_have_no_pure_equilibrium():
    def equilibria(payoff):
        row_best = payoff[..., 0] == payoff[..., 0].max(0, keepdims=True)
        column_best = payoff[..., 1] == payoff[..., 1].max(1, keepdims=True)
        return (row_best & column_best).sum()

    none = [n for n in NUMBERS if equilibria(PAYOFFS[n - 1]) == 0]
    assert none == [n for n in NUMBERS if family(n) == "cyclic"]


def test_all_games_can_be_played_side_by_side():
    env = make(1)

    def first_round(payoff):
        game = env.replace(payoff=payoff)
        state, _ = jit_reset(game, jax.random.key(0))
        return game.step(jax.random.key(0), state, jnp.array([1, 0]))[1].reward

    np.testing.assert_array_equal(jax.vmap(first_round)(jnp.asarray(PAYOFFS)), PAYOFFS[:, 1, 0])


def test_the_config_builds_the_prisoners_dilemma_over_ten_rounds():
    env = build_env(compose(["env=ordinal_game"]))
    env.check()
    np.testing.assert_array_equal(env.payoff, make(67).payoff)
    assert env.fixed_horizon == 10


def test_a_number_outside_1_to_144_is_refused():
    for number in (0, 145):
        with pytest.raises(ValueError, match=f"env.number={number}: must be .* from 1 to 144"):
            make(number)
        with pytest.raises(ValueError, match=f"env.number={number}"):
            family(number)
    with pytest.raises(ConfigError, match=r"env.number=145"):
        build(compose(["env=ordinal_game", "env.number=145"]))
