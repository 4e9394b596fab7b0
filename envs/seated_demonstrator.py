"""Games of trials whose demonstrator holds a seat of its own, and fades from the learner's view.

**Source**: the setting of cultural accumulation, Cook, Lu, Hughes, Leibo and Foerster 2024 (arXiv
2406.00392). Seat 0 learns, seat 1 demonstrates. `marl.accumulation` and `marl.lineages` put earlier
generations in seat 1. Games whose demonstrators are only told about: `envs.demonstrated_game`.
"""

from __future__ import annotations

from typing import Any, Self

import jax.numpy as jnp
from flax import struct
from jax import Array

from marl.environment import Environment


class SeatedDemonstrator(Environment):
    """An episode is `num_trials` trials of `trial_steps` steps each; a state has the steps played, `time`."""

    first_visible_prob: Any  # [] probability at each step that the demonstrator is seen, in the first trial
    last_visible_prob: Any  # [] in the last; linear between
    num_trials: int = struct.field(pytree_node=False)
    told_trials: int | None = struct.field(
        pytree_node=False
    )  # entries of the one-hot trial; None: num_trials
    trial_steps: int = struct.field(pytree_node=False)  # steps of a trial

    num_agents = 2
    demonstrators = 1  # in seat 1
    best_first = True

    @property
    def max_trial_steps(self) -> int:
        """As all trials."""
        return self.trial_steps

    @property
    def fixed_horizon(self) -> int:
        """All trials, one after another."""
        return self.num_trials * self.trial_steps

    @property
    def num_told(self) -> int:
        """Entries of the one-hot trial."""
        return self.told_trials or self.num_trials

    def check(self) -> None:
        """Raise ValueError for sizes that there are not."""
        for name in ("num_trials", "num_told", "trial_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least 1")

    def seen_with(self, prob: Array) -> Self:
        """The same game whose demonstrator is seen with this probability [] at each step."""
        return self.replace(first_visible_prob=prob, last_visible_prob=prob)

    def lasting(self, num_trials: int) -> Self:
        """The same game with more or fewer trials in an episode, and observations of the same size."""
        return self.replace(num_trials=num_trials, told_trials=self.num_told)

    def trial(self, state: Any) -> Array:
        """[...] int32 number of the trial under way, from 0."""
        return state.time // self.trial_steps

    def alone(self, obs: dict[str, Array]) -> dict[str, Array]:
        """`obs` of a last trial, in which nobody is seen."""
        return obs

    def visible_now(self, time: Array) -> Array:
        """[] probability that the demonstrator is seen after `time` [] steps."""
        share = jnp.minimum(time // self.trial_steps, self.num_trials - 1) / max(self.num_trials - 1, 1)
        return self.first_visible_prob + (self.last_visible_prob - self.first_visible_prob) * share
