"""The mirror of a run in Weights & Biases; metrics.jsonl stays the truth.

Every seed, of every swept value, is a W&B run of its own. What is sent are the rows of
metrics.jsonl that W&B does not have yet, so a run that is resumed, or sent again by
scripts/replay.py, has every row once. Nothing that W&B does can stop or slow a run for long:
it is tried for 10 seconds at the start and waited for at most 60 at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from marl.metrics_log import read_rows
from marl.run_folder import config_hash, title
from marl.secrets import redacted
from marl.validation import sweep_points

START_S = 10.0  # to reach W&B, tried once, after which the run is mirrored offline
FINISH_S = 60.0  # for what is still to be uploaded at the end, all seeds together
STOP_S = 5.0  # for W&B's own process to end
STATE = "wandb_sent.json"


class WandbMirror:
    """Mirrors a run's rows; silent and harmless if W&B cannot be reached.

    Fields: mode, what is in use (an online mirror may have become offline, or disabled); sent,
    rows sent so far, over all W&B runs; known, rows that W&B had already; complete, whether all
    was handed over when the mirror was closed.
    """

    def __init__(
        self, folder: Path, mode: str, points: list[dict[str, Any]], about: dict[str, Any], fallback: bool
    ):
        """Start nothing yet.

        Args:
            folder: the run folder.
            mode: disabled, offline or online.
            points: `name`, `seed` and values of `swept` keys of each W&B run, in the order of a
                row's values.
            about: what `wandb.init` is told of all of them.
            fallback: whether to write offline files where online fails.
        """
        self.mode, self.sent, self.known, self.complete = mode, 0, 0, False
        self._fallback = fallback
        self._folder, self._points, self._about = folder, points, about
        self._runs: list[Any] = []
        self._last: list[int] = []  # newest update that each W&B run has
        self._started = self._read = self._failed = False

    def start(self) -> None:
        """Begin the W&B runs: as asked, else offline, else none."""
        if not self._started and self.mode != "disabled":
            self._failed = not self._begin_all()
        self._started = True

    def append(self, row: dict[str, Any]) -> None:
        """Send one row of metrics, {name: [seeds] or [values][seeds]}, and older ones not sent yet."""
        self.start()
        if self.mode == "disabled" or self._failed:
            return
        try:
            if not self._read:
                older = read_rows(self._folder / "metrics.jsonl")
                for each in (r for r in older if r["update"] < row["update"]):
                    self._send(each)
            self._read = True
            self._send(row)
        except Exception as error:  # wandb raises many kinds; none may stop a run
            self._failed = True
            self._warn(f"W&B stopped working ({_reason(error)}); metrics.jsonl has everything")

    def close(self) -> None:
        """Finish all W&B runs, waiting a bounded time for the upload, and stop W&B's process."""
        if not self._runs:
            return
        finished = _within(FINISH_S, [run.finish for run in self._runs])
        _within(STOP_S, [_stop_wandb])
        self._runs = []
        self.complete = finished and not self._failed and self.mode != "disabled"
        if self.complete:
            self._remember()
        elif not self._failed:
            self._warn("W&B did not take everything in time; metrics.jsonl has it")

    def where(self) -> str:
        """Where the rows are, for people."""
        project = "/".join(filter(None, (self._about["entity"], self._about["project"])))
        place = f"{project}, group {self._about['group']}"
        return place if self.mode == "online" else f"{self.mode} in {self._folder / 'wandb'}, {place}"

    def _begin_all(self) -> bool:
        """Begin the W&B runs; whether all began."""
        try:
            import wandb
        except ImportError:
            return self._give_up("it is not installed: pip install wandb")
        except Exception as error:  # it does not fit another package
            return self._give_up(_reason(error))
        try:
            (self._folder / "wandb").mkdir(exist_ok=True)
            (self._folder / "wandb" / ".writable").write_text("")
            (self._folder / "wandb" / ".writable").unlink()
            identity = _identity(self._folder)
        except OSError as error:  # W&B itself would go to the temporary folder without a word
            return self._give_up(f"{self._folder}: {error.strerror}")
        for index, point in enumerate(self._points):
            key = hashlib.sha256(f"{identity}-{index}".encode()).hexdigest()[:12]
            own = {"seed": point["seed"], "swept": point["swept"]}
            about = self._about | {"id": key, "name": point["name"], "config": self._about["config"] | own}
            try:
                if not self._begin_online(wandb, about):
                    self._begin(wandb, about, _state(self._folder).get(str(index), -1))
            except Exception as error:
                return self._give_up(_reason(error))
        return True

    def _begin_online(self, wandb: Any, about: dict[str, Any]) -> bool:
        """Begin a W&B run online; if the first one fails, all are offline."""
        if self.mode != "online":
            return False
        try:
            self._begin(wandb, about)
        except Exception as error:
            if self._runs or not self._fallback:
                raise
            self.mode = "offline"
            _within(STOP_S, [_stop_wandb])  # W&B's process holds on to the id of a run that failed
            self._warn(f"W&B cannot be reached ({_reason(error)}); mirrored in {self._folder}/wandb")
            return False
        return True

    def _begin(self, wandb: Any, about: dict[str, Any], last: int | None = None) -> None:
        """Begin a W&B run that has rows up to update `last`; None: it says so itself."""
        options = {"console": "off", "silent": True, "init_timeout": START_S, "finish_timeout": FINISH_S}
        settings = wandb.Settings(**options, disable_git=True, save_code=False)
        wandb.setup(settings=settings)  # silent from the start, so that it never asks for a key
        where = {"mode": self.mode, "dir": str(self._folder.absolute())}
        run = wandb.init(**about, **where, resume="allow", reinit="create_new", settings=settings)
        run.define_metric("env_steps")
        run.define_metric("*", step_metric="env_steps")
        self._last.append(run.step - 1 if last is None else last)
        self._runs.append(run)

    def _send(self, row: dict[str, Any]) -> None:
        flat = {k: np.asarray(v, np.float64).reshape(-1) for k, v in row["metrics"].items()}
        counts = {key: row[key] for key in ("env_steps", "agent_steps", "wall_s")}
        for i, run in enumerate(self._runs):
            if row["update"] <= self._last[i]:
                self.known += 1
                continue
            seen = {k: float(v[i]) for k, v in flat.items() if math.isfinite(v[i])}
            run.log(seen | counts, step=row["update"])
            self._last[i] = row["update"]
            self.sent += 1

    def _remember(self) -> None:
        if self.mode != "offline":
            return
        try:
            (self._folder / STATE).write_text(json.dumps(dict(enumerate(self._last))))
        except OSError as error:
            self._warn(f"{self._folder / STATE}: {error.strerror}; a later replay may send rows again")

    def _give_up(self, reason: str) -> bool:
        self._warn(f"W&B is off for this run ({reason}); metrics.jsonl has everything")
        self.mode = "disabled"
        return False

    def _warn(self, text: str) -> None:
        print(f"{text}; `python scripts/replay.py run={self._folder}` sends it later", flush=True)


def mirror_of(
    cfg: DictConfig, folder: Path, logger: dict[str, Any], commit: str | None, fallback: bool = True
) -> WandbMirror:
    """The W&B mirror of a run.

    Args:
        cfg: its configuration; interpolations that read the environment are sent as text.
        folder: the run folder.
        logger: the keys of configs/logger, resolved.
        commit: git commit of the code that ran.
        fallback: whether to write offline files where online fails.
    """
    config: Any = OmegaConf.to_container(cfg)
    env, algo = (config[key]["_target_"].split(".")[-2] for key in ("env", "algo"))
    mechanisms = config["mechanism"] or {}
    same = OmegaConf.create(config | {"seed": 0, "num_seeds": 1})  # runs that differ in seeds are a group
    about = {
        "project": logger["project"],
        "entity": logger["entity"],
        "group": logger["group"] or f"{title(cfg)}-{config_hash(same)}",
        "job_type": "train",
        "tags": [t[:64] for t in (env, algo, *mechanisms, *logger["tags"], *filter(None, [commit]))],
        "config": redacted(config),
    }
    points = []
    for point in sweep_points(config["sweep"]) or [{}]:
        swept = [f"{key.split('.')[-1]}={value}" for key, value in point.items()]
        for seed in range(config["seed"], config["seed"] + config["num_seeds"]):
            points.append({"name": "-".join([env, algo, f"s{seed}", *swept]), "seed": seed, "swept": point})
    return WandbMirror(folder, logger["wandb_mode"], points, about, fallback)


def _identity(folder: Path) -> str:
    """What stands for a run folder wherever it is moved: random digits, written at first use."""
    path = folder / "wandb_id"
    known = path.read_text().strip() if path.exists() else ""
    if not known:
        known = uuid.uuid4().hex
        path.write_text(known + "\n")
    return known


def _state(folder: Path) -> dict[str, int]:
    try:
        return json.loads((folder / STATE).read_text())
    except (OSError, ValueError):
        return {}


def _reason(error: Exception) -> str:
    return (str(error).split("\n")[0] or type(error).__name__)[:150]


def _stop_wandb() -> None:
    """End W&B's process, unless the user has a run of his own in it."""
    import wandb

    if wandb.run is None:
        wandb.teardown()


def _within(seconds: float, calls: Sequence[Callable[[], Any]]) -> bool:
    """Make all calls at once; whether all returned in time and none raised."""
    done = []

    def make(call: Callable[[], Any]) -> None:
        with contextlib.suppress(Exception):
            call()
            done.append(call)

    threads = [threading.Thread(target=make, args=(call,), daemon=True) for call in calls]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return len(done) == len(calls)
