"""metrics.jsonl holds whole rows only; the W&B mirror sends each seed's numbers or stays silent."""

import json
import sys
from types import SimpleNamespace

import numpy as np

from marl.logger import MetricsLog, WandbMirror, read_rows


def row(update, *values):
    metrics = {"reward": np.asarray(values, np.float32)}
    return {
        "update": update,
        "env_steps": 10 * update,
        "agent_steps": 20 * update,
        "wall_s": 0.5,
        "metrics": metrics,
    }


def test_numbers_survive_exactly_and_what_is_not_finite_becomes_null(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl", 0)
    log.append(row(1, 0.1, np.nan))
    log.append(row(2, np.inf, -3.0))
    log.close()
    first, second = read_rows(tmp_path / "m.jsonl")
    assert first["metrics"]["reward"] == [float(np.float32(0.1)), None]
    assert second["metrics"]["reward"] == [None, -3.0]


def test_reopening_drops_later_rows_and_a_torn_line(tmp_path):
    path = tmp_path / "m.jsonl"
    log = MetricsLog(path, 0)
    for update in (1, 2, 3):
        log.append(row(update, 1.0))
    log.close()
    whole = path.read_text()
    path.write_text(whole + '{"update": 4, "met')
    log = MetricsLog(path, 2)
    log.close()
    assert path.read_text() == "".join(f"{line}\n" for line in whole.splitlines()[:2])


class FakeWandb:
    """Records what would be sent."""

    def __init__(self, fails=False):
        self.runs, self.fails = [], fails

    def Settings(self, **options):  # noqa: N802 (its name in wandb)
        return options

    def init(self, **options):
        if self.fails:
            raise ConnectionError("no network")
        sent = []
        run = SimpleNamespace(
            log=sent.append,
            finish=lambda: None,
            define_metric=lambda *_, **__: None,
            sent=sent,
            options=options,
        )
        self.runs.append(run)
        return run


def mirror(tmp_path, mode="online"):
    return WandbMirror(mode, "marl", "group", tmp_path, {"seed": 0})


def test_every_seed_is_a_run_of_its_own(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    sender = mirror(tmp_path)
    sender.append(row(1, 0.5, np.nan))
    sender.append(row(2, 1.5, 2.5))
    sender.close()
    assert [run.sent for run in fake.runs] == [
        [{"reward": 0.5, "env_steps": 10}, {"reward": 1.5, "env_steps": 20}],
        [{"env_steps": 10}, {"reward": 2.5, "env_steps": 20}],
    ]
    assert {run.options["group"] for run in fake.runs} == {"group"}
    assert (
        json.dumps([run.options["config"] for run in fake.runs])
        == '[{"seed": 0, "index": 0}, {"seed": 0, "index": 1}]'
    )


def test_if_wandb_cannot_be_reached_the_run_goes_on_with_one_line(tmp_path, monkeypatch, capsys):
    fake = FakeWandb(fails=True)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    sender = mirror(tmp_path)
    sender.append(row(1, 0.5))
    sender.append(row(2, 0.5))
    assert capsys.readouterr().out.count("W&B is off for this run (ConnectionError)") == 1


def test_disabled_means_that_wandb_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    sender = mirror(tmp_path, "disabled")
    sender.append(row(1, 0.5))
    sender.close()
