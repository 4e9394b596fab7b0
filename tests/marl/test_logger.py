"""The W&B mirror: one W&B run a seed, every row once, and nothing that W&B does harms a run."""

import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from marl import logger
from marl.config import compose
from marl.logger import mirror_of
from marl.metrics_log import MetricsLog
from marl.run import run
from tests.fake_wandb import FakeWandb
from tests.runs import ROOT, TINY, rows

SMALL = ["num_seeds=2", "seed=5"]
SECRET = "5ec4e7" * 7  # as long as a key of W&B


def row(update, *values):
    counts = {"update": update, "env_steps": 10 * update, "agent_steps": 20 * update, "wall_s": 0.5}
    return counts | {"metrics": {"reward": np.asarray(values, np.float32)}}


def mirror(folder, *overrides, mode="online", fallback=True):
    cfg = compose([*SMALL, *overrides])
    keys = {"project": "marl", "entity": None, "group": None, "tags": ["mine"], "wandb_mode": mode}
    return mirror_of(cfg, folder, keys, "abc1234", fallback)


def train(sender, folder, *updates):
    """As the host loop does: first the file, then the mirror."""
    log = MetricsLog(folder / "metrics.jsonl", updates[0] - 1)
    for update in updates:
        log.append(row(update, 0.5, update))
        sender.append(log.rows[-1])
    log.close()
    sender.close()


@pytest.fixture
def fake(monkeypatch):
    def put(**options):
        world = FakeWandb(**options)
        monkeypatch.setitem(sys.modules, "wandb", world)
        return world

    return put


def test_every_seed_is_a_run_of_its_own(tmp_path, fake):
    world = fake()
    sender = mirror(tmp_path, "mechanism=[reputation]")
    train(sender, tmp_path, 1, 2)
    counts = [{"env_steps": 10 * u, "agent_steps": 20 * u, "wall_s": 0.5} for u in (1, 2)]
    assert [list(rows.values()) for rows in world.online.values()] == [
        [{"reward": 0.5} | c for c in counts],
        [{"reward": u} | c for u, c in zip((1.0, 2.0), counts, strict=True)],
    ]
    options = [run.options for run in world.begun]
    assert [o["name"] for o in options] == ["matrix_game-ppo-s5", "matrix_game-ppo-s6"]
    assert [o["config"]["seed"] for o in options] == [5, 6]
    assert options[0]["tags"] == ["matrix_game", "ppo", "reputation", "mine", "abc1234"]
    assert re.fullmatch(r"matrixgame-ppo-[0-9a-f]{8}", options[0]["group"])
    assert {(o["project"], o["job_type"], o["resume"]) for o in options} == {("marl", "train", "allow")}
    assert all(re.fullmatch(r"[0-9a-f]{12}", o["id"]) for o in options)
    assert world.begun[0].metrics == [("env_steps", None), ("*", "env_steps")]
    assert (world.finished, world.teardowns) == (2, 1)
    assert (sender.complete, sender.sent) == (True, 4)


def test_a_value_that_is_not_finite_is_left_out(tmp_path, fake):
    world = fake()
    sender = mirror(tmp_path)
    sender.append(row(1, np.nan, np.inf))
    assert [set(rows[1]) for rows in world.online.values()] == [{"env_steps", "agent_steps", "wall_s"}] * 2


def test_swept_values_are_runs_with_the_value_in_their_name(tmp_path, fake):
    world = fake()
    sender = mirror(tmp_path, "+sweep.algo.ent_coef=[0.0,0.1]")
    sender.append(row(1, [0.0, 1.0], [2.0, 3.0]))
    assert [run.options["name"][16:] for run in world.begun] == [
        "s5-ent_coef=0.0",
        "s6-ent_coef=0.0",
        "s5-ent_coef=0.1",
        "s6-ent_coef=0.1",
    ]
    assert [rows[1]["reward"] for rows in world.online.values()] == [0.0, 1.0, 2.0, 3.0]
    assert world.begun[2].options["config"]["swept"] == {"algo.ent_coef": 0.1}


def test_runs_that_differ_in_seeds_only_are_a_group(tmp_path):
    group = lambda *own: mirror(tmp_path, *own)._about["group"]
    assert group() == group("seed=9", "num_seeds=4") != group("algo.gamma=0.5")


def test_a_moved_folder_keeps_its_ids_and_a_resumed_run_sends_every_row_once(tmp_path, fake):
    world = fake()
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    train(mirror(old), old, 1, 2, 3)
    old.rename(new)
    train(mirror(new), new, 3, 4)  # update 3 again, as after a kill between two checkpoints
    assert len(world.online) == 2
    assert all(list(rows) == [1, 2, 3, 4] for rows in world.online.values())


def test_a_resumed_run_also_sends_what_an_outage_kept_back(tmp_path, fake):
    fake(fails=("online", "offline"))
    train(mirror(tmp_path), tmp_path, 1, 2)
    world = fake()
    train(mirror(tmp_path), tmp_path, 3)
    assert all(list(rows) == [1, 2, 3] for rows in world.online.values())


@pytest.mark.parametrize("seeds", [1, 8])
def test_without_network_it_is_tried_once_and_mirrored_offline(tmp_path, fake, capsys, seeds):
    world = fake(fails=("online",))
    sender = mirror(tmp_path, f"num_seeds={seeds}")
    for update in (1, 2):
        sender.append(row(update, *range(seeds)))
    sender.close()
    assert world.tried == ["online"] + ["offline"] * seeds
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"W&B cannot be reached (no network); mirrored in {tmp_path}/wandb; `python")
    assert sender.mode == "offline"


def test_a_network_that_goes_away_between_two_seeds_leaves_one_line_and_a_run_to_replay(
    tmp_path, fake, capsys
):
    world = fake(fails_after=1)
    sender = mirror(tmp_path)
    train(sender, tmp_path, 1, 2)
    assert capsys.readouterr().out.count("\n") == 1
    assert (world.finished, sender.complete) == (1, False)
    assert list(world.online.values()) == [{}]


def test_if_nothing_works_or_is_installed_one_line_says_so(tmp_path, fake, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    train(mirror(tmp_path), tmp_path, 1, 2)
    assert capsys.readouterr().out.count("W&B is off for this run (it is not installed") == 1
    fake(fails=("offline",))
    train(mirror(tmp_path, mode="offline"), tmp_path, 3, 4)
    assert capsys.readouterr().out.count("W&B is off for this run (no network)") == 1


def test_a_folder_that_cannot_be_written_is_found_before_wandb_goes_elsewhere(tmp_path, fake, capsys):
    world = fake()
    (tmp_path / "wandb").write_text("in the way")
    sender = mirror(tmp_path)
    sender.append(row(1, 0.0, 0.0))
    sender.append(row(2, 0.0, 0.0))
    assert world.tried == []
    assert capsys.readouterr().out.count("W&B is off for this run") == 1


def test_disabled_means_that_wandb_is_not_imported(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    train(mirror(tmp_path, mode="disabled"), tmp_path, 1)
    assert capsys.readouterr().out == ""
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_wandb_dying_is_told_once_and_a_slow_end_is_bounded(tmp_path, fake, monkeypatch, capsys):
    fake(log_fails_at=2)
    train(mirror(tmp_path), tmp_path, 1, 2, 3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "W&B stopped working (helper is gone)" in lines[0]
    fake(finish_s=30.0)
    monkeypatch.setattr(logger, "FINISH_S", 0.2)
    sender = mirror(tmp_path)
    began = time.monotonic()
    train(sender, tmp_path, 4)
    assert time.monotonic() - began < 5
    assert not sender.complete
    assert "W&B did not take everything in time" in capsys.readouterr().out


def test_secrets_of_the_configuration_are_not_sent(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("MY_PROJECT", SECRET)
    world = fake()
    sender = mirror(tmp_path, "logger.project=${oc.env:MY_PROJECT}")
    sender.append(row(1, 0.0, 0.0))
    config = world.begun[0].options["config"]
    assert config["logger"]["project"] == "${oc.env:MY_PROJECT}"
    assert SECRET not in json.dumps(config)


def test_a_broken_wandb_changes_no_number_and_a_run_holds_no_secret(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("MY_PROJECT", SECRET[::-1])
    quick = [*TINY, "num_seeds=1", "total_steps=128"]
    assert run(compose(quick), tmp_path / "local").exit_code == 0
    world = fake(fails=("online",), log_fails_at=4)
    assert (
        run(
            compose([*quick, "logger=wandb", "logger.project=${oc.env:MY_PROJECT}"]), tmp_path / "broken"
        ).exit_code
        == 0
    )
    assert world.tried == ["online", "offline"]
    assert rows(tmp_path / "broken") == rows(tmp_path / "local")
    texts = [p.read_bytes() for p in (tmp_path / "broken").rglob("*") if p.is_file()]
    assert any(b"${oc.env:MY_PROJECT}" in text for text in texts)
    assert not any(s.encode() in text for text in texts for s in (SECRET, SECRET[::-1]))


OFFLINE = """
import sys, pathlib, psutil, time
from tests.marl.test_logger import mirror, row
folder, kill = pathlib.Path(sys.argv[1]), sys.argv[2] == "kill"
sender = mirror(folder, mode="offline")
for update in (1, 2):
    sender.append(row(update, 0.5, update))
children = psutil.Process().children(recursive=True)
assert any("wandb" in child.name() for child in children), children
if kill:
    for child in children:
        child.kill()
    time.sleep(0.2)
    for update in (3, 4, 5):
        sender.append(row(update, 0.5, update))
began = time.monotonic()
sender.close()
print("closed in", time.monotonic() - began, sender.complete)
psutil.wait_procs(children, timeout=3)
print("left", [child for child in children if child.is_running()])
"""


@pytest.mark.parametrize("what", ["leave", "kill"])
def test_wandb_itself_offline_leaves_files_and_no_process_and_may_be_killed(tmp_path, what):
    pytest.importorskip("wandb")
    call = [sys.executable, "-c", OFFLINE, str(tmp_path), what]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment |= {"WANDB_API_KEY": SECRET, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    closed, left = result.stdout.splitlines()[-2:]
    assert float(closed.split()[2]) < 20
    assert closed.endswith("True") == (what == "leave")
    assert left == "left []"
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 2
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [p for p in files if SECRET.encode() in p.read_bytes()] == []


@pytest.mark.slow
def test_a_closed_port_costs_at_most_20_seconds(tmp_path):
    pytest.importorskip("wandb")
    code = (
        "import sys, pathlib, time; from tests.marl.test_logger import mirror, row\n"
        "sender = mirror(pathlib.Path(sys.argv[1]), 'num_seeds=8'); began = time.monotonic()\n"
        "sender.append(row(1, *range(8))); print(time.monotonic() - began, sender.mode); sender.close()"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment |= {"WANDB_API_KEY": SECRET, "WANDB_BASE_URL": "http://127.0.0.1:9", "JAX_PLATFORMS": "cpu"}
    call = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)
    assert result.returncode == 0, result.stderr
    *_, warning, told = result.stdout.splitlines()
    assert "W&B cannot be reached" in warning
    assert float(told.split()[0]) < 20
    assert told.endswith("offline")
    assert SECRET not in result.stdout + result.stderr
