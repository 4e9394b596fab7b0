"""The commands: help, exit codes, one clear message for bad input, what they print."""

import json
import subprocess
import sys

import jax
import pytest
from PIL import Image

from algos.random_player import RandomPlayer
from marl.config import groups
from marl.learner import rollout, start
from tests.envs.grid_tools import preset
from tests.runs import BRIEF, ROOT, command, load_script


@pytest.mark.parametrize("name", ["train", "evaluate", "figure", "benchmark"])
def test_help_lists_everything_there_is(name):
    result = command(name, "--help")
    assert result.returncode == 0
    words = set(result.stdout.split())
    for group in ("env", "mechanism", "algo", "network", "experiment"):
        assert set(groups()[group]) <= words


def test_help_and_bad_input_import_nothing_heavy():
    code = (
        "import sys, runpy\n"
        "sys.argv = ['train.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('scripts/train.py', run_name='__main__')\n"
        "except SystemExit as e: print('exit', e.code)\n"
        "print('heavy', [m for m in ('jax', 'torch', 'wandb', 'matplotlib', 'orbax') if m in sys.modules])\n"
    )
    for argument, exit_code in (("--help", 0), ("env=chickn", 2)):
        call = [sys.executable, "-c", code, argument]
        out = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
        assert f"exit {exit_code}" in out
        assert "heavy []" in out


def test_train_names_all_errors_and_exits_2():
    result = command("train", "env=chickn", "algo.learning_rate=nan", "num_envs=0", "frobnicate=1")
    assert result.returncode == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 4
    assert all(line.startswith("error: ") for line in lines)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("evaluate", ["run=/nowhere"], "/nowhere is not a run folder"),
        ("evaluate", ["run=x", "episodes=none"], "episodes=none: must be a whole number"),
        ("evaluate", ["frun=x"], "frun=x: no such option"),
        ("evaluate", ["run=x", "render=mp4"], "render=mp4: must be gif"),
        ("evaluate", ["run=x", "render=gif", "opponent=a,b"], "films a game against one opponent"),
        ("evaluate", ["run=x", "out=y"], "out=: only render=gif writes there"),
        ("evaluate", ["run=/nowhere", "export=x.safetensors"], "/nowhere is not a run folder"),
        ("figure", ["nobody/nothing"], "no figure nobody/nothing; choose one of:"),
        ("figure", ["quickstart/punishment", "scale=huge"], "scale=huge: must be one of smoke, paper"),
        (
            "figure",
            ["baselines/clean_up", "only=me"],
            "only=me: must be one of independent, shared, prosocial",
        ),
        ("figure", ["schelling/games", "only=me"], "only=me: must be one of "),
        ("figure", ["baselines/clean_up", "jobs=0"], "jobs=0: must be a whole number of at least 1"),
        ("benchmark", ["num_envs=many"], "num_envs=many: must be a whole number"),
        ("benchmark", ["env=chickn"], "no such env, did you mean chicken"),
        ("benchmark", ["devices=3"], "num_envs=128: must be a multiple of devices=3"),
        ("benchmark", ["devices=2", "algo=ppo"], "devices=2: must be 1 with algo="),
        ("benchmark", ["observations=no"], "observations=no: must be true or false"),
        ("benchmark", ["observations=false", "algo=ppo"], "observations=false: must be true with algo="),
        ("contact_sheet", ["size=3"], "size=3: no such option; there are out, steps, columns, width"),
    ],
)
def test_other_commands_exit_2_with_one_line(name, arguments, message):
    result = command(name, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_gpu_asking_for_one_exits_3(monkeypatch):
    result = command("train", "env=chicken", "device=gpu")
    assert result.returncode == 3
    assert "device=gpu: jax finds no GPU here" in result.stderr


def test_train_then_evaluate(tmp_path):
    run_dir = tmp_path / "run"
    result = command("train", "env=prisoners_dilemma", f"run_dir={run_dir}", *BRIEF)
    assert result.returncode == 0, result.stderr
    assert "cooperation_rate" in result.stdout
    found = command("evaluate", f"run={run_dir}", "episodes=10", "opponent=always_defect,tit_for_tat")
    assert found.returncode == 0, found.stderr
    outcome = json.loads(found.stdout)
    against = outcome["always_defect"]["greedy"]
    assert against["episode_length"]["mean"] == 100
    assert len(against["reward"]["per_seed"]) == 2
    # whoever meets a defector gets -3 or -2 a round
    assert -3 <= against["reward/seat_0"]["mean"] <= -2
    assert (outcome["episodes"], outcome["seed"], outcome["seeds"]) == (10, 0, [0, 1])


def test_a_run_is_exported_and_both_are_filmed(tmp_path):
    run_dir, file = tmp_path / "run", tmp_path / "policy.safetensors"
    tiny = ["env=coin_game", "env.horizon=6", f"run_dir={run_dir}", *BRIEF]
    assert command("train", *tiny).returncode == 0
    found = command("evaluate", f"run={run_dir}:1", f"export={file}", "render=gif", "seed=3")
    assert found.returncode == 0, found.stderr
    first = json.loads(found.stdout)
    assert first["export"] == str(file)
    assert first["gif"] == str(run_dir / "episode.gif")
    assert (first["steps"], len(first["return"])) == (6, 2)
    again = json.loads(command("evaluate", f"run={file}", "render=gif", "seed=3").stdout)
    assert again["return"] == first["return"]
    gifs = [run_dir / "episode.gif", tmp_path / "episode.gif"]
    assert gifs[0].read_bytes() == gifs[1].read_bytes()
    out = [f"out={tmp_path}/films", "opponent=coin_greedy"]
    found = json.loads(command("evaluate", f"run={run_dir}", "render=gif", *out).stdout)
    assert found["gif"] == f"{tmp_path}/films/episode-coin_greedy.gif"
    found = command("evaluate", f"run={file}", "render=gif", "opponent=nobody", cwd=tmp_path)
    assert found.returncode == 2
    assert found.stderr.startswith("error: no player nobody")


def test_benchmark_prints_one_json_object_a_setting():
    result = command("benchmark", "env=chicken", "repeats=1", "steps=8", "num_envs=4,8")
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["num_envs"], line["algo"]) for line in lines] == [(4, None), (8, None)]
    for line in lines:
        assert line["agent_steps_per_s"] == pytest.approx(2 * line["env_steps_per_s"], abs=2)


def test_benchmark_shares_games_out_over_devices():
    result = command("benchmark", "env=chicken", "repeats=1", "steps=8", "num_envs=4", "devices=2")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["num_devices"] == 2


def test_benchmark_can_leave_observations_out():
    env, algo, key = preset("commons_harvest_small"), RandomPlayer(), jax.random.key(0)
    found = jax.eval_shape(lambda: rollout(algo, env, start(algo, env, key, 2), key, 0, 4))
    left = load_script("benchmark").without_observations(*found)
    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    steps, games, seats, view = 4, 2, 4, 7 * 7 * 4 + 4  # cells, layers; one float32
    last = size(found[1].last)
    assert last > games * seats * view
    assert size(found) - size(left) - last == (steps + 1) * games * seats * view


def test_a_contact_sheet_has_rows_of_pictures_under_their_names():
    sheet = load_script("contact_sheet")
    pictures = [("a", Image.new("RGB", (50, 30), "red")), ("b", Image.new("RGB", (50, 80), "blue"))] * 2
    found = sheet._sheet(pictures, columns=3, width=50)
    assert found.size == (3 * (50 + 12) + 12, (80 + 26 + 12) + (80 + 26 + 12) + 12)
    assert found.getpixel((12 + 25, 12 + 26 + 15)) == (255, 0, 0)
    assert found.getpixel((12 + 25, 12 + 118 + 26 + 60)) == (0, 0, 255)


def test_benchmark_of_an_algorithm_times_training_too():
    sizes = ["algo.num_steps=8", "network.hidden=[8]", "repeats=1", "steps=8", "num_envs=4"]
    line = json.loads(command("benchmark", "env=chicken", "algo=ppo", *sizes).stdout)
    assert line["algo"] == "PPO"
    assert line["train_agent_steps_per_s"] == pytest.approx(2 * line["train_env_steps_per_s"], abs=2)
    assert set(line["share"]) == {"environment", "acting", "learning", "logging"}


def test_figure_exits_1_if_a_claim_is_not_met(monkeypatch, capsys, tmp_path):
    from marl import experiment

    claims = [
        experiment.Claim(says, "iqm at most 0.1", value, "k=1", met)
        for says, value, met in (("a", 0.05, True), ("b", 0.2, False))
    ]
    outcome = experiment.Outcome(tmp_path, 0, claims)
    monkeypatch.setattr(experiment, "run_experiment", lambda *_: outcome)
    assert load_script("figure").figure(["quickstart/punishment"]) == 1
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("1 of 2 claims met: [met] a: 0.050 at k=1")
    assert "[NOT MET] b: 0.200" in last
