"""What figures measure of Schelling's model, on tiny boards."""

import numpy as np
import pytest

from envs.schelling_runs import speed, thresholds
from marl.build import load
from marl.segregation_plots import speeds
from marl.validation import ConfigError

SETUP = load("env=schelling_classic", "algo=seeker", "num_seeds=3", "env.horizon=20")


def test_thresholds_are_swept_and_held_against_the_reference():
    values = [0.0, 0.5]
    reference = {0.0: [0.5, 0.1], 0.5: [0.9, 0.05]}
    found = thresholds(setup=SETUP, values=values, block=5, num_shuffles=4, reference=reference)
    assert found["sweep"] == [{"threshold": 0.0}, {"threshold": 0.5}]
    metrics = {name: np.array(x["per_seed"]) for name, x in found["metrics"].items()}
    assert (metrics["steps"][0] == 0).all()  # who wants nothing stays
    assert (metrics["same_fraction"][0] == metrics["start_same_fraction"][0]).all()
    assert (metrics["start_same_fraction"][0] == metrics["start_same_fraction"][1]).all()
    assert metrics["same_fraction"][1].mean() > 0.75
    np.testing.assert_allclose(metrics["gap"][1], (metrics["same_fraction"][1] - 0.9) / 0.05)
    boards = np.array(found["boards"])
    assert boards.shape == (2, 10, 10)
    assert (boards > 0).sum() == 160
    with pytest.raises(ConfigError, match=r"says nothing of the threshold 0.3"):
        thresholds(setup=SETUP, values=[0.3], block=5, num_shuffles=4, reference=reference)


def test_speed_is_told_for_every_size(tmp_path):
    sizes = {"sizes": [20, 50], "plain_size": 20, "base_size": 50, "least_agent_steps": 1}
    found = speed(setup=SETUP, density=0.8, num_steps=2, repeats=2, **sizes)
    metrics = {name: np.array(x["per_seed"]) for name, x in found["metrics"].items()}
    np.testing.assert_allclose(metrics["agent_steps_per_s"] * metrics["ns_per_agent_step"], 1e9)
    np.testing.assert_allclose(
        metrics["plain_ratio"] * metrics["ns_per_agent_step"], metrics["plain_ns_per_agent_step"]
    )
    assert np.isclose(np.median(metrics["cost"][1]), 1)
    reference = {"label": "plain", "residents": 20}
    speeds(
        summaries={"one": found}, path=tmp_path / "a.png", title="", labels={"one": "x"}, reference=reference
    )
    assert (tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="must be one of"):
        speed(setup=SETUP, density=0.8, num_steps=2, repeats=2, **(sizes | {"base_size": 7}))
