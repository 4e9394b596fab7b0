"""A ring of items that a learner has met, from which it draws uniformly.

**Source**: experience replay as in Mnih et al. 2015 (Nature 518, "Human-level control ..."). Draws are
with replacement. Axes: C capacity, n items, any axes of an item may follow.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array


class Replay(struct.PyTreeNode):
    """The last `size` items, oldest overwritten first."""

    data: Any  # leaves [C, ...], of the types of the items
    position: Array  # [] int32, where the next item goes
    size: Array  # [] int32, items held

    @property
    def capacity(self) -> int:
        """Items C that fit."""
        return jax.tree.leaves(self.data)[0].shape[0]


def empty(item: Any, capacity: int) -> Replay:
    """A ring without items; leaves of `item` [...] give shapes and types."""
    data = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), item)
    return Replay(data, jnp.int32(0), jnp.int32(0))


def add(replay: Replay, items: Any, keep: Array | None = None) -> Replay:
    """Append `items` (leaves [n, ...]) in their order; of more than C the last C stay.

    With `keep` [n] bool only those marked, n at most C. Without, and where n divides C, they are written as
    one block, which costs what copying them costs.
    """
    capacity = replay.capacity
    items = jax.tree.map(lambda x: x[-capacity:], items)
    num = jax.tree.leaves(items)[0].shape[0]
    place = None
    if keep is not None:
        num = keep.sum(dtype=jnp.int32)
        place = (replay.position + jnp.cumsum(keep, dtype=jnp.int32) - 1) % capacity
        place = jnp.where(keep, place, capacity)

    def write(old: Array, new: Array) -> Array:
        if place is not None:
            return old.at[place].set(new, mode="drop")
        if capacity % num == 0:
            return jax.lax.dynamic_update_slice_in_dim(old, new, replay.position, 0)
        return old.at[(replay.position + np.arange(num)) % capacity].set(new, unique_indices=True)

    return Replay(
        data=jax.tree.map(write, replay.data, items),
        position=(replay.position + num) % capacity,
        size=jnp.minimum(replay.size + num, capacity),
    )


def reached(now: Any, last: Any, ended: Any, done: Array) -> Any:
    """What the steps of a rollout led to, leaves [T, E, A, ...].

    Args:
        now: leaves [T, E, A, ...] before each step; last: [E, A, ...] after the last one.
        ended: [T, E, A, ...] what was reached where an episode ended, before the restart.
        done: [T, E] bool, where it did.
    """

    def follow(now: Array, last: Array, ended: Array) -> Array:
        next_ = jnp.concatenate([now[1:], last[None]])
        return jnp.where(done.reshape(*done.shape, *(1,) * (now.ndim - 2)), ended, next_)

    return jax.tree.map(follow, now, last, ended)


def draw(replay: Replay, key: Array, shape: tuple[int, ...]) -> Array:
    """[*shape] int32 places of items, uniform over those held (within size / 2^32)."""
    return (jax.random.bits(key, shape) % replay.size.astype(jnp.uint32)).astype(jnp.int32)


def take(replay: Replay, index: Array) -> Any:
    """The items at `index` [B]; leaves [B, ...]."""
    return jax.tree.map(lambda x: x[index], replay.data)
