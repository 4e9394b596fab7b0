"""The host loop: chunks of training, one row of metrics each, checkpoints, resume, signals.

A run folder holds config.yaml, metrics.jsonl, summary.json and checkpoints/. A run that is cut
at a chunk and resumed equals an uninterrupted one bit for bit on the same machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omegaconf import DictConfig, OmegaConf

from marl import checkpoint
from marl.build import build
from marl.logger import MetricsLog, WandbMirror, plain
from marl.program import Program, use_compile_cache
from marl.signals import StopSignal, Watch
from marl.statistics import summarize
from marl.validation import ConfigError, flatten

MAY_CHANGE = (
    "total_steps",
    "log_every",
    "checkpoint_every",
    "summary_fraction",
    "run_dir",
    "device",
    "logger",
    "figure",
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
OnChunk = Callable[[int, int, float], None]


class RunLockedError(RuntimeError):
    """Another process is writing to the run folder."""


@dataclasses.dataclass
class Result:
    """How a run ended: exit_code 0 finished, 75 or 130 stopped by a signal and resumable."""

    run_dir: Path
    exit_code: int
    summary: dict[str, Any] | None


def run(cfg: DictConfig, run_dir: Path, on_chunk: OnChunk = lambda done, total, rate: None) -> Result:
    """Train what `cfg` describes, or go on with what `run_dir` holds of it.

    Args:
        cfg: composed configuration.
        run_dir: run folder; made if it does not exist.
        on_chunk: told (updates done, updates in all, environment steps/s) after each chunk.

    Raises:
        ConfigError: if the configuration cannot be built or differs from the folder's.
        RunLockedError: if another process holds the folder.
        checkpoint.CheckpointError: if the folder's checkpoints are all damaged.
    """
    setup = build(cfg)
    use_compile_cache()
    program = Program(setup)
    with _locked(run_dir), StopSignal() as stop:
        _write_config(cfg, run_dir)
        runners, done = _resume(program, run_dir)
        if done >= program.num_updates and (run_dir / "summary.json").exists():
            return Result(run_dir, 0, json.loads((run_dir / "summary.json").read_text()))
        log = MetricsLog(run_dir / "metrics.jsonl", done)
        leg = _Leg(cfg, setup, program, run_dir, log, on_chunk)
        done = leg.advance(runners, done, stop)
        summary = leg.summary() if done >= program.num_updates else None
        log.close()
        stop.hand_over()
        return Result(run_dir, 0 if summary else stop.exit_code, summary)


@dataclasses.dataclass
class _Leg:
    """One process's leg of a run: from where it stands to its end or to a signal."""

    cfg: DictConfig
    setup: Any
    program: Any
    run_dir: Path
    log: MetricsLog
    on_chunk: OnChunk
    compile_s: float = 0.0
    env_steps_per_s: float | None = None

    def advance(self, runners: Any, done: int, stop: StopSignal) -> int:
        """Run chunks until the end or a signal; returns the updates done, which are saved."""
        program, cfg = self.program, self.cfg
        with Watch("compiling"):
            self.compile_s = program.compile(runners)
        mirror = _mirror(cfg, self.run_dir)
        wall_before = self.log.rows[-1]["wall_s"] if self.log.rows else 0.0
        began, first = time.perf_counter(), done
        parallel = cfg.num_seeds * max(len(program.points), 1) * program.env_steps_per_update
        while done < program.num_updates and stop.received is None:
            with Watch(f"the chunk from update {done}"):
                runners, metrics = program.run_chunk(runners, done)
            done += program.chunk_updates
            wall = time.perf_counter() - began
            row = self._row(done, wall_before + wall, metrics)
            self.log.append(row)
            mirror.append(row)
            self.env_steps_per_s = (done - first) * parallel / wall
            self.on_chunk(done, program.num_updates, self.env_steps_per_s)
            last = done >= program.num_updates or stop.received is not None
            if last or (done // program.chunk_updates) % cfg.checkpoint_every == 0:
                score = float(metrics["reward"].mean())
                checkpoint.save(
                    self.run_dir / "checkpoints", done, runners, score=score, about=_identity(cfg)
                )
        mirror.close()
        return done

    def _row(self, done: int, wall: float, metrics: dict[str, Any]) -> dict[str, Any]:
        env_steps = done * self.program.env_steps_per_update
        return {
            "update": done,
            "env_steps": env_steps,
            "agent_steps": env_steps * self.setup.env.num_agents,
            "wall_s": round(wall, 3),
            "metrics": metrics,
        }

    def summary(self) -> dict[str, Any]:
        """Write and return summary.json."""
        last = self.log.rows[-1]
        facts = {
            "metrics": final_metrics(self.log.rows, self.cfg.summary_fraction),
            "sweep": self.program.points,
            **{key: last[key] for key in ("update", "env_steps", "agent_steps", "wall_s")},
            "env_steps_per_s": self.env_steps_per_s,
            "compile_s": round(self.compile_s, 2),
            "device": jax.devices()[0].device_kind,
            **_identity(self.cfg),
        }
        checkpoint.write_atomically(self.run_dir / "summary.json", json.dumps(facts, indent=1))
        return facts


def final_metrics(rows: list[dict], fraction: float) -> dict[str, dict[str, Any]]:
    """Means over the last `fraction` of the rows, per seed, with their statistics over seeds.

    Rows without a value (no episode ended in that chunk) do not count.

    Returns:
        {name: {per_seed, mean, iqm, low, high, n}}; with a sweep each is a list over its points.
    """
    last = rows[-max(1, round(len(rows) * fraction)) :]
    final = {}
    for name in last[-1]["metrics"]:
        found = np.asarray([row["metrics"][name] for row in last], np.float64)  # [rows, (V,) S]
        known = np.isfinite(found)
        values = np.where(known, found, 0.0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
        per_point = [summarize(v) for v in values.reshape(-1, values.shape[-1])]
        statistics = {k: [p[k] for p in per_point] for k in per_point[0]}
        if values.ndim == 1:
            statistics = per_point[0]
        final[name] = {"per_seed": plain(values)} | statistics
    return final


def new_run_dir(cfg: DictConfig) -> Path:
    """A folder name under runs/ that no other run has, in order of time."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{now}-{_title(cfg)}-{uuid.uuid4().hex[:4]}"


def _title(cfg: DictConfig) -> str:
    """Game and learning rule, such as "coingame-ppo"."""
    names = (str(node._target_).rsplit(".", 1)[-1] for node in (cfg.env, cfg.algo))
    return "-".join(names).lower()


def config_hash(cfg: DictConfig) -> str:
    """Eight hex digits that stand for what is computed: all keys but those that may change."""
    plain = {k: v for k, v in OmegaConf.to_container(cfg, resolve=True).items() if k not in MAY_CHANGE}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result, and the git commit if there is one."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found["git"] = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    return found


def _identity(cfg: DictConfig) -> dict[str, Any]:
    return {"config_hash": config_hash(cfg), "versions": versions()}


def _write_config(cfg: DictConfig, run_dir: Path) -> None:
    """Write config.yaml, or make sure that the one there describes the same computation."""
    path = run_dir / "config.yaml"
    if path.exists():
        old = flatten(OmegaConf.to_container(OmegaConf.load(path)))
        new = flatten(OmegaConf.to_container(cfg, resolve=True))
        changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
        changed = [k for k in changed if k.split(".")[0] not in MAY_CHANGE]
        if changed:
            raise ConfigError(f"{k}={new.get(k)}: the run in {run_dir} has {old.get(k)}" for k in changed)
    checkpoint.write_atomically(path, OmegaConf.to_yaml(cfg, resolve=True))


def _resume(program: Any, run_dir: Path) -> tuple[Any, int]:
    """Runners and updates done: from the newest valid checkpoint, or a fresh start."""
    runners = program.start()
    try:
        done, restored = checkpoint.restore(run_dir / "checkpoints", jax.eval_shape(lambda: runners))
    except FileNotFoundError:
        return runners, 0
    print(f"resuming {run_dir} after update {done} of {program.num_updates}")
    return jax.device_put(restored), done


def _mirror(cfg: DictConfig, run_dir: Path) -> WandbMirror:
    plain, group = OmegaConf.to_container(cfg, resolve=True), f"{_title(cfg)}-{config_hash(cfg)}"
    return WandbMirror(cfg.logger.wandb_mode, cfg.logger.project, group, run_dir, plain)


@contextlib.contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Hold the run folder for this process alone."""
    import fcntl

    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = (run_dir / "LOCK").open("a+")
    except OSError as error:
        raise ConfigError([f"run_dir={run_dir}: cannot be written ({error.strerror})"]) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise RunLockedError(f"run_dir={run_dir}: in use by {lock.read().strip()}") from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
