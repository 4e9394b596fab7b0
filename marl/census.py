"""How a population of two kinds settles while it learns: a census every so many steps of training.

**Source**: the measures of Sert, Bar-Yam and Morales 2020 (Sci Rep 10, 11771) as far as they are known; their
segregation index could not be read, those of `marl.segregation` stand for it. Deviation: means are over
censuses, not over all steps. Axes: S seeds, N censuses, I blocks of them, A seats, H x W cells, G = 10 groups
of age, a tenth of the longest usual life each.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl import segregation
from marl.build import Setup
from marl.environment import Environment
from marl.figures import for_figures
from marl.learner import start, train
from marl.sharding import num_devices, over_devices
from marl.statistics import swept_summary
from marl.validation import ConfigError

SIZES = ("num_censuses", "every", "blocks", "devices")


@for_figures
def settle(
    *, setup: Setup, every: int, per_block: int, blocks: list[int], young: float, old: float, num_shares: int
) -> dict[str, Any]:
    """Train from scratch; a run's summary whose swept value is "step", the end of a block of censuses.

    Metrics of a block, mean over its censuses: `same_fraction`, the share of the own kind among the eight
    cells around, and `same_window`, in the window that is seen; `morans_i`; `theil`, mean over sizes of
    blocks; `alive`, share of the seats; `killed`, `stayed`, `occluded`, `died_of_age`, shares of the
    decisions; `reward` a step; `old_window` and `old_stays`, what old seats see of their own kind, and how
    often they stay, each less what young ones do, and nan without either.

    Besides them: `maps` of the first seed, {"kind": [I, H, W], "age": [I, H, W]}, see `_maps`; of the last
    block of all seeds `shares` [G, num_shares], how often a seat of each age saw which share of its own
    kind, and `actions` [G, N], what it did, each over the sum of the row; `ages` [G].

    Args:
        setup: a game with a `census` and a `max_age`, the algorithm, and `num_seeds`, `seed` and
            `total_steps` of its configuration, the steps of one world.
        every: steps between two censuses; per_block: censuses of a block.
        blocks: sides of the blocks of `theil`, cells.
        young: share of the longest usual life below which a seat is young; old: from which it is old.
        num_shares: bins.

    Raises:
        ConfigError: for a game without a census, steps that hold no block, or a world that ends before them.
    """
    began, env, algo, cfg = time.perf_counter(), setup.env, setup.algo, setup.cfg
    per_update = every // algo.num_steps
    num_blocks = cfg.total_steps // (every * per_block)
    if not hasattr(env, "census"):
        raise ConfigError([f"env: {type(env).__name__} has no census"])
    if per_update * algo.num_steps != every or num_blocks < 1:
        limit = "must be a multiple of algo.num_steps, and a block within total_steps"
        raise ConfigError([f"figure.measure.every={every}: {limit}"])
    if (env.fixed_horizon or 0) <= cfg.total_steps:
        limit = f"must exceed total_steps={cfg.total_steps}, after which a new world begins"
        raise ConfigError([f"env.horizon={env.fixed_horizon}: {limit}"])
    keys = jax.vmap(jax.random.key)(jnp.arange(cfg.seed, cfg.seed + cfg.num_seeds))
    sizes = {"num_censuses": num_blocks * per_block, "every": per_update, "blocks": tuple(blocks)}
    sizes["devices"] = num_devices(cfg)
    found, indices = jax.device_get(_histories(env, algo, keys, **sizes))
    block = lambda x: x.reshape(x.shape[0], num_blocks, per_block, *x.shape[2:])  # [S, I, .., ...]
    found, indices = jax.tree.map(block, (found, indices))
    metrics = {name: x.mean(2, dtype=np.float64).T for name, x in indices.items()}  # [I, S]
    groups = float(env.max_age) * np.array([young, old])
    metrics |= _by_age(found, *groups)
    shown = {k: x[:, -1] for k, x in found.items()}
    steps = every * per_block * np.arange(1, num_blocks + 1)
    more = _tables(shown, float(env.max_age), num_shares, int(env.action_space.n)) | {"maps": _maps(found)}
    return swept_summary(metrics, "step", steps, began, **jax.tree.map(np.ndarray.tolist, more))


@functools.partial(jax.jit, static_argnames=SIZES)
def _histories(
    env: Environment,
    algo: Any,
    keys: Array,
    *,
    num_censuses: int,
    every: int,
    blocks: tuple[int, ...],
    devices: int,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Facts [S, N, ...] and indices [S, N] of all censuses.

    Runs that differ in numbers only are compiled once.
    """

    def census(env: Environment, algo: Any, key: Array, runner: Any, first: Array) -> tuple[Any, tuple]:
        runner, (tally, _) = train(algo, env, runner, key, first + jnp.arange(every, dtype=jnp.int32))
        facts = env.census(jax.tree.map(lambda x: x[0], runner.state))
        return runner, (facts, _indices(facts, tally, blocks))

    def history(env: Environment, algo: Any, key: Array) -> tuple[dict, dict]:
        start_key, key = jax.random.split(key)
        firsts = every * jnp.arange(num_censuses, dtype=jnp.int32)
        runner = start(algo, env, start_key, 1)
        return jax.lax.scan(functools.partial(census, env, algo, key), runner, firsts)[1]

    def many(env: Environment, algo: Any, keys: Array) -> tuple[dict, dict]:
        # on a CPU seeds side by side gain nothing, and products with one axis more lose
        over = jax.lax.map if jax.default_backend() == "cpu" else lambda f, keys: jax.vmap(f)(keys)
        return over(functools.partial(history, env, algo), keys)

    return over_devices(many, devices, (None, None, 0))(env, algo, keys)


def _indices(facts: dict[str, Array], tally: Any, blocks: tuple[int, ...]) -> dict[str, Array]:
    """[] each, of one census and the steps before it."""
    grid, both = facts["grid"], facts["same"] + facts["other"]
    seen = (both > 0) & (facts["age"] >= 0)
    share = jnp.where(seen, facts["same"] / jnp.maximum(both, 1), 0.0)
    total = {name: x.sum() for name, x in tally.events.items()}
    rate = lambda name: total[name] / jnp.maximum(total["alive"], 1.0)
    return {
        "same_fraction": segregation.same_fraction(grid, radius=1, torus=True)[0],
        "same_window": share.sum() / jnp.maximum(seen.sum(), 1),
        "morans_i": segregation.morans_i(grid, torus=True),
        "theil": segregation.multiscale_theil(grid, blocks),
        "alive": (facts["age"] >= 0).mean(),
        "reward": tally.reward.sum() / (tally.steps.sum() * len(both)),
    } | {name: rate(name) for name in ("killed", "stayed", "occluded", "died_of_age")}


def _by_age(found: dict[str, np.ndarray], young: float, old: float) -> dict[str, np.ndarray]:
    """[I, S] each, what old seats do less what young ones do; nan where there are none of a group."""
    both = found["same"] + found["other"]
    share = found["same"] / np.maximum(both, 1)

    def gap(value: np.ndarray, counts: np.ndarray) -> np.ndarray:
        means = []
        for group in (found["age"] >= old, (found["age"] >= 1) & (found["age"] < young)):
            group = group & counts
            num = group.sum((2, 3))
            means.append(np.where(num > 0, (value * group).sum((2, 3)) / np.maximum(num, 1), np.nan))
        return (means[0] - means[1]).T

    return {"old_window": gap(share, both > 0), "old_stays": gap(found["stayed"], found["age"] >= 0)}


def _maps(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """[I, H, W] each, of the first seed: mean kind (1, -1; 0 empty) and mean age of who was there."""
    grid, ages = found["grid"][0], found["ages"][0].astype(np.float64)  # [I, .., H, W]
    there = (ages >= 0).sum(1)
    age = np.where(ages >= 0, ages, 0).sum(1) / np.maximum(there, 1)
    kind = (grid == 1).mean(1) - (grid == 2).mean(1)
    return {"kind": kind, "age": np.where(there > 0, age, np.nan)}


def _tables(
    shown: dict[str, np.ndarray], max_age: float, num_shares: int, num_actions: int
) -> dict[str, np.ndarray]:
    """What `settle` says of the last block; `shown` leaves [S, .., A]."""
    edges = np.linspace(0, max_age, 11)
    group = np.clip(np.digitize(shown["age"], edges) - 1, -1, 9)
    both = shown["same"] + shown["other"]
    share = np.minimum((shown["same"] / np.maximum(both, 1) * num_shares).astype(int), num_shares - 1)

    def table(column: np.ndarray, num: int, counts: np.ndarray) -> np.ndarray:
        place = (group * num + column)[(group >= 0) & counts]
        count = np.bincount(place, minlength=10 * num).reshape(10, num).astype(float)
        return count / np.maximum(count.sum(1, keepdims=True), 1)

    return {
        "shares": table(share, num_shares, both > 0),
        "actions": table(shown["action"].astype(int), num_actions, shown["age"] > 0),
        "ages": (edges[1:] + edges[:-1]) / 2,
    }
