"""In-weights cultural accumulation: generations of learners, each beside the one before it, frozen.

**Source**: algorithm 3 of Cook, Lu, Hughes, Leibo and Foerster 2024 (arXiv 2406.00392). A generation is a
population of learners with games of their own. The predecessors are seen with a probability that falls
linearly from 1 at the start of a generation to 0 at its end; those of the first generation are untrained.
A game for this has `visible_prob`, `draw_instance` and what `marl.predecessors` asks for.
Axes: S seeds, G generations, N members, M demonstrators, U updates of a generation, B points of a generation.
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

from marl.build import Setup
from marl.learner import start, train
from marl.metrics import report
from marl.predecessors import Predecessors
from marl.statistics import swept_summary
from marl.validation import ConfigError

SEEN = ("all", "best", "none")
STATIC = ("num_envs", "num_generations", "num_members", "num_points", "point_updates", "seen", "renewed")


def in_weights(
    *,
    setup: Setup,
    num_generations: int,
    num_members: int,
    num_fresh: int,
    renewed: list[str],
    seen: str,
    flag: float,
    num_points: int,
) -> dict[str, Any]:
    """Train generations; a run's summary whose swept value is "step", environment steps so far.

    Each seed has an instance of its own, the same for all its generations, unless the game names one.
    Metrics: `return` of the episodes, mean over members and over the updates of a point; `score` of a trial
    likewise, where negative rewards count 0; `best_return`, of the member with the highest one.

    Args:
        setup: the game and the algorithm; `total_steps` of its configuration are those of one generation, of
            each member.
        num_generations: G; one, with more steps, is a single lifetime.
        num_members: N.
        num_fresh: generations that begin with fresh learners; later ones continue the members before them.
        renewed: names of the layers that begin anew even then.
        seen: all, the members of the generation before fill the slots; best, the one with the highest return
            in its last update fills all slots; none.
        flag: what predecessors are told where learners are told whether they see anybody.
        num_points: B, points of the curve of each generation.

    Raises:
        ConfigError: if the game has no slots, or numbers do not fit.
    """
    began, cfg = time.perf_counter(), setup.cfg
    _check(setup, num_generations, num_members, num_fresh, num_points, seen)
    keys = jax.vmap(jax.random.key)(jnp.arange(cfg.seed, cfg.seed + cfg.num_seeds))
    per_point = cfg.num_envs * setup.algo.num_steps * num_points
    point_updates = math.ceil(cfg.total_steps / per_point)
    sizes = {"num_envs": cfg.num_envs, "num_generations": num_generations, "num_members": num_members}
    sizes |= {"num_points": num_points, "point_updates": point_updates}
    told = {"seen": seen, "renewed": tuple(renewed)}
    found = _lineages(setup.env, setup.algo, keys, jnp.int32(num_fresh), jnp.float32(flag), **sizes, **told)
    found = {k: np.asarray(v, np.float64).reshape(cfg.num_seeds, -1).T for k, v in found.items()}  # [G B, S]
    steps = cfg.num_envs * setup.algo.num_steps * point_updates
    return swept_summary(found, "step", steps * np.arange(1, num_generations * num_points + 1), began)


@functools.partial(jax.jit, static_argnames=STATIC)
def _lineages(
    env: Any,
    algo: Any,
    keys: Array,
    num_fresh: Array,
    flag: Array,
    *,
    num_envs: int,
    num_generations: int,
    num_members: int,
    num_points: int,
    point_updates: int,
    seen: str,
    renewed: tuple[str, ...],
) -> dict[str, Array]:
    """Metrics, each [S, G, B]."""
    rule = algo if seen == "none" else Predecessors(algo=algo, flag=flag)
    num_updates = num_points * point_updates

    def born(env: Any, keys: Array, before: Any, number: Array) -> Any:
        """Runners [N, ...] of a generation; `before`: current learners and returns [N]."""
        runners = jax.vmap(lambda key: start(rule, env, key, num_envs))(keys)
        learners, return_ = before
        fresh = runners.learner if seen == "none" else runners.learner.current
        keep = _kept(learners, fresh, renewed)
        current = jax.tree.map(lambda new, old: jnp.where(number < num_fresh, new, old), fresh, keep)
        if seen == "none":
            return runners.replace(learner=current)
        past = _shown(algo.for_acting(learners), return_, env.demonstrators, seen)
        return runners.replace(learner=runners.learner.replace(current=current, past=past))

    def generation(env: Any, before: Any, now: tuple[Array, Array]) -> tuple[Any, dict[str, Array]]:
        number, key = now
        birth_keys, keys = jax.random.split(key, (2, num_members))
        runners = born(env, birth_keys, before, number)

        def update(runners: Any, i: Array) -> tuple[Any, dict[str, Array]]:
            prob = 0.0 if seen == "none" else 1 - i / max(num_updates - 1, 1)
            game = env.replace(visible_prob=jnp.asarray(prob, jnp.float32))
            runners, told = jax.vmap(lambda r, k: train(rule, game, r, k, i[None]))(runners, keys)
            told = jax.vmap(lambda told: report(*told))(told)
            score = told["events/score"] / told["events/trials"]
            return runners, {"return": told["return"], "score": score}  # [N]

        runners, found = jax.lax.scan(update, runners, jnp.arange(num_updates))
        last = found["return"][-1]
        learners = runners.learner if seen == "none" else runners.learner.current
        return (learners, last), _points(found, num_points)

    def lineage(key: Array) -> dict[str, Array]:
        instance_key, first_key, key = jax.random.split(key, 3)
        instance = env.draw_instance(instance_key) if env.instance is None else jnp.asarray(env.instance)
        own = env.replace(instance=instance, visible_prob=jnp.float32(0))
        ts = jax.vmap(own.reset)(jax.random.split(first_key, num_envs))[1]
        untrained = jax.vmap(lambda key: algo.init(key, own, ts))(jax.random.split(first_key, num_members))
        before = untrained, jnp.zeros(num_members)
        now = jnp.arange(num_generations), jax.random.split(key, num_generations)
        return jax.lax.scan(functools.partial(generation, own), before, now)[1]

    return jax.vmap(lineage)(keys)


def _points(found: dict[str, Array], num_points: int) -> dict[str, Array]:
    """Metrics [B] of `found` [U, N]: means over members and the updates of a point; the best member's."""
    points = {k: v.reshape(num_points, -1, v.shape[-1]) for k, v in found.items()}
    told = {k: jnp.nanmean(v, (1, 2)) for k, v in points.items()}
    return told | {"best_return": jnp.nanmean(points["return"], 1).max(-1)}


def _shown(learners: Any, return_: Array, demonstrators: int, seen: str) -> Any:
    """Those that each member sees, leaves [N, M, ...], of learners [N, ...] with these returns [N]."""
    num = return_.shape[0]
    order = jnp.arange(num) if seen == "all" else jnp.full(demonstrators, return_.argmax())
    return jax.tree.map(lambda x: jnp.broadcast_to(x[order], (num, len(order), *x.shape[1:])), learners)


def _kept(old: Any, fresh: Any, renewed: tuple[str, ...]) -> Any:
    """The learners `old`, with the layers called `renewed` (and their optimiser's state) from `fresh`."""

    def choose(path: Any, old: Array, fresh: Array) -> Array:
        names = {getattr(part, "key", None) for part in path}
        return fresh if names & set(renewed) else old

    return jax.tree.map_with_path(choose, old, fresh)


def _check(
    setup: Setup, num_generations: int, num_members: int, num_fresh: int, num_points: int, seen: str
) -> None:
    """Raise ConfigError for what does not fit."""
    env, errors = setup.env, []
    if not all(hasattr(env, need) for need in ("show", "alone", "draw_instance", "visible_prob")):
        raise ConfigError([f"env: {type(env).__name__} has no demonstrators to be seen"])
    numbers = {"num_generations": num_generations, "num_members": num_members, "num_points": num_points}
    for name, value in {**numbers, "num_fresh": num_fresh}.items():
        if value < 1:
            errors.append(f"figure.measure.{name}={value}: must be at least 1")
    if seen not in SEEN:
        errors.append(f"figure.measure.seen={seen}: must be one of {', '.join(SEEN)}")
    if seen == "all" and num_members != env.demonstrators:
        errors.append(f"figure.measure.num_members={num_members}: must be env.demonstrators")
    if errors:
        raise ConfigError(errors)
