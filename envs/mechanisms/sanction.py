"""An institution that notices an event and fines it.

**Source**: the simplest formal sanction, as a benchmark for peer punishment; no paper is followed.
Axes: A seats.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from marl.environment import Mechanism, TimeStep, event_names


class Sanction(Mechanism):
    """Takes `fine` for each `event` of a seat that is noticed.

    All offences of a seat in one step are noticed together or not at all, independently for
    every seat and step: reward_i -= fine * noticed_i * events[event]_i. Emits the event
    `sanctioned`, 1 where a seat was fined. Neutral: fine 0 or prob 0.
    """

    fine: Any  # [] reward units per event
    prob: Any  # [] probability that a seat's offences of a step are noticed
    event: str = struct.field(pytree_node=False)  # name of the event that is fined

    def check(self) -> None:
        """Raise ValueError for an event that the inner environment has not, or a bad probability."""
        self.env.check()
        known = event_names(self.env)
        if self.event not in known:
            raise ValueError(f"mechanism.sanction.event={self.event}: must be one of {', '.join(known)}")
        if not np.all((np.asarray(self.prob) >= 0) & (np.asarray(self.prob) <= 1)):
            raise ValueError(f"mechanism.sanction.prob={self.prob}: must lie in [0, 1]")

    def reset(self, key: Array) -> tuple[Any, TimeStep]:
        """Start the inner environment; nobody is fined yet."""
        state, ts = self.env.reset(key)
        return state, self._fine(ts, jnp.zeros(self.num_agents, bool))

    def step(self, key: Array, state: Any, action: Array) -> tuple[Any, TimeStep]:
        """Play, then fine; `action` is that of the inner environment."""
        state, ts = self.env.step(key, state, action)
        noticed = jax.random.bernoulli(self.own_key(key), self.prob, (self.num_agents,))
        return state, self._fine(ts, noticed)

    def _fine(self, ts: TimeStep, noticed: Array) -> TimeStep:
        fined = noticed * ts.events[self.event]  # [A] offences that are fined
        sanctioned = (fined > 0).astype(jnp.float32)
        return ts.replace(
            reward=ts.reward - self.fine * fined,
            events=ts.events | {"sanctioned": sanctioned},
        )
