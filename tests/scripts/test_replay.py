"""Runs are sent to W&B afterwards, every row once."""

import json
import sys

import pytest
from omegaconf import OmegaConf

from marl.config import compose
from marl.logger import mirror_of
from marl.metrics_log import MetricsLog
from marl.run_folder import locked, write_config
from marl.validation import ConfigError
from tests.fake_wandb import FakeWandb
from tests.runs import command, load_script


@pytest.fixture(scope="module")
def replay():
    return load_script("replay").replay


@pytest.fixture
def world(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


CFG = compose(["num_seeds=2", "logger.project=mine"])


def leave_run(folder, *updates, mode="disabled"):
    """A run folder, or more rows of it, written as the host loop does."""
    folder.mkdir(exist_ok=True, parents=True)
    write_config(CFG, folder)
    keys = OmegaConf.to_container(CFG.logger) | {"wandb_mode": mode}
    sender, log = mirror_of(CFG, folder, keys, None), MetricsLog(folder / "metrics.jsonl", 99)
    for update in updates:
        counts = {"update": update, "env_steps": 8 * update, "agent_steps": 16 * update, "wall_s": 0.1}
        log.append(counts | {"metrics": {"reward": [update / 2, None]}})
        sender.append(log.rows[-1])
    log.close()
    sender.close()
    return folder


def steps(world):
    return [list(rows) for rows in world.online.values()]


def test_replaying_twice_sends_every_row_once_and_a_longer_run_only_what_is_new(
    replay, world, tmp_path, capsys
):
    folder = leave_run(tmp_path / "run", 1, 2)
    (folder / "summary.json").write_text(json.dumps({"versions": {"git": "abc1234"}}))
    assert replay([f"run={folder}"]) == 0
    assert steps(world) == [[1, 2], [1, 2]]
    assert [rows[2].get("reward") for rows in world.online.values()] == [1.0, None]
    assert world.begun[0].options["project"] == "mine"
    assert "abc1234" in world.begun[0].options["tags"]
    assert replay([f"run={folder}"]) == 0
    leave_run(folder, 3)
    assert replay([f"run={folder}", "project=other", "entity=us"]) == 0
    assert steps(world) == [[1, 2, 3], [1, 2, 3]]
    told = [line.split(": ")[1].split(" (")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["sent 4 rows, 0 were there", "sent 0 rows, 4 were there", "sent 2 rows, 4 were there"]


def test_an_offline_mirrored_run_becomes_one_wandb_run_a_seed(replay, world, tmp_path):
    folder = leave_run(tmp_path / "run", 1, 2, mode="offline")
    leave_run(folder, 3, mode="offline")
    assert [[list(leg) for leg in legs] for legs in world.offline.values()] == [[[1, 2], [3]]] * 2
    assert replay([f"run={folder}"]) == 0
    assert steps(world) == [[1, 2, 3], [1, 2, 3]]
    assert world.online.keys() == world.offline.keys()
    assert replay([f"run={folder}", "mode=offline"]) == 0
    assert [len(legs[-1]) for legs in world.offline.values()] == [0, 0]


def test_a_run_that_was_online_in_part_is_completed(replay, world, tmp_path):
    folder = leave_run(tmp_path / "run", 1, 2, mode="online")
    leave_run(folder, 3, 4)
    assert replay([f"run={folder}"]) == 0
    assert steps(world) == [[1, 2, 3, 4]] * 2


def test_a_folder_of_runs_is_sent_run_by_run(replay, world, tmp_path):
    for name in ("a", "b"):
        leave_run(tmp_path / name, 1)
    assert replay([f"run={tmp_path}"]) == 0
    assert len(world.online) == 4


def test_without_network_it_exits_1_and_writes_no_offline_files(replay, world, tmp_path, capsys):
    folder = leave_run(tmp_path / "run", 1)
    world.fails = ("online",)
    assert replay([f"run={folder}"]) == 1
    assert world.tried == ["online"]
    assert "W&B is off for this run (no network)" in capsys.readouterr().out


def test_a_run_in_progress_and_names_from_the_environment_are_refused(replay, world, tmp_path, monkeypatch):
    folder = leave_run(tmp_path / "run", 1)
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("project: mine", "project: ${oc.env:HOME}"))
    with pytest.raises(ConfigError, match="project=: the run took it from the environment; name it"):
        replay([f"run={folder}"])
    assert replay([f"run={folder}", "project=mine"]) == 0
    with locked(folder), pytest.raises(RuntimeError, match="in use by"):
        replay([f"run={folder}", "project=mine"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("run=/nowhere", "/nowhere is not a run folder"),
        ("mode=live", "mode=live: must be one of online, offline"),
        ("projekt=x", "projekt=: no such option, did you mean project?"),
        ("run={empty}", "has no rows in metrics.jsonl"),
        ("run={strange}", "config.yaml is no run's configuration"),
    ],
)
def test_bad_input_is_named(replay, tmp_path, argument, message):
    for name in ("empty", "strange"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("[1, 2]")
    (tmp_path / "strange" / "metrics.jsonl").write_text('{"update": 1}\n')
    folders = {name: tmp_path / name for name in ("empty", "strange")}
    with pytest.raises((ConfigError, FileNotFoundError)) as caught:
        replay([argument.format(**folders)])
    assert message in str(caught.value)


def test_the_command_has_help_and_exits_2_with_one_line():
    found = command("replay", "--help")
    assert (found.returncode, found.stdout.startswith("usage: python scripts/replay.py")) == (0, True)
    found = command("replay", "run=/nowhere")
    assert (found.returncode, len(found.stderr.splitlines())) == (2, 1)
