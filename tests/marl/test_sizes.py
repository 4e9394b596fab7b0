"""The speed of training, told for worlds of several sizes."""

import numpy as np
import pytest

from marl.build import load
from marl.sizes import training_speed
from marl.validation import ConfigError

SIZES = [{"num_per_kind": 3, "height": 7, "width": 7}, {"num_per_kind": 5, "height": 9, "width": 9}]
WORLD = ("env=schelling_small", "algo=ppo", "network.hidden=[4]", "seats=shared", "num_envs=1")
PLAY = ("algo.num_steps=4", "algo.num_minibatches=1", "algo.num_epochs=1")


def test_numbers_of_every_size():
    setup = load(*WORLD, *PLAY)
    found = training_speed(setup=setup, sizes=SIZES, num_updates=1, repeats=3, base=1)
    assert [point["residents"] for point in found["sweep"]] == [6, 10]
    metrics = {name: np.array(x["per_seed"]) for name, x in found["metrics"].items()}
    assert metrics["cost"].shape == (2, 3)
    assert np.median(metrics["cost"][1]) == 1.0
    np.testing.assert_allclose(metrics["agent_steps_per_s"] * metrics["ns_per_agent_step"], 1e9)
    with pytest.raises(ConfigError, match=r"base=2: must lie in 0 \.\. 1"):
        training_speed(setup=setup, sizes=SIZES, num_updates=1, repeats=1, base=2)
