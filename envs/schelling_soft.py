"""How the end of Schelling's game answers to its threshold, where residents decide softly.

Who has the share s of like neighbours leaves with probability sigmoid((threshold - s) / temperature), so
that the expected end is smooth in the threshold although boards are not. **Source** of its derivative: the
likelihood ratio of Williams 1992 (Machine Learning 8), d E[F] / d threshold = E[(F - b) sum (leaves - p) /
temperature], the sum over all decisions, b the mean of the other worlds. Soft decisions are ours. Axes: V
values, S seeds, W worlds.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from envs.schelling_classic import SchellingClassic
from marl import segregation
from marl.build import Setup
from marl.environment import bare_game
from marl.figures import for_figures
from marl.statistics import swept_summary
from marl.validation import ConfigError

METHODS = ("likelihood", "difference")


@for_figures
def gradients(
    *,
    setup: Setup,
    values: list[float],
    method: str,
    temperature: float,
    num_steps: int,
    num_worlds: int,
    spacing: float,
) -> dict[str, Any]:
    """Derivative of the final same-type share by the threshold; a summary swept over "threshold".

    Metrics, a value a seed: `gradient`, and `same_fraction` at the end. Each seed is an estimate from W
    worlds.

    Args:
        setup: the game, whose threshold is replaced, and `num_seeds` and `seed` of its configuration.
        values: thresholds.
        method: `likelihood`, from the worlds of one threshold; `difference`, central differences of the means
            of worlds with the same draws.
        temperature: of the decisions, as a share of neighbours.
        num_steps: of each world.
        num_worlds: W, played side by side.
        spacing: from a value to its neighbours in `difference`.

    Raises:
        ConfigError: for another game, one whose residents are judged in turn, or an unknown method.
    """
    began, game, cfg = time.perf_counter(), bare_game(setup.env), setup.cfg
    if not isinstance(game, SchellingClassic) or game.update == "sequential":
        raise ConfigError(["env: must be schelling_classic, with env.update=simultaneous or parallel"])
    if method not in METHODS:
        raise ConfigError([f"figure.measure.method={method}: must be one of {', '.join(METHODS)}"])
    keys = jax.vmap(jax.random.key)(jnp.arange(cfg.seed, cfg.seed + cfg.num_seeds))
    sizes = {"num_steps": num_steps, "num_worlds": num_worlds, "method": method}
    numbers = jnp.float32(temperature), jnp.float32(spacing)
    found = _estimates(game, jnp.array(values, jnp.float32), keys, *numbers, **sizes)
    metrics = {name: np.asarray(x, np.float64) for name, x in found.items()}
    return swept_summary(metrics, "threshold", values, began)


@functools.partial(jax.jit, static_argnames=("num_steps", "num_worlds", "method"))
def _estimates(
    game: SchellingClassic,
    values: Array,
    keys: Array,
    temperature: Array,
    spacing: Array,
    *,
    num_steps: int,
    num_worlds: int,
    method: str,
) -> dict[str, Array]:
    """Metrics [V, S] of thresholds [V] and seeds [S], one after another."""

    def ends(threshold: Array, key: Array) -> tuple[Array, Array]:
        one = lambda key: play_softly(game, key, threshold, temperature, num_steps)
        return jax.vmap(one)(jax.random.split(key, num_worlds))

    def estimate(threshold: Array, key: Array) -> dict[str, Array]:
        if method == "difference":
            below, above = (ends(threshold + way * spacing, key)[0].mean() for way in (-1, 1))
            return {"gradient": (above - below) / (2 * spacing), "same_fraction": (above + below) / 2}
        end, score = ends(threshold, key)
        gradient = ((end - end.mean()) * score).sum() / (num_worlds - 1)
        return {"gradient": gradient, "same_fraction": end.mean()}

    over_seeds = lambda value: jax.lax.map(lambda key: estimate(value, key), keys)
    return jax.lax.map(over_seeds, values)


def play_softly(
    game: SchellingClassic, key: Array, threshold: Array, temperature: Array, num_steps: int
) -> tuple[Array, Array]:
    """The same-type share [] after `num_steps` from a random start, and the score [] of what was decided.

    The score is the derivative by `threshold` [] of the log of the probability of all decisions, given the
    draws of where movers go. Who has no neighbour has a share of 0, or of 1 if that makes content.
    """

    def step(site: Array, key: Array) -> tuple[Array, Array]:
        decide, move = jax.random.split(key)
        same, both, _ = game.judged(site)
        alone = jnp.asarray(game.isolated_content, jnp.float32)
        share = jnp.where(both > 0, same / jnp.maximum(both, 1), alone)
        probability = jax.nn.sigmoid((threshold - share) / temperature)
        leaves = jax.random.uniform(decide, share.shape) < probability
        site = game.moved(move, site, ~leaves, jnp.ones_like(leaves))
        return site, ((leaves - probability) / temperature).sum()

    start, key = jax.random.split(key)
    site = jax.random.permutation(start, game.rows * game.columns).astype(jnp.int32)
    site, scores = jax.lax.scan(step, site, jax.random.split(key, num_steps))
    return segregation.same_fraction(game.grid(site), game.radius, game.torus)[0], scores.sum()
