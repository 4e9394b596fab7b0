"""A player that draws uniformly from its legal actions; it works in every game.

For Discrete and MultiDiscrete actions it draws one number u in [0, 1) a choice and takes the legal
action number floor(u * legal actions). Random bits are most of its cost, so u of a Discrete
choice has 8 of them for two actions (exactly uniform), else 16: of n legal actions each then has
probability 1/n within 2^-16, exactly 1/n if n is a power of two. A Box is drawn between its
bounds, or in [-1, 1] where it has none, whatever its mask. Axes: E games, A seats, N actions.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import Array

from marl.algorithm import Algorithm
from marl.environment import Environment, mask_size


class RandomPlayer(Algorithm):
    """Draws every action anew; it has no parameters, memory or likeliest action."""

    def check(self, env: Environment) -> None:
        """Raise ValueError for an action space that is none of Discrete, MultiDiscrete, Box."""
        mask_size(env.action_space)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Uniform actions [E, A, ...]; `greedy` changes nothing."""
        return _draw(key, env.action_space, ts.action_mask), carry, ()


def _draw(key: Array, space: spaces.Space, mask: Array) -> Array:
    """[E, A, ...] legal actions of a space; `mask` [E, A, N]."""
    seats = mask.shape[:-1]
    if isinstance(space, spaces.Box):
        bounded = np.isfinite(space.low) & np.isfinite(space.high)
        low, high = np.where(bounded, space.low, -1.0), np.where(bounded, space.high, 1.0)
        u = jax.random.uniform(key, (*seats, *space.shape))
        return (low + (high - low) * u).astype(jnp.float32)
    if isinstance(space, spaces.MultiDiscrete):
        parts = jnp.split(mask, np.cumsum(space.nvec)[:-1], axis=-1)
        u = jax.random.uniform(key, (*seats, len(parts)))
        return jnp.stack([_pick(part, u[..., i]) for i, part in enumerate(parts)], axis=-1)
    return _pick(mask, *_short_uniform(key, seats, bits=8 if mask.shape[-1] <= 2 else 16))


def _short_uniform(key: Array, shape: tuple[int, ...], bits: int) -> tuple[Array, int]:
    """[*shape] uint32 numbers of few random `bits`, several cut from each 32-bit word; and `bits`."""
    size, per_word = math.prod(shape), 32 // bits
    words = jax.random.bits(key, (-(-size // per_word),))
    parts = words[:, None] >> (bits * np.arange(per_word, dtype=np.uint32))
    return (parts & np.uint32(2**bits - 1)).reshape(-1)[:size].reshape(shape), bits


def _pick(mask: Array, u: Array, bits: int = 0) -> Array:
    """[...] int32, the True entry number floor(u * count / 2^bits) of `mask` [..., N].

    `u` [...] lies in [0, 2^bits). The running count is written out over N: on a CPU jnp.cumsum
    takes two to four times as long.
    """
    legal = [mask[..., i].astype(u.dtype) for i in range(mask.shape[-1])]
    counts = list(itertools.accumulate(legal))  # N times [...], legal actions up to this one
    nth = u * counts[-1]
    nth = nth >> bits if bits else jnp.floor(nth)
    return sum((count <= nth).astype(jnp.int32) for count in counts)
