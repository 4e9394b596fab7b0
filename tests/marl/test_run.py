"""Runs: chunked = whole, killed and resumed = uninterrupted, signals, locks, damaged checkpoints."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from marl.build import load_run
from marl.checkpoint import CheckpointError
from marl.config import compose
from marl.metrics_log import read_rows
from marl.run import final_metrics, run
from marl.run_folder import RunLockedError, locked
from marl.validation import ConfigError
from tests.runs import ROOT, TINY, parameters, rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(compose(TINY), folder).exit_code == 0
    return folder


def test_run_folder_follows_the_contract(whole):
    assert {"config.yaml", "metrics.jsonl", "summary.json", "checkpoints"} <= {
        p.name for p in whole.iterdir()
    }
    first = rows(whole)[0]
    assert (first["update"], first["env_steps"], first["agent_steps"]) == (4, 128, 256)
    assert all(len(values) == 2 for values in first["metrics"].values())
    summary = json.loads((whole / "summary.json").read_text())
    assert {"metrics", "env_steps_per_s", "compile_s", "device", "versions", "config_hash"} <= summary.keys()
    reward = summary["metrics"]["reward"]
    assert {"per_seed", "mean", "iqm", "low", "high", "n"} == reward.keys()
    assert reward["n"] == 2
    assert np.isclose(reward["mean"], np.mean(reward["per_seed"]))
    manifests = {int(p.stem): json.loads(p.read_text()) for p in (whole / "checkpoints").glob("*.json")}
    best = max((8, 16, 20), key=lambda update: np.mean(rows(whole)[update // 4 - 1]["metrics"]["reward"]))
    assert set(manifests) == {16, 20, best}


def test_a_finished_run_is_not_run_again(whole):
    before = (whole / "metrics.jsonl").stat().st_mtime_ns
    result = run(compose(TINY), whole)
    assert result.exit_code == 0
    assert result.summary["update"] == 20
    assert (whole / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 75),
        (signal.SIGINT, 130),
        *(pytest.param(number, 75, marks=pytest.mark.slow) for number in (signal.SIGUSR1, signal.SIGUSR2)),
    ],
)
def test_a_signal_saves_at_the_next_chunk_and_resuming_changes_nothing(whole, tmp_path, number, code):
    folder = tmp_path / "run"

    def at_the_second_chunk(done, total, rate):
        if done == 8:
            os.kill(os.getpid(), number)
            time.sleep(0.05)

    result = run(compose(TINY), folder, at_the_second_chunk)
    assert (result.exit_code, result.summary) == (code, None)
    assert [row["update"] for row in rows(folder)] == [4, 8]
    assert run(compose(TINY), folder).exit_code == 0
    assert rows(folder) == rows(whole)
    assert parameters(folder) == parameters(whole)


def test_kill_9_then_the_same_command_equals_an_uninterrupted_run(whole, tmp_path):
    folder = tmp_path / "run"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from marl.config import compose; from marl.run import run\n"
        "run(compose(sys.argv[2:]), Path(sys.argv[1]), lambda *_: time.sleep(1.0))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), *TINY], cwd=ROOT)
    deadline = time.monotonic() + 120
    while len(read_rows(folder / "metrics.jsonl")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"update": 99, "metr')  # a torn line, as a kill in the middle of a write leaves
    assert not (folder / "summary.json").exists()
    assert run(compose(TINY), folder).exit_code == 0
    assert rows(folder) == rows(whole)
    assert parameters(folder) == parameters(whole)


def test_one_call_of_all_updates_equals_five_chunks(whole, tmp_path):
    assert run(compose([*TINY, "log_every=20"]), tmp_path / "run").exit_code == 0
    assert parameters(tmp_path / "run") == parameters(whole)


def test_a_longer_run_goes_on_and_any_other_change_is_refused(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    with pytest.raises(ConfigError, match=r"algo.gamma=0.5: the run in .* has 0.96"):
        run(compose([*TINY, "algo.gamma=0.5"]), folder)
    assert run(compose([*TINY, "total_steps=1280"]), folder).exit_code == 0
    assert [row["update"] for row in rows(folder)] == list(range(4, 41, 4))
    assert rows(folder)[:5] == rows(whole)


def test_two_processes_cannot_write_one_folder(tmp_path):
    with locked(tmp_path / "run"), pytest.raises(RunLockedError, match=f"process {os.getpid()}"):
        run(compose(TINY), tmp_path / "run")


def damage(path, how):
    if how == "bit":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how == "short":
        path.write_bytes(path.read_bytes()[:10])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["bit", "short", "gone", "manifest"])
def test_a_damaged_newest_checkpoint_is_named_and_the_older_one_used(whole, tmp_path, how):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    newest = folder / "checkpoints" / "20"
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    damage(newest.with_suffix(".json") if how == "manifest" else largest, how)
    with pytest.warns(UserWarning, match="passed over checkpoint 20"):
        load_run(folder)
    for older in set((folder / "checkpoints").glob("*.json")) - {newest.with_suffix(".json")}:
        older.unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint 20 .*; checkpoint 16"):
        load_run(folder)
    (folder / "summary.json").unlink()
    with pytest.raises(CheckpointError):
        run(compose(TINY), folder)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        run(compose(TINY), tmp_path / "file" / "run")


def test_rows_without_a_value_do_not_count_in_the_summary():
    rows = [{"metrics": {"return": values}} for values in ([9.0, 9.0], [1.0, None], [3.0, None])]
    found = final_metrics(rows, 0.6)["return"]
    assert found["per_seed"] == [2.0, None]
    assert (found["mean"], found["n"]) == (2.0, 1)
