"""MATE: learners that acknowledge each other with tokens, a handshake of requests and answers.

**Source**: Phan, Sommer, Altmann, Ritz, Belzner, Linnhoff-Popien 2022, "Emergent cooperation from mutual
acknowledgment exchange" (AAMAS), as in their code (repository thomyphan/emergent-cooperation). A seat is
content with a reward r if r + gamma V(h') - V(h) is not negative. Who is content with its own reward asks all
its neighbours, which is worth a token x to each of them (once, however many ask). Each neighbour answers +x
if it is content with its reward and that token, else -x; and who asked gets the least of the answers.
Learners then learn from these rewards instead of their own; the game does not change. Deviations: the
learners are PPO's, with V from when they acted; neighbours are all other seats that learn by it. Axes: T
steps, E games, A seats.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from algos.ppo import PPO, Learner
from marl.algorithm import Batch
from marl.environment import Environment


class Mate(PPO, kw_only=True):
    """PPO on rewards after the handshake. Neutral: a token of 0."""

    token: Any  # [] reward units that a request and an answer are worth, x

    def check(self, env: Environment) -> None:
        """Raise ValueError for a single seat, or as PPO."""
        if len(self.seats) < 2:
            raise ValueError(f"algo: Mate needs 2 learning seats or more, not {len(self.seats)}")
        super().check(env)

    def update(self, env, learner, batch, key):
        """As PPO, of the rewards after the handshake.

        Metrics beside PPO's: `asked`, the share of steps and seats that ask, and `acknowledged`, that of the
        requests that all neighbours answer with a token.
        """
        reward, asks, thanked = self._handshake(env, learner, batch)
        learner, metrics = super().update(env, learner, batch.replace(reward=reward), key)
        metrics["asked"] = asks.mean()
        metrics["acknowledged"] = thanked.sum() / jnp.maximum(asks.sum(), 1)
        return learner, metrics

    def credits(self, env: Environment, learner: Learner, batch: Batch, learns: Array) -> Array:
        """As PPO, of the rewards after the handshake."""
        reward = self._handshake(env, learner, batch)[0]
        return super().credits(env, learner, batch.replace(reward=reward), learns)

    def _handshake(self, env: Environment, learner: Learner, batch: Batch) -> tuple[Array, Array, Array]:
        future = jnp.where(batch.terminated[..., None], 0.0, self._next_value(env, learner, batch))
        return handshake(batch.reward, self.gamma * future - batch.extras["value"], self.token)


def handshake(reward: Array, gain: Array, token: Any) -> tuple[Array, Array, Array]:
    """Rewards after requests and answers.

    Args:
        reward: [..., A].
        gain: [..., A] gamma V(h') - V(h).
        token: [] reward units.

    Returns:
        [..., A] rewards; who asks; who asks and is answered with tokens alone, both bool.
    """
    others = lambda x: x.sum(-1, keepdims=True) - x
    asks = reward + gain >= 0
    received = reward + token * (others(asks.astype(jnp.int32)) > 0)
    content = received + gain >= 0
    thanked = asks & (others((~content).astype(jnp.int32)) == 0)
    return received + token * (1.0 * thanked - 1.0 * (asks & ~thanked)), asks, thanked
