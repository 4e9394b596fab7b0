"""Memory Sequence: guess a hidden string of digits, one after the other, trial after trial.

**Source**: Cook et al. 2024 (arXiv 2406.00392, appendix D.1) and its authors' notebook. The oracles are the
notebook's: each plays the true digit with a probability of its own, else any digit. Deviations: a trial has
`length` steps (the notebook's in-weights class ends one step sooner, and unless told otherwise at the first
mistake, which does not fit its figure that begins at about -19).
Axes: L steps, M demonstrators, N digits.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array

from envs.demonstrated_game import DemonstratedGame, State
from envs.grid import draw, happens, uniform


class MemorySequence(DemonstratedGame):
    """Action: the next digit. Reward: 1 if it is right, else -1. `instance`: [L] int32 digits.

    An oracle plays the true digit with probability 1 - 1 / X, X uniform in [1, 1 + oracle_range] and
    drawn for each episode, else a uniform digit; the best stands last.
    """

    oracle_range: Any  # [] 0: oracles that act at random; greater: better ones
    num_digits: int = struct.field(pytree_node=False)  # N
    length: int = struct.field(pytree_node=False)  # L, digits of the string
    ends_on_mistake: bool = struct.field(pytree_node=False)  # whether a trial ends with the first mistake

    @property
    def num_actions(self) -> int:
        """The digits."""
        return self.num_digits

    @property
    def max_trial_steps(self) -> int:
        """The length of the string."""
        return self.length

    @property
    def fixed_horizon(self) -> int | None:
        """K L steps, unless trials end with a mistake."""
        return None if self.ends_on_mistake else self.num_trials * self.length

    def check(self) -> None:
        """Raise ValueError for sizes or numbers out of range."""
        super().check()
        for name, low in (("num_digits", 2), ("length", 1), ("oracle_range", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least {low}")

    def draw_instance(self, key: Array) -> Array:
        """[L] int32 uniform digits."""
        (words,) = draw(key, (self.length,))
        return (uniform(words) * self.num_digits).astype(jnp.int32)

    def draw_skill(self, key: Array) -> Array:
        """[M] float32 probabilities of the true digit, the best last."""
        (words,) = draw(key, (self.demonstrators,))
        drawn = 1 + self.oracle_range * uniform(words)
        return jnp.sort(1 - 1 / drawn)

    def novices(self) -> MemorySequence:
        """With oracles that play any digit."""
        return self.replace(oracle_range=jnp.zeros_like(self.oracle_range, jnp.float32))

    def oracles(self, key: Array, state: State) -> Array:
        """[M] int32 digits."""
        knows, guess = draw(key, state.skill.shape, state.skill.shape)
        guess = (uniform(guess) * self.num_digits).astype(jnp.int32)
        return jnp.where(happens(knows, state.skill), state.instance[state.time], guess)

    def judge(self, state: State, action: Array) -> tuple[Any, Array, Array]:
        """Whether it is the next digit."""
        right = action == state.instance[state.time]
        ends = state.time + 1 >= self.length
        if self.ends_on_mistake:
            ends |= ~right
        return (), jnp.where(right, 1.0, -1.0).astype(jnp.float32), ends
