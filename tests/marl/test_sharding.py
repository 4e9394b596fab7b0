"""Seeds, or a world, shared out over devices: the same numbers, and clear words where it cannot be."""

import json
import subprocess
import sys

import numpy as np
import pytest

from marl.config import compose
from marl.sharding import num_devices, over_devices
from marl.validation import ConfigError
from tests.runs import ROOT, command, variables

SMALL = ("env=prisoners_dilemma", "num_seeds=2", "num_envs=8", "total_steps=4000", "log_every=2")


def rows(folder):
    return [json.loads(line)["metrics"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "more",
    [pytest.param((), marks=pytest.mark.slow), ("+sweep.algo.ent_coef=[0.0,0.1]",)],
    ids=["seeds", "swept"],
)
def test_two_devices_find_what_one_does(more, tmp_path):
    found = {}
    for num in (1, 2):
        folder = tmp_path / str(num)
        done = command("train", *SMALL, *more, f"num_devices={num}", f"run_dir={folder}", "device=cpu")
        assert done.returncode == 0, done.stderr
        found[num] = rows(folder)
    assert len(found[1]) == len(found[2]) > 1
    for one, two in zip(found[1], found[2], strict=True):
        assert one.keys() == two.keys()
        for name in one:
            pair = (np.array(x[name], np.float64) for x in (two, one))  # nan where no episode ended
            np.testing.assert_allclose(*pair, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_a_run_may_go_on_with_more_devices(tmp_path):
    again = ("train", *SMALL[:-2], f"run_dir={tmp_path}", "device=cpu")
    assert command(*again, "total_steps=2000").returncode == 0
    done = command(*again, "total_steps=4000", "num_devices=2")
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stdout


@pytest.mark.parametrize(
    ("more", "told"),
    [("num_devices=1000", "num_devices=1000: there are"), ("num_devices=0", "num_devices=0: must be")],
)
def test_what_cannot_be_is_said(more, told):
    with pytest.raises(ConfigError, match=told):
        num_devices(compose([*SMALL, more]))


def test_one_device_needs_no_mesh():
    many = lambda x: x
    assert over_devices(many, 1, (0,)) is many
    assert num_devices(compose([*SMALL])) == 1
    assert num_devices({"num_seeds": 3}) == 1


WORLD = """
from marl.device import start_device
start_device("cpu", num_cpu_devices=2)
import jax
import numpy as np
from envs.schelling_runs import seek
from marl.build import load
from marl.learner import start, train
from marl.sharding import spread

def board(num, update):
    sides = ("env.rows=72", "env.columns=72", "env.num_residents=[2000,2000]")
    game = load("env=schelling_classic_mesa", f"env.update={update}", "algo=seeker", *sides).env
    sites = spread(game.reset(jax.random.key(0))[0].site[None], num)
    assert len(sites.addressable_shards) == num
    assert sites.addressable_shards[0].data.shape == (1, 5184 // num)
    return np.asarray(seek(game, sites, jax.random.key(1)[None], 3))

def world(num):
    size = ("env.num_per_kind=300", "env.height=72", "env.width=72", "env.turns=at_once", "env.radius=2")
    algo = ("algo.num_steps=1", "algo.batch_size=32", "algo.learning_starts=32", "algo.buffer_size=8192")
    net = ("algo.num_updates=1", "network=mlp", "network.hidden=[4]", "seats=shared", "num_envs=1")
    setup = load("env=schelling", "algo=dqn", *size, *algo, *net)
    runner = spread(start(setup.algo, setup.env, jax.random.key(0), 1), num)
    play = lambda runner: train(setup.algo, setup.env, runner, jax.random.key(1), jax.numpy.arange(2))
    runner, (tally, _) = jax.jit(play)(runner)
    return jax.device_get((runner.state, runner.learner, tally))

for update in ("simultaneous", "parallel"):
    np.testing.assert_array_equal(board(1, update), board(2, update))
for one, two in zip(jax.tree.leaves(world(1)), jax.tree.leaves(world(2)), strict=True):
    np.testing.assert_allclose(np.float64(one), np.float64(two), rtol=1e-4, atol=1e-5)
print("the same")
"""


COMPARED = """
from marl.device import start_device
start_device("cpu", num_cpu_devices=2)
import numpy as np
from marl.build import load
from marl.generations import evolve
from marl.lineages import in_weights
{}
one, two = (found(num)["metrics"] for num in (1, 2))
for name in one:
    pair = (np.array(x[name]["per_seed"], float) for x in (one, two))
    np.testing.assert_allclose(*pair, rtol=1e-4, atol=1e-5, err_msg=name)
print("the same")
"""
DONORS = """
def found(num):
    setup = load("env=donor_game", "env.num_players=4", "algo=donor_strategy", "num_seeds=4", f"num_devices={num}")
    rules = {"num_generations": 3, "num_survivors": 2, "num_episodes": 1, "selection": "best"}
    return evolve(setup=setup, **rules, fitness="final_resources", outcomes=["cooperation_rate"])
"""
PUPILS = """
def found(num):
    game = ("env=memory_sequence_in_weights", "env.length=4", "env.num_digits=3", "env.demonstrators=2")
    size = ("network=mlp", "network.hidden=[4]", "seats=[0]", "num_envs=2", "algo.num_steps=8", "num_seeds=2")
    setup = load(*game, *size, "algo.num_minibatches=1", "total_steps=32", f"num_devices={num}")
    numbers = {"num_generations": 2, "num_members": 2, "num_fresh": 1, "renewed": ["actor"], "flag": 0.0}
    return in_weights(setup=setup, seen="best", num_points=2, **numbers)
"""


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(WORLD, id="a world", marks=pytest.mark.slow),
        pytest.param(COMPARED.replace("{}", DONORS), id="generations of donors"),
        pytest.param(COMPARED.replace("{}", PUPILS), id="generations of learners", marks=pytest.mark.slow),
    ],
)
def test_two_devices_share(program):
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=variables(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.endswith("the same\n"), done.stderr  # after what was told of progress
