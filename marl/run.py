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

from omegaconf import DictConfig, OmegaConf

from marl import checkpoint
from marl.config import build
from marl.logger import MetricsLog, WandbMirror
from marl.signals import StopSignal, Watch
from marl.statistics import summarize
from marl.validation import ConfigError, flatten

MAY_CHANGE = (
    "total_steps",
    "log_every",
    "checkpoint_every",
    "summary_fraction",
    "run_dir",
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
    from marl.program import Program, use_compile_cache

    use_compile_cache()
    program = Program(setup)
    with _locked(run_dir), StopSignal() as stop:
        _write_config(cfg, run_dir)
        runners, done = _resume(program, run_dir)
        log = MetricsLog(run_dir / "metrics.jsonl", done)
        mirror = _mirror(cfg, run_dir)
        with Watch("compiling"):
            compile_s = program.compile(runners)
        wall_before = log.rows[-1]["wall_s"] if log.rows else 0.0
        began, first = time.perf_counter(), done
        about = {"config_hash": config_hash(cfg), "versions": versions()}
        per_seed = program.env_steps_per_update
        while done < program.num_updates and stop.received is None:
            with Watch(f"the chunk from update {done}"):
                runners, metrics = program.run_chunk(runners, done)
            done += program.chunk_updates
            wall = time.perf_counter() - began
            row = {
                "update": done,
                "env_steps": done * per_seed,
                "agent_steps": done * per_seed * setup.env.num_agents,
                "wall_s": round(wall_before + wall, 3),
                "metrics": metrics,
            }
            log.append(row)
            mirror.append(row)
            parallel = cfg.num_seeds * max(len(program.points), 1)
            rate = (done - first) * per_seed * parallel / wall
            on_chunk(done, program.num_updates, rate)
            last = done >= program.num_updates or stop.received is not None
            if last or (done // program.chunk_updates) % cfg.checkpoint_every == 0:
                score = float(metrics["reward"].mean())
                checkpoint.save(run_dir / "checkpoints", done, runners, score=score, about=about)
        summary = None
        if done >= program.num_updates:
            speed = {"env_steps_per_s": rate if done > first else None, "compile_s": round(compile_s, 2)}
            summary = _summary(cfg, program, log.rows, speed) | about
            checkpoint.write_atomically(run_dir / "summary.json", json.dumps(summary, indent=1))
        log.close()
        mirror.close()
        stop.hand_over()
        return Result(run_dir, stop.exit_code if summary is None else 0, summary)


def new_run_dir(cfg: DictConfig) -> Path:
    """A folder name under runs/ that no other run has, in order of time."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    game = str(cfg.env._target_).rsplit(".", 1)[-1]
    rule = str(cfg.algo._target_).rsplit(".", 1)[-1]
    return Path("runs") / f"{now}-{game}-{rule}-{uuid.uuid4().hex[:4]}".lower()


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
    import jax

    runners = program.start()
    try:
        done, restored = checkpoint.restore(run_dir / "checkpoints", jax.eval_shape(lambda: runners))
    except FileNotFoundError:
        return runners, 0
    print(f"resuming {run_dir} after update {done} of {program.num_updates}")
    return jax.device_put(restored), done


def _mirror(cfg: DictConfig, run_dir: Path) -> WandbMirror:
    plain = OmegaConf.to_container(cfg, resolve=True)
    group = f"{new_run_dir(cfg).name.split('-', 2)[2].rsplit('-', 1)[0]}-{config_hash(cfg)}"
    return WandbMirror(cfg.logger.wandb_mode, cfg.logger.project, group, run_dir, plain)


def _summary(cfg: DictConfig, program: Any, rows: list[dict], speed: dict[str, Any]) -> dict[str, Any]:
    """Final metrics (mean over the last part of the run) with their statistics over seeds."""
    import jax
    import numpy as np

    last = rows[-max(1, round(len(rows) * cfg.summary_fraction)) :]
    final = {}
    for name in last[-1]["metrics"]:
        values = np.asarray([row["metrics"][name] for row in last], np.float64).mean(0)  # [S] or [V, S]
        per_point = [summarize(v) for v in values.reshape(-1, values.shape[-1])]
        shape = lambda items: items if program.points else items[0]
        statistics = {k: shape([p[k] for p in per_point]) for k in per_point[0]}
        final[name] = {"per_seed": values.tolist()} | statistics
    return {
        "metrics": final,
        "sweep": program.points,
        "update": rows[-1]["update"],
        "env_steps": rows[-1]["env_steps"],
        "agent_steps": rows[-1]["agent_steps"],
        "wall_s": rows[-1]["wall_s"],
        "device": jax.devices()[0].device_kind,
        **speed,
    }


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
