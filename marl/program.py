"""All seeds, and all swept values, of one run as one compiled function.

`seeds` are vmapped inside, swept leaves outside: results have axes [S] or, with a sweep, [V, S]. With
num_devices each device has its share of the seeds. Only fields that are numbers (pytree leaves) can be
swept; what fixes a shape is swept by separate runs (`-m`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import OmegaConf

from marl.device import require_memory
from marl.guard import SkipNonFinite, all_finite, chunk_is_finite, skips_allowed
from marl.learner import start, train
from marl.metrics import report
from marl.past_policies import PastPlay
from marl.sharding import num_devices, over_devices
from marl.validation import ConfigError, flatten, sweep_points


class Program:
    """What a run computes.

    Fields: env, algo, the objects with swept leaves stacked [V]; points, the swept values in
    order, one dict a point, empty without a sweep; num_updates, updates of the whole run;
    chunk_updates, updates of one call; env_steps_per_update, over all games of a seed; backend, the
    library that learns.
    """

    backend = "jax"

    def __init__(self, setup: Any):
        """Lay out the run of a `marl.build.Setup`; nothing is compiled yet.

        Raises:
            ConfigError: if a swept key is not a number-only field, or there are too few devices.
        """
        cfg = setup.cfg
        sweep = flatten(OmegaConf.to_container(cfg.sweep))
        self.points = sweep_points(OmegaConf.to_container(cfg.sweep))
        objects = {"env": setup.env, "algo": setup.algo}
        axes = jax.tree.map(lambda _: None, objects)
        for key in sweep:
            values = np.asarray([point[key] for point in self.points], np.float32)
            path = _locate(key, cfg)
            objects, axes = _replace(objects, path, values, key), _replace(axes, path, 0, key)
        self.env, self.algo = objects["env"], objects["algo"]
        self._axes = (axes["algo"], axes["env"])
        self._setup = setup
        self.env_steps_per_update = cfg.num_envs * setup.algo.num_steps
        total = math.ceil(cfg.total_steps / self.env_steps_per_update)
        chunks = math.ceil(total / cfg.log_every)
        self.chunk_updates = math.ceil(total / chunks)
        self.num_updates = chunks * self.chunk_updates
        seeds = jnp.arange(cfg.seed, cfg.seed + cfg.num_seeds)
        self._keys = jax.vmap(lambda s: jax.random.split(jax.random.key(s)))(seeds)  # [S, 2]
        self._num_devices = num_devices(cfg)
        self._skips = skips_allowed(cfg.get("nan_policy", "stop")) is not None
        self._compiled: Any = None

    def start(self) -> Any:
        """Runners before the first update, leaves [S, ...] or [V, S, ...]."""
        num_envs = self._setup.cfg.num_envs
        one = lambda algo, env, key: start(algo, env, key, num_envs)
        begin, arguments = jax.jit(self.over(one, 1)), (self.algo, self.env, self._keys[:, 0])
        require_memory(
            sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(begin, *arguments)))
        )
        return begin(*arguments)

    def compile(self, runners: Any) -> float:
        """Compile one chunk; returns the seconds that took.

        Raises:
            MemoryNeededError: if it needs more than the device has.
        """
        began = time.perf_counter()

        def chunk(algo: Any, env: Any, runner: Any, key: Any, updates: Any) -> tuple[Any, dict]:
            if not self._skips:
                runner, seen = train(algo, env, runner, key, updates)
                finite = chunk_is_finite(algo.for_acting(runner.learner), runner.ts.obs, *seen)
                return runner, report(*seen) | {"finite": finite.astype(jnp.float32)}
            runner, (tally, losses) = train(SkipNonFinite(algo), env, runner, key, updates)
            skipped = losses.pop("skipped").sum()
            finite = all_finite(algo.for_acting(runner.learner)).astype(jnp.float32)
            return runner, report(tally, losses) | {"finite": finite, "skipped": skipped}

        def all_seeds(algo: Any, env: Any, runners: Any, keys: Any, updates: Any) -> tuple[Any, dict]:
            one = lambda algo, env, key, runner: chunk(algo, env, runner, key, updates)
            return self.over(one, 2)(algo, env, keys, runners)

        arguments = (self.algo, self.env, runners, self._keys[:, 1], self._updates(0))
        self._compiled = jax.jit(all_seeds, donate_argnums=2).lower(*arguments).compile()
        memory = self._compiled.memory_analysis()
        if memory is not None:
            require_memory(
                memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
            )
        return time.perf_counter() - began

    def run_chunk(self, runners: Any, first: int) -> tuple[Any, dict[str, np.ndarray]]:
        """Updates `first` .. `first + chunk_updates - 1`; consumes `runners`.

        Returns:
            the runners after them and metrics, each [S] or [V, S] float32.
        """
        runners, metrics = self._compiled(
            self.algo, self.env, runners, self._keys[:, 1], self._updates(first)
        )
        return runners, jax.tree.map(np.asarray, metrics)

    def _updates(self, first: int) -> jax.Array:
        return jnp.arange(first, first + self.chunk_updates, dtype=jnp.int32)

    def over(self, one: Any, num_mapped: int) -> Any:
        """Map one(algo, env, key, ...) over seeds, then over swept values; devices share the seeds.

        Of the arguments after `env` there are `num_mapped`: the keys [S], the others [S, ...] or [V, S, ...].
        """
        algo_axes, env_axes = self._axes
        later = (0,) * (num_mapped - 1)
        over_seeds = jax.vmap(one, in_axes=(None, None, 0, *later))
        if not self.points:
            return over_devices(over_seeds, self._num_devices, (None, None, 0, *later))
        over_points = jax.vmap(over_seeds, in_axes=(algo_axes, env_axes, None, *later))
        return over_devices(over_points, self._num_devices, (None, None, 0, *(1 for _ in later)), 1)


def _locate(key: str, cfg: Any) -> list[str]:
    """The attribute path in {"env", "algo"} of a config key."""
    root, *rest = key.split(".")
    names = list(cfg.mechanism or {})
    if root == "env":
        return ["env", *["env"] * len(names), *rest]
    if root == "mechanism" and rest and rest[0] in names:
        return ["env", *["env"] * (len(names) - 1 - names.index(rest[0])), *rest[1:]]
    if root == "algo":
        return ["algo", *rest]
    raise ConfigError([f"sweep.{key}: only keys of env, mechanism and algo can be swept; use -m"])


def _replace(tree: Any, path: list[str], value: Any, key: str) -> Any:
    """A copy of nested dicts and dataclasses with one leaf replaced."""
    if not path:
        return value
    name, *rest = path
    if isinstance(tree, dict):
        return tree | {name: _replace(tree[name], rest, value, key)}
    if hasattr(tree, "members"):  # a Mixture: the learning algorithm is its first member
        return tree.replace(members=(_replace(tree.members[0], path, value, key), *tree.members[1:]))
    if isinstance(tree, PastPlay):
        return tree.replace(algo=_replace(tree.algo, path, value, key))
    fields = {f.name: f for f in dataclasses.fields(tree)}
    if name not in fields or not fields[name].metadata.get("pytree_node", True):
        raise ConfigError([f"sweep.{key}: not a number-only field, it changes the program; use -m"])
    return tree.replace(**{name: _replace(getattr(tree, name), rest, value, key)})
