"""The scripted demonstrator of the goal sequence: where it turns, and what it earns."""

import jax
import numpy as np
import pytest

from marl.build import load, player
from marl.config import ConfigError
from marl.evaluate import play
from marl.population import Mixture
from tests.envs.grid_tools import preset


@pytest.mark.parametrize(("exact", "least", "most"), [(False, 4, 5.5), (True, 5.5, 7)])
def test_it_walks_to_its_targets(exact, least, most):
    """A walk between two random goals takes about 5 steps and 2 turns: a trial of 30 steps holds four hits.

    Where a turn on a target counts, a third of the targets cost one step.
    """
    env = preset("goal_sequence").replace(compass=True, noise_prob=0.0, repo_exact=exact)
    algo = Mixture(members=(player("random", [0]), player("goal_walker", [1])), holder=(0, 1))
    sizes = {"num_episodes": 128, "max_steps": env.fixed_horizon, "greedy": False}
    seen = jax.jit(lambda key: play(env, algo, ((), ()), key, **sizes))(jax.random.key(0))
    hits, misses = (np.asarray(seen.events[name])[:, 1].mean() / 4 for name in ("hit", "missed"))
    assert least < hits < most
    assert misses == 0


def test_it_needs_a_compass():
    with pytest.raises(ConfigError, match=r"with env\.compass=true"):
        load("env=goal_sequence", "seats=[0,goal_walker]")
