"""Whom a generation in context sees: those before it, who do again what they did.

**Source**: Cook, Lu, Hughes, Leibo and Foerster 2024 (arXiv 2406.00392): algorithm 2 (`LastTrial`) and its
authors' code for the Goal Sequence (`Replay`), which differ. Axes: N members, M demonstrators, K trials,
T steps of a trial, D leaves' own axes.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from marl.environment import TimeStep


class Life(NamedTuple):
    """What a generation leaves."""

    state: Any  # carry and obs of its members at the start of their last trial, leaves [N, D]
    score: Array  # [K, N]
    actions: Array  # [K, T, N] int32, of whole trials where all take T steps


class LastTrial(struct.PyTreeNode):
    """The members whose last trial was best; each plays it over and over, from the state it had before it."""

    state: Any  # carry and obs as at the start of that trial, leaves [M, D]

    @classmethod
    def nobody(cls, env: Any, empty: Any) -> Self:
        """As before the first generation; `empty` are the carry and obs at birth, leaves [N, D]."""
        return cls(jax.tree.map(lambda x: x[: env.demonstrators], empty))

    def begin(self, num_members: int) -> Any:
        """Carry [N M, D] of those that each member sees."""
        return self._of_each(num_members)[0]

    def act(
        self, env: Any, act: Any, ts: TimeStep, carry: Any, began: Array, key: Array
    ) -> tuple[Array, Any]:
        """What they do in answer to what the members do.

        Args:
            env: the game.
            act: (carry, ts, key) -> action, carry; by the policy of all.
            ts: of the members, [N, 1, D].
            carry: theirs, [N M, D].
            began: [N] bool, the trial of the member begins.
            key: all randomness.

        Returns:
            action [N, M] and their carry.
        """
        num, seen = began.shape[0], env.demonstrators
        own = jax.tree.map(lambda x: jnp.repeat(x, seen, axis=0), ts.replace(obs=env.alone(ts.obs)))
        carry, obs = choose(jnp.repeat(began, seen), self._of_each(num), (carry, own.obs))
        action, carry = act(carry, own.replace(obs=obs), key)
        return action.reshape(num, seen), carry

    def succeeded(self, env: Any, life: Life) -> LastTrial:
        """Whom the next generation sees."""
        best = jnp.argsort(-life.score[-1])[: env.demonstrators]
        best = best if env.best_first else best[::-1]
        return LastTrial(jax.tree.map(lambda x: x[best], life.state))

    def _of_each(self, num_members: int) -> Any:
        return jax.tree.map(lambda x: jnp.tile(x, (num_members, *(1,) * (x.ndim - 1))), self.state)


class Replay(struct.PyTreeNode):
    """One demonstrator that repeats the actions of the best trial of all generations so far, blindly."""

    actions: Array  # [T] int32
    score: Array  # [] of that trial

    @classmethod
    def nobody(cls, env: Any, empty: Any) -> Self:
        """As before the first generation."""
        return cls(jnp.zeros(env.max_trial_steps, jnp.int32), jnp.float32(-jnp.inf))

    def begin(self, num_members: int) -> Array:
        """[N] int32 steps of the trial played."""
        return jnp.zeros(num_members, jnp.int32)

    def act(
        self, env: Any, act: Any, ts: TimeStep, carry: Array, began: Array, key: Array
    ) -> tuple[Array, Array]:
        """Action [N, 1] and carry [N], for arguments as of `LastTrial.act`."""
        time = jnp.where(began, 0, carry)
        return self.actions[time, None], time + 1

    def succeeded(self, env: Any, life: Life) -> Replay:
        """The best trial of this generation, unless one before was better."""
        trial, member = jnp.unravel_index(life.score.argmax(), life.score.shape)
        new = Replay(life.actions[trial, :, member], life.score.max())
        return jax.tree.map(lambda x, y: jnp.where(new.score >= self.score, x, y), new, self)


PREDECESSORS = {"state_reset": LastTrial, "replay_ratchet": Replay}


def choose(when: Array, new: Any, old: Any) -> Any:
    """`new` where `when` [B], else `old`, leaves [B, D]."""
    return jax.tree.map(lambda x, y: jnp.where(when.reshape(-1, *(1,) * (x.ndim - 1)), x, y), new, old)
