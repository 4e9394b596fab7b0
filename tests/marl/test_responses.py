"""Probabilities of actions in given situations, measured on run folders."""

import numpy as np
import pytest

from marl.build import load_run
from marl.config import compose
from marl.responses import action_probability
from marl.run import run
from marl.validation import ConfigError

STATES = {"START": [0.0, 0.0, 0.0, 0.0], "CD": [1.0, 0.0, 0.0, 1.0]}
TINY = [
    "network=table",
    "env.horizon=4",
    "num_envs=4",
    "num_seeds=2",
    "total_steps=160",
    "algo.num_steps=8",
    "algo.learning_rate=0.1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A swept run of a table: rate 0.1 and rate 0.2."""
    folder = tmp_path_factory.mktemp("run")
    assert run(compose([*TINY, "+sweep.algo.learning_rate=[0.1,0.2]"]), folder).exit_code == 0
    return folder


def measure(folder, observations=STATES, action=0):
    found = action_probability(
        folders={"a": folder}, observations=observations, action=action, num_samples=4096, seed=0
    )
    assert set(found) == {"a_responses"}
    return found["a_responses"]


def test_it_is_the_softmax_of_the_table_and_swept_as_the_run(folder):
    """START is row 0 and CD row 1 + 8; 8192 samples have a standard error below 0.006."""
    summary = measure(folder)
    table = np.asarray(load_run(folder)[1].params["params"]["actor"]["kernel"])  # [V, S, P, rows, N]
    prob = np.exp(table) / np.exp(table).sum(-1, keepdims=True)
    for name, row in (("START", 0), ("CD", 9)):
        metric = summary["metrics"][name]
        expected = prob[..., row, 0].mean(-1)  # [V, S]
        np.testing.assert_allclose(metric["per_seed"], expected, atol=0.03)
        np.testing.assert_allclose(metric["mean"], np.mean(metric["per_seed"], 1))
    assert np.ptp(summary["metrics"]["START"]["per_seed"]) > 0.01
    assert [list(point.values()) for point in summary["sweep"]] == [[0.1], [0.2]]


def test_the_actions_probabilities_sum_to_one(folder):
    first, second = (measure(folder, action=action)["metrics"]["CD"]["per_seed"] for action in (0, 1))
    np.testing.assert_allclose(np.add(first, second), 1.0, atol=1e-6)


def test_a_vector_of_the_wrong_length_is_named(folder):
    with pytest.raises(ConfigError, match="observations must be the game's vector, of 4 numbers"):
        measure(folder, {"START": [0.0, 0.0]})
