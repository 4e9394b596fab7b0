"""Contagion: the graph, every rule by hand, and the final size against its closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.contagion import HEALTHY, IMMUNE, MEET, STAY, State
from marl.build import load
from marl.config import ConfigError
from tests.envs.grid_tools import KEY, preset
from tests.probes import jit_reset, jit_step

RING = np.stack([(np.arange(4) + 1) % 4, (np.arange(4) - 1) % 4], axis=1)


def game(**changes):
    return preset("contagion").replace(
        num_residents=4, num_contacts=2, num_infected=1, transmission=1.0, **changes
    )


@jax.jit
def step(env, health, action):
    state = State(jnp.asarray(RING, jnp.int32), jnp.asarray(health, jnp.int32), jnp.int32(0))
    return jit_step(env, KEY, state, jnp.asarray(action, jnp.int32))


def test_everybody_is_a_contact_of_its_contacts():
    env = preset("contagion").replace(num_residents=50, num_contacts=6)
    contacts = np.asarray(jit_reset(env, KEY)[0].contacts)
    assert contacts.shape == (50, 6)
    links = np.zeros((50, 50), int)
    np.add.at(links, (np.repeat(np.arange(50), 6), contacts.ravel()), 1)
    np.testing.assert_array_equal(links, links.T)
    assert links.diagonal().sum() == 0
    assert (links.sum(0) == 6).all()


def test_a_step_by_hand():
    """Resident 0 is ill on a ring of four; 1 and 2 meet it or each other, 3 stays at home."""
    state, ts = step(game(), [1, HEALTHY, HEALTHY, HEALTHY], [MEET, MEET, MEET, STAY])
    assert state.health.tolist() == [IMMUNE, 1, HEALTHY, HEALTHY]
    assert ts.events["met"].tolist() == [0.5, 1.0, 0.5, 0.0]
    assert ts.reward.tolist() == [0.5, -9.0, 0.5, 0.0]
    assert ts.events["infected"].tolist() == [0, 1, 0, 0]
    assert ts.events["defected"].tolist() == [1, 0, 0, 0]
    assert ts.obs["vector"].tolist() == [
        [0, 0, 1, 0.5, 0.25],
        [0, 1, 0, 0.0, 0.25],
        [1, 0, 0, 0.5, 0.25],
        [1, 0, 0, 0.0, 0.25],
    ]


def test_who_is_ill_and_stays_at_home_infects_nobody():
    state, ts = step(game(illness_steps=3), [3, HEALTHY, IMMUNE, HEALTHY], [STAY, MEET, MEET, MEET])
    assert state.health.tolist() == [2, HEALTHY, IMMUNE, HEALTHY]
    assert ts.events["cooperated"].tolist() == [1, 0, 0, 0]
    assert ts.events["met"].tolist() == [0.0, 0.5, 1.0, 0.5]


def test_one_is_ill_for_so_many_steps_and_then_immune():
    state, seen = step(game(illness_steps=2), [HEALTHY, 2, 1, IMMUNE], [MEET] * 4)[0], []
    for _ in range(3):
        seen.append(state.health.tolist())
        state, _ = step(game(illness_steps=2), state.health, [MEET] * 4)
    assert seen == [[2, 1, -1, -1], [1, -1, -1, -1], [-1, -1, -1, -1]]


def final_size(transmission, degree):
    """Newman 2002, of a random graph whose residents all have the same degree."""
    spared = 0.5  # probability that a contact does not pass it on
    for _ in range(1000):
        spared = 1 - transmission + transmission * spared ** (degree - 1)
    return 1 - spared**degree


@pytest.mark.parametrize(("transmission", "steps"), [(0.2, 1), (0.25, 1), (0.1, 3)])
def test_an_illness_spreads_as_far_as_the_closed_form_says(transmission, steps):
    env = preset("contagion").replace(transmission=transmission, illness_steps=steps)
    env = env.replace(num_residents=40_000, num_infected=40, horizon=120)

    def play(env, key):
        state, _ = jit_reset(env, key)
        meet = jnp.full(env.num_agents, MEET)
        one = lambda state, key: (env.step(key, state, meet)[0], None)
        state, _ = jax.lax.scan(one, state, jax.random.split(key, env.horizon))
        return state.health

    many = lambda env, keys: jax.lax.map(lambda key: play(env, key), keys)
    health = np.asarray(jax.jit(many)(env, jax.random.split(KEY, 8)))
    assert (health <= 0).all()  # it is over
    # a contact is met every step: it passes on with probability 1 - (1 - p)^steps
    expected = final_size(1 - (1 - transmission) ** steps, 8)
    # at T = .2 the bound is four standard deviations
    assert (health == IMMUNE).mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("env.num_contacts=3", "must be even and at least 2"),
        ("env.num_infected=2000", "must lie in 0 .. 50"),
        ("env.transmission=1.5", "must lie in 0 .. 1"),
        ("env.illness_steps=0", "must be at least 1"),
        ("env.num_residents=1", "must be at least 2"),
    ],
)
def test_numbers_out_of_range_are_refused(override, said):
    with pytest.raises(ConfigError, match=said):
        load("env=contagion", "algo=random", override)
