"""Sweeps, and jobs of a cluster: what goes where, what is told, what happens when they are stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from marl.config import quoted
from marl.validation import ConfigError
from tests.runs import BRIEF, ROOT, command, load_script

SWEEP = ["-m", "run_dir=sweep", "env=chicken", "algo.gamma=0.5,0.9", *BRIEF]
SLURM = str(ROOT / "scripts" / "slurm.sh")
OBEYS = "import signal, sys, time; [signal.signal(s, lambda *_: sys.exit(75)) for s in (10, 12, 15)]"


def test_a_sweep_does_what_is_missing_and_tells_of_runs_that_failed(tmp_path):
    (tmp_path / "sweep" / "1").mkdir(parents=True)
    (tmp_path / "sweep" / "1" / "config.yaml").write_text("env: another\n")
    result = command("train", *SWEEP, cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    lines = [line.split() for line in result.stdout.splitlines() if "gamma" in line]
    assert [line[1:6:2] for line in lines] == [
        ["0", "done", "algo.gamma=0.5"],
        ["1", "FAILED", "algo.gamma=0.9"],
    ]
    assert "the run in" in result.stderr
    (tmp_path / "sweep" / "1" / "config.yaml").unlink()
    kept = (tmp_path / "sweep" / "0" / "summary.json").read_text()
    result = command("train", *SWEEP, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "2 of 2 runs done: sweep"
    assert (tmp_path / "sweep" / "0" / "summary.json").read_text() == kept
    assert "gamma: 0.9" in (tmp_path / "sweep" / "1" / "config.yaml").read_text()


def test_a_launchers_options_go_to_hydra_and_all_others_are_checked(monkeypatch):
    train = load_script("train")
    own = ["-m", "hydra/launcher=joblib", "+hydra.launcher.n_jobs=2"]
    folder, line = train._sweep([*own, "env=chicken", "run_dir=a b"])
    assert str(folder) == "a b"
    assert line == [*own, "env=chicken", f"hydra.sweep.dir='{folder.absolute()}'"]
    with pytest.raises(ConfigError, match="nv: no such key"):
        train._sweep([*own, "nv=chicken"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="submitit is not installed"):
        train._sweep(["-m", "hydra/launcher=submitit_slurm"])


@pytest.mark.parametrize("text", ["a b", "it's", r"C:\new", "ends\\", r"a\'b", r"\\x\\'"])
def test_any_text_can_be_a_value_in_hydras_grammar(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(f"x={quoted(text)}")
    assert str(override.value()) == text


@pytest.mark.slow
def test_a_sweep_by_a_launcher_with_processes_of_its_own(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    result = command("train", "hydra/launcher=submitit_local", *SWEEP, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "2 of 2 runs done: sweep"


def test_a_dry_run_of_a_figure_lists_its_runs_and_what_they_need():
    result = command("figure", "cook2024/fig4_left", "scale=cpu", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[::3] == [
        "accumulation_mild: 5 seeds of 1,500,000 steps",
        "accumulation: 5 seeds of 8,500,000 steps, after accumulation_mild",
    ]


def job(tmp_path, program, *signals):
    """The exit code of a job of `slurm.sh` that gets `signals`, and what was asked of Slurm meanwhile."""
    asked = tmp_path / "asked"
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    (tmp_path / "scontrol").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    process = subprocess.Popen([SLURM, *program], env=env, stdout=subprocess.PIPE, text=True)
    for number in signals:
        while process.stdout.readline() != "begun\n":
            pass
        process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode, asked.read_text() if asked.exists() else ""


@pytest.mark.parametrize(
    ("program", "signals", "left"),
    [
        ("print('begun', flush=True); time.sleep(60)", [signal.SIGUSR2], (75, "requeue 7\n")),
        ("print('begun', flush=True); time.sleep(60)", [signal.SIGTERM], (75, "")),
        ("sys.exit(5)", [], (5, "")),
        ("sys.exit(75)", [], (75, "")),
    ],
    ids=["out of time", "cancelled", "diverged", "stopped by hand"],
)
def test_a_job_is_queued_again_if_slurm_stopped_it(tmp_path, program, signals, left):
    assert job(tmp_path, [sys.executable, "-c", f"{OBEYS}\n{program}"], *signals) == left


def test_a_job_that_trains_has_a_folder_that_it_finds_again():
    told = lambda *words: subprocess.run(
        [SLURM, "echo", *words], env=os.environ | {"SLURM_JOB_ID": "7"}, capture_output=True, text=True
    ).stdout.splitlines()[-1]
    assert told("scripts/train.py", "env=chicken") == "scripts/train.py env=chicken run_dir=runs/slurm-7"
    assert told("scripts/train.py", "run_dir=here") == "scripts/train.py run_dir=here"
    assert told("scripts/figure.py", "a/b") == "scripts/figure.py a/b"


@pytest.mark.slow
@pytest.mark.slurm
def test_a_job_of_a_real_cluster_goes_on_where_it_was_stopped(tmp_path):
    if subprocess.run("sinfo", shell=True, capture_output=True).returncode:
        pytest.skip("no Slurm daemon")
    slurm = lambda *words: (
        subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    )
    long = ["num_envs=64", "num_seeds=1", "total_steps=1e9", "log_every=20", "run_dir=run"]
    train = ["python", str(ROOT / "scripts" / "train.py"), "env=prisoners_dilemma", *long]
    number = slurm("sbatch", "--parsable", "--gpus-per-node=0", "--cpus-per-task=1", SLURM, *train).strip()

    def wait(done):
        end = time.monotonic() + 240
        while not done():
            assert time.monotonic() < end, (tmp_path / f"slurm-{number}.out").read_text()
            time.sleep(1)

    rows = tmp_path / "run" / "metrics.jsonl"
    try:
        wait(lambda: rows.exists() and len(rows.read_text().splitlines()) > 1)
        slurm("scancel", "--signal=USR2", "--batch", number)
        wait(lambda: "PENDING" in slurm("squeue", "--noheader", "-o", "%T", "-j", number))
        saved = json.loads(rows.read_text().splitlines()[-1])["update"]
        slurm("scontrol", "update", f"JobId={number}", "StartTime=now")
        out = tmp_path / f"slurm-{number}.out"
        wait(lambda: f"resuming run after update {saved} of" in out.read_text())
    finally:
        slurm("scancel", number)
