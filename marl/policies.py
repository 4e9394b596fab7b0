"""Policies of finished runs: load them, or let them play, frozen, in any seat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from omegaconf import OmegaConf

from marl import checkpoint
from marl.config import Setup, build
from marl.population import Frozen, Mixture


def load_run(run_dir: Path | str) -> tuple[Setup, Any]:
    """The setup of a run and its newest learners, leaves [S, P, ...] or [V, S, P, ...] if swept.

    Raises:
        FileNotFoundError: if the folder is no run or has no checkpoint.
        ConfigError: if its configuration may not be built here.
        CheckpointError: if its checkpoints are all damaged.
    """
    from marl.program import Program

    run_dir = Path(run_dir)
    if not (run_dir / "config.yaml").is_file():
        raise FileNotFoundError(f"{run_dir} is not a run folder: it has no config.yaml")
    setup = build(OmegaConf.load(run_dir / "config.yaml"))
    runners = jax.eval_shape(Program(setup).start)
    _, restored = checkpoint.restore(run_dir / "checkpoints", runners)
    return setup, restored.learner


def frozen_player(name: str, held: list[int]) -> Frozen:
    """A run's policy for the seats `held` of another game; `name` is RUN or RUN:SEED_INDEX.

    Each seat is played by the learner that held that seat in the run; the first seed is
    taken unless the name says otherwise.

    Raises:
        ValueError: if the run is a sweep, or has no such seed or seat.
    """
    folder, _, index = name.partition(":")
    setup, learner = load_run(folder)
    if OmegaConf.to_container(setup.cfg.sweep):
        raise ValueError(f"{folder} is a sweep; only a run of one setting can play")
    seed = int(index or 0)
    if not 0 <= seed < setup.cfg.num_seeds:
        raise ValueError(f"{name}: the run has seeds 0 to {setup.cfg.num_seeds - 1}")
    algo, learner = learning_member(setup.algo, learner)
    if max(held) >= len(algo.seats):
        raise ValueError(f"{folder} has {len(algo.seats)} learning seats; it cannot play seat {max(held)}")
    return hold(algo, jax.tree.map(lambda x: x[seed], learner), held)


def learning_member(algo: Any, learner: Any) -> tuple[Any, Any]:
    """The algorithm that learned, and its learner, out of a Mixture or alone."""
    return (algo.members[0], learner[0]) if isinstance(algo, Mixture) else (algo, learner)


def hold(algo: Any, learner: Any, held: list[int]) -> Frozen:
    """`algo`, with learner leaves [P, ...], frozen in seats that take the place of its seats `held`."""
    holders = [algo.seats[seat] for seat in held]
    chosen = sorted(set(holders))
    seats = tuple(chosen.index(holder) for holder in holders)
    return Frozen(algo.replace(seats=seats), jax.tree.map(lambda x: x[jax.numpy.array(chosen)], learner))
