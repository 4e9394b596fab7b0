"""What figures measure of Schelling's model: what its thresholds lead to, and how fast it is.

Axes: S seeds, V swept values, A seats.
"""

from __future__ import annotations

import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from envs.schelling_classic import SEEK, SchellingClassic
from envs.schelling_plain import PlainSchelling
from marl import segregation
from marl.build import Setup
from marl.environment import bare_game
from marl.figures import for_figures
from marl.sharding import num_devices, spread
from marl.statistics import swept_summary
from marl.validation import ConfigError


@for_figures
def thresholds(
    *,
    setup: Setup,
    values: list[float],
    block: int,
    num_shuffles: int,
    reference: dict[float, list[float]],
) -> dict[str, Any]:
    """Where games end in which everybody seeks, as a run's summary whose swept value is "threshold".

    Metrics: `same_fraction` (radius of the game) at the end, `excess` over what it is when types are
    shuffled, `dissimilarity` on blocks, `morans_i`, `cluster_size` (residents), `content` (share), `steps`,
    at the beginning `start_same_fraction` and `start_content`; and `gap`, the final same-type fraction less
    the reference, in its standard deviations. The summary has `boards` too: for each value the last
    board of the first seed, lists of 0, 1 and 2.

    Args:
        setup: the game, and `num_seeds` and `seed` of its configuration.
        values: thresholds.
        block: cells, side of the blocks.
        num_shuffles: of the null.
        reference: {threshold: [same-type fraction, its standard deviation over runs]}, for all values.

    Raises:
        ConfigError: for another game, or a threshold without a reference.
    """
    began, game, cfg = time.perf_counter(), _game(setup), setup.cfg
    missing = [value for value in values if value not in reference]
    if missing:
        raise ConfigError([f"figure.measure.reference: says nothing of the threshold {missing[0]}"])
    keys = jax.vmap(jax.random.key)(jnp.arange(cfg.seed, cfg.seed + cfg.num_seeds))
    one = lambda value, key: _outcome(game.replace(threshold=value), key, block, num_shuffles)
    over_seeds = jax.vmap(one, in_axes=(None, 0))
    found, grids = jax.jit(jax.vmap(over_seeds, in_axes=(0, None)))(jnp.array(values, jnp.float32), keys)
    metrics = {name: np.asarray(x, np.float64) for name, x in found.items()}  # [V, S]
    mean, deviation = np.array([reference[value] for value in values]).T[..., None]
    metrics["gap"] = (metrics["same_fraction"] - mean) / deviation
    boards = np.asarray(grids[:, 0]).tolist()
    return swept_summary(metrics, "threshold", values, began, boards=boards)


def _outcome(game: SchellingClassic, key: Array, block: int, num_shuffles: int) -> tuple[dict, Array]:
    """Metrics [] of one game that is played to its end, and its last board [H, W]."""
    start_key, null_key, key = jax.random.split(key, 3)
    start, _ = game.reset(start_key)
    seek = jnp.full(game.num_agents, SEEK, jnp.int32)
    step = lambda state: game.step(jax.random.fold_in(key, state.time), state, seek)[0]
    going = lambda state: ~state.content.all() & (state.time < game.horizon)
    state = jax.lax.while_loop(going, step, start)
    grid = game.grid(state.site)
    same = lambda grid: segregation.same_fraction(grid, game.radius, game.torus)[0]
    null = segregation.against_null(null_key, grid, same, num_shuffles)
    return {
        "same_fraction": null["value"],
        "excess": null["excess"],
        "dissimilarity": segregation.dissimilarity(grid, block),
        "morans_i": segregation.morans_i(grid, game.torus),
        "cluster_size": segregation.clusters(grid, game.torus)[1],
        "content": state.content.mean(),
        "steps": state.time,
        "start_same_fraction": same(game.grid(start.site)),
        "start_content": start.content.mean(),
    }, grid


@for_figures
def speed(
    *,
    setup: Setup,
    sizes: list[int],
    density: float,
    num_steps: int,
    repeats: int,
    least_agent_steps: int,
    plain_size: int,
    base_size: int,
) -> dict[str, Any]:
    """Time steps of one board from a random start, all seeking; a summary whose swept value is "residents".

    Metrics, a value a repetition: `agent_steps_per_s` (residents x steps / s), `ns_per_agent_step`, `cost`,
    that relative to its median at `base_size`, and `plain_ratio`, how many times faster it is than
    `PlainSchelling` with `plain_size` residents, timed in this process. Compilation is not counted. With
    `num_devices` every board is shared out over so many devices.

    Args:
        setup: the game whose rules are taken; its residents and board are replaced.
        sizes: residents, half of each type.
        density: share of the cells that is occupied; boards are squares.
        num_steps: from a random start, in one compiled loop.
        repeats: of each, the plain model included.
        least_agent_steps: of a repetition; small boards start anew until they have made so many.
        plain_size: residents of the plain model.
        base_size: one of `sizes`.

    Raises:
        ConfigError: for another game, or a base that is not among the sizes.
    """
    began, game = time.perf_counter(), _game(setup)
    if base_size not in sizes:
        raise ConfigError([f"figure.measure.base_size={base_size}: must be one of {sizes}"])
    plain = _plain_ns(game.threshold, plain_size, density, num_steps, repeats)
    devices = num_devices(setup.cfg, share_world=True)
    sized = lambda size: _sized(game, size, density, devices)
    timed = lambda size: _fast_ns(sized(size), num_steps, repeats, least_agent_steps, devices)
    cost = np.array([timed(size) for size in sizes])  # [V, R]
    metrics = {
        "agent_steps_per_s": 1e9 / cost,
        "ns_per_agent_step": cost,
        "cost": cost / np.median(cost[sizes.index(base_size)]),
        "plain_ratio": plain / cost,
        "plain_ns_per_agent_step": np.full_like(cost, plain),
    }
    device = jax.devices()[0].device_kind
    return swept_summary(metrics, "residents", sizes, began, device=device, num_devices=devices)


def _sized(game: SchellingClassic, size: int, density: float, devices: int) -> SchellingClassic:
    """The board is a square whose rows the devices can share."""
    side = devices * math.ceil(math.sqrt(size / density) / devices)
    return game.replace(rows=side, columns=side, num_residents=(size - size // 2, size // 2))


@functools.partial(jax.jit, static_argnames="num_steps")
def seek(game: SchellingClassic, sites: Array, keys: Array, num_steps: int) -> Array:
    """[B, C] the boards B after `num_steps` in which everybody seeks, one board after another; keys [B]."""
    seeks = jnp.ones(game.num_agents, bool)
    step = lambda site, key: (game.moved(key, site, game.judged(site)[2], seeks), None)
    run = lambda x: jax.lax.scan(step, x[0], jax.random.split(x[1], num_steps))[0]
    return jax.lax.map(run, (sites, keys))


def _fast_ns(game: SchellingClassic, num_steps: int, repeats: int, least: int, devices: int) -> list[float]:
    """Nanoseconds an agent and step, of each repetition; small boards start anew until `least` are made."""
    num_starts = max(1, least // (num_steps * game.num_agents))
    place = jax.jit(jax.vmap(lambda key: jax.random.permutation(key, game.rows * game.columns)))
    seconds = []
    for seed in range(repeats + 1):
        starts, keys = (jax.random.split(key, num_starts) for key in jax.random.split(jax.random.key(seed)))
        sites = spread(place(starts).astype(jnp.int32), devices)
        arguments = jax.block_until_ready((game, sites, keys, num_steps))
        began = time.perf_counter()
        jax.block_until_ready(seek(*arguments))
        seconds.append(time.perf_counter() - began)
    return [1e9 * s / (num_starts * num_steps * game.num_agents) for s in seconds[1:]]


def _plain_ns(threshold: float, size: int, density: float, num_steps: int, repeats: int) -> float:
    """Nanoseconds an agent and step of the plain model, median over starts."""
    side, seconds = math.ceil(math.sqrt(size / density)), []
    for seed in range(repeats):
        model = PlainSchelling(seed, float(threshold), side, side, (size - size // 2, size // 2))
        began = time.perf_counter()
        for _ in range(num_steps):
            model.step()
        seconds.append(time.perf_counter() - began)
    return 1e9 * float(np.median(seconds)) / (num_steps * size)


def _game(setup: Setup) -> SchellingClassic:
    game = bare_game(setup.env)
    if not isinstance(game, SchellingClassic):
        raise ConfigError([f"env: {type(game).__name__} is not Schelling's model; choose schelling_classic"])
    return game
