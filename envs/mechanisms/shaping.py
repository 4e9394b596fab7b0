"""What the mechanisms share that change only what seats learn from: their reward.

The reward that they leave is no outcome of the game, so the event `extrinsic_reward` keeps the
one before it: of the environment inside the innermost of them, gifts and fines there
included. Metrics of events are thus those of the game, those of rewards are of utilities.
Axes: A seats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import Array

from marl.environment import EXTRINSIC, Mechanism, TimeStep


class RewardShaping(Mechanism):
    """A mechanism without state that gives each seat a utility of all rewards of the step."""

    def utility(self, reward: Array) -> Array:
        """[A] rewards -> [A] float32 utilities, in the units of the reward."""
        raise NotImplementedError("a mechanism that shapes rewards states its utility")

    def reset(self, key: Array) -> tuple[Any, TimeStep]:
        """Start the inner environment; there is no reward yet."""
        state, ts = self.env.reset(key)
        return state, shape_reward(ts, ts.reward)

    def step(self, key: Array, state: Any, action: Array) -> tuple[Any, TimeStep]:
        """Play, then turn rewards into utilities; `action` is that of the inner environment."""
        state, ts = self.env.step(key, state, action)
        return state, shape_reward(ts, self.utility(ts.reward))


def shape_reward(ts: TimeStep, utility: Array) -> TimeStep:
    """`ts` with `utility` [A] for reward; the old one stands in events["extrinsic_reward"].

    Where a mechanism inside has kept a reward already, that one stays.
    """
    return ts.replace(reward=utility, events={EXTRINSIC: ts.reward} | ts.events)


def mean_of_others(x: Array) -> Array:
    """[A] -> [A], the mean over all other seats."""
    return (x.sum() - x) / (x.shape[0] - 1)


def check_others(name: str, num_agents: int) -> None:
    """Raise ValueError naming the mechanism if a seat has no others to compare with."""
    if num_agents < 2:
        raise ValueError(f"mechanism.{name} needs 2 seats or more, not {num_agents}")


def check_numbers(key: str, value: Any, num: int, low: float, high: float) -> None:
    """Raise ValueError naming mechanism.`key` unless it is one number, or `num`, within low .. high."""
    if np.shape(value) not in {(), (1,), (num,)}:
        allowed = f"must be one number or a list of {num}" if num > 1 else "must be one number"
        raise ValueError(f"mechanism.{key}={value}: {allowed}")
    if not np.all((np.asarray(value) >= low) & (np.asarray(value) <= high)):
        within = f"must lie in [{low:g}, {high:g}]" if np.isfinite(high) else f"must be at least {low:g}"
        raise ValueError(f"mechanism.{key}={value}: {within}")
