"""Seats and learners: who plays where, and which seats share parameters.

`seats[s]` is the learner that holds seat s: (0, 0, 0) shares parameters, (0, 1, 2) learns
independently, (0, 0, 1, 1) has two types. Learners never see a seat axis: the K seats of a
learner look to it like more parallel games.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from marl.algorithm import Algorithm, Batch
from marl.environment import Environment, TimeStep

Seats = tuple[int, ...]


def num_learners(seats: Seats) -> int:
    """Number of learners P.

    Raises:
        ValueError: if learners are not numbered 0 .. P-1 or hold different numbers of seats.
    """
    counts = np.bincount(seats)
    if len(set(counts)) > 1:
        raise ValueError(f"seats={list(seats)}: learners must be 0..P-1 and hold equally many seats")
    return len(counts)


def each_learner(one: Callable[..., Any], now: tuple, *, convolves: bool) -> Any:
    """`one` of every learner, side by side; on a CPU those that convolve take turns.

    There their products with one axis more take longer than one after another. Leaves of `now` have the
    leading axis P, as have those of the result.
    """
    if convolves and jax.default_backend() == "cpu":
        return jax.lax.map(lambda now: one(*now), now)
    return jax.vmap(one)(*now)


def to_learners(x: Array, seats: Seats, axis: int) -> Array:
    """[*pre, E, A, *X] -> [P, *pre, E*K, *X]; `axis` is where E stands, A follows it."""
    num = num_learners(seats)
    order = np.argsort(seats, kind="stable")
    if (order != np.arange(len(order))).any():
        x = jnp.take(x, order, axis + 1)
    pre, (games, agents, *rest) = x.shape[:axis], x.shape[axis:]
    x = jnp.moveaxis(x.reshape(*pre, games, num, agents // num, *rest), axis + 1, 0)
    return x.reshape(num, *pre, games * (agents // num), *rest)


def to_seats(x: Array, seats: Seats, axis: int) -> Array:
    """The inverse of `to_learners`: [P, *pre, E*K, *X] -> [*pre, E, A, *X]."""
    num, agents = num_learners(seats), len(seats)
    pre, (flat, *rest) = x.shape[1 : 1 + axis], x.shape[1 + axis :]
    share = agents // num
    x = jnp.moveaxis(x.reshape(num, *pre, flat // share, share, *rest), 0, axis + 1)
    x = x.reshape(*pre, flat // share, agents, *rest)
    back = np.argsort(np.argsort(seats, kind="stable"))
    return jnp.take(x, back, axis + 1) if (back != np.arange(agents)).any() else x


class Frozen(Algorithm):
    """A policy that acts but no longer learns: `algo` with the parameters `learner`."""

    algo: Algorithm
    learner: Any

    @property
    def num_steps(self) -> int:
        """Rollout length of the frozen algorithm."""
        return self.algo.num_steps

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Any:
        """The frozen learner; `key` is not used."""
        return self.learner

    def for_acting(self, learner: Any) -> Any:
        """As the frozen algorithm."""
        return self.algo.for_acting(learner)

    def initial_carry(self, env: Environment, ts: TimeStep) -> Any:
        """As the frozen algorithm."""
        return self.algo.initial_carry(env, ts)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """As the frozen algorithm."""
        return self.algo.act(env, learner, carry, ts, key, greedy)


class Mixture(Algorithm):
    """Several algorithms in one game; member m holds the seats s with holder[s] == m.

    Each member sees only its own seats. Fields: members; holder [A].
    """

    members: tuple[Algorithm, ...]
    holder: Seats = struct.field(pytree_node=False)

    @property
    def num_steps(self) -> int:
        """Rollout length: the longest that a member asks for."""
        return max(member.num_steps for member in self.members)

    @property
    def group_size(self) -> int:
        """Games that share the draws of the game: as many as a member asks for."""
        return max(member.group_size for member in self.members)

    @property
    def reads(self) -> tuple[str, ...]:
        """The events that any member reads."""
        return tuple(dict.fromkeys(name for member in self.members for name in member.reads))

    def _seats(self, member: int) -> np.ndarray:
        return np.flatnonzero(np.asarray(self.holder) == member)

    def _views(self, ts: TimeStep) -> list[TimeStep]:
        return [ts.take(self._seats(m), axis=1) for m in range(len(self.members))]

    def check(self, env: Environment) -> None:
        """Check every member."""
        for member in self.members:
            member.check(env)

    def init(self, key: Array, env: Environment, ts: TimeStep) -> tuple:
        """One learner a member."""
        keys = jax.random.split(key, len(self.members))
        return tuple(
            m.init(k, env, view) for m, k, view in zip(self.members, keys, self._views(ts), strict=True)
        )

    def for_acting(self, learner: tuple) -> tuple:
        """What each member needs to act."""
        return tuple(m.for_acting(own) for m, own in zip(self.members, learner, strict=True))

    def initial_carry(self, env: Environment, ts: TimeStep) -> tuple:
        """One carry a member."""
        return tuple(
            m.initial_carry(env, view) for m, view in zip(self.members, self._views(ts), strict=True)
        )

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Each member acts for its seats. Returns (action [E, A, ...], carries, extras)."""
        keys = jax.random.split(key, len(self.members))
        parts = [
            m.act(env, lr, c, view, k, greedy)
            for m, lr, c, view, k in zip(self.members, learner, carry, self._views(ts), keys, strict=True)
        ]
        action = jnp.concatenate([action for action, _, _ in parts], axis=1)
        order = np.concatenate([self._seats(m) for m in range(len(self.members))])
        action = jnp.take(action, np.argsort(order), axis=1)
        return action, tuple(c for _, c, _ in parts), tuple(e for _, _, e in parts)

    def bootstrap(self, env, learner, carry, ts):
        """What each member remembers of a state before a restart."""
        parts = zip(self.members, learner, carry, self._views(ts), strict=True)
        return tuple(m.bootstrap(env, lr, c, view) for m, lr, c, view in parts)

    def update(self, env: Environment, learner: tuple, batch: Batch, key: Array) -> tuple[tuple, dict]:
        """Each member learns from its own seats; where metrics share a name the last member's counts."""
        keys = jax.random.split(key, len(self.members))
        learners, metrics = [], {}
        for m, member in enumerate(self.members):
            new, found = member.update(env, learner[m], batch.of_member(m, self._seats(m)), keys[m])
            learners.append(new)
            metrics |= found
        return tuple(learners), metrics


def normalised(x: Array, seats: Seats, weight: Array | None, eps: float | Array = 1e-8) -> Array:
    """Numbers with mean 0 and standard deviation 1, less with `eps`, over the samples of each learner.

    Args:
        x: [T, E, A]; seats: [A] learner of each seat.
        weight: [T, E, A] of the samples; None: all count alike.
        eps: added to the deviation that they are divided by.

    Returns:
        [T, E, A].
    """
    flat = to_learners(x, seats, 1)  # [P, T, B]
    if weight is None:
        flat = (flat - flat.mean((1, 2), keepdims=True)) / (flat.std((1, 2), keepdims=True) + eps)
    else:
        weights = to_learners(weight, seats, 1)
        mean_over = lambda x: jnp.average(x, axis=(1, 2), weights=weights, keepdims=True)
        centred = flat - mean_over(flat)
        flat = centred / (jnp.sqrt(mean_over(centred**2)) + eps)
    return to_seats(flat, seats, 1)
