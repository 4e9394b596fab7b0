"""Public scores that rise and fall with what seats do.

**Source**: Dasgupta and Musolesi 2023 (arXiv 2301.08278): cooperation +1, defection -1, as their
code has it. Deviations: any events can be weighted, so that the same rule serves any game;
scores start at 0 in every episode (their agents keep theirs for a whole run), because a
restart clears all state of a game. Axes: A seats.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array

from marl.environment import Mechanism, TimeStep, event_names, extend_vector, own_first


class State(struct.PyTreeNode):
    """The inner state and the scores."""

    inner: Any
    score: Array  # [A] float32 points


class Reputation(Mechanism):
    """Adds `weights[event]` to a seat's score at each event and shows every seat all scores.

    A seat sees the A scores at the end of obs["vector"], its own first, then those of the
    seats after it in turn. Scores are neither bounded nor scaled. Neutral: all weights 0.
    """

    weights: dict[str, Any]  # event name -> change of score, points per event

    def check(self) -> None:
        """Raise ValueError for weights of events that the inner environment has not."""
        self.env.check()
        known = event_names(self.env)
        for name in self.weights:
            if name not in known:
                raise ValueError(f"mechanism.reputation.weights.{name}: must be one of {', '.join(known)}")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Start the inner environment with all scores 0."""
        inner, ts = self.env.reset(key)
        return self._show(State(inner, jnp.zeros(self.num_agents)), ts)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Play, then change the scores; `action` is that of the inner environment."""
        inner, ts = self.env.step(key, state.inner, action)
        score = state.score
        for name, weight in sorted(self.weights.items()):
            score = score + weight * ts.events[name]
        return self._show(State(inner, score), ts)

    def _show(self, state: State, ts: TimeStep) -> tuple[State, TimeStep]:
        return state, extend_vector(ts, own_first(state.score))
