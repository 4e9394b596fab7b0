"""Gifts: a further action by which a seat gives reward to the others.

**Sources**: Lupu and Precup 2020, "Gifting in multi-agent reinforcement learning" (AAMAS), for the
three budget rules; their meaning as in MATE's implementation (Phan et al., repository
thomyphan/emergent-cooperation): a gift is shared equally by the others, and a replenishable
budget grows by every positive reward before the gift of that step is paid. Deviations: what a
gift costs and what it is worth are separate; what a giver plays in the inner game can be a
fixed action instead of a random one; all other seats are neighbours. Axes: A seats, n actions of
the inner game.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from marl.environment import Mechanism, TimeStep, extend_vector, legal_or_first, num_discrete

MODES = ("zero_sum", "fixed_budget", "replenishable_budget")
RANDOM = -1  # the value of `idle` for a random inner action


class State(struct.PyTreeNode):
    """The inner state, what it allows, and what is left to give."""

    inner: Any
    mask: Array  # [A, n] bool, inner actions allowed now
    budget: Any  # [A] float32 reward units, never negative; () in mode zero_sum


class Gifting(Mechanism):
    """Adds the action `gift` (index n): the giver pays `cost`, the others share `value` equally.

    While it gives, a seat plays `idle` in the inner game, or the first legal action where `idle`
    is not legal. Mode zero_sum: the cost is taken from the giver's reward, so that gifts create
    nothing if cost equals value (cost 0 is the free variant). Mode fixed_budget: the cost is
    taken from a budget, and the reward is untouched. Mode replenishable_budget: the budget
    also grows by each positive reward of the inner game. In the budget modes a gift is legal
    while the budget covers it (a gift that is not legal has no effect), obs["vector"] gains the own
    budget, and budgets start anew with each episode. Events: `gave` (1 for a gift that took
    effect) and `received` (gifts, as shares: one gift is 1 / (A-1) to each other seat; times
    `value` it is reward). Neutral: cost and value 0; nobody gains or loses by a gift.
    """

    cost: Any  # [] reward units that a gift takes from the giver, or from its budget
    value: Any  # [] reward units that the other seats share
    budget: Any  # [] reward units that a seat can give at the start, budget modes only
    mode: str = struct.field(pytree_node=False)  # one of MODES
    idle: int = struct.field(pytree_node=False)  # inner action of a giver, -1 = random among the legal

    @property
    def action_space(self) -> spaces.Discrete:
        """The n inner actions, then the gift."""
        return spaces.Discrete(num_discrete(self.env, "gifting") + 1)

    @property
    def all_legal(self) -> bool:
        """A budget that runs out forbids gifts."""
        return self.mode == "zero_sum" and self.env.all_legal

    def check(self) -> None:
        """Raise ValueError for an unknown mode, an idle action or amounts out of range, or one seat."""
        self.env.check()
        num = num_discrete(self.env, "gifting")
        if self.mode not in MODES:
            raise ValueError(f"mechanism.gifting.mode={self.mode}: must be one of {', '.join(MODES)}")
        if not RANDOM <= self.idle < num:
            raise ValueError(
                f"mechanism.gifting.idle={self.idle}: must lie in 0 .. {num - 1}, or be -1 (random)"
            )
        for name, amount in (("cost", self.cost), ("budget", self.budget)):
            if np.any(np.asarray(amount) < 0):
                raise ValueError(f"mechanism.gifting.{name}={amount}: must be at least 0")
        if self.num_agents < 2:
            raise ValueError(f"mechanism.gifting needs 2 seats or more, not {self.num_agents}")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Start the inner game with fresh budgets."""
        inner, ts = self.env.reset(key)
        start = () if self.mode == "zero_sum" else jnp.full(self.num_agents, self.budget, jnp.float32)
        return self._show(State(inner, ts.action_mask, start), ts, jnp.zeros(self.num_agents, bool))

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Play and give; `action` is [A] int."""
        gives = action == num_discrete(self.env, "gifting")  # [A]
        played = jnp.where(gives, self._idle_action(key, state.mask), action)
        inner, ts = self.env.step(key, state.inner, played)
        budget, reward = state.budget, ts.reward
        if self.mode == "zero_sum":
            reward = reward - self.cost * gives
        else:
            gives &= budget >= self.cost
            if self.mode == "replenishable_budget":
                budget = budget + jnp.maximum(reward, 0.0)
            budget = budget - self.cost * gives
        ts = ts.replace(reward=reward + self.value * self._shares(gives))
        return self._show(State(inner, ts.action_mask, budget), ts, gives)

    def _idle_action(self, key: Array, mask: Array) -> Array:
        """[A] what givers play in the inner game."""
        if self.idle != RANDOM:
            return legal_or_first(mask, self.idle)
        logits = jnp.where(mask, 0.0, jnp.finfo(jnp.float32).min)
        return jax.random.categorical(self.own_key(key), logits).astype(jnp.int32)

    def _shares(self, gives: Array) -> Array:
        """[A] gifts that each seat receives from the others."""
        return (gives.sum() - gives) / (self.num_agents - 1)

    def _show(self, state: State, ts: TimeStep, gives: Array) -> tuple[State, TimeStep]:
        legal = jnp.ones((self.num_agents, 1), bool)
        if self.mode != "zero_sum":
            legal = (state.budget >= self.cost)[:, None]
            ts = extend_vector(ts, state.budget[:, None])
        return state, ts.replace(
            action_mask=jnp.concatenate([ts.action_mask, legal], axis=-1),
            events=ts.events | {"gave": gives.astype(jnp.float32), "received": self._shares(gives)},
        )
