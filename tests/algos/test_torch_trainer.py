"""Runs in PyTorch: the run folder, resume, evaluation, and what is refused."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open

from marl.build import load_run
from marl.config import compose
from marl.logger import read_rows
from marl.run import run as run_jax
from marl.validation import ConfigError
from tests.runs import command

torch = pytest.importorskip("torch")

from algos.torch import trainer  # noqa: E402

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "backend=torch",
    "env=coin_game",
    "env.horizon=6",
    "num_envs=4",
    "num_seeds=2",
    "total_steps=384",
    "log_every=2",
    "checkpoint_every=1",
    "algo.num_steps=8",
    "network.hidden=[8]",
]  # 12 updates in 6 chunks; episodes end within rollouts
ALGOS = pytest.mark.parametrize("algo", ["ppo", "dqn"])


def options(algo, *more):
    own = ["algo.buffer_size=100", "algo.learning_starts=50", "algo.batch_size=8"] if algo == "dqn" else []
    return compose([f"algo={algo}", *TINY, *own, *more])


def rows(folder):
    """metrics.jsonl without the clock."""
    return [{k: v for k, v in row.items() if k != "wall_s"} for row in read_rows(folder / "metrics.jsonl")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of a whole run of each algorithm, made when it is asked for."""
    made = {}

    def whole(algo):
        if algo not in made:
            made[algo] = tmp_path_factory.mktemp(algo) / "run"
            assert trainer.run(options(algo), made[algo]).exit_code == 0
        return made[algo]

    return whole


@ALGOS
def test_the_run_folder_is_that_of_jax(folders, tmp_path, algo):
    """The same files, rows and names; the games of both begin alike, and so do the learners."""
    folder = folders(algo)
    run_jax(options(algo, "backend=jax", "total_steps=64"), tmp_path / "jax")
    want, found = rows(tmp_path / "jax")[0], rows(folder)[0]
    assert found["metrics"].keys() == want["metrics"].keys()
    assert [found[k] for k in ("update", "env_steps", "agent_steps")] == [2, 64, 128]
    assert all(len(values) == 2 for values in found["metrics"].values())
    assert found["metrics"]["finite"] == [1.0, 1.0]
    summaries = [json.loads((d / "summary.json").read_text()) for d in (folder, tmp_path / "jax")]
    assert summaries[0].keys() == summaries[1].keys()
    assert summaries[0]["versions"].keys() - summaries[1]["versions"].keys() == {"torch"}
    assert summaries[0]["metrics"].keys() == summaries[1]["metrics"].keys()


@ALGOS
def test_a_resumed_run_is_the_uninterrupted_one(folders, tmp_path, algo):
    assert trainer.run(options(algo, "total_steps=192"), tmp_path).exit_code == 0
    (tmp_path / "summary.json").unlink()
    assert trainer.run(options(algo), tmp_path).exit_code == 0
    assert rows(tmp_path) == rows(folders(algo))
    learners = [load_run(folder)[1] for folder in (tmp_path, folders(algo))]
    jax.tree.map(np.testing.assert_array_equal, *learners)


@ALGOS
def test_a_policy_of_torch_is_evaluated_as_one_of_jax(folders, algo):
    from marl.evaluate import evaluate_seeds

    setup, learners = load_run(folders(algo))
    sizes = {"seed": 0, "num_episodes": 4, "max_steps": 6, "greedy": True}
    found = evaluate_seeds(setup.env, setup.algo, learners, **sizes)
    assert np.isfinite(found["return"]).all()
    assert found["episode_length"].tolist() == [6.0, 6.0]


def test_final_parameters_are_written_without_pickle(folders):
    learners = load_run(folders("ppo"))[1].params["params"]
    with safe_open(folders("ppo") / "checkpoints" / "policy.safetensors", "np") as file:
        assert "seed_1.actor.kernel" in file.keys()  # noqa: SIM118
        kernel = file.get_tensor("seed_1.torso.layers.Dense_0.kernel")
    np.testing.assert_array_equal(kernel, learners["torso"]["Dense_0"]["kernel"][1])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+sweep.algo.gamma=[0.9,0.95]"], "sweep: backend=torch trains one setting at a time"),
        (
            ["env=prisoners_dilemma", "seats=[0,tit_for_tat]"],
            "backend=torch: learns with algo dqn, ppo in all",
        ),
        (["nan_policy=skip:3"], "nan_policy=skip:3: backend=torch knows stop only"),
        (["algo=dqn", "network=gru"], "network.core=64: backend=torch has no recurrent dqn"),
        (["algo=dqn", "algo.by_stage=true"], "algo.by_stage=true: backend=torch has one network"),
    ],
)
def test_what_has_no_twin_is_refused_by_name(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        trainer.run(compose(["backend=torch", *overrides]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_torch_is_not_trained_by_jax(tmp_path):
    with pytest.raises(ConfigError, match=r"backend=torch: only `scripts/train\.py env=NAME`"):
        run_jax(compose(TINY), tmp_path / "run")


def test_the_command_trains_in_torch(tmp_path):
    folder = tmp_path / "run"
    result = command("train", *TINY, "total_steps=64", f"run_dir={folder}")
    assert result.returncode == 0, result.stderr
    assert (folder / "checkpoints" / "policy.safetensors").is_file()


def test_the_programs_of_the_documentation_run(capsys):
    """Its own text with fewer games and updates."""
    text = (ROOT / "docs" / "torch.md").read_text()
    own_loop, library = re.findall(r"```python\n(.*?)```", text, re.S)
    sizes = "NUM_ENVS, NUM_STEPS, NUM_UPDATES = 64, 50, 40"
    assert sizes in own_loop
    scope = {}
    exec(own_loop.replace(sizes, "NUM_ENVS, NUM_STEPS, NUM_UPDATES = 8, 50, 12"), scope)
    assert np.mean(scope["cooperation"][-2:]) > scope["cooperation"][0] + 0.1
    exec(library, scope)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("cooperation under a fine of 3:")
    assert printed[1] == "[(1, 36, 64), (1, 64)]"
