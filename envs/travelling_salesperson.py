"""A travelling salesperson who does not see the cities: order them by what legs were worth, in trials.

**Source**: Cook et al. 2024 (arXiv 2406.00392, appendix D.3) and its authors' notebook. The oracles are the
notebook's: they choose by the distance from the first city, wherever they are. Deviation: a trial ends after
its N - 1 valid legs; in the notebook one more step follows, that is always a revisit and costs 1 (its figures
leave negative rewards out, so that they agree). Axes: N cities, M demonstrators.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from envs.demonstrated_game import DemonstratedGame, State
from envs.grid import draw, uniform

DIAGONAL = 2**0.5  # of the unit square


class Tour(struct.PyTreeNode):
    """A trial under way."""

    city: Array  # [] int32 where the player is
    visited: Array  # [N] bool


class TravellingSalesperson(DemonstratedGame):
    """Action: the next city. Each trial starts in city 0. `instance`: [N, 2] float32, in the unit square.

    Reward: 1 - distance / sqrt(2) for a city not yet visited, else `revisit_reward`, and the trial ends.
    An oracle takes a city by a softmax of (- distance from city 0 - sqrt(2) if visited) / temperature; that
    is drawn for each episode, from `oracle_temperature` up to `oracle_temperature_range` more. The oracle of
    the lowest one, the best, stands first.
    """

    revisit_reward: Any  # [] reward units, negative
    oracle_temperature: Any  # [] lowest one of the oracles, above or equal to 0
    oracle_temperature_range: Any  # [] to the highest
    num_cities: int = struct.field(pytree_node=False)  # N

    best_first = True

    @property
    def num_actions(self) -> int:
        """The cities."""
        return self.num_cities

    @property
    def max_trial_steps(self) -> int:
        """The legs of a path through all cities."""
        return self.num_cities - 1

    def check(self) -> None:
        """Raise ValueError for sizes or numbers out of range."""
        super().check()
        if self.num_cities < 2:
            raise ValueError(f"env.num_cities={self.num_cities}: must be at least 2")
        for name in ("oracle_temperature", "oracle_temperature_range"):
            if getattr(self, name) < 0:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least 0")
        if self.revisit_reward > 0:
            raise ValueError(f"env.revisit_reward={self.revisit_reward}: must be at most 0")

    def draw_instance(self, key: Array) -> Array:
        """[N, 2] float32 uniform cities."""
        (words,) = draw(key, (self.num_cities, 2))
        return uniform(words)

    def draw_skill(self, key: Array) -> Array:
        """[M] float32 temperatures, the lowest first."""
        (words,) = draw(key, (self.demonstrators,))
        return jnp.sort(self.oracle_temperature + self.oracle_temperature_range * uniform(words))

    def novices(self) -> TravellingSalesperson:
        """With oracles of temperature 10, as in the notebook."""
        constant = lambda x: jnp.full_like(self.oracle_temperature, x, jnp.float32)
        return self.replace(oracle_temperature=constant(10.0), oracle_temperature_range=constant(0.0))

    def begin(self) -> Tour:
        """In city 0."""
        return Tour(jnp.int32(0), jnp.asarray(np.arange(self.num_cities) == 0))

    def oracles(self, key: Array, state: State) -> Array:
        """[M] int32 cities."""
        far = jnp.linalg.norm(state.instance - state.instance[0], axis=-1)
        worth = -far - DIAGONAL * state.progress.visited
        logits = worth / jnp.maximum(state.skill, 1e-6)[:, None]
        (words,) = draw(key, logits.shape)
        gumbel = -jnp.log(-jnp.log(uniform(words) + 2.0**-25))
        return (logits + gumbel).argmax(-1).astype(jnp.int32)

    def judge(self, state: State, action: Array) -> tuple[Tour, Array, Array]:
        """Whether the city is new, and how near."""
        at, cities = state.progress, state.instance
        leg = jnp.linalg.norm(cities[action] - cities[at.city])
        revisits = at.visited[action]
        reward = jnp.where(revisits, self.revisit_reward, 1 - leg / DIAGONAL).astype(jnp.float32)
        visited = at.visited | (np.arange(self.num_cities) == action)
        return Tour(action.astype(jnp.int32), visited), reward, revisits | visited.all()
