"""The population game, hand-played after the rules of arXiv 2301.08278: turns, payoffs, punishment, reputation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.population.partners import adjacency, neighbours
from marl.build import load
from marl.validation import ConfigError
from tests.probes import jit_reset

KEY = jax.random.key(0)
C, D = 0, 1


def game(*overrides):
    return load("env=population_game", "num_envs=1", *overrides).env


class Play:
    """Steps a game; what a step is told of no seat is action 0."""

    def __init__(self, env):
        self.env, self.count = env, 0
        self.do = jax.jit(env.step)
        self.state, self.ts = jit_reset(env, KEY)

    def step(self, **told):
        """`told`: seat_I=action."""
        action = np.zeros(self.env.num_agents, np.int32)
        for seat, value in told.items():
            action[int(seat[5:])] = value
        self.count += 1
        self.state, self.ts = self.do(jax.random.fold_in(KEY, self.count), self.state, action)
        return self.ts

    def part(self, stage):
        """[N, F] what a stage's decisions turn on."""
        start, stop = self.env.stage_columns[stage]
        return np.asarray(self.ts.obs["vector"][:, start:stop])


def events(ts):
    return {name: np.flatnonzero(value).tolist() for name, value in ts.events.items()}


@pytest.fixture(scope="module")
def direct():
    return game(
        "env.punishment.kind=direct", "env.reputation.updated_by=both", "env.rounds=2", "env.horizon=2"
    )


def test_everybody_selects_at_once_then_hosts_take_turns(direct):
    play = Play(direct)
    assert play.ts.action_mask.all(), "four partners each"
    play.step(seat_0=2, seat_1=0, seat_2=3, seat_3=0, seat_4=1)
    assert play.state.partner.tolist() == [3, 0, 4, 0, 1]
    assert play.ts.obs["role"].tolist() == [1, 0, 0, 2, 0]
    hosts = []
    for _ in range(2 * 5):
        hosts.append(int(play.state.host))
        for _ in range(4):
            play.step()
    assert hosts == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert play.ts.truncated.tolist() is False
    assert direct.fixed_horizon == 2 * 5 * 2 * 4


def test_a_round_pays_punishes_and_counts(direct):
    play = Play(direct)
    play.step(seat_0=0)  # chooses seat 1, its first neighbour
    assert play.ts.action_mask[:, 1].tolist() == [True, True, False, False, False]
    ts = play.step(seat_0=C, seat_1=D)
    assert ts.reward.tolist() == [0, 4, 0, 0, 0]
    assert (events(ts)["cooperated"], events(ts)["defected"]) == ([0], [1])
    assert ts.action_mask[:, 1].tolist() == [False, True, False, False, False], (
        "the guest may punish the host"
    )
    ts = play.step(seat_1=1)  # unjustly
    assert ts.reward.tolist() == [-3, -10, 0, 0, 0]
    assert events(ts)["punished_unjustly"] == [1]
    ts = play.step(seat_0=1)  # justly
    assert ts.reward.tolist() == [2, -3, 0, 0, 0]
    assert (events(ts)["punished_justly"], events(ts)["punished_directly"]) == ([0], [0])
    assert play.state.scores.points[3].tolist() == [1 + 2, -1 - 3, 0, 0, 0]
    assert play.part(0)[2].tolist() == [3, -4, 0, 0, 0], "a selection sees everybody"
    assert play.part(1)[:2].tolist() == [[D, C, -4, 3], [C, D, 3, -4]], (
        "opponent's and own move and reputation"
    )


def test_last_moves_are_unknown_at_first_and_against_anyone(direct):
    play = Play(direct)
    play.step(seat_0=0)
    assert play.part(1)[0].tolist() == [2, 2, 0, 0]
    for _ in range(2):
        play.step(seat_0=D)
        play.step()
        play.step()
        play.step(seat_0=0)  # the next round's, then the next host's turn: seat 1 meets seat 0
    assert play.ts.obs["role"].tolist() == [2, 1, 0, 0, 0]
    assert play.part(1)[1].tolist() == [D, C, -2, 2]


def test_a_third_party_is_neither_player_and_every_other_seat_alike():
    env = game("env.punishment.kind=third_party", "env.num_players=5")
    draw = jax.jit(jax.vmap(lambda key: env.partners.third_parties(key, jnp.array([1, 3]), 5)))
    third = np.asarray(draw(jax.random.split(KEY, 6000)))
    assert set(third.ravel()) == {0, 2, 4}
    shares = [(third == seat).mean() for seat in (0, 2, 4)]
    assert np.allclose(shares, 1 / 3, atol=0.02)
    assert np.isclose((third[:, 0] == third[:, 1]).mean(), 1 / 3, atol=0.03), "drawn one by one"


def test_both_punishers_take_six():
    play = Play(game("env.punishment.kind=both"))
    play.step(seat_0=0)
    play.step(seat_0=D, seat_1=D)
    third = int(play.state.third[0])
    ts = play.step(seat_1=1, **{f"seat_{third}": 1})
    assert ts.reward[0] == -6
    assert ts.reward[1] == ts.reward[third] == 2
    assert events(ts)["punished_directly"] == [1]


def test_individual_views_know_persecutors_and_avengers():
    play = Play(
        game("env.punishment.kind=both", "env.reputation.updated_by=both", "env.reputation.individual=true")
    )
    play.step(seat_0=0)
    play.step(seat_0=D, seat_1=C)
    third = int(play.state.third[0])
    play.step(**{f"seat_{third}": 1})  # punishes seat 0, which had defected against seat 1
    points = play.state.scores.points
    bystander = next(seat for seat in range(2, 5) if seat != third)
    assert points[bystander, third] == 2
    assert points[0, third] == 2 - 5
    assert points[1, third] == 2 + 5
    assert points[third, third] == 0
    assert points[1, 0] == -1
    assert points[0, 0] == 0


def test_a_mean_reputation_stays_between_the_points():
    play = Play(game("env.reputation.scale=mean", "env.rounds=3"))
    for _ in range(3):
        play.step(seat_0=0)
        play.step(seat_0=D, seat_1=C)
    assert play.part(0)[4, :2].tolist() == [-1, 1]


def test_choices_are_told_with_what_the_partner_did_in_the_last_episode(direct):
    play = Play(direct)
    play.step(seat_0=0)
    for turn in range(5):
        for _ in range(2):
            play.step(seat_0=D)
            play.step(seat_1=1)
            play.step()
            if turn < 4 or int(play.state.round) < 2:
                play.step()
    ts = play.step(seat_1=0, seat_2=1)  # the second episode: seat 1 chooses 0, seat 2 chooses 1
    facts = events(ts)
    assert facts["chose"] == [0, 1, 2, 3, 4]
    assert 1 not in facts["chose_cooperator"]
    assert 2 in facts["chose_cooperator"]
    assert 2 in facts["chose_just_punisher"], "seat 1 punished the defector"


def test_the_centipede_stops_and_waits_for_the_next_turn():
    play = Play(load("env=population_centipede", "num_envs=1", "env.rounds=4").env)
    play.step(seat_0=0)
    assert play.ts.action_mask[:, 1].tolist() == [True, False, False, False, False]
    assert play.step(seat_0=C).reward.tolist() == [-1, 5, 0, 0, 0]
    play.step()
    assert not play.ts.obs["over"][1]
    play.step(seat_1=D)
    assert play.ts.obs["over"].all()
    play.step()
    assert play.ts.action_mask[:, 1].sum() == 0, "nobody moves after a stop"
    ts = play.step(seat_0=C)
    assert ts.reward.tolist() == [0] * 5
    assert not any(ts.events["cooperated"])


def test_caves_are_connected_by_one_edge_each():
    near = adjacency(25, 5)
    assert (near == near.T).all()
    assert near.sum() // 2 == 5 * 10, "an edge moved, none added"
    assert sorted(near.sum(1)) == [3] * 5 + [4] * 15 + [5] * 5
    assert np.flatnonzero(near[5]).tolist() == [4, 7, 8, 9]
    assert (neighbours(25, 5)[6] == [7, 8, 9, -1, -1]).all()


def test_a_player_in_a_cave_chooses_and_sees_neighbours_alone():
    env = game("env.num_players=25", "env.partners.caves=5", "env.punishment.kind=third_party")
    play = Play(env)
    assert play.ts.action_mask.sum(1).tolist() == adjacency(25, 5).sum(1).tolist()
    play.step(seat_0=3)
    assert play.state.partner[0] == 24
    assert play.part(0).shape == (25, 5), "neighbours, and not itself"


def test_last_moves_can_be_what_a_selection_sees():
    play = Play(game("env.partners.sees=moves", "env.rounds=1"))
    assert not play.part(0).any()
    play.step(seat_0=0)
    play.step(seat_0=D, seat_1=C)
    assert play.part(0)[2].tolist() == [0, 1, 1, 0, 0, 0, 0, 0], "of seats 0, 1, 3, 4"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env.punishment.kind=mutual", "env.punishment.kind=mutual: must be one of none, direct"),
        ("env.partners.rule=fate", "env.partners.rule=fate: must be one of chosen, random"),
        ("env.partners.caves=2", "env.partners.caves=2: must be 0, or at least 2 and divide"),
        ("env.reputation.updated_by=talk", "env.reputation.updated_by=talk: must be one of"),
        ("env.reputation.seen_in=[sleep]", "env.reputation.seen_in: sleep is none of play, punishment"),
        ("env.num_players=2", "env.num_players=2: must be at least 3"),
    ],
)
def test_wrong_values_are_named(override, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        game(override)
