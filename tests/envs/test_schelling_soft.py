"""Soft decisions in Schelling's game: the score of a step by hand, and the derivative against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.schelling_soft import gradients, play_softly
from marl.build import load
from marl.environment import bare_game
from marl.validation import ConfigError

TOWN = ("env=schelling_classic", "algo=seeker", "env.update=parallel", "env.rows=4", "env.columns=4")
SETUP = load(*TOWN, "env.num_residents=[5,5]", "num_seeds=4")
NUMBERS = {"temperature": 0.2, "num_steps": 2, "num_worlds": 2048, "spacing": 0.1, "values": [0.3, 0.6]}


def test_the_score_is_the_derivative_of_the_log_probability():
    game, key, threshold, temperature = bare_game(SETUP.env), jax.random.key(3), 0.4, 0.25
    _, score = play_softly(game, key, jnp.float32(threshold), jnp.float32(temperature), 1)
    start, rest = jax.random.split(key)
    site = jax.random.permutation(start, 16)
    decide, _ = jax.random.split(jax.random.split(rest, 1)[0])
    grid = np.zeros(16, int)
    grid[site[:5]], grid[site[5:10]] = 1, 2
    grid = np.pad(grid.reshape(4, 4), 1)
    shares = []
    for cell in np.asarray(site[:10]):
        row, column = divmod(int(cell), 4)
        near = grid[row : row + 3, column : column + 3]
        both, same = (near > 0).sum() - 1, (near == near[1, 1]).sum() - 1
        shares.append(same / both if both else 0.0)
    leaves = np.asarray(jax.random.uniform(decide, (10,))) < 1 / (
        1 + np.exp((np.array(shares) - threshold) / 0.25)
    )
    log_probability = lambda t: np.where(leaves, 1, -1) * (t - np.array(shares)) / temperature
    log_probability = lambda t, x=log_probability: -np.log1p(np.exp(-x(t))).sum()
    expected = (log_probability(threshold + 1e-4) - log_probability(threshold - 1e-4)) / 2e-4
    np.testing.assert_allclose(score, expected, rtol=1e-3)


def test_likelihood_ratios_agree_with_differences():
    found = {
        how: gradients(setup=SETUP, method=how, **NUMBERS)["metrics"] for how in ("likelihood", "difference")
    }
    mean = {how: np.array(x["gradient"]["mean"]) for how, x in found.items()}
    np.testing.assert_allclose(mean["likelihood"], mean["difference"], atol=0.06)
    assert np.array(found["likelihood"]["gradient"]["per_seed"]).shape == (2, 4)


def test_what_cannot_be_is_said():
    with pytest.raises(ConfigError, match="method=x: must be one of likelihood, difference"):
        gradients(setup=SETUP, method="x", **NUMBERS)
    with pytest.raises(ConfigError, match=r"env: must be schelling_classic"):
        gradients(
            setup=load("env=schelling_classic", "algo=seeker", "env.update=sequential"),
            method="difference",
            **NUMBERS,
        )
