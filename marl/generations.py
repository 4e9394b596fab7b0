"""Cultural evolution: play a game, keep who did best, replace the rest by varied copies of them.

**Source**: the loop of Vallinder and Hughes 2024 (arXiv 2412.10270, notebook), for any algorithm whose
learner has a row for each seat and that can `vary` rows. Deviations: the best are those with the highest mean
over all games of a generation (the notebook counts only the second of its two); a newborn varies one
survivor's strategy (there it is written after reading all of them). Axes: S seeds, G generations, A seats.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.build import Setup
from marl.environment import Environment
from marl.evaluate import play
from marl.figures import for_figures
from marl.metrics import equality
from marl.sharding import num_devices, over_devices
from marl.statistics import swept_summary
from marl.validation import ConfigError

SELECTIONS = ("best", "random")
SIZES = ("num_generations", "num_survivors", "num_episodes", "selection", "fitness", "outcomes", "devices")


@for_figures
def evolve(
    *,
    setup: Setup,
    num_generations: int,
    num_survivors: int,
    num_episodes: int,
    selection: str,
    fitness: str,
    outcomes: list[str],
) -> dict[str, Any]:
    """Generations of a population that fills the seats, as a run's summary whose swept value is "generation".

    A seat's fitness is an event summed over an episode, mean over episodes. Metrics of each generation,
    counted from 1: `log10_fitness`, of 1 + its mean over seats; `growth`, that less its value in the first
    generation; `equality`, 1 - Gini over seats; `lineages`, the share of the founders with descendants;
    and `outcomes`.

    Args:
        setup: a game of fixed length and the algorithm, and `num_seeds` and `seed` of its configuration.
        num_generations: G.
        num_survivors: seats that stay as they are.
        num_episodes: episodes of a generation.
        selection: `best`, those with the highest fitness stay; `random`, any.
        fitness: name of an event.
        outcomes: names of `marl.evaluate.Episodes.outcomes`.

    Raises:
        ConfigError: if the algorithm cannot be varied, or numbers or names do not fit.
    """
    began, env, algo, cfg = time.perf_counter(), setup.env, setup.algo, setup.cfg
    _check(setup, num_generations, num_survivors, num_episodes, selection, fitness)
    keys = jax.vmap(jax.random.key)(jnp.arange(cfg.seed, cfg.seed + cfg.num_seeds))
    rules = {"num_survivors": num_survivors, "selection": selection, "num_episodes": num_episodes}
    told = {"fitness": fitness, "outcomes": tuple(outcomes)}
    sizes = {"num_generations": num_generations, "devices": num_devices(cfg)}
    found = _histories(env, algo, keys, **sizes, **rules, **told)
    found = {name: np.asarray(x, np.float64).T for name, x in found.items()}  # [G, S]
    found["growth"] = found["log10_fitness"] - found["log10_fitness"][:1]
    return swept_summary(found, "generation", range(1, num_generations + 1), began)


@functools.partial(jax.jit, static_argnames=SIZES)
def _histories(
    env: Environment,
    algo: Any,
    keys: Array,
    *,
    num_generations: int,
    num_survivors: int,
    num_episodes: int,
    selection: str,
    fitness: str,
    outcomes: tuple[str, ...],
    devices: int,
) -> dict[str, Array]:
    """Metrics, each [S, G]; runs that differ in numbers only are compiled once."""
    first = jax.eval_shape(jax.vmap(env.reset), jax.random.split(jax.random.key(0), num_episodes))[1]
    founders = jnp.arange(env.num_agents)
    sizes = {"num_episodes": num_episodes, "max_steps": env.fixed_horizon, "greedy": False}

    def generation(
        env: Environment, algo: Any, now: tuple[Any, Array], key: Array
    ) -> tuple[tuple[Any, Array], dict[str, Array]]:
        (learner, founder), (play_key, next_key, vary_key) = now, jax.random.split(key, 3)
        seen = play(env, algo, learner, play_key, **sizes)
        score, told = seen.events[fitness].mean(0), seen.outcomes()  # [A]
        unknown = [name for name in outcomes if name not in told]
        if unknown:
            raise ConfigError([f"figure.measure.outcomes={unknown[0]}: must be one of {', '.join(told)}"])
        found = {name: told[name] for name in outcomes} | {
            "log10_fitness": jnp.log10(1 + score.mean()),
            "equality": equality(score),
            "lineages": (founder == founders[:, None]).any(1).mean(),
        }
        rows = parents(next_key, score, num_survivors=num_survivors, selection=selection)
        pick = lambda who: jax.tree.map(lambda x: x[who], learner)
        old, new = pick(rows[:num_survivors]), algo.vary(vary_key, pick(rows[num_survivors:]))
        return (jax.tree.map(lambda *x: jnp.concatenate(x), old, new), founder[rows]), found

    def history(env: Environment, algo: Any, key: Array) -> dict[str, Array]:
        init_key, key = jax.random.split(key)
        now = algo.init(init_key, env, first), founders
        lives = functools.partial(generation, env, algo)
        return jax.lax.scan(lives, now, jax.random.split(key, num_generations))[1]

    axes = (None, None, 0)
    return over_devices(jax.vmap(history, axes), devices, axes)(env, algo, keys)


def parents(key: Array, score: Array, *, num_survivors: int, selection: str) -> Array:
    """Whose rows the next generation takes over: survivors', then newborns' parents', which are to be varied.

    Args:
        key: draws the survivors where selection is `random`, and the parents, each a survivor.
        score: [A] fitness.
        num_survivors: rows that stay.
        selection: one of SELECTIONS.

    Returns:
        [A] int32.
    """
    survivor_key, parent_key = jax.random.split(key)
    rank = score if selection == "best" else jax.random.uniform(survivor_key, score.shape)
    kept = jax.lax.top_k(rank, num_survivors)[1]
    return jnp.concatenate([kept, jax.random.choice(parent_key, kept, (len(score) - num_survivors,))])


def _check(
    setup: Setup, num_generations: int, num_survivors: int, num_episodes: int, selection: str, fitness: str
) -> None:
    """Raise ConfigError for what does not fit."""
    env, algo = setup.env, setup.algo
    events = jax.eval_shape(env.reset, jax.random.key(0))[1].events
    errors = [] if hasattr(algo, "vary") else [f"algo: {type(algo).__name__} cannot be varied"]
    if not env.fixed_horizon:
        errors.append(f"env: generations need a game of fixed length, not {type(env).__name__}")
    for name, value in (("num_generations", num_generations), ("num_episodes", num_episodes)):
        if value < 1:
            errors.append(f"figure.measure.{name}={value}: must be at least 1")
    if not 0 < num_survivors < env.num_agents:
        errors.append(f"figure.measure.num_survivors={num_survivors}: must lie in 1 .. {env.num_agents - 1}")
    if selection not in SELECTIONS:
        errors.append(f"figure.measure.selection={selection}: must be one of {', '.join(SELECTIONS)}")
    if fitness not in events:
        errors.append(f"figure.measure.fitness={fitness}: must be an event, one of {', '.join(events)}")
    if errors:
        raise ConfigError(errors)
