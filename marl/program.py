"""All seeds, and all swept values, of one run as one compiled function.

`seeds` are vmapped inside, swept leaves outside: results have axes [S] or, with a sweep,
[V, S]. Only fields that are numbers (pytree leaves) can be swept; what fixes a shape is
swept by separate runs (`-m`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import itertools
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import OmegaConf

from marl.learner import start, train
from marl.metrics import report
from marl.validation import ConfigError, flatten


class Program:
    """What a run computes.

    Fields: env, algo, the objects with swept leaves stacked [V]; points, the swept values in
    order, one dict a point, empty without a sweep; num_updates, updates of the whole run;
    chunk_updates, updates of one call; env_steps_per_update, over all games of a seed.
    """

    def __init__(self, setup: Any):
        """Lay out the run of a `marl.build.Setup`; nothing is compiled yet.

        Raises:
            ConfigError: if a swept key is not a number-only field.
        """
        cfg = setup.cfg
        sweep = flatten(OmegaConf.to_container(cfg.sweep))
        self.points = [dict(zip(sweep, p, strict=True)) for p in itertools.product(*sweep.values())]
        self.points = self.points if sweep else []
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
        self._compiled: Any = None

    def start(self) -> Any:
        """Runners before the first update, leaves [S, ...] or [V, S, ...]."""
        num_envs = self._setup.cfg.num_envs
        one = lambda algo, env, key: start(algo, env, key, num_envs)
        return jax.jit(self._over(one, 1))(self.algo, self.env, self._keys[:, 0])

    def compile(self, runners: Any) -> float:
        """Compile one chunk; returns the seconds that took."""
        began = time.perf_counter()

        def chunk(algo: Any, env: Any, runner: Any, key: Any, updates: Any) -> tuple[Any, dict]:
            runner, seen = train(algo, env, runner, key, updates)
            return runner, report(*seen)

        def all_seeds(algo: Any, env: Any, runners: Any, keys: Any, updates: Any) -> tuple[Any, dict]:
            one = lambda algo, env, key, runner: chunk(algo, env, runner, key, updates)
            return self._over(one, 2)(algo, env, keys, runners)

        arguments = (self.algo, self.env, runners, self._keys[:, 1], self._updates(0))
        self._compiled = jax.jit(all_seeds, donate_argnums=2).lower(*arguments).compile()
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

    def _over(self, one: Any, num_mapped: int) -> Any:
        """Map one(algo, env, key, ...) over seeds, then over swept values."""
        algo_axes, env_axes = self._axes
        later = (0,) * (num_mapped - 1)
        over_seeds = jax.vmap(one, in_axes=(None, None, 0, *later))
        if not self.points:
            return over_seeds
        return jax.vmap(over_seeds, in_axes=(algo_axes, env_axes, None, *later))


def use_compile_cache() -> None:
    """Keep compiled programs between runs in a folder that only the user can write.

    The folder must be trusted (what it holds is executed); JAX_COMPILATION_CACHE_DIR overrides it.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    kind = f"jax-{jax.__version__}-{jax.default_backend()}-{_host_kind()}"
    folder = Path.home() / ".cache" / "marl" / kind
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if importlib.util.find_spec("filelock"):  # which jax needs to bound the folder's size
        jax.config.update("jax_compilation_cache_max_size", 2 << 30)


def _host_kind() -> str:
    """Eight hex digits for the kind of processor: compiled programs do not fit another."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else [platform.processor()]
    told = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return hashlib.sha256(told.encode()).hexdigest()[:8]


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
    fields = {f.name: f for f in dataclasses.fields(tree)}
    if name not in fields or not fields[name].metadata.get("pytree_node", True):
        raise ConfigError([f"sweep.{key}: not a number-only field, it changes the program; use -m"])
    return tree.replace(**{name: _replace(getattr(tree, name), rest, value, key)})
