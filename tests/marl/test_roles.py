"""Seats ranked by what they do, and the weights between roles."""

import numpy as np
import pytest
from PIL import Image

from marl import roles
from marl.build import load
from marl.config import compose
from marl.role_plots import bar_panels, weight_matrices
from marl.run import run

TINY = ["env=cleanup_8x8", "env.layout=cleanup_5x5", "env.num_players=3", "env.side=1", "env.horizon=4"]
TINY += [
    "num_envs=2",
    "num_seeds=2",
    "total_steps=16",
    "log_every=1",
    "network.hidden=[4]",
    "algo.num_steps=4",
]
TINY += ["algo=lase", "algo.num_epochs=1", "algo.num_minibatches=1", "algo.relation_batch_size=2"]
TINY += ["algo.perspective_channels=0", "algo.perspective_widths=[4]", "algo.relation_width=4"]
SIZES = {"event": "cleaned", "seed": 0, "num_episodes": 4, "max_steps": 10, "greedy": False}


def trained(weights):
    """Metrics of training with these weights, [S, A, A]."""
    places = [(i, j) for i, j in np.ndindex(weights.shape[1:]) if i != j]
    return {f"loss/weight/seat_{i}_to_{j}": {"per_seed": weights[:, i, j].tolist()} for i, j in places}


def test_roles_are_seats_in_the_order_of_what_they_do():
    done = np.array([[0.1, 0.3, 0.0], [0.4, 0.0, 0.0]])
    reward = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 2.0]])
    weights = np.zeros((2, 3, 3))
    weights[0, 0, 1], weights[0, 2, 1], weights[0, 1, 0] = 0.2, 0.3, 0.1  # the first seed gives to seat 1
    weights[1, 0, 2], weights[1, 1, 0] = (
        0.4,
        0.1,
    )  # the second gives more to seat 2 than to seat 0, who does it
    found = roles.ranked(done, reward, trained(weights))
    np.testing.assert_allclose(found["share/role_0"], [0.75, 1.0])
    np.testing.assert_allclose(found["share/seat_0"], [0.25, 1.0])
    np.testing.assert_allclose(found["reward/role_0"], [0.0, 0.0])
    np.testing.assert_allclose(found["reward/role_1"], [2.0, 1.0])
    np.testing.assert_allclose(found["weight/role_1_to_0"], [0.2, 0.1])
    np.testing.assert_allclose(found["weight/role_0_to_2"], [0.0, 0.4])
    np.testing.assert_allclose(found["incoming/role_0"], [0.5, 0.1])
    np.testing.assert_allclose(found["given"], [0.2, 0.5 / 3])
    np.testing.assert_allclose(found["incoming_lead"], [0.4, -0.3])


def test_where_nobody_gives_there_are_no_weights():
    found = roles.ranked(np.zeros((1, 2)), np.ones((1, 2)), {})
    assert found.keys() == {f"share/{x}_{i}" for x in ("seat", "role") for i in (0, 1)} | {
        "reward/role_0",
        "reward/role_1",
    }
    assert found["share/role_0"].tolist() == [0.0]  # nobody did it


@pytest.mark.timeout(300)
def test_the_roles_of_a_run_are_measured_and_drawn(tmp_path):
    run(compose(TINY), tmp_path / "gives")
    found = roles.roles(folders={"gives": tmp_path / "gives"}, runs=["gives", "gone"], **SIZES)
    metrics = found["gives roles"]["metrics"]
    assert all(len(x["per_seed"]) == 2 for x in metrics.values())
    shares = sum(np.array(metrics[f"share/seat_{i}"]["per_seed"]) for i in range(3))
    assert set(np.round(shares, 5)) <= {0.0, 1.0}
    seats = range(load(*TINY).env.num_agents)
    both = [
        sum(metrics[f"weight/{x}_{i}_to_{j}"]["mean"] for i in seats for j in seats if i != j)
        for x in ("seat", "role")
    ]
    assert both[0] == pytest.approx(both[1])
    path = tmp_path / "weights.png"
    panel = {"run": "gives roles", "title": "all give", "names": ["first", "second", "third"], "by": "role"}
    weight_matrices(summaries=found, path=path, title="weights", parts=[panel])
    with Image.open(path) as picture:
        assert picture.size[1] == round(3.9 * 130)
    bars = {
        "title": "one",
        "y_label": "share",
        "runs": {"gives roles": "LASE"},
        "metrics": {"share/seat_0": "first"},
    }
    bar_panels(summaries=found, path=path, title="shares", parts=[bars, bars])
    with Image.open(path) as picture:
        assert picture.size[1] == round(4.0 * 130)
