"""Seats that dislike to earn less than others, and more than others.

**Source**: Hughes et al. 2018, "Inequity aversion improves cooperation in intertemporal social
dilemmas" (arXiv 1803.08884):

    e_j(t) = gamma * lambda * e_j(t-1) + r_j(t),
    u_i = r_i - alpha / (A-1) * sum_j max(e_j - e_i, 0) - beta / (A-1) * sum_j max(e_i - e_j, 0).

Lambda is called `trace_lambda` here, because `lambda` is no name in Python. Both terms lower the
utility; in a widely used implementation (eugenevinitsky/sequential_social_dilemma_games) the
second one raises it and rewards are not smoothed. Doubt: that agents see the smoothed rewards is
known to us of LIO's baseline (Yang et al. 2020), not of this paper, so that it is a choice.
Axes: A seats.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from envs.mechanisms.shaping import check_numbers, check_others, shape_reward
from marl.environment import Mechanism, TimeStep, extend_vector, own_first


class State(struct.PyTreeNode):
    """The inner state and the smoothed rewards."""

    inner: Any
    trace: Array  # [A] float32 reward units


class InequityAversion(Mechanism):
    """Takes from each seat's reward what it minds of earning less, and more, than the others.

    Earnings are smoothed over the steps of an episode and compared pair by pair; they start at
    0 with each episode. A step is one of the inner environment, so that a stage of punishment
    inside counts as one. With `observe_traces` every seat sees all A smoothed rewards at the
    end of obs["vector"], its own first. With lists, seats differ (one averse seat among
    others, say). Emits `extrinsic_reward`, the reward before. Neutral: alpha 0 and beta 0.
    """

    alpha: Any  # [] or [1] of all seats, or [A]: aversion to earning less, per reward unit
    beta: Any  # [] or [1] of all seats, or [A]: aversion to earning more, per reward unit
    gamma: Any  # [] discount, which is part of the smoothing
    trace_lambda: Any  # [] the paper's lambda: gamma * trace_lambda of a trace remains after a step
    observe_traces: bool = struct.field(pytree_node=False)  # obs["vector"] gains the smoothed rewards

    def check(self) -> None:
        """Raise ValueError for numbers out of range, a list of another length, or a lonely seat."""
        self.env.check()
        check_others("inequity_aversion", self.num_agents)
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            check_numbers(f"inequity_aversion.{name}", value, self.num_agents, 0, np.inf)
        for name, value in (("gamma", self.gamma), ("trace_lambda", self.trace_lambda)):
            check_numbers(f"inequity_aversion.{name}", value, 1, 0, 1)

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Start the inner environment; nobody has earned anything."""
        inner, ts = self.env.reset(key)
        return self._show(State(inner, jnp.zeros(self.num_agents)), shape_reward(ts, ts.reward))

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Play, smooth, compare; `action` is that of the inner environment."""
        inner, ts = self.env.step(key, state.inner, action)
        trace = self.gamma * self.trace_lambda * state.trace + ts.reward
        less, more = gaps(trace)
        utility = ts.reward - self.alpha * less - self.beta * more
        return self._show(State(inner, trace), shape_reward(ts, utility))

    def _show(self, state: State, ts: TimeStep) -> tuple[State, TimeStep]:
        return state, extend_vector(ts, own_first(state.trace)) if self.observe_traces else ts


def gaps(x: Array) -> tuple[Array, Array]:
    """[A] -> how far each seat is below, and above, each other one on average: two [A], not negative.

    All pairs are compared: sorting is faster only for more than 64 seats.
    """
    ahead = x - x[:, None]  # [A, A], of seat j over seat i
    others = x.shape[0] - 1
    return jnp.maximum(ahead, 0).sum(1) / others, jnp.maximum(-ahead, 0).sum(1) / others
