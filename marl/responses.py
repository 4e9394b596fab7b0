"""How likely trained policies are to take an action in given situations, such as after each pair of moves.

A node `after` of a figure calls `action_probability`, see `marl.experiment`. Axes: O observations, E samples
each, A seats, S seeds, V swept values.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.build import learning_member, load_run
from marl.figures import for_figures
from marl.program import Program
from marl.secrets import read_run_config
from marl.statistics import of_points, summarize
from marl.validation import ConfigError


@for_figures
def action_probability(
    *,
    folders: dict[str, Path],
    observations: dict[str, list[float]],
    action: int,
    num_samples: int,
    seed: int,
) -> dict[str, dict]:
    """How often each run's policies choose `action` in each of some observations.

    The action is sampled as in training, but without the random actions of a field `epsilon`; a policy
    with memory sees the observation at the start of an episode. A seed's value is the mean over its
    learning seats.

    Args:
        folders: {run: its folder}.
        observations: {name: obs["vector"] [F] of every seat}.
        action: number of the action, of a Discrete space.
        num_samples: E, of each seat in each observation.
        seed: of the sampling; seed i of a run draws from fold_in(key(seed), i).

    Returns:
        {"RUN_responses": summary} with a metric for each observation; swept as the run.

    Raises:
        ConfigError: if the game does not show such a vector.
    """
    numbers = {"action": action, "num_samples": num_samples, "seed": seed}
    return {f"{run}_responses": _summary(folder, observations, **numbers) for run, folder in folders.items()}


def _summary(
    folder: Path, observations: dict[str, list[float]], *, action: int, num_samples: int, seed: int
) -> dict[str, Any]:
    began = time.perf_counter()
    plugins = read_run_config(folder / "config.yaml").plugins  # the user's own: these runs are
    setup, learners = load_run(folder, plugins)
    program = Program(setup)
    seen = jax.eval_shape(setup.env.reset, jax.random.key(0))[1].obs
    shown = seen["vector"].shape[-1] if set(seen) == {"vector"} else None
    vectors = list(observations.values())
    if any(len(vector) != shown for vector in vectors):
        raise ConfigError([f"figure.after: observations must be the game's vector, of {shown} numbers"])
    wanted = jnp.asarray(vectors, jnp.float32)

    def one(algo: Any, env: Any, key: Array, learner: Any) -> Array:
        """[O] for one seed."""
        ts = jax.vmap(env.reset)(jax.random.split(key, num_samples))[1]
        algo, learner = learning_member(algo, learner)
        algo = algo.replace(epsilon=0.0) if hasattr(algo, "epsilon") else algo
        ts = ts.take(range(len(algo.seats)), axis=1)

        def chosen(vector: Array, key: Array) -> Array:
            shown = ts.replace(obs={"vector": jnp.broadcast_to(vector, ts.obs["vector"].shape)})
            moves = algo.act(env, learner, algo.initial_carry(env, shown), shown, key)[0]
            return (moves == action).mean()

        return jax.vmap(chosen)(wanted, jax.random.split(key, len(vectors)))

    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(setup.cfg.num_seeds))
    found = jax.jit(program.over(one, 2))(program.algo, program.env, keys, learners)  # [(V,) S, O]
    values = np.moveaxis(np.asarray(found, np.float64), -1, 0)
    metrics = {name: _statistics(x) for name, x in zip(observations, values, strict=True)}
    return {
        "metrics": metrics,
        "sweep": program.points,
        "lost": [],
        "wall_s": time.perf_counter() - began,
    }


def _statistics(values: np.ndarray) -> dict[str, Any]:
    """Of [S] values, or of [V, S]: then lists over V."""
    return of_points(values) if values.ndim > 1 else {"per_seed": values.tolist()} | summarize(values)
