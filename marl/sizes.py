"""How fast one world of a game trains, at several sizes of it."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import OmegaConf

from marl.build import Setup, build
from marl.figures import for_figures
from marl.learner import start, train
from marl.sharding import num_devices, spread
from marl.statistics import swept_summary
from marl.validation import ConfigError


@for_figures
def training_speed(
    *, setup: Setup, sizes: list[dict[str, Any]], num_updates: int, repeats: int, base: int
) -> dict[str, Any]:
    """Time playing and learning; a summary whose swept value is "residents", the seats of the world.

    Metrics, a value a repetition: `agent_steps_per_s` (seats x steps / s), `ns_per_agent_step`, and `cost`,
    that relative to its median at size number `base`. Compilation and the first updates are not counted.
    With `num_devices` the world and the learner's replay are shared out over so many devices.

    Args:
        setup: the game, the algorithm and their configuration, of which `env` changes with the size.
        sizes: fields of the game that make a size, {field: value} each.
        num_updates: of a repetition, in one compiled loop.
        repeats: of each size.
        base: number of one of `sizes`.

    Raises:
        ConfigError: for a base that is none of them.
    """
    began, seats, found = time.perf_counter(), [], []
    if not 0 <= base < len(sizes):
        raise ConfigError([f"figure.measure.base={base}: must lie in 0 .. {len(sizes) - 1}"])
    devices = num_devices(setup.cfg, share_world=True)
    for fields in sizes:
        cfg = OmegaConf.merge(setup.cfg, {"env": fields})
        seats.append(int((sized := build(cfg)).env.num_agents))
        per_update = cfg.num_envs * sized.algo.num_steps * seats[-1]
        seconds = _seconds(sized, num_updates, repeats, devices)
        found.append([1e9 * s / (num_updates * per_update) for s in seconds])
    cost = np.array(found)  # [V, R]
    metrics = {"agent_steps_per_s": 1e9 / cost, "ns_per_agent_step": cost}
    metrics["cost"] = cost / np.median(cost[base])
    device = jax.devices()[0].device_kind
    return swept_summary(metrics, "residents", seats, began, device=device, num_devices=devices)


def _seconds(setup: Setup, num_updates: int, repeats: int, devices: int) -> list[float]:
    """Of each repetition."""
    env, algo, cfg = setup.env, setup.algo, setup.cfg

    def play(algo: Any, env: Any, runner: Any, key: Any, first: Any) -> tuple[Any, Any]:
        runner, (tally, _) = train(algo, env, runner, key, first + jnp.arange(num_updates, dtype=jnp.int32))
        return runner, tally.reward.sum()

    step, key, seconds = jax.jit(play, donate_argnums=2), jax.random.key(cfg.seed), []
    runner = jax.jit(lambda algo, env, key: start(algo, env, key, cfg.num_envs))(algo, env, key)
    runner = spread(runner, devices)
    for i in range(repeats + 1):
        began = time.perf_counter()
        runner, _ = jax.block_until_ready(step(algo, env, runner, key, jnp.int32(i * num_updates)))
        seconds.append(time.perf_counter() - began)
    return seconds[1:]
