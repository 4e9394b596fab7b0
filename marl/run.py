"""The host loop: chunks of training, one row of metrics each, checkpoints, resume, signals.

A run folder holds config.yaml, metrics.jsonl, summary.json and checkpoints/. A run that is cut
at a chunk and resumed equals an uninterrupted one bit for bit on the same machine.
"""

from __future__ import annotations

import dataclasses
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omegaconf import DictConfig, OmegaConf

from marl import checkpoint
from marl.build import build
from marl.device import use_compile_cache
from marl.guard import Health, write_crash
from marl.logger import WandbMirror, mirror_of
from marl.metrics_log import MetricsLog, plain
from marl.program import Program
from marl.run_folder import identity, locked, versions, write_config
from marl.signals import StopSignal, Watch
from marl.statistics import summarize
from marl.validation import ConfigError
from marl.warm_start import begin_from

OnChunk = Callable[[int, int, float], None]
SAVE_FAILED, DIVERGED = 1, 5  # exit codes


@dataclasses.dataclass
class Result:
    """How a run ended.

    exit_code: 0 finished, 75 or 130 stopped by a signal and resumable, 5 diverged, 1 not saved.
    """

    run_dir: Path
    exit_code: int
    summary: dict[str, Any] | None


def run(
    cfg: DictConfig,
    run_dir: Path,
    on_chunk: OnChunk = lambda done, total, rate: None,
    make_program: Callable[[Any], Program] = Program,
) -> Result:
    """Train what `cfg` describes, or go on with what `run_dir` holds of it.

    Args:
        cfg: composed configuration.
        run_dir: run folder; made if it does not exist.
        on_chunk: told (updates done, updates in all, environment steps/s) after each chunk.
        make_program: what computes a `marl.build.Setup`; another backend's is a subclass of Program.

    Raises:
        ConfigError: if the configuration cannot be built or differs from the folder's.
        RunLockedError: if another process holds the folder.
        checkpoint.CheckpointError: if the folder's checkpoints are all damaged.
    """
    setup = build(cfg)
    use_compile_cache()
    program = make_program(setup)
    if cfg.backend != program.backend:
        how = "only `scripts/train.py env=NAME` trains in it, no experiment, figure or league"
        raise ConfigError([f"backend={cfg.backend}: {how}"])
    with locked(run_dir) as renew, StopSignal() as stop:
        write_config(cfg, run_dir)
        runners, done = _resume(setup, program, run_dir)
        if done >= program.num_updates and (run_dir / "summary.json").exists():
            return Result(run_dir, 0, json.loads((run_dir / "summary.json").read_text()))
        log = MetricsLog(run_dir / "metrics.jsonl", done)
        leg = _Leg(cfg, setup, program, run_dir, log, on_chunk, renew)
        done = leg.advance(runners, done, stop)
        finished = done >= program.num_updates and not leg.failure
        summary = leg.summary() if finished else None
        log.close()
        stop.hand_over()
        return Result(run_dir, leg.failure or (0 if finished else stop.exit_code), summary)


@dataclasses.dataclass
class _Leg:
    """One process's leg of a run: from where it stands to its end, a signal or a failure."""

    cfg: DictConfig
    setup: Any
    program: Any
    run_dir: Path
    log: MetricsLog
    on_chunk: OnChunk
    renew: Callable[[], None]
    compile_s: float = 0.0
    env_steps_per_s: float | None = None
    failure: int = 0  # exit code: 1 the last checkpoint could not be saved, 5 diverged

    def advance(self, runners: Any, done: int, stop: StopSignal) -> int:
        """Run chunks until the end, a signal or divergence; returns the updates done."""
        program, cfg = self.program, self.cfg
        with Watch("compiling"):
            self.compile_s = program.compile(runners)
        mirror, health = _mirror(cfg, self.run_dir), Health(cfg.nan_policy, self.log.rows)
        wall_before = self.log.rows[-1]["wall_s"] if self.log.rows else 0.0
        began, first = time.perf_counter(), done
        parallel = cfg.num_seeds * max(len(program.points), 1) * program.env_steps_per_update
        while done < program.num_updates and stop.received is None and not self.failure:
            with Watch(f"the chunk from update {done}"):
                runners, found = program.run_chunk(runners, done)
            done += program.chunk_updates
            wall = time.perf_counter() - began
            before, metrics = health.lost, health.judge(found)
            for where in np.argwhere(health.lost & ~before).tolist():
                print(f"WARNING: diverged, from update {done} left out: {self._place(where)}")
            row = self._row(done, wall_before + wall, metrics)
            self.log.append(row)
            mirror.append(row)
            self.renew()
            self.env_steps_per_s = (done - first) * parallel / wall
            self.on_chunk(done, program.num_updates, self.env_steps_per_s)
            last = done >= program.num_updates or stop.received is not None
            if health.lost.all():
                self.failure = DIVERGED
                write_crash(self.run_dir, cfg, done - program.chunk_updates, done, found)
            elif last or (done // program.chunk_updates) % cfg.checkpoint_every == 0:
                self._save(done, runners, metrics, last)
        mirror.close()
        return done

    def _save(self, done: int, runners: Any, metrics: dict[str, Any], last: bool) -> None:
        """Write a checkpoint; one that fails is a warning, the last one a failure of the run."""
        score = float(np.nanmean(metrics["reward"]))
        folder = self.run_dir / "checkpoints"
        try:
            checkpoint.save(folder, done, runners, score=score, about=identity(self.cfg))
        except Exception as error:  # orbax raises many kinds
            reason = str(error).split("\n")[0][:200]
            warnings.warn(f"checkpoint {done} could not be saved ({reason}); older ones stay", stacklevel=2)
            self.failure = SAVE_FAILED if last else 0

    def _place(self, index: list[int]) -> str:
        """Name of a seed, and of its point of a sweep; `index` is [s] or [v, s]."""
        seed = f"seed {self.cfg.seed + index[-1]}"
        points = self.program.points
        return f"{seed} at {points[index[0]]}" if points else seed

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
        lost = np.asarray(last["metrics"]["finite"]) == 0
        facts = {
            "metrics": final_metrics(self.log.rows, self.cfg.summary_fraction),
            "sweep": self.program.points,
            "lost": [self._place(where) for where in np.argwhere(lost).tolist()],
            **{key: last[key] for key in ("update", "env_steps", "agent_steps", "wall_s")},
            "env_steps_per_s": self.env_steps_per_s,
            "compile_s": round(self.compile_s, 2),
            "device": jax.devices()[0].device_kind,
            **identity(self.cfg),
        }
        checkpoint.write_atomically(self.run_dir / "summary.json", json.dumps(facts, indent=1))
        return facts


def final_metrics(rows: list[dict], fraction: float) -> dict[str, dict[str, Any]]:
    """As `mean_metrics`, of the last `fraction` of the rows."""
    return mean_metrics(rows[-max(1, round(len(rows) * fraction)) :])


def mean_metrics(rows: list[dict]) -> dict[str, dict[str, Any]]:
    """Means over rows of metrics, per seed, with their statistics over seeds.

    Rows without a value (no episode ended in that chunk) do not count, nor do seeds that diverged.

    Returns:
        {name: {per_seed, mean, iqm, low, high, n}}; with a sweep each is a list over its points.
    """
    final, lost = {}, np.asarray(rows[-1]["metrics"].get("finite", 1.0)) == 0
    for name in rows[-1]["metrics"]:
        found = np.asarray([row["metrics"][name] for row in rows], np.float64)  # [rows, (V,) S]
        known = np.isfinite(found)
        values = np.where(known, found, 0.0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
        values = np.where(lost, np.nan, values)
        per_point = [summarize(v) for v in values.reshape(-1, values.shape[-1])]
        statistics = {k: [p[k] for p in per_point] for k in per_point[0]}
        if values.ndim == 1:
            statistics = per_point[0]
        final[name] = {"per_seed": plain(values)} | statistics
    return final


def _resume(setup: Any, program: Any, run_dir: Path) -> tuple[Any, int]:
    """Runners and updates done: from the newest valid checkpoint, or a fresh start, from a run or not."""
    runners = program.start()
    try:
        done, restored = checkpoint.restore(run_dir / "checkpoints", jax.eval_shape(lambda: runners))
    except FileNotFoundError:
        source = setup.cfg.get("start_from")
        return begin_from(source, setup, runners) if source else runners, 0
    print(f"resuming {run_dir} after update {done} of {program.num_updates}")
    return jax.device_put(restored), done


def _mirror(cfg: DictConfig, run_dir: Path) -> WandbMirror:
    logger = OmegaConf.to_container(cfg.logger, resolve=True)
    mirror = mirror_of(cfg, run_dir, logger, versions().get("git"))
    mirror.start()
    return mirror
